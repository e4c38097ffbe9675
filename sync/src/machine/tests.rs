//! The machine with upstreams that do as they are told: fail, stall or hang at each stage in turn.

use super::*;
use crate::adapter::{Criteria, Extent, Fetched, Read, Run, Said, Skipped};
use crate::messages::{Severity, Wanted};
use crate::name::UpdateId;
use crate::schedule::Schedule;
use crate::source::SourceKind;
use crate::update::Update;
use futures::future::BoxFuture;
use jiff::ToSpan;
use sitedb::FaultyKv;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;

const STAGES: [Stage; 4] = [Stage::Connect, Stage::Fetch, Stage::Verify, Stage::Parse];

/// A kind whose updates the criteria decide on; who reads it is handed in.
fn of_web() -> SourceKind {
    let settings = serde_json::json!({"kind": "rpm", "settings": {"url": "https://rpm.example/"}});
    serde_json::from_value(settings).unwrap()
}

/// An upstream, as the test sets it.
#[derive(Default)]
struct Upstream {
    is: Mutex<Is>,
    fetches: AtomicU32,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
    /// Files that were brought, those found from a run before not counted.
    brought: AtomicU32,
}

#[derive(Clone, Default)]
struct Is {
    version: u32,
    updates: Vec<&'static str>,
    fails: Option<(Stage, Cause)>,
    /// It says and brings nothing more there.
    hangs: Option<Stage>,
    /// It is told here that it came to where it hangs.
    hung: Option<mpsc::Sender<()>>,
    skips: u64,
}

struct Script(Arc<Upstream>);

impl Script {
    fn pass(&self, run: &Run, stage: Stage) -> Result<bool, SyncError> {
        run.stage(stage)?;
        let is = self.0.is.lock().clone();
        if let Some((_, cause)) = is.fails.filter(|(at, _)| *at == stage) {
            return Err(SyncError::new(
                cause,
                format!("the test has it fail at {}", stage.as_str()),
            ));
        }
        let hangs = is.hangs == Some(stage);
        if hangs && let Some(hung) = is.hung {
            hung.send(()).unwrap();
        }
        Ok(hangs)
    }
}

impl Adapter for Script {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        Box::pin(async move {
            self.0.fetches.fetch_add(1, Relaxed);
            let now = self.0.at_once.fetch_add(1, Relaxed) + 1;
            self.0.most_at_once.fetch_max(now, Relaxed);
            let _left = Left(&self.0.at_once);
            for stage in [Stage::Connect, Stage::Fetch, Stage::Verify] {
                if self.pass(run, stage)? {
                    std::future::pending::<()>().await;
                }
                tokio::task::yield_now().await;
                let version = self.0.is.lock().version;
                if stage == Stage::Connect && state == Some(&version.into()) {
                    return Ok(Fetched::Unchanged);
                }
                let file = run.file(&format!("index-{version}"));
                if stage == Stage::Fetch && !file.exists() {
                    std::fs::write(file, b"all of it").unwrap();
                    self.0.brought.fetch_add(1, Relaxed);
                    run.watch.came(9);
                }
            }
            Ok(Fetched::Changed)
        })
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        let is = self.0.is.lock().clone();
        for (n, name) in is.updates.iter().enumerate() {
            run.watch.read()?;
            let id = UpdateId::named(&[name]);
            let created = Timestamp::from_second(1_700_000_000).unwrap();
            let title = format!("{name}, version {}", is.version);
            take(Said::Update(Box::new(Update::new(id, name, &title, created))))?;
            // In the middle.
            if n == is.updates.len() / 2 && self.pass(run, Stage::Parse)? {
                while run.watch.check().is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                run.watch.check()?;
            }
        }
        let mut skipped = Skipped::default();
        (0..is.skips).for_each(|n| skipped.add(format!("entry {n} is odd")));
        Ok(Read { extent: Extent::Whole, state: is.version.into(), skipped })
    }
}

struct Left<'a>(&'a AtomicU32);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A site whose sources all read one upstream.
struct Site {
    db: Db,
    folder: tempfile::TempDir,
    upstream: Arc<Upstream>,
    settings: Settings,
    now: Arc<Mutex<Timestamp>>,
}

