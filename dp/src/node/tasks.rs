//! What a point does by itself, each a loop of its own: hear what the site wishes, bring it there,
//! tell what is held, keep its certificate and its library in order.

use super::facts::Moment;
use super::plan::{self, Failure, Key, Plan};
use super::{Node, NodeError, blocking, mend, scrub};
use crate::field::{Report, Wish};
use crate::identity::Request;
use crate::replica;
use contentlib::{GcOptions, Progress};
use jiff::Timestamp;
use packager::sign::VersionInfo;
use packager::{ManifestLinks, PackageError, PackageName};
use rand::RngExt;
use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pauses after questions that came to nothing: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Reports are this far apart at least, so that many changes are one report.
const REPORT_GAP: Duration = Duration::from_millis(500);
/// While something is on its way, its progress is told so often.
const PROGRESS_GAP: Duration = Duration::from_secs(2);
/// A report is sent so often even if nothing changed: the site tells a quiet point from a lost one.
const REPORT_AGE: Duration = Duration::from_secs(60);
/// How often it is looked whether the certificate must be renewed, and idle packs be sealed.
const MINUTE: Duration = Duration::from_secs(60);

/// Starts all of it; the future ends when all has ended, after `stop`.
pub(super) fn start(
    node: &Arc<Node>,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let mut tasks = JoinSet::new();
    let until = |stop: &CancellationToken, work: futures::future::BoxFuture<'static, ()>| {
        let stop = stop.clone();
        async move {
            let _ = stop.run_until_cancelled_owned(work).await;
        }
    };
    tasks.spawn(until(stop, Box::pin(hear(node.clone()))));
    tasks.spawn(until(stop, Box::pin(work(node.clone()))));
    tasks.spawn(until(stop, Box::pin(tell(node.clone()))));
    tasks.spawn(until(stop, Box::pin(renew(node.clone()))));
    tasks.spawn(until(stop, Box::pin(tidy(node.clone()))));
    tasks.spawn(until(stop, Box::pin(mend::watch(node.clone()))));
    tasks.spawn(until(stop, Box::pin(scrub::run(node.clone()))));
    tasks.spawn(until(stop, Box::pin(scrub::glance(node.clone()))));
    async move {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the distribution point failed");
            }
        }
    }
}

/// A pause that grows with each failure, and is never the same for two points.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(PAUSE.0)
    }

    async fn take(&mut self) {
        let share = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(self.0.mul_f64(share)).await;
        self.0 = (self.0 * 2).min(PAUSE.1);
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Hears what the site wishes.
async fn hear(node: Arc<Node>) {
    let mut pause = Pause::new();
    // What keeps the site from being heard, so that it is said once.
    let mut trouble: Option<String> = None;
    loop {
        let after = node.wish.borrow().as_ref().map_or(String::new(), |w| w.revision.clone());
        match node.link().wish(&after).await {
            Ok(wish) => {
                pause = Pause::new();
                if trouble.take().is_some() {
                    tracing::info!("the site is heard again");
                }
                if let Some(wish) = wish {
                    tracing::info!(versions = wish.versions.len(), "the site's wish");
                    node.facts.lock().forget_unwished(&wish);
                    node.wish.send_replace(Some(Arc::new(wish)));
                    node.news.notify_one();
                }
            }
            Err(error) => {
                let error = chain(&error);
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!(error, "the site is not heard; trying again");
                }
                trouble = Some(error);
                pause.take().await;
            }
        }
    }
}

/// Does what the plan says, one version at a time, until nothing is left; then waits.
async fn work(node: Arc<Node>) {
    let mut wishes = node.wish.subscribe();
    let mut pause = Pause::new();
    loop {
        let wish = wishes.borrow_and_update().clone();
        let Some(wish) = wish else {
            let _ = wishes.changed().await;
            continue;
        };
        let plan = match settle(&node, &wish).await {
            Ok(plan) => plan,
            Err(error) => {
                node.take_note(&error);
                tracing::error!(error = chain(&error), "the library cannot be brought in order");
                pause.take().await;
                continue;
            }
        };
        pause = Pause::new();
        if let Some(next) = plan.bring.into_iter().next() {
            bring(&node, next, &mut wishes).await;
            continue;
        }
        let again = plan.again.map(|at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            _ = wishes.changed() => {}
            () = sleep_or_forever(again) => {}
        }
    }
}

