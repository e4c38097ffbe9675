//! What may be brought at which hour of the week.
//!
//! A week is a list of changes: from Monday 20:00 on this holds, from Tuesday 06:00 on that, and the
//! last holds until the first. What holds at a moment is what the list says for the day and time that
//! a clock on the wall shows then, in the point's time zone. So where the clock is set forward, the
//! hour that it skips does not count, and where it is set back, the hour that it repeats counts twice,
//! each time as the list has it; 20:00 is 20:00 all year.

use crate::field::{Limit, Priority};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Minutes of a week.
const WEEK: u16 = 7 * DAY;
const DAY: u16 = 24 * 60;
/// The most changes of a week: one every quarter of an hour.
const MOST_CHANGES: usize = 7 * 24 * 4;
/// The longest name of a time zone.
const LONGEST_ZONE: usize = 64;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What may be brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Closed,
    /// What has high priority.
    High,
    /// What has medium or high priority.
    #[serde(rename = "medium+")]
    Medium,
    /// All.
    #[default]
    Open,
}

impl Level {
    /// Whether what has this priority may be brought.
    pub fn allows(self, priority: Priority) -> bool {
        self >= match priority {
            Priority::High => Level::High,
            Priority::Medium => Level::Medium,
            Priority::Low => Level::Open,
        }
    }
}

/// What holds for some hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// What may be brought.
    pub level: Level,
    /// How fast at most, in bytes a second; the point's own limit holds beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// A day of the week and a time of that day, to the minute: `mon 20:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WeekTime(u16);

/// What holds from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// From when on.
    pub at: WeekTime,
    /// What holds.
    #[serde(flatten)]
    pub hours: Hours,
}

/// When a point may bring what. The module header says how it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Week {
    timezone: String,
    /// Each later than the one before; at least one.
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Raw {
    timezone: String,
    changes: Vec<Change>,
}

/// What cannot be a week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadWeek {
    /// Not a day and a time.
    #[error("{0:?} is no time of a week; want a day and a time, such as `mon 20:00`")]
    Time(String),
    /// Not what a time zone is called.
    #[error("{0:?} is no name of a time zone; want one such as `Europe/Paris`")]
    Zone(String),
    /// There is nothing in it.
    #[error("a week has at least one change")]
    Empty,
    /// There is too much in it.
    #[error("a week has at most {MOST_CHANGES} changes, not {0}")]
    TooMany(usize),
    /// Times are not in order.
    #[error("the changes of a week are in order, each time once; {0} is not after {1}")]
    Order(WeekTime, WeekTime),
    /// Too little would pass.
    #[error(
        "a rate is at least {} bytes a second; to let nothing pass, use the level `closed`",
        Limit::LEAST_RATE
    )]
    Rate,
}

/// A time zone that this machine knows nothing of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time zone that this machine knows: check its name, or install the time zone data \
     (tzdata)"
)]
pub struct UnknownZone(pub String);

impl TryFrom<Raw> for Week {
    type Error = BadWeek;
    fn try_from(raw: Raw) -> Result<Self, BadWeek> {
        Self::new(raw.timezone, raw.changes)
    }
}

