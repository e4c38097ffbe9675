//! Reading content: whole, by range, as slices that a server can send without copying.
//!
//! Always true: bytes that leave this module hash to the name they were asked by, but for those that
//! are asked for unchecked. Chunks of zstd blocks are hashed each time they are taken from the decoded
//! block. Chunks of raw blocks are hashed when first read, and again whenever the pack file's change
//! time says that somebody wrote to it; in between, the page cache is trusted as memory is.
//!
//! A bad chunk is read again once, then marked suspect: never served, absent for deduplication,
//! until any holder's copy replaces it.

mod content;
mod packs;

pub use content::{ContentReader, CopyError, FilePlace, Segment};
pub(crate) use packs::{OpenPack, Packs};

use crate::block::{Codec, Frame};
use crate::claims::Claim;
use crate::digest::{ChunkId, Digest};
use crate::error::ReadError;
use crate::index::{ChunkPlace, Form, RecipePlace, Standing, suspect_key};
use crate::kv::{Batch, KvError, Table};
use crate::library::{Inner, Library};
use crate::pack::format::{RECORD_HEADER, table_len};
use crate::pack::reader::{RecordError, frame, record};
use crate::recipe::Recipe;
use crate::store::is_media_error;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// How often a chunk or recipe is looked for before garbage collection has moved it too often.
const MOVES: usize = 32;

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
