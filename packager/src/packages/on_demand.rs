//! The files on demand of versions.

use super::Packages;
use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::on_demand::{LIST, MAX_LIST, OnDemand};
use contentlib::{Digest, Library, ReadError};
use std::sync::Arc;

impl Packages {
    /// The files on demand of the version with this manifest; nothing if it has none. The last lists read
    /// are kept in memory.
    pub fn on_demand(&self, manifest: Digest) -> Result<Option<Arc<OnDemand>>, PackageError> {
        let tree = self.manifest(manifest)?;
        let Some(list) = tree.lookup(LIST.as_bytes()).and_then(|entry| entry.file()) else {
            return Ok(None);
        };
        let read = || read_list(self.library(), manifest, list.digest);
        self.inner.on_demand.get(list.digest, read).map(Some)
    }
}

/// The files on demand of a version with this manifest.
pub(crate) fn read_on_demand(
    library: &Library,
    digest: Digest,
    manifest: &Manifest,
) -> Result<Option<OnDemand>, PackageError> {
    let list = manifest.lookup(LIST.as_bytes()).and_then(|entry| entry.file());
    list.map(|list| read_list(library, digest, list.digest)).transpose()
}

fn read_list(library: &Library, manifest: Digest, list: Digest) -> Result<OnDemand, PackageError> {
    let reader = library.open_content(list)?;
    let size = reader.size();
    if size > MAX_LIST {
        return Err(ReadError::Unknown(list.into()).into());
    }
    let mut text = Vec::with_capacity(size as usize);
    reader.copy_to(0..size, &mut text)?;
    OnDemand::parse(text).map_err(|source| PackageError::OnDemand { manifest, source })
}
