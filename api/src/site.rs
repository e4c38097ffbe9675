//! A site: one data folder with all that lives in it, assembled.
//!
//! ```text
//! DIR/lock                 who works on the folder
//! DIR/library              content: packs and index
//! DIR/site                 site database: tokens, jobs, audit log, idempotency keys
//! DIR/database.json        which database on a server it is instead, if it is one
//! DIR/cache/coming         files of upstreams on their way to packages (may be deleted)
//! DIR/cache/catalogue      what clients scan by (may be deleted)
//! DIR/cache/sources        what the last update saw of each source folder (may be deleted)
//! DIR/keys/site.ed25519    signs versions; mode 0600
//! DIR/keys/site.openpgp     signs the repositories that the site makes; mode 0600
//! DIR/keys/authority.*      vouches for the site, its distribution points and those who follow it
//! DIR/keys/parent/          whom this site follows, if it has a parent or is an update point
//! DIR/admin.token          the first token; mode 0600
//! ```
//!
//! Content and database are opened when first needed, so that a command which needs one does not
//! wait for the other. Every call here blocks; handlers go through [`blocking`].
//!
//! The library of a distribution point is looked after by the same interface, as far as that is about
//! a library ([`Site::of_point`]): then content alone lies in the folder, and jobs end with the process.

use crate::audit::{Audit, AuditRecord};
use crate::auth::{FIRST_TOKEN_NAME, Identity, Role, Tokens};
use crate::backup::{restore, settle};
use crate::config::Config;
use crate::database;
use crate::deployed::Deployed;
use crate::fleet::Fleet;
use crate::hierarchy::{Parent, RemoteFeed, tell::Telling};
use crate::idempotency::Answers;
use crate::jobs::{Job, JobState, Jobs, Limits};
use crate::limiter::Limiter;
use crate::lock::{DataLock, NotLocked};
use crate::problem::{self, Problem, with_causes};
use crate::sealed;
use crate::shards::Shards;
use crate::standby::Several;
use crate::streams::Places;
use crate::upstream::Upstream;
use contentlib::{Library, Term};
use dp::identity::Authority;
use dp::node;
use dp::registry::Registry;
use jiff::Timestamp;
use packager::refs::is_signed;
use packager::sign::{PublicKey, SiteKey};
use packager::{PackageError, Packages};
use parking_lot::Mutex;
use sitedb::{Db, Tenure};
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use sync::error::{Cause, SyncError};
use sync::hierarchy::Following;
use sync::machine::{Adapters, Machine, Parts};
use sync::source::{Source, SourceKind};

/// A site. Cloning shares it; the last clone to go closes it.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    config: Config,
    limiter: Limiter,
    places: Places,
    ledger: Mutex<Option<Arc<Ledger>>>,
    content: Mutex<Option<Content>>,
    authority: Mutex<Option<Arc<Authority>>>,
    updates: Mutex<Option<Machine>>,
    fleet: Mutex<Option<Arc<Fleet>>>,
    deployed: Deployed,
    shards: Mutex<Option<Arc<Shards>>>,
    parent: Mutex<Option<Option<Arc<Parent>>>>,
    upstream: Mutex<Option<Upstream>>,
    address: OnceLock<SocketAddr>,
    tenure: OnceLock<Tenure>,
    several: OnceLock<Arc<Several>>,
    opened: Timestamp,
    kind: Kind,
    // Last, so that all else is closed when another process may come.
    _lock: Option<DataLock>,
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Site,
    /// A distribution point's that does not run: its library is open here, and nowhere else.
    StoppedPoint,
    /// A distribution point's that runs in this process: its library stays open.
    RunningPoint,
}

/// The parts of a site that live in its database.
pub struct Ledger {
    /// The database.
    pub db: Db,
    /// Who may ask.
    pub tokens: Tokens,
    /// Who changed what.
    pub audit: Audit,
    /// Answers to requests that may be repeated.
    pub answers: Answers,
    /// Long work.
    pub jobs: Jobs,
    /// The site's distribution points.
    pub registry: Registry,
}

