//! Updating a package from its source folder.

use crate::error::PackageError;
use crate::folder::Folder;
use crate::manifest::Manifest;
use crate::name::PackageName;
use crate::packages::{Guard, Made, NewVersion, Newest, Packages};
use crate::refs::{Source, SourceFolder};
use crate::scan::{Known, Rescan, Scan, ScanError, Snapshot};
use crate::statcache::StatCache;
use contentlib::{Digest, Progress};
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::PathBuf;
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

    /// Goes on with counts that were taken when an operation began: of new bytes and stored ones.
    pub(crate) fn resumed(
        progress: &'a Progress,
        (new_bytes, stored_bytes): (u64, u64),
        began: Timestamp,
    ) -> Self {
        Self { progress, new_bytes, stored_bytes, began }
    }

    pub(crate) fn new_bytes(&self) -> u64 {
        self.progress.new_bytes.load(Relaxed) - self.new_bytes
    }

    /// What the operation came to, of which `made` is the end and `manifest` the tree.
    pub(crate) fn report(
        &self,
        package: &PackageName,
        made: Made,
        manifest: &Manifest,
        now: Timestamp,
    ) -> UpdateReport {
        let stored_bytes = self.progress.stored_bytes.load(Relaxed) - self.stored_bytes;
        let new_bytes = self.new_bytes();
        let bytes = manifest.bytes();
        let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
        UpdateReport {
            package: package.clone(),
            version: made.version,
            unchanged: made.unchanged,
            files: manifest.n_files(),
            bytes,
            files_read: made.files_read,
            new_bytes,
            stored_bytes,
            dedup_ratio: ratio(bytes, new_bytes),
            compression_ratio: ratio(new_bytes, stored_bytes),
            removed_versions: made.removed,
            seconds: now.duration_since(self.began).as_secs_f64(),
        }
    }
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
        let known = match (&newest, options.rescan) {
            (Some(Newest { info, manifest: Some(manifest) }), Rescan::Changed) => {
                cache.read(&path, info.manifest, manifest).map(|rows| Known { manifest, rows })
            }
            _ => None,
        };
        let rows = known.as_ref().map(|known| known.rows.clone());
        let session = self.library().session();
        let scan = Scan {
            folder: &folder,
            contents: &session,
            progress,
            clock: &*self.inner.clock,
            n_threads: self.inner.n_threads,
            guess: newest.as_ref().and_then(|newest| newest.manifest.as_deref()),
        };
        let before = newest.as_ref().map(|newest| newest.info.tree);
        let snapshot = scan.run(self.without_distrusted(known)?, before)?;
        if snapshot.fetch_state {
            tracing::info!(package = %name, source = ?path, "left out what a fetch keeps in it");
        }
        session.keep(snapshot.manifest.digests().iter().copied());
        let new = NewVersion {
            name,
            manifest: &snapshot.manifest,
            tree: snapshot.tree,
            source: new_source,
            files_read: snapshot.n_read,
            new_bytes: tally.new_bytes(),
        };
        let made = self.make(&session, newest.as_ref(), &new)?;
        if rows.as_ref() != Some(&snapshot.rows) {
            remember(&cache, &path, made.manifest, &snapshot);
        }
        Ok(tally.report(name, made, &snapshot.manifest, self.now()))
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
            (None, Source::Site) => Err(PackageError::Replica),
            (None, Source::Composed) => Err(PackageError::TakesUpstream(guard.name().clone())),
            (None, Source::Upload) => Err(PackageError::TakesUploads(guard.name().clone())),
        }
    }

    /// Of what is known, nothing of contents that must not be taken over unread: damaged ones,
    /// which reading heals, and revoked ones, which must not come into another version.
    fn without_distrusted<'a>(
        &self,
        known: Option<Known<'a>>,
    ) -> Result<Option<Known<'a>>, PackageError> {
        let Some(mut known) = known else { return Ok(None) };
        let library = self.library();
        let revoked = library.revocations().into_iter().map(|(digest, _)| digest);
        let mut distrusted: HashSet<Digest> = revoked.collect();
        if !library.suspects()?.is_empty() {
            let mut contents = known.manifest.digests().to_vec();
            contents.retain(|digest| !distrusted.contains(digest));
            let missing = library.missing_contents(&contents)?;
            let both = contents.into_iter().zip(missing);
            distrusted.extend(both.filter_map(|(content, missing)| missing.then_some(content)));
        }
        known.distrust(&distrusted);
        Ok(Some(known))
    }
}

/// Remembers what the files looked like. Failing is no error: they are read again next time.
fn remember(cache: &StatCache, source: &std::path::Path, version: Digest, snapshot: &Snapshot) {
    if let Err(error) = cache.write(source, version, &snapshot.rows) {
        tracing::warn!(%error, "cannot write the stat cache; the next update reads all files");
    }
}
