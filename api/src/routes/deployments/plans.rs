//! Deployments, for people: make, list, show, change, delete; and what making one would come to.

use crate::auth::Identity;
use crate::deployed::{Content, DeployedState};
use crate::deployment_package::{self, Bring};
use crate::downloads::DownloadView;
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{result_of, start};
use crate::routes::updates::NamedUpdate;
use crate::site::{Site, blocking};
use ::sync::lifecycle::State as LifeState;
use ::sync::name::UpdateId;
use ::sync::taxonomy::Language;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use contentlib::Progress;
use deployment::policy::{DeploymentId, Experience, When};
use deployment::{CollectionName, Deployment, DeploymentName, GroupName};
use jiff::Timestamp;
use packager::name::PackageName;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Updates that a message or a preview names.
const NAMED: usize = 20;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_deployments, create_deployment))
        .routes(routes!(preview_deployment))
        .routes(routes!(show_deployment, change_deployment, delete_deployment))
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0199f0c2-a7b1-4e0d-8455-a7b1e0d30199", "name": "november-pilot", "group": "november",
    "collection": "pilot", "enabled": true, "available": "2026-12-01T20:00:00Z",
    "deadline": "2026-12-03T03:00:00Z", "created": "2026-11-28T09:00:00Z", "alert_below": 90,
    "updates": 37, "told": 37, "targets": 412, "content": "held", "missing": 0, "left_out": {},
    "experience": {"visibility": "all", "suppress_restart": {"servers": true, "workstations": false},
        "outside_windows": {"install": false, "restart": false}, "commit": true,
        "rescan_after_restart": false, "predownload": false, "grace": false, "spread": true,
        "max_run_time": null, "detail": "all"}
}))]
pub struct DeploymentView {
    /// Which.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The group of updates.
    pub group: String,
    /// The collection of machines.
    pub collection: String,
    /// Whether clients are told of it.
    pub enabled: bool,
    /// From when updates may be installed: with a zone the same moment everywhere, without one by the clock of each
    /// client.
    pub available: String,
    /// When they must be; absent of an optional deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How it is carried out on a machine.
    #[schema(value_type = Object)]
    pub experience: Experience,
    /// Below which percentage of compliance a warning is given, once the deadline is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_below: Option<u8>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// How many updates its group has.
    pub updates: u64,
    /// How many clients are told of, parts of bundles among them.
    pub told: u64,
    /// How many clients it is for.
    pub targets: u64,
    /// `held`, or `missing` if files of one update at least are in no package.
    pub content: Content,
    /// Of how many updates files are in no package.
    pub missing: u64,
    /// How many updates of the group clients are not told of, by why: `expired`, `licence` (nobody accepted their
    /// terms), `metadata-only` (there is nothing to install), `unknown` (the catalogue does not have it).
    #[serde(default)]
    pub left_out: BTreeMap<String, u64>,
    /// Why clients are told nothing of it, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl DeploymentView {
    fn of(site: &Site, id: DeploymentId, it: &Deployment) -> Result<Self, Problem> {
        let (fleet, shown) = (site.fleet()?, site.deployed().look(site)?);
        let state = shown.states.get(&id).cloned().unwrap_or_default();
        let targets = fleet.collections.members(&it.collection, &fleet.states);
        let updates = fleet.deployments.group(&it.group)?.updates.len() as u64;
        let DeployedState { told, missing, left_out, problem } = state;
        let mut reasons = BTreeMap::new();
        for why in left_out.values() {
            *reasons.entry(why.word().to_owned()).or_default() += 1;
        }
        Ok(Self {
            id: id.to_string(),
            name: it.name.to_string(),
            comment: it.comment.clone(),
            group: it.group.to_string(),
            collection: it.collection.to_string(),
            enabled: it.enabled,
            available: it.available.to_string(),
            deadline: it.deadline.map(|at| at.to_string()),
            experience: it.experience.clone(),
            alert_below: it.alert_below,
            created: it.created,
            updates,
            told: told as u64,
            targets: targets.map(|members| members.len()).unwrap_or_default(),
            content: if missing.is_empty() { Content::Held } else { Content::Missing },
            missing: missing.len() as u64,
            left_out: reasons,
            problem,
        })
    }
}

