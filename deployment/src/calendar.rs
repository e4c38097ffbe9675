//! On which days something happens again: once, daily, weekly, monthly.
//!
//! ```text
//! once                 on the day that it begins
//! daily, daily/2       every day, every second day
//! weekly sat           on Saturdays; weekly/2 mon,thu: in every second week, on Mondays and Thursdays
//! monthly 15           on the 15th; in a month that is shorter, on its last day
//! monthly last         on the last day; monthly/3 1: on the first of every third month
//! monthly 2nd tue      on the second Tuesday; monthly last fri
//! monthly 2nd tue +5   five days after the second Tuesday, and be it in the next month
//! ```
//!
//! Days are those of the clock that somebody reads; [`window`](crate::window) makes moments of them. It is
//! counted from the day, week (from Monday) or month in which it begins.

use jiff::civil::{Date, Weekday};
use jiff::{Span, ToSpan};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most days, weeks or months from one time to the next.
const MOST: [(&str, u16); 3] = [("daily", 366), ("weekly", 53), ("monthly", 24)];
/// The most days after a weekday of a month.
const MOST_AFTER: u8 = 28;

/// When something happens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Recurrence {
    /// Never.
    Once,
    /// Every so many days.
    Daily(u16),
    /// Every so many weeks, on these days.
    Weekly(u16, Days),
    /// Every so many months, on a day of the month.
    MonthlyByDate(u16, MonthDay),
    /// Every so many months, so many days after a weekday.
    MonthlyByWeekday {
        /// How many months.
        every: u16,
        /// Which of the month's.
        nth: Nth,
        /// The weekday.
        weekday: Weekday,
        /// How many days after it.
        after: u8,
    },
}

/// Days of the week, one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

/// A day of the month: 1 to 31, or the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthDay {
    /// That day; of a shorter month, its last.
    On(u8),
    /// The last.
    Last,
}

/// Which one of those that a month has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// The first to the fourth.
    Nth(u8),
    /// The last.
    Last,
}

/// Text that is no recurrence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} says not when: {why}; want one as once, daily, weekly sat, monthly 15, monthly 2nd tue +5"
)]
pub struct BadRecurrence {
    text: String,
    why: String,
}

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
const NTHS: [&str; 4] = ["1st", "2nd", "3rd", "4th"];

impl Days {
    /// These days; none if there is none.
    pub fn new(days: impl IntoIterator<Item = Weekday>) -> Option<Self> {
        let bit = |day: Weekday| 1_u8 << day.to_monday_zero_offset();
        let bits = days.into_iter().fold(0, |bits, day| bits | bit(day));
        (bits != 0).then_some(Self(bits))
    }

