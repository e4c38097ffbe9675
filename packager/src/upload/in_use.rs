//! Which uploads a request works on right now.
//!
//! A request may take longer than an unused upload is kept: a slow client, or a large content that
//! is hashed. What it works on does not expire under it.

use super::UploadId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How many requests work on each upload.
#[derive(Default)]
pub(crate) struct InUse(Mutex<HashMap<UploadId, usize>>);

impl InUse {
    /// Marks an upload, if `lives` finds it; that is told whether others work on it already.
    /// Nobody else marks or asks meanwhile, so what was found in time cannot expire before the
    /// mark is there.
    pub(super) fn take<T, E>(
        self: &Arc<Self>,
        id: &UploadId,
        lives: impl FnOnce(bool) -> Result<T, E>,
    ) -> Result<(T, Mark), E> {
        let mut counts = self.0.lock();
        let found = lives(counts.contains_key(id))?;
        *counts.entry(id.clone()).or_default() += 1;
        Ok((found, Mark { in_use: self.clone(), id: id.clone() }))
    }

    pub(super) fn contains(&self, id: &UploadId) -> bool {
        self.0.lock().contains_key(id)
    }
}

/// Keeps an upload from expiring until it is dropped.
pub(super) struct Mark {
    in_use: Arc<InUse>,
    pub id: UploadId,
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut counts = self.in_use.0.lock();
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}
