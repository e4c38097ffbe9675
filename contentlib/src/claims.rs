//! Claims: chunks that are on their way into a pack and not yet in the index.
//!
//! Two writers that meet the same new chunk must not both store it. The first claims it; others
//! rely on the claim, and their commit waits until the chunk is appended. A claim ends when its
//! chunk is in the index, or when its writer failed: then those that relied on it fail too.

use crate::digest::ChunkId;
use crate::index::ChunkPlace;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;

const SHARDS: usize = 16;

/// How far a claimed chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Being compressed.
    Taken,
    /// In a pack, not yet in the index.
    Appended(ChunkPlace),
}

#[derive(Default)]
struct Shard {
    claims: Mutex<HashMap<ChunkId, Claim>>,
    changed: Condvar,
}

/// All claims of a library.
#[derive(Default)]
pub(crate) struct Claims {
    shards: [Shard; SHARDS],
}

impl Claims {
    fn shard(&self, id: ChunkId) -> &Shard {
        &self.shards[id.0.as_bytes()[0] as usize % SHARDS]
    }

    /// Claims `id`. `false` if somebody else has it.
    pub(crate) fn take(&self, id: ChunkId) -> bool {
        let mut claims = self.shard(id).claims.lock();
        if claims.contains_key(&id) {
            return false;
        }
        claims.insert(id, Claim::Taken);
        true
    }

    pub(crate) fn get(&self, id: ChunkId) -> Option<Claim> {
        self.shard(id).claims.lock().get(&id).copied()
    }

    /// The chunk is in a pack now.
    pub(crate) fn appended(&self, id: ChunkId, place: ChunkPlace) {
        let shard = self.shard(id);
        shard.claims.lock().insert(id, Claim::Appended(place));
        shard.changed.notify_all();
    }

    /// The chunk is in the index now, or its writer failed.
    pub(crate) fn end(&self, id: ChunkId) {
        let shard = self.shard(id);
        shard.claims.lock().remove(&id);
        shard.changed.notify_all();
    }

    /// Waits while `id` is taken and not yet appended. Compressing a block takes milliseconds,
    /// and a writer that fails ends its claims, so this ends.
    pub(crate) fn wait(&self, id: ChunkId) {
        let shard = self.shard(id);
        let mut claims = shard.claims.lock();
        while claims.get(&id) == Some(&Claim::Taken) {
            shard.changed.wait(&mut claims);
        }
    }
}
