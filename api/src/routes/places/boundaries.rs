//! Boundaries: ranges of addresses, and the groups that their clients belong to.

use super::group_names;
use crate::auth::Identity;
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::page::{Page, key_of, limit_or_default};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use dp::locate::{AddressRange, Boundary, Overlap};
use dp::registry::{Registry, RegistryError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const LIST: &str = "boundaries";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list_boundaries, create_boundary)).routes(routes!(
        show_boundary,
        change_boundary,
        delete_boundary
    ))
}

/// A range of addresses, and the groups that its clients belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "range": "10.7.0.0/16", "groups": ["paris"], "created": "2026-11-22T12:00:00Z",
    "created_by": "admin"
}))]
pub struct BoundaryView {
    /// A prefix, one address, or `FROM-TO`: the same addresses are always written the same way.
    pub range: String,
    /// The boundary groups that it is in.
    pub groups: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
}

impl From<Boundary> for BoundaryView {
    fn from(boundary: Boundary) -> Self {
        let Boundary { range, groups, created, created_by } = boundary;
        let groups = groups.iter().map(ToString::to_string).collect();
        Self { range: range.to_string(), groups, created, created_by }
    }
}

/// A boundary that was saved, and those that it shares addresses with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "range": "10.7.0.0/16", "groups": ["paris"], "created": "2026-11-22T12:00:00Z",
    "created_by": "admin", "n_overlaps": 1,
    "overlaps": [{"range": "10.0.0.0/8", "groups": ["head-office"], "how": "inside"}]
}))]
pub struct SavedBoundary {
    /// What it is.
    #[serde(flatten)]
    pub boundary: BoundaryView,
    /// How many others share addresses with it.
    pub n_overlaps: u64,
    /// The first twenty of them.
    pub overlaps: Vec<OverlapView>,
}

/// A boundary that another one shares addresses with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"range": "10.0.0.0/8", "groups": ["head-office"], "how": "inside"}))]
pub struct OverlapView {
    /// Its addresses.
    pub range: String,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// How the saved boundary lies to it: `inside` of it and counts in its place, `contains` it, or
    /// `crosses` it, where the smaller one counts for what both have.
    pub how: String,
}

/// What was saved, with what it overlaps.
fn saved(registry: &Registry, boundary: Boundary) -> SavedBoundary {
    let overlaps = registry.overlaps(&boundary.range);
    let told = overlaps.told.into_iter().map(|(other, how)| {
        let how = match how {
            Overlap::Contains => "contains",
            Overlap::Inside => "inside",
            Overlap::Crosses => "crosses",
        };
        let BoundaryView { range, groups, .. } = other.into();
        OverlapView { range, groups, how: how.into() }
    });
    let (overlaps, n_overlaps) = (told.collect(), overlaps.n as u64);
    SavedBoundary { boundary: boundary.into(), n_overlaps, overlaps }
}

/// Which boundaries are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BoundaryQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this boundary group.
    group: Option<String>,
}

/// List the boundaries
///
/// By address.
#[utoipa::path(get, path = "/api/v1/boundaries", tag = "places",
    security(("token" = ["reader"])), params(BoundaryQuery),
    responses((status = 200, description = "A page of boundaries", body = Page<BoundaryView>),
        (status = 404, description = "The group is not there", body = Problem)))]
async fn list_boundaries(
    State(site): State<Site>,
    Query(query): Query<BoundaryQuery>,
) -> Result<Json<Page<BoundaryView>>, Problem> {
    let limit = limit_or_default(query.limit)?;
    let after = query.cursor.as_deref().map(read_key).transpose()?;
    let found = blocking(move || {
        let ledger = site.ledger()?;
        let group = query.group.as_deref().map(|name| ledger.registry.boundary_group(name));
        let group = group.transpose()?.map(|group| group.name);
        Ok(ledger.registry.boundaries(group.as_ref(), after.as_ref(), limit + 1))
    });
    let page = Page::of(LIST, found.await?, limit, |boundary| boundary.range.to_string());
    Ok(Json(page.map(BoundaryView::from)))
}

