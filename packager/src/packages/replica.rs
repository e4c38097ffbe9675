//! Packages that are copies of another site's.
//!
//! A distribution point holds versions that its site signed, under the names that the site gives
//! them, and makes none itself. Their bytes come by whatever way; here a version that is all there
//! becomes visible, in one commit, and goes again. What reads packages finds them as it finds a
//! site's own.
//!
//! While the bytes of a version come, a durable session of the library ([`Packages::bringing`])
//! keeps them from garbage collection, also when the process ends meanwhile.

use super::whole::{is_whole, sized};
use super::{Clock, MAX_CONFLICTS, Packages, Signer};
use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::name::{ChannelName, PackageName};
use crate::refs::{self, PackageRecord, Source, Stored};
use crate::sign::{PublicKey, VersionInfo};
use contentlib::{CommitError, Digest, Expect, Keeps, Library, Ref, RefChange, Session};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What the names of the sessions that keep versions on their way begin with.
const SESSIONS: &str = "bringing/";
/// How long the bytes of a version that has not become visible stay, after the last of them came.
const BRINGING: Duration = Duration::from_secs(7 * 24 * 3600);

/// What became of a version that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It is not visible any more.
    Now,
    /// It was not there; what had come of it is not kept any longer.
    Before,
}

impl Packages {
    /// The copies in `library` of packages of the site whose versions are signed with `site`.
    /// `cache` is as for [`Packages::open`].
    pub fn open_replica(
        library: Library,
        site: PublicKey,
        cache: PathBuf,
        clock: Clock,
    ) -> Result<Self, PackageError> {
        Self::open_with(library, Signer::Elsewhere(site), cache, clock)
    }

    /// Whether the packages are copies of another site's, so that only [`Packages::adopt`],
    /// [`Packages::set_names`] and [`Packages::let_go`] change them.
    pub fn is_replica(&self) -> bool {
        matches!(self.inner.signer, Signer::Elsewhere(_))
    }

    fn replica(&self) -> Result<(), PackageError> {
        if self.is_replica() { Ok(()) } else { Err(PackageError::NotAReplica) }
    }

    /// The session that keeps what comes of a version until it is adopted, or let go, or nothing
    /// came of it for a week. What was there before is not kept by it: a version that takes days must
    /// not hold up that others are freed. Should something go that it was found to share with one of
    /// them, that comes too.
    pub fn bringing(&self, package: &PackageName, version: u64) -> Result<Session, PackageError> {
        self.replica()?;
        let name = format!("{SESSIONS}{package}/{version:010}");
        Ok(self.library().open_session(&name, BRINGING, Keeps::Added)?)
    }

    /// The versions that something is kept of until they are adopted. As long as there is one,
    /// nothing that was stored since it began is freed; one that is not wanted any more is to be let go ([`Packages::let_go`]).
    pub fn on_their_way(&self) -> Vec<(PackageName, u64)> {
        let sessions = self.library().open_sessions(SESSIONS);
        let parsed = sessions.iter().filter_map(|name| {
            let (package, version) = name.strip_prefix(SESSIONS)?.rsplit_once('/')?;
            Some((package.parse().ok()?, version.parse().ok()?))
        });
        parsed.collect()
    }