impl Site {
    fn new() -> Self {
        let now = "2026-11-27T10:00:00Z".parse().unwrap();
        Self {
            db: Db::in_memory(),
            folder: tempfile::tempdir().unwrap(),
            upstream: Arc::default(),
            settings: Settings::default(),
            now: Arc::new(Mutex::new(now)),
        }
    }

    /// Opens it, as the start of a server does.
    fn open(&self) -> Machine {
        let (upstream, now) = (self.upstream.clone(), self.now.clone());
        let parts = Parts {
            now: Arc::new(move || *now.lock()),
            dice: Arc::new(|| 0.5),
            adapters: Arc::new(move |_| Ok(Box::new(Script(upstream.clone())))),
        };
        Machine::open(self.db.clone(), self.folder.path().into(), self.settings, parts).unwrap()
    }

    /// Opens it with one source, `a`, whose upstream has two updates.
    fn with_a(&self) -> Machine {
        let machine = self.open();
        let source = Source::new(name("a"), of_web(), *self.now.lock());
        machine.sources().add(&source).unwrap();
        self.has(1, &["first", "second"]);
        machine
    }

    fn has(&self, version: u32, updates: &[&'static str]) {
        *self.upstream.is.lock() = Is { version, updates: updates.to_vec(), ..Is::default() };
    }

    fn set(&self, change: impl FnOnce(&mut Is)) {
        change(&mut self.upstream.is.lock());
    }

    fn passes(&self, seconds: i64) {
        *self.now.lock() += seconds.seconds();
    }
}

fn name(text: &str) -> SourceName {
    text.parse().unwrap()
}

fn by_hand() -> Trigger {
    Trigger::Hand("test".into())
}

async fn run(machine: &Machine) -> RunRecord {
    let asked = machine.run(&name("a"), by_hand(), false).unwrap();
    (*asked.ended().await).clone()
}

fn titles(machine: &Machine) -> Vec<String> {
    let of = |name| machine.catalogue().entry(UpdateId::named(&[name])).unwrap();
    let all = ["first", "second", "third"].into_iter().filter_map(of);
    let shown = all.filter(|entry| !entry.sources.is_empty());
    shown.map(|entry| entry.update.text(&[]).unwrap().title.clone()).collect()
}

/// The ids of all messages, the oldest first.
fn said(machine: &Machine) -> Vec<u32> {
    let all = machine.messages().list(&Wanted::default(), None, 1_000).unwrap();
    all.into_iter().rev().map(|(_, message)| message.id.0).collect()
}

#[tokio::test]
async fn a_sync_fills_the_catalogue_and_says_so_and_the_next_asks_whether_anything_is_new() {
    let site = Site::new();
    let machine = site.with_a();
    let first = run(&machine).await;
    let Outcome::Done { changes } = &first.outcome else { panic!("{first:?}") };
    assert_eq!((changes.added, first.stage, first.bytes, first.entries), (2, Stage::Notify, 9, 2));
    assert_eq!(titles(&machine), ["first, version 1", "second, version 1"]);
    assert_eq!(said(&machine), [6701, 6704, 6705, 6702]);
    let second = run(&machine).await;
    assert_eq!((second.outcome, second.number, second.bytes), (Outcome::Unchanged, 2, 0));
    assert_eq!(said(&machine)[4..], [6701, 6704, 6702]);
    site.has(2, &["second", "third"]);
    site.set(|is| is.skips = 30);
    let third = run(&machine).await;
    let Outcome::Done { changes } = third.outcome else { panic!("{third:?}") };
    assert_eq!((changes.added, changes.revised, changes.gone), (1, 1, 1));
    assert_eq!((third.skipped.count, third.skipped.examples.len()), (30, 20));
    assert_eq!(titles(&machine), ["second, version 2", "third, version 2"]);
    assert_eq!(said(&machine)[7..], [6701, 6704, 6705, 6702, 9004]);
    let history = machine.history(&name("a"), None, 9).unwrap();
    assert_eq!(history.iter().map(|run| run.number).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(machine.history(&name("a"), Some(3), 1).unwrap()[0].number, 2);
}

#[tokio::test]
async fn one_that_fails_at_any_stage_leaves_the_catalogue_and_the_next_goes_on_with_what_came() {
    for stage in STAGES {
        let site = Site::new();
        let machine = site.with_a();
        run(&machine).await;
        site.has(2, &["first", "second", "third"]);
        site.set(|is| is.fails = Some((stage, Cause::Unreachable)));
        let failed = run(&machine).await;
        let Outcome::Failed { cause, detail } = &failed.outcome else { panic!("{failed:?}") };
        assert_eq!((*cause, failed.stage), (Cause::Unreachable, stage));
        assert!(detail.contains(stage.as_str()), "{detail}");
        assert_eq!(titles(&machine), ["first, version 1", "second, version 1"], "{stage:?}");
        assert_eq!(said(&machine)[said(&machine).len() - 2..], [6703, 9003]);
        let brought = site.upstream.brought.load(Relaxed);
        site.set(|is| is.fails = None);
        assert!(run(&machine).await.outcome.is_good());
        let again = site.upstream.brought.load(Relaxed) - brought;
        assert_eq!(again, u32::from(stage <= Stage::Fetch), "{stage:?}: what came is used again");
        assert_eq!(titles(&machine).len(), 3);
    }
}

#[tokio::test]
async fn one_in_which_nothing_moves_is_ended_as_stalled() {
    for stage in STAGES {
        let mut site = Site::new();
        site.settings.patience = Duration::from_millis(30);
        let machine = site.with_a();
        site.set(|is| is.hangs = Some(stage));
        let stalled = run(&machine).await;
        let Outcome::Failed { cause, .. } = stalled.outcome else { panic!("{stalled:?}") };
        assert_eq!((cause, stalled.stage), (Cause::Stalled, stage));
        site.set(|is| is.hangs = None);
        assert!(run(&machine).await.outcome.is_good());
    }
}

#[tokio::test]
async fn one_can_be_cancelled_at_any_stage_until_it_commits() {
    for stage in STAGES {
        let site = Site::new();
        let machine = site.with_a();
        let (hung, came) = mpsc::channel();
        site.set(|is| (is.hangs, is.hung) = (Some(stage), Some(hung)));
        let asked = machine.run(&name("a"), by_hand(), false).unwrap();
        tokio::task::spawn_blocking(move || came.recv().unwrap()).await.unwrap();
        assert_eq!(asked.progress().stage, Some(stage));
        machine.cancel(&name("a")).unwrap();
        assert_eq!(asked.ended().await.outcome, Outcome::Cancelled);
        assert_eq!(titles(&machine), [""; 0]);
        assert_eq!(said(&machine).last(), Some(&9001));
        assert!(matches!(machine.cancel(&name("a")), Err(MachineError::NotUnderWay(_))));
    }
}

#[test]
fn one_that_is_killed_at_any_stage_begins_again_and_goes_on_with_what_came() {
    for stage in STAGES {
        let site = Site::new();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (hung, came) = mpsc::channel();
        let machine = runtime.block_on(async {
            let machine = site.with_a();
            site.set(|is| (is.hangs, is.hung) = (Some(stage), Some(hung)));
            machine.run(&name("a"), by_hand(), false).unwrap();
            machine
        });
        came.recv().unwrap();
        // Nothing of it goes on, and nothing is recorded.
        let live = machine.0.state.lock().live[&name("a")].clone();
        runtime.shutdown_background();
        live.watch.stop.cancel();
        drop(machine);
        site.set(|is| is.hangs = None);

        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let machine = site.open();
            assert_eq!(titles(&machine), [""; 0]);
            let status = machine.status_of(&name("a")).unwrap();
            assert_eq!(status.last.unwrap().outcome, Outcome::Interrupted);
            assert_eq!(status.next.unwrap().1, Trigger::Resumed);
            let brought = site.upstream.brought.load(Relaxed);
            assert_eq!(machine.begin_due().unwrap(), None);
            while machine.history(&name("a"), None, 9).unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let resumed = machine.history(&name("a"), None, 1).unwrap().pop().unwrap();
            assert_eq!((resumed.trigger, resumed.outcome.is_good()), (Trigger::Resumed, true));
            let again = site.upstream.brought.load(Relaxed) - brought;
            assert_eq!(again, u32::from(stage <= Stage::Fetch), "{stage:?}");
            assert_eq!(titles(&machine).len(), 2);
            assert!(said(&machine).contains(&9002));
        });
    }
}

