//! `GET /packages/{package}/{version}/{path}`: files by name, folders as listings.
//!
//! A version is a number, `latest` or a channel. All but a number can move, and a deleted
//! package's numbers can come again; so caches must ask each time (`no-cache`), and the entity tag,
//! which is the content's digest, makes asking cheap.
//!
//! Symbolic links are followed as long as they stay inside the package; one that leads out of it,
//! or round in circles, is 404 and says so. A folder without a slash at its end is a redirect, so
//! that relative links in its pages work.

use crate::condition::http_date;
use crate::held::{Described, Held, Hot};
use crate::listing;
use crate::on_demand::{self, Demand};
use crate::problem::Problem;
use crate::server::Content;
use crate::service::Page;
use crate::target::{PackagePath, encode};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use packager::manifest::{FileEntry, Kind, Manifest};
use packager::path;
use std::collections::VecDeque;
use std::sync::Arc;

/// The media type that asks for a version's signed description instead of its top folder.
pub const VERSION_TYPE: &str = "application/vnd.depot.version+json";
/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// What a folder, or a version, is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Html,
    Json,
    Version,
}

impl Shown {
    /// What `Accept` prefers (RFC 9110, section 12.5.1); HTML where it does not say.
    pub fn negotiate(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Shown::Html);
        for line in headers.get_all(header::ACCEPT) {
            for range in line.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let shown = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                    "text/html" | "application/xhtml+xml" => Shown::Html,
                    "application/json" => Shown::Json,
                    VERSION_TYPE => Shown::Version,
                    _ => continue,
                };
                let weight = parts.find_map(|p| p.strip_prefix("q=")?.parse::<f32>().ok());
                let weight = weight.unwrap_or(1.0);
                if weight > best.0 {
                    best = (weight, shown);
                }
            }
        }
        best.1
    }
}

/// What a path leads to.
pub(crate) enum Found {
    File(Arc<Held>),
    Page(Page),
    /// A file that has to come first.
    Waits(Demand),
}

/// Looks a path up and makes what it leads to ready. Blocks.
///
/// What a version's number or channel means is looked up each time; what a path of that manifest
/// is, is kept in `hot`.
pub(crate) fn find(
    content: &Content,
    hot: &Hot,
    asked: &PackagePath,
    shown: Shown,
    query: Option<&str>,
) -> Result<Found, Problem> {
    let version = content.packages.resolve(&asked.package, &asked.selector)?;
    if shown == Shown::Version && asked.path.is_empty() {
        let bytes = serde_json::to_vec(&version).expect("a version's description is JSON");
        let etag = format!("\"v{}-{}\"", version.version, version.manifest);
        return Ok(Found::Page(page(VERSION_TYPE, &etag, bytes)));
    }
    // No path of a request looks like this.
    let key = format!("{}/{}", version.manifest, encode(&asked.path));
    // Before the look-up: what changes meanwhile must not be kept.
    let generation = content.library.generation();
    if !asked.slash
        && let Some(held) = hot.get(&key, generation)
    {
        return Ok(Found::File(held));
    }
    let manifest = content.packages.manifest(version.manifest)?;
    let there = match follow(&manifest, &asked.path) {
        Err(lost @ Lost::Nothing(_)) => {
            let list = on_demand::list(content, &version)?;
            let list = list.ok_or_else(|| Problem::from(lost.clone()))?;
            match list.lookup(&asked.path) {
                Some(waiting) if !asked.slash => {
                    let Some(file) = on_demand::held(content, &waiting)? else {
                        return Ok(Found::Waits(Demand::of(&version, &waiting)));
                    };
                    let held = Arc::new(open(content, &file, None, &asked.path)?);
                    hot.put(&key, generation, held.clone());
                    return Ok(Found::File(held));
                }
                // A folder of files on demand alone.
                None if !list.children(&asked.path).is_empty() => {
                    There::Folder { path: asked.path.clone() }
                }
                _ => return Err(lost.into()),
            }
        }
        there => there?,
    };
    match there {
        There::File { .. } if asked.slash => {
            Err(Problem::not_found("this is a file; leave out the slash at the end"))
        }
        There::File { file, mtime, path } => {
            let held = Arc::new(open(content, &file, Some(mtime), &path)?);
            hot.put(&key, generation, held.clone());
            Ok(Found::File(held))
        }
        There::Folder { .. } if !asked.slash => Ok(Found::Page(redirect(asked, query))),
        There::Folder { path } => {
            let on_demand = on_demand::list(content, &version)?;
            let listed = listing::Listing {
                package: asked.package.as_str(),
                selector: &asked.selector.to_string(),
                version: version.version,
                at: &asked.path,
                manifest: &manifest,
                on_demand: on_demand.as_deref(),
                folder: &path,
            };
            let (media_type, form, bytes) = match shown {
                Shown::Json => ("application/json", "json", listed.json()),
                Shown::Html | Shown::Version => ("text/html; charset=utf-8", "html", listed.html()),
            };
            let etag = format!("\"v{}-{}-{form}\"", version.version, version.manifest);
            Ok(Found::Page(page(media_type, &etag, bytes)))
        }
    }
}

