//! Packages: make, list, show, update, settings, channels, delete.

use crate::auth::{Identity, Role};
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::mirror::{self, Mirror};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, result_of, start};
use crate::site::{Site, blocking};
use crate::views::{ChannelMovedView, DeletedView, PackageView, RetentionView, VersionView};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use contentlib::Progress;
use packager::name::{ChannelName, PackageName, Selector};
use packager::packages::{ChannelMoved, Deleted, NewPackage, PackageInfo};
use packager::refs::SourceFolder;
use packager::retention::Retention;
use packager::scan::Rescan;
use packager::sign::VersionInfo;
use packager::update::UpdateOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_packages, create_package))
        .routes(routes!(show_package, delete_package))
        .routes(routes!(update_package))
        .routes(routes!(set_retention))
        .routes(routes!(list_channels))
        .routes(routes!(set_channel, remove_channel))
}

/// The folder that a request names as a source. It is read with the server's rights and served to
/// all, so only an administrator may name one.
pub(super) fn source_folder(
    field: &str,
    text: Option<&str>,
    identity: &Identity,
) -> Result<Option<PathBuf>, Problem> {
    let Some(text) = text else { return Ok(None) };
    if identity.role < Role::Admin {
        let detail = "only the role admin may name a folder of the server as a source: push the files instead";
        return Err(Problem::new(Kind::Forbidden, detail).caused_by(field, "takes the role admin"));
    }
    let SourceFolder(path) = SourceFolder::try_from(text.to_owned())
        .map_err(|error| Problem::field(field, format!("is no path: {error}")))?;
    if !path.is_absolute() {
        return Err(Problem::field(field, format!("must be an absolute path, not {text:?}")));
    }
    Ok(Some(path))
}

/// List the packages
///
/// By name.
#[utoipa::path(get, path = "/api/v1/packages", tag = "packages",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of packages", body = Page<PackageView>)))]
async fn list_packages(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ShownPackage>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("packages")?);
    let all = blocking(move || {
        let mut mirrors = mirror::all(&site.ledger()?.db)?;
        let all = site.content()?.packages.list()?.into_iter().map(move |info| {
            let mirror = mirrors.remove(info.name.as_str());
            ShownPackage { info, mirror }
        });
        Ok(all.collect::<Vec<_>>())
    })
    .await?;
    Ok(Json(Page::cut("packages", all, after.as_deref(), limit, |p| p.info.name.to_string())))
}

/// A package, and what it mirrors.
#[derive(Serialize)]
struct ShownPackage {
    #[serde(flatten)]
    info: PackageInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<Mirror>,
}

/// A package to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "docs", "source": "/usr/share/doc", "keep": 5}))]
pub struct CreatePackage {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// The folder of the server that its files are read from, as an absolute path; takes the role
    /// admin. Without it, clients upload them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The newest so many versions are kept; without it, as many as the site's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub keep: Option<NonZeroU32>,
    /// Of those, ones that a newer version replaced more days ago go as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub days: Option<NonZeroU32>,
    /// The upstream that its versions are snapshots of, in place of a folder or uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// Make a package
///
/// With version 1, which is empty.
#[utoipa::path(post, path = "/api/v1/packages", tag = "packages",
    security(("token" = ["operator"])), request_body = CreatePackage,
    responses((status = 201, description = "Its version 1", body = VersionView,
        headers(("Location" = String, description = "The package's address")))))]
