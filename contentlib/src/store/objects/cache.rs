//! What was read from the object store, kept on the local disk, bounded.
//!
//! Packs are kept in parts of 4 MiB, each a file of its own: a header with a CRC of every 64 KiB,
//! then the bytes. The parts that were used last are kept; they are found again after a restart.
//!
//! Always true: the cache is asked for bytes and never whether something exists; and what it gives
//! has the CRC that it was stored with. A part that does not is dropped and read from the store
//! again. Nothing is synced: what a power cut damages is dropped like the rest.

use crate::digest::PackId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// Bytes of a pack in one part; the last may be shorter.
pub(super) const PART: u64 = 4 << 20;
/// Bytes under one CRC.
const BLOCK: u64 = 64 << 10;
const MAGIC: &[u8; 8] = b"depotprt";
/// Magic, length, a CRC for each block of a whole part, and the CRC of all that.
const HEADER: usize = 8 + 4 + 4 * (PART / BLOCK) as usize + 4;
const TEMPORARY: &str = "tmp";

/// One part: of which pack, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PartId {
    pub pack: PackId,
    pub number: u32,
}

impl PartId {
    /// The part in which byte `offset` of a pack lies.
    pub(super) fn at(pack: PackId, offset: u64) -> Self {
        // Packs have 32-bit offsets.
        Self { pack, number: (offset / PART) as u32 }
    }

    /// Where it lies in a pack of `len` bytes.
    pub(super) fn range(self, len: u64) -> Range<u64> {
        let start = u64::from(self.number) * PART;
        start.min(len)..(start + PART).min(len)
    }

    fn file_name(self) -> String {
        format!("{}.{:04x}", self.pack, self.number)
    }

    fn parse(name: &str) -> Option<Self> {
        let (pack, number) = name.split_once('.')?;
        let pack = PackId(u128::from_str_radix(pack, 16).ok()?);
        let found = Self { pack, number: u32::from_str_radix(number, 16).ok()? };
        (found.file_name() == name).then_some(found)
    }
}

/// What the cache did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheCounts {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it could not.
    pub misses: u64,
    /// Parts that were dropped because they read back wrong.
    pub damaged: u64,
    /// Bytes that it holds.
    pub bytes: u64,
}

/// The parts on the local disk.
pub(super) struct PartCache {
    folder: PathBuf,
    limit: u64,
    parts: Mutex<Parts>,
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    next_temporary: AtomicU64,
}

/// Which parts there are, and in which order they were used.
#[derive(Default)]
struct Parts {
    by_id: HashMap<PartId, Part>,
    /// By when they were used last.
    by_use: BTreeMap<u64, PartId>,
    clock: u64,
    bytes: u64,
}

struct Part {
    used: u64,
    bytes: u64,
}

impl Parts {
    fn use_now(&mut self, id: PartId) -> bool {
        let Some(part) = self.by_id.get_mut(&id) else { return false };
        self.by_use.remove(&part.used);
        self.clock += 1;
        part.used = self.clock;
        self.by_use.insert(self.clock, id);
        true
    }

    fn insert(&mut self, id: PartId, bytes: u64) {
        self.remove(id);
        self.clock += 1;
        self.by_id.insert(id, Part { used: self.clock, bytes });
        self.by_use.insert(self.clock, id);
        self.bytes += bytes;
    }

    fn remove(&mut self, id: PartId) -> bool {
        let Some(part) = self.by_id.remove(&id) else { return false };
        self.by_use.remove(&part.used);
        self.bytes -= part.bytes;
        true
    }

    /// Takes out those used longest ago until at most `limit` bytes are left.
    fn shrink(&mut self, limit: u64) -> Vec<PartId> {
        let mut gone = Vec::new();
        while self.bytes > limit
            && let Some((_, id)) = self.by_use.first_key_value().map(|(used, id)| (*used, *id))
        {
            self.remove(id);
            gone.push(id);
        }
        gone
    }
}

