//! What is done next.
//!
//! In the order of urgency: what was begun is looked at again; documents come, and are evaluated; what is due is
//! installed, in a round between two scans, the shortest first; the machine restarts; files come that are not due yet.

use super::job::{
    CONTENT_TRIES, CONTENT_WAITS, INSTALL_TRIES, INSTALL_WAITS, Job, LACKING_TRIES, LACKING_WAITS,
    MAX_LACKS, Phase, Retry,
};
use super::when::{later, until};
use super::{Doing, Ending, Enforcer, Outcome, Round, Step, View, code};
use crate::clock::Moment;
use crate::enforce::found::Needed;
use crate::scan::Trigger;
use deployment::enforcement::Failure;
use deployment::policy::{DeployedFile, DeploymentPolicy};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;
use sync::name::UpdateId;

/// How long is waited after a scan that failed, at first and at most.
const SCAN_WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));
/// How often is looked whether another installation has ended.
const ANOTHER: Duration = Duration::from_secs(15);

/// That an update may be installed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    /// How long it may take.
    pub within: Duration,
    /// Whether it is to outlive a restart of a machine whose root is an overlay.
    pub commits: bool,
}

/// That it may not, and when it may; none, if that is never or depends on the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotYet {
    pub at: Option<Timestamp>,
    /// Whether it is due, and waits for a window alone.
    pub for_window: bool,
}

/// The first moment at which something is to be looked at again.
#[derive(Default)]
pub(super) struct Wake(Option<Moment>);

impl Wake {
    pub fn at(&mut self, moment: Moment) {
        self.0 = Some(self.0.map_or(moment, |it| it.min(moment)));
    }

    pub fn on(&mut self, view: &View<'_>, at: Timestamp) {
        self.at(view.now + until(view.wall, at));
    }

    fn again(&mut self, retry: &Retry, tries: u32) {
        if let Some(moment) = retry.when(tries) {
            self.at(moment);
        }
    }
}

impl Enforcer {
    /// What to do next. It counts as begun: to be written down before it is done.
    pub fn next(&mut self, view: &View<'_>, dice: &mut dyn FnMut() -> f64) -> Step {
        self.take_policy(view, dice);
        let step = self.decide(view, dice);
        self.doing = match &step {
            Step::Document(digest) => Some(Doing::Document(digest.clone())),
            Step::File { digest, .. } => Some(Doing::File(digest.clone())),
            Step::Scan(trigger) => Some(Doing::Scan(*trigger)),
            Step::Install { update, .. } => {
                self.jobs.entry(*update).or_default().phase = Phase::Begun;
                self.round.get_or_insert_default().is_begun = true;
                Some(Doing::Install(*update))
            }
            Step::Restart | Step::Wait(_) => self.doing.take(),
        };
        self.note(view);
        step
    }

    fn decide(&mut self, view: &View<'_>, dice: &mut dyn FnMut() -> f64) -> Step {
        if self.doing.is_some() {
            return Step::Wait(None);
        }
        let mut wake = Wake::default();
        let scans = self.scans.may(view.now, u32::MAX);
        if !scans {
            wake.again(&self.scans, u32::MAX);
        }
        if scans && self.restarted_since(view) {
            return Step::Scan(Trigger::AfterRestart);
        }
        if self.has_loose_end() {
            if view.machine.installs_other {
                wake.at(view.now + ANOTHER);
                return Step::Wait(wake.0);
            }
            if scans {
                return Step::Scan(Trigger::AfterInstall);
            }
        }
        if let Some(step) = self.evaluation(view, scans, &mut wake) {
            return step;
        }
        if let Some(step) = self.round(view, scans, &mut wake) {
            return step;
        }
        if let Some(step) = self.restart_step(view, &mut wake, dice) {
            return step;
        }
        self.downloads(view, &mut wake).unwrap_or(Step::Wait(wake.0))
    }

