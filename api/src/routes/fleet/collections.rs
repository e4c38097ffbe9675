//! Collections, for people: what they are, who is in them, when their members may be worked on.

use super::clients::{find, ordinal_after};
use super::compliance::DeviceView;
use crate::extract::{Input, Params, Query, field, parse_field};
use crate::fleet::Fleet;
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery, cursor_of};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::compliance::Ordinal;
use ::compliance::message::ClientId;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use deployment::rule::Rule;
use deployment::window::{Clock, Window, Windows};
use deployment::{Collection, CollectionName};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Clients that one request may name.
const MAX_CLIENTS: usize = 10_000;
/// Clients that a preview of a rule shows.
const SHOWN: usize = 20;
/// Times that a preview of windows shows at most.
const MOST_TIMES: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_collections, create_collection))
        .routes(routes!(show_collection, change_collection, delete_collection))
        .routes(routes!(list_members))
        .routes(routes!(change_clients))
        .routes(routes!(list_times))
        .routes(routes!(preview_rule))
}

/// A maintenance window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "start": "2026-11-28 01:00", "minutes": 180, "clock": "local", "recurrence": "monthly 2nd tue +5"
}))]
pub struct MaintenanceWindowView {
    /// The first day on which it may open, and the time at which it does, without a zone.
    pub start: String,
    /// How long it stays open, from 5 to 1440.
    #[schema(minimum = 5, maximum = 1440)]
    pub minutes: u16,
    /// `local`, the clock of each client; or `utc`.
    pub clock: String,
    /// `once`, `daily`, `weekly sat,sun`, `monthly 15`, `monthly last`, `monthly 2nd tue +5`; `weekly/2 sat` is
    /// every second week.
    pub recurrence: String,
}

impl MaintenanceWindowView {
    fn of(window: &Window) -> Self {
        Self {
            start: window.start().strftime("%Y-%m-%d %H:%M").to_string(),
            minutes: window.minutes(),
            clock: match window.clock() {
                Clock::Utc => "utc".into(),
                Clock::Local => "local".into(),
            },
            recurrence: window.recurrence().to_string(),
        }
    }

    fn window(&self, name: &str) -> Result<Window, Problem> {
        let at = |part: &str| format!("windows.{name}.{part}");
        let clock = match self.clock.as_str() {
            "utc" => Clock::Utc,
            "local" => Clock::Local,
            _ => return Err(Problem::field(at("clock"), "must be utc or local")),
        };
        let start = self.start.parse().map_err(|_| {
            Problem::field(
                at("start"),
                "must be a day and time without a zone, as 2026-11-28 01:00",
            )
        })?;
        let recurrence = field(&at("recurrence"), &self.recurrence)?;
        Window::new(start, self.minutes, clock, recurrence)
            .map_err(|error| Problem::field(at("minutes"), error.to_string()))
    }
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "web", "comment": "What serves pages", "members": 412, "clients": 2,
    "limit": "servers", "rules": {"nginx": "package in (nginx, apache2)"}, "include": [],
    "exclude": ["lab"], "windows": {"nights": {"start": "2026-11-28 01:00", "minutes": 180,
        "clock": "local", "recurrence": "weekly sat"}}
}))]
pub struct CollectionView {
    /// What it is called.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// How many clients are in it.
    pub members: u64,
    /// How many clients it names.
    pub clients: u64,
    /// Nobody is in it who is not in this one; absent if all may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Who is meant by one of these is in it.
    #[serde(default)]
    pub rules: BTreeMap<String, String>,
    /// Who is in one of these is in it.
    #[serde(default)]
    pub include: Vec<String>,
    /// Who is in one of these is not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// When its members may be worked on.
    #[serde(default)]
    pub windows: BTreeMap<String, MaintenanceWindowView>,
}

