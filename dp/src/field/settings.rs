//! What one point should do beside holding versions: it travels with the wish.
//!
//! A field that a point does not know is passed over, and one that a site does not send is what it
//! is by default: either may be the newer.

use crate::pace::Week;
use serde::{Deserialize, Serialize};

/// What people set for one point. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How fast it may bring what it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// When it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Week>,
}

/// A token bucket: over any time, no more than the burst and what the rate gives in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may come at once after a quiet time.
    pub burst: u64,
}
