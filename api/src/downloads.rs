//! Files of updates, brought into a package from which machines install them.
//!
//! Each update has a folder in the package, by its id; of a bundle, each part has. What is stated of a file
//! is checked; of one of which only a SHA-1 is stated, the SHA-256 of what came first is remembered, and
//! nothing else is taken for it from then on. A file that cannot be had is named and keeps no other from
//! coming: the version has what came.

use crate::mirror::bring::{Bringing, Failed, File, Outcome};
use crate::mirror::{self, as_job};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use crate::translate::cancelled;
use ::sync::catalogue::{Catalogue, Entry};
use ::sync::digests::{Algorithm, to_hex};
use ::sync::error::Cause;
use ::sync::fetch::Pace;
use ::sync::lifecycle::State;
use ::sync::mirror::{MirrorFile, Origin, RepoPath};
use ::sync::name::UpdateId;
use ::sync::taxonomy::Language;
use ::sync::update;
use contentlib::Progress;
use packager::compose::Base;
use packager::error::PackageError;
use packager::name::PackageName;
use packager::retention::Retention;
use packager::update::UpdateReport;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, Table, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use utoipa::ToSchema;

/// How deep bundles may lie in each other.
const MAX_DEPTH: usize = 8;
/// The most files that one request brings.
const MAX_FILES: usize = 100_000;

/// By SHA-1, the SHA-256 of what came for it first.
const PINS: Table<String, Pin> = Table::new("sha256-of-sha1");

#[derive(Serialize, Deserialize)]
struct Pin {
    sha256: String,
}
impl Value for Pin {}

/// What is wanted.
pub(crate) struct Wanted {
    /// Updates, by id, name or article.
    pub updates: Vec<String>,
    /// The package that gets the files; made, if there is none.
    pub package: PackageName,
    /// What a package that is made keeps.
    pub retention: Retention,
    /// Files for one language alone are taken if it is one of these, or none is named.
    pub languages: BTreeSet<Language>,
    /// A folder of this machine that the files lie in, in place of the upstreams.
    pub folder: Option<PathBuf>,
    /// Bytes that come in a second at most.
    pub rate: Option<u64>,
    /// The package's own folder: what lies there already is not brought from elsewhere.
    pub source: Option<PathBuf>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "update": "DSA-5545-1", "path": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f/openssl_3.0.11-1_amd64.deb",
    "size": 1400000, "outcome": "brought"
}))]
pub struct FileOutcomeView {
    /// The update that it is of.
    pub update: String,
    /// Where it lies in the package, or was to; of an update that has nothing to bring, its name.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// What became of it.
    pub outcome: FileOutcome,
    /// What kind of failure it was: `not-found`, `mismatch` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What happened; of a file that came, what is weak about its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileOutcome {
    /// It came.
    Brought,
    /// It was held already.
    Held,
    /// It could not be had.
    Failed,
}

/// What a download came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DownloadView {
    /// The package, and its newest version.
    #[serde(flatten)]
    pub report: crate::views::UpdateView,
    /// Files that could not be had.
    pub failed: u64,
    /// What became of each file.
    pub outcomes: Vec<FileOutcomeView>,
}

#[derive(Serialize)]
struct Downloaded {
    #[serde(flatten)]
    report: UpdateReport,
    failed: u64,
    outcomes: Vec<FileOutcomeView>,
}

/// The files of updates, and what cannot be had already.
#[derive(Default)]
struct Plan {
    files: Vec<MirrorFile>,
    /// By path, the update's name.
    names: HashMap<String, String>,
    outcomes: Vec<FileOutcomeView>,
    seen: BTreeSet<UpdateId>,
}

