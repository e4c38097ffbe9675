//! What a site knows besides content: tokens, jobs, audit records and, later, the fleet.
//!
//! Three layers, to be read in this order: a small transactional key-value seam ([`Kv`], in
//! memory, on RocksDB or on PostgreSQL), keys whose bytes sort as their values do ([`Key`]), and typed tables of
//! self-describing values on top ([`Table`]). Callers above see tables and batches; which store
//! lies below is chosen once, at start.
//!
//! Always true:
//! * a batch is applied whole or not at all, and a refused batch changes nothing;
//! * a synced batch that was acknowledged survives kill -9 and power loss;
//! * every value says which version of its type it is, so that old values stay readable and newer
//!   ones are refused instead of misread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod db;
mod error;
mod faulty;
mod key;
mod kv;
mod memory;
mod postgres;
mod rocks;
mod table;
pub mod transfer;

pub use db::{Db, FORMAT};
pub use error::{CommitError, DbError, with_causes};
pub use faulty::FaultyKv;
pub use key::Key;
pub use kv::{
    Batch, Change, ChangeKind, Durability, Entry, Expect, Kv, Order, Range, Seq, Snapshot,
};
pub use memory::MemoryKv;
pub use postgres::{
    BadPasswordFile, BadPostgresUrl, Holder, Leader, Onlooker, PostgresKv, PostgresUrl, Standby,
    Tenure,
};
pub use rocks::RocksKv;
pub use table::{Stored, Table, Value};
