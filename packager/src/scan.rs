//! Taking a source folder as one snapshot.
//!
//! A scan looks at the whole tree, reads what is not known yet, and looks again. When the second
//! look sees exactly what the first saw and what was read, nothing changed in between: the tree
//! is as it really was at the moment between the two. Otherwise what changed is read again, a
//! bounded number of times; a source that never holds still is an error, never a mixture.
//!
//! A tree that turns out equal to the version before needs no second look: it makes no version.

use crate::folder::{FileStat, Folder};
use crate::manifest::{
    Entry, FileEntry, Kind, LINK_MODE, Manifest, ManifestBuilder, NotATree, TreeDigest,
};
use crate::path::Shown;
use crate::statcache::is_settled;
use crate::walk::{MAX_NAMED, Problems, Seen, Sighting, WalkError, What, Why, is_gone, walk};
use contentlib::{AddError, AddOptions, Added, Cancelled, Digest, Progress, Recheck, Session};
use jiff::Timestamp;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How often a source is looked at before it counts as one that never holds still.
const MAX_LOOKS: usize = 8;

/// Which source files are read again for the next version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rescan {
    /// Those whose size, times or inode differ from when they were last read.
    #[default]
    Changed,
    /// All. Finds files that were written with their times put back, and heals damaged content.
    Everything,
}

/// Why a source was not taken. Nothing of it became a version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// There is no such folder, or it cannot be opened.
    #[error("cannot open the source folder {path:?}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Entries that cannot be read or held.
    #[error("{} of the source cannot be taken: {}",
        if .0.total == 1 { "1 entry".into() } else { format!("{} entries", .0.total) }, .0)]
    Problems(Problems),
    /// It changed each time it was looked at.
    #[error("the source keeps changing while it is read ({}); try again when nothing writes to it",
        .paths.join(", "))]
    Moving {
        /// Some of the paths that changed, as [`Shown`].
        paths: Vec<String>,
    },
    /// A file's content could not be added.
    #[error("cannot add {path}")]
    Add {
        /// The file, as [`Shown`].
        path: String,
        /// Why.
        source: AddError,
    },
    /// The content library failed.
    #[error(transparent)]
    Library(AddError),
    /// The entries are over the limits of a manifest.
    #[error("the source is no tree that a package can hold")]
    Tree(#[from] NotATree),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<WalkError> for ScanError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Problems(problems) => Self::Problems(problems),
            WalkError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            WalkError::TooManyEntries => Self::Tree(NotATree::TooManyEntries),
        }
    }
}

