//! Which scan is due, and when the next one will be.
//!
//! The agenda is a value: it is told what happened and when, and says what to do. Of several triggers that wait,
//! those are scanned for first that ask nobody; one scan answers all that it is enough for. A trigger is
//! given up only by a scan that came to its end, or by a failure that does not pass: the power that fails in
//! mid-scan is none.

use super::retry::{Affinity, Class, Failure};
use super::{Line, Step, TIME_TO_LIVE, Trigger, plan};
use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Within which time scans of many machines are spread.
pub const SPREAD: Duration = Duration::from_secs(2 * 3_600);
/// How often is scanned, and are deployments evaluated again, unless somebody set it otherwise.
pub const EVERY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What the settings of clients say of scans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How often is scanned. Less than a day counts as a day.
    pub scan_every: Duration,
    /// How often deployments are evaluated again. Less than a day counts as a day.
    pub reevaluate_every: Duration,
    /// How long metadata is good enough.
    pub time_to_live: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { scan_every: EVERY, reevaluate_every: EVERY, time_to_live: TIME_TO_LIVE }
    }
}

/// What is to be scanned for, and when. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agenda {
    settings: Settings,
    /// Whether there is a policy that enables updates.
    is_enabled: bool,
    scans: Recurring,
    reevaluations: Recurring,
    waiting: BTreeSet<Trigger>,
    running: Option<Running>,
    brought: Option<Moment>,
    affinity: Affinity,
    last_failure: Option<Failure>,
}

/// A scan that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    answers: BTreeSet<Trigger>,
    asks: bool,
}

/// A scan that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// What it answers.
    pub answers: BTreeSet<Trigger>,
    /// What to do.
    pub steps: &'static [Step],
    /// The update point that is asked, if one is.
    pub point: Option<String>,
}

impl Agenda {
    /// Takes a policy: its settings, and the update points in the order in which they are to be tried. At
    /// the first one a scan is due at random within two hours. `dice` gives numbers from 0 up to 1.
    pub fn policy(
        &mut self,
        now: Moment,
        settings: Settings,
        points: Vec<String>,
        dice: &mut dyn FnMut() -> f64,
    ) {
        self.affinity.set(points);
        if !self.is_enabled {
            self.is_enabled = true;
            self.scans.start(now, spread(dice()));
            self.reevaluations.start(now + settings.reevaluate_every.max(DAY), spread(dice()));
        }
        if self.settings.scan_every != settings.scan_every {
            self.scans.reschedule(now, settings.scan_every, spread(dice()));
        }
        if self.settings.reevaluate_every != settings.reevaluate_every {
            self.reevaluations.reschedule(now, settings.reevaluate_every, spread(dice()));
        }
        self.settings = settings;
    }

    /// Takes a policy that disables updates: nothing is scanned for any more.
    pub fn disable(&mut self) {
        *self = Self { brought: self.brought, ..Self::default() };
    }

    /// Notes that a scan is wanted.
    pub fn ask(&mut self, trigger: Trigger) {
        if self.is_enabled {
            self.waiting.insert(trigger);
            if trigger == Trigger::UserAction {
                self.affinity.at_once();
            }
        }
    }

    /// The scan that is to be made now, if there is one, which counts as begun.
    pub fn begin(&mut self, now: Moment, dice: &mut dyn FnMut() -> f64) -> Option<Scan> {
        if !self.is_enabled || self.running.is_some() {
            return None;
        }
        if self.scans.is_due(now, self.settings.scan_every, dice) {
            self.waiting.insert(Trigger::Schedule);
        }
        if self.reevaluations.is_due(now, self.settings.reevaluate_every, dice) {
            self.waiting.insert(Trigger::Reevaluation);
        }
        let asks = |trigger: &Trigger| trigger.asks(now, self.brought, self.settings.time_to_live);
        // Without any metadata there is nothing to scan by, until it was brought.
        let quiet: BTreeSet<Trigger> = match self.brought {
            Some(_) => self.waiting.iter().copied().filter(|it| !asks(it)).collect(),
            None => BTreeSet::new(),
        };
        let may_ask = self.affinity.not_before().is_none_or(|moment| moment <= now);
        let (answers, asks) = match quiet.is_empty() {
            false => (quiet, false),
            true if may_ask && self.waiting.iter().any(asks) => (self.waiting.clone(), true),
            true => return None,
        };
        self.waiting.retain(|trigger| !answers.contains(trigger));
        self.running = Some(Running { answers: answers.clone(), asks });
        let point = self.affinity.point().filter(|_| asks).map(str::to_owned);
        Some(Scan { answers, steps: plan(asks), point })
    }

