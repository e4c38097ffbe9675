//! Deployment packages, for people: packages that hold files of updates, as the site brought them.
//!
//! Each is a package as any other. What is kept beside it is what it is for, the languages that it brings, and the
//! folder that its files are written to, if it has one. A package that `depot update download` made is one, too.

use crate::auth::Identity;
use crate::deployed::Content;
use crate::deployment_package::{Bring, KEPT, Kept, bring, find, find_or_advise, retention};
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::mirror;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, result_of, start};
use crate::routes::packages::source_folder;
use crate::site::{Site, blocking};
use ::sync::name::UpdateId;
use ::sync::taxonomy::Language;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use contentlib::Progress;
use deployment::GroupName;
use jiff::Timestamp;
use packager::compose::Base;
use packager::name::PackageName;
use packager::packages::PackageInfo;
use packager::refs::{Source, SourceFolder};
use serde::{Deserialize, Serialize};
use sitedb::Batch;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::PathBuf;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest name and description, in characters.
const MAX_NAME: usize = 50;
const MAX_DESCRIPTION: usize = 127;
/// Updates that one request may name, and that a message names.
const MAX_UPDATES: usize = 20_000;
const NAMED: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_deployment_packages, create_deployment_package))
        .routes(routes!(show_deployment_package, delete_deployment_package))
        .routes(routes!(download_to_package))
        .routes(routes!(remove_from_package))
}

/// A deployment package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "november", "description": "Patch day", "version": 2, "languages": ["en"], "updates": 37,
    "files": 41, "bytes": 91000000, "source": "/srv/updates/november",
    "created": "2026-11-28T09:00:00Z"
}))]
pub struct DeploymentPackageView {
    /// The package.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its newest version: 1 before anything was downloaded, 2 after the first download, one more with each change.
    pub version: u64,
    /// Of files that are for one language alone, those for these are brought; all, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// How many updates have files in it.
    pub updates: u64,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The folder of the server that its files are read from and written to; absent if the site keeps them itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// The updates that have a folder in the newest version of a package.
fn updates_in(site: &Site, info: &PackageInfo) -> Result<BTreeSet<UpdateId>, Problem> {
    let Some(latest) = &info.latest else { return Ok(BTreeSet::new()) };
    let manifest = site.content()?.packages.manifest(latest.manifest)?;
    let names = manifest.children(b"").into_iter().flatten();
    let names = names.filter_map(|entry| std::str::from_utf8(entry.path).ok()?.parse().ok());
    Ok(names.collect())
}

fn view(site: &Site, info: &PackageInfo, kept: Kept) -> Result<DeploymentPackageView, Problem> {
    let latest = info.latest.as_ref();
    Ok(DeploymentPackageView {
        name: info.name.to_string(),
        description: kept.description,
        version: latest.map_or(0, |it| it.version),
        languages: kept.languages.iter().map(ToString::to_string).collect(),
        updates: updates_in(site, info)?.len() as u64,
        files: latest.map_or(0, |it| it.n_files),
        bytes: latest.map_or(0, |it| it.bytes),
        source: kept.source.map(|folder| folder.to_string()),
        created: info.created,
    })
}

/// List deployment packages
///
/// By name: packages whose files are those of updates, as the site brought them.
#[utoipa::path(get, path = "/api/v1/deployment-packages", tag = "deployments",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of packages", body = Page<DeploymentPackageView>)))]
async fn list_deployment_packages(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeploymentPackageView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("deployment-packages")?);
    let page = blocking(move || {
        let db = &site.ledger()?.db;
        let mirrors = mirror::all(db)?;
        let mut all = site.content()?.packages.list()?;
        all.retain(|it| it.source == Source::Composed && !mirrors.contains_key(it.name.as_str()));
        let key = |it: &PackageInfo| it.name.to_string();
        let page = Page::cut("deployment-packages", all, after.as_deref(), limit, key);
        let mut items = Vec::with_capacity(page.items.len());
        for info in &page.items {
            let kept = KEPT.get(db, &info.name.to_string())?.unwrap_or_default();
            items.push(view(&site, info, kept)?);
        }
        Ok(Page { items, next: page.next })
    });
    Ok(Json(page.await?))
}

