//! Why an operation on packages was not done. It had no effect then, if not said otherwise.

use crate::manifest::{NotAManifest, NotATree};
use crate::name::{ChannelName, PackageName, Selector};
use crate::refs::RecordError;
use crate::scan::ScanError;
use crate::sign::{NotProven, PublicKey};
use contentlib::kv::KvError;
use contentlib::{AddError, Cancelled, CommitError, CopyError, Digest, MaintainError, ReadError};
use std::io;
use std::path::PathBuf;

/// Why an operation on packages was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// There is no such package.
    #[error("there is no package {0}")]
    UnknownPackage(PackageName),
    /// The package has no such version.
    #[error("package {package} has no version {version}")]
    UnknownVersion {
        /// The package.
        package: PackageName,
        /// What was asked for.
        version: Selector,
    },
    /// The package has no such channel.
    #[error("package {package} has no channel {channel}")]
    UnknownChannel {
        /// The package.
        package: PackageName,
        /// What was asked for.
        channel: ChannelName,
    },
    /// The version has no such entry, or it is no folder.
    #[error("package {package} version {version} has no folder {path}")]
    UnknownFolder {
        /// The package.
        package: PackageName,
        /// Its version.
        version: u64,
        /// The path, as [`crate::path::Shown`].
        path: String,
    },
    /// The version's list of files on demand cannot be read.
    #[error("the list of files on demand of manifest {manifest} cannot be read")]
    OnDemand {
        /// The manifest that has it.
        manifest: Digest,
        /// What is wrong with it.
        source: crate::on_demand::NotAList,
    },
    /// The name is taken.
    #[error("there is a package {0} already")]
    Exists(PackageName),
    /// Another change of the package is under way.
    #[error("another change of package {0} is under way; try again when it is done")]
    Busy(PackageName),
    /// Another package reads from the folder, or from one inside or around it.
    #[error("package {other} has its files in {folder:?}, and two packages may not share a folder")]
    SourceTaken {
        /// The package that has it.
        other: PackageName,
        /// Where.
        folder: PathBuf,
    },
    /// The folder cannot be a source.
    #[error("{folder:?} cannot be a package source")]
    Source {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder has this site's own data in it, or is part of it.
    #[error("{folder:?} holds this site's own data, so it cannot be a package source")]
    SourceHoldsSite {
        /// The folder.
        folder: PathBuf,
    },
    /// An update needs a folder, and the package takes uploads.
    #[error("package {0} takes its files by upload; push them, or give it a source folder")]
    TakesUploads(PackageName),
    /// An upload needs a package that takes uploads.
    #[error(
        "package {package} takes its files from {folder:?}, not by upload: update it, or send them \
         to another package"
    )]
    TakesFolder {
        /// The package.
        package: PackageName,
        /// Its source.
        folder: PathBuf,
    },
    /// The package is put together by the site.
    #[error(
        "package {0} takes its files from an upstream, by the site: neither folders nor uploads become \
         versions of it"
    )]
    TakesUpstream(PackageName),
    /// Somebody points to the version.
    #[error(
        "{} of package {package} {} version {version}; move that first, or delete with force",
        .by.join(", "), if .by.len() == 1 { "is" } else { "are" }
    )]
    VersionInUse {
        /// The package.
        package: PackageName,
        /// Its version.
        version: u64,
        /// The channels that point to it; `latest` for the newest.
        by: Vec<String>,
    },
    /// The packages here are copies, which only their site changes.
    #[error("the packages here are copies of another site's; change them at that site")]
    Replica,
    /// Only copies can be taken over from another site.
    #[error("the packages here are this site's own, so no other site's can be taken over")]
    NotAReplica,
    /// The library is not a site's.
    #[error(
        "this library is a distribution point's, with copies of another site's packages; a site \
         needs a library of its own"
    )]
    OfAPoint,
    /// The library is not a distribution point's.
    #[error(
        "this library is a site's own; a distribution point needs a library of its own, so start \
         it with another data folder"
    )]
    OfASite,
    /// The library holds another site's copies.
    #[error(
        "the library holds copies of a site that signs with key {found}, and not with {wanted}: give the \
         distribution point an empty folder"
    )]
    OfAnotherSite {
        /// What its versions are signed with.
        found: PublicKey,
        /// What they should be.
        wanted: PublicKey,
    },
    /// The version is not one of the site's.
    #[error(transparent)]
    NotProven(#[from] NotProven),
    /// The manifest is another tree than the signature names.
    #[error("the manifest of {package} version {version} is not the tree that was signed")]
    OtherTree {
        /// The package.
        package: PackageName,
        /// Its version.
        version: u64,
    },
    /// Contents of the version are not held.
    #[error(
        "{n} contents of {package} version {version} are not held, such as {first}; bring them first"
    )]
    Incomplete {
        /// The package.
        package: PackageName,
        /// Its version.
        version: u64,
        /// How many.
        n: u64,
        /// One of them.
        first: Digest,
    },
    /// A manifest of the library does not read.
    #[error("manifest {manifest} of this library cannot be read")]
    Manifest {
        /// Its digest.
        manifest: Digest,
        /// What is wrong with it.
        source: NotAManifest,
    },
    /// The source was not taken.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The entries are no tree.
    #[error(transparent)]
    Tree(#[from] NotATree),
    /// A record of the library does not read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Content could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Content could not be added.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The library could not be examined.
    #[error(transparent)]
    Library(#[from] MaintainError),
    /// The change could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl PackageError {
    /// What the index of the content library said, if it is the index that failed.
    pub fn of_the_index(&self) -> Option<&KvError> {
        match self {
            Self::Read(ReadError::Index(error))
            | Self::Add(AddError::Index(error))
            | Self::Commit(CommitError::Index(error)) => Some(error),
            Self::Library(error) => error.of_the_index(),
            _ => None,
        }
    }
}

impl From<KvError> for PackageError {
    fn from(error: KvError) -> Self {
        Self::Record(error.into())
    }
}

impl From<CopyError> for PackageError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) => Self::Read(error),
            CopyError::Write(error) => Self::Add(AddError::Source(error)),
            _ => Self::Add(AddError::Interrupted),
        }
    }
}
