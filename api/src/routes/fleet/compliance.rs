//! Compliance, for people: on how many clients updates are required, and on which. Where that is not known is told in
//! [`super::unknown`].

use super::clients::ordinal_after;
use crate::extract::{Params, Query, parse_field};
use crate::hierarchy::forward::PAGE;
use crate::page::{Page, PageQuery, cursor_of};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::compliance::message::State as UpdateState;
use ::compliance::summary::Counts;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use deployment::GroupName;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sync::name::UpdateId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most days of a trend.
const MOST_DAYS: i32 = 400;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_summary))
        .routes(routes!(show_group_compliance))
        .routes(routes!(list_devices))
        .routes(routes!(show_trend))
        .routes(routes!(list_quarantine))
        .routes(routes!(export_states))
}

/// On how many clients an update has each state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"required": 17, "not_required": 800, "installed": 181, "unknown": 2}))]
pub struct CountsView {
    /// It is applicable, and not or not yet wholly installed.
    pub required: u64,
    /// It is not applicable.
    pub not_required: u64,
    /// It is installed.
    pub installed: u64,
    /// Nothing is known: `/compliance/updates/{update}/unknown` says why.
    pub unknown: u64,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        let Counts { required, not_required, installed, unknown } = counts;
        Self { required, not_required, installed, unknown }
    }
}

/// The counts of one update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "update": "7c1f0c3a-8a52-5e1f-9a57-0d3b1f2e4c5d", "name": "DSA-5545-1", "title": "openssl security update",
    "required": 17, "not_required": 800, "installed": 181, "unknown": 2
}))]
pub struct SummaryView {
    /// Which.
    pub update: String,
    /// What its upstream calls it; absent if the catalogue does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The counts.
    #[serde(flatten)]
    pub counts: CountsView,
}

/// Which updates are summed up.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SummaryQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only this update, by id or name.
    update: Option<String>,
    /// Only the updates of this group, those too that no client reported on.
    group: Option<String>,
    /// Only of this collection.
    collection: Option<String>,
}

/// How many clients have all updates of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "group": "november", "updates": 37, "compliant": 380, "non_compliant": 25, "unknown": 7
}))]
pub struct GroupComplianceView {
    /// The group.
    pub group: String,
    /// How many updates it has.
    pub updates: u64,
    /// Each is installed or not required.
    pub compliant: u64,
    /// One at least is required.
    pub non_compliant: u64,
    /// None is known to be required, but one at least is unknown.
    pub unknown: u64,
}

/// Which clients count.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GroupQuery {
    /// Only those of this collection.
    collection: Option<String>,
}

/// Sum up compliance with a group of updates
#[utoipa::path(get, path = "/api/v1/compliance/groups/{group}", tag = "compliance",
    operation_id = "show_group_compliance", security(("token" = ["reader"])), params(
        ("group" = String, Path, description = "Its name", example = "november"), GroupQuery),
    responses((status = 200, description = "The counts", body = GroupComplianceView)))]
async fn show_group_compliance(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<GroupQuery>,
) -> Result<Json<GroupComplianceView>, Problem> {
    let name: GroupName = params.get("group")?;
    let view = blocking(move || {
        let fleet = site.fleet()?;
        let scope = fleet.scope(query.collection.as_deref())?;
        let updates: Vec<UpdateId> = fleet.deployments.group(&name)?.ids().collect();
        let counts = fleet.states.group(&updates, scope.as_deref());
        Ok(GroupComplianceView {
            group: name.to_string(),
            updates: updates.len() as u64,
            compliant: counts.compliant,
            non_compliant: counts.non_compliant,
            unknown: counts.unknown,
        })
    });
    Ok(Json(view.await?))
}

/// Sum up compliance
///
/// For each update that clients reported on, those that most clients require first.
#[utoipa::path(get, path = "/api/v1/compliance/summary", tag = "compliance",
    operation_id = "show_compliance_summary", security(("token" = ["reader"])), params(SummaryQuery),
    responses((status = 200, description = "A page of counts", body = Page<SummaryView>),
        (status = 404, description = "There is no such collection or update", body = Problem)))]
