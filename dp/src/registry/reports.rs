//! What each point said last.
//!
//! A report may be long, one fact for each version. So a point tells the branches of its facts that
//! changed, and they are kept by branch; what of them is needed for an overview stands apart and in
//! memory, with the digests that tell whether both sides know the same. A report that a crash takes back
//! comes again, so none waits for the disk.
//!
//! When a state began is kept by the site's clock, and as long as the state is the same it stays, also
//! where the point does not remember it.

use super::points::reached_at;
use super::{Registry, RegistryError};
use crate::field::{Branch, Fact, FactState, FactsDigest, PointId, Report, Tree, branch_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Table, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The most facts of a report.
const MOST_FACTS: usize = 100_000;
/// The most outcomes of orders.
const MOST_OUTCOMES: usize = 1000;
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
    /// How many seconds its library keeps what is not used any more, if it said so.
    #[serde(default)]
    pub grace: Option<u64>,
    /// Versions that it holds whole.
    pub n_held: u64,
    /// Versions that it does not hold whole yet.
    pub n_missing: u64,
    /// Of those, the ones that failed.
    pub n_failed: u64,
    /// Bytes that it still has to bring, as far as known.
    pub bytes_left: u64,
    /// Tells what all of its facts are.
    #[serde(default)]
    pub facts: Option<FactsDigest>,
}
impl Value for Standing {}

/// All facts of a branch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts(Vec<Fact>);
impl Value for Facts {}

/// What is known of a branch without reading it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outline {
    digest: FactsDigest,
    n_held: u64,
    n_missing: u64,
    n_failed: u64,
    bytes_left: u64,
}

/// What is known of all branches of a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outlines(BTreeMap<Branch, Outline>);
impl Value for Outlines {}

impl Outline {
    fn of(digest: FactsDigest, facts: &[Fact]) -> Self {
        let is = |state: FactState| move |fact: &&Fact| fact.state == state;
        let missing = |fact: &&Fact| !matches!(fact.state, FactState::Held | FactState::Leaving);
        let left = facts.iter().filter(missing).map(|fact| fact.bytes_left);
        Self {
            digest,
            n_held: facts.iter().filter(is(FactState::Held)).count() as u64,
            n_missing: facts.iter().filter(missing).count() as u64,
            n_failed: facts.iter().filter(is(FactState::Failed)).count() as u64,
            bytes_left: left.fold(0, u64::saturating_add),
        }
    }
}

impl Outlines {
    fn tree(&self) -> Tree {
        Tree(self.0.iter().map(|(branch, outline)| (*branch, outline.digest)).collect())
    }

    fn sum(&self, of: impl Fn(&Outline) -> u64) -> u64 {
        self.0.values().map(of).fold(0, u64::saturating_add)
    }
}

pub(super) const STANDINGS: Table<String, Standing> = Table::new("point-standings");
const FACTS: Table<(String, Branch), Facts> = Table::new("point-facts");
pub(super) const OUTLINES: Table<String, Outlines> = Table::new("point-outlines");

/// All facts of a point's last report.
pub(super) fn read_facts(db: &Db, point: &PointId) -> Result<Vec<Fact>, DbError> {
    let branches = FACTS.below(db, &point.to_string())?;
    Ok(branches.into_iter().flat_map(|(_, facts)| facts.0).collect())
}

/// Has `batch` delete all that is kept of a point's reports.
pub(super) fn delete_reports(batch: &mut Batch, point: &PointId) {
    let key = point.to_string();
    STANDINGS.delete(batch, &key);
    OUTLINES.delete(batch, &key);
    (0..=Branch::MAX).for_each(|branch| FACTS.delete(batch, &(key.clone(), branch)));
}