/// Brings the files of updates, as the work of a job.
pub(crate) fn download(
    site: &Site,
    wanted: Wanted,
    job: &Progress,
) -> Result<serde_json::Value, Problem> {
    let site = site.clone();
    as_job(job, async move |progress, watch| {
        let machine = {
            let site = site.clone();
            blocking(move || site.updates()).await?
        };
        let (planning, wanted) = {
            let (site, machine) = (site.clone(), machine.clone());
            blocking(move || {
                let plan = Plan::of(machine.catalogue(), &wanted)?;
                make_package(&site, &wanted)?;
                Ok((plan.pinned(&site.ledger()?.db)?, wanted))
            })
            .await?
        };
        let Plan { files, names, mut outcomes, .. } = planning;
        let folder = mirror::folder_of(&site, &wanted.package);
        let composition = {
            let (site, folder, name) = (site.clone(), folder.clone(), wanted.package.clone());
            let progress = progress.clone();
            blocking(move || {
                std::fs::create_dir_all(&folder).map_err(|error| Problem::internal(&error))?;
                Ok(Arc::new(site.content()?.packages.compose(&name, Base::Newest, progress)?))
            })
            .await?
        };
        let files = File::grouped(files);
        progress.total_files.store(files.len() as u64, Relaxed);
        progress.total_bytes.store(files.iter().map(|file| file.size).sum(), Relaxed);
        let fetcher = match wanted.rate {
            Some(rate) => machine.fetcher().at_pace(Pace::new(rate)),
            None => machine.fetcher().clone(),
        };
        let bringing =
            Bringing { composition: composition.clone(), fetcher, folder, watch, progress };
        let mut pins = BTreeMap::new();
        bringing
            .bring(files, &mut |file, done| {
                if let Ok(Outcome::Came { sha256: Some(sha256) }) = done
                    && let Some((Algorithm::Sha1, sha1)) = file.digests.strongest()
                {
                    pins.insert(sha1.to_owned(), Pin { sha256: to_hex(&sha256) });
                }
                outcomes.extend(file.paths.iter().map(|path| outcome(path, file, done, &names)));
            })
            .await?;
        drop(bringing);
        outcomes.sort_by(|a, b| a.path.cmp(&b.path));
        let report = blocking(move || {
            let mut batch = Batch::new();
            pins.iter().for_each(|(sha1, pin)| PINS.put(&mut batch, sha1, pin));
            if !pins.is_empty() {
                site.ledger()?.db.kv().write(batch)?;
            }
            Ok(Arc::into_inner(composition).ok_or_else(cancelled)?.finish()?)
        })
        .await?;
        let is_failed = |one: &&FileOutcomeView| one.outcome == FileOutcome::Failed;
        let failed = outcomes.iter().filter(is_failed).count() as u64;
        crate::routes::jobs::result_of(&Downloaded { report, failed, outcomes })
    })
}

fn outcome(
    path: &RepoPath,
    file: &File,
    done: Result<Outcome, &Failed>,
    names: &HashMap<String, String>,
) -> FileOutcomeView {
    let (outcome, failed) = match done {
        Ok(Outcome::Held) => (FileOutcome::Held, None),
        Ok(Outcome::Came { .. }) => (FileOutcome::Brought, None),
        Err(failed) => (FileOutcome::Failed, Some(failed)),
    };
    FileOutcomeView {
        update: names.get(path.as_str()).cloned().unwrap_or_default(),
        path: path.to_string(),
        size: file.size,
        outcome,
        cause: failed.map(|failed| failed.cause.to_string()),
        detail: failed.map(|failed| failed.detail.clone()).or_else(|| weakness(file, done)),
    }
}

/// What is to be known of a file that came and is proven by a SHA-1 alone.
fn weakness(file: &File, done: Result<Outcome, &Failed>) -> Option<String> {
    let (Algorithm::Sha1, _) = file.digests.strongest()? else { return None };
    Some(match done {
        Ok(Outcome::Came { sha256: Some(sha256) }) => format!(
            "its update states a SHA-1 alone, which can be forged: from now on only sha256:{} is taken for it",
            to_hex(&sha256)
        ),
        _ => "its update states a SHA-1 alone, which can be forged".to_owned(),
    })
}

