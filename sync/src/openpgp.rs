//! OpenPGP: whether something is signed by a key of a keyring, and signing with the site's own.
//!
//! Repositories sign a list of digests: Debian's in the text itself or beside it, RPM's beside it. One
//! good signature by one key of the keyring is enough; of a key that is unknown, expired or revoked
//! none counts. What is handed on of a signed text is exactly the part that was signed.
//!
//! Everything here is computed from its arguments: the time is one of them.

mod certificate;
mod clear;
mod packets;
mod site_key;

use crate::error::{Cause, SyncError};
use certificate::Standing;
use jiff::Timestamp;
use pgp::armor::{self, BlockType, Dearmor};
use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, VerifyingKey};
use serde::{Deserialize, Serialize};
pub use site_key::{SigningError, SigningKey};
use std::fmt;
use std::io::Read;

/// The largest keyring, in bytes; Debian's has 60 KB.
pub const MAX_KEYRING: usize = 8 << 20;
/// How many keys a keyring may have.
pub const MAX_KEYS: usize = 1_000;
/// The largest signed document, in bytes; Debian's main archive signs 150 KB.
pub const MAX_DOCUMENT: usize = 32 << 20;
/// The largest block of signatures.
const MAX_SIGNATURE_BLOCK: usize = 1 << 20;
/// How many signatures a document may have, and how many keys are tried in all.
const MAX_SIGNATURES: usize = 32;
const MAX_TRIES: usize = 256;
/// By how much the clocks of who signs and who checks may differ, in seconds.
const SKEW: i64 = 600;

/// Keys that are trusted. Written as one armored block, whatever they were read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// Bytes that are no keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKeyring {
    /// More than is taken.
    #[error("the keyring has more than {MAX_KEYRING} bytes or {MAX_KEYS} keys")]
    TooLarge,
    /// A secret key: it does not belong there.
    #[error("the keyring has a secret key; export the public one, as `gpg --export` does")]
    Secret,
    /// What GnuPG keeps keys in.
    #[error(
        "this is a keybox of GnuPG, and no keyring; export its keys: `gpg --no-default-keyring \
         --keyring FILE --export > keys.gpg`"
    )]
    Keybox,
    /// Nothing in it is a public key that can be read.
    #[error("the keyring has no OpenPGP public key, binary or armored: {0}")]
    NoKey(String),
}

/// Why something does not count as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// More than is taken.
    #[error("it is larger than the {0} bytes that are taken")]
    TooLarge(usize),
    /// It does not have the form of a signed document, or of signatures.
    #[error("it is not signed in a form that is read here: {0}")]
    Malformed(&'static str),
    /// It has signatures, and none of them counts.
    #[error("none of its signatures counts: {}", Listed(.0))]
    NoneGood(Vec<Refused>),
}

/// A signature that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The key that it names: fingerprint or key id, as hex digits; empty where it names none.
    pub key: String,
    /// Why it does not count.
    pub why: Fault,
}

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The keyring does not have its key.
    UnknownKey,
    /// It is not of these bytes.
    Wrong,
    /// Its key has expired.
    KeyExpired,
    /// Its key was revoked.
    KeyRevoked,
    /// Its key is not for signing, or nothing binds it to its owner.
    KeyUnfit,
    /// It has expired itself.
    Expired,
    /// It was made in the future, or before its key.
    WrongTime,
    /// Its hash function or its key is too weak.
    Weak,
    /// It is of a kind that is not known here.
    Unsupported,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKey => "the keyring does not have this key",
            Self::Wrong => "it is not of these bytes",
            Self::KeyExpired => "this key has expired",
            Self::KeyRevoked => "this key was revoked",
            Self::KeyUnfit => "this key is not bound to sign",
            Self::Expired => "the signature has expired",
            Self::WrongTime => "it was made in the future, or before its key was",
            Self::Weak => "its hash function or key is too weak",
            Self::Unsupported => "it is of an unknown kind",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<String> for Keyring {
    type Error = NotAKeyring;
    fn try_from(armored: String) -> Result<Self, NotAKeyring> {
        Self::parse(armored.as_bytes())
    }
}

impl From<Keyring> for String {
    fn from(keyring: Keyring) -> String {
        let mut armored = Vec::new();
        armor::write(&keyring.keys, BlockType::PublicKey, &mut armored, None, true)
            .expect("what was read can be written, to memory");
        String::from_utf8_lossy(&armored).into_owned()
    }
}

struct Listed<'a>(&'a [Refused]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it has none");
        }
        for (n, refused) in self.0.iter().enumerate() {
            let separator = if n > 0 { ", " } else { "" };
            let key = if refused.key.is_empty() { "unnamed key" } else { &refused.key };
            write!(f, "{separator}{key}: {}", refused.why)?;
        }
        Ok(())
    }
}

