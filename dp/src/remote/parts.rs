//! What is being made: files in `OUT/.depot/partial`, renamed into place once they are whole.
//!
//! A content of several chunks has a file of its digest's name, so that a later fetch finds what
//! came of it. All else has a name of this process alone.

use super::RemoteError;
use contentlib::Digest;
use rustix::fs::{Mode, OFlags, openat};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The folder of what is being made.
pub(super) struct Parts {
    path: PathBuf,
    fd: OwnedFd,
    /// Contents that an earlier fetch left files of.
    left: HashSet<Digest>,
    next: AtomicU64,
}

/// What other names than those of contents begin with.
const PART: &str = "part-";

impl Parts {
    /// Opens the folder `path`, made if it is not there.
    pub fn open(path: PathBuf) -> Result<Self, RemoteError> {
        let open = || -> io::Result<_> {
            fs::create_dir_all(&path)?;
            let mut left = HashSet::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if name.starts_with(PART) {
                    fs::remove_file(entry.path())?;
                } else if let Ok(content) = Digest::from_hex(name) {
                    // Killed right before it was renamed, it may have a mode that forbids writing.
                    fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600))?;
                    left.insert(content);
                }
            }
            Ok((left, OwnedFd::from(File::open(&path)?)))
        };
        let (left, fd) = open().map_err(RemoteError::io(&path))?;
        Ok(Self { path, fd, left, next: AtomicU64::new(0) })
    }

    /// Where something is, by name.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the system said of something that is being made.
    pub fn io<E: Into<io::Error>>(&self, name: &str) -> impl FnOnce(E) -> RemoteError {
        let path = self.place(name);
        move |source| RemoteError::Io { path, source: source.into() }
    }

    /// A name that is not taken.
    pub fn name(&self) -> String {
        format!("{PART}{}", self.next.fetch_add(1, Relaxed))
    }

    /// Opens the file of a content to write to it; made if it is not there.
    pub fn write(&self, content: Digest) -> Result<File, RemoteError> {
        self.create(&content.to_hex(), OFlags::empty())
    }

    /// Makes a new file.
    pub fn new_file(&self, name: &str) -> Result<File, RemoteError> {
        self.create(name, OFlags::EXCL)
    }

    fn create(&self, name: &str, how: OFlags) -> Result<File, RemoteError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | how;
        let file = openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(self.io(name))
    }

    /// Opens the file that an earlier fetch left of a content, if there is one.
    pub fn resume(&self, content: Digest) -> Result<Option<File>, RemoteError> {
        if !self.left.contains(&content) {
            return Ok(None);
        }
        let name = content.to_hex();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.fd, name.as_str(), flags, Mode::empty());
        file.map(|file| Some(File::from(file))).map_err(self.io(&name))
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Parts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_a_killed_fetch_left_is_found_or_swept() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, other) = (Digest::of(b"whole"), Digest::of(b"other"));
        {
            let parts = Parts::open(dir.path().join("parts")).unwrap();
            assert!(parts.resume(whole).unwrap().is_none());
            parts.write(whole).unwrap().write_all(b"whole").unwrap();
            parts.new_file(&parts.name()).unwrap();
            let closed = fs::Permissions::from_mode(0o000);
            fs::set_permissions(parts.place(&whole.to_hex()), closed).unwrap();
        }
        let parts = Parts::open(dir.path().join("parts")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("parts")).unwrap().count(), 1);
        // Whether or not it is resumed: a content of one chunk is just written again.
        let mode = fs::metadata(parts.place(&whole.to_hex())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it can be written to again");
        assert_eq!(io::read_to_string(parts.resume(whole).unwrap().unwrap()).unwrap(), "whole");
        assert!(parts.resume(other).unwrap().is_none());
    }
}
