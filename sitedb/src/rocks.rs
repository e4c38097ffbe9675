//! The key-value seam on RocksDB: the site's own, small instance.
//!
//! One keyspace, split by the first byte, so that a batch, its feed record and the feed's number
//! are one RocksDB write batch:
//!
//! | key | value |
//! | --- | --- |
//! | `00 's'` | number of the newest batch, u64 big-endian |
//! | `00 'f'` | number up to which changes were forgotten, u64 big-endian |
//! | `00 'm'` | while another database is copied into it: what that one calls itself |
//! | `01`, number as u64 big-endian | the batch's changes: kind (0 put, 1 delete), key length u32 big-endian, key; repeated |
//! | `02`, key | value |
//!
//! Writers queue; whoever gets the write lock commits the whole queue with one sync (group
//! commit), so a hundred concurrent audit records cost a few disk flushes, not a hundred.

use crate::kv::{PAGE, PAGE_BYTES, after_prefix, last_per_key};
use crate::transfer::{Begun, Import};
use crate::{
    Batch, Change, ChangeKind, CommitError, DbError, Durability, Entry, Kv, Order, Range, Seq,
    Snapshot,
};
use parking_lot::Mutex;
use rocksdb::{DB, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NEWEST: &[u8] = b"\x00s";
const FORGOTTEN: &[u8] = b"\x00f";
const MOVING: &[u8] = b"\x00m";
const FEED: u8 = 1;
const DATA: u8 = 2;

/// A [`Kv`] in a folder.
pub struct RocksKv {
    db: DB,
    queue: Mutex<Vec<(Batch, Arc<Answer>)>>,
    /// Held while a group of batches is checked and written.
    writing: Mutex<()>,
    newest: AtomicU64,
    forgotten: AtomicU64,
    folder: PathBuf,
}

/// Where the writer that commits a group leaves each member's result.
type Answer = Mutex<Option<Result<Seq, CommitError>>>;

impl RocksKv {
    /// Opens the database in `folder`, and makes it if there is none.
    ///
    /// The folder belongs to one process at a time: RocksDB's own lock refuses a second one.
    pub fn open(folder: &Path) -> Result<Self, DbError> {
        let kv = Self::open_for_import(folder)?;
        match kv.db.get(MOVING).map_err(failed("opened"))? {
            None => Ok(kv),
            Some(_) => Err(DbError::NotUsable {
                detail: format!(
                    "in {folder:?} is a copy of another one that was begun and not ended: end it \
                     with the same `depot database migrate`"
                ),
            }),
        }
    }

    /// The same for a database into which another one is copied.
    pub fn open_for_import(folder: &Path) -> Result<Self, DbError> {
        let db = options().and_then(|o| DB::open(&o, folder)).map_err(failed("opened"))?;
        let number = |key| -> Result<u64, DbError> {
            let found = db.get(key).map_err(failed("opened"))?;
            Ok(found.as_deref().map(be_u64).transpose()?.unwrap_or(0))
        };
        let (newest, forgotten) = (number(NEWEST)?, number(FORGOTTEN)?);
        Ok(Self {
            db,
            queue: Mutex::default(),
            writing: Mutex::new(()),
            newest: newest.into(),
            forgotten: forgotten.into(),
            folder: folder.to_owned(),
        })
    }

    /// Commits `group` with one write; leaves each member's answer.
    fn commit(&self, group: Vec<(Batch, Arc<Answer>)>) {
        let mut seq = self.newest.load(Ordering::Acquire);
        let mut write = WriteBatch::default();
        let mut sync = false;
        // What earlier members of the group set, which the database does not show yet.
        let mut pending: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
        let mut accepted = Vec::new();
        for (batch, answer) in group {
            match self.refusal(&batch, &pending) {
                Some(refusal) => *answer.lock() = Some(Err(refusal)),
                None => {
                    sync |= batch.durability == Durability::Synced;
                    if !batch.set.is_empty() {
                        seq += 1;
                        append(&mut write, seq, batch.set, &mut pending);
                    }
                    accepted.push((answer, seq));
                }
            }
        }
        // An empty synced batch still means "all before me is on disk"; RocksDB syncs the log for
        // any batch that is not empty, and writing the number again is the cheapest one.
        write.put(NEWEST, seq.to_be_bytes());
        let mut how = WriteOptions::default();
        how.set_sync(sync);
        let result = self.db.write_opt(write, &how);
        if result.is_ok() {
            self.newest.store(seq, Ordering::Release);
        }
        for (answer, seq) in accepted {
            let outcome = match &result {
                Ok(()) => Ok(seq),
                Err(error) => Err(failed("written")(error.clone()).into()),
            };
            *answer.lock() = Some(outcome);
        }
    }

    fn write_synced(&self, write: WriteBatch) -> Result<(), DbError> {
        let mut how = WriteOptions::default();
        how.set_sync(true);
        self.db.write_opt(write, &how).map_err(failed("written"))
    }

    /// Why `batch` may not be applied, if so.
    fn refusal(
        &self,
        batch: &Batch,
        pending: &HashMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Option<CommitError> {
        for (key, expect) in &batch.require {
            let found = match pending.get(key) {
                Some(value) => Ok(value.clone()),
                None => self.get(key),
            };
            match found {
                Ok(value) if expect.holds(value.as_deref()) => {}
                Ok(_) => return Some(CommitError::Conflict { key: key.clone() }),
                Err(error) => return Some(error.into()),
            }
        }
        None
    }
}

/// Adds one batch and its feed record to `write`.
fn append(
    write: &mut WriteBatch,
    seq: Seq,
    set: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pending: &mut HashMap<Vec<u8>, Option<Vec<u8>>>,
) {
    let mut record = Vec::new();
    for (key, value) in last_per_key(set) {
        record.push(u8::from(value.is_none()));
        record.extend_from_slice(&(key.len() as u32).to_be_bytes());
        record.extend_from_slice(&key);
        match &value {
            Some(value) => write.put(data_key(&key), value),
            None => write.delete(data_key(&key)),
        }
        pending.insert(key, value);
    }
    write.put(feed_key(seq), record);
}

impl Kv for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.db.get(data_key(key)).map_err(failed("read"))
    }

    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        let from = data_key(&range.from);
        let to = range.to.as_deref().map_or(vec![DATA + 1], data_key);
        if to <= from {
            return Ok(Vec::new());
        }
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(from);
        bounds.set_iterate_upper_bound(to);
        let mode = match order {
            Order::Ascending => IteratorMode::Start,
            Order::Descending => IteratorMode::End,
        };
        let mut found = Vec::new();
        for entry in self.db.iterator_opt(mode, bounds).take(limit) {
            let (key, value) = entry.map_err(failed("read"))?;
            found.push((key.get(1..).unwrap_or_default().to_vec(), value.into_vec()));
        }
        Ok(found)
    }

    fn write(&self, batch: Batch) -> Result<Seq, CommitError> {
        let answer = Arc::new(Answer::default());
        self.queue.lock().push((batch, Arc::clone(&answer)));
        let _writing = self.writing.lock();
        // Whoever held the lock before may have taken this batch along.
        if answer.lock().is_none() {
            let group = std::mem::take(&mut *self.queue.lock());
            self.commit(group);
        }
        answer.lock().take().expect("a batch that left the queue was answered under the lock")
    }

    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        let forgotten = self.forgotten.load(Ordering::Acquire);
        if after < forgotten {
            return Err(DbError::ChangesGone { oldest: forgotten + 1 });
        }
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(feed_key(after.saturating_add(1)));
        bounds.set_iterate_upper_bound(vec![FEED + 1]);
        let mut found: Vec<Change> = Vec::new();
        for entry in self.db.iterator_opt(IteratorMode::Start, bounds) {
            let (key, record) = entry.map_err(failed("read"))?;
            let seq = be_u64(key.get(1..).unwrap_or_default())?;
            let batch = feed_record(seq, &record).ok_or_else(|| damaged("a feed record"))?;
            if !found.is_empty() && found.len() + batch.len() > limit {
                break;
            }
            found.extend(batch);
        }
        Ok(found)
    }

    fn last_seq(&self) -> Seq {
        self.newest.load(Ordering::Acquire)
    }

    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
        let _writing = self.writing.lock();
        let before = self.forgotten.load(Ordering::Acquire);
        let up_to = up_to.min(self.last_seq());
        if up_to <= before {
            return Ok(());
        }
        let mut write = WriteBatch::default();
        write.delete_range(feed_key(before), feed_key(up_to + 1));
        write.put(FORGOTTEN, up_to.to_be_bytes());
        // Readers are refused from here on, before a record is gone.
        self.forgotten.store(up_to, Ordering::Release);
        self.db.write(write).map_err(failed("written"))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        let snapshot = self.db.snapshot();
        let newest = snapshot.get(NEWEST).map_err(failed("read"))?;
        let seq = newest.as_deref().map(be_u64).transpose()?.unwrap_or(0);
        Ok(Box::new(Shown { snapshot, seq, from: Some(vec![DATA]) }))
    }
}

