//! The secrets of a site with several servers: kept in the site database, sealed with a key that each
//! server is given in a file.
//!
//! A server with an empty data folder takes them from there, so that it is the same site to everybody:
//! it signs with the same keys, and points and clients know it. The one that leads seals what it has,
//! and again what becomes other.
//!
//! Always true: whoever has the database alone has none of the secrets; and a key that a site signs with
//! is never replaced by another, neither in the database nor in a folder.

use crate::page::{hex, unhex};
use crate::problem::{Kind, Problem};
use crate::site::{make_folder, write_secret};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use sitedb::{Db, Table, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How the line of a cluster key's file begins; 64 hex digits follow.
const MARK: &str = "depot-cluster-key-1:";
/// The longest such file, in bytes.
const MAX_FILE: u64 = 200;
/// The longest secret, in bytes.
const MAX_SECRET: u64 = 1 << 20;

/// Secrets below `DIR/keys` that stay what they are for as long as the site lives.
const LASTING: [&str; 4] = ["site.ed25519", "site.openpgp", "authority.key", "authority.pem"];
/// Those that become others: the newest is the one of the server that leads.
const CHANGING: [&str; 3] = ["wsus.secret", "parent/identity.pem", "parent/parent.json"];

const SEALED: Table<(), Sealed> = Table::new("sealed-keys");

/// All secrets of a site.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    /// Random, another one each time.
    nonce: String,
    /// The names and bytes of the files as JSON, encrypted and authenticated by ChaCha20-Poly1305 (RFC 8439).
    sealed: String,
}
impl Value for Sealed {}

/// Files below `DIR/keys`, by name; their bytes in hex.
type Files = BTreeMap<String, String>;

/// What seals the secrets. `Debug` does not show it.
pub struct ClusterKey(LessSafeKey);

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// Why there is no cluster key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterKeyError {
    /// The file cannot be read or written.
    #[error("cannot use the cluster key {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write the file.
    #[error("others may read the cluster key {0:?}: `chmod 600` it, and make another if they did")]
    NotSecret(PathBuf),
    /// It holds something else.
    #[error("{0:?} is no cluster key: `depot site cluster-key FILE` makes one")]
    Malformed(PathBuf),
}

