//! Typed tables: which keys belong together, and what their values mean.
//!
//! A value is stored as `{"v": VERSION, "is": ...}`. A field that is added with a default needs no
//! new version. A change that an older program would misread raises [`Value::VERSION`]; old values
//! then pass through [`Value::upgrade`] when they are read, and are rewritten when next changed.

use crate::key::encoded;
use crate::{Batch, CommitError, Db, DbError, Expect, Key, Order, Range, Seq};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// What a table may hold.
pub trait Value: Serialize + DeserializeOwned {
    /// The version that is written. Raise it when older programs would misread the new form.
    const VERSION: u32 = 1;

    /// Brings the JSON of a value of an older version to [`Value::VERSION`].
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn upgrade(from: u32, json: serde_json::Value) -> Result<serde_json::Value, String> {
        let _ = json;
        Err(format!("version {from} is not known any more"))
    }
}

/// A value with the exact bytes it was read as, for a compare-and-swap.
#[derive(Clone, Debug)]
pub struct Stored<V> {
    /// The value.
    pub value: V,
    raw: Vec<u8>,
}

/// The table called `name`: values of type `V` in the order of their keys `K`.
///
/// Two tables with one name are the same table; names are unique in the program.
pub struct Table<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

#[derive(Serialize)]
struct Envelope<'a, V> {
    v: u32,
    is: &'a V,
}

#[derive(Deserialize)]
struct OpenEnvelope<V> {
    v: u32,
    is: V,
}

impl<K: Key, V: Value> Table<K, V> {
    /// The table of that name, which must not hold a zero byte.
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// The value of `key`.
    pub fn get(&self, db: &Db, key: &K) -> Result<Option<V>, DbError> {
        Ok(self.get_stored(db, key)?.map(|stored| stored.value))
    }

    /// The value of `key`, with what [`Table::replace`] needs.
    pub fn get_stored(&self, db: &Db, key: &K) -> Result<Option<Stored<V>>, DbError> {
        let Some(raw) = db.kv().get(&self.place(key))? else { return Ok(None) };
        Ok(Some(Stored { value: self.decode(&raw)?, raw }))
    }

    /// Gives `key` this value, whatever it had.
    pub fn put(&self, batch: &mut Batch, key: &K, value: &V) {
        batch.put(self.place(key), encode(value));
    }

    /// Gives `key` this value; the batch is refused if it has one.
    pub fn insert(&self, batch: &mut Batch, key: &K, value: &V) {
        batch.require(self.place(key), Expect::Absent);
        self.put(batch, key, value);
    }

    /// Gives `key` this value; the batch is refused if its value is not `old` any more.
    pub fn replace(&self, batch: &mut Batch, key: &K, old: &Stored<V>, value: &V) {
        batch.require(self.place(key), Expect::Is(old.raw.clone()));
        self.put(batch, key, value);
    }

    /// Takes the value of `key` away.
    pub fn delete(&self, batch: &mut Batch, key: &K) {
        batch.delete(self.place(key));
    }

    /// [`Table::put`] as a batch of its own, synced.
    pub fn set(&self, db: &Db, key: &K, value: &V) -> Result<Seq, CommitError> {
        let mut batch = Batch::new();
        self.put(&mut batch, key, value);
        db.kv().write(batch)
    }

