//! What a serving site does by itself: collect garbage, scrub, let go of what expired or is too old.
//!
//! Nothing here is needed for what was acknowledged to be safe; a site that never does it only
//! grows. Each task says in the log what it did, and tries again when its time comes.

use crate::audit::AuditRecord;
use crate::auth::Identity;
use crate::automatic;
use crate::deployed;
use crate::hierarchy;
use crate::problem::Problem;
use crate::routes::jobs::result_of;
use crate::server;
use crate::shards;
use crate::site::{Site, blocking};
use crate::staging;
use crate::uploaded;
use contentlib::{GcOptions, Progress, VerifyOptions};
use dp::identity::ServerTls;
use jiff::{SignedDuration, Timestamp};
use packager::ManifestLinks;
use serde::{Deserialize, Serialize};
use sitedb::{Table, Value};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether what clients reported is to be written, and whether their policy changed.
const TEND: Duration = Duration::from_secs(2);
/// How often it is looked whether the catalogue is another than what clients scan by was made of.
const OFFER: Duration = Duration::from_millis(500);
/// How often clients of whom something changed are looked for.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often it is looked whether a rule's next deployment opens.
const RINGS: Duration = Duration::from_secs(15);
/// How often small things are looked after.
const MINUTE: Duration = Duration::from_secs(60);
/// How often old records are forgotten, and old versions looked for.
const HOUR: Duration = Duration::from_secs(3600);
/// The slowest scrub, so that a small library does not take a month.
const MIN_SCRUB_PACE: u64 = 2 << 20;
/// Changes that the feed of the site database keeps.
const KEPT_CHANGES: u64 = 100_000;

/// When the library was last scrubbed whole.
const SCRUBS: Table<(), Scrub> = Table::new("scrub");

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Scrub {
    ended: Timestamp,
}
impl Value for Scrub {}

/// Starts the tasks of a serving site. They end when `stop` is cancelled.
pub fn start(site: &Site, tls: &Arc<ServerTls>, stop: &CancellationToken) {
    let library = &site.config().library;
    // Each by itself, so that one that fails keeps no other from its work.
    every(MINUTE, stop, site, seal_idle);
    every(MINUTE, stop, site, expire_contents);
    every(MINUTE, stop, site, expire_uploads);
    every(HOUR, stop, site, forget);
    every(HOUR, stop, site, expire_versions);
    every(HOUR, stop, site, expire_on_demand);
    let tls = tls.clone();
    every(MINUTE, stop, site, move |site| renew_certificates(site, tls.clone()));
    every(HOUR, stop, site, age_updates);
    every(HOUR, stop, site, record_day);
    every(TEND, stop, site, tend_fleet);
    every(FOLLOW, stop, site, follow_fleet);
    every(TEND, stop, site, automatic::tend);
    every(RINGS, stop, site, automatic::rings::tend);
    every(MINUTE, stop, site, alert_of_deployments);
    if site.several().is_some() {
        every(TEND, stop, site, share_keys);
    }
    let (following, until) = (site.clone(), stop.clone());
    tokio::spawn(async move { follow_parent(following, until).await });
    let (following, until) = (site.clone(), stop.clone());
    tokio::spawn(async move { keep_shards(following, until).await });
    let (staged, until) = (site.clone(), stop.clone());
    tokio::spawn(async move { staging::follow(staged, until).await });
    let (syncing, until) = (site.clone(), stop.clone());
    tokio::spawn(async move { synchronise(syncing, until).await });
    if !library.gc_interval.is_zero() {
        every(library.gc_interval, stop, site, collect);
    }
    if library.scrub_days > 0 {
        let (site, stop) = (site.clone(), stop.clone());
        tokio::spawn(async move { scrub_again_and_again(site, stop).await });
    }
}

/// Runs `task` every `period`, first after one period.
fn every<F: Future<Output = Result<(), Problem>> + Send>(
    period: Duration,
    stop: &CancellationToken,
    site: &Site,
    task: impl Fn(Site) -> F + Send + 'static,
) {
    let (stop, site) = (stop.clone(), site.clone());
    tokio::spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
            if let Err(problem) = task(site.clone()).await {
                tracing::warn!(%problem, "a background task failed; it is tried again");
            }
        }
    });
}

