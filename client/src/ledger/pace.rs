//! When the messages that wait are sent.
//!
//! In bulk every quarter of an hour; within two minutes after an installation. A site that is busy says when
//! it wants to be asked again, or is asked ever more seldom; and everything is moved by chance, so that
//! the clients of a site that comes back do not come together.

use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often messages are sent in bulk.
pub const BULK: Duration = Duration::from_secs(15 * 60);
/// How long after an installation they are sent at the latest.
pub const SOON: Duration = Duration::from_secs(2 * 60);
/// How long is waited at first after a failure, and at most.
pub const FIRST_WAIT: Duration = Duration::from_secs(60);
/// How long is waited at most, unless the site asks for more.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
/// The longest wait that a site may ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(6 * 3_600);
/// How long at most is waited between two batches of one backlog.
pub const BETWEEN: Duration = Duration::from_secs(20);

/// When the next batch is due. To be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    due: Option<Moment>,
    /// Before when the site is not asked, whatever happens.
    not_before: Option<Moment>,
    failures: u32,
}

impl Pace {
    /// Notes that messages wait which a scan found, and are sent every so often: by default [`BULK`].
    pub fn waits(&mut self, now: Moment, every: Duration) {
        self.no_later(now + every);
    }

    /// Notes that from now on they are sent every so often: what waits for longer than that is sent within it, by
    /// chance, as others hear of it at the same time.
    pub fn shortened(&mut self, now: Moment, every: Duration, chance: f64) {
        if self.due.is_some_and(|due| due > now + every) {
            self.no_later(now + every.mul_f64(chance.clamp(0.0, 1.0)));
        }
    }

    /// Notes that messages wait which say what became of an installation, or of a restart: they are sent within
    /// that time, by default [`SOON`].
    pub fn waits_after_install(&mut self, now: Moment, within: Duration, chance: f64) {
        self.no_later(now + within.mul_f64(chance.clamp(0.0, 1.0)));
    }

    /// Notes that somebody at the machine wants what waits to be sent now.
    pub fn at_once(&mut self, now: Moment) {
        (self.due, self.not_before) = (Some(now), None);
    }

    /// When the next batch is to be sent; none, if nothing waits.
    pub fn due(&self) -> Option<Moment> {
        Some(self.due?.max(self.not_before.unwrap_or_default()))
    }

    /// Whether it is to be sent now.
    pub fn is_due(&self, now: Moment) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Notes that a batch was taken, and whether more waits.
    pub fn sent(&mut self, now: Moment, is_more: bool, chance: f64) {
        let next = now + BETWEEN.mul_f64(chance.clamp(0.0, 1.0));
        *self = Self { due: is_more.then_some(next), not_before: None, failures: 0 };
    }

    /// Notes that a batch was not taken, and for how long the site asked to be left alone, if it did.
    ///
    /// Half of each wait is fixed and half is chance (AWS Architecture Blog, "Exponential backoff and jitter":
    /// equal jitter); what the site asked for is kept whole, and chance comes on top.
    pub fn failed(&mut self, now: Moment, asked: Option<Duration>, chance: f64) {
        let chance = chance.clamp(0.0, 1.0);
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let wait = match asked {
            Some(asked) => asked.min(LONGEST_ASKED) + doubled.mul_f64(chance),
            None => doubled.mul_f64(0.5 + chance / 2.0),
        };
        self.not_before = Some(now + wait);
        self.due = Some(now + wait);
    }

    fn no_later(&mut self, moment: Moment) {
        self.due = Some(self.due.map_or(moment, |due| due.min(moment)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(Duration::from_secs(1_000));

    #[test]
    fn messages_are_sent_every_quarter_of_an_hour_and_within_two_minutes_after_an_installation() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.waits(NOW, BULK);
        assert_eq!(pace.due(), Some(NOW + BULK));
        // What comes later does not put it off.
        pace.waits(NOW + BULK / 2, BULK);
        assert_eq!(pace.due(), Some(NOW + BULK));
        pace.waits_after_install(NOW, SOON, 1.0);
        assert_eq!(pace.due(), Some(NOW + SOON));
        assert!(pace.is_due(NOW + SOON) && !pace.is_due(NOW));
        pace.sent(NOW + SOON, false, 0.5);
        assert_eq!(pace.due(), None);
        pace.failed(NOW, None, 1.0);
        pace.at_once(NOW);
        assert!(pace.is_due(NOW), "who asks for it is not kept waiting");
    }

    #[test]
    fn a_shorter_period_shortens_the_wait_that_is_running_and_a_longer_one_does_not_lengthen_it() {
        let mut pace = Pace::default();
        pace.shortened(NOW, SOON, 0.5);
        assert_eq!(pace.due(), None, "nothing waits");
        pace.waits(NOW, BULK);
        pace.shortened(NOW, 2 * BULK, 0.0);
        assert_eq!(pace.due(), Some(NOW + BULK));
        pace.shortened(NOW, SOON, 0.5);
        assert_eq!(pace.due(), Some(NOW + SOON / 2));
        // What a site that is busy asked for stands.
        pace.failed(NOW, Some(BULK), 0.0);
        pace.shortened(NOW, SOON, 0.0);
        assert_eq!(pace.due(), Some(NOW + BULK));
    }

    #[test]
    fn a_site_that_is_busy_is_asked_ever_more_seldom_and_not_sooner_than_it_said() {
        let mut pace = Pace::default();
        pace.waits(NOW, BULK);
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.failed(NOW, None, 1.0);
            waits.push(pace.due().unwrap().since(NOW).as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
        let asked = Duration::from_secs(7_000);
        pace.failed(NOW, Some(asked), 0.3);
        assert!(pace.due().unwrap() >= NOW + asked);
        // An installation does not override that.
        pace.waits_after_install(NOW, SOON, 0.0);
        assert!(pace.due().unwrap() >= NOW + asked);
        pace.failed(NOW, Some(Duration::MAX), 0.0);
        assert_eq!(pace.due(), Some(NOW + LONGEST_ASKED), "nobody can silence a client for ever");
        pace.sent(NOW, true, 1.0);
        assert_eq!(pace.due(), Some(NOW + BETWEEN));
        pace.failed(NOW, None, 1.0);
        assert_eq!(pace.due(), Some(NOW + FIRST_WAIT), "it begins anew");
    }

    #[test]
    fn clients_that_failed_together_come_back_apart() {
        // A site of 1000 clients was away for a day: all are at the longest wait.
        let mut minutes = [0_u32; 30];
        for client in 0..1_000 {
            let chance = f64::from(client) / 1_000.0;
            let mut pace = Pace { failures: 12, ..Pace::default() };
            pace.failed(NOW, None, chance);
            minutes[(pace.due().unwrap().since(NOW).as_secs() / 60) as usize] += 1;
        }
        assert!(minutes.iter().all(|count| *count <= 68), "{minutes:?}");
    }
}
