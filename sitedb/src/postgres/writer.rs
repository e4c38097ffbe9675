//! The one who writes: groups of batches, each group one serializable transaction.
//!
//! Callers queue their batches and wait. One task takes all that wait, judges each batch by what the
//! database holds and what the batches before it in the group set, and writes those that hold in one
//! statement: entries, feed, and the state row with the group's own random id. Two round trips and
//! one commit serve however many callers wait.
//!
//! **A commit whose answer was lost.** The connection may end after COMMIT was sent. Then the group
//! is tried again, and the first thing each try does is to lock the state row and look at the id in
//! it: the lock is had only when the lost transaction has ended, one way or the other, and the id
//! says which. So a group is applied once, and what was decided of it then is what its callers hear.
//!
//! Always true: the feed's number in memory is never behind an answer that was given, and a database
//! that shows less than was acknowledged (a failover to a copy that had not followed) is written to
//! no more.

use super::lease::{self, RENEWAL, TIME_IN_SQL, Tenure};
use super::link::{Fault, For, Link, discard, step};
use crate::kv::last_per_key;
use crate::{Batch, CommitError, DbError, Entry, Seq};
use deadpool_postgres::Client;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Batches of one transaction at most.
const MAX_GROUP: usize = 256;
/// Bytes of one statement, about; a larger group takes several. Beyond it no further batch joins.
const MAX_STATEMENT: usize = 8 << 20;
/// The longest key: with its number it must fit into a page of an index, a third of 8 KiB.
pub(super) const MAX_KEY: usize = 2000;
/// Bytes of one batch. A message to PostgreSQL, and a value in it, must stay below 1 GiB.
const MAX_BATCH: usize = 512 << 20;

/// What the writer is asked for. Each caller waits for its answer, so the queue is as long as there
/// are callers.
pub(super) enum Task {
    Write(Batch, Answer),
    Forget(Seq, SyncSender<Result<Seq, DbError>>),
    Import(Import, SyncSender<Result<Seq, DbError>>),
    /// Lets go of the database. The writer ends.
    Close(SyncSender<()>),
}

/// A step of a copy into the database.
pub(super) enum Import {
    /// From the source that calls itself so; what is left of another copy goes.
    Begin(String),
    Load(Vec<Entry>),
    /// The copy is whole, and its feed goes on after this number.
    Finish(Seq),
}

/// Where the caller of a batch waits.
type Answer = SyncSender<Result<Seq, CommitError>>;

/// The feed's numbers, as readers see them.
#[derive(Default)]
pub(super) struct Numbers {
    pub newest: AtomicU64,
    pub forgotten: AtomicU64,
    /// Commits whose answer was lost, and that had happened.
    pub resolved: AtomicU64,
}

/// The task that writes.
pub(super) struct Writer {
    pub link: Arc<Link>,
    pub numbers: Arc<Numbers>,
    pub tenure: Tenure,
    /// Why nothing is written any more, once that is so.
    pub over: Option<Over>,
}

/// Why a writer writes nothing more.
#[derive(Clone)]
pub(super) enum Over {
    Lost { holder: String, until: String },
    WentBack { acknowledged: Seq, found: Seq },
}

impl Over {
    fn error(&self) -> DbError {
        match self.clone() {
            Over::Lost { holder, until } => DbError::Lost { holder, until },
            Over::WentBack { acknowledged, found } => DbError::WentBack { acknowledged, found },
        }
    }
}

