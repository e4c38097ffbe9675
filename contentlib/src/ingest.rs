//! Ingest: bytes from files and streams become chunks, blocks and contents.
//!
//! Each thread takes a file, reads, cuts and hashes it, and compresses the blocks of chunks that
//! are new. When there are fewer files than threads, blocks are handed to the idle ones, so that
//! one large file keeps every core busy as well. Memory is bounded: a few read buffers and blocks
//! a thread, whatever the size of the files.
//!
//! Blocks run across files: neighbours in a tree resemble each other, and a small file by itself
//! compresses badly.

mod buffers;
mod rebuilt;
mod unnamed;
mod whole;

use self::buffers::{BUFFER, Buffers};
use self::unnamed::Unnamed;
use self::whole::{WAITING, WholeHash};
use crate::block::{MAX_BLOCK_CHUNKS, PACKED_TARGET, RAW_TARGET, looks_compressible, with_packed};
use crate::chunker::{Chunker, MAX_CHUNK, MIN_CHUNK};
use crate::digest::{ChunkId, Digest, Name};
use crate::error::AddError;
use crate::index::{ChunkPlace, Standing};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::session::{Session, store_error};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A content that may be this long begins a raw block, whose chunks begin at a page's beginning;
/// what padding and shorter blocks cost is below half a percent of it.
const OWN_BLOCK: u64 = 512 << 10;
/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// Where a content's bytes come from.
pub trait Source: Send {
    /// What it is read through.
    type Reader: Read;
    /// Opens it from the start. Called again if it moved.
    fn open(&mut self) -> io::Result<Self::Reader>;
    /// Its length in bytes, as far as known.
    fn size_hint(&self) -> u64;
    /// The content that it held when it was last added, if that is known. It is then only read
    /// and hashed; if it is the same it need not be cut.
    fn known(&self) -> Option<Digest> {
        None
    }
    /// Whether more of it may be long in coming, as from a client. What was read is then stored
    /// before more is waited for: others may have the same chunks, and wait for those on their way.
    fn waits(&self) -> bool {
        false
    }
    /// Called after its last byte: whether it is still what was opened.
    fn finish(&mut self, reader: Self::Reader, bytes_read: u64) -> io::Result<Recheck>;
}

/// Whether a source stood still while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// It did.
    Same,
    /// It changed: what was read may be a mix.
    Moved,
}

/// Other names to compute. Each costs about half a second a GB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// SHA-256.
    pub sha256: bool,
    /// SHA-1.
    pub sha1: bool,
}

/// What to do with contents beside storing them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// Other names to compute and remember.
    pub aliases: Aliases,
    /// What the source states the bytes to be.
    pub expect: Option<Name>,
}

/// A content that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many chunks it is cut into.
    pub n_chunks: u64,
    /// How many of its bytes were not held before.
    pub new_bytes: u64,
    /// The digest of its recipe, if it has more than one chunk.
    pub recipe: Option<Digest>,
    /// Its SHA-256, if that was asked for.
    pub sha256: Option<[u8; 32]>,
    /// Its SHA-1, if that was asked for.
    pub sha1: Option<[u8; 20]>,
}

impl Session {
    /// Adds many files on all threads. `done` hears of each, in any order; a file that cannot be
    /// read is told there and does not stop the others. Ends early only when the library fails or
    /// the work is cancelled.
    pub fn add_files<S: Source>(
        &self,
        files: impl Iterator<Item = S> + Send,
        options: &AddOptions,
        progress: &Progress,
        done: impl FnMut(S, Result<Added, AddError>) + Send,
    ) -> Result<(), AddError> {
        let work = Work {
            session: self,
            options: *options,
            progress,
            chunker: Chunker::default(),
            buffers: Arc::default(),
            jobs: Mutex::default(),
            changed: Condvar::new(),
            files_left: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            failure: Mutex::default(),
        };
        let files = Mutex::new(files);
        let done = Mutex::new(done);
        let threads = self.inner().options.threads.max(1);
        work.jobs.lock().cutting = threads;
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work.run(&files, &done));
            }
            work.run(&files, &done);
        });
        match work.failure.into_inner() {
            Some(error) => Err(error),
            None => self.append_recipes(true),
        }
    }

    /// Adds one content from a reader.
    pub fn add_reader(
        &self,
        reader: impl Read + Send,
        options: &AddOptions,
        progress: &Progress,
    ) -> Result<Added, AddError> {
        let mut added = Err(AddError::Interrupted);
        let one = std::iter::once(Stream(Some(reader)));
        self.add_files(one, options, progress, |_, result| added = result)?;
        added
    }

    /// Adds one content from memory.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<Added, AddError> {
        self.add_reader(bytes, &AddOptions::default(), &Progress::default())
    }
}

