//! The catalogue: which updates there are, kept in the site database.
//!
//! A sync of a source is an [`Intake`]. What it takes is written beside the catalogue, in batches of
//! bounded size; the commit is one small record; publishing applies what was written, batch after
//! batch, and goes on where it was cut off; and then everybody sees it at once, because lists, entries
//! and the feed are answered from a board in memory and from bodies that never change.
//!
//! Always true:
//! * readers see the catalogue as one commit left it, and the next one as a whole;
//! * a sync that fails, is dropped or killed before its commit changes nothing; one that is killed after
//!   it is published at the next start;
//! * an update that several sources say is one update, shown in the words of the first of them in the
//!   set order; who says it is remembered, so that another takes over where one falls silent;
//! * nothing is deleted while a reader may still ask for it, and nothing stays that no one can ask for.

mod ageing;
pub(crate) mod bits;
pub(crate) mod board;
mod criteria;
mod feed;
mod graph;
mod intake;
mod list;
mod matching;
mod merge;
mod publish;
mod record;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub use feed::{FEED_PAGE_BYTES, FeedEntry, FeedPage, MAX_FEED_PAGE, Place};
pub use intake::{Changes, Intake};
pub use list::{
    By, Cursor, Listed, MAX_PAGE, NoReports, NotACursor, NotAnOrder, Order, Page, Query,
    RequiredCounts,
};
pub use matching::{Matched, Matching, Titled, Unmet};
pub use record::Card;

use crate::adapter::{Criteria, Extent};
use crate::error::{Cause, SyncError};
use crate::lifecycle::{Expiry, Policy, State, Use, Why};
use crate::name::{SourceName, UpdateId};
use crate::taxonomy::{Classification, Language, Product};
use crate::update::Update;
use board::{Board, time};
use jiff::Timestamp;
use merge::Merge;
use parking_lot::{Mutex, RwLock};
use publish::{STEP, Work};
use record::{BODIES, BodyKey, HEADS, LINEAGE, Lineage, ORDER, Preference, SOURCES, SourceRow};
use serde::Serialize;
use sitedb::{Batch, Db};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use text::Tag;

/// All updates of a site. Cloning shares it.
#[derive(Clone)]
pub struct Catalogue(Arc<Shared>);

struct Shared {
    db: Db,
    lineage: String,
    board: RwLock<Arc<Board>>,
    /// Held by who changes heads.
    work: Mutex<Work>,
    /// The sources whose intake is not finished, and which one that is. A source is added only by who holds
    /// `work`.
    active: Mutex<BTreeMap<SourceName, u64>>,
}

impl Shared {
    /// The catalogue as the last commit left it.
    fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board.read())
    }

    fn keep_state(
        &self,
        source: &SourceName,
        state: serde_json::Value,
        at: Timestamp,
    ) -> Result<(), SyncError> {
        SOURCES.set(&self.db, &source.to_string(), &SourceRow { state, at })?;
        Ok(())
    }
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

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its place in the order of all changes: another one whenever anything is said anew of it.
    pub seq: u64,
    /// How far its life is.
    pub state: State,
    /// Since when it is expired.
    pub expired: Option<Timestamp>,
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
    /// What replaced it, where that is why.
    pub superseded_by: Option<Named>,
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

/// How many updates a message names.
const NAMED: usize = 8;

impl Catalogue {
    /// Has `batch` take the name of the catalogue in a database that was put back: it gets another when it is
    /// opened, so whoever follows it reads it anew. Places that it gave after the backup mean nothing any more.
    pub fn forget_name(batch: &mut Batch) {
        LINEAGE.delete(batch, &());
    }

    /// Reads the catalogue of a site database. A commit whose publishing was cut off is published
    /// first; what a sync left that was not committed is deleted. Open it once: it is alone with its tables.
    pub fn open(db: Db) -> Result<Self, SyncError> {
        let board = Board::load(&db)?;
        let order = ORDER.get(&db, &())?.unwrap_or_default().0;
        let lineage = match LINEAGE.get(&db, &())? {
            Some(Lineage(lineage)) => lineage,
            None => {
                let lineage = format!("{:032x}", rand::random::<u128>());
                LINEAGE.set(&db, &(), &Lineage(lineage.clone()))?;
                lineage
            }
        };
        let work =
            Work { seq: board.marks.seq, order, is_behind: false, reorders: None, intakes: 0 };
        let shared = Shared {
            db,
            lineage,
            board: RwLock::new(Arc::new(board)),
            work: Mutex::new(work),
            active: Mutex::default(),
        };
        {
            let mut work = shared.work.lock();
            shared.catch_up(&mut work)?;
            shared.sweep_dropped()?;
            shared.sweep_staged(None)?;
            shared.reorder(&mut work, Timestamp::now())?;
        }
        Ok(Self(Arc::new(shared)))
    }

