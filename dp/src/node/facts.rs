//! What a point says of itself. Each fact follows from the wish, what is held, what is on its way
//! and what failed; nothing is remembered that could be wrong, but when a state began.

use super::plan::{Failure, Key};
use crate::field::{Fact, FactState, Wish};
use contentlib::Progress;
use jiff::Timestamp;
use packager::sign::VersionInfo;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What happened to versions since the point was started.
#[derive(Default)]
pub(super) struct Facts {
    /// The version that is on its way.
    pub fetching: Option<(Key, Arc<Progress>)>,
    /// Versions that could not be brought.
    pub failures: HashMap<Key, Failure>,
    began: HashMap<Key, (FactState, Timestamp)>,
}

impl Facts {
    /// When each version that failed may be tried again. The pauses differ by what a point and a
    /// version are called, so that points which failed together do not come back together.
    pub fn retries(&self, point: &str) -> HashMap<Key, Timestamp> {
        let jitter = |key: &Key| {
            let seed = format!("{point} {} {}", key.0, key.1);
            f64::from(blake3::hash(seed.as_bytes()).as_bytes()[0]) / 255.0
        };
        self.failures.iter().map(|(key, failed)| (key.clone(), failed.retry(jitter(key)))).collect()
    }

    /// Forgets what is told of versions that nobody wishes any more.
    pub fn forget_unwished(&mut self, wish: &Wish) {
        let wished: HashSet<Key> = wish.versions.iter().map(|w| key(&w.version)).collect();
        self.failures.retain(|key, _| wished.contains(key));
    }

    /// One fact for each version that is wished or held, at `now`.
    pub fn tell(&mut self, wish: Option<&Wish>, held: &[VersionInfo], now: Timestamp) -> Vec<Fact> {
        let wished = wish.into_iter().flat_map(|wish| &wish.versions).map(|wanted| &wanted.version);
        let is_wished: HashSet<Key> = wished.clone().map(key).collect();
        let is_held: HashSet<Key> = held.iter().map(key).collect();
        let mut facts = Vec::new();
        let missing = wished.filter(|version| !is_held.contains(&key(version)));
        for version in missing.chain(held) {
            let key = key(version);
            let fetching = self.fetching.as_ref().filter(|(at, _)| *at == key);
            let failure = self.failures.get(&key);
            let (mut bytes_left, mut cause) = (0, None);
            let state = if is_held.contains(&key) {
                // Before the first wish nobody knows what is not wished.
                let leaves = wish.is_some() && !is_wished.contains(&key);
                if leaves { FactState::Leaving } else { FactState::Held }
            } else {
                bytes_left = version.bytes;
                cause = failure.map(|failure| failure.cause.clone());
                match (fetching, failure) {
                    (Some((_, progress)), _) => {
                        bytes_left = bytes_left.saturating_sub(progress.bytes.load(Relaxed));
                        FactState::Fetching
                    }
                    (None, Some(_)) => FactState::Failed,
                    (None, None) => FactState::Waiting,
                }
            };
            let since = match self.began.get(&key) {
                Some((before, since)) if *before == state => *since,
                _ => now,
            };
            self.began.insert(key, (state, since));
            facts.push(Fact {
                package: version.package.clone(),
                version: version.version,
                state,
                bytes: version.bytes,
                bytes_left,
                cause,
                since,
            });
        }
        let told = |key: &Key| is_wished.contains(key) || is_held.contains(key);
        self.began.retain(|key, _| told(key));
        facts
    }
}

fn key(version: &VersionInfo) -> Key {
    (version.package.clone(), version.version)
}