    /// Makes a version visible, whose manifest, contents and recipes `session` added or the library
    /// holds: all at once, or an error and nothing. A version of the same number that is
    /// already there is replaced. What the version is called, [`Packages::set_names`] says.
    pub fn adopt(&self, session: &Session, info: &VersionInfo) -> Result<(), PackageError> {
        self.replica()?;
        info.verify(&self.public_key())?;
        // What is on its way into the library cannot be looked at before.
        session.commit(Vec::new())?;
        let manifest = self.manifest(info.manifest)?;
        let info = as_in_manifest(info, &manifest)?;
        session.keep(self.all_held(&info, &manifest)?);
        let key = refs::version_key(&info.package, info.version);
        for _ in 0..MAX_CONFLICTS {
            let found = refs::get_package(self.library(), &info.package)?;
            let (mut record, expect) = match found {
                Some(Stored { record, found }) => (record.next_revision(), Expect::Is(found)),
                None => (self.new_record(), Expect::Absent),
            };
            record.next = record.next.max(info.version.saturating_add(1));
            let package = refs::package_key(&info.package);
            let changes = vec![
                refs::set(key.clone(), Some(info.manifest), &info, Expect::Any),
                refs::set(package, None, &record, expect),
            ];
            match session.commit(changes) {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PackageError::Busy(info.package))
    }

    fn new_record(&self) -> PackageRecord {
        PackageRecord::new(Source::Site, Default::default(), self.now())
    }

    /// The contents of a version, each once, if they are all held whole.
    fn all_held(
        &self,
        info: &VersionInfo,
        manifest: &Manifest,
    ) -> Result<Vec<Digest>, PackageError> {
        let files = sized(manifest);
        let (mut n, mut first) = (0, None);
        for &(digest, size) in &files {
            if !is_whole(self.library(), digest, size)? {
                n += 1;
                first = first.or(Some(digest));
            }
        }
        match first {
            None => Ok(files.into_iter().map(|(digest, _)| digest).collect()),
            Some(first) => {
                let (package, version) = (info.package.clone(), info.version);
                Err(PackageError::Incomplete { package, version, n, first })
            }
        }
    }

    /// Says what the names of a package mean, as its site does, and answers whether that was news.
    /// A name of a version that is not held goes on meaning what it meant, as long as that is
    /// held; so it moves in the moment when it is set again after the version was adopted. Names that
    /// are not stated are gone.
    pub fn set_names(
        &self,
        package: &PackageName,
        latest: Option<u64>,
        channels: &BTreeMap<ChannelName, u64>,
    ) -> Result<bool, PackageError> {
        self.replica()?;
        self.change_copy(package, |record, _| {
            let versions = refs::list_versions(self.library(), package)?;
            let is_held = |number: &u64| versions.iter().any(|held| held.version == *number);
            let now = |wanted: u64, before: Option<u64>| {
                Some(wanted).filter(is_held).or(before.filter(is_held))
            };
            let old = &record.channels;
            let channels: BTreeMap<_, _> = channels
                .iter()
                .filter_map(|(name, to)| Some((name.clone(), now(*to, old.get(name).copied())?)))
                .collect();
            let latest = latest.and_then(|wanted| now(wanted, record.latest));
            let is_news = (&latest, &channels) != (&record.latest, old);
            (record.latest, record.channels) = (latest, channels);
            Ok(is_news)
        })
    }

    /// Takes a version away, with the names that mean it; and the package with its last version.
    /// Bytes that nothing else has go with the library's garbage, after its grace. Of a version that
    /// was on its way, what had come is not kept any longer.
    pub fn let_go(&self, package: &PackageName, version: u64) -> Result<Gone, PackageError> {
        self.replica()?;
        let key = refs::version_key(package, version);
        let was_held = self.change_copy(package, |record, changes| {
            if self.library().get_ref(&key)?.is_none() {
                return Ok(false);
            }
            changes.push(RefChange::Delete { name: key.clone(), expect: Expect::Any });
            record.channels.retain(|_, to| *to != version);
            record.latest = record.latest.filter(|latest| *latest != version);
            Ok(true)
        })?;
        // An index that was made anew from damaged packs may know the version and not its package.
        let is_left = !was_held && self.library().get_ref(&key)?.is_some();
        if is_left {
            let change = RefChange::Delete { name: key, expect: Expect::Any };
            self.library().session().commit(vec![change])?;
        }
        self.bringing(package, version)?.end()?;
        Ok(if was_held || is_left { Gone::Now } else { Gone::Before })
    }

    /// All versions that are visible, by package and number.
    pub fn held(&self) -> Result<Vec<VersionInfo>, PackageError> {
        let found = refs::list::<VersionInfo>(self.library(), refs::VERSIONS)?;
        Ok(found.into_iter().map(|(_, stored)| stored.record).collect())
    }

    /// Changes the record of a copy, if `change` says that it is a change, again if somebody else
    /// changes it meanwhile. A package that is not there has nothing to change.
    fn change_copy(
        &self,
        package: &PackageName,
        change: impl Fn(&mut PackageRecord, &mut Vec<RefChange>) -> Result<bool, PackageError>,
    ) -> Result<bool, PackageError> {
        let session = self.library().session();
        for _ in 0..MAX_CONFLICTS {
            let Some(Stored { record, found }) = refs::get_package(self.library(), package)? else {
                return Ok(false);
            };
            let mut record = record.next_revision();
            let mut changes = Vec::new();
            if !change(&mut record, &mut changes)? {
                return Ok(false);
            }
            changes.push(self.record_change(package, &record, found, changes.len())?);
            match session.commit(changes) {
                Ok(()) => return Ok(true),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PackageError::Busy(package.clone()))
    }

    /// The change of a package's record; its end, if the last of its versions goes with it.
    fn record_change(
        &self,
        package: &PackageName,
        record: &PackageRecord,
        found: Ref,
        n_going: usize,
    ) -> Result<RefChange, PackageError> {
        let name = refs::package_key(package);
        let n_held = self.library().list_refs(&refs::versions_key(package))?.len();
        Ok(match n_held > n_going {
            true => refs::set(name, None, record, Expect::Is(found)),
            false => RefChange::Delete { name, expect: Expect::Is(found) },
        })
    }
}

/// The version as its manifest has it: what is not signed is not believed where it can be known.
fn as_in_manifest(info: &VersionInfo, manifest: &Manifest) -> Result<VersionInfo, PackageError> {
    if manifest.tree_digest() != info.tree {
        let (package, version) = (info.package.clone(), info.version);
        return Err(PackageError::OtherTree { package, version });
    }
    Ok(VersionInfo {
        n_files: manifest.n_files(),
        n_folders: manifest.n_folders(),
        n_links: manifest.n_links(),
        bytes: manifest.bytes(),
        ..info.clone()
    })
}
