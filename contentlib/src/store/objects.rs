//! Packs on an object store: Amazon S3, and what speaks like it.
//!
//! The store holds the packs, and nothing else is needed to have the library: the disk of the
//! machine that works on it holds the packs being written, a cache, and the index, all of which
//! may be lost at any time.
//!
//! Always true:
//! * [`PackFile::sync`] returns when the bytes are in the store.
//! * An object is written once, under a name that is never used again, and never changes. Only the
//!   lease does.
//! * Which packs there are is known from one listing when the library is opened, and from then on
//!   from what this process does: it is the only one that writes. No read waits for a listing.

mod cache;
mod error;
mod gate;
mod lease;
mod node;
mod pack;
mod place;
mod probe;
mod profile;
mod reads;
mod requests;
mod segments;

pub use cache::CacheCounts;
pub use error::ObjectsError;
pub use gate::Term;
pub use place::Place;
pub use requests::{Patience, RequestCounts};

use super::{PackFile, PackStore};
use crate::digest::PackId;
use crate::library::Environment;
use cache::PartCache;
use lease::{Holder, Lease, Refused};
use node::Node;
use pack::Pack;
use parking_lot::Mutex;
use probe::Conditions;
use reads::Reads;
use requests::Requests;
use segments::{FOLDER, arrange};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of packs that are being written.
const OPEN: &str = "open";
/// The store is far away and answers many at a time.
const READS_AT_ONCE: usize = 32;
/// The folder of what was read.
const CACHE: &str = "cache";

/// Whether a library is on an object store, and how it is opened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Where it is: `s3://BUCKET/PREFIX`, or `gs://` or `az://`. Without it, where the folder says
    /// that it was before; and if it says nothing, in the folder.
    pub url: Option<String>,
    /// Bytes of the local disk for what was read, about.
    pub cache_bytes: u64,
    /// Somebody promises that no other process ever opens it, for stores that ignore conditions.
    pub single_writer: bool,
    /// The right to lead that the lease goes with, where several servers take turns.
    pub term: Option<Term>,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self { url: None, cache_bytes: 10 << 30, single_writer: false, term: None }
    }
}

/// The packs of one library on an object store.
pub struct ObjectPacks {
    shared: Arc<Shared>,
    packs: Mutex<BTreeMap<PackId, Arc<Pack>>>,
    /// Deleted packs that somebody had open: their objects go when nobody has any more.
    doomed: Mutex<Vec<Arc<Pack>>>,
    folder: PathBuf,
    /// Whether the process before may have left requests on their way.
    after_a_kill: bool,
    node: Node,
    /// Whether the index in the folder is of the library as it is.
    index_is_current: bool,
    /// Given back last.
    lease: Lease,
}

/// What all packs use.
pub(crate) struct Shared {
    requests: Arc<Requests>,
    reads: Arc<Reads>,
}

impl ObjectPacks {
    /// The packs of the library in `folder`, which is this process's, if they are on an object
    /// store: where `options` say, or the folder from before.
    pub(crate) fn open(
        options: &ObjectOptions,
        folder: &Path,
        environment: Arc<dyn Environment>,
    ) -> Result<Option<Self>, ObjectsError> {
        let failed = |source| ObjectsError::Folder { folder: folder.into(), source };
        let remembered = Node::read(folder).map_err(failed)?.map(|node| node.url);
        let Some(url) = options.url.clone().or(remembered) else { return Ok(None) };
        let place = place::connect(&url)?;
        let is_full = |packs: fs::ReadDir| packs.flatten().next().is_some();
        if fs::read_dir(folder.join("packs")).is_ok_and(is_full) {
            return Err(ObjectsError::HoldsPacks { folder: folder.into(), url });
        }
        Self::over(place, options, folder, environment, Patience::default()).map(Some)
    }

