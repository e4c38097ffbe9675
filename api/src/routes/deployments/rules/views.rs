//! Rules, their previews, runs and rings, as they are shown.

use super::{RingBody, RuleDeploymentBody};
use crate::automatic::{Preview, rings};
use crate::problem::Problem;
use crate::site::Site;
use ::sync::name::UpdateId;
use deployment::RuleName;
use deployment::automatic::{
    AutomaticRule, Cause, Chain, Ended, GroupMode, LicenceTerms, Mark, RuleError, Run, Step,
};
use deployment::ring::{Decision, Standing, Waiting, Word};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use utoipa::ToSchema;

/// Updates that a preview names of each kind.
const NAMED: usize = 200;

/// An automatic deployment rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "patch-day", "enabled": true, "criteria": "classification = security and released >= 30d ago",
    "licences": "leave-out", "evaluation": "monthly 2nd tue +1 at 03:00 Europe/Berlin", "group": "new",
    "package": "patch-day", "languages": [], "deployments": [],
    "created": "2026-11-28T09:00:00Z", "next": "2026-12-09T02:00:00Z", "runs": 3, "running": false
}))]
pub struct RuleView {
    /// What it is called.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it is evaluated by itself.
    pub enabled: bool,
    /// Which updates it means.
    pub criteria: String,
    /// What becomes of updates with terms that nobody accepted.
    #[schema(value_type = String)]
    pub licences: LicenceTerms,
    /// When it is evaluated.
    pub evaluation: String,
    /// `new` or `reuse`.
    #[schema(value_type = String)]
    pub group: GroupMode,
    /// So many groups of those that runs made are kept; all, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_groups: Option<u16>,
    /// The deployment package that files are brought to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Languages of which files are brought; all, if none is named.
    pub languages: Vec<String>,
    /// Its deployments, in the order of rings.
    pub deployments: Vec<RuleDeploymentBody>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it is evaluated next, if that is by a calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// When what waits for files is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub again: Option<Timestamp>,
    /// How many runs it had.
    pub runs: u64,
    /// Whether it is being run.
    pub running: bool,
}

impl RuleView {
    pub(super) fn of(
        site: &Site,
        name: &RuleName,
        rule: &AutomaticRule,
        mark: &Mark,
    ) -> Result<Self, Problem> {
        let next = rule.evaluation.next(Timestamp::now()).map_err(RuleError::from)?;
        Ok(Self {
            name: name.to_string(),
            description: rule.description.clone(),
            enabled: rule.enabled,
            criteria: rule.criteria.to_string(),
            licences: rule.licences,
            evaluation: rule.evaluation.to_string(),
            group: rule.group,
            keep_groups: rule.keep_groups.map(Into::into),
            package: rule.package.clone(),
            languages: rule.languages.iter().map(ToString::to_string).collect(),
            deployments: rule.deployments.iter().map(RuleDeploymentBody::from).collect(),
            created: mark.created,
            next: next.filter(|_| rule.enabled),
            again: mark.again.filter(|_| rule.enabled),
            runs: mark.runs,
            running: site.fleet()?.rules.unfinished(name)?.is_some(),
        })
    }
}

/// An update that comes or goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "title": "openssl security update",
    "why": "does not fit any more: released >= 30d ago"
}))]
pub struct ChangedMember {
    /// Which.
    pub id: String,
    /// What its upstream calls it; empty, if the catalogue has it no more.
    pub name: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Why it goes, or is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What a run of a rule would come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "rule": "patch-day", "compared_with": "patch-day-2026-11-11", "matched": 37, "kept": 0, "bytes": 412000000,
    "added": [{"id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1"}], "n_added": 37,
    "removed": [], "n_removed": 0, "left_out": [], "n_left_out": 0, "to_bring": 12, "would_wait": 0,
    "deployments": [{"name": "pilot", "collection": "pilot", "machines": 412, "available": "2026-12-09T02:00:00Z"}],
    "hints": []
}))]
pub struct RulePreview {
    /// The rule.
    pub rule: String,
    /// The group that it is compared with; without one, all would be added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// How many updates the criteria let through.
    pub matched: u64,
    /// How many would stay in the group.
    pub kept: u64,
    /// The bytes of the files of all that would be in it.
    pub bytes: u64,
    /// The first of those that would come into it.
    pub added: Vec<ChangedMember>,
    /// How many would.
    pub n_added: u64,
    /// The first of those that would go, and why.
    pub removed: Vec<ChangedMember>,
    /// How many would.
    pub n_removed: u64,
    /// The first of those that the criteria let through and that would be left out, and why.
    pub left_out: Vec<ChangedMember>,
    /// How many would.
    pub n_left_out: u64,
    /// Files of how many would be brought to the package first.
    pub to_bring: u64,
    /// How many would wait, since their files are in no package and the rule has none.
    pub would_wait: u64,
    /// To whom it would be deployed, and when.
    pub deployments: Vec<PreviewedDeployment>,
    /// What of the criteria may be a slip of the pen.
    pub hints: Vec<String>,
}

