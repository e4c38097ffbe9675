//! From a commit to what everybody sees.
//!
//! The commit is one small synced batch. What was staged is applied after it, in batches that each move
//! some rows from staged to published: so a batch that was written is never applied twice, and one that
//! was not is applied by whoever comes next, at the latest when the catalogue is opened again. The new
//! board is put in place at the end, and only then are bodies deleted that the old one showed.

use super::Shared;
use super::board::Board;
use super::merge::{Merge, Merged};
use super::record::{
    BODIES, BodyKey, COMMIT, Commit, DROPPED, Dropped, HEADS, MARKS, Marks, PRODUCTS, ProductRow,
    SOURCES, STAGED, STAGED_PRODUCTS, SourceRow, Staged, StagedProduct,
};
use crate::error::SyncError;
use crate::name::{SourceName, UpdateId};
use jiff::Timestamp;
use sitedb::{Batch, Order};
use std::sync::Arc;

/// Rows that are moved in one batch; few in tests, so that they stop between two batches.
pub(super) const STEP: usize = if cfg!(test) { 3 } else { 256 };

/// What those who change the catalogue share; whoever holds it is alone.
pub(super) struct Work {
    /// The last place in the order of changes that was given away.
    pub seq: u64,
    /// Whose word counts first.
    pub order: Vec<SourceName>,
    /// The board may be behind the heads: a change of heads failed half-way.
    pub is_behind: bool,
    /// Whose word counts first changed at this time, and not all is shown in that order yet.
    pub reorders: Option<Timestamp>,
    /// How many intakes were begun.
    pub intakes: u64,
}

impl Work {
    /// The next place in the order of changes.
    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

impl Shared {
    /// Makes what `source` staged in `run` the catalogue's, and shows it.
    pub(super) fn commit(
        &self,
        work: &mut Work,
        commit: Commit,
        state: serde_json::Value,
    ) -> Result<(), SyncError> {
        let mut batch = Batch::new();
        SOURCES.put(&mut batch, &commit.source.to_string(), &SourceRow { state, at: commit.at });
        COMMIT.put(&mut batch, &(), &commit);
        self.db.kv().write(batch)?;
        self.catch_up(work)
    }

    /// Publishes what was committed, and shows what was published.
    pub(super) fn catch_up(&self, work: &mut Work) -> Result<(), SyncError> {
        if let Some(at) = work.reorders {
            self.reorder(work, at)?;
        }
        // The table is asked, as a write may have been made though it was told that it failed.
        if let Some(commit) = COMMIT.get(&self.db, &())? {
            let was_behind = std::mem::replace(&mut work.is_behind, true);
            let board = (!was_behind).then(|| self.board());
            let changed = self.publish(work, &commit, board.as_deref())?;
            work.is_behind = was_behind;
            // Nothing is staged any more that could need a body which is dropped.
            self.active.lock().remove(&commit.source);
            return self.show(work, &changed);
        }
        if work.is_behind { self.show(work, &[]) } else { Ok(()) }
    }

    /// Puts the next board in place; `changed` are the heads that changed, in order.
    pub(super) fn show(&self, work: &mut Work, changed: &[UpdateId]) -> Result<(), SyncError> {
        let was_behind = std::mem::replace(&mut work.is_behind, true);
        let mut board = match was_behind {
            true => Board::load(&self.db)?,
            false => self.board().next(&self.db, changed)?,
        };
        self.forget_products(work, &mut board)?;
        *self.board.write() = Arc::new(board);
        work.is_behind = false;
        if let Err(error) = self.sweep_dropped() {
            // It is swept by the next one; what is shown is right already.
            tracing::warn!(%error, "bodies of updates that are gone could not be deleted yet");
        }
        Ok(())
    }

    /// Moves what was staged to where it is published; the updates that changed, in order. `board`, if it is
    /// not behind, tells which updates are new, so that their heads need not be looked for.
    fn publish(
        &self,
        work: &mut Work,
        commit: &Commit,
        board: Option<&Board>,
    ) -> Result<Vec<UpdateId>, SyncError> {
        let run = (commit.source.to_string(), commit.run);
        let marks = MARKS.get(&self.db, &())?.unwrap_or_default();
        let products = self.publish_products(work, commit)?;
        // Nearly always nothing waits to be deleted, and then none of it need be looked for.
        let is_swept = DROPPED.scan(&self.db, Order::Ascending, None, 1)?.is_empty();
        let (mut changed, mut after) = (Vec::new(), None);
        loop {
            let page = STAGED.page_below(&self.db, &run, after.as_ref(), STEP)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut batch = Batch::relaxed();
            for (key, staged) in page {
                STAGED.delete(&mut batch, &key);
                let (_, (_, id)) = key;
                let is_new = board.is_some_and(|board| board.find(id).is_none());
                let old = if is_new { None } else { HEADS.get(&self.db, &id)? };
                let seq = work.next_seq();
                let merge = Merge { id, order: &work.order, now: commit.at, seq };
                let body = |key: &BodyKey| BODIES.get(&self.db, key);
                if let Some(merged) = merge.said(old, &commit.source, staged, body)? {
                    put(&mut batch, id, &merged);
                    if !is_swept {
                        self.keep(&mut batch, id, &merged)?;
                    }
                    changed.push(id);
                }
            }
            self.db.kv().write(batch)?;
        }
        let mut batch = Batch::new();
        COMMIT.delete(&mut batch, &());
        let products = products.unwrap_or(marks.products);
        MARKS.put(&mut batch, &(), &Marks { seq: work.seq, products, ..marks });
        self.db.kv().write(batch)?;
        Ok(changed)
    }

