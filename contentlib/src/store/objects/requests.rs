//! Requests to an object store, made to be waited for by threads.
//!
//! The store behind is slow, far away, and now and then unsure: a request may have taken effect
//! although its answer is an error or never comes. So every request here
//! * is bounded: by a number of tries with growing, jittered pauses, and each try by the time in
//!   which nothing moves, never by how long all of it takes;
//! * can be made again: what is written is named once, and carries the BLAKE3 of its bytes. Where
//!   it is not known whether a write took effect, the store is asked what it has.
//!
//! Requests run on threads of their own, so they can be waited for from any thread, be it one of
//! an async runtime or not.

use super::gate::{Gate, Term};
use crate::digest::Digest;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload,
};
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Objects up to this size are written by one request; larger ones in parts.
const SINGLE: u64 = 16 << 20;
/// One part of a larger object, in bytes.
const PART: u64 = 8 << 20;
/// Parts of one object that are on their way at a time.
const PARTS_AT_ONCE: usize = 4;
/// Where an object's own checksum is kept: a name that all stores allow.
const CHECKSUM: &str = "blake3";

/// How long requests are tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries of one request, at least 1.
    pub tries: u32,
    /// The pause after the first failed try, about; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// A try ends when nothing moved for so long: no answer to a request of at most 16 MiB, or no
    /// further bytes of an answer.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 6,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        }
    }
}

/// How many requests of each kind were made, tries included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RequestCounts {
    /// Objects written, and parts of larger ones.
    pub puts: u64,
    /// Objects read, or ranges of them.
    pub gets: u64,
    /// Objects asked for their length and checksum.
    pub heads: u64,
    /// Deletions, of up to 1000 objects each.
    pub deletes: u64,
    /// Listings, of any length.
    pub lists: u64,
}

#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    deletes: AtomicU64,
    lists: AtomicU64,
}

/// The bytes of a new object.
pub(super) struct Body {
    /// The local file that has them, which does not change there meanwhile.
    pub file: Arc<File>,
    pub range: Range<u64>,
}

impl Body {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn part(&self, part: Range<u64>) -> io::Result<Bytes> {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        self.file.read_exact_at(&mut bytes, self.range.start + part.start)?;
        Ok(bytes.into())
    }

    fn parts(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let len = self.len();
        (0..len.div_ceil(PART)).map(move |n| n * PART..len.min((n + 1) * PART))
    }

    fn digest(&self) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        for part in self.parts() {
            hasher.update(&self.part(part)?);
        }
        Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }
}

/// An object and what is needed to change it if nobody else did.
pub(super) struct Versioned {
    pub bytes: Bytes,
    pub e_tag: Option<String>,
    pub version: Option<String>,
}

/// What came of a write that only one of many may make.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Won {
    Yes,
    /// Somebody else was first.
    No,
}

/// The requests of one library: below one prefix of one store.
pub(crate) struct Requests {
    core: Arc<Core>,
    /// Taken when this goes.
    runtime: Option<Runtime>,
}

struct Core {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    patience: Patience,
    counts: Counts,
    /// Whether the store refuses a conditional write whose condition does not hold.
    conditional: AtomicBool,
    /// Whether it is not known of some write if it took effect.
    in_doubt: AtomicBool,
    gate: Gate,
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Not waited for: a runtime must not be where others may be at work on this thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Requests {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        patience: Patience,
        term: Option<Term>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("objects")
            .enable_all()
            .build()?;
        let core = Core {
            store,
            prefix,
            patience,
            counts: Counts::default(),
            conditional: AtomicBool::new(true),
            in_doubt: AtomicBool::new(false),
            gate: Gate::during(term),
        };
        Ok(Self { core: Arc::new(core), runtime: Some(runtime) })
    }

    /// From now on nothing is asked to be written on a condition: the store would not keep to it.
    pub(super) fn without_conditions(&self) {
        self.core.conditional.store(false, Relaxed);
    }