    /// Begins to take what a sync of `source` brings. `run` tells the syncs of one source apart. What falls
    /// outside of `criteria` is not taken.
    ///
    /// # Errors
    /// Another intake of this source is not finished ([`Cause::Busy`]), or the database failed.
    pub fn intake(
        &self,
        source: &SourceName,
        run: u64,
        criteria: Arc<Criteria>,
        now: Timestamp,
    ) -> Result<Intake, SyncError> {
        let mut work = self.0.work.lock();
        if self.0.active.lock().contains_key(source) {
            let detail = format!("{source} is being synchronised already");
            return Err(SyncError::new(Cause::Busy, detail));
        }
        self.0.catch_up(&mut work)?;
        self.0.sweep_dropped()?;
        self.0.sweep_staged(Some(source))?;
        work.intakes += 1;
        self.0.active.lock().insert(source.clone(), work.intakes);
        Ok(Intake::begin(self.clone(), work.intakes, source, run, criteria, now))
    }

    /// What the adapter of `source` gave with its last commit.
    pub fn state(&self, source: &SourceName) -> Result<Option<serde_json::Value>, SyncError> {
        let row = SOURCES.get(&self.0.db, &source.to_string())?;
        Ok(row.map(|row| row.state))
    }

    /// Forgets the adapter's state of `source`, so that its next sync asks for everything, as it must when
    /// its settings or the criteria changed.
    pub fn forget_state(&self, source: &SourceName) -> Result<(), SyncError> {
        let mut batch = Batch::new();
        SOURCES.delete(&mut batch, &source.to_string());
        self.0.db.kv().write(batch)?;
        Ok(())
    }

    /// Takes a source away that was removed: its updates are withdrawn, except those that another source
    /// says too.
    pub fn forget(&self, source: &SourceName, now: Timestamp) -> Result<Changes, SyncError> {
        let mut intake = self.intake(source, 0, Arc::default(), now)?;
        intake.settle(Extent::Whole)?;
        let changes = intake.commit(serde_json::Value::Null)?;
        self.forget_state(source)?;
        Ok(changes)
    }

    /// Sets whose word counts first where several sources say one update. Sources that are not named follow,
    /// by name. Gives how many updates are shown in other words now.
    pub fn prefer(&self, order: &[SourceName], now: Timestamp) -> Result<u64, SyncError> {
        let mut work = self.0.work.lock();
        self.0.catch_up(&mut work)?;
        ORDER.set(&self.0.db, &(), &Preference(order.to_vec()))?;
        work.order = order.to_vec();
        self.0.reorder(&mut work, now)
    }

    /// A page of the updates that a filter lets through.
    pub fn list(&self, query: &Query, required: &dyn RequiredCounts) -> Result<Page, SyncError> {
        self.0.list(query, required)
    }

    /// These updates as lists show them, in this order; those that are not here, or purged, are left out.
    pub fn listed(
        &self,
        ids: &[UpdateId],
        required: &dyn RequiredCounts,
    ) -> Result<Vec<Listed>, SyncError> {
        self.0.listed(ids, required)
    }

    /// How far each of these updates is, if it is here and not purged: all of one commit. Reads nothing from disk.
    pub fn standings(&self, ids: impl IntoIterator<Item = UpdateId>) -> Vec<Option<Standing>> {
        let board = self.0.board();
        let of = |id| {
            let row = board.visible(id)?;
            let (seq, state) = (board.seqs[row], board.states[row]);
            Some(Standing { seq, state, expired: board.expired(row).map(|expired| expired.at) })
        };
        ids.into_iter().map(of).collect()
    }

    /// One update, if it is here and not purged.
    pub fn entry(&self, id: UpdateId) -> Result<Option<Entry>, SyncError> {
        self.0.entry(id)
    }

