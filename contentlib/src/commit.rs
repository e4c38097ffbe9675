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
//!
//! If the index fails to take the batch of step 4, the records are in the packs all the same, and
//! synced. They wait, with their claims, for the next commit, whose batch names them too: the
//! watermark must never pass a record that the index does not have.

mod append;
mod entries;
mod revive;

pub(crate) use append::Writer;
pub(crate) use entries::{Pending, index_pending, index_refs};

use crate::claims::Claim;
use crate::digest::{ChunkId, Digest};
use crate::error::{AddError, CommitError};
use crate::index::{Index, PackInfo, PackState, put_number};
use crate::kv::{Batch, KvError, Table};
use crate::library::Inner;
use crate::pack::format::Kind;
use crate::pack::writer::{PackWriter, Record};
use crate::refs::{Expect, MAX_REF_NAME, MAX_REF_VALUE, Outcomes, Ref, RefChange, encode_outcomes};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The most bytes of refs that one commit changes, and about the longest commit record.
const MAX_COMMIT: usize = 32 << 20;
/// Set in the meta table while a failed commit is not overruled.
pub(crate) const UNSETTLED: &str = "unsettled";
/// Chunks that wait for a commit before one is made without being asked for.
pub(crate) const MUCH: usize = 1 << 14;
/// Chunks that wait for an index that fails before they are given up.
const TOO_MUCH: usize = 4 * MUCH;

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
    /// Those that may be gone by now: it found them condemned, perhaps before its lease began, or
    /// held by a recipe of another session that may have.
    pub unsure: Vec<Digest>,
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
        let has_refs = !outcomes.is_empty();
        let result = self.write_commit(outcomes, revived, leader);
        if has_refs {
            // Failed or not: what a failed write left behind is not known.
            self.refs_generation.fetch_add(1, SeqCst);
        }
        for answer in accepted {
            *answer.lock() = Some(result.clone().map_err(CommitError::from));
        }
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

    /// The contents whose recipes are in a pack and not yet in the index, with their chunks.
    pub(crate) fn pending_recipes(&self) -> HashMap<Digest, Arc<[ChunkId]>> {
        let writer = self.writer.lock();
        let recipe = |pending: &Pending| match pending {
            Pending::Recipe { content, chunks, .. } => Some((*content, chunks.clone())),
            _ => None,
        };
        writer.pending.iter().filter_map(recipe).collect()
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
        let (pending, n_chunks, mut full, last, losses) = {
            let mut writer = self.writer.lock();
            // Packs that a failed write ended wait for a commit even if nothing of them counts.
            let nothing =
                writer.pending.is_empty() && writer.full.is_empty() && writer.unindexed.is_empty();
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
            let (pending, n_chunks) = (take(&mut writer.pending), take(&mut writer.pending_chunks));
            (pending, n_chunks, take(&mut writer.full), last, writer.losses)
        };

        // Step 3.
        let mut packs: Vec<(u32, PackInfo)> = Vec::new();
        let mut synced = Ok(());
        for pack in &mut full {
            // A full pack ends with a commit of its own. It changes no refs; it is there so that
            // the pack's records need no other pack to count, which might be deleted before it.
            // It tells no lie: the packs before it are synced.
            let seq = self.next_commit.fetch_add(1, SeqCst);
            let end = Record::log(Kind::Commit, seq, encode_outcomes(&Outcomes::new()));
            let torn =
                pack.is_broken() || pack.append(end).and_then(|_| pack.write_footer()).is_err();
            synced = pack.file.seal();
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
            // Older, so that what is newer of the same pack is written after it.
            packs.splice(0..0, take(&mut writer.unindexed));
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
        let indexed = index_pending(&self.index, &mut batch, &pending, leader).and_then(|()| {
            index_refs(&mut batch, &outcomes);
            self.index.kv.write(batch)
        });
        if let Err(error) = indexed {
            self.carry_over(packs, pending, n_chunks, leader);
            return Err(error.into());
        }
        self.writer.lock().unsettled = false;
        if let Some(fresh) = &mut leader.fresh {
            fresh.extend(outcomes.values().flatten().filter_map(|to| to.root));
        }
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

    /// The index failed: what is synced waits for the next commit.
    fn carry_over(
        &self,
        packs: Vec<(u32, PackInfo)>,
        mut pending: Vec<Pending>,
        n_chunks: usize,
        leader: &mut Leader,
    ) {
        // What the lost batch would have healed is still noted as damaged in the index.
        leader.suspects.extend(pending.iter().flat_map(Pending::names));
        let mut writer = self.writer.lock();
        writer.unindexed = packs;
        // Its record is on the disk, and counts until the next commit overrules it.
        writer.unsettled = true;
        if writer.pending_chunks + n_chunks > TOO_MUCH {
            drop(writer);
            return self.poison(Vec::new(), pending);
        }
        pending.append(&mut writer.pending);
        writer.pending = pending;
        writer.pending_chunks += n_chunks;
    }

    /// A sync failed: what it was for, and all else that is appended and not committed, is lost.
    fn poison(&self, full: Vec<PackWriter>, pending: Vec<Pending>) {
        let mut writer = self.writer.lock();
        let mut packs = take(&mut writer.unindexed);
        let mut broken = full;
        broken.append(&mut writer.full);
        broken.extend(writer.current.take());
        for mut pack in broken {
            pack.break_off();
            let info = PackInfo { id: pack.header.id, state: PackState::Torn, len: pack.published };
            packs.push((pack.header.seq, info));
        }
        let later = take(&mut writer.pending);
        writer.pending_chunks = 0;
        for lost in pending.iter().chain(&later) {
            debug_assert!(lost.pack().is_none_or(|pack| packs.iter().any(|(seq, _)| *seq == pack)));
            if let Pending::Chunks(chunks) = lost {
                chunks.iter().for_each(|(id, _)| self.claims.end(*id));
            }
        }
        writer.losses += 1;
        // A new run: no later commit record covers what was lost.
        writer.run += 1;
        let mut batch = Batch::default();
        put_number(&mut batch, "run", writer.run.into());
        for (seq, info) in &packs {
            batch.put(Table::Packs, seq.to_be_bytes(), info.encode());
        }
        self.unsettle(&mut writer, &mut batch);
        match self.index.kv.write(batch) {
            Ok(()) => packs.iter().for_each(|(seq, _)| self.packs.indexed(*seq)),
            Err(error) => {
                tracing::error!(%error, "the index did not take the end of a broken pack");
                writer.unindexed = packs;
            }
        }
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
            && pack.write_footer().and_then(|()| pack.file.seal()).is_ok();
        let state = if sealed { PackState::Sealed } else { PackState::Torn };
        let info = PackInfo { id: pack.header.id, state, len: pack.published };
        let mut batch = Batch::default();
        batch.put(Table::Packs, pack.header.seq.to_be_bytes(), info.encode());
        if let Err(error) = self.index.kv.write(batch) {
            writer.unindexed.push((pack.header.seq, info));
            return Err(error.into());
        }
        self.packs.indexed(pack.header.seq);
        Ok(())
    }
}

/// About the bytes that a change takes in a commit record.
fn length(change: &RefChange) -> usize {
    change.name().len() + change.outcome().map_or(0, |to| to.value.len()) + 40
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
