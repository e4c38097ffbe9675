//! One machine: the agent's own decisions, in the order in which the agent takes them.
//!
//! When it scans, reports, asks again and installs, crate `client` decides, as in an agent; what it finds is drawn here.
//! Instead of a ledger on a disk each machine has [`Books`]: a few bytes that say by how much its states differ
//! from one of the sets that all machines share.

use super::World;
use super::deploy::Deploy;
use super::meter::Kind;
use super::site::{Site, Told, id, wall};
use client::clock::Moment;
use client::ledger::pace::Pace;
use client::patience::{Patience, Why};
use client::scan::agenda::{Agenda, Scan as Scans, Settings};
use client::scan::retry::{Class, Failure};
use client::scan::{Step, Trigger};
use compliance::digest::StateDigest;
use compliance::message::{
    Batch, Incarnation, Kind as Tells, Scan, ScanOutcome, State, StateMessage,
};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::num::NonZeroU64;
use std::time::Duration;

/// Of the first so many updates a machine may find another state than its set has.
pub const MOVING: u32 = 40;
/// How soon an agent sees that packages changed: two looks.
const SEEN: Duration = Duration::from_secs(20);

/// How a machine stands to its site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Line {
    /// It joins then.
    Joins(Moment),
    /// It asks for the policy then.
    Asks(Moment),
    /// Its question waits.
    Waits(u8),
    /// The question that waits is answered then.
    Answered(u8, Moment),
}

/// A machine.
pub struct Machine {
    pub agenda: Agenda,
    pub pace: Pace,
    pub patience: Patience,
    pub line: Line,
    pub books: Books,
    /// When somebody installs something.
    pub changes_at: Moment,
    pub has_policy: bool,
    /// Which catalogue it has.
    pub catalogue: u32,
    pub deploy: Option<Box<Deploy>>,
    /// When it is looked at next.
    pub scheduled: Moment,
}

/// What a machine knows, and what of that its site does not know yet.
#[derive(Clone, Debug, Default)]
pub struct Books {
    next: u64,
    acknowledged: u64,
    digest: StateDigest,
    has_all: bool,
    /// Which of the first updates are otherwise than in its set; which of the deployed ones are known, and installed.
    moved: u64,
    known: u32,
    installed: u32,
    /// What of these the site was not told.
    untold: (u64, u32),
}

/// What a machine acts on.
pub struct Env<'a> {
    pub world: &'a World,
    pub site: &'a mut Site,
    pub rng: &'a mut SmallRng,
    pub now: Moment,
    pub n: u32,
}

impl Env<'_> {
    pub fn chance(&mut self) -> f64 {
        self.rng.random()
    }
}

impl Books {
    pub fn new(n: u32, world: &World) -> Self {
        Self { digest: Self::set(n, world).1, ..Self::default() }
    }

    fn set(n: u32, world: &World) -> &(Vec<State>, StateDigest) {
        &world.sets[n as usize % world.sets.len()]
    }

    fn state(&self, n: u32, update: usize, world: &World) -> State {
        match Self::set(n, world).0[update] {
            state if (update as u32) < MOVING && self.moved >> update & 1 == 1 => match state {
                State::Installed => State::Required,
                _ => State::Installed,
            },
            state => state,
        }
    }

    /// The state of one of those that are deployed.
    fn deployed(&self, n: u32, at: u32, world: &World) -> State {
        match (self.known >> at & 1, self.installed >> at & 1) {
            (0, _) => State::Unknown,
            (_, 1) => State::Installed,
            _ if world.needs(n, at) => State::Required,
            _ => State::NotRequired,
        }
    }

    /// A scan found that so many updates changed, and the deployed ones to be so.
    pub fn record(&mut self, n: u32, changes: u32, deployed: (u32, u32), env: &mut Env<'_>) {
        let world = env.world;
        let mut count = 0;
        for _ in 0..changes {
            let update = env.rng.random_range(0..MOVING.min(world.updates.len() as u32)) as usize;
            let before = self.state(n, update, world);
            self.moved ^= 1 << update;
            let after = self.state(n, update, world);
            let name = world.updates[update];
            self.digest.change((name, before), (name, after));
            self.untold.0 |= 1 << update;
            count += 1;
        }
        for at in 0..world.deployed.len() as u32 {
            let before = self.deployed(n, at, world);
            let bit = |mask: u32| (mask >> at & 1) << at;
            self.known = self.known & !(1 << at) | bit(deployed.0);
            self.installed = self.installed & !(1 << at) | bit(deployed.1);
            let after = self.deployed(n, at, world);
            if before != after {
                let name = world.deployed[at as usize];
                self.digest.change((name, before), (name, after));
                self.untold.1 |= 1 << at;
                count += 1;
            }
        }
        self.next += count + 1;
    }

