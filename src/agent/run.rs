//! The running agent: it takes policy, scans, and reports, each when it is time.
//!
//! What is to be done, and when, crate `client` decides; here are the network, the clock, the dice and the disk. All
//! state is on disk before anything follows from it, so an agent that is killed goes on where it was. One thing is
//! done at a time; the question for the next policy waits at the site meanwhile.

use super::control::{Ask, Asked};
use super::enrol::{self, JSON, Patience, Wish};
use super::home::{Home, HomeError, Settled};
use super::link::{Point, Site, Trouble, believing};
use super::machine::Machine;
use super::status::{Scanned, Status};
use client::applicability::Assessor;
use client::catalogue::{RefreshError, Refreshed, Shelf, platform_of};
use client::clock::{Moment, Steady};
use client::explain::explain;
use client::facts::told::Told;
use client::ledger::log::LogError;
use client::ledger::report::Follows;
use client::ledger::{Ledger, Life, pace::Pace};
use client::policy::{Policy, SignedPolicy};
use client::scan::agenda::{self, Agenda, Scan};
use client::scan::evaluate::{Evaluation, evaluate};
use client::scan::retry::{Class, Failure};
use client::scan::{Line, Step, Trigger};
use compliance::message::{Answer, Refusal};
use dp::field::JoinToken;
use dp::identity::Identity;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sync::name::UpdateId;
use sync::shard::Platform;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How long the question for the next policy waits at the site.
const WAIT: u64 = 50;
/// The shortest and the longest sleep of the loop: what is due is looked for again.
const SLEEP: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(600));
/// How often the site is told by way of the fallback that something does not work.
const FALLBACK: Duration = Duration::from_secs(3_600);
/// How long one that the site does not let in keeps quiet, at most.
const QUIET: Duration = Duration::from_secs(3_600);

/// What is kept of what the agent is about to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    steady: Steady,
    agenda: Agenda,
    pace: Pace,
    last_scan: Option<Scanned>,
    awaiting_restart: BTreeSet<UpdateId>,
    /// When facts are looked at again.
    facts_due: Moment,
}

/// Where the last scan found its update point: for whoever looks at the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Location {
    url: String,
    at: Timestamp,
}

