//! How sources stand: the run under way, those that are over, when the next one begins.

use super::{Live, Machine, MachineError, RUNS, policy};
use crate::adapter::Stage;
use crate::name::SourceName;
use crate::source::{RunNumber, RunRecord, SiteSettings, Source, Standing, Trigger};
use jiff::Timestamp;
use sitedb::{DbError, Order};
use std::sync::atomic::Ordering::Relaxed;

/// Runs that are read at a time.
const HISTORY_STEP: usize = 200;

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its number among the runs of its source.
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// When it was asked for.
    pub since: Timestamp,
    /// The stage; none while it waits for its turn.
    pub stage: Option<Stage>,
    /// Bytes that came over the wire.
    pub bytes: u64,
    /// Entries that were read.
    pub entries: u64,
}

impl Progress {
    pub(super) fn of(live: &Live) -> Self {
        Self {
            number: live.number,
            trigger: live.trigger.clone(),
            since: live.asked,
            stage: live.has_turn.load(Relaxed).then(|| live.watch.stage()),
            bytes: live.watch.bytes.load(Relaxed),
            entries: live.watch.entries.load(Relaxed),
        }
    }
}

/// How a source stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The source.
    pub source: Source,
    /// What is remembered of its runs.
    pub standing: Standing,
    /// Its last run that is over.
    pub last: Option<RunRecord>,
    /// The run under way.
    pub progress: Option<Progress>,
    /// When the next one begins by itself, and why.
    pub next: Option<(Timestamp, Trigger)>,
    /// Whether it waits for a person, because it fails the same way until something is changed.
    pub waits: bool,
}

impl Machine {
    /// How all sources stand, by name.
    pub fn status(&self) -> Result<Vec<Status>, MachineError> {
        let site = self.0.sources.site()?;
        self.0.sources.list()?.into_iter().map(|source| self.status_by(source, &site)).collect()
    }

    /// How one source stands.
    pub fn status_of(&self, name: &SourceName) -> Result<Status, MachineError> {
        self.status_by(self.0.sources.get(name)?, &self.0.sources.site()?)
    }

    fn status_by(&self, source: Source, site: &SiteSettings) -> Result<Status, MachineError> {
        let standing = self.standing(&source.name)?;
        let progress = self.0.state.lock().live.get(&source.name).map(|live| Progress::of(live));
        let last = self.history(&source.name, None, 1)?.pop();
        // A zone that is not known here any more is told where a schedule is shown.
        let next = policy::next(&source, site, &standing).unwrap_or_default();
        let waits = standing.waits == Some(source.fingerprint(&site.criteria));
        Ok(Status { source, standing, last, progress, next, waits })
    }

    /// At most `limit` runs of a source that are over, the newest first, from before that number.
    pub fn history(
        &self,
        name: &SourceName,
        before: Option<RunNumber>,
        limit: usize,
    ) -> Result<Vec<RunRecord>, DbError> {
        let mut after = (name.to_string(), before.unwrap_or(RunNumber::MAX));
        let mut found = Vec::new();
        while found.len() < limit {
            let some =
                RUNS.scan(&self.0.db, Order::Descending, Some(&after), limit.min(HISTORY_STEP))?;
            let n = some.len();
            let own = some.into_iter().take_while(|((of, _), _)| *of == after.0);
            let own: Vec<_> = own.collect();
            let is_last = own.len() < n || n == 0;
            if let Some(((_, number), _)) = own.last() {
                after.1 = *number;
            }
            found.extend(own.into_iter().map(|(_, record)| record));
            if is_last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}
