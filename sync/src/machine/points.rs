//! The site's other update points, which follow after a sync: one at a time, behind its back.
//!
//! A run is over before they begin, so that one of them that is dead holds up neither a place for a run nor
//! another source. There is at most one round of them at a time. What is new meanwhile is told to those
//! that are still to come, and to all in the next round. A round that is cut off, by the end of the
//! process too, is begun anew: how far they were told is kept apart from how far the site was.

use super::run::{TOLD, Told, in_full};
use super::{Machine, blocking};
use crate::error::{Cause, SyncError};
use crate::messages::{Message, MessageId};
use parking_lot::Mutex;
use sitedb::{DbError, Table};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How far update points were told of the catalogue.
const POINTS_TOLD: Table<(), Told> = Table::new("sync-points-told");

/// Why update points are to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The catalogue has news.
    News,
    /// Which of them the others read from has changed: what they are waited for may never come.
    Source,
}

/// The round of update points.
pub(super) struct Points {
    state: Mutex<State>,
    /// Whether there is a round.
    busy: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// Another round is wanted.
    again: bool,
    /// Ends the round under way.
    round: Option<CancellationToken>,
    is_closed: bool,
}

impl Default for Points {
    fn default() -> Self {
        Self { state: Mutex::default(), busy: watch::Sender::new(false) }
    }
}

impl Points {
    /// Begins no more rounds, and ends the one under way.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        if let Some(round) = &state.round {
            round.cancel();
        }
    }

    /// Waits until there is no round.
    pub async fn idle(&self) {
        // The sender lives in `self`.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// The next round, if one is wanted.
    fn next(&self) -> Option<CancellationToken> {
        let mut state = self.state.lock();
        let is_wanted = std::mem::take(&mut state.again) && !state.is_closed;
        state.round = is_wanted.then(CancellationToken::new);
        if !is_wanted {
            self.busy.send_replace(false);
        }
        state.round.clone()
    }
}

impl Machine {
    /// Has the other update points follow now, as after a sync; a round under way begins anew.
    ///
    /// Must be called inside a tokio runtime.
    pub fn tell_points(&self) {
        self.have_points_follow(Why::Source);
    }

    /// Waits until no update point is being told.
    pub async fn points_told(&self) {
        self.0.points.idle().await;
    }

    /// Whether they were not told of all that the site was, and are not being told.
    pub(super) fn owe_points(&self) -> Result<bool, DbError> {
        if *self.0.points.busy.borrow() {
            return Ok(false);
        }
        let told = |table: Table<(), Told>| table.get(&self.0.db, &());
        let (site, points) = (told(TOLD)?.unwrap_or_default(), told(POINTS_TOLD)?);
        Ok(site.seq > points.unwrap_or_default().seq)
    }

    pub(super) fn have_points_follow(&self, why: Why) {
        let mut state = self.0.points.state.lock();
        if state.is_closed {
            return;
        }
        state.again = true;
        if let Some(round) = &state.round
            && why == Why::Source
        {
            round.cancel();
        }
        if self.0.points.busy.send_replace(true) {
            return;
        }
        let machine = self.clone();
        tokio::spawn(async move {
            while let Some(round) = machine.0.points.next() {
                let told = round.run_until_cancelled(machine.tell_each_point()).await;
                if let Some(Err(error)) = told {
                    machine.failed(format!("update points were not told: {error}")).await;
                }
            }
        });
    }

    /// One round.
    async fn tell_each_point(&self) -> Result<(), SyncError> {
        let notify = self.0.notify.read().clone();
        let first = self.0.catalogue.seq();
        for point in notify.points() {
            let Err(error) = notify.replicate(&point, self.0.catalogue.seq()).await else {
                continue;
            };
            if error.cause == Cause::Cancelled {
                return Ok(());
            }
            let text = format!(
                "update point {point} does not have what its source has: {}",
                in_full(&error)
            );
            let message = Message::of_site(MessageId::OUT_OF_SYNC, "sync", text, self.now());
            self.say(message.with("point", &point).with("cause", error.cause)).await?;
        }
        let machine = self.clone();
        let told = Told { seq: first };
        blocking(move || Ok::<_, SyncError>(POINTS_TOLD.set(&machine.0.db, &(), &told).map(drop)?))
            .await
    }
}