/// What one transaction is to do.
enum Work<'a> {
    Group(&'a [Batch]),
    /// Forgets the changes of batches up to and with this one.
    Forget(Seq),
    Import(&'a Import),
}

/// What became of it: an answer for each batch, in order, a refused one with the key that was found
/// otherwise.
struct Decided {
    answers: Vec<Result<Seq, Vec<u8>>>,
    newest: Seq,
}

/// Locks the row that every transaction of a writer begins with.
const LOCK: &str = "select last_seq, commit_id, fence, holder, \
    date_trunc('second', until at time zone 'UTC')::text || ' UTC' \
    from depot_state where one = 1 for update";
const VALUES: &str = "select key, value from depot_entries where key = any($1::bytea[])";
const PUT: &str = "insert into depot_entries (key, value) \
    select * from unnest($1::bytea[], $2::bytea[]) \
    on conflict (key) do update set value = excluded.value";
const FEED: &str = "insert into depot_changes (seq, key, kind) \
    select * from unnest($1::bigint[], $2::bytea[], $3::smallint[])";
const FORGET: &str = "with gone as (delete from depot_changes where seq <= $1) \
    update depot_state set forgotten = $1, commit_id = $2 where one = 1 and forgotten < $1";

const BEGIN_IMPORT: &str = "update depot_state set moving = $1, commit_id = $2 where one = 1";
const FINISH_IMPORT: &str = "update depot_state \
    set moving = '', last_seq = $1, forgotten = $1, commit_id = $2 where one = 1";
static LOADED: LazyLock<String> = LazyLock::new(|| {
    format!("update depot_state set commit_id = $1, until = {TIME_IN_SQL} where one = 1")
});

/// All that a group writes, in one statement. No key is in two of its parts.
static WRITE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "with put as (insert into depot_entries (key, value) \
             select * from unnest($1::bytea[], $2::bytea[]) \
             on conflict (key) do update set value = excluded.value), \
         gone as (delete from depot_entries where key = any($3::bytea[])), \
         feed as (insert into depot_changes (seq, key, kind) \
             select * from unnest($4::bigint[], $5::bytea[], $6::smallint[])) \
         update depot_state set last_seq = $7, commit_id = $8, until = {TIME_IN_SQL} where one = 1"
    )
});

impl Writer {
    /// Works until it is told to close, or until nobody can ask any more.
    pub async fn run(mut self, mut tasks: UnboundedReceiver<Task>) {
        // When the holder was last heard of: every group says so too.
        let mut said = Instant::now();
        let mut kept: Option<Task> = None;
        loop {
            if said.elapsed() >= RENEWAL {
                self.renew().await;
                said = Instant::now();
            }
            let wait = RENEWAL.saturating_sub(said.elapsed());
            let task = match kept.take() {
                Some(task) => Some(task),
                None => match tokio::time::timeout(wait, tasks.recv()).await {
                    Ok(task) => task,
                    Err(_) => continue,
                },
            };
            match task {
                Some(Task::Write(batch, caller)) => {
                    let mut group = vec![(batch, caller)];
                    let mut bytes = group.iter().map(|(batch, _)| size(batch)).sum::<usize>();
                    while group.len() < MAX_GROUP && bytes < MAX_STATEMENT && kept.is_none() {
                        match tasks.try_recv() {
                            Ok(Task::Write(batch, caller)) => {
                                bytes += size(&batch);
                                group.push((batch, caller));
                            }
                            Ok(other) => kept = Some(other),
                            Err(_) => break,
                        }
                    }
                    if self.write(group).await {
                        said = Instant::now();
                    }
                }
                Some(Task::Forget(up_to, caller)) => {
                    let done = self.tried(&Work::Forget(up_to)).await;
                    let _ = caller.send(done.map(|decided| decided.newest));
                }
                Some(Task::Import(import, caller)) => {
                    let done = self.tried(&Work::Import(&import)).await;
                    let _ = caller.send(done.map(|decided| decided.newest));
                }
                Some(Task::Close(caller)) => {
                    self.close().await;
                    let _ = caller.send(());
                    return;
                }
                None => return,
            }
        }
    }

    /// Commits a group and tells each caller what became of its batch; whether anything was written,
    /// and the holder's time extended with it.
    async fn write(&mut self, group: Vec<(Batch, Answer)>) -> bool {
        let (mut batches, mut callers) = (Vec::new(), Vec::new());
        for (batch, caller) in group {
            // One that does not fit must not fail those that came with it.
            match too_large(&batch) {
                Some(error) => drop(caller.send(Err(error.into()))),
                None => {
                    batches.push(batch);
                    callers.push(caller);
                }
            }
        }
        if batches.is_empty() {
            return false;
        }
        let asked = Instant::now();
        match self.tried(&Work::Group(&batches)).await {
            Ok(decided) => {
                // Where each batch was refused, nothing was written.
                let is_written = decided.answers.iter().any(Result::is_ok);
                if is_written {
                    self.tenure.extend(asked);
                }
                // Before anybody hears of it.
                self.numbers.newest.fetch_max(decided.newest, Ordering::AcqRel);
                for (caller, answer) in callers.iter().zip(decided.answers) {
                    let _ = caller.send(answer.map_err(|key| CommitError::Conflict { key }));
                }
                is_written
            }
            Err(error) => {
                for caller in &callers {
                    let _ = caller.send(Err(error.clone().into()));
                }
                false
            }
        }
    }

