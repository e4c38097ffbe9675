//! Whom this site follows: its parent, or the site whose update point it is.
//!
//! ```text
//! DIR/keys/parent/identity.pem   the key, the certificate by the parent's authority, and the authority's
//! DIR/keys/parent/parent.json    who this is to the parent, and where the parent is
//! DIR/keys/parent/next/          the same while it joins
//! ```
//!
//! Always true: a folder that joined needs no token any more; a token that was used is not used again.

use crate::problem::{Kind, Problem, with_causes};
use crate::site::{Site, blocking};
use dp::field::{FollowerId, FollowerKind, JoinRequest, JoinToken};
use dp::identity::{Identity, Peer, Request};
use dp::node::{Link, LinkError, join_at};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync::hierarchy::Above;
use sync::name::SourceName;
use sync::source::{SiteSettings, Source, SourceError, SourceKind};

/// The version of `parent.json` that this code reads and writes.
const FORMAT: u32 = 1;
/// The longest `parent.json`, in bytes.
const MAX_FILE: u64 = 1 << 20;
const FILE: &str = "parent.json";
/// What the source is called that the parent is.
const SOURCE: &str = "parent";
/// The parent is asked at least so often, in minutes, in case that a request was missed; each follower at
/// times of its own.
const CATCH_UP: std::ops::Range<u32> = 180..300;

/// Another update point to read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// Who it is.
    pub id: FollowerId,
    /// `https://HOST:PORT`.
    pub address: String,
}

/// What joining settled, as `parent.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    format: u32,
    id: FollowerId,
    name: String,
    kind: FollowerKind,
    sites: Vec<String>,
    /// SHA-256 of the secret that it joined with.
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    peers: Vec<FollowerId>,
}

/// What a machine sends that wants to follow.
pub const JOIN_PATH: &str = "api/v1/follower/join";

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FollowerAnswer {
    /// Who it is from now on.
    pub id: FollowerId,
    /// What people call it.
    pub name: String,
    /// What it is.
    pub kind: FollowerKind,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The authority of the parent, in PEM.
    pub authority: String,
    /// Where the parent is reached.
    pub sites: Vec<String>,
}

/// How a folder is to join.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// Where the parent is reached, before the addresses that the token tells.
    pub parent: Option<String>,
    /// The token, the first time.
    pub token: Option<JoinToken>,
    /// As another update point of the site, and not as a child site.
    pub sup: bool,
}

/// Whom this site follows.
pub struct Parent {
    folder: PathBuf,
    settled: Mutex<Settled>,
    identity: RwLock<Arc<Identity>>,
    link: RwLock<Arc<Link>>,
}

