//! How long after an evaluation something is: when what a rule deploys is available, and when it is due.
//!
//! ```text
//! 0h            at the scheduled start of the evaluation
//! 4h, 7d        so much later
//! 7d 20:00      on the seventh day after the day of the evaluation, at that time
//! ```
//!
//! It is counted from the start as it is *scheduled*, not from when the run came to an end: so the times are those that
//! people read in the rule, however long a download takes. By the clock of the clients, it is the time that the clock of the
//! rule's time zone shows then.

use super::schedule::time_of_day;
use crate::policy::When;
use crate::window::{Clock, first_moment};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most days, and the most hours.
const MOST: (u16, u16) = (366, 24 * 366);

/// So long after the scheduled start of an evaluation. Written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum After {
    /// So many hours.
    Hours(u16),
    /// So many days later: at the same time of the day, or at that one.
    Days(u16, Option<Time>),
}

/// Text that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time after an evaluation; want for example 4h, 7d, or '7d 20:00', a year at most"
)]
pub struct BadAfter(String);

impl Default for After {
    /// At once.
    fn default() -> Self {
        Self::Hours(0)
    }
}

impl After {
    /// When that is, if the evaluation is scheduled for `start` by the clock of `zone`: a moment, or by the clock of each
    /// client the time that `zone` shows then. None beyond the ends of time.
    pub fn when(self, start: Timestamp, zone: &TimeZone, clock: Clock) -> Option<When> {
        let local = match self {
            // Of a time that the clock shows twice the same day at the same time would be the first.
            Self::Hours(_) | Self::Days(0, None) => {
                let hours = if let Self::Hours(hours) = self { hours } else { 0 };
                let moment = start.checked_add(i64::from(hours).hours()).ok()?;
                match clock {
                    Clock::Utc => return Some(When::Utc(moment)),
                    Clock::Local => moment.to_zoned(zone.clone()).datetime(),
                }
            }
            Self::Days(days, at) => {
                let shown = start.to_zoned(zone.clone()).datetime();
                let later = shown.checked_add(Span::new().try_days(i64::from(days)).ok()?).ok()?;
                at.map_or(later, |at| later.date().to_datetime(at))
            }
        };
        match clock {
            Clock::Utc => first_moment(local, zone).map(When::Utc),
            Clock::Local => Some(When::Local(local)),
        }
    }

    /// Whether it is not before `other`, whenever the evaluation is.
    pub fn is_not_before(self, other: Self) -> bool {
        // A day may have 23 hours or 25; a time of the day may be anywhere in it.
        let (least, _) = self.hours();
        let (_, most) = other.hours();
        match (self, other) {
            (Self::Days(a, None), Self::Days(b, None)) => a >= b,
            (Self::Days(a, Some(at)), Self::Days(b, Some(bt))) => (a, at) >= (b, bt),
            _ => least >= most,
        }
    }

    /// The fewest and the most hours that it may be.
    fn hours(self) -> (i64, i64) {
        match self {
            Self::Hours(hours) => (hours.into(), hours.into()),
            Self::Days(0, None) => (0, 0),
            Self::Days(days, None) => (i64::from(days) * 24 - 1, i64::from(days) * 24 + 1),
            Self::Days(days, Some(_)) => (i64::from(days) * 24 - 25, i64::from(days) * 24 + 25),
        }
    }
}

impl FromStr for After {
    type Err = BadAfter;
    fn from_str(text: &str) -> Result<Self, BadAfter> {
        let wrong = || BadAfter(text.chars().take(40).collect());
        let mut words = text.split_whitespace();
        let first = words.next().ok_or_else(wrong)?.to_ascii_lowercase();
        let rest: Vec<&str> = words.collect();
        let number = |suffix: char, most: u16| {
            let number = first.strip_suffix(suffix)?;
            let is_plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            number.parse().ok().filter(|n| is_plain && *n <= most)
        };
        match (number('h', MOST.1), number('d', MOST.0), rest.as_slice()) {
            (Some(hours), None, []) => Ok(Self::Hours(hours)),
            (None, Some(days), []) => Ok(Self::Days(days, None)),
            (None, Some(days), [at]) => {
                Ok(Self::Days(days, Some(time_of_day(at).ok_or_else(wrong)?)))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hours(hours) => write!(f, "{hours}h"),
            Self::Days(days, None) => write!(f, "{days}d"),
            Self::Days(days, Some(at)) => write!(f, "{days}d {:02}:{:02}", at.hour(), at.minute()),
        }
    }
}

impl TryFrom<String> for After {
    type Error = BadAfter;
    fn try_from(text: String) -> Result<Self, BadAfter> {
        text.parse()
    }
}

impl From<After> for String {
    fn from(after: After) -> String {
        after.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::time;
    use proptest::prelude::*;

    fn after() -> impl Strategy<Value = After> {
        let at = prop::option::of((0..24_i8, 0..60_i8).prop_map(|(h, m)| time(h, m, 0, 0)));
        prop_oneof![
            (0..=MOST.1).prop_map(After::Hours),
            (0..=MOST.0, at).prop_map(|(days, at)| After::Days(days, at))
        ]
    }

    #[test]
    fn times_are_counted_from_the_scheduled_start() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        // A week before clocks are set to summer time.
        let start: Timestamp = "2026-03-24T05:00:00Z".parse().unwrap();
        let at = |text: &str, clock| match text
            .parse::<After>()
            .unwrap()
            .when(start, &zone, clock)
            .unwrap()
        {
            When::Utc(at) => at.to_string(),
            When::Local(at) => at.to_string(),
        };
        assert_eq!(at("0h", Clock::Utc), "2026-03-24T05:00:00Z");
        assert_eq!(at("4h", Clock::Local), "2026-03-24T10:00:00");
        // Seven days later the clock shows the same time, an hour sooner.
        assert_eq!(at("7d", Clock::Utc), "2026-03-31T04:00:00Z");
        assert_eq!(at("168h", Clock::Utc), "2026-03-31T05:00:00Z");
        assert_eq!(at("7d 20:00", Clock::Utc), "2026-03-31T18:00:00Z");
        assert_eq!(at("7d 20:00", Clock::Local), "2026-03-31T20:00:00");
        for wrong in ["", "7", "7w", "d", "-1d", "367d", "4h 20:00", "7d 24:00", "7d at 20:00"] {
            assert!(wrong.parse::<After>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_time_reads_back(after in after()) {
            prop_assert_eq!(after.to_string().parse(), Ok(after));
        }

        #[test]
        fn what_is_not_before_is_never_before(
            a in after(), b in after(), hours in 0..30_000_i64,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let start: Timestamp = "2026-01-01T00:30:00Z".parse().unwrap();
            let start = start.checked_add(hours.hours()).unwrap();
            let moment = |it: After| match it.when(start, &zone, Clock::Utc).unwrap() {
                When::Utc(at) => at,
                When::Local(_) => unreachable!(),
            };
            if a.is_not_before(b) {
                prop_assert!(moment(a) >= moment(b), "{} {}", a, b);
            }
        }
    }
}
