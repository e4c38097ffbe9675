//! What packages, channels and versions are called.
//!
//! Names are part of URLs, of reference keys and of file names, so they are plain: lower-case
//! letters, digits, `.`, `_` and `-`, with a letter or digit in front.

use std::fmt;
use std::str::FromStr;

/// The longest name of a package or channel.
pub const MAX_PACKAGE_NAME: usize = 64;

/// Text that names no package, channel or version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadName {
    /// No package's name.
    #[error(
        "{0:?} is no package name; want 1 to {MAX_PACKAGE_NAME} of a-z, 0-9, '.', '_', '-', \
         starting with a letter or digit"
    )]
    Package(String),
    /// No channel's name.
    #[error(
        "{0:?} is no channel name; want 1 to {MAX_PACKAGE_NAME} of a-z, 0-9, '.', '_', '-', \
         starting with a letter, and not 'latest'"
    )]
    Channel(String),
    /// No version.
    #[error("{0:?} is no version; want a number, 'latest', or the name of a channel")]
    Version(String),
}

fn is_plain(name: &str) -> bool {
    let plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first && name.len() <= MAX_PACKAGE_NAME && name.as_bytes().iter().all(plain)
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
    };
}

/// The name of a package.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(Box<str>);
text_name!(PackageName);

impl FromStr for PackageName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match is_plain(text) {
            true => Ok(Self(text.into())),
            false => Err(BadName::Package(shorten(text))),
        }
    }
}

/// The name of a channel: a pointer to a version that an administrator moves.
///
/// `latest` is none, it points to the newest version by itself; nor is a number, which names a
/// version.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(Box<str>);
text_name!(ChannelName);

impl FromStr for ChannelName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let letter_first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        match is_plain(text) && letter_first && text != LATEST {
            true => Ok(Self(text.into())),
            false => Err(BadName::Channel(shorten(text))),
        }
    }
}

const LATEST: &str = "latest";

/// Which version of a package is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The newest.
    Latest,
    /// The one with this number.
    Number(u64),
    /// The one that a channel points to.
    Channel(ChannelName),
}

impl FromStr for Selector {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::Version(shorten(text));
        if text == LATEST {
            return Ok(Self::Latest);
        }
        // One spelling for each number: it is part of URLs that are cached.
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0') {
            return text.parse().map(Self::Number).map_err(|_| bad());
        }
        text.parse().map(Self::Channel).map_err(|_| bad())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Latest => f.write_str(LATEST),
            Selector::Number(number) => number.fmt(f),
            Selector::Channel(channel) => channel.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "0ad", "linux-image-6.1.0", "a_b", &"n".repeat(64)] {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a b", "é", "a\n", &"n".repeat(65)] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selector_is_one_of_three() {
        assert_eq!("latest".parse(), Ok(Selector::Latest));
        assert_eq!("12".parse(), Ok(Selector::Number(12)));
        let stable = Selector::Channel("stable".parse().unwrap());
        assert_eq!("stable".parse(), Ok(stable));
        for bad in ["", "012", "0", "-1", "12x", "99999999999999999999", "Stable"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        assert!("latest".parse::<ChannelName>().is_err());
    }
}
