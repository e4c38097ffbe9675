//! The interface as its clients see it, through the router. Every answer is held to the OpenAPI
//! document.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod client;
mod collections;
mod content;
mod damage;
mod deployments;
mod document;
mod fleet;
mod packages;
mod places;
mod points;
mod refusals;
mod retries;
mod schema;
mod serving;
mod updates;
mod uploads;
mod volumes;