/// A snapshot of RocksDB; the number is that of the same moment, since each batch writes both.
struct Shown<'a> {
    snapshot: rocksdb::Snapshot<'a>,
    seq: Seq,
    /// Where the next page begins; none after the last.
    from: Option<Vec<u8>>,
}

impl Snapshot for Shown<'_> {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn next_page(&mut self) -> Result<Vec<Entry>, DbError> {
        let Some(from) = self.from.take() else { return Ok(Vec::new()) };
        let mut how = ReadOptions::default();
        how.set_iterate_lower_bound(from);
        how.set_iterate_upper_bound(vec![DATA + 1]);
        // Read once: it need not push out what others read again and again.
        how.fill_cache(false);
        let (mut page, mut bytes) = (Vec::new(), 0);
        for entry in self.snapshot.iterator_opt(IteratorMode::Start, how) {
            let (key, value) = entry.map_err(failed("read"))?;
            bytes += key.len() + value.len();
            page.push((key.get(1..).unwrap_or_default().to_vec(), value.into_vec()));
            if page.len() == PAGE || bytes >= PAGE_BYTES {
                self.from = Some([&key, [0].as_slice()].concat());
                break;
            }
        }
        Ok(page)
    }
}

impl Import for RocksKv {
    fn identity(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        format!("folder:{}@{}", folder.display(), self.last_seq())
    }

