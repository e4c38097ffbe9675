//! The key with which a site signs the repositories that it makes.
//!
//! Ed25519 in a version 4 key, in the form that GnuPG has read since 2.1 (`EdDSALegacy`), because that
//! is what the machines have on which `apt` and `dnf` check it.

use super::clear;
use jiff::Timestamp;
use pgp::armor::{self, BlockType};
use pgp::composed::{
    ArmorOptions, Deserializable, DetachedSignature, SignedKeyDetails, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::crypto::{ed25519, eddsa_legacy};
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, SecretKey, Signature, SignatureConfig, SignatureType,
    Subpacket, SubpacketData, UserId,
};
use pgp::ser::Serialize;
use pgp::types::{
    KeyDetails, KeyVersion, Password, PlainSecretParams, PublicParams, SecretParams, Tag,
};
use std::fmt;

const HASH: HashAlgorithm = HashAlgorithm::Sha512;

/// A secret key that signs.
#[derive(Clone)]
pub struct SigningKey(SignedSecretKey);

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The time is one that OpenPGP cannot state: before 1970 or after 2106.
    #[error("{0} is no time that OpenPGP can state")]
    Time(Timestamp),
    /// The bytes are no secret key.
    #[error("these bytes are no OpenPGP secret key without a password")]
    NotAKey,
    /// The library failed.
    #[error("OpenPGP failed")]
    Failed(#[from] Box<pgp::errors::Error>),
}

impl From<pgp::errors::Error> for SigningError {
    fn from(error: pgp::errors::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl fmt::Debug for SigningKey {
    /// Tells which key it is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

impl SigningKey {
    /// The key that `seed`, random and secret, gives; it never expires.
    pub fn new(seed: [u8; 32], user_id: &str, now: Timestamp) -> Result<Self, SigningError> {
        let created = pgp_time(now)?;
        let secret = ed25519::SecretKey::try_from_bytes(seed, ed25519::Mode::EdDSALegacy)?;
        let public = PublicKey::from_inner(PubKeyInner::new(
            KeyVersion::V4,
            PublicKeyAlgorithm::EdDSALegacy,
            created,
            None,
            PublicParams::EdDSALegacy((&secret).into()),
        )?)?;
        let secret = PlainSecretParams::EdDSALegacy(eddsa_legacy::SecretKey::Ed25519(secret));
        let secret = SecretKey::new(public.clone(), SecretParams::Plain(secret))?;

        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        flags.set_certify(true);
        let user = UserId::from_str(Default::default(), user_id)?;
        let mut config = config(SignatureType::CertPositive, &public, now)?;
        config.hashed_subpackets.push(Subpacket::regular(SubpacketData::KeyFlags(flags))?);
        config.hashed_subpackets.push(Subpacket::regular(SubpacketData::IsPrimary(true))?);
        let binding =
            config.sign_certification(&secret, &public, &Password::empty(), Tag::UserId, &user)?;
        let details =
            SignedKeyDetails::new(Vec::new(), Vec::new(), vec![user.into_signed(binding)], vec![]);
        Ok(Self(SignedSecretKey::new(secret, details, Vec::new(), Vec::new())))
    }

    /// Reads what [`SigningKey::to_secret_bytes`] gave.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, SigningError> {
        let key = SignedSecretKey::from_bytes(bytes).map_err(|_| SigningError::NotAKey)?;
        if matches!(key.primary_key.secret_params(), SecretParams::Encrypted(_)) {
            return Err(SigningError::NotAKey);
        }
        Ok(Self(key))
    }

    /// The secret key, as OpenPGP packets without a password: whoever has it signs as the site.
    pub fn to_secret_bytes(&self) -> Result<Vec<u8>, SigningError> {
        Ok(self.0.to_bytes()?)
    }

    /// Its fingerprint, as upper-case hex digits.
    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.0.fingerprint())
    }

    /// When it was made: no signature of it may be older.
    pub fn created(&self) -> Timestamp {
        let seconds = self.0.primary_key.created_at().as_secs();
        Timestamp::from_second(seconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The public key, as `Signed-By` of apt takes it.
    pub fn public_bytes(&self) -> Result<Vec<u8>, SigningError> {
        Ok(self.0.to_public_key().to_bytes()?)
    }

    /// The same in armor, as `gpgkey` of dnf takes it.
    pub fn public_armored(&self) -> Result<String, SigningError> {
        Ok(self.0.to_public_key().to_armored_string(ArmorOptions::default())?)
    }

    /// `text` with a signature in it. Spaces at the ends of lines are dropped.
    pub fn clear_sign(&self, text: &[u8], now: Timestamp) -> Result<Vec<u8>, SigningError> {
        let text = clear::plain(text);
        let signature = self.sign(SignatureType::Text, &clear::hashed(&text), now)?;
        Ok(clear::framed(&text, "SHA512", &armored(signature)?))
    }

    /// An armored signature of `data`, to be put beside it.
    pub fn detach_sign(&self, data: &[u8], now: Timestamp) -> Result<String, SigningError> {
        armored(self.sign(SignatureType::Binary, data, now)?)
    }

    fn sign(
        &self,
        kind: SignatureType,
        data: &[u8],
        now: Timestamp,
    ) -> Result<Signature, SigningError> {
        let config = config(kind, &self.0.primary_key, now)?;
        Ok(config.sign(&self.0.primary_key, &Password::empty(), data)?)
    }
}

fn config(
    kind: SignatureType,
    key: &impl KeyDetails,
    now: Timestamp,
) -> Result<SignatureConfig, SigningError> {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), HASH);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(pgp_time(now)?))?,
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
    ];
    config.unhashed_subpackets =
        vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
    Ok(config)
}

fn armored(signature: Signature) -> Result<String, SigningError> {
    let mut text = Vec::new();
    let signature = DetachedSignature::new(signature);
    armor::write(&signature, BlockType::Signature, &mut text, None, true)?;
    // Armor is ASCII.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn pgp_time(time: Timestamp) -> Result<pgp::types::Timestamp, SigningError> {
    let seconds = u32::try_from(time.as_second()).map_err(|_| SigningError::Time(time))?;
    Ok(pgp::types::Timestamp::from_secs(seconds))
}
