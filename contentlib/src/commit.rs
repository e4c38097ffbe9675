//! Writing and committing: one writer, group commit, one order of steps that a crash relies on.
//!
//! 1. Records are appended to the open pack; nothing can find them yet.
//! 2. A commit appends a record with the ref changes. All records before it in its run are
//!    covered by it.
//! 3. Full packs are sealed, and all packs synced.
//! 4. One index batch names the new places, the refs, and how far the packs were read.
//! 5. The callers are told.
//!
//! Always true: the index never points past synced bytes. A pack whose write or sync failed is
//! never written to again: a failed sync says nothing about what is on the disk, and a second one
//! would lie. Commits of many callers that come while one is at work become one.
//!
//! The record of a commit that failed at step 2 or 3 may be on the disk all the same, and a crash
//! right then brings it to light, whole. The next commit begins with a checkpoint of the refs as
//! they are, so from then on it counts for nothing, whoever reads the packs.

use crate::claims::Claim;
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::error::{AddError, CommitError, ReadError};
use crate::gc::{CHUNK, RECIPE, condemned_key};
use crate::index::{
    ChunkPlace, Form, Index, PackInfo, PackState, RecipePlace, Standing, alias_key, put_number,
};
use crate::kv::{Batch, KvError, Table};
use crate::library::Inner;
use crate::pack::format::{Kind, PackHeader};
use crate::pack::writer::{PackWriter, Record};
use crate::refs::{
    Expect, MAX_REF_NAME, MAX_REF_VALUE, Outcomes, Ref, RefChange, decode_ref, encode_outcomes,
    encode_ref,
};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::mem::take;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// A pack is sealed before it would grow past this, whatever its target: offsets are 32 bits.
const MAX_PACK: u64 = 512 << 20;
/// Bytes appended between two looks at the volume's free space.
const SPACE_CHECK: u64 = 16 << 20;
/// The most bytes of refs that one commit changes, and about the longest commit record.
const MAX_COMMIT: usize = 32 << 20;
/// Set in the meta table while a failed commit is not overruled.
pub(crate) const UNSETTLED: &str = "unsettled";
/// Chunks that wait for a commit before one is made without being asked for.
pub(crate) const MUCH: usize = 1 << 16;

/// A record that is in a pack and not yet in the index.
pub(crate) enum Pending {
    Chunks(Vec<(ChunkId, ChunkPlace)>),
    Recipe {
        content: Digest,
        place: RecipePlace,
        chunks: Arc<[ChunkId]>,
    },
    Alias {
        content: Digest,
        names: Vec<Name>,
    },
    /// A chunk that garbage collection copied; it counts only if nobody moved it meanwhile.
    MovedChunk {
        id: ChunkId,
        from: ChunkPlace,
        to: ChunkPlace,
    },
    MovedRecipe {
        content: Digest,
        from: RecipePlace,
        to: RecipePlace,
    },
}

impl Pending {
    fn pack(&self) -> Option<u32> {
        match self {
            Pending::Chunks(chunks) => chunks.first().map(|(_, place)| place.pack),
            Pending::Recipe { place, .. } => Some(place.pack),
            Pending::Alias { .. } => None,
            Pending::MovedChunk { to, .. } => Some(to.pack),
            Pending::MovedRecipe { to, .. } => Some(to.pack),
        }
    }
}

/// The end of the log: the open pack, full ones that wait for their seal, and what of them is not
/// yet in the index.
pub(crate) struct Writer {
    pub current: Option<PackWriter>,
    pub full: Vec<PackWriter>,
    pub pending: Vec<Pending>,
    /// Chunks in `pending`, to bound its memory.
    pub pending_chunks: usize,
    pub next_pack: u32,
    pub run: u32,
    unchecked: u64,
    /// Counts failed syncs. What was appended before one and not committed is lost.
    pub losses: u64,
    /// A commit failed whose record may be on the disk; the next must overrule it.
    pub unsettled: bool,
}

impl Writer {
    pub(crate) fn new(next_pack: u32, run: u32, unsettled: bool) -> Self {
        Self {
            current: None,
            full: Vec::new(),
            pending: Vec::new(),
            pending_chunks: 0,
            next_pack,
            run,
            unchecked: SPACE_CHECK,
            losses: 0,
            unsettled,
        }
    }
}

/// What a commit is asked for, and where its answer goes.
struct Request {
    changes: Vec<RefChange>,
    relied: Relied,
    answer: Answer,
}

