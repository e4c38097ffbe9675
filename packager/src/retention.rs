//! Which old versions go: when a new one comes, and by their age alone when none does.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// How many versions of a package are kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retention {
    /// The newest so many are kept.
    pub keep: NonZeroU32,
    /// Of those, ones that a newer version replaced more days ago go as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<NonZeroU32>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: NonZeroU32::new(5).expect("five is not zero"), days: None }
    }
}

impl Retention {
    /// Which of `versions` (number and time of creation, ascending) go at the time `now`. The
    /// newest and those in `held`, which channels point to, never do.
    pub fn expired(
        &self,
        versions: &[(u64, Timestamp)],
        held: &BTreeSet<u64>,
        now: Timestamp,
    ) -> Vec<u64> {
        let days = |n: NonZeroU32| SignedDuration::from_hours(24 * i64::from(n.get()));
        let n_over = versions.len().saturating_sub(self.keep.get() as usize);
        let goes = |at: usize, replaced: Timestamp| {
            let old = self.days.is_some_and(|n| now.duration_since(replaced) > days(n));
            at < n_over || old
        };
        let pairs = versions.windows(2).enumerate().filter_map(|(at, pair)| match pair {
            [(number, _), (_, replaced)] if goes(at, *replaced) => Some(*number),
            _ => None,
        });
        pairs.filter(|number| !held.contains(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(n * 86_400).unwrap()
    }
    fn keep(n: u32) -> Retention {
        Retention { keep: NonZeroU32::new(n).unwrap(), days: None }
    }
    fn versions(n: u64) -> Vec<(u64, Timestamp)> {
        (1..=n).map(|number| (number, day(number as i64))).collect()
    }

    #[test]
    fn the_oldest_go_first_but_for_those_held() {
        assert_eq!(keep(5).expired(&versions(5), &[].into(), day(9)), [0; 0]);
        assert_eq!(keep(5).expired(&versions(7), &[].into(), day(9)), [1, 2]);
        assert_eq!(keep(5).expired(&versions(7), &[1].into(), day(9)), [2]);
    }

    #[test]
    fn age_counts_from_the_day_of_the_next_version() {
        let aged = Retention { days: NonZeroU32::new(10), ..keep(5) };
        // Version 1 was replaced on day 2, version 2 on day 3.
        assert_eq!(aged.expired(&versions(3), &[].into(), day(12)), [0; 0]);
        let later = day(12) + SignedDuration::from_secs(1);
        assert_eq!(aged.expired(&versions(3), &[].into(), later), [1]);
        assert_eq!(aged.expired(&versions(3), &[].into(), day(1000)), [1, 2], "never the newest");
    }

    proptest! {
        #[test]
        fn the_newest_and_the_held_stay(
            n in 0u64..20, count in 1u32..6, held in prop::collection::btree_set(1u64..20, 0..4), now in 0i64..60,
            days in prop::option::of(1u32..9),
        ) {
            let retention = Retention { days: days.and_then(NonZeroU32::new), ..keep(count) };
            let expired = retention.expired(&versions(n), &held, day(now));
            prop_assert!(expired.iter().all(|v| *v < n && !held.contains(v)));
            if days.is_none() {
                let over = n.saturating_sub(u64::from(count));
                prop_assert!(expired.iter().all(|v| *v <= over));
                prop_assert!((1..=over).all(|v| expired.contains(&v) || held.contains(&v)));
            }
        }
    }
}
