//! Freeing packs: what is live is copied out of those that are mostly dead, damaged, or many and
//! small; those that nothing points to are deleted.

use super::{GcReport, stored_share};
use crate::commit::{Pending, Relied};
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::error::{MaintainError, ReadError};
use crate::index::{ChunkPlace, PackInfo, PackState, RecipePlace, Standing};
use crate::kv::{Batch, Table};
use crate::library::Library;
use crate::pack::format::{BadPack, PACK_HEADER};
use crate::pack::reader::{Found, RecordError, Said, Scan, pack_header, refuse_newer};
use crate::pack::writer::Record;
use crate::progress::Progress;
use crate::store::PackStore;
use crate::{Frame, Recipe};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;

/// A pack with a smaller live part than this is repacked.
const REPACK_BELOW: f64 = 0.75;
/// The part of the store that one run may copy.
const REPACK_SHARE: u64 = 10;
/// This much may always be copied.
const REPACK_MIN: u64 = 1 << 30;
/// Packs smaller than an eighth of the target are merged when there are this many.
const SMALL_PACKS: usize = 8;

/// What of a pack is in use.
#[derive(Default)]
struct Usage {
    live_bytes: u64,
    entries: u64,
    /// Entries that are not known to be damaged.
    sound: u64,
}

impl Library {
    /// Deletes packs that nothing points to, after copying what is live out of those that are
    /// mostly dead.
    pub(super) fn free_packs(
        &self,
        report: &mut GcReport,
        progress: &Progress,
    ) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let packs: BTreeMap<u32, PackInfo> = inner.index.packs()?.into_iter().collect();
        let usage = self.usage()?;
        let unused = Usage::default();
        let closed = |info: &PackInfo| info.state != PackState::Open;
        let live = |seq: &u32| usage.get(seq).unwrap_or(&unused);

        let total: u64 = packs.values().map(|info| info.len).sum();
        let mut budget = (total / REPACK_SHARE).max(REPACK_MIN);
        let small = inner.options.pack_target / 8;
        let is_small = |info: &PackInfo| closed(info) && info.len < small;
        let many_small = packs.values().filter(|info| is_small(info)).count() >= SMALL_PACKS;
        let mut chosen: Vec<(u32, u64)> = packs
            .iter()
            .filter(|(seq, info)| {
                let share = live(seq).live_bytes as f64 / (info.len.max(1)) as f64;
                let wasteful = share < REPACK_BELOW || info.state == PackState::Torn;
                closed(info) && live(seq).entries > 0 && (wasteful || many_small && is_small(info))
            })
            .map(|(seq, _)| (*seq, live(seq).live_bytes))
            .collect();
        chosen.sort_by_key(|(_, bytes)| *bytes);
        chosen.retain(|(_, bytes)| {
            let fits = *bytes <= budget;
            budget = budget.saturating_sub(*bytes);
            fits
        });
        // Each from its beginning on.
        let chosen: BTreeMap<u32, u64> = chosen.into_iter().map(|(seq, _)| (seq, 0)).collect();
        self.refuse_newer(packs.iter().filter(|(seq, _)| chosen.contains_key(seq)))?;
        if !chosen.is_empty() {
            report.repacked = chosen.len() as u64;
            self.repack(&chosen, progress)?;
        }

