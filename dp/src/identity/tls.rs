//! TLS by identities: what a server shows and asks for, and whom a client believes.
//!
//! Both sides ask the site's authority alone, and the time they are handed. A server takes clients
//! without a certificate, who are nobody in particular; one who shows a certificate is refused if it
//! does not hold.

use super::anchor::fingerprint;
use super::{Anchor, Distrust, Identity, IdentityError, Peer, Vouched, certificate};
use packager::Clock;
use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme, WantsVerifier,
};
use std::fmt;
use std::sync::Arc;

/// In the extensions of a request that came over TLS, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

/// What a server shows to its clients; it can be replaced while the server runs.
pub struct ServerTls {
    config: RwLock<Arc<ServerConfig>>,
    clock: Clock,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// For a server that is `identity`.
    pub fn new(identity: &Identity, clock: Clock) -> Result<Self, IdentityError> {
        let config = RwLock::new(server_config(identity, &clock)?);
        Ok(Self { config, clock })
    }

    /// Connections that begin from now on are shown `identity`. Those that are there go on.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        *self.config.write() = server_config(identity, &self.clock)?;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().clone()
    }

    /// The one that `vouched` names, as long as that holds: a connection, or a session that is
    /// resumed, may outlive the certificate that it began with.
    pub(crate) fn holds<'a>(&self, vouched: &'a Vouched) -> Option<&'a Peer> {
        ((self.clock)() < vouched.until).then_some(&vouched.peer)
    }
}

/// TLS for a server that is `identity`: HTTP/2 or HTTP/1.1, certificates of clients welcome and
/// verified.
pub fn server_config(
    identity: &Identity,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(identity.authority.roots()?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| IdentityError::Tls(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_details(provider(), time(clock))
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Tls)?
        .with_client_cert_verifier(Arc::new(NamedClients(verifier)))
        .with_single_cert(identity.chain(), identity.private_key())
        .map_err(IdentityError::Tls)?;
    config.alpn_protocols = protocols();
    Ok(Arc::new(config))
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
/// authority (see [`Anchor::fingerprint`]).
pub fn joining_config(
    fingerprint: [u8; 32],
    clock: &Clock,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let verifier =
        BySiteFingerprint { fingerprint, algorithms: provider().signature_verification_algorithms };
    let mut config = client_builder(clock)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
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

fn provider() -> Arc<CryptoProvider> {
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

/// Believes the site whose chain has the authority with this fingerprint in it.
#[derive(Debug)]
struct BySiteFingerprint {
    fingerprint: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for BySiteFingerprint {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = chain.iter().find(|one| fingerprint(one) == self.fingerprint);
        let authority = authority.ok_or_else(|| refused(Distrust::OtherSite))?;
        let anchor = Anchor::of(authority.clone().into_owned()).map_err(refused)?;
        let roots = anchor.roots().map_err(refused)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        // Whatever the URL calls it: a point of the same authority is not the site.
        let site = ServerName::try_from(Peer::Site.name()).map_err(refused)?;
        verifier.verify_server_cert(leaf, chain, &site, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn refused(why: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
