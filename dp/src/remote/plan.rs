//! What differs between a version and the folder it is to be in.
//!
//! A file that an earlier fetch wrote and nobody touched since is known by its inode and change
//! time. Any other file of the right size is hashed. Nothing here writes.

use super::RemoteError;
use super::state::{Last, Stamp};
use contentlib::Digest;
use packager::manifest::{Entry, FileEntry, Kind, Manifest};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
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

/// The path of an entry in `out`.
pub(super) fn place(out: &Path, path: &[u8]) -> PathBuf {
    out.join(OsStr::from_bytes(path))
}

/// Compares all entries, on `jobs` threads. In the order of the manifest.
pub(super) fn compare(
    out: &Path,
    manifest: &Manifest,
    last: Option<&Last>,
    jobs: usize,
) -> Result<Vec<Found>, RemoteError> {
    parallel(manifest.len(), jobs, |at| {
        let entry = manifest.entry(at);
        let path = place(out, entry.path);
        examine(&path, &entry, last).map_err(RemoteError::io(path))
    })
}

fn examine(path: &Path, entry: &Entry<'_>, last: Option<&Last>) -> io::Result<Found> {
    let stat = match fs::symlink_metadata(path) {
        Ok(stat) => stat,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(e) => return Err(e),
    };
    let right = if mode_is_right(&stat, entry) { Found::Right } else { Found::OtherMode };
    Ok(match entry.kind {
        Kind::Folder if stat.is_dir() => right,
        Kind::Link { target } if stat.is_symlink() => {
            let found = fs::read_link(path)?;
            if found.as_os_str().as_bytes() != target { Found::OtherLink } else { right }
        }
        Kind::File(file) if stat.is_file() => {
            match file_is_right(path, &stat, entry, file, last)? {
                true => right,
                false => Found::OtherBytes,
            }
        }
        _ => Found::OtherKind,
    })
}

/// Links have no mode of their own.
fn mode_is_right(stat: &Metadata, entry: &Entry<'_>) -> bool {
    let mode = stat.permissions().mode() & 0o7777 == u32::from(entry.mode);
    (mode || stat.is_symlink()) && nanoseconds(stat.mtime(), stat.mtime_nsec()) == entry.mtime
}

fn file_is_right(
    path: &Path,
    stat: &Metadata,
    entry: &Entry<'_>,
    file: FileEntry,
    last: Option<&Last>,
) -> io::Result<bool> {
    if stat.len() != file.size {
        return Ok(false);
    }
    if is_untouched(stat, entry.path, last) == Some(file.digest) {
        return Ok(true);
    }
    Ok(digest_of(path)? == file.digest)
}

/// The digest of a file that the last fetch wrote and nobody touched since.
pub(super) fn is_untouched(stat: &Metadata, path: &[u8], last: Option<&Last>) -> Option<Digest> {
    let last = last?;
    let at = last.manifest.position(path)?;
    let file = last.manifest.entry(at).file()?;
    (last.stamps[at] == stamp(stat) && stat.len() == file.size).then_some(file.digest)
}

pub(super) fn stamp(stat: &Metadata) -> Stamp {
    Stamp { inode: stat.ino(), changed: nanoseconds(stat.ctime(), stat.ctime_nsec()) }
}

pub(super) fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// The BLAKE3 of a file's bytes.
pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(*hasher.finalize().as_bytes())),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Does `work` for each of `n` things on `jobs` threads; the results in order, or the first error.
pub(super) fn parallel<T: Send>(
    n: usize,
    jobs: usize,
    work: impl Fn(usize) -> Result<T, RemoteError> + Sync,
) -> Result<Vec<T>, RemoteError> {
    // Neighbours share folders, so a thread takes several where there are many.
    let run = (n / (jobs.max(1) * 64)).clamp(1, 64);
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, T)>, RemoteError> {
        let mut done = Vec::new();
        loop {
            let start = next.fetch_add(run, Relaxed);
            if start >= n {
                return Ok(done);
            }
            for at in start..n.min(start + run) {
                match work(at) {
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

    #[test]
    fn results_come_in_order_and_an_error_ends_the_work() {
        let found = parallel(1000, 4, |at| Ok(at * 2)).unwrap();
        assert!(found.iter().enumerate().all(|(at, n)| *n == at * 2) && found.len() == 1000);
        let failed =
            parallel(1000, 4, |at| if at == 500 { Err(RemoteError::Reserved) } else { Ok(()) });
        assert!(matches!(failed, Err(RemoteError::Reserved)));
        assert!(parallel(0, 4, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn files_are_hashed_unless_untouched() {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("a");
        fs::write(&path, "abc").unwrap();
        let stat = fs::symlink_metadata(&path).unwrap();
        let mtime = nanoseconds(stat.mtime(), stat.mtime_nsec());
        let mode = (stat.permissions().mode() & 0o7777) as u16;
        let file = |bytes: &[u8]| FileEntry { size: 3, digest: Digest::of(bytes), recipe: None };
        let entry = |bytes| Entry { path: b"a", mode, mtime, kind: Kind::File(file(bytes)) };
        assert_eq!(examine(&path, &entry(b"abc"), None).unwrap(), Found::Right);
        assert_eq!(examine(&path, &entry(b"abx"), None).unwrap(), Found::OtherBytes);
        let later = Entry { mtime: mtime + 1, ..entry(b"abc") };
        assert_eq!(examine(&path, &later, None).unwrap(), Found::OtherMode);
        let folder = Entry { kind: Kind::Folder, ..entry(b"abc") };
        assert_eq!(examine(&path, &folder, None).unwrap(), Found::OtherKind);
        assert_eq!(examine(&out.path().join("b"), &folder, None).unwrap(), Found::Nothing);
    }
}
