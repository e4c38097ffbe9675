//! Listening to the parent: it says when there is something to synchronise, and is told what came of it.
//!
//! The question for the next request waits at the parent until there is one, so it is known within a
//! moment, and nobody asks by a timer. When the connection breaks, each follower waits for a time of its own
//! before it connects again, longer each time.

use super::{Parent, SyncRequest};
use crate::problem::Problem;
use crate::routes::hierarchy::FollowerReportView;
use crate::site::{Site, blocking};
use dp::node::LinkError;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use sync::machine::{Asked, Machine, MachineError};
use sync::source::{Outcome, Trigger};
use tokio_util::sync::CancellationToken;

/// How long the parent may keep the question open.
const WAIT: u64 = 50;
/// The longest request.
const MAX_REQUEST: usize = 1 << 20;
/// How often the parent is told that a sync goes on.
const BEAT: Duration = Duration::from_secs(2);
/// The first and the longest pause before the parent is asked again after it could not be.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Follows `parent` until `stop`.
pub async fn follow(site: Site, parent: Arc<Parent>, stop: CancellationToken) {
    let (mut follower, mut pause) = (Follower::new(site, parent), PAUSE.0);
    let mut is_told = false;
    while !stop.is_cancelled() {
        match stop.run_until_cancelled(follower.turn()).await {
            None => return,
            Some(Ok(())) => {
                if std::mem::take(&mut is_told) {
                    tracing::info!("the parent site is there again");
                }
                pause = PAUSE.0;
            }
            Some(Err(problem)) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%problem, "the parent site cannot be asked what is new");
                }
                let share = rand::random_range(0.5..1.5);
                stop.run_until_cancelled(tokio::time::sleep(pause.mul_f64(share))).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

struct Follower {
    site: Site,
    parent: Arc<Parent>,
    /// The request that is known, and the last one that was worked on.
    revision: String,
    done: Option<u64>,
    /// What the parent was told last.
    told: Option<FollowerReportView>,
}

impl Follower {
    fn new(site: Site, parent: Arc<Parent>) -> Self {
        Self { site, parent, revision: String::new(), done: None, told: None }
    }

    /// Waits for a request, does what it asks for, and tells what came of it.
    async fn turn(&mut self) -> Result<(), Problem> {
        let path = format!("api/v1/follower/request?after={}&wait={WAIT}", self.revision);
        let asked = self.parent.link().get(&path, MAX_REQUEST).await.map_err(of_link)?;
        let Some(bytes) = asked else { return self.tell_how_it_stands().await };
        let request: SyncRequest = crate::extract::parse_json(&bytes)?;
        let (parent, via, peers) = (self.parent.clone(), request.via, request.peers);
        blocking(move || parent.direct(via, peers)).await?;
        self.revision = request.revision;
        if self.done == Some(request.asked) {
            return Ok(());
        }
        self.synchronise(request.asked).await?;
        self.done = Some(request.asked);
        Ok(())
    }

    async fn synchronise(&mut self, asked: u64) -> Result<(), Problem> {
        let site = self.site.clone();
        let machine = blocking(move || site.updates()).await?;
        // One that is under way may have read before there was what this is about.
        for _ in 0..2 {
            let run = begin(&machine).await?;
            let ended = run.ended();
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    _ = &mut ended => break,
                    () = tokio::time::sleep(BEAT) => {
                        let report = self.report(&machine, asked, "running").await?;
                        // What it does not hear of now it hears of at the end.
                        let _ = self.tell(report).await;
                    }
                }
            }
            if !run.joined {
                break;
            }
        }
        self.told = None;
        let report = self.report(&machine, asked, "").await?;
        self.tell(report).await
    }

    /// Tells the parent where it does not know how things stand: a sync by the schedule may have mended what failed.
    async fn tell_how_it_stands(&mut self) -> Result<(), Problem> {
        let site = self.site.clone();
        let machine = blocking(move || site.updates()).await?;
        let report = self.report(&machine, self.done.unwrap_or(0), "").await?;
        if self.told.as_ref() == Some(&report) {
            return Ok(());
        }
        self.tell(report).await
    }

    /// How things stand; without a state, as the last sync left them.
    async fn report(
        &self,
        machine: &Machine,
        asked: u64,
        state: &str,
    ) -> Result<FollowerReportView, Problem> {
        let (machine, state) = (machine.clone(), state.to_owned());
        let address = super::own_addresses(&self.site).into_iter().next();
        blocking(move || {
            let status = machine.status_of(&Parent::source())?;
            let last = status.last.map(|last| last.outcome);
            let (last, detail) = match last {
                Some(outcome) if outcome.is_good() => ("done", None),
                Some(Outcome::Failed { detail, .. }) => ("failed", Some(detail)),
                Some(other) => ("failed", Some(format!("the sync was {}", other.as_str()))),
                None => ("running", None),
            };
            let is_over = state.is_empty();
            Ok(FollowerReportView {
                asked,
                state: if is_over { last.into() } else { state },
                detail: detail.filter(|_| is_over),
                address,
                program: env!("CARGO_PKG_VERSION").into(),
                updates: machine.catalogue().counts().updates,
                synced: status.standing.succeeded,
            })
        })
        .await
    }

    async fn tell(&mut self, report: FollowerReportView) -> Result<(), Problem> {
        self.parent.link().put("api/v1/follower/report", &report).await.map_err(of_link)?;
        self.told = Some(report);
        Ok(())
    }
}

async fn begin(machine: &Machine) -> Result<Asked, Problem> {
    let machine = machine.clone();
    blocking(move || match machine.run(&Parent::source(), Trigger::Parent, false) {
        Err(MachineError::Disabled(_)) => {
            let detail =
                "the source `parent` is disabled here, so nothing is taken from the parent";
            Err(Problem::new(crate::problem::Kind::Conflict, detail))
        }
        run => Ok(run?),
    })
    .await
}

fn of_link(error: LinkError) -> Problem {
    let text = crate::problem::with_causes(&error);
    Problem::new(crate::problem::Kind::Upstream, text)
}

/// Renews the certificate when it is time; whether it is new.
pub async fn renew(site: &Site) -> Result<bool, Problem> {
    let of = site.clone();
    match blocking(move || of.parent()).await? {
        Some(parent) => {
            let renewed = parent.renew().await?;
            if renewed {
                let until = parent.identity().expires();
                tracing::info!(%until, now = %Timestamp::now(), "the parent site gave a new certificate");
            }
            Ok(renewed)
        }
        None => Ok(false),
    }
}
