//! Reading content: whole, by range, as slices that a server can send without copying.
//!
//! Always true: bytes that leave this module hash to the name they were asked by, but for those that
//! are asked for unchecked. Chunks of zstd blocks are hashed each time they are taken from the decoded
//! block. Chunks of raw blocks are hashed when first read, and again whenever the pack file's change
//! time says that somebody wrote to it; in between, the page cache is trusted as memory is.
//!
//! A bad chunk is read again once, then marked suspect: never served, absent for deduplication,
//! until any holder's copy replaces it.

use crate::block::{Codec, Frame};
use crate::claims::Claim;
use crate::digest::{ChunkId, Digest, PackId};
use crate::error::ReadError;
use crate::index::{ChunkPlace, Form, RecipePlace, Standing, suspect_key};
use crate::kv::{Batch, KvError, Table};
use crate::library::{Inner, Library};
use crate::pack::format::{RECORD_HEADER, table_len};
use crate::pack::reader::{RecordError, frame, record};
use crate::recipe::{ChunkSpan, Recipe};
use crate::store::volumes::Volumes;
use crate::store::{PackFile, PackStore, is_media_error};
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};

/// Packs kept open. A library has tens of thousands; files are a limited resource.
const OPEN_PACKS: usize = 512;
/// Chunk places looked up at once for one content.
const WINDOW: usize = 256;
/// How often a chunk or recipe is looked for before garbage collection has moved it too often.
const MOVES: usize = 32;
/// Chunks of one pack that are remembered as verified; past this all are forgotten.
const VERIFIED: usize = 1 << 16;

/// One pack, open to read.
pub(crate) struct OpenPack {
    pub id: PackId,
    pub file: Arc<dyn PackFile>,
    verified: Mutex<Verified>,
}

#[derive(Default)]
struct Verified {
    stamp: u64,
    ordinals: HashSet<u32>,
}

impl OpenPack {
    /// Whether the chunk at `ordinal` was hashed since the pack, whose stamp is now `stamp`, last
    /// changed.
    fn is_verified(&self, ordinal: u32, stamp: u64) -> bool {
        let mut verified = self.verified.lock();
        if stamp == 0 || verified.stamp != stamp {
            verified.stamp = stamp;
            verified.ordinals.clear();
            return false;
        }
        verified.ordinals.contains(&ordinal)
    }

    fn set_verified(&self, ordinal: u32, stamp: u64) {
        let mut verified = self.verified.lock();
        if stamp == 0 || verified.stamp != stamp {
            return;
        }
        if verified.ordinals.len() >= VERIFIED {
            verified.ordinals.clear();
        }
        verified.ordinals.insert(ordinal);
    }
}

/// The packs that are open to read.
pub(crate) struct Packs {
    store: Arc<Volumes>,
    open: Cache<u32, Arc<OpenPack>>,
    /// Packs that are written to and not yet in the index.
    minted: Mutex<HashMap<u32, PackId>>,
}

impl Packs {
    pub(crate) fn new(store: Arc<Volumes>) -> Self {
        Self { store, open: Cache::new(OPEN_PACKS), minted: Mutex::default() }
    }

    /// A pack that the index does not know was begun.
    pub(crate) fn minted(&self, seq: u32, id: PackId) {
        self.minted.lock().insert(seq, id);
    }

    /// The index knows the pack now.
    pub(crate) fn indexed(&self, seq: u32) {
        self.minted.lock().remove(&seq);
    }

    fn get(&self, inner: &Inner, seq: u32) -> Result<Arc<OpenPack>, ReadError> {
        if let Some(pack) = self.open.get(&seq) {
            return Ok(pack);
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        // In this order: a pack leaves the first only when it is in the second.
        let minted = self.minted.lock().get(&seq).copied();
        let id = match minted {
            Some(id) => Some(id),
            None => inner.index.pack(seq)?.map(|info| info.id),
        };
        let id = id.ok_or(PackId(0));
        let id = id.map_err(|pack| ReadError::Store { pack, source: gone() })?;
        let moves = self.store.moves();
        let file = self.store.open(id).map_err(|source| ReadError::Store { pack: id, source })?;
        let pack = Arc::new(OpenPack { id, file, verified: Mutex::default() });
        self.open.insert(seq, pack.clone());
        if self.store.moves() != moves {
            // Perhaps moved since it was opened: kept, it would hold on to the old volume.
            self.open.remove(&seq);
        }
        Ok(pack)
    }

    pub(crate) fn forget(&self, seq: u32) {
        self.open.remove(&seq);
    }
}

#[derive(Clone)]
struct BlockWeight;

impl Weighter<u64, Bytes> for BlockWeight {
    fn weight(&self, _: &u64, block: &Bytes) -> u64 {
        block.len() as u64 + 128
    }
}

/// Decoded blocks.
pub(crate) struct Blocks {
    cache: Cache<u64, Bytes, BlockWeight>,
}

impl Blocks {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { cache: Cache::with_weighter((bytes >> 18).max(16) as usize, bytes, BlockWeight) }
    }
}