    fn begin(&self, source: &str) -> Result<Begun, DbError> {
        let moving = self.db.get(MOVING).map_err(failed("read"))?;
        let last = self.scan(&Range::default(), Order::Descending, 1)?.pop();
        if moving.as_deref() == Some(source.as_bytes()) {
            return Ok(Begun { after: last.map(|(key, _)| key) });
        }
        if moving.is_none() && (last.is_some() || self.last_seq() > 0) {
            let detail = format!("in {:?} is in use: name a folder that is empty", self.folder);
            return Err(DbError::NotUsable { detail });
        }
        // A copy of what is no longer so: from the beginning.
        let mut write = WriteBatch::default();
        write.delete_range(vec![DATA], vec![DATA + 1]);
        write.put(MOVING, source);
        self.write_synced(write)?;
        Ok(Begun { after: None })
    }

    fn load(&self, entries: Vec<Entry>) -> Result<(), DbError> {
        let mut write = WriteBatch::default();
        for (key, value) in entries {
            write.put(data_key(&key), value);
        }
        self.write_synced(write)
    }

    fn finish(&self, newest: Seq) -> Result<(), DbError> {
        let mut write = WriteBatch::default();
        write.put(NEWEST, newest.to_be_bytes());
        write.put(FORGOTTEN, newest.to_be_bytes());
        write.delete(MOVING);
        self.write_synced(write)?;
        self.newest.store(newest, Ordering::Release);
        self.forgotten.store(newest, Ordering::Release);
        Ok(())
    }
}

/// Tuned for a few megabytes that are opened often: little memory, few files.
fn options() -> Result<Options, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(4 << 20);
    // With two, writers wait whenever a checkpoint of the fleet's states fills both before one is on disk.
    options.set_max_write_buffer_number(8);
    options.set_max_total_wal_size(32 << 20);
    // What is written beside the log goes to disk bit by bit, so that no sync of the log waits behind megabytes of it.
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    // A few files open faster than threads start.
    options.set_max_file_opening_threads(1);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    // Large values, as updates are, lie beside the sorted files, so that sorting keys does not write them again.
    options.set_enable_blob_files(true);
    options.set_min_blob_size(1 << 10);
    options.set_blob_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_enable_blob_gc(true);
    options.set_blob_gc_force_threshold(0.5);
    // Else each opening sets megabytes aside, which a volume that is nearly full does not have.
    // (Not `avoid_flush_during_recovery`: it is faster, but a log stays behind for each of a
    // thousand short commands.)
    options.get_options_from_string("allow_fallocate=false")
}

