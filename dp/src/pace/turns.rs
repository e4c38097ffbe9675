//! Whose turn it is: strict priorities, and shares among equals.
//!
//! Each version on its way is a lane, and each of its requests that wants to read is a ticket. The
//! next is of the highest priority that wants anything, and of the lane among those that has got the
//! fewest bytes since it began: start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights,
//! counted after the fact. So two packages of one priority share the link byte by byte, however many
//! requests each of them makes.
//!
//! A lane that moves holds back all of a lower priority even in the moments when it wants nothing: the
//! link may be what it waits for, and a limit need not be set. [`HOLD`] after its last byte it is taken
//! for stuck, and the others go on until it moves again.

use crate::field::Priority;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a lane that does not move keeps those of lower priorities back.
pub const HOLD: Duration = Duration::from_secs(5);
/// A lane that wanted nothing for a while makes up for so many bytes at most.
const CREDIT: u64 = 1 << 20;

/// One version on its way.
pub type LaneId = u64;
/// One wish for a turn.
pub type Ticket = u64;

#[derive(Debug)]
struct OneLane {
    priority: Priority,
    /// Bytes that it got, or is taken to have got: those of equals are compared.
    served: u64,
    waiting: VecDeque<Ticket>,
    /// When it last got bytes, or began.
    moved: Instant,
}

/// All lanes of a gate.
#[derive(Debug, Default)]
pub struct Turns {
    lanes: BTreeMap<LaneId, OneLane>,
    /// What the lane had got that had the last turn of each priority.
    reached: BTreeMap<Priority, u64>,
    last_id: u64,
}

impl Turns {
    /// A new lane. It does not make up for what others got before.
    pub fn open(&mut self, priority: Priority, now: Instant) -> LaneId {
        self.last_id += 1;
        let served = self.reached.get(&priority).copied().unwrap_or(0);
        let lane = OneLane { priority, served, waiting: VecDeque::new(), moved: now };
        self.lanes.insert(self.last_id, lane);
        self.last_id
    }

    /// The lane has another priority from now on. It begins there as a new one does.
    pub fn rank(&mut self, lane: LaneId, priority: Priority) {
        let served = self.reached.get(&priority).copied().unwrap_or(0);
        if let Some(lane) = self.lanes.get_mut(&lane)
            && lane.priority != priority
        {
            (lane.priority, lane.served) = (priority, served);
        }
    }

    /// The lane is no more.
    pub fn close(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        if self.lanes.is_empty() {
            self.reached.clear();
        }
    }

    /// A request of `lane` wants a turn. Of a lane that is closed it never comes.
    pub fn want(&mut self, lane: LaneId) -> Ticket {
        self.last_id += 1;
        if let Some(lane) = self.lanes.get_mut(&lane) {
            let reached = self.reached.get(&lane.priority).copied().unwrap_or(0);
            lane.served = lane.served.max(reached.saturating_sub(CREDIT));
            lane.waiting.push_back(self.last_id);
        }
        self.last_id
    }