impl Parent {
    /// The one that `folder` tells of, if it does.
    pub fn load(folder: &Path) -> Result<Option<Self>, Problem> {
        let path = folder.join(FILE);
        let mut text = String::new();
        match fs::File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(format!("cannot read {path:?}: {error}"))),
        }
        let settled: Settled = serde_json::from_str(&text).map_err(|error| {
            unusable(format!("{path:?} does not say who the parent is: {error}"))
        })?;
        if settled.format != FORMAT {
            let format = settled.format;
            return Err(unusable(format!(
                "{path:?} has format {format}, which this program does not know"
            )));
        }
        let identity = Identity::load(folder)?;
        let identity = identity.filter(|it| *it.peer() == Peer::Follower(settled.id.clone()));
        let identity = identity.ok_or_else(|| {
            let detail = format!(
                "the key that {path:?} tells of is not there: put it back from a backup, or join anew with \
                 --join"
            );
            unusable(detail)
        })?;
        let link = link(&identity, &settled.sites)?;
        Ok(Some(Self {
            folder: folder.to_owned(),
            settled: Mutex::new(settled),
            identity: RwLock::new(Arc::new(identity)),
            link: RwLock::new(Arc::new(link)),
        }))
    }

    /// Who this site is to it.
    pub fn id(&self) -> FollowerId {
        self.settled.lock().id.clone()
    }

    /// What it calls this site.
    pub fn name(&self) -> String {
        self.settled.lock().name.clone()
    }

    /// What this site is below it.
    pub fn kind(&self) -> FollowerKind {
        self.settled.lock().kind
    }

    /// Whether this is an update point of it, and no site of its own.
    pub fn is_of_update_point(&self) -> bool {
        self.kind() == FollowerKind::UpdatePoint
    }

    /// Where it is reached.
    pub fn sites(&self) -> Vec<String> {
        self.settled.lock().sites.clone()
    }

    /// The update point that is read from in its place.
    pub fn via(&self) -> Option<Via> {
        self.settled.lock().via.clone()
    }

    /// Whether that is another update point of the same site.
    pub fn is_peer(&self, id: &FollowerId) -> bool {
        self.settled.lock().peers.contains(id)
    }

    /// The source that it is.
    pub fn source() -> SourceName {
        SOURCE.parse().expect("it is a name")
    }

    /// The way to it.
    pub fn link(&self) -> Arc<Link> {
        self.link.read().clone()
    }

    /// Who this site is, by its authority.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().clone()
    }

    /// Where the feed is read.
    pub fn feed(&self) -> Result<Arc<Link>, LinkError> {
        match self.via() {
            None => Ok(self.link()),
            Some(Via { id, address }) => {
                let identity = self.identity();
                Link::to(&Peer::Follower(id), &identity, &[address], &clock()).map(Arc::new)
            }
        }
    }

    /// Takes note of where to read, and who may read here.
    pub fn direct(&self, via: Option<Via>, peers: Vec<FollowerId>) -> Result<(), Problem> {
        let mut settled = self.settled.lock();
        let changed = Settled { via, peers, ..settled.clone() };
        if changed != *settled {
            write(&self.folder, &changed)?;
            *settled = changed;
        }
        Ok(())
    }

    /// Gets a new certificate if it is time; whether it did.
    pub async fn renew(&self) -> Result<bool, Problem> {
        if Timestamp::now() < self.identity().renew_at() {
            return Ok(false);
        }
        let request = Identity::request()?;
        let link = self.link();
        let certificate = link.renew_at("api/v1/follower/renew", request.pem()).await;
        let certificate = certificate.map_err(|error| refused(&error))?;
        let authority = self.identity().authority().clone();
        let identity = request.answered(&certificate, &authority)?;
        identity.store(&self.folder)?;
        let sites = self.sites();
        *self.link.write() = Arc::new(self::link(&identity, &sites)?);
        *self.identity.write() = Arc::new(identity);
        Ok(true)
    }

    fn moved_to(&self, address: &str) -> Result<(), Problem> {
        let mut settled = self.settled.lock();
        if settled.sites.first().is_none_or(|first| first != address) {
            let mut changed = settled.clone();
            changed.sites.retain(|site| site != address);
            changed.sites.insert(0, address.to_owned());
            *self.link.write() = Arc::new(link(&self.identity(), &changed.sites)?);
            write(&self.folder, &changed)?;
            *settled = changed;
        }
        Ok(())
    }
}

/// Joins as `joining` says, or goes on with what the folder tells.
pub async fn join(site: &Site, joining: Joining) -> Result<(), Problem> {
    let Joining { parent, token, sup } = joining;
    let opening = site.clone();
    let joined = blocking(move || {
        // One that lost its key may join anew.
        opening.parent()
    });
    let joined = match (joined.await, &token) {
        (Ok(joined), _) => joined,
        (Err(problem), None) => return Err(problem),
        (Err(_), Some(_)) => None,
    };
    let used = token.as_ref().map(|token| secret_hash(&token.secret));
    let is_joined = joined
        .as_ref()
        .is_some_and(|it| used.as_ref().is_none_or(|used| it.settled.lock().token == *used));
    if is_joined {
        let joined = joined.expect("it is joined");
        if sup && joined.kind() != FollowerKind::UpdatePoint {
            let kind = joined.kind();
            let detail =
                format!("this folder is that of a {kind} site: --sup is for an update point's");
            return Err(Problem::new(Kind::Conflict, detail));
        }
        if let Some(address) = parent {
            joined.moved_to(&address)?;
        }
        let site = site.clone();
        return blocking(move || has_source(&site, None)).await;
    }
    let Some(mut token) = token else {
        if parent.is_none() && !sup {
            return Ok(());
        }
        let detail = "to follow a site, name the token that its administrator made: --join TOKEN";
        return Err(Problem::new(Kind::InvalidValue, detail));
    };
    if let Some(address) = parent {
        token.sites.retain(|site| *site != address);
        token.sites.insert(0, address);
    }
    let checking = site.clone();
    let children = blocking(move || may_join(&checking, sup)).await?;
    let folder = site.parent_folder();
    let next = folder.join("next");
    let request = Request::kept_in(&next)?;
    let secret = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = JoinRequest { secret, request: request.pem().to_owned() };
    let role = match (sup, children.as_slice()) {
        (true, _) => "update-point",
        (false, []) => "site",
        // A token for a secondary site is refused then, and stays good.
        (false, _) => "primary",
    };
    let path = format!("{JOIN_PATH}?as={role}");
    let answer: FollowerAnswer =
        join_at(&path, &token, &asked, &clock()).await.map_err(|error| {
            let problem = refused(&error);
            match children.as_slice() {
                [] => problem,
                _ => Problem {
                    detail: format!(
                        "{}; child sites here: {}",
                        problem.detail,
                        children.join(", ")
                    ),
                    ..problem
                },
            }
        })?;
    let FollowerAnswer { id, name, kind, certificate, authority, sites } = answer;
    let peer = Peer::Follower(id.clone());
    let identity = request.joined_as(&peer, &certificate, &authority, &token)?;
    let mut all = token.sites.clone();
    all.extend(sites.into_iter().filter(|site| !token.sites.contains(site)));
    let settled = Settled {
        format: FORMAT,
        id,
        name,
        kind,
        sites: all,
        token: secret_hash(&token.secret),
        via: None,
        peers: Vec::new(),
    };
    let site = site.clone();
    blocking(move || {
        let top = settled.sites.first().cloned().unwrap_or_default();
        // The key last: without it the folder joins anew, with the key that is kept.
        write(&folder, &settled)?;
        identity.store(&folder)?;
        Request::forget_in(&next)?;
        site.set_parent(Parent::load(&folder)?);
        has_source(&site, Some(top))
    })
    .await
}

