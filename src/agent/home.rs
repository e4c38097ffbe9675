//! The agent's own folder.
//!
//! ```text
//! DIR/lock              held by the agent that runs
//! DIR/keys/             its key and certificate; what it joins with, until it did; mode 0600
//! DIR/agent.json        who it is, and where its site is; there once it has joined
//! DIR/policy.json       the last policy that its site signed for it
//! DIR/state.json        what it is about to do, and when
//! DIR/facts.json        what it told of the machine
//! DIR/ledger            what is known of each update, and what waits to be told
//! DIR/catalogue/        what it scans by; may be deleted
//! DIR/location.json     the update point that the last scan used
//! DIR/deployed/         the documents of updates that deployments name, by digest
//! DIR/deployed.json     what the last scan found of them
//! DIR/cache/            files of updates, by digest; may be deleted
//! DIR/installs/         what installers said, for each update
//! DIR/install.pid       the installer that runs
//! DIR/filter.json       that what a write filter protects is writable for now
//! DIR/attributes.toml   what administrators set on the machine: NAME = "VALUE"
//! DIR/control.sock      what commands on this machine ask the running agent at; mode 0600
//! ```
//!
//! The folder belongs to one machine. A copy of it on another one, as images of machines make them, is found out by
//! the machine's [`Print`]: what is of the one before is forgotten, and the copy joins as a client of its own.

use super::machine::Print;
use compliance::message::ClientId;
use dp::field::JoinToken;
use dp::identity::{Identity, IdentityError, Peer, Request};
use packager::PublicKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of `agent.json` that this program reads and writes.
const FORMAT: u32 = 1;
/// The longest of the small files, in bytes.
const MAX_SMALL: u64 = 64 << 20;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent runs there.
    #[error("another agent runs in {}: stop it first", .0.display())]
    InUse(PathBuf),
    /// It holds something else.
    #[error("{} is not the folder of an agent, but holds other files: name a new or an empty folder", .0.display())]
    NotAHome(PathBuf),
    /// A file is damaged, or of a newer program.
    #[error("{} is damaged, or of a newer program: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What joining settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    format: u32,
    /// The id that it chose.
    pub id: ClientId,
    /// What people call it.
    pub name: String,
    /// The machine that it is of.
    print: Print,
    /// What the site signs with.
    pub key: PublicKey,
    /// Where the site is reached.
    pub sites: Vec<String>,
}

/// What a machine that joins has chosen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Joining {
    id: ClientId,
    print: Print,
}

/// The folder.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    _lock: File,
}

