//! The catalogue in memory: columns that filters, orders and the feed are answered from.
//!
//! A board never changes. A commit makes the next one, from the rows that stay and the heads that
//! changed, and puts it in place of the old one in one step. A row is a place in the order of ids. What is
//! not asked of all updates at once, titles as written, files, rules, stays in the database.
//!
//! Two hundred thousand updates take about 70 MB.

use super::bits::Bits;
use super::graph::Edges;
use super::record::{BodyKey, ContentHash, HEADS, Head, Marks, PRODUCTS, ProductRow, body_key};
use super::text::{Tag, Texts, row_of};
use crate::lifecycle::{Expiry, State, Why};
use crate::name::{SourceName, UpdateId};
use crate::taxonomy::{Classification, Severity};
use crate::update::{Kind, Publication};
use jiff::Timestamp;
use sitedb::{Db, DbError, Order};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Heads that are read at a time.
const PAGE: usize = 1_000;

/// All updates as one commit left them, the marks of purged ones with them.
#[derive(Default)]
pub(crate) struct Board {
    /// Which update a row is, in order.
    pub ids: Vec<UpdateId>,
    /// The last place in the order of changes.
    pub marks: Marks,
    /// What is known of products, by id.
    pub products: BTreeMap<String, ProductRow>,
    pub seqs: Vec<u64>,
    pub revisions: Vec<u32>,
    /// Whose word is shown, as a place in `source_names`.
    pub sources: Vec<u32>,
    pub hashes: Vec<ContentHash>,
    /// Whether whose word is shown still says it.
    pub is_said: Vec<bool>,
    /// Whether that is the parent site, which decides on its life.
    pub is_given: Vec<bool>,
    /// Who else says it: few updates have such.
    pub also_said: BTreeMap<u32, Vec<(u32, ContentHash)>>,
    pub kinds: Vec<Kind>,
    pub classifications: Vec<Option<Classification>>,
    pub severities: Vec<Option<Severity>>,
    pub publications: Vec<Publication>,
    pub states: Vec<State>,
    /// Dates in seconds of Unix time.
    pub created: Vec<i64>,
    pub released: Vec<i64>,
    pub first_seen: Vec<i64>,
    pub changed: Vec<i64>,
    /// How many files a row has, and their bytes.
    pub files: Vec<u32>,
    pub sizes: Vec<u64>,
    /// Since when it is expired, and why.
    expired: Vec<Option<(i64, Reason)>>,
    pub titles: Texts,
    /// Names, articles and CVEs.
    pub words: Texts,
    /// Which products a row is for, as places in `product_names`.
    pub product_lists: Edges,
    pub product_names: Names,
    pub language_lists: Edges,
    pub language_names: Names,
    pub source_names: Names,
    /// What a row says it replaces: here or not.
    supersedes: Vec<UpdateId>,
    supersedes_ends: Vec<u32>,
    /// The rows that replace a row.
    pub superseders: Edges,
    /// The rows in the orders of [`Sorted`].
    sorted: [Vec<u32>; Sorted::ALL.len()],
}

/// [`Why`], without what the board knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Upstream,
    Withdrawn,
    Criteria,
    Superseded,
    Parent,
}

/// An order in which the rows are kept; equals are in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sorted {
    Released,
    Created,
    FirstSeen,
    Changed,
    Title,
    Severity,
    Seq,
}

impl Sorted {
    const ALL: [Sorted; 7] = [
        Self::Released,
        Self::Created,
        Self::FirstSeen,
        Self::Changed,
        Self::Title,
        Self::Severity,
        Self::Seq,
    ];
}

/// Names that many rows have, each once.
#[derive(Default)]
pub(crate) struct Names {
    pub all: Vec<String>,
    places: HashMap<String, u32>,
}

impl Names {
    /// The place of a name, which it gets if it has none.
    fn of(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.all.len() as u32;
        self.all.push(name.into());
        self.places.insert(name.into(), place);
        place
    }

    /// The place of a name, if any row has it.
    pub fn place(&self, name: &str) -> Option<u32> {
        self.places.get(name).copied()
    }

    /// The name at a place.
    pub fn name(&self, place: u32) -> &str {
        &self.all[place as usize]
    }
}

