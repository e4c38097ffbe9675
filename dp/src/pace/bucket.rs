//! How many bytes may pass now: a token bucket.
//!
//! Over any time t, no more passes than `burst + rate * t`, and the bytes of the last piece that was
//! let in: a piece may be larger than what is there, and what comes next waits until that is made up
//! for. It never owes more than [`MOST_OWED`].

use crate::field::Limit;
use std::time::{Duration, Instant};

/// The most that is owed; what goes beyond it is forgiven. More than any piece of an answer has, so
/// that it is met by nobody who waits for its turn.
const MOST_OWED: f64 = (4 << 20) as f64;
/// The longest wait that is told, however slow the rate.
const LONGEST: Duration = Duration::from_secs(3600);

/// A token bucket that is full at first.
#[derive(Clone, Debug)]
pub struct Bucket {
    limit: Limit,
    /// Bytes that may pass; below zero, bytes that are owed.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// The bucket of `limit`, at `now`. A rate or burst of nothing counts as one byte.
    pub fn new(limit: Limit, now: Instant) -> Self {
        let limit = Limit { rate: limit.rate.max(1), burst: limit.burst.max(1) };
        Self { limit, level: limit.burst as f64, at: now }
    }

    /// Another limit from now on. What has passed counts: nothing is won by setting it again.
    pub fn set(&mut self, limit: Limit, now: Instant) {
        self.fill(now);
        let level = self.level;
        *self = Self::new(limit, now);
        self.level = self.level.min(level);
    }

    /// How long until something may pass; zero if it may now.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        // From a byte on: else rounding might have somebody come back a moment too early, for ever.
        let lacks = 1.0 - self.level;
        if lacks <= 0.0 {
            return Duration::ZERO;
        }
        let seconds = lacks / self.limit.rate as f64;
        Duration::try_from_secs_f64(seconds).map_or(LONGEST, |wait| wait.min(LONGEST))
    }

    /// `n` bytes passed, or, if it is negative, did not after all.
    pub fn take(&mut self, n: i64, now: Instant) {
        self.fill(now);
        self.level = (self.level - n as f64).clamp(-MOST_OWED, self.limit.burst as f64);
    }

    fn fill(&mut self, now: Instant) {
        // None if `now` is before what was seen already: another thread was faster.
        let Some(passed) = now.checked_duration_since(self.at) else { return };
        let more = passed.as_secs_f64() * self.limit.rate as f64;
        self.level = (self.level + more).min(self.limit.burst as f64);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_burst_passes_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Limit { rate: 100, burst: 1000 }, start);
        assert_eq!(bucket.wait(start), Duration::ZERO);
        bucket.take(1000, start);
        assert_eq!(bucket.wait(start), SECOND / 100);
        bucket.take(99, start);
        assert_eq!(bucket.wait(start), SECOND);
        assert_eq!(bucket.wait(start + SECOND), Duration::ZERO);
        assert_eq!(bucket.wait(start), Duration::ZERO, "a time before the last is that time");
        // However long nothing passes, no more than the burst gathers.
        let late = start + 3600 * SECOND;
        bucket.take(1000, late);
        assert!(bucket.wait(late) > Duration::ZERO);
    }

    #[test]
    fn another_limit_forgives_nothing_and_gives_no_new_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Limit { rate: 100, burst: 100 }, start);
        bucket.take(300, start);
        bucket.set(Limit { rate: 200, burst: 4000 }, start);
        assert_eq!(bucket.wait(start), Duration::from_secs_f64(201.0 / 200.0));
        bucket.set(Limit { rate: 0, burst: 0 }, start);
        assert!(bucket.wait(start) > SECOND && bucket.wait(start) <= LONGEST);
        bucket.take(i64::MAX, start);
        bucket.set(Limit { rate: 1 << 20, burst: 1 }, start);
        assert!(bucket.wait(start) < 5 * SECOND, "what is owed is bounded");
    }

    proptest! {
        /// Whoever keeps to the waits gets no more than burst and rate give, and not much less.
        #[test]
        fn no_more_passes_than_burst_and_rate(
            rate in 1000..100_000_000_u64,
            burst in 1..10_000_000_u64,
            pieces in proptest::collection::vec((1..16_384_i64, 0..50_u64), 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(Limit { rate, burst }, start);
            let (mut now, mut passed, mut last) = (start, 0, 0);
            let mut was_idle = Duration::ZERO;
            for (piece, pause) in pieces {
                now += bucket.wait(now);
                prop_assert_eq!(bucket.wait(now), Duration::ZERO);
                let allowed = burst as f64 + rate as f64 * (now - start).as_secs_f64();
                prop_assert!(passed as f64 <= allowed + 1.0, "{} of {}", passed, allowed);
                bucket.take(piece, now);
                passed += piece;
                last = piece;
                let pause = Duration::from_millis(pause);
                was_idle += pause;
                now += pause;
            }
            let busy = (now - start).saturating_sub(was_idle).as_secs_f64();
            // Nobody waited who did not have to.
            prop_assert!(busy * rate as f64 <= (passed + last) as f64 + 200.0 * rate as f64 / 1e6);
        }
    }
}
