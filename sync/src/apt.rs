//! Debian archives as an upstream.
//!
//! A suite of an archive is a signed Release, which lists indexes, which list packages. There is no
//! update in it: here one is all binary packages of one version of a source package, joined with what
//! the distribution's security tracker says of it.
//!
//! In the order to read: the formats ([`deb822`], [`release`], [`packages`], [`version`], [`pdiff`],
//! [`tracker`]), then the two halves of a sync and what is kept between two of them ([`source`]), then
//! snapshots of the archive itself ([`mirror`]).

mod bring;
mod closure;
pub mod deb822;
mod gather;
pub mod mirror;
pub mod packages;
pub mod pdiff;
pub mod release;
mod say;
pub mod source;
mod state;
pub mod tracker;
pub mod version;

pub use source::{Apt, Settings};