/// A deployment that a run would make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "pilot", "collection": "pilot", "machines": 412, "available": "2026-12-09T02:00:00Z",
    "deadline": "2026-12-11T02:00:00Z"
}))]
pub struct PreviewedDeployment {
    /// What the rule calls it.
    pub name: String,
    /// To whom.
    pub collection: String,
    /// How many machines that is.
    pub machines: u64,
    /// When it would be available; not said of one that waits for the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// When it would be due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What it would wait for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits: String,
}

impl RulePreview {
    pub(super) fn of(
        site: &Site,
        name: &RuleName,
        rule: &AutomaticRule,
        preview: Preview,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let Preview { outcome, group, to_bring } = preview;
        let fleet = site.fleet()?;
        let mut deployments = Vec::new();
        for its in &rule.deployments {
            let members = fleet.members(&its.collection).map(|members| members.len());
            let mut shown = PreviewedDeployment {
                name: its.name.to_string(),
                collection: its.collection.to_string(),
                machines: members.unwrap_or_default(),
                available: None,
                deadline: None,
                waits: String::new(),
            };
            match its.ring {
                Some(ring) => {
                    let halt = ring.halt.map(|limit| format!(", unless {limit} of them fail"));
                    let hand = if ring.by_hand { ", and a person's go" } else { "" };
                    shown.waits = format!(
                        "{} days and {} % of the one before{}{hand}",
                        ring.after_days,
                        ring.success,
                        halt.unwrap_or_default()
                    );
                }
                None => {
                    let (available, deadline) = rings::times(rule, its, now)?;
                    shown.available = Some(available.to_string());
                    shown.deadline = deadline.map(|at| at.to_string());
                }
            }
            deployments.push(shown);
        }
        let named = |all: Vec<(UpdateId, String)>| named(site, all);
        let (n_added, n_removed, n_left_out) =
            (outcome.added.len(), outcome.removed.len(), outcome.left_out.len());
        let to_bring = to_bring.len() as u64;
        Ok(Self {
            rule: name.to_string(),
            compared_with: group.map(|group| group.to_string()),
            matched: outcome.matched,
            kept: outcome.kept,
            bytes: outcome.bytes,
            added: named(
                outcome.added.into_iter().map(|id| (id, String::new())).take(NAMED).collect(),
            )?,
            n_added: n_added as u64,
            removed: named(
                outcome
                    .removed
                    .into_iter()
                    .map(|(id, why)| (id, why.to_string()))
                    .take(NAMED)
                    .collect(),
            )?,
            n_removed: n_removed as u64,
            left_out: named(
                outcome
                    .left_out
                    .into_iter()
                    .map(|(id, why)| (id, why.to_string()))
                    .take(NAMED)
                    .collect(),
            )?,
            n_left_out: n_left_out as u64,
            to_bring: if rule.package.is_some() { to_bring } else { 0 },
            would_wait: if rule.package.is_none() { to_bring } else { 0 },
            deployments,
            hints: outcome.hints,
        })
    }
}

fn named(site: &Site, all: Vec<(UpdateId, String)>) -> Result<Vec<ChangedMember>, Problem> {
    let ids: Vec<UpdateId> = all.iter().map(|(id, _)| *id).collect();
    let titled = site.updates()?.catalogue().titled(&ids)?;
    let mut titled: HashMap<UpdateId, _> = titled.into_iter().map(|it| (it.id, it)).collect();
    let shown = all.into_iter().map(|(id, why)| {
        let found = titled.remove(&id);
        let (name, title) = found.map(|it| (it.name, it.title)).unwrap_or_default();
        ChangedMember { id: id.to_string(), name, title, why }
    });
    Ok(shown.collect())
}

/// A run of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "number": 3, "cause": "scheduled", "scheduled": "2026-11-11T02:00:00Z", "started": "2026-11-11T02:00:01Z",
    "ended": "2026-11-11T02:04:10Z", "step": "over", "result": "partial", "detail": "1 updates wait for files",
    "group": "patch-day-2026-11-11", "matched": 500, "added": 499, "removed": 0, "kept": 0,
    "waiting": [{"id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "why": "not found"}],
    "went": [], "left_out": [], "resumed": 0
}))]
pub struct RuleRunView {
    /// Its number, from 1.
    pub number: u64,
    /// Why it was begun: `scheduled`, `sync`, `asked` or `again`.
    pub cause: String,
    /// Who asked for it; or the run of which it tries again what waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// When it was scheduled for: times of deployments are counted from here.
    #[schema(value_type = String, format = DateTime)]
    pub scheduled: Timestamp,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// What it is at: `evaluate`, `download`, `deploy` or `over`.
    #[schema(value_type = String)]
    pub step: Step,
    /// How it ended: `done`, `partial` (some updates wait for files), `nothing` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub result: Option<Ended>,
    /// What is to be said of that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The group that it fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many updates the criteria let through.
    pub matched: u64,
    /// How many came into the group.
    pub added: u64,
    /// How many went out of it.
    pub removed: u64,
    /// How many stayed in it.
    pub kept: u64,
    /// All that wait for files, and why.
    pub waiting: Vec<WaitingView>,
    /// Some of those that went, and why.
    pub went: Vec<WaitingView>,
    /// Some of those that were left out, and why.
    pub left_out: Vec<WaitingView>,
    /// How often it was gone on with after the server had stopped.
    pub resumed: u32,
}

