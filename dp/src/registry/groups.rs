//! Groups of points: what is assigned to a group is meant for each point that is in it.

use super::assign::{ASSIGNMENTS, Assignment, AssignmentKey, Target};
use super::{GroupName, MOST, Registry, RegistryError, State};
use crate::field::PointId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::collections::BTreeSet;

/// A group of points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What people call it.
    pub name: GroupName,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The points in it.
    pub members: BTreeSet<PointId>,
}
impl Value for Group {}

/// Groups by name.
pub(super) const GROUPS: Table<String, Group> = Table::new("point-groups");

impl State {
    pub(super) fn group(&self, which: &str) -> Result<&Group, RegistryError> {
        let found = which.parse().ok().and_then(|name: GroupName| self.groups.get(&name));
        found.ok_or_else(|| RegistryError::UnknownGroup(which.chars().take(100).collect()))
    }
}

impl Registry {
    /// All groups, by name.
    pub fn groups(&self) -> Vec<Group> {
        self.state.read().groups.values().cloned().collect()
    }

    /// The group called `which`.
    pub fn group(&self, which: &str) -> Result<Group, RegistryError> {
        self.state.read().group(which).cloned()
    }

    /// Makes a group without points.
    pub fn create_group(
        &self,
        name: GroupName,
        by: &str,
        now: Timestamp,
    ) -> Result<Group, RegistryError> {
        let changing = self.change();
        {
            let state = self.state.read();
            if state.groups.contains_key(&name) {
                return Err(RegistryError::GroupExists(name));
            }
            if state.groups.len() >= MOST {
                return Err(RegistryError::TooMany { what: "groups", most: MOST });
            }
        }
        let group = Group { name, created: now, created_by: by.into(), members: BTreeSet::new() };
        self.put_group(&changing, group)
    }

    /// Removes a group, and what is assigned to it; how many assignments that were.
    pub fn delete_group(&self, which: &str) -> Result<(Group, usize), RegistryError> {
        let changing = self.change();
        let (group, assignments) = {
            let state = self.state.read();
            let group = state.group(which)?.clone();
            let to = Target::Group(group.name.clone());
            let its = state.assignments.values().filter(|assignment| assignment.to == to);
            (group, its.map(Assignment::key).collect::<Vec<AssignmentKey>>())
        };
        let mut batch = Batch::new();
        GROUPS.delete(&mut batch, &group.name.to_string());
        assignments.iter().for_each(|key| ASSIGNMENTS.delete(&mut batch, key));
        self.apply(&changing, batch, |state| {
            state.groups.remove(&group.name);
            assignments.iter().for_each(|key| drop(state.assignments.remove(key)));
        })?;
        Ok((group, assignments.len()))
    }

    /// Puts a point into a group. It may be in it already.
    pub fn add_to_group(&self, group: &str, point: &str) -> Result<Group, RegistryError> {
        self.change_group(group, point, |members, id| members.insert(id))
    }

    /// Takes a point out of a group. It need not be in it.
    pub fn remove_from_group(&self, group: &str, point: &str) -> Result<Group, RegistryError> {
        self.change_group(group, point, |members, id| members.remove(&id))
    }

    fn change_group(
        &self,
        group: &str,
        point: &str,
        change: impl FnOnce(&mut BTreeSet<PointId>, PointId) -> bool,
    ) -> Result<Group, RegistryError> {
        let changing = self.change();
        let (mut group, id) = {
            let state = self.state.read();
            (state.group(group)?.clone(), state.find(point)?.id.clone())
        };
        if !change(&mut group.members, id) {
            return Ok(group);
        }
        self.put_group(&changing, group)
    }

    fn put_group(
        &self,
        changing: &parking_lot::MutexGuard<'_, ()>,
        group: Group,
    ) -> Result<Group, RegistryError> {
        let mut batch = Batch::new();
        GROUPS.put(&mut batch, &group.name.to_string(), &group);
        self.apply(changing, batch, |state| {
            state.groups.insert(group.name.clone(), group.clone());
        })?;
        Ok(group)
    }
}
