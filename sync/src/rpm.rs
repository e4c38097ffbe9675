//! RPM repositories as an upstream.
//!
//! In the order to read: how versions compare ([`evr`]); the files of a repository ([`repomd`],
//! [`primary`], [`updateinfo`], [`modules`]) and the XML they are written in ([`xml`]); what they make
//! as updates.

pub mod evr;
pub mod modules;
pub mod primary;
pub mod repomd;
pub mod updateinfo;
pub mod xml;
