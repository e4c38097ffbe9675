//! Where a content is cut.
//!
//! FastCDC (Xia et al., USENIX ATC 2016; the 2020 variant with two bytes a step), normalization
//! level 1, seed 0, chunks of 32 to 512 KiB and 128 KiB on average. One profile for everything:
//! bytes that were cut by different profiles never share a chunk.
//!
//! Always true: cut points depend on the bytes alone, never on how they arrive. The crate is
//! pinned exactly and golden vectors (`tests/chunker_golden.rs`) hold it to its cut points,
//! since a silent change would end deduplication against everything already stored.

use fastcdc::v2020::{Normalization, select_masks};
use std::io::{self, Read};

/// The profile's number in every recipe. A different way to cut takes a new number.
pub const PROFILE: u16 = 1;
/// Chunks are no shorter, but for the last of a content. Contents up to this are one chunk.
pub const MIN_CHUNK: usize = 32 << 10;
/// The length that cut points aim at.
pub const AVERAGE_CHUNK: usize = 128 << 10;
/// No chunk is longer.
pub const MAX_CHUNK: usize = 512 << 10;

/// The cutter. Cheap to make; holds no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Chunker {
    mask_s: u64,
    mask_l: u64,
}

impl Default for Chunker {
    fn default() -> Self {
        let (mask_s, mask_l) = select_masks(AVERAGE_CHUNK, Normalization::Level1);
        Self { mask_s, mask_l }
    }
}

/// Why [`Chunker::each`] did not come to the end.
#[derive(Debug, thiserror::Error)]
pub enum CutError<E> {
    /// What is cut cannot be read.
    #[error("cannot read what is to be cut")]
    Read(#[source] io::Error),
    /// A chunk was not taken.
    #[error(transparent)]
    Take(E),
}

impl Chunker {
    /// How many bytes at the front of `bytes` are the next chunk.
    ///
    /// `bytes` starts where the last chunk ended and must hold [`MAX_CHUNK`] bytes, or all that
    /// is left of the content: a shorter view would cut where the view ends. 0 for no bytes.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let (s, l) = (self.mask_s, self.mask_l);
        // fastcdc wants the masks shifted by one for the first byte of each pair it reads.
        let (min, average, max) = (MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK);
        fastcdc::v2020::cut(bytes, min, average, max, s, l, s << 1, l << 1).1
    }

    /// Cuts what comes from `from`, and hands each chunk to `take`, in order.
    pub fn each<E>(
        &self,
        from: &mut impl Read,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), CutError<E>> {
        let mut buffer = vec![0; 4 * MAX_CHUNK];
        let (mut start, mut end, mut at_end) = (0, 0, false);
        loop {
            // A cut needs to see the longest chunk, or all that is left.
            if !at_end && end - start < MAX_CHUNK {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                while end < buffer.len() && !at_end {
                    match from.read(&mut buffer[end..]) {
                        Ok(0) => at_end = true,
                        Ok(n) => end += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(CutError::Read(error)),
                    }
                }
            }
            let ahead = &buffer[start..end];
            if ahead.is_empty() {
                return Ok(());
            }
            let length = self.cut(ahead);
            take(&ahead[..length]).map_err(CutError::Take)?;
            start += length;
        }
    }

    /// The lengths of all chunks of a whole content, in order.
    pub fn lengths(&self, content: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::with_capacity(content.len() / AVERAGE_CHUNK + 1);
        let mut rest = content;
        while !rest.is_empty() {
            let n = self.cut(rest);
            lengths.push(n);
            rest = &rest[n..];
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn small_contents_are_one_chunk() {
        let chunker = Chunker::default();
        for len in [1, MIN_CHUNK - 1, MIN_CHUNK] {
            assert_eq!(chunker.lengths(&bytes(1, len)), [len]);
        }
    }

    #[test]
    fn a_content_is_cut_the_same_however_it_comes() {
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let n = self.0.len().min(out.len()).min(70_001);
                out[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let content = bytes(3, 10 << 20);
        let mut found = Vec::new();
        let cut = Chunker::default().each(&mut Drip(&content), |chunk| {
            found.push(chunk.len());
            Ok::<_, io::Error>(())
        });
        assert!(cut.is_ok());
        assert_eq!(found, Chunker::default().lengths(&content));
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_near_it() {
        let before = bytes(2, 8 << 20);
        let mut after = before.clone();
        after.splice((1 << 20)..(1 << 20), *b"inserted");
        let ends = |content: &[u8]| {
            let mut at = 0;
            let lengths = Chunker::default().lengths(content);
            lengths.iter().map(|n| (at += n, content.len() - at).1).collect::<Vec<_>>()
        };
        let (before, after) = (ends(&before), ends(&after));
        let shared = after.iter().filter(|end| before.contains(end)).count();
        assert!(shared * 4 >= before.len() * 3, "{shared} of {}", before.len());
    }

    proptest! {
        #[test]
        fn chunks_cover_the_content_within_the_limits(seed: u64, len in 0usize..3_000_000) {
            let content = bytes(seed, len);
            let lengths = Chunker::default().lengths(&content);
            prop_assert_eq!(lengths.iter().sum::<usize>(), len);
            prop_assert!(lengths.iter().all(|&n| n <= MAX_CHUNK));
            let inner = lengths.len().saturating_sub(1);
            prop_assert!(lengths[..inner].iter().all(|&n| n >= MIN_CHUNK));
        }
    }
}
