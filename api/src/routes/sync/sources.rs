//! Sources of updates: make, list, show with how they stand, change, remove.

use super::{RunView, TriggerView};
use crate::extract::{Input, Params, Query, parse_json};
use crate::guard::AuditNote;
use crate::mirror::{self, Mirror};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::sync::machine::{Progress, Status};
use ::sync::name::SourceName;
use ::sync::schedule::Schedule;
use ::sync::source::{Source, SourceKind};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list_sources, add_source)).routes(routes!(
        show_source,
        change_source,
        remove_source
    ))
}

/// A source of updates, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "debian-security", "kind": "apt", "settings": {"suites": ["bookworm-security"]},
    "enabled": true, "priority": 50, "created": "2026-11-22T12:00:00Z", "failures": 0,
    "waits": false, "succeeded": "2026-11-27T03:00:04Z",
    "next": {"at": "2026-11-28T03:00:00Z", "trigger": "schedule"}
}))]
pub struct SyncSourceView {
    /// What it is called.
    pub name: String,
    /// What it is: `apt`, `rpm`, `sdp` and others.
    pub kind: String,
    /// The settings of its kind.
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
    /// Whether it is synchronised.
    pub enabled: bool,
    /// Where several sources say an update, and where several wait, the one with the highest comes first.
    pub priority: u8,
    /// When it is synchronised; without it, as the site's schedule says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// The sync under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningView>,
    /// Its last sync that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<RunView>,
    /// When one succeeded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub succeeded: Option<Timestamp>,
    /// How many failed since, in ways that pass.
    pub failures: u32,
    /// When the next one begins by itself; absent, where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextView>,
    /// Whether it failed in a way that only a person can mend, so that no schedule starts it until its
    /// settings are changed, or somebody runs it.
    pub waits: bool,
    /// The packages that mirror it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrored_by: Vec<String>,
}

/// A sync under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunningView {
    /// Its number among those of its source.
    pub number: u64,
    /// Why it began.
    pub trigger: TriggerView,
    /// Who asked for it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The stage it is in: `connect`, `fetch`, `verify`, `parse`, `diff`, `commit`, `publish` or `notify`;
    /// absent while it waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "fetch")]
    pub stage: Option<String>,
    /// Bytes that came over the wire.
    pub bytes: u64,
    /// Entries that were read.
    pub entries: u64,
}

/// A sync that begins by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    pub trigger: TriggerView,
}

impl From<Progress> for RunningView {
    fn from(progress: Progress) -> Self {
        Self {
            number: progress.number,
            trigger: TriggerView::from(&progress.trigger),
            by: super::runs::who(&progress.trigger),
            since: progress.since,
            stage: progress.stage.map(|stage| stage.as_str().to_owned()),
            bytes: progress.bytes,
            entries: progress.entries,
        }
    }
}

impl SyncSourceView {
    /// One of these, as `site` has it.
    fn of(site: &Site, status: Status) -> Result<Self, Problem> {
        Ok(Self::with(status, &mirror::all(&site.ledger()?.db)?))
    }

    /// The same, where it is known what all packages mirror.
    fn with(status: Status, mirrors: &BTreeMap<String, Mirror>) -> Self {
        let Status { source, standing, last, progress, next, waits } = status;
        let kind = serde_json::to_value(&source.kind).unwrap_or_default();
        let name = source.name.to_string();
        let its = mirrors.iter().filter(|(_, mirror)| mirror.source == name);
        Self {
            mirrored_by: its.map(|(package, _)| package.clone()).collect(),
            name,
            kind: source.kind.as_str().to_owned(),
            settings: kind["settings"].as_object().cloned().unwrap_or_default(),
            enabled: source.enabled,
            priority: source.priority,
            schedule: source.schedule.map(|schedule| schedule.to_string()),
            created: source.created,
            running: progress.map(RunningView::from),
            last: last.map(RunView::from),
            succeeded: standing.succeeded,
            failures: standing.failures,
            next: next.map(|(at, trigger)| NextView { at, trigger: TriggerView::from(&trigger) }),
            waits,
        }
    }
}

