//! Repositories as they are: which files a snapshot of one has.
