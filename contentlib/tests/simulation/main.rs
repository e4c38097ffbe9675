//! Seeded simulation: random work on a library over a store that fails, against a model.
//!
//! Each seed is one history: contents come in by all ways there are, several sessions at once;
//! refs change; garbage is collected while the clock jumps; volumes come, are drained and go;
//! writes, syncs and the index fail, volumes fill up, the process dies and the power goes, with torn tails and
//! lost index batches. What must hold is in [`world::checks`]. Nothing but the seed decides what happens, so a failing seed is
//! run again by itself:
//!
//! ```text
//! DEPOT_SIM_SEED=4711 cargo test -p contentlib --test simulation -- --nocapture
//! DEPOT_SIM_SEEDS=20000 cargo test -p contentlib --test simulation
//! ```

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../kit/bucket.rs"]
mod bucket;
mod environment;
mod home;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use home::Kind;

/// Histories that are run where nobody asks for more. A few seconds' work.
const SEEDS: u64 = 2000;
/// The same on an object store, where each waits for the threads that make its requests.
const OBJECT_SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

#[test]
fn what_was_acknowledged_survives_whatever_happens() {
    run(Kind::Disk, SEEDS);
}

/// Writes that fail, that took effect all the same, or that take effect when nobody waits any more;
/// and the loss of the whole machine, at any time.
#[test]
fn what_was_acknowledged_survives_on_an_object_store() {
    run(Kind::Objects, OBJECT_SEEDS);
}

fn run(kind: Kind, seeds: u64) {
    if let Some(seed) = number("DEPOT_SIM_SEED") {
        world::run(kind, seed, true);
        return;
    }
    let seeds = number("DEPOT_SIM_SEEDS").unwrap_or(seeds);
    let first = number("DEPOT_SIM_FIRST").unwrap_or(0);
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(u64::MAX);
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds || failed.load(Relaxed) != u64::MAX {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| world::run(kind, seed, false))) {
                        Ok(n) => drop(steps.fetch_add(n, Relaxed)),
                        Err(_) => drop(failed.fetch_min(seed, Relaxed)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(
        failed == u64::MAX,
        "{kind:?}: seed {failed} fails; run it alone, with its history, by\n  DEPOT_SIM_SEED={failed} \
         cargo test -p contentlib --test simulation -- --nocapture"
    );
    println!("{seeds} histories, {} steps, {:.1?}", steps.into_inner(), began.elapsed());
}
