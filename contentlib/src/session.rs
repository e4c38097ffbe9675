//! Sessions: everything that adds content.
//!
//! A session holds a lease: what it added, and what it found already held, stays until it is
//! dropped, whatever garbage collection does meanwhile. Nothing is durable or visible before
//! [`Session::commit`] returns.

use crate::block::{BlockView, Frame, with_packed};
use crate::claims::Claim;
use crate::commit::{Pending, Relied};
use crate::digest::{ChunkId, Digest, Name};
use crate::error::{AddError, CommitError, ReadError};
use crate::index::{ChunkPlace, Form, RecipePlace, Standing};
use crate::kv::KvError;
use crate::leases::Since;
use crate::library::{Inner, Library};
use crate::pack::writer::Record;
use crate::recipe::Recipe;
use crate::refs::RefChange;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Names looked up in the index at once.
const PROVE_STEP: usize = 512;

/// A lease on a library, and the way to add to it.
pub struct Session {
    pub(crate) library: Library,
    lease: u64,
    since: Since,
    durable: Option<(String, Duration)>,
    /// Failed syncs before it began; if there were more at its commit, some of it may be lost.
    losses: u64,
    /// What it added, or found held, and counts on.
    pub(crate) relied: Mutex<Vec<Digest>>,
    /// Chunks that others were storing when it met them, and contents that its caller says are
    /// held: whether they are is found out at the commit.
    unproven: Mutex<Vec<Digest>>,
    /// Contents that are cut and hashed and whose chunks may still be on their way.
    pub(crate) recipes: Mutex<Vec<(Digest, Recipe)>>,
    pub(crate) aliases: Mutex<Vec<(Digest, Vec<Name>)>>,
    /// Held by whoever took out recipes and aliases, until they are in a pack or put back. Whoever holds it waits for
    /// chunks that are claimed; so nobody who has claimed chunks that are in no pack yet may wait for it.
    appending: Mutex<()>,
}

/// What the lease of a durable session keeps while the session is not at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// What it added, and what it found held: nothing that became garbage since it began is freed.
    All,
    /// What was stored since it began. What it found held stays only as long as something else
    /// holds it, or its grace; whoever works so looks again before it counts on it. For work that takes
    /// days and must not fill the disk meanwhile.
    Added,
}

impl Library {
    /// Begins a session.
    pub fn session(&self) -> Session {
        self.begin(Keeps::All, None)
    }

    /// Begins or resumes a session whose lease outlives this process. It expires `ttl` after it
    /// was last used. What it keeps is settled when it is begun first.
    pub fn open_session(
        &self,
        name: &str,
        ttl: Duration,
        keeps: Keeps,
    ) -> Result<Session, KvError> {
        let session = self.begin(keeps, Some((name.to_owned(), ttl)));
        session.renew()?;
        Ok(session)
    }

    /// The names of sessions that outlive this process, begin with `prefix`, and were not ended, in
    /// order. One that is expired goes with the next garbage collection.
    pub fn open_sessions(&self, prefix: &str) -> Vec<String> {
        self.inner.leases.durable(prefix)
    }

