//! Putting entries in place, and taking away those that left the package.
//!
//! Files and links are made in `.depot/partial` and renamed, so each is the old or the new one
//! whole. Only what an earlier fetch put there, and nobody changed since, is ever removed.

use super::RemoteError;
use super::plan::{Found, digest_of, is_untouched, place};
use super::state::{Last, State};
use contentlib::Digest;
use packager::manifest::{Entry, Kind, Manifest};
use packager::path;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a folder needs for work inside it.
const WORKABLE: u32 = 0o700;

/// A folder that is becoming a version.
pub(super) struct Placer<'a> {
    out: &'a Path,
    manifest: &'a Manifest,
    state: &'a State,
    parts: PathBuf,
}

/// Numbers what is being made. One fetch has the folder, so numbers of this process are enough.
static NEXT_PART: AtomicU64 = AtomicU64::new(0);

impl<'a> Placer<'a> {
    pub fn new(out: &'a Path, manifest: &'a Manifest, state: &'a State) -> Self {
        Self { out, manifest, state, parts: state.partials() }
    }

    fn path(&self, entry: &Entry<'_>) -> PathBuf {
        place(self.out, entry.path)
    }

    /// A name for something that is being made.
    fn part(&self) -> PathBuf {
        self.parts.join(format!("part-{}", NEXT_PART.fetch_add(1, Relaxed)))
    }

    /// Makes the folders that are missing and opens up those that are closed for work; clears the
    /// way where something of an earlier fetch has another kind.
    pub fn prepare(&self, found: &[Found]) -> Result<(), RemoteError> {
        for (entry, found) in self.manifest.entries().zip(found) {
            let path = self.path(&entry);
            if *found == Found::OtherKind {
                self.clear(&path, entry.path)?;
            }
            if entry.kind != Kind::Folder {
                continue;
            }
            // Asked again: what was found below a folder that was just cleared is gone.
            let is_there = fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir());
            let done = if is_there { open_up(&path) } else { fs::create_dir(&path) };
            done.map_err(RemoteError::io(path))?;
        }
        Ok(())
    }

    /// Gives an entry whose bytes are right its mode and time.
    pub fn touch_up(&self, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let path = self.path(entry);
        set_mode_and_time(&path, entry).map_err(RemoteError::io(path))
    }

    /// Puts a link, or an empty file, in place.
    pub fn make(&self, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let (part, path) = (self.part(), self.path(entry));
        let made = match entry.kind {
            Kind::Link { target } => {
                let _ = fs::remove_file(&part);
                symlink(OsStr::from_bytes(target), &part)
            }
            _ => File::create(&part).map(drop),
        };
        made.and_then(|()| move_in(&part, &path, entry)).map_err(RemoteError::io(path))
    }

    /// Puts a complete content in all its places.
    pub fn put(&self, partial: &Path, entries: &[usize]) -> Result<(), RemoteError> {
        let Some((&last, others)) = entries.split_last() else { return Ok(()) };
        for &at in others {
            let (part, entry) = (self.part(), self.manifest.entry(at));
            let path = self.path(&entry);
            let copied = fs::copy(partial, &part).and_then(|_| move_in(&part, &path, &entry));
            copied.map_err(RemoteError::io(path))?;
        }
        let entry = self.manifest.entry(last);
        let path = self.path(&entry);
        move_in(partial, &path, &entry).map_err(RemoteError::io(path))
    }

    /// Removes what earlier fetches left and the version does not have. Returns how much that was,
    /// and what stays since somebody changed it.
    pub fn prune(&self) -> Result<(u64, Vec<String>), RemoteError> {
        let (mut removed, mut kept) = (0, Vec::new());
        for old in self.earlier() {
            let gone = |e: &Entry<'_>| self.manifest.lookup(e.path).is_none();
            for entry in old.entries().filter(gone).filter(|e| e.kind == Kind::Folder) {
                // It may be closed for work; one that is not there any more needs none.
                let path = self.path(&entry);
                if fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir()) {
                    open_up(&path).map_err(RemoteError::io(path))?;
                }
            }
            // Backwards: what lies in a folder comes before it.
            for at in (0..old.len()).rev() {
                let entry = old.entry(at);
                if !gone(&entry) {
                    continue;
                }
                match self.remove(&self.path(&entry), &entry)? {
                    Removed::Yes => removed += 1,
                    Removed::Changed => kept.push(path::Shown(entry.path).to_string()),
                    Removed::NotThere => {}
                }
            }
        }
        kept.sort();
        kept.dedup();
        Ok((removed, kept))
    }

    /// Gives folders their modes and times, innermost first: nothing moves in them any more.
    pub fn finish_folders(&self) -> Result<(), RemoteError> {
        for at in (0..self.manifest.len()).rev() {
            let entry = self.manifest.entry(at);
            if entry.kind == Kind::Folder {
                self.touch_up(&entry)?;
            }
        }
        Ok(())
    }

    /// The versions whose entries are of our making.
    fn earlier(&self) -> impl Iterator<Item = &'a Manifest> {
        let last = self.state.last.as_ref().map(|last| &last.manifest);
        last.into_iter().chain(&self.state.pending)
    }

    /// Takes away what is in the way of an entry, if it is of our making.
    fn clear(&self, path: &Path, name: &[u8]) -> Result<(), RemoteError> {
        for old in self.earlier() {
            let below = old.below(name).unwrap_or(0..0);
            for at in below.rev() {
                let entry = old.entry(at);
                self.remove(&self.path(&entry), &entry)?;
            }
            if let Some(entry) = old.lookup(name) {
                self.remove(path, &entry)?;
            }
        }
        match fs::symlink_metadata(path) {
            Ok(_) => Err(RemoteError::InTheWay(path.into())),
            Err(_) => Ok(()),
        }
    }

    /// Removes an entry of an earlier version, if it is still what was put there.
    fn remove(&self, path: &Path, entry: &Entry<'_>) -> Result<Removed, RemoteError> {
        let removed = || {
            let stat = match fs::symlink_metadata(path) {
                Ok(stat) => stat,
                Err(e) if is_absent(&e) => return Ok(Removed::NotThere),
                Err(e) => return Err(e),
            };
            if entry.kind == Kind::Folder && stat.is_dir() {
                return match fs::remove_dir(path) {
                    Ok(()) => Ok(Removed::Yes),
                    // What is left in it is named by itself.
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Removed::NotThere),
                    Err(e) => Err(e),
                };
            }
            if !is_ours(path, &stat, entry, self.state.last.as_ref())? {
                return Ok(Removed::Changed);
            }
            fs::remove_file(path).map(|()| Removed::Yes)
        };
        removed().map_err(RemoteError::io(path))
    }
}

