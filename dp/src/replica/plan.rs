//! What has to be asked for: which contents of a version are not held, and which of their chunks.
//!
//! The manifest is gone through in its order, which is about that of the packs. Recipes are asked
//! for ahead; a batch goes out when it is full, or when the next recipe is not there yet.

use super::bases::{self, Bases, Held};
use super::delta::Near;
use super::{Whole, Work, local};
use crate::MAX_CHUNKS;
use crate::remote::{RECIPE_REQUESTS, RECIPES_AT_ONCE, RemoteError, blocking};
use contentlib::chunker::MAX_CHUNK;
use contentlib::{ChunkId, Digest, Recipe, Session};
use futures::channel::mpsc;
use futures::{SinkExt, Stream, TryStreamExt};
use packager::manifest::{FileEntry, Manifest};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Entries of the manifest that are looked up at once.
const WINDOW: usize = 4096;
/// Plain bytes of one request.
const BATCH_BYTES: u64 = 16 << 20;
/// How long a batch that is not full waits for the next recipe.
const PATIENCE: Duration = Duration::from_millis(20);
/// The same, where the batch asks for deltas: those of points that hold the same are to be the same,
/// however fast recipes come.
const DELTA_PATIENCE: Duration = Duration::from_secs(1);
/// Chunks that the recipes under way may have together; of 40 bytes each.
const RECIPE_ROOM: u32 = 1 << 20;
/// Bytes of a file that count as one chunk of its recipe before that is known; half of what
/// chunks have on average.
const BYTES_A_CHUNK: u64 = 64 << 10;

/// A chunk that is not held, and where it is in a content.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub id: ChunkId,
    pub content: Digest,
    pub bytes: Range<u64>,
}

impl Piece {
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

/// Chunks of one request, and what is whole when they are here and those before them.
#[derive(Default)]
pub(super) struct Batch {
    pieces: Vec<Piece>,
    near: Near,
    bytes: u64,
    /// Files that are one chunk each.
    pub n_files: u64,
    pub files: Vec<Arc<Whole>>,
    /// A file of which later batches have the rest; before which of its chunks all are here.
    pub begun: Option<(Arc<Whole>, usize)>,
    pub permits: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.has_no_pieces() && self.files.is_empty() && self.n_files == 0
    }

    fn has_no_pieces(&self) -> bool {
        self.pieces.is_empty() && self.near.pieces.is_empty()
    }

    fn has_room(&self, piece: &Piece, like: Option<&[Held]>) -> bool {
        self.pieces.len() + self.near.pieces.len() < MAX_CHUNKS
            && self.bytes + piece.len() <= BATCH_BYTES
            && like.is_none_or(|held| self.near.has_room(held))
    }

    /// Whether a piece goes into this batch, and not into the next.
    fn takes(&self, piece: &Piece, like: Option<&[Held]>) -> bool {
        self.has_room(piece, like) || self.has_no_pieces()
    }

    /// Adds a piece: to be asked for as a delta, if something is known that it is like.
    fn push(&mut self, piece: Piece, like: Option<&[Held]>) {
        self.bytes += piece.len();
        match like.filter(|_| piece.len() <= MAX_CHUNK as u64) {
            Some(held) => self.near.push(piece, held),
            None => self.pieces.push(piece),
        }
    }

    fn patience(&self) -> Duration {
        if self.near.pieces.is_empty() { PATIENCE } else { DELTA_PATIENCE }
    }

    /// What to ask for: as chunks, and as a delta.
    pub fn take_pieces(&mut self) -> (Vec<Piece>, Near) {
        let (mut pieces, mut near) =
            (std::mem::take(&mut self.pieces), std::mem::take(&mut self.near));
        if near.base.is_empty() {
            pieces.append(&mut near.pieces);
        }
        (pieces, near)
    }
}