/// The rest of a site: writes down what it is told, and may fail or hang.
#[derive(Default)]
struct Told {
    calls: Mutex<Vec<String>>,
    fails: Mutex<Vec<&'static str>>,
    hangs: AtomicBool,
    /// One that does not answer.
    silent: Mutex<&'static str>,
}

impl Told {
    fn call(&self, what: String) -> BoxFuture<'_, Result<(), SyncError>> {
        let is_silent = what == *self.silent.lock();
        let fails = self.fails.lock().iter().any(|fails| what.starts_with(fails));
        self.calls.lock().push(what);
        Box::pin(async move {
            if self.hangs.load(Relaxed) || is_silent {
                std::future::pending::<()>().await;
            }
            match fails {
                true => Err(SyncError::new(Cause::Unreachable, "nobody is there")),
                false => Ok(()),
            }
        })
    }
}

impl Notify for Told {
    fn publish(&self, seq: u64) -> BoxFuture<'_, Result<(), SyncError>> {
        self.call(format!("publish {}", seq > 0))
    }
    fn children(&self) -> Vec<String> {
        vec!["paris".into(), "lyon".into()]
    }
    fn tell_child<'a>(&'a self, child: &'a str, _: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        self.call(format!("child {child}"))
    }
    fn points(&self) -> Vec<String> {
        vec!["sup-2".into(), "sup-3".into()]
    }
    fn replicate<'a>(&'a self, point: &'a str, _: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        self.call(format!("point {point}"))
    }
}

