//! The sync machine: runs sources through their stages, one after the other or side by side.
//!
//! ```text
//! connect → fetch → verify  │  parse → diff → commit  │  publish → notify
//! the adapter, with network │ the adapter, without    │ policy, 6702, children, update points
//! ```
//!
//! Always true:
//! * of one source at most one run is under way, however many ask; who asks meanwhile joins it;
//! * at most as many runs as the settings say are under way, those of high priority first;
//! * before the commit a run changes nothing but files in its source's folder, and afterwards nothing
//!   is lost: a run that is killed anywhere begins again by itself and goes on with those files, and
//!   what a commit owes (policy, message, children) is made good for by the next run;
//! * a run whose source was changed or removed meanwhile does not commit;
//! * a run in which nothing moves for a while is ended, and the next may begin;
//! * update points follow when the run is over, one at a time: no run waits for one;
//! * while somebody holds a source still ([`Machine::hold`]), no run of it is under way.
//!
//! What is decided (when, whether again) stands in [`policy`], as pure functions; what one run does in
//! `run`. [`Machine::serve`] begins runs by the schedule; without it they begin by request alone.

mod hold;
mod notify;
mod own;
mod points;
pub mod policy;
mod run;
mod status;

pub use hold::Held;
pub use notify::{Alone, Notify};
pub use status::{Progress, Status};

use crate::adapter::{Adapter, Stage, Watch};
use crate::catalogue::{Ageing, Catalogue, Deployments, NothingDeployed};
use crate::error::{Cause, SyncError};
use crate::fetch::{Fetcher, Patience};
use crate::lifecycle::Policy;
use crate::messages::{Message, MessageId, Messages};
use crate::name::SourceName;
use crate::source::{
    Again, Outcome, RunNumber, RunRecord, Running, Source, SourceError, Sources, Standing, Trigger,
};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use sitedb::{Batch, CommitError, Db, DbError, Order, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest sleep between two looks at what is due, for clocks that are set.
const LOOK: Duration = Duration::from_secs(60);
/// Updates whose life is looked at in one step.
const AGED_AT_ONCE: usize = 10_000;

const STANDINGS: Table<String, Standing> = Table::new("sync-standings");
const RUNS: Table<(String, RunNumber), RunRecord> = Table::new("sync-runs");

/// How the machine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Runs at a time.
    pub concurrent: usize,
    /// A run in which nothing moves for so long is ended.
    pub patience: Duration,
    /// How long to wait for upstreams.
    pub upstream: Patience,
    /// Runs that are remembered of each source.
    pub history: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrent: 2,
            patience: Duration::from_secs(600),
            upstream: Patience::default(),
            history: 100,
        }
    }
}

/// What reads a source.
pub type Adapters = Arc<dyn Fn(&Source) -> Result<Box<dyn Adapter>, SyncError> + Send + Sync>;

/// What the machine is made of besides its settings: handed in, so that tests hand in others.
#[derive(Clone)]
pub struct Parts {
    /// Tells the time.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Gives a number from 0 to 1, another each time.
    pub dice: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// What reads sources.
    pub adapters: Adapters,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            now: Arc::new(Timestamp::now),
            dice: Arc::new(rand::random::<f64>),
            adapters: Arc::new(|source| source.kind.adapter()),
        }
    }
}

/// Why the machine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// About the source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source that is disabled is not synchronised.
    #[error("source {0} is disabled: enable it first")]
    Disabled(SourceName),
    /// It is under way already, and not as it was asked for.
    #[error("a sync of {0} is under way: ask for a full one when it is over, or cancel it")]
    UnderWay(SourceName),
    /// None is under way.
    #[error("no sync of {0} is under way")]
    NotUnderWay(SourceName),
    /// Nothing of it is here, or what is here is of other settings.
    #[error(
        "source {0} was not synchronised since it was added or changed: do it first, with `depot sync run {0}`"
    )]
    NotSynchronised(SourceName),
    /// The site is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] SyncError),
}

impl From<DbError> for MachineError {
    fn from(error: DbError) -> Self {
        Self::Source(error.into())
    }
}

