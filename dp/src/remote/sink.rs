//! Where chunks go: each wanted chunk to all its places in all wanted contents.
//!
//! A content is put together in a sparse file `partial/<digest>` and is complete when all its
//! chunks are there. What a killed fetch left in such a file is found again by hashing it in
//! place; no other record is needed. A content of one chunk that comes over the wire needs no such
//! file: it goes from memory to its places.

use super::RemoteError;
use super::out::{Out, is_absent};
use super::parts::Parts;
use contentlib::chunker::{Chunker, CutError, MAX_CHUNK};
use contentlib::{ChunkId, Digest, Recipe};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A content that is to be put together.
pub(super) struct Wanted {
    pub digest: Digest,
    pub size: u64,
    /// Of more than one chunk.
    pub recipe: Option<Recipe>,
}

/// What becomes of a chunk that is a whole content by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OneChunk {
    /// It is written to the content's file, for later.
    Store,
    /// The caller puts the bytes where they belong.
    HandBack,
}

/// One place of a chunk.
#[derive(Clone, Copy)]
struct Target {
    content: usize,
    offset: u64,
}

/// Where a chunk's bytes are in a wanted content.
pub(super) struct ChunkPlace {
    pub content: Digest,
    pub bytes: Range<u64>,
}

/// All chunks still wanted, and where they go.
pub(super) struct Sink {
    contents: Vec<Wanted>,
    parts: Arc<Parts>,
    /// Chunks of each content that are not there yet.
    left: Vec<AtomicUsize>,
    chunks: Mutex<HashMap<ChunkId, Chunk>>,
    /// Bytes of chunks that were found in local files.
    pub reused: AtomicU64,
    /// Bytes put in place.
    pub written: AtomicU64,
}

struct Chunk {
    len: u32,
    targets: Vec<Target>,
}

impl Sink {
    /// Wants all of `contents`. None may be empty or there twice.
    pub fn new(contents: Vec<Wanted>, parts: Arc<Parts>) -> Self {
        let mut chunks: HashMap<ChunkId, Chunk> = HashMap::new();
        let mut left = Vec::with_capacity(contents.len());
        for (content, wanted) in contents.iter().enumerate() {
            let mut want = |id: ChunkId, len: u64, offset: u64| {
                let chunk = chunks.entry(id).or_insert(Chunk { len: len as u32, targets: vec![] });
                chunk.targets.push(Target { content, offset });
            };
            match &wanted.recipe {
                None => want(ChunkId(wanted.digest), wanted.size, 0),
                Some(recipe) => recipe.spans().for_each(|span| {
                    want(span.chunk, span.bytes.end - span.bytes.start, span.bytes.start);
                }),
            }
            left.push(AtomicUsize::new(wanted.recipe.as_ref().map_or(1, Recipe::len)));
        }
        let (reused, written) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { contents, parts, left, chunks: Mutex::new(chunks), reused, written }
    }

    /// The contents that are wanted.
    pub fn contents(&self) -> &[Wanted] {
        &self.contents
    }

    /// Whether a chunk is still wanted.
    pub fn wants(&self, id: ChunkId) -> bool {
        self.chunks.lock().contains_key(&id)
    }

    /// A place of a chunk that is still wanted: the content that it is by itself, if that is wanted.
    pub fn place_of(&self, id: ChunkId) -> Option<ChunkPlace> {
        let chunks = self.chunks.lock();
        let chunk = chunks.get(&id)?;
        let is_alone = |t: &&Target| self.contents[t.content].digest == id.0;
        let target = chunk.targets.iter().find(is_alone).or(chunk.targets.first())?;
        let bytes = target.offset..target.offset + u64::from(chunk.len);
        Some(ChunkPlace { content: self.contents[target.content].digest, bytes })
    }