/// A deployment to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "group": "november", "collection": "pilot", "available": "2026-12-01T20:00:00Z",
    "deadline": "2026-12-03T03:00:00Z", "experience": {"suppress_restart": {"servers": true}},
    "alert_below": 90
}))]
pub struct NewDeployment {
    /// The group of updates. What comes into it later is deployed, too.
    pub group: String,
    /// The collection of machines. Who comes into it later gets the updates, too.
    pub collection: String,
    /// What people call it; without it, after group and collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// From when updates may be installed: with a zone the same moment everywhere, without one by the clock of each
    /// client; without it, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// When they must be; without it, the deployment is optional: they wait for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How it is carried out; what is not told is as by default.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub experience: Experience,
    /// Whether clients are told of it at once.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Below which percentage of compliance a warning is given, once the deadline is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub alert_below: Option<u8>,
    /// Accept the terms of all updates that have any.
    #[serde(default)]
    pub accept_licences: bool,
    /// Make it though files of updates are in no package: machines cannot get those.
    #[serde(default)]
    pub allow_missing: bool,
    /// Bring files that are in no package into this one first; it is made if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Of files that are for one language alone, bring those for these; all, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
}

fn yes() -> bool {
    true
}

impl NewDeployment {
    fn deployment(&self, site: &Site, now: Timestamp) -> Result<Deployment, Problem> {
        let fleet = site.fleet()?;
        let group: GroupName = field("group", &self.group)?;
        let collection: CollectionName = field("collection", &self.collection)?;
        let name = match &self.name {
            Some(name) => field("name", name)?,
            None => fleet.deployments.free_name(&group, &collection),
        };
        fleet.deployments.group(&group)?;
        fleet.members(&collection)?;
        if fleet.deployments.all().values().any(|it| it.name == name) {
            return Err(deployment::DeploymentError::Exists(name).into());
        }
        let when = |name: &str, text: &String| field::<When>(name, text);
        let deadline = self.deadline.as_ref().map(|text| when("deadline", text)).transpose()?;
        let available = match (&self.available, deadline) {
            (Some(text), _) => when("available", text)?,
            // By the clocks of clients, the first that show a time do so half a day before others do.
            (None, Some(When::Local(_))) => {
                let early = now.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(-12)));
                When::Local(early.datetime())
            }
            (None, _) => When::Utc(now),
        };
        let it = Deployment {
            name,
            comment: self.comment.clone(),
            group,
            collection,
            available,
            deadline,
            experience: self.experience.clone(),
            enabled: self.enabled,
            alert_below: self.alert_below,
            created: now,
        };
        it.check().map_err(deployment::DeploymentError::from)?;
        Ok(it)
    }
}

/// What a deployment would come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "november-pilot", "updates": 37, "targets": 412, "without_windows": 12, "missing": 1,
    "missing_updates": [{"id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1"}],
    "expired": 0, "superseded": 2, "metadata_only": 0, "licences": []
}))]
pub struct DeploymentPreview {
    /// What it would be called.
    pub name: String,
    /// How many updates the group has.
    pub updates: u64,
    /// How many clients are in the collection.
    pub targets: u64,
    /// Those of them that have no maintenance window: they may be changed at any time.
    pub without_windows: u64,
    /// Of how many updates files are in no package.
    pub missing: u64,
    /// The first of these.
    pub missing_updates: Vec<NamedUpdate>,
    /// How many updates are expired: clients are not told of them.
    pub expired: u64,
    /// How many are superseded.
    pub superseded: u64,
    /// How many have nothing to install.
    pub metadata_only: u64,
    /// The updates with terms that nobody accepted yet.
    pub licences: Vec<NamedUpdate>,
}

/// What is to be known before a deployment is made.
struct Look {
    preview: DeploymentPreview,
    /// Those whose files are in no package, but for those that clients are not told of anyway.
    missing: Vec<UpdateId>,
    /// Terms that nobody accepted.
    licences: BTreeSet<String>,
}