async fn sleep_or_forever(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Plans, and does what needs nothing from elsewhere: names, and letting go.
async fn settle(node: &Arc<Node>, wish: &Arc<Wish>) -> Result<Plan, PackageError> {
    let (node, wish) = (node.clone(), wish.clone());
    blocking(move || {
        for (package, names) in wish.names.iter() {
            if node.packages.set_names(package, names.latest, &names.channels)? {
                node.news.notify_one();
            }
        }
        let plan = plan_now(&node, &wish)?;
        let given_up = plan::given_up(&wish, node.packages.on_their_way());
        for (package, version) in plan.let_go.iter().chain(&given_up) {
            node.packages.let_go(package, *version)?;
            tracing::info!(%package, version, "let go");
            node.news.notify_one();
        }
        Ok(plan)
    })
    .await
}

fn plan_now(node: &Node, wish: &Wish) -> Result<Plan, PackageError> {
    let held = node.packages.held()?;
    let retries = node.facts.lock().retries(node.home.id().as_str());
    let named = named(node, wish, &held)?;
    let hurt = mend::still_hurt(node, &held)?;
    if hurt.is_empty() {
        return Ok(plan::plan(wish, &held, &named, &retries, Instant::now()));
    }
    // What is not whole is brought again. If nobody wishes it, it goes, whatever name means it: there
    // is no whole version to wait for.
    let (hurt, whole): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|version| hurt.contains(&plan::key(version)));
    let mut plan = plan::plan(wish, &whole, &named, &retries, Instant::now());
    let wished: HashSet<Key> = wish.versions.iter().map(|w| plan::key(&w.version)).collect();
    plan.let_go.extend(hurt.iter().map(plan::key).filter(|key| !wished.contains(key)));
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

/// Brings one version, unless the wish changes so that another comes first. What came of it until
/// then is kept.
async fn bring(
    node: &Arc<Node>,
    version: VersionInfo,
    wishes: &mut watch::Receiver<Option<Arc<Wish>>>,
) {
    let key: Key = (version.package.clone(), version.version);
    let progress = Arc::new(Progress::default());
    node.facts.lock().fetching = Some((key.clone(), progress.clone()));
    node.news.notify_one();
    let client = node.link().content();
    let brought = tokio::select! {
        brought = replica::bring(&client, &node.packages, &version, &progress) => Some(brought),
        () = overtaken(node, &version, wishes) => None,
    };
    let mut facts = node.facts.lock();
    facts.fetching = None;
    match brought {
        None => tracing::info!(package = %key.0, version = key.1, "put off for something else"),
        Some(Ok(brought)) => {
            facts.failures.remove(&key);
            let replica::Brought { moved_bytes, bytes, seconds, .. } = brought;
            tracing::info!(package = %key.0, version = key.1, bytes, moved_bytes, seconds, "held");
        }
        Some(Err(error)) => {
            let cause = chain(&error);
            tracing::warn!(package = %key.0, version = key.1, cause, "could not be brought");
            let failure = Failure::after(facts.failures.get(&key), cause, Instant::now());
            facts.failures.insert(key, failure);
        }
    }
    drop(facts);
    node.news.notify_one();
}

/// Ends when the wish has changed so that `version` is not what should be brought first.
async fn overtaken(
    node: &Arc<Node>,
    version: &VersionInfo,
    wishes: &mut watch::Receiver<Option<Arc<Wish>>>,
) {
    loop {
        let _ = wishes.changed().await;
        // Seen here, and taken up by whoever plans next.
        let Some(wish) = wishes.borrow().clone() else { continue };
        let planned = {
            let node = node.clone();
            blocking(move || plan_now(&node, &wish)).await
        };
        // What cannot be told now is told when this version is done.
        if planned.is_ok_and(|plan| plan.bring.first() != Some(version)) {
            return;
        }
    }
}

/// Tells the site what is held, soon after it changed, and now and then.
async fn tell(node: Arc<Node>) {
    let mut pause = Pause::new();
    loop {
        let wait = if node.facts.lock().fetching.is_some() { PROGRESS_GAP } else { REPORT_AGE };
        let _ = tokio::time::timeout(wait, node.news.notified()).await;
        tokio::time::sleep(REPORT_GAP).await;
        loop {
            let told = match report(&node).await {
                Ok(report) => node.link().report(&report).await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            match told {
                Ok(()) => break pause = Pause::new(),
                Err(error) => {
                    tracing::debug!(error, "the report did not reach the site; trying again");
                    pause.take().await;
                }
            }
        }
    }
}

async fn report(node: &Arc<Node>) -> Result<Report, NodeError> {
    let node = node.clone();
    blocking(move || {
        let held = node.packages.held()?;
        let volumes = node.packages.library().volumes().map_err(PackageError::from)?;
        let wish = node.wish.borrow().clone();
        let now = Moment { clock: (node.clock)(), passing: Instant::now() };
        Ok(Report {
            point: node.home.id().clone(),
            at: now.clock,
            program: env!("CARGO_PKG_VERSION").into(),
            address: node.listen.to_string(),
            revision: wish.as_ref().map_or(String::new(), |wish| wish.revision.clone()),
            free_bytes: volumes.iter().filter_map(|volume| volume.free_bytes).sum(),
            facts: node.facts.lock().tell(wish.as_deref(), &held, now),
        })
    })
    .await
}

/// Renews the certificate when a third of its life is left, and shows the administrator's own as its
/// files have it.
async fn renew(node: Arc<Node>) {
    let mut due = node.home.identity().renew_at();
    loop {
        let refreshed = {
            let node = node.clone();
            blocking(move || node.tls.refresh()).await
        };
        match refreshed {
            Ok(true) => tracing::info!("clients are shown the new certificate"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "clients are still shown the certificate before"
                );
            }
        }
        let now = (node.clock)();
        if now >= due {
            match renew_now(&node).await {
                Ok(at) => due = at,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the certificate is not renewed yet");
                }
            }
        }
        tokio::time::sleep(MINUTE).await;
    }
}

