//! What one point should do beside holding versions: it travels with the wish.
//!
//! A field that a point does not know is passed over, and one that a site does not send is what it
//! is by default: either may be the newer.

use super::{Order, Source};
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
    /// Other points to bring from, before the site is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Whether nothing new is brought. What is held is served and mended, and goes once it is not
    /// wished.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// What it is to do once, the oldest first; each until its end was told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
}

/// A token bucket: over any time, no more than the burst and what the rate gives in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may come at once after a quiet time.
    pub burst: u64,
}

impl Limit {
    /// The lowest rate, in bytes a second. At a lower one so little would come of each answer that
    /// servers would take their client for gone.
    pub const LEAST_RATE: u64 = 8_000;
    /// The least burst where none is stated.
    const LEAST_BURST: u64 = 64 << 10;

    /// A limit of so many bytes a second; the burst is what comes in a second if none is stated.
    pub fn of(rate: u64, burst: Option<u64>) -> Self {
        Self { rate, burst: burst.unwrap_or(rate.max(Self::LEAST_BURST)) }
    }
}
