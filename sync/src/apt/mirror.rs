//! Snapshots of an archive: which files a mirror of it has, whole or filtered.
//!
//! A whole one keeps all metadata as they are signed, byte for byte, so that machines trust it as they
//! trust the archive; it also ends when the archive's signature says so (`Valid-Until`). A filtered one has
//! indexes of what was chosen and a Release of its own, with the date of the archive's and without an end,
//! signed by whoever makes it. The same choice of the same state gives the same bytes.

use super::bring::{self, Place, by_hash, folder_of};
use super::closure::{Closed, Closure};
use super::deb822::Stanzas;
use super::packages::Package;
use super::release::{Listed, Release};
use super::source::{Apt, Settings};
use super::state::{Index, Signed, State, Suite};
use super::version;
use crate::adapter::{Run, Skipped};
use crate::digests::{Algorithm, Digests, Hasher};
use crate::error::{Cause, SyncError};
use crate::mirror::{MirrorFile, Origin, RepoPath, matches};
use crate::openpgp::SigningKey;
use crate::unpack::{self, Packing};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How many files of metadata are brought at once.
const AT_ONCE: usize = 4;

/// A snapshot, as the last sync left the archive.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its files, by path; metadata lie on this machine, packages at the archive.
    pub files: Vec<MirrorFile>,
    /// After this, clients refuse it.
    pub valid_until: Option<Timestamp>,
    /// Packages that could not be understood, and metadata that are not what the Release says: left out.
    pub skipped: Skipped,
    /// What chosen packages depend on and the archive does not have, each with a package that does.
    pub unmet: Vec<String>,
}

/// Which packages a filtered mirror has.
///
/// A package is taken if one of `names`, `sources` and `wanted` names it, or all three name nothing; and
/// if its section and architecture are among those named, or none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chosen {
    /// Binary packages; `*` stands for any letters.
    pub names: Vec<String>,
    /// Source packages, likewise.
    pub sources: Vec<String>,
    /// Binary packages, word by word: as those that machines have.
    pub wanted: BTreeSet<String>,
    /// Sections, as `net`.
    pub sections: BTreeSet<String>,
    /// Architectures; packages for all of them are always among them.
    pub architectures: BTreeSet<String>,
    /// Whether of each package only the newest version is taken.
    pub newest_only: bool,
    /// Whether what the taken packages depend on is taken, too, as far as the archive has it.
    pub with_dependencies: bool,
}

/// A Release, signed.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// The clear-signed document.
    pub in_release: Vec<u8>,
    /// The signature beside.
    pub release_gpg: Vec<u8>,
}

/// Signs the bytes of a Release that is of that time.
pub type Sign<'a> = dyn Fn(&[u8], Timestamp) -> Result<Signatures, SyncError> + Send + Sync + 'a;

/// Signs with `key`, at the time that the Release is of, so that the same is always signed the same way.
pub fn sign_with(
    key: &SigningKey,
) -> impl Fn(&[u8], Timestamp) -> Result<Signatures, SyncError> + Send + Sync + '_ {
    move |release, date| {
        // No signature is older than its key.
        let at = date.max(key.created());
        let failed = |error| SyncError::because(Cause::Local, "a Release cannot be signed", error);
        Ok(Signatures {
            in_release: key.clear_sign(release, at).map_err(failed)?,
            release_gpg: key.detach_sign(release, at).map_err(failed)?.into_bytes(),
        })
    }
}

impl Chosen {
    fn takes(&self, package: &Package<'_>) -> bool {
        let is_any = self.names.is_empty() && self.sources.is_empty() && self.wanted.is_empty();
        let is_named = || {
            self.names.iter().any(|pattern| matches(pattern, package.name))
                || self.sources.iter().any(|pattern| matches(pattern, package.source))
                || self.wanted.contains(package.name)
        };
        let section = package.section.rsplit('/').next().unwrap_or_default();
        let in_section = self.sections.is_empty()
            || self.sections.contains(section)
            || self.sections.contains(package.section);
        (is_any || is_named()) && in_section && self.takes_arch(package.arch)
    }

