//! When, and how fast, a distribution point may bring what it lacks.

use super::PointView;
use crate::extract::{Input, Params};
use crate::guard::AuditNote;
use crate::problem::Problem;
use crate::routes::point::LimitView;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::field::Limit;
use dp::pace::{Change, Hours, Level, Week};
use dp::registry::Point;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(set_limit, lift_limit))
        .routes(routes!(set_window, lift_window))
}

/// How fast a point may bring what it lacks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rate": 2500000, "burst": 4000000}))]
pub struct NewLimit {
    /// Bytes a second; at least 8000.
    #[schema(minimum = 8000)]
    pub rate: u64,
    /// Bytes that may come at once after a quiet time; without it, what comes in a second.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub burst: Option<u64>,
}

/// A week of hours at which a point may bring what it lacks, by the clock of its time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "timezone": "Europe/Paris",
    "changes": [{"at": "mon 06:00", "level": "high", "rate": 250000},
        {"at": "mon 20:00", "level": "open"}]
}))]
pub struct WindowView {
    /// An IANA name.
    pub timezone: String,
    /// In order. Each holds until the next, and the last one until the first.
    pub changes: Vec<ChangeView>,
}

/// What holds from a time of the week on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeView {
    /// A day, `mon` to `sun`, and a time.
    #[schema(example = "mon 20:00")]
    pub at: String,
    /// What may be brought.
    pub level: LevelView,
    /// Bytes a second at most, beside the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// What may be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LevelView {
    /// Nothing.
    Closed,
    /// What has high priority.
    High,
    /// What has medium or high priority.
    #[serde(rename = "medium+")]
    Medium,
    /// All.
    Open,
}

impl From<Level> for LevelView {
    fn from(level: Level) -> Self {
        match level {
            Level::Closed => Self::Closed,
            Level::High => Self::High,
            Level::Medium => Self::Medium,
            Level::Open => Self::Open,
        }
    }
}

impl From<LevelView> for Level {
    fn from(level: LevelView) -> Self {
        match level {
            LevelView::Closed => Self::Closed,
            LevelView::High => Self::High,
            LevelView::Medium => Self::Medium,
            LevelView::Open => Self::Open,
        }
    }
}

impl From<&Week> for WindowView {
    fn from(week: &Week) -> Self {
        let change = |change: &Change| ChangeView {
            at: change.at.to_string(),
            level: change.hours.level.into(),
            rate: change.hours.rate,
        };
        Self {
            timezone: week.timezone().to_owned(),
            changes: week.changes().iter().map(change).collect(),
        }
    }
}

impl WindowView {
    /// The week, if it is one. A wrong one names the field.
    pub fn week(&self) -> Result<Week, Problem> {
        let change = |(n, change): (usize, &ChangeView)| {
            let at = change.at.parse().map_err(|error: dp::pace::BadWeek| {
                Problem::field(format!("changes[{n}].at"), error.to_string())
            })?;
            let hours = Hours { level: change.level.into(), rate: change.rate };
            Ok(Change { at, hours })
        };
        let changes =
            self.changes.iter().enumerate().map(change).collect::<Result<_, Problem>>()?;
        let week = Week::new(self.timezone.clone(), changes);
        let week = week.map_err(|error| Problem::field("changes", error.to_string()))?;
        week.zone().map_err(|error| Problem::field("timezone", error.to_string()))?;
        Ok(week)
    }
}

/// Set how fast a distribution point may bring what it lacks
///
/// Within seconds, also for what is on its way.
#[utoipa::path(put, path = "/api/v1/points/{point}/limit", tag = "points",
    operation_id = "set_point_limit", security(("token" = ["admin"])), request_body = NewLimit,
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn set_limit(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(new): Input<NewLimit>,
) -> Result<Json<PointView>, Problem> {
    if new.rate < Limit::LEAST_RATE {
        let detail = format!("must be at least {} bytes a second", Limit::LEAST_RATE);
        return Err(Problem::field("rate", detail));
    }
    if new.burst == Some(0) {
        return Err(Problem::field("burst", "must be at least one byte"));
    }
    let limit = Limit::of(new.rate, new.burst);
    note.detail(format!("{} bytes a second, burst {}", limit.rate, limit.burst));
    changed(site, params, move |point| point.limit = Some(limit)).await
}

/// Let a distribution point bring what it lacks as fast as it can
#[utoipa::path(delete, path = "/api/v1/points/{point}/limit", tag = "points",
    operation_id = "lift_point_limit", security(("token" = ["admin"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn lift_limit(State(site): State<Site>, params: Params) -> Result<Json<PointView>, Problem> {
    changed(site, params, |point| point.limit = None).await
}

/// Set when a distribution point may bring what it lacks
///
/// Within seconds. What is on its way and may not be any more pauses; what came of it is kept.
#[utoipa::path(put, path = "/api/v1/points/{point}/window", tag = "points",
    operation_id = "set_point_window", security(("token" = ["admin"])), request_body = WindowView,
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn set_window(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(window): Input<WindowView>,
) -> Result<Json<PointView>, Problem> {
    let week = window.week()?;
    note.detail(format!("{} changes by the clock of {}", week.changes().len(), week.timezone()));
    changed(site, params, move |point| point.window = Some(week)).await
}

/// Let a distribution point bring what it lacks at any time
#[utoipa::path(delete, path = "/api/v1/points/{point}/window", tag = "points",
    operation_id = "lift_point_window", security(("token" = ["admin"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn lift_window(State(site): State<Site>, params: Params) -> Result<Json<PointView>, Problem> {
    changed(site, params, |point| point.window = None).await
}

/// The limit as it is shown.
pub(super) fn limit_view(limit: Limit) -> LimitView {
    LimitView { rate: limit.rate, burst: limit.burst }
}

/// The point after a change of what is set for it.
async fn changed(
    site: Site,
    params: Params,
    change: impl FnOnce(&mut Point) + Send + 'static,
) -> Result<Json<PointView>, Problem> {
    let which = params.text("point").to_owned();
    let changed = blocking(move || {
        let ledger = site.ledger()?;
        let point = ledger.registry.set(&which, |point| {
            change(point);
            Ok::<_, Problem>(())
        })?;
        Ok(PointView::of(&ledger.registry, point, Timestamp::now()))
    });
    Ok(Json(changed.await?))
}
