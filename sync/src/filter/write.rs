//! Filters as text that reads as the same filter.

use super::{Field, Filter, KINDS, Test, UNITS, When};
use crate::language::{list, value};
use crate::update::Kind;
use std::fmt::{self, Display, Formatter};

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        filter.to_string()
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let or_none = |word: Option<&'static str>| word.unwrap_or("none");
        match self {
            Self::Withdrawn => f.write_str("withdrawn"),
            Self::Deployed => f.write_str("deployed"),
            Self::Classification(all) => {
                let words = all.iter().map(|it| or_none(it.map(|it| it.as_str())));
                list(f, Field::Classification.word(), words)
            }
            Self::Severity(all) => {
                let words = all.iter().map(|it| or_none(it.map(|it| it.as_str())));
                list(f, Field::Severity.word(), words)
            }
            Self::SeverityIs(compare, than) => {
                write!(f, "severity {compare} {}", or_none(than.map(|than| than.as_str())))
            }
            Self::Kind(all) => {
                let word = |kind: &Kind| {
                    let found = KINDS.iter().find(|(_, other)| other == kind);
                    found.map(|(word, _)| *word).expect("every kind has a word")
                };
                let words = all.iter().map(word);
                list(f, Field::Kind.word(), words)
            }
            Self::State(all) => {
                list(f, Field::State.word(), all.iter().map(|state| state.as_str()))
            }
            Self::Name(field, all) => {
                list(f, Field::Name(*field).word(), all.iter().map(String::as_str))
            }
            Self::Language(all) => {
                list(f, Field::Language.word(), all.iter().map(|tag| tag.as_str()))
            }
            Self::Id(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                list(f, Field::Id.word(), all.iter().map(String::as_str))
            }
            Self::Contains(field, part) => {
                write!(f, "{} ~ ", Field::Text(*field).word())?;
                value(f, part)
            }
            Self::Equals(field, all) => {
                list(f, Field::Text(*field).word(), all.iter().map(String::as_str))
            }
            Self::Date(field, compare, when) => {
                write!(f, "{} {compare} {when}", Field::Date(*field).word())
            }
            Self::Number(field, compare, number) => {
                write!(f, "{} {compare} {number}", Field::Number(*field).word())
            }
        }
    }
}

impl Display for When {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => time.fmt(f),
            Self::Day(day) => day.fmt(f),
            Self::Now => f.write_str("now"),
            Self::Today => f.write_str("today"),
            Self::Ago(number, unit) => {
                let names = UNITS.iter().find(|(_, other)| other == unit).map(|(names, _)| names);
                let word = names.and_then(|names| names.first()).expect("every unit has a word");
                write!(f, "{number}{word} ago")
            }
        }
    }
}
