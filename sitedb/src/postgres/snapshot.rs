//! All entries as they were at one moment: a transaction that sees what was committed when it began.
//!
//! It has a connection of the pool to itself, and is read page by page. A connection that is lost takes the
//! snapshot with it: what was read so far is then of no use, and the reader begins anew.

use super::link::{Fault, For, discard, step};
use super::{PostgresKv, gone, number, wait};
use crate::kv::PAGE;
use crate::{DbError, Entry, Seq, Snapshot};
use deadpool_postgres::Client;

/// A reader that waits for a slow disk must not lose its transaction to the time-out that frees the locks of
/// clients that are gone; this one has no locks.
const BEGIN: &str = "begin transaction isolation level repeatable read read only; \
    set local idle_in_transaction_session_timeout = '10min'";
const NUMBER: &str = "select last_seq from depot_state where one = 1";
const FIRST: &str = "select key, value from depot_entries order by key limit $1";
const NEXT: &str = "select key, value from depot_entries where key > $2 order by key limit $1";

/// Such a transaction.
pub(super) struct Shown<'a> {
    kv: &'a PostgresKv,
    /// None once something went wrong.
    client: Option<Client>,
    seq: Seq,
    after: Option<Vec<u8>>,
    ended: bool,
}

impl<'a> Shown<'a> {
    /// Begins one.
    pub fn begin(kv: &'a PostgresKv) -> Result<Self, DbError> {
        let Some(runtime) = &kv.runtime else { return Err(gone("read")) };
        let link = std::sync::Arc::clone(&kv.link);
        let (client, seq) = wait(runtime, "read", async move {
            let mut patience = link.patience("read");
            loop {
                let fault = match link.client(For::Reading, "read").await {
                    Err(fault) => fault,
                    Ok(client) => match begin(&client).await {
                        Ok(seq) => {
                            link.is_well();
                            return Ok((client, seq));
                        }
                        Err(fault) => {
                            discard(client);
                            fault
                        }
                    },
                };
                patience.after(fault).await?;
            }
        })??;
        Ok(Self { kv, client: Some(client), seq, after: None, ended: false })
    }
}

async fn begin(client: &Client) -> Result<Seq, Fault> {
    step("read", client.batch_execute(BEGIN)).await?;
    let row = step("read", client.query_one(NUMBER, &[])).await?;
    Ok(super::lease::number(row.get(0)))
}

async fn page(client: &Client, after: Option<Vec<u8>>) -> Result<Vec<Entry>, Fault> {
    let limit = number(PAGE as u64);
    let rows = match &after {
        None => step("read", client.query(FIRST, &[&limit])).await?,
        Some(after) => step("read", client.query(NEXT, &[&limit, after])).await?,
    };
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

impl Snapshot for Shown<'_> {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn next_page(&mut self) -> Result<Vec<Entry>, DbError> {
        if self.ended {
            return Ok(Vec::new());
        }
        let (Some(runtime), Some(client)) = (&self.kv.runtime, self.client.take()) else {
            return Err(gone("read"));
        };
        let after = self.after.clone();
        let (client, found) = wait(runtime, "read", async move {
            let found = page(&client, after).await;
            (client, found)
        })?;
        let found = match found {
            Ok(found) => found,
            Err(Fault::Again(error) | Fault::Away(error) | Fault::Lasting(error)) => {
                discard(client);
                return Err(error);
            }
        };
        self.ended = found.is_empty();
        self.after = found.last().map(|(key, _)| key.clone());
        self.client = Some(client);
        Ok(found)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        // Nothing is to be committed: the transaction ends with its connection.
        self.client.take().into_iter().for_each(discard);
    }
}
