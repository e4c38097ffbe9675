//! Where snapshots of the index lie, beside the packs.
//!
//! ```text
//! index/SEQUENCE         the manifest of a snapshot: with it there is one
//! index/SEQUENCE.PART    the entries it names
//! ```
//! The sequence is the lease's fencing number and a counter: a process that had the lease before names
//! nothing so, however late what it asked for comes about, and the last name is of the newest. Where
//! somebody deleted the lease, numbers go on from those that are there.

use super::Shared;
use super::requests::Body;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Where they lie, below the library's prefix.
const FOLDER: &str = "index";

/// The snapshots of one library.
pub struct Shelf {
    shared: Arc<Shared>,
    fence: u64,
    last: Mutex<Last>,
    /// Held while a snapshot is made: one at a time.
    pub(crate) making: Mutex<()>,
}

/// The last snapshot, or the opening of the library if there is none of this process.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    /// In ms since 1970.
    pub at: u64,
    /// What [`Shelf::written`] said then.
    pub written: u64,
    /// What it took.
    pub bytes: u64,
    /// Whether somebody looked for one, and there was none to use.
    pub is_missing: bool,
}

fn name(sequence: u128, part: Option<u32>) -> String {
    match part {
        None => format!("{FOLDER}/{sequence:024x}"),
        Some(part) => format!("{FOLDER}/{sequence:024x}.{part:04x}"),
    }
}

/// What an object in the folder is: of which snapshot, and which part of it.
fn parse(found: &str) -> Option<(u128, Option<u32>)> {
    let (sequence, part) = match found.split_once('.') {
        Some((sequence, part)) => (sequence, Some(u32::from_str_radix(part, 16).ok()?)),
        None => (found, None),
    };
    let sequence = u128::from_str_radix(sequence, 16).ok()?;
    // Written one way only.
    let is_ours = name(sequence, part).strip_prefix(FOLDER)?.strip_prefix('/')? == found;
    is_ours.then_some((sequence, part))
}

/// Which snapshots there are, newest first, with the lengths of their manifests; and all objects that
/// are none of the `kept` newest.
fn arrange(listed: Vec<(String, u64)>, kept: usize) -> (Vec<(u128, u64)>, Vec<String>) {
    let mut manifests = BTreeMap::new();
    let mut all = Vec::new();
    for (found, length) in listed {
        let Some((sequence, part)) = parse(&found) else { continue };
        all.push((sequence, part));
        if part.is_none() {
            manifests.insert(sequence, length);
        }
    }
    let snapshots: Vec<(u128, u64)> = manifests.into_iter().rev().collect();
    let newest: BTreeSet<u128> = snapshots.iter().take(kept).map(|(s, _)| *s).collect();
    all.retain(|(sequence, _)| !newest.contains(sequence));
    (snapshots, all.into_iter().map(|(sequence, part)| name(sequence, part)).collect())
}

impl Shelf {
    pub(super) fn new(shared: Arc<Shared>, fence: u64, now: u64) -> Self {
        let last = Last { at: now, written: 0, bytes: 0, is_missing: false };
        Self { shared, fence, last: Mutex::new(last), making: Mutex::default() }
    }

    /// Bytes of packs that this process wrote.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(SeqCst)
    }

    pub(crate) fn last(&self) -> Last {
        *self.last.lock()
    }

    /// Notes that there is no snapshot that can be used.
    pub(crate) fn miss(&self) {
        self.last.lock().is_missing = true;
    }

    /// Notes that a snapshot of so many bytes was made.
    pub(crate) fn made(&self, at: u64, written: u64, bytes: u64) {
        *self.last.lock() = Last { at, written, bytes, is_missing: false };
    }

    /// The sequence of a new snapshot, for who makes it.
    pub(crate) fn next(&self) -> io::Result<u128> {
        let listed = self.shared.requests.list(FOLDER)?;
        let last = listed.iter().filter_map(|(found, _)| Some(parse(found)?.0)).max();
        let own = u128::from(self.fence) << 32;
        Ok(last.map_or(own, |last| own.max(last + 1)))
    }

    /// The snapshots there are, newest first, with the lengths of their manifests.
    pub(crate) fn list(&self) -> io::Result<Vec<(u128, u64)>> {
        Ok(arrange(self.shared.requests.list(FOLDER)?, usize::MAX).0)
    }

    /// Writes the manifest of a snapshot, or a part. Durable when this returns.
    pub(crate) fn put(&self, sequence: u128, part: Option<u32>, bytes: Bytes) -> io::Result<()> {
        self.shared.requests.put_new(&name(sequence, part), Body::Bytes(bytes))
    }

    /// The manifest of a snapshot, or a part, of so many bytes.
    pub(crate) fn get(&self, sequence: u128, part: Option<u32>, len: u64) -> io::Result<Bytes> {
        self.shared.requests.get(&name(sequence, part), 0..len)
    }

    /// Deletes all but the `kept` newest, and what others left half made.
    pub(crate) fn prune(&self, kept: usize) -> io::Result<()> {
        let (_, old) = arrange(self.shared.requests.list(FOLDER)?, kept);
        self.shared.requests.delete(old)
    }
}

/// The names that a store says there are, for [`crate::fuzzing`].
pub(super) fn fuzzing(listed: Vec<(String, u64)>) {
    let (snapshots, old) = arrange(listed, 1);
    assert!(snapshots.is_sorted_by(|(a, _), (b, _)| a > b));
    if let Some((newest, _)) = snapshots.first() {
        assert!(!old.contains(&name(*newest, None)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_what_is_not_ours_is_left_alone() {
        let (one, two, three) = (7 << 32, 7 << 32 | 1, 8 << 32);
        let all = [
            name(one, None),
            name(one, Some(0)),
            name(two, Some(0)),
            name(two, Some(1)),
            name(three, None),
            name(three, Some(0)),
        ];
        let listed: Vec<_> = all
            .iter()
            .map(|name| (name.strip_prefix("index/").unwrap().to_owned(), 9))
            .chain([("readme".to_owned(), 1), ("7".to_owned(), 1)])
            .collect();
        let (snapshots, old) = arrange(listed.clone(), 1);
        assert_eq!(snapshots, [(three, 9), (one, 9)]);
        assert_eq!(old, all[..4], "with what was left half made");
        assert_eq!(arrange(listed, 2).1, all[2..4]);
    }
}