    /// The same for products; the place of the change, if there is one.
    fn publish_products(&self, work: &mut Work, commit: &Commit) -> Result<Option<u64>, SyncError> {
        let staged = STAGED_PRODUCTS.below(&self.db, &(commit.source.to_string(), commit.run))?;
        if staged.is_empty() {
            return Ok(None);
        }
        let seq = work.next_seq();
        for rows in staged.chunks(STEP) {
            let mut batch = Batch::relaxed();
            for (key, staged) in rows {
                STAGED_PRODUCTS.delete(&mut batch, key);
                let id = &key.1.1;
                let old = PRODUCTS.get(&self.db, id)?;
                let mut sources = old.as_ref().map(|row| row.sources.clone()).unwrap_or_default();
                let product = match staged {
                    StagedProduct::Said(product) => {
                        sources.insert(commit.source.clone());
                        Some(product.clone())
                    }
                    StagedProduct::Gone => {
                        sources.remove(&commit.source);
                        old.map(|row| row.product)
                    }
                };
                // One that no source says any more keeps its name and family as long as updates are for it:
                // `Shared::forget_products` lets go of it.
                match product {
                    Some(product) => PRODUCTS.put(&mut batch, id, &ProductRow { product, sources }),
                    None => PRODUCTS.delete(&mut batch, id),
                }
            }
            // A start that comes next must find that the list changed, though nothing is staged then.
            let marks = MARKS.get(&self.db, &())?.unwrap_or_default();
            MARKS.put(&mut batch, &(), &Marks { seq, products: seq, ..marks });
            self.db.kv().write(batch)?;
        }
        Ok(Some(seq))
    }

    /// Lets go of products that no source says any more and no update is for.
    fn forget_products(&self, work: &mut Work, board: &mut Board) -> Result<(), SyncError> {
        let is_left = |(id, row): &(&String, &ProductRow)| {
            row.sources.is_empty() && board.product_names.place(id).is_none()
        };
        let left: Vec<String> =
            board.products.iter().filter(is_left).map(|(id, _)| id.clone()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let seq = work.next_seq();
        let marks = Marks { seq, products: seq, ..board.marks };
        // In one batch: a child is to hear of all that went.
        let mut batch = Batch::new();
        left.iter().for_each(|id| PRODUCTS.delete(&mut batch, id));
        MARKS.put(&mut batch, &(), &marks);
        self.db.kv().write(batch)?;
        board.products.retain(|id, _| !left.contains(id));
        board.marks = marks;
        Ok(())
    }

    /// Deletes bodies that nothing shows any more. Those of a source whose intake is not finished wait: it may
    /// have staged one of them again.
    pub(super) fn sweep_dropped(&self) -> Result<(), SyncError> {
        let active: Vec<String> = self.active.lock().keys().map(ToString::to_string).collect();
        let mut after = None;
        loop {
            let page = DROPPED.scan(&self.db, Order::Ascending, after.as_ref(), STEP)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut batch = Batch::relaxed();
            for (key, _) in page.into_iter().filter(|(key, _)| !active.contains(&key.1.0)) {
                BODIES.delete(&mut batch, &key);
                DROPPED.delete(&mut batch, &key);
            }
            self.db.kv().write(batch)?;
        }
    }

    /// Keeps what is said again from being deleted, if it was about to be.
    fn keep(&self, batch: &mut Batch, id: UpdateId, merged: &Merged) -> Result<(), SyncError> {
        for key in super::merge::bodies(id, &merged.head) {
            if DROPPED.get(&self.db, &key)?.is_some() {
                DROPPED.delete(batch, &key);
            }
        }
        Ok(())
    }

    /// Deletes what syncs staged that were not committed: of `source`, or of all.
    pub(super) fn sweep_staged(&self, source: Option<&SourceName>) -> Result<(), SyncError> {
        let source = source.map(ToString::to_string);
        let mut after = None;
        loop {
            let page = match &source {
                Some(source) => STAGED.page_below(&self.db, source, after.as_ref(), STEP)?,
                None => STAGED.scan(&self.db, Order::Ascending, after.as_ref(), STEP)?,
            };
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut batch = Batch::relaxed();
            for (key, staged) in page {
                STAGED.delete(&mut batch, &key);
                let (Staged::Said { claim, .. }, (by, (_, id))) = (staged, key) else { continue };
                let head = HEADS.get(&self.db, &id)?;
                let body: BodyKey = (id, (by, claim.hash.0));
                let kept = head.is_some_and(|head| super::merge::bodies(id, &head).contains(&body));
                if !kept {
                    BODIES.delete(&mut batch, &body);
                }
            }
            self.db.kv().write(batch)?;
        }
        let products = match &source {
            Some(source) => STAGED_PRODUCTS.below(&self.db, source)?,
            None => STAGED_PRODUCTS.scan(&self.db, Order::Ascending, None, usize::MAX)?,
        };
        for rows in products.chunks(STEP) {
            let mut batch = Batch::relaxed();
            rows.iter().for_each(|(key, _)| STAGED_PRODUCTS.delete(&mut batch, key));
            self.db.kv().write(batch)?;
        }
        Ok(())
    }
}

/// Writes what was decided of an update.
pub(super) fn put(batch: &mut Batch, id: UpdateId, merged: &Merged) {
    HEADS.put(batch, &id, &merged.head);
    for key in &merged.dropped {
        DROPPED.put(batch, key, &Dropped {});
    }
}
