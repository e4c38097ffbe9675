//! A package's next version from a tar stream, plain or in zstd: `PUT` by any HTTP client.
//!
//! The stream is read once, as it comes, in bounded memory, while the library stores its files on
//! all threads.
//! Whatever is wrong with the stream, nothing of it becomes visible: the session ends without a
//! commit, and its bytes are collected as garbage.

mod stream;
mod tree;

use crate::error::PackageError;
use crate::fetch_state::ReservedName;
use crate::manifest::{FileEntry, MAX_PATH_BYTES};
use crate::name::PackageName;
use crate::packages::{NewVersion, Packages};
use crate::path::{BadPath, Shown};
use crate::refs::Source;
use crate::update::{Tally, UpdateReport};
use contentlib::{AddError, AddOptions, Added, Cancelled, Progress, Recheck, Session};
use parking_lot::{Condvar, Mutex};
use std::io::{self, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use stream::{Broken, TarEntry, TarStream};
use tree::TarTree;

/// Files up to this size are read into memory and stored by several threads at once; a larger one
/// is stored by all of them together, as it comes in.
const SMALL: u64 = 4 << 20;
/// Bytes of files that may be in memory at once.
const MAX_WAITING: u64 = 32 << 20;

/// Why a stream made no version. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// It is no tar, or a damaged one.
    #[error("this is no whole tar archive: {0}")]
    Broken(String),
    /// It ends before its end mark.
    #[error("the archive is cut off; send it again")]
    CutOff,
    /// It is compressed in a way that is not taken.
    #[error("{0} is not taken here; send the tar plain or compressed with zstd")]
    Compression(&'static str),
    /// The stream could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// An entry cannot be part of a package.
    #[error("{path}: {why}")]
    Entry {
        /// Its name in the archive, as [`Shown`].
        path: String,
        /// What is wrong with it.
        why: BadEntry,
    },
    /// A file's content could not be added.
    #[error("cannot add {path}")]
    Add {
        /// Its name in the archive, as [`Shown`].
        path: String,
        /// Why.
        source: AddError,
    },
    /// The version could not be made.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// Why an entry of an archive cannot be part of a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEntry {
    /// Its path is outside the rules.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// Its name is taken.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
    /// It is neither file, folder nor link.
    #[error("it is {0}, which no package can hold")]
    Special(&'static str),
    /// A sparse file in GNU tar's own form.
    #[error("it is stored sparse; pack it without --sparse")]
    Sparse,
    /// A hard link to something that is not in the archive before it.
    #[error("it is a hard link to {0}, which is no file before it in the archive")]
    HardLink(String),
    /// There is an entry of that path already.
    #[error("the archive has this path twice")]
    Twice,
    /// The path leads through something that is no folder.
    #[error("it lies in something that is no folder")]
    NotInFolder,
    /// More entries than a package may have.
    #[error("the archive has too many entries")]
    TooMany,
    /// Longer names and targets than a package may have.
    #[error(
        "the names and link targets of the archive, with those of all folders, have more than \
         {MAX_PATH_BYTES} bytes together"
    )]
    TooMuchPath,
}

impl From<Broken> for TarError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Io(error) => Self::Read(error),
            Broken::CutOff => Self::CutOff,
            Broken::Header(what) => Self::Broken(what),
        }
    }
}

impl Packages {
    /// Makes the tree of a tar stream the next version of a package that takes uploads, unless it
    /// is what the newest version is already.
    pub fn put_tar(
        &self,
        name: &PackageName,
        archive: impl Read + Send,
        progress: &Progress,
    ) -> Result<UpdateReport, TarError> {
        let _guard = self.busy(name)?;
        self.takes_uploads(name)?;
        let tally = Tally::begin(progress, self.now());
        let session = self.library().session();
        let stream = TarStream::new(open(archive)?);
        let (tree, files) = store(&session, stream, progress)?;
        let manifest = tree.manifest(&files).map_err(PackageError::from)?;
        let new = NewVersion {
            name,
            manifest: &manifest,
            tree: manifest.tree_digest(),
            source: None,
            files_read: files.len() as u64,
            new_bytes: tally.new_bytes(),
        };
        let made = self.make(&session, self.newest(name)?.as_ref(), &new)?;
        Ok(tally.report(name, made, &manifest, self.now()))
    }

    /// An error if the package reads from a folder: its next update would undo any upload.
    pub(crate) fn takes_uploads(&self, name: &PackageName) -> Result<(), PackageError> {
        self.signing_key()?;
        match self.record(name)?.record.source {
            Source::Upload => Ok(()),
            Source::Site => Err(PackageError::Replica),
            Source::Composed => Err(PackageError::TakesUpstream(name.clone())),
            Source::Folder(folder) => {
                Err(PackageError::TakesFolder { package: name.clone(), folder: folder.0 })
            }
        }
    }
}

/// The plain tar stream in `archive`, told by its first bytes.
fn open<'a>(archive: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, TarError> {
    let mut archive = BufReader::with_capacity(128 << 10, archive);
    let mut first = [0; 6];
    let mut n = 0;
    while n < first.len() {
        match archive.read(&mut first[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::Read(error)),
        }
    }
    let whole = Cursor::new(first).take(n as u64).chain(archive);
    match first {
        // RFC 8878, section 3.1: a frame, or one to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let decoder = zstd::stream::read::Decoder::new(whole).map_err(TarError::Read)?;
            Ok(Box::new(decoder))
        }
        [0x1f, 0x8b, ..] => Err(TarError::Compression("gzip")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(TarError::Compression("xz")),
        [b'B', b'Z', b'h', ..] => Err(TarError::Compression("bzip2")),
        _ => Ok(Box::new(whole)),
    }
}

