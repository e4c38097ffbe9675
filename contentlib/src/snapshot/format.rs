//! The bytes of a snapshot: a manifest, and parts that hold the entries.
//!
//! `contentlib/FORMAT.md`, "Snapshots of the index". A part is one zstd frame of entries, of which
//! the manifest says the length and the BLAKE3; the manifest has a checksum of its own.

use crate::digest::Digest;
use crate::kv::{KvError, Table};
use crate::refs::{MAX_REF_NAME, MAX_REF_VALUE};
use bytes::Bytes;
use std::io;

const MAGIC: &[u8; 8] = b"depotidx";
const VERSION: u16 = 1;
const HEAD: usize = 64;
const PART: usize = 40;
/// Parts of one snapshot: of a library of 500 million chunks and more.
pub(super) const MAX_PARTS: usize = 1 << 14;
/// The longest manifest, in bytes.
pub(super) const MAX_MANIFEST: u64 = (HEAD + MAX_PARTS * PART + 4) as u64;
/// A part is full at so many bytes, before they are compressed.
const FULL: usize = 4 << 20;
/// The most that a part may hold: one that was nearly full, and the longest entry.
const MAX_PLAIN: usize = FULL + MAX_KEY + MAX_VALUE + ENTRY;
/// The longest stored part: what does not compress grows a little.
const MAX_STORED: usize = MAX_PLAIN + MAX_PLAIN / 128 + 1024;
/// What is before an entry's key and value.
const ENTRY: usize = 7;
const MAX_KEY: usize = MAX_REF_NAME;
const MAX_VALUE: usize = MAX_REF_VALUE + 33;
const LEVEL: i32 = 3;

/// Why a snapshot cannot be used. Nothing is lost: the packs say the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSnapshot {
    #[error("a newer depot wrote it (version {0}, this one knows {VERSION})")]
    Newer(u16),
    #[error("its manifest is damaged")]
    Manifest,
    #[error("its part {0} is damaged")]
    Part(usize),
}

/// One part, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartInfo {
    /// Bytes as they are stored.
    pub stored: u32,
    /// Bytes of the entries.
    plain: u32,
    /// Of the stored bytes.
    digest: Digest,
}

/// What a snapshot is of, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub library: u128,
    pub run: u32,
    /// How far the packs were read: a pack's number, and an offset in it.
    pub watermark: (u32, u64),
    /// The number of the next commit.
    pub commit: u64,
    /// Whether a failed commit is not overruled yet.
    pub unsettled: bool,
    /// When it was made, in ms since 1970.
    pub made: u64,
    pub parts: Vec<PartInfo>,
}

impl Manifest {
    /// Takes in a value of the table of single values, if it is one that a snapshot has.
    pub(super) fn take_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let number = || {
            let bytes = value.try_into().map(u64::from_le_bytes);
            bytes.map_err(|_| super::unreadable(Table::Meta))
        };
        match key {
            b"library" => {
                let bytes = value.try_into().map(u128::from_le_bytes);
                self.library = bytes.map_err(|_| super::unreadable(Table::Meta))?;
            }
            b"run" => self.run = number()? as u32,
            b"watermark/pack" => self.watermark.0 = number()? as u32,
            b"watermark/offset" => self.watermark.1 = number()?,
            b"commit" => self.commit = number()?,
            b"unsettled" => self.unsettled = number()? != 0,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.parts.len() * PART + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.unsettled.into(), 0]);
        out.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.library.to_be_bytes());
        out.extend_from_slice(&self.run.to_le_bytes());
        out.extend_from_slice(&self.watermark.0.to_le_bytes());
        out.extend_from_slice(&self.watermark.1.to_le_bytes());
        out.extend_from_slice(&self.commit.to_le_bytes());
        out.extend_from_slice(&self.made.to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.stored.to_le_bytes());
            out.extend_from_slice(&part.plain.to_le_bytes());
            out.extend_from_slice(part.digest.as_bytes());
        }
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let bad = BadSnapshot::Manifest;
        let (body, sum) = bytes.split_last_chunk().ok_or(bad.clone())?;
        if !body.starts_with(MAGIC) || crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(bad);
        }
        let mut left = Left(&body[MAGIC.len()..]);
        let version = u16::from_le_bytes(left.take().ok_or(bad.clone())?);
        if version > VERSION {
            return Err(BadSnapshot::Newer(version));
        }
        left.manifest().ok_or(bad)
    }
}

/// The bytes of a manifest that are not read yet.
struct Left<'a>(&'a [u8]);

impl Left<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk()?;
        self.0 = left;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let [unsettled, _] = self.take()?;
        let n_parts = self.u32()? as usize;
        let mut manifest = Manifest {
            unsettled: unsettled != 0,
            library: u128::from_be_bytes(self.take()?),
            run: self.u32()?,
            watermark: (self.u32()?, self.u64()?),
            commit: self.u64()?,
            made: self.u64()?,
            parts: Vec::new(),
        };
        if n_parts > MAX_PARTS || self.0.len() != n_parts * PART {
            return None;
        }
        // The limits of what a pack's header and a record's may say.
        if manifest.run >= 1 << 31 || manifest.watermark.0 >= 1 << 31 || manifest.commit >= 1 << 62
        {
            return None;
        }
        for _ in 0..n_parts {
            let (stored, plain) = (self.u32()?, self.u32()?);
            let digest = Digest::from_bytes(self.take()?);
            if stored as usize > MAX_STORED || plain as usize > MAX_PLAIN {
                return None;
            }
            manifest.parts.push(PartInfo { stored, plain, digest });
        }
        Some(manifest)
    }
}

