//! One long change of a package at a time.
//!
//! Two updates at once would read the same files twice and then race to be the next version. The
//! second is told so at once instead of waiting, since the first may take an hour.

use crate::error::PackageError;
use crate::name::PackageName;
use crate::refs::SourceFolder;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The packages that are being changed, with the source folders that they are about to take.
#[derive(Default)]
pub(super) struct Busy(Mutex<HashMap<PackageName, Option<SourceFolder>>>);

impl Busy {
    pub(super) fn take(self: &Arc<Self>, name: &PackageName) -> Result<Guard, PackageError> {
        let mut taken = self.0.lock();
        if taken.contains_key(name) {
            return Err(PackageError::Busy(name.clone()));
        }
        taken.insert(name.clone(), None);
        Ok(Guard { busy: self.clone(), name: name.clone() })
    }
}

/// The right to change a package; given back when dropped.
pub(crate) struct Guard {
    busy: Arc<Busy>,
    name: PackageName,
}

impl Guard {
    pub(crate) fn name(&self) -> &PackageName {
        &self.name
    }

    /// Notes the folder that the package is about to take as its source, unless another package
    /// is about to take the same.
    pub(super) fn claim(&self, folder: &Path) -> Result<(), PackageError> {
        let mut taken = self.busy.0.lock();
        let overlaps = |claim: &Option<SourceFolder>| {
            claim.as_ref().filter(|claim| claim.overlaps(folder)).map(|claim| claim.0.clone())
        };
        for (other, claim) in taken.iter().filter(|(other, _)| **other != self.name) {
            if let Some(folder) = overlaps(claim) {
                return Err(PackageError::SourceTaken { other: other.clone(), folder });
            }
        }
        taken.insert(self.name.clone(), Some(SourceFolder(folder.into())));
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.busy.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_changed_by_one_at_a_time() {
        let busy = Arc::new(Busy::default());
        let (docs, tools) = ("docs".parse().unwrap(), "tools".parse().unwrap());
        let guard = busy.take(&docs).unwrap();
        assert!(matches!(busy.take(&docs), Err(PackageError::Busy(_))));
        let other = busy.take(&tools).unwrap();
        guard.claim(Path::new("/srv/docs")).unwrap();
        let inside = other.claim(Path::new("/srv/docs/inside"));
        assert!(matches!(inside, Err(PackageError::SourceTaken { .. })));
        drop(guard);
        other.claim(Path::new("/srv/docs/inside")).unwrap();
        assert!(busy.take(&docs).is_ok());
    }
}
