//! The library: packs and index joined, opened and closed.
//!
//! One process at a time; a lock file sees to it. Opening replays what the index has not seen of
//! the packs, so a killed process needs no repair. All calls block; call them from threads.

use crate::capture::Pins;
use crate::claims::Claims;
use crate::commit::{Commits, UNSETTLED, Writer};
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::error::{CommitError, OpenError, PackProblem, ReadError};
use crate::index::{Form, Index, Standing};
use crate::kv::rocks::RocksKv;
use crate::kv::{Kv, KvError};
use crate::leases::Leases;
use crate::progress::Progress;
use crate::read::{Blocks, Packs};
use crate::rebuild::rebuild_in;
use crate::refs::{Outcomes, Ref};
use crate::store::PackStore;
use crate::store::folder::FolderStore;
use crate::store::objects::{ObjectOptions, ObjectPacks};
use crate::store::volumes::{FolderKeeper, HomeOnly, MemoryKeeper, Volumes};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// How a library works. The defaults fit a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that ingest uses.
    pub threads: usize,
    /// A pack is full at this many bytes.
    pub pack_target: u64,
    /// Memory for decoded blocks, in bytes.
    pub cache_bytes: u64,
    /// How long condemned bytes stay before they are deleted. At least ten minutes.
    pub gc_grace: Duration,
    /// Bytes of the home volume that stay free, so that garbage collection can work; and of each
    /// other volume that has no reserve of its own.
    pub reserve: u64,
    /// Whether the library is on an object store. Packs there are full at 64 MiB, if not before.
    pub objects: ObjectOptions,
}

/// The size of packs on an object store: what is cheap to write again when half of it is dead.
const OBJECT_PACK: u64 = 64 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            pack_target: 256 << 20,
            cache_bytes: 128 << 20,
            gc_grace: Duration::from_secs(24 * 3600),
            reserve: 64 << 20,
            objects: ObjectOptions::default(),
        }
    }
}

/// Clock and randomness, passed in so that a simulation can own them.
pub trait Environment: Send + Sync {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// The machine's clock and randomness.
pub struct System;

impl Environment for System {
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_millis() as u64)
    }

    fn random(&self) -> u128 {
        rand::random()
    }
}

/// A content library. Cheap to clone; the last clone to go closes it.
#[derive(Clone)]
pub struct Library {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Arc<Volumes>,
    pub index: Index,
    pub options: Options,
    pub environment: Arc<dyn Environment>,
    /// The library's own random number, in every pack's header.
    pub library: u128,
    pub claims: Claims,
    pub writer: Mutex<Writer>,
    pub commits: Commits,
    pub next_commit: AtomicU64,
    pub packs: Packs,
    pub blocks: Blocks,
    pub leases: Leases,
    pub revoked: RwLock<Revoked>,
    /// Entries that are condemned and not yet purged.
    pub condemned: AtomicU64,
    /// Whether anything was noted as damaged, now or since the library was opened: where nothing
    /// was, opening a content need not look at each of its chunks.
    pub damage_known: AtomicBool,
    /// Counts events after which cached answers may be wrong.
    pub generation: AtomicU64,
    pub refs_generation: AtomicU64,
    /// One maintenance run at a time.
    pub maintenance: Mutex<()>,
    /// One volume is drained at a time.
    pub draining: Mutex<()>,
    /// Snapshots that keep packs from being deleted.
    pub pins: Pins,
    _lock: Option<File>,
}

/// The contents that an administrator revoked, with the reasons; a copy of the refs that say so.
#[derive(Default)]
pub(crate) struct Revoked {
    pub by_digest: BTreeMap<Digest, Ref>,
}

pub(crate) const REVOKED: &str = "revoked/";

impl Revoked {
    pub(crate) fn apply(&mut self, outcomes: &Outcomes) {
        for (name, outcome) in outcomes {
            let hex = name.strip_prefix(REVOKED).and_then(|hex| Digest::from_hex(hex).ok());
            match (hex, outcome) {
                (Some(digest), Some(to)) => drop(self.by_digest.insert(digest, to.clone())),
                (Some(digest), None) => drop(self.by_digest.remove(&digest)),
                (None, _) => {}
            }
        }
    }

    pub(crate) fn contains(&self, digest: Digest) -> bool {
        !self.by_digest.is_empty() && self.by_digest.contains_key(&digest)
    }
}

/// What is known of a content without reading it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ContentStat {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many chunks it is cut into.
    pub n_chunks: u64,
    /// Its recipe or a chunk of it was found damaged or lost.
    pub suspect: bool,
}

