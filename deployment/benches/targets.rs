//! How long does it take to work out what all clients are told of deployments, and whom one change concerns?
//!
//! Input: 100,000 clients in 200 collections, of which each has a hundredth to a half of them and every fourth has a
//! maintenance window; 500 deployments to these. Dense: each collection has nine tenths of them. Full: what each client is
//! told (dense: every hundredth), as the JSON text that its policy has, and the digest by which one revision is told from
//! another. Incremental: one client comes into a collection, and one group of updates changes that ten deployments have; whom
//! that concerns, and what each of up to a hundred of them is told. Prints `name<TAB>value` lines.
#![allow(missing_docs, clippy::unwrap_used)]

use deployment::policy::{DeploymentId, DeploymentPolicy, Experience, When};
use deployment::targets::{Clients, Picture, Serviced, Target};
use deployment::window::{Clock, Window};
use jiff::Timestamp;
use roaring::RoaringBitmap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

const CLIENTS: u32 = 100_000;
const COLLECTIONS: u32 = 200;
const DEPLOYMENTS: u32 = 500;

/// Numbers that look like chance, the same in every run.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

/// Which clients a collection has, by what chance says of each.
fn members(collection: u32, is_in: impl Fn(u64) -> bool) -> Arc<RoaringBitmap> {
    let chance = |client: u32| mixed(u64::from(client) << 20 | u64::from(collection));
    Arc::new((0..CLIENTS).filter(|client| is_in(chance(*client))).collect())
}

fn policy(n: u32, updates: &str) -> Arc<DeploymentPolicy> {
    Arc::new(DeploymentPolicy {
        id: DeploymentId(Uuid::from_u128(n.into())),
        name: format!("november-{n}"),
        available: When::Utc(Timestamp::UNIX_EPOCH),
        deadline: Some(When::Utc(Timestamp::UNIX_EPOCH)),
        experience: Experience::default(),
        updates: blake3::hash(updates.as_bytes()).to_hex().to_string(),
        updates_size: 100_000,
    })
}

fn text(picture: &Picture, client: u32) -> usize {
    let told = picture.of(client);
    let mut text = serde_json::to_vec(&told.deployments).unwrap();
    text.extend(serde_json::to_vec(&told.windows).unwrap());
    black_box(blake3::hash(&text));
    text.len()
}

fn main() {
    let sparse = |n: u32| members(n, |chance| chance.is_multiple_of(u64::from(2 + n % 99)));
    measure("targets", &(0..COLLECTIONS).map(sparse).collect::<Vec<_>>(), 1);
    let dense = |n: u32| members(n, |chance| !chance.is_multiple_of(10));
    measure("targets/dense", &(0..COLLECTIONS).map(dense).collect::<Vec<_>>(), 100);
}

/// Measures with these collections; in full what every `step`th client is told.
fn measure(case: &str, all: &[Arc<RoaringBitmap>], step: u32) {
    let mut picture = Picture::default();
    for n in 0..DEPLOYMENTS {
        let clients = Clients::These(Arc::clone(&all[(n % COLLECTIONS) as usize]));
        let target = Target { policy: policy(n, "before"), clients };
        picture.targets.insert(target.policy.id, target);
    }
    let start = "2026-01-01T01:00".parse().unwrap();
    let window = Window::new(start, 180, Clock::Local, "weekly sat".parse().unwrap()).unwrap();
    for (n, clients) in all.iter().enumerate().step_by(4) {
        let windows = [window.clone()].into();
        let serviced = Serviced { clients: Arc::clone(clients), windows };
        picture.windows.insert(format!("collection-{n}").parse().unwrap(), serviced);
    }
    let began = Instant::now();
    let asked = (0..CLIENTS).step_by(step as usize);
    let bytes: usize = asked.map(|client| text(&picture, client)).sum();
    let n_asked = CLIENTS / step;
    println!("{case}/full/{n_asked}_clients_s\t{:.3}", began.elapsed().as_secs_f64());
    println!("{case}/full/bytes_a_client\t{}", bytes / n_asked as usize);

    let mut newer = picture.clone();
    let mut more = (*all[7]).clone();
    let who = (0..CLIENTS).find(|client| !more.contains(*client)).unwrap();
    more.insert(who);
    let more = Arc::new(more);
    for (n, target) in newer.targets.values_mut().enumerate() {
        if n as u32 % COLLECTIONS == 7 {
            target.clients = Clients::These(Arc::clone(&more));
        }
    }
    let began = Instant::now();
    let concerned = newer.concerned(&picture);
    assert!(concerned.has(who) && !concerned.has(who + 1));
    black_box(text(&newer, who));
    println!("{case}/one_client_ms\t{:.3}", began.elapsed().as_secs_f64() * 1e3);

    let mut newer = picture.clone();
    for (n, target) in newer.targets.values_mut().enumerate().take(10) {
        target.policy = policy(n as u32, "after");
    }
    let began = Instant::now();
    let concerned = newer.concerned(&picture);
    let told = (0..CLIENTS).filter(|client| concerned.has(*client)).take(100);
    black_box(told.map(|client| text(&newer, client)).sum::<usize>());
    println!("{case}/one_group_ms\t{:.3}", began.elapsed().as_secs_f64() * 1e3);
}
