//! Entries of a tree as they are sent and shown, and pages of them.

use crate::manifest::{Entry, Kind, Manifest};
use crate::path::{Shown, TreePath};
use contentlib::Digest;

/// An entry of a version, owned; see [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TreeEntry {
    /// Its path in the package.
    pub path: TreePath,
    /// What it is.
    #[serde(flatten)]
    pub kind: TreeKind,
    /// Its mode: the low twelve bits of `st_mode`.
    pub mode: u16,
    /// When it was last modified.
    pub mtime: jiff::Timestamp,
}

/// What a [`TreeEntry`] is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TreeKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it points, as [`Shown`].
        target: String,
    },
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its content.
        digest: Digest,
        /// The digest of its recipe, if it has more than one chunk.
        #[serde(skip_serializing_if = "Option::is_none")]
        recipe: Option<Digest>,
    },
}

impl From<Entry<'_>> for TreeEntry {
    fn from(entry: Entry<'_>) -> Self {
        let kind = match entry.kind {
            Kind::Folder => TreeKind::Folder,
            Kind::Link { target } => TreeKind::Link { target: Shown(target).to_string() },
            Kind::File(f) => TreeKind::File { size: f.size, digest: f.digest, recipe: f.recipe },
        };
        let mtime = jiff::Timestamp::from_nanosecond(entry.mtime.into());
        TreeEntry {
            path: TreePath::of_checked(entry.path),
            kind,
            mode: entry.mode,
            mtime: mtime.unwrap_or_default(),
        }
    }
}

/// Which part of a long list is wanted.
#[derive(Clone, Debug)]
pub struct Page {
    /// Only what comes after this path.
    pub after: Option<TreePath>,
    /// At most so many.
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: 1000 }
    }
}

/// How far below a folder a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Only what is right inside.
    Children,
    /// Everything.
    All,
}

/// Part of a list of entries.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TreePage {
    /// The package's version that they are of.
    pub version: u64,
    /// The entries, in the order of paths.
    pub entries: Vec<TreeEntry>,
    /// What to ask for to get the next part; nothing if this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<TreePath>,
}

/// The entries of `page` in `folder`, and where the next page begins: `None` if there is no such
/// folder.
pub(crate) fn page(
    manifest: &Manifest,
    folder: &[u8],
    depth: Depth,
    page: &Page,
) -> Option<(Vec<TreeEntry>, Option<TreePath>)> {
    let after = page.after.as_ref().map(TreePath::as_bytes);
    let mut entries: Box<dyn Iterator<Item = Entry<'_>>> = match depth {
        Depth::Children => Box::new(manifest.children_after(folder, after)?),
        Depth::All => {
            let below = manifest.below(folder)?;
            let first = after.map_or(0, |after| manifest.first_after(after));
            Box::new((below.start.max(first)..below.end).map(|at| manifest.entry(at)))
        }
    };
    let found: Vec<TreeEntry> = entries.by_ref().take(page.limit).map(TreeEntry::from).collect();
    let more = entries.next().is_some();
    let next = found.last().filter(|_| more).map(|last| last.path.clone());
    Some((found, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::tree;

    #[test]
    fn pages_put_together_are_the_whole() {
        let tree = tree(&["a/x", "a/y/1", "a/y/2", "a/y-z", "a-b", "b"]);
        for depth in [Depth::Children, Depth::All] {
            for folder in [&b""[..], b"a", b"a/y"] {
                let all = page(&tree, folder, depth, &Page::default()).unwrap().0;
                for limit in 1..5 {
                    let (mut found, mut after) = (Vec::new(), None);
                    loop {
                        let (part, next) =
                            page(&tree, folder, depth, &Page { after, limit }).unwrap();
                        found.extend(part);
                        after = next;
                        if after.is_none() {
                            break;
                        }
                    }
                    assert_eq!(found, all);
                }
            }
        }
    }

    #[test]
    fn an_entry_in_json_says_what_it_is() {
        let entry = TreeEntry::from(tree(&["a"]).entry(0));
        let json = serde_json::to_value(entry).unwrap();
        assert_eq!(json["type"], "file");
        assert_eq!(json["mtime"], "1970-01-01T00:00:00Z");
    }
}
