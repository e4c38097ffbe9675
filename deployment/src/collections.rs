//! All collections of a site: kept on disk as they are defined, and in memory as they come out.
//!
//! A definition is written before it counts. Members are not written: they follow from the definitions and
//! from what clients told, both on disk, and are worked out when a site starts. [`Collections::follow`] is
//! called every second and looks only at clients of whom something changed.

use crate::collection::Collection;
use crate::membership::{members, order};
use crate::name::CollectionName;
use crate::window::Window;
use compliance::message::ClientId;
use compliance::{Compliance, Ordinal};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, DbError, Table, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// How many collections there may be.
pub const MAX_COLLECTIONS: usize = 10_000;
/// How many clients a collection may name.
pub const MAX_DIRECT: usize = 1_000_000;

const COLLECTIONS: Table<String, Collection> = Table::new("collection");
const DIRECT: Table<(String, u128), Direct> = Table::new("collection-client");

/// That a collection names a client.
#[derive(Serialize, Deserialize)]
struct Direct {}
impl Value for Direct {}

/// Why a collection was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// There is none of that name.
    #[error("there is no collection {0:?}")]
    Unknown(String),
    /// There is one already.
    #[error("there is a collection \"{0}\" already")]
    Exists(CollectionName),
    /// The built-in one is as it is.
    #[error("the collection \"all\" is built in: every client is in it, and it cannot be changed")]
    BuiltIn,
    /// It would depend on itself.
    #[error("a collection cannot depend on itself: {}", way(.0))]
    Cycle(Vec<CollectionName>),
    /// It names one that is not there.
    #[error("collection \"{name}\" names \"{missing}\", which does not exist")]
    Missing {
        /// Which.
        name: CollectionName,
        /// The one that is not there.
        missing: CollectionName,
    },
    /// Others need it.
    #[error("collection \"{name}\" is named by {}: change those first", list(.by))]
    Needed {
        /// Which.
        name: CollectionName,
        /// By whom.
        by: Vec<CollectionName>,
    },
    /// It is over a limit.
    #[error("collection \"{name}\" {why}")]
    TooMuch {
        /// Which.
        name: CollectionName,
        /// What there is too much of.
        why: String,
    },
    /// There are too many.
    #[error("there are {MAX_COLLECTIONS} collections already")]
    TooMany,
    /// The database failed.
    #[error("collections cannot be kept")]
    Store(#[from] CommitError),
}

impl From<DbError> for CollectionError {
    fn from(error: DbError) -> Self {
        Self::Store(error.into())
    }
}

fn way(names: &[CollectionName]) -> String {
    names.iter().map(CollectionName::as_str).collect::<Vec<_>>().join(" → ")
}

fn list(names: &[CollectionName]) -> String {
    names.iter().map(CollectionName::as_str).collect::<Vec<_>>().join(", ")
}

/// The collections of a site.
pub struct Collections {
    db: Db,
    /// Held by whoever changes them.
    writer: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    defined: BTreeMap<CollectionName, Collection>,
    direct: BTreeMap<CollectionName, BTreeSet<ClientId>>,
    /// Each after those that it needs.
    order: Vec<CollectionName>,
    members: BTreeMap<CollectionName, Arc<RoaringBitmap>>,
    /// Counts changes of members and of definitions.
    revision: u64,
}

impl Collections {
    /// Takes the collections in `db` into use, and works out who is in them.
    ///
    /// # Errors
    /// If the database fails, or what it holds cannot be.
    pub fn open(db: Db, fleet: &Compliance) -> Result<Self, CollectionError> {
        let mut state = State::default();
        let mut after: Option<String> = None;
        loop {
            let page = COLLECTIONS.scan(&db, sitedb::Order::Ascending, after.as_ref(), 100)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (name, collection) in page {
                let name: CollectionName = name.parse().map_err(damaged)?;
                let direct = DIRECT.below(&db, &name.to_string())?;
                let direct = direct.into_iter().map(|((_, id), _)| client_of(id));
                state.direct.insert(name.clone(), direct.collect());
                state.defined.insert(name, collection);
            }
        }
        state.order = order(&state.defined).map_err(CollectionError::Cycle)?;
        let collections = Self { db, writer: Mutex::new(()), state: RwLock::new(state) };
        collections.follow(fleet);
        Ok(collections)
    }

