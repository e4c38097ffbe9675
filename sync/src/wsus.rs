//! WSUS and Microsoft Update as an upstream, and being one for others.
//!
//! Servers of update metadata speak SOAP with each other: a downstream asks who it must show itself to
//! (`GetAuthConfig`), gets a cookie, asks which revisions are new since an anchor, and then for their
//! documents in batches. [`soap`] has envelopes and faults, [`messages`] what is said, [`client`] the
//! downstream's side of it, [`source`] the source made of that;
//! [`server`] is the other side.
//!
//! Source of all of it: \[MS-WSUSSS\], Windows Server Update Services: Server-Server Protocol.

pub mod client;
pub mod messages;
pub mod server;
pub mod soap;
pub mod source;
