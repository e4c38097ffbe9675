//! The bytes of a pack: header, records, footer, trailer (`contentlib/FORMAT.md`, "Pack").
//!
//! Encoders and decoders only; no I/O. Decoders take bytes from anywhere: every length is
//! checked before it is used, and a checksum guards each structure.

use crate::block::{Codec, MAX_BLOCK_CHUNKS, MAX_BLOCK_PLAIN};
use crate::chunker::MAX_CHUNK;
use crate::digest::{ChunkId, Digest, PackId};
use crate::frames::{lens_bytes, read_lens};

/// The format version that this code writes, and the newest it reads.
pub(crate) const VERSION: u16 = 1;
pub(crate) const PACK_HEADER: usize = 64;
pub(crate) const RECORD_HEADER: usize = 64;
pub(crate) const TRAILER: usize = 64;
/// No record is longer: a recipe of the most chunks fits, and a block is far below.
pub(crate) const MAX_BODY: usize = 80 << 20;
/// Raw blocks begin their chunks at a multiple of this. Whole pages are what the kernel sends from a
/// file, and a client takes bytes that come in whole pages up to twice as fast.
pub(crate) const PAGE: u64 = 4096;
/// Shorter raw blocks are not worth the padding.
const ALIGNED_MIN: u32 = 64 << 10;
/// Packs and runs are numbered below this, so that counting on never overflows.
const MAX_NUMBER: u32 = 1 << 31;
/// The same for commits.
const MAX_SEQ: u64 = 1 << 62;
const PACK_MAGIC: [u8; 8] = *b"depotpk\n";
const TRAILER_MAGIC: [u8; 8] = *b"depotend";
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"dRec");

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Chunks.
    Block = 1,
    /// One content's recipe.
    Recipe = 2,
    /// One content's other names.
    Alias = 3,
    /// Ref changes, and the mark that all records before are committed.
    Commit = 4,
    /// All refs at one moment.
    Checkpoint = 5,
    /// Nothing: zeros that bring what follows to a page's beginning.
    Padding = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        let all = [Block, Recipe, Alias, Commit, Checkpoint, Padding];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Bytes of a pack that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPack {
    /// The file is no pack.
    #[error("it does not begin as a pack does")]
    Header,
    /// A newer version wrote it.
    #[error("its format is version {0}; this depot reads up to version {VERSION}")]
    Newer(u16),
    /// A record whose header fails its checksum or is outside the limits.
    #[error("the record at byte {0} is damaged")]
    Record(u64),
    /// The footer or trailer fails its checksum.
    #[error("its footer is damaged")]
    Footer,
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn digest_at(bytes: &[u8], at: usize) -> Digest {
    Digest::from_bytes(bytes[at..at + 32].try_into().expect("32 bytes"))
}

/// The first bytes of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub id: PackId,
    pub library: u128,
    /// Packs of one library are numbered in the order they were opened.
    pub seq: u32,
    /// Counts the times the library was opened to write, and the syncs that failed. Records that
    /// no commit of their own run covers were never acknowledged, and a later run's commit does
    /// not adopt them.
    pub run: u32,
}

