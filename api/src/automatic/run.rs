//! A run of a rule: which updates it means, their files, the group, its deployments.
//!
//! Each step may be done again: so a run that was cut off begins with the first, under the names that it wrote
//! down. What has no files yet waits, by name, and is tried again later; the rest is deployed.
//!
//! The group changes in one write, from what it had to what it is to have: clients never see it empty in between.

use super::{look, rings};
use crate::deployed::Content;
use crate::deployment_package::{self, Bring};
use crate::downloads::{DownloadView, FileOutcome};
use crate::problem::{Kind, Problem};
use crate::site::Site;
use ::sync::messages::{Message, MessageId};
use ::sync::name::UpdateId;
use contentlib::Progress;
use deployment::automatic::{
    AutomaticRule, Cause, Chain, Ended, GroupMode, LicenceTerms, NAMED, Run, Step, Waits, split,
};
use deployment::group::Regroup;
use deployment::{GroupName, RuleName};
use jiff::Timestamp;
use packager::name::PackageName;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// So many updates are brought in one version of the package.
const AT_ONCE: usize = 2_000;
/// A package that somebody else works on is waited for so long.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// And looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Updates that a message names.
const TOLD: usize = 10;

/// One run at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Begins a run of a rule, or goes on with the one that is not over; what it was.
pub(crate) fn run(
    site: &Site,
    name: &RuleName,
    cause: Cause,
    scheduled: Timestamp,
    job: &Progress,
) -> Result<Run, Problem> {
    let _turn = turn(job)?;
    let fleet = site.fleet()?;
    let seq = site.updates()?.catalogue().seq();
    let mut run = fleet.rules.begin(name, cause, scheduled, seq, Timestamp::now())?;
    if run.step != Step::Evaluate || run.group.is_some() {
        run.resumed += 1;
    }
    let (rule, _) = fleet.rules.get(name)?;
    let done = Running { site, name, rule: &rule, job }.steps(&mut run);
    if let Err(problem) = done {
        // A server that stops goes on with it when it is back.
        if job.check().is_err() && site.ledger()?.jobs.is_closed() {
            return Err(problem);
        }
        run.end(Ended::Failed, problem.to_string(), Timestamp::now());
    }
    fleet.rules.keep(name, &run)?;
    tell(site, name, &run)?;
    Ok(run)
}

/// Waits for the turn.
fn turn(job: &Progress) -> Result<parking_lot::MutexGuard<'static, ()>, Problem> {
    loop {
        if let Some(turn) = TURN.try_lock_for(LOOK_EVERY) {
            return Ok(turn);
        }
        job.check().map_err(|_| crate::translate::cancelled())?;
    }
}

/// A run at work.
struct Running<'a> {
    site: &'a Site,
    name: &'a RuleName,
    rule: &'a AutomaticRule,
    job: &'a Progress,
}

