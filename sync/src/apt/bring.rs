//! The first half of a sync: what is new of an archive, brought and verified.
//!
//! One conditional request for the signed Release of each suite; where that says nothing new, it is the
//! only one. Then come those indexes whose digest changed: as patches where they are smaller, else under
//! their own digest, where an archive in the middle of an update still has them, else by name.

use super::pdiff::{self, Script};
use super::release::{Listed, Release};
use super::source::Apt;
use super::state::{Identity, Index, Signed, State, Suite, TrackerFile, write_whole};
use crate::adapter::{Fetched, Run, Stage};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::fetch::{Came, Wanted};
use crate::openpgp::MAX_DOCUMENT;
use crate::unpack::{self, Packing};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use url::Url;

/// The largest index that is brought, in bytes.
const MAX_INDEX: u64 = 1 << 30;
/// The largest that it may unpack to; that of Debian's main component has 50 MB.
pub(super) const MAX_PLAIN: u64 = 4 << 30;
/// The largest document of a tracker, packed or not; Debian's JSON has 70 MB.
pub(super) const MAX_TRACKER: u64 = 512 << 20;
/// How many indexes are brought at once.
const AT_ONCE: usize = 4;
/// How far the date of a Release may lie ahead, in seconds: clocks differ.
const SKEW: i64 = 600;
/// Forms of an index, by the ends of their names.
const FORMS: [&str; 4] = [".xz", ".zst", ".gz", ""];

/// Brings what is new.
pub(super) async fn bring(
    apt: &Apt,
    run: &Run,
    state: Option<&serde_json::Value>,
) -> Result<Fetched, SyncError> {
    run.stage(Stage::Connect)?;
    let old = State::of(state)?;
    // Where a file was lost, everything is asked for as if for the first time.
    let is_held = state.is_some() && old.is_whole(&run.folder);
    let mut new = State::default();
    let mut releases = Vec::new();
    for name in &apt.settings.suites {
        let place = Place { apt, run, suite: name };
        let before = old.suites.get(name);
        let asked = place.ask(before, is_held).await.map_err(|error| error.within(name))?;
        match (asked, before) {
            (Some((suite, release)), _) => releases.push((place, suite, release)),
            (None, Some(before)) => {
                new.suites.insert(name.clone(), before.clone());
            }
            (None, None) => {
                let detail = format!("{name}: the server says that it is as before, unasked");
                return Err(SyncError::new(Cause::Malformed, detail));
            }
        }
    }
    let mut is_new = !releases.is_empty();
    for url in &apt.trackers {
        let before = old.trackers.get(url.as_str()).filter(|_| is_held);
        let tracker = tracker(run, url, before).await?;
        is_new |= before.is_none_or(|before| before.file != tracker.file);
        new.trackers.insert(url.to_string(), tracker);
    }
    if !is_new {
        return Ok(Fetched::Unchanged);
    }
    run.stage(Stage::Fetch)?;
    for (place, mut suite, release) in releases {
        let before = old.suites.get(place.suite);
        let indexes = place.indexes(&release, before).await;
        suite.indexes = indexes.map_err(|error| error.within(place.suite))?.into_iter().collect();
        new.suites.insert(place.suite.to_owned(), suite);
    }
    new.plan(&run.folder, &old)?;
    Ok(Fetched::Changed)
}

/// One suite of an archive, as it is brought.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub apt: &'a Apt,
    pub run: &'a Run,
    pub suite: &'a str,
}

/// An index to bring: what it is of, and the forms that the Release lists, the smallest first.
struct Choice<'a> {
    path: String,
    arch: String,
    forms: Vec<(String, &'a Listed)>,
    plain: Option<&'a Listed>,
}

