//! A point's own folder.
//!
//! ```text
//! DIR/library      content: packs and index
//! DIR/cache        may be deleted
//! DIR/keys         the point's key and certificate; mode 0600
//! DIR/keys/next    the same for the one that it is about to become
//! DIR/point.json   who the point is, and where its site is
//! DIR/scrub.json   how far the scrub is; may be deleted
//! DIR/orders.json  what came of the site's orders; may be deleted
//! DIR/control.sock what commands on this machine ask the running point at
//! ```

use super::link::{self, Link, LinkError};
use super::tasks::chain;
use super::{NodeError, blocking};
use crate::field::{JoinRequest, JoinToken, PointId};
use crate::identity::{Distrust, Identity, Peer, Request};
use packager::Clock;
use packager::sign::PublicKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of `point.json` that this code reads and writes.
const FORMAT: u32 = 1;
/// The longest `point.json`, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How long the site has to say whether it knows a point that is started with a token: nobody is served
/// before.
const ASKED: Duration = Duration::from_secs(60);

/// What joining settled, as `point.json` has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settled {
    format: u32,
    id: PointId,
    name: String,
    /// What versions are signed with.
    key: PublicKey,
    sites: Vec<String>,
}

/// The folder of a point that has joined.
pub(super) struct Home {
    folder: PathBuf,
    settled: Settled,
    identity: Identity,
    /// It joined just now.
    is_new: bool,
}

impl Home {
    /// Opens `folder`; joins with `token` if it is new.
    pub async fn open(
        folder: PathBuf,
        token: Option<&JoinToken>,
        clock: &Clock,
    ) -> Result<Self, NodeError> {
        let found = {
            let folder = folder.clone();
            blocking(move || load(&folder)).await?
        };
        let is_new = found.is_none();
        let (settled, identity) = match (found, token) {
            (Some(found), Some(token)) if found.1.authority().fingerprint() != token.authority => {
                return Err(NodeError::OtherSite(folder));
            }
            (Some(found), _) => found,
            (None, None) => return Err(NodeError::NotJoined(folder)),
            (None, Some(token)) => join(&folder, token, clock).await?,
        };
        Ok(Self { folder, settled, identity, is_new })
    }