/// A deployment package to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "november", "description": "Patch day", "languages": ["en", "de"]}))]
pub struct NewDeploymentPackage {
    /// Its name: 1 to 50 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// What it is for, in at most 127 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Of files that are for one language alone, bring those for these; all, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// A folder of the server for its files, as an absolute path that no other package uses; takes the role admin. What
    /// lies there and is what its update says is not downloaded; what is downloaded is written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Make a deployment package
///
/// With version 1, which is empty.
#[utoipa::path(post, path = "/api/v1/deployment-packages", tag = "deployments",
    security(("token" = ["operator"])), request_body = NewDeploymentPackage,
    responses((status = 201, description = "The package", body = DeploymentPackageView,
        headers(("Location" = String, description = "Its address")))))]
async fn create_deployment_package(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewDeploymentPackage>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<DeploymentPackageView>), Problem> {
    note.target(&new.name);
    let name: PackageName = field("name", &new.name)?;
    let too_long =
        |field: &str, most| Problem::field(field, format!("must have at most {most} characters"));
    if new.name.chars().count() > MAX_NAME {
        return Err(too_long("name", MAX_NAME));
    }
    if new.description.chars().count() > MAX_DESCRIPTION {
        return Err(too_long("description", MAX_DESCRIPTION));
    }
    let languages = new.languages.iter().map(|tag| field::<Language>("languages", tag));
    let languages = languages.collect::<Result<_, _>>()?;
    let source = source_folder("source", new.source.as_deref(), &identity)?;
    let made = blocking(move || {
        let source = source.map(|folder| free_folder(&site, &name, folder)).transpose()?;
        let packages = site.content()?.packages;
        packages.create_composed(name.clone(), retention(&site))?;
        let kept = Kept { description: new.description, languages, source };
        if let Err(error) = KEPT.set(&site.ledger()?.db, &name.to_string(), &kept) {
            packages.delete_package(&name)?;
            return Err(error.into());
        }
        view(&site, &packages.show(&name)?, kept)
    });
    let made = made.await?;
    let location = ("location", format!("/api/v1/deployment-packages/{}", made.name));
    Ok((StatusCode::CREATED, [location], Json(made)))
}

/// A folder that no other package uses.
fn free_folder(site: &Site, name: &PackageName, folder: PathBuf) -> Result<SourceFolder, Problem> {
    let wrong = |detail: String| Problem::field("source", detail);
    let folder = folder
        .canonicalize()
        .map_err(|error| wrong(format!("{} cannot be used: {error}", folder.display())))?;
    if !folder.is_dir() {
        return Err(wrong(format!("{} is no folder", folder.display())));
    }
    let overlaps = |other: &PathBuf| folder.starts_with(other) || other.starts_with(&folder);
    if site.folder().canonicalize().is_ok_and(|own| overlaps(&own)) {
        return Err(wrong(format!("{} holds this site's own data", folder.display())));
    }
    let taken = |other: &str| {
        let detail = format!(
            "package {other} has its files in that folder, and two packages may not share one"
        );
        Problem::new(Kind::Conflict, &detail).caused_by("source", &detail)
    };
    for info in site.content()?.packages.list()? {
        if let Source::Folder(other) = &info.source
            && info.name != *name
            && overlaps(&other.0)
        {
            return Err(taken(info.name.as_str()));
        }
    }
    for (other, kept) in
        KEPT.scan(&site.ledger()?.db, sitedb::Order::Ascending, None, usize::MAX)?
    {
        if other != name.as_str() && kept.source.is_some_and(|it| overlaps(&it.0)) {
            return Err(taken(&other));
        }
    }
    Ok(SourceFolder(folder))
}

/// Show a deployment package
#[utoipa::path(get, path = "/api/v1/deployment-packages/{package}", tag = "deployments",
    security(("token" = ["reader"])),
    params(("package" = String, Path, description = "Its name", example = "november")),
    responses((status = 200, description = "The package", body = DeploymentPackageView)))]
