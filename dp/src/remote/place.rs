//! Putting entries in place, and taking away those that left the package.
//!
//! Files and links are made in `.depot/partial` and renamed, so each is the old or the new one
//! whole. Only what an earlier fetch put there, and nobody changed since, is ever removed.

use super::RemoteError;
use super::out::{Inside, Out};
use super::parts::Parts;
use super::plan::{Found, digest_of, is_untouched, look};
use super::state::{Last, State};
use contentlib::Digest;
use packager::folder::{FileStat, make_usable, times};
use packager::manifest::{Entry, Kind, Manifest};
use packager::path;
use rustix::fs::{
    AtFlags, FileType, Mode, Stat, chmodat, fchmod, futimens, mkdirat, readlinkat, renameat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// A folder that is becoming a version, as one thread works on it.
pub(super) struct Placer<'a> {
    out: &'a Out,
    manifest: &'a Manifest,
    state: &'a State,
    parts: &'a Parts,
    inside: Inside,
}

impl<'a> Placer<'a> {
    pub fn new(out: &'a Out, manifest: &'a Manifest, state: &'a State) -> Self {
        Self { out, manifest, state, parts: &state.parts, inside: Inside::default() }
    }

    /// Lets their owner work in all folders that are there.
    pub fn open_folders(&mut self) -> Result<(), RemoteError> {
        for entry in self.manifest.entries().filter(|entry| entry.kind == Kind::Folder) {
            self.open_up(&entry).map_err(self.out.io(entry.path))?;
        }
        Ok(())
    }

    /// Makes the folders that are missing and opens up those that are closed for work; clears the
    /// way where something of an earlier fetch has another kind.
    pub fn prepare(&mut self, found: &[Found]) -> Result<(), RemoteError> {
        for (entry, found) in self.manifest.entries().zip(found) {
            if *found == Found::OtherKind {
                self.clear(&entry)?;
            }
            if entry.kind == Kind::Folder {
                self.make_folder(&entry).map_err(self.out.io(entry.path))?;
            }
        }
        Ok(())
    }

    fn make_folder(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        // Asked again: what was found below a folder that was just cleared is gone.
        if self.open_up(entry)? {
            return Ok(());
        }
        let (folder, name) = self.inside.of(self.out, entry)?;
        Ok(mkdirat(folder, name, Mode::from_raw_mode(0o777))?)
    }

