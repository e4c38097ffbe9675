//! The destination of a restore: folders made, entries compared and put in place.

use super::{Extra, RestoreError, prune};
use crate::folder::{FileStat, Folder, hash, make_usable, mode_bits, times};
use crate::manifest::{Entry, FileEntry, Kind, LINK_MODE, Manifest};
use crate::path::{self, Shown};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, futimens, mkdirat, openat, readlinkat,
    renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What the names of files that are being written begin with.
pub(super) const PART: &[u8] = b".depot-restore-";

/// The folder that a tree is written to.
pub(super) struct Dest<'a> {
    path: &'a Path,
    pub(super) folder: Folder,
    manifest: &'a Manifest,
    /// For each entry of the manifest: a folder that was made by this restore, so that nothing is
    /// in it but what this restore puts there.
    fresh: Vec<AtomicBool>,
    top_is_fresh: bool,
    /// Part of the names of files that are being written, so that two restores do not meet.
    run: u64,
    next_part: AtomicU64,
}

impl<'a> Dest<'a> {
    pub(super) fn new(
        path: &'a Path,
        folder: Folder,
        manifest: &'a Manifest,
    ) -> Result<Self, RestoreError> {
        let fail = |source| RestoreError::Dest { dest: path.into(), source };
        let top_is_fresh = std::fs::read_dir(path).map_err(fail)?.next().is_none();
        let fresh = (0..manifest.len()).map(|_| AtomicBool::new(false)).collect();
        let (run, next_part) = (rand::random(), AtomicU64::new(0));
        Ok(Self { path, folder, manifest, fresh, top_is_fresh, run, next_part })
    }

    pub(super) fn entry_error(&self, path: &[u8], source: io::Error) -> RestoreError {
        let (dest, path) = (PathBuf::from(self.path), Shown(path).to_string());
        match Errno::from_io_error(&source) {
            Some(Errno::NOTEMPTY | Errno::EXIST) => RestoreError::FolderInTheWay { dest, path },
            _ => RestoreError::Entry { dest, path, source },
        }
    }

    /// Whether nothing is in the folder at `path` but what this restore put there.
    pub(super) fn is_fresh(&self, path: &[u8]) -> bool {
        match self.manifest.position(path) {
            Some(at) => self.fresh[at].load(Relaxed),
            None => path.is_empty() && self.top_is_fresh,
        }
    }

    /// Makes all folders that are not there, with room to work in them. Answers how many other
    /// things had to go for that.
    pub(super) fn make_folders(&self, manifest: &Manifest) -> Result<u64, RestoreError> {
        let mut place = Place::default();
        let mut removed = 0;
        for (at, entry) in manifest.entries().enumerate() {
            if entry.kind != Kind::Folder {
                continue;
            }
            let here = |source| self.entry_error(entry.path, source);
            let slot = place.enter(self, path::split(entry.path).0).map_err(here)?;
            let (fresh, gone) = slot.folder(&entry).map_err(here)?;
            self.fresh[at].store(fresh, Relaxed);
            removed += gone;
        }
        Ok(removed)
    }

    /// Gives folders their modes and times, innermost first: nothing is written in them any more.
    pub(super) fn finish_folders(&self, manifest: &Manifest) -> Result<(), RestoreError> {
        let mut place = Place::default();
        for at in (0..manifest.len()).rev() {
            let entry = manifest.entry(at);
            if entry.kind != Kind::Folder {
                continue;
            }
            let here = |source| self.entry_error(entry.path, source);
            let slot = place.enter(self, path::split(entry.path).0).map_err(here)?;
            slot.finish_folder(&entry).map_err(here)?;
        }
        Ok(())
    }
}

/// The folder that a thread works in, kept open from one entry to the next.
#[derive(Default)]
pub(super) struct Place {
    path: Vec<u8>,
    folder: Option<(OwnedFd, bool)>,
}

impl Place {
    pub(super) fn enter<'a>(
        &'a mut self,
        dest: &'a Dest<'_>,
        folder: &[u8],
    ) -> io::Result<Slot<'a>> {
        if self.folder.is_none() || self.path != folder {
            self.folder = Some((dest.folder.open_folder(folder)?, dest.is_fresh(folder)));
            self.path = folder.to_vec();
        }
        let (fd, fresh) = self.folder.as_ref().expect("was just opened");
        Ok(Slot { fd, fresh: *fresh, dest_run: dest.run, next_part: &dest.next_part })
    }
}

/// The folder that an entry goes to.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    fd: &'a OwnedFd,
    /// Nothing is in it but what this restore puts there.
    fresh: bool,
    dest_run: u64,
    next_part: &'a AtomicU64,
}

/// A file that is being written; removed if it does not get its place.
pub(super) struct Part<'a> {
    pub(super) file: File,
    fd: &'a OwnedFd,
    name: Option<String>,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // If it stays, the next restore to this place removes it.
            let _ = unlinkat(self.fd, name.as_str(), AtFlags::empty());
        }
    }
}

