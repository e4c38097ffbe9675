//! Which keys of a certificate may sign, at a given time.
//!
//! A certificate is a primary key, user ids and subkeys, joined by signatures of the primary key
//! (RFC 9580, section 10.1). Anybody can append to one, so that only what the primary key itself signed
//! counts, and of that the newest.

use super::SKEW;
use jiff::Timestamp;
use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag};

/// Whether a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may.
    Good,
    /// Its owner took it back.
    Revoked,
    /// Its time is over.
    Expired,
    /// It is for something else, or nothing that counts binds it.
    Unfit,
}

/// The primary key.
pub(super) fn primary(certificate: &SignedPublicKey, now: Timestamp) -> Standing {
    let whole = whole(certificate, now);
    if whole != Standing::Good {
        return whole;
    }
    let may_sign =
        newest_own(certificate, now).is_some_and(|newest| flags(newest).is_none_or(KeyFlags::sign));
    if may_sign { Standing::Good } else { Standing::Unfit }
}

/// A subkey: it must be bound by the primary key, and confirm this itself.
pub(super) fn subkey(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: Timestamp,
) -> Standing {
    let whole = whole(certificate, now);
    if whole != Standing::Good {
        return whole;
    }
    let primary = &certificate.primary_key;
    let good = |signature: &&Signature| {
        counts(signature, now) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
    };
    let revoked = subkey
        .signatures
        .iter()
        .filter(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation));
    if revoked.clone().any(|signature| good(&signature)) {
        return Standing::Revoked;
    }
    let bindings = subkey
        .signatures
        .iter()
        .filter(|signature| signature.typ() == Some(SignatureType::SubkeyBinding));
    let Some(newest) = bindings.filter(good).max_by_key(|signature| signature.created()) else {
        return Standing::Unfit;
    };
    if has_expired(newest, subkey.key.created_at(), now) {
        return Standing::Expired;
    }
    // Without the way back one could claim another's key as one's own (section 5.2.1.10).
    let confirmed = newest
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if confirmed && flags(newest).is_some_and(KeyFlags::sign) {
        Standing::Good
    } else {
        Standing::Unfit
    }
}

/// RSA and DSA below 2048 bits are within reach of those who have much to gain.
pub(super) fn is_weak(params: &PublicParams) -> bool {
    match params {
        // Modulus and exponent, each with its length.
        PublicParams::RSA(rsa) => rsa.write_len() < 2 + 256,
        PublicParams::DSA(_) => true,
        _ => false,
    }
}

/// The certificate as such: not revoked, not expired, and bound to an owner.
fn whole(certificate: &SignedPublicKey, now: Timestamp) -> Standing {
    let primary = &certificate.primary_key;
    let revoked = certificate.details.revocation_signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::KeyRevocation)
            && signature.verify_key(primary).is_ok()
    });
    if revoked {
        return Standing::Revoked;
    }
    match newest_own(certificate, now) {
        None => Standing::Unfit,
        Some(newest) if has_expired(newest, primary.created_at(), now) => Standing::Expired,
        Some(_) => Standing::Good,
    }
}

/// The newest statement of the primary key about itself: beside a user id, or direct.
fn newest_own(certificate: &SignedPublicKey, now: Timestamp) -> Option<&Signature> {
    let primary = &certificate.primary_key;
    let direct = certificate.details.direct_signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::Key)
            && counts(signature, now)
            && signature.verify_key(primary).is_ok()
    });
    let of_users = certificate.details.users.iter().filter_map(|user| {
        let own = |signature: &&Signature| {
            counts(signature, now)
                && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        // A revocation of the user id is newer than what it revokes.
        let newest = user.signatures.iter().filter(own).max_by_key(|it| it.created())?;
        (newest.typ() != Some(SignatureType::CertRevocation)).then_some(newest)
    });
    direct.chain(of_users).max_by_key(|signature| signature.created())
}

/// Whether a statement of a key about itself is to be looked at. SHA-1 still is: it is checked for
/// collisions, and old certificates have nothing else.
fn counts(signature: &Signature, now: Timestamp) -> bool {
    let latest = now.as_second() + SKEW;
    let is_made = signature.created().is_some_and(|made| i64::from(made.as_secs()) <= latest);
    is_made && !matches!(signature.hash_alg(), Some(HashAlgorithm::Md5) | None)
}

fn has_expired(binding: &Signature, created: pgp::types::Timestamp, now: Timestamp) -> bool {
    let lasts = binding.key_expiration_time().map_or(0, |time| time.as_secs());
    lasts > 0 && i64::from(created.as_secs()) + i64::from(lasts) < now.as_second()
}

fn flags(signature: &Signature) -> Option<&KeyFlags> {
    signature.config()?.hashed_subpackets().find_map(|part| match &part.data {
        SubpacketData::KeyFlags(flags) => Some(flags),
        _ => None,
    })
}
