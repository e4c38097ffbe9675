//! When something happens again: calendars in named time zones.
//!
//! A schedule is a sentence that people write and read: `every day 03:00 Europe/Berlin`, `every monday
//! and thursday 02:30 Europe/Paris`, `second tuesday 19:00 UTC`, `day 31 23:00 UTC`, `every 4 hours`,
//! `never`. [`Schedule::next`] is a pure function of the sentence and a time.
//!
//! Times are those of a clock on the wall. Where that clock jumps over one in spring, it happens as much
//! later as the clock jumps; where it shows one twice in autumn, it happens the first time only. Steps
//! such as `every 4 hours` count from 1970 in UTC, so they are the same on every site and after every
//! restart, and no clock change touches them.

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest sentence that is read, in bytes.
const MAX_TEXT: usize = 200;
/// The longest step, in minutes: a week.
const MAX_STEP: u32 = 7 * 24 * 60;

/// When something happens again. Written and read as a sentence; see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule(When);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum When {
    /// Only by hand.
    #[default]
    Never,
    /// Every so many minutes since 1970.
    Step(u32),
    /// On some days, by the clock of a time zone.
    Wall { days: Days, at: Time, zone: String },
}

/// On which days of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    /// On all.
    Every,
    /// On days of the week: bit 0 is Monday.
    Week(u8),
    /// On a day of the week that is the so-many-th of its month, from 1; the last one, if it is -1.
    Nth(i8, Weekday),
    /// On a day of the month, from 1 to 31; a month that is shorter has its last day for it.
    OfMonth(i8),
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// It is no sentence that is known.
    #[error(
        "{0:?} is no schedule; want for example \"every day 03:00 Europe/Berlin\", \"every monday and \
         thursday 02:30 Europe/Paris\", \"second tuesday 19:00 UTC\", \"last friday 22:00 UTC\", \"day 31 \
         23:00 UTC\", \"every 4 hours\", \"every 15 minutes\" or \"never\""
    )]
    Unknown(String),
    /// A step is too short or too long.
    #[error("{0:?} is no schedule: a step is from 1 minute to 7 days")]
    Step(String),
    /// No clock shows that time.
    #[error("{0:?} is no time of a day; want 00:00 to 23:59")]
    Time(String),
    /// There is no such time zone.
    #[error("there is no time zone {0:?} here; want an IANA name such as Europe/Berlin, or UTC")]
    Zone(String),
}

impl Schedule {
    /// Only by hand.
    pub const NEVER: Schedule = Schedule(When::Never);

    /// Every day at three by Coordinated Universal Time.
    pub fn nightly() -> Self {
        let at = Time::constant(3, 0, 0, 0);
        Self(When::Wall { days: Days::Every, at, zone: "UTC".into() })
    }

    /// Whether it is `never`.
    pub fn is_never(&self) -> bool {
        self.0 == When::Never
    }

    /// The first time after `after`; none, if it never happens again.
    ///
    /// # Errors
    /// Its time zone is not known on this machine.
    pub fn next(&self, after: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
        match &self.0 {
            When::Never => Ok(None),
            When::Step(minutes) => Ok(next_step(*minutes, after)),
            When::Wall { days, at, zone } => Ok(next_wall(*days, *at, &known(zone)?, after)),
        }
    }
}

fn known(zone: &str) -> Result<TimeZone, BadSchedule> {
    TimeZone::get(zone).map_err(|_| BadSchedule::Zone(zone.into()))
}

fn next_step(minutes: u32, after: Timestamp) -> Option<Timestamp> {
    let step = i64::from(minutes) * 60;
    let next = after.as_second().div_euclid(step).checked_add(1)?.checked_mul(step)?;
    Timestamp::from_second(next).ok()
}

fn next_wall(days: Days, at: Time, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let local = after.to_zoned(zone.clone()).date();
    // A zone may skip a whole day, and a time that was skipped happens up to a day later: so from the
    // day before. Calendars repeat after 28 years; within two months each kind of day comes.
    let mut date = local.yesterday().ok()?;
    for _ in 0..70 {
        if days.have(date) {
            // The compatible way of RFC 5545: later in a gap, the first of a fold.
            let happens = date.to_datetime(at).to_zoned(zone.clone()).ok()?.timestamp();
            if happens > after {
                return Some(happens);
            }
        }
        date = date.tomorrow().ok()?;
    }
    None
}

