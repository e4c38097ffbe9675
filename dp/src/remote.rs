//! The other side: fetching packages and chunks from a distribution point.
//!
//! [`fetch`] brings a version of a package into a folder, moving only the chunks that the folder
//! lacks; [`repair_source`] gives chunks to a library that lost them. Both check every byte against
//! its digest before it counts, wait for progress instead of for a total time, and go on where they
//! were cut off. The process must have installed a rustls provider before, also for plain HTTP.
//! `dp/PROTOCOL.md` describes the wire.

mod address;
mod attempt;
mod client;
mod cost;
mod deltas;
mod fetch;
mod gather;
mod holder;
mod locate;
mod manifest;
mod out;
mod parts;
mod place;
mod plan;
mod recipes;
mod save;
mod sink;
mod sources;
mod state;
mod waits;

pub use address::{BadAddress, PackageAddress};
pub use client::{Client, Server};
pub(crate) use deltas::{Delta, TakeDelta, Wanted};
pub(crate) use fetch::blocking;
pub use fetch::{FetchOptions, FetchReport, fetch, fetch_from};
pub(crate) use gather::Take;
pub use holder::{Holder, repair_source};
pub use locate::{Located, LocatedSource, locate};
pub(crate) use recipes::{RECIPE_REQUESTS, RECIPES_AT_ONCE, RECIPES_IN_FLIGHT};

use contentlib::{Cancelled, CommitError, Digest, ReadError};
use packager::manifest::NotAManifest;
use packager::sign::{NotProven, PublicKey};
use packager::{PackageError, PackageName, Selector};
use std::io;
use std::path::PathBuf;

/// Why something could not be fetched. What is in place is right; running again goes on from here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The address is not one of a package or server.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// No server could give it, each for a reason of its own.
    #[error("no server could give it: {}", each(.0))]
    AllFailed(Vec<RemoteError>),
    /// The server could not be reached, or stopped sending; it was tried several times.
    #[error("cannot fetch from {url}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What went wrong the last time.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's reason.
        detail: String,
    },
    /// The answer is not what it should be; another server may be asked.
    #[error("{url} answered with something else than {wanted}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What it should have been.
        wanted: &'static str,
    },
    /// The bytes do not match their name.
    #[error("{url} sent bytes that are not {digest}")]
    WrongBytes {
        /// What was asked for.
        url: String,
        /// What was to come.
        digest: Digest,
    },
    /// The server does not hold all of the version.
    #[error(
        "the server lacks {n} chunks of the version, {first} among them; repair it, or ask another"
    )]
    Incomplete {
        /// How many.
        n: usize,
        /// One of them.
        first: Digest,
    },
    /// Chunks of the version came, and were damaged or lost here again and again.
    #[error(
        "{n} chunks of the version, {first} among them, came and were found damaged or lost on this machine \
         again; look at its disk"
    )]
    LostHere {
        /// How many.
        n: usize,
        /// One of them.
        first: Digest,
    },
    /// The answer is another version than the one asked for.
    #[error("{url} answered with {package} version {version}")]
    OtherVersion {
        /// What was asked for.
        url: String,
        /// What came.
        package: PackageName,
        /// Its number.
        version: u64,
    },
    /// The version is not signed by the trusted key.
    #[error(transparent)]
    NotProven(#[from] NotProven),
    /// The signing key is not the one that this folder was first fetched with.
    #[error(
        "{package} is signed with key {found}, but this folder was fetched with {pinned}; if the \
         site's key was changed on purpose, state the new one with --key"
    )]
    OtherKey {
        /// The package.
        package: PackageName,
        /// The key now.
        found: PublicKey,
        /// The key then.
        pinned: PublicKey,
    },
    /// The manifest does not read.
    #[error("the manifest of the version cannot be read")]
    Manifest(#[from] NotAManifest),
    /// The signature names another tree than the manifest has.
    #[error("the manifest is not the tree that was signed")]
    OtherTree,
    /// The folder was fetched from another package.
    #[error("{folder:?} holds package {holds}; fetch {wanted} into another folder")]
    OtherPackage {
        /// The folder.
        folder: PathBuf,
        /// What was fetched there before.
        holds: PackageName,
        /// What was asked for now.
        wanted: PackageName,
    },
    /// Another fetch writes to the folder.
    #[error("another fetch is at work in {0:?}; wait for it to end")]
    Busy(PathBuf),
    /// Something that is not of an earlier fetch is where an entry belongs.
    #[error("{0:?} is in the way; move it elsewhere and fetch again")]
    InTheWay(PathBuf),
    /// The package has an entry called `.depot`, which fetching needs for itself.
    #[error("the package has an entry `.depot` at its top, so it cannot be fetched into a folder")]
    Reserved,
    /// What the version brings has no room; none of its files was begun.
    #[error(
        "the version needs about {needed} bytes more, compressed as it is, and there is no room for them: \
         {free} bytes are free and {reserve} are kept in reserve; free some, and it comes by itself"
    )]
    NoRoom {
        /// About what it needs, in bytes as they are stored.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Of them, those that stay free.
        reserve: u64,
    },
    /// The library here could not take it.
    #[error("the library here did not take it")]
    Library(#[source] PackageError),
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A local file could not be read or written.
    #[error("cannot read or write {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<PackageError> for RemoteError {
    /// What is wrong with what came keeps its name; the rest is this machine's.
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::NotProven(error) => Self::NotProven(error),
            PackageError::Manifest { source, .. } => Self::Manifest(source),
            PackageError::OtherTree { .. } => Self::OtherTree,
            error => Self::Library(error),
        }
    }
}

impl RemoteError {
    /// Whether what failed is that bytes which were here, or came, were found damaged here meanwhile: what
    /// is missing is another thing than was planned for, and no source is to blame.
    pub(crate) fn is_of_damage_here(&self) -> bool {
        let Self::Library(error) = self else { return matches!(self, Self::LostHere { .. }) };
        matches!(
            error,
            PackageError::Incomplete { .. }
                | PackageError::Commit(CommitError::Interrupted)
                | PackageError::Read(
                    ReadError::Suspect { .. }
                        | ReadError::MissingChunk { .. }
                        | ReadError::Unknown(_)
                )
        )
    }

    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Errors with their causes, one after the other.
fn each(errors: &[RemoteError]) -> String {
    let told = |error: &RemoteError| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    errors.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Which version is meant where an address does not say.
const DEFAULT: Selector = Selector::Latest;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_bad_here_is_told_from_what_a_source_lacks() {
        let (package, first): (PackageName, _) = ("docs".parse().unwrap(), Digest::EMPTY);
        let lost = PackageError::Incomplete { package: package.clone(), version: 3, n: 51, first };
        let damaged = [
            RemoteError::LostHere { n: 1, first },
            RemoteError::from(lost),
            RemoteError::from(PackageError::Commit(CommitError::Interrupted)),
            RemoteError::from(PackageError::Read(ReadError::Unknown(first.into()))),
        ];
        assert!(damaged.iter().all(RemoteError::is_of_damage_here));
        let others = [
            RemoteError::Incomplete { n: 1, first },
            RemoteError::NoRoom { needed: 1, free: 1, reserve: 1 },
            RemoteError::from(PackageError::UnknownPackage(package)),
        ];
        assert!(!others.iter().any(RemoteError::is_of_damage_here));
    }
}
