//! An index from the newest snapshot that can be used, and the packs that it does not know.
//!
//! What happened since the snapshot lies in the packs: new ones hold what was stored and what
//! garbage collection copied, and the refs. Packs that are gone are those that garbage collection
//! deleted; before it did, it wrote all refs into a pack that stays, as a checkpoint. So where packs
//! are gone and no such checkpoint followed, the snapshot is not of this log (a bucket that was put
//! back to what it was before, a pack that was lost), and is not used.

use super::format::{BadSnapshot, MAX_MANIFEST, Manifest, entries};
use crate::commit::UNSETTLED;
use crate::digest::{Digest, PackId};
use crate::error::{MaintainError, OpenError};
use crate::in_order::in_order;
use crate::index::{
    ChunkPlace, Index, PackInfo, PackState, RecipePlace, Standing, Value, put_number, suspect_key,
};
use crate::kv::{Batch, Kv, KvError, Table};
use crate::library::{Environment, Library};
use crate::pack::format::PACK_HEADER;
use crate::progress::Progress;
use crate::rebuild::{RebuildReport, rebuild, replay_unseen};
use crate::recovery::INDEX_FORMAT;
use crate::refs::decode_ref;
use crate::store::PackStore;
use crate::store::objects::Shelf;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Parts of a snapshot that are read at a time.
const PARTS_AT_ONCE: usize = 4;
/// Entries that are written to the index at once.
const STEP: usize = 4096;

/// What an index was made from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// When the snapshot was made that it began with, in ms since 1970; nothing if all packs were
    /// read.
    pub snapshot: Option<u64>,
    /// Which packs were read, and what the index holds now.
    pub report: RebuildReport,
}