/// Where the contents of a source go: into a library here, or to a server.
///
/// * `done` is called once for each file, in any order, with what became of it. A file that is
///   not given to `done` counts as not read, and is looked at again.
/// * An error ends the scan; nothing of the source becomes a version.
pub trait Contents {
    /// Reads `files` and takes their contents in.
    fn add(
        &self,
        files: &mut (dyn Iterator<Item = SourceFile<'_>> + Send),
        progress: &Progress,
        done: &mut (dyn FnMut(SourceFile<'_>, Result<Added, AddError>) + Send),
    ) -> Result<(), AddError>;
}

impl Contents for Session {
    fn add(
        &self,
        files: &mut (dyn Iterator<Item = SourceFile<'_>> + Send),
        progress: &Progress,
        done: &mut (dyn FnMut(SourceFile<'_>, Result<Added, AddError>) + Send),
    ) -> Result<(), AddError> {
        self.add_files(files, &AddOptions::default(), progress, done)
    }
}

/// Takes the folder `path` as one snapshot whose contents go to `contents`, and answers its tree.
/// For a client that pushes a folder; every file is read. What a fetch keeps in it
/// ([`crate::fetch_state::lies_in`]) is left out.
pub fn snapshot(
    path: &Path,
    contents: &dyn Contents,
    progress: &Progress,
) -> Result<Manifest, ScanError> {
    let fail = |source| ScanError::Folder { path: path.into(), source };
    let folder = Folder::open(path).map_err(fail)?;
    let n_threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    // What the files looked like is not kept, so it does not matter when they were read.
    let clock = &|| Timestamp::UNIX_EPOCH;
    let scan = Scan { folder: &folder, contents, progress, clock, n_threads, guess: None };
    Ok(scan.run(None, None)?.manifest)
}

/// What is known of a source from the version before: its manifest, and what its files looked
/// like when they were read; `None` for those to be read again.
pub(crate) struct Known<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) rows: Vec<Option<FileStat>>,
}

/// A source as it was at one moment.
pub(crate) struct Snapshot {
    pub(crate) manifest: Manifest,
    pub(crate) tree: TreeDigest,
    /// What the files looked like, in the manifest's order; `None` for those not to be trusted.
    pub(crate) rows: Vec<Option<FileStat>>,
    /// Files that were read.
    pub(crate) n_read: u64,
    /// What a fetch keeps in the source was left out.
    pub(crate) fetch_state: bool,
}

/// What a scan works with.
pub(crate) struct Scan<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) contents: &'a dyn Contents,
    pub(crate) progress: &'a Progress,
    pub(crate) clock: &'a dyn Fn() -> Timestamp,
    pub(crate) n_threads: usize,
    /// The version before. A file of the size it had there is hashed first, and need not be cut
    /// if nothing changed.
    pub(crate) guess: Option<&'a Manifest>,
}

impl Scan<'_> {
    /// Takes the source. `before` is the tree of the version before, if there is one.
    pub(crate) fn run(
        &self,
        known: Option<Known<'_>>,
        before: Option<TreeDigest>,
    ) -> Result<Snapshot, ScanError> {
        let mut last: Option<Look> = None;
        let mut n_read = 0;
        let mut moved = Vec::new();
        for _ in 0..MAX_LOOKS {
            let started = (self.clock)();
            let sighting = walk(self.folder, self.n_threads, self.progress)?;
            let mut look = Look::new(sighting);
            match &last {
                Some(last) => look.carry(last.files()),
                None => known.iter().for_each(|known| look.carry(known.files())),
            }
            let unread = look.unread();
            if unread.is_empty() {
                let steady = last.as_ref().is_some_and(|last| last.sighting == look.sighting);
                let manifest = look.manifest()?;
                let tree = manifest.tree_digest();
                if steady || before == Some(tree) {
                    let (rows, fetch_state) = (look.rows(), look.sighting.fetch_state);
                    return Ok(Snapshot { manifest, tree, rows, n_read, fetch_state });
                }
            }
            if let Some(last) = &last {
                moved = last.sighting.differences(&look.sighting);
            }
            n_read += unread.len() as u64;
            self.read(&mut look, unread, started)?;
            last = Some(look);
        }
        Err(ScanError::Moving { paths: moved })
    }

    /// Adds the contents of the files at `unread`. Files that are gone or keep changing stay
    /// unread; the next look will show what became of them.
    fn read(
        &self,
        look: &mut Look,
        unread: Vec<usize>,
        started: Timestamp,
    ) -> Result<(), ScanError> {
        let sighting = &look.sighting;
        let bytes = unread.iter().map(|&at| sighting.seen[at].stat.size).sum();
        self.progress.total_files.fetch_add(unread.len() as u64, Relaxed);
        self.progress.total_bytes.fetch_add(bytes, Relaxed);
        let unreadable = AtomicBool::new(false);
        let (folder, before) = (self.folder, self.guess);
        let source = |at| {
            let (path, seen) = (sighting.path(at), sighting.seen[at].stat);
            let known = before.and_then(|before| content_of(before, path, seen.size));
            SourceFile { folder, path, at, seen, known, unreadable: &unreadable, skipped: false }
        };
        let mut outcome = Outcome {
            seen: &sighting.seen,
            contents: &mut look.contents,
            started,
            changed: Vec::new(),
            problems: Problems::default(),
            failed: None,
        };
        let mut done = |file: SourceFile<'_>, added| outcome.take(file, added);
        let ended =
            self.contents.add(&mut unread.into_iter().map(source), self.progress, &mut done);
        let Outcome { changed, problems, failed, .. } = outcome;
        problems.none().map_err(ScanError::Problems)?;
        if let Some(error) = failed {
            return Err(error);
        }
        ended.map_err(|error| match error {
            AddError::Cancelled(cancelled) => ScanError::Cancelled(cancelled),
            error => ScanError::Library(error),
        })?;
        for (at, stat) in changed {
            look.sighting.seen[at].stat = stat;
        }
        Ok(())
    }
}

/// The content that a file of this size had in the version before.
fn content_of(before: &Manifest, path: &[u8], size: u64) -> Option<Digest> {
    let file = before.lookup(path)?.file()?;
    (file.size == size).then_some(file.digest)
}

/// One look at the source, with the contents of its files as far as they are known.
struct Look {
    sighting: Sighting,
    /// One an entry; `None` for what is no file.
    contents: Vec<Option<Content>>,
}

#[derive(Clone, Copy)]
struct Content {
    file: FileEntry,
    /// Whether the file's times tell it from itself written later.
    settled: bool,
}

/// A file whose content is known as long as it looks the same.
struct KnownFile<'a> {
    path: &'a [u8],
    stat: FileStat,
    content: Content,
}

