//! Clients, for people: who they are, and whether they may report.

use crate::extract::{Params, Query};
use crate::fleet::Fleet;
use crate::fleet::settings::For;
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery, cursor_of};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::client::settings::Changes;
use axum::Json;
use axum::extract::{Extension, State};
use compliance::Ordinal;
use compliance::fleet::{Client, Facts, Standing};
use compliance::forward::Child;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_clients))
        .routes(routes!(show_client, remove_client))
        .routes(routes!(approve_client))
        .routes(routes!(block_client))
}

/// Whether a client may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StandingView {
    /// It waits for approval.
    Pending,
    /// It may.
    Approved,
    /// It was shut out.
    Blocked,
}

impl From<Standing> for StandingView {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Pending => Self::Pending,
            Standing::Approved => Self::Approved,
            Standing::Blocked => Self::Blocked,
        }
    }
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "standing": "approved",
    "enrolled": "2026-11-28T09:00:00Z", "heard": "2026-11-28T12:00:00Z",
    "scanned": "2026-11-28T11:58:00Z", "states": 812, "returns": 0, "clock_ahead": 0,
    "os": "debian", "os_version": "12", "architecture": "x86_64", "addresses": ["192.0.2.17"]
}))]
pub struct ClientView {
    /// Its own id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether it may report.
    pub standing: StandingView,
    /// The child site that it reports to; absent if that is this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// When it became known here.
    #[schema(value_type = String, format = DateTime)]
    pub enrolled: Timestamp,
    /// When it was last heard: of a report, its facts, or the question what it is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub heard: Option<Timestamp>,
    /// When a scan of it last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scanned: Option<Timestamp>,
    /// The code with which that scan failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan_failed: Option<u32>,
    /// On how many updates a state of it is known.
    pub states: u32,
    /// Why it is asked for its full state, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<String>,
    /// How often a superseded life of its store came back, or one used a number again for something else: two
    /// machines share its identity, or, where it stays at 1, the machine's disk was put back once.
    pub returns: u16,
    /// By how many seconds its clock was ahead when it last reported.
    pub clock_ahead: i32,
    /// Its system, as `ID` of os-release has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// That system's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Its architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Its network addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<std::net::IpAddr>,
    /// What administrators set on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// How many packages are installed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<u32>,
}

impl ClientView {
    fn of(client: Client, facts: Option<Facts>) -> Self {
        let facts = facts.unwrap_or_default();
        let told = |text: String| Some(text).filter(|text| !text.is_empty());
        let (scanned, scan_failed) =
            client.scanned.map_or((None, None), |(at, failed)| (Some(at), failed));
        Self {
            id: client.id.to_string(),
            name: client.name,
            standing: client.standing.into(),
            site: client.site,
            enrolled: client.enrolled,
            heard: client.heard,
            scanned,
            scan_failed,
            states: client.known,
            resync: client
                .resync
                .and_then(|why| Some(serde_json::to_value(why).ok()?.as_str()?.to_owned())),
            returns: client.returns,
            clock_ahead: client.clock_ahead,
            os: told(facts.os),
            os_version: told(facts.os_version),
            architecture: told(facts.architecture),
            addresses: facts.addresses,
            attributes: facts.attributes,
            packages: facts.packages,
        }
    }
}

/// Which clients are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ClientsQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this standing: `pending`, `approved` or `blocked`.
    standing: Option<String>,
    /// Only those whose name or id contains this text.
    search: Option<String>,
}

/// How many clients are looked at for one page, so that a search which finds little ends.
const LOOKED_AT: usize = 50_000;

/// List clients
///
/// In the order in which they came. A page may have fewer entries than asked for, and still a `next`.
#[utoipa::path(get, path = "/api/v1/clients", tag = "fleet", security(("token" = ["reader"])),
    params(ClientsQuery),
    responses((status = 200, description = "A page of clients", body = Page<ClientView>)))]
async fn list_clients(
    State(site): State<Site>,
    Query(query): Query<ClientsQuery>,
) -> Result<Json<Page<ClientView>>, Problem> {
    let ClientsQuery { limit, cursor, standing, search } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("clients")?);
    let after = ordinal_after(after)?;
    let standing: Option<StandingView> = standing
        .map(|text| serde_json::from_value(text.into()))
        .transpose()
        .map_err(|_| Problem::malformed("standing", "must be pending, approved or blocked"))?;
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let (mut items, mut last, mut looked) = (Vec::new(), after, 0);
        loop {
            let step = fleet.states.clients(last, limit)?;
            let is_end = step.len() < limit;
            looked += step.len();
            for client in step {
                last = Some(client.ordinal);
                let is_named = search.as_ref().is_none_or(|text| {
                    client.name.contains(text.as_str())
                        || client.id.to_string().contains(text.as_str())
                });
                if is_named && standing.is_none_or(|wanted| wanted == client.standing.into()) {
                    let facts = fleet.states.facts(client.ordinal)?;
                    items.push(ClientView::of(client, facts));
                    if items.len() == limit {
                        break;
                    }
                }
            }
            if is_end && items.len() < limit {
                return Ok(Page { items, next: None });
            }
            if items.len() == limit || looked >= LOOKED_AT {
                let next = last.map(|last| cursor_of("clients", &last.to_string()));
                return Ok(Page { items, next });
            }
        }
    });
    Ok(Json(page.await?))
}

