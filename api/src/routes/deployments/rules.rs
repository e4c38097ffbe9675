//! Automatic deployment rules, for people: make, preview, run, change, list, delete; their runs and rings.

mod deployments;
mod views;

pub use deployments::{RingBody, RingWord, RuleDeploymentBody};
pub use views::{
    ChangedMember, RingChainView, RingView, RulePreview, RuleRunView, RuleView, WaitingView,
};

use crate::auth::Identity;
use crate::automatic;
use crate::extract::{Input, Params, Query, field};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, accepted};
use crate::site::{Site, blocking};
use ::sync::taxonomy::Language;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use deployment::automatic::{AutomaticRule, Cause, Evaluation, GroupMode, LicenceTerms, Template};
use deployment::{RuleName, automatic::RuleError};
use jiff::Timestamp;
use packager::name::PackageName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(preview_new_rule))
        .routes(routes!(show_rule, change_rule, delete_rule))
        .routes(routes!(preview_rule))
        .routes(routes!(run_rule))
        .routes(routes!(list_rule_runs))
        .routes(routes!(show_rule_run))
        .merge(deployments::routes())
}

/// What a rule is, or what of it is changed: what is not told is as it is, or as by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({
    "description": "Patch day", "criteria": "classification in (security, critical) and released >= 1mo ago",
    "evaluation": "monthly 2nd tue +1 at 03:00 Europe/Berlin", "group": "new", "package": "patch-day",
    "deployments": [{"name": "pilot", "collection": "pilot", "available": "0h", "deadline": "2d"},
        {"name": "rest", "collection": "all", "deadline": "7d", "ring": {"after_days": 3, "success": 95}}]
}))]
pub struct RuleBody {
    /// What it begins with: `monthly`, `office` or `definitions`; only where a rule is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is evaluated by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which updates it means, in the language of filters. Those that are expired it never means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criteria: Option<String>,
    /// What becomes of updates with terms that nobody accepted: `leave-out`, or `accept`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub licences: Option<LicenceTerms>,
    /// When it is evaluated: `by hand`, `after sync`, or `monthly 2nd tue +1 at 03:00 Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<String>,
    /// `new`: each run makes a group; `reuse`: one group is what the last run found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub group: Option<GroupMode>,
    /// So many groups of those that runs made are kept; 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_groups: Option<u16>,
    /// The deployment package that files are brought to; empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Languages of which files are brought; all, if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Its deployments, in the order of rings; all of them anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<RuleDeploymentBody>>,
}

/// A rule to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "patch-day", "template": "monthly", "package": "patch-day",
    "deployments": [{"name": "pilot", "collection": "pilot", "deadline": "2d"}]
}))]
pub struct NewRule {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub rule: RuleBody,
}

impl RuleBody {
    /// The rule that it makes.
    fn make(self) -> Result<AutomaticRule, Problem> {
        let mut rule = match &self.template {
            Some(template) => field::<Template>("template", template)?.rule(),
            None => AutomaticRule {
                description: String::new(),
                enabled: true,
                criteria: ::sync::filter::Filter::all(),
                licences: LicenceTerms::default(),
                evaluation: Evaluation::default(),
                group: GroupMode::default(),
                keep_groups: None,
                package: None,
                languages: BTreeSet::new(),
                deployments: Vec::new(),
            },
        };
        Self { template: None, ..self }.apply(&mut rule)?;
        rule.check().map_err(RuleError::from)?;
        Ok(rule)
    }

    /// Changes a rule to what it says.
    fn apply(self, rule: &mut AutomaticRule) -> Result<(), Problem> {
        if self.template.is_some() {
            return Err(Problem::field(
                "template",
                "a rule that is there has no template any more",
            ));
        }
        if let Some(description) = self.description {
            rule.description = description;
        }
        if let Some(enabled) = self.enabled {
            rule.enabled = enabled;
        }
        if let Some(criteria) = &self.criteria {
            rule.criteria = field("criteria", criteria)?;
        }
        if let Some(licences) = self.licences {
            rule.licences = licences;
        }
        if let Some(evaluation) = &self.evaluation {
            rule.evaluation = field("evaluation", evaluation)?;
        }
        if let Some(group) = self.group {
            rule.group = group;
        }
        if let Some(keep) = self.keep_groups {
            rule.keep_groups = NonZeroU16::new(keep);
        }
        if let Some(package) = self.package {
            let name = |text: &str| field::<PackageName>("package", text);
            rule.package = match package.as_str() {
                "" => None,
                package => Some(name(package)?.to_string()),
            };
        }
        if let Some(languages) = &self.languages {
            let language = |tag: &String| field::<Language>("languages", tag);
            rule.languages = languages.iter().map(language).collect::<Result<_, _>>()?;
        }
        if let Some(deployments) = self.deployments {
            let all = deployments.into_iter().map(RuleDeploymentBody::make);
            rule.deployments = all.collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// That what a rule names is there, and that it is not evaluated more often than something is synchronised.
fn check(site: &Site, rule: &AutomaticRule) -> Result<(), Problem> {
    let (fleet, updates) = (site.fleet()?, site.updates()?);
    for deployment in &rule.deployments {
        fleet.members(&deployment.collection)?;
    }
    let sources = updates.sources();
    let site_wide = sources.site()?.schedule;
    let enabled = sources.list()?.into_iter().filter(|source| source.enabled);
    let schedules: Vec<_> =
        enabled.map(|source| source.schedule.unwrap_or_else(|| site_wide.clone())).collect();
    rule.evaluation.keeps_to(&schedules, Timestamp::now()).map_err(RuleError::from)?;
    Ok(())
}

/// List automatic deployment rules
///
/// By name.
#[utoipa::path(get, path = "/api/v1/rules", tag = "deployments", security(("token" = ["reader"])),
    params(PageQuery),
    responses((status = 200, description = "A page of rules", body = Page<RuleView>)))]
async fn list_rules(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RuleView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("rules")?);
    let page = blocking(move || {
        let all = site.fleet()?.rules.all();
        let page = Page::cut("rules", all, after.as_deref(), limit, |(name, _)| name.to_string());
        let mut items = Vec::with_capacity(page.items.len());
        for (name, (rule, mark)) in page.items {
            items.push(RuleView::of(&site, &name, &rule, &mark)?);
        }
        Ok(Page { items, next: page.next })
    });
    Ok(Json(page.await?))
}

