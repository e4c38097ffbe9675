//! Blocks: chunks compressed and stored together.
//!
//! A chunk is the unit of deduplication and transfer; a block is the unit of compression and the
//! record in a pack. A run of new chunks shares one zstd frame, so that a hundred thousand small
//! files compress as well as one large one, and a large file's chunks compress better than one by
//! one. Chunks that do not compress share raw blocks, whose bytes are served as they lie.
//!
//! Always true of a [`Frame`] once made: 1 to [`MAX_BLOCK_CHUNKS`] chunks, each 1 to
//! [`MAX_CHUNK`] bytes, together at most [`MAX_BLOCK_PLAIN`]. What its bytes hash to is not known
//! until [`Frame::chunks`] has decoded them.

use crate::chunker::MAX_CHUNK;
use crate::digest::{ChunkId, Digest};
use bytes::Bytes;
use std::cell::RefCell;
use std::io;
use zstd::zstd_safe::CParameter;

/// The most plain bytes of one block.
pub const MAX_BLOCK_PLAIN: usize = 4 << 20;
/// The most chunks of one block.
pub const MAX_BLOCK_CHUNKS: usize = 4096;
/// A compressed block is closed once it holds this many plain bytes: enough context for zstd to
/// reach its ratio, little enough that reading one chunk decodes about a millisecond's work.
pub(crate) const PACKED_TARGET: usize = 1 << 20;
/// A raw block is closed at this size. It costs readers nothing, and saves record headers.
pub(crate) const RAW_TARGET: usize = 2 << 20;

/// zstd's level for blocks of small files, whose bytes are few and whose number is large.
const LEVEL_SMALL: i32 = 3;
/// Blocks whose chunks are shorter than this on average hold small files.
const SMALL: usize = 16 << 10;
/// zstd's match finder for all other blocks. One small table that stays in the cache of a core
/// and matches from six bytes on: on unpacked software (`benches/RESULTS.md`) half as fast again
/// as level 3 and 7 % larger.
const TUNED: [CParameter; 5] = [
    CParameter::CompressionLevel(2),
    CParameter::WindowLog(21),
    CParameter::HashLog(15),
    CParameter::MinMatch(6),
    CParameter::Strategy(zstd::zstd_safe::Strategy::ZSTD_fast),
];
/// Bytes that zstd shrinks by less than this are kept raw: decoding them later would cost more
/// than the space is worth.
const WORTH: f64 = 0.97;

/// How a block's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

impl Codec {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// A block as it is stored and sent: chunk lengths, and the bytes of all chunks in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    codec: Codec,
    lens: Vec<u32>,
    stored: Bytes,
}

/// Bytes that are no block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotABlock {
    /// Chunk lengths outside the limits.
    #[error("the block's chunk lengths are outside the limits")]
    Lengths,
    /// A codec that this version does not know.
    #[error("codec {0} is not known here; a newer version wrote it")]
    Codec(u8),
    /// The stored bytes do not decode to what the lengths say.
    #[error("the block's bytes do not decode to the length they state")]
    Bytes,
}

impl Frame {
    /// A block of `stored` bytes that hold chunks of `lens` plain bytes.
    pub fn new(codec: Codec, lens: Vec<u32>, stored: Bytes) -> Result<Self, NotABlock> {
        let mut plain = 0usize;
        for &len in &lens {
            if len == 0 || len as usize > MAX_CHUNK {
                return Err(NotABlock::Lengths);
            }
            plain += len as usize;
        }
        if lens.is_empty() || lens.len() > MAX_BLOCK_CHUNKS || plain > MAX_BLOCK_PLAIN {
            return Err(NotABlock::Lengths);
        }
        let fits = match codec {
            Codec::Raw => stored.len() == plain,
            Codec::Zstd => stored.len() < plain + 1024,
        };
        if fits { Ok(Self { codec, lens, stored }) } else { Err(NotABlock::Bytes) }
    }

    /// How the bytes are stored.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The chunks' plain lengths, in order.
    pub fn lens(&self) -> &[u32] {
        &self.lens
    }

    /// The stored bytes.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// All plain bytes together.
    pub fn plain_len(&self) -> usize {
        self.lens.iter().map(|&n| n as usize).sum()
    }

