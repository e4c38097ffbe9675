//! Several volumes as one store: a home, and folders on other disks.
//!
//! A pack lies on one volume, and nothing but the volumes says on which: it is looked for where it
//! may be. New packs go to the active volume with the most room above its reserve; a volume that
//! is drained gets none, and its packs are moved away one by one.
//!
//! Always true:
//! * Whoever looks for a pack while it is moved finds it. The copy is there, whole and durable,
//!   before the original goes; a search that fell between the two begins again.
//! * Two copies of a pack, which a kill in mid-move leaves, are the same bytes. Either is read;
//!   deleting the pack deletes both.
//! * One pack is moved at a time, and meanwhile no pack is deleted and no volume removed: what
//!   garbage collection deleted does not come back, and nothing moves to where nobody looks.

mod home_only;
mod keeper;
mod list;
mod memory;
mod relocate;

pub use home_only::HomeOnly;
pub use keeper::{FolderKeeper, VolumeKeeper};
pub use list::{VolumeEntry, VolumeId, VolumeList, VolumeState};
pub use memory::MemoryKeeper;
pub(crate) use relocate::MoveError;

use super::{PackFile, PackStore};
use crate::digest::PackId;
use crate::error::VolumeError;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What the home volume is called.
pub const HOME: &str = "home";

/// One volume: a store of packs, and how it is used.
pub struct Volume {
    /// Names it for ever.
    pub id: VolumeId,
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that stay free on it.
    pub reserve: u64,
    pub(crate) store: Arc<dyn PackStore>,
    draining: AtomicBool,
}

impl Volume {
    /// Whether new packs go to it.
    pub fn state(&self) -> VolumeState {
        if self.draining.load(SeqCst) { VolumeState::Draining } else { VolumeState::Active }
    }

    /// An error if there are packs on it.
    pub(crate) fn holds_nothing(&self) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::Io { path: self.path.clone(), source };
        match self.store.list().map_err(failed)?.len() {
            0 => Ok(()),
            packs => Err(VolumeError::HoldsPacks { name: self.name.clone(), packs }),
        }
    }

    /// Bytes that may be written before the reserve is reached. A volume that cannot tell has
    /// room for all.
    pub(crate) fn room(&self) -> io::Result<u64> {
        let free = self.store.free_space()?;
        Ok(free.map_or(u64::MAX, |free| free.saturating_sub(self.reserve)))
    }
}

/// The volumes of a library.
pub struct Volumes {
    /// The home volume first.
    volumes: RwLock<Vec<Arc<Volume>>>,
    keeper: Arc<dyn VolumeKeeper>,
    /// The reserve of volumes that have none of their own.
    reserve: u64,
    /// Counts packs whose copy has appeared and whose original is about to go.
    moves: AtomicU64,
    /// Held while one pack is moved, and by whoever deletes a pack or removes a volume.
    moving: Mutex<()>,
    /// Held while the list is changed.
    changing: Mutex<()>,
}

impl Volumes {
    /// The volume `home` and those that `keeper` knows. `reserve` is that of `home`, and the
    /// default of the others.
    pub fn over(
        home: Arc<dyn PackStore>,
        keeper: Arc<dyn VolumeKeeper>,
        reserve: u64,
    ) -> Result<Self, VolumeError> {
        let list = keeper.load()?;
        let mut volumes = vec![Arc::new(Volume {
            id: VolumeId::HOME,
            name: HOME.into(),
            path: keeper.home(),
            reserve,
            store: home,
            draining: AtomicBool::new(list.home == VolumeState::Draining),
        })];
        for entry in &list.volumes {
            volumes.push(Arc::new(Volume {
                id: entry.id,
                name: entry.name.clone(),
                path: entry.path.clone(),
                reserve: entry.reserve.unwrap_or(reserve),
                store: keeper.open(list.library, entry)?,
                draining: AtomicBool::new(entry.state == VolumeState::Draining),
            }));
        }
        Ok(Self {
            volumes: RwLock::new(volumes),
            keeper,
            reserve,
            moves: AtomicU64::new(0),
            moving: Mutex::default(),
            changing: Mutex::default(),
        })
    }

