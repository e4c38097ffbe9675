//! Taking chunks into the library, one request at a time.

use super::plan::Piece;
use super::{Work, local};
use crate::remote::{RECIPES_IN_FLIGHT, RemoteError, Take, Wanted, blocking};
use bytes::Bytes;
use contentlib::{AddError, ChunkId, Frame, Library, Session};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What came is made durable after so long at the latest.
const DURABLE_AFTER: Duration = Duration::from_secs(1);

/// Chunks that are asked for, so that nobody asks for them again.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashSet<ChunkId>>);

impl InFlight {
    /// Notes one. `false` if it is asked for already.
    pub fn add(&self, id: ChunkId) -> bool {
        self.0.lock().insert(id)
    }

    /// Those of `pieces` that are not asked for.
    pub fn without(&self, pieces: impl Iterator<Item = Piece>) -> Vec<Piece> {
        let asked = self.0.lock();
        pieces.filter(|piece| !asked.contains(&piece.id)).collect()
    }

    fn done(&self, ids: &[ChunkId]) {
        let mut asked = self.0.lock();
        for id in ids {
            asked.remove(id);
        }
    }
}

impl Work {
    /// Takes these chunks into the library. What came of them is durable afterwards, also if not all
    /// did and there is an error.
    ///
    /// They are asked for as a delta to the chunks of `base`, which are held, if there are any.
    pub(super) async fn take(
        self: Arc<Self>,
        pieces: Vec<Piece>,
        base: Vec<ChunkId>,
    ) -> Result<(), RemoteError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let ids: Vec<ChunkId> = pieces.iter().map(|piece| piece.id).collect();
        let (asked, priority) = (&self.beside.asked, self.beside.priority);
        let mut left = pieces;
        while !left.is_empty() {
            let claim = asked.claim(left.iter().map(|piece| piece.id), priority);
            let (own, others) = left.into_iter().partition(|piece| claim.has(piece.id));
            self.clone().take_claimed(own, base.clone()).await?;
            drop(claim);
            // What others asked for is here when their requests end; or else it is asked for again.
            left = self.clone().brought_by_others(others).await?;
        }
        self.in_flight.done(&ids);
        Ok(())
    }

    /// Waits for pieces that are asked for on behalf of other versions. Answers which did not come.
    async fn brought_by_others(
        self: Arc<Self>,
        mut pieces: Vec<Piece>,
    ) -> Result<Vec<Piece>, RemoteError> {
        if pieces.is_empty() {
            return Ok(pieces);
        }
        let ids: Vec<ChunkId> = pieces.iter().map(|piece| piece.id).collect();
        self.beside.asked.until_free(&ids, self.beside.priority).await;
        self.progress.check()?;
        let lease = self.lease.clone();
        let missing = blocking(move || lease.missing_chunks(&ids).map_err(local)).await?;
        let mut missing = missing.into_iter();
        pieces.retain(|piece| {
            let is_missing = missing.next().unwrap_or(true);
            if !is_missing {
                self.progress.bytes.fetch_add(piece.len(), Relaxed);
            }
            is_missing
        });
        Ok(pieces)
    }

    async fn take_claimed(
        self: Arc<Self>,
        pieces: Vec<Piece>,
        base: Vec<ChunkId>,
    ) -> Result<(), RemoteError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let store = Store::new(self.packages.library());
        let taken = self.clone().take_into(store.clone(), pieces, base).await;
        let lease = self.lease.clone();
        let saved = blocking(move || {
            store.save()?;
            lease.renew().map_err(local)
        })
        .await;
        taken.and(saved)
    }

    async fn take_into(
        self: Arc<Self>,
        store: Store,
        pieces: Vec<Piece>,
        base: Vec<ChunkId>,
    ) -> Result<(), RemoteError> {
        self.progress.check()?;
        // Equal needs make equal requests, which are answered once.
        let wanted: Vec<Wanted> = pieces.iter().map(|piece| (piece.id, piece.len())).collect();
        let pieces: HashMap<ChunkId, Piece> =
            pieces.into_iter().map(|piece| (piece.id, piece)).collect();
        let asked = Arc::new(pieces.keys().copied().collect());
        let mut taking =
            Taking { work: self.clone(), store: store.clone(), left: pieces, asked, base };
        if !taking.base.is_empty() {
            self.client.gather_delta(taking.base.clone(), wanted, &mut taking).await?;
        }
        let ids: Vec<ChunkId> = taking.left.keys().copied().collect();
        let lacking = self.client.gather(ids, &mut taking).await?;
        let lacking = lacking.iter().filter_map(|id| taking.left.remove(id)).collect();
        self.take_lacking(store, lacking).await
    }

    /// Takes chunks that the server does not send as such since they are, by themselves, a content
    /// that was revoked: what was revoked is that content, and no larger one that holds the same
    /// bytes. An error if a revoked content itself is wanted, or chunks are lost.
    async fn take_lacking(
        self: Arc<Self>,
        store: Store,
        lacking: Vec<Piece>,
    ) -> Result<(), RemoteError> {
        let n = lacking.len();
        let taken = lacking.into_iter().map(|piece| {
            let (work, store) = (self.clone(), store.clone());
            async move {
                match work.client.recipe(piece.id.0).await {
                    Err(RemoteError::Refused { status: 410, .. })
                        if piece.content != piece.id.0 => {}
                    answer => {
                        answer?;
                        return Err(RemoteError::Incomplete { n, first: piece.id.0 });
                    }
                }
                let bytes = work.client.part(piece.content, piece.bytes.clone(), piece.id).await?;
                work.count_moved();
                let frame = Frame::pack(&[bytes], true);
                store.put(frame, Arc::new(HashSet::from([piece.id]))).await?;
                work.progress.bytes.fetch_add(piece.len(), Relaxed);
                Ok(())
            }
        });
        futures::stream::iter(taken).buffer_unordered(RECIPES_IN_FLIGHT).try_collect().await
    }
}

