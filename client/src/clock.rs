//! Time that only goes forward, whatever happens to the clock on the wall.
//!
//! Clocks of machines are set: by hours, in both directions, and again and again. What is awaited here is
//! counted in time that passed: while a machine runs, by its counter since it started, which nobody sets; over
//! a restart by the clock on the wall, as far as that went forward. So a wait never becomes longer than it was
//! meant to be, and a clock that jumps ends at most one wait a restart too early.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Add;
use std::time::Duration;

/// What the clocks of a machine show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The clock on the wall.
    pub wall: Timestamp,
    /// Which start of the machine this is: on Linux `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The time since that start, sleep included.
    pub uptime: Duration,
}

/// A moment in the time that passed since the agent was there first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long after `earlier` it is; nothing, if it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(length))
    }
}

/// Makes moments of what clocks show. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steady {
    last: Option<Reading>,
    passed: Moment,
}

impl Steady {
    /// The moment of a reading. Never before that of an earlier one.
    pub fn at(&mut self, reading: Reading) -> Moment {
        let step = match &self.last {
            None => Duration::ZERO,
            Some(last) if last.boot == reading.boot => reading.uptime.saturating_sub(last.uptime),
            Some(last) => {
                let by_wall = reading.wall.duration_since(last.wall);
                // It has been running for as long, at least.
                Duration::try_from(by_wall).unwrap_or_default().max(reading.uptime)
            }
        };
        self.passed = self.passed + step;
        self.last = Some(reading);
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(wall: i64, boot: u8, uptime: u64) -> Reading {
        let wall = Timestamp::from_second(wall).unwrap();
        Reading { wall, boot: boot.to_string(), uptime: Duration::from_secs(uptime) }
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing_while_the_machine_runs() {
        let mut steady = Steady::default();
        let start = steady.at(reading(1_000_000, 1, 50));
        let later = steady.at(reading(1_000_000 + 9 * 3_600, 1, 60));
        assert_eq!(later.since(start), Duration::from_secs(10));
        let back = steady.at(reading(3, 1, 80));
        assert_eq!(back.since(later), Duration::from_secs(20));
    }

    #[test]
    fn time_that_the_machine_was_off_counts() {
        let mut steady = Steady::default();
        let before = steady.at(reading(1_000_000, 1, 50));
        let after = steady.at(reading(1_086_400, 2, 10));
        assert_eq!(after.since(before), Duration::from_secs(86_400));
        // Started again with a clock that is a day behind.
        let again = steady.at(reading(1_000_000, 3, 30));
        assert_eq!(again.since(after), Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn it_never_goes_back(
            readings in prop::collection::vec((any::<i32>(), 0..3u8, any::<u32>()), 0..30),
        ) {
            let (mut steady, mut last) = (Steady::default(), Moment::default());
            for (wall, boot, uptime) in readings {
                let now = steady.at(reading(wall.into(), boot, uptime.into()));
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
