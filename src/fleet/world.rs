//! What is true of simulated machines: a function of the seed, so nothing of it has to be remembered.
//!
//! With each scan of a machine some of its updates change. What a state is after a scan follows from the last
//! scan that changed it, which is searched for backwards.

use ::compliance::message::{ClientId, State, UpdateRevision};
use ::sync::name::UpdateId;
use uuid::Uuid;

/// Of 100 updates so many change their state with a scan.
const CHANGE: u64 = 3;

/// All machines and what is true of them.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Decides everything.
    pub seed: u64,
    /// How many updates there are.
    pub updates: u32,
}

impl World {
    /// The id of a machine.
    pub fn client(&self, machine: u32) -> ClientId {
        let [high, low] = [1, 2].map(|part| self.mix(part, machine, 0, 0));
        ClientId(Uuid::from_u64_pair(high, low))
    }

    /// An update.
    pub fn update(&self, update: u32) -> UpdateRevision {
        let [high, low] = [3, 4].map(|part| self.mix(part, update, 0, 0));
        UpdateRevision { id: UpdateId(Uuid::from_u64_pair(high, low)), revision: 1 }
    }

    /// The state of an update on a machine after its scan of that number; before any, it is unknown.
    pub fn state(&self, machine: u32, update: u32, scan: Option<u64>) -> State {
        let Some(scan) = scan else { return State::Unknown };
        let changes = |scan: &u64| *scan == 0 || self.mix(5, machine, update, *scan) % 100 < CHANGE;
        let last = (0..=scan).rev().find(changes).unwrap_or_default();
        match self.mix(6, machine, update, last) % 100 {
            0..5 => State::Unknown,
            5..75 => State::NotRequired,
            75..85 => State::Required,
            _ => State::Installed,
        }
    }

    /// A chance from 0 to 1: the one of that number of a machine.
    pub fn chance(&self, machine: u32, number: u64) -> f64 {
        self.mix(7, machine, 0, number) as f64 / u64::MAX as f64
    }

    /// Many bits of few (Steele et al., "Fast splittable pseudorandom number generators", SplitMix64).
    fn mix(&self, what: u64, one: u32, other: u32, third: u64) -> u64 {
        let mut bits = self.seed;
        for part in [what, one.into(), other.into(), third] {
            bits = bits.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^= bits >> 31;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_what_its_seed_says_and_changes_a_little_with_each_scan() {
        let world = World { seed: 1, updates: 500 };
        assert_eq!(world.client(7), world.client(7));
        assert_ne!(world.client(7), World { seed: 2, ..world }.client(7));
        assert_eq!(world.state(7, 3, None), State::Unknown);
        let states = |scan| (0..500).map(|it| world.state(7, it, Some(scan))).collect::<Vec<_>>();
        let changed = states(4).iter().zip(states(5)).filter(|(a, b)| **a != *b).count();
        assert!((1..50).contains(&changed), "{changed}");
    }
}