    /// At most `limit` entries in `order`, beginning after key `after` (in that order).
    pub fn scan(
        &self,
        db: &Db,
        order: Order,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, DbError> {
        let mut range = Range::prefix(&self.prefix());
        match (order, after) {
            (_, None) => {}
            // No key is a prefix of another, so the next key is above `after` and a zero byte.
            (Order::Ascending, Some(after)) => {
                range.from = self.place(after);
                range.from.push(0);
            }
            (Order::Descending, Some(after)) => range.to = Some(self.place(after)),
        }
        self.entries(db, &range, order, limit)
    }

    /// Every entry whose key begins with `part`, in order.
    ///
    /// `part` is the first part of a tuple key.
    pub fn below<P: Key>(&self, db: &Db, part: &P) -> Result<Vec<(K, V)>, DbError> {
        self.page_below(db, part, None, usize::MAX)
    }

    /// At most `limit` entries whose key begins with `part`, in order, beginning after key `after`.
    pub fn page_below<P: Key>(
        &self,
        db: &Db,
        part: &P,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, DbError> {
        let mut prefix = self.prefix();
        part.put(&mut prefix);
        let mut range = Range::prefix(&prefix);
        if let Some(after) = after {
            range.from = self.place(after);
            range.from.push(0);
        }
        self.entries(db, &range, Order::Ascending, limit)
    }

    /// The key of this table that a change of the feed names; `None` if it is of another table.
    pub fn key_of(&self, place: &[u8]) -> Option<K> {
        let mut rest = place.strip_prefix(self.prefix().as_slice())?;
        let key = K::take(&mut rest)?;
        rest.is_empty().then_some(key)
    }

    fn entries(
        &self,
        db: &Db,
        range: &Range,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(K, V)>, DbError> {
        let entries = db.kv().scan(range, order, limit)?;
        let mut found = Vec::with_capacity(entries.len());
        for (place, raw) in entries {
            let key =
                self.key_of(&place).ok_or_else(|| self.damaged("a key has the wrong form"))?;
            found.push((key, self.decode(&raw)?));
        }
        Ok(found)
    }

    fn prefix(&self) -> Vec<u8> {
        let mut prefix = self.name.as_bytes().to_vec();
        prefix.push(0);
        prefix
    }

    fn place(&self, key: &K) -> Vec<u8> {
        let mut place = self.prefix();
        place.extend(encoded(key));
        place
    }

    fn decode(&self, raw: &[u8]) -> Result<V, DbError> {
        // Nearly all values are of the version that is written, and need no tree of JSON in between.
        if let Ok(open) = serde_json::from_slice::<OpenEnvelope<V>>(raw)
            && open.v == V::VERSION
        {
            return Ok(open.is);
        }
        let open: OpenEnvelope<serde_json::Value> =
            serde_json::from_slice(raw).map_err(|error| self.damaged(error.to_string()))?;
        let json = match open.v {
            v if v == V::VERSION => open.is,
            v if v > V::VERSION => {
                let (table, known) = (self.name, V::VERSION);
                return Err(DbError::NewerValue { table, found: v, known });
            }
            v => V::upgrade(v, open.is).map_err(|detail| self.damaged(detail))?,
        };
        serde_json::from_value(json).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, detail: impl Into<String>) -> DbError {
        DbError::Damaged { table: self.name, detail: detail.into() }
    }
}

fn encode<V: Value>(value: &V) -> Vec<u8> {
    let envelope = Envelope { v: V::VERSION, is: value };
    serde_json::to_vec(&envelope).expect("table values have string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryKv;
    use std::sync::Arc;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct Person {
        name: String,
    }
    impl Value for Person {
        const VERSION: u32 = 2;
        fn upgrade(from: u32, json: serde_json::Value) -> Result<serde_json::Value, String> {
            match (from, json.get("first"), json.get("last")) {
                (1, Some(first), Some(last)) => Ok(serde_json::json!({
                    "name": format!("{} {}", first.as_str().unwrap(), last.as_str().unwrap())
                })),
                _ => Err("it has no names".into()),
            }
        }
    }

    const PEOPLE: Table<(String, u64), Person> = Table::new("people");

    fn db() -> Db {
        Db::open(Arc::new(MemoryKv::default())).unwrap()
    }

    fn key(team: &str, number: u64) -> (String, u64) {
        (team.into(), number)
    }

    fn person(name: &str) -> Person {
        Person { name: name.into() }
    }

    #[test]
    fn a_table_is_read_in_the_order_of_its_keys() {
        let db = db();
        for (team, number) in [("b", 1), ("a", 300), ("a", 2), ("ab", 0)] {
            PEOPLE.set(&db, &key(team, number), &person(team)).unwrap();
        }
        let keys = |order, after: Option<&(String, u64)>, limit| -> Vec<_> {
            let found = PEOPLE.scan(&db, order, after, limit).unwrap();
            found.into_iter().map(|(key, _)| key).collect()
        };
        let sorted = [key("a", 2), key("a", 300), key("ab", 0), key("b", 1)];
        assert_eq!(keys(Order::Ascending, None, 9), sorted);
        assert_eq!(keys(Order::Ascending, Some(&sorted[1]), 1), sorted[2..3]);
        assert_eq!(keys(Order::Descending, Some(&sorted[1]), 9), sorted[..1]);
        assert_eq!(
            keys(Order::Ascending, Some(&key("a", 3)), 1),
            sorted[1..2],
            "a key need not exist"
        );
        let below: Vec<_> = PEOPLE.below(&db, &"a".to_string()).unwrap();
        assert_eq!(below.len(), 2);
        let page = |after: Option<&(String, u64)>, limit| -> Vec<_> {
            let found = PEOPLE.page_below(&db, &"a".to_string(), after, limit).unwrap();
            found.into_iter().map(|(key, _)| key.1).collect()
        };
        assert_eq!(page(None, 1), [2]);
        assert_eq!(page(Some(&key("a", 2)), 9), [300]);
        assert_eq!(page(Some(&key("a", 300)), 9), [0; 0]);
        let changed = db.kv().changes(db.kv().last_seq() - 1, 9).unwrap();
        assert_eq!(PEOPLE.key_of(&changed[0].key), Some(key("ab", 0)));
    }

    #[test]
    fn only_one_insert_and_one_replace_win() {
        let db = db();
        let k = key("a", 1);
        let try_insert = |name: &str| {
            let mut batch = Batch::new();
            PEOPLE.insert(&mut batch, &k, &person(name));
            db.kv().write(batch)
        };
        try_insert("first").unwrap();
        assert!(matches!(try_insert("second"), Err(CommitError::Conflict { .. })));
        let old = PEOPLE.get_stored(&db, &k).unwrap().unwrap();
        let try_replace = |name: &str| {
            let mut batch = Batch::new();
            PEOPLE.replace(&mut batch, &k, &old, &person(name));
            db.kv().write(batch)
        };
        try_replace("third").unwrap();
        assert!(matches!(try_replace("fourth"), Err(CommitError::Conflict { .. })));
        assert_eq!(PEOPLE.get(&db, &k).unwrap(), Some(person("third")));
        let mut batch = Batch::new();
        PEOPLE.delete(&mut batch, &k);
        db.kv().write(batch).unwrap();
        assert_eq!(PEOPLE.get(&db, &k).unwrap(), None);
    }

    #[test]
    fn old_values_are_upgraded_newer_and_damaged_ones_refused() {
        let db = db();
        let put = |raw: &str| {
            let mut batch = Batch::new();
            batch.put(PEOPLE.place(&key("a", 1)), raw);
            db.kv().write(batch).unwrap();
            PEOPLE.get(&db, &key("a", 1))
        };
        let old = put(r#"{"v":1,"is":{"first":"A","last":"B"}}"#).unwrap();
        assert_eq!(old, Some(person("A B")));
        assert!(matches!(put(r#"{"v":1,"is":{}}"#), Err(DbError::Damaged { table: "people", .. })));
        assert!(matches!(
            put(r#"{"v":3,"is":{"name":"x"}}"#),
            Err(DbError::NewerValue { found: 3, known: 2, .. })
        ));
        assert!(matches!(put("{"), Err(DbError::Damaged { .. })));
        let more = put(r#"{"v":2,"is":{"name":"x","added later":1}}"#).unwrap();
        assert_eq!(more, Some(person("x")));
    }
}
