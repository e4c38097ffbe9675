//! What a certificate of a site's authority says.

use super::{Anchor, IdentityError, Peer, der};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};

/// Whom a certificate vouches for, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    /// The one it names.
    pub peer: Peer,
    /// When it begins to hold.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Vouched {
    /// What `certificate` says; whether it is true must be known already.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let bad = |why| IdentityError::BadCertificate(why);
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| bad("it is malformed"))?;
        let mut names = parsed.valid_dns_names();
        let peer = match (names.next(), names.next()) {
            (Some(name), None) => Peer::of_name(name),
            _ => None,
        };
        let peer = peer.ok_or(bad("it names neither a site nor a distribution point"))?;
        let (from, until) = validity(certificate).ok_or(bad("its dates are malformed"))?;
        Ok(Self { peer, from, until })
    }

    /// What `certificate` says, if `authority` signed it. It may have expired.
    pub fn by(authority: &Anchor, certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let vouched = Self::read(certificate)?;
        let malformed = |_| IdentityError::BadCertificate("it is malformed");
        let parsed = EndEntityCert::try_from(certificate).map_err(malformed)?;
        let anchor =
            webpki::anchor_from_trusted_cert(authority.certificate()).map_err(malformed)?;
        let anchors = [anchor];
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
            let at = unix_time(vouched.until);
            parsed
                .verify_for_usage(algorithms, &anchors, &[], at, usage, None, None)
                .map_err(IdentityError::NotVouched)?;
        }
        Ok(vouched)
    }
}

/// Whether `certificate` is of the public half of `key`.
pub(super) fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        *certificate.subject_public_key_info() == *key.subject_public_key_info()
    })
}

/// From when to when a certificate holds (RFC 5280, section 4.1).
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let mut signed = der::only(certificate, der::SEQUENCE)?.content;
    let mut fields = der::expect(&mut signed, der::SEQUENCE)?.content;
    der::expect(&mut fields, der::CONTEXT_0)?; // version
    der::expect(&mut fields, der::INTEGER)?; // serial number
    der::expect(&mut fields, der::SEQUENCE)?; // signature algorithm
    der::expect(&mut fields, der::SEQUENCE)?; // issuer
    let mut validity = der::expect(&mut fields, der::SEQUENCE)?.content;
    let from = der::time(der::next(&mut validity)?)?;
    let until = der::time(der::next(&mut validity)?)?;
    Some((from, until))
}

/// A time as rustls has it; what lies before 1970 is 1970.
pub(super) fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(since_1970(at))
}

/// Whole seconds since 1970; what lies before is 0.
pub(super) fn since_1970(at: Timestamp) -> Duration {
    Duration::from_secs(at.as_second().try_into().unwrap_or(0))
}
