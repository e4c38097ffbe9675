//! What a distribution point should hold, and what else it should do.

use super::Settings;
use packager::PackageName;
use packager::name::ChannelName;
use packager::sign::VersionInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that a point should hold, under which names it should answer for it, and what is set for it.
///
/// Versions and names are many, and points that should hold the same share them in memory; what is
/// set is each point's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Names this state of the wish; a point says which it has when it asks for a newer one.
    pub revision: String,
    /// Each version to be held, each once.
    #[serde(with = "shared")]
    pub versions: Arc<Vec<Wanted>>,
    /// What `latest` and the channels of each package mean.
    #[serde(with = "shared")]
    pub names: Arc<BTreeMap<PackageName, Names>>,
    /// What is set for the point.
    #[serde(default)]
    pub settings: Settings,
}

/// Writes what is shared as what it is.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<T: Serialize, S: Serializer>(it: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        it.as_ref().serialize(to)
    }

    pub fn deserialize<'a, T: Deserialize<'a>, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }
}

/// One version that a point should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The version, signed by the site.
    pub version: VersionInfo,
    /// How soon.
    pub priority: Priority,
}

/// Which of a package's versions its names mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The newest version among those that are wished here.
    pub latest: Option<u64>,
    /// The channels that mean a version that is wished here.
    pub channels: BTreeMap<ChannelName, u64>,
}

/// How soon something is brought: all of a higher priority before any of a lower.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Before all else.
    High,
}
