//! Making a tree the next version of a package: manifest, signature, retention, one commit.

use super::{MAX_CONFLICTS, Packages};
use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::name::PackageName;
use crate::refs::{self, PackageRecord, Source, Stored};
use crate::sign::VersionInfo;
use contentlib::{CommitError, Expect, RefChange, Session};
use std::sync::Arc;

/// What becomes the next version.
pub(crate) struct NewVersion<'a> {
    pub(crate) name: &'a PackageName,
    pub(crate) manifest: &'a Manifest,
    /// The package's source from now on, if it changes.
    pub(crate) source: Option<Source>,
    /// Of its files' bytes, those not held before.
    pub(crate) new_bytes: u64,
}

/// A version that was made.
pub(crate) struct Published {
    pub(crate) info: VersionInfo,
    /// Older versions that went with it, by the package's retention.
    pub(crate) removed: Vec<u64>,
}

impl Packages {
    /// Commits the session with `new` as the package's next version. Versions that its retention
    /// does not keep any more go in the same commit, never those that channels point to.
    pub(crate) fn publish(
        &self,
        session: &Session,
        new: &NewVersion<'_>,
    ) -> Result<Published, PackageError> {
        let manifest = session.add_bytes(&new.manifest.encode())?.digest;
        let tree = new.manifest.tree_digest();
        for _ in 0..MAX_CONFLICTS {
            let Stored { record, found } = self.record(new.name)?;
            let mut record = record.next_revision();
            let info = self.info(new, manifest, tree, record.next);
            record.next += 1;
            record.latest = Some(info.version);
            if let Some(source) = &new.source {
                record.source = source.clone();
            }
            let versions = refs::list_versions(self.library(), new.name)?;
            let mut ages: Vec<_> = versions.iter().map(|v| (v.version, v.created)).collect();
            ages.push((info.version, info.created));
            let removed = record.retention.expired(&ages, &record.held(), info.created);
            let mut changes = vec![version_change(&info)];
            changes.extend(removed.iter().map(|&version| RefChange::Delete {
                name: refs::version_key(new.name, version),
                expect: Expect::Any,
            }));
            let key = refs::package_key(new.name);
            changes.push(refs::set(key, None, &record, Expect::Is(found)));
            match session.commit(changes) {
                Ok(()) => {
                    self.inner.manifests.put(manifest, Arc::new(new.manifest.clone()));
                    return Ok(Published { info, removed });
                }
                // Somebody moved a channel, or the like.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PackageError::Busy(new.name.clone()))
    }

    /// Commits a package that is not there yet, with its first version.
    pub(super) fn publish_first(
        &self,
        session: &Session,
        new: &NewVersion<'_>,
        mut record: PackageRecord,
    ) -> Result<VersionInfo, PackageError> {
        let manifest = session.add_bytes(&new.manifest.encode())?.digest;
        let info = self.info(new, manifest, new.manifest.tree_digest(), record.next);
        record.next += 1;
        record.latest = Some(info.version);
        let key = refs::package_key(new.name);
        let package = refs::set(key, None, &record, Expect::Absent);
        session.commit(vec![version_change(&info), package])?;
        Ok(info)
    }

    fn info(
        &self,
        new: &NewVersion<'_>,
        manifest: contentlib::Digest,
        tree: crate::manifest::TreeDigest,
        version: u64,
    ) -> VersionInfo {
        let key = &self.inner.key;
        VersionInfo {
            package: new.name.clone(),
            version,
            manifest,
            tree,
            signature: key.sign(new.name, version, manifest, tree),
            key: key.public(),
            n_files: new.manifest.n_files(),
            n_folders: new.manifest.n_folders(),
            n_links: new.manifest.n_links(),
            bytes: new.manifest.bytes(),
            new_bytes: new.new_bytes,
            created: self.now(),
        }
    }
}

fn version_change(info: &VersionInfo) -> RefChange {
    let key = refs::version_key(&info.package, info.version);
    refs::set(key, Some(info.manifest), info, Expect::Absent)
}
