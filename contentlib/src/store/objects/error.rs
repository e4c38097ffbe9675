//! Why a library on an object store cannot be opened.

use std::io;
use std::path::PathBuf;

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectsError {
    /// The URL is none, or names what cannot be a library.
    #[error("{url:?} is no place for a library: {detail}")]
    Url {
        /// What was given, without what may be secret.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The store did not answer, or refused.
    #[error("cannot use the library at {url}: check the bucket, the credentials and the network")]
    Unreachable {
        /// Where it is.
        url: String,
        /// What the store or the system said.
        source: io::Error,
    },
    /// Two processes could write at once.
    #[error(
        "the store of {url} ignores the conditions of conditional writes, so it cannot keep a second \
         process from writing to the library and destroying it: use a store that keeps to them; or, \
         where surely nothing but this process ever opens it, say so with \
         library.single_writer = true"
    )]
    IgnoresConditions {
        /// Where the library is.
        url: String,
    },
    /// Another process writes to it.
    #[error(
        "{url} is in use by {holder}, until {until} or as long as that runs: stop it; if it is dead, \
         try again after that time"
    )]
    InUse {
        /// Where the library is.
        url: String,
        /// Who has it.
        holder: String,
        /// When it is free if that one is dead, as a time of day.
        until: String,
    },
    /// A newer depot works on it.
    #[error("a newer depot wrote the lease of {url} (version {found}, this one knows 1)")]
    NewerLease {
        /// Where the library is.
        url: String,
        /// The lease's version.
        found: u64,
    },
    /// There is something else where the lease should be.
    #[error("the object `lease` of {url} is none that depot writes: is this the right prefix?")]
    UnreadableLease {
        /// Where the library is.
        url: String,
    },
    /// The folder has a library of its own.
    #[error(
        "{folder:?} holds packs of its own, and the library is to be at {url}: choose another data \
         folder, or set no library.url; packs are not moved to an object store by this version"
    )]
    HoldsPacks {
        /// The folder.
        folder: PathBuf,
        /// Where the library is to be.
        url: String,
    },
    /// The folder for what is local failed.
    #[error("cannot use {folder:?}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