type Answer = Arc<Mutex<Option<Result<(), CommitError>>>>;

/// What the caller of a commit counts on.
#[derive(Default)]
pub(crate) struct Relied {
    /// Contents and chunks that it found held and live: its lease keeps them.
    pub digests: Vec<Digest>,
    /// Those that it found condemned, perhaps before its lease began: they may be gone by now.
    pub condemned: Vec<Digest>,
    /// The failed syncs that it knows of: more of them mean that some of what it added is lost.
    pub losses: Option<u64>,
}

/// Commits that wait, and what they must tell garbage collection.
#[derive(Default)]
pub(crate) struct Commits {
    queue: Mutex<Vec<Request>>,
    /// Held by whoever changes what the index says is live: commits, and condemning.
    pub leader: Mutex<Leader>,
}

#[derive(Default)]
pub(crate) struct Leader {
    /// While garbage collection marks: what became referenced since it began.
    pub fresh: Option<HashSet<Digest>>,
    /// What is noted as damaged. Few, and kept here so that a commit need not delete the note of
    /// every chunk it adds.
    pub suspects: HashSet<Digest>,
}

impl Commits {
    pub(crate) fn load(index: &Index) -> Result<Self, KvError> {
        Ok(Self { queue: Mutex::default(), leader: Mutex::new(Leader::load(index)?) })
    }
}

impl Leader {
    pub(crate) fn load(index: &Index) -> Result<Self, KvError> {
        Ok(Self { fresh: None, suspects: index.suspects()?.into_iter().collect() })
    }
}

impl Inner {
    /// Appends a record to the open pack. Returns the pack's number and the record's offset.
    pub(crate) fn append(
        &self,
        writer: &mut Writer,
        record: Record<'_>,
    ) -> Result<(u32, u32), AddError> {
        let length = record.header().record_len();
        writer.unchecked += length;
        // So often that what is written between two checks leaves most of the reserve. That is for
        // what frees space, too: deleting is a commit of ref changes, which is always let in.
        let is_content = matches!(record.header().kind, Kind::Block | Kind::Recipe);
        if is_content && writer.unchecked >= SPACE_CHECK.min(self.options.reserve / 4) {
            self.check_space()?;
            writer.unchecked = 0;
        }
        let limit = self.options.pack_target.min(MAX_PACK);
        if let Some(pack) = &writer.current
            && (pack.is_broken() || (pack.len() + length > limit && pack.len() > 4096))
        {
            writer.full.extend(writer.current.take());
        }
        if writer.current.is_none() {
            let header = PackHeader {
                id: PackId::mint(self.environment.unix_ms(), self.environment.random()),
                library: self.library,
                seq: writer.next_pack,
                run: writer.run,
            };
            // Counted even if the next line fails: a header may be on the disk all the same, and
            // two packs of one number would be mistaken for each other.
            writer.next_pack += 1;
            let id = header.id;
            let created = PackWriter::create(&*self.store, header);
            let pack = created.map_err(|error| {
                // If this fails too, garbage collection finds the pack.
                let _ = self.store.delete(id);
                AddError::Store(error)
            })?;
            self.packs.minted(pack.header.seq, id);
            writer.current = Some(pack);
        }
        let pack = writer.current.as_mut().expect("opened above");
        let offset = pack.append(record).map_err(AddError::Store)?;
        Ok((pack.header.seq, offset))
    }

    /// Refuses new bytes when the volume's reserve is reached: garbage collection needs room to
    /// free room.
    fn check_space(&self) -> Result<(), AddError> {
        let reserve = self.options.reserve;
        let free = self.store.free_space().map_err(AddError::Store)?;
        match free {
            Some(free) if free < reserve && !self.collecting.load(Relaxed) => {
                Err(AddError::Full { free, reserve })
            }
            _ => Ok(()),
        }
    }

    /// Makes all that was appended so far durable, together with `changes`. What the caller
    /// `relied` on is live afterwards, or the commit fails.
    pub(crate) fn commit(
        &self,
        changes: Vec<RefChange>,
        relied: Relied,
    ) -> Result<(), CommitError> {
        if changes.iter().map(length).sum::<usize>() > MAX_COMMIT {
            let error = "one commit changes refs of more than 32 MiB";
            return Err(CommitError::Store(io::Error::new(io::ErrorKind::InvalidInput, error)));
        }
        let answer = Arc::new(Mutex::new(None));
        self.commits.queue.lock().push(Request { changes, relied, answer: answer.clone() });
        let mut leader = self.commits.leader.lock();
        if let Some(done) = answer.lock().take() {
            return done;
        }
        let requests = std::mem::take(&mut *self.commits.queue.lock());
        self.commit_all(requests, &mut leader);
        answer.lock().take().expect("the leader answers all it took")
    }

