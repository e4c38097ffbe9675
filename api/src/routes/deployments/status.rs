//! How far deployments are, for people: counts by state and error, the machines behind each, and one machine.

use crate::deployed::{Content, alert};
use crate::extract::{Params, Query};
use crate::page::{Page, PageQuery, cursor_of};
use crate::problem::{Kind, Problem};
use crate::routes::fleet::{find_client, ordinal_after};
use crate::site::{Site, blocking};
use ::compliance::Ordinal;
use axum::Json;
use axum::extract::State;
use deployment::enforcement::{Compliance, Enforcement, Evaluation, Failure};
use deployment::policy::DeploymentId;
use deployment::results::Which;
use deployment::{Deployment, Results};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Error codes that a status tells one by one: those of the most machines.
const SHOWN_CODES: usize = 20;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_status))
        .routes(routes!(list_deployment_devices))
        .routes(routes!(show_deployment_device))
}

/// How far a deployment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0199f0c2-a7b1-4e0d-8455-a7b1e0d30199", "name": "november-pilot", "enabled": true,
    "group": "november", "collection": "pilot", "available": "2026-12-01T20:00:00Z",
    "deadline": "2026-12-03T03:00:00Z", "content": "held", "missing": 0, "targets": 412, "told": 405,
    "compliance": {"compliant": 380, "non-compliant": 25, "unknown": 7}, "percent": 92,
    "enforcement": {"succeeded": 380, "failed": 3, "waiting-for-window": 22, "unknown": 7},
    "evaluation": {"succeeded": 405, "unknown": 7},
    "errors": [{"code": 100, "clients": 3, "example": "dpkg was interrupted"}], "other_errors": 0,
    "never_fits": 1, "in_overlay": 0
}))]
pub struct DeploymentStatusView {
    /// Which.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether clients are told of it.
    pub enabled: bool,
    /// The group of updates.
    pub group: String,
    /// The collection of machines.
    pub collection: String,
    /// From when updates may be installed.
    pub available: String,
    /// When they must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// `held`, or `missing` if files of one update at least are in no package (the double red arrow).
    pub content: Content,
    /// Of how many updates files are in no package.
    pub missing: u64,
    /// How many clients it is for.
    pub targets: u64,
    /// How many of them told anything of it.
    pub told: u64,
    /// How many are `compliant`, `non-compliant` or `unknown`.
    pub compliance: BTreeMap<String, u64>,
    /// How many of a hundred comply; absent if it is for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// How many are how far (the states of topic 301): `downloading`, `installing`, `succeeded`, `failed` and others.
    pub enforcement: BTreeMap<String, u64>,
    /// How many evaluated it (topic 302).
    pub evaluation: BTreeMap<String, u64>,
    /// Error codes, those of the most clients first.
    pub errors: Vec<ErrorView>,
    /// How many failed with a code that is not told one by one.
    pub other_errors: u64,
    /// How many have no maintenance window that is long enough, found before the deadline.
    pub never_fits: u64,
    /// On how many what was installed lies in an overlay, and goes with the next restart.
    pub in_overlay: u64,
    /// That fewer comply than the deployment asks for, and its deadline is over: the percentage that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_below: Option<u8>,
}

/// An error, and on how many clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"code": 100, "clients": 3, "example": "dpkg was interrupted"}))]
pub struct ErrorView {
    /// The installer's exit code, or one of the agent's own.
    pub code: i64,
    /// On how many.
    pub clients: u64,
    /// What one of them said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// The word for a state.
fn word(state: impl Serialize) -> String {
    let json = serde_json::to_value(state).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

fn words<T: Serialize + Copy>(counts: &BTreeMap<T, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(state, n)| (word(*state), *n)).collect()
}

/// Show how far a deployment is
#[utoipa::path(get, path = "/api/v1/deployments/{deployment}/status", tag = "deployments",
    operation_id = "show_deployment_status", security(("token" = ["reader"])),
    params(("deployment" = String, Path, description = "Its name or id", example = "november-pilot")),
    responses((status = 200, description = "How far it is", body = DeploymentStatusView)))]