    /// Looks at the clients of whom something changed since this was last called; whether members did.
    pub fn follow(&self, fleet: &Compliance) -> bool {
        let _writer = self.writer.lock();
        let touched = fleet.take_touched();
        if touched.is_empty() {
            return false;
        }
        let names = self.state.read().order.clone();
        self.work_out(fleet, &names, Some(&touched))
    }

    /// Works out who of `scope`, or of all, is in each of these collections, which are in order; whether
    /// members changed.
    fn work_out(
        &self,
        fleet: &Compliance,
        names: &[CollectionName],
        scope: Option<&RoaringBitmap>,
    ) -> bool {
        let mut new: BTreeMap<CollectionName, Arc<RoaringBitmap>> = BTreeMap::new();
        {
            let state = self.state.read();
            // The index is locked after this: who comes or goes meanwhile is among the touched ones again.
            let named: Vec<_> = names
                .iter()
                .map(|name| state.direct.get(name).map(|ids| named(ids, scope, fleet)))
                .collect();
            let index = fleet.index();
            let scope = scope.unwrap_or(index.fleet());
            for (name, named) in names.iter().zip(named) {
                let Some(collection) = state.defined.get(name) else { continue };
                let named = named.unwrap_or_default();
                let of = |other: &CollectionName| {
                    let found = new.get(other).or_else(|| state.members.get(other));
                    found.map(|clients| &**clients)
                };
                let found = members(collection, &named, scope, &index, of);
                let old = state.members.get(name).cloned().unwrap_or_default();
                // Of a full look, who is not in the fleet is in no collection.
                let kept = &*old - scope;
                let kept = &kept & index.fleet();
                let found = kept | found;
                if found != *old {
                    new.insert(name.clone(), Arc::new(found));
                }
            }
        }
        let has_changed = !new.is_empty();
        let mut state = self.state.write();
        state.members.extend(new);
        state.revision += u64::from(has_changed);
        has_changed
    }

    /// Counts changes of members and of definitions: who asks again and is told the same number has missed nothing.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// All collections in the order of their names, with how many members each has; not the built-in one.
    pub fn list(&self) -> Vec<(CollectionName, Collection, u64)> {
        let state = self.state.read();
        let n_members = |name| state.members.get(name).map_or(0, |clients| clients.len());
        let all = state.defined.iter();
        all.map(|(name, it)| (name.clone(), it.clone(), n_members(name))).collect()
    }

