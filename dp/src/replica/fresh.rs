//! Chunks that came just now, in memory until the contents that they are parts of were hashed: so that
//! they need not be read back for it.
//!
//! It only ever saves work. What finds no room here is read from the library.

use bytes::Bytes;
use contentlib::ChunkId;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The most bytes that are kept.
const ROOM: usize = 64 << 20;

/// The chunks, each known to be what its name says.
#[derive(Default)]
pub(super) struct Fresh(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    chunks: HashMap<ChunkId, Bytes>,
    bytes: usize,
}

impl Fresh {
    /// Keeps a chunk, if there is room.
    pub fn keep(&self, id: ChunkId, bytes: Bytes) {
        let mut kept = self.0.lock();
        let length = bytes.len();
        // Those that came before are needed before.
        if kept.bytes + length <= ROOM && kept.chunks.insert(id, bytes).is_none() {
            kept.bytes += length;
        }
    }

    /// Hands out a chunk, which is not kept any longer.
    pub fn take(&self, id: ChunkId) -> Option<Bytes> {
        let mut kept = self.0.lock();
        let bytes = kept.chunks.remove(&id)?;
        kept.bytes -= bytes.len();
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::Digest;

    #[test]
    fn what_is_kept_is_bounded_and_handed_out_once() {
        let fresh = Fresh::default();
        let bytes = Bytes::from(vec![7; 16 << 20]);
        let id = |n: u8| ChunkId(Digest::of(&[n]));
        (0..5).for_each(|n| fresh.keep(id(n), bytes.clone()));
        fresh.keep(id(0), bytes.clone());
        assert_eq!(fresh.take(id(4)), None, "there was no room");
        assert_eq!(fresh.take(id(0)), Some(bytes.clone()));
        assert_eq!(fresh.take(id(0)), None);
        fresh.keep(id(4), bytes.clone());
        assert_eq!(fresh.take(id(4)), Some(bytes));
    }
}
