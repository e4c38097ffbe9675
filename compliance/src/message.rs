//! What a client sends: a batch of state messages, and what it is answered. PROTOCOL.md has the bytes.
//!
//! A client counts whatever changes: each change of a state, each end of a scan gets the next number. A
//! batch covers a range of numbers: it holds what is now true of every update that changed in that range,
//! so an update that changed often is named once, and after a month without a site one batch is enough.
//! All it says is absolute ("this update is required"), never relative, so taking a batch twice is the
//! same as once.
//!
//! Times are ages in seconds, counted back from the sending: a clock that is hours off does no harm.
//!
//! Always true of a [`Batch`]: it covers one number at least; its states are sorted by update, each
//! update once; its incarnation is not 0; counts are within the limits.

pub(crate) mod wire;

pub use wire::Malformed;

use crate::digest::StateDigest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use sync::name::UpdateId;
use uuid::Uuid;

/// The largest batch as it travels, in bytes.
pub const MAX_SENT: usize = 4 << 20;
/// The largest batch unpacked, in bytes.
pub const MAX_UNPACKED: usize = 8 << 20;
/// States in one batch; a full state must fit.
pub const MAX_STATES: usize = 250_000;

/// The id that a client chose for itself when it was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub Uuid);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for ClientId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text.trim()).map(Self)
    }
}

/// One life of a client's store: drawn at random when the store is made, so a machine that was set up
/// anew, or a copy of a machine, is told from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub NonZeroU64);

/// One revision of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpdateRevision {
    /// Which update.
    pub id: UpdateId,
    /// Its revision in the catalogue.
    pub revision: u32,
}

/// What an update is to a client. The numbers are those of Configuration Manager's topic 500.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum State {
    /// Nothing is known; in a message, that the client does not assess the update any more.
    #[default]
    Unknown = 0,
    /// It is not applicable.
    NotRequired = 1,
    /// It is applicable, and not (or not yet wholly) installed.
    Required = 2,
    /// It is applicable and installed.
    Installed = 3,
}

impl State {
    /// The states that are reported as known.
    pub const KNOWN: [Self; 3] = [Self::NotRequired, Self::Required, Self::Installed];

    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::Unknown,
            1 => Self::NotRequired,
            2 => Self::Required,
            _ => Self::Installed,
        }
    }
}

/// That an update has a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMessage {
    /// Which update.
    pub update: UpdateRevision,
    /// What it is to the client.
    pub state: State,
    /// Since when, in seconds before the sending.
    pub age: u32,
}

/// Whether a batch holds what changed, or all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Every update that changed in the range of numbers.
    Changes,
    /// Every update that has a state; whatever is not named has none.
    Full,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanOutcome {
    /// All updates were assessed.
    Completed,
    /// It failed, with this code.
    Failed(u32),
}

/// The last scan of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// When it ended, in seconds before the sending.
    pub age: u32,
    /// How it ended.
    pub outcome: ScanOutcome,
    /// When a scan last completed, in seconds before the sending; none if none ever did.
    pub completed: Option<u32>,
    /// The version of the catalogue that was scanned against.
    pub catalogue: u64,
}

/// A batch of state messages. The module header says what always holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who sends it.
    pub client: ClientId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// The first number that it covers.
    pub first: u64,
    /// The number after the last one that it covers.
    pub next: u64,
    /// Whether it holds changes or all.
    pub kind: Kind,
    /// The client's clock when it was sent, in seconds since 1970: to tell who has a wrong clock.
    pub sent: i64,
    /// The last scan; none if there was none yet.
    pub scan: Option<Scan>,
    /// Changes that wait at the client to be sent after this batch.
    pub waiting: u32,
    /// The digest of the client's full state after this batch.
    pub digest: StateDigest,
    /// The states, sorted by update.
    pub states: Vec<StateMessage>,
}

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The batch is on the site's disk: forget it, and go on from `next`.
    Accepted {
        /// The number that the next batch begins with.
        next: u64,
        /// If told, the next batch has to be a full state.
        resync: Option<Resync>,
    },
    /// It was accepted before: forget it, and go on from `next`.
    Duplicate {
        /// The number that the next batch begins with.
        next: u64,
        /// If told, the next batch has to be a full state.
        resync: Option<Resync>,
    },
    /// Batches before it are missing: send from `expected` on, or a full state.
    Gap {
        /// The number that is expected.
        expected: u64,
        /// If told, only a full state helps.
        resync: Option<Resync>,
    },
    /// The site has too much to do: send the same again later.
    Busy {
        /// In how many seconds.
        retry_after: u32,
    },
    /// It was not taken, and sending it again will not help.
    Refused {
        /// Why.
        why: Refusal,
    },
}

/// Why a full state is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resync {
    /// The site's view has another digest than the client's.
    Diverged,
    /// A batch could not be read.
    Corrupt,
    /// The client's store has another life than the one that the site knows.
    NewIncarnation,
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// No client has this key.
    #[error("no client with this key is enrolled at this site")]
    UnknownClient,
    /// It is not approved yet.
    #[error("the client waits for approval")]
    Pending,
    /// It was blocked.
    #[error("the client is blocked")]
    Blocked,
    /// The batch names another client than the key's.
    #[error("the batch names another client than its key belongs to")]
    ForeignKey,
    /// More bytes than are taken.
    #[error("the batch has more than {MAX_SENT} bytes")]
    TooLarge,
    /// More different updates than the site keeps states of.
    #[error("the site keeps states of no more updates")]
    TooManyUpdates,
    /// It could not be read, and lies in quarantine under this number.
    #[error("the batch is damaged and lies in quarantine as number {quarantine}")]
    Malformed {
        /// Its number there.
        quarantine: u64,
    },
}

/// What the fuzz target reads: the bytes after a good checksum.
#[doc(hidden)]
pub fn fuzz_batch(mut bytes: Vec<u8>) {
    wire::seal(&mut bytes);
    if let Ok(batch) = Batch::decode(&bytes)
        && let Ok(again) = batch.encode()
    {
        assert_eq!(Batch::decode(&again), Ok(batch));
    }
}