    /// The plain bytes of all chunks in one run.
    pub fn plain(&self) -> Result<Bytes, NotABlock> {
        match self.codec {
            Codec::Raw => Ok(self.stored.clone()),
            Codec::Zstd => decompress(&self.stored, self.plain_len()).map(Bytes::from),
        }
    }

    /// The chunks with the names that their bytes really have.
    pub fn chunks(&self) -> Result<Vec<(ChunkId, Bytes)>, NotABlock> {
        let mut plain = self.plain()?;
        let split = |&len: &u32| {
            let chunk = plain.split_to(len as usize);
            (ChunkId(Digest::of(&chunk)), chunk)
        };
        Ok(self.lens.iter().map(split).collect())
    }

    /// The block as its record is written from.
    pub(crate) fn view(&self) -> BlockView<'_> {
        BlockView { codec: self.codec, lens: self.lens.clone(), stored: vec![&self.stored] }
    }

    /// Compresses chunks into one block; raw if that does not pay.
    ///
    /// The caller keeps to the limits of the module header.
    pub fn pack(chunks: &[Bytes], try_zstd: bool) -> Self {
        with_packed(chunks, try_zstd, |view| Self {
            codec: view.codec,
            lens: view.lens.clone(),
            stored: view.stored.concat().into(),
        })
    }
}

/// A block whose bytes are elsewhere: in a frame, in the buffer that zstd wrote to, or still in
/// the chunks.
pub(crate) struct BlockView<'a> {
    pub codec: Codec,
    pub lens: Vec<u32>,
    /// The stored bytes, in pieces.
    pub stored: Vec<&'a [u8]>,
}

impl BlockView<'_> {
    pub(crate) fn plain_len(&self) -> u32 {
        self.lens.iter().sum()
    }
}

/// Memory that each thread packs with. A fresh megabyte for each block would cost more page
/// faults than hashing it costs time.
#[derive(Default)]
struct Scratch {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

/// Compresses chunks into one block, raw if that does not pay, and shows it to `then`.
pub(crate) fn with_packed<T>(
    chunks: &[Bytes],
    try_zstd: bool,
    then: impl FnOnce(&BlockView<'_>) -> T,
) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let lens: Vec<u32> = chunks.iter().map(|c| c.len() as u32).collect();
        let small = lens.iter().sum::<u32>() as usize / lens.len().max(1) < SMALL;
        let Scratch { plain, packed } = scratch;
        if try_zstd {
            let joined = match chunks {
                [one] => &one[..],
                many => {
                    plain.clear();
                    many.iter().for_each(|c| plain.extend_from_slice(c));
                    &plain[..]
                }
            };
            if compress(joined, small, packed) {
                return then(&BlockView { codec: Codec::Zstd, lens, stored: vec![packed] });
            }
        }
        let stored = chunks.iter().map(|c| &c[..]).collect();
        then(&BlockView { codec: Codec::Raw, lens, stored })
    })
}

type Encoder = zstd::bulk::Compressor<'static>;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static TUNED_ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static SMALL_ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static PROBER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn tuned_encoder() -> io::Result<Encoder> {
    let mut encoder = Encoder::new(0)?;
    TUNED.into_iter().try_for_each(|parameter| encoder.set_parameter(parameter))?;
    Ok(encoder)
}

/// Compresses `plain` into `packed`. `false` if it does not shrink enough.
fn compress(plain: &[u8], small: bool, packed: &mut Vec<u8>) -> bool {
    let mut run = |slot: &mut Option<Encoder>, new: fn() -> io::Result<Encoder>| {
        if slot.is_none() {
            *slot = new().ok();
        }
        packed.clear();
        packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        slot.as_mut()?.compress_to_buffer(plain, packed).ok()
    };
    let stored = if small {
        SMALL_ENCODER.with_borrow_mut(|slot| run(slot, || Encoder::new(LEVEL_SMALL)))
    } else {
        TUNED_ENCODER.with_borrow_mut(|slot| run(slot, tuned_encoder))
    };
    stored.is_some_and(|stored| (stored as f64) < plain.len() as f64 * WORTH)
}

