//! The files of updates that lie on the machine: a folder, each file named by the BLAKE3 of its bytes, in hex.
//!
//! The folder is all there is: when a file was needed last is its time of change, and what of a file came so far is
//! `NAME.part`. So nothing else can be wrong about it, and it may be deleted at any time. Files are whole, as installers
//! want them: chunks would save nothing on a machine that holds each version once, and for days.
//!
//! Always true:
//! * a file has its name only after its bytes were checked, and is checked again by whoever installs it;
//! * what a deployment needs is never evicted, and always brought, whatever the limit ([`evicted`]).

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that are read at once.
const STEP: usize = 128 << 10;

/// The cache of one machine.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    held: BTreeMap<String, u64>,
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// When it was needed last.
    pub needed: Timestamp,
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The disk failed, or is full.
    #[error("the cache cannot be written")]
    Disk(#[from] io::Error),
    /// What came are other bytes.
    #[error("what came for {digest} are other bytes")]
    Wrong {
        /// What was to come.
        digest: String,
    },
}

/// The files that leave the cache, where `coming` more bytes come: those that nothing needs (`pinned`), for longer than
/// `retention`, the one first that was needed the longest time ago, until all are within `limit` bytes.
pub fn evicted(
    mut held: Vec<Entry>,
    pinned: &BTreeSet<String>,
    (limit, coming): (u64, u64),
    now: Timestamp,
    retention: Duration,
) -> Vec<Entry> {
    let total = held.iter().fold(coming, |sum, it| sum.saturating_add(it.size));
    let mut beyond = total.saturating_sub(limit);
    let is_old = |it: &Entry| {
        Duration::try_from(now.duration_since(it.needed)).is_ok_and(|age| age >= retention)
    };
    held.retain(|it| !pinned.contains(&it.digest) && is_old(it));
    held.sort_by(|a, b| (a.needed, &a.digest).cmp(&(b.needed, &b.digest)));
    held.into_iter()
        .take_while(|it| {
            let goes = beyond > 0;
            beyond = beyond.saturating_sub(it.size);
            goes
        })
        .collect()
}

impl Cache {
    /// The cache in a folder, which is made if there is none.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|it| is_digest(it)) {
                held.insert(name.to_owned(), entry.metadata()?.len());
            }
        }
        Ok(Self { folder: folder.into(), held })
    }

    /// The files in it and their bytes, by digest.
    pub fn held(&self) -> &BTreeMap<String, u64> {
        &self.held
    }

    /// Where a file is.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest)
    }

    /// Notes that a file came to its end.
    pub fn came(&mut self, digest: &str, size: u64) {
        self.held.insert(digest.to_owned(), size);
    }

    /// Whether a file still has the bytes that its name says. One that has not is removed.
    ///
    /// # Errors
    /// The disk failed.
    pub fn verify(&mut self, digest: &str) -> io::Result<bool> {
        let is_sound = match File::open(self.path(digest)) {
            Ok(mut file) => hash(&mut file)?.0.finalize().to_hex().as_str() == digest,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_sound {
            self.remove(digest)?;
        }
        Ok(is_sound)
    }

    /// Notes that files are needed.
    pub fn needed<'a>(&self, digests: impl IntoIterator<Item = &'a str>) {
        let now = std::time::SystemTime::now();
        for digest in digests {
            // That it is not noted costs a file its place in a row, and no more.
            let _ = File::open(self.path(digest)).and_then(|file| file.set_modified(now));
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The disk failed.
    pub fn remove(&mut self, digest: &str) -> io::Result<()> {
        self.held.remove(digest);
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes room for so many bytes more, as far as the limit asks for it and may be met. Gives how many files went.
    /// What of files came that nothing needs any more goes too.
    ///
    /// # Errors
    /// The disk failed.
    pub fn make_room(
        &mut self,
        pinned: &BTreeSet<String>,
        bytes: (u64, u64),
        now: Timestamp,
        retention: Duration,
    ) -> io::Result<usize> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let (name, about) = (entry.file_name(), entry.metadata()?);
            let Some(name) = name.to_str() else { continue };
            match name.strip_suffix(".part") {
                Some(digest) if !pinned.contains(digest) => fs::remove_file(entry.path())?,
                Some(_) => {}
                None if is_digest(name) => {
                    let needed = about.modified().ok().and_then(|it| Timestamp::try_from(it).ok());
                    let needed = needed.unwrap_or(Timestamp::UNIX_EPOCH);
                    all.push(Entry { digest: name.to_owned(), size: about.len(), needed });
                }
                None => {}
            }
        }
        let gone = evicted(all, pinned, bytes, now, retention);
        for entry in &gone {
            self.remove(&entry.digest)?;
        }
        Ok(gone.len())
    }
}

/// A file that comes.
#[derive(Debug)]
pub struct Part {
    file: File,
    hasher: blake3::Hasher,
    size: u64,
    digest: String,
    folder: PathBuf,
}

impl Part {
    /// What of a file came so far into the cache in that folder, to go on with.
    ///
    /// # Errors
    /// The disk failed; or the digest is none.
    pub fn open(folder: &Path, digest: &str) -> io::Result<Self> {
        if !is_digest(digest) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no digest in hex"));
        }
        let path = folder.join(format!("{digest}.part"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(&path)?;
        let (hasher, size) = hash(&mut file)?;
        Ok(Self { file, hasher, size, digest: digest.to_owned(), folder: folder.into() })
    }

    /// How many of its bytes are there.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk failed, or is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew: what came so far is of no use.
    ///
    /// # Errors
    /// The disk failed.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = blake3::Hasher::new();
        self.size = 0;
        Ok(())
    }

