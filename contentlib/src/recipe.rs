//! Recipes: how a content is put back together from chunks.
//!
//! A recipe lists a content's chunks in order. Two versions of a file that share most of their
//! bytes share most of their chunks, and so cost little. A content of one chunk has that chunk's
//! digest and needs no stored recipe.
//!
//! Always true of a [`Recipe`]:
//! * spans follow each other from byte 0, without gap or overlap;
//! * no span is empty or longer than [`MAX_CHUNK`];
//! * there are at most [`MAX_CHUNKS`] of them.
//!
//! The encoding is one, on disk and on the wire: `contentlib/FORMAT.md`, "Recipe".

use crate::chunker::{MAX_CHUNK, PROFILE};
use crate::digest::{ChunkId, Digest};
use std::ops::Range;

/// The most chunks of one recipe: about 256 GiB of content.
pub const MAX_CHUNKS: usize = 1 << 21;
const HEADER: usize = 8;
const ENTRY: usize = 36;

/// One chunk's place in a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its place in the content, in bytes.
    pub bytes: Range<u64>,
}

/// How one content is put back together. The module header says what always holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    profile: u16,
    chunks: Vec<ChunkId>,
    /// `ends[i]` is where chunk i ends in the content; prefix sums, so that a range is found by
    /// binary search.
    ends: Vec<u64>,
}

/// Bytes or chunk lengths that are not a recipe.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotARecipe {
    /// A chunk that is empty or too long.
    #[error("chunk {at} is {length} bytes long; want 1 to {MAX_CHUNK}")]
    ChunkLength {
        /// Which chunk.
        at: usize,
        /// Its length.
        length: u64,
    },
    /// More chunks than a recipe may have.
    #[error("{0} chunks; want at most {MAX_CHUNKS}")]
    TooManyChunks(u64),
    /// Bytes of another length than their header says.
    #[error("{found} bytes; the header asks for {want}")]
    Length {
        /// What there is.
        found: usize,
        /// What should be.
        want: u64,
    },
    /// A chunking profile that this version does not know.
    #[error("chunking profile {0} is not known here; a newer version wrote it")]
    Profile(u16),
}

impl Recipe {
    /// A recipe of `chunks` with their lengths, in order.
    pub fn new(chunks: impl IntoIterator<Item = (ChunkId, u32)>) -> Result<Self, NotARecipe> {
        let mut recipe = Self { profile: PROFILE, chunks: Vec::new(), ends: Vec::new() };
        for (chunk, length) in chunks {
            recipe.push(chunk, length)?;
        }
        Ok(recipe)
    }

    fn push(&mut self, chunk: ChunkId, length: u32) -> Result<(), NotARecipe> {
        let at = self.chunks.len();
        if length == 0 || length as usize > MAX_CHUNK {
            return Err(NotARecipe::ChunkLength { at, length: length.into() });
        }
        if at == MAX_CHUNKS {
            return Err(NotARecipe::TooManyChunks(at as u64 + 1));
        }
        self.ends.push(self.size() + u64::from(length));
        self.chunks.push(chunk);
        Ok(())
    }

    /// The content's length in bytes.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the content is empty.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunks, in the order of the content. A chunk that comes twice is listed twice.
    pub fn chunks(&self) -> &[ChunkId] {
        &self.chunks
    }

    /// The `at`th chunk and its place.
    ///
    /// # Panics
    /// If `at` is not below [`Recipe::len`].
    pub fn span(&self, at: usize) -> ChunkSpan {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        ChunkSpan { chunk: self.chunks[at], bytes: start..self.ends[at] }
    }