    /// Documents that are missing, and a scan for those that none looked at.
    fn evaluation(&self, view: &View<'_>, scans: bool, wake: &mut Wake) -> Option<Step> {
        for deployment in view.deployments {
            if view.documents.contains(&deployment.updates) {
                continue;
            }
            let Some(plan) = self.plans.get(&deployment.id) else { continue };
            if plan.document.may(view.now, CONTENT_TRIES) {
                return Some(Step::Document(deployment.updates.clone()));
            }
            wake.again(&plan.document, CONTENT_TRIES);
        }
        let is_new = |it: &DeploymentPolicy| {
            view.documents.contains(&it.updates) && !view.found.documents.contains_key(&it.updates)
        };
        if view.deployments.iter().any(is_new) {
            return self.scan_by(Trigger::BeforeDownload, scans);
        }
        for deployment in view.deployments.iter().filter(|it| self.may_lack(it, view)) {
            let retry = self.lacking.get(&deployment.updates).cloned().unwrap_or_default();
            if retry.may(view.now, LACKING_TRIES) {
                // What is deployed may be newer than the catalogue here, however young that is.
                return self.scan_by(Trigger::UserAction, scans);
            }
            wake.again(&retry, LACKING_TRIES);
        }
        None
    }

    /// Whether updates of a deployment may be for this machine, and yet to come into its catalogue.
    pub(super) fn may_lack(&self, deployment: &DeploymentPolicy, view: &View<'_>) -> bool {
        let evaluated = view.found.documents.get(&deployment.updates);
        let asked = self.lacking.get(&deployment.updates).map_or(0, |retry| retry.failures);
        evaluated.is_some_and(|it| it.missing > 0) && asked < LACKING_TRIES
    }

    /// Installing what is due.
    fn round(&mut self, view: &View<'_>, scans: bool, wake: &mut Wake) -> Option<Step> {
        let due = self.due(view, wake);
        match self.round.clone() {
            None if due.is_empty() => None,
            None if view.machine.installs_other => {
                wake.at(view.now + ANOTHER);
                None
            }
            None => {
                // What is due has those come along whose deadline is near, also once it is installed itself.
                self.round = Some(Round { takes_along: true, ..Round::default() });
                self.scan_by(Trigger::BeforeInstall, scans)
            }
            Some(round) if !round.is_checked => match due.is_empty() {
                // The window closed, or the deployment went away.
                true => {
                    self.round = None;
                    None
                }
                false => self.scan_by(Trigger::BeforeInstall, scans),
            },
            Some(_) if !due.is_empty() && view.machine.installs_other => {
                wake.at(view.now + ANOTHER);
                None
            }
            Some(round) => match (self.first_of(&due, view), round.is_begun) {
                (Some(step), _) => Some(step),
                (None, true) => scans.then_some(Step::Scan(Trigger::AfterInstall)),
                (None, false) => {
                    self.round = None;
                    None
                }
            },
        }
    }

    /// A scan that is started so. Where the update point cannot be had, what lies on the machine says which updates
    /// are required: that it is away is no reason to leave them out.
    fn scan_by(&self, trigger: Trigger, scans: bool) -> Option<Step> {
        match self.scans.failures {
            0 => Some(Step::Scan(trigger)),
            1 => Some(Step::Scan(Trigger::AfterInstall)),
            _ => scans.then_some(Step::Scan(Trigger::AfterInstall)),
        }
    }

    /// Of what is due: the first that can be installed, or else the first file that lacks.
    fn first_of(&self, due: &[(UpdateId, Leave)], view: &View<'_>) -> Option<Step> {
        let ready = due.iter().find(|(id, _)| self.lacking(*id, view).next().is_none());
        if let Some((update, leave)) = ready {
            let below_overlay = view.machine.has_overlay && leave.commits;
            return Some(Step::Install { update: *update, within: leave.within, below_overlay });
        }
        due.iter().find_map(|(id, _)| self.first_file(*id, view, &mut Wake::default()))
    }

