//! Making shards of a catalogue.
//!
//! The catalogue is read in the order of its feed, an update at a time; what clients need of each goes to a file,
//! and where it lies there is kept in memory: some 50 bytes an update. Then it is cut, and read from there in its
//! order. What there is a blob of already is not packed again.

use super::blob::{BlobError, Blobs, Name, pack};
use super::cut::{self, Placed, place_of};
use super::manifest::{FORMAT, Listed, MAX_PAGES, Manifest, Page, Part, Shard};
use super::{Entry, MAX_ENTRY, Platform, product_of};
use crate::catalogue::{Catalogue, FeedEntry, MAX_FEED_PAGE, Place};
use crate::error::SyncError;
use crate::name::UpdateId;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

/// Why shards could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The catalogue cannot be read.
    #[error(transparent)]
    Catalogue(#[from] SyncError),
    /// The disk failed.
    #[error("what clients scan by cannot be written")]
    Disk(#[from] io::Error),
    /// A blob cannot be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// There is more than a manifest lists.
    #[error("the catalogue has more than {MAX_PAGES} pages")]
    TooLarge,
    /// It was told to stop.
    #[error("making the catalogue for clients was interrupted")]
    Interrupted,
}

/// Platform and product: what shards are sorted by.
type Group = (Platform, String);

/// Where an update lies in the file.
#[derive(Clone, Copy)]
struct Spooled {
    group: u32,
    place: u64,
    at: u64,
    length: u32,
}

impl Placed for Spooled {
    fn place(&self) -> u64 {
        self.place
    }
    fn bytes(&self) -> u64 {
        self.length.into()
    }
}

/// What a reading of the catalogue left.
struct Spool {
    file: BufWriter<File>,
    length: u64,
    groups: HashMap<Group, u32>,
    updates: HashMap<UpdateId, Spooled>,
    left_out: u64,
}

impl Spool {
    fn new(blobs: &Blobs) -> io::Result<Self> {
        let file = BufWriter::with_capacity(256 << 10, blobs.temporary()?);
        Ok(Self { file, length: 0, groups: HashMap::new(), updates: HashMap::new(), left_out: 0 })
    }

    fn take(&mut self, entry: FeedEntry) -> io::Result<()> {
        let id = entry.id;
        let Some(update) = entry.update else {
            self.updates.remove(&id);
            return Ok(());
        };
        let group = (Platform::of(&update), product_of(&update).to_owned());
        let mut line = Entry::of(entry.revision, *update).line()?;
        line.push(b'\n');
        if line.len() > MAX_ENTRY {
            tracing::warn!(%id, bytes = line.len(), "an update is larger than clients take");
            self.left_out += 1;
            self.updates.remove(&id);
            return Ok(());
        }
        self.file.write_all(&line)?;
        let next = self.groups.len() as u32;
        let group = *self.groups.entry(group).or_insert(next);
        let length = line.len() as u32;
        let spooled = Spooled { group, place: place_of(id), at: self.length, length };
        self.updates.insert(id, spooled);
        self.length += u64::from(length);
        Ok(())
    }

    /// The updates of each group, in the order of groups, and of ids where places are equal.
    fn sorted(&mut self) -> BTreeMap<Group, Vec<Spooled>> {
        let mut all: Vec<(UpdateId, Spooled)> = self.updates.drain().collect();
        all.sort_unstable_by_key(|(id, it)| (it.group, it.place, *id));
        let mut sorted = BTreeMap::new();
        let names: HashMap<u32, Group> = self.groups.drain().map(|(name, n)| (n, name)).collect();
        for group in all.chunk_by(|a, b| a.1.group == b.1.group) {
            let name = names[&group[0].1.group].clone();
            sorted.insert(name, group.iter().map(|(_, it)| *it).collect());
        }
        sorted
    }
}

/// Makes the shards of a catalogue as it is now, into a folder of blobs, and gives its manifest. Ends early when
/// `is_stopped`.
///
/// # Errors
/// The catalogue cannot be read, or the folder not be written; what is there of blobs is sound all the same.
pub fn build(
    catalogue: &Catalogue,
    blobs: &Blobs,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Manifest, BuildError> {
    let mut spool = Spool::new(blobs)?;
    let mut from = Place::default();
    let seq = loop {
        if is_stopped() {
            return Err(BuildError::Interrupted);
        }
        let page = catalogue.changes(from, MAX_FEED_PAGE)?;
        if page.from != from {
            spool = Spool::new(blobs)?;
        }
        page.entries.into_iter().try_for_each(|entry| spool.take(entry))?;
        from = page.next;
        if page.is_last {
            break page.next.since;
        }
    };
    spool.file.flush()?;
    let sorted = spool.sorted();
    let file = spool.file.get_ref();
    let (mut pages, mut updates) = (Vec::new(), 0);
    for ((platform, product), things) in sorted {
        let mut shards = Vec::new();
        for part in cut::cut(&things) {
            if is_stopped() {
                return Err(BuildError::Interrupted);
            }
            let things = &things[part.things];
            let size: u64 = things.iter().map(Placed::bytes).sum();
            let mut plain = Vec::with_capacity(size as usize);
            for thing in things {
                let end = plain.len();
                plain.resize(end + thing.length as usize, 0);
                file.read_exact_at(&mut plain[end..], thing.at)?;
            }
            let part_of = put(blobs, &plain, things.len() as u64)?;
            shards.push(Shard { prefix: part.prefix, part: part_of });
        }
        for part in cut::cut(&shards) {
            let page = Page { shards: shards[part.things].to_vec() };
            let below = page.shards.iter().map(|shard| shard.part.updates).sum();
            let part_of = put(blobs, &page.bytes(), below)?;
            updates += below;
            pages.push(Listed {
                platform,
                product: product.clone(),
                prefix: part.prefix,
                part: part_of,
            });
        }
    }
    if pages.len() > MAX_PAGES {
        return Err(BuildError::TooLarge);
    }
    let catalogue = catalogue.lineage().to_owned();
    Ok(Manifest { format: FORMAT, catalogue, seq, updates, left_out: spool.left_out, pages })
}

fn put(blobs: &Blobs, plain: &[u8], updates: u64) -> Result<Part, BuildError> {
    let blob = Name::of(plain);
    if !blobs.has(blob) {
        blobs.put(blob, &pack(plain)?)?;
    }
    Ok(Part { blob, bytes: plain.len() as u64, updates })
}

#[cfg(test)]
mod tests;
