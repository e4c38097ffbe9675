//! The updates that a site issues itself: a source without an upstream, called `local`.
//!
//! They come into the catalogue by the same commit as what a sync brings, are told to others in the same
//! way, and live by the same policy.

use super::run::Came;
use super::{Machine, MachineError, blocking};
use crate::adapter::{Extent, Run, Said};
use crate::catalogue::Changes;
use crate::error::SyncError;
use crate::messages::{Message, MessageId};
use crate::name::SourceName;
use std::path::PathBuf;
use std::sync::Arc;

impl Machine {
    /// Takes what the site says itself into the catalogue: updates, and that some are gone.
    ///
    /// # Errors
    /// Somebody does the same at this moment ([`crate::error::Cause::Busy`]), or the catalogue failed.
    pub async fn issue(&self, all: Vec<Said>) -> Result<Changes, MachineError> {
        let (machine, name) = (self.clone(), SourceName::own());
        let of = name.clone();
        let changes = blocking(move || {
            let mut intake = machine.0.catalogue.intake(&of, 0, Arc::default(), machine.now())?;
            all.into_iter().try_for_each(|said| intake.take(said))?;
            intake.settle(Extent::Changes)?;
            intake.commit(serde_json::Value::Null)
        });
        let changes: Changes = changes.await.map_err(|error: SyncError| error)?;
        let run = Run {
            fetcher: self.0.fetcher.clone(),
            folder: PathBuf::new(),
            now: self.now(),
            criteria: Arc::default(),
            watch: Arc::default(),
        };
        let text = format!(
            "own updates: {} new, {} new revisions, {} withdrawn",
            changes.added, changes.revised, changes.gone
        );
        let message = Message::of_sync(MessageId::DONE, &name, text, run.now)
            .with("added", changes.added)
            .with("revised", changes.revised)
            .with("gone", changes.gone);
        self.tell(&run, &name, Came::Something { at: run.now, outside: 0 }, message).await?;
        Ok(changes)
    }
}
