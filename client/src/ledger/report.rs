//! A batch as the site reads it: `compliance/PROTOCOL.md`.
//!
//! A state that nobody can tell counts there as none, so what is not known never makes a machine look compliant.

use super::log::LogError;
use super::{Change, Content, Held, Ledger};
use crate::applicability::State;
use compliance::digest::StateDigest;
use compliance::message::{
    Answer, Batch, ClientId, Incarnation, Kind, Refusal, Scan, ScanOutcome, State as Told,
    StateMessage, UpdateRevision,
};
use jiff::Timestamp;
use std::time::Duration;
use sync::name::UpdateId;

/// What follows from the site's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It was taken; whether more waits.
    Taken {
        /// Whether more does.
        is_more: bool,
    },
    /// The same later, and not before that.
    Later(Duration),
    /// The site does not let this client in.
    NotLetIn(Refusal),
    /// The site takes nothing of this kind.
    Refused(Refusal),
}

fn told(state: State) -> Told {
    match state {
        State::Unknown => Told::Unknown,
        State::NotRequired => Told::NotRequired,
        State::Required => Told::Required,
        State::Installed => Told::Installed,
    }
}

/// Seconds from then to now, as a batch has them.
fn age(then: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(then).as_secs().max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl Ledger {
    /// What is to be sent next, as of a client; none, if nothing is.
    pub fn message(&self, client: ClientId, now: Timestamp) -> Option<Batch> {
        let batch = self.batch()?;
        let (kind, states) = match &batch.content {
            Content::All(all) => {
                let known = all.iter().filter(|(_, held)| held.known.state != State::Unknown);
                (Kind::Full, known.map(|(update, held)| of_held(*update, held, now)).collect())
            }
            Content::Changes(changes) => {
                (Kind::Changes, changes.values().map(|change| of_change(change, now)).collect())
            }
        };
        let scan = batch.scan.map(|scan| Scan {
            age: age(scan.at, now),
            outcome: scan.failed.map_or(ScanOutcome::Completed, ScanOutcome::Failed),
            completed: scan.completed.map(|at| age(at, now)),
            catalogue: scan.catalogue,
        });
        Some(Batch {
            client,
            incarnation: Incarnation(batch.life.0),
            first: batch.first,
            next: batch.next,
            kind,
            sent: now.as_second(),
            scan,
            waiting: 0,
            digest: self.digest(),
            states,
        })
    }

    fn digest(&self) -> StateDigest {
        StateDigest::of(self.states().iter().map(|(update, held)| {
            (UpdateRevision { id: *update, revision: held.known.revision }, told(held.known.state))
        }))
    }

    /// Takes the site's answer to a batch that covered the numbers before `next`.
    ///
    /// # Errors
    /// What follows cannot be written.
    pub fn answered(&mut self, answer: Answer) -> Result<Follows, LogError> {
        let life = self.life();
        match answer {
            Answer::Accepted { next, resync } | Answer::Duplicate { next, resync } => {
                self.acknowledged(life, next)?;
                if resync.is_some() {
                    self.owe_all()?;
                }
                Ok(Follows::Taken { is_more: self.batch().is_some() })
            }
            Answer::Gap { .. } => {
                self.owe_all()?;
                Ok(Follows::Taken { is_more: true })
            }
            Answer::Busy { retry_after } => {
                Ok(Follows::Later(Duration::from_secs(retry_after.into())))
            }
            Answer::Refused { why } => match why {
                Refusal::Malformed { .. } => {
                    self.owe_all()?;
                    Ok(Follows::Taken { is_more: true })
                }
                Refusal::UnknownClient | Refusal::Pending | Refusal::Blocked => {
                    Ok(Follows::NotLetIn(why))
                }
                _ => Ok(Follows::Refused(why)),
            },
        }
    }
}

fn of_held(update: UpdateId, held: &Held, now: Timestamp) -> StateMessage {
    let update = UpdateRevision { id: update, revision: held.known.revision };
    StateMessage { update, state: told(held.known.state), age: age(held.since, now) }
}

fn of_change(change: &Change, now: Timestamp) -> StateMessage {
    let update = UpdateRevision { id: change.update, revision: change.revision };
    let state = change.known.map_or(Told::Unknown, |known| told(known.state));
    StateMessage { update, state, age: age(change.found, now) }
}
