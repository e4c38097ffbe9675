//! A catalogue that is one file: brought when it changed, and believed when its signature says so.
//!
//! The file lies in the source's folder as it came, beside what was found of it. What was found is
//! also the state that is kept from one sync to the next.

use super::container;
use super::signature::{self, Signature, Signer, Trust};
use crate::adapter::{Fetched, Run, Stage};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::fetch::{Came, Validators, Wanted};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use url::Url;

/// The largest catalogue that is brought.
const MAX_CATALOGUE: u64 = 4 << 30;
/// The catalogue in the source's folder.
const CATALOGUE: &str = "catalogue";
/// What was found of the one in the folder.
const CHECKED: &str = "checked.json";

/// Which catalogue, and whom to believe about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is: an address of `http` or `https`, or `file:///…` for a file or a folder.
    pub url: String,
    /// Whom to believe.
    #[serde(default)]
    pub trust: Trust,
}

/// What is kept from one sync to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What the server said the file is like.
    pub validators: Validators,
    /// SHA-256 of the catalogue, or, of a folder, of what its files are called and like.
    pub sha256: String,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
}

/// A catalogue as settings name it.
#[derive(Clone, Debug)]
pub struct Brought {
    url: Url,
    trust: Trust,
}

impl Brought {
    /// The one of those settings.
    ///
    /// # Errors
    /// They cannot work: the address is of another kind, or a digest is none.
    pub fn new(settings: Settings) -> Result<Self, SyncError> {
        let wrong = |detail: String| Err(SyncError::new(Cause::Misconfigured, detail));
        let url = Url::parse(&settings.url).ok();
        let is_known = |url: &Url| matches!(url.scheme(), "http" | "https" | "file");
        let Some(url) = url.filter(is_known) else {
            return wrong(format!("{:?} is no address of http, https or file", settings.url));
        };
        for digits in settings.trust.sha256.iter().chain(&settings.trust.signers) {
            let plain: String = digits.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
            if let Err(error) = Digests::of(Algorithm::Sha256, &plain) {
                return wrong(error.to_string());
            }
        }
        Ok(Self { url, trust: settings.trust })
    }

    /// The folder, if the catalogue is one.
    fn folder(&self) -> Option<PathBuf> {
        let path = (self.url.scheme() == "file").then(|| self.url.to_file_path());
        path?.ok().filter(|path| path.is_dir())
    }

    /// Where the catalogue lies, once it was brought: a file or a folder.
    pub fn path(&self, run: &Run) -> PathBuf {
        self.folder().unwrap_or_else(|| run.file(CATALOGUE))
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What was found of the one that was brought, as the state to keep.
    ///
    /// # Errors
    /// None was brought.
    pub fn state(&self, run: &Run) -> Result<serde_json::Value, SyncError> {
        let path = run.file(CHECKED);
        let text = std::fs::read(&path).map_err(|error| SyncError::local(path.display(), error))?;
        serde_json::from_slice(&text).map_err(|error| {
            SyncError::because(Cause::Local, "what was found of the catalogue does not read", error)
        })
    }

    /// Brings and checks it, if it is another than `state` tells of.
    ///
    /// # Errors
    /// It cannot be had, or is not to be believed.
    pub async fn bring(
        &self,
        run: &Run,
        state: Option<&serde_json::Value>,
    ) -> Result<Fetched, SyncError> {
        // A state of another version is as none.
        let state: Option<State> = state.and_then(|it| serde_json::from_value(it.clone()).ok());
        run.stage(Stage::Connect)?;
        let before = state.as_ref().map(|it| it.sha256.clone());
        let work = {
            let (trust, run) = (self.trust.clone(), run.clone());
            if let Some(folder) = self.folder() {
                run.stage(Stage::Verify)?;
                tokio::task::spawn_blocking(move || check_folder(&folder, &trust))
            } else {
                run.stage(Stage::Fetch)?;
                let to = run.file(CATALOGUE);
                let wanted = Wanted {
                    url: &self.url,
                    to: &to,
                    most: MAX_CATALOGUE,
                    size: None,
                    // Checked below, where a difference is told as what it is: not the publisher's.
                    digests: &Digests::default(),
                    since: state.as_ref().map(|it| &it.validators),
                };
                let validators = match run.fetcher.file(wanted, &run.watch).await? {
                    Came::NotModified => return Ok(Fetched::Unchanged),
                    Came::File { validators, .. } => validators,
                    Came::Held => Validators::default(),
                };
                run.stage(Stage::Verify)?;
                tokio::task::spawn_blocking(move || check_file(&run, &to, &trust, validators))
            }
        };
        let checked = work.await.map_err(|error| {
            SyncError::because(Cause::Local, "the check of the catalogue ended", error)
        })??;
        if before == Some(checked.sha256.clone()) {
            return Ok(Fetched::Unchanged);
        }
        let path = run.file(CHECKED);
        let text = serde_json::to_vec(&checked).map_err(|error| {
            SyncError::because(Cause::Local, "what was checked cannot be written down", error)
        })?;
        tokio::fs::write(&path, text)
            .await
            .map_err(|error| SyncError::local(path.display(), error))?;
        Ok(Fetched::Changed)
    }
}

fn check_file(
    run: &Run,
    path: &Path,
    trust: &Trust,
    validators: Validators,
) -> Result<State, SyncError> {
    let local = |error| SyncError::local(path.display(), error);
    let mut file = File::open(path).map_err(local)?;
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece).map_err(local)? {
            0 => break,
            n => hasher.update(&piece[..n]),
        }
        run.watch.moved();
        run.watch.check()?;
    }
    let (_, found) = hasher.finish();
    let sha256 = found.get(Algorithm::Sha256).unwrap_or_default().to_owned();
    let signer = trust.check(&sha256, signature::read(&mut file).map_err(local)?)?;
    if let Some(signer) = &signer {
        tracing::info!(
            signer = signer.subject,
            fingerprint = signer.fingerprint,
            "catalogue signed"
        );
    }
    Ok(State { validators, sha256, signer })
}

fn check_folder(folder: &Path, trust: &Trust) -> Result<State, SyncError> {
    if trust.sha256.is_some() || !trust.signers.is_empty() {
        let detail = "a folder has no signature and no digest; name the catalogue's cabinet, or allow \
                      unsigned catalogues for this source";
        return Err(SyncError::new(Cause::Misconfigured, detail));
    }
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    for file in container::files(folder)? {
        let local = |error| SyncError::local(file.display(), error);
        let like = std::fs::metadata(&file).map_err(local)?;
        let name = file.file_name().unwrap_or_default();
        let line = format!("{name:?} {} {:?}\n", like.len(), like.modified().map_err(local)?);
        hasher.update(line.as_bytes());
    }
    let (_, found) = hasher.finish();
    let sha256 = found.get(Algorithm::Sha256).unwrap_or_default().to_owned();
    trust.check(&sha256, Signature::None)?;
    Ok(State { sha256, ..State::default() })
}
