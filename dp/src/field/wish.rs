//! What a distribution point should hold.

use packager::PackageName;
use packager::name::ChannelName;
use packager::sign::VersionInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that a point should hold, and under which names it should answer for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Names this state of the wish; a point says which it has when it asks for a newer one.
    pub revision: String,
    /// Each version to be held, each once.
    pub versions: Vec<Wanted>,
    /// What `latest` and the channels of each package mean.
    pub names: BTreeMap<PackageName, Names>,
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