    /// One update, by its id, or by its name or that of an article of it, in either case.
    ///
    /// # Errors
    /// There is none ([`Cause::NotFound`]), or several ([`Cause::Misconfigured`]): the text says which are meant,
    /// or which are near.
    pub fn get(&self, what: &str) -> Result<Entry, SyncError> {
        let ids = match what.parse() {
            Ok(id) => vec![id],
            Err(_) => self.0.called(what),
        };
        let shown: String = what.chars().take(100).collect();
        match ids.as_slice() {
            [] => {
                let near = self.0.near(what)?;
                let near = if near.is_empty() { near } else { format!("; near it: {near}") };
                let detail = format!("no update is called {shown:?}{near}");
                Err(SyncError::new(Cause::NotFound, detail))
            }
            [id] => self.0.entry(*id)?.ok_or_else(|| {
                SyncError::new(Cause::NotFound, format!("there is no update {shown:?}"))
            }),
            several => {
                let named = self.0.named(several.iter().copied().take(NAMED))?;
                let named: Vec<_> =
                    named.iter().map(|one| format!("{} ({})", one.id, one.name)).collect();
                let detail = format!(
                    "{} updates are called {shown:?}: say which one by its id, as {}",
                    several.len(),
                    named.join(", ")
                );
                Err(SyncError::new(Cause::Misconfigured, detail))
            }
        }
    }

    /// All products that a source or an update names, by id.
    pub fn products(&self) -> Vec<ProductCount> {
        let board = self.0.board();
        let mut counts = vec![0_u64; board.product_names.all.len()];
        for row in board.all_visible().iter() {
            board.product_lists.of(row).iter().for_each(|place| counts[*place as usize] += 1);
        }
        let unnamed =
            |id: &String| Product { id: id.clone(), name: id.clone(), family: String::new() };
        let mut all: BTreeMap<&String, ProductCount> = board
            .products
            .iter()
            .map(|(id, row)| (id, ProductCount { product: row.product.clone(), updates: 0 }))
            .collect();
        for (id, updates) in board.product_names.all.iter().zip(counts) {
            let none = || ProductCount { product: unnamed(id), updates: 0 };
            all.entry(id).or_insert_with(none).updates = updates;
        }
        all.into_values().collect()
    }

