//! Whether updates are deployed, and until when they were: the catalogue lets go of none that is.

use super::{Deployments, each};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Table, Value};
use std::collections::HashMap;
use sync::lifecycle::Use;
use sync::name::UpdateId;

const UNTIL: Table<UpdateId, Until> = Table::new("deployed-until");

/// When an update was deployed last.
#[derive(Serialize, Deserialize)]
struct Until {
    at: Timestamp,
}
impl Value for Until {}

/// Reads until when updates were deployed.
pub(super) fn read(db: &Db) -> Result<HashMap<UpdateId, Timestamp>, DbError> {
    Ok(each(&UNTIL, db)?.into_iter().map(|(id, until)| (id, until.at)).collect())
}

/// Writes that updates are deployed no more from now on.
pub(super) fn put(
    batch: &mut Batch,
    ended: Vec<UpdateId>,
) -> impl Iterator<Item = (UpdateId, Timestamp)> + use<> {
    let at = Timestamp::now();
    ended.iter().for_each(|id| UNTIL.put(batch, id, &Until { at }));
    ended.into_iter().map(move |id| (id, at))
}

impl sync::catalogue::Deployments for Deployments {
    fn of(&self, update: UpdateId) -> Use {
        let state = self.state.read();
        let groups = state.deployments.values().filter_map(|it| state.groups.get(&it.group));
        let mut having = groups.filter(|group| group.updates.contains_key(&update));
        match (having.next(), state.until.get(&update)) {
            (Some(_), _) => Use::Deployed,
            (None, Some(until)) => Use::Until(*until),
            (None, None) => Use::Never,
        }
    }
}
