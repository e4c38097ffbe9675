//! Handing chunks to another depot, and taking back content whose bytes went bad.

use crate::block::{Codec, Frame};
use crate::commit::Relied;
use crate::digest::{ChunkId, Digest};
use crate::error::{MaintainError, ReadError};
use crate::frames::FrameItem;
use crate::index::{ChunkPlace, Standing};
use crate::library::{Library, REVOKED};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::refs::{Expect, Ref, RefChange};
use bytes::Bytes;
use std::collections::VecDeque;

/// A run of raw chunks is sent as frames of about this size.
const RAW_FRAME: usize = 1 << 20;

/// Frames for chunks that somebody asked for, in an order that reads packs forward.
pub struct FrameStream {
    library: Library,
    /// Wanted chunks by block.
    blocks: VecDeque<Vec<(ChunkId, ChunkPlace)>>,
    missing: VecDeque<ChunkId>,
    ended: bool,
}

impl Library {
    /// Frames that hold `wanted`, each chunk once. A block of which all chunks are wanted goes as
    /// it lies in the pack; of others the wanted chunks are packed anew. Chunks that are not held,
    /// are damaged, or are themselves a content that was revoked, are named as missing; those of a
    /// revoked content of several chunks may be other contents' too, and are given. Each call of
    /// `next` may wait for the disk.
    pub fn frames_for(&self, wanted: &[ChunkId]) -> Result<FrameStream, ReadError> {
        let mut unique = wanted.to_vec();
        unique.sort();
        unique.dedup();
        let places = self.inner.index.chunks(&unique)?;
        let mut held = Vec::new();
        let mut missing = VecDeque::new();
        for (id, place) in unique.into_iter().zip(places) {
            match place {
                Some(place) if place.standing != Standing::Suspect => held.push((id, place)),
                _ => missing.push_back(id),
            }
        }
        held.sort_by_key(|(_, place)| (place.pack, place.offset, place.at));
        let same = |a: &(ChunkId, ChunkPlace), b: &(ChunkId, ChunkPlace)| {
            (a.1.pack, a.1.offset) == (b.1.pack, b.1.offset)
        };
        let blocks = held.chunk_by(same).map(<[_]>::to_vec).collect();
        Ok(FrameStream { library: self.clone(), blocks, missing, ended: false })
    }
}

/// What chunks take, each as often as it is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Plain bytes.
    pub plain: u64,
    /// About the bytes that they take as frames.
    pub stored: u64,
}

impl Library {
    /// What `chunks` take; nothing if one of them is not held, is known to be damaged, or is itself a
    /// content that was revoked. No pack is read.
    pub fn cost_of(&self, chunks: &[ChunkId]) -> Result<Option<Cost>, ReadError> {
        let (n, cost) = self.cost_of_held(chunks)?;
        Ok((n == chunks.len() as u64).then_some(cost))
    }

    /// How many of `chunks` are held, not known to be damaged, and no contents that were revoked; and
    /// what those take. No pack is read.
    pub fn cost_of_held(&self, chunks: &[ChunkId]) -> Result<(u64, Cost), ReadError> {
        let (mut n, mut cost) = (0, Cost::default());
        for (id, place) in chunks.iter().zip(self.inner.index.chunks(chunks)?) {
            let place = place.filter(|place| place.standing != Standing::Suspect);
            let Some(place) = place.filter(|_| !self.has_revoked(&[*id])) else { continue };
            n += 1;
            cost.plain += u64::from(place.plain_len);
            cost.stored += match place.codec {
                Codec::Raw => u64::from(place.plain_len),
                // Its share of the block, as if the block's chunks were all alike.
                Codec::Zstd => u64::from(place.body_len).div_ceil(place.n_chunks.max(1).into()),
            };
        }
        Ok((n, cost))
    }

    /// Whether one of `chunks` is itself a content that was revoked.
    pub fn has_revoked(&self, chunks: &[ChunkId]) -> bool {
        let revoked = self.inner.revoked.read();
        chunks.iter().any(|id| revoked.contains(id.0))
    }
}

impl FrameStream {
    fn block(&mut self, mut chunks: Vec<(ChunkId, ChunkPlace)>) -> Option<FrameItem> {
        let inner = &self.library.inner;
        {
            // Here and not when the stream is made: what is revoked is revoked at once. A block that
            // has one of them is never wanted whole, so it does not go as it lies.
            let revoked = inner.revoked.read();
            chunks.retain(|(id, _)| {
                let is_revoked = revoked.contains(id.0);
                self.missing.extend(is_revoked.then_some(*id));
                !is_revoked
            });
        }
        let (_, first) = chunks.first()?;
        if chunks.len() == usize::from(first.n_chunks)
            && first.codec == Codec::Zstd
            && let Ok(frame) = inner.block_at(first)
        {
            return Some(FrameItem::Block(frame));
        }
        let mut plain: Vec<Bytes> = Vec::new();
        let mut taken = 0;
        let mut size = 0;
        for (id, place) in &chunks {
            if first.codec == Codec::Raw && size >= RAW_FRAME {
                break;
            }
            taken += 1;
            match inner.chunk_at(*id, place, id.0) {
                Ok(bytes) => {
                    size += bytes.len();
                    plain.push(bytes);
                }
                Err(error) => {
                    tracing::warn!(chunk = %id, %error, "a chunk that was asked for is not sent");
                    self.missing.push_back(*id);
                }
            }
        }
        if taken < chunks.len() {
            self.blocks.push_front(chunks[taken..].to_vec());
        }
        let packed = first.codec == Codec::Zstd;
        (!plain.is_empty()).then(|| FrameItem::Block(Frame::pack(&plain, packed)))
    }
}

