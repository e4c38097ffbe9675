//! What a snapshot of an RPM repository holds.
//!
//! A whole one has each file that its `repomd.xml` lists, and each package, byte for byte, so that its
//! signature stays good. One of chosen packages has metadata of its own. Both are of the state that the
//! catalogue was filled from, whatever the upstream has become since; a package that it has no more
//! shows itself when it is brought.

use super::folder::{self, State};
use super::primary::{self, Package};
use super::repomd::{self, Listed, Repomd};
use super::selection::{self, Selection};
use super::settings::Repository;
use super::source::{RpmSource, needed};
use crate::adapter::{Run, Skipped};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::mirror::{MirrorFile, Origin, RepoPath};
use crate::openpgp::SigningKey;
use bytes::Bytes;
use jiff::Timestamp;
use std::path::Path;

/// Signs a `repomd.xml`: gives the detached signature, in ASCII armor.
pub type Sign<'a> = &'a (dyn Fn(&[u8]) -> Result<Bytes, SyncError> + Send + Sync);

/// Signs with `key`, at the time of the newest file of what a sync left, so that the same
/// is always signed the same way.
pub fn sign_with<'a>(
    key: &'a SigningKey,
    state: &serde_json::Value,
) -> impl Fn(&[u8]) -> Result<Bytes, SyncError> + Send + Sync + use<'a> {
    let newest = State::of(Some(state)).map(|state| state.newest);
    let date = newest.and_then(|seconds| Timestamp::from_second(seconds).ok());
    // No signature is older than its key.
    let at = date.map_or(key.created(), |date| date.max(key.created()));
    move |document| {
        let signature = key.detach_sign(document, at).map_err(|error| {
            SyncError::because(Cause::Local, "a repomd.xml cannot be signed", error)
        })?;
        Ok(signature.into())
    }
}

/// What is wanted of a repository.
#[derive(Clone, Copy)]
pub enum Choice<'a> {
    /// All of it, as it is.
    Whole,
    /// Some packages, with metadata that are made anew, and signed where somebody signs.
    Some(&'a Selection, Option<Sign<'a>>),
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its files, in the order in which they may become visible: packages, then metadata, then
    /// `repomd.xml`.
    pub files: Vec<MirrorFile>,
    /// Names of packages, and ids of advisories, that were chosen and are not there.
    pub missing: Vec<String>,
}

impl RpmSource {
    /// What a snapshot holds of the state that a sync left.
    pub async fn snapshot(
        &self,
        run: &Run,
        state: &serde_json::Value,
        choice: Choice<'_>,
    ) -> Result<Snapshot, SyncError> {
        let state = State::of(Some(state)).ok_or_else(|| {
            SyncError::new(Cause::Misconfigured, "the repository was never synchronized")
        })?;
        let repomd = state.open(run).map_err(|error| error.within("synchronize it anew"))?;
        match choice {
            Choice::Whole => whole(run, self.repository(), &state, &repomd).await,
            Choice::Some(selection, sign) => {
                selection::snapshot(run, self.repository(), &repomd, selection, sign).await
            }
        }
    }
}

async fn whole(
    run: &Run,
    repository: &Repository,
    state: &State,
    repomd: &Repomd,
) -> Result<Snapshot, SyncError> {
    let mut files = blocking(run, repository, repomd, packages).await?;
    for listed in &repomd.files {
        let path = path_of(repository, &listed.href)?;
        if files.iter().rev().take(repomd.files.len()).all(|file| file.path != path) {
            files.push(listed_file(run, repository, listed, path).await?);
        }
    }
    let signature = state.signature_path(run);
    if signature.exists() {
        files.push(local(repomd::SIGNATURE_PATH, &signature)?);
    }
    files.push(local(repomd::PATH, &state.repomd_path(run))?);
    Ok(Snapshot { files, missing: Vec::new() })
}