    /// What becomes of a point that is started with a `token` of its own site: if it has not joined
    /// just now, and the site does not know it any more or its certificate has ended, it joins anew, as
    /// another point with the same content. Whatever else keeps it from that, it stays what it was:
    /// what it holds it serves all the same.
    ///
    /// To be called while the library is open: no other process is this point meanwhile.
    pub async fn with_token(self, token: &JoinToken, clock: &Clock) -> Self {
        if self.is_new {
            return self;
        }
        let name = self.settled.name.clone();
        let why = match self.why_anew(token, clock).await {
            Ok(Some(why)) => why,
            Ok(None) => {
                tracing::warn!(
                    name,
                    "the token is not used: this folder has joined already, and its site knows it"
                );
                return self;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    name,
                    error,
                    "the token is not used: the site cannot be asked whether it still knows this \
                     point; to join anew, start again once it is reached"
                );
                return self;
            }
        };
        tracing::warn!(name, why, "the point joins anew");
        match rejoin(&self.folder, &self.settled, token, clock).await {
            Ok((settled, identity)) => {
                let (before, id) = (&self.settled.id, &settled.id);
                tracing::warn!(
                    name = settled.name,
                    %id,
                    %before,
                    "the point has joined anew; what it holds is kept for a day at least: distribute \
                     to it what it should hold"
                );
                Self { settled, identity, ..self }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(
                    name,
                    error,
                    "the point has not joined anew, and stays what it was"
                );
                self
            }
        }
    }

    /// Why the point has to join anew, if it has to; an error if that cannot be told.
    async fn why_anew(
        &self,
        token: &JoinToken,
        clock: &Clock,
    ) -> Result<Option<String>, LinkError> {
        // The token is newer, and may tell where the site is now.
        let mut sites = token.sites.clone();
        sites.extend(self.settled.sites.iter().filter(|site| !token.sites.contains(site)).cloned());
        let link = Link::new(&self.identity, &sites, clock)?;
        let asked = tokio::time::timeout(ASKED, link.is_known()).await;
        match asked.unwrap_or(Err(LinkError::Late)) {
            Ok(()) => Ok(None),
            // Whether it has ended the site says first: it may be our clock that is wrong.
            Err(LinkError::NotLetIn(why)) => Ok(Some(why)),
            Err(LinkError::Distrust { source: source @ Distrust::Refused, .. }) => {
                Ok(Some(source.to_string()))
            }
            // The site's refusal may be lost with the connection.
            Err(LinkError::Unreachable { .. }) if self.identity.expires() <= clock() => {
                Ok(Some(format!("its certificate ended at {}", self.identity.expires())))
            }
            Err(error) => Err(error),
        }
    }

    pub fn id(&self) -> &PointId {
        &self.settled.id
    }

    pub fn name(&self) -> &str {
        &self.settled.name
    }

    pub fn sites(&self) -> &[String] {
        &self.settled.sites
    }

    pub fn site_key(&self) -> PublicKey {
        self.settled.key
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The identity that the point began with.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn library_folder(&self) -> PathBuf {
        library_folder(&self.folder)
    }

    pub fn cache_folder(&self) -> PathBuf {
        cache_folder(&self.folder)
    }

    pub fn scrub_file(&self) -> PathBuf {
        self.folder.join("scrub.json")
    }

    pub fn orders_file(&self) -> PathBuf {
        self.folder.join("orders.json")
    }

    pub fn keys_folder(&self) -> PathBuf {
        keys_folder(&self.folder)
    }
}

fn keys_folder(folder: &Path) -> PathBuf {
    folder.join("keys")
}

/// Where the keys are of the point that this one is about to become. `point.json` says which of the
/// two it is.
fn next_folder(folder: &Path) -> PathBuf {
    keys_folder(folder).join("next")
}

fn library_folder(folder: &Path) -> PathBuf {
    folder.join("library")
}

fn cache_folder(folder: &Path) -> PathBuf {
    folder.join("cache")
}

pub(super) fn point_file(folder: &Path) -> PathBuf {
    folder.join("point.json")
}

/// What an earlier joining left; nothing if there was none, or it did not come to its end.
fn load(folder: &Path) -> Result<Option<(Settled, Identity)>, NodeError> {
    let Some(settled) = settled(folder)? else { return Ok(None) };
    let is_its = |found: &Identity| *found.peer() == Peer::Point(settled.id.clone());
    if let Some(identity) = Identity::load(&keys_folder(folder))?.filter(is_its) {
        return Ok(Some((settled, identity)));
    }
    // Joining anew was cut off after it was settled.
    let next = Identity::load(&next_folder(folder))?.filter(is_its);
    let lost = || {
        let what = "the key that belongs to it is not there; join again in an empty folder";
        malformed(folder, what)
    };
    let identity = next.ok_or_else(lost)?;
    succeed(folder, &identity)?;
    Ok(Some((settled, identity)))
}

/// Puts the keys of the point that this one has become in the place of those that it had.
fn succeed(folder: &Path, identity: &Identity) -> Result<(), NodeError> {
    let (keys, next) = (keys_folder(folder), next_folder(folder));
    identity.store(&keys)?;
    Request::forget_in(&keys)?;
    match fs::remove_dir_all(&next) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NodeError::Io { path: next, source })
        }
        _ => Ok(()),
    }
}

