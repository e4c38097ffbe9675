//! Groups of updates, for people: make, fill, list, delete.

use crate::deployed::Content;
use crate::extract::{Input, Params, Query, field};
use crate::fleet::Fleet;
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::routes::updates::{self, ListedUpdate};
use crate::site::{Site, blocking};
use ::sync::catalogue;
use ::sync::filter::Filter;
use ::sync::lifecycle::State as LifeState;
use ::sync::name::UpdateId;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use compliance::summary::RequiredIn;
use deployment::group::{Regroup, Regrouped};
use deployment::{Group, GroupName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Updates that one request may name.
const MAX_NAMED: usize = 20_000;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_groups, create_group))
        .routes(routes!(show_group, change_group, delete_group))
        .routes(routes!(list_group_updates, change_group_updates))
}

/// A group of updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "november", "comment": "Patch day", "updates": 37, "created": "2026-11-28T09:00:00Z",
    "deployments": ["november-pilot"]
}))]
pub struct UpdateGroupView {
    /// What it is called.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// How many updates are in it.
    pub updates: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// The deployments of it.
    #[serde(default)]
    pub deployments: Vec<String>,
    /// How many of its updates have each mark; absent in lists. Marks stand at [`GroupUpdateView`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<BTreeMap<String, u64>>,
}

impl UpdateGroupView {
    fn of(name: &GroupName, group: &Group, fleet: &Fleet) -> Self {
        let deployments = fleet.deployments.deploying(name);
        Self {
            name: name.to_string(),
            comment: group.record.comment.clone(),
            updates: group.updates.len() as u64,
            created: group.record.created,
            deployments: deployments.iter().map(ToString::to_string).collect(),
            marks: None,
        }
    }

    /// The same with how many updates have each mark.
    fn marked(site: &Site, name: &GroupName) -> Result<Self, Problem> {
        let fleet = site.fleet()?;
        let group = fleet.deployments.group(name)?;
        let view = Self::of(name, &group, &fleet);
        let ids: Vec<UpdateId> = group.ids().collect();
        let contents = site.deployed().contents(site, &ids, None)?;
        let standings = site.updates()?.catalogue().standings(ids.iter().copied());
        let mut marks = BTreeMap::new();
        for (id, standing) in ids.iter().zip(standings) {
            let state = standing.map(|standing| standing.state);
            let content = contents.get(id).copied().unwrap_or_default();
            for mark in marks_of(state, content, !view.deployments.is_empty()) {
                *marks.entry(mark.to_owned()).or_default() += 1;
            }
        }
        Ok(Self { marks: Some(marks), ..view })
    }
}

/// What is to be seen of an update of a group at once.
fn marks_of(
    state: Option<LifeState>,
    content: Content,
    is_deployed: bool,
) -> impl Iterator<Item = &'static str> {
    let is_missing = content == Content::Missing;
    let marks = [
        ("gone", state.is_none()),
        ("expired", state == Some(LifeState::Expired)),
        ("superseded", state == Some(LifeState::Superseded)),
        ("content-missing", is_missing && state.is_some()),
        ("invalid", is_missing && is_deployed && state.is_some()),
        ("metadata-only", content == Content::None),
    ];
    marks.into_iter().filter(|(_, is_so)| *is_so).map(|(mark, _)| mark)
}

/// An update of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "revision": 1,
    "title": "openssl security update", "state": "current", "source": "debian-security",
    "kind": "software", "classification": "security", "severity": "important",
    "products": ["debian-12"], "articles": ["DSA-5545-1"], "cves": ["CVE-2026-0001"],
    "created": "2026-11-02T20:11:00Z", "released": "2026-11-02T20:11:00Z",
    "first_seen": "2026-11-03T03:00:02Z", "required": 61, "files": 4, "bytes": 6800000,
    "content": "missing", "since": "2026-11-28T09:00:00Z", "marks": ["content-missing"]
}))]
pub struct GroupUpdateView {
    /// The update.
    #[serde(flatten)]
    pub update: ListedUpdate,
    /// Since when it is in the group.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// `content-missing`: files of it are in no package (the red arrow). `invalid`: it is deployed all the same.
    /// `expired`, `superseded`; `metadata-only`: it has nothing to install.
    #[serde(default)]
    pub marks: Vec<String>,
}

/// A group to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "november", "comment": "Patch day",
    "filter": "classification in (security, critical) and required > 50"
}))]
pub struct NewUpdateGroup {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Updates that are in it from the start, by id, name or article.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<String>,
    /// Those that this filter means now are in it, too. What comes into the catalogue later is not put in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Where the filter asks on how many clients an update is required, those of this collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
}

/// What comes into a group, and what goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({"add": ["DSA-5545-1"], "remove": ["DSA-5544-1"]}))]
pub struct GroupChange {
    /// Updates that come into it, by id, name or article.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Those that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// What this filter means now comes into it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Where the filter asks on how many clients an update is required, those of this collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
}

