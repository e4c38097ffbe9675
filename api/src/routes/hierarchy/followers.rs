//! Who follows this site, and whom it follows.

use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::hierarchy::{self, Parent, tell};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use dp::field::FollowerKind;
use dp::registry::{Follower, Registry};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the update point is called that every site has by itself.
const OWN: &str = "site";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_site))
        .routes(routes!(list_followers))
        .routes(routes!(show_follower, remove_follower))
        .routes(routes!(set_source))
}

/// A child site, or another update point. What it reported is absent until it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "name": "berlin", "kind": "primary",
    "joined": "2026-11-22T12:00:00Z", "invited_by": "admin", "online": true,
    "seen": "2026-11-22T12:30:00Z", "asked": 17, "asked_at": "2026-11-27T03:02:07Z",
    "state": "done", "synced": "2026-11-27T03:02:11Z", "updates": 6120,
    "address": "https://192.0.2.7:8520", "program": "0.1.0", "is_source": false
}))]
pub struct FollowerView {
    /// Names it for ever.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is: `primary`, `secondary` or `update-point`.
    pub kind: String,
    /// When it joined.
    #[schema(value_type = String, format = DateTime)]
    pub joined: Timestamp,
    /// Who made the token that it joined with.
    pub invited_by: String,
    /// When it last got a new certificate, if it did since it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub renewed: Option<Timestamp>,
    /// Whether it was heard of within the last minute and a half, and its connection did not break more than
    /// 15 s ago.
    pub online: bool,
    /// When it was heard of last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen: Option<Timestamp>,
    /// The number of the last request to synchronise; 0: none.
    pub asked: u64,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub asked_at: Option<Timestamp>,
    /// What came of its last sync: `running`, `done` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it last had all that there was, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub synced: Option<Timestamp>,
    /// How many updates it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Whether the other update points read from it.
    pub is_source: bool,
}

impl FollowerView {
    fn of(registry: &Registry, follower: Follower, is_source: bool, now: Timestamp) -> Self {
        let report = follower.report;
        let report = report.as_ref();
        Self {
            online: registry.is_follower_online(&follower.id, now),
            seen: registry.follower_seen(&follower.id),
            id: follower.id.to_string(),
            name: follower.name.to_string(),
            kind: follower.kind.to_string(),
            joined: follower.joined,
            invited_by: follower.invited_by,
            renewed: follower.renewed,
            asked: follower.asked,
            asked_at: follower.asked_at,
            state: report.map(|report| report.state.as_str().to_owned()),
            detail: report.and_then(|report| report.detail.clone()),
            synced: report.and_then(|report| report.synced),
            updates: report.map(|report| report.updates),
            address: report.and_then(|report| report.address.clone()),
            program: report.map(|report| report.program.clone()),
            is_source,
        }
    }
}

/// Which followers are wanted, and which page.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FollowersQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// `site` for child sites, `update-point` for update points; without it, both.
    kind: Option<String>,
}

/// List the child sites and the other update points
///
/// By name.
#[utoipa::path(get, path = "/api/v1/followers", tag = "hierarchy",
    security(("token" = ["reader"])), params(FollowersQuery),
    responses((status = 200, description = "A page of followers", body = Page<FollowerView>)))]
async fn list_followers(
    State(site): State<Site>,
    Query(query): Query<FollowersQuery>,
) -> Result<Json<Page<FollowerView>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (page.limit()?, page.after("followers")?);
    let is_wanted: fn(&Follower) -> bool = match query.kind.as_deref() {
        None => |_| true,
        Some("site") => |it| it.kind.is_site(),
        Some("update-point") => |it| !it.kind.is_site(),
        Some(_) => return Err(Problem::malformed("kind", "must be site or update-point")),
    };
    let page = blocking(move || {
        let ledger = site.ledger()?;
        let (registry, now) = (&ledger.registry, Timestamp::now());
        let source = tell::point_source(&ledger)?.map(|source| source.id);
        let mut all: Vec<Follower> = registry.followers().into_iter().filter(is_wanted).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |follower: &Follower| follower.name.to_string();
        let page = Page::cut("followers", all, after.as_deref(), limit, key);
        Ok(page.map(|it| {
            let is_source = Some(&it.id) == source.as_ref();
            FollowerView::of(registry, it, is_source, now)
        }))
    });
    Ok(Json(page.await?))
}

fn view(site: &Site, which: &str) -> Result<FollowerView, Problem> {
    let ledger = site.ledger()?;
    let follower = ledger.registry.follower(which)?;
    let source = tell::point_source(&ledger)?.map(|source| source.id);
    let is_source = Some(&follower.id) == source.as_ref();
    Ok(FollowerView::of(&ledger.registry, follower, is_source, Timestamp::now()))
}

/// Show a child site or update point
#[utoipa::path(get, path = "/api/v1/followers/{follower}", tag = "hierarchy",
    security(("token" = ["reader"])),
    params(("follower" = String, Path, description = "Its name or id", example = "berlin")),
    responses((status = 200, description = "The follower", body = FollowerView)))]
