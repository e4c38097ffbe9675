//! Boundary groups: the points that are near to some clients, and whom these turn to next.

use crate::auth::Identity;
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::routes::points::PriorityView;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use dp::locate::{BoundaryGroup, Fallback, OnDemand};
use dp::registry::{BoundaryGroupName, Registry, RegistryError, Target};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const LIST: &str = "boundary-groups";
/// For how many days what came on demand is kept, if nobody says.
const DAYS: u16 = 30;
/// The most days that it may be kept.
const MOST_DAYS: u16 = 3660;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_boundary_groups, create_boundary_group))
        .routes(routes!(show_boundary_group, delete_boundary_group))
        .routes(routes!(add_to_boundary_group, remove_from_boundary_group))
        .routes(routes!(set_neighbour, unset_neighbour))
        .routes(routes!(set_on_demand, unset_on_demand))
}

/// A place: some clients, and the points that are near to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "paris", "points": ["branch-7"], "n_boundaries": 2,
    "neighbours": [{"group": "lyon", "after": 1200}], "on_demand": {"priority": "low", "days": 30},
    "is_default": false, "created": "2026-11-22T12:00:00Z", "created_by": "admin"
}))]
pub struct BoundaryGroupView {
    /// What people call it.
    pub name: String,
    /// The names of the points that its clients turn to at once.
    pub points: Vec<String>,
    /// How many boundaries are in it.
    pub n_boundaries: u64,
    /// The groups that its clients turn to next.
    pub neighbours: Vec<NeighbourView>,
    /// How what none of its points holds is brought; absent if it is not.
    #[serde(default)]
    pub on_demand: Option<OnDemandView>,
    /// Whether it is the default group.
    pub is_default: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
}

/// A group that clients of another turn to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"group": "lyon", "after": 1200}))]
pub struct NeighbourView {
    /// The neighbour.
    pub group: String,
    /// After so many seconds; absent if they never do.
    #[serde(default)]
    pub after: Option<u64>,
}

/// How something is brought that clients ask for and no point of their group holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"priority": "low", "days": 30}))]
pub struct OnDemandView {
    /// How soon.
    #[serde(default = "low")]
    #[schema(default = "low")]
    pub priority: PriorityView,
    /// For how many days it is kept after a client asked for it last: 1 to 3660.
    #[serde(default = "days")]
    #[schema(default = 30, minimum = 1, maximum = 3660)]
    pub days: u16,
}

fn low() -> PriorityView {
    PriorityView::Low
}

fn days() -> u16 {
    DAYS
}

impl OnDemandView {
    fn checked(self, name: &str) -> Result<OnDemand, Problem> {
        if !(1..=MOST_DAYS).contains(&self.days) {
            let detail = format!("must be from 1 to {MOST_DAYS}, not {}", self.days);
            return Err(Problem::field(name, detail));
        }
        Ok(OnDemand { priority: self.priority.into(), days: self.days })
    }
}

impl From<OnDemand> for OnDemandView {
    fn from(on_demand: OnDemand) -> Self {
        Self { priority: on_demand.priority.into(), days: on_demand.days }
    }
}

/// The seconds after which clients turn somewhere; nothing if they never do.
pub(super) fn seconds(fallback: Fallback) -> Option<u64> {
    match fallback {
        Fallback::After(after) => Some(after.as_secs()),
        Fallback::Never => None,
    }
}

/// What [`seconds`] says.
pub(super) fn fallback(seconds: Option<u64>) -> Fallback {
    seconds.map_or(Fallback::Never, |seconds| Fallback::After(Duration::from_secs(seconds)))
}

impl BoundaryGroupView {
    fn of(registry: &Registry, group: BoundaryGroup, n_boundaries: usize) -> Self {
        let called = |id| registry.name_of(&Target::Point(id));
        let mut points: Vec<String> = group.points.into_iter().map(called).collect();
        points.sort();
        let neighbours = group.neighbours.into_iter().map(|(name, fallback)| NeighbourView {
            group: name.to_string(),
            after: seconds(fallback),
        });
        Self {
            points,
            n_boundaries: n_boundaries as u64,
            neighbours: neighbours.collect(),
            on_demand: group.on_demand.map(OnDemandView::from),
            is_default: registry.locating_rules().default.as_ref() == Some(&group.name),
            name: group.name.to_string(),
            created: group.created,
            created_by: group.created_by,
        }
    }
}