/// A group after a change, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "november", "updates": 38, "created": "2026-11-28T09:00:00Z", "deployments": [],
    "added": 1, "removed": 0
}))]
pub struct RegroupedView {
    /// The group.
    #[serde(flatten)]
    pub group: UpdateGroupView,
    /// How many came into it.
    pub added: u64,
    /// How many went.
    pub removed: u64,
    /// What of the filter may be a slip of the pen: names that nothing in the catalogue has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// The updates of these ids, names or articles, and those that a filter means now.
fn chosen(
    site: &Site,
    named: &[String],
    filter: Option<&str>,
    collection: Option<&str>,
) -> Result<(BTreeSet<UpdateId>, Vec<String>), Problem> {
    let (fleet, updates) = (site.fleet()?, site.updates()?);
    let mut all = BTreeSet::new();
    for which in named {
        let known = |id: &UpdateId| updates.catalogue().standings([*id]) != [None];
        // Many come by their ids, for which nothing has to be read.
        all.insert(match which.parse().ok().filter(known) {
            Some(id) => id,
            None => updates.catalogue().get(which)?.update.id,
        });
    }
    let Some(filter) = filter else { return Ok((all, Vec::new())) };
    let filter: Filter = field("filter", filter)?;
    let scope = fleet.scope(collection)?;
    let required = RequiredIn { site: &fleet.states, collection: scope.as_deref() };
    let mut query = catalogue::Query::new(filter, Timestamp::now());
    query.deployments = Some(updates.deployments());
    let found = updates.catalogue().matching(&query, &required);
    all.extend(found.updates.iter().map(|it| it.id));
    Ok((all, found.hints))
}

fn want_few(named: usize, field: &str) -> Result<(), Problem> {
    if named > MAX_NAMED {
        let detail = format!("names more than {MAX_NAMED} updates: send several requests");
        return Err(Problem::field(field, detail));
    }
    Ok(())
}

/// List update groups
///
/// By name.
#[utoipa::path(get, path = "/api/v1/update-groups", tag = "deployments",
    operation_id = "list_update_groups", security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of groups", body = Page<UpdateGroupView>)))]
async fn list_groups(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<UpdateGroupView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("groups")?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let all = fleet.deployments.groups().into_iter();
        let page = Page::cut("groups", all, after.as_deref(), limit, |(name, _)| name.to_string());
        Ok(page.map(|(name, group)| UpdateGroupView::of(&name, &group, &fleet)))
    });
    Ok(Json(page.await?))
}

/// Make an update group
///
/// With the updates that are named or that a filter means now. All or nothing: one that is not known keeps the group
/// from being made.
#[utoipa::path(post, path = "/api/v1/update-groups", tag = "deployments",
    operation_id = "create_update_group", security(("token" = ["operator"])),
    request_body = NewUpdateGroup,
    responses((status = 201, description = "The group", body = RegroupedView,
        headers(("Location" = String, description = "Its address"))),
        (status = 404, description = "There is no such update or collection", body = Problem)))]
async fn create_group(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewUpdateGroup>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<RegroupedView>), Problem> {
    note.target(&new.name);
    let name: GroupName = field("name", &new.name)?;
    want_few(new.updates.len(), "updates")?;
    let made = blocking(move || {
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        let (filter, collection) = (new.filter.as_deref(), new.collection.as_deref());
        let (updates, hints) = chosen(&site, &new.updates, filter, collection)?;
        fleet.deployments.create_group(&name, new.comment, now)?;
        let done = fleet.deployments.regroup(&name, Regroup::Replace(updates), now);
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                fleet.deployments.delete_group(&name)?;
                return Err(error.into());
            }
        };
        regrouped(&fleet, &name, &done, hints)
    });
    let made = made.await?;
    note.detail(format!("{} updates", made.added));
    let location = ("location", format!("/api/v1/update-groups/{}", made.group.name));
    Ok((StatusCode::CREATED, [location], Json(made)))
}

fn regrouped(
    fleet: &Fleet,
    name: &GroupName,
    done: &Regrouped,
    hints: Vec<String>,
) -> Result<RegroupedView, Problem> {
    Ok(RegroupedView {
        group: UpdateGroupView::of(name, &*fleet.deployments.group(name)?, fleet),
        added: done.added.len() as u64,
        removed: done.removed.len() as u64,
        hints,
    })
}

/// Show an update group
#[utoipa::path(get, path = "/api/v1/update-groups/{group}", tag = "deployments",
    operation_id = "show_update_group", security(("token" = ["reader"])),
    params(("group" = String, Path, description = "Its name", example = "november")),
    responses((status = 200, description = "The group", body = UpdateGroupView)))]
async fn show_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<UpdateGroupView>, Problem> {
    let name: GroupName = params.get("group")?;
    let shown = blocking(move || UpdateGroupView::marked(&site, &name));
    Ok(Json(shown.await?))
}

/// What is changed of a group itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"comment": "Patch day"}))]
pub struct GroupCommentView {
    /// What it is for.
    pub comment: String,
}