    /// The names and patterns that a package was chosen by.
    fn by<'a>(&'a self, package: &'a Package<'_>) -> impl Iterator<Item = &'a str> {
        let names = self.names.iter().filter(|pattern| matches(pattern, package.name));
        let sources = self.sources.iter().filter(|pattern| matches(pattern, package.source));
        let wanted = self.wanted.get(package.name);
        names.chain(sources).map(String::as_str).chain(wanted.map(String::as_str))
    }

    /// All names and patterns.
    fn all(&self) -> impl Iterator<Item = &str> {
        let named = self.names.iter().chain(&self.sources);
        named.map(String::as_str).chain(self.wanted.iter().map(String::as_str))
    }

    fn takes_arch(&self, arch: &str) -> bool {
        arch == "all" || self.architectures.is_empty() || self.architectures.contains(arch)
    }
}

impl Apt {
    /// All of the archive that the settings name, as `state` has it.
    ///
    /// Metadata that are not held yet are brought into the source's folder, where they stay until the next
    /// sync that finds something new: take them over before that. What the Release lists and the archive
    /// does not have is left out, as the archive does.
    pub async fn whole(&self, run: &Run, state: &serde_json::Value) -> Result<Snapshot, SyncError> {
        let state = State::of(Some(state))?;
        let mut list = List::default();
        for (name, suite) in &state.suites {
            let place = Place { apt: self, run, suite: name };
            let release = release_of(run, suite)?;
            list.end(suite.valid_until);
            self.signed(place, suite, &release.1, &mut list).await?;
            let metadata = metadata(place, suite, &release.0).await;
            for (path, listed, file) in metadata.map_err(|error| error.within(name))? {
                match file {
                    Ok(file) => {
                        let file = run.file(&file);
                        list.index(name, &path, &listed, &file, release.0.by_hash)?;
                    }
                    Err(why) => list.skipped.add(why),
                }
            }
            for (path, index) in &suite.indexes {
                let mut skipped = std::mem::take(&mut list.skipped);
                each(run, path, index, &mut skipped, &mut |package| list.package(self, package))?;
                list.skipped.and(skipped);
            }
        }
        Ok(list.done())
    }