/// A part that is being filled.
#[derive(Default)]
pub(super) struct PartWriter(Vec<u8>);

impl PartWriter {
    pub(super) fn push(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(number(table));
        self.0.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= FULL
    }

    /// The part as it is stored, and what the manifest says of it. Another can be filled then.
    pub(super) fn finish(&mut self) -> io::Result<(PartInfo, Bytes)> {
        let stored = zstd::bulk::compress(&self.0, LEVEL)?;
        let digest = Digest::of(&stored);
        let part = PartInfo { stored: stored.len() as u32, plain: self.0.len() as u32, digest };
        self.0.clear();
        Ok((part, stored.into()))
    }
}

/// How a table is called in an entry.
fn number(table: Table) -> u8 {
    match table {
        Table::Chunks => 1,
        Table::Recipes => 2,
        Table::Aliases => 3,
        Table::Refs => 4,
        Table::Packs => 5,
        Table::Meta => 0,
    }
}

impl PartInfo {
    /// The part's entries, plain, if `stored` are its bytes.
    pub(super) fn open(&self, stored: &[u8]) -> Option<Vec<u8>> {
        if stored.len() != self.stored as usize || Digest::of(stored) != self.digest {
            return None;
        }
        let plain = zstd::bulk::decompress(stored, self.plain as usize).ok()?;
        (plain.len() == self.plain as usize).then_some(plain)
    }
}

/// Visits the entries of a part; `None` if they are none.
pub(super) fn entries<E>(
    mut bytes: &[u8],
    mut visit: impl FnMut(Table, &[u8], &[u8]) -> Result<(), E>,
) -> Option<Result<(), E>> {
    while let Some((&table, rest)) = bytes.split_first() {
        let tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
        let table = tables.into_iter().find(|known| number(*known) == table)?;
        let (key_len, rest) = rest.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let key_len = usize::from(u16::from_le_bytes(*key_len));
        let value_len = u32::from_le_bytes(*value_len) as usize;
        if key_len > MAX_KEY || value_len > MAX_VALUE {
            return None;
        }
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        if let Err(error) = visit(table, key, value) {
            return Some(Err(error));
        }
        bytes = rest;
    }
    Some(Ok(()))
}

/// A manifest and a part of foreign bytes; the checksum of the manifest is made right first.
pub(crate) fn fuzzing(bytes: &[u8]) {
    let mut manifest = bytes.to_vec();
    let sum = crc32c::crc32c(&manifest);
    manifest.extend_from_slice(&sum.to_le_bytes());
    if let Ok(found) = Manifest::decode(&manifest) {
        assert!(found.encode().len() == manifest.len());
    }
    let mut again = PartWriter::default();
    let read = entries(bytes, |table, key, value| {
        again.push(table, key, value);
        Ok::<(), ()>(())
    });
    if read.is_some() {
        assert_eq!(again.0, bytes);
    }
    let digest = Digest::of(bytes);
    let stored = bytes.len() as u32;
    drop(PartInfo { stored, plain: MAX_PLAIN as u32, digest }.open(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let mut writer = PartWriter::default();
        writer.push(Table::Refs, b"name", b"value");
        let (part, _) = writer.finish().unwrap();
        Manifest {
            library: 1 << 100,
            run: 2,
            watermark: (3, 4),
            commit: 5,
            unsettled: true,
            made: 6,
            parts: vec![part.clone(), part],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_no_other_bytes_are_one() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for cut in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..cut]), Err(BadSnapshot::Manifest));
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            assert_eq!(Manifest::decode(&flipped), Err(BadSnapshot::Manifest));
        }
        let mut newer = bytes[..bytes.len() - 4].to_vec();
        newer[8] = 2;
        newer.truncate(20);
        newer.extend(crc32c::crc32c(&newer).to_le_bytes());
        assert_eq!(Manifest::decode(&newer), Err(BadSnapshot::Newer(2)));
    }

    proptest! {
        #[test]
        fn entries_read_back(
            all in prop::collection::vec((0..5usize, prop::collection::vec(any::<u8>(), 0..600), prop::collection::vec(any::<u8>(), 0..2000)), 0..20),
        ) {
            let mut writer = PartWriter::default();
            let all: Vec<_> = all
                .into_iter()
                .map(|(table, mut key, value)| (Table::ALL[table], { key.truncate(MAX_KEY); key }, value))
                .collect();
            all.iter().for_each(|(table, key, value)| writer.push(*table, key, value));
            let (part, stored) = writer.finish().unwrap();
            let plain = part.open(&stored).unwrap();
            let mut found = Vec::new();
            let read = entries(&plain, |table, key, value| {
                found.push((table, key.to_vec(), value.to_vec()));
                Ok::<(), ()>(())
            });
            prop_assert_eq!(read, Some(Ok(())));
            prop_assert_eq!(found, all);
            prop_assert_eq!(part.open(&stored[..stored.len() - 1]), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzzing(&bytes);
        }
    }
}