/// A source that can be read once.
struct Stream<R>(Option<R>);

impl<R: Read + Send> Source for Stream<R> {
    type Reader = R;
    fn open(&mut self) -> io::Result<R> {
        self.0.take().ok_or_else(|| io::Error::other("a stream can be read only once"))
    }
    fn size_hint(&self) -> u64 {
        BUFFER as u64
    }
    fn waits(&self) -> bool {
        true
    }
    fn finish(&mut self, _: R, _: u64) -> io::Result<Recheck> {
        Ok(Recheck::Same)
    }
}

/// Chunks to store as one block. Their claims end if it is dropped before that.
struct Job<'a> {
    session: &'a Session,
    ids: Vec<ChunkId>,
    plain: Vec<Bytes>,
    try_zstd: bool,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.ids.iter().for_each(|id| self.session.inner().claims.end(*id));
    }
}

/// Collects chunks for the next block.
struct Builder<'a> {
    session: &'a Session,
    ids: Vec<ChunkId>,
    plain: Vec<Bytes>,
    bytes: usize,
    try_zstd: bool,
    target: usize,
}

impl<'a> Builder<'a> {
    fn new(session: &'a Session, try_zstd: bool, target: usize) -> Self {
        Self { session, ids: Vec::new(), plain: Vec::new(), bytes: 0, try_zstd, target }
    }

    /// Adds a chunk. Returns a block if it is time for one.
    fn push(&mut self, id: ChunkId, chunk: Bytes) -> Option<Job<'a>> {
        let full = self.bytes + chunk.len() > self.target || self.ids.len() == MAX_BLOCK_CHUNKS;
        let job = if full { self.take() } else { None };
        self.bytes += chunk.len();
        self.ids.push(id);
        self.plain.push(chunk);
        job
    }

    fn take(&mut self) -> Option<Job<'a>> {
        self.bytes = 0;
        let (session, try_zstd) = (self.session, self.try_zstd);
        let ids = std::mem::take(&mut self.ids);
        let plain = std::mem::take(&mut self.plain);
        (!ids.is_empty()).then_some(Job { session, ids, plain, try_zstd })
    }
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[derive(Default)]
struct Jobs<'a> {
    queue: VecDeque<Job<'a>>,
    /// Chunks that a thread is hashing and could use help with.
    unnamed: Option<Arc<Unnamed>>,
    /// Contents of which chunks wait to be hashed into the whole.
    hashes: VecDeque<Arc<WholeHash>>,
    /// Threads that may still queue jobs.
    cutting: usize,
}

struct Work<'a> {
    session: &'a Session,
    options: AddOptions,
    progress: &'a Progress,
    chunker: Chunker,
    buffers: Arc<Buffers>,
    jobs: Mutex<Jobs<'a>>,
    changed: Condvar,
    files_left: AtomicBool,
    stopped: AtomicBool,
    failure: Mutex<Option<AddError>>,
}

/// What one thread collects across files.
struct Builders<'a> {
    packed: Builder<'a>,
    raw: Builder<'a>,
}

impl<'a> Work<'a> {
    fn run<S: Source>(
        &self,
        files: &Mutex<impl Iterator<Item = S> + Send>,
        done: &Mutex<impl FnMut(S, Result<Added, AddError>) + Send>,
    ) {
        let mut builders = Builders {
            packed: Builder::new(self.session, true, PACKED_TARGET),
            raw: Builder::new(self.session, false, RAW_TARGET),
        };
        while !self.stopped.load(Relaxed) {
            let next = files.lock().next();
            let Some(mut source) = next else {
                self.files_left.store(false, Relaxed);
                break;
            };
            match self.file(&mut source, &mut builders) {
                Err(error) if is_fatal(&error) => self.fail(error),
                result => {
                    self.progress.add(&self.progress.files, 1);
                    done.lock()(source, result);
                }
            }
        }
        for job in [builders.packed.take(), builders.raw.take()].into_iter().flatten() {
            self.store(job);
        }
        drop(builders);
        self.help();
    }

