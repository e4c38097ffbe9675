//! Whether there is room for what a version brings, asked before any of its chunks is.
//!
//! What chunks take when they are stored is not known before they come, only their plain bytes. So the
//! answer is an estimate that lets through what may fit: a version is refused only if its missing chunks
//! would not fit even at an eighth of their size. What passes and does not fit ends when the volume is
//! full, as anything else does.

use super::plan::not_held;
use super::{Work, local};
use crate::remote::{RECIPES_IN_FLIGHT, RemoteError, blocking, recipe};
use contentlib::{ChunkId, Room};
use futures::{StreamExt, TryStreamExt};
use packager::manifest::{FileEntry, Manifest};
use std::collections::HashSet;
use std::sync::Arc;

/// Chunks are taken to shrink to one part of so many at best.
const SHRINKS: u64 = 8;
/// Entries of a manifest that are looked up at a time.
const WINDOW: usize = 4096;
/// Chunks that are told apart at most; of a version with more of them it is not known what it needs.
const MAX_TOLD_APART: usize = 4 << 20;

/// Whether so many plain bytes cannot fit.
fn cannot_fit(bytes: u64, room: Room) -> bool {
    bytes / SHRINKS > room.usable
}

impl Work {
    /// [`RemoteError::NoRoom`] if what is missing of the files cannot fit. Recipes are asked for only
    /// if it would not fit without what is held of the missing files.
    pub(super) async fn has_room(&self, manifest: &Arc<Manifest>) -> Result<(), RemoteError> {
        let (work, packages) = (self.lease.clone(), self.packages.clone());
        let all = manifest.clone();
        let suspect = blocking(move || {
            let Some(room) = packages.library().room().map_err(local)? else { return Ok(None) };
            if !cannot_fit(all.bytes(), room) {
                return Ok(None);
            }
            let (mut seen, mut missing) = (HashSet::new(), Vec::new());
            for start in (0..all.len()).step_by(WINDOW) {
                let window = start..all.len().min(start + WINDOW);
                let files: Vec<FileEntry> = window.filter_map(|at| all.entry(at).file()).collect();
                let lacking = not_held(&work, files)?;
                missing.extend(lacking.into_iter().filter(|file| seen.insert(file.digest)));
            }
            Ok(Some((room, missing)))
        });
        let Some((room, files)) = suspect.await? else { return Ok(()) };
        // What it needs at most; less with each chunk that turns out to be held.
        let mut needed = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        if !cannot_fit(needed, room) {
            return Ok(());
        }
        let (mut certain, mut seen) = (0u64, HashSet::<ChunkId>::new());
        let recipes = futures::stream::iter(files).map(|file| async move {
            let recipe = match file.recipe {
                Some(signed) => Some(recipe(&self.client, &file, signed).await?),
                None => None,
            };
            Ok::<_, RemoteError>((file, recipe))
        });
        let mut recipes = std::pin::pin!(recipes.buffered(RECIPES_IN_FLIGHT));
        while let Some((file, recipe)) = recipes.try_next().await? {
            self.progress.check()?;
            let chunks: Vec<(ChunkId, u64)> = match &recipe {
                None => vec![(ChunkId(file.digest), file.size)],
                Some(recipe) => {
                    let spans = recipe.spans();
                    spans.map(|span| (span.chunk, span.bytes.end - span.bytes.start)).collect()
                }
            };
            if seen.len() + chunks.len() > MAX_TOLD_APART {
                return Ok(());
            }
            let (lease, ids) = (self.lease.clone(), chunks.iter().map(|(id, _)| *id).collect());
            let ids: Vec<ChunkId> = ids;
            let missing = blocking(move || lease.missing_chunks(&ids).map_err(local)).await?;
            for ((id, len), is_missing) in chunks.into_iter().zip(missing) {
                if is_missing && seen.insert(id) {
                    certain = certain.saturating_add(len);
                } else {
                    needed = needed.saturating_sub(len);
                }
            }
            if cannot_fit(certain, room) {
                let Room { free, reserve, .. } = room;
                return Err(RemoteError::NoRoom { needed, free, reserve });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_fit_compressed_is_refused() {
        let room = Room { free: 150, reserve: 50, usable: 100 };
        assert!(!cannot_fit(0, Room::default()) && !cannot_fit(800, room));
        assert!(cannot_fit(808, room) && cannot_fit(u64::MAX, room));
    }
}