impl Place<'_> {
    /// The path of the suite's folder, from the root of the archive.
    pub fn folder(&self) -> String {
        folder_of(self.suite)
    }

    /// Asks for the Release; none, where it is as before.
    async fn ask(
        &self,
        before: Option<&Suite>,
        is_held: bool,
    ) -> Result<Option<(Suite, Release)>, SyncError> {
        let held = before.filter(|_| is_held);
        let was_beside = held.is_some_and(|held| matches!(held.signed, Signed::Beside(_)));
        if !was_beside {
            match self.ask_for("InRelease", held, before).await {
                Err(error) if error.cause == Cause::NotFound => {}
                asked => return asked,
            }
        }
        self.ask_for("Release", held.filter(|_| was_beside), before).await
    }

    async fn ask_for(
        &self,
        name: &str,
        held: Option<&Suite>,
        before: Option<&Suite>,
    ) -> Result<Option<(Suite, Release)>, SyncError> {
        let run = self.run;
        let url = self.apt.url(&format!("{}/{name}", self.folder()))?;
        let arrived = run.file("release.new");
        let nothing = Digests::default();
        let came = run.fetcher.file(
            Wanted {
                url: &url,
                to: &arrived,
                most: MAX_DOCUMENT as u64,
                size: None,
                digests: &nothing,
                since: held.map(|held| &held.validators),
            },
            &run.watch,
        );
        let Came::File { validators, .. } = came.await? else {
            return self.as_before(held);
        };
        let document = read(&arrived).await?;
        tokio::fs::remove_file(&arrived)
            .await
            .map_err(|error| SyncError::local(arrived.display(), error))?;
        let (hex, is_inline) = (sha256(&document), name == "InRelease");
        let document_file = format!("{}-{hex}", if is_inline { "inrelease" } else { "release" });
        // A server that knows no conditions sends again what is held.
        if let Some(held) = held
            && held.files().any(|file| file == document_file)
        {
            return self.as_before(Some(held));
        }
        run.stage(Stage::Verify)?;
        let keyring = &self.apt.settings.keyring;
        let (text, signed) = if is_inline {
            let signed = keyring.signed_text(&document, run.now);
            let (text, _) = signed.map_err(|why| why.of(&url))?;
            write_whole(&run.folder, &document_file, &document)?;
            (text, Signed::Inline(document_file))
        } else {
            let beside = self.apt.url(&format!("{}/Release.gpg", self.folder()))?;
            let signature = run.fetcher.bytes(&beside, 1 << 20, &run.watch).await;
            let signature = signature.map_err(|error| match error.cause {
                Cause::NotFound => {
                    let folder = self.apt.url(&self.folder()).unwrap_or(url.clone());
                    let detail = format!(
                        "{folder} is not signed: neither InRelease nor Release.gpg is there"
                    );
                    SyncError::because(Cause::BadSignature, detail, error)
                }
                _ => error,
            })?;
            let signed = keyring.signer_of(&document, &signature, run.now);
            signed.map_err(|why| why.of(&url))?;
            let file = format!("signature-{}", sha256(&signature));
            write_whole(&run.folder, &file, &signature)?;
            (document, Signed::Beside(file))
        };
        let release = Release::parse(&text).map_err(|error| {
            SyncError::because(Cause::Malformed, format!("{url} cannot be read"), error)
        })?;
        check(&release, before, run.now)?;
        let file = format!("release-{}", sha256(&text));
        write_whole(&run.folder, &file, &text)?;
        let suite = Suite {
            release: file,
            signed,
            validators,
            date: release.date,
            valid_until: release.valid_until,
            identity: identity(&release),
            indexes: Default::default(),
        };
        Ok(Some((suite, release)))
    }

    /// What is held is what there is; but not for ever, if it has an end.
    fn as_before(&self, held: Option<&Suite>) -> Result<Option<(Suite, Release)>, SyncError> {
        let end = held.and_then(|held| held.valid_until);
        fresh(end, self.run.now).map(|()| None)
    }

    /// The indexes of packages, those that did not change as they were.
    async fn indexes(
        &self,
        release: &Release,
        before: Option<&Suite>,
    ) -> Result<Vec<(String, Index)>, SyncError> {
        let mut work = Vec::new();
        for choice in self.choices(release)? {
            let old = before.and_then(|before| before.indexes.get(&choice.path));
            work.push(self.index(release, choice, old));
        }
        stream::iter(work).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Which indexes there are of what the settings name.
    fn choices<'a>(&self, release: &'a Release) -> Result<Vec<Choice<'a>>, SyncError> {
        let settings = &self.apt.settings;
        let missing = |what: &str, wanted: &str, known: &[String]| {
            let known = known.join(", ");
            let detail = format!("the archive has no {what} {wanted:?}; it has {known}");
            Err(SyncError::new(Cause::Misconfigured, detail))
        };
        let mut paths = Vec::new();
        if self.suite.ends_with('/') {
            paths.push((String::from("Packages"), String::from("all")));
        }
        for component in &settings.components {
            // `updates/main` of a security suite lies in `main`.
            let component = component.rsplit('/').next().unwrap_or_default();
            if !release.components.is_empty() && !release.components.iter().any(|c| c == component)
            {
                return missing("component", component, &release.components);
            }
            for arch in &settings.architectures {
                if !release.architectures.is_empty() && !release.architectures.contains(arch) {
                    return missing("architecture", arch, &release.architectures);
                }
                paths.push((format!("{component}/binary-{arch}/Packages"), arch.clone()));
            }
            if release.has_index_for_all {
                paths.push((format!("{component}/binary-all/Packages"), "all".into()));
            }
        }
        let choice = |(path, arch): (String, String)| {
            let listed = FORMS.iter().filter_map(|end| {
                let path = format!("{path}{end}");
                release.file(&path).map(|(_, listed)| (path, listed))
            });
            let mut forms: Vec<_> = listed.collect();
            // The plain one is often listed and not there.
            let is_plain = |name: &str| Packing::of_name(name) == Packing::Plain;
            forms.sort_by_key(|(name, listed)| (is_plain(name), listed.size));
            let plain = release.file(&path).map(|(_, listed)| listed);
            // What the Release does not list does not exist.
            (!forms.is_empty()).then_some(Choice { path, arch, forms, plain })
        };
        let choices: Vec<_> = paths.into_iter().filter_map(choice).collect();
        if choices.is_empty() {
            let detail = "its Release lists no index of packages for what the settings name";
            return Err(SyncError::new(Cause::NotFound, detail));
        }
        Ok(choices)
    }

    async fn index(
        &self,
        release: &Release,
        choice: Choice<'_>,
        old: Option<&Index>,
    ) -> Result<(String, Index), SyncError> {
        let index = self.index_of(release, &choice, old).await?;
        Ok((choice.path, index))
    }

    async fn index_of(
        &self,
        release: &Release,
        choice: &Choice<'_>,
        old: Option<&Index>,
    ) -> Result<Index, SyncError> {
        let Some((_, smallest)) = choice.forms.first() else {
            return Err(SyncError::new(Cause::NotFound, format!("{} is not listed", choice.path)));
        };
        let content = &choice.plain.unwrap_or(smallest).digests;
        if let Some(old) = old
            && old.content.strongest() == content.strongest()
            && self.run.file(&old.file).is_file()
        {
            return Ok(old.clone());
        }
        if let (Some(old), Some(plain)) = (old, choice.plain) {
            let patched = self.patched(release, choice, plain, smallest.size, old).await;
            match patched {
                Ok(Some(index)) => return Ok(index),
                Ok(None) => {}
                Err(error) if matches!(error.cause, Cause::Cancelled | Cause::Local) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, path = choice.path, "patches do not lead to the index");
                }
            }
        }
        let mut found = None;
        for (path, listed) in &choice.forms {
            match self.listed(release, path, listed, "index").await {
                Ok(file) => {
                    let (size, arch) = (listed.size, choice.arch.clone());
                    let (content, listed) = (content.clone(), Some(path.clone()));
                    return Ok(Index { file, size, content, arch, listed });
                }
                Err(error) if error.cause == Cause::NotFound => {
                    found.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        // The archive lists what it does not have.
        let detail = format!("{} is listed and not there; the mirror may be changing", choice.path);
        Err(SyncError { cause: Cause::Mismatch, detail, source: found.map(Into::into) })
    }

    /// Brings a file that the Release lists, and says under which name it lies in the folder.
    pub async fn listed(
        &self,
        release: &Release,
        path: &str,
        listed: &Listed,
        kind: &str,
    ) -> Result<String, SyncError> {
        let run = self.run;
        let (algorithm, hex) = listed.digests.strongest().ok_or_else(|| {
            SyncError::new(Cause::Unsupported, format!("{path} has no digest that proves it"))
        })?;
        let end = FORMS.iter().find(|end| path.ends_with(*end)).copied().unwrap_or_default();
        let name = format!("{kind}-{hex}{end}");
        let by_hash = release.by_hash.then(|| by_hash(path, algorithm, hex));
        let mut outcome = Err(SyncError::new(Cause::NotFound, format!("{path} is not there")));
        for path in by_hash.iter().map(String::as_str).chain([path]) {
            let url = self.apt.url(&format!("{}/{path}", self.folder()))?;
            let wanted = Wanted {
                url: &url,
                to: &run.file(&name),
                most: MAX_INDEX,
                size: Some(listed.size),
                digests: &listed.digests,
                since: None,
            };
            outcome = run.fetcher.file(wanted, &run.watch).await.map(|_| name.clone());
            match &outcome {
                Err(error) if error.cause == Cause::NotFound => {}
                _ => break,
            }
        }
        outcome
    }

    /// The index as patches make it of the old one; none where there is no way, or a longer one.
    async fn patched(
        &self,
        release: &Release,
        choice: &Choice<'_>,
        plain: &Listed,
        most: u64,
        old: &Index,
    ) -> Result<Option<Index>, SyncError> {
        let run = self.run;
        let folder = format!("{}.diff", choice.path);
        let index_path = format!("{folder}/Index");
        let held = run.file(&old.file);
        let Some((_, listed)) = release.file(&index_path).filter(|_| held.is_file()) else {
            return Ok(None);
        };
        if listed.size >= most {
            return Ok(None);
        }
        let file = self.listed(release, &index_path, listed, "patches").await?;
        let index = pdiff::Index::parse(&read(&run.file(&file)).await?).map_err(|error| {
            SyncError::because(Cause::Malformed, format!("{index_path} cannot be read"), error)
        })?;
        let sha256 = |digests: &Digests| digests.get(Algorithm::Sha256).map(str::to_owned);
        let leads_here = sha256(&index.current.digests) == sha256(&plain.digests);
        let Some(way) = index.way(&old.content).filter(|_| leads_here) else { return Ok(None) };
        let sum: u64 = way.iter().map(|patch| patch.packed.size).sum();
        if listed.size.saturating_add(sum) >= most {
            return Ok(None);
        }
        let mut scripts = Vec::new();
        for patch in way {
            let path = format!("{folder}/{}.gz", patch.name);
            let packed = Listed { size: patch.packed.size, digests: patch.packed.digests.clone() };
            // Patches have no name by their own digest.
            let by_name = Release { by_hash: false, ..Release::default() };
            let file = self.listed(&by_name, &path, &packed, "patch").await?;
            scripts.push((run.file(&file), patch.plain));
        }
        let (_, hex) = plain.digests.strongest().unwrap_or((Algorithm::Sha256, ""));
        let file = format!("index-{hex}.zst");
        let (to, plain) = (run.file(&file), plain.clone());
        let (work_plain, packing) = (plain.clone(), Packing::of_name(&old.file));
        let work = move || apply(&held, packing, &scripts, &to, &work_plain);
        let size = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| SyncError::because(Cause::Local, "patching ended early", error))??;
        tracing::debug!(path = choice.path, bytes = sum, "patched");
        let (content, arch) = (plain.digests.clone(), choice.arch.clone());
        Ok(Some(Index { file, size, content, arch, listed: None }))
    }
}

