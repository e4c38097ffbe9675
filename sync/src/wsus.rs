//! WSUS and Microsoft Update as an upstream, and being one for others.
//!
//! What an update says is one XML document, read by [`document`] and written, for updates that came
//! otherwise, by [`mod@write`]. The offline scan cabinet ([`scan_cab`]) has the same in pieces.

pub mod document;
pub mod scan_cab;
pub mod write;

/// Below this are the namespaces of WSUS.
pub(crate) const NAMESPACE: &str = "http://schemas.microsoft.com/msus/2002/12/";
