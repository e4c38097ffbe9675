//! Reading packs: one record, a sealed pack's list of records, or all records from a place on.
//!
//! Bytes come from disks that lie: lengths are limited and checksums compared before anything is
//! believed.

use super::format::{
    BadPack, FooterEntry, Kind, PACK_HEADER, PackHeader, RECORD_HEADER, RecordHeader, TRAILER,
    Trailer, block_id, table_len,
};
use super::writer::{ALIAS_SHA1, ALIAS_SHA256, alias_body};
use crate::block::Frame;
use crate::digest::{ChunkId, Digest, Name, PackId};
use crate::error::OpenError;
use crate::recipe::Recipe;
use crate::store::{PackFile, is_media_error};
use bytes::Bytes;
use std::io;

/// How much of a sealed pack's end is read at once: the footer of a pack of a few thousand chunks
/// is in it, so one read gives the pack's index.
const TAIL: u64 = 256 << 10;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Bad(#[from] BadPack),
}

/// The pack's header.
pub(crate) fn pack_header(file: &dyn PackFile) -> Result<PackHeader, RecordError> {
    match file.read_alone(0..PACK_HEADER as u64) {
        Ok(bytes) => Ok(PackHeader::decode(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BadPack::Header.into()),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a pack that a newer depot wrote: nothing else of it may be believed, and nothing of it
/// may go. Whether it is sound is not asked.
pub(crate) fn refuse_newer(id: PackId, file: &dyn PackFile) -> Result<(), OpenError> {
    match pack_header(file) {
        Err(RecordError::Bad(BadPack::Newer(found))) => Err(OpenError::newer_pack(id, found)),
        _ => Ok(()),
    }
}

/// A record's header and body, checksums compared. `body_len` is what the index says.
pub(crate) fn record(
    file: &dyn PackFile,
    offset: u32,
    body_len: u32,
) -> Result<(RecordHeader, Bytes), RecordError> {
    let start = u64::from(offset);
    let end = start + RECORD_HEADER as u64 + u64::from(body_len);
    match file.read_at(start..end) {
        Ok(bytes) => Ok(record_in(bytes, offset, body_len)?),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(BadPack::Record(start).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The same, of `bytes` that were read: those of the record and no others.
pub(crate) fn record_in(
    mut bytes: Bytes,
    offset: u32,
    body_len: u32,
) -> Result<(RecordHeader, Bytes), BadPack> {
    let bad = BadPack::Record(offset.into());
    let header = RecordHeader::decode(&bytes).ok_or(bad.clone())?;
    let body = bytes.split_off(RECORD_HEADER);
    if header.body_len != body_len || crc32c::crc32c(&body) != header.body_crc {
        return Err(bad);
    }
    Ok((header, body))
}

/// The block of a block record.
pub(crate) fn frame(header: &RecordHeader, body: &Bytes, offset: u32) -> Result<Frame, BadPack> {
    let bad = BadPack::Record(offset.into());
    let lens = header.lens(body);
    let table = table_len(header.n_chunks);
    if header.kind != Kind::Block || body.len() < table {
        return Err(bad);
    }
    Frame::new(header.codec, lens, body.slice(table..)).map_err(|_| bad)
}

/// A sealed pack's records as its footer lists them, and where they end; `None` if the pack has
/// no trailer, because it was never sealed or its end is damaged.
pub(crate) fn footer(file: &dyn PackFile) -> Result<Option<(Vec<FooterEntry>, u64)>, RecordError> {
    let len = file.len()?;
    let mut tail_start = len.saturating_sub(TAIL);
    let mut tail = file.read_alone(tail_start..len);
    if tail.as_ref().is_err_and(is_media_error) {
        // A bad sector before the footer must not hide it.
        tail_start = len.saturating_sub(TRAILER as u64);
        tail = file.read_alone(tail_start..len);
    }
    let tail = tail?;
    let Some(trailer) = Trailer::decode(&tail, len) else { return Ok(None) };
    let end = len - TRAILER as u64;
    let footer = if trailer.footer_offset >= tail_start {
        tail.slice((trailer.footer_offset - tail_start) as usize..(end - tail_start) as usize)
    } else {
        file.read_alone(trailer.footer_offset..end)?
    };
    Ok(Some((trailer.entries(&footer)?, trailer.footer_offset)))
}

/// What a record says, once its body has been decoded.
#[derive(Debug)]
pub(crate) enum Said {
    Block(Vec<ChunkId>, Vec<u32>),
    Recipe(Recipe),
    Alias(Vec<Name>),
    Log(Bytes),
    /// Padding.
    Nothing,
}

/// A record found by reading a pack front to back.
#[derive(Debug)]
pub(crate) struct Found {
    pub header: RecordHeader,
    pub offset: u32,
    pub said: Said,
}

impl Found {
    /// The record as a footer would list it.
    pub(crate) fn footer_entry(&self) -> FooterEntry {
        let (names, size_high) = match &self.said {
            Said::Block(ids, lens) => {
                (ids.iter().map(|id| id.0).zip(lens.iter().copied()).collect(), 0)
            }
            Said::Recipe(recipe) => {
                let size = recipe.size();
                (vec![(self.header.id, size as u32)], (size >> 32) as u16)
            }
            Said::Alias(aliases) => {
                let mut names = vec![(self.header.id, 0)];
                names.extend(aliases.iter().map(|name| match name {
                    Name::Blake3(digest) => (*digest, 0),
                    Name::Sha256(hash) => (Digest::from_bytes(*hash), ALIAS_SHA256),
                    Name::Sha1(hash) => {
                        let mut padded = [0; 32];
                        padded[..20].copy_from_slice(hash);
                        (Digest::from_bytes(padded), ALIAS_SHA1)
                    }
                }));
                (names, 0)
            }
            Said::Log(_) | Said::Nothing => (vec![(self.header.id, 0)], 0),
        };
        let RecordHeader { kind, codec, body_len, .. } = self.header;
        FooterEntry { kind, codec, offset: self.offset, body_len, names, size_high }
    }
}

/// Reads records one after the other from `offset` on. Ends at the first byte that is no whole,
/// undamaged record: a torn end, or the footer.
pub(crate) struct Scan<'a> {
    file: &'a dyn PackFile,
    offset: u64,
    len: u64,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(file: &'a dyn PackFile, offset: u64) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, offset, len })
    }

    /// The next record that is no padding.
    fn read(&mut self) -> io::Result<Option<Found>> {
        loop {
            match self.read_one()? {
                Some(Found { said: Said::Nothing, .. }) => {}
                found => return Ok(found),
            }
        }
    }

    fn read_one(&mut self) -> io::Result<Option<Found>> {
        let body_at = self.offset + RECORD_HEADER as u64;
        if body_at > self.len || self.offset > u64::from(u32::MAX) {
            return Ok(None);
        }
        let head = self.file.read_at(self.offset..body_at)?;
        let Some(header) = RecordHeader::decode(&head) else { return Ok(None) };
        let end = self.offset + header.record_len();
        if end > self.len {
            return Ok(None);
        }
        let body = self.file.read_at(body_at..end)?;
        if crc32c::crc32c(&body) != header.body_crc {
            return Ok(None);
        }
        let offset = self.offset as u32;
        let said = match header.kind {
            Kind::Block => {
                let Ok(block) = frame(&header, &body, offset) else { return Ok(None) };
                let Ok(chunks) = block.chunks() else { return Ok(None) };
                let ids: Vec<ChunkId> = chunks.into_iter().map(|(id, _)| id).collect();
                if block_id(&ids) != header.id {
                    return Ok(None);
                }
                Said::Block(ids, block.lens().to_vec())
            }
            Kind::Recipe => match Recipe::decode(&body) {
                Ok(recipe) => Said::Recipe(recipe),
                Err(_) => return Ok(None),
            },
            Kind::Alias => Said::Alias(alias_body(&body)),
            Kind::Commit | Kind::Checkpoint => Said::Log(body),
            Kind::Padding => Said::Nothing,
        };
        self.offset = end;
        Ok(Some(Found { header, offset, said }))
    }
}

impl Iterator for Scan<'_> {
    type Item = io::Result<Found>;
    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