impl Known<'_> {
    fn files(&self) -> impl Iterator<Item = KnownFile<'_>> {
        let files = self.manifest.entries().filter_map(|e| e.file().map(|file| (e.path, file)));
        files.zip(&self.rows).filter_map(|((path, file), stat)| {
            let content = Content { file, settled: true };
            stat.map(|stat| KnownFile { path, stat, content })
        })
    }

    /// Forgets files of these contents, so that they are read again.
    pub(crate) fn distrust(&mut self, contents: &HashSet<Digest>) {
        for (row, digest) in self.rows.iter_mut().zip(self.manifest.digests()) {
            if contents.contains(digest) {
                *row = None;
            }
        }
    }
}

impl Look {
    fn new(sighting: Sighting) -> Self {
        let contents = vec![None; sighting.len()];
        Self { sighting, contents }
    }

    fn files(&self) -> impl Iterator<Item = KnownFile<'_>> {
        self.contents.iter().enumerate().filter_map(|(at, content)| {
            let content = (*content)?;
            Some(KnownFile {
                path: self.sighting.path(at),
                stat: self.sighting.seen[at].stat,
                content,
            })
        })
    }

    /// Takes over the contents of files that look as they did. Both sides are in path order.
    fn carry<'a>(&mut self, known: impl Iterator<Item = KnownFile<'a>>) {
        let mut at = 0;
        for known in known {
            while at < self.sighting.len() && self.sighting.path(at) < known.path {
                at += 1;
            }
            if at == self.sighting.len() {
                return;
            }
            let seen = &self.sighting.seen[at];
            let same = seen.what == What::File && seen.stat == known.stat;
            if same && self.sighting.path(at) == known.path {
                self.contents[at] = Some(known.content);
            }
        }
    }

    fn unread(&self) -> Vec<usize> {
        let both = self.sighting.seen.iter().zip(&self.contents).enumerate();
        let is_unread = |(_, (seen, content)): &(usize, (&Seen, &Option<Content>))| {
            seen.what == What::File && content.is_none()
        };
        both.filter(is_unread).map(|(at, _)| at).collect()
    }

    /// The tree, once nothing is unread.
    fn manifest(&self) -> Result<Manifest, NotATree> {
        let mut builder = ManifestBuilder::with_capacity(self.sighting.len());
        for (at, (seen, content)) in self.sighting.seen.iter().zip(&self.contents).enumerate() {
            let (mode, kind) = match (&seen.what, content) {
                (What::Folder, _) => (seen.mode, Kind::Folder),
                (What::Link(target), _) => (LINK_MODE, Kind::Link { target }),
                (What::File, content) => {
                    let content = content.expect("nothing is unread");
                    (seen.mode, Kind::File(content.file))
                }
            };
            let path = self.sighting.path(at);
            builder.push(Entry { path, mode, mtime: seen.stat.mtime, kind })?;
        }
        Ok(builder.finish())
    }

    fn rows(&self) -> Vec<Option<FileStat>> {
        let both = self.sighting.seen.iter().zip(&self.contents);
        both.filter_map(|(seen, content)| content.map(|c| c.settled.then_some(seen.stat))).collect()
    }
}