fn settled(folder: &Path) -> Result<Option<Settled>, NodeError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let path = point_file(folder);
    let mut text = Vec::new();
    let read =
        fs::File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NodeError::Io { path, source }),
        Ok(n) if n as u64 > MAX_FILE => return Err(malformed(folder, "it is far too long")),
        Ok(_) => {}
    }
    // First, and by itself: the rest of a newer one may be anything.
    let format = serde_json::from_slice::<Format>(&text);
    if format.is_ok_and(|found| found.format > FORMAT) {
        let what = "a newer depot wrote it; install that, or a newer one";
        return Err(malformed(folder, what));
    }
    let settled: Settled =
        serde_json::from_slice(&text).map_err(|error| malformed(folder, &error.to_string()))?;
    if settled.sites.is_empty() {
        return Err(malformed(folder, "it names no address of its site; join again"));
    }
    Ok(Some(settled))
}

fn malformed(folder: &Path, what: &str) -> NodeError {
    let source = io::Error::new(io::ErrorKind::InvalidData, what);
    NodeError::Io { path: point_file(folder), source }
}

/// What the versions in the folder of a point are signed with, and its library and cache.
pub(super) fn copies_in(folder: &Path) -> Result<(PublicKey, PathBuf, PathBuf), NodeError> {
    let settled = settled(folder)?.ok_or_else(|| NodeError::NotJoined(folder.into()))?;
    Ok((settled.key, library_folder(folder), cache_folder(folder)))
}

/// Joins: the key is made here and stays here. A joining that was cut off is tried again with the
/// same key, so that a site that had answered already can answer again.
async fn join(
    folder: &Path,
    token: &JoinToken,
    clock: &Clock,
) -> Result<(Settled, Identity), NodeError> {
    let keys = keys_folder(folder);
    let request = {
        let (folder, keys) = (folder.to_owned(), keys.clone());
        blocking(move || {
            make_private(&folder)?;
            let takes = takes_a_point(&folder);
            if !takes.map_err(|source| NodeError::Io { path: folder.clone(), source })? {
                return Err(NodeError::Taken(folder));
            }
            make_private(&keys)?;
            Ok::<_, NodeError>(Request::kept_in(&keys)?)
        })
        .await?
    };
    let (settled, identity) = ask(request, token, clock).await?;
    let folder = folder.to_owned();
    blocking(move || {
        identity.store(&keys)?;
        // Last: with it, the folder has joined.
        settle(&folder, &settled)?;
        Request::forget_in(&keys)?;
        Ok((settled, identity))
    })
    .await
}

/// Joins again, in the folder of the point that `before` tells of: as another point, of the same site
/// and with the same content. Cut off anywhere, the folder is the one or the other.
async fn rejoin(
    folder: &Path,
    before: &Settled,
    token: &JoinToken,
    clock: &Clock,
) -> Result<(Settled, Identity), NodeError> {
    let keys = keys_folder(folder);
    let request = blocking(move || Request::kept_in(&keys)).await?;
    let (settled, identity) = ask(request, token, clock).await?;
    if settled.key != before.key {
        return Err(NodeError::OtherSite(folder.into()));
    }
    let folder = folder.to_owned();
    blocking(move || {
        let next = next_folder(&folder);
        make_private(&next)?;
        identity.store(&next)?;
        // From here on it is the other one.
        settle(&folder, &settled)?;
        if let Err(error) = succeed(&folder, &identity) {
            let error = chain(&error);
            tracing::warn!(error, "the keys are put in order at the next start");
        }
        Ok((settled, identity))
    })
    .await
}

/// Asks the site for the identity that `request` is of.
async fn ask(
    request: Request,
    token: &JoinToken,
    clock: &Clock,
) -> Result<(Settled, Identity), NodeError> {
    let secret = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = JoinRequest { secret, request: request.pem().to_owned() };
    let answer = link::join(token, &asked, clock).await?;
    let identity = request.joined(&answer, token)?;
    if answer.sites.is_empty() {
        return Err(LinkError::Malformed("the site's addresses").into());
    }
    let settled = Settled {
        format: FORMAT,
        id: answer.id,
        name: answer.name,
        key: answer.key,
        sites: answer.sites,
    };
    Ok((settled, identity))
}

