//! The catalogue of updates: list, show, products; the policy of its life.

use crate::deployed::Content;
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::page::{PageQuery, cursor_of};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::compliance::summary::RequiredIn;
use ::sync::catalogue::{self, Entry, Listed, Order, ProductCount};
use ::sync::filter::{Filter, Flags};
use ::sync::lifecycle::{Policy, State as LifeState, Wait};
use ::sync::name::UpdateId;
use axum::Json;
use axum::extract::{Extension, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The list's name in cursors.
const LIST: &str = "updates";
/// Steps that a preview shows one by one, if it is not said how many.
const SHOWN_STEPS: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_updates))
        .routes(routes!(show_update))
        .routes(routes!(list_products))
        .routes(routes!(show_policy, set_policy))
        .routes(routes!(preview_policy))
}

/// Which updates are wanted. Of each parameter one value must fit, of values apart by commas; all
/// parameters must.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct UpdatesQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// `released`, `created`, `first-seen`, `changed`, `title`, `severity` or `required`; with `-` in front
    /// the last comes first.
    #[param(default = "-released")]
    order: Option<String>,
    /// Classifications: `security`, `critical` and others.
    classification: Option<String>,
    /// Severities: `low`, `moderate`, `important`, `critical`.
    severity: Option<String>,
    /// Products or families, by id or name.
    product: Option<String>,
    /// Sources.
    source: Option<String>,
    /// States: `current`, `superseded`, `expired`.
    state: Option<String>,
    /// Released so long ago at most.
    #[param(example = "30d")]
    released_within: Option<String>,
    /// Released at this time or later.
    #[param(value_type = Option<String>)]
    released_after: Option<Timestamp>,
    /// Released before this time.
    #[param(value_type = Option<String>)]
    released_before: Option<Timestamp>,
    /// With these words in title, name, articles or CVEs.
    search: Option<String>,
    /// Mending these CVEs.
    cve: Option<String>,
    /// With these articles: `KB5031354`, `DSA-5545-1`.
    article: Option<String>,
    /// Required on so many machines: `50` for at least so many, or `>50`.
    required_on: Option<String>,
    /// Of those on which an update is required, count only the clients of this collection.
    collection: Option<String>,
    /// And this, in the language of filters: `classification in (security, critical) and released >= 30d
    /// ago`.
    filter: Option<String>,
}

impl UpdatesQuery {
    fn filter(&self) -> Result<Filter, Problem> {
        let flags = Flags {
            classifications: words("classification", self.classification.as_deref())?,
            severities: words("severity", self.severity.as_deref())?,
            products: words("product", self.product.as_deref())?,
            sources: words("source", self.source.as_deref())?,
            states: words::<StateWord>("state", self.state.as_deref())?
                .into_iter()
                .map(|StateWord(state)| state)
                .collect(),
            released_within: self.released_within.clone(),
            released_after: self.released_after,
            released_before: self.released_before,
            search: self.search.clone(),
            cves: words("cve", self.cve.as_deref())?,
            articles: words("article", self.article.as_deref())?,
            required_on: self.required_on.clone(),
            filter: self.filter.clone(),
        };
        flags.filter().map_err(|error| {
            let text = error.to_string();
            Problem::new(Kind::MalformedRequest, text.clone()).caused_by(error.option, text)
        })
    }
}

/// A state by its word.
struct StateWord(LifeState);

impl FromStr for StateWord {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = LifeState::ALL.into_iter().find(|state| state.as_str() == text);
        found.map(Self).ok_or_else(|| {
            let known: Vec<&str> = LifeState::ALL.iter().map(|state| state.as_str()).collect();
            format!("{text:?} is no state; want one of {}", known.join(", "))
        })
    }
}

fn words<T: FromStr<Err: Display>>(name: &str, text: Option<&str>) -> Result<Vec<T>, Problem> {
    let words = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    let parse = |word: &str| {
        word.parse().map_err(|error: T::Err| {
            let text = error.to_string();
            Problem::new(Kind::MalformedRequest, text.clone()).caused_by(name, text)
        })
    };
    words.filter(|word| !word.is_empty()).map(parse).collect()
}