impl Running<'_> {
    fn steps(&self, run: &mut Run) -> Result<(), Problem> {
        let Running { site, name, rule, .. } = *self;
        let fleet = site.fleet()?;
        let again = match run.cause {
            Cause::Again(number) => Some(fleet.rules.run(name, number)?),
            _ => None,
        };
        let group = match (&run.group, again.as_ref().and_then(|it| it.group.clone())) {
            (Some(group), _) => group.clone(),
            (None, Some(group)) => group,
            (None, None) => self.group_of(run)?,
        };
        run.group = Some(group.clone());
        let before: BTreeSet<UpdateId> = match fleet.deployments.groups().get(&group) {
            Some(group) => group.ids().collect(),
            None => BTreeSet::new(),
        };
        let outcome = look(site, rule, Some(&group), &before, Timestamp::now())?;
        // What waits is tried again as long as the rule means it; nothing else comes or goes then.
        let members = match &again {
            Some(again) => {
                let waits: BTreeSet<UpdateId> = again.waiting.iter().map(|it| it.id).collect();
                outcome.members.into_iter().filter(|id| waits.contains(id)).collect()
            }
            None => {
                run.matched = outcome.matched;
                run.went = outcome.removed.into_iter().take(NAMED).collect();
                run.left_out = outcome.left_out.into_iter().take(NAMED).collect();
                outcome.members
            }
        };
        run.step = Step::Download;
        fleet.rules.keep(name, run)?;
        let why = self.bring(&members)?;
        let contents = site.deployed().contents(site, &members, None)?;
        let found = split(&members, |id| match contents.get(&id) {
            Some(Content::Held | Content::None) => None,
            _ => Some(why.of(id)),
        });
        run.step = Step::Deploy;
        run.waiting = self.named(found.waiting)?;
        fleet.rules.keep(name, run)?;
        let is_there = fleet.deployments.groups().contains_key(&group);
        if found.complete.is_empty() && !is_there {
            let (result, detail) = match run.waiting.is_empty() {
                true => (Ended::Nothing, "the criteria let no update through that may be deployed"),
                false => (Ended::Partial, "no update has all of its files yet"),
            };
            run.end(result, detail, Timestamp::now());
            return Ok(());
        }
        self.deploy(run, &group, found.complete.into_iter().collect(), again.is_some())?;
        let (result, detail) = match (run.waiting.len(), run.matched, again.is_some()) {
            (0, 0, false) => (Ended::Nothing, "the criteria let no update through".to_owned()),
            (0, ..) => (Ended::Done, String::new()),
            (n, ..) => (Ended::Partial, format!("{n} updates wait for files")),
        };
        run.end(result, detail, Timestamp::now());
        Ok(())
    }

    /// The group that a run fills: that of the rule, or a new one, after rule and day.
    fn group_of(&self, run: &Run) -> Result<GroupName, Problem> {
        let fleet = self.site.fleet()?;
        let of = |text: &str| text.parse::<GroupName>().map_err(|error| Problem::internal(&error));
        if self.rule.group == GroupMode::Reuse {
            return of(self.name.as_str());
        }
        let zone = self.rule.evaluation.zone().map_err(deployment::automatic::RuleError::from)?;
        let day = run.scheduled.to_zoned(zone).date();
        let most = GroupName::MAX - "-2026-12-01-1000".len();
        let base = self.name.as_str().get(..most).unwrap_or(self.name.as_str());
        let groups = fleet.deployments.groups();
        for n in 1..1_000 {
            let name =
                of(&if n == 1 { format!("{base}-{day}") } else { format!("{base}-{day}-{n}") })?;
            if !groups.contains_key(&name) {
                return Ok(name);
            }
        }
        let detail = format!("there are 1,000 groups called {base}-{day} already: delete some");
        Err(Problem::new(Kind::Conflict, detail))
    }

    /// Brings what is in no package, where the rule has a package; why what did not come did not.
    fn bring(&self, members: &[UpdateId]) -> Result<Whynot, Problem> {
        let mut why = Whynot::default();
        let Some(package) = &self.rule.package else { return Ok(why) };
        let package: PackageName = package.parse().map_err(|error: packager::name::BadName| {
            Problem::field("package", error.to_string())
        })?;
        let contents = self.site.deployed().contents(self.site, members, None)?;
        let is_missing = |id: &&UpdateId| contents.get(id).is_none_or(|it| *it == Content::Missing);
        let missing: Vec<UpdateId> = members.iter().filter(is_missing).copied().collect();
        for some in missing.chunks(AT_ONCE) {
            match self.download(&package, some) {
                Ok(view) => {
                    let failed = view.outcomes.into_iter();
                    for it in failed.filter(|it| it.outcome == FileOutcome::Failed) {
                        let detail = it.detail.or(it.cause).unwrap_or_default();
                        why.by_name.entry(it.update).or_insert(format!("{}: {detail}", it.path));
                    }
                }
                Err(problem) if self.job.check().is_err() => return Err(problem),
                // It keeps no other from being deployed.
                Err(problem) => {
                    why.by_id.extend(some.iter().map(|id| (*id, problem.to_string())));
                }
            }
        }
        let listed = self.site.updates()?.catalogue().titled(&missing);
        why.names = listed?.into_iter().map(|it| (it.id, it.name)).collect();
        Ok(why)
    }

    fn download(&self, package: &PackageName, ids: &[UpdateId]) -> Result<DownloadView, Problem> {
        let began = Instant::now();
        loop {
            let wanted = Bring {
                updates: ids.iter().map(ToString::to_string).collect(),
                package: package.clone(),
                languages: self.rule.languages.clone(),
                folder: None,
                rate: None,
            };
            match deployment_package::bring(self.site, wanted, self.job) {
                Err(problem) if problem.retry_after.is_some() && began.elapsed() < PATIENCE => {
                    std::thread::sleep(LOOK_EVERY);
                    self.job.check().map_err(|_| crate::translate::cancelled())?;
                }
                Ok(view) => {
                    return serde_json::from_value(view).map_err(|error| Problem::internal(&error));
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Fills the group and deploys it.
    fn deploy(
        &self,
        run: &mut Run,
        group: &GroupName,
        complete: BTreeSet<UpdateId>,
        is_again: bool,
    ) -> Result<(), Problem> {
        let Running { site, name, rule, .. } = *self;
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        if rule.licences == LicenceTerms::Accept {
            let licences = site.deployed().licences(site, complete.iter().copied())?;
            let by = format!("rule {name}");
            fleet.deployments.accept(licences.into_values(), &by, now)?;
        }
        if !fleet.deployments.groups().contains_key(group) {
            fleet.deployments.create_group(group, format!("made by rule {name}"), now)?;
        }
        let change = match is_again {
            true => Regroup::Change { add: complete.clone(), remove: BTreeSet::new() },
            false => Regroup::Replace(complete.clone()),
        };
        let done = fleet.deployments.regroup(group, change, now)?;
        run.added += done.added.len() as u64;
        run.removed += done.removed.len() as u64;
        run.kept = (complete.len() - done.added.len()) as u64;
        let adds = !is_again && !done.added.is_empty();
        let chain = rings::change(site, name, rule, (group, run.scheduled), |chain| {
            if adds {
                chain.scheduled = run.scheduled;
                rings::reschedule(site, rule, chain)?;
            }
            Ok(())
        })?;
        tracing::debug!(rule = %name, group = %chain.group, links = chain.links.len(), "deployed");
        if !is_again {
            self.let_go(fleet.rules.chains(name)?, group)?;
        }
        Ok(())
    }

    /// Deletes the oldest groups that runs made, beyond those that are kept.
    fn let_go(&self, chains: Vec<Chain>, current: &GroupName) -> Result<(), Problem> {
        let Some(keep) = self.rule.keep_groups.filter(|_| self.rule.group == GroupMode::New) else {
            return Ok(());
        };
        let fleet = self.site.fleet()?;
        let old: Vec<Chain> = chains.into_iter().filter(|it| it.group != *current).collect();
        let over = (old.len() + 1).saturating_sub(keep.get().into());
        for chain in old.into_iter().take(over) {
            for id in chain.links.iter().filter_map(|link| link.id) {
                match fleet.deployments.delete(id) {
                    Ok(_) | Err(deployment::DeploymentError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match fleet.deployments.delete_group(&chain.group) {
                // What a person deployed of it stays, and so does the group.
                Ok(_)
                | Err(
                    deployment::DeploymentError::UnknownGroup(_)
                    | deployment::DeploymentError::GroupDeployed { .. },
                ) => fleet.rules.forget_chain(self.name, &chain.group)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn named(&self, waiting: BTreeMap<UpdateId, String>) -> Result<Vec<Waits>, Problem> {
        let ids: Vec<UpdateId> = waiting.keys().copied().collect();
        let titled = self.site.updates()?.catalogue().titled(&ids)?;
        let names: HashMap<UpdateId, String> =
            titled.into_iter().map(|it| (it.id, it.name)).collect();
        let waits =
            |(id, why)| Waits { id, name: names.get(&id).cloned().unwrap_or_default(), why };
        Ok(waiting.into_iter().map(waits).collect())
    }
}

/// Why files did not come.
#[derive(Default)]
struct Whynot {
    by_name: HashMap<String, String>,
    by_id: HashMap<UpdateId, String>,
    names: HashMap<UpdateId, String>,
}

impl Whynot {
    fn of(&self, id: UpdateId) -> String {
        let by_name = || self.by_name.get(self.names.get(&id)?);
        let why = self.by_id.get(&id).or_else(by_name).cloned();
        why.unwrap_or_else(|| "files of it are in no package".into())
    }
}

/// Tells administrators what came of a run.
fn tell(site: &Site, name: &RuleName, run: &Run) -> Result<(), Problem> {
    let group = run.group.as_ref().map(ToString::to_string).unwrap_or_default();
    let (id, text) = match run.result {
        Some(Ended::Failed) => (
            MessageId::RULE_FAILED,
            format!("Run {} of rule {name} failed: {}", run.number, run.detail),
        ),
        Some(Ended::Partial) => {
            let shown: Vec<String> = run
                .waiting
                .iter()
                .take(TOLD)
                .map(|it| format!("{} ({})", it.name, it.why))
                .collect();
            let more = run.waiting.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let text = format!(
                "Run {} of rule {name}: {} updates came into group {group}; {} wait for files: {}{more}",
                run.number,
                run.added,
                run.waiting.len(),
                shown.join("; ")
            );
            (MessageId::RULE_WAITS, text)
        }
        Some(Ended::Nothing) => {
            (MessageId::RULE_RUN, format!("Run {} of rule {name}: {}", run.number, run.detail))
        }
        _ => {
            let text = format!(
                "Run {} of rule {name}: {} updates came into group {group}, {} went, {} stayed",
                run.number, run.added, run.removed, run.kept
            );
            (MessageId::RULE_RUN, text)
        }
    };
    let message = Message::of_site(id, "rules", text, run.ended.unwrap_or_else(Timestamp::now));
    let message = message.with("rule", name).with("run", run.number).with("group", group);
    site.updates()?.messages().write(&message)?;
    Ok(())
}