impl ClusterKey {
    /// Makes a new one in a new file that only its owner may read.
    pub fn create(path: &Path) -> Result<(), ClusterKeyError> {
        let failed = |source| ClusterKeyError::Io { path: path.to_owned(), source };
        let text = format!("{MARK}{}\n", hex(&rand::random::<[u8; 32]>()));
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// The one in a file.
    pub fn read(path: &Path) -> Result<Self, ClusterKeyError> {
        let failed = |source| ClusterKeyError::Io { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(ClusterKeyError::NotSecret(path.to_owned()));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        let bytes = text.trim().strip_prefix(MARK).and_then(unhex);
        let key = bytes.and_then(|bytes| UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok());
        key.map(|key| Self(LessSafeKey::new(key)))
            .ok_or_else(|| ClusterKeyError::Malformed(path.to_owned()))
    }

    fn seal(&self, files: &Files) -> Result<Sealed, Problem> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut bytes = serde_json::to_vec(files).map_err(|error| Problem::internal(&error))?;
        let at = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(at, Aad::from(MARK), &mut bytes)
            .map_err(|error| Problem::internal(&error))?;
        Ok(Sealed { nonce: hex(&nonce), sealed: hex(&bytes) })
    }

    fn open(&self, sealed: &Sealed) -> Option<Files> {
        let nonce = Nonce::try_assume_unique_for_key(&unhex(&sealed.nonce)?).ok()?;
        let mut bytes = unhex(&sealed.sealed)?;
        let plain = self.0.open_in_place(nonce, Aad::from(MARK), &mut bytes).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

/// Whether the secrets of the site are sealed in its database.
pub(crate) fn is_sealed(db: &Db) -> Result<bool, Problem> {
    Ok(SEALED.get(db, &())?.is_some())
}

/// Puts the secrets that the database has into `DIR/keys`. Answers whether it has any.
///
/// # Errors
/// They were sealed with another key; or the folder has secrets of another site.
pub(crate) fn unseal(db: &Db, key: &ClusterKey, folder: &Path) -> Result<bool, Problem> {
    let Some(files) = sealed_files(db, key)? else { return Ok(false) };
    let mut differs = Vec::new();
    let mut to_write = Vec::new();
    for (name, bytes) in &files {
        let is_lasting = LASTING.contains(&name.as_str());
        if !is_lasting && !CHANGING.contains(&name.as_str()) {
            // Of a newer depot, which will ask for it; not every name is a file of ours.
            continue;
        }
        let path = folder.join("keys").join(name);
        let bytes = unhex(bytes).ok_or_else(damaged)?;
        match read(&path)? {
            Some(found) if found == bytes => {}
            Some(_) if is_lasting => differs.push(path),
            _ => to_write.push((path, bytes)),
        }
    }
    if let Some(path) = differs.first() {
        let detail = format!(
            "{path:?} is not this site's, whose keys are in its database: move it away, or name \
             another data folder"
        );
        return Err(Problem::new(Kind::Conflict, detail));
    }
    for (path, bytes) in to_write {
        let parent = path.parent().unwrap_or(folder);
        make_folder(parent)
            .and_then(|()| write_secret(&path, &bytes))
            .map_err(|error| unusable(&path, &error))?;
    }
    Ok(true)
}

/// Seals the secrets in `DIR/keys`, if the database has not the same already. The server that leads does.
pub(crate) fn seal(db: &Db, key: &ClusterKey, folder: &Path) -> Result<(), Problem> {
    let before = sealed_files(db, key)?.unwrap_or_default();
    let mut files = Files::new();
    for name in LASTING.iter().chain(&CHANGING) {
        if let Some(bytes) = read(&folder.join("keys").join(name))? {
            files.insert((*name).to_owned(), hex(&bytes));
        }
    }
    // One that lasts, and was lost here, is not lost.
    for name in LASTING {
        if let Some(kept) = before.get(name) {
            files.insert(name.to_owned(), kept.clone());
        }
    }
    if files != before {
        SEALED.set(db, &(), &key.seal(&files)?)?;
        tracing::info!(files = files.len(), "the keys of this site are in its database, sealed");
    }
    Ok(())
}

fn sealed_files(db: &Db, key: &ClusterKey) -> Result<Option<Files>, Problem> {
    let Some(sealed) = SEALED.get(db, &())? else { return Ok(None) };
    key.open(&sealed).map(Some).ok_or_else(damaged)
}

fn damaged() -> Problem {
    let detail = "the keys of this site were sealed with another cluster key: give this server the one \
        that the others have";
    Problem::new(Kind::Conflict, detail)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(MAX_SECRET).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Kind::Unavailable, format!("cannot use {path:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(folder: &Path, name: &str) -> ClusterKey {
        let path = folder.join(name);
        ClusterKey::create(&path).unwrap();
        ClusterKey::read(&path).unwrap()
    }

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join("keys").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn has(folder: &Path, name: &str) -> Option<String> {
        fs::read_to_string(folder.join("keys").join(name)).ok()
    }

    #[test]
    fn an_empty_folder_gets_what_another_sealed() {
        let at = tempfile::tempdir().unwrap();
        let (first, second) = (at.path().join("first"), at.path().join("second"));
        let (key, db) = (key(at.path(), "key"), Db::in_memory());
        assert!(!unseal(&db, &key, &second).unwrap() && !is_sealed(&db).unwrap());
        write(&first, "site.ed25519", "secret of the site");
        write(&first, "parent/parent.json", "old");
        seal(&db, &key, &first).unwrap();
        assert!(unseal(&db, &key, &second).unwrap() && is_sealed(&db).unwrap());
        assert_eq!(has(&second, "site.ed25519").unwrap(), "secret of the site");
        let path = second.join("keys/site.ed25519");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        // Nothing of it is in the database but sealed.
        let all = db.kv().scan(&sitedb::Range::default(), sitedb::Order::Ascending, 99).unwrap();
        let hidden = [hex(b"secret of the site"), "secret of the site".into()];
        assert!(all.iter().all(|(_, value)| {
            let text = String::from_utf8_lossy(value);
            hidden.iter().all(|secret| !text.contains(secret.as_str()))
        }));
        // What changes is the leader's; sealing the same again writes nothing.
        write(&first, "parent/parent.json", "new");
        seal(&db, &key, &first).unwrap();
        let written = db.kv().last_seq();
        seal(&db, &key, &first).unwrap();
        assert_eq!(db.kv().last_seq(), written);
        unseal(&db, &key, &second).unwrap();
        assert_eq!(has(&second, "parent/parent.json").unwrap(), "new");
    }

    #[test]
    fn a_key_that_a_site_signs_with_is_never_replaced() {
        let at = tempfile::tempdir().unwrap();
        let (first, second) = (at.path().join("first"), at.path().join("second"));
        let (key, db) = (key(at.path(), "key"), Db::in_memory());
        write(&first, "authority.key", "ours");
        seal(&db, &key, &first).unwrap();
        write(&second, "authority.key", "theirs");
        assert!(unseal(&db, &key, &second).unwrap_err().is(Kind::Conflict));
        assert_eq!(has(&second, "authority.key").unwrap(), "theirs");
        seal(&db, &key, &second).unwrap();
        fs::remove_dir_all(first.join("keys")).unwrap();
        seal(&db, &key, &first).unwrap();
        unseal(&db, &key, &first).unwrap();
        assert_eq!(has(&first, "authority.key").unwrap(), "ours");
    }

    #[test]
    fn another_cluster_key_opens_nothing_and_one_that_others_read_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let (ours, theirs, db) = (key(at.path(), "a"), key(at.path(), "b"), Db::in_memory());
        write(at.path(), "site.ed25519", "x");
        seal(&db, &ours, at.path()).unwrap();
        assert!(unseal(&db, &theirs, at.path()).unwrap_err().is(Kind::Conflict));
        assert!(seal(&db, &theirs, at.path()).is_err());
        let path = at.path().join("a");
        assert!(ClusterKey::create(&path).is_err(), "one that is there stays");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ClusterKey::read(&path), Err(ClusterKeyError::NotSecret(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "depot-cluster-key-1:", "depot-cluster-key-1:00", "x"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(ClusterKey::read(&path), Err(ClusterKeyError::Malformed(_))), "{bad}");
        }
    }
}
