//! What is promised of jobs.

use super::*;
use futures::FutureExt;
use serde_json::json;
use sitedb::{Change, CommitError, DbError, Entry, Kv, MemoryKv, Range, Seq, Snapshot};
use std::sync::mpsc;
use std::time::Duration;

const LIMITS: Limits = Limits { concurrent: 2, queue: 3, keep: 4 };

fn jobs(db: &Db) -> Jobs {
    Jobs::open(db.clone(), LIMITS, Box::new(|_, _| {})).unwrap()
}

/// Work that ends when `end` is sent to or dropped.
fn waits() -> (mpsc::Sender<()>, Work) {
    let (end, wait) = mpsc::channel::<()>();
    (
        end,
        Box::new(move |progress| {
            while wait.recv_timeout(Duration::from_millis(2))
                == Err(mpsc::RecvTimeoutError::Timeout)
            {
                progress.check().map_err(|_| cancelled())?;
            }
            Ok(json!({"waited": true}))
        }),
    )
}

async fn end_of(jobs: &Jobs, id: &str) -> Job {
    let mut watch = jobs.watch(id).unwrap();
    loop {
        let job = watch.job().unwrap();
        if job.state.is_over() {
            return job;
        }
        watch.changed().await;
    }
}

fn submit(jobs: &Jobs, subject: &str, work: Work) -> Result<Job, Problem> {
    jobs.submit("test", subject, &Identity::local_admin(), work)
}

#[tokio::test]
async fn a_job_is_remembered_with_what_came_of_it() {
    let db = Db::in_memory();
    let jobs = jobs(&db);
    let work: Work = Box::new(|progress| {
        progress.bytes.fetch_add(7, Relaxed);
        Ok(json!({"version": 2}))
    });
    let id = submit(&jobs, "a", work).unwrap().id;
    let done = end_of(&jobs, &id).await;
    assert_eq!((done.state, done.progress.bytes), (JobState::Done, 7));
    let failing: Work = Box::new(|_| Err(Problem::field("source", "cannot be read")));
    let id = submit(&jobs, "a", failing).unwrap().id;
    let failed = end_of(&jobs, &id).await;
    assert_eq!(failed.problem.as_ref().unwrap().errors[0].field, "source");
    let panicking: Work = Box::new(|_| panic!("a fault"));
    let id = submit(&jobs, "a", panicking).unwrap().id;
    assert_eq!(end_of(&jobs, &id).await.state, JobState::Failed);
    drop(jobs);
    let again = self::jobs(&db);
    assert_eq!(again.get(&done.id).unwrap(), done);
    assert_eq!(again.get(&failed.id).unwrap(), failed);
    assert!(again.get("0").unwrap_err().is(Kind::NotFound));
}

#[tokio::test]
async fn one_subject_at_a_time_and_so_many_in_all() {
    let jobs = jobs(&Db::in_memory());
    let mut ends = Vec::new();
    let mut ids = Vec::new();
    for subject in ["a", "a", "b", "c"] {
        let (end, work) = waits();
        ends.push(Some(end));
        ids.push(submit(&jobs, subject, work).unwrap().id);
    }
    let states = |jobs: &Jobs| ids.iter().map(|id| jobs.get(id).unwrap().state).collect::<Vec<_>>();
    use JobState::{Done, Queued, Running};
    assert_eq!(states(&jobs), [Running, Queued, Running, Queued]);
    ends[2] = None;
    end_of(&jobs, &ids[2]).await;
    let mut next = jobs.watch(&ids[3]).unwrap();
    while next.job().unwrap().state == Queued {
        next.changed().await;
    }
    assert_eq!(states(&jobs), [Running, Queued, Done, Running]);
    let (_end, work) = waits();
    submit(&jobs, "a", work).unwrap();
    let (_end, work) = waits();
    submit(&jobs, "a", work).unwrap();
    let refused = submit(&jobs, "d", Box::new(|_| Ok(json!(null)))).unwrap_err();
    assert!(refused.is(Kind::Busy) && refused.retry_after.is_some());
}

