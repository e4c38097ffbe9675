//! Syncs: begin, cancel, and what earlier ones came to.

use crate::auth::Identity;
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::jobs::{Job, Work};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, accepted, result_of};
use crate::site::{Site, blocking};
use crate::translate::{cancelled, of_cause};
use ::sync::machine::{Asked, Machine};
use ::sync::name::SourceName;
use ::sync::source::{Outcome, RunRecord, SourceError, Trigger};
use axum::Json;
use axum::extract::{Extension, State};
use contentlib::Progress;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How often a job looks at the sync that it waits for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(run_all))
        .routes(routes!(run_source))
        .routes(routes!(cancel_sync))
        .routes(routes!(history))
}

/// Why a sync began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerView {
    /// Somebody asked for it.
    Hand,
    /// Its time had come.
    Schedule,
    /// The one before failed in a way that passes.
    Retry,
    /// The one before was cut off.
    Resumed,
    /// The parent site said that something is new.
    Parent,
}

impl From<&Trigger> for TriggerView {
    fn from(trigger: &Trigger) -> Self {
        match trigger {
            Trigger::Hand(_) => Self::Hand,
            Trigger::Schedule => Self::Schedule,
            Trigger::Retry => Self::Retry,
            Trigger::Resumed => Self::Resumed,
            Trigger::Parent => Self::Parent,
        }
    }
}

/// Who asked for it.
pub(super) fn who(trigger: &Trigger) -> Option<String> {
    match trigger {
        Trigger::Hand(who) => Some(who.clone()),
        _ => None,
    }
}

/// What a sync came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeView {
    /// The catalogue has what the upstream has; `changes` says what changed.
    Done,
    /// Nothing is new at the upstream.
    Unchanged,
    /// It failed; `cause` and `detail` say why. The catalogue is as it was.
    Failed,
    /// Somebody cancelled it. The catalogue is as it was.
    Cancelled,
    /// The server stopped; it begins again by itself.
    Interrupted,
}

/// What a sync changed in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangesView {
    /// Updates that are new.
    pub added: u64,
    /// Updates that the source says otherwise than before.
    pub revised: u64,
    /// Updates that it says as before.
    pub unchanged: u64,
    /// Updates that it says no more.
    pub gone: u64,
    /// Updates that the criteria leave out.
    pub outside: u64,
}

/// A sync that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "source": "debian-security", "number": 7, "trigger": "schedule",
    "begun": "2026-11-27T03:00:00Z", "ended": "2026-11-27T03:00:04Z", "stage": "notify",
    "outcome": "done", "bytes": 230411, "entries": 6120, "skipped": 0,
    "changes": {"added": 3, "revised": 0, "unchanged": 6117, "gone": 0, "outside": 0}
}))]
pub struct RunView {
    /// The source.
    pub source: String,
    /// Which sync of it, from 1.
    pub number: u64,
    /// Why it began.
    pub trigger: TriggerView,
    /// Who asked for it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub begun: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub ended: Timestamp,
    /// The last stage that it came to.
    pub stage: String,
    /// What it came to.
    pub outcome: OutcomeView,
    /// What it changed, if it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangesView>,
    /// What kind of failure it was, if it failed: `unreachable`, `bad-signature` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What happened, and what to do, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Bytes that came over the wire.
    pub bytes: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Entries that could not be understood and were passed over.
    pub skipped: u64,
    /// What was wrong with the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_examples: Vec<String>,
}

impl From<RunRecord> for RunView {
    fn from(record: RunRecord) -> Self {
        let (outcome, changes, cause, detail) = match record.outcome {
            Outcome::Done { changes } => {
                let changes = ChangesView {
                    added: changes.added,
                    revised: changes.revised,
                    unchanged: changes.unchanged,
                    gone: changes.gone,
                    outside: changes.outside,
                };
                (OutcomeView::Done, Some(changes), None, None)
            }
            Outcome::Unchanged => (OutcomeView::Unchanged, None, None, None),
            Outcome::Failed { cause, detail } => {
                (OutcomeView::Failed, None, Some(cause.to_string()), Some(detail))
            }
            Outcome::Cancelled => (OutcomeView::Cancelled, None, None, None),
            Outcome::Interrupted => (OutcomeView::Interrupted, None, None, None),
        };
        Self {
            source: record.source.to_string(),
            number: record.number,
            trigger: TriggerView::from(&record.trigger),
            by: who(&record.trigger),
            begun: record.begun,
            ended: record.ended,
            stage: record.stage.as_str().to_owned(),
            outcome,
            changes,
            cause,
            detail,
            bytes: record.bytes,
            entries: record.entries,
            skipped: record.skipped.count,
            skipped_examples: record.skipped.examples,
        }
    }
}

