//! How a source stands: what its last syncs came to, and when the next one is.

use crate::adapter::{Skipped, Stage};
use crate::catalogue::Changes;
use crate::error::Cause;
use crate::name::SourceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Value;

/// Numbers the runs of one source, from 1.
pub type RunNumber = u64;

/// Why a run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody asked for it: who.
    Hand(String),
    /// Its time had come.
    Schedule,
    /// The run before failed in a way that passes.
    Retry,
    /// The run before was cut off.
    Resumed,
    /// The parent site said that something is new.
    Parent,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The catalogue has what the upstream has.
    Done {
        /// What changed in it.
        changes: Changes,
    },
    /// Nothing is new at the upstream.
    Unchanged,
    /// It failed; the catalogue is as it was.
    Failed {
        /// What kind of failure it is.
        cause: Cause,
        /// What happened, and what to do.
        detail: String,
    },
    /// Somebody cancelled it; the catalogue is as it was.
    Cancelled,
    /// The server stopped; it begins again by itself.
    Interrupted,
}

impl Outcome {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Unchanged => "unchanged",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the catalogue has what the upstream has.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Unchanged)
    }
}

/// One run of a source, when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The source.
    pub source: SourceName,
    /// Which run of it.
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The last stage that it came to.
    pub stage: Stage,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Bytes that came over the wire.
    pub bytes: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Entries that were passed over.
    #[serde(default)]
    pub skipped: Skipped,
}
impl Value for RunRecord {}

/// What is remembered of a source's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The number of its last run, or of the one under way. It outlives the source, so that no two runs
    /// under one name have the same.
    pub number: RunNumber,
    /// When its last run began, whatever it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<Timestamp>,
    /// When the last one that succeeded ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Timestamp>,
    /// How many failed since, one after the other, in ways that pass.
    #[serde(default)]
    pub failures: u32,
    /// When it begins again before its time: it failed in a way that passes, or was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// The run under way. At the start of a site: the one that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// The fingerprint with which it failed in a way that only a person can mend. While it has that, no
    /// schedule starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}
impl Value for Standing {}

/// A run that is to begin before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub trigger: Trigger,
}

/// A run under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Since when.
    pub since: Timestamp,
    /// Why it began.
    pub trigger: Trigger,
}
