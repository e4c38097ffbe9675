//! What a site has of the packages that are assigned: what `latest` and channels mean, and which
//! versions there are.

use super::Assignment;
use packager::name::{ChannelName, Selector};
use packager::packages::Stamp;
use packager::sign::VersionInfo;
use packager::{PackageError, PackageName, Packages};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Some packages of a site, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock(pub BTreeMap<PackageName, Arc<Stocked>>);

/// One package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stocked {
    /// The newest version.
    pub latest: Option<u64>,
    /// Where channels point.
    pub channels: BTreeMap<ChannelName, u64>,
    /// The versions there are.
    pub versions: BTreeMap<u64, VersionInfo>,
    /// Tells whether it is so still.
    stamp: Option<Stamp>,
}

/// Why an assignment means no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The package is gone.
    #[error("the site has no package {0} any more")]
    Package(PackageName),
    /// The version is gone.
    #[error("the site has no version {1} of {0} any more")]
    Version(PackageName, u64),
    /// The channel is gone.
    #[error("{0} has no channel {1} any more")]
    Channel(PackageName, ChannelName),
    /// There is no version.
    #[error("{0} has no version")]
    Nothing(PackageName),
}

impl Stock {
    /// What the site has of `wanted`. A package that is not there is left out; one that cannot be
    /// read is an error, so that nobody takes it for deleted. Only what is not as it is `before` is
    /// read: of ten thousand packages mostly one changes.
    pub fn read(
        packages: &Packages,
        wanted: &BTreeSet<PackageName>,
        before: &Stock,
    ) -> Result<Self, PackageError> {
        let mut stock = BTreeMap::new();
        for name in wanted {
            // First: what changes after it is seen the next time.
            let stamp = packages.stamp(name)?;
            let known = before.0.get(name).filter(|known| stamp.is_some() && known.stamp == stamp);
            let read = || {
                let info = packages.show(name)?;
                let versions = packages.versions(name)?;
                Ok(Arc::new(Stocked {
                    latest: info.latest.map(|latest| latest.version),
                    channels: info.channels,
                    versions: versions.into_iter().map(|info| (info.version, info)).collect(),
                    stamp,
                }))
            };
            match known.map_or_else(read, |known| Ok(known.clone())) {
                Ok(stocked) => drop(stock.insert(name.clone(), stocked)),
                Err(PackageError::UnknownPackage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(stock))
    }

    /// The version that an assignment means now.
    pub fn resolve(&self, assignment: &Assignment) -> Result<&VersionInfo, Lack> {
        let package = &assignment.package;
        let stocked = self.0.get(package).ok_or_else(|| Lack::Package(package.clone()))?;
        let number = match &assignment.version {
            Selector::Number(number) => *number,
            Selector::Latest => stocked.latest.ok_or_else(|| Lack::Nothing(package.clone()))?,
            Selector::Channel(channel) => {
                let to = stocked.channels.get(channel).copied();
                to.ok_or_else(|| Lack::Channel(package.clone(), channel.clone()))?
            }
        };
        stocked.versions.get(&number).ok_or_else(|| Lack::Version(package.clone(), number))
    }
}
