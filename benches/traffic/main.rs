//! How much reaches a site of a million clients, and what does taking in their reports cost?
//!
//! A simulation in virtual time, by the code that decides in an agent: when it scans (`scan::agenda`), reports
//! (`ledger::pace`), asks for its policy (`patience`) and carries out a deployment (`enforce`). What is drawn here is what
//! machines find; what takes time (files, installations) takes what is assumed here; the network takes none. Reports are
//! encoded as an agent does, and taken in by `compliance` into a RocksDB on the disk; digests of both sides must agree.
//!
//! `cargo bench --bench traffic -- [fleet] [patch] [tables] [--clients 1000000] [--sample 20000] [--updates 200]`
//! `[--limit REQUESTS] [--one-in 1] [--seed 1]`, the first three being parts. With `--one-in 10` the reports of a tenth of the machines are
//! taken in, and those of the others counted. A patch day simulates a sample, of which each machine stands for several, as
//! carrying out a deployment on one machine takes milliseconds of a processor. `tables` prints the tables of
//! `docs/sizing.md`. Everything but CPU seconds follows from the seed. The database is below $WORK, or the system's folder for
//! temporary files, and deleted.
#![allow(missing_docs, clippy::unwrap_used)]

mod deploy;
mod machine;
mod meter;
mod model;
mod site;

use client::clock::Moment;
use client::enforce::found::Needed;
use client::patience::ANSWERS_A_SECOND;
use client::policy::{Place, Policy};
use client::settings::Settings;
use compliance::digest::StateDigest;
use compliance::message::{State, UpdateRevision};
use deployment::policy::{
    DeployedFile, DeployedItem, DeployedUpdate, DeployedUpdates, DeploymentId, DeploymentPolicy,
    Experience, When,
};
use jiff::SignedDuration;
use machine::{Books, Env, Line, Machine};
use meter::{Meter, process_cpu, resident, thread_cpu, whole};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use site::{Ingest, Site, wall};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use sync::name::UpdateId;
use sync::update::Handler;
use uuid::Uuid;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// As many sets of states there are; each machine has one of them, and its own changes.
const SETS: usize = 64;
/// Updates of a patch day; a machine needs half of them.
const PATCHES: u32 = 20;
/// Bytes of all of them; a machine brings half.
const PATCH_BYTES: u64 = 400_000_000;
/// How long an agent sleeps at least between two looks at what is due.
const SLEEP: Duration = Duration::from_millis(250);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|it| it == name);
        at.map_or(default, |at| args[at + 1].parse().unwrap())
    };
    let parts: Vec<_> = ["fleet", "patch", "tables"]
        .into_iter()
        .filter(|it| args.contains(&(*it).to_owned()))
        .collect();
    let is_chosen = |part: &str| parts.is_empty() || parts.contains(&part);
    let clients = number("--clients", 1_000_000) as u32;
    let sample = (number("--sample", 20_000) as u32).min(clients);
    let (seed, updates) = (number("--seed", 1), number("--updates", 200) as usize);
    if is_chosen("fleet") {
        let mut sim = Sim::new(clients, clients, updates, seed);
        sim.world.one_in = number("--one-in", 1) as u32;
        sim.enrol();
        sim.ordinary();
        // A third more than what waits, at least.
        let limit = number("--limit", u64::from(clients) * 3 / 100) as u32;
        sim.outage(limit);
    }
    if is_chosen("patch") {
        for spread in [2 * HOUR, 0] {
            Sim::new(clients, sample, updates, seed).patch(Duration::from_secs(spread));
        }
    }
    if is_chosen("tables") {
        model::tables();
    }
}

/// What is true of all machines.
pub struct World {
    /// How many the simulated ones stand for.
    clients: u32,
    /// Of so many machines the reports of one are taken in; those of the others are counted.
    one_in: u32,
    pub settings: Settings,
    pub updates: Vec<UpdateRevision>,
    pub sets: Vec<(Vec<State>, StateDigest)>,
    pub deployed: Vec<UpdateRevision>,
    pub patch: Option<Patch>,
    /// Which catalogue the site has.
    pub catalogue: u32,
    pub policy_bytes: u64,
    /// Of the first facts: 779 packages (`RESULTS.md`, "A scan of a Debian machine") at some 70 bytes.
    pub facts_bytes: u64,
    /// `RESULTS.md`, "The agent": shards.
    pub manifest_bytes: u64,
    /// What a machine brings files at.
    pub bytes_a_second: f64,
}

