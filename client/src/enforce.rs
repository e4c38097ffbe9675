//! Carrying out deployments on one machine: what is done next, and what is told of it.
//!
//! [`Enforcer`] is a value that is kept on disk. It is shown how things stand ([`View`]), says what to do ([`Step`]),
//! and is told what came of it. Who calls writes it down before he does what it says; so after a power cut it is
//! known what was begun, and what was begun is looked at again by a scan, never assumed.
//!
//! A deployment comes with the policy, its updates as a document of their own. Then: a scan finds which of them the
//! machine requires ([`found`]); from the available time on their files come ([`next`]); at the deadline ([`when`]) a
//! scan, the files that were evicted meanwhile, each update's installation where a window has room for it, a scan; and a
//! restart, where one is needed and nobody suppressed it ([`restart`]). [`report`] says how far all that is.
//!
//! Always true:
//! * nothing is installed before its available time, nor before its deadline unless the user wants it;
//! * nothing is begun outside of the windows that does not fit into the rest of one, but where the deployment or the
//!   user says so;
//! * an update that several deployments have is installed once, for the one that is due first;
//! * what fails is tried again a bounded number of times, ever later, until deployments are evaluated again;
//! * what leaves the policy is forgotten, but for what awaits a restart: that is so until the machine is restarted,
//!   whatever is deployed.

pub mod found;
pub mod job;
pub mod next;
pub mod report;
pub mod restart;
pub mod when;

use crate::clock::Moment;
use crate::scan::Trigger;
use crate::settings::Settings;
use deployment::enforcement::{Failure, MAX_ITEMS};
use deployment::policy::{DeploymentId, DeploymentPolicy};
use deployment::window::{Window, Windows};
use found::Found;
use jiff::{Timestamp, tz::TimeZone};
use job::{Job, Phase, Retry};
use restart::Restart;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync::name::UpdateId;
use when::Times;

/// How things stand: all that is decided by, but for what the [`Enforcer`] remembers.
pub struct View<'a> {
    /// What the clock on the wall shows: deadlines and windows go by it.
    pub wall: Timestamp,
    /// The time that passed: waits go by it.
    pub now: Moment,
    /// Which start of the machine this is.
    pub boot: &'a str,
    /// Its time zone.
    pub zone: &'a TimeZone,
    /// What is set for it.
    pub settings: &'a Settings,
    /// What is deployed to it.
    pub deployments: &'a [DeploymentPolicy],
    /// When it may be changed.
    pub windows: &'a [Window],
    /// The longest time for which one of them is open, in minutes; none, if there are no windows.
    pub longest_window: Option<i64>,
    /// The documents of updates that are on the machine, by digest.
    pub documents: &'a BTreeSet<String>,
    /// What the last scan found of them.
    pub found: &'a Found,
    /// The files in the cache, by digest.
    pub cached: &'a BTreeMap<String, u64>,
    /// The machine.
    pub machine: Machine,
}

/// What a machine is to a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Whether it is a server; else it is a workstation.
    pub is_server: bool,
    /// Whether people work at it now.
    pub has_people: bool,
    /// Whether its root is an overlay, which the next restart empties.
    pub has_overlay: bool,
    /// Whether another installation runs on it.
    pub installs_other: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring the document of that digest.
    Document(String),
    /// Scan; then call [`Enforcer::scanned`], or [`Enforcer::scan_failed`].
    Scan(Trigger),
    /// Bring a file of that digest, which has so many bytes, into the cache.
    File {
        /// Its digest.
        digest: String,
        /// Its bytes.
        size: u64,
    },
    /// Install an update.
    Install {
        /// Which: [`Found::updates`] has how.
        update: UpdateId,
        /// How long is waited for its end.
        within: Duration,
        /// Whether it goes below the overlay, so that it outlives the restart.
        below_overlay: bool,
    },
    /// Restart the machine.
    Restart,
    /// Nothing, until then or until something happens.
    Wait(Option<Moment>),
}

/// How an installation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the machine has to restart for what was installed: that may be the update also where its installer
    /// failed, as for another package's sake.
    pub needs_restart: bool,
}

/// What came of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The installer says that it is installed.
    Ended,
    /// It needs packages of those names, which deployments may hold.
    Lacks(BTreeSet<String>),
    /// Another installation runs.
    Another,
    /// A file in the cache is not what it should be: it was removed.
    Damaged(String),
    /// It failed.
    Failed(Failure),
}

