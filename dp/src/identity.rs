//! Who a site and its distribution points are to each other: keys, certificates, and TLS by them.
//!
//! A site has an authority of its own ([`Authority`]), which vouches for the site, for its points, for those who
//! follow its catalogue, for its clients, and for nobody else. What it vouches for is a name that stands for a peer,
//! not for an address: `site.depot`, `<id>.point.depot`, `<id>.follower.depot`, or `<id>.client.depot`. So a machine
//! may move to another address, and its certificate stays right; [`client`] leads such a name to where the peer is. Anybody else can be told from a
//! peer because no other authority is asked.
//!
//! A point's key is made on its own machine and never leaves it: what travels is a [`Request`] for a
//! certificate, of which nothing counts but the public key, and the proof that the sender has the
//! other half of it.
//!
//! Always true of an [`Identity`]: its certificate is of its key, names a [`Peer`], and is signed by
//! the authority it carries.

mod anchor;
mod authority;
mod belief;
mod certificate;
mod client;
mod der;
mod distrust;
mod file;
mod request;
mod shown;
mod tls;

pub use anchor::Anchor;
pub use authority::Authority;
pub use client::client;
pub use distrust::Distrust;
pub use request::{Request, requested_key};
pub use shown::OwnFiles;
pub use tls::{OverTls, ServerTls, client_config, fetching_config, joining_config};

pub(crate) use certificate::Vouched;

use crate::field::{ClientId, FollowerId, PointId};
use jiff::Timestamp;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The file of an identity in its folder: the key, the certificate and the authority's, in PEM. One
/// file, so that a key and the certificate of another never meet.
const FILE: &str = "identity.pem";
/// The longest PEM that is read.
const MAX_PEM: usize = 64 << 10;

/// Who a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The site.
    Site,
    /// One of its distribution points.
    Point(PointId),
    /// One who follows its catalogue: a child site, or another update point.
    Follower(FollowerId),
    /// One of its clients.
    Client(ClientId),
}

impl Peer {
    /// The name by which a certificate vouches for it, and which a URL of it has as its host.
    pub fn name(&self) -> String {
        match self {
            Peer::Site => SITE.into(),
            Peer::Point(id) => format!("{id}{POINT}"),
            Peer::Follower(id) => format!("{id}{FOLLOWER}"),
            Peer::Client(id) => format!("{id}{CLIENT}"),
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        if let Some(id) = name.strip_suffix(POINT) {
            return id.parse().ok().map(Peer::Point);
        }
        if let Some(id) = name.strip_suffix(CLIENT) {
            return id.parse().ok().map(Peer::Client);
        }
        match name.strip_suffix(FOLLOWER) {
            None => (name == SITE).then_some(Peer::Site),
            Some(id) => id.parse().ok().map(Peer::Follower),
        }
    }
}

const SITE: &str = "site.depot";
const POINT: &str = ".point.depot";
const FOLLOWER: &str = ".follower.depot";
const CLIENT: &str = ".client.depot";

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Site => f.write_str("the site"),
            Peer::Point(id) => write!(f, "point {id}"),
            Peer::Follower(id) => write!(f, "follower {id}"),
            Peer::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// Why there is no identity, or none that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot read or write {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path:?} is no {wanted}; put it back from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
    },
    /// The authority's certificate is there, and its key is not.
    #[error(
        "the key {path:?} of the site's authority is gone; put it back from a backup: with a new \
         one every point would have to join again"
    )]
    KeyIsGone {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The administrator's own certificate cannot be shown.
    #[error("{path:?} cannot be shown to clients as this server's certificate: {why}")]
    OwnCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What came is no request that can be signed.
    #[error("this is no certificate request that can be signed: {0}")]
    BadRequest(&'static str),
    /// What came is no certificate that can be used.
    #[error("this is no certificate that can be used: {0}")]
    BadCertificate(&'static str),
    /// The certificate is not one of this authority.
    #[error("the certificate is not one of this site's authority")]
    NotVouched(#[source] webpki::Error),
    /// A key or a certificate cannot be made.
    #[error("cannot make a key or a certificate")]
    Making(#[source] rcgen::Error),
    /// TLS cannot be set up with these keys.
    #[error("TLS cannot be set up with this key and certificate")]
    Tls(#[source] rustls::Error),
    /// No address of a site or point.
    #[error("{0:?} is no address of a site or distribution point; want https://HOST:PORT")]
    BadAddress(String),
}

/// A key and the certificate for it: who this process is. `Debug` does not show the key.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    authority: Anchor,
    vouched: Vouched,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("vouched", &self.vouched).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new key, and the request for its certificate.
    pub fn request() -> Result<Request, IdentityError> {
        Request::new()
    }

    /// What `certificate` makes of `key`, if both belong together and `authority` vouches for it. It
    /// may have expired: whoever keeps an identity must be able to say so.
    fn of(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        authority: Anchor,
    ) -> Result<Self, IdentityError> {
        let vouched = Vouched::by(&authority, &certificate)?;
        if !certificate::is_of(&certificate, &key) {
            return Err(IdentityError::BadCertificate("it is of another key"));
        }
        Ok(Self { key, certificate, authority, vouched })
    }

    /// A request for another certificate, of the key that it has.
    pub fn renewal(&self) -> Result<Request, IdentityError> {
        let key = KeyPair::from_pem(&self.key.serialize_pem()).map_err(IdentityError::Making)?;
        Request::of(key)
    }

    /// Who it is.
    pub fn peer(&self) -> &Peer {
        &self.vouched.peer
    }

    /// The authority that vouches for it.
    pub fn authority(&self) -> &Anchor {
        &self.authority
    }

    /// When it ends.
    pub fn expires(&self) -> Timestamp {
        self.vouched.until
    }

    /// When it should be renewed: when a third of its life is left.
    pub fn renew_at(&self) -> Timestamp {
        let Vouched { from, until, .. } = self.vouched;
        until - until.duration_since(from) / 3
    }

    /// The certificate and the authority's, in PEM.
    pub fn chain_pem(&self) -> String {
        file::pem("CERTIFICATE", &self.certificate) + &self.authority.pem()
    }

    /// Puts it into `folder`, in place of the one that is there; whole or not at all, and so that only
    /// its owner may read it.
    pub fn store(&self, folder: &Path) -> Result<(), IdentityError> {
        let text = self.key.serialize_pem() + &self.chain_pem();
        file::write_secret(&folder.join(FILE), &text)
    }

    /// The one that is in `folder`, if there is one.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(FILE);
        let Some(text) = file::read(&path)? else { return Ok(None) };
        let wanted = "key and certificates of a distribution point";
        let malformed = || IdentityError::Malformed { path: path.clone(), wanted };
        let key = KeyPair::from_pem(&text).map_err(|_| malformed())?;
        let mut chain = file::certificates(&text).ok_or_else(malformed)?.into_iter();
        let (Some(certificate), Some(authority), None) = (chain.next(), chain.next(), chain.next())
        else {
            return Err(malformed());
        };
        let authority = Anchor::of(authority).map_err(|_| malformed())?;
        Self::of(key, certificate, authority).map(Some)
    }

    /// The chain as TLS sends it. It ends with the authority, so that one who knows only its
    /// fingerprint can tell that it is the right one.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.authority.certificate().clone()]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

#[cfg(test)]
mod tests;
