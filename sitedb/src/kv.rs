//! The seam: an ordered key-value store with atomic conditional batches and a change feed.

use crate::{CommitError, DbError};
use std::collections::BTreeMap;

/// A place in the order of all batches. The first batch has 1; 0 is before all of them.
pub type Seq = u64;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered, transactional key-value store.
///
/// * `write` applies the whole batch if every condition holds, and else nothing. Batches are
///   serial: conditions see all earlier batches. An operation on a key that the same batch named
///   before replaces the earlier one.
/// * A read sees every batch whose `write` has returned.
/// * A [`Durability::Synced`] batch is on disk when `write` returns, together with all before it.
/// * Every batch that names a key gets the next number of the change feed, without gaps; an empty
///   batch gets none.
/// * Keys are any bytes. Reads never wait for a write to reach the disk.
pub trait Kv: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError>;

    /// At most `limit` entries of `range`, in `order`.
    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError>;

    /// Applies `batch`; the number it got in the change feed.
    fn write(&self, batch: Batch) -> Result<Seq, CommitError>;

    /// At most `limit` changes of the batches after `after`, oldest first. Changes of one batch
    /// have the same number and are given all or not at all, so that the last number read is
    /// where to go on; the first batch is given even if it alone exceeds `limit`.
    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError>;

    /// The number of the newest batch.
    fn last_seq(&self) -> Seq;

    /// Forgets the changes of batches up to and with `up_to`; a reader that has not seen them is
    /// told by [`DbError::ChangesGone`].
    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError>;

    /// All entries as they are now, to be read while others write. It costs the store room as long
    /// as it is held.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError>;
}

/// The entries of a [`Kv`] as they were at one moment.
pub trait Snapshot: Send {
    /// The number of the newest batch in it.
    fn seq(&self) -> Seq;

    /// The next entries in the order of their keys; none after the last. A page is of some hundred
    /// entries, or of fewer that are large.
    fn next_page(&mut self) -> Result<Vec<Entry>, DbError>;
}

/// Entries that a page of a snapshot has at most.
pub(crate) const PAGE: usize = 512;
/// Bytes of keys and values after which a page ends.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// Keys from `from` to before `to`; without `to`, to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key that may be given.
    pub from: Vec<u8>,
    /// The first key that may not.
    pub to: Option<Vec<u8>>,
}

impl Range {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { from: prefix.to_vec(), to: after_prefix(prefix) }
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && self.to.as_deref().is_none_or(|to| key < to)
    }
}

/// The first key after all those that begin with `prefix`; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// Which end a scan begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// What a batch requires of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It has no value.
    Absent,
    /// It has some value.
    Present,
    /// It has exactly these bytes.
    Is(Vec<u8>),
}

impl Expect {
    /// Whether `found` is as required.
    pub(crate) fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Is(bytes) => found == Some(bytes.as_slice()),
        }
    }
}

/// When a batch counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    #[default]
    Synced,
    /// At once: it survives the end of the process, but a power cut may take it and all later
    /// unsynced ones back.
    Relaxed,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) require: Vec<(Vec<u8>, Expect)>,
    /// Key and new value; `None` deletes.
    pub(crate) set: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) durability: Durability,
}

impl Batch {
    /// An empty batch, synced.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that need not reach the disk before `write` returns.
    pub fn relaxed() -> Self {
        Self { durability: Durability::Relaxed, ..Self::default() }
    }

    /// Applies the batch only if `key` is as expected before it.
    pub fn require(&mut self, key: impl Into<Vec<u8>>, expect: Expect) -> &mut Self {
        self.require.push((key.into(), expect));
        self
    }

    /// Gives `key` this value.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.set.push((key.into(), Some(value.into())));
        self
    }

    /// Takes the value of `key` away, if it has one.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) -> &mut Self {
        self.set.push((key.into(), None));
        self
    }

    /// When it counts as written.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

/// That a key was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The batch that did it.
    pub seq: Seq,
    /// The key.
    pub key: Vec<u8>,
    /// What was done. The value is not repeated: read it, it may be newer by now.
    pub kind: ChangeKind,
}

/// What was done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It got a value.
    Put,
    /// It lost its value.
    Delete,
}