fn data_key(key: &[u8]) -> Vec<u8> {
    [&[DATA], key].concat()
}

fn feed_key(seq: Seq) -> Vec<u8> {
    debug_assert!(after_prefix(&[FEED]) == Some(vec![DATA]));
    [&[FEED], seq.to_be_bytes().as_slice()].concat()
}

fn feed_record(seq: Seq, mut record: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((&kind, rest)) = record.split_first() {
        let kind = match kind {
            0 => ChangeKind::Put,
            1 => ChangeKind::Delete,
            _ => return None,
        };
        let (len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        changes.push(Change { seq, key: key.to_vec(), kind });
        record = rest;
    }
    Some(changes)
}

fn be_u64(bytes: &[u8]) -> Result<u64, DbError> {
    let bytes = bytes.try_into().map_err(|_| damaged("a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn damaged(what: &str) -> DbError {
    DbError::Damaged { table: "change feed", detail: format!("{what} has the wrong form") }
}

fn failed(doing: &'static str) -> impl Fn(rocksdb::Error) -> DbError {
    move |error| match error.into_string() {
        // RocksDB keeps the system's code only in its text.
        detail if detail.contains("No space left on device") => DbError::Full { doing },
        detail => DbError::Store { doing, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocksdb_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        crate::kv::contract::holds(&RocksKv::open(folder.path()).unwrap());
    }

    #[test]
    fn it_keeps_the_contract_of_copies() {
        let folder = tempfile::tempdir().unwrap();
        let target = RocksKv::open_for_import(folder.path()).unwrap();
        crate::transfer::contract::holds(&target);
        drop(target);
        assert_eq!(RocksKv::open(folder.path()).unwrap().last_seq(), 1502);
    }

    #[test]
    fn a_copy_that_was_not_ended_is_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let target = RocksKv::open_for_import(folder.path()).unwrap();
        target.begin("another one").unwrap();
        drop(target);
        let refused = RocksKv::open(folder.path()).err().unwrap();
        assert!(matches!(refused, DbError::NotUsable { .. }), "{refused}");
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..3_u8 {
            let kv = RocksKv::open(folder.path()).unwrap();
            assert_eq!(kv.last_seq(), u64::from(round));
            let mut batch = Batch::new();
            batch.put([round], "value");
            kv.write(batch).unwrap();
            assert_eq!(kv.changes(0, 99).unwrap().len(), usize::from(round) + 1);
        }
        let kv = RocksKv::open(folder.path()).unwrap();
        kv.forget_changes(2).unwrap();
        drop(kv);
        let kv = RocksKv::open(folder.path()).unwrap();
        assert!(matches!(kv.changes(1, 9), Err(DbError::ChangesGone { oldest: 3 })));
        assert_eq!(kv.changes(2, 9).unwrap().len(), 1);
    }

    #[test]
    fn an_acknowledged_batch_is_in_the_files_before_anything_is_closed() {
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kv = RocksKv::open(folder.path()).unwrap();
        for n in 0..100_u8 {
            let mut batch = if n % 2 == 0 { Batch::new() } else { Batch::relaxed() };
            batch.put([n], "value");
            kv.write(batch).unwrap();
        }
        // What kill -9 would leave behind.
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let after = RocksKv::open(copy.path()).unwrap();
        assert_eq!(after.last_seq(), 100);
        assert_eq!(after.changes(0, 1000).unwrap(), kv.changes(0, 1000).unwrap());
        assert_eq!(after.get(&[99]).unwrap().as_deref(), Some(b"value".as_slice()));
    }

    #[test]
    fn a_second_user_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _kv = RocksKv::open(folder.path()).unwrap();
        assert!(RocksKv::open(folder.path()).is_err());
    }
}
