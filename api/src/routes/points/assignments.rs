//! Which versions are distributed to which points and groups.

use crate::auth::Identity;
use crate::extract::{Input, Query, field, parse_field};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem, with_causes};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::field::Priority;
use dp::registry::{Assignment, Demand, Freeing, Registry, Target};
use jiff::Timestamp;
use packager::PackageName;
use packager::name::Selector;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list_assignments, assign, unassign))
}

/// How soon a version is brought: all of a higher priority before any of a lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PriorityView {
    /// When nothing else waits.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Before all else.
    High,
}

impl From<Priority> for PriorityView {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Medium => Self::Medium,
            Priority::High => Self::High,
        }
    }
}

impl From<PriorityView> for Priority {
    fn from(priority: PriorityView) -> Self {
        match priority {
            PriorityView::Low => Self::Low,
            PriorityView::Medium => Self::Medium,
            PriorityView::High => Self::High,
        }
    }
}

/// That a version of a package is distributed to a point or group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "package": "docs", "version": "stable", "group": "paris", "priority": "medium",
    "created": "2026-11-22T12:00:00Z", "created_by": "ci"
}))]
pub struct AssignmentView {
    /// The package.
    pub package: String,
    /// Which version: a number, or `latest` or a channel, which follows where they go.
    pub version: String,
    /// The point's name, if it is for one point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The group's name, if it is for a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How soon.
    pub priority: PriorityView,
    /// When it was distributed there first.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who did.
    pub created_by: String,
    /// For whose clients it was, if no person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<DemandView>,
    /// Whether it is there because something is deployed to machines near to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
}

/// That something is distributed because clients asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "group": "paris", "asked": "2026-11-22T12:00:00Z", "expires": "2026-12-22T12:00:00Z"
}))]
pub struct DemandView {
    /// The boundary group of these clients.
    pub group: String,
    /// When one asked last, to the hour.
    #[schema(value_type = String, format = DateTime)]
    pub asked: Timestamp,
    /// When it goes, if none asks until then.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

impl From<Demand> for DemandView {
    fn from(demand: Demand) -> Self {
        let (asked, expires) = (demand.asked, demand.expires());
        Self { group: demand.group.to_string(), asked, expires }
    }
}

impl AssignmentView {
    fn of(registry: &Registry, assignment: Assignment) -> Self {
        let Assignment { package, version, to, priority, created, created_by, on_demand, staged } =
            assignment;
        let name = registry.name_of(&to);
        let (point, group) = match to {
            Target::Point(_) => (Some(name), None),
            Target::Group(_) => (None, Some(name)),
        };
        let (package, version) = (package.to_string(), version.to_string());
        let priority = priority.into();
        let on_demand = on_demand.map(DemandView::from);
        Self { package, version, point, group, priority, created, created_by, on_demand, staged }
    }
}

fn key(assignment: &Assignment) -> String {
    format!("{}\0{}\0{}", assignment.package, assignment.to, assignment.version)
}

/// Which assignments are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AssignmentQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this point, by name or id: its own, and those of its groups.
    point: Option<String>,
    /// Only those of this group.
    group: Option<String>,
}

/// List what is distributed
///
/// By package, then where to, then version.
#[utoipa::path(get, path = "/api/v1/assignments", tag = "points",
    security(("token" = ["reader"])), params(AssignmentQuery),
    responses((status = 200, description = "A page of assignments", body = Page<AssignmentView>),
        (status = 404, description = "The point or group is not there", body = Problem),
        (status = 422, description = "Both a point and a group are named", body = Problem)))]
async fn list_assignments(
    State(site): State<Site>,
    Query(query): Query<AssignmentQuery>,
) -> Result<Json<Page<AssignmentView>>, Problem> {
    let AssignmentQuery { limit, cursor, point, group } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("assignments")?);
    let ledger = blocking(move || site.ledger()).await?;
    let registry = &ledger.registry;
    let mut all = match (point, group) {
        (None, None) => registry.assignments(None),
        (point, group) => {
            let of = target(registry, point.as_deref(), group.as_deref())?;
            registry.assignments(Some(&of))
        }
    };
    all.sort_by_cached_key(key);
    let page = Page::cut("assignments", all, after.as_deref(), limit, key);
    Ok(Json(page.map(|assignment| AssignmentView::of(&ledger.registry, assignment))))
}

/// What is to be distributed where.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"package": "docs", "version": "stable", "group": "paris"}))]
pub struct NewAssignment {
    /// The package.
    pub package: String,
    /// Which version: a number, or `latest` or a channel, which follows where they go.
    #[serde(default = "latest")]
    #[schema(default = "latest")]
    pub version: String,
    /// The point's name or id; this or a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The group's name; this or a point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How soon.
    #[serde(default)]
    pub priority: PriorityView,
}

fn latest() -> String {
    "latest".into()
}

/// Distribute a version
///
/// To a point, or to each point of a group, also those that come later. What was distributed there
/// in the same words gets the new priority; other versions of the package stay distributed.
#[utoipa::path(put, path = "/api/v1/assignments", tag = "points",
    security(("token" = ["operator"])), request_body = NewAssignment,
    responses((status = 200, description = "What is distributed", body = AssignmentView),
        (status = 404, description = "The package, version, point or group is not there",
            body = Problem)))]
