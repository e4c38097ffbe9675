//! One simulated machine: what it sends next, and what it makes of an answer.
//!
//! A scan takes one number, so a machine remembers no messages: what changed between two scans follows from the
//! [`World`]. It keeps to an agent's pace, by the agent's own code.

use super::world::World;
use ::client::clock::Moment;
use ::client::ledger::pace::Pace;
use ::compliance::digest::StateDigest;
use ::compliance::message::{
    Answer, Batch, Incarnation, Kind, Malformed, Scan, ScanOutcome, State, StateMessage,
};
use ::dp::identity::Identity;
use std::{num::NonZeroU64, time::Duration};

/// Scans of one batch of a backlog.
const BACKLOG_STEP: u64 = 6;

/// A machine.
pub struct Machine {
    /// Which.
    pub n: u32,
    /// Who it is to the site, once it joined.
    pub identity: Option<Identity>,
    /// When it reports.
    pub pace: Pace,
    /// Its last scan.
    pub scan: Option<u64>,
    /// The number that the site expects next: what it has of the scans before.
    expected: u64,
    /// Whether the site asked for all.
    owes_all: bool,
    /// Whether it had its policy.
    pub has_policy: bool,
    /// How many scans it will have made at the end.
    pub left: u64,
    chances: u64,
}

/// What happens to a batch on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It never arrives.
    Lost,
    /// It arrives twice.
    Twice,
    /// A later one arrives in its place.
    Early,
    /// Some bytes of it are others.
    Damaged,
}

impl Machine {
    /// A machine that will scan so many times.
    pub fn new(n: u32, scans: u64) -> Self {
        Self {
            n,
            identity: None,
            pace: Pace::default(),
            scan: None,
            expected: 0,
            owes_all: false,
            has_policy: false,
            left: scans,
            chances: 0,
        }
    }

    /// The next chance of its own, from 0 to 1.
    pub fn chance(&mut self, world: &World) -> f64 {
        self.chances += 1;
        world.chance(self.n, self.chances)
    }

    /// Scans.
    pub fn scans(&mut self) {
        self.scan = Some(self.scan.map_or(0, |scan| scan + 1));
        self.left = self.left.saturating_sub(1);
    }

    /// Whether the site has all that it has to say.
    pub fn is_done(&self) -> bool {
        self.scan.is_none_or(|scan| self.expected > scan) && !self.owes_all
    }

    /// What is wrong with the next batch, of so many in 100.
    pub fn harm(&mut self, world: &World, percent: u8) -> Option<Harm> {
        let all = [Harm::Lost, Harm::Twice, Harm::Early, Harm::Damaged];
        if self.chance(world) * 100.0 >= percent.into() {
            return None;
        }
        let which = (self.chance(world) * all.len() as f64) as usize;
        all.get(which.min(all.len() - 1)).copied()
    }