async fn create_package(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<CreatePackage>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<VersionInfo>), Problem> {
    note.target(&new.name);
    let name: PackageName = new
        .name
        .parse()
        .map_err(|error: packager::name::BadName| Problem::field("name", error.to_string()))?;
    let source = source_folder("source", new.source.as_deref(), &identity)?;
    let default = NonZeroU32::new(site.config().packages.keep_versions as u32);
    let keep = new.keep.or(default).unwrap_or(NonZeroU32::MIN);
    let retention = Retention { keep, days: new.days };
    let location = format!("/api/v1/packages/{name}");
    if let (Some(_), Some(_)) = (&source, &new.mirror) {
        return Err(Problem::field(
            "mirror",
            "and `source` cannot both say where its files come from",
        ));
    }
    let version = blocking(move || {
        let packages = site.content()?.packages;
        let db = &site.ledger()?.db;
        let Some(mirror) = new.mirror else {
            let made = packages.create(NewPackage { name: name.clone(), source, retention })?;
            // One of that name may have been cut off while it went.
            if mirror::of(db, &name)?.is_some() {
                mirror::set(db, &name, None)?;
            }
            return Ok(made);
        };
        mirror.check_with(&site)?;
        let made = packages.create_composed(name.clone(), retention)?;
        if let Err(problem) = mirror::set(db, &name, Some(&mirror)) {
            packages.delete_package(&name)?;
            return Err(problem);
        }
        Ok(made)
    })
    .await?;
    Ok((StatusCode::CREATED, [("location", location)], Json(version)))
}

/// Show a package
#[utoipa::path(get, path = "/api/v1/packages/{package}", tag = "packages",
    security(("token" = ["reader"])),
    params(("package" = String, Path, description = "Its name", example = "docs")),
    responses((status = 200, description = "The package", body = PackageView)))]
async fn show_package(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ShownPackage>, Problem> {
    let name: PackageName = params.get("package")?;
    let shown = blocking(move || {
        let info = site.content()?.packages.show(&name)?;
        let mirror = mirror::of(&site.ledger()?.db, &name)?;
        Ok(ShownPackage { info, mirror })
    });
    Ok(Json(shown.await?))
}

/// Delete a package
///
/// With all its versions and channels. Bytes that nothing else has become free later, as the
/// answer says, so that readers under way are not cut off.
#[utoipa::path(delete, path = "/api/v1/packages/{package}", tag = "packages",
    security(("token" = ["operator"])),
    params(("package" = String, Path, description = "Its name", example = "docs")),
    responses((status = 200, description = "What was deleted", body = DeletedView)))]
async fn delete_package(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<Deleted>, Problem> {
    let name: PackageName = params.get("package")?;
    let deleted = blocking(move || {
        let deleted = site.content()?.packages.delete_package(&name)?;
        let db = &site.ledger()?.db;
        if mirror::of(db, &name)?.is_some() {
            mirror::set(db, &name, None)?;
        }
        Ok(deleted)
    })
    .await?;
    note.detail(format!("{} versions", deleted.versions.len()));
    Ok(Json(deleted))
}

/// What to update a package from.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"rescan": "changed"}))]
pub struct UpdatePackage {
    /// The package's source from now on: a folder of the server, as an absolute path; takes the
    /// role admin. Without it, the source that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which files are read.
    pub rescan: RescanView,
}

/// Which source files are read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RescanView {
    /// Those whose size, times or inode differ from when they were last read.
    #[default]
    Changed,
    /// All: finds files that were written with their times put back, and heals damaged content.
    Everything,
}

