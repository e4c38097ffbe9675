//! The catalogue in memory: columns that filters and orders are answered from.

/// All updates as one commit left them.
pub(crate) struct Board {}