impl CollectionView {
    fn new(name: &CollectionName, it: &Collection, fleet: &Fleet, members: u64) -> Self {
        let names = |all: &BTreeSet<CollectionName>| all.iter().map(ToString::to_string).collect();
        let rules = it.rules.iter().map(|(name, rule)| (name.to_string(), rule.to_string()));
        let windows = it.windows.iter();
        Self {
            name: name.to_string(),
            comment: it.comment.clone(),
            members,
            clients: fleet.collections.direct(name).len() as u64,
            limit: it.limit.as_ref().map(ToString::to_string),
            rules: rules.collect(),
            include: names(&it.include),
            exclude: names(&it.exclude),
            windows: windows
                .map(|(name, it)| (name.to_string(), MaintenanceWindowView::of(it)))
                .collect(),
        }
    }

    fn of(name: &CollectionName, fleet: &Fleet) -> Result<Self, Problem> {
        let members = fleet.members(name)?.len();
        if name.is_all() {
            let comment = "Every client; built in".into();
            let all = Collection { comment, ..Collection::default() };
            return Ok(Self::new(name, &all, fleet, members));
        }
        Ok(Self::new(name, &fleet.collections.get(name)?, fleet, members))
    }
}

/// A collection to be made, or what is to be changed of one: what is not told stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({
    "comment": "What serves pages", "limit": "servers",
    "rules": {"nginx": "package in (nginx, apache2)", "old": null},
    "include": {"proxies": true}, "exclude": {"lab": false},
    "windows": {"nights": {"start": "2026-11-28 01:00", "minutes": 180, "clock": "local",
        "recurrence": "weekly sat"}}
}))]
pub struct CollectionChange {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Nobody is in it who is not in this one; `all` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Rules by name; null takes one away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Option<String>>,
    /// Whether it includes others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub include: BTreeMap<String, bool>,
    /// Whether it excludes others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exclude: BTreeMap<String, bool>,
    /// Maintenance windows by name; null takes one away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub windows: BTreeMap<String, Option<MaintenanceWindowView>>,
}

impl CollectionChange {
    fn make(&self, to: &mut Collection) -> Result<(), Problem> {
        if let Some(comment) = &self.comment {
            to.comment.clone_from(comment);
        }
        if let Some(limit) = &self.limit {
            let limit: CollectionName = field("limit", limit)?;
            to.limit = Some(limit).filter(|limit| !limit.is_all());
        }
        for (name, rule) in &self.rules {
            let at = format!("rules.{name}");
            let name: CollectionName = field(&at, name)?;
            match rule {
                Some(rule) => {
                    to.rules.insert(name, field(&at, rule)?);
                }
                None if to.rules.remove(&name).is_some() => {}
                None => return Err(none_such(&at, "rule")),
            }
        }
        for (what, named, others) in [
            ("include", &self.include, &mut to.include),
            ("exclude", &self.exclude, &mut to.exclude),
        ] {
            for (name, is_named) in named {
                let name: CollectionName = field(what, name)?;
                if *is_named {
                    others.insert(name)
                } else {
                    others.remove(&name)
                };
            }
        }
        for (name, window) in &self.windows {
            let at = format!("windows.{name}");
            let key: CollectionName = field(&at, name)?;
            match window {
                Some(window) => {
                    to.windows.insert(key, window.window(name)?);
                }
                None if to.windows.remove(&key).is_some() => {}
                None => return Err(none_such(&at, "window")),
            }
        }
        Ok(())
    }
}

fn none_such(at: &str, what: &str) -> Problem {
    let detail = format!("the collection has no {what} of that name");
    Problem::new(Kind::NotFound, detail.as_str()).caused_by(at, &detail)
}

/// A collection to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "web", "rules": {"nginx": "package in (nginx, apache2)"}}))]
pub struct NewCollection {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub comment: String,
    /// Nobody is in it who is not in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Who is meant by one of these is in it.
    #[serde(default)]
    pub rules: BTreeMap<String, String>,
    /// Who is in one of these is in it.
    #[serde(default)]
    pub include: Vec<String>,
    /// Who is in one of these is not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// When its members may be worked on.
    #[serde(default)]
    pub windows: BTreeMap<String, MaintenanceWindowView>,
    /// Ids or names of clients that are in it.
    #[serde(default)]
    pub clients: Vec<String>,
}