/// Takes what comes into the library.
pub(super) struct Taking {
    pub work: Arc<Work>,
    pub store: Store,
    left: HashMap<ChunkId, Piece>,
    asked: Arc<HashSet<ChunkId>>,
    /// What deltas are made to.
    pub base: Vec<ChunkId>,
}

impl Take for Taking {
    async fn take(&mut self, frame: Frame) -> Result<Vec<ChunkId>, RemoteError> {
        self.work.count_moved();
        self.work.progress.check()?;
        let came = self.store.put(frame, self.asked.clone()).await?;
        Ok(self.note(came))
    }
}

impl Taking {
    /// These are in the library now. Answers their names.
    pub fn note(&mut self, came: Vec<(ChunkId, Bytes)>) -> Vec<ChunkId> {
        let note = |(id, bytes)| {
            if let Some(piece) = self.left.remove(&id) {
                self.work.progress.bytes.fetch_add(piece.len(), Relaxed);
                // A content of one chunk is hashed by now.
                if piece.content != id.0 {
                    self.work.fresh.keep(id, bytes);
                }
            }
            id
        };
        came.into_iter().map(note).collect()
    }
}

/// Where the chunks of one request go.
#[derive(Clone)]
pub(super) struct Store {
    session: Arc<Session>,
    saved: Arc<Mutex<Instant>>,
}

impl Store {
    fn new(library: &Library) -> Self {
        Self { session: Arc::new(library.session()), saved: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Stores a block, if all its chunks are among those `asked` for. Answers with them.
    async fn put(
        &self,
        frame: Frame,
        asked: Arc<HashSet<ChunkId>>,
    ) -> Result<Vec<(ChunkId, Bytes)>, RemoteError> {
        let store = self.clone();
        blocking(move || {
            let wanted = |ids: &[ChunkId]| ids.iter().all(|id| asked.contains(id));
            let chunks = match store.session.put_frame_if(&frame, wanted) {
                Ok(Some(chunks)) => chunks,
                // What does not decode, or hashes to something else, has not come.
                Ok(None) | Err(AddError::Frame(_)) => return Ok(Vec::new()),
                Err(error) => return Err(local(error)),
            };
            store.save_now_and_then()?;
            Ok(chunks)
        })
        .await
    }

    /// What takes in what comes.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Makes durable what was put, if it is time. Blocks.
    pub fn save_now_and_then(&self) -> Result<(), RemoteError> {
        let mut saved = self.saved.lock();
        if saved.elapsed() >= DURABLE_AFTER {
            self.save()?;
            *saved = Instant::now();
        }
        Ok(())
    }

    /// Makes durable what was put.
    fn save(&self) -> Result<(), RemoteError> {
        self.session.commit(Vec::new()).map_err(local)
    }
}