/// What a sync job came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunsView {
    /// One for each source.
    pub runs: Vec<RunView>,
}

/// How to synchronise.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"full": false}))]
pub struct RunSync {
    /// Ask for everything, as if it were the first sync. Also takes an upstream that is not the one that it
    /// was.
    pub full: bool,
}

/// Synchronise all sources
///
/// Those that are enabled. A job, whose result is `RunsView`; it fails if one of them does, after all are
/// over. If one is under way already, the answer is that one.
#[utoipa::path(post, path = "/api/v1/sync/run", tag = "updates", operation_id = "run_sync",
    security(("token" = ["operator"])), request_body = RunSync,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn run_all(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(run): Input<RunSync>,
) -> Result<Accepted, Problem> {
    let begun = blocking(move || {
        let machine = site.updates()?;
        let all = machine.sources().list()?.into_iter().filter(|source| source.enabled);
        let names: Vec<SourceName> = all.map(|source| source.name).collect();
        if names.is_empty() {
            let detail = "there is no source that is enabled: add one with `depot sync source add`";
            return Err(Problem::new(Kind::Conflict, detail));
        }
        begin(&site, &machine, identity, "sync".into(), names, run.full)
    });
    accepted(begun.await?, &note)
}

/// Synchronise a source
///
/// A job, whose result is `RunsView`. If a sync of the source is under way, whoever began it, the job joins
/// that one.
#[utoipa::path(post, path = "/api/v1/sync/sources/{source}/run", tag = "updates",
    operation_id = "run_sync_source", security(("token" = ["operator"])),
    params(("source" = String, Path, description = "Its name", example = "debian-security")),
    request_body = RunSync,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn run_source(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(run): Input<RunSync>,
) -> Result<Accepted, Problem> {
    let name: SourceName = params.get("source")?;
    let begun = blocking(move || {
        let machine = site.updates()?;
        machine.sources().get(&name)?;
        begin(&site, &machine, identity, format!("sync/{name}"), vec![name], run.full)
    });
    accepted(begun.await?, &note)
}

/// Cancel the sync of a source
///
/// It ends soon, and the catalogue is as it was. One that commits already is not cancelled any more.
#[utoipa::path(post, path = "/api/v1/sync/sources/{source}/cancel", tag = "updates",
    operation_id = "cancel_sync", security(("token" = ["operator"])),
    params(("source" = String, Path, description = "Its name", example = "debian-security")),
    responses((status = 200, description = "What it came to", body = RunView)))]
async fn cancel_sync(State(site): State<Site>, params: Params) -> Result<Json<RunView>, Problem> {
    let name: SourceName = params.get("source")?;
    let asked = blocking(move || Ok(site.updates()?.cancel(&name)?)).await?;
    let record = asked.ended().await;
    Ok(Json(RunView::from((*record).clone())))
}

/// Which syncs are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this source.
    source: Option<String>,
}

/// List the syncs that are over
///
/// The last one to end first. Of each source as many are remembered as the settings say.
#[utoipa::path(get, path = "/api/v1/sync/history", tag = "updates", operation_id = "sync_history",
    security(("token" = ["reader"])), params(HistoryQuery),
    responses((status = 200, description = "A page of syncs", body = Page<RunView>)))]
