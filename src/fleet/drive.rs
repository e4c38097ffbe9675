//! All simulated machines, in time: who is due next, so many connections at once, and how long answers took.
//!
//! Memory is bounded by the number of machines; of answers only a distribution is kept.

use super::line::{Door, Trouble, joined as made};
use super::machine::{Harm, Machine};
use super::world::World;
use crate::exit::Failure;
use crate::output::Out;
use ::client::clock::Moment;
use ::client::ledger::pace::{BULK, LONGEST_WAIT};
use ::compliance::message::Answer;
use ::dp::field::JoinToken;
use ::dp::identity::Identity;
use bytes::Bytes;
use packager::PublicKey;
use serde::Serialize;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Scans of a day.
const A_DAY: u64 = 24;
/// How often a machine tries to join before it is given up.
const MOST_TRIES: u32 = 60;
/// For so many rounds a machine may still be at it after its time.
const PATIENCE: u32 = 20;

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// What is true.
    pub world: World,
    /// How many machines.
    pub clients: u32,
    /// How often each reports.
    pub rounds: u32,
    /// How long a round is: an agent's quarter of an hour.
    pub round: Duration,
    /// Whether the site is away for a day afterwards.
    pub outage: bool,
    /// Of 100 batches so many are harmed.
    pub harm: u8,
    /// Connections at a time.
    pub connections: usize,
}

/// How long something took, of many.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half took at most so many milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 did.
    pub p99_ms: f64,
    /// All did.
    pub most_ms: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Joining, on a connection that is there.
    pub join: Spread,
    /// The policy, with connecting.
    pub policy: Spread,
    /// A report.
    pub report: Spread,
    /// Bytes of batches.
    pub sent_bytes: u64,
}

/// Times as a distribution: 16 steps for each doubling, from a microsecond on.
struct Times {
    counts: Vec<u64>,
    most: Duration,
}

impl Times {
    const STEPS: f64 = 16.0;

    fn new() -> Self {
        Self { counts: vec![0; 600], most: Duration::ZERO }
    }

    fn add(&mut self, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let at = (micros.log2() * Self::STEPS) as usize;
        let last = self.counts.len() - 1;
        self.counts[at.min(last)] += 1;
        self.most = self.most.max(took);
    }

    /// The time that so many in 100 took at most, in milliseconds, to 5 %.
    fn below(&self, percent: f64) -> f64 {
        let all: u64 = self.counts.iter().sum();
        let wanted = (all as f64 * percent / 100.0).ceil() as u64;
        let mut sum = 0;
        let found = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted.max(1)
        });
        let micros = found.map_or(0.0, |at| ((at + 1) as f64 / Self::STEPS).exp2());
        (micros / 1e3).min(self.most.as_secs_f64() * 1e3)
    }

    fn spread(&self) -> Spread {
        Spread {
            count: self.counts.iter().sum(),
            p50_ms: self.below(50.0),
            p99_ms: self.below(99.0),
            most_ms: self.most.as_secs_f64() * 1e3,
        }
    }
}

/// What one exchange of a machine came to.
struct Exchange {
    machine: Machine,
    policy: Option<Duration>,
    reports: Vec<Duration>,
    answers: Vec<String>,
    sent_bytes: u64,
    /// What ends the run.
    fatal: Option<String>,
}

/// The machines, and what was seen of the site.
pub struct Drive {
    course: Course,
    door: Door,
    key: Option<PublicKey>,
    machines: Vec<Option<Machine>>,
    answers: BTreeMap<String, u64>,
    join: Times,
    policy: Times,
    report: Times,
    sent_bytes: u64,
}

impl Drive {
    /// The machines of a course, before anything happened.
    pub fn new(course: Course, address: String, token: JoinToken) -> Self {
        let machine = |n| Some(Machine::new(n, course.rounds.into()));
        Self {
            course,
            door: Door { address, token },
            key: None,
            machines: (0..course.clients).map(machine).collect(),
            answers: BTreeMap::new(),
            join: Times::new(),
            policy: Times::new(),
            report: Times::new(),
            sent_bytes: 0,
        }
    }

