//! Getting a manifest, at the cost of what changed in it.
//!
//! The manifest of a package with many files is megabytes, of which a new version changes a few
//! percent. It is content like any other, so where an older one is at hand only the chunks are
//! fetched that the older one lacks.

use super::RemoteError;
use super::client::{Client, Retry};
use super::sink::chunks_of;
use bytes::Bytes;
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Recipe};
use std::collections::{HashMap, HashSet};

/// As much as a packager writes.
const MAX_MANIFEST: usize = 1 << 30;
/// Fewer chunks than this are not worth the extra round trips.
const WORTH: usize = 3;

/// The bytes of the manifest `digest`, checked.
pub(super) async fn fetch(
    client: &Client,
    digest: Digest,
    old: Option<&[u8]>,
) -> Result<Bytes, RemoteError> {
    if let Some(old) = old
        && let Some(recipe) = client.recipe(digest).await?
        && recipe.len() >= WORTH
        && recipe.size() <= MAX_MANIFEST as u64
    {
        let bytes = assemble(client, &recipe, old).await?;
        // The recipe is not signed, so only the whole tells.
        if let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == digest) {
            return Ok(bytes.into());
        }
    }
    client.content(digest, MAX_MANIFEST).await
}

async fn assemble(
    client: &Client,
    recipe: &Recipe,
    old: &[u8],
) -> Result<Option<Vec<u8>>, RemoteError> {
    let held = chunks_of(old);
    let mut wanted: HashSet<ChunkId> =
        recipe.chunks().iter().filter(|id| !held.contains_key(id)).copied().collect();
    let mut came: HashMap<ChunkId, Bytes> = HashMap::new();
    let mut retry = Retry::default();
    while !wanted.is_empty() {
        let ids: Vec<ChunkId> = wanted.iter().take(crate::MAX_CHUNKS).copied().collect();
        let take = async |item| {
            match item {
                FrameItem::Block(frame) => {
                    let chunks = frame.chunks().unwrap_or_default();
                    came.extend(chunks.into_iter().filter(|(id, _)| wanted.remove(id)));
                }
                FrameItem::Missing(id) => drop(wanted.remove(&id)),
                _ => {}
            }
            Ok(())
        };
        let before = ids.len();
        client.chunks(&ids, &mut retry, take).await?;
        if wanted.len() == before && came.is_empty() {
            return Ok(None);
        }
    }
    let mut bytes = Vec::with_capacity(recipe.size() as usize);
    for id in recipe.chunks() {
        match held.get(id).copied().or_else(|| came.get(id).map(|b| &b[..])) {
            Some(chunk) => bytes.extend_from_slice(chunk),
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}
