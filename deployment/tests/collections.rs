//! Collections against plain sets: whatever comes, goes, and is defined anew, the members are those that the
//! definitions say of what clients told last.
#![allow(missing_docs, clippy::unwrap_used)]

use compliance::fleet::{Enrolment, FactsChange, Fingerprint, PackagesChange, Standing};
use compliance::fleet::{Package, PackageKind};
use compliance::message::ClientId;
use compliance::{Compliance, Settings};
use deployment::{Collection, CollectionError, CollectionName, Collections};
use jiff::Timestamp;
use proptest::prelude::*;
use sitedb::{Db, FaultyKv, Kv};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

const CLIENTS: u8 = 6;
const COLLECTIONS: u8 = 4;

/// Rules, each with what it says in plain words: of the system, and of the version of a package.
type Says = fn(&Told) -> bool;
const RULES: [(&str, Says); 5] = [
    ("os = os1", |told| told.os == 1),
    ("os != os1", |told| told.os != 1),
    ("package = p and os in (os0, os2)", |told| told.package > 0 && [0, 2].contains(&told.os)),
    ("package.p >= 2 or name = 'pc-0*'", |told| told.package >= 2 || told.n == 0),
    ("not (package.p < 3 or os = os2)", |told| {
        !(told.package > 0 && told.package < 3 || told.os == 2)
    }),
];

/// What a client told last.
#[derive(Clone, Debug)]
struct Told {
    n: u8,
    os: u8,
    /// The version of a package; 0 for none.
    package: u8,
}

#[derive(Clone, Debug)]
struct Definition {
    limit: Option<u8>,
    rules: BTreeSet<usize>,
    include: BTreeSet<u8>,
    exclude: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    Enrol(u8),
    Tell(u8, u8, u8),
    RemoveClient(u8),
    Define(u8, Definition),
    Delete(u8),
    Name(u8, BTreeSet<u8>, BTreeSet<u8>),
    Checkpoint,
    Reopen,
}

fn name(n: u8) -> CollectionName {
    // The last one is the built-in one.
    if n == COLLECTIONS { CollectionName::all() } else { format!("c{n}").parse().unwrap() }
}

