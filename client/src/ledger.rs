//! What the client knows of each update, and what of that the site does not know yet.
//!
//! A scan's states are recorded here before anything of them is sent. Those that changed become messages,
//! numbered without a gap, which wait until the site says that it has them. The numbers count within one life
//! of the ledger: one that begins anew, since the machine is new or the file was lost, has another
//! [`Life`], under which the site expects all states first. So no number is ever used twice for two things.
//!
//! * What [`Ledger::record`] took survives the end of the process; it is on disk ([`log`]) before it returns.
//! * Messages that wait are bounded: where there are too many, one with all states takes their place.
//! * The site's states, and then the messages that wait in their order, make the client's states.
//!
//! When the next ones are sent is decided in [`pace`].

pub mod log;
pub mod pace;

use crate::applicability::State;
use jiff::Timestamp;
use log::{Log, LogError, Record};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use sync::name::UpdateId;

/// How many changes may wait; a catalogue has fewer updates, so all states are fewer.
pub const MAX_WAITING: usize = 250_000;

/// Which life of a ledger its numbers count in: drawn at random when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Life(pub u128);

/// What is known of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its state.
    pub state: State,
    /// Whether it is required only until the machine is restarted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_restart: bool,
}

/// A message: the state of an update is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// Which update.
    pub update: UpdateId,
    /// What is known of it; none, if the catalogue has it no more.
    pub known: Option<Known>,
    /// When the scan found it, by the machine's clock.
    pub found: Timestamp,
}

/// What is sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The life in which the numbers count.
    pub life: Life,
    /// What is in it.
    pub content: Content,
    /// The number of its last message: what the site acknowledges.
    pub last: u64,
    /// Whether more waits.
    pub is_more: bool,
}

/// What is in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All states: what the site knew before counts no more.
    All(Vec<(UpdateId, Known)>),
    /// What changed, number after number.
    Changes(Vec<Change>),
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
    states: BTreeMap<UpdateId, Known>,
    waiting: VecDeque<Change>,
    /// The number of the last message.
    last: u64,
    /// Whether the site must be told all states, and the number of the last message when that began: only what
    /// is sent later tells them.
    owes_all: Option<u64>,
}

impl Book {
    fn new(life: Life) -> Self {
        let (states, waiting) = (BTreeMap::new(), VecDeque::new());
        Self { life, states, waiting, last: 0, owes_all: Some(0) }
    }

    /// The changes that make of the states those that a scan found.
    fn changes(&self, found: &BTreeMap<UpdateId, Known>, now: Timestamp) -> Vec<Change> {
        let is_new =
            |(update, known): &(&UpdateId, &Known)| self.states.get(update) != Some(*known);
        let new = found.iter().filter(is_new).map(|(update, known)| (*update, Some(*known)));
        let gone = self.states.keys().filter(|update| !found.contains_key(update));
        let gone = gone.map(|update| (*update, None));
        let numbers = self.last.saturating_add(1)..=u64::MAX;
        let changes = new.chain(gone).zip(numbers);
        changes
            .map(|((update, known), number)| Change { number, update, known, found: now })
            .collect()
    }

    /// Takes what stands in a record of the file.
    fn apply(&mut self, record: Record) {
        match record {
            Record::Book(book) => *self = *book,
            Record::Changes(changes) => {
                for change in changes {
                    match change.known {
                        Some(known) => drop(self.states.insert(change.update, known)),
                        None => drop(self.states.remove(&change.update)),
                    }
                    self.last = change.number;
                    self.waiting.push_back(change);
                }
                if self.waiting.len() > MAX_WAITING {
                    self.owe_all();
                }
            }
            Record::Acknowledged(number) => {
                if self.owes_all.is_some_and(|since| number >= since) {
                    self.owes_all = None;
                }
                while self.waiting.front().is_some_and(|change| change.number <= number) {
                    self.waiting.pop_front();
                }
            }
            Record::OweAll => self.owe_all(),
        }
    }

    fn owe_all(&mut self) {
        self.owes_all = Some(self.last);
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
            book.life = new_life;
            book.owe_all();
        }
        if soundness != log::Soundness::Whole || !has_life {
            log.rewrite(&book)?;
        }
        Ok(Self { log, book })
    }

    /// Records what a scan found: all updates of the catalogue and their states. Gives how many changed.
    ///
    /// # Errors
    /// It cannot be written, and then nothing is recorded.
    pub fn record(
        &mut self,
        found: &BTreeMap<UpdateId, Known>,
        now: Timestamp,
    ) -> Result<usize, LogError> {
        let changes = self.book.changes(found, now);
        let count = changes.len();
        if count > 0 {
            self.write(Record::Changes(changes))?;
        }
        Ok(count)
    }

    /// What is to be sent next, of at most so many messages; none, if nothing waits. All states are one batch,
    /// whatever their number.
    pub fn batch(&self, most: usize) -> Option<Batch> {
        let Book { life, states, waiting, last, owes_all } = &self.book;
        if owes_all.is_some() {
            let all = states.iter().map(|(update, known)| (*update, *known)).collect();
            let content = Content::All(all);
            return (*last > 0).then_some(Batch {
                life: *life,
                content,
                last: *last,
                is_more: false,
            });
        }
        let changes: Vec<Change> = waiting.iter().take(most.max(1)).copied().collect();
        let last = changes.last()?.number;
        let is_more = changes.len() < waiting.len();
        Some(Batch { life: *life, content: Content::Changes(changes), last, is_more })
    }

    /// Takes the site's word that it has all messages up to that number.
    ///
    /// # Errors
    /// It cannot be written; then they are sent once more.
    pub fn acknowledged(&mut self, life: Life, number: u64) -> Result<(), LogError> {
        let is_news = match self.book.owes_all {
            Some(since) => number >= since.max(1),
            None => self.book.waiting.front().is_some_and(|change| change.number <= number),
        };
        // An answer to what another life said is of no use.
        if life == self.book.life && number <= self.book.last && is_news {
            self.write(Record::Acknowledged(number))?;
        }
        Ok(())
    }

    /// Takes the site's wish to be told all states: it has a gap, or does not know the client.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn owe_all(&mut self) -> Result<(), LogError> {
        match self.book.owes_all {
            Some(since) if since == self.book.last => Ok(()),
            _ => self.write(Record::OweAll),
        }
    }

    /// What is known of each update.
    pub fn states(&self) -> &BTreeMap<UpdateId, Known> {
        &self.book.states
    }

    /// How many messages wait, or states, where all are owed.
    pub fn waiting(&self) -> usize {
        match self.book.owes_all {
            Some(_) => self.book.states.len(),
            None => self.book.waiting.len(),
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