    fn commit_all(&self, requests: Vec<Request>, leader: &mut Leader) {
        let mut outcomes = Outcomes::new();
        let mut revived = Batch::default();
        let mut accepted = Vec::new();
        let mut size = 0;
        for request in requests {
            let checked = self
                .revive(&request, &mut revived, leader)
                .and_then(|()| self.accept(&request.changes, &mut outcomes));
            match checked {
                Ok(()) => accepted.push(request.answer),
                Err(error) => *request.answer.lock() = Some(Err(error)),
            }
            size += request.changes.iter().map(length).sum::<usize>();
            if size > MAX_COMMIT {
                size = 0;
                let (outcomes, revived) = (take(&mut outcomes), take(&mut revived));
                self.write_group(outcomes, revived, take(&mut accepted), leader);
            }
        }
        self.write_group(outcomes, revived, accepted, leader);
    }

    fn write_group(
        &self,
        outcomes: Outcomes,
        revived: Batch,
        accepted: Vec<Answer>,
        leader: &mut Leader,
    ) {
        let result = self.write_commit(outcomes, revived, leader);
        for answer in accepted {
            *answer.lock() = Some(result.clone().map_err(CommitError::from));
        }
    }

    /// What a caller relied on may have been condemned since it looked. Condemned is not yet
    /// purged, since the caller's lease is older; so it is made live again.
    fn revive(
        &self,
        request: &Request,
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<(), CommitError> {
        // Only leaders lose, and this is one: from here on nothing more is lost.
        if request.relied.losses.is_some_and(|losses| self.writer.lock().losses != losses) {
            return Err(CommitError::Interrupted);
        }
        let roots = request.changes.iter().filter_map(|change| change.outcome()?.root);
        let mut relied = request.relied.condemned.clone();
        if self.condemned.load(SeqCst) > 0 || leader.fresh.is_some() {
            relied.extend(request.relied.digests.iter().copied().chain(roots));
        }
        if relied.is_empty() {
            return Ok(());
        }
        let pending = self.pending_recipes();
        // All or nothing: a recipe is not made live if a chunk of it is gone.
        let mut own = Batch::default();
        for digest in relied {
            match self.revive_one(digest, &pending, &mut own, leader) {
                Ok(true) => {}
                Ok(false) => return Err(CommitError::Interrupted),
                Err(ReadError::Index(error)) => return Err(error.into()),
                Err(_) => return Err(CommitError::Interrupted),
            }
        }
        batch.changes.append(&mut own.changes);
        Ok(())
    }

    fn revive_one(
        &self,
        digest: Digest,
        pending: &HashSet<Digest>,
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<bool, ReadError> {
        // Either way of holding it will do; the best is the one that lasts.
        let is_recipe = matches!(self.index.form(digest)?, Some(Form::Recipe(_)));
        let is_chunk = !is_recipe && self.revive_chunk(ChunkId(digest), batch, leader)?;
        if digest == Digest::EMPTY || is_chunk {
            return Ok(true);
        }
        let Some(place) = self.index.recipe(digest)? else {
            return Ok(pending.contains(&digest));
        };
        if let Some(fresh) = &mut leader.fresh {
            fresh.insert(digest);
        }
        if place.standing == Standing::Condemned {
            let live = RecipePlace { standing: Standing::Live, ..place };
            batch.put(Table::Recipes, *digest.as_bytes(), live.encode());
            batch.delete(Table::Meta, condemned_key(RECIPE, digest));
        }
        for chunk in self.recipe_at(digest, place)?.chunks() {
            if !self.revive_chunk(*chunk, batch, leader)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a chunk is held; live again if it was condemned.
    fn revive_chunk(
        &self,
        id: ChunkId,
        batch: &mut Batch,
        leader: &mut Leader,
    ) -> Result<bool, KvError> {
        let place = self.index.chunk(id)?;
        // A claim that is only taken may come to nothing; an appended chunk is in this commit.
        if place.is_none() && !matches!(self.claims.get(id), Some(Claim::Appended(_))) {
            return Ok(false);
        }
        if let Some(fresh) = &mut leader.fresh {
            fresh.insert(id.0);
        }
        if let Some(place) = place
            && place.standing == Standing::Condemned
        {
            let live = ChunkPlace { standing: Standing::Live, ..place };
            batch.put(Table::Chunks, *id.0.as_bytes(), live.encode());
            batch.delete(Table::Meta, condemned_key(CHUNK, id.0));
        }
        Ok(true)
    }

    /// Checks one caller's changes against the refs, and those accepted before it.
    fn accept(&self, changes: &[RefChange], outcomes: &mut Outcomes) -> Result<(), CommitError> {
        let mut own = Outcomes::new();
        for change in changes {
            let name = change.name();
            let too_long = change.outcome().is_some_and(|to| to.value.len() > MAX_REF_VALUE);
            let bad_name = name.is_empty() || name.len() > MAX_REF_NAME;
            if bad_name || too_long || own.contains_key(name) {
                return Err(CommitError::BadRef { name: name.into() });
            }
            let now = match outcomes.get(name) {
                Some(outcome) => outcome.clone(),
                None => self.index.reference(name)?,
            };
            let as_expected = match change.expect() {
                Expect::Any => true,
                Expect::Absent => now.is_none(),
                Expect::Is(want) => now.as_ref() == Some(want),
            };
            if !as_expected {
                return Err(CommitError::Conflict { name: name.into() });
            }
            if let Some(Ref { root: Some(root), .. }) = change.outcome()
                && !self.holds(*root)?
            {
                return Err(CommitError::MissingRoot(*root));
            }
            own.insert(name.into(), change.outcome().cloned());
        }
        outcomes.append(&mut own);
        Ok(())
    }

    /// The contents whose recipes are in a pack and not yet in the index.
    pub(crate) fn pending_recipes(&self) -> HashSet<Digest> {
        let writer = self.writer.lock();
        let content = |pending: &Pending| match pending {
            Pending::Recipe { content, .. } => Some(*content),
            _ => None,
        };
        writer.pending.iter().filter_map(content).collect()
    }

    /// Whether a content is in the index or about to be.
    fn holds(&self, content: Digest) -> Result<bool, KvError> {
        if content == Digest::EMPTY
            || self.index.recipe(content)?.is_some()
            || self.index.chunk(ChunkId(content))?.is_some()
            || matches!(self.claims.get(ChunkId(content)), Some(Claim::Appended(_)))
        {
            return Ok(true);
        }
        let writer = self.writer.lock();
        let is_it = |p: &Pending| matches!(p, Pending::Recipe { content: c, .. } if *c == content);
        Ok(writer.pending.iter().any(is_it))
    }

    fn write_commit(
        &self,
        outcomes: Outcomes,
        revived: Batch,
        leader: &mut Leader,
    ) -> Result<(), Failure> {
        // Step 2, under the writer's lock: everything appended so far, and nothing later, is
        // before the commit record.
        let (pending, mut full, last, losses) = {
            let mut writer = self.writer.lock();
            // Packs that a failed write ended wait for a commit even if nothing of them counts.
            let nothing = writer.pending.is_empty() && writer.full.is_empty();
            if nothing && outcomes.is_empty() && !writer.unsettled {
                return Ok(self.index.kv.write(revived)?);
            }
            let mut records = Vec::new();
            if writer.unsettled {
                records = self.checkpoint_records()?;
            }
            let seq = self.next_commit.fetch_add(1, SeqCst);
            records.push(Record::log(Kind::Commit, seq, encode_outcomes(&outcomes)));
            for record in records {
                if let Err(error) = self.append(&mut writer, record) {
                    let mut batch = Batch::default();
                    self.unsettle(&mut writer, &mut batch);
                    self.index.kv.write(batch)?;
                    return Err(Failure::of_add(error));
                }
            }
            let pack = writer.current.as_ref().expect("just appended to");
            let last = (pack.header.clone(), pack.file.clone(), pack.len());
            writer.pending_chunks = 0;
            let pending = std::mem::take(&mut writer.pending);
            (pending, std::mem::take(&mut writer.full), last, writer.losses)
        };

        // Step 3.
        let mut packs = Vec::new();
        let mut synced = Ok(());
        for pack in &mut full {
            // A full pack ends with a commit of its own. It changes no refs; it is there so that
            // the pack's records need no other pack to count, which might be deleted before it.
            // It tells no lie: the packs before it are synced.
            let seq = self.next_commit.fetch_add(1, SeqCst);
            let end = Record::log(Kind::Commit, seq, encode_outcomes(&Outcomes::new()));
            let torn =
                pack.is_broken() || pack.append(end).and_then(|_| pack.write_footer()).is_err();
            synced = pack.file.sync();
            if synced.is_err() {
                break;
            }
            let state = if torn { PackState::Torn } else { PackState::Sealed };
            packs.push((pack.header.seq, PackInfo { id: pack.header.id, state, len: pack.len() }));
        }
        let (header, file, end) = last;
        if synced.is_ok() {
            synced = file.sync();
        }
        if let Err(error) = synced {
            self.poison(full, pending);
            return Err(Failure::Store(Arc::new(error)));
        }
        {
            let writer = &mut *self.writer.lock();
            if writer.losses != losses {
                // Cannot be: only a leader loses, and there is one.
                return Err(Failure::Interrupted);
            }
            writer.unsettled = false;
            for pack in writer.current.iter_mut().chain(&mut writer.full) {
                if pack.header.seq == header.seq {
                    pack.published = end;
                }
            }
        }
        packs.push((header.seq, PackInfo { id: header.id, state: PackState::Open, len: end }));

        // Step 4.
        let mut batch = revived;
        for (seq, info) in &packs {
            batch.put(Table::Packs, seq.to_be_bytes(), info.encode());
        }
        put_number(&mut batch, "watermark/pack", header.seq.into());
        put_number(&mut batch, "watermark/offset", end);
        put_number(&mut batch, "commit", self.next_commit.load(SeqCst));
        put_number(&mut batch, "run", header.run.into());
        put_number(&mut batch, UNSETTLED, 0);
        index_pending(&self.index, &mut batch, &pending, leader)?;
        index_refs(&mut batch, &outcomes);
        if let Some(fresh) = &mut leader.fresh {
            fresh.extend(outcomes.values().flatten().filter_map(|to| to.root));
        }
        self.index.kv.write(batch)?;
        packs.iter().for_each(|(seq, _)| self.packs.indexed(*seq));

        // Only now may others stop relying on the claims.
        for pending in &pending {
            if let Pending::Chunks(chunks) = pending {
                chunks.iter().for_each(|(id, _)| self.claims.end(*id));
            }
        }
        self.revoked.write().apply(&outcomes);
        Ok(())
    }

    /// A sync failed: what it was for, and all else that is appended and not committed, is lost.
    fn poison(&self, full: Vec<PackWriter>, pending: Vec<Pending>) {
        let mut writer = self.writer.lock();
        let mut batch = Batch::default();
        let mut broken = full;
        broken.append(&mut writer.full);
        broken.extend(writer.current.take());
        for pack in &mut broken {
            pack.break_off();
            let info = PackInfo { id: pack.header.id, state: PackState::Torn, len: pack.published };
            batch.put(Table::Packs, pack.header.seq.to_be_bytes(), info.encode());
        }
        let later = std::mem::take(&mut writer.pending);
        writer.pending_chunks = 0;
        for lost in pending.iter().chain(&later) {
            debug_assert!(lost.pack().is_none_or(|p| broken.iter().any(|b| b.header.seq == p)));
            if let Pending::Chunks(chunks) = lost {
                chunks.iter().for_each(|(id, _)| self.claims.end(*id));
            }
        }
        writer.losses += 1;
        // A new run: no later commit record covers what was lost.
        writer.run += 1;
        put_number(&mut batch, "run", writer.run.into());
        self.unsettle(&mut writer, &mut batch);
        if let Err(error) = self.index.kv.write(batch) {
            tracing::error!(%error, "the index did not take the end of a broken pack");
        }
        broken.iter().for_each(|pack| self.packs.indexed(pack.header.seq));
    }

    /// Notes that a log record may be on the disk that does not count. Its number is not used
    /// again, and the next commit overrules it.
    pub(crate) fn unsettle(&self, writer: &mut Writer, batch: &mut Batch) {
        writer.unsettled = true;
        put_number(batch, UNSETTLED, 1);
        put_number(batch, "commit", self.next_commit.load(SeqCst));
    }

    /// All refs as they are, as records that overrule every commit before them. To be called by
    /// the leader, and appended in this order.
    pub(crate) fn checkpoint_records(&self) -> Result<Vec<Record<'static>>, KvError> {
        let mut parts = vec![Outcomes::new()];
        let mut size = 0;
        for (name, to) in self.index.references("")? {
            size += name.len() + to.value.len() + 40;
            if size > MAX_COMMIT {
                parts.push(Outcomes::new());
                size = 0;
            }
            parts.last_mut().expect("never empty").insert(name, Some(to));
        }
        // What does not fit one record goes before the checkpoint, as commits that are numbered
        // after it: a front part of the log never holds the checkpoint without them.
        let first = self.next_commit.fetch_add(parts.len() as u64, SeqCst);
        let record = |(at, part): (usize, &Outcomes)| {
            let kind = if at == 0 { Kind::Checkpoint } else { Kind::Commit };
            Record::log(kind, first + at as u64, encode_outcomes(part))
        };
        Ok(parts.iter().enumerate().rev().map(record).collect())
    }

    /// Commits early when much is appended, to bound what is held in memory until then.
    pub(crate) fn commit_if_much(&self) -> Result<(), CommitError> {
        let much = self.writer.lock().pending_chunks > MUCH;
        if much { self.commit(Vec::new(), Relied::default()) } else { Ok(()) }
    }

    /// Seals the open pack, so that it has its footer. Called at rest: when a library closes, or
    /// nothing was written for a while.
    pub(crate) fn seal_open_pack(&self) -> Result<(), CommitError> {
        self.commit(Vec::new(), Relied::default())?;
        let _leader = self.commits.leader.lock();
        let mut writer = self.writer.lock();
        if !writer.pending.is_empty() {
            return Ok(());
        }
        let Some(mut pack) = writer.current.take() else { return Ok(()) };
        let sealed = !pack.is_broken()
            && pack.len() == pack.published
            && pack.write_footer().and_then(|()| pack.file.sync()).is_ok();
        let state = if sealed { PackState::Sealed } else { PackState::Torn };
        let info = PackInfo { id: pack.header.id, state, len: pack.published };
        let mut batch = Batch::default();
        batch.put(Table::Packs, pack.header.seq.to_be_bytes(), info.encode());
        self.index.kv.write(batch)?;
        self.packs.indexed(pack.header.seq);
        Ok(())
    }
}

/// Adds the places of `pending` to `batch`, which may already revive entries.
pub(crate) fn index_pending(
    index: &Index,
    batch: &mut Batch,
    pending: &[Pending],
    leader: &mut Leader,
) -> Result<(), KvError> {
    let Leader { fresh, suspects } = leader;
    let mut fresh = |digest: Digest| {
        if let Some(fresh) = fresh {
            fresh.insert(digest);
        }
    };
    let revived = batch.changes.iter().filter_map(|(table, key, value)| {
        let digest = key.as_slice().try_into().map(Digest::from_bytes).ok()?;
        value.as_ref().map(|_| (*table, digest))
    });
    let revived: HashSet<(Table, Digest)> = revived.collect();
    // What is stored anew, by somebody who found it condemned, wins over a copy of the old.
    let mut stored: HashSet<(Table, Digest)> = HashSet::new();
    let is_moved =
        |p: &Pending| matches!(p, Pending::MovedChunk { .. } | Pending::MovedRecipe { .. });
    if pending.iter().any(is_moved) {
        for record in pending {
            match record {
                Pending::Chunks(chunks) => {
                    stored.extend(chunks.iter().map(|(id, _)| (Table::Chunks, id.0)));
                }
                Pending::Recipe { content, .. } => {
                    stored.insert((Table::Recipes, *content));
                }
                _ => {}
            }
        }
    }
    for record in pending {
        match record {
            Pending::Chunks(chunks) => {
                for (id, place) in chunks {
                    batch.put(Table::Chunks, *id.0.as_bytes(), place.encode());
                    if suspects.remove(&id.0) {
                        batch.delete(Table::Meta, suspect_key(id.0));
                    }
                    fresh(id.0);
                }
            }
            Pending::Recipe { content, place, chunks } => {
                batch.put(Table::Recipes, *content.as_bytes(), place.encode());
                if suspects.remove(content) {
                    batch.delete(Table::Meta, suspect_key(*content));
                }
                fresh(*content);
                chunks.iter().for_each(|id| fresh(id.0));
            }
            Pending::Alias { content, names } => {
                for key in names.iter().filter_map(alias_key) {
                    batch.put(Table::Aliases, key, *content.as_bytes());
                }
            }
            Pending::MovedChunk { id, from, to } => {
                let now = index.chunk(*id)?;
                if let Some(now) = now
                    && now.ordinal() == from.ordinal()
                    && !stored.contains(&(Table::Chunks, id.0))
                {
                    let revived = revived.contains(&(Table::Chunks, id.0));
                    let standing = if revived { Standing::Live } else { now.standing };
                    let to = ChunkPlace { standing, ..*to };
                    batch.put(Table::Chunks, *id.0.as_bytes(), to.encode());
                }
            }
            Pending::MovedRecipe { content, from, to } => {
                let now = index.recipe(*content)?;
                if let Some(now) = now
                    && now.ordinal() == from.ordinal()
                    && !stored.contains(&(Table::Recipes, *content))
                {
                    let revived = revived.contains(&(Table::Recipes, *content));
                    let standing = if revived { Standing::Live } else { now.standing };
                    let to = RecipePlace { standing, ..*to };
                    batch.put(Table::Recipes, *content.as_bytes(), to.encode());
                }
            }
        }
    }
    Ok(())
}

/// Adds ref changes to `batch`.
pub(crate) fn index_refs(batch: &mut Batch, outcomes: &Outcomes) {
    for (name, outcome) in outcomes {
        match outcome {
            Some(to) => batch.put(Table::Refs, name.as_bytes(), encode_ref(to)),
            None => batch.delete(Table::Refs, name.as_bytes()),
        }
    }
}

const SUSPECT: &[u8] = b"suspect/";

pub(crate) fn suspect_key(digest: Digest) -> Vec<u8> {
    [SUSPECT, digest.as_bytes()].concat()
}

/// About the bytes that a change takes in a commit record.
fn length(change: &RefChange) -> usize {
    change.name().len() + change.outcome().map_or(0, |to| to.value.len()) + 40
}

impl Index {
    /// Chunks and recipes noted as damaged.
    pub(crate) fn suspects(&self) -> Result<Vec<Digest>, KvError> {
        let mut found = Vec::new();
        self.kv.scan(Table::Meta, SUSPECT, &mut |key, _| {
            match key.strip_prefix(SUSPECT).map(TryInto::try_into) {
                Some(Ok(digest)) => found.push(Digest::from_bytes(digest)),
                Some(Err(_)) => {}
                None => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// All refs whose names begin with `prefix`, by name.
    pub(crate) fn references(&self, prefix: &str) -> Result<Vec<(String, Ref)>, KvError> {
        let mut refs = Vec::new();
        let mut bad = None;
        self.kv.scan(Table::Refs, prefix.as_bytes(), &mut |key, value| {
            if !key.starts_with(prefix.as_bytes()) {
                return ControlFlow::Break(());
            }
            match (String::from_utf8(key.to_vec()), decode_ref(value)) {
                (Ok(name), Some(found)) => refs.push((name, found)),
                _ => bad = Some(String::from_utf8_lossy(key).into_owned()),
            }
            ControlFlow::Continue(())
        })?;
        match bad {
            None => Ok(refs),
            Some(name) => Err(KvError(format!("ref {name:?} is unreadable; rebuild the index"))),
        }
    }

    pub(crate) fn reference(&self, name: &str) -> Result<Option<Ref>, KvError> {
        let found = self.kv.get(Table::Refs, name.as_bytes())?;
        let unreadable = || KvError(format!("ref {name:?} is unreadable; rebuild the index"));
        found.map(|v| decode_ref(&v).ok_or_else(unreadable)).transpose()
    }
}

/// Why a group of commits failed, so that each of its callers can be told.
#[derive(Clone)]
enum Failure {
    Store(Arc<io::Error>),
    Index(KvError),
    Interrupted,
}

impl Failure {
    fn of_add(error: AddError) -> Self {
        match error {
            AddError::Store(error) => Failure::Store(Arc::new(error)),
            full @ AddError::Full { .. } => {
                let error = io::Error::new(io::ErrorKind::StorageFull, full);
                Failure::Store(Arc::new(error))
            }
            AddError::Index(error) => Failure::Index(error),
            _ => Failure::Interrupted,
        }
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        Failure::Index(error)
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => {
                CommitError::Store(io::Error::new(error.kind(), error.to_string()))
            }
            Failure::Index(error) => CommitError::Index(error),
            Failure::Interrupted => CommitError::Interrupted,
        }
    }
}