/// Update a package from its source
///
/// Of a mirror, the source is its upstream as the last sync found it. A job. Its result says which version came of it (`UpdateView`); if nothing changed, there is no
/// new one.
#[utoipa::path(post, path = "/api/v1/packages/{package}/update", tag = "packages",
    security(("token" = ["operator"])),
    params(("package" = String, Path, description = "Its name", example = "docs")),
    request_body = UpdatePackage,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn update_package(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(update): Input<UpdatePackage>,
) -> Result<Accepted, Problem> {
    let name: PackageName = params.get("package")?;
    let source = source_folder("source", update.source.as_deref(), &identity)?;
    let rescan = match update.rescan {
        RescanView::Changed => Rescan::Changed,
        RescanView::Everything => Rescan::Everything,
    };
    let (packages, mirror) = {
        let (site, name) = (site.clone(), name.clone());
        blocking(move || {
            let packages = site.content()?.packages;
            packages.show(&name)?;
            Ok((packages, mirror::of(&site.ledger()?.db, &name)?))
        })
        .await?
    };
    let is_of_folders = source.is_some() || update.rescan != RescanView::Changed;
    if let Some(mirror) = mirror.as_ref().filter(|_| is_of_folders) {
        let detail = format!("{name} mirrors the source {}, and is no folder's", mirror.source);
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let subject = format!("package/{name}");
    let its_site = site.clone();
    let work = move |progress: &Progress| match mirror {
        Some(mirror) => mirror::update(&its_site, &name, mirror, progress),
        None => {
            let options = UpdateOptions { source, rescan };
            result_of(&packages.update(&name, &options, progress)?)
        }
    };
    start(site, identity, &note, "update_package", subject, Box::new(work)).await
}

/// Set which versions are kept
///
/// How many are kept takes effect with the next version; a serving site looks at their age every
/// hour, too.
#[utoipa::path(put, path = "/api/v1/packages/{package}/retention", tag = "packages",
    security(("token" = ["operator"])),
    params(("package" = String, Path, description = "Its name", example = "docs")),
    request_body = RetentionView,
    responses((status = 200, description = "What is kept from now on", body = RetentionView)))]
async fn set_retention(
    State(site): State<Site>,
    params: Params,
    Input(retention): Input<RetentionView>,
) -> Result<Json<RetentionView>, Problem> {
    let name: PackageName = params.get("package")?;
    let wanted = Retention { keep: retention.keep, days: retention.days };
    blocking(move || Ok(site.content()?.packages.set_retention(&name, wanted)?)).await?;
    Ok(Json(retention))
}

/// List a package's channels
///
/// With the versions they point to. `latest` is none: it always is the newest.
#[utoipa::path(get, path = "/api/v1/packages/{package}/channels", tag = "packages",
    security(("token" = ["reader"])),
    params(("package" = String, Path, description = "Its name", example = "docs")),
    responses((status = 200, description = "Channels and versions",
        body = BTreeMap<String, u64>, example = json!({"stable": 2, "test": 3}))))]
async fn list_channels(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BTreeMap<ChannelName, u64>>, Problem> {
    let name: PackageName = params.get("package")?;
    Ok(Json(blocking(move || Ok(site.content()?.packages.channels(&name)?)).await?))
}

/// Where a channel is to point.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"version": "latest"}))]
pub struct SetChannel {
    /// A version's number, `latest`, or the name of another channel.
    pub version: String,
}

/// Point a channel to a version
///
/// Makes the channel if there is none of that name. Versions that channels point to are kept.
#[utoipa::path(put, path = "/api/v1/packages/{package}/channels/{channel}", tag = "packages",
    security(("token" = ["operator"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("channel" = String, Path, description = "The channel's name", example = "stable"),
    ),
    request_body = SetChannel,
    responses((status = 200, description = "Where it points now", body = ChannelMovedView)))]
async fn set_channel(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(to): Input<SetChannel>,
) -> Result<Json<ChannelMoved>, Problem> {
    let (name, channel): (PackageName, ChannelName) =
        (params.get("package")?, params.get("channel")?);
    let to: Selector = to
        .version
        .parse()
        .map_err(|error: packager::name::BadName| Problem::field("version", error.to_string()))?;
    let moved =
        blocking(move || Ok(site.content()?.packages.set_channel(&name, &channel, &to)?)).await?;
    note.detail(format!("to version {}", moved.to));
    Ok(Json(moved))
}

/// Remove a channel
///
/// The version it pointed to stays as long as the package's retention keeps it.
#[utoipa::path(delete, path = "/api/v1/packages/{package}/channels/{channel}", tag = "packages",
    security(("token" = ["operator"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("channel" = String, Path, description = "The channel's name", example = "stable"),
    ),
    responses((status = 204, description = "It is gone")))]
async fn remove_channel(State(site): State<Site>, params: Params) -> Result<StatusCode, Problem> {
    let (name, channel): (PackageName, ChannelName) =
        (params.get("package")?, params.get("channel")?);
    blocking(move || Ok(site.content()?.packages.remove_channel(&name, &channel)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
