//! The bytes of a manifest; `packager/FORMAT.md`, "Manifest".
//!
//! Columns one after the other, none with a length in front: each is read until it has a value
//! for every entry. A change to one entry changes each column in one place, so that the chunks
//! before and after it are shared with the manifest of the version before.

#![deny(clippy::indexing_slicing)]

use super::build::shared_prefix;
use super::{
    CHUNKED, Entry, FILE, FOLDER, FileEntry, Kind, KindMode, LINK, MAX_ENTRIES, MAX_PATH_BYTES,
    MAX_TARGET, Manifest, ManifestBuilder, NotATree,
};
use crate::path::MAX_PATH;
use contentlib::Digest;

/// The first bytes of every manifest.
pub const MAGIC: [u8; 8] = *b"\x89depotM\n";
/// The version of the encoding that this code writes and reads.
pub const VERSION: u8 = 1;

/// Why some bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAManifest {
    /// They begin as something else.
    #[error("the bytes do not begin as a manifest does")]
    Magic,
    /// A later version of depot wrote them.
    #[error("manifest version {0} is not known here; a newer depot wrote it")]
    Version(u8),
    /// They end too early.
    #[error("the manifest is cut off")]
    CutOff,
    /// They go on after the last column.
    #[error("the manifest has {0} bytes too many")]
    TooLong(usize),
    /// More than [`MAX_ENTRIES`] entries, or more path bytes than allowed.
    #[error("the manifest is over the limits: {0}")]
    Limit(&'static str),
    /// The same tree has another encoding, which is the right one.
    #[error("the manifest is not in its one canonical form: {0}")]
    NotCanonical(&'static str),
    /// Well encoded, but no tree.
    #[error("the manifest lists no tree")]
    Tree(#[from] NotATree),
}

impl Manifest {
    /// The one encoding of this tree.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 48 * self.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        put_varint(&mut out, self.len() as u64);
        let mut before = &[][..];
        for entry in self.entries() {
            let shared = shared_prefix(before, entry.path);
            let (_, rest) = entry.path.split_at(shared);
            put_varint(&mut out, shared as u64);
            put_varint(&mut out, rest.len() as u64);
            out.extend_from_slice(rest);
            before = entry.path;
        }
        for run in self.kinds.chunk_by(|a, b| a == b) {
            put_varint(&mut out, run.len() as u64);
            run.iter().take(1).for_each(|kind| out.extend_from_slice(&kind.0.to_le_bytes()));
        }
        let mut before = 0i64;
        for &mtime in &self.mtimes {
            put_varint(&mut out, zigzag(mtime.wrapping_sub(before)));
            before = mtime;
        }
        self.sizes.iter().for_each(|&size| put_varint(&mut out, size));
        for entry in self.entries() {
            if let Kind::Link { target } = entry.kind {
                put_varint(&mut out, target.len() as u64);
                out.extend_from_slice(target);
            }
        }
        self.digests.iter().for_each(|digest| out.extend_from_slice(digest.as_bytes()));
        self.recipes.iter().for_each(|(_, recipe)| out.extend_from_slice(recipe.as_bytes()));
        out
    }

    /// Reads what [`Manifest::encode`] wrote. Any other bytes are an error, never a panic; memory
    /// stays within the limits of [`super`] and a small multiple of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAManifest> {
        let mut from = Reader(bytes.strip_prefix(&MAGIC).ok_or(NotAManifest::Magic)?);
        match from.byte()? {
            VERSION => {}
            other => return Err(NotAManifest::Version(other)),
        }
        let n = from.length(MAX_ENTRIES, "too many entries")?;
        // An entry takes three bytes at least, so that a large count in few bytes is refused
        // before anything is reserved for it.
        if n > from.0.len() / 3 {
            return Err(NotAManifest::CutOff);
        }
        let (paths, path_ends) = read_paths(&mut from, n)?;
        let kinds = read_kinds(&mut from, n)?;
        let mtimes = read_mtimes(&mut from, n)?;
        let count = |kind| kinds.iter().filter(|k| k.kind() == kind).count();
        let (n_links, n_chunked) = (count(LINK), count(CHUNKED));
        let n_files = count(FILE) + n_chunked;
        let sizes = (0..n_files).map(|_| from.varint()).collect::<Result<Vec<_>, _>>()?;
        let targets = (0..n_links).map(|_| {
            let len = from.length(MAX_TARGET, "a link's target is too long")?;
            from.take(len)
        });
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let digests = from.take(32 * n_files)?;
        let recipes = from.take(32 * n_chunked)?;
        if !from.0.is_empty() {
            return Err(NotAManifest::TooLong(from.0.len()));
        }

        let mut builder = ManifestBuilder::with_capacity(n);
        let (mut digests, mut recipes) = (digests_of(digests), digests_of(recipes));
        let (mut sizes, mut targets) = (sizes.into_iter(), targets.into_iter());
        let mut rest = paths.as_slice();
        let mut start = 0;
        for ((end, kind), mtime) in path_ends.into_iter().zip(kinds).zip(mtimes) {
            let cut = rest.split_at_checked(end - start).ok_or(NotAManifest::CutOff)?;
            let path = cut.0;
            (rest, start) = (cut.1, end);
            let what = match kind.kind() {
                FOLDER => Kind::Folder,
                LINK => Kind::Link { target: targets.next().ok_or(NotAManifest::CutOff)? },
                chunked_or_not => {
                    let size = sizes.next().ok_or(NotAManifest::CutOff)?;
                    let digest = digests.next().ok_or(NotAManifest::CutOff)?;
                    let recipe = if chunked_or_not == CHUNKED { recipes.next() } else { None };
                    Kind::File(FileEntry { size, digest, recipe })
                }
            };
            builder.push(Entry { path, mode: kind.mode(), mtime, kind: what })?;
        }
        Ok(builder.finish())
    }

    /// The digest of the encoding, which is the content a version's reference holds.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

fn read_paths(from: &mut Reader<'_>, n: usize) -> Result<(Vec<u8>, Vec<usize>), NotAManifest> {
    let mut paths: Vec<u8> = Vec::new();
    let mut ends = Vec::with_capacity(n);
    let mut before = 0..0;
    for _ in 0..n {
        let shared = from.length(MAX_PATH, "a path is too long")?;
        let len = from.length(MAX_PATH, "a path is too long")?;
        let rest = from.take(len)?;
        // What follows the shared bytes in the path before must differ from what follows here.
        let next_before = paths.get(before.start + shared..before.end).and_then(|p| p.first());
        if shared > before.len() {
            return Err(NotAManifest::NotCanonical("more bytes shared than the path before has"));
        }
        if next_before.is_some() && next_before == rest.first() {
            return Err(NotAManifest::NotCanonical("fewer bytes shared than could be"));
        }
        if paths.len() + shared + len > MAX_PATH_BYTES {
            return Err(NotAManifest::Limit("too many bytes of paths"));
        }
        let start = paths.len();
        paths.extend_from_within(before.start..before.start + shared);
        paths.extend_from_slice(rest);
        before = start..paths.len();
        ends.push(before.end);
    }
    Ok((paths, ends))
}

fn read_kinds(from: &mut Reader<'_>, n: usize) -> Result<Vec<KindMode>, NotAManifest> {
    let mut kinds: Vec<KindMode> = Vec::with_capacity(n);
    while kinds.len() < n {
        let run = from.length(n - kinds.len(), "a run of modes goes past the last entry")?;
        let kind = KindMode(u16::from_le_bytes([from.byte()?, from.byte()?]));
        if run == 0 || kinds.last() == Some(&kind) {
            return Err(NotAManifest::NotCanonical("a run of modes that is not whole"));
        }
        if kind.kind() > CHUNKED {
            return Err(NotAManifest::NotCanonical("an entry of no known kind"));
        }
        kinds.resize(kinds.len() + run, kind);
    }
    Ok(kinds)
}

fn read_mtimes(from: &mut Reader<'_>, n: usize) -> Result<Vec<i64>, NotAManifest> {
    let mut before = 0i64;
    let mut next = || {
        before = before.wrapping_add(unzigzag(from.varint()?));
        Ok(before)
    };
    (0..n).map(|_| next()).collect()
}

fn digests_of(column: &[u8]) -> impl Iterator<Item = Digest> + '_ {
    let (digests, _) = column.as_chunks::<32>();
    digests.iter().map(|bytes| Digest::from_bytes(*bytes))
}

