//! Verifying in parts: some packs, or some contents, so that whoever looks after a library may do it
//! slowly, go on where it was, and look first where something is known to be wrong.
//!
//! What is found is marked as [`Library::verify`] marks it: not served, and healed by whoever brings
//! the bytes again.

use crate::commit::Relied;
use crate::digest::{ChunkId, Digest};
use crate::error::{MaintainError, ReadError};
use crate::index::{ChunkPlace, Form, PackInfo, PackState, Standing};
use crate::kv::{KvError, Table};
use crate::library::Library;
use crate::pack::format::PACK_HEADER;
use crate::progress::Progress;
use crate::store::PackStore;
use crate::verify::{BadContent, Entries, Found, VerifyOptions, VerifyReport};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Chunks that are compared at once when contents are verified, to bound the memory for their places.
const STEP: usize = 1 << 16;

/// A pack, as its library numbers it: older packs have smaller numbers, and none is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackSize {
    /// Its number.
    pub number: u32,
    /// Bytes of its records.
    pub bytes: u64,
}

impl Library {
    /// The packs that something may be in, the oldest first.
    pub fn pack_sizes(&self) -> Result<Vec<PackSize>, MaintainError> {
        let packs = self.inner.index.packs()?.into_iter();
        let used = packs.filter(|(_, info)| info.state != PackState::Condemned);
        Ok(used.map(|(number, info)| PackSize { number, bytes: info.len }).collect())
    }

    /// Packs whose file is gone, or shorter than what the library has in it: damage that shows without
    /// reading anything. A pack that is written to now is ended, so that nothing more goes into one of
    /// them.
    pub fn hurt_packs(&self) -> Result<Vec<u32>, MaintainError> {
        let inner = &self.inner;
        let is_short = |info: &PackInfo| match inner.store.open(info.id).and_then(|file| file.len())
        {
            Ok(len) => len < info.len,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        let mut hurt = Vec::new();
        for (number, info) in inner.index.packs()? {
            let counts = info.state != PackState::Condemned && info.len > PACK_HEADER as u64;
            if counts && is_short(&info) && !self.is_deleted(number)? {
                hurt.push(number);
            }
        }
        if !hurt.is_empty() {
            inner.seal_open_pack()?;
        }
        Ok(hurt)
    }

    /// An error if the index is gone from the disk, or cut: it may still answer now, and will not when
    /// the library is opened the next time. Then it is to be made anew ([`Library::rebuild_index`]).
    pub fn check_index(&self) -> Result<(), KvError> {
        self.inner.index.kv.check()
    }

    /// Reads the whole index, so that each of its checksums is compared.
    pub fn read_index(&self, progress: &Progress) -> Result<(), MaintainError> {
        for table in Table::ALL {
            let mut cancelled = Ok(());
            self.inner.index.kv.scan(table, &[], &mut |_, _| {
                cancelled = progress.check();
                if cancelled.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            cancelled?;
        }
        Ok(())
    }

    /// As [`Library::verify`], of the packs of these numbers alone; which contents are hit is not
    /// found out.
    pub fn verify_packs(
        &self,
        numbers: &[u32],
        options: &VerifyOptions,
        progress: &Progress,
    ) -> Result<VerifyReport, MaintainError> {
        self.inner.commit(Vec::new(), Relied::default())?;
        let mut packs = Vec::new();
        for number in numbers {
            packs.extend(self.inner.index.pack(*number)?.map(|info| (*number, info)));
        }
        let mut found = Found::default();
        self.verify_listed(&packs, options, progress, &mut found)?;
        found.report.bad_chunks = found.bad.iter().map(|id| id.0).collect();
        Ok(found.report)
    }

    /// Reads every byte of these contents from the disk and compares it. Those that are not whole
    /// are the report's `bad_contents`, without their holders.
    pub fn verify_contents(
        &self,
        contents: &[Digest],
        options: &VerifyOptions,
        progress: &Progress,
    ) -> Result<VerifyReport, MaintainError> {
        let inner = &self.inner;
        inner.commit(Vec::new(), Relied::default())?;
        let mut found = Found::default();
        let mut step = Step::default();
        for &content in contents {
            progress.check()?;
            match inner.index.form(content)? {
                Some(Form::Chunk(place)) => step.chunk(ChunkId(content), place),
                Some(Form::Recipe(place)) if place.standing != Standing::Suspect => {
                    step.of(place.pack).1.push((content, place));
                    match inner.recipe_at(content, place) {
                        Ok(recipe) => {
                            let places = inner.index.chunks(recipe.chunks())?;
                            for (id, place) in recipe.chunks().iter().zip(places) {
                                place.into_iter().for_each(|place| step.chunk(*id, place));
                            }
                        }
                        // Marked now, and told below.
                        Err(ReadError::Suspect { .. } | ReadError::Unknown(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Some(Form::Recipe(_)) | None => {}
            }
            if step.n_chunks >= STEP {
                self.verify_step(std::mem::take(&mut step), options, progress, &mut found)?;
            }
        }
        self.verify_step(step, options, progress, &mut found)?;
        let mut report = found.report;
        report.bad_chunks = found.bad.iter().map(|id| id.0).collect();
        for &digest in contents {
            let is_held = digest == Digest::EMPTY
                || inner.index.form(digest)?.is_some() && self.is_whole(digest)?;
            if !is_held {
                report.bad_contents.push(BadContent { digest, holders: Vec::new() });
            }
        }
        Ok(report)
    }

    fn verify_step(
        &self,
        step: Step,
        options: &VerifyOptions,
        progress: &Progress,
        found: &mut Found,
    ) -> Result<(), MaintainError> {
        for (number, mut entries) in step.packs {
            let Some(info) = self.inner.index.pack(number)? else { continue };
            let file = match self.inner.store.open(info.id) {
                Ok(file) => Some(file),
                // Garbage collection moved what was in it.
                Err(_) if self.is_deleted(number)? => continue,
                Err(_) => None,
            };
            for chunks in entries.0.values_mut() {
                let mut seen = BTreeSet::new();
                chunks.retain(|(_, place)| seen.insert(place.at));
            }
            found.report.packs += 1;
            self.verify_records((number, file), entries, options, progress, found)?;
        }
        Ok(())
    }
}

/// What is compared at once.
#[derive(Default)]
struct Step {
    packs: BTreeMap<u32, Entries>,
    n_chunks: usize,
}

impl Step {
    fn of(&mut self, pack: u32) -> &mut Entries {
        self.packs.entry(pack).or_default()
    }

    fn chunk(&mut self, id: ChunkId, place: ChunkPlace) {
        // What is known to be damaged needs no look.
        if place.standing != Standing::Suspect {
            self.of(place.pack).0.entry(place.offset).or_default().push((id, place));
            self.n_chunks += 1;
        }
    }
}
