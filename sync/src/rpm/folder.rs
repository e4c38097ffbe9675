//! The files of a repository, as they lie in the folder of its source.
//!
//! Each lies under the checksum that is stated of it, so that what did not change is not brought
//! again, and two states of a repository can lie beside each other. Which state is the newest that was
//! brought whole is said by one small file, which is written last; which one the catalogue was filled
//! from, by the source's state.

use super::repomd::{Listed, Repomd};
use crate::adapter::Run;
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::fetch::{Validators, Wanted};
use crate::rpm::settings::Repository;
use crate::unpack::{Packing, reading};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

/// The largest file of metadata that is taken, in bytes.
pub const MAX_PACKED: u64 = 2 << 30;
/// The most plain bytes that are read of one; Fedora's largest has 0.4 GiB.
const MAX_PLAIN: u64 = 8 << 30;
/// Names the state that was brought last.
const NEWEST: &str = "newest.json";
/// Where a `repomd.xml` goes while it is not yet known to be good.
pub const INCOMING: &str = "incoming-repomd.xml";

/// What is remembered of a repository between two syncs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The SHA-256 of its `repomd.xml`, as hex digits.
    pub repomd: String,
    /// What the server said of that.
    #[serde(default)]
    pub validators: Validators,
    /// When the newest of its files was made, in seconds since 1970.
    #[serde(default)]
    pub newest: i64,
}

impl State {
    /// What was kept; none if it was of another form.
    pub fn of(kept: Option<&serde_json::Value>) -> Option<Self> {
        kept.and_then(|value| serde_json::from_value(value.clone()).ok())
    }

    /// The state that was brought last.
    pub fn newest(run: &Run) -> Result<Self, SyncError> {
        let path = run.file(NEWEST);
        let bytes =
            std::fs::read(&path).map_err(|error| SyncError::local(path.display(), error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| SyncError::local(path.display(), io::Error::other(error)))
    }

    /// Makes it the one that was brought last.
    pub fn make_newest(&self, run: &Run) -> Result<(), SyncError> {
        let part = run.file("newest.json.part");
        let json = serde_json::to_vec(self).map_err(io::Error::other);
        json.and_then(|json| std::fs::write(&part, json))
            .and_then(|()| std::fs::rename(&part, run.file(NEWEST)))
            .map_err(|error| SyncError::local(part.display(), error))
    }

    /// Where its `repomd.xml` lies.
    pub fn repomd_path(&self, run: &Run) -> PathBuf {
        run.file(&format!("{}-repomd", self.repomd))
    }

    /// Where the signature of that lies, if it has one.
    pub fn signature_path(&self, run: &Run) -> PathBuf {
        run.file(&format!("{}-repomd-asc", self.repomd))
    }

    /// What its `repomd.xml` says.
    pub fn open(&self, run: &Run) -> Result<Repomd, SyncError> {
        let path = self.repomd_path(run);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| SyncError::local(path.display(), error))?;
        Repomd::parse(&text).map_err(|error| error.told("repomd.xml"))
    }
}

/// Where a listed file lies, or goes.
pub fn path(run: &Run, listed: &Listed) -> Result<PathBuf, SyncError> {
    let (_, hex) = listed.proof()?.strongest().unwrap_or((Algorithm::Sha256, ""));
    Ok(run.file(&format!("{hex}-{}", listed.kind)))
}

/// Brings a listed file, unless it lies there.
pub async fn bring(run: &Run, from: &Repository, listed: &Listed) -> Result<PathBuf, SyncError> {
    let (url, to) = (from.address(&listed.href)?, path(run, listed)?);
    let wanted = Wanted {
        url: &url,
        to: &to,
        most: MAX_PACKED,
        size: listed.size,
        digests: listed.proof()?,
        since: None,
    };
    run.fetcher.file(wanted, &run.watch).await?;
    Ok(to)
}

/// Removes all that neither `repomds` list nor is one of them. What cannot be removed is left for the
/// next time.
pub fn tidy(run: &Run, repomds: &[(&State, &Repomd)]) -> io::Result<()> {
    let mut kept = BTreeSet::from([run.file(NEWEST)]);
    for (state, repomd) in repomds {
        kept.extend([state.repomd_path(run), state.signature_path(run)]);
        kept.extend(repomd.files.iter().filter_map(|listed| path(run, listed).ok()));
    }
    for entry in std::fs::read_dir(&run.folder)? {
        let path = entry?.path();
        if path.is_file() && !kept.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The plain bytes of a listed file, which are compared with what is stated of them when all were read.
pub struct Plain {
    from: Box<dyn BufRead + Send>,
    hasher: Hasher,
    stated: Digests,
    kind: String,
}

impl Plain {
    /// Opens one that lies there.
    pub fn open(run: &Run, listed: &Listed, packing: Packing) -> Result<Self, SyncError> {
        let most = listed.open_size.unwrap_or(MAX_PLAIN).min(MAX_PLAIN);
        let from = packing.open(&path(run, listed)?, most)?;
        let stated = listed.open_digests.clone();
        Ok(Self { from, hasher: Hasher::proving(&stated), stated, kind: listed.kind.clone() })
    }

    /// Reads what is left, and says whether all was as stated.
    pub fn finish(mut self) -> Result<(), SyncError> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| reading(&self.kind, error))?;
        let (_, found) = self.hasher.finish();
        match self.stated.strongest() {
            Some((algorithm, hex)) if found.get(algorithm) != Some(hex) => Err(SyncError::new(
                Cause::Mismatch,
                format!(
                    "{} does not unpack to what was stated: want {}, found {found}",
                    self.kind, self.stated
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(to)?;
        self.hasher.update(&to[..n]);
        Ok(n)
    }
}

impl BufRead for Plain {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        // It was filled before, so this reads nothing and does not fail.
        if let Ok(held) = self.from.fill_buf() {
            self.hasher.update(&held[..n.min(held.len())]);
        }
        self.from.consume(n);
    }
}