/// The parts of a site that live in its content library.
#[derive(Clone)]
pub struct Content {
    /// What bytes there are.
    pub library: Library,
    /// What they are for.
    pub packages: Packages,
}

/// Why a site could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// Another process works on the folder.
    #[error("{folder:?} is in use by {holder}: talk to it with --url, or stop it first")]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The process, as it describes itself.
        holder: String,
    },
    /// Somebody else's folder, probably named by mistake.
    #[error(
        "{folder:?} is no data folder, but holds other files: check the path, or name a new or an \
         empty folder to make a site in"
    )]
    NotADataFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A distribution point's folder.
    #[error(
        "{folder:?} is the folder of a distribution point, not of a site: serve it with `depot dp \
         serve --data`, and ask its site what it holds with `depot content-status`"
    )]
    OfAPoint {
        /// The folder.
        folder: PathBuf,
    },
    /// A backup was being put back into it, and is not whole.
    #[error(
        "in {folder:?} is half of a site: restoring it from {backup} was begun and not ended. End it \
         with the same `depot backup restore`"
    )]
    HalfRestored {
        /// The folder.
        folder: PathBuf,
        /// Which backup.
        backup: String,
    },
    /// The file system failed.
    #[error("cannot use {path:?} as a data folder: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Site {
    /// Takes the data folder that `config` names; makes it if there is none, or if it is empty.
    /// `what` tells others what this process does with it.
    pub fn open(config: Config, what: &str) -> Result<Self, SiteError> {
        let folder = &config.data;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SiteError::Io { path, source }
        };
        make_folder(folder).map_err(failed(folder))?;
        // It has a library, too.
        if folder.join("point.json").exists() {
            return Err(SiteError::OfAPoint { folder: folder.clone() });
        }
        if let Some(begun) = restore::begun(folder).map_err(failed(folder))? {
            let (folder, backup) = (folder.clone(), begun.backup);
            return Err(SiteError::HalfRestored { folder, backup });
        }
        if !takes_a_site(folder).map_err(failed(folder))? {
            return Err(SiteError::NotADataFolder { folder: folder.clone() });
        }
        let path = folder.join("lock");
        let lock = DataLock::take(&path, what).map_err(|error| match error {
            NotLocked::Held(holder) => SiteError::InUse { folder: folder.clone(), holder },
            NotLocked::Io(source) => SiteError::Io { path, source },
        })?;
        Ok(Self::of(config, Kind::Site, Some(lock)))
    }

    /// What the folder of the distribution point that `config` names has of a site's: its library.
    /// Of a point that runs in this process, `packages` are what it has open; of another, its library is
    /// opened when it is needed, and must be open nowhere else.
    pub fn of_point(config: Config, packages: Option<Packages>) -> Self {
        let kind = if packages.is_some() { Kind::RunningPoint } else { Kind::StoppedPoint };
        let site = Self::of(config, kind, None);
        *site.0.content.lock() =
            packages.map(|packages| Content { library: packages.library().clone(), packages });
        site
    }

    fn of(config: Config, kind: Kind, lock: Option<DataLock>) -> Self {
        Self(Arc::new(Inner {
            limiter: Limiter::new(config.api.rate),
            places: Places::default(),
            deployed: Deployed::new(config.data.join("cache/deployments")),
            config,
            ledger: Mutex::default(),
            content: Mutex::default(),
            authority: Mutex::default(),
            updates: Mutex::default(),
            fleet: Mutex::default(),
            shards: Mutex::default(),
            parent: Mutex::default(),
            upstream: Mutex::default(),
            address: OnceLock::new(),
            tenure: OnceLock::new(),
            several: OnceLock::new(),
            opened: Timestamp::now(),
            kind,
            _lock: lock,
        }))
    }

    /// Whether it is the library of a distribution point, and nothing else.
    pub(crate) fn is_of_point(&self) -> bool {
        self.0.kind != Kind::Site
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        &self.0.config.data
    }

    /// Where the first token lies.
    pub fn token_file(&self) -> PathBuf {
        self.folder().join("admin.token")
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    /// Whether there is a token of that id. Does not open the database for it.
    pub(crate) fn knows_token(&self, id: &str) -> bool {
        self.0.ledger.lock().as_ref().is_some_and(|ledger| ledger.tokens.knows(id))
    }

    /// The parts in the database, opened if they are not yet. The first time ever, the first token
    /// is made.
    pub fn ledger(&self) -> Result<Arc<Ledger>, Problem> {
        let mut slot = self.0.ledger.lock();
        if let Some(ledger) = &*slot {
            return Ok(Arc::clone(ledger));
        }
        let opened = match self.0.kind {
            Kind::Site => database::open(self.config())?,
            Kind::StoppedPoint | Kind::RunningPoint => (Db::in_memory(), None),
        };
        self.open_ledger(&mut slot, opened)
    }

    /// Opens the parts in the database for one of several servers, which the others reach at `address`.
    /// Answers whether it leads: another may.
    pub(crate) fn try_to_lead(&self, address: &str) -> Result<bool, Problem> {
        let mut slot = self.0.ledger.lock();
        let Some((db, tenure)) = database::open_if_free(self.config(), address)? else {
            return Ok(false);
        };
        // An empty folder gets the keys of the site before anything asks for them.
        if let Some(several) = self.0.several.get() {
            sealed::unseal(&db, &several.key, self.folder())?;
            // What was read of it before may be what another server left.
            *self.0.parent.lock() = None;
        }
        self.open_ledger(&mut slot, (db, tenure))?;
        Ok(true)
    }

    fn open_ledger(
        &self,
        slot: &mut Option<Arc<Ledger>>,
        (db, tenure): database::Taken,
    ) -> Result<Arc<Ledger>, Problem> {
        if let (Some(tenure), Some(_)) = (tenure, self.0.several.get()) {
            let _ = self.0.tenure.set(tenure);
        } else if self.0.kind == Kind::Site
            && !self.folder().join("keys/site.ed25519").exists()
            && sealed::is_sealed(&db)?
        {
            let detail = "this site has several servers, and its keys are in its database, sealed: give \
                this one the cluster key with --cluster-key (server.cluster_key_file)";
            return Err(Problem::new(problem::Kind::Conflict, detail));
        }
        if self.0.kind == Kind::Site {
            settle::settle(&db)?;
        }
        let tokens = Tokens::open(db.clone())?;
        // Of a point, only who may open its folder or its socket asks anything.
        if tokens.is_empty() && self.0.kind == Kind::Site {
            let file = self.token_file();
            tokens.create_after(FIRST_TOKEN_NAME, Role::Admin, "first start", None, |text| {
                write_secret(&file, format!("{text}\n").as_bytes()).map_err(|source| {
                    Problem::internal(&SiteError::Io { path: file.clone(), source })
                })
            })?;
        }
        let audit = Audit::new(db.clone());
        let jobs = &self.config().jobs;
        let limits = Limits {
            concurrent: jobs.concurrent as usize,
            queue: jobs.queue as usize,
            keep: jobs.keep as usize,
        };
        let log = audit.clone();
        let on_end = move |job: &Job, by: &Identity| record_end(&log, job, by);
        let jobs = Jobs::open(db.clone(), limits, Box::new(on_end))?;
        let answers = Answers::new(db.clone());
        let registry = Registry::open(db.clone())?;
        let ledger = Arc::new(Ledger { db, tokens, audit, answers, jobs, registry });
        *slot = Some(Arc::clone(&ledger));
        Ok(ledger)
    }

    /// What makes this server one of several.
    pub(crate) fn several(&self) -> Option<&Arc<Several>> {
        self.0.several.get()
    }

    /// Says that this server is one of several.
    pub(crate) fn is_one_of(&self, several: Arc<Several>) {
        let _ = self.0.several.set(several);
    }

    /// For how long this server surely leads, if it is one of several.
    pub(crate) fn tenure(&self) -> Option<&Tenure> {
        self.0.tenure.get()
    }

    /// When this process took the folder.
    pub(crate) fn opened(&self) -> Timestamp {
        self.0.opened
    }

    /// The parts in the content library, opened if they are not yet.
    pub fn content(&self) -> Result<Content, Problem> {
        let mut slot = self.0.content.lock();
        if let Some(content) = &*slot {
            return Ok(content.clone());
        }
        if self.is_of_point() {
            let clock = Arc::new(jiff::Timestamp::now);
            let options = self.config().library_options();
            let packages = node::open_copies(self.folder(), options, clock)?;
            let content = Content { library: packages.library().clone(), packages };
            *slot = Some(content.clone());
            return Ok(content);
        }
        let mut options = self.config().library_options();
        options.objects.term = self.0.tenure.get().cloned().map(|tenure| Term {
            grantor: tenure.database().to_owned(),
            number: tenure.number(),
            until: Arc::new(move || tenure.until()),
        });
        let library = Library::open(&self.library_folder(), options)?;
        let key = self.key_file();
        // Made anew it would be one that no client trusts, and the loss would show at theirs first.
        // One that only cannot be looked at is not missing.
        if key.try_exists().is_ok_and(|is_there| !is_there)
            && is_signed(&library).map_err(PackageError::from)?
        {
            let detail = format!(
                "{key:?} is missing, and versions are signed with it: put the site's key back from \
                 a backup; if there is none, `depot --data DIR site new-key` makes another, which \
                 clients must be told to trust"
            );
            return Err(Problem::new(problem::Kind::Unavailable, detail));
        }
        let key = open_key(&key)?;
        let cache = self.folder().join("cache");
        let clock = Arc::new(jiff::Timestamp::now);
        let packages = Packages::open(library.clone(), key, cache, clock)?
            .with_gc_grace(self.config().library.gc_grace)
            .with_upload_expiry(self.config().upload.expire);
        let content = Content { library, packages };
        *slot = Some(content.clone());
        Ok(content)
    }

    /// What vouches for the site and its points; made the first time it is asked for.
    pub fn authority(&self) -> Result<Arc<Authority>, Problem> {
        let mut slot = self.0.authority.lock();
        if let Some(authority) = &*slot {
            return Ok(Arc::clone(authority));
        }
        let keys = self.folder().join("keys");
        make_folder(&keys).map_err(|error| Problem::internal(&error))?;
        let files = ["authority.key", "authority.pem"].map(|name| keys.join(name));
        // Made anew it would be one that no point trusts, and the loss would show at theirs first.
        if files.iter().all(|file| file.try_exists().is_ok_and(|is_there| !is_there)) {
            let n_points = self.ledger()?.registry.points().len();
            if n_points > 0 {
                let [key, certificate] = &files;
                let detail = format!(
                    "{key:?} and {certificate:?} are missing, by which {n_points} distribution \
                     points know this site: put them back from a backup; if there is none, remove \
                     each point with `depot --data DIR dp remove NAME`, and let it join anew"
                );
                return Err(Problem::new(problem::Kind::Unavailable, detail));
            }
        }
        let authority = Arc::new(Authority::open(&keys, jiff::Timestamp::now())?);
        *slot = Some(Arc::clone(&authority));
        Ok(authority)
    }

    /// The updates of the site: their sources, their sync, their catalogue. Opened the first time they are
    /// asked for, as the catalogue is read whole.
    pub fn updates(&self) -> Result<Machine, Problem> {
        let mut slot = self.0.updates.lock();
        if let Some(machine) = &*slot {
            return Ok(machine.clone());
        }
        let (db, folder) = (self.ledger()?.db.clone(), self.folder().join("cache/sync"));
        let settings = self.config().sync_settings();
        let parts = Parts { adapters: self.adapters(), ..Parts::default() };
        let machine = Machine::open(db, folder, settings, parts)?;
        let patience = self.config().sync.point_timeout;
        machine.set_notify(Arc::new(Telling::new(self.ledger()?, patience)));
        machine.set_deployments(self.fleet()?);
        *slot = Some(machine.clone());
        Ok(machine)
    }

    /// The clients of the site, and what they report. Opened the first time they are asked for, as the
    /// matrix is read whole.
    pub fn fleet(&self) -> Result<Arc<Fleet>, Problem> {
        let mut slot = self.0.fleet.lock();
        if let Some(fleet) = &*slot {
            return Ok(Arc::clone(fleet));
        }
        let fleet = Arc::new(Fleet::open(&self.ledger()?.db)?);
        *slot = Some(Arc::clone(&fleet));
        Ok(fleet)
    }

    /// What is deployed, as clients are told it.
    pub fn deployed(&self) -> &Deployed {
        &self.0.deployed
    }

    /// What clients scan by.
    pub fn shards(&self) -> Result<Arc<Shards>, Problem> {
        let mut slot = self.0.shards.lock();
        if let Some(shards) = &*slot {
            return Ok(Arc::clone(shards));
        }
        let shards = Arc::new(Shards::open(self.folder())?);
        *slot = Some(Arc::clone(&shards));
        Ok(shards)
    }

    /// What reads sources: that of the parent reads whom this site follows at that moment.
    fn adapters(&self) -> Adapters {
        // Not the site itself, which has the machine.
        let folder = self.parent_folder();
        let known = Arc::downgrade(&self.0);
        Arc::new(move |source: &Source| match source.kind {
            SourceKind::Parent => {
                let parent = match known.upgrade() {
                    Some(inner) => Site(inner).parent(),
                    None => Parent::load(&folder).map(|parent| parent.map(Arc::new)),
                };
                let parent = parent.map_err(|problem| {
                    SyncError::because(Cause::Local, "the parent site is not known", problem)
                })?;
                match parent {
                    Some(parent) => Ok(Box::new(Following::new(Arc::new(RemoteFeed(parent))))),
                    None => source.kind.adapter(),
                }
            }
            _ => source.kind.adapter(),
        })
    }

    /// Where it is kept whom this site follows.
    pub(crate) fn parent_folder(&self) -> PathBuf {
        self.folder().join("keys/parent")
    }

    /// Whom this site follows, if it has a parent or is an update point.
    pub fn parent(&self) -> Result<Option<Arc<Parent>>, Problem> {
        let mut slot = self.0.parent.lock();
        if let Some(parent) = &*slot {
            return Ok(parent.clone());
        }
        let parent = Parent::load(&self.parent_folder())?.map(Arc::new);
        *slot = Some(parent.clone());
        Ok(parent)
    }

    /// Says whom this site follows from now on.
    pub(crate) fn set_parent(&self, parent: Option<Parent>) {
        *self.0.parent.lock() = Some(parent.map(Arc::new));
    }

    /// What answers other servers of updates; opened the first time one asks.
    pub(crate) fn upstream(&self) -> Result<Upstream, Problem> {
        let mut slot = self.0.upstream.lock();
        if let Some(upstream) = &*slot {
            return Ok(upstream.clone());
        }
        let keys = self.folder().join("keys");
        make_folder(&keys).map_err(|error| Problem::internal(&error))?;
        let upstream = Upstream::open(self, &keys)?;
        *slot = Some(upstream.clone());
        Ok(upstream)
    }

    /// Interrupts the syncs under way, and begins no more.
    pub(crate) fn stop_syncs(&self) {
        if let Some(machine) = &*self.0.updates.lock() {
            machine.stop();
        }
        if let Some(shards) = &*self.0.shards.lock() {
            shards.stop();
        }
    }

    /// Where the site listens, or would.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address.get().copied().unwrap_or(self.config().listen)
    }

    /// Says where the site listens: another port than the settings say if they leave it open.
    pub(crate) fn listens_on(&self, address: SocketAddr) {
        let _ = self.0.address.set(address);
    }

    /// Makes a signing key where the site has none any more, and says what it is checked with.
    pub(crate) fn new_key(&self) -> Result<PublicKey, Problem> {
        let file = self.key_file();
        if file.exists() {
            let detail = format!("{file:?} is there: to sign with another key, move it away first");
            return Err(Problem::new(problem::Kind::Conflict, detail));
        }
        open_key(&file)?;
        // An open library may still sign with the old one.
        self.close_content()?;
        Ok(self.content()?.packages.public_key())
    }

    /// What versions are signed with.
    fn key_file(&self) -> PathBuf {
        self.folder().join("keys/site.ed25519")
    }

    /// The folder of the content library.
    pub fn library_folder(&self) -> PathBuf {
        self.folder().join("library")
    }

    /// Lets go of the content library, so that it can be rebuilt; refuses while others use it.
    pub(crate) fn close_content(&self) -> Result<(), Problem> {
        if self.0.kind == Kind::RunningPoint {
            let detail =
                "the distribution point uses its library: stop it, do this, and start it again";
            return Err(Problem::new(problem::Kind::Conflict, detail));
        }
        if let Some(content) = self.0.content.lock().take() {
            content.library.close()?;
        }
        Ok(())
    }

    /// Ends all jobs, then makes everything durable. The site must not be used afterwards.
    pub async fn close(&self) -> Result<(), Problem> {
        // Before the jobs that wait for syncs: an interrupted one begins again, a cancelled one does not.
        let updates = self.0.updates.lock().take();
        if let Some(machine) = updates {
            machine.close().await;
        }
        let fleet = self.0.fleet.lock().take();
        if let Some(fleet) = fleet {
            fleet.close();
            blocking(move || Ok(fleet.states.checkpoint().map(drop)?)).await?;
        }
        let ledger = self.0.ledger.lock().clone();
        if let Some(ledger) = ledger {
            ledger.registry.close();
            ledger.jobs.close().await;
        }
        // That of a point that runs is not ours.
        if self.0.kind != Kind::RunningPoint {
            let site = self.clone();
            blocking(move || site.close_content()).await?;
        }
        *self.0.ledger.lock() = None;
        Ok(())
    }
}

