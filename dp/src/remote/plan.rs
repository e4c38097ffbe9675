//! What differs between a version and the folder it is to be in.
//!
//! A file that an earlier fetch wrote and nobody touched since is known by its inode and change
//! time. Any other file of the right size is hashed. Nothing here writes.

use super::RemoteError;
use super::out::{Inside, Out, is_absent};
use super::state::{Last, Stamp};
use contentlib::Digest;
use packager::folder::{FileStat, hash, mode_bits};
use packager::manifest::{Entry, FileEntry, Kind, Manifest};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How an entry of the version is found in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it should be.
    Right,
    /// The bytes, or the folder, are there; mode or time are not right.
    OtherMode,
    /// A file with other bytes, which may share chunks.
    OtherBytes,
    /// A link to elsewhere.
    OtherLink,
    /// Nothing.
    Nothing,
    /// Something of another kind.
    OtherKind,
}

/// Compares all entries, on `jobs` threads. In the order of the manifest.
pub(super) fn compare(
    out: &Out,
    manifest: &Manifest,
    last: Option<&Last>,
    jobs: usize,
) -> Result<Vec<Found>, RemoteError> {
    parallel(manifest.len(), jobs, Inside::default, |inside, at| {
        let entry = manifest.entry(at);
        examine(out, inside, &entry, last).map_err(out.io(entry.path))
    })
}

fn examine(
    out: &Out,
    inside: &mut Inside,
    entry: &Entry<'_>,
    last: Option<&Last>,
) -> io::Result<Found> {
    let Some((folder, name, stat)) = look(out, inside, entry)? else { return Ok(Found::Nothing) };
    let right = if mode_is_right(&stat, entry) { Found::Right } else { Found::OtherMode };
    Ok(match (entry.kind, FileType::from_raw_mode(stat.st_mode)) {
        (Kind::Folder, FileType::Directory) => right,
        (Kind::Link { target }, FileType::Symlink) => {
            let found = readlinkat(folder, name, Vec::new())?;
            if found.to_bytes() != target { Found::OtherLink } else { right }
        }
        (Kind::File(file), FileType::RegularFile) => {
            match file_is_right(folder, name, &stat, entry, file, last)? {
                true => right,
                false => Found::OtherBytes,
            }
        }
        _ => Found::OtherKind,
    })
}

/// What is in the place of an entry: the folder that it lies in, its name there, and its stat.
pub(super) fn look<'a, 'e>(
    out: &Out,
    inside: &'a mut Inside,
    entry: &Entry<'e>,
) -> io::Result<Option<(BorrowedFd<'a>, &'e OsStr, Stat)>> {
    let found = inside.of(out, entry).and_then(|(folder, name)| {
        Ok((folder, name, statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
    });
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Links have no mode of their own.
fn mode_is_right(stat: &Stat, entry: &Entry<'_>) -> bool {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    (is_link || mode_bits(stat) == entry.mode) && FileStat::from(stat).mtime == entry.mtime
}

fn file_is_right(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    entry: &Entry<'_>,
    file: FileEntry,
    last: Option<&Last>,
) -> io::Result<bool> {
    let stat = FileStat::from(stat);
    if stat.size != file.size {
        return Ok(false);
    }
    if is_untouched(&stat, entry.path, last) == Some(file.digest) {
        return Ok(true);
    }
    Ok(digest_of(folder, name)? == file.digest)
}

/// The digest of a file that the last fetch wrote and nobody touched since.
pub(super) fn is_untouched(stat: &FileStat, path: &[u8], last: Option<&Last>) -> Option<Digest> {
    let last = last?;
    let at = last.manifest.position(path)?;
    let file = last.manifest.entry(at).file()?;
    (last.stamps[at] == stamp(stat) && stat.size == file.size).then_some(file.digest)
}

pub(super) fn stamp(stat: &FileStat) -> Stamp {
    Stamp { inode: stat.inode, changed: stat.ctime }
}

/// The BLAKE3 of a file's bytes.
pub(super) fn digest_of(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Digest> {
    // Should it have become a pipe or a link meanwhile, nobody waits for it or follows it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    hash(&File::from(openat(folder, name, flags, Mode::empty())?))
}

/// Does `work` for each of `n` things on `jobs` threads; the results in order, or the first error.
/// Each thread hands on what it made with `begin`.
pub(super) fn parallel<S, T: Send>(
    n: usize,
    jobs: usize,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<T, RemoteError> + Sync,
) -> Result<Vec<T>, RemoteError> {
    // Neighbours share folders, so a thread takes several where there are many.
    let run = (n / (jobs.max(1) * 64)).clamp(1, 64);
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, T)>, RemoteError> {
        let mut done = Vec::new();
        let mut state = begin();
        loop {
            let start = next.fetch_add(run, Relaxed);
            if start >= n {
                return Ok(done);
            }
            for at in start..n.min(start + run) {
                match work(&mut state, at) {
                    Ok(result) => done.push((at, result)),
                    Err(error) => {
                        next.store(n, Relaxed);
                        return Err(error);
                    }
                }
            }
        }
    };
    let threads = jobs.min(n.div_ceil(run)).max(1);
    let mut done = std::thread::scope(|scope| -> Result<_, RemoteError> {
        let threads: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker()?;
        for thread in threads {
            let part = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.extend(part?);
        }
        Ok(done)
    })?;
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn results_come_in_order_and_an_error_ends_the_work() {
        let found = parallel(1000, 4, || (), |(), at| Ok(at * 2)).unwrap();
        assert!(found.iter().enumerate().all(|(at, n)| *n == at * 2) && found.len() == 1000);
        let fails_at_500 =
            |_: &mut (), at| if at == 500 { Err(RemoteError::Reserved) } else { Ok(()) };
        let failed = parallel(1000, 4, || (), fails_at_500);
        assert!(matches!(failed, Err(RemoteError::Reserved)));
        assert!(parallel(0, 4, || (), |(), _| Ok(())).unwrap().is_empty());
    }

    fn stat(path: &Path) -> Stat {
        rustix::fs::lstat(path).unwrap()
    }

    #[test]
    fn files_are_hashed_unless_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let out = Out::open(dir.path()).unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "abc").unwrap();
        let (mode, mtime) = (mode_bits(&stat(&path)), FileStat::from(&stat(&path)).mtime);
        let file = |bytes: &[u8]| FileEntry { size: 3, digest: Digest::of(bytes), recipe: None };
        let entry = |bytes| Entry { path: b"a", mode, mtime, kind: Kind::File(file(bytes)) };
        let examine = |entry: Entry<'_>| examine(&out, &mut Inside::default(), &entry, None);
        assert_eq!(examine(entry(b"abc")).unwrap(), Found::Right);
        assert_eq!(examine(entry(b"abx")).unwrap(), Found::OtherBytes);
        let later = Entry { mtime: mtime + 1, ..entry(b"abc") };
        assert_eq!(examine(later).unwrap(), Found::OtherMode);
        let folder = Entry { kind: Kind::Folder, ..entry(b"abc") };
        assert_eq!(examine(folder).unwrap(), Found::OtherKind);
        assert_eq!(examine(Entry { path: b"b", ..folder }).unwrap(), Found::Nothing);
        assert_eq!(examine(Entry { path: b"a/b/c", ..folder }).unwrap(), Found::Nothing);
    }
}
