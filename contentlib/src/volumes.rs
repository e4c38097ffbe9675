//! The volumes of an open library: looked at, added, drained, used again, removed.
//!
//! All of it while the library is used. Only a volume whose disk is gone is given up without
//! opening the library, since it cannot be opened without the volume.

mod drain;

pub use drain::DrainReport;

use crate::digest::PackId;
use crate::error::{MaintainError, VolumeError};
use crate::library::{Library, lock_only};
use crate::store::volumes::{
    FolderKeeper, Volume, VolumeEntry, VolumeId, VolumeKeeper, VolumeState,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A volume and what is on it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VolumeStats {
    /// Names it for ever, in 32 hex digits; zeros for the home volume.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where it is, for people.
    pub path: String,
    /// Whether it takes new packs.
    pub state: VolumeState,
    /// Packs on it.
    pub packs: u64,
    /// Bytes of those packs.
    pub stored_bytes: u64,
    /// Free bytes, if known.
    pub free_bytes: Option<u64>,
    /// Bytes that stay free on it.
    pub reserve_bytes: u64,
}

/// A volume that is to be added.
#[derive(Clone, Debug, Default)]
pub struct NewVolume {
    /// An empty folder, by its absolute path.
    pub path: PathBuf,
    /// What to call it; made up from the path where nobody says.
    pub name: Option<String>,
    /// Bytes that stay free on it; as on the home volume where nobody says.
    pub reserve: Option<u64>,
}

impl Library {
    /// All volumes, the home first.
    pub fn volumes(&self) -> Result<Vec<VolumeStats>, MaintainError> {
        let volumes = self.inner.store.all();
        volumes.iter().map(|volume| self.volume_stats(volume)).collect()
    }

    /// The folders that the volumes' packs lie in.
    pub fn volume_folders(&self) -> Vec<PathBuf> {
        self.inner.store.all().iter().map(|volume| volume.path.clone()).collect()
    }

    /// The volume of that name or id.
    pub fn volume(&self, name: &str) -> Result<VolumeStats, MaintainError> {
        self.volume_stats(&*self.inner.store.find(name)?)
    }

    fn volume_stats(&self, volume: &Volume) -> Result<VolumeStats, MaintainError> {
        let packs = self.inner.index.packs()?;
        let sizes: HashMap<PackId, u64> =
            packs.iter().map(|(_, info)| (info.id, info.len)).collect();
        let failed = |source| VolumeError::Io { path: volume.path.clone(), source };
        let listed = volume.store.list().map_err(failed)?;
        Ok(VolumeStats {
            id: volume.id.to_string(),
            name: volume.name.clone(),
            path: volume.path.to_string_lossy().into_owned(),
            state: volume.state(),
            packs: listed.len() as u64,
            stored_bytes: listed.iter().filter_map(|id| sizes.get(id)).sum(),
            free_bytes: volume.store.free_space().unwrap_or(None),
            reserve_bytes: volume.reserve,
        })
    }

    /// Adds a volume: from now on new packs may go there. Its folder must be empty, and the
    /// library's own from then on.
    pub fn add_volume(&self, new: &NewVolume) -> Result<VolumeStats, MaintainError> {
        let inner = &self.inner;
        // Zero is the home's.
        let id = inner.environment.random() | 1;
        let name = new.name.as_deref().unwrap_or_default();
        if new.name.is_some() && name.is_empty() {
            return Err(VolumeError::BadName { name: String::new() }.into());
        }
        let entry = VolumeEntry::new(id, name, &new.path, new.reserve);
        self.volume_stats(&*inner.store.add(inner.library, entry)?)
    }

    /// Lets a volume that was drained, or is being drained, take new packs again.
    pub fn resume_volume(&self, name: &str) -> Result<VolumeStats, MaintainError> {
        let volume = self.inner.store.find(name)?;
        self.inner.store.set_state(&volume, VolumeState::Active)?;
        self.volume_stats(&volume)
    }

    /// Removes a volume that holds no packs; its folder is empty afterwards.
    pub fn remove_volume(&self, name: &str) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let volume = inner.store.find(name)?;
        if volume.id == VolumeId::HOME {
            return Err(VolumeError::Home.into());
        }
        // Before anything changes; and once more when nothing can be written there any more.
        volume.holds_nothing()?;
        let before = volume.state();
        inner.store.set_state(&volume, VolumeState::Draining)?;
        // Whoever holds the writer may have been about to begin a pack there.
        drop(inner.writer.lock());
        match inner.store.remove(&volume) {
            Err(error @ VolumeError::HoldsPacks { .. }) => {
                inner.store.set_state(&volume, before)?;
                Err(error.into())
            }
            done => Ok(done?),
        }
    }

    /// Gives up a volume of the library in `folder` whose disk is gone, so that the library can
    /// be opened without it. What it held reads as lost: `verify` names what is hit, and whoever
    /// has the bytes heals it.
    pub fn give_up_volume(folder: &Path, name: &str) -> Result<(), MaintainError> {
        let _lock = lock_only(folder)?;
        let keeper = FolderKeeper::new(folder);
        let mut list = keeper.load()?;
        if name == crate::store::volumes::HOME {
            return Err(VolumeError::Home.into());
        }
        let is_it = |entry: &VolumeEntry| entry.name == name || entry.id.to_string() == name;
        let Some(at) = list.volumes.iter().position(is_it) else {
            return Err(VolumeError::Unknown { name: name.into() }.into());
        };
        let entry = list.volumes.remove(at);
        if keeper.is_there(list.library, &entry) {
            return Err(VolumeError::NotLost { name: entry.name, path: entry.path }.into());
        }
        if list.volumes.iter().all(|volume| volume.state == VolumeState::Draining) {
            // Somewhere new packs must go.
            list.home = VolumeState::Active;
        }
        Ok(keeper.save(&list)?)
    }
}
