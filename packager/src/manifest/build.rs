//! Building a manifest entry by entry, in the order of paths.
//!
//! Scans, uploads and the decoder all end here, so that there is one place where a tree can be
//! wrong. Each entry costs O(its path): the folders that are still open are found by length alone.

use super::{
    CHUNKED, Entry, FILE, FOLDER, Kind, KindMode, LINK, LINK_MODE, MAX_ENTRIES, MAX_PATH_BYTES,
    MAX_TARGET, MODE_BITS, Manifest,
};
use crate::path::{self, BadPath, TreePath};

/// Why some entries are no tree of a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotATree {
    /// A path outside the rules.
    #[error("{path}: {why}")]
    Path {
        /// The path, shown as text.
        path: String,
        /// What is wrong with it.
        why: BadPath,
    },
    /// The same path again, or one that should have come earlier.
    #[error("{0}: out of order, or there twice")]
    Order(TreePath),
    /// The folder it lies in is not an entry, or is no folder.
    #[error("{0}: its folder is not in the tree")]
    NoFolder(TreePath),
    /// Bits outside the mode, or a link of another mode than [`LINK_MODE`].
    #[error("{path}: mode {mode:o} is none")]
    Mode {
        /// The entry.
        path: TreePath,
        /// Its mode.
        mode: u16,
    },
    /// A link's target that is empty, too long, or has a zero byte.
    #[error("{0}: its target is empty, has a zero byte, or more than {MAX_TARGET} bytes")]
    Target(TreePath),
    /// More than [`MAX_ENTRIES`].
    #[error("more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// More than [`MAX_PATH_BYTES`].
    #[error("paths of more than {MAX_PATH_BYTES} bytes together")]
    TooMuchPath,
    /// Sizes that add up to more than 2^63.
    #[error("the files have more than 2^63 bytes together")]
    TooManyBytes,
}

/// Makes a [`Manifest`] of entries that come in the order of their paths.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    tree: Manifest,
    /// The lengths of those folders' paths that the last path starts with, ascending.
    open: Vec<usize>,
}

impl ManifestBuilder {
    /// A builder with room for `n_entries`.
    pub fn with_capacity(n_entries: usize) -> Self {
        let mut builder = Self::default();
        let (tree, n) = (&mut builder.tree, n_entries.min(MAX_ENTRIES));
        tree.path_ends.reserve(n);
        tree.kinds.reserve(n);
        tree.mtimes.reserve(n);
        tree.slots.reserve(n);
        tree.sizes.reserve(n);
        tree.digests.reserve(n);
        builder
    }

    /// Adds an entry, or says why it cannot be the next one and changes nothing.
    pub fn push(&mut self, entry: Entry<'_>) -> Result<(), NotATree> {
        let path = entry.path;
        path::check(path)
            .map_err(|why| NotATree::Path { path: path::Shown(path).to_string(), why })?;
        let n_open = self.check_place(path)?;
        let here = || TreePath::of_checked(path);
        let mode_is_one = match entry.kind {
            Kind::Link { .. } => entry.mode == LINK_MODE,
            _ => entry.mode <= MODE_BITS,
        };
        if !mode_is_one {
            return Err(NotATree::Mode { path: here(), mode: entry.mode });
        }
        let tree = &mut self.tree;
        let (kind, slot) = match entry.kind {
            Kind::Folder => (FOLDER, 0),
            Kind::Link { target } => {
                if !is_target(target) {
                    return Err(NotATree::Target(here()));
                }
                let end = tree.targets.len() + target.len();
                tree.target_ends.push(u32::try_from(end).map_err(|_| NotATree::TooMuchPath)?);
                tree.targets.extend_from_slice(target);
                (LINK, tree.target_ends.len() as u32 - 1)
            }
            Kind::File(file) => {
                tree.bytes = add_size(tree.bytes, file.size)?;
                let slot = tree.sizes.len() as u32;
                tree.sizes.push(file.size);
                tree.digests.push(file.digest);
                tree.recipes.extend(file.recipe.map(|recipe| (slot, recipe)));
                (if file.recipe.is_some() { CHUNKED } else { FILE }, slot)
            }
        };
        tree.kinds.push(KindMode(kind << 12 | entry.mode));
        tree.slots.push(slot);
        tree.mtimes.push(entry.mtime);
        tree.paths.extend_from_slice(path);
        tree.path_ends.push(tree.paths.len() as u32);
        self.open.truncate(n_open);
        if kind == FOLDER {
            self.open.push(path.len());
        }
        Ok(())
    }