    /// Whether a write of this process may yet take effect that it gave up.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.core.in_doubt.load(Relaxed)
    }

    /// What decides whether this process may still write.
    pub(super) fn gate(&self) -> &Gate {
        &self.core.gate
    }

    pub(crate) fn counts(&self) -> RequestCounts {
        let counts = &self.core.counts;
        RequestCounts {
            puts: counts.puts.load(Relaxed),
            gets: counts.gets.load(Relaxed),
            heads: counts.heads.load(Relaxed),
            deletes: counts.deletes.load(Relaxed),
            lists: counts.lists.load(Relaxed),
        }
    }

    /// Waits for work on this store's own threads.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.spawn(async move { drop(tell.send(work.await)) });
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the request was abandoned")))
    }

    /// Has work done meanwhile.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.runtime.as_ref().expect("there until this goes");
        drop(runtime.spawn(work));
    }

    /// Writes an object whose name was never used. Durable when this returns.
    pub(super) fn put_new(&self, name: &str, body: Body) -> io::Result<()> {
        let digest = body.digest()?;
        let (core, name) = (self.core.clone(), name.to_owned());
        self.wait(async move { core.put_new(&name, body, digest).await })
    }

    /// Bytes `range` of an object; `UnexpectedEof` if it is shorter or gone.
    pub(super) fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.wait(async move { core.get(&name, range).await })
    }

    /// All objects below `folder`: their names there, and their lengths.
    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let (core, folder) = (self.core.clone(), folder.to_owned());
        self.wait(async move { core.list(&folder).await })
    }

    /// Deletes objects; it is no error if they are gone.
    pub(super) fn delete(&self, names: Vec<String>) -> io::Result<()> {
        let core = self.core.clone();
        self.wait(async move { core.delete(names).await })
    }

    /// A small object that changes, whole; `None` if there is none.
    pub(super) fn get_versioned(&self, name: &str) -> io::Result<Option<Versioned>> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.wait(async move { core.get_versioned(&name).await })
    }

    /// Writes a small object in place of the one that was `seen`, or of none. Its bytes must be
    /// like no other writer's, by which an own write is known whose answer got lost.
    pub(super) fn replace(
        &self,
        name: &str,
        seen: Option<Versioned>,
        bytes: Bytes,
    ) -> io::Result<Won> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.wait(async move { core.replace(&name, seen, bytes).await })
    }

    /// A conditional write of a probe, as it is answered.
    pub(super) fn try_put(&self, name: &str, mode: PutMode) -> io::Result<Result<(), Error>> {
        let core = self.core.clone();
        let name = core.path(name);
        self.wait(async move {
            let put = core.retry(&core.counts.puts, || async {
                let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
                let payload = PutPayload::from_static(b"probe");
                core.in_time(core.store.put_opts(&name, payload, options)).await.map(drop)
            });
            Ok(put.await)
        })
    }
}

/// Whether another try may go better.
fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::JoinError { .. })
}

fn stalled() -> Error {
    let source = "nothing moved for too long".into();
    Error::Generic { store: "object store", source }
}

