//! What one sync of one source brings, until it is committed or let go.

use super::{Catalogue, FeedPage};
use crate::adapter::{Extent, Said};
use crate::error::SyncError;
use serde::{Deserialize, Serialize};

/// A sync's staging: takes what its source says, and makes it the catalogue's in one step. Dropping it
/// discards all.
///
/// It blocks: call it off the async threads.
pub struct Intake {
    catalogue: Catalogue,
}

/// What a commit changes, or has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Updates that are new here.
    pub added: u64,
    /// Updates that the source says otherwise than before.
    pub revised: u64,
    /// Updates that it says as before.
    pub unchanged: u64,
    /// Updates that it says no more.
    pub gone: u64,
    /// Updates that the criteria leave out.
    pub outside: u64,
    /// The last place in the order of changes after the commit; before it, the one now.
    pub seq: u64,
}

impl Intake {
    /// Takes one thing that the source says. Products are to be said before the updates that are for them.
    /// An update that is said twice is taken in its higher revision, and of equal ones in the later.
    ///
    /// # Errors
    /// An update is too large, or the database failed; the intake can then only be dropped.
    pub fn take(&mut self, said: Said) -> Result<(), SyncError> {
        let _ = (said, &self.catalogue);
        todo!()
    }

    /// Takes a part of the parent site's feed ([`Catalogue::changes`] there).
    pub fn take_feed(&mut self, page: FeedPage) -> Result<(), SyncError> {
        let _ = page;
        todo!()
    }

    /// Finds what is gone, after the last thing was taken; what a commit would change.
    pub fn settle(&mut self, extent: Extent) -> Result<Changes, SyncError> {
        let _ = extent;
        todo!()
    }

    /// Makes it the catalogue's, durably, with `state` as what the adapter is given the next time.
    ///
    /// # Errors
    /// The database failed. It is then as before, or, if the commit itself was written, published by the
    /// next commit or the next start.
    pub fn commit(self, state: serde_json::Value) -> Result<Changes, SyncError> {
        let _ = state;
        todo!()
    }
}