impl Week {
    /// The week of these changes, by the clock of `timezone` (an IANA name). Whether there is such a
    /// time zone, [`Week::zone`] says.
    pub fn new(timezone: String, changes: Vec<Change>) -> Result<Self, BadWeek> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
        if timezone.is_empty() || timezone.len() > LONGEST_ZONE || !timezone.chars().all(is_name) {
            return Err(BadWeek::Zone(timezone.chars().take(LONGEST_ZONE).collect()));
        }
        if changes.is_empty() {
            return Err(BadWeek::Empty);
        }
        if changes.len() > MOST_CHANGES {
            return Err(BadWeek::TooMany(changes.len()));
        }
        if let Some([one, two]) = changes.array_windows().find(|[one, two]| two.at <= one.at) {
            return Err(BadWeek::Order(two.at, one.at));
        }
        let is_too_low = |change: &Change| change.hours.rate.is_some_and(|r| r < Limit::LEAST_RATE);
        if changes.iter().any(is_too_low) {
            return Err(BadWeek::Rate);
        }
        Ok(Self { timezone, changes })
    }

    /// The week in which `otherwise` holds but for some spans, each from a time until another, over
    /// the end of the week if that is before; of two that overlap, the later in the list counts. A
    /// span that ends where it begins is the whole week.
    pub fn of_spans(
        timezone: String,
        otherwise: Hours,
        spans: &[(WeekTime, WeekTime, Hours)],
    ) -> Result<Self, BadWeek> {
        let mut minutes = vec![otherwise; WEEK.into()];
        for (from, until, hours) in spans {
            let mut at = *from;
            loop {
                minutes[usize::from(at.0)] = *hours;
                at = at.plus(1);
                if at == *until {
                    break;
                }
            }
        }
        let mut changes: Vec<Change> = Vec::new();
        for (minute, hours) in (0..).zip(minutes) {
            if changes.last().is_none_or(|last| last.hours != hours) {
                changes.push(Change { at: WeekTime(minute), hours });
            }
        }
        Self::new(timezone, changes)
    }

    /// The name of the time zone.
    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The time zone, if this machine knows it.
    pub fn zone(&self) -> Result<TimeZone, UnknownZone> {
        TimeZone::get(&self.timezone).map_err(|_| UnknownZone(self.timezone.clone()))
    }

    /// What holds when the clock on the wall shows `time`.
    pub fn at_wall(&self, time: WeekTime) -> Hours {
        let next = self.changes.partition_point(|change| change.at <= time);
        let before = next.checked_sub(1).and_then(|at| self.changes.get(at));
        // Before the first change of a week, the last one of the week before holds.
        before.or(self.changes.last()).map_or_else(Hours::default, |change| change.hours)
    }

    /// What holds at `now` in `zone`.
    pub fn at(&self, now: Timestamp, zone: &TimeZone) -> Hours {
        self.at_wall(WeekTime::of(&now.to_zoned(zone.clone())))
    }

    /// The next moment after `now` at which `is_so` is true of what holds; nothing if it never is.
    pub fn next(
        &self,
        now: Timestamp,
        zone: &TimeZone,
        is_so: impl Fn(Hours) -> bool,
    ) -> Option<Timestamp> {
        // A week, and a change of the clock: whatever there is comes round in that time.
        let last = now.checked_add(SignedDuration::from_hours(8 * 24)).ok()?;
        let mut at = now;
        loop {
            at = self.step(at, zone)?;
            if at > last {
                return None;
            }
            if is_so(self.at(at, zone)) {
                return Some(at);
            }
        }
    }

    /// The next moment after `now` when the clock passes a change, or is set. Between two of them it
    /// goes as time does.
    fn step(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let wall = now.to_zoned(zone.clone());
        let time = WeekTime::of(&wall);
        let next = self.changes.partition_point(|change| change.at <= time);
        let next = self.changes.get(next).or(self.changes.first())?.at;
        let minutes = match next.0.wrapping_add(WEEK).wrapping_sub(time.0) % WEEK {
            0 => WEEK,
            minutes => minutes,
        };
        let into_the_minute = SignedDuration::from_secs(wall.second().into())
            + SignedDuration::from_nanos(wall.subsec_nanosecond().into());
        let passes = SignedDuration::from_mins(minutes.into()) - into_the_minute;
        let passes = now.checked_add(passes).ok()?;
        let is_set = zone.following(now).next().map(|transition| transition.timestamp());
        Some(is_set.map_or(passes, |is_set| passes.min(is_set)))
    }
}