async fn show_status(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<DeploymentStatusView>, Problem> {
    let which = params.text("deployment").to_owned();
    Ok(Json(blocking(move || status_of(&site, &which)).await?))
}

fn status_of(site: &Site, which: &str) -> Result<DeploymentStatusView, Problem> {
    let (fleet, shown) = (site.fleet()?, site.deployed().look(site)?);
    let (id, it) = fleet.deployments.find(which)?;
    let members = fleet.members(&it.collection)?;
    let counts = fleet.results.counts(id, &members);
    let missing = shown.states.get(&id).map_or(0, |state| state.missing.len() as u64);
    let mut codes: Vec<(i64, u64)> = counts.codes.iter().map(|(code, n)| (*code, *n)).collect();
    codes.sort_by_key(|(code, n)| (std::cmp::Reverse(*n), *code));
    let rest: u64 = codes.iter().skip(SHOWN_CODES).map(|(_, n)| n).sum();
    codes.truncate(SHOWN_CODES);
    let mut errors = Vec::with_capacity(codes.len());
    for (code, clients) in codes {
        let first = fleet.results.clients(id, Which::Code(code), &members).min();
        let client = first.and_then(|first| fleet.states.id(first));
        let told = client.map(|client| fleet.results.told(client)).transpose()?.flatten();
        let example = told.and_then(|told| {
            let of = told.of(id)?;
            let updates = of.updates.iter().filter_map(|update| update.failure.as_ref());
            let mut failures = of.failure.iter().chain(updates);
            failures.find(|failure| failure.code == code).map(|failure| failure.detail.clone())
        });
        errors.push(ErrorView { code, clients, example });
    }
    let percent = counts.percent();
    let is_below = alert(&it, &counts, Timestamp::now()).is_some();
    Ok(DeploymentStatusView {
        id: id.to_string(),
        name: it.name.to_string(),
        enabled: it.enabled,
        group: it.group.to_string(),
        collection: it.collection.to_string(),
        available: it.available.to_string(),
        deadline: it.deadline.map(|at| at.to_string()),
        content: if missing == 0 { Content::Held } else { Content::Missing },
        missing,
        targets: counts.targets,
        told: counts.told,
        compliance: words(&counts.compliance),
        percent,
        enforcement: words(&counts.enforcement),
        evaluation: words(&counts.evaluation),
        errors,
        other_errors: rest + counts.other_codes,
        never_fits: counts.never_fits,
        in_overlay: counts.in_overlay,
        alert_below: it.alert_below.filter(|_| is_below),
    })
}

/// A client, and how it stands to a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "compliance": "non-compliant",
    "enforcement": "failed", "evaluation": "succeeded", "since": "2026-12-03T03:20:00Z", "code": 100,
    "detail": "dpkg was interrupted", "never_fits": false, "in_overlay": false,
    "heard": "2026-12-03T03:21:00Z"
}))]
pub struct DeploymentDeviceView {
    /// Its id.
    pub client: String,
    /// What people call it.
    pub name: String,
    /// Whether it complies.
    pub compliance: String,
    /// How far it is.
    pub enforcement: String,
    /// Whether it evaluated the deployment.
    pub evaluation: String,
    /// Since when it is so far; absent if it told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// With which code it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// That it has no maintenance window that is long enough.
    #[serde(default)]
    pub never_fits: bool,
    /// That what was installed goes with its next restart.
    #[serde(default)]
    pub in_overlay: bool,
    /// When it last told anything of its deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub heard: Option<Timestamp>,
}

impl DeploymentDeviceView {
    fn of(
        results: &Results,
        deployment: DeploymentId,
        (id, name): (::compliance::message::ClientId, String),
    ) -> Result<Self, Problem> {
        let told = results.told(id)?;
        let of = told.as_ref().and_then(|told| Some((told, told.of(deployment)?)));
        let it = of.map(|(_, it)| it);
        let failure: Option<&Failure> = it.and_then(|it| {
            let of_updates = || it.updates.iter().find_map(|update| update.failure.as_ref());
            it.failure.as_ref().or_else(of_updates)
        });
        Ok(Self {
            client: id.to_string(),
            name,
            compliance: word(it.map_or(Compliance::Unknown, |it| it.compliance)),
            enforcement: word(it.map_or(Enforcement::Unknown, |it| it.enforcement)),
            evaluation: word(it.map_or(Evaluation::Unknown, |it| it.evaluation)),
            since: of.map(|(told, it)| told.since(it.age)),
            code: failure.map(|failure| failure.code),
            detail: failure.map(|failure| failure.detail.clone()),
            never_fits: it.is_some_and(|it| it.never_fits),
            in_overlay: it.is_some_and(|it| it.in_overlay),
            heard: told.as_ref().map(|told| told.at),
        })
    }
}

/// Which clients of a deployment are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeployedDevicesQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those that are so far: a word of compliance (`compliant`, `non-compliant`), of enforcement (`installing`,
    /// `failed`, `waiting-for-window` and others), `unknown`, `never-fits` or `in-overlay`.
    #[param(example = "failed")]
    state: Option<String>,
    /// Only those that failed with this code.
    error: Option<i64>,
}

/// The clients that are meant by a word.
fn which(state: &str) -> Option<Which> {
    let of = |name: &str| serde_json::Value::from(name);
    match state {
        "never-fits" => return Some(Which::NeverFits),
        "in-overlay" => return Some(Which::InOverlay),
        "other-errors" => return Some(Which::OtherCodes),
        _ => {}
    }
    if let Ok(it) = serde_json::from_value::<Compliance>(of(state)) {
        return Some(Which::Compliance(it));
    }
    serde_json::from_value::<Enforcement>(of(state)).ok().map(Which::Enforcement)
}

/// List the clients of a deployment
///
/// All that it is for, or those that are so far.
#[utoipa::path(get, path = "/api/v1/deployments/{deployment}/devices", tag = "deployments",
    operation_id = "list_deployment_devices", security(("token" = ["reader"])), params(
        ("deployment" = String, Path, description = "Its name or id", example = "november-pilot"),
        DeployedDevicesQuery),
    responses((status = 200, description = "A page of clients", body = Page<DeploymentDeviceView>)))]