    /// Whether a day is one of them.
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl Recurrence {
    /// The days on which it happens if it begins on `start`, from `from` on, in order. It ends where the
    /// calendar does.
    pub fn days(self, start: Date, from: Date) -> impl Iterator<Item = Date> {
        let from = from.max(start);
        let first = self.rounds_until(start, from).saturating_sub(1).max(0);
        let rounds = match self {
            Self::Once => 0..1,
            _ => first..i64::MAX,
        };
        let days = rounds.map_while(move |round| self.round(start, round));
        days.flat_map(|days| days.into_iter().flatten()).filter(move |day| *day >= from)
    }

    /// How many rounds of days, weeks or months pass from `start` to `to`, about.
    fn rounds_until(self, start: Date, to: Date) -> i64 {
        let days = (to - start).get_days();
        let days = i64::from(days);
        let months =
            i64::from(to.year() - start.year()) * 12 + i64::from(to.month() - start.month());
        match self {
            Self::Once => 0,
            Self::Daily(every) => days / i64::from(every.max(1)),
            Self::Weekly(every, _) => days / (7 * i64::from(every.max(1))),
            // A day after the weekday may be in the next month.
            Self::MonthlyByDate(every, _) | Self::MonthlyByWeekday { every, .. } => {
                months.saturating_sub(1) / i64::from(every.max(1))
            }
        }
    }

    /// The days of one round, in order; none after the end of the calendar.
    fn round(self, start: Date, round: i64) -> Option<[Option<Date>; 7]> {
        let mut days = [None; 7];
        let one = |day: Date| {
            let mut days = [None; 7];
            days[0] = Some(day);
            Some(days)
        };
        let later = |date: Date, span: Result<Span, jiff::Error>| date.checked_add(span.ok()?).ok();
        let month = |every: u16| {
            let span = Span::new().try_months(round.checked_mul(every.into())?);
            later(start.first_of_month(), span)
        };
        match self {
            Self::Once => one(start),
            Self::Daily(every) => {
                one(later(start, Span::new().try_days(round.checked_mul(every.into())?))?)
            }
            Self::Weekly(every, wanted) => {
                let monday = start
                    .checked_sub(i64::from(start.weekday().to_monday_zero_offset()).days())
                    .ok()?;
                let monday =
                    later(monday, Span::new().try_weeks(round.checked_mul(every.into())?))?;
                for (place, (_, weekday)) in (0..).zip(WEEKDAYS) {
                    if wanted.contains(weekday) {
                        days[place as usize] = monday.checked_add(place.days()).ok();
                    }
                }
                Some(days)
            }
            Self::MonthlyByDate(every, day) => {
                let month = month(every)?;
                let last = month.days_in_month();
                one(match day {
                    MonthDay::On(day) => {
                        Date::new(month.year(), month.month(), last.min(day as i8)).ok()?
                    }
                    MonthDay::Last => month.last_of_month(),
                })
            }
            Self::MonthlyByWeekday { every, nth, weekday, after } => {
                let nth = match nth {
                    Nth::Nth(nth) => nth as i8,
                    Nth::Last => -1,
                };
                let day = month(every)?.nth_weekday_of_month(nth, weekday).ok()?;
                one(day.checked_add(i64::from(after).days()).ok()?)
            }
        }
    }
}

impl FromStr for Recurrence {
    type Err = BadRecurrence;
    fn from_str(text: &str) -> Result<Self, BadRecurrence> {
        let wrong = |why: String| BadRecurrence { text: text.chars().take(60).collect(), why };
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split_whitespace();
        let kind = words.next().ok_or_else(|| wrong("it is empty".into()))?;
        let (kind, every) = kind.split_once('/').unwrap_or((kind, "1"));
        let rest: Vec<&str> = words.collect();
        if kind == "once" && rest.is_empty() && !lower.contains('/') {
            return Ok(Self::Once);
        }
        let Some((_, most)) = MOST.into_iter().find(|(word, _)| *word == kind) else {
            return Err(wrong(format!("{kind:?} is none of once, daily, weekly, monthly")));
        };
        let every = every.parse().ok().filter(|every| (1..=most).contains(every));
        let every =
            every.ok_or_else(|| wrong(format!("want a number from 1 to {most} after /")))?;
        match (kind, rest.as_slice()) {
            ("daily", []) => Ok(Self::Daily(every)),
            ("weekly", [days]) => {
                let days: Option<Vec<_>> = days.split(',').map(weekday).collect();
                let days = days.and_then(Days::new);
                let days = days.ok_or_else(|| wrong("want days as mon,thu".into()))?;
                Ok(Self::Weekly(every, days))
            }
            ("monthly", ["last"]) => Ok(Self::MonthlyByDate(every, MonthDay::Last)),
            ("monthly", [day]) => {
                let day = day.parse().ok().filter(|day| (1..=31).contains(day));
                let day = day.ok_or_else(|| wrong("want a day from 1 to 31, or last".into()))?;
                Ok(Self::MonthlyByDate(every, MonthDay::On(day)))
            }
            ("monthly", [nth, day, after @ ..]) if after.len() < 2 => {
                let nth = match NTHS.iter().position(|word| word == nth) {
                    Some(at) => Nth::Nth(at as u8 + 1),
                    None if *nth == "last" => Nth::Last,
                    None => return Err(wrong("want 1st, 2nd, 3rd, 4th or last".into())),
                };
                let weekday =
                    weekday(day).ok_or_else(|| wrong(format!("{day:?} is no weekday")))?;
                let after = match after.first() {
                    None => Some(0),
                    Some(after) => after.strip_prefix('+').and_then(|days| days.parse().ok()),
                };
                let after = after.filter(|after| *after <= MOST_AFTER);
                let after = after.ok_or_else(|| wrong(format!("want +0 to +{MOST_AFTER} days")))?;
                Ok(Self::MonthlyByWeekday { every, nth, weekday, after })
            }
            ("daily", _) => Err(wrong("nothing follows daily".into())),
            ("weekly", _) => Err(wrong("want days after weekly".into())),
            _ => Err(wrong("want a day after monthly".into())),
        }
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    WEEKDAYS.iter().find(|(word, _)| *word == text).map(|(_, day)| *day)
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = |word: &str, every: &u16| match every {
            1 => word.to_owned(),
            every => format!("{word}/{every}"),
        };
        let name = |day: &Weekday| WEEKDAYS[day.to_monday_zero_offset() as usize].0;
        match self {
            Self::Once => f.write_str("once"),
            Self::Daily(n) => f.write_str(&every("daily", n)),
            Self::Weekly(n, days) => {
                let all = WEEKDAYS.iter().filter(|(_, day)| days.contains(*day));
                let all: Vec<_> = all.map(|(word, _)| *word).collect();
                write!(f, "{} {}", every("weekly", n), all.join(","))
            }
            Self::MonthlyByDate(n, MonthDay::Last) => write!(f, "{} last", every("monthly", n)),
            Self::MonthlyByDate(n, MonthDay::On(day)) => write!(f, "{} {day}", every("monthly", n)),
            Self::MonthlyByWeekday { every: n, nth, weekday, after } => {
                let nth = match nth {
                    Nth::Nth(nth) => NTHS.get(usize::from(*nth).wrapping_sub(1)).unwrap_or(&"1st"),
                    Nth::Last => "last",
                };
                write!(f, "{} {nth} {}", every("monthly", n), name(weekday))?;
                if *after > 0 { write!(f, " +{after}") } else { Ok(()) }
            }
        }
    }
}

impl TryFrom<String> for Recurrence {
    type Error = BadRecurrence;
    fn try_from(text: String) -> Result<Self, BadRecurrence> {
        text.parse()
    }
}

impl From<Recurrence> for String {
    fn from(recurrence: Recurrence) -> String {
        recurrence.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any recurrence.
    pub(crate) fn recurrence() -> impl Strategy<Value = Recurrence> {
        let weekday = || (0..7_usize).prop_map(|at| WEEKDAYS[at].1);
        let days = (1..128_u8).prop_map(Days);
        let nth = prop_oneof![(1..5_u8).prop_map(Nth::Nth), Just(Nth::Last)];
        let on = prop_oneof![(1..32_u8).prop_map(MonthDay::On), Just(MonthDay::Last)];
        prop_oneof![
            Just(Recurrence::Once),
            (1..5_u16).prop_map(Recurrence::Daily),
            (1..4_u16, days).prop_map(|(every, days)| Recurrence::Weekly(every, days)),
            (1..4_u16, on).prop_map(|(every, day)| Recurrence::MonthlyByDate(every, day)),
            (1..4_u16, nth, weekday(), 0..29_u8).prop_map(|(every, nth, weekday, after)| {
                Recurrence::MonthlyByWeekday { every, nth, weekday, after }
            }),
        ]
    }

    /// Whether it happens on a day: the header, said of one day.
    pub(crate) fn happens(it: Recurrence, start: Date, day: Date) -> bool {
        if day < start {
            return false;
        }
        let days_from = |from: Date, to: Date| i64::from((to - from).get_days());
        let months = |day: Date| {
            i64::from(day.year() - start.year()) * 12 + i64::from(day.month() - start.month())
        };
        let is_in_turn = |months: i64, every: u16| months >= 0 && months % i64::from(every) == 0;
        match it {
            Recurrence::Once => day == start,
            Recurrence::Daily(every) => days_from(start, day) % i64::from(every) == 0,
            Recurrence::Weekly(every, days) => {
                let into = i64::from(start.weekday().to_monday_zero_offset());
                let weeks = (days_from(start, day) + into) / 7;
                weeks % i64::from(every) == 0 && days.contains(day.weekday())
            }
            Recurrence::MonthlyByDate(every, on) => {
                let last = day.days_in_month();
                let on = match on {
                    MonthDay::On(on) => (on as i8).min(last),
                    MonthDay::Last => last,
                };
                is_in_turn(months(day), every) && day.day() == on
            }
            Recurrence::MonthlyByWeekday { every, nth, weekday, after } => {
                let base = day.checked_sub(i64::from(after).days()).unwrap();
                let place = (base.day() - 1) / 7 + 1;
                let is_last = base.day() + 7 > base.days_in_month();
                let is_nth = match nth {
                    Nth::Nth(nth) => place == nth as i8,
                    Nth::Last => is_last,
                };
                base.weekday() == weekday && is_nth && is_in_turn(months(base), every)
            }
        }
    }

    proptest! {
        #[test]
        fn days_are_those_on_which_it_happens(
            it in recurrence(), start in 0..1_000_i64, from in -40..1_500_i64,
        ) {
            let epoch = Date::constant(2026, 1, 1);
            let day = |n: i64| epoch.checked_add(n.days()).unwrap();
            let (start, from) = (day(start), day(from));
            let found: Vec<_> = it.days(start, from).take_while(|it| *it < day(2_500)).collect();
            let mut plain = Vec::new();
            let mut at = from;
            while at < day(2_500) {
                if happens(it, start, at) {
                    plain.push(at);
                }
                at = at.tomorrow().unwrap();
            }
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn a_recurrence_reads_back(it in recurrence()) {
            prop_assert_eq!(it.to_string().parse(), Ok(it));
        }

        #[test]
        fn any_text_is_one_or_an_error(text in ".{0,20}", more in "(daily|weekly|monthly)[/0-9a-z +,]{0,16}") {
            for text in [text, more] {
                if let Ok(it) = text.parse::<Recurrence>() {
                    prop_assert_eq!(it.to_string().parse(), Ok(it));
                    let last = Date::MAX.checked_sub(9.days()).unwrap();
                    let _ = it.days(last, last).count();
                }
            }
        }
    }

    #[test]
    fn examples_say_what_they_mean() {
        let days = |text: &str, n| -> Vec<String> {
            let it: Recurrence = text.parse().unwrap();
            let start = Date::constant(2026, 1, 1);
            it.days(start, start).take(n).map(|day| day.to_string()).collect()
        };
        assert_eq!(days("once", 2), ["2026-01-01"]);
        assert_eq!(days("daily/2", 2), ["2026-01-01", "2026-01-03"]);
        assert_eq!(days("weekly/2 sat,mon", 3), ["2026-01-03", "2026-01-12", "2026-01-17"]);
        assert_eq!(days("monthly 31", 3), ["2026-01-31", "2026-02-28", "2026-03-31"]);
        assert_eq!(days("Monthly Last", 2), ["2026-01-31", "2026-02-28"]);
        assert_eq!(days("monthly 2nd tue +5", 2), ["2026-01-18", "2026-02-15"]);
        // The day after may be the last of the month, or in the next one.
        assert_eq!(days("monthly last fri +1", 2), ["2026-01-31", "2026-02-28"]);
        assert_eq!(days("monthly last fri +3", 1), ["2026-02-02"]);
        for (wrong, says) in [
            ("", "empty"),
            ("sometimes", "none of once"),
            ("daily/0", "from 1 to 366"),
            ("weekly", "days after weekly"),
            ("weekly xyz", "days as mon,thu"),
            ("monthly 32", "1 to 31"),
            ("monthly 5th tue", "1st, 2nd"),
            ("monthly 2nd tue 5", "+28"),
            ("once/2", "none of once"),
        ] {
            let error = wrong.parse::<Recurrence>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
