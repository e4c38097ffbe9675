//! Which certificate a server shows to whom.
//!
//! Peers ask for a peer by its name and are shown what the site's authority vouches for. All others
//! come by a name of the machine's, or by its bare address: they are shown the administrator's own
//! certificate, if there is one, which they can check as they check any web server's.

use super::{Identity, IdentityError, Peer, file};
use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the administrator's own certificate is, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFiles {
    /// The certificate, then those that lead to an authority that clients know.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The certificates that a server has to show; each may be replaced while it runs.
pub(super) struct Shown {
    peer: RwLock<Arc<CertifiedKey>>,
    own: Option<Own>,
    provider: Arc<CryptoProvider>,
}

struct Own {
    files: OwnFiles,
    key: RwLock<Arc<CertifiedKey>>,
    /// What the files held when they were last read.
    read: Mutex<Texts>,
}

#[derive(PartialEq)]
struct Texts {
    certificate: String,
    key: String,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own.as_ref().map(|own| &own.files);
        f.debug_struct("Shown").field("own", &own).finish_non_exhaustive()
    }
}

impl Shown {
    pub fn new(
        identity: &Identity,
        own: Option<OwnFiles>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, IdentityError> {
        let peer = RwLock::new(of_identity(identity, &provider)?);
        let own = own.map(|files| Own::open(files, &provider)).transpose()?;
        Ok(Self { peer, own, provider })
    }

    /// Shows `identity` to peers from now on.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        *self.peer.write() = of_identity(identity, &self.provider)?;
        Ok(())
    }

    /// Reads the administrator's own files again. Answers whether they changed; after an error the
    /// ones that were good are shown still.
    pub fn refresh(&self) -> Result<bool, IdentityError> {
        self.own.as_ref().map_or(Ok(false), |own| own.refresh(&self.provider))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_for_peer = hello.server_name().is_some_and(|name| Peer::of_name(name).is_some());
        let own = self.own.as_ref().filter(|_| !is_for_peer);
        Some(own.map_or_else(|| self.peer.read().clone(), |own| own.key.read().clone()))
    }
}

impl Own {
    fn open(files: OwnFiles, provider: &CryptoProvider) -> Result<Self, IdentityError> {
        let texts = files.read()?;
        let key = RwLock::new(files.key_of(&texts, provider)?);
        Ok(Self { files, key, read: Mutex::new(texts) })
    }

    fn refresh(&self, provider: &CryptoProvider) -> Result<bool, IdentityError> {
        let texts = self.files.read()?;
        let mut read = self.read.lock();
        if *read == texts {
            return Ok(false);
        }
        *self.key.write() = self.files.key_of(&texts, provider)?;
        *read = texts;
        Ok(true)
    }
}

impl OwnFiles {
    fn read(&self) -> Result<Texts, IdentityError> {
        let text = |path: &PathBuf| {
            let gone = || self.unusable(format!("{path:?} is not there"));
            file::read(path)?.ok_or_else(gone)
        };
        Ok(Texts { certificate: text(&self.certificate)?, key: text(&self.key)? })
    }

    fn key_of(
        &self,
        texts: &Texts,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, IdentityError> {
        let no_pem =
            |path: &PathBuf, what: &str| self.unusable(format!("{path:?} holds no {what}"));
        let chain = file::certificates(&texts.certificate).filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| no_pem(&self.certificate, "certificate in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(texts.key.as_bytes())
            .map_err(|_| no_pem(&self.key, "private key in PEM"))?;
        let key = CertifiedKey::from_der(chain, key, provider);
        Ok(Arc::new(key.map_err(|error| self.unusable(error.to_string()))?))
    }

    fn unusable(&self, why: String) -> IdentityError {
        IdentityError::OwnCertificate { path: self.certificate.clone(), why }
    }
}

fn of_identity(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, IdentityError> {
    let key = CertifiedKey::from_der(identity.chain(), identity.private_key(), provider);
    key.map(Arc::new).map_err(IdentityError::Tls)
}
