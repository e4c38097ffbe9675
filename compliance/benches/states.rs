//! How fast are state messages taken in, and how fast is compliance summed up? What does it take in memory?
//!
//! Input: `CLIENTS` (100,000) clients with a state of each of `UPDATES` (100) updates, in a database on
//! disk; then `UPSERTS` (1,000,000) states in commits of 1,000, 20 clients' batches of 50 states each,
//! encoded beforehand, as a client would. The fleet part: 1,000,000 clients and 2,000 updates. One load in
//! one run instead of many samples: what is measured is a database that grows. Prints `name<TAB>value` lines;
//! `benches/states/run.py` puts peers' figures beside them. Arguments choose parts: `load`, `fleet`.
#![allow(missing_docs, clippy::unwrap_used)]

use compliance::digest::StateDigest;
use compliance::fleet::{Enrolment, Fingerprint, Standing};
use compliance::message::{
    Answer, Batch, ClientId, Incarnation, Kind, State, StateMessage, UpdateRevision,
};
use compliance::{Compliance, Settings};
use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use rand::{RngExt as _, SeedableRng as _};
use roaring::RoaringBitmap;
use sitedb::{Change, CommitError, DbError, Entry, Kv, Order, Range, Seq, Snapshot};
use std::hint::black_box;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::name::UpdateId;
use uuid::Uuid;

const STATES: [State; 3] = [State::Required, State::NotRequired, State::Installed];
/// Of each hundred machines, on so many a state is found.
const SHARES: [u32; 3] = [10, 25, 65];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|it| it == part);
    if is_chosen("load") {
        load();
    }
    if is_chosen("fleet") {
        fleet();
    }
}

/// Clients that keep books of themselves.
struct Fleet {
    updates: Vec<UpdateRevision>,
    states: Vec<Vec<State>>,
    digests: Vec<StateDigest>,
    next: Vec<u64>,
    random: SmallRng,
}

fn id(n: usize) -> (ClientId, Fingerprint) {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(n as u64).to_le_bytes());
    (ClientId(Uuid::from_u128(n as u128 + 1)), Fingerprint(key))
}

impl Fleet {
    fn new(clients: usize, updates: usize) -> Self {
        let updates = (0..updates).map(|n| {
            let id = UpdateId::named(&["bench", &n.to_string()]);
            UpdateRevision { id, revision: 1 }
        });
        Self {
            updates: updates.collect(),
            states: vec![Vec::new(); clients],
            digests: vec![StateDigest::default(); clients],
            next: vec![0; clients],
            random: SmallRng::seed_from_u64(11),
        }
    }

    fn state(&mut self) -> State {
        let of_hundred = self.random.random_range(0..100);
        let place = SHARES.iter().scan(0, |sum, share| {
            *sum += share;
            Some(*sum)
        });
        STATES[place.take_while(|sum| *sum <= of_hundred).count().min(2)]
    }

    /// A batch in which `client` tells new states of these updates, with its key.
    fn batch(&mut self, client: usize, which: &[usize], kind: Kind) -> (Fingerprint, Vec<u8>) {
        (id(client).1, self.told(client, which, kind).encode().unwrap())
    }

    fn told(&mut self, client: usize, which: &[usize], kind: Kind) -> Batch {
        let (client_id, _) = id(client);
        let mut states = Vec::with_capacity(which.len());
        for &n in which {
            let update = self.updates[n];
            let state = self.state();
            self.states[client].resize(self.updates.len(), State::Unknown);
            let old = std::mem::replace(&mut self.states[client][n], state);
            self.digests[client].change((update, old), (update, state));
            states.push(StateMessage { update, state, age: self.random.random_range(0..900) });
        }
        let first = self.next[client];
        self.next[client] = first + which.len() as u64;
        Batch {
            client: client_id,
            incarnation: Incarnation(NonZeroU64::MIN),
            first,
            next: self.next[client],
            kind,
            sent: 1_800_000_000,
            scan: None,
            waiting: 0,
            digest: self.digests[client],
            states,
        }
    }
}

type Group = Vec<(Fingerprint, Vec<u8>)>;

