//! Conditions as text that reads as the same.

use super::parse::is_plain;
use super::{Compare, Expr};
use std::fmt::{self, Display, Formatter, Write};

impl<T: Display> Display for Expr<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut Formatter<'_>, parts: &[Self], word: &str| {
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

impl<T: Display> Expr<T> {
    /// As a part of another one.
    fn inner(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) | Self::Any(_) => write!(f, "({self})"),
            Self::Not(_) | Self::Test(_) => self.fmt(f),
        }
    }
}

/// That the field called `word` is one of `values`.
///
/// # Errors
/// The formatter's own.
pub fn list<'a>(
    f: &mut Formatter<'_>,
    word: &str,
    values: impl ExactSizeIterator<Item = &'a str>,
) -> fmt::Result {
    let is_one = values.len() == 1;
    write!(f, "{word} {}", if is_one { "= " } else { "in (" })?;
    for (at, it) in values.enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        value(f, it)?;
    }
    f.write_str(if is_one { "" } else { ")" })
}

/// A value, in quotes where it needs them.
///
/// # Errors
/// The formatter's own.
pub fn value(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
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
