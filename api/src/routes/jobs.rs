//! Long work: list, show, follow, cancel.

use crate::auth::Identity;
use crate::extract::{Params, Query};
use crate::guard::AuditNote;
use crate::jobs::{Job, JobState, Work};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How often the progress of a running job is sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(show_job))
        .routes(routes!(cancel_job))
        .routes(routes!(follow_job))
}

/// What an operation that started a job answers: 202, the job's address, the job.
pub type Accepted = (StatusCode, [(&'static str, String); 1], Json<Job>);

/// Starts `work` about `subject` as a job of kind `kind`.
pub async fn start(
    site: Site,
    identity: Identity,
    note: &AuditNote,
    kind: &'static str,
    subject: String,
    work: Work,
) -> Result<Accepted, Problem> {
    let job = blocking(move || site.ledger()?.jobs.submit(kind, &subject, &identity, work)).await?;
    accepted(job, note)
}

/// The same of a job that was started already.
pub fn accepted(job: Job, note: &AuditNote) -> Result<Accepted, Problem> {
    note.detail(format!("job {}", job.id));
    let location = format!("/api/v1/jobs/{}", job.id);
    Ok((StatusCode::ACCEPTED, [("location", location)], Json(job)))
}

/// The result of a job as JSON.
pub fn result_of(value: &impl Serialize) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::internal(&error))
}

/// Which jobs are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct JobQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only jobs in this state.
    #[param(inline)]
    state: Option<JobState>,
}

/// List jobs
///
/// The newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", security(("token" = ["reader"])),
    params(JobQuery),
    responses((status = 200, description = "A page of jobs", body = Page<Job>)))]
async fn list_jobs(
    State(site): State<Site>,
    Query(query): Query<JobQuery>,
) -> Result<Json<Page<Job>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    Ok(Json(blocking(move || site.ledger()?.jobs.list(&page, query.state)).await?))
}

/// Show a job
#[utoipa::path(get, path = "/api/v1/jobs/{job}", tag = "jobs", security(("token" = ["reader"])),
    params(("job" = String, Path, description = "Its id", example = "0199f0c2a7b1e0d3")),
    responses((status = 200, description = "The job", body = Job)))]
async fn show_job(State(site): State<Site>, params: Params) -> Result<Json<Job>, Problem> {
    let id = params.text("job").to_owned();
    Ok(Json(blocking(move || site.ledger()?.jobs.get(&id)).await?))
}

/// Cancel a job
///
/// One that waits ends at once, one that runs soon: follow it to see its end. One that is over
/// stays as it is.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/cancel", tag = "jobs",
    security(("token" = ["operator"])),
    params(("job" = String, Path, description = "Its id", example = "0199f0c2a7b1e0d3")),
    responses((status = 200, description = "The job", body = Job)))]
async fn cancel_job(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Json<Job>, Problem> {
    let id = params.text("job").to_owned();
    note.target(&id);
    Ok(Json(blocking(move || site.ledger()?.jobs.cancel(&id)).await?))
}

/// Follow a job
///
/// Server-sent events: `progress` with the job about five times a second while it runs, `end` with
/// the job when it is over; then the stream ends. The data of each is the job as JSON.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/events", tag = "jobs",
    security(("token" = ["reader"])),
    params(("job" = String, Path, description = "Its id", example = "0199f0c2a7b1e0d3")),
    responses((status = 200, description = "The events", content_type = "text/event-stream",
        body = String, example = "event: progress\ndata: {\"id\":\"0199f0c2a7b1e0d3\",…}\n\n")))]
async fn follow_job(
    State(site): State<Site>,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let id = params.text("job").to_owned();
    let watch = blocking(move || site.ledger()?.jobs.watch(&id)).await?;
    let events = futures::stream::unfold(Some((watch, true)), |state| async move {
        let (mut watch, first) = state?;
        if !first {
            // Either the state changes, or it is time to tell the progress.
            let _ = tokio::time::timeout(PROGRESS_EVERY, watch.changed()).await;
        }
        let (watch, job) = blocking(move || {
            let job = watch.job();
            Ok((watch, job))
        })
        .await
        .ok()?;
        match job {
            Ok(job) if job.state.is_over() => Some((Ok(event("end", &job)), None)),
            Ok(job) => Some((Ok(event("progress", &job)), Some((watch, false)))),
            // It was forgotten while it was watched.
            Err(_) => None,
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn event(name: &str, job: &Job) -> Event {
    Event::default().event(name).json_data(job).unwrap_or_default()
}

/// What a job that may only run on the data folder itself answers to others.
pub fn only_local(identity: &Identity, what: &str) -> Result<(), Problem> {
    if identity.is_local() {
        return Ok(());
    }
    let detail =
        format!("{what} works on the server's own files: run the command there, with --data");
    Err(Problem::new(Kind::Forbidden, detail))
}
