//! Folders to store and to compare: made from a description, read back as a description.
//!
//! A [`Tree`] holds what depot promises to keep of a folder: names byte-exact, kinds, bytes,
//! permission bits, modification times, link targets, empty folders.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Bytes, permission bits, and modification time in nanoseconds since 1970.
    File { bytes: Vec<u8>, mode: u32, mtime: i128 },
    /// Permission bits, and modification time in nanoseconds since 1970.
    Folder { mode: u32, mtime: i128 },
    /// Where it points.
    Link { to: Vec<u8> },
}

/// A folder's entries by path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// What `folder` holds.
pub fn read(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    read_into(folder, &[], &mut tree);
    tree
}

fn read_into(folder: &Path, prefix: &[u8], tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mut path = prefix.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        let meta = entry.path().symlink_metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let node = if meta.is_symlink() {
            Node::Link { to: fs::read_link(entry.path()).unwrap().into_os_string().into_vec() }
        } else if meta.is_dir() {
            read_into(&entry.path(), &path, tree);
            Node::Folder { mode, mtime }
        } else {
            Node::File { bytes: fs::read(entry.path()).unwrap(), mode, mtime }
        };
        tree.insert(path, node);
    }
}

/// Writes files with these names and bytes, making the folders they lie in.
pub fn write(folder: &Path, files: &[(&[u8], &[u8])]) {
    for (name, bytes) in files {
        let path = folder.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A folder with everything that a file system can hold and that tools get wrong.
pub fn write_odd(folder: &Path) {
    let long = [b'n'; 255];
    write(
        folder,
        &[
            (b"plain.txt", b"plain\n"),
            (b"empty", b""),
            (b".hidden", b"hidden"),
            (b"with space and \"quotes\"", b"q"),
            (b"new\nline", b"n"),
            (b"not-utf8-\xff\xfe", b"bytes"),
            (b"percent%2Fname", b"p"),
            (b"question?mark#hash", b"?"),
            (b"caf\xc3\xa9/\xe2\x82\xac", b"unicode"),
            (b"deep/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", b"deep"),
            (&long, b"long"),
            (b"bin/tool", b"#!/bin/sh\n"),
        ],
    );
    fs::write(folder.join("one-chunk"), super::noise(1, 32 << 10)).unwrap();
    fs::write(folder.join("large"), super::noise(2, 3 << 20)).unwrap();
    fs::write(folder.join("repeated"), vec![7; 2 << 20]).unwrap();
    let sparse = fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    fs::hard_link(folder.join("plain.txt"), folder.join("hard-link")).unwrap();
    symlink("plain.txt", folder.join("link")).unwrap();
    symlink("../outside", folder.join("link-out")).unwrap();
    symlink("link-loop", folder.join("link-loop")).unwrap();
    symlink("/nowhere", folder.join("link-dangling")).unwrap();
    fs::create_dir(folder.join("empty-folder")).unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("bin/tool", 0o755);
    set("empty-folder", 0o700);
    set(".hidden", 0o600);
}

/// Fails with the first paths that differ, since whole trees are too much to print.
#[track_caller]
pub fn assert_same(found: &Tree, want: &Tree) {
    let names = |tree: &Tree, other: &Tree| {
        let differs = |path: &&Vec<u8>| tree.get(*path) != other.get(*path);
        let paths: Vec<String> = tree
            .keys()
            .filter(differs)
            .take(5)
            .map(|p| String::from_utf8_lossy(p).escape_debug().to_string())
            .collect();
        paths.join(", ")
    };
    assert!(
        found == want,
        "found differs at [{}], want at [{}]",
        names(found, want),
        names(want, found)
    );
}