        let usage = if chosen.is_empty() { usage } else { self.usage()? };
        // What a torn pack ends with may count only by a commit in a later pack.
        let sound = |seq: &u32| usage.get(seq).is_some_and(|u| u.sound > 0);
        let torn = packs.iter().find(|(seq, info)| info.state == PackState::Torn && sound(seq));
        let before = torn.map_or(u32::MAX, |(seq, _)| *seq);
        let empty: Vec<(u32, PackInfo)> = packs
            .into_iter()
            .filter(|(seq, info)| {
                let unused = usage.get(seq).is_none_or(|u| u.entries == 0);
                closed(info) && unused && *seq < before
            })
            .collect();
        if empty.is_empty() {
            return Ok(());
        }
        // Who copies packs away reads them yet: they go with the next run.
        let Some(_may_delete) = inner.pins.may_delete() else { return Ok(()) };
        self.refuse_newer(empty.iter().map(|(seq, info)| (seq, info)))?;
        self.checkpoint(&empty)?;
        for (seq, info) in empty {
            progress.check()?;
            report.freed_bytes += self.unlink(seq, &info)?;
            report.deleted_packs += 1;
        }
        Ok(())
    }

    /// Ends the run before a pack goes that a newer depot wrote.
    fn refuse_newer<'a>(
        &self,
        packs: impl Iterator<Item = (&'a u32, &'a PackInfo)>,
    ) -> Result<(), MaintainError> {
        // Of a pack that holds nothing, the header does not count either.
        for (_, info) in packs.filter(|(_, info)| info.len > PACK_HEADER as u64) {
            if let Ok(file) = self.inner.store.open(info.id) {
                refuse_newer(info.id, &*file)?;
            }
        }
        Ok(())
    }

    fn usage(&self) -> Result<HashMap<u32, Usage>, MaintainError> {
        let mut usage: HashMap<u32, Usage> = HashMap::new();
        self.inner.index.each_chunk(|_, place| {
            let pack = usage.entry(place.pack).or_default();
            pack.live_bytes += stored_share(&place);
            pack.entries += 1;
            pack.sound += u64::from(place.standing != Standing::Suspect);
            ControlFlow::Continue(())
        })?;
        self.inner.index.each_recipe(|_, place| {
            let pack = usage.entry(place.pack).or_default();
            pack.live_bytes += u64::from(place.body_len);
            pack.entries += 1;
            pack.sound += u64::from(place.standing != Standing::Suspect);
            ControlFlow::Continue(())
        })?;
        Ok(usage)
    }

    /// Copies the live records of `packs`, of each from an offset on, to the end of the log. For whoever
    /// holds the maintenance lock: what was marked as live is known by where it lay.
    pub(crate) fn repack(
        &self,
        packs: &BTreeMap<u32, u64>,
        progress: &Progress,
    ) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let is_moved = |pack: u32, offset: u32, standing: Standing| {
            packs.get(&pack).is_some_and(|from| u64::from(offset) >= *from)
                && standing != Standing::Suspect
        };
        let mut blocks: BTreeMap<(u32, u32), Vec<(ChunkId, ChunkPlace)>> = BTreeMap::new();
        inner.index.each_chunk(|id, place| {
            if is_moved(place.pack, place.offset, place.standing) {
                blocks.entry((place.pack, place.offset)).or_default().push((id, place));
            }
            ControlFlow::Continue(())
        })?;
        let mut recipes = Vec::new();
        inner.index.each_recipe(|content, place| {
            if is_moved(place.pack, place.offset, place.standing) {
                recipes.push((content, place));
            }
            ControlFlow::Continue(())
        })?;
        for (_, mut chunks) in blocks {
            progress.check()?;
            chunks.sort_by_key(|(_, place)| place.at);
            self.move_block(&chunks)?;
            inner.commit_if_much()?;
        }
        for (content, from) in recipes {
            progress.check()?;
            match inner.recipe_at(content, from) {
                Ok(recipe) => self.move_recipe(content, from, &recipe)?,
                Err(ReadError::Suspect { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            inner.commit_if_much()?;
        }
        Ok(inner.commit(Vec::new(), Relied::default())?)
    }

    /// Copies one block, as it is if all its chunks are live.
    fn move_block(&self, chunks: &[(ChunkId, ChunkPlace)]) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let (_, first) = chunks.first().expect("a block is listed with a chunk");
        let whole = chunks.len() == usize::from(first.n_chunks);
        let frame = match inner.block_at(first) {
            Ok(frame) => Some(frame),
            // Damaged or gone: the chunks that still read right are copied one by one.
            Err(ReadError::Store { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::NotFound
                ) =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        let intact = |frame: &Frame| {
            let found = frame.chunks().ok()?;
            found.iter().map(|(id, _)| id).eq(chunks.iter().map(|(id, _)| id)).then_some(())
        };
        if whole
            && let Some(frame) = &frame
            && intact(frame).is_some()
        {
            return self.append_moved(frame, chunks);
        }
        let mut kept = Vec::new();
        let mut plain: Vec<Bytes> = Vec::new();
        for (id, place) in chunks {
            match inner.chunk_at(*id, place, id.0) {
                Ok(bytes) => {
                    kept.push((*id, *place));
                    plain.push(bytes);
                }
                Err(ReadError::Suspect { .. } | ReadError::MissingChunk { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let packed = first.codec == crate::block::Codec::Zstd;
        self.append_moved(&Frame::pack(&plain, packed), &kept)
    }

    fn append_moved(
        &self,
        frame: &Frame,
        chunks: &[(ChunkId, ChunkPlace)],
    ) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        let view = frame.view();
        let moved = Record::block(&view, &ids);
        let body_len = moved.header().body_len;
        let mut writer = inner.writer.lock();
        let (pack, offset) = inner.append_moved(&mut writer, moved)?;
        let mut plain_offset = 0;
        for (at, ((id, from), &plain_len)) in chunks.iter().zip(frame.lens()).enumerate() {
            let to = ChunkPlace {
                pack,
                offset,
                body_len,
                n_chunks: chunks.len() as u16,
                at: at as u16,
                plain_offset,
                plain_len,
                codec: frame.codec(),
                standing: from.standing,
            };
            plain_offset += plain_len;
            writer.pending.push(Pending::MovedChunk { id: *id, from: *from, to });
        }
        writer.pending_chunks += chunks.len();
        Ok(())
    }

    fn move_recipe(
        &self,
        content: Digest,
        from: RecipePlace,
        recipe: &Recipe,
    ) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let moved = Record::recipe(content, recipe);
        let body_len = moved.header().body_len;
        let mut writer = inner.writer.lock();
        let (pack, offset) = inner.append_moved(&mut writer, moved)?;
        let to = RecipePlace {
            standing: from.standing,
            ..RecipePlace::new(pack, offset, body_len, recipe)
        };
        writer.pending.push(Pending::MovedRecipe { content, from, to });
        writer.pending_chunks += recipe.len();
        Ok(())
    }

    /// Aliases have no entry that tells their pack, so all of live contents are written again
    /// whenever packs go; those of contents that are gone go with them.
    fn move_aliases(&self) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let mut live: BTreeMap<Digest, Vec<Name>> = BTreeMap::new();
        let mut all = Vec::new();
        inner.index.kv.scan(Table::Aliases, &[], &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        let mut dead = Batch::default();
        for (key, value) in all {
            let Ok(content) = value.as_slice().try_into().map(Digest::from_bytes) else { continue };
            let held = inner.index.recipe(content)?.is_some()
                || inner.index.chunk(ChunkId(content))?.is_some()
                || content == Digest::EMPTY;
            match (held, key.split_first()) {
                (true, Some((b'2', hash))) => {
                    let name = hash.try_into().map(Name::Sha256);
                    live.entry(content).or_default().extend(name.ok());
                }
                (true, Some((b'1', hash))) => {
                    let name = hash.try_into().map(Name::Sha1);
                    live.entry(content).or_default().extend(name.ok());
                }
                _ => dead.delete(Table::Aliases, key),
            }
        }
        inner.index.kv.write(dead)?;
        for (content, names) in live {
            let mut writer = inner.writer.lock();
            inner.append(&mut writer, Record::alias(content, &names))?;
            writer.pending.push(Pending::Alias { content, names });
        }
        Ok(())
    }

    /// Writes all refs and aliases as they are, so that `packs`, which hold their history, may go.
    pub(crate) fn checkpoint(&self, packs: &[(u32, PackInfo)]) -> Result<(), MaintainError> {
        let inner = &self.inner;
        self.move_aliases()?;
        {
            let _leader = inner.commits.leader.lock();
            let mut writer = inner.writer.lock();
            for record in inner.checkpoint_records()? {
                if let Err(error) = inner.append(&mut writer, record) {
                    let mut batch = Batch::default();
                    inner.unsettle(&mut writer, &mut batch);
                    inner.index.kv.write(batch)?;
                    return Err(error.into());
                }
            }
            // So that the next commit has something to make durable.
            writer.pending.push(Pending::Alias { content: Digest::EMPTY, names: Vec::new() });
        }
        inner.commit(Vec::new(), Relied::default())?;
        // Before the files, and durable: an index that comes back from a power cut must not name
        // packs that are gone. One that is condemned and still there is deleted by the next run.
        let mut batch = Batch::default();
        for (seq, info) in packs {
            let gone = PackInfo { state: PackState::Condemned, ..info.clone() };
            batch.put(Table::Packs, seq.to_be_bytes(), gone.encode());
        }
        inner.index.kv.write(batch)?;
        Ok(inner.index.kv.flush()?)
    }

    /// Deletes packs that hold nothing and that the index does not know: a crash, or a failed
    /// write, came before their header was whole or their first record was begun.
    pub(super) fn delete_strays(&self, report: &mut GcReport) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let fail = |pack| move |source| MaintainError::Store { pack, source };
        let listed = inner.store.list().map_err(fail(PackId(0)))?;
        let strays: Vec<PackId> = {
            // No commit is at work meanwhile: a pack is the writer's, or in the index, or a stray.
            let _leader = inner.commits.leader.lock();
            let writer = inner.writer.lock();
            let mut known: HashSet<PackId> =
                inner.index.packs()?.into_iter().map(|(_, info)| info.id).collect();
            known.extend(writer.current.iter().chain(&writer.full).map(|pack| pack.header.id));
            listed.into_iter().filter(|id| !known.contains(id)).collect()
        };
        // Names are never used again: what is a stray stays one.
        for id in strays {
            let Ok(file) = inner.store.open(id) else { continue };
            if refuse_newer(id, &*file).is_err() {
                continue;
            }
            let headed = !matches!(pack_header(&*file), Err(RecordError::Bad(BadPack::Header)));
            let len = file.len().map_err(fail(id))?;
            let mut records = Scan::new(&*file, PACK_HEADER as u64).map_err(fail(id))?;
            // With a commit in it, it is a pack whose header went bad, and for people to look at.
            let commit = |r: io::Result<Found>| r.is_ok_and(|r| matches!(r.said, Said::Log(_)));
            if headed && len > PACK_HEADER as u64 || records.any(commit) {
                continue;
            }
            report.freed_bytes += len;
            report.deleted_packs += 1;
            inner.store.delete(id).map_err(fail(id))?;
        }
        Ok(())
    }

    /// The one place that deletes packs that were in use.
    fn unlink(&self, seq: u32, info: &PackInfo) -> Result<u64, MaintainError> {
        let inner = &self.inner;
        let mut batch = Batch::default();
        batch.delete(Table::Packs, seq.to_be_bytes());
        let fail = |source| MaintainError::Store { pack: info.id, source };
        let bytes = inner.store.open(info.id).and_then(|file| file.len()).unwrap_or(info.len);
        inner.store.delete(info.id).map_err(fail)?;
        inner.packs.forget(seq);
        inner.index.kv.write(batch)?;
        Ok(bytes.max(PACK_HEADER as u64))
    }
}