/// Batches of `pieces`, where `near` has for each of them what it is like; it may be shorter.
pub(super) fn batches(pieces: Vec<Piece>, near: Vec<Vec<Held>>) -> Vec<Batch> {
    let mut batches = vec![Batch::default()];
    let near = near.iter().map(|held| Some(held.as_slice())).chain(std::iter::repeat(None));
    for (piece, like) in pieces.into_iter().zip(near) {
        let last = batches.last_mut().expect("there is one from the beginning");
        if last.takes(&piece, like) {
            last.push(piece, like);
        } else {
            let mut next = Batch::default();
            next.push(piece, like);
            batches.push(next);
        }
    }
    batches
}

impl Whole {
    /// All its chunks, each as often as it comes.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let piece = |span: contentlib::recipe::ChunkSpan| Piece {
            id: span.chunk,
            content: self.digest,
            bytes: span.bytes,
        };
        self.recipe.spans().map(piece)
    }
}

/// A file that is not held, with its recipe if it has one.
struct Missing {
    file: FileEntry,
    recipe: Option<(Arc<Recipe>, OwnedSemaphorePermit)>,
    /// The older file that it is likely to be like.
    old: Option<FileEntry>,
}

/// The same, whose recipe, if it has one, is still to be asked for: its digest, and the room for it.
type Wanting = (FileEntry, Option<FileEntry>, Option<(Digest, OwnedSemaphorePermit)>);

/// Goes through a manifest.
pub(super) struct Plan {
    work: Arc<Work>,
    manifest: Arc<Manifest>,
    bases: Option<Arc<Bases>>,
    room: Arc<Semaphore>,
}

impl Plan {
    pub fn new(work: Arc<Work>, manifest: Arc<Manifest>, bases: Option<Arc<Bases>>) -> Self {
        Self { work, manifest, bases, room: Arc::new(Semaphore::new(RECIPE_ROOM as usize)) }
    }

    /// Hands out batches until there is no more to ask for.
    pub async fn run(self, mut ready: mpsc::Sender<Batch>) -> Result<(), RemoteError> {
        let plan = Arc::new(self);
        let mut missing = pin!(plan.clone().missing());
        let mut batch = Batch::default();
        loop {
            plan.work.progress.check()?;
            let next = if batch.is_empty() {
                missing.try_next().await?
            } else {
                match tokio::time::timeout(batch.patience(), missing.try_next()).await {
                    Ok(next) => next?,
                    Err(_) => {
                        send(&mut ready, &mut batch).await;
                        continue;
                    }
                }
            };
            let Some(Missing { file, recipe, old }) = next else { break };
            match recipe {
                None => {
                    let whole = 0..file.size;
                    let piece =
                        Piece { id: ChunkId(file.digest), content: file.digest, bytes: whole };
                    if plan.work.in_flight.add(piece.id) {
                        let like = plan.like_chunk(&file, old).await?;
                        push(&mut ready, &mut batch, piece, like.as_deref()).await;
                    } else {
                        plan.work.progress.bytes.fetch_add(file.size, Relaxed);
                    }
                    batch.n_files += 1;
                }
                Some((recipe, permit)) => {
                    let whole = Whole::new(file.digest, recipe);
                    let pieces = plan.work.missing(&whole).await?;
                    let left: u64 = pieces.iter().map(Piece::len).sum();
                    plan.work.progress.bytes.fetch_add(file.size - left.min(file.size), Relaxed);
                    let near = match &plan.bases {
                        Some(bases) => plan.work.near(bases.clone(), &whole, &pieces, old).await?,
                        None => Vec::new(),
                    };
                    let near = near
                        .iter()
                        .map(|held| Some(held.as_slice()))
                        .chain(std::iter::repeat(None));
                    for (piece, like) in pieces.into_iter().zip(near) {
                        if !batch.takes(&piece, like) {
                            let end = whole.recipe.covering(piece.bytes.clone()).start;
                            batch.begun = Some((whole.clone(), end));
                        }
                        push(&mut ready, &mut batch, piece, like).await;
                    }
                    batch.files.push(whole);
                    batch.permits.push(permit);
                }
            }
        }
        if !batch.is_empty() {
            send(&mut ready, &mut batch).await;
        }
        Ok(())
    }

