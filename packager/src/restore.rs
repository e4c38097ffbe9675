//! Writing a version's tree to disk.
//!
//! Folders first, then files and links on all threads in the order of the manifest (which is how
//! they lie in the packs), then the modes and times of folders, innermost first. Each file is
//! written beside its place and renamed into it, so that a reader finds the old or the new one
//! whole. What is in the destination and right already is left alone.
//!
//! Always true: no symbolic link that lies in the destination is followed, and no byte is put in
//! place that was not checked against the manifest's digests.

mod content;
mod dest;
mod prune;

use crate::error::PackageError;
use crate::folder::Folder;
use crate::manifest::{Entry, Kind, Manifest};
use crate::name::{PackageName, Selector};
use crate::packages::Packages;
use crate::path::{self, Shown};
use contentlib::{Cancelled, CopyError, Library, Progress, ReadError};
use dest::Dest;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What happens to entries of the destination that the version does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// They stay.
    #[default]
    Keep,
    /// They are removed.
    Remove,
}

/// What a restore came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RestoreReport {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// Files in the tree.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Files and links that were written; the others were right already.
    pub written: u64,
    /// Bytes of those files.
    pub written_bytes: u64,
    /// Entries that were removed since the version does not have them.
    pub removed: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Why a version was not restored, or only part of it. What is in place is right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The version could not be found or read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The destination cannot be made or opened.
    #[error("cannot write to {dest:?}")]
    Dest {
        /// The destination.
        dest: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The destination is part of this site's own data, or would be emptied of it.
    #[error("{dest:?} holds this site's own data: restore to a folder of its own")]
    DestHoldsSite {
        /// The destination.
        dest: PathBuf,
    },
    /// An entry cannot be put in place.
    #[error("cannot write {path} in {dest:?}")]
    Entry {
        /// The destination.
        dest: PathBuf,
        /// The entry, as [`Shown`].
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A folder with other things in it is where the version has a file or link.
    #[error(
        "{path} in {dest:?} is a folder with entries of its own; remove it, or restore with prune"
    )]
    FolderInTheWay {
        /// The destination.
        dest: PathBuf,
        /// The entry, as [`Shown`].
        path: String,
    },
    /// A file's content cannot be read from the library.
    #[error("cannot read the content of {path}")]
    Content {
        /// The file, as [`Shown`].
        path: String,
        /// Why.
        source: ReadError,
    },
    /// The library's bytes are not those that the manifest names.
    #[error("the content of {path} is not what the manifest names; run `depot library verify`")]
    NotTheContent {
        /// The file, as [`Shown`].
        path: String,
    },
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Entries that a thread takes at once: a few blocks' worth of neighbours, so that threads do not
/// decode the same block.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: u64 = 8 << 20;
/// Files from this size on are written by all threads together.
const LARGE: u64 = 32 << 20;

impl Packages {
    /// Writes a version's tree to the folder `dest`, which is made if it is not there.
    pub fn restore(
        &self,
        name: &PackageName,
        version: &Selector,
        dest: &Path,
        extra: Extra,
        progress: &Progress,
    ) -> Result<RestoreReport, RestoreError> {
        let began = self.now();
        let info = self.resolve(name, version)?;
        let manifest = self.manifest(info.manifest)?;
        self.is_outside(dest, extra)?;
        let done =
            restore_tree(self.library(), &manifest, dest, extra, self.inner.n_threads, progress)?;
        Ok(RestoreReport {
            package: name.clone(),
            version: info.version,
            files: info.n_files,
            bytes: info.bytes,
            written: done.written.into_inner(),
            written_bytes: done.written_bytes.into_inner(),
            removed: done.removed.into_inner(),
            seconds: self.now().duration_since(began).as_secs_f64(),
        })
    }

    /// An error if a restore to `dest` would change the site's own data: written into, or removed
    /// since the version does not have it.
    fn is_outside(&self, dest: &Path, extra: Extra) -> Result<(), RestoreError> {
        let fail = |source| RestoreError::Dest { dest: dest.into(), source };
        let absolute = std::path::absolute(dest).map_err(fail)?;
        // What is not there yet will lie in the nearest folder that is.
        let lies_in = absolute.ancestors().find_map(|path| path.canonicalize().ok());
        let pruned = dest.canonicalize().ok().filter(|_| extra == Extra::Remove);
        let touched = |own: PathBuf| {
            lies_in.as_ref().is_some_and(|folder| folder.starts_with(&own))
                || pruned.as_ref().is_some_and(|folder| own.starts_with(folder))
        };
        match self.own_folders().any(touched) {
            true => Err(RestoreError::DestHoldsSite { dest: dest.into() }),
            false => Ok(()),
        }
    }
}

/// What was done so far.
#[derive(Default)]
pub(crate) struct Done {
    written: AtomicU64,
    written_bytes: AtomicU64,
    removed: AtomicU64,
}

/// One restore under way.
struct Restore<'a> {
    library: &'a Library,
    manifest: &'a Manifest,
    dest: Dest<'a>,
    extra: Extra,
    n_threads: usize,
    progress: &'a Progress,
    done: Done,
    failed: AtomicBool,
    failure: Mutex<Option<RestoreError>>,
}

