//! A site's compliance: the states in memory, the database below, and the one way to change both.
//!
//! Whatever changes states is first written to the inbox, in one synced batch, and then told to the states
//! in memory. One writer at a time does this; readers see the states between two entries.

use crate::contact::Contacts;
use crate::fleet::Member;
use crate::fleet::facts::FACTS;
use crate::fleet::index::Index;
use crate::forward::ChildSite;
use crate::head::{Place, Seconds};
use crate::inbox::{self, Entry, Record};
use crate::intake::Queue;
use crate::matrix::{Ordinal, RowId};
use crate::message::ClientId;
use crate::quarantine::Quarantine;
use crate::state::States;
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use sitedb::{Batch, CommitError, Db, DbError};
use std::collections::{BTreeMap, VecDeque};

/// Events that wait to be taken; the oldest are dropped.
const MAX_EVENTS: usize = 1_000;

/// What an administrator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of batches that are in the works at one time; who comes with more is told to come later.
    pub max_in_flight: usize,
    /// Updates, by revision, that states are kept of.
    pub max_updates: usize,
    /// A checkpoint is due when the inbox has so many bytes, or a quarter of the matrix if that is more.
    pub checkpoint_bytes: u64,
    /// Bytes of one write of a checkpoint, about; states are locked while they are gathered.
    pub checkpoint_step: usize,
    /// A checkpoint is due so long after the first entry that the last one does not cover.
    pub checkpoint_after: SignedDuration,
    /// A client that was not heard for so long is silent.
    pub silent_after: SignedDuration,
    /// A child site that was not heard for so long is.
    pub site_silent_after: SignedDuration,
    /// How many days of history are kept.
    pub history_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_in_flight: 64 << 20,
            max_updates: 500_000,
            checkpoint_bytes: 64 << 20,
            checkpoint_step: 2 << 20,
            checkpoint_after: SignedDuration::from_mins(10),
            silent_after: SignedDuration::from_hours(7 * 24),
            site_silent_after: SignedDuration::from_hours(2),
            history_days: 400,
        }
    }
}

