//! What collections, groups of updates and deployments are called.
//!
//! Names are plain, so that they can be typed, stand in an address and be a part of one another. What is called is a
//! type, too: the name of a group is never taken for that of a collection.

/// Makes types of names.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        ///
        /// Small letters, digits, `.`, `_` and `-`, from a letter or digit on, at most 64.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The most characters.
            pub const MAX: usize = MAX;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                if is_plain(text) { Ok(Self(text.into())) } else { Err(BadName::of(text)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most characters of a name.
const MAX: usize = 64;

names! {
    /// The name of a collection, of a rule, or of a window.
    CollectionName,
    /// The name of a group of updates.
    GroupName,
    /// The name of a deployment.
    DeploymentName,
    /// The name of an automatic deployment rule.
    RuleName,
}

impl CollectionName {
    /// The built-in collection that every client is in.
    pub fn all() -> Self {
        Self("all".into())
    }

    /// Whether it is [`CollectionName::all`].
    pub fn is_all(&self) -> bool {
        &*self.0 == "all"
    }
}

/// Text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: want 1 to {MAX} small letters, digits, '.', '_' or '-', beginning with a letter or digit"
)]
pub struct BadName(String);

impl BadName {
    fn of(text: &str) -> Self {
        Self(text.chars().take(100).collect())
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
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
