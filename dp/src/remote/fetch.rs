//! Bringing a version of a package into a folder.
//!
//! 1. The signed description of the version, then its manifest: from here on every byte has a
//!    digest to match.
//! 2. What differs locally ([`super::plan`]).
//! 3. Recipes of what is needed; chunks that older files or a killed fetch left are taken first.
//! 4. Only the missing chunks come over the wire, in batches; each content is put in place as soon
//!    as it is complete.
//! 5. What left the package is removed, folders get their modes and times, and the state is
//!    written last. Killed anywhere, the next run goes on from what is there.

use super::RemoteError;
use super::address;
use super::client::{Client, Server};
use super::gather::Take;
use super::out::{Inside, Out};
use super::place::Placer;
use super::plan::{Found, compare, is_untouched, look, parallel, stamp};
use super::recipes::{RECIPE_REQUESTS, RECIPES_AT_ONCE, RECIPES_IN_FLIGHT};
use super::sink::{ChunkPlace, OneChunk, Sink, Wanted};
use super::state::{Stamp, State};
use bytes::Bytes;
use contentlib::{ChunkId, Digest, Frame, Progress, Recipe};
use futures::{StreamExt, TryStreamExt};
use packager::fetch_state::FOLDER;
use packager::folder::FileStat;
use packager::manifest::{FileEntry, Kind, Manifest};
use packager::sign::VersionInfo;
use packager::{PackageName, PublicKey, Selector};
use reqwest::Url;
use rustls::ClientConfig;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind::PermissionDenied;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Chunks of one request.
const BATCH_CHUNKS: usize = 256;
/// Plain bytes of one request.
const BATCH_BYTES: u64 = 16 << 20;
/// Requests for chunks at a time.
const IN_FLIGHT: usize = 4;

/// How a version is fetched.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The key that the version must be signed with. Without it the key of the first fetch counts,
    /// and the first fetch trusts what it gets.
    pub key: Option<PublicKey>,
    /// Threads for hashing and writing; 0 for as many as there are cores.
    pub jobs: usize,
    /// Whom servers over HTTPS are believed to be ([`crate::identity::fetching_config`]); nothing:
    /// those that the system's authorities vouch for.
    pub tls: Option<Arc<ClientConfig>>,
    /// Shows how far it is, in files and bytes of what has to be written; `new_bytes` are those
    /// that came over the wire. To end a fetch, drop it.
    pub progress: Arc<Progress>,
}

/// What a fetch came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FetchReport {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The key it is signed with.
    pub key: PublicKey,
    /// Whether this fetch was the first here and took the server's word for the key.
    pub trusted_on_first_use: bool,
    /// Files of the version.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and links that were written; the others were right already.
    pub written: u64,
    /// Bytes of those files.
    pub written_bytes: u64,
    /// Of those, the bytes that local files already held.
    pub reused_bytes: u64,
    /// Bytes that came over the wire.
    pub moved_bytes: u64,
    /// Entries that were removed since they left the package.
    pub removed: u64,
    /// Entries that left the package and stay, since somebody changed them.
    pub kept: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Fetches the version at `addresses` (`http://SERVER/packages/NAME/VERSION`), each of which has the
/// same, into `out`. What one server does not give, the next does; the first is preferred.
///
/// # Panics
/// If the process has installed no rustls provider.
pub async fn fetch<A: AsRef<str>>(
    addresses: &[A],
    out: &Path,
    options: FetchOptions,
) -> Result<FetchReport, RemoteError> {
    let (package, selector, servers) = address::of_one_version(addresses)?;
    fetch_from(&servers, &package, &selector, out, options).await
}

