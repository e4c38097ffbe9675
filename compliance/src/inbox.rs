//! The inbox: all that the site was told and the tables do not hold yet, in order.
//!
//! One record is what one commit told: batches as they came, byte for byte, and what else changes the
//! states. After a crash the records are told again from the last checkpoint on. That is exact although
//! the tables may be newer than the checkpoint: what an entry does to a state is absolute, so the last one
//! decides, and a client's [`Head`](crate::head::Head) says itself which entries are in it.

use crate::forward::Page;
use crate::head::{Place, Seconds};
use crate::matrix::Ordinal;
use crate::message::Batch;
use crate::message::wire::at_once;
use serde::{Deserialize, Serialize};
use sitedb::DbError;

/// Keys are this and the place of the first entry, big-endian.
const PREFIX: &[u8] = b"compliance-inbox\0";
const VERSION: u8 = 1;

/// One thing that the site was told.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A batch of a client.
    Batch { client: Ordinal, batch: Batch },
    /// A client sent something that cannot be read.
    Corrupt { client: Ordinal },
    /// A client used a number again for something else.
    Returned { client: Ordinal },
    /// A client was heard otherwise than by a batch: it told its facts, or asked what it is to do.
    Heard { client: Ordinal },
    /// Something else about the client changed; other sites have to hear of it.
    Touched { client: Ordinal },
    /// The client was removed; its ordinal is free after the next checkpoint.
    Removed { client: Ordinal },
    /// A child site told of its clients; none stands for one that has since reported elsewhere.
    Page { clients: Vec<Option<Ordinal>>, page: Page },
}

/// An entry on disk. Batches and pages are kept as they came.
#[derive(Serialize, Deserialize)]
enum Written<'a> {
    Batch(Ordinal, #[serde(borrow, serialize_with = "at_once")] &'a [u8]),
    Corrupt(Ordinal),
    Touched(Ordinal),
    Removed(Ordinal),
    Page(Vec<Option<Ordinal>>, #[serde(borrow, serialize_with = "at_once")] &'a [u8]),
    Returned(Ordinal),
    Heard(Ordinal),
}

impl Entry {
    /// How many places it takes: one for each client that it is about.
    pub(crate) fn places(&self) -> u64 {
        match self {
            Self::Page { clients, .. } => clients.len().max(1) as u64,
            _ => 1,
        }
    }
}

/// What is told in one commit, with the bytes that batches and pages came as.
#[derive(Default)]
pub(crate) struct Record {
    pub at: Seconds,
    pub entries: Vec<(Entry, Vec<u8>)>,
}

pub(crate) fn key(first: Place) -> Vec<u8> {
    [PREFIX, &first.to_be_bytes()].concat()
}

/// The place of the first entry of the record at `key`.
pub(crate) fn place(key: &[u8]) -> Option<Place> {
    Some(Place::from_be_bytes(key.strip_prefix(PREFIX)?.try_into().ok()?))
}

/// The keys of all records that begin at `from` or after.
pub(crate) fn since(from: Place) -> sitedb::Range {
    sitedb::Range { from: key(from), to: sitedb::Range::prefix(PREFIX).to }
}

impl Record {
    /// How many places its entries take.
    pub(crate) fn places(&self) -> u64 {
        self.entries.iter().map(|(entry, _)| entry.places()).sum()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|(entry, raw)| match entry {
            Entry::Batch { client, .. } => Written::Batch(*client, raw),
            Entry::Corrupt { client } => Written::Corrupt(*client),
            Entry::Returned { client } => Written::Returned(*client),
            Entry::Heard { client } => Written::Heard(*client),
            Entry::Touched { client } => Written::Touched(*client),
            Entry::Removed { client } => Written::Removed(*client),
            Entry::Page { clients, .. } => Written::Page(clients.clone(), raw),
        });
        let entries: Vec<_> = entries.collect();
        postcard::to_extend(&(self.at, entries), vec![VERSION]).expect("a vector takes all bytes")
    }

    /// Reads what [`Record::encode`] wrote; the raw bytes are not given again.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DbError> {
        let damaged = |detail: String| DbError::Damaged { table: "compliance-inbox", detail };
        let (found, body) = bytes.split_first().ok_or_else(|| damaged("it is empty".into()))?;
        if *found != VERSION {
            let (found, table) = (u32::from(*found), "compliance-inbox");
            return Err(DbError::NewerValue { table, found, known: VERSION.into() });
        }
        let (at, written): (Seconds, Vec<Written<'_>>) =
            postcard::from_bytes(body).map_err(|error| damaged(error.to_string()))?;
        let mut entries = Vec::with_capacity(written.len());
        for entry in written {
            let unreadable = |error: crate::message::Malformed| damaged(error.to_string());
            let entry = match entry {
                Written::Batch(client, raw) => {
                    Entry::Batch { client, batch: Batch::decode(raw).map_err(unreadable)? }
                }
                Written::Corrupt(client) => Entry::Corrupt { client },
                Written::Returned(client) => Entry::Returned { client },
                Written::Heard(client) => Entry::Heard { client },
                Written::Touched(client) => Entry::Touched { client },
                Written::Removed(client) => Entry::Removed { client },
                Written::Page(clients, raw) => {
                    Entry::Page { clients, page: Page::decode(raw).map_err(unreadable)? }
                }
            };
            entries.push((entry, Vec::new()));
        }
        Ok(Self { at, entries })
    }
}
