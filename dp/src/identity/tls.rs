//! TLS by identities: what a server shows and asks for, and whom a client believes.
//!
//! Peers ask the site's authority alone, and the time they are handed; a client that is nobody's peer
//! believes what it was told to (`belief`). A server takes clients
//! without a certificate, who are nobody in particular; one who shows a certificate is refused if it
//! does not hold.

use super::belief::Belief;
use super::shown::Shown;
use super::{Identity, IdentityError, OwnFiles, Peer, Vouched, certificate};
use jiff::Timestamp;
use packager::Clock;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme, WantsVerifier,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// In the extensions of a request that came over TLS, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

/// What a server shows to its clients; it can be replaced while the server runs.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    /// From when to when what peers are shown is as fresh as it should be.
    fresh: Mutex<Range<Timestamp>>,
    clock: Clock,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// For a server that is `identity`, HTTP/2 or HTTP/1.1; certificates of clients are welcome and
    /// verified. Clients who ask for no peer by its name are shown the certificate in `own`, if that
    /// is given.
    pub fn new(
        identity: &Identity,
        own: Option<OwnFiles>,
        clock: Clock,
    ) -> Result<Self, IdentityError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(identity.authority.roots()?, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| IdentityError::Tls(rustls::Error::General(error.to_string())))?;
        let shown = Arc::new(Shown::new(identity, own, provider())?);
        let mut config = ServerConfig::builder_with_details(provider(), time(&clock))
            .with_safe_default_protocol_versions()
            .map_err(IdentityError::Tls)?
            .with_client_cert_verifier(Arc::new(NamedClients(verifier)))
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = protocols();
        let fresh = Mutex::new(fresh(identity));
        Ok(Self { config: Arc::new(config), shown, fresh, clock })
    }

    /// Connections of peers that begin from now on are shown `identity`, which is of the same
    /// authority. Those that are there go on.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.shown.replace(identity)?;
        *self.fresh.lock() = fresh(identity);
        Ok(())
    }

    /// Whether what peers are shown should be replaced: it is old, or of a time that a clock which was
    /// wrong then took for its own.
    pub fn is_stale(&self) -> bool {
        !self.fresh.lock().contains(&(self.clock)())
    }

    /// Reads the files of the administrator's own certificate again, and shows what they hold now.
    /// Answers whether that is something else. After an error the ones before are shown still.
    pub fn refresh(&self) -> Result<bool, IdentityError> {
        self.shown.refresh()
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The one that `vouched` names, as long as that holds: a connection, or a session that is
    /// resumed, may outlive the certificate that it began with.
    pub(crate) fn holds<'a>(&self, vouched: &'a Vouched) -> Option<&'a Peer> {
        ((self.clock)() < vouched.until).then_some(&vouched.peer)
    }
}

fn fresh(identity: &Identity) -> Range<Timestamp> {
    identity.vouched.from..identity.renew_at()
}

/// TLS for a client that is `identity` and believes its own authority alone.
pub fn client_config(
    identity: &Identity,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client_builder(clock)?
        .with_root_certificates(identity.authority.roots()?)
        .with_client_auth_cert(identity.chain(), identity.private_key())
        .map_err(IdentityError::Tls)?;
    config.alpn_protocols = protocols();
    Ok(Arc::new(config))
}

/// TLS for a machine that is nobody yet and knows no more of a site than the fingerprint of its
/// authority (see [`Anchor::fingerprint`](super::Anchor::fingerprint)).
pub fn joining_config(
    fingerprint: [u8; 32],
    clock: &Clock,
) -> Result<Arc<ClientConfig>, IdentityError> {
    nobody(Belief::in_site_of(fingerprint), clock)
}

/// TLS for a client that is nobody and believes those that the certificates of `pem` vouch for: as
/// whom its URL names, as anywhere, or as a site or one of its points, by whatever address.
pub fn fetching_config(pem: &str, clock: &Clock) -> Result<Arc<ClientConfig>, IdentityError> {
    nobody(Belief::in_vouched_by(pem)?, clock)
}

fn nobody(belief: Belief, clock: &Clock) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client_builder(clock)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(belief))
        .with_no_client_auth();
    config.alpn_protocols = protocols();
    Ok(Arc::new(config))
}

fn client_builder(
    clock: &Clock,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_details(provider(), time(clock))
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Tls)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".into(), b"http/1.1".into()]
}

fn time(clock: &Clock) -> Arc<dyn TimeProvider> {
    Arc::new(ByClock(clock.clone()))
}

struct ByClock(Clock);

impl fmt::Debug for ByClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByClock")
    }
}

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(certificate::unix_time((self.0)()))
    }
}

/// Clients whose certificate, if they show one, names a [`Peer`].
#[derive(Debug)]
struct NamedClients(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for NamedClients {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(leaf, chain, now)?;
        Vouched::read(leaf).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

pub(super) fn refused(why: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
