//! Deployment packages: packages that hold files of updates, and what is kept beside each.
//!
//! Whoever brings files into one, people, `depot deploy --package` or a rule, does it here: so its languages and its own
//! folder count whoever it is.

use crate::downloads::{self, Wanted};
use crate::mirror;
use crate::problem::{Kind, Problem};
use crate::site::Site;
use ::sync::taxonomy::Language;
use contentlib::Progress;
use packager::PackageError;
use packager::name::PackageName;
use packager::packages::PackageInfo;
use packager::refs::{Source, SourceFolder};
use packager::retention::Retention;
use serde::{Deserialize, Serialize};
use sitedb::{Table, Value};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// What is kept beside each, by its name.
pub(crate) const KEPT: Table<String, Kept> = Table::new("deployment-package");

/// What is kept beside a deployment package.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// What it is for.
    pub description: String,
    /// Of files that are for one language alone, those for these are brought; all, if none is named.
    pub languages: BTreeSet<Language>,
    /// The folder that its files are read from and written to.
    pub source: Option<SourceFolder>,
}
impl Value for Kept {}

/// What is to be brought into one.
pub(crate) struct Bring {
    /// Updates, by id, name or article.
    pub updates: Vec<String>,
    /// The package; made, if there is none.
    pub package: PackageName,
    /// The languages; those of the package, if none is named.
    pub languages: BTreeSet<Language>,
    /// A folder of this machine that the files lie in, in place of the upstreams.
    pub folder: Option<PathBuf>,
    /// Bytes that come in a second at most.
    pub rate: Option<u64>,
}

/// A deployment package, and what is kept beside it.
pub(crate) fn find(site: &Site, name: &PackageName) -> Result<(PackageInfo, Kept), Problem> {
    let db = &site.ledger()?.db;
    let info = match site.content()?.packages.show(name) {
        Err(PackageError::UnknownPackage(_)) => {
            return Err(Problem::not_found("deployment package", name));
        }
        info => info?,
    };
    let kept = KEPT.get(db, &name.to_string())?;
    if info.source != Source::Composed || mirror::of(db, name)?.is_some() {
        let detail = format!("{name} is no deployment package: its files come from elsewhere");
        return Err(Problem::new(Kind::Conflict, &detail).caused_by("package", &detail));
    }
    Ok((info, kept.unwrap_or_default()))
}

/// [`find`] for somebody who would have it made if there is none.
pub(crate) fn find_or_advise(
    site: &Site,
    name: &PackageName,
) -> Result<(PackageInfo, Kept), Problem> {
    find(site, name).map_err(|mut problem| {
        if problem.is(Kind::NotFound) {
            let detail = &problem.detail;
            problem.detail = format!("{detail}; create it: depot deployment-package create {name}");
        }
        problem
    })
}

/// Brings files of updates into a deployment package and into its own folder, as the work of a job: the result of
/// [`downloads::download`].
pub(crate) fn bring(
    site: &Site,
    it: Bring,
    progress: &Progress,
) -> Result<serde_json::Value, Problem> {
    let kept = KEPT.get(&site.ledger()?.db, &it.package.to_string())?.unwrap_or_default();
    let name = it.package.clone();
    let wanted = Wanted {
        updates: it.updates,
        package: it.package,
        retention: retention(site),
        languages: if it.languages.is_empty() { kept.languages } else { it.languages },
        folder: it.folder,
        rate: it.rate,
        source: kept.source.as_ref().map(|folder| folder.0.clone()),
    };
    let done = downloads::download(site, wanted, progress)?;
    if let Some(SourceFolder(folder)) = kept.source {
        downloads::write_out(site, &name, &folder)?;
    }
    site.deployed().look(site)?;
    Ok(done)
}

/// What a package keeps that is made for files of updates.
pub(crate) fn retention(site: &Site) -> Retention {
    let keep = NonZeroU32::new(site.config().packages.keep_versions as u32);
    Retention { keep: keep.unwrap_or(NonZeroU32::MIN), days: None }
}
