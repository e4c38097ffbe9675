//! Assignments: which version of a package is meant for which point or group.
//!
//! A version is named as it is meant: by its number, or as `latest` or a channel, which follows
//! where they go. Several may be assigned to one place; taking one away leaves the others.

use super::on_demand::Demand;
use super::wishes::is_for;
use super::{GroupName, Registry, RegistryError};
use crate::field::{PointId, Priority};
use jiff::Timestamp;
use packager::PackageName;
use packager::name::Selector;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sitedb::{Batch, Table, Value};
use std::fmt;

/// The most assignments of a site.
const MOST_ASSIGNMENTS: usize = 200_000;

/// Whom something is assigned to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// One point.
    Point(PointId),
    /// Each point of a group.
    Group(GroupName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Point(id) => write!(f, "point/{id}"),
            Target::Group(name) => write!(f, "group/{name}"),
        }
    }
}

/// That a version of a package is meant for a point or group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The package.
    pub package: PackageName,
    /// Which of its versions.
    #[serde(serialize_with = "write_selector", deserialize_with = "read_selector")]
    pub version: Selector,
    /// Whom it is meant for.
    pub to: Target,
    /// How soon.
    pub priority: Priority,
    /// When it was assigned.
    pub created: Timestamp,
    /// Who assigned it.
    pub created_by: String,
    /// If no person did: for which clients it was.
    #[serde(default)]
    pub on_demand: Option<Demand>,
    /// If no person did: whether it is because something is deployed to machines near to it.
    #[serde(default)]
    pub staged: bool,
}
impl Value for Assignment {}

fn write_selector<S: Serializer>(selector: &Selector, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(selector)
}

fn read_selector<'de, D: Deserializer<'de>>(from: D) -> Result<Selector, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// Package, target and version, as text.
pub(super) type AssignmentKey = (String, (String, String));

impl Assignment {
    /// Whether a person assigned it.
    pub fn is_by_a_person(&self) -> bool {
        self.on_demand.is_none() && !self.staged
    }

    pub(super) fn key(&self) -> AssignmentKey {
        (self.package.to_string(), (self.to.to_string(), self.version.to_string()))
    }
}

/// Assignments by what they are of and to.
pub(super) const ASSIGNMENTS: Table<AssignmentKey, Assignment> = Table::new("assignments");

impl Registry {
    /// What is assigned to a group, or to a point itself and to its groups, or without `of` to all:
    /// by package, then target, then version.
    pub fn assignments(&self, of: Option<&Target>) -> Vec<Assignment> {
        let state = self.state.read();
        let fits = |assignment: &&Assignment| match of {
            None => true,
            Some(Target::Point(point)) => is_for(assignment, &state.groups, point),
            Some(group) => assignment.to == *group,
        };
        state.assignments.values().filter(fits).cloned().collect()
    }

    /// The point or group called so, as a target.
    pub fn target(
        &self,
        point: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Target>, RegistryError> {
        let state = self.state.read();
        Ok(match (point, group) {
            (Some(point), None) => Some(Target::Point(state.find(point)?.id.clone())),
            (None, Some(group)) => Some(Target::Group(state.group(group)?.name.clone())),
            _ => None,
        })
    }

    /// What people call a target.
    pub fn name_of(&self, target: &Target) -> String {
        match target {
            Target::Group(name) => name.to_string(),
            Target::Point(id) => {
                let state = self.state.read();
                state.points.get(id).map_or_else(|| id.to_string(), |point| point.name.to_string())
            }
        }
    }

    /// Assigns a version; what was assigned there in the same words gets the new priority.
    pub fn assign(&self, assignment: Assignment) -> Result<Assignment, RegistryError> {
        let changing = self.change();
        let key = assignment.key();
        let assignment = {
            let state = self.state.read();
            match &assignment.to {
                Target::Point(id) => drop(state.find(id.as_str())?),
                Target::Group(name) => drop(state.group(name.as_str())?),
            }
            match state.assignments.get(&key) {
                // What a person assigned is not a matter of demand any more, nor of staging.
                Some(old) if old.is_by_a_person() && !assignment.is_by_a_person() => {
                    return Ok(old.clone());
                }
                Some(old) if !old.is_by_a_person() => assignment,
                // Nothing is written, and nobody who waits is told.
                Some(old) if old.priority == assignment.priority => return Ok(old.clone()),
                Some(old) => Assignment { priority: assignment.priority, ..old.clone() },
                None if state.assignments.len() >= MOST_ASSIGNMENTS => {
                    let (what, most) = ("assignments", MOST_ASSIGNMENTS);
                    return Err(RegistryError::TooMany { what, most });
                }
                None => assignment,
            }
        };
        let mut batch = Batch::new();
        ASSIGNMENTS.put(&mut batch, &key, &assignment);
        self.apply(&changing, batch, |state| {
            state.assignments.insert(key, assignment.clone());
        })?;
        Ok(assignment)
    }

    /// What of `package` is assigned to `to` itself: one version, by the words that it was assigned in,
    /// or all; an error if that is nothing.
    pub fn assigned(
        &self,
        package: &PackageName,
        version: Option<&Selector>,
        to: &Target,
    ) -> Result<Vec<Assignment>, RegistryError> {
        let assigned: Vec<Assignment> = {
            let state = self.state.read();
            let fits = |a: &&Assignment| {
                a.package == *package && a.to == *to && version.is_none_or(|v| a.version == *v)
            };
            state.assignments.values().filter(fits).cloned().collect()
        };
        if assigned.is_empty() {
            let package = match version {
                Some(version) => format!("{package}@{version}"),
                None => package.to_string(),
            };
            return Err(RegistryError::NotAssigned { package, to: self.name_of(to) });
        }
        Ok(assigned)
    }

    /// Takes back what of `package` is [assigned](Registry::assigned) to `to`.
    pub fn unassign(
        &self,
        package: &PackageName,
        version: Option<&Selector>,
        to: &Target,
    ) -> Result<Vec<Assignment>, RegistryError> {
        let changing = self.change();
        let gone = self.assigned(package, version, to)?;
        let mut batch = Batch::new();
        gone.iter().for_each(|assignment| ASSIGNMENTS.delete(&mut batch, &assignment.key()));
        self.apply(&changing, batch, |state| {
            gone.iter().for_each(|a| drop(state.assignments.remove(&a.key())));
        })?;
        Ok(gone)
    }
}
