//! Frames: many chunks in one stream, as one depot sends them to another.
//!
//! The answer to a request for chunks is a run of items: blocks with their stored bytes as they
//! lie in a pack, the names of chunks that are not held, and an end mark that tells a complete
//! stream from one cut off. Media type [`MEDIA_TYPE`]; `contentlib/FORMAT.md`, "Frames".
//!
//! Always true of what [`FrameDecoder`] returns: lengths within the block limits and a CRC-32C
//! that matched. Whether the bytes are the chunks that were asked for, only their hashes tell.

use crate::block::{Codec, Frame, MAX_BLOCK_CHUNKS, MAX_BLOCK_PLAIN};
use crate::chunker::MAX_CHUNK;
use crate::delta::decode_beginning;
use crate::digest::{ChunkId, Digest};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The media type of a stream of frames.
pub const MEDIA_TYPE: &str = "application/vnd.depot.frames";

const HEADER: usize = 12;
const BLOCK: u8 = 1;
const MISSING: u8 = 2;
const END: u8 = 3;

/// One item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameItem {
    /// A block of one or more chunks.
    Block(Frame),
    /// A chunk that was asked for and is not held.
    Missing(ChunkId),
    /// The stream is complete.
    End,
}

/// A stream that is not one of frames, or was damaged on its way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// An item of no known kind, or outside the limits.
    #[error("the stream is not one of frames: {0}")]
    Malformed(&'static str),
    /// The bytes do not match their checksum.
    #[error("a frame was damaged on its way; ask for it again")]
    Damaged,
    /// Bytes after the end mark.
    #[error("the stream goes on after its end mark")]
    AfterEnd,
}

impl FrameItem {
    /// Appends the item's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            FrameItem::Block(frame) => {
                out.extend_from_slice(&block_head(frame));
                out.extend_from_slice(frame.stored());
            }
            FrameItem::Missing(chunk) => {
                let crc = crc32c::crc32c(chunk.0.as_bytes());
                put_header(out, MISSING, 0, 0, 32, crc);
                out.extend_from_slice(chunk.0.as_bytes());
            }
            FrameItem::End => put_header(out, END, 0, 0, 0, 0),
        }
    }

    /// The item's bytes as slices that can be sent without copying the stored bytes.
    pub fn into_slices(self) -> Vec<Bytes> {
        match self {
            FrameItem::Block(frame) => vec![block_head(&frame).freeze(), frame.stored().clone()],
            other => {
                let mut out = BytesMut::new();
                other.encode(&mut out);
                vec![out.freeze()]
            }
        }
    }
}

fn block_head(frame: &Frame) -> BytesMut {
    let lens = lens_bytes(frame.lens());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&lens), frame.stored());
    let mut out = BytesMut::with_capacity(HEADER + lens.len());
    let (n, stored) = (frame.lens().len() as u16, frame.stored().len() as u32);
    put_header(&mut out, BLOCK, frame.codec() as u8, n, stored, crc);
    out.extend_from_slice(&lens);
    out
}

fn put_header(out: &mut BytesMut, kind: u8, codec: u8, n_chunks: u16, stored: u32, crc: u32) {
    out.put_u8(kind);
    out.put_u8(codec);
    out.put_u16_le(n_chunks);
    out.put_u32_le(stored);
    out.put_u32_le(crc);
}

pub(crate) fn lens_bytes(lens: &[u32]) -> Vec<u8> {
    lens.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Takes a stream apart, as its bytes arrive. Holds at most one item.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    bytes: BytesMut,
    ended: bool,
}

impl FrameDecoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the end mark was read and nothing follows.
    pub fn is_complete(&self) -> bool {
        self.ended && self.bytes.is_empty()
    }

    /// Whether no bytes are left that were pushed and not yet part of an item.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Of a block that was cut off, the chunks of which all bytes came, as a block of their own. Their
    /// checksum did not come, or the rest that it covers: only their hashes tell whether they are right.
    pub fn beginning(&self) -> Option<Frame> {
        let mut header = self.bytes.get(..HEADER)?;
        let (kind, codec, n_chunks) = (header.get_u8(), header.get_u8(), header.get_u16_le());
        let table = HEADER..HEADER + 4 * usize::from(n_chunks);
        if kind != BLOCK || usize::from(n_chunks) > MAX_BLOCK_CHUNKS {
            return None;
        }
        let mut lens = read_lens(self.bytes.get(table.clone())?);
        if lens.iter().any(|&n| n == 0 || n as usize > MAX_CHUNK) {
            return None;
        }
        let stored = &self.bytes[table.end..];
        let length = lens.iter().map(|&n| n as usize).sum::<usize>().min(MAX_BLOCK_PLAIN);
        let plain = match Codec::from_byte(codec)? {
            Codec::Raw => Bytes::copy_from_slice(&stored[..stored.len().min(length)]),
            Codec::Zstd => decode_beginning(b"", stored, length),
        };
        let mut end = 0;
        let mut is_whole = |&n: &u32| {
            end += n as usize;
            end <= plain.len()
        };
        lens.truncate(lens.iter().position(|n| !is_whole(n)).unwrap_or(lens.len()));
        let mut rest = plain;
        let chunks: Vec<Bytes> = lens.iter().map(|&n| rest.split_to(n as usize)).collect();
        // Made anew, as the bytes that would go with these alone are not known.
        (!chunks.is_empty()).then(|| Frame::pack(&chunks, codec == Codec::Zstd as u8))
    }

    /// The next item, or `None` until more bytes are pushed. After an error the stream is lost.
    pub fn next_item(&mut self) -> Result<Option<FrameItem>, BadFrame> {
        if self.ended && !self.bytes.is_empty() {
            return Err(BadFrame::AfterEnd);
        }
        let Some(mut header) = self.bytes.get(..HEADER) else { return Ok(None) };
        let (kind, codec, n_chunks) = (header.get_u8(), header.get_u8(), header.get_u16_le());
        let (stored, crc) = (header.get_u32_le() as usize, header.get_u32_le());
        let lens = usize::from(n_chunks) * 4;
        let in_limits = match kind {
            BLOCK => {
                (1..=MAX_BLOCK_CHUNKS).contains(&n_chunks.into())
                    && stored <= MAX_BLOCK_PLAIN + 1024
            }
            MISSING => n_chunks == 0 && stored == 32,
            END => n_chunks == 0 && stored == 0,
            _ => false,
        };
        if !in_limits {
            return Err(BadFrame::Malformed("an item is of no known kind or outside the limits"));
        }
        let whole = HEADER + lens + stored;
        if self.bytes.len() < whole {
            self.bytes.reserve(whole - self.bytes.len());
            return Ok(None);
        }
        let mut item = self.bytes.split_to(whole).freeze();
        item.advance(HEADER);
        if crc32c::crc32c(&item) != crc {
            return Err(BadFrame::Damaged);
        }
        Ok(Some(match kind {
            BLOCK => {
                let table = item.split_to(lens);
                let lens = read_lens(&table);
                let codec = Codec::from_byte(codec)
                    .ok_or(BadFrame::Malformed("a codec that is not known here"))?;
                let frame = Frame::new(codec, lens, item)
                    .map_err(|_| BadFrame::Malformed("a block outside the limits"))?;
                FrameItem::Block(frame)
            }
            MISSING => {
                let id: [u8; 32] = item[..].try_into().expect("the header said 32 bytes");
                FrameItem::Missing(ChunkId(Digest::from_bytes(id)))
            }
            _ => {
                self.ended = true;
                FrameItem::End
            }
        }))
    }
}

