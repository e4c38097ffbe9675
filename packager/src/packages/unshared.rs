//! What versions have to themselves: the bytes that become free where they go and others stay.

use super::Packages;
use crate::error::PackageError;
use crate::sign::VersionInfo;
use contentlib::{ChunkId, Digest};
use std::collections::{HashMap, HashSet};

/// Chunks that some versions have and others have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unshared {
    /// How many.
    pub chunks: u64,
    /// Their bytes together, before they are compressed.
    pub bytes: u64,
}

impl Packages {
    /// What the versions in `gone`, their manifests included, have that none in `stays` has. All of
    /// them must be held here; a damaged manifest or recipe is an error, since what it has is not known.
    pub fn unshared(
        &self,
        gone: &[VersionInfo],
        stays: &[VersionInfo],
    ) -> Result<Unshared, PackageError> {
        let mut chunks: HashMap<ChunkId, u64> = HashMap::new();
        let mut seen = HashSet::new();
        for version in gone {
            self.each_chunk(version, &mut seen, &mut |chunk, bytes| {
                chunks.insert(chunk, bytes);
            })?;
        }
        let mut seen = HashSet::new();
        for version in stays {
            if chunks.is_empty() {
                break;
            }
            self.each_chunk(version, &mut seen, &mut |chunk, _| {
                chunks.remove(&chunk);
            })?;
        }
        Ok(Unshared { chunks: chunks.len() as u64, bytes: chunks.values().sum() })
    }

    /// Calls `visit` with the chunks of a version's contents that were not `seen`, and their lengths.
    fn each_chunk(
        &self,
        version: &VersionInfo,
        seen: &mut HashSet<Digest>,
        visit: &mut dyn FnMut(ChunkId, u64),
    ) -> Result<(), PackageError> {
        let manifest = self.manifest(version.manifest)?;
        let contents = std::iter::once(version.manifest).chain(manifest.digests().iter().copied());
        for content in contents {
            if seen.insert(content) {
                let recipe = self.library().recipe(content)?;
                for span in recipe.spans() {
                    visit(span.chunk, span.bytes.end - span.bytes.start);
                }
            }
        }
        Ok(())
    }
}
