//! How long does it take to work out what all clients are told of deployments, and whom one change concerns?
//!
//! Input: 100,000 clients in 200 collections, of which each has a hundredth to a half of them and every fourth has a
//! maintenance window; 500 deployments to these. Full: what each client is told, as the JSON text that its policy has,
//! and the digest by which one revision is told from another. Incremental: one client comes into a collection, and one
//! group of updates changes that ten deployments have; whom that concerns, and what each of up to a hundred of them is
//! told. Prints `name<TAB>value` lines.
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

fn members(collection: u32) -> Arc<RoaringBitmap> {
    let every = u64::from(2 + collection % 99);
    let is_in = |client: &u32| {
        mixed(u64::from(*client) << 20 | u64::from(collection)).is_multiple_of(every)
    };
    Arc::new((0..CLIENTS).filter(is_in).collect())
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
    let all: Vec<Arc<RoaringBitmap>> = (0..COLLECTIONS).map(members).collect();
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
    let bytes: usize = (0..CLIENTS).map(|client| text(&picture, client)).sum();
    println!("targets/full/100k_clients_s\t{:.3}", began.elapsed().as_secs_f64());
    println!("targets/full/bytes_a_client\t{}", bytes / CLIENTS as usize);

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
    println!("targets/one_client_ms\t{:.3}", began.elapsed().as_secs_f64() * 1e3);

    let mut newer = picture.clone();
    for (n, target) in newer.targets.values_mut().enumerate().take(10) {
        target.policy = policy(n as u32, "after");
    }
    let began = Instant::now();
    let concerned = newer.concerned(&picture);
    let told = (0..CLIENTS).filter(|client| concerned.has(*client)).take(100);
    black_box(told.map(|client| text(&newer, client)).sum::<usize>());
    println!("targets/one_group_ms\t{:.3}", began.elapsed().as_secs_f64() * 1e3);
}
