//! Encrypted connections to PostgreSQL, by rustls.
//!
//! Adapts `tokio-rustls` to the traits of `tokio-postgres`. The server's certificate must be of a
//! trusted authority and for the host that the URL names (libpq's `verify-full`). The password
//! exchange is not bound to the TLS channel (SCRAM-SHA-256, not -PLUS): with the certificate
//! checked there is nobody in between to bind it against.

use super::address::Encryption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

/// Why no certificate could be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoots {
    #[error("no certificate can be read from sslrootcert {path:?}: {detail}")]
    File { path: PathBuf, detail: String },
    #[error("the system trusts no authority; name one by sslrootcert=FILE in the database's URL")]
    System,
    #[error("TLS cannot be used")]
    Rustls(#[source] rustls::Error),
}

/// Makes TLS connections; [`Encryption::None`] makes one that is never asked to.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    pub fn new(encryption: &Encryption) -> Result<Self, NoRoots> {
        let mut roots = RootCertStore::empty();
        match encryption {
            Encryption::None => {}
            Encryption::Verified { roots: None } => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(NoRoots::System);
                }
            }
            Encryption::Verified { roots: Some(path) } => {
                let failed = |detail: String| NoRoots::File { path: path.clone(), detail };
                let found =
                    CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
                for certificate in found {
                    let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                    roots.add(certificate).map_err(|error| failed(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(failed("it holds none".to_owned()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(NoRoots::Rustls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Connect;
    type Error = Infallible;

    /// Called for each connection, also for one that is not to be encrypted, which has no name.
    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Infallible> {
        let host = ServerName::try_from(host).map(|host| host.to_owned());
        Ok(Connect { host, connector: self.0.clone() })
    }
}

/// One connection about to be encrypted.
pub(super) struct Connect {
    host: Result<ServerName<'static>, InvalidDnsNameError>,
    connector: TlsConnector,
}

type Handshake = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

impl TlsConnect<Socket> for Connect {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Handshake;

    fn connect(self, socket: Socket) -> Handshake {
        Box::pin(async move {
            let host =
                self.host.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            Ok(Encrypted(Box::new(self.connector.connect(host, socket).await?)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
