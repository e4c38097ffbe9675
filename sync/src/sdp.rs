//! Third-party catalogues in the form of Updates Publisher, and making one's own updates.
//!
//! In the order to read: how a catalogue is packed ([`cab`], [`container`]) and signed
//! ([`signature`]), and brought ([`brought`]); what a package says ([`package`]) and how it is
//! written ([`mod@write`]); the upstream ([`source`]); one's own updates ([`author`]).

pub mod author;
pub mod brought;
pub mod cab;
pub mod container;
pub mod package;
pub mod signature;
pub mod source;
pub mod write;

/// Below this are the namespaces of Updates Publisher.
pub(crate) const NAMESPACE: &str = "http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/";