    /// The next batch, as it is sent.
    ///
    /// # Errors
    /// It is beyond the limits.
    pub fn batch(
        &mut self,
        world: &World,
        harm: Option<Harm>,
        now: i64,
    ) -> Result<Vec<u8>, Malformed> {
        if self.owes_all && self.scan.is_none_or(|scan| self.expected > scan) {
            // What is said anew takes a number, also where there is nothing new.
            self.scan = Some(self.expected);
        }
        let last = self.scan.unwrap_or_default();
        let is_early = harm == Some(Harm::Early) && !self.owes_all;
        let first = self.expected + u64::from(is_early);
        let upto = match self.owes_all {
            true => last,
            false => last.min(first + BACKLOG_STEP - 1).max(first),
        };
        let (before, after) = (first.checked_sub(1), Some(upto));
        let all = (0..world.updates).map(|update| {
            let state = world.state(self.n, update, after);
            (update, world.update(update), state)
        });
        let all: Vec<_> = all.collect();
        let digest = StateDigest::of(all.iter().map(|(_, update, state)| (*update, *state)));
        let is_told = |(update, _, state): &(u32, _, State)| match self.owes_all {
            true => *state != State::Unknown,
            false => world.state(self.n, *update, before) != *state,
        };
        let told = all.into_iter().filter(is_told);
        let batch = Batch {
            client: world.client(self.n),
            incarnation: Incarnation(NonZeroU64::MIN),
            first,
            next: upto + 1,
            kind: if self.owes_all { Kind::Full } else { Kind::Changes },
            sent: now,
            scan: Some(Scan {
                age: 60,
                outcome: ScanOutcome::Completed,
                completed: Some(60),
                catalogue: 1,
            }),
            waiting: u32::try_from(last.saturating_sub(upto)).unwrap_or(u32::MAX),
            digest,
            states: told
                .map(|(_, update, state)| StateMessage { update, state, age: 60 })
                .collect(),
        };
        let mut bytes = batch.encode()?;
        if harm == Some(Harm::Damaged) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
        }
        Ok(bytes)
    }

    /// Takes an answer of the site.
    pub fn answered(&mut self, world: &World, answer: &Answer, now: Moment) {
        let chance = self.chance(world);
        let (next, resync) = match *answer {
            Answer::Accepted { next, resync } => {
                if self.owes_all && self.scan.is_some_and(|scan| next > scan) {
                    self.owes_all = false;
                }
                (next, resync)
            }
            Answer::Duplicate { next, resync } => (next, resync),
            Answer::Gap { expected, resync } => (expected, resync),
            Answer::Busy { retry_after } => {
                let asked = Duration::from_secs(retry_after.into());
                return self.pace.failed(now, Some(asked), chance);
            }
            Answer::Refused { .. } => return self.damaged(world, now),
        };
        self.expected = next;
        self.owes_all |= resync.is_some() || self.scan.is_none_or(|scan| next > scan + 1);
        self.pace.sent(now, !self.is_done(), chance);
    }

    /// Takes it that the last batch could not be read: all is to be said.
    pub fn damaged(&mut self, world: &World, now: Moment) {
        self.owes_all = true;
        let chance = self.chance(world);
        self.pace.sent(now, true, chance);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use ::compliance::fleet::{Enrolment, Fingerprint, Standing};
    use ::compliance::{Compliance, Settings};
    use jiff::Timestamp;

    #[test]
    fn whatever_happens_to_batches_the_site_ends_with_the_truth() {
        let world = World { seed: 3, updates: 40 };
        let site = Compliance::open(sitedb::Db::in_memory(), Settings::default()).unwrap();
        let (now, moment) = (Timestamp::now(), Moment::default());
        for n in 0..20 {
            let key = Fingerprint([n as u8; 32]);
            let id = world.client(n);
            let new = Enrolment { id, key, name: format!("m{n}"), standing: Standing::Approved };
            site.enrol(new, now).unwrap();
            let mut machine = Machine::new(n, 30);
            let mut sent = 0;
            while machine.left > 0 || !machine.is_done() {
                if machine.left > 0 {
                    machine.scans();
                }
                let harm = machine.harm(&world, 50);
                let bytes = machine.batch(&world, harm, now.as_second()).unwrap();
                for _ in 0..1 + u8::from(harm == Some(Harm::Twice)) {
                    if harm != Some(Harm::Lost) {
                        let answer = site.accept(&key, bytes.clone(), now).unwrap();
                        machine.answered(&world, &answer, moment);
                    }
                }
                sent += 1;
                assert!(sent < 1_000, "it does not end");
            }
            let page = site.page(0).unwrap();
            let mut told: Vec<_> = page.states().find(|(it, _)| *it == id).unwrap().1.collect();
            let truth = (0..40).map(|it| (world.update(it), world.state(n, it, machine.scan)));
            let mut truth: Vec<_> = truth.filter(|(_, it)| *it != State::Unknown).collect();
            told.sort_unstable();
            truth.sort_unstable();
            assert_eq!(told, truth);
        }
    }
}
