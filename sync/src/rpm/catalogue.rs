//! What a repository says as updates: its advisories, joined with its packages.
//!
//! The packages are read first, and of each is kept where it is and what its bytes are. The advisories
//! are read twice: once to learn which of them count and which replaces which, once to give them, one
//! in memory at a time. A repository without advisories gives an update for each build of a source
//! package.

use super::evr::Evr;
use super::folder::Plain;
use super::modules::Modules;
use super::primary::{self, Package, full_name};
use super::product;
use super::repomd::{Listed, Repomd};
use super::settings::Repository;
use super::source::needed;
use super::supersedence::Supersedence;
use super::updateinfo::{self, Advisory, Age, Fix};
use crate::adapter::{Run, Said, Skipped};
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::rule::Rule;
use crate::taxonomy::Product;
use crate::unpack::Packing;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Bytes that may be kept of a repository while it is read: packages and what advisories list. The
/// largest real ones need a fifth of it.
const MAX_KEPT: usize = 384 << 20;
/// What an entry costs beside its texts, about.
const ENTRY: usize = 100;

/// A repository that is being read.
pub struct Reading<'r> {
    run: &'r Run,
    repomd: &'r Repomd,
    updateinfo: Option<(&'r Listed, Packing)>,
    /// Entries that were passed over.
    skipped: Skipped,
    kept: Kept,
    /// What all updates of it share.
    pub(super) shared: Shared<'r>,
}

/// What all updates of a repository share.
pub struct Shared<'r> {
    /// The repository.
    pub repository: &'r Repository,
    /// What it is for.
    pub product: Option<Product>,
    /// That a machine runs that.
    pub runs: Option<Rule>,
    /// Its packages.
    pub packages: Packages,
    /// Their module streams.
    pub modules: Modules,
    /// A time for what states none.
    pub made: Timestamp,
}

/// The packages of a repository, but for the sources.
#[derive(Default)]
pub struct Packages {
    /// By name, version and architecture, as `bash-5.1.8-6.el9.x86_64`.
    by_name: HashMap<Box<str>, Held>,
    /// Names of those that are installed beside their older versions.
    install_only: HashSet<Box<str>>,
}

/// What is kept of a package.
pub struct Held {
    /// Where it is.
    pub href: Box<str>,
    /// Bytes of its file.
    pub size: u64,
    /// What is stated of them, as `sha256:…`.
    pub digest: Box<str>,
}

impl Packages {
    fn add(&mut self, package: &Package) {
        if package.is_install_only {
            self.install_only.insert(package.name.as_str().into());
        }
        let held = Held {
            href: package.href.as_str().into(),
            size: package.size,
            digest: package.digests.to_string().into(),
        };
        self.by_name.insert(full_name(&package.name, &package.evr, &package.arch).into(), held);
    }

    /// One of them.
    pub fn get(&self, name: &str, evr: &str, arch: &str) -> Option<&Held> {
        self.by_name.get(full_name(name, &evr, arch).as_str())
    }

    /// Whether packages of that name are installed beside their older versions: because one says so, or
    /// because it is a kernel, as the old ones are that are listed and no longer there.
    pub fn is_install_only(&self, name: &str) -> bool {
        const KERNELS: [&str; 9] = [
            "kernel",
            "kernel-core",
            "kernel-modules",
            "kernel-modules-core",
            "kernel-modules-extra",
            "kernel-devel",
            "kernel-default",
            "kernel-rt",
            "kernel-uek",
        ];
        KERNELS.contains(&name) || self.install_only.contains(name)
    }
}

/// A build of a source package, in a repository without advisories.
pub(super) struct Build {
    pub(super) vendor: String,
    pub(super) built: i64,
    /// One line about the package that has its name, or else about the first.
    pub(super) summary: String,
    /// Name, version and architecture of what was built.
    pub(super) packages: Vec<Fix>,
}

/// Builds by the name and the version of their source.
type Builds = BTreeMap<(String, String), Build>;

