//! Garbage collection: mark, condemn, purge, repack, unlink.
//!
//! * Mark: what refs reach is live, also what was condemned before: a commit may have revived it
//!   in index batches that a power cut then took. Marking runs beside ingest; a barrier notes what
//!   commits refer to meanwhile.
//! * Condemn: entries that are neither marked nor noted become invisible to deduplication. The
//!   same bytes coming in again are stored anew; a commit that relied on them revives them.
//! * Purge: after the grace, and when no lease of the condemning epoch or an older one is left that
//!   keeps them, condemned entries leave the index. A session begins in the epoch of the last run or a newer
//!   one; once a run has condemned, the epoch is raised again, so that sessions that begin later
//!   are known to have found none of what it condemned.
//! * Repack: packs that are mostly dead, torn, or many and small have their live records copied.
//! * Unlink: a pack that no entry points to is deleted, here and nowhere else.
//!
//! Epochs decide what is safe; the clock only adds delay. Before any pack is unlinked the refs
//! are checkpointed into a pack that stays, since the packs hold the log of ref changes too.

mod space;

use crate::commit::Relied;
use crate::digest::{ChunkId, Digest};
use crate::error::{MaintainError, ReadError};
use crate::index::{ChunkPlace, Form, RecipePlace, Standing, Value, put_number, suspect_key};
use crate::kv::{Batch, Table};
use crate::leases::Mark;
use crate::library::Library;
use crate::links::Links;
use crate::progress::Progress;
use roaring::RoaringTreemap;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Entries changed under one hold of the commit lock, so that commits wait milliseconds.
const STEP: usize = 2048;
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
    /// Stored bytes condemned and not yet freed, that no lease keeps.
    pub waiting_bytes: u64,
    /// When the last of those may be freed, in seconds since 1970.
    pub reclaimable_at: Option<u64>,
    /// Stored bytes that nothing refers to and a lease keeps: of work that is under way, or was imported.
    pub kept_bytes: u64,
    /// When the last lease with an end of its own that keeps any of those ends, in seconds since 1970.
    pub kept_until: Option<u64>,
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
        let result = self.collect(links, progress, &mut report);
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
        report.freed_bytes += self.drop_second_copies(progress)?;
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
            Some(Form::Recipe(place)) if marked.recipes.insert(place.ordinal()) => {
                // Of a damaged recipe, whatever names of chunks can still be read in it count: one
                // too many keeps a chunk for a while. Those that cannot are condemned, and whoever
                // heals the recipe revives or sends them.
                let chunks = match inner.recipe_at(content, place) {
                    Ok(recipe) => recipe.chunks().to_vec(),
                    Err(ReadError::Suspect { .. }) => inner.remains_of_recipe(&place),
                    Err(error) => return Err(error.into()),
                };
                for place in inner.index.chunks(&chunks)?.into_iter().flatten() {
                    marked.chunks.insert(place.ordinal());
                }
            }
            Some(Form::Chunk(place)) => {
                marked.chunks.insert(place.ordinal());
            }
            Some(Form::Recipe(_)) | None => {}
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
        let mut leader = inner.commits.leader.lock();
        let mut batch = Batch::default();
        let (mut n, mut damaged) = (0, Vec::new());
        for &digest in candidates {
            if leader.fresh.as_ref().is_some_and(|fresh| fresh.contains(&digest)) {
                continue;
            }
            // Looked up again under the lock: a commit may have replaced it.
            if kind == CHUNK {
                let Some(place) = inner.index.chunk(ChunkId(digest))? else { continue };
                if place.standing == Standing::Condemned || marked.chunks.contains(place.ordinal())
                {
                    continue;
                }
                if place.standing == Standing::Suspect {
                    damaged.push(digest);
                    batch.delete(Table::Chunks, *digest.as_bytes());
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
                if place.standing == Standing::Suspect {
                    damaged.push(digest);
                    batch.delete(Table::Recipes, *digest.as_bytes());
                    continue;
                }
                report.condemned_bytes += u64::from(place.body_len);
                let condemned = RecipePlace { standing: Standing::Condemned, ..place };
                batch.put(Table::Recipes, *digest.as_bytes(), condemned.encode());
            }
            batch.put(Table::Meta, condemned_key(kind, digest), epoch.to_le_bytes());
            n += 1;
        }
        // Damaged, and nobody refers to it: there is nothing that waiting could save, and once it is
        // condemned nothing would tell that it must not be copied.
        for digest in &damaged {
            batch.delete(Table::Meta, suspect_key(*digest));
        }
        report.condemned += n;
        report.purged += damaged.len() as u64;
        let total = inner.condemned.load(SeqCst) + n;
        put_number(&mut batch, "condemned", total);
        inner.index.kv.write(batch)?;
        inner.condemned.store(total, SeqCst);
        for digest in &damaged {
            leader.suspects.remove(digest);
        }
        if n > 0 || !damaged.is_empty() {
            inner.changed();
        }
        Ok(())
    }

    /// Removes entries whose grace is over and that no lease can revive.
    fn purge(&self, report: &mut GcReport, progress: &Progress) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let now = inner.environment.unix_ms();
        let leases = inner.leases.held(&inner.index, now)?;
        let grace = self.grace().as_millis() as u64;
        for (epoch, keys) in self.condemned_keys()? {
            let kept = leases.from(epoch);
            let at = inner.index.number(&format!("epoch/{epoch}"))?;
            if at + grace > now || kept == Some((0, 0)) {
                continue;
            }
            for step in keys.chunks(STEP) {
                progress.check()?;
                report.purged += self.purge_step(step, kept)?;
            }
            // What is kept still was condemned then.
            if kept.is_none() {
                let mut batch = Batch::default();
                batch.delete(Table::Meta, format!("epoch/{epoch}"));
                inner.index.kv.write(batch)?;
            }
        }
        // Counted anew: entries revived or stored again since were not.
        let left = self.condemned_keys()?.into_values().map(|keys| keys.len() as u64).sum();
        let mut batch = Batch::default();
        put_number(&mut batch, "condemned", left);
        inner.index.kv.write(batch)?;
        inner.condemned.store(left, SeqCst);
        Ok(())
    }

    /// Purges entries, but for those that lie at `kept` in the packs or after it.
    fn purge_step(&self, step: &[(u8, Digest)], kept: Option<Mark>) -> Result<u64, MaintainError> {
        let inner = &self.inner;
        let mut leader = inner.commits.leader.lock();
        let mut batch = Batch::default();
        let mut purged = 0;
        for &(kind, digest) in step {
            let found = if kind == CHUNK {
                let place = inner.index.chunk(ChunkId(digest))?;
                place.map(|place| (place.standing, (place.pack, place.offset)))
            } else {
                let place = inner.index.recipe(digest)?;
                place.map(|place| (place.standing, (place.pack, place.offset)))
            };
            let is_kept = |mark: Mark| kept.is_some_and(|from| mark >= from);
            if found
                .is_some_and(|(standing, mark)| standing == Standing::Condemned && is_kept(mark))
            {
                continue;
            }
            if found.is_some_and(|(standing, _)| standing == Standing::Condemned) {
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

    /// Tells of what is condemned and still there.
    fn waiting(&self, report: &mut GcReport) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let leases = inner.leases.look(inner.environment.unix_ms());
        for (epoch, keys) in self.condemned_keys()? {
            let at = inner.index.number(&format!("epoch/{epoch}"))?;
            let free_at = (at + self.grace().as_millis() as u64).div_ceil(1000);
            for (kind, digest) in keys {
                let Some((bytes, mark)) = self.condemned(kind, digest)? else { continue };
                match leases.keeps(epoch, mark) {
                    None => {
                        report.waiting_bytes += bytes;
                        report.reclaimable_at = report.reclaimable_at.max(Some(free_at));
                    }
                    Some(until) => {
                        report.kept_bytes += bytes;
                        let until = until.map(|ms| ms.div_ceil(1000));
                        report.kept_until = report.kept_until.max(until);
                    }
                }
            }
        }
        Ok(())
    }

    /// The stored bytes of a condemned entry and where it lies; nothing if it is not condemned any more.
    fn condemned(&self, kind: u8, digest: Digest) -> Result<Option<(u64, Mark)>, MaintainError> {
        let index = &self.inner.index;
        Ok(if kind == CHUNK {
            let place = index.chunk(ChunkId(digest))?;
            let place = place.filter(|place| place.standing == Standing::Condemned);
            place.map(|place| (stored_share(&place), (place.pack, place.offset)))
        } else {
            let place = index.recipe(digest)?;
            let place = place.filter(|place| place.standing == Standing::Condemned);
            place.map(|place| (place.body_len.into(), (place.pack, place.offset)))
        })
    }

    /// Of the condemned entries, how many a lease keeps.
    pub(crate) fn n_condemned_and_kept(&self) -> Result<u64, MaintainError> {
        let leases = self.inner.leases.look(self.inner.environment.unix_ms());
        let mut n = 0;
        for (epoch, keys) in self.condemned_keys()? {
            // Whatever its place is: no entry of this epoch is kept.
            if leases.from(epoch).is_none() {
                continue;
            }
            for (kind, digest) in keys {
                let found = self.condemned(kind, digest)?;
                n += u64::from(found.is_some_and(|(_, at)| leases.keeps(epoch, at).is_some()));
            }
        }
        Ok(n)
    }
}

fn stored_share(place: &ChunkPlace) -> u64 {
    // The block's plain length is not in the entry; an even share is close enough for a report.
    u64::from(place.body_len) / u64::from(place.n_chunks.max(1))
}
