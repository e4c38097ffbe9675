//! Whom a client believes that is nobody's peer: a machine that joins, or one that only fetches.
//!
//! Such a client asks for a server by its address, and a site's certificate names the site and no
//! address. So what it checks is who vouches: the authority whose fingerprint it was told, or one of
//! the certificates it was given.

use super::anchor::fingerprint;
use super::tls::{provider, refused};
use super::{Anchor, Distrust, IdentityError, Peer, Vouched, file};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Whom it believes.
#[derive(Debug)]
enum Whom {
    /// The site whose chain has the authority with this fingerprint in it.
    SiteOf([u8; 32]),
    /// Whomever these vouch for: by the name in the URL, as anywhere, or as a site or one of its points.
    VouchedBy { anchors: Vec<Anchor>, by_name: Arc<WebPkiServerVerifier> },
}

/// Checks a server's certificate.
#[derive(Debug)]
pub(super) struct Belief {
    whom: Whom,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Belief {
    /// In the site whose authority has this fingerprint (see [`Anchor::fingerprint`]).
    pub fn in_site_of(fingerprint: [u8; 32]) -> Self {
        Self::of(Whom::SiteOf(fingerprint))
    }

    /// In those that the certificates of `pem` vouch for, and in nobody else.
    pub fn in_vouched_by(pem: &str) -> Result<Self, IdentityError> {
        let bad = IdentityError::BadCertificate;
        let all = file::certificates(pem).ok_or(bad("it is no PEM of certificates"))?;
        if all.is_empty() {
            return Err(bad("there is none in it"));
        }
        let mut roots = RootCertStore::empty();
        for one in &all {
            roots.add(one.clone()).map_err(|_| bad("one of them is malformed"))?;
        }
        let by_name = verifier(Arc::new(roots)).map_err(IdentityError::Tls)?;
        let anchors = all.into_iter().map(Anchor::of).collect::<Result<_, _>>()?;
        Ok(Self::of(Whom::VouchedBy { anchors, by_name }))
    }

    fn of(whom: Whom) -> Self {
        Self { whom, algorithms: provider().signature_verification_algorithms }
    }
}

fn verifier(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Checks that `anchor` vouches for `leaf` as a peer of its site that is wanted, whatever the URL calls
/// it.
fn check_peer(
    anchor: &Anchor,
    leaf: &CertificateDer<'_>,
    now: UnixTime,
    is_wanted: impl Fn(&Peer) -> bool,
) -> Result<ServerCertVerified, rustls::Error> {
    let peer = Vouched::read(leaf).map_err(refused)?.peer;
    let name = ServerName::try_from(peer.name()).map_err(refused)?;
    let verifier = verifier(anchor.roots().map_err(refused)?)?;
    let verified = verifier.verify_server_cert(leaf, &[], &name, &[], now)?;
    if is_wanted(&peer) { Ok(verified) } else { Err(refused(Distrust::OtherPeer)) }
}

impl ServerCertVerifier for Belief {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.whom {
            Whom::SiteOf(authority) => {
                let authority = chain.iter().find(|one| fingerprint(one) == *authority);
                let authority = authority.ok_or_else(|| refused(Distrust::OtherSite))?;
                let anchor = Anchor::of(authority.clone().into_owned()).map_err(refused)?;
                // A point of the same authority is not the site.
                check_peer(&anchor, leaf, now, |peer| *peer == Peer::Site)
            }
            Whom::VouchedBy { anchors, by_name } => {
                let as_peer = |anchor| check_peer(anchor, leaf, now, |_| true).ok();
                match anchors.iter().find_map(as_peer) {
                    Some(verified) => Ok(verified),
                    None => by_name.verify_server_cert(leaf, chain, name, ocsp, now),
                }
            }
        }
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
