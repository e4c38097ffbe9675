//! What people set to say which clients belong to which distribution points.
//!
//! A [boundary](Boundary) is a range of addresses, in one or more [boundary groups](BoundaryGroup);
//! a group has points, neighbours that its clients may turn to after a while, and a say on what is
//! done when none of its points holds what is asked for. [`Rules`] are for all clients.

use super::AddressRange;
use crate::field::{PointId, Priority};
use crate::registry::BoundaryGroupName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A range of addresses, and which groups its clients belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// The addresses.
    pub range: AddressRange,
    /// At least one.
    pub groups: BTreeSet<BoundaryGroupName>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
}
impl Value for Boundary {}

/// A place: the clients of some boundaries, and the points that are near to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryGroup {
    /// What people call it.
    pub name: BoundaryGroupName,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The points that its clients turn to at once.
    #[serde(default)]
    pub points: BTreeSet<PointId>,
    /// Other groups whose points its clients may turn to, and when. Theirs do not count.
    #[serde(default)]
    pub neighbours: BTreeMap<BoundaryGroupName, Fallback>,
    /// What is done when none of its points holds what a client asks for.
    #[serde(default)]
    pub on_demand: Option<OnDemand>,
}
impl Value for BoundaryGroup {}

/// When clients may turn to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// So long after they began to look for a source.
    After(Duration),
    /// Not at all, also where it is the default group.
    Never,
}

/// That one of a group's points is told to hold what its clients ask for and none of them holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDemand {
    /// How soon it is brought.
    pub priority: Priority,
    /// For how many days it is kept after it was asked for last.
    pub days: u16,
}

/// What counts for the clients of all groups, and for those of none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The group whose points all may turn to.
    #[serde(default)]
    pub default: Option<BoundaryGroupName>,
    /// When clients of a group may turn to the default group. Those of none may at once.
    #[serde(default)]
    pub default_after: Duration,
    /// When clients of a group may turn to the site itself; those of none may at once. `Never` is for
    /// these too.
    pub site: Fallback,
}
impl Value for Rules {}

impl Default for Rules {
    fn default() -> Self {
        let at_once = Duration::ZERO;
        Self { default: None, default_after: at_once, site: Fallback::After(at_once) }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Areas {
    /// The boundaries.
    pub boundaries: BTreeMap<AddressRange, Boundary>,
    /// The groups. Each that a boundary or a neighbour names is there.
    pub groups: BTreeMap<BoundaryGroupName, BoundaryGroup>,
    /// The rules.
    pub rules: Rules,
}