fn block_key(place: &ChunkPlace) -> u64 {
    u64::from(place.pack) << 32 | u64::from(place.offset)
}

/// Why bytes could not be had from a place: it may be worth another look, or is damage.
enum Miss {
    /// The pack is gone: garbage collection moved the chunk, or somebody deleted the file.
    Gone(ReadError),
    Damaged,
    Failed(ReadError),
}

impl Inner {
    fn open_pack(&self, seq: u32) -> Result<Arc<OpenPack>, Miss> {
        self.packs.get(self, seq).map_err(|error| match error {
            ReadError::Store { source, pack } if source.kind() == io::ErrorKind::NotFound => {
                Miss::Gone(ReadError::Store { source, pack })
            }
            other => Miss::Failed(other),
        })
    }

    /// The record of a block, as it is stored.
    pub(crate) fn block_at(&self, place: &ChunkPlace) -> Result<Frame, ReadError> {
        self.try_block_at(place).map_err(|miss| self.give_up(miss, place.pack))
    }

    fn try_block_at(&self, place: &ChunkPlace) -> Result<Frame, Miss> {
        let pack = self.open_pack(place.pack)?;
        let read = record(&*pack.file, place.offset, place.body_len);
        let (header, body) = read.map_err(|error| match error {
            RecordError::Bad(_) => Miss::Damaged,
            RecordError::Io(source) if is_media_error(&source) => Miss::Damaged,
            RecordError::Io(source) => Miss::Failed(ReadError::Store { pack: pack.id, source }),
        })?;
        frame(&header, &body, place.offset).map_err(|_| Miss::Damaged)
    }

    fn give_up(&self, miss: Miss, pack: u32) -> ReadError {
        match miss {
            Miss::Gone(error) | Miss::Failed(error) => error,
            Miss::Damaged => {
                let pack = self.pack_id(pack);
                ReadError::Store { pack, source: io::ErrorKind::InvalidData.into() }
            }
        }
    }

    /// Has the block of a chunk be read from its pack when it is wanted next.
    pub(crate) fn forget_block(&self, place: &ChunkPlace) {
        self.blocks.cache.remove(&block_key(place));
    }

    fn plain_at(&self, place: &ChunkPlace) -> Result<Bytes, Miss> {
        let (start, len) = (place.plain_offset as usize, place.plain_len as usize);
        if place.codec == Codec::Raw {
            let pack = self.open_pack(place.pack)?;
            let range = raw_range(place);
            return pack.file.read_at(range).map_err(|source| {
                if is_media_error(&source) {
                    Miss::Damaged
                } else {
                    Miss::Failed(ReadError::Store { pack: pack.id, source })
                }
            });
        }
        let key = block_key(place);
        let plain = match self.blocks.cache.get(&key) {
            Some(plain) => plain,
            None => {
                let plain = self.try_block_at(place)?.plain().map_err(|_| Miss::Damaged)?;
                self.blocks.cache.insert(key, plain.clone());
                plain
            }
        };
        if plain.len() < start + len {
            Err(Miss::Damaged)
        } else {
            Ok(plain.slice(start..start + len))
        }
    }

    /// A chunk's plain bytes from a place, hashed. A place is read twice before it is called
    /// damaged, since reads can fail once; and the index is asked again each time, since garbage
    /// collection may have moved the chunk.
    pub(crate) fn chunk_at(
        &self,
        id: ChunkId,
        place: &ChunkPlace,
        content: Digest,
    ) -> Result<Bytes, ReadError> {
        let mut place = *place;
        let mut tries = 0;
        for _ in 0..MOVES {
            if place.standing == Standing::Suspect {
                return Err(ReadError::Suspect { name: id.0, pack: self.pack_id(place.pack) });
            }
            let miss = match self.plain_at(&place) {
                Ok(bytes) if Digest::of(&bytes) == id.0 => return Ok(bytes),
                Ok(_) => Miss::Damaged,
                Err(miss) => miss,
            };
            self.forget_block(&place);
            if let Miss::Gone(_) = miss {
                self.packs.forget(place.pack);
            }
            let now = self.place_of(id)?.ok_or(ReadError::MissingChunk { content, chunk: id })?;
            tries = if now.ordinal() == place.ordinal() { tries + 1 } else { 0 };
            place = now;
            if tries == 2 {
                let pack = self.pack_id(place.pack);
                return Err(match miss {
                    Miss::Failed(error) => error,
                    Miss::Damaged | Miss::Gone(_) => {
                        self.mark_chunk_suspect(id, &place)?;
                        ReadError::Suspect { name: id.0, pack }
                    }
                });
            }
        }
        let source = io::Error::other("the chunk moves faster than it can be read");
        Err(ReadError::Store { pack: self.pack_id(place.pack), source })
    }

