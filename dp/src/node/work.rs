//! Bringing what is wished: a few versions at a time, the most urgent first.
//!
//! The plan is made when the wish changes, or a version that failed may be tried again. In between it is
//! worked off: where a version ends, what follows is settled for its package alone, so that ten
//! thousand versions are not looked at for each of them. Each version has a lane at the gate, so of those
//! that are on their way together the urgent go first, and equals share. Outside the hours that are
//! set for a version's priority it is not on its way at all; what came of it is kept.

use super::link::LinkError;
use super::plan::{self, Anew, Failure, Key, Plan};
use super::schedule::{may_change, schedule};
use super::tasks::{Pause, chain};
use super::{Node, blocking, mend, prestage};
use crate::field::{Wanted, Wish};
use crate::pace::{Lane, Line};
use crate::remote::RemoteError;
use crate::replica::{self, Asked, Beside, Brought};
use contentlib::Progress;
use packager::sign::VersionInfo;
use packager::{PackageError, PackageName};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// So many versions are on their way at a time.
pub(super) const SLOTS: usize = 3;
/// So often it is looked what the hour is: clocks are set.
const LOOK: Duration = Duration::from_secs(5);

/// Does what the plan says until `stop`; then nothing is on its way any more.
pub(super) async fn work(node: Arc<Node>, stop: CancellationToken) {
    let mut worker = Worker {
        wishes: node.wish.subscribe(),
        node,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        asked: Asked::default(),
        todo: Plan::default(),
        anew: Anew::default(),
    };
    stop.run_until_cancelled(worker.run()).await;
    worker.tasks.shutdown().await;
}

struct Worker {
    node: Arc<Node>,
    wishes: watch::Receiver<Option<Arc<Wish>>>,
    tasks: JoinSet<Result<Brought, BringError>>,
    running: HashMap<task::Id, Running>,
    asked: Asked,
    /// What was planned last, and is not done yet. What is on its way is part of it.
    todo: Plan,
    /// Versions of which bytes went bad here while they were brought.
    anew: Anew,
}

/// Why a version could not be brought.
#[derive(Debug, thiserror::Error)]
enum BringError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl BringError {
    /// As [`RemoteError::is_of_damage_here`].
    fn is_of_damage_here(&self) -> bool {
        matches!(self, Self::Remote(error) if error.is_of_damage_here())
    }
}

/// A version on its way.
struct Running {
    key: Key,
    slot: usize,
    line: Line,
    lane: Lane,
    abort: AbortHandle,
    /// Whether it was told to end.
    is_put_off: bool,
}

impl Worker {
    async fn run(&mut self) {
        let mut pause = Pause::new();
        let mut is_stale = true;
        loop {
            let Some(wish) = self.wishes.borrow_and_update().clone() else {
                let _ = self.wishes.changed().await;
                continue;
            };
            if is_stale {
                self.put_off_unwished(&wish).await;
                match self.settle(&wish).await {
                    Ok(plan) => self.todo = plan,
                    Err(error) => {
                        self.node.take_note(&error);
                        let error = chain(&error);
                        tracing::error!(error, "the library cannot be brought in order");
                        pause.take().await;
                        continue;
                    }
                }
                is_stale = false;
                pause = Pause::new();
            }
            self.arrange(&wish);
            let again = self.todo.again.map(|at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                _ = self.wishes.changed() => is_stale = true,
                Some(ended) = self.tasks.join_next_with_id() => {
                    is_stale |= self.ended(ended, &wish).await;
                }
                () = sleep_or_forever(again) => is_stale = true,
                () = tokio::time::sleep(LOOK), if may_change(&wish.settings) => {}
            }
        }
    }

