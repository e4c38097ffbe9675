//! HTTP to a peer by its name, wherever it is.

use super::{IdentityError, Peer};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Url};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;

/// A client that reaches `peer` at `address` (`https://HOST:PORT`), and the URL that requests to it
/// begin with, which has the peer's name for its host. It reaches nobody else: it asks no proxy, which
/// could not know that name, and follows no redirect.
pub fn client(
    config: &ClientConfig,
    peer: &Peer,
    address: &str,
) -> Result<(ClientBuilder, Url), IdentityError> {
    let bad = || IdentityError::BadAddress(address.into());
    let mut url = Url::parse(address).map_err(|_| bad())?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if url.scheme() != "https" || !is_bare || !is_anonymous {
        return Err(bad());
    }
    let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    url.set_host(Some(&peer.name())).map_err(|_| bad())?;
    let leads = Leads { name: peer.name(), host };
    let builder = ClientBuilder::new()
        .tls_backend_preconfigured(config.clone())
        .dns_resolver(Arc::new(leads))
        .redirect(Policy::none())
        .https_only(true)
        .no_proxy();
    Ok((builder, url))
}

/// Leads one name to a host.
struct Leads {
    name: String,
    host: String,
}

impl Resolve for Leads {
    fn resolve(&self, name: Name) -> Resolving {
        let host = (name.as_str() == self.name).then(|| self.host.clone());
        let asked = name.as_str().to_owned();
        Box::pin(async move {
            let host = host.ok_or_else(|| format!("{asked} is not the peer of this client"))?;
            // The URL has the port.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
