//! Repository packages: a package whose versions are snapshots of an upstream, each whole.
//!
//! What a package mirrors stands in the site database. Its update takes the source as the last sync left
//! it, lists the files that a snapshot has (`list`), brings those that are not held (`bring`) and makes
//! a version of them, or, where one is missing, none. Packages may be left to come on demand (`demand`).
//! Metadata of a whole snapshot stay as their upstream
//! signed them; those of a filtered one are signed with the site's own key (`key`).

pub(crate) mod bring;
pub(crate) mod demand;
pub(crate) mod key;
mod list;

use crate::extract::field;
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use crate::translate::cancelled;
use ::sync::adapter::Watch;
use ::sync::mirror::{Origin, from_of};
use ::sync::name::SourceName;
use ::sync::source::{SourceError, SourceKind};
use bring::{Bringing, File};
use contentlib::{Name, Progress};
use deployment::CollectionError;
use jiff::Timestamp;
use list::Snapshot;
use packager::compose::{Base, Composition, OnDemandFile};
use packager::name::PackageName;
use packager::path::TreePath;
use packager::update::UpdateReport;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, Order, Table, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use utoipa::ToSchema;

/// The most names that a choice may have.
const MAX_NAMES: usize = 100_000;
/// How many names that are not there are told.
const TOLD: usize = 100;
/// How often a job looks whether it was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const MIRRORS: Table<String, Mirror> = Table::new("mirrors");

/// What a package mirrors: all of a source's repository, or what is chosen.
///
/// A package is chosen if one of `only`, `include`, `sources` and `advisories` names it, or it is installed
/// on a client of `installed_on`, or none of these is there; and if it is of one of the sections and architectures, or none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"source": "debian-security", "only": ["openssl", "linux-image-*"]}))]
pub struct Mirror {
    /// A source of the kind `apt` or `rpm`.
    pub source: String,
    /// Names of binary packages; `*` stands for any letters.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub only: BTreeSet<String>,
    /// Names of binary packages, letter by letter.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<String>,
    /// Of an archive: names of source packages; `*` stands for any letters.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sources: BTreeSet<String>,
    /// Of an RPM repository: advisories, as `ALSA-2026:1234`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub advisories: BTreeSet<String>,
    /// Of an archive: sections, as `net`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sections: BTreeSet<String>,
    /// Architectures; packages for all of them come along.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub arches: BTreeSet<String>,
    /// Names of packages that are installed on a client of this collection whenever a version is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_on: Option<String>,
    /// Of each package only the newest version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub newest_only: bool,
    /// What the chosen packages depend on, too, as far as the source has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_dependencies: bool,
    /// Packages come when somebody asks for them first, and not with the version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
}
impl Value for Mirror {}

/// What a version of a mirror is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"source": "debian-security", "valid_until": "2026-12-04T03:00:00Z"}))]
pub struct MirroredView {
    /// The source.
    pub source: String,
    /// After this, machines refuse it, as its upstream has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// Files that come when somebody asks for them first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<AwaitedView>,
    /// What was chosen, or what that depends on, and is not there; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Entries that cannot be mirrored and were left out, as their upstream cannot serve them either.
    #[serde(default)]
    pub left_out: u64,
    /// What is wrong with the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_examples: Vec<String>,
}

/// The files on demand of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwaitedView {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

/// What an update of a mirror came to.
#[derive(Serialize)]
struct Updated {
    #[serde(flatten)]
    report: UpdateReport,
    mirror: MirroredView,
}

impl Mirror {
    /// The name of the source.
    pub(crate) fn source_name(&self) -> Result<SourceName, Problem> {
        let wrong = |error: <SourceName as FromStr>::Err| {
            Problem::field("mirror.source", error.to_string())
        };
        self.source.parse().map_err(wrong)
    }

    /// Whether all of the repository is taken, as it is.
    pub(crate) fn is_whole(&self) -> bool {
        let (source, on_demand) = (self.source.clone(), self.on_demand);
        *self == Self { source, on_demand, ..Self::default() }
    }

