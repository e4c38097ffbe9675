//! Making a tree the next version of a package: manifest, signature, retention, one commit.

use super::{MAX_CONFLICTS, Packages, read_manifest};
use crate::error::PackageError;
use crate::manifest::{Manifest, TreeDigest};
use crate::name::{PackageName, Selector};
use crate::refs::{self, PackageRecord, Source, Stored};
use crate::sign::VersionInfo;
use contentlib::{CommitError, Digest, Expect, ReadError, RefChange, Session};
use std::sync::Arc;

/// What becomes the next version, if it is not the newest already.
pub(crate) struct NewVersion<'a> {
    pub(crate) name: &'a PackageName,
    pub(crate) manifest: &'a Manifest,
    pub(crate) tree: TreeDigest,
    /// The package's source from now on, if it changes.
    pub(crate) source: Option<Source>,
    /// Files that were read or received for it.
    pub(crate) files_read: u64,
    /// Of its files' bytes, those not held before.
    pub(crate) new_bytes: u64,
}

/// What became of a [`NewVersion`].
pub(crate) struct Made {
    /// The package's newest version, and its manifest.
    pub(crate) version: u64,
    pub(crate) manifest: Digest,
    /// It is the one that was the newest before.
    pub(crate) unchanged: bool,
    pub(crate) files_read: u64,
    /// Older versions that went with it, by the package's retention.
    pub(crate) removed: Vec<u64>,
}

/// The newest version of a package.
pub(crate) struct Newest {
    pub(crate) info: VersionInfo,
    /// Nothing if it is damaged.
    pub(crate) manifest: Option<Arc<Manifest>>,
}

impl Packages {
    /// The newest version of a package, if it has any.
    pub(crate) fn newest(&self, name: &PackageName) -> Result<Option<Newest>, PackageError> {
        let info = match self.resolve(name, &Selector::Latest) {
            Ok(info) => info,
            Err(PackageError::UnknownVersion { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let manifest = self.manifest(info.manifest);
        if let Err(error) = &manifest {
            // It must not keep the package from its next version.
            tracing::warn!(%error, package = %name, "the newest version is damaged");
        }
        Ok(Some(Newest { info, manifest: manifest.ok() }))
    }

    /// Commits what the session added, with `new` as the package's next version if it is not what
    /// the newest is.
    pub(crate) fn make(
        &self,
        session: &Session,
        newest: Option<&Newest>,
        new: &NewVersion<'_>,
    ) -> Result<Made, PackageError> {
        let mended = self.mend_empty(session, new.name)?;
        let same = newest.filter(|newest| newest.info.tree == new.tree);
        if let Some(Newest { info, manifest }) = same {
            let whole = self.library().missing_contents(&[info.manifest])? == [false];
            // The bytes of a damaged manifest may still be in memory, or just have been made.
            let spare = manifest.as_deref().unwrap_or(new.manifest);
            if whole || self.heal(session, info.manifest, spare)? {
                // Contents that were damaged and read again are healed by this.
                if new.files_read > 0 || !whole || mended {
                    session.commit(Vec::new())?;
                }
                if let Some(source) = &new.source {
                    self.set_source(new.name, source)?;
                }
                return Ok(Made {
                    version: info.version,
                    manifest: info.manifest,
                    unchanged: true,
                    files_read: new.files_read,
                    removed: Vec::new(),
                });
            }
        }
        self.publish(session, new)
    }

    /// Adds the manifest of an empty tree again, if a version of the package has it, as version 1 does,
    /// and it cannot be read. While it cannot, garbage collection cannot tell what is in use; and
    /// nobody but this needs another server to make it.
    fn mend_empty(&self, session: &Session, name: &PackageName) -> Result<bool, PackageError> {
        use ReadError::{MissingChunk, Suspect, Unknown};
        let bytes = Manifest::default().encode();
        let empty = Digest::of(&bytes);
        // Read, and not only looked up: that its pack is gone, perhaps nobody has noticed yet.
        let is_lost = match read_manifest(self.library(), empty) {
            Ok(_) => false,
            Err(PackageError::Read(MissingChunk { .. } | Suspect { .. } | Unknown(_))) => true,
            // Revoked, or nothing that adding it again would help against.
            Err(_) => false,
        };
        let versions = || refs::list_versions(self.library(), name);
        if !is_lost || !versions()?.iter().any(|version| version.manifest == empty) {
            return Ok(false);
        }
        session.add_bytes(&bytes)?;
        Ok(true)
    }

    /// Adds the bytes of a damaged manifest again, if `spare` has them.
    fn heal(
        &self,
        session: &Session,
        damaged: Digest,
        spare: &Manifest,
    ) -> Result<bool, PackageError> {
        let bytes = spare.encode();
        if Digest::of(&bytes) != damaged {
            return Ok(false);
        }
        session.add_bytes(&bytes)?;
        Ok(true)
    }

    /// Commits the session with `new` as the package's next version. Versions that its retention
    /// does not keep any more go in the same commit, never those that channels point to.
    fn publish(&self, session: &Session, new: &NewVersion<'_>) -> Result<Made, PackageError> {
        let manifest = session.add_bytes(&new.manifest.encode())?.digest;
        for _ in 0..MAX_CONFLICTS {
            let Stored { record, found } = self.record(new.name)?;
            let mut record = record.next_revision();
            let info = self.info(new, manifest, record.next)?;
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
            changes.extend(delete_changes(new.name, &removed));
            let key = refs::package_key(new.name);
            changes.push(refs::set(key, None, &record, Expect::Is(found)));
            match session.commit(changes) {
                Ok(()) => {
                    self.inner.manifests.put(manifest, Arc::new(new.manifest.clone()));
                    return Ok(Made {
                        version: info.version,
                        manifest,
                        unchanged: false,
                        files_read: new.files_read,
                        removed,
                    });
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
        let info = self.info(new, manifest, record.next)?;
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
        manifest: Digest,
        version: u64,
    ) -> Result<VersionInfo, PackageError> {
        let (key, tree) = (self.signing_key()?, new.tree);
        Ok(VersionInfo {
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
        })
    }
}

/// The changes that take these versions away, whoever else may have done so.
pub(super) fn delete_changes<'a>(
    name: &'a PackageName,
    versions: &'a [u64],
) -> impl Iterator<Item = RefChange> + 'a {
    let delete = |version| {
        let name = refs::version_key(name, version);
        RefChange::Delete { name, expect: Expect::Any }
    };
    versions.iter().copied().map(delete)
}

fn version_change(info: &VersionInfo) -> RefChange {
    let key = refs::version_key(&info.package, info.version);
    refs::set(key, Some(info.manifest), info, Expect::Absent)
}