/// Codes of failures that are the agent's own; those of installers are 0 and above.
pub mod code {
    /// The installer said that all is well, and the update is still required.
    pub const STILL_REQUIRED: i64 = -1;
    /// The installer was at work when the agent, or the machine, was ended.
    pub const INTERRUPTED: i64 = -2;
    /// The installer takes longer than it may.
    pub const TOO_LONG: i64 = -3;
    /// There is no way to install it on this machine.
    pub const NO_WAY: i64 = -4;
    /// A file could not be had.
    pub const NO_CONTENT: i64 = -5;
    /// A scan failed.
    pub const NO_SCAN: i64 = -6;
    /// The machine could not be restarted.
    pub const NO_RESTART: i64 = -7;
    /// A package that it depends on is neither installed nor deployed.
    pub const LACKS: i64 = -8;
    /// The write filter cannot be taken off.
    pub const FILTER: i64 = -9;
    /// Something of the machine itself.
    pub const LOCAL: i64 = -10;
}

/// How many updates are remembered at most that await a restart, and that no deployment has any more.
const MAX_AWAITING: usize = MAX_ITEMS;

/// What is remembered of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Plan {
    /// Where in the spread of its deadline this machine is, from 0 up to 1: drawn once.
    chance: f64,
    /// The document of it that the user wants to be installed: not what is added later.
    wanted: Option<String>,
    /// How bringing its document fares.
    document: Retry,
}

/// What is at work outside, and not at its end yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Doing {
    Document(String),
    File(String),
    Install(UpdateId),
    Scan(Trigger),
}

/// Updates that are installed one after the other, between a scan before and one after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Round {
    /// Whether the scan before was made.
    is_checked: bool,
    /// Whether an installer was begun since.
    is_begun: bool,
    /// Whether what is due soon comes along, where that is set.
    takes_along: bool,
}

/// What carries out deployments. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enforcer {
    plans: BTreeMap<DeploymentId, Plan>,
    jobs: BTreeMap<UpdateId, Job>,
    /// How bringing files fares, where it failed.
    files: BTreeMap<String, Retry>,
    /// How often the update point was asked for updates of a document that the catalogue lacks, by its digest.
    lacking: BTreeMap<String, Retry>,
    /// Whether somebody wants deployments to be evaluated again: the next scan that asks the update point does so.
    evaluates: bool,
    scans: Retry,
    scan_failure: Option<Failure>,
    round: Option<Round>,
    doing: Option<Doing>,
    restart: Restart,
    shown: report::Shown,
}

impl View<'_> {
    fn windows(&self) -> Windows<'_> {
        Windows { windows: self.windows, local: self.zone }
    }

    fn deployment(&self, id: DeploymentId) -> Option<&DeploymentPolicy> {
        self.deployments.iter().find(|it| it.id == id)
    }

    /// The deployments that have an update which the machine requires, or that was installed.
    fn of(&self, update: UpdateId) -> impl Iterator<Item = &DeploymentPolicy> {
        self.deployments.iter().filter(move |it| {
            self.found.documents.get(&it.updates).is_some_and(|has| has.updates.contains(&update))
        })
    }

    /// How long an update may take for a deployment.
    fn max_run_time(&self, deployment: &DeploymentPolicy) -> Duration {
        let set = deployment.experience.max_run_time.filter(|minutes| *minutes > 0);
        set.map_or(self.settings.max_run_time, |it| Duration::from_secs(u64::from(it) * 60))
    }
}

impl Enforcer {
    /// Notes that what was at work is not any more: to be called when it was read from disk. An installer that was begun
    /// may have come to its end, or not: a scan will tell.
    pub fn interrupted(&mut self) {
        self.doing = None;
    }

    /// Forgets what left the policy, and takes in what came.
    fn take_policy(&mut self, view: &View<'_>, dice: &mut dyn FnMut() -> f64) {
        self.plans.retain(|id, _| view.deployment(*id).is_some());
        self.lacking.retain(|digest, _| view.deployments.iter().any(|it| it.updates == *digest));
        if self.plans.is_empty() && !view.deployments.is_empty() {
            // What could not be scanned while nothing was deployed holds back nothing.
            self.scans = Retry::default();
        }
        for deployment in view.deployments {
            self.plans
                .entry(deployment.id)
                .or_insert_with(|| Plan { chance: dice(), ..Plan::default() });
        }
        // A document that is not evaluated yet may have any of them.
        let is_deployed = |id| view.of(id).next().is_some() || has_unevaluated(view);
        let awaits = |job: &Job| {
            matches!(job.phase, Phase::AwaitsRestart { .. }) || job.needs_end_of(view.boot)
        };
        let mut n_awaiting = 0;
        self.jobs.retain(|id, job| match job.phase {
            // What an installer is at is looked at once it ended, and then forgotten.
            Phase::Begun => true,
            _ if is_deployed(*id) => true,
            // As is what awaits a restart, once the machine was restarted.
            _ if awaits(job) => {
                n_awaiting += 1;
                n_awaiting <= MAX_AWAITING
            }
            _ => false,
        });
        if view.deployments.is_empty() {
            self.files.clear();
            let is_begun = self.jobs.values().any(|job| job.phase == Phase::Begun);
            self.round = self.round.take().filter(|_| is_begun);
            self.restart.call_off();
        }
    }

