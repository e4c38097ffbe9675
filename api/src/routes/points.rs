//! Distribution points, for people: who they are, how machines join, what they should hold, and how
//! far they are. What a point itself says stands in [`super::point`].

mod assignments;
mod drain;
mod groups;
mod orders;
mod schedule;
mod sources;
mod status;
mod tokens;

pub use assignments::{
    AssignmentView, DemandView, FreeingView, NewAssignment, PriorityView, Unassigned,
};
pub use drain::DrainedView;
pub use groups::{DeletedGroup, GroupView, NewGroup};
pub use orders::{GiveOrder, GivenOrders, OrderStateView, OrderView, TaskView};
pub use schedule::{ChangeView, LevelView, NewLimit, WindowView};
pub use sources::NewSources;
pub use status::{ContentStateView, ContentStatusView};
pub use tokens::{CreatedJoinToken, JoinTokenView, NewJoinToken};
pub(crate) use tokens::{addresses, end};

use crate::extract::{Params, Query};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::routes::point::LimitView;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::registry::{Point, Registry};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_points))
        .routes(routes!(show_point, remove_point))
        .merge(tokens::routes())
        .merge(groups::routes())
        .merge(schedule::routes())
        .merge(sources::routes())
        .merge(drain::routes())
        .merge(assignments::routes())
        .merge(status::routes())
        .merge(orders::routes())
}

/// A distribution point. What it reported is absent until it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "name": "branch-7", "groups": ["paris"], "sources": [["paris-hub"]],
    "joined": "2026-11-22T12:00:00Z", "invited_by": "admin", "online": true,
    "seen": "2026-11-22T12:30:00Z", "reported": "2026-11-22T12:29:12Z", "program": "0.1.0",
    "address": "http://192.0.2.7:8520", "free_bytes": 80000000000_u64, "n_held": 3,
    "n_missing": 1, "n_failed": 0, "bytes_left": 4000000
}))]
pub struct PointView {
    /// Names it for ever.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// The points that it brings what it lacks from: the first ones by turns, then the next, then the
    /// site.
    #[serde(default)]
    pub sources: Vec<Vec<String>>,
    /// When it joined.
    #[schema(value_type = String, format = DateTime)]
    pub joined: Timestamp,
    /// Who made the token that it joined with.
    pub invited_by: String,
    /// When it last got a new certificate, if it did since it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub renewed: Option<Timestamp>,
    /// Whether it was heard of within the last minute and a half, and its connection did not break more
    /// than 15 s ago.
    pub online: bool,
    /// When it was heard of last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen: Option<Timestamp>,
    /// When its last report came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reported: Option<Timestamp>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Free bytes of its volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Versions that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_held: Option<u64>,
    /// Versions that it should hold and does not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_missing: Option<u64>,
    /// Of those, the ones that it tried in vain; it tries again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_failed: Option<u64>,
    /// Bytes that it still has to bring, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_left: Option<u64>,
    /// How fast it may bring what it lacks; without it, as fast as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitView>,
    /// When it may; without it, at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowView>,
    /// Since when it gets nothing new and no clients, if it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<DrainedView>,
}

impl PointView {
    fn of(registry: &Registry, point: Point, now: Timestamp) -> Self {
        let standing = registry.standing(&point.id);
        let seen = registry.seen(&point.id);
        let groups = registry.groups_of(&point.id);
        let sources = registry.sources_of(&point).into_iter();
        let standing = standing.as_ref();
        Self {
            groups: groups.iter().map(ToString::to_string).collect(),
            sources: sources
                .map(|equals| equals.iter().map(ToString::to_string).collect())
                .collect(),
            online: registry.is_online(&point.id, now),
            seen,
            reported: standing.map(|s| s.received),
            program: standing.map(|s| s.program.clone()),
            address: standing.map(|s| s.address.clone()),
            free_bytes: standing.map(|s| s.free_bytes),
            n_held: standing.map(|s| s.n_held),
            n_missing: standing.map(|s| s.n_missing),
            n_failed: standing.map(|s| s.n_failed),
            bytes_left: standing.map(|s| s.bytes_left),
            limit: point.limit.map(schedule::limit_view),
            window: point.window.as_ref().map(WindowView::from),
            drained: point.drained.map(DrainedView::from),
            id: point.id.to_string(),
            name: point.name.to_string(),
            joined: point.joined,
            invited_by: point.invited_by,
            renewed: point.renewed,
        }
    }
}

/// List the distribution points
///
/// By name.
#[utoipa::path(get, path = "/api/v1/points", tag = "points", security(("token" = ["reader"])),
    params(PageQuery),
    responses((status = 200, description = "A page of points", body = Page<PointView>)))]
async fn list_points(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<PointView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("points")?);
    let ledger = blocking(move || site.ledger()).await?;
    let (registry, now) = (&ledger.registry, Timestamp::now());
    let key = |point: &Point| point.name.to_string();
    let page = Page::cut("points", registry.points(), after.as_deref(), limit, key);
    Ok(Json(page.map(|point| PointView::of(registry, point, now))))
}

/// Show a distribution point
#[utoipa::path(get, path = "/api/v1/points/{point}", tag = "points",
    security(("token" = ["reader"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn show_point(State(site): State<Site>, params: Params) -> Result<Json<PointView>, Problem> {
    let ledger = blocking(move || site.ledger()).await?;
    let point = ledger.registry.point(params.text("point"))?;
    Ok(Json(PointView::of(&ledger.registry, point, Timestamp::now())))
}

/// Remove a distribution point
///
/// From now on it is refused, also on connections that are open. It is in no group any more, and
/// nothing is distributed to it. What its machine holds stays there.
#[utoipa::path(delete, path = "/api/v1/points/{point}", tag = "points",
    security(("token" = ["admin"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "What it was", body = PointView)))]
async fn remove_point(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<PointView>, Problem> {
    let which = params.text("point").to_owned();
    let removed = blocking(move || {
        let ledger = site.ledger()?;
        let point = ledger.registry.point(&which)?;
        let view = PointView::of(&ledger.registry, point, Timestamp::now());
        ledger.registry.remove_point(&view.id)?;
        Ok(view)
    });
    let removed = removed.await?;
    note.target(&removed.name);
    note.detail(format!("id {}", removed.id));
    Ok(Json(removed))
}
