//! Collections: sets of clients, by name and by what is true of them.

use crate::rule::Rule;
use crate::window::Window;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// How many rules or windows a collection may have.
pub const MAX_RULES: usize = 200;
/// How many collections it may name.
pub const MAX_NAMED: usize = 1_000;
/// The longest comment, in bytes.
pub const MAX_COMMENT: usize = 1_000;

/// The name of a collection, of a rule, or of a window: small letters, digits, `.`, `_` and `-`, from a
/// letter or digit on, at most 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(Box<str>);

/// Text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: want 1 to {max} small letters, digits, '.', '_' or '-', beginning with a letter or digit",
    max = CollectionName::MAX
)]
pub struct BadName(String);

impl CollectionName {
    /// The most characters.
    pub const MAX: usize = 64;

    /// The built-in collection that every client is in.
    pub fn all() -> Self {
        Self("all".into())
    }

    /// Whether it is [`CollectionName::all`].
    pub fn is_all(&self) -> bool {
        &*self.0 == "all"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CollectionName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_one = (1..=Self::MAX).contains(&text.len())
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if is_one { Ok(Self(text.into())) } else { Err(BadName(text.chars().take(100).collect())) }
    }
}

impl TryFrom<String> for CollectionName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<CollectionName> for String {
    fn from(name: CollectionName) -> String {
        name.0.into()
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a collection is, but for the clients that it names: those are kept apart, since there may be many.
///
/// Its members are the clients that it names, that one of its rules means, or that are in a collection which
/// it includes; of them only who is in the limiting collection; and nobody who is in one that it excludes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collection {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Nobody is in it who is not in this one; without it, all may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<CollectionName>,
    /// Who is meant by one of them is in it.
    pub rules: BTreeMap<CollectionName, Rule>,
    /// Who is in one of these is in it.
    pub include: BTreeSet<CollectionName>,
    /// Who is in one of these is not.
    pub exclude: BTreeSet<CollectionName>,
    /// When its members may be worked on.
    pub windows: BTreeMap<CollectionName, Window>,
}

impl Value for Collection {}

impl Collection {
    /// The collections that its members depend on.
    pub fn needs(&self) -> impl Iterator<Item = &CollectionName> {
        self.limit.iter().chain(&self.include).chain(&self.exclude)
    }

    /// What of it is over the limits, in words.
    pub(crate) fn too_much(&self) -> Option<String> {
        let n_named = self.include.len() + self.exclude.len();
        if self.rules.len() > MAX_RULES {
            return Some(format!("has more than {MAX_RULES} rules"));
        }
        if self.windows.len() > MAX_RULES {
            return Some(format!("has more than {MAX_RULES} maintenance windows"));
        }
        if n_named > MAX_NAMED {
            return Some(format!("includes and excludes more than {MAX_NAMED} others"));
        }
        (self.comment.len() > MAX_COMMENT)
            .then(|| format!("has a comment of more than {MAX_COMMENT} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["a", "0", "web-servers_2.x", &"a".repeat(64)] {
            assert_eq!(name.parse::<CollectionName>().unwrap().as_str(), name);
        }
        for wrong in ["", "A", "-a", "a b", "ü", &"a".repeat(65), "a/b"] {
            assert!(wrong.parse::<CollectionName>().is_err(), "{wrong}");
        }
    }
}
