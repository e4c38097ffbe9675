//! The parsers of foreign bytes, for the fuzz targets in `fuzz/`.
//!
//! Checksums would keep a fuzzer at the door, so here they are made right first: what is tested
//! is what somebody can write who computes them too. Nothing here may panic, whatever the bytes.

use crate::digest::{Digest, PackId};
use crate::frames::{FrameDecoder, FrameItem};
use crate::kv::memory::MemoryKv;
use crate::library::{Environment, Library, Options};
use crate::links::NoLinks;
use crate::pack::format::{Kind, PACK_HEADER, PackHeader, RECORD_HEADER, RecordHeader, TRAILER};
use crate::pack::{format, reader};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::store::PackStore;
use crate::store::memory::MemoryStore;
use crate::{GcOptions, VerifyOptions};
use bytes::Bytes;
use std::io::IoSlice;
use std::sync::Arc;

const ID: PackId = PackId(1);

struct Still;

impl Environment for Still {
    fn unix_ms(&self) -> u64 {
        1
    }
    fn random(&self) -> u128 {
        1
    }
}

/// What an object store may answer: the names of packs and segments, one a line with a length, and a
/// lease.
pub fn objects(bytes: &[u8]) {
    crate::store::objects::fuzzing(bytes);
}

/// A pack of records, scanned, indexed and read: `bytes` follow the pack's header.
pub fn record(bytes: &[u8]) {
    let header = PackHeader { id: ID, library: 7, seq: 3, run: 1 };
    let mut pack = header.encode().to_vec();
    pack.extend_from_slice(bytes);
    make_records_right(&mut pack);
    use_pack(&pack);
}

/// A pack that ends in a footer: the last of `bytes` are its trailer.
pub fn footer(bytes: &[u8]) {
    let Some(footer_len) = bytes.len().checked_sub(TRAILER) else { return };
    let header = PackHeader { id: ID, library: 7, seq: 3, run: 1 };
    let mut pack = header.encode().to_vec();
    // Something for the entries to point at.
    pack.resize(PACK_HEADER + 4096, 7);
    make_records_right(&mut pack);
    let footer_offset = pack.len() as u64;
    pack.extend_from_slice(bytes);
    let at = pack.len() - TRAILER;
    let digest = Digest::of(&bytes[..footer_len]);
    pack[at..at + 8].copy_from_slice(b"depotend");
    pack[at + 8..at + 16].copy_from_slice(&footer_offset.to_le_bytes());
    pack[at + 16..at + 20].copy_from_slice(&(footer_len as u32).to_le_bytes());
    pack[at + 24..at + 56].copy_from_slice(digest.as_bytes());
    let sum = crc32c::crc32c(&pack[at..at + 60]);
    pack[at + 60..].copy_from_slice(&sum.to_le_bytes());
    use_pack(&pack);
}

/// A recipe from the wire.
pub fn recipe(bytes: &[u8]) {
    let Ok(recipe) = Recipe::decode(bytes) else { return };
    assert_eq!(recipe.encode(), bytes);
    let size = recipe.size();
    for (start, end) in [(0, size), (size / 2, size), (size, size + 1), (0, u64::MAX)] {
        let spans = recipe.covering(start..end);
        for at in spans {
            assert!(recipe.span(at).bytes.end <= size);
        }
    }
}

/// A stream of frames, which arrives in pieces as long as its first byte says.
pub fn frames(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = FrameDecoder::default();
    for piece in bytes.chunks(usize::from(step).max(1) * 16) {
        decoder.push(piece);
        if let Some(frame) = decoder.beginning() {
            let found = frame.chunks().expect("it was made here");
            assert_eq!(found.len(), frame.lens().len());
        }
        while let Ok(Some(item)) = decoder.next_item() {
            if let FrameItem::Block(frame) = item
                && let Ok(chunks) = frame.chunks()
            {
                assert_eq!(chunks.len(), frame.lens().len());
            }
        }
    }
    let _ = decoder.is_complete();
}

