//! What a value of a setting may look like, by its type.

use super::LogFormat;
use super::units::{ByteSize, format_duration, parse_duration};
use dp::PlainHttp;
use sitedb::PostgresUrl;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A value as it was written, before anybody knows what it should be.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// From the environment or a flag, where all is text.
    Text(&'a str),
    /// A quoted string of the file.
    Quoted(&'a str),
    /// A whole number of the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// Anything else of the file, by the name of its kind.
    Other(&'static str),
}

impl<'a> Raw<'a> {
    /// A value of a TOML file.
    pub fn from_toml(value: &'a DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Raw::Quoted(text),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Raw::Other("a number beyond 64 bits"), Raw::Integer),
            DeValue::Boolean(value) => Raw::Boolean(*value),
            DeValue::Float(_) => Raw::Other("a fraction"),
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Array(_) => Raw::Other("a list"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }

    /// The value in words, for messages.
    fn describe(self) -> String {
        match self {
            Raw::Text(text) | Raw::Quoted(text) => format!("{text:?}"),
            Raw::Integer(number) => number.to_string(),
            Raw::Boolean(value) => value.to_string(),
            Raw::Other(kind) => kind.into(),
        }
    }
}

/// A type of setting.
pub trait Setting: Sized {
    /// What it must be, in words that follow "must be".
    const WANTED: &'static str;

    /// The value, if it is one of this type.
    fn accept(raw: Raw<'_>) -> Option<Self>;

    /// The value as [`Setting::accept`] takes it from a text.
    fn write(&self) -> String;

    /// The value, or what it must be.
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        Self::accept(raw).ok_or_else(|| format!("must be {}, not {}", Self::WANTED, raw.describe()))
    }
}

/// The text of a string, wherever it comes from.
fn text(raw: Raw<'_>) -> Option<&str> {
    match raw {
        Raw::Text(text) | Raw::Quoted(text) => Some(text),
        _ => None,
    }
}

impl Setting for String {
    const WANTED: &'static str = "a text";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        text(raw).filter(|text| !text.is_empty()).map(str::to_owned)
    }
    fn write(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const WANTED: &'static str = "a path";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        text(raw).filter(|text| !text.is_empty()).map(PathBuf::from)
    }
    fn write(&self) -> String {
        self.display().to_string()
    }
}

/// A path, or none: an empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalPath(pub Option<PathBuf>);

impl Setting for OptionalPath {
    const WANTED: &'static str = "a path, or empty for none";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        text(raw).map(|text| Self((!text.is_empty()).then(|| PathBuf::from(text))))
    }
    fn write(&self) -> String {
        self.0.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// The URL of a PostgreSQL database, or none: an empty text. Shown without its password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseUrl(pub Option<PostgresUrl>);

impl Setting for DatabaseUrl {
    const WANTED: &'static str =
        "postgres://USER@HOST/DATABASE, or empty for a database in the data folder";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        Self::read(raw).ok()
    }
    fn write(&self) -> String {
        self.0.as_ref().map(ToString::to_string).unwrap_or_default()
    }
    /// Does not repeat what was given: it may hold a password.
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match text(raw) {
            Some("") => Ok(Self(None)),
            Some(text) => match text.parse() {
                Ok(url) => Ok(Self(Some(url))),
                Err(error) => Err(format!("must be {}; {error}", Self::WANTED)),
            },
            None => Err(format!("must be {}", Self::WANTED)),
        }
    }
}

impl Setting for PlainHttp {
    const WANTED: &'static str = "any, local or none";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match text(raw)? {
            "any" => Some(Self::Any),
            "local" => Some(Self::Local),
            "none" => Some(Self::None),
            _ => None,
        }
    }
    fn write(&self) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Local => "local".into(),
            Self::None => "none".into(),
        }
    }
}

impl Setting for SocketAddr {
    const WANTED: &'static str = "an address and port such as \"127.0.0.1:8520\"";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        text(raw)?.parse().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    const WANTED: &'static str = "true or false";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Boolean(value) => Some(value),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    const WANTED: &'static str = "a whole number, 0 or more";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Integer(number) => number.try_into().ok(),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for ByteSize {
    const WANTED: &'static str = "a size such as \"256MiB\"";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Integer(number) => number.try_into().ok().map(ByteSize),
            _ => ByteSize::parse(text(raw)?),
        }
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for Duration {
    const WANTED: &'static str = "a time with its unit such as \"30s\", \"24h\" or \"7d\"";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Integer(0) => Some(Duration::ZERO),
            _ => parse_duration(text(raw)?),
        }
    }
    fn write(&self) -> String {
        format_duration(*self)
    }
}

impl Setting for LogFormat {
    const WANTED: &'static str = "\"text\" or \"json\"";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        match text(raw)? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
    fn write(&self) -> String {
        match self {
            LogFormat::Text => "text".into(),
            LogFormat::Json => "json".into(),
        }
    }
}