impl NotSigned {
    /// The same as a failed sync of `what`.
    pub fn of(self, what: impl fmt::Display) -> SyncError {
        let cause = match &self {
            Self::TooLarge(_) => Cause::TooLarge,
            Self::Malformed(_) | Self::NoneGood(_) => Cause::BadSignature,
        };
        SyncError::because(cause, format!("{what} is not signed by a trusted key"), self)
    }
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The fingerprint of the key of the keyring, as upper-case hex digits.
    pub fingerprint: String,
    /// A user id of it; may be empty.
    pub user_id: String,
    /// When.
    pub at: Timestamp,
}

impl Keyring {
    /// Reads public keys, binary or armored, one after the other.
    ///
    /// Keys of a kind that is not known here are passed over, as long as one is left; so are the trust
    /// packets of GnuPG.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAKeyring> {
        Self::parse_and_tell(bytes).map(|(keyring, _)| keyring)
    }

    /// The same, and what of it was passed over, if anything was.
    pub fn parse_and_tell(bytes: &[u8]) -> Result<(Self, Option<String>), NotAKeyring> {
        // A keybox begins with the length and the kind of its first record, and then this.
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err(NotAKeyring::Keybox);
        }
        if bytes.len() > MAX_KEYRING {
            return Err(NotAKeyring::TooLarge);
        }
        if contains(bytes, b"-----BEGIN PGP PRIVATE KEY BLOCK-----") {
            return Err(NotAKeyring::Secret);
        }
        let mut why = String::from("there is none in it");
        let mut keys: Vec<SignedPublicKey> = Vec::new();
        let (mut all_keys, mut all_subkeys) = (0, 0);
        let armored = clear::blocks(bytes, "PGP PUBLIC KEY BLOCK");
        let parts = match armored.is_empty() {
            true => vec![bytes.to_vec()],
            false => armored.into_iter().filter_map(dearmored).collect(),
        };
        for part in parts {
            let sifted = packets::sift(&part);
            if sifted.has_secret {
                return Err(NotAKeyring::Secret);
            }
            all_keys += sifted.keys;
            all_subkeys += sifted.subkeys;
            let found = match SignedPublicKey::from_bytes_many(sifted.bytes.as_slice()) {
                Ok(found) => found,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            // A broken packet ends the key it is of; the bound holds for broken ones too.
            for key in found.take(MAX_KEYS + 1) {
                match key {
                    Ok(key) => keys.push(key),
                    Err(error) => why = error.to_string(),
                }
            }
        }
        match keys.len() {
            0 => return Err(NotAKeyring::NoKey(why.chars().take(200).collect())),
            1..=MAX_KEYS => {}
            _ => return Err(NotAKeyring::TooLarge),
        }
        let subkeys = keys.iter().map(|key| key.public_subkeys.len()).sum();
        let lost = (all_keys.saturating_sub(keys.len()), all_subkeys.saturating_sub(subkeys));
        let told = (lost != (0, 0)).then(|| {
            format!(
                "{} of {all_keys} keys and {} of {all_subkeys} subkeys cannot be read and are left out",
                lost.0, lost.1
            )
        });
        Ok((Self { keys }, told))
    }

    /// The fingerprints of its keys, as upper-case hex digits.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| format!("{:X}", key.fingerprint()))
    }

    /// The signed text of a clear-signed document (RFC 9580, section 7), and who signed it.
    ///
    /// The text is what the signature is of: without dash escapes and without spaces at the ends of
    /// lines, with `\n` at the end of each line. Nothing outside of it comes through.
    pub fn signed_text(
        &self,
        document: &[u8],
        now: Timestamp,
    ) -> Result<(Vec<u8>, Signer), NotSigned> {
        if document.len() > MAX_DOCUMENT {
            return Err(NotSigned::TooLarge(MAX_DOCUMENT));
        }
        let clear::ClearSigned { text, signatures } = clear::parse(document)?;
        let signer = self.verify(&clear::hashed(&text), signatures, now)?;
        Ok((text, signer))
    }

    /// Who signed `data`, by a document that is beside it: armored or binary, one or several.
    pub fn signer_of(
        &self,
        data: &[u8],
        signatures: &[u8],
        now: Timestamp,
    ) -> Result<Signer, NotSigned> {
        if data.len() > MAX_DOCUMENT {
            return Err(NotSigned::TooLarge(MAX_DOCUMENT));
        }
        if signatures.len() > MAX_SIGNATURE_BLOCK {
            return Err(NotSigned::TooLarge(MAX_SIGNATURE_BLOCK));
        }
        let armored = clear::blocks(signatures, "PGP SIGNATURE");
        let packets = match armored.is_empty() {
            true => signatures.to_vec(),
            false => armored.into_iter().filter_map(dearmored).flatten().collect(),
        };
        self.verify(data, packets, now)
    }

    /// The first good one of `signatures`, which are packets.
    fn verify(
        &self,
        data: &[u8],
        signatures: Vec<u8>,
        now: Timestamp,
    ) -> Result<Signer, NotSigned> {
        let found = DetachedSignature::from_bytes_many(signatures.as_slice())
            .map_err(|_| NotSigned::Malformed("there are no signatures in it"))?;
        let mut refused = Vec::new();
        let mut tries = MAX_TRIES;
        for signature in found.take(MAX_SIGNATURES) {
            let Ok(DetachedSignature { signature }) = signature else {
                refused.push(Refused { key: String::new(), why: Fault::Unsupported });
                continue;
            };
            match self.check(&signature, data, now, &mut tries) {
                Ok(signer) => return Ok(signer),
                Err(why) => refused.push(Refused { key: key_named(&signature), why }),
            }
        }
        Err(NotSigned::NoneGood(refused))
    }

    fn check(
        &self,
        signature: &Signature,
        data: &[u8],
        now: Timestamp,
        tries: &mut usize,
    ) -> Result<Signer, Fault> {
        let is_text = match signature.typ() {
            Some(SignatureType::Text) => true,
            Some(SignatureType::Binary) => false,
            _ => return Err(Fault::Unsupported),
        };
        // A signature of text does not tell one end of a line from another, so that who moves a lone
        // carriage return would join lines unseen.
        if is_text && has_lone_return(data) {
            return Err(Fault::Wrong);
        }
        if !is_strong(signature.hash_alg()) {
            return Err(Fault::Weak);
        }
        if has_unknown_critical_part(signature) {
            return Err(Fault::Unsupported);
        }
        let made = i64::from(signature.created().ok_or(Fault::WrongTime)?.as_secs());
        if made > now.as_second() + SKEW {
            return Err(Fault::WrongTime);
        }
        let lasts = signature.signature_expiration_time().map_or(0, |time| time.as_secs());
        if lasts > 0 && made + i64::from(lasts) < now.as_second() {
            return Err(Fault::Expired);
        }
        let mut fault = Fault::UnknownKey;
        for certificate in &self.keys {
            let primary = &certificate.primary_key;
            if is_named(signature, primary) {
                let standing = || certificate::primary(certificate, now);
                match tried(signature, primary, standing, data, made, tries) {
                    Ok(()) => return signer(certificate, made),
                    Err(why) => fault = why,
                }
            }
            for subkey in &certificate.public_subkeys {
                if is_named(signature, &subkey.key) {
                    let standing = || certificate::subkey(certificate, subkey, now);
                    match tried(signature, &subkey.key, standing, data, made, tries) {
                        Ok(()) => return signer(certificate, made),
                        Err(why) => fault = why,
                    }
                }
            }
        }
        Err(fault)
    }
}

