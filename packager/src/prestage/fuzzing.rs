//! The parsers of inventories and bundles, for the fuzz targets in `fuzz/`.
//!
//! Checksums and signatures would keep a fuzzer at the door, so here they are made right first.
//! Nothing here may panic, whatever the bytes.

#![allow(clippy::indexing_slicing, reason = "lengths are checked in the line before")]

use super::wire::{BundleWriter, Head};
use super::{BundleDecoder, Inventory, Step};
use crate::sign::SiteKey;
use jiff::Timestamp;

/// An inventory, whose last 32 bytes become the digest that it should have.
pub fn inventory(bytes: &[u8]) {
    let _ = Inventory::read(&mut &bytes[..]);
    let Some(end) = bytes.len().checked_sub(32) else { return };
    let body = &bytes[..end];
    let right = [body, blake3::hash(body).as_bytes()].concat();
    let _ = Inventory::read(&mut &right[..]);
}

/// A bundle: `bytes` as they are, and as the records behind a good head, with good checksums. The
/// first byte says in pieces of what length they come.
pub fn bundle(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    decode(bytes, step);
    let key = SiteKey::from_seed([1; 32]);
    let head = Head {
        key: key.public(),
        created: Timestamp::UNIX_EPOCH,
        based: false,
        versions: Vec::new(),
        names: Default::default(),
    };
    let mut bundle = Vec::new();
    if BundleWriter::new(&mut bundle, &head, &key).is_err() {
        return;
    }
    let mut rest = bytes;
    while rest.len() >= 16 {
        let mut header = [0; 16];
        header.copy_from_slice(&rest[..16]);
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let body = &rest[16..];
        let body = &body[..len.min(body.len())];
        header[8..12].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let own = crc32c::crc32c(&header[..12]).to_le_bytes();
        header[12..].copy_from_slice(&own);
        bundle.extend_from_slice(&header);
        bundle.extend_from_slice(body);
        rest = &rest[16 + body.len()..];
    }
    decode(&bundle, step);
}

fn decode(bytes: &[u8], step: u8) {
    let mut decoder = BundleDecoder::default();
    for piece in bytes.chunks(usize::from(step) + 1) {
        decoder.push(piece);
        loop {
            match decoder.next_step() {
                Ok(Some(Step::Lost(_)) | None) => break,
                Ok(Some(_)) => {}
                Err(_) => return,
            }
        }
    }
    assert_eq!(decoder.cut().is_none(), decoder.is_complete());
}