fn id(n: u8) -> ClientId {
    ClientId(Uuid::from_u128(u128::from(n) + 1))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let others = || prop::collection::btree_set(0..=COLLECTIONS, 0..2);
    let rules = prop::collection::btree_set(0..RULES.len(), 0..3);
    let definition = (prop::option::of(0..=COLLECTIONS), rules, others(), others())
        .prop_map(|(limit, rules, include, exclude)| Definition { limit, rules, include, exclude });
    let some = || prop::collection::btree_set(0..CLIENTS, 0..3);
    prop_oneof![
        4 => client().prop_map(Step::Enrol),
        6 => (client(), 0..3_u8, 0..4_u8).prop_map(|(n, os, package)| Step::Tell(n, os, package)),
        1 => client().prop_map(Step::RemoveClient),
        6 => (0..COLLECTIONS, definition).prop_map(|(n, it)| Step::Define(n, it)),
        1 => (0..COLLECTIONS).prop_map(Step::Delete),
        3 => (0..COLLECTIONS, some(), some())
            .prop_map(|(n, add, remove)| Step::Name(n, add, remove)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    clients: BTreeMap<u8, Told>,
    defined: BTreeMap<u8, Definition>,
    direct: BTreeMap<u8, BTreeSet<u8>>,
    revision: u64,
}

impl Model {
    fn members(&self, n: u8) -> BTreeSet<u8> {
        let all: BTreeSet<u8> = self.clients.keys().copied().collect();
        let Some(it) = self.defined.get(&n) else { return all };
        let of = |n: &u8| self.members(*n);
        let mut found: BTreeSet<u8> = self.direct.get(&n).into_iter().flatten().copied().collect();
        let meant = |told: &&Told| it.rules.iter().any(|rule| RULES[*rule].1(told));
        found.extend(self.clients.values().filter(meant).map(|told| told.n));
        found.extend(it.include.iter().flat_map(of));
        if let Some(limit) = it.limit {
            let limit = self.members(limit);
            found.retain(|client| limit.contains(client));
        }
        let excluded: BTreeSet<u8> = it.exclude.iter().flat_map(of).collect();
        found.retain(|client| all.contains(client) && !excluded.contains(client));
        found
    }

    fn needs(it: &Definition) -> impl Iterator<Item = u8> + '_ {
        it.limit.iter().chain(&it.include).chain(&it.exclude).copied()
    }

    /// Whether a definition leads back to its collection.
    fn leads_back(&self, from: u8, it: &Definition) -> bool {
        let mut to_do: Vec<u8> = Self::needs(it).collect();
        let mut seen = BTreeSet::new();
        while let Some(n) = to_do.pop() {
            if n == from {
                return true;
            }
            if seen.insert(n) {
                to_do.extend(self.defined.get(&n).into_iter().flat_map(Self::needs));
            }
        }
        false
    }
}

struct Site {
    kv: Arc<FaultyKv>,
    fleet: Compliance,
    collections: Collections,
}

impl Site {
    fn open(kv: Arc<FaultyKv>) -> Self {
        let db = Db::open(Arc::clone(&kv) as Arc<dyn Kv>).unwrap();
        let fleet = Compliance::open(db.clone(), Settings::default()).unwrap();
        let collections = Collections::open(db, &fleet).unwrap();
        Self { kv, fleet, collections }
    }

    fn collection(it: &Definition) -> Collection {
        let named = |all: &BTreeSet<u8>| all.iter().map(|n| name(*n)).collect();
        let rule = |n: &usize| (format!("r{n}").parse().unwrap(), RULES[*n].0.parse().unwrap());
        Collection {
            limit: it.limit.map(name),
            rules: it.rules.iter().map(rule).collect(),
            include: named(&it.include),
            exclude: named(&it.exclude),
            ..Collection::default()
        }
    }

    fn define(&self, n: u8, it: &Definition, is_new: bool) -> Result<(), CollectionError> {
        let collection = Self::collection(it);
        if is_new {
            return self.collections.create(name(n), collection, &self.fleet);
        }
        let change = |old: &mut Collection| {
            *old = collection;
            Ok(())
        };
        self.collections.change(&name(n), &self.fleet, change).map(drop)
    }

    fn make(&mut self, model: &mut Model, step: Step) {
        match step {
            Step::Enrol(n) => {
                let new = Enrolment {
                    id: id(n),
                    key: Fingerprint([n; 32]),
                    name: format!("pc-{n}"),
                    standing: Standing::Approved,
                };
                self.fleet.enrol(new, now()).unwrap();
                model.clients.entry(n).or_insert(Told { n, os: 9, package: 0 });
            }
            Step::Tell(n, os, package) => {
                let Some(client) = self.fleet.find(id(n)) else { return };
                model.revision += 1;
                let installed = Package { version: package.to_string(), arch: "amd64".into() };
                let changed = (package > 0).then(|| ("p".to_owned(), vec![installed]));
                let packages = PackagesChange {
                    kind: PackageKind::Deb,
                    changed: changed.into_iter().collect(),
                    removed: (package == 0).then(|| "p".to_owned()).into_iter().collect(),
                };
                let change = FactsChange {
                    base: self.fleet.facts(client).unwrap().map_or(0, |facts| facts.revision),
                    revision: model.revision,
                    os: Some(format!("os{os}")),
                    packages: Some(packages),
                    ..FactsChange::default()
                };
                self.fleet.change_facts(client, change, now()).unwrap();
                model.clients.insert(n, Told { n, os, package });
            }
            Step::RemoveClient(n) => {
                let Some(client) = self.fleet.find(id(n)) else { return };
                self.fleet.remove(client, now()).unwrap();
                model.clients.remove(&n);
            }
            Step::Define(n, it) => {
                let defined = self.define(n, &it, !model.defined.contains_key(&n));
                let known = |need: u8| {
                    need == COLLECTIONS || need == n || model.defined.contains_key(&need)
                };
                if !Model::needs(&it).all(known) {
                    assert!(matches!(defined, Err(CollectionError::Missing { .. })), "{defined:?}");
                } else if model.leads_back(n, &it) {
                    assert!(matches!(defined, Err(CollectionError::Cycle(_))), "{defined:?}");
                } else {
                    defined.unwrap();
                    model.defined.insert(n, it);
                }
            }
            Step::Delete(n) => {
                let deleted = self.collections.delete(&name(n));
                let mut others = model.defined.values();
                if !model.defined.contains_key(&n) {
                    assert!(matches!(deleted, Err(CollectionError::Unknown(_))));
                } else if others.any(|it| Model::needs(it).any(|need| need == n)) {
                    assert!(matches!(deleted, Err(CollectionError::Needed { .. })));
                } else {
                    deleted.unwrap();
                    model.defined.remove(&n);
                    model.direct.remove(&n);
                }
            }
            Step::Name(n, add, remove) => {
                let ids = |all: &BTreeSet<u8>| all.iter().map(|n| id(*n)).collect::<Vec<_>>();
                let named =
                    self.collections.name_clients(&name(n), &ids(&add), &ids(&remove), &self.fleet);
                if !model.defined.contains_key(&n) {
                    assert!(matches!(named, Err(CollectionError::Unknown(_))));
                    return;
                }
                let direct = model.direct.entry(n).or_default();
                let old = direct.clone();
                direct.retain(|client| !remove.contains(client));
                direct.extend(add);
                assert!(named.unwrap() >= old.symmetric_difference(direct).count());
            }
            Step::Checkpoint => drop(self.fleet.checkpoint().unwrap()),
            Step::Reopen => *self = Self::open(Arc::new(self.kv.after_power_cut(99))),
        }
    }

    fn is_true(&self, model: &Model) {
        self.collections.follow(&self.fleet);
        let client = |n: &u8| self.fleet.find(id(*n)).unwrap();
        for n in model.defined.keys().copied().chain([COLLECTIONS]) {
            let found = self.collections.members(&name(n), &self.fleet).unwrap();
            let want: BTreeSet<u32> = model.members(n).iter().map(client).collect();
            assert_eq!(found.iter().collect::<BTreeSet<_>>(), want, "{}", name(n));
        }
        assert_eq!(self.collections.list().len(), model.defined.len());
        for n in model.clients.keys() {
            let of: Vec<_> = self.collections.of(client(n));
            let want = model.defined.keys().filter(|it| model.members(**it).contains(n));
            assert_eq!(of, want.map(|it| name(*it)).collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn members_are_who_the_definitions_mean(steps in prop::collection::vec(step(), 1..50)) {
        let mut site = Site::open(Arc::default());
        let mut model = Model::default();
        for step in steps {
            site.make(&mut model, step);
            site.is_true(&model);
        }
        site.make(&mut model, Step::Reopen);
        site.is_true(&model);
    }
}

#[test]
fn the_built_in_collection_cannot_be_changed() {
    let site = Site::open(Arc::default());
    let all = CollectionName::all();
    let created = site.collections.create(all.clone(), Collection::default(), &site.fleet);
    assert!(matches!(created, Err(CollectionError::BuiltIn)));
    assert!(matches!(site.collections.delete(&all), Err(CollectionError::BuiltIn)));
    let named = site.collections.name_clients(&all, &[id(1)], &[], &site.fleet);
    assert!(matches!(named, Err(CollectionError::BuiltIn)));
}

#[test]
fn a_definition_that_was_not_written_does_not_count() {
    let site = Site::open(Arc::default());
    site.kv.fail_after(0, false);
    let created = site.collections.create(name(0), Collection::default(), &site.fleet);
    assert!(matches!(created, Err(CollectionError::Store(_))), "{created:?}");
    assert!(site.collections.list().is_empty());
}