impl WeekTime {
    /// That minute of the day; nothing if there is no such day (Monday is 0) or time.
    pub fn new(day: u8, hour: u8, minute: u8) -> Option<Self> {
        let is_one = day < 7 && hour < 24 && minute < 60;
        is_one.then(|| Self(u16::from(day) * DAY + u16::from(hour) * 60 + u16::from(minute)))
    }

    /// So many minutes later, or so many days times 1440; after the end of the week it begins anew.
    pub fn plus(self, minutes: u16) -> Self {
        Self((self.0 + minutes % WEEK) % WEEK)
    }

    /// The day, from Monday, which is 0.
    pub fn day(self) -> u8 {
        (self.0 / DAY) as u8
    }

    fn of(wall: &Zoned) -> Self {
        let day = wall.weekday().to_monday_zero_offset() as u16;
        Self(day * DAY + wall.hour() as u16 * 60 + wall.minute() as u16)
    }
}

/// The day called `text`, from Monday, which is 0: its first three letters, or all.
pub fn day_called(text: &str) -> Option<u8> {
    const WHOLE: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.to_ascii_lowercase();
    let at = (0..7).find(|at| DAYS[*at] == text || WHOLE[*at] == text)?;
    Weekday::from_monday_zero_offset(at as i8).ok().map(|_| at as u8)
}

impl FromStr for WeekTime {
    type Err = BadWeek;
    fn from_str(text: &str) -> Result<Self, BadWeek> {
        let bad = || BadWeek::Time(text.chars().take(40).collect());
        let (day, time) = text.trim().split_once(' ').ok_or_else(bad)?;
        let (hour, minute) = hour_and_minute(time).ok_or_else(bad)?;
        WeekTime::new(day_called(day).ok_or_else(bad)?, hour, minute).ok_or_else(bad)
    }
}

/// `20:00`. What comes of it may be no time: `WeekTime::new` says.
pub fn hour_and_minute(text: &str) -> Option<(u8, u8)> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let is_two_digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        is_two_digits.then(|| text.parse().ok()).flatten()
    };
    Some((number(hour)?, number(minute)?))
}

impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS[usize::from(self.day())];
        write!(f, "{day} {:02}:{:02}", self.0 % DAY / 60, self.0 % 60)
    }
}

impl TryFrom<String> for WeekTime {
    type Error = BadWeek;
    fn try_from(text: String) -> Result<Self, BadWeek> {
        text.parse()
    }
}

impl From<WeekTime> for String {
    fn from(time: WeekTime) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> WeekTime {
        text.parse().unwrap()
    }

    fn hours(level: Level) -> Hours {
        Hours { level, rate: None }
    }