impl Library {
    /// Opens the library in `folder`, or makes one. Where `options` name an object store, the
    /// folder holds what is local of it; if the index there is not the library's, it is made anew.
    pub fn open(folder: &Path, mut options: Options) -> Result<Self, OpenError> {
        let Locked { lock, store, objects } = lock_folder(folder, &options)?;
        let index = folder.join("index");
        let is_missing =
            !index.exists() && !store.list().map_err(|e| io_error(folder, e))?.is_empty();
        if let Some(objects) = &objects {
            if is_missing || index.exists() && !objects.index_is_current() {
                tracing::info!("the index is made anew from the packs on the object store");
                let report = rebuild_in(folder, &store, &Progress::default())?;
                for PackProblem { pack, error } in &report.bad_packs {
                    tracing::error!(%pack, error, "a pack is damaged: run `depot library verify`");
                }
            }
            objects.own_index()?;
            options.pack_target = options.pack_target.min(OBJECT_PACK);
        } else if is_missing {
            return Err(OpenError::IndexMissing { folder: folder.into() });
        }
        let kv = Arc::new(RocksKv::open(&index)?);
        Self::open_with(store, kv, Arc::new(System), options, Some(lock))
    }

    /// Opens a library over any store and index, for simulation.
    pub fn open_on(
        store: Arc<dyn PackStore>,
        kv: Arc<dyn Kv>,
        environment: Arc<dyn Environment>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let keeper = Arc::new(MemoryKeeper::default());
        let volumes = Volumes::over(store, keeper, options.reserve)?;
        Self::open_over(volumes, kv, environment, options)
    }

    /// Opens a library over any volumes and index, for simulation.
    pub fn open_over(
        volumes: Volumes,
        kv: Arc<dyn Kv>,
        environment: Arc<dyn Environment>,
        options: Options,
    ) -> Result<Self, OpenError> {
        Self::open_with(volumes, kv, environment, options, None)
    }

    fn open_with(
        store: Volumes,
        kv: Arc<dyn Kv>,
        environment: Arc<dyn Environment>,
        options: Options,
        lock: Option<File>,
    ) -> Result<Self, OpenError> {
        let index = Index { kv };
        let store = Arc::new(store);
        let recovered = crate::recovery::recover(&*store, &index, &*environment)?;
        let commits = Commits::load(&index)?;
        let damage_known = !commits.leader.lock().suspects.is_empty();
        let inner = Inner {
            packs: Packs::new(store.clone()),
            blocks: Blocks::new(options.cache_bytes),
            leases: Leases::load(&index)?,
            revoked: RwLock::default(),
            condemned: AtomicU64::new(index.number("condemned")?),
            claims: Claims::default(),
            writer: Mutex::new(Writer::new(
                recovered.next_pack,
                recovered.run,
                index.number(UNSETTLED)? != 0,
            )),
            commits,
            next_commit: AtomicU64::new(recovered.next_commit),
            library: recovered.library,
            damage_known: AtomicBool::new(damage_known),
            generation: AtomicU64::new(1),
            refs_generation: AtomicU64::new(1),
            maintenance: Mutex::default(),
            draining: Mutex::default(),
            pins: Pins::default(),
            store,
            index,
            options,
            environment,
            _lock: lock,
        };
        let library = Self { inner: Arc::new(inner) };
        let revoked = library.list_refs(REVOKED)?;
        let revoked = revoked.into_iter().map(|(name, to)| (name, Some(to))).collect();
        library.inner.revoked.write().apply(&revoked);
        Ok(library)
    }

    /// Commits, seals and flushes, so that the next open has nothing to replay. The last clone
    /// that goes does the same and can only log what went wrong.
    pub fn close(&self) -> Result<(), CommitError> {
        self.inner.close()
    }

    /// Seals the open pack. To be called when nothing was written for a while.
    pub fn seal_idle(&self) -> Result<(), CommitError> {
        self.inner.seal_open_pack()
    }

