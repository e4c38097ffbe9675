//! What one sync of one source brings, until it is committed or let go.

use super::criteria::{Fit, Judge, needs};
use super::merge::bodies;
use super::publish::STEP;
use super::record::{
    BODIES, Card, Claim, Commit, ContentHash, HEADS, STAGED, STAGED_PRODUCTS, Staged, StagedKey,
    StagedProduct, body_key,
};
use super::{Catalogue, FeedPage};
use crate::adapter::{Criteria, Extent, Said};
use crate::error::{Cause, SyncError};
use crate::lifecycle::{Expiry, State, Why};
use crate::name::{SourceName, UpdateId};
use crate::taxonomy::Product;
use crate::update::Update;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Batch;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A batch is written when what it holds has so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// The largest update that is taken, in bytes of JSON.
const MAX_UPDATE: usize = 32 << 20;
/// How deep its JSON may be nested, so that it is read again in a table or a page of the feed.
const MAX_NESTING: usize = 115;
/// The most products of one source.
const MAX_PRODUCTS: usize = 100_000;

/// A sync's staging: takes what its source says, and makes it the catalogue's in one step. Dropping it
/// discards all.
///
/// It blocks: call it off the async threads.
pub struct Intake {
    catalogue: Catalogue,
    /// Which of the intakes of its source it is.
    token: u64,
    source: SourceName,
    run: u64,
    now: Timestamp,
    judge: Judge,
    batch: Pending,
    /// What was made of each update that was said.
    taken: HashMap<UpdateId, Taken>,
    products: BTreeMap<String, Product>,
    /// Whether those are all that the source has.
    has_all_products: bool,
    /// What updates that are wanted need.
    needed: HashSet<UpdateId>,
    /// Updates that are wanted only if something needs them, and what they need.
    aside: BTreeMap<UpdateId, Vec<UpdateId>>,
    /// Whether the parent's feed is read from its beginning.
    reads_all: bool,
    /// Whether the list of products changes.
    changes_products: bool,
    settled: Option<Changes>,
    /// Something could not be written, so that no commit would be whole.
    is_broken: bool,
}

/// Staged rows that are not written yet.
struct Pending {
    batch: Batch,
    rows: usize,
    bytes: usize,
}

/// What was made of an update.
#[derive(Clone, Copy)]
struct Taken {
    fate: Fate,
    /// The revision that was stated.
    revision: Option<u32>,
    /// The body that was written for it.
    body: Option<ContentHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Added,
    Revised,
    Unchanged,
    Gone,
    Outside,
    /// Outside, and was never here.
    Ignored,
}

/// What a commit changes, or has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Updates that the source says for the first time.
    pub added: u64,
    /// Updates that it says otherwise than before.
    pub revised: u64,
    /// Updates that it says as before.
    pub unchanged: u64,
    /// Updates that it says no more.
    pub gone: u64,
    /// Updates that it said before and that the criteria leave out now.
    pub outside: u64,
    /// The last place in the order of changes after the commit; before it, the one now.
    pub seq: u64,
}

impl Changes {
    /// Whether a commit changes no update.
    pub fn is_none(&self) -> bool {
        self.added + self.revised + self.gone + self.outside == 0
    }
}

/// What the parent site says of an update besides the update.
struct Given {
    revision: u32,
    expired: Option<Expiry>,
}

impl Intake {
    pub(super) fn begin(
        catalogue: Catalogue,
        token: u64,
        source: &SourceName,
        run: u64,
        criteria: Arc<Criteria>,
        now: Timestamp,
    ) -> Self {
        let board = catalogue.0.board();
        let judge = Judge::new(criteria, board.products.values().map(|row| &row.product));
        Self {
            catalogue,
            token,
            source: source.clone(),
            run,
            now,
            judge,
            batch: Pending::new(),
            taken: HashMap::new(),
            products: BTreeMap::new(),
            has_all_products: false,
            needed: HashSet::new(),
            aside: BTreeMap::new(),
            reads_all: false,
            changes_products: false,
            settled: None,
            is_broken: false,
        }
    }

    /// Takes one thing that the source says. Products are to be said before the updates that are for them.
    /// An update that is said twice is taken in its higher revision, and of equal ones in the later.
    ///
    /// # Errors
    /// An update is too large, or the database failed; the intake can then only be dropped.
    pub fn take(&mut self, said: Said) -> Result<(), SyncError> {
        self.attempt(|intake| match said {
            Said::Product(product) => intake.take_product(product),
            Said::Update(update) => intake.take_update(*update, None),
            Said::Gone(id) => intake.take_gone(id, None),
            Said::Feed(page) => intake.take_page(*page),
        })
    }

