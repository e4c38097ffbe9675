//! What a client is told of a deployment: when, how, and where to read which updates.
//!
//! A deployment stands in the policy of every client of its collection ([`DeploymentPolicy`]). Its updates do not:
//! they may be thousands, and are the same for all who have them. They are a document of their own
//! ([`DeployedUpdates`]), which the policy names by its digest; so what the site signed covers each file's digest, a
//! client brings the document once, and a cache in between can do no harm.

use crate::window::first_moment;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use sync::name::UpdateId;
use sync::taxonomy::Language;
use sync::update::{Behaviour, Handler, PackageFile};
use uuid::Uuid;

/// The largest document of updates, in bytes.
pub const MAX_DOCUMENT: u64 = 64 << 20;
/// How long one update may take to install unless its deployment says otherwise, in minutes.
pub const MAX_RUN_TIME: u16 = 10;

/// Which deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub Uuid);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for DeploymentId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text.trim()).map(Self)
    }
}

/// A moment that is the same everywhere, or a time that the clock of each client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Everywhere at once.
    Utc(Timestamp),
    /// By the clock of the client.
    Local(DateTime),
}

impl When {
    /// The moment it is for a client in that zone. A time that its clock skips is the moment at which it is set past it,
    /// and of one that it shows twice the first counts. None beyond the ends of time.
    pub fn at(&self, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Utc(at) => Some(*at),
            Self::Local(time) => first_moment(*time, zone),
        }
    }

    /// So much later.
    pub fn later(&self, by: SignedDuration) -> Option<Self> {
        match self {
            Self::Utc(at) => at.checked_add(by).ok().map(Self::Utc),
            Self::Local(time) => time.checked_add(by).ok().map(Self::Local),
        }
    }
}

/// What the user of a machine sees of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// All of it.
    #[default]
    All,
    /// Only that the machine will restart.
    Restarts,
    /// Nothing.
    Hidden,
}

/// Which machines are not restarted by a deployment, though an update needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuppressRestart {
    /// Servers.
    pub servers: bool,
    /// Workstations.
    pub workstations: bool,
}

/// What may be done at the deadline though no maintenance window is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutsideWindows {
    /// Updates may be installed.
    pub install: bool,
    /// The machine may be restarted.
    pub restart: bool,
}

/// How much a client tells of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Everything.
    #[default]
    All,
    /// Failures and the end.
    Errors,
}

/// How a deployment is carried out on a machine: what people set for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Experience {
    /// What the user sees.
    pub visibility: Visibility,
    /// Which machines do not restart.
    pub suppress_restart: SuppressRestart,
    /// What may be done outside the windows.
    pub outside_windows: OutsideWindows,
    /// Whether a write filter is taken off for it, so that what is installed outlives a restart. Otherwise it is
    /// installed to the overlay.
    pub commit: bool,
    /// Whether the machine is scanned after the restart at once, and what became applicable is installed in the same
    /// window.
    pub rescan_after_restart: bool,
    /// Whether files come before the available time, so that nothing is offered that is not on the machine.
    pub predownload: bool,
    /// Whether the grace period that is set for clients counts.
    pub grace: bool,
    /// Whether the deadline is spread over the time that is set for clients.
    pub spread: bool,
    /// How long one update may take to install, in minutes; none where the update's own kind decides.
    pub max_run_time: Option<u16>,
    /// How much is told.
    pub detail: Detail,
}

impl Default for Experience {
    fn default() -> Self {
        Self {
            visibility: Visibility::default(),
            suppress_restart: SuppressRestart::default(),
            outside_windows: OutsideWindows::default(),
            commit: true,
            rescan_after_restart: false,
            predownload: false,
            grace: false,
            spread: true,
            max_run_time: None,
            detail: Detail::default(),
        }
    }
}

/// A deployment as it stands in a client's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentPolicy {
    /// Which.
    pub id: DeploymentId,
    /// What people call it.
    pub name: String,
    /// From when its updates may be installed; and, if it has a deadline, when they are downloaded.
    pub available: When,
    /// When they must be. None of an optional deployment: its updates wait for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<When>,
    /// How it is carried out.
    #[serde(default)]
    pub experience: Experience,
    /// The digest of the document that says which updates ([`DeployedUpdates`]): BLAKE3, in hex.
    pub updates: String,
    /// Its bytes.
    pub updates_size: u64,
}

