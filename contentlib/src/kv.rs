//! The ordered key-value store under the index: the seam that RocksDB stands behind.
//!
//! Two implementations: [`rocks::RocksKv`], and [`memory::MemoryKv`] for simulation. What is
//! stored is a cache of the packs: losing it costs a scan, never data.

pub mod memory;
pub mod rocks;

use std::ops::ControlFlow;

/// The tables of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Chunk id to place in a pack.
    Chunks,
    /// Content digest to place of its recipe.
    Recipes,
    /// Other names to content digest.
    Aliases,
    /// Ref name to ref.
    Refs,
    /// Pack number to pack.
    Packs,
    /// Single values: counters, watermark, epochs, leases.
    Meta,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 6] =
        [Table::Chunks, Table::Recipes, Table::Aliases, Table::Refs, Table::Packs, Table::Meta];

    /// The table's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Chunks => "chunks",
            Table::Recipes => "recipes",
            Table::Aliases => "aliases",
            Table::Refs => "refs",
            Table::Packs => "packs",
            Table::Meta => "meta",
        }
    }
}

/// Why the store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// It failed; what it said.
    #[error("the index failed: {0}")]
    Failed(String),
    /// Its disk has no room left.
    #[error(
        "the disk is full, so the index cannot be written; nothing that was stored is lost: free \
         space on the volume of the data folder"
    )]
    Full,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((table, key.into(), Some(value.into())));
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.push((table, key.into(), None));
    }

    /// How many changes it holds.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// An ordered key-value store of several tables.
///
/// * A batch is applied whole or not at all, also across a crash.
/// * After a crash, batches written last may be missing, but never one before them: what is left
///   is what was there at some moment. [`Kv::flush`] makes all batches so far durable.
/// * A scan sees the table as it was when the scan began.
pub trait Kv: Send + Sync {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// The values of many keys, in their order.
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }
    /// Applies a batch.
    fn write(&self, batch: Batch) -> Result<(), KvError>;
    /// Visits keys from `from` on, in byte order, until `visit` breaks.
    #[expect(clippy::type_complexity, reason = "a name for it would have to be looked up")]
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError>;
    /// Makes all that was written durable.
    fn flush(&self) -> Result<(), KvError>;
    /// An error if what is stored is not where it should be any more, as far as that shows without
    /// reading it: whoever opens it the next time will not find it whole.
    fn check(&self) -> Result<(), KvError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract of [`Kv`]. Every implementation is held to it.
    fn keeps_the_contract(kv: &dyn Kv) {
        let mut batch = Batch::default();
        for key in ["b", "a", "c", "d"] {
            batch.put(Table::Chunks, key, format!("value of {key}"));
        }
        batch.delete(Table::Chunks, "d");
        batch.put(Table::Refs, "a", "another table");
        kv.write(batch).unwrap();
        assert_eq!(kv.get(Table::Chunks, b"a").unwrap().unwrap(), b"value of a");
        assert_eq!(kv.get(Table::Refs, b"a").unwrap().unwrap(), b"another table");
        assert_eq!(kv.get(Table::Chunks, b"d").unwrap(), None);
        let many = kv.multi_get(Table::Chunks, &[b"c", b"d", b"a"]).unwrap();
        assert_eq!(many, [Some(b"value of c".to_vec()), None, Some(b"value of a".to_vec())]);
        let mut seen = Vec::new();
        kv.scan(Table::Chunks, b"b", &mut |key, _| {
            seen.push(key.to_vec());
            // A scan does not see what is written while it runs.
            let mut batch = Batch::default();
            batch.put(Table::Chunks, "x", "late");
            kv.write(batch).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, [b"b", b"c"]);
        let mut first = None;
        kv.scan(Table::Chunks, b"", &mut |key, _| {
            first = Some(key.to_vec());
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(first.as_deref(), Some(b"a".as_slice()));
        kv.flush().unwrap();
    }

    #[test]
    fn both_stores_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        keeps_the_contract(&rocks::RocksKv::open(folder.path()).unwrap());
        keeps_the_contract(&memory::MemoryKv::default());
    }
}
