//! Garbage collection: mark, condemn, purge, repack, unlink.
//!
//! * Mark: what refs reach is live, also what was condemned before: a commit may have revived it
//!   in index batches that a power cut then took. Marking runs beside ingest; a barrier notes what
//!   commits refer to meanwhile.
//! * Condemn: entries that are neither marked nor noted become invisible to deduplication. The
//!   same bytes coming in again are stored anew; a commit that relied on them revives them.
//! * Purge: after the grace, and when no lease of the condemning epoch or an older one is left,
//!   condemned entries leave the index. A session begins in the epoch of the last run or a newer
//!   one; once a run has condemned, the epoch is raised again, so that sessions that begin later
//!   are known to have found none of what it condemned.
//! * Repack: packs that are mostly dead, torn, or many and small have their live records copied.
//! * Unlink: a pack that no entry points to is deleted, here and nowhere else.
//!
//! Epochs decide what is safe; the clock only adds delay. Before any pack is unlinked the refs
//! are checkpointed into a pack that stays, since the packs hold the log of ref changes too.

use crate::commit::{Pending, Relied, suspect_key};
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::error::{MaintainError, ReadError};
use crate::index::{ChunkPlace, Form, PackInfo, PackState, RecipePlace, Standing, put_number};
use crate::kv::{Batch, Table};
use crate::library::Library;
use crate::links::{Holder, Links, Why, holders};
use crate::pack::format::{BadPack, PACK_HEADER};
use crate::pack::reader::{Found, RecordError, Said, Scan, pack_header};
use crate::pack::writer::Record;
use crate::progress::Progress;
use crate::{Frame, Recipe};
use bytes::Bytes;
use roaring::RoaringTreemap;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Entries changed under one hold of the commit lock, so that commits wait milliseconds.
const STEP: usize = 2048;
/// A pack with a smaller live part than this is repacked.
const REPACK_BELOW: f64 = 0.75;
/// The part of the store that one run may copy.
const REPACK_SHARE: u64 = 10;
/// This much may always be copied.
const REPACK_MIN: u64 = 1 << 30;
/// Packs smaller than an eighth of the target are merged when there are this many.
const SMALL_PACKS: usize = 8;
const CONDEMNED: &[u8] = b"condemned/";

/// What a run should do.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Only tell what a run would do.
    pub dry_run: bool,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GcReport {
    /// Entries that refs reach.
    pub live: u64,
    /// Entries condemned by this run.
    pub condemned: u64,
    /// Their stored bytes.
    pub condemned_bytes: u64,
    /// Entries that were condemned before and are gone now.
    pub purged: u64,
    /// Packs whose live records were copied.
    pub repacked: u64,
    /// Packs deleted.
    pub deleted_packs: u64,
    /// Bytes freed on the volume.
    pub freed_bytes: u64,
    /// Stored bytes condemned and not yet freed.
    pub waiting_bytes: u64,
    /// When the last of those may be freed, in seconds since 1970.
    pub reclaimable_at: Option<u64>,
}

/// Numbers about a library.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LibraryStats {
    /// Contents with a recipe, that is of more than one chunk.
    pub recipes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Plain bytes of all chunks.
    pub plain_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Entries condemned and not yet purged.
    pub condemned: u64,
    /// Chunks and recipes known to be damaged.
    pub suspects: u64,
    /// Free bytes of the volume, if known.
    pub free_bytes: Option<u64>,
}

struct Marked {
    chunks: RoaringTreemap,
    recipes: RoaringTreemap,
}

/// A condemned entry's kind, as its key in the meta table tells.
pub(crate) const CHUNK: u8 = b'c';
pub(crate) const RECIPE: u8 = b'r';

/// The key in the meta table whose value is the epoch that condemned an entry. One key an entry,
/// so that one revived and condemned again starts its grace anew.
pub(crate) fn condemned_key(kind: u8, digest: Digest) -> Vec<u8> {
    [CONDEMNED, &[kind], digest.as_bytes()].concat()
}

impl Library {
    /// Collects garbage. Safe beside everything else that a library does.
    pub fn gc(
        &self,
        options: &GcOptions,
        links: &dyn Links,
        progress: &Progress,
    ) -> Result<GcReport, MaintainError> {
        let inner = &self.inner;
        let _one = inner.maintenance.try_lock().ok_or(MaintainError::Busy)?;
        let mut report = GcReport::default();
        if options.dry_run {
            let marked = self.mark(links, progress)?;
            report.live = marked.chunks.len() + marked.recipes.len();
            self.unmarked(&marked, |place| {
                report.condemned += 1;
                report.condemned_bytes += place;
            })?;
            self.waiting(&mut report)?;
            return Ok(report);
        }
        inner.collecting.store(true, SeqCst);
        let result = self.collect(links, progress, &mut report);
        inner.collecting.store(false, SeqCst);
        inner.commits.leader.lock().fresh = None;
        result.map(|()| report)
    }