    /// A scan failed.
    fn failed(&mut self) {
        self.next += 1;
    }

    pub fn knows(&self) -> (u32, u32) {
        (self.known, self.installed)
    }

    fn message(&mut self, n: u32, world: &World, now: Moment) -> Batch {
        let told = |update, state| StateMessage { update, state, age: 600 };
        let mut states = Vec::new();
        if !self.has_all {
            let all = 0..world.updates.len();
            let all = all.map(|it| told(world.updates[it], self.state(n, it, world)));
            states.extend(all.filter(|it| it.state != State::Unknown));
        } else {
            let moved = (0..MOVING as usize).filter(|it| self.untold.0 >> it & 1 == 1);
            states.extend(moved.map(|it| told(world.updates[it], self.state(n, it, world))));
        }
        for at in (0..world.deployed.len() as u32).filter(|at| self.untold.1 >> at & 1 == 1) {
            states.push(told(world.deployed[at as usize], self.deployed(n, at, world)));
        }
        states.sort_by_key(|it| it.update);
        Batch {
            client: id(n).0,
            incarnation: Incarnation(NonZeroU64::MIN),
            first: self.acknowledged,
            next: self.next,
            kind: if self.has_all { Tells::Changes } else { Tells::Full },
            sent: wall(now).as_second(),
            scan: Some(Scan {
                age: 600,
                outcome: ScanOutcome::Completed,
                completed: Some(600),
                catalogue: 1,
            }),
            waiting: 0,
            digest: self.digest,
            states,
        }
    }

    fn owes(&self) -> bool {
        self.next > self.acknowledged
    }

    fn told(&mut self) {
        (self.acknowledged, self.has_all, self.untold) = (self.next, true, (0, 0));
    }
}

impl Machine {
    /// One that joins at that moment, with these books.
    pub fn new(joins: Moment, books: Books) -> Self {
        Self {
            agenda: Agenda::default(),
            pace: Pace::default(),
            patience: Patience::default(),
            line: Line::Joins(joins),
            books,
            changes_at: Moment(Duration::MAX),
            has_policy: false,
            catalogue: 0,
            deploy: None,
            scheduled: Moment(Duration::MAX),
        }
    }

    /// Whether nothing of it waits for the site.
    pub fn is_heard(&self) -> bool {
        matches!(self.line, Line::Waits(_))
    }

    /// Does what is due; when it is to be looked at next.
    pub fn work(&mut self, env: &mut Env<'_>) -> Moment {
        self.asks(env);
        if self.changes_at <= env.now {
            self.changes_at = env.now + env.world.until_change(env.rng);
            if self.has_policy {
                self.agenda.ask(Trigger::AfterInstall);
                env.site.ask(Kind::Facts, 400);
            }
        }
        Deploy::work(self, env);
        let installing = self.deploy.as_ref().is_some_and(|it| it.is_installing());
        for _ in 0..4 {
            let now = env.now;
            if installing {
                break;
            }
            let Some(scan) = self.agenda.begin(now, &mut || env.rng.random()) else { break };
            self.scan(scan, env);
            Deploy::work(self, env);
        }
        if self.pace.is_due(env.now) {
            self.report(env);
        }
        Deploy::report(self, env);
        let line = match self.line {
            Line::Joins(at) | Line::Asks(at) | Line::Answered(_, at) => Some(at),
            Line::Waits(_) => None,
        };
        let changes = self.has_policy.then_some(self.changes_at + SEEN);
        let scans = self.agenda.wake(env.now).filter(|_| !installing);
        let deploy = self.deploy.as_ref().and_then(|it| it.wake());
        [line, changes, scans, deploy, self.pace.due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Moment(Duration::MAX))
    }

