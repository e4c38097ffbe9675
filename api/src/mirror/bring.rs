//! Files of upstreams, brought into a package's next version, several at a time.
//!
//! What the library holds by a name that is stated is not asked for. The rest comes to a file of its own,
//! is checked there against what is stated, goes into the library and is gone: of memory and disk, only
//! what is on its way takes any. A download that was cut off goes on where it ended. A file that cannot be
//! had is named and keeps no other from coming; but where an upstream does not answer at all, the rest is
//! not tried.

use crate::problem::{Problem, with_causes};
use crate::site::blocking;
use crate::translate::cancelled;
use ::sync::adapter::Watch;
use ::sync::digests::{Algorithm, Digests};
use ::sync::error::{Cause, SyncError};
use ::sync::fetch::{Fetcher, Wanted};
use ::sync::mirror::{MirrorFile, Origin, RepoPath};
use contentlib::{AddError, AddOptions, Aliases, Name, Progress};
use futures::{StreamExt, stream};
use packager::compose::{Composition, PlaceError};
use packager::path::TreePath;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use url::Url;

/// How many files come at once.
const AT_ONCE: usize = 6;
/// How long to wait before a file is tried again whose upstream failed in a way that passes.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// After so many files in a row that failed so, no more are tried.
const GIVE_UP: usize = 8;

/// A content that a package is to have, and where.
pub(crate) struct File {
    /// Where it lies; one or more.
    pub paths: Vec<RepoPath>,
    /// Its bytes.
    pub size: u64,
    /// What is stated about them.
    pub digests: Digests,
    /// Where they are.
    pub origin: Origin,
    /// Whether it is a package, and so may come on demand.
    pub is_package: bool,
}

/// A content that is fetched to a file.
pub(crate) struct Content<'a> {
    /// Its bytes.
    pub size: u64,
    /// What is stated about them.
    pub digests: &'a Digests,
    /// The file.
    pub to: &'a Path,
}

/// A file that could not be had.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// Where it was to lie.
    pub path: String,
    /// What kind of failure it was.
    pub cause: Cause,
    /// What happened.
    pub detail: String,
}

/// What brings files into a version.
pub(crate) struct Bringing {
    /// The version.
    pub composition: Arc<Composition>,
    /// How to talk.
    pub fetcher: Fetcher,
    /// Where files lie until they are in the library.
    pub folder: PathBuf,
    /// Whether to stop.
    pub watch: Arc<Watch>,
    /// How far it is.
    pub progress: Arc<Progress>,
}

/// How a file came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was held.
    Held,
    /// It came.
    Came {
        /// Its SHA-256.
        sha256: Option<[u8; 32]>,
    },
}

/// Why a file was not placed.
enum Trouble {
    /// About that file.
    File(Failed),
    /// About all of them.
    All(Problem),
}

impl File {
    /// The same files, each content once.
    pub fn grouped(files: Vec<MirrorFile>) -> Vec<Self> {
        let mut grouped: Vec<Self> = Vec::with_capacity(files.len());
        let mut seen: HashMap<(Algorithm, String), usize> = HashMap::new();
        for MirrorFile { path, size, digests, origin, is_package } in files {
            let name = digests.strongest().map(|(algorithm, hex)| (algorithm, hex.to_owned()));
            let same =
                name.as_ref().and_then(|name| seen.get(name)).and_then(|at| grouped.get_mut(*at));
            match same.filter(|same| same.size == size) {
                Some(same) => {
                    same.paths.push(path);
                    same.is_package &= is_package;
                }
                None => {
                    seen.extend(name.map(|name| (name, grouped.len())));
                    grouped.push(Self { paths: vec![path], size, digests, origin, is_package });
                }
            }
        }
        grouped
    }

    /// Whether it may come on demand: a package whose bytes are proven by their SHA-256.
    pub fn can_wait(&self) -> bool {
        self.is_package
            && matches!(self.origin, Origin::Remote(_))
            && matches!(name_of(&self.digests), Some(Name::Sha256(_)))
    }

    fn first(&self) -> &str {
        self.paths.first().map_or("", RepoPath::as_str)
    }

    fn failed(&self, cause: Cause, detail: impl fmt::Display) -> Trouble {
        Trouble::File(Failed { path: self.first().to_owned(), cause, detail: detail.to_string() })
    }
}

impl Failed {
    /// Whether the upstream has another file there than was stated, or none.
    pub fn is_of_another_state(&self) -> bool {
        matches!(self.cause, Cause::Mismatch | Cause::NotFound)
    }

