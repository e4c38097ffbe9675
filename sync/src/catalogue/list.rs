//! Lists: which updates, in which order, a page at a time.

use super::board::{Board, Sorted, time};
use super::record::{BODIES, Card, HEADS};
use super::{Deployments, Shared};
use crate::error::{Cause, SyncError};
use crate::filter::{Filter, View};
use crate::lifecycle::State;
use crate::name::{SourceName, UpdateId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most that a page has.
pub const MAX_PAGE: usize = 1_000;

/// On how many machines updates are required: asked of who keeps compliance.
pub trait RequiredCounts: Send + Sync {
    /// On how many machines `update` is required.
    fn of(&self, update: UpdateId) -> u64;

    /// Calls `each` with every update that is required anywhere, and on how many machines. What is not
    /// named is required nowhere.
    fn each(&self, each: &mut dyn FnMut(UpdateId, u64));
}

/// No machine has reported: nothing is known to be required.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReports;

impl RequiredCounts for NoReports {
    fn of(&self, _: UpdateId) -> u64 {
        0
    }
    fn each(&self, _: &mut dyn FnMut(UpdateId, u64)) {}
}

/// A question to the catalogue.
#[derive(Clone)]
pub struct Query {
    /// Which updates. Categories and detectoids are shown only to a filter that names a `kind`.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// After which one, as the page before said.
    pub after: Option<Cursor>,
    /// At most so many; more than [`MAX_PAGE`] are never given.
    pub limit: usize,
    /// The time, for filters that speak of days ago.
    pub now: Timestamp,
    /// Who knows which updates are deployed; without it no update is, and a filter that asks gets a hint.
    pub deployments: Option<Arc<dyn Deployments>>,
}

impl Query {
    /// The first hundred that `filter` lets through, the newest first.
    pub fn new(filter: Filter, now: Timestamp) -> Self {
        Self { filter, order: Order::default(), after: None, limit: 100, now, deployments: None }
    }
}

/// An order of updates. Equals are in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// By what.
    pub by: By,
    /// Whether the last comes first.
    pub descending: bool,
}

impl Default for Order {
    /// The newest first.
    fn default() -> Self {
        Self { by: By::Released, descending: true }
    }
}

/// What updates are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// When they were released.
    #[default]
    Released,
    /// When they were made.
    Created,
    /// When they came into this catalogue.
    FirstSeen,
    /// When they were changed in this catalogue.
    Changed,
    /// Their titles, by characters, in lower case.
    Title,
    /// How bad what they mend is, then when they were released.
    Severity,
    /// On how many machines they are required, then when they were released.
    Required,
}

impl By {
    /// All of them.
    pub const ALL: [By; 7] = [
        Self::Released,
        Self::Created,
        Self::FirstSeen,
        Self::Changed,
        Self::Title,
        Self::Severity,
        Self::Required,
    ];

    /// The word for it in commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Created => "created",
            Self::FirstSeen => "first-seen",
            Self::Changed => "changed",
            Self::Title => "title",
            Self::Severity => "severity",
            Self::Required => "required",
        }
    }
}

/// Text that is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no order; want one of released, created, first-seen, changed, title, severity, required, with '-' in front for the last first"
)]
pub struct NotAnOrder(String);

impl FromStr for Order {
    type Err = NotAnOrder;
    /// Reads `title`, and `-released` for the last first.
    fn from_str(text: &str) -> Result<Self, NotAnOrder> {
        let (word, descending) = match text.strip_prefix('-') {
            Some(word) => (word, true),
            None => (text, false),
        };
        let by = By::ALL.into_iter().find(|by| by.as_str() == word);
        let by = by.ok_or_else(|| NotAnOrder(text.chars().take(50).collect()))?;
        Ok(Self { by, descending })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.descending { "-" } else { "" };
        write!(f, "{sign}{}", self.by.as_str())
    }
}

/// A place in a list, after which it goes on. It holds the place's own key, so that it stays right
/// when the catalogue changes between two pages.
///
/// Its text is for handing back, not for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    by: By,
    pub(super) key: Key,
    pub(super) id: UpdateId,
}

/// What an update is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Numbers(i64, i64),
    Text(String),
}