#[tokio::test]
async fn others_are_told_in_order_after_a_change_and_one_that_fails_keeps_none_from_it() {
    let site = Site::new();
    let machine = site.with_a();
    let told = Arc::new(Told::default());
    told.fails.lock().extend(["child paris", "point sup-2"]);
    machine.set_notify(told.clone());
    assert!(run(&machine).await.outcome.is_good());
    machine.points_told().await;
    let calls = std::mem::take(&mut *told.calls.lock());
    assert_eq!(calls, ["publish true", "child paris", "child lyon", "point sup-2", "point sup-3"]);
    assert_eq!(said(&machine), [6701, 6704, 6705, 6702, 9005, 6707]);
    run(&machine).await;
    machine.points_told().await;
    assert_eq!(*told.calls.lock(), [""; 0], "nothing is new, so nobody is told");
}

#[tokio::test]
async fn a_child_site_that_stays_away_is_told_of_once_until_it_is_there_again() {
    let site = Site::new();
    let machine = site.with_a();
    let told = Arc::new(Told::default());
    machine.set_notify(told.clone());
    let away = || said(&machine).iter().filter(|id| **id == 9005).count();
    for (fails, expected) in [(true, 1), (true, 1), (false, 1), (true, 2)] {
        *told.fails.lock() = if fails { vec!["child paris"] } else { vec![] };
        machine.tell_settings().await.unwrap();
        assert_eq!(away(), expected);
    }
}

#[tokio::test]
async fn an_update_point_that_is_dead_holds_up_nothing_and_is_told_after_a_restart() {
    let site = Site::new();
    let machine = site.with_a();
    let told = Arc::new(Told::default());
    *told.silent.lock() = "point sup-2";
    machine.set_notify(told.clone());
    assert!(run(&machine).await.outcome.is_good());
    while !told.calls.lock().contains(&"point sup-2".into()) {
        tokio::task::yield_now().await;
    }
    // While it is waited for, the source has news, and that is told to clients and child sites.
    site.has(2, &["first", "third"]);
    assert!(run(&machine).await.outcome.is_good());
    let times = |what: &str| told.calls.lock().iter().filter(|call| *call == what).count();
    assert_eq!((times("child lyon"), times("point sup-2"), times("point sup-3")), (2, 1, 0));
    // Another source for update points is told at once.
    machine.tell_points();
    while times("point sup-2") < 2 {
        tokio::task::yield_now().await;
    }
    machine.close().await;
    assert_eq!(times("point sup-3"), 0);
    assert!(!said(&machine).contains(&6707), "it was not given up");
    drop(machine);

    let machine = site.open();
    let told = Arc::new(Told::default());
    machine.set_notify(told.clone());
    let stop = CancellationToken::new();
    let (serving, ends) = (machine.clone(), stop.clone());
    let serving = tokio::spawn(async move { serving.serve(&ends).await });
    while told.calls.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    machine.points_told().await;
    stop.cancel();
    serving.await.unwrap();
    assert_eq!(*told.calls.lock(), ["point sup-2", "point sup-3"]);
    assert!(!machine.owe_points().unwrap());
}