impl Look {
    fn at(site: &Site, it: &Deployment) -> Result<Self, Problem> {
        let (fleet, updates) = (site.fleet()?, site.updates()?);
        let catalogue = updates.catalogue();
        let group = fleet.deployments.group(&it.group)?;
        let ids: Vec<UpdateId> = group.ids().collect();
        let mut preview = DeploymentPreview {
            name: it.name.to_string(),
            updates: ids.len() as u64,
            ..DeploymentPreview::default()
        };
        let members = fleet.members(&it.collection)?;
        preview.targets = members.len();
        let mut served = roaring::RoaringBitmap::new();
        for (_, clients, _) in fleet.collections.with_windows() {
            served |= &*clients;
        }
        preview.without_windows = (&*members - served).len();
        let (mut missing, mut live) = (Vec::new(), Vec::new());
        let contents = site.deployed().contents(site, &ids, None)?;
        for (id, standing) in ids.iter().zip(catalogue.standings(ids.iter().copied())) {
            match standing.map(|standing| standing.state) {
                None => {}
                Some(LifeState::Expired) => preview.expired += 1,
                Some(state) => {
                    preview.superseded += u64::from(state == LifeState::Superseded);
                    match contents.get(id) {
                        Some(Content::Held) => live.push(*id),
                        Some(Content::None) => preview.metadata_only += 1,
                        Some(Content::Missing) | None => {
                            live.push(*id);
                            missing.push(*id);
                        }
                    }
                }
            }
        }
        let licences = site.deployed().licences(site, live)?;
        let mut open = licences;
        open.retain(|_, licence| !fleet.deployments.is_accepted(licence));
        preview.missing = missing.len() as u64;
        preview.missing_updates = named(site, missing.iter().copied().take(NAMED))?;
        preview.licences = named(site, open.keys().copied().take(NAMED))?;
        Ok(Self { preview, missing, licences: open.into_values().collect() })
    }

    /// Whether it may be made.
    fn check(&self, new: &NewDeployment) -> Result<(), Problem> {
        let preview = &self.preview;
        let installable = preview.updates - preview.expired - preview.metadata_only;
        if preview.updates > 0 && installable == 0 {
            let detail = "every update of the group is expired or has nothing to install: no machine may get one";
            return Err(Problem::new(Kind::Conflict, detail).caused_by("group", detail));
        }
        if !self.licences.is_empty() && !new.accept_licences {
            let detail = format!(
                "{} has terms that nobody accepted: accept_licences (--accept-licences) accepts them",
                list(&preview.licences, preview.licences.len() as u64)
            );
            return Err(Problem::new(Kind::Conflict, &detail).caused_by("accept_licences", &detail));
        }
        if !self.missing.is_empty() && !new.allow_missing && new.package.is_none() {
            return Err(self.missing_problem());
        }
        Ok(())
    }

    fn missing_problem(&self) -> Problem {
        let detail = format!(
            "files of {} are in no package, so that no machine could get them: name a package \
             (--package) to bring them first, or allow_missing (--allow-missing)",
            list(&self.preview.missing_updates, self.preview.missing)
        );
        Problem::new(Kind::Conflict, &detail).caused_by("package", &detail)
    }
}

/// Updates in words: the first of them, and how many more.
fn list(updates: &[NamedUpdate], all: u64) -> String {
    let names: Vec<&str> = updates.iter().map(|it| it.name.as_str()).collect();
    let more = all.saturating_sub(names.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

fn named(site: &Site, ids: impl Iterator<Item = UpdateId>) -> Result<Vec<NamedUpdate>, Problem> {
    let ids: Vec<UpdateId> = ids.collect();
    let listed = site.updates()?.catalogue().listed(&ids, &site.fleet()?.states)?;
    let shown =
        listed.into_iter().map(|it| NamedUpdate { id: it.id.to_string(), name: it.card.name });
    Ok(shown.collect())
}

/// List deployments
///
/// In the order of their names.
#[utoipa::path(get, path = "/api/v1/deployments", tag = "deployments",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of deployments", body = Page<DeploymentView>)))]
async fn list_deployments(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeploymentView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("deployments")?);
    let page = blocking(move || {
        let mut all: Vec<(DeploymentId, Arc<Deployment>)> =
            site.fleet()?.deployments.all().into_iter().collect();
        all.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let key = |(_, it): &(DeploymentId, Arc<Deployment>)| it.name.to_string();
        let page = Page::cut("deployments", all, after.as_deref(), limit, key);
        let mut items = Vec::with_capacity(page.items.len());
        for (id, it) in page.items {
            items.push(DeploymentView::of(&site, id, &it)?);
        }
        Ok(Page { items, next: page.next })
    });
    Ok(Json(page.await?))
}

/// Say what a deployment would come to
///
/// Nothing is made.
#[utoipa::path(post, path = "/api/v1/deployment-preview", tag = "deployments",
    operation_id = "preview_deployment", security(("token" = ["reader"])),
    request_body = NewDeployment, extensions(("x-unaudited" = json!(true))),
    responses((status = 200, description = "What it would come to", body = DeploymentPreview),
        (status = 404, description = "There is no such group or collection", body = Problem)))]
