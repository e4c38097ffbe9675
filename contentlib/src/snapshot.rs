//! Snapshots of the index, kept beside the packs on an object store.
//!
//! Whoever opens the library with another disk than the process before begins with the newest
//! snapshot and reads only the packs that it does not know. A snapshot says what the packs said at
//! one moment, and nothing else: what garbage collection had condemned is live in it, as it is
//! after a rebuild. It is never needed. One that is damaged, of a newer depot, or of another log is
//! passed over, and all packs are read.
//!
//! Always true: an index that was restored holds what one rebuilt from all packs would, but for
//! entries that garbage collection had purged when the snapshot was made.

mod format;
mod restore;

pub(crate) use format::fuzzing;
pub use restore::Restored;
pub(crate) use restore::restore;

use crate::error::MaintainError;
use crate::index::{ChunkPlace, Index, RecipePlace, Standing, Value};
use crate::kv::{KvError, Table};
use crate::library::Library;
use crate::progress::Progress;
use crate::store::PackStore;
use crate::store::objects::Shelf;
use format::{MAX_PARTS, Manifest, PartWriter};
use std::io;
use std::ops::ControlFlow;

/// A snapshot is due after so long, in ms, if anything was written.
const INTERVAL: u64 = 10 * 60 * 1000;
/// A snapshot is due after so many bytes of packs.
const MUCH: u64 = 1 << 30;
/// Snapshots that stay: if the newest cannot be used, the one before can.
const KEPT: usize = 2;

/// A snapshot that was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SnapshotReport {
    /// Chunks, recipes, other names, refs and packs in it.
    pub entries: u64,
    /// Objects that it takes.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Whether a snapshot is worth its bytes: enough time or writing since the last one, and no less
/// written than it takes. What is left to read when it is needed is then never much more than the
/// snapshot itself.
fn is_due(since_ms: u64, written: u64, bytes_of_last: u64) -> bool {
    written > 0 && written >= bytes_of_last && (since_ms >= INTERVAL || written >= MUCH)
}

impl Library {
    /// Writes a snapshot of the index to the object store that the library is on, if that is due.
    /// To be called every minute or so; whoever opens the library on another machine is quicker
    /// for it.
    pub fn snapshot_if_due(
        &self,
        progress: &Progress,
    ) -> Result<Option<SnapshotReport>, MaintainError> {
        let Some(shelf) = self.inner.store.shelf() else { return Ok(None) };
        let last = shelf.last();
        let since = self.inner.environment.unix_ms().saturating_sub(last.at);
        let written = shelf.written().saturating_sub(last.written);
        match last.is_missing || is_due(since, written, last.bytes) {
            true => self.snapshot(progress),
            false => Ok(None),
        }
    }

    /// Writes a snapshot of the index to the object store that the library is on. Nothing if it is
    /// on none, or another snapshot is being written.
    pub fn snapshot(&self, progress: &Progress) -> Result<Option<SnapshotReport>, MaintainError> {
        let Some(shelf) = self.inner.store.shelf() else { return Ok(None) };
        let Some(_one) = shelf.making.try_lock() else { return Ok(None) };
        // Before the snapshot's moment: what is written meanwhile counts towards the next.
        let written = shelf.written();
        let now = self.inner.environment.unix_ms();
        let report = write(&shelf, &self.inner.index, KEPT, now, progress)?;
        shelf.made(now, written, report.bytes);
        Ok(Some(report))
    }
}