#[test]
fn what_a_commit_owes_is_made_good_for_after_a_kill() {
    for hangs in [true, false] {
        let site = Site::new();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let machine = site.with_a();
            let told = Arc::new(Told::default());
            told.hangs.store(hangs, Relaxed);
            told.fails.lock().push("publish");
            machine.set_notify(told.clone());
            let asked = machine.run(&name("a"), by_hand(), false).unwrap();
            if hangs {
                while told.calls.lock().is_empty() {
                    tokio::task::yield_now().await;
                }
            } else {
                assert!(!asked.ended().await.outcome.is_good());
            }
            assert_eq!(titles(&machine).len(), 2, "it is committed");
            assert!(!said(&machine).contains(&6702));
        });
        runtime.shutdown_background();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let machine = site.open();
            let told = Arc::new(Told::default());
            machine.set_notify(told.clone());
            assert_eq!(run(&machine).await.outcome, Outcome::Unchanged);
            machine.points_told().await;
            assert_eq!(told.calls.lock().len(), 5);
            assert!(said(&machine).contains(&6702));
        });
    }
}

/// Whatever write the store fails at first, and whether or not that one was made: the catalogue is the old
/// one or the new one, and the next start makes all good, with what was told to others.
#[test]
fn a_store_that_fails_at_any_write_leaves_the_old_catalogue_or_the_new_one() {
    let over = |kv: &Arc<FaultyKv>| Db::open(Arc::clone(kv) as Arc<dyn sitedb::Kv>).unwrap();
    let mut failed_at = std::collections::BTreeSet::new();
    for applies in [false, true] {
        for writes in 0.. {
            let (mut site, kv) = (Site::new(), Arc::new(FaultyKv::default()));
            site.db = over(&kv);
            let told = Arc::new(Told::default());
            let old = ["first, version 1", "second, version 1"];
            let new = ["first, version 2", "third, version 2"];
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let is_over = runtime.block_on(async {
                let machine = site.with_a();
                run(&machine).await;
                machine.set_notify(told.clone());
                site.has(2, &["first", "third"]);
                kv.fail_after(writes, applies);
                if let Ok(asked) = machine.run(&name("a"), by_hand(), false) {
                    let ended = asked.ended().await;
                    if !ended.outcome.is_good() {
                        failed_at.insert(ended.stage);
                    }
                    machine.points_told().await;
                }
                let shown = titles(&machine);
                assert!(shown == old || shown == new, "after {writes} writes: {shown:?}");
                kv.still_works()
            });
            drop(runtime);
            if is_over {
                break;
            }
            site.db = over(&Arc::new(kv.after_power_cut(0)));
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let machine = site.open();
                machine.set_notify(told.clone());
                let shown = titles(&machine);
                assert!(shown == old || shown == new, "after {writes} writes: {shown:?}");
                assert!(run(&machine).await.outcome.is_good(), "after {writes} writes");
                assert_eq!(titles(&machine), new, "after {writes} writes");
                machine.points_told().await;
                assert!(told.calls.lock().contains(&"point sup-3".to_owned()));
                let done = Wanted { id: Some(MessageId::DONE), ..Wanted::default() };
                assert!(machine.messages().list(&done, None, 9).unwrap().len() >= 2);
            });
        }
    }
    // The others write nothing to it: what is parsed is written at the latest where it is compared.
    let stages = [Stage::Connect, Stage::Diff, Stage::Commit, Stage::Publish, Stage::Notify];
    assert_eq!(failed_at, stages.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_overlapping_requests_are_one_run_and_many_sources_keep_their_turns() {
    let mut site = Site::new();
    site.settings.concurrent = 3;
    let machine = site.with_a();
    let (hung, came) = mpsc::channel();
    site.set(|is| (is.hangs, is.hung) = (Some(Stage::Connect), Some(hung)));
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let machine = machine.clone();
            tokio::task::spawn_blocking(move || machine.run(&name("a"), by_hand(), false).unwrap())
        })
        .collect();
    let asked: Vec<Asked> =
        futures::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(asked.iter().filter(|asked| !asked.joined).count(), 1);
    assert!(asked.iter().all(|asked| asked.number() == 1));
    assert!(matches!(machine.run(&name("a"), by_hand(), true), Err(MachineError::UnderWay(_))));
    tokio::task::spawn_blocking(move || came.recv().unwrap()).await.unwrap();
    machine.cancel(&name("a")).unwrap();
    for asked in &asked {
        assert_eq!(asked.ended().await.outcome, Outcome::Cancelled);
    }
    assert_eq!(site.upstream.fetches.load(Relaxed), 1);

    site.set(|is| (is.hangs, is.hung) = (None, None));
    for n in 0..50 {
        let source = Source::new(name(&format!("s{n}")), of_web(), *site.now.lock());
        machine.sources().add(&source).unwrap();
    }
    let all: Vec<Asked> =
        (0..50).map(|n| machine.run(&name(&format!("s{n}")), by_hand(), false).unwrap()).collect();
    for asked in all {
        assert!(asked.ended().await.outcome.is_good());
    }
    assert!(site.upstream.most_at_once.load(Relaxed) <= 3);
    // All say the same updates, of which each is there once, with all who say it.
    let all = machine.catalogue().changes(Default::default(), 1_000).unwrap().entries;
    assert_eq!(all.len(), 2);
    for one in all {
        assert_eq!(machine.catalogue().entry(one.id).unwrap().unwrap().sources.len(), 50);
    }
}

