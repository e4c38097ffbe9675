//! Where a point's transfers wait for their turn.
//!
//! Whoever reads bytes of an answer takes a [`Turn`] first, of a [`Lane`] that is one version's. The
//! turn costs the bucket [`STEP`] bytes beforehand, and what the piece really had afterwards. With no
//! limit and nobody of a higher priority on the way, it costs a lock and no more.

use super::bucket::Bucket;
use super::line::Line;
use super::turns::{LaneId, Ticket, Turns};
use crate::field::{Limit, Priority};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a piece of an answer is taken to have before it is read: a frame of HTTP/2.
const STEP: u64 = 16 << 10;
/// Whoever waits looks again after so long, at the latest.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer is left unread while others come first. Well below the time after which its
/// server would take us for gone.
const GIVE_WAY: Duration = Duration::from_secs(10);

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
    pub fn open(&self, priority: Priority, line: Line) -> Lane {
        let id = self.0.lock().turns.open(priority, Instant::now());
        let answers = Arc::new(Semaphore::new(line.answers.into()));
        Lane(Arc::new(OneLane { gate: self.clone(), id, answers }))
    }
}

impl State {
    /// The turn of `ticket`, if it is its turn; else how long until it may be.
    fn try_turn(&mut self, lane: LaneId, ticket: Ticket) -> Result<(), Duration> {
        let now = Instant::now();
        if self.turns.next(now) != Some((lane, ticket)) {
            return Err(LOOK);
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
    answers: Arc<Semaphore>,
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
    /// Gives it another priority from now on.
    pub fn rank(&self, priority: Priority) {
        let mut state = self.0.gate.0.lock();
        state.turns.rank(self.0.id, priority);
        state.wake_next();
    }

    /// Waits until something may be asked for. Nobody is kept waiting meanwhile but the caller.
    pub async fn ask(&self) -> Answer {
        let place = self.0.answers.clone().acquire_owned().await.expect("it is never closed");
        drop(self.wait(None).await);
        Answer { lane: self.clone(), _place: place }
    }

    /// Waits for a turn. With a time to give up after, none comes of it if for so long all turns were
    /// of higher priorities.
    async fn wait(&self, give_up: Option<Duration>) -> Option<Turn> {
        let wants = Wants::new(self);
        let mut held_back: Option<Instant> = None;
        loop {
            let wait = match wants.try_turn() {
                Ok(turn) => return Some(turn),
                Err(wait) => wait.min(LOOK),
            };
            let now = Instant::now();
            let since = match self.0.gate.0.lock().turns.is_held_back(self.0.id, now) {
                true => *held_back.get_or_insert(now),
                false => {
                    held_back = None;
                    now
                }
            };
            if give_up.is_some_and(|give_up| now.duration_since(since) >= give_up) {
                return None;
            }
            let _ = tokio::time::timeout(wait, wants.waker.notified()).await;
        }
    }
}

/// One answer that is open. Each of its pieces is read in a turn.
#[derive(Debug)]
pub struct Answer {
    lane: Lane,
    _place: OwnedSemaphorePermit,
}

impl Answer {
    /// Waits until something may be read of it. Nothing if others have come first for a while and it
    /// should be given up and asked for again: its server takes an answer that is not read for one
    /// whose client is gone.
    pub async fn turn(&self) -> Option<Turn> {
        self.lane.wait(Some(GIVE_WAY)).await
    }
}

/// Somebody who waits; forgotten when dropped.
struct Wants<'a> {
    lane: &'a Lane,
    ticket: Ticket,
    waker: Arc<Notify>,
}

impl<'a> Wants<'a> {
    fn new(lane: &'a Lane) -> Self {
        let waker = Arc::new(Notify::new());
        let mut state = lane.0.gate.0.lock();
        let ticket = state.turns.want(lane.0.id);
        state.waiting.insert(ticket, waker.clone());
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
        let mut state = self.lane.0.gate.0.lock();
        state.waiting.remove(&self.ticket);
        state.turns.done(self.lane.0.id, self.ticket);
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
        let OneLane { gate, id, .. } = &*self.lane.0;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> Line {
        Line::of(None, 1)
    }

    #[tokio::test]
    async fn bytes_pass_at_the_rate_and_what_is_not_used_is_given_back() {
        let gate = Gate::default();
        gate.set(Some(Limit { rate: 8 << 20, burst: 64 << 10 }));
        let lane = gate.open(Priority::Low, free());
        let began = Instant::now();
        let (mut passed, mut n) = (0, 0);
        while passed < 1 << 20 {
            let turn = lane.ask().await.turn().await.unwrap();
            n += 1;
            // Some come to nothing.
            if n % 3 != 0 {
                turn.took(20_000);
                passed += 20_000;
            }
        }
        let most = (64 << 10) + 20_000 + (began.elapsed().as_secs_f64() * (8 << 20) as f64) as u64;
        assert!(passed <= most, "{passed} bytes passed, and {most} may");
    }

    #[tokio::test]
    async fn a_limit_that_is_lifted_holds_nobody_any_longer() {
        let gate = Gate::default();
        gate.set(Some(Limit { rate: 1, burst: 1 }));
        let lane = gate.open(Priority::Low, free());
        let answer = lane.ask().await;
        answer.turn().await.unwrap().took(1 << 20);
        let waits = tokio::spawn(async move { answer.turn().await.is_some() });
        tokio::task::yield_now().await;
        gate.set(None);
        assert!(waits.await.unwrap());
        assert_eq!(gate.limit(), None);
    }

    #[tokio::test]
    async fn whoever_is_dropped_while_waiting_is_in_nobodys_way() {
        let gate = Gate::default();
        let (high, low) = (gate.open(Priority::High, free()), gate.open(Priority::Low, free()));
        let asked = high.ask().await;
        // Low waits for as long as high moves.
        assert!(tokio::time::timeout(Duration::from_millis(1), low.ask()).await.is_err());
        asked.turn().await.unwrap().took(5);
        drop((asked, high));
        let answer = low.ask().await;
        answer.turn().await.unwrap().took(5);
        low.rank(Priority::High);
        assert!(gate.0.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn on_a_slow_line_one_answer_is_open_at_a_time() {
        let gate = Gate::default();
        let slow = Line::of(Some(Limit { rate: 8000, burst: 8000 }), 1);
        let lane = gate.open(Priority::Medium, slow);
        let first = lane.ask().await;
        let mut second = tokio::spawn({
            let lane = lane.clone();
            async move { lane.ask().await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!((&mut second).await.is_ok());
    }
}
