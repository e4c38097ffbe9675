//! The distribution point: hands content to clients over HTTP, and fetches it from one.
//!
//! The way of a request, in the order to read it: a [`server`] has workers, a worker accepts
//! connections, a connection runs hyper over a transport, the service finds the route and answers
//! with a body. [`remote`] is the other side: it fetches packages and chunks from a server.
//! `dp/PROTOCOL.md` describes what both speak.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod server;
mod worker;
mod connection;
mod deadline;
mod transport;

mod service;
mod ticket;
mod target;
pub mod range;
mod condition;
mod problem;
mod held;
mod body;
mod package;
mod listing;
mod media;
mod frames;
mod fallback;
mod metrics;

pub mod remote;

pub use fallback::{Answering, BoxBody, BoxError, Fallback, RequestBody, from_service};
pub use frames::{IDS_TYPE, MAX_CHUNKS};
pub use package::VERSION_TYPE;
pub use server::{Content, ServeOptions, Server};
