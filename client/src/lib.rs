//! The agent: what a machine is, which updates it needs, when it looks, and what it tells of that.
//!
//! In the order to read: the three answers to a question ([`truth`]); what a machine is ([`facts`]); whether
//! an update applies to it ([`applicability`]), and why ([`explain`]); when and how it is scanned
//! ([`clock`], [`scan`]); what is known, and waits to be reported ([`ledger`]); what the site tells it to do
//! ([`settings`], [`policy`]), and how it asks ([`patience`]).
//!
//! All of it but the readers of [`facts`] and the file of [`ledger`] is a function of its arguments: time,
//! chance and the network belong to whoever calls.
//!
//! Always true:
//! * what is not known never makes a machine look compliant;
//! * bytes of the machine, and of programs that are asked, are read with limits, and never panic;
//! * what was recorded as found by a scan is reported, whatever ends the process in between.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// Which updates a machine needs.
pub mod applicability;
pub mod catalogue;
pub mod explain;
pub mod facts;
pub mod truth;

// When it looks.
pub mod clock;
pub mod scan;

// What it tells.
pub mod ledger;

// What it carries out.
pub mod cache;
pub mod enforce;
pub mod install;

// What it is told.
pub mod patience;
pub mod policy;
pub mod settings;