/// Text that is no place in a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a list; hand back what the page before gave as `next`")]
pub struct NotACursor(String);

impl FromStr for Cursor {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let read = || {
            let (by, rest) = text.split_once('.')?;
            let by = By::ALL.into_iter().find(|it| it.as_str() == by)?;
            let (id, key) = rest.split_once('.')?;
            let id = id.parse().ok()?;
            let key = match by {
                By::Title => Key::Text(key.into()),
                _ => {
                    let (first, second) = key.split_once('.')?;
                    Key::Numbers(first.parse().ok()?, second.parse().ok()?)
                }
            };
            Some(Self { by, key, id })
        };
        read().ok_or_else(|| NotACursor(text.chars().take(100).collect()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Key::Numbers(first, second) => {
                write!(f, "{}.{}.{first}.{second}", self.by.as_str(), self.id)
            }
            Key::Text(text) => write!(f, "{}.{}.{text}", self.by.as_str(), self.id),
        }
    }
}

impl TryFrom<String> for Cursor {
    type Error = NotACursor;
    fn try_from(text: String) -> Result<Self, NotACursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> String {
        cursor.to_string()
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The updates.
    pub updates: Vec<Listed>,
    /// How many the filter lets through in all.
    pub total: u64,
    /// After which one the next page begins; none, if this is the last one.
    pub next: Option<Cursor>,
    /// What of the filter may be a slip of the pen: names that nothing here has.
    pub hints: Vec<String>,
}

/// One update of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Which.
    pub id: UpdateId,
    /// Its revision.
    pub revision: u32,
    /// How far its life is.
    pub state: State,
    /// Whose word is shown.
    pub source: SourceName,
    /// On how many machines it is required.
    pub required: u64,
    /// When it came into this catalogue.
    pub first_seen: Timestamp,
    /// The rest.
    #[serde(flatten)]
    pub card: Card,
}

/// The rows of a list in order, and what each is sorted by.
struct Ranked<'a> {
    board: &'a Board,
    by: By,
    /// On how many machines each row is required; asked for only where the order needs it.
    required: Vec<u64>,
    rows: Vec<u32>,
}

impl Shared {
    /// See [`super::Catalogue::list`].
    pub(super) fn list(
        &self,
        query: &Query,
        required: &dyn RequiredCounts,
    ) -> Result<Page, SyncError> {
        if query.after.as_ref().is_some_and(|after| after.by != query.order.by) {
            let detail =
                "the place to go on at is of a list in another order; begin at the first page";
            return Err(SyncError::new(Cause::Misconfigured, detail));
        }
        self.on_one_board(|board| self.list_of(board, query, required))
    }

    /// See [`super::Catalogue::listed`].
    pub(super) fn listed(
        &self,
        ids: &[UpdateId],
        required: &dyn RequiredCounts,
    ) -> Result<Vec<Listed>, SyncError> {
        self.on_one_board(|board| {
            let mut all = Vec::with_capacity(ids.len());
            for row in ids.iter().filter_map(|id| board.visible(*id)) {
                let Some(listed) = self.listed_row(board, row, required)? else { return Ok(None) };
                all.push(listed);
            }
            Ok(Some(all))
        })
    }

    /// A row as lists show it; nothing, if a newer board has taken its place.
    fn listed_row(
        &self,
        board: &Board,
        row: usize,
        required: &dyn RequiredCounts,
    ) -> Result<Option<Listed>, SyncError> {
        let Some(card) = self.card(board, row)? else { return Ok(None) };
        Ok(Some(Listed {
            id: board.ids[row],
            revision: board.revisions[row],
            state: board.states[row],
            source: board.source(row),
            required: required.of(board.ids[row]),
            first_seen: time(board.first_seen[row]),
            card,
        }))
    }