fn open(folder: &std::path::Path) -> Compliance {
    let db = sitedb::Db::open_folder(folder).unwrap();
    Compliance::open(db, Settings::default()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn enrol(site: &Compliance, clients: usize) {
    for from in (0..clients).step_by(10_000) {
        let new = (from..clients.min(from + 10_000)).map(|n| {
            let (id, key) = id(n);
            Enrolment { id, key, name: format!("client-{n}"), standing: Standing::Approved }
        });
        let enrolled = site.enrol_all(new.collect(), now()).unwrap();
        assert!(enrolled.iter().all(Result::is_ok));
    }
}

fn take(site: &Compliance, group: Group) {
    for answer in site.accept_all(group, now()) {
        let answer = answer.unwrap();
        assert!(matches!(answer, Answer::Accepted { resync: None, .. }), "{answer:?}");
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |it| it.parse().unwrap())
}

fn say(name: &str, value: f64) {
    println!("{name}\t{value:.3}");
}

fn rate(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

fn median(mut run: impl FnMut()) -> f64 {
    percentile(50, &mut run)
}

fn percentile(which: usize, run: &mut impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[(times.len() * which).div_ceil(100) - 1]
}

/// Memory that the process holds, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn load() {
    let (clients, updates) = (number("CLIENTS", 100_000), number("UPDATES", 100));
    let upserts = number("UPSERTS", 1_000_000);
    let folder = tempfile::tempdir_in(std::env::var("WORK").unwrap_or(".".into())).unwrap();
    let site = open(folder.path());
    let mut fleet = Fleet::new(clients, updates);
    enrol(&site, clients);
    let all: Vec<_> = (0..updates).collect();
    let mut took = Duration::ZERO;
    for from in (0..clients).step_by(20) {
        let batches = (from..clients.min(from + 20)).map(|n| fleet.batch(n, &all, Kind::Full));
        let group = batches.collect();
        let start = Instant::now();
        take(&site, group);
        took += start.elapsed();
        if from % 10_000 == 0 {
            let start = Instant::now();
            site.checkpoint_if_due(now()).unwrap();
            took += start.elapsed();
        }
    }
    say("load rows/s", rate(clients * updates, took));
    site.checkpoint().unwrap();

    let one = groups(&mut fleet, upserts, 0..clients);
    let start = Instant::now();
    one.into_iter().for_each(|group| take(&site, group));
    say("upsert by 1000, one connection, rows/s", rate(upserts, start.elapsed()));

    for connections in [2, 4] {
        // Clients of their own, so that each one's batches come in order.
        let share = clients / connections;
        let shares = (0..connections).map(|n| n * share..(n + 1) * share);
        let shares: Vec<_> =
            shares.map(|it| groups(&mut fleet, upserts / connections, it)).collect();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for share in shares {
                scope.spawn(|| share.into_iter().for_each(|group| take(&site, group)));
            }
        });
        let name = format!("upsert by 1000, {connections} connections, rows/s");
        say(&name, rate(upserts, start.elapsed()));
    }
    let start = Instant::now();
    site.checkpoint().unwrap();
    say("checkpoint ms", start.elapsed().as_secs_f64() * 1e3);

    say("summary of all ms", median(|| drop(black_box(site.summary_of_all(None)))));
    let update = [fleet.updates[updates / 2].id];
    say("one update ms", median(|| drop(black_box(site.summary(&update, None)))));
    say("one client ms", median(|| drop(black_box(site.states_of(777)))));
    drop(site);
    let start = Instant::now();
    drop(open(folder.path()));
    say("open ms", start.elapsed().as_secs_f64() * 1e3);
}

/// Commits of twenty clients each, of fifty states each.
fn groups(fleet: &mut Fleet, n: usize, clients: std::ops::Range<usize>) -> Vec<Group> {
    let updates = fleet.updates.len();
    let group = |_| {
        let some = sample(&mut fleet.random, clients.len(), 20).into_iter();
        let batch = |client| {
            let which = sample(&mut fleet.random, updates, 50.min(updates)).into_vec();
            fleet.batch(clients.start + client, &which, Kind::Changes)
        };
        some.map(batch).collect()
    };
    (0..n / 1_000).map(group).collect()
}

/// A store that keeps nothing: what is asked here is what the states take in memory, and writing them would
/// be most of the run.
struct Nowhere;

impl Kv for Nowhere {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        Ok(None)
    }
    fn scan(&self, _: &Range, _: Order, _: usize) -> Result<Vec<Entry>, DbError> {
        Ok(Vec::new())
    }
    fn write(&self, _: sitedb::Batch) -> Result<Seq, CommitError> {
        Ok(1)
    }
    fn changes(&self, _: Seq, _: usize) -> Result<Vec<Change>, DbError> {
        Ok(Vec::new())
    }
    fn last_seq(&self) -> Seq {
        1
    }
    fn forget_changes(&self, _: Seq) -> Result<(), DbError> {
        Ok(())
    }
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        Err(DbError::Store { doing: "read", detail: "it keeps nothing".into() })
    }
}

fn fleet() {
    /// As many sets of states are drawn, and each client has one of them; so no two updates are alike, and
    /// no bitmap has runs.
    const SETS: usize = 64;
    let (clients, updates) = (number("FLEET", 1_000_000), number("FLEET_UPDATES", 2_000));
    let db = sitedb::Db::open(Arc::new(Nowhere)).unwrap();
    let site = Compliance::open(db, Settings::default()).unwrap();
    enrol(&site, clients);
    say("fleet: RSS MiB before any state", resident());
    let mut fleet = Fleet::new(SETS, updates);
    let all: Vec<_> = (0..updates).collect();
    let sets: Vec<_> = (0..SETS).map(|set| fleet.told(set, &all, Kind::Full)).collect();
    let start = Instant::now();
    for from in (0..clients).step_by(50) {
        let batches = (from..clients.min(from + 50)).map(|n| {
            let (client, key) = id(n);
            let set = &sets[fleet.random.random_range(0..SETS)];
            (key, Batch { client, ..set.clone() }.encode().unwrap())
        });
        take(&site, batches.collect());
        if from % 100_000 == 0 {
            site.checkpoint().unwrap();
        }
    }
    say("fleet: load rows/s, with making the batches", rate(clients * updates, start.elapsed()));
    let start = Instant::now();
    site.checkpoint().unwrap();
    say("fleet: checkpoint without the disk ms", start.elapsed().as_secs_f64() * 1e3);
    say("fleet: RSS MiB", resident());

    let some: RoaringBitmap =
        sample(&mut fleet.random, clients, clients / 10).into_iter().map(|n| n as u32).collect();
    let ids: Vec<_> = fleet.updates.iter().take(500).map(|it| it.id).collect();
    let mut run = || drop(black_box(site.summary(&ids, Some(&some))));
    say("fleet: 500 updates for a tenth of the clients, median ms", percentile(50, &mut run));
    say("fleet: 500 updates for a tenth of the clients, p99 ms", percentile(99, &mut run));
    say("fleet: summary of all ms", median(|| drop(black_box(site.summary_of_all(None)))));
}
