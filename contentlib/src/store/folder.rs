//! Packs as files of one folder.
//!
//! Files are named by pack id, in 256 subfolders so that no folder grows long. Reads are
//! positional; [`PackFile::map`] maps the file, so that a server can hand its pages to the kernel
//! without copying them. Packs are never truncated, only unlinked, so a map stays valid.

use super::{PackFile, PackStore};
use crate::digest::PackId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const EXTENSION: &str = "pack";
/// Bytes of a pack after which the kernel is told to begin writing them.
const WRITE_BEHIND: u64 = 8 << 20;
/// Disks answer several short reads in about the time of one.
const READS_AT_ONCE: usize = 4;
/// The subfolder of packs that are not whole yet.
const INCOMING: &str = "incoming";

/// A folder of packs.
#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// Packs below `root`, which is created. Nobody else may be at work there.
    pub fn new(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let store = Self { root };
        store.clear_incoming()?;
        Ok(store)
    }

    /// The file of pack `id`.
    pub fn path(&self, id: PackId) -> PathBuf {
        // The id begins with the time, so its last digits spread packs evenly.
        let name = id.to_string();
        self.root.join(&name[30..]).join(name).with_extension(EXTENSION)
    }

    /// The subfolder of pack `id`, made durable.
    fn make_subfolder(&self, path: &Path) -> io::Result<PathBuf> {
        let folder = path.parent().expect("a pack lies in a subfolder");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.root)?;
        }
        Ok(folder.into())
    }

    fn clear_incoming(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(INCOMING)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Fills the file `part` and gives it the name `path`, both durably.
    fn fill(
        &self,
        part: &Path,
        path: &Path,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = File::options().read(true).write(true).create_new(true).open(part)?;
        let pack = FolderPack::new(file);
        fill(&*pack)?;
        pack.sync()?;
        let folder = self.make_subfolder(path)?;
        fs::rename(part, path)?;
        sync_folder(&folder)
    }
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl PackStore for FolderStore {
    fn create(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        let path = self.path(id);
        let folder = self.make_subfolder(&path)?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        sync_folder(&folder)?;
        Ok(FolderPack::new(file))
    }

    fn create_whole(
        &self,
        id: PackId,
        fill: &mut dyn FnMut(&dyn PackFile) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(id);
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.clear_incoming()?;
        let incoming = self.root.join(INCOMING);
        fs::create_dir(&incoming)?;
        let made = self.fill(&incoming.join(id.to_string()), &path, fill);
        let cleared = self.clear_incoming();
        made.and(cleared)
    }

    fn open(&self, id: PackId) -> io::Result<Arc<dyn PackFile>> {
        let file = File::options().read(true).write(true).open(self.path(id))?;
        Ok(FolderPack::new(file))
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        let mut packs = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if folder.file_name() == INCOMING || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let path = file?.path();
                let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                if path.extension().is_some_and(|e| e == EXTENSION)
                    && let Ok(id) = u128::from_str_radix(stem, 16)
                    && self.path(PackId(id)) == path
                {
                    packs.push(PackId(id));
                }
            }
        }
        Ok(packs)
    }

    fn delete(&self, id: PackId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn free_space(&self) -> io::Result<Option<u64>> {
        let volume = rustix::fs::statvfs(&self.root)?;
        Ok(Some(volume.f_bavail * volume.f_frsize))
    }

    fn file_system(&self) -> io::Result<Option<u64>> {
        Ok(Some(fs::metadata(&self.root)?.dev()))
    }

    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }
}

struct FolderPack {
    file: Arc<File>,
    /// The newest map; a longer one replaces it when the pack has grown.
    map: Mutex<Option<Bytes>>,
    /// Up to where the kernel was told to begin writing to the disk.
    written_behind: AtomicU64,
}

impl FolderPack {
    fn new(file: File) -> Arc<Self> {
        let written_behind = AtomicU64::new(file.metadata().map_or(0, |m| m.len()));
        Arc::new(Self { file: Arc::new(file), map: Mutex::default(), written_behind })
    }

    /// Has the kernel begin to write what lies before `end`. So the disk is at work while the next
    /// records are made, and a sync has little left to wait for. Promises nothing; whether the
    /// bytes are durable only the sync tells, errors of these writes included.
    fn write_behind(&self, end: u64) {
        let begun = self.written_behind.load(Relaxed);
        if end >= begun + WRITE_BEHIND {
            self.written_behind.store(end, Relaxed);
            begin_writing(&self.file, begun..end);
        }
    }
}

impl PackFile for FolderPack {
    fn write_at(&self, mut offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let total: usize = slices.iter().map(|s| s.len()).sum();
        let written = rustix::io::pwritev(&self.file, slices, offset)?;
        if written == total {
            self.write_behind(offset + total as u64);
            return Ok(());
        }
        // A short write: rare, so finish it slice by slice.
        let mut skip = written;
        offset += written as u64;
        for slice in slices {
            let rest = &slice[skip.min(slice.len())..];
            skip -= slice.len() - rest.len();
            self.file.write_all_at(rest, offset)?;
            offset += rest.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end.checked_sub(range.start).ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn map(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (start, end) = (range.start as usize, range.end as usize);
        let mut newest = self.map.lock();
        if newest.as_ref().is_none_or(|map| map.len() < end) {
            if self.len()? < range.end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *newest = Some(map_file(&self.file)?);
        }
        let map = newest.as_ref().expect("mapped above");
        if start > end || end > map.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(map.slice(start..end))
    }

    fn local(&self) -> Option<Arc<File>> {
        Some(self.file.clone())
    }

    fn forget_cached(&self) {
        // Advice; where it is not taken, memory is compared instead of the disk.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn stamp(&self) -> u64 {
        self.file.metadata().map_or(u64::MAX, |m| {
            (m.ctime() as u64).wrapping_mul(1_000_000_007).wrapping_add(m.ctime_nsec() as u64) | 1
        })
    }
}

#[expect(unsafe_code, reason = "no safe crate has this call; the reason stands below")]
fn begin_writing(file: &File, range: Range<u64>) {
    let (start, len) = (range.start as i64, (range.end - range.start) as i64);
    // SAFETY: the call takes numbers alone, and the descriptor is open as long as `file` is.
    // It can fail where the file system has no such thing; the sync does all the work then.
    unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[expect(unsafe_code, reason = "mapping a file is unsafe by signature; the reason stands below")]
fn map_file(file: &File) -> io::Result<Bytes> {
    // SAFETY: packs are only appended to and unlinked, by this process alone (the library holds a
    // lock), so mapped bytes neither change nor vanish. Somebody who truncates a pack by hand
    // while it is served can end this process by SIGBUS, not make it serve wrong bytes.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