/// The bytes not yet read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, NotAManifest> {
        let (&first, rest) = self.0.split_first().ok_or(NotAManifest::CutOff)?;
        self.0 = rest;
        Ok(first)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], NotAManifest> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(NotAManifest::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    /// LEB128, at most 64 bits and in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64, NotAManifest> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(NotAManifest::NotCanonical("a number of more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return match byte == 0 && shift > 0 {
                    true => Err(NotAManifest::NotCanonical("a number longer than it need be")),
                    false => Ok(value),
                };
            }
        }
        Err(NotAManifest::NotCanonical("a number of more than 64 bits"))
    }

    fn length(&mut self, most: usize, what: &'static str) -> Result<usize, NotAManifest> {
        let value = self.varint()?;
        usize::try_from(value).ok().filter(|&v| v <= most).ok_or(NotAManifest::Limit(what))
    }
}

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small positive and negative numbers as small ones.
pub(crate) fn zigzag(value: i64) -> u64 {
    (value as u64) << 1 ^ (value >> 63) as u64
}

/// The opposite of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::super::tests::tree;
    use super::super::{LINK_MODE, MODE_BITS};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Node {
        Folder,
        Link(Vec<u8>),
        File(u64, Option<[u8; 32]>),
    }

    fn any_node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Folder),
            prop::collection::vec(1u8.., 1..20).prop_map(Node::Link),
            (0u64..1 << 40, any::<Option<[u8; 32]>>()).prop_map(|(size, r)| Node::File(size, r)),
        ]
    }

    prop_compose! {
        fn any_tree()(
            entries in prop::collection::btree_map(
                prop::collection::vec(prop::collection::vec(1u8.., 1..4), 1..4),
                (any_node(), 0..=MODE_BITS, any::<i64>()), 0..30,
            ),
        ) -> Manifest {
            let mut rows = BTreeMap::new();
            for (names, row) in entries {
                let path = names.join(&b'/');
                if crate::path::check(&path).is_err() { continue }
                for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
                    rows.insert(path[..at].to_vec(), (Node::Folder, 0o755, 0));
                }
                rows.entry(path).or_insert(row);
            }
            let mut builder = ManifestBuilder::default();
            for (path, (node, mode, mtime)) in &rows {
                let (mode, kind) = match node {
                    Node::Folder => (*mode, Kind::Folder),
                    Node::Link(target) => (LINK_MODE, Kind::Link { target }),
                    Node::File(size, recipe) => {
                        let recipe = recipe.map(Digest::from_bytes);
                        (*mode, Kind::File(FileEntry { size: *size, digest: Digest::of(path), recipe }))
                    }
                };
                builder.push(Entry { path, mode, mtime: *mtime, kind }).unwrap();
            }
            builder.finish()
        }
    }

    #[test]
    fn the_empty_tree_is_ten_bytes() {
        let bytes = Manifest::default().encode();
        assert_eq!(bytes, [&MAGIC[..], &[VERSION, 0]].concat());
        assert_eq!(Manifest::decode(&bytes), Ok(Manifest::default()));
    }

    #[test]
    fn a_small_file_costs_about_its_digest() {
        let mut builder = ManifestBuilder::default();
        for folder in 0..16 {
            let path = format!("{folder:02x}");
            let kind = Kind::Folder;
            builder.push(Entry { path: path.as_bytes(), mode: 0o755, mtime: 0, kind }).unwrap();
            for n in 0..256u64 {
                let path = format!("{folder:02x}/f{n:06x}");
                let digest = Digest::of(path.as_bytes());
                let file = FileEntry { size: 1024 + n * 28, digest, recipe: None };
                let mtime = 1_700_000_000_000_000_000 + n as i64 * 123_456;
                let kind = Kind::File(file);
                builder.push(Entry { path: path.as_bytes(), mode: 0o644, mtime, kind }).unwrap();
            }
        }
        let tree = builder.finish();
        let each = tree.encode().len() as f64 / tree.n_files() as f64;
        assert!(each < 42.0, "{each} bytes a file");
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let mut bytes = tree(&["a"]).encode();
        bytes[8] = 2;
        assert_eq!(Manifest::decode(&bytes), Err(NotAManifest::Version(2)));
    }

    #[test]
    fn numbers_have_one_form() {
        let varint = |bytes: &[u8]| Reader(bytes).varint();
        assert_eq!(varint(&[0x80, 0x01]), Ok(128));
        assert!(varint(&[0x80, 0x00]).is_err(), "longer than it need be");
        let most = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(varint(&most), Ok(u64::MAX));
        assert!(varint(&[&[0xff; 9][..], &[2]].concat()).is_err(), "65 bits");
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_reserves_nothing() {
        let mut bytes = [&MAGIC[..], &[VERSION]].concat();
        put_varint(&mut bytes, MAX_ENTRIES as u64);
        assert_eq!(Manifest::decode(&bytes), Err(NotAManifest::CutOff));
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(tree in any_tree()) {
            prop_assert_eq!(Manifest::decode(&tree.encode()), Ok(tree));
        }

        #[test]
        fn bytes_cut_short_or_grown_are_refused(tree in any_tree(), at: prop::sample::Index) {
            let bytes = tree.encode();
            prop_assert!(Manifest::decode(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert!(Manifest::decode(&[bytes, vec![0]].concat()).is_err());
        }

        /// Canonical: whatever decodes is what its tree encodes to.
        #[test]
        fn no_two_encodings_are_one_tree(
            tree in any_tree(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = tree.encode();
            for (at, with) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            if let Ok(decoded) = Manifest::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&[&MAGIC[..], &[VERSION], &bytes].concat());
        }

        #[test]
        fn zigzag_turns_back(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
