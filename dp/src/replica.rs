//! Bringing a version of a package into the library of another distribution point.
//!
//! 1. The manifest, as content: by its recipe, and of its chunks those that are not held. The
//!    site's signature covers it, and it names all that follows.
//!    `space` refuses it here if what is missing cannot fit.
//! 2. `plan`: which files are not held, their recipes, which of their chunks are not held. What
//!    any version of any package has costs nothing.
//! 3. `take`: those chunks, in large requests, several at a time. The stored bytes of a block go
//!    into a pack as they come, once its chunks hashed to names that were asked for.
//! 4. Each file is hashed in its order while its chunks come (`fresh`), and its recipe is put in the
//!    library as soon as they are all there, if the whole is what it should be.
//! 5. When all is there, one commit makes the version visible ([`packager::Packages::adopt`]).
//!
//! The steps run side by side, so the next requests are under way while the last answers are
//! written. Killed, cut off or dropped anywhere, bringing the version again moves what is missing
//! still: chunks are made durable every second, and kept from garbage collection by a session of the
//! version's own. In memory are the manifest, a name for each content that is missing, and what is
//! under way, which is bounded.

mod align;
mod asked;
mod bases;
mod delta;
mod fresh;
mod plan;
mod space;
mod take;

use crate::field::Priority;
use crate::remote::{Client, RemoteError, blocking};
use bases::Bases;
use contentlib::{AddError, Assembly, ChunkId, CommitError, Digest, Progress, Recipe, Session};
use delta::Spare;
use fresh::Fresh;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt, TryStreamExt};
use packager::manifest::Manifest;
use packager::sign::VersionInfo;
use packager::{PackageError, PackageName, Packages};
use parking_lot::Mutex;
use plan::{Batch, Piece, Plan};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use take::InFlight;

pub use asked::Asked;

/// Requests for chunks at a time.
const IN_FLIGHT: usize = 4;
/// Requests that are ready to be made.
const READY: usize = 4;
/// Answers whose files wait to be put together.
const TAKEN: usize = 4;
/// Files are put together on so many threads.
const FINISHERS: usize = 2;
/// How often a chunk is asked for again that came, or was held, and turns out not to be. Others may turn
/// out so meanwhile: on a disk that goes bad they do, one after the other.
const TRIES: u32 = 3;
/// The largest manifest, in bytes; as much as a packager writes.
const MAX_MANIFEST: u64 = 1 << 30;

/// What bringing a version came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Brought {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// Files of the version.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that came over the wire.
    pub moved_bytes: u64,
    /// Of them, those that came as deltas to what was held.
    pub delta_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What a version is brought beside.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// What is asked for by all.
    pub asked: Asked,
    /// How urgent this one is among them.
    pub priority: Priority,
}

/// Brings the version that `info` describes into the library of `packages`, which are copies
/// ([`Packages::open_replica`]), and makes it visible there. After an error, or when the future is
/// dropped, nothing of it is visible, and what came is kept for the next time.
///
/// `progress` tells how many files and bytes of the version are held, and in `new_bytes` how many
/// came over the wire; cancelling it ends the work with an error.
pub async fn bring(
    client: &Client,
    packages: &Packages,
    info: &VersionInfo,
    progress: &Arc<Progress>,
) -> Result<Brought, RemoteError> {
    bring_beside(client, packages, info, progress, Beside::default()).await
}

