//! Names of bytes: what a content, a chunk and a pack are called.
//!
//! Everything depot stores is named by the BLAKE3 of its plain bytes. SHA-256 and SHA-1 names,
//! which upstreams state, are aliases that a library resolves to a [`Digest`].

use std::fmt;
use std::str::FromStr;

/// BLAKE3 of some bytes. Written and parsed as `blake3:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of no bytes at all: every library holds that content.
    pub const EMPTY: Digest = Digest([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9,
        0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f,
        0x32, 0x62,
    ]);

    /// The BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes 32 bytes that are already a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, without the `blake3:` in front.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Result<Self, MalformedDigest> {
        from_hex(hex).map(Self).ok_or_else(|| MalformedDigest(hex.into()))
    }
}

/// Text that names no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{:?} is not a digest; want blake3:, sha256: or sha1: and lower-case hex digits", shorten(.0)
)]
pub struct MalformedDigest(String);

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [DIGITS[(b >> 4) as usize], DIGITS[(b & 15) as usize]]);
    digits.map(char::from).collect()
}

fn from_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = MalformedDigest;
    fn from_str(text: &str) -> Result<Self, MalformedDigest> {
        let hex = text.strip_prefix("blake3:").ok_or_else(|| MalformedDigest(text.into()))?;
        Self::from_hex(hex)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Names a chunk: the digest of its plain bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ChunkId(pub Digest);

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names a pack: random and time-ordered, never derived from its bytes, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u128);

impl PackId {
    /// A new name: 48 bits of milliseconds since 1970, then 80 random bits.
    pub fn mint(unix_ms: u64, random: u128) -> Self {
        Self(u128::from(unix_ms & 0xffff_ffff_ffff) << 80 | random >> 48)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack {self}")
    }
}

impl serde::Serialize for PackId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Any name a content can be asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// The content's own name.
    Blake3(Digest),
    /// An alias, known when the content was added with it.
    Sha256([u8; 32]),
    /// An alias, known when the content was added with it.
    Sha1([u8; 20]),
}

impl From<Digest> for Name {
    fn from(digest: Digest) -> Self {
        Self::Blake3(digest)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Blake3(digest) => fmt::Display::fmt(digest, f),
            Name::Sha256(bytes) => write!(f, "sha256:{}", to_hex(bytes)),
            Name::Sha1(bytes) => write!(f, "sha1:{}", to_hex(bytes)),
        }
    }
}

impl FromStr for Name {
    type Err = MalformedDigest;
    fn from_str(text: &str) -> Result<Self, MalformedDigest> {
        let parsed = match text.split_once(':') {
            Some(("blake3", hex)) => from_hex(hex).map(|b| Name::Blake3(Digest(b))),
            Some(("sha256", hex)) => from_hex(hex).map(Name::Sha256),
            Some(("sha1", hex)) => from_hex(hex).map(Name::Sha1),
            _ => None,
        };
        parsed.ok_or_else(|| MalformedDigest(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_constant() {
        assert_eq!(Digest::of(b""), Digest::EMPTY);
    }

    #[test]
    fn names_read_back_as_written() {
        let names =
            [Name::Blake3(Digest::of(b"any")), Name::Sha256([7; 32]), Name::Sha1([0xf0; 20])];
        for name in names {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let hex = Digest::of(b"any").to_hex();
        let upper = format!("blake3:{}", hex.to_uppercase());
        let short = format!("blake3:{}", &hex[1..]);
        let sha1_too_long = format!("sha1:{hex}");
        for text in ["", "blake3:", hex.as_str(), &upper, &short, &sha1_too_long, "md5:00"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn packs_are_named_in_the_order_of_time() {
        assert!(PackId::mint(1, u128::MAX) < PackId::mint(2, 0));
    }
}
