//! The catalogue on the client's disk: what it scans by.
//!
//! ```text
//! DIR/manifest.json   what the site signed last, and this client brought whole
//! DIR/blobs/          its pages and shards, as far as this machine needs them
//! ```
//!
//! An update point is asked for the manifest on condition that it changed, and for those blobs that are not there.
//! Who that is does not matter: the site's signature is on the manifest, and blobs are named by their content. So
//! another update point costs one question where nothing changed.
//!
//! * The manifest is written last: what a scan reads is one catalogue as the site made it, whole.
//! * What lies there and is damaged counts as not there, and is brought again.

mod shelved;

pub use shelved::Shelved;

use crate::facts;
use packager::PublicKey;
use packager::sign::{Document, Signature};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync::shard::Platform;
use sync::shard::blob::{BlobError, Blobs, Name, unpack};
use sync::shard::manifest::{BadManifest, MAX_MANIFEST, Manifest, Page, Part};

/// The longest signed manifest, in bytes: as JSON text within JSON.
pub const MAX_SIGNED: usize = 2 * MAX_MANIFEST;

/// A manifest as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedManifest {
    /// The manifest as JSON text.
    pub catalogue: String,
    /// The site's signature of that text.
    pub signature: Signature,
}

/// Why a manifest is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Somebody changed it, or it is another site's.
    #[error("the catalogue is not signed with {0}, the key of this client's site")]
    NotProven(PublicKey),
    /// It is signed, and cannot be read.
    #[error(transparent)]
    Bad(#[from] BadManifest),
    /// It is no signed manifest.
    #[error("the update point answered with something else than a catalogue")]
    Json(#[from] serde_json::Error),
}

impl SignedManifest {
    /// Reads one as it came.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The manifest in it, if the site of that key signed it.
    ///
    /// # Errors
    /// It did not, or it cannot be read.
    pub fn open(&self, trusted: &PublicKey) -> Result<Manifest, ManifestError> {
        let text = self.catalogue.as_bytes();
        if !trusted.has_signed(Document::Catalogue, text, &self.signature) {
            return Err(ManifestError::NotProven(*trusted));
        }
        Ok(Manifest::parse(&self.catalogue)?)
    }

    /// What stands for it in a conditional question.
    pub fn tag(&self) -> String {
        Name::of(self.catalogue.as_bytes()).to_string()[..32].to_owned()
    }
}

/// What an update point answers to the question for the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is still that one.
    Same,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// An update point, as one is asked.
///
/// * Whatever it gives is checked here; it need not be trusted.
/// * Its error says what became of the question, and nothing else.
pub trait UpdatePoint {
    /// Why it could not be asked.
    type Error;
    /// The manifest, if it is another than the one of that tag.
    ///
    /// # Errors
    /// It could not be asked.
    fn manifest(&mut self, tag: Option<&str>) -> Result<Asked, Self::Error>;
    /// These blobs, each given as it came, in any order; ends at the first that `take` does not take.
    ///
    /// # Errors
    /// It could not be asked, or has not all of them.
    fn blobs(
        &mut self,
        names: &[Name],
        take: &mut dyn FnMut(Name, &[u8]) -> bool,
    ) -> Result<(), Self::Error>;
}

/// Why the catalogue could not be brought.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError<E> {
    /// The update point could not be asked.
    #[error("the update point could not be asked")]
    Asking(E),
    /// What it says is not believed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A blob is not what it should be.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A page in it is none.
    #[error(transparent)]
    Page(#[from] BadManifest),
    /// The disk failed.
    #[error("the catalogue cannot be kept on this machine")]
    Disk(#[source] io::Error),
}

/// What came of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// Whether there is another catalogue than before.
    pub is_new: bool,
    /// How many blobs came.
    pub blobs: u64,
    /// How many bytes they have, as they travel.
    pub bytes: u64,
}

/// The catalogue in a folder.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    key: PublicKey,
    blobs: Blobs,
    held: Option<(SignedManifest, Manifest)>,
    /// Whether each blob is read, when the next catalogue is brought, before it counts as there.
    is_in_doubt: bool,
}