impl Registry {
    /// Keeps what `point` reports, which came from that address. Where the point then knows other facts
    /// than are kept here, answers the tree of those: it is to tell the branches that differ.
    pub fn report(
        &self,
        point: &PointId,
        report: Report,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<Tree>, RegistryError> {
        if report.point != *point {
            return Err(RegistryError::BadReport("is of another point"));
        }
        if report.facts.len() > MOST_FACTS {
            return Err(RegistryError::BadReport("has more than 100000 facts"));
        }
        if report.orders.len() > MOST_OUTCOMES {
            return Err(RegistryError::BadReport("has the outcomes of more than 1000 orders"));
        }
        if [&report.program, &report.address, &report.revision].iter().any(|t| t.len() > MAX_TEXT) {
            return Err(RegistryError::BadReport("has a text of more than 300 bytes"));
        }
        // What it says, before anything of it is cut.
        let tree = Tree::of(&report.facts);
        let told: BTreeSet<Branch> = match &report.branches {
            None => (0..=Branch::MAX).collect(),
            Some(branches) => branches.iter().copied().collect(),
        };
        let mut facts: BTreeMap<Branch, Vec<Fact>> = BTreeMap::new();
        for fact in report.facts {
            let branch = branch_of(&fact.package);
            if !told.contains(&branch) {
                return Err(RegistryError::BadReport(
                    "has a fact of a branch that it does not tell",
                ));
            }
            facts.entry(branch).or_default().push(kept(fact, report.at, now));
        }
        // With the right to change, so that a point that is removed meanwhile leaves nothing.
        let _changing = self.change();
        let mut outlines = {
            let state = self.state.read();
            state.find(point.as_str())?;
            state.outlines.get(point).cloned().unwrap_or_default()
        };
        let mut batch = Batch::relaxed();
        let mut moved = false;
        let mut n_facts = 0;
        for branch in told {
            let (before, after) = (outlines.0.get(&branch), tree.0.get(&branch));
            if before.map(|outline| outline.digest) == after.copied() {
                continue;
            }
            let key = (point.to_string(), branch);
            let old = FACTS.get(&self.db, &key)?.map(|facts| facts.0).unwrap_or_default();
            let mut new = facts.remove(&branch).unwrap_or_default();
            keep_beginnings(&old, &mut new);
            let held = |facts: &[Fact]| -> BTreeSet<_> {
                let held = facts.iter().filter(|fact| fact.state == FactState::Held);
                held.map(|fact| (fact.package.clone(), fact.version)).collect()
            };
            moved |= held(&old) != held(&new);
            n_facts += new.len();
            match after {
                None => {
                    outlines.0.remove(&branch);
                    FACTS.delete(&mut batch, &key);
                }
                Some(digest) => {
                    outlines.0.insert(branch, Outline::of(*digest, &new));
                    FACTS.put(&mut batch, &key, &Facts(new));
                }
            }
        }
        let known = outlines.tree();
        let root = known.root();
        let standing = Standing {
            point: point.clone(),
            at: report.at,
            received: now,
            program: report.program,
            address: reached_at(&report.address, from),
            revision: report.revision,
            free_bytes: report.free_bytes,
            grace: report.grace,
            n_held: outlines.sum(|outline| outline.n_held),
            n_missing: outlines.sum(|outline| outline.n_missing),
            n_failed: outlines.sum(|outline| outline.n_failed),
            bytes_left: outlines.sum(|outline| outline.bytes_left),
            facts: Some(root),
        };
        tracing::debug!(%point, n_facts, "a report");
        let ordered = self.outcomes(point, report.orders, report.at, now, &mut batch);
        STANDINGS.put(&mut batch, &point.to_string(), &standing);
        OUTLINES.put(&mut batch, &point.to_string(), &outlines);
        self.db.kv().write(batch)?;
        if moved {
            // Read again when somebody asks.
            self.holdings.remove(point);
        }
        let has_ended = ordered.iter().any(super::Ordered::has_ended);
        let has_moved = {
            let mut state = self.state.write();
            let its = state.orders.entry(point.clone()).or_default();
            its.extend(ordered.into_iter().map(|ordered| (ordered.order.number, ordered)));
            let address = standing.address.clone();
            let before = state.standings.insert(point.clone(), standing);
            state.outlines.insert(point.clone(), outlines);
            before.is_none_or(|before| before.address != address) && state.is_source(point)
        };
        // Of all that it says, a wish of another point follows from where it is alone, and its own
        // from orders that have ended.
        if has_moved || has_ended {
            self.changes.send_modify(|n| *n += 1);
        }
        Ok(report.root.filter(|told| *told != root).map(|_| known))
    }

    /// The overview of a point's last report.
    pub fn standing(&self, point: &PointId) -> Option<Standing> {
        self.state.read().standings.get(point).cloned()
    }

    /// The facts of a point's last report. Reads the database, where they are others than the last
    /// time: pages of one list follow each other.
    pub(super) fn facts(&self, point: &PointId) -> Result<Arc<Vec<Fact>>, RegistryError> {
        let root = self.standing(point).and_then(|standing| standing.facts);
        if let Some((of, facts)) = &*self.read.lock()
            && *of == (point.clone(), root)
        {
            return Ok(facts.clone());
        }
        let facts = Arc::new(read_facts(&self.db, point)?);
        *self.read.lock() = Some(((point.clone(), root), facts.clone()));
        Ok(facts)
    }
}

/// The facts that were read last, and whose they are.
pub(super) type Read = Option<((PointId, Option<FactsDigest>), Arc<Vec<Fact>>)>;

/// A fact as it is kept: by the site's clock, which is at `now` when the point's is at `at`.
fn kept(mut fact: Fact, at: Timestamp, now: Timestamp) -> Fact {
    if let Some((cut, _)) = fact.cause.as_ref().and_then(|c| c.char_indices().nth(MAX_CAUSE)) {
        fact.cause.as_mut().expect("it was cut in").truncate(cut);
    }
    let off = now.duration_since(at);
    fact.since = fact.since.saturating_add(off).unwrap_or(fact.since).min(now);
    fact
}

/// A state that is as it was began when it did: a point that was started anew does not know.
fn keep_beginnings(old: &[Fact], new: &mut [Fact]) {
    let before: BTreeMap<_, _> = old.iter().map(|f| ((&f.package, f.version), f)).collect();
    for fact in new {
        if let Some(old) = before.get(&(&fact.package, fact.version))
            && old.state == fact.state
        {
            fact.since = fact.since.min(old.since);
        }
    }
}