    /// Whether a source of that kind can be mirrored so.
    fn check(&self, kind: &SourceKind) -> Result<(), Problem> {
        let only_of = |field: &str, what: &str| {
            Err(Problem::field(format!("mirror.{field}"), format!("are of {what} alone")))
        };
        match kind {
            SourceKind::Apt(_) if !self.advisories.is_empty() => {
                return only_of("advisories", "RPM repositories");
            }
            SourceKind::Rpm(_) if !self.sources.is_empty() => {
                return only_of("sources", "Debian archives");
            }
            SourceKind::Rpm(_) if !self.sections.is_empty() => {
                return only_of("sections", "Debian archives");
            }
            SourceKind::Apt(_) | SourceKind::Rpm(_) => {}
            other => {
                let detail = format!(
                    "is of the kind {}, which is no repository: only apt and rpm can be mirrored",
                    other.as_str()
                );
                return Err(Problem::field("mirror.source", detail));
            }
        }
        let lists = [
            ("only", &self.only),
            ("include", &self.include),
            ("sources", &self.sources),
            ("advisories", &self.advisories),
            ("sections", &self.sections),
            ("arches", &self.arches),
        ];
        let names_some = self.installed_on.is_some();
        if self.with_dependencies && !names_some && lists.iter().all(|(_, names)| names.is_empty())
        {
            let detail = "says nothing where all is taken: choose packages";
            return Err(Problem::field("mirror.with_dependencies", detail));
        }
        let is_name =
            |name: &String| (1..=200).contains(&name.len()) && !name.contains(char::is_whitespace);
        for (field, names) in lists {
            if let Some(name) = names.iter().find(|name| !is_name(name)) {
                let name: String = name.chars().take(200).collect();
                return Err(Problem::field(
                    format!("mirror.{field}"),
                    format!("{name:?} is no name"),
                ));
            }
        }
        if lists.iter().map(|(_, names)| names.len()).sum::<usize>() > MAX_NAMES {
            return Err(Problem::field("mirror", format!("names more than {MAX_NAMES} things")));
        }
        Ok(())
    }

    /// Whether it can be mirrored. It blocks.
    pub(crate) fn check_with(&self, site: &Site) -> Result<(), Problem> {
        let found = site.updates()?.sources().get(&self.source_name()?);
        let source = found.map_err(|error| match error {
            SourceError::Unknown(_) => {
                let detail =
                    format!("must be a source of this site, and there is none {}", self.source);
                Problem::field("mirror.source", detail)
            }
            other => other.into(),
        })?;
        self.check(&source.kind)?;
        self.installed(site).map(drop)
    }

    /// The names of what is installed on the clients of the collection, if one is named, and how many these
    /// are. It blocks.
    fn installed(&self, site: &Site) -> Result<(BTreeSet<String>, u64), Problem> {
        let Some(name) = &self.installed_on else { return Ok(Default::default()) };
        let (fleet, at) = (site.fleet()?, "mirror.installed_on");
        let members = fleet.members(&field(at, name)?).map_err(|error| match error {
            CollectionError::Unknown(_) => Problem::field(at, error.to_string()),
            other => other.into(),
        })?;
        let index = fleet.states.index();
        let names = index.names_installed_on(&members).map(str::to_owned).collect();
        Ok((names, members.len()))
    }

    /// The same with what is installed now among the names, which are told too.
    fn resolved(&self, site: &Site) -> Result<(Self, BTreeSet<String>), Problem> {
        let (installed, n_clients) = self.installed(site)?;
        if let (Some(name), true) = (&self.installed_on, installed.is_empty()) {
            let detail = format!(
                "none of the {n_clients} clients of collection {name:?} has told which packages it has"
            );
            return Err(Problem::new(Kind::Conflict, "").caused_by("mirror.installed_on", detail));
        }
        let include = self.include.union(&installed).cloned().collect();
        let only_installed = installed.difference(&self.include).cloned().collect();
        Ok((Self { include, ..self.clone() }, only_installed))
    }
}

/// What a package mirrors, if it does.
pub(crate) fn of(db: &Db, name: &PackageName) -> Result<Option<Mirror>, Problem> {
    Ok(MIRRORS.get(db, &name.to_string())?)
}

/// What all packages mirror that do.
pub(crate) fn all(db: &Db) -> Result<BTreeMap<String, Mirror>, Problem> {
    Ok(MIRRORS.scan(db, Order::Ascending, None, usize::MAX)?.into_iter().collect())
}