/// Why a snapshot is passed over.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read")]
    Unread(#[from] io::Error),
    #[error(transparent)]
    Bad(#[from] BadSnapshot),
    #[error("{0} packs that it names are gone, and nothing in the log says why")]
    AnotherLog(usize),
    #[error("it is of another library than pack {0}")]
    AnotherLibrary(PackId),
    /// No reason to look for another.
    #[error(transparent)]
    Failed(#[from] MaintainError),
}

impl From<KvError> for Unusable {
    fn from(error: KvError) -> Self {
        Self::Failed(error.into())
    }
}

impl Library {
    /// Fills the empty index `kv` from a snapshot and the packs in `store`, for simulation.
    pub fn restore_on(
        store: &dyn PackStore,
        kv: Arc<dyn Kv>,
        environment: &dyn Environment,
    ) -> Result<Restored, MaintainError> {
        restore(store, &Index { kv }, environment, &Progress::default())
    }
}

/// Fills an empty index: from a snapshot and the packs since, or from all packs.
pub(crate) fn restore(
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
    progress: &Progress,
) -> Result<Restored, MaintainError> {
    let shelf = store.shelf();
    if let Some(shelf) = &shelf {
        let snapshots = shelf.list().unwrap_or_else(|error| {
            tracing::warn!(%error, "the snapshots of the index cannot be listed");
            Vec::new()
        });
        for (sequence, length) in snapshots {
            let from = (&**shelf, sequence, length);
            match restore_from(from, store, index, environment, progress) {
                Ok((made, report)) => {
                    let (snapshot, packs) = (made, report.sealed_packs + report.scanned_packs);
                    tracing::info!(packs, "the index is restored from a snapshot and newer packs");
                    return Ok(Restored { snapshot: Some(snapshot), report });
                }
                Err(Unusable::Failed(error)) => return Err(error),
                Err(why) => {
                    let why = chain(&why);
                    tracing::warn!(why, "a snapshot of the index is passed over");
                    clear(index)?;
                }
            }
        }
    }
    let report = rebuild(store, index, environment, progress)?;
    if let Some(shelf) = shelf
        && report.sealed_packs + report.scanned_packs > 0
    {
        tracing::info!("the index is made anew from all packs");
        shelf.miss();
    }
    Ok(Restored { snapshot: None, report })
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn restore_from(
    (shelf, sequence, length): (&Shelf, u128, u64),
    store: &dyn PackStore,
    index: &Index,
    environment: &dyn Environment,
    progress: &Progress,
) -> Result<(u64, RebuildReport), Unusable> {
    if length > MAX_MANIFEST {
        return Err(BadSnapshot::Manifest.into());
    }
    let manifest = Manifest::decode(&shelf.get(sequence, None, length)?)?;
    let gone = load((shelf, sequence), &manifest, store, index, progress)?;
    let replayed = replay_unseen(store, index, environment, progress)?;
    if let Some(other) = replayed.others.first() {
        return Err(Unusable::AnotherLibrary(*other));
    }
    if gone > 0 && !replayed.has_checkpoint {
        return Err(Unusable::AnotherLog(gone));
    }
    Ok((manifest.made, replayed.report))
}

/// Fills the empty index with what the snapshot says of packs that are still there. How many are
/// not, other than those that were about to be deleted.
fn load(
    (shelf, sequence): (&Shelf, u128),
    manifest: &Manifest,
    store: &dyn PackStore,
    index: &Index,
    progress: &Progress,
) -> Result<usize, Unusable> {
    let listed = store.list().map_err(|source| OpenError::Io { folder: "packs".into(), source });
    let listed: HashSet<PackId> = listed.map_err(MaintainError::from)?.into_iter().collect();
    let mut loading =
        Loading { store, index, listed, packs: BTreeMap::new(), gone: 0, batch: Batch::default() };
    let numbered: Vec<(usize, _)> = manifest.parts.iter().enumerate().collect();
    let read = |(number, part): &(usize, &super::format::PartInfo)| {
        let stored = shelf.get(sequence, Some(*number as u32), part.stored.into())?;
        part.open(&stored).ok_or(Unusable::Bad(BadSnapshot::Part(*number)))
    };
    in_order(&numbered, PARTS_AT_ONCE, read, |(number, _), plain| {
        progress.check().map_err(MaintainError::from)?;
        let bad = || Unusable::Bad(BadSnapshot::Part(*number));
        let taken = entries(&plain?, |table, key, value| {
            loading.take(table, key, value).ok_or_else(bad)?;
            if loading.batch.len() >= STEP { loading.write() } else { Ok(()) }
        });
        taken.ok_or_else(bad)??;
        // No more than a part is held in memory.
        loading.write()
    })?;
    let batch = &mut loading.batch;
    batch.put(Table::Meta, "library", manifest.library.to_le_bytes());
    put_number(batch, "format", INDEX_FORMAT);
    put_number(batch, "run", manifest.run.into());
    put_number(batch, "commit", manifest.commit);
    put_number(batch, "watermark/pack", manifest.watermark.0.into());
    put_number(batch, "watermark/offset", manifest.watermark.1);
    put_number(batch, UNSETTLED, manifest.unsettled.into());
    loading.write()?;
    Ok(loading.gone)
}

/// A snapshot that is being taken in.
struct Loading<'a> {
    store: &'a dyn PackStore,
    index: &'a Index,
    listed: HashSet<PackId>,
    /// Packs that are there, and how much of each counts.
    packs: BTreeMap<u32, u64>,
    gone: usize,
    batch: Batch,
}

impl Loading<'_> {
    /// Takes in an entry, if its pack is there; `None` if it is no entry.
    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<()> {
        match table {
            Table::Packs => {
                let seq = u32::from_be_bytes(key.try_into().ok()?);
                self.take_pack(seq, PackInfo::decode(value)?);
            }
            Table::Chunks => {
                let id = Digest::from_bytes(key.try_into().ok()?);
                let place = ChunkPlace::decode(value)?;
                self.take_place(table, id, (place.pack, place.offset, place.standing), value);
            }
            Table::Recipes => {
                let content = Digest::from_bytes(key.try_into().ok()?);
                let place = RecipePlace::decode(value)?;
                self.take_place(table, content, (place.pack, place.offset, place.standing), value);
            }
            Table::Aliases => {
                let is_name = matches!((key.first()?, key.len()), (b'2', 33) | (b'1', 21));
                if !is_name || value.len() != 32 {
                    return None;
                }
                self.batch.put(table, key, value);
            }
            Table::Refs => {
                std::str::from_utf8(key).ok().filter(|name| !name.is_empty())?;
                decode_ref(value)?;
                self.batch.put(table, key, value);
            }
            Table::Meta => return None,
        }
        Some(())
    }

    fn take_pack(&mut self, seq: u32, info: PackInfo) {
        // What is in the store of a pack never grows less.
        let is_there = self.listed.contains(&info.id)
            && self
                .store
                .open(info.id)
                .and_then(|file| file.len())
                .is_ok_and(|len| len >= info.len);
        if is_there {
            self.packs.insert(seq, info.len);
            self.batch.put(Table::Packs, seq.to_be_bytes(), info.encode());
        } else if info.state != PackState::Condemned && info.len > PACK_HEADER as u64 {
            self.gone += 1;
        }
    }

    fn take_place(
        &mut self,
        table: Table,
        digest: Digest,
        (pack, offset, standing): (u32, u32, Standing),
        value: &[u8],
    ) {
        if self.packs.get(&pack).is_none_or(|len| u64::from(offset) >= *len) {
            return;
        }
        self.batch.put(table, *digest.as_bytes(), value);
        if standing == Standing::Suspect {
            self.batch.put(Table::Meta, suspect_key(digest), []);
        }
    }

    fn write(&mut self) -> Result<(), Unusable> {
        Ok(self.index.kv.write(std::mem::take(&mut self.batch))?)
    }
}

/// Empties an index that was filled in vain.
fn clear(index: &Index) -> Result<(), KvError> {
    for table in Table::ALL {
        loop {
            let mut batch = Batch::default();
            index.kv.scan(table, &[], &mut |key, _| {
                batch.delete(table, key);
                if batch.len() < STEP { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if batch.is_empty() {
                break;
            }
            index.kv.write(batch)?;
        }
    }
    Ok(())
}
