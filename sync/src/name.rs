//! What sources, products and updates are called.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The longest name of a source.
pub const MAX_SOURCE_NAME: usize = 64;

/// What an upstream is called here: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, a letter or digit in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(Box<str>);

/// Text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no source name; want 1 to {MAX_SOURCE_NAME} of a-z, 0-9, '.', '_', '-', starting with \
     a letter or digit"
)]
pub struct BadSourceName(String);

impl SourceName {
    /// The source of the updates that a site issues itself. No upstream is called so.
    pub fn own() -> Self {
        Self("local".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = BadSourceName;
    fn from_str(text: &str) -> Result<Self, BadSourceName> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = text.len() <= MAX_SOURCE_NAME
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(plain);
        if good {
            Ok(Self(text.into()))
        } else {
            Err(BadSourceName(text.chars().take(100).collect()))
        }
    }
}

impl TryFrom<String> for SourceName {
    type Error = BadSourceName;
    fn try_from(text: String) -> Result<Self, BadSourceName> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> String {
        name.0.into()
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which update, whatever its revision: a GUID, as Microsoft's protocols require.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateId(pub Uuid);

/// The space of the ids that [`UpdateId::named`] makes; drawn once, never to be changed.
const NAMED: Uuid = Uuid::from_u128(0x6f1d_52a6_93b4_4f0e_8a67_2c1b_7d0e_55c9);

impl UpdateId {
    /// The id of what an upstream without GUIDs calls by these words, such as
    /// `["apt", "Debian", "bookworm", "openssl", "3.0.17-1"]`: a name-based GUID (RFC 9562, version 5), so
    /// that every site gives it the same one.
    pub fn named(words: &[&str]) -> Self {
        // A length in front of each, so that no two lists are one text.
        let text: String = words.iter().map(|word| format!("{}:{word}", word.len())).collect();
        Self(Uuid::new_v5(&NAMED, text.as_bytes()))
    }
}

/// Text that is no GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of an update; want a GUID of 8-4-4-4-12 hex digits")]
pub struct NotAnUpdateId(String);

impl FromStr for UpdateId {
    type Err = NotAnUpdateId;
    /// Reads a GUID in either case, with or without braces.
    fn from_str(text: &str) -> Result<Self, NotAnUpdateId> {
        let guid = Uuid::try_parse(text.trim());
        guid.map(Self).map_err(|_| NotAnUpdateId(text.chars().take(100).collect()))
    }
}

impl fmt::Display for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl sitedb::Key for UpdateId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self(Uuid::from_bytes(*first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ids_are_the_same_everywhere_and_differ_by_every_word() {
        let id = UpdateId::named(&["apt", "Debian", "bookworm", "openssl", "3.0.17-1"]);
        assert_eq!(id, UpdateId::named(&["apt", "Debian", "bookworm", "openssl", "3.0.17-1"]));
        assert_ne!(UpdateId::named(&["a", "bc"]), UpdateId::named(&["ab", "c"]));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{{{}}}", id.to_string().to_uppercase()).parse(), Ok(id));
        assert!("openssl".parse::<UpdateId>().is_err());
    }
}