    /// The signed documents, byte for byte.
    async fn signed(
        &self,
        place: Place<'_>,
        suite: &Suite,
        text: &[u8],
        list: &mut List,
    ) -> Result<(), SyncError> {
        let run = place.run;
        let at = |name: &str| format!("{}/{name}", place.folder());
        match &suite.signed {
            Signed::Inline(file) => {
                list.local(&at("InRelease"), &run.file(file))?;
                // Old clients ask for the two files. They are left out where they are not those of this
                // Release, or not there.
                let url = self.url(&at("Release.gpg"))?;
                match run.fetcher.bytes(&url, 1 << 20, &run.watch).await {
                    Ok(beside) => {
                        let keyring = &self.settings.keyring;
                        if keyring.signer_of(text, &beside, run.now).is_ok() {
                            list.made(&at("Release"), text.to_vec())?;
                            list.made(&at("Release.gpg"), beside.to_vec())?;
                        }
                    }
                    Err(error) if error.cause == Cause::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Signed::Beside(file) => {
                list.local(&at("Release"), &run.file(&suite.release))?;
                list.local(&at("Release.gpg"), &run.file(file))?;
            }
        }
        Ok(())
    }

    /// What `chosen` takes of the archive, as `state` has it, with metadata of its own that lie in `into`
    /// and are signed by `sign`. It blocks.
    pub fn chosen(
        &self,
        run: &Run,
        state: &serde_json::Value,
        chosen: &Chosen,
        into: &Path,
        sign: &Sign<'_>,
    ) -> Result<Snapshot, SyncError> {
        let state = State::of(Some(state))?;
        let mut list = List::default();
        let closed = chosen.with_dependencies.then(|| closed(run, &state, chosen)).transpose()?;
        let unmet = closed.iter().flat_map(|closed| &closed.unmet);
        list.unmet = unmet.map(|(clause, who)| format!("{clause}, for {who}")).collect();
        let mut met = BTreeSet::new();
        for (name, suite) in &state.suites {
            let (release, _) = release_of(run, suite)?;
            let newest =
                if chosen.newest_only { newest(run, suite, chosen)? } else { HashMap::new() };
            let mut files = BTreeMap::new();
            let is_taken = |package: &Package<'_>| match &closed {
                Some(closed) => {
                    let [name, version, arch] = [package.name, package.version, package.arch];
                    let key = (name.to_owned(), version.to_owned(), arch.to_owned());
                    closed.packages.contains(&key)
                }
                None => chosen.takes(package) && is_newest(package, &newest),
            };
            for (path, index) in &suite.indexes {
                if !chosen.takes_arch(&index.arch) {
                    continue;
                }
                let mut made = Made::new(into)?;
                let mut skipped = std::mem::take(&mut list.skipped);
                each(run, path, index, &mut skipped, &mut |package| {
                    if is_taken(package) {
                        met.extend(chosen.by(package).map(str::to_owned));
                        made.write(package.text().trim_end().as_bytes())?;
                        made.write(b"\n\n")?;
                        list.package(self, package)?;
                    }
                    Ok(())
                })?;
                list.skipped.and(skipped);
                for (end, listed, file) in made.done()? {
                    let path: RepoPath = repo_path(&format!("{path}{end}"))?;
                    list.index(name, &path, &listed, &file, true)?;
                    files.insert(path, listed);
                }
            }
            let date = release.date.unwrap_or(run.now);
            let text = remade(&self.settings, &release, chosen, date, &files);
            let signed = sign(text.as_bytes(), date)?;
            let at = |name_of: &str| format!("{}/{name_of}", folder_of(name));
            list.made(&at("Release"), text.into_bytes())?;
            list.made(&at("InRelease"), signed.in_release)?;
            list.made(&at("Release.gpg"), signed.release_gpg)?;
        }
        let not_there = chosen.all().filter(|name| !met.contains(*name)).map(str::to_owned);
        list.unmet.extend(not_there);
        Ok(list.done())
    }
}

/// The Release that is held, read, and its bytes.
fn release_of(run: &Run, suite: &Suite) -> Result<(Release, Vec<u8>), SyncError> {
    let path = run.file(&suite.release);
    let text = std::fs::read(&path).map_err(|error| SyncError::local(path.display(), error))?;
    let release = Release::parse(&text).map_err(|error| {
        SyncError::because(Cause::Malformed, "the Release that is held cannot be read", error)
    })?;
    Ok((release, text))
}

/// A file of metadata: its path, what is stated of it, and its name in the folder; or why it is left out.
type Metadata = (RepoPath, Listed, Result<String, SyncError>);

/// The files that a Release lists of what the settings name, and that the archive has.
async fn metadata(
    place: Place<'_>,
    suite: &Suite,
    release: &Release,
) -> Result<Vec<Metadata>, SyncError> {
    let mut work = Vec::new();
    for (path, listed) in &release.files {
        // Where packages for all architectures stand in each index, nobody reads one of their own.
        let is_unread = path.as_str().contains("/binary-all/") && !release.has_index_for_all;
        if is_unread || !is_of(&place.apt.settings, place.suite, path.as_str()) {
            continue;
        }
        // The plain form is listed, because machines unpack to it; that it is there is rare.
        let packed = |end: &&str| release.file(&format!("{path}{end}")).is_some();
        if [".xz", ".gz", ".zst", ".bz2", ".lzma"].iter().any(packed) {
            continue;
        }
        let held = suite.indexes.values().find(|it| it.listed.as_deref() == Some(path.as_str()));
        work.push(one(place, release, path, listed, held));
    }
    let found: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Brings one. What is listed and not there is left out; so is what is there and another, unless it is an
/// index of packages, without which a mirror is none.
async fn one(
    place: Place<'_>,
    release: &Release,
    path: &RepoPath,
    listed: &Listed,
    held: Option<&Index>,
) -> Result<Option<Metadata>, SyncError> {
    let file = match held {
        Some(index) => Ok(index.file.clone()),
        None => place.listed(release, path.as_str(), listed, "metadata").await,
    };
    let is_needed = path.as_str().contains("Packages");
    match file {
        Err(error) if error.cause == Cause::NotFound => Ok(None),
        Err(error) if is_needed || error.cause != Cause::Mismatch => Err(error),
        file => Ok(Some((path.clone(), listed.clone(), file))),
    }
}

/// Whether a path that a Release lists is of what the settings name. Sources, installers and patches never
/// are.
fn is_of(settings: &Settings, suite: &str, path: &str) -> bool {
    if suite.ends_with('/') {
        return !path.contains(".diff/") && !path.contains("Sources");
    }
    let of =
        |component: &String| path.strip_prefix(component.rsplit('/').next()?)?.strip_prefix('/');
    let Some(rest) = settings.components.iter().find_map(of) else { return false };
    let is_other = rest.starts_with("source/")
        || rest.starts_with("debian-installer/")
        || rest.starts_with("installer-")
        || rest.contains("udeb")
        || rest.contains("source")
        || rest.contains(".diff/");
    let of_arch = |part: &str| {
        let marks = ["binary-", "Contents-", "Components-", "Commands-"];
        let arch = marks.iter().find_map(|mark| part.strip_prefix(mark))?;
        Some(arch.split('.').next().unwrap_or_default().to_owned())
    };
    let arch = rest.split('/').find_map(of_arch);
    let good_arch = arch.is_none_or(|arch| arch == "all" || settings.architectures.contains(&arch));
    let language = rest.split('/').find_map(|part| part.strip_prefix("Translation-"));
    let language = language.and_then(|rest| rest.split('.').next());
    let good_language = language.is_none_or(|language| {
        let tag = language.replace('_', "-").to_lowercase();
        tag == "en" || settings.languages.iter().any(|wanted| wanted.as_str() == tag)
    });
    !is_other && good_arch && good_language
}

/// The newest version of each package that is chosen, by name and architecture.
fn newest(
    run: &Run,
    suite: &Suite,
    chosen: &Chosen,
) -> Result<HashMap<(String, String), String>, SyncError> {
    let mut newest: HashMap<(String, String), String> = HashMap::new();
    for (path, index) in &suite.indexes {
        each(run, path, index, &mut Skipped::default(), &mut |package| {
            if chosen.takes(package) {
                let key = (package.name.to_owned(), package.arch.to_owned());
                let held = newest.entry(key).or_insert_with(|| package.version.to_owned());
                if version::compare(package.version, held).is_gt() {
                    package.version.clone_into(held);
                }
            }
            Ok(())
        })?;
    }
    Ok(newest)
}

fn is_newest(package: &Package<'_>, newest: &HashMap<(String, String), String>) -> bool {
    let version = newest.get(&(package.name.to_owned(), package.arch.to_owned()));
    version.is_none_or(|newest| *newest == package.version)
}

/// What is chosen of all suites, with what it depends on.
fn closed(run: &Run, state: &State, chosen: &Chosen) -> Result<Closed, SyncError> {
    let mut closure = Closure::default();
    for suite in state.suites.values() {
        let newest = if chosen.newest_only { newest(run, suite, chosen)? } else { HashMap::new() };
        for (path, index) in &suite.indexes {
            if !chosen.takes_arch(&index.arch) {
                continue;
            }
            each(run, path, index, &mut Skipped::default(), &mut |package| {
                if chosen.takes_arch(package.arch) {
                    closure.add(package, chosen.takes(package) && is_newest(package, &newest));
                }
                Ok(())
            })?;
        }
    }
    Ok(closure.close())
}

/// Hands over each package of an index.
fn each(
    run: &Run,
    path: &str,
    index: &Index,
    skipped: &mut Skipped,
    take: &mut dyn FnMut(&Package<'_>) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let from = Packing::of_name(&index.file).open(&run.file(&index.file), bring::MAX_PLAIN)?;
    let mut stanzas = Stanzas::new(from);
    while let Some(stanza) = stanzas.next_stanza().map_err(|error| unpack::reading(path, error))? {
        run.watch.moved();
        run.watch.check()?;
        let package = stanza.map_err(|broken| broken.to_string());
        match package.and_then(|it| Package::of(it).map_err(|error| error.to_string())) {
            Ok(package) => take(&package)?,
            Err(why) => skipped.add(format!("{path}: {why}")),
        }
    }
    Ok(())
}

/// A Release of the same suite, for other indexes.
fn remade(
    settings: &Settings,
    release: &Release,
    chosen: &Chosen,
    date: Timestamp,
    files: &BTreeMap<RepoPath, Listed>,
) -> String {
    let mut text = String::new();
    let mut field = |key: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{key}: {value}\n"));
        }
    };
    for (key, value) in [
        ("Origin", &release.origin),
        ("Label", &release.label),
        ("Suite", &release.suite),
        ("Version", &release.version),
        ("Codename", &release.codename),
        ("NotAutomatic", &release.not_automatic),
        ("ButAutomaticUpgrades", &release.but_automatic_upgrades),
    ] {
        field(key, value);
    }
    field("Date", &date.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string());
    field("Acquire-By-Hash", "yes");
    let arches = settings.architectures.iter().filter(|arch| chosen.takes_arch(arch));
    let arches: Vec<&str> = ["all"].into_iter().chain(arches.map(String::as_str)).collect();
    if !release.has_index_for_all {
        field("No-Support-for-Architecture-all", "Packages");
    }
    field("Architectures", &arches.join(" "));
    let last = |component: &String| component.rsplit('/').next().unwrap_or_default().to_owned();
    let components: Vec<String> = settings.components.iter().map(last).collect();
    field("Components", &components.join(" "));
    field("Description", release.description.lines().next().unwrap_or_default());
    text.push_str("SHA256:\n");
    for (path, listed) in files {
        let hex = listed.digests.get(Algorithm::Sha256).unwrap_or_default();
        text.push_str(&format!(" {hex} {:>8} {path}\n", listed.size));
    }
    text
}

/// An index that is being made, plain and compressed.
struct Made {
    plain: Part,
    packed: liblzma::write::XzEncoder<Part>,
}

impl Made {
    fn new(into: &Path) -> Result<Self, SyncError> {
        let packed = liblzma::write::XzEncoder::new(Part::new(into)?, 6);
        Ok(Self { plain: Part::new(into)?, packed })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SyncError> {
        self.plain
            .write_all(bytes)
            .and_then(|()| self.packed.write_all(bytes))
            .map_err(|error| SyncError::local("a new index", error))
    }

    fn done(self) -> Result<[(&'static str, Listed, PathBuf); 2], SyncError> {
        let failed = |error| SyncError::local("a new index", error);
        let (plain, plain_file) = self.plain.done().map_err(failed)?;
        let packed = self.packed.finish().map_err(failed)?;
        let (packed, packed_file) = packed.done().map_err(failed)?;
        Ok([("", plain, plain_file), (".xz", packed, packed_file)])
    }
}

/// A file that gets the name of its digest when it is whole.
struct Part {
    file: BufWriter<tempfile::NamedTempFile>,
    hasher: Hasher,
    into: PathBuf,
}

impl Part {
    fn new(into: &Path) -> Result<Self, SyncError> {
        let file = tempfile::NamedTempFile::new_in(into)
            .map_err(|error| SyncError::local(into.display(), error))?;
        let hasher = Hasher::new([Algorithm::Sha256]);
        Ok(Self { file: BufWriter::new(file), hasher, into: into.to_owned() })
    }

    fn done(self) -> io::Result<(Listed, PathBuf)> {
        let (size, digests) = self.hasher.finish();
        let hex = digests.get(Algorithm::Sha256).unwrap_or_default();
        let path = self.into.join(format!("made-{hex}"));
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok((Listed { size, digests }, path))
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The files of a snapshot, as they are found.
#[derive(Default)]
struct List {
    files: BTreeMap<RepoPath, MirrorFile>,
    valid_until: Option<Timestamp>,
    skipped: Skipped,
    unmet: Vec<String>,
}

impl List {
    fn done(self) -> Snapshot {
        let Self { files, valid_until, skipped, unmet } = self;
        let files = files.into_values().collect();
        Snapshot { files, valid_until, skipped, unmet }
    }

    fn end(&mut self, end: Option<Timestamp>) {
        self.valid_until = self.valid_until.into_iter().chain(end).min();
    }

    fn add(&mut self, path: RepoPath, size: u64, digests: Digests, origin: Origin) {
        // Metadata lie here.
        let is_package = matches!(origin, Origin::Remote(_));
        let file = MirrorFile { path: path.clone(), size, digests, origin, is_package };
        self.files.entry(path).or_insert(file);
    }

    /// A file of metadata, at its path and under its digests.
    fn index(
        &mut self,
        suite: &str,
        path: &RepoPath,
        listed: &Listed,
        file: &Path,
        is_by_hash: bool,
    ) -> Result<(), SyncError> {
        let folder = folder_of(suite);
        let mut paths = vec![format!("{folder}/{path}")];
        if is_by_hash {
            let of =
                |(algorithm, hex)| format!("{folder}/{}", by_hash(path.as_str(), algorithm, hex));
            paths.extend(listed.digests.iter().map(of));
        }
        for path in paths {
            let origin = Origin::Local(file.to_owned());
            self.add(repo_path(&path)?, listed.size, listed.digests.clone(), origin);
        }
        Ok(())
    }

    fn local(&mut self, path: &str, file: &Path) -> Result<(), SyncError> {
        let bytes = std::fs::read(file).map_err(|error| SyncError::local(file.display(), error))?;
        let (size, digests) = hashed(&bytes);
        self.add(repo_path(path)?, size, digests, Origin::Local(file.to_owned()));
        Ok(())
    }

    fn made(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), SyncError> {
        let (size, digests) = hashed(&bytes);
        self.add(repo_path(path)?, size, digests, Origin::Made(Bytes::from(bytes)));
        Ok(())
    }

    fn package(&mut self, apt: &Apt, package: &Package<'_>) -> Result<(), SyncError> {
        match package.digests() {
            Err(why) => self.skipped.add(why),
            Ok(digests) => {
                let path = repo_path(package.filename)?;
                if let Some(held) = self.files.get(&path) {
                    if held.size != package.size || !held.digests.agrees_with(&digests) {
                        self.skipped.add(format!("{path} stands for two files"));
                    }
                    return Ok(());
                }
                let url = apt.url(package.filename)?;
                self.add(path, package.size, digests, Origin::Remote(vec![url]));
            }
        }
        Ok(())
    }
}

fn hashed(bytes: &[u8]) -> (u64, Digests) {
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    hasher.update(bytes);
    hasher.finish()
}

fn repo_path(path: &str) -> Result<RepoPath, SyncError> {
    path.trim_start_matches("./").parse().map_err(|error| {
        SyncError::because(Cause::Malformed, format!("{path} cannot be mirrored"), error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::Keyring;

    fn settings() -> Settings {
        let key = SigningKey::new([1; 32], "x", Timestamp::from_second(1 << 30).unwrap()).unwrap();
        Settings {
            base: "http://x/".into(),
            suites: vec!["s".into()],
            components: vec!["main".into(), "updates/contrib".into()],
            architectures: vec!["amd64".into()],
            keyring: Keyring::parse(&key.public_bytes().unwrap()).unwrap(),
            tracker: Vec::new(),
            languages: ["pt-br".parse().unwrap()].into(),
            release: None,
            definitions: Vec::new(),
        }
    }

    #[test]
    fn one_path_is_of_two_files_only_where_something_says_otherwise() {
        let apt = Apt::new(settings()).unwrap();
        let n_skipped = |size: u64, digests: &str| {
            let mut list = List::default();
            let same = format!("SHA256: {}", "a".repeat(64));
            for (size, digests) in [(5, same.as_str()), (size, digests)] {
                let text = format!(
                    "Package: x\nVersion: 1\nArchitecture: all\nFilename: pool/x.deb\nSize: {size}\n\
                     {digests}\n"
                );
                let mut stanzas = Stanzas::new(text.as_bytes());
                let stanza = stanzas.next_stanza().unwrap().unwrap().unwrap();
                list.package(&apt, &Package::of(stanza).unwrap()).unwrap();
            }
            assert_eq!(list.files.len(), 1);
            list.skipped.count
        };
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let more = format!("MD5sum: {}\nSHA256: {a}", "c".repeat(32));
        assert_eq!((n_skipped(5, &more), n_skipped(6, &more)), (0, 1));
        assert_eq!(n_skipped(5, &format!("SHA256: {b}")), 1);
    }

    #[test]
    fn metadata_of_what_the_settings_name_are_taken() {
        let settings = settings();
        for path in [
            "main/binary-amd64/Packages.xz",
            "main/binary-amd64/Release",
            "main/binary-all/Packages.xz",
            "contrib/binary-amd64/Packages.xz",
            "main/Contents-amd64.gz",
            "main/Contents-all.gz",
            "main/i18n/Translation-en.bz2",
            "main/i18n/Translation-pt_BR.xz",
            "main/dep11/Components-amd64.yml.xz",
            "main/dep11/icons-64x64.tar.gz",
            "main/cnf/Commands-amd64.xz",
        ] {
            assert!(is_of(&settings, "s", path), "{path}");
        }
        for path in [
            "main/binary-arm64/Packages.xz",
            "mainx/binary-amd64/Packages.xz",
            "non-free/binary-amd64/Packages.xz",
            "main/Contents-arm64.gz",
            "main/Contents-udeb-amd64.gz",
            "main/Contents-source.gz",
            "main/i18n/Translation-fr.bz2",
            "main/source/Sources.xz",
            "main/debian-installer/binary-amd64/Packages.xz",
            "main/installer-amd64/current/images/SHA256SUMS",
            "main/binary-amd64/Packages.diff/Index",
        ] {
            assert!(!is_of(&settings, "s", path), "{path}");
        }
    }
}
