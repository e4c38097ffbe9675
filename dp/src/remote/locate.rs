//! Asking a site whom to ask: by the address that the question comes from, it answers with those that
//! hold the version now, near ones first (`dp/PROTOCOL.md`, "Whom to ask").

use super::client::{Client, Server};
use super::{RemoteError, address};
use packager::{PackageName, Selector};
use rustls::ClientConfig;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Whom a client may ask for a version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Located {
    /// The client's address, as the site sees it.
    pub client: String,
    /// The version's number: each source has it under this.
    pub version: u64,
    /// In the order in which they should be asked.
    pub sources: Vec<LocatedSource>,
}

/// One whom a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LocatedSource {
    /// Where it is; nothing for a site that does not know where it is.
    #[serde(default)]
    pub url: Option<String>,
    /// The point's name; nothing for the site.
    #[serde(default)]
    pub point: Option<String>,
    /// Seconds, from when the client began to look, after which it may be asked.
    pub after: u64,
    /// Whether that time has come.
    pub usable: bool,
}

/// Asks the site at `site` whom to ask for a version of `package`, having looked for one for `elapsed`.
/// `tls` is as in [`FetchOptions`](super::FetchOptions).
///
/// # Panics
/// If the process has installed no rustls provider.
pub async fn locate(
    site: &str,
    package: &PackageName,
    selector: &Selector,
    elapsed: Duration,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Located, RemoteError> {
    let server = Server::of_url(address::parse_server(site)?, tls)?;
    Client::of(vec![server]).located(package, selector, elapsed).await
}