/// What is deployed.
pub struct Patch {
    pub deployment: DeploymentPolicy,
    pub needed: Vec<Needed>,
    pub document_bytes: u64,
    /// The first catalogue that has its updates.
    pub catalogue: u32,
}

impl World {
    fn new(clients: u32, updates: usize, rng: &mut SmallRng) -> Self {
        let name = |kind: &str, n: usize| UpdateRevision {
            id: UpdateId::named(&["traffic", kind, &n.to_string()]),
            revision: 1,
        };
        let updates: Vec<_> = (0..updates).map(|n| name("update", n)).collect();
        let sets = (0..SETS).map(|_| {
            let states = updates.iter().map(|_| match rng.random_range(0..100) {
                0..10 => State::Required,
                10..35 => State::NotRequired,
                _ => State::Installed,
            });
            let states: Vec<_> = states.collect();
            let digest = StateDigest::of(updates.iter().copied().zip(states.iter().copied()));
            (states, digest)
        });
        let sets = sets.collect();
        let mut deployed: Vec<_> = (0..PATCHES as usize).map(|n| name("patch", n)).collect();
        deployed.sort_by_key(|it| it.id);
        let mut world = Self {
            clients,
            one_in: 1,
            settings: Settings::default(),
            updates,
            sets,
            deployed,
            patch: None,
            catalogue: 1,
            policy_bytes: 0,
            facts_bytes: 779 * 70,
            manifest_bytes: 43_484,
            bytes_a_second: 2_500_000.0,
        };
        world.policy_bytes = world.policy();
        world
    }

    /// Bytes of a client's policy: two points, and what is deployed.
    fn policy(&self) -> u64 {
        let place = |name: &str| Place {
            name: name.into(),
            url: format!("https://{name}.example:8520"),
            after: 0,
        };
        let policy = Policy {
            revision: String::new(),
            client: site::id(1).0,
            updates_enabled: true,
            update_points: vec![place("site")],
            distribution_points: vec![place("branch-17"), place("site")],
            settings: self.settings.clone(),
            deployments: self.patch.iter().map(|it| it.deployment.clone()).collect(),
            windows: Vec::new(),
            fallback: vec!["https://site.example:8520".into()],
            synced: Some(wall(Moment::default())),
        };
        policy.revised().text().len() as u64 + 160
    }

    /// Has the updates published and deployed to everybody.
    fn deploys(&mut self, now: Moment, deadline: Duration, spread: Duration) {
        let file = |at: u64| DeployedFile {
            name: format!("package-{at}_1.2.3-{at}_amd64.deb"),
            size: PATCH_BYTES * (at + 1) * 2 / u64::from(PATCHES * (PATCHES + 1)),
            digest: Some(blake3::hash(&at.to_le_bytes()).to_hex().to_string()),
            ..DeployedFile::default()
        };
        let items = |at: usize| {
            let handler = Some(Handler::Apt);
            vec![DeployedItem { handler, files: vec![file(at as u64)], ..DeployedItem::default() }]
        };
        let updates = self.deployed.iter().enumerate().map(|(at, it)| DeployedUpdate {
            id: it.id,
            revision: it.revision,
            name: format!("DSA-{}-1", 5_500 + at),
            title: "package security update".into(),
            behaviour: Default::default(),
            parts: Default::default(),
            items: items(at),
        });
        let updates = DeployedUpdates { updates: updates.collect() };
        let needed = |(at, it): (usize, &DeployedUpdate)| Needed {
            name: it.name.clone(),
            title: it.title.clone(),
            items: items(at),
            ..Needed::default()
        };
        let needed = updates.updates.iter().enumerate().map(needed).collect();
        let (document, digest) = updates.document();
        let at = |later: Duration| {
            let later = SignedDuration::try_from(later).unwrap();
            When::Utc(wall(now) + later)
        };
        self.catalogue += 1;
        self.settings.deadline_spread = spread;
        self.patch = Some(Patch {
            deployment: DeploymentPolicy {
                id: DeploymentId(Uuid::from_u128(1)),
                name: "November".into(),
                available: at(Duration::ZERO),
                deadline: Some(at(deadline)),
                experience: Experience::default(),
                updates: digest,
                updates_size: document.len() as u64,
            },
            needed,
            document_bytes: document.len() as u64,
            catalogue: self.catalogue,
        });
        self.policy_bytes = self.policy();
    }