/// Shows a new certificate to points that come from now on, where the one before is old; and the
/// administrator's own as its files have it.
async fn renew_certificates(site: Site, tls: Arc<ServerTls>) -> Result<(), Problem> {
    let is_renewed = hierarchy::follow::renew(&site).await.unwrap_or_else(|problem| {
        tracing::warn!(%problem, "the certificate by the parent site could not be renewed yet");
        false
    });
    let renew = move || {
        let of_point = site.parent()?.filter(|parent| parent.is_of_update_point());
        if let (Some(parent), true) = (&of_point, is_renewed) {
            tls.replace(&parent.identity())?;
        }
        if of_point.is_none() && tls.is_stale() {
            tls.replace(&site.authority()?.site_identity(Timestamp::now())?)?;
            tracing::info!("points are shown a new certificate");
        }
        if tls.refresh()? {
            tracing::info!("clients are shown the new certificate");
        }
        Ok(())
    };
    blocking(renew).await
}

/// Has the other servers of the site know the keys that were made or renewed here.
async fn share_keys(site: Site) -> Result<(), Problem> {
    blocking(move || server::share_keys(&site)).await
}

/// Writes what clients reported, where it is time, and has clients that wait hear of another policy.
async fn tend_fleet(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let fleet = site.fleet()?;
        fleet.tend(Timestamp::now())?;
        fleet.policies.look(&site)?;
        Ok(())
    })
    .await
}

/// Keeps what clients scan by as the catalogue is; of an update point, as its site hands it out.
async fn keep_shards(site: Site, stop: CancellationToken) {
    let of = site.clone();
    let parent = blocking(move || of.parent()).await.ok().flatten();
    if parent.is_some_and(|parent| parent.is_of_update_point()) {
        return shards::follow(site, stop).await;
    }
    let mut pause = OFFER;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let of = site.clone();
        let made = blocking(move || of.shards()?.make(&of)).await;
        pause = match made {
            Ok(()) => OFFER,
            Err(problem) => {
                tracing::warn!(%problem, "the catalogue for clients is not made; it is tried again");
                MINUTE
            }
        };
    }
}

/// Puts clients of whom something changed into their collections, and has those hear of it to whom something else is
/// deployed.
async fn follow_fleet(site: Site) -> Result<(), Problem> {
    blocking(move || {
        site.fleet()?.follow();
        site.deployed().look(&site).map(drop)
    })
    .await
}

/// Has administrators hear of deployments that fewer machines comply with than these ask for.
async fn alert_of_deployments(site: Site) -> Result<(), Problem> {
    blocking(move || deployed::tell(&site, Timestamp::now())).await
}

/// Counts for the trend how updates stand on this day.
async fn record_day(site: Site) -> Result<(), Problem> {
    blocking(move || Ok(site.fleet()?.states.record_day(Timestamp::now())?)).await
}

/// Seals a pack that nothing was written to for a while.
async fn seal_idle(site: Site) -> Result<(), Problem> {
    blocking(move || Ok(site.content()?.library.seal_idle()?)).await
}

/// Lets go of expired single contents.
async fn expire_contents(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let expired = uploaded::expire(&site.content()?.library, Timestamp::now())?;
        if expired > 0 {
            tracing::info!(expired, "let go of uploaded contents");
        }
        Ok(())
    })
    .await
}

/// Ends pushes that nobody goes on with.
async fn expire_uploads(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let expired = site.content()?.packages.expire_uploads()?;
        if expired > 0 {
            tracing::info!(expired, "ended uploads that nobody went on with");
        }
        Ok(())
    })
    .await
}

/// Forgets old records of the site database.
async fn forget(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let ledger = site.ledger()?;
        let now = Timestamp::now();
        let keep = site.config().api.audit_keep;
        if !keep.is_zero() {
            ledger.audit.forget(keep, now)?;
        }
        ledger.answers.forget_old(now)?;
        ledger.jobs.forget_old()?;
        let kv = ledger.db.kv();
        Ok(kv.forget_changes(kv.last_seq().saturating_sub(KEPT_CHANGES))?)
    })
    .await
}

/// Removes versions that are older than their packages keep them.
async fn expire_versions(site: Site) -> Result<(), Problem> {
    blocking(move || Ok(site.content()?.packages.expire_versions().map(drop)?)).await
}

/// Takes back what was distributed on demand and nobody asks for any more.
async fn expire_on_demand(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let (ledger, packages) = (site.ledger()?, site.content()?.packages);
        let by = Identity { name: "schedule".into(), ..Identity::local_admin() };
        for gone in ledger.registry.expire_on_demand(&packages, Timestamp::now())? {
            let to = ledger.registry.name_of(&gone.to);
            let target = format!("{}@{} to point/{to}", gone.package, gone.version);
            let mut record = AuditRecord::new(&by, "unassign", target, 200);
            record.detail = Some("was on demand, and nobody asked for it any more".into());
            ledger.audit.write(&record)?;
        }
        Ok(())
    })
    .await
}