#[tokio::test]
async fn of_those_that_wait_the_most_urgent_comes_first() {
    let mut site = Site::new();
    site.settings.concurrent = 1;
    let machine = site.with_a();
    let (hung, came) = mpsc::channel();
    site.set(|is| (is.hangs, is.hung) = (Some(Stage::Connect), Some(hung)));
    machine.run(&name("a"), by_hand(), false).unwrap();
    let (low, high) = (name("low"), name("high"));
    for (name, priority) in [(&low, 10), (&high, 90)] {
        let mut source = Source::new(name.clone(), of_web(), *site.now.lock());
        source.priority = priority;
        machine.sources().add(&source).unwrap();
        let asked = machine.run(name, by_hand(), false).unwrap();
        assert_eq!(asked.progress().stage, None, "it waits");
    }
    tokio::task::spawn_blocking(move || came.recv().unwrap()).await.unwrap();
    site.set(|is| (is.hangs, is.hung) = (None, None));
    machine.cancel(&name("a")).unwrap();
    for waits in [&high, &low] {
        if let Ok(asked) = machine.run(waits, by_hand(), false) {
            asked.ended().await;
        }
    }
    let started = Wanted { id: Some(MessageId::STARTED), ..Wanted::default() };
    let started = machine.messages().list(&started, None, 9).unwrap();
    let order: Vec<_> = started.iter().rev().filter_map(|(_, m)| m.source.clone()).collect();
    assert_eq!(order[..3], [name("a"), high, low]);
}

#[tokio::test]
async fn what_failed_in_passing_is_tried_again_and_then_left_to_its_schedule() {
    let site = Site::new();
    let machine = site.with_a();
    site.set(|is| is.fails = Some((Stage::Connect, Cause::NotFound)));
    run(&machine).await;
    for (seconds, failures) in [(300, 1), (600, 2)] {
        let status = machine.status_of(&name("a")).unwrap();
        assert_eq!(status.standing.failures, failures);
        assert_eq!(status.next, Some((*site.now.lock() + seconds.seconds(), Trigger::Retry)));
        site.passes(seconds);
        machine.begin_due().unwrap();
        machine.run(&name("a"), by_hand(), false).unwrap().ended().await;
    }
    let status = machine.status_of(&name("a")).unwrap();
    let three = "2026-11-28T03:00:00Z".parse().unwrap();
    assert_eq!(status.next, Some((three, Trigger::Schedule)));
    *site.now.lock() = three;
    site.set(|is| is.fails = Some((Stage::Connect, Cause::Misconfigured)));
    machine.begin_due().unwrap();
    machine.run(&name("a"), by_hand(), false).unwrap().ended().await;
    let status = machine.status_of(&name("a")).unwrap();
    assert_eq!((status.next, status.waits), (None, true), "until a person changes something");
    let wanted = Criteria { products: ["x".to_owned()].into(), ..Criteria::default() };
    machine.sources().set_criteria(wanted).unwrap();
    let status = machine.status_of(&name("a")).unwrap();
    assert!(status.next.is_some() && !status.waits);
}

