//! A parent's view becomes that of its children, whatever is lost on the way: pages are dropped, come twice
//! and too late, both sides lose power, clients move from site to site. Seeded histories.

use crate::client::{Client, update};
use compliance::fleet::{Enrolment, FactsChange, Package, PackageKind, PackagesChange, Standing};
use compliance::forward::PageAnswer;
use compliance::message::State;
use compliance::{Compliance, Settings};
use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use sitedb::{Db, FaultyKv, Kv};
use std::collections::BTreeMap;
use std::sync::Arc;

const HISTORIES: u64 = 500;
const STEPS: usize = 80;
const UPDATES: u32 = 5;
const NAMES: [&str; 3] = ["top", "north", "south"];

struct Site {
    kv: Arc<FaultyKv>,
    is: Compliance,
}

impl Site {
    fn open(kv: FaultyKv) -> Self {
        let kv = Arc::new(kv);
        let below: Arc<dyn Kv> = Arc::clone(&kv) as _;
        let is = Compliance::open(Db::open(below).unwrap(), Settings::default()).unwrap();
        Self { kv, is }
    }
}

struct World {
    random: SmallRng,
    /// The parent, and two children.
    sites: [Site; 3],
    /// The clients, and the site that each reports to.
    clients: Vec<(Client, usize)>,
    /// Pages under way.
    pages: Vec<(usize, Vec<u8>)>,
    /// Which facts each client told last.
    facts: BTreeMap<usize, u64>,
    told: u64,
    now: i64,
}

/// All facts of a client, another one each time.
fn facts(n: usize, told: u64) -> FactsChange {
    let package = |version: u64| Package { version: version.to_string(), arch: "amd64".into() };
    let changed =
        [(format!("own-{n}"), vec![package(told)]), ("common".into(), vec![package(told % 3)])];
    let (kind, removed) = (PackageKind::Deb, Default::default());
    FactsChange {
        revision: told + 1,
        os: Some(format!("os{}", told % 5)),
        packages: Some(PackagesChange { kind, changed: changed.into(), removed }),
        ..FactsChange::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let sites = [(); 3].map(|()| Site::open(FaultyKv::default()));
        let random = SmallRng::seed_from_u64(seed);
        let (clients, pages, facts) = (Vec::new(), Vec::new(), BTreeMap::new());
        let now = 1_800_000_000;
        let mut world = Self { random, sites, clients, pages, facts, told: 0, now };
        for n in 0..5 {
            let site = world.random.random_range(0..3);
            world.clients.push((Client::new(n, u64::from(n) + 1), site));
        }
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    /// A client reports to its site until that knows all.
    fn report(&mut self, n: usize) {
        let now = self.now();
        let (client, site) = &mut self.clients[n];
        let site = &self.sites[*site].is;
        let (id, key, standing) = (client.id, client.key, Standing::Approved);
        site.enrol(Enrolment { id, key, name: format!("host-{n}"), standing }, now).unwrap();
        let ordinal = site.find(id).unwrap();
        site.change_facts(ordinal, facts(n, self.told), now).unwrap();
        self.facts.insert(n, self.told);
        self.told += 1;
        client.scanned();
        while client.has_news() {
            let bytes = client.batch(self.now).encode().unwrap();
            let answer = site.accept(&key, bytes, now).unwrap();
            client.hear(&answer);
        }
    }

    fn step(&mut self) {
        self.now += self.random.random_range(1..600);
        let n = self.random.random_range(0..self.clients.len());
        let child = self.random.random_range(1..3);
        let place = self.sites[0].is.place_of(NAMES[child]);
        match self.random.random_range(0..100) {
            0..30 => {
                let id = update(self.random.random_range(0..UPDATES));
                let state = [State::Unknown, State::NotRequired, State::Required, State::Installed];
                let state = state[self.random.random_range(0..4)];
                self.clients[n].0.change(id, self.random.random_range(1..3), state);
                self.report(n);
            }
            30..35 => {
                self.clients[n].1 = self.random.random_range(0..3);
                self.report(n);
            }
            35..55 => {
                let page = self.sites[child].is.page(place).unwrap();
                self.pages.push((child, page.encode().unwrap()));
            }
            55..85 if !self.pages.is_empty() => {
                let at = self.random.random_range(0..self.pages.len());
                let (child, bytes) = self.pages.swap_remove(at);
                if self.random.random_bool(0.2) {
                    self.pages.push((child, bytes.clone()));
                }
                if self.random.random_bool(0.8) {
                    self.sites[0].is.accept_page(NAMES[child], bytes, self.now()).unwrap();
                }
            }
            85..90 => {
                let site = self.random.random_range(0..3);
                self.sites[site].is.checkpoint().unwrap();
            }
            90..96 => {
                let (site, lost) = (self.random.random_range(0..3), self.random.random_range(0..4));
                self.sites[site] = Site::open(self.sites[site].kv.after_power_cut(lost));
            }
            96..98 => {
                let site = &self.sites[self.clients[n].1].is;
                if let Some(client) = site.find(self.clients[n].0.id) {
                    site.remove(client, self.now()).unwrap();
                }
            }
            _ => {}
        }
    }

    fn calm(&mut self) {
        for n in 0..self.clients.len() {
            self.now += 10;
            self.report(n);
        }
        for (child, name) in self.sites.iter().zip(NAMES).skip(1) {
            loop {
                let from = self.sites[0].is.place_of(name);
                let page = child.is.page(from).unwrap();
                let bytes = page.encode().unwrap();
                let answer = self.sites[0].is.accept_page(name, bytes, self.now()).unwrap();
                assert_eq!(answer, PageAnswer::Accepted { next: page.next });
                if page.is_last {
                    break;
                }
            }
        }
    }

    fn is_true(&self) {
        let parent = &self.sites[0].is;
        for (n, (client, site)) in self.clients.iter().enumerate() {
            let ordinal = parent.find(client.id).unwrap();
            let shown = parent.client(ordinal).unwrap().unwrap();
            let owner = (*site > 0).then(|| NAMES[*site].to_owned());
            assert_eq!((shown.site, shown.name), (owner, format!("host-{n}")));
            for site in [parent, &self.sites[*site].is] {
                let held = site.states_of(site.find(client.id).unwrap()).into_iter();
                let held: BTreeMap<_, _> =
                    held.map(|(it, state)| (it.id, (it.revision, state))).collect();
                assert_eq!(held, client.truth);
                let ordinal = site.find(client.id).unwrap();
                let (told, has) = (facts(n, self.facts[&n]), site.facts(ordinal).unwrap().unwrap());
                assert_eq!((has.revision, Some(has.os)), (told.revision, told.os));
                assert_eq!(site.packages(ordinal).unwrap(), told.packages.map(|it| it.changed));
            }
        }
        let n_clients: u64 = parent.children().iter().map(|child| child.clients).sum();
        assert_eq!(n_clients, self.clients.iter().filter(|(_, site)| *site > 0).count() as u64);
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm();
    world.is_true();
    world.sites = world.sites.map(|site| Site::open(site.kv.after_power_cut(99)));
    world.is_true();
}

#[test]
fn the_parents_view_becomes_that_of_its_children() {
    for seed in 0..HISTORIES {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "history {seed}");
    }
}