/// Begins syncs of updates when they are due.
async fn synchronise(site: Site, stop: CancellationToken) {
    loop {
        let opening = site.clone();
        match blocking(move || opening.updates()).await {
            Ok(machine) => return machine.serve(&stop).await,
            Err(problem) => tracing::error!(%problem, "the catalogue of updates cannot be opened"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(MINUTE)).await.is_none() {
            return;
        }
    }
}

/// Listens to the parent site, if there is one.
async fn follow_parent(site: Site, stop: CancellationToken) {
    let of = site.clone();
    match blocking(move || of.parent()).await {
        Ok(Some(parent)) if parent.is_of_update_point() => {
            hierarchy::follow::follow(site, parent, stop).await;
        }
        Ok(Some(parent)) => {
            let telling = hierarchy::forward::forward(site.clone(), parent.clone(), stop.clone());
            tokio::join!(hierarchy::follow::follow(site, parent, stop), telling);
        }
        Ok(None) => {}
        Err(problem) => tracing::error!(%problem, "the parent site is not listened to"),
    }
}

/// Lets go of old status messages, and of updates as their policy says.
async fn age_updates(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let machine = site.updates()?;
        let keep = site.config().sync.message_keep;
        let keep = if keep.is_zero() { Duration::MAX } else { keep };
        machine.messages().age(keep, Timestamp::now())?;
        machine.age()?;
        Ok(())
    })
    .await
}

/// Submits a garbage collection as a job, so that it is seen and can be cancelled.
async fn collect(site: Site) -> Result<(), Problem> {
    blocking(move || {
        let library = site.content()?.library;
        let work = move |progress: &Progress| {
            result_of(&library.gc(&GcOptions::default(), &ManifestLinks, progress)?)
        };
        let by = Identity { name: "schedule".into(), ..Identity::local_admin() };
        site.ledger()?.jobs.submit("collect_garbage", "library/gc", &by, Box::new(work))?;
        Ok(())
    })
    .await
}

/// Reads the whole library once in so many days, slowly. A pass that a restart cuts off begins
/// anew.
async fn scrub_again_and_again(site: Site, stop: CancellationToken) {
    let mut pause = MINUTE;
    loop {
        let wait = match until_next(&site).await {
            Ok(wait) => wait.max(pause),
            Err(problem) => {
                tracing::warn!(%problem, "cannot tell when to scrub");
                HOUR
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        let progress = Arc::new(Progress::default());
        let run = tokio::spawn(scrub(site.clone(), Arc::clone(&progress)));
        tokio::pin!(run);
        // What failed, beside a long `verify` say, fails a minute later too.
        pause = HOUR;
        tokio::select! {
            ended = &mut run => match ended {
                Ok(Ok(())) => pause = MINUTE,
                Ok(Err(problem)) => tracing::warn!(%problem, "the scrub failed"),
                Err(error) => tracing::error!(%error, "the scrub failed"),
            },
            () = stop.cancelled() => {
                progress.cancel();
                let _ = run.await;
                return;
            }
        }
    }
}

fn period(site: &Site) -> SignedDuration {
    let days = i64::try_from(site.config().library.scrub_days).unwrap_or(30);
    SignedDuration::from_hours(24 * days)
}

async fn until_next(site: &Site) -> Result<Duration, Problem> {
    let site = site.clone();
    blocking(move || {
        let Some(last) = SCRUBS.get(&site.ledger()?.db, &())? else { return Ok(Duration::ZERO) };
        let left = period(&site) - Timestamp::now().duration_since(last.ended);
        Ok(left.try_into().unwrap_or(Duration::ZERO))
    })
    .await
}

async fn scrub(site: Site, progress: Arc<Progress>) -> Result<(), Problem> {
    blocking(move || {
        let library = site.content()?.library;
        let seconds = period(&site).as_secs().unsigned_abs().max(1);
        // A fifth of the time is spare, for what is added meanwhile.
        let pace = library.stats()?.stored_bytes * 5 / (seconds * 4);
        let options =
            VerifyOptions { pace: Some(pace.max(MIN_SCRUB_PACE)), ..VerifyOptions::default() };
        let report = library.verify(&options, &ManifestLinks, &progress)?;
        if report.is_clean() {
            tracing::info!(
                packs = report.packs,
                bytes = report.bytes,
                "scrubbed; nothing is wrong"
            );
        } else {
            tracing::error!(
                packs = report.bad_packs.len(),
                chunks = report.bad_chunks.len(),
                contents = report.bad_contents.len(),
                "the scrub found damage: run `depot library verify`, then `depot library repair`"
            );
        }
        SCRUBS.set(&site.ledger()?.db, &(), &Scrub { ended: Timestamp::now() })?;
        Ok(())
    })
    .await
}
