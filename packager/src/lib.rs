//! Packages: named, versioned, signed trees of files over a content library.
//!
//! Read in this order: what a tree may hold ([`path`], [`manifest`]), how versions differ
//! ([`diff`], [`tree`]) and are signed ([`sign`]); how folders are read and written without
//! following what lies in them ([`folder`]); how a source becomes a snapshot ([`scan`]); and what
//! can be done with packages ([`packages`], [`update`], [`tar`], [`upload`], [`mod@compose`], [`on_demand`], [`restore`]), and how versions travel
//! without a network ([`prestage`]). All
//! state lies in references of the content library; see [`packages::Packages`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod path;

pub mod manifest;

pub mod diff;
pub mod tree;

pub mod name;
pub mod sign;

pub mod fetch_state;
pub mod folder;
pub mod scan;
mod statcache;
pub mod walk;

pub mod refs;
pub mod retention;

pub mod error;
pub mod packages;
pub mod update;

pub mod compose;
pub mod on_demand;
pub mod tar;
pub mod upload;

pub mod restore;

pub mod prestage;

pub mod links;

pub use error::PackageError;
pub use links::{ManifestLinks, UnreadableVersion};
pub use manifest::{Manifest, TreeDigest};
pub use name::{BadName, ChannelName, PackageName, Selector};
pub use packages::{Clock, NewPackage, Packages};
pub use path::TreePath;
pub use restore::{Extra, RestoreError, RestoreReport};
pub use retention::Retention;
pub use scan::{Rescan, ScanError};
pub use sign::{PublicKey, SiteKey, VersionInfo};
pub use tar::{BadEntry, TarError};
pub use update::{UpdateOptions, UpdateReport};
pub use upload::{Upload, UploadError, UploadId, UploadInfo};
