//! The file of a ledger: records one after the other, each with its length and a checksum.
//!
//! ```text
//! file   = "depotcl2" record*
//! record = length u32, CRC-32C of the payload u32, CRC-32C of these eight bytes u32, payload: JSON
//! ```
//!
//! Numbers are little-endian. By the checksum of its head a record that was never written to its end is told
//! from one that was damaged later. A record counts once it is written and flushed. From time to time the file is made anew, with one record
//! that says all: beside the old one, and then in its place.

use super::{Book, Change, ScanEnd};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"depotcl2";
/// The bytes before a payload.
const HEAD: usize = 12;
/// The longest record, in bytes: all states of the largest catalogue are shorter.
const MAX_RECORD: u32 = 256 << 20;
/// How long the file is at least before it is made anew.
const MIN_LONG: u64 = 1 << 20;

/// A record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Record {
    /// All that stands in the ledger.
    Book(Box<Book>),
    /// A scan that ended, and the messages that wait from then on.
    Scan {
        /// The messages; the scan's end has the number after them.
        changes: Vec<Change>,
        /// How it ended.
        end: ScanEnd,
    },
    /// The site has all before this number.
    Acknowledged(u64),
    /// The site wants all states.
    OweAll,
}

/// Why a ledger's file fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It cannot be read or written.
    #[error("the ledger {} cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error(
        "the ledger {} is damaged, or of another version of depot: delete it, and all is scanned and told anew",
        path.display()
    )]
    NotALedger {
        /// Which.
        path: PathBuf,
    },
    /// A record has more than a file takes.
    #[error("there is more to record in {} than is taken", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
}

/// What the file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soundness {
    /// All of it.
    Whole,
    /// Its last record was never finished.
    Torn,
    /// Something in it is not as it was written.
    Damaged,
}

/// The file, open for more.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    /// How long it was when it was made anew.
    least: u64,
    /// Whether it ends after its last record: not after one that could not be written.
    is_sound: bool,
}

impl Log {
    /// Opens it, or makes it; gives each record that it has.
    pub fn open(path: &Path, mut take: impl FnMut(Record)) -> Result<(Self, Soundness), LogError> {
        let failed = |source| LogError::File { path: path.into(), source };
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = Self::made(path, &[]).map_err(failed)?;
                let length = MAGIC.len() as u64;
                let log = Self { path: path.into(), file, length, least: length, is_sound: true };
                return Ok((log, Soundness::Whole));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(failed(error)),
            _ => return Err(LogError::NotALedger { path: path.into() }),
        }
        let whole = file.metadata().map_err(failed)?.len();
        let mut length = MAGIC.len() as u64;
        let mut input = io::BufReader::with_capacity(64 << 10, &mut file);
        let soundness = loop {
            match read(&mut input, whole - length).map_err(failed)? {
                Next::Record(record, bytes) => {
                    length += bytes;
                    take(record);
                }
                Next::End => break Soundness::Whole,
                Next::Torn => break Soundness::Torn,
                Next::Damaged => break Soundness::Damaged,
            }
        };
        let is_sound = soundness == Soundness::Whole;
        Ok((Self { path: path.into(), file, length, least: length, is_sound }, soundness))
    }

    /// Adds a record; it is on the disk when this returns.
    pub fn append(&mut self, record: &Record) -> Result<(), LogError> {
        let bytes = self.encode(record)?;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Nothing may stand after what was written of it.
            self.is_sound = false;
            return Err(LogError::File { path: self.path.clone(), source });
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether a record may be added; else it has to be made anew first.
    pub fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Whether it is worth while to make it anew.
    pub fn is_long(&self) -> bool {
        self.length > MIN_LONG && self.length > self.least.saturating_mul(4)
    }

    /// Makes it anew, with this in it.
    pub fn rewrite(&mut self, book: &Book) -> Result<(), LogError> {
        let bytes = self.encode(&Record::Book(Box::new(book.clone())))?;
        let made = Self::made(&self.path, &bytes);
        self.file = made.map_err(|source| LogError::File { path: self.path.clone(), source })?;
        self.length = (MAGIC.len() + bytes.len()) as u64;
        self.least = self.length;
        self.is_sound = true;
        Ok(())
    }

    fn encode(&self, record: &Record) -> Result<Vec<u8>, LogError> {
        let too_large = || LogError::TooLarge { path: self.path.clone() };
        let payload = serde_json::to_vec(record).map_err(|_| too_large())?;
        let length = u32::try_from(payload.len()).ok().filter(|it| *it <= MAX_RECORD);
        let length = length.ok_or_else(too_large)?;
        let mut bytes = Vec::with_capacity(payload.len() + HEAD);
        bytes.extend(length.to_le_bytes());
        bytes.extend(crc32c::crc32c(&payload).to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend(payload);
        Ok(bytes)
    }

    /// A file with these records in the place of the one that is there.
    fn made(path: &Path, records: &[u8]) -> io::Result<File> {
        let folder =
            path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut part = tempfile::NamedTempFile::new_in(folder)?;
        part.write_all(MAGIC)?;
        part.write_all(records)?;
        part.as_file().sync_all()?;
        // The rename makes it appear whole; syncing the folder makes it stay.
        part.persist(path)?;
        File::open(folder)?.sync_all()?;
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}

enum Next {
    Record(Record, u64),
    End,
    Torn,
    Damaged,
}

/// The next record of a file that has `left` more bytes.
fn read(input: &mut impl Read, left: u64) -> io::Result<Next> {
    if left == 0 {
        return Ok(Next::End);
    }
    let mut head = [0; HEAD];
    let Some(left) = left.checked_sub(HEAD as u64) else { return Ok(Next::Torn) };
    input.read_exact(&mut head)?;
    let [l0, l1, l2, l3, c0, c1, c2, c3, h0, h1, h2, h3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let is_head = crc32c::crc32c(&head[..8]) == u32::from_le_bytes([h0, h1, h2, h3]);
    if !is_head || length > MAX_RECORD {
        return Ok(Next::Damaged);
    }
    if u64::from(length) > left {
        return Ok(Next::Torn);
    }
    let mut payload = vec![0; length as usize];
    input.read_exact(&mut payload)?;
    if crc32c::crc32c(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(Next::Damaged);
    }
    match serde_json::from_slice(&payload) {
        Ok(record) => Ok(Next::Record(record, u64::from(length) + HEAD as u64)),
        Err(_) => Ok(Next::Damaged),
    }
}