/// The path of a suite's folder, from the root of the archive.
pub(super) fn folder_of(suite: &str) -> String {
    suite.strip_suffix('/').map_or_else(|| format!("dists/{suite}"), str::to_owned)
}

/// The path of a file under its own digest.
pub(super) fn by_hash(path: &str, algorithm: Algorithm, hex: &str) -> String {
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let name = match algorithm {
        Algorithm::Md5 => "MD5Sum",
        Algorithm::Sha1 => "SHA1",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
    };
    format!("{folder}by-hash/{name}/{hex}")
}

fn identity(release: &Release) -> Identity {
    Identity {
        origin: release.origin.clone(),
        label: release.label.clone(),
        suite: release.suite.clone(),
        codename: release.codename.clone(),
    }
}

/// Whether a Release whose signature is good may be taken after what was held.
fn check(release: &Release, before: Option<&Suite>, now: Timestamp) -> Result<(), SyncError> {
    if let Some(date) = release.date
        && date.as_second() > now.as_second() + SKEW
    {
        let detail = format!("its Release is of {date}, and here it is {now}; a clock is wrong");
        return Err(SyncError::new(Cause::FromTheFuture, detail));
    }
    fresh(release.valid_until, now)?;
    let Some(before) = before else { return Ok(()) };
    if before.date.is_some() && release.date < before.date {
        let date = |date: Option<Timestamp>| date.map_or("no date".into(), |it| it.to_string());
        let detail = format!(
            "its Release is of {}, older than the one that is held, of {}; the mirror is behind, or \
             somebody replays",
            date(release.date),
            date(before.date)
        );
        return Err(SyncError::new(Cause::Replayed, detail));
    }
    let (was, is) = (&before.identity, identity(release));
    for (field, was, is) in [
        ("Origin", &was.origin, &is.origin),
        ("Label", &was.label, &is.label),
        ("Suite", &was.suite, &is.suite),
        ("Codename", &was.codename, &is.codename),
    ] {
        if was != is {
            let detail = format!(
                "its {field} was {was:?} and is {is:?}; if that is right, set the source up anew"
            );
            return Err(SyncError::new(Cause::Altered, detail));
        }
    }
    Ok(())
}

