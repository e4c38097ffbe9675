//! Terms of updates that were accepted: once, for all updates that have them.

use super::{DeploymentError, Deployments, each};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Table, Value};
use std::collections::BTreeMap;

const LICENCES: Table<String, Acceptance> = Table::new("licence-accepted");

/// That terms were accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
}
impl Value for Acceptance {}

/// Reads which terms were accepted.
pub(super) fn read(db: &Db) -> Result<BTreeMap<String, Acceptance>, DbError> {
    Ok(each(&LICENCES, db)?.into_iter().collect())
}

impl Deployments {
    /// Whether terms were accepted.
    pub fn is_accepted(&self, licence: &str) -> bool {
        self.state.read().licences.contains_key(licence)
    }

    /// Accepts terms, by their ids.
    ///
    /// # Errors
    /// If the database fails.
    pub fn accept(
        &self,
        licences: impl IntoIterator<Item = String>,
        by: &str,
        now: Timestamp,
    ) -> Result<(), DeploymentError> {
        let _writer = self.writer.lock();
        let new: BTreeMap<String, Acceptance> = {
            let state = self.state.read();
            let new = licences.into_iter().filter(|id| !state.licences.contains_key(id));
            new.map(|id| (id, Acceptance { by: by.to_owned(), at: now })).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        new.iter().for_each(|(id, accepted)| LICENCES.put(&mut batch, id, accepted));
        self.db.kv().write(batch)?;
        let mut state = self.state.write();
        state.licences.extend(new);
        state.revision += 1;
        Ok(())
    }
}