async fn assign(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewAssignment>,
) -> Result<Json<AssignmentView>, Problem> {
    note.target(target_text(&new.package, &new.version, &new.point, &new.group));
    let package: PackageName = field("package", &new.package)?;
    let version: Selector = field("version", &new.version)?;
    let assigned = blocking(move || {
        let ledger = site.ledger()?;
        let to = target(&ledger.registry, new.point.as_deref(), new.group.as_deref())?;
        // What is not there now is a mistake in writing; what goes later is told by its status.
        site.content()?.packages.resolve(&package, &version)?;
        let (priority, created) = (new.priority.into(), Timestamp::now());
        let (created_by, on_demand, staged) = (identity.name, None, false);
        let assignment =
            Assignment { package, version, to, priority, created, created_by, on_demand, staged };
        let assigned = ledger.registry.assign(assignment)?;
        Ok(AssignmentView::of(&ledger.registry, assigned))
    });
    Ok(Json(assigned.await?))
}

/// What is not to be distributed any more.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GoneQuery {
    /// The package.
    #[param(example = "docs")]
    package: String,
    /// Only this version, in the words that it is distributed in; without it, all of the package.
    version: Option<String>,
    /// The point's name or id; this or a group.
    #[param(example = "branch-7")]
    point: Option<String>,
    /// The group's name; this or a point.
    group: Option<String>,
    /// Change nothing: only say what would come of it.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// What becomes free on a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "point": "branch-7", "versions": [3], "chunks": 41, "bytes": 4600000, "grace": 86400
}))]
pub struct FreeingView {
    /// The point's name.
    pub point: String,
    /// The versions that it holds and lets go of, by its last report.
    pub versions: Vec<u64>,
    /// Chunks of them that nothing else has which stays on the point; absent if that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Their bytes, before they are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds that the point keeps them after it let go; absent if it has not said so, or keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<u64>,
    /// Why it cannot be told how much it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl From<Freeing> for FreeingView {
    fn from(freeing: Freeing) -> Self {
        let (unshared, cause) = match freeing.unshared {
            Ok(unshared) => (Some(unshared), None),
            Err(error) => (None, Some(with_causes(&error))),
        };
        Self {
            point: freeing.point.to_string(),
            versions: freeing.versions,
            chunks: unshared.map(|unshared| unshared.chunks),
            bytes: unshared.map(|unshared| unshared.bytes),
            grace: freeing.grace.map(|grace| grace.as_secs()),
            cause,
        }
    }
}

/// What is not distributed any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"removed": [{
    "package": "docs", "version": "stable", "group": "paris", "priority": "medium",
    "created": "2026-11-22T12:00:00Z", "created_by": "ci"
}], "frees": [{
    "point": "branch-7", "versions": [3], "chunks": 41, "bytes": 4600000, "grace": 86400
}]}))]
pub struct Unassigned {
    /// Each of it.
    pub removed: Vec<AssignmentView>,
    /// What becomes free, on each point that it was distributed to.
    #[serde(default)]
    pub frees: Vec<FreeingView>,
}

/// Undistribute a package
///
/// Points let go of the versions that nothing else distributes to them; the bytes that no other
/// version has become free there after a grace time. The answer says how many; with `dry_run` nothing
/// else is done.
#[utoipa::path(delete, path = "/api/v1/assignments", tag = "points",
    security(("token" = ["operator"])), params(GoneQuery),
    responses((status = 200, description = "What was distributed", body = Unassigned),
        (status = 404, description = "Nothing of it is distributed there", body = Problem)))]
async fn unassign(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Query(gone): Query<GoneQuery>,
) -> Result<Json<Unassigned>, Problem> {
    let words = gone.version.clone().unwrap_or_else(|| "*".into());
    note.target(target_text(&gone.package, &words, &gone.point, &gone.group));
    let package: PackageName = parse_field("package", &gone.package)?;
    let version: Option<Selector> =
        gone.version.as_deref().map(|text| parse_field("version", text)).transpose()?;
    let gone = blocking(move || {
        let (ledger, content) = (site.ledger()?, site.content()?);
        let registry = &ledger.registry;
        let to = target(registry, gone.point.as_deref(), gone.group.as_deref())?;
        let assigned = registry.assigned(&package, version.as_ref(), &to)?;
        // While what means them is still known.
        let frees = registry.freeing(&assigned, &content.packages)?;
        let removed = match gone.dry_run {
            true => assigned,
            false => registry.unassign(&package, version.as_ref(), &to)?,
        };
        let removed = removed.into_iter().map(|one| AssignmentView::of(registry, one)).collect();
        Ok(Unassigned { removed, frees: frees.into_iter().map(FreeingView::from).collect() })
    });
    Ok(Json(gone.await?))
}

/// The point or group that a request names.
pub(super) fn target(
    registry: &Registry,
    point: Option<&str>,
    group: Option<&str>,
) -> Result<Target, Problem> {
    registry.target(point, group)?.ok_or_else(|| {
        let detail = "name a distribution point or a group, and not both";
        Problem::new(Kind::InvalidValue, detail)
            .caused_by("point", "must be named, or a group")
            .caused_by("group", "must be named, or a point")
    })
}

/// `docs@stable to group/paris`, for the audit log.
fn target_text(
    package: &str,
    version: &str,
    point: &Option<String>,
    group: &Option<String>,
) -> String {
    let to = match (point, group) {
        (Some(point), _) => format!("point/{point}"),
        (None, Some(group)) => format!("group/{group}"),
        (None, None) => "nobody".into(),
    };
    format!("{package}@{version} to {to}")
}
