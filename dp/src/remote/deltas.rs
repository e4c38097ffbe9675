//! Chunks as a delta to what is held, of servers that make deltas.
//!
//! A delta only ever saves bytes. Whatever goes wrong with it, what is left is gathered as chunks
//! afterwards, and there it is decided what an error is.

use super::RemoteError;
use super::attempt::{Attempt, Failed};
use super::client::{Client, accepted};
use super::gather::{Frames, Take};
use crate::deltas::{DELTA_TYPE, DeltaRequest, REQUEST_TYPE};
use bytes::{Bytes, BytesMut};
use contentlib::ChunkId;
use contentlib::frames::{FrameItem, MEDIA_TYPE};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use std::collections::HashSet;

/// A chunk that is wanted, with its length.
pub(crate) type Wanted = (ChunkId, u64);

/// Whoever takes what comes.
pub(crate) trait TakeDelta: Take {
    /// Takes a delta that makes `wanted`, or the first bytes of one. Answers which chunks came of it.
    fn take_delta(
        &mut self,
        wanted: &[Wanted],
        delta: Delta,
    ) -> impl Future<Output = Result<Vec<ChunkId>, RemoteError>> + Send;
}

/// What came of a delta.
pub(crate) enum Delta {
    Whole(Bytes),
    /// The answer was cut off.
    Beginning(Bytes),
}

impl Client {
    /// Gets what there is of `wanted` as a delta to the chunks of `base`, which the taker holds. What did
    /// not come is to be gathered as chunks.
    pub(crate) async fn gather_delta(
        &self,
        base: Vec<ChunkId>,
        mut wanted: Vec<Wanted>,
        taker: &mut impl TakeDelta,
    ) -> Result<(), RemoteError> {
        let mut attempt = Attempt::new(self.servers.clone());
        let mut request = DeltaRequest { base, wanted: Vec::new() };
        while !wanted.is_empty() {
            let without = *self.servers.without_deltas.lock();
            let Some(turn) = attempt.turn(|at| !without.has(at)).await else { break };
            request.wanted = wanted.iter().map(|(id, _)| *id).collect();
            let (came, ended) = self.ask_delta(turn.at, &request, &wanted, taker).await?;
            if !came.is_empty() {
                attempt.progressed(&turn);
            }
            match ended {
                Err(Failed::Refused(error)) => {
                    tracing::debug!(%error, "no deltas from this server");
                    self.servers.without_deltas.lock().add(turn.at);
                }
                Err(failed @ (Failed::Passing(..) | Failed::GaveWay)) => {
                    attempt.failed(turn, failed)?
                }
                // What has not come now does not come as a delta.
                Ok(()) | Err(Failed::Garbled(_) | Failed::Wrong(_) | Failed::Final(_)) => break,
            }
            wanted.retain(|(id, _)| !came.contains(id));
        }
        Ok(())
    }

    /// Asks one server once. Answers what came, and how it ended. The outer error is the taker's.
    async fn ask_delta(
        &self,
        server: usize,
        request: &DeltaRequest,
        wanted: &[Wanted],
        taker: &mut impl TakeDelta,
    ) -> Result<(HashSet<ChunkId>, Result<(), Failed>), RemoteError> {
        let asks = self.servers.list[server].asks("deltas");
        let turns = self.may_ask().await;
        let asked = asks.http.post(asks.url).header(CONTENT_TYPE, REQUEST_TYPE);
        let sent = asked.header(ACCEPT, DELTA_TYPE).body(request.encode()).send().await;
        let mut came = HashSet::new();
        let mut response = match accepted(&asks.shown, sent).await {
            Ok(response) => response,
            Err(failed) => return Ok((came, Err(failed))),
        };
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind == Some(MEDIA_TYPE) {
            let mut frames = Frames::new(asks.shown, response, turns, wanted.len());
            loop {
                match frames.next(self).await {
                    Ok(None) => return Ok((came, Ok(()))),
                    Ok(Some(FrameItem::Block(frame))) => came.extend(taker.take(frame).await?),
                    // Whoever gathers the rest learns it again, and what to do.
                    Ok(Some(FrameItem::Missing(_) | FrameItem::End)) => {}
                    Err(failed) => return Ok((came, Err(failed))),
                }
            }
        }
        let malformed = || {
            let url = asks.shown.clone();
            Failed::Garbled(RemoteError::Malformed { url, wanted: "a delta" })
        };
        if kind != Some(DELTA_TYPE) {
            return Ok((came, Err(malformed())));
        }
        // A delta is shorter than what comes of it.
        let most: u64 = wanted.iter().map(|(_, length)| length).sum();
        let mut delta = BytesMut::new();
        let (delta, ended) = loop {
            match self.read(&asks.shown, &mut response, turns.as_ref()).await {
                Ok(Some(bytes)) if (delta.len() + bytes.len()) as u64 > most => {
                    return Ok((came, Err(malformed())));
                }
                Ok(Some(bytes)) => delta.extend_from_slice(&bytes),
                Ok(None) => break (Delta::Whole(delta.freeze()), Ok(())),
                Err(failed) => break (Delta::Beginning(delta.freeze()), Err(failed)),
            }
        };
        came.extend(taker.take_delta(wanted, delta).await?);
        Ok((came, ended))
    }
}
