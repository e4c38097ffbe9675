//! Carrying out a deployment: what the agent's enforcer wants is done in no time but for what takes it, and it is told.

use super::machine::{Env, Line, Machine};
use super::meter::Kind;
use super::site::{Told, wall};
use client::clock::Moment;
use client::enforce::found::{Done, Evaluated, Found};
use client::enforce::{Ending, Enforcer, Outcome, Step, View, code};
use client::ledger::pace::Pace;
use client::scan::{Line as Way, Trigger};
use compliance::message::Incarnation;
use deployment::enforcement::{DeploymentReport, Failure, Report};
use jiff::tz::TimeZone;
use rand::RngExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::Duration;

/// How long a list of updates takes to come, and a machine to restart.
const BRIEF: Duration = Duration::from_millis(200);
const RESTART: Duration = Duration::from_secs(90);
/// How long an installation takes, in seconds.
const INSTALL: std::ops::Range<u64> = 10..60;

/// What a machine has of deployments.
#[derive(Default)]
pub struct Deploy {
    enforcer: Enforcer,
    found: Found,
    documents: BTreeSet<String>,
    cached: BTreeMap<String, u64>,
    boot: u32,
    doing: Option<(Step, Moment)>,
    due: Option<Moment>,
    pub pace: Pace,
    told: Option<blake3::Hash>,
    number: u64,
    /// Which are installed.
    pub installed: u32,
}

impl Deploy {
    pub fn is_installing(&self) -> bool {
        matches!(self.doing, Some((Step::Install { .. } | Step::Restart, _)))
    }

    pub fn wake(&self) -> Option<Moment> {
        let doing = self.doing.as_ref().map(|(_, at)| *at);
        let due = self.due.filter(|_| doing.is_none());
        [doing, due, self.pace.due()].into_iter().flatten().min()
    }

