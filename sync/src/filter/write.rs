//! Filters as text that reads as the same filter.

use super::parse::is_plain;
use super::{Compare, Expr, Field, Filter, KINDS, Test, UNITS, When};
use crate::update::Kind;
use std::fmt::{self, Display, Formatter, Write};

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

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut Formatter<'_>, parts: &[Expr], word: &str| {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                part.inner(f)?;
            }
            Ok(())
        };
        match self {
            Self::All(parts) => joined(f, parts, "and"),
            Self::Any(parts) => joined(f, parts, "or"),
            Self::Not(part) => {
                f.write_str("not ")?;
                part.inner(f)
            }
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl Expr {
    /// As a part of another one.
    fn inner(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) | Self::Any(_) => write!(f, "({self})"),
            Self::Not(_) | Self::Test(_) => self.fmt(f),
        }
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let or_none = |word: Option<&'static str>| word.unwrap_or("none");
        match self {
            Self::Withdrawn => f.write_str("withdrawn"),
            Self::Classification(all) => {
                let words = all.iter().map(|it| or_none(it.map(|it| it.as_str())));
                list(f, Field::Classification, words)
            }
            Self::Severity(all) => {
                let words = all.iter().map(|it| or_none(it.map(|it| it.as_str())));
                list(f, Field::Severity, words)
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
                list(f, Field::Kind, words)
            }
            Self::State(all) => list(f, Field::State, all.iter().map(|state| state.as_str())),
            Self::Name(field, all) => list(f, Field::Name(*field), all.iter().map(String::as_str)),
            Self::Language(all) => list(f, Field::Language, all.iter().map(|tag| tag.as_str())),
            Self::Id(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                list(f, Field::Id, all.iter().map(String::as_str))
            }
            Self::Contains(field, part) => {
                write!(f, "{} ~ ", Field::Text(*field).word())?;
                value(f, part)
            }
            Self::Equals(field, all) => {
                list(f, Field::Text(*field), all.iter().map(String::as_str))
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

fn list<'a>(
    f: &mut Formatter<'_>,
    field: Field,
    values: impl ExactSizeIterator<Item = &'a str>,
) -> fmt::Result {
    let is_one = values.len() == 1;
    write!(f, "{} {}", field.word(), if is_one { "= " } else { "in (" })?;
    for (at, it) in values.enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        value(f, it)?;
    }
    f.write_str(if is_one { "" } else { ")" })
}

/// A value, in quotes where it needs them.
fn value(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    if !text.is_empty() && text.chars().all(is_plain) {
        return f.write_str(text);
    }
    f.write_char('\'')?;
    for c in text.chars() {
        if c == '\'' || c == '\\' {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('\'')
}

impl Display for Compare {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
        })
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
