//! The manifests and lists of files on demand read last, decoded.
//!
//! A distribution point looks into the same few for every request by name, and decoding one of a
//! hundred thousand entries takes ten milliseconds.

use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::on_demand::OnDemand;
use contentlib::Digest;
use parking_lot::Mutex;
use std::sync::Arc;

/// Entries that all cached ones have together; one has about 100 bytes.
const MAX_CACHED: usize = 1_000_000;

/// What has entries.
pub(super) trait Entries {
    fn n_entries(&self) -> usize;
}

impl Entries for Manifest {
    fn n_entries(&self) -> usize {
        self.len()
    }
}

impl Entries for OnDemand {
    fn n_entries(&self) -> usize {
        self.len()
    }
}

/// Newest last.
pub(super) struct ReadLast<T>(Mutex<Vec<(Digest, Arc<T>)>>);

impl<T> Default for ReadLast<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Entries> ReadLast<T> {
    pub(super) fn get(
        &self,
        digest: Digest,
        read: impl FnOnce() -> Result<T, PackageError>,
    ) -> Result<Arc<T>, PackageError> {
        if let Some(found) = self.find(digest) {
            return Ok(found);
        }
        // Read outside the lock: others find theirs meanwhile.
        let found = Arc::new(read()?);
        self.put(digest, found.clone());
        Ok(found)
    }

    fn find(&self, digest: Digest) -> Option<Arc<T>> {
        let mut cached = self.0.lock();
        let at = cached.iter().rposition(|(of, _)| *of == digest)?;
        cached[at..].rotate_left(1);
        cached.last().map(|(_, found)| found.clone())
    }

    pub(super) fn put(&self, digest: Digest, new: Arc<T>) {
        let mut cached = self.0.lock();
        cached.retain(|(of, _)| *of != digest);
        cached.push((digest, new));
        // Each counts a hundred more, so that many small ones are bounded too.
        let mut room = MAX_CACHED;
        let fits = |(_, one): &&(Digest, Arc<T>)| {
            let cost = one.n_entries() + 100;
            let fits = cost <= room;
            room = room.saturating_sub(cost);
            fits
        };
        let keep = cached.iter().rev().take_while(fits).count().max(1);
        let over = cached.len() - keep;
        cached.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::tree;

    #[test]
    fn a_manifest_is_read_once_while_it_is_among_the_last() {
        let cache = ReadLast::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        let mut reads = 0;
        for n in [0, 1, 0, 1] {
            cache
                .get(digest(n), || {
                    reads += 1;
                    Ok(tree(&["a"]))
                })
                .unwrap();
        }
        assert_eq!(reads, 2);
        let names: Vec<_> = (0..10_000).map(|n| format!("{n:05}")).collect();
        let large = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for n in 2..200 {
            cache.get(digest(0), || panic!("still wanted")).unwrap();
            cache.get(digest(n), || Ok(large.clone())).unwrap();
        }
        assert!(cache.0.lock().len() < 100);
    }
}
