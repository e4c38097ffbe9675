//! Updating a package from its source folder.

use crate::error::PackageError;
use crate::folder::Folder;
use crate::manifest::Manifest;
use crate::name::{PackageName, Selector};
use crate::packages::{Guard, NewVersion, Packages, Published};
use crate::refs::{Source, SourceFolder};
use crate::scan::{Known, Rescan, Scan, ScanError, Snapshot};
use crate::sign::VersionInfo;
use crate::statcache::StatCache;
use contentlib::{Digest, Progress};
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What to update a package from.
#[derive(Clone, Debug, Default)]
pub struct UpdateOptions {
    /// The package's source from now on; without one, the source it has.
    pub source: Option<PathBuf>,
    /// Which files are read.
    pub rescan: Rescan,
}

/// What an update or an upload came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct UpdateReport {
    /// The package.
    pub package: PackageName,
    /// Its newest version.
    pub version: u64,
    /// The tree is that of the version before: no version was made.
    pub unchanged: bool,
    /// Files in the tree.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Files that were read or received.
    pub files_read: u64,
    /// Bytes of them that the library did not hold before.
    pub new_bytes: u64,
    /// What those take in the library, compressed.
    pub stored_bytes: u64,
    /// `bytes` to one byte that was new; nothing if none was.
    pub dedup_ratio: Option<f64>,
    /// New bytes to one byte stored; nothing if none was.
    pub compression_ratio: Option<f64>,
    /// Versions that went, by the package's retention.
    pub removed_versions: Vec<u64>,
    /// How long it took.
    pub seconds: f64,
}

/// Counts what one operation adds to counters that may have been used before.
pub(crate) struct Tally<'a> {
    progress: &'a Progress,
    new_bytes: u64,
    stored_bytes: u64,
    began: Timestamp,
}

impl<'a> Tally<'a> {
    pub(crate) fn begin(progress: &'a Progress, now: Timestamp) -> Self {
        let new_bytes = progress.new_bytes.load(Relaxed);
        let stored_bytes = progress.stored_bytes.load(Relaxed);
        Self { progress, new_bytes, stored_bytes, began: now }
    }

    pub(crate) fn new_bytes(&self) -> u64 {
        self.progress.new_bytes.load(Relaxed) - self.new_bytes
    }

    pub(crate) fn report(&self, end: &Ended<'_>, now: Timestamp) -> UpdateReport {
        let stored_bytes = self.progress.stored_bytes.load(Relaxed) - self.stored_bytes;
        let new_bytes = self.new_bytes();
        let bytes = end.manifest.bytes();
        let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
        UpdateReport {
            package: end.package.clone(),
            version: end.version,
            unchanged: end.unchanged,
            files: end.manifest.n_files(),
            bytes,
            files_read: end.files_read,
            new_bytes,
            stored_bytes,
            dedup_ratio: ratio(bytes, new_bytes),
            compression_ratio: ratio(new_bytes, stored_bytes),
            removed_versions: end.removed.clone(),
            seconds: now.duration_since(self.began).as_secs_f64(),
        }
    }
}

/// How an operation ended.
pub(crate) struct Ended<'a> {
    pub(crate) package: &'a PackageName,
    pub(crate) version: u64,
    pub(crate) unchanged: bool,
    pub(crate) manifest: &'a Manifest,
    pub(crate) files_read: u64,
    pub(crate) removed: Vec<u64>,
}