    /// The times of a deployment.
    fn times(&self, deployment: &DeploymentPolicy, view: &View<'_>) -> Times {
        let chance = self.plans.get(&deployment.id).map_or(0.0, |plan| plan.chance);
        Times::of(deployment, view.zone, view.settings, chance)
    }

    fn is_wanted(&self, deployment: &DeploymentPolicy) -> bool {
        let wanted = self.plans.get(&deployment.id).and_then(|plan| plan.wanted.as_ref());
        wanted == Some(&deployment.updates)
    }

    /// The user wants a deployment to be installed now; all that are available, if none is named. Gives which.
    ///
    /// # Errors
    /// It is not deployed to this machine, or not available yet.
    pub fn user_wants(
        &mut self,
        which: Option<DeploymentId>,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) -> Result<Vec<DeploymentId>, NotNow> {
        self.take_policy(view, dice);
        let mut wanted = Vec::new();
        for deployment in view.deployments {
            if which.is_some_and(|id| id != deployment.id) {
                continue;
            }
            let available = self.times(deployment, view).available;
            if available > view.wall {
                match which {
                    Some(_) => return Err(NotNow::NotYet(deployment.name.clone(), available)),
                    None => continue,
                }
            }
            if let Some(plan) = self.plans.get_mut(&deployment.id) {
                plan.wanted = Some(deployment.updates.clone());
                wanted.push(deployment.id);
            }
        }
        if let (Some(id), true) = (which, wanted.is_empty()) {
            return Err(NotNow::NotDeployed(id));
        }
        // Whoever sits in front of it need not wait for what was put off.
        let of = |id: &UpdateId| view.of(*id).any(|it| wanted.contains(&it.id));
        self.jobs.iter_mut().filter(|(id, _)| of(id)).for_each(|(_, job)| job.afresh());
        self.files.clear();
        Ok(wanted)
    }

    /// Somebody wants deployments to be evaluated again: with the next scan that a user asks for, what failed may be tried
    /// as if it never had been. A scan alone begins nothing anew.
    pub fn evaluate_again(&mut self) {
        self.evaluates = true;
    }

    /// Updates that, if they are installed, are so but for a restart of the machine: what a scan goes by.
    pub fn awaiting_restart(&self, boot: &str) -> BTreeSet<UpdateId> {
        self.jobs.iter().filter(|(_, job)| job.needs_end_of(boot)).map(|(id, _)| *id).collect()
    }

    /// The updates that something was done for, and the packages that installers said they lack.
    pub fn known(&self) -> (BTreeSet<UpdateId>, BTreeSet<String>) {
        let lacks = self.jobs.values().flat_map(|job| &job.lacks).cloned();
        (self.jobs.keys().copied().collect(), lacks.collect())
    }

    /// The packages that the installer of an update said to lack.
    pub fn lacks(&self, update: UpdateId) -> BTreeSet<String> {
        self.jobs.get(&update).map(|job| job.lacks.clone()).unwrap_or_default()
    }

    /// Whether an installer was begun of which nobody knows how it ended, and is not at work for us now.
    pub fn has_loose_end(&self) -> bool {
        !matches!(self.doing, Some(Doing::Install(_)))
            && self.jobs.values().any(|job| job.phase == Phase::Begun)
    }

    /// Whether something is at work of which the end is awaited.
    pub fn is_busy(&self) -> bool {
        self.doing.is_some()
    }
}

/// Why what the user wants is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotNow {
    /// It is not deployed.
    #[error(
        "the deployment {0} is not deployed to this machine; `depot agent deployments` lists those that are"
    )]
    NotDeployed(DeploymentId),
    /// It is not available yet.
    #[error("{0} is available from {1} on")]
    NotYet(String, Timestamp),
    /// No restart is announced.
    #[error("no restart is announced")]
    NoRestart,
    /// It was put off for as long as it may be.
    #[error("the restart was put off for as long as it may be")]
    NoMore,
}

/// Whether a deployment has a document that no scan looked at yet.
fn has_unevaluated(view: &View<'_>) -> bool {
    view.deployments.iter().any(|it| !view.found.documents.contains_key(&it.updates))
}

#[cfg(test)]
mod tests;