async fn show_deployment_package(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<DeploymentPackageView>, Problem> {
    let name: PackageName = params.get("package")?;
    let shown = blocking(move || {
        let (info, kept) = find_or_advise(&site, &name)?;
        view(&site, &info, kept)
    });
    Ok(Json(shown.await?))
}

/// How a deployment package is deleted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Delete it though machines can get updates that are deployed from no other package.
    #[param(default = false)]
    force: Option<bool>,
}

/// Delete a deployment package
///
/// Machines get its updates from any other package that holds them. 409 if none does, of an update that an enabled
/// deployment has: `force` deletes it all the same. The files in its folder, if it has one, stay there.
#[utoipa::path(delete, path = "/api/v1/deployment-packages/{package}", tag = "deployments",
    security(("token" = ["operator"])), params(
        ("package" = String, Path, description = "Its name", example = "november"), DeleteQuery),
    responses((status = 200, description = "What it was", body = DeploymentPackageView),
        (status = 409, description = "It alone holds updates that are deployed", body = Problem)))]
async fn delete_deployment_package(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<DeploymentPackageView>, Problem> {
    let name: PackageName = params.get("package")?;
    let is_forced = query.force.unwrap_or(false);
    let deleted = blocking(move || {
        let (info, kept) = find(&site, &name)?;
        let was = view(&site, &info, kept)?;
        let lost = lost_without(&site, &name)?;
        if !lost.is_empty() && !is_forced {
            return Err(alone_holds(&site, &name, &lost)?);
        }
        site.content()?.packages.delete_package(&name)?;
        let db = &site.ledger()?.db;
        let mut batch = Batch::new();
        KEPT.delete(&mut batch, &name.to_string());
        db.kv().write(batch)?;
        site.deployed().look(&site)?;
        Ok((was, lost.len()))
    });
    let (was, lost) = deleted.await?;
    if lost > 0 {
        note.detail(format!("{lost} updates that are deployed are in no package any more"));
    }
    Ok(Json(was))
}

/// The updates of enabled deployments that no other package holds whole.
fn lost_without(site: &Site, package: &PackageName) -> Result<BTreeSet<UpdateId>, Problem> {
    let fleet = site.fleet()?;
    let enabled = fleet.deployments.with_groups().into_iter().filter(|(_, it, _)| it.enabled);
    let ids: BTreeSet<UpdateId> =
        enabled.flat_map(|(_, _, group)| group.ids().collect::<Vec<_>>()).collect();
    let ids: Vec<UpdateId> = ids.into_iter().collect();
    let now = site.deployed().contents(site, &ids, None)?;
    let then = site.deployed().contents(site, &ids, Some(package))?;
    let is_held = |id: &UpdateId| now.get(id) == Some(&Content::Held);
    let lost = |id: &UpdateId| is_held(id) && then.get(id) == Some(&Content::Missing);
    Ok(ids.into_iter().filter(lost).collect())
}

/// What somebody is told who is about to take away what no other package has.
fn alone_holds(
    site: &Site,
    name: &PackageName,
    lost: &BTreeSet<UpdateId>,
) -> Result<Problem, Problem> {
    let detail = format!(
        "package {name} alone holds {} of enabled deployments: machines could not get {} any more; force (--force) \
         does it all the same",
        listed(site, lost)?,
        if lost.len() == 1 { "it" } else { "them" }
    );
    Ok(Problem::new(Kind::Conflict, &detail).caused_by("force", &detail))
}

fn listed(site: &Site, ids: &BTreeSet<UpdateId>) -> Result<String, Problem> {
    let first: Vec<UpdateId> = ids.iter().copied().take(NAMED).collect();
    let found = site.updates()?.catalogue().listed(&first, &site.fleet()?.states)?;
    let names: Vec<String> = found.into_iter().map(|it| it.card.name).collect();
    let more = ids.len().saturating_sub(names.len());
    Ok(match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    })
}

/// Whose files are to be brought into a deployment package.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"group": "november"}))]
pub struct DownloadToPackage {
    /// Those of the updates of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Those of these updates, by id, name or article.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<String>,
    /// A folder of the server that files lie in, by their names or in folders by the ids of their updates; takes the role
    /// admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_folder: Option<String>,
    /// Bytes that come in a second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub rate: Option<NonZeroU64>,
}