    /// Has nothing on its way that nobody wishes: what came of it is let go next.
    async fn put_off_unwished(&mut self, wish: &Arc<Wish>) {
        let on_their_way = self.running.values().map(|running| running.key.clone()).collect();
        let unwished: HashSet<Key> = plan::given_up(wish, on_their_way).into_iter().collect();
        for running in self.running.values_mut().filter(|running| unwished.contains(&running.key)) {
            running.is_put_off = true;
            running.abort.abort();
        }
        while self.running.values().any(|running| unwished.contains(&running.key)) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            // Planned anew next in any case.
            self.ended(ended, wish).await;
        }
    }

    /// Has those versions on their way that should be, now.
    fn arrange(&mut self, wish: &Wish) {
        let now = schedule(&wish.settings, (self.node.clock)());
        let line = Line::of(now.limit, SLOTS);
        self.node.gate.set(now.limit.map(|limit| line.to_read_at(limit, SLOTS)));
        {
            let mut facts = self.node.facts.lock();
            if facts.shut != now.shut {
                facts.shut = now.shut;
                self.node.news.notify_one();
            }
        }
        let running: HashSet<&Key> = self.running.values().map(|running| &running.key).collect();
        let chosen = plan::choose(&self.todo.bring, &running, now.level, SLOTS);
        let chosen: Vec<Wanted> = chosen.into_iter().cloned().collect();
        for running in self.running.values_mut() {
            match chosen.iter().find(|wanted| plan::is(&wanted.version, &running.key)) {
                Some(wanted) if running.line == line => running.lane.rank(wanted.priority),
                _ if running.is_put_off => {}
                // Not now; or not over connections of this kind: it is begun again at once.
                _ => {
                    running.is_put_off = true;
                    running.abort.abort();
                }
            }
        }
        for wanted in chosen {
            let key = plan::key(&wanted.version);
            if self.running.len() < SLOTS && self.running.values().all(|running| running.key != key)
            {
                self.start(key, wanted, line);
            }
        }
    }

    fn start(&mut self, key: Key, wanted: Wanted, line: Line) {
        let Wanted { version, priority } = wanted;
        let progress = Arc::new(Progress::default());
        let is_free = |slot: &usize| self.running.values().all(|running| running.slot != *slot);
        let Some(slot) = (0..SLOTS).find(is_free) else { return };
        self.node.facts.lock().fetching.insert(key.clone(), progress.clone());
        self.node.news.notify_one();
        let lane = self.node.gate.open(priority, line);
        let (node, way) = (self.node.clone(), lane.clone());
        let begun = node.on_the_way.begins(&key, &progress);
        let beside = Beside { asked: self.asked.clone(), priority };
        let abort = self.tasks.spawn(async move {
            let _begun = begun;
            let client = node.upstream.now(&node, slot, line)?.through(way);
            Ok(replica::bring_beside(&client, &node.packages, &version, &progress, beside).await?)
        });
        self.running
            .insert(abort.id(), Running { key, slot, line, lane, abort, is_put_off: false });
    }

    /// A version is on its way no more. Answers whether all has to be planned anew.
    async fn ended(
        &mut self,
        ended: Result<(task::Id, Result<Brought, BringError>), JoinError>,
        wish: &Arc<Wish>,
    ) -> bool {
        let (id, brought) = match ended {
            Ok((id, brought)) => (id, Ok(brought)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(Running { key, .. }) = self.running.remove(&id) else { return true };
        self.node.facts.lock().ended(&key);
        self.node.news.notify_one();
        let (package, version) = (&key.0, key.1);
        let failed = match brought {
            Err(error) if error.is_cancelled() => {
                tracing::info!(%package, version, "put off");
                return false;
            }
            Err(error) => chain(&error),
            Ok(Err(error)) if error.is_of_damage_here() && self.anew.may(&key) => {
                // Whoever looks for damage tells what is not whole now; what is known of it stays.
                let cause = chain(&error);
                tracing::warn!(%package, version, cause, "damaged here meanwhile; planned anew");
                self.node.look_for_damage();
                return true;
            }
            Ok(Err(error)) => chain(&error),
            Ok(Ok(brought)) => {
                let Brought { moved_bytes, delta_bytes, bytes, seconds, .. } = brought;
                tracing::info!(%package, version, bytes, moved_bytes, delta_bytes, seconds, "held");
                self.anew.forget(&key);
                let was_hurt = {
                    let mut facts = self.node.facts.lock();
                    facts.failures.remove(&key);
                    facts.came.remove(&key);
                    facts.hurt.contains_key(&key)
                };
                self.forget(&key);
                let settled = self.settle_package(wish, &key.0).await;
                if let Err(error) = &settled {
                    self.node.take_note(error);
                }
                // What was damaged is looked at again by whoever plans for all.
                return was_hurt || settled.is_err();
            }
        };
        tracing::warn!(%package, version, cause = failed, "could not be brought");
        self.anew.forget(&key);
        let mut facts = self.node.facts.lock();
        let failure = Failure::after(facts.failures.get(&key), failed, Instant::now());
        facts.failures.insert(key.clone(), failure);
        let retry = facts.retries(self.node.home.id().as_str()).get(&key).copied();
        drop(facts);
        self.forget(&key);
        self.todo.again = self.todo.again.into_iter().chain(retry).min();
        false
    }

    /// A version is not to be brought any more, or not now.
    fn forget(&mut self, key: &Key) {
        let bring = &mut self.todo.bring;
        if let Some(at) = bring.iter().position(|wanted| plan::is(&wanted.version, key)) {
            bring.remove(at);
        }
    }

    /// Plans, and does what needs nothing from elsewhere: names, and letting go.
    async fn settle(&self, wish: &Arc<Wish>) -> Result<Plan, PackageError> {
        let (node, wish) = (self.node.clone(), wish.clone());
        let running: Vec<Key> = self.running.values().map(|running| running.key.clone()).collect();
        blocking(move || {
            let held = node.packages.held()?;
            let mut retries = node.facts.lock().retries(node.home.id().as_str());
            // What is being tried waits for nothing.
            retries.retain(|key, _| !running.contains(key));
            let hurt = mend::still_hurt(&node, &held)?;
            let on_their_way = node.packages.on_their_way();
            settle(&node, &wish, Here { held, hurt, on_their_way }, &retries)
        })
        .await
    }

    /// The same for one package, of which a version came.
    async fn settle_package(
        &self,
        wish: &Arc<Wish>,
        package: &PackageName,
    ) -> Result<(), PackageError> {
        let (node, wish, package) = (self.node.clone(), wish.clone(), package.clone());
        let settled = blocking(move || {
            let held = match node.packages.versions(&package) {
                Err(PackageError::UnknownPackage(_)) => Vec::new(),
                held => held?,
            };
            let of_it = |wanted: &&Wanted| wanted.version.package == package;
            let versions: Vec<Wanted> = wish.versions.iter().filter(of_it).cloned().collect();
            let names = wish.names.get(&package).map(|names| (package, names.clone()));
            let names = names.into_iter().collect();
            let (versions, names) = (Arc::new(versions), Arc::new(names));
            let settings = wish.settings.clone();
            let wish = Wish { versions, names, settings, ..Wish::default() };
            let here = Here { held, hurt: HashSet::new(), on_their_way: Vec::new() };
            settle(&node, &wish, here, &HashMap::new())
        });
        settled.await.map(drop)
    }
}

async fn sleep_or_forever(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// What is here of what a wish is about.
struct Here {
    held: Vec<VersionInfo>,
    /// Those of them that are not whole.
    hurt: HashSet<Key>,
    /// Versions that something is kept of.
    on_their_way: Vec<Key>,
}

/// Plans for all that `wish` is about, and does what needs nothing from elsewhere.
///
/// What is not whole is brought again. If nobody wishes it, it goes, whatever name means it: there is
/// no whole version to wait for.
fn settle(
    node: &Node,
    wish: &Wish,
    here: Here,
    retries: &HashMap<Key, Instant>,
) -> Result<Plan, PackageError> {
    for (package, names) in wish.names.iter() {
        if node.packages.set_names(package, names.latest, &names.channels)? {
            node.news.notify_one();
        }
    }
    let named = named(node, wish, &here.held)?;
    let (hurt, whole): (Vec<_>, Vec<_>) =
        here.held.into_iter().partition(|version| here.hurt.contains(&plan::key(version)));
    let mut plan = plan::plan(wish, &whole, &named, retries, Instant::now());
    plan.let_go.extend(plan::given_up(wish, hurt.iter().map(plan::key).collect()));
    let given_up = plan::given_up(wish, here.on_their_way);
    if wish.settings.drained {
        plan = plan::drained(plan, &here.hurt);
    }
    for (package, version) in plan.let_go.iter().chain(&given_up) {
        node.packages.let_go(package, *version)?;
        tracing::info!(%package, version, "let go");
        node.news.notify_one();
    }
    prestage::settle(&node.packages, wish)?;
    Ok(plan)
}

/// Which of the versions that are held and not wished a name means here.
fn named(node: &Node, wish: &Wish, held: &[VersionInfo]) -> Result<HashSet<Key>, PackageError> {
    let wished: HashSet<Key> = wish.versions.iter().map(|w| plan::key(&w.version)).collect();
    let unwished = held.iter().filter(|version| !wished.contains(&plan::key(version)));
    let packages: BTreeSet<&PackageName> = unwished.map(|version| &version.package).collect();
    let mut named = HashSet::new();
    for package in packages {
        let info = node.packages.show(package)?;
        let latest = info.latest.map(|latest| latest.version);
        let numbers = info.channels.into_values().chain(latest);
        named.extend(numbers.map(|number| (package.clone(), number)));
    }
    Ok(named)
}
