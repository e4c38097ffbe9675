//! Long operations: start one, watch it to its end, and the `depot job …` commands.
//!
//! A job lives in the site, not in this process. Ctrl-C while a command waits for the job that it
//! started cancels the job, waits until it has ended and returns 130, so that nothing goes on
//! behind the person's back; `--detach` prints its id and leaves it running.

use crate::{
    exit::{Exit, Failure, one_line},
    output::{Out, facts, table},
    progress::{Progress, Standing},
    transport::{Client, Events, Request, failure_of, parse, path},
    units,
};
use api::jobs::{Job, JobProgress, JobState};
use clap::Subcommand;
use http::Method;
use serde::de::DeserializeOwned;
use std::io::Write;

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs, newest first
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot job list
  depot job list --state failed --json | jq -r '.[].id'"
    )]
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Only jobs in this state: queued, running, done, failed, cancelled, interrupted
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one job
    #[command(after_help = "\
Examples:
  depot job show 0199f0c2a7b1e0d3")]
    Show {
        /// Its id
        id: String,
    },
    /// Watch a job until it ends; Ctrl-C ends the watching, not the job
    #[command(after_help = "\
Examples:
  depot job watch 0199f0c2a7b1e0d3
  depot job watch 0199f0c2a7b1e0d3 --json      # a line of JSON for each change")]
    Watch {
        /// Its id
        id: String,
    },
    /// Ask a job to end
    #[command(after_help = "\
Examples:
  depot job cancel 0199f0c2a7b1e0d3")]
    Cancel {
        /// Its id
        id: String,
    },
}

/// Runs a command on jobs.
pub async fn run(command: JobCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        JobCommand::List { limit, state } => {
            let jobs: Vec<Job> =
                client.list("/jobs", &[("state", state.as_deref())], limit).await?;
            out.show(&jobs, |w| w.write_all(job_table(&jobs).as_bytes()))
        }
        JobCommand::Show { id } => {
            let job: Job = client.get(&path(&["jobs", &id])).await?;
            show(&job, out)
        }
        JobCommand::Watch { id } => {
            let end = tokio::select! {
                end = watch(client, &id, out, out.json) => end?,
                _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
            };
            if !out.json {
                show(&end, out)?;
            }
            match end.state {
                JobState::Done => Ok(()),
                _ => Err(ended_badly(&end, false)),
            }
        }
        JobCommand::Cancel { id } => {
            let job = cancel(client, &id).await?;
            out.show(&job, |w| writeln!(w, "job {} is {}", job.id, state_name(job.state)))
        }
    }
}

/// What a long command does with the job it started.
pub enum Ended<T> {
    /// It is done, with this result.
    Done {
        /// What came of it.
        result: T,
        /// What it counted.
        progress: JobProgress,
    },
    /// It goes on without us.
    Detached,
}

/// Starts a job and waits for its result, showing how far it is; with `detach` prints its id.
pub async fn start<T: DeserializeOwned>(
    client: &Client,
    request: Request,
    out: Out,
    detach: bool,
) -> Result<Ended<T>, Failure> {
    let job: Job = client.ask(request).await?;
    go_on(client, job, out, detach).await
}

/// What came of a request that begins a job only where there is long work to do.
pub enum Started<T, U> {
    /// There was.
    Job(Ended<T>),
    /// There was none: this is the answer.
    Done(U),
}

/// The same as [`start`], for such a request.
pub async fn start_or_done<T: DeserializeOwned, U: DeserializeOwned>(
    client: &Client,
    request: Request,
    out: Out,
    detach: bool,
) -> Result<Started<T, U>, Failure> {
    let reply = client.send(request).await?;
    let is_job = reply.status == http::StatusCode::ACCEPTED;
    let body = reply.collect().await?;
    match is_job {
        true => Ok(Started::Job(go_on(client, parse(&body)?, out, detach).await?)),
        false => Ok(Started::Done(parse(&body)?)),
    }
}

async fn go_on<T: DeserializeOwned>(
    client: &Client,
    job: Job,
    out: Out,
    detach: bool,
) -> Result<Ended<T>, Failure> {
    if detach {
        let next = |w: &mut dyn Write| {
            writeln!(w, "job {} started; follow it with `depot job watch {}`", job.id, job.id)
        };
        out.show(&job, next)?;
        return Ok(Ended::Detached);
    }
    let job = finish(client, job, out).await?;
    let result = serde_json::from_value(job.result.unwrap_or_default())?;
    Ok(Ended::Done { result, progress: job.progress })
}