    /// The contents that are not held, each once, with their recipes.
    fn missing(self: Arc<Self>) -> impl Stream<Item = Result<Missing, RemoteError>> {
        let (plan, room, work) = (self.clone(), self.room.clone(), self.work.clone());
        let windows = futures::stream::try_unfold((0, HashSet::new()), move |(start, seen)| {
            let plan = plan.clone();
            async move {
                if start >= plan.manifest.len() {
                    return Ok::<_, RemoteError>(None);
                }
                let end = plan.manifest.len().min(start + WINDOW);
                let (missing, seen) = plan.window(start..end, seen).await?;
                let missing = futures::stream::iter(missing.into_iter().map(Ok::<_, RemoteError>));
                Ok(Some((missing, (end, seen))))
            }
        });
        // Room is taken in order, so that what comes first never waits for what comes later.
        let with_room = windows.try_flatten().and_then(move |(file, old)| {
            let room = room.clone();
            async move {
                let Some(signed) = file.recipe else { return Ok::<Wanting, _>((file, old, None)) };
                let n = (file.size / BYTES_A_CHUNK + 1).min(RECIPE_ROOM.into()) as u32;
                let permit = room.acquire_many_owned(n).await.expect("never closed");
                Ok((file, old, Some((signed, permit))))
            }
        });
        let batches = with_room.try_ready_chunks(RECIPES_AT_ONCE).map_err(|error| error.1);
        let with_recipes = batches.map_ok(move |batch| work.clone().with_recipes(batch));
        let missing = with_recipes.try_buffered(RECIPE_REQUESTS);
        missing.map_ok(|batch| futures::stream::iter(batch.into_iter().map(Ok))).try_flatten()
    }

    /// What a content of one chunk is likely to be like, if it is to be asked for as a delta.
    async fn like_chunk(
        &self,
        file: &FileEntry,
        old: Option<FileEntry>,
    ) -> Result<Option<Vec<Held>>, RemoteError> {
        let Some(bases) = self.bases.clone() else { return Ok(None) };
        let size = file.size;
        Ok(match old {
            None => Bases::takes(file).then(Vec::new),
            Some(old) if old.recipe.is_none() => Some(bases.near_chunk(&old, size)),
            Some(old) => Some(blocking(move || Ok(bases.near_chunk(&old, size))).await?),
        })
    }

    /// The files of some entries that are not held, with those that they are likely to be like. `seen`
    /// are those of the entries before.
    async fn window(
        &self,
        entries: Range<usize>,
        mut seen: HashSet<Digest>,
    ) -> Result<(Vec<(FileEntry, Option<FileEntry>)>, HashSet<Digest>), RemoteError> {
        let (manifest, lease) = (self.manifest.clone(), self.work.lease.clone());
        let bases = self.bases.clone();
        let n_seen = seen.len();
        let (missing, seen, n_files, bytes) = blocking(move || {
            let files = |at| Some((manifest.entry(at).file()?, at));
            let (files, places): (Vec<FileEntry>, Vec<usize>) = entries.filter_map(files).unzip();
            let places: HashMap<Digest, usize> =
                files.iter().map(|file| file.digest).zip(places).collect();
            let (mut n_files, mut bytes) =
                (files.len() as u64, files.iter().map(|file| file.size).sum::<u64>());
            let mut missing = not_held(&lease, files)?;
            missing.retain(|file| seen.insert(file.digest));
            n_files -= missing.len() as u64;
            bytes -= missing.iter().map(|file| file.size).sum::<u64>();
            let with_old = |file: FileEntry| {
                let place = places.get(&file.digest);
                let old = bases.as_ref().zip(place).and_then(|(bases, at)| bases.by_path(*at));
                // An empty one is like nothing.
                (file, old.filter(|old| old.size > 0))
            };
            let missing: Vec<_> = missing.into_iter().map(with_old).collect();
            Ok((missing, seen, n_files, bytes))
        })
        .await?;
        debug_assert_eq!(seen.len(), n_seen + missing.len());
        self.work.progress.files.fetch_add(n_files, Relaxed);
        self.work.progress.bytes.fetch_add(bytes, Relaxed);
        Ok((missing, seen))
    }
}