fn read_key(cursor: &str) -> Result<AddressRange, Problem> {
    let bad = |_| Problem::malformed("cursor", "is not a `next` of this list");
    key_of(LIST, cursor)?.parse().map_err(bad)
}

/// A boundary to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"range": "10.7.0.0/16", "groups": ["paris"]}))]
pub struct NewBoundary {
    /// A prefix of IPv4 or IPv6 (`10.7.0.0/16`), a range (`10.7.3.1-10.7.3.99`), or one address.
    pub range: String,
    /// The boundary groups that its clients belong to; at least one.
    pub groups: Vec<String>,
}

/// Make a boundary
///
/// Of the boundaries that have a client's address the smallest counts. The answer tells of others
/// that share addresses with the new one.
#[utoipa::path(post, path = "/api/v1/boundaries", tag = "places",
    security(("token" = ["admin"])), request_body = NewBoundary,
    responses((status = 201, description = "It is made", body = SavedBoundary,
        headers(("Location" = String, description = "Its address"))),
        (status = 404, description = "A group is not there", body = Problem)))]
async fn create_boundary(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewBoundary>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<SavedBoundary>), Problem> {
    note.target(&new.range);
    let range: AddressRange = field("range", &new.range)?;
    let groups = group_names(&new.groups)?;
    note.detail(format!("{range} in {}", new.groups.join(", ")));
    let made = changed(site, move |registry| {
        registry.create_boundary(range, groups, &identity.name, Timestamp::now())
    });
    let address = range.to_string().replace('/', "%2F");
    let location = ("location", format!("/api/v1/boundaries/{address}"));
    Ok((StatusCode::CREATED, [location], made.await?))
}

/// Show a boundary
#[utoipa::path(get, path = "/api/v1/boundaries/{boundary}", tag = "places",
    security(("token" = ["reader"])),
    params(("boundary" = String, Path, description = "Its addresses, the slash as %2F",
        example = "10.7.0.0%2F16")),
    responses((status = 200, description = "The boundary", body = SavedBoundary)))]
async fn show_boundary(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<SavedBoundary>, Problem> {
    let range: AddressRange = params.get("boundary")?;
    changed(site, move |registry| registry.boundary(&range)).await
}

/// What a boundary is to be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"groups": ["paris", "lyon"]}))]
pub struct BoundaryChange {
    /// The boundary groups that its clients belong to, in place of those before; at least one.
    pub groups: Vec<String>,
}

/// Change a boundary
///
/// Puts it into other groups.
#[utoipa::path(patch, path = "/api/v1/boundaries/{boundary}", tag = "places",
    security(("token" = ["admin"])), request_body = BoundaryChange,
    params(("boundary" = String, Path, description = "Its addresses, the slash as %2F",
        example = "10.7.0.0%2F16")),
    responses((status = 200, description = "It is changed", body = SavedBoundary)))]
async fn change_boundary(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(change): Input<BoundaryChange>,
) -> Result<Json<SavedBoundary>, Problem> {
    let range: AddressRange = params.get("boundary")?;
    note.target(range.to_string());
    note.detail(format!("in {}", change.groups.join(", ")));
    let groups = group_names(&change.groups)?;
    changed(site, move |registry| registry.change_boundary(&range, groups)).await
}

/// Remove a boundary
///
/// Its clients belong to the next larger boundary that has them, if there is one.
#[utoipa::path(delete, path = "/api/v1/boundaries/{boundary}", tag = "places",
    security(("token" = ["admin"])),
    params(("boundary" = String, Path, description = "Its addresses, the slash as %2F",
        example = "10.7.0.0%2F16")),
    responses((status = 200, description = "What it was", body = SavedBoundary)))]
async fn delete_boundary(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<SavedBoundary>, Problem> {
    let range: AddressRange = params.get("boundary")?;
    note.target(range.to_string());
    changed(site, move |registry| registry.delete_boundary(&range)).await
}

async fn changed(
    site: Site,
    change: impl FnOnce(&Registry) -> Result<Boundary, RegistryError> + Send + 'static,
) -> Result<Json<SavedBoundary>, Problem> {
    let changed = blocking(move || {
        let registry = &site.ledger()?.registry;
        Ok(saved(registry, change(registry)?))
    });
    Ok(Json(changed.await?))
}
