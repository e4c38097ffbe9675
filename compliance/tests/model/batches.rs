//! Whatever happens on the way, the site's matrix is in the end what is true on every client, bit for bit:
//! batches are dropped, sent twice, mixed up and damaged; the site loses power at any write; clocks are
//! hours off; machines are set up anew, blocked, removed, away for a month. Thousands of seeded histories.

use crate::client::{Client, Sent, update};
use compliance::fleet::{Enrolment, Standing};
use compliance::message::{Answer, State};
use compliance::summary::Counts;
use compliance::{Compliance, Settings};
use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use sitedb::{Db, FaultyKv, Kv};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::name::UpdateId;

const HISTORIES: u64 = 3_000;
const STEPS: usize = 60;
const UPDATES: u32 = 6;

struct World {
    random: SmallRng,
    kv: Arc<FaultyKv>,
    site: Compliance,
    clients: Vec<Client>,
    network: Vec<Sent>,
    now: i64,
    lives: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let kv = Arc::new(FaultyKv::default());
        let site = open(&kv);
        let random = SmallRng::seed_from_u64(seed);
        let mut world = Self {
            random,
            kv,
            site,
            clients: Vec::new(),
            network: Vec::new(),
            now: 1_800_000_000,
            lives: 0,
        };
        for n in 0..world.random.random_range(1..4) {
            world.lives += 1;
            let mut client = Client::new(n + 1, world.lives);
            client.clock_off = world.random.random_range(-8..8) * 3_600;
            world.clients.push(client);
            world.enrol(usize::from(n));
        }
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    fn enrol(&self, n: usize) {
        let Client { id, key, .. } = self.clients[n];
        let standing = Standing::Approved;
        let _ = self.site.enrol(Enrolment { id, key, name: "x".into(), standing }, self.now());
    }

    fn step(&mut self) {
        self.now += self.random.random_range(0..600);
        let n = self.random.random_range(0..self.clients.len());
        match self.random.random_range(0..100) {
            0..25 => {
                let id = update(self.random.random_range(0..UPDATES));
                let state = [State::Unknown, State::NotRequired, State::Required, State::Installed];
                let state = state[self.random.random_range(0..4)];
                self.clients[n].change(id, self.random.random_range(1..3), state);
            }
            25..28 => self.clients[n].scanned(),
            28..50 => self.send(n),
            50..80 => self.deliver(),
            80..85 => {
                let _ = self.site.checkpoint();
            }
            85..90 => self.power_cut(),
            90..92 => {
                let (writes, applies) = (self.random.random_range(0..6), self.random.random());
                self.kv.fail_after(writes, applies);
            }
            92..94 => self.kv.heal(),
            94..95 => {
                self.lives += 1;
                self.clients[n].reimage(self.lives);
            }
            95..96 => {
                if let Some(client) = self.site.find(self.clients[n].id) {
                    let standing = [Standing::Approved, Standing::Blocked];
                    let standing = standing[self.random.random_range(0..2)];
                    let _ = self.site.set_standing(client, standing, self.now());
                }
            }
            96..97 => {
                if let Some(client) = self.site.find(self.clients[n].id) {
                    let _ = self.site.remove(client, self.now());
                }
            }
            97..98 => self.enrol(n),
            98..99 => self.now += 30 * 86_400,
            _ => self.now -= 5 * 3_600,
        }
    }

    fn send(&mut self, n: usize) {
        let mut bytes = self.clients[n].batch(self.now).encode().unwrap();
        if self.random.random_bool(0.1) {
            let at = self.random.random_range(0..bytes.len());
            bytes[at] ^= self.random.random_range(1..=255_u8);
        }
        let Client { incarnation, key, .. } = self.clients[n];
        self.network.push(Sent { client: n, incarnation, key, bytes });
    }

