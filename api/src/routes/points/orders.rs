//! Orders: what a distribution point is to do once, now: check what it holds, or bring it in order.

use super::assignments::target;
use crate::auth::Identity;
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::field::{Outcome, OutcomeState, Task};
use dp::registry::{NewOrder, Ordered, Registry, RegistryError, Target};
use jiff::Timestamp;
use packager::name::Selector;
use packager::{PackageError, PackageName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_orders, give_order))
        .routes(routes!(show_order))
        .routes(routes!(cancel_order))
}

/// What a point is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskView {
    /// Read and compare what it holds, now, and mend what is not right.
    Validate,
    /// The same, and bring what it lacks at once, whatever failed before.
    Redistribute,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        match task {
            Task::Validate => Self::Validate,
            Task::Redistribute => Self::Redistribute,
        }
    }
}

impl From<TaskView> for Task {
    fn from(task: TaskView) -> Self {
        match task {
            TaskView::Validate => Self::Validate,
            TaskView::Redistribute => Self::Redistribute,
        }
    }
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderStateView {
    /// The point has not heard of it, or has others to do first.
    Waiting,
    /// What is held is read and compared.
    Checking,
    /// What was found damaged, or is missing, is on its way.
    Mending,
    /// All of it is whole.
    Done,
    /// It ended before all was whole, or was cancelled; `cause` says which.
    Failed,
}

/// Something that a point is to do once. Contents are counted: files, each once however often it is
/// there, and the lists of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "point": "branch-7", "number": 4, "task": "validate", "package": "docs", "state": "done",
    "given": "2026-11-22T12:00:00Z", "by": "admin", "began": "2026-11-22T12:00:01Z",
    "ended": "2026-11-22T12:00:09Z", "n_checked": 812, "bytes": 113998248, "n_damaged": 3,
    "n_mended": 3
}))]
pub struct OrderView {
    /// The point's name.
    pub point: String,
    /// Its number among the orders of the point.
    pub number: u64,
    /// What is to be done.
    pub task: TaskView,
    /// With what; absent: with all that the point holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// With which of its versions; absent: with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// How far it is.
    pub state: OrderStateView,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    pub given: Timestamp,
    /// Who gave it.
    pub by: String,
    /// When the point began with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub began: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// Contents that were read and compared.
    pub n_checked: u64,
    /// Bytes that were read for it.
    pub bytes: u64,
    /// Contents that were found damaged or lost.
    pub n_damaged: u64,
    /// Of those, the ones that are whole again.
    pub n_mended: u64,
    /// Why it is not done yet, or will not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl OrderView {
    fn of(registry: &Registry, ordered: Ordered) -> Self {
        let Ordered { point, order, by, outcome } = ordered;
        let state = match outcome.as_ref().map(|outcome| outcome.state) {
            None => OrderStateView::Waiting,
            Some(OutcomeState::Checking) => OrderStateView::Checking,
            Some(OutcomeState::Mending) => OrderStateView::Mending,
            Some(OutcomeState::Done) => OrderStateView::Done,
            Some(OutcomeState::Failed) => OrderStateView::Failed,
        };
        let count = |of: fn(&Outcome) -> u64| outcome.as_ref().map_or(0, of);
        Self {
            point: registry.name_of(&Target::Point(point)),
            number: order.number,
            task: order.task.into(),
            package: order.package.map(|package| package.to_string()),
            version: order.version,
            state,
            given: order.given,
            by,
            began: outcome.as_ref().map(|outcome| outcome.began),
            ended: outcome.as_ref().and_then(|outcome| outcome.ended),
            n_checked: count(|outcome| outcome.n_checked),
            bytes: count(|outcome| outcome.bytes),
            n_damaged: count(|outcome| outcome.n_damaged),
            n_mended: count(|outcome| outcome.n_mended),
            cause: outcome.and_then(|outcome| outcome.cause),
        }
    }
}

/// Something that is to be done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"task": "validate", "package": "docs", "point": "branch-7"}))]
pub struct GiveOrder {
    /// What.
    pub task: TaskView,
    /// With what. Without it, with all that the point holds; `redistribute` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// With which of its versions: a number, `latest` or a channel, as it is now. Without it, with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The point's name or id; this or a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The group's name: each point of it that the package is distributed to; this or a point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// The orders that were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"orders": [{
    "point": "branch-7", "number": 4, "task": "validate", "package": "docs", "state": "waiting",
    "given": "2026-11-22T12:00:00Z", "by": "admin", "n_checked": 0, "bytes": 0, "n_damaged": 0,
    "n_mended": 0
}]}))]
pub struct GivenOrders {
    /// One for each point.
    pub orders: Vec<OrderView>,
}

/// Order a check of what points hold
///
/// Each point that is meant reads all that it holds of the package now, ahead of its slow scrub, and
/// brings again what is damaged or lost; with `redistribute` also what it lacks otherwise, without
/// waiting for its next try. It does so when it hears of it, for which the order is kept; at the hours
/// and rates that are set for it. The same order, given again before a point began, is the first one.
#[utoipa::path(post, path = "/api/v1/orders", tag = "points",
    security(("token" = ["operator"])), request_body = GiveOrder,
    responses((status = 200, description = "The orders", body = GivenOrders),
        (status = 404, description = "The point, group, package or version is not there, or the \
            package is not distributed there", body = Problem)))]