/// List the boundary groups
///
/// By name.
#[utoipa::path(get, path = "/api/v1/boundary-groups", tag = "places",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of groups", body = Page<BoundaryGroupView>)))]
async fn list_boundary_groups(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<BoundaryGroupView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after(LIST)?);
    let page = blocking(move || {
        let registry = &site.ledger()?.registry;
        let counts = registry.boundary_counts();
        let key = |group: &BoundaryGroup| group.name.to_string();
        let page = Page::cut(LIST, registry.boundary_groups(), after.as_deref(), limit, key);
        Ok(page.map(|group| {
            let n = counts.get(&group.name).copied().unwrap_or(0);
            BoundaryGroupView::of(registry, group, n)
        }))
    });
    Ok(Json(page.await?))
}

/// A boundary group to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "paris", "points": ["branch-7"]}))]
pub struct NewBoundaryGroup {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// The points, by name or id, that its clients turn to at once.
    #[serde(default)]
    pub points: Vec<String>,
    /// How what none of these holds is brought; without it, it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<OnDemandView>,
}

/// Make a boundary group
#[utoipa::path(post, path = "/api/v1/boundary-groups", tag = "places",
    security(("token" = ["admin"])), request_body = NewBoundaryGroup,
    responses((status = 201, description = "The group", body = BoundaryGroupView,
        headers(("Location" = String, description = "Its address"))),
        (status = 404, description = "A point is not there", body = Problem)))]
async fn create_boundary_group(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewBoundaryGroup>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<BoundaryGroupView>), Problem> {
    note.target(&new.name);
    let name: BoundaryGroupName = field("name", &new.name)?;
    let on_demand = new.on_demand.map(|on| on.checked("on_demand.days")).transpose()?;
    let location = ("location", format!("/api/v1/boundary-groups/{name}"));
    let made = changed(site, move |registry| {
        let now = Timestamp::now();
        registry.create_boundary_group(name, &new.points, on_demand, &identity.name, now)
    });
    Ok((StatusCode::CREATED, [location], made.await?))
}

/// Show a boundary group
#[utoipa::path(get, path = "/api/v1/boundary-groups/{group}", tag = "places",
    security(("token" = ["reader"])),
    params(("group" = String, Path, description = "Its name", example = "paris")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn show_boundary_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let which = params.text("group").to_owned();
    changed(site, move |registry| registry.boundary_group(&which)).await
}

/// A boundary group that was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "paris", "boundaries": ["10.7.0.0/16"]}))]
pub struct DeletedBoundaryGroup {
    /// What it was called.
    pub name: String,
    /// The boundaries that were in no other group, and went with it.
    pub boundaries: Vec<String>,
}

/// Delete a boundary group
///
/// With the boundaries that are in no other. Its points stay, and what is distributed to them.
#[utoipa::path(delete, path = "/api/v1/boundary-groups/{group}", tag = "places",
    security(("token" = ["admin"])),
    params(("group" = String, Path, description = "Its name", example = "paris")),
    responses((status = 200, description = "What went", body = DeletedBoundaryGroup)))]
async fn delete_boundary_group(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<DeletedBoundaryGroup>, Problem> {
    let which = params.text("group").to_owned();
    let deleted = blocking(move || Ok(site.ledger()?.registry.delete_boundary_group(&which)?));
    let deleted = deleted.await?;
    note.detail(format!("with {} boundaries", deleted.boundaries.len()));
    let boundaries = deleted.boundaries.iter().map(ToString::to_string).collect();
    Ok(Json(DeletedBoundaryGroup { name: deleted.group.name.to_string(), boundaries }))
}

/// Put a point into a boundary group
///
/// Its clients turn to it at once. It may be in it already.
#[utoipa::path(put, path = "/api/v1/boundary-groups/{group}/points/{point}", tag = "places",
    security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("point" = String, Path, description = "The point's name or id", example = "branch-7")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn add_to_boundary_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let (group, point) = (params.text("group").to_owned(), params.text("point").to_owned());
    changed(site, move |registry| registry.add_to_boundary_group(&group, &point)).await
}