#[tokio::test]
async fn cancelling_ends_what_waits_and_what_runs() {
    let jobs = jobs(&Db::in_memory());
    let (_end, running) = waits();
    let (_end2, waiting) = waits();
    let running = submit(&jobs, "a", running).unwrap().id;
    let waiting = submit(&jobs, "a", waiting).unwrap().id;
    assert_eq!(jobs.cancel(&waiting).unwrap().state, JobState::Cancelled);
    jobs.cancel(&running).unwrap();
    assert_eq!(end_of(&jobs, &running).await.state, JobState::Cancelled);
    assert_eq!(jobs.cancel(&running).unwrap().state, JobState::Cancelled);
    assert!(jobs.cancel("0").unwrap_err().is(Kind::NotFound));
}

#[tokio::test]
async fn what_a_crash_cut_off_is_interrupted() {
    let db = Db::in_memory();
    let before = jobs(&db);
    let (_end, work) = waits();
    let id = submit(&before, "a", work).unwrap().id;
    // The first instance goes on as a crashed one would not; the database is what matters.
    let after = jobs(&db);
    let job = after.get(&id).unwrap();
    assert_eq!(job.state, JobState::Interrupted);
    assert!(job.problem.unwrap().is(Kind::Interrupted));
}

#[tokio::test]
async fn stopping_interrupts_all_and_takes_no_more() {
    let jobs = jobs(&Db::in_memory());
    let mut ids = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (end, work) = waits();
        ends.push(end);
        ids.push(submit(&jobs, "a", work).unwrap().id);
    }
    jobs.close().await;
    for id in &ids {
        assert_eq!(jobs.get(id).unwrap().state, JobState::Interrupted);
    }
    assert!(submit(&jobs, "a", Box::new(|_| Ok(json!(null)))).unwrap_err().is(Kind::Unavailable));
}

/// A store that does something else at its next write.
#[derive(Default)]
struct Meanwhile(MemoryKv, Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Kv for Meanwhile {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.0.get(key)
    }
    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.0.scan(range, order, limit)
    }
    fn write(&self, batch: Batch) -> Result<Seq, CommitError> {
        let meanwhile = self.1.lock().take();
        meanwhile.into_iter().for_each(|act| act());
        self.0.write(batch)
    }
    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>, DbError> {
        self.0.changes(after, limit)
    }
    fn last_seq(&self) -> Seq {
        self.0.last_seq()
    }
    fn forget_changes(&self, up_to: Seq) -> Result<(), DbError> {
        self.0.forget_changes(up_to)
    }
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, DbError> {
        self.0.snapshot()
    }
}

#[tokio::test]
async fn a_job_that_comes_while_all_is_closed_does_not_run_any_more() {
    let kv = Arc::new(Meanwhile::default());
    let jobs = jobs(&Db::open(Arc::clone(&kv) as Arc<dyn Kv>).unwrap());
    let closing = jobs.clone();
    let close = move || closing.close().now_or_never().expect("nothing runs");
    *kv.1.lock() = Some(Box::new(close));
    let job = submit(&jobs, "a", Box::new(|_| panic!("it runs"))).unwrap();
    assert_eq!(job.state, JobState::Interrupted);
    assert_eq!(end_of(&jobs, &job.id).await.state, JobState::Interrupted);
}

#[tokio::test]
async fn lists_are_newest_first_and_old_jobs_go() {
    let jobs = jobs(&Db::in_memory());
    let mut ids = Vec::new();
    for _ in 0..7 {
        let job = submit(&jobs, "a", Box::new(|_| Ok(json!(null)))).unwrap();
        end_of(&jobs, &job.id).await;
        ids.push(job.id);
    }
    ids.reverse();
    let listed = |query: &PageQuery, state| {
        let page = jobs.list(query, state).unwrap();
        (page.items.into_iter().map(|job| job.id).collect::<Vec<_>>(), page.next)
    };
    let (first, next) = listed(&PageQuery { limit: Some(3), cursor: None }, None);
    assert_eq!(first, ids[..3]);
    let (second, next) = listed(&PageQuery { limit: Some(4), cursor: next }, Some(JobState::Done));
    assert_eq!((second.as_slice(), next), (&ids[3..], None));
    assert_eq!(listed(&PageQuery::default(), Some(JobState::Failed)).0, [""; 0]);
    jobs.forget_old().unwrap();
    assert_eq!(listed(&PageQuery::default(), None).0, ids[..LIMITS.keep]);
}