impl NewCollection {
    fn collection(self) -> Result<Collection, Problem> {
        let change = CollectionChange {
            comment: Some(self.comment),
            limit: self.limit,
            rules: self.rules.into_iter().map(|(name, rule)| (name, Some(rule))).collect(),
            include: self.include.into_iter().map(|name| (name, true)).collect(),
            exclude: self.exclude.into_iter().map(|name| (name, true)).collect(),
            windows: self.windows.into_iter().map(|(name, it)| (name, Some(it))).collect(),
        };
        let mut collection = Collection::default();
        change.make(&mut collection)?;
        Ok(collection)
    }
}

/// List collections
///
/// By name, the built-in one first.
#[utoipa::path(get, path = "/api/v1/collections", tag = "collections", security(("token" = ["reader"])),
    params(PageQuery),
    responses((status = 200, description = "A page of collections", body = Page<CollectionView>)))]
async fn list_collections(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<CollectionView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("collections")?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        fleet.follow();
        let mut all = vec![CollectionView::of(&CollectionName::all(), &fleet)?];
        let defined = fleet.collections.list().into_iter();
        all.extend(
            defined.map(|(name, it, members)| CollectionView::new(&name, &it, &fleet, members)),
        );
        // A name begins with a letter or digit, so the built-in one is before all.
        let key = |it: &CollectionView| {
            if it.name == "all" { String::new() } else { it.name.clone() }
        };
        Ok(Page::cut("collections", all, after.as_deref(), limit, key))
    });
    Ok(Json(page.await?))
}

/// Make a collection
///
/// Its members are the clients that it names, that one of its rules means, or that are in a collection which it
/// includes; of them only who is in the limiting collection, and nobody who is in one that it excludes.
#[utoipa::path(post, path = "/api/v1/collections", tag = "collections",
    security(("token" = ["operator"])), request_body = NewCollection,
    responses((status = 201, description = "The collection", body = CollectionView,
            headers(("Location" = String, description = "Its address"))),
        (status = 404, description = "A client that it names is not known: nothing is made", body = Problem)))]
async fn create_collection(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewCollection>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<CollectionView>), Problem> {
    note.target(&new.name);
    let name: CollectionName = field("name", &new.name)?;
    if new.clients.len() > MAX_CLIENTS {
        let detail = format!("names more than {MAX_CLIENTS} clients: name the others afterwards");
        return Err(Problem::field("clients", detail));
    }
    let made = blocking(move || {
        let fleet = site.fleet()?;
        let ids = ids_of(&fleet, &new.clients)?;
        fleet.collections.create_naming(name.clone(), new.collection()?, &ids, &fleet.states)?;
        CollectionView::of(&name, &fleet)
    });
    let made = made.await?;
    let location = ("location", format!("/api/v1/collections/{}", made.name));
    Ok((StatusCode::CREATED, [location], Json(made)))
}

/// Show a collection
#[utoipa::path(get, path = "/api/v1/collections/{collection}", tag = "collections",
    security(("token" = ["reader"])),
    params(("collection" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "The collection", body = CollectionView)))]
async fn show_collection(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<CollectionView>, Problem> {
    let name = params.get("collection")?;
    Ok(Json(blocking(move || CollectionView::of(&name, &*site.fleet()?)).await?))
}

/// Change a collection
///
/// What is not told stays. All that is told is done together or not at all.
#[utoipa::path(patch, path = "/api/v1/collections/{collection}", tag = "collections",
    security(("token" = ["operator"])), request_body = CollectionChange,
    params(("collection" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "The collection", body = CollectionView),
        (status = 422, description = "It cannot be so: a rule that cannot be read, another collection that \
            does not exist, or one that depends on this one", body = Problem)))]
async fn change_collection(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(change): Input<CollectionChange>,
) -> Result<Json<CollectionView>, Problem> {
    let name: CollectionName = params.get("collection")?;
    note.detail(serde_json::to_string(&change).unwrap_or_default());
    let changed = blocking(move || {
        let fleet = site.fleet()?;
        let make = |it: &mut Collection| change.make(it);
        fleet.collections.change::<Problem>(&name, &fleet.states, make)?;
        CollectionView::of(&name, &fleet)
    });
    Ok(Json(changed.await?))
}

