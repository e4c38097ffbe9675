//! What the client knows of each update, and what of that the site does not know yet.
//!
//! What a scan found is recorded here before anything of it is sent. States that changed become messages, and so
//! does the scan's end; they are numbered without a gap, and wait until the site says that it has them. The numbers
//! count within one life of the ledger: one that begins anew, since the machine is new or the file was lost, has
//! another [`Life`], under which the site expects all states first. So no number is ever used twice for two things.
//!
//! * What [`Ledger::record`] took survives the end of the process; it is on disk ([`log`]) before it returns.
//! * Messages that wait are bounded: where there are too many, one with all states takes their place.
//! * The site's states, and then the messages that wait in their order, make the client's states.
//!
//! How a batch looks to the site is in [`report`]; when the next one is sent is decided in [`pace`].

pub mod log;
pub mod pace;
pub mod report;

use crate::applicability::State;
use jiff::Timestamp;
use log::{Log, LogError, Record};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::path::Path;
use sync::name::UpdateId;

/// How many changes may wait; a catalogue has fewer updates, so all states are fewer.
pub const MAX_WAITING: usize = 250_000;

/// Which life of a ledger its numbers count in: drawn at random when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Life(pub NonZeroU64);

/// What is known of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its state.
    pub state: State,
    /// The revision that was assessed.
    pub revision: u32,
    /// Whether it is required only until the machine is restarted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_restart: bool,
}

/// What is known of an update, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What.
    #[serde(flatten)]
    pub known: Known,
    /// When a scan first found that, by the machine's clock.
    pub since: Timestamp,
}

/// A message: the state of an update is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// Which update.
    pub update: UpdateId,
    /// Its revision; of one that the catalogue has no more, the one that was assessed last.
    pub revision: u32,
    /// What is known of it; none, if the catalogue has it no more.
    pub known: Option<Known>,
    /// When the scan found it, by the machine's clock.
    pub found: Timestamp,
}

/// A message: a scan came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanEnd {
    /// When, by the machine's clock.
    pub at: Timestamp,
    /// With which code it failed; none, if it did not.
    pub failed: Option<u32>,
    /// When one last did not fail.
    pub completed: Option<Timestamp>,
    /// The place of the catalogue that was scanned by.
    pub catalogue: u64,
}

/// What is sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The life in which the numbers count.
    pub life: Life,
    /// The first number that it covers.
    pub first: u64,
    /// The number after the last one: what the site acknowledges.
    pub next: u64,
    /// What is in it.
    pub content: Content,
    /// The last scan.
    pub scan: Option<ScanEnd>,
}

/// What is in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All states: what the site knew before counts no more.
    All(Vec<(UpdateId, Held)>),
    /// What changed: of each update the last change.
    Changes(BTreeMap<UpdateId, Change>),
}

/// The ledger of a client, and its file.
#[derive(Debug)]
pub struct Ledger {
    log: Log,
    book: Book,
}

/// What stands in a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    life: Life,
    states: BTreeMap<UpdateId, Held>,
    waiting: VecDeque<Change>,
    scan: Option<ScanEnd>,
    /// The number of the next message.
    next: u64,
    /// The number before which the site has all.
    acknowledged: u64,
    /// Whether the site must be told all states, and what `next` was when that began: only what is sent later
    /// tells them.
    owes_all: Option<u64>,
}

impl Book {
    fn new(life: Life) -> Self {
        let (states, waiting) = (BTreeMap::new(), VecDeque::new());
        let (next, acknowledged, owes_all) = (0, 0, Some(0));
        Self { life, states, waiting, scan: None, next, acknowledged, owes_all }
    }

    /// The changes that make of the states those that a scan found.
    fn changes(&self, found: &BTreeMap<UpdateId, Known>, now: Timestamp) -> Vec<Change> {
        let is_new = |(update, known): &(&UpdateId, &Known)| {
            self.states.get(update).map(|held| &held.known) != Some(*known)
        };
        let new = found.iter().filter(is_new);
        let new = new.map(|(update, known)| (*update, known.revision, Some(*known)));
        let gone = self.states.iter().filter(|(update, _)| !found.contains_key(update));
        let gone = gone.map(|(update, held)| (*update, held.known.revision, None));
        let changes = new.chain(gone).zip(self.next..);
        changes
            .map(|((update, revision, known), number)| Change {
                number,
                update,
                revision,
                known,
                found: now,
            })
            .collect()
    }

    /// Takes what stands in a record of the file.
    fn apply(&mut self, record: Record) {
        match record {
            Record::Book(book) => *self = *book,
            Record::Scan { changes, end } => {
                for change in changes {
                    let since = change.found;
                    match change.known {
                        Some(known) => self.states.insert(change.update, Held { known, since }),
                        None => self.states.remove(&change.update),
                    };
                    self.next = change.number.saturating_add(1);
                    self.waiting.push_back(change);
                }
                self.next = self.next.saturating_add(1);
                self.scan = Some(end);
                if self.waiting.len() > MAX_WAITING {
                    self.owe_all();
                }
            }
            Record::Acknowledged(next) => {
                if self.owes_all.is_some_and(|since| next >= since) {
                    self.owes_all = None;
                }
                while self.waiting.front().is_some_and(|change| change.number < next) {
                    self.waiting.pop_front();
                }
                self.acknowledged = self.acknowledged.max(next);
                if next > self.next {
                    // The site has what this ledger does not remember to have said.
                    self.next = next;
                    self.owe_all();
                }
            }
            Record::OweAll => self.owe_all(),
        }
    }

