//! The distribution point: hands content to clients over HTTP, fetches it from one, and holds what
//! its site wishes it to hold.
//!
//! The way of a request, in the order to read it: a server has workers, a worker accepts
//! connections, a connection runs hyper over a transport, plain or under TLS, the service finds the
//! route and answers with a body. [`remote`] is the other side: it fetches packages and chunks from a
//! server.
//!
//! A site and its points, in the order to read it: [`field`] is what they say to each other,
//! [`identity`] how they know each other. [`registry`] is the site's side: which points there are and
//! what each should hold. The point's side is [`replica`], which brings one version, [`pace`], when and
//! how fast, and [`node`], the process that joins, hears, brings, serves and reports.
//!
//! `dp/PROTOCOL.md` describes what all of them speak.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod connection;
mod deadline;
mod secure;
mod server;
mod transport;
mod worker;

mod body;
mod coming;
mod condition;
mod cost;
mod deltas;
mod fallback;
mod forward;
mod frames;
mod held;
mod listing;
mod made;
mod media;
mod metrics;
mod on_demand;
mod package;
mod pieces;
mod problem;
pub mod range;
pub mod recipes;
mod service;
mod target;
mod ticket;

pub mod remote;

pub mod field;
pub mod identity;
pub mod pace;

pub mod registry;

pub mod locate;

pub mod replica;

pub mod node;

#[doc(hidden)]
pub mod fuzzing;

pub use coming::{Comes, Coming};
pub use deltas::{DeltaOptions, DeltaRequest, NotADeltaRequest};
pub use fallback::{Answering, BoxBody, BoxError, Fallback, RequestBody, answer_by, from_service};
pub use forward::Forwarder;
pub use frames::{IDS_TYPE, MAX_CHUNKS};
pub use on_demand::{Bring, Demand, NotBrought};
pub use package::VERSION_TYPE;
pub use pieces::Pieces;
pub use server::{Content, IsReady, PlainHttp, Refuses, ServeOptions, Server};