pub(crate) fn read_lens(table: &[u8]) -> Vec<u32> {
    let read = |n: &[u8]| u32::from_le_bytes(n.try_into().expect("chunks of four"));
    table.chunks_exact(4).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream() -> Vec<FrameItem> {
        let raw = Frame::pack(&[Bytes::from_static(b"one"), Bytes::from_static(b"two")], false);
        let zstd = Frame::pack(&[vec![3; 10_000].into()], true);
        let missing = ChunkId(Digest::of(b"missing"));
        vec![
            FrameItem::Block(raw),
            FrameItem::Missing(missing),
            FrameItem::Block(zstd),
            FrameItem::End,
        ]
    }

    fn encoded() -> BytesMut {
        let mut out = BytesMut::new();
        stream().iter().for_each(|item| item.encode(&mut out));
        out
    }

    #[test]
    fn slices_are_the_encoding() {
        let slices: Vec<u8> =
            stream().into_iter().flat_map(FrameItem::into_slices).flatten().collect();
        assert_eq!(slices, encoded());
    }

    #[test]
    fn of_a_cut_block_the_whole_chunks_are_had() {
        let noise = |n: u8| {
            let mut out = vec![0; 75_000];
            blake3::Hasher::new_keyed(&[n; 32]).finalize_xof().fill(&mut out);
            Bytes::from(out)
        };
        // Hex digits: shrunk to half, in several blocks of zstd's own.
        let prose =
            |n: u8| Bytes::from(noise(n).iter().map(|b| format!("{b:02x}")).collect::<String>());
        for (chunks, packed) in [([1, 2, 3].map(noise), false), ([1, 2, 3].map(prose), true)] {
            let frame = Frame::pack(&chunks, packed);
            assert_eq!(frame.codec() == Codec::Zstd, packed);
            let mut bytes = BytesMut::new();
            FrameItem::Block(frame).encode(&mut bytes);
            let mut most = 0;
            for end in (0..bytes.len()).step_by(1_009) {
                let mut decoder = FrameDecoder::default();
                decoder.push(&bytes[..end]);
                assert_eq!(decoder.next_item(), Ok(None));
                let found = decoder.beginning().map_or(Vec::new(), |f| f.chunks().unwrap());
                assert!(found.iter().map(|(_, bytes)| bytes).eq(&chunks[..found.len()]));
                assert!(found.len() >= most && found.len() <= chunks.len(), "{end}");
                most = found.len();
            }
            assert_eq!(most, 2);
        }
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.beginning(), None);
        decoder.push(&encoded()[..HEADER - 1]);
        assert_eq!(decoder.beginning(), None);
    }

    #[test]
    fn a_cut_stream_is_not_complete() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes[..end]);
            while decoder.next_item().unwrap().is_some() {}
            assert!(!decoder.is_complete(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn items_come_back_however_the_bytes_arrive(step in 1usize..200) {
            let mut decoder = FrameDecoder::default();
            let mut found = Vec::new();
            for bytes in encoded().chunks(step) {
                decoder.push(bytes);
                while let Some(item) = decoder.next_item().unwrap() { found.push(item) }
            }
            prop_assert_eq!(found, stream());
            prop_assert!(decoder.is_complete());
        }

        #[test]
        fn a_flipped_bit_is_an_error_or_no_complete_stream(at in 0usize..10_000, bit in 0u8..8) {
            let mut bytes = encoded();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            let mut found = Vec::new();
            let _ = decoder.beginning();
            let error = loop {
                match decoder.next_item() {
                    Ok(Some(item)) => found.push(item),
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            // Of the codec byte no checksum tells: the chunk's hash does.
            let same_bytes = found.len() == stream().len();
            prop_assert!(error || !decoder.is_complete() || same_bytes);
        }
    }
}
