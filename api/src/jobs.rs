//! Long work as resources: submitted, watched, cancelled, remembered.
//!
//! A job is on disk as soon as it is submitted, and its end is on disk before anybody sees it. Jobs
//! that a crash or stop cut off are marked `interrupted` at the next start. A bounded number runs
//! at a time, two jobs about the same subject never do, and a bounded number may wait.

use crate::auth::Identity;
use crate::page::{Page, PageQuery, hex};
use crate::problem::{Kind, Problem};
use crate::translate::cancelled;
use contentlib::Progress;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, Order, Table, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It is at work.
    Running,
    /// It ended well; `result` says what came of it.
    Done,
    /// It ended badly; `problem` says why.
    Failed,
    /// It was cancelled; nothing of it took effect.
    Cancelled,
    /// The server stopped before it ended; start it again.
    Interrupted,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_over(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// What is being done now, where that is told: of a sync the stage of each source's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Files (or other units) done.
    pub files: u64,
    /// Files there are to do; 0 while unknown.
    pub total_files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes there are to read; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes that were not held before.
    pub new_bytes: u64,
    /// Bytes that they take up after compression.
    pub stored_bytes: u64,
}

impl From<&Progress> for JobProgress {
    fn from(progress: &Progress) -> Self {
        Self {
            stage: progress.stage(),
            files: progress.files.load(Relaxed),
            total_files: progress.total_files.load(Relaxed),
            bytes: progress.bytes.load(Relaxed),
            total_bytes: progress.total_bytes.load(Relaxed),
            new_bytes: progress.new_bytes.load(Relaxed),
            stored_bytes: progress.stored_bytes.load(Relaxed),
        }
    }
}

/// A piece of long work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0199f0c2a7b1e0d3", "kind": "update_package", "subject": "package/docs",
    "by": "ci", "state": "done",
    "created": "2026-11-22T12:00:00Z", "started": "2026-11-22T12:00:00Z",
    "ended": "2026-11-22T12:00:04Z",
    "progress": {"files": 312, "total_files": 312, "bytes": 9000000, "total_bytes": 9000000,
                 "new_bytes": 8000000, "stored_bytes": 3000000},
    "result": {"changed": true}
}))]
pub struct Job {
    /// Names the job; ids of later jobs sort behind those of earlier ones.
    pub id: String,
    /// What it does: the operation that started it.
    pub kind: String,
    /// What it works on. Jobs with one subject run one after the other.
    pub subject: String,
    /// Who started it.
    pub by: String,
    /// Where it is in its life.
    pub state: JobState,
    /// When it was submitted.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// How far it is.
    pub progress: JobProgress,
    /// What came of it, if it is done; its form depends on the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
impl Value for Job {}

const JOBS: Table<String, Job> = Table::new("jobs");

/// The jobs that wait or run, so that opening reads these alone.
const UNFINISHED: Table<String, Unfinished> = Table::new("jobs.unfinished");

#[derive(Serialize, Deserialize)]
struct Unfinished {}
impl Value for Unfinished {}

const LIST: &str = "jobs";

/// What a job does. It runs on a thread of its own, checks [`Progress::check`] often, and gives
/// the JSON that becomes [`Job::result`].
pub type Work = Box<dyn FnOnce(&Progress) -> Result<serde_json::Value, Problem> + Send>;

/// Called with each job that ended, before others see its end.
pub type OnEnd = Box<dyn Fn(&Job, &Identity) + Send + Sync>;

/// How many jobs may run, wait and be remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs that run at a time.
    pub concurrent: usize,
    /// Jobs that may wait.
    pub queue: usize,
    /// Ended jobs that are remembered.
    pub keep: usize,
}

/// The jobs of a site. Cloning shares them.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    /// Held while a job is looked for that another request may join.
    joining: Mutex<()>,
    db: Db,
    limits: Limits,
    on_end: OnEnd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Jobs that wait or run.
    live: BTreeMap<String, Arc<Live>>,
    waiting: VecDeque<(Arc<Live>, Work)>,
    running: usize,
    closed: bool,
}

