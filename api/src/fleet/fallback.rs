//! What machines say that cannot say it as clients: that they could not join, get a policy, scan or report, and why.
//!
//! No certificate proves who says it, so it is believed only as far as it helps: the last word of each id is
//! kept, so many of them, and what is known of clients otherwise never changes by it. A word is forgotten as
//! soon as the client is heard in the proper way.

use compliance::message::ClientId;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table, Value};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Of how many machines the last word is kept; the oldest goes first.
const MOST: usize = 100_000;

/// What a machine could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Join.
    Join,
    /// Get its policy, or believe it.
    Policy,
    /// Scan.
    Scan,
    /// Report.
    Report,
}

/// The last word of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The id that it says to have.
    pub id: ClientId,
    /// What it is called.
    pub name: String,
    /// What it could not do.
    pub stage: Stage,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub text: String,
    /// When, by its clock.
    pub at: Timestamp,
    /// When it was told here.
    pub received: Timestamp,
    /// Where it was told from.
    pub from: Option<IpAddr>,
}
impl Value for Word {}

impl Word {
    /// `cannot report, unreachable: nobody answers at site.example`.
    pub fn in_short(&self) -> String {
        let stage = match self.stage {
            Stage::Join => "join",
            Stage::Policy => "get its policy",
            Stage::Scan => "scan",
            Stage::Report => "report",
        };
        format!("cannot {stage}, {}: {}", self.code, self.text)
    }
}

const WORDS: Table<String, Word> = Table::new("client-fallback");

/// The last words.
pub struct Fallback {
    db: Db,
    index: Mutex<Index>,
    most: usize,
}

/// When each word came.
#[derive(Default)]
struct Index {
    by_id: HashMap<ClientId, Timestamp>,
    by_time: BTreeSet<(Timestamp, ClientId)>,
}

impl Index {
    fn put(&mut self, id: ClientId, received: Timestamp) {
        self.remove(id);
        self.by_id.insert(id, received);
        self.by_time.insert((received, id));
    }

    fn remove(&mut self, id: ClientId) -> bool {
        let old = self.by_id.remove(&id);
        old.is_some_and(|old| self.by_time.remove(&(old, id)))
    }
}

impl Fallback {
    pub(super) fn open(db: &Db) -> Result<Self, DbError> {
        Self::with(db, MOST)
    }

    fn with(db: &Db, most: usize) -> Result<Self, DbError> {
        let mut index = Index::default();
        let mut after: Option<String> = None;
        loop {
            let step = WORDS.scan(db, Order::Ascending, after.as_ref(), 1_000)?;
            let Some((last, _)) = step.last() else { break };
            after = Some(last.clone());
            step.iter().for_each(|(_, word)| index.put(word.id, word.received));
        }
        Ok(Self { db: db.clone(), index: Mutex::new(index), most })
    }

    /// Keeps what a machine says.
    ///
    /// # Errors
    /// If the database fails.
    pub fn tell(&self, word: &Word) -> Result<(), CommitError> {
        let mut index = self.index.lock();
        // Its loss in a crash costs a hint: nobody waits for the disk.
        let mut batch = Batch::relaxed();
        WORDS.put(&mut batch, &word.id.to_string(), word);
        let is_one_more = !index.by_id.contains_key(&word.id) && index.by_id.len() >= self.most;
        let oldest = is_one_more.then(|| index.by_time.first().copied()).flatten();
        if let Some((_, id)) = oldest {
            WORDS.delete(&mut batch, &id.to_string());
        }
        self.db.kv().write(batch)?;
        if let Some((_, id)) = oldest {
            index.remove(id);
        }
        index.put(word.id, word.received);
        Ok(())
    }

    /// Forgets the word of a client that was heard in the proper way.
    ///
    /// # Errors
    /// If the database fails.
    pub fn heard(&self, id: ClientId) -> Result<(), CommitError> {
        let mut index = self.index.lock();
        if index.by_id.contains_key(&id) {
            let mut batch = Batch::relaxed();
            WORDS.delete(&mut batch, &id.to_string());
            self.db.kv().write(batch)?;
            index.remove(id);
        }
        Ok(())
    }

    /// The last word of a machine.
    ///
    /// # Errors
    /// If the database fails.
    pub fn of(&self, id: ClientId) -> Result<Option<Word>, DbError> {
        if !self.index.lock().by_id.contains_key(&id) {
            return Ok(None);
        }
        WORDS.get(&self.db, &id.to_string())
    }

    /// At most `limit` words, the newest first, beginning after the one of that time and id.
    ///
    /// # Errors
    /// If the database fails.
    pub fn list(
        &self,
        after: Option<(Timestamp, ClientId)>,
        limit: usize,
    ) -> Result<Vec<Word>, DbError> {
        let ids: Vec<ClientId> = {
            let index = self.index.lock();
            let all = match after {
                Some(after) => index.by_time.range(..after),
                None => index.by_time.range(..),
            };
            all.rev().take(limit).map(|(_, id)| *id).collect()
        };
        let words = ids.into_iter().map(|id| WORDS.get(&self.db, &id.to_string()));
        words.filter_map(Result::transpose).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn word(n: u128, second: i64) -> Word {
        let at = Timestamp::from_second(second).unwrap();
        Word {
            id: ClientId(Uuid::from_u128(n)),
            name: format!("pc-{n}"),
            stage: Stage::Join,
            code: "forbidden".into(),
            text: "the join token is expired".into(),
            at,
            received: at,
            from: None,
        }
    }

    #[test]
    fn the_last_word_of_each_is_kept_and_the_oldest_goes_first() {
        let db = Db::in_memory();
        let fallback = Fallback::with(&db, 2).unwrap();
        for (n, second) in [(1, 10), (2, 20), (1, 30), (3, 40)] {
            fallback.tell(&word(n, second)).unwrap();
        }
        let names = |fallback: &Fallback, after| {
            let words = fallback.list(after, 9).unwrap().into_iter();
            words.map(|word| word.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&fallback, None), ["pc-3", "pc-1"]);
        let first = word(3, 40);
        assert_eq!(names(&fallback, Some((first.received, first.id))), ["pc-1"]);
        assert_eq!(fallback.of(word(2, 0).id).unwrap(), None);
        // After a restart the same; and who was heard has nothing to say any more.
        let fallback = Fallback::with(&db, 2).unwrap();
        assert_eq!(fallback.of(first.id).unwrap(), Some(first.clone()));
        fallback.heard(first.id).unwrap();
        assert_eq!(names(&fallback, None), ["pc-1"]);
        assert_eq!(names(&Fallback::with(&db, 2).unwrap(), None), ["pc-1"]);
    }
}
