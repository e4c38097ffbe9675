//! Taking a bundle in.
//!
//! One pass. The head is verified before anything is stored. Then, version by version: the manifest
//! comes first and tells which contents there are; recipes must be those that it names, and chunks be
//! named by those recipes, or be such contents themselves. At each mark what came is made durable
//! and contents are put together, so memory holds the manifest, a line for each content of it, and
//! one batch. Records that were damaged are passed over; the first of them is told.
//!
//! A version that is whole in the end becomes visible ([`Packages::adopt`]), unless it is known that
//! nobody wishes it here. What the library turns out to lack although the inventory had it, or that
//! was damaged, is counted, and is for the network to bring, or for another bundle.
//!
//! Durable sessions keep what came: for a week after it came, or until the version is held and wished.

use super::wire::Named;
use super::{BadBundle, BundleDecoder, Damage, Head, PrestageError, Record, Step};
use crate::error::PackageError;
use crate::manifest::Manifest;
use crate::name::PackageName;
use crate::packages::Packages;
use crate::sign::VersionInfo;
use contentlib::{
    AddError, ChunkId, CommitError, Digest, Frame, Keeps, Progress, Recipe, Room, Session,
};
use jiff::Timestamp;
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What the names of the sessions that keep what came begin with.
const SESSIONS: &str = "prestaged/";
/// How long what came of a version stays if nothing else holds it.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// What came is made durable after so long at the latest.
const DURABLE_AFTER: Duration = Duration::from_secs(1);
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 1 << 30;

/// Whether somebody wishes a version here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The site does.
    Wished,
    /// The site does not.
    Unwished,
    /// The site was not heard.
    Unknown,
}

/// What an import came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Imported {
    /// When the bundle was made.
    pub created: Timestamp,
    /// Its versions, in its order. Of those that were not come to, before a bundle's end, it is told what
    /// the library has of them.
    pub versions: Vec<ImportedVersion>,
    /// Chunks that were stored.
    pub chunks: u64,
    /// Their bytes in the bundle.
    pub stored_bytes: u64,
    /// The first record that was not what was written.
    pub damage: Option<Damage>,
}

/// What became of one version.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImportedVersion {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// What became of it.
    pub state: ImportedState,
    /// Of its contents, those that are not held whole.
    pub missing_contents: u64,
    /// The bytes that are missing for them; if the manifest is, all of the version's.
    pub missing_bytes: u64,
    /// How long what came is kept, if nothing else holds it.
    pub kept_until: Option<Timestamp>,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportedState {
    /// It was visible here before.
    Already,
    /// It is visible from now on.
    Held,
    /// It is all here; the site does not wish it here, and once it does, nothing needs to be moved.
    Kept,
    /// Some of it is missing.
    Incomplete,
    /// Some of it is missing, and nothing of it came: the bundle is cut before it, or where it begins is
    /// damaged.
    NotReached,
}

impl Packages {
    /// Takes a bundle of this library's site in. `size` is its length in bytes, if that is known: then
    /// one for which there is no room is [`PrestageError::NoRoom`], before anything was stored; else it
    /// is noticed when the volume is full. `standing` says which versions are wished: those
    /// that are not do not become visible. An error before anything was stored is
    /// [`PrestageError::Bundle`]; a bundle that ends early or was damaged is no error, but told in the
    /// answer. `progress` counts files and bytes of the versions that are dealt with, and in
    /// `new_bytes` those stored.
    pub fn import(
        &self,
        from: &mut dyn Read,
        size: Option<u64>,
        standing: &dyn Fn(&VersionInfo) -> Standing,
        progress: &Progress,
    ) -> Result<Imported, PrestageError> {
        if !self.is_replica() {
            return Err(PackageError::NotAReplica.into());
        }
        let mut source = Source { from, decoder: BundleDecoder::default(), piece: vec![0; PIECE] };
        let Some(Step::Head(head)) = source.next().map_err(BadBundle::Io)?.transpose()? else {
            return Err(BadBundle::Head("it is cut off".into()).into());
        };
        self.believe(&head)?;
        if let Some(size) = size {
            self.has_room_for(&head, size)?;
        }
        progress.total_files.store(head.n_files(), Relaxed);
        progress.total_bytes.store(head.bytes(), Relaxed);
        let mut import = Import {
            packages: self,
            head: &head,
            standing,
            progress,
            versions: Vec::new(),
            current: None,
            damage: None,
            chunks: 0,
            stored_bytes: 0,
        };
        let ended = import.take(&mut source);
        // Also what came before an error stays.
        let finished = import.finish();
        ended?;
        finished?;
        import.did_not_come(head.versions.len())?;
        let Import { versions, damage, chunks, stored_bytes, .. } = import;
        Ok(Imported { created: head.created, versions, chunks, stored_bytes, damage })
    }