fn open(
    content: &Content,
    file: &FileEntry,
    mtime: Option<i64>,
    path: &[u8],
) -> Result<Held, Problem> {
    let reader = content.library.open_content(file.digest)?;
    let described = Described {
        content_type: HeaderValue::from_static(crate::media::type_of(path)),
        cache_control: HeaderValue::from_static("no-cache"),
        modified: mtime.map(|mtime| mtime.div_euclid(1_000_000_000)),
    };
    let mut held = Held::open(reader, described)?;
    // What somebody packed must not act as this site: the API shares its origin.
    held.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    Ok(held)
}

/// The head of a file that has not come: all that its version states of it, but for the digest by which it
/// will be named.
pub(crate) fn head_of(demand: &Demand) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let media_type = crate::media::type_of(&demand.path);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, demand.size.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers
}

fn page(media_type: &'static str, etag: &str, bytes: Vec<u8>) -> Page {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::ETAG, HeaderValue::try_from(etag).expect("visible ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Page { status: StatusCode::OK, headers, bytes: bytes.into() }
}

fn redirect(asked: &PackagePath, query: Option<&str>) -> Page {
    let PackagePath { package, selector, path, .. } = asked;
    let mut to = format!("/packages/{package}/{selector}/");
    if !path.is_empty() {
        to += &encode(path);
        to.push('/');
    }
    if let Some(query) = query {
        to.push('?');
        to += query;
    }
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::LOCATION, HeaderValue::try_from(to).expect("percent-encoded"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Page { status: StatusCode::MOVED_PERMANENTLY, headers, bytes: Bytes::new() }
}

/// Where a path leads once all links in it are followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum There {
    File { file: FileEntry, mtime: i64, path: Vec<u8> },
    Folder { path: Vec<u8> },
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    #[error("there is no {0} in this version of the package")]
    Nothing(String),
    #[error("{0} is a symbolic link that leads out of the package; it is not followed")]
    Outside(String),
    #[error("there are too many symbolic links on the way")]
    Loop,
}

impl From<Lost> for Problem {
    fn from(lost: Lost) -> Self {
        Problem::not_found(lost.to_string())
    }
}

/// Follows `path` from the top folder.
pub(crate) fn follow(manifest: &Manifest, path: &[u8]) -> Result<There, Lost> {
    let shown = |path: &[u8]| path::Shown(path).to_string();
    // Where it is now, with no link in it, and the names still to go.
    let mut here: Vec<u8> = Vec::new();
    let mut names: VecDeque<&[u8]> = path.split(|&b| b == b'/').collect();
    let mut file = None;
    let mut n_links = 0;
    while let Some(name) = names.pop_front() {
        if name.is_empty() || name == b"." {
            continue;
        }
        if file.is_some() {
            return Err(Lost::Nothing(shown(path)));
        }
        if name == b".." {
            // Only a link's target has these, and it was checked to start inside.
            if here.is_empty() {
                return Err(Lost::Outside(shown(path)));
            }
            here.truncate(path::split(&here).0.len());
            continue;
        }
        let folder = here.len();
        if folder > 0 {
            here.push(b'/');
        }
        here.extend_from_slice(name);
        let Some(entry) = manifest.lookup(&here) else { return Err(Lost::Nothing(shown(path))) };
        match entry.kind {
            Kind::Folder => {}
            Kind::File(found) => file = Some((found, entry.mtime)),
            Kind::Link { target } => {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err(Lost::Loop);
                }
                if target.first() == Some(&b'/') {
                    return Err(Lost::Outside(shown(&here)));
                }
                here.truncate(folder);
                for name in target.rsplit(|&b| b == b'/') {
                    names.push_front(name);
                }
            }
        }
    }
    Ok(match file {
        Some((file, mtime)) => There::File { file, mtime, path: here },
        None => There::Folder { path: here },
    })
}