/// Runs `work`, which may block, away from the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let span = tracing::Span::current();
    let run = tokio::task::spawn_blocking(move || span.in_scope(work));
    run.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
}

fn record_end(audit: &Audit, job: &Job, by: &Identity) {
    let status = match job.state {
        JobState::Done => 200,
        _ => job.problem.as_ref().map_or(500, |problem| problem.status),
    };
    let mut record = AuditRecord::new(by, &job.kind, &job.subject, status);
    let outcome = job.problem.as_ref().map_or("done".to_owned(), ToString::to_string);
    record.detail = Some(format!("job {}: {outcome}", job.id));
    if let Err(error) = audit.write(&record) {
        tracing::error!(%error, job = %job.id, "the end of a job was not audited");
    }
}

/// Whether a site is in `folder`, or may be made there.
///
/// A mistyped path must not become a site: what it was to show would seem lost.
fn takes_a_site(folder: &Path) -> io::Result<bool> {
    // Of a site that lost something, or that shares its folder, one of these is left.
    let marks =
        ["library/packs", "site/CURRENT", "database.json", "keys/site.ed25519", "admin.token"];
    if marks.iter().any(|mark| folder.join(mark).exists()) {
        return Ok(true);
    }
    // A site that was cut off while it was made has some of its own, and a new ext4 volume the last.
    let own =
        ["lock", "library", "site", "cache", "keys", "admin.part", "database.part", "lost+found"];
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !own.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The signing key in `file`; if there is none, a new one.
fn open_key(file: &Path) -> Result<SiteKey, Problem> {
    if let Some(folder) = file.parent() {
        make_folder(folder).map_err(|error| Problem::internal(&error))?;
    }
    SiteKey::open(file)
        .map_err(|error| Problem::new(problem::Kind::Unavailable, with_causes(&error)))
}

/// Makes a folder that only its owner may enter, and those above it as usual.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        other => other,
    }
}

/// Writes a file that only its owner may read; whole or not at all.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
