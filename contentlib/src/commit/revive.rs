//! Making live again what a commit relies on.
//!
//! What a caller found held may have been condemned since it looked. Condemned is not yet purged:
//! the caller's lease is older than the epoch that condemned it. So the commit that refers to it
//! makes it live again, in its own index batch: all that the caller relied on, or the commit fails.

use super::{Leader, Request};
use crate::claims::Claim;
use crate::digest::{ChunkId, Digest};
use crate::error::{CommitError, ReadError};
use crate::gc::{CHUNK, RECIPE, condemned_key};
use crate::index::{ChunkPlace, Form, RecipePlace, Standing};
use crate::kv::{Batch, KvError, Table};
use crate::library::Inner;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Entries looked up at once.
const STEP: usize = 512;

impl Inner {
    /// What a caller relied on may have been condemned since it looked. Condemned is not yet
    /// purged, since the caller's lease is older; so it is made live again.
    pub(super) fn revive(
        &self,
        request: &Request,
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<(), CommitError> {
        // Only leaders lose, and this is one: from here on nothing more is lost.
        if request.relied.losses.is_some_and(|losses| self.writer.lock().losses != losses) {
            return Err(CommitError::Interrupted);
        }
        let roots = request.changes.iter().filter_map(|change| change.outcome()?.root);
        let mut relied = request.relied.unsure.clone();
        if self.condemned.load(SeqCst) > 0 || leader.fresh.is_some() {
            relied.extend(request.relied.digests.iter().copied().chain(roots));
        }
        if relied.is_empty() {
            return Ok(());
        }
        let pending = self.pending_recipes();
        // All or nothing: a recipe is not made live if a chunk of it is gone.
        let mut own = Batch::default();
        for step in relied.chunks(STEP) {
            let ids: Vec<ChunkId> = step.iter().map(|digest| ChunkId(*digest)).collect();
            for (&digest, place) in step.iter().zip(self.index.chunks(&ids)?) {
                // Most of it is a chunk that is live, and needs no second look.
                if place.is_some_and(|place| place.standing == Standing::Live) {
                    if let Some(fresh) = &mut leader.fresh {
                        fresh.insert(digest);
                    }
                    continue;
                }
                match self.revive_one(digest, &pending, &mut own, leader) {
                    Ok(true) => {}
                    Err(ReadError::Index(error)) => return Err(error.into()),
                    Ok(false) | Err(_) => return Err(CommitError::Interrupted),
                }
            }
        }
        batch.changes.append(&mut own.changes);
        Ok(())
    }

    fn revive_one(
        &self,
        digest: Digest,
        pending: &HashMap<Digest, Arc<[ChunkId]>>,
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<bool, ReadError> {
        // Either way of holding it will do; the best is the one that lasts.
        let is_recipe = matches!(self.index.form(digest)?, Some(Form::Recipe(_)));
        let is_chunk = !is_recipe && self.revive_chunks(&[ChunkId(digest)], batch, leader)?;
        if digest == Digest::EMPTY || is_chunk {
            return Ok(true);
        }
        // In this commit, instead of what the index has: stored anew, perhaps cut otherwise.
        if let Some(chunks) = pending.get(&digest) {
            return Ok(self.revive_chunks(chunks, batch, leader)?);
        }
        let Some(place) = self.index.recipe(digest)? else { return Ok(false) };
        if let Some(fresh) = &mut leader.fresh {
            fresh.insert(digest);
        }
        if place.standing == Standing::Condemned {
            let live = RecipePlace { standing: Standing::Live, ..place };
            batch.put(Table::Recipes, *digest.as_bytes(), live.encode());
            batch.delete(Table::Meta, condemned_key(RECIPE, digest));
        }
        Ok(self.revive_chunks(self.recipe_at(digest, place)?.chunks(), batch, leader)?)
    }

    /// Whether all of `ids` are held; live again if they were condemned.
    fn revive_chunks(
        &self,
        ids: &[ChunkId],
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<bool, KvError> {
        for ids in ids.chunks(STEP) {
            for (id, place) in ids.iter().zip(self.index.chunks(ids)?) {
                // A claim that is only taken may come to nothing; an appended chunk is in this
                // commit.
                if place.is_none() && !matches!(self.claims.get(*id), Some(Claim::Appended(_))) {
                    return Ok(false);
                }
                if let Some(fresh) = &mut leader.fresh {
                    fresh.insert(id.0);
                }
                if let Some(place) = place
                    && place.standing == Standing::Condemned
                {
                    let live = ChunkPlace { standing: Standing::Live, ..place };
                    batch.put(Table::Chunks, *id.0.as_bytes(), live.encode());
                    batch.delete(Table::Meta, condemned_key(CHUNK, id.0));
                }
            }
        }
        Ok(true)
    }
}