    /// A collection; none of the built-in one.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &CollectionName) -> Result<Collection, CollectionError> {
        let found = self.state.read().defined.get(name).cloned();
        found.ok_or_else(|| unknown(name))
    }

    /// The clients that a collection names.
    pub fn direct(&self, name: &CollectionName) -> BTreeSet<ClientId> {
        self.state.read().direct.get(name).cloned().unwrap_or_default()
    }

    /// Who is in a collection.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn members(
        &self,
        name: &CollectionName,
        fleet: &Compliance,
    ) -> Result<Arc<RoaringBitmap>, CollectionError> {
        if name.is_all() {
            return Ok(Arc::new(fleet.fleet()));
        }
        let state = self.state.read();
        let is_there = state.defined.contains_key(name);
        let found = state.members.get(name).cloned();
        if is_there { Ok(found.unwrap_or_default()) } else { Err(unknown(name)) }
    }

    /// The collections that a client is in, in the order of their names.
    pub fn of(&self, client: Ordinal) -> Vec<CollectionName> {
        let state = self.state.read();
        let all = state.members.iter().filter(|(_, clients)| clients.contains(client));
        all.map(|(name, _)| name.clone()).collect()
    }

    /// The maintenance windows of a client: those of all collections that it is in.
    pub fn windows_of(&self, client: Ordinal) -> Vec<Window> {
        let state = self.state.read();
        let all = state.members.iter().filter(|(_, clients)| clients.contains(client));
        let windows = all.filter_map(|(name, _)| state.defined.get(name));
        windows.flat_map(|collection| collection.windows.values().cloned()).collect()
    }

    /// The collections that have maintenance windows: who is in them, and their windows.
    pub fn with_windows(&self) -> Vec<(CollectionName, Arc<RoaringBitmap>, Vec<Window>)> {
        let state = self.state.read();
        let all = state.defined.iter().filter(|(_, it)| !it.windows.is_empty());
        let members = |name: &CollectionName| state.members.get(name).cloned().unwrap_or_default();
        let windows = |it: &Collection| it.windows.values().cloned().collect();
        all.map(|(name, it)| (name.clone(), members(name), windows(it))).collect()
    }

    /// Makes a collection.
    ///
    /// # Errors
    /// If there is one of that name, it cannot be, or the database fails.
    pub fn create(
        &self,
        name: CollectionName,
        collection: Collection,
        fleet: &Compliance,
    ) -> Result<(), CollectionError> {
        self.create_naming(name, collection, &[], fleet)
    }

    /// The same, of a collection that names these clients.
    ///
    /// # Errors
    /// As [`Collections::create`].
    pub fn create_naming(
        &self,
        name: CollectionName,
        collection: Collection,
        clients: &[ClientId],
        fleet: &Compliance,
    ) -> Result<(), CollectionError> {
        let _writer = self.writer.lock();
        if name.is_all() {
            return Err(CollectionError::BuiltIn);
        }
        let n_collections = {
            let state = self.state.read();
            if state.defined.contains_key(&name) {
                return Err(CollectionError::Exists(name));
            }
            state.defined.len()
        };
        if n_collections >= MAX_COLLECTIONS {
            return Err(CollectionError::TooMany);
        }
        self.save(name, collection, clients, fleet)
    }

    /// Changes a collection; what it is after that.
    ///
    /// # Errors
    /// If there is none of that name, it cannot be so, or the database fails; or `change` does.
    pub fn change<E: From<CollectionError>>(
        &self,
        name: &CollectionName,
        fleet: &Compliance,
        change: impl FnOnce(&mut Collection) -> Result<(), E>,
    ) -> Result<Collection, E> {
        let _writer = self.writer.lock();
        if name.is_all() {
            return Err(CollectionError::BuiltIn.into());
        }
        let mut collection = self.get(name)?;
        change(&mut collection)?;
        self.save(name.clone(), collection.clone(), &[], fleet)?;
        Ok(collection)
    }

    /// Keeps a collection, which names these clients besides those that it names already.
    fn save(
        &self,
        name: CollectionName,
        collection: Collection,
        clients: &[ClientId],
        fleet: &Compliance,
    ) -> Result<(), CollectionError> {
        if let Some(why) = collection.too_much() {
            return Err(CollectionError::TooMuch { name, why });
        }
        let mut defined = self.state.read().defined.clone();
        let is_there =
            |it: &&CollectionName| it.is_all() || **it == name || defined.contains_key(*it);
        if let Some(missing) = collection.needs().find(|it| !is_there(it)).cloned() {
            return Err(CollectionError::Missing { name, missing });
        }
        defined.insert(name.clone(), collection.clone());
        let order = order(&defined).map_err(CollectionError::Cycle)?;
        let mut batch = Batch::new();
        COLLECTIONS.put(&mut batch, &name.to_string(), &collection);
        for id in clients {
            DIRECT.put(&mut batch, &(name.to_string(), id.0.as_u128()), &Direct {});
        }
        self.db.kv().write(batch)?;
        let downstream = downstream(&defined, &order, &name);
        {
            let mut state = self.state.write();
            state.defined = defined;
            state.order = order;
            state.revision += 1;
            if !clients.is_empty() {
                state.direct.entry(name).or_default().extend(clients);
            }
        }
        self.work_out(fleet, &downstream, None);
        Ok(())
    }

    /// Deletes a collection.
    ///
    /// # Errors
    /// If there is none of that name, others need it, or the database fails.
    pub fn delete(&self, name: &CollectionName) -> Result<(), CollectionError> {
        let _writer = self.writer.lock();
        if name.is_all() {
            return Err(CollectionError::BuiltIn);
        }
        self.get(name)?;
        let (by, direct) = {
            let state = self.state.read();
            let needs = state.defined.iter().filter(|(_, it)| it.needs().any(|it| it == name));
            let by: Vec<_> = needs.map(|(by, _)| by.clone()).collect();
            (by, state.direct.get(name).cloned().unwrap_or_default())
        };
        if !by.is_empty() {
            return Err(CollectionError::Needed { name: name.clone(), by });
        }
        let mut batch = Batch::new();
        COLLECTIONS.delete(&mut batch, &name.to_string());
        for id in direct {
            DIRECT.delete(&mut batch, &(name.to_string(), id.0.as_u128()));
        }
        self.db.kv().write(batch)?;
        let mut state = self.state.write();
        state.defined.remove(name);
        state.direct.remove(name);
        state.order.retain(|it| it != name);
        state.members.remove(name);
        state.revision += 1;
        Ok(())
    }

    /// Names clients, or names them no more; how many that changed.
    ///
    /// # Errors
    /// If there is no such collection, it would name too many, or the database fails.
    pub fn name_clients(
        &self,
        name: &CollectionName,
        add: &[ClientId],
        remove: &[ClientId],
        fleet: &Compliance,
    ) -> Result<usize, CollectionError> {
        let _writer = self.writer.lock();
        if name.is_all() {
            return Err(CollectionError::BuiltIn);
        }
        self.get(name)?;
        let mut direct = self.direct(name);
        let (mut batch, mut n_changed) = (Batch::new(), 0);
        for id in remove.iter().filter(|id| direct.remove(id)) {
            DIRECT.delete(&mut batch, &(name.to_string(), id.0.as_u128()));
            n_changed += 1;
        }
        for id in add {
            if direct.insert(*id) {
                DIRECT.put(&mut batch, &(name.to_string(), id.0.as_u128()), &Direct {});
                n_changed += 1;
            }
        }
        if direct.len() > MAX_DIRECT {
            let why = format!("names more than {MAX_DIRECT} clients");
            return Err(CollectionError::TooMuch { name: name.clone(), why });
        }
        self.db.kv().write(batch)?;
        let names = {
            let mut state = self.state.write();
            state.direct.insert(name.clone(), direct);
            downstream(&state.defined, &state.order, name)
        };
        let scope = add.iter().chain(remove).filter_map(|id| fleet.find(*id)).collect();
        self.work_out(fleet, &names, Some(&scope));
        Ok(n_changed)
    }
}

