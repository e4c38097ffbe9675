//! Versions that go by their age, also where no new version comes.
//!
//! Making a version applies the whole retention of its package. A package that rests gets no
//! versions, and its old ones would stay for ever; here their age alone is looked at.

use super::Packages;
use super::publish::delete_changes;
use crate::error::PackageError;
use crate::name::PackageName;
use crate::refs::{self, PackageRecord};
use crate::retention::Retention;
use std::num::NonZeroU32;

impl Packages {
    /// Removes versions that are older than their packages keep them. Answers how many. A package
    /// that cannot be changed is left for the next time, and the log says why. Of copies of another
    /// site's packages, that site says which are kept.
    pub fn expire_versions(&self) -> Result<u64, PackageError> {
        if self.is_replica() {
            return Ok(0);
        }
        let mut n = 0;
        for (key, _) in self.library().list_refs(refs::PACKAGES)? {
            let Some(Ok(name)) = key.strip_prefix(refs::PACKAGES).map(str::parse) else { continue };
            match self.expire_versions_of(&name) {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => {
                    tracing::info!(package = %name, versions = ?removed, "versions went by age");
                    n += removed.len() as u64;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, package = %name, "old versions were not removed");
                }
            }
        }
        Ok(n)
    }

    fn expire_versions_of(&self, name: &PackageName) -> Result<Vec<u64>, PackageError> {
        // A look first: a change would be one even if nothing goes.
        if self.too_old(name, &self.record(name)?.record)?.is_empty() {
            return Ok(Vec::new());
        }
        self.change(name, |record, changes| {
            let old = self.too_old(name, record)?;
            changes.extend(delete_changes(name, &old));
            Ok(old)
        })
    }

    fn too_old(
        &self,
        name: &PackageName,
        record: &PackageRecord,
    ) -> Result<Vec<u64>, PackageError> {
        if record.retention.days.is_none() {
            return Ok(Vec::new());
        }
        // How many are kept is a matter of the next version: a smaller number takes effect then.
        let by_age = Retention { keep: NonZeroU32::MAX, ..record.retention };
        let versions = refs::list_versions(self.library(), name)?;
        let ages: Vec<_> = versions.iter().map(|v| (v.version, v.created)).collect();
        Ok(by_age.expired(&ages, &record.held(), self.now()))
    }
}
