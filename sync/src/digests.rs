//! What an upstream states about the bytes of a file, and checking bytes against it.
//!
//! Upstreams name files by MD5, SHA-1, SHA-256 or SHA-512, often by several. Only the strongest one
//! stated counts as proof, and MD5 never does.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A hash function that upstreams use, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// MD5: recorded to be told on, never believed.
    Md5,
    /// SHA-1: all that older catalogues state.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them, the weakest first.
    pub const ALL: [Algorithm; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512];

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Its name in front of a value: `md5`, `sha1`, `sha256`, `sha512`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// What is stated about one file: at most one value of each algorithm, as lower-case hex digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Algorithm, String>", into = "BTreeMap<Algorithm, String>")]
pub struct Digests(BTreeMap<Algorithm, String>);

/// Text that is no value of that algorithm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {}: want {} hex digits", algorithm.as_str(), algorithm.size() * 2)]
pub struct NotADigest {
    algorithm: Algorithm,
    text: String,
}

impl Digests {
    /// One value, of hex digits in either case.
    pub fn of(algorithm: Algorithm, hex: &str) -> Result<Self, NotADigest> {
        Self::default().with(algorithm, hex)
    }

    /// The same and one more, in place of the one of that algorithm.
    pub fn with(mut self, algorithm: Algorithm, hex: &str) -> Result<Self, NotADigest> {
        let is_hex =
            hex.len() == algorithm.size() * 2 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex {
            let text = hex.chars().take(140).collect();
            return Err(NotADigest { algorithm, text });
        }
        self.0.insert(algorithm, hex.to_ascii_lowercase());
        Ok(self)
    }

    /// The same and one more, given as bytes; bytes of a wrong length are an error.
    pub fn with_bytes(self, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, NotADigest> {
        self.with(algorithm, &to_hex(bytes))
    }

    /// The value of that algorithm, as hex digits.
    pub fn get(&self, algorithm: Algorithm) -> Option<&str> {
        self.0.get(&algorithm).map(String::as_str)
    }

    /// The strongest value that proves something; MD5 does not.
    pub fn strongest(&self) -> Option<(Algorithm, &str)> {
        let (algorithm, hex) = self.0.last_key_value()?;
        (*algorithm > Algorithm::Md5).then_some((*algorithm, hex.as_str()))
    }

    /// All of them, the weakest first.
    pub fn iter(&self) -> impl Iterator<Item = (Algorithm, &str)> {
        self.0.iter().map(|(algorithm, hex)| (*algorithm, hex.as_str()))
    }

    /// Whether both may be of the same file: no algorithm that both have says otherwise.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.iter().all(|(algorithm, hex)| other.get(algorithm).is_none_or(|it| it == hex))
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<Algorithm, String>> for Digests {
    type Error = NotADigest;
    fn try_from(all: BTreeMap<Algorithm, String>) -> Result<Self, NotADigest> {
        all.into_iter()
            .try_fold(Self::default(), |found, (algorithm, hex)| found.with(algorithm, &hex))
    }
}

impl From<Digests> for BTreeMap<Algorithm, String> {
    fn from(digests: Digests) -> Self {
        digests.0
    }
}

impl fmt::Display for Digests {
    /// The strongest, as `sha256:…`; `none` if there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.last_key_value() {
            Some((algorithm, hex)) => write!(f, "{}:{hex}", algorithm.as_str()),
            None => f.write_str("none"),
        }
    }
}

impl FromStr for Digests {
    type Err = NotADigest;
    /// Reads `sha256:…`.
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let (name, hex) = text.split_once(':').unwrap_or(("", text));
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
        Self::of(algorithm.unwrap_or(Algorithm::Sha256), hex)
    }
}

/// Computes values of bytes that come in parts.
pub struct Hasher {
    size: u64,
    md5: Option<md5::Md5>,
    sha1: Option<sha1::Sha1>,
    sha256: Option<sha2::Sha256>,
    sha512: Option<sha2::Sha512>,
}

impl Hasher {
    /// One for `algorithms`.
    pub fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut hasher = Self { size: 0, md5: None, sha1: None, sha256: None, sha512: None };
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Md5 => hasher.md5 = Some(md5::Md5::default()),
                Algorithm::Sha1 => hasher.sha1 = Some(sha1::Sha1::default()),
                Algorithm::Sha256 => hasher.sha256 = Some(sha2::Sha256::default()),
                Algorithm::Sha512 => hasher.sha512 = Some(sha2::Sha512::default()),
            }
        }
        hasher
    }

    /// One that computes what proves that bytes are those that `stated` is about.
    pub fn proving(stated: &Digests) -> Self {
        Self::new(stated.strongest().map(|(algorithm, _)| algorithm))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// How many bytes came, and their values.
    pub fn finish(self) -> (u64, Digests) {
        let mut found = BTreeMap::new();
        if let Some(md5) = self.md5 {
            found.insert(Algorithm::Md5, to_hex(&md5.finalize()));
        }
        if let Some(sha1) = self.sha1 {
            found.insert(Algorithm::Sha1, to_hex(&sha1.finalize()));
        }
        if let Some(sha256) = self.sha256 {
            found.insert(Algorithm::Sha256, to_hex(&sha256.finalize()));
        }
        if let Some(sha512) = self.sha512 {
            found.insert(Algorithm::Sha512, to_hex(&sha512.finalize()));
        }
        (self.size, Digests(found))
    }
}

/// Lower-case hex digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_value_proves_and_md5_never_does() {
        let mut hasher = Hasher::new(Algorithm::ALL);
        hasher.update(b"ab");
        hasher.update(b"c");
        let (size, found) = hasher.finish();
        assert_eq!(size, 3);
        assert_eq!(found.get(Algorithm::Sha1), Some("a9993e364706816aba3e25717850c26c9cd0d89d"));
        assert_eq!(found.strongest().unwrap().0, Algorithm::Sha512);
        let weak = Digests::of(Algorithm::Md5, &"A".repeat(32)).unwrap();
        assert_eq!(weak.get(Algorithm::Md5), Some("a".repeat(32).as_str()));
        assert_eq!(weak.strongest(), None);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert!(Digests::of(Algorithm::Sha1, "abc").is_err());
        assert!("sha256:zz".parse::<Digests>().is_err());
        assert!(serde_json::from_str::<Digests>(r#"{"sha1":"00"}"#).is_err());
    }
}
