//! Verify: whether the packs still hold what was written, and what is hit where they do not.
//!
//! Reads records front to back as the index and the footers name them. Bad chunks and recipes
//! are marked suspect as they are found, so that they are not served and any holder heals them.
//!
//! What is sound, and known by the index alone since the pack around it is damaged, is written again:
//! refs and other names, chunks and recipes. So whatever a verified library holds, it holds as well
//! with an index that is made anew.

mod frame;

use crate::commit::Relied;
use crate::digest::{ChunkId, Digest};
use crate::error::{MaintainError, PackProblem};
use crate::index::{ChunkPlace, Form, PackInfo, PackState, RecipePlace, Standing};
use crate::kv::{Batch, Table};
use crate::library::Library;
use crate::links::{Holder, Links, holders};
use crate::pack::format::{BadPack, PACK_HEADER, RECORD_HEADER};
use crate::pack::reader::{RecordError, frame, record};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::store::{PackFile, PackStore, is_media_error};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How much to verify, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// The part of all blocks that is read, in percent. All indexes are checked in any case.
    pub read_percent: u8,
    /// Bytes a second; `None` for as fast as the disk gives them.
    pub pace: Option<u64>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { read_percent: 100, pace: None }
    }
}

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// Packs looked at.
    pub packs: u64,
    /// Records read and compared.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Packs that are missing or damaged, each once, with what is wrong.
    pub bad_packs: Vec<PackProblem>,
    /// Chunks whose bytes are wrong or gone.
    pub bad_chunks: Vec<Digest>,
    /// Contents that cannot be read whole, with who holds them.
    pub bad_contents: Vec<BadContent>,
}

/// A content that cannot be read whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct BadContent {
    /// The content.
    pub digest: Digest,
    /// The refs that hold it.
    pub holders: Vec<Holder>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.bad_packs.is_empty() && self.bad_chunks.is_empty() && self.bad_contents.is_empty()
    }
}

/// What verifying found so far.
#[derive(Default)]
pub(crate) struct Found {
    pub report: VerifyReport,
    pub bad: BTreeSet<ChunkId>,
    /// Packs with sound entries that an index made anew would not find; where in each those begin.
    unfound: BTreeMap<u32, u64>,
}

type Entry = (ChunkId, ChunkPlace);
/// Chunks by the offset of their block.
type Blocks = BTreeMap<u32, Vec<Entry>>;
/// What the index says is in one pack.
pub(crate) type Entries = (Blocks, Vec<(Digest, RecipePlace)>);

/// The longest that a slow run sleeps before it looks whether it is cancelled.
const NAP: Duration = Duration::from_millis(100);
/// Packs whose entries are held at once: each time costs a walk over the index.
const PACKS_AT_ONCE: usize = 64;

