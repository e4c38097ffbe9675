//! `POST /deltas`: what is wanted as a delta to what the receiver holds, or as frames where those
//! are shorter.
//!
//! Making a delta costs time and memory, so there are few makers, what they make is kept in files,
//! and those who ask for the same at one time share one making. Whoever cannot be served soon gets
//! frames, as `POST /chunks` has them. So it is where the base is not held, or anything else stands
//! in the way: a delta only ever saves bytes.
//!
//! What may be had by `POST /chunks` may be had here, and nothing else: of a chunk that is itself a
//! revoked content nothing is told, neither as what is wanted nor as a base.

mod body;
mod cache;
mod request;

pub(crate) use body::FileBody;
pub use request::{DeltaRequest, NotADeltaRequest};
pub(crate) use request::{MAX_REQUEST, REQUEST_TYPE};

use crate::body::{Body, Source};
use crate::fallback::RequestBody;
use crate::frames;
use crate::problem::Problem;
use crate::service::answer;
use crate::ticket::Ticket;
use cache::{Cache, Stored};
use contentlib::delta::{MAX_BASE, MAX_RESULT, encode};
use contentlib::{ChunkId, Digest, Library, ReadError};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The media type of an answer that is a delta.
pub(crate) const DELTA_TYPE: &str = "application/vnd.depot.delta";
/// Deltas made at a time, each in up to 100 MiB of memory.
const MAKERS: usize = 2;
/// Deltas that are made or wait for a maker. More would wait too long.
const MOST_AT_WORK: usize = 32;
/// How long a delta may wait for a maker; less than a receiver waits for the first byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where deltas are kept.
#[derive(Clone, Debug)]
pub struct DeltaOptions {
    /// A folder of their own, which may be deleted at any time.
    pub folder: PathBuf,
    /// The most bytes that they take there.
    pub bytes: u64,
}

/// What came of requests for deltas, for `GET /metrics`.
#[derive(Debug, Default)]
pub(crate) struct DeltaCounts {
    /// Made for the first to ask.
    pub made: AtomicU64,
    /// Found in their files, or made for somebody else who asked before.
    pub found: AtomicU64,
    /// Answered with frames.
    pub plain: AtomicU64,
}

/// Answers `POST /deltas`.
pub(crate) async fn post(
    deltas: Option<Arc<Deltas>>,
    library: Library,
    asked: &HeaderMap,
    body: RequestBody,
    ticket: Ticket,
) -> Result<Response<Body>, (Problem, Ticket)> {
    let Some(deltas) = deltas else {
        let detail = "this server makes no deltas; ask for the chunks themselves";
        return Err((Problem::not_found(detail), ticket));
    };
    let request = match read(asked, body).await {
        Ok(request) => request,
        Err(problem) => return Err((problem, ticket)),
    };
    let wanted = request.wanted.clone();
    let Some(delta) = deltas.answer(request).await else {
        return frames::send(library, wanted, ticket).await;
    };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(DELTA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer(StatusCode::OK, headers, Source::File(delta), ticket))
}

