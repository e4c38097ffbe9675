//! Making a bundle: of each version what the target lacks, in one pass.
//!
//! Version by version: its manifest, then its files in the manifest's order, which is about that of
//! the packs. Recipes and chunks go out in batches, a mark after each, so that whoever takes them in
//! needs memory for one batch. Blocks of which all chunks are wanted go as they lie in the packs.
//! What came once in a bundle does not come again, as long as it is remembered; that is bounded, and
//! coming twice costs bytes, no more.

use super::wire::{BundleWriter, Named};
use super::{Head, Inventory, PrestageError};
use crate::error::PackageError;
use crate::manifest::FileEntry;
use crate::name::{PackageName, Selector};
use crate::packages::Packages;
use crate::sign::VersionInfo;
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Frame, Library, Progress, ReadError, Recipe};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Chunks of one batch: so many that few blocks are torn apart between two.
const BATCH: usize = 1 << 14;
/// Files after which a mark tells how far it is, also if the target has all of them.
const LOOKED_AT: u64 = 4096;
/// Names that are remembered of what came.
const REMEMBERED: usize = 1 << 22;

/// What a bundle came to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exported {
    /// Versions.
    pub versions: u64,
    /// Their files.
    pub files: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Chunks that are in the bundle.
    pub chunks: u64,
    /// The bundle's length.
    pub bundle_bytes: u64,
}

impl Packages {
    /// The versions that `wanted` means, each once, by package and number.
    pub fn prestaged_versions(
        &self,
        wanted: &[(PackageName, Selector)],
    ) -> Result<Vec<VersionInfo>, PrestageError> {
        self.signing_key()?;
        let mut versions = BTreeMap::new();
        for (package, selector) in wanted {
            let info = self.resolve(package, selector)?;
            versions.insert((info.package.clone(), info.version), info);
        }
        match versions.is_empty() {
            true => Err(PrestageError::Nothing),
            false => Ok(versions.into_values().collect()),
        }
    }

    /// An error if the inventory is of a library of another site.
    pub fn takes_inventory(&self, base: Option<&Inventory>) -> Result<(), PrestageError> {
        let own = self.public_key();
        match base.map(Inventory::key).filter(|found| *found != own) {
            Some(found) => Err(PrestageError::ForeignInventory { found, own }),
            None => Ok(()),
        }
    }

    /// Writes a bundle of `versions` to `out`: what a library with the inventory `base` lacks, or all.
    /// An error leaves a bundle without its end mark. `progress` counts files and bytes of the
    /// versions that are dealt with, and in `stored_bytes` those of the bundle.
    pub fn export(
        &self,
        versions: Vec<VersionInfo>,
        base: Option<&Inventory>,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Exported, PrestageError> {
        let (key, own) = (self.signing_key()?, self.public_key());
        self.takes_inventory(base)?;
        // Nothing that becomes garbage from here on is freed before it was read.
        let _lease = self.library().session();
        let names = self.names_of(&versions)?;
        let head = Head { key: own, created: self.now(), based: base.is_some(), versions, names };
        progress.total_files.store(head.n_files(), Relaxed);
        progress.total_bytes.store(head.bytes(), Relaxed);
        let writer = BundleWriter::new(out, &head, key)?;
        let mut export = Export {
            library: self.library(),
            base,
            writer,
            came: HashSet::new(),
            batch: Batch::default(),
            progress,
            n_chunks: 0,
        };
        for (at, info) in head.versions.iter().enumerate() {
            export.writer.version(at)?;
            export.version(self, info)?;
        }
        let chunks = export.n_chunks;
        let bundle_bytes = export.writer.end()?;
        progress.stored_bytes.store(bundle_bytes, Relaxed);
        let (files, bytes) = (head.n_files(), head.bytes());
        Ok(Exported { versions: head.versions.len() as u64, files, bytes, chunks, bundle_bytes })
    }

    /// What the packages' names mean, of these versions.
    fn names_of(
        &self,
        versions: &[VersionInfo],
    ) -> Result<BTreeMap<PackageName, Named>, PackageError> {
        let has = |package: &PackageName, number: u64| {
            versions.iter().any(|info| info.package == *package && info.version == number)
        };
        let mut names = BTreeMap::new();
        for info in versions {
            let package = &info.package;
            if names.contains_key(package) {
                continue;
            }
            let record = self.record(package)?.record;
            let latest = record.latest.filter(|latest| has(package, *latest));
            let channels = record.channels.into_iter().filter(|(_, to)| has(package, *to));
            names.insert(package.clone(), Named { latest, channels: channels.collect() });
        }
        Ok(names)
    }
}

/// A bundle on its way out.
struct Export<'a> {
    library: &'a Library,
    base: Option<&'a Inventory>,
    writer: BundleWriter<'a>,
    /// Contents and chunks that came already.
    came: HashSet<Digest>,
    batch: Batch,
    progress: &'a Progress,
    n_chunks: u64,
}

/// What goes out next.
#[derive(Default)]
struct Batch {
    recipes: Vec<(Digest, Arc<Recipe>)>,
    chunks: Vec<ChunkId>,
    /// Where chunks are in contents; only asked for where a chunk cannot be had by its name.
    places: HashMap<ChunkId, (Digest, Range<u64>)>,
    files: u64,
    bytes: u64,
}

