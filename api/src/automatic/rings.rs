//! The deployments of a rule's groups: made when they open, halted when too many machines fail.

use crate::fleet::Fleet;
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::sync::messages::{Message, MessageId};
use deployment::automatic::{AutomaticRule, Chain, ChainLink, RuleDeployment};
use deployment::enforcement::{Compliance, Enforcement};
use deployment::policy::{DeploymentId, When};
use deployment::results::Counts;
use deployment::ring::{Decision, Standing};
use deployment::{Deployment, DeploymentError, DeploymentName, GroupName, RuleName};
use jiff::Timestamp;
use parking_lot::Mutex;

/// How a deployment stands, by what its machines tell of it.
pub(crate) fn standing(fleet: &Fleet, id: DeploymentId) -> Standing {
    let Ok((_, it)) = fleet.deployments.find(&id.to_string()) else { return Standing::default() };
    let Ok(members) = fleet.collections.members(&it.collection, &fleet.states) else {
        return Standing::default();
    };
    standing_of(&fleet.results.counts(id, &members))
}

/// How a deployment stands, by the counts of its machines.
///
/// Files that could not be had say nothing against the updates, and are tried again: while content is on its way to a point, that
/// is how its machines are. Without them no ring opens; for good it is not halted.
fn standing_of(counts: &Counts) -> Standing {
    Standing {
        machines: counts.targets,
        succeeded: counts.compliance.get(&Compliance::Compliant).copied().unwrap_or(0),
        failed: counts.enforcement.get(&Enforcement::Failed).copied().unwrap_or(0),
    }
}

/// Held by who changes a chain: people, runs, and time.
static CHANGING: Mutex<()> = Mutex::new(());

/// Whether a chain is of the group that the last run filled: only that one gets what a rule has anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Newest,
    Older,
}

/// Changes the chain of a group, which is a new one if there is none, and has it go on.
pub(crate) fn change(
    site: &Site,
    name: &RuleName,
    rule: &AutomaticRule,
    (group, scheduled): (&GroupName, Timestamp),
    change: impl FnOnce(&mut Chain) -> Result<(), Problem>,
) -> Result<Chain, Problem> {
    let _changing = CHANGING.lock();
    let fleet = site.fleet()?;
    let chains = fleet.rules.chains(name)?;
    let is_newest =
        chains.last().is_none_or(|last| last.group == *group || last.scheduled <= scheduled);
    let known = chains.into_iter().find(|chain| chain.group == *group);
    let mut chain = known.unwrap_or_else(|| Chain::new(group.clone(), scheduled));
    change(&mut chain)?;
    fleet.rules.keep_chain(name, &chain)?;
    let age = if is_newest { Age::Newest } else { Age::Older };
    advance(site, name, rule, (&mut chain, age), Timestamp::now())?;
    Ok(chain)
}

/// Has the deployments of a chain open that are to, and keeps it.
fn advance(
    site: &Site,
    name: &RuleName,
    rule: &AutomaticRule,
    (chain, age): (&mut Chain, Age),
    now: Timestamp,
) -> Result<Vec<Decision>, Problem> {
    let fleet = site.fleet()?;
    let before = chain.clone();
    let group = chain.group.clone();
    if age == Age::Newest {
        chain.follow(rule, |its| name_of(&group, its));
    }
    if *chain != before {
        // Names are written down before they are used.
        fleet.rules.keep_chain(name, chain)?;
    }
    let was_halted = chain.halted;
    let decisions = chain.advance(rule, |id| standing(&fleet, id), now);
    let said = |id: MessageId, text: String| -> Result<(), Problem> {
        let message = Message::of_site(id, "rules", text, now).with("rule", name);
        site.updates()?.messages().write(&message.with("group", &group))?;
        Ok(())
    };
    for (at, decision) in decisions.iter().enumerate() {
        let link = &mut chain.links[at];
        let Some(its) = rule.deployment(&link.name).filter(|_| *decision == Decision::Opens) else {
            continue;
        };
        // What waited for others counts from now, the rest from when the run was scheduled.
        let start =
            if its.ring.is_some() || at > 0 && link.word.is_some() { now } else { chain.scheduled };
        link.id = Some(make(&fleet, rule, its, link, (&group, start), now)?);
        link.opened = Some(now);
        link.word = None;
        let text = format!("Deployment {} of rule {name} opened", link.deployment);
        if its.ring.is_some() {
            said(MessageId::RING_OPENED, text)?;
        }
        fleet.rules.keep_chain(name, chain)?;
    }
    if let (None, Some(halt)) = (was_halted, chain.halted) {
        let of = chain.links.get(halt.at).map(|link| link.deployment.to_string());
        said(
            MessageId::RINGS_HALTED,
            format!(
                "Deployment {} of rule {name} {halt}: no further one opens. Look at the failures, then `depot rule \
                 resume {name}`",
                of.unwrap_or_default()
            ),
        )?;
    }
    if *chain != before {
        fleet.rules.keep_chain(name, chain)?;
    }
    Ok(decisions)
}