    /// Whether the upstream failed in a way that passes.
    fn passes(&self) -> bool {
        passes(self.cause)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}

impl Bringing {
    /// Brings all of them; `done` hears what became of each. An error is about all.
    pub async fn bring(
        &self,
        files: Vec<File>,
        done: &mut (dyn FnMut(&File, Result<Outcome, &Failed>) + Send),
    ) -> Result<(), Problem> {
        let gave_up = AtomicBool::new(false);
        let each = files.into_iter().map(|file| self.one(file, &gave_up));
        let mut coming = stream::iter(each).buffer_unordered(AT_ONCE);
        let (mut in_a_row, mut problem) = (0, None);
        // All that began ends, so that nobody works with the version any more afterwards.
        while let Some((file, outcome)) = coming.next().await {
            match outcome {
                Ok(outcome) => {
                    in_a_row = 0;
                    done(&file, Ok(outcome));
                }
                Err(Trouble::All(found)) => {
                    gave_up.store(true, Relaxed);
                    problem.get_or_insert(found);
                }
                Err(Trouble::File(one)) => {
                    in_a_row = if one.passes() { in_a_row + 1 } else { 0 };
                    if in_a_row >= GIVE_UP {
                        gave_up.store(true, Relaxed);
                    }
                    done(&file, Err(&one));
                }
            }
        }
        problem.map_or(Ok(()), Err)
    }

    async fn one(&self, file: File, gave_up: &AtomicBool) -> (Arc<File>, Result<Outcome, Trouble>) {
        let file = Arc::new(file);
        let outcome = self.have(&file, gave_up).await;
        if outcome.is_ok() {
            self.progress.files.fetch_add(1, Relaxed);
        }
        (file, outcome)
    }

    async fn have(&self, file: &Arc<File>, gave_up: &AtomicBool) -> Result<Outcome, Trouble> {
        if self.watch.stop.is_cancelled() {
            return Err(Trouble::All(cancelled()));
        }
        if gave_up.load(Relaxed) {
            let why = "it was not tried, as others before failed";
            return Err(file.failed(Cause::Unreachable, why));
        }
        let Some((algorithm, hex)) = file.digests.strongest() else {
            let why = "nothing is stated that proves what its bytes are";
            return Err(file.failed(Cause::Unsupported, why));
        };
        let to = self.folder.join(format!("{}-{hex}", algorithm.as_str()));
        if self.placing(file, Placing::held).await? {
            return Ok(Outcome::Held);
        }
        match &file.origin {
            Origin::Local(path) => self.place_from(file, path).await,
            Origin::Made(bytes) => {
                let bytes = bytes.clone();
                self.placing(file, move |placing| placing.add(Cursor::new(bytes))).await
            }
            Origin::Remote(urls) => {
                let wanted = Content { size: file.size, digests: &file.digests, to: &to };
                let came = fetch(&self.fetcher, &self.watch, urls, &wanted, PAUSES);
                came.await.map_err(|error| match error.cause {
                    Cause::Cancelled => Trouble::All(cancelled()),
                    Cause::Local => Trouble::All(error.into()),
                    cause => file.failed(cause, with_causes(&error)),
                })?;
                let outcome = self.place_from(file, &to).await?;
                // It is in the library; if it is left, the next download of it finds it.
                let _ = tokio::fs::remove_file(&to).await;
                Ok(outcome)
            }
        }
    }

    async fn place_from(&self, file: &Arc<File>, path: &Path) -> Result<Outcome, Trouble> {
        let path = path.to_owned();
        let from_file = move |placing: &Placing| match fs::File::open(&path) {
            Ok(opened) => placing.add(opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = format!("{} is not there", path.display());
                Err(placing.file.failed(Cause::NotFound, why))
            }
            Err(error) => {
                let why = format!("cannot read {}: {error}", path.display());
                Err(placing.file.failed(Cause::Local, why))
            }
        };
        self.placing(file, from_file).await
    }

    /// Has `place` place a file, off the async threads.
    async fn placing<T: Send + 'static>(
        &self,
        file: &Arc<File>,
        place: impl FnOnce(&Placing) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let placing = Placing {
            file: file.clone(),
            composition: self.composition.clone(),
            progress: self.progress.clone(),
        };
        // What went wrong with a file is no problem of the request.
        blocking(move || Ok(place(&placing))).await.map_err(Trouble::All)?
    }
}