    fn owe_all(&mut self) {
        // All states need a number that the site has not seen.
        if self.next == self.acknowledged {
            self.next = self.next.saturating_add(1);
        }
        self.owes_all = Some(self.next);
        self.waiting.clear();
    }
}

impl Ledger {
    /// Opens the ledger of that file, or begins one, of a life of that number.
    ///
    /// Where the last record was never written to its end, what is before it counts: nothing of it was ever
    /// sent. Where a record is damaged, the states before it count, in a new life.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, new_life: Life) -> Result<Self, LogError> {
        let (mut book, mut has_life) = (Book::new(new_life), false);
        let (mut log, soundness) = Log::open(path, |record| {
            has_life |= matches!(record, Record::Book(_));
            book.apply(record);
        })?;
        if soundness == log::Soundness::Damaged {
            book = Book { states: book.states, scan: book.scan, ..Book::new(new_life) };
            book.owe_all();
        }
        if soundness != log::Soundness::Whole || !has_life {
            log.rewrite(&book)?;
        }
        Ok(Self { log, book })
    }

    /// Records what a scan found by the catalogue at that place: all updates and their states. Gives how many
    /// changed.
    ///
    /// # Errors
    /// It cannot be written, and then nothing is recorded.
    pub fn record(
        &mut self,
        found: &BTreeMap<UpdateId, Known>,
        catalogue: u64,
        now: Timestamp,
    ) -> Result<usize, LogError> {
        let changes = self.book.changes(found, now);
        let count = changes.len();
        let end = ScanEnd { at: now, failed: None, completed: Some(now), catalogue };
        self.write(Record::Scan { changes, end })?;
        Ok(count)
    }

    /// Records that a scan failed, with that code.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record_failure(&mut self, code: u32, now: Timestamp) -> Result<(), LogError> {
        let last = self.book.scan;
        let end = ScanEnd {
            at: now,
            failed: Some(code),
            completed: last.and_then(|scan| scan.completed),
            catalogue: last.map_or(0, |scan| scan.catalogue),
        };
        self.write(Record::Scan { changes: Vec::new(), end })
    }

    /// What is to be sent next: all that waits; none, if nothing does.
    pub fn batch(&self) -> Option<Batch> {
        let Book { life, states, waiting, scan, next, acknowledged, owes_all } = &self.book;
        if next == acknowledged {
            return None;
        }
        let content = match owes_all {
            Some(_) => Content::All(states.iter().map(|(update, held)| (*update, *held)).collect()),
            None => Content::Changes(waiting.iter().map(|it| (it.update, *it)).collect()),
        };
        Some(Batch { life: *life, first: *acknowledged, next: *next, content, scan: *scan })
    }

    /// Takes the site's word that it has all messages before that number.
    ///
    /// # Errors
    /// It cannot be written; then they are sent once more.
    pub fn acknowledged(&mut self, life: Life, next: u64) -> Result<(), LogError> {
        // An answer to what another life said is of no use.
        if life == self.book.life && next > self.book.acknowledged {
            self.write(Record::Acknowledged(next))?;
        }
        Ok(())
    }

    /// Takes the site's wish to be told all states: it has a gap, or does not know the client.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn owe_all(&mut self) -> Result<(), LogError> {
        let is_owed = |since| since == self.book.next && since > self.book.acknowledged;
        if self.book.owes_all.is_some_and(is_owed) {
            return Ok(());
        }
        self.write(Record::OweAll)
    }

    /// What is known of each update.
    pub fn states(&self) -> &BTreeMap<UpdateId, Held> {
        &self.book.states
    }

    /// The last scan.
    pub fn scan(&self) -> Option<ScanEnd> {
        self.book.scan
    }

    /// How many messages wait, or states, where all are owed.
    pub fn waiting(&self) -> usize {
        let Book { states, next, acknowledged, owes_all, .. } = &self.book;
        match owes_all {
            _ if next == acknowledged => 0,
            Some(_) => states.len(),
            None => (next - acknowledged) as usize,
        }
    }

    /// The life that it is in.
    pub fn life(&self) -> Life {
        self.book.life
    }

    fn write(&mut self, record: Record) -> Result<(), LogError> {
        if !self.log.is_sound() {
            self.log.rewrite(&self.book)?;
        }
        self.log.append(&record)?;
        self.book.apply(record);
        // What happened is recorded by now; that its file stays small can wait for the next time.
        if self.log.is_long() {
            self.log.rewrite(&self.book).ok();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
