//! What a site and its distribution points say to each other.
//!
//! A point joins once, with a token ([`JoinToken`], [`JoinRequest`], [`JoinAnswer`]); from then on it
//! asks the site what it should hold ([`Wish`]) and tells what it does hold ([`Report`]). With the one
//! come what is set for it ([`Settings`]) and what it is to do once ([`Order`]), with the other what came
//! of that. The content itself travels by the same requests that any client makes. All of it goes over TLS, where the
//! site's authority vouches for both ends; `dp/PROTOCOL.md`, "Between site and points".

mod client;
mod follower;
mod join;
mod order;
mod report;
mod settings;
mod source;
mod token;
mod tree;
mod wish;

pub use client::ClientId;
pub use follower::{FollowerId, FollowerKind, NotAKind};
pub use join::{JoinAnswer, JoinRequest};
pub use order::{Order, Outcome, OutcomeState, Task};
pub use report::{Fact, FactState, Report};
pub use settings::{Limit, Settings};
pub use source::Source;
pub use token::{BadJoinToken, JoinToken};
pub use tree::{Branch, FactsDigest, NotADigest, Tree, branch_of};
pub use wish::{Names, Priority, Unfit, Wanted, Wish, WishAnswer, WishChange, content_of};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names a distribution point for as long as it is one: 32 lower-case hex digits, never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointId(String);

/// Text that names no distribution point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no distribution point's id; want 32 hex digits")]
pub struct BadPointId(String);

impl PointId {
    /// The id of these random bits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PointId {
    type Err = BadPointId;
    fn from_str(text: &str) -> Result<Self, BadPointId> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(is_digit) {
            Ok(Self(text.into()))
        } else {
            Err(BadPointId(text.into()))
        }
    }
}

impl TryFrom<String> for PointId {
    type Error = BadPointId;
    fn try_from(text: String) -> Result<Self, BadPointId> {
        text.parse()
    }
}

impl From<PointId> for String {
    fn from(id: PointId) -> String {
        id.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
