//! The catalogue: which updates there are, kept in the site database.
//!
//! A sync of a source is an [`Intake`]. What it takes is written beside the catalogue, in batches of
//! bounded size; the commit is one small record; publishing applies what was written, batch after
//! batch, each of which may be applied again; and then everybody sees it at once, because lists, entries
//! and the feed are answered from a [`board::Board`] in memory and from bodies that never change.
//!
//! Always true:
//! * readers see the catalogue as one commit left it, and the next one as a whole;
//! * a sync that fails, is dropped or killed before its commit changes nothing; one that is killed after
//!   it is published at the next start;
//! * an update that several sources say is one update, shown in the words of the first of them in the
//!   set order; who says it is remembered, so that another takes over where one falls silent;
//! * nothing is deleted while a reader may still ask for it, and nothing stays that no one can ask for.

mod board;
mod feed;
mod intake;
mod list;
mod record;

pub use feed::{FEED_PAGE_BYTES, FeedEntry, FeedPage, MAX_FEED_PAGE};
pub use intake::{Changes, Intake};
pub use list::{
    By, Cursor, Listed, MAX_PAGE, NoReports, NotACursor, NotAnOrder, Order, Page, Query,
    RequiredCounts,
};
pub use record::Card;

use crate::adapter::Criteria;
use crate::error::SyncError;
use crate::lifecycle::{Expiry, Policy, State, Use};
use crate::name::{SourceName, UpdateId};
use crate::taxonomy::{Classification, Language, Product};
use crate::update::Update;
use jiff::Timestamp;
use serde::Serialize;
use sitedb::Db;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All updates of a site. Cloning shares it.
#[derive(Clone)]
pub struct Catalogue(Arc<Shared>);

struct Shared {
    db: Db,
}

/// All that is known of one update.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What its source says.
    pub update: Update,
    /// Its revision: the one that the source states, or the one counted here.
    pub revision: u32,
    /// Whose word it is.
    pub source: SourceName,
    /// All sources that say it now; none, if it is withdrawn.
    pub sources: Vec<SourceName>,
    /// How far its life is.
    pub state: State,
    /// That it is expired: since when, and why.
    pub expired: Option<Expiry>,
    /// The updates that replace it.
    pub superseded_by: Vec<Named>,
    /// Those of the updates it replaces that are here.
    pub supersedes: Vec<Named>,
    /// When it came into this catalogue.
    pub first_seen: Timestamp,
    /// When what is shown came.
    pub changed: Timestamp,
    /// Its place in the order of all changes.
    pub seq: u64,
}

/// An update by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Which.
    pub id: UpdateId,
    /// What its upstream calls it.
    pub name: String,
}

/// A product, and how many updates are for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProductCount {
    /// The product.
    #[serde(flatten)]
    pub product: Product,
    /// How many updates are for it, those purged left out.
    pub updates: u64,
}

/// How many updates there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In all: updates of software and drivers, those purged left out.
    pub updates: u64,
    /// By state.
    pub states: BTreeMap<State, u64>,
    /// By classification; those without one are not counted here.
    pub classifications: BTreeMap<Classification, u64>,
    /// By source whose word is shown.
    pub sources: BTreeMap<SourceName, u64>,
    /// The last place in the order of changes.
    pub seq: u64,
}

/// Which updates are deployed: asked of who keeps deployments.
pub trait Deployments: Send + Sync {
    /// Whether `update` is.
    fn of(&self, update: UpdateId) -> Use;
}

/// Nothing was ever deployed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingDeployed;

impl Deployments for NothingDeployed {
    fn of(&self, _: UpdateId) -> Use {
        Use::Never
    }
}

/// One step that an update's life would take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Which update.
    pub id: UpdateId,
    /// What its upstream calls it.
    pub name: String,
    /// How far it is.
    pub from: State,
    /// How far it would be.
    pub to: State,
    /// That it is expired, or would be: since when, and why.
    pub expired: Option<Expiry>,
}