fn fresh(end: Option<Timestamp>, now: Timestamp) -> Result<(), SyncError> {
    match end {
        Some(end) if end < now => {
            let detail = format!(
                "its Release was valid until {end}, and here it is {now}; the mirror stands still, or \
                 a clock is wrong"
            );
            Err(SyncError::new(Cause::Expired, detail))
        }
        _ => Ok(()),
    }
}

/// A document of a tracker. If it cannot be had, what is held stays: an update is not to wait for it.
async fn tracker(
    run: &Run,
    url: &Url,
    before: Option<&TrackerFile>,
) -> Result<TrackerFile, SyncError> {
    let arrived = run.file("tracker.new");
    let nothing = Digests::default();
    let wanted = Wanted {
        url,
        to: &arrived,
        most: MAX_TRACKER,
        size: None,
        digests: &nothing,
        since: before.map(|before| &before.validators),
    };
    let came = run.fetcher.file(wanted, &run.watch).await;
    match (came, before) {
        (Ok(Came::File { validators, .. }), _) => {
            let path = arrived.clone();
            let hashed = tokio::task::spawn_blocking(move || hash(&path)).await;
            let hex = hashed
                .map_err(io::Error::other)
                .flatten()
                .map_err(|error| SyncError::local(arrived.display(), error))?;
            let end = [".xz", ".gz", ".zst"].into_iter().find(|end| url.path().ends_with(end));
            let file = format!("tracker-{hex}{}", end.unwrap_or_default());
            let renamed = tokio::fs::rename(&arrived, run.file(&file)).await;
            renamed.map_err(|error| SyncError::local(arrived.display(), error))?;
            Ok(TrackerFile { file, validators, stale: None })
        }
        (Ok(_), Some(before)) => Ok(TrackerFile { stale: None, ..before.clone() }),
        (Err(error), Some(before))
            if !matches!(error.cause, Cause::Cancelled | Cause::Local | Cause::Misconfigured) =>
        {
            tracing::warn!(%url, %error, "the tracker's document stays as it is held");
            Ok(TrackerFile { stale: Some(error.to_string()), ..before.clone() })
        }
        (Err(error), _) => Err(error.within("the tracker")),
        (Ok(_), None) => {
            let detail = format!("{url}: the server says that it is as before, unasked");
            Err(SyncError::new(Cause::Malformed, detail))
        }
    }
}