/// List the sources of updates
///
/// By name, each with how it stands.
#[utoipa::path(get, path = "/api/v1/sync/sources", tag = "updates",
    operation_id = "list_sync_sources", security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of sources", body = Page<SyncSourceView>)))]
async fn list_sources(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<SyncSourceView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("sources")?);
    let all = blocking(move || Ok((site.updates()?.status()?, mirror::all(&site.ledger()?.db)?)));
    let (all, mirrors) = all.await?;
    let key = |status: &Status| status.source.name.to_string();
    let page = Page::cut("sources", all, after.as_deref(), limit, key);
    Ok(Json(page.map(|status| SyncSourceView::with(status, &mirrors))))
}

/// A source of updates to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "debian-security", "kind": "apt",
    "settings": {"base": "http://mirror.example/debian-security", "suites": ["bookworm-security"],
        "components": ["main"], "architectures": ["amd64"], "keyring": "-----BEGIN PGP …"}
}))]
pub struct NewSource {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// What it is: `apt`, `rpm`, `sdp` and others.
    pub kind: String,
    /// The settings of its kind.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
    /// Whether it is synchronised; without it, it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where several sources say an update, and where several wait, the one with the highest comes first;
    /// from 0 to 100; without it, 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub priority: Option<u8>,
    /// When it is synchronised; without it, as the site's schedule says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "every 4 hours")]
    pub schedule: Option<String>,
}

/// Add a source of updates
///
/// Only at the top site, which others take their updates from: those answer 409 with its name.
#[utoipa::path(post, path = "/api/v1/sync/sources", tag = "updates",
    operation_id = "add_sync_source", security(("token" = ["admin"])), request_body = NewSource,
    responses((status = 201, description = "The source", body = SyncSourceView,
        headers(("Location" = String, description = "The source's address")))))]
async fn add_source(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewSource>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<SyncSourceView>), Problem> {
    note.target(&new.name);
    let name: SourceName = field("name", &new.name)?;
    let kind = kind_of(&new.kind, new.settings)?;
    let mut source = Source::new(name.clone(), kind, Timestamp::now());
    source.enabled = new.enabled.unwrap_or(true);
    source.priority = new.priority.unwrap_or(Source::PRIORITY);
    source.schedule = new.schedule.as_deref().map(schedule).transpose()?;
    let location = format!("/api/v1/sync/sources/{name}");
    let view = blocking(move || {
        let machine = site.updates()?;
        super::only_at_the_top(&site, "sources are added")?;
        machine.sources().add(&source)?;
        machine.was_changed()?;
        SyncSourceView::of(&site, machine.status_of(&name)?)
    });
    Ok((StatusCode::CREATED, [("location", location)], Json(view.await?)))
}

/// Show a source of updates
#[utoipa::path(get, path = "/api/v1/sync/sources/{source}", tag = "updates",
    operation_id = "show_sync_source", security(("token" = ["reader"])),
    params(("source" = String, Path, description = "Its name", example = "debian-security")),
    responses((status = 200, description = "The source", body = SyncSourceView)))]
async fn show_source(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<SyncSourceView>, Problem> {
    let name: SourceName = params.get("source")?;
    let view = blocking(move || SyncSourceView::of(&site, site.updates()?.status_of(&name)?));
    Ok(Json(view.await?))
}

/// What to change of a source of updates. What is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"enabled": false}))]
pub struct ChangeSource {
    /// Settings of its kind, in place of all those that it has. What it synchronised counts no more: the
    /// next sync asks for everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub settings: Option<Map<String, Value>>,
    /// Whether it is synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where several sources say an update, and where several wait, the one with the highest comes first;
    /// from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub priority: Option<u8>,
    /// When it is synchronised; empty: as the site's schedule says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "every 4 hours")]
    pub schedule: Option<String>,
}

/// Change a source of updates
///
/// A sync under way goes on with what it began with; if settings are changed, what it brings is not taken.
#[utoipa::path(patch, path = "/api/v1/sync/sources/{source}", tag = "updates",
    operation_id = "change_sync_source", security(("token" = ["admin"])),
    params(("source" = String, Path, description = "Its name", example = "debian-security")),
    request_body = ChangeSource,
    responses((status = 200, description = "The source", body = SyncSourceView)))]
