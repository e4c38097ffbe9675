//! A content that is put together from chunks: its bytes are hashed in their order, as they come.
//!
//! What a content is, the hash of the whole tells. So chunks that were stored just now, and hashed for that,
//! need not be read back, and those that are held are read without being hashed one by one. Only if the
//! whole turns out to be something else are all chunks read again, each checked. That tells a damaged
//! chunk from a recipe that is another content's.
//!
//! Always true: a recipe is stored only if the bytes of its chunks hashed to the content's name, and each
//! of them is held.

use crate::digest::{ChunkId, Digest};
use crate::error::{AddError, ReadError};
use crate::index::ChunkPlace;
use crate::library::{Inner, Library};
use crate::recipe::{ChunkSpan, Recipe};
use crate::session::Session;
use bytes::Bytes;
use std::sync::Arc;

/// A content on its way from its chunks to its recipe.
#[derive(Debug)]
pub struct Assembly {
    digest: Digest,
    recipe: Arc<Recipe>,
    hasher: blake3::Hasher,
    /// How many chunks were hashed.
    done: usize,
}

impl Assembly {
    /// The content `digest`, of which nothing was hashed yet.
    pub fn new(digest: Digest, recipe: Arc<Recipe>) -> Self {
        Self { digest, recipe, hasher: blake3::Hasher::new(), done: 0 }
    }

    /// Hashes on with the chunks before the `end`th, as far as they are there: `at_hand` has them in
    /// memory, each known to be what its name says, or else `library` holds them. What is not there now
    /// is hashed later. Blocks.
    pub fn advance(
        &mut self,
        library: &Library,
        end: usize,
        at_hand: impl Fn(ChunkId) -> Option<Bytes>,
    ) {
        while self.done < end.min(self.recipe.len()) {
            let span = self.recipe.span(self.done);
            let bytes = at_hand(span.chunk).or_else(|| {
                let place = library.inner.place_of(span.chunk).ok()??;
                library.inner.unchecked_at(span.chunk, &place, self.digest).ok()
            });
            let Some(bytes) = bytes.filter(|bytes| is_as_long(bytes, &span)) else { return };
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.done += 1;
    }

    fn restart(&mut self) {
        self.hasher.reset();
        self.done = 0;
    }

    /// Hashes the rest, whose chunks lie at `places`, and says whether the whole is what it should be.
    fn is_right(
        &mut self,
        inner: &Inner,
        places: &[ChunkPlace],
        at_hand: impl Fn(ChunkId) -> Option<Bytes>,
    ) -> Result<bool, ReadError> {
        for (at, place) in places.iter().enumerate().skip(self.done) {
            let span = self.recipe.span(at);
            let bytes = match at_hand(span.chunk).filter(|bytes| is_as_long(bytes, &span)) {
                Some(bytes) => bytes,
                None => inner.unchecked_at(span.chunk, place, self.digest)?,
            };
            self.take(&bytes);
        }
        Ok(self.hasher.finalize() == *self.digest.as_bytes())
    }
}

fn is_as_long(bytes: &Bytes, span: &ChunkSpan) -> bool {
    bytes.len() as u64 == span.bytes.end - span.bytes.start
}

impl Session {
    /// Makes `digest` the content that `recipe` puts together from chunks that are held. The
    /// whole is read and hashed first.
    ///
    /// A condemned chunk does not do, as [`Library::missing_chunks`] says: it may be purged at any
    /// moment, and the recipe become durable without it, in somebody else's commit.
    pub fn put_recipe(&self, digest: Digest, recipe: &Recipe) -> Result<(), AddError> {
        self.put_assembly(&mut Assembly::new(digest, Arc::new(recipe.clone())), |_| None)
    }

    /// As [`Session::put_recipe`], where some chunks were hashed into the whole before, and others are
    /// `at_hand` in memory, as [`Assembly::advance`] has them. After an error it may be tried again.
    pub fn put_assembly(
        &self,
        assembly: &mut Assembly,
        at_hand: impl Fn(ChunkId) -> Option<Bytes>,
    ) -> Result<(), AddError> {
        let inner = self.inner();
        if inner.revoked.read().contains(assembly.digest) {
            return Err(AddError::Revoked(assembly.digest));
        }
        let places = self.live_places(&assembly.recipe)?;
        // What cannot be read is found again, and named, by reading each.
        if !assembly.is_right(inner, &places, at_hand).unwrap_or(false) {
            assembly.restart();
            self.check_each(assembly, &places)?;
        }
        let recipe = &assembly.recipe;
        self.keep(recipe.chunks().iter().map(|chunk| chunk.0));
        if recipe.len() > 1 { self.append_recipe(assembly.digest, recipe) } else { Ok(()) }
    }