    /// Does `work` once, however often that has to be tried.
    async fn tried(&mut self, work: &Work<'_>) -> Result<Decided, DbError> {
        let id: [u8; 16] = rand::random();
        let link = Arc::clone(&self.link);
        let mut patience = link.patience("written");
        // What the last try decided, if its commit may have happened.
        let mut unsure = None;
        loop {
            if let Some(over) = &self.over {
                return Err(over.error());
            }
            let tried = match link.client(For::Writing, "written").await {
                Err(fault) => Err(fault),
                Ok(client) => {
                    let tried = self.attempt(&client, work, &id, &mut unsure).await;
                    if tried.is_err() {
                        discard(client);
                    }
                    tried
                }
            };
            match tried {
                Ok(decided) => {
                    link.is_well();
                    return Ok(decided);
                }
                Err(fault) => patience.after(fault).await?,
            }
        }
    }

    /// One try of one transaction. After an error the connection is of no more use.
    async fn attempt(
        &mut self,
        client: &Client,
        work: &Work<'_>,
        id: &[u8],
        unsure: &mut Option<Decided>,
    ) -> Result<Decided, Fault> {
        let doing = "written";
        let batches = match work {
            Work::Group(batches) => *batches,
            Work::Forget(_) | Work::Import(_) => &[],
        };
        let required = batches.iter().flat_map(|batch| &batch.require);
        let mut needed: Vec<&[u8]> = required.map(|(key, _)| key.as_slice()).collect();
        needed.sort_unstable();
        needed.dedup();
        let lock = step(doing, client.prepare_cached(LOCK)).await?;
        let values = step(doing, client.prepare_cached(VALUES)).await?;
        // Sent together, in this order; the answers come in one round trip.
        let asked = async {
            let begun = client.batch_execute("begin isolation level serializable");
            let state = client.query_one(&lock, &[]);
            let values = async {
                match needed.is_empty() {
                    true => Ok(Vec::new()),
                    false => client.query(&values, &[&needed]).await,
                }
            };
            futures::try_join!(begun, state, values)
        };
        let ((), state, values) = step(doing, asked).await?;
        let newest = self.newest_of(&state)?;
        if let Some(decided) = unsure.take()
            && state.get::<_, &[u8]>(1) == id
        {
            step(doing, client.batch_execute("rollback")).await?;
            self.numbers.resolved.fetch_add(1, Ordering::Relaxed);
            tracing::info!("the site database had made a commit whose answer was lost");
            return Ok(decided);
        }
        let kept = Decided { answers: Vec::new(), newest };
        match work {
            Work::Group(batches) => {
                let mut held: HashMap<&[u8], Option<&[u8]>> = HashMap::new();
                for row in &values {
                    held.insert(row.get(0), Some(row.get(1)));
                }
                let (decided, mut changes) = judge(batches, newest, held);
                if decided.answers.iter().all(Result::is_err) {
                    step(doing, client.batch_execute("rollback")).await?;
                    return Ok(decided);
                }
                while let Some((keys, values)) = changes.large_part() {
                    step(doing, client.execute(PUT, &[&keys, &values])).await?;
                }
                while let Some((seqs, keys, kinds)) = changes.long_part() {
                    step(doing, client.execute(FEED, &[&seqs, &keys, &kinds])).await?;
                }
                let last = decided.newest as i64;
                let Changes { put: (put, values), gone, feed: (seqs, keys, kinds) } = &changes;
                let with: [&(dyn ToSql + Sync); 8] =
                    [put, values, gone, seqs, keys, kinds, &last, &id];
                end(client, &WRITE, &with, decided, unsure).await
            }
            Work::Forget(up_to) => {
                let up_to = (*up_to).min(newest);
                // Readers are refused from here on, before a change is gone.
                self.numbers.forgotten.fetch_max(up_to, Ordering::AcqRel);
                end(client, FORGET, &[&(up_to as i64), &id], kept, unsure).await
            }
            Work::Import(Import::Begin(source)) => {
                step(doing, client.execute("delete from depot_entries", &[])).await?;
                end(client, BEGIN_IMPORT, &[source, &id], kept, unsure).await
            }
            Work::Import(Import::Load(entries)) => {
                let mut changes = Changes::default();
                for (key, value) in entries {
                    changes.put.0.push(key);
                    changes.put.1.push(value);
                }
                while let Some((keys, values)) = changes.large_part() {
                    step(doing, client.execute(PUT, &[&keys, &values])).await?;
                }
                step(doing, client.execute(PUT, &[&changes.put.0, &changes.put.1])).await?;
                end(client, &LOADED, &[&id], kept, unsure).await
            }
            Work::Import(Import::Finish(last)) => {
                end(client, FINISH_IMPORT, &[&(*last as i64), &id], kept, unsure).await
            }
        }
    }