impl Library {
    /// Compares packs with what the index says of them. Ends at a pack that a newer depot wrote, as
    /// opening does, and leaves it as it is.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        links: &dyn Links,
        progress: &Progress,
    ) -> Result<VerifyReport, MaintainError> {
        let inner = &self.inner;
        inner.commit(Vec::new(), Relied::default())?;
        let packs = inner.index.packs()?;
        let mut found = Found::default();
        self.verify_listed(&packs, options, progress, &mut found)?;
        let mut report = found.report;
        report.bad_chunks = found.bad.iter().map(|id| id.0).collect();
        report.bad_contents = self.hit_by(&found.bad, links)?;
        Ok(report)
    }

    /// Compares these packs with what the index says of them.
    pub(crate) fn verify_listed(
        &self,
        packs: &[(u32, PackInfo)],
        options: &VerifyOptions,
        progress: &Progress,
        found: &mut Found,
    ) -> Result<(), MaintainError> {
        let total: u64 = packs.iter().map(|(_, info)| info.len).sum();
        progress.total_bytes.store(total, std::sync::atomic::Ordering::Relaxed);
        let mut log_is_hit = false;
        for packs in packs.chunks(PACKS_AT_ONCE) {
            let mut entries = self.entries_of(packs)?;
            for (seq, info) in packs {
                progress.check()?;
                if info.state != PackState::Condemned {
                    let entries = entries.remove(seq).unwrap_or_default();
                    log_is_hit |=
                        self.verify_pack((*seq, info), entries, options, progress, found)?;
                }
            }
        }
        let unfound = std::mem::take(&mut found.unfound);
        if !unfound.is_empty()
            && let Err(error) = self.save(unfound, progress)
        {
            progress.check()?;
            tracing::error!(%error, "what is sound in damaged packs could not be written again");
        }
        if log_is_hit {
            // Refs and aliases are known here; without this an index rebuilt later would not
            // know those whose records are damaged.
            // Where that cannot be written, what was found is still worth telling.
            if let Err(error) = self.checkpoint(&[]) {
                tracing::error!(%error, "refs and other names could not be written again");
            }
        }
        Ok(())
    }

    /// Compares one pack. Whether the log of refs in it may be hit.
    fn verify_pack(
        &self,
        (seq, info): (u32, &PackInfo),
        entries: Entries,
        options: &VerifyOptions,
        progress: &Progress,
        found: &mut Found,
    ) -> Result<bool, MaintainError> {
        found.report.packs += 1;
        let mut log_is_hit = false;
        let file = match self.inner.store.open(info.id) {
            Ok(file) => Some(file),
            // Garbage collection deleted it since it was listed.
            Err(_) if self.is_deleted(seq)? => return Ok(false),
            // It never came to be, and nothing was acknowledged that lies in it.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && info.len <= PACK_HEADER as u64 =>
            {
                return Ok(false);
            }
            Err(error) => {
                let error = format!("cannot be opened: {error}");
                found.report.bad_packs.push(PackProblem { pack: info.id, error });
                log_is_hit = true;
                None
            }
        };
        let mut wrong = Vec::new();
        if let Some(file) = &file {
            let pack = frame::check(&**file, info, options)?;
            wrong = pack.wrong;
            log_is_hit |= !wrong.is_empty();
            let is_unfound = |offset: u32, standing: Standing| {
                u64::from(offset) >= pack.found_to && standing != Standing::Suspect
            };
            let (blocks, recipes) = &entries;
            if blocks.values().flatten().any(|(_, place)| is_unfound(place.offset, place.standing))
                || recipes.iter().any(|(_, place)| is_unfound(place.offset, place.standing))
            {
                found.unfound.insert(seq, pack.found_to);
            }
        }
        let is_there = file.is_some();
        let damaged = self.verify_records((seq, file), entries, options, progress, found)?;
        if is_there && damaged > 0 {
            wrong.push(format!("{damaged} of its chunks, recipes and record headers are damaged"));
        }
        if !wrong.is_empty() {
            self.mark_torn(seq)?;
            let error = wrong.join("; ");
            found.report.bad_packs.push(PackProblem { pack: info.id, error });
        }
        Ok(log_is_hit)
    }

    /// Compares a pack's records, and marks what is damaged. Returns how much that is.
    pub(crate) fn verify_records(
        &self,
        (seq, file): (u32, Option<Arc<dyn PackFile>>),
        (blocks, recipes): Entries,
        options: &VerifyOptions,
        progress: &Progress,
        found: &mut Found,
    ) -> Result<u64, MaintainError> {
        let inner = &self.inner;
        let mut damaged = 0u64;
        for (offset, chunks) in blocks {
            progress.check()?;
            let (_, first) = chunks.first().expect("a block is listed with a chunk");
            let sampled = sample(offset) < u32::from(options.read_percent);
            let wrong: Vec<&(ChunkId, ChunkPlace)> = match &file {
                None => chunks.iter().collect(),
                Some(_) if !sampled => continue,
                Some(file) => {
                    let length = RECORD_HEADER as u64 + u64::from(first.body_len);
                    found.report.records += 1;
                    found.report.bytes += length;
                    progress.add(&progress.bytes, length);
                    pace(options.pace, length, progress)?;
                    let (sound, wrong) = self.wrong_chunks(&**file, offset, &chunks)?;
                    // All chunks may be right in a record whose header went bad.
                    damaged += u64::from(!sound && wrong.is_empty());
                    wrong
                }
            };
            for (id, place) in wrong {
                damaged += 1;
                found.bad.insert(*id);
                inner.mark_chunk_suspect(*id, place)?;
            }
        }
        for (content, place) in recipes {
            let read = file.as_ref().map(|f| record(&**f, place.offset, place.body_len));
            let right = match read {
                Some(Ok((header, body))) => header.id == content && Recipe::decode(&body).is_ok(),
                Some(Err(RecordError::Io(source))) if !is_media_error(&source) => {
                    return Err(MaintainError::Store { pack: inner.pack_id(seq), source });
                }
                _ => false,
            };
            if !right {
                damaged += 1;
                inner.mark_recipe_suspect(content, &place)?;
            }
        }
        Ok(damaged)
    }

    pub(crate) fn is_deleted(&self, seq: u32) -> Result<bool, MaintainError> {
        let info = self.inner.index.pack(seq)?;
        Ok(info.is_none_or(|info| info.state == PackState::Condemned))
    }

    /// Copies what is sound in packs that are damaged, each from an offset on, to where an index made
    /// anew finds it.
    fn save(&self, packs: BTreeMap<u32, u64>, progress: &Progress) -> Result<(), MaintainError> {
        // Behind damage in the open pack a copy would be no better off.
        self.inner.seal_open_pack()?;
        // Nothing moves while garbage collection marks. It copies from torn packs itself.
        let Some(_one) = self.inner.maintenance.try_lock() else { return Ok(()) };
        tracing::warn!(packs = packs.len(), "what is sound in damaged packs is written again");
        self.repack(&packs, progress)
    }

    /// Has garbage collection copy what is sound out of a damaged pack.
    fn mark_torn(&self, seq: u32) -> Result<(), MaintainError> {
        let inner = &self.inner;
        let _leader = inner.commits.leader.lock();
        if let Some(info) = inner.index.pack(seq)?
            && info.state == PackState::Sealed
        {
            let mut batch = Batch::default();
            let torn = PackInfo { state: PackState::Torn, ..info };
            batch.put(Table::Packs, seq.to_be_bytes(), torn.encode());
            inner.index.kv.write(batch)?;
        }
        Ok(())
    }

    /// Whether one block's record is sound, and its chunks that do not read back right.
    fn wrong_chunks<'a>(
        &self,
        file: &dyn PackFile,
        offset: u32,
        chunks: &'a [(ChunkId, ChunkPlace)],
    ) -> Result<(bool, Vec<&'a Entry>), MaintainError> {
        let (_, first) = chunks.first().expect("a block is listed with a chunk");
        let found = record(file, offset, first.body_len)
            .and_then(|(header, body)| Ok(frame(&header, &body, offset)?))
            .and_then(|f| f.chunks().map_err(|_| BadPack::Record(offset.into()).into()));
        match found {
            Ok(found) => {
                let is_wrong = |entry: &&(ChunkId, ChunkPlace)| {
                    found.get(usize::from(entry.1.at)).is_none_or(|(id, _)| *id != entry.0)
                };
                Ok((true, chunks.iter().filter(is_wrong).collect()))
            }
            Err(RecordError::Io(source)) if !is_media_error(&source) => {
                Err(MaintainError::Store { pack: self.inner.pack_id(first.pack), source })
            }
            // The record's checksum failed, yet chunks that the damage did not touch may still
            // read right: raw ones can be told apart. From the disk, where the damage is: what was
            // decoded before it is right, and is all that is left of it.
            Err(_) => {
                self.inner.forget_block(first);
                let reads = |(id, place): &&(ChunkId, ChunkPlace)| {
                    self.inner.chunk_at(*id, place, id.0).is_err()
                };
                Ok((false, chunks.iter().filter(reads).collect()))
            }
        }
    }

    /// The index entries that point into `packs`, by pack and in the order of the pack.
    fn entries_of(
        &self,
        packs: &[(u32, PackInfo)],
    ) -> Result<BTreeMap<u32, Entries>, MaintainError> {
        let mut found: BTreeMap<u32, Entries> =
            packs.iter().map(|(seq, _)| (*seq, Entries::default())).collect();
        self.inner.index.each_chunk(|id, place| {
            if let Some((blocks, _)) = found.get_mut(&place.pack) {
                blocks.entry(place.offset).or_default().push((id, place));
            }
            ControlFlow::Continue(())
        })?;
        self.inner.index.each_recipe(|content, place| {
            if let Some((_, recipes)) = found.get_mut(&place.pack) {
                recipes.push((content, place));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Contents that cannot be read whole: by a bad chunk, a lost one, or a bad recipe; and those
    /// that a root names and nobody has.
    fn hit_by(
        &self,
        bad: &BTreeSet<ChunkId>,
        links: &dyn Links,
    ) -> Result<Vec<BadContent>, MaintainError> {
        let inner = &self.inner;
        let mut hit: HashSet<Digest> = bad.iter().map(|id| id.0).collect();
        hit.extend(self.suspects()?);
        let mut all = Vec::new();
        inner.index.each_recipe(|content, place| {
            if place.standing != Standing::Condemned {
                all.push(content);
            }
            ControlFlow::Continue(())
        })?;
        for content in all {
            // Looked at twice: garbage collection may have been between two steps of the first.
            if !self.is_whole(content)? && !self.is_whole(content)? {
                hit.insert(content);
            }
        }
        let mut named = Vec::new();
        for (name, to) in self.list_refs("")? {
            named.extend(to.root);
            if to.root.is_some() {
                let links = links.links(&name, &to, self).unwrap_or_default();
                named.extend(links.into_iter().map(|link| link.digest));
            }
        }
        let missing = self.missing_contents_unchecked(&named)?;
        hit.extend(named.iter().zip(missing).filter(|(_, m)| *m).map(|(d, _)| *d));
        let hit: Vec<Digest> = hit.into_iter().collect();
        let mut held_by = holders(self, &hit, links)?;
        let mut contents: Vec<BadContent> = hit
            .into_iter()
            .map(|digest| BadContent {
                digest,
                holders: held_by.remove(&digest).unwrap_or_default(),
            })
            // A chunk in the middle of a file is reported with its file.
            .filter(|content| {
                !content.holders.is_empty()
                    || inner.index.recipe(content.digest).is_ok_and(|r| r.is_some())
            })
            .collect();
        contents.sort();
        Ok(contents)
    }

    /// Whether a content can be read whole, or garbage collection may delete it anyway.
    pub(crate) fn is_whole(&self, content: Digest) -> Result<bool, MaintainError> {
        let inner = &self.inner;
        Ok(match inner.index.form(content)? {
            None => true,
            Some(Form::Chunk(place)) => place.standing != Standing::Suspect,
            Some(Form::Recipe(place)) if place.standing == Standing::Condemned => true,
            Some(Form::Recipe(place)) => match inner.recipe_at(content, place) {
                Ok(recipe) => {
                    let places = inner.index.chunks(recipe.chunks())?;
                    places.iter().all(|p| p.is_some_and(|p| p.standing != Standing::Suspect))
                }
                Err(_) => false,
            },
        })
    }

    /// Which contents have neither recipe nor chunk; what is suspect is counted elsewhere.
    fn missing_contents_unchecked(&self, contents: &[Digest]) -> Result<Vec<bool>, MaintainError> {
        let missing = |&content: &Digest| {
            let index = &self.inner.index;
            Ok(content != Digest::EMPTY
                && index.chunk(ChunkId(content))?.is_none()
                && index.recipe(content)?.is_none())
        };
        contents.iter().map(missing).collect()
    }

    /// What `repair` should ask for: all that is damaged or lost.
    pub fn damaged(&self, links: &dyn Links) -> Result<Vec<Digest>, MaintainError> {
        let mut found: BTreeSet<Digest> = self.suspects()?.into_iter().collect();
        let hit = self.hit_by(&BTreeSet::new(), links)?;
        found.extend(hit.into_iter().map(|content| content.digest));
        Ok(found.into_iter().collect())
    }
}

/// 0 to 99, the same for the same record.
fn sample(offset: u32) -> u32 {
    (offset.wrapping_mul(2_654_435_761) >> 8) % 100
}

/// Waits as long as so many bytes may take. Ends early when it is cancelled.
fn pace(
    bytes_per_second: Option<u64>,
    bytes: u64,
    progress: &Progress,
) -> Result<(), MaintainError> {
    let Some(rate) = bytes_per_second else { return Ok(()) };
    let mut left = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
    while !left.is_zero() {
        progress.check()?;
        let nap = left.min(NAP);
        std::thread::sleep(nap);
        left -= nap;
    }
    Ok(())
}
