//! Versions of a package: list, show, delete, look into, compare.

use crate::extract::{Params, Query, parse_field};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery, cursor_of, key_of, limit_or_default};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use crate::views::{DeletedView, DiffView, TreeView, VersionView};
use axum::Json;
use axum::extract::{Extension, State};
use packager::diff::{Change, DiffCounts};
use packager::name::{PackageName, Selector};
use packager::packages::{Deleted, Force};
use packager::path::TreePath;
use packager::sign::VersionInfo;
use packager::tree::{self, Depth, TreeEntry};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_versions))
        .routes(routes!(show_version, delete_version))
        .routes(routes!(list_tree))
        .routes(routes!(compare_versions))
}

/// List a package's versions
///
/// The oldest first.
#[utoipa::path(get, path = "/api/v1/packages/{package}/versions", tag = "packages",
    security(("token" = ["reader"])),
    params(("package" = String, Path, description = "The package", example = "docs"), PageQuery),
    responses((status = 200, description = "A page of versions", body = Page<VersionView>)))]
async fn list_versions(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<VersionInfo>>, Problem> {
    let name: PackageName = params.get("package")?;
    let (limit, after) = (query.limit()?, query.after("versions")?);
    let all = blocking(move || Ok(site.content()?.packages.versions(&name)?)).await?;
    // As many digits as any number has, so that text sorts as numbers do.
    let key = |version: &VersionInfo| format!("{:020}", version.version);
    Ok(Json(Page::cut("versions", all, after.as_deref(), limit, key)))
}

/// Show a version
#[utoipa::path(get, path = "/api/v1/packages/{package}/versions/{version}", tag = "packages",
    security(("token" = ["reader"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("version" = String, Path, description = "A number, `latest`, or a channel", example = "latest"),
    ),
    responses((status = 200, description = "The version", body = VersionView)))]
async fn show_version(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<VersionInfo>, Problem> {
    let (name, version): (PackageName, Selector) = (params.get("package")?, params.get("version")?);
    Ok(Json(blocking(move || Ok(site.content()?.packages.resolve(&name, &version)?)).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Delete it even if `latest` or a channel points to it; such channels are removed.
    #[serde(default)]
    #[param(default = false)]
    force: bool,
}

/// Delete a version
///
/// Its number is never used again.
#[utoipa::path(delete, path = "/api/v1/packages/{package}/versions/{version}", tag = "packages",
    security(("token" = ["operator"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("version" = String, Path, description = "A number, `latest`, or a channel", example = "2"),
        DeleteQuery,
    ),
    responses((status = 200, description = "What was deleted", body = DeletedView)))]
async fn delete_version(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Deleted>, Problem> {
    let (name, version): (PackageName, Selector) = (params.get("package")?, params.get("version")?);
    let force = if query.force { Force::Yes } else { Force::No };
    let deleted =
        blocking(move || Ok(site.content()?.packages.delete_version(&name, &version, force)?));
    let deleted = deleted.await?;
    note.detail(format!("version {:?}", deleted.versions));
    Ok(Json(deleted))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TreeQuery {
    /// The folder to list; without it, the top folder.
    #[param(example = "a/b")]
    path: Option<String>,
    /// Whether everything below is listed too.
    #[serde(default)]
    #[param(default = false)]
    recursive: bool,
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
}

/// Where a page of a list of paths begins.
fn part(list: &str, limit: Option<usize>, cursor: Option<&str>) -> Result<tree::Page, Problem> {
    let after = cursor.map(|cursor| key_of(list, cursor)).transpose()?;
    let after = after.map(|path| parse_field::<TreePath>("cursor", &path)).transpose()?;
    Ok(tree::Page { after, limit: limit_or_default(limit)? })
}

/// List what is in a version
///
/// One folder, or everything below it, in the order of paths.
#[utoipa::path(get, path = "/api/v1/packages/{package}/versions/{version}/tree", tag = "packages",
    security(("token" = ["reader"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("version" = String, Path, description = "A number, `latest`, or a channel", example = "latest"),
        TreeQuery,
    ),
    responses((status = 200, description = "A page of entries", body = TreeView)))]
async fn list_tree(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<TreeQuery>,
) -> Result<Json<TreeView<TreeEntry>>, Problem> {
    let (name, version): (PackageName, Selector) = (params.get("package")?, params.get("version")?);
    let part = part("tree", query.limit, query.cursor.as_deref())?;
    let folder = match query.path.as_deref() {
        None | Some("") => Vec::new(),
        Some(path) => parse_field::<TreePath>("path", path)?.as_bytes().to_vec(),
    };
    let depth = if query.recursive { Depth::All } else { Depth::Children };
    let page = blocking(move || {
        Ok(site.content()?.packages.tree(&name, &version, &folder, depth, &part)?)
    });
    let page = page.await?;
    let next = page.next.map(|path| cursor_of("tree", &path.to_string()));
    Ok(Json(TreeView { version: page.version, items: page.entries, next }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    /// The earlier version: a number, `latest`, or a channel.
    #[param(example = "2")]
    from: String,
    /// The later version; without it, `latest`.
    #[param(example = "3")]
    to: Option<String>,
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
}

/// Compare two versions
///
/// Times are not compared.
#[utoipa::path(get, path = "/api/v1/packages/{package}/diff", tag = "packages",
    security(("token" = ["reader"])),
    params(("package" = String, Path, description = "The package", example = "docs"), DiffQuery),
    responses((status = 200, description = "A page of differences", body = DiffView)))]
async fn compare_versions(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffView<DiffCounts, Change>>, Problem> {
    let name: PackageName = params.get("package")?;
    let from: Selector = parse_field("from", &query.from)?;
    let to: Selector = parse_field("to", query.to.as_deref().unwrap_or("latest"))?;
    let part = part("diff", query.limit, query.cursor.as_deref())?;
    let page = blocking(move || Ok(site.content()?.packages.diff(&name, &from, &to, &part)?));
    let page = page.await?;
    let next = page.next.map(|path| cursor_of("diff", &path.to_string()));
    Ok(Json(DiffView {
        from: page.from,
        to: page.to,
        counts: page.counts,
        items: page.changes,
        next,
    }))
}
