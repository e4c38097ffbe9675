//! Draining: a point that is maintained gets nothing new and no clients, and keeps what it should hold.

use super::{Point, Registry, RegistryError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Since when a point is drained, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Since when.
    pub since: Timestamp,
    /// Who said so.
    pub by: String,
}

impl Point {
    /// Whether people let it have clients.
    pub fn is_offered(&self) -> bool {
        self.drained.is_none()
    }
}

impl Registry {
    /// Drains the point called or numbered `which`: clients are not sent to it any more, and once it
    /// hears of it, it brings nothing new. What it holds it serves and mends, and lets go of once it is
    /// undistributed. Other points ask the site before it.
    ///
    /// One that is drained stays so, since it was first said.
    pub fn drain(&self, which: &str, by: &str, now: Timestamp) -> Result<Point, RegistryError> {
        self.set(which, |point| {
            point.drained.get_or_insert_with(|| Drained { since: now, by: by.to_owned() });
            Ok(())
        })
    }

    /// Ends it: what was distributed to the point meanwhile comes to it.
    pub fn resume(&self, which: &str) -> Result<Point, RegistryError> {
        self.set(which, |point| {
            point.drained = None;
            Ok(())
        })
    }
}