/// Applies scripts one after the other and writes the outcome, compressed; the bytes of its file.
fn apply(
    old: &Path,
    packing: Packing,
    scripts: &[(PathBuf, pdiff::Stated)],
    to: &Path,
    stated: &Listed,
) -> Result<u64, SyncError> {
    let local = |error| SyncError::local(to.display(), error);
    let bad = |error| SyncError::because(Cause::Mismatch, "a patch is not of this index", error);
    let mut from: Box<dyn io::BufRead + Send> = packing.open(old, MAX_PLAIN)?;
    for (at, (path, plain)) in scripts.iter().enumerate() {
        let script = script(path, plain)?;
        if at + 1 == scripts.len() {
            let part = to.with_extension("zst.part");
            let mut plain = Hasher::proving(&stated.digests);
            let packed = File::create(&part).map_err(local)?;
            let mut packed = zstd::Encoder::new(BufWriter::new(packed), 3).map_err(local)?;
            script.apply(from, Tee(&mut packed, &mut plain)).map_err(bad)?;
            packed.finish().and_then(|mut it| it.flush()).map_err(local)?;
            let (size, found) = plain.finish();
            if size != stated.size || found.strongest() != stated.digests.strongest() {
                std::fs::remove_file(&part).map_err(local)?;
                let detail = "patches do not lead to the index that the Release lists";
                return Err(SyncError::new(Cause::Mismatch, detail));
            }
            std::fs::rename(&part, to).map_err(local)?;
            return std::fs::metadata(to).map(|found| found.len()).map_err(local);
        }
        let folder = to.parent().unwrap_or(Path::new("."));
        let between = tempfile::tempfile_in(folder).map_err(local)?;
        let mut between = BufWriter::new(between);
        script.apply(from, &mut between).map_err(bad)?;
        let mut between = between.into_inner().map_err(|error| local(error.into_error()))?;
        io::Seek::rewind(&mut between).map_err(local)?;
        from = Box::new(BufReader::with_capacity(256 << 10, between));
    }
    Err(SyncError::new(Cause::Mismatch, "there is no patch"))
}