/// Fetches a version of `package` into `out` from `servers`, URLs that end in a slash, the preferred
/// one first.
///
/// # Panics
/// If the process has installed no rustls provider.
pub async fn fetch_from(
    servers: &[Url],
    package: &PackageName,
    selector: &Selector,
    out: &Path,
    options: FetchOptions,
) -> Result<FetchReport, RemoteError> {
    let began = std::time::Instant::now();
    let tls = options.tls.as_ref();
    let ranked = |(url, rank): (&Url, u32)| Ok(Server::of_url(url.clone(), tls)?.ranked(rank));
    let ranked = servers.iter().zip(0..).map(ranked).collect::<Result<_, RemoteError>>()?;
    let client = Client::of(ranked);
    let info = client.version(package, selector).await?;
    let is_other = match selector {
        Selector::Number(number) => *number != info.version,
        _ => false,
    };
    if info.package != *package || is_other {
        return Err(RemoteError::OtherVersion {
            url: client.shown(),
            package: info.package,
            version: info.version,
        });
    }
    let opened = out.to_owned();
    let mut state = blocking(move || State::open(&opened)).await?;
    let trusted_on_first_use = check_key(&info, out, &state, options.key)?;
    state.pin(&info.package, info.key)?;

    let old = state.last.as_ref().map(|last| last.bytes.as_slice());
    let bytes = match old {
        Some(old) if state.record.manifest == Some(info.manifest) => Bytes::copy_from_slice(old),
        old => super::manifest::fetch(&client, info.manifest, old).await?,
    };
    let manifest = Manifest::decode(&bytes)?;
    if manifest.tree_digest() != info.tree {
        return Err(RemoteError::OtherTree);
    }
    if manifest.lookup(FOLDER.as_bytes()).is_some() {
        return Err(RemoteError::Reserved);
    }
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        jobs => jobs,
    };
    let out = Out::open(out)?;
    let job = Arc::new(Job { out, manifest, state, jobs, progress: options.progress });
    let done = job.clone().run(&client, &bytes).await?;
    // All tasks of the job have ended.
    let Some(Job { manifest, mut state, .. }) = Arc::into_inner(job) else {
        unreachable!("nothing holds the job once it has run")
    };
    let Done { written, written_bytes, reused_bytes, removed, kept, stamps } = done;
    let (version, digest) = (info.version, info.manifest);
    if let Some(stamps) = stamps {
        blocking(move || state.finish(version, digest, &bytes, &stamps)).await?;
    }
    Ok(FetchReport {
        package: info.package,
        version,
        manifest: digest,
        key: info.key,
        trusted_on_first_use,
        files: manifest.n_files(),
        bytes: manifest.bytes(),
        written,
        written_bytes,
        reused_bytes,
        moved_bytes: client.moved(),
        removed,
        kept,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Whether the version may go into this folder: the right package, signed by the right key.
fn check_key(
    info: &VersionInfo,
    out: &Path,
    state: &State,
    stated: Option<PublicKey>,
) -> Result<bool, RemoteError> {
    if let Some(holds) = state.record.package.clone().filter(|holds| *holds != info.package) {
        return Err(RemoteError::OtherPackage {
            folder: out.into(),
            holds,
            wanted: info.package.clone(),
        });
    }
    let pinned = state.record.key;
    if let Some(pinned) = pinned
        && stated.is_none()
        && pinned != info.key
    {
        let package = info.package.clone();
        return Err(RemoteError::OtherKey { package, found: info.key, pinned });
    }
    let trusted = stated.or(pinned);
    info.verify(&trusted.unwrap_or(info.key))?;
    Ok(trusted.is_none())
}

/// Runs what blocks where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("blocking work is never cancelled"),
        },
    }
}

struct Job {
    out: Out,
    manifest: Manifest,
    state: State,
    jobs: usize,
    progress: Arc<Progress>,
}

struct Done {
    written: u64,
    written_bytes: u64,
    reused_bytes: u64,
    removed: u64,
    kept: Vec<String>,
    /// By entry; nothing if all was right before.
    stamps: Option<Vec<Stamp>>,
}