    fn week(zone: &str, changes: &[(&str, Level)]) -> Week {
        let changes =
            changes.iter().map(|&(at, level)| Change { at: time(at), hours: hours(level) });
        Week::new(zone.into(), changes.collect()).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Closed on working days from 06:00 to 20:00, in Paris.
    fn nights() -> Week {
        let spans: Vec<_> = ["mon", "tue", "wed", "thu", "fri"]
            .iter()
            .map(|day| {
                (time(&format!("{day} 06:00")), time(&format!("{day} 20:00")), hours(Level::Closed))
            })
            .collect();
        Week::of_spans("Europe/Paris".into(), hours(Level::Open), &spans).unwrap()
    }

    #[test]
    fn levels_let_through_what_they_say() {
        use Priority::{High, Low, Medium};
        let through = |level: Level| [Low, Medium, High].map(|priority| level.allows(priority));
        assert_eq!(through(Level::Closed), [false, false, false]);
        assert_eq!(through(Level::High), [false, false, true]);
        assert_eq!(through(Level::Medium), [false, true, true]);
        assert_eq!(through(Level::Open), [true, true, true]);
    }

    #[test]
    fn the_hour_is_that_of_the_clock_on_the_wall_all_year() {
        let (week, zone) = (nights(), nights().zone().unwrap());
        let level = |now: &str| week.at(utc(now), &zone).level;
        // A Wednesday in summer, two hours ahead; a Wednesday in winter, one hour ahead.
        assert_eq!(level("2026-07-15T03:59:59Z"), Level::Open);
        assert_eq!(level("2026-07-15T04:00:00Z"), Level::Closed);
        assert_eq!(level("2026-01-14T04:59:59Z"), Level::Open);
        assert_eq!(level("2026-01-14T05:00:00Z"), Level::Closed);
        let opens = |now: &str| week.next(utc(now), &zone, |hours| hours.level == Level::Open);
        assert_eq!(opens("2026-07-15T12:00:00.5Z"), Some(utc("2026-07-15T18:00:00Z")));
        assert_eq!(opens("2026-01-14T12:00:01Z"), Some(utc("2026-01-14T19:00:00Z")));
        // From a Friday evening before the clock is set forward to the Monday after it.
        let closes = week.next(utc("2026-03-27T19:00:00Z"), &zone, |h| h.level == Level::Closed);
        assert_eq!(closes, Some(utc("2026-03-30T04:00:00Z")));
    }

    #[test]
    fn an_hour_that_is_skipped_does_not_count() {
        // On Sunday 2026-03-29, 02:00 is followed by 03:00, at 01:00 UTC.
        let open =
            week("Europe/Paris", &[("sun 02:15", Level::Open), ("sun 02:45", Level::Closed)]);
        let zone = open.zone().unwrap();
        let now = utc("2026-03-28T12:00:00Z");
        let is_open = |hours: Hours| hours.level == Level::Open;
        assert_eq!(open.next(now, &zone, is_open), Some(utc("2026-04-05T00:15:00Z")));
        // A change in the hour that is skipped holds from the moment when it is.
        let change =
            week("Europe/Paris", &[("sun 02:30", Level::Open), ("sun 12:00", Level::Closed)]);
        assert_eq!(change.next(now, &zone, is_open), Some(utc("2026-03-29T01:00:00Z")));
    }

    #[test]
    fn an_hour_that_is_repeated_counts_twice() {
        // On Sunday 2026-10-25, 03:00 is followed by 02:00, at 01:00 UTC.
        let open =
            week("Europe/Paris", &[("sun 02:15", Level::Open), ("sun 02:45", Level::Closed)]);
        let zone = open.zone().unwrap();
        let (mut at, mut edges) = (utc("2026-10-24T12:00:00Z"), Vec::new());
        for _ in 0..4 {
            let now = open.at(at, &zone);
            at = open.next(at, &zone, |hours| hours != now).unwrap();
            edges.push(at);
        }
        let want = ["00:15", "00:45", "01:15", "01:45"];
        assert_eq!(edges, want.map(|time| utc(&format!("2026-10-25T{time}:00Z"))));
    }

    #[test]
    fn the_last_change_holds_over_the_end_of_the_week() {
        let week = week("UTC", &[("tue 10:00", Level::High), ("sat 00:00", Level::Closed)]);
        assert_eq!(week.at_wall(time("mon 00:00")).level, Level::Closed);
        assert_eq!(week.at_wall(time("tue 09:59")).level, Level::Closed);
        assert_eq!(week.at_wall(time("tue 10:00")).level, Level::High);
        assert_eq!(week.at_wall(time("sun 23:59")).level, Level::Closed);
        let always = self::week("UTC", &[("fri 00:00", Level::Closed)]);
        let now = utc("2026-07-15T12:00:00Z");
        assert_eq!(always.next(now, &TimeZone::UTC, |hours| hours.level == Level::Open), None);
    }

    #[test]
    fn spans_go_over_midnight_and_the_later_counts() {
        let (night, noon) = (hours(Level::Open), Hours { level: Level::High, rate: Some(9000) });
        let spans = [
            (time("sun 22:00"), time("mon 05:30"), night),
            (time("sun 23:00"), time("sun 23:30"), noon),
        ];
        let week = Week::of_spans("UTC".into(), hours(Level::Closed), &spans).unwrap();
        let shown: Vec<_> = week.changes().iter().map(|c| (c.at.to_string(), c.hours)).collect();
        let want = [
            ("mon 00:00", night),
            ("mon 05:30", hours(Level::Closed)),
            ("sun 22:00", night),
            ("sun 23:00", noon),
            ("sun 23:30", night),
        ];
        assert_eq!(shown, want.map(|(at, hours)| (at.to_owned(), hours)));
        let whole = [(time("wed 07:00"), time("wed 07:00"), noon)];
        let week = Week::of_spans("UTC".into(), night, &whole).unwrap();
        assert_eq!(week.changes().len(), 1);
        assert_eq!(week.at_wall(time("mon 00:00")), noon);
    }

    #[test]
    fn what_is_no_week_is_refused() {
        for text in ["", "mon", "mon 24:00", "mon 1:00", "mon 10:60", "xyz 10:00", "mon  10:00x"] {
            assert!(text.parse::<WeekTime>().is_err(), "{text}");
        }
        let read = |json: &str| serde_json::from_str::<Week>(json).map_err(|e| e.to_string());
        let one =
            r#"{"timezone":"UTC","changes":[{"at":"mon 00:00","level":"medium+","rate":8000}]}"#;
        let week = read(one).unwrap();
        assert_eq!(serde_json::to_string(&week).unwrap(), one);
        for (from, to, says) in [
            ("UTC", "../etc/passwd\\u0000", "name of a time zone"),
            ("UTC", "", "name of a time zone"),
            ("mon", "someday", "no time of a week"),
            ("\"rate\":8000", "\"rate\":7999", "level `closed`"),
            ("medium+", "wide", "unknown variant"),
            ("{\"at\":\"mon 00:00\",\"level\":\"medium+\",\"rate\":8000}", "", "at least one"),
        ] {
            let error = read(&one.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let twice = vec![week.changes()[0]; 2];
        assert!(matches!(Week::new("UTC".into(), twice), Err(BadWeek::Order(..))));
        let nowhere = Week::new("Europe/Nowhere".into(), week.changes().to_vec()).unwrap();
        assert!(nowhere.zone().unwrap_err().to_string().contains("tzdata"));
    }

    proptest! {
        /// The next change is the first moment at which anything differs, found by looking at each
        /// minute: also around the nights in which the clock is set, and where it is set by half an
        /// hour (Lord Howe Island).
        #[test]
        fn the_next_change_is_what_looking_all_the_time_would_find(
            zone in prop_oneof![Just("Europe/Paris"), Just("Australia/Lord_Howe"), Just("UTC"),
                Just("America/New_York")],
            at in proptest::collection::btree_map(0..WEEK, 0..4_usize, 1..12),
            start in prop_oneof![
                1_774_600_000..1_774_900_000_i64, 1_792_700_000..1_793_000_000_i64,
                1_775_200_000..1_775_400_000_i64, 1_700_000_000..1_800_000_000_i64],
        ) {
            let levels = [Level::Closed, Level::High, Level::Medium, Level::Open];
            let changes = at.iter()
                .map(|(at, level)| Change { at: WeekTime(*at), hours: hours(levels[*level]) })
                .collect();
            let week = Week::new(zone.into(), changes).unwrap();
            let zone = week.zone().unwrap();
            let start = Timestamp::from_second(start).unwrap();
            let now = week.at(start, &zone);
            let found = week.next(start, &zone, |hours| hours != now);
            let minute = SignedDuration::from_mins(1);
            let whole = Timestamp::from_second(start.as_second().div_euclid(60) * 60).unwrap();
            let seen = (1..8 * 24 * 60)
                .map(|n| whole + minute * n)
                .find(|at| week.at(*at, &zone) != now);
            prop_assert_eq!(found, seen);
        }
    }
}
