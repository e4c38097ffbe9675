//! The index's store on RocksDB.
//!
//! Tuned for what the index asks most: whether a chunk that is not there is there. Whole-key
//! Bloom filters answer that without touching a block. The log is written but not synced: a
//! crash of the process loses nothing, a crash of the machine the last batches, which the packs
//! give back.

use super::{Batch, Kv, KvError, Table};
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const BLOCK_CACHE: usize = 32 << 20;
const WRITE_BUFFER: usize = 16 << 20;

type Database = rocksdb::DBWithThreadMode<rocksdb::MultiThreaded>;

/// RocksDB with a column family for each table.
pub struct RocksKv {
    db: Database,
}

impl From<rocksdb::Error> for KvError {
    fn from(error: rocksdb::Error) -> Self {
        match error.into_string() {
            // RocksDB keeps the system's code only in its text.
            text if text.contains("No space left on device") => KvError::Full,
            text => KvError::Failed(text),
        }
    }
}

impl RocksKv {
    /// Opens the database in `folder`, or creates it.
    pub fn open(folder: &Path) -> Result<Self, KvError> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE));
        blocks.set_block_size(16 << 10);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(6);

        // Preallocating the log costs more than all else that opening does; and on a volume that is
        // nearly full it takes the very room that garbage collection needs.
        let mut options = Options::default().get_options_from_string("allow_fallocate=false")?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_total_wal_size(64 << 20);
        options.set_db_write_buffer_size(4 * WRITE_BUFFER);
        options.set_max_open_files(256);
        // A dozen files open faster than threads start.
        options.set_max_file_opening_threads(1);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        let family = |table: Table| {
            let mut options = Options::default();
            options.set_block_based_table_factory(&blocks);
            options.set_write_buffer_size(WRITE_BUFFER);
            // Keys are hashes and do not shrink; the values shrink to a third.
            options.set_compression_type(DBCompressionType::Zstd);
            options.set_level_compaction_dynamic_level_bytes(true);
            ColumnFamilyDescriptor::new(table.name(), options)
        };
        let db = Database::open_cf_descriptors(&options, folder, Table::ALL.map(family))?;
        Ok(Self { db })
    }

    fn family(&self, table: Table) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(table.name()).expect("opened with all tables")
    }
}

impl Kv for RocksKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.db.get_cf(&self.family(table), key)?)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        let found = self.db.batched_multi_get_cf(&self.family(table), keys.iter(), false);
        found.into_iter().map(|value| Ok(value?.map(|v| v.to_vec()))).collect()
    }

    fn write(&self, mut batch: Batch) -> Result<(), KvError> {
        // Keys are hashes. Inserted in order, neighbours share the caches that the search for
        // each place warms. Changes of one key keep theirs.
        batch.changes.sort_by(|(t, a, _), (u, b, _)| (t, a).cmp(&(u, b)));
        let families = Table::ALL.map(|table| self.family(table));
        let mut writes = WriteBatch::default();
        for (table, key, value) in &batch.changes {
            let family = &families[*table as usize];
            match value {
                Some(value) => writes.put_cf(family, key, value),
                None => writes.delete_cf(family, key),
            }
        }
        let mut unsynced = WriteOptions::default();
        unsynced.set_sync(false);
        Ok(self.db.write_opt(writes, &unsynced)?)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mode = IteratorMode::From(from, rocksdb::Direction::Forward);
        let mut options = ReadOptions::default();
        // A walk over everything must not push out what look-ups need.
        options.fill_cache(false);
        for item in self.db.iterator_cf_opt(&self.family(table), options, mode) {
            let (key, value) = item?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let families = Table::ALL.map(|table| self.family(table));
        let families: Vec<_> = families.iter().collect();
        self.db.flush_cfs_opt(&families, &rocksdb::FlushOptions::default())?;
        Ok(())
    }

    fn check(&self) -> Result<(), KvError> {
        let lost = match missing_file(self.db.path(), self.db.live_files()?) {
            None => None,
            // A compaction may have been between the list and the look.
            Some(_) => missing_file(self.db.path(), self.db.live_files()?),
        };
        match lost {
            None => Ok(()),
            Some(file) => Err(KvError::Failed(format!("{file} is gone, or not as it was written"))),
        }
    }
}

/// A file of the database in `folder` that is not there, or not of its size.
fn missing_file(folder: &Path, tables: Vec<rocksdb::LiveFile>) -> Option<String> {
    for table in tables {
        let name = table.name.trim_start_matches('/');
        let size = folder.join(name).metadata().map(|metadata| metadata.len());
        if size.ok() != Some(table.size as u64) {
            return Some(name.to_owned());
        }
    }
    // Names the file that lists all others.
    let current = std::fs::read_to_string(folder.join("CURRENT")).unwrap_or_default();
    let is_listed = current.starts_with("MANIFEST-") && folder.join(current.trim_end()).is_file();
    (!is_listed).then(|| "CURRENT".to_owned())
}