/// An update, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "revision": 1,
    "title": "openssl security update", "state": "current", "source": "debian-security",
    "kind": "software", "classification": "security", "severity": "important",
    "products": ["debian-12"], "articles": ["DSA-5545-1"], "cves": ["CVE-2026-0001"],
    "created": "2026-11-02T20:11:00Z", "released": "2026-11-02T20:11:00Z",
    "first_seen": "2026-11-03T03:00:02Z", "required": 0, "files": 4, "bytes": 6800000,
    "content": "held"
}))]
pub struct ListedUpdate {
    /// Which it is: a GUID.
    pub id: String,
    /// What its upstream calls it.
    pub name: String,
    /// Its revision.
    pub revision: u32,
    /// Its title, in English where it has one.
    pub title: String,
    /// How far its life is: `current`, `superseded` or `expired`.
    pub state: String,
    /// The source whose word is shown.
    pub source: String,
    /// What it is: `software`, `driver`, `category` or `detectoid`.
    pub kind: String,
    /// Its classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// How bad what it mends is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Ids of the products that it is for.
    pub products: Vec<String>,
    /// Advisories, bulletins and articles.
    pub articles: Vec<String>,
    /// CVE ids.
    pub cves: Vec<String>,
    /// When its upstream made it.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was released.
    #[schema(value_type = String, format = DateTime)]
    pub released: Timestamp,
    /// When it came into this catalogue.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
    /// On how many machines it is required.
    pub required: u64,
    /// How many files it has.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they are in a package: `held`; `missing`, if one at least is not; `none`, if it has no files.
    #[serde(default)]
    pub content: Content,
}

/// Updates as lists show them.
pub(super) fn shown(site: &Site, listed: Vec<Listed>) -> Result<Vec<ListedUpdate>, Problem> {
    let ids: Vec<UpdateId> = listed.iter().map(|it| it.id).collect();
    let contents = site.deployed().contents(site, &ids, None)?;
    let content = |id: &UpdateId| contents.get(id).copied().unwrap_or_default();
    let with = |it: Listed| ListedUpdate { content: content(&it.id), ..ListedUpdate::from(it) };
    Ok(listed.into_iter().map(with).collect())
}

impl From<Listed> for ListedUpdate {
    fn from(listed: Listed) -> Self {
        let card = listed.card;
        Self {
            id: listed.id.to_string(),
            name: card.name,
            revision: listed.revision,
            title: card.title,
            state: listed.state.to_string(),
            source: listed.source.to_string(),
            kind: word_of(&card.kind),
            classification: card.classification.map(|word| word.to_string()),
            severity: card.severity.map(|word| word.to_string()),
            products: card.products.into_iter().collect(),
            articles: card.articles.into_iter().collect(),
            cves: card.cves.into_iter().collect(),
            created: card.created,
            released: card.released,
            first_seen: listed.first_seen,
            required: listed.required,
            files: card.files,
            bytes: card.bytes,
            content: Content::default(),
        }
    }
}

/// The word that stands for a value in JSON.
fn word_of(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// A page of updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdatesPage {
    /// The updates, in the order that was asked for.
    pub items: Vec<ListedUpdate>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many fit in all.
    pub total: u64,
    /// What may be a slip of the pen: names that nothing in the catalogue has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// List updates
///
/// The newest first, unless another order is asked for. Categories and detectoids are shown only to a filter
/// that names a `kind`.
#[utoipa::path(get, path = "/api/v1/updates", tag = "updates", operation_id = "list_updates",
    security(("token" = ["reader"])), params(UpdatesQuery),
    responses((status = 200, description = "A page of updates", body = UpdatesPage),
        (status = 404, description = "There is no such collection", body = Problem)))]
