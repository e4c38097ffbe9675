//! Why a sync did not succeed, and what that means for the next try.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A cause that people and policies tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No connection: no address, refused, unreachable, TLS failed.
    Unreachable,
    /// The server answered with an error of its own (5xx, 429, a busy fault).
    Busy,
    /// The server refused: not authorised, not licensed (401, 403).
    Refused,
    /// What must be there is not (404).
    NotFound,
    /// Nothing moved for a while.
    Stalled,
    /// Bytes are not those that were stated: often a mirror in the middle of an update.
    Mismatch,
    /// No signature by a trusted key, or one that does not fit.
    BadSignature,
    /// Signed metadata has passed its end: a mirror that is frozen, or a clock that is wrong.
    Expired,
    /// Signed metadata is from the future: a clock is wrong.
    FromTheFuture,
    /// Signed metadata is older than what is held: replayed.
    Replayed,
    /// The upstream is not the one that it was: another origin, suite or server.
    Altered,
    /// Bytes that are not in the form they should be in.
    Malformed,
    /// Larger, deeper or more than is taken.
    TooLarge,
    /// A form or feature that is not supported here.
    Unsupported,
    /// The source's settings cannot work.
    Misconfigured,
    /// Somebody cancelled it.
    Cancelled,
    /// This machine failed: disk, database.
    Local,
}

/// When to try again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After a pause that doubles from `first` to `longest`, at most `tries` times; then at the next
    /// time of the schedule.
    Soon {
        /// The first pause.
        first: Duration,
        /// The longest one.
        longest: Duration,
        /// How often.
        tries: u32,
    },
    /// At the next time of the schedule: trying at once would find the same.
    Scheduled,
    /// When a person has changed something.
    Never,
}

impl Cause {
    /// The word for it in messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::NotFound => "not-found",
            Self::Stalled => "stalled",
            Self::Mismatch => "mismatch",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::FromTheFuture => "from-the-future",
            Self::Replayed => "replayed",
            Self::Altered => "altered",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Unsupported => "unsupported",
            Self::Misconfigured => "misconfigured",
            Self::Cancelled => "cancelled",
            Self::Local => "local",
        }
    }

    /// When it is worth another try.
    pub fn retry(self) -> Retry {
        let soon = |first, longest, tries| Retry::Soon {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
            tries,
        };
        match self {
            Self::Unreachable | Self::Stalled => soon(15, 900, 5),
            // A server that is busy asked for patience.
            Self::Busy => soon(60, 900, 5),
            // A mirror in the middle of an update is whole within minutes.
            Self::Mismatch => soon(60, 600, 4),
            Self::NotFound | Self::Replayed => soon(300, 900, 2),
            Self::Local => soon(60, 900, 3),
            Self::Refused
            | Self::BadSignature
            | Self::Expired
            | Self::FromTheFuture
            | Self::Malformed
            | Self::TooLarge
            | Self::Unsupported => Retry::Scheduled,
            Self::Altered | Self::Misconfigured | Self::Cancelled => Retry::Never,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a sync, or a part of it, did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct SyncError {
    /// What kind of failure it is.
    pub cause: Cause,
    /// What happened, to what, and what to do: one sentence or two, lower case, no full stop.
    pub detail: String,
    /// What lies below.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl SyncError {
    /// A failure of that cause, told in words.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), source: None }
    }

    /// The same, with what lies below.
    pub fn because(
        cause: Cause,
        detail: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { cause, detail: detail.into(), source: Some(source.into()) }
    }

    /// The same with `context` in front, as `security: InRelease …`.
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.detail = format!("{context}: {}", self.detail);
        self
    }

    /// A failure of this machine's disk at `what`.
    pub fn local(what: impl fmt::Display, source: std::io::Error) -> Self {
        Self::because(Cause::Local, format!("cannot use {what}"), source)
    }
}

impl From<sitedb::DbError> for SyncError {
    fn from(error: sitedb::DbError) -> Self {
        Self::because(Cause::Local, "the site database failed", error)
    }
}

impl From<sitedb::CommitError> for SyncError {
    fn from(error: sitedb::CommitError) -> Self {
        Self::because(Cause::Local, "the site database refused a change", error)
    }
}