    /// Whether the reports of a machine are taken in, and not only counted.
    pub fn is_taken(&self, n: u32) -> bool {
        n.is_multiple_of(self.one_in)
    }

    /// Whether a machine needs a deployed update: half of them do.
    pub fn needs(&self, n: u32, at: u32) -> bool {
        let mixed = (u64::from(n) << 32 | u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
    }

    /// Whether it needs a restart: one of them does.
    pub fn restarts(&self, at: u32) -> bool {
        at == 0
    }

    /// How long until somebody installs something on a machine: ten days in the mean.
    pub fn until_change(&self, rng: &mut SmallRng) -> Duration {
        let chance: f64 = rng.random();
        Duration::from_secs_f64(-(1.0 - chance).ln() * 10.0 * DAY as f64)
    }

    /// How many shards a machine brings that has that catalogue, and their bytes: all of a Debian suite, or those of
    /// twenty new updates (`RESULTS.md`, "The agent"; their number is assumed).
    pub fn shards(&self, catalogue: u32) -> (u64, u64) {
        if catalogue == 0 { (30, 106_738) } else { (22, 60_000) }
    }
}

/// The machines and their site.
struct Sim {
    world: World,
    machines: Vec<Machine>,
    site: Site,
    rng: SmallRng,
    second: u64,
    clock: Vec<Vec<(u64, u32)>>,
    _folder: tempfile::TempDir,
}

fn millis(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_millis()).unwrap_or(u64::MAX)
}

