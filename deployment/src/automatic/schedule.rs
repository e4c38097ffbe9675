//! When a rule is evaluated.
//!
//! ```text
//! by hand                                         only when somebody asks
//! after sync                                      after each sync that changed the catalogue
//! weekly mon,thu at 20:00 Europe/Berlin           at times of a calendar: days as in crate::calendar
//! monthly 2nd tue +3 at 06:00 Europe/Berlin       three days after patch day
//! daily/2 at 06:00 UTC from 2026-01-31            counted from a day
//! ```
//!
//! Days after a weekday of a month stay in that month: what would be in the next one is on the last day, so that each month
//! has its evaluation. A time that the clock skips is the moment at which it is set past it; of one that it shows twice the
//! first counts. Without `from`, days, weeks and months are counted from the beginning of 2024, a Monday.

use crate::calendar::{BadRecurrence, Recurrence};
use crate::window::first_moment;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use sync::schedule::Schedule;

/// From when it is counted where nothing is said.
const COUNTED_FROM: Date = Date::constant(2024, 1, 1);
/// Days before a moment on which a time may be that is after it: a day that a clock may skip, and one for the
/// difference of clocks.
const DAYS_BEFORE: i64 = 2;
/// Over so many days it is counted which of two schedules is the more frequent.
const COMPARED: i64 = 400;
/// More of them than this in that time are as good as many.
const MANY: usize = 20_000;
/// What was missed longer ago than this is not made up for.
const MISSED: SignedDuration = SignedDuration::from_hours(24 * 62);

/// When a rule is evaluated. Read from text with [`str::parse`], and written as text that reads as the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Evaluation {
    /// Only when somebody asks.
    #[default]
    ByHand,
    /// After each sync that changed the catalogue.
    AfterSync,
    /// At times of a calendar.
    At(Calendar),
}

/// Times of a calendar, by the clock of a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    recurrence: Recurrence,
    at: Time,
    zone: String,
    from: Option<Date>,
}

/// Text that says not when a rule is evaluated, or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEvaluation {
    /// It is none of the forms.
    #[error(
        "{0:?} says not when a rule is evaluated; want 'by hand', 'after sync', or days and a time as \
         'monthly 2nd tue +3 at 06:00 Europe/Berlin'"
    )]
    Form(String),
    /// The days cannot be read.
    #[error(transparent)]
    Days(#[from] BadRecurrence),
    /// The time cannot be read.
    #[error("{0:?} is no time of a day; want 00:00 to 23:59")]
    Time(String),
    /// There is no such time zone.
    #[error("there is no time zone {0:?} here; want an IANA name such as Europe/Berlin, or UTC")]
    Zone(String),
    /// The day cannot be read.
    #[error("{0:?} is no day to count from; want one as 2026-01-31")]
    From(String),
    /// Once, and not when.
    #[error("'once' needs the day: add 'from 2026-01-31'")]
    Once,
    /// There is nothing new in between.
    #[error(
        "the rule would be evaluated {rule} times in {COMPARED} days, and the sources are synchronised {sync} \
         times: there is nothing new in between; take fewer, or 'after sync'"
    )]
    TooOften {
        /// How often the rule would be evaluated.
        rule: usize,
        /// How often something is synchronised.
        sync: usize,
    },
}

impl Calendar {
    /// The first time after `after`; none if there is none any more.
    ///
    /// # Errors
    /// Its time zone is not known on this machine.
    pub fn next(&self, after: Timestamp) -> Result<Option<Timestamp>, BadEvaluation> {
        Ok(self.times(&known(&self.zone)?, after).next())
    }

    /// The time zone by whose clock it goes.
    ///
    /// # Errors
    /// It is not known on this machine.
    pub fn zone(&self) -> Result<TimeZone, BadEvaluation> {
        known(&self.zone)
    }

    /// The times after `after`, in order.
    fn times(&self, zone: &TimeZone, after: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let today = after.to_zoned(zone.clone()).date();
        let (at, zone) = (self.at, zone.clone());
        let mut last = after;
        self.days(today.saturating_sub(DAYS_BEFORE.days()))
            .map_while(move |day| first_moment(day.to_datetime(at), &zone))
            .filter(move |time| {
                // Two days that the clock skips together are one moment.
                let is_later = *time > last;
                last = last.max(*time);
                is_later
            })
    }

