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
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Semaphore;

/// Deltas that this process decodes at a time, each in up to 80 MiB of memory.
static DECODING: Semaphore = Semaphore::const_new(2);

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
        let made = blocking(move || Ok(make(&library, &base, &delta, length)));
        let mut made: Bytes = made.await?;
        let mut chunks = Vec::with_capacity(wanted.len());
        for (id, length) in wanted {
            if (made.len() as u64) < *length {
                break;
            }
            chunks.push((*id, made.split_to(*length as usize)));
        }
        let came = self.store.put_chunks(chunks).await?;
        self.note(&came);
        Ok(came)
    }
}

/// The bytes that a delta makes from a base; none, or the first ones, if it is of no use. Blocks.
fn make(library: &Library, base: &[ChunkId], delta: &Delta, length: usize) -> Bytes {
    let Some(base) = read_base(library, base) else { return Bytes::new() };
    match delta {
        Delta::Beginning(delta) => decode_beginning(&base, delta, length),
        Delta::Whole(delta) => decode(&base, delta, length).unwrap_or_else(|error| {
            tracing::warn!(%error, "a delta is of no use; its chunks are asked for");
            Bytes::new()
        }),
    }
}

/// The bytes of a base; nothing if some of them are not held any more, or are damaged.
fn read_base(library: &Library, ids: &[ChunkId]) -> Option<Vec<u8>> {
    let mut base = Vec::new();
    for id in ids {
        let read = library.read_chunk(*id);
        let read =
            read.inspect_err(|error| tracing::warn!(%error, "the base of a delta is not whole"));
        base.extend_from_slice(&read.ok()?);
        if base.len() > MAX_BASE {
            return None;
        }
    }
    Some(base)
}

impl Store {
    /// Stores chunks that were rebuilt, each if it is what its name says. Answers which those are.
    async fn put_chunks(&self, chunks: Vec<(ChunkId, Bytes)>) -> Result<Vec<ChunkId>, RemoteError> {
        let store = self.clone();
        blocking(move || {
            let ids = store.session().put_chunks(&chunks).map_err(local)?;
            store.save_now_and_then()?;
            Ok(ids)
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