    /// An error if there is no room for what is missing of a bundle of `size` bytes.
    fn has_room_for(&self, head: &Head, size: u64) -> Result<(), PrestageError> {
        let session = self.library().session();
        let mut missing = 0u64;
        for info in &head.versions {
            missing = missing.saturating_add(self.missing_of(info, &session)?.1);
        }
        let needed = share(size, missing, head.bytes());
        match self.library().room().map_err(PackageError::from)? {
            Some(Room { free, reserve, usable }) if needed > usable => {
                Err(PrestageError::NoRoom { needed, free, reserve })
            }
            _ => Ok(()),
        }
    }

    /// How many of a version's contents are not held, and their bytes; all of them if its manifest is not.
    fn missing_of(
        &self,
        info: &VersionInfo,
        session: &Session,
    ) -> Result<(u64, u64), PrestageError> {
        if session.missing_contents(&[info.manifest]).map_err(PackageError::from)? == [true] {
            return Ok((info.n_files.max(1), info.bytes));
        }
        let manifest = self.manifest(info.manifest)?;
        Ok(Contents::of(&manifest, session)?.missing())
    }

    /// Whether all that a head says is this library's site's.
    fn believe(&self, head: &Head) -> Result<(), BadBundle> {
        let trusted = self.public_key();
        if head.key != trusted {
            return Err(BadBundle::Foreign { found: head.key, trusted });
        }
        head.versions.iter().try_for_each(|info| Ok(info.verify(&trusted)?))
    }

    /// The session that keeps what came of a version.
    fn prestaging(&self, package: &PackageName, version: u64) -> Result<Session, PackageError> {
        let name = format!("{SESSIONS}{package}/{version:010}");
        Ok(self.library().open_session(&name, KEPT, Keeps::All)?)
    }

    /// The versions of which something is kept that was imported.
    pub fn prestaged(&self) -> Vec<(PackageName, u64)> {
        let sessions = self.library().open_sessions(SESSIONS);
        let parsed = sessions.iter().filter_map(|name| {
            let (package, version) = name.strip_prefix(SESSIONS)?.rsplit_once('/')?;
            Some((package.parse().ok()?, version.parse().ok()?))
        });
        parsed.collect()
    }

    /// Ends the keeping of what was imported of a version: it is held, and its site wishes it.
    pub fn settle_prestaged(
        &self,
        package: &PackageName,
        version: u64,
    ) -> Result<(), PackageError> {
        Ok(self.prestaging(package, version)?.end()?)
    }
}

/// Of a bundle's bytes, what a library stores that lacks `missing` of the `all` bytes of its versions.
/// Of one that was taken in before in part, that is about right; of a new one it is all.
fn share(size: u64, missing: u64, all: u64) -> u64 {
    match all {
        0 => 0,
        _ => (u128::from(size) * u128::from(missing.min(all)) / u128::from(all)) as u64,
    }
}

/// The steps of a bundle, as they are read.
struct Source<'a> {
    from: &'a mut dyn Read,
    decoder: BundleDecoder,
    piece: Vec<u8>,
}

impl Source<'_> {
    /// The next step; nothing at the end, and the reader's error if it has one.
    fn next(&mut self) -> io::Result<Option<Result<Step, BadBundle>>> {
        loop {
            match self.decoder.next_step() {
                Ok(Some(step)) => return Ok(Some(Ok(step))),
                Err(error) => return Ok(Some(Err(error))),
                Ok(None) if self.decoder.is_lost() => return Ok(None),
                Ok(None) => {}
            }
            let n = match self.from.read(&mut self.piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if n == 0 {
                return Ok(None);
            }
            self.decoder.push(&self.piece[..n]);
        }
    }
}