    /// Has it be a file of the cache, if these are its bytes. What is wrong is removed.
    ///
    /// # Errors
    /// They are others, or the disk failed.
    pub fn finish(self) -> Result<u64, CacheError> {
        let Self { file, hasher, size, digest, folder } = self;
        let path = folder.join(format!("{digest}.part"));
        if hasher.finalize().to_hex().as_str() != digest {
            fs::remove_file(&path)?;
            return Err(CacheError::Wrong { digest });
        }
        file.sync_all()?;
        fs::rename(&path, folder.join(&digest))?;
        File::open(&folder)?.sync_all()?;
        Ok(size)
    }
}

/// Whether a name is a digest in hex, and so no path to anywhere else.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads all of a file.
fn hash(file: &mut File) -> io::Result<(blake3::Hasher, u64)> {
    let (mut hasher, mut size, mut buffer) = (blake3::Hasher::new(), 0, vec![0; STEP]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher, size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        (folder, cache)
    }

    fn digest(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex().to_string()
    }

    #[test]
    fn a_file_comes_in_parts_and_counts_once_it_was_checked() {
        let (_folder, mut cache) = cache();
        let name = digest(b"hello world");
        let mut part = Part::open(&cache.folder, &name).unwrap();
        part.write(b"hello ").unwrap();
        drop(part);
        // As after a power cut.
        let mut cache_again = Cache::open(&cache.folder).unwrap();
        assert!(cache_again.held().is_empty());
        let mut part = Part::open(&cache.folder, &name).unwrap();
        assert_eq!(part.size(), 6);
        part.write(b"world").unwrap();
        assert_eq!(part.finish().unwrap(), 11);
        cache_again.came(&name, 11);
        assert!(cache_again.verify(&name).unwrap());
        assert_eq!(Cache::open(&cache.folder).unwrap().held().get(&name), Some(&11));
        // Bytes that rot are found out.
        fs::write(cache_again.path(&name), b"hello_world").unwrap();
        assert!(!cache_again.verify(&name).unwrap());
        assert!(cache_again.held().is_empty() && !cache_again.path(&name).exists());
        // Other bytes never get the name.
        let mut part = Part::open(&cache.folder, &name).unwrap();
        part.write(b"hello there").unwrap();
        assert!(matches!(part.finish(), Err(CacheError::Wrong { .. })));
        assert_eq!(Part::open(&cache.folder, &name).unwrap().size(), 0);
        assert!(Part::open(&cache.folder, "../escape").is_err());
        cache.came(&name, 1);
        assert!(!cache.verify(&name).unwrap());
    }

    #[test]
    fn what_was_needed_the_longest_time_ago_goes_first_and_nothing_that_is_needed() {
        let (_folder, mut cache) = cache();
        let names: Vec<String> = (0..4_u8).map(|n| digest(&[n; 10])).collect();
        for (n, name) in names.iter().enumerate() {
            let mut part = Part::open(&cache.folder, name).unwrap();
            part.write(&[n as u8; 10]).unwrap();
            part.finish().unwrap();
            cache.came(name, 10);
            let ago = Duration::from_secs(100_000 * (n as u64 + 1));
            let when = std::time::SystemTime::now() - ago;
            File::open(cache.path(name)).unwrap().set_modified(when).unwrap();
        }
        let pinned = BTreeSet::from([names[3].clone()]);
        let day = Duration::from_secs(86_400);
        let gone = cache.make_room(&pinned, (35, 10), Timestamp::now(), day).unwrap();
        assert_eq!(gone, 2);
        let left: BTreeSet<&String> = cache.held().keys().collect();
        assert_eq!(left, BTreeSet::from([&names[0], &names[3]]));
        cache.needed([names[0].as_str()]);
        // Whatever comes: it has room.
        assert_eq!(cache.make_room(&pinned, (35, 1_000), Timestamp::now(), day).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn no_more_goes_than_has_to(
            held in prop::collection::vec((1..100u64, 0..200_000i64, any::<bool>()), 0..20),
            limit in 0..1_000u64,
            coming in 0..200u64,
        ) {
            let now = Timestamp::from_second(1_000_000).unwrap();
            let mut pinned = BTreeSet::new();
            let mut entries = Vec::new();
            for (n, (size, age, is_pinned)) in held.iter().enumerate() {
                let digest = n.to_string();
                if *is_pinned {
                    pinned.insert(digest.clone());
                }
                let needed = Timestamp::from_second(1_000_000 - age).unwrap();
                entries.push(Entry { digest, size: *size, needed });
            }
            let day = Duration::from_secs(86_400);
            let gone = evicted(entries.clone(), &pinned, (limit, coming), now, day);
            let sum = |all: &[Entry]| all.iter().map(|it| it.size).sum::<u64>();
            for it in &gone {
                prop_assert!(!pinned.contains(&it.digest));
                prop_assert!(now.duration_since(it.needed).as_secs() >= 86_400);
            }
            if let Some((_, others)) = gone.split_last() {
                prop_assert!(sum(&entries) + coming - sum(others) > limit, "the last one had to go");
            }
            let may_go = |it: &&Entry| {
                !pinned.contains(&it.digest) && now.duration_since(it.needed).as_secs() >= 86_400
            };
            if sum(&entries) + coming - sum(&gone) > limit {
                prop_assert_eq!(entries.iter().filter(may_go).count(), gone.len());
            }
        }
    }
}
