//! Blobs: bytes that are named by their content, on the wire and in a folder.
//!
//! A blob lies and travels compressed, and its name is the BLAKE3 of what it says, uncompressed. So the name
//! follows from the catalogue alone, whatever program packed it. Whoever reads one has its name and its size from
//! a page or manifest, and so knows when to stop.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// How hard blobs are compressed: each is made once, and brought by every client.
const LEVEL: i32 = 9;
/// What a decoder may be asked to remember: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;
/// The largest blob, uncompressed: one line of a shard, and some.
pub const MAX_PLAIN: u64 = 17 << 20;
/// The largest blob as it travels.
pub const MAX_PACKED: usize = 18 << 20;

/// The name of a blob: the BLAKE3 of what it says. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name([u8; 32]);

impl Name {
    /// That of what says this.
    pub fn of(plain: &[u8]) -> Self {
        Self(*blake3::hash(plain).as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a blob is named by 64 lower-case hex digits")]
pub struct NotAName;

impl FromStr for Name {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotAName);
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| NotAName)
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It is larger than it may be.
    #[error("{name} is larger than it should be: {limit} bytes")]
    TooLarge {
        /// Which.
        name: Name,
        /// The limit.
        limit: u64,
    },
    /// It is not what its name says.
    #[error("the bytes of {name} are others than its name says")]
    Other {
        /// Which.
        name: Name,
    },
    /// It cannot be unpacked, read or written.
    #[error("{name} cannot be read or written")]
    Io {
        /// Which.
        name: Name,
        /// Why.
        source: io::Error,
    },
}

/// Packs what a blob says.
///
/// # Errors
/// There is no memory for it.
pub fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL)
}

/// What the blob of that name says, which has at most so many bytes.
///
/// # Errors
/// It is too large, or is another.
pub fn unpack(packed: &[u8], name: Name, limit: u64) -> Result<Vec<u8>, BlobError> {
    let limit = limit.min(MAX_PLAIN);
    let io = |source| BlobError::Io { name, source };
    let mut decoder = zstd::Decoder::with_buffer(packed).map_err(io)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(io)?;
    let mut plain = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut plain).map_err(io)?;
    if plain.len() as u64 > limit {
        return Err(BlobError::TooLarge { name, limit });
    }
    if Name::of(&plain) != name {
        return Err(BlobError::Other { name });
    }
    Ok(plain)
}

/// A folder of blobs. Whatever is damaged in it counts as not there: it can be brought or made again.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// That folder, which is made if there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into() })
    }

    fn path(&self, name: Name) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// A file beside the blobs that nobody finds, and that is gone with its last handle.
    pub(super) fn temporary(&self) -> io::Result<fs::File> {
        tempfile::tempfile_in(&self.folder)
    }

    /// Whether it is there. Whether it is sound shows when it is read.
    pub fn has(&self, name: Name) -> bool {
        self.path(name).is_file()
    }

    /// A blob as it travels; none, if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn packed(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        match fs::File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(file) => {
                let mut packed = Vec::new();
                file.take(MAX_PACKED as u64).read_to_end(&mut packed)?;
                Ok(Some(packed))
            }
        }
    }

    /// What a blob says, of at most so many bytes; none, if it is not there or damaged: then it is deleted.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn plain(&self, name: Name, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(packed) = self.packed(name)? else { return Ok(None) };
        match unpack(&packed, name, limit) {
            Ok(plain) => Ok(Some(plain)),
            Err(error) => {
                tracing::warn!(%error, "a blob of the catalogue is damaged, and deleted");
                let _ = fs::remove_file(self.path(name));
                Ok(None)
            }
        }
    }

    /// Puts a packed blob there, whole or not at all. After a loss of power it may be damaged.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, name: Name, packed: &[u8]) -> io::Result<()> {
        let mut part = tempfile::Builder::new().prefix(PART).tempfile_in(&self.folder)?;
        part.write_all(packed)?;
        part.persist(self.path(name))?;
        Ok(())
    }

    /// Deletes what is not to be kept, and was put there longer ago than `grace`: somebody may be about to bring
    /// what a manifest listed that he has just read. Gives how many went.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn sweep(&self, keep: impl Fn(Name) -> bool, grace: Duration) -> io::Result<usize> {
        let (now, mut gone) = (SystemTime::now(), 0);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let is_unwanted = match file.parse::<Name>() {
                Ok(name) => !keep(name),
                Err(_) => file.starts_with(PART),
            };
            let age = || {
                let put = entry.metadata().and_then(|it| it.modified()).ok()?;
                now.duration_since(put).ok()
            };
            if is_unwanted && age().is_some_and(|age| age >= grace) {
                fs::remove_file(entry.path())?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

/// What files begin with that are being written.
const PART: &str = ".part";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_what_its_name_says_or_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let (one, packed) = (Name::of(b"one"), pack(b"one").unwrap());
        assert_eq!(blobs.plain(one, 9).unwrap(), None);
        blobs.put(one, &packed).unwrap();
        assert!(blobs.has(one));
        assert_eq!(blobs.plain(one, 9).unwrap().unwrap(), b"one");
        let other = Name::of(b"two");
        blobs.put(other, &packed).unwrap();
        assert_eq!(blobs.plain(other, 9).unwrap(), None);
        assert!(!blobs.has(other), "what is damaged can be brought again");
        for bad in [&packed[..4], b"", b"plain"] {
            blobs.put(one, bad).unwrap();
            assert_eq!(blobs.plain(one, 9).unwrap(), None);
        }
    }

    #[test]
    fn a_blob_never_unpacks_to_more_than_it_should() {
        let bomb = pack(&vec![0; 4 << 20]).unwrap();
        assert!(bomb.len() < 1_000);
        let name = Name::of(&vec![0; 4 << 20]);
        assert!(matches!(unpack(&bomb, name, 1_000), Err(BlobError::TooLarge { .. })));
        assert_eq!(unpack(&bomb, name, 4 << 20).unwrap().len(), 4 << 20);
    }

    #[test]
    fn what_is_not_kept_goes_when_nobody_can_be_about_to_ask_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let names = [b"a", b"b"].map(|text| Name::of(text));
        names.iter().for_each(|name| blobs.put(*name, b"x").unwrap());
        fs::write(folder.path().join("another.file"), "").unwrap();
        assert_eq!(blobs.sweep(|_| false, Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(blobs.sweep(|name| name == names[0], Duration::ZERO).unwrap(), 1);
        assert!(blobs.has(names[0]) && folder.path().join("another.file").exists());
    }
}