/// The error for those who know only files.
pub(super) fn io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl Core {
    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(self.patience.stall, work).await.unwrap_or_else(|_| Err(stalled()))
    }

    /// Makes tries until one succeeds, one fails for good, or there were enough.
    async fn retry<T, W>(&self, count: &AtomicU64, mut work: impl FnMut() -> W) -> Result<T, Error>
    where
        W: Future<Output = Result<T, Error>>,
    {
        let mut pause = self.patience.first_pause;
        let mut tries = 1;
        loop {
            count.fetch_add(1, Relaxed);
            match work().await {
                Err(error) if is_transient(&error) && tries < self.patience.tries => {
                    tracing::debug!(%error, tries, "a request to the object store is tried again");
                }
                done => return done,
            }
            // Half of it by chance, so that many who failed together do not come back together.
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(self.patience.longest_pause);
            tries += 1;
        }
    }

    async fn put_new(&self, name: &str, body: Body, digest: Digest) -> io::Result<()> {
        let path = self.path(name);
        let (key, hex) = (Attribute::Metadata(CHECKSUM.into()), digest.to_hex());
        let attributes = Attributes::from_iter([(key, hex)]);
        let put = if body.len() <= SINGLE {
            self.put_single(&path, &body, attributes).await
        } else {
            self.put_in_parts(&path, &body, attributes).await
        };
        match put {
            Err(error) if self.may_have_taken_effect(&error) => {
                // Its answer may have got lost, or a try before the last one took effect.
                match self.holds(&path, body.len(), digest).await {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => {
                        self.in_doubt.store(true, Relaxed);
                        Err(io_error(error))
                    }
                }
            }
            put => put.map_err(io_error),
        }
    }

    fn may_have_taken_effect(&self, error: &Error) -> bool {
        is_transient(error)
            || matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
    }

    async fn put_single(
        &self,
        path: &Path,
        body: &Body,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let bytes = body.part(0..body.len()).map_err(local_error)?;
        let mode =
            if self.conditional.load(Relaxed) { PutMode::Create } else { PutMode::Overwrite };
        self.retry(&self.counts.puts, || async {
            self.gate.check().map_err(local_error)?;
            let options = PutOptions {
                mode: mode.clone(),
                attributes: attributes.clone(),
                ..PutOptions::default()
            };
            let put = self.store.put_opts(path, bytes.clone().into(), options);
            self.in_time(put).await.map(drop)
        })
        .await
    }

    /// Writes a large object in parts, so that time-outs and tries are of one part. What a failure
    /// leaves is aborted; what a kill leaves, the store's own rule for unfinished uploads takes.
    async fn put_in_parts(
        &self,
        path: &Path,
        body: &Body,
        attributes: Attributes,
    ) -> Result<(), Error> {
        self.retry(&self.counts.puts, || async {
            self.gate.check().map_err(local_error)?;
            let options =
                PutMultipartOptions { attributes: attributes.clone(), ..Default::default() };
            let begun = self.store.put_multipart_opts(path, options);
            let mut upload = self.in_time(begun).await?;
            let parts = stream::iter(body.parts()).map(|part| {
                self.counts.puts.fetch_add(1, Relaxed);
                let sent = body.part(part).map_err(local_error).map(|b| upload.put_part(b.into()));
                async { self.in_time(sent?).await }
            });
            let sent = parts.buffered(PARTS_AT_ONCE).try_collect::<Vec<()>>().await;
            let done = match sent.and_then(|_| self.gate.check().map_err(local_error)) {
                Ok(()) => self.in_time(upload.complete()).await.map(drop),
                Err(error) => Err(error),
            };
            if done.is_err()
                && let Err(error) = self.in_time(upload.abort()).await
            {
                tracing::debug!(%path, %error, "an upload could not be aborted");
            }
            done
        })
        .await
    }

    /// Whether the store has these bytes under that name.
    async fn holds(&self, path: &Path, len: u64, digest: Digest) -> Result<bool, Error> {
        let asked = self
            .retry(&self.counts.heads, || async {
                let options = GetOptions { head: true, ..GetOptions::default() };
                self.in_time(self.store.get_opts(path, options)).await
            })
            .await;
        let found = match asked {
            Err(Error::NotFound { .. }) => return Ok(false),
            found => found?,
        };
        if found.meta.size != len {
            return Ok(false);
        }
        match found.attributes.get(&Attribute::Metadata(CHECKSUM.into())) {
            Some(stated) => Ok(stated.as_ref() == digest.to_hex()),
            // A store that keeps no such notes.
            None => Ok(Digest::of(&self.read(path, None).await?) == digest),
        }
    }

    /// An object, or a range of it, with progress as the only limit of time.
    async fn read(&self, path: &Path, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.retry(&self.counts.gets, || async {
            let range = range.clone().map(GetRange::Bounded);
            let options = GetOptions { range, ..GetOptions::default() };
            let found = self.in_time(self.store.get_opts(path, options)).await?;
            let wanted = (found.range.end - found.range.start) as usize;
            let mut stream = found.into_stream();
            let mut first: Option<Bytes> = None;
            let mut all = Vec::new();
            while let Some(piece) = self.in_time(async { stream.next().await.transpose() }).await? {
                match first.take() {
                    None if all.is_empty() => first = Some(piece),
                    None => all.extend_from_slice(&piece),
                    Some(begun) => {
                        all.reserve_exact(wanted.max(begun.len() + piece.len()));
                        all.extend_from_slice(&begun);
                        all.extend_from_slice(&piece);
                    }
                }
            }
            let bytes = first.unwrap_or_else(|| all.into());
            if bytes.len() == wanted { Ok(bytes) } else { Err(broken_off()) }
        })
        .await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let length = (range.end - range.start) as usize;
        match self.read(&self.path(name), Some(range)).await {
            Ok(bytes) if bytes.len() == length => Ok(bytes),
            // Less of it than there should be: damage, as of a file that was cut off.
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("object {name} is shorter than it was"),
            )),
            Err(error @ Error::NotFound { .. }) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))
            }
            Err(error) => Err(io_error(error)),
        }
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let path = self.path(folder);
        let depth = path.parts().count();
        let listed = self.retry(&self.counts.lists, || async {
            let mut found = Vec::new();
            let mut objects = self.store.list(Some(&path));
            while let Some(object) =
                self.in_time(async { objects.next().await.transpose() }).await?
            {
                let name: Vec<_> = object.location.parts().skip(depth).collect();
                if let [name] = &name[..] {
                    found.push((name.as_ref().to_owned(), object.size));
                }
            }
            Ok(found)
        });
        listed.await.map_err(io_error)
    }

    async fn delete(&self, names: Vec<String>) -> io::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let deleted = self.retry(&self.counts.deletes, || async {
            self.gate.check().map_err(local_error)?;
            let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
            let mut deleted = self.store.delete_stream(stream::iter(paths).boxed());
            loop {
                match self.in_time(async { deleted.next().await.transpose() }).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(_)) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        });
        deleted.await.map_err(io_error)
    }

    async fn get_versioned(&self, name: &str) -> io::Result<Option<Versioned>> {
        let path = self.path(name);
        let read = self.retry(&self.counts.gets, || async {
            let found = self.in_time(self.store.get_opts(&path, GetOptions::default())).await?;
            let (e_tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
            let bytes = self.in_time(found.bytes()).await?;
            Ok(Versioned { bytes, e_tag, version })
        });
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(io_error(error)),
        }
    }

    async fn replace(&self, name: &str, seen: Option<Versioned>, bytes: Bytes) -> io::Result<Won> {
        let path = self.path(name);
        let mode = match seen {
            _ if !self.conditional.load(Relaxed) => PutMode::Overwrite,
            None => PutMode::Create,
            Some(Versioned { e_tag, version, .. }) => {
                PutMode::Update(object_store::UpdateVersion { e_tag, version })
            }
        };
        let put = self.retry(&self.counts.puts, || async {
            let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
            let put = self.store.put_opts(&path, bytes.clone().into(), options);
            self.in_time(put).await.map(drop)
        });
        match put.await {
            Ok(()) => Ok(Won::Yes),
            Err(error) if self.may_have_taken_effect(&error) => {
                let is_lost = !is_transient(&error);
                match self.get_versioned(name).await? {
                    Some(found) if found.bytes == bytes => Ok(Won::Yes),
                    _ if is_lost => Ok(Won::No),
                    _ => Err(io_error(error)),
                }
            }
            Err(error) => Err(io_error(error)),
        }
    }
}

fn broken_off() -> Error {
    Error::Generic { store: "object store", source: "the answer broke off".into() }
}

/// An error of this machine: no other try will go better.
fn local_error(error: io::Error) -> Error {
    Error::NotSupported { source: Box::new(error) }
}
