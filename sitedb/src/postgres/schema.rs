//! The tables, and how they become those of this version.
//!
//! | table | a row |
//! | --- | --- |
//! | `depot_entries` | key, value: what is stored. `bytea` compares byte by byte, as keys do |
//! | `depot_changes` | number, key, kind (0 put, 1 delete): the change feed |
//! | `depot_state` | one row: the feed's numbers, the id of the last commit, who may write, and where that one is reached |
//! | `depot_servers` | a server that stands by: who, where, since when, and when it last said so |
//! | `depot_schema` | one for each migration that was made |
//!
//! Migrations are made in order, each once, by the server that holds the database. Each statement may
//! be made twice without harm, so one that was cut off is made again, and none needs DDL inside a
//! transaction, which not every server of this language has. They only add, so they lock nobody out:
//! rows are there and readable all the while.
//!
//! Nothing here needs an extension. `unnest`, `on conflict` and `with` are all that goes beyond
//! plain SQL.

use super::link::{Fault, fault, step};
use crate::DbError;
use deadpool_postgres::Client;

/// What makes tables of version n of those of version n - 1 is at n - 1.
pub(super) const MIGRATIONS: &[&[&str]] = &[BEGINNING, SEVERAL_SERVERS];

const BEGINNING: &[&str] = &[
    "create table if not exists depot_entries (key bytea primary key, value bytea not null)",
    "create table if not exists depot_changes \
     (seq bigint not null, key bytea not null, kind smallint not null, primary key (seq, key))",
    "create table if not exists depot_state ( \
     one smallint primary key check (one = 1), \
     database text not null, \
     last_seq bigint not null, \
     forgotten bigint not null, \
     commit_id bytea not null, \
     fence bigint not null, \
     holder text not null, \
     holder_id text not null, \
     until timestamptz not null, \
     moving text not null)",
];

const SEVERAL_SERVERS: &[&str] = &[
    "alter table depot_state add column if not exists address text not null default ''",
    "alter table depot_state add column if not exists since timestamptz not null default now()",
    "create table if not exists depot_servers ( \
     id text primary key, \
     name text not null, \
     address text not null, \
     since timestamptz not null, \
     seen timestamptz not null)",
];

const MADE: &str = "create table if not exists depot_schema \
    (version bigint primary key, at timestamptz not null default now())";

/// The one row of a new database. Whoever makes it first names it.
const FIRST_ROW: &str = "insert into depot_state \
    (one, database, last_seq, forgotten, commit_id, fence, holder, holder_id, until, moving) \
    values (1, $1, 0, 0, '', 0, '', '', now(), '') on conflict (one) do nothing";

/// Brings the tables to the version of `migrations`; `name` is what a new database is called.
///
/// # Errors
/// [`DbError::NewerFormat`] where a newer depot was here; nothing was changed then.
pub(super) async fn migrate(
    client: &Client,
    migrations: &[&[&str]],
    name: &str,
) -> Result<(), Fault> {
    let doing = "opened";
    made(client, MADE).await?;
    let newest = "select coalesce(max(version), 0) from depot_schema";
    let found: i64 = step(doing, client.query_one(newest, &[])).await?.get(0);
    let known = migrations.len() as i64;
    if found > known {
        let as_u32 = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        return Err(Fault::Lasting(DbError::NewerFormat {
            found: as_u32(found),
            known: as_u32(known),
        }));
    }
    for version in found + 1..=known {
        for statement in migrations[version as usize - 1] {
            made(client, statement).await?;
        }
        let note =
            "insert into depot_schema (version) values ($1) on conflict (version) do nothing";
        step(doing, client.execute(note, &[&version])).await?;
        if version > 1 {
            tracing::info!(version, "the tables of the site database were brought up to date");
        }
    }
    step(doing, client.execute(FIRST_ROW, &[&name])).await?;
    Ok(())
}

/// Makes one statement. Two servers that begin at once may both make a table, and one of them is
/// told that it is there, or half there: it tries again.
async fn made(client: &Client, statement: &str) -> Result<(), Fault> {
    let done = tokio::time::timeout(super::link::STALL, client.batch_execute(statement)).await;
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => match error.code().map(|code| code.code()) {
            // unique_violation (of the catalogue), duplicate_table, duplicate_object
            Some("23505" | "42P07" | "42710") => {
                let detail = crate::with_causes(&error);
                Err(Fault::Again(DbError::Store { doing: "opened", detail }))
            }
            _ => Err(fault("opened", &error)),
        },
        Err(_) => {
            let detail = "making its tables takes too long".to_owned();
            Err(Fault::Away(DbError::Store { doing: "opened", detail }))
        }
    }
}
