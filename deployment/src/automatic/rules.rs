//! All rules of a site, with their runs and what became of their groups: on disk, and what is asked often in memory.
//!
//! That a rule is due follows from what is kept: until when it was evaluated, and which change of the catalogue it saw.
//! Both move on with the run, in one write. So no occasion is run twice, and one that a server slept through is run
//! when it is back.

use super::run::{Cause, Chain, Ended, Run};
use super::{AutomaticRule, BadEvaluation, BadRule, Evaluation};
use crate::name::{GroupName, RuleName};
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many rules there may be.
pub const MAX_RULES: usize = 1_000;
/// So many runs of each rule are kept.
const KEPT_RUNS: u64 = 500;
/// What waits is tried again so long after a run, then after twice as long, and so on.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// The longest such pause, and how often it is tried.
const AGAIN: (SignedDuration, u64) = (SignedDuration::from_hours(24), 12);

const RULES: Table<String, AutomaticRule> = Table::new("automatic-rule");
const MARKS: Table<String, Mark> = Table::new("automatic-rule-mark");
const RUNS: Table<(String, u64), Run> = Table::new("automatic-run");
const CHAINS: Table<(String, String), Chain> = Table::new("automatic-chain");

/// How far a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it was made.
    pub created: Timestamp,
    /// Times until then were evaluated, or were before the rule was as it is.
    pub since: Timestamp,
    /// The place in the order of the catalogue's changes that it saw.
    pub seq: u64,
    /// The number of its last run; 0, if there was none.
    pub runs: u64,
    /// When what waits is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Timestamp>,
    /// How often that was tried.
    #[serde(default)]
    pub tried: u64,
}
impl Value for Mark {}