/// Make an automatic deployment rule
///
/// What the catalogue has now is an occasion only for a run that somebody asks for.
#[utoipa::path(post, path = "/api/v1/rules", tag = "deployments",
    security(("token" = ["operator"])), request_body = NewRule,
    responses((status = 201, description = "The rule", body = RuleView,
        headers(("Location" = String, description = "Its address")))))]
async fn create_rule(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewRule>,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<RuleView>), Problem> {
    note.target(&new.name);
    let name: RuleName = field("name", &new.name)?;
    let made = blocking(move || {
        let rule = new.rule.make()?;
        check(&site, &rule)?;
        let (fleet, seq) = (site.fleet()?, site.updates()?.catalogue().seq());
        fleet.rules.create(&name, rule, seq, Timestamp::now())?;
        let (rule, mark) = fleet.rules.get(&name)?;
        RuleView::of(&site, &name, &rule, &mark)
    });
    let made = made.await?;
    let location = ("location", format!("/api/v1/rules/{}", made.name));
    Ok((StatusCode::CREATED, [location], Json(made)))
}

/// Say what a rule would come to that is not made yet
///
/// Nothing is made.
#[utoipa::path(post, path = "/api/v1/rule-preview", tag = "deployments",
    security(("token" = ["reader"])), request_body = NewRule,
    extensions(("x-unaudited" = json!(true))),
    responses((status = 200, description = "What it would come to", body = RulePreview)))]
async fn preview_new_rule(
    State(site): State<Site>,
    Input(new): Input<NewRule>,
) -> Result<Json<RulePreview>, Problem> {
    let name: RuleName = field("name", &new.name)?;
    let preview = blocking(move || {
        let rule = new.rule.make()?;
        check(&site, &rule)?;
        let now = Timestamp::now();
        let preview = automatic::preview(&site, None, &rule, now)?;
        RulePreview::of(&site, &name, &rule, preview, now)
    });
    Ok(Json(preview.await?))
}

/// Show an automatic deployment rule
#[utoipa::path(get, path = "/api/v1/rules/{rule}", tag = "deployments",
    security(("token" = ["reader"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day")),
    responses((status = 200, description = "The rule", body = RuleView)))]
async fn show_rule(State(site): State<Site>, params: Params) -> Result<Json<RuleView>, Problem> {
    let name: RuleName = params.get("rule")?;
    let shown = blocking(move || {
        let (rule, mark) = site.fleet()?.rules.get(&name)?;
        RuleView::of(&site, &name, &rule, &mark)
    });
    Ok(Json(shown.await?))
}

/// Change an automatic deployment rule
///
/// What its runs made already is changed by itself; of deployments that it has anew the newest group gets them.
#[utoipa::path(patch, path = "/api/v1/rules/{rule}", tag = "deployments",
    security(("token" = ["operator"])), request_body = RuleBody,
    params(("rule" = String, Path, description = "Its name", example = "patch-day")),
    responses((status = 200, description = "The rule", body = RuleView)))]
async fn change_rule(
    State(site): State<Site>,
    params: Params,
    Input(change): Input<RuleBody>,
) -> Result<Json<RuleView>, Problem> {
    let name: RuleName = params.get("rule")?;
    let shown = blocking(move || changed(&site, &name, |rule| change.apply(rule)));
    Ok(Json(shown.await?))
}

/// Changes a rule; what it is after that.
fn changed(
    site: &Site,
    name: &RuleName,
    change: impl FnOnce(&mut AutomaticRule) -> Result<(), Problem>,
) -> Result<RuleView, Problem> {
    let (fleet, seq) = (site.fleet()?, site.updates()?.catalogue().seq());
    fleet.rules.change(name, seq, Timestamp::now(), |rule| {
        let before = rule.clone();
        change(rule)?;
        // What it named before, and is gone since, keeps nobody from changing something else.
        if rule.deployments != before.deployments || rule.evaluation != before.evaluation {
            check(site, rule)?;
        }
        Ok::<_, Problem>(())
    })?;
    let (rule, mark) = fleet.rules.get(name)?;
    RuleView::of(site, name, &rule, &mark)
}

