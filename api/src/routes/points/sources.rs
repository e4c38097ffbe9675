//! From which other points a point brings content before it asks the site.

use super::PointView;
use crate::extract::{Input, Params};
use crate::guard::AuditNote;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(set_point_sources))
}

/// From which points a point brings what it lacks.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": [["paris-1", "paris-2"], ["lyon"]]}))]
pub struct NewSources {
    /// Names or ids: those of the first list are asked by turns, those of the next where they do not
    /// help, and the site last. Nothing: the site alone. At most 16 in all.
    pub from: Vec<Vec<String>>,
}

/// Set from which points a point brings what it lacks
///
/// In place of those set before. The point hears of it at once. No point may bring from itself, by
/// whatever way (409).
#[utoipa::path(put, path = "/api/v1/points/{point}/sources", tag = "points",
    security(("token" = ["admin"])),
    params(("point" = String, Path, description = "Its name or id", example = "branch-7")),
    request_body = NewSources,
    responses((status = 200, description = "The point", body = PointView)))]
async fn set_point_sources(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(new): Input<NewSources>,
) -> Result<Json<PointView>, Problem> {
    let which = params.text("point").to_owned();
    let set = blocking(move || {
        let ledger = site.ledger()?;
        let point = ledger.registry.set_sources(&which, &new.from)?;
        Ok(PointView::of(&ledger.registry, point, Timestamp::now()))
    });
    let set = set.await?;
    note.target(&set.name);
    let ranks: Vec<String> = set.sources.iter().map(|equals| equals.join(",")).collect();
    note.detail(match ranks.is_empty() {
        true => "from the site alone".to_owned(),
        false => format!("from {}, then the site", ranks.join(", then ")),
    });
    Ok(Json(set))
}
