//! Draining a distribution point, while it is maintained.

use super::PointView;
use crate::auth::Identity;
use crate::extract::Params;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::registry::Drained;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(drain_point, resume_point))
}

/// That a point is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"since": "2026-11-22T12:00:00Z", "by": "admin"}))]
pub struct DrainedView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Who said so.
    pub by: String,
}

impl From<Drained> for DrainedView {
    fn from(Drained { since, by }: Drained) -> Self {
        Self { since, by }
    }
}

/// Drain a distribution point
///
/// Clients are not sent to it any more, other points ask the site before it, and it brings nothing new:
/// what is on its way pauses, and what came of it is kept. What it holds it still serves to whoever asks
/// it, checks and mends; what is undistributed it lets go of. What is distributed to it meanwhile waits
/// until it is resumed. One that is drained stays so.
#[utoipa::path(put, path = "/api/v1/points/{point}/drain", tag = "points",
    security(("token" = ["operator"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn drain_point(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    params: Params,
) -> Result<Json<PointView>, Problem> {
    let which = params.text("point").to_owned();
    let drained = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let point = ledger.registry.drain(&which, &identity.name, now)?;
        Ok::<_, Problem>(PointView::of(&ledger.registry, point, now))
    });
    Ok(Json(drained.await?))
}

/// Resume a distribution point that was drained
///
/// What was distributed to it meanwhile comes to it, and clients are sent to it again.
#[utoipa::path(delete, path = "/api/v1/points/{point}/drain", tag = "points",
    security(("token" = ["operator"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    responses((status = 200, description = "The point", body = PointView)))]
async fn resume_point(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<PointView>, Problem> {
    let which = params.text("point").to_owned();
    let resumed = blocking(move || {
        let ledger = site.ledger()?;
        let point = ledger.registry.resume(&which)?;
        Ok::<_, Problem>(PointView::of(&ledger.registry, point, Timestamp::now()))
    });
    Ok(Json(resumed.await?))
}