async fn history(
    State(site): State<Site>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Page<RunView>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (page.limit()?, page.after("history")?);
    let source = query.source.map(|name| {
        name.parse::<SourceName>().map_err(|error| Problem::malformed("source", error.to_string()))
    });
    let source = source.transpose()?;
    let mut all = blocking(move || {
        let machine = site.updates()?;
        let names = match source {
            Some(name) => vec![machine.sources().get(&name)?.name],
            None => machine.sources().list()?.into_iter().map(|source| source.name).collect(),
        };
        let mut all = Vec::new();
        for name in names {
            all.extend(machine.history(&name, None, usize::MAX)?);
        }
        Ok(all)
    })
    .await?;
    // Sorts as the times do, back from the end of time.
    let key = |run: &RunRecord| {
        let back = i64::MAX - run.ended.as_microsecond();
        format!("{back:020} {} {:020}", run.source, run.number)
    };
    all.sort_by_key(key);
    let page = Page::cut("history", all, after.as_deref(), limit, key);
    Ok(Json(page.map(RunView::from)))
}

/// A job that begins runs of these sources, or joins those under way, and waits for them.
fn begin(
    site: &Site,
    machine: &Machine,
    by: Identity,
    subject: String,
    names: Vec<SourceName>,
    full: bool,
) -> Result<Job, Problem> {
    let (machine, who) = (machine.clone(), by.name.clone());
    // Of one source the run begins now, so that what keeps it from running is this answer.
    let first = match names.as_slice() {
        [name] => Some(machine.run(name, Trigger::Hand(who.clone()), full)?),
        _ => None,
    };
    let work: Work = Box::new(move |progress| {
        let mut asked: Vec<Asked> = first.into_iter().collect();
        if asked.is_empty() {
            for name in names {
                match machine.run(&name, Trigger::Hand(who.clone()), full) {
                    Ok(run) => asked.push(run),
                    // Between two looks somebody may have disabled or removed it.
                    Err(
                        ::sync::machine::MachineError::Disabled(_)
                        | ::sync::machine::MachineError::Source(SourceError::Unknown(_)),
                    ) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        wait(&asked, progress)
    });
    site.ledger()?.jobs.join_or_submit("sync", &subject, &by, work)
}

/// The stage that each is in which has its turn and is not over, by its source where there are several.
fn stages(asked: &[Asked]) -> String {
    let under_way = asked.iter().filter(|run| !run.is_over());
    let stages = under_way.filter_map(|run| Some((run.source(), run.progress().stage?.as_str())));
    let stages = stages.map(|(source, stage)| match asked {
        [_] => stage.to_owned(),
        _ => format!("{source}: {stage}"),
    });
    stages.collect::<Vec<_>>().join(", ")
}

/// Waits for the end of all of them; a job that is cancelled cancels them.
fn wait(asked: &[Asked], progress: &Progress) -> Result<serde_json::Value, Problem> {
    let runtime = tokio::runtime::Handle::current();
    let mut records: Vec<Arc<RunRecord>> = Vec::new();
    progress.total_files.store(0, Relaxed);
    let mut is_cancelled = false;
    for run in asked {
        loop {
            let ended =
                runtime.block_on(async { tokio::time::timeout(LOOK_EVERY, run.ended()).await });
            let all: Vec<_> = asked.iter().map(Asked::progress).collect();
            progress.files.store(all.iter().map(|run| run.entries).sum(), Relaxed);
            progress.bytes.store(all.iter().map(|run| run.bytes).sum(), Relaxed);
            progress.set_stage(stages(asked));
            if !is_cancelled && progress.check().is_err() {
                is_cancelled = true;
                asked.iter().for_each(Asked::cancel);
            }
            if let Ok(record) = ended {
                records.push(record);
                break;
            }
        }
    }
    let failed = |record: &&Arc<RunRecord>| matches!(record.outcome, Outcome::Failed { .. });
    let failed: Vec<_> = records.iter().filter(failed).collect();
    if let [one, more @ ..] = failed.as_slice()
        && let Outcome::Failed { cause, detail } = &one.outcome
    {
        let more = match more.len() {
            0 => String::new(),
            n => format!(" (and {n} more failed: see `depot sync status`)"),
        };
        return Err(of_cause(*cause, format!("{}: {detail}{more}", one.source)));
    }
    if records.iter().any(|record| record.outcome == Outcome::Interrupted) {
        let detail = "the server stopped; the sync begins again when it is back";
        return Err(Problem::new(Kind::Interrupted, detail));
    }
    if records.iter().any(|record| record.outcome == Outcome::Cancelled) {
        return Err(cancelled());
    }
    let runs = records.iter().map(|record| RunView::from((**record).clone())).collect();
    result_of(&RunsView { runs })
}