/// Writes down who the point is.
fn settle(folder: &Path, settled: &Settled) -> Result<(), NodeError> {
    let path = point_file(folder);
    let text = serde_json::to_vec_pretty(settled).expect("it has string keys");
    write_whole(&path, &text).map_err(|source| NodeError::Io { path, source })
}

/// Whether a point may be made in `folder`: it is empty, but for what a joining that was cut off left.
/// A mistyped path must not become a point, and a site's folder least of all.
fn takes_a_point(folder: &Path) -> io::Result<bool> {
    let own = ["keys", "library", "cache", "point.part", "scrub.json", "orders.json", "lost+found"];
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !own.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(!keys_folder(folder).join("site.ed25519").exists())
}

/// Makes a folder that only its owner may enter.
fn make_private(folder: &Path) -> Result<(), NodeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| NodeError::Io { path: folder.into(), source })
}

/// Writes a file whole or not at all, durably.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Authority;
    use packager::sign::SiteKey;

    fn settled_as(id: &PointId, name: &str) -> Settled {
        let (key, sites) = (SiteKey::from_seed([1; 32]).public(), vec!["https://a:1".to_owned()]);
        Settled { format: FORMAT, id: id.clone(), name: name.into(), key, sites }
    }

    #[test]
    fn joining_anew_that_was_cut_off_leaves_the_one_or_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (keys, next) = (keys_folder(folder), next_folder(folder));
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let authority = Authority::open(&folder.join("authority"), now).unwrap();
        let signed = |request: Request, id: &PointId| {
            let certificate = authority.sign(request.pem(), id, now).unwrap();
            request.answered(&certificate, authority.anchor()).unwrap()
        };
        let (old, new) = (PointId::from_random(1), PointId::from_random(2));
        make_private(&keys).unwrap();
        signed(Request::new().unwrap(), &old).store(&keys).unwrap();
        settle(folder, &settled_as(&old, "old")).unwrap();
        let is = |id: &PointId, name: &str| {
            let (settled, identity) = load(folder).unwrap().unwrap();
            assert_eq!((&settled.id, settled.name.as_str()), (id, name));
            assert_eq!(*identity.peer(), Peer::Point(id.clone()));
        };

        // Killed before it was settled: the same key asks again.
        let asked = Request::kept_in(&keys).unwrap();
        signed(asked, &new).store(&next).unwrap();
        is(&old, "old");
        assert!(keys.join("pending.key").exists());
        // Killed after it, before the keys were moved; and again after they were.
        settle(folder, &settled_as(&new, "new")).unwrap();
        is(&new, "new");
        assert!(!next.exists() && !keys.join("pending.key").exists());
        is(&new, "new");
        // The keys of neither.
        settle(folder, &settled_as(&old, "old")).unwrap();
        assert!(load(folder).err().unwrap().to_string().contains("point.json"));
    }

    /// What is said of a folder whose `point.json` is this.
    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(point_file(folder.path()), text).unwrap();
        match settled(folder.path()) {
            Err(NodeError::Io { source, .. }) => source.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_is_not_as_joining_left_it_is_refused_with_its_reason() {
        assert!(said(r#"{"format": 2, "what": "this code cannot know"}"#).contains("newer depot"));
        let key = SiteKey::from_seed([1; 32]).public();
        let no_site = serde_json::json!({
            "format": 1, "id": "0".repeat(32), "name": "a", "key": key, "sites": [],
        });
        assert!(said(&no_site.to_string()).contains("no address"));
        assert!(said(&" ".repeat(MAX_FILE as usize + 1)).contains("too long"));
        assert!(said("").contains("EOF"));
        assert!(settled(Path::new("/nonexistent")).unwrap().is_none());
    }
}