    /// Has all machines join; how long it took.
    pub async fn join(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let n_lines = self.course.connections.min(32) as u32;
        let mut lines = JoinSet::new();
        for first in 0..n_lines {
            let (door, course) = (self.door.clone(), self.course);
            lines.spawn(async move {
                let line = door.stranger()?;
                let (mut joined, mut times, mut tries) = (Vec::new(), Vec::new(), 0);
                let mut machine = first;
                let mut request = Identity::request()?;
                while machine < course.clients {
                    let asked = Instant::now();
                    match line.join(&course.world, machine, &door.token, &request).await {
                        Ok(answer) => {
                            times.push(asked.elapsed());
                            let answered =
                                (std::mem::replace(&mut request, Identity::request()?), answer);
                            let (identity, key) =
                                made(&course.world, machine, &door.token, answered)?;
                            joined.push((machine, identity, key));
                            (machine, tries) = (machine + n_lines, 0);
                        }
                        Err(Trouble::Refused(status, text)) => {
                            let hint = match status {
                                409 => {
                                    "; other machines of that --seed joined with other keys: choose another --seed, or \
                                     remove those"
                                }
                                403 => "; the token has to be for enough machines: see --uses of its creation",
                                _ => "",
                            };
                            return Err(Failure::failed(format!(
                                "machines may not join: {text}{hint}"
                            )));
                        }
                        Err(trouble) if tries < MOST_TRIES => {
                            tries += 1;
                            let wait = match trouble {
                                Trouble::Later(Some(after)) => after,
                                _ => Duration::from_secs(1),
                            };
                            tokio::time::sleep(wait).await;
                        }
                        Err(trouble) => {
                            let why = trouble.why();
                            return Err(Failure::failed(format!("a machine cannot join: {why}")));
                        }
                    }
                }
                Ok((joined, times))
            });
        }
        while let Some(ended) = lines.join_next().await {
            let (joined, times) = ended.map_err(|error| Failure::failed(error.to_string()))??;
            times.into_iter().for_each(|took| self.join.add(took));
            for (n, identity, key) in joined {
                self.key = Some(key);
                if let Some(Some(machine)) = self.machines.get_mut(n as usize) {
                    machine.identity = Some(identity);
                }
            }
        }
        Ok(start.elapsed())
    }

    /// Has all machines report as the course says; how long it took until the site had everything.
    pub async fn report(&mut self, out: &Out) -> Result<Duration, Failure> {
        let start = Instant::now();
        let course = self.course;
        // Each is due once in the first round, as those are that scanned in the one before.
        self.run(out, |machine, world| {
            machine.scans();
            let chance = machine.chance(world);
            machine.pace.failed(Moment::default(), Some(BULK.mul_f64(chance)), 0.0);
        })
        .await?;
        if course.outage {
            out.note("the site was away for a day: all machines come back");
            self.run(out, |machine, world| {
                machine.left = 0;
                (0..A_DAY).for_each(|_| machine.scans());
                // All are at the longest wait.
                let tries = LONGEST_WAIT.as_secs() / 60;
                (0..tries).for_each(|_| {
                    let chance = machine.chance(world);
                    machine.pace.failed(Moment::default(), None, chance);
                });
            })
            .await?;
        }
        Ok(start.elapsed())
    }

    /// Goes from machine to machine as they are due, until all are done.
    async fn run(
        &mut self,
        out: &Out,
        begin: impl Fn(&mut Machine, &World),
    ) -> Result<(), Failure> {
        let course = self.course;
        let scale = BULK.as_secs_f64() / course.round.as_secs_f64();
        let (start, mut noted) = (Instant::now(), Instant::now());
        let moment = move || Moment(start.elapsed().mul_f64(scale));
        let mut due = BinaryHeap::new();
        for machine in self.machines.iter_mut().flatten() {
            begin(machine, &course.world);
            due.push(Reverse((machine.pace.due().unwrap_or_default(), machine.n)));
        }
        let key = self.key.ok_or_else(|| Failure::failed("no machine joined"))?;
        let give_up = course.round * (course.rounds + PATIENCE) + Duration::from_secs(300);
        let mut under_way: JoinSet<Exchange> = JoinSet::new();
        while !due.is_empty() || !under_way.is_empty() {
            if start.elapsed() > give_up {
                let n = due.len() + under_way.len();
                return Err(Failure::failed(format!("{n} machines did not come to an end")));
            }
            let next = due.peek().map(|Reverse((at, _))| *at);
            let is_free = under_way.len() < course.connections;
            match next.filter(|at| is_free && *at <= moment()) {
                Some(_) => {
                    let Some(Reverse((_, n))) = due.pop() else { continue };
                    let Some(machine) = self.machines.get_mut(n as usize).and_then(Option::take)
                    else {
                        continue;
                    };
                    let door = self.door.clone();
                    under_way
                        .spawn(async move { exchange(door, course, machine, key, moment).await });
                    continue;
                }
                None if under_way.is_empty() => {
                    let wait = next.unwrap_or_default().since(moment()).div_f64(scale);
                    tokio::time::sleep(
                        wait.clamp(Duration::from_millis(1), Duration::from_secs(1)),
                    )
                    .await;
                    continue;
                }
                None => {}
            }
            let wait = match next.filter(|_| is_free) {
                Some(at) => at.since(moment()).div_f64(scale).min(Duration::from_secs(1)),
                None => Duration::from_secs(1),
            };
            tokio::select! {
                Some(ended) = under_way.join_next() => {
                    let ended = ended.map_err(|error| Failure::failed(error.to_string()))?;
                    self.take(ended, &mut due, moment())?;
                }
                () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
            }
            if noted.elapsed() > Duration::from_secs(30) {
                noted = Instant::now();
                out.note(format!(
                    "{} reports, {} machines are to come",
                    self.n_reports(),
                    due.len()
                ));
            }
        }
        Ok(())
    }

