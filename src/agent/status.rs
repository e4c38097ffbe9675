//! How an agent stands: what it keeps of its last scan, and what it says when it is asked.

use client::catalogue::Refreshed;
use client::enforce::report::{Listed, Standing};
use client::scan::Trigger;
use client::scan::evaluate::Counts;
use client::scan::retry::Failure;
use compliance::message::ClientId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What came of a scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scanned {
    /// What it answered.
    pub triggers: Vec<Trigger>,
    /// Of those, what a command on the machine asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Trigger>,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in seconds.
    pub took: f64,
    /// The update point that was asked; none, where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_point: Option<String>,
    /// What came of asking it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed: Option<Refreshed>,
    /// How many updates are in which state; none, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// How many states changed.
    #[serde(default)]
    pub changed: usize,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failure>,
}

/// How far a deployment is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// What people call it.
    pub name: String,
    /// How far it is.
    #[serde(flatten)]
    pub standing: Standing,
}

impl From<Listed> for Deployed {
    fn from(it: Listed) -> Self {
        Self { name: it.name, standing: it.standing }
    }
}

impl Scanned {
    /// What started it, for people.
    pub fn started_by(&self) -> String {
        let words = self.triggers.iter().map(|trigger| match trigger {
            trigger if self.asked.contains(trigger) => "a command on this machine",
            Trigger::AfterRestart => "a restart that an update awaited",
            Trigger::AfterInstall => "packages that were installed or removed",
            Trigger::BeforeInstall => "an installation that is about to begin",
            Trigger::BeforeDownload => "a download that is about to begin",
            Trigger::UserAction => "the site",
            Trigger::Schedule => "the schedule",
            Trigger::Reevaluation => "the schedule of deployments",
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: ClientId,
    /// What people call it.
    pub name: String,
    /// Where its site is reached.
    pub sites: Vec<String>,
    /// Whether its site lets it in: `approved`, `pending`, or why not.
    pub standing: String,
    /// The revision of its policy; none before there is one.
    #[serde(default)]
    pub policy: Option<String>,
    /// Why the policy could not be asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_trouble: Option<String>,
    /// Whether it scans for updates.
    pub updates_enabled: bool,
    /// The update point that it turns to.
    #[serde(default)]
    pub update_point: Option<String>,
    /// The place of the catalogue that it scans by.
    #[serde(default)]
    pub catalogue: Option<u64>,
    /// The last scan.
    #[serde(default)]
    pub last_scan: Option<Scanned>,
    /// In how many seconds it looks next whether a scan is due.
    #[serde(default)]
    pub next_scan: Option<u64>,
    /// Messages that wait to be told to the site.
    pub waiting: usize,
    /// In how many seconds they are told.
    #[serde(default)]
    pub next_report: Option<u64>,
    /// Why they could not be told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_trouble: Option<String>,
    /// What is deployed to it.
    #[serde(default)]
    pub deployments: Vec<Deployed>,
    /// What it is at: `downloading` or `installing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working: Option<String>,
    /// In how many seconds the machine restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_in: Option<u64>,
    /// The revision of the facts that the site has.
    #[serde(default)]
    pub facts: Option<u64>,
    /// When its certificate ends.
    #[serde(default)]
    pub certificate_until: Option<Timestamp>,
}
