//! Restarting the machine: whether, when, and how long people may put it off.
//!
//! A restart follows an update that needs one, from the deadline of a deployment on that has it: what was installed early
//! waits until then, unless the machine is restarted before for another reason. It stays within a window, where there
//! are windows, and comes once for an update until deployments are evaluated again; never for what was installed into
//! an overlay, which it would take away. Where people work at the machine
//! it is announced, and they may put it off for a while.

use super::job::{Job, Phase, Retry};
use super::next::Wake;
use super::when::until;
use super::{Enforcer, NotNow, Step, View, code};
use crate::clock::Moment;
use deployment::enforcement::Failure;
use deployment::policy::DeploymentPolicy;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use sync::name::UpdateId;

/// How often a machine that does not restart is told to.
const TRIES: u32 = 4;
/// How long is waited between.
const WAITS: (Duration, Duration) = (Duration::from_secs(10 * 60), Duration::from_secs(3_600));
/// How long a machine may take to go down.
const GOING_DOWN: Duration = Duration::from_secs(10 * 60);
/// What is left of a window for the machine to come back in.
const MARGIN: Duration = Duration::from_secs(2 * 60);

/// A restart that comes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Restart {
    countdown: Option<Countdown>,
    begun: Option<Begun>,
    pub retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Countdown {
    announced: Moment,
    at: Moment,
}

/// The machine was told to restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    /// Which start of it was to end.
    boot: String,
    at: Moment,
}

/// Whether the machine may restart now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nothing waits for it.
    NotNeeded,
    /// Somebody has to restart it: no deployment does.
    Suppressed,
    /// It will, from then on, if that is known.
    NotYet(Option<Timestamp>),
    /// It may, until then.
    Now(Timestamp),
}

impl Restart {
    /// The start of the machine that was told to end.
    pub fn begun_of(&self) -> Option<&str> {
        self.begun.as_ref().map(|it| &*it.boot)
    }

    /// Announces it no more. That the machine was told to go down stays known.
    pub fn call_off(&mut self) {
        self.countdown = None;
    }

    /// Forgets what was of an earlier start of the machine.
    pub fn is_over(&mut self, boot: &str) {
        if self.begun.as_ref().is_some_and(|it| it.boot != boot) {
            *self = Self::default();
        }
    }
}

impl Enforcer {
    /// Whether the machine may restart for what waits for it.
    pub(super) fn restart_leave(&self, view: &View<'_>) -> Leave {
        let waits =
            |phase: &Phase| matches!(phase, Phase::AwaitsRestart { boot } if boot == view.boot);
        let mut waiting = self.jobs.iter().filter(|(_, job)| waits(&job.phase)).peekable();
        if waiting.peek().is_none() {
            return Leave::NotNeeded;
        }
        // What lies in an overlay a restart would take away.
        let is_kept = |job: &Job| job.in_overlay_of.as_deref() != Some(view.boot);
        let waiting = waiting.filter(|(_, job)| !job.was_restarted && is_kept(job));
        let all = waiting.flat_map(|(id, _)| self.restart_leaves(*id, view));
        all.fold(Leave::Suppressed, |one, other| match (one, other) {
            (Leave::Now(a), Leave::Now(b)) => Leave::Now(a.max(b)),
            (Leave::Now(at), _) | (_, Leave::Now(at)) => Leave::Now(at),
            (Leave::NotYet(a), Leave::NotYet(b)) => {
                Leave::NotYet([a, b].into_iter().flatten().min())
            }
            (Leave::NotYet(at), _) | (_, Leave::NotYet(at)) => Leave::NotYet(at),
            (leave, _) => leave,
        })
    }