    /// Takes a part of the parent site's feed ([`Catalogue::changes`] there); of what the parts so far speak.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub fn take_feed(&mut self, page: FeedPage) -> Result<Extent, SyncError> {
        self.attempt(|intake| intake.take_page(page))?;
        Ok(if self.reads_all { Extent::Whole } else { Extent::Changes })
    }

    fn take_page(&mut self, page: FeedPage) -> Result<(), SyncError> {
        self.reads_all |= page.from.since == 0;
        if let Some(products) = page.products {
            self.has_all_products = true;
            self.products.clear();
            products.into_iter().try_for_each(|product| self.take_product(product))?;
        }
        page.entries.into_iter().try_for_each(|entry| match entry.update {
            Some(update) => {
                let given = Given { revision: entry.revision, expired: entry.expired };
                self.take_update(*update, Some(given))
            }
            None => self.take_gone(entry.id, entry.expired),
        })
    }

    /// Finds what is gone, after the last thing was taken; what a commit would change.
    pub fn settle(&mut self, extent: Extent) -> Result<Changes, SyncError> {
        if let Some(settled) = self.settled {
            return Ok(settled);
        }
        self.attempt(|intake| {
            intake.settle_aside(extent)?;
            intake.settle_gone(extent)?;
            intake.settle_products(extent)?;
            intake.flush()
        })?;
        let mut changes = Changes { seq: self.catalogue.seq(), ..Changes::default() };
        for taken in self.taken.values() {
            match taken.fate {
                Fate::Added => changes.added += 1,
                Fate::Revised => changes.revised += 1,
                Fate::Unchanged => changes.unchanged += 1,
                Fate::Gone => changes.gone += 1,
                Fate::Outside => changes.outside += 1,
                Fate::Ignored => {}
            }
        }
        self.settled = Some(changes);
        Ok(changes)
    }

    /// Makes it the catalogue's, durably, with `state` as what the adapter is given the next time. What was not
    /// settled before is taken as a list of changes.
    ///
    /// # Errors
    /// The database failed. It is then as before, or, if the commit itself was written, published by the
    /// next commit or the next start.
    pub fn commit(mut self, state: serde_json::Value) -> Result<Changes, SyncError> {
        let changes = self.settle(Extent::Changes)?;
        if self.is_broken {
            let detail = format!("the sync of {} was not taken whole; run it again", self.source);
            return Err(SyncError::new(Cause::Local, detail));
        }
        let shared = &self.catalogue.0;
        let mut work = shared.work.lock();
        shared.catch_up(&mut work)?;
        if changes.is_none() && !self.changes_products {
            shared.keep_state(&self.source, state, self.now)?;
            return Ok(Changes { seq: shared.board().marks.seq, ..changes });
        }
        let commit = Commit { source: self.source.clone(), run: self.run, at: self.now };
        shared.commit(&mut work, commit, state)?;
        Ok(Changes { seq: shared.board().marks.seq, ..changes })
    }

    fn attempt(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        debug_assert!(self.settled.is_none(), "nothing is taken after it was settled");
        let result = work(self);
        self.is_broken |= result.is_err();
        result
    }

    fn take_product(&mut self, product: Product) -> Result<(), SyncError> {
        if self.products.len() >= MAX_PRODUCTS {
            let detail = format!("{} names more than {MAX_PRODUCTS} products", self.source);
            return Err(SyncError::new(Cause::TooLarge, detail));
        }
        self.judge.learn(&product);
        self.products.insert(product.id.clone(), product);
        Ok(())
    }

    fn take_gone(&mut self, id: UpdateId, left: Option<Expiry>) -> Result<(), SyncError> {
        let is_said = self.said(id).is_some();
        let fate = if is_said { Fate::Gone } else { Fate::Ignored };
        self.aside.remove(&id);
        // What the parent's policy purged is not for this one's to offer again.
        let gone = left.map_or(Staged::Gone, |Expiry { at, why }| {
            Staged::Left(Expiry { at, why: if why.is_by_policy() { Why::Parent } else { why } })
        });
        self.stage(id, is_said.then_some(gone))?;
        self.taken.insert(id, Taken { fate, revision: None, body: None });
        Ok(())
    }

    fn take_update(&mut self, mut update: Update, given: Option<Given>) -> Result<(), SyncError> {
        let id = update.id;
        let before = self.taken.get(&id);
        // A parent's later word counts whatever it is: an update that changes while the feed is read comes twice.
        let is_older = before.is_some_and(|before| before.revision > update.revision);
        if is_older && given.is_none() {
            return Ok(());
        }
        update.clip();
        self.judge.trim(&mut update);
        let products = update.products.iter().map(String::as_str);
        let fit = self.judge.fit(update.kind, update.classification, products);
        let revision = update.revision;
        self.aside.remove(&id);
        if fit == Fit::Outside {
            return self.leave_out(id, revision);
        }
        match fit {
            Fit::Unclear => drop(self.aside.insert(id, needs(&update).collect())),
            _ => self.needed.extend(needs(&update)),
        }
        let json = serde_json::to_vec(&update).map_err(|error| {
            SyncError::because(Cause::Malformed, format!("{id} cannot be kept"), error)
        })?;
        if json.len() > MAX_UPDATE {
            let detail = format!("{} ({id}) is larger than {MAX_UPDATE} bytes", update.name);
            return Err(SyncError::new(Cause::TooLarge, detail));
        }
        if nesting(&json) > MAX_NESTING {
            let detail = format!("{} ({id}) has rules that are nested too deep", update.name);
            return Err(SyncError::new(Cause::TooLarge, detail));
        }
        let hash = ContentHash::of(&json);
        let said = self.said(id);
        let is_given = given.is_some();
        let claim = match given {
            None => Claim { hash, revision, expired: None, given: false },
            Some(given) => claim_given(hash, given),
        };
        let is_same = said == Some(hash) && !self.is_to_be_revived(id);
        if is_same && (!is_given || self.is_held(id, &claim)?) {
            self.stage(id, None)?;
            self.taken.insert(id, Taken { fate: Fate::Unchanged, revision, body: None });
            return Ok(());
        }
        let key = body_key(id, &self.source, hash);
        self.drop_body(id)?;
        BODIES.put(&mut self.batch.batch, &key, &update);
        self.batch.bytes += json.len();
        self.stage(id, Some(Staged::Said { claim, card: Box::new(Card::of(&update)) }))?;
        let fate = if said.is_some() { Fate::Revised } else { Fate::Added };
        self.taken.insert(id, Taken { fate, revision, body: Some(hash) });
        Ok(())
    }

    /// What this source says of an update now.
    fn said(&self, id: UpdateId) -> Option<ContentHash> {
        let board = self.catalogue.0.board();
        board.said(board.find(id)?, &self.source)
    }

    /// Whether all is held of what a parent says, of which the board has only the hash.
    fn is_held(&self, id: UpdateId, claim: &Claim) -> Result<bool, SyncError> {
        let head = HEADS.get(&self.catalogue.0.db, &id)?;
        Ok(head.is_some_and(|head| head.claims.get(&self.source) == Some(claim)))
    }

    /// Whether an update is purged whose reason to be is gone: it is offered again, or what replaced it
    /// changed its mind.
    fn is_to_be_revived(&self, id: UpdateId) -> bool {
        let board = self.catalogue.0.board();
        let purged = board.find(id).filter(|row| board.states[*row] == State::Purged);
        purged.is_some_and(|row| match board.expired(row).map(|expired| expired.why) {
            Some(Why::Superseded { .. }) => board.superseders.of(row).is_empty(),
            Some(Why::Upstream) => false,
            Some(Why::Withdrawn | Why::Criteria | Why::Parent) | None => true,
        })
    }

    /// Takes back the body that was written when this intake took the update before, unless it is one that
    /// is held anyway.
    fn drop_body(&mut self, id: UpdateId) -> Result<(), SyncError> {
        let Some(hash) = self.taken.get(&id).and_then(|taken| taken.body) else { return Ok(()) };
        let (key, head) = (body_key(id, &self.source, hash), HEADS.get(&self.catalogue.0.db, &id)?);
        if !head.is_some_and(|head| bodies(id, &head).contains(&key)) {
            BODIES.delete(&mut self.batch.batch, &key);
        }
        Ok(())
    }

    fn leave_out(&mut self, id: UpdateId, revision: Option<u32>) -> Result<(), SyncError> {
        let is_said = self.said(id).is_some();
        let fate = if is_said { Fate::Outside } else { Fate::Ignored };
        self.stage(id, is_said.then_some(Staged::Outside))?;
        self.taken.insert(id, Taken { fate, revision, body: None });
        Ok(())
    }

    /// Stages what becomes of an update, or that nothing does.
    fn stage(&mut self, id: UpdateId, staged: Option<Staged>) -> Result<(), SyncError> {
        let key: StagedKey = (self.source.to_string(), (self.run, id));
        if !matches!(staged, Some(Staged::Said { .. })) {
            self.drop_body(id)?;
        }
        match staged {
            Some(staged) => STAGED.put(&mut self.batch.batch, &key, &staged),
            // It was said before, and otherwise.
            None if self.taken.contains_key(&id) => STAGED.delete(&mut self.batch.batch, &key),
            None => return Ok(()),
        }
        self.batch.rows += 1;
        if self.batch.rows >= STEP || self.batch.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SyncError> {
        let Pending { batch, .. } = std::mem::replace(&mut self.batch, Pending::new());
        self.catalogue.0.db.kv().write(batch)?;
        Ok(())
    }

    /// Leaves out what is wanted only if something needs it, and nothing does. A list of changes does not say
    /// what needs it, so there it stays.
    fn settle_aside(&mut self, extent: Extent) -> Result<(), SyncError> {
        if extent == Extent::Changes {
            return Ok(());
        }
        let mut aside = std::mem::take(&mut self.aside);
        let mut to_do: Vec<UpdateId> = aside.keys().copied().collect();
        to_do.retain(|id| self.needed.contains(id));
        while let Some(id) = to_do.pop() {
            to_do.extend(aside.remove(&id).into_iter().flatten());
        }
        for id in aside.into_keys() {
            let revision = self.taken.get(&id).and_then(|taken| taken.revision);
            self.leave_out(id, revision)?;
        }
        Ok(())
    }

    fn settle_gone(&mut self, extent: Extent) -> Result<(), SyncError> {
        let board = self.catalogue.0.board();
        let Some(place) = board.source_names.place(self.source.as_str()) else { return Ok(()) };
        for row in 0..board.len() {
            let id = board.ids[row];
            let is_said = board.said_by(row).any(|(by, _)| by == place);
            if !is_said || self.taken.contains_key(&id) {
                continue;
            }
            let products = board.product_lists.of(row).iter();
            let products = products.map(|at| board.product_names.name(*at));
            let fit = || self.judge.fit(board.kinds[row], board.classifications[row], products);
            let (staged, fate) = match extent {
                Extent::Whole => (Staged::Gone, Fate::Gone),
                // The mark of a purged update lists no products to be judged by.
                Extent::Changes if board.states[row] != State::Purged && fit() == Fit::Outside => {
                    (Staged::Outside, Fate::Outside)
                }
                Extent::Changes => continue,
            };
            self.stage(id, Some(staged))?;
            self.taken.insert(id, Taken { fate, revision: None, body: None });
        }
        Ok(())
    }

    fn settle_products(&mut self, extent: Extent) -> Result<(), SyncError> {
        let board = self.catalogue.0.board();
        let key = |id: &String| (self.source.to_string(), (self.run, id.clone()));
        let mut staged = Vec::new();
        for (id, product) in &self.products {
            let held = board.products.get(id).filter(|row| row.sources.contains(&self.source));
            if held.is_none_or(|row| row.product != *product) {
                staged.push((key(id), StagedProduct::Said(product.clone())));
            }
        }
        if extent == Extent::Whole || self.has_all_products {
            for (id, row) in &board.products {
                if row.sources.contains(&self.source) && !self.products.contains_key(id) {
                    staged.push((key(id), StagedProduct::Gone));
                }
            }
        }
        self.changes_products = !staged.is_empty();
        for rows in staged.chunks(STEP) {
            let mut batch = Batch::relaxed();
            rows.iter().for_each(|(key, row)| STAGED_PRODUCTS.put(&mut batch, key, row));
            self.catalogue.0.db.kv().write(batch)?;
        }
        Ok(())
    }
}

/// How deep JSON is nested.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut most, mut in_text, mut bytes) = (0_usize, 0, false, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_text => _ = bytes.next(),
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// What the parent's word is here. What its policy decided is decided for this site too.
fn claim_given(hash: ContentHash, given: Given) -> Claim {
    Claim { hash, revision: Some(given.revision), expired: given.expired, given: true }
}

impl Pending {
    fn new() -> Self {
        Self { batch: Batch::relaxed(), rows: 0, bytes: 0 }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // What it staged is swept when the source's next intake begins, or at the next start.
        let mut active = self.catalogue.0.active.lock();
        if active.get(&self.source) == Some(&self.token) {
            active.remove(&self.source);
        }
    }
}