    /// What may be installed now and whose files are there or may be asked for, the shortest first.
    fn due(&self, view: &View<'_>, wake: &mut Wake) -> Vec<(UpdateId, Leave)> {
        let open = || view.found.updates.iter().filter(|(id, it)| self.is_open(**id, it));
        let is_due = |(id, _): (&UpdateId, &Needed)| self.leave(*id, view, false).is_ok();
        let takes_along = self.round.as_ref().is_some_and(|round| round.takes_along);
        let may_take_along = !view.settings.coming_deadlines.is_zero();
        let with_coming = may_take_along && (takes_along || open().any(is_due));
        let mut due = Vec::new();
        for (id, _) in open() {
            match self.leave(*id, view, with_coming) {
                Err(not_yet) => {
                    if let Some(at) = not_yet.at {
                        wake.on(view, at);
                    }
                }
                Ok(leave) => {
                    let job = self.jobs.get(id);
                    let is_there = |name: &String| view.found.beside.contains_key(name);
                    if job.is_some_and(|job| !job.lacks.iter().all(is_there)) {
                        // The next scan tells whether a deployment has it.
                        continue;
                    }
                    let retry = job.map(|job| &job.retry);
                    if let Some(retry) = retry.filter(|it| !it.may(view.now, INSTALL_TRIES)) {
                        wake.again(retry, INSTALL_TRIES);
                    } else if self.lacking(*id, view).all(|file| self.may_bring(file, view, wake)) {
                        due.push((*id, leave));
                    }
                }
            }
        }
        due.sort_by_key(|(id, leave)| (leave.within, *id));
        due
    }

    /// Whether an update is still to be installed.
    pub(super) fn is_open(&self, id: UpdateId, needed: &Needed) -> bool {
        let is_open = |job: &Job| matches!(job.phase, Phase::Open | Phase::Installed);
        !needed.is_bundle && self.jobs.get(&id).is_none_or(is_open)
    }

    /// Whether an update may be installed now. `with_coming`: also one whose deadline comes soon.
    pub(super) fn leave(
        &self,
        id: UpdateId,
        view: &View<'_>,
        with_coming: bool,
    ) -> Result<Leave, NotYet> {
        let (mut leave, mut not_yet) = (None::<Leave>, NotYet { at: None, for_window: false });
        let within = view.of(id).map(|it| view.max_run_time(it)).max().unwrap_or_default();
        let need = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        let ever_fits = view.longest_window.is_none_or(|it| SignedDuration::from_mins(it) >= need);
        let mut sooner = |at: Option<Timestamp>| {
            not_yet.at = [not_yet.at, at].into_iter().flatten().min();
        };
        for deployment in view.of(id) {
            let times = self.times(deployment, view);
            let coming = if with_coming { view.settings.coming_deadlines } else { Duration::ZERO };
            let commits = deployment.experience.commit;
            let is_wanted = self.is_wanted(deployment) && times.available <= view.wall;
            if is_wanted {
                let commits = commits || leave.is_some_and(|it| it.commits);
                leave = Some(Leave { within, commits });
                continue;
            }
            let Some(enforced) = times.enforced else { continue };
            if times.available > view.wall || enforced > later(view.wall, coming) {
                sooner(Some(enforced));
                continue;
            }
            let is_free = view.windows.is_empty() || deployment.experience.outside_windows.install;
            let usable = match is_free {
                true => Some(view.wall),
                false if !ever_fits => None,
                false => view.windows().usable(view.wall, need),
            };
            if usable.is_some_and(|at| at <= view.wall) {
                let commits = commits || leave.is_some_and(|it| it.commits);
                leave = Some(Leave { within, commits });
            } else {
                sooner(usable);
                not_yet.for_window = true;
            }
        }
        leave.ok_or(not_yet)
    }