impl<'a> Slot<'a> {
    /// Makes sure that a folder is there and can be worked in: whether it is new, and how many
    /// other things had to go.
    fn folder(&self, entry: &Entry<'_>) -> io::Result<(bool, u64)> {
        let name = name_of(entry);
        // Nobody else looks into it before it is whole.
        match mkdirat(self.fd, name, Mode::RWXU) {
            Ok(()) => return Ok((true, 0)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let stat = statat(self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            make_usable(self.fd, name, &stat)?;
            return Ok((false, 0));
        }
        unlinkat(self.fd, name, AtFlags::empty())?;
        mkdirat(self.fd, name, Mode::RWXU)?;
        Ok((true, 1))
    }

    fn finish_folder(&self, entry: &Entry<'_>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.fd, name_of(entry), flags, Mode::empty())?;
        futimens(&fd, &times(entry.mtime))?;
        Ok(fchmod(&fd, Mode::from_raw_mode(entry.mode.into()))?)
    }

    /// Whether the file is there with these bytes; then its mode and time are put right.
    pub(super) fn has_file(&self, entry: &Entry<'_>, file: &FileEntry) -> io::Result<bool> {
        if self.fresh {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Whatever cannot be opened is replaced.
        let Ok(fd) = openat(self.fd, name_of(entry), flags, Mode::empty()) else {
            return Ok(false);
        };
        let stat = fstat(&fd)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // A file with other names would change under those names too, when its mode is put right
        // or when it is written later.
        if !is_file || stat.st_size as u64 != file.size || stat.st_nlink != 1 {
            return Ok(false);
        }
        let opened = File::from(fd);
        if hash(&opened)? != file.digest {
            return Ok(false);
        }
        if mode_bits(&stat) != entry.mode {
            fchmod(&opened, Mode::from_raw_mode(entry.mode.into()))?;
        }
        if FileStat::from(&stat).mtime != entry.mtime {
            futimens(&opened, &times(entry.mtime))?;
        }
        Ok(true)
    }

    /// A new file beside the entry's place.
    pub(super) fn part(&self) -> io::Result<Part<'a>> {
        let name = self.part_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(self.fd, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Part { file: fd.into(), fd: self.fd, name: Some(name) })
    }

    fn part_name(&self) -> String {
        let n = self.next_part.fetch_add(1, Relaxed);
        format!("{}{:016x}-{n:x}", String::from_utf8_lossy(PART), self.dest_run)
    }

    /// Gives a written file its mode, time and place.
    pub(super) fn put(
        &self,
        mut part: Part<'_>,
        entry: &Entry<'_>,
        extra: Extra,
        dest: &Dest<'_>,
    ) -> Result<(), RestoreError> {
        let finish = || -> io::Result<()> {
            fchmod(&part.file, Mode::from_raw_mode(entry.mode.into()))?;
            Ok(futimens(&part.file, &times(entry.mtime))?)
        };
        finish().map_err(|source| dest.entry_error(entry.path, source))?;
        if let Some(name) = &part.name {
            self.rename(name, entry, extra, dest)?;
        }
        part.name = None;
        Ok(())
    }

    fn rename(
        &self,
        part: &str,
        entry: &Entry<'_>,
        extra: Extra,
        dest: &Dest<'_>,
    ) -> Result<(), RestoreError> {
        let here = |source: Errno| dest.entry_error(entry.path, source.into());
        match renameat(self.fd, part, self.fd, name_of(entry)) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result.map_err(here),
        }
        match extra {
            Extra::Keep => unlinkat(self.fd, name_of(entry), AtFlags::REMOVEDIR).map_err(here)?,
            Extra::Remove => drop(prune::remove_tree(dest, entry.path)?),
        }
        renameat(self.fd, part, self.fd, name_of(entry)).map_err(here)
    }

    /// Puts a symbolic link in place; `false` if it is there already.
    pub(super) fn link(
        &self,
        entry: &Entry<'_>,
        target: &[u8],
        extra: Extra,
        dest: &Dest<'_>,
    ) -> Result<bool, RestoreError> {
        debug_assert_eq!(entry.mode, LINK_MODE);
        let here = |source: Errno| dest.entry_error(entry.path, source.into());
        let name = name_of(entry);
        let target = OsStr::from_bytes(target);
        let old = if self.fresh { None } else { readlinkat(self.fd, name, Vec::new()).ok() };
        let written = match old {
            Some(old) if old.to_bytes() == target.as_bytes() => false,
            _ => match symlinkat(target, self.fd, name) {
                Ok(()) => true,
                Err(Errno::EXIST) => {
                    let part = self.part_name();
                    symlinkat(target, self.fd, part.as_str()).map_err(here)?;
                    self.rename(&part, entry, extra, dest).inspect_err(|_| {
                        let _ = unlinkat(self.fd, part.as_str(), AtFlags::empty());
                    })?;
                    true
                }
                Err(error) => return Err(here(error)),
            },
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        utimensat(self.fd, name, &times(entry.mtime), flags).map_err(here)?;
        Ok(written)
    }
}

fn name_of<'a>(entry: &Entry<'a>) -> &'a OsStr {
    OsStr::from_bytes(entry.name())
}
