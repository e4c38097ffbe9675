//! What comes of deltas: chunks, each hashed before it counts.
//!
//! A delta is of use or it is not: what does not come of it right, for whatever reason, is asked for as
//! chunks afterwards. Of one that was cut off, the chunks count that came until then. Base and result
//! are in memory, so few deltas of all versions under way are decoded at a time.

use super::local;
use super::plan::Piece;
use super::take::{Store, Taking};
use crate::remote::{Delta, RemoteError, TakeDelta, Wanted, blocking};
use bytes::Bytes;
use contentlib::delta::{MAX_BASE, decode, decode_beginning};
use contentlib::{ChunkId, Library};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Semaphore;

/// Deltas that this process decodes at a time, each in up to 80 MiB of memory.
const DECODERS: usize = 2;
static DECODING: Semaphore = Semaphore::const_new(DECODERS);

impl TakeDelta for Taking {
    async fn take_delta(
        &mut self,
        wanted: &[Wanted],
        delta: Delta,
    ) -> Result<Vec<ChunkId>, RemoteError> {
        self.work.count_moved();
        self.work.progress.check()?;
        let (Delta::Whole(bytes) | Delta::Beginning(bytes)) = &delta;
        self.work.delta_bytes.fetch_add(bytes.len() as u64, Relaxed);
        let _turn = DECODING.acquire().await.expect("never closed");
        let (library, base) = (self.work.packages.library().clone(), self.base.clone());
        let length = wanted.iter().map(|(_, length)| *length as usize).sum();
        let is_whole = matches!(delta, Delta::Whole(_));
        let work = self.work.clone();
        let made = blocking(move || {
            let mut bytes = work.spare.take();
            let made = make(&library, &base, &delta, length, &mut bytes);
            work.spare.put(bytes);
            Ok(made)
        });
        let mut made: Bytes = made.await?;
        let mut chunks = Vec::with_capacity(wanted.len());
        for (id, length) in wanted {
            if (made.len() as u64) < *length {
                break;
            }
            chunks.push((*id, made.split_to(*length as usize)));
        }
        let came = self.store.put_chunks(chunks).await?;
        if is_whole && came.len() < wanted.len() {
            let (library, base) = (self.work.packages.library().clone(), self.base.clone());
            blocking(move || {
                look_for_damage(&library, &base);
                Ok(())
            })
            .await?;
        }
        Ok(self.note(came))
    }
}

/// Memory that bases were read into, for the next ones: fresh pages would cost more than what is done in
/// them.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        // Room that is not used costs nothing, and growing would copy.
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(MAX_BASE))
    }

    fn put(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut spare = self.0.lock();
        if spare.len() < DECODERS {
            spare.push(bytes);
        }
    }
}

/// The bytes that a delta makes from a base, which is read into `bytes`; none, or the first ones, if it is
/// of no use. Blocks.
fn make(
    library: &Library,
    base: &[ChunkId],
    delta: &Delta,
    length: usize,
    bytes: &mut Vec<u8>,
) -> Bytes {
    if read_base(library, base, bytes).is_none() {
        return Bytes::new();
    }
    match delta {
        Delta::Beginning(delta) => decode_beginning(bytes, delta, length),
        Delta::Whole(delta) => decode(bytes, delta, length).unwrap_or_else(|error| {
            tracing::warn!(%error, "a delta is of no use; its chunks are asked for");
            Bytes::new()
        }),
    }
}

/// Reads a base; nothing if some of its chunks are not held any more, or known to be damaged.
fn read_base(library: &Library, ids: &[ChunkId], base: &mut Vec<u8>) -> Option<()> {
    for id in ids {
        // What is made of it is hashed.
        let read = library.read_chunk_unchecked(*id);
        let read =
            read.inspect_err(|error| tracing::warn!(%error, "the base of a delta is not whole"));
        let bytes = read.ok()?;
        if base.len() + bytes.len() > MAX_BASE {
            return None;
        }
        base.extend_from_slice(&bytes);
    }
    Some(())
}

/// Reads a base of which nothing right came, each chunk checked: one that is damaged is marked by it.
/// Blocks.
fn look_for_damage(library: &Library, base: &[ChunkId]) {
    for id in base {
        if let Err(error) = library.read_chunk(*id) {
            tracing::warn!(chunk = %id, %error, "the base of a delta is not whole");
        }
    }
}

impl Store {
    /// Stores chunks that were rebuilt, each if it is what its name says. Answers with those.
    async fn put_chunks(
        &self,
        mut chunks: Vec<(ChunkId, Bytes)>,
    ) -> Result<Vec<(ChunkId, Bytes)>, RemoteError> {
        let store = self.clone();
        blocking(move || {
            let mut right =
                store.session().put_chunks(&chunks).map_err(local)?.into_iter().peekable();
            chunks.retain(|(id, _)| right.next_if_eq(id).is_some());
            store.save_now_and_then()?;
            Ok(chunks)
        })
        .await
    }
}

/// What is asked for as a delta, and to what.
#[derive(Default)]
pub(super) struct Near {
    pub pieces: Vec<Piece>,
    pub base: Vec<ChunkId>,
    base_bytes: u64,
    seen: HashSet<ChunkId>,
}

impl Near {
    /// Whether the chunks of `held` fit into the base, those of them that are not in it yet.
    pub fn has_room(&self, held: &[(ChunkId, u64)]) -> bool {
        let new = held.iter().filter(|(id, _)| !self.seen.contains(id));
        let (n, bytes) = new.fold((0, 0), |(n, bytes), (_, length)| (n + 1, bytes + length));
        self.base.len() + n <= crate::MAX_CHUNKS && self.base_bytes + bytes <= MAX_BASE as u64
    }

    /// Adds a piece, and what it is likely to be like.
    pub fn push(&mut self, piece: Piece, held: &[(ChunkId, u64)]) {
        for (id, length) in held {
            if self.seen.insert(*id) {
                self.base.push(*id);
                self.base_bytes += length;
            }
        }
        self.pieces.push(piece);
    }
}
