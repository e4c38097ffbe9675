//! Which versions are not whole any more: content of theirs was found damaged, or is lost.
//!
//! A version is visible as long as its reference is, whatever becomes of its bytes; the content
//! library knows which of them may not be relied on. Here the one is held against the other.

use super::{Packages, read_manifest};
use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::name::PackageName;
use crate::sign::VersionInfo;
use contentlib::{Digest, Library, ReadError};
use std::collections::HashMap;

/// A version that is visible and not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: u64,
    /// Contents of it that cannot be relied on; the manifest is one.
    pub n_contents: u64,
    /// Bytes of its files that cannot.
    pub bytes: u64,
    /// Whether its manifest is among them, so that nobody can tell what it has.
    pub manifest: bool,
}

/// Contents that were looked up, so that what many versions share is looked up once.
#[derive(Default)]
struct Seen(HashMap<Digest, bool>);

impl Packages {
    /// All visible versions that are not whole, as far as damage is known: looks at the index and at
    /// recipes, and at no content.
    pub fn hurt_versions(&self) -> Result<Vec<Hurt>, PackageError> {
        let mut seen = Seen::default();
        let mut hurt = Vec::new();
        for info in self.held()? {
            hurt.extend(self.hurt_one(&info, &mut seen)?);
        }
        Ok(hurt)
    }

    /// What of one version is damaged or lost, as far as known; nothing if it is whole.
    pub fn hurt(&self, info: &VersionInfo) -> Result<Option<Hurt>, PackageError> {
        self.hurt_one(info, &mut Seen::default())
    }

    /// The contents of a version, each once, its manifest first. Of one whose manifest cannot be
    /// read, that alone.
    pub fn contents_of(&self, info: &VersionInfo) -> Result<Vec<Digest>, PackageError> {
        let mut contents = vec![info.manifest];
        if let Some(manifest) = self.readable(info)? {
            contents.extend(sized(&manifest).into_iter().map(|(digest, _)| digest));
        }
        Ok(contents)
    }

    fn hurt_one(&self, info: &VersionInfo, seen: &mut Seen) -> Result<Option<Hurt>, PackageError> {
        let mut hurt = Hurt {
            package: info.package.clone(),
            version: info.version,
            n_contents: 0,
            bytes: 0,
            manifest: false,
        };
        let Some(manifest) = self.readable(info)? else {
            return Ok(Some(Hurt { n_contents: 1, bytes: info.bytes, manifest: true, ..hurt }));
        };
        for (digest, size) in sized(&manifest) {
            let is_whole = match seen.0.get(&digest) {
                Some(is_whole) => *is_whole,
                None => match is_whole(self.library(), digest, size) {
                    // It is meant not to be read.
                    Err(PackageError::Read(ReadError::Revoked(_))) => true,
                    is_whole => is_whole?,
                },
            };
            seen.0.insert(digest, is_whole);
            if !is_whole {
                hurt.n_contents += 1;
                hurt.bytes += size;
            }
        }
        Ok((hurt.n_contents > 0).then_some(hurt))
    }

    /// The manifest of a version; nothing if it is damaged or lost.
    fn readable(&self, info: &VersionInfo) -> Result<Option<Manifest>, PackageError> {
        // The one in memory says nothing of the one on the disk.
        match self.library().missing_contents(&[info.manifest])?.first() {
            Some(false) => {}
            _ => return Ok(None),
        }
        match read_manifest(self.library(), info.manifest) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(
                PackageError::Manifest { .. }
                | PackageError::Read(
                    ReadError::Suspect { .. }
                    | ReadError::MissingChunk { .. }
                    | ReadError::Unknown(_),
                ),
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The contents of a manifest's files with their sizes, each once.
pub(super) fn sized(manifest: &Manifest) -> Vec<(Digest, u64)> {
    let files = manifest.digests().iter().copied().zip(manifest.sizes().iter().copied());
    let mut files: Vec<(Digest, u64)> = files.collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// Whether a content of that size is held, and nothing of it known to be damaged.
pub(super) fn is_whole(library: &Library, digest: Digest, size: u64) -> Result<bool, PackageError> {
    match library.stat(digest) {
        Ok(stat) => Ok(!stat.suspect && stat.size == size),
        Err(ReadError::Unknown(_) | ReadError::Suspect { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