async fn read(asked: &HeaderMap, body: RequestBody) -> Result<DeltaRequest, Problem> {
    let too_large = || {
        let detail = format!("a request for a delta has at most {MAX_REQUEST} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).about("body")
    };
    let (kind, bytes) = frames::read_body(asked, body, MAX_REQUEST, too_large).await?;
    if kind != REQUEST_TYPE {
        let detail = format!("content-type must be {REQUEST_TYPE}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).about("Content-Type"));
    }
    DeltaRequest::decode(&bytes).map_err(|error| Problem::bad_request("body", error.to_string()))
}

/// Makes deltas, and keeps them.
pub(crate) struct Deltas {
    library: Library,
    cache: Mutex<Cache>,
    makers: Semaphore,
    /// By the digest of the request: where those who wait are told that it is done.
    at_work: Mutex<HashMap<Digest, watch::Receiver<()>>>,
    patience: Duration,
    pub counts: DeltaCounts,
}

impl Deltas {
    pub fn open(library: Library, options: &DeltaOptions) -> io::Result<Self> {
        Ok(Self {
            library,
            cache: Mutex::new(Cache::open(options.folder.clone(), options.bytes)?),
            makers: Semaphore::new(MAKERS),
            at_work: Mutex::default(),
            patience: PATIENCE,
            counts: DeltaCounts::default(),
        })
    }

    /// The delta that answers a request, if there is one and it pays.
    pub async fn answer(self: &Arc<Self>, request: DeltaRequest) -> Option<FileBody> {
        let answered = self.find_or_make(request).await;
        let found = answered.filter(|(stored, _)| stored.length > 0);
        let count = match &found {
            Some((_, Way::Made)) => &self.counts.made,
            Some((_, Way::Found)) => &self.counts.found,
            None => &self.counts.plain,
        };
        count.fetch_add(1, Relaxed);
        let (stored, _) = found?;
        Some(FileBody::new(stored.file, cache::HEAD..cache::HEAD + stored.length))
    }

    async fn find_or_make(self: &Arc<Self>, request: DeltaRequest) -> Option<(Stored, Way)> {
        let key = Digest::of(&request.encode());
        let limit = {
            let (deltas, request) = (self.clone(), request.clone());
            let looked = tokio::task::spawn_blocking(move || deltas.look(key, &request)).await;
            match looked.ok()? {
                Looked::Found(stored) => return Some((stored, Way::Found)),
                Looked::Plain => return None,
                Looked::Makeable(limit) => limit,
            }
        };
        // Taken by one of those who ask; the others wait until it is dropped.
        let (turn, mut done) = match self.at_work.lock().entry(key) {
            Entry::Occupied(entry) => (None, entry.get().clone()),
            Entry::Vacant(entry) => {
                let (turn, done) = watch::channel(());
                entry.insert(done.clone());
                (Some(turn), done)
            }
        };
        match turn {
            None => {
                // An error says that whoever made it is done.
                let _ = done.changed().await;
                let deltas = self.clone();
                let look = move || deltas.look(key, &request);
                match tokio::task::spawn_blocking(look).await.ok()? {
                    Looked::Found(stored) => Some((stored, Way::Found)),
                    _ => None,
                }
            }
            Some(turn) => {
                let turn = Turn { deltas: self.clone(), key, _tell: turn };
                // By itself: a client that goes away leaves it to the others.
                let made = tokio::spawn(async move { turn.make(request, limit).await });
                made.await.ok()?
            }
        }
    }

    /// What there is for a request, and whether more can be made of it. Blocks.
    fn look(&self, key: Digest, request: &DeltaRequest) -> Looked {
        match self.try_look(key, request) {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no delta is made");
                Looked::Plain
            }
        }
    }

    fn try_look(&self, key: Digest, request: &DeltaRequest) -> Result<Looked, ReadError> {
        // What is kept may be older than a revocation, or than what the library holds.
        let Some(wanted) = self.library.cost_of(&request.wanted)? else { return Ok(Looked::Plain) };
        if self.library.has_revoked(&request.base) {
            return Ok(Looked::Plain);
        }
        let file = self.cache.lock().get(key);
        if let Some(file) = file {
            match cache::check(file) {
                Some(stored) => return Ok(Looked::Found(stored)),
                None => {
                    tracing::warn!(%key, "a delta that was kept is damaged, and made again");
                    self.cache.lock().remove(key);
                }
            }
        }
        let Some(base) = self.library.cost_of(&request.base)? else { return Ok(Looked::Plain) };
        let is_small = base.plain <= MAX_BASE as u64 && wanted.plain <= MAX_RESULT as u64;
        Ok(if is_small { Looked::Makeable(wanted.stored as usize) } else { Looked::Plain })
    }

    /// Makes a delta shorter than `limit`; one of no bytes if there is none. Blocks.
    fn make(
        &self,
        key: Digest,
        request: &DeltaRequest,
        limit: usize,
    ) -> Result<(Stored, Way), MakeError> {
        // Made by somebody else, between this one's look and its turn.
        let file = self.cache.lock().get(key);
        if let Some(stored) = file.and_then(cache::check) {
            return Ok((stored, Way::Found));
        }
        let base = self.read(&request.base, MAX_BASE)?;
        let wanted = self.read(&request.wanted, MAX_RESULT)?;
        let delta = encode(&base, &wanted, limit).unwrap_or_default();
        // What was revoked meanwhile is not told.
        if self.library.has_revoked(&request.wanted) || self.library.has_revoked(&request.base) {
            return Err(MakeError::Revoked);
        }
        let part = self.cache.lock().part(key);
        let stored = cache::write(&part, &delta)?;
        self.cache.lock().put(key, &part, stored.length)?;
        Ok((stored, Way::Made))
    }

    fn read(&self, ids: &[ChunkId], most: usize) -> Result<Vec<u8>, MakeError> {
        // Room that is not used costs nothing, and growing would copy.
        let mut out = Vec::with_capacity(most);
        for id in ids {
            let bytes = self.library.read_chunk(*id)?;
            if out.len() + bytes.len() > most {
                return Err(MakeError::TooLong);
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }
}

/// How a delta was come by.
enum Way {
    Made,
    Found,
}

/// What [`Deltas::look`] found.
enum Looked {
    Found(Stored),
    /// Frames are as good as can be had.
    Plain,
    /// A delta can be made, which pays if it is shorter than so many bytes.
    Makeable(usize),
}

/// The making of one delta. When it is dropped those who wait for the same look again.
struct Turn {
    deltas: Arc<Deltas>,
    key: Digest,
    _tell: watch::Sender<()>,
}

impl Turn {
    async fn make(self, request: DeltaRequest, limit: usize) -> Option<(Stored, Way)> {
        let deltas = self.deltas.clone();
        if deltas.at_work.lock().len() > MOST_AT_WORK {
            return None;
        }
        let permit = tokio::time::timeout(deltas.patience, deltas.makers.acquire()).await;
        let _permit = permit.ok()?.ok()?;
        let (makes, key) = (deltas.clone(), self.key);
        let made = tokio::task::spawn_blocking(move || makes.make(key, &request, limit)).await;
        made.ok()?
            .inspect_err(|error| {
                tracing::warn!(error = error as &dyn std::error::Error, "a delta is not made");
            })
            .ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.deltas.at_work.lock().remove(&self.key);
    }
}

/// Why a delta was not made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("its chunks cannot be read")]
    Read(#[from] ReadError),
    #[error("its chunks are longer than the index says")]
    TooLong,
    #[error("a chunk of it was revoked meanwhile")]
    Revoked,
    #[error("it cannot be written to the cache")]
    Io(#[from] io::Error),
}
