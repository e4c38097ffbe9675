//! Where compliance is not known, for people: on which clients, why, and since when.

use super::clients::ordinal_after;
use super::compliance::find_update;
use crate::extract::{Params, Query};
use crate::fleet::Fleet;
use crate::page::{Page, PageQuery, cursor_of};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use ::client::scan::retry::Class;
use ::compliance::unknown::{Cause, Unknown};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_unknown))
        .routes(routes!(list_unknown_clients))
        .routes(routes!(unknown_totals))
}

/// A client on which an update is unknown, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "cause": "scan-failed",
    "detail": "code 1: its update point cannot be reached", "since": "2026-11-20T07:00:00Z"
}))]
pub struct UnknownView {
    /// Its id.
    pub client: String,
    /// What people call it.
    pub name: String,
    /// Why: `never-scanned`, `scan-failed`, `backlog`, `silent`, `not-received`, `corrupt`, `not-enrolled`,
    /// `blocked` or `not-assessed`.
    pub cause: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the machine itself said that it could not do, and why, where it could not say it as a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// Which unknown clients are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UnknownQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only of this collection.
    collection: Option<String>,
}

/// List the clients on which an update is unknown
///
/// Each with the cause, and since when that is so.
#[utoipa::path(get, path = "/api/v1/compliance/updates/{update}/unknown", tag = "compliance",
    operation_id = "list_unknown", security(("token" = ["reader"])), params(
        ("update" = String, Path, description = "Its id or name", example = "DSA-5545-1"), UnknownQuery),
    responses((status = 200, description = "A page of clients", body = Page<UnknownView>)))]
async fn list_unknown(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<UnknownQuery>,
) -> Result<Json<Page<UnknownView>>, Problem> {
    let UnknownQuery { limit, cursor, collection } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, ordinal_after(page.after("unknown")?)?);
    let which = params.text("update").to_owned();
    let page = blocking(move || {
        let update = find_update(&site, &which)?;
        let fleet = site.fleet()?;
        let scope = fleet.scope(collection.as_deref())?;
        let now = Timestamp::now();
        let found = fleet.states.unknown(update, scope.as_deref(), (after, limit + 1), now);
        page_of(&fleet, found, limit)
    });
    Ok(Json(page.await?))
}

/// List the clients of which nothing is known
///
/// Those that have no state of any update that counts, each with the cause, and since when that is so.
#[utoipa::path(get, path = "/api/v1/compliance/unknown/clients", tag = "compliance",
    operation_id = "list_unknown_clients", security(("token" = ["reader"])), params(UnknownQuery),
    responses((status = 200, description = "A page of clients", body = Page<UnknownView>),
        (status = 404, description = "There is no such collection", body = Problem)))]
async fn list_unknown_clients(
    State(site): State<Site>,
    Query(query): Query<UnknownQuery>,
) -> Result<Json<Page<UnknownView>>, Problem> {
    let UnknownQuery { limit, cursor, collection } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, ordinal_after(page.after("unknown")?)?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let scope = fleet.scope(collection.as_deref())?;
        let (now, wanted) = (Timestamp::now(), (after, limit + 1));
        let found = fleet.states.unknown_clients_why(scope.as_deref(), wanted, now);
        page_of(&fleet, found, limit)
    });
    Ok(Json(page.await?))
}

/// A page of what was found, which is one more than fits where there are more.
fn page_of(fleet: &Fleet, found: Vec<Unknown>, limit: usize) -> Result<Page<UnknownView>, Problem> {
    let next = found.get(limit).and_then(|_| found.get(limit.checked_sub(1)?));
    let next = next.map(|it| cursor_of("unknown", &it.client.to_string()));
    let mut items = Vec::new();
    for it in found.into_iter().take(limit) {
        let name = fleet.states.client(it.client)?.map(|client| client.name);
        items.push(UnknownView {
            client: it.id.to_string(),
            name: name.unwrap_or_default(),
            cause: it.cause.word().to_owned(),
            detail: detail(fleet, &it)?,
            said: fleet.fallback.of(it.id)?.map(|word| word.in_short()),
            since: it.since,
        });
    }
    Ok(Page { items, next })
}

fn detail(fleet: &Fleet, unknown: &Unknown) -> Result<Option<String>, Problem> {
    Ok(match &unknown.cause {
        Cause::ScanFailed { code } => Some(match Class::of_code(*code) {
            Some(class) => format!("code {code}: {}", class.in_words()),
            None => format!("code {code}"),
        }),
        Cause::Corrupt => fleet
            .states
            .last_quarantined(unknown.client)?
            .map(|held| format!("batch {} in quarantine: {}", held.number, held.reason)),
        Cause::Backlog { waiting } => Some(format!("{waiting} changes wait to be sent")),
        Cause::NotReceived { site } => Some(format!("child site {site}")),
        Cause::NotAssessed { catalogue } => Some(format!("scanned against catalogue {catalogue}")),
        _ => None,
    })
}

/// Which totals are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TotalsQuery {
    /// Of this update, by id or name; without it, of clients of which nothing is known at all.
    update: Option<String>,
    /// Only of this collection.
    collection: Option<String>,
}

/// How many clients are unknown, by cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"clients": 1000, "unknown": {"never-scanned": 12, "silent": 3}}))]
pub struct UnknownTotalsView {
    /// How many clients there are.
    pub clients: u64,
    /// How many are unknown, by cause.
    pub unknown: BTreeMap<String, u64>,
}

/// Count the clients that are unknown, by cause
#[utoipa::path(get, path = "/api/v1/compliance/unknown", tag = "compliance",
    operation_id = "count_unknown", security(("token" = ["reader"])), params(TotalsQuery),
    responses((status = 200, description = "The totals", body = UnknownTotalsView),
        (status = 404, description = "There is no such collection or update", body = Problem)))]
async fn unknown_totals(
    State(site): State<Site>,
    Query(query): Query<TotalsQuery>,
) -> Result<Json<UnknownTotalsView>, Problem> {
    let totals = blocking(move || {
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        let scope = fleet.scope(query.collection.as_deref())?;
        let scope = scope.as_deref();
        let totals = match query.update {
            Some(which) => fleet.states.unknown_totals(find_update(&site, &which)?, scope, now),
            None => fleet.states.unknown_clients(scope, now),
        };
        let unknown = totals.into_iter().map(|(cause, count)| (cause.to_owned(), count)).collect();
        let clients = scope.map_or_else(|| fleet.states.fleet().len(), |scope| scope.len());
        Ok(UnknownTotalsView { clients, unknown })
    });
    Ok(Json(totals.await?))
}