/// A collection and all that depend on it, in order.
fn downstream(
    defined: &BTreeMap<CollectionName, Collection>,
    order: &[CollectionName],
    name: &CollectionName,
) -> Vec<CollectionName> {
    let mut found = BTreeSet::from([name]);
    for other in order {
        if defined.get(other).is_some_and(|it| it.needs().any(|need| found.contains(need))) {
            found.insert(other);
        }
    }
    order.iter().filter(|it| found.contains(it)).cloned().collect()
}

/// The clients of `scope`, or all, that are named by their ids.
fn named(
    ids: &BTreeSet<ClientId>,
    scope: Option<&RoaringBitmap>,
    fleet: &Compliance,
) -> RoaringBitmap {
    match scope.filter(|scope| scope.len() < ids.len() as u64) {
        Some(scope) => {
            let is_named = |client: &Ordinal| fleet.id(*client).is_some_and(|id| ids.contains(&id));
            scope.iter().filter(is_named).collect()
        }
        None => ids.iter().filter_map(|id| fleet.find(*id)).collect(),
    }
}

fn client_of(id: u128) -> ClientId {
    ClientId(Uuid::from_u128(id))
}

fn unknown(name: &CollectionName) -> CollectionError {
    CollectionError::Unknown(name.to_string())
}

fn damaged(error: impl ToString) -> DbError {
    DbError::Damaged { table: "collection", detail: error.to_string() }
}
