//! A package's next version put together file by file: what the site brings from upstreams.
//!
//! A mirror of a repository and the files of updates come one by one, from many servers, in any order,
//! and most of them are held already. A composition takes each by path: one that is held by its name
//! there, another from a reader that must read as was stated. What came is kept by a durable lease, so
//! a composition that was interrupted finds it held when it begins again. Only [`Composition::finish`]
//! makes a version, whole. Files on demand are listed and do not come ([`crate::on_demand`]).

use crate::error::PackageError;
use crate::manifest::{
    Entry, FileEntry, Kind, MAX_ENTRIES, MAX_PATH_BYTES, Manifest, ManifestBuilder, NotATree,
};
use crate::name::{PackageName, Selector};
use crate::on_demand::{self, ListWriter};
use crate::packages::{Guard, NewVersion, Packages};
use crate::path::{self, TreePath};
use crate::refs::{self, Source};
use crate::update::{Tally, UpdateReport};
use contentlib::{
    AddError, AddOptions, Added, Digest, Keeps, Library, Name, Progress, ReadError, Session,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long what came for a composition is kept after it was last worked on. One that nobody goes on with
/// keeps garbage from being freed for so long.
const LEASE: Duration = Duration::from_secs(2 * 24 * 3600);
/// After so many new bytes they are made durable.
const SAVE_EVERY: u64 = 64 << 20;
const FILE_MODE: u16 = 0o644;
const FOLDER_MODE: u16 = 0o755;

/// What a composition begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the version is what is placed.
    Nothing,
    /// The files of the newest version: what is placed comes beside them, or in their place.
    Newest,
}

/// Why a file was not placed. The others are not affected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is no file that a package can hold, or not there.
    #[error("{path} cannot lie there: {why}")]
    Place {
        /// Where, as [`crate::path::Shown`].
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// It has another size than was stated.
    #[error("{path} has {found} bytes, and not the {stated} that were stated")]
    Size {
        /// Where, as [`crate::path::Shown`].
        path: String,
        /// What was stated.
        stated: u64,
        /// What came.
        found: u64,
    },
    /// Its bytes could not be added, or are not those that were stated.
    #[error("cannot add {path}")]
    Add {
        /// Where, as [`crate::path::Shown`].
        path: String,
        /// Why.
        source: AddError,
    },
    /// The library failed.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// A version in the making. Files may be placed by several threads at once.
pub struct Composition {
    packages: Packages,
    guard: Guard,
    session: Session,
    progress: Arc<Progress>,
    began: Timestamp,
    before: (u64, u64),
    files: Mutex<BTreeMap<Box<[u8]>, Placed>>,
    on_demand: Mutex<BTreeMap<String, OnDemandFile>>,
    n_read: AtomicU64,
    saved: AtomicU64,
}

/// What is stated of a file whose bytes come when somebody asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemandFile {
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    /// Where its upstream has it, if that is not at the same path.
    pub from: Option<String>,
}

#[derive(Clone, Copy)]
struct Placed {
    file: FileEntry,
    /// Only of files that the newest version has: those keep their time while they are the same.
    mtime: Option<i64>,
}

impl Packages {
    /// Makes a package whose versions the site puts together, and its version 1, which is empty.
    pub fn create_composed(
        &self,
        name: PackageName,
        retention: crate::Retention,
    ) -> Result<crate::VersionInfo, PackageError> {
        let guard = self.busy(&name)?;
        self.create_with(&guard, Source::Composed, retention)
    }

    /// Begins to put the next version of a package together. It must be one that the site composes, or
    /// that takes uploads. Until it is finished or dropped, no other change of the package begins.
    pub fn compose(
        &self,
        name: &PackageName,
        base: Base,
        progress: Arc<Progress>,
    ) -> Result<Composition, PackageError> {
        let guard = self.busy(name)?;
        match self.record(name)?.record.source {
            Source::Composed | Source::Upload => {}
            Source::Site => return Err(PackageError::Replica),
            Source::Folder(folder) => {
                return Err(PackageError::TakesFolder { package: name.clone(), folder: folder.0 });
            }
        }
        let session = self
            .library()
            .open_session(&lease_of(name), LEASE, Keeps::All)
            .map_err(PackageError::from)?;
        let newest = match base {
            Base::Nothing => None,
            Base::Newest => Some(self.resolve(name, &Selector::Latest)?),
        };
        let mut files = BTreeMap::new();
        if let Some(newest) = newest {
            for entry in self.manifest(newest.manifest)?.entries() {
                if let Some(file) = entry.file() {
                    files.insert(entry.path.into(), Placed { file, mtime: Some(entry.mtime) });
                }
            }
            session.keep(files.values().map(|placed| placed.file.digest));
        }
        let before = (progress.new_bytes.load(Relaxed), progress.stored_bytes.load(Relaxed));
        Ok(Composition {
            packages: self.clone(),
            guard,
            session,
            began: self.now(),
            before,
            progress,
            files: Mutex::new(files),
            on_demand: Mutex::default(),
            n_read: AtomicU64::new(0),
            saved: AtomicU64::new(0),
        })
    }
}