    /// Where the chunks of a recipe are. [`AddError::MissingChunks`] if some are not held.
    fn live_places(&self, recipe: &Recipe) -> Result<Vec<ChunkPlace>, AddError> {
        let inner = self.inner();
        let (mut places, mut missing) = (Vec::with_capacity(recipe.len()), Vec::new());
        for span in recipe.spans() {
            let length = span.bytes.end - span.bytes.start;
            inner.claims.wait(span.chunk);
            let place = inner.live_place(span.chunk)?;
            match place.filter(|place| u64::from(place.plain_len) == length) {
                Some(place) => places.push(place),
                None => missing.push(span.chunk),
            }
        }
        if missing.is_empty() { Ok(places) } else { Err(AddError::MissingChunks(missing)) }
    }

    /// Reads the whole, each chunk checked: the error says what is wrong with it, if anything is.
    fn check_each(&self, assembly: &Assembly, places: &[ChunkPlace]) -> Result<(), AddError> {
        let Assembly { digest, recipe, .. } = assembly;
        let (mut hasher, mut missing) = (blake3::Hasher::new(), Vec::new());
        for (id, place) in recipe.chunks().iter().zip(places) {
            match self.inner().chunk_at(*id, place, *digest) {
                Ok(bytes) => {
                    hasher.update(&bytes);
                }
                // Purged after it was looked up, or found damaged just now.
                Err(ReadError::MissingChunk { .. } | ReadError::Suspect { .. }) => {
                    missing.push(*id)
                }
                Err(error) => return Err(AddError::Read(Box::new(error))),
            }
        }
        if !missing.is_empty() {
            return Err(AddError::MissingChunks(missing));
        }
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        if found != *digest {
            return Err(AddError::WrongDigest { stated: (*digest).into(), found: found.into() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library that holds two chunks, and the content of both.
    fn held() -> (tempfile::TempDir, Library, [Bytes; 2], Arc<Recipe>, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(folder.path(), Default::default()).unwrap();
        let chunks = [Bytes::from(vec![b'a'; 40_000]), Bytes::from(b"text ".repeat(9_000))];
        let named: Vec<(ChunkId, Bytes)> = chunks.iter().map(|c| (id(c), c.clone())).collect();
        let session = library.session();
        session.put_chunks(&named).unwrap();
        session.commit(Vec::new()).unwrap();
        let spans = chunks.iter().map(|c| (id(c), c.len() as u32));
        let recipe = Arc::new(Recipe::new(spans).unwrap());
        let digest = Digest::of(&chunks.concat());
        (folder, library, chunks, recipe, digest)
    }

    fn id(bytes: &[u8]) -> ChunkId {
        ChunkId(Digest::of(bytes))
    }

    #[test]
    fn what_is_at_hand_is_hashed_and_the_rest_is_read() {
        let (_folder, library, chunks, recipe, digest) = held();
        let session = library.session();
        let mut assembly = Assembly::new(digest, recipe);
        let first = |wanted| (wanted == id(&chunks[0])).then(|| chunks[0].clone());
        assembly.advance(&library, 1, first);
        assert_eq!(assembly.done, 1);
        assembly.advance(&library, 9, |_| None);
        assert_eq!(assembly.done, 2);
        session.put_assembly(&mut assembly, |_| None).unwrap();
        session.keep([digest]);
        session.commit(Vec::new()).unwrap();
        let reader = library.open_content(digest).unwrap();
        let mut out = Vec::new();
        reader.copy_to(0..reader.size(), &mut out).unwrap();
        assert_eq!(out, chunks.concat());
    }

    #[test]
    fn a_whole_that_is_something_else_is_read_again_and_judged_by_that() {
        let (_folder, library, chunks, recipe, digest) = held();
        let session = library.session();
        let lies = |_| Some(Bytes::from(vec![b'x'; 40_000]));
        let mut assembly = Assembly::new(digest, recipe.clone());
        assembly.advance(&library, 2, lies);
        session.put_assembly(&mut assembly, lies).unwrap();

        let mut assembly = Assembly::new(Digest::of(b"another"), recipe);
        for _ in 0..2 {
            let put = session.put_assembly(&mut assembly, |_| Some(chunks[0].clone()));
            assert!(matches!(put, Err(AddError::WrongDigest { .. })), "{put:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_it_may_be_tried_again() {
        let (_folder, library, chunks, _, _) = held();
        let session = library.session();
        let late = Bytes::from(vec![b'z'; 1000]);
        let spans = [&chunks[0], &late, &chunks[1]].map(|c| (id(c), c.len() as u32));
        let recipe = Arc::new(Recipe::new(spans).unwrap());
        let digest = Digest::of(&[&chunks[0][..], &late, &chunks[1]].concat());
        let mut assembly = Assembly::new(digest, recipe);
        assembly.advance(&library, 3, |_| None);
        assert_eq!(assembly.done, 1);
        let put = session.put_assembly(&mut assembly, |_| None);
        assert!(matches!(put, Err(AddError::MissingChunks(ids)) if ids == [id(&late)]));
        session.put_chunks(&[(id(&late), late)]).unwrap();
        session.put_assembly(&mut assembly, |_| None).unwrap();
        session.commit(Vec::new()).unwrap();
        assert!(library.open_content(digest).is_ok());
    }
}
