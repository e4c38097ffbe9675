//! Why the site database could not do what it was asked.

/// Why a read failed, or why the database could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// The disk of the database server has no room left.
    #[error(
        "the disk of the database server is full, so the site database cannot be {doing}; nothing \
         that was stored is lost: free space there"
    )]
    ServerFull {
        /// What was tried: read, written, opened.
        doing: &'static str,
    },
    /// Another server works on the database, and lives.
    #[error(
        "the site database is held by {holder}, until {until} if it says nothing more: stop it \
         first, one server at a time works on a database"
    )]
    Held {
        /// Who, in words.
        holder: String,
        /// The end of its time by the database's clock, which it keeps putting off.
        until: String,
    },
    /// Another server took the database over while this one was silent.
    #[error(
        "the site database was taken over by {holder} while this server could not reach it; this \
         one writes nothing more: stop it"
    )]
    Lost {
        /// Who, in words; empty if it let go again.
        holder: String,
        /// The end of its time by the database's clock.
        until: String,
    },
    /// The database shows less than it acknowledged.
    #[error(
        "the site database went back from change {acknowledged} to {found}: the database server was \
         restored, or failed over to a copy that had not followed; nothing more is written: look \
         which copy is right, then start this server again"
    )]
    WentBack {
        /// The newest batch that was acknowledged to this server.
        acknowledged: u64,
        /// The newest one that is there.
        found: u64,
    },
    /// More than this kind of database holds.
    #[error("{what} of {bytes} bytes is too large for the site database, which takes {most}")]
    TooLarge {
        /// A key, or a batch.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// A copy into it was begun and not ended, or what is there is of somebody else.
    #[error("the database {detail}")]
    NotUsable {
        /// What is the matter with it, and what to do.
        detail: String,
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

/// An error and what it was caused by, in one line, each said once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries repeat the cause in their own text.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Repeats);
        #[derive(Debug, thiserror::Error)]
        #[error("middle: inner")]
        struct Repeats(#[source] std::io::Error);
        let error = Outer(Repeats(std::io::Error::other("inner")));
        assert_eq!(with_causes(&error), "outer: middle: inner");
    }
}