    /// A chunk's plain bytes as they lie at a place, not hashed: for who hashes what they make.
    pub(crate) fn unchecked_at(
        &self,
        id: ChunkId,
        place: &ChunkPlace,
        content: Digest,
    ) -> Result<Bytes, ReadError> {
        match self.plain_at(place) {
            Ok(bytes) if place.standing != Standing::Suspect => Ok(bytes),
            _ => self.chunk_at(id, place, content),
        }
    }

    /// Where a chunk is, in the index or appended and not yet there.
    pub(crate) fn place_of(&self, id: ChunkId) -> Result<Option<ChunkPlace>, ReadError> {
        if let Some(place) = self.index.chunk(id)? {
            return Ok(Some(place));
        }
        Ok(match self.claims.get(id) {
            Some(Claim::Appended(place)) => Some(place),
            _ => None,
        })
    }

    /// Where a chunk is that is live in the index, or was stored anew and is not yet there.
    pub(crate) fn live_place(&self, id: ChunkId) -> Result<Option<ChunkPlace>, KvError> {
        let place = self.index.chunk(id)?;
        Ok(match (place, self.claims.get(id)) {
            (Some(place), _) if place.standing == Standing::Live => Some(place),
            (_, Some(Claim::Appended(place))) => Some(place),
            // Indexed between the two looks.
            _ => self.index.chunk(id)?.filter(|place| place.standing == Standing::Live),
        })
    }

    pub(crate) fn mark_chunk_suspect(
        &self,
        id: ChunkId,
        bad: &ChunkPlace,
    ) -> Result<(), ReadError> {
        let mut leader = self.commits.leader.lock();
        let now = self.index.chunk(id)?;
        let Some(now) = now.filter(|now| now.ordinal() == bad.ordinal()) else { return Ok(()) };
        let mut batch = Batch::default();
        let suspect = ChunkPlace { standing: Standing::Suspect, ..now };
        batch.put(Table::Chunks, *id.0.as_bytes(), suspect.encode());
        batch.put(Table::Meta, suspect_key(id.0), []);
        leader.suspects.insert(id.0);
        self.damage_known.store(true, SeqCst);
        self.index.kv.write(batch)?;
        self.changed();
        tracing::warn!(chunk = %id, pack = %self.pack_id(now.pack), "a chunk is damaged");
        Ok(())
    }

    pub(crate) fn mark_recipe_suspect(
        &self,
        content: Digest,
        bad: &RecipePlace,
    ) -> Result<(), ReadError> {
        let mut leader = self.commits.leader.lock();
        let now = self.index.recipe(content)?;
        let Some(now) = now.filter(|now| now.ordinal() == bad.ordinal()) else { return Ok(()) };
        let mut batch = Batch::default();
        let suspect = RecipePlace { standing: Standing::Suspect, ..now };
        batch.put(Table::Recipes, *content.as_bytes(), suspect.encode());
        batch.put(Table::Meta, suspect_key(content), []);
        leader.suspects.insert(content);
        self.damage_known.store(true, SeqCst);
        self.index.kv.write(batch)?;
        self.changed();
        tracing::warn!(%content, pack = %self.pack_id(now.pack), "a recipe is damaged");
        Ok(())
    }

