//! What appended records become in the index.
//!
//! The same for a commit and for the replay of packs: places of chunks and recipes, other names,
//! refs. A record that was stored anew wins over what garbage collection copied of the old one, and
//! a copy counts only if nobody moved its entry meanwhile.

use super::Leader;
use crate::digest::{ChunkId, Digest, Name};
use crate::index::{ChunkPlace, Index, RecipePlace, Standing, alias_key, suspect_key};
use crate::kv::{Batch, KvError, Table};
use crate::refs::{Outcomes, encode_ref};
use std::collections::HashSet;
use std::sync::Arc;

/// A record that is in a pack and not yet in the index.
pub(crate) enum Pending {
    Chunks(Vec<(ChunkId, ChunkPlace)>),
    Recipe {
        content: Digest,
        place: RecipePlace,
        chunks: Arc<[ChunkId]>,
    },
    Alias {
        content: Digest,
        names: Vec<Name>,
    },
    /// A chunk that garbage collection copied; it counts only if nobody moved it meanwhile.
    MovedChunk {
        id: ChunkId,
        from: ChunkPlace,
        to: ChunkPlace,
    },
    MovedRecipe {
        content: Digest,
        from: RecipePlace,
        to: RecipePlace,
    },
}

impl Pending {
    /// What may be noted as damaged and is healed by this record.
    pub(super) fn names(&self) -> Vec<Digest> {
        match self {
            Pending::Chunks(chunks) => chunks.iter().map(|(id, _)| id.0).collect(),
            Pending::Recipe { content, .. } => vec![*content],
            _ => Vec::new(),
        }
    }

    pub(super) fn pack(&self) -> Option<u32> {
        match self {
            Pending::Chunks(chunks) => chunks.first().map(|(_, place)| place.pack),
            Pending::Recipe { place, .. } => Some(place.pack),
            Pending::Alias { .. } => None,
            Pending::MovedChunk { to, .. } => Some(to.pack),
            Pending::MovedRecipe { to, .. } => Some(to.pack),
        }
    }
}

/// Adds the places of `pending` to `batch`, which may already revive entries.
pub(crate) fn index_pending(
    index: &Index,
    batch: &mut Batch,
    pending: &[Pending],
    leader: &mut Leader,
) -> Result<(), KvError> {
    let Leader { fresh, suspects } = leader;
    let mut fresh = |digest: Digest| {
        if let Some(fresh) = fresh {
            fresh.insert(digest);
        }
    };
    let revived = batch.changes.iter().filter_map(|(table, key, value)| {
        let digest = key.as_slice().try_into().map(Digest::from_bytes).ok()?;
        value.as_ref().map(|_| (*table, digest))
    });
    let revived: HashSet<(Table, Digest)> = revived.collect();
    // What is stored anew, by somebody who found it condemned, wins over a copy of the old.
    let mut stored: HashSet<(Table, Digest)> = HashSet::new();
    let is_moved =
        |p: &Pending| matches!(p, Pending::MovedChunk { .. } | Pending::MovedRecipe { .. });
    if pending.iter().any(is_moved) {
        for record in pending {
            match record {
                Pending::Chunks(chunks) => {
                    stored.extend(chunks.iter().map(|(id, _)| (Table::Chunks, id.0)));
                }
                Pending::Recipe { content, .. } => {
                    stored.insert((Table::Recipes, *content));
                }
                _ => {}
            }
        }
    }
    for record in pending {
        match record {
            Pending::Chunks(chunks) => {
                for (id, place) in chunks {
                    batch.put(Table::Chunks, *id.0.as_bytes(), place.encode());
                    if suspects.remove(&id.0) {
                        batch.delete(Table::Meta, suspect_key(id.0));
                    }
                    fresh(id.0);
                }
            }
            Pending::Recipe { content, place, chunks } => {
                batch.put(Table::Recipes, *content.as_bytes(), place.encode());
                if suspects.remove(content) {
                    batch.delete(Table::Meta, suspect_key(*content));
                }
                fresh(*content);
                chunks.iter().for_each(|id| fresh(id.0));
            }
            Pending::Alias { content, names } => {
                for key in names.iter().filter_map(alias_key) {
                    batch.put(Table::Aliases, key, *content.as_bytes());
                }
            }
            Pending::MovedChunk { id, from, to } => {
                let now = index.chunk(*id)?;
                if let Some(now) = now
                    && now.ordinal() == from.ordinal()
                    && !stored.contains(&(Table::Chunks, id.0))
                {
                    let revived = revived.contains(&(Table::Chunks, id.0));
                    let standing = if revived { Standing::Live } else { now.standing };
                    let to = ChunkPlace { standing, ..*to };
                    batch.put(Table::Chunks, *id.0.as_bytes(), to.encode());
                }
            }
            Pending::MovedRecipe { content, from, to } => {
                let now = index.recipe(*content)?;
                if let Some(now) = now
                    && now.ordinal() == from.ordinal()
                    && !stored.contains(&(Table::Recipes, *content))
                {
                    let revived = revived.contains(&(Table::Recipes, *content));
                    let standing = if revived { Standing::Live } else { now.standing };
                    let to = RecipePlace { standing, ..*to };
                    batch.put(Table::Recipes, *content.as_bytes(), to.encode());
                }
            }
        }
    }
    Ok(())
}

/// Adds ref changes to `batch`.
pub(crate) fn index_refs(batch: &mut Batch, outcomes: &Outcomes) {
    for (name, outcome) in outcomes {
        match outcome {
            Some(to) => batch.put(Table::Refs, name.as_bytes(), encode_ref(to)),
            None => batch.delete(Table::Refs, name.as_bytes()),
        }
    }
}
