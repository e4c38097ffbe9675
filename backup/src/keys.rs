//! Keys: what must not be read by whoever finds a backup, sealed by a passphrase.
//!
//! Argon2id (RFC 9106) makes a key of the passphrase and a random salt, ChaCha20-Poly1305 (RFC 8439) seals
//! the files with it. Each sealing draws its own salt, so a key seals once. The parameters of Argon2
//! stand beside, so that they can grow; a file that asks for more than a GiB of memory is refused.

use crate::BadBackup;
use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::fmt;

/// The shortest passphrase, in characters.
pub const SHORTEST: usize = 12;
/// The longest sealed section.
pub const MAX_SEALED: usize = 4 << 20;
/// The most memory that opening takes, in KiB.
const MAX_MEMORY: u32 = 1 << 20;
/// The most passes that opening takes.
const MAX_PASSES: u32 = 16;
/// Memory in KiB, passes and lanes: the second recommended choice of RFC 9106, section 4.
const MEMORY: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const SALT: usize = 16;
const HEADER: usize = 12 + SALT + NONCE_LEN;
/// The most files, the longest name and the longest file.
const MAX_FILES: usize = 1000;
const MAX_NAME: usize = 255;
const MAX_FILE: usize = 1 << 20;

/// A file that is to be kept from others. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Where it is in the data folder: names apart by `/`.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

/// A passphrase. It is never shown.
#[derive(Clone)]
pub struct Passphrase(Vec<u8>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Passphrase {
    /// The first line of `text`.
    pub fn of_text(text: &str) -> Result<Self, BadBackup> {
        let line = text.lines().next().unwrap_or_default();
        match line.chars().count() {
            found if found < SHORTEST => Err(BadBackup::WeakPassphrase { found, want: SHORTEST }),
            _ => Ok(Self(line.as_bytes().to_vec())),
        }
    }
}

/// Files that were sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE_LEN],
    sealed: Vec<u8>,
}

/// What Argon2 is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory: u32,
    passes: u32,
    lanes: u32,
}

/// Seals files.
pub fn seal(files: &[KeyFile], passphrase: &Passphrase) -> Result<Sealed, BadBackup> {
    seal_at(files, passphrase, Cost { memory: MEMORY, passes: PASSES, lanes: LANES })
}

#[cfg(test)]
pub(crate) fn seal_lightly(files: &[KeyFile]) -> Sealed {
    let passphrase = Passphrase::of_text("correct horse battery").unwrap();
    seal_at(files, &passphrase, Cost { memory: 64, passes: 1, lanes: 1 }).unwrap()
}

fn seal_at(files: &[KeyFile], passphrase: &Passphrase, cost: Cost) -> Result<Sealed, BadBackup> {
    let (salt, nonce) = (rand::random(), rand::random());
    let mut sealed = Sealed { cost, salt, nonce, sealed: encode_files(files) };
    let key = sealed.key(passphrase)?;
    let aad = Aad::from(sealed.header());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed.sealed)
        .map_err(|_| failed("the keys cannot be sealed"))?;
    Ok(sealed)
}

impl Sealed {
    /// The files.
    pub fn open(&self, passphrase: &Passphrase) -> Result<Vec<KeyFile>, BadBackup> {
        let key = self.key(passphrase)?;
        let mut bytes = self.sealed.clone();
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let plain = key.open_in_place(nonce, Aad::from(self.header()), &mut bytes);
        let plain = plain.map_err(|_| BadBackup::WrongPassphrase)?;
        decode_files(plain).ok_or_else(|| failed("what was sealed are no keys"))
    }

    fn key(&self, passphrase: &Passphrase) -> Result<LessSafeKey, BadBackup> {
        let Cost { memory, passes, lanes } = self.cost;
        let mut key = [0; 32];
        let made = Params::new(memory, passes, lanes, Some(key.len())).and_then(|params| {
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                &passphrase.0,
                &self.salt,
                &mut key,
            )
        });
        made.map_err(|error| failed(&format!("a key cannot be made: {error}")))?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
        Ok(LessSafeKey::new(key.map_err(|_| failed("a key cannot be made"))?))
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let Cost { memory, passes, lanes } = self.cost;
        let numbers = [memory, passes, lanes].map(u32::to_le_bytes);
        let all = numbers.as_flattened().iter().chain(&self.salt).chain(&self.nonce);
        header.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        header
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.header(), self.sealed.as_slice()].concat()
    }

    /// Reads what `encode` wrote.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, sealed) = bytes.split_at_checked(HEADER)?;
        let (numbers, rest) = header.split_at_checked(12)?;
        let (salt, nonce) = rest.split_at_checked(SALT)?;
        let mut numbers = numbers.chunks_exact(4).map(|n| n.try_into().map(u32::from_le_bytes));
        let mut next = || numbers.next()?.ok();
        let cost = Cost { memory: next()?, passes: next()?, lanes: next()? };
        let fits = cost.memory <= MAX_MEMORY && cost.passes <= MAX_PASSES && cost.lanes <= 64;
        let (salt, nonce) = (salt.try_into().ok()?, nonce.try_into().ok()?);
        fits.then(|| Self { cost, salt, nonce, sealed: sealed.to_vec() })
    }
}