    fn list_of(
        &self,
        board: &Board,
        query: &Query,
        required: &dyn RequiredCounts,
    ) -> Result<Option<Page>, SyncError> {
        let deployments = query.deployments.as_deref();
        let view = View { board, required, deployments, now: query.now };
        let (hits, hints) = query.filter.rows(&view);
        let total = hits.count() as u64;
        let ranked = Ranked::new(board, query.order.by, required, |row| hits.contains(row));
        let limit = query.limit.clamp(1, MAX_PAGE);
        // One more than is shown tells whether there is a next page.
        let mut rows = ranked.after(query.after.as_ref(), query.order.descending, limit + 1);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let mut updates = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(listed) = self.listed_row(board, *row, required)? else { return Ok(None) };
            updates.push(listed);
        }
        let next = rows.last().filter(|_| has_more);
        let next =
            next.map(|row| Cursor { by: ranked.by, key: ranked.key(*row), id: board.ids[*row] });
        Ok(Some(Page { updates, total, next, hints }))
    }

    /// What a board shows of a row; nothing, if a newer board has taken its place. The database may be ahead of
    /// the board; then the body, which does not change, tells.
    pub(super) fn card(&self, board: &Board, row: usize) -> Result<Option<Card>, SyncError> {
        let (id, key) = (board.ids[row], board.body(row));
        let head = HEADS.get(&self.db, &id)?;
        match head.filter(|head| head.body(id) == key && head.purged.is_none()) {
            Some(head) => Ok(Some(head.card)),
            None => Ok(BODIES.get(&self.db, &key)?.map(|update| Card::of(&update))),
        }
    }
}

impl<'a> Ranked<'a> {
    fn new(
        board: &'a Board,
        by: By,
        counts: &dyn RequiredCounts,
        is_hit: impl Fn(usize) -> bool,
    ) -> Self {
        let sorted = match by {
            By::Released | By::Required => Sorted::Released,
            By::Created => Sorted::Created,
            By::FirstSeen => Sorted::FirstSeen,
            By::Changed => Sorted::Changed,
            By::Title => Sorted::Title,
            By::Severity => Sorted::Severity,
        };
        let rows = board.sorted(sorted).iter().copied();
        let mut rows: Vec<u32> = rows.filter(|row| is_hit(*row as usize)).collect();
        let mut required = Vec::new();
        if by == By::Required {
            required.resize(board.len(), 0);
            counts.each(&mut |id, count| {
                if let Some(row) = board.find(id) {
                    required[row] = count;
                }
            });
            let is_required = |row: &u32| required[*row as usize] > 0;
            let (mut some, none) = rows.into_iter().partition::<Vec<_>, _>(is_required);
            // Stable: among equals the order by release stays.
            some.sort_by_key(|row| required[*row as usize]);
            rows = none;
            rows.append(&mut some);
        }
        Self { board, by, required, rows }
    }

    fn key(&self, row: usize) -> Key {
        match self.by {
            By::Title => Key::Text(self.board.titles.row(row).into()),
            By::Required => {
                let count = self.required[row];
                Key::Numbers(i64::try_from(count).unwrap_or(i64::MAX), self.board.released[row])
            }
            By::Released => self.numbers(Sorted::Released, row),
            By::Created => self.numbers(Sorted::Created, row),
            By::FirstSeen => self.numbers(Sorted::FirstSeen, row),
            By::Changed => self.numbers(Sorted::Changed, row),
            By::Severity => self.numbers(Sorted::Severity, row),
        }
    }

    fn numbers(&self, by: Sorted, row: usize) -> Key {
        let (first, second) = self.board.numbers(by, row);
        Key::Numbers(first, second)
    }

    /// At most `limit` rows, from one end, or after a place.
    fn after(&self, cursor: Option<&Cursor>, descending: bool, limit: usize) -> Vec<usize> {
        let place = |row: u32| (self.key(row as usize), self.board.ids[row as usize]);
        let is_before = |row: &u32, or_at: bool| {
            cursor.is_none_or(|cursor| match place(*row).cmp(&(cursor.key.clone(), cursor.id)) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => or_at,
                std::cmp::Ordering::Greater => false,
            })
        };
        let rows = &self.rows;
        let row = |row: &u32| *row as usize;
        match (cursor, descending) {
            (None, false) => rows.iter().take(limit).map(row).collect(),
            (Some(_), false) => {
                let from = rows.partition_point(|row| is_before(row, true));
                rows[from..].iter().take(limit).map(row).collect()
            }
            (_, true) => {
                let to = rows.partition_point(|row| is_before(row, false));
                rows[..to].iter().rev().take(limit).map(row).collect()
            }
        }
    }
}