    /// Joins, and asks for the policy.
    fn asks(&mut self, env: &mut Env<'_>) {
        match self.line {
            Line::Joins(at) if at <= env.now => {
                let told = env.site.ask(Kind::Join, 4_000);
                self.line = match why(&told) {
                    None => {
                        self.patience.answered();
                        Line::Asks(env.now)
                    }
                    Some(why) => Line::Joins(env.now + self.patience.to_join(why, env.chance())),
                };
            }
            Line::Answered(place, at) if at <= env.now => {
                env.site.leaves(place);
                env.site.ask(Kind::Policy, env.world.policy_bytes);
                self.takes_policy(env);
                self.line = Line::Asks(env.now);
            }
            _ => {}
        }
        let Line::Asks(at) = self.line else { return };
        if at > env.now {
            return;
        }
        let (kind, bodies) = match self.has_policy {
            true => (Kind::Waits, 0),
            false => (Kind::Policy, env.world.policy_bytes),
        };
        let told = env.site.ask(kind, bodies);
        if let Some(why) = why(&told) {
            let every = env.world.settings.poll_every;
            self.line = Line::Asks(env.now + self.patience.for_policy(why, every, env.chance()));
            return;
        }
        self.patience.answered();
        if !self.has_policy {
            self.has_policy = true;
            self.changes_at = env.now + env.world.until_change(env.rng);
            self.takes_policy(env);
            env.site.ask(Kind::Facts, env.world.facts_bytes);
            env.site.ask(Kind::Waits, 0);
        }
        self.line = Line::Waits(env.site.waits());
    }

    /// Another policy holds.
    fn takes_policy(&mut self, env: &mut Env<'_>) {
        let set = &env.world.settings;
        let settings = Settings {
            scan_every: set.scan_every,
            reevaluate_every: set.reevaluate_every,
            time_to_live: set.catalogue_ttl,
        };
        let points = vec!["https://site".to_owned()];
        self.agenda.policy(env.now, settings, points, &mut || env.rng.random());
        if env.world.patch.is_some() {
            self.deploy.get_or_insert_default();
        }
    }

    fn scan(&mut self, scan: Scans, env: &mut Env<'_>) {
        if scan.steps.contains(&Step::Refresh) {
            // Where the update point is, the policy says, which is asked for first; while the site is away the last one
            // holds.
            env.site.ask(Kind::Policy, 0);
            let is_new = self.catalogue < env.world.catalogue;
            let manifest = if is_new { env.world.manifest_bytes } else { 0 };
            let class = match env.site.ask(Kind::Catalogue, manifest) {
                Told::Answered => None,
                Told::Busy(_) => Some(Class::Busy),
                Told::Away => Some(Class::Unreachable),
            };
            if let Some(class) = class {
                self.agenda.failed(env.now, Failure { class, why: class.in_words().into() });
                Deploy::scan_failed(self, &scan.answers, env);
                if env.site.listens() {
                    self.books.failed();
                }
                return self.pace.waits(env.now, env.world.settings.report_every);
            }
            if is_new {
                let (shards, bytes) = env.world.shards(self.catalogue);
                for _ in 0..shards {
                    env.site.ask(Kind::Shard, bytes / shards);
                }
                self.catalogue = env.world.catalogue;
            }
        }
        let is_urgent = scan
            .answers
            .iter()
            .any(|trigger| matches!(trigger, Trigger::AfterInstall | Trigger::AfterRestart));
        self.agenda.succeeded(env.now);
        if env.site.listens() {
            let changes = match (&self.deploy, scan.answers.first()) {
                (Some(_), _) => 0,
                (None, Some(Trigger::Reevaluation)) => 0,
                (None, _) => env.rng.random_range(0..6),
            };
            let deployed = Deploy::finds(self, env);
            let n = env.n;
            self.books.record(n, changes, deployed, env);
        }
        Deploy::scanned(self, &scan.answers, env);
        let set = &env.world.settings;
        match is_urgent {
            true => {
                let chance = env.rng.random();
                self.pace.waits_after_install(env.now, set.report_after_install, chance);
            }
            false => self.pace.waits(env.now, set.report_every),
        }
    }

    fn report(&mut self, env: &mut Env<'_>) {
        let chance = env.chance();
        if !env.site.listens() || !self.books.owes() {
            return self.pace.sent(env.now, false, chance);
        }
        let batch = env.world.is_taken(env.n).then(|| {
            let batch = self.books.message(env.n, env.world, env.now);
            (batch.states.len(), batch.encode().expect("it is within the limits"))
        });
        let bytes = batch.as_ref().map(|(_, bytes)| bytes.len() as u64 + 60);
        match env.site.ask(Kind::States, bytes.unwrap_or_else(|| env.site.usual_report())) {
            Told::Answered => {
                if let Some((states, bytes)) = batch {
                    env.site.report(env.n, bytes, states);
                }
                self.books.told();
                self.pace.sent(env.now, false, chance);
            }
            Told::Busy(after) => self.pace.failed(env.now, Some(after), chance),
            Told::Away => self.pace.failed(env.now, None, chance),
        }
    }
}

/// Why a question was not answered, if it was not.
pub fn why(told: &Told) -> Option<Why> {
    match told {
        Told::Answered => None,
        Told::Busy(after) => Some(Why::Away(Some(*after))),
        Told::Away => Some(Why::Away(None)),
    }
}
