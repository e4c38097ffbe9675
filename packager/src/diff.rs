//! What differs between two trees.

use crate::manifest::{Entry, Kind, Manifest};
use crate::path::TreePath;
use crate::tree::TreeEntry;
use std::cmp::Ordering;

/// One path at which two trees differ. Times are not compared, as in a tree digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Only the later tree has it.
    Added(Entry<'a>),
    /// Only the earlier tree has it.
    Removed(Entry<'a>),
    /// Both have it, and it is not the same.
    Changed {
        /// In the earlier tree.
        before: Entry<'a>,
        /// In the later tree.
        after: Entry<'a>,
    },
}

/// All differences from `before` to `after`, in the order of paths.
pub fn differences<'a>(
    before: &'a Manifest,
    after: &'a Manifest,
) -> impl Iterator<Item = Difference<'a>> {
    let mut old = before.entries().peekable();
    let mut new = after.entries().peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(a), Some(b)) => a.path.cmp(b.path),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => return old.next().map(Difference::Removed),
                Ordering::Greater => return new.next().map(Difference::Added),
                Ordering::Equal => {
                    let (before, after) = (old.next()?, new.next()?);
                    if How::of(&before, &after).is_some() {
                        return Some(Difference::Changed { before, after });
                    }
                }
            }
        }
    })
}

/// How an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// A file has other bytes.
    Content,
    /// A link points elsewhere.
    Target,
    /// Only its mode is another.
    Mode,
    /// It is another kind of thing.
    Type,
}

impl How {
    fn of(before: &Entry<'_>, after: &Entry<'_>) -> Option<Self> {
        let same_mode = before.mode == after.mode;
        match (before.kind, after.kind) {
            (Kind::File(a), Kind::File(b)) if a.digest != b.digest => Some(How::Content),
            (Kind::Link { target: a }, Kind::Link { target: b }) if a != b => Some(How::Target),
            (Kind::File(_), Kind::File(_))
            | (Kind::Link { .. }, Kind::Link { .. })
            | (Kind::Folder, Kind::Folder) => (!same_mode).then_some(How::Mode),
            _ => Some(How::Type),
        }
    }
}

/// A [`Difference`] to send or to show.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// How it changed.
    pub how: How,
    /// The entry before, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<TreeEntry>,
    /// The entry after, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TreeEntry>,
}

impl Difference<'_> {
    /// How it changed.
    pub fn how(&self) -> How {
        match self {
            Difference::Added(_) => How::Added,
            Difference::Removed(_) => How::Removed,
            Difference::Changed { before, after } => How::of(before, after).unwrap_or(How::Mode),
        }
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        match self {
            Difference::Added(entry) | Difference::Removed(entry) => entry.path,
            Difference::Changed { after, .. } => after.path,
        }
    }
}

impl From<Difference<'_>> for Change {
    fn from(difference: Difference<'_>) -> Self {
        let (before, after) = match difference {
            Difference::Added(after) => (None, Some(after)),
            Difference::Removed(before) => (Some(before), None),
            Difference::Changed { before, after } => (Some(before), Some(after)),
        };
        Change {
            path: TreePath::of_checked(difference.path()),
            how: difference.how(),
            before: before.map(TreeEntry::from),
            after: after.map(TreeEntry::from),
        }
    }
}

/// How many paths changed in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiffCounts {
    /// Paths only in the later version.
    pub added: u64,
    /// Paths only in the earlier version.
    pub removed: u64,
    /// Files with other bytes and links that point elsewhere.
    pub changed: u64,
    /// Entries with another mode alone.
    pub mode: u64,
    /// Entries that became another kind of thing.
    pub kind: u64,
}

impl DiffCounts {
    pub(crate) fn count(&mut self, how: How) {
        let counter = match how {
            How::Added => &mut self.added,
            How::Removed => &mut self.removed,
            How::Content | How::Target => &mut self.changed,
            How::Mode => &mut self.mode,
            How::Type => &mut self.kind,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{FileEntry, LINK_MODE, ManifestBuilder};
    use contentlib::Digest;

    fn file(bytes: &[u8]) -> Kind<'static> {
        let digest = Digest::of(bytes);
        Kind::File(FileEntry { size: bytes.len() as u64, digest, recipe: None })
    }

    fn tree(entries: &[(&str, u16, Kind<'_>)]) -> Manifest {
        let mut builder = ManifestBuilder::default();
        for &(path, mode, kind) in entries {
            builder.push(Entry { path: path.as_bytes(), mode, mtime: 0, kind }).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn each_kind_of_change_is_told_from_the_others() {
        let link = |target| Kind::Link { target };
        let before = tree(&[
            ("content", 0o644, file(b"a")),
            ("gone", 0o644, file(b"a")),
            ("mode", 0o644, file(b"a")),
            ("same", 0o644, file(b"a")),
            ("target", LINK_MODE, link(b"a")),
            ("type", 0o755, Kind::Folder),
        ]);
        let after = tree(&[
            ("content", 0o600, file(b"b")),
            ("mode", 0o755, file(b"a")),
            ("new", 0o644, file(b"a")),
            ("same", 0o644, file(b"a")),
            ("target", LINK_MODE, link(b"b")),
            ("type", 0o755, file(b"a")),
        ]);
        let found: Vec<_> = differences(&before, &after)
            .map(|d| (String::from_utf8_lossy(d.path()).into_owned(), d.how()))
            .collect();
        let want = [
            ("content", How::Content),
            ("gone", How::Removed),
            ("mode", How::Mode),
            ("new", How::Added),
            ("target", How::Target),
            ("type", How::Type),
        ];
        assert_eq!(found, want.map(|(path, how)| (path.to_owned(), how)));
        assert_eq!(differences(&before, &before).count(), 0);
    }
}
