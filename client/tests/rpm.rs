//! Machines of the RPM family, judged as dnf judges them: real repositories, real rpm databases.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "tests of repositories use more of it")]
#[path = "../../sync/tests/rpm/made.rs"]
mod made;
#[path = "../../sync/tests/web/mod.rs"]
mod web;

use client::applicability::{Assessor, State, rule_holds};
use client::facts::Facts;
use client::facts::rpm::Rpm;
use client::truth::Truth;
use made::{Machine, Made, advisory, updateinfo};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;
use sync::adapter::{Adapter, Run, Said, Watch};
use sync::fetch::{Fetcher, Patience};
use sync::rpm::{RpmSettings, RpmSource};
use sync::rule::Rule;
use sync::update::Update;
use web::Web;

/// All updates of the repository at `url`.
async fn updates(url: String) -> Vec<Update> {
    let folder = tempfile::tempdir().unwrap();
    let run = Run {
        fetcher: Fetcher::new(Patience::default()).unwrap(),
        folder: folder.path().into(),
        now: "2026-11-27T00:00:00Z".parse().unwrap(),
        criteria: Arc::default(),
        watch: Arc::new(Watch::default()),
    };
    let source = RpmSource::new(&RpmSettings { url, ..RpmSettings::default() }).unwrap();
    source.fetch(&run, None).await.unwrap();
    let mut updates = Vec::new();
    let mut take = |said| {
        if let Said::Update(update) = said {
            updates.push(*update);
        }
        Ok(())
    };
    source.read(&run, None, &mut take).unwrap();
    updates
}

/// The packages of advisories that are needed, as dnf lists them: advisory and package.
fn by_updates(machine: &Rpm, updates: &[Update]) -> BTreeSet<(String, String)> {
    let none = HashMap::new();
    let mut assessor = Assessor::new(machine, &none);
    let mut needed = BTreeSet::new();
    for update in updates {
        let mut lower = BTreeSet::new();
        lower_packages(update.rules.installable.as_ref().unwrap(), machine, &mut lower);
        let state = assessor.assess(update).state;
        assert_eq!(state == State::Required, !lower.is_empty(), "{}: {state}", update.name);
        assert_ne!(state, State::Unknown);
        needed.extend(lower.into_iter().map(|package| (update.name.clone(), package)));
    }
    needed
}

/// The packages of a rule that are installed in a lower version, in the version that it states.
fn lower_packages(rule: &Rule, machine: &Rpm, into: &mut BTreeSet<String>) {
    match rule {
        Rule::And(parts) | Rule::Or(parts) => {
            parts.iter().for_each(|part| lower_packages(part, machine, into));
        }
        Rule::Rpm(package) if rule_holds(rule, machine) == Truth::True => {
            let package = &package.package;
            let arch = package.arch.as_deref().unwrap();
            into.insert(format!("{}-{}.{arch}", package.name, package.version));
        }
        _ => {}
    }
}

/// `A-1 Important/Sec. tool-1.1-1.el9.noarch`
fn by_dnf(list: &str) -> BTreeSet<(String, String)> {
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(Into::into).collect() };
    let lines = list.lines().map(words).filter(|words| words.len() == 3);
    lines.map(|words| (words[0].clone(), words[2].clone())).collect()
}

fn alma(machine: &Machine) {
    fs::create_dir_all(machine.path("etc")).unwrap();
    fs::write(machine.path("etc/os-release"), "ID=\"almalinux\"\nVERSION_ID=\"9.5\"\n").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_judged_as_dnf_judges_it() {
    let made = Made::new();
    let kernel = "Provides: installonlypkg(kernel)";
    for (name, version, more) in [
        ("tool", "1.0-1.el9", ""),
        ("tool", "1.1-1.el9", ""),
        ("tool-libs", "1.0-1.el9", ""),
        ("tool-libs", "1.1-1.el9", ""),
        ("other", "1:1.0-1.el9", ""),
        ("other", "2:0.9~rc1-1.el9", ""),
        ("kernel-core", "5.1-1.el9", kernel),
        ("kernel-core", "5.2-1.el9", kernel),
        ("kernel-core", "5.3-1.el9", kernel),
    ] {
        made.package(name, version, more);
    }
    made.index(Some(&updateinfo(&[
        advisory("A-1", "security", &[("tool", "1.1-1.el9"), ("tool-libs", "1.1-1.el9")]),
        advisory("A-2", "bugfix", &[("other", "2:0.9~rc1-1.el9")]),
        advisory("K-1", "security", &[("kernel-core", "5.2-1.el9")]),
        advisory("K-2", "security", &[("kernel-core", "5.3-1.el9")]),
    ])));
    let served = Web::of(&made.path());
    let updates = updates(served.url("")).await;
    assert_eq!(updates.len(), 4);
    let at =
        |file: &str| made.path().join("Packages/noarch").join(format!("{file}.el9.noarch.rpm"));
    for installed in [
        vec![],
        vec!["tool-1.0-1"],
        vec!["tool-1.1-1", "tool-libs-1.0-1", "other-1.0-1"],
        vec!["tool-1.1-1", "tool-libs-1.1-1", "other-0.9~rc1-1"],
        vec!["kernel-core-5.1-1"],
        vec!["kernel-core-5.1-1", "kernel-core-5.2-1"],
        vec!["kernel-core-5.1-1", "kernel-core-5.3-1", "tool-1.0-1"],
    ] {
        let files: Vec<_> = installed.iter().map(|file| at(file)).collect();
        let machine = Machine::with(&files);
        alma(&machine);
        let list = machine.dnf(&served.url(""), &["updateinfo", "list", "--updates"]);
        let facts = Rpm::of(&machine.path("")).unwrap();
        assert_eq!(facts.system().packages.len(), installed.len());
        assert_eq!(by_updates(&facts, &updates), by_dnf(&list), "{installed:?}: {list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_modules_count_as_dnf_has_enabled_them() {
    let machine = Machine::with(&[]);
    alma(&machine);
    let folder = machine.path("etc/dnf/modules.d");
    fs::create_dir_all(&folder).unwrap();
    let text = "[tooling]\nname=tooling\nstream=1\nprofiles=\nstate=enabled\n";
    fs::write(folder.join("tooling.module"), text).unwrap();
    let facts = Rpm::of(&machine.path("")).unwrap();
    assert_eq!(facts.has_stream("tooling:1"), Truth::True);
    assert_eq!(facts.has_stream("tooling:2"), Truth::False);
}

#[test]
fn a_root_without_a_database_has_no_packages_or_is_told() {
    let root = tempfile::tempdir().unwrap();
    match Rpm::of(root.path()) {
        // Some versions of rpm make a database, others fail.
        Ok(facts) => assert!(facts.system().packages.is_empty()),
        Err(error) => assert!(error.to_string().contains("rpm"), "{error}"),
    }
}