    /// Notes that the scan that was begun came to its end. Where it asked, the time to live of its metadata
    /// begins anew.
    pub fn succeeded(&mut self, now: Moment) {
        if self.running.take().is_some_and(|running| running.asks) {
            self.brought = Some(now);
            self.affinity.served();
        }
        self.last_failure = None;
    }

    /// Notes that it failed.
    pub fn failed(&mut self, now: Moment, failure: Failure) {
        let running = self.running.take();
        let is_damaged = |failure: &Failure| failure.class == Class::Damaged;
        if is_damaged(&failure) {
            // There is nothing to scan by until it was brought again.
            self.brought = None;
            self.waiting.insert(Trigger::Schedule);
            if !self.last_failure.as_ref().is_some_and(is_damaged) {
                // At once, the first time: it is no fault of the update point.
                self.waiting.extend(running.into_iter().flat_map(|it| it.answers));
                self.last_failure = Some(failure);
                return;
            }
        }
        if let Some(running) = running.filter(|_| failure.class.may_pass()) {
            self.waiting.extend(running.answers);
            self.affinity.failed(now);
        }
        self.last_failure = Some(failure);
    }

    /// Notes that it ended without an end: the machine lost its power, or the agent was ended. It will be
    /// made again, and counts as no failure. To be called when the agenda was read from disk.
    pub fn interrupted(&mut self) {
        if let Some(running) = self.running.take() {
            self.waiting.extend(running.answers);
        }
    }

    /// When to call [`Agenda::begin`] next; none, while nothing is awaited but what somebody tells.
    pub fn wake(&self, now: Moment) -> Option<Moment> {
        if !self.is_enabled || self.running.is_some() {
            return None;
        }
        let mut moments = vec![self.scans.due, self.reevaluations.due];
        let asks = |it: &Trigger| it.asks(now, self.brought, self.settings.time_to_live);
        let is_quiet = |it: &Trigger| self.brought.is_some() && !asks(it);
        if self.waiting.iter().any(is_quiet) {
            moments.push(Some(now));
        } else if self.waiting.iter().any(|it| it.kind().1 == Line::Online) {
            moments.push(Some(self.affinity.not_before().unwrap_or(now).max(now)));
        }
        moments.into_iter().flatten().min()
    }

    /// Whether there is a policy that enables updates.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// When a scan last brought metadata.
    pub fn brought(&self) -> Option<Moment> {
        self.brought
    }

    /// Why the last scan failed, if it did.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// The update point that is asked next.
    pub fn point(&self) -> Option<&str> {
        self.affinity.point()
    }
}

/// Something that happens again and again, each time at random within two hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recurring {
    /// The next time, before chance was added to it.
    nominal: Moment,
    due: Option<Moment>,
    /// Whether the next time is one that was missed, and put off once.
    was_missed: bool,
}

impl Recurring {
    /// For the first time at that moment, and what chance adds.
    fn start(&mut self, nominal: Moment, added: Duration) {
        *self = Self { nominal, due: Some(nominal + added), was_missed: false };
    }

    /// With another period: the next time comes sooner, if it is shorter.
    fn reschedule(&mut self, now: Moment, every: Duration, added: Duration) {
        let nominal = now + every.max(DAY);
        if self.due.is_some() && nominal < self.nominal {
            self.start(nominal, added);
        }
    }

    /// Whether it is time, and if so, when the next time is. One that was missed by long, as by a machine that
    /// was off, is put off once by chance, so that machines that come back together do not ask together.
    fn is_due(&mut self, now: Moment, every: Duration, dice: &mut dyn FnMut() -> f64) -> bool {
        let Some(due) = self.due.filter(|due| *due <= now) else { return false };
        if now.since(due) > SPREAD && !self.was_missed {
            (self.due, self.was_missed) = (Some(now + spread(dice())), true);
            return self.due == Some(now) && self.is_due(now, every, dice);
        }
        // What was missed meanwhile is not made up for.
        let next = self.nominal + every.max(DAY);
        let next = if next > now { next } else { now + every.max(DAY) };
        self.start(next, spread(dice()));
        true
    }
}

fn spread(chance: f64) -> Duration {
    SPREAD.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
