//! Repositories as they are: which files a snapshot of one has, and where each comes from.
//!
//! Here is only what is to be held, as a list; who keeps content brings it and makes a package version
//! of it, whole or not at all. The metadata of a whole mirror stay as their upstream signed them. Those
//! of a filtered one are made anew, and signed with the site's own key.

use crate::apt::Apt;
use crate::digests::Digests;
use crate::error::{Cause, SyncError};
use crate::rpm::RpmSource;
use crate::source::SourceKind;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// A path in a repository, below its root: parts joined by `/`, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Box<str>);

/// Text that is no path below a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no path in a repository")]
pub struct NotARepoPath(String);

impl RepoPath {
    /// The longest one, in bytes.
    pub const MAX: usize = 1024;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RepoPath {
    type Err = NotARepoPath;
    fn from_str(text: &str) -> Result<Self, NotARepoPath> {
        let part = |part: &str| {
            !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.bytes().any(|b| b < b' ')
        };
        if text.len() <= Self::MAX && !text.contains('\\') && text.split('/').all(part) {
            Ok(Self(text.into()))
        } else {
            Err(NotARepoPath(text.chars().take(200).collect()))
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFile {
    /// Where it lies.
    pub path: RepoPath,
    /// Its bytes.
    pub size: u64,
    /// What is stated about them.
    pub digests: Digests,
    /// Where they are.
    pub origin: Origin,
    /// Whether it is a package, and not metadata: machines ask for some of them, and for none before.
    pub is_package: bool,
}

/// The address of a file of a snapshot that comes later than the rest: of one at `path` in the repository,
/// or at `from`, if its upstream has it elsewhere.
///
/// # Errors
/// The source cannot be mirrored, or its settings or the path name no place.
pub fn address_of(kind: &SourceKind, path: &str, from: Option<&str>) -> Result<Url, SyncError> {
    match kind {
        SourceKind::Apt(settings) => Apt::new((**settings).clone())?.url(from.unwrap_or(path)),
        SourceKind::Rpm(settings) => {
            let repository = RpmSource::new(settings)?.repository().clone();
            match from {
                Some(from) => repository.address(from),
                None => repository.address_of(path),
            }
        }
        other => {
            let detail = format!("a source of the kind {} is no repository", other.as_str());
            Err(SyncError::new(Cause::Misconfigured, detail))
        }
    }
}

/// What is to be said of a file that comes later than the rest, so that [`address_of`] leads to `address`:
/// nothing, where its path does. It has no secret in it that the source's settings have.
pub fn from_of(kind: &SourceKind, path: &str, address: &Url) -> Option<String> {
    let is_there = address_of(kind, path, None).is_ok_and(|there| there == *address);
    (!is_there).then(|| address.to_string())
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file of this machine, verified.
    Local(PathBuf),
    /// In memory: metadata that were made here.
    Made(Bytes),
    /// At the upstream; any of these, in the order to try.
    Remote(Vec<Url>),
}

/// Whether `text` is like `pattern`, in which `*` stands for any letters.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, text, is) in [
            ("clamav", "clamav", true),
            ("clamav", "clamav-x", false),
            ("clamav-*", "clamav-db", true),
            ("*-db", "clamav-db", true),
            ("c*v*b", "clamav-db", true),
            ("c*x*b", "clamav-db", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn no_path_leaves_the_root() {
        assert_eq!("pool/main/o/x_1%3a2.deb".parse::<RepoPath>().unwrap().as_str().len(), 23);
        for wrong in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a\\b", "a\nb"] {
            assert!(wrong.parse::<RepoPath>().is_err(), "{wrong}");
        }
    }
}