    /// Lets its owner work in a folder, if it is there.
    fn open_up(&mut self, entry: &Entry<'_>) -> io::Result<bool> {
        let found = look(self.out, &mut self.inside, entry)?;
        let is_folder = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match found {
            Some((folder, name, stat)) if is_folder(&stat) => {
                make_usable(folder, name, &stat)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Gives an entry whose bytes are right its mode and time.
    pub fn touch_up(&mut self, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let inside = self.inside.of(self.out, entry);
        inside
            .and_then(|(folder, name)| set_mode_and_time(folder, name, entry))
            .map_err(self.out.io(entry.path))
    }

    /// Puts a link, or an empty file, in place.
    pub fn make(&mut self, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let Kind::Link { target } = entry.kind else { return self.write(&[], entry) };
        let part = self.parts.name();
        symlinkat(OsStr::from_bytes(target), self.parts, part.as_str())
            .map_err(self.parts.io(&part))?;
        self.finish_part(&part, entry)
    }

    /// Puts a content of which all bytes are at hand in all its places.
    pub fn put_bytes(&mut self, bytes: &[u8], entries: &[usize]) -> Result<(), RemoteError> {
        entries.iter().try_for_each(|&at| self.write(bytes, &self.manifest.entry(at)))
    }

    /// Puts a content that was put together in its file in all its places.
    pub fn put_file(&mut self, content: Digest, entries: &[usize]) -> Result<(), RemoteError> {
        let Some((&last, others)) = entries.split_last() else { return Ok(()) };
        let whole = content.to_hex();
        for &at in others {
            let part = self.parts.name();
            let copied = fs::copy(self.parts.place(&whole), self.parts.place(&part));
            copied.map_err(self.parts.io(&part))?;
            self.finish_part(&part, &self.manifest.entry(at))?;
        }
        self.finish_part(&whole, &self.manifest.entry(last))
    }

    /// Writes a whole file and puts it in place.
    fn write(&mut self, bytes: &[u8], entry: &Entry<'_>) -> Result<(), RemoteError> {
        let part = self.parts.name();
        let mut file = self.parts.new_file(&part)?;
        let mut write = || -> io::Result<()> {
            file.write_all(bytes)?;
            fchmod(&file, Mode::from_raw_mode(entry.mode.into()))?;
            Ok(futimens(&file, &times(entry.mtime))?)
        };
        write().map_err(self.parts.io(&part))?;
        self.move_in(&part, entry)
    }

    fn finish_part(&mut self, part: &str, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let set = set_mode_and_time(self.parts.as_fd(), OsStr::new(part), entry);
        set.map_err(self.parts.io(part))?;
        self.move_in(part, entry)
    }

    fn move_in(&mut self, part: &str, entry: &Entry<'_>) -> Result<(), RemoteError> {
        let moved = self
            .inside
            .of(self.out, entry)
            .and_then(|(folder, name)| Ok(renameat(self.parts, part, folder, name)?));
        moved.map_err(self.out.io(entry.path))
    }

    /// Removes what earlier fetches left and the version does not have. Returns how much that was,
    /// and what stays since somebody changed it.
    pub fn prune(&mut self) -> Result<(u64, Vec<String>), RemoteError> {
        let (mut removed, mut kept) = (0, Vec::new());
        for old in self.earlier() {
            let manifest = self.manifest;
            let gone = |e: &Entry<'_>| manifest.lookup(e.path).is_none();
            for entry in old.entries().filter(gone).filter(|e| e.kind == Kind::Folder) {
                // It may be closed for work; one that is not there any more needs none.
                self.open_up(&entry).map_err(self.out.io(entry.path))?;
            }
            // Backwards: what lies in a folder comes before it.
            for at in (0..old.len()).rev() {
                let entry = old.entry(at);
                if !gone(&entry) {
                    continue;
                }
                match self.remove(&entry)? {
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
    pub fn finish_folders(&mut self) -> Result<(), RemoteError> {
        for at in (0..self.manifest.len()).rev() {
            let entry = self.manifest.entry(at);
            if entry.kind == Kind::Folder {
                self.touch_up(&entry)?;
            }
        }
        Ok(())
    }

    /// The versions whose entries are of our making.
    fn earlier(&self) -> impl Iterator<Item = &'a Manifest> + use<'a> {
        let last = self.state.last.as_ref().map(|last| &last.manifest);
        last.into_iter().chain(&self.state.pending)
    }

    /// Takes away what is in the way of an entry, if it is of our making.
    fn clear(&mut self, entry: &Entry<'_>) -> Result<(), RemoteError> {
        for old in self.earlier() {
            let below = old.below(entry.path).unwrap_or(0..0);
            for at in below.rev() {
                self.remove(&old.entry(at))?;
            }
            if let Some(old) = old.lookup(entry.path) {
                self.remove(&old)?;
            }
        }
        // The folder of this name that was worked in is another one from here on.
        self.inside = Inside::default();
        match look(self.out, &mut self.inside, entry).map_err(self.out.io(entry.path))? {
            Some(_) => Err(RemoteError::InTheWay(self.out.place(entry.path))),
            None => Ok(()),
        }
    }

    /// Removes an entry of an earlier version, if it is still what was put there.
    fn remove(&mut self, entry: &Entry<'_>) -> Result<Removed, RemoteError> {
        let last = self.state.last.as_ref();
        let mut remove = || {
            let Some((folder, name, stat)) = look(self.out, &mut self.inside, entry)? else {
                return Ok(Removed::NotThere);
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if entry.kind == Kind::Folder && is_folder {
                return match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                    Ok(()) => Ok(Removed::Yes),
                    // What is left in it is named by itself.
                    Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotThere),
                    Err(error) => Err(error.into()),
                };
            }
            if !is_ours(folder, name, &stat, entry, last)? {
                return Ok(Removed::Changed);
            }
            unlinkat(folder, name, AtFlags::empty())?;
            Ok(Removed::Yes)
        };
        remove().map_err(self.out.io::<io::Error>(entry.path))
    }
}

enum Removed {
    Yes,
    NotThere,
    /// Somebody changed it since.
    Changed,
}

fn is_ours(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    entry: &Entry<'_>,
    last: Option<&Last>,
) -> io::Result<bool> {
    match (entry.kind, FileType::from_raw_mode(stat.st_mode)) {
        (Kind::Link { target }, FileType::Symlink) => {
            Ok(readlinkat(folder, name, Vec::new())?.to_bytes() == target)
        }
        (Kind::File(file), FileType::RegularFile) => {
            let stat = FileStat::from(stat);
            let is = |digest: Digest| digest == file.digest;
            Ok(stat.size == file.size
                && (is_untouched(&stat, entry.path, last).is_some_and(is)
                    || is(digest_of(folder, name)?)))
        }
        _ => Ok(false),
    }
}

fn set_mode_and_time(folder: BorrowedFd<'_>, name: &OsStr, entry: &Entry<'_>) -> io::Result<()> {
    if !matches!(entry.kind, Kind::Link { .. }) {
        chmodat(folder, name, Mode::from_raw_mode(entry.mode.into()), AtFlags::empty())?;
    }
    Ok(utimensat(folder, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}