fn decompress(stored: &[u8], plain_len: usize) -> Result<Vec<u8>, NotABlock> {
    DECODER.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let decoder = slot.as_mut().ok_or(NotABlock::Bytes)?;
        // The capacity bounds what a hostile frame can make us write.
        let plain = decoder.decompress(stored, plain_len).map_err(|_| NotABlock::Bytes)?;
        if plain.len() == plain_len { Ok(plain) } else { Err(NotABlock::Bytes) }
    })
}

/// Whether `chunk` is worth compressing, from a sample of it.
///
/// Compressed and encrypted payload has flat byte counts. The sample's collision rate, 256 for
/// one repeated byte and 1 for random bytes, tells in microseconds; unlike an entropy estimate it
/// has no bias for short samples. A long chunk that looks random is tried once more with zstd on
/// 16 KiB of its middle, since flat counts can hide long repeats.
pub(crate) fn looks_compressible(chunk: &[u8]) -> bool {
    const SAMPLE: usize = 4 << 10;
    const STRIP: usize = 256;
    if chunk.len() < 512 {
        return true;
    }
    let mut counts = [0u32; 256];
    let mut n = 0u64;
    let step = (chunk.len() / (SAMPLE / STRIP)).max(STRIP);
    for strip in chunk.chunks(step) {
        for &byte in &strip[..strip.len().min(STRIP)] {
            counts[byte as usize] += 1;
            n += 1;
        }
    }
    let squares: u64 = counts.iter().map(|&c| u64::from(c) * u64::from(c)).sum();
    let collisions = (squares - n) as f64 * 256.0 / (n * (n - 1)) as f64;
    if collisions > 1.15 {
        return true;
    }
    let Some(middle) = chunk.get(chunk.len() / 2 - (8 << 10).min(chunk.len() / 2)..) else {
        return true;
    };
    if chunk.len() < 32 << 10 {
        return false;
    }
    let middle = &middle[..16 << 10];
    let shrunk = PROBER.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Encoder::new(1).ok();
        }
        slot.as_mut()?.compress(middle).ok()
    });
    shrunk.is_some_and(|s| (s.len() as f64) < middle.len() as f64 * WORTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(len: usize) -> Bytes {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out.into()
    }

    #[test]
    fn random_bytes_are_stored_raw_and_text_is_not() {
        assert!(!looks_compressible(&random(100_000)));
        assert!(!looks_compressible(&random(2_000)));
        let text = b"Package: depot\nVersion: 1.0\nArchitecture: amd64\n".repeat(3_000);
        assert!(looks_compressible(&text));
        assert_eq!(Frame::pack(&[random(40_000)], true).codec(), Codec::Raw);
        assert_eq!(Frame::pack(&[text.into()], true).codec(), Codec::Zstd);
    }

    #[test]
    fn flat_counts_with_repeats_are_found() {
        let repeated: Vec<u8> = random(1024).repeat(128);
        assert!(looks_compressible(&repeated));
    }

    #[test]
    fn a_frame_that_decodes_to_more_than_it_says_is_refused() {
        let honest = Frame::pack(&[vec![7; 1000].into()], true);
        let lying = Frame::new(Codec::Zstd, vec![999], honest.stored().clone()).unwrap();
        assert_eq!(lying.chunks(), Err(NotABlock::Bytes));
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        let too_many = vec![1; MAX_BLOCK_CHUNKS + 1];
        let too_much = vec![MAX_CHUNK as u32; MAX_BLOCK_PLAIN / MAX_CHUNK + 1];
        for lens in [vec![], vec![0], vec![MAX_CHUNK as u32 + 1], too_many, too_much] {
            let plain = lens.iter().map(|&n| n as usize).sum();
            let found = Frame::new(Codec::Raw, lens, vec![0; plain].into());
            assert_eq!(found, Err(NotABlock::Lengths));
        }
    }

    proptest! {
        #[test]
        fn chunks_come_back_as_they_were(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 1..20),
            try_zstd: bool,
        ) {
            let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
            let found = Frame::pack(&chunks, try_zstd).chunks().unwrap();
            for ((id, bytes), chunk) in found.iter().zip(&chunks) {
                prop_assert_eq!(bytes, chunk);
                prop_assert_eq!(id.0, Digest::of(chunk));
            }
        }
    }
}