impl Export<'_> {
    fn version(&mut self, packages: &Packages, info: &VersionInfo) -> Result<(), PrestageError> {
        let found = self.library.recipe(info.manifest);
        let recipe = found.map_err(|error| lost(info, info.manifest, error))?;
        self.content(info.manifest, recipe);
        self.flush(info)?;
        let manifest = packages.manifest(info.manifest)?;
        for entry in manifest.entries() {
            let Some(file) = entry.file() else { continue };
            self.progress.check()?;
            self.file(info, &file)?;
            self.batch.files += 1;
            self.batch.bytes += file.size;
            if self.batch.chunks.len() >= BATCH || self.batch.files >= LOOKED_AT {
                self.flush(info)?;
            }
        }
        self.flush(info)
    }

    fn file(&mut self, info: &VersionInfo, file: &FileEntry) -> Result<(), PrestageError> {
        if file.size == 0 || self.came.contains(&file.digest) {
            return Ok(());
        }
        let Some(signed) = file.recipe else {
            self.chunk(ChunkId(file.digest), file.digest, 0..file.size);
            return Ok(());
        };
        let found = self.library.recipe(file.digest);
        let recipe = found.map_err(|error| lost(info, file.digest, error))?;
        if recipe.digest() != signed {
            return Err(lost(info, file.digest, ReadError::Unknown(file.digest.into())));
        }
        self.content(file.digest, recipe);
        Ok(())
    }

    /// Puts what the target lacks of a content into the batch.
    fn content(&mut self, content: Digest, recipe: Arc<Recipe>) {
        for span in recipe.spans() {
            self.chunk(span.chunk, content, span.bytes);
        }
        if recipe.len() > 1 {
            let has_it = self.base.is_some_and(|base| base.has_recipe(content));
            let lacks_chunks = recipe.chunks().iter().any(|chunk| !self.is_held(*chunk));
            self.remember(content);
            if !has_it || lacks_chunks {
                self.batch.recipes.push((content, recipe));
            }
        }
    }

    /// Whether the target held a chunk.
    fn is_held(&self, chunk: ChunkId) -> bool {
        self.base.is_some_and(|base| base.has_chunk(chunk))
    }

    fn chunk(&mut self, chunk: ChunkId, content: Digest, bytes: Range<u64>) {
        if !self.is_held(chunk) && self.remember(chunk.0) {
            self.batch.chunks.push(chunk);
            self.batch.places.insert(chunk, (content, bytes));
        }
    }

    /// Notes what comes. `false` if it came already.
    fn remember(&mut self, digest: Digest) -> bool {
        if self.came.len() >= REMEMBERED {
            self.came.clear();
        }
        self.came.insert(digest)
    }

    /// Writes the batch, and a mark.
    fn flush(&mut self, info: &VersionInfo) -> Result<(), PrestageError> {
        let batch = std::mem::take(&mut self.batch);
        for (content, recipe) in &batch.recipes {
            self.writer.recipe(*content, recipe)?;
        }
        let frames = self.library.frames_for(&batch.chunks).map_err(PackageError::from)?;
        for item in frames {
            self.progress.check()?;
            let frame = match item {
                FrameItem::Block(frame) => frame,
                FrameItem::Missing(chunk) => self.part_of_content(info, &batch, chunk)?,
                FrameItem::End => break,
            };
            self.n_chunks += frame.lens().len() as u64;
            self.writer.chunks(frame)?;
            self.progress.stored_bytes.store(self.writer.written, Relaxed);
        }
        let files = self.progress.files.fetch_add(batch.files, Relaxed) + batch.files;
        let bytes = self.progress.bytes.fetch_add(batch.bytes, Relaxed) + batch.bytes;
        self.writer.mark(files, bytes)
    }

    /// A chunk that is not given by its name, since it is by itself a content that was revoked; what
    /// was revoked is that content, and no larger one that holds the same bytes.
    fn part_of_content(
        &self,
        info: &VersionInfo,
        batch: &Batch,
        chunk: ChunkId,
    ) -> Result<Frame, PrestageError> {
        let (content, bytes) = batch.places.get(&chunk).cloned().unwrap_or((chunk.0, 0..0));
        let mut plain = Vec::with_capacity(bytes.end.saturating_sub(bytes.start) as usize);
        let read = self.library.open_content(content).and_then(|reader| {
            let mut at = bytes.start;
            while at < bytes.end {
                let piece = reader.segment(at, (bytes.end - at) as usize)?.bytes;
                if piece.is_empty() {
                    break;
                }
                at += piece.len() as u64;
                plain.extend_from_slice(&piece);
            }
            Ok(())
        });
        read.map_err(|error| lost(info, content, error))?;
        match Digest::of(&plain) == chunk.0 && !plain.is_empty() {
            true => Ok(Frame::pack(&[plain.into()], true)),
            false => Err(lost(info, content, ReadError::Unknown(content.into()))),
        }
    }
}

/// Why a content that a version names cannot be read here.
fn lost(info: &VersionInfo, content: Digest, error: ReadError) -> PrestageError {
    match error {
        ReadError::Unknown(_) | ReadError::Suspect { .. } | ReadError::MissingChunk { .. } => {
            let (package, version) = (info.package.clone(), info.version);
            PrestageError::Lost { package, version, content }
        }
        error => PackageError::from(error).into(),
    }
}
