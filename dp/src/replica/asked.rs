//! Chunks that are asked for just now, by all versions that are brought to one library at a time.
//!
//! A chunk that two of them lack is asked for by one; the other waits until that request has ended, and
//! looks what came. Nobody waits while holding what another may wait for, so nobody waits in a circle:
//! a claim is of one request that is being made, and its holder waits for the server alone.
//! What is urgent does not wait for what is less so, which may be held up itself.

use crate::field::Priority;
use contentlib::ChunkId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// All claims. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    claims: Mutex<Claims>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Claims {
    by_chunk: HashMap<ChunkId, (u64, Priority)>,
    last: u64,
}

/// The right to ask for some chunks, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    asked: Asked,
    number: u64,
    ids: Vec<ChunkId>,
}

impl Asked {
    /// Claims those of `ids` that nobody else asks for, or somebody less urgent. They are
    /// [`Claim::has`]; the others are somebody else's.
    pub(super) fn claim(
        &self,
        ids: impl IntoIterator<Item = ChunkId>,
        priority: Priority,
    ) -> Claim {
        let mut claims = self.0.claims.lock();
        claims.last += 1;
        let number = claims.last;
        let mut own = Vec::new();
        for id in ids {
            let is_taken = claims.by_chunk.get(&id).is_some_and(|(_, other)| *other >= priority);
            if !is_taken {
                claims.by_chunk.insert(id, (number, priority));
                own.push(id);
            }
        }
        Claim { asked: self.clone(), number, ids: own }
    }

    /// Waits until none of `ids` is asked for with this priority or a higher one.
    pub(super) async fn until_free(&self, ids: &[ChunkId], priority: Priority) {
        loop {
            // Before looking: what ends in between is not missed.
            let ended = self.0.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            let is_asked = {
                let claims = self.0.claims.lock();
                let by_chunk = &claims.by_chunk;
                ids.iter().any(|id| by_chunk.get(id).is_some_and(|(_, other)| *other >= priority))
            };
            if !is_asked {
                return;
            }
            ended.await;
        }
    }
}

impl Claim {
    /// Whether the chunk may be asked for.
    pub fn has(&self, id: ChunkId) -> bool {
        let claims = self.asked.0.claims.lock();
        claims.by_chunk.get(&id).is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.asked.0.claims.lock();
        for id in &self.ids {
            // It may be another's by now, who is more urgent.
            if claims.by_chunk.get(id).is_some_and(|(number, _)| *number == self.number) {
                claims.by_chunk.remove(id);
            }
        }
        drop(claims);
        self.asked.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{High, Low, Medium};
    use contentlib::Digest;

    fn ids() -> [ChunkId; 3] {
        [&b"a"[..], b"b", b"c"].map(|bytes| ChunkId(Digest::of(bytes)))
    }

    #[tokio::test]
    async fn a_chunk_is_one_requests_until_that_ends() {
        let (asked, [a, b, c]) = (Asked::default(), ids());
        let first = asked.claim([a, b], Medium);
        let second = asked.claim([b, c], Medium);
        assert_eq!([a, b].map(|id| first.has(id)), [true, true]);
        assert_eq!([b, c].map(|id| second.has(id)), [false, true]);
        let waiting = tokio::spawn({
            let asked = asked.clone();
            async move { asked.until_free(&[b], Medium).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        assert!(asked.claim([a, b, c], Medium).has(b));
        drop(second);
        assert!(asked.0.claims.lock().by_chunk.is_empty());
    }

    #[tokio::test]
    async fn the_urgent_wait_for_nobody_who_is_less_so() {
        let (asked, [a, ..]) = (Asked::default(), ids());
        let low = asked.claim([a], Low);
        asked.until_free(&[a], High).await;
        let high = asked.claim([a], High);
        assert!(high.has(a) && !low.has(a));
        drop(low);
        assert!(high.has(a), "what another has claimed meanwhile is not given up with it");
    }
}