impl Packages {
    /// Takes the package's source as it is and makes it the next version, unless it is what the
    /// newest version is already.
    pub fn update(
        &self,
        name: &PackageName,
        options: &UpdateOptions,
        progress: &Progress,
    ) -> Result<UpdateReport, PackageError> {
        let guard = self.busy(name)?;
        let tally = Tally::begin(progress, self.now());
        let (path, new_source) = self.source(&guard, options)?;
        let open = |source| ScanError::Folder { path: path.clone(), source };
        let folder = Folder::open(&path).map_err(open)?;
        let newest = self.newest(name)?;
        let cache = StatCache::new(&self.inner.sources, name);
        let rows = match (&newest, options.rescan) {
            (Some((info, manifest)), Rescan::Changed) => cache.read(&path, info.manifest, manifest),
            _ => None,
        };
        let before = newest.as_ref().map(|(info, _)| info.tree);
        let known = match (&newest, rows.clone()) {
            (Some((_, manifest)), Some(rows)) => {
                let mut known = Known { manifest, rows };
                known.distrust(&self.distrusted(manifest)?);
                Some(known)
            }
            _ => None,
        };
        let session = self.library().session();
        let scan = Scan {
            folder: &folder,
            contents: &session,
            progress,
            clock: &*self.inner.clock,
            n_threads: self.inner.n_threads,
        };
        let snapshot = scan.run(known, before)?;
        let unchanged = newest.filter(|(info, _)| info.tree == snapshot.tree);
        let (version, manifest, removed) = match &unchanged {
            Some((info, _)) => {
                // Content that was damaged and read again is healed by this commit.
                if snapshot.n_read > 0 {
                    session.commit(Vec::new())?;
                }
                if let Some(source) = new_source {
                    self.set_source(name, source)?;
                }
                (info.version, info.manifest, Vec::new())
            }
            None => {
                session.keep(snapshot.manifest.digests().iter().copied());
                let new = NewVersion {
                    name,
                    manifest: &snapshot.manifest,
                    source: new_source,
                    new_bytes: tally.new_bytes(),
                };
                let Published { info, removed } = self.publish(&session, &new)?;
                (info.version, info.manifest, removed)
            }
        };
        if rows.as_ref() != Some(&snapshot.rows) {
            remember(&cache, &path, manifest, &snapshot);
        }
        let ended = Ended {
            package: name,
            version,
            unchanged: unchanged.is_some(),
            manifest: &snapshot.manifest,
            files_read: snapshot.n_read,
            removed,
        };
        Ok(tally.report(&ended, self.now()))
    }

    /// The folder to update from; and the package's new source, if it changes.
    fn source(
        &self,
        guard: &Guard,
        options: &UpdateOptions,
    ) -> Result<(PathBuf, Option<Source>), PackageError> {
        let source = self.record(guard.name())?.record.source;
        match (&options.source, source) {
            (Some(folder), source) => {
                let SourceFolder(path) = self.claim_source(guard, folder)?;
                let new = Source::Folder(SourceFolder(path.clone()));
                Ok((path, Some(new).filter(|new| *new != source)))
            }
            (None, Source::Folder(SourceFolder(path))) => Ok((path, None)),
            (None, Source::Upload) => Err(PackageError::TakesUploads(guard.name().clone())),
        }
    }

    /// The newest version of a package, if it has any.
    pub(crate) fn newest(
        &self,
        name: &PackageName,
    ) -> Result<Option<(VersionInfo, Arc<Manifest>)>, PackageError> {
        match self.resolve(name, &Selector::Latest) {
            Ok(info) => match self.manifest(info.manifest) {
                Ok(manifest) => Ok(Some((info, manifest))),
                // A damaged manifest must not keep the package from its next version.
                Err(error) => {
                    tracing::warn!(%error, package = %name, "all files are read again");
                    Ok(None)
                }
            },
            Err(PackageError::UnknownVersion { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Contents of a manifest that must not be taken over unread: damaged ones, which reading
    /// heals, and revoked ones, which must not come into another version.
    fn distrusted(&self, manifest: &Manifest) -> Result<HashSet<Digest>, PackageError> {
        let revoked = self.library().revocations();
        let mut found: HashSet<Digest> = revoked.into_iter().map(|(digest, _)| digest).collect();
        if !self.library().suspects()?.is_empty() {
            let others = |digest: &Digest| !found.contains(digest);
            let contents: Vec<_> = manifest.digests().iter().copied().filter(others).collect();
            let missing = self.library().missing_contents(&contents)?;
            let both = contents.into_iter().zip(missing);
            found.extend(both.filter_map(|(content, missing)| missing.then_some(content)));
        }
        Ok(found)
    }
}

/// Remembers what the files looked like. Failing is no error: they are read again next time.
fn remember(cache: &StatCache, source: &std::path::Path, version: Digest, snapshot: &Snapshot) {
    if let Err(error) = cache.write(source, version, &snapshot.rows) {
        tracing::warn!(%error, "cannot write the stat cache; the next update reads all files");
    }
}
