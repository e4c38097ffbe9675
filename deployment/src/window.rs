//! Maintenance windows: when machines may be changed.
//!
//! A window opens when the clock first shows its time, or a later one where the clock is set past it, and
//! stays open for its length as time passes, whatever the clock does meanwhile. The windows of all collections
//! of a client count together; those that overlap or touch are one.
//!
//! All answers are pure functions of the windows, the time zone of the client, and `now`.

use crate::calendar::Recurrence;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::iter::Peekable;

/// The shortest and the longest window, in minutes.
pub const MINUTES: std::ops::RangeInclusive<u16> = 5..=24 * 60;
/// A window that never closes is told in pieces of about so many days.
const PIECE: SignedDuration = SignedDuration::from_hours(31 * 24);
/// So far ahead a window is looked for. The rarest ones come every 24 months.
const HORIZON: SignedDuration = SignedDuration::from_hours(3 * 366 * 24);
/// Days before now on which a window may begin that is open now: its length, a day that a clock may skip, and
/// one for the difference of clocks.
const DAYS_BEFORE: i64 = 3;

/// By which clock a window opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// UTC: everywhere at the same moment.
    Utc,
    /// The client's.
    Local,
}

/// When machines may be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Window {
    start: DateTime,
    minutes: u16,
    clock: Clock,
    recurrence: Recurrence,
}

/// A window as it is written.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    start: DateTime,
    minutes: u16,
    clock: Clock,
    recurrence: Recurrence,
}

/// What is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadWindow {
    /// It is too short or too long.
    #[error("a maintenance window takes from 5 to 1440 minutes, not {0}")]
    Length(u16),
    /// It does not begin with a minute.
    #[error("a maintenance window begins at a whole minute, not at {0}")]
    Second(DateTime),
}

/// A time in which machines may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its first moment.
    pub from: Timestamp,
    /// The first one after it.
    pub until: Timestamp,
}

impl Window {
    /// A window of so many minutes that first opens at `start` or, if it does not open on that day, on the next
    /// day on which it does.
    ///
    /// # Errors
    /// It is too short or too long, or begins within a minute.
    pub fn new(
        start: DateTime,
        minutes: u16,
        clock: Clock,
        recurrence: Recurrence,
    ) -> Result<Self, BadWindow> {
        if !MINUTES.contains(&minutes) {
            return Err(BadWindow::Length(minutes));
        }
        if start.second() != 0 || start.subsec_nanosecond() != 0 {
            return Err(BadWindow::Second(start));
        }
        Ok(Self { start, minutes, clock, recurrence })
    }

    /// The first day on which it may open, and the time at which it does.
    pub fn start(&self) -> DateTime {
        self.start
    }

    /// How long it is open, in minutes.
    pub fn minutes(&self) -> u16 {
        self.minutes
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When it opens again.
    pub fn recurrence(&self) -> Recurrence {
        self.recurrence
    }

    /// The times in which it is open that end after `now`, in order.
    fn times(&self, now: Timestamp, local: &TimeZone) -> impl Iterator<Item = Open> + use<> {
        let zone = match self.clock {
            Clock::Utc => TimeZone::UTC,
            Clock::Local => local.clone(),
        };
        let today = now.to_zoned(zone.clone()).date();
        let from = today.saturating_sub(DAYS_BEFORE.days());
        let (time, minutes) = (self.start.time(), self.minutes);
        let days = self.recurrence.days(self.start.date(), from);
        let times = days.map_while(move |day| {
            let from = first_moment(day.to_datetime(time), &zone)?;
            let until = from.checked_add(SignedDuration::from_mins(minutes.into())).ok()?;
            Some(Open { from, until })
        });
        times.skip_while(move |it| it.until <= now)
    }
}

impl TryFrom<Written> for Window {
    type Error = BadWindow;
    fn try_from(it: Written) -> Result<Self, BadWindow> {
        Self::new(it.start, it.minutes, it.clock, it.recurrence)
    }
}

impl From<Window> for Written {
    fn from(it: Window) -> Self {
        let Window { start, minutes, clock, recurrence } = it;
        Self { start, minutes, clock, recurrence }
    }
}

/// The first moment at which the clock shows that time, or a later one where it is set past it.
pub(crate) fn first_moment(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            // As the clock went before, it would have shown the time after it was set.
            let after = before.to_timestamp(time).ok()?.checked_add(1.second()).ok()?;
            zone.preceding(after).next().map(|set| set.timestamp())
        }
    }
}

