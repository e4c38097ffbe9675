//! The running agent: it takes policy, scans, and reports, each when it is time.
//!
//! What is to be done, and when, crate `client` decides; here are the network, the clock, the dice and the disk. All
//! state is on disk before anything follows from it, so an agent that is killed goes on where it was. One thing is
//! done at a time; the question for the next policy waits at the site meanwhile, and a download or an installation runs
//! beside. In the order to read: [`join`], then the loop below, and what it does: [`policy`], [`scan`], [`deploy`],
//! [`report`], [`command`].

mod command;
mod deploy;
mod join;
mod policy;
mod report;
mod scan;

use super::control::{Answered, Asked};
use super::home::{Home, HomeError, Settled};
use super::link::{Site, Trouble, believing, bringing};
use super::machine::Machine;
use super::status::{Scanned, Status};
use client::catalogue::Shelf;
use client::clock::{Moment, Steady};
use client::ledger::log::LogError;
use client::ledger::{Ledger, Life, pace::Pace};
use client::patience::QUIET;
use client::policy::{Policy, SignedPolicy};
use client::scan::Trigger;
use client::scan::agenda::Agenda;
use client::scan::watch::Watch;
use dp::field::JoinToken;
use dp::identity::Identity;
use jiff::Timestamp;
use join::Joined;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The shortest and the longest sleep of the loop: what is due is looked for again.
const SLEEP: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(600));

/// What is kept of what the agent is about to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    steady: Steady,
    agenda: Agenda,
    watch: Watch,
    pace: Pace,
    last_scan: Option<Scanned>,
    deploy: deploy::Kept,
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
    /// Its cache of files.
    #[error("the folder of files that are to be installed cannot be used")]
    Cache(#[source] std::io::Error),
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
    pub home: Arc<Home>,
    /// The machine that it is on.
    pub machine: Machine,
    /// Where the site is said to be.
    pub site: Option<String>,
    /// What it joins with, if it has not, or if its site does not know it any more.
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
    /// What asks distribution points for content.
    contents: reqwest::Client,
    policy: Option<Policy>,
    state: State,
    saved: Vec<u8>,
    ledger: Ledger,
    shelf: Option<Shelf>,
    /// What it joins with anew, should the site not know it any more; none once the site let it in.
    token: Option<JoinToken>,
    /// The site's last word on whether it lets the client in, where it does not.
    not_let_in: Option<String>,
    /// Whether that is since the site does not know the client any more.
    is_removed: bool,
    policy_trouble: Option<String>,
    report_trouble: Option<String>,
    told_fallback: Option<Moment>,
    /// Since when the packages are others than those of the scan before the one that is made.
    installed: Option<Moment>,
    /// Which policy is held, for the question that waits at the site.
    held: watch::Sender<Held>,
    deploy: deploy::Deploy,
    /// When is looked again at what is to be done for deployments; none, until something happens.
    deploy_due: Option<Moment>,
    /// Commands that wait for the scan that answers them.
    waiting: Vec<(Trigger, oneshot::Sender<Answered>)>,
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
    let mut started = Some(started);
    loop {
        let Some(joined) = join::joined(&start, &mut asked, &stop).await? else {
            return Ok(());
        };
        let (mut agent, mut done) = Agent::open(&start, joined)?;
        if let Some(started) = started.take() {
            started(&agent.status());
        }
        match agent.run(&mut asked, &mut done, &stop).await? {
            Ended::Stopped => return Ok(()),
            Ended::Removed => {
                tracing::warn!("the site does not know this client any more: it joins anew");
                start.home.forget()?;
            }
        }
    }
}

/// How a running agent ended.
enum Ended {
    /// It was told to.
    Stopped,
    /// The site does not know it any more, and there is a token to join with.
    Removed,
}

pub(super) use deploy::carry::is_running as is_installing;

/// A file that can do without: what is damaged of it counts as not there.
fn dispensable<T: serde::de::DeserializeOwned>(home: &Home, name: &str) -> Option<T> {
    home.read(name).unwrap_or_else(|error| {
        tracing::warn!(error = crate::exit::with_causes(&error), "it is made anew");
        None
    })
}

