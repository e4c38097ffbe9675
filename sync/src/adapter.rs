//! The seam that every upstream is read through.
//!
//! A sync of one source is two halves. The first talks: it asks the upstream whether anything is
//! new, brings files into the source's folder and checks them against signature and digests. The
//! second reads what was brought, with no network, and says of it update after update. Between them
//! a sync may stop and go on: what was brought stays in the folder.
//!
//! An adapter remembers nothing of its own. What it needs to know the next time (validators,
//! anchors, the date of a signed file) it gives as a value that is kept when, and only when, all
//! that it said was taken into the catalogue.

use crate::catalogue::FeedPage;
use crate::error::{Cause, SyncError};
use crate::fetch::Fetcher;
use crate::hierarchy::Above;
use crate::name::UpdateId;
use crate::taxonomy::{Classification, Language, Product};
use crate::update::Update;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// An upstream of updates.
///
/// * `fetch` may be called again after it failed or was dropped, and then goes on with what lies in
///   the folder.
/// * `read` gives each update once; it blocks, and is called off the async threads.
/// * Neither touches anything but the folder and the network.
pub trait Adapter: Send + Sync {
    /// Brings what is new, verified. `state` is what the last sync that succeeded left, if there was one
    /// with these settings.
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>>;

    /// What is set at the top of the tree of sites, if the upstream is in it: after `fetch`.
    fn above(&self) -> Option<Above> {
        None
    }

    /// Says of what `fetch` brought, update after update.
    fn read(
        &self,
        run: &Run,
        state: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError>;
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Nothing is new since `state`.
    Unchanged,
    /// Something is.
    Changed,
}

/// One thing that an upstream says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A revision of an update.
    Update(Box<Update>),
    /// There is such a product.
    Product(Product),
    /// The upstream has the update no more. Only of upstreams that say what changed.
    Gone(UpdateId),
    /// A part of the parent site's feed.
    Feed(Box<FeedPage>),
}

/// What reading came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// What was said.
    pub extent: Extent,
    /// What to keep for the next time.
    pub state: serde_json::Value,
    /// Entries that could not be understood and were passed over: how many, and the first few, in words.
    pub skipped: Skipped,
}

/// Of what an upstream spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of all it has: what it did not name is gone.
    Whole,
    /// Of what changed since the state before.
    Changes,
}

/// Entries that were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// What was wrong with the first of them.
    pub examples: Vec<String>,
}

impl Skipped {
    /// How many examples are kept.
    const EXAMPLES: usize = 20;

    /// Counts one.
    pub fn add(&mut self, why: impl fmt::Display) {
        self.count += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(why.to_string().chars().take(300).collect());
        }
    }

    /// Counts those of another place too.
    pub fn and(&mut self, others: Self) {
        self.count += others.count;
        let free = Self::EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(others.examples.into_iter().take(free));
    }
}

/// Which updates are wanted at all. An empty set wants all of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criteria {
    /// Of these classifications.
    pub classifications: BTreeSet<Classification>,
    /// For one of these products, by id or by name, or for those of these families.
    pub products: BTreeSet<String>,
    /// Texts, and files that are for one language alone, in these languages.
    pub languages: BTreeSet<Language>,
}

/// The stages of a sync, in order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The upstream is asked whether anything is new.
    #[default]
    Connect,
    /// Files are brought.
    Fetch,
    /// Signatures and digests are checked.
    Verify,
    /// What was brought is read.
    Parse,
    /// It is compared with what is held.
    Diff,
    /// The changes are made durable.
    Commit,
    /// They become visible.
    Publish,
    /// Children and other update points are told.
    Notify,
}

impl Stage {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Parse => "parse",
            Self::Diff => "diff",
            Self::Commit => "commit",
            Self::Publish => "publish",
            Self::Notify => "notify",
        }
    }
}

/// What one sync works with: everything that is not the upstream itself.
#[derive(Clone)]
pub struct Run {
    /// How it talks.
    pub fetcher: Fetcher,
    /// The folder of the source; it exists, and nobody else uses it.
    pub folder: PathBuf,
    /// The time.
    pub now: Timestamp,
    /// What is wanted.
    pub criteria: Arc<Criteria>,
    /// How far it is, and whether it should stop.
    pub watch: Arc<Watch>,
}

/// The file of a source's folder that stays when the settings of the source change, and all others go.
/// What an adapter keeps in it must be true whatever they are.
pub const LASTING: &str = "lasting";

impl Run {
    /// Says that a stage begins; an error if somebody cancelled.
    pub fn stage(&self, stage: Stage) -> Result<(), SyncError> {
        *self.watch.stage.lock() = stage;
        self.watch.moved();
        self.watch.check()
    }

    /// A file of the source's folder, by a plain name.
    pub fn file(&self, name: &str) -> PathBuf {
        debug_assert!(!name.contains('/') && name != ".." && !name.is_empty());
        Path::new(&self.folder).join(name)
    }
}

/// How far a sync is, as others see it, and whether it should stop.
#[derive(Debug, Default)]
pub struct Watch {
    stage: Mutex<Stage>,
    /// Bytes that came over the wire.
    pub bytes: AtomicU64,
    /// Entries read.
    pub entries: AtomicU64,
    /// Counts everything that moves; one that stands still for long is ended.
    beats: AtomicU64,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Watch {
    /// The stage it is in.
    pub fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    /// Says that something moved.
    pub fn moved(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// A number that changes whenever something moves.
    pub fn beats(&self) -> u64 {
        self.beats.load(Relaxed)
    }

    /// Counts bytes that came.
    pub fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.moved();
    }

    /// Counts an entry that was read; an error if somebody cancelled.
    pub fn read(&self) -> Result<(), SyncError> {
        self.entries.fetch_add(1, Relaxed);
        self.moved();
        self.check()
    }

    /// An error if somebody cancelled.
    pub fn check(&self) -> Result<(), SyncError> {
        if self.stop.is_cancelled() {
            return Err(SyncError::new(Cause::Cancelled, "the sync was cancelled"));
        }
        Ok(())
    }
}
