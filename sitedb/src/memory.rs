//! The key-value seam in memory, for tests and trials.

use crate::kv::{PAGE, last_per_key};
use crate::{
    Batch, Change, ChangeKind, CommitError, DbError, Entry, Kv, Order, Range, Seq, Snapshot,
};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A [`Kv`] that forgets all when it is dropped.
#[derive(Default)]
pub struct MemoryKv(RwLock<State>);

#[derive(Default)]
struct State {
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    feed: BTreeMap<Seq, Vec<Change>>,
    last: Seq,
    forgotten: Seq,
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.0.read().data.get(key).cloned())
    }

    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        let from = Bound::Included(range.from.as_slice());
        let to = range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if range.to.as_ref().is_some_and(|to| *to <= range.from) {
            return Ok(Vec::new());
        }
        let state = self.0.read();
        let found = state.data.range::<[u8], _>((from, to));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match order {
            Order::Ascending => found.take(limit).map(owned).collect(),
            Order::Descending => found.rev().take(limit).map(owned).collect(),
        })
    }

    fn write(&self, batch: Batch) -> Result<Seq, CommitError> {
        let mut state = self.0.write();
        for (key, expect) in batch.require {
            if !expect.holds(state.data.get(&key).map(Vec::as_slice)) {
                return Err(CommitError::Conflict { key });
            }
        }
        if batch.set.is_empty() {
            return Ok(state.last);
        }
        state.last += 1;
        let seq = state.last;
        let mut changes = Vec::new();
        for (key, value) in last_per_key(batch.set) {
            let kind = if value.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
            changes.push(Change { seq, key: key.clone(), kind });
            match value {
                Some(value) => drop(state.data.insert(key, value)),
                None => drop(state.data.remove(&key)),
            }
        }
        state.feed.insert(seq, changes);
        Ok(seq)
    }

    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        let state = self.0.read();
        if after < state.forgotten {
            return Err(DbError::ChangesGone { oldest: state.forgotten + 1 });
        }
        let mut found: Vec<Change> = Vec::new();
        for batch in state.feed.range(after.saturating_add(1)..).map(|(_, batch)| batch) {
            if !found.is_empty() && found.len() + batch.len() > limit {
                break;
            }
            found.extend_from_slice(batch);
        }
        Ok(found)
    }

    fn last_seq(&self) -> Seq {
        self.0.read().last
    }

    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
        let mut state = self.0.write();
        state.forgotten = state.forgotten.max(up_to.min(state.last));
        let keep = state.forgotten + 1;
        state.feed = state.feed.split_off(&keep);
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        let state = self.0.read();
        Ok(Box::new(Copied { seq: state.last, left: state.data.clone().into_iter() }))
    }
}

/// What is in memory anyway is there twice meanwhile.
struct Copied {
    seq: Seq,
    left: std::collections::btree_map::IntoIter<Vec<u8>, Vec<u8>>,
}

impl Snapshot for Copied {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn next_page(&mut self) -> Result<Vec<Entry>, DbError> {
        Ok(self.left.by_ref().take(PAGE).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        crate::kv::contract::holds(&MemoryKv::default());
    }
}