/// The ordinal in a cursor.
pub(crate) fn ordinal_after(after: Option<String>) -> Result<Option<Ordinal>, Problem> {
    let parsed = after.map(|text| text.parse()).transpose();
    parsed.map_err(|_| Problem::malformed("cursor", "is not one of this list"))
}

/// The client of that id, or of that name if no other has it.
pub(crate) fn find(fleet: &Fleet, which: &str) -> Result<Client, Problem> {
    let unknown = || {
        let detail =
            format!("there is no client {:?}", which.chars().take(100).collect::<String>());
        Problem::new(Kind::NotFound, &detail).caused_by("client", &detail)
    };
    if let Ok(id) = which.parse() {
        let ordinal = fleet.states.find(id).ok_or_else(unknown)?;
        return fleet.states.client(ordinal)?.ok_or_else(unknown);
    }
    let mut found: Option<Client> = None;
    let mut after = None;
    loop {
        let step = fleet.states.clients(after, 1_000)?;
        let Some(last) = step.last() else { break };
        after = Some(last.ordinal);
        for client in step.into_iter().filter(|client| client.name == which) {
            if found.is_some() {
                let detail = format!("several clients are called {which:?}: name one by its id");
                return Err(Problem::new(Kind::Conflict, detail));
            }
            found = Some(client);
        }
    }
    found.ok_or_else(unknown)
}

/// Show a client
#[utoipa::path(get, path = "/api/v1/clients/{client}", tag = "fleet",
    security(("token" = ["reader"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The client", body = ClientView)))]
async fn show_client(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ClientView>, Problem> {
    let which = params.text("client").to_owned();
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let client = find(&fleet, &which)?;
        let facts = fleet.states.facts(client.ordinal)?;
        Ok(ClientView::of(client, facts))
    });
    Ok(Json(shown.await?))
}

/// Changes whether a client may report.
/// When a child site counts as gone, whose clients may then be removed here.
const GONE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Refuses what only the site that a client reports to can do.
pub(super) fn want_own(client: &Client) -> Result<(), Problem> {
    let Some(site) = &client.site else { return Ok(()) };
    let detail = format!("{} reports to the child site {site}: do it there", client.name);
    Err(Problem::new(Kind::Conflict, detail))
}

async fn stand(
    site: Site,
    note: AuditNote,
    which: &str,
    standing: Standing,
) -> Result<Json<ClientView>, Problem> {
    let which = which.to_owned();
    note.target(&which);
    let changed = blocking(move || {
        let fleet = site.fleet()?;
        let client = find(&fleet, &which)?;
        want_own(&client)?;
        fleet.states.set_standing(client.ordinal, standing, Timestamp::now())?;
        fleet.policies.own_changed(client.ordinal);
        let facts = fleet.states.facts(client.ordinal)?;
        Ok(ClientView::of(find(&fleet, &client.id.to_string())?, facts))
    });
    Ok(Json(changed.await?))
}

/// Approve a client
///
/// It may report from now on: one that waited for approval, or one that was blocked.
#[utoipa::path(post, path = "/api/v1/clients/{client}/approve", tag = "fleet",
    security(("token" = ["operator"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The client", body = ClientView)))]
async fn approve_client(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<ClientView>, Problem> {
    stand(site, note, params.text("client"), Standing::Approved).await
}

/// Block a client
///
/// It is refused at once. What it reported stays, and is told as Unknown, blocked.
#[utoipa::path(post, path = "/api/v1/clients/{client}/block", tag = "fleet",
    security(("token" = ["operator"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "The client", body = ClientView)))]
async fn block_client(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<ClientView>, Problem> {
    stand(site, note, params.text("client"), Standing::Blocked).await
}

/// Remove a client
///
/// It and all that it reported is forgotten; to come back, it joins with a token. One of a child site is removed
/// there, unless that was not heard for a day.
#[utoipa::path(delete, path = "/api/v1/clients/{client}", tag = "fleet",
    security(("token" = ["operator"])),
    params(("client" = String, Path, description = "Its id or name", example = "pc-17")),
    responses((status = 200, description = "What it was", body = ClientView)))]
async fn remove_client(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<ClientView>, Problem> {
    let which = params.text("client").to_owned();
    note.target(&which);
    let removed = blocking(move || {
        let fleet = site.fleet()?;
        let client = find(&fleet, &which)?;
        let now = Timestamp::now();
        let heard = |child: &Child| {
            client.site.as_deref() == Some(&child.name) && now.duration_since(child.heard) < GONE
        };
        if fleet.states.children().iter().any(heard) {
            // It would come back with what the child tells next.
            want_own(&client)?;
        }
        let facts = fleet.states.facts(client.ordinal)?;
        fleet.states.remove(client.ordinal, Timestamp::now())?;
        fleet.results.forget_client(client.ordinal, client.id)?;
        fleet.settings.set(For::Client(client.id), Changes::default())?;
        fleet.policies.own_changed(client.ordinal);
        Ok(ClientView::of(client, facts))
    });
    Ok(Json(removed.await?))
}