struct Import<'a> {
    packages: &'a Packages,
    head: &'a Head,
    standing: &'a dyn Fn(&VersionInfo) -> Standing,
    progress: &'a Progress,
    /// What became of those that are done.
    versions: Vec<ImportedVersion>,
    current: Option<Current>,
    damage: Option<Damage>,
    chunks: u64,
    stored_bytes: u64,
}

/// The version that comes.
struct Current {
    at: usize,
    /// Keeps what came, whatever becomes of this process.
    lease: Session,
    was_visible: bool,
    /// Nothing until the manifest is here.
    contents: Option<Contents>,
    batch: Batch,
}

/// What came since the last mark, and what it should be.
struct Batch {
    session: Session,
    saved: Instant,
    recipes: Vec<(Digest, Recipe)>,
    /// Chunks that the recipes name.
    named: HashSet<ChunkId>,
    /// Of them, those that are not held.
    missing: HashSet<ChunkId>,
}

impl Batch {
    fn new(packages: &Packages) -> Self {
        Self {
            session: packages.library().session(),
            saved: Instant::now(),
            recipes: Vec::new(),
            named: HashSet::new(),
            missing: HashSet::new(),
        }
    }
}

/// The contents of a version, in the order of their digests.
struct Contents {
    lines: Vec<Line>,
    /// Those that are missing and have no recipe.
    n_small_missing: usize,
}

struct Line {
    content: Digest,
    /// The digest of the recipe, if there is more than one chunk.
    recipe: Option<Digest>,
    /// The bytes that are missing of it.
    missing: u64,
}

impl Contents {
    /// Those of `manifest`, with what the library lacks of them.
    fn of(manifest: &Manifest, lease: &Session) -> Result<Self, PrestageError> {
        let files = manifest.entries().filter_map(|entry| entry.file());
        let mut lines: Vec<Line> = files
            .map(|file| Line { content: file.digest, recipe: file.recipe, missing: file.size })
            .collect();
        lines.sort_unstable_by_key(|line| line.content);
        lines.dedup_by_key(|line| line.content);
        let mut contents = Self { lines, n_small_missing: 0 };
        contents.look(lease)?;
        Ok(contents)
    }

    /// How many are missing, and their bytes.
    fn missing(&self) -> (u64, u64) {
        let missing = self.lines.iter().filter(|line| line.missing > 0);
        missing.fold((0, 0), |(n, bytes), line| (n + 1, bytes.saturating_add(line.missing)))
    }

    /// Looks again for what was missing.
    fn look(&mut self, lease: &Session) -> Result<(), PrestageError> {
        const STEP: usize = 4096;
        self.n_small_missing = 0;
        for lines in self.lines.chunks_mut(STEP) {
            let mut lines: Vec<&mut Line> =
                lines.iter_mut().filter(|line| line.missing > 0).collect();
            let wanted: Vec<Digest> = lines.iter().map(|line| line.content).collect();
            let missing = lease.missing_contents(&wanted).map_err(PackageError::from)?;
            for (line, is_missing) in lines.iter_mut().zip(missing) {
                if !is_missing {
                    line.missing = 0;
                } else if line.recipe.is_none() {
                    self.n_small_missing += 1;
                }
            }
        }
        Ok(())
    }

    fn get(&mut self, content: Digest) -> Option<&mut Line> {
        let at = self.lines.binary_search_by_key(&content, |line| line.content).ok()?;
        self.lines.get_mut(at)
    }

    fn is_small(&self, chunk: ChunkId) -> bool {
        let found = self.lines.binary_search_by_key(&chunk.0, |line| line.content);
        found.is_ok_and(|at| self.lines[at].recipe.is_none())
    }
}

