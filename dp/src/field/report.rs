//! What a distribution point holds, as it tells the site.

use super::{Branch, FactsDigest, Outcome, PointId};
use jiff::Timestamp;
use packager::PackageName;
use serde::{Deserialize, Serialize};

/// The state of a point, derived from its own library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub point: PointId,
    /// When it was derived, by the point's clock.
    pub at: Timestamp,
    /// The program's version.
    pub program: String,
    /// Where clients and other points reach it, as it thinks; its host may be unspecified.
    pub address: String,
    /// The revision of the wish that the facts are about.
    pub revision: String,
    /// Free bytes of its volumes.
    pub free_bytes: u64,
    /// How many seconds its library keeps what is not used any more; nothing if it keeps it for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<u64>,
    /// The root of the tree of all facts: where the site comes to another one with what is told here,
    /// it says what it has. Without it, what is told is taken as it is.
    #[serde(default)]
    pub root: Option<FactsDigest>,
    /// The branches that are told: their facts take the place of those that the site has. Without it,
    /// all are.
    #[serde(default)]
    pub branches: Option<Vec<Branch>>,
    /// Of the branches that are told, one fact for each version that is wished or held.
    pub facts: Vec<Fact>,
    /// What came of each order that is wished, once it was begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Outcome>,
}

/// What is known of one version on one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The package.
    pub package: PackageName,
    /// The version's number.
    pub version: u64,
    /// How far it is.
    pub state: FactState,
    /// Bytes of all files of the version.
    pub bytes: u64,
    /// Bytes of files that are not held yet, as far as known.
    pub bytes_left: u64,
    /// Why it is not held, or what went wrong last; one sentence.
    pub cause: Option<String>,
    /// When this state began.
    pub since: Timestamp,
}

/// How far a version is on a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactState {
    /// Whole, and answered for.
    Held,
    /// Wished, and not begun.
    Waiting,
    /// On its way.
    Fetching,
    /// Tried; tried again by itself after a pause.
    Failed,
    /// Was held, and part of it was found damaged or lost: on its way again. What is sound is served.
    Repairing,
    /// Held and not wished any more: on its way out.
    Leaving,
}