/// What has to be done.
struct Work {
    found: Vec<Found>,
    /// The entries of each content that has to be written.
    needed: HashMap<Digest, Vec<usize>>,
    /// Local files that may hold some of it, by their paths in the folder.
    sources: Vec<Vec<u8>>,
}

impl Job {
    async fn run(self: Arc<Self>, client: &Client, bytes: &Bytes) -> Result<Done, RemoteError> {
        let job = self.clone();
        let work = blocking(move || job.examine()).await?;
        let is_same = |found: &Found| *found == Found::Right;
        let mut done = Done {
            written: 0,
            written_bytes: 0,
            reused_bytes: 0,
            removed: 0,
            kept: vec![],
            stamps: None,
        };
        let is_finished = self.state.pending.is_none()
            && self.state.last.as_ref().is_some_and(|last| last.bytes == bytes[..]);
        if is_finished && work.found.iter().all(is_same) {
            return Ok(done);
        }
        let (job, manifest_bytes) = (self.clone(), bytes.clone());
        let work = blocking(move || {
            job.state.begin(&manifest_bytes)?;
            job.placer().prepare(&work.found)?;
            Ok(work)
        })
        .await?;
        let Work { found, needed, sources } = work;
        let progress = &self.progress;
        done.written = needed.values().map(|entries| entries.len() as u64).sum();
        done.written +=
            found.iter().enumerate().filter(|&(at, found)| self.is_made(at, *found)).count() as u64;
        done.written_bytes =
            needed.values().flatten().filter_map(|&at| self.file(at)).map(|f| f.size).sum();
        progress.total_files.store(done.written, Relaxed);
        progress.total_bytes.store(done.written_bytes, Relaxed);

        let sink = Arc::new(self.sink(client, &needed).await?);
        let needed = Arc::new(needed);
        self.clone().take_local(&sink, &needed, sources).await?;
        self.clone().take_remote(client, &sink, &needed).await?;
        done.reused_bytes = sink.reused.load(Relaxed);
        let job = self.clone();
        let (removed, kept, stamps) = blocking(move || job.finish(&found)).await?;
        Ok(Done { removed, kept, stamps: Some(stamps), ..done })
    }

