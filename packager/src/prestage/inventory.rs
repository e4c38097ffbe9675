//! Inventories: what a library holds, small enough to be carried to the site.
//!
//! Two sorted lists of names: the contents that the library has a recipe of, and its chunks. Of
//! each digest only the first eight bytes are told, as the difference to the one before: about six
//! bytes for each of ten million chunks, five for each of a hundred thousand. Two of 2^64 names may
//! begin alike, so an inventory may seem to hold what it does not, once in 10^12 chunks for ten
//! million that are held. Nothing is lost by it: the chunk is left out of a bundle, the import says
//! that it is missing, and the network brings it. It never seems to lack what it holds.
//!
//! `packager/FORMAT.md`, "Inventory".

#![deny(clippy::indexing_slicing)]

use super::PrestageError;
use crate::manifest::{Reader, put_varint};
use crate::packages::Packages;
use crate::sign::PublicKey;
use contentlib::{ChunkId, Digest, MaintainError, Progress};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

/// The media type of an inventory.
pub const INVENTORY_TYPE: &str = "application/vnd.depot.inventory";

const MAGIC: [u8; 8] = *b"\x89depotI\n";
const VERSION: u16 = 1;
/// Names that share one length.
const BLOCK: usize = 1 << 12;
/// The most bytes of a varint.
const MAX_VARINT: usize = 10;
/// The most names of both lists together: 8 bytes of memory each where a bundle is made.
const MAX_NAMES: usize = 1 << 26;

/// What a library held when it was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory {
    key: PublicKey,
    /// Sorted.
    contents: Vec<u64>,
    /// Sorted.
    chunks: Vec<u64>,
}

/// Why some bytes are no inventory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnInventory {
    /// They begin as something else.
    #[error("the file does not begin as an inventory does; `depot prestage inventory` makes one")]
    Magic,
    /// A later version of depot wrote them.
    #[error("inventory version {0} is not known here; a newer depot wrote it")]
    Version(u16),
    /// They are not what was written.
    #[error("the inventory is damaged: {0}; make it anew, or carry it again")]
    Damaged(&'static str),
    /// They name more than fits in memory.
    #[error("the inventory names more than {MAX_NAMES} chunks and contents; export without it")]
    TooLarge,
    /// They cannot be read.
    #[error("cannot read the inventory")]
    Io(#[source] io::Error),
}

/// Which library an inventory is of, and how much it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inventoried {
    /// Contents of more than one chunk.
    pub contents: u64,
    /// Chunks.
    pub chunks: u64,
    /// The inventory's length.
    pub bytes: u64,
}

impl Inventory {
    /// What the versions of the library are signed with.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// How many contents of more than one chunk it names.
    pub fn n_contents(&self) -> u64 {
        self.contents.len() as u64
    }

    /// How many chunks it names.
    pub fn n_chunks(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// Whether the library had a recipe of the content, or seems to.
    pub(super) fn has_recipe(&self, content: Digest) -> bool {
        self.contents.binary_search(&prefix(content)).is_ok()
    }

    /// Whether the library held the chunk, or seems to.
    pub(super) fn has_chunk(&self, chunk: ChunkId) -> bool {
        self.chunks.binary_search(&prefix(chunk.0)).is_ok()
    }

    /// Reads an inventory to its end.
    pub fn read(from: &mut dyn Read) -> Result<Self, NotAnInventory> {
        let mut from = Hashing { from, hasher: blake3::Hasher::new() };
        let magic = from.array::<8>()?;
        if magic != MAGIC {
            return Err(NotAnInventory::Magic);
        }
        let version = u16::from_le_bytes(from.array()?);
        if version != VERSION {
            return Err(NotAnInventory::Version(version));
        }
        let _reserved: [u8; 2] = from.array()?;
        let key = PublicKey::from_bytes(from.array()?);
        let contents = from.names(MAX_NAMES)?;
        let chunks = from.names(MAX_NAMES - contents.len())?;
        let found = *from.hasher.finalize().as_bytes();
        if from.array::<32>()? != found {
            return Err(NotAnInventory::Damaged("its digest is another"));
        }
        match from.from.read(&mut [0]) {
            Ok(0) => Ok(Self { key, contents, chunks }),
            Ok(_) => Err(NotAnInventory::Damaged("it goes on after its end")),
            Err(error) => Err(NotAnInventory::Io(error)),
        }
    }
}

/// What stands for a digest.
fn prefix(digest: Digest) -> u64 {
    let first = digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

struct Hashing<'a> {
    from: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl Hashing<'_> {
    fn take(&mut self, bytes: &mut [u8]) -> Result<(), NotAnInventory> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => NotAnInventory::Damaged("it is cut off"),
            _ => NotAnInventory::Io(error),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotAnInventory> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// One list, of at most `max` names.
    fn names(&mut self, max: usize) -> Result<Vec<u64>, NotAnInventory> {
        let mut names: Vec<u64> = Vec::new();
        let mut bytes = vec![0; BLOCK * MAX_VARINT];
        loop {
            let n = u32::from_le_bytes(self.array()?) as usize;
            if n == 0 {
                return Ok(names);
            }
            let len = u32::from_le_bytes(self.array()?) as usize;
            let bytes = bytes.get_mut(..len).filter(|_| n <= BLOCK);
            let bytes = bytes.ok_or(NotAnInventory::Damaged("a block is over the limits"))?;
            if names.len() + n > max {
                return Err(NotAnInventory::TooLarge);
            }
            self.take(bytes)?;
            let mut reader = Reader(bytes);
            for _ in 0..n {
                let step = reader.varint();
                let step = step.map_err(|_| NotAnInventory::Damaged("a name cannot be read"))?;
                let next = match names.last() {
                    None => Some(step),
                    Some(last) => last.checked_add(step).filter(|_| step > 0),
                };
                names.push(next.ok_or(NotAnInventory::Damaged("its names are not in order"))?);
            }
            if !reader.0.is_empty() {
                return Err(NotAnInventory::Damaged("a block is longer than its names"));
            }
        }
    }
}

/// Writes one inventory, as its names come.
struct Writer<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    written: u64,
    block: Vec<u8>,
    n: u32,
    last: Option<u64>,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        let (hasher, block) = (blake3::Hasher::new(), Vec::with_capacity(BLOCK * MAX_VARINT));
        Self { out, hasher, written: 0, block, n: 0, last: None }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The next name; names come in order.
    fn name(&mut self, name: u64) -> io::Result<()> {
        let step = match self.last {
            // Two that begin alike are one.
            Some(last) if last == name => return Ok(()),
            Some(last) => name - last,
            None => name,
        };
        put_varint(&mut self.block, step);
        (self.n, self.last) = (self.n + 1, Some(name));
        if self.n as usize == BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.n > 0 {
            let block = std::mem::take(&mut self.block);
            self.put(&self.n.to_le_bytes())?;
            self.put(&(block.len() as u32).to_le_bytes())?;
            self.put(&block)?;
            (self.block, self.n) = (block, 0);
            self.block.clear();
        }
        Ok(())
    }