    fn begin(&self, keeps: Keeps, durable: Option<(String, Duration)>) -> Session {
        let inner = &self.inner;
        let number = |name| inner.index.number(name).unwrap_or(0);
        let place = |name| u32::try_from(number(name)).unwrap_or(0);
        let mark = match keeps {
            Keeps::All => (0, 0),
            Keeps::Added => (place("watermark/pack"), place("watermark/offset")),
        };
        let since = Since { epoch: number("epoch"), mark };
        let losses = inner.writer.lock().losses;
        Session {
            library: self.clone(),
            lease: inner.leases.take(since),
            since,
            durable,
            losses,
            relied: Mutex::default(),
            unproven: Mutex::default(),
            recipes: Mutex::default(),
            aliases: Mutex::default(),
            appending: Mutex::default(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.library.inner.leases.end(self.lease);
    }
}

impl Session {
    pub(crate) fn inner(&self) -> &Inner {
        &self.library.inner
    }

    /// Puts off the expiry of a durable session.
    pub fn renew(&self) -> Result<(), KvError> {
        let inner = self.inner();
        let Some((name, ttl)) = &self.durable else { return Ok(()) };
        let since = Since { epoch: inner.index.number("epoch")?, ..self.since };
        let expires = inner.environment.unix_ms() + ttl.as_millis() as u64;
        inner.leases.renew(&inner.index, name, since, expires)
    }

    /// Ends a durable session for good.
    pub fn end(self) -> Result<(), KvError> {
        match &self.durable {
            Some((name, _)) => self.inner().leases.end_durable(&self.inner().index, name),
            None => Ok(()),
        }
    }

    /// Which of `chunks` are not held, as [`Library::missing_chunks`]; but those that are condemned
    /// and not yet purged are made live again first, and so are held. From then on they stay as long
    /// as this session's lease, if it [keeps](Keeps) them. The session does not count on them: that is for whoever commits
    /// what refers to them.
    pub fn missing_chunks(&self, chunks: &[ChunkId]) -> Result<Vec<bool>, AddError> {
        for step in chunks.chunks(PROVE_STEP) {
            let places = self.inner().index.chunks(step)?;
            let condemned = step
                .iter()
                .zip(places)
                .filter_map(|(id, place)| (place?.standing == Standing::Condemned).then_some(id.0));
            self.save(condemned.collect())?;
        }
        self.library.missing_chunks(chunks).map_err(read_error)
    }

    /// Which of `contents` are not held whole, as [`Library::missing_contents`]; those that are
    /// condemned are made live again, as [`Session::missing_chunks`] does.
    pub fn missing_contents(&self, contents: &[Digest]) -> Result<Vec<bool>, AddError> {
        for step in contents.chunks(PROVE_STEP) {
            let mut condemned = Vec::new();
            for content in step {
                let form = self.inner().index.form(*content)?;
                condemned.extend(form.filter(Form::is_condemned).map(|_| *content));
            }
            self.save(condemned)?;
        }
        self.library.missing_contents(contents).map_err(read_error)
    }

    /// Makes condemned entries live again, all or none: none if one of them was purged meanwhile.
    fn save(&self, condemned: Vec<Digest>) -> Result<(), AddError> {
        if condemned.is_empty() {
            return Ok(());
        }
        let relied = Relied { unsure: condemned, ..Relied::default() };
        match self.inner().commit(Vec::new(), relied) {
            Ok(()) | Err(CommitError::Interrupted) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Counts on contents that are already held: the commit makes sure they still are. For
    /// contents that a new root names and this session did not add.
    pub fn keep(&self, contents: impl IntoIterator<Item = Digest>) {
        self.unproven.lock().extend(contents);
    }

    /// Makes all that this session added durable, and changes refs with it: all or nothing.
    pub fn commit(&self, changes: Vec<RefChange>) -> Result<(), CommitError> {
        let unsure = self.prove()?;
        self.append_recipes(true).map_err(|error| match error {
            AddError::Store(error) => CommitError::Store(error),
            full @ AddError::Full { .. } => {
                CommitError::Store(io::Error::new(io::ErrorKind::StorageFull, full))
            }
            AddError::Index(error) => CommitError::Index(error),
            _ => CommitError::Interrupted,
        })?;
        self.renew()?;
        // Kept for a later commit of the same session.
        let digests = self.relied.lock().clone();
        self.inner().commit(changes, Relied { digests, unsure, losses: Some(self.losses) })
    }

    /// Finds out whether what the session counts on without having looked is there. What is live
    /// now stays: this session's lease is older than any condemning yet to come. Returns what the
    /// commit must look at once more: what is condemned already, and contents whose recipe another
    /// session sent, which may count on what is condemned.
    fn prove(&self) -> Result<Vec<Digest>, CommitError> {
        let inner = self.inner();
        let mut unproven = self.unproven.lock().clone();
        if unproven.is_empty() {
            return Ok(Vec::new());
        }
        // What this session stored, or found live, needs no second look.
        let sure: HashSet<Digest> = self.relied.lock().iter().copied().collect();
        unproven.retain(|digest| !sure.contains(digest));
        let mut live = Vec::new();
        let mut unsure = Vec::new();
        let own: HashSet<Digest> = {
            // Those that somebody has taken out are in neither list.
            let _appending = self.appending.lock();
            self.recipes.lock().iter().map(|(content, _)| *content).collect()
        };
        // After its own: what was appended meanwhile is in one of both.
        let pending = inner.pending_recipes();
        for digests in unproven.chunks(PROVE_STEP) {
            let ids: Vec<ChunkId> = digests.iter().map(|digest| ChunkId(*digest)).collect();
            ids.iter().for_each(|id| inner.claims.wait(*id));
            let places = inner.index.chunks(&ids)?;
            for (id, place) in ids.iter().zip(places) {
                let known = place.is_some()
                    || id.0 == Digest::EMPTY
                    || matches!(inner.claims.get(*id), Some(Claim::Appended(_)))
                    || own.contains(&id.0)
                    || pending.contains_key(&id.0);
                let standing = match place {
                    Some(place) => Some(place.standing),
                    None if known => None,
                    // Committed between the two looks, or of several chunks.
                    None => match inner.index.chunk(*id)? {
                        Some(place) => Some(place.standing),
                        None => inner.index.recipe(id.0)?.map(|place| place.standing),
                    },
                };
                match standing {
                    Some(Standing::Condemned) => unsure.push(id.0),
                    None if !known => return Err(CommitError::Interrupted),
                    None if pending.contains_key(&id.0) => unsure.push(id.0),
                    _ => live.push(id.0),
                }
            }
        }
        let mut unproven = self.unproven.lock();
        unproven.clear();
        unproven.extend(&unsure);
        drop(unproven);
        self.relied.lock().append(&mut live);
        Ok(unsure)
    }

    /// Whether `id` must be stored: claims it if so. A held chunk is noted as relied on.
    pub(crate) fn claim(&self, id: ChunkId) -> Result<bool, AddError> {
        let inner = self.inner();
        if !inner.claims.take(id) {
            self.unproven.lock().push(id.0);
            return Ok(false);
        }
        match inner.index.chunk(id) {
            Ok(Some(place)) if place.standing == Standing::Live => {
                inner.claims.end(id);
                self.relied.lock().push(id.0);
                Ok(false)
            }
            Ok(_) => Ok(true),
            Err(error) => {
                inner.claims.end(id);
                Err(error.into())
            }
        }
    }

    /// Appends a block of claimed chunks. On failure the claims end.
    pub(crate) fn append_block(
        &self,
        block: &BlockView<'_>,
        ids: &[ChunkId],
    ) -> Result<u64, AddError> {
        let inner = self.inner();
        let record = Record::block(block, ids);
        let (body_len, length) = (record.header().body_len, record.header().record_len());
        let mut writer = inner.writer.lock();
        let appended = inner.append(&mut writer, record);
        let (pack, offset) = match appended {
            Ok(place) => place,
            Err(error) => {
                drop(writer);
                ids.iter().for_each(|id| inner.claims.end(*id));
                return Err(error);
            }
        };
        let mut plain_offset = 0;
        let place = |(at, (&id, &plain_len)): (usize, (&ChunkId, &u32))| {
            let place = ChunkPlace {
                pack,
                offset,
                body_len,
                n_chunks: ids.len() as u16,
                at: at as u16,
                plain_offset,
                plain_len,
                codec: block.codec,
                standing: Standing::Live,
            };
            plain_offset += plain_len;
            (id, place)
        };
        let chunks: Vec<_> = ids.iter().zip(&block.lens).enumerate().map(place).collect();
        for (id, place) in &chunks {
            inner.claims.appended(*id, *place);
        }
        writer.pending_chunks += chunks.len();
        writer.pending.push(Pending::Chunks(chunks));
        drop(writer);
        // Somebody else's commit may index them, and garbage collection find them without a
        // holder, before this session commits what refers to them.
        self.relied.lock().extend(ids.iter().map(|id| id.0));
        Ok(length)
    }

    /// Appends the recipes and aliases of all contents whose chunks are in packs. A recipe never
    /// precedes its chunks, so a commit that covers it covers them. Those whose chunks are on
    /// their way are waited for, or left for later; so is another thread that does the same.
    pub(crate) fn append_recipes(&self, wait: bool) -> Result<(), AddError> {
        let inner = self.inner();
        let appending = if wait { Some(self.appending.lock()) } else { self.appending.try_lock() };
        let Some(_appending) = appending else { return Ok(()) };
        let mut left = Vec::new();
        let mut outcome = Ok(());
        // By itself: a lock that lived through the loop would keep others from adding, who may have claimed
        // what is waited for here.
        let recipes = std::mem::take(&mut *self.recipes.lock());
        for (content, recipe) in recipes {
            let on_its_way = |id: &ChunkId| inner.claims.get(*id) == Some(Claim::Taken);
            if outcome.is_err() || !wait && recipe.chunks().iter().any(on_its_way) {
                left.push((content, recipe));
                continue;
            }
            outcome = self.have_chunks(&recipe).and_then(|()| self.append_recipe(content, &recipe));
            if outcome.is_err() {
                left.push((content, recipe));
            }
        }
        // What was not appended stays the session's: a commit that is tried again must not pass
        // without it.
        self.recipes.lock().append(&mut left);
        outcome?;
        let mut aliases = std::mem::take(&mut *self.aliases.lock());
        while let Some((content, names)) = aliases.pop() {
            let mut writer = inner.writer.lock();
            if let Err(error) = inner.append(&mut writer, Record::alias(content, &names)) {
                aliases.push((content, names));
                self.aliases.lock().append(&mut aliases);
                return Err(error);
            }
            writer.pending.push(Pending::Alias { content, names });
        }
        Ok(())
    }

    /// Waits until all chunks of a recipe are in packs. An error if one never came.
    fn have_chunks(&self, recipe: &Recipe) -> Result<(), AddError> {
        let inner = self.inner();
        for chunk in recipe.chunks() {
            inner.claims.wait(*chunk);
            let known = matches!(inner.claims.get(*chunk), Some(Claim::Appended(_)))
                || inner.index.chunk(*chunk)?.is_some();
            if !known {
                return Err(AddError::Interrupted);
            }
        }
        Ok(())
    }

    pub(crate) fn append_recipe(&self, content: Digest, recipe: &Recipe) -> Result<(), AddError> {
        let inner = self.inner();
        if let Some(place) = inner.index.recipe(content)?
            && place.standing == Standing::Live
        {
            self.relied.lock().push(content);
            return Ok(());
        }
        let record = Record::recipe(content, recipe);
        let body_len = record.header().body_len;
        let mut writer = inner.writer.lock();
        let (pack, offset) = inner.append(&mut writer, record)?;
        let place = RecipePlace::new(pack, offset, body_len, recipe);
        self.relied.lock().push(content);
        let chunks: Arc<[ChunkId]> = recipe.chunks().into();
        writer.pending_chunks += chunks.len();
        writer.pending.push(Pending::Recipe { content, place, chunks });
        Ok(())
    }

    /// Takes in a block that another depot sent. Its stored bytes are kept as they are; the names
    /// of its chunks are computed from what they decode to, never believed. A chunk may be what is
    /// revoked as a content of its own: other contents have it, too.
    ///
    /// Returns the chunks, in order, whether or not they were held before.
    pub fn put_frame(&self, frame: &Frame) -> Result<Vec<ChunkId>, AddError> {
        let put = self.put_frame_if(frame, |_| true)?.unwrap_or_default();
        Ok(put.into_iter().map(|(id, _)| id).collect())
    }

    /// As [`Session::put_frame`], if `wanted` says so of the names that the chunks turned out to
    /// have. Else nothing is stored, and there is no answer: whoever asked for certain chunks does
    /// not let others fill its disk. The answer has the plain bytes of the chunks, too.
    pub fn put_frame_if(
        &self,
        frame: &Frame,
        wanted: impl FnOnce(&[ChunkId]) -> bool,
    ) -> Result<Option<Vec<(ChunkId, Bytes)>>, AddError> {
        let chunks = frame.chunks()?;
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        if !wanted(&ids) {
            return Ok(None);
        }
        let mut new = Vec::new();
        for (id, bytes) in &chunks {
            match self.claim(*id) {
                Ok(true) => new.push((*id, bytes.clone())),
                Ok(false) => {}
                Err(error) => {
                    new.iter().for_each(|(id, _)| self.inner().claims.end(*id));
                    return Err(error);
                }
            }
        }
        if new.len() == ids.len() {
            self.append_block(&frame.view(), &ids)?;
        } else if !new.is_empty() {
            let (ids, plain): (Vec<ChunkId>, Vec<Bytes>) = new.into_iter().unzip();
            let packed = frame.codec() == crate::block::Codec::Zstd;
            with_packed(&plain, packed, |block| self.append_block(block, &ids))?;
        }
        self.inner().commit_if_much().map_err(store_error)?;
        Ok(Some(chunks))
    }
}

fn read_error(error: ReadError) -> AddError {
    AddError::Read(Box::new(error))
}

pub(crate) fn store_error(error: CommitError) -> AddError {
    match error {
        CommitError::Store(error) => AddError::Store(error),
        CommitError::Index(error) => AddError::Index(error),
        _ => AddError::Interrupted,
    }
}
