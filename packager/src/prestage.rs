//! Prestaging: versions that travel on a medium instead of a network.
//!
//! * [`Inventory`]: what the target holds, so that only what it lacks is carried.
//! * [`Packages::export`](crate::Packages::export): a bundle of versions, made at the site in one pass,
//!   within bounded memory.
//! * [`Packages::import`](crate::Packages::import): takes a bundle in as it is read, from a medium or a
//!   pipe.
//! * [`BundleDecoder`]: the bytes of a bundle; `packager/FORMAT.md`, "Bundle".
//!
//! Always true of an import: a bundle whose head the site did not sign is refused before anything is
//! stored; of what follows, only bytes are stored that hash to names which signed manifests lead to;
//! a version becomes visible whole or not at all. Killed anywhere, it is repeated and goes on with
//! what is there; repeated after its end, it stores nothing.

mod export;
mod import;
mod inventory;
mod wire;

#[doc(hidden)]
pub mod fuzzing;

pub use export::Exported;
pub use import::{Imported, ImportedState, ImportedVersion, Standing};
pub use inventory::{INVENTORY_TYPE, Inventoried, Inventory, NotAnInventory};
pub use wire::{BUNDLE_TYPE, BadBundle, BundleDecoder, Damage, Head, Named, Record, Step};

use crate::error::PackageError;
use crate::name::PackageName;
use crate::sign::PublicKey;
use contentlib::{Cancelled, Digest};
use std::io;

/// Why content was not exported or imported. Of an import, what was stored before stays for a week,
/// and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrestageError {
    /// No package was named.
    #[error("name at least one package to export")]
    Nothing,
    /// More versions than one head has room for.
    #[error("{0} versions are too many for one bundle; export them in several")]
    TooMany(usize),
    /// The inventory is of a library of another site.
    #[error(
        "the inventory is of a library whose site signs with key {found}; this site's is {own}: \
         export at the site that the distribution point belongs to"
    )]
    ForeignInventory {
        /// The key that it tells.
        found: PublicKey,
        /// This site's.
        own: PublicKey,
    },
    /// The site does not have what it says it has.
    #[error(
        "content {content} of {package} version {version} is damaged or lost here: run `depot library \
         verify`, and heal it"
    )]
    Lost {
        /// The package.
        package: PackageName,
        /// Its version.
        version: u64,
        /// The content.
        content: Digest,
    },
    /// The bundle cannot be believed, or not be read; nothing of it was stored.
    #[error(transparent)]
    Bundle(#[from] BadBundle),
    /// The bundle or the inventory cannot be written.
    #[error("cannot write it")]
    Write(#[source] io::Error),
    /// What the bundle brings has no room; nothing of it was stored.
    #[error(
        "the bundle needs {needed} bytes more, and there is no room for them: {free} bytes are free and \
         {reserve} are kept in reserve; free some, or export it with --base and a new inventory, \
         which leaves out what is here already"
    )]
    NoRoom {
        /// What it needs, in bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Of them, those that stay free.
        reserve: u64,
    },
    /// The library or its packages failed.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// It was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}