async fn preview_deployment(
    State(site): State<Site>,
    Input(new): Input<NewDeployment>,
) -> Result<Json<DeploymentPreview>, Problem> {
    let preview = blocking(move || {
        let it = new.deployment(&site, Timestamp::now())?;
        Ok(Look::at(&site, &it)?.preview)
    });
    Ok(Json(preview.await?))
}

/// What came of the download before a deployment, and the deployment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DownloadedDeployment {
    /// The deployment.
    pub deployment: DeploymentView,
    /// What became of files that were missing.
    pub download: DownloadView,
}

/// Make a deployment
///
/// The machines of the collection get the updates of the group. 409 if files of updates are in no package, unless a
/// package is named: then a job brings them first (202), whose result is a `DownloadedDeployment`, and makes the
/// deployment if all came. 409 too if nobody accepted the terms of an update. Updates that are expired are not deployed.
#[utoipa::path(post, path = "/api/v1/deployments", tag = "deployments",
    security(("token" = ["operator"])), request_body = NewDeployment,
    responses((status = 201, description = "The deployment", body = DeploymentView,
            headers(("Location" = String, description = "Its address"))),
        (status = 202, description = "The job that brings files first", body = Job,
            headers(("Location" = String, description = "The job's address"))),
        (status = 404, description = "There is no such group or collection", body = Problem),
        (status = 409, description = "Files are missing, or terms are not accepted", body = Problem)))]
async fn create_deployment(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewDeployment>,
) -> Result<Response, Problem> {
    note.target(format!("{} to {}", new.group, new.collection));
    let language = |tag: &String| field::<Language>("languages", tag);
    let languages = new.languages.iter().map(language).collect::<Result<_, _>>()?;
    let package = new.package.as_ref().map(|name| field::<PackageName>("package", name));
    let package = package.transpose()?;
    let (of, asked, by) = (site.clone(), new.clone(), identity.name.clone());
    let (it, look) = blocking(move || {
        let now = Timestamp::now();
        let it = asked.deployment(&of, now)?;
        let look = Look::at(&of, &it)?;
        look.check(&asked)?;
        of.fleet()?.deployments.accept(look.licences.iter().cloned(), &by, now)?;
        Ok((it, look))
    })
    .await?;
    if !look.licences.is_empty() {
        note.detail(format!("accepted the terms {:?}", look.licences));
    }
    let package = package.filter(|_| !look.missing.is_empty());
    let Some(package) = package else {
        let made = blocking(move || make(&site, it)).await?;
        let location = ("location", format!("/api/v1/deployments/{}", made.id));
        return Ok((StatusCode::CREATED, [location], Json(made)).into_response());
    };
    let wanted = Bring {
        updates: look.missing.iter().map(ToString::to_string).collect(),
        package,
        languages,
        folder: None,
        rate: None,
    };
    let subject = format!("deployment/{}", it.name);
    let its_site = site.clone();
    let work = move |progress: &Progress| {
        let download = deployment_package::bring(&its_site, wanted, progress)?;
        let download: DownloadView =
            serde_json::from_value(download).map_err(|error| Problem::internal(&error))?;
        let look = Look::at(&its_site, &it)?;
        if !look.missing.is_empty() && !new.allow_missing {
            return Err(look.missing_problem());
        }
        result_of(&DownloadedDeployment { deployment: make(&its_site, it)?, download })
    };
    Ok(start(site, identity, &note, "create_deployment", subject, Box::new(work))
        .await?
        .into_response())
}

fn make(site: &Site, it: Deployment) -> Result<DeploymentView, Problem> {
    let fleet = site.fleet()?;
    let id = fleet.deployments.create(it)?;
    let (id, it) = fleet.deployments.find(&id.to_string())?;
    DeploymentView::of(site, id, &it)
}

/// Show a deployment
#[utoipa::path(get, path = "/api/v1/deployments/{deployment}", tag = "deployments",
    security(("token" = ["reader"])),
    params(("deployment" = String, Path, description = "Its name or id", example = "november-pilot")),
    responses((status = 200, description = "The deployment", body = DeploymentView)))]