impl Days {
    fn have(self, date: Date) -> bool {
        match self {
            Days::Every => true,
            Days::Week(days) => days & bit(date.weekday()) != 0,
            Days::Nth(-1, day) => date.weekday() == day && date.day() + 7 > date.days_in_month(),
            Days::Nth(nth, day) => date.weekday() == day && (date.day() - 1) / 7 + 1 == nth,
            Days::OfMonth(day) => date.day() == day.min(date.days_in_month()),
        }
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

const NTHS: [(&str, i8); 5] =
    [("first", 1), ("second", 2), ("third", 3), ("fourth", 4), ("last", -1)];

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// A day of the week by its name or the first three letters of it.
fn weekday(word: &str) -> Option<Weekday> {
    WEEKDAYS.iter().find(|(name, _)| *name == word || name[..3] == *word).map(|(_, day)| *day)
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    /// Reads a sentence, in either case. A time without a zone is of UTC.
    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let schedule = parse(text)?;
        if let When::Wall { zone, .. } = &schedule.0 {
            known(zone)?;
        }
        Ok(schedule)
    }
}

/// Reads a sentence; whether the time zone is known here is not asked.
fn parse(text: &str) -> Result<Schedule, BadSchedule> {
    let unknown = || BadSchedule::Unknown(text.chars().take(MAX_TEXT).collect());
    if text.len() > MAX_TEXT {
        return Err(unknown());
    }
    let words: Vec<&str> = text.split([' ', ',', '\t']).filter(|word| !word.is_empty()).collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let (days, n) = match lower.as_slice() {
        ["never"] => return Ok(Schedule::NEVER),
        ["every", "minute"] => return step(text, 1, 1),
        ["every", "hour"] => return step(text, 1, 60),
        ["every", number, unit @ ("minute" | "minutes" | "hour" | "hours")] => {
            let number = number.parse().map_err(|_| unknown())?;
            return step(text, number, if unit.starts_with("hour") { 60 } else { 1 });
        }
        ["daily", ..] => (Days::Every, 1),
        ["every", "day", ..] => (Days::Every, 2),
        ["every", rest @ ..] => {
            let named: Vec<&&str> =
                rest.iter().take_while(|word| **word == "and" || weekday(word).is_some()).collect();
            let days = named.iter().filter_map(|word| weekday(word)).map(bit).fold(0, |a, b| a | b);
            if days == 0 {
                return Err(unknown());
            }
            (Days::Week(days), 1 + named.len())
        }
        ["day", number, ..] => {
            let day = number.parse().ok().filter(|day| (1..=31).contains(day));
            (Days::OfMonth(day.ok_or_else(unknown)?), 2)
        }
        [nth, day, ..] => {
            let nth = NTHS.iter().find(|(word, _)| word == nth).map(|(_, nth)| *nth);
            match (nth, *day) {
                (Some(-1), "day") => (Days::OfMonth(31), 2),
                (Some(nth), day) => (Days::Nth(nth, weekday(day).ok_or_else(unknown)?), 2),
                (None, _) => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    };
    let rest = &words[n..];
    let (at, zone) = match rest {
        [at] => (at, "UTC"),
        // The names of zones have no spaces.
        [at, zone] => (at, *zone),
        _ => return Err(unknown()),
    };
    Ok(Schedule(When::Wall { days, at: time(at)?, zone: zone.into() }))
}

fn step(text: &str, number: u32, minutes: u32) -> Result<Schedule, BadSchedule> {
    let step = number.checked_mul(minutes).filter(|step| (1..=MAX_STEP).contains(step));
    step.map(|step| Schedule(When::Step(step))).ok_or_else(|| BadSchedule::Step(text.into()))
}

fn time(text: &str) -> Result<Time, BadSchedule> {
    let wrong = || BadSchedule::Time(text.into());
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| {
        let good = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        good.then(|| text.parse::<i8>().ok()).flatten()
    };
    let (hour, minute) = number(hour).zip(number(minute)).ok_or_else(wrong)?;
    Time::new(hour, minute, 0, 0).map_err(|_| wrong())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, at, zone) = match &self.0 {
            When::Never => return f.write_str("never"),
            When::Step(1) => return f.write_str("every minute"),
            When::Step(60) => return f.write_str("every hour"),
            When::Step(minutes) if minutes % 60 == 0 => {
                return write!(f, "every {} hours", minutes / 60);
            }
            When::Step(minutes) => return write!(f, "every {minutes} minutes"),
            When::Wall { days, at, zone } => (*days, at, zone),
        };
        match days {
            Days::Every => f.write_str("every day")?,
            Days::Week(days) => {
                f.write_str("every ")?;
                let named = WEEKDAYS.iter().filter(|(_, day)| days & bit(*day) != 0);
                let named: Vec<&str> = named.map(|(name, _)| *name).collect();
                f.write_str(&named.join(" and "))?;
            }
            Days::Nth(nth, day) => {
                let nth = NTHS.iter().find(|(_, n)| *n == nth).map_or("", |(word, _)| word);
                let day = WEEKDAYS.iter().find(|(_, d)| *d == day).map_or("", |(word, _)| word);
                write!(f, "{nth} {day}")?;
            }
            Days::OfMonth(day) => write!(f, "day {day}")?,
        }
        write!(f, " {:02}:{:02} {zone}", at.hour(), at.minute())
    }
}

impl TryFrom<String> for Schedule {
    type Error = BadSchedule;
    /// Also takes a zone that is not known here: what another machine wrote must stay readable.
    fn try_from(text: String) -> Result<Self, BadSchedule> {
        parse(&text)
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests;