impl From<CommitError> for MachineError {
    fn from(error: CommitError) -> Self {
        Self::Source(error.into())
    }
}

/// The sync machine of a site. Cloning shares it.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    db: Db,
    folder: PathBuf,
    settings: Settings,
    parts: Parts,
    catalogue: Catalogue,
    sources: Sources,
    messages: Messages,
    fetcher: Fetcher,
    notify: RwLock<Arc<dyn Notify>>,
    deployments: RwLock<Arc<dyn Deployments>>,
    state: Mutex<State>,
    /// Held while a run is begun: whether there is one, and its number, are read and written.
    beginning: Mutex<()>,
    /// Held while others are told of a commit, so that they are told in order. The child sites that were
    /// not there the last time: of one that stays away one message is enough.
    telling: tokio::sync::Mutex<BTreeSet<String>>,
    points: points::Points,
    /// Something changed that may make a run due.
    look: tokio::sync::Notify,
    /// A run ended, or somebody let go of a source.
    freed: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    /// Runs that wait or are under way.
    live: BTreeMap<SourceName, Arc<Live>>,
    waiting: Vec<Arc<Live>>,
    /// Sources that are held still, and what stops who holds them.
    held: BTreeMap<SourceName, Arc<Watch>>,
    running: usize,
    is_closed: bool,
}

/// A run that waits for its turn or is under way.
struct Live {
    source: SourceName,
    priority: u8,
    number: RunNumber,
    trigger: Trigger,
    /// Whether all is asked for, as if it were the first sync.
    full: bool,
    asked: Timestamp,
    watch: Arc<Watch>,
    has_turn: AtomicBool,
    /// The watchdog ended it.
    is_stalled: AtomicBool,
    /// The site is stopping.
    is_interrupted: AtomicBool,
    ended: watch::Sender<Option<Arc<RunRecord>>>,
}

/// A run that somebody asked for.
pub struct Asked {
    live: Arc<Live>,
    /// Whether it was under way already.
    pub joined: bool,
}

impl Asked {
    /// Its number among the runs of its source.
    pub fn number(&self) -> RunNumber {
        self.live.number
    }

    /// Waits until it is over; what it came to.
    pub async fn ended(&self) -> Arc<RunRecord> {
        let mut ended = self.live.ended.subscribe();
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|record| record.clone());
        // The sender lives in `live`, which this holds.
        found.expect("a run ends before it is let go of")
    }

    /// The source that it is of.
    pub fn source(&self) -> &SourceName {
        &self.live.source
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.live.ended.borrow().is_some()
    }

    /// Asks it to end.
    pub fn cancel(&self) {
        self.live.watch.stop.cancel();
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress::of(&self.live)
    }
}

impl Machine {
    /// One that works on the sources and the catalogue of `db`, with files in `folder`.
    ///
    /// Runs that were cut off are recorded as that; what was left of removed sources goes.
    pub fn open(
        db: Db,
        folder: PathBuf,
        settings: Settings,
        parts: Parts,
    ) -> Result<Self, MachineError> {
        let catalogue = Catalogue::open(db.clone())?;
        let machine = Self(Arc::new(Inner {
            folder,
            settings,
            parts,
            catalogue,
            sources: Sources::open(db.clone()),
            messages: Messages::open(db.clone())?,
            fetcher: Fetcher::new(settings.upstream)?,
            notify: RwLock::new(Arc::new(Alone)),
            deployments: RwLock::new(Arc::new(NothingDeployed)),
            state: Mutex::default(),
            beginning: Mutex::new(()),
            telling: tokio::sync::Mutex::default(),
            points: points::Points::default(),
            look: tokio::sync::Notify::new(),
            freed: tokio::sync::Notify::new(),
            db,
        }));
        for (name, standing) in STANDINGS.scan(&machine.0.db, Order::Ascending, None, usize::MAX)? {
            if let Some(running) = &standing.running {
                machine.was_cut_off(&name, &standing, running)?;
            }
        }
        for name in machine.0.sources.removed()? {
            machine.let_go(&name)?;
        }
        Ok(machine)
    }

