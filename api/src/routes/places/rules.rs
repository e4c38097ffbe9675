//! What counts for all clients that look for a source.

use super::groups::{fallback, seconds};
use crate::extract::{Input, field};
use crate::guard::AuditNote;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::locate::Rules;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(show_rules, set_rules))
}

/// What counts for all clients that look for a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"default": "head-office", "default_after": 7200, "site_after": 0}))]
pub struct RulesView {
    /// The boundary group whose points all clients may turn to; absent if there is none.
    #[serde(default)]
    pub default: Option<String>,
    /// Seconds after which clients of a group may turn to it, at most 30 days. Clients that no
    /// boundary has may at once.
    #[serde(default)]
    #[schema(maximum = 2592000)]
    pub default_after: u64,
    /// Seconds after which clients of a group may turn to the site itself; absent if no client may.
    #[serde(default)]
    #[schema(maximum = 2592000)]
    pub site_after: Option<u64>,
}

impl From<Rules> for RulesView {
    fn from(rules: Rules) -> Self {
        Self {
            default: rules.default.map(String::from),
            default_after: rules.default_after.as_secs(),
            site_after: seconds(rules.site),
        }
    }
}

/// Show the rules of locating
#[utoipa::path(get, path = "/api/v1/locating-rules", tag = "places",
    security(("token" = ["reader"])),
    responses((status = 200, description = "The rules", body = RulesView)))]
async fn show_rules(State(site): State<Site>) -> Result<Json<RulesView>, Problem> {
    let ledger = blocking(move || site.ledger()).await?;
    Ok(Json(ledger.registry.locating_rules().into()))
}

/// Set the rules of locating
///
/// All of them.
#[utoipa::path(put, path = "/api/v1/locating-rules", tag = "places",
    security(("token" = ["admin"])), request_body = RulesView,
    responses((status = 200, description = "The rules", body = RulesView),
        (status = 404, description = "The group is not there", body = Problem)))]
async fn set_rules(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(asked): Input<RulesView>,
) -> Result<Json<RulesView>, Problem> {
    let name = |seconds: Option<u64>| seconds.map_or("never".into(), |s| format!("after {s} s"));
    note.detail(format!(
        "default {} after {} s, site {}",
        asked.default.as_deref().unwrap_or("none"),
        asked.default_after,
        name(asked.site_after)
    ));
    let rules = Rules {
        default: asked.default.as_deref().map(|text| field("default", text)).transpose()?,
        default_after: Duration::from_secs(asked.default_after),
        site: fallback(asked.site_after),
    };
    let set = blocking(move || Ok(site.ledger()?.registry.set_locating_rules(|r| *r = rules)?));
    Ok(Json(set.await?.into()))
}