    /// The feed's number in the locked state row, if this server still holds the database.
    fn newest_of(&mut self, state: &Row) -> Result<Seq, Fault> {
        let (found, fence): (i64, i64) = (state.get(0), state.get(2));
        let found = lease::number(found);
        let acknowledged = self.numbers.newest.load(Ordering::Acquire);
        if fence != self.tenure.fence() {
            let (holder, until) = (state.get(3), state.get(4));
            self.is_over(Over::Lost { holder, until });
        } else if found < acknowledged {
            self.is_over(Over::WentBack { acknowledged, found });
        }
        self.over.as_ref().map_or(Ok(found), |over| Err(Fault::Lasting(over.error())))
    }

    fn is_over(&mut self, over: Over) {
        tracing::error!("{}", over.error());
        self.tenure.lose(over.error());
        self.over = Some(over);
    }

    /// Says that this server lives. If that fails the next try is soon; a write says it too.
    async fn renew(&mut self) {
        if self.over.is_some() {
            return;
        }
        let link = Arc::clone(&self.link);
        let Ok(client) = link.client(For::Writing, "written").await else { return };
        let asked = Instant::now();
        match lease::renew(&client, self.tenure.fence()).await {
            Ok(true) => {
                self.tenure.extend(asked);
                link.is_well();
            }
            Ok(false) => match lease::whose(&client, "written").await {
                Ok((holder, until)) => self.is_over(Over::Lost { holder, until }),
                Err(_) => discard(client),
            },
            Err(_) => discard(client),
        }
    }

    /// Lets go, so that the next server need not wait. If that fails, it waits.
    async fn close(&mut self) {
        if self.over.is_some() {
            return;
        }
        let Ok(client) = self.link.client(For::Writing, "closed").await else { return };
        if lease::release(&client, self.tenure.fence()).await.is_err() {
            discard(client);
        }
    }
}

/// The last statement of a transaction and its commit, in one round trip. If a commit fails after
/// all before it succeeded, nobody knows whether it happened: `unsure` has what was decided then.
async fn end(
    client: &Client,
    statement: &str,
    with: &[&(dyn ToSql + Sync)],
    decided: Decided,
    unsure: &mut Option<Decided>,
) -> Result<Decided, Fault> {
    let statement = step("written", client.prepare_cached(statement)).await?;
    *unsure = Some(decided);
    let last = client.execute(&statement, with);
    // Of a transaction in which a statement failed, COMMIT takes all back.
    let commit = client.batch_execute("commit");
    step("written", async { futures::try_join!(last, commit) }).await?;
    Ok(unsure.take().expect("it was put there above"))
}

/// What a group writes. The parts of a tuple are of one length.
#[derive(Default)]
struct Changes<'a> {
    put: Put<'a>,
    gone: Vec<&'a [u8]>,
    feed: Feed<'a>,
}

/// Keys and their values.
type Put<'a> = (Vec<&'a [u8]>, Vec<&'a [u8]>);
/// Numbers, keys and kinds.
type Feed<'a> = (Vec<i64>, Vec<&'a [u8]>, Vec<i16>);

/// Changes of the feed in one statement at most.
const LONG: usize = 20_000;

impl<'a> Changes<'a> {
    /// Takes the last entries away, as many as fit into a statement, if all together do not.
    fn large_part(&mut self) -> Option<Put<'a>> {
        let (keys, values) = &mut self.put;
        let bytes = |n: usize| keys[n].len() + values[n].len();
        if keys.len() <= LONG && (0..keys.len()).map(bytes).sum::<usize>() <= MAX_STATEMENT {
            return None;
        }
        let (mut at, mut sum) = (keys.len(), 0);
        while at > 0 && keys.len() - at < LONG && (sum == 0 || sum + bytes(at - 1) <= MAX_STATEMENT)
        {
            at -= 1;
            sum += bytes(at);
        }
        Some((keys.split_off(at), values.split_off(at)))
    }

    /// Takes the last changes of the feed away, if there are too many for one statement.
    fn long_part(&mut self) -> Option<Feed<'a>> {
        let (seqs, keys, kinds) = &mut self.feed;
        let at = seqs.len().checked_sub(LONG).filter(|at| *at > 0)?;
        Some((seqs.split_off(at), keys.split_off(at), kinds.split_off(at)))
    }
}

