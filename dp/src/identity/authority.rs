//! A site's own authority: vouches for the site and its points, and for nobody else.

use super::certificate::since_1970;
use super::request::Asked;
use super::{Anchor, Identity, IdentityError, Peer, certificate, file};
use crate::field::PointId;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

const KEY: &str = "authority.key";
const CERTIFICATE: &str = "authority.pem";
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long the authority holds: it cannot be replaced without every point joining again.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 50);
/// How long what it signs holds.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// How far another machine's clock may be behind.
const SKEW: SignedDuration = DAY;

/// The site's authority: the key that signs, and its certificate. `Debug` does not show the key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    anchor: Anchor,
    /// When its certificate ends.
    until: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in `folder`, or makes it there.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, IdentityError> {
        let (key_path, path) = (folder.join(KEY), folder.join(CERTIFICATE));
        let certificate = file::read(&path)?;
        let key = match file::read(&key_path)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|_| IdentityError::Malformed {
                path: key_path,
                wanted: "key of a site's authority",
            })?,
            None if certificate.is_some() => {
                return Err(IdentityError::KeyIsGone { path: key_path });
            }
            None => {
                let key = KeyPair::generate().map_err(IdentityError::Making)?;
                file::write_secret(&key_path, &key.serialize_pem())?;
                key
            }
        };
        let params = params_of(&key, now)?;
        let anchor = match certificate {
            Some(text) => {
                let anchor = Anchor::from_pem(&text).ok();
                let anchor = anchor.filter(|a| certificate::is_of(a.certificate(), &key));
                let wanted = "certificate of the authority whose key lies beside it";
                anchor.ok_or(IdentityError::Malformed { path, wanted })?
            }
            // A crash between the two files leaves a key that vouched for nothing yet.
            None => {
                let made = params.self_signed(&key).map_err(IdentityError::Making)?;
                file::write_public(&path, &file::pem("CERTIFICATE", made.der()))?;
                Anchor::of(made.der().clone())?
            }
        };
        let (_, until) = certificate::validity(anchor.certificate())
            .ok_or(IdentityError::BadCertificate("the authority's dates are malformed"))?;
        Ok(Self { issuer: Issuer::new(params, key), anchor, until })
    }

    /// Its certificate, as others know it.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// SHA-256 of its certificate in DER: what a join token knows of it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.anchor.fingerprint()
    }

    /// A new identity for the site itself. There may be any number of them, so none is kept.
    pub fn site_identity(&self, now: Timestamp) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Making)?;
        let certificate = self.vouch(&key, &Peer::Site, now)?;
        Identity::of(key, certificate, self.anchor.clone())
    }

    /// A certificate, in PEM, that names the key of `request` (in PEM) as that of point `id`.
    pub fn sign(
        &self,
        request: &str,
        id: &PointId,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        self.sign_for(request, &Peer::Point(id.clone()), now)
    }

    /// The same for any peer.
    pub fn sign_for(
        &self,
        request: &str,
        peer: &Peer,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let key = Asked::parse(request)?;
        let certificate = self.vouch(&key, peer, now)?;
        Ok(file::pem("CERTIFICATE", &certificate))
    }

    fn vouch(
        &self,
        key: &impl PublicKeyData,
        peer: &Peer,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params =
            CertificateParams::new(vec![peer.name()]).map_err(IdentityError::Making)?;
        params.distinguished_name = common_name(&peer.name());
        set_dates(&mut params, now, moved(now, LIFE).min(self.until));
        params.serial_number = Some(serial_number()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(IdentityError::Making)?;
        Ok(certificate.der().clone())
    }
}

/// What the certificate of an authority with `key` says. All but the dates follows from the key, so
/// that nothing else need be known to sign in its name.
fn params_of(key: &KeyPair, now: Timestamp) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    // Two sites' authorities must not look the same to one who chooses by name.
    let id = Sha256::digest(key.subject_public_key_info());
    let id: String = id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("depot site authority {id}"));
    set_dates(&mut params, now, moved(now, AUTHORITY_LIFE));
    params.serial_number = Some(serial_number()?);
    // What it signs signs nothing.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Random, positive, of 16 bytes (RFC 5280, section 4.1.2.2).
fn serial_number() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| IdentityError::Making(rcgen::Error::RingUnspecified))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn moved(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// From `now`, or what a slow clock takes for it, to `until`.
fn set_dates(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let date = |at| rcgen::date_time_ymd(1970, 1, 1) + since_1970(at);
    params.not_before = date(moved(now, -SKEW));
    params.not_after = date(until);
}
