//! Another server as a source of good bytes for a damaged library.

use super::RemoteError;
use super::client::Client;
use super::gather::Take;
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

/// The frames of some chunks.
struct Kept {
    wanted: HashSet<ChunkId>,
    frames: Vec<Frame>,
}

impl Take for Kept {
    async fn take(&mut self, frame: Frame) -> Result<Vec<ChunkId>, RemoteError> {
        // What does not decode to a wanted chunk is not worth handing on.
        let chunks = frame.chunks().unwrap_or_default().into_iter().map(|(id, _)| id);
        let came: Vec<ChunkId> = chunks.filter(|id| self.wanted.remove(id)).collect();
        if !came.is_empty() {
            self.frames.push(frame);
        }
        Ok(came)
    }
}

/// Frames with those of `chunks` that the server holds.
async fn fetch(client: &Client, chunks: &[ChunkId]) -> Result<Vec<Frame>, RemoteError> {
    let wanted: HashSet<ChunkId> = chunks.iter().copied().collect();
    let mut kept = Kept { wanted: wanted.clone(), frames: Vec::new() };
    match client.gather(wanted, &mut kept).await {
        // The server answered in full; what did not come, it answered with other bytes.
        Ok(_) | Err(RemoteError::WrongBytes { .. }) => Ok(kept.frames),
        Err(error) => Err(error),
    }
}