    fn placer(&self) -> Placer<'_> {
        Placer::new(&self.out, &self.manifest, &self.state)
    }

    fn file(&self, at: usize) -> Option<FileEntry> {
        self.manifest.entry(at).file()
    }

    /// Whether an entry is made on the spot: a link, or a file without bytes.
    fn is_made(&self, at: usize, found: Found) -> bool {
        let has_other = matches!(
            found,
            Found::OtherBytes | Found::OtherLink | Found::OtherKind | Found::Nothing
        );
        let is_small = match self.manifest.entry(at).kind {
            Kind::Folder => false,
            Kind::Link { .. } => true,
            Kind::File(file) => file.size == 0,
        };
        has_other && is_small
    }

    fn examine(&self) -> Result<Work, RemoteError> {
        let last = self.state.last.as_ref();
        let compare = || compare(&self.out, &self.manifest, last, self.jobs);
        let found = match compare() {
            // A folder that an earlier fetch closed, as its version has it, even to its owner.
            Err(RemoteError::Io { source, .. }) if source.kind() == PermissionDenied => {
                self.placer().open_folders()?;
                compare()?
            }
            found => found?,
        };
        let mut needed: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (at, found) in found.iter().enumerate() {
            let has = matches!(found, Found::Right | Found::OtherMode);
            if let Some(file) = self.file(at).filter(|file| !has && file.size > 0) {
                needed.entry(file.digest).or_default().push(at);
            }
        }
        // Local files worth cutting: older ones in the same places, and any that are known to be
        // of a needed content, wherever they are.
        let mut sources = HashSet::new();
        for (at, found) in found.iter().enumerate() {
            let entry = self.manifest.entry(at);
            let Some(file) = entry.file() else { continue };
            let is_older = *found == Found::OtherBytes && file.size > 0;
            let is_elsewhere = *found == Found::Right && needed.contains_key(&file.digest);
            if is_older || is_elsewhere {
                sources.insert(entry.path.to_vec());
            }
        }
        let mut inside = Inside::default();
        for entry in last.iter().flat_map(|last| last.manifest.entries()) {
            if !entry.file().is_some_and(|file| needed.contains_key(&file.digest)) {
                continue;
            }
            let found = look(&self.out, &mut inside, &entry).map_err(self.out.io(entry.path))?;
            let untouched = |stat| is_untouched(&FileStat::from(&stat), entry.path, last).is_some();
            if found.is_some_and(|(_, _, stat)| untouched(stat)) {
                sources.insert(entry.path.to_vec());
            }
        }
        Ok(Work { found, needed, sources: sources.into_iter().collect() })
    }

    /// Fetches the recipes of the contents that need one.
    async fn sink(
        &self,
        client: &Client,
        needed: &HashMap<Digest, Vec<usize>>,
    ) -> Result<Sink, RemoteError> {
        let mut firsts: Vec<usize> =
            needed.values().filter_map(|entries| entries.first().copied()).collect();
        // In the order of the manifest, which is about that of the packs.
        firsts.sort_unstable();
        let files: Vec<FileEntry> = firsts.into_iter().filter_map(|at| self.file(at)).collect();
        let with_recipe = files.iter().filter_map(|file| Some((*file, file.recipe?)));
        let with_recipe: Vec<_> = with_recipe.collect();
        let recipes =
            with_recipe.chunks(RECIPES_AT_ONCE).map(|batch| client.recipes(batch.to_vec()));
        let recipes: Vec<_> = recipes.collect();
        let recipes: Vec<Vec<Recipe>> =
            futures::stream::iter(recipes).buffered(RECIPE_REQUESTS).try_collect().await?;
        let mut recipes = recipes.into_iter().flatten();
        let wanted = |file: FileEntry| {
            let recipe = file.recipe.and_then(|_| recipes.next());
            Wanted { digest: file.digest, size: file.size, recipe }
        };
        Ok(Sink::new(files.into_iter().map(wanted).collect(), self.state.parts.clone()))
    }

    /// Takes what a killed fetch and older files hold.
    async fn take_local(
        self: Arc<Self>,
        sink: &Arc<Sink>,
        needed: &Arc<HashMap<Digest, Vec<usize>>>,
        sources: Vec<Vec<u8>>,
    ) -> Result<(), RemoteError> {
        let (sink, needed) = (sink.clone(), needed.clone());
        blocking(move || {
            let n = sink.contents().len();
            let mut complete = parallel(n, self.jobs, || (), |(), at| sink.resume(at))?;
            let reuse = |(): &mut (), at: usize| sink.reuse(&self.out, &sources[at]);
            complete.extend(parallel(sources.len(), self.jobs, || (), reuse)?);
            // Not before all sources are read: their places may be among those that are filled.
            let complete: Vec<usize> = complete.into_iter().flatten().collect();
            let put = |placer: &mut Placer<'_>, at: usize| {
                let content = complete[at];
                let digest = sink.contents()[content].digest;
                placer.put_file(digest, &needed[&digest])?;
                self.count(&needed[&digest]);
                Ok(())
            };
            parallel(complete.len(), self.jobs, || self.placer(), put)?;
            self.progress.bytes.store(sink.written.load(Relaxed), Relaxed);
            Ok(())
        })
        .await
    }

    /// Fetches the chunks that are still missing.
    async fn take_remote(
        self: Arc<Self>,
        client: &Client,
        sink: &Arc<Sink>,
        needed: &Arc<HashMap<Digest, Vec<usize>>>,
    ) -> Result<(), RemoteError> {
        let batches = batches(&sink.missing());
        let fetched = batches.into_iter().map(|batch| {
            let (job, sink, needed) = (self.clone(), sink.clone(), needed.clone());
            async move { job.take_batch(client, &sink, &needed, batch).await }
        });
        let lacking: Vec<Vec<ChunkId>> =
            futures::stream::iter(fetched).buffer_unordered(IN_FLIGHT).try_collect().await?;
        self.take_lacking(client, sink, needed, lacking.concat()).await
    }

    /// Fetches the chunks that the server does not send as such since they are, by themselves, a
    /// content that was revoked: what was revoked is that content, and no larger one that holds the
    /// same bytes. Ends with an error if a revoked content itself is wanted, or chunks are lost.
    async fn take_lacking(
        self: Arc<Self>,
        client: &Client,
        sink: &Arc<Sink>,
        needed: &Arc<HashMap<Digest, Vec<usize>>>,
        mut lacking: Vec<ChunkId>,
    ) -> Result<(), RemoteError> {
        // Some may have come beside others.
        lacking.retain(|id| sink.wants(*id));
        let Lacking { revoked, lost } = why_lacking(client, sink, &lacking).await?;
        if let Some(first) = lost.first() {
            let n = lacking.len() - revoked.len();
            return Err(RemoteError::Incomplete { n, first: first.0 });
        }
        let fetched = revoked.into_iter().map(|(id, place)| {
            let (job, sink, needed) = (self.clone(), sink.clone(), needed.clone());
            async move {
                let bytes = client.part(place.content, place.bytes, id).await?;
                job.progress.new_bytes.store(client.moved(), Relaxed);
                blocking(move || job.place(&mut job.placer(), &sink, &needed, id, &bytes)).await
            }
        });
        futures::stream::iter(fetched).buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// Puts a chunk in all its places, and each content that it completed.
    fn place(
        &self,
        placer: &mut Placer<'_>,
        sink: &Sink,
        needed: &HashMap<Digest, Vec<usize>>,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        for complete in sink.put(id, bytes, OneChunk::HandBack)? {
            let Wanted { digest, recipe, .. } = &sink.contents()[complete];
            match recipe {
                None => placer.put_bytes(bytes, &needed[digest])?,
                Some(_) => placer.put_file(*digest, &needed[digest])?,
            }
            self.count(&needed[digest]);
        }
        self.progress.bytes.store(sink.written.load(Relaxed), Relaxed);
        Ok(())
    }

    /// Fetches one batch; the chunks that no server holds.
    async fn take_batch(
        self: Arc<Self>,
        client: &Client,
        sink: &Arc<Sink>,
        needed: &Arc<HashMap<Digest, Vec<usize>>>,
        batch: Vec<ChunkId>,
    ) -> Result<Vec<ChunkId>, RemoteError> {
        let ids: Vec<ChunkId> = batch.into_iter().filter(|id| sink.wants(*id)).collect();
        let mut placing = Placing {
            job: self,
            sink: sink.clone(),
            needed: needed.clone(),
            client: client.clone(),
        };
        client.gather(ids, &mut placing).await
    }

    /// Counts files that are in place.
    fn count(&self, entries: &[usize]) {
        self.progress.files.fetch_add(entries.len() as u64, Relaxed);
    }

    /// All that is left once the contents are in place.
    #[allow(clippy::type_complexity)]
    fn finish(&self, found: &[Found]) -> Result<(u64, Vec<String>, Vec<Stamp>), RemoteError> {
        let mut placer = self.placer();
        for (at, found) in found.iter().enumerate() {
            let entry = self.manifest.entry(at);
            if self.is_made(at, *found) {
                placer.make(&entry)?;
                self.count(&[at]);
            } else if *found == Found::OtherMode && entry.kind != Kind::Folder {
                placer.touch_up(&entry)?;
            }
        }
        let (removed, kept) = placer.prune()?;
        // Folders may close behind this, and have no stamps that anybody asks for.
        let stamps = parallel(self.manifest.len(), self.jobs, Inside::default, |inside, at| {
            let entry = self.manifest.entry(at);
            let found = look(&self.out, inside, &entry).map_err(self.out.io(entry.path))?;
            Ok(found.map_or_else(Stamp::default, |(_, _, stat)| stamp(&FileStat::from(&stat))))
        })?;
        placer.finish_folders()?;
        // Before the state says that it is all there.
        self.out.sync()?;
        Ok((removed, kept, stamps))
    }
}

