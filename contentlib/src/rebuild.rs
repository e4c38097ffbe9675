//! Rebuilding the index from the packs alone.
//!
//! A sealed pack's index is its footer, one read at the end of the file; only commit records are
//! read beside it. Many packs are read at once where that is faster, and taken in one after the
//! other. A pack without a good footer is read front to back. The result equals the index that was
//! there, except that entries garbage collection had purged, and whose packs still stand, come
//! back until it runs again.
//!
//! Damage is reported, and the rest taken in. What another try may read ends the rebuild: an index
//! that lacks a pack since the network failed would be taken for the whole.
//!
//! Of two copies of a chunk either will do. Two recipes of a content may cut it otherwise, and the
//! chunks of one be gone: the newest counts whose chunks are all there.

mod contested;
mod listed;

use crate::digest::PackId;
use crate::error::{MaintainError, OpenError, PackProblem};
use crate::in_order::in_order;
use crate::index::{Index, put_number};
use crate::kv::rocks::RocksKv;
use crate::kv::{Batch, Kv, Table};
use crate::library::{Environment, Library, Locked, Options, System, lock_folder};
use crate::pack::format::{BadPack, PACK_HEADER, PackHeader};
use crate::pack::reader::{RecordError, pack_header};
use crate::progress::Progress;
use crate::recovery::Replay;
use crate::store::volumes::Volumes;
use crate::store::{PackStore, is_media_error};
use contested::Contested;
use listed::Listed;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RebuildReport {
    /// Packs read by their footers.
    pub sealed_packs: u64,
    /// Packs read front to back, because they have no good footer.
    pub scanned_packs: u64,
    /// Packs that could not be read, with what is wrong.
    pub bad_packs: Vec<PackProblem>,
    /// Chunks found.
    pub chunks: u64,
    /// Recipes found.
    pub recipes: u64,
    /// Refs found.
    pub refs: u64,
}

impl RebuildReport {
    /// Names a pack that could not be read whole; each is named once.
    fn bad(&mut self, pack: PackId, error: String) {
        match self.bad_packs.iter_mut().find(|bad| bad.pack == pack) {
            Some(bad) => bad.error = format!("{}; {error}", bad.error),
            None => self.bad_packs.push(PackProblem { pack, error }),
        }
    }

    /// The same; an error of its own if another try may read the pack.
    fn bad_or_unread(&mut self, pack: PackId, error: RecordError) -> Result<(), OpenError> {
        match error {
            RecordError::Io(source) if !is_media_error(&source) => {
                Err(OpenError::Io { folder: pack.to_string().into(), source })
            }
            error => {
                self.bad(pack, error.to_string());
                Ok(())
            }
        }
    }
}

impl Library {
    /// Builds the index of the library in `folder` anew. Nobody else may have it open. The old
    /// index, if there is one, is replaced once the new one is complete.
    pub fn rebuild_index(
        folder: &Path,
        options: Options,
        progress: &Progress,
    ) -> Result<RebuildReport, MaintainError> {
        let Locked { lock, store, objects } = lock_folder(folder, &options)?;
        let report = rebuild_in(folder, &store, progress)?;
        if let Some(objects) = objects {
            objects.own_index().map_err(OpenError::from)?;
        }
        drop(store);
        drop(lock);
        Ok(report)
    }

    /// Fills the empty index `kv` from the packs in `store`, for simulation.
    pub fn rebuild_on(
        store: &dyn PackStore,
        kv: Arc<dyn Kv>,
        environment: &dyn Environment,
    ) -> Result<RebuildReport, MaintainError> {
        rebuild(store, &Index { kv }, environment, &Progress::default())
    }
}

/// Makes the index in `folder` anew from `store`.
pub(crate) fn rebuild_in(
    folder: &Path,
    store: &Volumes,
    progress: &Progress,
) -> Result<RebuildReport, MaintainError> {
    let fail = |source| OpenError::Io { folder: folder.into(), source };
    let (new, old) = (folder.join("index.new"), folder.join("index.old"));
    for stale in [&new, &old] {
        if stale.exists() {
            std::fs::remove_dir_all(stale).map_err(fail)?;
        }
    }
    let report = {
        let index = Index { kv: Arc::new(RocksKv::open(&new).map_err(OpenError::from)?) };
        let report = rebuild(store, &index, &System, progress)?;
        index.kv.flush()?;
        report
    };
    let index = folder.join("index");
    if index.exists() {
        std::fs::rename(&index, &old).map_err(fail)?;
    }
    std::fs::rename(&new, &index).map_err(fail)?;
    if old.exists() {
        std::fs::remove_dir_all(&old).map_err(fail)?;
    }
    Ok(report)
}