/// Why an agent ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its ledger.
    #[error(transparent)]
    Ledger(#[from] LogError),
    /// Its catalogue.
    #[error("the folder of the catalogue cannot be used")]
    Catalogue(#[source] std::io::Error),
    /// It has not joined, and has nothing to join with.
    #[error("{} has not joined a site: start it once with --join-file FILE", .0.display())]
    NotJoined(PathBuf),
    /// Its key cannot be used.
    #[error(transparent)]
    Identity(#[from] dp::identity::IdentityError),
    /// Connections cannot be made.
    #[error("connections cannot be made: {0}")]
    Connections(Trouble),
    /// A part of it ended that should not.
    #[error("a part of the agent failed")]
    Failed,
}

/// What an agent is started with.
pub struct Start {
    /// Its folder.
    pub home: Home,
    /// The machine that it is on.
    pub machine: Machine,
    /// Where the site is said to be.
    pub site: Option<String>,
    /// What it joins with, if it has not.
    pub token: Option<JoinToken>,
}

/// An agent that has joined.
struct Agent {
    home: Arc<Home>,
    machine: Machine,
    settled: Settled,
    identity: Identity,
    site: Arc<Site>,
    points: reqwest::Client,
    policy: Option<Policy>,
    state: State,
    saved: Vec<u8>,
    ledger: Ledger,
    shelf: Option<Shelf>,
    /// The site's last word on whether it lets the client in, where it does not.
    not_let_in: Option<String>,
    policy_trouble: Option<String>,
    report_trouble: Option<String>,
    told_fallback: Option<Moment>,
    /// Which policy is held, for the question that waits at the site.
    held: watch::Sender<Held>,
    /// Commands that wait for the scan that answers them.
    waiting: Vec<(Trigger, oneshot::Sender<Result<Value, String>>)>,
}

/// What the question for the next policy goes by.
#[derive(Clone)]
struct Held {
    site: Arc<Site>,
    revision: String,
    poll_every: Duration,
}

fn dice() -> f64 {
    rand::random::<f64>()
}

/// Runs until `stop`.
pub async fn run(
    start: Start,
    mut asked: mpsc::Receiver<Asked>,
    started: impl FnOnce(&Status),
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let Some((home, machine, settled, identity)) = joined(start, &mut asked, &stop).await? else {
        return Ok(());
    };
    let mut agent = Agent::open(home, machine, settled, identity)?;
    started(&agent.status());
    agent.run(asked, stop).await
}

/// Joins if it has not: asks again until it is let in, or `stop`.
async fn joined(
    start: Start,
    asked: &mut mpsc::Receiver<Asked>,
    stop: &CancellationToken,
) -> Result<Option<(Home, Machine, Settled, Identity)>, AgentError> {
    let Start { home, machine, site, token } = start;
    let print = machine.print();
    if let Some((mut settled, identity)) = home.joined(&print)? {
        if let Some(site) = site.map(|site| site.trim_end_matches('/').to_owned()) {
            settled.sites.retain(|it| *it != site);
            settled.sites.insert(0, site);
        }
        return Ok(Some((home, machine, settled, identity)));
    }
    let token = match token {
        Some(token) => token,
        None => home.token()?.ok_or_else(|| AgentError::NotJoined(home.folder().into()))?,
    };
    let name = machine.name();
    let wish = Wish { token: &token, site: site.as_deref(), name: &name, print: &print };
    let (mut patience, mut said) = (Patience::default(), String::new());
    loop {
        let (standing, wait) = match wish.ask(&home).await? {
            enrol::Asked::Joined(joined) => {
                let (settled, identity) = *joined;
                tracing::info!(id = %settled.id, name = settled.name, "this machine is a client now");
                return Ok(Some((home, machine, settled, identity)));
            }
            enrol::Asked::Pending => {
                let standing = "pending: an administrator has to approve this machine".to_owned();
                (standing, patience.pending(dice()))
            }
            enrol::Asked::NotYet(trouble) => {
                (trouble.to_string(), patience.failed(&trouble, dice()))
            }
        };
        if standing != said {
            // Once: whoever blocked it does not want to read it every minute.
            tracing::warn!(standing, "this machine is no client yet");
            wish.tell_fallback(&home, &standing).await;
            said.clone_from(&standing);
        }
        let again = tokio::time::sleep(wait);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = &mut again => break,
                command = asked.recv() => {
                    let Some((ask, tell)) = command else { return Ok(None) };
                    let id = enrol::id_of(&home, &print);
                    let _ = tell.send(match (ask, id) {
                        (Ask::Status, Some(id)) => {
                            let status = Status::joining(id, &name, &token.sites, &standing);
                            serde_json::to_value(status).map_err(|error| error.to_string())
                        }
                        (Ask::Policy, _) => {
                            again.as_mut().reset(tokio::time::Instant::now());
                            Ok(Value::Null)
                        }
                        _ => Err(format!("this machine is no client yet: {standing}")),
                    });
                }
            }
        }
    }
}

impl Status {
    /// That of one that has not joined.
    fn joining(id: compliance::message::ClientId, name: &str, sites: &[String], why: &str) -> Self {
        Self {
            id,
            name: name.into(),
            sites: sites.into(),
            standing: why.into(),
            policy: None,
            policy_trouble: None,
            updates_enabled: false,
            update_point: None,
            catalogue: None,
            last_scan: None,
            next_scan: None,
            waiting: 0,
            next_report: None,
            report_trouble: None,
            facts: None,
            certificate_until: None,
        }
    }
}

/// A file that can do without: what is damaged of it counts as not there.
fn dispensable<T: serde::de::DeserializeOwned>(home: &Home, name: &str) -> Option<T> {
    home.read(name).unwrap_or_else(|error| {
        tracing::warn!(error = crate::exit::chain(&error), "it is made anew");
        None
    })
}

