//! From current to superseded, expired and purged: a pure decision over dates and relations.
//!
//! | state | since when | what it means |
//! | --- | --- | --- |
//! | current | it came | it is offered |
//! | superseded | at once, when an update that replaces it is there | it is still offered, by its own name |
//! | expired | some months after the *creation* of what replaced it; at once if its upstream took it back, no source has it any more, or the criteria leave it out | no new deployments |
//! | purged | some days after it was expired and last deployed | its text and files go; a small mark stays, so that it does not come back |
//!
//! Months are counted by the calendar, in UTC: what was created on 30 November is three months old on
//! 28 or 29 February. So every site comes to the same date.

use crate::name::UpdateId;
use crate::taxonomy::Classification;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How far an update's life has gone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing replaces it.
    #[default]
    Current,
    /// Something does.
    Superseded,
    /// It gets no new deployments.
    Expired,
    /// Only a mark of it is left.
    Purged,
}

impl State {
    /// All of them, in order.
    pub const ALL: [State; 4] = [Self::Current, Self::Superseded, Self::Expired, Self::Purged];

    /// The word for it in commands, filters and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Purged => "purged",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an update is expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its upstream took it back.
    Upstream,
    /// No source has it any more.
    Withdrawn,
    /// The criteria leave it out.
    Criteria,
    /// It was replaced long enough ago.
    Superseded {
        /// By what: of several, the one that was created first.
        by: UpdateId,
    },
    /// The parent site says so.
    Parent,
}

impl Why {
    /// Whether the policy decides it, and not the upstream or the criteria.
    pub fn is_by_policy(self) -> bool {
        matches!(self, Self::Superseded { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("its upstream took it back"),
            Self::Withdrawn => f.write_str("no source has it any more"),
            Self::Criteria => f.write_str("the criteria leave it out"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::Parent => f.write_str("the parent site expired it"),
        }
    }
}

/// That an update is expired: since when, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

/// How long a superseded update is kept from expiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Wait {
    /// So many months from the creation of what replaced it; 0 is at once.
    Months(u16),
    /// For ever.
    Never,
}

/// Text that is no time to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time to wait; want a number of months from 0 to {MAX_MONTHS}, or 'never'")]
pub struct NotAWait(String);

/// The longest wait, in months.
pub const MAX_MONTHS: u16 = 240;

impl FromStr for Wait {
    type Err = NotAWait;
    /// Reads `3` or `never`.
    fn from_str(text: &str) -> Result<Self, NotAWait> {
        if text == "never" {
            return Ok(Self::Never);
        }
        match text.parse() {
            Ok(months) if months <= MAX_MONTHS => Ok(Self::Months(months)),
            _ => Err(NotAWait(text.chars().take(50).collect())),
        }
    }
}

impl TryFrom<String> for Wait {
    type Error = NotAWait;
    fn try_from(text: String) -> Result<Self, NotAWait> {
        text.parse()
    }
}

impl From<Wait> for String {
    fn from(wait: Wait) -> String {
        wait.to_string()
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Months(months) => write!(f, "{months}"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// When updates expire and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How long superseded updates are kept from expiring.
    pub supersedence: Wait,
    /// The same for updates of one classification, as upgrades, in its place.
    pub by_classification: BTreeMap<Classification, Wait>,
    /// Days after which what is expired and not deployed is purged; none keeps it for ever.
    pub purge_after_days: Option<u16>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            supersedence: Wait::Months(3),
            by_classification: BTreeMap::new(),
            purge_after_days: Some(30),
        }
    }
}

impl Policy {
    /// How long a superseded update of that classification waits.
    pub fn wait(&self, classification: Option<Classification>) -> Wait {
        let own = classification.and_then(|class| self.by_classification.get(&class));
        own.copied().unwrap_or(self.supersedence)
    }
}

/// Whether an update is deployed: asked of who keeps deployments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// It never was.
    #[default]
    Never,
    /// It was, until then.
    Until(Timestamp),
    /// It is.
    Deployed,
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its classification.
    pub classification: Option<Classification>,
    /// The published update that replaces it and was created first, and when that was.
    pub superseded: Option<(UpdateId, Timestamp)>,
    /// What is recorded of its expiry.
    pub expired: Option<Expiry>,
    /// Whether it is deployed.
    pub used: Use,
}

/// What is to become of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How far it is.
    pub state: State,
    /// What is to be recorded of its expiry. One that was decided by the policy goes again when the update
    /// is superseded no more, or the policy waits longer.
    pub expired: Option<Expiry>,
    /// When it goes one state further if nothing else happens.
    pub next: Option<Timestamp>,
}

/// What is to become of an update with these facts, at `now`.
pub fn decide(facts: &Facts, policy: &Policy, now: Timestamp) -> Decision {
    let due = facts.superseded.map(|(by, created)| {
        let due = match policy.wait(facts.classification) {
            Wait::Months(months) => months_after(created, months),
            Wait::Never => None,
        };
        (by, due)
    });
    let expired = match (facts.expired, due) {
        (Some(expired), _) if !expired.why.is_by_policy() => Some(expired),
        (before, Some((by, Some(due)))) if due <= now => {
            // It counts from when it was expired here, so that nothing is purged unseen.
            let at = before.map_or(now, |before| before.at);
            Some(Expiry { at, why: Why::Superseded { by } })
        }
        _ => None,
    };
    let Some(expiry) = expired else {
        let state = if due.is_some() { State::Superseded } else { State::Current };
        return Decision { state, expired, next: due.and_then(|(_, due)| due) };
    };
    let since = match facts.used {
        Use::Deployed => None,
        Use::Until(until) => Some(until.max(expiry.at)),
        Use::Never => Some(expiry.at),
    };
    let purge = since.zip(policy.purge_after_days);
    let purge = purge.and_then(|(since, days)| days_after(since, days));
    let state = if purge.is_some_and(|at| at <= now) { State::Purged } else { State::Expired };
    Decision { state, expired, next: purge.filter(|at| *at > now) }
}

