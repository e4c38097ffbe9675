//! What the files of a source looked like when they were last read, so that unchanged ones are
//! not read again.
//!
//! One file a package, `DIR/cache/sources/<package>.stat`. It is a cache: it may be deleted at any
//! time, and one that is damaged, or belongs to another version or source, is ignored. Then all
//! files are read again.
//!
//! Always true: a row is there only if any later write to its file would show in the row, by the
//! rule that git calls "racily clean". A file that was written less than [`SETTLED`] before it was
//! read might be written again without its times changing, so such a file is not trusted.

use crate::folder::FileStat;
use crate::manifest::{Manifest, put_varint, unzigzag, zigzag};
use crate::name::PackageName;
use contentlib::Digest;
use jiff::Timestamp;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How old a file's times must be when it is read, for it to be trusted: the coarsest clock of
/// any file system in use (FAT's).
pub(crate) const SETTLED: Duration = Duration::from_secs(2);

const MAGIC: [u8; 8] = *b"depotS\x01\n";
/// The longest row: three numbers of at most ten bytes each.
const MAX_ROW: usize = 30;

/// The cache file of one package.
pub(crate) struct StatCache {
    path: PathBuf,
}

impl StatCache {
    /// The cache of `package`, in the folder `sources`.
    pub(crate) fn new(sources: &Path, package: &PackageName) -> Self {
        Self { path: sources.join(format!("{package}.stat")) }
    }

    /// What the files of `manifest` (whose digest is `version`) looked like in `source`: a row a
    /// file, in the manifest's order, `None` for one that is not trusted.
    pub(crate) fn read(
        &self,
        source: &Path,
        version: Digest,
        manifest: &Manifest,
    ) -> Option<Vec<Option<FileStat>>> {
        let bytes = std::fs::read(&self.path).ok()?;
        let rows = decode(&bytes, &key(source, version), manifest);
        if rows.is_none() {
            tracing::debug!(path = ?self.path, "stat cache is of another version, or damaged");
        }
        rows
    }