    fn collect(
        &self,
        links: &dyn Links,
        progress: &Progress,
        report: &mut GcReport,
    ) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let epoch = inner.index.number("epoch")? + 1;
        inner.commit(Vec::new(), Relied::default())?;
        {
            let mut leader = inner.commits.leader.lock();
            leader.fresh = Some(Default::default());
            let mut batch = Batch::default();
            put_number(&mut batch, "epoch", epoch);
            let at = inner.environment.unix_ms();
            put_number(&mut batch, &format!("epoch/{epoch}"), at);
            inner.index.kv.write(batch)?;
        }
        let marked = self.mark(links, progress)?;
        report.live = marked.chunks.len() + marked.recipes.len();
        self.revive_marked(&marked, progress)?;
        self.condemn(&marked, epoch, report, progress)?;
        {
            let mut leader = inner.commits.leader.lock();
            leader.fresh = None;
            let mut batch = Batch::default();
            put_number(&mut batch, "epoch", epoch + 1);
            if report.condemned == 0 {
                batch.delete(Table::Meta, format!("epoch/{epoch}"));
            }
            inner.index.kv.write(batch)?;
        }
        self.purge(report, progress)?;
        self.free_packs(report, progress)?;
        self.delete_strays(report)?;
        self.waiting(report)
    }

    /// Condemned entries that refs reach are live.
    fn revive_marked(&self, marked: &Marked, progress: &Progress) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let condemned = self.condemned_keys()?;
        let condemned: Vec<(u8, Digest)> = condemned.into_values().flatten().collect();
        for step in condemned.chunks(STEP) {
            progress.check()?;
            let _leader = inner.commits.leader.lock();
            let mut batch = Batch::default();
            for &(kind, digest) in step {
                if kind == CHUNK {
                    let Some(place) = inner.index.chunk(ChunkId(digest))? else { continue };
                    if place.standing != Standing::Condemned {
                        batch.delete(Table::Meta, condemned_key(kind, digest));
                    } else if marked.chunks.contains(place.ordinal()) {
                        let live = ChunkPlace { standing: Standing::Live, ..place };
                        batch.put(Table::Chunks, *digest.as_bytes(), live.encode());
                        batch.delete(Table::Meta, condemned_key(kind, digest));
                    }
                } else {
                    let Some(place) = inner.index.recipe(digest)? else { continue };
                    if place.standing != Standing::Condemned {
                        batch.delete(Table::Meta, condemned_key(kind, digest));
                    } else if marked.recipes.contains(place.ordinal()) {
                        let live = RecipePlace { standing: Standing::Live, ..place };
                        batch.put(Table::Recipes, *digest.as_bytes(), live.encode());
                        batch.delete(Table::Meta, condemned_key(kind, digest));
                    }
                }
            }
            inner.index.kv.write(batch)?;
        }
        Ok(())
    }

    /// All that refs reach.
    fn mark(&self, links: &dyn Links, progress: &Progress) -> Result<Marked, MaintainError> {
        let mut marked = Marked { chunks: RoaringTreemap::new(), recipes: RoaringTreemap::new() };
        for (name, to) in self.list_refs("")? {
            progress.check()?;
            let Some(root) = to.root else { continue };
            self.mark_content(root, &mut marked)?;
            let links = links.links(&name, &to, self);
            let links = links.map_err(|source| MaintainError::Links { name, source })?;
            for link in links {
                self.mark_content(link.digest, &mut marked)?;
            }
        }
        Ok(marked)
    }

    fn mark_content(&self, content: Digest, marked: &mut Marked) -> Result<(), MaintainError> {
        let inner = &self.inner;
        // Held both ways, a content keeps the one that is best to read; the other goes.
        match inner.index.form(content)? {
            Some(Form::Recipe(place)) => {
                if marked.recipes.insert(place.ordinal()) {
                    // A damaged recipe cannot say which chunks are live. They may be condemned, not
                    // lost: whoever heals the recipe revives or sends them.
                    match inner.recipe_at(content, place) {
                        Ok(recipe) => {
                            for place in inner.index.chunks(recipe.chunks())?.into_iter().flatten()
                            {
                                marked.chunks.insert(place.ordinal());
                            }
                        }
                        Err(ReadError::Suspect { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Some(Form::Chunk(place)) => {
                marked.chunks.insert(place.ordinal());
            }
            None => {}
        }
        Ok(())
    }

    /// Calls `visit` with the stored bytes of each entry that is live and not marked.
    fn unmarked(&self, marked: &Marked, mut visit: impl FnMut(u64)) -> Result<(), MaintainError> {
        self.inner.index.each_chunk(|_, place| {
            if place.standing != Standing::Condemned && !marked.chunks.contains(place.ordinal()) {
                visit(stored_share(&place));
            }
            ControlFlow::Continue(())
        })?;
        self.inner.index.each_recipe(|_, place| {
            if place.standing != Standing::Condemned && !marked.recipes.contains(place.ordinal()) {
                visit(place.body_len.into());
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn condemn(
        &self,
        marked: &Marked,
        epoch: u64,
        report: &mut GcReport,
        progress: &Progress,
    ) -> Result<(), MaintainError> {
        let mut from = Some(Digest::from_bytes([0; 32]));
        while let Some(start) = from.take() {
            progress.check()?;
            let mut candidates = Vec::new();
            self.inner.index.kv.scan(Table::Chunks, start.as_bytes(), &mut |key, value| {
                let id = key.try_into().map(Digest::from_bytes);
                if let (Ok(id), Some(place)) = (id, ChunkPlace::decode(value)) {
                    if candidates.len() == STEP {
                        from = Some(id);
                        return ControlFlow::Break(());
                    }
                    if place.standing != Standing::Condemned
                        && !marked.chunks.contains(place.ordinal())
                    {
                        candidates.push(id);
                    }
                }
                ControlFlow::Continue(())
            })?;
            self.condemn_step(CHUNK, &candidates, epoch, marked, report)?;
        }
        let mut candidates = Vec::new();
        self.inner.index.each_recipe(|content, place| {
            if place.standing != Standing::Condemned && !marked.recipes.contains(place.ordinal()) {
                candidates.push(content);
            }
            ControlFlow::Continue(())
        })?;
        for step in candidates.chunks(STEP) {
            progress.check()?;
            self.condemn_step(RECIPE, step, epoch, marked, report)?;
        }
        Ok(())
    }

    fn condemn_step(
        &self,
        kind: u8,
        candidates: &[Digest],
        epoch: u64,
        marked: &Marked,
        report: &mut GcReport,
    ) -> Result<(), MaintainError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let inner = &self.inner;
        let leader = inner.commits.leader.lock();
        let fresh = leader.fresh.as_ref();
        let mut batch = Batch::default();
        let mut n = 0;
        for &digest in candidates {
            if fresh.is_some_and(|fresh| fresh.contains(&digest)) {
                continue;
            }
            // Looked up again under the lock: a commit may have replaced it.
            if kind == CHUNK {
                let Some(place) = inner.index.chunk(ChunkId(digest))? else { continue };
                if place.standing == Standing::Condemned || marked.chunks.contains(place.ordinal())
                {
                    continue;
                }
                report.condemned_bytes += stored_share(&place);
                let condemned = ChunkPlace { standing: Standing::Condemned, ..place };
                batch.put(Table::Chunks, *digest.as_bytes(), condemned.encode());
            } else {
                let Some(place) = inner.index.recipe(digest)? else { continue };
                if place.standing == Standing::Condemned {
                    continue;
                }
                report.condemned_bytes += u64::from(place.body_len);
                let condemned = RecipePlace { standing: Standing::Condemned, ..place };
                batch.put(Table::Recipes, *digest.as_bytes(), condemned.encode());
            }
            batch.put(Table::Meta, condemned_key(kind, digest), epoch.to_le_bytes());
            n += 1;
        }
        report.condemned += n;
        let total = inner.condemned.load(SeqCst) + n;
        put_number(&mut batch, "condemned", total);
        inner.index.kv.write(batch)?;
        inner.condemned.store(total, SeqCst);
        if n > 0 {
            inner.changed();
        }
        Ok(())
    }

    /// Removes entries whose grace is over and that no lease can revive.
    fn purge(&self, report: &mut GcReport, progress: &Progress) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let now = inner.environment.unix_ms();
        let oldest_lease = inner.leases.oldest(&inner.index, now)?;
        let grace = self.grace().as_millis() as u64;
        let due = |epoch: u64| -> Result<bool, MaintainError> {
            let at = inner.index.number(&format!("epoch/{epoch}"))?;
            Ok(at + grace <= now && oldest_lease.is_none_or(|lease| lease > epoch))
        };
        for (epoch, keys) in self.condemned_keys()? {
            if !due(epoch)? {
                continue;
            }
            for step in keys.chunks(STEP) {
                progress.check()?;
                report.purged += self.purge_step(step)?;
            }
            let mut batch = Batch::default();
            batch.delete(Table::Meta, format!("epoch/{epoch}"));
            inner.index.kv.write(batch)?;
        }
        // Counted anew: entries revived or stored again since were not.
        let left = self.condemned_keys()?.into_values().map(|keys| keys.len() as u64).sum();
        let mut batch = Batch::default();
        put_number(&mut batch, "condemned", left);
        inner.index.kv.write(batch)?;
        inner.condemned.store(left, SeqCst);
        Ok(())
    }

    fn purge_step(&self, step: &[(u8, Digest)]) -> Result<u64, MaintainError> {
        let inner = &self.inner;
        let mut leader = inner.commits.leader.lock();
        let mut batch = Batch::default();
        let mut purged = 0;
        for &(kind, digest) in step {
            let standing = if kind == CHUNK {
                inner.index.chunk(ChunkId(digest))?.map(|place| place.standing)
            } else {
                inner.index.recipe(digest)?.map(|place| place.standing)
            };
            if standing == Some(Standing::Condemned) {
                let table = if kind == CHUNK { Table::Chunks } else { Table::Recipes };
                batch.delete(table, *digest.as_bytes());
                if leader.suspects.remove(&digest) {
                    batch.delete(Table::Meta, suspect_key(digest));
                }
                purged += 1;
            }
            batch.delete(Table::Meta, condemned_key(kind, digest));
        }
        inner.index.kv.write(batch)?;
        if purged > 0 {
            inner.changed();
        }
        Ok(purged)
    }

    /// Condemned entries by the epoch that condemned them.
    fn condemned_keys(&self) -> Result<BTreeMap<u64, Vec<(u8, Digest)>>, MaintainError> {
        let mut found: BTreeMap<u64, Vec<(u8, Digest)>> = BTreeMap::new();
        self.inner.index.kv.scan(Table::Meta, CONDEMNED, &mut |key, value| {
            let Some(rest) = key.strip_prefix(CONDEMNED) else { return ControlFlow::Break(()) };
            if let Some((kind, digest)) = rest.split_first()
                && let (Ok(epoch), Ok(digest)) = (value.try_into(), digest.try_into())
            {
                let entry = (*kind, Digest::from_bytes(digest));
                found.entry(u64::from_le_bytes(epoch)).or_default().push(entry);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// How long condemned entries stay. Never so short that a slow reader could lose its bytes.
    fn grace(&self) -> Duration {
        self.inner.options.gc_grace
    }

    fn waiting(&self, report: &mut GcReport) -> Result<(), MaintainError> {
        let inner = &self.inner;
        for (epoch, keys) in self.condemned_keys()? {
            for (kind, digest) in keys {
                let bytes = if kind == CHUNK {
                    let place = inner.index.chunk(ChunkId(digest))?;
                    place.filter(|p| p.standing == Standing::Condemned).map(|p| stored_share(&p))
                } else {
                    let place = inner.index.recipe(digest)?;
                    let place = place.filter(|p| p.standing == Standing::Condemned);
                    place.map(|p| p.body_len.into())
                };
                report.waiting_bytes += bytes.unwrap_or(0);
            }
            let at = inner.index.number(&format!("epoch/{epoch}"))?;
            let free_at = (at + self.grace().as_millis() as u64).div_ceil(1000);
            report.reclaimable_at = report.reclaimable_at.max(Some(free_at));
        }
        Ok(())
    }
}

fn stored_share(place: &ChunkPlace) -> u64 {
    // The block's plain length is not in the entry; an even share is close enough for a report.
    u64::from(place.body_len) / u64::from(place.n_chunks.max(1))
}

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
    fn free_packs(&self, report: &mut GcReport, progress: &Progress) -> Result<(), MaintainError> {
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
        let chosen: BTreeSet<u32> = chosen.into_iter().map(|(seq, _)| seq).collect();
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
        self.checkpoint(&empty)?;
        for (seq, info) in empty {
            progress.check()?;
            report.freed_bytes += self.unlink(seq, &info)?;
            report.deleted_packs += 1;
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

    /// Copies the live records of `packs` to the end of the log.
    fn repack(&self, packs: &BTreeSet<u32>, progress: &Progress) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let mut blocks: BTreeMap<(u32, u32), Vec<(ChunkId, ChunkPlace)>> = BTreeMap::new();
        inner.index.each_chunk(|id, place| {
            if packs.contains(&place.pack) && place.standing != Standing::Suspect {
                blocks.entry((place.pack, place.offset)).or_default().push((id, place));
            }
            ControlFlow::Continue(())
        })?;
        let mut recipes = Vec::new();
        inner.index.each_recipe(|content, place| {
            if packs.contains(&place.pack) && place.standing != Standing::Suspect {
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
            // Damaged: the chunks that still read right are copied one by one.
            Err(ReadError::Store { source, .. })
                if source.kind() == std::io::ErrorKind::InvalidData =>
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
        let (pack, offset) = inner.append(&mut writer, moved)?;
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
        let (pack, offset) = inner.append(&mut writer, moved)?;
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
    /// write, came before their header was whole.
    fn delete_strays(&self, report: &mut GcReport) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let fail = |pack| move |source| MaintainError::Store { pack, source };
        let listed = inner.store.list().map_err(fail(PackId(0)))?;
        // No commit is at work meanwhile: a pack is the writer's, or in the index, or a stray.
        let _leader = inner.commits.leader.lock();
        let writer = inner.writer.lock();
        let mut known: HashSet<PackId> =
            inner.index.packs()?.into_iter().map(|(_, info)| info.id).collect();
        known.extend(writer.current.iter().chain(&writer.full).map(|pack| pack.header.id));
        for id in listed.into_iter().filter(|id| !known.contains(id)) {
            let Ok(file) = inner.store.open(id) else { continue };
            let whole = !matches!(pack_header(&*file), Err(RecordError::Bad(BadPack::Header)));
            let mut records = Scan::new(&*file, PACK_HEADER as u64).map_err(fail(id))?;
            // With a commit in it, it is a pack whose header went bad, and for people to look at.
            let commit = |r: io::Result<Found>| r.is_ok_and(|r| matches!(r.said, Said::Log(_)));
            if whole || records.any(commit) {
                continue;
            }
            report.freed_bytes += file.len().map_err(fail(id))?;
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

    /// Numbers about the library. Walks the index.
    pub fn stats(&self) -> Result<LibraryStats, MaintainError> {
        let inner = &self.inner;
        let mut stats = LibraryStats::default();
        inner.index.each_chunk(|_, place| {
            stats.chunks += 1;
            stats.plain_bytes += u64::from(place.plain_len);
            ControlFlow::Continue(())
        })?;
        inner.index.each_recipe(|_, _| {
            stats.recipes += 1;
            ControlFlow::Continue(())
        })?;
        for (_, info) in inner.index.packs()? {
            stats.packs += 1;
            stats.stored_bytes += info.len;
        }
        stats.condemned = inner.condemned.load(SeqCst);
        stats.suspects = self.suspects()?.len() as u64;
        stats.free_bytes = inner.store.free_space().unwrap_or(None);
        Ok(stats)
    }

    /// Chunks and recipes known to be damaged and not yet healed.
    pub fn suspects(&self) -> Result<Vec<Digest>, MaintainError> {
        Ok(self.inner.index.suspects()?)
    }

    /// Who holds `digest`, a content or a chunk.
    pub fn why(&self, digest: Digest, links: &dyn Links) -> Result<Why, MaintainError> {
        let inner = &self.inner;
        let chunk = inner.index.chunk(ChunkId(digest))?;
        let recipe = inner.index.recipe(digest)?;
        let standing = recipe.map(|p| p.standing).or(chunk.map(|p| p.standing));
        let mut chunk_of = Vec::new();
        if chunk.is_some() {
            let mut all = Vec::new();
            inner.index.each_recipe(|content, place| {
                all.push((content, place));
                ControlFlow::Continue(())
            })?;
            for (content, place) in all {
                if let Ok(recipe) = inner.recipe_at(content, place)
                    && recipe.chunks().contains(&ChunkId(digest))
                {
                    chunk_of.push(content);
                }
            }
        }
        let mut wanted = chunk_of.clone();
        wanted.push(digest);
        let mut holders: Vec<Holder> =
            holders(self, &wanted, links)?.into_values().flatten().collect();
        holders.sort();
        holders.dedup();
        let state = match standing {
            None => "absent",
            Some(Standing::Live) => "live",
            Some(Standing::Condemned) => "condemned",
            Some(Standing::Suspect) => "suspect",
        };
        Ok(Why { digest, held: standing.is_some(), state, holders, chunk_of })
    }
}
