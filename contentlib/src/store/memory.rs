//! Packs in memory, with the faults that real disks have.
//!
//! For simulation: [`MemoryStore::crash`] drops what was not synced, or keeps a torn part of it;
//! [`Faults`] makes writes and syncs fail by plan. Everything random is passed in.

use super::{PackFile, PackStore};
use crate::digest::PackId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Decides which operation fails, and how a crash tears.
pub trait Faults: Send {
    /// Asked before each write, with its length: how much of it is written before it fails.
    fn write(&mut self, _length: usize) -> Result<(), (usize, io::Error)> {
        Ok(())
    }
    /// Asked before each sync.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Asked before a whole pack appears: whether that fails, and if so whether it appears all the
    /// same.
    fn appear(&mut self) -> Result<(), (bool, io::Error)> {
        Ok(())
    }
    /// Asked before each deletion.
    fn delete(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Asked at a crash for each unsynced tail: which of its bytes survive.
    fn survives(&mut self, tail: &mut Vec<u8>) {
        tail.clear();
    }
}

/// No faults; a crash loses all that was not synced.
struct Honest;
impl Faults for Honest {}

/// Packs in memory.
pub struct MemoryStore {
    packs: Mutex<BTreeMap<PackId, Arc<Mutex<Content>>>>,
    faults: Arc<Mutex<Box<dyn Faults>>>,
    /// Bytes that all packs together may hold before writes fail with `StorageFull`.
    capacity: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
    /// Bytes that cannot be read.
    lost: Range<u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_faults(Box::new(Honest))
    }
}

impl MemoryStore {
    /// A store that fails as `faults` says.
    pub fn with_faults(faults: Box<dyn Faults>) -> Self {
        let faults = Arc::new(Mutex::new(faults));
        let capacity = Arc::new(AtomicU64::new(u64::MAX));
        Self { packs: Mutex::default(), faults, capacity, used: Arc::default() }
    }

    /// Makes the volume this large, which may be less than it holds.
    pub fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, SeqCst);
    }

    /// Replaces the fault plan.
    pub fn set_faults(&self, faults: Box<dyn Faults>) {
        *self.faults.lock() = faults;
    }

    /// What the store holds after the power was cut now. Open handles of the old one stay apart.
    pub fn crash(&self) -> Self {
        let mut faults = self.faults.lock();
        let packs = self.packs.lock();
        let survivors = packs.iter().map(|(&id, pack)| {
            let pack = pack.lock();
            let (kept, tail) = pack.bytes.split_at(pack.synced);
            let mut tail = tail.to_vec();
            faults.survives(&mut tail);
            let bytes = [kept, &tail].concat();
            let synced = bytes.len();
            let lost = pack.lost.clone();
            (id, Arc::new(Mutex::new(Content { bytes, synced, lost })))
        });
        let survivors: BTreeMap<_, Arc<Mutex<Content>>> = survivors.collect();
        drop(faults);
        let used = survivors.values().map(|pack| pack.lock().bytes.len() as u64).sum();
        Self {
            packs: Mutex::new(survivors),
            faults: self.faults.clone(),
            capacity: Arc::new(AtomicU64::new(self.capacity.load(SeqCst))),
            used: Arc::new(AtomicU64::new(used)),
        }
    }

    /// Flips bits of a stored byte, as failing media do.
    pub fn damage(&self, id: PackId, offset: u64, mask: u8) {
        if let Some(pack) = self.packs.lock().get(&id)
            && let Some(byte) = pack.lock().bytes.get_mut(offset as usize)
        {
            *byte ^= mask;
        }
    }

    /// From now on reads of those bytes fail, as of a bad sector.
    pub fn lose(&self, id: PackId, bytes: Range<u64>) {
        if let Some(pack) = self.packs.lock().get(&id) {
            pack.lock().lost = bytes;
        }
    }

    fn pack(&self, content: Arc<Mutex<Content>>) -> Arc<dyn PackFile> {
        let (faults, capacity) = (self.faults.clone(), self.capacity.clone());
        Arc::new(MemoryPack { content, faults, capacity, used: self.used.clone() })
    }
}

struct MemoryPack {
    content: Arc<Mutex<Content>>,
    faults: Arc<Mutex<Box<dyn Faults>>>,
    capacity: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
}

impl PackStore for MemoryStore {
    fn create(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        let mut packs = self.packs.lock();
        if packs.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = packs.entry(id).or_default().clone();
        Ok(self.pack(content))
    }

    fn create_whole(
        &self,
        id: PackId,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.packs.lock().contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        let pack = self.pack(content.clone());
        let filled = fill(&*pack).and_then(|()| pack.sync());
        let appears = filled.map_err(|error| (false, error)).and_then(|()| {
            // Asked apart from the packs: the plan has a lock of its own.
            self.faults.lock().appear()
        });
        if matches!(appears, Ok(()) | Err((true, _))) {
            self.packs.lock().insert(id, content);
        } else {
            self.used.fetch_sub(content.lock().bytes.len() as u64, SeqCst);
        }
        appears.map_err(|(_, error)| error)
    }

    fn open(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        let content = self.packs.lock().get(&id).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.pack(content))
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        Ok(self.packs.lock().keys().copied().collect())
    }

    fn delete(&self, id: PackId) -> io::Result<()> {
        self.faults.lock().delete()?;
        if let Some(pack) = self.packs.lock().remove(&id) {
            self.used.fetch_sub(pack.lock().bytes.len() as u64, SeqCst);
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.capacity.load(SeqCst).saturating_sub(self.used.load(SeqCst))))
    }
}

impl PackFile for MemoryPack {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        let mut outcome = self.faults.lock().write(bytes.len());
        let room = self.capacity.load(SeqCst).saturating_sub(self.used.load(SeqCst)) as usize;
        if outcome.is_ok() && room < bytes.len() {
            outcome = Err((room, io::ErrorKind::StorageFull.into()));
        }
        let mut content = self.content.lock();
        let n = outcome.as_ref().map_or_else(|(n, _)| (*n).min(bytes.len()), |()| bytes.len());
        let (start, end) = (offset as usize, offset as usize + n);
        if content.bytes.len() < end {
            self.used.fetch_add((end - content.bytes.len()) as u64, SeqCst);
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(&bytes[..n]);
        outcome.map_err(|(_, error)| error)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.lock().sync()?;
        let mut content = self.content.lock();
        content.synced = content.bytes.len();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let content = self.content.lock();
        if range.start < content.lost.end && content.lost.start < range.end {
            const EIO: i32 = 5;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let bytes = content.bytes.get(range.start as usize..range.end as usize);
        Ok(Bytes::copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}
