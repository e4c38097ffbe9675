//! What a rule is.

use super::{After, Evaluation};
use crate::policy::Experience;
use crate::ring::Ring;
use crate::window::Clock;
use crate::{CollectionName, DeploymentName};
use serde::{Deserialize, Serialize};
use sitedb::Value;
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use sync::filter::Filter;
use sync::taxonomy::Language;

/// How many deployments a rule may have.
pub const MAX_DEPLOYMENTS: usize = 50;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 1_000;

/// An automatic deployment rule, but for its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticRule {
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it is evaluated by itself.
    pub enabled: bool,
    /// Which updates it means. Those that are expired it never does.
    pub criteria: Filter,
    /// What becomes of updates whose terms a person must accept.
    #[serde(default)]
    pub licences: LicenceTerms,
    /// When it is evaluated.
    pub evaluation: Evaluation,
    /// Which group the updates come into.
    pub group: GroupMode,
    /// So many groups are kept of those that runs made, the newest ones; the others go, with what the rule deployed of them.
    /// All, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_groups: Option<NonZeroU16>,
    /// The deployment package that their files are downloaded to; without one nothing is downloaded, and only what is held
    /// already is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Languages of which files are downloaded, besides those that are for all; all, if none is named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub languages: BTreeSet<Language>,
    /// To whom the group is deployed, in the order of rings; to nobody where there is none: then updates are only grouped.
    #[serde(default)]
    pub deployments: Vec<RuleDeployment>,
}
impl Value for AutomaticRule {}

/// What becomes of updates whose terms a person must accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LicenceTerms {
    /// They are left out: somebody reads the terms first, and adds them to a group by hand.
    #[default]
    LeaveOut,
    /// They are deployed: whoever made the rule accepts the terms.
    Accept,
}

/// Which group the updates come into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupMode {
    /// A new one in each run that finds anything.
    #[default]
    New,
    /// One, of which each run makes what it finds, and nothing else.
    Reuse,
}

/// One of the deployments of a rule: to whom, when, and how. All share the rule's group and package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDeployment {
    /// What it is called within the rule.
    pub name: DeploymentName,
    /// To whom.
    pub collection: CollectionName,
    /// Whether what it makes counts: one that does not is there to be looked at, and to be enabled by a person.
    pub enabled: bool,
    /// When the updates are available.
    #[serde(default)]
    pub available: After,
    /// When they must be installed; without it they wait for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<After>,
    /// By which clock these are.
    pub clock: Clock,
    /// How it is carried out.
    #[serde(default)]
    pub experience: Experience,
    /// Below which percentage of compliance administrators are told, once its deadline is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_below: Option<u8>,
    /// What must come true of the deployment before it, before this one is made; without it, it is made at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Ring>,
}

/// Why a rule cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRule {
    /// All updates of the catalogue.
    #[error(
        "the rule means all updates there are: give it criteria, as 'classification = security'"
    )]
    NoCriteria,
    /// The description is too long.
    #[error("the description has more than {MAX_DESCRIPTION} bytes")]
    Description,
    /// There are too many deployments.
    #[error("a rule has {MAX_DEPLOYMENTS} deployments at most")]
    Deployments,
    /// Two deployments of one name.
    #[error("the rule has two deployments called {0}")]
    Twice(DeploymentName),
    /// It would be due before it is available.
    #[error(
        "deployment {name}: the deadline ({deadline}) may come before the available time ({available})"
    )]
    Deadline {
        /// Which.
        name: DeploymentName,
        /// When it is available.
        available: After,
        /// When it is due.
        deadline: After,
    },
    /// A percentage over a hundred, or a number that is none.
    #[error("deployment {name}: {why}")]
    Number {
        /// Which.
        name: DeploymentName,
        /// What is wrong.
        why: String,
    },
    /// The first deployment has none before it.
    #[error(
        "deployment {0} is the first, so there is none before it whose success it could wait for"
    )]
    FirstRing(DeploymentName),
    /// Rings of a group that is used again.
    #[error(
        "deployment {0} waits for the one before it, but the rule uses one group for all runs: what a run finds would \
         be everywhere at once where the rings are open already; let each run make a new group"
    )]
    RingOfReused(DeploymentName),
}

