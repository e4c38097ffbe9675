//! What is set for all sources: which updates are wanted, and when they are synchronised.

use super::sources::schedule;
use crate::extract::Input;
use crate::guard::AuditNote;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use ::sync::adapter::Criteria;
use ::sync::source::SiteSettings;
use axum::Json;
use axum::extract::{Extension, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_criteria, set_criteria))
        .routes(routes!(show_schedule, set_schedule))
}

/// Which updates are wanted at all. An empty list wants all of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({
    "classifications": ["security", "critical"], "products": ["debian-12"], "languages": ["en"]
}))]
pub struct CriteriaView {
    /// Of these classifications: `critical`, `definition`, `feature-pack`, `security`, `service-pack`, `tool`,
    /// `rollup`, `update`, `upgrade` and others.
    pub classifications: Vec<String>,
    /// For these products or families, by id or name.
    pub products: Vec<String>,
    /// In these languages.
    pub languages: Vec<String>,
    /// The site at the top of the tree, where criteria are set, if this one is not. Only in answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
}

impl From<SiteSettings> for CriteriaView {
    fn from(site: SiteSettings) -> Self {
        let Criteria { classifications, products, languages } = site.criteria;
        Self {
            classifications: classifications.iter().map(ToString::to_string).collect(),
            products: products.into_iter().collect(),
            languages: languages.iter().map(ToString::to_string).collect(),
            top: site.top,
        }
    }
}

impl CriteriaView {
    fn criteria(&self) -> Result<Criteria, Problem> {
        Ok(Criteria {
            classifications: parsed("classifications", &self.classifications)?,
            products: self.products.iter().cloned().collect(),
            languages: parsed("languages", &self.languages)?,
        })
    }
}

fn parsed<T, C>(field: &str, words: &[String]) -> Result<C, Problem>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    C: FromIterator<T>,
{
    let parse = |(n, word): (usize, &String)| {
        word.parse().map_err(|error: T::Err| {
            let detail = error.to_string();
            let kind = crate::problem::Kind::InvalidValue;
            Problem::new(kind, detail.clone()).caused_by(format!("{field}[{n}]"), detail)
        })
    };
    words.iter().enumerate().map(parse).collect()
}

/// Show which updates are wanted
#[utoipa::path(get, path = "/api/v1/sync/criteria", tag = "updates",
    operation_id = "show_sync_criteria", security(("token" = ["reader"])),
    responses((status = 200, description = "The criteria", body = CriteriaView)))]
async fn show_criteria(State(site): State<Site>) -> Result<Json<CriteriaView>, Problem> {
    let view = blocking(move || Ok(site.updates()?.sources().site()?.into()));
    Ok(Json(view.await?))
}

/// Set which updates are wanted
///
/// In place of all that was set. The next sync of each source asks for everything; updates that the
/// criteria leave out from then on are expired. Only at the top site: others answer 409 with its name.
#[utoipa::path(put, path = "/api/v1/sync/criteria", tag = "updates",
    operation_id = "set_sync_criteria", security(("token" = ["admin"])),
    request_body = CriteriaView,
    responses((status = 200, description = "The criteria", body = CriteriaView)))]
async fn set_criteria(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(view): Input<CriteriaView>,
) -> Result<Json<CriteriaView>, Problem> {
    let criteria = view.criteria()?;
    let n = criteria.classifications.len() + criteria.products.len() + criteria.languages.len();
    note.detail(format!("{n} words"));
    let view = blocking(move || {
        let machine = site.updates()?;
        machine.sources().set_criteria(criteria)?;
        machine.was_changed()?;
        Ok(machine.sources().site()?.into())
    });
    Ok(Json(view.await?))
}

/// When sources are synchronised that do not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"schedule": "every day 03:00 Europe/Berlin"}))]
pub struct ScheduleView {
    /// A sentence: `every day 03:00 Europe/Berlin`, `every monday and thursday 02:30 Europe/Paris`, `second
    /// tuesday 19:00 UTC`, `day 31 23:00 UTC`, `every 4 hours`, `never`.
    pub schedule: String,
    /// The next time. Only in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
}

impl From<SiteSettings> for ScheduleView {
    fn from(site: SiteSettings) -> Self {
        let next = site.schedule.next(Timestamp::now()).unwrap_or_default();
        Self { schedule: site.schedule.to_string(), next }
    }
}

/// Show when sources are synchronised that do not say otherwise
#[utoipa::path(get, path = "/api/v1/sync/schedule", tag = "updates",
    operation_id = "show_sync_schedule", security(("token" = ["reader"])),
    responses((status = 200, description = "The schedule", body = ScheduleView)))]
async fn show_schedule(State(site): State<Site>) -> Result<Json<ScheduleView>, Problem> {
    let view = blocking(move || Ok(site.updates()?.sources().site()?.into()));
    Ok(Json(view.await?))
}

/// Set when sources are synchronised that do not say otherwise
///
/// Only at the top site: others, which are told by their parents, answer 409 with its name.
#[utoipa::path(put, path = "/api/v1/sync/schedule", tag = "updates",
    operation_id = "set_sync_schedule", security(("token" = ["admin"])),
    request_body = ScheduleView,
    responses((status = 200, description = "The schedule", body = ScheduleView)))]
async fn set_schedule(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(view): Input<ScheduleView>,
) -> Result<Json<ScheduleView>, Problem> {
    let schedule = schedule(&view.schedule)?;
    note.detail(schedule.to_string());
    let view = blocking(move || {
        let machine = site.updates()?;
        super::only_at_the_top(&site, "the schedule of sources is set")?;
        machine.sources().set_schedule(schedule, Timestamp::now())?;
        machine.was_changed()?;
        Ok(machine.sources().site()?.into())
    });
    Ok(Json(view.await?))
}
