//! A site that was put back: numbers that others remember must not mean something else now.
//!
//! Who follows the site knows places in orders that went on after the backup: of its catalogue, of what its
//! clients told, of requests to synchronise. The restored database goes on from an earlier place, and would
//! give the same numbers to other things. So, before anything else reads it, each order becomes another one,
//! and whoever comes with a place of the old one begins anew. What goes by digests needs nothing: wishes and
//! reports of points, policies of clients, states (a gap, or another digest, has a client tell all).
//!
//! [`mark`] is beside the records that are put back, and becomes part of the database in the same step as
//! they do; so this happens once, also if the site is killed meanwhile.

use crate::audit::{Audit, AuditRecord};
use crate::auth::Identity;
use crate::problem::Problem;
use compliance::Compliance;
use dp::registry::Registry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Entry, Order, Range, Table, Value};
use sync::catalogue::Catalogue;

const NAME: &str = "restored";
const RESTORED: Table<(), Restored> = Table::new(NAME);

/// What was put back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The name of the backup.
    pub backup: String,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// When it was put back.
    pub at: Timestamp,
}
impl Value for Restored {}

/// The record that says so, as it stands in a database.
pub fn mark(restored: &Restored) -> Result<Entry, Problem> {
    let db = Db::in_memory();
    RESTORED.set(&db, &(), restored)?;
    let range = Range::prefix(format!("{NAME}\0").as_bytes());
    let found = db.kv().scan(&range, Order::Ascending, 1)?.pop();
    found.ok_or_else(|| {
        let detail = "it was not written".to_owned();
        Problem::internal(&DbError::Damaged { table: NAME, detail })
    })
}

/// Gets a database ready if it was put back and not opened since.
pub fn settle(db: &Db) -> Result<(), Problem> {
    let Some(Restored { backup, taken, at }) = RESTORED.get(db, &())? else { return Ok(()) };
    let mut record =
        AuditRecord::new(&Identity::local_admin(), "restore_site", backup.as_str(), 200);
    record.detail = Some(format!("as of {taken}, restored {at}"));
    Audit::new(db.clone()).write(&record)?;
    let mut batch = Batch::new();
    Catalogue::forget_name(&mut batch);
    Compliance::renew_store_in(db, &mut batch)?;
    Registry::renew_requests(db, &mut batch)?;
    RESTORED.delete(&mut batch, &());
    db.kv().write(batch)?;
    tracing::warn!(%backup, %taken, "this site was restored from a backup");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sitedb::{Kv, MemoryKv};
    use std::sync::Arc;

    #[test]
    fn what_was_put_back_is_settled_once_and_noted() {
        let kv = Arc::new(MemoryKv::default());
        let db = Db::open(Arc::clone(&kv) as Arc<dyn Kv>).unwrap();
        settle(&db).unwrap();
        assert_eq!(kv.last_seq(), 1, "nothing was put back");
        let catalogue = Catalogue::open(db.clone()).unwrap();
        let before = catalogue.lineage().to_owned();
        drop(catalogue);
        let at = "2026-11-28T12:00:00Z".parse().unwrap();
        let restored = Restored { backup: "it".into(), taken: at, at };
        let (key, value) = mark(&restored).unwrap();
        let mut batch = Batch::new();
        batch.put(key, value);
        kv.write(batch).unwrap();
        settle(&db).unwrap();
        let seq = kv.last_seq();
        settle(&db).unwrap();
        assert_eq!(kv.last_seq(), seq);
        assert_ne!(
            Catalogue::open(db).unwrap().lineage(),
            before,
            "its places are of another order"
        );
    }
}
