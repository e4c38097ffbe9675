//! What is kept of an archive between two syncs.
//!
//! Files of the source's folder are named after their bytes, so that those of the sync before and those
//! that a sync is about to take lie side by side; the state says which belong together.

use crate::adapter::LASTING;
use crate::digests::Digests;
use crate::error::{Cause, SyncError};
use crate::fetch::Validators;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a sync left, or is about to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// By suite, as the settings name it.
    pub suites: BTreeMap<String, Suite>,
    /// By URL.
    #[serde(default)]
    pub trackers: BTreeMap<String, TrackerFile>,
}

/// One suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suite {
    /// The signed text.
    pub release: String,
    /// The document that it is in, where it is clear-signed; and where there is one beside it, that.
    pub signed: Signed,
    /// What the server said of it.
    pub validators: Validators,
    /// Its date.
    pub date: Option<Timestamp>,
    /// When it ends.
    pub valid_until: Option<Timestamp>,
    /// Origin, label, suite and code name, which stay as they were.
    pub identity: Identity,
    /// Its indexes of packages, by path without the end that tells how they are packed.
    pub indexes: BTreeMap<String, Index>,
}

/// How a Release is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Signed {
    /// In the document of this file.
    Inline(String),
    /// Beside it, by the document of this file.
    Beside(String),
}

/// Which archive it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub origin: String,
    pub label: String,
    pub suite: String,
    pub codename: String,
}

/// One index that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Its file; its name's end tells how it is packed.
    pub file: String,
    /// The bytes of the file.
    pub size: u64,
    /// What is in it: digests of the plain index, or where none are stated those of the file.
    pub content: Digests,
    /// The architecture whose index it is.
    pub arch: String,
    /// The path that was brought as it stands, as the Release lists it; none where it was patched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<String>,
}

/// One document of a tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrackerFile {
    pub file: String,
    pub validators: Validators,
    /// Why a newer one could not be had; told to whoever reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

/// Where a sync lays down what it is about to leave.
const PLAN: &str = "plan.json";

impl State {
    /// Reads what a sync left.
    pub fn of(value: Option<&serde_json::Value>) -> Result<Self, SyncError> {
        let Some(value) = value else { return Ok(Self::default()) };
        Self::deserialize(value).map_err(|error| {
            SyncError::because(Cause::Local, "what the last sync left cannot be read", error)
        })
    }

    /// What `fetch` laid down for `read`.
    pub fn planned(folder: &Path) -> Result<Self, SyncError> {
        let bytes = std::fs::read(folder.join(PLAN))
            .map_err(|error| SyncError::local("what was brought; sync again", error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            SyncError::because(Cause::Local, "what was brought cannot be read; sync again", error)
        })
    }

    /// Lays down what a sync is about to leave, and drops files that neither it nor `old` has.
    pub fn plan(&self, folder: &Path, old: &Self) -> Result<(), SyncError> {
        let failed = |error| SyncError::local(folder.display(), error);
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        write_whole(folder, PLAN, &bytes)?;
        let mut kept: BTreeSet<&str> = self.files().chain(old.files()).collect();
        kept.extend([PLAN, LASTING]);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether the files that it names are there.
    pub fn is_whole(&self, folder: &Path) -> bool {
        self.files().all(|file| folder.join(file).is_file())
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let suites = self.suites.values().flat_map(Suite::files);
        let trackers = self.trackers.values().map(|tracker| tracker.file.as_str());
        suites.chain(trackers)
    }
}

impl Suite {
    /// The files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let (Signed::Inline(signed) | Signed::Beside(signed)) = &self.signed;
        let indexes = self.indexes.values().map(|index| index.file.as_str());
        [self.release.as_str(), signed.as_str()].into_iter().chain(indexes)
    }
}

/// Writes a file beside its place and then gives it its name, so that it is whole or not there.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), SyncError> {
    let (to, part) = (folder.join(name), folder.join(format!("{name}.part")));
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, &to))
        .map_err(|error| SyncError::local(to.display(), error))
}
