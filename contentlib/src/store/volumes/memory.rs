//! Volumes in memory: for simulation, and for libraries that have only a home.

use super::keeper::VolumeKeeper;
use super::list::{VolumeEntry, VolumeId, VolumeList};
use crate::error::VolumeError;
use crate::store::PackStore;
use crate::store::memory::MemoryStore;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the store of a new volume.
type Make = dyn Fn() -> MemoryStore + Send + Sync;
/// Asked before the list is saved: whether that fails, and if so whether it is saved all the same.
type Fault = dyn FnMut() -> Option<bool> + Send;

/// A list in memory, and a [`MemoryStore`] for each volume.
pub struct MemoryKeeper {
    list: Mutex<VolumeList>,
    stores: Mutex<BTreeMap<VolumeId, Arc<MemoryStore>>>,
    make: Arc<Make>,
    fault: Mutex<Box<Fault>>,
}

impl Default for MemoryKeeper {
    fn default() -> Self {
        Self::with(MemoryStore::default)
    }
}

impl MemoryKeeper {
    /// One that makes the stores of new volumes with `make`.
    pub fn with(make: impl Fn() -> MemoryStore + Send + Sync + 'static) -> Self {
        Self {
            list: Mutex::default(),
            stores: Mutex::default(),
            make: Arc::new(make),
            fault: Mutex::new(Box::new(|| None)),
        }
    }

    /// From now on saving the list fails as `fault` says.
    pub fn set_fault(&self, fault: impl FnMut() -> Option<bool> + Send + 'static) {
        *self.fault.lock() = Box::new(fault);
    }

    /// What is left after the power was cut now; nothing fails there.
    pub fn crash(&self) -> Self {
        let stores = self.stores.lock();
        let stores = stores.iter().map(|(id, store)| (*id, Arc::new(store.crash()))).collect();
        Self {
            list: Mutex::new(self.list.lock().clone()),
            stores: Mutex::new(stores),
            make: self.make.clone(),
            fault: Mutex::new(Box::new(|| None)),
        }
    }

    /// The stores of all volumes beside the home that ever were.
    pub fn stores(&self) -> Vec<Arc<MemoryStore>> {
        self.stores.lock().values().cloned().collect()
    }
}

impl VolumeKeeper for MemoryKeeper {
    fn home(&self) -> PathBuf {
        "memory".into()
    }

    fn load(&self) -> Result<VolumeList, VolumeError> {
        Ok(self.list.lock().clone())
    }

    fn save(&self, list: &VolumeList) -> Result<(), VolumeError> {
        let fault = (self.fault.lock())();
        if fault != Some(false) {
            *self.list.lock() = list.clone();
        }
        match fault {
            None => Ok(()),
            Some(_) => {
                let source = io::Error::other("made to fail");
                Err(VolumeError::Io { path: self.home(), source })
            }
        }
    }

    fn claim(&self, _: &VolumeList, entry: &VolumeEntry) -> Result<(), VolumeError> {
        self.stores.lock().insert(entry.id, Arc::new((self.make)()));
        Ok(())
    }

    fn open(&self, _: u128, entry: &VolumeEntry) -> Result<Arc<dyn PackStore>, VolumeError> {
        let (name, path) = (entry.name.clone(), entry.path.clone());
        let missing = VolumeError::Missing { name, path };
        Ok(self.stores.lock().get(&entry.id).cloned().ok_or(missing)?)
    }

    fn release(&self, _: &Path) -> Result<(), VolumeError> {
        let list = self.list.lock();
        self.stores.lock().retain(|id, _| list.volumes.iter().any(|entry| entry.id == *id));
        Ok(())
    }
}
