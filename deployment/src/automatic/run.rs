//! What a run of a rule did: its history, and where to go on with one that was cut off.
//!
//! A run is written before it does something, and again after each step; so whoever comes after a crash finds
//! what it was about, under the same names, and does the rest. Doing a step twice is the same as once.

use super::{AutomaticRule, LeftOut, Removed};
use crate::name::{DeploymentName, GroupName};
use crate::policy::DeploymentId;
use crate::ring::{Decision, Halt, Link, Standing, Word, advance};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::Value;
use sync::name::UpdateId;

/// So many updates are named of each kind; of those that wait, all.
pub const NAMED: usize = 200;

/// Why a rule is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its time came.
    Scheduled,
    /// A sync changed the catalogue.
    Sync,
    /// Somebody asked for it.
    Asked(String),
    /// What waited in the run of that number is tried again.
    Again(u64),
}

/// What a run is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It works out which updates are meant.
    #[default]
    Evaluate,
    /// It brings their files.
    Download,
    /// It puts what has come into the group, and deploys that.
    Deploy,
    /// It is over.
    Over,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All that is meant is in the group.
    Done,
    /// Some of it waits for files.
    Partial,
    /// The rule means no update now.
    Nothing,
    /// It came to nothing: the detail says why.
    Failed,
}

/// One run of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number, from 1.
    pub number: u64,
    /// Why it was begun.
    pub cause: Cause,
    /// When it was scheduled for: times of deployments are counted from here.
    pub scheduled: Timestamp,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// What it is at.
    pub step: Step,
    /// The group that it fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// How many updates the criteria let through.
    #[serde(default)]
    pub matched: u64,
    /// How many came into the group, went, and stayed.
    #[serde(default)]
    pub added: u64,
    /// How many went out of it.
    #[serde(default)]
    pub removed: u64,
    /// How many stayed in it.
    #[serde(default)]
    pub kept: u64,
    /// Some of those that went, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went: Vec<(UpdateId, Removed)>,
    /// Some of those that were left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<(UpdateId, LeftOut)>,
    /// All that wait for files, by id and name, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waits>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Ended>,
    /// What is to be said of that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How often it was begun again after the server had stopped.
    #[serde(default)]
    pub resumed: u32,
}
impl Value for Run {}

/// An update that waits for its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Which.
    pub id: UpdateId,
    /// What its upstream calls it.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Run {
    /// A run that begins.
    pub fn new(number: u64, cause: Cause, scheduled: Timestamp, now: Timestamp) -> Self {
        Self {
            number,
            cause,
            scheduled,
            started: now,
            ended: None,
            step: Step::default(),
            group: None,
            matched: 0,
            added: 0,
            removed: 0,
            kept: 0,
            went: Vec::new(),
            left_out: Vec::new(),
            waiting: Vec::new(),
            result: None,
            detail: String::new(),
            resumed: 0,
        }
    }

    /// That it is over.
    pub fn end(&mut self, result: Ended, detail: impl Into<String>, now: Timestamp) {
        self.step = Step::Over;
        self.result = Some(result);
        self.detail = detail.into();
        self.ended = Some(now);
    }
}

/// The deployments of one group, in the order of their rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The group.
    pub group: GroupName,
    /// When the run was scheduled for that filled it last: times of what opens with the first are counted from here.
    pub scheduled: Timestamp,
    /// That too many machines failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// Its deployments.
    pub links: Vec<ChainLink>,
}
impl Value for Chain {}

/// One deployment of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// What the rule calls it.
    pub name: DeploymentName,
    /// What the deployment is called; it is made under that name once it opens.
    pub deployment: DeploymentName,
    /// Which it is, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DeploymentId>,
    /// Since when it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
    /// What a person said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<Word>,
    /// Failures that a person has seen.
    #[serde(default)]
    pub forgiven: u64,
}

impl Chain {
    /// That of a group which is about to be deployed first.
    pub fn new(group: GroupName, scheduled: Timestamp) -> Self {
        Self { group, scheduled, halted: None, links: Vec::new() }
    }

    /// Has its deployments as the rule has them: those that are new come in, those that the rule has no more go, unless they
    /// are open. `name` makes the name of a deployment.
    pub fn follow(
        &mut self,
        rule: &AutomaticRule,
        mut name: impl FnMut(&DeploymentName) -> DeploymentName,
    ) {
        let mut old = std::mem::take(&mut self.links);
        for deployment in &rule.deployments {
            let known = old.iter().position(|link| link.name == deployment.name);
            self.links.push(match known {
                Some(at) => old.remove(at),
                None => ChainLink {
                    name: deployment.name.clone(),
                    deployment: name(&deployment.name),
                    id: None,
                    opened: None,
                    word: None,
                    forgiven: 0,
                },
            });
        }
        self.links.extend(old.into_iter().filter(|link| link.opened.is_some()));
    }

    /// What each of its deployments is to do. A new halt is kept in it.
    pub fn advance(
        &mut self,
        rule: &AutomaticRule,
        standing: impl FnMut(DeploymentId) -> Standing,
        now: Timestamp,
    ) -> Vec<Decision> {
        let links: Vec<Link> = self.links(rule, standing);
        let (decisions, halted) = advance(&links, self.halted, now);
        self.halted = halted;
        decisions
    }

    fn links(
        &self,
        rule: &AutomaticRule,
        mut standing: impl FnMut(DeploymentId) -> Standing,
    ) -> Vec<Link> {
        // Where all are open, nobody asks how they stand.
        let is_asked = self.links.iter().any(|link| link.opened.is_none());
        let mut standing = |id| if is_asked { standing(id) } else { Standing::default() };
        let mut link = |link: &ChainLink| Link {
            ring: rule.deployment(&link.name).and_then(|deployment| deployment.ring),
            opened: link.opened,
            word: link.word,
            standing: link.id.map(&mut standing).unwrap_or_default(),
            forgiven: link.forgiven,
        };
        self.links.iter().map(&mut link).collect()
    }

    /// Has it go on after a halt: the failures that there are now are seen, and only more of them halt it again.
    pub fn resume(&mut self, mut standing: impl FnMut(DeploymentId) -> Standing) {
        self.halted = None;
        for link in &mut self.links {
            link.forgiven = link.id.map_or(0, |id| standing(id).failed);
        }
    }
}