    /// The packs at any place, with `folder`, which is this process's, for what is local.
    pub fn over(
        place: Place,
        options: &ObjectOptions,
        folder: &Path,
        environment: Arc<dyn Environment>,
        patience: Patience,
    ) -> Result<Self, ObjectsError> {
        let Place { store, prefix, url: at } = place;
        let url = || at.clone();
        let local = |source| ObjectsError::Folder { folder: folder.into(), source };
        let remote = |source| ObjectsError::Unreachable { url: url(), source };
        // What was being written when a process ended is in the store as far as it was promised.
        let open = folder.join(OPEN);
        match fs::remove_dir_all(&open) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(error)),
            _ => fs::create_dir_all(&open).map_err(local)?,
        }
        let cache = PartCache::open(folder.join(CACHE), options.cache_bytes).map_err(local)?;
        let node = Node::load(folder, &at, &*environment).map_err(local)?;
        let requests =
            Requests::new(store, prefix, patience, options.term.clone()).map_err(local)?;
        let requests = Arc::new(requests);
        match probe::probe(&requests, environment.random()).map_err(remote)? {
            Conditions::Kept => {}
            Conditions::Ignored if options.single_writer => requests.without_conditions(),
            Conditions::Ignored => return Err(ObjectsError::IgnoresConditions { url: url() }),
        }
        let holder = Holder { owner: node.owner.clone(), name: this_process() };
        let taken = lease::take(&requests, &environment, holder);
        let (lease, before) = taken.map_err(|refused| match refused {
            Refused::Held { holder, until } => {
                ObjectsError::InUse { url: url(), holder, until: time_of_day(until) }
            }
            Refused::Newer(found) => ObjectsError::NewerLease { url: url(), found },
            Refused::Unreadable => ObjectsError::UnreadableLease { url: url() },
            Refused::Io(source) => remote(source),
        })?;
        // Before anything is written: killed then, this machine is known as the holder.
        node.save(folder).map_err(local)?;
        let (found, left_over) = arrange(requests.list(FOLDER).map_err(remote)?);
        if let Err(error) = requests.delete(left_over) {
            tracing::warn!(%error, "segments of sealed packs are left over");
        }
        let is_own = |b: &lease::Before| b.owner == node.owner && b.fence == node.fence;
        let index_is_current = before.as_ref().is_some_and(is_own);
        let after_a_kill = before.is_some_and(|before| !before.is_clean);
        let reads = Arc::new(Reads::new(requests.clone(), cache));
        let shared = Arc::new(Shared { requests, reads });
        let stored = |(id, layout)| (id, Pack::stored(id, shared.clone(), layout));
        let packs = Mutex::new(found.into_iter().map(stored).collect());
        Ok(Self {
            packs,
            shared,
            doomed: Mutex::default(),
            folder: folder.into(),
            after_a_kill,
            node,
            index_is_current,
            lease,
        })
    }

    /// Whether the index in the folder knows all that was done to the library: nobody else has had
    /// it since. Otherwise it must be made anew.
    pub(crate) fn index_is_current(&self) -> bool {
        self.index_is_current
    }

    /// Notes that the index in the folder goes with the library as it is now.
    pub(crate) fn own_index(&self) -> Result<(), ObjectsError> {
        let node = Node { fence: self.lease.fence(), ..self.node.clone() };
        let failed = |source| ObjectsError::Folder { folder: self.folder.clone(), source };
        node.save(&self.folder).map_err(failed)
    }

    /// What the library is called.
    pub(crate) fn url(&self) -> &str {
        &self.node.url
    }

    /// The requests made so far.
    pub fn requests(&self) -> RequestCounts {
        self.shared.requests.counts()
    }

    /// What the local cache did so far.
    pub fn cache(&self) -> CacheCounts {
        self.shared.reads.cache().counts()
    }

    /// Deletes the objects of deleted packs that nobody reads any more.
    fn bury(&self) {
        let mut doomed = self.doomed.lock();
        doomed.retain(|pack| {
            if Arc::strong_count(pack) > 1 {
                return true;
            }
            match self.shared.requests.delete(pack.objects()) {
                Ok(()) => {
                    self.shared.reads.forget(pack.id);
                    false
                }
                Err(error) => {
                    tracing::warn!(pack = %pack.id, %error, "a deleted pack is left over");
                    true
                }
            }
        });
    }
}

impl ObjectPacks {
    /// Whether pack `id` may be made now. A deleted pack of that name, which comes back from
    /// another volume, goes first, whoever reads it.
    fn make_way(&self, id: PackId) -> io::Result<()> {
        if self.packs.lock().contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut doomed = self.doomed.lock();
        if let Some(at) = doomed.iter().position(|pack| pack.id == id) {
            self.shared.requests.delete(doomed[at].objects())?;
            doomed.swap_remove(at);
        }
        Ok(())
    }
}

impl Drop for ObjectPacks {
    fn drop(&mut self) {
        self.bury();
    }
}

impl PackStore for ObjectPacks {
    fn create(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        self.bury();
        self.make_way(id)?;
        let pack =
            Pack::create(id, self.shared.clone(), self.folder.join(OPEN).join(id.to_string()))?;
        self.packs.lock().insert(id, pack.clone());
        Ok(pack)
    }

    fn create_whole(
        &self,
        id: PackId,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()> {
        self.make_way(id)?;
        let path = self.folder.join(OPEN).join(format!("{id}.whole"));
        let pack = Pack::create(id, self.shared.clone(), path)?;
        if let Err(error) = fill(&*pack).and_then(|()| pack.seal()) {
            pack.close();
            return Err(error);
        }
        self.packs.lock().insert(id, pack);
        Ok(())
    }

    fn open(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        match self.packs.lock().get(&id) {
            Some(pack) => Ok(pack.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        Ok(self.packs.lock().keys().copied().collect())
    }

    fn delete(&self, id: PackId) -> io::Result<()> {
        self.bury();
        let Some(pack) = self.packs.lock().remove(&id) else { return Ok(()) };
        if Arc::strong_count(&pack) > 1 {
            self.doomed.lock().push(pack);
            return Ok(());
        }
        let deleted = self.shared.requests.delete(pack.objects());
        if deleted.is_err() {
            self.packs.lock().insert(id, pack);
        } else {
            pack.close();
            self.shared.reads.forget(id);
        }
        deleted
    }

    fn free_space(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn may_change_late(&self) -> bool {
        self.after_a_kill
    }

    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }
}

/// The parsers of what a store says, for [`crate::fuzzing`].
pub(crate) fn fuzzing(bytes: &[u8]) {
    drop(lease::Note::decode(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop(profile::settings(text, "default"));
    let object = |line: &str| {
        let (name, len) = line.split_once(' ')?;
        Some((name.to_owned(), len.parse().ok()?))
    };
    let (packs, left_over) = arrange(text.lines().filter_map(object).collect());
    for (id, layout) in &packs {
        let len = layout.len();
        let pieces = layout.pieces(*id, len / 3..len);
        let found: u64 = pieces.iter().map(|(_, inside)| inside.end - inside.start).sum();
        assert_eq!(found, len - len / 3, "segments without a gap give every byte once");
        assert!(layout.names(*id).iter().all(|name| !left_over.contains(name)));
    }
}

/// This machine's name and this process, for people.
fn this_process() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match name.trim() {
        "" => "a machine without a name",
        name => name,
    };
    format!("{name}, process {}", std::process::id())
}

/// A time, in ms since 1970, as it is told to people who look at it now.
fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
pub(crate) mod tests;
