//! What is set for clients, as the site keeps it: for all of them, and for single ones.
//!
//! All of it is in memory as it is in the table, so that a policy costs no read. How settings are laid on each
//! other is [`client::settings::resolve`].

use crate::problem::{Kind, Problem};
use crate::site::Site;
use client::settings::{Changes, Rank, Settings, resolve};
use compliance::message::ClientId;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, Order, Table, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// For how many single clients something may be set. For more there are collections.
const MOST: usize = 100_000;
/// The key of what is set for all clients; that of a client is its id.
const ALL: &str = "all";

/// A row of the table.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Row(Changes);
impl Value for Row {}

const ROWS: Table<String, Row> = Table::new("client-settings-set");

/// For whom something is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum For {
    /// All clients of the site.
    All,
    /// This one.
    Client(ClientId),
}

/// What is set.
pub struct ClientSettings {
    db: Db,
    /// Held while a row is written.
    changing: Mutex<()>,
    set: RwLock<HashMap<For, Arc<Changes>>>,
}

impl ClientSettings {
    pub(super) fn open(db: &Db) -> Result<Self, sitedb::DbError> {
        let rows = ROWS.scan(db, Order::Ascending, None, usize::MAX)?;
        let whom = |key: &str| match key {
            ALL => Some(For::All),
            id => id.parse().ok().map(For::Client),
        };
        let set = rows.into_iter().filter_map(|(key, Row(it))| Some((whom(&key)?, Arc::new(it))));
        Ok(Self { db: db.clone(), changing: Mutex::default(), set: RwLock::new(set.collect()) })
    }

    /// What is set for them.
    pub fn get(&self, whom: For) -> Arc<Changes> {
        self.set.read().get(&whom).cloned().unwrap_or_default()
    }

    /// Sets exactly this for them; nothing of it takes all away.
    ///
    /// # Errors
    /// If a setting is beyond its limits, too many clients have settings of their own, or the database fails.
    pub fn set(&self, whom: For, changes: Changes) -> Result<Arc<Changes>, Problem> {
        let changes = changes
            .checked()
            .map_err(|error| Problem::field(error.limit.name, error.to_string()))?;
        let _changing = self.changing.lock();
        let key = match whom {
            For::All => ALL.to_owned(),
            For::Client(id) => id.to_string(),
        };
        let mut batch = Batch::new();
        let changes = Arc::new(changes);
        if changes.is_empty() {
            ROWS.delete(&mut batch, &key);
            self.db.kv().write(batch)?;
            self.set.write().remove(&whom);
            return Ok(changes);
        }
        let is_one_more = {
            let set = self.set.read();
            set.len() > MOST && !set.contains_key(&whom)
        };
        if is_one_more {
            let detail = format!("{MOST} clients have settings of their own already: clear some");
            return Err(Problem::new(Kind::Conflict, detail));
        }
        ROWS.put(&mut batch, &key, &Row((*changes).clone()));
        self.db.kv().write(batch)?;
        self.set.write().insert(whom, changes.clone());
        Ok(changes)
    }

    /// What holds for a client where `all` is set for all; without one, for those that have nothing of their own.
    pub fn effective(&self, all: &Changes, client: Option<ClientId>) -> Settings {
        let own = client.map(|id| self.get(For::Client(id)));
        let all = [(Rank::Site, all)];
        resolve(all.into_iter().chain(own.as_deref().map(|own| (Rank::Client, own))))
    }
}

/// What is set for all clients of a site.
pub struct ForAll {
    /// It.
    pub set: Arc<Changes>,
    /// The site at the top of the tree, where it is set, if that is another one.
    pub top: Option<String>,
}

/// What is set for all clients: here, or at the top of the tree.
///
/// # Errors
/// If it came from the top and is not understood, or the database fails.
pub fn for_all(site: &Site) -> Result<ForAll, Problem> {
    let above = site.updates()?.sources().site()?;
    let Some(top) = above.top else {
        return Ok(ForAll { set: site.fleet()?.settings.get(For::All), top: None });
    };
    let set = above.clients.map_or(Ok(Changes::default()), |set| {
        serde_json::from_value(set).map_err(|_| {
            // To go on without them could turn on what was turned off.
            let detail = format!("what {top} sets for clients is not understood: update this site");
            Problem::new(Kind::Unavailable, detail)
        })
    })?;
    Ok(ForAll { set: Arc::new(set), top: Some(top) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_is_set_is_there_after_a_restart_and_nothing_takes_it_away_again() {
        let db = Db::in_memory();
        let one = ClientId(Uuid::from_u128(1));
        let settings = ClientSettings::open(&db).unwrap();
        let polls = |seconds| Changes { poll_every: Some(seconds), ..Changes::default() };
        settings.set(For::All, polls(600)).unwrap();
        settings.set(For::Client(one), polls(1_200)).unwrap();
        let settings = ClientSettings::open(&db).unwrap();
        let effective = |of: &ClientSettings, client| {
            of.effective(&of.get(For::All), client).poll_every.as_secs()
        };
        assert_eq!(effective(&settings, None), 600);
        assert_eq!(effective(&settings, Some(one)), 1_200);
        settings.set(For::Client(one), Changes::default()).unwrap();
        assert_eq!(effective(&settings, Some(one)), 600);
        let settings = ClientSettings::open(&db).unwrap();
        assert!(settings.get(For::Client(one)).is_empty());
        let refused = settings.set(For::All, polls(1)).unwrap_err();
        assert_eq!(refused.errors[0].field, "poll_every");
        assert_eq!(effective(&settings, None), 600, "nothing changed");
    }
}