fn failed(what: &str) -> BadBackup {
    BadBackup::Io(std::io::Error::other(what.to_owned()))
}

fn encode_files(files: &[KeyFile]) -> Vec<u8> {
    let mut out = Vec::new();
    for KeyFile { name, bytes } in files {
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// Reads what `encode_files` wrote; nothing if a name leads anywhere but below the folder.
pub(crate) fn decode_files(mut bytes: &[u8]) -> Option<Vec<KeyFile>> {
    let mut files = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(6)?;
        let [a, b, c, d, e, f] = *header else { return None };
        let name_len = usize::from(u16::from_le_bytes([a, b]));
        let len = u32::from_le_bytes([c, d, e, f]) as usize;
        if len > MAX_FILE || files.len() == MAX_FILES {
            return None;
        }
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (file, rest) = rest.split_at_checked(len)?;
        let name = String::from_utf8(name.to_vec()).ok().filter(|name| is_inside(name))?;
        files.push(KeyFile { name, bytes: file.to_vec() });
        bytes = rest;
    }
    Some(files)
}

/// Whether a name leads to a file below the folder, and to no other: `a/b.c`.
pub fn is_inside(name: &str) -> bool {
    let is_part = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        plain && !part.is_empty() && !part.starts_with('.')
    };
    name.len() <= MAX_NAME && name.split('/').count() <= 4 && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<KeyFile> {
        let file = |name: &str, bytes: &[u8]| KeyFile { name: name.into(), bytes: bytes.into() };
        vec![file("admin.token", b"x"), file("keys/parent/key.pem", &[7; 300])]
    }

    #[test]
    fn sealed_keys_open_with_their_passphrase_alone() {
        let right = Passphrase::of_text("correct horse battery\nanother line").unwrap();
        let sealed = Sealed::parse(&seal_lightly(&files()).encode()).unwrap();
        assert_eq!(sealed.open(&right).unwrap(), files());
        let wrong = Passphrase::of_text("correct horse batterz").unwrap();
        assert!(matches!(sealed.open(&wrong), Err(BadBackup::WrongPassphrase)));
        let short = Passphrase::of_text("short\nlonger, but on the second line");
        assert!(matches!(short, Err(BadBackup::WeakPassphrase { found: 5, .. })));
    }

    #[test]
    fn neither_header_nor_bytes_can_be_changed() {
        let right = Passphrase::of_text("correct horse battery").unwrap();
        let good = seal_lightly(&files()).encode();
        for at in [0, 4, 8, 12, 20, 30, HEADER, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Sealed::parse(&bad).is_none_or(|it| it.open(&right).is_err()), "byte {at}");
        }
        let mut greedy = good.clone();
        greedy[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Sealed::parse(&greedy), None);
    }

    #[test]
    fn the_cost_of_a_key_is_that_of_the_rfc() {
        let right = Passphrase::of_text("correct horse battery").unwrap();
        let sealed = seal(&files(), &right).unwrap();
        assert_eq!(sealed.cost, Cost { memory: 65_536, passes: 3, lanes: 4 });
        assert_eq!(sealed.open(&right).unwrap(), files());
        assert!(!format!("{sealed:?} {right:?} {:?}", files()).contains("horse"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in ["/etc/passwd", "../x", "keys/../../x", "", "a//b", ".hidden", "a/b/c/d/e", "ä"]
        {
            assert!(!is_inside(name), "{name}");
            let files = vec![KeyFile { name: name.into(), bytes: vec![] }];
            assert_eq!(decode_files(&encode_files(&files)), None);
        }
        assert!(is_inside("keys/site.ed25519") && is_inside("wsus.secret"));
    }
}
