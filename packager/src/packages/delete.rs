//! Deleting versions and packages, and what that frees.

use super::Packages;
use crate::error::PackageError;
use crate::name::{PackageName, Selector};
use crate::refs;
use crate::sign::VersionInfo;
use crate::statcache::StatCache;
use contentlib::{Digest, Expect, RefChange};
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};

/// Whether a version goes that something points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It is refused.
    No,
    /// It goes; channels that pointed to it are removed.
    Yes,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Deleted {
    /// The package.
    pub package: PackageName,
    /// The versions that are gone.
    pub versions: Vec<u64>,
    /// What becomes free; nothing if some version's manifest is damaged, so that it cannot be
    /// known.
    pub freed: Option<Freed>,
    /// When their space can be used again: with the first garbage collection from then on.
    pub freed_at: Timestamp,
}

/// Contents that no version of any package has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Freed {
    /// How many.
    pub contents: u64,
    /// Their sizes together. Chunks that they share with contents that stay are not freed, so
    /// this is the most that can become free.
    pub bytes: u64,
}

impl Packages {
    /// Deletes one version. Its number is never used again.
    pub fn delete_version(
        &self,
        name: &PackageName,
        version: &Selector,
        force: Force,
    ) -> Result<Deleted, PackageError> {
        let _guard = self.busy(name)?;
        let version = self.resolve(name, version)?;
        let gone = version.clone();
        self.change(name, move |record, changes| {
            let by = Self::pointers(record, gone.version);
            if !by.is_empty() && force == Force::No {
                let package = gone.package.clone();
                return Err(PackageError::VersionInUse { package, version: gone.version, by });
            }
            record.channels.retain(|_, to| *to != gone.version);
            if record.latest == Some(gone.version) {
                let left = refs::list_versions(self.library(), &gone.package)?;
                let older = left.iter().map(|v| v.version).filter(|v| *v != gone.version);
                record.latest = older.max();
            }
            changes.push(delete(&gone));
            Ok(())
        })?;
        Ok(self.deleted(name, &[version]))
    }

    /// Deletes a package with all its versions and channels.
    pub fn delete_package(&self, name: &PackageName) -> Result<Deleted, PackageError> {
        let _guard = self.busy(name)?;
        let stored = self.record(name)?;
        let versions = refs::list_versions(self.library(), name)?;
        let mut changes: Vec<_> = versions.iter().map(delete).collect();
        let expect = Expect::Is(stored.found);
        changes.push(RefChange::Delete { name: refs::package_key(name), expect });
        self.library().session().commit(changes)?;
        StatCache::new(&self.inner.sources, name).remove();
        Ok(self.deleted(name, &versions))
    }

    fn deleted(&self, name: &PackageName, gone: &[VersionInfo]) -> Deleted {
        let freed = self.only_in(gone);
        if let Err(error) = &freed {
            tracing::warn!(%error, "cannot tell what becomes free");
        }
        // A grace that no clock can hold is as good as the end of time.
        let grace = SignedDuration::try_from(self.inner.gc_grace).unwrap_or(SignedDuration::MAX);
        Deleted {
            package: name.clone(),
            versions: gone.iter().map(|v| v.version).collect(),
            freed: freed.ok(),
            freed_at: self.now().checked_add(grace).unwrap_or(Timestamp::MAX),
        }
    }

    /// The contents that `gone` has and no version that is left.
    fn only_in(&self, gone: &[VersionInfo]) -> Result<Freed, PackageError> {
        let mut only: HashMap<Digest, u64> = HashMap::new();
        for version in gone {
            let manifest = self.manifest(version.manifest)?;
            let files = manifest.entries().filter_map(|entry| entry.file());
            only.extend(files.map(|file| (file.digest, file.size)));
        }
        let mut seen: HashSet<Digest> = HashSet::new();
        for (_, stored) in refs::list::<VersionInfo>(self.library(), refs::VERSIONS)? {
            if only.is_empty() {
                break;
            }
            if seen.insert(stored.record.manifest) {
                let manifest = self.manifest(stored.record.manifest)?;
                for digest in manifest.digests() {
                    only.remove(digest);
                }
            }
        }
        Ok(Freed { contents: only.len() as u64, bytes: only.values().sum() })
    }
}

fn delete(version: &VersionInfo) -> RefChange {
    let name = refs::version_key(&version.package, version.version);
    RefChange::Delete { name, expect: Expect::Any }
}
