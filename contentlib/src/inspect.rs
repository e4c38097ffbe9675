//! Looking at a library: numbers, what is damaged, who holds what.

use crate::digest::{ChunkId, Digest};
use crate::error::{AddError, MaintainError};
use crate::index::{ChunkPlace, RecipePlace, Standing};
use crate::library::Library;
use crate::links::{Holder, Links, Why, holders};
use crate::store::PackStore;
use crate::volumes::VolumeStats;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::SeqCst;

/// Numbers about a library.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LibraryStats {
    /// Contents with a recipe, that is of more than one chunk.
    pub recipes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Plain bytes of all chunks.
    pub plain_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Entries condemned and not yet purged.
    pub condemned: u64,
    /// Of those, the ones that a lease keeps: of work that is under way, or was imported.
    pub kept: u64,
    /// Chunks and recipes known to be damaged.
    pub suspects: u64,
    /// Free bytes of all volumes that take new packs, if known; those of a file system count
    /// once.
    pub free_bytes: Option<u64>,
    /// The volumes, the home first.
    pub volumes: Vec<VolumeStats>,
}

/// How much room there is for new packs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Free bytes.
    pub free: u64,
    /// What is to stay free, for garbage collection.
    pub reserve: u64,
    /// What may be written: of each file system what is free above its reserve.
    pub usable: u64,
}

impl Library {
    /// Numbers about the library. Walks the index.
    pub fn stats(&self) -> Result<LibraryStats, MaintainError> {
        let inner = &self.inner;
        let mut stats = LibraryStats::default();
        inner.index.each_chunk(|_, place| {
            stats.chunks += 1;
            stats.plain_bytes += u64::from(place.plain_len);
            ControlFlow::Continue(())
        })?;
        inner.index.each_recipe(|_, _| {
            stats.recipes += 1;
            ControlFlow::Continue(())
        })?;
        for (_, info) in inner.index.packs()? {
            stats.packs += 1;
            stats.stored_bytes += info.len;
        }
        stats.condemned = inner.condemned.load(SeqCst);
        stats.kept = self.n_condemned_and_kept()?;
        stats.suspects = self.suspects()?.len() as u64;
        stats.free_bytes = inner.store.free_space().unwrap_or(None);
        stats.volumes = self.volumes()?;
        Ok(stats)
    }

    /// Bytes free on all volumes that take new packs, and of them those that are kept in reserve;
    /// nothing if a volume does not tell. Those of a file system count once.
    pub fn room(&self) -> Result<Option<Room>, AddError> {
        let mut room = Room::default();
        for (free, reserve) in self.inner.store.file_systems().map_err(AddError::Store)? {
            let Some(free) = free else { return Ok(None) };
            room.free = room.free.saturating_add(free);
            room.reserve = room.reserve.saturating_add(reserve);
            room.usable = room.usable.saturating_add(free.saturating_sub(reserve));
        }
        Ok(Some(room))
    }

    /// Visits the chunks that are held and not known to be damaged, in the order of their names, until
    /// `visit` breaks. What is condemned counts as not held. Walks the index.
    pub fn each_chunk(
        &self,
        mut visit: impl FnMut(ChunkId) -> ControlFlow<()>,
    ) -> Result<(), MaintainError> {
        let each = |id, place: ChunkPlace| match place.standing {
            Standing::Live => visit(id),
            _ => ControlFlow::Continue(()),
        };
        Ok(self.inner.index.each_chunk(each)?)
    }

    /// Visits the contents of more than one chunk whose recipe is held, as
    /// [`Library::each_chunk`] does. Whether their chunks are, that tells.
    pub fn each_recipe(
        &self,
        mut visit: impl FnMut(Digest) -> ControlFlow<()>,
    ) -> Result<(), MaintainError> {
        let each = |content, place: RecipePlace| match place.standing {
            Standing::Live => visit(content),
            _ => ControlFlow::Continue(()),
        };
        Ok(self.inner.index.each_recipe(each)?)
    }

    /// Chunks and recipes known to be damaged and not yet healed.
    pub fn suspects(&self) -> Result<Vec<Digest>, MaintainError> {
        Ok(self.inner.index.suspects()?)
    }

    /// Who holds `digest`, a content or a chunk.
    pub fn why(&self, digest: Digest, links: &dyn Links) -> Result<Why, MaintainError> {
        let inner = &self.inner;
        let chunk = inner.index.chunk(ChunkId(digest))?;
        let recipe = inner.index.recipe(digest)?;
        let standing = recipe.map(|p| p.standing).or(chunk.map(|p| p.standing));
        let mut chunk_of = Vec::new();
        if chunk.is_some() {
            let mut all = Vec::new();
            inner.index.each_recipe(|content, place| {
                all.push((content, place));
                ControlFlow::Continue(())
            })?;
            for (content, place) in all {
                if let Ok(recipe) = inner.recipe_at(content, place)
                    && recipe.chunks().contains(&ChunkId(digest))
                {
                    chunk_of.push(content);
                }
            }
        }
        let mut wanted = chunk_of.clone();
        wanted.push(digest);
        let mut holders: Vec<Holder> =
            holders(self, &wanted, links)?.into_values().flatten().collect();
        holders.sort();
        holders.dedup();
        let state = match standing {
            None => "absent",
            Some(Standing::Live) => "live",
            Some(Standing::Condemned) => "condemned",
            Some(Standing::Suspect) => "suspect",
        };
        Ok(Why { digest, held: standing.is_some(), state, holders, chunk_of })
    }
}
