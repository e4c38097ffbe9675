//! What a child site reads: the catalogue in the order of its changes.
//!
//! Each change of an update gives it a new place in the order, and it has only that one. So a child
//! that was away reads each update that changed once, however often it changed: at most the catalogue,
//! never its history.

use crate::lifecycle::Expiry;
use crate::name::UpdateId;
use crate::taxonomy::Product;
use crate::update::Update;
use serde::{Deserialize, Serialize};

/// The most entries of a page.
pub const MAX_FEED_PAGE: usize = 1_000;
/// A page ends after so many bytes of updates.
pub const FEED_PAGE_BYTES: usize = 4 << 20;

/// A part of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// Where this part begins: after this place. It is 0, and not what was asked for, where the marks of
    /// updates that went since then are not kept any more: then all is read anew, and what the child
    /// has beyond it is gone.
    pub after: u64,
    /// After which place to read on.
    pub next: u64,
    /// The last place of the catalogue as it is now; who has read so far has all.
    pub last: u64,
    /// All products, if their list changed in this part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Vec<Product>>,
    /// The updates.
    pub entries: Vec<FeedEntry>,
}

/// One update in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Which.
    pub id: UpdateId,
    /// Its place.
    pub seq: u64,
    /// Its revision here.
    pub revision: u32,
    /// That it is expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expiry>,
    /// The update; none if it was purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Box<Update>>,
}
