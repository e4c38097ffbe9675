//! A tree of sites: how a catalogue comes down from a parent.
//!
//! A parent serves its catalogue's feed ([`crate::catalogue::Catalogue::changes`]) page after page; who
//! follows it is a child site, or another update point of the same site: for both it is one source, of
//! the kind [`SourceKind::Parent`](crate::source::SourceKind::Parent). Each page travels compressed, in a
//! [`Sent`], which also says what is set at the top of the tree. [`Following`] is the adapter: it brings
//! pages into the source's folder, goes on where it was cut off, and only when it has them all are they
//! read into the catalogue, in one commit. So a feed that was half received never shows.
//!
//! Places in the order of changes are of one catalogue. Each page names its catalogue, and a follower that
//! finds itself at another one begins anew: what it has already costs it no change.

mod following;
mod spool;

pub use following::{Following, Upstream};

use crate::adapter::Criteria;
use crate::catalogue::{FeedPage, Place};
use crate::error::{Cause, SyncError};
use crate::lifecycle::Policy;
use serde::{Deserialize, Serialize};
use std::io::Read as _;

/// The largest page as it travels, in bytes.
pub const MAX_SENT: usize = 48 << 20;
/// The largest page unpacked: one of [`crate::catalogue::FEED_PAGE_BYTES`], one update more, and products.
const MAX_UNPACKED: u64 = 96 << 20;
/// How hard pages are compressed: the feed is made for each follower, so little time is spent on it.
const LEVEL: i32 = 3;

/// What is set at the top of the tree, for all sites below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Above {
    /// The site at the top, by its address.
    pub top: String,
    /// Which updates are wanted.
    pub criteria: Criteria,
    /// When they expire and go.
    pub policy: Policy,
    /// What is set for clients, as whoever keeps it wrote it; none, where an older site tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<serde_json::Value>,
}

/// A page of a feed, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The catalogue whose feed it is of.
    pub catalogue: String,
    /// What is set at the top.
    pub above: Above,
    /// The page.
    pub page: FeedPage,
}

/// A page without its updates: what decides how to go on.
#[derive(Debug, Deserialize)]
struct Head {
    catalogue: String,
    above: Above,
    page: PageHead,
}

#[derive(Debug, Deserialize)]
struct PageHead {
    from: Place,
    next: Place,
    is_last: bool,
    #[serde(default)]
    products: Option<serde::de::IgnoredAny>,
    entries: Vec<serde::de::IgnoredAny>,
}

/// Packs a page to be sent.
pub fn pack(sent: &Sent) -> Result<Vec<u8>, SyncError> {
    let failed = |error: std::io::Error| {
        SyncError::because(Cause::Local, "a page of the catalogue cannot be packed", error)
    };
    let mut packer = zstd::Encoder::new(Vec::new(), LEVEL).map_err(failed)?;
    serde_json::to_writer(&mut packer, sent).map_err(|error| failed(error.into()))?;
    packer.finish().map_err(failed)
}

/// Reads a page that came.
pub fn unpack(bytes: &[u8]) -> Result<Sent, SyncError> {
    read(bytes)
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, SyncError> {
    let malformed = |error: Box<dyn std::error::Error + Send + Sync>| {
        let detail = "the parent sent something else than a page of its catalogue: is one of the two sites older?";
        SyncError::because(Cause::Malformed, detail, error)
    };
    let unpacked = zstd::Decoder::with_buffer(bytes).map_err(|error| malformed(error.into()))?;
    // Cut there it is no JSON any more.
    let unpacked = std::io::BufReader::with_capacity(64 << 10, unpacked.take(MAX_UNPACKED));
    serde_json::from_reader(unpacked).map_err(|error| malformed(error.into()))
}

/// What each fuzz target reads.
#[doc(hidden)]
pub fn fuzz_page(bytes: &[u8]) {
    let _ = unpack(bytes);
    let _ = read::<Head>(bytes);
}
