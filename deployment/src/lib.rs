//! What goes where and when: collections of clients, and the windows in which they may be worked on.
//!
//! In the order to read: which clients are meant ([`rule`], [`network`]); what a collection is
//! ([`collection`]); who is in which ([`membership`], pure), kept true while clients come and change
//! ([`Collections`]); when machines may be changed ([`window`], pure; [`calendar`] below it); and what clients are told
//! of deployments ([`policy`]) and tell of them ([`enforcement`]). Which updates are deployed by themselves
//! ([`automatic`]), to one ring of machines after the other ([`ring`]); and which content is brought to which
//! distribution points ([`staging`]).
//!
//! Always true:
//! * a client is in a collection if and only if the collection's definition says so of its facts as they were
//!   told last; whatever changed, all at once or one client at a time, leads to the same members;
//! * no collection depends on itself;
//! * decisions take the clock and the time zone as arguments.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// Which clients.
pub mod network;
pub mod rule;

// Collections of them.
pub mod collection;
mod collections;
pub mod membership;

// What clients are told, and what they tell of it.
pub mod enforcement;
pub mod policy;

// What is deployed by itself.
pub mod automatic;
pub mod ring;

// What is brought where.
pub mod staging;

// When.
pub mod calendar;
pub mod window;

pub use collection::{Collection, CollectionName};
pub use collections::{CollectionError, Collections};
