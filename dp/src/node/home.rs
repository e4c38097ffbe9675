//! A point's own folder.
//!
//! ```text
//! DIR/library      content: packs and index
//! DIR/cache        may be deleted
//! DIR/keys         the point's key and certificate; mode 0600
//! DIR/point.json   who the point is, and where its site is
//! DIR/scrub.json   how far the scrub is; may be deleted
//! DIR/control.sock what commands on this machine ask the running point at
//! ```

use super::link::{self, LinkError};
use super::{NodeError, blocking};
use crate::field::{JoinRequest, JoinToken, PointId};
use crate::identity::{Identity, Peer, Request};
use packager::Clock;
use packager::sign::PublicKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The version of `point.json` that this code reads and writes.
const FORMAT: u32 = 1;
/// The longest `point.json`, in bytes.
const MAX_FILE: u64 = 1 << 20;

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
        let (settled, identity) = match (found, token) {
            (Some(found), None) => found,
            (Some(found), Some(token)) => {
                if found.1.authority().fingerprint() != token.authority {
                    return Err(NodeError::OtherSite(folder));
                }
                let name = &found.0.name;
                tracing::warn!(
                    name,
                    "the token is not used: this folder has joined already; to join anew, start with \
                     an empty one"
                );
                found
            }
            (None, None) => return Err(NodeError::NotJoined(folder)),
            (None, Some(token)) => join(&folder, token, clock).await?,
        };
        Ok(Self { folder, settled, identity })
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

    pub fn keys_folder(&self) -> PathBuf {
        keys_folder(&self.folder)
    }
}

fn keys_folder(folder: &Path) -> PathBuf {
    folder.join("keys")
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
    let identity = Identity::load(&keys_folder(folder))?;
    let identity = identity.filter(|found| *found.peer() == Peer::Point(settled.id.clone()));
    let lost = || {
        let what = "the key that belongs to it is not there; join again in an empty folder";
        malformed(folder, what)
    };
    Ok(Some((settled, identity.ok_or_else(lost)?)))
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
    let folder = folder.to_owned();
    blocking(move || {
        identity.store(&keys)?;
        // Last: with it, the folder has joined.
        let path = point_file(&folder);
        let text = serde_json::to_vec_pretty(&settled).expect("it has string keys");
        write_whole(&path, &text).map_err(|source| NodeError::Io { path, source })?;
        Request::forget_in(&keys)?;
        Ok((settled, identity))
    })
    .await
}

/// Whether a point may be made in `folder`: it is empty, but for what a joining that was cut off left.
/// A mistyped path must not become a point, and a site's folder least of all.
fn takes_a_point(folder: &Path) -> io::Result<bool> {
    let own = ["keys", "library", "cache", "point.part", "scrub.json", "lost+found"];
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
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
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
    use packager::sign::SiteKey;

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