    /// Stores blocks of others until nobody cuts any more.
    fn help(&self) {
        let mut jobs = self.jobs.lock();
        jobs.cutting -= 1;
        self.changed.notify_all();
        loop {
            if let Some(unnamed) = jobs.unnamed.take() {
                drop(jobs);
                unnamed.help();
                jobs = self.jobs.lock();
            } else if let Some(job) = jobs.queue.pop_front() {
                drop(jobs);
                self.store(job);
                jobs = self.jobs.lock();
            } else if let Some(whole) = jobs.hashes.pop_front() {
                drop(jobs);
                whole.catch_up();
                jobs = self.jobs.lock();
            } else if jobs.cutting == 0 {
                return;
            } else {
                self.changed.wait(&mut jobs);
            }
        }
    }

    fn fail(&self, error: AddError) {
        self.stopped.store(true, Relaxed);
        self.failure.lock().get_or_insert(error);
    }

    /// Stores a block here, or leaves it to an idle thread.
    fn submit(&self, job: Job<'a>) {
        if !self.files_left.load(Relaxed) {
            let mut jobs = self.jobs.lock();
            let idle = self.session.inner().options.threads.max(1) - jobs.cutting;
            if jobs.queue.len() < 2 * idle {
                jobs.queue.push_back(job);
                self.changed.notify_one();
                return;
            }
        }
        self.store(job);
    }

    fn store(&self, mut job: Job<'a>) {
        if self.stopped.load(Relaxed) {
            return;
        }
        // From here on the claims are the appended block's.
        let ids = std::mem::take(&mut job.ids);
        let appended =
            with_packed(&job.plain, job.try_zstd, |block| self.session.append_block(block, &ids));
        let stored = appended.and_then(|stored| {
            self.progress.add(&self.progress.stored_bytes, stored);
            if self.session.inner().writer.lock().pending_chunks > crate::commit::MUCH {
                self.session.append_recipes(false)?;
                self.session.inner().commit_if_much().map_err(store_error)?;
            }
            Ok(())
        });
        if let Err(error) = stored {
            self.fail(error);
        }
    }

    /// Adds one file, and again if it moved.
    fn file<S: Source>(
        &self,
        source: &mut S,
        builders: &mut Builders<'a>,
    ) -> Result<Added, AddError> {
        if let Some(known) = source.known()
            && let Some(same) = self.same(source, known)?
        {
            return Ok(same);
        }
        for _ in 0..TRIES {
            let mut reader = source.open().map_err(AddError::Source)?;
            let mut content = Content::new(&self.options, source.size_hint());
            content.waits = source.waits();
            self.read(&mut reader, &mut content, builders)?;
            let size = content.size;
            match source.finish(reader, size).map_err(AddError::Source)? {
                Recheck::Same => return self.finish(content),
                Recheck::Moved => {}
            }
        }
        Err(AddError::Moved)
    }

    /// Reads a file that is expected to be `known`. `None` if it is not, or no longer whole in
    /// the library.
    fn same<S: Source>(&self, source: &mut S, known: Digest) -> Result<Option<Added>, AddError> {
        let inner = self.session.inner();
        if self.options != AddOptions::default() || inner.revoked.read().contains(known) {
            return Ok(None);
        }
        let held = match inner.index.recipe(known)? {
            Some(place) if place.standing == Standing::Live => {
                let recipe = inner.recipe_at(known, place);
                let recipe = recipe.map_err(|error| AddError::Read(Box::new(error)))?;
                let places = inner.index.chunks(recipe.chunks())?;
                let live = |place: &Option<ChunkPlace>| {
                    place.is_some_and(|place| place.standing == Standing::Live)
                };
                places.iter().all(live).then(|| (recipe.len() as u64, Some(recipe.digest())))
            }
            Some(_) => None,
            None => {
                let place = inner.index.chunk(ChunkId(known))?;
                place.filter(|place| place.standing == Standing::Live).map(|_| (1, None))
            }
        };
        let Some((n_chunks, recipe)) = held else { return Ok(None) };
        let mut reader = source.open().map_err(AddError::Source)?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        let mut buffer = self.buffers.take(source.size_hint().saturating_add(1));
        loop {
            let n = fill(&mut reader, &mut buffer.bytes)?;
            self.progress.check()?;
            hasher.update(&buffer.bytes[..n]);
            size += n as u64;
            if n < buffer.bytes.len() {
                break;
            }
        }
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        let recheck = source.finish(reader, size).map_err(AddError::Source)?;
        if found != known || recheck == Recheck::Moved {
            return Ok(None);
        }
        self.progress.add(&self.progress.bytes, size);
        self.session.relied.lock().push(known);
        let new_bytes = 0;
        Ok(Some(Added {
            digest: known,
            size,
            n_chunks,
            new_bytes,
            recipe,
            sha256: None,
            sha1: None,
        }))
    }

