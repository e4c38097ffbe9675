//! One update that something is done for, and how often something is tried.

use crate::clock::Moment;
use deployment::enforcement::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often an installation is tried until deployments are evaluated again.
pub const INSTALL_TRIES: u32 = 4;
/// How long is waited after the first that failed, and at most.
pub const INSTALL_WAITS: (Duration, Duration) =
    (Duration::from_secs(10 * 60), Duration::from_secs(4 * 3_600));
/// How often a file or a document is tried until deployments are evaluated again.
pub const CONTENT_TRIES: u32 = 18;
/// How long is waited after the first that failed, and at most.
pub const CONTENT_WAITS: (Duration, Duration) =
    (Duration::from_secs(30), Duration::from_secs(4 * 3_600));
/// How often an update point is asked for updates that are deployed and that the catalogue lacks.
pub const LACKING_TRIES: u32 = 3;
/// How long is waited after the first time, and at most: a site takes some seconds to offer what it synchronised.
pub const LACKING_WAITS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(3_600));
/// How often a package may turn out to need another one, for one update.
pub const MAX_LACKS: usize = 200;

/// How something fares that may fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// How often it failed.
    pub failures: u32,
    /// Before when it is not tried again.
    pub again: Option<Moment>,
    /// Why it failed last.
    pub failure: Option<Failure>,
}

impl Retry {
    /// Notes a failure: the wait doubles each time; half of it is chance, so that machines do not come together.
    pub fn failed(
        &mut self,
        now: Moment,
        waits: (Duration, Duration),
        chance: f64,
        failure: Failure,
    ) {
        let wait = waits.0.saturating_mul(1 << self.failures.min(16)).min(waits.1);
        self.again = Some(now + wait.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0));
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(failure);
    }

    /// Whether it may be tried now.
    pub fn may(&self, now: Moment, tries: u32) -> bool {
        self.failures < tries && self.again.is_none_or(|again| again <= now)
    }

    /// When it may be tried; none, if it may not any more.
    pub fn when(&self, tries: u32) -> Option<Moment> {
        (self.failures < tries).then(|| self.again.unwrap_or_default())
    }
}

/// What is remembered of one update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// How far it is.
    pub phase: Phase,
    /// How installing it fares.
    pub retry: Retry,
    /// The packages that its installer said to lack: their files come too, if a deployment has them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<String>,
    /// Whether the machine was restarted for it, which happens once until deployments are evaluated again.
    pub was_restarted: bool,
    /// The start of the machine that has to end for it, should a scan find it installed though its installer failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_of: Option<String>,
    /// The start of the machine whose overlay it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_overlay_of: Option<String>,
}

/// How far an update is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was done, or it failed.
    #[default]
    Open,
    /// An installer was begun, and how it ended is not known.
    Begun,
    /// It ended well: whether the update is installed, a scan says.
    Ended,
    /// It is installed but for a restart.
    AwaitsRestart {
        /// The start of the machine that has to end.
        boot: String,
    },
    /// A scan said that it is installed.
    Installed,
}

impl Job {
    /// Whether that start of the machine has to end before it counts, where it is installed.
    pub fn needs_end_of(&self, boot: &str) -> bool {
        let waits = matches!(&self.phase, Phase::AwaitsRestart { boot: of } if of == boot);
        waits || self.restart_of.as_deref() == Some(boot)
    }

    /// Lets it be tried again as if it never had been.
    pub fn afresh(&mut self) {
        self.retry = Retry::default();
        self.was_restarted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let (mut retry, now) = (Retry::default(), Moment::default());
        let mut waits = Vec::new();
        while retry.failures < INSTALL_TRIES {
            assert!(retry.may(Moment(Duration::from_secs(1 << 40)), INSTALL_TRIES));
            retry.failed(now, INSTALL_WAITS, 1.0, Failure::new(1, "x"));
            waits.push(retry.again.unwrap().0.as_secs() / 60);
        }
        assert_eq!(waits, [10, 20, 40, 80]);
        assert!(!retry.may(Moment(Duration::MAX), INSTALL_TRIES));
        assert_eq!(retry.when(INSTALL_TRIES), None);
    }
}