/// What a board takes of an update: from a head, or from the board before.
struct Row<'a> {
    id: UpdateId,
    seq: u64,
    revision: u32,
    source: Cow<'a, str>,
    hash: ContentHash,
    is_said: bool,
    is_given: bool,
    also_said: Vec<(Cow<'a, str>, ContentHash)>,
    kind: Kind,
    classification: Option<Classification>,
    severity: Option<Severity>,
    publication: Publication,
    is_purged: bool,
    created: i64,
    released: i64,
    first_seen: i64,
    changed: i64,
    expired: Option<(i64, Reason)>,
    files: u32,
    size: u64,
    title: Cow<'a, str>,
    words: Cow<'a, str>,
    products: Vec<Cow<'a, str>>,
    languages: Vec<Cow<'a, str>>,
    supersedes: Cow<'a, [UpdateId]>,
}

impl Row<'static> {
    fn of_head(id: UpdateId, head: &Head) -> Self {
        let card = &head.card;
        let owned = |text: &str| Cow::Owned(text.to_owned());
        let others = head.claims.iter().filter(|(source, _)| **source != head.source);
        let words = [(Tag::Name, card.name.as_str())].into_iter();
        let words = words.chain(card.articles.iter().map(|name| (Tag::Article, name.as_str())));
        let words = words.chain(card.cves.iter().map(|name| (Tag::Cve, name.as_str())));
        Self {
            id,
            seq: head.seq,
            revision: head.revision,
            source: owned(head.source.as_str()),
            hash: head.hash,
            is_said: head.claims.contains_key(&head.source),
            is_given: head.claims.get(&head.source).is_some_and(|claim| claim.given),
            also_said: others.map(|(source, claim)| (owned(source.as_str()), claim.hash)).collect(),
            kind: card.kind,
            classification: card.classification,
            severity: card.severity,
            publication: card.publication,
            is_purged: head.purged.is_some(),
            created: card.created.as_second(),
            released: card.released.as_second(),
            first_seen: head.first_seen.as_second(),
            changed: head.changed.as_second(),
            expired: head.expired.map(|expiry| (expiry.at.as_second(), expiry.why.into())),
            files: card.files,
            size: card.bytes,
            title: Cow::Owned(row_of([(Tag::Title, card.title.as_str())])),
            words: Cow::Owned(row_of(words)),
            products: card.products.iter().map(|product| owned(product)).collect(),
            languages: card.languages.iter().map(|language| owned(language.as_str())).collect(),
            supersedes: Cow::Owned(card.supersedes.iter().copied().collect()),
        }
    }
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Upstream => Self::Upstream,
            Why::Withdrawn => Self::Withdrawn,
            Why::Criteria => Self::Criteria,
            Why::Superseded { .. } => Self::Superseded,
            Why::Parent => Self::Parent,
        }
    }
}

impl Board {
    /// Reads all heads.
    pub fn load(db: &Db) -> Result<Self, DbError> {
        let (mut board, mut after) = (Self::begin(db)?, None);
        loop {
            let page = HEADS.scan(db, Order::Ascending, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (id, head) in &page {
                board.push(Row::of_head(*id, head));
            }
        }
        board.finish();
        Ok(board)
    }

    /// The next board: this one, with the heads of `changed`, which are in order, read anew.
    pub fn next(&self, db: &Db, changed: &[UpdateId]) -> Result<Self, DbError> {
        // Reading one by one costs more than reading in a row.
        if changed.len() > self.ids.len() / 8 {
            return Self::load(db);
        }
        let mut board = Self::begin(db)?;
        let mut changed = changed.iter().copied().peekable();
        let read = |board: &mut Self, id: UpdateId| -> Result<(), DbError> {
            if let Some(head) = HEADS.get(db, &id)? {
                board.push(Row::of_head(id, &head));
            }
            Ok(())
        };
        for (row, id) in self.ids.iter().enumerate() {
            while let Some(new) = changed.next_if(|new| new < id) {
                read(&mut board, new)?;
            }
            match changed.next_if_eq(id) {
                Some(id) => read(&mut board, id)?,
                None => board.push(self.row(row)),
            }
        }
        changed.try_for_each(|new| read(&mut board, new))?;
        board.finish();
        Ok(board)
    }

    fn begin(db: &Db) -> Result<Self, DbError> {
        let products = PRODUCTS.scan(db, Order::Ascending, None, usize::MAX)?;
        let marks = super::record::MARKS.get(db, &())?.unwrap_or_default();
        Ok(Self { marks, products: products.into_iter().collect(), ..Self::default() })
    }

    fn row(&self, row: usize) -> Row<'_> {
        let source = |place: u32| Cow::Borrowed(self.source_names.name(place));
        let others = self.also_said.get(&(row as u32)).into_iter().flatten();
        let products = self.product_lists.of(row).iter();
        let languages = self.language_lists.of(row).iter();
        Row {
            id: self.ids[row],
            seq: self.seqs[row],
            revision: self.revisions[row],
            source: source(self.sources[row]),
            hash: self.hashes[row],
            is_said: self.is_said[row],
            is_given: self.is_given[row],
            also_said: others.map(|(place, hash)| (source(*place), *hash)).collect(),
            kind: self.kinds[row],
            classification: self.classifications[row],
            severity: self.severities[row],
            publication: self.publications[row],
            is_purged: self.states[row] == State::Purged,
            created: self.created[row],
            released: self.released[row],
            first_seen: self.first_seen[row],
            changed: self.changed[row],
            expired: self.expired[row],
            files: self.files[row],
            size: self.sizes[row],
            title: Cow::Borrowed(self.titles.row(row)),
            words: Cow::Borrowed(self.words.row(row)),
            products: products.map(|at| Cow::Borrowed(self.product_names.name(*at))).collect(),
            languages: languages.map(|at| Cow::Borrowed(self.language_names.name(*at))).collect(),
            supersedes: Cow::Borrowed(self.supersedes(row)),
        }
    }

