//! What intake and forwarding promise, held against clients that know what is true.
#![allow(missing_docs, clippy::unwrap_used)]

mod answers;
mod batches;
mod client;
mod facts;
mod pages;