impl<'r> Reading<'r> {
    /// Reads the packages.
    pub fn new(
        run: &'r Run,
        repository: &'r Repository,
        repomd: &'r Repomd,
    ) -> Result<Self, SyncError> {
        let shared = Shared {
            repository,
            product: repository.product.clone().or_else(|| product::stated(&repomd.distros)),
            runs: None,
            packages: Packages::default(),
            modules: modules(run, repomd)?,
            made: repomd.made().unwrap_or(run.now),
        };
        let updateinfo = repomd.readable("updateinfo");
        Ok(Self { run, repomd, updateinfo, skipped: Skipped::default(), kept: Kept(0), shared })
    }

    /// Says all of it; what was passed over.
    pub fn say(
        mut self,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Skipped, SyncError> {
        let builds = self.packages()?;
        self.shared.runs = self.shared.product.as_ref().and_then(product::runs);
        if let Some(product) = &self.shared.product {
            take(Said::Product(product.clone()))?;
        }
        match self.updateinfo {
            Some((listed, packing)) => self.advisories(listed, packing, take)?,
            None => self.builds(builds, take)?,
        }
        Ok(self.skipped)
    }

    /// Keeps what is needed of the packages; the builds they are of, if those are to be told.
    fn packages(&mut self) -> Result<Builds, SyncError> {
        let (listed, packing) = needed(self.repomd)?[0];
        let mut plain = Plain::open(self.run, listed, packing)?;
        let (shared, kept, run) = (&mut self.shared, &mut self.kept, self.run);
        let (mut builds, are_wanted) = (Builds::new(), self.updateinfo.is_none());
        primary::read(&mut plain, &mut self.skipped, |package, _| {
            run.watch.read()?;
            if shared.product.is_none() {
                shared.product = product::of_package(&package);
            }
            if package.is_source() {
                return Ok(());
            }
            let Package { name, href, pkgid, .. } = &package;
            kept.add(2 * name.len() + href.len() + pkgid.len())?;
            if are_wanted {
                kept.add(name.len() + package.summary.len() + package.source.len())?;
                add_to(&mut builds, &package, &shared.modules);
            }
            shared.packages.add(&package);
            Ok(())
        })?;
        plain.finish()?;
        Ok(builds)
    }

    fn advisories(
        &mut self,
        listed: &Listed,
        packing: Packing,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let run = self.run;
        let (shared, kept) = (&self.shared, &mut self.kept);
        // The first time: which of those with one id counts, and which replaces which.
        let mut ids = Vec::new();
        let mut winners: HashMap<UpdateId, (usize, Age)> = HashMap::new();
        let mut supersedence = Supersedence::default();
        let mut plain = Plain::open(run, listed, packing)?;
        updateinfo::read(&mut plain, &mut self.skipped, |advisory, _| {
            run.watch.moved();
            run.watch.check()?;
            let (turn, id) = (ids.len(), id_of(&advisory));
            ids.push(id);
            let fixes = shared.fixes(&advisory.packages);
            kept.add(advisory.version.len())?;
            for fix in &fixes {
                kept.add(
                    fix.name.len() + fix.arch.len() + fix.module.as_ref().map_or(0, String::len),
                )?;
            }
            supersedence.add(fixes.iter().map(listing));
            if is_retracted(&advisory) {
                supersedence.forget(turn);
            }
            match winners.get(&id) {
                Some((_, held)) if advisory.age().compare(held).is_lt() => {
                    supersedence.forget(turn);
                }
                _ => {
                    if let Some((before, _)) = winners.insert(id, (turn, advisory.age())) {
                        supersedence.forget(before);
                    }
                }
            }
            Ok(())
        })?;
        plain.finish()?;

        let mut replaced = replaced(supersedence, &ids);

        // The second time: what they say. What is broken was counted.
        let (mut turn, mut counted) = (0, Skipped::default());
        let mut plain = Plain::open(run, listed, packing)?;
        updateinfo::read(&mut plain, &mut counted, |advisory, _| {
            run.watch.read()?;
            let (this, id) = (turn, id_of(&advisory));
            turn += 1;
            if winners.get(&id).is_none_or(|(winner, _)| *winner != this) {
                return Ok(());
            }
            let mut update = shared.update_of(id, advisory);
            update.supersedes = replaced.remove(&this).unwrap_or_default();
            take(Said::Update(Box::new(update)))
        })?;
        plain.finish()
    }

    fn builds(
        &self,
        builds: Builds,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let (mut supersedence, mut ids) = (Supersedence::default(), Vec::new());
        for ((name, version), build) in &builds {
            ids.push(UpdateId::named(&["rpm", &build.vendor, name, version]));
            supersedence.add(build.packages.iter().map(listing));
        }
        let mut replaced = replaced(supersedence, &ids);
        for (turn, ((name, version), build)) in builds.into_iter().enumerate() {
            let mut update = self.shared.update_of_build(ids[turn], &name, &version, build);
            update.supersedes = replaced.remove(&turn).unwrap_or_default();
            take(Said::Update(Box::new(update)))?;
        }
        Ok(())
    }
}

/// How much is kept; what is more than may be is refused, whatever it is.
struct Kept(usize);

impl Kept {
    fn add(&mut self, texts: usize) -> Result<(), SyncError> {
        self.0 += texts + ENTRY;
        match self.0 > MAX_KEPT {
            true => Err(SyncError::new(
                Cause::TooLarge,
                format!(
                    "the repository needs more than the {} MiB that are kept of one",
                    MAX_KEPT >> 20
                ),
            )),
            false => Ok(()),
        }
    }
}

/// By turn, what each replaces.
fn replaced(supersedence: Supersedence, ids: &[UpdateId]) -> HashMap<usize, BTreeSet<UpdateId>> {
    let mut replaced: HashMap<usize, BTreeSet<UpdateId>> = HashMap::new();
    for (turn, by) in supersedence.nearest().into_iter().enumerate() {
        if let Some(by) = by {
            replaced.entry(by).or_default().insert(ids[turn]);
        }
    }
    replaced
}

fn listing(fix: &Fix) -> (&str, &str, Option<&str>, &Evr) {
    (&fix.name, &fix.arch, fix.module.as_deref(), &fix.evr)
}

/// The module streams of a repository.
pub(super) fn modules(run: &Run, repomd: &Repomd) -> Result<Modules, SyncError> {
    let Some((listed, packing)) = repomd.readable("modules") else {
        return Ok(Modules::default());
    };
    let mut plain = Plain::open(run, listed, packing)?;
    let modules = Modules::read(&mut plain)?;
    plain.finish()?;
    Ok(modules)
}

/// The id of an advisory's update: by who issued it, and what they call it.
fn id_of(advisory: &Advisory) -> UpdateId {
    UpdateId::named(&["rpm", &advisory.from, &advisory.id])
}

/// Whether its distribution took it back, as SUSE does.
pub(super) fn is_retracted(advisory: &Advisory) -> bool {
    advisory.status.eq_ignore_ascii_case("retracted")
}

fn add_to(builds: &mut Builds, package: &Package, modules: &Modules) {
    let version = package.evr.to_string();
    let source = source_of(&package.source).map(|(name, version)| (name.into(), version.into()));
    let source = source.unwrap_or_else(|| (package.name.clone(), version.clone()));
    let is_main = source.0 == package.name;
    let build = builds.entry(source).or_insert_with(|| Build {
        vendor: package.vendor.clone(),
        built: 0,
        summary: package.summary.clone(),
        packages: Vec::new(),
    });
    build.built = build.built.max(package.built);
    if is_main {
        build.summary.clone_from(&package.summary);
    }
    build.packages.push(Fix {
        name: package.name.clone(),
        evr: package.evr.clone(),
        arch: package.arch.clone(),
        module: modules.of(&package.name, &version, &package.arch).map(Into::into),
    });
}

/// Name, and version with release, of a source package's file name.
fn source_of(file: &str) -> Option<(&str, &str)> {
    let stem = file.strip_suffix(".src.rpm").or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let release = stem.rfind('-')?;
    let version = stem[..release].rfind('-')?;
    Some((&stem[..version], &stem[version + 1..]))
}