    /// The sources.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// The status messages.
    pub fn messages(&self) -> &Messages {
        &self.0.messages
    }

    /// What talks to upstreams, with the patience that is set.
    pub fn fetcher(&self) -> &Fetcher {
        &self.0.fetcher
    }

    /// Has `notify` told after each sync, in place of nobody.
    pub fn set_notify(&self, notify: Arc<dyn Notify>) {
        *self.0.notify.write() = notify;
    }

    /// Asks `deployments` which updates are deployed, before they go.
    pub fn set_deployments(&self, deployments: Arc<dyn Deployments>) {
        *self.0.deployments.write() = deployments;
    }

    /// Who knows which updates are deployed.
    pub fn deployments(&self) -> Arc<dyn Deployments> {
        self.0.deployments.read().clone()
    }

    /// Says that a source, or what is set for all, was changed.
    ///
    /// Blocks: the order in which sources count may move much of the catalogue.
    pub fn was_changed(&self) -> Result<(), MachineError> {
        let mut sources = self.0.sources.list()?;
        sources.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
        let order: Vec<SourceName> = sources.into_iter().map(|source| source.name).collect();
        self.0.catalogue.prefer(&order, self.now())?;
        self.0.look.notify_one();
        Ok(())
    }

    /// Begins a run of a source, or joins the one under way. With `full`, all is asked for as if it were
    /// the first.
    ///
    /// Blocks for a write of the database. Must be called inside a tokio runtime.
    pub fn run(
        &self,
        name: &SourceName,
        trigger: Trigger,
        full: bool,
    ) -> Result<Asked, MachineError> {
        let _beginning = self.0.beginning.lock();
        {
            let state = self.0.state.lock();
            if state.is_closed {
                return Err(MachineError::Stopping);
            }
            if let Some(live) = state.live.get(name) {
                if full && !live.full {
                    return Err(MachineError::UnderWay(name.clone()));
                }
                return Ok(Asked { live: live.clone(), joined: true });
            }
        }
        let source = self.0.sources.get(name)?;
        if !source.enabled {
            return Err(MachineError::Disabled(name.clone()));
        }
        let now = self.now();
        let mut standing = self.standing(name)?;
        standing.number += 1;
        standing.attempted = Some(now);
        standing.again = None;
        standing.running = Some(Running { since: now, trigger: trigger.clone() });
        STANDINGS.set(&self.0.db, &name.to_string(), &standing)?;
        let live = Arc::new(Live {
            source: name.clone(),
            priority: source.priority,
            number: standing.number,
            trigger,
            full,
            asked: now,
            watch: Arc::default(),
            has_turn: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            is_interrupted: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        });
        {
            let mut state = self.0.state.lock();
            state.live.insert(name.clone(), live.clone());
            state.waiting.push(live.clone());
            if state.is_closed {
                // While it was recorded: it ends as soon as it begins.
                live.is_interrupted.store(true, Relaxed);
                live.watch.stop.cancel();
            }
        }
        self.give_turns();
        Ok(Asked { live, joined: false })
    }

    /// Asks the run of a source to end; gives it to be waited for.
    pub fn cancel(&self, name: &SourceName) -> Result<Asked, MachineError> {
        self.0.sources.get(name)?;
        let live = self.0.state.lock().live.get(name).cloned();
        let asked = live.map(|live| Asked { live, joined: true });
        let asked = asked.ok_or_else(|| MachineError::NotUnderWay(name.clone()))?;
        asked.cancel();
        Ok(asked)
    }

    /// Removes a source: ends its run, lets go of its updates and files. What it was.
    pub async fn remove(&self, name: &SourceName) -> Result<Source, MachineError> {
        let (machine, called) = (self.clone(), name.clone());
        // From then on it cannot commit any more.
        let remove = move || machine.0.sources.remove(&called).map_err(MachineError::from);
        let removed = blocking(remove).await?;
        let live = self.0.state.lock().live.get(name).cloned();
        if let Some(live) = live {
            let asked = Asked { live, joined: true };
            asked.cancel();
            asked.ended().await;
        }
        if let Some(watch) = self.0.state.lock().held.get(name) {
            watch.stop.cancel();
        }
        self.when_free(name, None).await?;
        let (machine, called) = (self.clone(), name.clone());
        blocking(move || {
            machine.let_go(&called)?;
            machine.was_changed()
        })
        .await?;
        Ok(removed)
    }