impl PartCache {
    /// The cache in `folder`, of at most `limit` bytes; with none nothing is kept. What is there of
    /// before is taken in, its bytes looked at only when they are read.
    pub(super) fn open(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut found: Vec<(SystemTime, PartId, u64)> = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(PartId::parse);
            match (id, entry.metadata()) {
                (Some(id), Ok(meta)) if meta.is_file() => {
                    found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), id, meta.len()));
                }
                // Half written when a process ended.
                (None, Ok(meta)) if meta.is_file() => drop(fs::remove_file(entry.path())),
                _ => {}
            }
        }
        found.sort_unstable();
        let mut parts = Parts::default();
        found.into_iter().for_each(|(_, id, bytes)| parts.insert(id, bytes));
        let cache = Self {
            folder,
            limit,
            parts: Mutex::new(parts),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            next_temporary: AtomicU64::new(0),
        };
        cache.evict();
        Ok(cache)
    }

    /// Whether anything is kept.
    pub(super) fn is_on(&self) -> bool {
        self.limit >= PART + HEADER as u64
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            bytes: self.parts.lock().bytes,
        }
    }

    fn path(&self, id: PartId) -> PathBuf {
        self.folder.join(id.file_name())
    }

    /// Whether the part is kept. It may be damaged.
    pub(super) fn has(&self, id: PartId) -> bool {
        self.parts.lock().by_id.contains_key(&id)
    }

    /// Bytes `inside` of a part that has `len`, if they are kept and right.
    pub(super) fn get(&self, id: PartId, len: u64, inside: Range<u64>) -> Option<Bytes> {
        if !self.parts.lock().use_now(id) {
            self.misses.fetch_add(1, Relaxed);
            return None;
        }
        match read_part(&self.path(id), len, inside) {
            Ok(bytes) => {
                self.hits.fetch_add(1, Relaxed);
                Some(bytes)
            }
            Err(error) => {
                if self.parts.lock().remove(id) {
                    tracing::warn!(pack = %id.pack, part = id.number, %error, "a cached part is dropped");
                    self.damaged.fetch_add(1, Relaxed);
                    let _ = fs::remove_file(self.path(id));
                }
                self.misses.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Keeps a part. Where that fails it is not kept, and nothing else is wrong.
    pub(super) fn put(&self, id: PartId, bytes: &[u8]) {
        if !self.is_on() || bytes.is_empty() {
            return;
        }
        if let Err(error) = self.write(id, bytes) {
            tracing::warn!(folder = ?self.folder, %error, "what was read is not kept");
            return;
        }
        self.parts.lock().insert(id, (HEADER + bytes.len()) as u64);
        self.evict();
    }

    fn write(&self, id: PartId, bytes: &[u8]) -> io::Result<()> {
        let number = self.next_temporary.fetch_add(1, Relaxed);
        let temporary = self.folder.join(format!("{TEMPORARY}{number}"));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&header(bytes))?;
            file.write_all(bytes)
        });
        let kept = written.and_then(|()| fs::rename(&temporary, self.path(id)));
        if kept.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        kept
    }

    /// Forgets all parts of a pack.
    pub(super) fn forget(&self, pack: PackId) {
        let mut parts = self.parts.lock();
        // A pack has at most 4 GiB.
        let ids: Vec<PartId> = (0..1 << 10).map(|number| PartId { pack, number }).collect();
        for id in ids {
            if parts.remove(id) {
                let _ = fs::remove_file(self.path(id));
            }
        }
    }

    fn evict(&self) {
        // Under the lock: a part that is put again meanwhile must not lose its file.
        let mut parts = self.parts.lock();
        for id in parts.shrink(self.limit) {
            let _ = fs::remove_file(self.path(id));
        }
    }
}

