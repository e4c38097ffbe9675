//! Removing what a version does not have from the destination.

use super::dest::{Dest, PART};
use super::{Extra, RestoreError};
use crate::folder::make_usable;
use crate::manifest::{Kind, Manifest};
use crate::path;
use rustix::fs::{AtFlags, FileType, RawDir, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Removes entries that the version does not have, if that is asked for, and in any case what a
/// restore that was killed left half-written. Answers how many of the former.
pub(super) fn prune(
    dest: &Dest<'_>,
    manifest: &Manifest,
    extra: Extra,
) -> Result<u64, RestoreError> {
    let folders = manifest.entries().filter(|entry| entry.kind == Kind::Folder).map(|e| e.path);
    let mut removed = 0;
    for folder in std::iter::once(&b""[..]).chain(folders) {
        if dest.is_fresh(folder) {
            continue;
        }
        let here = |source| dest.entry_error(folder, source);
        let fd = dest.folder.open_folder(folder).map_err(here)?;
        for name in names(&fd).map_err(here)? {
            let path = path::join(folder, &name);
            if manifest.position(&path).is_some() {
                continue;
            }
            if name.starts_with(PART) {
                // Only a file or link has such a name; anything else is not ours.
                let _ = unlinkat(&fd, OsStr::from_bytes(&name), AtFlags::empty());
            } else if extra == Extra::Remove {
                removed += remove_tree(dest, &path)?;
            }
        }
    }
    Ok(removed)
}

/// Removes an entry with all that is in it, following nothing. Answers how many entries.
pub(super) fn remove_tree(dest: &Dest<'_>, path: &[u8]) -> Result<u64, RestoreError> {
    let mut removed = 0;
    let mut folders = Vec::new();
    let mut found = vec![path.to_vec()];
    while let Some(path) = found.pop() {
        let here = |source| dest.entry_error(&path, source);
        removed += 1;
        if remove_file(dest, &path).map_err(here)? {
            continue;
        }
        let fd = dest.folder.open_folder(&path).map_err(here)?;
        found.extend(names(&fd).map_err(here)?.iter().map(|name| path::join(&path, name)));
        folders.push(path);
    }
    // Each folder comes after the one it lies in.
    for path in folders.iter().rev() {
        let remove = || -> io::Result<()> {
            let (folder, name) = path::split(path);
            let parent = dest.folder.open_folder(folder)?;
            Ok(unlinkat(&parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR)?)
        };
        remove().map_err(|source| dest.entry_error(path, source))?;
    }
    Ok(removed)
}

/// Removes what is no folder; makes a folder one that can be emptied, and answers `false`.
fn remove_file(dest: &Dest<'_>, path: &[u8]) -> io::Result<bool> {
    let (folder, name) = path::split(path);
    let name = OsStr::from_bytes(name);
    let parent = dest.folder.open_folder(folder)?;
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        make_usable(&parent, name, &stat)?;
        return Ok(false);
    }
    unlinkat(&parent, name, AtFlags::empty())?;
    Ok(true)
}

fn names(fd: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    names.retain(|name| !matches!(&name[..], b"." | b".."));
    Ok(names)
}
