//! Leases: what keeps bytes that a session added or found from being purged before it commits.
//!
//! A lease remembers the garbage collection epoch it began in. Entries condemned in an epoch are
//! purged only when no lease of that epoch or an older one is left. Leases of resumable uploads
//! are kept in the index, outlive the process, and expire; a session that lost its lease finds
//! out when its commit checks what it relied on.

use crate::index::Index;
use crate::kv::{Batch, KvError, Table};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const PREFIX: &str = "lease/";

/// All leases of a library.
pub(crate) struct Leases {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Of sessions in this process: number to epoch.
    held: BTreeMap<u64, u64>,
    /// Durable ones: name to epoch and expiry in milliseconds since 1970.
    durable: BTreeMap<String, (u64, u64)>,
}

impl Leases {
    pub(crate) fn load(index: &Index) -> Result<Self, KvError> {
        let mut durable = BTreeMap::new();
        index.kv.scan(Table::Meta, PREFIX.as_bytes(), &mut |key, value| {
            let Some(name) = key.strip_prefix(PREFIX.as_bytes()) else {
                return ControlFlow::Break(());
            };
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), <[u8; 16]>::try_from(value))
            {
                let epoch = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
                let expires = u64::from_le_bytes(value[8..].try_into().expect("eight bytes"));
                durable.insert(name.to_owned(), (epoch, expires));
            }
            ControlFlow::Continue(())
        })?;
        Ok(Self { state: Mutex::new(State { durable, ..State::default() }) })
    }

    /// Takes a lease for as long as this process lives.
    pub(crate) fn take(&self, epoch: u64) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        state.held.insert(number, epoch);
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.state.lock().held.remove(&number);
    }

    /// Takes or renews a durable lease; it keeps the epoch it began in.
    pub(crate) fn renew(
        &self,
        index: &Index,
        name: &str,
        epoch: u64,
        expires_ms: u64,
    ) -> Result<(), KvError> {
        let mut state = self.state.lock();
        let (epoch, _) = *state.durable.get(name).unwrap_or(&(epoch, 0));
        let mut batch = Batch::default();
        let value = [epoch.to_le_bytes(), expires_ms.to_le_bytes()].concat();
        batch.put(Table::Meta, format!("{PREFIX}{name}"), value);
        index.kv.write(batch)?;
        state.durable.insert(name.to_owned(), (epoch, expires_ms));
        Ok(())
    }

    /// The names of durable leases that begin with `prefix`, in order.
    pub(crate) fn durable(&self, prefix: &str) -> Vec<String> {
        let state = self.state.lock();
        let names = state.durable.keys().filter(|name| name.starts_with(prefix));
        names.cloned().collect()
    }

    pub(crate) fn end_durable(&self, index: &Index, name: &str) -> Result<(), KvError> {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        batch.delete(Table::Meta, format!("{PREFIX}{name}"));
        index.kv.write(batch)?;
        state.durable.remove(name);
        Ok(())
    }

    /// The oldest epoch that a lease still holds. Expired durable leases are dropped.
    pub(crate) fn oldest(&self, index: &Index, now_ms: u64) -> Result<Option<u64>, KvError> {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        state.durable.retain(|name, (_, expires)| {
            let keep = *expires > now_ms;
            if !keep {
                batch.delete(Table::Meta, format!("{PREFIX}{name}"));
            }
            keep
        });
        index.kv.write(batch)?;
        let durable = state.durable.values().map(|(epoch, _)| *epoch);
        Ok(state.held.values().copied().chain(durable).min())
    }
}