async fn give_order(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<GiveOrder>,
) -> Result<Json<GivenOrders>, Problem> {
    let what = match (&new.package, &new.version) {
        (Some(package), Some(version)) => format!("{package}@{version}"),
        (Some(package), None) => package.clone(),
        (None, _) => "everything".into(),
    };
    note.target(format!(
        "{what} on {}",
        new.point.as_ref().or(new.group.as_ref()).map_or("", |s| s)
    ));
    let package: Option<PackageName> =
        new.package.as_deref().map(|text| field("package", text)).transpose()?;
    let version: Option<Selector> =
        new.version.as_deref().map(|text| field("version", text)).transpose()?;
    match (&package, &version, new.task) {
        (None, Some(_), _) => {
            return Err(Problem::field("package", "must be named with a version"));
        }
        (None, _, TaskView::Redistribute) => {
            return Err(Problem::field("package", "must be named to redistribute it"));
        }
        _ => {}
    }
    let given = blocking(move || {
        let ledger = site.ledger()?;
        let registry = &ledger.registry;
        let to = target(registry, new.point.as_deref(), new.group.as_deref())?;
        let version = match (&package, &version) {
            // It may be gone here, and still be there.
            (_, Some(Selector::Number(number))) => Some(*number),
            (Some(package), Some(version)) => {
                Some(site.content()?.packages.resolve(package, version)?.version)
            }
            _ => None,
        };
        let order = NewOrder { task: new.task.into(), package, version, by: identity.name };
        let given = registry.order(&order, &to, Timestamp::now()).map_err(|error| {
            // If nothing of it is there, that may be a mistake in writing.
            match (&error, site.content(), &order.package) {
                (RegistryError::NotAssigned { .. }, Ok(content), Some(package)) => {
                    match content.packages.show(package) {
                        Err(unknown @ PackageError::UnknownPackage(_)) => unknown.into(),
                        _ => error.into(),
                    }
                }
                _ => Problem::from(error),
            }
        })?;
        let orders = given.into_iter().map(|ordered| OrderView::of(registry, ordered));
        Ok(GivenOrders { orders: orders.collect() })
    });
    Ok(Json(given.await?))
}

/// Which orders are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OrdersQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this point, by name or id.
    point: Option<String>,
}

/// List orders
///
/// By point, then as they were given. Those that ended are kept for a while: the last 20 of each point.
#[utoipa::path(get, path = "/api/v1/orders", tag = "points", security(("token" = ["reader"])),
    params(OrdersQuery),
    responses((status = 200, description = "A page of orders", body = Page<OrderView>),
        (status = 404, description = "The point is not there", body = Problem)))]
async fn list_orders(
    State(site): State<Site>,
    Query(query): Query<OrdersQuery>,
) -> Result<Json<Page<OrderView>>, Problem> {
    let OrdersQuery { limit, cursor, point } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("orders")?);
    let ledger = blocking(move || site.ledger()).await?;
    let registry = &ledger.registry;
    let all = registry.orders(point.as_deref())?.into_iter();
    let all = all.map(|ordered| OrderView::of(registry, ordered));
    let key = |order: &OrderView| format!("{}\0{:020}", order.point, order.number);
    Ok(Json(Page::cut("orders", all, after.as_deref(), limit, key)))
}

/// Show an order
#[utoipa::path(get, path = "/api/v1/points/{point}/orders/{number}", tag = "points",
    security(("token" = ["reader"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7"),
        ("number" = u64, Path, description = "The order's number", example = 4)),
    responses((status = 200, description = "The order", body = OrderView)))]
async fn show_order(State(site): State<Site>, params: Params) -> Result<Json<OrderView>, Problem> {
    let number: u64 = params.get("number")?;
    let ledger = blocking(move || site.ledger()).await?;
    let ordered = ledger.registry.ordered(params.text("point"), number)?;
    Ok(Json(OrderView::of(&ledger.registry, ordered)))
}

/// Cancel an order
///
/// The point stops when it hears of it. What was mended stays so, and what was found damaged is brought
/// again as any damage is. An order that has ended stays as it is.
#[utoipa::path(post, path = "/api/v1/points/{point}/orders/{number}/cancel", tag = "points",
    security(("token" = ["operator"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7"),
        ("number" = u64, Path, description = "The order's number", example = 4)),
    responses((status = 200, description = "The order, which has ended", body = OrderView)))]
async fn cancel_order(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<OrderView>, Problem> {
    let number: u64 = params.get("number")?;
    note.target(format!("order {number} of {}", params.text("point")));
    let cancelled = blocking(move || {
        let ledger = site.ledger()?;
        let (registry, now) = (&ledger.registry, Timestamp::now());
        let point = params.text("point");
        let cancelled = registry.cancel_order(point, number, &identity.name, now)?;
        Ok(OrderView::of(registry, cancelled))
    });
    Ok(Json(cancelled.await?))
}