/// Says what a package mirrors from now on.
pub(crate) fn set(db: &Db, name: &PackageName, mirror: Option<&Mirror>) -> Result<(), Problem> {
    let (key, mut batch) = (name.to_string(), Batch::new());
    match mirror {
        Some(mirror) => MIRRORS.put(&mut batch, &key, mirror),
        None => MIRRORS.delete(&mut batch, &key),
    }
    db.kv().write(batch)?;
    Ok(())
}

/// Where what is on its way to a package lies until it is in the library.
pub(crate) fn folder_of(site: &Site, name: &PackageName) -> PathBuf {
    site.folder().join("cache/coming").join(name.as_str())
}

/// Makes a new version of a mirror, as the work of a job.
pub(crate) fn update(
    site: &Site,
    name: &PackageName,
    mirror: Mirror,
    job: &Progress,
) -> Result<serde_json::Value, Problem> {
    let (site, name) = (site.clone(), name.clone());
    as_job(job, async move |progress, watch| {
        let updated = made(&site, &name, &mirror, progress, watch).await?;
        crate::routes::jobs::result_of(&updated)
    })
}

/// Has async work through on the thread of a job: hands on how far it is, and that it was cancelled.
pub(crate) fn as_job<T, F: Future<Output = Result<T, Problem>>>(
    job: &Progress,
    work: impl FnOnce(Arc<Progress>, Arc<Watch>) -> F,
) -> Result<T, Problem> {
    let (progress, watch) = (Arc::new(Progress::default()), Arc::new(Watch::default()));
    let hand_on = || {
        for (to, from) in [
            (&job.files, &progress.files),
            (&job.total_files, &progress.total_files),
            (&job.bytes, &progress.bytes),
            (&job.total_bytes, &progress.total_bytes),
            (&job.new_bytes, &progress.new_bytes),
            (&job.stored_bytes, &progress.stored_bytes),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
    };
    let work = work(progress.clone(), watch.clone());
    tokio::runtime::Handle::current().block_on(async {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    hand_on();
                    return done;
                }
                () = tokio::time::sleep(LOOK_EVERY) => hand_on(),
            }
            if job.check().is_err() {
                progress.cancel();
                watch.stop.cancel();
            }
        }
    })
}

async fn made(
    site: &Site,
    name: &PackageName,
    mirror: &Mirror,
    progress: Arc<Progress>,
    watch: Arc<Watch>,
) -> Result<Updated, Problem> {
    let folder = folder_of(site, name);
    let (composition, machine) = {
        let (site, name, folder) = (site.clone(), name.clone(), folder.clone());
        let progress = progress.clone();
        blocking(move || {
            let composition = site.content()?.packages.compose(&name, Base::Nothing, progress)?;
            std::fs::create_dir_all(&folder).map_err(|error| Problem::internal(&error))?;
            Ok((Arc::new(composition), site.updates()?))
        })
        .await?
    };
    let (resolved, installed) = {
        let (site, mirror) = (site.clone(), mirror.clone());
        blocking(move || mirror.resolved(&site)).await?
    };
    let source = mirror.source_name()?;
    let held = machine.hold(&source, watch.clone()).await?;
    mirror.check(&held.source.kind)?;
    let advice = of_another_state(name, &source);
    let Snapshot { files, mut view } =
        list::snapshot(site, &resolved, &installed, &held, &folder, &advice).await?;
    if !mirror.is_whole() && !files.iter().any(|file| file.is_package) {
        let detail = format!("{source} has no package that was chosen: the version would be empty");
        return Err(Problem::field("mirror", detail));
    }
    let (files, waiting): (Vec<File>, Vec<File>) =
        files.into_iter().partition(|file| !(mirror.on_demand && file.can_wait()));
    if mirror.on_demand {
        view.on_demand = Some(wait(&composition, &held.source.kind, &waiting)?);
    }
    let fetcher = held.run.fetcher.clone();
    progress.total_files.store(files.len() as u64, Relaxed);
    progress.total_bytes.store(files.iter().map(|file| file.size).sum(), Relaxed);
    let bringing = Bringing {
        composition: composition.clone(),
        fetcher,
        folder: folder.clone(),
        watch,
        progress,
    };
    let (far, near): (Vec<File>, Vec<File>) =
        files.into_iter().partition(|file| matches!(file.origin, Origin::Remote(_)));
    // While no sync changes the source's folder, what lies in it; then what lies at the upstream.
    let mut failed = Vec::new();
    let mut done = |_: &File, done: Result<_, &bring::Failed>| failed.extend(done.err().cloned());
    bringing.bring(near, &mut done).await?;
    drop(held);
    bringing.bring(far, &mut done).await?;
    drop(bringing);
    let name = name.clone();
    let report = blocking(move || {
        let composition = Arc::into_inner(composition).ok_or_else(cancelled)?;
        if failed.is_empty() {
            let report = composition.finish()?;
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(%error, ?folder, "files that are not needed any more were left");
            }
            return Ok(report);
        }
        composition.save()?;
        Err(not_made(&composition, &name, &source, &failed))
    })
    .await?;
    Ok(Updated { report, mirror: view })
}

