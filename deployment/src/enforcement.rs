//! What a client tells of deployments: how far each is, and what came of each update.
//!
//! The states and their numbers are those of Configuration Manager's topics: 300 whether a deployment is complied with,
//! 301 how far carrying it out is, 302 whether it was evaluated, 402 how far one update is.
//!
//! A report is absolute. It names every deployment in the client's policy with all there is to say of it, so the last
//! one is all that counts: one that comes twice changes nothing, and one that came late is passed over by its number.
//! It is short, as it names only updates that the machine requires or has installed for the deployment.

use crate::policy::DeploymentId;
use compliance::message::{ClientId, Incarnation};
use serde::{Deserialize, Serialize};
use sync::name::UpdateId;

/// The largest report, in bytes.
pub const MAX_REPORT: usize = 4 << 20;
/// Deployments in one report, and updates in one deployment, at most.
pub const MAX_ITEMS: usize = 20_000;
/// The longest detail of a failure, in bytes.
pub const MAX_DETAIL: usize = 500;

/// Makes an enum of a topic's states with their numbers, which travel and are shown.
macro_rules! topic {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $state:ident = $id:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$of])* $state = $id,)* }
        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$state,)*];
            /// The number that Configuration Manager has for it.
            pub fn id(self) -> u8 {
                self as u8
            }
        }
    };
}

topic! {
    /// Topic 300: whether a client complies with a deployment.
    Compliance {
        /// It was not evaluated yet.
        #[default]
        Unknown = 0,
        /// Nothing of it is required.
        Compliant = 1,
        /// Something of it is required, or awaits a restart.
        NonCompliant = 2,
    }
}

topic! {
    /// Topic 301: how far a client is with carrying out a deployment.
    Enforcement {
        /// Nothing was begun.
        #[default]
        Unknown = 0,
        /// Updates are being installed.
        Installing = 1,
        /// All is installed, and the machine waits for a restart that will come by itself.
        WaitingForRestart = 2,
        /// Another installation runs on the machine: it waits for that.
        WaitingForAnother = 3,
        /// All that is required is installed.
        Succeeded = 4,
        /// All is installed, and somebody has to restart the machine.
        PendingRestart = 5,
        /// Something failed to be installed.
        Failed = 6,
        /// Files are coming.
        Downloading = 7,
        /// They are there.
        Downloaded = 8,
        /// Some could not be had.
        DownloadFailed = 9,
        /// The deadline is over, and no window was open since that is long enough.
        WaitingForWindow = 10,
        /// It waits for its turn among others.
        WaitingForTurn = 11,
    }
}

topic! {
    /// Topic 302: whether a client evaluated a deployment.
    Evaluation {
        /// Not yet.
        #[default]
        Unknown = 0,
        /// It is about to.
        Activated = 1,
        /// It did.
        Succeeded = 2,
        /// It could not.
        Failed = 3,
    }
}

topic! {
    /// Topic 402: how far a client is with one update.
    Update {
        /// Nothing was begun.
        #[default]
        Unknown = 0,
        /// It is about to be carried out.
        Started = 1,
        /// Its files are not there, and cannot be had yet.
        WaitingForContent = 2,
        /// Another installation runs on the machine.
        WaitingForAnother = 3,
        /// No window is open that is long enough.
        WaitingForWindow = 4,
        /// The machine has to restart before it can be installed.
        RestartFirst = 5,
        /// Something failed that is no matter of the update.
        GeneralFailure = 6,
        /// It waits for its turn on this machine, for its deadline, or for the user.
        Pending = 7,
        /// It is being installed.
        Installing = 8,
        /// It is installed but for a restart.
        PendingRestart = 9,
        /// It is installed.
        Installed = 10,
        /// It failed to be installed.
        Failed = 11,
        /// Its files are coming.
        Downloading = 12,
        /// They are there.
        Downloaded = 13,
        /// They could not be had.
        DownloadFailed = 14,
    }
}

/// All that a client has to say of its deployments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who says it.
    pub client: ClientId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// Grows with each report of that life.
    pub number: u64,
    /// Its deployments, in the order of their ids.
    pub deployments: Vec<DeploymentReport>,
}

/// How far a client is with one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentReport {
    /// Which.
    pub deployment: DeploymentId,
    /// The document of updates that this is about: [`crate::policy::DeploymentPolicy::updates`].
    pub updates_of: String,
    /// Whether it is complied with.
    pub compliance: Compliance,
    /// How far carrying it out is.
    pub enforcement: Enforcement,
    /// Whether it was evaluated.
    pub evaluation: Evaluation,
    /// Since when the enforcement is so, in seconds before the sending.
    pub age: u32,
    /// What went wrong, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// That an update takes longer than any window of the client is open; found before the deadline.
    #[serde(default, skip_serializing_if = "is_false")]
    pub never_fits: bool,
    /// That what was installed lies in an overlay, and is lost with the next restart.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_overlay: bool,
    /// The updates that are required, or were installed for it, in the order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<UpdateReport>,
}

