//! The manifests read last, decoded.
//!
//! A distribution point looks into the same few for every request by name, and decoding one of a
//! hundred thousand entries takes ten milliseconds.

use crate::error::PackageError;
use crate::manifest::Manifest;
use contentlib::Digest;
use parking_lot::Mutex;
use std::sync::Arc;

/// Entries that all cached manifests have together; one has about 100 bytes.
const MAX_CACHED: usize = 1_000_000;

/// Newest last.
#[derive(Default)]
pub(super) struct ManifestCache(Mutex<Vec<(Digest, Arc<Manifest>)>>);

impl ManifestCache {
    pub(super) fn get(
        &self,
        digest: Digest,
        read: impl FnOnce() -> Result<Manifest, PackageError>,
    ) -> Result<Arc<Manifest>, PackageError> {
        if let Some(found) = self.find(digest) {
            return Ok(found);
        }
        // Read outside the lock: others find theirs meanwhile.
        let manifest = Arc::new(read()?);
        self.put(digest, manifest.clone());
        Ok(manifest)
    }

    fn find(&self, digest: Digest) -> Option<Arc<Manifest>> {
        let mut cached = self.0.lock();
        let at = cached.iter().rposition(|(of, _)| *of == digest)?;
        cached[at..].rotate_left(1);
        cached.last().map(|(_, manifest)| manifest.clone())
    }

    pub(super) fn put(&self, digest: Digest, manifest: Arc<Manifest>) {
        let mut cached = self.0.lock();
        cached.retain(|(of, _)| *of != digest);
        cached.push((digest, manifest));
        // Each counts a hundred more, so that many small ones are bounded too.
        let mut room = MAX_CACHED;
        let fits = |(_, manifest): &&(Digest, Arc<Manifest>)| {
            let cost = manifest.len() + 100;
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
        let cache = ManifestCache::default();
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
