//! What a point does by itself, each a loop of its own: hear what the site wishes, bring it there
//! (`work`), tell what is held, keep its certificate and its library in order.

use super::facts::Moment;
use super::work::work;
use super::{Node, NodeError, blocking, mend, orders, scrub};
use crate::field::{Report, Tree, Wish, branch_of};
use crate::identity::Request;
use contentlib::{GcOptions, Progress};
use jiff::Timestamp;
use packager::{ManifestLinks, PackageError};
use rand::RngExt;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pauses after questions that came to nothing: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Reports are this far apart at least, so that many changes are one report.
const REPORT_GAP: Duration = Duration::from_millis(500);
/// They take this share of the time at most: with ten thousand versions each is some work, and while
/// they come there is news without end.
const REPORT_SHARE: u32 = 10;
/// While something is on its way, its progress is told so often.
const PROGRESS_GAP: Duration = Duration::from_secs(2);
/// A report is sent so often even if nothing changed: the site tells a quiet point from a lost one.
const REPORT_AGE: Duration = Duration::from_secs(60);
/// The site has so long to hear that the point ends.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often it is looked whether the certificate must be renewed, and idle packs be sealed.
const MINUTE: Duration = Duration::from_secs(60);

/// Starts all of it; the future ends when all has ended, after `stop`, and the site was told, so that
/// nobody is sent here meanwhile.
pub(super) fn start(
    node: &Arc<Node>,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let leaving = node.clone();
    let mut tasks = JoinSet::new();
    let until = |stop: &CancellationToken, work: futures::future::BoxFuture<'static, ()>| {
        let stop = stop.clone();
        async move {
            let _ = stop.run_until_cancelled_owned(work).await;
        }
    };
    tasks.spawn(until(stop, Box::pin(hear(node.clone()))));
    tasks.spawn(work(node.clone(), stop.clone()));
    tasks.spawn(until(stop, Box::pin(tell(node.clone()))));
    tasks.spawn(until(stop, Box::pin(renew(node.clone()))));
    tasks.spawn(until(stop, Box::pin(tidy(node.clone()))));
    tasks.spawn(until(stop, Box::pin(mend::watch(node.clone()))));
    tasks.spawn(until(stop, Box::pin(orders::run(node.clone()))));
    tasks.spawn(until(stop, Box::pin(scrub::run(node.clone()))));
    tasks.spawn(until(stop, Box::pin(scrub::glance(node.clone()))));
    async move {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the distribution point failed");
            }
        }
        // After all that speaks to the site: what is heard of a point brings it back. One whose library
        // is opened anew is soon there again.
        if !leaving.index_lost.is_cancelled() {
            say_goodbye(&leaving).await;
        }
    }
}

/// Tells the site that this point ends. If it does not hear that in time, it finds out by itself.
async fn say_goodbye(node: &Node) {
    let link = node.link();
    match tokio::time::timeout(GOODBYE, link.leave()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "the site was not told of the end")
        }
        Err(_) => tracing::debug!("the site did not hear of the end in time"),
    }
}

/// A pause that grows with each failure, and is never the same for two points.
pub(super) struct Pause(Duration);

impl Pause {
    pub fn new() -> Self {
        Self(PAUSE.0)
    }

    pub async fn take(&mut self) {
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
    let mut is_lost = false;
    loop {
        let before = node.wish.borrow().clone().filter(|_| !is_lost);
        let after = before.as_ref().map_or(String::new(), |wish| wish.revision.clone());
        let asked = Instant::now();
        match node.link().wish(&after).await {
            // Whoever has nothing new to say is to say so late. A proxy that says it at once must not be
            // asked without end.
            Ok(None) if asked.elapsed() < PAUSE.0 => pause.take().await,
            Ok(wish) => {
                pause = Pause::new();
                if trouble.take().is_some() {
                    tracing::info!("the site is heard again");
                }
                let Some(answer) = wish else { continue };
                let told = blocking(move || Wish::told(before.as_deref(), answer)).await;
                is_lost = told.is_err();
                if let Ok(wish) = told {
                    tracing::info!(versions = wish.versions.len(), "the site's wish");
                    node.facts.lock().forget_unwished(&wish);
                    let wish = Arc::new(wish);
                    node.on_the_way.wishes(&wish);
                    node.wish.send_replace(Some(wish));
                    node.news.notify_one();
                } else {
                    tracing::warn!(
                        "what the site says has changed does not fit: all of it is asked for"
                    );
                    pause.take().await;
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

/// Tells the site what is held, soon after it changed, and now and then.
async fn tell(node: Arc<Node>) {
    let mut pause = Pause::new();
    // What the site knows, as far as we know: nothing, until it says so.
    let mut known: Option<Tree> = None;
    let mut took = Duration::ZERO;
    loop {
        let is_quiet = node.facts.lock().fetching.is_empty() && !node.orders.lock().is_busy();
        let wait = if is_quiet { REPORT_AGE } else { PROGRESS_GAP };
        let _ = tokio::time::timeout(wait, node.news.notified()).await;
        tokio::time::sleep(gap_after(took)).await;
        let mut rounds = 0;
        loop {
            let began = Instant::now();
            let made = report(&node, known.take()).await;
            took = began.elapsed();
            let told = match made {
                Ok((report, tree)) => match node.link().report(&report).await {
                    Ok(None) => {
                        known = Some(tree);
                        Ok(())
                    }
                    Ok(Some(other)) => {
                        known = Some(other);
                        rounds += 1;
                        match rounds {
                            // It has said what it lacks, and is told.
                            ..3 => continue,
                            _ => Err("the site does not come to know what it is told".to_owned()),
                        }
                    }
                    Err(error) => Err(chain(&error)),
                },
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

/// How long the next report waits after one that `took` so long to be made.
fn gap_after(took: Duration) -> Duration {
    (took * REPORT_SHARE).clamp(REPORT_GAP, REPORT_AGE / 4)
}

/// What there is to say to a site that knows facts of this tree: the branches that differ; to one of
/// which that is not known, the root alone. With it comes the tree of all facts.
async fn report(node: &Arc<Node>, known: Option<Tree>) -> Result<(Report, Tree), NodeError> {
    let node = node.clone();
    blocking(move || {
        let held = node.packages.held()?;
        let volumes = node.packages.library().volumes().map_err(PackageError::from)?;
        let wish = node.wish.borrow().clone();
        let now = Moment { clock: (node.clock)(), passing: Instant::now() };
        let mut facts = node.facts.lock().tell(wish.as_deref(), &held, now);
        let tree = Tree::of(&facts);
        let branches = known.map(|known| tree.differing(&known)).unwrap_or_default();
        facts.retain(|fact| branches.binary_search(&branch_of(&fact.package)).is_ok());
        let report = Report {
            point: node.home.id().clone(),
            at: now.clock,
            program: env!("CARGO_PKG_VERSION").into(),
            address: node.reached_at.clone(),
            revision: wish.as_ref().map_or(String::new(), |wish| wish.revision.clone()),
            grace: node.grace.map(|grace| grace.as_secs()),
            free_bytes: volumes.iter().filter_map(|volume| volume.free_bytes).sum(),
            root: Some(tree.root()),
            branches: Some(branches),
            facts,
            orders: node.orders.lock().outcomes(),
        };
        Ok((report, tree))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_apart_by_what_they_cost_and_no_silence() {
        let after = |ms| gap_after(Duration::from_millis(ms));
        assert_eq!((after(0), after(20)), (REPORT_GAP, REPORT_GAP));
        assert_eq!(after(300), Duration::from_secs(3));
        assert!(after(3_600_000) < REPORT_AGE);
    }
}