    /// The days from `from` on, in order: those after a weekday of a month are in that month.
    fn days(&self, from: Date) -> Box<dyn Iterator<Item = Date>> {
        let start = self.from.unwrap_or(COUNTED_FROM);
        let from = from.max(start);
        match self.recurrence {
            Recurrence::MonthlyByWeekday { every, nth, weekday, after } if after > 0 => {
                let base = Recurrence::MonthlyByWeekday { every, nth, weekday, after: 0 };
                let days = base.days(start.first_of_month(), from.first_of_month());
                let pinned = days.filter_map(move |day| {
                    let later = day.checked_add(i64::from(after).days()).ok();
                    let last = day.last_of_month();
                    let pinned = later.map_or(last, |later| later.min(last));
                    (pinned >= from).then_some(pinned)
                });
                Box::new(pinned)
            }
            other => Box::new(other.days(start, from)),
        }
    }
}

fn known(zone: &str) -> Result<TimeZone, BadEvaluation> {
    TimeZone::get(zone).map_err(|_| BadEvaluation::Zone(zone.into()))
}

impl Evaluation {
    /// The last time of the calendar after `since` and until `now`, that is, an evaluation that is due; several that
    /// were missed are one.
    ///
    /// # Errors
    /// Its time zone is not known on this machine.
    pub fn due(
        &self,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, BadEvaluation> {
        let Self::At(calendar) = self else { return Ok(None) };
        let since = since.max(now.saturating_sub(MISSED).unwrap_or(Timestamp::MIN));
        let times = calendar.times(&known(&calendar.zone)?, since);
        Ok(times.take_while(|time| *time <= now).last())
    }

    /// The first time of the calendar after `after`.
    ///
    /// # Errors
    /// Its time zone is not known on this machine.
    pub fn next(&self, after: Timestamp) -> Result<Option<Timestamp>, BadEvaluation> {
        match self {
            Self::At(calendar) => calendar.next(after),
            Self::ByHand | Self::AfterSync => Ok(None),
        }
    }

    /// The time zone by whose clock it goes; UTC if it has none.
    ///
    /// # Errors
    /// It is not known on this machine.
    pub fn zone(&self) -> Result<TimeZone, BadEvaluation> {
        match self {
            Self::At(calendar) => calendar.zone(),
            Self::ByHand | Self::AfterSync => Ok(TimeZone::UTC),
        }
    }

    /// That it is not more often than the sources are synchronised, by these schedules. Where all are only by hand,
    /// nothing can be said, and it is.
    ///
    /// # Errors
    /// It is, or a time zone is not known on this machine.
    pub fn keeps_to(&self, syncs: &[Schedule], now: Timestamp) -> Result<(), BadEvaluation> {
        let Self::At(calendar) = self else { return Ok(()) };
        let syncs: Vec<_> = syncs.iter().filter(|schedule| !schedule.is_never()).collect();
        if syncs.is_empty() {
            return Ok(());
        }
        let until = now.saturating_add(SignedDuration::from_hours(24 * COMPARED));
        let until = until.unwrap_or(Timestamp::MAX);
        let times = calendar.times(&known(&calendar.zone)?, now);
        let rule = times.take_while(|time| *time <= until).take(MANY).count();
        let mut sync: BTreeSet<Timestamp> = BTreeSet::new();
        for schedule in syncs {
            let mut at = now;
            // As many as the rule has are enough to know.
            while sync.len() <= rule {
                match schedule.next(at) {
                    Ok(Some(next)) if next <= until => at = next,
                    Ok(_) => break,
                    Err(error) => return Err(BadEvaluation::Zone(error.to_string())),
                }
                sync.insert(at);
            }
        }
        match sync.len() < rule {
            true => Err(BadEvaluation::TooOften { rule, sync: sync.len() }),
            false => Ok(()),
        }
    }
}

impl FromStr for Evaluation {
    type Err = BadEvaluation;