/// Something that an administrator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Two machines report under one identity: one is a copy of the other. Enrol one of them anew.
    Cloned {
        /// The identity.
        client: ClientId,
        /// How often they took turns.
        returns: u16,
    },
    /// A batch could not be read.
    Quarantined {
        /// Whose.
        client: ClientId,
        /// Its number in quarantine.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The site database failed.
#[derive(Debug, thiserror::Error)]
#[error("states of clients cannot be kept")]
pub struct StoreError(#[from] pub(crate) CommitError);

impl StoreError {
    /// What the database said.
    pub fn into_inner(self) -> CommitError {
        self.0
    }
}

impl From<DbError> for StoreError {
    fn from(error: DbError) -> Self {
        Self(error.into())
    }
}

/// What a site knows of its clients' compliance.
pub struct Compliance {
    db: Db,
    pub(crate) settings: Settings,
    pub(crate) states: RwLock<States>,
    /// Written by the writer only, and locked after it and after the states.
    pub(crate) index: RwLock<Index>,
    writer: Mutex<Writer>,
    pub(crate) queue: Queue,
    /// Held by whoever makes a checkpoint.
    pub(crate) checkpointing: Mutex<()>,
    events: Mutex<VecDeque<Event>>,
    pub(crate) contacts: Contacts,
}

/// What only the writer knows.
pub(crate) struct Writer {
    /// The place of the next entry.
    pub next: Place,
    /// Bytes of the inbox that no checkpoint covers.
    pub inbox_bytes: u64,
    /// When the first entry came that no checkpoint covers.
    pub since: Option<Seconds>,
    /// What the matrix took at the last checkpoint, in bytes.
    pub matrix_bytes: u64,
    /// Drawn when the database was made: places are of one store.
    pub store: u64,
    pub quarantine: Quarantine,
    pub sites: BTreeMap<u16, ChildSite>,
}

/// What one commit changes.
#[derive(Default)]
pub(crate) struct Change {
    /// What is told.
    pub record: Record,
    /// The rows of each entry's states, as far as they are known.
    pub rows: Vec<Vec<Option<RowId>>>,
    /// Clients that are new, or otherwise than they were.
    pub members: BTreeMap<Ordinal, Member>,
    /// Names of clients that are in `batch`.
    pub names: Vec<(Ordinal, String)>,
    /// What else is written.
    pub batch: Batch,
}

impl Change {
    /// Adds an entry without states of its own.
    pub(crate) fn tell(&mut self, entry: Entry) {
        self.record.entries.push((entry, Vec::new()));
    }
}

impl Compliance {
    /// Takes the database into use, and tells again what no checkpoint covers.
    ///
    /// # Errors
    /// If the database fails, is damaged, or was written by a newer depot.
    pub fn open(db: Db, settings: Settings) -> Result<Self, StoreError> {
        let (states, writer) = crate::checkpoint::load(&db)?;
        let index = Index::load(&db, states.fleet.all())?;
        Ok(Self {
            db,
            queue: Queue::new(settings.max_in_flight),
            settings,
            states: RwLock::new(states),
            index: RwLock::new(index),
            writer: Mutex::new(writer),
            checkpointing: Mutex::new(()),
            events: Mutex::default(),
            contacts: Contacts::default(),
        })
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn states(&self) -> RwLockReadGuard<'_, States> {
        self.states.read()
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// The events since this was last asked, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().drain(..).collect()
    }

    pub(crate) fn note(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Writes a change and then tells it; nothing of it happened if this fails.
    pub(crate) fn commit(&self, writer: &mut Writer, change: Change) -> Result<(), CommitError> {
        let Change { record, rows, members, names, mut batch } = change;
        let first = writer.next;
        let mut gone = Vec::new();
        for (entry, _) in &record.entries {
            if let Entry::Removed { client } = entry {
                let facts = FACTS.get(&self.db, client)?.unwrap_or_default();
                let packages = self.index.read().inventory.plan_removal(&self.db, *client)?;
                packages.put(&mut batch);
                gone.push((*client, facts, packages));
            }
        }
        for (client, member) in &members {
            batch.put(Member::key(*client), member.encode());
        }
        let mut size = 0;
        if !record.entries.is_empty() {
            let bytes = record.encode();
            size = bytes.len() as u64;
            batch.put(inbox::key(first), bytes);
        }
        self.db.kv().write(batch)?;
        writer.next += record.places();
        writer.inbox_bytes += size;
        writer.since.get_or_insert(record.at);

        let mut states = self.states.write();
        if !(gone.is_empty() && members.is_empty() && names.is_empty()) {
            let mut index = self.index.write();
            gone.into_iter().for_each(|(client, facts, all)| index.remove(client, &facts, all));
            members.keys().for_each(|client| index.add(*client));
            names.iter().for_each(|(client, name)| index.put_name(*client, name));
        }
        for (client, member) in members {
            states.fleet.put(client, member);
        }
        let mut place = first;
        let rows = rows.iter().map(Vec::as_slice).chain(std::iter::repeat([].as_slice()));
        for ((entry, _), rows) in record.entries.iter().zip(rows) {
            let has_returned = states.tell(entry, place, record.at, rows);
            match entry {
                Entry::Removed { client } => {
                    states.fleet.remove(*client, place);
                    self.contacts.forget(*client);
                }
                Entry::Batch { client, .. } | Entry::Returned { client } if has_returned => {
                    if let Some(member) = states.fleet.get(*client) {
                        let returns = states.head(*client).returns;
                        self.note(Event::Cloned { client: member.id, returns });
                    }
                }
                _ => {}
            }
            place += entry.places();
        }
        Ok(())
    }
}

/// Seconds since 1970, and back. Times of heads are whole seconds.
pub(crate) fn timestamp(seconds: Seconds) -> Timestamp {
    let clamped = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(clamped).unwrap_or_default()
}