/// An update, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "why": "not found"
}))]
pub struct WaitingView {
    /// Which.
    pub id: String,
    /// What its upstream calls it, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Why.
    pub why: String,
}

impl From<Run> for RuleRunView {
    fn from(run: Run) -> Self {
        let (cause, of) = match &run.cause {
            Cause::Scheduled => ("scheduled", None),
            Cause::Sync => ("sync", None),
            Cause::Asked(by) => ("asked", Some(by.clone())),
            Cause::Again(number) => ("again", Some(number.to_string())),
        };
        let plain = |id: UpdateId, why: String| WaitingView {
            id: id.to_string(),
            name: String::new(),
            why,
        };
        Self {
            number: run.number,
            cause: cause.into(),
            of,
            scheduled: run.scheduled,
            started: run.started,
            ended: run.ended,
            step: run.step,
            result: run.result,
            detail: run.detail,
            group: run.group.map(|group| group.to_string()),
            matched: run.matched,
            added: run.added,
            removed: run.removed,
            kept: run.kept,
            waiting: run
                .waiting
                .into_iter()
                .map(|it| WaitingView { id: it.id.to_string(), name: it.name, why: it.why })
                .collect(),
            went: run.went.into_iter().map(|(id, why)| plain(id, why.to_string())).collect(),
            left_out: run
                .left_out
                .into_iter()
                .map(|(id, why)| plain(id, why.to_string()))
                .collect(),
            resumed: run.resumed,
        }
    }
}

/// The deployments of one group of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "group": "patch-day-2026-11-11", "scheduled": "2026-11-11T02:00:00Z",
    "rings": [{"name": "pilot", "deployment": "patch-day-2026-11-11-pilot", "state": "open", "machines": 412,
        "succeeded": 400, "failed": 1, "opened": "2026-11-11T02:04:10Z"}]
}))]
pub struct RingChainView {
    /// The group.
    pub group: String,
    /// When the run was scheduled for that filled it last.
    #[schema(value_type = String, format = DateTime)]
    pub scheduled: Timestamp,
    /// That too many machines failed, and in which deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// Its deployments, in order.
    pub rings: Vec<RingView>,
}

/// One deployment of a rule's group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "rest", "deployment": "patch-day-2026-11-11-rest", "state": "waits",
    "why": "waits until 2026-11-14T02:04:10Z", "until": "2026-11-14T02:04:10Z", "machines": 0, "succeeded": 0,
    "failed": 0
}))]
pub struct RingView {
    /// What the rule calls it.
    pub name: String,
    /// What the deployment is called, or will be.
    pub deployment: String,
    /// `open`, `opens`, `waits` or `halted`.
    pub state: String,
    /// What it waits for, or why it is halted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Until when it waits at least, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Since when it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub opened: Option<Timestamp>,
    /// What a person said of it: `go` or `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub word: Option<Word>,
    /// What must come true before it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingBody>,
    /// How many machines it is for, if it is open.
    pub machines: u64,
    /// How many of them have all that they require of it.
    pub succeeded: u64,
    /// On how many something failed.
    pub failed: u64,
}

impl RingChainView {
    pub(super) fn of(site: &Site, rule: &AutomaticRule, mut chain: Chain) -> Result<Self, Problem> {
        let fleet = site.fleet()?;
        let decisions = chain.advance(rule, |id| rings::standing(&fleet, id), Timestamp::now());
        let halted = chain.halted.map(|halt| {
            let of = chain.links.get(halt.at).map(|link| link.name.to_string());
            format!("{} {halt}", of.unwrap_or_default())
        });
        let ring = |(link, decision): (&deployment::automatic::ChainLink, Decision)| {
            let standing = match link.id {
                Some(id) => rings::standing(&fleet, id),
                None => Standing::default(),
            };
            let (state, why) = match decision {
                Decision::Open => ("open", String::new()),
                Decision::Opens => ("opens", String::new()),
                Decision::Waits(why) => ("waits", why.to_string()),
                Decision::Halted(halt) => ("halted", halt.to_string()),
            };
            let until = match decision {
                Decision::Waits(Waiting::Until(until)) => Some(until),
                _ => None,
            };
            RingView {
                name: link.name.to_string(),
                deployment: link.deployment.to_string(),
                state: state.into(),
                why,
                until,
                opened: link.opened,
                word: link.word,
                ring: rule.deployment(&link.name).and_then(|its| its.ring).map(RingBody::from),
                machines: standing.machines,
                succeeded: standing.succeeded,
                failed: standing.failed,
            }
        };
        let rings = chain.links.iter().zip(decisions).map(ring).collect();
        Ok(Self { group: chain.group.to_string(), scheduled: chain.scheduled, halted, rings })
    }
}
