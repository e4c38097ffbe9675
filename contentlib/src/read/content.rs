//! One content, read from any place in it: what serves, exports and fetches read by.
//!
//! A reader looks its chunks' places up a window at a time, and hands out runs of raw chunks as they lie in their
//! pack: mapped, so that nothing is copied, and with their place, so that a server may have the kernel send them.

use super::packs::OpenPack;
use super::{block_key, raw_range};
use crate::block::Codec;
use crate::digest::Digest;
use crate::error::ReadError;
use crate::index::{ChunkPlace, Standing};
use crate::library::{Inner, Library};
use crate::recipe::{ChunkSpan, Recipe};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};

/// Chunk places looked up at once for one content.
const WINDOW: usize = 256;

impl Library {
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
