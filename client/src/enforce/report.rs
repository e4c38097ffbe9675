//! How far deployments are, as topics 300, 301, 302 and 402 name it.
//!
//! All of it follows from what is remembered and how things stand; kept is only since when it is so.

use super::job::{CONTENT_TRIES, INSTALL_TRIES, Phase};
use super::restart::Leave;
use super::{Doing, Enforcer, View, code};
use crate::clock::Moment;
use deployment::enforcement::{
    Compliance, DeploymentReport, Enforcement, Evaluation, Failure, Update, UpdateReport,
};
use deployment::policy::{DeploymentId, DeploymentPolicy, Detail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use sync::name::UpdateId;

/// What was told last, and since when it is so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    deployments: BTreeMap<DeploymentId, (Standing, Moment)>,
    updates: BTreeMap<UpdateId, (Update, Moment)>,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether it is complied with.
    pub compliance: Compliance,
    /// How far carrying it out is.
    pub enforcement: Enforcement,
    /// Whether it was evaluated.
    pub evaluation: Evaluation,
}

/// How a deployment stands, for whoever looks at the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Which.
    pub id: DeploymentId,
    /// What people call it.
    pub name: String,
    /// From when on its updates may be installed.
    pub available: Timestamp,
    /// When they must be; none of an optional one.
    pub deadline: Option<Timestamp>,
    /// When the machine installs them by itself: the deadline, and what was added to it.
    pub enforced: Option<Timestamp>,
    /// Whether the user wants it.
    pub is_wanted: bool,
    /// How far it is.
    #[serde(flatten)]
    pub standing: Standing,
    /// Why it could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Its updates that are required, or were installed for it.
    pub updates: Vec<ListedUpdate>,
}

/// One update of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedUpdate {
    /// Which.
    pub id: UpdateId,
    /// What people call it.
    pub name: String,
    /// How far it is.
    pub state: Update,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// In how many seconds what failed may be tried again; none, if that is once deployments are evaluated again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_in: Option<u64>,
}

impl Enforcer {
    /// Notes since when things are as they are.
    pub(super) fn note(&mut self, view: &View<'_>) {
        let updates = self.ids(view).map(|id| (id, self.state_of(id, view).0));
        let updates: BTreeMap<_, _> = updates.collect();
        let standing = |it: &DeploymentPolicy| (it.id, self.standing(it, view, &updates));
        let standings: BTreeMap<_, _> = view.deployments.iter().map(standing).collect();
        let Shown { deployments, updates: shown } = &mut self.shown;
        renew(deployments, standings, view.now);
        renew(shown, updates, view.now);
    }