    /// The tree of all entries pushed.
    pub fn finish(self) -> Manifest {
        self.tree
    }

    /// Whether `path` may come next; how many of the open folders stay open then.
    fn check_place(&self, path: &[u8]) -> Result<usize, NotATree> {
        let here = || TreePath::of_checked(path);
        let n = self.tree.len();
        let before = if n == 0 { &[][..] } else { self.tree.path(n - 1) };
        if n > 0 && path <= before {
            return Err(NotATree::Order(here()));
        }
        // An open folder's path is a prefix of the path before. One that is longer than what is
        // shared is no prefix of this path, nor of any later one.
        let shared = shared_prefix(before, path);
        let n_open = self.open.partition_point(|&len| len <= shared);
        let folder = path::split(path).0.len();
        if folder > 0 && self.open[..n_open].binary_search(&folder).is_err() {
            return Err(NotATree::NoFolder(here()));
        }
        if n == MAX_ENTRIES {
            return Err(NotATree::TooManyEntries);
        }
        if self.tree.paths.len() + path.len() > MAX_PATH_BYTES {
            return Err(NotATree::TooMuchPath);
        }
        Ok(n_open)
    }
}

/// The sum of the sizes so far and the next.
fn add_size(sum: u64, size: u64) -> Result<u64, NotATree> {
    sum.checked_add(size).filter(|&sum| sum <= 1 << 63).ok_or(NotATree::TooManyBytes)
}

fn is_target(target: &[u8]) -> bool {
    (1..=MAX_TARGET).contains(&target.len()) && !target.contains(&0)
}

/// How many bytes at the front `a` and `b` share.
pub(super) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    std::iter::zip(a, b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(entries: &[(&str, Kind<'_>)]) -> Result<Manifest, NotATree> {
        let mut builder = ManifestBuilder::default();
        for &(path, kind) in entries {
            let entry = Entry { path: path.as_bytes(), mode: 0o777, mtime: 0, kind };
            builder.push(entry)?;
        }
        Ok(builder.finish())
    }
    const LINK: Kind<'_> = Kind::Link { target: b"x" };

    #[test]
    fn order_is_that_of_bytes_and_no_path_comes_twice() {
        let path = |p: &str| TreePath::new(p.as_bytes()).unwrap();
        assert!(pushed(&[("a", LINK), ("b", LINK)]).is_ok());
        assert_eq!(pushed(&[("b", LINK), ("a", LINK)]), Err(NotATree::Order(path("a"))));
        assert_eq!(pushed(&[("a", LINK), ("a", LINK)]), Err(NotATree::Order(path("a"))));
    }

    #[test]
    fn an_entry_lies_in_a_folder_that_is_there() {
        let path = |p: &str| TreePath::new(p.as_bytes()).unwrap();
        let (a, a_b) = (("a", Kind::Folder), ("a-b", Kind::Folder));
        assert!(pushed(&[a, a_b, ("a-b/x", LINK), ("a/x", LINK)]).is_ok());
        assert_eq!(pushed(&[("a/x", LINK)]), Err(NotATree::NoFolder(path("a/x"))));
        let in_a_link = pushed(&[("a", LINK), ("a/x", LINK)]);
        assert_eq!(in_a_link, Err(NotATree::NoFolder(path("a/x"))));
        let deeper = pushed(&[a, ("a/b/c", LINK)]);
        assert_eq!(deeper, Err(NotATree::NoFolder(path("a/b/c"))));
    }

    #[test]
    fn a_link_points_somewhere() {
        let long = [b'x'; MAX_TARGET + 1];
        for target in [&b""[..], b"a\0", &long] {
            let found = pushed(&[("a", Kind::Link { target })]);
            assert!(matches!(found, Err(NotATree::Target(_))));
        }
    }
}