struct Live {
    job: Mutex<Job>,
    by: Identity,
    progress: Progress,
    /// Whether it counts among those that run at a time.
    takes_place: bool,
    /// Tells watchers that the state changed.
    changed: watch::Sender<JobState>,
}

impl Live {
    fn snapshot(&self) -> Job {
        let mut job = self.job.lock().clone();
        if job.state == JobState::Running {
            job.progress = JobProgress::from(&self.progress);
        }
        job
    }
}

/// Follows one job.
pub struct Watch {
    jobs: Jobs,
    id: String,
    states: Option<watch::Receiver<JobState>>,
}

impl Jobs {
    /// Opens the jobs in `db`, and marks those that a crash cut off.
    pub fn open(db: Db, limits: Limits, on_end: OnEnd) -> Result<Self, Problem> {
        let mut batch = Batch::new();
        for (id, _) in UNFINISHED.scan(&db, Order::Ascending, None, usize::MAX)? {
            if let Some(mut job) = JOBS.get(&db, &id)? {
                job.state = JobState::Interrupted;
                job.ended = Some(Timestamp::now());
                job.problem = Some(interrupted());
                JOBS.put(&mut batch, &id, &job);
            }
            UNFINISHED.delete(&mut batch, &id);
        }
        if !batch.is_empty() {
            db.kv().write(batch)?;
        }
        Ok(Self(Arc::new(Inner {
            joining: Mutex::new(()),
            db,
            limits,
            on_end,
            state: Mutex::default(),
        })))
    }

    /// Submits `work`. It runs when a place is free and no other job works on `subject`.
    ///
    /// Must be called inside a tokio runtime.
    pub fn submit(
        &self,
        kind: &str,
        subject: &str,
        by: &Identity,
        work: Work,
    ) -> Result<Job, Problem> {
        self.submit_as(kind, subject, by, work, true)
    }

    /// Submits `work` that mostly waits and is limited by others: it takes no place. If a job of that kind
    /// about that subject waits or runs already, gives that one instead, and `work` is dropped.
    pub fn join_or_submit(
        &self,
        kind: &str,
        subject: &str,
        by: &Identity,
        work: Work,
    ) -> Result<Job, Problem> {
        let _joining = self.0.joining.lock();
        let found = {
            let state = self.0.state.lock();
            let same = |live: &&Arc<Live>| {
                let job = live.job.lock();
                job.kind == kind && job.subject == subject && !job.state.is_over()
            };
            state.live.values().find(same).cloned()
        };
        match found {
            Some(live) => Ok(live.snapshot()),
            None => self.submit_as(kind, subject, by, work, false),
        }
    }

    fn submit_as(
        &self,
        kind: &str,
        subject: &str,
        by: &Identity,
        work: Work,
        takes_place: bool,
    ) -> Result<Job, Problem> {
        let job = Job {
            id: new_id(),
            kind: kind.into(),
            subject: subject.into(),
            by: by.name.clone(),
            state: JobState::Queued,
            created: Timestamp::now(),
            started: None,
            ended: None,
            progress: JobProgress::default(),
            result: None,
            problem: None,
        };
        {
            let state = self.0.state.lock();
            if state.closed {
                return Err(Problem::new(Kind::Unavailable, "the server is stopping"));
            }
            if state.waiting.len() >= self.0.limits.queue.max(1) {
                let detail = format!("{} jobs are waiting: try again later", state.waiting.len());
                return Err(Problem::new(Kind::Busy, detail).retry_after(10));
            }
        }
        // Unsynced: if power fails, the job never ran and nobody needs to know of it.
        let mut batch = Batch::relaxed();
        UNFINISHED.put(&mut batch, &job.id, &Unfinished {});
        self.save(&job, batch)?;
        let live = Arc::new(Live {
            job: Mutex::new(job.clone()),
            by: by.clone(),
            progress: Progress::default(),
            takes_place,
            changed: watch::Sender::new(JobState::Queued),
        });
        let closed = {
            let mut state = self.0.state.lock();
            state.live.insert(job.id.clone(), Arc::clone(&live));
            if !state.closed {
                state.waiting.push_back((Arc::clone(&live), work));
            }
            state.closed
        };
        if closed {
            // While it was recorded: whoever closed waits for it no more.
            self.end(&live, Err(interrupted()));
        }
        self.start_what_may_run();
        self.get(&job.id)
    }

