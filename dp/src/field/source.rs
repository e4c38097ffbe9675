//! Where else than from its site a point brings content from.

use super::PointId;
use serde::{Deserialize, Serialize};

/// Another point that a point asks before the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who it is: its certificate has to say so.
    pub id: PointId,
    /// What people call it.
    pub name: String,
    /// Where it is, as the site last heard: `HOST:PORT`.
    pub address: String,
    /// Those of a lower rank are asked first, and those of one rank by turns. The site comes last.
    pub rank: u32,
    /// It is asked only for what the site does not give, either: it is drained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}