    /// Adds the next row. Its state is only whether it is purged until all are there.
    fn push(&mut self, row: Row<'_>) {
        let at = self.ids.len() as u32;
        debug_assert!(self.ids.last().is_none_or(|last| *last < row.id));
        self.ids.push(row.id);
        self.seqs.push(row.seq);
        self.revisions.push(row.revision);
        self.sources.push(self.source_names.of(&row.source));
        self.hashes.push(row.hash);
        self.is_said.push(row.is_said);
        self.is_given.push(row.is_given);
        if !row.also_said.is_empty() {
            let others = row.also_said.iter();
            let others = others.map(|(source, hash)| (self.source_names.of(source), *hash));
            self.also_said.insert(at, others.collect());
        }
        self.kinds.push(row.kind);
        self.classifications.push(row.classification);
        self.severities.push(row.severity);
        self.publications.push(row.publication);
        self.states.push(if row.is_purged { State::Purged } else { State::Current });
        self.created.push(row.created);
        self.released.push(row.released);
        self.first_seen.push(row.first_seen);
        self.changed.push(row.changed);
        self.expired.push(row.expired);
        self.files.push(row.files);
        self.sizes.push(row.size);
        self.titles.push(&row.title);
        self.words.push(&row.words);
        self.product_lists.push(row.products.iter().map(|name| self.product_names.of(name)));
        self.language_lists.push(row.languages.iter().map(|name| self.language_names.of(name)));
        self.supersedes.extend_from_slice(&row.supersedes);
        self.supersedes_ends.push(self.supersedes.len() as u32);
    }

    /// Works out what follows from all rows together.
    fn finish(&mut self) {
        self.titles.shrink();
        self.words.shrink();
        self.supersedes.shrink_to_fit();
        let mut edges = Edges::default();
        for row in 0..self.ids.len() {
            let here = self.supersedes(row).iter().filter_map(|id| self.find(*id));
            edges.push(here.map(|row| row as u32));
        }
        let edges = edges.without_rings();
        let is_offered: Vec<bool> = (0..self.ids.len()).map(|row| self.is_offered(row)).collect();
        self.superseders = edges.reached_from(is_offered).reversed();
        for row in 0..self.ids.len() {
            if self.states[row] != State::Purged {
                self.states[row] = match (self.expired[row], self.superseders.of(row)) {
                    (Some(_), _) => State::Expired,
                    (None, []) => State::Current,
                    (None, _) => State::Superseded,
                };
            }
        }
        self.marks.seq = self.seqs.iter().copied().max().unwrap_or(0).max(self.marks.seq);
        self.sorted = Sorted::ALL.map(|by| self.sort(by));
    }

    /// Whether a row makes those that it names superseded. One that its upstream took back, or that left
    /// the catalogue for another reason than being superseded itself, does not. A purged one still does: what
    /// it replaced is no better for it.
    fn is_offered(&self, row: usize) -> bool {
        let left = self.expired[row].is_some_and(|(_, reason)| {
            matches!(reason, Reason::Upstream | Reason::Withdrawn | Reason::Criteria)
        });
        self.publications[row] == Publication::Published && !left
    }

