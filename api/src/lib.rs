//! The server around content: REST under `/api/v1`, sign-in, jobs, audit, settings, assembly.
//!
//! [`Site::open`] takes a data folder into use; [`router`] is its interface. `depot serve` puts the
//! router behind the content plane's listener ([`serve`]); a command with `--data DIR` calls the
//! same router in process ([`local_router`]). So there is one interface, and one set of rules. A
//! distribution point that is no site has none of it but the settings ([`serve_point`]).
//!
//! Handlers (`routes/`) only translate: they make domain types, call one function of the crate that
//! knows, off the async threads, and turn its answer back. What is the same for all operations —
//! who may, how often, was it asked before, who did it — stands in `guard`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;

pub mod backup;
pub mod database;
mod lock;
pub mod sealed;
mod site;

pub mod auth;
mod limiter;

pub mod problem;
mod translate;

mod extract;
pub mod page;

pub mod audit;
mod idempotency;
pub mod jobs;

mod deployment_package;
pub mod downloads;
pub mod mirror;
mod repair;
mod streams;
mod uploaded;
mod upstream;

mod guard;
mod openapi;
pub mod routes;
pub mod views;
pub mod week_file;

mod automatic;
pub mod deployed;
pub mod fleet;
pub mod hierarchy;
pub mod shards;
mod staging;

mod background;
mod point;
mod server;
mod standby;

pub use config::{Config, ConfigError, Options};
pub use extract::number_in_words;
pub use point::serve_point;
pub use problem::Problem;
pub use routes::{local_router, router};
pub use server::{ServeError, serve};
pub use site::{Content, Ledger, Site, SiteError};