/// Writes a snapshot of `index`. It and those before it, `kept` in all, stay.
pub(crate) fn write(
    shelf: &Shelf,
    index: &Index,
    kept: usize,
    now: u64,
    progress: &Progress,
) -> Result<SnapshotReport, MaintainError> {
    let sequence = shelf.next().map_err(not_written)?;
    let mut writing = Writing::new(shelf, sequence, progress);
    index.kv.snapshot(&TABLES, &mut |table, key, value| match writing.take(table, key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            writing.failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    let report = writing.finish(now)?;
    // It is there, and is what counts.
    if let Err(error) = shelf.prune(kept) {
        tracing::warn!(%error, "old snapshots of the index are left over");
    }
    Ok(report)
}

/// What a snapshot has of the index, in the order in which it is of use: which packs are still
/// there decides which places count.
const TABLES: [Table; 6] =
    [Table::Meta, Table::Packs, Table::Refs, Table::Aliases, Table::Recipes, Table::Chunks];

/// A snapshot that is being written.
struct Writing<'a> {
    shelf: &'a Shelf,
    sequence: u128,
    progress: &'a Progress,
    manifest: Manifest,
    part: PartWriter,
    report: SnapshotReport,
    failed: Option<MaintainError>,
}

fn not_written(source: io::Error) -> MaintainError {
    MaintainError::Snapshot { source }
}

impl<'a> Writing<'a> {
    fn new(shelf: &'a Shelf, sequence: u128, progress: &'a Progress) -> Self {
        let report = SnapshotReport { entries: 0, objects: 0, bytes: 0 };
        let (manifest, part) = (Manifest::default(), PartWriter::default());
        Self { shelf, sequence, progress, manifest, part, report, failed: None }
    }

    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MaintainError> {
        if table == Table::Meta {
            return Ok(self.manifest.take_meta(key, value)?);
        }
        self.report.entries += 1;
        match table {
            Table::Chunks => {
                let place = ChunkPlace::decode(value).ok_or_else(|| unreadable(table))?;
                let standing = said_by_packs(place.standing);
                self.part.push(table, key, &ChunkPlace { standing, ..place }.encode());
            }
            Table::Recipes => {
                let place = RecipePlace::decode(value).ok_or_else(|| unreadable(table))?;
                let standing = said_by_packs(place.standing);
                self.part.push(table, key, &RecipePlace { standing, ..place }.encode());
            }
            _ => self.part.push(table, key, value),
        }
        if self.part.is_full() {
            self.put_part()?;
        }
        Ok(())
    }

    fn put_part(&mut self) -> Result<(), MaintainError> {
        self.progress.check()?;
        if self.manifest.parts.len() == MAX_PARTS {
            return Err(not_written(io::Error::other("the index is too large for one")));
        }
        let number = self.manifest.parts.len() as u32;
        let (part, stored) = self.part.finish().map_err(not_written)?;
        self.report.bytes += stored.len() as u64;
        self.shelf.put(self.sequence, Some(number), stored).map_err(not_written)?;
        self.manifest.parts.push(part);
        Ok(())
    }

    /// Writes the rest, and last the manifest: from then on there is the snapshot.
    fn finish(mut self, now: u64) -> Result<SnapshotReport, MaintainError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.part.is_empty() {
            self.put_part()?;
        }
        self.manifest.made = now;
        let manifest = self.manifest.encode();
        self.report.objects = self.manifest.parts.len() as u64 + 1;
        self.report.bytes += manifest.len() as u64;
        self.shelf.put(self.sequence, None, manifest.into()).map_err(not_written)?;
        Ok(self.report)
    }
}

/// Damage is worth knowing; that nobody refers to an entry is for garbage collection to find anew.
fn said_by_packs(standing: Standing) -> Standing {
    match standing {
        Standing::Suspect => Standing::Suspect,
        Standing::Live | Standing::Condemned => Standing::Live,
    }
}

fn unreadable(table: Table) -> KvError {
    KvError::Failed(format!(
        "a value of table {} is unreadable; run `depot library rebuild-index`",
        table.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_time_or_by_bytes_and_never_costs_more_than_what_it_is_of() {
        assert!(!is_due(100 * INTERVAL, 0, 0), "nothing changed");
        assert!(is_due(INTERVAL, 1, 1));
        assert!(!is_due(INTERVAL - 1, MUCH - 1, 0));
        assert!(is_due(0, MUCH, MUCH));
        assert!(!is_due(INTERVAL, MUCH, MUCH + 1), "a large library");
    }
}