/// Lists files that come on demand.
fn wait(
    composition: &Composition,
    kind: &SourceKind,
    files: &[File],
) -> Result<AwaitedView, Problem> {
    let mut view = AwaitedView { files: 0, bytes: 0 };
    for file in files {
        let (Some(Name::Sha256(sha256)), Origin::Remote(urls)) =
            (bring::name_of(&file.digests), &file.origin)
        else {
            continue;
        };
        for path in &file.paths {
            let at = TreePath::new(path.as_str().as_bytes())
                .map_err(|error| Problem::new(Kind::Upstream, format!("{path}: {error}")))?;
            let from = urls.first().and_then(|url| from_of(kind, path.as_str(), url));
            let one = OnDemandFile { size: file.size, sha256, from };
            let placed = composition.place_on_demand(&at, one);
            placed.map_err(|error| Problem::new(Kind::Upstream, error.to_string()))?;
            view.files += 1;
            view.bytes += file.size;
        }
    }
    Ok(view)
}

/// What to do where the upstream is of another state than what a sync brought.
fn of_another_state(name: &PackageName, source: &SourceName) -> String {
    format!(
        "the upstream is not as the last sync of {source} found it, or is changing at this moment: do \
         `depot sync run {source}`, then update {name} anew"
    )
}

/// Why no version was made.
fn not_made(
    composition: &Composition,
    name: &PackageName,
    source: &SourceName,
    failed: &[bring::Failed],
) -> Problem {
    let n_all = composition.paths().len() + failed.len();
    let all_moved = failed.iter().all(|failed| failed.is_of_another_state());
    let advice = if all_moved {
        of_another_state(name, source)
    } else {
        format!("update {name} anew to go on")
    };
    let detail = format!(
        "no version was made: {} of {n_all} files could not be brought, the first: {}; {advice}. What came \
         is kept",
        failed.len(),
        failed.first().map(ToString::to_string).unwrap_or_default(),
    );
    let mut problem = Problem::new(Kind::Upstream, detail);
    for failed in failed.iter().take(TOLD) {
        problem = problem.caused_by(failed.path.as_str(), failed.detail.as_str());
    }
    problem
}

/// The names that are told of those that are missing. Machines have packages of many sources: those that only
/// they name are not missing in one.
fn told(missing: Vec<String>, installed: &BTreeSet<String>) -> Vec<String> {
    missing.into_iter().filter(|name| !installed.contains(name)).take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_says_what_it_cannot_mean_for_a_kind_of_source() {
        let rpm = SourceKind::Rpm(Default::default());
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let mirror = Mirror { source: "alma".into(), ..Mirror::default() };
        assert!(mirror.is_whole());
        mirror.check(&rpm).unwrap();
        let some = Mirror { only: names("open*"), ..mirror.clone() };
        assert!(!some.is_whole());
        some.check(&rpm).unwrap();
        for (wrong, said) in [
            (Mirror { sources: names("glibc"), ..mirror.clone() }, "mirror.sources"),
            (Mirror { sections: names("net"), ..mirror.clone() }, "mirror.sections"),
            (Mirror { only: names("two words"), ..mirror.clone() }, "mirror.only"),
            (Mirror { with_dependencies: true, ..mirror.clone() }, "mirror.with_dependencies"),
        ] {
            let problem = wrong.check(&rpm).unwrap_err();
            assert!(problem.detail.contains(said), "{problem}");
        }
        let problem = mirror.check(&SourceKind::Parent).unwrap_err();
        assert!(problem.detail.contains("parent"), "{problem}");
    }
}