/// Whether `signature` is by `key`, and `key` may sign.
fn tried(
    signature: &Signature,
    key: &impl VerifyingKey,
    standing: impl FnOnce() -> Standing,
    data: &[u8],
    made: i64,
    tries: &mut usize,
) -> Result<(), Fault> {
    *tries = tries.checked_sub(1).ok_or(Fault::Unsupported)?;
    signature.verify(key, data).map_err(|_| Fault::Wrong)?;
    if made < i64::from(key.created_at().as_secs()) {
        return Err(Fault::WrongTime);
    }
    match standing() {
        Standing::Good if certificate::is_weak(key.public_params()) => Err(Fault::Weak),
        Standing::Good => Ok(()),
        Standing::Revoked => Err(Fault::KeyRevoked),
        Standing::Expired => Err(Fault::KeyExpired),
        Standing::Unfit => Err(Fault::KeyUnfit),
    }
}

fn signer(certificate: &SignedPublicKey, made: i64) -> Result<Signer, Fault> {
    let user = certificate.details.users.first();
    Ok(Signer {
        fingerprint: format!("{:X}", certificate.fingerprint()),
        user_id: user.and_then(|user| user.id.as_str()).unwrap_or_default().to_owned(),
        at: Timestamp::from_second(made).map_err(|_| Fault::WrongTime)?,
    })
}

/// Whether `signature` names `key`, or names none.
fn is_named(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    (ids.is_empty() && fingerprints.is_empty())
        || ids.contains(&&key.legacy_key_id())
        || fingerprints.contains(&&key.fingerprint())
}

fn key_named(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|it| format!("{it:X}"));
    let id = || signature.issuer_key_id().first().map(|it| format!("{it:?}"));
    fingerprint.or_else(id).unwrap_or_default()
}

/// Hash functions for which nobody can make two texts that look alike to them.
fn is_strong(hash: Option<HashAlgorithm>) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    matches!(hash, Some(Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

/// What is marked as critical must be understood (RFC 9580, section 5.2.3.7).
fn has_unknown_critical_part(signature: &Signature) -> bool {
    let unknown = |data: &SubpacketData| {
        matches!(
            data,
            SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_)
        )
    };
    signature.config().is_none_or(|config| {
        config.hashed_subpackets().any(|part| part.is_critical && unknown(&part.data))
    })
}

fn has_lone_return(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some(at) = rest.iter().position(|b| *b == b'\r') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.first() != Some(&b'\n') {
            return true;
        }
    }
    false
}

/// The bytes in an armored block.
fn dearmored(block: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // No armor is shorter than what it holds.
    let read = Dearmor::new(block).take(MAX_KEYRING as u64).read_to_end(&mut bytes);
    read.ok().map(|_| bytes)
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests;