    fn sort(&self, by: Sorted) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..self.ids.len() as u32).collect();
        match by {
            Sorted::Title => rows.sort_by(|a, b| {
                self.titles.row(*a as usize).cmp(self.titles.row(*b as usize)).then(a.cmp(b))
            }),
            Sorted::Seq => rows.sort_unstable_by_key(|row| self.seqs[*row as usize]),
            _ => rows.sort_unstable_by_key(|row| (self.numbers(by, *row as usize), *row)),
        }
        rows
    }

    /// What a row is sorted by in an order of numbers.
    pub fn numbers(&self, by: Sorted, row: usize) -> (i64, i64) {
        let severity = || self.severities[row].map_or(0, |severity| severity as i64 + 1);
        match by {
            Sorted::Released => (self.released[row], 0),
            Sorted::Created => (self.created[row], 0),
            Sorted::FirstSeen => (self.first_seen[row], 0),
            Sorted::Changed => (self.changed[row], 0),
            Sorted::Severity => (severity(), self.released[row]),
            Sorted::Seq => (self.seqs[row] as i64, 0),
            Sorted::Title => (0, 0),
        }
    }

    /// All rows in an order.
    pub fn sorted(&self, by: Sorted) -> &[u32] {
        &self.sorted[by as usize]
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The row of an update.
    pub fn find(&self, id: UpdateId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    /// The row of an update that is not purged.
    pub fn visible(&self, id: UpdateId) -> Option<usize> {
        self.find(id).filter(|row| self.states[*row] != State::Purged)
    }

    /// Whether a row is what people call an update, and not a category or a detectoid.
    pub fn is_update(&self, row: usize) -> bool {
        matches!(self.kinds[row], Kind::Software | Kind::Driver)
    }

    /// The rows that are not purged.
    pub fn all_visible(&self) -> Bits {
        Bits::column(&self.states, |state| *state != State::Purged)
    }

    /// What a row says it replaces: here or not.
    pub fn supersedes(&self, row: usize) -> &[UpdateId] {
        let start = row.checked_sub(1).map_or(0, |before| self.supersedes_ends[before]);
        &self.supersedes[start as usize..self.supersedes_ends[row] as usize]
    }

    /// Of those that replace a row, the one that was created first.
    pub fn first_superseder(&self, row: usize) -> Option<usize> {
        let all = self.superseders.of(row).iter().map(|by| *by as usize);
        all.min_by_key(|by| (self.created[*by], *by))
    }

    /// That a row is expired.
    pub fn expired(&self, row: usize) -> Option<Expiry> {
        let (at, reason) = self.expired[row]?;
        let why = match reason {
            Reason::Upstream => Why::Upstream,
            Reason::Withdrawn => Why::Withdrawn,
            Reason::Criteria => Why::Criteria,
            Reason::Parent => Why::Parent,
            // A moment after what replaced it changed its mind, and before the policy is asked, nothing
            // replaces it any more.
            Reason::Superseded => {
                Why::Superseded { by: self.ids[self.first_superseder(row).unwrap_or(row)] }
            }
        };
        Some(Expiry { at: time(at), why })
    }

    /// Whose word a row shows.
    pub fn source(&self, row: usize) -> SourceName {
        self.source_at(self.sources[row])
    }

    fn source_at(&self, place: u32) -> SourceName {
        self.source_names.name(place).parse().expect("only names of sources are kept")
    }

    /// Who says a row, the one that is shown first, and what each says.
    pub fn said_by(&self, row: usize) -> impl Iterator<Item = (u32, ContentHash)> {
        let first = self.is_said[row].then(|| (self.sources[row], self.hashes[row]));
        let others = self.also_said.get(&(row as u32)).into_iter().flatten().copied();
        first.into_iter().chain(others)
    }

    /// The names of who says a row.
    pub fn sources_of(&self, row: usize) -> Vec<SourceName> {
        self.said_by(row).map(|(place, _)| self.source_at(place)).collect()
    }

    /// What `source` says of a row.
    pub fn said(&self, row: usize, source: &SourceName) -> Option<ContentHash> {
        let place = self.source_names.place(source.as_str())?;
        self.said_by(row).find(|(by, _)| *by == place).map(|(_, hash)| hash)
    }

    /// Where the body that a row shows is.
    pub fn body(&self, row: usize) -> BodyKey {
        body_key(self.ids[row], &self.source(row), self.hashes[row])
    }
}

/// A time from seconds that one was made of.
pub(crate) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("the seconds of a time are those of one")
}