    /// The recipe at a place, checked to be that of `content`.
    pub(crate) fn recipe_at(
        &self,
        content: Digest,
        place: RecipePlace,
    ) -> Result<Arc<Recipe>, ReadError> {
        let mut place = place;
        let mut tries = 0;
        for _ in 0..MOVES {
            if place.standing == Standing::Suspect {
                return Err(ReadError::Suspect { name: content, pack: self.pack_id(place.pack) });
            }
            match self.open_pack(place.pack) {
                Err(Miss::Failed(error)) => return Err(error),
                Err(_) => self.packs.forget(place.pack),
                Ok(pack) => match record(&*pack.file, place.offset, place.body_len) {
                    Ok((header, body)) if header.id == content => {
                        if let Ok(recipe) = Recipe::decode(&body) {
                            return Ok(Arc::new(recipe));
                        }
                    }
                    Err(RecordError::Io(source)) if !is_media_error(&source) => {
                        return Err(ReadError::Store { pack: pack.id, source });
                    }
                    _ => {}
                },
            }
            let now = self.index.recipe(content)?.ok_or(ReadError::Unknown(content.into()))?;
            tries = if now.ordinal() == place.ordinal() { tries + 1 } else { 0 };
            place = now;
            if tries == 2 {
                self.mark_recipe_suspect(content, &place)?;
                return Err(ReadError::Suspect { name: content, pack: self.pack_id(place.pack) });
            }
        }
        let source = io::Error::other("the recipe moves faster than it can be read");
        Err(ReadError::Store { pack: self.pack_id(place.pack), source })
    }
}

impl Inner {
    /// An error if a chunk of `recipe`, which is `content`'s, is known to be damaged.
    fn check_damage(&self, content: Digest, recipe: &Recipe) -> Result<(), ReadError> {
        if !self.damage_known.load(SeqCst) {
            return Ok(());
        }
        for ids in recipe.chunks().chunks(WINDOW) {
            let places = self.index.chunks(ids)?;
            let is_bad = |place: &ChunkPlace| place.standing == Standing::Suspect;
            if let Some(bad) = places.into_iter().flatten().find(is_bad) {
                return Err(ReadError::Suspect { name: content, pack: self.pack_id(bad.pack) });
            }
        }
        Ok(())
    }

    /// What stands where a damaged recipe names its chunks. Nothing of it may be believed: it is
    /// for keeping what is held under those names.
    pub(crate) fn remains_of_recipe(&self, place: &RecipePlace) -> Vec<ChunkId> {
        let Ok(pack) = self.packs.get(self, place.pack) else { return Vec::new() };
        let start = u64::from(place.offset) + RECORD_HEADER as u64;
        let body = pack.file.read_at(start..start + u64::from(place.body_len));
        body.map(|body| Recipe::names_in(&body)).unwrap_or_default()
    }
}

/// Where a raw chunk's bytes lie in its pack.
fn raw_range(place: &ChunkPlace) -> Range<u64> {
    let head = RECORD_HEADER + table_len(place.n_chunks);
    let start = u64::from(place.offset) + head as u64 + u64::from(place.plain_offset);
    start..start + u64::from(place.plain_len)
}

impl Library {
    /// The recipe of a content; of one span if it is one chunk.
    pub fn recipe(&self, digest: Digest) -> Result<Arc<Recipe>, ReadError> {
        let inner = &self.inner;
        inner.check_revoked(digest)?;
        if digest == Digest::EMPTY {
            return Ok(Arc::new(Recipe::new([]).expect("no chunk is a recipe")));
        }
        let place = match inner.index.form(digest)? {
            Some(Form::Recipe(place)) => return inner.recipe_at(digest, place),
            Some(Form::Chunk(place)) => place,
            // Perhaps appended and not committed: an upload that may yet be refused.
            None => return Err(ReadError::Unknown(digest.into())),
        };
        let recipe = Recipe::new([(ChunkId(digest), place.plain_len)]);
        Ok(Arc::new(recipe.map_err(|_| ReadError::Unknown(digest.into()))?))
    }

    /// A reader of a content's bytes. An error if any of them are known to be damaged: whoever asks
    /// is told at once, and not in the middle of an answer.
    pub fn open_content(&self, digest: Digest) -> Result<ContentReader, ReadError> {
        let recipe = self.recipe(digest)?;
        self.inner.check_damage(digest, &recipe)?;
        let windows = recipe.len().div_ceil(WINDOW);
        let shared = Shared {
            library: self.clone(),
            digest,
            recipe,
            places: (0..windows).map(|_| OnceLock::new()).collect(),
        };
        Ok(ContentReader { shared: Arc::new(shared) })
    }

    /// One chunk's plain bytes.
    pub fn read_chunk(&self, id: ChunkId) -> Result<Bytes, ReadError> {
        self.inner.check_revoked(id.0)?;
        let place = self.inner.place_of(id)?.ok_or(ReadError::Unknown(id.0.into()))?;
        self.inner.chunk_at(id, &place, id.0)
    }