/// Refuses to make a site a child that has what no child may have; the child sites that it has itself.
fn may_join(site: &Site, sup: bool) -> Result<Vec<String>, Problem> {
    let machine = site.updates()?;
    let taken = machine.sources().get(&Parent::source());
    if taken.is_ok_and(|source| source.kind != SourceKind::Parent) {
        let detail = "this site has a source of updates called `parent`, which is what the parent is called: \
            remove it first";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let followers = site.ledger()?.registry.followers();
    if let Some(first) = followers.first().filter(|_| sup) {
        let detail = format!(
            "{} follows this site, so it cannot be an update point: remove it first",
            first.name
        );
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let sites = followers.iter().filter(|it| it.kind.is_site());
    Ok(sites.map(|it| it.name.to_string()).collect())
}

/// Sees to it that the parent is a source of updates; the first time, that criteria are its own business.
fn has_source(site: &Site, joined_at: Option<String>) -> Result<(), Problem> {
    let machine = site.updates()?;
    let sources = machine.sources();
    if let Some(top) = joined_at {
        let settings = sources.site()?;
        let top = settings.top.unwrap_or(top);
        let SiteSettings { criteria, policy, clients, .. } = settings;
        sources.take_over(Some(Above { top, criteria, policy, clients }))?;
    }
    match sources.get(&Parent::source()) {
        Ok(_) => return Ok(()),
        Err(SourceError::Unknown(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut source = Source::new(Parent::source(), SourceKind::Parent, Timestamp::now());
    source.priority = 100;
    let minutes = rand::random_range(CATCH_UP);
    source.schedule = format!("every {minutes} minutes").parse().ok();
    sources.add(&source)?;
    Ok(machine.was_changed()?)
}

fn clock() -> packager::Clock {
    Arc::new(Timestamp::now)
}

fn link(identity: &Identity, sites: &[String]) -> Result<Link, Problem> {
    Link::new(identity, sites, &clock()).map_err(|error| refused(&error))
}

fn secret_hash(secret: &[u8; 16]) -> String {
    let hash = sha2::Sha256::digest(secret);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(folder: &Path, settled: &Settled) -> Result<(), Problem> {
    let path = folder.join(FILE);
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(settled)?)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error: io::Error| unusable(format!("cannot write {path:?}: {error}")))
}

fn unusable(detail: String) -> Problem {
    Problem::new(Kind::Unavailable, detail)
}

/// What a parent that was asked in vain is to who asked.
fn refused(error: &LinkError) -> Problem {
    let kind = match error {
        LinkError::NotLetIn(_) => Kind::Forbidden,
        LinkError::Refused { status: 409, .. } => Kind::Conflict,
        _ => Kind::Upstream,
    };
    Problem::new(kind, with_causes(error))
}
