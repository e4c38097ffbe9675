//! All groups of updates and all deployments of a site, kept on disk and in memory.
//!
//! What is changed is written before it counts. Who reads gets shared values that never change: a group or deployment
//! that is the same value as before is as it was, which is how others tell what to work out anew.

mod groups;
mod licences;
mod uses;

use crate::deployment::{Deployment, Unfit};
use crate::group::Group;
use crate::name::{CollectionName, DeploymentName, GroupName};
use crate::policy::DeploymentId;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use sync::name::UpdateId;
use uuid::Uuid;

/// How many deployments there may be.
pub const MAX_DEPLOYMENTS: usize = 5_000;

const DEPLOYMENTS: Table<u128, Deployment> = Table::new("deployment");

/// Why a group or a deployment was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// There is no such group.
    #[error("there is no update group {0:?}")]
    UnknownGroup(String),
    /// There is one already.
    #[error("there is an update group \"{0}\" already")]
    GroupExists(GroupName),
    /// It is deployed.
    #[error("update group \"{group}\" is deployed by {}: delete {} first", list(.by), pronoun(.by))]
    GroupDeployed {
        /// Which.
        group: GroupName,
        /// By which deployments.
        by: Vec<DeploymentName>,
    },
    /// It is over a limit.
    #[error("update group \"{group}\" {why}")]
    GroupTooLarge {
        /// Which.
        group: GroupName,
        /// What there is too much of.
        why: String,
    },
    /// There is no such deployment.
    #[error("there is no deployment {0:?}")]
    Unknown(String),
    /// There is one of that name.
    #[error("there is a deployment \"{0}\" already")]
    Exists(DeploymentName),
    /// It cannot be so.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// There are too many.
    #[error("there are {most} {what} already")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The database failed.
    #[error("deployments cannot be kept")]
    Store(#[from] CommitError),
}

impl From<DbError> for DeploymentError {
    fn from(error: DbError) -> Self {
        Self::Store(error.into())
    }
}

fn list(names: &[DeploymentName]) -> String {
    names.iter().map(DeploymentName::as_str).collect::<Vec<_>>().join(", ")
}

fn pronoun(names: &[DeploymentName]) -> &'static str {
    if names.len() == 1 { "it" } else { "them" }
}

/// The groups of updates and the deployments of a site.
pub struct Deployments {
    db: Db,
    /// Held by whoever changes them.
    writer: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<GroupName, Arc<Group>>,
    deployments: BTreeMap<DeploymentId, Arc<Deployment>>,
    /// Until when updates were deployed that are not any more.
    until: HashMap<UpdateId, Timestamp>,
    /// Terms that were accepted, by their ids.
    licences: BTreeMap<String, licences::Acceptance>,
    /// Counts all changes.
    revision: u64,
}

impl Deployments {
    /// Takes the groups and deployments in `db` into use.
    ///
    /// # Errors
    /// If the database fails, or what it holds cannot be.
    pub fn open(db: Db) -> Result<Self, DeploymentError> {
        let mut state =
            State { until: uses::read(&db)?, licences: licences::read(&db)?, ..State::default() };
        groups::read(&db, &mut state.groups)?;
        let all = each(&DEPLOYMENTS, &db)?.into_iter();
        let all = all.map(|(id, it)| (DeploymentId(Uuid::from_u128(id)), Arc::new(it)));
        state.deployments = all.collect();
        Ok(Self { db, writer: Mutex::new(()), state: RwLock::new(state) })
    }

    /// Counts changes: who asks again and is told the same number has missed nothing.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// All deployments.
    pub fn all(&self) -> BTreeMap<DeploymentId, Arc<Deployment>> {
        self.state.read().deployments.clone()
    }

    /// All deployments, with the group of each.
    pub fn with_groups(&self) -> Vec<(DeploymentId, Arc<Deployment>, Arc<Group>)> {
        let state = self.state.read();
        let group = |it: &Deployment| state.groups.get(&it.group).cloned();
        let all = state.deployments.iter();
        all.filter_map(|(id, it)| Some((*id, Arc::clone(it), group(it)?))).collect()
    }