async fn show_deployment(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<DeploymentView>, Problem> {
    let which = params.text("deployment").to_owned();
    let shown = blocking(move || {
        let (id, it) = site.fleet()?.deployments.find(&which)?;
        DeploymentView::of(&site, id, &it)
    });
    Ok(Json(shown.await?))
}

/// What is changed of a deployment; what is not told stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"enabled": false, "collection": "all", "deadline": "2026-12-05T03:00:00Z"}))]
pub struct DeploymentChange {
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The group of updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The collection of machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Whether clients are told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// From when updates may be installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// When they must be; null makes the deployment optional.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "told")]
    #[schema(value_type = Option<String>)]
    pub deadline: Option<Option<String>>,
    /// What of the experience is another: parts that are not told stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub experience: Option<serde_json::Value>,
    /// Below which percentage of compliance a warning is given; null for none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "told")]
    #[schema(value_type = Option<u8>)]
    pub alert_below: Option<Option<u8>>,
}

/// Tells a null from what is not there.
fn told<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

impl DeploymentChange {
    fn make(self, to: &mut Deployment) -> Result<(), Problem> {
        if let Some(name) = &self.name {
            to.name = field::<DeploymentName>("name", name)?;
        }
        if let Some(comment) = self.comment {
            to.comment = comment;
        }
        if let Some(group) = &self.group {
            to.group = field("group", group)?;
        }
        if let Some(collection) = &self.collection {
            to.collection = field("collection", collection)?;
        }
        if let Some(enabled) = self.enabled {
            to.enabled = enabled;
        }
        if let Some(available) = &self.available {
            to.available = field("available", available)?;
        }
        if let Some(deadline) = &self.deadline {
            let deadline = deadline.as_ref().map(|text| field("deadline", text));
            to.deadline = deadline.transpose()?;
        }
        if let Some(experience) = self.experience {
            let was = serde_json::to_value(&to.experience).unwrap_or_default();
            let merged = serde_json::from_value(merged(was, experience));
            to.experience =
                merged.map_err(|error| Problem::field("experience", error.to_string()))?;
        }
        if let Some(alert_below) = self.alert_below {
            to.alert_below = alert_below;
        }
        Ok(())
    }
}

/// `was` with what `change` says laid on it (RFC 7396).
fn merged(was: serde_json::Value, change: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match (was, change) {
        (Value::Object(mut was), Value::Object(change)) => {
            for (key, value) in change {
                let old = was.remove(&key).unwrap_or_default();
                was.insert(key, merged(old, value));
            }
            Value::Object(was)
        }
        (_, change) => change,
    }
}

/// Change a deployment
///
/// What is not told stays. Another collection is who gets it from then on; another group, what they get.
#[utoipa::path(patch, path = "/api/v1/deployments/{deployment}", tag = "deployments",
    security(("token" = ["operator"])), request_body = DeploymentChange,
    params(("deployment" = String, Path, description = "Its name or id", example = "november-pilot")),
    responses((status = 200, description = "The deployment", body = DeploymentView)))]
async fn change_deployment(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(change): Input<DeploymentChange>,
) -> Result<Json<DeploymentView>, Problem> {
    let which = params.text("deployment").to_owned();
    note.detail(serde_json::to_string(&change).unwrap_or_default());
    let changed = blocking(move || {
        let fleet = site.fleet()?;
        let (id, _) = fleet.deployments.find(&which)?;
        let it = fleet.deployments.change::<Problem>(id, |to| {
            change.make(to)?;
            fleet.members(&to.collection).map(drop).map_err(Problem::from)
        })?;
        DeploymentView::of(&site, id, &it)
    });
    Ok(Json(changed.await?))
}

/// Delete a deployment
///
/// Clients are not told of it any more; what is installed stays. What they reported of it is forgotten.
#[utoipa::path(delete, path = "/api/v1/deployments/{deployment}", tag = "deployments",
    security(("token" = ["operator"])),
    params(("deployment" = String, Path, description = "Its name or id", example = "november-pilot")),
    responses((status = 200, description = "What it was", body = DeploymentView)))]
async fn delete_deployment(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<DeploymentView>, Problem> {
    let which = params.text("deployment").to_owned();
    let deleted = blocking(move || {
        let fleet = site.fleet()?;
        let (id, it) = fleet.deployments.find(&which)?;
        let was = DeploymentView::of(&site, id, &it)?;
        fleet.deployments.delete(id)?;
        fleet.results.forget_deployment(id);
        site.deployed().look(&site)?;
        Ok(was)
    });
    let deleted = deleted.await?;
    note.target(deleted.name.clone());
    note.detail(format!("was {} to {}", deleted.group, deleted.collection));
    Ok(Json(deleted))
}