    /// Whether the server is stopping: what is cancelled now is gone on with when it is back.
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().closed
    }

    /// The job of that id.
    pub fn get(&self, id: &str) -> Result<Job, Problem> {
        let live = self.0.state.lock().live.get(id).cloned();
        match live {
            Some(live) => Ok(live.snapshot()),
            None => {
                JOBS.get(&self.0.db, &id.to_owned())?.ok_or_else(|| Problem::not_found("job", id))
            }
        }
    }

    /// A page of jobs, the newest first; only those in `state`, if one is given.
    pub fn list(&self, query: &PageQuery, state: Option<JobState>) -> Result<Page<Job>, Problem> {
        let limit = query.limit()?;
        let mut after = query.after(LIST)?;
        let mut found = Vec::new();
        while found.len() <= limit {
            let some = JOBS.scan(&self.0.db, Order::Descending, after.as_ref(), limit + 1)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            let live = self.0.state.lock();
            found.extend(some.into_iter().map(|(id, job)| match live.live.get(&id) {
                Some(live) => live.snapshot(),
                None => job,
            }));
            drop(live);
            found.retain(|job| state.is_none_or(|state| job.state == state));
        }
        Ok(Page::of(LIST, found, limit, |job| job.id.clone()))
    }

    /// Asks the job to end soon. One that waits ends at once; one that has ended stays as it is.
    pub fn cancel(&self, id: &str) -> Result<Job, Problem> {
        let waiting = {
            let mut state = self.0.state.lock();
            let at = state.waiting.iter().position(|(live, _)| live.job.lock().id == id);
            if at.is_none()
                && let Some(live) = state.live.get(id)
            {
                live.progress.cancel();
            }
            at.and_then(|at| state.waiting.remove(at))
        };
        if let Some((live, _)) = waiting {
            self.end(&live, Err(cancelled()));
        }
        self.get(id)
    }

    /// Follows the job of that id.
    pub fn watch(&self, id: &str) -> Result<Watch, Problem> {
        let states = self.0.state.lock().live.get(id).map(|live| live.changed.subscribe());
        if states.is_none() {
            self.get(id)?;
        }
        Ok(Watch { jobs: self.clone(), id: id.into(), states })
    }

    /// Takes no more jobs, cancels those there are, and waits until they have ended. They count
    /// as interrupted.
    pub async fn close(&self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.closed = true;
            for live in state.live.values() {
                live.progress.cancel();
            }
            std::mem::take(&mut state.waiting)
        };
        for (live, _) in waiting {
            self.end(&live, Err(interrupted()));
        }
        loop {
            let next = {
                let state = self.0.state.lock();
                let under_way = |live: &&Arc<Live>| !live.changed.borrow().is_over();
                state.live.values().find(under_way).map(|live| live.changed.subscribe())
            };
            let Some(mut states) = next else { return };
            let _ = states.wait_for(|state| state.is_over()).await;
        }
    }

    fn start_what_may_run(&self) {
        let mut starting = Vec::new();
        {
            let mut state = self.0.state.lock();
            loop {
                let is_full = state.running >= self.0.limits.concurrent.max(1);
                let busy: Vec<String> = state
                    .live
                    .values()
                    .filter(|live| *live.changed.borrow() == JobState::Running)
                    .map(|live| live.job.lock().subject.clone())
                    .collect();
                let next = state.waiting.iter().position(|(live, _)| {
                    let has_place = !is_full || !live.takes_place;
                    has_place && !busy.contains(&live.job.lock().subject)
                });
                let Some(next) = next.and_then(|at| state.waiting.remove(at)) else { break };
                {
                    let mut job = next.0.job.lock();
                    job.state = JobState::Running;
                    job.started = Some(Timestamp::now());
                }
                next.0.changed.send_replace(JobState::Running);
                state.running += usize::from(next.0.takes_place);
                starting.push(next);
            }
        }
        for (live, work) in starting {
            let jobs = self.clone();
            let span = tracing::info_span!("job", id = %live.job.lock().id);
            tokio::task::spawn_blocking(move || {
                let _in_span = span.enter();
                let run = std::panic::AssertUnwindSafe(|| work(&live.progress));
                let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                    Err(Problem::new(Kind::Internal, "a fault in the program; the log has more"))
                });
                jobs.end(&live, outcome);
                jobs.0.state.lock().running -= usize::from(live.takes_place);
                jobs.start_what_may_run();
            });
        }
    }

    /// Records how a job ended, then shows it.
    fn end(&self, live: &Live, outcome: Result<serde_json::Value, Problem>) {
        let closing = self.0.state.lock().closed;
        let mut job = live.job.lock().clone();
        job.progress = JobProgress { stage: String::new(), ..JobProgress::from(&live.progress) };
        job.ended = Some(Timestamp::now());
        match outcome {
            Ok(result) => {
                job.state = JobState::Done;
                job.result = Some(result);
            }
            Err(problem) => {
                let stopped = problem.is(Kind::Cancelled) || problem.is(Kind::Interrupted);
                job.state = match (stopped, closing) {
                    (true, true) => JobState::Interrupted,
                    (true, false) => JobState::Cancelled,
                    (false, _) => JobState::Failed,
                };
                let interrupted = job.state == JobState::Interrupted;
                job.problem = Some(if interrupted { self::interrupted() } else { problem });
            }
        }
        (self.0.on_end)(&job, &live.by);
        let (id, state) = (job.id.clone(), job.state);
        let recorded = self.save_end(&job);
        *live.job.lock() = job;
        match recorded {
            Ok(()) => drop(self.0.state.lock().live.remove(&id)),
            // On a full volume, say. It is told from memory until it can be recorded.
            Err(problem) => {
                tracing::error!(%id, %problem, "the end of a job could not be recorded yet");
            }
        }
        live.changed.send_replace(state);
    }

    fn save_end(&self, job: &Job) -> Result<(), Problem> {
        let mut batch = Batch::new();
        UNFINISHED.delete(&mut batch, &job.id);
        self.save(job, batch)
    }

    fn save(&self, job: &Job, mut batch: Batch) -> Result<(), Problem> {
        JOBS.put(&mut batch, &job.id, job);
        self.0.db.kv().write(batch).map(|_| ()).map_err(Problem::from)
    }

    /// Keeps the newest ended jobs only, as many as the limits say. Records those whose end could
    /// not be recorded before.
    pub fn forget_old(&self) -> Result<(), Problem> {
        let live: Vec<Arc<Live>> = self.0.state.lock().live.values().cloned().collect();
        for live in live.iter().filter(|live| live.changed.borrow().is_over()) {
            let job = live.job.lock().clone();
            self.save_end(&job)?;
            self.0.state.lock().live.remove(&job.id);
        }
        let all = JOBS.scan(&self.0.db, Order::Descending, None, usize::MAX)?;
        let ended = all.into_iter().filter(|(_, job)| job.state.is_over());
        let mut batch = Batch::relaxed();
        for (id, _) in ended.skip(self.0.limits.keep) {
            JOBS.delete(&mut batch, &id);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.0.db.kv().write(batch).map(|_| ()).map_err(Problem::from)
    }
}

impl Watch {
    /// The job as it is now.
    pub fn job(&self) -> Result<Job, Problem> {
        self.jobs.get(&self.id)
    }

    /// Waits until the job's state changes; at once if it is over.
    pub async fn changed(&mut self) {
        if let Some(states) = &mut self.states
            && states.changed().await.is_err()
        {
            self.states = None;
        }
    }
}

fn interrupted() -> Problem {
    let detail =
        "the server stopped before the job ended; nothing of it took effect: start it again";
    Problem::new(Kind::Interrupted, detail)
}

/// Sixteen hex digits: the milliseconds since 1970, then random ones. Ids of one process rise.
fn new_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let ms = Timestamp::now().as_millisecond().unsigned_abs();
    let now = ms << 16 | u64::from(rand::random::<u16>());
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1)));
    let id = now.max(last.unwrap_or(0) + 1);
    hex(&id.to_be_bytes())
}

#[cfg(test)]
mod tests;
