//! The volumes of a library on an object store: its home, and no others.
//!
//! A folder of the machine that happens to work on the library would be lost with that machine,
//! which is what the object store is there to survive.

use super::keeper::VolumeKeeper;
use super::list::{VolumeEntry, VolumeList};
use crate::error::VolumeError;
use crate::store::PackStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keeps no list, and makes no volume.
pub struct HomeOnly {
    url: String,
}

impl HomeOnly {
    /// For the library at `url`.
    pub fn new(url: &str) -> Self {
        Self { url: url.into() }
    }

    fn refused<T>(&self) -> Result<T, VolumeError> {
        Err(VolumeError::OnObjectStore { url: self.url.clone() })
    }
}

impl VolumeKeeper for HomeOnly {
    fn home(&self) -> PathBuf {
        PathBuf::from(&self.url)
    }

    fn load(&self) -> Result<VolumeList, VolumeError> {
        Ok(VolumeList::default())
    }

    fn save(&self, _: &VolumeList) -> Result<(), VolumeError> {
        self.refused()
    }

    fn claim(&self, _: &VolumeList, _: &VolumeEntry) -> Result<(), VolumeError> {
        self.refused()
    }

    fn open(&self, _: u128, _: &VolumeEntry) -> Result<Arc<dyn PackStore>, VolumeError> {
        self.refused()
    }

    fn release(&self, _: &Path) -> Result<(), VolumeError> {
        self.refused()
    }
}