    /// The deployment of that id or name.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, which: &str) -> Result<(DeploymentId, Arc<Deployment>), DeploymentError> {
        let state = self.state.read();
        let by_id = which.parse().ok().and_then(|id| state.deployments.get_key_value(&id));
        let named = || state.deployments.iter().find(|(_, it)| it.name.as_str() == which);
        let found = by_id.or_else(named).map(|(id, it)| (*id, Arc::clone(it)));
        found.ok_or_else(|| DeploymentError::Unknown(which.chars().take(100).collect()))
    }

    /// The deployments to a collection.
    pub fn to(&self, collection: &CollectionName) -> Vec<DeploymentName> {
        let state = self.state.read();
        let to = state.deployments.values().filter(|it| it.collection == *collection);
        to.map(|it| it.name.clone()).collect()
    }

    /// The deployments of a group.
    pub fn deploying(&self, group: &GroupName) -> Vec<DeploymentName> {
        self.state.read().deploying(group)
    }

    /// A name that no deployment has, which says what is deployed to whom.
    pub fn free_name(&self, group: &GroupName, collection: &CollectionName) -> DeploymentName {
        let state = self.state.read();
        let taken = |name: &str| state.deployments.values().any(|it| it.name.as_str() == name);
        let base = format!("{group}-{collection}");
        // Room for a number; names have one byte a character.
        let base = base.get(..DeploymentName::MAX - 6).unwrap_or(&base);
        let numbered = |n: usize| if n == 1 { base.to_owned() } else { format!("{base}-{n}") };
        let free = (1..=MAX_DEPLOYMENTS + 1).map(numbered).find(|name| !taken(name));
        let free = free.and_then(|name| name.parse().ok());
        free.expect("more names are tried than there are deployments, all of them plain")
    }

    /// Makes a deployment.
    ///
    /// # Errors
    /// If there is one of that name, there is no such group, it cannot be, or the database fails.
    pub fn create(&self, deployment: Deployment) -> Result<DeploymentId, DeploymentError> {
        let _writer = self.writer.lock();
        if self.state.read().deployments.len() >= MAX_DEPLOYMENTS {
            return Err(DeploymentError::TooMany { what: "deployments", most: MAX_DEPLOYMENTS });
        }
        let id = DeploymentId(Uuid::new_v4());
        self.save(id, deployment)?;
        Ok(id)
    }

    /// Changes a deployment; what it is after that.
    ///
    /// # Errors
    /// If there is none, it cannot be so, or the database fails; or `change` does.
    pub fn change<E: From<DeploymentError>>(
        &self,
        id: DeploymentId,
        change: impl FnOnce(&mut Deployment) -> Result<(), E>,
    ) -> Result<Arc<Deployment>, E> {
        let _writer = self.writer.lock();
        let (_, old) = self.find(&id.to_string())?;
        let mut deployment = (*old).clone();
        change(&mut deployment)?;
        Ok(self.save(id, deployment)?)
    }

    fn save(
        &self,
        id: DeploymentId,
        deployment: Deployment,
    ) -> Result<Arc<Deployment>, DeploymentError> {
        deployment.check()?;
        let mut batch = Batch::new();
        let ended = {
            let state = self.state.read();
            let same_name = |(other, it): (&DeploymentId, &Arc<Deployment>)| {
                *other != id && it.name == deployment.name
            };
            if state.deployments.iter().any(same_name) {
                return Err(DeploymentError::Exists(deployment.name));
            }
            if !state.groups.contains_key(&deployment.group) {
                return Err(DeploymentError::UnknownGroup(deployment.group.to_string()));
            }
            // Of the group that it had before.
            let old = state.deployments.get(&id).filter(|old| old.group != deployment.group);
            old.map_or_else(Vec::new, |old| {
                state.ending(|it, group| it != id && *group == old.group, &old.group)
            })
        };
        DEPLOYMENTS.put(&mut batch, &id.0.as_u128(), &deployment);
        let ended = uses::put(&mut batch, ended);
        self.db.kv().write(batch)?;
        let deployment = Arc::new(deployment);
        let mut state = self.state.write();
        state.deployments.insert(id, Arc::clone(&deployment));
        state.until.extend(ended);
        state.revision += 1;
        Ok(deployment)
    }

    /// Deletes a deployment; what it was.
    ///
    /// # Errors
    /// If there is none, or the database fails.
    pub fn delete(&self, id: DeploymentId) -> Result<Arc<Deployment>, DeploymentError> {
        let _writer = self.writer.lock();
        let (_, old) = self.find(&id.to_string())?;
        let ended = {
            let state = self.state.read();
            state.ending(|it, group| it != id && *group == old.group, &old.group)
        };
        let mut batch = Batch::new();
        DEPLOYMENTS.delete(&mut batch, &id.0.as_u128());
        let ended = uses::put(&mut batch, ended);
        self.db.kv().write(batch)?;
        let mut state = self.state.write();
        state.deployments.remove(&id);
        state.until.extend(ended);
        state.revision += 1;
        Ok(old)
    }
}

impl State {
    fn deploying(&self, group: &GroupName) -> Vec<DeploymentName> {
        let all = self.deployments.values().filter(|it| it.group == *group);
        all.map(|it| it.name.clone()).collect()
    }

    /// The updates of a group that nothing deploys any more if only `stays` of its deployments do.
    fn ending(
        &self,
        stays: impl Fn(DeploymentId, &GroupName) -> bool,
        group: &GroupName,
    ) -> Vec<UpdateId> {
        let is_deployed = self.deployments.iter().any(|(id, it)| stays(*id, &it.group));
        let Some(updates) = self.groups.get(group).filter(|_| !is_deployed) else {
            return Vec::new();
        };
        updates.ids().filter(|id| !self.is_deployed_beside(*id, group)).collect()
    }

    /// Whether an update is deployed as one of another group than this.
    fn is_deployed_beside(&self, update: UpdateId, group: &GroupName) -> bool {
        let others = self.deployments.values().filter(|it| it.group != *group);
        let mut groups = others.filter_map(|it| self.groups.get(&it.group));
        groups.any(|group| group.updates.contains_key(&update))
    }
}

/// All entries of a table.
fn each<K: sitedb::Key + Clone, V: sitedb::Value>(
    table: &Table<K, V>,
    db: &Db,
) -> Result<Vec<(K, V)>, DbError> {
    table.scan(db, Order::Ascending, None, usize::MAX)
}