impl Home {
    /// Takes a folder into use; makes it if there is none.
    pub fn open(folder: &Path) -> Result<Self, HomeError> {
        let failed = |source| HomeError::Io { path: folder.into(), source };
        private(folder).map_err(failed)?;
        if !is_home(folder).map_err(failed)? {
            return Err(HomeError::NotAHome(folder.into()));
        }
        let path = folder.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|source| HomeError::Io { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(HomeError::InUse(folder.into())),
            Err(fs::TryLockError::Error(source)) => return Err(HomeError::Io { path, source }),
        }
        private(&folder.join("keys")).map_err(failed)?;
        Ok(Self { folder: folder.into(), _lock: lock })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file or folder of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// Who it is, if it has joined, on this machine. What is of another machine is forgotten.
    pub fn joined(&self, print: &Print) -> Result<Option<(Settled, Identity)>, HomeError> {
        let of_joining = self.read::<Joining>(JOINING)?;
        let settled = self.read::<Settled>(AGENT)?;
        let is_other = settled.as_ref().is_some_and(|it| !it.print.is_of(print))
            || of_joining.is_some_and(|it| !it.print.is_of(print));
        if is_other {
            tracing::warn!(
                folder = %self.folder.display(),
                "this folder was copied from another machine: this one joins as a client of its own"
            );
            self.forget()?;
            return Ok(None);
        }
        let Some(settled) = settled else { return Ok(None) };
        let path = self.path(AGENT);
        if settled.format != FORMAT || settled.sites.is_empty() {
            let why = format!("format {}, with {} addresses", settled.format, settled.sites.len());
            return Err(HomeError::Malformed { path, why });
        }
        let peer = Peer::Client(api::fleet::certified(settled.id));
        let identity = Identity::load(&self.keys())?.filter(|it| *it.peer() == peer);
        let lost = || {
            let why =
                "the key that belongs to it is not there; delete it, and join with a new token";
            HomeError::Malformed { path, why: why.into() }
        };
        Ok(Some((settled, identity.ok_or_else(lost)?)))
    }

    /// Forgets who it is, and what of that is known at the site. What can be brought again stays.
    pub fn forget(&self) -> Result<(), HomeError> {
        // First: without it the folder has not joined.
        let mut gone = vec![AGENT, JOINING, "policy.json", "state.json", "facts.json", "ledger"];
        gone.extend(["location.json", "deployed.json", "keys/identity.pem", "keys/pending.key"]);
        for name in gone {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(HomeError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The id that this machine joins with, and its request for a certificate: the same until it has joined.
    pub fn joining(&self, print: &Print) -> Result<(ClientId, Request), HomeError> {
        let id = match self.read::<Joining>(JOINING)? {
            Some(joining) => joining.id,
            None => {
                let id = ClientId(uuid::Uuid::new_v4());
                self.write(JOINING, &Joining { id, print: print.clone() })?;
                id
            }
        };
        Ok((id, Request::kept_in(&self.keys())?))
    }

    /// Has it join with another id and key.
    pub fn choose_anew(&self) -> Result<(), HomeError> {
        Request::forget_in(&self.keys())?;
        self.remove(JOINING)
    }

    /// Settles that it has joined.
    pub fn settle(
        &self,
        identity: &Identity,
        settled: (ClientId, String, Print, PublicKey, Vec<String>),
    ) -> Result<Settled, HomeError> {
        let (id, name, print, key, sites) = settled;
        let settled = Settled { format: FORMAT, id, name, print, key, sites };
        identity.store(&self.keys())?;
        // Last: with it, the folder has joined.
        self.write(AGENT, &settled)?;
        Request::forget_in(&self.keys())?;
        self.remove(JOINING)?;
        self.remove(TOKEN)?;
        Ok(settled)
    }

    /// Keeps a certificate that was renewed.
    pub fn renewed(&self, identity: &Identity) -> Result<(), HomeError> {
        Ok(identity.store(&self.keys())?)
    }

    /// The token that it joins with, if one was left here.
    pub fn token(&self) -> Result<Option<JoinToken>, HomeError> {
        let path = self.path(TOKEN);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
            Ok(text) => match text.parse() {
                Ok(token) => Ok(Some(token)),
                Err(error) => Err(HomeError::Malformed { path, why: error.to_string() }),
            },
        }
    }

    /// Leaves a token here to join with, until it has joined.
    pub fn keep_token(&self, token: &JoinToken) -> Result<(), HomeError> {
        self.put(TOKEN, format!("{token}\n").as_bytes())
    }

    /// Forgets a token that was left here.
    pub fn forget_token(&self) -> Result<(), HomeError> {
        self.remove(TOKEN)
    }

    /// Whether the agent of a folder has joined a site, on whatever machine.
    pub fn has_joined(folder: &Path) -> bool {
        folder.join(AGENT).exists()
    }

    /// Whether a folder has a token to join with.
    pub fn has_token(folder: &Path) -> bool {
        folder.join(TOKEN).exists()
    }

    /// What a file of JSON says, if it is there. One of ours that is damaged is an error: to go on without it
    /// would lose what it says.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HomeError> {
        let path = self.path(name);
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_SMALL).read_to_end(&mut text)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HomeError::Io { path, source }),
            Ok(_) => {}
        }
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(HomeError::Malformed { path, why: error.to_string() }),
        }
    }

    /// Writes a file of JSON, whole or not at all, and durably. Only its owner may read it.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), HomeError> {
        let bytes = serde_json::to_vec(value).expect("it has text keys");
        self.put(name, &bytes)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.folder);
        let put = || {
            // Its mode is 0600 from its first moment.
            let mut part = tempfile::Builder::new().prefix(".part").tempfile_in(folder)?;
            part.write_all(bytes)?;
            part.as_file().sync_all()?;
            part.persist(&path)?;
            File::open(folder)?.sync_all()
        };
        put().map_err(|source: io::Error| HomeError::Io { path: path.clone(), source })
    }

    /// Deletes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), HomeError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(HomeError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

const AGENT: &str = "agent.json";
const JOINING: &str = "keys/joining.json";
const TOKEN: &str = "keys/join.token";

/// Whether an agent is in a folder, or may be made there.
fn is_home(folder: &Path) -> io::Result<bool> {
    let own = [
        "lock",
        "keys",
        AGENT,
        "policy.json",
        "state.json",
        "facts.json",
        "ledger",
        "catalogue",
        "location.json",
        "deployed",
        "deployed.json",
        "cache",
        "installs",
        "install.pid",
        "filter.json",
        super::machine::ATTRIBUTES,
        "control.sock",
        "control.part",
        "lost+found",
    ];
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let is_part = name.to_string_lossy().starts_with('.');
        if !is_part && !own.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(!folder.join("keys/site.ed25519").exists())
}

/// Makes a folder that only its owner may enter.
fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn print(system: &str) -> Print {
        serde_json::from_value(serde_json::json!({ "system": system })).unwrap()
    }

    #[test]
    fn one_agent_is_in_a_folder_and_no_other_folder_becomes_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("agent")).unwrap();
        assert!(matches!(Home::open(home.folder()), Err(HomeError::InUse(_))));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(Home::open(folder.path()), Err(HomeError::NotAHome(_))));
    }

    #[test]
    fn a_machine_joins_with_one_id_and_key_until_it_has_and_a_copy_with_others() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert!(home.joined(&print("a")).unwrap().is_none());
        let first = home.joining(&print("a")).unwrap();
        let key = |request: &Request| dp::identity::requested_key(request.pem()).unwrap();
        let again = home.joining(&print("a")).unwrap();
        assert_eq!((first.0, key(&first.1)), (again.0, key(&again.1)));
        assert!(home.joined(&print("a")).unwrap().is_none());
        // The same folder on another machine.
        assert!(home.joined(&print("b")).unwrap().is_none());
        let copy = home.joining(&print("b")).unwrap();
        assert!(copy.0 != first.0 && key(&copy.1) != key(&first.1));
    }
}
