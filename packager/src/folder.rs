//! A folder that nothing leads out of.
//!
//! Sources are scanned, versions restored and fetched below one open folder. Names inside it belong
//! to whoever writes there, so none of them is trusted: no symbolic link is followed on the way to
//! an entry, and paths may be longer than the system's own limit for one call.

use contentlib::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
    chmodat, fchmod, openat, openat2,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The longest path of one system call, with its closing zero byte.
const PATH_MAX: usize = 4096;

/// An open folder and all that lies below it.
#[derive(Debug)]
pub struct Folder {
    top: OwnedFd,
    /// Whether the system knows `openat2`; some sandboxes refuse it.
    has_openat2: AtomicBool,
}

impl Folder {
    /// Opens `path`, following symbolic links: whoever names it means what it points to.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { top, has_openat2: AtomicBool::new(true) })
    }

    /// Opens `path` below, or the folder itself again for no bytes. `path` must have passed
    /// [`crate::path::check`]. Fails with `ELOOP` or `ENOTDIR` if a symbolic link is in the way.
    pub fn open_at(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let mut flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !flags.contains(OFlags::PATH) {
            flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        }
        if path.is_empty() {
            return Ok(openat(&self.top, c".", flags, Mode::empty())?);
        }
        let mut from: Option<OwnedFd> = None;
        let mut rest = path;
        while rest.len() >= PATH_MAX {
            let hop =
                rest[..PATH_MAX].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = from.as_ref().map_or(self.top.as_fd(), |fd| fd.as_fd());
            from = Some(self.hop(fd, &rest[..hop], through)?);
            rest = &rest[hop + 1..];
        }
        let fd = from.as_ref().map_or(self.top.as_fd(), |fd| fd.as_fd());
        Ok(self.hop(fd, rest, flags)?)
    }

    /// Goes into a folder below, to use names in it. Unlike [`Folder::open_folder`] this needs no
    /// right to list it.
    pub fn enter(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a folder below to list it or to work in it.
    pub fn open_folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn hop(&self, from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.has_openat2.load(Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match openat2(from, path, flags, Mode::empty(), resolve) {
                // A sandbox that does not know the call may answer EPERM, as may a real refusal;
                // the slower way below tells them apart.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.store(false, Relaxed),
                result => return result,
            }
        }
        let mut names = path.split(|&b| b == b'/').peekable();
        let mut at: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let flags = if names.peek().is_some() { through } else { flags };
            let fd = at.as_ref().map_or(from, |fd| fd.as_fd());
            at = Some(openat(fd, OsStr::from_bytes(name), flags, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// What tells that a file is still the one that was seen: anything written to it changes its
/// times, and another file in its place has another inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Last change of its bytes, nanoseconds since 1970.
    pub mtime: i64,
    /// Last change of its inode, nanoseconds since 1970.
    pub ctime: i64,
    /// Its inode's number.
    pub inode: u64,
}

impl From<&Stat> for FileStat {
    fn from(stat: &Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
        }
    }
}

/// Nanoseconds since 1970; times before 1677 and after 2262 become the nearest that fits.
pub fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    let both = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    both.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The twelve low bits of a mode.
pub fn mode_bits(stat: &Stat) -> u16 {
    (stat.st_mode & 0o7777) as u16
}

/// Lets the owner list, enter and write in a folder that a version left without those rights.
pub fn make_usable(parent: impl AsFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode_bits(stat).into());
    if mode.contains(Mode::RWXU) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(fchmod(&fd, mode | Mode::RWXU)?),
        // Without the right to list it, it cannot be opened; its owner may still change that.
        Err(Errno::ACCESS) => Ok(chmodat(&parent, name, mode | Mode::RWXU, AtFlags::empty())?),
        Err(error) => Err(error.into()),
    }
}

/// An entry's time of modification, in nanoseconds since 1970, for the system; the time of access
/// is left alone.
pub fn times(mtime: i64) -> Timestamps {
    let (seconds, rest) = (mtime.div_euclid(1_000_000_000), mtime.rem_euclid(1_000_000_000));
    debug_assert_eq!(nanoseconds(seconds, rest), mtime);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: rest },
    }
}

/// The BLAKE3 of a file's bytes, from where it is read next.
pub fn hash(file: &File) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match (&mut &*file).read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        };
    }
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// What a file of another kind than file, folder or link is called.
pub(crate) fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "a file of no known kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// `Folder` as a system without `openat2` sees it, too.
    fn both_ways(path: &Path) -> [Folder; 2] {
        let without = Folder::open(path).unwrap();
        without.has_openat2.store(false, Relaxed);
        [Folder::open(path).unwrap(), without]
    }

    #[test]
    fn no_link_is_followed_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/deeper")).unwrap();
        std::fs::write(dir.path().join("real/deeper/file"), "x").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink("deeper/file", dir.path().join("real/file-link")).unwrap();
        for folder in both_ways(dir.path()) {
            assert!(folder.open_at(b"real/deeper/file", OFlags::RDONLY).is_ok());
            for path in [&b"link/deeper/file"[..], b"link", b"real/file-link"] {
                let error = folder.open_at(path, OFlags::RDONLY).unwrap_err();
                let errno = Errno::from_io_error(&error);
                assert!(matches!(errno, Some(Errno::LOOP | Errno::NOTDIR)), "{error}");
            }
        }
    }

    #[test]
    fn paths_longer_than_one_call_takes_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let name = [b'n'; 255];
        let mut fd = Folder::open(dir.path()).unwrap().top;
        for _ in 0..16 {
            let name = OsStr::from_bytes(&name);
            rustix::fs::mkdirat(&fd, name, Mode::RWXU).unwrap();
            fd = openat(&fd, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let path = [&name[..]; 16].join(&b'/');
        // 16 * 255 + 15 bytes and one more name of one byte: more than PATH_MAX takes.
        rustix::fs::mkdirat(&fd, c"x", Mode::RWXU).unwrap();
        let path = [&path[..], b"x"].join(&b'/');
        assert!(path.len() >= PATH_MAX);
        for folder in both_ways(dir.path()) {
            assert!(folder.open_folder(&path).is_ok());
        }
    }
}
