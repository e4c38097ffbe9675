//! How far what is distributed is, on each point.

use super::PriorityView;
use crate::extract::{Query, parse_field};
use crate::page::{Page, key_of, limit_or_default};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::State;
use dp::field::FactState;
use dp::registry::{StatusFilter, StatusKey, StatusRow, StatusState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const LIST: &str = "content-status";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(content_status))
}

/// How far a version is on a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentStateView {
    /// Whole, and answered for.
    Held,
    /// Wished, and not begun.
    Waiting,
    /// On its way.
    Fetching,
    /// Tried in vain; tried again by itself.
    Failed,
    /// Was held; part of it was found damaged or lost, and is on its way again.
    Repairing,
    /// Held, and not wished any more: on its way out.
    Leaving,
    /// Wished, and the point has not said anything yet.
    Unknown,
    /// What is wished is not there any more on the site.
    Unavailable,
}

impl From<StatusState> for ContentStateView {
    fn from(state: StatusState) -> Self {
        match state {
            StatusState::Said(FactState::Held) => Self::Held,
            StatusState::Said(FactState::Waiting) => Self::Waiting,
            StatusState::Said(FactState::Fetching) => Self::Fetching,
            StatusState::Said(FactState::Failed) => Self::Failed,
            StatusState::Said(FactState::Repairing) => Self::Repairing,
            StatusState::Said(FactState::Leaving) => Self::Leaving,
            StatusState::Unknown => Self::Unknown,
            StatusState::Unavailable => Self::Unavailable,
        }
    }
}

/// One version of a package on one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "point": "branch-7", "package": "docs", "version": 3, "wished": ["latest", "stable"],
    "priority": "medium", "on_demand": false, "held_version": 2, "percent": 62, "bytes": 9000000,
    "bytes_left": 3400000, "state": "fetching", "cause": null,
    "since": "2026-11-22T12:29:10Z", "reported": "2026-11-22T12:29:12Z", "age": 2
}))]
pub struct ContentStatusView {
    /// The point's name.
    pub point: String,
    /// The package.
    pub package: String,
    /// The version; absent if what is wished is not there on the site.
    #[serde(default)]
    pub version: Option<u64>,
    /// The words that it is distributed in: a number, `latest`, channels; empty if it is not.
    pub wished: Vec<String>,
    /// How soon, if it is distributed.
    #[serde(default)]
    pub priority: Option<PriorityView>,
    /// Whether it is distributed only because clients asked for it.
    #[serde(default)]
    pub on_demand: bool,
    /// The newest version of the package that the point holds whole.
    #[serde(default)]
    pub held_version: Option<u64>,
    /// How much of it is there; 100 only if all of it is.
    #[schema(minimum = 0, maximum = 100)]
    pub percent: u8,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of files that are not there yet, as far as known.
    pub bytes_left: u64,
    /// How far it is.
    pub state: ContentStateView,
    /// Why it is not held, or what went wrong last.
    #[serde(default)]
    pub cause: Option<String>,
    /// When the state began.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// When the report came that this is known from; absent if there was none.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reported: Option<Timestamp>,
    /// Seconds since then.
    #[serde(default)]
    pub age: Option<u64>,
}

impl ContentStatusView {
    fn of(row: StatusRow, now: Timestamp) -> Self {
        let age = |at: Timestamp| now.duration_since(at).as_secs().try_into().unwrap_or(0);
        Self {
            percent: row.percent(),
            point: row.point.to_string(),
            package: row.package.to_string(),
            version: row.version,
            wished: row.wished.iter().map(ToString::to_string).collect(),
            priority: row.priority.map(PriorityView::from),
            on_demand: row.on_demand,
            held_version: row.held,
            bytes: row.bytes,
            bytes_left: row.bytes_left,
            state: row.state.into(),
            cause: row.cause,
            since: row.since,
            reported: row.reported,
            age: row.reported.map(age),
        }
    }
}

/// Which rows are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatusQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only this package.
    package: Option<String>,
    /// Only this point, by name or id.
    point: Option<String>,
}

/// Say how far what is distributed is
///
/// A row for each version that a point should hold, or holds: by point, then package, then version.
/// What is known is what each point last reported; `age` says how long ago.
#[utoipa::path(get, path = "/api/v1/content-status", tag = "points",
    security(("token" = ["reader"])), params(StatusQuery),
    responses((status = 200, description = "A page of rows", body = Page<ContentStatusView>),
        (status = 404, description = "The point is not there; or the package, neither on the site nor \
            on a point", body = Problem)))]
async fn content_status(
    State(site): State<Site>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<Page<ContentStatusView>>, Problem> {
    let limit = limit_or_default(query.limit)?;
    let after = query.cursor.as_deref().map(read_key).transpose()?;
    let package = query.package.as_deref().map(|text| parse_field("package", text)).transpose()?;
    let filter = StatusFilter { package, point: query.point };
    let rows = blocking(move || {
        let (ledger, content) = (site.ledger()?, site.content()?);
        let registry = &ledger.registry;
        let rows = registry.status(
            &content.packages,
            &filter,
            after.as_ref(),
            limit + 1,
            Timestamp::now(),
        )?;
        if let (true, None, Some(package)) = (rows.is_empty(), &after, &filter.package) {
            // Neither here nor anywhere: a mistake in writing.
            content.packages.show(package)?;
        }
        Ok(rows)
    });
    let page = Page::of(LIST, rows.await?, limit, |row| write_key(&row.key()));
    let now = Timestamp::now();
    Ok(Json(page.map(|row| ContentStatusView::of(row, now))))
}

fn write_key(key: &StatusKey) -> String {
    format!("{}\0{}\0{}\0{}", key.point, key.package, key.version, key.words)
}

fn read_key(cursor: &str) -> Result<StatusKey, Problem> {
    let key = key_of(LIST, cursor)?;
    let mut parts = key.splitn(4, '\0').map(str::to_owned);
    let mut next = || parts.next();
    let read = (|| {
        let (point, package) = (next()?, next()?);
        let version = next()?.parse().ok()?;
        Some(StatusKey { point, package, version, words: next()? })
    })();
    read.ok_or_else(|| Problem::malformed("cursor", "is not a `next` of this list"))
}
