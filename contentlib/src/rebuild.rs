//! Rebuilding the index from the packs alone.
//!
//! A sealed pack's index is its footer, one read at the end of the file; only commit records are
//! read beside it. A pack without a good footer is read front to back. The result equals the
//! index that was there, except that entries garbage collection had purged, and whose packs still
//! stand, come back until it runs again.
//!
//! Of two copies of a chunk either will do. Two recipes of a content may cut it otherwise, and the
//! chunks of one be gone: the newest counts whose chunks are all there.

use crate::commit::Pending;
use crate::digest::{Digest, PackId};
use crate::error::{MaintainError, OpenError, PackProblem};
use crate::index::{Index, RecipePlace, put_number};
use crate::kv::rocks::RocksKv;
use crate::kv::{Batch, Kv, Table};
use crate::library::{Environment, Library, Locked, Options, System, lock_folder};
use crate::pack::format::{BadPack, Kind, PACK_HEADER, PackHeader};
use crate::pack::reader::{RecordError, footer, pack_header, record};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::recovery::{HeadedPack, Replay};
use crate::store::volumes::Volumes;
use crate::store::{PackFile, PackStore, is_media_error};
use std::collections::{BTreeMap, HashMap};
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
    let mut packs = Vec::new();
    let mut headless = Vec::new();
    let listed = store.list().map_err(|source| OpenError::Io { folder: "packs".into(), source })?;
    progress.total_files.store(listed.len() as u64, Relaxed);
    for id in listed {
        let opened = store.open(id).map_err(RecordError::Io);
        match opened.and_then(|file| Ok((pack_header(&*file)?, file))) {
            Ok((header, file)) => packs.push((header, file)),
            Err(RecordError::Bad(BadPack::Newer(found))) => {
                return Err(OpenError::newer_pack(id, found).into());
            }
            Err(error) => {
                let lost_its_header = match &error {
                    RecordError::Bad(bad) => *bad == BadPack::Header,
                    RecordError::Io(error) => is_media_error(error),
                };
                report.bad(id, error.to_string());
                if lost_its_header && let Ok(file) = store.open(id) {
                    headless.push((id, file));
                }
            }
        }
    }
    packs.sort_by_key(|(header, _)| header.seq);
    adopt(&mut packs, headless);
    let mut replay = Replay::new(0);
    let mut contested = Contested::default();
    let (mut library, mut run) = (None, 0);
    for (header, file) in &packs {
        progress.check()?;
        library.get_or_insert(header.library);
        run = run.max(header.run);
        match by_footer(&mut replay, header, &**file) {
            Ok(true) => report.sealed_packs += 1,
            Ok(false) => {
                let bad_sector = replay.pack(header, &**file, PACK_HEADER as u64)?;
                report.scanned_packs += 1;
                if let Some(error) = bad_sector {
                    report
                        .bad(header.id, format!("what lies behind a bad sector is lost: {error}"));
                }
            }
            Err(error) => report.bad(header.id, error.to_string()),
        }
        progress.add(&progress.files, 1);
        contested.note(index, replay.covered())?;
        let mut batch = Batch::default();
        replay.write_covered(index, &mut batch)?;
        index.kv.write(batch)?;
    }
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

/// Contents that the packs hold several recipes of. Few: those stored anew after they were given
/// up, or copied by garbage collection, whose old pack still stands.
#[derive(Default)]
struct Contested {
    /// All recipes of a content but the newest, older before newer.
    older: BTreeMap<Digest, Vec<RecipePlace>>,
}

impl Contested {
    /// Notes which recipes `covered`, about to be written to `index`, will overrule.
    fn note(&mut self, index: &Index, covered: &[Pending]) -> Result<(), MaintainError> {
        let mut newest = HashMap::new();
        for record in covered {
            let Pending::Recipe { content, place, .. } = record else { continue };
            let overruled = match newest.insert(*content, *place) {
                None => index.recipe(*content)?,
                before => before,
            };
            if let Some(place) = overruled {
                self.older.entry(*content).or_default().push(place);
            }
        }
        Ok(())
    }

