//! What a child site reads: the catalogue in the order of its changes.
//!
//! Each change of an update gives it a new place in the order, and it has only that one. So a child
//! that was away reads each update that changed once, however often it changed: at most the catalogue,
//! never its history.

use super::Shared;
use super::board::{Board, Sorted};
use super::record::BODIES;
use crate::error::SyncError;
use crate::lifecycle::{Expiry, State};
use crate::name::UpdateId;
use crate::taxonomy::Product;
use crate::update::Update;
use serde::{Deserialize, Serialize};

/// The most entries of a page.
pub const MAX_FEED_PAGE: usize = 1_000;
/// A page ends after so many bytes of updates.
pub const FEED_PAGE_BYTES: usize = 4 << 20;

/// How far a child has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What it had when it began: up to here all that it has is right. 0 is nothing.
    pub since: u64,
    /// The last place that it has read since then.
    pub after: u64,
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// Where this part begins. It is the very beginning, and not what was asked for, where the marks of updates
    /// that went since then are not kept any more: then all is read anew, and what the child has beyond it is
    /// gone.
    pub from: Place,
    /// Where to read on.
    pub next: Place,
    /// Whether that is all there is now. Then `next` is what to keep for the next time.
    pub is_last: bool,
    /// All products, if their list changed in this part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Vec<Product>>,
    /// The updates.
    pub entries: Vec<FeedEntry>,
}

/// One update in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Which.
    pub id: UpdateId,
    /// Its place.
    pub seq: u64,
    /// Its revision here.
    pub revision: u32,
    /// That it is expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expiry>,
    /// The update; none if it was purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Box<Update>>,
}

impl Shared {
    /// See [`super::Catalogue::changes`].
    pub(super) fn changes(&self, from: Place, limit: usize) -> Result<FeedPage, SyncError> {
        let limit = limit.clamp(1, MAX_FEED_PAGE);
        self.on_one_board(|board| self.feed_of(board, from, limit))
    }

    fn feed_of(
        &self,
        board: &Board,
        from: Place,
        limit: usize,
    ) -> Result<Option<FeedPage>, SyncError> {
        let last = board.marks.seq;
        // What it has may not be here any more, without a mark left to tell so; or it is of a catalogue that
        // went further than this one.
        let is_lost = from.since > 0 && from.since < board.marks.forgotten || from.after > last;
        let from = if is_lost { Place::default() } else { from };
        let rows = board.sorted(Sorted::Seq);
        let first = rows.partition_point(|row| board.seqs[*row as usize] <= from.after);
        let next = Place { since: last, after: last };
        let mut page = FeedPage { from, next, is_last: true, products: None, entries: Vec::new() };
        let mut bytes = 0;
        for row in &rows[first..] {
            let row = *row as usize;
            let is_purged = board.states[row] == State::Purged;
            if page.entries.len() >= limit || bytes >= FEED_PAGE_BYTES {
                let after = page.entries.last().map_or(from.after, |entry| entry.seq);
                page.next = Place { since: from.since, after };
                page.is_last = false;
                break;
            }
            // Who reads from the beginning has nothing that could be purged.
            if is_purged && from.since == 0 {
                continue;
            }
            let mut entry = FeedEntry {
                id: board.ids[row],
                seq: board.seqs[row],
                revision: board.revisions[row],
                expired: board.expired(row),
                update: None,
            };
            if !is_purged {
                let Some(update) = BODIES.get(&self.db, &board.body(row))? else {
                    return Ok(None);
                };
                bytes += serde_json::to_vec(&update).map_or(0, |json| json.len());
                entry.update = Some(Box::new(update));
            }
            page.entries.push(entry);
        }
        if from.after < board.marks.products && board.marks.products <= page.next.after {
            page.products = Some(board.products.values().map(|row| row.product.clone()).collect());
        }
        Ok(Some(page))
    }
}