async fn show_follower(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<FollowerView>, Problem> {
    let which = params.text("follower").to_owned();
    Ok(Json(blocking(move || view(&site, &which)).await?))
}

/// Remove a child site or update point
///
/// From now on it is refused, also on connections that are open. What it has stays there.
#[utoipa::path(delete, path = "/api/v1/followers/{follower}", tag = "hierarchy",
    security(("token" = ["admin"])),
    params(("follower" = String, Path, description = "Its name or id", example = "berlin")),
    responses((status = 200, description = "What it was", body = FollowerView)))]
async fn remove_follower(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<FollowerView>, Problem> {
    let which = params.text("follower").to_owned();
    let removed = blocking(move || {
        let removed = view(&site, &which)?;
        site.ledger()?.registry.remove_follower(&removed.id)?;
        Ok(removed)
    });
    let removed = removed.await?;
    note.target(&removed.name);
    note.detail(format!("{}, id {}", removed.kind, removed.id));
    Ok(Json(removed))
}

/// Which update point the others are to read from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "sup-2"}))]
pub struct NewPointSource {
    /// Its name or id, or `site` for the one that the site has by itself.
    pub name: String,
}

/// Replace the update point that the others read from
///
/// It reads from the site, and all others from it. They are asked to follow now, one at a time, it first.
#[utoipa::path(put, path = "/api/v1/update-point-source", tag = "hierarchy",
    operation_id = "set_update_point_source", security(("token" = ["admin"])),
    request_body = NewPointSource,
    responses((status = 200, description = "Which it is now", body = NewPointSource)))]
async fn set_source(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewPointSource>,
) -> Result<Json<NewPointSource>, Problem> {
    note.target(&new.name);
    let set = blocking(move || {
        let ledger = site.ledger()?;
        let to = match new.name.as_str() {
            OWN => None,
            name => Some(ledger.registry.follower(name)?),
        };
        let refused = |detail: String| Err(Problem::new(Kind::Conflict, detail));
        if let Some(to) = &to {
            if to.kind != FollowerKind::UpdatePoint {
                return refused(format!(
                    "{} is a child site, and no update point of this one",
                    to.name
                ));
            }
            if !to.has_synced() {
                return refused(format!("{} has no catalogue yet that others could read", to.name));
            }
        }
        tell::set_point_source(&ledger, to.as_ref())?;
        let name = to.map_or(OWN.into(), |to| to.name.to_string());
        Ok((site.updates()?, NewPointSource { name }))
    });
    let (machine, set) = set.await?;
    machine.tell_points();
    Ok(Json(set))
}

/// The place of this site in its tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "kind": "primary", "name": "berlin", "parent": ["https://top.example:8520"],
    "top": "https://top.example:8520", "synced": "2026-11-27T03:02:11Z", "last": "done",
    "addresses": ["https://berlin.example:8520"], "update_point": true, "updates": 6120, "children": 2,
    "update_points": 1, "update_point_source": "site"
}))]
pub struct SiteView {
    /// What it is: `top`, `primary`, `secondary`, or `update-point` of a site.
    pub kind: String,
    /// What its parent calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its parent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Vec<String>>,
    /// The update point that it reads from in the parent's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The site at the top of the tree, where criteria are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// When it last had all that its parent had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub synced: Option<Timestamp>,
    /// What its last sync with the parent came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Where it is reached, as far as it knows.
    pub addresses: Vec<String>,
    /// Whether this server is an update point.
    pub update_point: bool,
    /// How many updates it has.
    pub updates: u64,
    /// How many child sites it has.
    pub children: usize,
    /// How many other update points it has.
    pub update_points: usize,
    /// Which update point the others read from; `site` is the one that it has by itself.
    pub update_point_source: String,
}

/// Show the place of this site in its tree
#[utoipa::path(get, path = "/api/v1/site", tag = "hierarchy", security(("token" = ["reader"])),
    responses((status = 200, description = "The site", body = SiteView)))]
async fn show_site(State(site): State<Site>) -> Result<Json<SiteView>, Problem> {
    let view = blocking(move || {
        let (machine, ledger, parent) = (site.updates()?, site.ledger()?, site.parent()?);
        let status = match &parent {
            Some(_) => Some(machine.status_of(&Parent::source())?),
            None => None,
        };
        let followers = ledger.registry.followers();
        let children = followers.iter().filter(|it| it.kind.is_site()).count();
        let source = tell::point_source(&ledger)?;
        let parent = parent.as_ref();
        Ok(SiteView {
            kind: parent.map_or("top".into(), |parent| parent.kind().to_string()),
            name: parent.map(|parent| parent.name()),
            parent: parent.map(|parent| parent.sites()),
            via: parent.and_then(|parent| parent.via()).map(|via| via.address),
            top: machine.sources().site()?.top,
            synced: status.as_ref().and_then(|status| status.standing.succeeded),
            last: status
                .and_then(|status| status.last)
                .map(|last| last.outcome.as_str().to_owned()),
            addresses: hierarchy::own_addresses(&site),
            update_point: site.config().sync.update_point,
            updates: machine.catalogue().counts().updates,
            children,
            update_points: followers.len() - children,
            update_point_source: source.map_or(OWN.into(), |source| source.name.to_string()),
        })
    });
    Ok(Json(view.await?))
}