impl Agent {
    fn open(
        home: Home,
        machine: Machine,
        settled: Settled,
        identity: Identity,
    ) -> Result<Self, AgentError> {
        let site = Arc::new(Site::of(&identity, &settled.sites)?);
        let points = believing(&identity.authority().pem()).map_err(AgentError::Connections)?;
        let life = Life(NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN));
        let ledger = Ledger::open(&home.path("ledger"), life)?;
        let shelf = Shelf::open(&home.path("catalogue"), settled.key);
        let mut state: State = dispensable(&home, STATE).unwrap_or_default();
        state.agenda.interrupted();
        let signed = dispensable::<SignedPolicy>(&home, POLICY);
        let policy = signed.and_then(|it| it.open(&settled.key, settled.id).ok());
        let held = watch::Sender::new(Held {
            site: site.clone(),
            revision: policy.as_ref().map(|it| it.revision.clone()).unwrap_or_default(),
            poll_every: policy.as_ref().map_or_else(Default::default, |it| it.settings.poll_every),
        });
        Ok(Self {
            home: Arc::new(home),
            machine,
            settled,
            identity,
            site,
            points,
            policy,
            state,
            saved: Vec::new(),
            ledger,
            shelf: Some(shelf.map_err(AgentError::Catalogue)?),
            not_let_in: None,
            policy_trouble: None,
            report_trouble: None,
            told_fallback: None,
            held,
            waiting: Vec::new(),
        })
    }

    async fn run(
        &mut self,
        mut asked: mpsc::Receiver<Asked>,
        stop: CancellationToken,
    ) -> Result<(), AgentError> {
        let (came, mut policies) = mpsc::channel(1);
        let listening = listen(self.held.subscribe(), came);
        tokio::pin!(listening);
        if self.ledger.batch().is_some() && self.state.pace.due().is_none() {
            // It was killed between what it found and what follows from it.
            let (now, every) = (self.now(), self.settings().report_every);
            self.state.pace.waits(now, every);
        }
        loop {
            self.work().await?;
            self.save()?;
            let sleep = self.until_due().clamp(SLEEP.0, SLEEP.1);
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut listening => return Err(AgentError::Failed),
                answer = policies.recv() => {
                    if let Some(answer) = answer {
                        self.take_answer(answer)?;
                    }
                }
                command = asked.recv() => match command {
                    Some((ask, tell)) => self.command(ask, tell).await?,
                    None => break,
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.save()
    }

    /// Does what is due, one thing after the other.
    async fn work(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        if self.identity.renew_at() <= Timestamp::now() {
            self.renew().await?;
        }
        if let Some(scan) = self.state.agenda.begin(now, &mut dice) {
            self.save()?;
            self.scan(scan).await?;
        }
        let now = self.now();
        if self.state.facts_due <= now {
            self.tell_facts().await?;
        }
        if self.state.pace.is_due(now) {
            self.report().await?;
        }
        Ok(())
    }

    fn until_due(&mut self) -> Duration {
        let now = self.now();
        let moments =
            [self.state.agenda.wake(now), self.state.pace.due(), Some(self.state.facts_due)];
        let next = moments.into_iter().flatten().min().map(|moment| moment.since(now));
        next.unwrap_or(SLEEP.1)
    }

    /// The moment, by the machine's clocks.
    fn now(&mut self) -> Moment {
        self.state.steady.at(self.machine.reading())
    }

    fn settings(&self) -> client::settings::Settings {
        self.policy.as_ref().map(|policy| policy.settings.clone()).unwrap_or_default()
    }

    /// Writes down what is about to be done, where it is something else than before.
    fn save(&mut self) -> Result<(), AgentError> {
        let bytes = serde_json::to_vec(&State { steady: Steady::default(), ..self.state.clone() })
            .expect("it has text keys");
        if bytes != self.saved {
            self.home.write(STATE, &self.state)?;
            self.saved = bytes;
        }
        Ok(())
    }

    /// Takes what came of asking for the policy.
    fn take_answer(&mut self, answer: Result<Option<Vec<u8>>, Trouble>) -> Result<(), AgentError> {
        match answer {
            Ok(None) => self.let_in(),
            Ok(Some(body)) => {
                self.let_in();
                let read = serde_json::from_slice::<SignedPolicy>(&body);
                let opened = read.map_err(|error| error.to_string()).and_then(|signed| {
                    let policy = signed.open(&self.settled.key, self.settled.id);
                    let policy = policy.map_err(|error| crate::exit::chain(&error))?;
                    Ok((signed, policy))
                });
                match opened {
                    Ok((signed, policy)) => self.take_policy(&signed, policy)?,
                    Err(why) => {
                        tracing::error!(why, "the policy is not believed; the one before holds");
                        self.policy_trouble = Some(why);
                    }
                }
            }
            Err(trouble) => self.trouble_of_policy(&trouble),
        }
        Ok(())
    }

    fn let_in(&mut self) {
        self.policy_trouble = None;
        if self.not_let_in.take().is_some() {
            tracing::info!("the site lets this client in again");
        }
    }

    fn trouble_of_policy(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.policy_trouble.as_ref() != Some(&text) {
            tracing::warn!(trouble = text, "the policy cannot be asked for; the one before holds");
        }
        if let Trouble::NotLetIn(why) = trouble {
            self.not_let_in = Some(why.clone());
        }
        self.policy_trouble = Some(text);
    }

    /// Has a policy hold from now on.
    fn take_policy(&mut self, signed: &SignedPolicy, policy: Policy) -> Result<(), AgentError> {
        self.home.write(POLICY, signed)?;
        let now = self.now();
        let is_enabled = policy.updates_enabled && policy.settings.updates_enabled;
        if !is_enabled {
            if self.state.agenda.is_enabled() {
                tracing::info!("updates are disabled: nothing is scanned for any more");
            }
            self.state.agenda.disable();
            self.home.remove(LOCATION)?;
        } else if !policy.update_points.is_empty() || self.state.agenda.is_enabled() {
            let settings = agenda::Settings {
                scan_every: policy.settings.scan_every,
                reevaluate_every: policy.settings.reevaluate_every,
                time_to_live: policy.settings.catalogue_ttl,
            };
            let points = policy.update_points.iter().map(|at| self.site.place(&at.url)).collect();
            self.state.agenda.policy(now, settings, points, &mut dice);
        }
        let is_new = self.policy.as_ref().is_none_or(|it| it.revision != policy.revision);
        if is_new {
            tracing::info!(revision = policy.revision, is_enabled, "another policy holds");
        }
        let (revision, poll_every) = (policy.revision.clone(), policy.settings.poll_every);
        self.held.send_modify(|held| (held.revision, held.poll_every) = (revision, poll_every));
        self.policy = Some(policy);
        self.save()
    }

    /// Asks for the policy now.
    async fn ask_policy(&mut self) -> Result<(), Trouble> {
        let revision = self.policy.as_ref().map_or("", |policy| &policy.revision).to_owned();
        let answer = ask_policy(&self.site, &revision, 0).await;
        if let Err(trouble) = &answer {
            self.trouble_of_policy(trouble);
            return Err(trouble.clone());
        }
        let taken = self.take_answer(answer);
        taken.map_err(|error| Trouble::BadAnswer(crate::exit::chain(&error)))
    }

    /// Scans, and records what came of it.
    async fn scan(&mut self, scan: Scan) -> Result<(), AgentError> {
        let began = std::time::Instant::now();
        let triggers: Vec<Trigger> = scan.answers.iter().copied().collect();
        let mut scanned = Scanned {
            triggers,
            at: Timestamp::now(),
            took: 0.0,
            update_point: None,
            refreshed: None,
            counts: None,
            changed: 0,
            failed: None,
        };
        let outcome = self.steps(&scan, &mut scanned).await?;
        (scanned.at, scanned.took) = (Timestamp::now(), began.elapsed().as_secs_f64());
        let now = self.now();
        if !self.state.agenda.is_enabled() {
            // While it was scanned the policy took updates away: what was found is of no use any more.
            for (_, tell) in std::mem::take(&mut self.waiting) {
                let _ = tell.send(Err("updates were disabled by the site's settings".into()));
            }
            return self.save();
        }
        match outcome {
            Ok(()) => {
                self.state.agenda.succeeded(now);
                tracing::info!(?scanned, "the machine was scanned");
            }
            Err(failure) => {
                tracing::warn!(class = ?failure.class, why = failure.why, "a scan failed");
                self.ledger.record_failure(failure.class.code(), Timestamp::now())?;
                self.state.agenda.failed(now, failure.clone());
                scanned.failed = Some(failure);
            }
        }
        let settings = self.settings();
        let is_urgent =
            |trigger: &Trigger| matches!(trigger, Trigger::AfterInstall | Trigger::AfterRestart);
        if scan.answers.iter().any(is_urgent) {
            self.state.pace.waits_after_install(now, settings.report_after_install, dice());
        } else {
            self.state.pace.waits(now, settings.report_every);
        }
        if let Some(failure) = scanned.failed.clone() {
            let code = serde_json::to_value(failure.class).unwrap_or_default();
            let code = code.as_str().unwrap_or("failed").to_owned();
            self.tell_fallback("scan", &code, &failure.why).await;
        }
        self.state.last_scan = Some(scanned.clone());
        self.save()?;
        let answer = match (&scanned.failed, serde_json::to_value(&scanned)) {
            (None, Ok(value)) => Ok(value),
            (Some(failure), _) => Err(format!("the scan failed: {}", failure.why)),
            (None, Err(error)) => Err(error.to_string()),
        };
        for (trigger, tell) in std::mem::take(&mut self.waiting) {
            if scan.answers.contains(&trigger) {
                let _ = tell.send(answer.clone());
            } else {
                self.waiting.push((trigger, tell));
            }
        }
        Ok(())
    }

    /// The steps of a scan, in order, up to the first that fails.
    async fn steps(
        &mut self,
        scan: &Scan,
        scanned: &mut Scanned,
    ) -> Result<Result<(), Failure>, AgentError> {
        let (mut point, mut found) = (scan.point.clone(), None);
        for step in scan.steps {
            match step {
                Step::ClearHistory => self.state.last_scan = None,
                Step::AskForUpdatePoint => {
                    // While the site is away, what its last policy says holds.
                    let _ = self.ask_policy().await;
                    point = self.state.agenda.point().map(str::to_owned).filter(|_| {
                        self.policy.as_ref().is_some_and(|policy| policy.updates_enabled)
                    });
                }
                Step::RecordLocation => match &point {
                    Some(url) => {
                        let location = Location { url: url.clone(), at: Timestamp::now() };
                        self.home.write(LOCATION, &location)?;
                        scanned.update_point = Some(url.clone());
                    }
                    None => {
                        let why = "the site names no update point".into();
                        return Ok(Err(Failure { class: Class::NoUpdatePoint, why }));
                    }
                },
                Step::Refresh => {
                    let url = point.clone().unwrap_or_default();
                    match self.refresh(&url).await? {
                        Ok(refreshed) => scanned.refreshed = Some(refreshed),
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
                Step::Evaluate => match self.evaluate().await? {
                    Ok(evaluation) => found = Some(evaluation),
                    Err(failure) => return Ok(Err(failure)),
                },
                Step::RecordStates => {
                    let Some(Evaluation { found, counts, catalogue }) = found.take() else {
                        return Err(AgentError::Failed);
                    };
                    scanned.changed = self.ledger.record(&found, catalogue, Timestamp::now())?;
                    scanned.counts = Some(counts);
                }
            }
        }
        Ok(Ok(()))
    }

    /// Brings what changed of the catalogue.
    async fn refresh(&mut self, url: &str) -> Result<Result<Refreshed, Failure>, AgentError> {
        let runtime = tokio::runtime::Handle::current();
        let mut point = match Point::at(self.points.clone(), url, runtime) {
            Ok(point) => point,
            Err(trouble) => return Ok(Err(failure_of(&trouble))),
        };
        let machine = self.machine.clone();
        self.with_shelf(move |shelf| {
            let platform = platform(&machine)?;
            let refreshed = shelf.refresh(&mut point, platform);
            refreshed.map_err(|error| match error {
                RefreshError::Asking(trouble) => failure_of(&trouble),
                RefreshError::Disk(source) if source.kind() == std::io::ErrorKind::NotFound => {
                    Failure { class: Class::Damaged, why: source.to_string() }
                }
                RefreshError::Disk(source) => {
                    let why = format!("the catalogue cannot be kept on this machine: {source}");
                    Failure { class: Class::Local, why }
                }
                error => Failure { class: Class::BadAnswer, why: crate::exit::chain(&error) },
            })
        })
        .await
    }

    /// Assesses all updates by what lies on the machine.
    async fn evaluate(&mut self) -> Result<Result<Evaluation, Failure>, AgentError> {
        let (machine, waits) = (self.machine.clone(), self.state.awaiting_restart.clone());
        self.state.facts_due = Moment::default();
        self.with_shelf(move |shelf| {
            let facts = machine.facts().map_err(|error| local(crate::exit::chain(&error)))?;
            evaluate(&*facts, shelf, &waits).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Failure { class: Class::Damaged, why: error.to_string() }
                }
                _ => local(format!("the catalogue cannot be read: {error}")),
            })
        })
        .await
    }

    /// Works on the catalogue on a thread that may block.
    async fn with_shelf<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Shelf) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let mut shelf = self.shelf.take().ok_or(AgentError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            let made = work(&mut shelf);
            (shelf, made)
        });
        let (shelf, made) = done.await.map_err(|_| AgentError::Failed)?;
        self.shelf = Some(shelf);
        Ok(made)
    }

    /// Tells the site what changed of the machine.
    async fn tell_facts(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        self.state.facts_due = now + self.settings().poll_every.max(Duration::from_secs(60));
        let (home, machine) = (self.home.clone(), self.machine.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let facts = machine.facts()?;
            let told = machine.told(&*facts, home.folder());
            Ok::<_, client::facts::FactsError>((told, dispensable::<Told>(&home, FACTS)))
        });
        let (mut told, mut before) = match looked.await.map_err(|_| AgentError::Failed)? {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(
                    error = crate::exit::chain(&error),
                    "the machine's facts are not read"
                );
                return Ok(());
            }
        };
        for _ in 0..2 {
            let Some(change) = told.since(before.as_ref()) else { return Ok(()) };
            let body = serde_json::to_vec(&change).expect("it has text keys");
            let put = self.site.ask(Method::PUT, "api/v1/client/facts", Some((&body, JSON)));
            match put.await {
                Ok(_) => return Ok(self.home.write(FACTS, &told)?),
                // It has another revision than we think: then all is told.
                Err(Trouble::Refused { status: 409, .. }) if before.is_some() => before = None,
                Err(trouble) => {
                    tracing::info!(%trouble, "the machine's facts are told later");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what waits.
    async fn report(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        let Some(message) = self.ledger.message(self.settled.id, Timestamp::now()) else {
            self.state.pace.sent(now, false, dice());
            return Ok(());
        };
        let follows = match message.encode() {
            Err(error) => {
                let why = format!(
                    "{} states cannot be put into a message: {error}",
                    message.states.len()
                );
                self.report_failed(&why, Some(QUIET));
                return Ok(());
            }
            Ok(bytes) => {
                let kind = api::routes::fleet::client::STATES;
                let sent =
                    self.site.ask(Method::POST, "api/v1/client/states", Some((&bytes, kind)));
                match sent.await {
                    Ok(answer) => match serde_json::from_slice::<Answer>(&answer.body) {
                        Ok(answer) => self.ledger.answered(answer)?,
                        Err(error) => {
                            self.report_failed(
                                &format!("the site's answer makes no sense: {error}"),
                                None,
                            );
                            return Ok(());
                        }
                    },
                    Err(Trouble::Refused { status: 422, .. }) => {
                        let why = Refusal::Malformed { quarantine: 0 };
                        self.ledger.answered(Answer::Refused { why })?
                    }
                    Err(trouble) => {
                        let asked = match &trouble {
                            Trouble::Busy { after, .. } => *after,
                            Trouble::NotLetIn(_) | Trouble::Refused { .. } => Some(QUIET / 4),
                            _ => None,
                        };
                        let text = trouble.to_string();
                        self.report_failed(&text, asked);
                        if !matches!(trouble, Trouble::Busy { .. }) {
                            self.tell_fallback("report", "report-failed", &text).await;
                        }
                        return Ok(());
                    }
                }
            }
        };
        match follows {
            Follows::Taken { is_more } => {
                self.report_trouble = None;
                self.state.pace.sent(now, is_more, dice());
                tracing::info!(
                    states = message.states.len(),
                    is_more,
                    "states were told to the site"
                );
            }
            Follows::Later(wait) => self.report_failed("the site has too much to do", Some(wait)),
            Follows::NotLetIn(why) | Follows::Refused(why) => {
                self.report_failed(&why.to_string(), Some(QUIET / 4));
            }
        }
        Ok(())
    }

    fn report_failed(&mut self, why: &str, asked: Option<Duration>) {
        if self.report_trouble.as_deref() != Some(why) {
            tracing::warn!(why, "states are told to the site later");
        }
        self.report_trouble = Some(why.to_owned());
        let now = self.now();
        self.state.pace.failed(now, asked, dice());
    }

    /// Says by way of the fallback what does not work, at most once an hour.
    async fn tell_fallback(&mut self, stage: &str, code: &str, text: &str) {
        let now = self.now();
        let is_told = |told: Moment| now.since(told) < FALLBACK;
        let Some(policy) = &self.policy else { return };
        if policy.fallback.is_empty() || self.told_fallback.is_some_and(is_told) {
            return;
        }
        let body = serde_json::json!({
            "id": self.settled.id.to_string(), "name": self.settled.name, "stage": stage, "code": code,
            "text": text.chars().take(400).collect::<String>(), "at": Timestamp::now(),
        });
        for address in &policy.fallback {
            let address = self.site.place(address);
            let url = format!("{}/api/v1/client/fallback", address.trim_end_matches('/'));
            let told =
                self.points.post(url).json(&body).timeout(Duration::from_secs(20)).send().await;
            if told.is_ok_and(|told| told.status().is_success()) {
                self.told_fallback = Some(now);
                return;
            }
        }
    }

    /// Gets another certificate for its key.
    async fn renew(&mut self) -> Result<(), AgentError> {
        let request = self.identity.renewal()?;
        let body = serde_json::json!({ "request": request.pem() });
        let body = serde_json::to_vec(&body).expect("it has text keys");
        let asked = self.site.ask(Method::POST, "api/v1/client/renew", Some((&body, JSON))).await;
        #[derive(Deserialize)]
        struct Renewed {
            certificate: String,
        }
        let renewed = asked.and_then(|answer| {
            serde_json::from_slice::<Renewed>(&answer.body)
                .map_err(|error| Trouble::BadAnswer(error.to_string()))
        });
        match renewed {
            Err(trouble) => tracing::warn!(%trouble, "the certificate is renewed later"),
            Ok(Renewed { certificate }) => {
                let authority = self.identity.authority().clone();
                let identity = request.answered(&certificate, &authority)?;
                self.home.renewed(&identity)?;
                self.site = Arc::new(Site::of(&identity, &self.settled.sites)?);
                let site = self.site.clone();
                self.held.send_modify(|held| held.site = site);
                tracing::info!(until = %identity.expires(), "the site gave a new certificate");
                self.identity = identity;
            }
        }
        Ok(())
    }

    /// Does what a command wants.
    async fn command(
        &mut self,
        ask: Ask,
        tell: oneshot::Sender<Result<Value, String>>,
    ) -> Result<(), AgentError> {
        let status = |agent: &mut Self| {
            serde_json::to_value(agent.status()).map_err(|error| error.to_string())
        };
        let said = match ask {
            Ask::Status => status(self),
            Ask::Policy => match self.ask_policy().await {
                Ok(()) => status(self),
                Err(trouble) => Err(trouble.to_string()),
            },
            Ask::Scan { trigger } => {
                if !self.state.agenda.is_enabled() {
                    let why = match &self.policy {
                        None => "no policy came from the site yet",
                        Some(policy) if policy.updates_enabled => {
                            "the site has no update point yet"
                        }
                        Some(_) => "updates are disabled by the site's settings",
                    };
                    Err(format!("nothing is scanned for: {why}"))
                } else if trigger.kind().1 == Line::Offline && self.state.agenda.brought().is_none()
                {
                    Err("no catalogue was brought to this machine yet: scan without --offline"
                        .into())
                } else {
                    self.state.agenda.ask(trigger);
                    let now = self.now();
                    match self.state.agenda.wake(now) {
                        Some(due) if due > now => {
                            let wait = crate::units::duration(due.since(now));
                            let why = self.state.agenda.last_failure().map(|it| it.why.clone());
                            let why = why.unwrap_or_default();
                            Err(format!(
                                "the update point is asked again in {wait}, as it failed before: {why}"
                            ))
                        }
                        _ => {
                            self.waiting.push((trigger, tell));
                            return Ok(());
                        }
                    }
                }
            }
            Ask::Report => {
                let now = self.now();
                self.state.pace.at_once(now);
                self.report().await?;
                match &self.report_trouble {
                    None => status(self),
                    Some(why) => Err(format!("states could not be told: {why}")),
                }
            }
            Ask::Explain { update } => {
                let machine = self.machine.clone();
                let waits = self.state.awaiting_restart.clone();
                self.with_shelf(move |shelf| explained(&machine, shelf, &waits, &update)).await?
            }
        };
        let _ = tell.send(said);
        Ok(())
    }

    fn status(&mut self) -> Status {
        let now = self.now();
        let seconds = |moment: Moment| moment.since(now).as_secs();
        let facts = dispensable::<BTreeMap<String, Value>>(&self.home, FACTS);
        Status {
            id: self.settled.id,
            name: self.settled.name.clone(),
            sites: self.settled.sites.clone(),
            standing: self.not_let_in.clone().unwrap_or_else(|| "approved".into()),
            policy: self.policy.as_ref().map(|policy| policy.revision.clone()),
            policy_trouble: self.policy_trouble.clone(),
            updates_enabled: self.state.agenda.is_enabled(),
            update_point: self.state.agenda.point().map(str::to_owned),
            catalogue: self.shelf.as_ref().and_then(Shelf::manifest).map(|manifest| manifest.seq),
            last_scan: self.state.last_scan.clone(),
            next_scan: self.state.agenda.wake(now).map(seconds),
            waiting: self.ledger.waiting(),
            next_report: self.state.pace.due().map(seconds),
            report_trouble: self.report_trouble.clone(),
            facts: facts.and_then(|facts| facts.get("revision")?.as_u64()),
            certificate_until: Some(self.identity.expires()),
        }
    }
}

const STATE: &str = "state.json";
const POLICY: &str = "policy.json";
const FACTS: &str = "facts.json";
const LOCATION: &str = "location.json";

fn local(why: String) -> Failure {
    Failure { class: Class::Local, why }
}

fn failure_of(trouble: &Trouble) -> Failure {
    Failure { class: trouble.class(), why: trouble.to_string() }
}

fn platform(machine: &Machine) -> Result<Platform, Failure> {
    let facts = machine.facts().map_err(|error| local(crate::exit::chain(&error)))?;
    Ok(platform_of(facts.system().platform))
}

/// Why the updates of that name are in their state.
fn explained(
    machine: &Machine,
    shelf: &Shelf,
    waits: &BTreeSet<UpdateId>,
    update: &str,
) -> Result<Value, String> {
    let facts = machine.facts().map_err(|error| crate::exit::chain(&error))?;
    let shelved = shelf.shelved(platform_of(facts.system().platform));
    let shelved = shelved.map_err(|error| error.to_string())?;
    let found = shelved.find(update).map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err(format!("no update for this machine is called {update:?}"));
    }
    let mut assessor = Assessor::new(&*facts, &shelved).awaiting_restart(waits);
    let all = found.iter().take(20).map(|entry| {
        let told = explain(&mut assessor, &entry.update);
        let text = told.to_string();
        let mut value = serde_json::to_value(&told).map_err(|error| error.to_string())?;
        value["text"] = text.into();
        Ok(value)
    });
    all.collect::<Result<Vec<Value>, String>>().map(Value::from)
}

/// The policy, if it is another than the one of that revision, once it is or after so many seconds.
async fn ask_policy(site: &Site, revision: &str, wait: u64) -> Result<Option<Vec<u8>>, Trouble> {
    let path = match revision {
        "" => "api/v1/client/policy".to_owned(),
        revision => format!("api/v1/client/policy?after={revision}&wait={wait}"),
    };
    let answer = site.ask(Method::GET, &path, None).await?;
    Ok((answer.status == StatusCode::OK).then_some(answer.body))
}

/// Has a question for the next policy wait at the site, again and again, and hands on what comes.
async fn listen(
    mut held: watch::Receiver<Held>,
    to: mpsc::Sender<Result<Option<Vec<u8>>, Trouble>>,
) {
    let mut failures = 0_u32;
    loop {
        let Held { site, revision, poll_every } = held.borrow_and_update().clone();
        let asked = tokio::select! {
            asked = ask_policy(&site, &revision, WAIT) => asked,
            // Another policy came in another way: the question is asked anew.
            changed = held.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let pause = match &asked {
            Ok(_) => {
                failures = 0;
                Duration::ZERO
            }
            Err(trouble) => {
                let (first, most) = match trouble {
                    Trouble::NotLetIn(_) => (Duration::from_secs(60), QUIET),
                    _ => (Duration::from_secs(2), poll_every.max(Duration::from_secs(60))),
                };
                let doubled = first.saturating_mul(1 << failures.min(12)).min(most);
                failures = failures.saturating_add(1);
                doubled.mul_f64(0.5 + dice() / 2.0)
            }
        };
        let is_policy = matches!(asked, Ok(Some(_)));
        if to.send(asked).await.is_err() {
            return;
        }
        if is_policy {
            // Asked again once it was taken, or refused: then not at once.
            let taken = tokio::time::timeout(Duration::from_secs(30), held.changed()).await;
            if matches!(taken, Ok(Err(_))) {
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}
