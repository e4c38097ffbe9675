//! Where a site can be reached by its distribution points: `https://HOST:PORT`.

use super::setting::{Raw, Setting};
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest address, in bytes: a host may have 253.
const MAX_URL: usize = 270;
/// The most addresses. All of them must go into one token.
const MOST: usize = 6;

/// One address of a site, with its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteUrl(String);

/// Text that is no address of a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be https://HOST:PORT without a path, not {0:?}")]
pub struct BadSiteUrl(String);

impl FromStr for SiteUrl {
    type Err = BadSiteUrl;
    fn from_str(text: &str) -> Result<Self, BadSiteUrl> {
        let bad = || BadSiteUrl(text.chars().take(100).collect());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty();
        // A port that is no number is none to `Authority::port`, and must not become the usual one.
        let port: u16 = match authority.as_str().strip_prefix(authority.host()).ok_or_else(bad)? {
            "" => 443,
            rest => rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(bad)?,
        };
        if port == 0 {
            return Err(bad());
        }
        if uri.scheme_str() != Some("https") || !is_bare || !is_plain || text.len() > MAX_URL {
            return Err(bad());
        }
        Ok(Self(format!("https://{}:{port}", authority.host().to_lowercase())))
    }
}

impl TryFrom<String> for SiteUrl {
    type Error = BadSiteUrl;
    fn try_from(text: String) -> Result<Self, BadSiteUrl> {
        text.parse()
    }
}

impl From<SiteUrl> for String {
    fn from(url: SiteUrl) -> String {
        url.0
    }
}

impl fmt::Display for SiteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Some addresses of a site, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteUrls(Vec<SiteUrl>);

impl SiteUrls {
    /// The addresses, if they are not too many for one token.
    pub fn new(urls: Vec<SiteUrl>) -> Option<Self> {
        (urls.len() <= MOST).then_some(Self(urls))
    }

    /// How many there may be.
    pub const MOST: usize = MOST;

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as text.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// Where clients and other points reach a distribution point: `HOST:PORT`, or none: where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReachedAt(pub Option<String>);

impl Setting for ReachedAt {
    const WANTED: &'static str = "HOST:PORT such as \"branch-7.example:8520\", or empty for none";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        let (Raw::Text(text) | Raw::Quoted(text)) = raw else { return None };
        if text.is_empty() {
            return Some(Self(None));
        }
        // The port is stated: the usual one of HTTPS would be as wrong as any over plain HTTP.
        let uri: Uri = format!("https://{text}").parse().ok()?;
        uri.port_u16()?;
        let url = String::from(uri.to_string().parse::<SiteUrl>().ok()?);
        Some(Self(url.strip_prefix("https://").map(str::to_owned)))
    }
    fn write(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

impl Setting for SiteUrls {
    const WANTED: &'static str = "addresses such as \"https://site.example:8520\", at most 6, apart \
        by spaces";
    fn accept(raw: Raw<'_>) -> Option<Self> {
        let (Raw::Text(text) | Raw::Quoted(text)) = raw else { return None };
        let urls: Result<_, _> = text.split_whitespace().map(str::parse).collect();
        Self::new(urls.ok()?)
    }
    fn write(&self) -> String {
        self.to_texts().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_host_and_port() {
        let read = |text: &str| text.parse::<SiteUrl>().map(String::from);
        assert_eq!(read("https://Site.example:8520/").unwrap(), "https://site.example:8520");
        assert_eq!(read("https://[2001:db8::7]:1").unwrap(), "https://[2001:db8::7]:1");
        assert_eq!(read("https://h").unwrap(), "https://h:443");
        for bad in [
            "",
            "h:1",
            "http://h:1",
            "https://",
            "https://h:1/x",
            "https://h:1?x",
            "https://u@h:1",
            "https://h:99999",
            "https://h:",
            "https://a b",
            "https://:1",
            &format!("https://{}", "x".repeat(300)),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_point_is_reached_at_a_host_and_a_port() {
        let read = |text: &'static str| ReachedAt::accept(Raw::Text(text)).map(|it| it.write());
        assert_eq!(read("Branch-7.example:8520").unwrap(), "branch-7.example:8520");
        assert_eq!(read("[2001:db8::7]:1").unwrap(), "[2001:db8::7]:1");
        assert_eq!(read("").unwrap(), "");
        for bad in
            ["https://h:1", "h:1/x", "u@h:1", ":1", "a b:1", "h", "h:", "[2001:db8::7]", "10.0.0.1"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_that_may_be_given_fit_one_token() {
        let long: SiteUrl = format!("https://{}:65535", "h".repeat(253)).parse().unwrap();
        let urls = SiteUrls::new(vec![long.clone(); MOST]).unwrap();
        let sites = urls.to_texts();
        let token = dp::field::JoinToken { authority: [7; 32], secret: [7; 16], sites };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(SiteUrls::new(vec![long; MOST + 1]).is_none());
    }
}
