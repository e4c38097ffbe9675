//! What each point said last.
//!
//! A report may be long, one fact for each version; what of it is needed for an overview stands
//! apart and in memory, and the facts are written only when they changed. A report that a crash
//! takes back comes again, so none waits for the disk.

use super::holdings::marks;
use super::points::reached_at;
use super::{Registry, RegistryError};
use crate::field::{Fact, FactState, PointId, Report};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::net::IpAddr;

/// The most facts of a report.
const MOST_FACTS: usize = 100_000;
/// The longest text of a report, in bytes.
const MAX_TEXT: usize = 300;
/// The longest cause, in characters.
const MAX_CAUSE: usize = 500;

/// The overview of a point's last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whose it is.
    pub point: PointId,
    /// When the point made it, by its own clock.
    pub at: Timestamp,
    /// When it came.
    pub received: Timestamp,
    /// The version of the point's program.
    pub program: String,
    /// Where it is reached.
    pub address: String,
    /// The wish that it is about.
    pub revision: String,
    /// Free bytes of its volumes.
    pub free_bytes: u64,
    /// Versions that it holds whole.
    pub n_held: u64,
    /// Versions that it does not hold whole yet.
    pub n_missing: u64,
    /// Of those, the ones that failed.
    pub n_failed: u64,
    /// Bytes that it still has to bring, as far as known.
    pub bytes_left: u64,
    /// Tells the facts of two reports apart.
    facts: [u8; 32],
}
impl Value for Standing {}

/// All facts of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts(pub Vec<Fact>);
impl Value for Facts {}

pub(super) const STANDINGS: Table<String, Standing> = Table::new("point-standings");
pub(super) const FACTS: Table<String, Facts> = Table::new("point-facts");

impl Registry {
    /// Keeps what `point` reports, which came from that address.
    pub fn report(
        &self,
        point: &PointId,
        mut report: Report,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        if report.point != *point {
            return Err(RegistryError::BadReport("is of another point"));
        }
        if report.facts.len() > MOST_FACTS {
            return Err(RegistryError::BadReport("has more than 100000 facts"));
        }
        if [&report.program, &report.address, &report.revision].iter().any(|t| t.len() > MAX_TEXT) {
            return Err(RegistryError::BadReport("has a text of more than 300 bytes"));
        }
        for fact in &mut report.facts {
            if let Some((cut, _)) =
                fact.cause.as_ref().and_then(|c| c.char_indices().nth(MAX_CAUSE))
            {
                fact.cause.as_mut().expect("it was cut in").truncate(cut);
            }
        }
        let mut hash = blake3::Hasher::new();
        // Facts have text keys and whole numbers, and a hash takes all.
        let hashed = serde_json::to_writer(&mut hash, &report.facts);
        debug_assert!(hashed.is_ok());
        let is = |state: FactState| move |fact: &&Fact| fact.state == state;
        let missing = |fact: &&Fact| !matches!(fact.state, FactState::Held | FactState::Leaving);
        let left = report.facts.iter().filter(missing).map(|fact| fact.bytes_left);
        let standing = Standing {
            point: point.clone(),
            at: report.at,
            received: now,
            program: report.program,
            address: reached_at(&report.address, from),
            revision: report.revision,
            free_bytes: report.free_bytes,
            n_held: report.facts.iter().filter(is(FactState::Held)).count() as u64,
            n_missing: report.facts.iter().filter(missing).count() as u64,
            n_failed: report.facts.iter().filter(is(FactState::Failed)).count() as u64,
            bytes_left: left.fold(0, u64::saturating_add),
            facts: hash.finalize().into(),
        };
        // With the right to change, so that a point that is removed meanwhile leaves nothing.
        let _changing = self.change();
        let before = {
            let state = self.state.read();
            state.find(point.as_str())?;
            state.standings.get(point).map(|standing| standing.facts)
        };
        let mut batch = Batch::relaxed();
        STANDINGS.put(&mut batch, &point.to_string(), &standing);
        let marks = (before != Some(standing.facts)).then(|| marks(&report.facts));
        if marks.is_some() {
            FACTS.put(&mut batch, &point.to_string(), &Facts(report.facts));
        }
        self.db.kv().write(batch)?;
        if let Some(marks) = marks {
            self.holdings.put(point, marks);
        }
        // No wish follows from it, so nobody is told.
        self.state.write().standings.insert(point.clone(), standing);
        Ok(())
    }

    /// The overview of a point's last report.
    pub fn standing(&self, point: &PointId) -> Option<Standing> {
        self.state.read().standings.get(point).cloned()
    }

    /// The facts of a point's last report. Reads the database.
    pub(super) fn facts(&self, point: &PointId) -> Result<Vec<Fact>, RegistryError> {
        Ok(FACTS.get(&self.db, &point.to_string())?.map(|facts| facts.0).unwrap_or_default())
    }
}
