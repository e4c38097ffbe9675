//! Groups of updates: made, filled, emptied.

use super::uses;
use super::{DeploymentError, Deployments, each};
use crate::group::{Group, GroupRecord, MAX_COMMENT, MAX_UPDATES, Regroup, Regrouped};
use crate::name::GroupName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Table, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::name::UpdateId;

/// How many groups there may be.
const MAX_GROUPS: usize = 10_000;

const GROUPS: Table<String, GroupRecord> = Table::new("update-group");
const MEMBERS: Table<(String, UpdateId), Member> = Table::new("update-group-member");

/// That an update is in a group.
#[derive(Serialize, Deserialize)]
struct Member {
    since: Timestamp,
}
impl Value for Member {}

/// Reads all groups of a database.
pub(super) fn read(db: &Db, groups: &mut BTreeMap<GroupName, Arc<Group>>) -> Result<(), DbError> {
    for (name, record) in each(&GROUPS, db)? {
        let members = MEMBERS.below(db, &name)?.into_iter();
        let updates = members.map(|((_, id), member)| (id, member.since)).collect();
        let name = name.parse().map_err(|error: crate::name::BadName| DbError::Damaged {
            table: "update-group",
            detail: error.to_string(),
        })?;
        groups.insert(name, Arc::new(Group { record, updates }));
    }
    Ok(())
}

impl Deployments {
    /// All groups, by name.
    pub fn groups(&self) -> BTreeMap<GroupName, Arc<Group>> {
        self.state.read().groups.clone()
    }

    /// A group.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn group(&self, name: &GroupName) -> Result<Arc<Group>, DeploymentError> {
        let found = self.state.read().groups.get(name).cloned();
        found.ok_or_else(|| DeploymentError::UnknownGroup(name.to_string()))
    }

    /// Makes a group without updates.
    ///
    /// # Errors
    /// If there is one of that name, or the database fails.
    pub fn create_group(
        &self,
        name: &GroupName,
        comment: String,
        now: Timestamp,
    ) -> Result<Arc<Group>, DeploymentError> {
        let _writer = self.writer.lock();
        let n_groups = {
            let state = self.state.read();
            if state.groups.contains_key(name) {
                return Err(DeploymentError::GroupExists(name.clone()));
            }
            state.groups.len()
        };
        if n_groups >= MAX_GROUPS {
            return Err(DeploymentError::TooMany { what: "update groups", most: MAX_GROUPS });
        }
        let record = GroupRecord { comment, created: now };
        self.save_group(name, record, BTreeMap::new())
    }

    /// Says what a group is for.
    ///
    /// # Errors
    /// If there is none of that name, or the database fails.
    pub fn set_group_comment(
        &self,
        name: &GroupName,
        comment: String,
    ) -> Result<Arc<Group>, DeploymentError> {
        let _writer = self.writer.lock();
        let old = self.group(name)?;
        let record = GroupRecord { comment, ..old.record.clone() };
        self.save_group(name, record, old.updates.clone())
    }

    fn save_group(
        &self,
        name: &GroupName,
        record: GroupRecord,
        updates: BTreeMap<UpdateId, Timestamp>,
    ) -> Result<Arc<Group>, DeploymentError> {
        if record.comment.len() > MAX_COMMENT {
            let why = format!("has a comment of more than {MAX_COMMENT} bytes");
            return Err(DeploymentError::GroupTooLarge { group: name.clone(), why });
        }
        GROUPS.set(&self.db, &name.to_string(), &record)?;
        let group = Arc::new(Group { record, updates });
        let mut state = self.state.write();
        state.groups.insert(name.clone(), Arc::clone(&group));
        state.revision += 1;
        Ok(group)
    }

    /// Puts updates into a group, and out of it, all at once. What comes into a group that is deployed is deployed.
    ///
    /// # Errors
    /// If there is no such group, it would have too many, or the database fails.
    pub fn regroup(
        &self,
        name: &GroupName,
        change: Regroup,
        now: Timestamp,
    ) -> Result<Regrouped, DeploymentError> {
        let _writer = self.writer.lock();
        let old = self.group(name)?;
        let done = change.of(&old.updates);
        if done == Regrouped::default() {
            return Ok(done);
        }
        let mut updates = old.updates.clone();
        let (mut batch, key) = (Batch::new(), name.to_string());
        for id in &done.removed {
            updates.remove(id);
            MEMBERS.delete(&mut batch, &(key.clone(), *id));
        }
        for id in &done.added {
            updates.insert(*id, now);
            MEMBERS.put(&mut batch, &(key.clone(), *id), &Member { since: now });
        }
        if updates.len() > MAX_UPDATES {
            let why = format!("would have {} updates, and may have {MAX_UPDATES}", updates.len());
            return Err(DeploymentError::GroupTooLarge { group: name.clone(), why });
        }
        let ended: Vec<UpdateId> = {
            let state = self.state.read();
            let is_deployed = !state.deploying(name).is_empty();
            let gone = done.removed.iter().filter(|_| is_deployed).copied();
            gone.filter(|id| !state.is_deployed_beside(*id, name)).collect()
        };
        let ended = uses::put(&mut batch, ended);
        self.db.kv().write(batch)?;
        let group = Group { record: old.record.clone(), updates };
        let mut state = self.state.write();
        state.groups.insert(name.clone(), Arc::new(group));
        state.until.extend(ended);
        state.revision += 1;
        Ok(done)
    }

    /// Deletes a group; its updates stay in the catalogue.
    ///
    /// # Errors
    /// If there is none of that name, it is deployed, or the database fails.
    pub fn delete_group(&self, name: &GroupName) -> Result<Arc<Group>, DeploymentError> {
        let _writer = self.writer.lock();
        let old = self.group(name)?;
        let by = self.deploying(name);
        if !by.is_empty() {
            return Err(DeploymentError::GroupDeployed { group: name.clone(), by });
        }
        let (mut batch, key) = (Batch::new(), name.to_string());
        GROUPS.delete(&mut batch, &key);
        for id in old.ids() {
            MEMBERS.delete(&mut batch, &(key.clone(), id));
        }
        self.db.kv().write(batch)?;
        let mut state = self.state.write();
        state.groups.remove(name);
        state.revision += 1;
        Ok(old)
    }
}
