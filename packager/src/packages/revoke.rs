//! Revoking a content everywhere.
//!
//! A revoked content is not served, not restored and not taken in again, whatever package has it.
//! The tombstone is the library's; here is told which versions it hits.

use super::Packages;
use crate::error::PackageError;
use crate::manifest::{Entry, Manifest};
use crate::name::PackageName;
use crate::path::TreePath;
use crate::refs;
use crate::sign::VersionInfo;
use contentlib::Digest;

/// The most places that a report lists; of the others it gives the count.
const MAX_PLACES: usize = 1000;

/// A place where a content is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Holding {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// The file.
    pub path: TreePath,
}

/// A content that was revoked, and where it was.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revocation {
    /// The content.
    pub digest: Digest,
    /// Why.
    pub reason: String,
    /// Where it was; a thousand places at most.
    pub places: Vec<Holding>,
    /// How many places there were.
    pub total: u64,
    /// Versions whose manifest is damaged, so that nobody knows whether they have it.
    pub unknown: Vec<String>,
}

impl Packages {
    /// Revokes a content: no version of any package delivers it from now on.
    pub fn revoke(&self, digest: Digest, reason: &str) -> Result<Revocation, PackageError> {
        self.library().revoke(digest, reason)?;
        let mut revocation = Revocation {
            digest,
            reason: reason.to_owned(),
            places: Vec::new(),
            total: 0,
            unknown: Vec::new(),
        };
        for (_, stored) in refs::list::<VersionInfo>(self.library(), refs::VERSIONS)? {
            let version = stored.record;
            match self.manifest(version.manifest) {
                Ok(manifest) => revocation.count(&version, &manifest),
                Err(error) => {
                    tracing::warn!(%error, package = %version.package, version.version, "not searched");
                    revocation.unknown.push(format!("{}@{}", version.package, version.version));
                }
            }
        }
        Ok(revocation)
    }

    /// Takes a revocation back. The content is delivered again where it is still held.
    pub fn unrevoke(&self, digest: Digest) -> Result<(), PackageError> {
        Ok(self.library().unrevoke(digest)?)
    }
}

impl Revocation {
    fn count(&mut self, version: &VersionInfo, manifest: &Manifest) {
        let digest = self.digest;
        if !manifest.digests().contains(&digest) {
            return;
        }
        let here = |entry: &Entry<'_>| entry.file().is_some_and(|file| file.digest == digest);
        for entry in manifest.entries().filter(here) {
            self.total += 1;
            if self.places.len() < MAX_PLACES {
                self.places.push(Holding {
                    package: version.package.clone(),
                    version: version.version,
                    path: TreePath::of_checked(entry.path),
                });
            }
        }
    }
}