    /// As [`Library::read_chunk`], but the bytes are not hashed: they may be damaged. For whoever hashes
    /// what is made of them before it counts.
    pub fn read_chunk_unchecked(&self, id: ChunkId) -> Result<Bytes, ReadError> {
        self.inner.check_revoked(id.0)?;
        let place = self.inner.place_of(id)?.ok_or(ReadError::Unknown(id.0.into()))?;
        self.inner.unchecked_at(id, &place, id.0)
    }
}

/// Reads one content. Cheap to clone.
#[derive(Clone)]
pub struct ContentReader {
    shared: Arc<Shared>,
}

struct Shared {
    library: Library,
    digest: Digest,
    recipe: Arc<Recipe>,
    /// Chunk places, looked up a window at a time when first needed.
    places: Vec<OnceLock<Vec<Option<ChunkPlace>>>>,
}

/// A run of a content's bytes.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The bytes.
    pub bytes: Bytes,
    /// Where the same bytes lie in a file, if they do, so that a server may have the kernel send
    /// them.
    pub place: Option<FilePlace>,
}

/// A place in a pack file.
#[derive(Clone, Debug)]
pub struct FilePlace {
    /// The pack's file, open to read.
    pub file: Arc<File>,
    /// Where the bytes begin in it.
    pub offset: u64,
}

impl ContentReader {
    /// The content's length in bytes.
    pub fn size(&self) -> u64 {
        self.shared.recipe.size()
    }

    /// The content's name.
    pub fn digest(&self) -> Digest {
        self.shared.digest
    }

    /// The content's recipe.
    pub fn recipe(&self) -> &Arc<Recipe> {
        &self.shared.recipe
    }

    /// Bytes of the content from `offset` on: at least one, at most `max`, unless `offset` is at
    /// or past the end. As many as lie together. May wait for the disk.
    pub fn segment(&self, offset: u64, max: usize) -> Result<Segment, ReadError> {
        match self.find(offset, max, Wait::ForDisk)? {
            Some(segment) => Ok(segment),
            None => Ok(Segment { bytes: Bytes::new(), place: None }),
        }
    }

    /// The same as [`ContentReader::segment`], if it is ready in memory and was verified before;
    /// `None` if the disk or a decoder would have to be waited for. For async threads.
    pub fn segment_ready(&self, offset: u64, max: usize) -> Option<Segment> {
        self.find(offset, max, Wait::Never).ok().flatten()
    }

    /// Writes bytes `range` of the content to `out`. Returns how many.
    pub fn copy_to(&self, range: Range<u64>, out: &mut impl Write) -> Result<u64, CopyError> {
        let end = range.end.min(self.size());
        let mut at = range.start;
        while at < end {
            let bytes = self.chunk_bytes(at)?;
            let wanted = (bytes.len() as u64).min(end - at) as usize;
            out.write_all(&bytes[..wanted]).map_err(CopyError::Write)?;
            at += wanted as u64;
        }
        Ok(at.saturating_sub(range.start))
    }

    /// The rest of the chunk that `offset` lies in, by positional read, hashed.
    fn chunk_bytes(&self, offset: u64) -> Result<Bytes, ReadError> {
        let shared = &self.shared;
        let at = shared.recipe.covering(offset..offset + 1).start;
        let span = shared.recipe.span(at);
        let place = self.place(at)?;
        let bytes = shared.library.inner.chunk_at(span.chunk, &place, shared.digest)?;
        self.as_long_as_stated(&bytes, &span)?;
        Ok(bytes.slice((offset - span.bytes.start) as usize..))
    }

    /// A recipe may come from a pack that somebody made up: its lengths need not be its chunks'.
    fn as_long_as_stated(&self, bytes: &Bytes, span: &ChunkSpan) -> Result<(), ReadError> {
        if bytes.len() as u64 == span.bytes.end - span.bytes.start {
            return Ok(());
        }
        let chunk = span.chunk;
        tracing::error!(content = %self.shared.digest, %chunk, "the recipe lies of a length");
        Err(ReadError::MissingChunk { content: self.shared.digest, chunk })
    }

