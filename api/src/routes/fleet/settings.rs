//! What is set for clients: for all of a site, and for single ones.

use super::clients::{find, want_own};
use crate::extract::{Input, Params};
use crate::fleet::settings::{For, for_all};
use crate::guard::AuditNote;
use crate::problem::Problem;
use crate::routes::sync::only_at_the_top;
use crate::site::{Site, blocking};
use ::client::settings::{Changes, ConfigFiles, MachineKind, Settings};
use axum::Json;
use axum::extract::{Extension, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(show_for_all, set_for_all, clear_for_all)).routes(routes!(
        show_for_one,
        set_for_one,
        clear_for_one
    ))
}

/// Some settings; what is absent stays as it is without them. Times are in seconds.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"report_every": 1800, "scan_every": 86400}))]
pub struct SetSettingsView {
    /// Whether clients scan for updates and install them. If not, they are told of no update point.
    pub updates_enabled: Option<bool>,
    /// How often they ask for their policy, from 60 to 86,400; 3,600 by default.
    pub poll_every: Option<u64>,
    /// How often they report, from 60 to 86,400; 900 by default.
    pub report_every: Option<u64>,
    /// How long after an installation they report at the latest, from 10 to 3,600; 120 by default.
    pub report_after_install: Option<u64>,
    /// How often they scan, at most 7,776,000; less than a day counts as a day. 604,800 by default.
    pub scan_every: Option<u64>,
    /// How often they look whether what was deployed is there, at most 7,776,000; less than a day counts as a
    /// day. 604,800 by default.
    pub reevaluate_every: Option<u64>,
    /// For how long a catalogue that they fetched is good, from 3,600 to 2,592,000; 86,400 by default.
    pub catalogue_ttl: Option<u64>,
    /// Over which time after a deadline machines begin, each at a time of its own, at most 7,200; 0 by default.
    pub deadline_spread: Option<u64>,
    /// How long after the deadline of a deployment that allows it updates are installed, at most 432,000; 0 by default.
    pub grace: Option<u64>,
    /// With updates whose deadline is over those are installed whose deadline comes within this time, at most
    /// 31,536,000; 0, the default, is none.
    pub coming_deadlines: Option<u64>,
    /// How long an update may take where its deployment does not say, from 300 to 599,940; 600 by default.
    pub max_run_time: Option<u64>,
    /// For how long people at a machine see that it is about to restart, from 60 to 86,400; 900 by default.
    pub restart_countdown: Option<u64>,
    /// For how long they may put that off, all in all, at most 604,800; 14,400 by default.
    pub restart_snooze: Option<u64>,
    /// For how long a file stays in the cache since it was needed last, at most 604,800; 86,400 by default.
    pub cache_retention: Option<u64>,
    /// Above so many MiB what is not needed leaves the cache; 5,120 by default. What is needed always has room.
    pub cache_size: Option<u64>,
    /// What becomes of a configuration file that somebody changed, where an update has another one: `keep`, the
    /// default, or `replace`.
    #[schema(value_type = Option<String>)]
    pub config_files: Option<ConfigFiles>,
    /// What machines count as where deployments leave servers or workstations alone: `auto`, the default, `server` or
    /// `workstation`.
    #[schema(value_type = Option<String>)]
    pub machine_kind: Option<MachineKind>,
    /// Whether an installer that takes longer than it may is ended; false by default: it goes on unwatched.
    pub end_overdue: Option<bool>,
}

/// What holds. Times are in seconds.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "updates_enabled": true, "poll_every": 3600, "report_every": 1800, "report_after_install": 120,
    "scan_every": 86400, "reevaluate_every": 604800, "catalogue_ttl": 86400,
    "deadline_spread": 0, "grace": 0, "coming_deadlines": 0, "max_run_time": 600, "restart_countdown": 900,
    "restart_snooze": 14400, "cache_retention": 86400, "cache_size": 5120, "config_files": "keep",
    "machine_kind": "auto", "end_overdue": false
}))]
pub struct EffectiveSettingsView {
    /// Whether clients scan for updates and install them.
    pub updates_enabled: bool,
    /// How often they ask for their policy.
    pub poll_every: u64,
    /// How often they report.
    pub report_every: u64,
    /// How long after an installation they report at the latest.
    pub report_after_install: u64,
    /// How often they scan.
    pub scan_every: u64,
    /// How often they look whether what was deployed is there.
    pub reevaluate_every: u64,
    /// For how long a catalogue that they fetched is good.
    pub catalogue_ttl: u64,
    /// Over which time after a deadline machines begin.
    pub deadline_spread: u64,
    /// How long after the deadline of a deployment that allows it updates are installed.
    pub grace: u64,
    /// How soon deadlines come whose updates are installed along.
    pub coming_deadlines: u64,
    /// How long an update may take where its deployment does not say.
    pub max_run_time: u64,
    /// For how long people at a machine see that it is about to restart.
    pub restart_countdown: u64,
    /// For how long they may put that off, all in all.
    pub restart_snooze: u64,
    /// For how long a file stays in the cache since it was needed last.
    pub cache_retention: u64,
    /// Above so many MiB what is not needed leaves the cache.
    pub cache_size: u64,
    /// What becomes of a configuration file that somebody changed.
    #[schema(value_type = String)]
    pub config_files: ConfigFiles,
    /// What machines count as.
    #[schema(value_type = String)]
    pub machine_kind: MachineKind,
    /// Whether an installer that takes longer than it may is ended.
    pub end_overdue: bool,
}

