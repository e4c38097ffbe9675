//! How long does it take to plan what is to lie where, for a large fleet? How long if one deployment ends?
//!
//! Input: `POINTS` (2,000) distribution points in half as many boundary groups with `CLIENTS` (100,000) clients; 100 TB
//! of content in 4,000 packages of 25 GB with 50 updates each, of which every fiftieth is in two; 500 deployments of 100
//! updates. Sparse: they are to 200 collections of a thousandth to a half of the clients, each of which is in one boundary
//! group, and each update is required on 5 % of them. Dense: they are to all clients, each of which is in two boundary
//! groups, and each update is required on 60 % of them, so nearly every point is to hold all that is deployed. Prints
//! `name<TAB>value` lines.
#![allow(missing_docs, clippy::unwrap_used)]

use deployment::CollectionName;
use deployment::policy::When;
use deployment::staging::{Fleet, Package, Place, Point, Staged, plan};
use jiff::{SignedDuration, Timestamp};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::time::Instant;
use sync::name::UpdateId;

const PACKAGES: u32 = 4_000;
const IN_ONE: u32 = 50;

fn number(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbers that look like chance, the same in every run.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

fn id(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

/// How much is wanted how widely.
struct Case {
    name: &'static str,
    /// Of the collections, one after the other: so many of a hundred thousand clients are in it.
    members: [u64; 4],
    /// On so many of a hundred thousand clients an update is required.
    required: u64,
    /// In so many boundary groups each client is.
    places: u32,
}

const CASES: [Case; 2] = [
    Case { name: "sparse", members: [100, 1_000, 10_000, 50_000], required: 5_000, places: 1 },
    Case { name: "dense", members: [100_000; 4], required: 60_000, places: 2 },
];

fn main() {
    CASES.iter().for_each(measure);
}

fn measure(case: &Case) {
    let (n_points, n_clients) = (number("POINTS", 2_000), number("CLIENTS", 100_000));
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let ids: Vec<UpdateId> = (0..PACKAGES * IN_ONE).map(id).collect();
    let packages: Vec<Package> = (0..PACKAGES)
        .map(|n| {
            let own = (0..IN_ONE).map(|k| ids[(n * IN_ONE + k) as usize]);
            let others = ids[((n + 1) % PACKAGES * IN_ONE) as usize];
            let updates = own.chain([others]).collect();
            Package { name: format!("p{n}"), bytes: 25_000_000_000, updates }
        })
        .collect();
    let points = (0..n_points).map(|n| Point {
        name: format!("dp{n}"),
        free: u64::MAX,
        distributed: [n % PACKAGES].into(),
        ..Point::default()
    });
    let n_places = n_points / 2;
    let place = |n: u32| Place {
        name: format!("place{n}"),
        points: vec![n * 2, n * 2 + 1],
        clients: (0..n_clients)
            .filter(|client| (n + n_places - client % n_places) % n_places < case.places)
            .collect(),
    };
    let part = |seed: u64, share: u64| -> RoaringBitmap {
        (0..n_clients)
            .filter(|client| mixed(seed << 32 | u64::from(*client)) % 100_000 < share)
            .collect()
    };
    let members: Vec<RoaringBitmap> =
        (0..200).map(|n: u64| part(n + 1, case.members[n as usize % 4])).collect();
    let deployed: Vec<Vec<UpdateId>> = (0..500_u64)
        .map(|n| {
            (0..100)
                .map(|k| ids[(mixed(n) as u32 % (PACKAGES - 10) * IN_ONE + k) as usize])
                .collect()
        })
        .collect();
    let required: Vec<RoaringBitmap> = (0..64).map(|n| part(1_000 + n, case.required)).collect();
    let places_of: HashMap<UpdateId, usize> =
        ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
    let required = |id: UpdateId| required[places_of[&id] % 64].clone();
    let mut fleet = Fleet {
        deployments: deployed
            .iter()
            .enumerate()
            .map(|(n, updates)| Staged {
                name: format!("d{n}"),
                enabled: true,
                available: When::Utc(now),
                collection: CollectionName::all(),
                members: &members[n % 200],
                updates,
            })
            .collect(),
        packages,
        points: points.collect(),
        places: (0..n_places).map(place).collect(),
        required: &required,
        lead: SignedDuration::from_hours(8),
        now,
    };
    let bytes: u64 = fleet.packages.iter().map(|package| package.bytes).sum();
    let case = case.name;
    println!("{case}, content TB\t{:.1}", bytes as f64 / 1e12);
    for name in ["all", "without one deployment"] {
        let start = Instant::now();
        let plan = plan(&fleet);
        println!("{case}, plan, {name}, s\t{:.3}", start.elapsed().as_secs_f64());
        println!("{case}, lines\t{}", plan.lines.len());
        let reasons: usize = plan.lines.iter().map(|line| line.because.len()).sum();
        println!("{case}, reasons\t{reasons}");
        fleet.deployments.pop();
    }
}
