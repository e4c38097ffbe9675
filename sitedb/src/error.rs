//! Why the site database could not do what it was asked.

/// Why a read failed, or why the database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The store below failed; a later try may succeed.
    #[error("the site database cannot be {doing}: {detail}")]
    Store {
        /// What was tried: read, written, opened.
        doing: &'static str,
        /// What the store said.
        detail: String,
    },
    /// Its disk has no room left.
    #[error(
        "the disk is full, so the site database cannot be {doing}; nothing that was stored is \
         lost: free space on the volume of the data folder"
    )]
    Full {
        /// What was tried: read, written, opened.
        doing: &'static str,
    },
    /// Written by a newer depot. Install that version; nothing was changed.
    #[error(
        "the site database has format {found}, this program knows up to {known}: use a newer depot"
    )]
    NewerFormat {
        /// The format on disk.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// A value was written by a newer depot.
    #[error(
        "a record of table {table:?} has version {found}, this program knows up to {known}: use a newer depot"
    )]
    NewerValue {
        /// The table it lies in.
        table: &'static str,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// A value or key is not what its table holds.
    #[error("a record of table {table:?} cannot be read: {detail}")]
    Damaged {
        /// The table it lies in.
        table: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The change feed no longer reaches back that far: read the tables anew.
    #[error("changes before {oldest} are no longer kept")]
    ChangesGone {
        /// The oldest change that can be read.
        oldest: u64,
    },
}

/// Why a batch was not applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A key was not in the state that the batch requires: read again and decide again.
    #[error("another change came first")]
    Conflict {
        /// The key that was found otherwise.
        key: Vec<u8>,
    },
    /// The store failed.
    #[error(transparent)]
    Db(#[from] DbError),
}