/// What is set, and what holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "set": {"report_every": 1800}, "site": {"scan_every": 86400},
    "effective": {
        "updates_enabled": true, "poll_every": 3600, "report_every": 1800, "report_after_install": 120,
        "scan_every": 86400, "reevaluate_every": 604800, "catalogue_ttl": 86400,
        "deadline_spread": 0, "grace": 0, "coming_deadlines": 0, "max_run_time": 600, "restart_countdown": 900,
        "restart_snooze": 14400, "cache_retention": 86400, "cache_size": 5120, "config_files": "keep",
        "machine_kind": "auto", "end_overdue": false
    }
}))]
pub struct ClientSettingsView {
    /// What is set for whom was asked about.
    #[schema(value_type = SetSettingsView)]
    pub set: Changes,
    /// What is set for all clients of the site.
    #[schema(value_type = SetSettingsView)]
    pub site: Changes,
    /// The site at the top of the tree, where that is set, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// What follows.
    #[schema(value_type = EffectiveSettingsView)]
    pub effective: Settings,
}

/// What was asked for, of all clients or of the one called so.
async fn show(site: Site, which: Option<String>) -> Result<Json<ClientSettingsView>, Problem> {
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let client = which.map(|which| find(&fleet, &which)).transpose()?.map(|client| client.id);
        let (settings, all) = (&fleet.settings, for_all(&site)?);
        let own = client.map(|client| settings.get(For::Client(client)));
        Ok(ClientSettingsView {
            set: (*own.unwrap_or_else(|| all.set.clone())).clone(),
            site: (*all.set).clone(),
            effective: settings.effective(&all.set, client),
            top: all.top,
        })
    });
    Ok(Json(shown.await?))
}

/// Sets exactly this, and has those hear of it whom it concerns.
async fn set(
    site: Site,
    note: AuditNote,
    which: Option<String>,
    changes: Changes,
) -> Result<Json<ClientSettingsView>, Problem> {
    note.target(which.as_deref().unwrap_or("all clients"));
    let (changing, named) = (site.clone(), which.clone());
    let set = blocking(move || {
        let fleet = changing.fleet()?;
        match named {
            None => {
                only_at_the_top(&changing, "what all clients do is set")?;
                let set = fleet.settings.set(For::All, changes)?;
                fleet.policies.look(&changing)?;
                Ok((set, Some(changing.updates()?)))
            }
            Some(which) => {
                let client = find(&fleet, &which)?;
                want_own(&client)?;
                let set = fleet.settings.set(For::Client(client.id), changes)?;
                fleet.policies.own_changed(client.ordinal);
                Ok((set, None))
            }
        }
    });
    let (set, machine) = set.await?;
    note.detail(in_words(&set));
    if let Some(machine) = machine {
        machine.tell_settings().await?;
    }
    show(site, which).await
}

/// `report_every=1800 scan_every=86400`.
fn in_words(changes: &Changes) -> String {
    let fields = serde_json::to_value(changes).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    let words: Vec<String> = fields.map(|(name, value)| format!("{name}={value}")).collect();
    match words.is_empty() {
        true => "nothing".into(),
        false => words.join(" "),
    }
}

/// Show what is set for all clients
#[utoipa::path(get, path = "/api/v1/client-settings", tag = "fleet",
    operation_id = "show_client_settings", security(("token" = ["reader"])),
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn show_for_all(State(site): State<Site>) -> Result<Json<ClientSettingsView>, Problem> {
    show(site, None).await
}

/// Set what is set for all clients
///
/// All that is set: what is absent has its default again. It goes down to all sites below. Only at the top
/// site: others answer 409 with its name.
#[utoipa::path(put, path = "/api/v1/client-settings", tag = "fleet",
    operation_id = "set_client_settings", security(("token" = ["admin"])),
    request_body = SetSettingsView,
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn set_for_all(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(changes): Input<Changes>,
) -> Result<Json<ClientSettingsView>, Problem> {
    set(site, note, None, changes).await
}

/// Clear what is set for all clients
///
/// The defaults hold again, but for clients that have settings of their own. Only at the top site.
#[utoipa::path(delete, path = "/api/v1/client-settings", tag = "fleet",
    operation_id = "clear_client_settings", security(("token" = ["admin"])),
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn clear_for_all(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
) -> Result<Json<ClientSettingsView>, Problem> {
    set(site, note, None, Changes::default()).await
}

/// Show what is set for a client
#[utoipa::path(get, path = "/api/v1/clients/{client}/settings", tag = "fleet",
    operation_id = "show_settings_of_client", security(("token" = ["reader"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn show_for_one(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ClientSettingsView>, Problem> {
    show(site, Some(params.text("client").to_owned())).await
}

/// Set what is set for a client
///
/// All that is set for it alone: what is absent is as for all others.
#[utoipa::path(put, path = "/api/v1/clients/{client}/settings", tag = "fleet",
    operation_id = "set_settings_of_client", security(("token" = ["admin"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    request_body = SetSettingsView,
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn set_for_one(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(changes): Input<Changes>,
) -> Result<Json<ClientSettingsView>, Problem> {
    set(site, note, Some(params.text("client").to_owned()), changes).await
}

/// Clear what is set for a client
#[utoipa::path(delete, path = "/api/v1/clients/{client}/settings", tag = "fleet",
    operation_id = "clear_settings_of_client", security(("token" = ["admin"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The settings", body = ClientSettingsView)))]
async fn clear_for_one(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<ClientSettingsView>, Problem> {
    set(site, note, Some(params.text("client").to_owned()), Changes::default()).await
}
