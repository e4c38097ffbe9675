//! Where packs live: the seam between the library and its bytes.
//!
//! Three places: [`folder::FolderStore`], files of one folder; [`objects::ObjectPacks`], an object
//! store; and [`memory::MemoryStore`], for simulation with faults. [`volumes::Volumes`] makes one
//! store of several. Packs are written front to back, synced and sealed, and read by range, which
//! is all that an object store can do.

pub mod folder;
pub mod memory;
pub mod objects;
pub mod volumes;

use crate::digest::PackId;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// A place for packs.
///
/// * A pack is created once, grows at its end, and never changes before its end.
/// * [`PackFile::sync`] makes durable all that was written before, and the pack's existence.
///   After it failed once, the pack's unsynced bytes may be anything.
/// * A deleted pack can still be read through a handle that was opened before.
pub trait PackStore: Send + Sync {
    /// Creates pack `id`, empty; an error if it exists.
    fn create(&self, id: PackId) -> io::Result<Arc<dyn PackFile>>;
    /// Creates pack `id` whole or not at all: it appears, durable, once `fill` has written it and
    /// found it good. One at a time; what a kill leaves half filled is gone at the next.
    fn create_whole(
        &self,
        id: PackId,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()>;
    /// Opens pack `id` to read it, or to go on writing at its end.
    fn open(&self, id: PackId) -> io::Result<Arc<dyn PackFile>>;
    /// All packs there are, in any order.
    fn list(&self) -> io::Result<Vec<PackId>>;
    /// Deletes pack `id`; not an error if it is gone.
    fn delete(&self, id: PackId) -> io::Result<()>;
    /// Free bytes on the volume, if it has such a number.
    fn free_space(&self) -> io::Result<Option<u64>>;
    /// A number of the file system that the free bytes are of: stores that have the same share
    /// them. `None` for a store that shares with no other.
    fn file_system(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Whether what a process wrote that had the packs before, and was killed, may yet appear, in
    /// packs that exist and as packs that do not. Whoever opens the library then leaves numbers out.
    fn may_change_late(&self) -> bool {
        false
    }
    /// How many packs are best read at a time by who has to read many.
    fn reads_at_once(&self) -> usize {
        1
    }
}

/// One pack's bytes.
pub trait PackFile: Send + Sync {
    /// Writes `slices` one after the other at `offset`, which is the pack's end.
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Makes all written bytes durable.
    fn sync(&self) -> io::Result<()>;
    /// As [`PackFile::sync`], by who writes nothing more to the pack.
    fn seal(&self) -> io::Result<()> {
        self.sync()
    }
    /// The pack's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether nothing was written yet.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Bytes `range`; `UnexpectedEof` if the pack is shorter.
    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes>;
    /// The same for who will read nothing else nearby.
    fn read_alone(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.read_at(range)
    }
    /// The same bytes without a copy, where the store can; otherwise as [`PackFile::read_at`].
    fn map(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.read_at(range)
    }
    /// The local file and where the pack's bytes begin in it, if that is how it is kept.
    fn local(&self) -> Option<Arc<File>> {
        None
    }
    /// Has the next reads ask the disk and not the memory of the system, where that can be said.
    fn forget_cached(&self) {}
    /// A number that changes when somebody changes the pack behind the library's back; 0 where
    /// that cannot be told.
    fn stamp(&self) -> u64 {
        0
    }
}

/// Whether the disk cannot give back what was written, or has less of it: damage, that is, and
/// nothing that another try or more room would change.
pub(crate) fn is_media_error(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract of [`PackStore`]. Every implementation is held to it.
    fn keeps_the_contract(store: &dyn PackStore) {
        let id = PackId(7);
        let pack = store.create(id).unwrap();
        assert!(store.create(id).is_err(), "a name is used once");
        pack.write_at(0, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap();
        pack.write_at(5, &[IoSlice::new(b" pack")]).unwrap();
        pack.sync().unwrap();
        assert_eq!(pack.len().unwrap(), 10);
        let again = store.open(id).unwrap();
        assert_eq!(again.read_at(1..7).unwrap(), "ello p");
        assert_eq!(again.map(1..7).unwrap(), "ello p");
        assert_eq!(again.read_alone(1..7).unwrap(), "ello p");
        let past_the_end = again.read_at(5..11).unwrap_err();
        assert_eq!(past_the_end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(again.map(5..11).is_err());
        assert_eq!(store.list().unwrap(), [id]);
        pack.write_at(10, &[IoSlice::new(b".")]).unwrap();
        pack.seal().unwrap();
        assert_eq!(again.read_at(9..11).unwrap(), "k.", "of one that is sealed meanwhile");
        assert_eq!(store.open(id).unwrap().read_at(0..11).unwrap(), "hello pack.");
        store.delete(id).unwrap();
        store.delete(id).unwrap();
        assert_eq!(again.read_at(0..5).unwrap(), "hello", "open handles go on");
        assert_eq!(store.open(id).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(store.list().unwrap().is_empty());

        let refused = store.create_whole(id, &mut |pack| {
            pack.write_at(0, &[IoSlice::new(b"half")])?;
            assert!(store.list().unwrap().is_empty(), "nobody sees it before it is whole");
            Err(io::ErrorKind::InvalidData.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(store.list().unwrap().is_empty());
        let whole = |pack: &dyn PackFile| pack.write_at(0, &[IoSlice::new(b"whole")]);
        store.create_whole(id, &mut |pack| whole(pack)).unwrap();
        assert_eq!(store.open(id).unwrap().read_at(0..5).unwrap(), "whole");
        assert!(store.create_whole(id, &mut |pack| whole(pack)).is_err(), "a name is used once");
        assert!(store.create(id).is_err(), "a name is used once");
        assert_eq!(store.list().unwrap(), [id]);
        store.delete(id).unwrap();
    }

    #[test]
    fn all_stores_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        keeps_the_contract(&folder::FolderStore::new(folder.path().into()).unwrap());
        keeps_the_contract(&memory::MemoryStore::default());
        keeps_the_contract(&objects::tests::in_memory(&folder.path().join("node")));
        let (home, other) = (memory::MemoryStore::default(), folder.path().join("other"));
        let keeper = Arc::new(volumes::MemoryKeeper::default());
        let volumes = volumes::Volumes::over(Arc::new(home), keeper, 0).unwrap();
        volumes.add(1, volumes::VolumeEntry::new(7, "", &other, None)).unwrap();
        keeps_the_contract(&volumes);
    }
}