/// The header of a part.
fn header(bytes: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    for (at, block) in bytes.chunks(BLOCK as usize).enumerate() {
        header[12 + 4 * at..16 + 4 * at].copy_from_slice(&crc32c::crc32c(block).to_le_bytes());
    }
    let crc = crc32c::crc32c(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Bytes `inside` of the part in a file, with all blocks that they lie in compared.
fn read_part(path: &Path, len: u64, inside: Range<u64>) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let number = |at: usize| -> u32 {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if &header[..8] != MAGIC || crc32c::crc32c(&header[..HEADER - 4]) != number(HEADER - 4) {
        return Err(wrong("its header is damaged"));
    }
    if u64::from(number(8)) != len || inside.end > len || inside.start > inside.end {
        return Err(wrong("it has another length"));
    }
    let (first, end) = (inside.start / BLOCK, inside.end.div_ceil(BLOCK));
    let start = first * BLOCK;
    let mut bytes = vec![0; ((end * BLOCK).min(len) - start) as usize];
    file.read_exact_at(&mut bytes, HEADER as u64 + start)?;
    for (block, at) in bytes.chunks(BLOCK as usize).zip(first as usize..) {
        if crc32c::crc32c(block) != number(12 + 4 * at) {
            return Err(wrong("its bytes are damaged"));
        }
    }
    let bytes = Bytes::from(bytes);
    Ok(bytes.slice((inside.start - start) as usize..(inside.end - start) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 200_000;

    fn part(number: u32) -> (PartId, Vec<u8>) {
        let bytes = (0..LEN).map(|n| (n % 251) as u8 ^ number as u8).collect();
        (PartId { pack: PackId(7), number }, bytes)
    }

    fn cache(folder: &Path, limit: u64) -> PartCache {
        PartCache::open(folder.into(), limit).unwrap()
    }

    #[test]
    fn what_was_kept_reads_back_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (id, bytes) = part(0);
        let first = cache(folder.path(), 8 << 20);
        assert_eq!(first.get(id, LEN, 0..10), None);
        first.put(id, &bytes);
        drop(first);
        fs::write(folder.path().join("tmp7"), "half").unwrap();
        let again = cache(folder.path(), 8 << 20);
        for range in [0..LEN, 0..1, 65_535..65_537, 199_999..200_000, 100..100] {
            let want = &bytes[range.start as usize..range.end as usize];
            assert_eq!(again.get(id, LEN, range).unwrap(), want);
        }
        assert_eq!(again.get(id, LEN + 1, 0..10), None, "of a pack that is longer now");
        assert!(!folder.path().join("tmp7").exists());
    }

    #[test]
    fn a_damaged_part_is_dropped_and_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 8 << 20);
        let (id, bytes) = part(0);
        for (at, len) in [(0, 1), (9, 1), (20, 1), (HEADER as u64 + 70_000, 1), (0, 300)] {
            cache.put(id, &bytes);
            let path = cache.path(id);
            let mut stored = fs::read(&path).unwrap();
            if len == 1 {
                stored[at as usize] ^= 1;
            } else {
                stored.truncate(len);
            }
            fs::write(&path, stored).unwrap();
            assert_eq!(cache.get(id, LEN, 66_000..70_100), None);
            assert!(!cache.has(id) && !path.exists());
        }
        assert_eq!(cache.counts().damaged, 5);
        assert_eq!(cache.counts().bytes, 0);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let one = HEADER as u64 + LEN;
        let cache = cache(folder.path(), 25 * one);
        for number in 0..25 {
            cache.put(part(number).0, &part(number).1);
        }
        assert!(cache.get(part(0).0, LEN, 0..1).is_some());
        cache.put(part(25).0, &part(25).1);
        assert!(cache.has(part(0).0) && !cache.has(part(1).0) && cache.has(part(2).0));
        assert_eq!(cache.counts().bytes, 25 * one);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 25);
        cache.forget(PackId(7));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let none = self::cache(&folder.path().join("none"), 100);
        none.put(part(0).0, &part(0).1);
        assert_eq!(none.get(part(0).0, LEN, 0..1), None);
    }
}