    fn read(
        &self,
        reader: &mut impl Read,
        content: &mut Content,
        builders: &mut Builders<'a>,
    ) -> Result<(), AddError> {
        let size_hint = content.size_hint;
        if size_hint < MIN_CHUNK as u64 {
            // One byte more than expected, so that a short read is the end.
            let mut bytes = vec![0; size_hint as usize + 1];
            let n = fill(reader, &mut bytes)?;
            if n < bytes.len() {
                bytes.truncate(n);
                self.progress.add(&self.progress.bytes, n as u64);
                return if n > 0 {
                    let id = ChunkId(Digest::of(&bytes));
                    self.chunk(id, bytes.into(), true, content, builders)
                } else {
                    Ok(())
                };
            }
            return self.read_long(reader, &bytes, BUFFER as u64, content, builders);
        }
        self.read_long(reader, &[], size_hint, content, builders)
    }

    /// Reads a file that begins with `already` and has about `left` bytes more.
    fn read_long(
        &self,
        reader: &mut impl Read,
        already: &[u8],
        left: u64,
        content: &mut Content,
        builders: &mut Builders<'a>,
    ) -> Result<(), AddError> {
        let mut rest = Bytes::copy_from_slice(already);
        // One byte more than expected, so that a short read is the end.
        let mut wanted = left.saturating_add(1 + already.len() as u64);
        loop {
            let mut buffer = self.buffers.take(wanted);
            wanted = BUFFER as u64;
            buffer.bytes[..rest.len()].copy_from_slice(&rest);
            let held = rest.len();
            let n = fill(reader, &mut buffer.bytes[held..])?;
            self.progress.check()?;
            self.progress.add(&self.progress.bytes, n as u64);
            buffer.used = held + n;
            let at_end = buffer.used < buffer.bytes.len();
            rest = Bytes::from_owner(buffer);
            // Each with whether it is the content's last.
            let chunks = std::iter::from_fn(|| {
                let is_enough = rest.len() >= MAX_CHUNK || (at_end && !rest.is_empty());
                let chunk = is_enough.then(|| rest.split_to(self.chunker.cut(&rest)))?;
                Some((chunk, at_end && rest.is_empty()))
            });
            if self.files_left.load(Relaxed) {
                // All threads are busy; and what was just cut is still in this core's cache.
                for (chunk, last) in chunks {
                    self.chunk(ChunkId(Digest::of(&chunk)), chunk, last, content, builders)?;
                }
            } else {
                let (chunks, lasts): (Vec<_>, Vec<_>) = chunks.unzip();
                let unnamed = Arc::new(Unnamed::new(chunks));
                self.jobs.lock().unnamed = Some(unnamed.clone());
                self.changed.notify_one();
                for ((id, chunk), last) in unnamed.named().zip(lasts) {
                    self.chunk(id, chunk.clone(), last, content, builders)?;
                }
            }
            if at_end {
                return Ok(());
            }
            if content.waits {
                let jobs = [builders.packed.take(), builders.raw.take()];
                jobs.into_iter().flatten().for_each(|job| self.submit(job));
            }
            if self.stopped.load(Relaxed) {
                return Err(AddError::Interrupted);
            }
        }
    }

    /// Takes in the next chunk of a content. `last` if no other follows.
    fn chunk(
        &self,
        id: ChunkId,
        bytes: Bytes,
        last: bool,
        content: &mut Content,
        builders: &mut Builders<'a>,
    ) -> Result<(), AddError> {
        let first = content.chunks.is_empty();
        content.take(id, &bytes, last);
        if let Some(whole) = &content.whole {
            self.hash_whole(whole, &bytes);
        }
        if !self.session.claim(id)? {
            return Ok(());
        }
        content.new_bytes += bytes.len() as u64;
        self.progress.add(&self.progress.new_bytes, bytes.len() as u64);
        let builder = if looks_compressible(&bytes) {
            &mut builders.packed
        } else {
            if first && content.size_hint >= OWN_BLOCK {
                builders.raw.take().into_iter().for_each(|job| self.submit(job));
            }
            &mut builders.raw
        };
        if let Some(job) = builder.push(id, bytes) {
            self.submit(job);
        }
        Ok(())
    }