    fn end_of_list(&mut self) -> io::Result<()> {
        self.flush()?;
        self.last = None;
        self.put(&0u32.to_le_bytes())
    }

    fn end(mut self) -> io::Result<u64> {
        let digest = *self.hasher.finalize().as_bytes();
        self.put(&digest)?;
        self.out.flush()?;
        Ok(self.written)
    }
}

impl Packages {
    /// Writes what the library here holds. `progress` counts the chunks as files.
    pub fn write_inventory(
        &self,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Inventoried, PrestageError> {
        let mut writer = Writer::new(out);
        let key = self.public_key();
        let head = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 2], key.as_bytes()];
        head.iter().try_for_each(|part| writer.put(part)).map_err(PrestageError::Write)?;
        let (mut n_contents, mut n_chunks) = (0, 0);
        let mut ended = Ok(());
        self.library()
            .each_recipe(|content| {
                n_contents += 1;
                noted(&mut writer, content, progress, &mut ended)
            })
            .map_err(local)?;
        ended?;
        writer.end_of_list().map_err(PrestageError::Write)?;
        let mut ended = Ok(());
        self.library()
            .each_chunk(|chunk| {
                n_chunks += 1;
                progress.files.fetch_add(1, Relaxed);
                noted(&mut writer, chunk.0, progress, &mut ended)
            })
            .map_err(local)?;
        ended?;
        writer.end_of_list().map_err(PrestageError::Write)?;
        let bytes = writer.end().map_err(PrestageError::Write)?;
        Ok(Inventoried { contents: n_contents, chunks: n_chunks, bytes })
    }
}

fn local(error: MaintainError) -> PrestageError {
    PrestageError::Package(error.into())
}

/// Writes one name, or ends the walk.
fn noted(
    writer: &mut Writer<'_>,
    name: Digest,
    progress: &Progress,
    ended: &mut Result<(), PrestageError>,
) -> ControlFlow<()> {
    let done = progress.check().map_err(PrestageError::from);
    let done = done.and_then(|()| writer.name(prefix(name)).map_err(PrestageError::Write));
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *ended = Err(error);
            ControlFlow::Break(())
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn encoded(contents: &BTreeSet<u64>, chunks: &BTreeSet<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.put(&MAGIC).unwrap();
        writer.put(&[1, 0, 0, 0]).unwrap();
        writer.put(&[7; 32]).unwrap();
        for list in [contents, chunks] {
            list.iter().for_each(|name| writer.name(*name).unwrap());
            writer.end_of_list().unwrap();
        }
        writer.end().unwrap();
        out
    }

    #[test]
    fn more_names_than_a_block_has_read_back() {
        let chunks: BTreeSet<u64> =
            (0..3 * BLOCK as u64).map(|n| n * n).chain([u64::MAX]).collect();
        let found = Inventory::read(&mut &encoded(&BTreeSet::new(), &chunks)[..]).unwrap();
        assert_eq!(found.chunks, chunks.into_iter().collect::<Vec<_>>());
        assert!(found.contents.is_empty());
    }

    #[test]
    fn a_newer_inventory_and_another_file_are_named_as_such() {
        let mut bytes = encoded(&BTreeSet::new(), &BTreeSet::new());
        bytes[8] = 2;
        let read = |bytes: &[u8]| Inventory::read(&mut &bytes[..]);
        assert!(matches!(read(&bytes), Err(NotAnInventory::Version(2))));
        assert!(matches!(read(b"PK\x03\x04 and more"), Err(NotAnInventory::Magic)));
        bytes[8] = 1;
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(NotAnInventory::Damaged(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            contents in prop::collection::btree_set(any::<u64>(), 0..50),
            chunks in prop::collection::btree_set(0u64..1000, 0..200),
        ) {
            let found = Inventory::read(&mut &encoded(&contents, &chunks)[..]).unwrap();
            prop_assert_eq!(found.contents, contents.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(found.chunks, chunks.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_cut_or_changed_inventory_is_refused(
            chunks in prop::collection::btree_set(any::<u64>(), 1..50),
            at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let bytes = encoded(&BTreeSet::new(), &chunks);
            let at = at.index(bytes.len());
            prop_assert!(Inventory::read(&mut &bytes[..at]).is_err());
            let mut changed = bytes;
            changed[at] ^= 1 << bit;
            // Two bytes are reserved, and covered by the digest all the same.
            prop_assert!(Inventory::read(&mut &changed[..]).is_err());
        }
    }
}
