//! What a folder remembers of its fetches: `OUT/.depot`.
//!
//! | file | holds |
//! | --- | --- |
//! | `state` | JSON: the package, the key its versions are signed with, the version last fetched |
//! | `manifest` | the manifest of that version |
//! | `stats` | that manifest's digest, then inode and change time of each of its entries |
//! | `pending` | the manifest that is being fetched |
//! | `partial/` | contents that are not complete yet, by digest; files on their way into place |
//! | `lock` | held while a fetch is at work |
//!
//! Always true: losing any of these costs time, never correctness; but with `state` the key is lost,
//! and the next one is taken on trust again. A file counts as right only if its inode and change time
//! are those recorded, or its bytes hash to the manifest's digest.

use super::RemoteError;
use super::parts::Parts;
use contentlib::Digest;
use packager::fetch_state::{FOLDER, FetchRecord, RECORD};
use packager::manifest::Manifest;
use packager::{PackageName, PublicKey};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Inode and change time in nanoseconds: what tells an untouched file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub inode: u64,
    pub changed: i64,
}

/// The version that was last fetched whole.
pub(super) struct Last {
    pub manifest: Manifest,
    /// As the manifest came, for what a new one shares with it.
    pub bytes: Vec<u8>,
    /// By entry. A stamp that is nothing's never matches.
    pub stamps: Vec<Stamp>,
}

/// The state of one folder, locked for one fetch.
pub(super) struct State {
    folder: PathBuf,
    pub record: FetchRecord,
    pub last: Option<Last>,
    /// A version whose fetch did not end.
    pub pending: Option<Manifest>,
    /// What is being made.
    pub parts: Arc<Parts>,
    _lock: File,
}

impl State {
    /// Opens the state of `out`, which is made if it is not there, and locks it.
    pub fn open(out: &Path) -> Result<Self, RemoteError> {
        let folder = out.join(FOLDER);
        fs::create_dir_all(&folder).map_err(RemoteError::io(&folder))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(RemoteError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(RemoteError::Busy(out.into())),
            Err(fs::TryLockError::Error(source)) => return Err(RemoteError::Io { path, source }),
        }
        let parts = Arc::new(Parts::open(folder.join("partial"))?);
        let record = read(&folder.join(RECORD))?;
        let record = record.and_then(|bytes| FetchRecord::decode(&bytes)).unwrap_or_default();
        let mut state = Self { folder, record, last: None, pending: None, parts, _lock: lock };
        state.last = state.read_last()?;
        let pending = read(&state.folder.join("pending"))?;
        state.pending = pending.and_then(|bytes| Manifest::decode(&bytes).ok());
        Ok(state)
    }

    fn read_last(&self) -> Result<Option<Last>, RemoteError> {
        let Some(digest) = self.record.manifest else { return Ok(None) };
        let Some(bytes) = read(&self.folder.join("manifest"))? else { return Ok(None) };
        if Digest::of(&bytes) != digest {
            return Ok(None);
        }
        let Ok(manifest) = Manifest::decode(&bytes) else { return Ok(None) };
        let stats = read(&self.folder.join("stats"))?.unwrap_or_default();
        let stamps = decode_stamps(&stats, digest).filter(|stamps| stamps.len() == manifest.len());
        let stamps = stamps.unwrap_or_else(|| vec![Stamp::default(); manifest.len()]);
        Ok(Some(Last { manifest, bytes, stamps }))
    }

    /// Remembers whose versions belong here, before the first byte of one is written.
    pub fn pin(&mut self, package: &PackageName, key: PublicKey) -> Result<(), RemoteError> {
        self.record.package = Some(package.clone());
        self.record.key = Some(key);
        self.write_record()
    }

    /// Remembers what is about to be written, so that a later fetch knows it for its own.
    pub fn begin(&self, manifest: &[u8]) -> Result<(), RemoteError> {
        write(&self.folder.join("pending"), manifest)
    }

    /// Remembers a version as fetched whole. `stamps` are those of its entries now.
    pub fn finish(
        &mut self,
        version: u64,
        digest: Digest,
        manifest: &[u8],
        stamps: &[Stamp],
    ) -> Result<(), RemoteError> {
        write(&self.folder.join("manifest"), manifest)?;
        write(&self.folder.join("stats"), &encode_stamps(stamps, digest))?;
        self.record.version = Some(version);
        self.record.manifest = Some(digest);
        self.write_record()?;
        for path in [self.folder.join("pending"), self.parts.path().to_owned()] {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(RemoteError::Io { path, source: e });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_record(&mut self) -> Result<(), RemoteError> {
        write(&self.folder.join(RECORD), &self.record.encode())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RemoteError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RemoteError::Io { path: path.into(), source }),
    }
}

/// Replaces a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), RemoteError> {
    let part = path.with_extension("part");
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.map_err(RemoteError::io(path))
}

fn encode_stamps(stamps: &[Stamp], manifest: Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + 16 * stamps.len());
    out.extend_from_slice(manifest.as_bytes());
    for stamp in stamps {
        out.extend_from_slice(&stamp.inode.to_le_bytes());
        out.extend_from_slice(&stamp.changed.to_le_bytes());
    }
    out
}

fn decode_stamps(bytes: &[u8], manifest: Digest) -> Option<Vec<Stamp>> {
    let (digest, rest) = bytes.split_at_checked(32)?;
    let (rows, left) = rest.as_chunks::<16>();
    if digest != manifest.as_bytes() || !left.is_empty() {
        return None;
    }
    let stamp = |row: &[u8; 16]| {
        let row = u128::from_le_bytes(*row);
        Stamp { inode: row as u64, changed: (row >> 64) as i64 }
    };
    Some(rows.iter().map(stamp).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_read_back_for_their_own_manifest_alone() {
        let stamps =
            [Stamp { inode: 7, changed: -3 }, Stamp { inode: u64::MAX, changed: i64::MAX }];
        let (own, other) = (Digest::of(b"own"), Digest::of(b"other"));
        let bytes = encode_stamps(&stamps, own);
        assert_eq!(decode_stamps(&bytes, own).unwrap(), stamps);
        assert_eq!(decode_stamps(&bytes, other), None);
        assert_eq!(decode_stamps(&bytes[..bytes.len() - 1], own), None);
    }

    #[test]
    fn one_fetch_at_a_time() {
        let out = tempfile::tempdir().unwrap();
        let first = State::open(out.path()).unwrap();
        assert!(matches!(State::open(out.path()), Err(RemoteError::Busy(_))));
        drop(first);
        assert!(State::open(out.path()).is_ok());
    }

    #[test]
    fn what_is_pinned_and_finished_is_there_again() {
        let out = tempfile::tempdir().unwrap();
        let manifest = packager::manifest::ManifestBuilder::default().finish().encode();
        let digest = Digest::of(&manifest);
        let key = packager::SiteKey::from_seed([1; 32]).public();
        {
            let mut state = State::open(out.path()).unwrap();
            state.pin(&"docs".parse().unwrap(), key).unwrap();
            state.begin(&manifest).unwrap();
        }
        {
            let mut state = State::open(out.path()).unwrap();
            assert_eq!(state.record.key, Some(key));
            assert!(state.pending.is_some() && state.last.is_none());
            state.finish(3, digest, &manifest, &[]).unwrap();
        }
        let state = State::open(out.path()).unwrap();
        assert!(state.pending.is_none());
        assert_eq!(state.record.version, Some(3));
        assert_eq!(state.last.unwrap().bytes, manifest);
    }
}