fn script(path: &Path, plain: &pdiff::Stated) -> Result<Script, SyncError> {
    let what = path.display();
    let mut text = Vec::new();
    let read = Packing::Gzip.open(path, plain.size)?.read_to_end(&mut text);
    read.map_err(|error| unpack::reading(&what, error))?;
    let mut hasher = Hasher::proving(&plain.digests);
    hasher.update(&text);
    let (size, found) = hasher.finish();
    if size != plain.size || found.strongest() != plain.digests.strongest() {
        let detail = format!("{what} is not the patch that was stated");
        return Err(SyncError::new(Cause::Mismatch, detail));
    }
    Script::parse(&text).map_err(|error| {
        SyncError::because(Cause::Malformed, format!("{what} cannot be read"), error)
    })
}

/// Writes, and hashes what was written.
struct Tee<'a, W>(&'a mut W, &'a mut Hasher);

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(bytes)?;
        self.1.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, SyncError> {
    tokio::fs::read(path).await.map_err(|error| SyncError::local(path.display(), error))
}

/// SHA-256, as hex digits: what files of the folder are named after.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    hasher.update(bytes);
    hasher.finish().1.get(Algorithm::Sha256).unwrap_or_default().to_owned()
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut hasher, mut file) = (Hasher::new([Algorithm::Sha256]), File::open(path)?);
    let mut piece = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            let (_, found) = hasher.finish();
            return Ok(found.get(Algorithm::Sha256).unwrap_or_default().to_owned());
        }
        hasher.update(piece.get(..n).unwrap_or_default());
    }
}