/// Judges each batch by what is `held` and by what those before it set. `newest` is the feed's number
/// before the group.
fn judge<'a>(
    batches: &'a [Batch],
    mut newest: Seq,
    mut held: HashMap<&'a [u8], Option<&'a [u8]>>,
) -> (Decided, Changes<'a>) {
    let mut changes = Changes::default();
    let mut set: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        let found = |key: &[u8]| held.get(key).copied().flatten();
        let refused = batch.require.iter().find(|(key, expect)| !expect.holds(found(key)));
        if let Some((key, _)) = refused {
            answers.push(Err(key.clone()));
            continue;
        }
        newest += u64::from(!batch.set.is_empty());
        let operations = batch.set.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        for (key, value) in last_per_key(operations) {
            changes.feed.0.push(newest as i64);
            changes.feed.1.push(key);
            changes.feed.2.push(i16::from(value.is_none()));
            held.insert(key, value);
            set.insert(key, value);
        }
        answers.push(Ok(newest));
    }
    for (key, value) in set {
        match value {
            Some(value) => {
                changes.put.0.push(key);
                changes.put.1.push(value);
            }
            None => changes.gone.push(key),
        }
    }
    (Decided { answers, newest }, changes)
}

/// Bytes of a batch, about.
fn size(batch: &Batch) -> usize {
    batch.set.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

pub(super) fn key_too_large(key: &[u8]) -> DbError {
    DbError::TooLarge { what: "a key", bytes: key.len(), most: MAX_KEY }
}

/// What of a batch PostgreSQL could not hold.
fn too_large(batch: &Batch) -> Option<DbError> {
    let keys = batch.set.iter().map(|(key, _)| key);
    let mut keys = keys.chain(batch.require.iter().map(|(key, _)| key));
    if let Some(key) = keys.find(|key| key.len() > MAX_KEY) {
        return Some(key_too_large(key));
    }
    match size(batch) {
        bytes if bytes > MAX_BATCH => {
            Some(DbError::TooLarge { what: "a batch", bytes, most: MAX_BATCH })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expect;

    #[test]
    fn a_group_is_judged_batch_by_batch() {
        let mut first = Batch::new();
        first.require("a", Expect::Absent).put("a", "1").put("b", "1");
        let second = first.clone();
        let mut third = Batch::new();
        third.require("a", Expect::Is(b"1".to_vec())).delete("b").put("a", "2").put("a", "3");
        let batches = [first, second, Batch::new(), third];
        let (decided, changes) = judge(&batches, 7, HashMap::new());
        assert_eq!(decided.answers, [Ok(8), Err(b"a".to_vec()), Ok(8), Ok(9)]);
        assert_eq!(changes.put, (vec![b"a".as_slice()], vec![b"3".as_slice()]));
        assert_eq!(changes.gone, [b"b"]);
        assert_eq!(changes.feed.0, [8, 8, 9, 9]);
        assert_eq!(changes.feed.2, [0, 0, 0, 1]);
    }

    #[test]
    fn a_large_group_takes_several_statements() {
        let mut batch = Batch::new();
        for n in 0..50_000_u32 {
            batch.put(n.to_be_bytes(), "");
        }
        batch.put("large", vec![0; MAX_STATEMENT + 1]).put("more", "");
        let batches = [batch];
        let (_, mut changes) = judge(&batches, 0, HashMap::new());
        let (mut puts, mut feeds) = (0, 0);
        while let Some((keys, values)) = changes.large_part() {
            assert!(keys.len() == values.len() && (1..=LONG).contains(&keys.len()));
            puts += keys.len();
        }
        while let Some((seqs, keys, kinds)) = changes.long_part() {
            assert!(seqs.len() == LONG && keys.len() == LONG && kinds.len() == LONG);
            feeds += LONG;
        }
        assert_eq!(puts + changes.put.0.len(), 50_002);
        assert_eq!(feeds + changes.feed.0.len(), 50_002);
    }
}