    /// Lets go of what a removed source left.
    fn let_go(&self, name: &SourceName) -> Result<(), MachineError> {
        self.0.catalogue.forget(name, self.now())?;
        let folder = self.0.folder.join(name.as_str());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SyncError::local(folder.display(), error).into());
            }
            _ => {}
        }
        let mut batch = Batch::new();
        for (key, _) in RUNS.below(&self.0.db, &name.to_string())? {
            RUNS.delete(&mut batch, &key);
        }
        let number = self.standing(name)?.number;
        let standing = Standing { number, ..Standing::default() };
        STANDINGS.put(&mut batch, &name.to_string(), &standing);
        self.0.db.kv().write(batch)?;
        Ok(self.0.sources.is_gone(name)?)
    }

    /// Begins runs when they are due, until `stop`.
    pub async fn serve(&self, stop: &CancellationToken) {
        let machine = self.clone();
        match blocking(move || Ok::<_, MachineError>(machine.owe_points()?)).await {
            Ok(true) => self.have_points_follow(points::Why::News),
            Ok(false) => {}
            Err(error) => self.failed(format!("it cannot be told who was told: {error}")).await,
        }
        loop {
            let machine = self.clone();
            let wait = match blocking(move || machine.begin_due()).await {
                Ok(next) => {
                    let wait = next.map(|next| next.duration_since(self.now()));
                    let wait = wait.and_then(|wait| Duration::try_from(wait).ok());
                    wait.unwrap_or(if next.is_some() { Duration::ZERO } else { LOOK }).min(LOOK)
                }
                Err(error) => {
                    self.failed(format!("it cannot be told which sources are due: {error}")).await;
                    LOOK
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.look.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Says that the machine itself failed, as far as that can be said.
    async fn failed(&self, text: String) {
        let message = Message::of_site(MessageId::MACHINE_FAILED, "sync", text, self.now());
        let machine = self.clone();
        let said = blocking(move || Ok::<_, MachineError>(machine.0.messages.write(&message)?));
        if let Err(error) = said.await {
            tracing::error!(%error, "a status message could not be written");
        }
    }

    /// Begins what is due; when the next thing is.
    fn begin_due(&self) -> Result<Option<Timestamp>, MachineError> {
        let now = self.now();
        let (mut first, mut failed): (Option<Timestamp>, _) = (None, None);
        for status in self.status()?.into_iter().filter(|status| status.progress.is_none()) {
            let Some((at, trigger)) = status.next else { continue };
            if at > now {
                first = Some(first.map_or(at, |first| first.min(at)));
                continue;
            }
            match self.run(&status.source.name, trigger, false) {
                Ok(_) => {}
                // Between two looks somebody may have disabled or removed it.
                Err(MachineError::Disabled(_) | MachineError::Source(SourceError::Unknown(_))) => {}
                Err(MachineError::Stopping) => return Ok(None),
                // One that cannot begin keeps no other from it.
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(first),
        }
    }

    /// Takes no more requests, and interrupts the runs under way. They begin again when the site does.
    pub fn stop(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        for live in state.live.values() {
            live.is_interrupted.store(true, Relaxed);
            live.watch.stop.cancel();
        }
        for watch in state.held.values() {
            watch.stop.cancel();
        }
        self.0.points.stop();
    }

    /// The same, and waits for their end.
    pub async fn close(&self) {
        self.stop();
        let live: Vec<Arc<Live>> = self.0.state.lock().live.values().cloned().collect();
        for live in live {
            Asked { live, joined: true }.ended().await;
        }
        self.0.points.idle().await;
    }

    /// Does what the policy of the catalogue's life asks for; how many updates expired, and how many went.
    pub fn age(&self) -> Result<(u64, u64), MachineError> {
        self.age_and_tell(0)
    }

    /// The same after a commit that expired some as well: so many that the criteria leave out since they were
    /// narrowed.
    fn age_and_tell(&self, left_out: u64) -> Result<(u64, u64), MachineError> {
        let (policy, now) = (self.0.sources.site()?.policy, self.now());
        let deployments = self.0.deployments.read().clone();
        let (mut expired, mut purged) = (0, 0);
        loop {
            let step = self.0.catalogue.age(&policy, &*deployments, now, AGED_AT_ONCE)?;
            expired += step.expire;
            purged += step.purge;
            if step.complete {
                break;
            }
        }
        if left_out + expired + purged > 0 {
            let mut text =
                format!("{expired} updates expired and {purged} were purged by the policy");
            if left_out > 0 {
                text = format!(
                    "{left_out} updates expired as the criteria were narrowed and leave them out; {text}"
                );
            }
            let message = Message::of_site(MessageId::AGED, "catalogue", text, now);
            let message = message.with("expired", expired).with("purged", purged);
            let message = message.with("outside", left_out);
            self.0.messages.write(&message)?;
        }
        Ok((expired, purged))
    }

    /// What a policy would do now, as [`Catalogue::preview`] says it.
    pub fn preview(&self, policy: &Policy, most: usize) -> Result<Ageing, SyncError> {
        let deployments = self.0.deployments.read().clone();
        self.0.catalogue.preview(policy, &*deployments, self.now(), most)
    }

    fn now(&self) -> Timestamp {
        (self.0.parts.now)()
    }

    fn standing(&self, name: &SourceName) -> Result<Standing, DbError> {
        Ok(STANDINGS.get(&self.0.db, &name.to_string())?.unwrap_or_default())
    }

    /// Lets those of the runs that wait begin for whom there is room.
    fn give_turns(&self) {
        loop {
            let live = {
                let mut state = self.0.state.lock();
                if state.running >= self.0.settings.concurrent.max(1) {
                    return;
                }
                // The oldest of the most urgent ones.
                let is_free = |at: &usize| !state.held.contains_key(&state.waiting[*at].source);
                let first = (0..state.waiting.len()).filter(is_free).max_by_key(|at| {
                    let live = &state.waiting[*at];
                    (live.priority, std::cmp::Reverse(*at))
                });
                let Some(first) = first else { return };
                state.running += 1;
                state.waiting.remove(first)
            };
            live.has_turn.store(true, Relaxed);
            let machine = self.clone();
            tokio::spawn(async move { machine.run_through(live).await });
        }
    }

    /// Records what was cut off by the end of a process.
    fn was_cut_off(
        &self,
        name: &str,
        standing: &Standing,
        running: &Running,
    ) -> Result<(), MachineError> {
        let mut standing = standing.clone();
        standing.running = None;
        let mut batch = Batch::new();
        let Ok(source) = name.parse::<SourceName>() else { return Ok(()) };
        if self.0.sources.get(&source).is_ok() {
            let now = self.now();
            standing.again = Some(Again { at: now, trigger: Trigger::Resumed });
            let record = RunRecord {
                source: source.clone(),
                number: standing.number,
                trigger: running.trigger.clone(),
                begun: running.since,
                ended: now,
                stage: Stage::default(),
                outcome: Outcome::Interrupted,
                bytes: 0,
                entries: 0,
                skipped: Default::default(),
            };
            RUNS.put(&mut batch, &(name.to_owned(), standing.number), &record);
            let text = format!(
                "the sync of {source} was cut off when the server stopped; it begins again"
            );
            let message = Message::of_sync(MessageId::INTERRUPTED, &source, text, now);
            self.0.messages.write(&message)?;
        }
        STANDINGS.put(&mut batch, &name.to_owned(), &standing);
        self.0.db.kv().write(batch)?;
        Ok(())
    }
}

/// Runs `work`, which may block, away from the async threads.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<SyncError> + Send + 'static,
{
    let run = tokio::task::spawn_blocking(work);
    run.await.unwrap_or_else(|error| {
        Err(SyncError::because(Cause::Local, "a fault in the program; the log has more", error)
            .into())
    })
}

#[cfg(test)]
mod tests;
