//! Chunks that are cut and not yet hashed.
//!
//! The thread that cuts a single large file is the one that all others wait for. So it leaves the
//! chunks of a buffer here, and an idle thread hashes them from the other end.

use crate::digest::{ChunkId, Digest};
use bytes::Bytes;
use std::sync::OnceLock;

/// The chunks of one buffer, in order.
pub(super) struct Unnamed(Vec<(Bytes, OnceLock<ChunkId>)>);

impl Unnamed {
    pub(super) fn new(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Self(chunks.into_iter().map(|chunk| (chunk, OnceLock::new())).collect())
    }

    /// The chunks with their names, in order. Waits where another thread is at one.
    pub(super) fn named(&self) -> impl Iterator<Item = (ChunkId, &Bytes)> {
        self.0.iter().map(|(chunk, id)| (*id.get_or_init(|| ChunkId(Digest::of(chunk))), chunk))
    }

    /// Hashes chunks, the last first.
    pub(super) fn help(&self) {
        for (chunk, id) in self.0.iter().rev() {
            if id.get().is_none() {
                id.get_or_init(|| ChunkId(Digest::of(chunk)));
            }
        }
    }
}