/// Waits for a job's good end. Ctrl-C cancels it.
async fn finish(client: &Client, job: Job, out: Out) -> Result<Job, Failure> {
    let mut interrupted = false;
    let end = if job.state.is_over() {
        job
    } else {
        let watching = watch(client, &job.id, out, false);
        tokio::pin!(watching);
        tokio::select! {
            end = &mut watching => end?,
            _ = tokio::signal::ctrl_c() => {
                interrupted = true;
                out.note("stopping; Ctrl-C again leaves at once");
                let ending = async {
                    cancel(client, &job.id).await?;
                    watching.await
                };
                tokio::select! {
                    end = ending => end?,
                    _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
                }
            }
        }
    };
    match end.state {
        JobState::Done => Ok(end),
        _ => Err(ended_badly(&end, interrupted)),
    }
}

async fn cancel(client: &Client, id: &str) -> Result<Job, Failure> {
    client.ask(Request::new(Method::POST, &path(&["jobs", id, "cancel"]))).await
}

/// Follows a job to its end; with `lines` prints each state as a line of JSON.
async fn watch(client: &Client, id: &str, out: Out, lines: bool) -> Result<Job, Failure> {
    let request = Request::new(Method::GET, &path(&["jobs", id, "events"]));
    let mut events = Events::of(client.send(request).await?);
    let mut progress = Progress::new(out);
    while let Some(event) = events.next().await? {
        if event.data.is_empty() {
            continue;
        }
        let job: Job = parse(event.data.as_bytes())?;
        if lines {
            out.json_line(&job)?;
        }
        if job.state.is_over() {
            return Ok(job);
        }
        progress.set(&standing(&job));
    }
    // A server that is stopping, or a proxy, may end the stream early.
    let job: Job = client.get(&path(&["jobs", id])).await?;
    if job.state.is_over() {
        return Ok(job);
    }
    Err(Failure::failed(format!(
        "the server stopped telling about job {id}; see `depot job show {id}`"
    )))
}

fn standing(job: &Job) -> Standing {
    let p = &job.progress;
    let known = |n: u64| (n > 0).then_some(n);
    // What a sync counts are entries of its upstream, and their bytes are all new.
    let is_sync = job.kind == "sync";
    Standing {
        stage: if job.state == JobState::Queued { "waiting".into() } else { p.stage.clone() },
        unit: is_sync.then_some("entries"),
        files: p.files,
        total_files: known(p.total_files),
        bytes: p.bytes,
        total_bytes: known(p.total_bytes),
        new_bytes: (p.bytes > 0 && !is_sync).then_some(p.new_bytes),
    }
}

fn ended_badly(job: &Job, interrupted: bool) -> Failure {
    match (&job.problem, job.state) {
        _ if interrupted => Failure::interrupted(),
        (Some(problem), _) => failure_of(problem),
        (None, state) => {
            Failure::new(Exit::Failed, format!("job {} was {}", job.id, state_name(state)))
        }
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Interrupted => "interrupted",
    }
}

fn job_table(jobs: &[Job]) -> String {
    let rows = jobs
        .iter()
        .map(|job| {
            let p = &job.progress;
            [
                job.id.clone(),
                job.kind.clone(),
                job.subject.clone(),
                state_name(job.state).to_owned(),
                units::when(job.created),
                units::count(p.files),
                units::bytes(p.bytes),
                job.by.clone(),
            ]
        })
        .collect();
    table(["id", "kind", "subject", "state", "created", ">files", ">bytes", "by"], rows)
}

fn show(job: &Job, out: Out) -> Result<(), Failure> {
    let p = &job.progress;
    let mut rows = vec![
        ("id", job.id.clone()),
        ("kind", job.kind.clone()),
        ("subject", job.subject.clone()),
        ("state", state_name(job.state).to_owned()),
        ("by", job.by.clone()),
        ("created", units::when(job.created)),
    ];
    if let (Some(started), Some(ended)) = (job.started, job.ended) {
        rows.push(("took", units::duration(ended.duration_since(started).unsigned_abs())));
    }
    rows.push(("files", units::count(p.files)));
    rows.push(("bytes", units::bytes(p.bytes)));
    rows.push(("new", units::bytes(p.new_bytes)));
    rows.push(("stored", units::bytes(p.stored_bytes)));
    if let Some(result) = &job.result {
        rows.push(("result", result.to_string()));
    }
    if let Some(problem) = &job.problem {
        rows.push(("problem", one_line(&problem.to_string())));
    }
    out.show(job, |w| w.write_all(facts(&rows).as_bytes()))
}