impl Sighting {
    /// Some of the paths that are not the same in both.
    fn differences(&self, other: &Sighting) -> Vec<String> {
        let mut paths = Vec::new();
        let (mut a, mut b) = (0, 0);
        while (a < self.len() || b < other.len()) && paths.len() < MAX_NAMED {
            let order = match (a < self.len(), b < other.len()) {
                (true, true) => self.path(a).cmp(other.path(b)),
                (true, false) => std::cmp::Ordering::Less,
                (false, _) => std::cmp::Ordering::Greater,
            };
            let path = if order.is_gt() { other.path(b) } else { self.path(a) };
            if order.is_ne() || self.seen[a] != other.seen[b] {
                paths.push(Shown(path).to_string());
            }
            a += usize::from(order.is_le());
            b += usize::from(order.is_ge());
        }
        paths
    }
}

/// What became of the files that were read.
struct Outcome<'a> {
    seen: &'a [Seen],
    contents: &'a mut [Option<Content>],
    started: Timestamp,
    /// What files looked like when they were read, if not as they were seen.
    changed: Vec<(usize, FileStat)>,
    problems: Problems,
    failed: Option<ScanError>,
}

impl Outcome<'_> {
    fn take(&mut self, file: SourceFile<'_>, added: Result<Added, AddError>) {
        match added {
            Ok(Added { digest, size, recipe, .. }) => {
                let settled = is_settled(&file.seen, self.started);
                let content = FileEntry { size, digest, recipe };
                self.contents[file.at] = Some(Content { file: content, settled });
                if file.seen != self.seen[file.at].stat {
                    self.changed.push((file.at, file.seen));
                }
            }
            Err(AddError::Moved) => {}
            Err(AddError::Source(_)) if file.skipped => {}
            Err(AddError::Source(error)) if is_gone(Errno::from_io_error(&error)) => {}
            Err(AddError::Source(error)) => {
                file.unreadable.store(true, Relaxed);
                self.problems.add(file.path, Why::Unreadable(error));
            }
            Err(AddError::Cancelled(cancelled)) => self.failed = Some(cancelled.into()),
            Err(source) => {
                let path = Shown(file.path).to_string();
                self.failed.get_or_insert(ScanError::Add { path, source });
            }
        }
    }
}

/// A file of the source, as contentlib reads it.
pub struct SourceFile<'a> {
    folder: &'a Folder,
    path: &'a [u8],
    at: usize,
    /// What it looked like, first when it was seen and then when it was opened.
    seen: FileStat,
    known: Option<Digest>,
    /// Some file could not be read: the scan has failed and only looks for more of them.
    unreadable: &'a AtomicBool,
    skipped: bool,
}

impl contentlib::Source for SourceFile<'_> {
    type Reader = File;

    fn open(&mut self) -> io::Result<File> {
        let file = self.folder.open_at(self.path, OFlags::RDONLY)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            // Something else took its place since it was seen.
            return Err(Errno::STALE.into());
        }
        if self.unreadable.load(Relaxed) {
            self.skipped = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.seen = FileStat::from(&stat);
        Ok(file.into())
    }

    fn size_hint(&self) -> u64 {
        self.seen.size
    }

    fn known(&self) -> Option<Digest> {
        self.known
    }

    fn finish(&mut self, file: File, bytes_read: u64) -> io::Result<Recheck> {
        let now = FileStat::from(&fstat(&file)?);
        let same = now == self.seen && bytes_read == now.size;
        Ok(if same { Recheck::Same } else { Recheck::Moved })
    }
}