impl Shelf {
    /// That in `folder`, of the site of that key; an empty one, if there is none, or what is there is not believed.
    ///
    /// # Errors
    /// The folder cannot be read or made.
    pub fn open(folder: &Path, key: PublicKey) -> io::Result<Self> {
        let blobs = Blobs::open(&folder.join("blobs"))?;
        let mut bytes = Vec::new();
        match File::open(folder.join(MANIFEST)) {
            Ok(file) => drop(file.take(MAX_SIGNED as u64).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let read = |signed: SignedManifest| Ok((signed.clone(), signed.open(&key)?));
        let held: Result<_, ManifestError> = SignedManifest::parse(&bytes).and_then(read);
        Ok(Self { folder: folder.into(), key, blobs, held: held.ok(), is_in_doubt: false })
    }

    /// What it holds, if it does.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.held.as_ref().map(|(_, manifest)| manifest)
    }

    /// Notes that something of it was found damaged: then more may be, and all is looked at when it is refreshed
    /// next.
    pub fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Brings what changed.
    ///
    /// # Errors
    /// See [`RefreshError`]; what is held stays then, and what came of the other is not brought again.
    pub fn refresh<P: UpdatePoint>(
        &mut self,
        point: &mut P,
        platform: Platform,
    ) -> Result<Refreshed, RefreshError<P::Error>> {
        let tag = self.held.as_ref().map(|(signed, _)| signed.tag());
        let came = match point.manifest(tag.as_deref()).map_err(RefreshError::Asking)? {
            Asked::Same => None,
            Asked::Bytes(bytes) => {
                let signed = SignedManifest::parse(&bytes)?;
                let manifest = signed.open(&self.key)?;
                // An update point that is behind the one before has nothing new to say.
                let is_behind = |held: &Manifest| {
                    held.catalogue == manifest.catalogue && held.seq > manifest.seq
                };
                (!self.manifest().is_some_and(is_behind)).then_some((signed, manifest))
            }
        };
        let is_new = came.is_some();
        let held = came.or_else(|| self.held.clone());
        let Some((signed, manifest)) = held else {
            let bad =
                BadManifest::Form("the update point says that it is unchanged, and none was held");
            return Err(bad.into());
        };
        let mut refreshed = Refreshed { is_new, ..Refreshed::default() };
        let pages: Vec<Part> = manifest.pages_for(platform).map(|page| page.part).collect();
        self.bring(point, &pages, &mut refreshed)?;
        let mut wanted: HashSet<Name> = pages.iter().map(|part| part.blob).collect();
        let mut shards = Vec::new();
        for part in &pages {
            shards.extend(self.page(*part).map_err(RefreshError::Disk)??.shards);
        }
        let shards: Vec<Part> = shards.into_iter().map(|shard| shard.part).collect();
        wanted.extend(shards.iter().map(|part| part.blob));
        self.bring(point, &shards, &mut refreshed)?;
        if is_new {
            self.keep(&signed).map_err(RefreshError::Disk)?;
            self.held = Some((signed, manifest));
        }
        let swept = self.blobs.sweep(|name| wanted.contains(&name), Duration::ZERO);
        swept.map_err(RefreshError::Disk)?;
        self.is_in_doubt = false;
        Ok(refreshed)
    }

    /// Brings those blobs that are not there.
    fn bring<P: UpdatePoint>(
        &self,
        point: &mut P,
        parts: &[Part],
        refreshed: &mut Refreshed,
    ) -> Result<(), RefreshError<P::Error>> {
        let mut missing: Vec<&Part> = Vec::new();
        for part in parts {
            let is_here = match self.is_in_doubt {
                false => self.blobs.has(part.blob),
                true => {
                    let plain = self.blobs.plain(part.blob, part.bytes);
                    plain.map_err(RefreshError::Disk)?.is_some()
                }
            };
            missing.extend((!is_here).then_some(part));
        }
        let limits: std::collections::HashMap<Name, u64> =
            missing.iter().map(|part| (part.blob, part.bytes)).collect();
        let names: Vec<Name> = limits.keys().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        let asked = point.blobs(&names, &mut |name, packed| {
            let Some(limit) = limits.get(&name) else { return true };
            let put = match unpack(packed, name, *limit) {
                Ok(_) => self.blobs.put(name, packed).map_err(RefreshError::Disk),
                Err(error) => Err(error.into()),
            };
            refreshed.blobs += 1;
            refreshed.bytes += packed.len() as u64;
            failed = put.err();
            failed.is_none()
        });
        match failed {
            Some(error) => Err(error),
            None => asked.map_err(RefreshError::Asking),
        }
    }

    fn page(&self, part: Part) -> io::Result<Result<Page, BadManifest>> {
        match self.blobs.plain(part.blob, part.bytes)? {
            Some(plain) => Ok(Page::parse(&plain)),
            None => Err(missing(part.blob)),
        }
    }

    /// Puts the manifest there, whole or not at all, and durably.
    fn keep(&self, signed: &SignedManifest) -> io::Result<()> {
        let mut part = tempfile::NamedTempFile::new_in(&self.folder)?;
        part.write_all(&serde_json::to_vec(signed)?)?;
        part.as_file().sync_all()?;
        part.persist(self.folder.join(MANIFEST))?;
        File::open(&self.folder)?.sync_all()
    }

    /// The shards that a machine of that platform needs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where one of them, or all, must be brought first; else the disk failed.
    pub fn shelved(&self, platform: Platform) -> io::Result<Shelved<'_>> {
        let manifest = self.manifest().ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, "no catalogue was brought to this machine yet")
        })?;
        let mut shards = Vec::new();
        for listed in manifest.pages_for(platform) {
            let page = self.page(listed.part)?.map_err(io::Error::other)?;
            shards.extend(page.shards.into_iter().map(|shard| shard.part));
        }
        Ok(Shelved::new(&self.blobs, shards))
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub fn clear(&mut self) -> io::Result<()> {
        self.held = None;
        match fs::remove_file(self.folder.join(MANIFEST)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

const MANIFEST: &str = "manifest.json";

fn missing(blob: Name) -> io::Error {
    let what = format!("{blob} of the catalogue is not there or damaged: it is brought again");
    io::Error::new(ErrorKind::NotFound, what)
}

/// The platform by which shards are chosen for a machine.
pub fn platform_of(machine: facts::Platform) -> Platform {
    match machine {
        facts::Platform::Debian => Platform::Dpkg,
        facts::Platform::Rpm => Platform::Rpm,
        facts::Platform::Windows => Platform::Windows,
    }
}

#[cfg(test)]
mod tests;
