//! Addresses of packages: `http://SERVER/packages/NAME/VERSION`.

use super::DEFAULT;
use super::sources::MOST;
use packager::name::{BadName, PackageName, Selector};
use reqwest::Url;

/// Text that is no address of a package or server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// No URL, or not one of HTTP.
    #[error("{0:?} is no address; want http://SERVER/packages/NAME/VERSION")]
    NotHttp(String),
    /// The same, where a server alone is wanted.
    #[error("{0:?} is no address of a server; want http://SERVER:PORT")]
    NoServer(String),
    /// No package in it.
    #[error("{0:?} names no package; want http://SERVER/packages/NAME/VERSION")]
    NoPackage(String),
    /// Addresses that are to mean the same name different things.
    #[error("{0:?} and {1:?} are not of the same package and version; name one version alone")]
    Differ(String, String),
    /// No address, or more servers than are asked.
    #[error("{0} addresses are given; name from 1 to {MOST} servers")]
    Number(usize),
    /// The package or version has no possible name.
    #[error("in {address:?}: {why}")]
    Name {
        /// The address.
        address: String,
        /// What is wrong.
        why: BadName,
    },
}

/// Where a package version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageAddress {
    /// The server's address; ends with a slash.
    pub server: Url,
    /// The package.
    pub package: PackageName,
    /// Which version of it.
    pub selector: Selector,
}

impl PackageAddress {
    /// Takes an address apart. Without a version it means the latest.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let url = parse_http(text)?;
        let none = || BadAddress::NoPackage(text.into());
        let segments: Vec<&str> = url.path().split('/').filter(|s| !s.is_empty()).collect();
        let at = segments.iter().rposition(|&s| s == "packages").ok_or_else(none)?;
        let (before, after) = (&segments[..at], &segments[at + 1..]);
        let bad = |why| BadAddress::Name { address: text.into(), why };
        let (package, selector) = match after {
            [package] => (package, DEFAULT),
            [package, selector] => (package, selector.parse().map_err(bad)?),
            _ => return Err(none()),
        };
        let package = package.parse().map_err(bad)?;
        let mut server = url.clone();
        let path: String = before.iter().map(|s| format!("{s}/")).collect();
        server.set_path(&format!("/{path}"));
        Ok(Self { server, package, selector })
    }
}

/// The version that all of `addresses` are of, and where its servers are, each once.
pub(super) fn of_one_version<A: AsRef<str>>(
    addresses: &[A],
) -> Result<(PackageName, Selector, Vec<Url>), BadAddress> {
    let Some(first) = addresses.first().filter(|_| addresses.len() <= MOST) else {
        return Err(BadAddress::Number(addresses.len()));
    };
    let PackageAddress { server, package, selector } = PackageAddress::parse(first.as_ref())?;
    let mut servers = vec![server];
    for other in &addresses[1..] {
        let found = PackageAddress::parse(other.as_ref())?;
        if (&found.package, &found.selector) != (&package, &selector) {
            return Err(BadAddress::Differ(first.as_ref().into(), other.as_ref().into()));
        }
        if !servers.contains(&found.server) {
            servers.push(found.server);
        }
    }
    Ok((package, selector, servers))
}

/// A server's address; what is relative to it lies below its path.
pub(super) fn parse_server(text: &str) -> Result<Url, BadAddress> {
    let mut url = parse_http(text).map_err(|_| BadAddress::NoServer(text.into()))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn parse_http(text: &str) -> Result<Url, BadAddress> {
    let bad = || BadAddress::NotHttp(text.into());
    let mut url = Url::parse(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad());
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_server_package_and_version() {
        for (text, server, selector) in [
            ("http://h:1/packages/docs/latest", "http://h:1/", "latest"),
            ("http://h:1/packages/docs/7/", "http://h:1/", "7"),
            ("https://h/packages/docs", "https://h/", "latest"),
            ("http://h/depot/packages/docs/stable?x#y", "http://h/depot/", "stable"),
        ] {
            let found = PackageAddress::parse(text).unwrap();
            assert_eq!(found.server.as_str(), server);
            assert_eq!(found.package.as_str(), "docs");
            assert_eq!(found.selector.to_string(), selector);
        }
    }

    #[test]
    fn several_addresses_are_of_one_version() {
        let (one, two) = ("http://a/packages/docs/2", "http://b:1/depot/packages/docs/2");
        let (package, _, servers) = of_one_version(&[one, two, one]).unwrap();
        let servers: Vec<&str> = servers.iter().map(Url::as_str).collect();
        assert_eq!(
            (package.as_str(), &servers[..]),
            ("docs", &["http://a/", "http://b:1/depot/"][..])
        );
        for other in ["http://b/packages/docs/3", "http://b/packages/docs", "http://b/packages/x/2"]
        {
            assert!(
                matches!(of_one_version(&[one, other]), Err(BadAddress::Differ(..))),
                "{other}"
            );
        }
        assert_eq!(of_one_version::<&str>(&[]), Err(BadAddress::Number(0)));
        assert_eq!(of_one_version(&[one; 33]), Err(BadAddress::Number(33)));
    }

    #[test]
    fn what_names_no_package_is_refused() {
        for text in [
            "docs",
            "ftp://h/packages/docs",
            "http://h/",
            "http://h/packages",
            "http://h/packages/docs/1/file",
            "http://h/packages/DOCS/1",
            "http://h/packages/docs/01",
        ] {
            assert!(PackageAddress::parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_server("http://h/depot").unwrap().as_str(), "http://h/depot/");
    }
}