impl Composition {
    /// The package.
    pub fn package(&self) -> &PackageName {
        self.guard.name()
    }

    /// The paths of all files so far, in order.
    pub fn paths(&self) -> Vec<TreePath> {
        self.files.lock().keys().filter_map(|path| TreePath::new(path).ok()).collect()
    }

    /// Places the content that the library holds by that name. `false` if it does not, or not whole, or
    /// if it has another size than stated.
    pub fn place_held(&self, path: &TreePath, name: &Name, size: u64) -> Result<bool, PlaceError> {
        let failed = |error: ReadError| PlaceError::Package(PackageError::from(error));
        let library = self.packages.library();
        let Some(digest) = library.resolve(name).map_err(failed)? else { return Ok(false) };
        // It may be condemned: this makes it live again, or says that it is gone.
        let missing = self.session.missing_contents(&[digest]);
        let missing =
            missing.map_err(|source| PlaceError::Add { path: path.to_string(), source })?;
        if missing != [false] {
            return Ok(false);
        }
        let file = match held(library, digest) {
            Ok(file) if file.size == size => file,
            Ok(_)
            | Err(
                ReadError::Unknown(_) | ReadError::Suspect { .. } | ReadError::MissingChunk { .. },
            ) => {
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        };
        self.session.keep([digest]);
        self.insert(path, file)?;
        Ok(true)
    }

    /// Adds a file's bytes and places it. Where `options` state what they are, others are refused; so is
    /// another size than `size`.
    pub fn place(
        &self,
        path: &TreePath,
        size: Option<u64>,
        bytes: impl Read + Send,
        options: &AddOptions,
    ) -> Result<Added, PlaceError> {
        let added = self.session.add_reader(bytes, options, &self.progress);
        let added = added.map_err(|source| PlaceError::Add { path: path.to_string(), source })?;
        if let Some(stated) = size.filter(|stated| *stated != added.size) {
            let found = added.size;
            return Err(PlaceError::Size { path: path.to_string(), stated, found });
        }
        let file = FileEntry { size: added.size, digest: added.digest, recipe: added.recipe };
        self.insert(path, file)?;
        self.n_read.fetch_add(1, Relaxed);
        let new_bytes = self.progress.new_bytes.load(Relaxed);
        let saved = self.saved.load(Relaxed);
        if new_bytes.saturating_sub(saved) > SAVE_EVERY
            && self.saved.compare_exchange(saved, new_bytes, Relaxed, Relaxed).is_ok()
        {
            self.save()?;
        }
        Ok(added)
    }

    /// Lists a file whose bytes come when somebody asks for them. One that is placed at that path, too, goes
    /// before.
    pub fn place_on_demand(&self, path: &TreePath, file: OnDemandFile) -> Result<(), PlaceError> {
        let bad = |why| PlaceError::Place { path: path.to_string(), why };
        let text = std::str::from_utf8(path.as_bytes()).ok();
        let can_wait = on_demand::can_wait(path.as_bytes(), file.from.as_deref());
        let text = text.filter(|_| can_wait).ok_or_else(|| bad("its name is no plain text"))?;
        check_name(path)?;
        let mut listed = self.on_demand.lock();
        if listed.len() >= MAX_ENTRIES {
            return Err(bad("the package has too many files"));
        }
        listed.insert(text.to_owned(), file);
        Ok(())
    }

    /// Places what lies at `from` at `to` as well; `false` if nothing lies there.
    pub fn also_at(&self, from: &TreePath, to: &TreePath) -> Result<bool, PlaceError> {
        let Some(placed) = self.files.lock().get(from.as_bytes()).copied() else {
            return Ok(false);
        };
        self.insert(to, placed.file)?;
        Ok(true)
    }

    /// Takes a file out; `false` if there is none of that path.
    pub fn take_out(&self, path: &TreePath) -> bool {
        self.files.lock().remove(path.as_bytes()).is_some()
    }

    /// Makes durable what came so far. It is no version yet, but is not asked for again.
    pub fn save(&self) -> Result<(), PackageError> {
        self.session.renew()?;
        Ok(self.session.commit(Vec::new())?)
    }

    /// Makes what was placed the next version, unless it is what the newest is already.
    pub fn finish(self) -> Result<UpdateReport, PackageError> {
        let name = self.guard.name().clone();
        let newest = self.packages.newest(&name)?;
        let before = newest.as_ref().and_then(|newest| newest.manifest.clone());
        let mut files = self.files.into_inner();
        let on_demand = self.on_demand.into_inner();
        if !on_demand.is_empty() {
            let mut list = ListWriter::new();
            on_demand.iter().for_each(|(path, file)| list.push(path, file));
            let list = list.done();
            let options = AddOptions::default();
            let added = self.session.add_reader(list.as_slice(), &options, &self.progress)?;
            let file = FileEntry { size: added.size, digest: added.digest, recipe: added.recipe };
            files.insert(on_demand::LIST.as_bytes().into(), Placed { file, mtime: None });
        }
        let manifest = manifest(&files, before.as_deref(), self.packages.now())?;
        let tally = Tally::resumed(&self.progress, self.before, self.began);
        let new = NewVersion {
            name: &name,
            manifest: &manifest,
            tree: manifest.tree_digest(),
            source: None,
            files_read: self.n_read.load(Relaxed),
            new_bytes: tally.new_bytes(),
        };
        let made = self.packages.make(&self.session, newest.as_ref(), &new)?;
        let report = tally.report(&name, made, &manifest, self.packages.now());
        self.session.end()?;
        Ok(report)
    }

    fn insert(&self, path: &TreePath, file: FileEntry) -> Result<(), PlaceError> {
        let bad = |why| PlaceError::Place { path: path.to_string(), why };
        check_name(path)?;
        let mut files = self.files.lock();
        if files.len() >= MAX_ENTRIES {
            return Err(bad("the package has too many files"));
        }
        // A file is no folder of another one.
        let mut folder = path::split(path.as_bytes()).0;
        while !folder.is_empty() {
            if files.contains_key(folder) {
                return Err(bad("a folder of its path is a file"));
            }
            folder = path::split(folder).0;
        }
        let inside = [path.as_bytes(), b"/"].concat();
        if files
            .range(inside.clone().into_boxed_slice()..)
            .next()
            .is_some_and(|(p, _)| p.starts_with(&inside))
        {
            return Err(bad("it is a folder of other files"));
        }
        let mtime = None;
        files.insert(path.as_bytes().into(), Placed { file, mtime });
        Ok(())
    }
}

/// No file of an upstream takes a name that means something to depot.
fn check_name(path: &TreePath) -> Result<(), PlaceError> {
    let is_list = path::top_name(path.as_bytes()) == on_demand::LIST.as_bytes();
    if is_list || crate::fetch_state::check(path.as_bytes()).is_err() {
        return Err(PlaceError::Place { path: path.to_string(), why: "its name is taken" });
    }
    Ok(())
}

/// The lease of what comes for a package.
fn lease_of(name: &PackageName) -> String {
    format!("{}{name}", refs::COMPOSING)
}

fn held(library: &Library, digest: Digest) -> Result<FileEntry, ReadError> {
    let (size, recipe) = crate::upload::held(library, digest)?;
    Ok(FileEntry { size, digest, recipe })
}

/// The tree of `files`. A file that lies in `before` with the same content keeps its time there, and so
/// does a folder; what is new has the time `now`. So a tree that is the same has the same digest.
fn manifest(
    files: &BTreeMap<Box<[u8]>, Placed>,
    before: Option<&Manifest>,
    now: Timestamp,
) -> Result<Manifest, NotATree> {
    let mut folders = BTreeMap::new();
    let mut n_bytes = 0;
    for path in files.keys() {
        n_bytes += path.len();
        let mut folder = path::split(path).0;
        while !folder.is_empty() && folders.insert(folder, ()).is_none() {
            n_bytes += folder.len();
            folder = path::split(folder).0;
        }
    }
    if n_bytes > MAX_PATH_BYTES {
        return Err(NotATree::TooMuchPath);
    }
    let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
    let old = |path: &[u8]| before.and_then(|before| before.lookup(path));
    let mut builder = ManifestBuilder::with_capacity(files.len() + folders.len());
    let (mut files, mut folders) = (files.iter().peekable(), folders.into_keys().peekable());
    loop {
        let folder_first = match (files.peek(), folders.peek()) {
            (Some((file, _)), Some(folder)) => **folder < ***file,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => break,
        };
        if folder_first && let Some(path) = folders.next() {
            let mtime = match old(path) {
                Some(Entry { kind: Kind::Folder, mtime, .. }) => mtime,
                _ => now,
            };
            builder.push(Entry { path, mode: FOLDER_MODE, mtime, kind: Kind::Folder })?;
        } else if let Some((path, placed)) = files.next() {
            let same =
                old(path).filter(|old| old.file().map(|f| f.digest) == Some(placed.file.digest));
            let mtime = placed.mtime.or(same.map(|old| old.mtime)).unwrap_or(now);
            builder.push(Entry { path, mode: FILE_MODE, mtime, kind: Kind::File(placed.file) })?;
        }
    }
    Ok(builder.finish())
}

impl std::fmt::Debug for Composition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Composition of {} with {} files", self.guard.name(), self.files.lock().len())
    }
}
