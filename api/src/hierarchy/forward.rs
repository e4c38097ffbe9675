//! Telling the parent what the clients of this site report: pages of those that changed, one after another.
//!
//! The parent knows where it is, so nothing is kept here: a site that was killed or away asks for the place and
//! goes on from there. When nothing changes the parent is told so now and then, so that it can tell a quiet site
//! from a silent one.

use super::Parent;
use crate::problem::{Kind, Problem, with_causes};
use crate::site::{Site, blocking};
use compliance::Place;
use compliance::forward::PageAnswer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where the parent takes pages, and says where it is.
const PATH: &str = "api/v1/follower/states";
/// The media type of a page.
pub const PAGE: &str = "application/vnd.depot.states-page";
/// How often it is looked whether something changed.
const LOOK: Duration = Duration::from_secs(2);
/// How often the parent is told that nothing did.
const BEAT: Duration = Duration::from_secs(5 * 60);
/// The first and the longest pause before the parent is told again after it could not be.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest answer.
const MAX_ANSWER: usize = 64 << 10;

/// Where the parent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The place up to which it was told everything.
    pub place: Place,
}

/// Tells `parent` until `stop`.
pub async fn forward(site: Site, parent: Arc<Parent>, stop: CancellationToken) {
    let (mut forwarder, mut pause) = (Forwarder { site, parent, place: None, told: None }, PAUSE.0);
    let mut is_told = false;
    while !stop.is_cancelled() {
        let wait = match stop.run_until_cancelled(forwarder.turn()).await {
            None => return,
            Some(Ok(())) => {
                if std::mem::take(&mut is_told) {
                    tracing::info!("the parent site takes what clients report again");
                }
                pause = PAUSE.0;
                LOOK
            }
            Some(Err(problem)) => {
                forwarder.place = None;
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%problem, "the parent site cannot be told what clients report");
                }
                let wait = pause.mul_f64(rand::random_range(0.5..1.5));
                pause = (pause * 2).min(PAUSE.1);
                wait
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

struct Forwarder {
    site: Site,
    parent: Arc<Parent>,
    /// Where the parent is, if that is known.
    place: Option<Place>,
    /// When it was told something last.
    told: Option<Instant>,
}

impl Forwarder {
    /// Tells what the parent lacks.
    async fn turn(&mut self) -> Result<(), Problem> {
        let link = self.parent.link();
        let mut place = match self.place {
            Some(place) => place,
            None => {
                let answer = link.get(PATH, MAX_ANSWER).await.map_err(|it| of_link(&it))?;
                let reached: Reached = crate::extract::parse_json(&answer.unwrap_or_default())?;
                reached.place
            }
        };
        let mut n_corrected = 0;
        loop {
            let is_quiet = self.told.is_some_and(|told| told.elapsed() < BEAT);
            let (site, was_known) = (self.site.clone(), self.place.is_some());
            let page = blocking(move || {
                let fleet = site.fleet()?;
                if place > fleet.states.place() {
                    // The parent knows more of this site than the site does: its database is an older one.
                    fleet.states.renew_store()?;
                    tracing::warn!(
                        "the site's database was put back: its parent is told everything"
                    );
                } else if place == fleet.states.place() && is_quiet && was_known {
                    return Ok(None);
                }
                let page = fleet.states.page(place)?;
                let bytes = page.encode().map_err(|error| Problem::internal(&error))?;
                Ok(Some((bytes, page.is_last)))
            });
            let Some((bytes, is_last)) = page.await? else { return Ok(()) };
            let answer =
                link.post(PATH, PAGE, bytes, MAX_ANSWER).await.map_err(|it| of_link(&it))?;
            self.told = Some(Instant::now());
            match crate::extract::parse_json(&answer)? {
                PageAnswer::Accepted { next } => {
                    (place, n_corrected) = (next, 0);
                    self.place = Some(next);
                    if is_last {
                        return Ok(());
                    }
                }
                PageAnswer::Elsewhere { expected } => {
                    n_corrected += 1;
                    if n_corrected > 2 {
                        let detail = "the parent site asks for another place each time";
                        return Err(Problem::new(Kind::Upstream, detail));
                    }
                    place = expected;
                }
            }
        }
    }
}

fn of_link(error: &dp::node::LinkError) -> Problem {
    Problem::new(Kind::Upstream, with_causes(error))
}
