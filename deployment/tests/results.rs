//! What clients tell of deployments, over a database that is opened again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use compliance::message::{ClientId, Incarnation};
use deployment::Results;
use deployment::enforcement::{
    Compliance, DeploymentReport, Enforcement, Evaluation, Failure, Report,
};
use deployment::policy::DeploymentId;
use deployment::results::{Counts, Which};
use jiff::Timestamp;
use proptest::prelude::*;
use roaring::RoaringBitmap;
use sitedb::Db;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use uuid::Uuid;

fn client(n: u32) -> ClientId {
    ClientId(Uuid::from_u128(n.into()))
}

fn find(id: ClientId) -> Option<u32> {
    u32::try_from(id.0.as_u128()).ok().filter(|n| *n < 100)
}

fn deployment(n: u8) -> DeploymentId {
    DeploymentId(Uuid::from_u128(n.into()))
}

fn of(n: u8, enforcement: Enforcement, code: Option<i64>) -> DeploymentReport {
    DeploymentReport {
        deployment: deployment(n),
        updates_of: String::new(),
        compliance: match enforcement {
            Enforcement::Succeeded => Compliance::Compliant,
            Enforcement::Unknown => Compliance::Unknown,
            _ => Compliance::NonCompliant,
        },
        enforcement,
        evaluation: Evaluation::Succeeded,
        age: 60,
        failure: code.map(|code| Failure::new(code, "it broke")),
        never_fits: code == Some(7),
        in_overlay: false,
        updates: Vec::new(),
    }
}

fn report(n: u32, life: u64, number: u64, deployments: Vec<DeploymentReport>) -> Report {
    let incarnation = Incarnation(NonZeroU64::new(life).unwrap());
    Report { client: client(n), incarnation, number, deployments }
}

fn open(db: &Db) -> Results {
    Results::open(db.clone(), find, |it| it != deployment(9)).unwrap()
}

fn accept(results: &Results, it: Report) -> bool {
    let n = find(it.client).unwrap();
    results.accept(n, it, |it| it != deployment(9), Timestamp::UNIX_EPOCH).unwrap()
}

fn all(n: u32) -> RoaringBitmap {
    (1..=n).collect()
}

#[test]
fn the_last_report_of_each_client_counts_and_survives() {
    let db = Db::in_memory();
    let results = open(&db);
    use Enforcement::{Downloading, Failed, Succeeded};
    assert!(accept(&results, report(1, 1, 1, vec![of(1, Downloading, None)])));
    assert!(accept(&results, report(1, 1, 3, vec![of(1, Failed, Some(100))])));
    assert!(!accept(&results, report(1, 1, 2, vec![of(1, Succeeded, None)])), "it came late");
    assert!(!accept(&results, report(1, 1, 3, vec![])), "it came twice");
    assert!(accept(&results, report(2, 1, 9, vec![of(1, Succeeded, None), of(9, Failed, None)])));
    let check = |results: &Results| {
        let counts = results.counts(deployment(1), &all(4));
        assert_eq!((counts.targets, counts.told), (4, 2));
        assert_eq!(counts.codes, [(100, 1)].into());
        let compliance =
            [(Compliance::Unknown, 2), (Compliance::Compliant, 1), (Compliance::NonCompliant, 1)];
        assert_eq!(counts.compliance, compliance.into());
        assert_eq!(counts.percent(), Some(25));
        let failed = results.clients(deployment(1), Which::Code(100), &all(4));
        assert_eq!(failed, [1].into_iter().collect());
        let unknown = Which::Enforcement(Enforcement::Unknown);
        assert_eq!(results.clients(deployment(1), unknown, &all(4)), [3, 4].into_iter().collect());
        assert_eq!(results.counts(deployment(9), &all(4)).told, 0, "it is gone");
    };
    check(&results);
    let told = results.told(client(1)).unwrap().unwrap();
    assert_eq!(told.of(deployment(1)).unwrap().failure.as_ref().unwrap().detail, "it broke");
    drop(results);
    let results = open(&db);
    check(&results);
    assert!(!accept(&results, report(1, 1, 3, vec![])), "as before the restart");
    assert!(accept(&results, report(1, 2, 1, vec![])), "another life of its store");
    assert_eq!(results.counts(deployment(1), &all(4)).codes, BTreeMap::new());
    results.forget_client(2, client(2)).unwrap();
    assert_eq!(results.counts(deployment(1), &all(4)).told, 0);
    assert_eq!(results.told(client(2)).unwrap(), None);
}

proptest! {
    /// Whatever comes in whatever order, what counts is what a plain look at the last reports finds.
    #[test]
    fn counts_are_those_of_the_last_reports(
        came in prop::collection::vec((1..4_u32, 1..3_u64, 1..6_u64, 0..12_usize, 0..9_i64), 0..40),
    ) {
        let db = Db::in_memory();
        let results = open(&db);
        let mut plain: BTreeMap<u32, Report> = BTreeMap::new();
        for (n, life, number, state, code) in came {
            let code = (code > 4).then_some(code);
            let it = report(n, life, number, vec![of(1, Enforcement::ALL[state], code)]);
            let is_old = |old: &Report| old.incarnation == it.incarnation && it.number <= old.number;
            let is_new = !plain.get(&n).is_some_and(is_old);
            prop_assert_eq!(accept(&results, it.clone()), is_new);
            if is_new {
                plain.insert(n, it);
            }
        }
        let mut wanted = Counts { targets: 5, told: plain.len() as u64, ..Counts::default() };
        let silent = 5 - wanted.told;
        *wanted.compliance.entry(Compliance::Unknown).or_default() += silent;
        *wanted.enforcement.entry(Enforcement::Unknown).or_default() += silent;
        *wanted.evaluation.entry(Evaluation::Unknown).or_default() += silent;
        for report in plain.values() {
            let it = &report.deployments[0];
            *wanted.compliance.entry(it.compliance).or_default() += 1;
            *wanted.enforcement.entry(it.enforcement).or_default() += 1;
            *wanted.evaluation.entry(it.evaluation).or_default() += 1;
            wanted.never_fits += u64::from(it.never_fits);
            if let Some(failure) = &it.failure {
                *wanted.codes.entry(failure.code).or_default() += 1;
            }
        }
        prop_assert_eq!(&results.counts(deployment(1), &all(5)), &wanted);
        prop_assert_eq!(&open(&db).counts(deployment(1), &all(5)), &wanted);
    }
}
