//! What chunks take where they come from, asked before they are.

use super::RemoteError;
use super::attempt::{Attempt, Failed};
use super::client::{Client, accepted};
use super::sources::Set;
use crate::cost::Costs;
use crate::frames::{IDS_TYPE, MAX_CHUNKS};
use bytes::BytesMut;
use contentlib::ChunkId;
use reqwest::header::CONTENT_TYPE;

/// The longest answer.
const MAX_ANSWER: usize = 4 << 10;

impl Client {
    /// About the bytes that those of `ids`, at most 4096, take that one server holds: the one that holds
    /// most of them. Of no server that does not tell.
    pub(crate) async fn cost(&self, ids: &[ChunkId]) -> Result<Costs, RemoteError> {
        debug_assert!(ids.len() <= MAX_CHUNKS);
        let mut attempt = Attempt::new(self.servers.clone());
        let (mut best, mut asked) = (Costs::default(), Set::default());
        while best.chunks < ids.len() as u64 {
            let Some(turn) = attempt.turn(|at| !asked.has(at)).await else { break };
            match self.ask_cost(turn.at, ids).await {
                Ok(costs) => {
                    asked.add(turn.at);
                    if costs.chunks > best.chunks {
                        best = costs;
                    }
                }
                Err(failed) => attempt.failed(turn, failed)?,
            }
        }
        Ok(best)
    }

    async fn ask_cost(&self, server: usize, ids: &[ChunkId]) -> Result<Costs, Failed> {
        let asks = self.servers.list[server].asks("cost");
        let body: Vec<u8> = ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
        let turns = self.may_ask().await;
        let request = asks.http.post(asks.url.clone()).header(CONTENT_TYPE, IDS_TYPE);
        let mut response = accepted(&asks.shown, request.body(body).send().await).await?;
        let malformed = || {
            let url = asks.shown.clone();
            Failed::Wrong(RemoteError::Malformed { url, wanted: "what chunks take" })
        };
        let mut got = BytesMut::new();
        while let Some(bytes) = self.read(&asks.shown, &mut response, turns.as_ref()).await? {
            if got.len() + bytes.len() > MAX_ANSWER {
                return Err(malformed());
            }
            got.extend_from_slice(&bytes);
        }
        serde_json::from_slice(&got).map_err(|_| malformed())
    }
}