    /// Has the enforcer look at how things stand.
    fn with<T>(
        &mut self,
        env: &mut Env<'_>,
        ask: impl FnOnce(&mut Enforcer, &View<'_>, &mut dyn FnMut() -> f64) -> T,
    ) -> T {
        let boot = self.boot.to_string();
        let patch = env.world.patch.as_ref().expect("something is deployed");
        let mut enforcer = std::mem::take(&mut self.enforcer);
        let view = View {
            wall: wall(env.now),
            now: env.now,
            boot: &boot,
            zone: &TimeZone::UTC,
            settings: &env.world.settings,
            deployments: std::slice::from_ref(&patch.deployment),
            windows: &[],
            longest_window: None,
            documents: &self.documents,
            found: &self.found,
            cached: &self.cached,
            machine: client::enforce::Machine::default(),
        };
        let rng = &mut *env.rng;
        let said = ask(&mut enforcer, &view, &mut || rng.random());
        self.enforcer = enforcer;
        said
    }

    /// Does what is to be done now.
    pub fn work(machine: &mut Machine, env: &mut Env<'_>) {
        let Some(mut it) = machine.deploy.take() else { return };
        if let Some((step, _)) = it.doing.take_if(|(_, at)| *at <= env.now) {
            it.ends(step, machine, env);
        }
        while it.doing.is_none() {
            let step = it.with(env, |it, view, dice| it.next(view, dice));
            match &step {
                Step::Wait(until) => {
                    it.due = *until;
                    break;
                }
                Step::Scan(trigger) => {
                    machine.agenda.ask(*trigger);
                    if trigger.kind().1 == Way::Offline && machine.agenda.brought().is_none() {
                        machine.agenda.ask(Trigger::BeforeDownload);
                    }
                    it.due = None;
                    break;
                }
                Step::Document(digest) => {
                    let patch = env.world.patch.as_ref().expect("something is deployed");
                    match env.site.ask(Kind::Document, patch.document_bytes) {
                        Told::Answered => it.doing = Some((step, env.now + BRIEF)),
                        _ => {
                            let failure = Failure::new(code::NO_CONTENT, "the site is busy");
                            let digest = digest.clone();
                            it.with(env, |it, view, dice| {
                                it.document(&digest, Err(failure), view, dice);
                            });
                        }
                    }
                }
                Step::File { size, .. } => {
                    env.site.file(*size);
                    let took = Duration::from_secs_f64(*size as f64 / env.world.bytes_a_second);
                    it.doing = Some((step, env.now + took));
                }
                Step::Install { .. } => {
                    let took = Duration::from_secs(env.rng.random_range(INSTALL));
                    it.doing = Some((step, env.now + took));
                }
                Step::Restart => it.doing = Some((step, env.now + RESTART)),
            }
        }
        it.notice(env);
        machine.deploy = Some(it);
    }

    /// What was at work came to its end.
    fn ends(&mut self, step: Step, machine: &mut Machine, env: &mut Env<'_>) {
        match step {
            Step::Document(digest) => {
                self.documents.insert(digest.clone());
                self.with(env, |it, view, dice| it.document(&digest, Ok(()), view, dice));
            }
            Step::File { digest, size } => {
                self.cached.insert(digest.clone(), size);
                self.with(env, |it, view, dice| it.file(&digest, Ok(()), view, dice));
            }
            Step::Install { update, below_overlay, .. } => {
                let at = env.world.deployed.iter().position(|it| it.id == update);
                let at = at.expect("it is deployed") as u32;
                self.installed |= 1 << at;
                let needs_restart = env.world.restarts(at);
                let ending = Ending { outcome: Outcome::Ended, needs_restart };
                env.site.ask(Kind::Facts, 400);
                self.with(env, |it, view, dice| {
                    it.installed(update, below_overlay, ending, view, dice);
                });
            }
            Step::Restart => {
                self.boot += 1;
                self.enforcer.interrupted();
                machine.agenda.interrupted();
                if let Line::Waits(place) = machine.line {
                    env.site.leaves(place);
                    machine.line = Line::Asks(env.now);
                }
            }
            Step::Scan(_) | Step::Wait(_) => {}
        }
    }

    /// Which of the deployed updates a scan by the catalogue that is there knows, and finds installed.
    pub fn finds(machine: &Machine, env: &Env<'_>) -> (u32, u32) {
        let Some(patch) = &env.world.patch else { return machine.books.knows() };
        let known = if machine.catalogue >= patch.catalogue { u32::MAX } else { 0 };
        (known, machine.deploy.as_ref().map_or(0, |it| it.installed))
    }

    /// Takes what a scan found of deployments.
    pub fn scanned(machine: &mut Machine, answers: &BTreeSet<Trigger>, env: &mut Env<'_>) {
        let (known, _) = Self::finds(machine, env);
        let Some(it) = &mut machine.deploy else { return };
        let Some(patch) = &env.world.patch else { return };
        let boot = it.boot.to_string();
        let (begun, waits) = (it.enforcer.known().0, it.enforcer.awaiting_restart(&boot));
        let mut found = Found::default();
        if it.documents.contains(&patch.deployment.updates) {
            let mut evaluated = Evaluated::default();
            for (at, needed) in patch.needed.iter().enumerate() {
                let id = env.world.deployed[at].id;
                let is_installed = it.installed >> at & 1 == 1;
                if known == 0 {
                    evaluated.missing += 1;
                } else if env.world.needs(env.n, at as u32)
                    && (!is_installed || waits.contains(&id))
                {
                    let mut needed = needed.clone();
                    needed.awaits_restart = is_installed;
                    found.updates.insert(id, needed);
                    evaluated.updates.insert(id);
                } else if begun.contains(&id) {
                    found.done.insert(id, Done { name: needed.name.clone(), is_installed });
                    evaluated.updates.insert(id);
                }
            }
            found.documents.insert(patch.deployment.updates.clone(), evaluated);
        }
        it.found = found;
        it.with(env, |it, view, dice| it.scanned(answers, view, dice));
    }

    pub fn scan_failed(machine: &mut Machine, answers: &BTreeSet<Trigger>, env: &mut Env<'_>) {
        if let Some(it) = &mut machine.deploy {
            it.with(env, |it, view, dice| it.scan_failed(answers, "the site is away", view, dice));
        }
    }

    fn reports(&mut self, env: &mut Env<'_>) -> (Vec<DeploymentReport>, blake3::Hash) {
        let reports = self.with(env, |it, view, _| it.reports(view));
        let mut ageless = reports.clone();
        for report in &mut ageless {
            report.age = 0;
            report.updates.iter_mut().for_each(|it| it.age = 0);
        }
        let bytes = serde_json::to_vec(&ageless).expect("it has text keys");
        (reports, blake3::hash(&bytes))
    }

    /// Sees to it that the site hears of what changed.
    fn notice(&mut self, env: &mut Env<'_>) {
        if self.pace.due().is_some() {
            return;
        }
        let told = self.reports(env).1;
        if self.told != Some(told) {
            let within = env.world.settings.report_after_install;
            self.pace.waits_after_install(env.now, within, env.rng.random());
        }
    }

    /// Tells the site how far it is, if it is time.
    pub fn report(machine: &mut Machine, env: &mut Env<'_>) {
        let Some(it) = &mut machine.deploy else { return };
        if !it.pace.is_due(env.now) {
            return;
        }
        let (deployments, told) = it.reports(env);
        it.number += 1;
        let report = Report {
            client: super::site::id(env.n).0,
            incarnation: Incarnation(NonZeroU64::MIN),
            number: it.number,
            deployments,
        };
        let body = serde_json::to_vec(&report).expect("it has text keys");
        let chance = env.rng.random();
        match env.site.ask(Kind::Enforcement, body.len() as u64) {
            Told::Answered => {
                it.told = Some(told);
                it.pace.sent(env.now, false, chance);
            }
            Told::Busy(after) => it.pace.failed(env.now, Some(after), chance),
            Told::Away => it.pace.failed(env.now, None, chance),
        }
    }
}