/// The updates of a deployment: a JSON document, named by the digest of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedUpdates {
    /// They, in the order of their ids.
    pub updates: Vec<DeployedUpdate>,
}

/// One update that is deployed. Whether a machine requires it, the catalogue says that it scans by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedUpdate {
    /// Which.
    pub id: UpdateId,
    /// Its revision in the catalogue.
    pub revision: u32,
    /// What people call it.
    pub name: String,
    /// What it is, in a line.
    pub title: String,
    /// What installing it does to the machine.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// What it is a bundle of: other updates of this document.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parts: BTreeSet<UpdateId>,
    /// What is installed; in the order of the update's own items. A part of a bundle stands by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<DeployedItem>,
}

/// One thing to install.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployedItem {
    /// Which of the update's items it is, from 0: its rules stand in the catalogue.
    pub item: u32,
    /// How it is installed.
    pub handler: Option<Handler>,
    /// The languages it is for; all, if none is named.
    pub languages: BTreeSet<Language>,
    /// Its files.
    pub files: Vec<DeployedFile>,
}

/// One file. A distribution point has it under its digest, whichever package brought it there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployedFile {
    /// Its name: a plain one.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// The digest of its content, BLAKE3 in hex; none while no package of the site holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its language, if it is for one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// The package that it is, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageFile>,
}

impl DeployedUpdates {
    /// The document, and its digest as [`DeploymentPolicy::updates`] has it.
    pub fn document(&self) -> (Vec<u8>, String) {
        let bytes = serde_json::to_vec(self).expect("plain fields and text keys become JSON");
        let digest = blake3::hash(&bytes).to_hex().to_string();
        (bytes, digest)
    }
}

impl DeployedUpdate {
    /// Its files that no package holds.
    pub fn missing(&self) -> impl Iterator<Item = &DeployedFile> {
        self.items.iter().flat_map(|item| &item.files).filter(|file| file.digest.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_is_another_moment_in_each_zone() {
        let when = When::Local("2026-03-29T02:30:00".parse().unwrap());
        let at = |zone: &str| when.at(&TimeZone::get(zone).unwrap()).unwrap().to_string();
        assert_eq!(at("UTC"), "2026-03-29T02:30:00Z");
        assert_eq!(at("America/New_York"), "2026-03-29T06:30:00Z");
        // Skipped there: the clock is set from 2 to 3.
        assert_eq!(at("Europe/Berlin"), "2026-03-29T01:00:00Z");
        let twice = When::Local("2026-10-25T02:30:00".parse().unwrap());
        let at = twice.at(&TimeZone::get("Europe/Berlin").unwrap()).unwrap();
        assert_eq!(at.to_string(), "2026-10-25T00:30:00Z");
        let utc = When::Utc("2026-03-29T02:30:00Z".parse().unwrap());
        let zone = TimeZone::get("America/New_York").unwrap();
        assert_eq!(utc.at(&zone).unwrap().to_string(), "2026-03-29T02:30:00Z");
    }

    #[test]
    fn a_document_is_named_by_its_bytes() {
        let mut updates = DeployedUpdates::default();
        let (bytes, digest) = updates.document();
        assert_eq!(digest, blake3::hash(&bytes).to_hex().to_string());
        updates.updates.push(DeployedUpdate {
            id: UpdateId::named(&["x"]),
            revision: 1,
            name: "x".into(),
            title: "x".into(),
            behaviour: Behaviour::default(),
            parts: BTreeSet::new(),
            items: vec![DeployedItem {
                files: vec![DeployedFile::default()],
                ..DeployedItem::default()
            }],
        });
        let (bytes, other) = updates.document();
        assert_ne!(other, digest);
        let read: DeployedUpdates = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, updates);
        assert_eq!(read.updates[0].missing().count(), 1);
    }
}
