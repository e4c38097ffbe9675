//! The distribution point: hands content to clients over HTTP, and fetches it from one.
//!
//! The way of a request, in the order to read it: a server has workers, a worker accepts
//! connections, a connection runs hyper over a transport, the service finds the route and answers
//! with a body. [`remote`] is the other side: it fetches packages and chunks from a server.
//! [`replica`] brings whole versions into the library of another distribution point.
//! `dp/PROTOCOL.md` describes what both speak.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod connection;
mod deadline;
mod secure;
mod server;
mod transport;
mod worker;

mod body;
mod condition;
mod fallback;
mod frames;
mod held;
mod listing;
mod media;
mod metrics;
mod package;
mod problem;
pub mod range;
mod service;
mod target;
mod ticket;

pub mod field;
pub mod identity;
pub mod node;
pub mod registry;
pub mod remote;
pub mod replica;

pub use fallback::{Answering, BoxBody, BoxError, Fallback, RequestBody, from_service};
pub use frames::{IDS_TYPE, MAX_CHUNKS};
pub use package::VERSION_TYPE;
pub use server::{Content, ServeOptions, Server};