#[tokio::test]
async fn a_served_machine_begins_what_is_due() {
    let site = Site::new();
    let machine = site.with_a();
    let every_minute: Schedule = "every minute".parse().unwrap();
    machine.sources().set_schedule(every_minute, *site.now.lock()).unwrap();
    site.passes(60);
    let stop = CancellationToken::new();
    let (served, of) = (machine.clone(), stop.clone());
    let serving = tokio::spawn(async move { served.serve(&of).await });
    while machine.history(&name("a"), None, 1).unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let first = machine.history(&name("a"), None, 1).unwrap().pop().unwrap();
    assert_eq!((first.trigger, first.outcome.is_good()), (Trigger::Schedule, true));
    site.passes(60);
    machine.was_changed().unwrap();
    while machine.history(&name("a"), None, 9).unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_source_that_is_changed_meanwhile_does_not_commit_and_one_that_is_removed_leaves_nothing()
{
    let site = Site::new();
    let machine = site.with_a();
    let (hung, came) = mpsc::channel();
    site.set(|is| (is.hangs, is.hung) = (Some(Stage::Fetch), Some(hung)));
    let asked = machine.run(&name("a"), by_hand(), false).unwrap();
    tokio::task::spawn_blocking(move || came.recv().unwrap()).await.unwrap();
    let removed = machine.remove(&name("a")).await.unwrap();
    assert_eq!(asked.ended().await.outcome, Outcome::Cancelled);
    assert!(!site.folder.path().join("a").exists());
    assert!(machine.history(&name("a"), None, 9).unwrap().is_empty());
    assert!(matches!(machine.remove(&name("a")).await, Err(MachineError::Source(_))));

    // The same name is another source, and its runs have other numbers.
    machine.sources().add(&removed).unwrap();
    site.set(|is| (is.hangs, is.hung) = (None, None));
    let first = run(&machine).await;
    assert_eq!((first.number, first.outcome.is_good()), (2, true));
    machine.remove(&name("a")).await.unwrap();
    assert_eq!(titles(&machine), [""; 0]);
}

#[tokio::test]
async fn other_criteria_and_a_full_sync_read_all_anew() {
    let site = Site::new();
    let machine = site.with_a();
    run(&machine).await;
    assert_eq!(run(&machine).await.outcome, Outcome::Unchanged);
    let full = machine.run(&name("a"), by_hand(), true).unwrap().ended().await;
    assert!(matches!(full.outcome, Outcome::Done { .. }));
    let wanted = Criteria { products: ["x".to_owned()].into(), ..Criteria::default() };
    machine.sources().set_criteria(wanted).unwrap();
    let before = said(&machine).len();
    assert!(matches!(run(&machine).await.outcome, Outcome::Done { .. }));
    // Narrower criteria expire what they leave out, and both messages say how much that is.
    assert_eq!(said(&machine)[before..], [6701, 6704, 6705, 9006, 6702]);
    for id in [MessageId::DONE, MessageId::AGED] {
        let of = Wanted { id: Some(id), ..Wanted::default() };
        let (_, message) = machine.messages().list(&of, None, 1).unwrap().pop().unwrap();
        assert_eq!(message.attributes["outside"], "2", "{message:?}");
        assert!(message.text.contains("2 ") && message.text.contains("criteria"), "{message:?}");
    }
    assert_eq!(run(&machine).await.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn what_may_not_run_does_not_and_says_why() {
    let mut site = Site::new();
    site.settings.history = 3;
    let machine = site.with_a();
    let unknown = machine.run(&name("b"), by_hand(), false).err().unwrap();
    assert_eq!(unknown.to_string(), "there is no source b");
    for _ in 0..5 {
        run(&machine).await;
    }
    let numbers = machine.history(&name("a"), None, 9).unwrap();
    assert_eq!(numbers.iter().map(|run| run.number).collect::<Vec<_>>(), [5, 4, 3]);
    let disable = |source: &mut Source| {
        source.enabled = false;
        Ok::<_, SourceError>(())
    };
    machine.sources().change(&name("a"), disable, *site.now.lock()).unwrap();
    let disabled = machine.run(&name("a"), by_hand(), false).err().unwrap();
    assert_eq!(disabled.to_string(), "source a is disabled: enable it first");
    assert_eq!(machine.status_of(&name("a")).unwrap().next, None);
    machine.close().await;
    assert!(matches!(machine.run(&name("a"), by_hand(), false), Err(MachineError::Stopping)));
    let errors = Wanted { severity: Some(Severity::Error), ..Wanted::default() };
    assert!(machine.messages().list(&errors, None, 9).unwrap().is_empty());
}

#[tokio::test]
async fn a_stop_interrupts_and_the_next_start_goes_on() {
    let site = Site::new();
    let machine = site.with_a();
    let (hung, came) = mpsc::channel();
    site.set(|is| (is.hangs, is.hung) = (Some(Stage::Fetch), Some(hung)));
    let asked = machine.run(&name("a"), by_hand(), false).unwrap();
    tokio::task::spawn_blocking(move || came.recv().unwrap()).await.unwrap();
    machine.close().await;
    assert_eq!(asked.ended().await.outcome, Outcome::Interrupted);
    let machine = site.open();
    let status = machine.status_of(&name("a")).unwrap();
    assert_eq!(status.next, Some((*site.now.lock(), Trigger::Resumed)));
    assert_eq!(machine.history(&name("a"), None, 9).unwrap().len(), 1, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_source_is_held_still_its_syncs_wait() {
    let site = Site::new();
    let machine = site.with_a();
    let early = machine.hold(&name("a"), Arc::default()).await;
    assert!(matches!(early, Err(MachineError::NotSynchronised(_))));
    run(&machine).await;
    let held = machine.hold(&name("a"), Arc::default()).await.unwrap();
    assert_eq!((held.state.clone(), held.source.name.as_str()), (1.into(), "a"));
    assert!(held.run.file("index-1").exists());

    site.has(2, &["first"]);
    let asked = machine.run(&name("a"), by_hand(), false).unwrap();
    assert_eq!(asked.progress().stage, None);
    // Another one who wants to hold it waits too, and can be told to give up.
    let watch = Arc::<Watch>::default();
    let (other, told) = (machine.clone(), watch.clone());
    let second = tokio::spawn(async move { other.hold(&name("a"), told).await.map(drop) });
    watch.stop.cancel();
    let ended = second.await.unwrap();
    assert!(matches!(ended, Err(MachineError::Catalogue(e)) if e.cause == Cause::Cancelled));
    assert_eq!(asked.progress().stage, None);
    drop(held);
    assert!(matches!(asked.ended().await.outcome, Outcome::Done { .. }));

    // After settings changed, what is there is of others.
    let criteria = Criteria { products: ["x".to_owned()].into(), ..Criteria::default() };
    machine.sources().set_criteria(criteria).unwrap();
    let changed = machine.hold(&name("a"), Arc::default()).await;
    assert!(matches!(changed, Err(MachineError::NotSynchronised(_))));
    run(&machine).await;

    // Who removes it, or stops all, stops who holds it.
    let watch = Arc::<Watch>::default();
    let held = machine.hold(&name("a"), watch.clone()).await.unwrap();
    let remover = machine.clone();
    let removed = tokio::spawn(async move { remover.remove(&name("a")).await });
    watch.stop.cancelled().await;
    assert!(held.run.folder.exists());
    drop(held);
    removed.await.unwrap().unwrap();
    assert!(!site.folder.path().join("a").exists());
    machine.close().await;
    let source = machine.hold(&name("a"), Arc::default()).await;
    assert!(matches!(source, Err(MachineError::Source(SourceError::Unknown(_)))));
}

#[tokio::test]
async fn updates_of_ones_own_are_said_like_those_of_a_source() {
    let site = Site::new();
    let machine = site.with_a();
    run(&machine).await;
    let said_before = said(&machine).len();
    let created = Timestamp::from_second(1_700_000_000).unwrap();
    let own = Update::new(UpdateId::named(&["third"]), "third", "third, our own", created);
    let changes = machine.issue(vec![Said::Update(Box::new(own.clone()))]).await.unwrap();
    assert_eq!((changes.added, changes.gone), (1, 0));
    assert_eq!(titles(&machine), ["first, version 1", "second, version 1", "third, our own"]);
    assert_eq!(said(&machine)[said_before..], [6702]);
    let changes = machine.issue(vec![Said::Gone(own.id)]).await.unwrap();
    assert_eq!((changes.gone, titles(&machine).len()), (1, 2));
    let taken = Source::new(SourceName::own(), SourceKind::Parent, created);
    let refused = machine.sources().add(&taken);
    assert!(matches!(refused, Err(SourceError::Invalid { field, .. }) if field == "name"));
}