async fn list_updates(
    State(site): State<Site>,
    Query(query): Query<UpdatesQuery>,
) -> Result<Json<UpdatesPage>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor.clone() };
    let collection = query.collection.clone();
    let mut asked = catalogue::Query::new(query.filter()?, Timestamp::now());
    asked.limit = page.limit()?;
    let of_before = |text: String| {
        let wrong = |_| Problem::malformed("cursor", "is not a `next` of this list");
        text.parse().map_err(wrong)
    };
    asked.after = page.after(LIST)?.map(of_before).transpose()?;
    if let Some(order) = &query.order {
        asked.order = words::<Order>("order", Some(order))?.into_iter().next().unwrap_or_default();
    }
    let found = blocking(move || {
        let fleet = site.fleet()?;
        let scope = fleet.scope(collection.as_deref())?;
        let required = RequiredIn { site: &fleet.states, collection: scope.as_deref() };
        let updates = site.updates()?;
        asked.deployments = Some(crate::automatic::deployed(&fleet, None));
        let found = updates.catalogue().list(&asked, &required)?;
        Ok((shown(&site, found.updates)?, (found.next, found.total, found.hints)))
    })
    .await?;
    let (items, (next, total, hints)) = found;
    Ok(Json(UpdatesPage {
        items,
        next: next.map(|next| cursor_of(LIST, &next.to_string())),
        total,
        hints,
    }))
}

/// An update by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedUpdate {
    /// Which.
    pub id: String,
    /// What its upstream calls it.
    pub name: String,
}

impl From<catalogue::Named> for NamedUpdate {
    fn from(named: catalogue::Named) -> Self {
        Self { id: named.id.to_string(), name: named.name }
    }
}

/// All that is known of an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "revision": 1,
    "source": "debian-security", "sources": ["debian-security"], "state": "current",
    "superseded_by": [], "supersedes": [], "first_seen": "2026-11-03T03:00:02Z",
    "changed": "2026-11-03T03:00:02Z", "seq": 4711, "content": "held", "packages": ["november"],
    "update": {"name": "DSA-5545-1"}
}))]
pub struct UpdateDetail {
    /// Which it is: a GUID.
    pub id: String,
    /// What its upstream calls it.
    pub name: String,
    /// Its revision: the one that the source states, or the one counted here.
    pub revision: u32,
    /// The source whose word is shown.
    pub source: String,
    /// All sources that say it now; none, if it is withdrawn.
    pub sources: Vec<String>,
    /// How far its life is: `current`, `superseded` or `expired`.
    pub state: String,
    /// Since when it is expired, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expired: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_because: Option<String>,
    /// The updates that replace it.
    pub superseded_by: Vec<NamedUpdate>,
    /// Those of the updates it replaces that are here.
    pub supersedes: Vec<NamedUpdate>,
    /// When it came into this catalogue.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
    /// When what is shown came.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
    /// Its place in the order of all changes.
    pub seq: u64,
    /// Whether its files are in a package: `held`; `missing`, if one at least is not; `none`, if it has none.
    #[serde(default)]
    pub content: Content,
    /// The packages that hold files of it.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What its source says: texts, classification, relations, rules, files with digests and addresses.
    #[schema(value_type = Object)]
    pub update: ::sync::update::Update,
}

impl From<Entry> for UpdateDetail {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.update.id.to_string(),
            name: entry.update.name.clone(),
            revision: entry.revision,
            source: entry.source.to_string(),
            sources: entry.sources.iter().map(ToString::to_string).collect(),
            state: entry.state.to_string(),
            expired: entry.expired.map(|expired| expired.at),
            expired_because: entry.expired.map(|expired| expired.why.to_string()),
            superseded_by: entry.superseded_by.into_iter().map(NamedUpdate::from).collect(),
            supersedes: entry.supersedes.into_iter().map(NamedUpdate::from).collect(),
            first_seen: entry.first_seen,
            changed: entry.changed,
            seq: entry.seq,
            content: Content::default(),
            packages: Vec::new(),
            update: entry.update,
        }
    }
}

/// Show an update
#[utoipa::path(get, path = "/api/v1/updates/{update}", tag = "updates",
    operation_id = "show_update", security(("token" = ["reader"])),
    params(("update" = String, Path, description = "Its id, its name, or that of an article of it",
        example = "DSA-5545-1")),
    responses((status = 200, description = "The update", body = UpdateDetail)))]