impl Import<'_> {
    /// Takes all records.
    fn take(&mut self, source: &mut Source<'_>) -> Result<(), PrestageError> {
        loop {
            self.progress.check()?;
            let (record, offset) = source.decoder.at();
            let damage = |what: String| Damage { record, offset, what };
            let step = match source.next() {
                Ok(Some(step)) => step?,
                Ok(None) => {
                    self.note(source.decoder.cut());
                    return Ok(());
                }
                Err(error) => {
                    self.note(Some(damage(format!("the bundle cannot be read on: {error}"))));
                    return Ok(());
                }
            };
            match step {
                Step::Head(_) => unreachable!("the decoder gives one head"),
                Step::Damaged(damage) | Step::Lost(damage) => self.note(Some(damage)),
                Step::Record(record) => {
                    if let Some(what) = self.record(record)? {
                        self.note(Some(damage(what)));
                    }
                }
            }
        }
    }

    fn note(&mut self, damage: Option<Damage>) {
        if self.damage.is_none() {
            self.damage = damage;
        }
    }

    /// Takes one record. Answers what is wrong with it, if anything is.
    fn record(&mut self, record: Record) -> Result<Option<String>, PrestageError> {
        match record {
            Record::Version(at) => {
                self.finish()?;
                let at = at as usize;
                if !(self.versions.len()..self.head.versions.len()).contains(&at) {
                    return Ok(Some("its versions do not come in the order of its head".into()));
                }
                // Where the records at which others began were damaged, those did not come.
                self.did_not_come(at)?;
                self.begin(at)?;
            }
            Record::Recipe { content, recipe } => {
                self.end_manifest(|manifest, _| content != manifest)?;
                return self.recipe(content, recipe);
            }
            Record::Chunks(frame) => {
                self.end_manifest(|manifest, named| {
                    let is_its = |id: &ChunkId| id.0 == manifest || named.contains(id);
                    frame.chunks().is_ok_and(|chunks| !chunks.iter().all(|(id, _)| is_its(id)))
                })?;
                return self.chunks(frame);
            }
            Record::Mark { files, bytes } => {
                self.mark()?;
                self.progress.files.store(files, Relaxed);
                self.progress.bytes.store(bytes, Relaxed);
            }
            Record::End => self.finish()?,
        }
        Ok(None)
    }

    fn begin(&mut self, at: usize) -> Result<(), PrestageError> {
        let info = &self.head.versions[at];
        let lease = self.packages.prestaging(&info.package, info.version)?;
        let key = crate::refs::version_key(&info.package, info.version);
        let visible = self.packages.library().get_ref(&key).map_err(PackageError::from)?;
        let was_visible = visible.is_some_and(|to| to.root == Some(info.manifest));
        let batch = Batch::new(self.packages);
        let mut current = Current { at, lease, was_visible, contents: None, batch };
        self.look_for_manifest(&mut current)?;
        self.current = Some(current);
        Ok(())
    }

    /// Reads the manifest of a version, if it is here.
    fn look_for_manifest(&self, current: &mut Current) -> Result<(), PrestageError> {
        let info = &self.head.versions[current.at];
        let missing = current.lease.missing_contents(&[info.manifest]);
        if current.contents.is_none() && missing.map_err(PackageError::from)? == [false] {
            let manifest = self.packages.manifest(info.manifest)?;
            if manifest.tree_digest() != info.tree {
                let (package, version) = (info.package.clone(), info.version);
                return Err(PackageError::OtherTree { package, version }.into());
            }
            current.contents = Some(Contents::of(&manifest, &current.lease)?);
        }
        Ok(())
    }

    /// If the manifest has not come to its mark, and `goes_on` says by its name and its chunks that
    /// what comes is of files already: as if the mark, which was damaged, were here.
    fn end_manifest(
        &mut self,
        goes_on: impl FnOnce(Digest, &HashSet<ChunkId>) -> bool,
    ) -> Result<(), PrestageError> {
        match &self.current {
            Some(Current { at, contents: None, batch, .. })
                if goes_on(self.head.versions[*at].manifest, &batch.named) =>
            {
                self.mark()
            }
            _ => Ok(()),
        }
    }

    fn recipe(&mut self, content: Digest, recipe: Recipe) -> Result<Option<String>, PrestageError> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let is_good = match &mut current.contents {
            None => {
                let manifest = self.head.versions[current.at].manifest;
                content == manifest && recipe.size() <= MAX_MANIFEST
            }
            Some(contents) => match contents.get(content) {
                Some(line) => line.recipe == Some(recipe.digest()),
                // The manifest's own, which was here.
                None => content == self.head.versions[current.at].manifest,
            },
        };
        if !is_good {
            return Ok(Some(format!("the recipe of {content} is not one that the manifest names")));
        }
        current.batch.named.extend(recipe.chunks());
        let is_missing = match &mut current.contents {
            None => true,
            Some(contents) => contents.get(content).is_some_and(|line| line.missing > 0),
        };
        if is_missing {
            let missing = current.lease.missing_chunks(recipe.chunks());
            let missing = missing.map_err(PackageError::from)?;
            let missing = recipe.chunks().iter().zip(missing).filter(|(_, missing)| *missing);
            current.batch.missing.extend(missing.map(|(chunk, _)| *chunk));
            current.batch.recipes.push((content, recipe));
        }
        Ok(None)
    }

    fn chunks(&mut self, frame: Frame) -> Result<Option<String>, PrestageError> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let small = current.contents.as_ref().map_or(1, |contents| contents.n_small_missing);
        if small == 0 && current.batch.missing.is_empty() {
            return Ok(None);
        }
        let manifest = ChunkId(self.head.versions[current.at].manifest);
        let (contents, named) = (&current.contents, &current.batch.named);
        let is_named = |id: &ChunkId| {
            named.contains(id)
                || *id == manifest
                || contents.as_ref().is_some_and(|contents| contents.is_small(*id))
        };
        let library = self.packages.library();
        let (mut n_new, mut looked) = (0, Ok(()));
        let mut are_named = true;
        let put = current.batch.session.put_frame_if(&frame, |ids| {
            are_named = ids.iter().all(is_named);
            if !are_named {
                return false;
            }
            match library.missing_chunks(ids) {
                Ok(missing) => n_new = missing.iter().filter(|missing| **missing).count(),
                Err(error) => looked = Err(error),
            }
            n_new > 0
        });
        looked.map_err(PackageError::from)?;
        let chunks = match put {
            Ok(Some(chunks)) => chunks,
            Ok(None) if are_named => return Ok(None),
            Ok(None) => return Ok(Some("it has chunks that nothing before it names".into())),
            Err(AddError::Frame(error)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(PackageError::from(error).into()),
        };
        for (id, _) in &chunks {
            current.batch.missing.remove(id);
        }
        self.chunks += n_new as u64;
        self.stored_bytes += frame.stored().len() as u64;
        self.progress.new_bytes.store(self.stored_bytes, Relaxed);
        if current.batch.saved.elapsed() >= DURABLE_AFTER {
            current.save()?;
        }
        Ok(None)
    }

    /// Makes durable what came since the last mark, and puts its contents together.
    fn mark(&mut self) -> Result<(), PrestageError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let marked = self.mark_of(&mut current);
        self.current = Some(current);
        marked
    }

    fn mark_of(&self, current: &mut Current) -> Result<(), PrestageError> {
        current.save()?;
        let batch = std::mem::replace(&mut current.batch, Batch::new(self.packages));
        let session = &current.batch.session;
        for (content, recipe) in &batch.recipes {
            let mut put = session.put_recipe(*content, recipe);
            if let Err(AddError::MissingChunks(condemned)) = &put {
                // Nothing refers to them yet, so a collection may have condemned them meanwhile.
                current.lease.missing_chunks(condemned).map_err(PackageError::from)?;
                put = session.put_recipe(*content, recipe);
            }
            let missing = match put {
                Ok(()) => 0,
                Err(AddError::MissingChunks(missing)) => {
                    let missing: HashSet<ChunkId> = missing.into_iter().collect();
                    let spans = recipe.spans().filter(|span| missing.contains(&span.chunk));
                    spans.map(|span| span.bytes.end - span.bytes.start).sum()
                }
                // Not the manifest's content, or bytes that read back as others: as good as nothing.
                Err(AddError::WrongDigest { .. }) => recipe.size(),
                Err(error) => return Err(PackageError::from(error).into()),
            };
            let line = current.contents.as_mut().and_then(|contents| contents.get(*content));
            if let Some(line) = line {
                line.missing = missing;
            }
        }
        current.save()?;
        self.look_for_manifest(current)
    }

    /// Says what became of the version that came.
    fn finish(&mut self) -> Result<(), PrestageError> {
        self.mark()?;
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let info = &self.head.versions[current.at];
        let (n, bytes) = match &mut current.contents {
            None => (1, info.bytes),
            Some(contents) => {
                contents.look(&current.lease)?;
                contents.missing()
            }
        };
        let standing = (self.standing)(info);
        let state = match (n, current.was_visible, standing) {
            (1.., _, _) => ImportedState::Incomplete,
            (0, true, _) => ImportedState::Already,
            (0, false, Standing::Unwished) => ImportedState::Kept,
            (0, false, _) => ImportedState::Held,
        };
        let is_here = matches!(state, ImportedState::Held | ImportedState::Already);
        if state == ImportedState::Held {
            self.packages.adopt(&self.packages.library().session(), info)?;
        }
        if is_here && standing == Standing::Unknown {
            self.call_it_as_the_bundle_does(&info.package)?;
        }
        let kept_until = match is_here && standing == Standing::Wished {
            true => {
                current.lease.end().map_err(PackageError::from)?;
                None
            }
            false => {
                current.lease.renew().map_err(PackageError::from)?;
                self.packages.now().checked_add(KEPT).ok()
            }
        };
        self.versions.push(ImportedVersion {
            package: info.package.clone(),
            version: info.version,
            state,
            missing_contents: n,
            missing_bytes: bytes,
            kept_until,
        });
        Ok(())
    }

    /// Where the site was not heard, names mean what the bundle says, but never an older version
    /// than they did: only the site moves them back.
    fn call_it_as_the_bundle_does(&self, package: &PackageName) -> Result<(), PrestageError> {
        let Some(Named { latest, channels }) = self.head.names.get(package) else { return Ok(()) };
        let now = self.packages.show(package)?;
        let before = now.latest.map(|latest| latest.version);
        let mut names = now.channels;
        for (name, to) in channels {
            let to = names.get(name).map_or(*to, |before| *before.max(to));
            names.insert(name.clone(), to);
        }
        self.packages.set_names(package, before.max(*latest), &names)?;
        Ok(())
    }

    /// Says what is here of the versions before the one at `end` whose beginning was not found. Those
    /// that are whole here are as if they had come.
    fn did_not_come(&mut self, end: usize) -> Result<(), PrestageError> {
        let session = self.packages.library().session();
        while let Some(info) = self.head.versions[..end].get(self.versions.len()) {
            let (missing_contents, missing_bytes) = self.packages.missing_of(info, &session)?;
            if missing_contents == 0 {
                self.begin(self.versions.len())?;
                self.finish()?;
                continue;
            }
            self.versions.push(ImportedVersion {
                package: info.package.clone(),
                version: info.version,
                state: ImportedState::NotReached,
                missing_contents,
                missing_bytes,
                kept_until: None,
            });
        }
        Ok(())
    }
}

impl Current {
    /// Makes durable what was added.
    fn save(&mut self) -> Result<(), PrestageError> {
        match self.batch.session.commit(Vec::new()) {
            // A chunk that another writer was about to store did not come: it is missing.
            Ok(()) | Err(CommitError::Interrupted) => {}
            Err(error) => return Err(PackageError::from(error).into()),
        }
        self.batch.saved = Instant::now();
        Ok(self.lease.renew().map_err(PackageError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn what_a_bundle_stores_is_its_share_of_what_is_missing() {
        assert_eq!(share(100, 1000, 1000), 100);
        assert_eq!(share(100, 100, 1000), 10);
        assert_eq!((share(100, 0, 1000), share(100, 0, 0)), (0, 0));
        assert_eq!(share(100, 2000, 1000), 100);
        assert_eq!(share(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