/// Take a point out of a boundary group
///
/// It need not be in it.
#[utoipa::path(delete, path = "/api/v1/boundary-groups/{group}/points/{point}", tag = "places",
    security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("point" = String, Path, description = "The point's name or id", example = "branch-7")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn remove_from_boundary_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let (group, point) = (params.text("group").to_owned(), params.text("point").to_owned());
    changed(site, move |registry| registry.remove_from_boundary_group(&group, &point)).await
}

/// When clients turn to a neighbour.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"after": 1200}))]
pub struct FallbackView {
    /// So many seconds after they began to look, at most 30 days; without it, never.
    #[serde(default)]
    #[schema(maximum = 2592000)]
    pub after: Option<u64>,
}

/// Say when clients turn to a neighbour
///
/// Only those of the first group do; the neighbour's clients are another matter.
#[utoipa::path(put, path = "/api/v1/boundary-groups/{group}/neighbours/{neighbour}", tag = "places",
    security(("token" = ["admin"])), request_body = FallbackView,
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("neighbour" = String, Path, description = "The neighbour", example = "lyon")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn set_neighbour(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(asked): Input<FallbackView>,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let (group, neighbour) = (params.text("group").to_owned(), params.text("neighbour").to_owned());
    note.detail(asked.after.map_or("never".into(), |seconds| format!("after {seconds} s")));
    let fallback = fallback(asked.after);
    changed(site, move |registry| registry.set_neighbour(&group, &neighbour, fallback)).await
}

/// Let a group be no neighbour any more
#[utoipa::path(delete, path = "/api/v1/boundary-groups/{group}/neighbours/{neighbour}",
    tag = "places", security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("neighbour" = String, Path, description = "The neighbour", example = "lyon")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn unset_neighbour(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let (group, neighbour) = (params.text("group").to_owned(), params.text("neighbour").to_owned());
    changed(site, move |registry| registry.unset_neighbour(&group, &neighbour)).await
}

/// Have brought what clients of a group ask for
///
/// When none of its points holds it, one of them is told to. It is let go of when no client asked for
/// it for a while.
#[utoipa::path(put, path = "/api/v1/boundary-groups/{group}/on-demand", tag = "places",
    security(("token" = ["admin"])), request_body = OnDemandView,
    params(("group" = String, Path, description = "The group", example = "paris")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn set_on_demand(
    State(site): State<Site>,
    params: Params,
    Input(asked): Input<OnDemandView>,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let group = params.text("group").to_owned();
    let on_demand = asked.checked("days")?;
    changed(site, move |registry| registry.set_on_demand(&group, Some(on_demand))).await
}

/// Have nothing more brought that clients of a group ask for
///
/// What came so already stays until it expires, or is undistributed.
#[utoipa::path(delete, path = "/api/v1/boundary-groups/{group}/on-demand", tag = "places",
    security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris")),
    responses((status = 200, description = "The group", body = BoundaryGroupView)))]
async fn unset_on_demand(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let group = params.text("group").to_owned();
    changed(site, move |registry| registry.set_on_demand(&group, None)).await
}

/// The group as it is after a change.
async fn changed(
    site: Site,
    change: impl FnOnce(&Registry) -> Result<BoundaryGroup, RegistryError> + Send + 'static,
) -> Result<Json<BoundaryGroupView>, Problem> {
    let changed = blocking(move || {
        let registry = &site.ledger()?.registry;
        let group = change(registry)?;
        let n = registry.boundary_counts().get(&group.name).copied().unwrap_or(0);
        Ok(BoundaryGroupView::of(registry, group, n))
    });
    Ok(Json(changed.await?))
}
