//! Manifests: the tree of one package version, as it is signed and stored.
//!
//! A manifest lists every file, folder and symbolic link of a version. It is itself content, and
//! the site signs its digest; so whoever holds one can check every byte that follows. With a
//! hundred thousand small files it must stay small against them, hence columns: what compresses
//! (names, modes, times, sizes) lies together, and so do the digests, which do not.
//!
//! Always true of a [`Manifest`]:
//! * entries are in the byte order of their paths, each path once and in [`crate::path`]'s rules;
//! * the folder that an entry lies in is an entry too, of kind folder;
//! * equal trees have equal bytes: the encoding is canonical, and decoding refuses any other.
//!
//! The bytes: `packager/FORMAT.md`, "Manifest".

mod build;
mod tree;
mod wire;

pub use build::{ManifestBuilder, NotATree};
pub use tree::TreeDigest;
pub use wire::{MAGIC, NotAManifest, VERSION};
pub(crate) use wire::{Reader, put_varint, unzigzag, zigzag};

use crate::path;
use contentlib::Digest;
use std::ops::Range;

/// The most entries of one manifest.
pub const MAX_ENTRIES: usize = 1 << 22;
/// The most bytes that all paths of one manifest have together.
pub const MAX_PATH_BYTES: usize = 1 << 28;
/// The longest target of a symbolic link, in bytes; Linux's own limit.
pub const MAX_TARGET: usize = 4095;
/// The bits of a mode: permissions, set-user-id, set-group-id and sticky.
pub const MODE_BITS: u16 = 0o7777;
/// The mode of every symbolic link.
pub const LINK_MODE: u16 = 0o777;

/// The tree of one package version. The module header says what always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    paths: Vec<u8>,
    path_ends: Vec<u32>,
    kinds: Vec<KindMode>,
    mtimes: Vec<i64>,
    /// Which file or link an entry is, counted among its like; 0 for folders.
    slots: Vec<u32>,
    sizes: Vec<u64>,
    digests: Vec<Digest>,
    /// For files of more than one chunk: the file's slot, and the digest of its recipe.
    recipes: Vec<(u32, Digest)>,
    targets: Vec<u8>,
    target_ends: Vec<u32>,
    bytes: u64,
}

/// A kind in the four high bits, a mode in the others, as in `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KindMode(u16);

const FOLDER: u16 = 0;
const LINK: u16 = 1;
const FILE: u16 = 2;
/// A file of more than one chunk, which has a recipe.
const CHUNKED: u16 = 3;

impl KindMode {
    fn kind(self) -> u16 {
        self.0 >> 12
    }
    fn mode(self) -> u16 {
        self.0 & MODE_BITS
    }
}

/// One entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path, relative to the package.
    pub path: &'a [u8],
    /// Its mode: the low twelve bits of `st_mode`.
    pub mode: u16,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime: i64,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder, with or without entries in it.
    Folder,
    /// A symbolic link. It is stored, never followed.
    Link {
        /// The bytes it holds.
        target: &'a [u8],
    },
    /// A regular file.
    File(FileEntry),
}

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its length in bytes.
    pub size: u64,
    /// The BLAKE3 of its bytes.
    pub digest: Digest,
    /// The digest of its recipe, if it has more than one chunk.
    pub recipe: Option<Digest>,
}

impl<'a> Entry<'a> {
    /// The file's content, if it is a file.
    pub fn file(&self) -> Option<FileEntry> {
        match self.kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }
    /// Its last name.
    pub fn name(&self) -> &'a [u8] {
        path::split(self.path).1
    }
}

