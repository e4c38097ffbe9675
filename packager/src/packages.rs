//! The packages of a site: what there is, and the changes that need no reading of files.
//!
//! All state lies in references of the content library, and every change is one commit: it
//! happened or it did not. Operations that take long are in files of their own: [`crate::update`],
//! [`crate::upload`], [`crate::restore`].

mod busy;
mod cache;
mod channel;
mod delete;
mod expire;
mod on_demand;
mod publish;
mod replica;
mod revoke;
mod show;
mod unshared;
mod whole;

pub use channel::ChannelMoved;
pub use delete::{Deleted, Force, Freed};
pub use replica::Gone;
pub use revoke::{Holding, Revocation};
pub use show::{DiffPage, PackageInfo, Stamp};
pub use unshared::Unshared;
pub use whole::Hurt;

use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::name::{PackageName, Selector};
use crate::on_demand::OnDemand;
use crate::refs::{self, KeyRecord, PackageRecord, Source, SourceFolder, Stored};
use crate::retention::Retention;
use crate::sign::{Document, PublicKey, Signature, SiteKey, VersionInfo};
use crate::upload::{self, InUse, UploadId};
use busy::Busy;
use cache::ReadLast;
use contentlib::{CommitError, Digest, Expect, Library, ReadError, RefChange};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use busy::Guard;
pub(crate) use on_demand::read_on_demand;
pub(crate) use publish::{Made, NewVersion, Newest};

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How often a change is made again because another one of the same package came between.
const MAX_CONFLICTS: usize = 20;
/// The largest manifest that is read, in bytes: one of all limits at once stays below it.
const MAX_MANIFEST: u64 = 1 << 30;

/// The packages of a site. Cheap to clone.
#[derive(Clone)]
pub struct Packages {
    pub(crate) inner: Arc<Inner>,
}

/// Who signs the versions.
enum Signer {
    /// This site.
    Here(SiteKey),
    /// Another site, which these packages are copies of; this is what its versions are checked with.
    Elsewhere(PublicKey),
}

pub(crate) struct Inner {
    pub(crate) library: Library,
    signer: Signer,
    pub(crate) clock: Clock,
    /// Where the stat caches of sources are: `DIR/cache/sources`.
    pub(crate) sources: PathBuf,
    pub(crate) gc_grace: Duration,
    /// How long an upload is kept after it was last used.
    pub(crate) upload_expiry: Duration,
    pub(crate) uploads_in_use: Arc<InUse>,
    /// Uploads with an unreadable record that the log named.
    pub(crate) uploads_told: Mutex<HashSet<UploadId>>,
    pub(crate) n_threads: usize,
    manifests: ReadLast<Manifest>,
    /// By the content of the list.
    on_demand: ReadLast<OnDemand>,
    busy: Arc<Busy>,
}

/// A new package.
#[derive(Clone, Debug)]
pub struct NewPackage {
    /// Its name.
    pub name: PackageName,
    /// The folder its files are read from; without one, clients upload them.
    pub source: Option<PathBuf>,
    /// Which versions are kept.
    pub retention: Retention,
}

/// Has each package of a library that was put back go on with a number that is `by` larger: what was given out
/// after the backup must not mean something else now.
///
/// # Errors
/// If records cannot be read or written.
pub fn skip_numbers(library: &Library, by: u64) -> Result<(), PackageError> {
    for (name, _) in library.list_refs(refs::PACKAGES)? {
        let Some(name) = name.strip_prefix(refs::PACKAGES).and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Some(Stored { mut record, found }) = refs::get_package(library, &name)? else {
            continue;
        };
        record.next = record.next.saturating_add(by);
        let record = record.next_revision();
        let change = refs::set(refs::package_key(&name), None, &record, Expect::Is(found));
        library.session().commit(vec![change])?;
    }
    Ok(())
}

impl Packages {
    /// The packages in `library`, signed with `key`. `cache` is a folder for what can be made
    /// again, right inside the site's data folder (`DIR/cache`); it need not exist.
    pub fn open(
        library: Library,
        key: SiteKey,
        cache: PathBuf,
        clock: Clock,
    ) -> Result<Self, PackageError> {
        Self::open_with(library, Signer::Here(key), cache, clock)
    }

    fn open_with(
        library: Library,
        signer: Signer,
        cache: PathBuf,
        clock: Clock,
    ) -> Result<Self, PackageError> {
        let inner = Inner {
            library,
            signer,
            clock,
            sources: cache.join("sources"),
            gc_grace: contentlib::Options::default().gc_grace,
            upload_expiry: upload::EXPIRY,
            uploads_in_use: Arc::default(),
            uploads_told: Mutex::default(),
            n_threads: std::thread::available_parallelism().map_or(2, usize::from).min(8),
            manifests: ReadLast::default(),
            on_demand: ReadLast::default(),
            busy: Arc::default(),
        };
        let packages = Self { inner: Arc::new(inner) };
        packages.record_key()?;
        Ok(packages)
    }

