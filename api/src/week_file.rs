//! A week as people write it: `week.toml`.
//!
//! ```toml
//! otherwise = "open"       # what holds at all other times; open, if it is not said
//!
//! [[hours]]
//! days = "mon-fri"         # all days, if it is not said
//! from = "06:00"           # the beginning of the day, if it is not said
//! to = "20:00"             # its end; a time that is not after `from` is of the next day
//! level = "high"           # closed, high, medium+ or open
//! rate = "2Mbit"           # at most; no limit of these hours, if it is not said
//! ```
//!
//! Of hours that overlap, the later in the file count.

use crate::config::parse_rate;
use dp::field::Limit;
use dp::pace::{BadWeek, Hours, Level, Week, WeekTime, day_called, hour_and_minute};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The largest file, in bytes.
pub const MAX_FILE: usize = 256 << 10;
/// The most entries of a file.
const MOST_HOURS: usize = 1000;
const DAY: u16 = 24 * 60;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWeekFile {
    /// A line of it cannot be read.
    #[error("line {line}{}: {says}", key.as_ref().map(|key| format!(", {key}")).unwrap_or_default())]
    Line {
        /// Which, from 1.
        line: usize,
        /// The key, if the line has one.
        key: Option<String>,
        /// What is wrong.
        says: String,
    },
    /// It is too long.
    #[error("it has more than {0}")]
    TooLong(String),
    /// It is no week.
    #[error(transparent)]
    Week(#[from] BadWeek),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    otherwise: LevelName,
    #[serde(default)]
    hours: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    days: Days,
    #[serde(default, deserialize_with = "beginning")]
    from: Time,
    #[serde(default)]
    to: Time,
    level: LevelName,
    #[serde(default)]
    rate: Option<Rate>,
}

/// The week that `text` describes, by the clock of `timezone`.
pub fn parse(text: &str, timezone: &str) -> Result<Week, BadWeekFile> {
    if text.len() > MAX_FILE {
        return Err(BadWeekFile::TooLong(format!("{MAX_FILE} bytes")));
    }
    let file: File = toml::from_str(text).map_err(|error| at(text, &error))?;
    if file.hours.len() > MOST_HOURS {
        return Err(BadWeekFile::TooLong(format!("{MOST_HOURS} entries of hours")));
    }
    let mut spans = Vec::new();
    for Entry { days, from, to, level, rate } in file.hours {
        let hours = Hours { level: level.0, rate: rate.map(|rate| rate.0) };
        let (from, to) = (from.0.unwrap_or(0), to.0.unwrap_or(DAY));
        let length = if to > from { to - from } else { DAY - from + to };
        for day in days.0 {
            let Some(midnight) = WeekTime::new(day, 0, 0) else { continue };
            let begins = midnight.plus(from);
            spans.push((begins, begins.plus(length), hours));
        }
    }
    let otherwise = Hours { level: file.otherwise.0, rate: None };
    Ok(Week::of_spans(timezone.to_owned(), otherwise, &spans)?)
}

/// Where in `text` an error is, and its key.
fn at(text: &str, error: &toml::de::Error) -> BadWeekFile {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('='));
    let key = key.map(|(key, _)| key.trim().to_owned());
    let is_key = |key: &String| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphabetic());
    BadWeekFile::Line { line, key: key.filter(is_key), says: error.message().trim().to_owned() }
}

#[derive(Clone, Copy, Default)]
struct LevelName(Level);

impl<'a> Deserialize<'a> for LevelName {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Ok(Self(match text.as_str() {
            "closed" => Level::Closed,
            "high" => Level::High,
            "medium+" => Level::Medium,
            "open" => Level::Open,
            _ => {
                let says = format!("{text:?} is no level; want closed, high, medium+ or open");
                return Err(D::Error::custom(says));
            }
        }))
    }
}

/// Minutes from midnight.
#[derive(Clone, Copy, Default)]
struct Time(Option<u16>);

impl<'a> Deserialize<'a> for Time {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = hour_and_minute(&text)
            .filter(|(hour, minute)| (*hour < 24 && *minute < 60) || (*hour, *minute) == (24, 0));
        let wrong =
            || D::Error::custom(format!("{text:?} is no time of day; want one such as 06:30"));
        let (hour, minute) = time.ok_or_else(wrong)?;
        Ok(Self(Some(u16::from(hour) * 60 + u16::from(minute))))
    }
}

/// A time at which hours begin: 24:00 is 00:00 of another day, and with `to` nobody could tell which.
fn beginning<'a, D: Deserializer<'a>>(from: D) -> Result<Time, D::Error> {
    match Time::deserialize(from)? {
        Time(Some(DAY)) => {
            Err(D::Error::custom("hours begin before 24:00; from midnight on it is the next day"))
        }
        time => Ok(time),
    }
}

