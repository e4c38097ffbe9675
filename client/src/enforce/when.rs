//! When a deployment is carried out on a machine.
//!
//! Times of a deployment are moments, or what the clock of the machine shows. After the deadline comes the grace period
//! where the deployment allows one, and then the machine's place in the spread, so that not all machines begin at once.

use crate::settings::Settings;
use deployment::policy::DeploymentPolicy;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::time::Duration;

/// The times of a deployment on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From when its updates may be installed.
    pub available: Timestamp,
    /// When they must be; none of an optional deployment.
    pub deadline: Option<Timestamp>,
    /// From when the machine installs them by itself.
    pub enforced: Option<Timestamp>,
}

impl Times {
    /// Those of a deployment on a machine at that place in the spread, from 0 up to 1.
    pub fn of(
        deployment: &DeploymentPolicy,
        zone: &TimeZone,
        settings: &Settings,
        chance: f64,
    ) -> Self {
        // What lies beyond the ends of time never comes.
        let available = deployment.available.at(zone).unwrap_or(Timestamp::MAX);
        let deadline = deployment.deadline.map(|it| it.at(zone).unwrap_or(Timestamp::MAX));
        let deadline = deadline.map(|it| it.max(available));
        let experience = &deployment.experience;
        let grace = if experience.grace { settings.grace } else { Duration::ZERO };
        let spread = match experience.spread {
            true => settings.deadline_spread.mul_f64(chance.clamp(0.0, 1.0)),
            false => Duration::ZERO,
        };
        let enforced = deadline.map(|deadline| later(deadline, grace + spread));
        Self { available, deadline, enforced }
    }
}

/// So much later, or the end of time.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// How long it is from `from` to `to`; nothing, if that is over.
pub(super) fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::tests::deployment;
    use deployment::policy::When;

    fn settings() -> Settings {
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        Settings { grace: hours(5), deadline_spread: hours(2), ..Settings::default() }
    }

    #[test]
    fn grace_and_spread_count_where_the_deployment_lets_them() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let mut it = deployment(1, "d");
        it.available = When::Utc("2026-06-01T00:00:00Z".parse().unwrap());
        it.deadline = Some(When::Local("2026-06-08T02:00:00".parse().unwrap()));
        let enforced = |it: &DeploymentPolicy, chance| {
            Times::of(it, &zone, &settings(), chance).enforced.unwrap().to_string()
        };
        it.experience.spread = false;
        assert_eq!(enforced(&it, 0.5), "2026-06-08T00:00:00Z");
        it.experience.spread = true;
        assert_eq!(enforced(&it, 0.5), "2026-06-08T01:00:00Z");
        it.experience.grace = true;
        assert_eq!(enforced(&it, 0.5), "2026-06-08T06:00:00Z");
        // A deadline before the available time is no reason to come early.
        it.available = When::Utc("2026-07-01T00:00:00Z".parse().unwrap());
        it.experience = Default::default();
        assert_eq!(enforced(&it, 0.0), "2026-07-01T00:00:00Z");
        it.deadline = None;
        assert_eq!(Times::of(&it, &zone, &settings(), 0.5).enforced, None);
    }
}
