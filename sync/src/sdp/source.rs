//! A third-party catalogue as a source of updates.
//!
//! The catalogue is one file on the web or on this machine, or a folder of them. It is brought when it
//! changed, believed when its signature or its digest says so, and read whole: what it does not have
//! any more is gone. A catalogue may have a package twice, issued again; the newest is taken. Packages
//! that it does not have may well be named as replaced by one it has: they are kept as they are named.

use super::cab::Limits as CabLimits;
use super::container;
use super::package;
use super::signature::{self, Signature, Signer, Trust};
use crate::adapter::{Adapter, Extent, Fetched, Read, Run, Said, Skipped, Stage};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::fetch::{Came, Validators, Wanted};
use crate::name::UpdateId;
use crate::xml::{self, Element};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};
use url::Url;

/// The largest catalogue that is brought.
const MAX_CATALOGUE: u64 = 2 << 30;
/// Packages of one catalogue.
const MAX_PACKAGES: usize = 500_000;

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

/// The source.
#[derive(Clone, Debug)]
pub struct SdpSource {
    settings: Settings,
    url: Url,
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

impl SdpSource {
    /// The source with those settings.
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
        Ok(Self { settings, url })
    }

    /// The folder, if the catalogue is one.
    fn folder(&self) -> Option<PathBuf> {
        let path = (self.url.scheme() == "file").then(|| self.url.to_file_path());
        path?.ok().filter(|path| path.is_dir())
    }

    async fn bring(&self, run: &Run, state: Option<&State>) -> Result<Fetched, SyncError> {
        run.stage(Stage::Connect)?;
        let before = state.map(|it| it.sha256.clone());
        let work = {
            let (trust, run) = (self.settings.trust.clone(), run.clone());
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
                    since: state.map(|it| &it.validators),
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

    /// Gives each package of the catalogue to `take`, with its number.
    fn packages(
        &self,
        run: &Run,
        skipped: &mut Skipped,
        take: &mut dyn FnMut(usize, &Element, &mut Skipped) -> Result<(), SyncError>,
    ) -> Result<usize, SyncError> {
        let path = self.folder().unwrap_or_else(|| run.file(CATALOGUE));
        let mut n = 0;
        let mut known = false;
        container::documents(&path, CabLimits::default(), &mut |name, from| {
            known |= in_document(name, from, &mut |element| {
                run.watch.read()?;
                n += 1;
                if n > MAX_PACKAGES {
                    let detail = format!("the catalogue has more than {MAX_PACKAGES} packages");
                    return Err(SyncError::new(Cause::TooLarge, detail));
                }
                take(n, element, skipped)
            })?;
            Ok(())
        })?;
        match known {
            true => Ok(n),
            false => Err(SyncError::new(
                Cause::Malformed,
                format!("{} is no catalogue of Updates Publisher: no package is in it", self.url),
            )),
        }
    }
}

impl Adapter for SdpSource {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        Box::pin(async move {
            // A state of another version is as none.
            let state = state.and_then(|it| serde_json::from_value(it.clone()).ok());
            self.bring(run, state.as_ref()).await
        })
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        run.stage(Stage::Parse)?;
        let path = run.file(CHECKED);
        let checked =
            std::fs::read(&path).map_err(|error| SyncError::local(path.display(), error))?;
        let state: serde_json::Value = serde_json::from_slice(&checked).map_err(|error| {
            SyncError::because(Cause::Local, "what was checked does not read", error)
        })?;

        // First which packages are the newest, then those alone: each is said once.
        let mut newest: BTreeMap<UpdateId, (Timestamp, usize)> = BTreeMap::new();
        let mut skipped = Skipped::default();
        self.packages(run, &mut Skipped::default(), &mut |n, element, _| {
            if let Some((id, created)) = package::identity(element) {
                let found = newest.entry(id).or_insert((created, n));
                if created >= found.0 {
                    *found = (created, n);
                }
            }
            Ok(())
        })?;
        let mut products = BTreeSet::new();
        self.packages(run, &mut skipped, &mut |n, element, skipped| {
            let identity = package::identity(element);
            let is_older = identity.and_then(|(id, _)| newest.get(&id)).is_some_and(|it| it.1 != n);
            if is_older {
                return Ok(());
            }
            let package = match package::read(element) {
                Ok(package) => package,
                Err(error) => {
                    skipped.add(error);
                    return Ok(());
                }
            };
            if let Some(product) = package.product
                && products.insert(product.clone())
            {
                take(Said::Product(product))?;
            }
            take(Said::Update(Box::new(package.update)))
        })?;
        Ok(Read { extent: Extent::Whole, state, skipped })
    }
}

/// Gives each package of a document to `take`; whether it is a document of packages.
fn in_document(
    name: &str,
    from: &mut dyn BufRead,
    take: &mut dyn FnMut(&Element) -> Result<(), SyncError>,
) -> Result<bool, SyncError> {
    let mut reader = xml::Reader::new(from, xml::Limits::default());
    let failed = |error: xml::XmlError| error.of(name);
    let Some(root) = reader.enter().map_err(failed)? else { return Ok(false) };
    match &*root.name {
        "SystemsManagementCatalog" => {
            while let Some(child) = reader.child().map_err(failed)? {
                if &*child.name == "SoftwareDistributionPackage" {
                    take(&child)?;
                }
            }
            Ok(true)
        }
        "SoftwareDistributionPackage" => {
            take(&reader.rest(root).map_err(failed)?)?;
            Ok(true)
        }
        // Lists of categories, which the newer layouts have beside packages.
        _ => Ok(false),
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
