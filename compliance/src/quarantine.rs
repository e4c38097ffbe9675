//! Batches that could not be read, kept for whoever wants to know why.
//!
//! Bounded in number, for each client and in all, and in bytes: who sends rubbish for ever replaces its own.

use crate::head::Seconds;
use crate::matrix::Ordinal;
use crate::message::ClientId;
use crate::site::{Compliance, StoreError, timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Order, Table, Value};
use std::collections::BTreeMap;

/// Batches that are kept.
pub const MAX_HELD: usize = 1_000;
/// Batches of one client that are kept.
pub const MAX_HELD_A_CLIENT: usize = 4;
/// The first bytes of a batch that are kept.
pub const MAX_BYTES: usize = 64 << 10;

const HELD: Table<u64, Written> = Table::new("compliance-quarantine");

/// A batch in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub number: u64,
    /// Whose key it came under.
    pub client: ClientId,
    /// When it came.
    pub at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
    /// How many bytes it had.
    pub size: u64,
    /// The first [`MAX_BYTES`] of them.
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    ordinal: Ordinal,
    client: ClientId,
    at: Seconds,
    reason: String,
    size: u64,
    bytes: String,
}
impl Value for Written {}

impl Written {
    fn held(self, number: u64) -> Held {
        Held {
            number,
            client: self.client,
            at: timestamp(self.at),
            reason: self.reason,
            size: self.size,
            bytes: STANDARD.decode(self.bytes).unwrap_or_default(),
        }
    }
}

/// Who has what there.
#[derive(Default)]
pub(crate) struct Quarantine {
    held: BTreeMap<u64, Ordinal>,
    next: u64,
}

impl Quarantine {
    pub(crate) fn load(db: &Db) -> Result<Self, DbError> {
        let held: BTreeMap<_, _> = HELD
            .scan(db, Order::Ascending, None, usize::MAX)?
            .into_iter()
            .map(|(number, held)| (number, held.ordinal))
            .collect();
        let next = held.last_key_value().map_or(1, |(last, _)| last + 1);
        Ok(Self { held, next })
    }

    /// Adds to `batch` what holds these bytes; their number.
    pub(crate) fn hold(
        &mut self,
        batch: &mut Batch,
        (ordinal, client): (Ordinal, ClientId),
        (bytes, reason): (&[u8], String),
        at: Seconds,
    ) -> u64 {
        let own: Vec<_> =
            self.held.iter().filter(|(_, it)| **it == ordinal).map(|(number, _)| *number).collect();
        if own.len() >= MAX_HELD_A_CLIENT {
            self.drop(batch, own[0]);
        } else if self.held.len() >= MAX_HELD
            && let Some((&oldest, _)) = self.held.first_key_value()
        {
            self.drop(batch, oldest);
        }
        let number = self.next;
        self.next += 1;
        self.held.insert(number, ordinal);
        let size = bytes.len() as u64;
        let bytes = STANDARD.encode(bytes.get(..MAX_BYTES).unwrap_or(bytes));
        HELD.put(batch, &number, &Written { ordinal, client, at, reason, size, bytes });
        number
    }

    fn drop(&mut self, batch: &mut Batch, number: u64) {
        self.held.remove(&number);
        HELD.delete(batch, &number);
    }
}

impl Compliance {
    /// At most `limit` batches in quarantine, the newest first, beginning before number `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn quarantined(&self, before: Option<u64>, limit: usize) -> Result<Vec<Held>, StoreError> {
        let page = HELD.scan(self.db(), Order::Descending, before.as_ref(), limit)?;
        Ok(page.into_iter().map(|(number, it)| it.held(number)).collect())
    }

    /// The last batch of a client that is in quarantine, if one is.
    ///
    /// # Errors
    /// If the database fails.
    pub fn last_quarantined(&self, client: Ordinal) -> Result<Option<Held>, StoreError> {
        let number = {
            let writer = self.writer();
            let mut held = writer.quarantine.held.iter().rev();
            held.find(|(_, whose)| **whose == client).map(|(number, _)| *number)
        };
        let Some(number) = number else { return Ok(None) };
        Ok(HELD.get(self.db(), &number)?.map(|it| it.held(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn it_keeps_a_bounded_number_of_each_and_of_all() {
        let db = Db::in_memory();
        let mut quarantine = Quarantine::default();
        let mut hold = |client: u32| {
            let mut batch = Batch::new();
            let id = ClientId(Uuid::from_u128(client.into()));
            let bytes = vec![7; MAX_BYTES + 1];
            let number = quarantine.hold(&mut batch, (client, id), (&bytes, "cut".into()), 5);
            db.kv().write(batch).unwrap();
            number
        };
        for _ in 0..10 {
            hold(1);
        }
        let all = || HELD.scan(&db, Order::Ascending, None, usize::MAX).unwrap();
        assert_eq!(all().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [6, 7, 8, 9]);
        for client in 2..1_100 {
            hold(client);
        }
        assert_eq!(all().len(), MAX_HELD);
        let newest = all().pop().unwrap();
        assert_eq!((newest.0, newest.1.ordinal), (1_107, 1_099));
        assert_eq!(STANDARD.decode(newest.1.bytes).unwrap().len(), MAX_BYTES);
        let again = Quarantine::load(&db).unwrap();
        assert_eq!((again.held, again.next), (quarantine.held, quarantine.next));
    }
}
