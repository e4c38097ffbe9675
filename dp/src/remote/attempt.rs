//! One piece of work over several servers: whose turn it is, and what becomes of a failure.

use super::RemoteError;
use super::client::Servers;
use super::sources::{Set, Tried};
use crate::identity::Distrust;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why one request came to nothing.
pub(super) enum Failed {
    /// Nobody's failure: others came first for a while, and the server is not kept waiting.
    GaveWay,
    /// It may work the next time, perhaps only after that time.
    Passing(RemoteError, Option<Duration>),
    /// The server has no more to say about it.
    Refused(RemoteError),
    /// The answer cannot be read: damaged on its way, or by the server.
    Garbled(RemoteError),
    /// The answer can be read, and is not what it should be.
    Wrong(RemoteError),
    /// No server may say anything else.
    Final(RemoteError),
}

/// A piece of work, from its first request until it is done or all servers failed.
pub(super) struct Attempt {
    servers: Arc<Servers>,
    tried: Vec<Tried<RemoteError>>,
}

/// A request to one server.
pub(super) struct Turn {
    pub at: usize,
    began: Instant,
    servers: Arc<Servers>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.servers.standings.lock().end(self.at);
    }
}

impl Attempt {
    pub fn new(servers: Arc<Servers>) -> Self {
        let tried = servers.list.iter().map(|_| Tried::default()).collect();
        Self { servers, tried }
    }

    /// The server to ask now, among those that `may` be asked; waits if it failed in this work just
    /// now. Nothing if none may.
    pub async fn turn(&mut self, may: impl Fn(usize) -> bool) -> Option<Turn> {
        let may = |at: usize| !self.tried[at].is_out() && may(at);
        let best = || self.servers.standings.lock().best(may, Instant::now());
        let mut at = best()?;
        let wait = self.tried[at].wait();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            // Another may have come back meanwhile.
            at = best()?;
        }
        self.servers.standings.lock().begin(at);
        Some(Turn { at, began: Instant::now(), servers: self.servers.clone() })
    }

    /// Something came that had not come before.
    pub fn progressed(&mut self, turn: &Turn) {
        self.tried[turn.at].progressed();
        self.servers.standings.lock().progressed(turn.at);
    }

    /// The servers that are not asked any more in this work.
    pub fn out(&self) -> Set {
        let mut out = Set::default();
        self.tried.iter().enumerate().filter(|(_, t)| t.is_out()).for_each(|(at, _)| out.add(at));
        out
    }

    /// Whether another server than this may still be asked.
    pub fn has_others(&self, turn: &Turn) -> bool {
        self.tried.iter().enumerate().any(|(at, tried)| at != turn.at && !tried.is_out())
    }

    /// Notes a failure. An error if it ends the work.
    pub fn failed(&mut self, turn: Turn, failed: Failed) -> Result<(), RemoteError> {
        let has_others = self.has_others(&turn);
        let tried = &mut self.tried[turn.at];
        let now = Instant::now();
        match failed {
            Failed::GaveWay => {}
            Failed::Final(error) => return Err(error),
            Failed::Refused(error) => tried.give_up(error),
            Failed::Passing(error, after) => {
                let is_first = {
                    let mut standings = self.servers.standings.lock();
                    if is_stall(&error) {
                        standings.stalled(turn.at, turn.began, now);
                    }
                    standings.failed(turn.at, turn.began, after, now)
                };
                let server = self.servers.list[turn.at].shown();
                match distrust(&error).filter(|_| is_first) {
                    // It does not pass by itself, and is for people to see to.
                    Some(why) => tracing::warn!(server, %why, "is not asked: others are"),
                    None => tracing::debug!(%error, "trying again, or another server"),
                }
                tried.failed(error, after);
            }
            Failed::Garbled(error) if !has_others => tried.failed(error, None),
            Failed::Garbled(error) | Failed::Wrong(error) => {
                let is_news = self.servers.standings.lock().lied(turn.at, now);
                if is_news && has_others {
                    let server = self.servers.list[turn.at].shown();
                    tracing::warn!(server, %error, "sent wrong bytes: others are asked first for a while");
                }
                tried.give_up(error);
            }
        }
        Ok(())
    }

    /// Why the work came to nothing. `lacking` is what servers answered that are not out.
    pub fn gave_up(self, lacking: impl Fn(&str) -> RemoteError) -> RemoteError {
        let why = |(tried, at): (Tried<RemoteError>, usize)| {
            tried.why_out().unwrap_or_else(|| lacking(self.servers.list[at].shown()))
        };
        let mut errors: Vec<RemoteError> = self.tried.into_iter().zip(0..).map(why).collect();
        let status = |error: &RemoteError| match error {
            RemoteError::Refused { status, .. } => Some(*status),
            _ => None,
        };
        let first = errors.first().and_then(status);
        let is_same = first.is_some() && errors.iter().all(|error| status(error) == first);
        if errors.len() == 1 || is_same {
            errors.swap_remove(0)
        } else {
            RemoteError::AllFailed(errors)
        }
    }
}

/// Whether a request waited in vain for the next byte, or for a connection.
fn is_stall(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Transport { source, .. } if source.is_timeout())
}

/// Why a server is not trusted, if that is why a request to it failed.
fn distrust(error: &RemoteError) -> Option<Distrust> {
    match error {
        RemoteError::Transport { source, .. } => Distrust::of(source),
        _ => None,
    }
}