async fn renew_now(node: &Arc<Node>) -> Result<Timestamp, NodeError> {
    let request = Request::new()?;
    let answer = node.link().renew(request.pem()).await?;
    let identity = request.answered(&answer, node.home.identity().authority())?;
    let (keys, identity) = (node.home.keys_folder(), Arc::new(identity));
    let stored = identity.clone();
    blocking(move || stored.store(&keys)).await?;
    node.take_identity(&identity)?;
    tracing::info!(expires = %identity.expires(), "the certificate is renewed");
    Ok(identity.renew_at())
}

/// Keeps the library in order: seals idle packs, collects garbage.
async fn tidy(node: Arc<Node>) {
    let mut collected = tokio::time::Instant::now();
    let (interval, is_wanted) = (node.gc_interval, !node.gc_interval.is_zero());
    loop {
        tokio::time::sleep(if is_wanted { MINUTE.min(interval) } else { MINUTE }).await;
        let is_time = is_wanted && collected.elapsed() >= interval;
        let library = node.packages.library().clone();
        let done = blocking(move || {
            library.seal_idle().map_err(PackageError::from)?;
            if is_time {
                let report =
                    library.gc(&GcOptions::default(), &ManifestLinks, &Progress::default());
                let freed = report.map_err(PackageError::from)?.freed_bytes;
                tracing::debug!(freed, "collected garbage");
            }
            Ok::<_, PackageError>(())
        });
        if let Err(error) = done.await {
            tracing::warn!(error = chain(&error), "the library could not be tidied up");
        }
        if is_time {
            collected = tokio::time::Instant::now();
        }
    }
}