    fn ids<'v>(&'v self, view: &'v View<'_>) -> impl Iterator<Item = UpdateId> + 'v {
        view.found.documents.values().flat_map(|it| &it.updates).copied()
    }

    /// How far an update is, and what went wrong; unknown, if it is nothing to the machine any more.
    fn state_of(&self, id: UpdateId, view: &View<'_>) -> (Update, Option<Failure>) {
        let job = self.jobs.get(&id);
        match job.map(|job| &job.phase) {
            Some(Phase::Begun | Phase::Ended) => return (Update::Installing, None),
            Some(Phase::AwaitsRestart { .. }) => {
                return (Update::PendingRestart, self.restart.retry.failure.clone());
            }
            _ => {}
        }
        let Some(needed) = view.found.updates.get(&id) else {
            return match view.found.done.get(&id) {
                Some(done) if !done.is_installed => (Update::Unknown, None),
                // It is there, whoever installed it.
                _ => (Update::Installed, None),
            };
        };
        if needed.is_bundle {
            return (Update::Pending, None);
        }
        if let Some(failure) = job.and_then(|job| job.retry.failure.clone()) {
            return (Update::Failed, Some(failure));
        }
        let leave = self.leave(id, view, false);
        let (mut is_missing, mut is_coming, mut lacks, mut failed) = (false, false, false, None);
        for file in self.lacking(id, view) {
            lacks = true;
            match &file.digest {
                None => is_missing = true,
                Some(digest) => {
                    is_coming |= self.doing == Some(Doing::File(digest.clone()));
                    let retry = self.files.get(digest);
                    failed = failed.or_else(|| retry.and_then(|it| it.failure.clone()));
                }
            }
        }
        if is_missing {
            let what = "no package of the site holds a file of it";
            return (Update::WaitingForContent, Some(Failure::new(code::NO_CONTENT, what)));
        }
        match (lacks, is_coming, failed, self.brings(id, view)) {
            (true, true, ..) => return (Update::Downloading, None),
            (true, false, Some(failure), _) => return (Update::DownloadFailed, Some(failure)),
            (true, false, None, Ok(())) => return (Update::WaitingForContent, None),
            (true, false, None, Err(_)) => return (Update::Pending, None),
            (false, ..) => {}
        }
        match leave {
            Ok(_)
                if view.machine.installs_other
                    && !matches!(self.doing, Some(Doing::Install(_))) =>
            {
                (Update::WaitingForAnother, None)
            }
            Ok(_) => (Update::Started, None),
            Err(not_yet) if not_yet.for_window => (Update::WaitingForWindow, None),
            Err(_) => (Update::Downloaded, None),
        }
    }

    /// How far a deployment is, its updates being so far.
    fn standing(
        &self,
        deployment: &DeploymentPolicy,
        view: &View<'_>,
        updates: &BTreeMap<UpdateId, Update>,
    ) -> Standing {
        let Some(evaluated) = view.found.documents.get(&deployment.updates) else {
            let plan = self.plans.get(&deployment.id);
            let is_failed =
                plan.is_some_and(|it| it.document.failure.is_some()) || self.scan_failure.is_some();
            let evaluation = match is_failed {
                true => Evaluation::Failed,
                false => Evaluation::Activated,
            };
            return Standing { evaluation, ..Standing::default() };
        };
        let is_required = |id: &&UpdateId| view.found.updates.contains_key(*id);
        let compliance = match evaluated.updates.iter().any(|id| is_required(&id)) {
            true => Compliance::NonCompliant,
            // What is not known never makes a machine look compliant.
            false if evaluated.unknown > 0 || self.may_lack(deployment, view) => {
                Compliance::Unknown
            }
            false => Compliance::Compliant,
        };
        let is_bundle = |id: &&UpdateId| view.found.updates.get(*id).is_some_and(|it| it.is_bundle);
        let own = evaluated.updates.iter().filter(|id| !is_bundle(id));
        let states: Vec<Update> = own.filter_map(|id| updates.get(id).copied()).collect();
        let has = |state: Update| states.contains(&state);
        let enforcement = if has(Update::Installing) {
            Enforcement::Installing
        } else if has(Update::Downloading) {
            Enforcement::Downloading
        } else if has(Update::WaitingForAnother) {
            Enforcement::WaitingForAnother
        } else if has(Update::Failed) {
            Enforcement::Failed
        } else if has(Update::DownloadFailed) || has(Update::WaitingForContent) {
            Enforcement::DownloadFailed
        } else if has(Update::WaitingForWindow) {
            Enforcement::WaitingForWindow
        } else if has(Update::Started) {
            Enforcement::WaitingForTurn
        } else if has(Update::PendingRestart) {
            match self.restart_leave(view) {
                Leave::Suppressed => Enforcement::PendingRestart,
                _ => Enforcement::WaitingForRestart,
            }
        } else if has(Update::Downloaded) {
            Enforcement::Downloaded
        } else if compliance == Compliance::Compliant {
            Enforcement::Succeeded
        } else {
            Enforcement::Unknown
        };
        Standing { compliance, enforcement, evaluation: Evaluation::Succeeded }
    }

    /// All that there is to say of deployments, in the order of their ids.
    pub fn reports(&self, view: &View<'_>) -> Vec<DeploymentReport> {
        let reports = view.deployments.iter().map(|deployment| {
            let report = self.report(deployment, view);
            match deployment.experience.detail {
                Detail::All => report,
                Detail::Errors => only_failures_and_ends(report),
            }
        });
        let mut all: Vec<_> = reports.collect();
        all.sort_by_key(|it| it.deployment);
        all
    }

    fn report(&self, deployment: &DeploymentPolicy, view: &View<'_>) -> DeploymentReport {
        let shown = self.shown.deployments.get(&deployment.id).copied();
        let (standing, since) = shown.unwrap_or((Standing::default(), view.now));
        let evaluated = view.found.documents.get(&deployment.updates);
        let ids = evaluated.into_iter().flat_map(|it| &it.updates);
        let updates: Vec<UpdateReport> = ids
            .map(|id| {
                let (state, failure) = self.state_of(*id, view);
                let shown = self.shown.updates.get(id).filter(|(shown, _)| *shown == state);
                let since = shown.map_or(view.now, |(_, since)| *since);
                UpdateReport { update: *id, state, age: age(view, since), failure }
            })
            .filter(|it| it.state != Update::Unknown)
            .collect();
        let plan = self.plans.get(&deployment.id);
        let of_document = plan.and_then(|plan| plan.document.failure.clone());
        let of_scan = || self.scan_failure.clone();
        let of_update = || updates.iter().find_map(|it| it.failure.clone());
        let failure = match standing.evaluation {
            Evaluation::Failed => of_document.or_else(of_scan),
            _ => of_update(),
        };
        let in_overlay = |id: &UpdateId| {
            let job = self.jobs.get(id).filter(|job| job.phase != Phase::Open);
            job.and_then(|job| job.in_overlay_of.as_deref()) == Some(view.boot)
        };
        DeploymentReport {
            deployment: deployment.id,
            updates_of: deployment.updates.clone(),
            compliance: standing.compliance,
            enforcement: standing.enforcement,
            evaluation: standing.evaluation,
            age: age(view, since),
            failure,
            never_fits: self.never_fits(deployment, view),
            in_overlay: evaluated.is_some_and(|it| it.updates.iter().any(in_overlay)),
            updates,
        }
    }

    /// In how long what failed may be tried again.
    fn again(&self, update: &UpdateReport, view: &View<'_>) -> Option<Duration> {
        let moment = match update.state {
            Update::Failed => self.jobs.get(&update.update)?.retry.when(INSTALL_TRIES),
            Update::DownloadFailed => {
                let lacking = self.lacking(update.update, view);
                let tried = lacking.filter_map(|file| self.files.get(file.digest.as_ref()?));
                tried.filter_map(|retry| retry.when(CONTENT_TRIES)).min()
            }
            _ => None,
        };
        moment.map(|moment| moment.since(view.now))
    }

    /// Whether an update takes longer than any window is open.
    fn never_fits(&self, deployment: &DeploymentPolicy, view: &View<'_>) -> bool {
        let Some(longest) = view.longest_window else { return false };
        let is_free =
            deployment.experience.outside_windows.install || deployment.deadline.is_none();
        let evaluated = view.found.documents.get(&deployment.updates);
        let mut ids = evaluated.into_iter().flat_map(|it| &it.updates);
        let mut is_open =
            || ids.any(|id| view.found.updates.get(id).is_some_and(|it| self.is_open(*id, it)));
        let need = view.max_run_time(deployment).as_secs().div_ceil(60);
        !is_free && i64::try_from(need).unwrap_or(i64::MAX) > longest && is_open()
    }

    /// How deployments stand, for whoever looks at the machine.
    pub fn listed(&self, view: &View<'_>) -> Vec<Listed> {
        let list = view.deployments.iter().map(|deployment| {
            let times = self.times(deployment, view);
            let report = self.report(deployment, view);
            let named = |it: &UpdateReport| {
                let needed = view.found.updates.get(&it.update).map(|it| &it.name);
                let name = needed.or(view.found.done.get(&it.update).map(|it| &it.name));
                ListedUpdate {
                    id: it.update,
                    name: name.cloned().unwrap_or_else(|| it.update.to_string()),
                    state: it.state,
                    failure: it.failure.clone(),
                    again_in: self.again(it, view).map(|it| it.as_secs()),
                }
            };
            Listed {
                id: deployment.id,
                name: deployment.name.clone(),
                available: times.available,
                deadline: times.deadline,
                enforced: times.enforced,
                is_wanted: self.is_wanted(deployment),
                standing: Standing {
                    compliance: report.compliance,
                    enforcement: report.enforcement,
                    evaluation: report.evaluation,
                },
                updates: report.updates.iter().map(named).collect(),
                failure: report.failure.filter(|_| report.evaluation == Evaluation::Failed),
            }
        });
        list.collect()
    }
}

/// What a site is told of a deployment that wants no more.
fn only_failures_and_ends(mut report: DeploymentReport) -> DeploymentReport {
    report.updates.retain(|it| {
        use Update::*;
        matches!(it.state, GeneralFailure | Failed | DownloadFailed | Installed | PendingRestart)
    });
    use Enforcement::*;
    if !matches!(report.enforcement, Failed | DownloadFailed | Succeeded | PendingRestart) {
        report.enforcement = Unknown;
    }
    report
}

/// Whole seconds since then.
fn age(view: &View<'_>, since: Moment) -> u32 {
    let age: Duration = view.now.since(since);
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

/// Takes in what is so now, and keeps since when it is so where nothing changed.
fn renew<K: Ord, V: PartialEq>(
    shown: &mut BTreeMap<K, (V, Moment)>,
    now: BTreeMap<K, V>,
    at: Moment,
) {
    let mut before = std::mem::take(shown);
    for (key, value) in now {
        let since = before.remove(&key).filter(|(was, _)| *was == value);
        let since = since.map_or(at, |(_, since)| since);
        shown.insert(key, (value, since));
    }
}
