//! What goes where and when: collections of clients, the windows in which they may be worked on, and deployments of
//! updates to them.
//!
//! In the order to read: which clients are meant ([`rule`], [`network`]); what a collection is
//! ([`collection`]); who is in which ([`membership`], pure), kept true while clients come and change
//! ([`Collections`]); when machines may be changed ([`window`], pure; [`calendar`] below it); which updates are deployed
//! together ([`group`]), to whom and when ([`deployment`]), as people set it ([`Deployments`]); and what clients are told
//! of it ([`policy`]), each of them ([`targets`]), and tell of it ([`enforcement`]), which is counted ([`Results`]). Then
//! which updates are deployed by themselves ([`automatic`]), to one ring of machines after the other ([`ring`]); and
//! which content is brought to which distribution points ([`staging`]).
//!
//! Always true:
//! * a client is in a collection if and only if the collection's definition says so of its facts as they were
//!   told last; whatever changed, all at once or one client at a time, leads to the same members;
//! * no collection depends on itself;
//! * decisions take the clock and the time zone as arguments.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// What things are called.
pub mod name;

// Which clients.
pub mod network;
pub mod rule;

// Collections of them.
pub mod collection;
mod collections;
pub mod membership;

// Which updates, to whom, and when.
pub mod deployment;
mod deployments;
pub mod group;

// What clients are told, and what they tell of it.
pub mod enforcement;
pub mod moment;
pub mod policy;
pub mod results;
pub mod targets;

// What is deployed by itself.
pub mod automatic;
pub mod ring;

// What is brought where.
pub mod staging;

// When.
pub mod calendar;
pub mod window;

pub use collection::Collection;
pub use collections::{CollectionError, Collections};
pub use deployment::Deployment;
pub use deployments::{DeploymentError, Deployments, MAX_DEPLOYMENTS};
pub use group::Group;
pub use name::{CollectionName, DeploymentName, GroupName, RuleName};
pub use results::Results;
