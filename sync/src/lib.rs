//! Which updates there are: a catalogue that is filled from real upstreams and kept true.
//!
//! In the order to read: what an update is ([`update`], [`rule`]); the seam that every upstream is
//! read through ([`adapter`]) and what adapters share ([`fetch`], [`unpack`]); then the upstreams.
//!
//! This crate knows nothing of packs, chunks or packages. It says which files an update or a
//! repository has, with size, digests and addresses; who holds content brings them.
//!
//! Always true:
//! * bytes of an upstream are read with limits on size, depth and count, and never trusted before
//!   their digest, and where there is one their signature, was checked;
//! * a sync that fails anywhere leaves the catalogue as it was.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// What an update is.
pub mod digests;
pub mod name;
pub mod rule;
pub mod taxonomy;
pub mod update;

// Reading upstreams.
pub mod adapter;
pub mod error;
pub mod fetch;
pub mod openpgp;
pub mod unpack;
pub mod xml;

// The upstreams.
pub mod apt;
pub mod rpm;
pub mod sdp;
pub mod wsus;

// The catalogue.
pub mod catalogue;
pub mod filter;
pub mod language;
pub mod lifecycle;

// Keeping it true.
pub mod hierarchy;
pub mod machine;
pub mod messages;
pub mod mirror;
pub mod schedule;
pub mod source;
