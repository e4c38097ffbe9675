//! Request targets: the bytes of a path, and what route they lead to.
//!
//! File names are bytes, so a path is percent-decoded to bytes exactly once, each segment by
//! itself: an encoded slash stays inside its segment, where no name can have it, and so leads to
//! an error instead of another folder.

use packager::name::{BadName, PackageName, Selector};
use std::fmt::Write;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/content/{digest}`, not yet parsed.
    Content(Vec<u8>),
    /// `/recipes/{digest}`, not yet parsed.
    Recipe(Vec<u8>),
    /// `/packages/{package}/{selector}` and what is below it.
    Package(PackagePath),
    /// `/coming/{package}/{version}`
    Coming(PackageName, u64),
    /// `/recipes`
    Recipes,
    /// `/chunks`
    Chunks,
    /// `/cost`
    Cost,
    /// `/deltas`
    Deltas,
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// Below `/api/`: handed on.
    Api,
    /// Below `/locate/`: handed on.
    Locate,
    /// Nothing of ours.
    Unknown,
}

/// A path into a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackagePath {
    pub package: PackageName,
    pub selector: Selector,
    /// The path inside, without a slash at its end; empty for the top folder.
    pub path: Vec<u8>,
    /// Whether the request ended with a slash, as a folder's does.
    pub slash: bool,
}

/// Why a target is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTarget {
    #[error("a `%` in the path is not followed by two hex digits")]
    Percent,
    #[error("the path has an encoded `/` inside a name")]
    EncodedSlash,
    #[error("the package or version in the path is not valid: {0}")]
    Name(#[from] BadName),
    #[error("the path inside the package is not valid: {0}")]
    Path(packager::path::BadPath),
}

impl Target {
    /// Takes the path of a request apart, as it was sent.
    pub fn parse(path: &str) -> Result<Self, BadTarget> {
        let mut segments = path.strip_prefix('/').unwrap_or(path).splitn(2, '/');
        let (first, rest) = (segments.next().unwrap_or_default(), segments.next());
        if let Some(target) = of_wsus(path) {
            return Ok(target);
        }
        Ok(match (first, rest) {
            ("content", Some(name)) => Target::Content(decode(name)?),
            ("recipes", Some(name)) => Target::Recipe(decode(name)?),
            ("packages", Some(rest)) => return package(rest),
            ("coming", Some(rest)) => return coming(rest),
            ("api", Some(_)) => Target::Api,
            ("locate", Some(_)) => Target::Locate,
            ("recipes", None) => Target::Recipes,
            ("chunks", None) => Target::Chunks,
            ("cost", None) => Target::Cost,
            ("deltas", None) => Target::Deltas,
            ("healthz", None) => Target::Health,
            ("readyz", None) => Target::Ready,
            ("metrics", None) => Target::Metrics,
            _ => Target::Unknown,
        })
    }
}

/// What servers and clients of WSUS ask for: `ServerSyncWebService/…`, `DssAuthWebService/…` and
/// `ReportingWebService/…`, which are handed on, and `Content/XX/SHA1.ext`, with a SHA-256 for
/// files of which no SHA-1 is stated. Paths are in either case there, and begin with slashes, one or
/// more.
fn of_wsus(path: &str) -> Option<Target> {
    let (first, rest) = path.trim_start_matches('/').split_once('/')?;
    let services = ["ServerSyncWebService", "DssAuthWebService", "ReportingWebService"];
    if services.iter().any(|it| it.eq_ignore_ascii_case(first)) {
        return Some(Target::Api);
    }
    let (folder, file) = rest.split_once('/').filter(|_| first.eq_ignore_ascii_case("content"))?;
    let hex = file.split('.').next()?.to_ascii_lowercase();
    let algorithm = match hex.len() {
        40 => "sha1",
        64 => "sha256",
        _ => return None,
    };
    let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
    let is_file = is_hex && hex.ends_with(&folder.to_ascii_lowercase()) && folder.len() == 2;
    is_file.then(|| Target::Content(format!("{algorithm}:{hex}").into_bytes()))
}

fn coming(rest: &str) -> Result<Target, BadTarget> {
    let Some((package, version)) = rest.split_once('/') else { return Ok(Target::Unknown) };
    match version.parse() {
        Ok(version) => Ok(Target::Coming(package.parse()?, version)),
        Err(_) => Ok(Target::Unknown),
    }
}

fn package(rest: &str) -> Result<Target, BadTarget> {
    let text = |s| decode(s).map(|name| String::from_utf8_lossy(&name).into_owned());
    let mut segments = rest.splitn(3, '/');
    let (Some(package), Some(selector)) = (segments.next(), segments.next()) else {
        return Ok(Target::Unknown);
    };
    if package.is_empty() || selector.is_empty() {
        return Ok(Target::Unknown);
    }
    let (package, selector) = (text(package)?.parse()?, text(selector)?.parse()?);
    let rest = segments.next();
    let raw = rest.unwrap_or_default();
    let slash = rest.is_some_and(|r| r.is_empty() || r.ends_with('/'));
    let mut path = Vec::with_capacity(raw.len());
    for (at, segment) in raw.strip_suffix('/').unwrap_or(raw).split('/').enumerate() {
        if at > 0 {
            path.push(b'/');
        }
        let name = decode(segment)?;
        if name.contains(&b'/') {
            return Err(BadTarget::EncodedSlash);
        }
        path.extend_from_slice(&name);
    }
    if !path.is_empty() {
        packager::path::check(&path).map_err(BadTarget::Path)?;
    }
    Ok(Target::Package(PackagePath { package, selector, path, slash }))
}

/// Percent-decoding (RFC 3986, section 2.1), to bytes.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, BadTarget> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(BadTarget::Percent) };
        out.push((high << 4 | low) as u8);
    }
    Ok(out)
}

/// Percent-encodes the names of a path; slashes stay.
pub(crate) fn encode(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'+' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inside(target: &str) -> PackagePath {
        match Target::parse(target) {
            Ok(Target::Package(path)) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_path_leads_to_its_route() {
        assert_eq!(Target::parse("/content/a%3Ab"), Ok(Target::Content(b"a:b".to_vec())));
        assert_eq!(Target::parse("/healthz"), Ok(Target::Health));
        assert_eq!(Target::parse("/api/v1/packages"), Ok(Target::Api));
        assert_eq!(Target::parse("/locate/docs/latest"), Ok(Target::Locate));
        for unknown in
            ["/", "", "/content", "/api", "/packages/a", "/packages//1/x", "/x", "/healthz/"]
        {
            assert_eq!(Target::parse(unknown), Ok(Target::Unknown), "{unknown}");
        }
    }

    #[test]
    fn what_wsus_asks_for_is_found_in_either_case() {
        let content = Target::Content(b"sha1:87f5bd0469585006aa5d3a77d1c662fd2895ddcd".to_vec());
        for path in [
            "/Content/CD/87F5BD0469585006AA5D3A77D1C662FD2895DDCD.exe",
            "/content/cd/87f5bd0469585006aa5d3a77d1c662fd2895ddcd",
        ] {
            assert_eq!(Target::parse(path), Ok(content.clone()), "{path}");
        }
        let sha256 = "ab".repeat(32);
        let content = Target::Content(format!("sha256:{sha256}").into_bytes());
        let path = format!("/Content/AB/{}.deb", sha256.to_ascii_uppercase());
        assert_eq!(Target::parse(&path), Ok(content));
        for path in [
            "//DssAuthWebService/DssAuthWebService.asmx",
            "/serversyncwebservice/x",
            "/ReportingWebService/ReportingWebService.asmx",
        ] {
            assert_eq!(Target::parse(path), Ok(Target::Api), "{path}");
        }
        let other = "/Content/AB/87F5BD0469585006AA5D3A77D1C662FD2895DDCD.exe";
        assert_eq!(Target::parse(other), Ok(Target::Unknown), "it lies in another folder");
    }

    #[test]
    fn bytes_that_are_no_text_reach_the_package() {
        let found = inside("/packages/docs/latest/a%20b/%FF%0a");
        assert_eq!((found.package.as_str(), found.selector), ("docs", Selector::Latest));
        assert_eq!(found.path, b"a b/\xff\n");
        assert!(!found.slash);
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_folder() {
        let top = inside("/packages/docs/2/");
        assert!(top.slash && top.path.is_empty());
        let no_slash = inside("/packages/docs/2");
        assert!(!no_slash.slash && no_slash.path.is_empty());
        let deeper = inside("/packages/docs/2/a/b/");
        assert!(deeper.slash && deeper.path == b"a/b");
    }

    #[test]
    fn nothing_leads_out_of_a_package() {
        for bad in ["..", "a/../b", "%2e%2e/a", "a//b", "a%00b", "./a", "//", "..%2f"] {
            let found = Target::parse(&format!("/packages/docs/2/{bad}"));
            assert!(matches!(found, Err(BadTarget::Path(_) | BadTarget::EncodedSlash)), "{bad}");
        }
        assert_eq!(Target::parse("/packages/docs/2/a%2Fb"), Err(BadTarget::EncodedSlash));
        assert!(matches!(Target::parse("/packages/D/2/a"), Err(BadTarget::Name(_))));
        assert!(matches!(Target::parse("/packages/docs/%FF/a"), Err(BadTarget::Name(_))));
        assert_eq!(Target::parse("/packages/docs/2/a%2"), Err(BadTarget::Percent));
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }
    }
}