enum Removed {
    Yes,
    NotThere,
    /// Somebody changed it since.
    Changed,
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_ours(
    path: &Path,
    stat: &Metadata,
    entry: &Entry<'_>,
    last: Option<&Last>,
) -> io::Result<bool> {
    match entry.kind {
        Kind::Folder => Ok(false),
        Kind::Link { target } if stat.is_symlink() => {
            Ok(fs::read_link(path)?.as_os_str().as_bytes() == target)
        }
        Kind::File(file) if stat.is_file() && stat.len() == file.size => {
            let is = |digest: Digest| digest == file.digest;
            Ok(is_untouched(stat, entry.path, last).is_some_and(is) || is(digest_of(path)?))
        }
        _ => Ok(false),
    }
}

/// Lets its owner work in a folder.
fn open_up(path: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    if mode & WORKABLE == WORKABLE {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode((mode | WORKABLE) & 0o7777))
}

fn move_in(part: &Path, path: &Path, entry: &Entry<'_>) -> io::Result<()> {
    set_mode_and_time(part, entry)?;
    fs::rename(part, path)
}

fn set_mode_and_time(path: &Path, entry: &Entry<'_>) -> io::Result<()> {
    if !matches!(entry.kind, Kind::Link { .. }) {
        fs::set_permissions(path, Permissions::from_mode(entry.mode.into()))?;
    }
    let time = Timespec {
        tv_sec: entry.mtime.div_euclid(1_000_000_000),
        tv_nsec: entry.mtime.rem_euclid(1_000_000_000),
    };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
