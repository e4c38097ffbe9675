//! How long does it take to put one changed client into its collections, and to work all of them out anew? What
//! does the index of a fleet take in memory?
//!
//! Input: `CLIENTS` (1,000,000) clients of ten images with `PACKAGES` (100) packages each, of which each client has
//! a tenth in a version of its own choice of three; 200 collections, each of a rule over packages, systems, addresses or
//! names, every fourth one limited, every tenth one including another. Written nowhere. One load in one run: what is
//! measured is what a site of that size holds. Prints `name<TAB>value` lines.
#![allow(missing_docs, clippy::unwrap_used)]

use compliance::fleet::{
    Enrolment, FactsChange, Fingerprint, Package, PackageKind, Packages, PackagesChange, Standing,
};
use compliance::message::ClientId;
use compliance::{Compliance, Settings};
use deployment::{Collection, CollectionName, Collections};
use jiff::Timestamp;
use sitedb::{Change, CommitError, Db, DbError, Entry, Kv, Order, Range, Seq, Snapshot};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn say(name: &str, value: f64) {
    println!("{name}\t{value:.3}");
}

/// What of the process is in memory, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Numbers that look like chance, the same in every run.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

fn packages(client: usize, n_packages: usize, round: u64) -> Packages {
    let image = client % 10;
    let package = |at: usize| {
        let is_odd = mixed((client * 1_009 + at) as u64 + round).is_multiple_of(10);
        let version = if is_odd { mixed((client + at) as u64 + round) % 3 + 2 } else { 1 };
        let name = format!("package-{}", image * n_packages / 2 + at);
        (name, vec![Package { version: format!("{version}.0-1"), arch: "amd64".into() }])
    };
    (0..n_packages).map(package).collect()
}

fn change(client: usize, n_packages: usize, base: u64) -> FactsChange {
    let os = if client.is_multiple_of(3) { "rocky" } else { "debian" };
    let n = client as u32;
    let address = std::net::Ipv4Addr::from(0x0a00_0000 | n);
    FactsChange {
        base,
        revision: base + 1,
        os: Some(os.into()),
        os_version: Some((client % 4 + 9).to_string()),
        architecture: Some("x86_64".into()),
        addresses: Some(vec![address.into()]),
        packages: Some(PackagesChange {
            kind: PackageKind::Deb,
            changed: packages(client, n_packages, base),
            removed: Default::default(),
        }),
        ..FactsChange::default()
    }
}

fn name(n: usize) -> CollectionName {
    format!("c{n:03}").parse().unwrap()
}

fn collection(n: usize) -> Collection {
    let rule = match n % 5 {
        0 => format!("package.package-{} < 3", n * 7),
        1 => format!("os = debian and os-version >= 11 and package = package-{}", n * 5),
        2 => format!("address in (10.{}.0.0/16)", n % 16),
        3 => format!("name = 'pc-{}*'", n),
        _ => "os = rocky and not os-version = 9".to_owned(),
    };
    Collection {
        rules: [(name(0), rule.parse().unwrap())].into(),
        limit: (n % 4 == 3).then(|| name(n - 3)),
        include: (n % 10 == 9).then(|| name(n - 1)).into_iter().collect(),
        ..Collection::default()
    }
}

/// A store that keeps nothing: what is asked here is what the index takes in memory.
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

fn main() {
    let (clients, n_packages) = (number("CLIENTS", 1_000_000), number("PACKAGES", 100));
    let db = Db::open(Arc::new(Nowhere)).unwrap();
    let site = Compliance::open(db.clone(), Settings::default()).unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let new = (0..clients).map(|n| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let id = ClientId(Uuid::from_u128(n as u128 + 1));
        let name = format!("pc-{n}");
        Enrolment { id, key: Fingerprint(key), name, standing: Standing::Approved }
    });
    drop(site.enrol_all(new.collect(), now).unwrap());
    say("RSS MiB, clients alone", resident());
    let start = Instant::now();
    for n in 0..clients {
        site.change_facts(n as u32, change(n, n_packages, 0), now).unwrap();
    }
    say(
        "facts of a client, all, microseconds",
        start.elapsed().as_secs_f64() * 1e6 / clients as f64,
    );
    let (bitmaps, words) = site.index().size();
    say("RSS MiB, with facts", resident());
    say("bitmaps of packages MiB", bitmaps as f64 / 1048576.0);
    say("bitmaps of words MiB", words as f64 / 1048576.0);

    let start = Instant::now();
    let collections = Collections::open(db, &site).unwrap();
    for n in 0..200 {
        collections.create(name(n), collection(n), &site).unwrap();
    }
    say("200 collections, all worked out, ms", start.elapsed().as_secs_f64() * 1e3);
    let all: u64 = collections.list().iter().map(|(_, _, members)| members).sum();
    say("members of a collection", all as f64 / 200.0);

    let mut took = Vec::new();
    for round in 0..200_usize {
        let n = mixed(round as u64) as usize % clients;
        let mut change = change(n, n_packages, 1 + round as u64);
        change.base = 0;
        site.change_facts(n as u32, change, now).unwrap();
        let start = Instant::now();
        black_box(collections.follow(&site));
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    say("200 collections, one client changed, median ms", took[100]);
    say("200 collections, one client changed, p99 ms", took[197]);

    let members = collections.members(&name(0), &site).unwrap();
    let start = Instant::now();
    let index = site.index();
    say("packages on a collection", index.names_installed_on(&members).count() as f64);
    say("packages on a collection, ms", start.elapsed().as_secs_f64() * 1e3);
}
