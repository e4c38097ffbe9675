//! Why two machines did not come to trust each other, in words for the one who must act.

use rustls::{AlertDescription, CertificateError};
use std::error::Error;
use std::io;

/// Why there is no TLS with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// A machine that joins has come to another site than its token tells of.
    #[error(
        "the server is not the site that the join token tells of: its authority is another; see that \
         the address is right, and that the token is of this site"
    )]
    OtherSite,
    /// A point has come to another site than its own.
    #[error("the server's certificate is not one of the authority of this machine's site")]
    OtherAuthority,
    /// The server is a peer of this site, but not the one that was wanted.
    #[error("the server at this address is another than the one that was wanted there")]
    OtherPeer,
    /// The server's certificate does not hold now.
    #[error(
        "the server's certificate has ended, or has not begun: a clock is wrong, or it was not renewed"
    )]
    Dates,
    /// The server has refused this machine's certificate.
    #[error(
        "the server has refused this machine's certificate: it has ended, or is of another site"
    )]
    Refused,
    /// The server speaks something else.
    #[error("the server does not speak TLS there")]
    NoTls,
}

impl Distrust {
    /// The reason for `error`, if it is one of TLS. With HTTP/2 a client may lose it: then the
    /// connection is just closed, and [`Identity::expires`](super::Identity::expires) tells more.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(why) = error.downcast_ref().and_then(Self::of_tls) {
                return Some(why);
            }
            // What an `io::Error` holds is not its source.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = held.map(|held| held as _).or_else(|| error.source());
        }
        None
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::Other(why) => why.0.downcast_ref().copied(),
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Some(Self::Dates),
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Some(Self::OtherPeer),
                _ => Some(Self::OtherAuthority),
            },
            rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError,
            ) => Some(Self::Refused),
            rustls::Error::InvalidMessage(_) => Some(Self::NoTls),
            _ => None,
        }
    }
}