/// Writes the tree of `manifest`, with contents from `library`, to `dest`.
pub(crate) fn restore_tree(
    library: &Library,
    manifest: &Manifest,
    dest: &Path,
    extra: Extra,
    n_threads: usize,
    progress: &Progress,
) -> Result<Done, RestoreError> {
    let fail = |source| RestoreError::Dest { dest: dest.into(), source };
    std::fs::create_dir_all(dest).map_err(fail)?;
    let folder = Folder::open(dest).map_err(fail)?;
    progress.total_files.fetch_add(manifest.n_files(), Relaxed);
    progress.total_bytes.fetch_add(manifest.bytes(), Relaxed);
    let restore = Restore {
        library,
        manifest,
        dest: Dest::new(dest, folder, manifest)?,
        extra,
        n_threads: n_threads.max(1),
        progress,
        done: Done::default(),
        failed: AtomicBool::new(false),
        failure: Mutex::default(),
    };
    restore.run()?;
    Ok(restore.done)
}

impl Restore<'_> {
    fn run(&self) -> Result<(), RestoreError> {
        let removed = self.dest.make_folders(self.manifest)?;
        self.done.removed.fetch_add(removed, Relaxed);
        let removed = prune::prune(&self.dest, self.manifest, self.extra)?;
        self.done.removed.fetch_add(removed, Relaxed);

        let (batches, large) = self.batches();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut place = dest::Place::default();
            while let Some(batch) = batches.get(next.fetch_add(1, Relaxed)) {
                for at in batch.clone() {
                    if self.failed.load(Relaxed) {
                        return;
                    }
                    if let Err(error) = self.put(at, &mut place) {
                        self.fail(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let extra_threads = self.n_threads.min(batches.len()).max(1) - 1;
            (0..extra_threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut place = dest::Place::default();
        for at in large {
            if self.failed.load(Relaxed) {
                break;
            }
            self.put(at, &mut place)?;
        }
        match self.failure.lock().take() {
            Some(error) => Err(error),
            None => self.dest.finish_folders(self.manifest),
        }
    }

    fn fail(&self, error: RestoreError) {
        self.failed.store(true, Relaxed);
        self.failure.lock().get_or_insert(error);
    }

    /// Runs of entries for one thread at a time, and the large files, which take all threads.
    fn batches(&self) -> (Vec<Range<usize>>, Vec<usize>) {
        let (mut batches, mut large) = (Vec::new(), Vec::new());
        let (mut start, mut bytes) = (0, 0);
        for (at, entry) in self.manifest.entries().enumerate() {
            let size = entry.file().map_or(0, |file| file.size);
            if size >= LARGE {
                batches.push(start..at);
                large.push(at);
                (start, bytes) = (at + 1, 0);
                continue;
            }
            if at - start == BATCH_ENTRIES || bytes + size > BATCH_BYTES {
                batches.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += size;
        }
        batches.push(start..self.manifest.len());
        batches.retain(|batch| !batch.is_empty());
        (batches, large)
    }

    /// Puts one entry in place; folders are there already.
    fn put(&self, at: usize, place: &mut dest::Place) -> Result<(), RestoreError> {
        let entry = self.manifest.entry(at);
        if entry.kind == Kind::Folder {
            return Ok(());
        }
        self.progress.check()?;
        let (folder, _) = path::split(entry.path);
        let here = |source| self.dest.entry_error(entry.path, source);
        let slot = place.enter(&self.dest, folder).map_err(here)?;
        let written = match entry.kind {
            Kind::Folder => false,
            Kind::Link { target } => slot.link(&entry, target, self.extra, &self.dest)?,
            Kind::File(file) => {
                let written = self.file(&entry, &file, slot)?;
                self.progress.files.fetch_add(1, Relaxed);
                self.progress.bytes.fetch_add(file.size, Relaxed);
                if written {
                    self.done.written_bytes.fetch_add(file.size, Relaxed);
                }
                written
            }
        };
        self.done.written.fetch_add(written.into(), Relaxed);
        Ok(())
    }

    fn file(
        &self,
        entry: &Entry<'_>,
        file: &crate::manifest::FileEntry,
        slot: dest::Slot<'_>,
    ) -> Result<bool, RestoreError> {
        let here = |source| self.dest.entry_error(entry.path, source);
        if slot.has_file(entry, file).map_err(here)? {
            return Ok(false);
        }
        let path = || Shown(entry.path).to_string();
        let part = slot.part().map_err(here)?;
        content::write(self.library, file, &part.file, self.n_threads).map_err(
            |error| match error {
                content::WriteError::Copy(CopyError::Write(source)) => here(source),
                content::WriteError::Copy(CopyError::Read(source)) => {
                    RestoreError::Content { path: path(), source }
                }
                _ => RestoreError::NotTheContent { path: path() },
            },
        )?;
        slot.put(part, entry, self.extra, &self.dest)?;
        Ok(true)
    }
}
