//! What is known of one client, for people: how updates stand on it, and what is installed.

use super::clients::find;
use crate::extract::{Params, Query};
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use ::compliance::message::State as UpdateState;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_updates_of_client))
        .routes(routes!(list_packages_of_client))
}

/// How an update stands on a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "update": "7c1f0c3a-8a52-5e1f-9a57-0d3b1f2e4c5d", "revision": 2, "state": "required",
    "name": "DSA-5545-1", "title": "openssl security update"
}))]
pub struct ClientUpdateView {
    /// Which.
    pub update: String,
    /// The revision that the client assessed.
    pub revision: u32,
    /// `required`, `not-required` or `installed`.
    pub state: String,
    /// What its upstream calls it; absent if the catalogue does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Which updates are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UpdatesQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// `required`, `not-required` or `installed`.
    #[param(default = "required")]
    state: Option<String>,
}

/// List the updates that have a state on a client
///
/// As it told them last, by their ids. Of the others nothing is known.
#[utoipa::path(get, path = "/api/v1/clients/{client}/updates", tag = "fleet",
    security(("token" = ["reader"])), params(
        ("client" = String, Path, description = "Its id or name", example = "pc-17"), UpdatesQuery),
    responses((status = 200, description = "A page of updates", body = Page<ClientUpdateView>)))]
async fn list_updates_of_client(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<UpdatesQuery>,
) -> Result<Json<Page<ClientUpdateView>>, Problem> {
    let UpdatesQuery { limit, cursor, state } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("client-updates")?);
    let state: UpdateState = state
        .map_or(Ok(UpdateState::Required), |text| serde_json::from_value(text.into()))
        .ok()
        .filter(|state| *state != UpdateState::Unknown)
        .ok_or_else(|| {
            Problem::malformed("state", "must be required, not-required or installed")
        })?;
    let which = params.text("client").to_owned();
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let client = find(&fleet, &which)?;
        let mut found = fleet.states.states_of(client.ordinal);
        found.retain(|(_, of)| *of == state);
        found.sort_unstable_by_key(|(update, _)| update.id);
        let key = |(update, _): &(::compliance::message::UpdateRevision, UpdateState)| {
            update.id.to_string()
        };
        let page = Page::cut("client-updates", found, after.as_deref(), limit, key);
        let updates = site.updates()?;
        let word = serde_json::to_value(state).unwrap_or_default();
        let mut items = Vec::with_capacity(page.items.len());
        for (update, _) in page.items {
            let shown = updates.catalogue().entry(update.id)?.map(|entry| entry.update);
            items.push(ClientUpdateView {
                update: update.id.to_string(),
                revision: update.revision,
                state: word.as_str().unwrap_or_default().to_owned(),
                name: shown.as_ref().map(|it| it.name.clone()),
                title: shown.as_ref().and_then(|it| Some(it.text(&[])?.title.clone())),
            });
        }
        Ok(Page { items, next: page.next })
    });
    Ok(Json(page.await?))
}

/// A package that is installed on a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "openssl", "version": "3.0.15-1~deb12u1", "arch": "amd64"}))]
pub struct ClientPackageView {
    /// Its name.
    pub name: String,
    /// Its version, as its packager writes it.
    pub version: String,
    /// Its architecture.
    pub arch: String,
}

/// Which packages are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PackagesQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those whose name contains this text.
    search: Option<String>,
}

/// List the packages that are installed on a client
///
/// As it told them last, by name.
#[utoipa::path(get, path = "/api/v1/clients/{client}/packages", tag = "fleet",
    security(("token" = ["reader"])), params(
        ("client" = String, Path, description = "Its id or name", example = "pc-17"), PackagesQuery),
    responses((status = 200, description = "A page of packages", body = Page<ClientPackageView>)))]
async fn list_packages_of_client(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<PackagesQuery>,
) -> Result<Json<Page<ClientPackageView>>, Problem> {
    let PackagesQuery { limit, cursor, search } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("client-packages")?);
    let which = params.text("client").to_owned();
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let client = find(&fleet, &which)?;
        let all = fleet.states.packages(client.ordinal)?.unwrap_or_default();
        let named = |name: &String| search.as_ref().is_none_or(|text| name.contains(text.as_str()));
        let all = all.into_iter().filter(|(name, _)| named(name));
        let found = all.flat_map(|(name, packages)| {
            packages.into_iter().map(move |it| {
                let name = name.clone();
                ClientPackageView { name, version: it.version, arch: it.arch }
            })
        });
        // No name or version has a space in it, so the order is that of names.
        let key = |it: &ClientPackageView| format!("{} {} {}", it.name, it.version, it.arch);
        let mut found: Vec<_> = found.collect();
        found.sort_by_cached_key(key);
        Ok(Page::cut("client-packages", found, after.as_deref(), limit, key))
    });
    Ok(Json(page.await?))
}
