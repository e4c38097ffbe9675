//! Deltas that were made, each a file: made once, whoever asks how often.
//!
//! The name of a file is the digest of the request, in hex digits. It begins with
//!
//! ```text
//! 8   magic
//! 32  BLAKE3 of the rest
//! ```
//!
//! and the rest is the delta, or nothing where the chunks themselves are shorter. It is checked each
//! time it is opened; a file that is not what it says goes, and is made again. The folder may be deleted
//! at any time. Files together take at most so many bytes: those go first that were not asked for
//! the longest.

use contentlib::Digest;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"\x89depotD\n";
/// Where the delta begins.
pub(super) const HEAD: u64 = 40;
/// What a file takes at least, on most file systems.
const BLOCK: u64 = 4096;

/// A delta in its file; of no bytes where the chunks themselves are shorter.
#[derive(Debug)]
pub(super) struct Stored {
    pub file: File,
    /// Bytes of the delta, from [`HEAD`] on.
    pub length: u64,
}

/// The folder, and when each file was last asked for.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
    held: u64,
    entries: HashMap<Digest, Entry>,
    by_use: BTreeMap<u64, Digest>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    used: u64,
    bytes: u64,
}

impl Cache {
    /// The cache in `folder`, of at most `most` bytes. What lies there and is none of its files is
    /// what a process left that was killed, and goes.
    pub fn open(folder: PathBuf, most: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| Digest::from_hex(name).ok());
            let metadata = entry.metadata()?;
            match key {
                Some(key) => found.push((metadata.modified()?, key, metadata.len())),
                None if metadata.is_file() => fs::remove_file(entry.path())?,
                None => {}
            }
        }
        found.sort_unstable();
        let (entries, by_use) = Default::default();
        let mut cache = Self { folder, most, held: 0, entries, by_use, uses: 0 };
        found.into_iter().for_each(|(_, key, length)| cache.note(key, length));
        cache.make_room();
        Ok(cache)
    }

    /// The file of `key`, whose bytes are still to be checked with [`check`]. It counts as used.
    pub fn get(&mut self, key: Digest) -> Option<File> {
        let bytes = self.entries.get(&key)?.bytes;
        match File::open(self.path(key)) {
            Ok(file) => {
                self.note(key, bytes);
                Some(file)
            }
            Err(_) => {
                // Deleted by somebody, as anybody may.
                self.forget(key);
                None
            }
        }
    }

    /// Puts a file in its place that [`write`] made.
    pub fn put(&mut self, key: Digest, part: &Path, length: u64) -> io::Result<()> {
        fs::rename(part, self.path(key))?;
        self.note(key, HEAD + length);
        self.make_room();
        Ok(())
    }

    /// Removes a file that is not what it says.
    pub fn remove(&mut self, key: Digest) {
        self.forget(key);
        if let Err(error) = fs::remove_file(self.path(key)) {
            tracing::debug!(%key, %error, "a damaged delta was gone already");
        }
    }

    /// Where a file is written until it is whole.
    pub fn part(&self, key: Digest) -> PathBuf {
        self.folder.join(format!("{}.part", key.to_hex()))
    }

    fn path(&self, key: Digest) -> PathBuf {
        self.folder.join(key.to_hex())
    }

    fn note(&mut self, key: Digest, length: u64) {
        self.forget(key);
        let (used, bytes) = (self.uses, length.max(BLOCK));
        self.uses += 1;
        self.held += bytes;
        self.by_use.insert(used, key);
        self.entries.insert(key, Entry { used, bytes });
    }

    fn forget(&mut self, key: Digest) {
        if let Some(entry) = self.entries.remove(&key) {
            self.by_use.remove(&entry.used);
            self.held -= entry.bytes;
        }
    }

    fn make_room(&mut self) {
        while self.held > self.most
            && let Some((_, &oldest)) = self.by_use.first_key_value()
        {
            self.forget(oldest);
            // Whoever is being sent it has it open, and gets it whole.
            if let Err(error) = fs::remove_file(self.path(oldest))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(key = %oldest, %error, "a delta that is not needed stays on disk");
            }
        }
    }
}

