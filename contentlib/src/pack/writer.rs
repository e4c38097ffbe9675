//! Writing one pack: records at its end, then the footer.
//!
//! Always true: [`PackWriter::len`] is the end of the last record that was written whole. A write
//! that failed leaves bytes after it that nothing names; such a pack gets no footer.

use super::format::{
    FooterEntry, Kind, PACK_HEADER, PAGE, PackHeader, RECORD_HEADER, RecordHeader, encode_footer,
    table,
};
use crate::block::{BlockView, Codec};
use crate::digest::{ChunkId, Digest, Name};
use crate::pack::format::block_id;
use crate::recipe::Recipe;
use crate::store::{PackFile, PackStore};
use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Pieces written in one call; the system takes 1024 and the record has four of its own.
const MOST_PIECES: usize = 512;
/// The longest padding.
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// A record ready to append: header and body, checksums done.
pub(crate) struct Record<'a> {
    header: RecordHeader,
    parts: Vec<Cow<'a, [u8]>>,
    names: Vec<(Digest, u32)>,
    size_high: u16,
}

impl<'a> Record<'a> {
    fn new(kind: Kind, codec: Codec, id: Digest, parts: Vec<Cow<'a, [u8]>>) -> Self {
        let body_len = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
        let body_crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let header = RecordHeader {
            kind,
            codec,
            n_chunks: 0,
            body_len,
            plain_len: body_len,
            id,
            body_crc,
            seq: 0,
        };
        Self { header, parts, names: vec![(id, 0)], size_high: 0 }
    }

    /// A block whose chunks hash to `chunks`.
    pub(crate) fn block(block: &BlockView<'a>, chunks: &[ChunkId]) -> Self {
        let mut parts: Vec<Cow<'a, [u8]>> = Vec::with_capacity(1 + block.stored.len());
        if block.lens.len() > 1 {
            parts.push(table(&block.lens).into());
        }
        if block.stored.len() > MOST_PIECES {
            parts.push(block.stored.concat().into());
        } else {
            parts.extend(block.stored.iter().map(|&piece| Cow::from(piece)));
        }
        let mut record = Self::new(Kind::Block, block.codec, block_id(chunks), parts);
        record.header.n_chunks = chunks.len() as u16;
        record.header.plain_len = block.plain_len();
        record.names = chunks.iter().map(|c| c.0).zip(block.lens.iter().copied()).collect();
        record
    }

    pub(crate) fn recipe(content: Digest, recipe: &Recipe) -> Self {
        let parts = vec![Cow::from(recipe.encode())];
        let mut record = Self::new(Kind::Recipe, Codec::Raw, content, parts);
        record.names = vec![(content, recipe.size() as u32)];
        record.size_high = (recipe.size() >> 32) as u16;
        record
    }

    /// Other names of `content`. `Name::Blake3` is none and is left out.
    pub(crate) fn alias(content: Digest, names: &[Name]) -> Self {
        let mut body = Vec::new();
        let mut listed = vec![(content, 0)];
        for name in names {
            let mut padded = [0; 32];
            let code = match name {
                Name::Blake3(_) => continue,
                Name::Sha256(hash) => {
                    padded = *hash;
                    ALIAS_SHA256
                }
                Name::Sha1(hash) => {
                    padded[..20].copy_from_slice(hash);
                    ALIAS_SHA1
                }
            };
            body.push(code as u8);
            body.extend_from_slice(&padded);
            listed.push((Digest::from_bytes(padded), code));
        }
        let mut record = Self::new(Kind::Alias, Codec::Raw, content, vec![body.into()]);
        record.names = listed;
        record
    }

    /// A commit or checkpoint.
    pub(crate) fn log(kind: Kind, seq: u64, body: Vec<u8>) -> Self {
        let mut record = Self::new(kind, Codec::Raw, Digest::of(&body), vec![body.into()]);
        record.header.seq = seq;
        record
    }

    pub(crate) fn header(&self) -> &RecordHeader {
        &self.header
    }
}

pub(crate) const ALIAS_SHA256: u32 = 2;
pub(crate) const ALIAS_SHA1: u32 = 1;

/// The names in an alias record's footer entry or body.
pub(crate) fn alias_names(listed: &[(Digest, u32)]) -> Vec<Name> {
    let name = |&(padded, code): &(Digest, u32)| match code {
        ALIAS_SHA256 => Some(Name::Sha256(*padded.as_bytes())),
        ALIAS_SHA1 => Some(Name::Sha1(padded.as_bytes()[..20].try_into().expect("20 of 32 bytes"))),
        _ => None,
    };
    listed.iter().filter_map(name).collect()
}

/// The names in an alias record's body.
pub(crate) fn alias_body(body: &[u8]) -> Vec<Name> {
    let listed = body.chunks_exact(33).map(|entry| {
        let padded: [u8; 32] = entry[1..].try_into().expect("33 bytes");
        (Digest::from_bytes(padded), u32::from(entry[0]))
    });
    alias_names(&listed.collect::<Vec<_>>())
}

/// A pack that is written to.
pub(crate) struct PackWriter {
    pub header: PackHeader,
    pub file: Arc<dyn PackFile>,
    len: u64,
    entries: Vec<FooterEntry>,
    /// A write failed: what lies past `len` is anything.
    broken: bool,
    /// The end of what was made durable and published.
    pub published: u64,
}

impl PackWriter {
    pub(crate) fn create(store: &dyn PackStore, header: PackHeader) -> io::Result<Self> {
        let file = store.create(header.id)?;
        file.write_at(0, &[IoSlice::new(&header.encode())])?;
        let len = PACK_HEADER as u64;
        Ok(Self { header, file, len, entries: Vec::new(), broken: false, published: len })
    }

    /// The end of the last record.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Nothing more may be written here.
    pub(crate) fn break_off(&mut self) {
        self.broken = true;
    }

    /// Writes a record at the end, after the padding that belongs there. Returns its offset.
    pub(crate) fn append(&mut self, record: Record<'_>) -> io::Result<u32> {
        let padding = record.header.padding_before(self.len);
        let zeros = &ZEROS[..padding.saturating_sub(RECORD_HEADER)];
        let offset = (self.len + padding as u64) as u32;
        let pad_head = RecordHeader::padding(zeros).encode();
        let head = record.header.encode();
        let mut slices = Vec::with_capacity(3 + record.parts.len());
        if padding > 0 {
            slices.extend([IoSlice::new(&pad_head), IoSlice::new(zeros)]);
        }
        slices.push(IoSlice::new(&head));
        slices.extend(record.parts.iter().map(|part| IoSlice::new(part)));
        if let Err(error) = self.file.write_at(self.len, &slices) {
            self.broken = true;
            return Err(error);
        }
        self.len = u64::from(offset) + record.header.record_len();
        self.entries.push(FooterEntry {
            kind: record.header.kind,
            codec: record.header.codec,
            offset,
            body_len: record.header.body_len,
            names: record.names,
            size_high: record.size_high,
        });
        Ok(offset)
    }

    /// Writes the footer; a sync must follow. Not for a broken pack.
    pub(crate) fn write_footer(&mut self) -> io::Result<()> {
        let footer = encode_footer(&self.entries, self.len);
        self.file.write_at(self.len, &[IoSlice::new(&footer)])
    }
}