/// The operations of a batch as the feed tells them: one per key, in key order, the last one of
/// each.
pub(crate) fn last_per_key<K: Ord, V>(set: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    set.into_iter().collect()
}

#[cfg(test)]
pub(crate) mod contract {
    //! The contract of [`Kv`]. Every implementation is held to it.

    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn put(kv: &dyn Kv, key: &str, value: &str) -> Seq {
        let mut batch = Batch::new();
        batch.put(key, value);
        kv.write(batch).unwrap()
    }

    fn keys(entries: Vec<Entry>) -> Vec<String> {
        entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    }

    /// Holds an empty store to the contract.
    pub fn holds(kv: &dyn Kv) {
        reads_what_was_written(kv);
        scans_in_order(kv);
        refuses_whole_batches(kv);
        the_last_operation_on_a_key_wins(kv);
        the_feed_has_no_gaps(kv);
        one_of_many_wins(kv);
        a_snapshot_stays_as_it_was(kv);
    }

    fn reads_what_was_written(kv: &dyn Kv) {
        assert_eq!(kv.last_seq(), 0);
        assert_eq!(kv.get(b"a").unwrap(), None);
        assert_eq!(put(kv, "a", "1"), 1);
        assert_eq!(kv.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()));
        assert_eq!(kv.write(Batch::new()).unwrap(), 1, "an empty batch has no number");
        let mut batch = Batch::relaxed();
        batch.delete("a").delete("never there");
        assert_eq!(kv.write(batch).unwrap(), 2);
        assert_eq!(kv.get(b"a").unwrap(), None);
        put(kv, "", "the empty key is a key");
        assert!(kv.get(b"").unwrap().is_some());
        let mut batch = Batch::new();
        batch.delete("");
        kv.write(batch).unwrap();
    }

    fn scans_in_order(kv: &dyn Kv) {
        for key in ["s/b", "s/a", "s/c", "t", "s", "s/\u{ff}", "s0"] {
            put(kv, key, "x");
        }
        let all = Range::prefix(b"s/");
        let up = |range: &Range, limit| keys(kv.scan(range, Order::Ascending, limit).unwrap());
        let down = |range: &Range, limit| keys(kv.scan(range, Order::Descending, limit).unwrap());
        assert_eq!(up(&all, 9), ["s/a", "s/b", "s/c", "s/\u{ff}"]);
        assert_eq!(up(&all, 2), ["s/a", "s/b"]);
        assert_eq!(down(&all, 2), ["s/\u{ff}", "s/c"]);
        assert_eq!(up(&all, 0), [""; 0]);
        let part = Range { from: b"s/b".to_vec(), to: Some(b"s/c".to_vec()) };
        assert_eq!(up(&part, 9), ["s/b"]);
        assert_eq!(down(&part, 9), ["s/b"]);
        assert_eq!(down(&Range { from: b"s0".to_vec(), to: None }, 9), ["t", "s0"]);
        let nothing = Range { from: b"z".to_vec(), to: Some(b"a".to_vec()) };
        assert_eq!(up(&nothing, 9), [""; 0]);
        assert_eq!(down(&nothing, 9), [""; 0]);
    }

    fn refuses_whole_batches(kv: &dyn Kv) {
        put(kv, "r", "1");
        let before = kv.last_seq();
        for (key, expect) in [
            ("r", Expect::Absent),
            ("r", Expect::Is(b"2".to_vec())),
            ("nothing", Expect::Present),
            ("nothing", Expect::Is(Vec::new())),
        ] {
            let mut batch = Batch::new();
            batch.put("r", "changed").put("new", "x").require(key, expect);
            match kv.write(batch) {
                Err(CommitError::Conflict { key: found }) => assert_eq!(found, key.as_bytes()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(kv.get(b"r").unwrap().as_deref(), Some(b"1".as_slice()));
        assert_eq!(kv.get(b"new").unwrap(), None);
        assert_eq!(kv.last_seq(), before);
        let mut batch = Batch::new();
        batch.require("r", Expect::Is(b"1".to_vec())).require("nothing", Expect::Absent);
        batch.put("r", "2");
        assert_eq!(kv.write(batch).unwrap(), before + 1);
    }

    fn the_last_operation_on_a_key_wins(kv: &dyn Kv) {
        let mut batch = Batch::new();
        batch.put("twice", "1").delete("twice").put("twice", "2");
        let seq = kv.write(batch).unwrap();
        assert_eq!(kv.get(b"twice").unwrap().as_deref(), Some(b"2".as_slice()));
        let change = Change { seq, key: b"twice".to_vec(), kind: ChangeKind::Put };
        assert_eq!(kv.changes(seq - 1, 9).unwrap(), [change]);
    }

    fn the_feed_has_no_gaps(kv: &dyn Kv) {
        let start = kv.last_seq();
        let mut batch = Batch::new();
        batch.put("f1", "x").put("f2", "x").delete("f3");
        kv.write(batch).unwrap();
        put(kv, "f4", "x");
        let of = |after, limit| {
            let changes = kv.changes(after, limit).unwrap();
            changes.iter().map(|change| change.seq - start).collect::<Vec<_>>()
        };
        assert_eq!(of(start, 9), [1, 1, 1, 2]);
        assert_eq!(of(start, 4), [1, 1, 1, 2]);
        assert_eq!(of(start, 3), [1, 1, 1]);
        assert_eq!(of(start, 1), [1, 1, 1], "a batch is never cut");
        assert_eq!(of(start + 1, 1), [2]);
        assert_eq!(of(start + 2, 9), [0; 0]);
        assert_eq!(of(start + 900, 9), [0; 0]);
        kv.forget_changes(start + 1).unwrap();
        assert!(matches!(
            kv.changes(start, 9),
            Err(DbError::ChangesGone { oldest }) if oldest == start + 2
        ));
        assert_eq!(of(start + 1, 9), [2]);
        kv.forget_changes(start).unwrap();
        assert_eq!(of(start + 1, 9), [2], "forgetting less than was forgotten changes nothing");
        kv.forget_changes(start + 2).unwrap();
        assert_eq!(of(start + 2, 9), [0; 0]);
    }

    fn a_snapshot_stays_as_it_was(kv: &dyn Kv) {
        let mut batch = Batch::relaxed();
        for n in 0..1200_u16 {
            batch.put([b"snap/".as_slice(), &n.to_be_bytes()].concat(), [n as u8; 3]);
        }
        kv.write(batch).unwrap();
        let before = kv.scan(&Range::default(), Order::Ascending, usize::MAX).unwrap();
        let mut snapshot = kv.snapshot().unwrap();
        assert_eq!(snapshot.seq(), kv.last_seq());
        let mut found = snapshot.next_page().unwrap();
        assert!(!found.is_empty() && found.len() < before.len(), "more than a page");
        let mut batch = Batch::new();
        let (first, last) = (before.first().unwrap(), before.last().unwrap());
        batch.put(first.0.clone(), "other").delete(last.0.clone()).put("snap/zzz", "new");
        let after = kv.write(batch).unwrap();
        loop {
            match snapshot.next_page().unwrap() {
                page if page.is_empty() => break,
                page => found.extend(page),
            }
        }
        assert_eq!(found, before);
        assert_eq!((snapshot.seq(), snapshot.next_page().unwrap()), (after - 1, vec![]));
        drop(snapshot);
        assert_eq!(kv.snapshot().unwrap().seq(), after);
    }

    fn one_of_many_wins(kv: &dyn Kv) {
        let winners = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let winners = &winners;
                scope.spawn(move || {
                    for round in 0..20_u8 {
                        let mut batch = Batch::relaxed();
                        let key = vec![b'w', round];
                        batch.require(key.clone(), Expect::Absent).put(key, vec![thread]);
                        match kv.write(batch) {
                            Ok(_) => drop(winners.fetch_add(1, Ordering::Relaxed)),
                            Err(CommitError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_keys_end() {
        assert_eq!(after_prefix(b"ab").as_deref(), Some(b"ac".as_slice()));
        assert_eq!(after_prefix(b"a\xff\xff").as_deref(), Some(b"b".as_slice()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
        assert!(Range::prefix(b"a\xff").contains(b"a\xff\xff"));
        assert!(!Range::prefix(b"a\xff").contains(b"b"));
    }
}
