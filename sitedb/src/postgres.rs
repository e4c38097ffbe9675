//! The key-value seam on PostgreSQL: the site's database on a server of its own.
//!
//! Read `schema` for the tables, `lease` for who may write, `writer` for how, `onlooker` for what others
//! see meanwhile, `link` for what happens while the server is away. Statements are such that CockroachDB and YugabyteDB have them too.
//!
//! The seam is synchronous and is called from threads of all kinds, so a [`PostgresKv`] has two threads
//! of its own on which all talk to the server happens; a caller hands its question over and waits. Each
//! step there ends in bounded time (`link::STALL`, `link::PATIENCE`), so each caller does.
//!
//! What differs from RocksDB:
//! * one server at a time works on a database, kept by a lease instead of a file's lock;
//! * [`Durability::Relaxed`](crate::Durability::Relaxed) is as good as synced. PostgreSQL could
//!   acknowledge before the disk has it, but it can fail alone: then this process would live on with
//!   what the database forgot;
//! * a key may have 2000 bytes, a batch 512 MiB.

mod address;
mod lease;
mod link;
mod onlooker;
mod schema;
mod snapshot;
mod tls;
mod writer;

#[cfg(test)]
mod tests;

pub use address::{BadPasswordFile, BadPostgresUrl, PostgresUrl};
pub use lease::{Holder, Tenure};
pub use onlooker::{Leader, Onlooker, Standby};

use crate::transfer::{Begun, Import};
use crate::{
    Batch, Change, ChangeKind, CommitError, DbError, Entry, Kv, Order, Range, Seq, Snapshot,
};
use deadpool_postgres::Client;
use futures::TryStreamExt;
use lease::IfHeld;
use link::{Fault, For, Link, discard, step};
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_postgres::types::ToSql;
use writer::{Numbers, Task, Writer};

/// Changes that are forgotten in one transaction: batches, and what they named.
const FORGET_AT_ONCE: Seq = 5_000;

/// A [`Kv`] in a PostgreSQL database.
pub struct PostgresKv {
    /// `None` once it is closed.
    runtime: Option<Runtime>,
    link: Arc<Link>,
    tasks: UnboundedSender<Task>,
    numbers: Arc<Numbers>,
    tenure: Tenure,
    /// The copy that was begun into it, if one was.
    moving: Mutex<String>,
}

impl PostgresKv {
    /// Takes the database at `url` for `holder`, and makes its tables if there are none.
    ///
    /// Where another server has it, waits until that one's time is over, for 20 seconds at most; one
    /// that lives meanwhile keeps it, and this is [`DbError::Held`].
    ///
    /// # Errors
    /// Also if the server is away for half a minute, or refuses; if the tables are a newer depot's;
    /// or if a copy into them was begun and not ended.
    pub fn open(url: &PostgresUrl, holder: &Holder) -> Result<Self, DbError> {
        Self::take(url, holder, IfHeld::Wait)?.whole()
    }

    /// The same, but that it is [`DbError::Held`] at once where another server has it.
    pub fn open_if_free(url: &PostgresUrl, holder: &Holder) -> Result<Self, DbError> {
        Self::take(url, holder, IfHeld::Refuse)?.whole()
    }

    fn whole(self) -> Result<Self, DbError> {
        if self.moving.lock().is_empty() {
            return Ok(self);
        }
        Err(DbError::NotUsable {
            detail: "holds a copy of another one that was begun and not ended: end it with the \
                     same `depot database migrate`"
                .to_owned(),
        })
    }

    /// The same for a database into which entries are copied.
    pub fn open_for_import(url: &PostgresUrl, holder: &Holder) -> Result<Self, DbError> {
        Self::take(url, holder, IfHeld::Wait)
    }

    /// What the database was called when it was made: the same for whoever opens it, by any URL.
    pub fn database(&self) -> &str {
        self.tenure.database()
    }

    /// For how long this process surely holds it.
    pub fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    fn take(url: &PostgresUrl, holder: &Holder, if_held: IfHeld) -> Result<Self, DbError> {
        let runtime = threads()?;
        let opened = (|| {
            // Where the pool is made, too, a runtime must be near.
            let _inside = runtime.enter();
            let link = Arc::new(Link::new(url)?);
            let (name, taken) = (holder.clone(), Arc::clone(&link));
            let held = wait(&runtime, "opened", async move {
                prepare(&taken).await?;
                lease::take(&taken, &name, if_held).await
            })??;
            Ok((link, held))
        })();
        let (link, held) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let numbers = Arc::new(Numbers::default());
        numbers.newest.store(held.last_seq, Ordering::Release);
        numbers.forgotten.store(held.forgotten, Ordering::Release);
        let tenure = Tenure::new(&held);
        let writer = Writer {
            link: Arc::clone(&link),
            numbers: Arc::clone(&numbers),
            tenure: tenure.clone(),
            over: None,
        };
        let (tasks, queue) = unbounded_channel();
        runtime.spawn(writer.run(queue));
        let moving = Mutex::new(held.moving);
        Ok(Self { runtime: Some(runtime), link, tasks, numbers, tenure, moving })
    }

