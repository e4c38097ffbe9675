//! A source held still, so that what its last sync left can be read.
//!
//! A mirror is made of the files that a sync brought, and may bring more beside them. While a source is
//! held, no run of it begins: one that is asked for waits. Who stops the machine or removes the source
//! stops whoever holds it.

use super::run::Kept;
use super::{Machine, MachineError, blocking};
use crate::adapter::{Run, Watch};
use crate::error::{Cause, SyncError};
use crate::name::SourceName;
use crate::source::Source;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A source that is held still until this is dropped.
pub struct Held {
    /// The source.
    pub source: Source,
    /// What its last sync left.
    pub state: serde_json::Value,
    /// What to read it with: its folder, and the means to bring more.
    pub run: Run,
    _hold: Hold,
}

/// Lets go of the source when it is dropped.
struct Hold {
    machine: Machine,
    name: SourceName,
    runtime: Handle,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.machine.0.state.lock().held.remove(&self.name);
        self.machine.0.freed.notify_waiters();
        let _runtime = self.runtime.enter();
        self.machine.give_turns();
    }
}

impl Machine {
    /// Holds a source still, after the sync of it that is under way. `watch` tells how far the holder is,
    /// and is cancelled where it must let go.
    ///
    /// Must be called inside a tokio runtime.
    pub async fn hold(&self, name: &SourceName, watch: Arc<Watch>) -> Result<Held, MachineError> {
        self.0.sources.get(name)?;
        let cancelled = || SyncError::new(Cause::Cancelled, "it was cancelled");
        let wait = self.when_free(name, Some(&watch));
        watch.stop.run_until_cancelled(wait).await.ok_or_else(cancelled)??;
        let hold = Hold { machine: self.clone(), name: name.clone(), runtime: Handle::current() };
        let (machine, called) = (self.clone(), name.clone());
        let (source, state) = blocking(move || machine.left_by(&called)).await?;
        let run = Run {
            fetcher: self.0.fetcher.clone(),
            folder: self.0.folder.join(name.as_str()).join("files"),
            now: self.now(),
            criteria: Arc::default(),
            watch,
        };
        Ok(Held { source, state, run, _hold: hold })
    }

    /// Waits until nobody works with the files of a source; where there is a `watch`, takes hold of it then.
    pub(super) async fn when_free(
        &self,
        name: &SourceName,
        watch: Option<&Arc<Watch>>,
    ) -> Result<(), MachineError> {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // From now on a notice is not missed.
            freed.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                if state.is_closed && watch.is_some() {
                    return Err(MachineError::Stopping);
                }
                let waits = state.waiting.iter().any(|live| live.source == *name);
                let is_running = state.live.contains_key(name) && !waits;
                if !is_running && !state.held.contains_key(name) {
                    if let Some(watch) = watch {
                        state.held.insert(name.clone(), watch.clone());
                    }
                    return Ok(());
                }
            }
            freed.await;
        }
    }

    /// A source and what its last sync left, where it was one of the source as it is.
    fn left_by(&self, name: &SourceName) -> Result<(Source, serde_json::Value), MachineError> {
        let source = self.0.sources.get(name)?;
        let criteria = self.0.sources.site()?.criteria;
        let kept = self.0.catalogue.state(name)?;
        let kept = kept.and_then(|kept| serde_json::from_value::<Kept>(kept).ok());
        let is_of_it = |kept: &Kept| kept.fingerprint == source.fingerprint(&criteria);
        let kept = kept.filter(is_of_it).filter(|_| self.has_files(&source));
        let kept = kept.ok_or_else(|| MachineError::NotSynchronised(name.clone()))?;
        Ok((source, kept.state))
    }
}