    /// The files of an update that are not in the cache, those included that its installer lacked.
    pub(super) fn lacking<'v>(
        &'v self,
        id: UpdateId,
        view: &'v View<'_>,
    ) -> impl Iterator<Item = &'v DeployedFile> {
        let own = view.found.updates.get(&id).into_iter().flat_map(Needed::files);
        let lacks = self.jobs.get(&id).into_iter().flat_map(|job| &job.lacks);
        let beside = lacks.filter_map(|name| view.found.beside.get(name));
        own.chain(beside).filter(|file| {
            file.digest.as_ref().is_none_or(|digest| !view.cached.contains_key(digest))
        })
    }

    /// Whether a file may be asked for now.
    fn may_bring(&self, file: &DeployedFile, view: &View<'_>, wake: &mut Wake) -> bool {
        // No package of the site holds it: that changes with the document.
        let Some(digest) = &file.digest else { return false };
        let Some(retry) = self.files.get(digest) else { return true };
        if !retry.may(view.now, CONTENT_TRIES) {
            wake.again(retry, CONTENT_TRIES);
            return false;
        }
        true
    }

    fn first_file(&self, id: UpdateId, view: &View<'_>, wake: &mut Wake) -> Option<Step> {
        let mut files = self.lacking(id, view);
        let file = files.find(|file| self.may_bring(file, view, wake))?;
        Some(Step::File { digest: file.digest.clone()?, size: file.size })
    }

    /// Whether the files of an update are to come now, or when.
    pub(super) fn brings(&self, id: UpdateId, view: &View<'_>) -> Result<(), Option<Timestamp>> {
        let mut first = None;
        for deployment in view.of(id) {
            let times = self.times(deployment, view);
            let is_asked = times.deadline.is_some() || self.is_wanted(deployment);
            let is_early = times.deadline.is_some() && deployment.experience.predownload;
            match is_asked {
                true if is_early || times.available <= view.wall => return Ok(()),
                true => first = [first, Some(times.available)].into_iter().flatten().min(),
                false => {}
            }
        }
        Err(first)
    }

    /// Files that come before they are due.
    fn downloads(&self, view: &View<'_>, wake: &mut Wake) -> Option<Step> {
        let mut wanted = Vec::new();
        for (id, needed) in &view.found.updates {
            if !self.is_open(*id, needed) || self.lacking(*id, view).next().is_none() {
                continue;
            }
            match self.brings(*id, view) {
                Ok(()) => {
                    let deadlines = view.of(*id).filter_map(|it| self.times(it, view).enforced);
                    wanted.push((deadlines.min().unwrap_or(Timestamp::MAX), *id));
                }
                Err(Some(at)) => wake.on(view, at),
                Err(None) => {}
            }
        }
        wanted.sort_unstable();
        wanted.iter().find_map(|(_, id)| self.first_file(*id, view, wake))
    }

    /// Whether a file that is coming has to wait, as something is due that does not need it.
    pub fn makes_room(&self, view: &View<'_>) -> bool {
        let Some(Doing::File(coming)) = &self.doing else { return false };
        let due = self.due(view, &mut Wake::default());
        let needs = |file: &DeployedFile| file.digest.as_ref() == Some(coming);
        let of_due = due.iter().flat_map(|(id, _)| self.lacking(*id, view)).any(needs);
        !due.is_empty() && !of_due && !view.machine.installs_other
    }

    /// Notes that what was coming was put off.
    pub fn put_off(&mut self) {
        self.doing = None;
    }

    /// Notes that no scan comes: updates were disabled.
    pub fn scans_no_more(&mut self) {
        self.doing = self.doing.take().filter(|it| !matches!(it, Doing::Scan(_)));
    }

    /// Notes what came of bringing a document.
    pub fn document(
        &mut self,
        digest: &str,
        came: Result<(), Failure>,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        self.doing = None;
        for deployment in view.deployments.iter().filter(|it| it.updates == digest) {
            let Some(plan) = self.plans.get_mut(&deployment.id) else { continue };
            match &came {
                Ok(()) => plan.document = Retry::default(),
                Err(failure) => {
                    plan.document.failed(view.now, CONTENT_WAITS, dice(), failure.clone());
                }
            }
        }
        self.note(view);
    }

    /// Notes what came of bringing a file.
    pub fn file(
        &mut self,
        digest: &str,
        came: Result<(), Failure>,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        self.doing = None;
        match came {
            Ok(()) => drop(self.files.remove(digest)),
            Err(failure) => {
                let retry = self.files.entry(digest.to_owned()).or_default();
                retry.failed(view.now, CONTENT_WAITS, dice(), failure);
            }
        }
        self.note(view);
    }

    /// Notes that there are other distribution points: they may have what those before did not.
    pub fn has_other_points(&mut self) {
        self.files.clear();
    }

    /// Notes what came of installing an update.
    pub fn installed(
        &mut self,
        update: UpdateId,
        below_overlay: bool,
        ending: Ending,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        self.doing = None;
        let job = self.jobs.entry(update).or_default();
        job.phase = Phase::Open;
        if ending.needs_restart {
            job.restart_of = Some(view.boot.to_owned());
        }
        let may_be_there = matches!(ending.outcome, Outcome::Ended | Outcome::Failed(_));
        if ending.needs_restart || may_be_there {
            let is_lost = view.machine.has_overlay && !below_overlay;
            job.in_overlay_of = is_lost.then(|| view.boot.to_owned());
        }
        match ending.outcome {
            Outcome::Ended => {
                // What lies below the overlay shows after the restart. One that an earlier try made necessary still is.
                job.phase = match job.needs_end_of(view.boot) || below_overlay {
                    true => Phase::AwaitsRestart { boot: view.boot.to_owned() },
                    false => Phase::Ended,
                };
            }
            Outcome::Lacks(names) => {
                let before = job.lacks.len();
                job.lacks.extend(names);
                if job.lacks.len() == before || job.lacks.len() > MAX_LACKS {
                    let names: Vec<&str> = job.lacks.iter().map(String::as_str).collect();
                    let what =
                        format!("what it depends on does not fit together: {}", names.join(", "));
                    job.lacks.clear();
                    let failure = Failure::new(code::LACKS, what);
                    job.retry.failed(view.now, INSTALL_WAITS, dice(), failure);
                }
            }
            Outcome::Another => job.retry.again = Some(view.now + ANOTHER),
            Outcome::Damaged(digest) => {
                let what = format!("the file {digest} in the cache was damaged, and comes again");
                let failure = Failure::new(code::LOCAL, what);
                job.retry.failed(view.now, INSTALL_WAITS, dice(), failure);
            }
            Outcome::Failed(failure) => {
                job.retry.failed(view.now, INSTALL_WAITS, dice(), failure);
            }
        }
        self.note(view);
    }

    /// Notes that a scan came to its end which answered these triggers; the view has what it found.
    pub fn scanned(
        &mut self,
        answers: &BTreeSet<Trigger>,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        let own = match &self.doing {
            Some(Doing::Scan(trigger)) if answers.contains(trigger) => Some(*trigger),
            _ => None,
        };
        if own.is_some() {
            self.doing = None;
        }
        (self.scans, self.scan_failure) = (Retry::default(), None);
        let is_of_user = answers.contains(&Trigger::UserAction);
        let evaluates = answers.contains(&Trigger::Reevaluation)
            || (is_of_user && std::mem::take(&mut self.evaluates));
        if evaluates {
            self.jobs.values_mut().for_each(Job::afresh);
            self.files.clear();
            self.plans.values_mut().for_each(|plan| plan.document = Retry::default());
            self.restart.retry = Retry::default();
        }
        if is_of_user {
            let lacking = view.found.documents.iter().filter(|(_, it)| it.missing > 0);
            for (digest, _) in lacking {
                let what = "the catalogue does not have all of its updates";
                let failure = Failure::new(code::STILL_REQUIRED, what);
                let retry = self.lacking.entry(digest.clone()).or_default();
                retry.failed(view.now, LACKING_WAITS, dice(), failure);
            }
        }
        let installing = match &self.doing {
            Some(Doing::Install(update)) => Some(*update),
            _ => None,
        };
        let begun = self.restart.begun_of().map(str::to_owned);
        for (id, job) in self.jobs.iter_mut().filter(|(id, _)| Some(**id) != installing) {
            settle(job, view.found.updates.get(id), evaluates, begun.as_deref(), view, dice);
        }
        self.restart.is_over(view.boot);
        match &mut self.round {
            Some(round) if !round.is_checked => round.is_checked = true,
            Some(round) if round.is_begun && own == Some(Trigger::AfterInstall) => {
                self.round = None
            }
            _ => {}
        }
        self.note(view);
    }

    /// Notes that a scan failed that was to answer these triggers.
    pub fn scan_failed(
        &mut self,
        answers: &BTreeSet<Trigger>,
        why: &str,
        view: &View<'_>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        let is_own = matches!(&self.doing, Some(Doing::Scan(trigger)) if answers.contains(trigger));
        if is_own {
            self.doing = None;
            let failure = Failure::new(code::NO_SCAN, why);
            self.scan_failure = Some(failure.clone());
            self.scans.failed(view.now, SCAN_WAITS, dice(), failure);
            self.note(view);
        }
    }

    /// Whether the machine was started anew since something was done that this makes another.
    fn restarted_since(&self, view: &View<'_>) -> bool {
        self.jobs.values().any(|job| {
            let waited = matches!(&job.phase, Phase::AwaitsRestart { boot } if boot != view.boot);
            waited || job.in_overlay_of.as_ref().is_some_and(|boot| boot != view.boot)
        })
    }
}

