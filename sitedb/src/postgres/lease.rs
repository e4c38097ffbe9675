//! Who may write: one server at a time, for as long as it says that it lives.
//!
//! The row of `depot_state` names the holder, until when it holds the database by the database's own
//! clock, and a number that grows with each holder (the fence). Every write of a holder extends its
//! time, and is made only if the fence is still its own, in the same transaction: a server that was
//! thought dead and comes back can write nothing over its successor's work.
//!
//! A server that stops lets go at once. One that was killed is followed by whoever asks once its
//! time is over, or at once by who has the same id: the id lies in the data folder, and the folder's
//! own lock says that the one before is gone.
//!
//! A holder knows of itself for how long nobody else can have become the holder ([`Tenure`]): the
//! length of its time, counted by its own steady clock from before it last asked for it.

use super::link::{Fault, For, Link, discard, step};
use crate::{DbError, Seq};
use deadpool_postgres::Client;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a holder is believed to live after it said so: 20 seconds. In SQL, as no type of a
/// parameter for it is the same everywhere.
pub(super) const TIME_IN_SQL: &str = "clock_timestamp() + interval '20 seconds'";
const TIME: Duration = Duration::from_secs(20);
/// How often it says so.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);
/// How often somebody who waits looks.
const LOOK: Duration = Duration::from_millis(500);

/// Who opens a database.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The same at every start of one site: what is kept with its data folder.
    pub id: String,
    /// In words, for those who are refused: program, machine, process.
    pub name: String,
    /// Where the other servers of the site reach it, HOST:PORT; empty if it has none.
    pub address: String,
}

/// What is done where another holds the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfHeld {
    /// Wait until that one's time is over.
    Wait,
    Refuse,
}

/// The time for which this process surely holds a database. Cloning shares it.
///
/// Taken for true: this machine's steady clock and the database's go equally fast, to some percent,
/// and the database's is not set forward by seconds at a time.
#[derive(Clone)]
pub struct Tenure(Arc<Inner>);

struct Inner {
    database: String,
    fence: i64,
    until: Mutex<Instant>,
    lost: watch::Sender<Option<DbError>>,
}

impl Tenure {
    pub(super) fn new(held: &Held) -> Self {
        Self(Arc::new(Inner {
            database: held.database.clone(),
            fence: held.fence,
            until: Mutex::new(held.asked + TIME),
            lost: watch::Sender::new(None),
        }))
    }

    /// The name that the database bears.
    pub fn database(&self) -> &str {
        &self.0.database
    }

    /// Grows with each holder of the database.
    pub fn number(&self) -> u64 {
        number(self.0.fence)
    }

    pub(super) fn fence(&self) -> i64 {
        self.0.fence
    }

    /// Until then nobody else holds it.
    pub fn until(&self) -> Instant {
        *self.0.until.lock()
    }

    /// The database granted the time that it was asked for at `asked`, or a moment later.
    pub(super) fn extend(&self, asked: Instant) {
        let mut until = self.0.until.lock();
        *until = (*until).max(asked + TIME);
    }

    /// It is over for good, for this reason.
    pub(super) fn lose(&self, why: DbError) {
        // What it had is nothing to go by any more.
        *self.0.until.lock() = Instant::now();
        self.0.lost.send_replace(Some(why));
    }

    /// Waits until this process has found that it holds the database no more; why.
    pub async fn lost(&self) -> DbError {
        let mut lost = self.0.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            // The sender is in here as long as this is.
            _ => std::future::pending().await,
        }
    }
}

/// What whoever holds the database begins with.
pub(super) struct Held {
    /// When it was asked for, at the latest.
    pub asked: Instant,
    pub fence: i64,
    pub last_seq: Seq,
    pub forgotten: Seq,
    pub database: String,
    pub moving: String,
}

/// Takes the database for `holder`. Where another has it, this is refused, or waits until its time
/// is over; is it extended meanwhile, the other lives, and this is refused, too.
pub(super) async fn take(link: &Link, holder: &Holder, if_held: IfHeld) -> Result<Held, DbError> {
    let mut patience = link.patience("opened");
    // Until when the other has it, as it was seen first.
    let mut seen: Option<String> = None;
    loop {
        let looked = look(link, holder).await;
        match looked {
            Ok(Look::Taken(held)) => {
                link.is_well();
                return Ok(held);
            }
            Ok(Look::Others { name, until }) => {
                link.is_well();
                let is_extended = seen.as_ref().is_some_and(|first| *first != until);
                if is_extended || if_held == IfHeld::Refuse {
                    return Err(DbError::Held { holder: name, until });
                }
                if seen.is_none() {
                    tracing::warn!(holder = name, until, "the site database is held; waiting");
                    seen = Some(until);
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(fault) => patience.after(fault).await?,
        }
    }
}

enum Look {
    Taken(Held),
    Others { name: String, until: String },
}

async fn look(link: &Link, holder: &Holder) -> Result<Look, Fault> {
    let client = link.client(For::Writing, "opened").await?;
    let done = look_by(&client, holder).await;
    if done.is_err() {
        discard(client);
    }
    done
}

async fn look_by(client: &Client, holder: &Holder) -> Result<Look, Fault> {
    let (doing, asked) = ("opened", Instant::now());
    let take = format!(
        "update depot_state set fence = fence + 1, holder = $1, holder_id = $2, address = $3, \
         since = clock_timestamp(), until = {TIME_IN_SQL} \
         where one = 1 and (holder_id = $2 or until < clock_timestamp()) \
         returning fence, last_seq, forgotten, database, moving"
    );
    let taken =
        step(doing, client.query_opt(&take, &[&holder.name, &holder.id, &holder.address])).await?;
    if let Some(row) = taken {
        return Ok(Look::Taken(Held {
            asked,
            fence: row.get(0),
            last_seq: number(row.get(1)),
            forgotten: number(row.get(2)),
            database: row.get(3),
            moving: row.get(4),
        }));
    }
    let (name, until) = whose(client, doing).await?;
    Ok(Look::Others { name, until })
}

/// Who holds the database, and until when, in words.
pub(super) async fn whose(client: &Client, doing: &'static str) -> Result<(String, String), Fault> {
    let ask = "select holder, date_trunc('second', until at time zone 'UTC')::text || ' UTC' \
               from depot_state where one = 1";
    let row = step(doing, client.query_one(ask, &[])).await?;
    Ok((row.get(0), row.get(1)))
}

/// Says that the holder lives; false if it holds the database no more.
pub(super) async fn renew(client: &Client, fence: i64) -> Result<bool, Fault> {
    let say = format!("update depot_state set until = {TIME_IN_SQL} where one = 1 and fence = $1");
    Ok(step("written", client.execute(&say, &[&fence])).await? == 1)
}

/// Lets go: the next may come at once.
pub(super) async fn release(client: &Client, fence: i64) -> Result<(), Fault> {
    let say = "update depot_state set holder = '', holder_id = '', address = '', \
               until = clock_timestamp() \
               where one = 1 and fence = $1";
    step("closed", client.execute(say, &[&fence])).await.map(drop)
}

/// Numbers of the feed are stored as `bigint`, and are never negative.
pub(super) fn number(stored: i64) -> Seq {
    u64::try_from(stored).unwrap_or(0)
}
