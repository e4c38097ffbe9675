//! The index of facts against a plain list of what each client said last, through lost power and failed
//! writes.

use crate::client::Client;
use compliance::fleet::{
    Enrolment, Facts, FactsChange, FactsError, Package, PackageKind, Packages, PackagesChange,
    Property, Standing,
};
use compliance::{Compliance, Settings};
use jiff::Timestamp;
use proptest::prelude::*;
use sitedb::{Db, FaultyKv, Kv};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CLIENTS: usize = 4;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn open(kv: &Arc<FaultyKv>) -> Compliance {
    let kv: Arc<dyn Kv> = Arc::clone(kv) as _;
    let settings = Settings { checkpoint_step: 1, ..Settings::default() };
    Compliance::open(Db::open(kv).unwrap(), settings).unwrap()
}

fn package(version: u8) -> Package {
    Package { version: version.to_string(), arch: "amd64".into() }
}

#[derive(Clone, Debug)]
enum Step {
    /// Client, words, packages by name: from nothing, or as a change.
    Tell(usize, bool, u8, BTreeMap<u8, u8>),
    Remove(usize),
    Checkpoint,
    PowerCut(usize),
    /// The next writes fail; the first of them may be made all the same.
    Fail(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let packages = proptest::collection::btree_map(0..5_u8, 0..4_u8, 0..4);
    prop_oneof![
        8 => (0..CLIENTS, any::<bool>(), 0..3_u8, packages)
            .prop_map(|(client, all, word, packages)| Step::Tell(client, all, word, packages)),
        1 => (0..CLIENTS).prop_map(Step::Remove),
        2 => Just(Step::Checkpoint),
        2 => (0..6_usize).prop_map(Step::PowerCut),
        1 => (0..4_usize, any::<bool>()).prop_map(|(n, first)| Step::Fail(n, first)),
    ]
}

/// What a client said that was acknowledged.
#[derive(Clone, Default)]
struct Said {
    revision: u64,
    os: String,
    packages: Packages,
}

fn enrol(site: &Compliance, client: &Client) {
    let (id, key) = (client.id, client.key);
    let name = format!("pc-{}", id.0.as_u128());
    let new = Enrolment { id, key, name, standing: Standing::Approved };
    site.enrol(new, now()).unwrap();
}

/// The index says of each client what its facts say, and the facts what was acknowledged.
fn is_true(site: &Compliance, clients: &[Client], said: &[Option<Said>]) {
    let index = site.index();
    assert_eq!(*index.fleet(), site.fleet());
    let all: BTreeSet<_> = index.fleet().iter().collect();
    let mut having: BTreeMap<(String, String), BTreeSet<u32>> = BTreeMap::new();
    let mut of_os: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (client, said) in clients.iter().zip(said) {
        let ordinal = site.find(client.id).unwrap();
        assert_eq!(index.name(ordinal), format!("pc-{}", client.id.0.as_u128()));
        let facts = site.facts(ordinal).unwrap();
        let Some(said) = said else {
            assert_eq!((facts, site.packages(ordinal).unwrap()), (None, None));
            continue;
        };
        let facts: Facts = facts.unwrap();
        assert_eq!((facts.revision, &facts.os), (said.revision, &said.os));
        assert_eq!(site.packages(ordinal).unwrap().as_ref(), Some(&said.packages));
        assert_eq!(facts.packages, Some(said.packages.len() as u32));
        of_os.entry(said.os.clone()).or_default().insert(ordinal);
        for (name, packages) in &said.packages {
            let key = (name.clone(), packages[0].version.clone());
            having.entry(key).or_default().insert(ordinal);
        }
    }
    let mut shown = BTreeMap::new();
    for (name, installed) in index.all_installed() {
        for it in installed.filter(|it| !it.clients.is_empty()) {
            let clients: BTreeSet<_> = it.clients.iter().collect();
            assert!(clients.is_subset(&all));
            shown.insert((name.to_owned(), it.version.to_owned()), clients);
        }
    }
    assert_eq!(shown, having);
    for word in 0..3_u8 {
        let os = format!("os{word}");
        let found = index.with_word(&Property::Os, &os, index.fleet());
        assert_eq!(found.iter().collect::<BTreeSet<_>>(), of_os.remove(&os).unwrap_or_default());
    }
    let names: BTreeSet<_> = index.names_installed_on(index.fleet()).collect();
    assert_eq!(names, having.keys().map(|(name, _)| name.as_str()).collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_index_says_what_clients_said(steps in proptest::collection::vec(step(), 1..40)) {
        let clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(n as u8 + 1, 1)).collect();
        let mut kv = Arc::new(FaultyKv::default());
        let mut site = open(&kv);
        clients.iter().for_each(|client| enrol(&site, client));
        let mut said: Vec<Option<Said>> = vec![None; CLIENTS];
        let mut revision = 0;
        for step in steps {
            match step {
                Step::Tell(n, all, word, packages) => {
                    let ordinal = site.find(clients[n].id).unwrap();
                    let old = said[n].clone().filter(|_| !all).unwrap_or_default();
                    revision += 1;
                    let name = |n: &u8| format!("p{n}");
                    let changed: Packages = packages.iter().filter(|(_, version)| **version > 0)
                        .map(|(n, version)| (name(n), vec![package(*version)])).collect();
                    let removed = packages.iter().filter(|(_, version)| **version == 0)
                        .map(|(n, _)| name(n)).collect();
                    let told = PackagesChange { kind: PackageKind::Deb, changed, removed };
                    let os = format!("os{word}");
                    let change = FactsChange {
                        base: old.revision, revision, os: Some(os.clone()),
                        packages: Some(told.clone()), ..FactsChange::default()
                    };
                    let mut new = Said { revision, os, ..old };
                    told.apply(&mut new.packages);
                    // Sent until it is acknowledged, as a client does.
                    let mut taken = site.change_facts(ordinal, change.clone(), now());
                    if matches!(taken, Err(FactsError::Store(_))) {
                        kv.heal();
                        taken = site.change_facts(ordinal, change, now());
                    }
                    prop_assert_eq!(taken.unwrap(), revision);
                    said[n] = Some(new);
                }
                Step::Remove(n) => {
                    kv.heal();
                    let ordinal = site.find(clients[n].id).unwrap();
                    site.remove(ordinal, now()).unwrap();
                    enrol(&site, &clients[n]);
                    said[n] = None;
                }
                Step::Checkpoint => drop(site.checkpoint()),
                Step::PowerCut(lost) => {
                    kv = Arc::new(kv.after_power_cut(lost));
                    site = open(&kv);
                }
                Step::Fail(n, first) => kv.fail_after(n, first),
            }
            is_true(&site, &clients, &said);
        }
        kv.heal();
        site.checkpoint().unwrap();
        is_true(&site, &clients, &said);
        site = open(&kv);
        is_true(&site, &clients, &said);
    }
}

#[test]
fn a_change_of_another_revision_is_refused_and_changes_nothing() {
    let client = Client::new(1, 1);
    let site = open(&Arc::new(FaultyKv::default()));
    enrol(&site, &client);
    let ordinal = site.find(client.id).unwrap();
    let packages = PackagesChange {
        kind: PackageKind::Rpm,
        changed: [("bash".to_owned(), vec![package(1)])].into(),
        removed: BTreeSet::new(),
    };
    let change =
        FactsChange { base: 7, revision: 8, packages: Some(packages), ..FactsChange::default() };
    let refused = site.change_facts(ordinal, change.clone(), now());
    assert!(matches!(refused, Err(FactsError::OtherRevision { has: 0 })));
    assert!(site.packages(ordinal).unwrap().is_none());
    assert_eq!(site.index().installed("bash").count(), 0);
    let all = FactsChange { base: 0, ..change };
    assert_eq!(site.change_facts(ordinal, all, now()).unwrap(), 8);
    let have: Vec<_> = site.index().installed("bash").map(|it| it.clients.len()).collect();
    assert_eq!(have, [1]);
    // Facts from nothing that tell of no packages leave none known.
    let bare = FactsChange { revision: 1, ..FactsChange::default() };
    site.change_facts(ordinal, bare, now()).unwrap();
    assert!(site.packages(ordinal).unwrap().is_none());
}
