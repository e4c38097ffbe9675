//! Asking for a certificate: both sides of it (PKCS #10, RFC 2986).

use super::{Anchor, Identity, IdentityError, MAX_PEM, Peer, der, file};
use crate::field::{JoinAnswer, JoinToken};
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateSigningRequestDer, SubjectPublicKeyInfoDer};
use std::fmt;
use std::path::Path;

/// The key of a request that was not answered yet.
const PENDING: &str = "pending.key";
/// ECDSA with SHA-256 (RFC 5758, section 3.2): what our own requests are signed with.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A key that asks for a certificate. `Debug` does not show it.
pub struct Request {
    key: KeyPair,
    pem: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

impl Request {
    /// Of a new key.
    pub fn new() -> Result<Self, IdentityError> {
        Self::of(KeyPair::generate().map_err(IdentityError::Making)?)
    }

    /// Of the key that is kept in `folder` until it is answered; the first call makes it. So one that
    /// lost its answer asks with the same key again, and the site can tell that it is the same one.
    pub fn kept_in(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(PENDING);
        if let Some(text) = file::read(&path)? {
            // Damaged or not, it was never anybody's key.
            if let Ok(key) = KeyPair::from_pem(&text) {
                return Self::of(key);
            }
        }
        let request = Self::new()?;
        file::write_secret(&path, &request.key.serialize_pem())?;
        Ok(request)
    }

    /// Forgets the key that is kept in `folder`, once its identity is stored.
    pub fn forget_in(folder: &Path) -> Result<(), IdentityError> {
        let path = folder.join(PENDING);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(IdentityError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn of(key: KeyPair) -> Result<Self, IdentityError> {
        let request = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(IdentityError::Making)?;
        Ok(Self { key, pem: request })
    }

    /// What is sent: the request in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The identity that the answer makes of it: `certificate` in PEM, by `authority`.
    pub fn answered(
        self,
        certificate: &str,
        authority: &Anchor,
    ) -> Result<Identity, IdentityError> {
        Identity::of(self.key, file::certificate(certificate)?, authority.clone())
    }

    /// The identity that joining made of it: by the authority that `token` tells of, and no other.
    pub fn joined(self, answer: &JoinAnswer, token: &JoinToken) -> Result<Identity, IdentityError> {
        let peer = Peer::Point(answer.id.clone());
        self.joined_as(&peer, &answer.certificate, &answer.authority, token)
    }

    /// The same for any peer: its certificate and the authority's, in PEM.
    pub fn joined_as(
        self,
        peer: &Peer,
        certificate: &str,
        authority: &str,
        token: &JoinToken,
    ) -> Result<Identity, IdentityError> {
        let authority = Anchor::from_pem(authority)?;
        if authority.fingerprint() != token.authority {
            let why = "it is of another authority than the token tells of";
            return Err(IdentityError::BadCertificate(why));
        }
        let identity = self.answered(certificate, &authority)?;
        if identity.peer() != peer {
            return Err(IdentityError::BadCertificate("it names another machine"));
        }
        Ok(identity)
    }
}

/// SHA-256 of the public key that `request` (in PEM) asks a certificate for. Two requests of one key
/// differ in their signature; by this they are known to be of the same machine.
pub fn requested_key(request: &str) -> Result<[u8; 32], IdentityError> {
    use sha2::{Digest, Sha256};
    Ok(Sha256::digest(Asked::parse(request)?.0).into())
}

/// The public key of a request whose sender has the other half of it. Nothing else counts of it:
/// what name or extensions it asks for is never looked at.
pub(super) struct Asked(Vec<u8>);

impl Asked {
    pub fn parse(pem: &str) -> Result<Self, IdentityError> {
        let bad = IdentityError::BadRequest;
        if pem.len() > MAX_PEM {
            return Err(bad("it is too long"));
        }
        let request = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| bad("it is no PEM of one"))?;
        let parts = Parts::of(&request).ok_or(bad("it is malformed"))?;
        if parts.algorithm != ECDSA_WITH_SHA256 {
            return Err(bad("it is not signed by ECDSA on P-256 with SHA-256"));
        }
        let info = SubjectPublicKeyInfoDer::from(parts.key_info);
        let verified = webpki::RawPublicKeyEntity::try_from(&info).and_then(|key| {
            key.verify_signature(webpki::ring::ECDSA_P256_SHA256, parts.signed, parts.signature)
        });
        verified.map_err(|_| bad("its signature is not of its own key"))?;
        Ok(Self(parts.key.into()))
    }
}

impl PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The parts of a request (RFC 2986, section 4).
struct Parts<'a> {
    signed: &'a [u8],
    /// The public key with its algorithm, and without.
    key_info: &'a [u8],
    key: &'a [u8],
    /// The signature's algorithm.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(request: &'a [u8]) -> Option<Self> {
        let mut outer = der::only(request, der::SEQUENCE)?.content;
        let signed = der::expect(&mut outer, der::SEQUENCE)?;
        let mut algorithm = der::expect(&mut outer, der::SEQUENCE)?.content;
        let signature = der::bits(der::expect(&mut outer, der::BIT_STRING)?)?;
        let mut fields = signed.content;
        der::expect(&mut fields, der::INTEGER)?; // version
        der::expect(&mut fields, der::SEQUENCE)?; // subject
        let key_info = der::expect(&mut fields, der::SEQUENCE)?;
        let mut key = key_info.content;
        der::expect(&mut key, der::SEQUENCE)?; // the key's algorithm
        Some(Self {
            signed: signed.whole,
            key_info: key_info.whole,
            key: der::bits(der::expect(&mut key, der::BIT_STRING)?)?,
            algorithm: der::expect(&mut algorithm, der::OID)?.content,
            signature,
        })
    }
}