    fn place(&self, at: usize) -> Result<ChunkPlace, ReadError> {
        let shared = &self.shared;
        let inner = &shared.library.inner;
        let window = &shared.places[at / WINDOW];
        let places = match window.get() {
            Some(places) => places,
            None => {
                let start = at / WINDOW * WINDOW;
                let end = (start + WINDOW).min(shared.recipe.len());
                let found = inner.index.chunks(&shared.recipe.chunks()[start..end])?;
                window.get_or_init(|| found)
            }
        };
        let chunk = shared.recipe.chunks()[at];
        let missing = ReadError::MissingChunk { content: shared.digest, chunk };
        match places[at % WINDOW] {
            Some(place) if place.standing != Standing::Suspect => Ok(place),
            // Not there, or bad, when first looked up; perhaps healed since.
            _ => inner.place_of(chunk)?.ok_or(missing),
        }
    }

    fn find(&self, offset: u64, max: usize, wait: Wait) -> Result<Option<Segment>, ReadError> {
        let shared = &self.shared;
        if offset >= self.size() || max == 0 {
            return Ok(None);
        }
        let inner = &shared.library.inner;
        let at = shared.recipe.covering(offset..offset + 1).start;
        let span = shared.recipe.span(at);
        if wait == Wait::Never && shared.places[at / WINDOW].get().is_none() {
            return Ok(None);
        }
        let place = self.place(at)?;
        let skip = offset - span.bytes.start;
        if place.codec == Codec::Raw
            && let Some(found) = self.mapped(at, &place, skip, max, wait)?
        {
            return Ok(Some(found));
        }
        if wait == Wait::Never {
            let cached = inner.blocks.cache.peek(&block_key(&place)).is_some();
            if place.codec == Codec::Raw || !cached {
                return Ok(None);
            }
        }
        let bytes = inner.chunk_at(span.chunk, &place, shared.digest)?;
        self.as_long_as_stated(&bytes, &span)?;
        let rest = bytes.slice(skip as usize..);
        let bytes = rest.slice(..rest.len().min(max));
        Ok(Some(Segment { bytes, place: None }))
    }

    /// A run of raw chunks that lie together in one block, mapped and verified.
    fn mapped(
        &self,
        first: usize,
        place: &ChunkPlace,
        skip: u64,
        max: usize,
        wait: Wait,
    ) -> Result<Option<Segment>, ReadError> {
        let shared = &self.shared;
        let inner = &shared.library.inner;
        let Ok(pack) = inner.packs.get(inner, place.pack) else { return Ok(None) };
        let Some(file) = pack.file.local() else { return Ok(None) };
        let start = raw_range(place).start + skip;
        let mut end = raw_range(place).end;
        // Asked once for the whole run: the system call would show in a profile.
        let stamp = pack.file.stamp();
        if place.standing == Standing::Suspect
            || !self.verify_raw(&pack, stamp, first, place, wait)?
        {
            return Ok(None);
        }
        let mut at = first;
        let mut last = *place;
        while end < start + max as u64 && at + 1 < shared.recipe.len() {
            if wait == Wait::Never && shared.places[(at + 1) / WINDOW].get().is_none() {
                break;
            }
            let Ok(next) = self.place(at + 1) else { break };
            let follows = next.pack == last.pack
                && next.codec == Codec::Raw
                && next.standing != Standing::Suspect
                && raw_range(&next).start == end;
            if !follows || !self.verify_raw(&pack, stamp, at + 1, &next, wait)? {
                break;
            }
            end = raw_range(&next).end;
            (at, last) = (at + 1, next);
        }
        let end = end.min(start + max as u64);
        let Ok(bytes) = pack.file.map(start..end) else { return Ok(None) };
        Ok(Some(Segment { bytes, place: Some(FilePlace { file, offset: start }) }))
    }

    /// Whether a raw chunk's bytes are known to be right, hashing them if they may be waited for.
    fn verify_raw(
        &self,
        pack: &OpenPack,
        stamp: u64,
        at: usize,
        place: &ChunkPlace,
        wait: Wait,
    ) -> Result<bool, ReadError> {
        let ordinal = place.ordinal() as u32;
        if pack.is_verified(ordinal, stamp) {
            return Ok(true);
        }
        if wait == Wait::Never {
            return Ok(false);
        }
        let shared = &self.shared;
        let inner = &shared.library.inner;
        // The read that hashes is positional: a media error is an error, not a signal.
        let before = inner.index.chunk(shared.recipe.chunks()[at])?;
        inner.chunk_at(shared.recipe.chunks()[at], place, shared.digest)?;
        if before.is_some_and(|now| now.ordinal() != place.ordinal()) {
            return Ok(false);
        }
        pack.set_verified(ordinal, stamp);
        Ok(true)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForDisk,
    Never,
}

/// Why content could not be copied out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination failed.
    #[error("cannot write")]
    Write(#[source] io::Error),
}
