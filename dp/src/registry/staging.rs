//! What is brought to points because something is deployed to machines near to them.
//!
//! Which package on which point is decided elsewhere, and handed in as a whole; what is assigned so is an
//! [`Assignment`] like any other, with a mark. It is seen where others are seen, and goes when it is not asked for any
//! more. What a person assigned in the same words is the person's: it is neither taken over nor taken back.

use super::assign::{ASSIGNMENTS, Assignment, AssignmentKey, Target};
use super::{Registry, RegistryError};
use crate::field::{PointId, Priority};
use jiff::Timestamp;
use packager::PackageName;
use packager::name::Selector;
use sitedb::Batch;
use std::collections::{BTreeMap, BTreeSet};

/// The most that is staged, so that room is left for the assignments of people.
const MOST_STAGED: usize = 150_000;
/// Who assigns what is staged.
const BY: &str = "staging";

/// What changed of what is staged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restaged {
    /// What was assigned.
    pub assigned: Vec<(PackageName, PointId)>,
    /// What was taken back.
    pub released: Vec<(PackageName, PointId)>,
}

impl Registry {
    /// What is staged: packages, and on which points.
    pub fn staged(&self) -> BTreeSet<(PackageName, PointId)> {
        let state = self.state.read();
        let staged = state.assignments.values().filter(|it| it.staged);
        staged.filter_map(place_of).collect()
    }

    /// Has these packages staged on these points, and no others: all in one write. A point that is gone is passed over.
    ///
    /// # Errors
    /// There would be too many, or the database fails.
    pub fn stage(
        &self,
        wanted: &BTreeSet<(PackageName, PointId)>,
        now: Timestamp,
    ) -> Result<Restaged, RegistryError> {
        if wanted.len() > MOST_STAGED {
            let (what, most) = ("assignments of staging wanted", MOST_STAGED);
            return Err(RegistryError::TooMany { what, most });
        }
        let changing = self.change();
        let (mut batch, mut done) = (Batch::new(), Restaged::default());
        let mut come: BTreeMap<AssignmentKey, Assignment> = BTreeMap::new();
        let mut gone: Vec<AssignmentKey> = Vec::new();
        {
            let state = self.state.read();
            for (key, it) in state.assignments.iter().filter(|(_, it)| it.staged) {
                if let Some(place) = place_of(it).filter(|place| !wanted.contains(place)) {
                    ASSIGNMENTS.delete(&mut batch, key);
                    gone.push(key.clone());
                    done.released.push(place);
                }
            }
            for (package, point) in wanted {
                let assignment = Assignment {
                    package: package.clone(),
                    version: Selector::Latest,
                    to: Target::Point(point.clone()),
                    priority: Priority::Medium,
                    created: now,
                    created_by: BY.into(),
                    on_demand: None,
                    staged: true,
                };
                let key = assignment.key();
                // What is there is as wanted, or a person's.
                if state.assignments.contains_key(&key) || !state.points.contains_key(point) {
                    continue;
                }
                ASSIGNMENTS.put(&mut batch, &key, &assignment);
                done.assigned.push((package.clone(), point.clone()));
                come.insert(key, assignment);
            }
        }
        if batch.is_empty() {
            return Ok(done);
        }
        self.apply(&changing, batch, |state| {
            gone.iter().for_each(|key| drop(state.assignments.remove(key)));
            state.assignments.extend(come);
        })?;
        Ok(done)
    }
}

fn place_of(assignment: &Assignment) -> Option<(PackageName, PointId)> {
    match &assignment.to {
        Target::Point(point) => Some((assignment.package.clone(), point.clone())),
        Target::Group(_) => None,
    }
}