/// Fills an empty index from `store`.
pub(crate) fn rebuild(
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
    progress: &Progress,
) -> Result<RebuildReport, MaintainError> {
    let mut report = RebuildReport::default();
    let packs = headed_packs(store, &mut report, progress)?;
    let mut replay = Replay::new(0);
    let mut contested = Contested::default();
    let (mut library, mut run) = (None, 0);
    let read = |header: &PackHeader| {
        let file = store.open(header.id)?;
        let listed = Listed::read(header.id, &*file, PACK_HEADER as u64)?;
        Ok::<_, RecordError>((listed, file))
    };
    in_order(&packs, store.reads_at_once(), read, |header, read| {
        progress.check()?;
        library.get_or_insert(header.library);
        run = run.max(header.run);
        match read {
            Ok((Some(listed), _)) => {
                listed.replay(header, &mut replay);
                report.sealed_packs += 1;
            }
            Ok((None, file)) => {
                let bad_sector = replay.pack(header, &*file, PACK_HEADER as u64)?;
                report.scanned_packs += 1;
                if let Some(error) = bad_sector {
                    report
                        .bad(header.id, format!("what lies behind a bad sector is lost: {error}"));
                }
            }
            Err(error) => report.bad_or_unread(header.id, error)?,
        }
        progress.add(&progress.files, 1);
        contested.note(index, replay.covered())?;
        let mut batch = Batch::default();
        replay.write_covered(index, &mut batch)?;
        Ok::<_, MaintainError>(index.kv.write(batch)?)
    })?;
    let mut batch = Batch::default();
    let library = library.unwrap_or_else(|| environment.random());
    batch.put(Table::Meta, "library", library.to_le_bytes());
    put_number(&mut batch, "format", crate::recovery::INDEX_FORMAT);
    put_number(&mut batch, "run", run.into());
    put_number(&mut batch, "commit", replay.next_commit);
    // An epoch that no lease of before can have begun in.
    put_number(&mut batch, "epoch", environment.unix_ms());
    replay.finish(index, &mut batch)?;
    index.kv.write(batch)?;
    contested.settle(store, index)?;
    count(index, Table::Chunks, &mut report.chunks)?;
    count(index, Table::Recipes, &mut report.recipes)?;
    count(index, Table::Refs, &mut report.refs)?;
    Ok(report)
}

/// The headers of all packs, in the order they were opened.
fn headed_packs(
    store: &dyn PackStore,
    report: &mut RebuildReport,
    progress: &Progress,
) -> Result<Vec<PackHeader>, MaintainError> {
    let listed = store.list().map_err(|source| OpenError::Io { folder: "packs".into(), source })?;
    progress.total_files.store(listed.len() as u64, Relaxed);
    let (mut packs, mut headless) = (Vec::new(), Vec::new());
    let read = |id: &PackId| pack_header(&*store.open(*id)?);
    in_order(&listed, store.reads_at_once(), read, |id, header| {
        progress.check()?;
        match header {
            Ok(header) => packs.push(header),
            Err(RecordError::Bad(BadPack::Newer(found))) => {
                return Err(OpenError::newer_pack(*id, found).into());
            }
            Err(error) => {
                let lost_its_header =
                    !matches!(&error, RecordError::Bad(bad) if *bad != BadPack::Header);
                if lost_its_header && holds_nothing(store, *id) {
                    // A crash before the header was durable: garbage collection deletes it.
                    tracing::warn!(%id, "a pack has no header and is ignored");
                    return Ok(());
                }
                report.bad_or_unread(*id, error)?;
                if lost_its_header {
                    headless.push(*id);
                }
            }
        }
        Ok::<_, MaintainError>(())
    })?;
    packs.sort_by_key(|header| header.seq);
    adopt(&mut packs, headless);
    Ok(packs)
}

/// Whether a pack has no room for a record.
fn holds_nothing(store: &dyn PackStore, id: PackId) -> bool {
    let len = store.open(id).and_then(|file| file.len());
    len.is_ok_and(|len| len <= PACK_HEADER as u64)
}

/// Gives packs whose header went bad another number and a run of their own, so that what their
/// own commits cover counts. Which packs they were written between is lost, and matters little:
/// commits are numbered, and which of two recipes counts is settled by what they name.
fn adopt(packs: &mut Vec<PackHeader>, headless: Vec<PackId>) {
    let mut last = packs.last().cloned();
    let newest_run = packs.iter().map(|header| header.run).max().unwrap_or(0);
    for (run, id) in (newest_run + 1..).zip(headless) {
        let library = last.as_ref().map_or(0, |header| header.library);
        let seq = last.map_or(0, |header| header.seq + 1);
        let header = PackHeader { id, library, seq, run };
        last = Some(header.clone());
        packs.push(header);
    }
}

fn count(index: &Index, table: Table, n: &mut u64) -> Result<(), MaintainError> {
    index.kv.scan(table, &[], &mut |_, _| {
        *n += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(())
}
