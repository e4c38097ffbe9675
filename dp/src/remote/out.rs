//! The folder that is fetched into, and how a thread gets to the entries in it.
//!
//! Always true: no symbolic link below the folder is followed on the way to an entry, and a path
//! may be longer than one system call takes.

use super::RemoteError;
use packager::folder::Folder;
use packager::manifest::Entry;
use packager::path;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The folder that is becoming a version.
pub(super) struct Out {
    path: PathBuf,
    folder: Folder,
}

impl Out {
    /// Opens `path`, which must be there.
    pub fn open(path: &Path) -> Result<Self, RemoteError> {
        let folder = Folder::open(path).map_err(RemoteError::io(path))?;
        Ok(Self { path: path.into(), folder })
    }

    /// Where an entry is, for messages alone.
    pub fn place(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// What the system said of the entry at `path`.
    pub fn io<E: Into<io::Error>>(&self, path: &[u8]) -> impl FnOnce(E) -> RemoteError {
        let path = self.place(path);
        move |source| RemoteError::Io { path, source: source.into() }
    }

    /// Opens a file to read it.
    pub fn read(&self, path: &[u8]) -> io::Result<File> {
        self.folder.open_at(path, OFlags::RDONLY).map(File::from)
    }

    /// Makes all that was written here, or anywhere on the volume, durable.
    pub fn sync(&self) -> Result<(), RemoteError> {
        rustix::fs::syncfs(self.folder.as_fd()).map_err(self.io(b""))
    }
}

/// The folder that a thread works in, kept open from one entry to the next: neighbours share it.
#[derive(Default)]
pub(super) struct Inside {
    path: Vec<u8>,
    /// Absence is remembered, too: nothing that lies in an absent folder is looked for.
    found: Option<Result<OwnedFd, Errno>>,
}

impl Inside {
    /// The folder that `entry` lies in, and its name there.
    pub fn of<'a, 'e>(
        &'a mut self,
        out: &Out,
        entry: &Entry<'e>,
    ) -> io::Result<(BorrowedFd<'a>, &'e OsStr)> {
        let (folder, name) = path::split(entry.path);
        if self.found.is_none() || self.path != folder {
            self.found = Some(match out.folder.enter(folder) {
                Ok(fd) => Ok(fd),
                Err(error) if is_absent(&error) => Err(Errno::NOENT),
                Err(error) => return Err(error),
            });
            self.path = folder.to_vec();
        }
        match self.found.as_ref().expect("was just set") {
            Ok(fd) => Ok((fd.as_fd(), OsStr::from_bytes(name))),
            Err(errno) => Err((*errno).into()),
        }
    }
}

/// Whether nothing is there, or something that is no folder, a link perhaps, is on the way.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
