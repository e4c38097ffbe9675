//! The tree digest: what makes two versions of a package the same.
//!
//! It covers paths, kinds, modes, sizes, digests and link targets. It leaves out modification
//! times, so that touching files or copying a source folder makes no new version; and it does not
//! depend on the manifest's encoding, so that a new encoding makes none either.

use super::{Kind, Manifest};
use contentlib::Digest;
use std::fmt;

/// BLAKE3 over what a tree is; `packager/FORMAT.md`, "Tree digest".
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TreeDigest(pub Digest);

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much is put together before it is hashed: long inputs hash several times as fast.
const BATCH: usize = 128 << 10;

impl Manifest {
    /// What this tree is, apart from its times.
    pub fn tree_digest(&self) -> TreeDigest {
        let mut hasher = blake3::Hasher::new_derive_key("depot 2026 tree digest v1");
        let mut row = Vec::with_capacity(BATCH + 16384);
        for entry in self.entries() {
            let (kind, size_or_len) = match entry.kind {
                Kind::Folder => (b'd', 0),
                Kind::Link { target } => (b'l', target.len() as u64),
                Kind::File(file) => (b'f', file.size),
            };
            row.push(kind);
            row.extend_from_slice(&entry.mode.to_le_bytes());
            row.extend_from_slice(&(entry.path.len() as u16).to_le_bytes());
            row.extend_from_slice(&size_or_len.to_le_bytes());
            row.extend_from_slice(entry.path);
            match entry.kind {
                Kind::Folder => {}
                Kind::Link { target } => row.extend_from_slice(target),
                Kind::File(file) => row.extend_from_slice(file.digest.as_bytes()),
            }
            if row.len() >= BATCH {
                hasher.update(&row);
                row.clear();
            }
        }
        hasher.update(&row);
        TreeDigest(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, FileEntry, ManifestBuilder};
    use super::*;

    fn digest_of(entry: Entry<'_>) -> TreeDigest {
        let mut builder = ManifestBuilder::default();
        builder.push(entry).unwrap();
        builder.finish().tree_digest()
    }

    #[test]
    fn all_but_times_and_recipes_makes_another_tree() {
        let content = FileEntry { size: 3, digest: Digest::of(b"abc"), recipe: None };
        let file = Entry { path: b"a", mode: 0o644, mtime: 0, kind: Kind::File(content) };
        let same = digest_of(file);
        assert_eq!(digest_of(Entry { mtime: 1, ..file }), same);
        let recipe = FileEntry { recipe: Some(Digest::of(b"")), ..content };
        assert_eq!(digest_of(Entry { kind: Kind::File(recipe), ..file }), same);

        let size = FileEntry { size: 4, ..content };
        let digest = FileEntry { digest: Digest::of(b"x"), ..content };
        let others = [
            Entry { path: b"b", ..file },
            Entry { mode: 0o755, ..file },
            Entry { kind: Kind::File(size), ..file },
            Entry { kind: Kind::File(digest), ..file },
            Entry { kind: Kind::Folder, ..file },
        ];
        for other in others {
            assert_ne!(digest_of(other), same);
        }
        let link = |target| Entry { mode: 0o777, kind: Kind::Link { target }, ..file };
        assert_ne!(digest_of(link(b"x")), digest_of(link(b"y")));
    }
}