impl Manifest {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.path_ends.len()
    }

    /// Whether the tree is empty, as that of every version 1 is.
    pub fn is_empty(&self) -> bool {
        self.path_ends.is_empty()
    }

    /// How many files there are.
    pub fn n_files(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// How many folders there are.
    pub fn n_folders(&self) -> u64 {
        self.len() as u64 - self.n_files() - self.n_links()
    }

    /// How many symbolic links there are.
    pub fn n_links(&self) -> u64 {
        self.target_ends.len() as u64
    }

    /// The sizes of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The `at`th entry in the order of paths.
    ///
    /// # Panics
    /// If `at` is not below [`Manifest::len`].
    pub fn entry(&self, at: usize) -> Entry<'_> {
        let kind = self.kinds[at];
        let slot = self.slots[at] as usize;
        let what = match kind.kind() {
            FOLDER => Kind::Folder,
            LINK => Kind::Link { target: &self.targets[place(&self.target_ends, slot)] },
            _ => Kind::File(self.file(slot)),
        };
        Entry { path: self.path(at), mode: kind.mode(), mtime: self.mtimes[at], kind: what }
    }

    /// All entries, in the order of their paths.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + Clone {
        (0..self.len()).map(|at| self.entry(at))
    }

    /// The digests of all files, in the order of their paths; a content that is there twice comes
    /// twice.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The sizes of all files, in the order of their paths.
    pub(crate) fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// The entry of exactly this path. O(log n).
    pub fn lookup(&self, path: &[u8]) -> Option<Entry<'_>> {
        self.position(path).map(|at| self.entry(at))
    }

    /// The entries right inside `folder` (no bytes for the top folder), in the order of their
    /// paths: `None` if there is no such folder. O(log n) for each entry taken.
    pub fn children<'a>(&'a self, folder: &[u8]) -> Option<impl Iterator<Item = Entry<'a>> + 'a> {
        self.children_after(folder, None)
    }

    /// Of [`Manifest::children`], those whose path comes after `after`.
    pub fn children_after<'a>(
        &'a self,
        folder: &[u8],
        after: Option<&[u8]>,
    ) -> Option<impl Iterator<Item = Entry<'a>> + 'a> {
        let below = self.below(folder)?;
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let mut at = after.map_or(0, |after| self.first_after(after)).max(below.start);
        Some(std::iter::from_fn(move || {
            while at < below.end {
                let rest = &self.path(at)[skip..];
                let Some(slash) = rest.iter().position(|&b| b == b'/') else {
                    at += 1;
                    return Some(self.entry(at - 1));
                };
                // A run of what lies deeper, all below one child.
                at = self.end_of(&self.path(at)[..=skip + slash], at..below.end);
            }
            None
        }))
    }

    /// The index of the first entry whose path comes after `path`.
    pub fn first_after(&self, path: &[u8]) -> usize {
        self.partition(0..self.len(), |found| found <= path)
    }

    /// The indexes of all entries below `folder` at any depth (no bytes for the top folder):
    /// `None` if there is no such folder. O(log n).
    pub fn below(&self, folder: &[u8]) -> Option<Range<usize>> {
        if folder.is_empty() {
            return Some(0..self.len());
        }
        let at = self.position(folder)?;
        if self.kinds[at].kind() != FOLDER {
            return None;
        }
        let prefix = [folder, b"/"].concat();
        let first = self.partition(at..self.len(), |path| path < prefix.as_slice());
        Some(first..self.end_of(&prefix, first..self.len()))
    }

    /// The index of the entry of exactly this path.
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        let at = self.partition(0..self.len(), |found| found < path);
        (at < self.len() && self.path(at) == path).then_some(at)
    }

    /// Where, within `range`, the paths end that start with `prefix`; those are at its front.
    fn end_of(&self, prefix: &[u8], range: Range<usize>) -> usize {
        self.partition(range, |path| path.starts_with(prefix))
    }

    fn partition(&self, range: Range<usize>, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.path(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The path of the `at`th entry.
    pub(crate) fn path(&self, at: usize) -> &[u8] {
        &self.paths[place(&self.path_ends, at)]
    }

    fn file(&self, slot: usize) -> FileEntry {
        let recipe = self.recipes.binary_search_by_key(&(slot as u32), |&(slot, _)| slot);
        let recipe = recipe.ok().map(|at| self.recipes[at].1);
        FileEntry { size: self.sizes[slot], digest: self.digests[slot], recipe }
    }
}

/// Where the `at`th piece lies in a column whose pieces end at `ends`.
fn place(ends: &[u32], at: usize) -> Range<usize> {
    let start = if at == 0 { 0 } else { ends[at - 1] };
    start as usize..ends[at] as usize
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A tree of files with their paths as content, for tests elsewhere too.
    pub(crate) fn tree(paths: &[&str]) -> Manifest {
        let mut entries = BTreeMap::new();
        for path in paths {
            for (at, _) in path.match_indices('/') {
                entries.insert(&path.as_bytes()[..at], Kind::Folder);
            }
            let digest = Digest::of(path.as_bytes());
            let file = FileEntry { size: path.len() as u64, digest, recipe: None };
            entries.insert(path.as_bytes(), Kind::File(file));
        }
        let mut builder = ManifestBuilder::default();
        for (path, kind) in entries {
            builder.push(Entry { path, mode: 0o644, mtime: 0, kind }).unwrap();
        }
        builder.finish()
    }

    fn names<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<String> {
        entries.map(|e| String::from_utf8_lossy(e.path).into_owned()).collect()
    }

    #[test]
    fn children_are_those_right_inside() {
        // In byte order `a-b` stands between `a` and `a/x`: a folder's entries do not follow it.
        let tree = tree(&["a/x", "a/y/1", "a/y/2", "a/y-z", "a-b", "b"]);
        assert_eq!(names(tree.children(b"").unwrap()), ["a", "a-b", "b"]);
        assert_eq!(names(tree.children(b"a").unwrap()), ["a/x", "a/y", "a/y-z"]);
        assert_eq!(names(tree.children(b"a/y").unwrap()), ["a/y/1", "a/y/2"]);
        assert!(tree.children(b"b").is_none(), "a file");
        assert!(tree.children(b"c").is_none(), "nothing");
    }

    proptest! {
        #[test]
        fn lookup_and_children_agree_with_a_plain_scan(
            paths in prop::collection::btree_set("[a-c/-]{1,7}", 0..20),
        ) {
            let is_file = |p: &&String| {
                let below = format!("{p}/");
                path::check(p.as_bytes()).is_ok() && !paths.iter().any(|q| q.starts_with(&below))
            };
            let tree = tree(&paths.iter().filter(is_file).map(String::as_str).collect::<Vec<_>>());
            for entry in tree.entries() {
                prop_assert_eq!(tree.lookup(entry.path), Some(entry));
                let inside = tree.entries().filter(|e| path::split(e.path).0 == entry.path);
                let scanned = (entry.kind == Kind::Folder).then(|| names(inside));
                prop_assert_eq!(tree.children(entry.path).map(names), scanned);
            }
            let top = tree.entries().filter(|e| !e.path.contains(&b'/'));
            prop_assert_eq!(names(tree.children(b"").unwrap()), names(top));
        }
    }
}