async fn list_deployment_devices(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<DeployedDevicesQuery>,
) -> Result<Json<Page<DeploymentDeviceView>>, Problem> {
    const LIST: &str = "deployment-devices";
    let DeployedDevicesQuery { limit, cursor, state, error } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, ordinal_after(page.after(LIST)?)?);
    let by_state = match &state {
        Some(state) => Some(which(state).ok_or_else(|| {
            let known: Vec<String> = Enforcement::ALL.iter().map(|it| word(*it)).collect();
            let detail = format!(
                "must be compliant, non-compliant, never-fits, in-overlay, or one of {}",
                known.join(", ")
            );
            Problem::malformed("state", detail)
        })?),
        None => None,
    };
    let name = params.text("deployment").to_owned();
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let (id, it): (DeploymentId, Arc<Deployment>) = fleet.deployments.find(&name)?;
        let mut found = (*fleet.members(&it.collection)?).clone();
        for which in by_state.into_iter().chain(error.map(Which::Code)) {
            found = fleet.results.clients(id, which, &found);
        }
        let from = after.map_or(0, |after| after.saturating_add(1));
        let clients: Vec<Ordinal> = found.range(from..).take(limit + 1).collect();
        let has_more = clients.len() > limit;
        let shown = clients.get(..limit.min(clients.len())).unwrap_or_default();
        let next = shown.last().filter(|_| has_more).map(|last| cursor_of(LIST, &last.to_string()));
        let named = |client: &Ordinal| {
            let id = fleet.states.id(*client)?;
            Some((id, fleet.states.index().name(*client).to_owned()))
        };
        let named: Vec<_> = shown.iter().filter_map(named).collect();
        let items = named.into_iter().map(|it| DeploymentDeviceView::of(&fleet.results, id, it));
        Ok(Page { items: items.collect::<Result<_, _>>()?, next })
    });
    Ok(Json(page.await?))
}

/// How far one client is with each update of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "compliance": "non-compliant",
    "enforcement": "failed", "evaluation": "succeeded", "since": "2026-12-03T03:20:00Z", "code": 100,
    "detail": "dpkg was interrupted", "never_fits": false, "in_overlay": false,
    "heard": "2026-12-03T03:21:00Z", "updates": [{"update": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f",
        "name": "DSA-5545-1", "state": "failed", "since": "2026-12-03T03:20:00Z", "code": 100,
        "detail": "dpkg was interrupted"}]
}))]
pub struct DeploymentDeviceDetail {
    /// The client.
    #[serde(flatten)]
    pub device: DeploymentDeviceView,
    /// The updates that it requires, or installed for the deployment.
    pub updates: Vec<DeviceUpdateView>,
}

/// How far one client is with one update (topic 402).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceUpdateView {
    /// Which.
    pub update: String,
    /// What its upstream calls it; absent if the catalogue does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How far it is: `downloading`, `pending`, `installing`, `installed`, `failed` and others.
    pub state: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// With which code it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Show how far a client is with a deployment
///
/// As it told last.
#[utoipa::path(get, path = "/api/v1/deployments/{deployment}/devices/{client}", tag = "deployments",
    operation_id = "show_deployment_device", security(("token" = ["reader"])), params(
        ("deployment" = String, Path, description = "Its name or id", example = "november-pilot"),
        ("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The client", body = DeploymentDeviceDetail)))]
async fn show_deployment_device(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<DeploymentDeviceDetail>, Problem> {
    let (name, client) = (params.text("deployment").to_owned(), params.text("client").to_owned());
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let (id, it) = fleet.deployments.find(&name)?;
        let client = find_client(&fleet, &client)?;
        if !fleet.members(&it.collection)?.contains(client.ordinal) {
            let detail = format!("{} is not for client {}", it.name, client.name);
            return Err(Problem::new(Kind::NotFound, &detail).caused_by("client", &detail));
        }
        let told = fleet.results.told(client.id)?;
        let device = DeploymentDeviceView::of(&fleet.results, id, (client.id, client.name))?;
        let of = told.as_ref().and_then(|told| Some((told, told.of(id)?)));
        let mut updates = Vec::new();
        if let Some((told, it)) = of {
            let ids: Vec<_> = it.updates.iter().map(|update| update.update).collect();
            let listed = site.updates()?.catalogue().listed(&ids, &fleet.states)?;
            let names: BTreeMap<_, _> =
                listed.into_iter().map(|listed| (listed.id, listed.card.name)).collect();
            updates.extend(it.updates.iter().map(|update| DeviceUpdateView {
                update: update.update.to_string(),
                name: names.get(&update.update).cloned(),
                state: word(update.state),
                since: told.since(update.age),
                code: update.failure.as_ref().map(|failure| failure.code),
                detail: update.failure.as_ref().map(|failure| failure.detail.clone()),
            }));
        }
        Ok(DeploymentDeviceDetail { device, updates })
    });
    Ok(Json(shown.await?))
}