    /// All chunks still wanted with their lengths, in the order of the contents, each once.
    pub fn missing(&self) -> Vec<(ChunkId, u32)> {
        let chunks = self.chunks.lock();
        let mut firsts: Vec<(usize, u64, ChunkId, u32)> = chunks
            .iter()
            .map(|(id, chunk)| (chunk.targets[0].content, chunk.targets[0].offset, *id, chunk.len))
            .collect();
        firsts.sort_unstable();
        firsts.into_iter().map(|(_, _, id, len)| (id, len)).collect()
    }

    /// Puts a chunk in all its places, if it is wanted. Returns the contents that it completed.
    pub fn put(
        &self,
        id: ChunkId,
        bytes: &[u8],
        one_chunk: OneChunk,
    ) -> Result<Vec<usize>, RemoteError> {
        // Taken out first: two streams may bring the same chunk at once.
        let Some(chunk) = self.chunks.lock().remove(&id) else { return Ok(vec![]) };
        let mut complete = Vec::new();
        for target in chunk.targets {
            let Wanted { digest, recipe, .. } = &self.contents[target.content];
            if recipe.is_some() || one_chunk == OneChunk::Store {
                let file = self.parts.write(*digest)?;
                let written = file.write_all_at(bytes, target.offset);
                written.map_err(self.parts.io(&digest.to_hex()))?;
            }
            self.written.fetch_add(bytes.len() as u64, Relaxed);
            complete.extend(self.arrived(target.content));
        }
        Ok(complete)
    }

    /// One chunk of a content is in place: the content, if it was the last.
    fn arrived(&self, content: usize) -> Option<usize> {
        (self.left[content].fetch_sub(1, Relaxed) == 1).then_some(content)
    }

    /// Takes up what an earlier fetch left of content `at`. Returns the contents that are complete.
    pub fn resume(&self, at: usize) -> Result<Vec<usize>, RemoteError> {
        // One chunk: writing it again is as cheap as looking.
        let Wanted { digest, recipe: Some(recipe), .. } = &self.contents[at] else {
            return Ok(vec![]);
        };
        let Some(file) = self.parts.resume(*digest)? else { return Ok(vec![]) };
        let io = |source: io::Error| self.parts.io(&digest.to_hex())(source);
        let end = file.metadata().map_err(io)?.len();
        let mut buffer = vec![0; MAX_CHUNK];
        let mut complete = Vec::new();
        for span in recipe.spans().take_while(|span| span.bytes.end <= end) {
            let bytes = &mut buffer[..(span.bytes.end - span.bytes.start) as usize];
            file.read_exact_at(bytes, span.bytes.start).map_err(io)?;
            if Digest::of(bytes) != span.chunk.0 {
                continue;
            }
            // It lies here already, and goes to its other places from here.
            let mut chunks = self.chunks.lock();
            let Some(chunk) = chunks.get_mut(&span.chunk) else { continue };
            let here = |t: &Target| t.content == at && t.offset == span.bytes.start;
            let Some(position) = chunk.targets.iter().position(here) else { continue };
            chunk.targets.swap_remove(position);
            let is_last = chunk.targets.is_empty();
            if is_last {
                chunks.remove(&span.chunk);
            }
            drop(chunks);
            complete.extend(self.arrived(at));
            if !is_last {
                complete.extend(self.put(span.chunk, bytes, OneChunk::Store)?);
            }
        }
        Ok(complete)
    }

    /// Takes wanted chunks from the file at `path`, cut as contents are. Returns what is complete.
    pub fn reuse(&self, out: &Out, path: &[u8]) -> Result<Vec<usize>, RemoteError> {
        let mut file = match out.read(path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(vec![]),
            Err(error) => return Err(out.io(path)(error)),
        };
        let mut complete = Vec::new();
        let cut = Chunker::default().each(&mut file, |bytes| {
            let id = ChunkId(Digest::of(bytes));
            if self.wants(id) {
                complete.extend(self.put(id, bytes, OneChunk::Store)?);
                self.reused.fetch_add(bytes.len() as u64, Relaxed);
            }
            Ok(())
        });
        match cut {
            Ok(()) => Ok(complete),
            Err(CutError::Read(source)) => Err(out.io(path)(source)),
            Err(CutError::Take(error)) => Err(error),
        }
    }
}