/// The same, while others are brought into the same library, each with the same [`Asked`]: a chunk
/// that several of them lack comes once.
pub async fn bring_beside(
    client: &Client,
    packages: &Packages,
    info: &VersionInfo,
    progress: &Arc<Progress>,
    beside: Beside,
) -> Result<Brought, RemoteError> {
    let began = Instant::now();
    // Before anything is asked for or stored on its account.
    info.verify(&packages.public_key())?;
    let lease = {
        let (packages, package, version) = (packages.clone(), info.package.clone(), info.version);
        blocking(move || Ok(packages.bringing(&package, version)?)).await?
    };
    let work = Arc::new(Work {
        client: client.bringing(&info.package, info.version),
        packages: packages.clone(),
        lease: Arc::new(lease),
        progress: progress.clone(),
        beside,
        in_flight: InFlight::default(),
        fresh: Fresh::default(),
        spare: Spare::default(),
        delta_bytes: AtomicU64::new(0),
    });
    let like = {
        let (packages, info) = (packages.clone(), info.clone());
        blocking(move || Bases::version(&packages, &info)).await?
    };
    let manifest = work.manifest(info, like.as_ref()).await?;
    work.has_room(&manifest).await?;
    let bases = match like {
        Some(like) => work.bases(like, manifest.clone()).await?,
        None => None,
    };
    work.files(manifest.clone(), bases).await?;
    let (moved_bytes, delta_bytes) = (work.client.moved(), work.delta_bytes.load(Relaxed));
    let (packages, adopted) = (packages.clone(), info.clone());
    blocking(move || {
        packages.adopt(&packages.library().session(), &adopted)?;
        drop(work);
        let lease = packages.bringing(&adopted.package, adopted.version)?;
        Ok(lease.end().map_err(PackageError::from)?)
    })
    .await?;
    Ok(Brought {
        package: info.package.clone(),
        version: info.version,
        files: manifest.n_files(),
        bytes: manifest.bytes(),
        moved_bytes,
        delta_bytes,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What one version's bringing works with.
struct Work {
    client: Client,
    packages: Packages,
    /// Keeps what came, whatever becomes of this process.
    lease: Arc<Session>,
    progress: Arc<Progress>,
    beside: Beside,
    /// Chunks that are asked for, or about to be.
    in_flight: InFlight,
    /// Chunks that came and are not hashed into their files yet.
    fresh: Fresh,
    /// For the bases of deltas.
    spare: Spare,
    /// Bytes that came as deltas.
    delta_bytes: AtomicU64,
}

/// A content of several chunks, to be put together.
struct Whole {
    digest: Digest,
    recipe: Arc<Recipe>,
    /// How far it is hashed.
    assembly: Mutex<Assembly>,
}

impl Whole {
    fn new(digest: Digest, recipe: Arc<Recipe>) -> Arc<Self> {
        let assembly = Mutex::new(Assembly::new(digest, recipe.clone()));
        Arc::new(Self { digest, recipe, assembly })
    }
}

impl Work {
    /// The manifest, brought if it is not held, and checked. That of the version `like` is likely to be
    /// like it.
    async fn manifest(
        self: &Arc<Self>,
        info: &VersionInfo,
        like: Option<&VersionInfo>,
    ) -> Result<Arc<Manifest>, RemoteError> {
        let digest = info.manifest;
        let lease = self.lease.clone();
        let is_missing =
            blocking(move || Ok(lease.missing_contents(&[digest]).map_err(local)?[0])).await?;
        if is_missing {
            let recipe = self.client.recipe(digest).await?;
            let recipe = recipe.ok_or(RemoteError::Incomplete { n: 1, first: digest })?;
            let is_other = recipe.len() == 1 && recipe.chunks()[0] != ChunkId(digest);
            if is_other || recipe.is_empty() || recipe.size() > MAX_MANIFEST {
                return Err(self.wrong(digest));
            }
            let like = like.map(|like| like.manifest);
            self.content(Whole::new(digest, Arc::new(recipe)), like).await?;
        }
        let (packages, tree) = (self.packages.clone(), info.tree);
        blocking(move || {
            let manifest = packages.manifest(digest)?;
            if manifest.tree_digest() != tree { Err(RemoteError::OtherTree) } else { Ok(manifest) }
        })
        .await
    }

    /// Brings one content, which may be like another one that is held.
    async fn content(
        self: &Arc<Self>,
        whole: Arc<Whole>,
        like: Option<Digest>,
    ) -> Result<(), RemoteError> {
        let pieces = self.missing(&whole).await?;
        let near = match like {
            Some(like) => self.near_content(&whole, &pieces, like).await?,
            None => Vec::new(),
        };
        let batches = plan::batches(pieces, near);
        let taken = futures::stream::iter(batches).map(|batch| self.clone().take_batch(batch));
        let () = taken.buffer_unordered(IN_FLIGHT).map_ok(drop).try_collect().await?;
        self.clone().finish(vec![whole]).await
    }

    /// What is held of the version `like`, which the one with `manifest` is likely to be like. If it
    /// cannot be read, there are no deltas.
    async fn bases(
        &self,
        like: VersionInfo,
        manifest: Arc<Manifest>,
    ) -> Result<Option<Arc<Bases>>, RemoteError> {
        let packages = self.packages.clone();
        blocking(move || {
            let old = packages.manifest(like.manifest);
            let old = old.inspect_err(|error| tracing::warn!(%error, "no deltas are asked for"));
            let library = packages.library().clone();
            Ok(old.ok().map(|old| Arc::new(Bases::new(library, old, manifest))))
        })
        .await
    }

    /// Brings all files of the version.
    async fn files(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
        bases: Option<Arc<Bases>>,
    ) -> Result<(), RemoteError> {
        // The manifest's own bytes are none of the version's.
        self.progress.bytes.store(0, Relaxed);
        self.progress.total_files.store(manifest.n_files(), Relaxed);
        self.progress.total_bytes.store(manifest.bytes(), Relaxed);
        let (ready, batches) = mpsc::channel(READY);
        let (put, taken) = mpsc::channel(TAKEN);
        let plan = Plan::new(self.clone(), manifest, bases).run(ready);
        let (take, finish) = (self.clone().take_all(batches, put), self.clone().finish_all(taken));
        tokio::try_join!(plan, take, finish)?;
        Ok(())
    }

    /// Takes the chunks of all batches, and hands each batch on when its chunks and those of all
    /// before it are there: a file may need chunks of earlier ones.
    async fn take_all(
        self: Arc<Self>,
        batches: mpsc::Receiver<Batch>,
        mut put: mpsc::Sender<Batch>,
    ) -> Result<(), RemoteError> {
        let taken = batches.map(move |batch| self.clone().take_batch(batch));
        let mut taken = taken.buffered(IN_FLIGHT);
        while let Some(batch) = taken.try_next().await? {
            // If nobody takes it, finishing has failed, and says why.
            let _ = put.send(batch).await;
        }
        Ok(())
    }

    /// Takes the chunks of one batch.
    async fn take_batch(self: Arc<Self>, mut batch: Batch) -> Result<Batch, RemoteError> {
        let (pieces, near) = batch.take_pieces();
        let plain = self.clone().take(pieces, Vec::new());
        let deltas = self.take(near.pieces, near.base);
        tokio::try_join!(plain, deltas)?;
        Ok(batch)
    }

    /// Puts the files of all batches together.
    async fn finish_all(self: Arc<Self>, taken: mpsc::Receiver<Batch>) -> Result<(), RemoteError> {
        let finished = taken.map(move |batch| {
            let work = self.clone();
            async move {
                let Batch { n_files, files, begun, permits, .. } = batch;
                let n_files = n_files + files.len() as u64;
                work.clone().finish(files).await?;
                if let Some((whole, end)) = begun {
                    work.clone().hash_on(whole, end).await?;
                }
                drop(permits);
                work.progress.files.fetch_add(n_files, Relaxed);
                Ok::<_, RemoteError>(())
            }
        });
        finished.buffer_unordered(FINISHERS).try_collect().await
    }

    /// Hashes a content of which more is to come, as far as its chunks before the `end`th.
    async fn hash_on(self: Arc<Self>, whole: Arc<Whole>, end: usize) -> Result<(), RemoteError> {
        blocking(move || {
            let library = self.packages.library();
            whole.assembly.lock().advance(library, end, |id| self.fresh.take(id));
            Ok(())
        })
        .await
    }

    /// Puts contents together, whose chunks are all held.
    async fn finish(self: Arc<Self>, mut contents: Vec<Arc<Whole>>) -> Result<(), RemoteError> {
        let mut tries: HashMap<ChunkId, u32> = HashMap::new();
        while !contents.is_empty() {
            let work = self.clone();
            let (left, pieces) = blocking(move || work.put_together(contents)).await?;
            contents = left;
            // Found damaged just now, or lost by somebody else who was about to store them. They were
            // counted when they came, or were held.
            let pieces: HashMap<ChunkId, Piece> =
                pieces.into_iter().map(|piece| (piece.id, piece)).collect();
            let again = pieces.values().map(Piece::len).sum();
            self.progress.bytes.fetch_sub(again, Relaxed);
            let spent = |id: &&ChunkId| {
                let n = tries.entry(**id).or_default();
                *n += 1;
                *n > TRIES
            };
            let spent: Vec<&ChunkId> = pieces.keys().filter(spent).collect();
            if let Some(first) = spent.first() {
                return Err(RemoteError::LostHere { n: spent.len(), first: first.0 });
            }
            for batch in plan::batches(pieces.into_values().collect(), Vec::new()) {
                self.clone().take_batch(batch).await?;
            }
        }
        Ok(())
    }

    fn wrong(&self, digest: Digest) -> RemoteError {
        RemoteError::WrongBytes { url: self.client.shown(), digest }
    }

    /// Puts what can be put together in the library. Answers what is left, and the chunks that it lacks.
    fn put_together(
        &self,
        contents: Vec<Arc<Whole>>,
    ) -> Result<(Vec<Arc<Whole>>, Vec<Piece>), RemoteError> {
        let session = self.packages.library().session();
        let at_hand = |id| self.fresh.take(id);
        let (mut left, mut pieces) = (Vec::new(), Vec::new());
        for whole in contents {
            let mut assembly = whole.assembly.lock();
            let mut put = session.put_assembly(&mut assembly, at_hand);
            if let Err(AddError::MissingChunks(condemned)) = &put {
                // Nothing refers to them yet, so a collection may have condemned them meanwhile. The lease
                // keeps them all the same, and makes them live again: they need not come twice.
                self.lease.missing_chunks(condemned).map_err(local)?;
                put = session.put_assembly(&mut assembly, at_hand);
            }
            drop(assembly);
            match put {
                Ok(()) => {}
                Err(AddError::MissingChunks(missing)) => {
                    let missing: HashSet<ChunkId> = missing.into_iter().collect();
                    pieces.extend(whole.pieces().filter(|piece| missing.contains(&piece.id)));
                    left.push(whole);
                }
                // The chunks are what the recipe says: the recipe is another content's.
                Err(AddError::WrongDigest { .. }) => {
                    let url = format!("recipes/{}", whole.digest);
                    return Err(RemoteError::WrongBytes { url, digest: whole.digest });
                }
                Err(error) => return Err(local(error)),
            }
        }
        match session.commit(Vec::new()) {
            // A chunk that was relied on did not come; it is missing the next time.
            Err(CommitError::Interrupted) if !left.is_empty() => {}
            result => result.map_err(PackageError::from)?,
        }
        Ok((left, pieces))
    }
}

/// An error of this machine's library.
fn local(error: impl Into<PackageError>) -> RemoteError {
    error.into().into()
}