    /// It wants none any more: it has had it, or has gone.
    pub fn done(&mut self, lane: LaneId, ticket: Ticket) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.waiting.retain(|waiting| *waiting != ticket);
        }
    }

    /// `lane` has the turn, which is taken to be of `n` bytes.
    pub fn serve(&mut self, lane: LaneId, n: u64, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            self.reached.insert(lane.priority, lane.served);
            lane.served = lane.served.saturating_add(n);
            lane.moved = lane.moved.max(now);
        }
    }

    /// A turn of `lane` came to `more` bytes more than it was taken to be of, or fewer.
    pub fn correct(&mut self, lane: LaneId, more: i64, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.served = lane.served.saturating_add_signed(more);
            lane.moved = lane.moved.max(now);
        }
    }

    /// Whose turn it is; nothing if nobody wants one, or all who do are held back.
    pub fn next(&self, now: Instant) -> Option<(LaneId, Ticket)> {
        let waiting =
            self.lanes.iter().filter_map(|(id, lane)| Some((id, lane, lane.waiting.front()?)));
        let by_rank = |(id, lane, _): &(&LaneId, &OneLane, &Ticket)| {
            (std::cmp::Reverse(lane.priority), lane.served, **id)
        };
        let (id, lane, ticket) = waiting.min_by_key(by_rank)?;
        self.is_free(lane.priority, now).then_some((*id, *ticket))
    }

    /// Whether a lane has to wait for higher priorities.
    pub fn is_held_back(&self, lane: LaneId, now: Instant) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| !self.is_free(lane.priority, now))
    }

    /// Whether nothing of a higher priority moves.
    fn is_free(&self, priority: Priority, now: Instant) -> bool {
        let moves = |lane: &OneLane| now.saturating_duration_since(lane.moved) < HOLD;
        !self.lanes.values().any(|lane| lane.priority > priority && moves(lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{High, Low, Medium};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const STEP: u64 = 16 << 10;

    /// Gives turns until so many bytes have passed; what each lane got. Every lane keeps wanting.
    fn pass(turns: &mut Turns, lanes: &[LaneId], bytes: u64, now: Instant) -> HashMap<LaneId, u64> {
        let mut got = HashMap::new();
        for _ in 0..bytes / STEP {
            let Some((lane, ticket)) = turns.next(now) else { break };
            turns.done(lane, ticket);
            turns.serve(lane, STEP, now);
            *got.entry(lane).or_default() += STEP;
            if lanes.contains(&lane) {
                turns.want(lane);
            }
        }
        got
    }

    #[test]
    fn the_urgent_overtake_in_the_middle_and_the_others_go_on_after_them() {
        let now = Instant::now();
        let mut turns = Turns::default();
        let low = turns.open(Low, now);
        turns.want(low);
        assert_eq!(pass(&mut turns, &[low], 10 << 20, now)[&low], 10 << 20);
        let high = turns.open(High, now);
        assert_eq!(turns.next(now), None, "also in the moments when it wants nothing");
        let ticket = turns.want(high);
        assert_eq!(turns.next(now), Some((high, ticket)));
        assert_eq!(pass(&mut turns, &[low, high], 1 << 20, now), HashMap::from([(high, 1 << 20)]));
        turns.close(high);
        assert_eq!(pass(&mut turns, &[low], 1 << 20, now)[&low], 1 << 20);
    }

    #[test]
    fn one_that_is_stuck_holds_nobody_back_for_long() {
        let now = Instant::now();
        let mut turns = Turns::default();
        let (low, high) = (turns.open(Low, now), turns.open(High, now));
        let ticket = turns.want(low);
        assert_eq!(turns.next(now + HOLD / 2), None);
        assert_eq!(turns.next(now + HOLD), Some((low, ticket)));
        turns.correct(high, 100, now + HOLD);
        assert_eq!(turns.next(now + HOLD), None, "it moves again");
    }

    #[test]
    fn equals_share_however_many_requests_they_make() {
        let now = Instant::now();
        let mut turns = Turns::default();
        let (a, b) = (turns.open(Medium, now), turns.open(Medium, now));
        for _ in 0..8 {
            turns.want(a);
        }
        turns.want(b);
        let got = pass(&mut turns, &[a, b], 8 << 20, now);
        assert_eq!((got[&a], got[&b]), (4 << 20, 4 << 20));
        // One that comes later makes up for nothing, and one that paused for a little.
        let c = turns.open(Medium, now);
        turns.want(c);
        let got = pass(&mut turns, &[a, b, c], 6 << 20, now);
        let all = [a, b, c].map(|lane| got[&lane]);
        assert!(all.iter().all(|got| got.abs_diff(2 << 20) <= STEP), "{all:?}");
    }

    #[test]
    fn what_is_closed_wants_nothing() {
        let now = Instant::now();
        let mut turns = Turns::default();
        let lane = turns.open(High, now);
        turns.want(lane);
        turns.close(lane);
        turns.want(lane);
        assert_eq!(turns.next(now), None);
        turns.serve(lane, 1, now);
        turns.done(lane, 1);
    }

    proptest! {
        /// No lane falls behind an equal one by more than what it may make up for, and none of a
        /// lower priority has a turn while one of a higher wants it.
        #[test]
        fn shares_are_fair_whatever_the_order(
            wants in proptest::collection::vec((0..4_usize, 1..STEP as i64), 1..400),
        ) {
            let now = Instant::now();
            let mut turns = Turns::default();
            let priorities = [Medium, Medium, Medium, High];
            let lanes = priorities.map(|priority| turns.open(priority, now));
            let mut got: HashMap<LaneId, u64> = HashMap::new();
            for lane in &lanes[..3] {
                turns.want(*lane);
            }
            for (at, n) in wants {
                if at == 3 {
                    turns.want(lanes[3]);
                }
                let later = now + HOLD;
                let (lane, ticket) = turns.next(later).unwrap();
                prop_assert_eq!(lane == lanes[3], at == 3);
                turns.done(lane, ticket);
                turns.serve(lane, STEP, now);
                turns.correct(lane, n - STEP as i64, now);
                *got.entry(lane).or_default() += n as u64;
                if lane != lanes[3] {
                    turns.want(lane);
                }
            }
            let of = |at: usize| got.get(&lanes[at]).copied().unwrap_or(0);
            let all = [of(0), of(1), of(2)];
            let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
            prop_assert!(most - least <= 2 * STEP, "{:?}", all);
        }
    }
}