/// Windows that count together.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    /// They.
    pub windows: &'a [Window],
    /// The time zone of the client.
    pub local: &'a TimeZone,
}

impl Windows<'_> {
    /// The times in which one is open and which end after `now`, in order, as far as they are looked for.
    pub fn times(&self, now: Timestamp) -> impl Iterator<Item = Open> {
        let last = now.saturating_add(HORIZON).unwrap_or(Timestamp::MAX);
        let all = self.windows.iter().map(|window| window.times(now, self.local).peekable());
        Merged { all: all.collect() }.take_while(move |it| it.from <= last)
    }

    /// The time at `now` in which one is open; none if none is.
    pub fn open(&self, now: Timestamp) -> Option<Open> {
        self.times(now).next().filter(|it| it.from <= now)
    }

    /// The next time after `now` in which one opens that is not open yet.
    pub fn next(&self, now: Timestamp) -> Option<Open> {
        self.times(now).find(|it| it.from > now)
    }

    /// The first moment from `now` on at which one is open and stays so for as long as is needed; none if that
    /// never comes, or not in three years.
    pub fn usable(&self, now: Timestamp, need: SignedDuration) -> Option<Timestamp> {
        let begins = |it: Open| {
            let begin = it.from.max(now);
            (it.until.duration_since(begin) >= need).then_some(begin)
        };
        self.times(now).find_map(begins)
    }
}