async fn show_update(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<UpdateDetail>, Problem> {
    let which = params.text("update").to_owned();
    let found = blocking(move || {
        let entry = site.updates()?.catalogue().get(&which)?;
        let (content, packages) = site.deployed().holders(&site, entry.update.id)?;
        let packages = packages.iter().map(ToString::to_string).collect();
        Ok(UpdateDetail { content, packages, ..entry.into() })
    });
    Ok(Json(found.await?))
}

/// A product that updates are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "debian-12", "name": "Debian 12 (bookworm)", "family": "Debian", "updates": 6120
}))]
pub struct ProductView {
    /// Names it in criteria and filters.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it belongs to.
    pub family: String,
    /// How many updates are for it.
    pub updates: u64,
}

impl From<ProductCount> for ProductView {
    fn from(count: ProductCount) -> Self {
        let ::sync::taxonomy::Product { id, name, family } = count.product;
        Self { id, name, family, updates: count.updates }
    }
}

/// List the products that updates are for
///
/// By id.
#[utoipa::path(get, path = "/api/v1/products", tag = "updates", operation_id = "list_products",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of products",
        body = crate::page::Page<ProductView>)))]
async fn list_products(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<crate::page::Page<ProductView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("products")?);
    let all = blocking(move || Ok(site.updates()?.catalogue().products())).await?;
    let all = all.into_iter().map(ProductView::from);
    let key = |product: &ProductView| product.id.clone();
    Ok(Json(crate::page::Page::cut("products", all, after.as_deref(), limit, key)))
}

/// When updates expire and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "supersedence": "3", "by_classification": {"upgrade": "6"}, "purge_after_days": 30
}))]
pub struct PolicyView {
    /// Months from the creation of what replaced an update until it expires; `0` at once, or `never`.
    pub supersedence: String,
    /// The same for updates of one classification, in its place.
    #[serde(default)]
    pub by_classification: BTreeMap<String, String>,
    /// Days after which what is expired and not deployed is purged; absent, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_after_days: Option<u16>,
}

impl From<Policy> for PolicyView {
    fn from(policy: Policy) -> Self {
        let each = policy.by_classification.iter();
        Self {
            supersedence: policy.supersedence.to_string(),
            by_classification: each.map(|(c, wait)| (c.to_string(), wait.to_string())).collect(),
            purge_after_days: policy.purge_after_days,
        }
    }
}

impl PolicyView {
    fn policy(&self) -> Result<Policy, Problem> {
        let wait = |field: &str, text: &str| text.parse::<Wait>().map_err(|e| invalid(field, &e));
        let mut by_classification = BTreeMap::new();
        for (name, text) in &self.by_classification {
            let field = format!("by_classification.{name}");
            let classification = name
                .parse()
                .map_err(|error: ::sync::taxonomy::UnknownWord| invalid(&field, &error))?;
            by_classification.insert(classification, wait(&field, text)?);
        }
        Ok(Policy {
            supersedence: wait("supersedence", &self.supersedence)?,
            by_classification,
            purge_after_days: self.purge_after_days,
        })
    }
}

fn invalid(field: &str, error: &dyn Display) -> Problem {
    let text = error.to_string();
    Problem::new(Kind::InvalidValue, text.clone()).caused_by(field, text)
}

/// Show when updates expire and go
#[utoipa::path(get, path = "/api/v1/lifecycle", tag = "updates", operation_id = "show_lifecycle",
    security(("token" = ["reader"])),
    responses((status = 200, description = "The policy", body = PolicyView)))]
async fn show_policy(State(site): State<Site>) -> Result<Json<PolicyView>, Problem> {
    let view = blocking(move || Ok(site.updates()?.sources().site()?.policy.into()));
    Ok(Json(view.await?))
}

/// Set when updates expire and go
///
/// It takes effect with the next sync, at the latest within the hour: look at the preview first.
#[utoipa::path(put, path = "/api/v1/lifecycle", tag = "updates", operation_id = "set_lifecycle",
    security(("token" = ["admin"])), request_body = PolicyView,
    responses((status = 200, description = "The policy", body = PolicyView)))]
