//! Hashing a whole content beside cutting it.
//!
//! A content's digest covers all its bytes in order, so one thread at a time can hash them; but it
//! need not be the one that cuts. That is what keeps a second core busy on a single large file.

use crate::digest::Digest;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// The hash of a whole content, which must take its bytes in order. The thread that cuts leaves
/// them here; an idle one takes them when there is one.
#[derive(Default)]
pub(super) struct WholeHash {
    pub(super) hasher: Mutex<blake3::Hasher>,
    pub(super) waiting: Mutex<VecDeque<Bytes>>,
}

/// Chunks that may wait to be hashed into the whole.
pub(super) const WAITING: usize = 64;

impl WholeHash {
    /// Hashes what waits, unless another thread is at it.
    pub(super) fn catch_up(&self) {
        if let Some(hasher) = self.hasher.try_lock() {
            self.drain(hasher);
        }
    }

    pub(super) fn drain(&self, mut hasher: parking_lot::MutexGuard<'_, blake3::Hasher>) {
        loop {
            let next = self.waiting.lock().pop_front();
            let Some(bytes) = next else { return };
            hasher.update(&bytes);
        }
    }

    pub(super) fn finish(&self) -> Digest {
        let mut hasher = self.hasher.lock();
        for bytes in self.waiting.lock().drain(..) {
            hasher.update(&bytes);
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }
}
