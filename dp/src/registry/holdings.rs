//! Which versions each point holds whole, by its last report, so that a client's question reads no
//! report: one of ten thousand versions is a megabyte.
//!
//! Of a version eight bytes of a hash are kept. Should two ever have the same, a client is sent to a
//! point that answers 404, and turns to the next.

use super::reports::read_facts;
use crate::field::{Fact, FactState, PointId};
use packager::PackageName;
use parking_lot::Mutex;
use sitedb::{Db, DbError};
use std::collections::HashMap;
use std::sync::Arc;

/// A version, as it is kept.
pub(super) type Mark = u64;

/// What is kept of a version.
pub(super) fn mark(package: &PackageName, version: u64) -> Mark {
    let mut hash = blake3::Hasher::new();
    hash.update(&version.to_le_bytes());
    hash.update(package.as_str().as_bytes());
    let mut mark = [0; 8];
    hash.finalize_xof().fill(&mut mark);
    u64::from_le_bytes(mark)
}

/// The versions of each point, sorted. A point that nobody asked about since what it holds last changed
/// is not there.
#[derive(Default)]
pub(super) struct Holdings(Mutex<HashMap<PointId, Arc<[Mark]>>>);

/// What of a report is kept.
fn marks(facts: &[Fact]) -> Arc<[Mark]> {
    // One on its way out may be gone before the client comes.
    let held = facts.iter().filter(|fact| fact.state == FactState::Held);
    let mut marks: Vec<Mark> = held.map(|fact| mark(&fact.package, fact.version)).collect();
    marks.sort_unstable();
    marks.into()
}

impl Holdings {
    /// Forgets what a point holds: it is gone, or holds something else now.
    pub fn remove(&self, point: &PointId) {
        self.0.lock().remove(point);
    }

    /// Whether a point holds a version; the first time for a point, reads its report in `db`.
    pub fn holds(&self, db: &Db, point: &PointId, version: Mark) -> Result<bool, DbError> {
        let its = {
            // Kept while the report is read, so that none that comes meanwhile is lost to an older.
            let mut known = self.0.lock();
            match known.get(point) {
                Some(its) => its.clone(),
                None => {
                    let its = marks(&read_facts(db, point)?);
                    known.insert(point.clone(), its.clone());
                    its
                }
            }
        };
        Ok(its.binary_search(&version).is_ok())
    }
}