/// Of `files`, those whose contents are not held. A content of one chunk may be held and not yet be
/// in the index.
pub(super) fn not_held(
    lease: &Session,
    mut files: Vec<FileEntry>,
) -> Result<Vec<FileEntry>, RemoteError> {
    let contents: Vec<Digest> = files.iter().map(|file| file.digest).collect();
    let missing = lease.missing_contents(&contents).map_err(local)?;
    let mut missing = missing.into_iter();
    files.retain(|_| missing.next().unwrap_or(true));
    let chunks = files.iter().filter(|file| file.recipe.is_none());
    let chunks: Vec<ChunkId> = chunks.map(|file| ChunkId(file.digest)).collect();
    let missing = lease.missing_chunks(&chunks).map_err(local)?;
    let mut missing = missing.into_iter();
    files.retain(|file| file.recipe.is_some() || missing.next().unwrap_or(true));
    Ok(files)
}

async fn push(
    ready: &mut mpsc::Sender<Batch>,
    batch: &mut Batch,
    piece: Piece,
    like: Option<&[Held]>,
) {
    if !batch.takes(&piece, like) {
        send(ready, batch).await;
    }
    batch.push(piece, like);
}

/// If nobody takes it, taking has failed, and says why.
async fn send(ready: &mut mpsc::Sender<Batch>, batch: &mut Batch) {
    let _ = ready.send(std::mem::take(batch)).await;
}

impl Work {
    /// Files with their recipes.
    async fn with_recipes(
        self: Arc<Self>,
        files: Vec<Wanting>,
    ) -> Result<Vec<Missing>, RemoteError> {
        let signed = files.iter().filter_map(|(file, _, has)| Some((*file, has.as_ref()?.0)));
        let recipes = self.client.recipes(signed.collect()).await?;
        self.count_moved();
        let mut recipes = recipes.into_iter().map(Arc::new);
        let missing = |(file, old, has): Wanting| Missing {
            file,
            recipe: has.and_then(|(_, permit)| Some((recipes.next()?, permit))),
            old,
        };
        Ok(files.into_iter().map(missing).collect())
    }

    /// The chunks of a content that are neither held nor asked for, each once; they count as asked
    /// for from now on.
    pub(super) async fn missing(&self, whole: &Whole) -> Result<Vec<Piece>, RemoteError> {
        // In this order: what is asked for now and held in a moment is found one way or the other.
        let mut pieces = self.in_flight.without(whole.pieces());
        let (lease, ids) = (self.lease.clone(), pieces.iter().map(|piece| piece.id));
        let ids: Vec<ChunkId> = ids.collect();
        let missing = blocking(move || lease.missing_chunks(&ids).map_err(local)).await?;
        let mut missing = missing.into_iter();
        pieces.retain(|piece| missing.next().unwrap_or(false) && self.in_flight.add(piece.id));
        Ok(pieces)
    }

    /// What each of the `pieces` of a content is likely to be like; `old` is the file that is like it
    /// by its path.
    async fn near(
        &self,
        bases: Arc<Bases>,
        whole: &Whole,
        pieces: &[Piece],
        old: Option<FileEntry>,
    ) -> Result<Vec<Vec<Held>>, RemoteError> {
        let (recipe, wanted) = (whole.recipe.clone(), places(&whole.recipe, pieces));
        blocking(move || Ok(bases.near(old, &recipe, &wanted))).await
    }

    /// The same, to the content `like`.
    pub(super) async fn near_content(
        &self,
        whole: &Whole,
        pieces: &[Piece],
        like: Digest,
    ) -> Result<Vec<Vec<Held>>, RemoteError> {
        let (recipe, wanted) = (whole.recipe.clone(), places(&whole.recipe, pieces));
        let library = self.packages.library().clone();
        blocking(move || Ok(bases::near_content(&library, like, &recipe, &wanted))).await
    }

    pub(super) fn count_moved(&self) {
        self.progress.new_bytes.store(self.client.moved(), Relaxed);
    }
}

/// Which chunks of a recipe `pieces` are.
fn places(recipe: &Recipe, pieces: &[Piece]) -> Vec<usize> {
    pieces.iter().map(|piece| recipe.covering(piece.bytes.clone()).start).collect()
}