    fn restart_leaves<'v>(
        &'v self,
        update: UpdateId,
        view: &'v View<'_>,
    ) -> impl Iterator<Item = Leave> + 'v {
        let restarts = move |it: &&DeploymentPolicy| {
            let suppress = it.experience.suppress_restart;
            !(if view.machine.is_server { suppress.servers } else { suppress.workstations })
        };
        view.of(update).filter(restarts).map(move |deployment| {
            // The user's own machine is the user's to restart.
            let Some(enforced) = self.times(deployment, view).enforced else {
                return Leave::Suppressed;
            };
            if enforced > view.wall {
                return Leave::NotYet(Some(enforced));
            }
            if view.windows.is_empty() || deployment.experience.outside_windows.restart {
                return Leave::Now(Timestamp::MAX);
            }
            match view.windows().open(view.wall) {
                Some(open) if until(view.wall, open.until) > MARGIN => Leave::Now(open.until),
                _ => Leave::NotYet(view.windows().next(view.wall).map(|it| it.from)),
            }
        })
    }

    /// A restart, if it is time.
    pub(super) fn restart_step(
        &mut self,
        view: &View<'_>,
        wake: &mut Wake,
        dice: &mut dyn FnMut() -> f64,
    ) -> Option<Step> {
        self.restart.is_over(view.boot);
        if let Some(begun) = self.restart.begun.clone() {
            if view.now.since(begun.at) < GOING_DOWN {
                wake.at(begun.at + GOING_DOWN);
                return None;
            }
            self.restart_failed("the machine was told to restart, and did not", view, dice);
        }
        let last = match self.restart_leave(view) {
            Leave::Now(until) => until,
            Leave::NotYet(at) => {
                self.restart.countdown = None;
                if let Some(at) = at {
                    wake.on(view, at);
                }
                return None;
            }
            Leave::NotNeeded | Leave::Suppressed => {
                self.restart.countdown = None;
                return None;
            }
        };
        if !self.restart.retry.may(view.now, TRIES) {
            if let Some(at) = self.restart.retry.when(TRIES) {
                wake.at(at);
            }
            return None;
        }
        let last = latest(view, last);
        let countdown = self.restart.countdown.get_or_insert_with(|| {
            let people = view.machine.has_people;
            let wait = if people { view.settings.restart_countdown } else { Duration::ZERO };
            Countdown { announced: view.now, at: view.now + wait }
        });
        countdown.at = countdown.at.min(last);
        if countdown.at > view.now {
            wake.at(countdown.at);
            return None;
        }
        self.restart.countdown = None;
        self.restart.begun = Some(Begun { boot: view.boot.to_owned(), at: view.now });
        Some(Step::Restart)
    }

    /// Notes that the machine does not restart.
    pub fn restart_failed(&mut self, why: &str, view: &View<'_>, dice: &mut dyn FnMut() -> f64) {
        self.restart.begun = None;
        let failure = Failure::new(code::NO_RESTART, why);
        self.restart.retry.failed(view.now, WAITS, dice(), failure);
    }

    /// In how long the machine restarts, if that is announced.
    pub fn restarts_in(&self, now: Moment) -> Option<Duration> {
        self.restart.countdown.map(|it| it.at.since(now))
    }

    /// Puts the restart off for so long, as far as people may. Gives in how long it comes now.
    ///
    /// # Errors
    /// None is announced, or it was put off for as long as it may be.
    pub fn snooze(&mut self, by: Duration, view: &View<'_>) -> Result<Duration, NotNow> {
        let last = match self.restart_leave(view) {
            Leave::Now(until) => latest(view, until),
            _ => return Err(NotNow::NoRestart),
        };
        let countdown = self.restart.countdown.as_mut().ok_or(NotNow::NoRestart)?;
        let last = last.min(countdown.announced + view.settings.restart_snooze);
        if last <= countdown.at {
            return Err(NotNow::NoMore);
        }
        countdown.at = (countdown.at + by).min(last);
        Ok(countdown.at.since(view.now))
    }
}

/// The last moment at which the machine may go down, so as to be back before the window closes.
fn latest(view: &View<'_>, closes: Timestamp) -> Moment {
    view.now + until(view.wall, closes).saturating_sub(MARGIN)
}
