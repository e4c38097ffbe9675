//! The pages that came and are not in the catalogue yet.
//!
//! ```text
//! page-000001 …   pages as they were sent
//! spool.json      how many there are, of which catalogue, from where to where
//! ```
//!
//! A page counts from the moment that `spool.json` counts it, so one that was cut off is written again.

use crate::catalogue::Place;
use crate::error::SyncError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The most pages of one spool: some ten million updates.
pub(super) const MAX_PAGES: u32 = 20_000;
/// The largest `spool.json`.
const MAX_FILE: u64 = 64 << 10;
const FILE: &str = "spool.json";

/// What was brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spooled {
    /// The catalogue that the pages are of; nothing, before the first one.
    pub catalogue: Option<String>,
    /// Where the first page begins: what the follower has.
    pub from: Place,
    /// Where to go on.
    pub next: Place,
    /// How many pages there are.
    pub pages: u32,
}

impl Spooled {
    /// Nothing yet, of a follower that has this.
    pub fn after(catalogue: Option<String>, from: Place) -> Self {
        Self { catalogue, from, next: from, pages: 0 }
    }

    /// What lies in `folder`, if that goes on from what the follower has.
    pub fn load(folder: &Path, has: &Self) -> Result<Option<Self>, SyncError> {
        let path = folder.join(FILE);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SyncError::local(path.display(), error)),
        }
        // One that is damaged is as good as none.
        let found: Option<Self> = serde_json::from_str(&text).ok();
        let goes_on = |found: &Self| {
            let is_of_it = found.catalogue == has.catalogue;
            // That is in the catalogue already.
            let is_taken = is_of_it && found.next == has.from;
            // One that began anew, though the follower had something, goes on too.
            let begins = is_of_it && found.from == has.from || found.from == Place::default();
            found.pages > 0 && begins && !is_taken
        };
        Ok(found.filter(goes_on))
    }

    /// Lets go of all that lies in `folder`.
    pub fn clear(folder: &Path) -> Result<(), SyncError> {
        let clear = || {
            match fs::remove_file(folder.join(FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with("page-") {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(|error| SyncError::local(folder.display(), error))
    }

    /// Adds a page, after which it goes on at `next`.
    pub fn add(&mut self, folder: &Path, page: &[u8], next: Place) -> Result<(), SyncError> {
        let path = Self::page(folder, self.pages + 1);
        let counted = Self { pages: self.pages + 1, next, ..self.clone() };
        let write = || {
            fs::write(&path, page)?;
            let text = serde_json::to_vec(&counted)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&text)?;
            file.persist(folder.join(FILE))?;
            Ok::<_, io::Error>(())
        };
        write().map_err(|error| SyncError::local(path.display(), error))?;
        *self = counted;
        Ok(())
    }

    /// A page as it was sent, by its number from 1.
    pub fn read(folder: &Path, number: u32) -> Result<Vec<u8>, SyncError> {
        let path = Self::page(folder, number);
        fs::read(&path).map_err(|error| SyncError::local(path.display(), error))
    }

    fn page(folder: &Path, number: u32) -> PathBuf {
        folder.join(format!("page-{number:06}"))
    }
}
