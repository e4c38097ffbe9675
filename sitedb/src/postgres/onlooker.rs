//! What those see of a database who do not hold it: who does, who else stands by, and what is stored.
//!
//! A server that stands by looks again and again whether there is a holder, and says that it is there
//! itself, in a table of its own: what the holder alone writes is not touched.
//!
//! Nothing here is tried twice: whoever looks will look again.

use super::link::{For, Link, discard, step};
use super::{PostgresUrl, Read, prepare, threads, wait};
use crate::{Batch, Change, CommitError, DbError, Entry, Holder, Kv, Order, Range, Seq, Snapshot};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;

/// Who holds a database, or held it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// [`Holder::id`]; empty if it let go.
    pub id: String,
    /// In words.
    pub name: String,
    /// Where other servers reach it, HOST:PORT; may be empty.
    pub address: String,
    /// Grows with each holder.
    pub number: u64,
    /// Since when, in ms since 1970, by the database's clock.
    pub since: u64,
    /// Whether its time still runs, by the database's clock.
    pub lives: bool,
}

/// A server that stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// In words.
    pub name: String,
    /// Where other servers reach it, HOST:PORT.
    pub address: String,
    /// Since when, in ms since 1970, by the database's clock.
    pub since: u64,
    /// How long ago it last said so, in ms.
    pub silent: u64,
}

/// A database that may be held by another server. Through [`Kv`] it is read; nothing is written.
pub struct Onlooker {
    /// `None` once it is closed.
    runtime: Option<Runtime>,
    link: Arc<Link>,
}

type Parameters = Vec<Box<dyn ToSql + Send + Sync>>;

impl Onlooker {
    /// Looks at the database at `url`, and makes its tables if there are none.
    pub fn open(url: &PostgresUrl) -> Result<Self, DbError> {
        let runtime = threads()?;
        let opened = (|| {
            let _inside = runtime.enter();
            let link = Arc::new(Link::new(url)?);
            let prepared = Arc::clone(&link);
            wait(&runtime, "opened", async move { prepare(&prepared).await })??;
            Ok(link)
        })();
        match opened {
            Ok(link) => Ok(Self { runtime: Some(runtime), link }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Who holds the database.
    pub fn leader(&self) -> Result<Leader, DbError> {
        let sql = "select holder_id, holder, address, fence, \
                   (extract(epoch from since) * 1000)::bigint, until >= clock_timestamp() \
                   from depot_state where one = 1";
        let row = |row: &tokio_postgres::Row| Leader {
            id: row.get(0),
            name: row.get(1),
            address: row.get(2),
            number: super::lease::number(row.get(3)),
            since: super::lease::number(row.get(4)),
            lives: row.get(5),
        };
        let found = self.ask(Read { sql, parameters: Vec::new(), row })?.pop();
        let detail = || "its row is gone".to_owned();
        found.ok_or_else(|| DbError::Store { doing: "read", detail: detail() })
    }

    /// Says that this server stands by. Those who have not said so for a day are forgotten.
    pub fn stand_by(&self, server: &Holder) -> Result<(), DbError> {
        let sql = "with gone as (delete from depot_servers \
                       where seen < clock_timestamp() - interval '1 day' and id <> $1) \
                   insert into depot_servers (id, name, address, since, seen) \
                   values ($1, $2, $3, clock_timestamp(), clock_timestamp()) \
                   on conflict (id) do update set name = excluded.name, address = excluded.address, \
                   seen = excluded.seen, since = case \
                       when depot_servers.name = excluded.name then depot_servers.since \
                       else excluded.since end \
                   returning 1";
        let Holder { id, name, address } = server.clone();
        let parameters: Parameters = vec![Box::new(id), Box::new(name), Box::new(address)];
        self.ask(Read { sql, parameters, row: |_| () }).map(drop)
    }

    /// Says that the server with this id stands by no more.
    pub fn leave(&self, id: &str) -> Result<(), DbError> {
        let sql = "delete from depot_servers where id = $1 returning 1";
        self.ask(Read { sql, parameters: vec![Box::new(id.to_owned())], row: |_| () }).map(drop)
    }

    /// Who stands by, the longest first; also who has not said so for a while.
    pub fn standbys(&self) -> Result<Vec<Standby>, DbError> {
        let sql = "select name, address, (extract(epoch from since) * 1000)::bigint, \
                   (extract(epoch from clock_timestamp() - seen) * 1000)::bigint \
                   from depot_servers order by since, id limit 1000";
        let row = |row: &tokio_postgres::Row| Standby {
            name: row.get(0),
            address: row.get(1),
            since: super::lease::number(row.get(2)),
            silent: super::lease::number(row.get(3)),
        };
        self.ask(Read { sql, parameters: Vec::new(), row })
    }

    fn ask<T: Send + 'static>(&self, read: Read<T>) -> Result<Vec<T>, DbError> {
        let Some(runtime) = &self.runtime else { return Err(super::gone("read")) };
        let link = Arc::clone(&self.link);
        wait(runtime, "read", async move {
            let client = link.client(For::Reading, "read").await?;
            let rows = step("read", async { Ok(read.on(&client).await) }).await;
            match rows {
                Ok(Ok(rows)) => Ok(rows),
                Ok(Err(fault)) | Err(fault) => {
                    discard(client);
                    Err(fault)
                }
            }
        })?
        .map_err(super::link::Fault::into_error)
    }
}

fn held(doing: &'static str) -> DbError {
    DbError::Store { doing, detail: "another server may hold it".to_owned() }
}

impl Kv for Onlooker {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        let sql = "select value from depot_entries where key = $1";
        let parameters: Parameters = vec![Box::new(key.to_vec())];
        Ok(self.ask(Read { sql, parameters, row: |row| row.get(0) })?.pop())
    }

    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        match super::scanning(range, order, limit) {
            Some(read) => self.ask(read),
            None => Ok(Vec::new()),
        }
    }

    fn write(&self, _: Batch) -> Result<Seq, CommitError> {
        Err(held("written").into())
    }

    fn changes(&self, _: Seq, _: usize) -> Result<Vec<Change>, DbError> {
        Err(DbError::ChangesGone { oldest: 0 })
    }

    fn last_seq(&self) -> Seq {
        0
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        Err(held("copied"))
    }

    fn forget_changes(&self, _: Seq) -> Result<(), DbError> {
        Ok(())
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops it may be on a thread of another runtime, which must not wait for this one.
            runtime.shutdown_background();
        }
    }
}