/// How far a client is with one update of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// Which.
    pub update: UpdateId,
    /// How far it is.
    pub state: Update,
    /// Since when, in seconds before the sending.
    pub age: u32,
    /// What went wrong, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The installer's exit code, or one of the agent's own.
    pub code: i64,
    /// What it was, for a person; [`MAX_DETAIL`] bytes at most.
    pub detail: String,
}

/// Why a report is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadReport {
    /// It cannot be read.
    #[error("the report cannot be read: {0}")]
    Malformed(String),
    /// It has too much of something.
    #[error("the report has too many {0}; at most {MAX_ITEMS} are read")]
    TooMany(&'static str),
    /// Its parts are not in order, or one comes twice.
    #[error("the {0} of a report must be in the order of their ids, each once")]
    Order(&'static str),
}

fn is_false(it: &bool) -> bool {
    !it
}

impl Report {
    /// Reads what a client sent, which is at most [`MAX_REPORT`] bytes. Details that are too long are cut.
    ///
    /// # Errors
    /// If it is no report, or against its form.
    pub fn read(bytes: &[u8]) -> Result<Self, BadReport> {
        let mut report: Self = serde_json::from_slice(bytes)
            .map_err(|error| BadReport::Malformed(error.to_string()))?;
        check(&report.deployments, |it| it.deployment, "deployments")?;
        for deployment in &mut report.deployments {
            check(&deployment.updates, |it| it.update, "updates")?;
            deployment.failure.iter_mut().for_each(Failure::clip);
            let updates = deployment.updates.iter_mut();
            updates.filter_map(|it| it.failure.as_mut()).for_each(Failure::clip);
        }
        Ok(report)
    }
}

fn check<T, K: Ord>(all: &[T], key: impl Fn(&T) -> K, what: &'static str) -> Result<(), BadReport> {
    if all.len() > MAX_ITEMS {
        return Err(BadReport::TooMany(what));
    }
    match all.windows(2).all(|two| key(&two[0]) < key(&two[1])) {
        true => Ok(()),
        false => Err(BadReport::Order(what)),
    }
}

impl Failure {
    /// One with a detail of any length, which is cut.
    pub fn new(code: i64, detail: impl Into<String>) -> Self {
        let mut failure = Self { code, detail: detail.into() };
        failure.clip();
        failure
    }

    fn clip(&mut self) {
        let end = self.detail.floor_char_boundary(MAX_DETAIL);
        self.detail.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU64;
    use uuid::Uuid;

    fn report() -> Report {
        Report {
            client: ClientId(Uuid::from_u128(1)),
            incarnation: Incarnation(NonZeroU64::MIN),
            number: 1,
            deployments: vec![DeploymentReport {
                deployment: DeploymentId(Uuid::from_u128(2)),
                updates_of: "00".repeat(32),
                compliance: Compliance::NonCompliant,
                enforcement: Enforcement::Failed,
                evaluation: Evaluation::Succeeded,
                age: 5,
                failure: Some(Failure::new(100, "x".repeat(MAX_DETAIL * 2))),
                never_fits: false,
                in_overlay: false,
                updates: vec![UpdateReport {
                    update: UpdateId::named(&["x"]),
                    state: Update::Failed,
                    age: 5,
                    failure: None,
                }],
            }],
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_reference_system() {
        let ids = |all: Vec<u8>| assert!(all.iter().enumerate().all(|(n, id)| n == *id as usize));
        ids(Compliance::ALL.iter().map(|it| it.id()).collect());
        ids(Enforcement::ALL.iter().map(|it| it.id()).collect());
        ids(Evaluation::ALL.iter().map(|it| it.id()).collect());
        ids(Update::ALL.iter().map(|it| it.id()).collect());
        assert_eq!(Enforcement::ALL.len(), 12);
        assert_eq!(Update::ALL.len(), 15);
    }

    #[test]
    fn a_report_reads_back_and_one_against_its_form_is_refused() {
        let bytes = |report: &Report| serde_json::to_vec(report).unwrap();
        let good = report();
        assert_eq!(Report::read(&bytes(&good)).unwrap(), good);
        let mut twice = report();
        twice.deployments.push(twice.deployments[0].clone());
        assert_eq!(Report::read(&bytes(&twice)), Err(BadReport::Order("deployments")));
        let mut twice = report();
        let update = twice.deployments[0].updates[0].clone();
        twice.deployments[0].updates.push(update);
        assert_eq!(Report::read(&bytes(&twice)), Err(BadReport::Order("updates")));
        let mut long = serde_json::to_value(&good).unwrap();
        long["deployments"][0]["failure"]["detail"] = "ä".repeat(MAX_DETAIL).into();
        let read = Report::read(long.to_string().as_bytes()).unwrap();
        let failure = read.deployments[0].failure.clone().unwrap();
        assert_eq!(failure.detail.len(), MAX_DETAIL);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Report::read(&bytes);
        }
    }
}