/// All packages.
fn packages(
    run: &Run,
    repository: &Repository,
    repomd: &Repomd,
) -> Result<Vec<MirrorFile>, SyncError> {
    let (listed, packing) = needed(repomd)?[0];
    let mut plain = folder::Plain::open(run, listed, packing)?;
    let (mut files, mut skipped) = (Vec::new(), Skipped::default());
    primary::read(&mut plain, &mut skipped, |package, _| {
        run.watch.read()?;
        let path = path_of(repository, &package.href)?;
        files.push(package_file(repository, &package, path)?);
        Ok(())
    })?;
    plain.finish()?;
    if let Some(first) = skipped.examples.first() {
        let count = skipped.count;
        let detail = format!("{count} packages cannot be mirrored, the first because: {first}");
        return Err(SyncError::new(Cause::Unsupported, detail));
    }
    Ok(files)
}

/// A package as a file at `path`.
pub(super) fn package_file(
    repository: &Repository,
    package: &Package,
    path: RepoPath,
) -> Result<MirrorFile, SyncError> {
    let origin = Origin::Remote(vec![repository.address(&package.href)?]);
    let digests = package.digests.clone();
    Ok(MirrorFile { path, size: package.size, digests, origin, is_package: true })
}

/// A file of metadata as it is. It is brought now only if its size is not stated.
pub(super) async fn listed_file(
    run: &Run,
    repository: &Repository,
    listed: &Listed,
    path: RepoPath,
) -> Result<MirrorFile, SyncError> {
    let digests = listed.proof()?.clone();
    let there = folder::path(run, listed)?;
    let (size, origin) = match listed.size.filter(|_| !there.exists()) {
        Some(size) => (size, Origin::Remote(vec![repository.address(&listed.href)?])),
        None => {
            let there = folder::bring(run, repository, listed).await?;
            (size_of(&there)?, Origin::Local(there))
        }
    };
    Ok(MirrorFile { path, size, digests, origin, is_package: false })
}

/// A file that was made here.
pub(super) fn made(path: &str, bytes: Bytes) -> Result<MirrorFile, SyncError> {
    let (size, digests) = (bytes.len() as u64, digests_of(&bytes));
    let (path, origin) = (path_from(path)?, Origin::Made(bytes));
    Ok(MirrorFile { path, size, digests, origin, is_package: false })
}

/// The SHA-256 of bytes.
pub(super) fn digests_of(bytes: &[u8]) -> Digests {
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    hasher.update(bytes);
    hasher.finish().1
}

/// Runs `work`, which blocks, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    run: &Run,
    repository: &Repository,
    repomd: &Repomd,
    work: impl FnOnce(&Run, &Repository, &Repomd) -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    let (run, repository, repomd) = (run.clone(), repository.clone(), repomd.clone());
    let done = tokio::task::spawn_blocking(move || work(&run, &repository, &repomd)).await;
    done.map_err(|error| SyncError::because(Cause::Local, "reading a repository ended", error))?
}

fn local(path: &str, there: &Path) -> Result<MirrorFile, SyncError> {
    let bytes = std::fs::read(there).map_err(|error| SyncError::local(there.display(), error))?;
    let (size, digests) = (bytes.len() as u64, digests_of(&bytes));
    let (path, origin) = (path_from(path)?, Origin::Local(there.into()));
    Ok(MirrorFile { path, size, digests, origin, is_package: false })
}

fn size_of(path: &Path) -> Result<u64, SyncError> {
    let found = std::fs::metadata(path);
    found.map(|found| found.len()).map_err(|error| SyncError::local(path.display(), error))
}

/// The path of what a whole mirror must have below its root.
fn path_of(repository: &Repository, href: &str) -> Result<RepoPath, SyncError> {
    repository.path(href).ok_or_else(|| {
        let href: String = href.chars().take(200).collect();
        SyncError::new(
            Cause::Unsupported,
            format!(
                "{href:?} does not lie below {}, so machines would go past a whole mirror; choose packages instead",
                repository.base
            ),
        )
    })
}

fn path_from(path: &str) -> Result<RepoPath, SyncError> {
    path.parse().map_err(|error| SyncError::because(Cause::Malformed, "a path is none", error))
}