/// Delete a collection
///
/// Not one that others include, exclude or are limited to, or that something is deployed to. The clients stay.
#[utoipa::path(delete, path = "/api/v1/collections/{collection}", tag = "collections",
    security(("token" = ["operator"])),
    params(("collection" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "What it was", body = CollectionView),
        (status = 409, description = "Others need it", body = Problem)))]
async fn delete_collection(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<CollectionView>, Problem> {
    let name = params.get("collection")?;
    let deleted = blocking(move || {
        let fleet = site.fleet()?;
        let was = CollectionView::of(&name, &fleet)?;
        if let [first, ..] = fleet.deployments.to(&name).as_slice() {
            let detail = format!(
                "collection \"{name}\" has deployments, as {first}: delete them, or give them another collection"
            );
            return Err(Problem::new(Kind::Conflict, &detail).caused_by("collection", &detail));
        }
        fleet.collections.delete(&name)?;
        Ok(was)
    });
    Ok(Json(deleted.await?))
}

/// List the members of a collection
///
/// In the order in which they came to the site.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/members", tag = "collections",
    operation_id = "list_members", security(("token" = ["reader"])), params(
        ("collection" = String, Path, description = "Its name", example = "web"), PageQuery),
    responses((status = 200, description = "A page of clients", body = Page<DeviceView>)))]
async fn list_members(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeviceView>>, Problem> {
    let name: CollectionName = params.get("collection")?;
    let (limit, after) = (query.limit()?, ordinal_after(query.after("members")?)?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let members = fleet.members(&name)?;
        let from = after.map_or(0, |after| after.saturating_add(1));
        let found: Vec<Ordinal> = members.range(from..).take(limit + 1).collect();
        let has_more = found.len() > limit;
        let shown = found.get(..limit.min(found.len())).unwrap_or_default();
        let next = shown.last().filter(|_| has_more);
        let next = next.map(|last| cursor_of("members", &last.to_string()));
        Ok(Page { items: devices(&fleet, shown.iter().copied()), next })
    });
    Ok(Json(page.await?))
}

fn devices(fleet: &Fleet, clients: impl Iterator<Item = Ordinal>) -> Vec<DeviceView> {
    let ids: Vec<_> = clients.filter_map(|it| Some((it, fleet.states.id(it)?))).collect();
    let index = fleet.states.index();
    let shown = ids.into_iter().map(|(client, id)| DeviceView {
        client: id.to_string(),
        name: index.name(client).to_owned(),
    });
    shown.collect()
}

/// Clients that a collection names, or names no more.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"add": ["pc-17", "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199"], "remove": ["pc-3"]}))]
pub struct ClientsChange {
    /// Ids or names of clients that it is to name.
    pub add: Vec<String>,
    /// Of those that it is not to name any more.
    pub remove: Vec<String>,
}

/// The ids of clients that are called so.
fn ids_of(fleet: &Fleet, all: &[String]) -> Result<Vec<ClientId>, Problem> {
    all.iter().map(|which| Ok(find(fleet, which)?.id)).collect()
}

/// Name clients in a collection
///
/// Each by its id, or by its name if no other has it. All or none: one that is not known keeps all from being
/// changed.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/clients", tag = "collections",
    operation_id = "change_collection_clients", security(("token" = ["operator"])),
    request_body = ClientsChange,
    params(("collection" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "The collection", body = CollectionView)))]