/// Makes the package, unless there is one that can take the files.
fn make_package(site: &Site, wanted: &Wanted) -> Result<(), Problem> {
    let name = &wanted.package;
    if mirror::of(&site.ledger()?.db, name)?.is_some() {
        let detail =
            format!("{name} mirrors a repository: take another package for files of updates");
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let packages = site.content()?.packages;
    match packages.show(name) {
        Ok(_) => Ok(()),
        Err(PackageError::UnknownPackage(_)) => {
            packages.create_composed(name.clone(), wanted.retention)?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

impl Plan {
    fn of(catalogue: &Catalogue, wanted: &Wanted) -> Result<Self, Problem> {
        let mut plan = Self::default();
        for what in &wanted.updates {
            // What nobody knows is a slip of the pen: nothing is begun.
            let entry = catalogue.get(what)?;
            plan.update(catalogue, &entry, wanted, 0)?;
        }
        Ok(plan)
    }

    /// Takes an update, and the parts of a bundle.
    fn update(
        &mut self,
        catalogue: &Catalogue,
        entry: &Entry,
        wanted: &Wanted,
        depth: usize,
    ) -> Result<(), Problem> {
        let update = &entry.update;
        if !self.seen.insert(update.id) {
            return Ok(());
        }
        if entry.state == State::Expired {
            self.fails(
                &update.name,
                Cause::Refused,
                "it is expired, and so no machine may get it anew",
            );
            return Ok(());
        }
        if depth > MAX_DEPTH {
            self.fails(&update.name, Cause::Malformed, "bundles lie too deep in each other");
            return Ok(());
        }
        for part in update.bundles.iter().flat_map(|group| &group.ids) {
            match catalogue.entry(*part)? {
                Some(entry) => self.update(catalogue, &entry, wanted, depth + 1)?,
                None => {
                    let detail = format!("its part {part} is not in the catalogue");
                    self.fails(&update.name, Cause::NotFound, &detail);
                }
            }
        }
        let files: Vec<&update::File> =
            update.files().filter(|file| is_wanted(file, &wanted.languages)).collect();
        if update.bundles.is_empty() && files.is_empty() {
            self.fails(&update.name, Cause::NotFound, "it has no files for these languages");
        }
        let mut contents: HashMap<&str, BTreeSet<_>> = HashMap::new();
        for file in &files {
            contents.entry(&file.name).or_default().insert(file.digests.strongest());
        }
        for file in &files {
            let is_shared = contents.get(file.name.as_str()).is_some_and(|all| all.len() > 1);
            match path_of(update.id, file, is_shared).parse::<RepoPath>() {
                Ok(path) => {
                    self.names.insert(path.to_string(), update.name.clone());
                    self.files.push(MirrorFile {
                        path,
                        size: file.size,
                        digests: file.digests.clone(),
                        origin: origin(file, update.id, wanted),
                        is_package: false,
                    });
                }
                Err(error) => self.fails(&update.name, Cause::Malformed, &error.to_string()),
            }
        }
        if self.files.len() > MAX_FILES {
            let detail =
                format!("these updates have more than {MAX_FILES} files: take some at a time");
            return Err(Problem::field("updates", detail));
        }
        Ok(())
    }

    fn fails(&mut self, name: &str, cause: Cause, detail: &str) {
        self.outcomes.push(FileOutcomeView {
            update: name.to_owned(),
            path: name.to_owned(),
            size: 0,
            outcome: FileOutcome::Failed,
            cause: Some(cause.to_string()),
            detail: Some(detail.to_owned()),
        });
    }

    /// The same with what is remembered of files of which only a SHA-1 is stated.
    fn pinned(mut self, db: &Db) -> Result<Self, Problem> {
        for file in &mut self.files {
            if let Some((Algorithm::Sha1, sha1)) = file.digests.strongest()
                && let Some(pin) = PINS.get(db, &sha1.to_owned())?
            {
                let pinned = file.digests.clone().with(Algorithm::Sha256, &pin.sha256);
                file.digests = pinned.map_err(|error| Problem::internal(&error))?;
            }
        }
        Ok(self)
    }
}

fn is_wanted(file: &update::File, languages: &BTreeSet<Language>) -> bool {
    let Some(language) = &file.language else { return true };
    let base = language.as_str().split('-').next().unwrap_or_default();
    // `en` takes `en-us` too.
    languages.is_empty()
        || languages.contains(language)
        || languages.iter().any(|wanted| wanted.as_str() == base)
}

/// Where a file lies in the package. One that shares its name with another of the update lies in a folder by
/// its digest.
fn path_of(id: UpdateId, file: &update::File, is_shared: bool) -> String {
    let digest = file.digests.strongest().and_then(|(_, hex)| hex.get(..16));
    match digest.filter(|_| is_shared) {
        Some(digest) => format!("{id}/{digest}/{}", file.name),
        None => format!("{id}/{}", file.name),
    }
}

/// Where a file can be had: of a folder, by its name in the folder of its update, or by its name alone.
fn origin(file: &update::File, id: UpdateId, wanted: &Wanted) -> Origin {
    let own = wanted.source.as_ref().map(|folder| folder.join(id.to_string()).join(&file.name));
    if let Some(own) = own.filter(|own| is_stated(own, file)) {
        return Origin::Local(own);
    }
    let Some(folder) = &wanted.folder else {
        return Origin::Remote(file.urls.iter().filter_map(|url| url.parse().ok()).collect());
    };
    // The name is a plain one: else it would be no path in the package.
    let in_its_own = folder.join(id.to_string()).join(&file.name);
    Origin::Local(if in_its_own.is_file() { in_its_own } else { folder.join(&file.name) })
}

/// Whether a file of the package's own folder has the size that its update states. Its bytes are checked as it is taken;
/// one that somebody cut or changed in length is brought anew.
fn is_stated(own: &Path, file: &update::File) -> bool {
    std::fs::symlink_metadata(own).is_ok_and(|found| found.is_file() && found.len() == file.size)
}

/// Writes the newest version of a package to its own folder. What is there as it should be stays.
pub(crate) fn write_out(site: &Site, name: &PackageName, folder: &Path) -> Result<(), Problem> {
    let packages = site.content()?.packages;
    let Some(latest) = packages.show(name)?.latest else { return Ok(()) };
    let manifest = packages.manifest(latest.manifest)?;
    for entry in manifest.entries() {
        let (Some(file), Ok(path)) = (entry.file(), std::str::from_utf8(entry.path)) else {
            continue;
        };
        // Paths of a manifest are plain and lead nowhere else.
        let to = folder.join(path);
        if is_there(&to, file.size, file.digest) {
            continue;
        }
        let failed = |error: std::io::Error| {
            let detail = format!("cannot write {}: {error}", to.display());
            Problem::new(Kind::Unavailable, detail)
        };
        let parent = to.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(failed)?;
        let mut part = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
        let reader = packages.library().open_content(file.digest)?;
        let copied = reader.copy_to(0..reader.size(), part.as_file_mut());
        copied.map_err(|error| Problem::internal(&error))?;
        part.as_file().sync_all().map_err(failed)?;
        part.persist(&to).map_err(|error| failed(error.error))?;
    }
    Ok(())
}

/// Whether a file lies there with that content.
fn is_there(path: &Path, size: u64, digest: contentlib::Digest) -> bool {
    let is_sized = std::fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() == size);
    let hash = || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path).ok()?).ok()?;
        Some(contentlib::Digest::from_bytes(*hasher.finalize().as_bytes()))
    };
    is_sized && hash() == Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::sync::digests::Digests;

    fn file(name: &str, byte: char) -> update::File {
        let digests = Digests::of(Algorithm::Sha256, &byte.to_string().repeat(64)).unwrap();
        update::File { name: name.into(), digests, ..update::File::default() }
    }

    #[test]
    fn files_of_one_name_lie_apart() {
        let id = UpdateId::named(&["x"]);
        assert_eq!(path_of(id, &file("a.cab", 'a'), false), format!("{id}/a.cab"));
        let path = path_of(id, &file("a.cab", 'a'), true);
        assert_eq!(path, format!("{id}/aaaaaaaaaaaaaaaa/a.cab"));
    }

    #[test]
    fn a_file_of_a_weak_digest_is_held_to_what_came_first() {
        let db = Db::in_memory();
        let digests = |algorithm, byte: &str, n| Digests::of(algorithm, &byte.repeat(n)).unwrap();
        let mut batch = Batch::new();
        PINS.put(&mut batch, &"a".repeat(40), &Pin { sha256: "c".repeat(64) });
        db.kv().write(batch).unwrap();
        let file = |digests| MirrorFile {
            path: "x".parse().unwrap(),
            size: 1,
            digests,
            origin: Origin::Remote(Vec::new()),
            is_package: false,
        };
        let both = digests(Algorithm::Sha1, "a", 40).with(Algorithm::Sha256, &"d".repeat(64));
        let files = vec![
            file(digests(Algorithm::Sha1, "a", 40)),
            file(digests(Algorithm::Sha1, "b", 40)),
            file(both.unwrap()),
        ];
        let plan = Plan { files, ..Plan::default() }.pinned(&db).unwrap();
        let sha256 = |at: usize| plan.files[at].digests.get(Algorithm::Sha256).map(|hex| &hex[..1]);
        assert_eq!((sha256(0), sha256(1), sha256(2)), (Some("c"), None, Some("d")));

        let mut grouped = File::grouped(plan.files);
        let came = Ok(Outcome::Came { sha256: Some([0xee; 32]) });
        assert_eq!(weakness(&grouped.remove(0), came), None, "it is pinned");
        let said = weakness(&grouped.remove(0), came).unwrap();
        assert!(said.contains("SHA-1 alone") && said.contains("sha256:eeee"), "{said}");
    }

    #[test]
    fn a_language_takes_those_of_its_regions() {
        let wanted = |languages: &[&str], of: Option<&str>| {
            let languages = languages.iter().map(|tag| tag.parse().unwrap()).collect();
            let language = of.map(|tag| tag.parse().unwrap());
            is_wanted(&update::File { language, ..file("a", 'a') }, &languages)
        };
        assert!(wanted(&[], Some("de")) && wanted(&["de"], None) && wanted(&["en"], Some("en-us")));
        assert!(!wanted(&["de"], Some("en-us")) && !wanted(&["en-gb"], Some("en-us")));
    }
}
