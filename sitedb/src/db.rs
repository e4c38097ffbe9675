//! A store whose format this program has checked.

use crate::{CommitError, DbError, Kv, MemoryKv, RocksKv, Table, Value};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The newest format that this program reads, and the one it writes.
///
/// Raise it when an older program must not touch the database any more; changes inside one table
/// need only a new [`Value::VERSION`].
pub const FORMAT: u32 = 1;

const FORMATS: Table<(), Format> = Table::new("format");

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}
impl Value for Format {}

/// The site database: a [`Kv`] of a format that this program knows. Cloning shares it.
#[derive(Clone)]
pub struct Db(Arc<dyn Kv>);

impl Db {
    /// Takes a store into use. An empty one gets the current format, one of a newer format is
    /// refused untouched.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self, DbError> {
        let db = Self(kv);
        match FORMATS.get(&db, &())? {
            Some(Format { format }) if format > FORMAT => {
                return Err(DbError::NewerFormat { found: format, known: FORMAT });
            }
            Some(_) => {}
            None => {
                FORMATS.set(&db, &(), &Format { format: FORMAT }).map_err(|error| match error {
                    CommitError::Db(error) => error,
                    CommitError::Conflict { .. } => unreachable!("nothing is required"),
                })?;
            }
        }
        Ok(db)
    }

    /// Reads a store that another process works on. What it holds no format of is of this one.
    pub fn read_only(kv: Arc<dyn Kv>) -> Result<Self, DbError> {
        let db = Self(kv);
        match FORMATS.get(&db, &())? {
            Some(Format { format }) if format > FORMAT => {
                Err(DbError::NewerFormat { found: format, known: FORMAT })
            }
            _ => Ok(db),
        }
    }

    /// Opens, or makes, the database in `folder`.
    pub fn open_folder(folder: &Path) -> Result<Self, DbError> {
        Self::open(Arc::new(RocksKv::open(folder)?))
    }

    /// A database that ends with the process, for tests and trials.
    pub fn in_memory() -> Self {
        Self::open(Arc::new(MemoryKv::default())).expect("memory does not fail")
    }

    /// The store below.
    pub fn kv(&self) -> &dyn Kv {
        &*self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Change, Entry, Order, Range, Seq, Snapshot};

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
        let db = Db::open(Arc::clone(&kv)).unwrap();
        FORMATS.set(&db, &(), &Format { format: FORMAT + 1 }).unwrap();
        let before = kv.last_seq();
        let refused = Db::open(Arc::clone(&kv)).err().unwrap();
        assert!(matches!(refused, DbError::NewerFormat { found, .. } if found == FORMAT + 1));
        assert_eq!(kv.last_seq(), before);
    }

    /// A store on a volume without room.
    struct NoRoom(MemoryKv);

    impl Kv for NoRoom {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
            self.0.get(key)
        }
        fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
            self.0.scan(range, order, limit)
        }
        fn write(&self, _: Batch) -> Result<Seq, CommitError> {
            Err(DbError::Full { doing: "written" }.into())
        }
        fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
            self.0.changes(after, limit)
        }
        fn last_seq(&self) -> Seq {
            self.0.last_seq()
        }
        fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
            self.0.forget_changes(up_to)
        }
        fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
            self.0.snapshot()
        }
    }

    #[test]
    fn a_new_one_says_if_there_is_no_room_for_it() {
        let refused = Db::open(Arc::new(NoRoom(MemoryKv::default()))).err().unwrap();
        assert!(matches!(refused, DbError::Full { .. }), "{refused}");
    }

    #[test]
    fn a_folder_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        drop(Db::open_folder(folder.path()).unwrap());
        let db = Db::open_folder(folder.path()).unwrap();
        assert_eq!(db.kv().last_seq(), 1);
    }
}