/// Delete an automatic deployment rule
///
/// With its history. Groups and deployments that its runs made stay.
#[utoipa::path(delete, path = "/api/v1/rules/{rule}", tag = "deployments",
    security(("token" = ["operator"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day")),
    responses((status = 200, description = "What it was", body = RuleView),
        (status = 409, description = "It is being run", body = Problem)))]
async fn delete_rule(State(site): State<Site>, params: Params) -> Result<Json<RuleView>, Problem> {
    let name: RuleName = params.get("rule")?;
    let gone = blocking(move || {
        let fleet = site.fleet()?;
        let (rule, mark) = fleet.rules.get(&name)?;
        let view = RuleView::of(&site, &name, &rule, &mark)?;
        fleet.rules.delete(&name)?;
        Ok(view)
    });
    Ok(Json(gone.await?))
}

/// Say what a rule would come to if it were run now
///
/// Nothing is changed. What the group would get and lose is said against the one that the last run filled.
#[utoipa::path(get, path = "/api/v1/rules/{rule}/preview", tag = "deployments",
    security(("token" = ["reader"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day")),
    responses((status = 200, description = "What it would come to", body = RulePreview)))]
async fn preview_rule(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<RulePreview>, Problem> {
    let name: RuleName = params.get("rule")?;
    let preview = blocking(move || {
        let (rule, _) = site.fleet()?.rules.get(&name)?;
        let now = Timestamp::now();
        let preview = automatic::preview(&site, Some(&name), &rule, now)?;
        RulePreview::of(&site, &name, &rule, preview, now)
    });
    Ok(Json(preview.await?))
}

/// Run a rule now
///
/// A job, whose result is the run (`RuleRunView`). One that is at work already is joined. A rule that is disabled can be
/// run so, too.
#[utoipa::path(post, path = "/api/v1/rules/{rule}/run", tag = "deployments",
    security(("token" = ["operator"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day")),
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn run_rule(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Accepted, Problem> {
    let name: RuleName = params.get("rule")?;
    let job = blocking(move || {
        site.fleet()?.rules.get(&name)?;
        let cause = Cause::Asked(identity.name.clone());
        automatic::submit(&site, &name, cause, Timestamp::now(), &identity)
    });
    accepted(job.await?, &note)
}

/// List the runs of a rule
///
/// The newest first.
#[utoipa::path(get, path = "/api/v1/rules/{rule}/runs", tag = "deployments",
    security(("token" = ["reader"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day"), PageQuery),
    responses((status = 200, description = "A page of runs", body = Page<RuleRunView>)))]
async fn list_rule_runs(
    State(site): State<Site>,
    params: Params,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RuleRunView>>, Problem> {
    let name: RuleName = params.get("rule")?;
    let (limit, after) = (query.limit()?, query.after("rule-runs")?);
    let wrong = |_| Problem::malformed("cursor", "is not a `next` of this list");
    let before = after.map(|text| text.parse::<u64>().map_err(wrong)).transpose()?;
    let page = blocking(move || {
        let fleet = site.fleet()?;
        fleet.rules.get(&name)?;
        let runs = fleet.rules.runs(&name, before, limit + 1)?;
        let page = Page::of("rule-runs", runs, limit, |run| run.number.to_string());
        Ok(page.map(RuleRunView::from))
    });
    Ok(Json(page.await?))
}

/// Show a run of a rule
#[utoipa::path(get, path = "/api/v1/rules/{rule}/runs/{run}", tag = "deployments",
    security(("token" = ["reader"])),
    params(("rule" = String, Path, description = "Its name", example = "patch-day"),
        ("run" = u64, Path, description = "Its number", example = 7)),
    responses((status = 200, description = "The run", body = RuleRunView)))]
async fn show_rule_run(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<RuleRunView>, Problem> {
    let (name, number): (RuleName, u64) = (params.get("rule")?, params.get("run")?);
    let run = blocking(move || Ok(site.fleet()?.rules.run(&name, number)?));
    Ok(Json(run.await?.into()))
}

impl From<RuleError> for Problem {
    fn from(error: RuleError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str| Problem::new(kind, text.as_str()).caused_by(field, &text);
        match error {
            RuleError::Unknown(_) => about(Kind::NotFound, "rule"),
            RuleError::UnknownDeployment { .. } => about(Kind::NotFound, "deployment"),
            RuleError::UnknownRun { .. } => about(Kind::NotFound, "run"),
            RuleError::Exists(_) | RuleError::TooMany => about(Kind::Conflict, "name"),
            RuleError::Running(_) => about(Kind::Conflict, "rule"),
            RuleError::Bad(_) => about(Kind::InvalidValue, "rule"),
            RuleError::Evaluation(_) => about(Kind::InvalidValue, "evaluation"),
            RuleError::Store(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}
