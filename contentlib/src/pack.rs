//! Packs: append-only files of records, then sealed and immutable.
//!
//! Everything a library knows is a record in a pack; the index is a cache of them. The bytes are
//! specified in `contentlib/FORMAT.md`.

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;