impl PackHeader {
    pub(crate) fn encode(&self) -> [u8; PACK_HEADER] {
        let mut out = [0; PACK_HEADER];
        out[..8].copy_from_slice(&PACK_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.run.to_le_bytes());
        out[16..32].copy_from_slice(&self.id.0.to_be_bytes());
        out[32..48].copy_from_slice(&self.library.to_be_bytes());
        out[48..52].copy_from_slice(&self.seq.to_le_bytes());
        let sum = crc(&out[..60]);
        out[60..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadPack> {
        let bytes = bytes.get(..PACK_HEADER).ok_or(BadPack::Header)?;
        if bytes[..8] != PACK_MAGIC {
            return Err(BadPack::Header);
        }
        // All versions have magic, version and checksum where they are here: a flipped bit must not
        // look like a newer version, which nobody but a newer depot may touch.
        if u32_at(bytes, 60) != crc(&bytes[..60]) {
            return Err(BadPack::Header);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(BadPack::Newer(version));
        }
        let id = PackId(u128::from_be_bytes(bytes[16..32].try_into().expect("16 bytes")));
        let library = u128::from_be_bytes(bytes[32..48].try_into().expect("16 bytes"));
        let (seq, run) = (u32_at(bytes, 48), u32_at(bytes, 12));
        if seq >= MAX_NUMBER || run >= MAX_NUMBER {
            return Err(BadPack::Header);
        }
        Ok(Self { id, library, seq, run })
    }
}

/// The 64 bytes before each record's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: Kind,
    pub codec: Codec,
    /// Chunks of a block; 0 for other kinds. Above 1 the body begins with their lengths.
    pub n_chunks: u16,
    pub body_len: u32,
    /// Plain bytes of a block's chunks; otherwise the body's length.
    pub plain_len: u32,
    /// A block's single chunk; the BLAKE3 of all its chunks' ids; the content of a recipe or
    /// alias; otherwise the BLAKE3 of the body.
    pub id: Digest,
    pub body_crc: u32,
    /// Commits and checkpoints are numbered in order; 0 for other kinds.
    pub seq: u64,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.codec as u8;
        out[6..8].copy_from_slice(&self.n_chunks.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.plain_len.to_le_bytes());
        out[16..48].copy_from_slice(self.id.as_bytes());
        out[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        out[52..60].copy_from_slice(&self.seq.to_le_bytes());
        let sum = crc(&out[..60]);
        out[60..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None` for bytes that are no record header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if u32_at(bytes, 0) != RECORD_MAGIC || u32_at(bytes, 60) != crc(&bytes[..60]) {
            return None;
        }
        let header = Self {
            kind: Kind::from_byte(bytes[4])?,
            codec: Codec::from_byte(bytes[5])?,
            n_chunks: u16::from_le_bytes([bytes[6], bytes[7]]),
            body_len: u32_at(bytes, 8),
            plain_len: u32_at(bytes, 12),
            id: digest_at(bytes, 16),
            body_crc: u32_at(bytes, 48),
            seq: u64_at(bytes, 52),
        };
        let n = usize::from(header.n_chunks);
        let n_fits =
            if header.kind == Kind::Block { (1..=MAX_BLOCK_CHUNKS).contains(&n) } else { n == 0 };
        let len_fits = header.body_len as usize <= MAX_BODY
            && header.body_len as usize >= table_len(header.n_chunks);
        (n_fits && len_fits && header.seq < MAX_SEQ).then_some(header)
    }

    /// The header of a padding whose body is `zeros`.
    pub(crate) fn padding(zeros: &[u8]) -> Self {
        let len = zeros.len() as u32;
        Self {
            kind: Kind::Padding,
            codec: Codec::Raw,
            n_chunks: 0,
            body_len: len,
            plain_len: len,
            id: Digest::from_bytes([0; 32]),
            body_crc: crc(zeros),
            seq: 0,
        }
    }

    /// How many bytes of padding, its header included, belong before this record at `offset`, so
    /// that the chunks of a raw block begin at a page's beginning.
    pub(crate) fn padding_before(&self, offset: u64) -> usize {
        if self.kind != Kind::Block || self.codec != Codec::Raw || self.body_len < ALIGNED_MIN {
            return 0;
        }
        let chunks_at = offset + (RECORD_HEADER + table_len(self.n_chunks)) as u64;
        match (chunks_at.next_multiple_of(PAGE) - chunks_at) as usize {
            0 => 0,
            short if short < RECORD_HEADER => short + PAGE as usize,
            enough => enough,
        }
    }

    /// The bytes of header and body together.
    pub(crate) fn record_len(&self) -> u64 {
        (RECORD_HEADER + self.body_len as usize) as u64
    }

    /// A block's chunk lengths, from its body.
    pub(crate) fn lens(&self, body: &[u8]) -> Vec<u32> {
        if self.n_chunks == 1 {
            vec![self.plain_len]
        } else {
            read_lens(&body[..table_len(self.n_chunks).min(body.len())])
        }
    }
}

/// The bytes of the chunk lengths in front of a block's stored bytes.
pub(crate) fn table_len(n_chunks: u16) -> usize {
    if n_chunks > 1 { 4 * usize::from(n_chunks) } else { 0 }
}

/// The chunk lengths as a block's body begins with them.
pub(crate) fn table(lens: &[u32]) -> Vec<u8> {
    if lens.len() > 1 { lens_bytes(lens) } else { Vec::new() }
}

/// A block's id, from those of its chunks.
pub(crate) fn block_id(chunks: &[ChunkId]) -> Digest {
    match chunks {
        [one] => one.0,
        many => {
            let mut hasher = blake3::Hasher::new();
            for chunk in many {
                hasher.update(chunk.0.as_bytes());
            }
            Digest::from_bytes(*hasher.finalize().as_bytes())
        }
    }
}

/// One record as the footer lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FooterEntry {
    pub kind: Kind,
    pub codec: Codec,
    pub offset: u32,
    pub body_len: u32,
    /// Of a block, its chunks with their plain lengths. Of a recipe, the content and the low half
    /// of its size. Of an alias, the content and a code for each other name, then those names,
    /// padded with zeros. Of other kinds, the record's id.
    pub names: Vec<(Digest, u32)>,
    /// The high half of a recipe's size; otherwise 0.
    pub size_high: u16,
}

const FOOTER_ENTRY: usize = 16;
const FOOTER_NAME: usize = 36;

/// Footer and trailer of a pack whose records end at `footer_offset`.
pub(crate) fn encode_footer(entries: &[FooterEntry], footer_offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(&[entry.kind as u8, entry.codec as u8]);
        out.extend_from_slice(&(entry.names.len() as u16).to_le_bytes());
        out.extend_from_slice(&entry.size_high.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.body_len.to_le_bytes());
        for (id, len) in &entry.names {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        }
    }
    let mut trailer = [0; TRAILER];
    trailer[..8].copy_from_slice(&TRAILER_MAGIC);
    trailer[8..16].copy_from_slice(&footer_offset.to_le_bytes());
    trailer[16..20].copy_from_slice(&(out.len() as u32).to_le_bytes());
    trailer[20..24].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    trailer[24..56].copy_from_slice(Digest::of(&out).as_bytes());
    trailer[56..58].copy_from_slice(&VERSION.to_le_bytes());
    let sum = crc(&trailer[..60]);
    trailer[60..].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&trailer);
    out
}

/// Where a sealed pack's footer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub footer_offset: u64,
    pub footer_len: u32,
    n_entries: u32,
    footer_digest: Digest,
}

impl Trailer {
    /// `None` if `bytes` (the last of a pack of `pack_len` bytes) are no trailer: the pack was
    /// never sealed, or is damaged.
    pub(crate) fn decode(bytes: &[u8], pack_len: u64) -> Option<Self> {
        let bytes = bytes.get(bytes.len().checked_sub(TRAILER)?..)?;
        if bytes[..8] != TRAILER_MAGIC || u32_at(bytes, 60) != crc(&bytes[..60]) {
            return None;
        }
        let found = Self {
            footer_offset: u64_at(bytes, 8),
            footer_len: u32_at(bytes, 16),
            n_entries: u32_at(bytes, 20),
            footer_digest: digest_at(bytes, 24),
        };
        let end = found.footer_offset.checked_add(u64::from(found.footer_len))?;
        (end.checked_add(TRAILER as u64)? == pack_len).then_some(found)
    }

    /// The entries of `footer`, whose bytes must be those that the trailer was written for.
    pub(crate) fn entries(&self, footer: &[u8]) -> Result<Vec<FooterEntry>, BadPack> {
        if footer.len() != self.footer_len as usize || Digest::of(footer) != self.footer_digest {
            return Err(BadPack::Footer);
        }
        let most = footer.len() / (FOOTER_ENTRY + FOOTER_NAME);
        let mut entries = Vec::with_capacity((self.n_entries as usize).min(most));
        let mut rest = footer;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_checked(FOOTER_ENTRY).ok_or(BadPack::Footer)?;
            let kind = Kind::from_byte(head[0]).ok_or(BadPack::Footer)?;
            let codec = Codec::from_byte(head[1]).ok_or(BadPack::Footer)?;
            let n = usize::from(u16::from_le_bytes([head[2], head[3]]));
            if n == 0 {
                return Err(BadPack::Footer);
            }
            let (names, tail) = tail.split_at_checked(n * FOOTER_NAME).ok_or(BadPack::Footer)?;
            let names = names.chunks_exact(FOOTER_NAME);
            let entry = FooterEntry {
                kind,
                codec,
                size_high: u16::from_le_bytes([head[4], head[5]]),
                offset: u32_at(head, 8),
                body_len: u32_at(head, 12),
                names: names.map(|name| (digest_at(name, 0), u32_at(name, 32))).collect(),
            };
            if !self.is_possible(&entry) {
                return Err(BadPack::Footer);
            }
            entries.push(entry);
            rest = tail;
        }
        Ok(entries)
    }

    /// Whether an entry lies within the pack and a block's chunks within the limits: later code
    /// adds these numbers up.
    fn is_possible(&self, entry: &FooterEntry) -> bool {
        let end = u64::from(entry.offset) + RECORD_HEADER as u64 + u64::from(entry.body_len);
        let plain: u64 = entry.names.iter().map(|(_, len)| u64::from(*len)).sum();
        let chunk = |&(_, len): &(Digest, u32)| (1..=MAX_CHUNK as u32).contains(&len);
        end <= self.footer_offset
            && (entry.kind != Kind::Block
                || entry.names.len() <= MAX_BLOCK_CHUNKS
                    && plain <= MAX_BLOCK_PLAIN as u64
                    && entry.names.iter().all(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: Kind::Block,
            codec: Codec::Zstd,
            n_chunks: 2,
            body_len: 100,
            plain_len: 300,
            id: Digest::of(b"id"),
            body_crc: 7,
            seq: 9,
        }
    }

    #[test]
    fn headers_read_back_and_any_flipped_bit_is_found() {
        let pack = PackHeader { id: PackId(5), library: 6, seq: 7, run: 8 };
        assert_eq!(PackHeader::decode(&pack.encode()), Ok(pack.clone()));
        assert_eq!(RecordHeader::decode(&header().encode()), Some(header()));
        for bit in 0..512 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes), None, "bit {bit}");
            let mut bytes = pack.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(PackHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let mut bytes = PackHeader { id: PackId(5), library: 6, seq: 7, run: 8 }.encode();
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert_eq!(PackHeader::decode(&bytes), Err(BadPack::Header), "a flipped bit");
        let sum = crc(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(PackHeader::decode(&bytes), Err(BadPack::Newer(VERSION + 1)));
    }

    #[test]
    fn numbers_that_could_not_be_counted_on_are_refused() {
        for (seq, run) in [(MAX_NUMBER, 0), (0, MAX_NUMBER)] {
            let bytes = PackHeader { id: PackId(5), library: 6, seq, run }.encode();
            assert_eq!(PackHeader::decode(&bytes), Err(BadPack::Header));
        }
        let record = RecordHeader { seq: u64::MAX, ..header() };
        assert_eq!(RecordHeader::decode(&record.encode()), None);
    }

    #[test]
    fn the_chunks_of_a_long_raw_block_begin_at_a_page() {
        let raw = RecordHeader { codec: Codec::Raw, body_len: 1 << 20, ..header() };
        for offset in 64..3 * PAGE {
            let padding = raw.padding_before(offset);
            assert_eq!((offset + padding as u64 + 64 + 8) % PAGE, 0);
            assert!(
                padding == 0 || (RECORD_HEADER..PAGE as usize + RECORD_HEADER).contains(&padding)
            );
        }
        assert_eq!(RecordHeader { body_len: 1000, ..raw }.padding_before(64), 0);
        assert_eq!(header().padding_before(64), 0);
    }

    proptest! {
        #[test]
        fn footers_read_back(
            blocks in prop::collection::vec(
                (0u32..500, prop::collection::vec(1..=MAX_CHUNK as u32, 1..9)), 0..9,
            ),
        ) {
            let entries: Vec<_> = blocks.into_iter().map(|(offset, lens)| FooterEntry {
                kind: if lens.len() == 1 { Kind::Recipe } else { Kind::Block },
                codec: Codec::Raw,
                offset,
                body_len: offset / 2,
                size_high: offset as u16,
                names: lens.iter().map(|&n| (Digest::of(&n.to_le_bytes()), n)).collect(),
            }).collect();
            let bytes = encode_footer(&entries, 1000);
            let trailer = Trailer::decode(&bytes, 1000 + bytes.len() as u64).unwrap();
            let footer = &bytes[..bytes.len() - TRAILER];
            prop_assert_eq!(trailer.entries(footer), Ok(entries));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = PackHeader::decode(&bytes);
            let _ = RecordHeader::decode(&bytes);
            let _ = Trailer::decode(&bytes, bytes.len() as u64);
            let whole = Trailer {
                footer_offset: 0,
                footer_len: bytes.len() as u32,
                n_entries: u32::MAX,
                footer_digest: Digest::of(&bytes),
            };
            let _ = whole.entries(&bytes);
        }
    }
}
