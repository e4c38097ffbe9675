//! What anybody is told of a site's update points. What a client is told is signed, and its own:
//! `routes/fleet/client.rs`.

use crate::problem::Problem;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(show_policy))
}

/// Where an update point is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "site", "url": "https://site.example:8520"}))]
pub struct LocationView {
    /// What it is called; `site` is the one that the site has by itself.
    pub name: String,
    /// Where it is reached.
    pub url: String,
}

/// What is the same for all clients of the site that have no settings of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "revision": "b2d1c0ffee00aa11", "updates_enabled": true,
    "update_points": [{"name": "site", "url": "https://site.example:8520"}],
    "synced": "2026-11-27T03:02:11Z"
}))]
pub struct ClientPolicyView {
    /// Differs where anything else but the time does.
    pub revision: String,
    /// Whether clients scan for updates.
    pub updates_enabled: bool,
    /// The update points, the one to turn to first first. None before a sync was completed, where updates are not
    /// enabled, and where the site has no update point.
    pub update_points: Vec<LocationView>,
    /// When a sync was completed last that changed anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub synced: Option<Timestamp>,
}

/// Give clients the site-wide policy
///
/// Takes no token.
#[utoipa::path(get, path = "/api/v1/policy", tag = "hierarchy", security(()),
    operation_id = "show_client_policy",
    responses((status = 200, description = "The policy", body = ClientPolicyView)))]
async fn show_policy(State(site): State<Site>) -> Result<Json<ClientPolicyView>, Problem> {
    let shown = blocking(move || {
        let frame = site.fleet()?.policies.frame(&site)?;
        let (updates_enabled, points, synced) = frame.site_wide(&site);
        let shown = points.into_iter().map(|it| LocationView { name: it.name, url: it.url });
        let update_points: Vec<_> = shown.collect();
        let facts = serde_json::json!([updates_enabled, update_points]).to_string();
        Ok(ClientPolicyView {
            revision: blake3::hash(facts.as_bytes()).to_hex()[..16].to_owned(),
            updates_enabled,
            update_points,
            synced,
        })
    });
    Ok(Json(shown.await?))
}