/// Stores all files of the stream. Answers the tree, and the contents of its files.
fn store(
    session: &Session,
    mut stream: TarStream<impl Read + Send>,
    progress: &Progress,
) -> Result<(TarTree, Vec<FileEntry>), TarError> {
    let mut tree = TarTree::default();
    let mut contents = Contents::default();
    loop {
        let waiting = Waiting::default();
        let (to_library, files) = sync_channel::<Incoming<'_>>(1024);
        let found = std::thread::scope(|scope| {
            let contents = &mut contents;
            let adding = scope.spawn(move || contents.add(session, files, progress));
            let found = small_files(&mut stream, &mut tree, to_library, &waiting);
            // A panic goes on in this thread.
            let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            added.and(found)
        })?;
        let Found::Large(entry, at) = found else { break };
        let bytes = EntryBytes(&mut stream);
        let added = session.add_reader(bytes, &AddOptions::default(), progress);
        contents.take(at, &entry.path, added)?;
    }
    stream.finish()?;
    Ok((tree, contents.files.into_iter().flatten().collect()))
}

/// Where the reading of small files ended.
enum Found {
    /// At a file that is not small.
    Large(TarEntry, usize),
    /// At the end of the archive, or since the library takes no more.
    End,
}

/// Reads entries and hands their bytes over, up to the next large one.
fn small_files<'a>(
    stream: &mut TarStream<impl Read>,
    tree: &mut TarTree,
    to_library: SyncSender<Incoming<'a>>,
    waiting: &'a Waiting,
) -> Result<Found, TarError> {
    while let Some(entry) = stream.next()? {
        let bad = |why| TarError::Entry { path: Shown(&entry.path).to_string(), why };
        let Some(at) = tree.take(&entry).map_err(bad)? else { continue };
        if entry.size > SMALL {
            return Ok(Found::Large(entry, at));
        }
        let room = waiting.room(entry.size);
        let mut bytes = vec![0; entry.size as usize];
        let mut n = 0;
        while n < bytes.len() {
            n += stream.read(&mut bytes[n..])?;
        }
        let (path, size) = (entry.path, entry.size);
        if to_library.send(Incoming { at, path, size, bytes, _room: room }).is_err() {
            break;
        }
    }
    Ok(Found::End)
}

/// The contents of an archive's files, in its order, as far as they are stored.
#[derive(Default)]
struct Contents {
    files: Vec<Option<FileEntry>>,
}

impl Contents {
    /// Adds files as they come in.
    fn add(
        &mut self,
        session: &Session,
        files: Receiver<Incoming<'_>>,
        progress: &Progress,
    ) -> Result<(), TarError> {
        let mut failed = Ok(());
        let done = |file: Incoming<'_>, added| {
            let taken = self.take(file.at, &file.path, added);
            if failed.is_ok() {
                failed = taken;
            }
        };
        let ended = session.add_files(files.into_iter(), &AddOptions::default(), progress, done);
        ended.map_err(PackageError::from)?;
        failed
    }

    fn take(
        &mut self,
        at: usize,
        path: &[u8],
        added: Result<Added, AddError>,
    ) -> Result<(), TarError> {
        let Added { digest, size, recipe, .. } = added.map_err(|source| match source {
            AddError::Source(error) => Broken::from(error).into(),
            source => TarError::Add { path: Shown(path).to_string(), source },
        })?;
        self.files.resize(self.files.len().max(at + 1), None);
        self.files[at] = Some(FileEntry { size, digest, recipe });
        Ok(())
    }
}

/// Bytes of files that are in memory.
#[derive(Default)]
struct Waiting {
    bytes: Mutex<u64>,
    less: Condvar,
}

/// A file's share of the memory; given back when dropped.
struct Room<'a> {
    waiting: &'a Waiting,
    bytes: u64,
}

impl Waiting {
    /// Waits until there is room for so many bytes more.
    fn room(&self, bytes: u64) -> Room<'_> {
        let mut held = self.bytes.lock();
        while *held > 0 && *held + bytes > MAX_WAITING {
            self.less.wait(&mut held);
        }
        *held += bytes;
        Room { waiting: self, bytes }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.waiting.bytes.lock() -= self.bytes;
        self.waiting.less.notify_all();
    }
}

/// A small file on its way from the stream to the library.
struct Incoming<'a> {
    at: usize,
    path: Vec<u8>,
    size: u64,
    bytes: Vec<u8>,
    _room: Room<'a>,
}

impl contentlib::Source for Incoming<'_> {
    type Reader = Cursor<Vec<u8>>;

    fn open(&mut self) -> io::Result<Self::Reader> {
        Ok(Cursor::new(std::mem::take(&mut self.bytes)))
    }

    fn size_hint(&self) -> u64 {
        self.size
    }

    fn finish(&mut self, _: Self::Reader, _: u64) -> io::Result<Recheck> {
        Ok(Recheck::Same)
    }
}

/// The bytes of a stream's last entry.
struct EntryBytes<'a, R>(&'a mut TarStream<R>);

impl<R: Read> Read for EntryBytes<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|broken| match broken {
            Broken::Io(error) => error,
            Broken::CutOff | Broken::Header(_) => io::ErrorKind::UnexpectedEof.into(),
        })
    }
}

impl From<Cancelled> for TarError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Package(cancelled.into())
    }
}
