//! What a fetch keeps of itself in the folder it writes to: `.depot`, whose name no entry at the
//! top of a package may have, or the package could not be fetched into a folder.
//!
//! Here is only what tells such a folder from any other of that name. The distribution point's
//! client writes it, and all else that lies in it.

use crate::folder::Folder;
use crate::name::PackageName;
use crate::path::top_name;
use crate::sign::PublicKey;
use crate::walk::is_gone;
use contentlib::Digest;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The folder inside the destination of fetches.
pub const FOLDER: &str = ".depot";
/// The file in it with the [`FetchRecord`].
pub const RECORD: &str = "state";
const FORMAT: u32 = 1;
/// More than any record has; what lies in a source may be of any size.
const MAX_RECORD: u64 = 64 << 10;

/// Whose versions are fetched into a folder, and which was fetched last; as JSON in [`RECORD`].
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct FetchRecord {
    format: u32,
    /// The package.
    pub package: Option<PackageName>,
    /// The key that its versions are signed with.
    pub key: Option<PublicKey>,
    /// The version last fetched whole.
    pub version: Option<u64>,
    /// Its manifest.
    pub manifest: Option<Digest>,
}

impl FetchRecord {
    /// Reads a record; nothing if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.format == FORMAT)
    }

    /// The record's file.
    pub fn encode(&self) -> Vec<u8> {
        let record = Self { format: FORMAT, ..self.clone() };
        serde_json::to_vec_pretty(&record).expect("a record is JSON")
    }
}

/// Why an entry at the top of a tree, or one below it, is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{FOLDER}` at the top of a package is taken by what `depot fetch` keeps in a folder; rename \
     it or leave it out"
)]
pub struct ReservedName;

/// An error if `path` is what a fetch keeps, or lies in it. For trees that become a version:
/// older versions may have such entries, and stay readable.
pub(crate) fn check(path: &[u8]) -> Result<(), ReservedName> {
    if top_name(path) == FOLDER.as_bytes() { Err(ReservedName) } else { Ok(()) }
}

/// Whether `folder` was written by a fetch, so that its [`FOLDER`] is left out of versions made
/// of it. `false` if it cannot be read.
pub fn lies_in(folder: &Path) -> bool {
    Folder::open(folder).and_then(|folder| is_kept(&folder)).unwrap_or(false)
}

/// Whether [`FOLDER`] at the top of `folder` is what a fetch keeps, by the record in it.
pub(crate) fn is_kept(folder: &Folder) -> io::Result<bool> {
    let path = format!("{FOLDER}/{RECORD}");
    let file = match folder.open_at(path.as_bytes(), OFlags::RDONLY) {
        Ok(file) => File::from(file),
        Err(error) if is_gone(Errno::from_io_error(&error)) => return Ok(false),
        Err(error) => return Err(error),
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut bytes)?;
    // A fetch writes the record first with both.
    let record = FetchRecord::decode(&bytes);
    Ok(record.is_some_and(|record| record.package.is_some() && record.key.is_some()))
}