    /// Reads it, in either case. A time without a zone is of UTC.
    fn from_str(text: &str) -> Result<Self, BadEvaluation> {
        let read = parse(text)?;
        if let Self::At(calendar) = &read {
            known(&calendar.zone)?;
        }
        Ok(read)
    }
}

/// Reads it; whether the time zone is known here is not asked.
fn parse(text: &str) -> Result<Evaluation, BadEvaluation> {
    let wrong = || BadEvaluation::Form(text.chars().take(100).collect());
    let words: Vec<&str> = text.split_whitespace().take(20).collect();
    let is = |all: &[&str]| {
        words.len() == all.len() && words.iter().zip(all).all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    if is(&["by", "hand"]) {
        return Ok(Evaluation::ByHand);
    }
    if is(&["after", "sync"]) {
        return Ok(Evaluation::AfterSync);
    }
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("at")).ok_or_else(wrong)?;
    let (days, rest) = words.split_at(at);
    let recurrence: Recurrence = days.join(" ").parse()?;
    let (time, zone, from) = match rest {
        [_, time] => (time, "UTC", None),
        [_, time, zone] => (time, *zone, None),
        [_, time, from, day] if from.eq_ignore_ascii_case("from") => (time, "UTC", Some(day)),
        [_, time, zone, from, day] if from.eq_ignore_ascii_case("from") => (time, *zone, Some(day)),
        _ => return Err(wrong()),
    };
    let from = match from {
        None if recurrence == Recurrence::Once => return Err(BadEvaluation::Once),
        None => None,
        Some(day) => Some(day.parse().map_err(|_| BadEvaluation::From((*day).into()))?),
    };
    let at = time_of_day(time).ok_or_else(|| BadEvaluation::Time((*time).into()))?;
    Ok(Evaluation::At(Calendar { recurrence, at, zone: zone.into(), from }))
}

/// `06:00`.
pub(super) fn time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let is_plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| text.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByHand => f.write_str("by hand"),
            Self::AfterSync => f.write_str("after sync"),
            Self::At(Calendar { recurrence, at, zone, from }) => {
                write!(f, "{recurrence} at {:02}:{:02} {zone}", at.hour(), at.minute())?;
                from.map_or(Ok(()), |from| write!(f, " from {from}"))
            }
        }
    }
}

impl TryFrom<String> for Evaluation {
    type Error = BadEvaluation;
    /// Also takes a zone that is not known here: what another machine wrote must stay readable.
    fn try_from(text: String) -> Result<Self, BadEvaluation> {
        parse(&text)
    }
}

