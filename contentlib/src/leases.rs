//! Leases: what keeps bytes that a session added or found from being purged before it commits.
//!
//! A lease remembers the garbage collection epoch it began in. Entries condemned in an epoch are
//! purged only when no lease of that epoch or an older one is left; but a lease that keeps only what
//! was stored since it began does not hold back what lies before that in the packs. Leases of
//! resumable work are kept in the index, outlive the process, and expire; a session that lost its
//! lease finds out when its commit checks what it relied on.

use crate::index::Index;
use crate::kv::{Batch, KvError, Table};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const PREFIX: &str = "lease/";

/// Where records lie: the number of a pack, and an offset in it. What is stored later is greater.
pub(crate) type Mark = (u32, u32);

/// Since when a lease holds, and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    /// It keeps what is condemned in this epoch or later,
    pub epoch: u64,
    /// and lies here or after it: all, if this is the beginning.
    pub mark: Mark,
}

/// All leases of a library.
pub(crate) struct Leases {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Of sessions in this process, by number.
    held: BTreeMap<u64, Since>,
    /// Durable ones by name, with their expiry in milliseconds since 1970.
    durable: BTreeMap<String, (Since, u64)>,
}

impl Leases {
    pub(crate) fn load(index: &Index) -> Result<Self, KvError> {
        let mut durable = BTreeMap::new();
        index.kv.scan(Table::Meta, PREFIX.as_bytes(), &mut |key, value| {
            let Some(name) = key.strip_prefix(PREFIX.as_bytes()) else {
                return ControlFlow::Break(());
            };
            if let (Ok(name), Some(lease)) = (std::str::from_utf8(name), decode(value)) {
                durable.insert(name.to_owned(), lease);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Self { state: Mutex::new(State { durable, ..State::default() }) })
    }

    /// Takes a lease for as long as this process lives.
    pub(crate) fn take(&self, since: Since) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        state.held.insert(number, since);
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.state.lock().held.remove(&number);
    }

    /// Takes or renews a durable lease; it keeps what it kept when it began.
    pub(crate) fn renew(
        &self,
        index: &Index,
        name: &str,
        since: Since,
        expires_ms: u64,
    ) -> Result<(), KvError> {
        let mut state = self.state.lock();
        let (since, _) = *state.durable.get(name).unwrap_or(&(since, 0));
        let mut batch = Batch::default();
        batch.put(Table::Meta, format!("{PREFIX}{name}"), encode(since, expires_ms));
        index.kv.write(batch)?;
        state.durable.insert(name.to_owned(), (since, expires_ms));
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

    /// What leases hold at `now_ms`; nothing is changed.
    pub(crate) fn look(&self, now_ms: u64) -> Held {
        let state = self.state.lock();
        let durable = state.durable.values().filter(|(_, expires)| *expires > now_ms);
        let durable = durable.map(|(since, expires)| (*since, Some(*expires)));
        Held(state.held.values().map(|since| (*since, None)).chain(durable).collect())
    }

    /// What leases still hold. Expired durable leases are dropped.
    pub(crate) fn held(&self, index: &Index, now_ms: u64) -> Result<Held, KvError> {
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
        drop(state);
        Ok(self.look(now_ms))
    }
}

/// What all leases hold, each with its expiry in milliseconds since 1970; nothing for those of sessions
/// in this process, which end when they end.
pub(crate) struct Held(Vec<(Since, Option<u64>)>);

impl Held {
    /// From where on entries stay that were condemned in `epoch`; nothing if none of them has to.
    pub(crate) fn from(&self, epoch: u64) -> Option<Mark> {
        let its = self.0.iter().filter(|(since, _)| since.epoch <= epoch);
        its.map(|(since, _)| since.mark).min()
    }

    /// Whether an entry stays that lies at `at` and was condemned in `epoch`; and if so, when the last of
    /// the durable leases that keep it ends, if one does.
    pub(crate) fn keeps(&self, epoch: u64, at: Mark) -> Option<Option<u64>> {
        let its = self.0.iter().filter(|(since, _)| since.epoch <= epoch && since.mark <= at);
        its.map(|(_, expires)| *expires).max()
    }
}

fn encode(since: Since, expires_ms: u64) -> Vec<u8> {
    let (pack, offset) = since.mark;
    let mut value = [since.epoch.to_le_bytes(), expires_ms.to_le_bytes()].concat();
    value.extend([pack.to_le_bytes(), offset.to_le_bytes()].concat());
    value
}

/// A lease as it is kept. One without a mark keeps all.
fn decode(value: &[u8]) -> Option<(Since, u64)> {
    let (epoch, rest) = value.split_first_chunk()?;
    let (expires, mark) = rest.split_first_chunk()?;
    let mark = match mark.split_first_chunk() {
        None if mark.is_empty() => (0, 0),
        None => return None,
        Some((pack, offset)) => {
            (u32::from_le_bytes(*pack), u32::from_le_bytes(offset.try_into().ok()?))
        }
    };
    Some((Since { epoch: u64::from_le_bytes(*epoch), mark }, u64::from_le_bytes(*expires)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_back_also_one_of_before_there_were_marks() {
        let since = Since { epoch: 7, mark: (3, 900) };
        let value = encode(since, 5);
        assert_eq!(decode(&value), Some((since, 5)));
        assert_eq!(decode(&value[..16]), Some((Since { epoch: 7, mark: (0, 0) }, 5)));
        for cut in (0..value.len()).filter(|cut| *cut != 16) {
            assert_eq!(decode(&value[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn the_lease_that_keeps_most_counts() {
        let held = Held(vec![
            (Since { epoch: 3, mark: (9, 0) }, Some(70)),
            (Since { epoch: 5, mark: (2, 8) }, Some(60)),
            (Since { epoch: 8, mark: (0, 0) }, None),
        ]);
        let from = [2, 3, 4, 5, 7, 8, 9].map(|epoch| held.from(epoch));
        let (a, b, all) = (Some((9, 0)), Some((2, 8)), Some((0, 0)));
        assert_eq!(from, [None, a, a, b, b, all, all]);
        let keeps = |epoch, at| held.keeps(epoch, at);
        assert_eq!((keeps(2, (9, 9)), keeps(3, (8, 0)), keeps(7, (1, 0))), (None, None, None));
        assert_eq!((keeps(3, (9, 0)), keeps(5, (2, 8))), (Some(Some(70)), Some(Some(60))));
        assert_eq!(keeps(9, (9, 0)), Some(Some(70)), "the last of them counts");
        assert_eq!(keeps(8, (0, 0)), Some(None), "a session's end is not known");
    }
}