impl Iterator for FrameStream {
    type Item = FrameItem;

    fn next(&mut self) -> Option<FrameItem> {
        while let Some(chunks) = self.blocks.pop_front() {
            if let Some(item) = self.block(chunks) {
                return Some(item);
            }
        }
        if let Some(missing) = self.missing.pop_front() {
            return Some(FrameItem::Missing(missing));
        }
        if self.ended {
            return None;
        }
        self.ended = true;
        Some(FrameItem::End)
    }
}

/// Where repair gets good bytes from.
pub trait RepairSource {
    /// Frames that hold some or all of `chunks`; at most [`REPAIR_BATCH`] are asked for at once.
    fn frames(
        &mut self,
        chunks: &[ChunkId],
    ) -> Result<Vec<Frame>, Box<dyn std::error::Error + Send + Sync>>;
    /// The recipe of `content`, if the holder has it.
    fn recipe(
        &mut self,
        content: Digest,
    ) -> Result<Option<Recipe>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Chunks that repair asks for at once.
pub const REPAIR_BATCH: usize = 256;

/// What repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RepairReport {
    /// Chunks and recipes that were damaged or lost.
    pub wanted: u64,
    /// Of them, those that are whole again, read back and hashed.
    pub healed: u64,
    /// Those that no holder had.
    pub lost: Vec<Digest>,
}

impl Library {
    /// Heals `damaged` chunks and contents with another holder's bytes. Everything that arrives
    /// is hashed before it counts.
    pub fn repair(
        &self,
        damaged: &[Digest],
        holder: &mut dyn RepairSource,
        progress: &Progress,
    ) -> Result<RepairReport, MaintainError> {
        let failed = |source| MaintainError::Holder { source };
        let session = self.session();
        let mut report = RepairReport { wanted: damaged.len() as u64, ..Default::default() };
        // Recipes first: they tell which chunks a lost content needs.
        let mut chunks = Vec::new();
        let mut recipes = Vec::new();
        for &digest in damaged {
            progress.check()?;
            match holder.recipe(digest).map_err(failed)? {
                Some(recipe) if recipe.len() > 1 => {
                    let missing = self.missing_chunks(recipe.chunks())?;
                    let ids = recipe.chunks().iter().zip(missing);
                    chunks.extend(ids.filter(|(_, missing)| *missing).map(|(id, _)| *id));
                    recipes.push((digest, recipe));
                }
                _ => chunks.push(ChunkId(digest)),
            }
        }
        chunks.sort();
        chunks.dedup();
        for batch in chunks.chunks(REPAIR_BATCH) {
            progress.check()?;
            for frame in holder.frames(batch).map_err(failed)? {
                session.put_frame(&frame)?;
                progress.add(&progress.bytes, frame.stored().len() as u64);
            }
        }
        session.commit(Vec::new())?;
        for (digest, recipe) in recipes {
            match session.put_recipe(digest, &recipe) {
                Ok(()) => {}
                Err(error) => tracing::warn!(content = %digest, %error, "not healed"),
            }
        }
        session.commit(Vec::new())?;
        for &digest in damaged {
            let healed = match self.open_content(digest) {
                Ok(reader) => reader.copy_to(0..reader.size(), &mut std::io::sink()).is_ok(),
                Err(_) => false,
            };
            if healed {
                report.healed += 1;
            } else {
                report.lost.push(digest);
            }
            progress.add(&progress.files, 1);
        }
        Ok(report)
    }

    /// Forbids a content: it is no longer read, and not taken in again, until
    /// [`Library::unrevoke`].
    pub fn revoke(&self, digest: Digest, reason: &str) -> Result<(), MaintainError> {
        let name = format!("{REVOKED}{}", digest.to_hex());
        let to = Ref { root: None, value: Bytes::copy_from_slice(reason.as_bytes()) };
        self.inner
            .commit(vec![RefChange::Set { name, to, expect: Expect::Any }], Relied::default())?;
        self.inner.changed();
        Ok(())
    }

    /// Allows a content again.
    pub fn unrevoke(&self, digest: Digest) -> Result<(), MaintainError> {
        let name = format!("{REVOKED}{}", digest.to_hex());
        self.inner
            .commit(vec![RefChange::Delete { name, expect: Expect::Any }], Relied::default())?;
        self.inner.changed();
        Ok(())
    }

    /// The contents that are revoked, with the reasons.
    pub fn revocations(&self) -> Vec<(Digest, String)> {
        let revoked = self.inner.revoked.read();
        let reason = |to: &Ref| String::from_utf8_lossy(&to.value).into_owned();
        revoked.by_digest.iter().map(|(digest, to)| (*digest, reason(to))).collect()
    }
}
