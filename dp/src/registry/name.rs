//! What points, groups and boundary groups are called: as packages are, and so that no name can be taken for an id.

use crate::field::PointId;
use std::fmt;
use std::str::FromStr;

/// The longest name.
const MAX_NAME: usize = 64;

/// Text that names no point or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a {1}; want 1 to {MAX_NAME} of a-z, 0-9, '.', '_', '-', starting with a \
     letter or digit, and not 32 hex digits"
)]
pub struct BadName(String, &'static str);

impl BadName {
    /// The same, where it was to be the name of something else.
    pub fn of(self, what: &'static str) -> Self {
        Self(self.0, what)
    }
}

fn checked(text: &str, what: &'static str) -> Result<Box<str>, BadName> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = text.len() <= MAX_NAME
        && text.bytes().next().is_some_and(first)
        && text.bytes().all(plain)
        && text.parse::<PointId>().is_err();
    if good { Ok(text.into()) } else { Err(BadName(text.chars().take(100).collect(), what)) }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                checked(text, $what).map(Self)
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

names! {
    /// What people call a distribution point.
    PointName, "distribution point";
    /// What people call a group of distribution points.
    GroupName, "group";
    /// What people call a boundary group.
    BoundaryGroupName, "boundary group";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_never_ids() {
        for good in ["branch-7", "0", "a.b_c"] {
            assert!(good.parse::<PointName>().is_ok() && good.parse::<GroupName>().is_ok());
        }
        let id = PointId::from_random(7).to_string();
        for bad in ["", "-a", "Branch", "a b", "a/b", "é", &"x".repeat(65), &id] {
            assert!(bad.parse::<PointName>().is_err(), "{bad}");
        }
    }
}