/// Puts in the checksums and the names that the records of `pack` would have.
fn make_records_right(pack: &mut [u8]) {
    let mut at = PACK_HEADER;
    while pack.len() - at >= RECORD_HEADER {
        let body_at = at + RECORD_HEADER;
        let left = pack.len() - body_at;
        let stated = u32::from_le_bytes(pack[at + 8..at + 12].try_into().expect("four bytes"));
        let body_len = (stated as usize).min(left);
        pack[at..at + 4].copy_from_slice(b"dRec");
        pack[at + 8..at + 12].copy_from_slice(&(body_len as u32).to_le_bytes());
        let body = Bytes::copy_from_slice(&pack[body_at..body_at + body_len]);
        pack[at + 48..at + 52].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        make_header_right(&mut pack[at..body_at]);
        if let Some(header) = RecordHeader::decode(&pack[at..body_at])
            && header.kind == Kind::Block
            && let Ok(frame) = reader::frame(&header, &body, 0)
            && let Ok(chunks) = frame.chunks()
        {
            let ids: Vec<_> = chunks.into_iter().map(|(id, _)| id).collect();
            pack[at + 16..at + 48].copy_from_slice(format::block_id(&ids).as_bytes());
            make_header_right(&mut pack[at..body_at]);
        }
        at = body_at + body_len;
    }
}

fn make_header_right(header: &mut [u8]) {
    let sum = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
}

/// All that a library does with a pack it finds.
fn use_pack(pack: &[u8]) {
    let store = Arc::new(MemoryStore::default());
    let file = store.create(ID).expect("a new store is empty");
    file.write_at(0, &[IoSlice::new(pack)]).expect("a memory store takes it");
    let environment = Arc::new(Still);
    for rebuilt in [true, false] {
        let kv = Arc::new(MemoryKv::default());
        if rebuilt {
            Library::rebuild_on(&*store, kv.clone(), &*environment).expect("no pack stops it");
        }
        let options = Options { threads: 1, cache_bytes: 1 << 20, ..Options::default() };
        let library = Library::open_on(store.clone(), kv, environment.clone(), options)
            .expect("no pack stops it");
        let mut digests = Vec::new();
        let index = &library.inner.index;
        let go = std::ops::ControlFlow::Continue;
        let chunks = index.each_chunk(|id, _| (digests.push(id.0), go(())).1);
        let recipes = index.each_recipe(|content, _| (digests.push(content), go(())).1);
        chunks.and(recipes).expect("a memory index reads back");
        for digest in digests.into_iter().take(64) {
            let _ = library.stat(digest);
            if let Ok(reader) = library.open_content(digest)
                && reader.size() <= 8 << 20
            {
                let _ = reader.copy_to(0..u64::MAX, &mut std::io::sink());
                let _ = reader.segment(reader.size() / 2, 100);
            }
        }
        let _ = library.verify(&VerifyOptions::default(), &NoLinks, &Progress::default());
        let _ = library.gc(&GcOptions { dry_run: true }, &NoLinks, &Progress::default());
        let _ = library.list_refs("");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_bytes_are_survived() {
        let mut noise = vec![0; 3000];
        for seed in 0..200u64 {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
            // Kinds, codecs and lengths that get past the first look.
            noise[4] = 1 + (seed % 6) as u8;
            noise[5] = (seed / 6 % 2) as u8;
            noise[6..16].copy_from_slice(&[1, 0, 100, 0, 0, 0, 100, 0, 0, 0]);
            super::record(&noise);
            super::footer(&noise[..64 + seed as usize * 10]);
            super::recipe(&noise);
            super::frames(&noise);
        }
    }

    /// What the fuzz target `record` found.
    #[test]
    fn what_was_found_once_is_survived() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fuzz/record");
        let found: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(!found.is_empty());
        for file in found {
            super::record(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