async fn change_clients(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(change): Input<ClientsChange>,
) -> Result<Json<CollectionView>, Problem> {
    let name: CollectionName = params.get("collection")?;
    if change.add.len() + change.remove.len() > MAX_CLIENTS {
        let detail = format!("names more than {MAX_CLIENTS} clients: send several requests");
        return Err(Problem::field("add", detail));
    }
    note.detail(format!("{} added, {} removed", change.add.len(), change.remove.len()));
    let changed = blocking(move || {
        let fleet = site.fleet()?;
        let (add, remove) = (ids_of(&fleet, &change.add)?, ids_of(&fleet, &change.remove)?);
        fleet.collections.name_clients(&name, &add, &remove, &fleet.states)?;
        CollectionView::of(&name, &fleet)
    });
    Ok(Json(changed.await?))
}

/// Which times are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TimesQuery {
    /// The time zone of a client, as `Europe/Paris`.
    #[param(default = "UTC")]
    zone: Option<String>,
    /// From when on; without it, from now.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// How many, at most 100.
    #[param(minimum = 1, maximum = 100, default = 10)]
    count: Option<usize>,
}

/// A time in which machines may be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"from": "2026-11-28T00:00:00Z", "until": "2026-11-28T03:00:00Z"}))]
pub struct TimeView {
    /// Its first moment.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The first one after it.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// List the times of a collection's maintenance windows
///
/// The next ones, where windows overlap or touch as one. A client that is in several collections has the windows
/// of all.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/windows", tag = "collections",
    operation_id = "list_window_times", security(("token" = ["reader"])), params(
        ("collection" = String, Path, description = "Its name", example = "web"), TimesQuery),
    responses((status = 200, description = "The times", body = Vec<TimeView>)))]
async fn list_times(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<TimesQuery>,
) -> Result<Json<Vec<TimeView>>, Problem> {
    let name: CollectionName = params.get("collection")?;
    let count = query.count.unwrap_or(10);
    if !(1..=MOST_TIMES).contains(&count) {
        let detail = format!("must be from 1 to {MOST_TIMES}, not {count}");
        return Err(Problem::malformed("count", detail));
    }
    let zone = query.zone.as_deref().unwrap_or("UTC");
    let zone = TimeZone::get(zone).map_err(|_| {
        let zone: String = zone.chars().take(60).collect();
        Problem::malformed("zone", format!("{zone:?} is no time zone that this machine knows"))
    })?;
    let now = query.from.unwrap_or_else(Timestamp::now);
    let times = blocking(move || {
        let collection = match name.is_all() {
            true => Collection::default(),
            false => site.fleet()?.collections.get(&name)?,
        };
        let windows: Vec<Window> = collection.windows.into_values().collect();
        let windows = Windows { windows: &windows, local: &zone };
        let times = windows.times(now).take(count);
        Ok(times.map(|it| TimeView { from: it.from, until: it.until }).collect())
    });
    Ok(Json(times.await?))
}

/// Which rule is tried.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RuleQuery {
    /// The rule.
    #[param(example = "os = debian and package.openssl < 3.0.15")]
    rule: String,
}

/// Whom a rule means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "rule": "os = debian", "clients": 412,
    "examples": [{"client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17"}]
}))]
pub struct RulePreview {
    /// The rule, as it is kept.
    pub rule: String,
    /// How many clients it means now.
    pub clients: u64,
    /// The first of them, at most 20.
    pub examples: Vec<DeviceView>,
}

/// Try a rule
///
/// How many clients it means, and the first of them. Nothing is kept.
#[utoipa::path(get, path = "/api/v1/collection-preview", tag = "collections",
    operation_id = "preview_collection_rule", security(("token" = ["reader"])), params(RuleQuery),
    responses((status = 200, description = "Whom it means", body = RulePreview)))]
async fn preview_rule(
    State(site): State<Site>,
    Query(query): Query<RuleQuery>,
) -> Result<Json<RulePreview>, Problem> {
    let rule: Rule = parse_field("rule", &query.rule)?;
    let preview = blocking(move || {
        let fleet = site.fleet()?;
        let clients: RoaringBitmap = {
            let index = fleet.states.index();
            rule.clients(&index, index.fleet())
        };
        let examples = devices(&fleet, clients.iter().take(SHOWN));
        Ok(RulePreview { rule: rule.to_string(), clients: clients.len(), examples })
    });
    Ok(Json(preview.await?))
}