    /// Asks the writer, and waits for its answer.
    fn ask<T, E: From<DbError>>(
        &self,
        task: impl FnOnce(SyncSender<Result<T, E>>) -> Task,
    ) -> Result<T, E> {
        let (caller, answer) = sync_channel(1);
        let asked = self.tasks.send(task(caller)).is_ok();
        let answer = asked.then(|| answer.recv().ok()).flatten();
        answer.unwrap_or_else(|| Err(gone("written").into()))
    }

    /// Reads on a connection of the pool, again where that may help.
    fn read<T: Send + 'static>(&self, read: Read<T>) -> Result<Vec<T>, DbError> {
        let Some(runtime) = &self.runtime else { return Err(gone("read")) };
        let link = Arc::clone(&self.link);
        wait(runtime, "read", async move {
            let mut patience = link.patience("read");
            loop {
                let tried = match link.client(For::Reading, "read").await {
                    Err(fault) => Err(fault),
                    Ok(client) => {
                        let tried = read.on(&client).await;
                        if tried.is_err() {
                            discard(client);
                        }
                        tried
                    }
                };
                match tried {
                    Ok(rows) => {
                        link.is_well();
                        return Ok(rows);
                    }
                    Err(fault) => patience.after(fault).await?,
                }
            }
        })?
    }

    fn changes_after(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        let sql =
            "select seq, key, kind from depot_changes where seq > $1 order by seq, key limit $2";
        // One more, which says whether the last batch ends there.
        let limit = number(limit.saturating_add(1) as u64);
        self.read(Read {
            sql,
            parameters: vec![Box::new(number(after)), Box::new(limit)],
            row: change,
        })
    }
}

/// One question: its statement, and what a row of the answer is.
struct Read<T> {
    sql: &'static str,
    parameters: Vec<Box<dyn ToSql + Send + Sync>>,
    row: fn(&tokio_postgres::Row) -> T,
}

impl<T> Read<T> {
    /// One statement is one snapshot. Its rows come as they are taken, so however many there are,
    /// it is their standing still that counts.
    async fn on(&self, client: &Client) -> Result<Vec<T>, Fault> {
        let statement = step("read", client.prepare_cached(self.sql)).await?;
        let parameters =
            self.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
        let mut rows = pin!(step("read", client.query_raw(&statement, parameters)).await?);
        let mut found = Vec::new();
        while let Some(row) = step("read", rows.try_next()).await? {
            found.push((self.row)(&row));
        }
        Ok(found)
    }
}

/// The question for the entries of a range; none if there can be none.
fn scanning(range: &Range, order: Order, limit: usize) -> Option<Read<Entry>> {
    if limit == 0 || range.to.as_ref().is_some_and(|to| *to <= range.from) {
        return None;
    }
    let limit = number(limit as u64);
    let mut parameters: Vec<Box<dyn ToSql + Send + Sync>> =
        vec![Box::new(range.from.clone()), Box::new(limit)];
    let bounded = range.to.clone().map(|to| parameters.push(Box::new(to))).is_some();
    let sql = match (order, bounded) {
        (Order::Ascending, true) => {
            "select key, value from depot_entries where key >= $1 and key < $3 \
             order by key limit $2"
        }
        (Order::Ascending, false) => {
            "select key, value from depot_entries where key >= $1 order by key limit $2"
        }
        (Order::Descending, true) => {
            "select key, value from depot_entries where key >= $1 and key < $3 \
             order by key desc limit $2"
        }
        (Order::Descending, false) => {
            "select key, value from depot_entries where key >= $1 order by key desc limit $2"
        }
    };
    Some(Read { sql, parameters, row: |row| (row.get(0), row.get(1)) })
}

