//! A client as PROTOCOL.md wants it, small: its true states, what it has not yet been told is taken, and
//! what it makes of answers.

use compliance::digest::StateDigest;
use compliance::fleet::Fingerprint;
use compliance::message::{
    Answer, Batch, ClientId, Incarnation, Kind, Refusal, Scan, ScanOutcome, State, StateMessage,
    UpdateRevision,
};
use std::collections::BTreeMap;
use sync::name::UpdateId;
use uuid::Uuid;

pub struct Client {
    pub id: ClientId,
    pub key: Fingerprint,
    pub incarnation: Incarnation,
    /// The revision and state of each update, as they are.
    pub truth: BTreeMap<UpdateId, (u32, State)>,
    /// The number of each update's last change, if it is not known to be taken.
    pending: BTreeMap<UpdateId, u64>,
    /// The number of the next change.
    pub counter: u64,
    pub acked: u64,
    pub wants_full: bool,
    /// How far its clock is off, in seconds.
    pub clock_off: i64,
}

/// A batch under way.
#[derive(Clone)]
pub struct Sent {
    pub client: usize,
    pub incarnation: Incarnation,
    pub key: Fingerprint,
    pub bytes: Vec<u8>,
}

pub fn update(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

impl Client {
    pub fn new(n: u8, life: u64) -> Self {
        Self {
            id: ClientId(Uuid::from_u128(n.into())),
            key: Fingerprint([n; 32]),
            incarnation: Incarnation(life.try_into().unwrap()),
            truth: BTreeMap::new(),
            pending: BTreeMap::new(),
            counter: 0,
            acked: 0,
            wants_full: false,
            clock_off: 0,
        }
    }

    /// Its store is made anew.
    pub fn reimage(&mut self, life: u64) {
        let (id, key, clock_off) = (self.id, self.key, self.clock_off);
        let incarnation = Incarnation(life.try_into().unwrap());
        *self = Self { id, key, clock_off, incarnation, ..Self::new(0, 1) };
    }

    pub fn change(&mut self, update: UpdateId, revision: u32, state: State) {
        match state {
            State::Unknown => drop(self.truth.remove(&update)),
            _ => drop(self.truth.insert(update, (revision, state))),
        }
        self.pending.insert(update, self.counter);
        self.counter += 1;
    }

    /// A scan that found no change.
    pub fn scanned(&mut self) {
        self.counter += 1;
    }

    pub fn has_news(&self) -> bool {
        self.wants_full || self.acked < self.counter
    }

    pub fn batch(&mut self, now: i64) -> Batch {
        if self.acked == self.counter {
            self.counter += 1;
        }
        let of = |(id, (revision, state)): (&UpdateId, &(u32, State))| StateMessage {
            update: UpdateRevision { id: *id, revision: *revision },
            state: *state,
            age: 60,
        };
        let states: Vec<_> = if self.wants_full {
            self.truth.iter().map(of).collect()
        } else {
            let gone = (0, State::Unknown);
            let changed = self.pending.keys();
            changed.map(|id| of((id, self.truth.get(id).unwrap_or(&gone)))).collect()
        };
        let outcome = ScanOutcome::Completed;
        let truth = self.truth.iter().map(of).map(|it| (it.update, it.state));
        Batch {
            client: self.id,
            incarnation: self.incarnation,
            first: self.acked,
            next: self.counter,
            kind: if self.wants_full { Kind::Full } else { Kind::Changes },
            sent: now + self.clock_off,
            scan: Some(Scan { age: 5, outcome, completed: Some(5), catalogue: 1 }),
            waiting: 0,
            digest: StateDigest::of(truth),
            states,
        }
    }

    /// What it makes of an answer to something it sent in this life.
    pub fn hear(&mut self, answer: &Answer) {
        match *answer {
            Answer::Accepted { next, resync } | Answer::Duplicate { next, resync } => {
                self.go_on(next);
                self.wants_full |= resync.is_some();
                if resync.is_none() && next == self.counter {
                    self.wants_full = false;
                }
            }
            Answer::Gap { expected, resync } => {
                if resync.is_some() || expected < self.acked {
                    self.wants_full = true;
                } else {
                    self.go_on(expected);
                }
            }
            Answer::Refused { why: Refusal::Malformed { .. } } => self.wants_full = true,
            Answer::Busy { .. } | Answer::Refused { .. } => {}
        }
    }

    fn go_on(&mut self, next: u64) {
        self.acked = self.acked.max(next);
        self.counter = self.counter.max(next);
        let acked = self.acked;
        self.pending.retain(|_, number| *number >= acked);
    }
}