    /// All languages that updates have files for alone.
    pub fn languages(&self) -> Vec<Language> {
        let board = self.0.board();
        let mut all: Vec<Language> =
            board.language_names.all.iter().filter_map(|name| name.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    /// How many updates there are.
    pub fn counts(&self) -> Counts {
        let board = self.0.board();
        let mut counts = Counts { seq: board.marks.seq, ..Counts::default() };
        for row in board.all_visible().iter().filter(|row| board.is_update(*row)) {
            counts.updates += 1;
            *counts.states.entry(board.states[row]).or_default() += 1;
            if let Some(class) = board.classifications[row] {
                *counts.classifications.entry(class).or_default() += 1;
            }
            *counts.sources.entry(board.source(row)).or_default() += 1;
        }
        counts
    }

    /// How many updates a commit of that time expired because the criteria leave them out.
    pub fn left_out_at(&self, at: Timestamp) -> u64 {
        let board = self.0.board();
        // Of times a board has the seconds.
        let then = Some(Expiry { at: time(at.as_second()), why: Why::Criteria });
        (0..board.len()).filter(|row| board.expired(*row) == then).count() as u64
    }

    /// A name that no other catalogue has: whose places in the order of changes are others.
    pub fn lineage(&self) -> &str {
        &self.0.lineage
    }

    /// The last place in the order of changes.
    pub fn seq(&self) -> u64 {
        self.0.board().marks.seq
    }

    /// The feed from a place on: at most `limit` entries, and at most [`FEED_PAGE_BYTES`] and one update.
    pub fn changes(&self, from: Place, limit: usize) -> Result<FeedPage, SyncError> {
        self.0.changes(from, limit)
    }

    /// What `policy` would change at `now`; the first `most` of it one by one.
    pub fn preview(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Result<Ageing, SyncError> {
        self.0.preview(policy, deployments, now, most)
    }

    /// Does what `policy` asks for at `now`, to at most `most` updates.
    pub fn age(
        &self,
        policy: &Policy,
        deployments: &dyn Deployments,
        now: Timestamp,
        most: usize,
    ) -> Result<Ageing, SyncError> {
        self.0.age(policy, deployments, now, most)
    }
}

impl Shared {
    /// Shows each update that several sources say in the words of the one that counts first.
    fn reorder(&self, work: &mut Work, now: Timestamp) -> Result<u64, SyncError> {
        let rows: Vec<u32> = self.board().also_said.keys().copied().collect();
        let (board, mut changed) = (self.board(), Vec::new());
        // If it fails half-way, whoever comes next goes on before anything is shown.
        work.reorders = Some(now);
        let was_behind = std::mem::replace(&mut work.is_behind, true);
        for rows in rows.chunks(STEP) {
            // Synced: what was shown to a child is never numbered anew.
            let mut batch = Batch::new();
            for row in rows {
                let id = board.ids[*row as usize];
                let Some(head) = HEADS.get(&self.db, &id)? else { continue };
                let seq = work.next_seq();
                let merge = Merge { id, order: &work.order, now, seq };
                let body = |key: &BodyKey| BODIES.get(&self.db, key);
                if let Some(merged) = merge.reordered(head, body)? {
                    publish::put(&mut batch, id, &merged);
                    changed.push(id);
                }
            }
            self.db.kv().write(batch)?;
        }
        work.is_behind = was_behind;
        if !changed.is_empty() || work.is_behind {
            self.show(work, &changed)?;
        }
        work.reorders = None;
        Ok(changed.len() as u64)
    }

    /// What `read` finds on a board. It finds nothing where a body is gone, as bodies are once a newer board is
    /// in place; then it reads that one.
    fn on_one_board<T>(
        &self,
        read: impl Fn(&Board) -> Result<Option<T>, SyncError>,
    ) -> Result<T, SyncError> {
        let mut board = self.board();
        loop {
            if let Some(found) = read(&board)? {
                return Ok(found);
            }
            let newer = self.board();
            if Arc::ptr_eq(&board, &newer) {
                let detail = "what is said of an update is missing from the site database";
                return Err(SyncError::new(Cause::Local, detail));
            }
            board = newer;
        }
    }

    fn entry(&self, id: UpdateId) -> Result<Option<Entry>, SyncError> {
        self.on_one_board(|board| {
            let Some(row) = board.visible(id) else { return Ok(Some(None)) };
            let Some(update) = BODIES.get(&self.db, &board.body(row))? else { return Ok(None) };
            let by = board.superseders.of(row).iter().map(|by| board.ids[*by as usize]);
            let visible = |id: &UpdateId| board.visible(*id).is_some();
            Ok(Some(Some(Entry {
                update,
                revision: board.revisions[row],
                source: board.source(row),
                sources: board.sources_of(row),
                state: board.states[row],
                expired: board.expired(row),
                superseded_by: self.named(by)?,
                supersedes: self.named(board.supersedes(row).iter().copied().filter(visible))?,
                first_seen: time(board.first_seen[row]),
                changed: time(board.changed[row]),
                seq: board.seqs[row],
            })))
        })
    }

    /// The updates of that name, or with an article of that name.
    fn called(&self, name: &str) -> Vec<UpdateId> {
        let board = self.board();
        let name = [Cow::Borrowed(name)];
        let mut rows = board.words.equal(&name, Tag::Name);
        rows.or(&board.words.equal(&name, Tag::Article));
        rows.and(&board.all_visible());
        rows.iter().map(|row| board.ids[row]).collect()
    }

    /// Names that have `part` in them, in words.
    fn near(&self, part: &str) -> Result<String, SyncError> {
        let board = self.board();
        let mut rows = board.words.containing_in(Tag::Name, part);
        rows.or(&board.words.containing_in(Tag::Article, part));
        rows.and(&board.all_visible());
        let ids = rows.iter().map(|row| board.ids[row]).take(NAMED);
        let names: Vec<String> = self.named(ids)?.into_iter().map(|named| named.name).collect();
        Ok(names.join(", "))
    }

    fn named(&self, ids: impl Iterator<Item = UpdateId>) -> Result<Vec<Named>, SyncError> {
        let mut all = Vec::new();
        for id in ids {
            if let Some(head) = HEADS.get(&self.db, &id)? {
                all.push(Named { id, name: head.card.name });
            }
        }
        Ok(all)
    }
}