/// Writes a delta to `part`, and hands it back open to read. It need not survive a crash: it is checked
/// when it is opened.
pub(super) fn write(part: &Path, delta: &[u8]) -> io::Result<Stored> {
    let mut options = File::options();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(part)?;
    file.write_all(&MAGIC)?;
    file.write_all(Digest::of(delta).as_bytes())?;
    file.write_all(delta)?;
    Ok(Stored { file, length: delta.len() as u64 })
}

/// The delta in a file, if the file is what it says. Reads it through.
pub(super) fn check(mut file: File) -> Option<Stored> {
    let mut head = [0; HEAD as usize];
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_exact(&mut head).ok()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                length += n as u64;
                hasher.update(buffer.get(..n)?);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let (magic, digest) = head.split_at(MAGIC.len());
    let is_right = magic == MAGIC && digest == hasher.finalize().as_bytes();
    is_right.then_some(Stored { file, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    fn put(cache: &mut Cache, n: u32, delta: &[u8]) {
        let part = cache.part(key(n));
        let stored = write(&part, delta).unwrap();
        cache.put(key(n), &part, stored.length).unwrap();
    }

    fn get(cache: &mut Cache, n: u32) -> Option<Vec<u8>> {
        let mut stored = check(cache.get(key(n))?)?;
        stored.file.seek(SeekFrom::Start(HEAD)).unwrap();
        let mut delta = Vec::new();
        stored.file.read_to_end(&mut delta).unwrap();
        assert_eq!(delta.len() as u64, stored.length);
        Some(delta)
    }

    #[test]
    fn what_was_put_is_there_also_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(folder.path().join("deltas"), 1 << 20).unwrap();
        let mut cache = open();
        assert_eq!(get(&mut cache, 1), None);
        put(&mut cache, 1, b"delta");
        put(&mut cache, 2, b"");
        write(&cache.part(key(3)), b"killed while it was written").unwrap();
        let mut again = open();
        for cache in [&mut cache, &mut again] {
            assert_eq!(get(cache, 1).unwrap(), b"delta");
            assert_eq!(get(cache, 2).unwrap(), b"");
            assert_eq!(get(cache, 3), None);
        }
        assert_eq!(fs::read_dir(folder.path().join("deltas")).unwrap().count(), 2);
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path().into(), 4 * 10_000).unwrap();
        (0..4).for_each(|n| put(&mut cache, n, &[n as u8; 9_000]));
        assert!(get(&mut cache, 0).is_some());
        let mut open = check(cache.get(key(1)).unwrap()).unwrap();
        assert!(get(&mut cache, 0).is_some());
        (4..7).for_each(|n| put(&mut cache, n, &[n as u8; 9_000]));
        let left: Vec<u32> = (0..7).filter(|n| get(&mut cache, *n).is_some()).collect();
        assert_eq!(left, [0, 4, 5, 6]);
        assert!(cache.held <= cache.most);
        // Who is being sent one gets it whole.
        let mut bytes = Vec::new();
        open.file.seek(SeekFrom::Start(HEAD)).unwrap();
        open.file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [1; 9_000]);
        let mut smaller = Cache::open(folder.path().into(), 10_000).unwrap();
        assert_eq!((0..7).filter(|n| get(&mut smaller, *n).is_some()).count(), 1);
    }

    #[test]
    fn a_file_that_is_not_what_it_says_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path().into(), 1 << 20).unwrap();
        put(&mut cache, 1, &[7; 5_000]);
        let path = cache.path(key(1));
        let good = fs::read(&path).unwrap();
        for at in [0, 8, 40, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(get(&mut cache, 1), None, "{at}");
        }
        for cut in [0, 10, 40, 100] {
            fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(get(&mut cache, 1), None, "{cut}");
        }
        fs::write(&path, good).unwrap();
        assert!(get(&mut cache, 1).is_some());
        cache.remove(key(1));
        assert_eq!((get(&mut cache, 1), cache.held), (None, 0));
    }
}