/// Bytes a second.
#[derive(Clone, Copy)]
struct Rate(u64);

impl<'a> Deserialize<'a> for Rate {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong =
            || D::Error::custom(format!("{text:?} is no rate; want one such as 2Mbit or 250KB/s"));
        let rate = parse_rate(&text).ok_or_else(wrong)?;
        if rate < Limit::LEAST_RATE {
            return Err(D::Error::custom("a rate is at least 64kbit; to let nothing pass: closed"));
        }
        Ok(Self(rate))
    }
}

/// Days, each once, from Monday, which is 0.
struct Days(Vec<u8>);

impl Default for Days {
    fn default() -> Self {
        Self((0..7).collect())
    }
}

impl<'a> Deserialize<'a> for Days {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "want days such as \"mon-fri\" or [\"mon\", \"wed\"]")]
        enum Written {
            One(String),
            Some(Vec<String>),
        }
        let written = match Written::deserialize(from)? {
            Written::One(one) => vec![one],
            Written::Some(some) => some,
        };
        let mut days = Vec::new();
        for text in &written {
            let wrong = || {
                D::Error::custom(format!(
                    "{text:?} is no day; want mon to sun, or several: mon-fri"
                ))
            };
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let first = day_called(first.trim()).ok_or_else(wrong)?;
            let last = day_called(last.trim()).ok_or_else(wrong)?;
            let n = (last + 7 - first) % 7;
            days.extend((0..=n).map(|n| (first + n) % 7));
        }
        days.sort_unstable();
        days.dedup();
        Ok(Self(days))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
otherwise = "open"

[[hours]]
days = "mon-fri"
from = "06:00"
to = "20:00"
level = "high"
rate = "2Mbit"

[[hours]]
days = ["sat", "sun"]
from = "22:30"
to = "01:00"
level = "closed"
"#;

    #[test]
    fn a_week_is_read_as_people_write_it() {
        let week = parse(EXAMPLE, "Europe/Paris").unwrap();
        let at = |time: &str| week.at_wall(time.parse().unwrap());
        let work = Hours { level: Level::High, rate: Some(250_000) };
        assert_eq!(at("mon 05:59"), Hours::default());
        assert_eq!([at("mon 06:00"), at("fri 19:59")], [work; 2]);
        assert_eq!(at("fri 20:00"), Hours::default());
        for closed in ["sat 22:30", "sun 00:59", "sun 23:00", "mon 00:59"] {
            assert_eq!(at(closed).level, Level::Closed, "{closed}");
        }
        assert_eq!([at("sun 01:00"), at("mon 01:00")], [Hours::default(); 2]);
        let empty = parse("", "UTC").unwrap();
        assert_eq!(empty.changes().len(), 1);
        let night = "otherwise = \"closed\"\n[[hours]]\nfrom = \"20:00\"\nlevel = \"open\"\n";
        let night = parse(night, "UTC").unwrap();
        assert_eq!(night.changes().len(), 14);
        let over = "[[hours]]\ndays = \"sat-mon\"\nlevel = \"closed\"\n";
        let over = parse(over, "UTC").unwrap();
        let shown: Vec<_> = over.changes().iter().map(|change| change.at.to_string()).collect();
        assert_eq!(shown, ["mon 00:00", "tue 00:00", "sat 00:00"]);
    }

    #[test]
    fn what_is_wrong_names_its_line_and_key() {
        for (from, to, line, key, says) in [
            ("\"mon-fri\"", "\"mon-fry\"", 5, "days", "no day"),
            ("\"mon-fri\"", "5", 5, "days", "want days"),
            ("\"06:00\"", "\"6\"", 6, "from", "no time of day"),
            ("\"06:00\"", "\"24:00\"", 6, "from", "begin before 24:00"),
            ("\"20:00\"", "\"24:30\"", 7, "to", "no time of day"),
            ("\"high\"", "\"higher\"", 8, "level", "closed, high, medium+ or open"),
            ("\"2Mbit\"", "\"2\"", 9, "rate", "no rate"),
            ("\"2Mbit\"", "\"2kbit\"", 9, "rate", "at least 64kbit"),
            ("rate", "rat", 9, "rat", "unknown field"),
        ] {
            let error = parse(&EXAMPLE.replacen(from, to, 1), "UTC").unwrap_err();
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("line {line}, {key}: ")), "{to}: {shown}");
            assert!(shown.contains(says), "{shown}");
        }
        assert!(parse("[[hours]]\n", "UTC").unwrap_err().to_string().contains("level"));
        assert!(parse(EXAMPLE, "nowhere; really").is_err());
        assert!(matches!(parse(&"#".repeat(MAX_FILE + 1), "UTC"), Err(BadWeekFile::TooLong(_))));
    }
}
