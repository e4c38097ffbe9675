//! Automatic deployment rules at work.
//!
//! In the order to read: what a rule would come to ([`preview`]); what a run does ([`run`](mod@run)), which is the same
//! and then brings files, fills the group and deploys it; how the deployments of a group open one after the other
//! ([`rings`]). Decisions are those of the crate `deployment`; here is what they are about, and who does them.
//!
//! One run is at work at a time: two rules may mean the same updates and the same package.

pub(crate) mod rings;
pub(crate) mod run;

use crate::auth::Identity;
use crate::deployed::Content;
use crate::fleet::Fleet;
use crate::problem::Problem;
use crate::routes::deployments::RuleRunView;
use crate::site::{Site, blocking};
use ::sync::lifecycle::Use;
use ::sync::name::UpdateId;
use contentlib::Progress;
use deployment::automatic::{
    AutomaticRule, Cause, Facts, GroupMode, Outcome, Question, Rules, evaluate,
};
use deployment::{GroupName, RuleName};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// What is deployed, looked at once: asked of each update of the catalogue, it must cost little.
struct Deployed(HashSet<UpdateId>);

impl ::sync::catalogue::Deployments for Deployed {
    fn of(&self, update: UpdateId) -> Use {
        if self.0.contains(&update) { Use::Deployed } else { Use::Never }
    }
}

/// Which updates are deployed, but for those that only `own` has.
pub(crate) fn deployed(
    fleet: &Fleet,
    own: Option<&GroupName>,
) -> Arc<dyn ::sync::catalogue::Deployments> {
    let others = fleet.deployments.with_groups().into_iter();
    let others = others.filter(|(_, it, _)| Some(&it.group) != own);
    let groups: BTreeMap<GroupName, _> =
        others.map(|(_, it, group)| (it.group.clone(), group)).collect();
    Arc::new(Deployed(groups.values().flat_map(|group| group.ids()).collect()))
}

/// What updates say of terms, and people accepted.
struct Terms<'a> {
    site: &'a Site,
    /// What went wrong: who asks has no way to hear of it.
    failed: parking_lot::Mutex<Option<Problem>>,
}

impl Facts for Terms<'_> {
    fn with_terms(&self, updates: &[UpdateId]) -> BTreeSet<UpdateId> {
        let found = || {
            let fleet = self.site.fleet()?;
            let licences = self.site.deployed().licences(self.site, updates.iter().copied())?;
            let open = licences.into_iter().filter(|(_, it)| !fleet.deployments.is_accepted(it));
            Ok(open.map(|(id, _)| id).collect())
        };
        found().unwrap_or_else(|problem| {
            *self.failed.lock() = Some(problem);
            BTreeSet::new()
        })
    }
}

/// What a rule means now, if its group has `before`. What is deployed by `own` counts as not deployed.
pub(crate) fn look(
    site: &Site,
    rule: &AutomaticRule,
    own: Option<&GroupName>,
    before: &BTreeSet<UpdateId>,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let (fleet, updates) = (site.fleet()?, site.updates()?);
    let question = Question {
        catalogue: updates.catalogue(),
        required: &fleet.states,
        deployments: deployed(&fleet, own),
        now,
    };
    let terms = Terms { site, failed: parking_lot::Mutex::default() };
    let outcome = evaluate(rule, &question, before, &terms);
    match terms.failed.into_inner() {
        Some(problem) => Err(problem),
        None => Ok(outcome),
    }
}

/// What a rule would come to, and how many of the updates that it means lack files.
pub(crate) struct Preview {
    /// The evaluation.
    pub outcome: Outcome,
    /// The group that it was compared with.
    pub group: Option<GroupName>,
    /// Those whose files are in no package: a run brings them first.
    pub to_bring: Vec<UpdateId>,
}

/// What `rule` would come to if it were run now. Nothing is changed.
pub(crate) fn preview(
    site: &Site,
    name: Option<&RuleName>,
    rule: &AutomaticRule,
    now: Timestamp,
) -> Result<Preview, Problem> {
    let fleet = site.fleet()?;
    let groups = fleet.deployments.groups();
    // A reused group is what it is; a new one is compared with the one that the last run made.
    let last = match name {
        Some(name) => fleet.rules.chains(name)?.pop().map(|chain| chain.group),
        None => None,
    };
    let last = last.filter(|group| groups.contains_key(group));
    let before: BTreeSet<UpdateId> =
        last.iter().filter_map(|group| groups.get(group)).flat_map(|it| it.ids()).collect();
    let own = last.as_ref().filter(|_| rule.group == GroupMode::Reuse);
    let outcome = look(site, rule, own, &before, now)?;
    let contents = site.deployed().contents(site, &outcome.members, None)?;
    let is_missing = |id: &&UpdateId| contents.get(id).is_none_or(|it| *it == Content::Missing);
    let to_bring = outcome.members.iter().filter(is_missing).copied().collect();
    Ok(Preview { outcome, group: last, to_bring })
}

/// Begins a run of a rule as a job, or joins the one that is at work.
pub(crate) fn submit(
    site: &Site,
    name: &RuleName,
    cause: Cause,
    scheduled: Timestamp,
    by: &Identity,
) -> Result<crate::jobs::Job, Problem> {
    let (its_site, its_name) = (site.clone(), name.clone());
    let work = move |progress: &Progress| {
        let run = run::run(&its_site, &its_name, cause, scheduled, progress)?;
        crate::routes::jobs::result_of(&RuleRunView::from(run))
    };
    let jobs = &site.ledger()?.jobs;
    jobs.join_or_submit("run_rule", &format!("rule/{name}"), by, Box::new(work))
}

/// Goes on with what was cut off, and runs what is due, one rule after the other.
pub(crate) async fn tend(site: Site) -> Result<(), Problem> {
    let of = site.clone();
    let due = blocking(move || {
        let (fleet, now) = (of.fleet()?, Timestamp::now());
        let seq = of.updates()?.catalogue().seq();
        let mut due = Vec::new();
        for (name, (rule, mark)) in fleet.rules.all() {
            // One that was cut off is gone on with, whatever the rule is now.
            if mark.runs > 0
                && let Some(run) = fleet.rules.unfinished(&name)?
            {
                due.push((name, run.cause, run.scheduled));
                continue;
            }
            match Rules::due(&rule, &mark, seq, now) {
                Ok(Some((cause, scheduled))) => due.push((name, cause, scheduled)),
                Ok(None) => {}
                Err(error) => tracing::warn!(rule = %name, %error, "a rule is not evaluated"),
            }
        }
        Ok(due)
    })
    .await?;
    for (name, cause, scheduled) in due {
        let of = site.clone();
        let its_name = name.clone();
        let watched = blocking(move || {
            let by = Identity { name: "schedule".into(), ..Identity::local_admin() };
            let job = submit(&of, &its_name, cause, scheduled, &by)?;
            Ok((of.ledger()?.jobs.watch(&job.id)?, job.id))
        })
        .await;
        let (mut watch, id) = match watched {
            Ok(watched) => watched,
            Err(problem) => {
                tracing::warn!(rule = %name, %problem, "a rule is not run yet");
                continue;
            }
        };
        while !watch.job()?.state.is_over() {
            watch.changed().await;
        }
        tracing::debug!(rule = %name, job = id, "a rule was run");
    }
    Ok(())
}
