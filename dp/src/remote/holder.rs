//! Another server as a source of good bytes for a damaged library.

use super::RemoteError;
use super::client::{Client, Retry};
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Frame, Recipe, RepairSource};
use std::collections::HashSet;
use std::error::Error;
use tokio::runtime::Handle;

/// A server that may hold what a library lost. Its calls block, so use it from a thread.
pub struct Holder {
    client: Client,
    runtime: Handle,
}

/// The server at `url` as a source for [`contentlib::Library::repair`]. Requests run on `runtime`.
pub fn repair_source(url: &str, runtime: Handle) -> Result<Holder, RemoteError> {
    Ok(Holder { client: Client::new(url)?, runtime })
}

impl RepairSource for Holder {
    fn frames(&mut self, chunks: &[ChunkId]) -> Result<Vec<Frame>, Box<dyn Error + Send + Sync>> {
        let fetched = self.runtime.block_on(fetch(&self.client, chunks));
        fetched.map_err(Into::into)
    }

    fn recipe(&mut self, content: Digest) -> Result<Option<Recipe>, Box<dyn Error + Send + Sync>> {
        match self.runtime.block_on(self.client.recipe(content)) {
            // Revoked there: of this holder it cannot come, of all else it can.
            Err(RemoteError::Refused { status: 410, .. }) => Ok(None),
            recipe => Ok(recipe?),
        }
    }
}

/// Frames with those of `chunks` that the server holds.
async fn fetch(client: &Client, chunks: &[ChunkId]) -> Result<Vec<Frame>, RemoteError> {
    let mut wanted: HashSet<ChunkId> = chunks.iter().copied().collect();
    let (mut frames, mut retry) = (Vec::new(), Retry::default());
    while !wanted.is_empty() {
        let ids: Vec<ChunkId> = wanted.iter().copied().collect();
        let take = async |item| {
            match item {
                FrameItem::Missing(id) => drop(wanted.remove(&id)),
                FrameItem::Block(frame) => {
                    // What does not decode to a wanted chunk is not worth handing on.
                    let mut is_wanted = false;
                    for (id, _) in frame.chunks().unwrap_or_default() {
                        is_wanted |= wanted.remove(&id);
                    }
                    if is_wanted {
                        frames.push(frame);
                    }
                }
                // The server answered in full; what is left, it answered with other bytes.
                FrameItem::End => wanted.clear(),
            }
            Ok(())
        };
        client.chunks(&ids, &mut retry, take).await?;
    }
    Ok(frames)
}
