//! The site-wide policy of clients: where update points are; and the settings it follows from.

use crate::extract::Input;
use crate::guard::AuditNote;
use crate::hierarchy::{own_addresses, tell};
use crate::problem::{Kind, Problem};
use crate::routes::sync::only_at_the_top;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::field::FollowerKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Table, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_policy))
        .routes(routes!(show_client_settings, set_client_settings))
}

/// What is set for clients.
const SETTINGS: Table<(), ClientSettingsView> = Table::new("client-settings");
impl Value for ClientSettingsView {}

/// What is set for all clients of the site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"updates": {"enabled": true}}))]
pub struct ClientSettingsView {
    /// Software updates.
    pub updates: UpdatesSettingsView,
    /// The site at the top of the tree, where this is set, if this one is not. Only in answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
}

/// What is set of software updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatesSettingsView {
    /// Whether clients scan for updates: if not, they are told of no update point.
    pub enabled: bool,
}

impl Default for UpdatesSettingsView {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Show what is set for clients
#[utoipa::path(get, path = "/api/v1/client-settings", tag = "hierarchy",
    operation_id = "show_client_settings", security(("token" = ["reader"])),
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn show_client_settings(
    State(site): State<Site>,
) -> Result<Json<ClientSettingsView>, Problem> {
    Ok(Json(blocking(move || client_settings(&site)).await?))
}

/// What is set for clients: here, or at the top of the tree.
pub(crate) fn client_settings(site: &Site) -> Result<ClientSettingsView, Problem> {
    let above = site.updates()?.sources().site()?;
    let Some(top) = above.top else {
        return Ok(SETTINGS.get(&site.ledger()?.db, &())?.unwrap_or_default());
    };
    let settings = above.clients.map_or(Ok(ClientSettingsView::default()), |clients| {
        serde_json::from_value(clients).map_err(|_| {
            // To go on without them could turn on what was turned off.
            let detail = format!("what {top} sets for clients is not understood: update this site");
            Problem::new(Kind::Unavailable, detail)
        })
    })?;
    Ok(ClientSettingsView { top: Some(top), ..settings })
}

/// Set what is set for clients
///
/// It goes down to all sites below. Only at the top site: others answer 409 with its name.
#[utoipa::path(put, path = "/api/v1/client-settings", tag = "hierarchy",
    operation_id = "set_client_settings", security(("token" = ["admin"])),
    request_body = ClientSettingsView,
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn set_client_settings(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(settings): Input<ClientSettingsView>,
) -> Result<Json<ClientSettingsView>, Problem> {
    note.detail(format!("updates.enabled = {}", settings.updates.enabled));
    let settings = ClientSettingsView { top: None, ..settings };
    let set = blocking(move || {
        only_at_the_top(&site, "what clients do is set")?;
        SETTINGS.set(&site.ledger()?.db, &(), &settings)?;
        site.fleet()?.policy_changed();
        Ok((site.updates()?, settings))
    });
    let (machine, settings) = set.await?;
    machine.tell_settings().await?;
    Ok(Json(settings))
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

/// What clients of the site are told.
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
    Ok(Json(blocking(move || policy(&site)).await?))
}

pub(crate) fn policy(site: &Site) -> Result<ClientPolicyView, Problem> {
    let ledger = site.ledger()?;
    let settings = client_settings(site)?;
    let published = tell::published(&ledger.db)?;
    let mut update_points = Vec::new();
    if settings.updates.enabled && published.is_some() {
        if site.config().sync.update_point {
            let own = own_addresses(site).into_iter();
            update_points.extend(own.map(|url| LocationView { name: "site".into(), url }));
        }
        let others = ledger.registry.followers().into_iter();
        let others = others.filter(|it| it.kind == FollowerKind::UpdatePoint && it.has_synced());
        update_points.extend(others.filter_map(|it| {
            let url = it.report?.address?;
            Some(LocationView { name: it.name.to_string(), url })
        }));
    }
    let enabled = settings.updates.enabled;
    let facts = serde_json::json!([enabled, update_points]).to_string();
    Ok(ClientPolicyView {
        revision: blake3::hash(facts.as_bytes()).to_hex()[..16].to_owned(),
        updates_enabled: enabled,
        update_points,
        synced: published.map(|published| published.at),
    })
}