impl From<Evaluation> for String {
    fn from(evaluation: Evaluation) -> String {
        evaluation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::tests::recurrence;
    use jiff::civil::Weekday;
    use proptest::prelude::*;

    fn at(text: &str) -> Evaluation {
        text.parse().unwrap()
    }

    fn times(text: &str, after: &str, n: usize) -> Vec<String> {
        let evaluation = at(text);
        let mut now: Timestamp = after.parse().unwrap();
        let mut found = Vec::new();
        while found.len() < n {
            let Some(next) = evaluation.next(now).unwrap() else { break };
            assert!(next > now);
            now = next;
            found.push(now.to_string());
        }
        found
    }

    #[test]
    fn days_after_patch_day_stay_in_its_month() {
        assert_eq!(
            times("monthly 2nd tue +20 at 06:00 Europe/Berlin", "2026-01-01T00:00:00Z", 3),
            // Patch days are the 13th, the 10th and the 10th; February has 28 days.
            ["2026-01-31T05:00:00Z", "2026-02-28T05:00:00Z", "2026-03-30T04:00:00Z"]
        );
        assert_eq!(
            times("monthly 2nd tue +3 at 20:00", "2026-01-15T00:00:00Z", 2),
            ["2026-01-16T20:00:00Z", "2026-02-13T20:00:00Z"]
        );
        assert_eq!(
            times("once at 08:00 from 2026-05-01", "2026-01-01T00:00:00Z", 9),
            ["2026-05-01T08:00:00Z"]
        );
    }

    /// Twenty years of a rule that is evaluated some days after patch day, in every time zone that this machine knows.
    #[test]
    fn each_month_has_one_evaluation_on_its_day_in_every_zone() {
        let zones: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        assert!(zones.len() > 300, "{}", zones.len());
        // Times at which clocks are set, and others; offsets that stay in the month and such that do not.
        for (nth, zone) in zones.iter().enumerate() {
            let offset = [0, 1, 7, 19, 24, 28][nth % 6];
            let time = ["02:30", "00:00", "03:00", "23:59", "01:15"][nth % 5];
            let evaluation = at(&format!("monthly 2nd tue +{offset} at {time} {zone}"));
            let tz = TimeZone::get(zone).unwrap();
            let wanted = time_of_day(time).unwrap();
            let mut now = Date::constant(2026, 1, 1).to_zoned(tz.clone()).unwrap().timestamp();
            for month in 0..20 * 12 {
                let first = Date::new(2026 + month / 12, (month % 12 + 1) as i8, 1).unwrap();
                let patch_day = first.nth_weekday_of_month(2, Weekday::Tuesday).unwrap();
                let day = patch_day.checked_add(i64::from(offset).days()).unwrap();
                let day = day.min(first.last_of_month());
                // A site that is away for three weeks catches up once.
                let next = evaluation.next(now).unwrap().unwrap();
                if month % 12 == nth as i16 % 12 {
                    let late = next.checked_add(SignedDuration::from_hours(21 * 24)).unwrap();
                    assert_eq!(evaluation.due(now, late).unwrap(), Some(next), "{zone}");
                    assert_eq!(evaluation.due(next, next).unwrap(), None, "{zone}");
                }
                let shown = next.to_zoned(tz.clone()).datetime();
                assert_eq!(shown.date(), day, "{zone} {month}");
                let is_exact = !tz.to_ambiguous_timestamp(day.to_datetime(wanted)).is_ambiguous();
                assert!(!is_exact || shown.time() == wanted, "{zone}: {shown}");
                assert!(shown.time() >= wanted, "{zone}: {shown}");
                now = next;
            }
        }
    }

    proptest! {
        #[test]
        fn an_evaluation_reads_back(
            it in recurrence(), minutes in 0..1440_i32, zone in "UTC|Europe/Berlin", day in 0..9_000_i64,
        ) {
            let at = Time::new((minutes / 60) as i8, (minutes % 60) as i8, 0, 0).unwrap();
            let from = COUNTED_FROM.checked_add(day.days()).unwrap();
            let calendar = Calendar { recurrence: it, at, zone, from: Some(from) };
            let evaluation = Evaluation::At(calendar);
            prop_assert_eq!(evaluation.to_string().parse(), Ok(evaluation));
        }

        #[test]
        fn times_go_forward_and_what_is_due_is_the_last_of_them(
            it in recurrence(), hour in 0..24_i8, since in 0..40_000_i64, hours in 0..1_200_i64,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Pacific/Apia", "America/New_York"]),
        ) {
            let at = Time::new(hour, 30, 0, 0).unwrap();
            let calendar = Calendar { recurrence: it, at, zone: zone.into(), from: Some(COUNTED_FROM) };
            let evaluation = Evaluation::At(calendar);
            let epoch: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
            let since = epoch.checked_add(SignedDuration::from_hours(since)).unwrap();
            let now = since.checked_add(SignedDuration::from_hours(hours)).unwrap();
            let (mut time, mut last) = (since, None);
            while let Some(next) = evaluation.next(time).unwrap().filter(|next| *next <= now) {
                prop_assert!(next > time);
                time = next;
                last = Some(next);
            }
            prop_assert_eq!(evaluation.due(since, now).unwrap(), last);
        }

        #[test]
        fn any_text_is_one_or_an_error(
            text in ".{0,30}", more in "(daily|weekly mon|monthly 31|by|after) ?(at|hand|sync)? ?[0-9: ]{0,6}(from|UTC)?.{0,6}"
        ) {
            for text in [text, more] {
                if let Ok(it) = text.parse::<Evaluation>() {
                    prop_assert_eq!(it.to_string().parse(), Ok(it));
                }
            }
        }
    }

    #[test]
    fn a_rule_is_not_evaluated_more_often_than_something_is_synchronised() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let keeps = |rule: &str, syncs: &[&str]| {
            let syncs: Vec<Schedule> = syncs.iter().map(|text| text.parse().unwrap()).collect();
            at(rule).keeps_to(&syncs, now)
        };
        keeps("daily at 06:00", &["every day 03:00"]).unwrap();
        keeps("daily at 06:00", &["every 4 hours"]).unwrap();
        keeps("daily at 06:00", &["never"]).unwrap();
        keeps("daily at 06:00", &[]).unwrap();
        keeps("after sync", &["second tuesday 19:00"]).unwrap();
        keeps("monthly 2nd tue +3 at 06:00", &["second tuesday 19:00"]).unwrap();
        let error = keeps("daily at 06:00", &["never", "second tuesday 19:00"]).unwrap_err();
        assert!(matches!(error, BadEvaluation::TooOften { rule: 400, sync: 13 | 14 }), "{error:?}");
        assert!(keeps("weekly mon,tue at 06:00", &["every friday 03:00"]).is_err());
        keeps("weekly mon,tue at 06:00", &["every friday 03:00", "every monday 03:00"]).unwrap();
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, says) in [
            ("", "want 'by hand'"),
            ("sometimes", "want 'by hand'"),
            ("daily", "want 'by hand'"),
            ("daily at 25:00", "00:00 to 23:59"),
            ("daily at 06:00 Europe/Nowhere", "no time zone"),
            ("monthly 40 at 06:00", "1 to 31"),
            ("once at 06:00", "from 2026-01-31"),
            ("daily at 06:00 UTC from spring", "day to count from"),
        ] {
            let error = wrong.parse::<Evaluation>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