/// Bring files of updates into a deployment package
///
/// A job, whose result (`DownloadView`) says what became of each file. What the library holds already, by whatever
/// package, is not downloaded again.
#[utoipa::path(post, path = "/api/v1/deployment-packages/{package}/download", tag = "deployments",
    operation_id = "download_to_package", security(("token" = ["operator"])),
    request_body = DownloadToPackage,
    params(("package" = String, Path, description = "Its name", example = "november")),
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn download_to_package(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(asked): Input<DownloadToPackage>,
) -> Result<Accepted, Problem> {
    let name: PackageName = params.get("package")?;
    if asked.updates.len() > MAX_UPDATES {
        return Err(Problem::field("updates", format!("must be at most {MAX_UPDATES}")));
    }
    let folder = source_folder("from_folder", asked.from_folder.as_deref(), &identity)?;
    let of = site.clone();
    let wanted = blocking(move || {
        find_or_advise(&of, &name)?;
        let mut updates = asked.updates;
        if let Some(group) = &asked.group {
            let group: GroupName = field("group", group)?;
            updates.extend(of.fleet()?.deployments.group(&group)?.ids().map(|id| id.to_string()));
        }
        if updates.is_empty() {
            return Err(Problem::field("updates", "names none, and the group has none"));
        }
        let (languages, rate) = (BTreeSet::new(), asked.rate.map(NonZeroU64::get));
        Ok(Bring { updates, package: name, languages, folder, rate })
    })
    .await?;
    let subject = format!("package/{}", wanted.package);
    let its_site = site.clone();
    let work = move |progress: &Progress| bring(&its_site, wanted, progress);
    start(site, identity, &note, "download_to_package", subject, Box::new(work)).await
}

/// Updates whose files a deployment package is to lose.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"updates": ["DSA-5545-1"]}))]
pub struct RemoveFromPackage {
    /// By id, name or article.
    pub updates: Vec<String>,
    /// Take them out though machines can get updates that are deployed from no other package.
    pub force: bool,
}

/// Take files of updates out of a deployment package
///
/// Its next version does not have them. A job. 409 if no other package holds one that an enabled deployment has: `force`
/// takes it out all the same.
#[utoipa::path(post, path = "/api/v1/deployment-packages/{package}/remove", tag = "deployments",
    operation_id = "remove_from_package", security(("token" = ["operator"])),
    request_body = RemoveFromPackage,
    params(("package" = String, Path, description = "Its name", example = "november")),
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn remove_from_package(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(asked): Input<RemoveFromPackage>,
) -> Result<Accepted, Problem> {
    let name: PackageName = params.get("package")?;
    if asked.updates.is_empty() || asked.updates.len() > MAX_UPDATES {
        let detail = format!("must name from 1 to {MAX_UPDATES} updates");
        return Err(Problem::field("updates", detail));
    }
    note.detail(format!("{} updates", asked.updates.len()));
    let (of, its) = (site.clone(), name.clone());
    let ids: BTreeSet<String> = blocking(move || {
        find(&of, &its)?;
        let updates = of.updates()?;
        let id = |which: &String| match which.parse::<UpdateId>() {
            Ok(id) => Ok(id),
            Err(_) => Ok::<_, Problem>(updates.catalogue().get(which)?.update.id),
        };
        let ids = asked.updates.iter().map(id).collect::<Result<BTreeSet<_>, _>>()?;
        let lost: BTreeSet<_> = lost_without(&of, &its)?.intersection(&ids).copied().collect();
        if !lost.is_empty() && !asked.force {
            return Err(alone_holds(&of, &its, &lost)?);
        }
        Ok(ids.iter().map(ToString::to_string).collect())
    })
    .await?;
    let subject = format!("package/{name}");
    let its_site = site.clone();
    let work = move |_: &Progress| {
        let packages = its_site.content()?.packages;
        let composition = packages.compose(&name, Base::Newest, Default::default())?;
        for path in composition.paths() {
            let top = path.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
            if std::str::from_utf8(top).is_ok_and(|top| ids.contains(top)) {
                composition.take_out(&path);
            }
        }
        let report = composition.finish()?;
        its_site.deployed().look(&its_site)?;
        result_of(&report)
    };
    start(site, identity, &note, "remove_from_package", subject, Box::new(work)).await
}