    /// Hashes a chunk into its whole content, here or on an idle thread.
    fn hash_whole(&self, whole: &Arc<WholeHash>, bytes: &Bytes) {
        let n_waiting = {
            let mut waiting = whole.waiting.lock();
            waiting.push_back(bytes.clone());
            waiting.len()
        };
        if self.files_left.load(Relaxed) || n_waiting > WAITING {
            whole.drain(whole.hasher.lock());
        } else if n_waiting == 1 {
            self.jobs.lock().hashes.push_back(whole.clone());
            self.changed.notify_one();
        }
    }

    fn finish(&self, content: Content) -> Result<Added, AddError> {
        let size = content.size;
        let new_bytes = content.new_bytes;
        let sha256 = content.sha256.map(|hasher| <[u8; 32]>::from(hasher.finalize()));
        let sha1 = content.sha1.map(|hasher| <[u8; 20]>::from(hasher.finalize()));
        let recipe = Recipe::new(content.chunks)?;
        let digest = match (content.whole, recipe.chunks()) {
            (Some(whole), _) => whole.finish(),
            (None, [one]) => one.0,
            (None, _) => Digest::EMPTY,
        };
        let inner = self.session.inner();
        if inner.revoked.read().contains(digest) {
            return Err(AddError::Revoked(digest));
        }
        let found = match self.options.expect {
            Some(Name::Sha256(_)) => sha256.map(Name::Sha256),
            Some(Name::Sha1(_)) => sha1.map(Name::Sha1),
            _ => Some(Name::Blake3(digest)),
        };
        if let (Some(stated), Some(found)) = (self.options.expect, found)
            && stated != found
        {
            return Err(AddError::WrongDigest { stated, found });
        }
        let mut names: Vec<Name> = Vec::new();
        names.extend(sha256.map(Name::Sha256));
        names.extend(sha1.map(Name::Sha1));
        let mut unknown = Vec::new();
        for name in names {
            if inner.index.alias(&name)? != Some(digest) {
                unknown.push(name);
            }
        }
        if !unknown.is_empty() {
            self.session.aliases.lock().push((digest, unknown));
        }
        let n_chunks = recipe.len() as u64;
        let mut recipe_digest = None;
        if n_chunks > 1 {
            recipe_digest = Some(recipe.digest());
            let held = inner.index.recipe(digest)?.is_some_and(|p| p.standing == Standing::Live);
            if held {
                self.session.relied.lock().push(digest);
            } else {
                self.session.recipes.lock().push((digest, recipe));
            }
        }
        Ok(Added { digest, size, n_chunks, new_bytes, recipe: recipe_digest, sha256, sha1 })
    }
}

/// Errors that end the whole ingest, not just one file.
fn is_fatal(error: &AddError) -> bool {
    use AddError::*;
    match error {
        Source(_) | Moved | WrongDigest { .. } | Recipe(_) | Revoked(_) => false,
        MissingChunks(_)
        | Frame(_)
        | Interrupted
        | Full { .. }
        | Store(_)
        | Index(_)
        | Read(_)
        | Cancelled(_) => true,
    }
}

/// Reads until `buffer` is full or the reader ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, AddError> {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(AddError::Source(error)),
        }
    }
    Ok(n)
}

/// A content while it is read.
struct Content {
    chunks: Vec<(ChunkId, u32)>,
    /// Its length, as far as known before it is read.
    size_hint: u64,
    /// Whether more of it may be long in coming.
    waits: bool,
    size: u64,
    new_bytes: u64,
    /// Hashes the whole; not needed for a content of one chunk, whose digest is the chunk's.
    whole: Option<Arc<WholeHash>>,
    sha256: Option<Box<Sha256>>,
    sha1: Option<Box<Sha1>>,
}

impl Content {
    fn new(options: &AddOptions, size_hint: u64) -> Self {
        let sha256 = options.aliases.sha256 || matches!(options.expect, Some(Name::Sha256(_)));
        let sha1 = options.aliases.sha1 || matches!(options.expect, Some(Name::Sha1(_)));
        Self {
            chunks: Vec::new(),
            size_hint,
            waits: false,
            size: 0,
            new_bytes: 0,
            whole: None,
            sha256: sha256.then(Box::default),
            sha1: sha1.then(Box::default),
        }
    }

    fn take(&mut self, id: ChunkId, bytes: &[u8], last: bool) {
        let only = self.chunks.is_empty() && last;
        if !only {
            self.whole.get_or_insert_default();
        }
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha1 {
            hasher.update(bytes);
        }
        self.chunks.push((id, bytes.len() as u32));
        self.size += bytes.len() as u64;
    }
}
