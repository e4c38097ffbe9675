//! A site's authority as others know it: its certificate.

use super::{IdentityError, file};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The certificate of a site's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor(CertificateDer<'static>);

impl Anchor {
    /// The one certificate of `pem`.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::of(file::certificate(pem)?)
    }

    pub(super) fn of(certificate: CertificateDer<'static>) -> Result<Self, IdentityError> {
        webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|_| IdentityError::BadCertificate("the authority's is malformed"))?;
        Ok(Self(certificate))
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        file::pem("CERTIFICATE", &self.0)
    }

    /// SHA-256 of the certificate in DER: what a join token knows of it.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.0)
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.0
    }

    /// It alone, as what TLS trusts.
    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.clone()).map_err(IdentityError::Tls)?;
        Ok(Arc::new(roots))
    }
}

pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}