    /// All spans, in order.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = ChunkSpan> + '_ {
        (0..self.len()).map(|at| self.span(at))
    }

    /// The indexes of the spans needed for bytes `wanted` of the content.
    ///
    /// `wanted` is half-open, in bytes, as an HTTP `Range` is once parsed (RFC 9110, section
    /// 14.1.2). Bytes past the end are ignored; empty if nothing overlaps. O(log n).
    pub fn covering(&self, wanted: Range<u64>) -> Range<usize> {
        if wanted.is_empty() {
            return 0..0;
        }
        let first = self.ends.partition_point(|&end| end <= wanted.start);
        let full = self.ends.partition_point(|&end| end < wanted.end);
        first..self.len().min(full + 1).max(first)
    }

    /// The bytes on disk and on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + ENTRY * self.len());
        out.extend_from_slice(&self.profile.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        for span in self.spans() {
            out.extend_from_slice(span.chunk.0.as_bytes());
            out.extend_from_slice(&((span.bytes.end - span.bytes.start) as u32).to_le_bytes());
        }
        out
    }

    /// Reads what [`Recipe::encode`] wrote; every length is checked before it is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotARecipe> {
        let want = |want| NotARecipe::Length { found: bytes.len(), want };
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(want(HEADER as u64))?;
        let profile = u16::from_le_bytes([header[0], header[1]]);
        if profile != PROFILE || header[2..4] != [0, 0] {
            return Err(NotARecipe::Profile(profile));
        }
        let n = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if n > MAX_CHUNKS {
            return Err(NotARecipe::TooManyChunks(n as u64));
        }
        if body.len() != n * ENTRY {
            return Err(want((HEADER + n * ENTRY) as u64));
        }
        let mut recipe =
            Self { profile, chunks: Vec::with_capacity(n), ends: Vec::with_capacity(n) };
        for entry in body.chunks_exact(ENTRY) {
            let (id, length) = entry.split_at(32);
            let id: [u8; 32] = id.try_into().expect("an entry has 36 bytes");
            let length: [u8; 4] = length.try_into().expect("an entry has 36 bytes");
            recipe.push(ChunkId(Digest::from_bytes(id)), u32::from_le_bytes(length))?;
        }
        Ok(recipe)
    }

    /// Where an encoding names chunks, read as names, whether it is sound or not.
    pub(crate) fn names_in(bytes: &[u8]) -> Vec<ChunkId> {
        let entries = bytes.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
        let id = |entry: &[u8]| entry[..32].try_into().expect("an entry has 36 bytes");
        entries.map(|entry| ChunkId(Digest::from_bytes(id(entry)))).collect()
    }

    /// The digest of the encoding, which a manifest lists so that a recipe can be checked against
    /// a signature before its chunks are fetched.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipe(lengths: &[u32]) -> Result<Recipe, NotARecipe> {
        Recipe::new(lengths.iter().map(|&n| (ChunkId(Digest::of(&n.to_le_bytes())), n)))
    }

    #[test]
    fn no_chunk_is_empty_or_too_long() {
        let too_long = MAX_CHUNK as u32 + 1;
        for bad in [0, too_long] {
            let found = recipe(&[4, bad]).unwrap_err();
            assert_eq!(found, NotARecipe::ChunkLength { at: 1, length: bad.into() });
        }
    }

    #[test]
    fn bytes_cut_short_or_grown_are_refused() {
        let bytes = recipe(&[4, 5]).unwrap().encode();
        for end in 0..bytes.len() {
            assert!(Recipe::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Recipe::decode(&[bytes, vec![0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(lengths in prop::collection::vec(1u32..=MAX_CHUNK as u32, 0..50)) {
            let recipe = recipe(&lengths).unwrap();
            prop_assert_eq!(Recipe::decode(&recipe.encode()), Ok(recipe));
        }

        #[test]
        fn covering_agrees_with_a_plain_scan(
            lengths in prop::collection::vec(1u32..20, 0..20), start in 0u64..400, len in 0u64..400,
        ) {
            let recipe = recipe(&lengths).unwrap();
            let wanted = start..start + len;
            let overlaps = |s: &ChunkSpan| s.bytes.start < wanted.end && wanted.start < s.bytes.end;
            let scanned: Vec<_> = recipe.spans().filter(|s| len > 0 && overlaps(s)).collect();
            let found: Vec<_> = recipe.covering(wanted.clone()).map(|at| recipe.span(at)).collect();
            prop_assert_eq!(found, scanned);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Recipe::decode(&bytes);
        }
    }
}