/// Say what an update group is for
#[utoipa::path(patch, path = "/api/v1/update-groups/{group}", tag = "deployments",
    operation_id = "change_update_group", security(("token" = ["operator"])),
    request_body = GroupCommentView,
    params(("group" = String, Path, description = "Its name", example = "november")),
    responses((status = 200, description = "The group", body = UpdateGroupView)))]
async fn change_group(
    State(site): State<Site>,
    params: Params,
    Input(change): Input<GroupCommentView>,
) -> Result<Json<UpdateGroupView>, Problem> {
    let name: GroupName = params.get("group")?;
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let group = fleet.deployments.set_group_comment(&name, change.comment)?;
        Ok(UpdateGroupView::of(&name, &group, &fleet))
    });
    Ok(Json(shown.await?))
}

/// Delete an update group
///
/// Not one that is deployed. Its updates stay in the catalogue.
#[utoipa::path(delete, path = "/api/v1/update-groups/{group}", tag = "deployments",
    operation_id = "delete_update_group", security(("token" = ["operator"])),
    params(("group" = String, Path, description = "Its name", example = "november")),
    responses((status = 200, description = "What it was", body = UpdateGroupView),
        (status = 409, description = "It is deployed", body = Problem)))]
async fn delete_group(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<UpdateGroupView>, Problem> {
    let name: GroupName = params.get("group")?;
    let deleted = blocking(move || {
        let fleet = site.fleet()?;
        let was = fleet.deployments.delete_group(&name)?;
        Ok(UpdateGroupView::of(&name, &was, &fleet))
    });
    Ok(Json(deleted.await?))
}

/// List the updates of a group
///
/// In the order of their ids.
#[utoipa::path(get, path = "/api/v1/update-groups/{group}/updates", tag = "deployments",
    operation_id = "list_group_updates", security(("token" = ["reader"])), params(
        ("group" = String, Path, description = "Its name", example = "november"), PageQuery),
    responses((status = 200, description = "A page of updates", body = Page<GroupUpdateView>)))]
async fn list_group_updates(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<GroupUpdateView>>, Problem> {
    let name: GroupName = params.get("group")?;
    let (limit, after) = (query.limit()?, query.after("group-updates")?);
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let group = fleet.deployments.group(&name)?;
        let page =
            Page::cut("group-updates", group.ids(), after.as_deref(), limit, |id| id.to_string());
        let listed = site.updates()?.catalogue().listed(&page.items, &fleet.states)?;
        let is_deployed = !fleet.deployments.deploying(&name).is_empty();
        let states: Vec<LifeState> = listed.iter().map(|it| it.state).collect();
        let with_group = |(update, state): (ListedUpdate, LifeState)| {
            let id: Option<UpdateId> = update.id.parse().ok();
            let since = id.and_then(|id| group.updates.get(&id)).copied();
            let marks = marks_of(Some(state), update.content, is_deployed);
            let marks = marks.map(str::to_owned).collect();
            GroupUpdateView { since: since.unwrap_or(Timestamp::MIN), marks, update }
        };
        let shown = updates::shown(&site, listed)?.into_iter().zip(states).map(with_group);
        Ok(Page { items: shown.collect(), next: page.next })
    });
    Ok(Json(page.await?))
}

/// Put updates into a group, and out of it
///
/// All or none: one that is not known keeps all from being changed. What comes into a group that is deployed is
/// deployed with it, and what goes is not deployed by it any more.
#[utoipa::path(post, path = "/api/v1/update-groups/{group}/updates", tag = "deployments",
    operation_id = "change_group_updates", security(("token" = ["operator"])),
    request_body = GroupChange,
    params(("group" = String, Path, description = "Its name", example = "november")),
    responses((status = 200, description = "The group", body = RegroupedView)))]
async fn change_group_updates(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(change): Input<GroupChange>,
) -> Result<Json<RegroupedView>, Problem> {
    let name: GroupName = params.get("group")?;
    want_few(change.add.len(), "add")?;
    want_few(change.remove.len(), "remove")?;
    let changed = blocking(move || {
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        let group = fleet.deployments.group(&name)?;
        let (filter, collection) = (change.filter.as_deref(), change.collection.as_deref());
        let (add, hints) = chosen(&site, &change.add, filter, collection)?;
        // What the catalogue has let go of can still be taken out, by its id.
        let (gone, named): (Vec<_>, Vec<_>) = change
            .remove
            .into_iter()
            .partition(|which| which.parse().is_ok_and(|id| group.updates.contains_key(&id)));
        let (mut remove, _) = chosen(&site, &named, None, None)?;
        remove.extend(gone.iter().filter_map(|which| which.parse::<UpdateId>().ok()));
        let done = fleet.deployments.regroup(&name, Regroup::Change { add, remove }, now)?;
        if !fleet.deployments.deploying(&name).is_empty() {
            site.deployed().look(&site)?;
        }
        regrouped(&fleet, &name, &done, hints)
    });
    let changed = changed.await?;
    note.detail(format!("{} added, {} removed", changed.added, changed.removed));
    Ok(Json(changed))
}