impl Kv for PostgresKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        let sql = "select value from depot_entries where key = $1";
        let parameters: Vec<Box<dyn ToSql + Send + Sync>> = vec![Box::new(key.to_vec())];
        Ok(self.read(Read { sql, parameters, row: |row| row.get(0) })?.pop())
    }

    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        match scanning(range, order, limit) {
            Some(read) => self.read(read),
            None => Ok(Vec::new()),
        }
    }

    fn write(&self, batch: Batch) -> Result<Seq, CommitError> {
        self.ask(|caller| Task::Write(batch, caller))
    }

    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        let mut found = self.changes_after(after, limit)?;
        if found.len() > limit {
            // The last batch may go on behind it.
            let cut = found.last().map_or(0, |change| change.seq);
            found.retain(|change| change.seq < cut);
            if found.is_empty() {
                let sql = "select seq, key, kind from depot_changes where seq = $1 order by key";
                let parameters: Vec<Box<dyn ToSql + Send + Sync>> = vec![Box::new(number(cut))];
                found = self.read(Read { sql, parameters, row: change })?;
            }
        }
        // Looked at last: what was forgotten meanwhile may be missing above.
        let forgotten = self.numbers.forgotten.load(Ordering::Acquire);
        match after < forgotten {
            true => Err(DbError::ChangesGone { oldest: forgotten + 1 }),
            false => Ok(found),
        }
    }

    fn last_seq(&self) -> Seq {
        self.numbers.newest.load(Ordering::Acquire)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        Ok(Box::new(snapshot::Shown::begin(self)?))
    }

    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
        let up_to = up_to.min(self.last_seq());
        loop {
            let before = self.numbers.forgotten.load(Ordering::Acquire);
            if up_to <= before {
                return Ok(());
            }
            // In parts, so that no transaction is long and writes come in between.
            let next = up_to.min(before.saturating_add(FORGET_AT_ONCE));
            self.ask(|caller| Task::Forget(next, caller))?;
        }
    }
}

impl Drop for PostgresKv {
    fn drop(&mut self) {
        let (caller, closed) = sync_channel(1);
        if self.tasks.send(Task::Close(caller)).is_ok() {
            // The next server need not wait then. Where the database is away it has to.
            let _ = closed.recv_timeout(link::STALL);
        }
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops it may be on a thread of another runtime, which must not wait for this one.
            runtime.shutdown_background();
        }
    }
}

impl Import for PostgresKv {
    fn identity(&self) -> String {
        format!("postgres:{}@{}", self.database(), self.last_seq())
    }

    fn begin(&self, source: &str) -> Result<Begun, DbError> {
        let mut moving = self.moving.lock();
        let newest = self.scan(&Range::default(), Order::Descending, 1)?.pop();
        if *moving == source {
            return Ok(Begun { after: newest.map(|(key, _)| key) });
        }
        let is_empty = newest.is_none() && self.last_seq() == 0;
        if moving.is_empty() && !is_empty {
            return Err(DbError::NotUsable {
                detail: "that is to be written is in use: name an empty one".to_owned(),
            });
        }
        // A copy of what is no longer so: from the beginning.
        self.ask(|caller| Task::Import(writer::Import::Begin(source.to_owned()), caller))?;
        source.clone_into(&mut moving);
        Ok(Begun { after: None })
    }

    fn load(&self, entries: Vec<Entry>) -> Result<(), DbError> {
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.len() > writer::MAX_KEY) {
            return Err(writer::key_too_large(key));
        }
        self.ask(|caller| Task::Import(writer::Import::Load(entries), caller)).map(drop)
    }

    fn finish(&self, newest: Seq) -> Result<(), DbError> {
        self.ask(|caller| Task::Import(writer::Import::Finish(newest), caller))?;
        self.numbers.newest.store(newest, Ordering::Release);
        self.numbers.forgotten.store(newest, Ordering::Release);
        self.moving.lock().clear();
        Ok(())
    }
}

/// Threads of its own, on which all talk to the server happens.
fn threads() -> Result<Runtime, DbError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("site-database")
        .enable_all()
        .build()
        .map_err(|error| DbError::Store { doing: "opened", detail: error.to_string() })
}

/// Makes the tables, or brings them up to date.
async fn prepare(link: &Link) -> Result<(), DbError> {
    let name = format!("{:032x}", rand::random::<u128>());
    let mut patience = link.patience("opened");
    loop {
        let tried = match link.client(For::Writing, "opened").await {
            Err(fault) => Err(fault),
            Ok(client) => {
                let tried = schema::migrate(&client, schema::MIGRATIONS, &name).await;
                if tried.is_err() {
                    discard(client);
                }
                tried
            }
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(fault) => patience.after(fault).await?,
        }
    }
}

/// Has `work` done on the threads of the database, and waits for it on this one, whatever it is.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    doing: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, DbError> {
    let (tell, told) = sync_channel(1);
    runtime.spawn(async move {
        let _ = tell.send(work.await);
    });
    told.recv().map_err(|_| gone(doing))
}

fn gone(doing: &'static str) -> DbError {
    DbError::Store { doing, detail: "it is closed".to_owned() }
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn change(row: &tokio_postgres::Row) -> Change {
    let kind = if row.get::<_, i16>(2) == 0 { ChangeKind::Put } else { ChangeKind::Delete };
    Change { seq: lease::number(row.get(0)), key: row.get(1), kind }
}
