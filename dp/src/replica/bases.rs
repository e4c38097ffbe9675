//! Which contents of an older version the files of a new one are likely to be like.
//!
//! The older version is the newest one of the package that is held, before the new one if there is one.
//! A file is most likely like
//!
//! 1. the file of the same path;
//! 2. one of the same name elsewhere, where the end of the path is most alike: folders change their
//!    names with the version that they have in them;
//! 3. the one that shares most chunks with it, for a file with several.
//!
//! All of this follows from the two manifests alone, so that points that hold the same ask for the
//! same, and the source makes it once.

use super::align;
use crate::remote::RemoteError;
use contentlib::{ChunkId, Digest, Library, Recipe};
use packager::manifest::{FileEntry, Manifest};
use packager::sign::VersionInfo;
use packager::{PackageError, Packages};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Chunks of the older version that are looked through for those of a file; 12 bytes each.
const MAX_KNOWN: usize = 1 << 20;
/// Files of the same name that are compared with one.
const MAX_SAME_NAME: usize = 64;
/// A file of which nothing older is known goes with the others' deltas if it is no longer than this:
/// it may be like one of theirs.
const SMALL: u64 = 64 << 10;

/// What is held of an older version.
pub(super) struct Bases {
    library: Library,
    old: Arc<Manifest>,
    new: Arc<Manifest>,
    by_name: OnceLock<HashMap<Vec<u8>, Vec<u32>>>,
    by_chunk: OnceLock<HashMap<u64, u32>>,
}

/// A chunk that is held, with its length.
pub(super) type Held = (ChunkId, u64);

impl Bases {
    /// The version that `info` is likely to be like; nothing if no other of its package is held. Blocks.
    pub fn version(
        packages: &Packages,
        info: &VersionInfo,
    ) -> Result<Option<VersionInfo>, RemoteError> {
        let held = match packages.versions(&info.package) {
            Err(PackageError::UnknownPackage(_)) => return Ok(None),
            held => held?,
        };
        let others = || held.iter().filter(|held| held.version != info.version);
        let before = others().filter(|held| held.version < info.version);
        let newest = before.max_by_key(|held| held.version);
        Ok(newest.or_else(|| others().min_by_key(|held| held.version)).cloned())
    }

    /// What `new` is likely to be like of `old`.
    pub fn new(library: Library, old: Arc<Manifest>, new: Arc<Manifest>) -> Self {
        Self { library, old, new, by_name: OnceLock::new(), by_chunk: OnceLock::new() }
    }

    /// The older file that the entry `at` of the new manifest is likely to be like, by their paths.
    pub fn by_path(&self, at: usize) -> Option<FileEntry> {
        let entry = self.new.entry(at);
        if let Some(same) = self.old.lookup(entry.path).and_then(|old| old.file()) {
            return Some(same);
        }
        let size = entry.file()?.size;
        let places = self.names().get(entry.name())?;
        let likeness = |&&at: &&u32| {
            let old = self.old.entry(at as usize);
            let difference = old.file().map_or(u64::MAX, |file| file.size.abs_diff(size));
            let same_end = same_end(old.path, entry.path);
            (same_end, std::cmp::Reverse(difference), std::cmp::Reverse(at))
        };
        let best = places.iter().take(MAX_SAME_NAME).max_by_key(likeness)?;
        self.old.entry(*best as usize).file()
    }

    /// Whether a file without an older one may go with the others.
    pub fn takes(file: &FileEntry) -> bool {
        file.size <= SMALL
    }

    /// The chunks that are likely to be like a content that is one chunk. Blocks.
    pub fn near_chunk(&self, old: &FileEntry, size: u64) -> Vec<Held> {
        match old.recipe {
            None => vec![(ChunkId(old.digest), old.size)],
            Some(_) => self.spans(old, |recipe| 0..recipe.covering(0..size.max(1)).end),
        }
    }

    /// The chunks that are likely to be like each of the chunks `wanted` of a content, which are in
    /// ascending order. `old` is the file that is like it by its path. Blocks.
    pub fn near(&self, old: Option<FileEntry>, new: &Recipe, wanted: &[usize]) -> Vec<Vec<Held>> {
        let Some(old) = old.or_else(|| self.by_chunks(new)) else { return Vec::new() };
        if old.recipe.is_none() {
            return vec![vec![(ChunkId(old.digest), old.size)]; wanted.len()];
        }
        let Some(recipe) = self.recipe(&old) else { return Vec::new() };
        let ranges = align::near(&recipe, new, wanted);
        ranges.into_iter().map(|range| held(&recipe, range)).collect()
    }

    fn spans(&self, old: &FileEntry, range: impl Fn(&Recipe) -> Range<usize>) -> Vec<Held> {
        let recipe = self.recipe(old);
        recipe.map(|recipe| held(&recipe, range(&recipe))).unwrap_or_default()
    }

    /// The recipe of an older file; nothing if it cannot be read, as a base is only of use.
    fn recipe(&self, old: &FileEntry) -> Option<Arc<Recipe>> {
        let read = self.library.recipe(old.digest);
        read.inspect_err(|error| tracing::debug!(content = %old.digest, %error, "no base")).ok()
    }

    fn names(&self) -> &HashMap<Vec<u8>, Vec<u32>> {
        self.by_name.get_or_init(|| {
            let mut names: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
            for (at, entry) in self.old.entries().enumerate() {
                if entry.file().is_some_and(|file| file.size > 0) {
                    names.entry(entry.name().to_vec()).or_default().push(at as u32);
                }
            }
            names
        })
    }

    /// The older file of several chunks that has most of those of `new`, if it has one of them.
    fn by_chunks(&self, new: &Recipe) -> Option<FileEntry> {
        let known = self.by_chunk.get_or_init(|| {
            let mut known = HashMap::new();
            for (at, entry) in self.old.entries().enumerate() {
                let Some(file) = entry.file().filter(|file| file.recipe.is_some()) else {
                    continue;
                };
                for id in self.recipe(&file).iter().flat_map(|recipe| recipe.chunks()) {
                    known.entry(short(id)).or_insert(at as u32);
                }
                if known.len() >= MAX_KNOWN {
                    break;
                }
            }
            known
        });
        let mut shared: HashMap<u32, u32> = HashMap::new();
        for id in new.chunks() {
            if let Some(at) = known.get(&short(id)) {
                *shared.entry(*at).or_default() += 1;
            }
        }
        let (at, _) = shared.into_iter().max_by_key(|&(at, n)| (n, std::cmp::Reverse(at)))?;
        self.old.entry(at as usize).file()
    }
}

/// The chunks of the content `like` that are likely to be like each of the chunks `wanted` of `new`.
/// Blocks.
pub(super) fn near_content(
    library: &Library,
    like: Digest,
    new: &Recipe,
    wanted: &[usize],
) -> Vec<Vec<Held>> {
    let Ok(old) = library.recipe(like) else { return Vec::new() };
    align::near(&old, new, wanted).into_iter().map(|range| held(&old, range)).collect()
}

fn held(recipe: &Recipe, range: Range<usize>) -> Vec<Held> {
    let spans = range.map(|at| recipe.span(at));
    spans.map(|span| (span.chunk, span.bytes.end - span.bytes.start)).collect()
}

/// Enough of an id to guess by: a base that is none costs bytes, and nothing else.
fn short(id: &ChunkId) -> u64 {
    let (first, _) = id.0.as_bytes().split_first_chunk().expect("an id has 32 bytes");
    u64::from_le_bytes(*first)
}

/// How many bytes two paths share at their ends.
fn same_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}