/// Why a rule was not changed, or a run not begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// There is none of that name.
    #[error("there is no rule {0:?}")]
    Unknown(String),
    /// There is one already.
    #[error("there is a rule \"{0}\" already")]
    Exists(RuleName),
    /// There are too many.
    #[error("there are {MAX_RULES} rules already")]
    TooMany,
    /// It has no such deployment.
    #[error("rule \"{rule}\" has no deployment {name:?}")]
    UnknownDeployment {
        /// Which rule.
        rule: RuleName,
        /// What it has not.
        name: String,
    },
    /// It has no such run.
    #[error("rule \"{rule}\" has no run {number}")]
    UnknownRun {
        /// Which rule.
        rule: RuleName,
        /// What it has not.
        number: u64,
    },
    /// It cannot be so.
    #[error(transparent)]
    Bad(#[from] BadRule),
    /// It cannot be evaluated then.
    #[error(transparent)]
    Evaluation(#[from] BadEvaluation),
    /// It is being run.
    #[error("rule \"{0}\" is being run: wait for its end, or cancel its job")]
    Running(RuleName),
    /// The database failed.
    #[error("rules cannot be kept")]
    Store(#[from] CommitError),
}

impl From<DbError> for RuleError {
    fn from(error: DbError) -> Self {
        Self::Store(error.into())
    }
}

/// The rules of a site.
pub struct Rules {
    db: Db,
    /// Held by whoever changes them.
    writer: Mutex<()>,
    state: RwLock<BTreeMap<RuleName, (Arc<AutomaticRule>, Mark)>>,
}

impl Rules {
    /// Takes the rules in `db` into use.
    ///
    /// # Errors
    /// If the database fails, or what it holds cannot be.
    pub fn open(db: Db) -> Result<Self, RuleError> {
        let mut state = BTreeMap::new();
        for (name, rule) in RULES.scan(&db, Order::Ascending, None, usize::MAX)? {
            let mark = MARKS.get(&db, &name)?;
            let damaged = |detail: String| DbError::Damaged { table: "automatic-rule", detail };
            let mark = mark.ok_or_else(|| damaged(format!("{name} has no mark")))?;
            let name =
                name.parse().map_err(|error: crate::name::BadName| damaged(error.to_string()))?;
            state.insert(name, (Arc::new(rule), mark));
        }
        Ok(Self { db, writer: Mutex::new(()), state: RwLock::new(state) })
    }

    /// All rules, by name.
    pub fn all(&self) -> BTreeMap<RuleName, (Arc<AutomaticRule>, Mark)> {
        self.state.read().clone()
    }

    /// A rule, and how far it is.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &RuleName) -> Result<(Arc<AutomaticRule>, Mark), RuleError> {
        let found = self.state.read().get(name).cloned();
        found.ok_or_else(|| RuleError::Unknown(name.to_string()))
    }

    /// Makes a rule. What the catalogue had until `seq`, and times until `now`, are no occasion for it.
    ///
    /// # Errors
    /// If there is one of that name, it cannot be, or the database fails.
    pub fn create(
        &self,
        name: &RuleName,
        rule: AutomaticRule,
        seq: u64,
        now: Timestamp,
    ) -> Result<(), RuleError> {
        let _writer = self.writer.lock();
        rule.check()?;
        {
            let state = self.state.read();
            if state.contains_key(name) {
                return Err(RuleError::Exists(name.clone()));
            }
            if state.len() >= MAX_RULES {
                return Err(RuleError::TooMany);
            }
        }
        let mark = Mark { created: now, since: now, seq, runs: 0, again: None, tried: 0 };
        self.save(name, rule, mark, Batch::new())
    }

    /// Changes a rule; what it is after that. A rule that is evaluated at other times, or that was off, is so from `now` on:
    /// it makes up for nothing before.
    ///
    /// # Errors
    /// If there is none of that name, it cannot be so, or the database fails; or `change` does.
    pub fn change<E: From<RuleError>>(
        &self,
        name: &RuleName,
        seq: u64,
        now: Timestamp,
        change: impl FnOnce(&mut AutomaticRule) -> Result<(), E>,
    ) -> Result<Arc<AutomaticRule>, E> {
        let _writer = self.writer.lock();
        let (old, mut mark) = self.get(name)?;
        let mut rule = (*old).clone();
        change(&mut rule)?;
        rule.check().map_err(RuleError::from)?;
        if rule.evaluation != old.evaluation || (rule.enabled && !old.enabled) {
            mark.since = now.max(mark.since);
            mark.seq = seq;
        }
        self.save(name, rule, mark, Batch::new())?;
        Ok(self.get(name)?.0)
    }

    fn save(
        &self,
        name: &RuleName,
        rule: AutomaticRule,
        mark: Mark,
        mut batch: Batch,
    ) -> Result<(), RuleError> {
        RULES.put(&mut batch, &name.to_string(), &rule);
        MARKS.put(&mut batch, &name.to_string(), &mark);
        self.db.kv().write(batch)?;
        self.state.write().insert(name.clone(), (Arc::new(rule), mark));
        Ok(())
    }

    /// Deletes a rule with its history. Its groups and deployments stay, and are everybody's.
    ///
    /// # Errors
    /// If there is none of that name, it is being run, or the database fails.
    pub fn delete(&self, name: &RuleName) -> Result<Arc<AutomaticRule>, RuleError> {
        let _writer = self.writer.lock();
        let (old, _) = self.get(name)?;
        if self.unfinished(name)?.is_some() {
            return Err(RuleError::Running(name.clone()));
        }
        let (mut batch, key) = (Batch::new(), name.to_string());
        RULES.delete(&mut batch, &key);
        MARKS.delete(&mut batch, &key);
        for (run, _) in RUNS.below(&self.db, &key)? {
            RUNS.delete(&mut batch, &run);
        }
        for (chain, _) in CHAINS.below(&self.db, &key)? {
            CHAINS.delete(&mut batch, &chain);
        }
        self.db.kv().write(batch)?;
        self.state.write().remove(name);
        Ok(old)
    }

    /// Why a rule is to be run now, and for when; none, if it is not. `seq` is how far the catalogue is.
    ///
    /// # Errors
    /// Its time zone is not known on this machine.
    pub fn due(
        rule: &AutomaticRule,
        mark: &Mark,
        seq: u64,
        now: Timestamp,
    ) -> Result<Option<(Cause, Timestamp)>, BadEvaluation> {
        if !rule.enabled {
            return Ok(None);
        }
        if rule.evaluation == Evaluation::AfterSync && seq > mark.seq {
            return Ok(Some((Cause::Sync, now)));
        }
        if let Some(at) = rule.evaluation.due(mark.since, now)? {
            return Ok(Some((Cause::Scheduled, at)));
        }
        let again = mark.again.filter(|again| *again <= now);
        Ok(again.map(|_| (Cause::Again(mark.runs), now)))
    }

    /// Begins a run. One that is not over yet is given instead: whoever asks goes on with it.
    ///
    /// # Errors
    /// If there is no such rule, or the database fails.
    pub fn begin(
        &self,
        name: &RuleName,
        cause: Cause,
        scheduled: Timestamp,
        seq: u64,
        now: Timestamp,
    ) -> Result<Run, RuleError> {
        let _writer = self.writer.lock();
        let (_, mut mark) = self.get(name)?;
        if let Some(run) = self.unfinished(name)? {
            return Ok(run);
        }
        mark.runs += 1;
        if cause == Cause::Scheduled {
            mark.since = scheduled.max(mark.since);
        }
        match cause {
            Cause::Again(_) => mark.tried += 1,
            // What it sees now it need not see again.
            _ => (mark.seq, mark.tried) = (seq, 0),
        }
        mark.again = None;
        let run = Run::new(mark.runs, cause, scheduled, now);
        let mut batch = Batch::new();
        RUNS.put(&mut batch, &(name.to_string(), run.number), &run);
        let oldest = mark.runs.saturating_sub(KEPT_RUNS);
        RUNS.delete(&mut batch, &(name.to_string(), oldest));
        self.mark(name, mark, batch)?;
        Ok(run)
    }

    fn mark(&self, name: &RuleName, mark: Mark, mut batch: Batch) -> Result<(), RuleError> {
        MARKS.put(&mut batch, &name.to_string(), &mark);
        self.db.kv().write(batch)?;
        if let Some((_, it)) = self.state.write().get_mut(name) {
            *it = mark;
        }
        Ok(())
    }

    /// Keeps how far a run is. One that ended with something that waits is tried again after a while.
    ///
    /// # Errors
    /// If there is no such rule, or the database fails.
    pub fn keep(&self, name: &RuleName, run: &Run) -> Result<(), RuleError> {
        let _writer = self.writer.lock();
        let (_, mut mark) = self.get(name)?;
        let mut batch = Batch::new();
        RUNS.put(&mut batch, &(name.to_string(), run.number), run);
        let (longest, most) = AGAIN;
        let waits = run.result == Some(Ended::Partial) && mark.tried < most;
        mark.again = run.ended.filter(|_| waits).and_then(|ended| {
            let pause = AGAIN_AFTER.saturating_mul(1 << mark.tried.min(20));
            ended.checked_add(pause.min(longest)).ok()
        });
        self.mark(name, mark, batch)
    }

    /// At most `limit` runs of a rule, the newest first, from before the run of number `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn runs(
        &self,
        name: &RuleName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Run>, RuleError> {
        let from = (name.to_string(), before.unwrap_or(u64::MAX));
        let found = RUNS.scan(&self.db, Order::Descending, Some(&from), limit)?;
        let its = found.into_iter().take_while(|((of, _), _)| *of == from.0);
        Ok(its.map(|(_, run)| run).collect())
    }

    /// The run of that number.
    ///
    /// # Errors
    /// If there is none, or the database fails.
    pub fn run(&self, name: &RuleName, number: u64) -> Result<Run, RuleError> {
        let found = RUNS.get(&self.db, &(name.to_string(), number))?;
        found.ok_or_else(|| RuleError::UnknownRun { rule: name.clone(), number })
    }

    /// The run of a rule that is not over: there is one at most.
    ///
    /// # Errors
    /// If the database fails.
    pub fn unfinished(&self, name: &RuleName) -> Result<Option<Run>, RuleError> {
        Ok(self.runs(name, None, 1)?.into_iter().find(|run| run.ended.is_none()))
    }

    /// The chains of a rule, in the order of the times that their runs were scheduled for.
    ///
    /// # Errors
    /// If the database fails.
    pub fn chains(&self, name: &RuleName) -> Result<Vec<Chain>, RuleError> {
        let chains = CHAINS.below(&self.db, &name.to_string())?;
        let mut chains: Vec<Chain> = chains.into_iter().map(|(_, chain)| chain).collect();
        chains.sort_by(|a, b| (a.scheduled, &a.group).cmp(&(b.scheduled, &b.group)));
        Ok(chains)
    }

    /// Keeps a chain.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_chain(&self, name: &RuleName, chain: &Chain) -> Result<(), RuleError> {
        CHAINS.set(&self.db, &(name.to_string(), chain.group.to_string()), chain)?;
        Ok(())
    }

    /// Forgets a chain, whose group is gone.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_chain(&self, name: &RuleName, group: &GroupName) -> Result<(), RuleError> {
        let mut batch = Batch::new();
        CHAINS.delete(&mut batch, &(name.to_string(), group.to_string()));
        self.db.kv().write(batch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::tests::rule;
    use super::*;
    use crate::automatic::RuleDeployment;
    use crate::policy::DeploymentId;
    use crate::ring::Decision;
    use crate::ring::{Limit, Ring, Standing};
    use uuid::Uuid;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn name() -> RuleName {
        "monthly".parse().unwrap()
    }

    fn daily() -> AutomaticRule {
        let mut rule = rule("classification = security");
        rule.evaluation = "daily at 06:00".parse().unwrap();
        rule
    }

    fn due(rules: &Rules, seq: u64, now: &str) -> Option<(Cause, Timestamp)> {
        let (rule, mark) = rules.get(&name()).unwrap();
        Rules::due(&rule, &mark, seq, at(now)).unwrap()
    }

    #[test]
    fn an_occasion_is_run_once_whatever_happens() {
        let db = Db::in_memory();
        let rules = Rules::open(db.clone()).unwrap();
        rules.create(&name(), daily(), 7, at("2026-01-01T05:00:00Z")).unwrap();
        assert_eq!(due(&rules, 9, "2026-01-01T05:59:59Z"), None);
        let first = (Cause::Scheduled, at("2026-01-01T06:00:00Z"));
        assert_eq!(due(&rules, 9, "2026-01-01T06:00:10Z"), Some(first.clone()));
        let now = at("2026-01-01T06:00:10Z");
        let run = rules.begin(&name(), first.0, first.1, 9, now).unwrap();
        assert_eq!(due(&rules, 9, "2026-01-01T23:00:00Z"), None);
        // Killed: the next process finds it, and whoever begins goes on with it.
        drop(rules);
        let rules = Rules::open(db.clone()).unwrap();
        assert_eq!(rules.unfinished(&name()).unwrap(), Some(run.clone()));
        let asked = Cause::Asked("anna".into());
        let mut again = rules.begin(&name(), asked.clone(), now, 9, now).unwrap();
        assert_eq!(again, run);
        assert!(matches!(rules.delete(&name()), Err(RuleError::Running(_))));
        again.end(Ended::Done, "", now);
        rules.keep(&name(), &again).unwrap();
        // Two days were missed: that is one run.
        let late = due(&rules, 9, "2026-01-04T05:00:00Z").unwrap();
        assert_eq!(late, (Cause::Scheduled, at("2026-01-03T06:00:00Z")));
        let mut run = rules.begin(&name(), late.0, late.1, 9, at("2026-01-04T05:00:00Z")).unwrap();
        run.end(Ended::Nothing, "", now);
        rules.keep(&name(), &run).unwrap();
        let numbers = |before| -> Vec<u64> {
            rules.runs(&name(), before, 10).unwrap().iter().map(|run| run.number).collect()
        };
        assert_eq!((numbers(None), numbers(Some(2))), (vec![2, 1], vec![1]));
        rules.delete(&name()).unwrap();
        assert!(Rules::open(db).unwrap().all().is_empty());
        assert_eq!(rules.runs(&name(), None, 10).unwrap(), []);
    }

    #[test]
    fn a_rule_that_is_switched_on_makes_up_for_nothing() {
        let rules = Rules::open(Db::in_memory()).unwrap();
        rules.create(&name(), daily(), 0, at("2026-01-01T05:00:00Z")).unwrap();
        let set = |enabled, now: &str| {
            rules.change(&name(), 3, at(now), |rule| {
                rule.enabled = enabled;
                Ok::<_, RuleError>(())
            })
        };
        set(false, "2026-01-01T05:30:00Z").unwrap();
        assert_eq!(due(&rules, 9, "2026-01-03T07:00:00Z"), None);
        set(true, "2026-01-03T08:00:00Z").unwrap();
        assert_eq!(due(&rules, 9, "2026-01-03T08:00:01Z"), None);
        assert!(due(&rules, 9, "2026-01-04T06:00:01Z").is_some());
    }

    #[test]
    fn what_waits_is_tried_again_ever_later_and_then_no_more() {
        let rules = Rules::open(Db::in_memory()).unwrap();
        let mut after_sync = daily();
        after_sync.evaluation = Evaluation::AfterSync;
        let mut now = at("2026-01-01T05:00:00Z");
        rules.create(&name(), after_sync, 7, now).unwrap();
        assert_eq!(due(&rules, 7, "2026-01-01T06:00:00Z"), None);
        let (mut cause, _) = due(&rules, 8, "2026-01-01T06:00:00Z").unwrap();
        assert_eq!(cause, Cause::Sync);
        let mut pauses = Vec::new();
        loop {
            let mut run = rules.begin(&name(), cause, now, 8, now).unwrap();
            run.end(Ended::Partial, "", now);
            rules.keep(&name(), &run).unwrap();
            let Some(again) = rules.get(&name()).unwrap().1.again else { break };
            pauses.push(again.duration_since(now).as_hours());
            now = again;
            (cause, _) = due(&rules, 8, &now.to_string()).unwrap();
            assert_eq!(cause, Cause::Again(run.number));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 24, 24, 24, 24, 24, 24, 24]);
        assert_eq!(due(&rules, 8, "2027-01-01T06:00:00Z"), None);
        assert_eq!(due(&rules, 9, "2027-01-01T06:00:00Z").unwrap().0, Cause::Sync);
    }

    #[test]
    fn a_chain_follows_its_rule_and_goes_on_after_a_halt() {
        let mut rule = daily();
        let to = |name: &str, ring| RuleDeployment {
            ring,
            ..RuleDeployment::to(name.parse().unwrap(), "all".parse().unwrap())
        };
        let ring = Ring { halt: Some(Limit::Machines(3)), ..Ring::default() };
        rule.deployments = vec![to("pilot", None), to("rest", Some(ring))];
        let now = at("2026-01-01T05:00:00Z");
        let mut chain = Chain::new("monthly-2026-01-01".parse().unwrap(), now);
        chain.follow(&rule, |name| format!("monthly-2026-01-01-{name}").parse().unwrap());
        let standing = |failed| move |_| Standing { machines: 10, succeeded: 5, failed };
        assert_eq!(chain.advance(&rule, standing(0), now)[0], Decision::Opens);
        chain.links[0].opened = Some(now);
        chain.links[0].id = Some(DeploymentId(Uuid::from_u128(1)));
        let decisions = chain.advance(&rule, standing(3), now);
        assert!(matches!(decisions[1], Decision::Halted(_)), "{decisions:?}");
        assert!(chain.halted.is_some());
        chain.resume(standing(3));
        let decisions = chain.advance(&rule, standing(5), now);
        assert!(matches!(decisions[1], Decision::Waits(_)), "{decisions:?}");
        assert!(matches!(chain.advance(&rule, standing(6), now)[1], Decision::Halted(_)));
        // One that is open stays though the rule has it no more; one that is not open goes.
        rule.deployments = vec![to("all", None)];
        chain.follow(&rule, |name| name.clone());
        let names: Vec<_> = chain.links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["all", "pilot"]);
    }
}