/// `GROUP-NAME`, cut where that is too long for a name.
fn name_of(group: &GroupName, its: &DeploymentName) -> DeploymentName {
    let full = format!("{group}-{its}");
    let cut = full.get(..DeploymentName::MAX).unwrap_or(&full);
    cut.parse().unwrap_or_else(|_| its.clone())
}

/// Makes a deployment; one that was made already, before a crash, is taken.
fn make(
    fleet: &Fleet,
    rule: &AutomaticRule,
    its: &RuleDeployment,
    link: &mut ChainLink,
    (group, start): (&GroupName, Timestamp),
    now: Timestamp,
) -> Result<DeploymentId, Problem> {
    let (available, deadline) = times(rule, its, start)?;
    let mut wanted = Deployment {
        name: link.deployment.clone(),
        comment: String::new(),
        group: group.clone(),
        collection: its.collection.clone(),
        available,
        deadline,
        experience: its.experience.clone(),
        enabled: its.enabled,
        alert_below: its.alert_below,
        created: now,
    };
    match fleet.deployments.create(wanted.clone()) {
        Ok(id) => Ok(id),
        Err(DeploymentError::Exists(name)) => {
            let (id, there) = fleet.deployments.find(name.as_str())?;
            if there.group == *group && there.collection == its.collection {
                return Ok(id);
            }
            wanted.name = fleet.deployments.free_name(group, &its.collection);
            link.deployment = wanted.name.clone();
            Ok(fleet.deployments.create(wanted)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// When a deployment is available and due, counted from `start`.
pub(crate) fn times(
    rule: &AutomaticRule,
    its: &RuleDeployment,
    start: Timestamp,
) -> Result<(When, Option<When>), Problem> {
    let zone = rule.evaluation.zone().map_err(deployment::automatic::RuleError::from)?;
    let late = || Problem::new(Kind::InvalidValue, "its times are beyond the end of the calendar");
    let at =
        |after: deployment::automatic::After| after.when(start, &zone, its.clock).ok_or_else(late);
    Ok((at(its.available)?, its.deadline.map(at).transpose()?))
}

/// Counts the times of a reused group's deployments from the run that filled it last.
pub(crate) fn reschedule(site: &Site, rule: &AutomaticRule, chain: &Chain) -> Result<(), Problem> {
    let fleet = site.fleet()?;
    for link in &chain.links {
        let (Some(its), Some(id)) = (rule.deployment(&link.name), link.id) else { continue };
        let (available, deadline) = times(rule, its, chain.scheduled)?;
        let changed = fleet.deployments.change(id, |it| {
            (it.available, it.deadline) = (available, deadline);
            Ok::<_, DeploymentError>(())
        });
        match changed {
            // A person deleted it.
            Ok(_) | Err(DeploymentError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Has each rule's newest group go on: a deployment that a rule has anew is made, and rings open.
pub(crate) async fn tend(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        for (name, (rule, _)) in fleet.rules.all() {
            if fleet.rules.unfinished(&name)?.is_some() {
                continue;
            }
            let _changing = CHANGING.lock();
            let mut chains = fleet.rules.chains(&name)?.into_iter().peekable();
            while let Some(mut chain) = chains.next() {
                if !fleet.deployments.groups().contains_key(&chain.group) {
                    fleet.rules.forget_chain(&name, &chain.group)?;
                    continue;
                }
                let age = if chains.peek().is_none() { Age::Newest } else { Age::Older };
                if let Err(problem) = advance(&site, &name, &rule, (&mut chain, age), now) {
                    tracing::warn!(rule = %name, group = %chain.group, %problem, "rings wait");
                }
            }
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_brought_is_no_failure_and_no_success() {
        let counts = Counts {
            targets: 20,
            compliance: [(Compliance::Compliant, 4), (Compliance::NonCompliant, 13)].into(),
            enforcement: [
                (Enforcement::Failed, 2),
                (Enforcement::DownloadFailed, 5),
                (Enforcement::Downloading, 6),
                (Enforcement::Succeeded, 4),
            ]
            .into(),
            ..Counts::default()
        };
        assert_eq!(standing_of(&counts), Standing { machines: 20, succeeded: 4, failed: 2 });
        assert_eq!(standing_of(&Counts::default()), Standing::default());
    }
}