async fn set_policy(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(view): Input<PolicyView>,
) -> Result<Json<PolicyView>, Problem> {
    let policy = view.policy()?;
    note.detail(serde_json::to_string(&view).unwrap_or_default());
    let view = blocking(move || {
        let machine = site.updates()?;
        machine.sources().set_policy(policy)?;
        let view = machine.sources().site()?.policy.into();
        Ok((machine, view))
    });
    let (machine, view) = view.await?;
    machine.tell_settings().await?;
    Ok(Json(view))
}

/// Which policy is looked at. What is not said is as it is set.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct PreviewQuery {
    /// Steps that are shown one by one, from 0 to 1000.
    #[param(maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Months until a superseded update expires, or `never`.
    supersedence: Option<String>,
    /// Days until an expired one is purged, or `never`.
    purge_after_days: Option<String>,
}

/// What a policy would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"expire": 1, "purge": 0, "reinstate": 0, "steps": [{
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "DSA-5545-1", "from": "superseded",
    "to": "expired", "because": "superseded by DSA-5601-1", "superseded_by":
    {"id": "1f2d3c4b-5a69-5788-9a0b-1c2d3e4f5a6b", "name": "DSA-5601-1"}
}]}))]
pub struct AgeingView {
    /// How many updates would expire.
    pub expire: u64,
    /// How many would be purged.
    pub purge: u64,
    /// How many would be offered again.
    pub reinstate: u64,
    /// The first of them.
    pub steps: Vec<StepView>,
}

/// One step that an update's life would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Which update.
    pub id: String,
    /// What its upstream calls it.
    pub name: String,
    /// How far it is.
    pub from: String,
    /// How far it would be.
    pub to: String,
    /// Why it is expired, or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// What replaced it, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<NamedUpdate>,
}

impl From<catalogue::Step> for StepView {
    fn from(step: catalogue::Step) -> Self {
        let superseded_by = step.superseded_by.map(NamedUpdate::from);
        let because = step.expired.map(|expired| match &superseded_by {
            // Names are for people.
            Some(by) => format!("superseded by {}", by.name),
            None => expired.why.to_string(),
        });
        Self {
            id: step.id.to_string(),
            name: step.name,
            from: step.from.to_string(),
            to: step.to.to_string(),
            because,
            superseded_by,
        }
    }
}

/// Preview what a policy would do now
#[utoipa::path(get, path = "/api/v1/lifecycle/preview", tag = "updates",
    operation_id = "preview_lifecycle", security(("token" = ["reader"])), params(PreviewQuery),
    responses((status = 200, description = "What would happen", body = AgeingView)))]
async fn preview_policy(
    State(site): State<Site>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<AgeingView>, Problem> {
    let most = query.limit.unwrap_or(SHOWN_STEPS);
    if most > 1_000 {
        return Err(Problem::malformed("limit", "must be from 0 to 1000"));
    }
    let wait = query.supersedence.map(|text| {
        text.parse::<Wait>().map_err(|error| Problem::malformed("supersedence", error.to_string()))
    });
    let wait = wait.transpose()?;
    let purge = match query.purge_after_days.as_deref() {
        None => None,
        Some("never") => Some(None),
        Some(days) => Some(Some(days.parse().map_err(|_| {
            Problem::malformed("purge_after_days", "must be a number of days, or 'never'")
        })?)),
    };
    let ageing = blocking(move || {
        let machine = site.updates()?;
        let mut policy = machine.sources().site()?.policy;
        policy.supersedence = wait.unwrap_or(policy.supersedence);
        policy.purge_after_days = purge.unwrap_or(policy.purge_after_days);
        Ok(machine.preview(&policy, most)?)
    })
    .await?;
    Ok(Json(AgeingView {
        expire: ageing.expire,
        purge: ageing.purge,
        reinstate: ageing.reinstate,
        steps: ageing.steps.into_iter().map(StepView::from).collect(),
    }))
}