async fn change_source(
    State(site): State<Site>,
    params: Params,
    Input(change): Input<ChangeSource>,
) -> Result<Json<SyncSourceView>, Problem> {
    let name: SourceName = params.get("source")?;
    let schedule = match change.schedule.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(text) => Some(Some(schedule(text)?)),
    };
    let view = blocking(move || {
        let machine = site.updates()?;
        let apply = |source: &mut Source| {
            if source.kind == SourceKind::Parent && change.enabled == Some(false) {
                let detail = "this source is the parent site: without it this site would have no updates and \
                    no policy from above, so it stays enabled as long as this site follows it";
                return Err(Problem::new(Kind::Conflict, detail));
            }
            if let Some(settings) = change.settings {
                source.kind = kind_of(source.kind.as_str(), settings)?;
            }
            source.enabled = change.enabled.unwrap_or(source.enabled);
            source.priority = change.priority.unwrap_or(source.priority);
            if let Some(schedule) = schedule {
                source.schedule = schedule;
            }
            Ok::<_, Problem>(())
        };
        machine.sources().change(&name, apply, Timestamp::now())?;
        machine.was_changed()?;
        SyncSourceView::of(&site, machine.status_of(&name)?)
    });
    Ok(Json(view.await?))
}

/// Remove a source of updates
///
/// A sync under way ends. Its updates are withdrawn, except those that another source says too. Packages that
/// mirror it keep their versions, and get no new ones.
#[utoipa::path(delete, path = "/api/v1/sync/sources/{source}", tag = "updates",
    operation_id = "remove_sync_source", security(("token" = ["admin"])),
    params(("source" = String, Path, description = "Its name", example = "debian-security")),
    responses((status = 200, description = "What it was", body = SyncSourceView)))]
async fn remove_source(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<SyncSourceView>, Problem> {
    let name: SourceName = params.get("source")?;
    let called = name.clone();
    let looked = blocking(move || {
        let machine = site.updates()?;
        let status = machine.status_of(&called)?;
        if status.source.kind == SourceKind::Parent {
            let detail = "this source is the parent site: it stays as long as this site follows it";
            return Err(Problem::new(Kind::Conflict, detail));
        }
        Ok((machine, SyncSourceView::of(&site, status)?))
    });
    let (machine, view) = looked.await?;
    machine.remove(&name).await?;
    Ok(Json(SyncSourceView { running: None, next: None, ..view }))
}

/// A kind of source with its settings; what is wrong names the setting.
fn kind_of(kind: &str, settings: Map<String, Value>) -> Result<SourceKind, Problem> {
    if kind == "parent" {
        let detail = "is the parent site, which `depot serve --parent` sets";
        return Err(Problem::field("kind", detail));
    }
    let text = json!({ "kind": kind, "settings": settings }).to_string();
    let kind = parse_json(text.as_bytes()).map_err(|mut problem| {
        // The kind itself has no path.
        if let Some(error) = problem.errors.first_mut().filter(|error| error.field == "body") {
            error.field = "kind".into();
            problem.detail = format!("kind {}", error.detail);
        }
        problem
    })?;
    // Not where sources are read: one that was made before goes on.
    if let SourceKind::Sdp(settings) | SourceKind::ScanCab(settings) = &kind
        && settings.trust.unsigned
        && !settings.trust.signers.is_empty()
    {
        let detail = "has unsigned and signers, which contradict each other: leave one out";
        return Err(Problem::field("settings.trust", detail));
    }
    Ok(kind)
}

pub(super) fn schedule(text: &str) -> Result<Schedule, Problem> {
    field("schedule", text)
}

fn field<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| {
        let detail = error.to_string();
        Problem::new(Kind::InvalidValue, detail.clone()).caused_by(name, detail)
    })
}
