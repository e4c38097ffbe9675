//! Progress of long work: counted by the work, read by whoever shows it, and the way to stop it.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters that long operations add to. All are totals since the operation began.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files (or other units) done.
    pub files: AtomicU64,
    /// Files there are to do; 0 while unknown.
    pub total_files: AtomicU64,
    /// Plain bytes read.
    pub bytes: AtomicU64,
    /// Plain bytes there are to read; 0 while unknown.
    pub total_bytes: AtomicU64,
    /// Plain bytes that were not held before.
    pub new_bytes: AtomicU64,
    /// Bytes appended to packs for them.
    pub stored_bytes: AtomicU64,
    /// What is being done now, where that is told.
    stage: Mutex<String>,
    cancelled: AtomicBool,
}

/// The operation was cancelled; nothing of it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Progress {
    /// Says what is being done now, for a person.
    pub fn set_stage(&self, stage: String) {
        *self.stage.lock() = stage;
    }

    /// What is being done now; empty where that is not told.
    pub fn stage(&self) -> String {
        self.stage.lock().clone()
    }

    /// Asks the operation to end soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// An error once somebody asked to end.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancelled.load(Relaxed) { Err(Cancelled) } else { Ok(()) }
    }

    pub(crate) fn add(&self, counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
}