    /// Remembers `rows`, one a file of `version`.
    pub(crate) fn write(
        &self,
        source: &Path,
        version: Digest,
        rows: &[Option<FileStat>],
    ) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&encode(&key(source, version), rows)?)?;
        file.persist(&self.path)?;
        Ok(())
    }

    /// Forgets all rows.
    pub(crate) fn remove(&self) {
        // If it stays, its key still tells that it is of no use.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a file with these times, read at `read`, can be told from itself written later.
pub(crate) fn is_settled(stat: &FileStat, read: Timestamp) -> bool {
    let newest = i128::from(stat.mtime.max(stat.ctime));
    newest + SETTLED.as_nanos() as i128 <= read.as_nanosecond()
}

/// What a cache belongs to.
fn key(source: &Path, version: Digest) -> [u8; 32] {
    let both = [version.as_bytes(), source.as_os_str().as_bytes()].concat();
    *Digest::of(&both).as_bytes()
}

// Magic, key, digest of the rest, zstd of the rows. In a row, numbers near those of the row before
// are small; an inode of 0, which no file has, marks a row that is not trusted.

fn encode(key: &[u8; 32], rows: &[Option<FileStat>]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(8 * rows.len());
    let mut before = FileStat::default();
    for row in rows {
        let Some(row) = row else {
            put_varint(&mut plain, 0);
            continue;
        };
        put_varint(&mut plain, zigzag(row.inode.wrapping_sub(before.inode) as i64).wrapping_add(1));
        put_varint(&mut plain, zigzag(row.mtime.wrapping_sub(before.mtime)));
        put_varint(&mut plain, zigzag(row.ctime.wrapping_sub(row.mtime)));
        before = *row;
    }
    let packed = zstd::bulk::compress(&plain, 1)?;
    Ok([&MAGIC[..], key, Digest::of(&packed).as_bytes(), &packed].concat())
}

fn decode(bytes: &[u8], key: &[u8; 32], manifest: &Manifest) -> Option<Vec<Option<FileStat>>> {
    let (digest, packed) = bytes.strip_prefix(&MAGIC)?.strip_prefix(key)?.split_first_chunk()?;
    if Digest::of(packed).as_bytes() != digest {
        return None;
    }
    let plain = zstd::bulk::decompress(packed, MAX_ROW * manifest.n_files() as usize).ok()?;
    let mut from = crate::manifest::Reader(&plain);
    let mut before = FileStat::default();
    let mut rows = Vec::with_capacity(manifest.n_files() as usize);
    for &size in manifest.sizes() {
        let inode = from.varint().ok()?;
        if inode == 0 {
            rows.push(None);
            continue;
        }
        let inode = before.inode.wrapping_add(unzigzag(inode.wrapping_sub(1)) as u64);
        let mtime = before.mtime.wrapping_add(unzigzag(from.varint().ok()?));
        let ctime = mtime.wrapping_add(unzigzag(from.varint().ok()?));
        before = FileStat { size, mtime, ctime, inode };
        rows.push(Some(before));
    }
    from.0.is_empty().then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::tree;
    use proptest::prelude::*;

    fn stat(size: u64) -> FileStat {
        FileStat {
            size,
            mtime: 1_700_000_000_000_000_000,
            ctime: 1_700_000_000_000_000_123,
            inode: 7,
        }
    }

    #[test]
    fn a_cache_of_another_source_or_version_or_a_damaged_one_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::new(dir.path(), &"docs".parse().unwrap());
        let manifest = tree(&["a", "bb"]);
        let version = manifest.digest();
        let source = Path::new("/source");
        let rows = vec![Some(stat(1)), None];
        cache.write(source, version, &rows).unwrap();
        assert_eq!(cache.read(source, version, &manifest), Some(rows));
        assert_eq!(cache.read(Path::new("/other"), version, &manifest), None);
        assert_eq!(cache.read(source, Digest::of(b"other"), &manifest), None);
        let mut bytes = std::fs::read(&cache.path).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            std::fs::write(&cache.path, &bytes).unwrap();
            assert_eq!(cache.read(source, version, &manifest), None, "{at}");
            bytes[at] ^= 4;
        }
        cache.remove();
        assert_eq!(cache.read(source, version, &manifest), None);
    }

    #[test]
    fn a_file_written_just_before_it_was_read_is_not_trusted() {
        let at = |ns: i128| Timestamp::from_nanosecond(ns).unwrap();
        let written = i128::from(stat(1).ctime);
        assert!(!is_settled(&stat(1), at(written)));
        assert!(!is_settled(&stat(1), at(written + 1_999_999_999)));
        assert!(is_settled(&stat(1), at(written + 2_000_000_000)));
    }

    #[test]
    fn rows_fit_however_many_files_there_are() {
        let paths: Vec<_> = (0..1_200_000).map(|n| format!("{n:07}")).collect();
        let manifest = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        // Far from each other, so that each number takes as many bytes as one can.
        let far = |n: i64| (n & 1) << 62;
        let row =
            |n| FileStat { size: 7, mtime: far(n), ctime: far(n + 1), inode: 1 + far(n) as u64 };
        let rows: Vec<_> = (0..1_200_000).map(|n| Some(row(n))).collect();
        let bytes = encode(&[0; 32], &rows).unwrap();
        assert!(decode(&bytes, &[0; 32], &manifest) == Some(rows));
    }

    proptest! {
        #[test]
        fn rows_read_back(rows in prop::collection::vec(prop::option::of(any::<(i64, i64, u64)>()), 0..20)) {
            let paths: Vec<_> = (0..rows.len()).map(|n| format!("{n:03}")).collect();
            let manifest = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
            // A difference of exactly half the range has no row of its own; no inode is that far.
            let row = |(mtime, ctime, inode)| FileStat { size: 3, mtime, ctime, inode: inode >> 2 };
            let rows: Vec<_> = rows.into_iter().map(|r| r.map(row)).collect();
            let bytes = encode(&[0; 32], &rows).unwrap();
            prop_assert_eq!(decode(&bytes, &[0; 32], &manifest), Some(rows));
        }
    }
}