/// What a policy does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ageing {
    /// How many would expire.
    pub expire: u64,
    /// How many would be purged.
    pub purge: u64,
    /// How many would be offered again.
    pub reinstate: u64,
    /// The first of them, at most as many as were asked for.
    pub steps: Vec<Step>,
    /// Whether all was done; else call again.
    pub complete: bool,
}

impl Catalogue {
    /// Reads the catalogue of a site database. A commit whose publishing was cut off is published
    /// first; what a sync left that was not committed is deleted.
    pub fn open(db: Db) -> Result<Self, SyncError> {
        Ok(Self(Arc::new(Shared { db })))
    }

    /// Begins to take what a sync of `source` brings. `run` tells the syncs of one source apart and is never
    /// used again. What falls outside of `criteria` is not taken.
    ///
    /// # Errors
    /// Another intake of this source is not finished ([`crate::error::Cause::Busy`]), or the database failed.
    pub fn intake(
        &self,
        source: &SourceName,
        run: u64,
        criteria: Arc<Criteria>,
        now: Timestamp,
    ) -> Result<Intake, SyncError> {
        let _ = (source, run, criteria, now);
        todo!()
    }

    /// What the adapter of `source` gave with its last commit.
    pub fn state(&self, source: &SourceName) -> Result<Option<serde_json::Value>, SyncError> {
        let _ = source;
        todo!()
    }

    /// Forgets the adapter's state of `source`, so that its next sync asks for everything, as it must when
    /// its settings or the criteria changed.
    pub fn forget_state(&self, source: &SourceName) -> Result<(), SyncError> {
        let _ = source;
        todo!()
    }

    /// Takes a source away that was removed: its updates are withdrawn, except those that another source
    /// says too.
    pub fn forget(&self, source: &SourceName, now: Timestamp) -> Result<Changes, SyncError> {
        let _ = (source, now);
        todo!()
    }

    /// Sets whose word counts first where several sources say one update. Sources that are not named follow,
    /// by name.
    pub fn prefer(&self, order: &[SourceName], now: Timestamp) -> Result<Changes, SyncError> {
        let _ = (order, now);
        todo!()
    }

    /// A page of the updates that a filter lets through.
    pub fn list(&self, query: &Query, required: &dyn RequiredCounts) -> Result<Page, SyncError> {
        let _ = (query, required);
        todo!()
    }

    /// One update, if it is here and not purged.
    pub fn entry(&self, id: UpdateId) -> Result<Option<Entry>, SyncError> {
        let _ = id;
        todo!()
    }

    /// One update, by its id, or by its name or that of an article of it, in either case.
    ///
    /// # Errors
    /// There is none, or several ([`crate::error::Cause::NotFound`], [`crate::error::Cause::Misconfigured`]): the text says
    /// which are meant, or which are near.
    pub fn get(&self, what: &str) -> Result<Entry, SyncError> {
        let _ = what;
        todo!()
    }

    /// All products that a source or an update names, by id.
    pub fn products(&self) -> Vec<ProductCount> {
        todo!()
    }

    /// All languages that updates have files for alone.
    pub fn languages(&self) -> Vec<Language> {
        todo!()
    }

    /// How many updates there are.
    pub fn counts(&self) -> Counts {
        todo!()
    }

    /// The last place in the order of changes.
    pub fn seq(&self) -> u64 {
        todo!()
    }

    /// The feed after a place: at most `limit` entries, and at most [`FEED_PAGE_BYTES`] and one update.
    pub fn changes(&self, after: u64, limit: usize) -> Result<FeedPage, SyncError> {
        let _ = (after, limit);
        todo!()
    }

    /// What `policy` would change at `now`; the first `most` of it one by one.
    pub fn preview(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Ageing {
        let _ = (policy, deployments, now, most);
        todo!()
    }

    /// Does what `policy` asks for at `now`, to at most `most` updates.
    pub fn age(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Result<Ageing, SyncError> {
        let _ = (policy, deployments, now, most);
        todo!()
    }
}