/// Takes what a scan says of one update: `needed`, if it is required. `restarted`: the start of the machine that we ended.
fn settle(
    job: &mut Job,
    needed: Option<&Needed>,
    evaluates: bool,
    restarted: Option<&str>,
    view: &View<'_>,
    dice: &mut dyn FnMut() -> f64,
) {
    let overlay_is_gone = job.in_overlay_of.as_ref().is_some_and(|boot| boot != view.boot);
    if overlay_is_gone {
        job.in_overlay_of = None;
    }
    let before = std::mem::take(&mut job.phase);
    match &before {
        // Whatever the scan says: it is not over.
        Phase::AwaitsRestart { boot } if boot == view.boot => {
            job.phase = before;
            return;
        }
        Phase::AwaitsRestart { boot } if restarted == Some(boot) => job.was_restarted = true,
        _ => {}
    }
    let awaits_restart = needed.is_some_and(|it| it.awaits_restart);
    if needed.is_none() || awaits_restart {
        // How often it failed is kept until deployments are evaluated again: two that undo each other never end.
        job.phase = match awaits_restart {
            true => Phase::AwaitsRestart { boot: view.boot.to_owned() },
            false => Phase::Installed,
        };
        job.lacks.clear();
        (job.retry.again, job.retry.failure) = (None, None);
        return;
    }
    let still = |what: &str| Some(Failure::new(code::STILL_REQUIRED, what));
    let failure = match before {
        _ if overlay_is_gone => None,
        Phase::Open => {
            let lacks = job.lacks.iter().find(|name| !view.found.beside.contains_key(*name));
            let lacks = lacks.map(|name| {
                let what = format!("it depends on {name}, which is neither installed nor deployed");
                Failure::new(code::LACKS, what)
            });
            if lacks.is_some() {
                job.lacks.clear();
            }
            lacks
        }
        Phase::Begun => {
            let what = "the installer was interrupted, and the update is still required";
            job.retry.failures = job.retry.failures.saturating_add(1);
            job.retry.failure = Some(Failure::new(code::INTERRUPTED, what));
            None
        }
        Phase::Ended => still("the installer reported success, and the update is still required"),
        Phase::AwaitsRestart { .. } => still("it is still required after the restart"),
        Phase::Installed if evaluates => None,
        Phase::Installed => still("it was installed, and is required again"),
    };
    if let Some(failure) = failure {
        job.retry.failed(view.now, INSTALL_WAITS, dice(), failure);
    }
}
