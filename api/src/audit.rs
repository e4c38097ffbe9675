//! The audit log: who changed what, with which result, when, and from where.
//!
//! Always true: the record of a change is on disk before its answer is sent; records are never
//! changed, and leave only by age.

use crate::auth::{Identity, Role};
use crate::page::{Page, PageQuery, hex, unhex};
use crate::problem::Problem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, Order, Table, Value};
use std::net::IpAddr;
use std::time::Duration;
use utoipa::ToSchema;

/// One change that somebody made or tried to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "at": "2026-11-22T12:00:00.123456Z", "who": "ci", "token": "3f9c2a7b1e0d", "role": "operator",
    "from": "192.0.2.7", "action": "update_package", "target": "docs", "status": 202,
    "detail": "job 0199f0c2a7b1e0d3"
}))]
pub struct AuditRecord {
    /// When it was answered.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The name of the token, "local admin", or "schedule" for what a site does by itself; at the
    /// end of a job, who started it.
    pub who: String,
    /// The token's id; absent for the local administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The role that it had.
    pub role: Role,
    /// The address that it came from; absent for work on the data folder itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<IpAddr>,
    /// What was asked for: an operation of this interface.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// The result as an HTTP status: below 400, it was done.
    pub status: u16,
    /// The problem, or what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
impl Value for AuditRecord {}

impl AuditRecord {
    /// A record of now, without address and detail.
    pub fn new(who: &Identity, action: &str, target: impl Into<String>, status: u16) -> Self {
        Self {
            at: Timestamp::now(),
            who: who.name.clone(),
            token: who.token.clone(),
            role: who.role,
            from: None,
            action: action.into(),
            target: target.into(),
            status,
            detail: None,
        }
    }
}

/// Microseconds since 1970, and a random number that tells two records of one moment apart.
type Key = (u64, u64);

const RECORDS: Table<Key, AuditRecord> = Table::new("audit");
const LIST: &str = "audit";

/// The audit log of a site.
#[derive(Clone)]
pub struct Audit(Db);

impl Audit {
    /// The audit log in `db`.
    pub fn new(db: Db) -> Self {
        Self(db)
    }

    /// Keeps a record; on disk when this returns.
    pub fn write(&self, record: &AuditRecord) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        RECORDS.put(&mut batch, &(micros(record.at), rand::random()), record);
        self.0.kv().write(batch).map(|_| ())
    }

    /// A page of records, the newest first.
    pub fn list(&self, query: &PageQuery) -> Result<Page<AuditRecord>, Problem> {
        let limit = query.limit()?;
        let after = query.after(LIST)?.map(|text| parse_key(&text)).transpose()?;
        let found = RECORDS.scan(&self.0, Order::Descending, after.as_ref(), limit + 1)?;
        Ok(Page::of(LIST, found, limit, |(key, _)| format_key(*key)).map(|(_, record)| record))
    }

    /// Forgets records older than `keep` before `now`; how many.
    pub fn forget(&self, keep: Duration, now: Timestamp) -> Result<usize, CommitError> {
        let Ok(limit) = now.checked_sub(keep) else { return Ok(0) };
        let mut forgotten = 0;
        loop {
            let old = RECORDS.scan(&self.0, Order::Ascending, None, 1000)?;
            let old: Vec<_> = old.into_iter().take_while(|(_, r)| r.at < limit).collect();
            if old.is_empty() {
                return Ok(forgotten);
            }
            forgotten += old.len();
            let mut batch = Batch::new();
            for (key, _) in &old {
                RECORDS.delete(&mut batch, key);
            }
            self.0.kv().write(batch)?;
        }
    }
}

fn micros(at: Timestamp) -> u64 {
    at.as_microsecond().try_into().unwrap_or(0)
}

fn format_key(key: Key) -> String {
    hex(&[key.0.to_be_bytes(), key.1.to_be_bytes()].concat())
}

fn parse_key(text: &str) -> Result<Key, Problem> {
    let bytes: Option<[u8; 16]> = unhex(text).and_then(|bytes| bytes.try_into().ok());
    let number = u128::from_be_bytes(
        bytes.ok_or_else(|| Problem::malformed("cursor", "is not a `next` of this list"))?,
    );
    Ok(((number >> 64) as u64, number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: i64) -> AuditRecord {
        let at = Timestamp::from_second(1_000_000 + n).unwrap();
        let who = Identity::local_admin();
        AuditRecord { at, ..AuditRecord::new(&who, "create_package", n.to_string(), 201) }
    }

    #[test]
    fn the_newest_comes_first_in_stable_pages() {
        let audit = Audit::new(Db::in_memory());
        for n in 0..5 {
            audit.write(&record(n)).unwrap();
        }
        audit.write(&record(4)).unwrap();
        let first = audit.list(&PageQuery { limit: Some(4), cursor: None }).unwrap();
        audit.write(&record(9)).unwrap();
        let rest = audit.list(&PageQuery { limit: Some(4), cursor: first.next }).unwrap();
        let targets: Vec<_> =
            first.items.iter().chain(&rest.items).map(|r| r.target.as_str()).collect();
        assert_eq!(targets, ["4", "4", "3", "2", "1", "0"]);
        assert_eq!(rest.next, None);
        let wrong = PageQuery { limit: None, cursor: Some(crate::page::cursor_of(LIST, "ab")) };
        assert!(audit.list(&wrong).is_err());
    }

    #[test]
    fn old_records_are_forgotten() {
        let audit = Audit::new(Db::in_memory());
        for n in 0..5 {
            audit.write(&record(n)).unwrap();
        }
        let now = Timestamp::from_second(1_000_013).unwrap();
        assert_eq!(audit.forget(Duration::from_secs(10), now).unwrap(), 3);
        assert_eq!(audit.list(&PageQuery::default()).unwrap().items.len(), 2);
    }
}