/// When a file was last modified, as a listing shows it and `Last-Modified` says it.
pub(crate) fn is_datable(mtime: i64) -> bool {
    http_date(mtime.div_euclid(1_000_000_000)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::Digest;
    use packager::manifest::{Entry, LINK_MODE, ManifestBuilder};

    fn tree(entries: &[(&str, Kind<'_>)]) -> Manifest {
        let mut builder = ManifestBuilder::default();
        for &(path, kind) in entries {
            let mode = if matches!(kind, Kind::Link { .. }) { LINK_MODE } else { 0o644 };
            builder.push(Entry { path: path.as_bytes(), mode, mtime: 0, kind }).unwrap();
        }
        builder.finish()
    }
    fn link(target: &str) -> Kind<'_> {
        Kind::Link { target: target.as_bytes() }
    }
    fn file() -> Kind<'static> {
        Kind::File(FileEntry { size: 1, digest: Digest::of(b"x"), recipe: None })
    }
    fn leads(tree: &Manifest, path: &str) -> Result<String, Lost> {
        follow(tree, path.as_bytes()).map(|there| match there {
            There::File { path, .. } => String::from_utf8(path).unwrap(),
            There::Folder { path } => format!("{}/", String::from_utf8(path).unwrap()),
        })
    }

    #[test]
    fn links_are_followed_inside_the_package() {
        let tree = tree(&[
            ("a", Kind::Folder),
            ("a/file", file()),
            ("a/up", link("../b/./deep")),
            ("b", Kind::Folder),
            ("b/deep", Kind::Folder),
            ("b/deep/x", file()),
            ("top", link("a/..")),
            ("z", link("a/file")),
        ]);
        assert_eq!(leads(&tree, "z").unwrap(), "a/file");
        assert_eq!(leads(&tree, "a/up/x").unwrap(), "b/deep/x");
        assert_eq!(leads(&tree, "a/up").unwrap(), "b/deep/");
        assert_eq!(leads(&tree, "top").unwrap(), "/");
        assert_eq!(leads(&tree, "").unwrap(), "/");
        assert!(matches!(leads(&tree, "z/x"), Err(Lost::Nothing(_))));
        assert!(matches!(leads(&tree, "a/none"), Err(Lost::Nothing(_))));
    }

    #[test]
    fn links_out_of_the_package_and_in_circles_lead_nowhere() {
        let tree = tree(&[
            ("a", Kind::Folder),
            ("a/abs", link("/etc/passwd")),
            ("a/out", link("../../etc/passwd")),
            ("loop1", link("loop2")),
            ("loop2", link("loop1")),
            ("self", link("self/self")),
        ]);
        assert_eq!(leads(&tree, "a/abs"), Err(Lost::Outside("a/abs".into())));
        assert!(matches!(leads(&tree, "a/out"), Err(Lost::Outside(_))));
        assert_eq!(leads(&tree, "loop1"), Err(Lost::Loop));
        assert_eq!(leads(&tree, "self"), Err(Lost::Loop));
    }

    #[test]
    fn the_form_is_what_accept_prefers() {
        let cases = [
            ("*/*", Shown::Html),
            ("application/json", Shown::Json),
            ("text/html,application/json;q=0.9", Shown::Html),
            ("text/html;q=0.5, application/json", Shown::Json),
            (VERSION_TYPE, Shown::Version),
            ("application/json;q=0", Shown::Html),
        ];
        for (accept, shown) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Shown::negotiate(&headers), shown, "{accept}");
        }
        assert_eq!(Shown::negotiate(&HeaderMap::new()), Shown::Html);
    }
}
