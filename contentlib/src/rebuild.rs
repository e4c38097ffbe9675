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
use crate::index::{Index, PackInfo, PackState, put_number};
use crate::kv::rocks::RocksKv;
use crate::kv::{Batch, Kv, Table};
use crate::library::{Environment, Library, Locked, Options, System, lock_folder};
use crate::pack::format::{BadPack, PACK_HEADER, PackHeader};
use crate::pack::reader::{RecordError, pack_header};
use crate::progress::Progress;
use crate::recovery::{Replay, unseen_from, watermark};
use crate::snapshot;
use crate::store::{PackStore, is_media_error};
use contested::Contested;
use listed::Listed;
use std::collections::{BTreeMap, HashSet};
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
        let fill = |index: &Index| {
            let report = rebuild(&store, index, &System, progress)?;
            if let Some(shelf) = store.shelf() {
                // What was wrong with the index may be in the snapshots of it: only this one stays.
                let made = snapshot::write(&shelf, index, 1, System.unix_ms(), progress);
                if let Err(error) = made {
                    progress.check()?;
                    tracing::warn!(%error, "no snapshot of the index was written");
                }
            }
            Ok(report)
        };
        let report = make_index(folder, fill)?;
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

/// Puts an index in the place of the one in `folder`, once `fill` has filled it.
pub(crate) fn make_index<R>(
    folder: &Path,
    fill: impl FnOnce(&Index) -> Result<R, MaintainError>,
) -> Result<R, MaintainError> {
    let fail = |source| OpenError::Io { folder: folder.into(), source };
    let (new, old) = (folder.join("index.new"), folder.join("index.old"));
    for stale in [&new, &old] {
        if stale.exists() {
            std::fs::remove_dir_all(stale).map_err(fail)?;
        }
    }
    let made = {
        let index = Index { kv: Arc::new(RocksKv::open(&new).map_err(OpenError::from)?) };
        let made = fill(&index)?;
        index.kv.flush()?;
        made
    };
    let index = folder.join("index");
    if index.exists() {
        std::fs::rename(&index, &old).map_err(fail)?;
    }
    std::fs::rename(&new, &index).map_err(fail)?;
    if old.exists() {
        std::fs::remove_dir_all(&old).map_err(fail)?;
    }
    Ok(made)
}

/// Fills an empty index from all packs in `store`.
pub(crate) fn rebuild(
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
    progress: &Progress,
) -> Result<RebuildReport, MaintainError> {
    Ok(replay_unseen(store, index, environment, progress)?.report)
}

/// What came of reading packs.
pub(crate) struct Replayed {
    pub report: RebuildReport,
    /// Whether a checkpoint of the refs was among what was read.
    pub has_checkpoint: bool,
    /// Packs that say that they are of another library than the index.
    pub others: Vec<PackId>,
}

/// Takes in what an index, which may be empty, has not seen of the packs in `store`. Nobody else
/// uses it.
pub(crate) fn replay_unseen(
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
    progress: &Progress,
) -> Result<Replayed, MaintainError> {
    let mut report = RebuildReport::default();
    let known: BTreeMap<u32, PackInfo> = index.packs()?.into_iter().collect();
    let mark = watermark(index)?;
    let packs = headed_packs(store, &known, &mut report, progress)?;
    let mut replay = Replay::new(index.number("commit")?);
    let mut contested = Contested::default();
    let mut library = index.library()?;
    let mut run = index.number("run")? as u32;
    let mut others = Vec::new();
    let from = |header: &PackHeader| unseen_from(header.seq, mark, known.get(&header.seq));
    let read = |header: &PackHeader| {
        let file = store.open(header.id)?;
        let listed = Listed::read(header.id, &*file, from(header))?;
        Ok::<_, RecordError>((listed, file))
    };
    in_order(&packs, store.reads_at_once(), read, |header, read| {
        progress.check()?;
        if *library.get_or_insert(header.library) != header.library {
            others.push(header.id);
        }
        run = run.max(header.run);
        match read {
            Ok((Some(listed), _)) => {
                listed.replay(header, &mut replay);
                report.sealed_packs += 1;
            }
            Ok((None, file)) => {
                let bad_sector = replay.pack(header, &*file, from(header))?;
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
    let has_checkpoint = replay.has_checkpoint();
    replay.finish(index, &mut batch)?;
    index.kv.write(batch)?;
    contested.settle(store, index)?;
    count(index, Table::Chunks, &mut report.chunks)?;
    count(index, Table::Recipes, &mut report.recipes)?;
    count(index, Table::Refs, &mut report.refs)?;
    Ok(Replayed { report, has_checkpoint, others })
}

/// The headers of all packs that are not known as closed, in the order they were opened.
fn headed_packs(
    store: &dyn PackStore,
    known: &BTreeMap<u32, PackInfo>,
    report: &mut RebuildReport,
    progress: &Progress,
) -> Result<Vec<PackHeader>, MaintainError> {
    let closed = known.values().filter(|info| info.state != PackState::Open);
    let closed: HashSet<PackId> = closed.map(|info| info.id).collect();
    let mut listed =
        store.list().map_err(|source| OpenError::Io { folder: "packs".into(), source })?;
    listed.retain(|id| !closed.contains(id));
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
    let next = known.last_key_value().map_or(0, |(seq, _)| seq + 1);
    adopt(&mut packs, headless, next);
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
fn adopt(packs: &mut Vec<PackHeader>, headless: Vec<PackId>, next: u32) {
    let mut last = packs.last().cloned();
    let newest_run = packs.iter().map(|header| header.run).max().unwrap_or(0);
    for (run, id) in (newest_run + 1..).zip(headless) {
        let library = last.as_ref().map_or(0, |header| header.library);
        let seq = last.map_or(next, |header| next.max(header.seq + 1));
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
