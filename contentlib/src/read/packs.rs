//! The packs that are open to read, and which of their raw chunks were hashed since somebody wrote to them.

use crate::digest::PackId;
use crate::error::ReadError;
use crate::library::Inner;
use crate::store::volumes::Volumes;
use crate::store::{PackFile, PackStore};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// Packs kept open. A library has tens of thousands; files are a limited resource.
const OPEN_PACKS: usize = 512;
/// Chunks of one pack that are remembered as verified; past this all are forgotten.
const VERIFIED: usize = 1 << 16;

/// One pack, open to read.
pub(crate) struct OpenPack {
    pub id: PackId,
    pub file: Arc<dyn PackFile>,
    verified: Mutex<Verified>,
}

#[derive(Default)]
struct Verified {
    stamp: u64,
    ordinals: HashSet<u32>,
}

impl OpenPack {
    /// Whether the chunk at `ordinal` was hashed since the pack, whose stamp is now `stamp`, last
    /// changed.
    pub(super) fn is_verified(&self, ordinal: u32, stamp: u64) -> bool {
        let mut verified = self.verified.lock();
        if stamp == 0 || verified.stamp != stamp {
            verified.stamp = stamp;
            verified.ordinals.clear();
            return false;
        }
        verified.ordinals.contains(&ordinal)
    }

    pub(super) fn set_verified(&self, ordinal: u32, stamp: u64) {
        let mut verified = self.verified.lock();
        if stamp == 0 || verified.stamp != stamp {
            return;
        }
        if verified.ordinals.len() >= VERIFIED {
            verified.ordinals.clear();
        }
        verified.ordinals.insert(ordinal);
    }
}

/// The packs that are open to read.
pub(crate) struct Packs {
    store: Arc<Volumes>,
    open: Cache<u32, Arc<OpenPack>>,
    /// Packs that are written to and not yet in the index.
    minted: Mutex<HashMap<u32, PackId>>,
}

impl Packs {
    pub(crate) fn new(store: Arc<Volumes>) -> Self {
        Self { store, open: Cache::new(OPEN_PACKS), minted: Mutex::default() }
    }

    /// A pack that the index does not know was begun.
    pub(crate) fn minted(&self, seq: u32, id: PackId) {
        self.minted.lock().insert(seq, id);
    }

    /// The index knows the pack now.
    pub(crate) fn indexed(&self, seq: u32) {
        self.minted.lock().remove(&seq);
    }

    pub(super) fn get(&self, inner: &Inner, seq: u32) -> Result<Arc<OpenPack>, ReadError> {
        if let Some(pack) = self.open.get(&seq) {
            return Ok(pack);
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        // In this order: a pack leaves the first only when it is in the second.
        let minted = self.minted.lock().get(&seq).copied();
        let id = match minted {
            Some(id) => Some(id),
            None => inner.index.pack(seq)?.map(|info| info.id),
        };
        let id = id.ok_or(PackId(0));
        let id = id.map_err(|pack| ReadError::Store { pack, source: gone() })?;
        let moves = self.store.moves();
        let file = self.store.open(id).map_err(|source| ReadError::Store { pack: id, source })?;
        let pack = Arc::new(OpenPack { id, file, verified: Mutex::default() });
        self.open.insert(seq, pack.clone());
        if self.store.moves() != moves {
            // Perhaps moved since it was opened: kept, it would hold on to the old volume.
            self.open.remove(&seq);
        }
        Ok(pack)
    }

    pub(crate) fn forget(&self, seq: u32) {
        self.open.remove(&seq);
    }
}
