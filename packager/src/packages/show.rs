//! What there is: packages, versions, trees, differences.

use super::Packages;
use crate::diff::{Change, DiffCounts, differences};
use crate::error::PackageError;
use crate::name::{ChannelName, PackageName, Selector};
use crate::path::Shown;
use crate::refs::{self, PackageRecord, Source, Stored};
use crate::retention::Retention;
use crate::sign::VersionInfo;
use crate::tree::{Depth, Page, TreePage, page};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What is known of a package.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PackageInfo {
    /// Its name.
    pub name: PackageName,
    /// Where its files come from.
    pub source: Source,
    /// Which versions are kept.
    pub retention: Retention,
    /// Its channels, with the versions they point to.
    pub channels: BTreeMap<ChannelName, u64>,
    /// Its newest version.
    pub latest: Option<VersionInfo>,
    /// How many versions there are.
    pub n_versions: u64,
    /// When it was made.
    pub created: Timestamp,
}

/// Tells whether a package is as it was: it is another one after each change of the package or its
/// versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Timestamp, u64);

/// How two versions differ, and part of the list of paths.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DiffPage {
    /// The earlier version.
    pub from: u64,
    /// The later version.
    pub to: u64,
    /// How many paths differ, in the whole.
    pub counts: DiffCounts,
    /// The paths of this part, in their order.
    pub changes: Vec<Change>,
    /// What to ask for to get the next part; nothing if this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<crate::path::TreePath>,
}

impl Packages {
    /// All packages, by name.
    pub fn list(&self) -> Result<Vec<PackageInfo>, PackageError> {
        let mut packages = Vec::new();
        for (key, stored) in refs::list::<PackageRecord>(self.library(), refs::PACKAGES)? {
            if let Some(Ok(name)) = key.strip_prefix(refs::PACKAGES).map(str::parse) {
                packages.push(self.package_info(name, stored.record)?);
            }
        }
        Ok(packages)
    }

    /// One package.
    pub fn show(&self, name: &PackageName) -> Result<PackageInfo, PackageError> {
        self.package_info(name.clone(), self.record(name)?.record)
    }

    fn package_info(
        &self,
        name: PackageName,
        record: PackageRecord,
    ) -> Result<PackageInfo, PackageError> {
        let n_versions = self.library().list_refs(&refs::versions_key(&name))?.len() as u64;
        let latest = match record.latest {
            Some(latest) => refs::get_version(self.library(), &name, latest)?.map(|v| v.record),
            None => None,
        };
        let PackageRecord { source, retention, channels, created, .. } = record;
        Ok(PackageInfo { name, source, retention, channels, latest, n_versions, created })
    }

    /// The stamp of a package; nothing if there is none of that name. Costs one look-up.
    pub fn stamp(&self, name: &PackageName) -> Result<Option<Stamp>, PackageError> {
        let found = refs::get_package(self.library(), name)?;
        Ok(found.map(|Stored { record, .. }| Stamp(record.created, record.revision())))
    }

    /// The stamps of all packages, by name.
    pub fn stamps(&self) -> Result<BTreeMap<PackageName, Stamp>, PackageError> {
        let mut all = BTreeMap::new();
        for (key, stored) in refs::list::<PackageRecord>(self.library(), refs::PACKAGES)? {
            if let Some(Ok(name)) = key.strip_prefix(refs::PACKAGES).map(str::parse) {
                let Stored { record, .. } = stored;
                all.insert(name, Stamp(record.created, record.revision()));
            }
        }
        Ok(all)
    }

    /// All versions of a package, oldest first.
    pub fn versions(&self, name: &PackageName) -> Result<Vec<VersionInfo>, PackageError> {
        self.record(name)?;
        Ok(refs::list_versions(self.library(), name)?)
    }

    /// Part of what lies in `folder` (no bytes for the top folder) of a version.
    pub fn tree(
        &self,
        name: &PackageName,
        version: &Selector,
        folder: &[u8],
        depth: Depth,
        part: &Page,
    ) -> Result<TreePage, PackageError> {
        let info = self.resolve(name, version)?;
        let manifest = self.manifest(info.manifest)?;
        let found = page(&manifest, folder, depth, part);
        let (entries, next) = found.ok_or_else(|| PackageError::UnknownFolder {
            package: name.clone(),
            version: info.version,
            path: Shown(folder).to_string(),
        })?;
        Ok(TreePage { version: info.version, entries, next })
    }

    /// How two versions differ. `part` is of the list of paths; the counts are of the whole.
    pub fn diff(
        &self,
        name: &PackageName,
        from: &Selector,
        to: &Selector,
        part: &Page,
    ) -> Result<DiffPage, PackageError> {
        let (from, to) = (self.resolve(name, from)?, self.resolve(name, to)?);
        let (before, after) = (self.manifest(from.manifest)?, self.manifest(to.manifest)?);
        let mut page = DiffPage {
            from: from.version,
            to: to.version,
            counts: DiffCounts::default(),
            changes: Vec::new(),
            next: None,
        };
        for difference in differences(&before, &after) {
            page.counts.count(difference.how());
            let wanted = part.after.as_ref().is_none_or(|p| p.as_bytes() < difference.path());
            if !wanted {
            } else if page.changes.len() < part.limit {
                page.changes.push(difference.into());
            } else if page.next.is_none() {
                page.next = page.changes.last().map(|last| last.path.clone());
            }
        }
        Ok(page)
    }
}