impl AutomaticRule {
    /// That it can be.
    ///
    /// # Errors
    /// What of it cannot.
    pub fn check(&self) -> Result<(), BadRule> {
        if self.criteria.is_all() {
            return Err(BadRule::NoCriteria);
        }
        if self.description.len() > MAX_DESCRIPTION {
            return Err(BadRule::Description);
        }
        if self.deployments.len() > MAX_DEPLOYMENTS {
            return Err(BadRule::Deployments);
        }
        let mut names = BTreeSet::new();
        for (nth, deployment) in self.deployments.iter().enumerate() {
            let name = &deployment.name;
            if !names.insert(name) {
                return Err(BadRule::Twice(name.clone()));
            }
            deployment.check()?;
            match (&deployment.ring, nth, self.group) {
                (Some(_), 0, _) => return Err(BadRule::FirstRing(name.clone())),
                (Some(_), _, GroupMode::Reuse) => return Err(BadRule::RingOfReused(name.clone())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The deployment of that name.
    pub fn deployment(&self, name: &DeploymentName) -> Option<&RuleDeployment> {
        self.deployments.iter().find(|deployment| deployment.name == *name)
    }
}

impl RuleDeployment {
    /// To a collection, available at once and without a deadline.
    pub fn to(name: DeploymentName, collection: CollectionName) -> Self {
        Self {
            name,
            collection,
            enabled: true,
            available: After::default(),
            deadline: None,
            clock: Clock::Utc,
            experience: Experience::default(),
            alert_below: None,
            ring: None,
        }
    }

    fn check(&self) -> Result<(), BadRule> {
        let name = || self.name.clone();
        if let Some(deadline) = self.deadline
            && !deadline.is_not_before(self.available)
        {
            return Err(BadRule::Deadline { name: name(), available: self.available, deadline });
        }
        if self.alert_below.is_some_and(|percent| !(1..=100).contains(&percent)) {
            let why = "an alert is below a percentage from 1 to 100".into();
            return Err(BadRule::Number { name: name(), why });
        }
        let ring = self.ring.map(|ring| ring.check()).transpose();
        ring.map(drop).map_err(|error| BadRule::Number { name: name(), why: error.to_string() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rule(criteria: &str) -> AutomaticRule {
        AutomaticRule {
            description: String::new(),
            enabled: true,
            criteria: criteria.parse().unwrap(),
            licences: LicenceTerms::default(),
            evaluation: Evaluation::default(),
            group: GroupMode::default(),
            keep_groups: None,
            package: None,
            languages: BTreeSet::new(),
            deployments: Vec::new(),
        }
    }

    fn to(name: &str) -> RuleDeployment {
        RuleDeployment::to(name.parse().unwrap(), "all".parse().unwrap())
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let good = rule("classification = security");
        good.check().unwrap();
        assert_eq!(rule("").check(), Err(BadRule::NoCriteria));
        let with = |deployments: Vec<RuleDeployment>| AutomaticRule { deployments, ..good.clone() };
        with(vec![to("pilot"), to("rest")]).check().unwrap();
        assert!(matches!(with(vec![to("a"), to("a")]).check(), Err(BadRule::Twice(_))));
        let at = |text: &str| text.parse().unwrap();
        let late =
            |available, deadline| RuleDeployment { available, deadline: Some(deadline), ..to("a") };
        assert!(matches!(
            with(vec![late(at("7d"), at("4h"))]).check(),
            Err(BadRule::Deadline { .. })
        ));
        with(vec![late(at("4h"), at("7d 20:00"))]).check().unwrap();
        let ring = |name: &str| RuleDeployment { ring: Some(Ring::default()), ..to(name) };
        assert!(matches!(with(vec![ring("a")]).check(), Err(BadRule::FirstRing(_))));
        with(vec![to("a"), ring("b")]).check().unwrap();
        let reused = AutomaticRule { group: GroupMode::Reuse, ..with(vec![to("a"), ring("b")]) };
        assert!(matches!(reused.check(), Err(BadRule::RingOfReused(_))));
        let warned = RuleDeployment { alert_below: Some(101), ..to("a") };
        assert!(matches!(with(vec![warned]).check(), Err(BadRule::Number { .. })));
    }

    #[test]
    fn a_rule_reads_back_from_what_is_kept() {
        let mut one = rule("classification = security and not superseded");
        one.evaluation = "monthly 2nd tue +1 at 20:00 Europe/Berlin".parse().unwrap();
        one.deployments = vec![to("pilot")];
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<AutomaticRule>(&json).unwrap(), one);
    }
}