/// Brings a content to its file, from any of `urls`, in the order to try; after each of the pauses anew, if
/// what failed passes.
pub(super) async fn fetch(
    fetcher: &Fetcher,
    watch: &Watch,
    urls: &[Url],
    content: &Content<'_>,
    pauses: impl IntoIterator<Item = Duration>,
) -> Result<(), SyncError> {
    let mut pauses = pauses.into_iter();
    loop {
        let mut failed = SyncError::new(Cause::NotFound, "nobody says where it is");
        for url in urls {
            let wanted = Wanted {
                url,
                to: content.to,
                most: content.size,
                size: Some(content.size),
                digests: content.digests,
                since: None,
            };
            match fetcher.file(wanted, watch).await {
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.cause, Cause::Cancelled | Cause::Local) => {
                    return Err(error);
                }
                Err(error) => failed = error,
            }
        }
        let Some(pause) = pauses.next().filter(|_| passes(failed.cause)) else {
            return Err(failed);
        };
        watch.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// A file that is about to be placed.
struct Placing {
    file: Arc<File>,
    composition: Arc<Composition>,
    progress: Arc<Progress>,
}

impl Placing {
    /// Places what the library holds; `false` if it does not.
    fn held(&self) -> Result<bool, Trouble> {
        let Some(name) = name_of(&self.file.digests) else { return Ok(false) };
        let first = self.path(0)?;
        let placed = self.composition.place_held(&first, &name, self.file.size);
        if !placed.map_err(|error| self.trouble(error))? {
            return Ok(false);
        }
        self.progress.bytes.fetch_add(self.file.size, Relaxed);
        self.others(&first)?;
        Ok(true)
    }

    /// Adds its bytes and places it.
    fn add(&self, bytes: impl io::Read + Send) -> Result<Outcome, Trouble> {
        let first = self.path(0)?;
        let expect = name_of(&self.file.digests);
        // Servers of updates ask for a file by the SHA-1 that its update states.
        let sha1 = self.file.digests.get(Algorithm::Sha1).is_some();
        let options = AddOptions { aliases: Aliases { sha256: true, sha1 }, expect };
        let placed = self.composition.place(&first, Some(self.file.size), bytes, &options);
        let placed = placed.map_err(|error| self.trouble(error))?;
        self.others(&first)?;
        Ok(Outcome::Came { sha256: placed.sha256 })
    }

    /// Places it at its other paths too.
    fn others(&self, first: &TreePath) -> Result<(), Trouble> {
        for at in 1..self.file.paths.len() {
            let placed = self.composition.also_at(first, &self.path(at)?);
            placed.map_err(|error| self.trouble(error))?;
        }
        Ok(())
    }

    fn path(&self, at: usize) -> Result<TreePath, Trouble> {
        let text = self.file.paths.get(at).map_or("", RepoPath::as_str);
        TreePath::new(text.as_bytes()).map_err(|error| {
            self.file.failed(Cause::Unsupported, format!("it cannot lie there: {error}"))
        })
    }

    fn trouble(&self, error: PlaceError) -> Trouble {
        match error {
            PlaceError::Place { why, .. } => {
                self.file.failed(Cause::Unsupported, format!("it cannot lie there: {why}"))
            }
            PlaceError::Size { .. } => self.file.failed(Cause::Mismatch, error),
            PlaceError::Add { source, .. } => match source {
                AddError::WrongDigest { .. } | AddError::Moved => {
                    self.file.failed(Cause::Mismatch, source)
                }
                AddError::Revoked(_) => self.file.failed(Cause::Refused, source),
                AddError::Source(error) => {
                    self.file.failed(Cause::Local, format!("it cannot be read: {error}"))
                }
                other => Trouble::All(other.into()),
            },
            PlaceError::Package(error) => Trouble::All(error.into()),
            other => Trouble::All(Problem::internal(&other)),
        }
    }
}

/// Whether a failure of an upstream is one that passes.
fn passes(cause: Cause) -> bool {
    matches!(cause, Cause::Unreachable | Cause::Stalled | Cause::Busy)
}

/// The name by which the library would hold it.
pub(crate) fn name_of(digests: &Digests) -> Option<Name> {
    let named = |algorithm: Algorithm| {
        let hex = digests.get(algorithm)?;
        format!("{}:{hex}", algorithm.as_str()).parse().ok()
    };
    // SHA-1 only where nothing better is stated.
    let (strongest, _) = digests.strongest()?;
    named(Algorithm::Sha256)
        .or_else(|| named(Algorithm::Sha1).filter(|_| strongest == Algorithm::Sha1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn files_of_the_same_content_come_once() {
        let digest =
            |byte: char| Digests::of(Algorithm::Sha256, &byte.to_string().repeat(64)).unwrap();
        let file = |path: &str, byte| MirrorFile {
            path: path.parse().unwrap(),
            size: 1,
            digests: digest(byte),
            origin: Origin::Made(Bytes::new()),
            is_package: false,
        };
        let grouped = File::grouped(vec![file("a", '1'), file("b", '2'), file("c", '1')]);
        let paths: Vec<Vec<&str>> =
            grouped.iter().map(|file| file.paths.iter().map(RepoPath::as_str).collect()).collect();
        assert_eq!(paths, [vec!["a", "c"], vec!["b"]]);
    }

    #[test]
    fn a_weak_name_counts_only_where_there_is_no_better() {
        let sha1 = Digests::of(Algorithm::Sha1, &"a".repeat(40)).unwrap();
        assert!(matches!(name_of(&sha1), Some(Name::Sha1(_))));
        let both = sha1.clone().with(Algorithm::Sha256, &"b".repeat(64)).unwrap();
        assert!(matches!(name_of(&both), Some(Name::Sha256(_))));
        let long = sha1.with(Algorithm::Sha512, &"c".repeat(128)).unwrap();
        assert_eq!(name_of(&long), None);
    }
}
