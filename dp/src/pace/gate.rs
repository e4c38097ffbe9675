//! Where a point's transfers wait for their turn.
//!
//! Whoever reads bytes of an answer takes a [`Turn`] first, of a [`Lane`] that is one version's. The
//! turn costs the bucket [`STEP`] bytes beforehand, and what the piece really had afterwards. With no
//! limit and nobody of a higher priority on the way, it costs a lock and no more.

use super::bucket::Bucket;
use super::turns::{LaneId, Ticket, Turns};
use crate::field::{Limit, Priority};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What a piece of an answer is taken to have before it is read: a frame of HTTP/2.
const STEP: u64 = 16 << 10;
/// Whoever waits looks again after so long, at the latest.
const LOOK: Duration = Duration::from_secs(1);

/// The gate of one point. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    bucket: Option<Bucket>,
    limit: Option<Limit>,
    /// Wakes each that waits.
    waiting: HashMap<Ticket, Arc<Notify>>,
}

impl Gate {
    /// Sets the limit of all lanes together, from now on.
    pub fn set(&self, limit: Option<Limit>) {
        let mut state = self.0.lock();
        if state.limit == limit {
            return;
        }
        let now = Instant::now();
        match (limit, &mut state.bucket) {
            (None, bucket) => *bucket = None,
            (Some(limit), Some(bucket)) => bucket.set(limit, now),
            (Some(limit), bucket) => *bucket = Some(Bucket::new(limit, now)),
        }
        state.limit = limit;
        state.wake_next();
    }

    /// The limit of all lanes together.
    pub fn limit(&self) -> Option<Limit> {
        self.0.lock().limit
    }

    /// A way through for something of this priority, until it is dropped.
    pub fn open(&self, priority: Priority) -> Lane {
        let id = self.0.lock().turns.open(priority, Instant::now());
        Lane(Arc::new(OneLane { gate: self.clone(), id }))
    }
}

impl State {
    /// A turn of `lane`, if it is its turn, or the turn of `ticket`; else how long until it may be.
    fn try_turn(&mut self, lane: LaneId, ticket: Option<Ticket>) -> Result<(), Duration> {
        let now = Instant::now();
        match self.turns.next(now) {
            Some(next) if Some(next) != ticket.map(|ticket| (lane, ticket)) => return Err(LOOK),
            Some(_) => {}
            // Somebody has to wait in order to have a turn while others are on their way.
            None => return Err(LOOK),
        }
        if let Some(bucket) = &mut self.bucket {
            match bucket.wait(now) {
                Duration::ZERO => bucket.take(STEP as i64, now),
                wait => return Err(wait),
            }
        }
        self.turns.serve(lane, STEP, now);
        Ok(())
    }

    /// Lets whoever is next look at the clock.
    fn wake_next(&self) {
        if let Some((_, ticket)) = self.turns.next(Instant::now())
            && let Some(waker) = self.waiting.get(&ticket)
        {
            waker.notify_one();
        }
    }
}

#[derive(Debug)]
struct OneLane {
    gate: Gate,
    id: LaneId,
}

impl Drop for OneLane {
    fn drop(&mut self) {
        let mut state = self.gate.0.lock();
        state.turns.close(self.id);
        state.wake_next();
    }
}

/// One version's way through the gate. Clones are the same way; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Lane(Arc<OneLane>);

impl Lane {
    /// Waits until something may be read.
    pub async fn turn(&self) -> Turn {
        let wants = Wants::new(self);
        loop {
            let wait = match wants.try_turn() {
                Ok(turn) => return turn,
                Err(wait) => wait.min(LOOK),
            };
            let _ = tokio::time::timeout(wait, wants.waker.notified()).await;
        }
    }
}

/// Somebody who waits; forgotten when dropped.
struct Wants<'a> {
    lane: &'a Lane,
    ticket: Option<Ticket>,
    waker: Arc<Notify>,
}

impl<'a> Wants<'a> {
    fn new(lane: &'a Lane) -> Self {
        let waker = Arc::new(Notify::new());
        let mut state = lane.0.gate.0.lock();
        // The lane is open as long as it can be asked for.
        let ticket = state.turns.want(lane.0.id);
        if let Some(ticket) = ticket {
            state.waiting.insert(ticket, waker.clone());
        }
        drop(state);
        Self { lane, ticket, waker }
    }

    fn try_turn(&self) -> Result<Turn, Duration> {
        let lane = self.lane.clone();
        self.lane.0.gate.0.lock().try_turn(lane.0.id, self.ticket)?;
        Ok(Turn { lane, owed: STEP as i64 })
    }
}

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.lane.0.gate.0.lock();
        state.waiting.remove(&ticket);
        state.turns.done(self.lane.0.id, ticket);
        state.wake_next();
    }
}

/// The right to read one piece of an answer. What it is not used for is given back.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    lane: Lane,
    /// Bytes that were paid for, and have not come.
    owed: i64,
}

impl Turn {
    /// So many bytes came.
    pub fn took(mut self, n: usize) {
        self.owed -= n as i64;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.owed == 0 {
            return;
        }
        let OneLane { gate, id } = &*self.lane.0;
        let mut state = gate.0.lock();
        let now = Instant::now();
        if let Some(bucket) = &mut state.bucket {
            bucket.take(-self.owed, now);
        }
        state.turns.correct(*id, -self.owed, now);
        if self.owed > 0 {
            state.wake_next();
        }
    }
}
