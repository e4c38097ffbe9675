//! What a site has a point do once: look at what it holds now, or bring it in order now.
//!
//! An order travels with the wish for as long as the site waits for its end, and the point tells what
//! came of it with its reports. Either side may be started anew in between: the site keeps the order,
//! the point what came of it, and an order that was not done to its end is done again from the start,
//! which harms nothing.

use jiff::Timestamp;
use packager::PackageName;
use serde::{Deserialize, Serialize};

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number among those of its point; later ones have greater numbers.
    pub number: u64,
    /// When it was given. A site that was put back from a backup may use a number again: only with
    /// its time it is the same order.
    pub given: Timestamp,
    /// What is to be done.
    pub task: Task,
    /// With what; nothing: with all that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageName>,
    /// With which of its versions; nothing: with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl Order {
    /// Whether it is about a version.
    pub fn is_about(&self, package: &PackageName, version: u64) -> bool {
        self.package.as_ref().is_none_or(|its| its == package)
            && self.version.is_none_or(|its| its == version)
    }
}

/// What an order has a point do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Read all that is held of it from the disk, compare it, and mend what is not right.
    Validate,
    /// The same, and bring what is missing without waiting for the next try.
    Redistribute,
}

/// What came of an order so far. Contents are counted: the files of versions, each once however often
/// it is there, and their manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The order's number.
    pub number: u64,
    /// When it was given: whose outcome it is.
    pub given: Timestamp,
    /// How far it is.
    pub state: OutcomeState,
    /// When the point began with it, by its clock.
    pub began: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Contents that were read and compared.
    pub n_checked: u64,
    /// Bytes that were read from the disk for it.
    pub bytes: u64,
    /// Contents that were found damaged or lost.
    pub n_damaged: u64,
    /// Of those, the ones that are whole again.
    pub n_mended: u64,
    /// Why it is not done yet, or will not be; one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeState {
    /// What is held is read.
    Checking,
    /// What was found damaged, or is missing, is on its way.
    Mending,
    /// All of it is whole.
    Done,
    /// It ended before all was whole.
    Failed,
}

impl OutcomeState {
    /// Whether nothing more comes of it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}