    /// Some of what is under way arrives, in any order, some twice, some never.
    fn deliver(&mut self) {
        let mut group = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            if self.network.is_empty() {
                break;
            }
            let at = self.random.random_range(0..self.network.len());
            let sent = self.network.swap_remove(at);
            match self.random.random_range(0..10) {
                0 => {}
                1 => {
                    self.network.push(sent.clone());
                    group.push(sent);
                }
                _ => group.push(sent),
            }
        }
        let batches = group.iter().map(|sent| (sent.key, sent.bytes.clone())).collect();
        let answers = self.site.accept_all(batches, self.now());
        for (sent, answer) in group.iter().zip(answers) {
            let is_heard = self.random.random_bool(0.9);
            if let (Ok(answer), true) = (answer, is_heard) {
                self.answer(sent, &answer);
            }
        }
    }

    fn answer(&mut self, sent: &Sent, answer: &Answer) {
        let client = &mut self.clients[sent.client];
        if client.incarnation != sent.incarnation {
            return;
        }
        if let Answer::Gap { expected, resync: None } = answer {
            assert!(*expected >= client.acked, "what was acknowledged is lost");
        }
        client.hear(answer);
    }

    fn power_cut(&mut self) {
        let lost = self.random.random_range(0..8);
        self.kv = Arc::new(self.kv.after_power_cut(lost));
        self.site = open(&self.kv);
    }

    /// All reach the site again, and report until they are told nothing more is wanted.
    fn calm(&mut self) {
        self.kv.heal();
        for n in 0..self.clients.len() {
            if let Some(client) = self.site.find(self.clients[n].id) {
                self.site.set_standing(client, Standing::Approved, self.now()).unwrap();
            }
            self.enrol(n);
            self.clients[n].scanned();
            let mut rounds = 0;
            while self.clients[n].has_news() {
                let bytes = self.clients[n].batch(self.now).encode().unwrap();
                let Client { incarnation, key, .. } = self.clients[n];
                let answer = self.site.accept(&key, bytes.clone(), self.now()).unwrap();
                self.answer(&Sent { client: n, incarnation, key, bytes }, &answer);
                rounds += 1;
                assert!(rounds < 5, "{answer:?}");
            }
        }
    }

    fn is_true(&self) {
        let mut counts: BTreeMap<UpdateId, Counts> = BTreeMap::new();
        let all = (0..UPDATES).map(update);
        for id in all.clone() {
            counts.entry(id).or_default().unknown = self.clients.len() as u64;
        }
        for client in &self.clients {
            let ordinal = self.site.find(client.id).unwrap();
            let held = self.site.states_of(ordinal).into_iter();
            let held: BTreeMap<_, _> =
                held.map(|(it, state)| (it.id, (it.revision, state))).collect();
            assert_eq!(held, client.truth);
            let shown = self.site.client(ordinal).unwrap().unwrap();
            assert_eq!((shown.known as usize, shown.resync), (client.truth.len(), None));
            for (id, (_, state)) in &client.truth {
                let counts = counts.get_mut(id).unwrap();
                counts.unknown -= 1;
                match state {
                    State::Required => counts.required += 1,
                    State::Installed => counts.installed += 1,
                    _ => counts.not_required += 1,
                }
            }
        }
        let all: Vec<_> = all.collect();
        let told: Vec<_> = all.iter().map(|id| counts[id]).collect();
        assert_eq!(self.site.summary(&all, None), told);
        assert_eq!(self.site.summary(&all, Some(&self.site.fleet())), told);
    }
}

fn open(kv: &Arc<FaultyKv>) -> Compliance {
    let kv: Arc<dyn Kv> = Arc::clone(kv) as _;
    // Each bitmap is written alone, so that power may be lost between any two.
    let settings = Settings { checkpoint_step: 1, ..Settings::default() };
    Compliance::open(Db::open(kv).unwrap(), settings).unwrap()
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm();
    world.is_true();
    world.site = open(&world.kv);
    world.is_true();
    world.site.checkpoint().unwrap();
    world.is_true();
    world.kv = Arc::new(world.kv.after_power_cut(99));
    world.site = open(&world.kv);
    world.is_true();
}

#[test]
fn the_matrix_becomes_what_is_true_whatever_happened() {
    for seed in 0..HISTORIES {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "history {seed}");
    }
}