/// The times of several windows, those joined that overlap or touch.
struct Merged<I: Iterator<Item = Open>> {
    all: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = Open>> Merged<I> {
    /// The one that begins first.
    fn first(&mut self) -> Option<&mut Peekable<I>> {
        let begins = |times: &mut Peekable<I>| times.peek().map(|it| it.from);
        let all = self.all.iter_mut().filter_map(|times| begins(times).map(|at| (at, times)));
        all.min_by_key(|(at, _)| *at).map(|(_, times)| times)
    }
}

impl<I: Iterator<Item = Open>> Iterator for Merged<I> {
    type Item = Open;
    fn next(&mut self) -> Option<Open> {
        let mut joined = self.first()?.next()?;
        while joined.until.duration_since(joined.from) < PIECE {
            let Some(next) = self.first().and_then(|it| it.next_if(|it| it.from <= joined.until))
            else {
                break;
            };
            joined.until = joined.until.max(next.until);
        }
        Some(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::tests::{happens, recurrence};
    use jiff::civil::{Date, date};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(start: &str, minutes: u16, clock: Clock, recurrence: &str) -> Window {
        Window::new(start.parse().unwrap(), minutes, clock, recurrence.parse().unwrap()).unwrap()
    }

    fn paris() -> TimeZone {
        TimeZone::get("Europe/Paris").unwrap()
    }

    #[test]
    fn local_windows_follow_the_clock_on_the_wall_and_others_do_not() {
        let zone = paris();
        let opens = |clock, now: &str| {
            let windows = [window("2026-01-03T01:00", 180, clock, "weekly sat")];
            let windows = Windows { windows: &windows, local: &zone };
            windows.next(utc(now)).unwrap().from
        };
        assert_eq!(opens(Clock::Local, "2026-01-10T12:00Z"), utc("2026-01-17T00:00Z"));
        assert_eq!(opens(Clock::Local, "2026-07-10T12:00Z"), utc("2026-07-10T23:00Z"));
        assert_eq!(opens(Clock::Utc, "2026-07-10T12:00Z"), utc("2026-07-11T01:00Z"));
    }

    #[test]
    fn a_window_in_a_skipped_hour_opens_when_the_clock_is_set() {
        let zone = paris();
        let windows = [window("2026-01-01T02:30", 60, Clock::Local, "daily")];
        let windows = Windows { windows: &windows, local: &zone };
        let open = windows.next(utc("2026-03-28T12:00Z")).unwrap();
        assert_eq!((open.from, open.until), (utc("2026-03-29T01:00Z"), utc("2026-03-29T02:00Z")));
        // Where an hour comes twice it opens once, the first time.
        let open = windows.next(utc("2026-10-24T12:00Z")).unwrap();
        assert_eq!(open.from, utc("2026-10-25T00:30Z"));
        assert_eq!(windows.next(open.from).unwrap().from, utc("2026-10-26T01:30Z"));
    }

    #[test]
    fn windows_that_overlap_or_touch_are_one() {
        let windows = [
            window("2026-01-01T22:00", 120, Clock::Utc, "daily"),
            window("2026-01-02T00:00", 60, Clock::Utc, "once"),
            window("2026-01-02T00:30", 90, Clock::Utc, "once"),
        ];
        let all = Windows { windows: &windows, local: &TimeZone::UTC };
        let now = utc("2026-01-01T23:00Z");
        let open = all.open(now).unwrap();
        assert_eq!((open.from, open.until), (utc("2026-01-01T22:00Z"), utc("2026-01-02T02:00Z")));
        let hours = SignedDuration::from_hours;
        assert_eq!(all.usable(now, hours(3)), Some(now));
        assert_eq!(all.usable(now, hours(2)), Some(now));
        let later = utc("2026-01-02T01:00Z");
        assert_eq!(all.usable(later, hours(2)), Some(utc("2026-01-02T22:00Z")));
        assert_eq!(all.usable(later, hours(3)), None, "it never comes again");
        assert_eq!(all.open(utc("2026-01-02T02:00Z")), None);
    }

    #[test]
    fn one_that_never_closes_is_open_for_weeks() {
        let windows = [window("2026-01-01T06:00", 1440, Clock::Utc, "daily")];
        let all = Windows { windows: &windows, local: &TimeZone::UTC };
        let now = utc("2026-06-01T05:00Z");
        let open = all.open(now).unwrap();
        assert!(open.until > now + SignedDuration::from_hours(27 * 24), "{open:?}");
        assert_eq!(all.usable(now, SignedDuration::from_hours(48)), Some(now));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        let start: DateTime = "2026-01-01T01:00".parse().unwrap();
        for minutes in [0, 4, 1441] {
            let refused = Window::new(start, minutes, Clock::Utc, Recurrence::Once);
            assert_eq!(refused, Err(BadWindow::Length(minutes)));
        }
        for minutes in [5, 1440] {
            assert!(Window::new(start, minutes, Clock::Utc, Recurrence::Once).is_ok());
        }
        let odd = "2026-01-01T01:00:30".parse().unwrap();
        assert!(Window::new(odd, 5, Clock::Utc, Recurrence::Once).is_err());
        let json = r#"{"start":"2026-01-01T01:00:00","minutes":180,"clock":"local","recurrence":"weekly sat"}"#;
        let read: Window = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert!(serde_json::from_str::<Window>(&json.replace("180", "3")).is_err());
        let none = Windows { windows: &[], local: &TimeZone::UTC };
        assert_eq!(none.next(Timestamp::UNIX_EPOCH), None);
        let end = Windows { windows: &[read], local: &TimeZone::UTC };
        assert!(end.times(Timestamp::MAX).count() <= 1);
    }

    /// In which minutes a window is open, found by looking at the clock every minute: it opens at the first one
    /// at which the clock shows its time or a later one of the day.
    fn minutes_open(
        window: &Window,
        zone: &TimeZone,
        from: Timestamp,
        n_minutes: i64,
    ) -> BTreeSet<i64> {
        let zone = if window.clock == Clock::Utc { &TimeZone::UTC } else { zone };
        let before = 5 * 24 * 60;
        let mut seen: BTreeSet<Date> = BTreeSet::new();
        let mut open = BTreeSet::new();
        let mut first = None;
        for minute in -before..n_minutes {
            let clock =
                (from + SignedDuration::from_mins(minute)).to_zoned(zone.clone()).datetime();
            let first = *first.get_or_insert(clock.date());
            // The clock may have been set over the end of a day.
            for back in 0..2_i64 {
                let day = clock.date().checked_sub(back.days()).unwrap();
                let is_due = day > first && clock >= day.to_datetime(window.start.time());
                if is_due
                    && seen.insert(day)
                    && happens(window.recurrence, window.start.date(), day)
                {
                    open.extend(minute..minute + i64::from(window.minutes));
                }
            }
        }
        open.into_iter().filter(|minute| (0..n_minutes).contains(minute)).collect()
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let start = (0..700_i64, 0..1440_i64).prop_map(|(day, minute)| {
            let day = date(2025, 1, 1).checked_add(day.days()).unwrap();
            day.at(0, 0, 0, 0).checked_add(minute.minutes()).unwrap()
        });
        let clock = prop_oneof![Just(Clock::Utc), Just(Clock::Local)];
        let minutes = prop_oneof![5..200_u16, 1000..=1440_u16];
        (start, minutes, clock, recurrence()).prop_map(|(start, minutes, clock, recurrence)| {
            Window::new(start, minutes, clock, recurrence).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Around the nights in which clocks are set, by an hour or by half of one, and month ends.
        #[test]
        fn answers_are_what_looking_every_minute_would_find(
            windows in proptest::collection::vec(any_window(), 1..4),
            zone in prop_oneof![Just("Europe/Paris"), Just("Australia/Lord_Howe"),
                Just("America/New_York"), Just("UTC"), Just("Asia/Kathmandu")],
            base in prop_oneof![
                Just("2026-03-27T00:00Z"), Just("2026-10-23T00:00Z"), Just("2026-04-03T00:00Z"),
                Just("2026-03-06T00:00Z"), Just("2026-02-26T00:00Z"), Just("2026-12-29T00:00Z")],
            at in 0..3_000_i64,
            need in 1..2_000_i64,
        ) {
            let (zone, base) = (TimeZone::get(zone).unwrap(), utc(base));
            let n_minutes = 9 * 24 * 60;
            let mut open = BTreeSet::new();
            for window in &windows {
                open.extend(minutes_open(window, &zone, base, n_minutes));
            }
            let all = Windows { windows: &windows, local: &zone };
            let moment = |minute: i64| base + SignedDuration::from_mins(minute);
            let end = moment(n_minutes);
            // What lies after the minutes that were looked at is not compared.
            let seen = |it: Option<Timestamp>| it.filter(|it| *it < end);
            let now = moment(at);
            let is_open = |minute: &i64| open.contains(minute);

            let found = all.open(now);
            prop_assert_eq!(found.is_some(), is_open(&at));
            let closes = (at..n_minutes).find(|minute| !is_open(minute)).map(moment);
            prop_assert_eq!(seen(found.map(|it| it.until)), closes.filter(|_| is_open(&at)));
            let opens = (at + 1..n_minutes).find(|it| is_open(it) && !is_open(&(it - 1)));
            prop_assert_eq!(seen(all.next(now).map(|it| it.from)), opens.map(moment));
            let fits = |from: &i64| (*from..from + need).all(|minute| is_open(&minute));
            let usable = (at..n_minutes - need).find(fits).map(moment);
            let found = all.usable(now, SignedDuration::from_mins(need));
            prop_assert_eq!(found.filter(|it| *it < moment(n_minutes - need)), usable);
        }
    }
}
