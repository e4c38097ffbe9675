//! The entries of an archive, in any order, as a tree.

use super::BadEntry;
use super::stream::{TarEntry, TarKind};
use crate::manifest::{
    Entry, FileEntry, Kind, LINK_MODE, MAX_ENTRIES, MAX_PATH_BYTES, Manifest, ManifestBuilder,
    NotATree,
};
use crate::{fetch_state, path};
use std::collections::BTreeMap;

/// The mode of a folder that the archive has files in and no entry for.
const FOLDER_MODE: u16 = 0o755;

/// What an archive was found to hold so far.
#[derive(Default)]
pub(super) struct TarTree {
    nodes: BTreeMap<Box<[u8]>, Node>,
    n_files: usize,
    /// Bytes of all paths and targets: a few in the archive can state many, since each folder on
    /// the way to an entry is one too.
    n_bytes: usize,
}

#[derive(Clone)]
struct Node {
    mode: u16,
    mtime: i64,
    what: What,
}

#[derive(Clone)]
enum What {
    /// `false` if only entries inside it were seen.
    Folder {
        stated: bool,
    },
    Link(Box<[u8]>),
    /// Which of the archive's files has its bytes.
    File(usize),
}

impl TarTree {
    /// Takes an entry. If its bytes must be stored, answers which file they are.
    pub(super) fn take(&mut self, entry: &TarEntry) -> Result<Option<usize>, BadEntry> {
        let what = match entry.kind {
            TarKind::Sparse => return Err(BadEntry::Sparse),
            TarKind::Special(what) => return Err(BadEntry::Special(what)),
            TarKind::Folder => What::Folder { stated: true },
            TarKind::Link => What::Link(entry.link.clone().into()),
            TarKind::File => What::File(self.n_files),
            TarKind::HardLink => {
                let node = self.nodes.get(relative(&entry.link)).map(|node| &node.what);
                match node {
                    Some(what @ (What::File(_) | What::Link(_))) => what.clone(),
                    _ => return Err(BadEntry::HardLink(path::Shown(&entry.link).to_string())),
                }
            }
        };
        let path = relative(&entry.path);
        // The folder that was packed; packages keep no mode of their top folder.
        if path.is_empty() && entry.kind == TarKind::Folder {
            return Ok(None);
        }
        path::check(path)?;
        fetch_state::check(path)?;
        self.folders_of(path, entry.mtime)?;
        let mode = if matches!(what, What::Link(_)) { LINK_MODE } else { entry.mode };
        let node = Node { mode, mtime: entry.mtime, what };
        match self.nodes.get_mut(path) {
            None => self.insert(path, node)?,
            Some(old) => match (&old.what, &node.what) {
                (What::Folder { stated: false }, What::Folder { .. }) => *old = node,
                _ => return Err(BadEntry::Twice),
            },
        }
        if entry.kind == TarKind::File {
            self.n_files += 1;
            return Ok(Some(self.n_files - 1));
        }
        Ok(None)
    }

    /// Makes sure that the folders around `path` are there.
    fn folders_of(&mut self, path: &[u8], mtime: i64) -> Result<(), BadEntry> {
        let mut folder = path::split(path).0;
        while !folder.is_empty() {
            match self.nodes.get(folder).map(|node| &node.what) {
                Some(What::Folder { .. }) => return Ok(()),
                Some(_) => return Err(BadEntry::NotInFolder),
                None => {}
            }
            let what = What::Folder { stated: false };
            self.insert(folder, Node { mode: FOLDER_MODE, mtime, what })?;
            folder = path::split(folder).0;
        }
        Ok(())
    }

    /// Adds a path that is not there yet, within the limits of a manifest.
    fn insert(&mut self, path: &[u8], node: Node) -> Result<(), BadEntry> {
        if self.nodes.len() >= MAX_ENTRIES {
            return Err(BadEntry::TooMany);
        }
        let target = if let What::Link(target) = &node.what { target.len() } else { 0 };
        self.n_bytes += path.len() + target;
        if self.n_bytes > MAX_PATH_BYTES {
            return Err(BadEntry::TooMuchPath);
        }
        self.nodes.insert(path.into(), node);
        Ok(())
    }

    /// The tree, once the content of each file is known.
    pub(super) fn manifest(&self, files: &[FileEntry]) -> Result<Manifest, NotATree> {
        let mut builder = ManifestBuilder::with_capacity(self.nodes.len());
        for (path, node) in &self.nodes {
            let kind = match &node.what {
                What::Folder { .. } => Kind::Folder,
                What::Link(target) => Kind::Link { target },
                What::File(at) => Kind::File(files[*at]),
            };
            builder.push(Entry { path, mode: node.mode, mtime: node.mtime, kind })?;
        }
        Ok(builder.finish())
    }
}

/// A name of an archive without what only says "here": `./` in front, `/` behind.
fn relative(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
        while let Some(rest) = name.strip_prefix(b"/") {
            name = rest;
        }
    }
    while let Some(rest) = name.strip_suffix(b"/") {
        name = rest;
    }
    if name == b"." { b"" } else { name }
}