/// The wanted chunks that `bytes` hold, by id: for what is put together in memory.
pub(super) fn chunks_of(bytes: &[u8]) -> HashMap<ChunkId, &[u8]> {
    let mut chunks = HashMap::new();
    let mut rest = bytes;
    for length in Chunker::default().lengths(bytes) {
        let (chunk, after) = rest.split_at(length);
        chunks.insert(ChunkId(Digest::of(chunk)), chunk);
        rest = after;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Bytes without repeats.
    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
        out
    }

    fn wanted(bytes: &[u8]) -> Wanted {
        let mut rest = bytes;
        let mut spans = Vec::new();
        for length in Chunker::default().lengths(bytes) {
            spans.push((ChunkId(Digest::of(&rest[..length])), length as u32));
            rest = &rest[length..];
        }
        let recipe = Recipe::new(spans).unwrap();
        let recipe = (recipe.len() > 1).then_some(recipe);
        Wanted { digest: Digest::of(bytes), size: bytes.len() as u64, recipe }
    }

    #[test]
    fn contents_are_complete_when_all_their_chunks_came() {
        let out = tempfile::tempdir().unwrap();
        let parts = Arc::new(Parts::open(out.path().join("parts")).unwrap());
        let old = noise(4 << 20, 1);
        let new = [&old[..2 << 20], b"changed", &old[2 << 20..]].concat();
        let small = b"small".to_vec();
        let sink = Sink::new(vec![wanted(&new), wanted(&small)], parts.clone());
        fs::write(out.path().join("old"), &old).unwrap();
        let held = Out::open(out.path()).unwrap();
        assert!(sink.reuse(&held, b"old").unwrap().is_empty());
        let missing = sink.missing();
        assert!(missing.len() < 8, "most of it was reused: {}", missing.len());
        let held = [chunks_of(&new), chunks_of(&small)];
        let mut complete = Vec::new();
        for (id, len) in missing {
            let bytes = held.iter().find_map(|h| h.get(&id)).unwrap();
            assert_eq!(bytes.len(), len as usize);
            complete.extend(sink.put(id, bytes, OneChunk::HandBack).unwrap());
        }
        assert_eq!(complete, [0, 1]);
        let stored = |bytes: &[u8]| fs::read(parts.place(&Digest::of(bytes).to_hex()));
        assert_eq!(stored(&new).unwrap(), new);
        assert!(stored(&small).is_err(), "its bytes were handed back");
    }

    #[test]
    fn what_a_killed_fetch_left_is_taken_up() {
        let out = tempfile::tempdir().unwrap();
        let bytes = noise(4 << 20, 1);
        let sink = || {
            let parts = Parts::open(out.path().into()).unwrap();
            Sink::new(vec![wanted(&bytes)], Arc::new(parts))
        };
        let first = sink();
        let held = chunks_of(&bytes);
        let all = first.missing();
        let (came, lost) = all.split_at(all.len() / 2);
        for (id, _) in came.iter().rev() {
            first.put(*id, held[id], OneChunk::HandBack).unwrap();
        }
        let second = sink();
        assert!(second.resume(0).unwrap().is_empty());
        assert_eq!(second.missing(), lost);
        let mut complete = Vec::new();
        for (id, _) in lost {
            complete.extend(second.put(*id, held[id], OneChunk::HandBack).unwrap());
        }
        assert_eq!(complete, [0]);
        assert_eq!(fs::read(out.path().join(Digest::of(&bytes).to_hex())).unwrap(), bytes);
        let third = sink();
        assert_eq!(third.resume(0).unwrap(), [0]);
    }
}
