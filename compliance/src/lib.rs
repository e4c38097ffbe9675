//! What a fleet says about itself: state messages in, a compliance matrix, summaries out.
//!
//! In the order to read: what a client sends ([`message`], [`digest`]); who the clients are ([`fleet`]);
//! the matrix in memory and the log before it (`matrix`, `head`, `inbox`, `state`); what joins them
//! ([`Compliance`]); how batches come in ([`intake`]) and get into the tables (`checkpoint`); then what is
//! asked: [`summary`], [`unknown`], [`history`]; and how a child site tells its parent ([`forward`]).
//!
//! [`message`] and [`digest`] need no database: they are the client's half too.
//!
//! Always true:
//! * a batch is on disk before it is acknowledged, and has its effect once, whatever comes twice, late,
//!   in another order, or before a crash;
//! * what the site holds of a client is compared with the client's own digest at every batch, and where
//!   they differ the client is asked for its full state;
//! * bytes of clients are read within limits, and what cannot be read is kept and named;
//! * every update that is Unknown on a client is so for a cause, with an age.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// What travels.
pub mod digest;
pub mod message;

// Who.
pub mod fleet;

// What is known.
mod checkpoint;
mod head;
mod inbox;
mod matrix;
mod site;
mod state;

// What comes in.
mod contact;
pub mod intake;
pub mod quarantine;

// What is asked.
pub mod history;
pub mod summary;
pub mod unknown;

// From site to site.
pub mod forward;

pub use head::Place;
pub use matrix::Ordinal;
pub use site::{Compliance, Event, Settings, StoreError};
