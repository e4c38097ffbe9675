//! How long is waited before a site is asked again: to be let in, and for the next policy.
//!
//! The question for the next policy waits at the site ([`WAIT`]), so a client that is answered asks at once again.
//! Where the site is away, or does not want the client, it is asked ever more seldom. Half of each wait is chance, so
//! that the clients of a site that comes back do not come together.

use std::time::Duration;

/// How long the question for the next policy waits at the site.
pub const WAIT: Duration = Duration::from_secs(50);
/// How many of those whose question waits a site answers in a second, about, where one change concerns very many.
pub const ANSWERS_A_SECOND: f64 = 20_000.0;
/// How long at most one that the site does not let in keeps quiet.
pub const QUIET: Duration = Duration::from_secs(3_600);

const MINUTE: Duration = Duration::from_secs(60);
/// How long one that waits for approval waits before it asks again, about.
const PENDING: Duration = MINUTE;
/// How long one waits at first that wants to join and could not ask.
const TO_JOIN: Duration = Duration::from_secs(10);
/// The same of one that asks for its policy.
const FOR_POLICY: Duration = Duration::from_secs(2);

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The site does not let this client in: so it is until somebody does something about it.
    NotLetIn,
    /// It is away, busy, or makes no sense; and for how long it asked to be left alone, if it did.
    Away(Option<Duration>),
}

/// How often one question in a row was not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// Notes that the site answered.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after the site said that an administrator has to approve first.
    pub fn pending(&mut self, chance: f64) -> Duration {
        self.answered();
        PENDING.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// How long to wait after a machine was not let join.
    pub fn to_join(&mut self, why: Why, chance: f64) -> Duration {
        let first = if why == Why::NotLetIn { MINUTE } else { TO_JOIN };
        let wait = self.doubled(first, QUIET, chance);
        match why {
            Why::Away(Some(asked)) => wait.max(asked.min(QUIET)),
            _ => wait,
        }
    }

    /// How long to wait after the policy could not be had, where the settings have it asked for every so often.
    pub fn for_policy(&mut self, why: Why, poll_every: Duration, chance: f64) -> Duration {
        match why {
            Why::NotLetIn => self.doubled(MINUTE, QUIET, chance),
            Why::Away(_) => self.doubled(FOR_POLICY, poll_every.max(MINUTE), chance),
        }
    }

    fn doubled(&mut self, first: Duration, most: Duration, chance: f64) -> Duration {
        let doubled = first.saturating_mul(1 << self.failures.min(12)).min(most);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn one_that_is_refused_asks_ever_more_seldom_and_one_that_waits_does_not() {
        let mut patience = Patience::default();
        let mut wait = |why, chance| patience.to_join(why, chance).as_secs();
        let waits: Vec<u64> = (0..8).map(|_| wait(Why::NotLetIn, 1.0)).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        assert_eq!(patience.pending(0.5).as_secs(), 60);
        assert_eq!(patience.to_join(Why::Away(None), 1.0).as_secs(), 10);
        let busy = Why::Away(Some(Duration::from_secs(500)));
        assert_eq!(patience.to_join(busy, 0.0).as_secs(), 500);
    }

    #[test]
    fn a_site_that_is_away_is_asked_for_the_policy_at_least_as_often_as_it_is_set() {
        let mut patience = Patience::default();
        let mut wait = || patience.for_policy(Why::Away(None), HOUR, 1.0).as_secs();
        let waits: Vec<u64> = (0..13).map(|_| wait()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 3_600, 3_600]);
        patience.answered();
        assert_eq!(patience.for_policy(Why::Away(None), HOUR, 0.0).as_secs(), 1);
        assert_eq!(patience.for_policy(Why::NotLetIn, HOUR, 1.0).as_secs(), 120);
    }
}