    /// All volumes, the home first.
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().clone()
    }

    /// The volume of that name or id.
    pub fn find(&self, name: &str) -> Result<Arc<Volume>, VolumeError> {
        let is_it = |volume: &Arc<Volume>| volume.name == name || volume.id.to_string() == name;
        let found = self.volumes.read().iter().find(|volume| is_it(volume)).cloned();
        found.ok_or_else(|| VolumeError::Unknown { name: name.into() })
    }

    /// A number that changes before a pack that was moved disappears from its old place.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(SeqCst)
    }

    fn active(&self) -> Vec<Arc<Volume>> {
        let mut volumes = self.all();
        volumes.retain(|volume| volume.state() == VolumeState::Active);
        volumes
    }

    /// The active volume with the most room, if it has room for `bytes`. One that fails to say
    /// how much it has is passed over while another has room.
    pub(crate) fn with_room(&self, bytes: u64) -> io::Result<Option<Arc<Volume>>> {
        let mut best: Option<(u64, Arc<Volume>)> = None;
        let mut failed = None;
        for volume in self.active() {
            match volume.room() {
                Ok(room)
                    if room < bytes || best.as_ref().is_some_and(|(most, _)| *most >= room) => {}
                Ok(room) => best = Some((room, volume)),
                Err(error) => failed = Some(error),
            }
        }
        match (best, failed) {
            (Some((_, volume)), _) => Ok(Some(volume)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Where a pack is begun that must be begun although no volume may have room: the active
    /// volume with the most bytes free, or the home if none is active.
    pub(crate) fn roomiest(&self) -> Arc<Volume> {
        if let Ok(Some(volume)) = self.with_room(1) {
            return volume;
        }
        let free = |volume: &Arc<Volume>| volume.store.free_space().ok().flatten().unwrap_or(0);
        let best = self.active().into_iter().max_by_key(free);
        best.unwrap_or_else(|| self.volumes.read()[0].clone())
    }

    /// Free bytes, where they are known, and reserve of each file system that has active volumes.
    ///
    /// Volumes on one file system have its free bytes in common, and its reserve is the smallest of
    /// theirs: until that is reached there is room for a new pack.
    pub(crate) fn file_systems(&self) -> io::Result<Vec<(Option<u64>, u64)>> {
        let mut found = Vec::new();
        let mut shared: BTreeMap<u64, usize> = BTreeMap::new();
        for volume in self.active() {
            let number = volume.store.file_system()?;
            if let Some(at) = number.and_then(|number| shared.get(&number)) {
                let (_, reserve): &mut (_, u64) = &mut found[*at];
                *reserve = volume.reserve.min(*reserve);
                continue;
            }
            shared.extend(number.map(|number| (number, found.len())));
            found.push((volume.store.free_space()?, volume.reserve));
        }
        Ok(found)
    }

    /// Free bytes and reserve of all active volumes together, and how many they are.
    pub(crate) fn totals(&self) -> io::Result<(u64, u64, usize)> {
        let (mut free, mut reserve) = (0u64, 0u64);
        for (more, kept) in self.file_systems()? {
            free = free.saturating_add(more.unwrap_or(0));
            reserve = reserve.saturating_add(kept);
        }
        Ok((free, reserve, self.active().len()))
    }

    /// Takes in a new volume. Durable when this returns.
    pub(crate) fn add(
        &self,
        library: u128,
        entry: VolumeEntry,
    ) -> Result<Arc<Volume>, VolumeError> {
        let _one = self.changing.lock();
        let mut list = self.keeper.load()?;
        if list.volumes.is_empty() {
            list.library = library;
        }
        let entry = list.admit(entry)?;
        self.keeper.claim(&list, &entry)?;
        let store = self.keeper.open(list.library, &entry)?;
        list.volumes.push(entry.clone());
        self.keeper.save(&list)?;
        let volume = Arc::new(Volume {
            id: entry.id,
            name: entry.name,
            path: entry.path,
            reserve: entry.reserve.unwrap_or(self.reserve),
            store,
            draining: AtomicBool::new(false),
        });
        self.volumes.write().push(volume.clone());
        Ok(volume)
    }

    /// Has a volume drained, or used again. Durable when this returns.
    pub(crate) fn set_state(&self, volume: &Volume, state: VolumeState) -> Result<(), VolumeError> {
        let _one = self.changing.lock();
        let others = self.active().into_iter().filter(|other| other.id != volume.id).count();
        if state == VolumeState::Draining && others == 0 {
            return Err(VolumeError::LastActive { name: volume.name.clone() });
        }
        let mut list = self.keeper.load()?;
        match list.volumes.iter_mut().find(|entry| entry.id == volume.id) {
            Some(entry) => entry.state = state,
            None if volume.id == VolumeId::HOME => list.home = state,
            // Its removal failed half way: it is only waited for to be empty.
            None if state == VolumeState::Draining => {}
            None => return Err(VolumeError::Unknown { name: volume.name.clone() }),
        }
        self.keeper.save(&list)?;
        volume.draining.store(state == VolumeState::Draining, SeqCst);
        Ok(())
    }

    /// Forgets a volume that gets no new packs, if it is empty. Durable when this returns.
    pub(crate) fn remove(&self, volume: &Volume) -> Result<(), VolumeError> {
        let _one = self.changing.lock();
        let _still = self.moving.lock();
        volume.holds_nothing()?;
        let mut list = self.keeper.load()?;
        // It may be gone from the list, by a removal that failed half way.
        list.volumes.retain(|entry| entry.id != volume.id);
        self.keeper.save(&list)?;
        self.volumes.write().retain(|other| other.id != volume.id);
        // The list counts; a marker that stays only has to be taken over when the folder is
        // added again.
        if let Err(error) = self.keeper.release(&volume.path) {
            tracing::warn!(volume = %volume.name, %error, "the removed volume's marker stays");
        }
        Ok(())
    }

    /// Asks each volume in turn. `ask` answers `None` where the pack is not; the first error
    /// counts only if the pack is nowhere else, so that a failing disk fails alone.
    fn search<T>(&self, ask: impl Fn(&Volume) -> io::Result<Option<T>>) -> io::Result<Option<T>> {
        loop {
            let moves = self.moves();
            let mut failed = None;
            for volume in self.all() {
                match ask(&volume) {
                    Ok(Some(found)) => return Ok(Some(found)),
                    Ok(None) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            match failed {
                Some(error) => return Err(error),
                None if self.moves() == moves => return Ok(None),
                None => {}
            }
        }
    }
}

/// What a store says, with "it is not there" as an answer.
fn if_there<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl PackStore for Volumes {
    fn create(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        if self.search(|volume| if_there(volume.store.open(id)))?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.roomiest().store.create(id)
    }

    fn create_whole(
        &self,
        id: PackId,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.search(|volume| if_there(volume.store.open(id)))?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.roomiest().store.create_whole(id, fill)
    }

    fn open(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        let found = self.search(|volume| if_there(volume.store.open(id)))?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        loop {
            let moves = self.moves();
            let mut packs = BTreeSet::new();
            for volume in self.all() {
                packs.extend(volume.store.list()?);
            }
            if self.moves() == moves {
                return Ok(packs.into_iter().collect());
            }
        }
    }

    fn delete(&self, id: PackId) -> io::Result<()> {
        let _one = self.moving.lock();
        // From all, also if one fails: the others get their room back.
        self.all().iter().map(|volume| volume.store.delete(id)).fold(Ok(()), Result::and)
    }

    fn may_change_late(&self) -> bool {
        self.all().iter().any(|volume| volume.store.may_change_late())
    }

    fn reads_at_once(&self) -> usize {
        self.all().iter().map(|volume| volume.store.reads_at_once()).max().unwrap_or(1)
    }

    fn free_space(&self) -> io::Result<Option<u64>> {
        let known = self.file_systems()?.into_iter().filter_map(|(free, _)| free);
        Ok(known.reduce(u64::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::folder::FolderStore;
    use crate::store::memory::MemoryStore;
    use std::io::IoSlice;

    /// A disk that fails whatever is asked of it.
    struct Dead;

    impl PackStore for Dead {
        fn create(&self, _: PackId) -> io::Result<Arc<dyn PackFile>> {
            Err(io::ErrorKind::Other.into())
        }
        fn create_whole(
            &self,
            _: PackId,
            _: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
        ) -> io::Result<()> {
            Err(io::ErrorKind::Other.into())
        }
        fn open(&self, _: PackId) -> io::Result<Arc<dyn PackFile>> {
            Err(io::ErrorKind::Other.into())
        }
        fn list(&self) -> io::Result<Vec<PackId>> {
            Err(io::ErrorKind::Other.into())
        }
        fn delete(&self, _: PackId) -> io::Result<()> {
            Err(io::ErrorKind::Other.into())
        }
        fn free_space(&self) -> io::Result<Option<u64>> {
            Err(io::ErrorKind::Other.into())
        }
    }

    fn with(home: Arc<dyn PackStore>) -> Volumes {
        let volumes = Volumes::over(home, Arc::new(MemoryKeeper::default()), 0).unwrap();
        volumes.add(1, VolumeEntry::new(7, "two", "/two".as_ref(), None)).unwrap();
        volumes
    }

    #[test]
    fn a_disk_that_fails_fails_alone() {
        let volumes = with(Arc::new(Dead));
        let two = volumes.find("two").unwrap();
        let id = PackId(3);
        two.store.create(id).unwrap().write_at(0, &[IoSlice::new(b"here")]).unwrap();
        assert_eq!(volumes.open(id).unwrap().read_at(0..4).unwrap(), "here");
        assert_eq!(volumes.roomiest().id, two.id);
        // What may lie on it is not said to be gone.
        let unknown = volumes.open(PackId(4)).err().unwrap();
        assert_eq!(unknown.kind(), io::ErrorKind::Other);
        assert!(volumes.delete(id).is_err(), "a copy may be left on it");
        assert!(two.store.list().unwrap().is_empty(), "the other has its room back");
    }

    #[test]
    fn volumes_that_share_a_file_system_count_its_free_bytes_once() {
        let folder = tempfile::tempdir().unwrap();
        let (home, two) = (folder.path().join("home"), folder.path().join("two"));
        [&home, &two].iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let store = Arc::new(FolderStore::new(home.join("packs")).unwrap());
        let volumes = Volumes::over(store.clone(), Arc::new(FolderKeeper::new(&home)), 7).unwrap();
        volumes.add(1, VolumeEntry::new(7, "two", &two, Some(5))).unwrap();
        // Somebody else may be writing there, too.
        let one = store.free_space().unwrap().unwrap();
        let (free, reserve, n) = volumes.totals().unwrap();
        assert!(free < one / 2 * 3, "{free} of {one}");
        assert!(volumes.free_space().unwrap().unwrap() < one / 2 * 3);
        assert_eq!((reserve, n), (5, 2));

        let made = || {
            let store = MemoryStore::default();
            store.set_capacity(1000);
            store
        };
        let keeper = Arc::new(MemoryKeeper::with(made));
        let volumes = Volumes::over(Arc::new(made()), keeper, 7).unwrap();
        volumes.add(1, VolumeEntry::new(7, "two", "/two".as_ref(), Some(5))).unwrap();
        assert_eq!(volumes.totals().unwrap(), (2000, 12, 2));
        assert_eq!(volumes.free_space().unwrap(), Some(2000));
    }

    #[test]
    fn new_packs_go_where_there_is_most_room_above_the_reserve() {
        let home = Arc::new(MemoryStore::default());
        home.set_capacity(1000);
        let volumes = with(home.clone());
        let (first, two) = (volumes.find("home").unwrap(), volumes.find("two").unwrap());
        assert_eq!(volumes.with_room(1).unwrap().unwrap().id, two.id);
        volumes.set_state(&two, VolumeState::Draining).unwrap();
        assert_eq!(volumes.with_room(1000).unwrap().unwrap().id, first.id);
        assert!(volumes.with_room(1001).unwrap().is_none());
        home.set_capacity(0);
        assert_eq!(volumes.roomiest().id, first.id, "a commit of refs has to go somewhere");
        let last = volumes.set_state(&first, VolumeState::Draining);
        assert!(matches!(last, Err(VolumeError::LastActive { .. })));
    }
}