    fn n_reports(&self) -> u64 {
        self.report.counts.iter().sum()
    }

    fn take(
        &mut self,
        ended: Exchange,
        due: &mut BinaryHeap<Reverse<(Moment, u32)>>,
        now: Moment,
    ) -> Result<(), Failure> {
        let Exchange { mut machine, policy, reports, answers, sent_bytes, fatal } = ended;
        if let Some(fatal) = fatal {
            return Err(Failure::failed(fatal));
        }
        policy.into_iter().for_each(|took| self.policy.add(took));
        reports.into_iter().for_each(|took| self.report.add(took));
        answers.into_iter().for_each(|answer| *self.answers.entry(answer).or_default() += 1);
        self.sent_bytes += sent_bytes;
        if machine.is_done() && machine.left > 0 {
            machine.scans();
            machine.pace.waits(now, BULK);
        }
        if !machine.is_done() {
            due.push(Reverse((machine.pace.due().unwrap_or(now), machine.n)));
        }
        let place = machine.n as usize;
        if let Some(slot) = self.machines.get_mut(place) {
            *slot = Some(machine);
        }
        Ok(())
    }

    /// The last scan of each machine.
    pub fn scans(&self) -> Vec<Option<u64>> {
        self.machines.iter().map(|machine| machine.as_ref().and_then(|it| it.scan)).collect()
    }

    /// How often there was which answer.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        self.answers.clone()
    }

    /// What was measured.
    pub fn figures(&self) -> Figures {
        Figures {
            join: self.join.spread(),
            policy: self.policy.spread(),
            report: self.report.spread(),
            sent_bytes: self.sent_bytes,
        }
    }
}

/// One exchange: the policy, if the machine has none yet, and a batch.
async fn exchange(
    door: Door,
    course: Course,
    machine: Machine,
    key: PublicKey,
    moment: impl Fn() -> Moment,
) -> Exchange {
    let mut done = Exchange {
        machine,
        policy: None,
        reports: Vec::new(),
        answers: Vec::new(),
        sent_bytes: 0,
        fatal: None,
    };
    if let Err(trouble) = talk(&door, &course, &mut done, &key, &moment).await {
        done.answers.push(trouble.word());
        let chance = done.machine.chance(&course.world);
        match trouble {
            Trouble::Later(asked) => done.machine.pace.failed(moment(), asked, chance),
            Trouble::Gone(_) => done.machine.pace.failed(moment(), None, chance),
            // It lies in quarantine.
            Trouble::Refused(422, _) => done.machine.damaged(&course.world, moment()),
            Trouble::Refused(status, text) => {
                done.fatal = Some(format!("the site refuses a machine: {status} {text}"));
            }
        }
    }
    done
}

async fn talk(
    door: &Door,
    course: &Course,
    done: &mut Exchange,
    key: &PublicKey,
    moment: &impl Fn() -> Moment,
) -> Result<(), Trouble> {
    let unusable = |failure: Failure| Trouble::Gone(failure.message);
    let identity = done.machine.identity.as_ref();
    let identity = identity.ok_or_else(|| Trouble::Gone("it did not join".into()))?;
    let line = door.own(identity).map_err(unusable)?;
    if !done.machine.has_policy {
        let asked = Instant::now();
        line.policy(&course.world, &done.machine, key).await?;
        done.policy = Some(asked.elapsed());
        done.machine.has_policy = true;
    }
    let harm = done.machine.harm(&course.world, course.harm);
    let now = jiff::Timestamp::now().as_second();
    let batch = done.machine.batch(&course.world, harm, now);
    let batch = Bytes::from(batch.map_err(|error| Trouble::Gone(error.to_string()))?);
    if harm == Some(Harm::Lost) {
        return Err(Trouble::Gone("it was lost".into()));
    }
    for _ in 0..1 + u8::from(harm == Some(Harm::Twice)) {
        let asked = Instant::now();
        done.sent_bytes += batch.len() as u64;
        let answer = line.report(batch.clone()).await?;
        done.reports.push(asked.elapsed());
        done.answers.push(word(&answer).into());
        done.machine.answered(&course.world, &answer, moment());
    }
    Ok(())
}

fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accepted { resync: None, .. } => "accepted",
        Answer::Accepted { .. } => "accepted, resync",
        Answer::Duplicate { .. } => "duplicate",
        Answer::Gap { .. } => "gap",
        Answer::Busy { .. } => "busy",
        Answer::Refused { .. } => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_tells_times_to_a_twentieth() {
        let mut times = Times::new();
        (1..=1_000).for_each(|n| times.add(Duration::from_millis(n)));
        let spread = times.spread();
        assert_eq!((spread.count, spread.most_ms), (1_000, 1_000.0));
        assert!((500.0..526.0).contains(&spread.p50_ms), "{}", spread.p50_ms);
        assert!((990.0..=1_000.0).contains(&spread.p99_ms), "{}", spread.p99_ms);
    }
}