async fn show_summary(
    State(site): State<Site>,
    Query(query): Query<SummaryQuery>,
) -> Result<Json<Page<SummaryView>>, Problem> {
    let SummaryQuery { limit, cursor, update, group, collection } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, page.after("compliance")?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let scope = fleet.scope(collection.as_deref())?;
        let scope = scope.as_deref();
        let of = |ids: Vec<UpdateId>| -> Vec<(UpdateId, Counts)> {
            let counts = fleet.states.summary(&ids, scope);
            ids.into_iter().zip(counts).collect()
        };
        let mut counts: Vec<(UpdateId, Counts)> = match (update, group) {
            (Some(_), Some(_)) => {
                return Err(Problem::malformed("group", "and `update` cannot both be told"));
            }
            (Some(which), None) => of(vec![find_update(&site, &which)?]),
            (None, Some(group)) => {
                let group: GroupName = parse_field("group", &group)?;
                of(fleet.deployments.group(&group)?.ids().collect())
            }
            (None, None) => fleet.states.summary_of_all(scope).into_iter().collect(),
        };
        let rank =
            |(id, counts): &(UpdateId, Counts)| format!("{:020}{id}", u64::MAX - counts.required);
        counts.sort_by_cached_key(rank);
        let page = Page::cut("compliance", counts, after.as_deref(), limit, rank);
        let updates = site.updates()?;
        let catalogue = updates.catalogue();
        let mut items = Vec::with_capacity(page.items.len());
        for (id, counts) in page.items {
            let shown = catalogue.entry(id)?.map(|entry| entry.update);
            items.push(SummaryView {
                update: id.to_string(),
                name: shown.as_ref().map(|it| it.name.clone()),
                title: shown.as_ref().and_then(|it| Some(it.text(&[])?.title.clone())),
                counts: counts.into(),
            });
        }
        Ok(Page { items, next: page.next })
    });
    Ok(Json(page.await?))
}

/// The update of that id or name.
pub(super) fn find_update(site: &Site, which: &str) -> Result<UpdateId, Problem> {
    Ok(site.updates()?.catalogue().get(which)?.update.id)
}

/// A client on which an update has the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17"}))]
pub struct DeviceView {
    /// Its id.
    pub client: String,
    /// What people call it.
    pub name: String,
}

/// Which clients are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UpdateDevicesQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// `required`, `not-required`, `installed` or `unknown`.
    #[param(default = "required")]
    state: Option<String>,
    /// Only of this collection.
    collection: Option<String>,
}

/// List the clients on which an update has a state
#[utoipa::path(get, path = "/api/v1/compliance/updates/{update}/devices", tag = "compliance",
    operation_id = "list_devices", security(("token" = ["reader"])), params(
        ("update" = String, Path, description = "Its id or name", example = "DSA-5545-1"), UpdateDevicesQuery),
    responses((status = 200, description = "A page of clients", body = Page<DeviceView>)))]
async fn list_devices(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<UpdateDevicesQuery>,
) -> Result<Json<Page<DeviceView>>, Problem> {
    let UpdateDevicesQuery { limit, cursor, state, collection } = query;
    let page = PageQuery { limit, cursor };
    let (limit, after) = (page.limit()?, ordinal_after(page.after("devices")?)?);
    let state: UpdateState = state
        .map_or(Ok(UpdateState::Required), |text| serde_json::from_value(text.into()))
        .map_err(|_| {
            Problem::malformed("state", "must be required, not-required, installed or unknown")
        })?;
    let which = params.text("update").to_owned();
    let page = blocking(move || {
        let update = find_update(&site, &which)?;
        let fleet = site.fleet()?;
        let scope = fleet.scope(collection.as_deref())?;
        let found = fleet.states.devices(update, state, scope.as_deref(), (after, limit + 1));
        let next = found.get(limit).and_then(|_| found.get(limit.checked_sub(1)?));
        let next = next.map(|(ordinal, _)| cursor_of("devices", &ordinal.to_string()));
        let mut items = Vec::new();
        for (ordinal, id) in found.into_iter().take(limit) {
            let name = fleet.states.client(ordinal)?.map(|client| client.name).unwrap_or_default();
            items.push(DeviceView { client: id.to_string(), name });
        }
        Ok(Page { items, next })
    });
    Ok(Json(page.await?))
}

