//! WSUS and Microsoft Update as an upstream, and being one for others.
//!
//! What an update says is one XML document, read by [`document`] and written, for updates that came
//! otherwise, by [`mod@write`]. The offline scan cabinet ([`scan_cab`]) has the same in pieces.
//!
//! Servers of update metadata speak SOAP with each other: a downstream asks who it must show itself to
//! (`GetAuthConfig`), gets a cookie, asks which revisions are new since an anchor, and then for their
//! documents in batches. [`soap`] has envelopes and faults, [`messages`] what is said, [`client`] the
//! downstream's side of it, [`source`] the source made of that; [`server`] is the other side, [`shelf`]
//! what it has to tell, `qualifying` which of that somebody wants, and `rollup` what it is told.
//!
//! Source of the conversation: \[MS-WSUSSS\], Windows Server Update Services: Server-Server Protocol.

pub mod document;
pub mod scan_cab;
pub mod write;

pub mod client;
pub mod messages;
mod qualifying;
mod rollup;
pub mod server;
pub mod shelf;
pub mod soap;
pub mod source;

/// Below this are the namespaces of WSUS.
pub(crate) const NAMESPACE: &str = "http://schemas.microsoft.com/msus/2002/12/";