    /// Says when bytes that nothing refers to any more are freed: the library's own grace. To be
    /// called before the packages are shared.
    pub fn with_gc_grace(mut self, grace: Duration) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.gc_grace = grace;
        }
        self
    }

    /// Says how long an upload is kept after it was last used, instead of a day. To be called
    /// before the packages are shared.
    pub fn with_upload_expiry(mut self, expiry: Duration) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.upload_expiry = expiry;
        }
        self
    }

    /// The content library under the packages.
    pub fn library(&self) -> &Library {
        &self.inner.library
    }

    /// What the signatures of the versions here are checked with.
    pub fn public_key(&self) -> PublicKey {
        match &self.inner.signer {
            Signer::Here(key) => key.public(),
            Signer::Elsewhere(key) => *key,
        }
    }

    /// The key to sign with; an error if the packages here are copies of another site's.
    pub(crate) fn signing_key(&self) -> Result<&SiteKey, PackageError> {
        match &self.inner.signer {
            Signer::Here(key) => Ok(key),
            Signer::Elsewhere(_) => Err(PackageError::Replica),
        }
    }

    /// Signs a document with the key that the versions here are signed with.
    ///
    /// # Errors
    /// If the packages here are copies of another site's, whose key is there.
    pub fn sign_document(&self, kind: Document, text: &[u8]) -> Result<Signature, PackageError> {
        Ok(self.signing_key()?.sign_document(kind, text))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Keeps the public key in the library, so that versions can be checked where the key's own
    /// file is lost.
    fn record_key(&self) -> Result<(), PackageError> {
        let key = self.public_key();
        let stored = refs::get::<KeyRecord>(self.library(), refs::SITE_KEY)?;
        let is_replica = matches!(self.inner.signer, Signer::Elsewhere(_));
        let (mut record, expect) = match stored {
            Some(Stored { record, found }) => (record, Expect::Is(found)),
            None => (KeyRecord::new(is_replica), Expect::Absent),
        };
        match (record.replica, is_replica) {
            (true, false) => return Err(PackageError::OfAPoint),
            (false, true) => return Err(PackageError::OfASite),
            _ => {}
        }
        if record.keys.last() == Some(&key) {
            return Ok(());
        }
        if let (true, Some(&found)) = (is_replica, record.keys.last()) {
            // Its versions would be served under the name of a site that did not sign them.
            return Err(PackageError::OfAnotherSite { found, wanted: key });
        }
        if !record.keys.is_empty() {
            tracing::warn!(%key, "the site has a new signing key; clients must be told to trust it");
        }
        record.keys.push(key);
        let change = refs::set(refs::SITE_KEY.into(), None, &record, expect);
        Ok(self.library().session().commit(vec![change])?)
    }

    /// Makes a package, and its version 1, which is empty.
    pub fn create(&self, new: NewPackage) -> Result<VersionInfo, PackageError> {
        let NewPackage { name, source, retention } = new;
        let guard = self.busy(&name)?;
        // Before the folder is looked at: what is wrong with that does not matter then.
        if refs::get_package(self.library(), &name)?.is_some() {
            return Err(PackageError::Exists(name));
        }
        let source = match source {
            None => Source::Upload,
            Some(folder) => Source::Folder(self.claim_source(&guard, &folder)?),
        };
        self.create_with(&guard, source, retention)
    }

    /// Makes the guarded package with that source, and its version 1.
    pub(crate) fn create_with(
        &self,
        guard: &Guard,
        source: Source,
        retention: Retention,
    ) -> Result<VersionInfo, PackageError> {
        let name = guard.name();
        let record = PackageRecord::new(source, retention, self.now());
        let session = self.library().session();
        let empty = Manifest::default();
        let version = NewVersion {
            name,
            manifest: &empty,
            tree: empty.tree_digest(),
            source: None,
            files_read: 0,
            new_bytes: 0,
        };
        let published = self.publish_first(&session, &version, record);
        match published {
            Err(PackageError::Commit(CommitError::Conflict { .. })) => {
                Err(PackageError::Exists(name.clone()))
            }
            published => published,
        }
    }

    /// Checks that `folder` can be the source of the guarded package, and keeps others from
    /// taking it while the guard lives. Answers its canonical path.
    pub(crate) fn claim_source(
        &self,
        guard: &Guard,
        folder: &Path,
    ) -> Result<SourceFolder, PackageError> {
        let fail = |source| PackageError::Source { folder: folder.into(), source };
        let canonical = folder.canonicalize().map_err(fail)?;
        crate::folder::Folder::open(&canonical).map_err(fail)?;
        if self.own_folders().any(|own| own.starts_with(&canonical) || canonical.starts_with(&own))
        {
            return Err(PackageError::SourceHoldsSite { folder: canonical });
        }
        guard.claim(&canonical)?;
        for (key, stored) in refs::list::<PackageRecord>(self.library(), refs::PACKAGES)? {
            let Some(Ok(other)) = key.strip_prefix(refs::PACKAGES).map(str::parse) else {
                continue;
            };
            if let Source::Folder(taken) = &stored.record.source
                && other != *guard.name()
                && taken.overlaps(&canonical)
            {
                return Err(PackageError::SourceTaken { other, folder: taken.0.clone() });
            }
        }
        Ok(SourceFolder(canonical))
    }

    /// The folders that hold the site's own data, by their canonical paths: the data folder, with
    /// the signing key in it, and the packs, which may lie on other disks. Nothing of them becomes
    /// part of a package, and no version is written there.
    pub(crate) fn own_folders(&self) -> impl Iterator<Item = PathBuf> {
        let data = self.inner.sources.ancestors().nth(2).map(Path::to_owned);
        let all = data.into_iter().chain(self.library().volume_folders());
        all.filter_map(|folder| folder.canonicalize().ok())
    }

    /// Takes the package for one change that takes long.
    pub(crate) fn busy(&self, name: &PackageName) -> Result<Guard, PackageError> {
        self.signing_key()?;
        self.inner.busy.take(name)
    }

    /// The record of a package that must be there.
    pub(crate) fn record(&self, name: &PackageName) -> Result<Stored<PackageRecord>, PackageError> {
        let stored = refs::get_package(self.library(), name)?;
        stored.ok_or_else(|| PackageError::UnknownPackage(name.clone()))
    }

    /// Which version `selector` means.
    pub fn resolve(
        &self,
        name: &PackageName,
        selector: &Selector,
    ) -> Result<VersionInfo, PackageError> {
        let number = match selector {
            Selector::Number(number) => Some(*number),
            Selector::Latest => self.record(name)?.record.latest,
            Selector::Channel(channel) => {
                let number = self.record(name)?.record.channels.get(channel).copied();
                let unknown = || PackageError::UnknownChannel {
                    package: name.clone(),
                    channel: channel.clone(),
                };
                Some(number.ok_or_else(unknown)?)
            }
        };
        let stored = match number {
            Some(number) => refs::get_version(self.library(), name, number)?,
            None => None,
        };
        match stored {
            Some(stored) => Ok(stored.record),
            None => {
                self.record(name)?;
                let version = selector.clone();
                Err(PackageError::UnknownVersion { package: name.clone(), version })
            }
        }
    }

    /// The manifest of this digest. The last ones read are kept in memory.
    pub fn manifest(&self, digest: Digest) -> Result<Arc<Manifest>, PackageError> {
        self.inner.manifests.get(digest, || read_manifest(self.library(), digest))
    }

    /// Changes a package's record, again if somebody else changes it meanwhile.
    fn change<T>(
        &self,
        name: &PackageName,
        mut change: impl FnMut(&mut PackageRecord, &mut Vec<RefChange>) -> Result<T, PackageError>,
    ) -> Result<T, PackageError> {
        self.signing_key()?;
        let session = self.library().session();
        for _ in 0..MAX_CONFLICTS {
            let Stored { record, found } = self.record(name)?;
            let mut record = record.next_revision();
            let mut changes = Vec::new();
            let done = change(&mut record, &mut changes)?;
            let key = refs::package_key(name);
            changes.push(refs::set(key, None, &record, Expect::Is(found)));
            match session.commit(changes) {
                Ok(()) => return Ok(done),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PackageError::Busy(name.clone()))
    }

    /// Changes where a package's files come from. The caller has claimed the folder.
    pub(crate) fn set_source(
        &self,
        name: &PackageName,
        source: &Source,
    ) -> Result<(), PackageError> {
        self.change(name, |record, _| {
            record.source = source.clone();
            Ok(())
        })
    }

    /// Changes which versions are kept. How many takes effect with the next version, and for how
    /// long with [`Packages::expire_versions`] too.
    pub fn set_retention(
        &self,
        name: &PackageName,
        retention: Retention,
    ) -> Result<(), PackageError> {
        self.change(name, |record, _| {
            record.retention = retention;
            Ok(())
        })
    }
}

/// Reads a manifest from the library.
pub(crate) fn read_manifest(library: &Library, digest: Digest) -> Result<Manifest, PackageError> {
    let reader = library.open_content(digest)?;
    let size = reader.size();
    if size > MAX_MANIFEST {
        return Err(ReadError::Unknown(digest.into()).into());
    }
    let mut bytes = Vec::with_capacity(size as usize);
    reader.copy_to(0..size, &mut bytes)?;
    Manifest::decode(&bytes).map_err(|source| PackageError::Manifest { manifest: digest, source })
}
