//! Groups of distribution points.

use crate::auth::Identity;
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use dp::registry::{Group, GroupName, Registry, Target};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_groups, create_group))
        .routes(routes!(show_group, delete_group))
        .routes(routes!(add_to_group, remove_from_group))
}

/// A group of distribution points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "paris", "points": ["branch-7"], "created": "2026-11-22T12:00:00Z",
    "created_by": "admin"
}))]
pub struct GroupView {
    /// What people call it.
    pub name: String,
    /// The names of the points in it.
    pub points: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
}

impl GroupView {
    fn of(registry: &Registry, group: Group) -> Self {
        let name = |id: dp::field::PointId| registry.name_of(&Target::Point(id));
        let mut points: Vec<String> = group.members.into_iter().map(name).collect();
        points.sort();
        let Group { name, created, created_by, .. } = group;
        Self { name: name.to_string(), points, created, created_by }
    }
}

/// List the groups
///
/// By name.
#[utoipa::path(get, path = "/api/v1/point-groups", tag = "points",
    operation_id = "list_point_groups", security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of groups", body = Page<GroupView>)))]
async fn list_groups(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<GroupView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("point-groups")?);
    let ledger = blocking(move || site.ledger()).await?;
    let all = ledger.registry.groups();
    let key = |group: &Group| group.name.to_string();
    let page = Page::cut("point-groups", all, after.as_deref(), limit, key);
    Ok(Json(page.map(|group| GroupView::of(&ledger.registry, group))))
}

/// A group to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "paris"}))]
pub struct NewGroup {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
}

/// Make a group
///
/// Without points.
#[utoipa::path(post, path = "/api/v1/point-groups", tag = "points",
    operation_id = "create_point_group", security(("token" = ["admin"])), request_body = NewGroup,
    responses((status = 201, description = "The group", body = GroupView,
        headers(("Location" = String, description = "Its address")))))]
async fn create_group(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewGroup>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<GroupView>), Problem> {
    note.target(&new.name);
    let name: GroupName = new
        .name
        .parse()
        .map_err(|error: dp::registry::BadName| Problem::field("name", error.to_string()))?;
    let made = changed(site, move |registry| {
        registry.create_group(name, &identity.name, Timestamp::now())
    });
    let made = made.await?.0;
    let location = ("location", format!("/api/v1/point-groups/{}", made.name));
    Ok((StatusCode::CREATED, [location], Json(made)))
}

/// Show a group
#[utoipa::path(get, path = "/api/v1/point-groups/{group}", tag = "points",
    operation_id = "show_point_group", security(("token" = ["reader"])),
    params(("group" = String, Path, description = "Its name", example = "paris")),
    responses((status = 200, description = "The group", body = GroupView)))]
async fn show_group(State(site): State<Site>, params: Params) -> Result<Json<GroupView>, Problem> {
    let ledger = blocking(move || site.ledger()).await?;
    let group = ledger.registry.group(params.text("group"))?;
    Ok(Json(GroupView::of(&ledger.registry, group)))
}

/// A group that was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "paris", "assignments": 2}))]
pub struct DeletedGroup {
    /// What it was called.
    pub name: String,
    /// How many assignments to it went with it.
    pub assignments: u64,
}

/// Delete a group
///
/// With all that is distributed to it: its points let go of what nothing else distributes to them.
/// The points stay.
#[utoipa::path(delete, path = "/api/v1/point-groups/{group}", tag = "points",
    operation_id = "delete_point_group", security(("token" = ["admin"])),
    params(("group" = String, Path, description = "Its name", example = "paris")),
    responses((status = 200, description = "What went", body = DeletedGroup)))]
async fn delete_group(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<DeletedGroup>, Problem> {
    let which = params.text("group").to_owned();
    let deleted = blocking(move || Ok(site.ledger()?.registry.delete_group(&which)?));
    let (group, n_assignments) = deleted.await?;
    note.detail(format!("with {n_assignments} assignments"));
    let (name, assignments) = (group.name.to_string(), n_assignments as u64);
    Ok(Json(DeletedGroup { name, assignments }))
}

/// Put a point into a group
///
/// From now on it gets what the group holds. It may be in it already.
#[utoipa::path(put, path = "/api/v1/point-groups/{group}/points/{point}", tag = "points",
    operation_id = "add_to_point_group", security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("point" = String, Path, description = "The point's name or id", example = "branch-7")),
    responses((status = 200, description = "The group", body = GroupView)))]
async fn add_to_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<GroupView>, Problem> {
    let (group, point) = (params.text("group").to_owned(), params.text("point").to_owned());
    changed(site, move |registry| registry.add_to_group(&group, &point)).await
}

/// Take a point out of a group
///
/// It lets go of what nothing else distributes to it. It need not be in the group.
#[utoipa::path(delete, path = "/api/v1/point-groups/{group}/points/{point}", tag = "points",
    operation_id = "remove_from_point_group", security(("token" = ["admin"])),
    params(("group" = String, Path, description = "The group", example = "paris"),
        ("point" = String, Path, description = "The point's name or id", example = "branch-7")),
    responses((status = 200, description = "The group", body = GroupView)))]
async fn remove_from_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<GroupView>, Problem> {
    let (group, point) = (params.text("group").to_owned(), params.text("point").to_owned());
    changed(site, move |registry| registry.remove_from_group(&group, &point)).await
}

/// The group after a change of it.
async fn changed(
    site: Site,
    change: impl FnOnce(&Registry) -> Result<Group, dp::registry::RegistryError> + Send + 'static,
) -> Result<Json<GroupView>, Problem> {
    let changed = blocking(move || {
        let ledger = site.ledger()?;
        let group = change(&ledger.registry)?;
        Ok(GroupView::of(&ledger.registry, group))
    });
    Ok(Json(changed.await?))
}
