//! Golden vectors: where the one chunking profile cuts.
//!
//! Cut points must never move: bytes cut otherwise than before share no chunk with what is
//! stored. The data is the XOF of BLAKE3, so it is the same wherever this runs.

#![allow(clippy::unwrap_used, missing_docs)]

use contentlib::chunker::{Chunker, MAX_CHUNK, MIN_CHUNK};
use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::{AddOptions, Digest, Library, Options, Progress, System};
use std::io::{self, Read};
use std::sync::Arc;

/// `len` bytes from `seed`: random, with runs of zeros and repeats between, as real files have.
fn data(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    for (n, part) in out.chunks_mut(1 << 20).enumerate() {
        match n % 8 {
            // Nothing cuts zeros before the limit.
            3 => part.fill(0),
            5 => {
                let (head, rest) = part.split_at_mut(part.len().min(1000));
                for repeat in rest.chunks_mut(1000) {
                    repeat.copy_from_slice(&head[..repeat.len()]);
                }
            }
            6 => part.iter_mut().for_each(|b| *b = b'a' + *b % 16),
            _ => {}
        }
    }
    out
}

fn sum(lengths: &[usize]) -> String {
    let bytes: Vec<u8> = lengths.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect();
    Digest::of(&bytes).to_hex()[..32].to_owned()
}

const LARGE: usize = (72 << 20) + 12_345;

#[test]
fn cut_points_of_a_large_content_have_not_moved() {
    let content = data(1, LARGE);
    let lengths = Chunker::default().lengths(&content);
    assert_eq!(lengths.iter().sum::<usize>(), LARGE);
    assert_eq!((lengths.len(), sum(&lengths)), (LARGE_COUNT, LARGE_SUM.into()));
}

#[test]
fn cut_points_of_small_contents_have_not_moved() {
    for (seed, len, want) in SMALL {
        assert_eq!(Chunker::default().lengths(&data(*seed, *len)), *want, "{seed} {len}");
    }
}

#[test]
fn what_has_no_cut_point_is_cut_at_the_limit() {
    let lengths = Chunker::default().lengths(&vec![0; 2 * MAX_CHUNK + 5]);
    assert_eq!(lengths, [MAX_CHUNK, MAX_CHUNK, 5]);
    assert_eq!(Chunker::default().lengths(&vec![0; MIN_CHUNK]), [MIN_CHUNK]);
}

/// A reader that gives bytes in odd pieces.
struct Odd<'a> {
    rest: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl Read for Odd<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = *self.sizes.next().unwrap();
        let n = n.min(out.len()).min(self.rest.len());
        out[..n].copy_from_slice(&self.rest[..n]);
        self.rest = &self.rest[n..];
        Ok(n)
    }
}

/// The way in from a stream cuts where the plain function does, however the bytes arrive.
#[test]
fn a_stream_is_cut_as_a_slice_is() {
    let content = data(2, (19 << 20) + 777);
    let want = Chunker::default().lengths(&content);
    for sizes in [&[1 << 16][..], &[1, 65_537, 3, 1 << 20, 31], &[4 << 20], &[(4 << 20) - 1, 2]] {
        let options = Options { threads: 2, reserve: 0, ..Options::default() };
        let (store, kv) = (Arc::new(MemoryStore::default()), Arc::new(MemoryKv::default()));
        let library = Library::open_on(store, kv, Arc::new(System), options).unwrap();
        let session = library.session();
        let reader = Odd { rest: &content, sizes: sizes.iter().cycle() };
        let added =
            session.add_reader(reader, &AddOptions::default(), &Progress::default()).unwrap();
        session.commit(vec![]).unwrap();
        assert_eq!(added.digest, Digest::of(&content));
        let recipe = library.recipe(added.digest).unwrap();
        let found: Vec<usize> =
            recipe.spans().map(|span| (span.bytes.end - span.bytes.start) as usize).collect();
        assert_eq!(found, want, "{sizes:?}");
        let mut at = 0;
        for span in recipe.spans() {
            let len = (span.bytes.end - span.bytes.start) as usize;
            assert_eq!(span.chunk.0, Digest::of(&content[at..at + len]));
            at += len;
        }
        assert_eq!(added.recipe, Some(recipe.digest()));
    }
}

/// The crate's own front-ends agree; they did not always in other versions of it.
#[test]
fn all_front_ends_cut_alike() {
    use contentlib::chunker::AVERAGE_CHUNK;
    use fastcdc::v2020::{FastCDC, Normalization::Level1, StreamCDC};
    let content = data(2, (19 << 20) + 777);
    let want = Chunker::default().lengths(&content);
    let slice = FastCDC::with_level(&content, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK, Level1);
    assert_eq!(slice.map(|chunk| chunk.length).collect::<Vec<_>>(), want);
    let stream = StreamCDC::with_level(&content[..], MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK, Level1);
    assert_eq!(stream.map(|chunk| chunk.unwrap().length).collect::<Vec<_>>(), want);
}

const LARGE_COUNT: usize = 409;
const LARGE_SUM: &str = "00fc52371db97ffe7cfd321c2bd43ee5";
const SMALL: &[(u64, usize, &[usize])] = &[
    (3, 1, &[1]),
    (3, 32_769, &[32_769]),
    (3, 200_000, &[38_459, 73_145, 88_396]),
    (4, 1_000_000, &[126_768, 322_557, 138_525, 35_684, 278_230, 79_745, 18_491]),
    (
        5,
        1_500_000,
        &[
            34_863, 102_289, 151_362, 137_730, 94_211, 199_546, 117_350, 230_131, 93_894, 181_100,
            111_252, 46_272,
        ],
    ),
];
