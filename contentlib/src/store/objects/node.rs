//! What a machine remembers of a library on an object store: who it is, and whether its index is
//! of the library as it was when this machine last wrote to it.
//!
//! The index is made from packs, and knows nothing of what another machine deleted. So it counts
//! only if nobody else had the lease since: the file names the fencing number it goes with.

use crate::library::Environment;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Its name in the library's folder.
pub(super) const FILE: &str = "node.toml";
/// The most that is read of it, in bytes.
const MOST: u64 = 8192;

/// The file's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    /// The machine, for the lease: 32 hex digits.
    pub owner: String,
    /// Where the library is.
    pub url: String,
    /// The fencing number under which the index was last known to be the library's; 0 for never.
    pub fence: u64,
}

impl Node {
    /// What `folder` says of the library at `url`; a new machine where it says nothing.
    pub(super) fn load(folder: &Path, url: &str, random: &dyn Environment) -> io::Result<Self> {
        if let Some(node) = Self::read(folder)? {
            let fence = if node.url == url { node.fence } else { 0 };
            return Ok(Self { owner: node.owner, url: url.into(), fence });
        }
        let owner = format!("{:032x}", random.random());
        Ok(Self { owner, url: url.into(), fence: 0 })
    }

    /// The file, if there is one that can be read. One that cannot costs no more than an index.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(folder.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| toml::from_str(text).ok()))
    }

    /// Durable when this returns.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        let (path, part) = (folder.join(FILE), folder.join("node.toml.part"));
        let mut file = File::create(&part)?;
        file.write_all(toml::to_string(self).map_err(io::Error::other)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(folder)?.sync_all()
    }
}