/// Which days are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TrendQuery {
    /// How many days up to today, at most 400.
    #[param(minimum = 1, maximum = 400, default = 30)]
    days: Option<i32>,
}

/// The counts of an update on one day, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "day": "2026-11-27", "required": 17, "not_required": 800, "installed": 181, "unknown": 2
}))]
pub struct DayView {
    /// Which day.
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The counts.
    #[serde(flatten)]
    pub counts: CountsView,
}

/// Show how an update's counts went from day to day
///
/// The oldest first; the last is today, as it is now. Days on which the site did not run are left out.
#[utoipa::path(get, path = "/api/v1/compliance/updates/{update}/trend", tag = "compliance",
    operation_id = "show_trend", security(("token" = ["reader"])), params(
        ("update" = String, Path, description = "Its id or name", example = "DSA-5545-1"), TrendQuery),
    responses((status = 200, description = "The days", body = Vec<DayView>)))]
async fn show_trend(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<TrendQuery>,
) -> Result<Json<Vec<DayView>>, Problem> {
    let days = query.days.unwrap_or(30);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::malformed(
            "days",
            format!("must be from 1 to {MOST_DAYS}, not {days}"),
        ));
    }
    let which = params.text("update").to_owned();
    let trend = blocking(move || {
        let update = find_update(&site, &which)?;
        let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let first = today.saturating_sub(jiff::Span::new().days(days - 1));
        let fleet = site.fleet()?;
        let mut trend = fleet.states.trend(update, first..=today)?;
        // Of this day, what is so now.
        trend.extend(fleet.states.summary(&[update], None).into_iter().map(|now| (today, now)));
        Ok(trend.into_iter().map(|(day, counts)| DayView { day, counts: counts.into() }).collect())
    });
    Ok(Json(trend.await?))
}

/// A batch that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "number": 4, "client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "at": "2026-11-28T12:00:00Z",
    "reason": "it ends early", "size": 1812
}))]
pub struct HeldView {
    /// Its number in quarantine.
    pub number: u64,
    /// Who sent it.
    pub client: String,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes, of which the first 64 KiB are kept.
    pub size: u64,
}

/// List batches that could not be read
///
/// The newest first; the last thousand are kept. Their clients are asked for a full state.
#[utoipa::path(get, path = "/api/v1/compliance/quarantine", tag = "compliance",
    operation_id = "list_quarantine", security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of batches", body = Page<HeldView>)))]
async fn list_quarantine(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<HeldView>>, Problem> {
    let (limit, before) = (query.limit()?, query.after("quarantine")?);
    let before: Option<u64> = before
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| Problem::new(Kind::MalformedRequest, "the cursor is not one of this list"))?;
    let page = blocking(move || {
        let held = site.fleet()?.states.quarantined(before, limit + 1)?;
        let views = held.into_iter().map(|held| HeldView {
            number: held.number,
            client: held.client.to_string(),
            at: held.at,
            reason: held.reason,
            size: held.size,
        });
        Ok(Page::of("quarantine", views.collect(), limit, |it| it.number.to_string()))
    });
    Ok(Json(page.await?))
}

/// After which place states are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatesQuery {
    /// The `next` of the page before; without it, all from the beginning.
    #[param(default = 0)]
    after: Option<u64>,
}

/// Export the states of all clients
///
/// A page of clients that changed after a place, each with its whole state, as `compliance/PROTOCOL.md`
/// describes it. Whoever reads page after page has what the site has, and afterwards what changes.
#[utoipa::path(get, path = "/api/v1/compliance/states", tag = "compliance",
    operation_id = "export_states", security(("token" = ["reader"])), params(StatesQuery),
    responses((status = 200, description = "A page", content_type = PAGE, body = Vec<u8>,
        example = json!("(binary)"))))]
async fn export_states(
    State(site): State<Site>,
    Query(query): Query<StatesQuery>,
) -> Result<Response, Problem> {
    let page = blocking(move || {
        let page = site.fleet()?.states.page(query.after.unwrap_or(0))?;
        page.encode().map_err(|error| Problem::internal(&error))
    });
    Ok(([(header::CONTENT_TYPE, PAGE)], page.await?).into_response())
}
