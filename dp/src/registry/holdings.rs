//! Which versions each point holds whole, by its last report, so that a client's question reads no
//! report: one of ten thousand versions is a megabyte.
//!
//! Of a version eight bytes of a hash are kept. Should two ever have the same, a client is sent to a
//! point that answers 404, and turns to the next.

use super::Registry;
use super::reports::read_facts;
use crate::field::{Fact, FactState, PointId};
use packager::PackageName;
use parking_lot::Mutex;
use sitedb::{Db, DbError};
use std::collections::{BTreeSet, HashMap};
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
        Ok(self.of(db, point)?.binary_search(&version).is_ok())
    }

    /// What a point holds.
    fn of(&self, db: &Db, point: &PointId) -> Result<Arc<[Mark]>, DbError> {
        // Kept while the report is read, so that none that comes meanwhile is lost to an older.
        let mut known = self.0.lock();
        if let Some(its) = known.get(point) {
            return Ok(its.clone());
        }
        let its = marks(&read_facts(db, point)?);
        known.insert(point.clone(), its.clone());
        Ok(its)
    }
}

/// Versions that points are asked for, each by its place in a list.
#[derive(Debug)]
pub struct Sought(HashMap<Mark, u32>);

impl Sought {
    /// These; where there is none, its place means nothing.
    pub fn new<'a>(versions: impl IntoIterator<Item = Option<(&'a PackageName, u64)>>) -> Self {
        let placed = (0..).zip(versions);
        Self(
            placed
                .filter_map(|(at, it)| it.map(|(name, number)| (mark(name, number), at)))
                .collect(),
        )
    }
}

impl Registry {
    /// Which of these versions a point says to hold whole.
    pub fn holding(&self, point: &PointId, sought: &Sought) -> Result<BTreeSet<u32>, DbError> {
        let its = self.holdings.of(&self.db, point)?;
        Ok(its.iter().filter_map(|mark| sought.0.get(mark).copied()).collect())
    }
}
