//! Deployments: that the machines of a collection get the updates of a group.

use crate::name::{CollectionName, DeploymentName, GroupName};
use crate::policy::{Experience, When};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::ops::RangeInclusive;

/// The longest comment, in bytes.
pub const MAX_COMMENT: usize = 1_000;
/// How long one update may take to install, in minutes.
pub const RUN_TIMES: RangeInclusive<u16> = 5..=9_999;

/// That the machines of a collection get the updates of a group. It follows both: who comes into the collection gets
/// it, and what comes into the group is deployed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What people call it.
    pub name: DeploymentName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Which updates.
    pub group: GroupName,
    /// On which machines.
    pub collection: CollectionName,
    /// From when they may be installed.
    pub available: When,
    /// When they must be; none of an optional deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<When>,
    /// How it is carried out.
    #[serde(default)]
    pub experience: Experience,
    /// Whether clients are told of it.
    pub enabled: bool,
    /// Below which percentage of compliance administrators are told, once its deadline is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_below: Option<u8>,
    /// When it was made.
    pub created: Timestamp,
}
impl Value for Deployment {}

/// What of a deployment cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct Unfit {
    /// Which part of it.
    pub field: &'static str,
    /// Why not, and what may be.
    pub why: String,
}

impl Deployment {
    /// Whether it can be.
    ///
    /// # Errors
    /// If not, says what of it.
    pub fn check(&self) -> Result<(), Unfit> {
        let unfit = |field, why: String| Err(Unfit { field, why });
        match (self.available, self.deadline) {
            (When::Utc(from), Some(When::Utc(until))) if until < from => {
                return unfit("deadline", format!("is before the available time, {from}"));
            }
            (When::Local(from), Some(When::Local(until))) if until < from => {
                return unfit("deadline", format!("is before the available time, {from}"));
            }
            (When::Utc(_), Some(When::Local(_))) | (When::Local(_), Some(When::Utc(_))) => {
                let why =
                    "and the available time must both be in UTC, or both by the clocks of clients";
                return unfit("deadline", why.into());
            }
            _ => {}
        }
        if let Some(minutes) = self.experience.max_run_time
            && !RUN_TIMES.contains(&minutes)
        {
            let (least, most) = (RUN_TIMES.start(), RUN_TIMES.end());
            return unfit("max_run_time", format!("must be from {least} to {most} minutes"));
        }
        if self.alert_below.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return unfit("alert_below", "must be from 1 to 100 percent".into());
        }
        if self.comment.len() > MAX_COMMENT {
            return unfit("comment", format!("must have at most {MAX_COMMENT} bytes"));
        }
        Ok(())
    }

    /// When its deadline is over everywhere; none if it has none, or beyond the end of time.
    pub fn over(&self) -> Option<Timestamp> {
        match self.deadline? {
            When::Utc(at) => Some(at),
            // The last clocks to show a time are twelve hours behind UTC.
            When::Local(time) => {
                let utc = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
                utc.checked_add(jiff::SignedDuration::from_hours(12)).ok()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn deployment(name: &str, group: &str, collection: &str) -> Deployment {
        Deployment {
            name: name.parse().unwrap(),
            comment: String::new(),
            group: group.parse().unwrap(),
            collection: collection.parse().unwrap(),
            available: When::Utc("2026-12-01T00:00:00Z".parse().unwrap()),
            deadline: Some(When::Utc("2026-12-08T00:00:00Z".parse().unwrap())),
            experience: Experience::default(),
            enabled: true,
            alert_below: Some(90),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn times_are_in_order_and_of_one_kind() {
        let good = deployment("a", "g", "c");
        assert_eq!(good.check(), Ok(()));
        let field = |it: Deployment| it.check().unwrap_err().field;
        let local = When::Local("2026-12-08T00:00:00".parse().unwrap());
        let early = When::Utc("2026-11-08T00:00:00Z".parse().unwrap());
        assert_eq!(field(Deployment { deadline: Some(local), ..good.clone() }), "deadline");
        assert_eq!(field(Deployment { deadline: Some(early), ..good.clone() }), "deadline");
        assert_eq!(Deployment { deadline: None, ..good.clone() }.check(), Ok(()));
        assert_eq!(field(Deployment { alert_below: Some(0), ..good.clone() }), "alert_below");
        let experience = Experience { max_run_time: Some(4), ..Experience::default() };
        assert_eq!(field(Deployment { experience, ..good }), "max_run_time");
    }

    #[test]
    fn a_local_deadline_is_over_when_the_last_clock_shows_it() {
        let local = When::Local("2026-12-08T00:00:00".parse().unwrap());
        let it = Deployment { deadline: Some(local), ..deployment("a", "g", "c") };
        assert_eq!(it.over().unwrap().to_string(), "2026-12-08T12:00:00Z");
    }
}