/// The same day and time so many months later, or the month's last day where it has no such day; none
/// beyond the calendar.
fn months_after(time: Timestamp, months: u16) -> Option<Timestamp> {
    let span = Span::new().months(i64::from(months));
    Some(time.to_zoned(TimeZone::UTC).checked_add(span).ok()?.timestamp())
}

fn days_after(time: Timestamp, days: u16) -> Option<Timestamp> {
    time.checked_add(Span::new().hours(i64::from(days) * 24)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        format!("{text}T12:00:00Z").parse().unwrap()
    }

    fn superseded(created: &str) -> Facts {
        let by = UpdateId::named(&["new"]);
        Facts { superseded: Some((by, time(created))), ..Facts::default() }
    }

    #[test]
    fn months_end_with_the_month() {
        let after = |from: &str, months| months_after(time(from), months).unwrap();
        assert_eq!(after("2025-11-30", 3), time("2026-02-28"));
        assert_eq!(after("2023-11-30", 3), time("2024-02-29"));
        assert_eq!(after("2026-01-31", 1), time("2026-02-28"));
        assert_eq!(after("2026-01-31", 2), time("2026-03-31"));
        assert_eq!(after("2024-02-29", 12), time("2025-02-28"));
        assert_eq!(after("2026-05-15", 0), time("2026-05-15"));
        assert_eq!(months_after("9999-12-01T00:00:00Z".parse().unwrap(), 3), None);
    }

    #[test]
    fn a_superseded_update_expires_after_the_policys_months() {
        let facts = superseded("2025-11-30");
        let at = |now: &str| decide(&facts, &Policy::default(), time(now));
        let before = at("2026-02-27");
        assert_eq!((before.state, before.expired), (State::Superseded, None));
        assert_eq!(before.next, Some(time("2026-02-28")));
        let on_the_day = at("2026-02-28");
        assert_eq!(on_the_day.state, State::Expired);
        let why = Why::Superseded { by: UpdateId::named(&["new"]) };
        assert_eq!(on_the_day.expired, Some(Expiry { at: time("2026-02-28"), why }));
        let nothing = decide(&Facts::default(), &Policy::default(), time("2026-02-28"));
        assert_eq!(nothing, Decision { state: State::Current, expired: None, next: None });
    }

    #[test]
    fn a_classification_may_have_a_wait_of_its_own() {
        let upgrades = BTreeMap::from([(Classification::Upgrade, Wait::Never)]);
        let policy = Policy {
            supersedence: Wait::Months(0),
            by_classification: upgrades,
            ..Policy::default()
        };
        let facts = superseded("2026-01-01");
        assert_eq!(decide(&facts, &policy, time("2026-01-01")).state, State::Expired);
        let facts = Facts { classification: Some(Classification::Upgrade), ..facts };
        assert_eq!(decide(&facts, &policy, time("2046-01-01")).state, State::Superseded);
    }

    #[test]
    fn what_is_expired_goes_when_it_was_not_deployed_for_long() {
        let expired = Expiry { at: time("2026-01-01"), why: Why::Withdrawn };
        let facts = |used| Facts { expired: Some(expired), used, ..Facts::default() };
        let state = |used, now: &str| decide(&facts(used), &Policy::default(), time(now)).state;
        assert_eq!(state(Use::Never, "2026-01-30"), State::Expired);
        assert_eq!(state(Use::Never, "2026-01-31"), State::Purged);
        assert_eq!(state(Use::Until(time("2026-03-01")), "2026-03-30"), State::Expired);
        assert_eq!(state(Use::Until(time("2026-03-01")), "2026-03-31"), State::Purged);
        assert_eq!(state(Use::Deployed, "2036-01-01"), State::Expired);
        let keep = Policy { purge_after_days: None, ..Policy::default() };
        assert_eq!(decide(&facts(Use::Never), &keep, time("2036-01-01")).state, State::Expired);
    }

    #[test]
    fn what_the_policy_expired_comes_back_when_the_policy_waits_longer() {
        let why = Why::Superseded { by: UpdateId::named(&["new"]) };
        let expired = Some(Expiry { at: time("2026-02-01"), why });
        let facts = Facts { expired, ..superseded("2025-11-01") };
        let with = |months| {
            let policy = Policy { supersedence: Wait::Months(months), ..Policy::default() };
            decide(&facts, &policy, time("2026-02-10"))
        };
        assert_eq!(with(3).expired, expired, "the date of its expiry stays");
        assert_eq!((with(6).state, with(6).expired), (State::Superseded, None));
        let alone = Facts { superseded: None, ..facts };
        assert_eq!(decide(&alone, &Policy::default(), time("2026-02-10")).state, State::Current);
    }

    #[test]
    fn a_policy_reads_back_as_it_was_written() {
        let policy = Policy {
            by_classification: BTreeMap::from([(Classification::Upgrade, Wait::Never)]),
            ..Policy::default()
        };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert!("241".parse::<Wait>().unwrap_err().to_string().contains("never"));
    }
}
