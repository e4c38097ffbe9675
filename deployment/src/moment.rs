//! Moments as people write them, and as they travel as text.
//!
//! Text with a zone is the same moment everywhere; text without one is a time by the clock of each client.

use crate::policy::When;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use std::fmt;
use std::str::FromStr;

/// Text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time; want {WANTED}")]
pub struct NotAMoment(String);

const WANTED: &str = "2026-12-01T22:00:00Z, or 2026-12-01T22:00:00 for the clock of each client";

impl FromStr for When {
    type Err = NotAMoment;
    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        // A time with a zone reads as one without, too: the zone would be lost.
        let moment = text.parse::<Timestamp>().map(Self::Utc).ok();
        let found = moment.or_else(|| text.parse().map(Self::Local).ok());
        found.ok_or_else(|| NotAMoment(text.chars().take(100).collect()))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc(at) => at.fmt(f),
            Self::Local(time) => time.fmt(f),
        }
    }
}

/// What a person typed that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    /// It reads as none.
    #[error(
        "{0:?} is no time; want now, +36h, +2d 03:00, 2026-12-01 22:00 or 2026-12-01T22:00:00Z"
    )]
    Unknown(String),
    /// It names a zone, though the clock of each client was to count.
    #[error("{0:?} names a zone: leave it out where the clock of each client counts")]
    Zoned(String),
    /// It is beyond the end of time.
    #[error("{0:?} is beyond what the calendar reaches")]
    Beyond(String),
}

/// Whose clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockOf {
    /// UTC: one moment for all.
    Utc,
    /// That of each client.
    Client,
}

/// Reads what a person in `zone` types at `now`: `now`, `+36h`, `+2d 03:00`, `2026-12-01 22:00`, or a moment with its
/// zone. A day and time without a zone are in UTC, or by the clock of each client; and a number of days from now with a
/// time means the days of that calendar.
///
/// # Errors
/// If it is none of these.
pub fn typed(
    text: &str,
    now: Timestamp,
    zone: &TimeZone,
    clock: ClockOf,
) -> Result<When, NotATime> {
    let shown = || text.chars().take(100).collect::<String>();
    let here = match clock {
        ClockOf::Utc => TimeZone::UTC,
        ClockOf::Client => zone.clone(),
    };
    let at = |time: DateTime| match clock {
        ClockOf::Client => Ok(When::Local(time)),
        ClockOf::Utc => match time.to_zoned(TimeZone::UTC) {
            Ok(zoned) => Ok(When::Utc(zoned.timestamp())),
            Err(_) => Err(NotATime::Beyond(shown())),
        },
    };
    let text = text.trim();
    if text == "now" {
        return at(whole_second(now.to_zoned(here).datetime()));
    }
    if let Some(rest) = text.strip_prefix('+') {
        let (span, time) = match rest.split_once(char::is_whitespace) {
            Some((span, time)) => (span, Some(time.trim())),
            None => (rest, None),
        };
        let (number, unit) = span.split_at(span.find(|c: char| !c.is_ascii_digit()).unwrap_or(0));
        let number: i64 = number.parse().map_err(|_| NotATime::Unknown(shown()))?;
        let days = match unit {
            "d" => Some(Span::new().try_days(number)),
            "w" => Some(Span::new().try_weeks(number)),
            _ => None,
        };
        let from = whole_second(now.to_zoned(here).datetime());
        let later = match (days, unit) {
            (Some(Ok(days)), _) => from.checked_add(days),
            (None, "h" | "m" | "min") => {
                let minutes = if unit == "h" { number.saturating_mul(60) } else { number };
                let by = SignedDuration::from_secs(minutes.saturating_mul(60));
                // Of real time, so that a change of the clock in between counts.
                let then = now.checked_add(by).map(|then| {
                    then.to_zoned(match clock {
                        ClockOf::Utc => TimeZone::UTC,
                        ClockOf::Client => zone.clone(),
                    })
                });
                then.map(|then| whole_second(then.datetime()))
            }
            (Some(Err(error)), _) => Err(error),
            _ => return Err(NotATime::Unknown(shown())),
        };
        let later = later.map_err(|_| NotATime::Beyond(shown()))?;
        return match time {
            None => at(later),
            Some(time) => {
                let time: Time = time.parse().map_err(|_| NotATime::Unknown(shown()))?;
                at(later.date().to_datetime(time))
            }
        };
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return match clock {
            ClockOf::Utc => Ok(When::Utc(moment)),
            ClockOf::Client => Err(NotATime::Zoned(shown())),
        };
    }
    let day = || text.parse::<Date>().ok().map(|day| day.to_datetime(Time::midnight()));
    // A date reads as its midnight, and so does one in front of something else.
    let time = text.parse::<DateTime>().ok().or_else(day);
    time.map_or_else(|| Err(NotATime::Unknown(shown())), at)
}

fn whole_second(time: DateTime) -> DateTime {
    time.with().subsec_nanosecond(0).build().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_with_a_zone_is_one_moment_and_without_one_a_time_of_each_clock() {
        let utc: When = "2026-12-01T22:00:00+01:00".parse().unwrap();
        assert_eq!(utc.to_string(), "2026-12-01T21:00:00Z");
        let local: When = "2026-12-01T22:00:00".parse().unwrap();
        assert!(matches!(local, When::Local(_)));
        assert_eq!(local.to_string(), "2026-12-01T22:00:00");
        for when in [utc, local] {
            assert_eq!(when.to_string().parse::<When>(), Ok(when));
        }
        assert!("tomorrow".parse::<When>().is_err());
    }

    #[test]
    fn times_are_typed_as_people_do() {
        let now = "2026-11-28T23:30:00.5Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let typed = |text, clock| typed(text, now, &zone, clock).unwrap().to_string();
        for (text, utc, local) in [
            ("now", "2026-11-28T23:30:00Z", "2026-11-29T00:30:00"),
            ("+36h", "2026-11-30T11:30:00Z", "2026-11-30T12:30:00"),
            ("+90m", "2026-11-29T01:00:00Z", "2026-11-29T02:00:00"),
            ("+2d", "2026-11-30T23:30:00Z", "2026-12-01T00:30:00"),
            ("+2d 03:00", "2026-11-30T03:00:00Z", "2026-12-01T03:00:00"),
            ("+1w 03:00", "2026-12-05T03:00:00Z", "2026-12-06T03:00:00"),
            ("2026-12-01 22:00", "2026-12-01T22:00:00Z", "2026-12-01T22:00:00"),
            ("2026-12-01", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00"),
        ] {
            assert_eq!(
                (typed(text, ClockOf::Utc), typed(text, ClockOf::Client)),
                (utc.into(), local.into()),
                "{text}"
            );
        }
        assert_eq!(typed("2026-12-01T22:00:00+01:00", ClockOf::Utc), "2026-12-01T21:00:00Z");
        let wrong = |text, clock| super::typed(text, now, &zone, clock).unwrap_err();
        assert!(matches!(wrong("2026-12-01T22:00:00Z", ClockOf::Client), NotATime::Zoned(_)));
        assert!(matches!(wrong("+9999999d", ClockOf::Utc), NotATime::Beyond(_)));
        for text in ["", "+", "+d", "+2x", "+2d 25:00", "soon", "22:00"] {
            assert!(matches!(wrong(text, ClockOf::Utc), NotATime::Unknown(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_an_error(text in "[+0-9a-z :TZ-]{0,20}") {
            let now = Timestamp::UNIX_EPOCH;
            let _ = typed(&text, now, &TimeZone::UTC, ClockOf::Utc);
            let _ = text.parse::<When>();
        }
    }
}
