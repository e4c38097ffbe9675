//! What is deployed, brought to the points near the machines that require it: the plan, with its reasons.

use crate::extract::Query;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use crate::staging::Staging;
use axum::Json;
use axum::extract::State;
use deployment::staging::LineState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Lines that are shown if it is not said how many, and the most.
const LINES: (usize, usize) = (1_000, 100_000);

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(staging_plan))
}

/// Which lines are wanted.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct PlanQuery {
    /// Only those for this distribution point, by name or id.
    point: Option<String>,
    /// Only those because of this deployment, by name or id.
    deployment: Option<String>,
    /// At most so many lines.
    #[param(minimum = 1, maximum = 100000, default = 1000)]
    limit: Option<usize>,
}

/// What is to lie where, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "lines": [{"package": "patch-day", "point": "paris-1", "state": "bring", "bytes": 412000000,
        "by": "2026-12-09T02:00:00Z", "machines": 61, "because": [
            {"deployment": "patch-day-2026-12-09-pilot", "boundary_group": "paris", "machines": 61}]}],
    "n_lines": 1, "bring_bytes": 412000000, "left": [
        {"deployment": "december", "why": "it is brought from 2026-12-14T20:00:00Z on"}],
    "assign": 1, "release": 0, "staging": true
}))]
pub struct StagingPlanView {
    /// Packages, and the points on which they are to lie.
    pub lines: Vec<StagingLine>,
    /// How many there are.
    pub n_lines: u64,
    /// Bytes of what is in the state `bring`, in all.
    pub bring_bytes: u64,
    /// What of deployments is not brought, and why.
    pub left: Vec<StagingLeft>,
    /// How many assignments this makes now.
    pub assign: u64,
    /// How many it takes back now.
    pub release: u64,
    /// Whether that is done by itself (`deployment.staging`).
    pub staging: bool,
}

/// A package that is to lie on a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "package": "patch-day", "point": "paris-1", "state": "bring", "bytes": 412000000,
    "by": "2026-12-09T02:00:00Z", "machines": 61,
    "because": [{"deployment": "patch-day-2026-12-09-pilot", "boundary_group": "paris", "machines": 61}]
}))]
pub struct StagingLine {
    /// The package, of which the newest version is meant.
    pub package: String,
    /// The point.
    pub point: String,
    /// `bring`, until all of it is there; `held`, if the point has it, or a person distributed it there; `no-room`.
    #[schema(value_type = String)]
    pub state: String,
    /// Its bytes.
    pub bytes: u64,
    /// When the first of what needs it is available.
    #[schema(value_type = String, format = DateTime)]
    pub by: Timestamp,
    /// How many machines near the point require something of it, each counted once.
    pub machines: u32,
    /// Why.
    pub because: Vec<StagingReason>,
}

/// Why a package is to lie on a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "deployment": "patch-day-2026-12-09-pilot", "boundary_group": "paris", "machines": 61
}))]
pub struct StagingReason {
    /// The deployment.
    pub deployment: String,
    /// The boundary group of the point.
    pub boundary_group: String,
    /// How many of its machines require something of the package that is deployed so.
    pub machines: u32,
}

/// What of a deployment is not brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "deployment": "december", "why": "it is brought from 2026-12-14T20:00:00Z on"
}))]
pub struct StagingLeft {
    /// Which.
    pub deployment: String,
    /// Why.
    pub why: String,
}

/// Say what is to lie on which distribution point, and why
///
/// Worked out now; again and again assignments are made of it, and taken back where nothing needs them any more. Those of
/// people are not touched.
#[utoipa::path(get, path = "/api/v1/staging/plan", tag = "deployments",
    operation_id = "staging_plan", security(("token" = ["reader"])), params(PlanQuery),
    responses((status = 200, description = "The plan", body = StagingPlanView)))]
async fn staging_plan(
    State(site): State<Site>,
    Query(query): Query<PlanQuery>,
) -> Result<Json<StagingPlanView>, Problem> {
    let (least, most) = LINES;
    let limit = query.limit.unwrap_or(least);
    if !(1..=most).contains(&limit) {
        return Err(Problem::malformed("limit", format!("must be from 1 to {most}")));
    }
    let shown = blocking(move || {
        let (fleet, registry) = (site.fleet()?, &site.ledger()?.registry);
        let of_point = query.point.map(|it| registry.point(&it)).transpose()?;
        let of_point = of_point.map(|point| point.name.to_string());
        let of_deployment = query.deployment.map(|it| fleet.deployments.find(&it)).transpose()?;
        let of_deployment = of_deployment.map(|(_, it)| it.name.to_string());
        let staging = Staging::of(&site, Timestamp::now())?;
        let (wanted, there) = (staging.wanted(), registry.staged());
        let Staging { deployments, packages, points, places, plan } = staging;
        let name = |all: &[String], at: u32| all.get(at as usize).cloned().unwrap_or_default();
        let (mut lines, mut n_lines, mut bring_bytes) = (Vec::new(), 0, 0_u64);
        for line in &plan.lines {
            let ((package, bytes), (_, point)) =
                (&packages[line.package as usize], &points[line.point as usize]);
            if line.state == LineState::Bring {
                bring_bytes = bring_bytes.saturating_add(*bytes);
            }
            let because: Vec<StagingReason> = line
                .because
                .iter()
                .map(|it| StagingReason {
                    deployment: name(&deployments, it.deployment),
                    boundary_group: name(&places, it.place),
                    machines: it.machines,
                })
                .collect();
            let is_its = |wanted: &String| because.iter().any(|it| it.deployment == *wanted);
            if of_point.as_ref().is_some_and(|wanted| wanted != point)
                || of_deployment.as_ref().is_some_and(|wanted| !is_its(wanted))
            {
                continue;
            }
            n_lines += 1;
            if lines.len() < limit {
                lines.push(StagingLine {
                    package: package.to_string(),
                    point: point.clone(),
                    state: line.state.as_str().into(),
                    bytes: *bytes,
                    by: line.by,
                    machines: line.machines,
                    because,
                });
            }
        }
        let left = plan.left.iter().map(|it| StagingLeft {
            deployment: name(&deployments, it.deployment),
            why: it.why.to_string(),
        });
        let left = left.filter(|it| of_deployment.as_ref().is_none_or(|of| *of == it.deployment));
        Ok(StagingPlanView {
            lines,
            n_lines,
            bring_bytes,
            left: left.collect(),
            assign: wanted.difference(&there).count() as u64,
            release: there.difference(&wanted).count() as u64,
            staging: site.config().deployment.staging,
        })
    });
    Ok(Json(shown.await?))
}