impl Sim {
    /// With so many machines, which stand for so many.
    fn new(clients: u32, machines: u32, updates: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let world = World::new(clients, updates, &mut rng);
        let folder = match std::env::var("WORK") {
            Ok(folder) => tempfile::tempdir_in(folder),
            Err(_) => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        println!("\nbefore: {:.0} MiB resident", resident());
        let site = Site::new(folder.path(), machines, seed);
        println!("with {machines} clients enrolled: {:.0} MiB resident", resident());
        let made = (0..machines).map(|n| {
            let joins = Duration::from_secs_f64(rng.random::<f64>() * DAY as f64);
            Machine::new(Moment(joins), Books::new(n, &world))
        });
        let machines = made.collect();
        Self { world, machines, site, rng, second: 0, clock: Vec::new(), _folder: folder }
    }

    fn weight(&self) -> f64 {
        f64::from(self.world.clients) / self.machines.len() as f64
    }

    fn now(&self) -> Moment {
        Moment(Duration::from_secs(self.second))
    }

    /// Begins to count.
    fn counts(&mut self, seconds: u64) {
        self.site.meter = Some(Meter::new(self.second, seconds as usize));
        self.site.ingest = Ingest::default();
    }

    /// Goes on for so many seconds.
    fn run(&mut self, seconds: u64) {
        let (from, to) = (self.second, self.second + seconds);
        self.clock.clear();
        self.clock.resize_with(seconds as usize, Vec::new);
        for n in 0..self.machines.len() {
            let machine = &mut self.machines[n];
            if let Line::Joins(at) | Line::Asks(at) | Line::Answered(_, at) = machine.line {
                machine.scheduled = machine.scheduled.min(at);
            }
            let at = millis(machine.scheduled).max(from * 1_000);
            machine.scheduled = Moment(Duration::from_millis(at));
            if at < to * 1_000 {
                self.clock[(at / 1_000 - from) as usize].push((at, n as u32));
            }
        }
        for second in from..to {
            self.second = second;
            self.site.tick(second);
            let due = std::mem::take(&mut self.clock[(second - from) as usize]);
            let mut due: BinaryHeap<_> = due.into_iter().map(Reverse).collect();
            while let Some(Reverse((at, n))) = due.pop() {
                let now = Moment(Duration::from_millis(at));
                let machine = &mut self.machines[n as usize];
                if machine.scheduled != now {
                    continue;
                }
                let (world, site, rng) = (&self.world, &mut self.site, &mut self.rng);
                let next = machine.work(&mut Env { world, site, rng, now, n });
                let next = millis(next.max(now + SLEEP));
                machine.scheduled = Moment(Duration::from_millis(next));
                if next / 1_000 == second {
                    due.push(Reverse((next, n)));
                } else if next < to * 1_000 {
                    self.clock[(next / 1_000 - from) as usize].push((next, n));
                }
            }
        }
        self.site.flush();
        self.second = to;
    }

    /// What ingestion took since it was counted.
    fn tells_ingestion(&self, name: &str, process: Duration, thread: Duration) {
        let it = self.site.ingest;
        let own = thread_cpu() - thread;
        let beside = (process_cpu() - process).saturating_sub(own);
        let million = 1e6 / (it.reports.max(1) as f64);
        println!(
            "\n{name}: {} reports of {} states ({:.0} bytes each) in {} commits; CPU s for a million reports: {:.1} taking in, \
             {:.1} in {} checkpoints, {:.1} in RocksDB's threads; {:.0} MiB resident, simulated machines included",
            whole(it.reports as f64),
            whole(it.states as f64),
            it.bytes as f64 / it.reports.max(1) as f64,
            whole(it.commits as f64),
            it.cpu.as_secs_f64() * million,
            it.checkpoint_cpu.as_secs_f64() * million,
            it.checkpoints,
            beside.as_secs_f64() * million,
            resident(),
        );
    }

    fn heading(&self, title: &str) {
        println!("\n### {title}\n");
        let (all, of) = (whole(f64::from(self.world.clients)), self.machines.len());
        println!("{all} clients, of which {} are simulated.\n", whole(of as f64));
    }

    /// A whole fleet joins within a day.
    fn enrol(&mut self) {
        let (process, thread) = (process_cpu(), thread_cpu());
        self.counts(27 * HOUR);
        self.run(27 * HOUR);
        self.heading("A fleet joins within 24 hours");
        self.site.meter.as_ref().unwrap().table(self.weight(), (0.0, 24.0));
        self.tells_ingestion("First reports", process, thread);
        let folder = self._folder.path();
        println!("\nthe site database: {:.0} MB", size(folder) as f64 / 1e6);
    }

    /// Has the machines be there for a week, having come at any time of it.
    fn settle(&mut self) {
        self.site.meter = None;
        let now = self.now();
        for machine in &mut self.machines {
            if let Line::Waits(place) | Line::Answered(place, _) = machine.line {
                self.site.leaves(place);
            }
            let joins = Duration::from_secs_f64(self.rng.random::<f64>() * 7.0 * DAY as f64);
            let books = std::mem::take(&mut machine.books);
            *machine = Machine { catalogue: 1, ..Machine::new(now + joins, books) };
        }
        self.run(8 * DAY);
    }

    fn ordinary(&mut self) {
        self.settle();
        let (process, thread) = (process_cpu(), thread_cpu());
        self.counts(DAY);
        self.run(DAY);
        self.heading("An ordinary day");
        self.site.meter.as_ref().unwrap().table(self.weight(), (0.0, 24.0));
        self.tells_ingestion("Reports of a day", process, thread);
    }

    /// The site is away for a day, and then answers so many requests a second.
    fn outage(&mut self, limit: u32) {
        let (process, thread) = (process_cpu(), thread_cpu());
        self.counts(30 * HOUR);
        self.site.is_away = true;
        let now = self.now();
        for machine in &mut self.machines {
            if let Line::Waits(place) = machine.line {
                self.site.leaves(place);
                machine.line = Line::Asks(now);
            }
        }
        self.run(DAY);
        (self.site.is_away, self.site.limit) = (false, Some(limit));
        self.heading("The hours after a day's outage");
        println!("The site answers {limit} requests a second, and has the others come later.\n");
        let owes = |machine: &Machine| machine.pace.due().is_some();
        let mut owing: Vec<u32> = (0..self.machines.len() as u32).collect();
        owing.retain(|n| owes(&self.machines[*n as usize]));
        let (all, owed) = (self.machines.len(), owing.len());
        let mut quantiles =
            [(0.5, "half"), (0.9, "90 %"), (0.99, "99 %"), (1.0, "all")].map(|it| (it, None, None));
        for minute in 1..=300_u64 {
            self.run(60);
            owing.retain(|n| owes(&self.machines[*n as usize]));
            let heard = self.machines.iter().filter(|it| it.is_heard()).count();
            for ((part, _), of_policy, of_reports) in &mut quantiles {
                // A few are being restarted or ask at this very moment: those that were there before do so too.
                if heard as f64 >= all as f64 * *part {
                    of_policy.get_or_insert(minute);
                }
                if (owed - owing.len()) as f64 >= owed as f64 * *part {
                    of_reports.get_or_insert(minute);
                }
            }
            if quantiles.iter().all(|(_, one, other)| one.is_some() && other.is_some()) {
                break;
            }
        }
        println!(
            "| of the clients | have their question wait again, after | of {} with reports that waited, told them after |",
            whole(owed as f64)
        );
        println!("|---|---:|---:|");
        let minutes =
            |it: Option<u64>| it.map_or("more than 300 min".into(), |it| format!("{it} min"));
        for ((_, name), one, other) in quantiles {
            println!("| {name} | {} | {} |", minutes(one), minutes(other));
        }
        let meter = self.site.meter.as_ref().unwrap();
        println!("\nThe first hour:\n");
        meter.table(self.weight(), (24.0, 25.0));
        println!(
            "\nBusiest second over the mean of the first hour: {:.2}",
            meter.peak_to_mean((24.0, 25.0))
        );
        println!(
            "Over that of the first minute: {:.2}",
            meter.peak_to_mean((24.0, 24.0 + 1.0 / 60.0))
        );
        println!("Waiting questions at the end: {}", whole(f64::from(self.site.n_waiting())));
        self.tells_ingestion("Reports after the outage", process, thread);
        self.site.limit = None;
    }

    /// Twenty updates are deployed to everybody at nine, to be installed at seven in the evening.
    fn patch(&mut self, spread: Duration) {
        // They told all they are before.
        self.counts(27 * HOUR);
        self.run(27 * HOUR);
        self.settle();
        let (process, thread) = (process_cpu(), thread_cpu());
        self.counts(34 * HOUR);
        let now = self.now();
        self.world.deploys(now, Duration::from_secs(10 * HOUR), spread);
        // As the site wakes those who wait, over so long.
        let over = f64::from(self.world.clients) / ANSWERS_A_SECOND;
        for machine in &mut self.machines {
            if let Line::Waits(place) = machine.line {
                let at = now + Duration::from_secs_f64(over * self.rng.random::<f64>());
                machine.line = Line::Answered(place, at);
            }
        }
        self.run(34 * HOUR);
        let hours = spread.as_secs() / HOUR;
        self.heading(&format!("A patch day, its deadline spread over {hours} h"));
        let installed = self
            .machines
            .iter()
            .filter(|it| {
                it.deploy.as_ref().is_some_and(|it| it.pace.due().is_none() && it.installed != 0)
            })
            .count();
        println!(
            "{installed} of {} machines have installed all that they need, and told it.\n",
            self.machines.len()
        );
        let meter = self.site.meter.as_ref().unwrap();
        for (title, hours) in [
            ("The first hour, from the deployment on", (0.0, 1.0)),
            ("The hours until the deadline", (1.0, 10.0)),
            ("The three hours from the deadline on", (10.0, 13.0)),
        ] {
            println!("\n{title}:\n");
            meter.table(self.weight(), hours);
        }
        self.tells_ingestion("Reports of a patch day", process, thread);
    }
}

/// Bytes of all files in a folder.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => size(&entry.path()),
            Ok(it) => it.len(),
            Err(_) => 0,
        })
        .sum()
}