impl Agent {
    fn open(
        start: &Start,
        joined: Joined,
    ) -> Result<(Self, mpsc::Receiver<deploy::Done>), AgentError> {
        let (home, machine) = (start.home.clone(), start.machine.clone());
        let Joined { settled, identity, is_new } = joined;
        let token = match &start.token {
            // It is what it joined with.
            _ if is_new => None,
            None => home.token()?,
            token => token.clone(),
        };
        let site = Arc::new(Site::of(&identity, &settled.sites)?);
        let points = believing(&identity.authority().pem()).map_err(AgentError::Connections)?;
        let contents = bringing(&identity.authority().pem()).map_err(AgentError::Connections)?;
        let life = Life(NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN));
        let ledger = Ledger::open(&home.path("ledger"), life)?;
        let shelf = Shelf::open(&home.path("catalogue"), settled.key);
        let mut state: State = dispensable(&home, STATE).unwrap_or_default();
        state.agenda.interrupted();
        state.deploy.enforcer.interrupted();
        let (deploy, done) = deploy::Deploy::open(&home, &machine)?;
        let signed = dispensable::<SignedPolicy>(&home, POLICY);
        let policy = signed.and_then(|it| it.open(&settled.key, settled.id).ok());
        let held = watch::Sender::new(Held {
            site: site.clone(),
            revision: policy.as_ref().map(|it| it.revision.clone()).unwrap_or_default(),
            poll_every: policy.as_ref().map_or_else(Default::default, |it| it.settings.poll_every),
        });
        let agent = Self {
            home,
            machine,
            settled,
            identity,
            site,
            points,
            contents,
            policy,
            state,
            saved: Vec::new(),
            ledger,
            shelf: Some(shelf.map_err(AgentError::Catalogue)?),
            token,
            not_let_in: None,
            is_removed: false,
            policy_trouble: None,
            report_trouble: None,
            told_fallback: None,
            installed: None,
            held,
            deploy,
            deploy_due: Some(Moment::default()),
            waiting: Vec::new(),
        };
        Ok((agent, done))
    }

    async fn run(
        &mut self,
        asked: &mut mpsc::Receiver<Asked>,
        done: &mut mpsc::Receiver<deploy::Done>,
        stop: &CancellationToken,
    ) -> Result<Ended, AgentError> {
        let (came, mut policies) = mpsc::channel(1);
        let listening = policy::listen(self.held.subscribe(), came);
        tokio::pin!(listening);
        if self.ledger.batch().is_some() && self.state.pace.due().is_none() {
            // It was killed between what it found and what follows from it.
            let (now, every) = (self.now(), self.settings().report_every);
            self.state.pace.waits(now, every);
        }
        loop {
            self.work().await?;
            self.save()?;
            if self.is_removed && self.token.is_some() {
                return Ok(Ended::Removed);
            }
            let sleep = self.until_due().clamp(SLEEP.0, SLEEP.1);
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut listening => return Err(AgentError::Failed),
                answer = policies.recv() => {
                    if let Some(answer) = answer {
                        self.take_answer(answer)?;
                    }
                }
                Some(done) = done.recv() => self.deploy_done(done).await?,
                command = asked.recv() => match command {
                    Some((ask, tell)) => self.command(ask, tell).await?,
                    None => break,
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.save()?;
        Ok(Ended::Stopped)
    }

    /// Does what is due, one thing after the other.
    async fn work(&mut self) -> Result<(), AgentError> {
        let now = self.now();
        if self.identity.renew_at() <= Timestamp::now() {
            self.renew().await?;
        }
        self.deploy().await?;
        let scans = self.may_scan();
        if scans && self.state.watch.next() <= now {
            self.look().await?;
        }
        if let Some(scan) = scans.then(|| self.state.agenda.begin(now, &mut dice)).flatten() {
            self.save()?;
            self.scan(scan).await?;
            self.deploy().await?;
        }
        let now = self.now();
        if self.state.facts_due <= now {
            self.tell_facts().await?;
        }
        if self.state.pace.is_due(now) {
            self.report().await?;
        }
        if self.state.deploy.pace.is_due(now) {
            self.report_enforcement().await?;
        }
        Ok(())
    }

    fn until_due(&mut self) -> Duration {
        let now = self.now();
        let scans = self.may_scan();
        let State { agenda, watch, pace, deploy, facts_due, .. } = &self.state;
        let moments = [
            agenda.wake(now).filter(|_| scans),
            Some(watch.next()).filter(|_| scans),
            pace.due(),
            deploy.pace.due(),
            self.deploy_due,
            Some(*facts_due),
        ];
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
}

const STATE: &str = "state.json";
const POLICY: &str = "policy.json";
const FACTS: &str = "facts.json";
const LOCATION: &str = "location.json";