    /// A number that changes whenever an answer given before may have become wrong: content was
    /// condemned, revoked, or found damaged.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(SeqCst)
    }

    /// A number that changes whenever refs were changed, after the change can be read: whoever reads
    /// refs again and again need not while it stays the same.
    pub fn refs_generation(&self) -> u64 {
        self.inner.refs_generation.load(SeqCst)
    }

    /// The content that `name` stands for, if it is known. A `blake3:` name stands for itself.
    pub fn resolve(&self, name: &Name) -> Result<Option<Digest>, ReadError> {
        match name {
            Name::Blake3(digest) => Ok(Some(*digest)),
            alias => Ok(self.inner.index.alias(alias)?),
        }
    }

    /// Size and state of a content.
    pub fn stat(&self, digest: Digest) -> Result<ContentStat, ReadError> {
        let inner = &self.inner;
        inner.check_revoked(digest)?;
        if digest == Digest::EMPTY {
            return Ok(ContentStat { digest, size: 0, n_chunks: 0, suspect: false });
        }
        match inner.index.form(digest)?.ok_or(ReadError::Unknown(digest.into()))? {
            Form::Chunk(place) => {
                let suspect = place.standing == Standing::Suspect;
                Ok(ContentStat { digest, size: place.plain_len.into(), n_chunks: 1, suspect })
            }
            Form::Recipe(place) => {
                let mut suspect = place.standing == Standing::Suspect;
                if !suspect {
                    let recipe = inner.recipe_at(digest, place)?;
                    let places = inner.index.chunks(recipe.chunks())?;
                    let bad = |p: &Option<crate::index::ChunkPlace>| {
                        p.is_none_or(|p| p.standing == Standing::Suspect)
                    };
                    suspect = places.iter().any(bad);
                }
                let n_chunks = place.n_chunks.into();
                Ok(ContentStat { digest, size: place.size, n_chunks, suspect })
            }
        }
    }

    /// Which of `chunks` are not held. Condemned and damaged ones count as not held, so that
    /// somebody who has them sends them.
    pub fn missing_chunks(&self, chunks: &[ChunkId]) -> Result<Vec<bool>, ReadError> {
        let places = self.inner.index.chunks(chunks)?;
        let is_missing = |place: &Option<crate::index::ChunkPlace>| {
            place.is_none_or(|place| place.standing != Standing::Live)
        };
        let mut missing: Vec<bool> = places.iter().map(is_missing).collect();
        for (missing, chunk) in missing.iter_mut().zip(chunks) {
            *missing &= self.inner.claims.get(*chunk).is_none();
        }
        Ok(missing)
    }

    /// Which of `contents` are not held whole.
    pub fn missing_contents(&self, contents: &[Digest]) -> Result<Vec<bool>, ReadError> {
        let held = |&content: &Digest| match self.stat(content) {
            Ok(stat) => Ok(stat.suspect),
            Err(ReadError::Unknown(_) | ReadError::Suspect { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        contents.iter().map(held).collect()
    }

    /// The ref called `name`.
    pub fn get_ref(&self, name: &str) -> Result<Option<Ref>, KvError> {
        self.inner.index.reference(name)
    }

    /// All refs whose names begin with `prefix`, by name.
    pub fn list_refs(&self, prefix: &str) -> Result<Vec<(String, Ref)>, KvError> {
        self.inner.index.references(prefix)
    }
}

impl Inner {
    pub(crate) fn check_revoked(&self, digest: Digest) -> Result<(), ReadError> {
        if self.revoked.read().contains(digest) { Err(ReadError::Revoked(digest)) } else { Ok(()) }
    }

    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// What a pack is called, for messages.
    pub(crate) fn pack_id(&self, seq: u32) -> PackId {
        self.index.pack(seq).ok().flatten().map_or(PackId(0), |info| info.id)
    }

    fn close(&self) -> Result<(), CommitError> {
        self.seal_open_pack()?;
        Ok(self.index.kv.flush()?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let idle = {
            let writer = self.writer.lock();
            writer.current.is_none() && writer.pending.is_empty()
        };
        if idle {
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the library was not closed cleanly; the next open replays");
        }
    }
}

fn io_error(folder: &Path, source: io::Error) -> OpenError {
    OpenError::Io { folder: folder.into(), source }
}

/// A library's packs, and what keeps others from them.
pub(crate) struct Locked {
    pub lock: File,
    pub store: Volumes,
    /// The packs on an object store, if they are there.
    pub objects: Option<Arc<ObjectPacks>>,
}

/// Takes the folder for this process and opens the packs: those in it, on all volumes, or those on
/// the object store that `options` name.
pub(crate) fn lock_folder(folder: &Path, options: &Options) -> Result<Locked, OpenError> {
    let lock = lock_only(folder)?;
    if let Some(objects) = ObjectPacks::open(&options.objects, folder, Arc::new(System))? {
        let objects = Arc::new(objects);
        let keeper = Arc::new(HomeOnly::new(objects.url()));
        let store = Volumes::over(objects.clone(), keeper, options.reserve)?;
        return Ok(Locked { lock, store, objects: Some(objects) });
    }
    let home = FolderStore::new(folder.join("packs")).map_err(|error| io_error(folder, error))?;
    let keeper = Arc::new(FolderKeeper::new(folder));
    let store = Volumes::over(Arc::new(home), keeper, options.reserve)?;
    Ok(Locked { lock, store, objects: None })
}

/// Takes the folder for this process.
pub(crate) fn lock_only(folder: &Path) -> Result<File, OpenError> {
    let fail = |source| io_error(folder, source);
    fs::create_dir_all(folder).map_err(fail)?;
    let path = folder.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut lock = options.map_err(fail)?;
    if lock.try_lock().is_err() {
        let mut holder = String::new();
        let _ = (&lock).take(20).read_to_string(&mut holder);
        let holder = holder.trim().to_owned();
        let holder = if holder.is_empty() { "unknown".into() } else { holder };
        return Err(OpenError::Locked { folder: folder.into(), holder });
    }
    let note = || -> io::Result<()> {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    let mut note = note;
    note().map_err(fail)?;
    Ok(lock)
}
