//! Who follows a site's catalogue of updates: child sites, and the site's other update points.

use super::{BadPointId, PointId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names a follower for as long as it is one: as a point's id, never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FollowerId(PointId);

impl FollowerId {
    /// The id of these random bits.
    pub fn from_random(bits: u128) -> Self {
        Self(PointId::from_random(bits))
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for FollowerId {
    type Err = BadPointId;
    fn from_str(text: &str) -> Result<Self, BadPointId> {
        text.parse().map(Self)
    }
}

impl fmt::Display for FollowerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowerKind {
    /// A child site that may have children of its own: secondary ones.
    Primary,
    /// A child site that has none.
    Secondary,
    /// Another update point of the site.
    UpdatePoint,
}

impl FollowerKind {
    /// The word for it in commands and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::UpdatePoint => "update-point",
        }
    }

    /// Whether it is a site.
    pub fn is_site(self) -> bool {
        self != Self::UpdatePoint
    }
}

/// Text that is no kind of a follower.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of a site; want primary or secondary")]
pub struct NotAKind(String);

impl FromStr for FollowerKind {
    type Err = NotAKind;
    fn from_str(text: &str) -> Result<Self, NotAKind> {
        [Self::Primary, Self::Secondary, Self::UpdatePoint]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| NotAKind(text.chars().take(50).collect()))
    }
}

impl fmt::Display for FollowerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