/// Puts what comes in its places.
struct Placing {
    job: Arc<Job>,
    sink: Arc<Sink>,
    needed: Arc<HashMap<Digest, Vec<usize>>>,
    client: Client,
}

impl Take for Placing {
    async fn take(&mut self, frame: Frame) -> Result<Vec<ChunkId>, RemoteError> {
        self.job.progress.new_bytes.store(self.client.moved(), Relaxed);
        let (job, sink, needed) = (self.job.clone(), self.sink.clone(), self.needed.clone());
        blocking(move || {
            let mut placer = job.placer();
            // What does not decode, or hashes to something else, stays missing.
            let chunks = frame.chunks().unwrap_or_default();
            for (id, bytes) in &chunks {
                job.place(&mut placer, &sink, &needed, *id, bytes)?;
            }
            Ok(chunks.into_iter().map(|(id, _)| id).collect())
        })
        .await
    }
}

/// Chunks that the server named as lacking, by why.
struct Lacking {
    /// Revoked as a content of its own; where in a larger one its bytes are.
    revoked: Vec<(ChunkId, ChunkPlace)>,
    /// Not held.
    lost: Vec<ChunkId>,
}

/// Why the server does not send these chunks. Ends with its refusal if one of them is itself a
/// content that is wanted, and was revoked.
async fn why_lacking(
    client: &Client,
    sink: &Sink,
    lacking: &[ChunkId],
) -> Result<Lacking, RemoteError> {
    let asked = lacking.iter().map(async |&id| (id, client.recipe(id.0).await));
    let mut answers = futures::stream::iter(asked).buffered(RECIPES_IN_FLIGHT);
    let (mut revoked, mut lost) = (Vec::new(), Vec::new());
    // A server that lost very much is not asked about all of it.
    while lost.len() < BATCH_CHUNKS
        && let Some((id, answer)) = answers.next().await
    {
        let place = sink.place_of(id).expect("lacking chunks are wanted");
        match answer {
            Err(RemoteError::Refused { status: 410, .. }) if place.content != id.0 => {
                revoked.push((id, place));
            }
            answer => {
                answer?;
                lost.push(id);
            }
        }
    }
    Ok(Lacking { revoked, lost })
}

fn batches(missing: &[(ChunkId, u32)]) -> Vec<Vec<ChunkId>> {
    let mut batches: Vec<Vec<ChunkId>> = Vec::new();
    let mut bytes = u64::MAX;
    for (id, len) in missing {
        let len = u64::from(*len);
        match batches.last_mut() {
            Some(last) if last.len() < BATCH_CHUNKS && bytes + len <= BATCH_BYTES => {
                last.push(*id);
                bytes += len;
            }
            _ => {
                batches.push(vec![*id]);
                bytes = len;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_to_both_limits_and_lose_nothing() {
        let id = |n: u32| ChunkId(Digest::of(&n.to_le_bytes()));
        let small: Vec<_> = (0..600).map(|n| (id(n), 10)).collect();
        let lengths: Vec<usize> = batches(&small).iter().map(Vec::len).collect();
        assert_eq!(lengths, [256, 256, 88]);
        let large: Vec<_> = (0..80).map(|n| (id(n), 512 << 10)).collect();
        let lengths: Vec<usize> = batches(&large).iter().map(Vec::len).collect();
        assert_eq!(lengths, [32, 32, 16]);
        assert_eq!(batches(&large).concat(), large.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        assert!(batches(&[]).is_empty());
    }
}
