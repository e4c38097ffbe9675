//! The index's store in memory, with the faults that RocksDB has: after a crash the last batches
//! may be gone, since its log is not synced; and a write may fail.

use super::{Batch, Kv, KvError, Table};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Asked before each batch: whether it fails.
type Fault = dyn FnMut() -> bool + Send;

/// Ordered tables in memory.
#[derive(Default)]
pub struct MemoryKv {
    state: Mutex<State>,
    fault: Mutex<Option<Box<Fault>>>,
}

#[derive(Default)]
struct State {
    flushed: Tables,
    /// Batches since the last flush, oldest first.
    log: Vec<Batch>,
    now: Tables,
}

fn apply(tables: &mut Tables, batch: &Batch) {
    for (table, key, value) in &batch.changes {
        match value {
            Some(value) => tables.insert((*table, key.clone()), value.clone()),
            None => tables.remove(&(*table, key.clone())),
        };
    }
}

impl MemoryKv {
    /// What is left after a crash that lost all but the first `keep` unflushed batches.
    pub fn crash(&self, keep: usize) -> Self {
        let state = self.state.lock();
        let mut tables = state.flushed.clone();
        state.log.iter().take(keep).for_each(|batch| apply(&mut tables, batch));
        let state = State { flushed: tables.clone(), log: Vec::new(), now: tables };
        Self { state: Mutex::new(state), fault: Mutex::default() }
    }

    /// From now on batches fail when `fault` says so.
    pub fn set_fault(&self, fault: impl FnMut() -> bool + Send + 'static) {
        *self.fault.lock() = Some(Box::new(fault));
    }

    /// How many batches a crash could lose.
    pub fn unflushed(&self) -> usize {
        self.state.lock().log.len()
    }
}

impl Kv for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.state.lock().now.get(&(table, key.to_vec())).cloned())
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        if self.fault.lock().as_mut().is_some_and(|fault| fault()) {
            return Err(KvError::Failed("made to fail".into()));
        }
        let mut state = self.state.lock();
        apply(&mut state.now, &batch);
        state.log.push(batch);
        Ok(())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let seen: Vec<_> = {
            let state = self.state.lock();
            let range = state.now.range((table, from.to_vec())..);
            let in_table = range.take_while(|((t, _), _)| *t == table);
            in_table.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in seen {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut state = self.state.lock();
        state.flushed = state.now.clone();
        state.log.clear();
        Ok(())
    }
}