    /// Where the newest recipe names chunks that are gone, or is damaged, and an older one is
    /// whole, that one counts.
    fn settle(self, store: &dyn PackStore, index: &Index) -> Result<(), MaintainError> {
        for (content, older) in self.older {
            let newest = index.recipe(content)?;
            let is_newest =
                |place: &RecipePlace| newest.is_some_and(|n| n.ordinal() == place.ordinal());
            for place in newest.into_iter().chain(older.into_iter().rev()) {
                if is_whole(store, index, content, &place)? {
                    if !is_newest(&place) {
                        let mut batch = Batch::default();
                        batch.put(Table::Recipes, *content.as_bytes(), place.encode());
                        index.kv.write(batch)?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether a recipe can be read, and all its chunks are held.
fn is_whole(
    store: &dyn PackStore,
    index: &Index,
    content: Digest,
    place: &RecipePlace,
) -> Result<bool, MaintainError> {
    let Some(pack) = index.pack(place.pack)? else { return Ok(false) };
    let found = store.open(pack.id).map_err(RecordError::Io);
    let found = found.and_then(|file| record(&*file, place.offset, place.body_len));
    let recipe = match found {
        Ok((header, body)) if header.id == content => Recipe::decode(&body).ok(),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(pack = %pack.id, %content, %error, "a recipe cannot be read");
            None
        }
    };
    let Some(recipe) = recipe else { return Ok(false) };
    Ok(index.chunks(recipe.chunks())?.iter().all(Option::is_some))
}

/// Gives packs whose header went bad another number and a run of their own, so that what their
/// own commits cover counts. Which packs they were written between is lost, and matters little:
/// commits are numbered, and which of two recipes counts is settled by what they name.
fn adopt(packs: &mut Vec<HeadedPack>, headless: Vec<(PackId, Arc<dyn PackFile>)>) {
    let mut last = packs.last().map(|(header, _)| header.clone());
    let newest_run = packs.iter().map(|(header, _)| header.run).max().unwrap_or(0);
    for (run, (id, file)) in (newest_run + 1..).zip(headless) {
        let library = last.as_ref().map_or(0, |header| header.library);
        let seq = last.map_or(0, |header| header.seq + 1);
        let header = PackHeader { id, library, seq, run };
        last = Some(header.clone());
        packs.push((header, file));
    }
}

fn count(index: &Index, table: Table, n: &mut u64) -> Result<(), MaintainError> {
    index.kv.scan(table, &[], &mut |_, _| {
        *n += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Takes in a pack by its footer. `false` if it has no good one.
fn by_footer(
    replay: &mut Replay,
    header: &PackHeader,
    file: &dyn PackFile,
) -> Result<bool, RecordError> {
    // As when packs are replayed: what the index names must be on the disk.
    file.sync()?;
    let (entries, end) = match footer(file) {
        Ok(Some(found)) => found,
        Ok(None) | Err(RecordError::Bad(_)) => return Ok(false),
        Err(RecordError::Io(error)) if is_media_error(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // First: its commits cover nothing of another run.
    replay.enter(header);
    for entry in &entries {
        if matches!(entry.kind, Kind::Commit | Kind::Checkpoint) {
            match record(file, entry.offset, entry.body_len) {
                Ok((found, body)) => drop(replay.log(found.kind, found.seq, &body)),
                Err(RecordError::Io(error)) if !is_media_error(&error) => return Err(error.into()),
                Err(error) => {
                    // What it covered is there; which refs it changed is lost with it.
                    tracing::error!(pack = %header.id, %error, "a commit is lost");
                    replay.cover();
                }
            }
        } else {
            replay.footer_entry(header.seq, entry);
        }
    }
    replay.sealed(header, end);
    Ok(true)
}
