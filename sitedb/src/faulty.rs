//! The key-value seam with faults, for tests: it fails when it is told to, and can be read as a power cut
//! would leave it.

use crate::{
    Batch, Change, CommitError, DbError, Durability, Entry, Kv, MemoryKv, Order, Range, Seq,
    Snapshot,
};
use parking_lot::Mutex;

/// A [`Kv`] in memory that remembers all that was written to it, and fails when it is told to.
#[derive(Default)]
pub struct FaultyKv {
    inner: MemoryKv,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// So many more writes succeed; all, if it is not told.
    left: Option<usize>,
    /// The write that fails first is made all the same.
    applies_the_first: bool,
    /// All that was written.
    log: Vec<Batch>,
    /// So much of it is on disk.
    synced: usize,
}

impl FaultyKv {
    /// Fails after so many writes; with `applies_the_first` the first one that fails is made all the same,
    /// as when an answer is lost.
    pub fn fail_after(&self, writes: usize, applies_the_first: bool) {
        let mut state = self.state.lock();
        state.left = Some(writes);
        state.applies_the_first = applies_the_first;
    }

    /// Whether it has not failed yet since it was told to.
    pub fn still_works(&self) -> bool {
        self.state.lock().left.is_some_and(|left| left > 0)
    }

    /// Works again.
    pub fn heal(&self) {
        self.state.lock().left = None;
    }

    /// What is found after a power cut that took so many of the writes that were not on disk.
    pub fn after_power_cut(&self, lost: usize) -> FaultyKv {
        let state = self.state.lock();
        let kept = state.log.len() - lost.min(state.log.len() - state.synced);
        let after = FaultyKv::default();
        for batch in &state.log[..kept] {
            let _ = after.write(batch.clone());
        }
        after.state.lock().synced = kept;
        after
    }
}

impl Kv for FaultyKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.inner.get(key)
    }
    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.inner.scan(range, order, limit)
    }
    fn write(&self, batch: Batch) -> Result<Seq, CommitError> {
        let mut state = self.state.lock();
        let fails = state.left == Some(0);
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(1);
        }
        if fails && !std::mem::take(&mut state.applies_the_first) {
            return Err(DbError::Full { doing: "written" }.into());
        }
        let seq = self.inner.write(batch.clone())?;
        let is_synced = batch.durability() == Durability::Synced;
        state.log.push(batch);
        if fails {
            return Err(DbError::Full { doing: "written" }.into());
        }
        if is_synced {
            state.synced = state.log.len();
        }
        Ok(seq)
    }
    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        self.inner.changes(after, limit)
    }
    fn last_seq(&self) -> Seq {
        self.inner.last_seq()
    }
    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
        self.inner.forget_changes(up_to)
    }
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        self.inner.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_faults_it_keeps_the_contract() {
        crate::kv::contract::holds(&FaultyKv::default());
    }

    #[test]
    fn a_power_cut_takes_only_what_was_not_synced() {
        let kv = FaultyKv::default();
        for (n, mut batch) in
            [Batch::new(), Batch::relaxed(), Batch::relaxed()].into_iter().enumerate()
        {
            batch.put([n as u8], "value");
            kv.write(batch).unwrap();
        }
        assert_eq!(kv.after_power_cut(1).last_seq(), 2);
        assert_eq!(kv.after_power_cut(9).last_seq(), 1);
    }

    #[test]
    fn a_failing_write_is_made_or_not() {
        for applies in [false, true] {
            let kv = FaultyKv::default();
            kv.fail_after(1, applies);
            let write = |key: &str| {
                let mut batch = Batch::new();
                batch.put(key, "value");
                kv.write(batch).is_ok()
            };
            assert_eq!((write("a"), write("b"), write("c")), (true, false, false));
            assert_eq!(kv.get(b"b").unwrap().is_some(), applies);
            assert_eq!(kv.get(b"c").unwrap(), None);
            kv.heal();
            assert!(write("d"));
        }
    }
}
