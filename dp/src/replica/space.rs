//! Whether there is room for what a version brings, asked before any of its chunks is.
//!
//! What chunks take when they are stored is not known before they come, only their plain bytes. Where those
//! would not fit, those who hold them are asked (`POST /cost`). A version is refused only if its missing
//! chunks do not fit as they are stored there; of what nobody tells anything it is hoped that it fits. What
//! passes and does not fit ends when the volume is full, as anything else does.

use super::plan::not_held;
use super::{Work, local};
use crate::MAX_CHUNKS;
use crate::remote::{RECIPE_REQUESTS, RECIPES_AT_ONCE, RemoteError, blocking};
use contentlib::{ChunkId, Room};
use futures::{StreamExt, TryStreamExt};
use packager::manifest::{FileEntry, Manifest};
use std::collections::HashSet;
use std::sync::Arc;

/// Entries of a manifest that are looked up at a time.
const WINDOW: usize = 4096;
/// Chunks that are told apart at most; of a version with more of them only these are counted.
const MAX_TOLD_APART: usize = 4 << 20;
/// What chunks take is stated to about one part of so many.
const ABOUT: u64 = 16;

/// Whether so many stored bytes cannot fit.
fn cannot_fit(stored: u64, room: Room) -> bool {
    stored - stored / ABOUT > room.usable
}

impl Work {
    /// [`RemoteError::NoRoom`] if what is missing of the files cannot fit. Recipes are asked for, and what
    /// chunks take, only if it might not fit.
    pub(super) async fn has_room(&self, manifest: &Arc<Manifest>) -> Result<(), RemoteError> {
        let (work, packages) = (self.lease.clone(), self.packages.clone());
        let all = manifest.clone();
        let suspect = blocking(move || {
            let Some(room) = packages.library().room().map_err(local)? else { return Ok(None) };
            if all.bytes() <= room.usable {
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
        if files.iter().map(|file| file.size).fold(0, u64::saturating_add) <= room.usable {
            return Ok(());
        }
        let missing = self.missing_chunks(files).await?;
        let costs = missing.chunks(MAX_CHUNKS).map(|ids| async {
            self.progress.check()?;
            Ok::<_, RemoteError>(match self.client.cost(ids).await {
                Ok(costs) => costs.stored,
                Err(error) => {
                    tracing::debug!(%error, "nobody tells what chunks take");
                    0
                }
            })
        });
        let costs: Vec<_> = costs.collect();
        let costs: Vec<u64> =
            futures::stream::iter(costs).buffered(RECIPE_REQUESTS).try_collect().await?;
        let needed = costs.into_iter().fold(0, u64::saturating_add);
        if cannot_fit(needed, room) {
            let Room { free, reserve, .. } = room;
            return Err(RemoteError::NoRoom { needed, free, reserve });
        }
        Ok(())
    }

    /// The chunks of `files` that are not held, each once.
    async fn missing_chunks(&self, files: Vec<FileEntry>) -> Result<Vec<ChunkId>, RemoteError> {
        let (mut missing, mut seen) = (Vec::new(), HashSet::<ChunkId>::new());
        let batches: Vec<_> =
            files.chunks(RECIPES_AT_ONCE).map(|batch| self.chunks_of(batch)).collect();
        let mut batches = futures::stream::iter(batches).buffered(RECIPE_REQUESTS);
        while let Some(mut ids) = batches.try_next().await? {
            self.progress.check()?;
            ids.retain(|id| seen.insert(*id));
            if seen.len() > MAX_TOLD_APART {
                break;
            }
            let lease = self.lease.clone();
            let lacking = blocking(move || {
                let mut is_missing = lease.missing_chunks(&ids).map_err(local)?.into_iter();
                ids.retain(|_| is_missing.next().unwrap_or(false));
                Ok(ids)
            });
            missing.extend(lacking.await?);
        }
        Ok(missing)
    }

    /// The chunks of some files.
    async fn chunks_of(&self, files: &[FileEntry]) -> Result<Vec<ChunkId>, RemoteError> {
        let signed = files.iter().filter_map(|file| Some((*file, file.recipe?)));
        let recipes = self.client.recipes(signed.collect()).await?;
        let alone = files.iter().filter(|file| file.recipe.is_none());
        let alone = alone.map(|file| ChunkId(file.digest));
        Ok(recipes.iter().flat_map(|recipe| recipe.chunks().iter().copied()).chain(alone).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_fit_as_it_is_stored_is_refused() {
        let room = Room { free: 150, reserve: 50, usable: 100 };
        assert!(!cannot_fit(0, Room::default()) && !cannot_fit(106, room));
        assert!(cannot_fit(108, room) && cannot_fit(u64::MAX, room));
    }
}
