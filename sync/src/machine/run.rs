//! One run of one source, from connect to notify, and what is recorded of it.

use super::{Live, Machine, Notify, RUNS, STANDINGS, blocking, points, policy};
use crate::adapter::{Adapter, Criteria, Fetched, LASTING, Run, Skipped, Stage, Watch};
use crate::catalogue::Changes;
use crate::error::{Cause, SyncError};
use crate::messages::{Message, MessageId};
use crate::name::SourceName;
use crate::source::{Again, Outcome, RunRecord, Source, SourceKind, Trigger};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Table, Value};
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A reader that was told to stop is waited for so long; then it is left to itself. It can commit nothing
/// any more.
const GRACE: Duration = Duration::from_secs(30);
/// Beats are looked at so often in the time that a run may be silent.
const LOOKS: u32 = 10;

/// How far clients and child sites were told of the catalogue.
pub(super) const TOLD: Table<(), Told> = Table::new("sync-told");

/// A place in the order of the catalogue's changes up to which somebody was told.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    pub seq: u64,
}
impl Value for Told {}

/// What the catalogue keeps for a source between two syncs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// With which kind, settings and criteria it was read.
    pub fingerprint: String,
    /// What the adapter gave.
    pub state: serde_json::Value,
}

/// What a run works with.
struct Work {
    source: Source,
    fingerprint: String,
    adapter: Arc<dyn Adapter>,
    run: Run,
    state: Option<serde_json::Value>,
}

/// What of a source came into the catalogue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// What its upstream said, committed at this time; of some of it, that the criteria leave it out now.
    Something { at: Timestamp, outside: u64 },
    /// Nothing: the upstream had nothing to say.
    Nothing,
}

impl Machine {
    /// Has a run through all its stages, records what it came to and gives its place to the next.
    pub(super) async fn run_through(&self, live: Arc<Live>) {
        let watchdog = tokio::spawn(watchdog(live.clone(), self.0.settings.patience));
        let run = AssertUnwindSafe(self.stages(&live)).catch_unwind().await;
        watchdog.abort();
        let result = run.unwrap_or_else(|_| {
            let detail = "a fault in the program; the log has more";
            Err(SyncError::new(Cause::Local, detail))
        });
        let (machine, of) = (self.clone(), live.clone());
        let recorded = tokio::task::spawn_blocking(move || machine.record(&of, result)).await;
        let record = recorded.unwrap_or_else(|error| {
            tracing::error!(%error, "the end of a sync could not be recorded");
            self.record_of(&live, Outcome::Interrupted, Skipped::default())
        });
        {
            let mut state = self.0.state.lock();
            state.live.remove(&live.source);
            state.running -= 1;
        }
        self.0.freed.notify_waiters();
        live.ended.send_replace(Some(Arc::new(record)));
        self.give_turns();
        self.0.look.notify_one();
    }

    async fn stages(&self, live: &Arc<Live>) -> Result<(Outcome, Skipped), SyncError> {
        let (machine, of) = (self.clone(), live.clone());
        let work = Arc::new(blocking(move || machine.prepare(&of)).await?);
        let cancelled = || SyncError::new(Cause::Cancelled, "the sync was cancelled");
        let fetch = work.adapter.fetch(&work.run, work.state.as_ref());
        let fetched = live.watch.stop.run_until_cancelled(fetch).await.ok_or_else(cancelled)??;
        let mut has_settings = false;
        if let Some(above) = work.adapter.above() {
            let machine = self.clone();
            let take_over = move || machine.0.sources.take_over(Some(above)).map_err(local);
            has_settings = blocking(take_over).await?;
        }
        let (outcome, skipped) = match fetched {
            Fetched::Unchanged => (Outcome::Unchanged, Skipped::default()),
            Fetched::Changed => {
                let (machine, of) = (self.clone(), work.clone());
                let number = live.number;
                let read = tokio::task::spawn_blocking(move || machine.take_in(&of, number));
                let left = async {
                    live.watch.stop.cancelled().await;
                    tokio::time::sleep(GRACE).await;
                };
                let read = tokio::select! {
                    read = read => read.map_err(|error| {
                        let detail = "a fault in the program; the log has more";
                        SyncError::because(Cause::Local, detail, error)
                    })?,
                    () = left => return Err(cancelled()),
                };
                let (changes, skipped) = read?;
                (Outcome::Done { changes }, skipped)
            }
        };
        // What is committed is to be told, whoever cancels now.
        let message = done(&work, &outcome, self.now());
        let came = match outcome {
            Outcome::Done { changes } => {
                Came::Something { at: work.run.now, outside: changes.outside }
            }
            _ => Came::Nothing,
        };
        self.tell(&work.run, &work.source.name, came, message).await?;
        if has_settings {
            self.tell_settings().await?;
        }
        Ok((outcome, skipped))
    }

    /// What the run works with, and its folder made ready.
    fn prepare(&self, live: &Live) -> Result<Work, SyncError> {
        let name = &live.source;
        let source = self.0.sources.get(name).map_err(local)?;
        let mut criteria = self.0.sources.site()?.criteria;
        let fingerprint = source.fingerprint(&criteria);
        if source.kind == SourceKind::Parent {
            // It has applied them; what it says is taken as it says it.
            criteria = Criteria::default();
        }
        let adapter = (self.0.parts.adapters)(&source)?.into();
        let kept = self.0.catalogue.state(name)?.filter(|_| !live.full);
        let kept = kept.and_then(|kept| serde_json::from_value::<Kept>(kept).ok());
        let state = kept.filter(|kept| kept.fingerprint == fingerprint).map(|kept| kept.state);
        let folder = self.0.folder.join(name.as_str());
        let files = folder.join("files");
        let kind = kind_fingerprint(&source.kind);
        let is_as_left = make_ready(&folder, &files, &kind)
            .map_err(|error| SyncError::local(folder.display(), error))?;
        // Without the files a state is about nothing.
        let state = state.filter(|_| is_as_left);
        let run = Run {
            fetcher: self.0.fetcher.clone(),
            folder: files,
            now: self.now(),
            criteria: Arc::new(criteria),
            watch: live.watch.clone(),
        };
        run.watch.check()?;
        run.stage(Stage::Connect)?;
        let say = |id, text: String| {
            let message = Message::of_sync(id, name, text, self.now());
            self.0
                .messages
                .write(&message.with("run", live.number).with("kind", source.kind.as_str()))
        };
        say(MessageId::STARTED, format!("the sync of {name} started"))?;
        let text = format!("{name}: what is new at the upstream is being brought");
        say(MessageId::FROM_UPSTREAM, text)?;
        Ok(Work { source, fingerprint, adapter, run, state })
    }

    /// Whether the folder of a source has the files of a sync with these settings.
    pub(super) fn has_files(&self, source: &Source) -> bool {
        let folder = self.0.folder.join(source.name.as_str());
        is_of(&folder, &kind_fingerprint(&source.kind)).unwrap_or(false)
    }

    /// Reads what was brought into the catalogue.
    fn take_in(&self, work: &Work, number: u64) -> Result<(Changes, Skipped), SyncError> {
        let (run, name) = (&work.run, &work.source.name);
        run.stage(Stage::Parse)?;
        let mut intake = self.0.catalogue.intake(name, number, run.criteria.clone(), run.now)?;
        let read = work.adapter.read(run, work.state.as_ref(), &mut |said| {
            run.watch.moved();
            run.watch.check()?;
            intake.take(said)
        })?;
        run.stage(Stage::Diff)?;
        let changes = intake.settle(read.extent)?;
        let text = format!(
            "{name}: the database takes in {} new updates, {} new revisions, and that {} are gone{}",
            changes.added,
            changes.revised,
            changes.gone,
            left_out(changes.outside)
        );
        let message = Message::of_sync(MessageId::INTO_DATABASE, name, text, self.now());
        self.0.messages.write(&message.with("run", number))?;
        let kept = Kept { fingerprint: work.fingerprint.clone(), state: read.state };
        let kept = serde_json::to_value(&kept).map_err(|error| {
            SyncError::because(Cause::Local, "the state of the adapter is no JSON", error)
        })?;
        let commit = || {
            // The last moment at which it can be cancelled.
            run.stage(Stage::Commit)?;
            intake.commit(kept)
        };
        let committed =
            self.0.sources.while_it_is(name, &work.fingerprint, commit).map_err(local)?;
        let committed = committed.ok_or_else(|| {
            let detail =
                format!("{name} was changed while it was synchronised: what came is not taken");
            SyncError::new(Cause::Mismatch, detail)
        })?;
        Ok((committed?, read.skipped))
    }

    /// Publish, status message 6702, child sites: in this order. Then the other update points follow, in
    /// the background: a run does not wait for them.
    pub(super) async fn tell(
        &self,
        run: &Run,
        name: &SourceName,
        came: Came,
        done: Message,
    ) -> Result<(), SyncError> {
        let mut away = self.0.telling.lock().await;
        // From here on nobody cancels it.
        let _ = run.stage(Stage::Publish);
        let notify = self.0.notify.read().clone();
        let machine = self.clone();
        let (seq, is_news) = blocking(move || {
            // What only time does to updates is looked at in the background too.
            if let Came::Something { at, outside } = came {
                let left_out = if outside > 0 { machine.0.catalogue.left_out_at(at) } else { 0 };
                machine.age_and_tell(left_out).map_err(local)?;
            }
            let told = TOLD.get(&machine.0.db, &())?.unwrap_or_default();
            let seq = machine.0.catalogue.seq();
            Ok::<_, SyncError>((seq, seq > told.seq))
        })
        .await?;
        if is_news {
            notify.publish(seq).await?;
        }
        self.say(done).await?;
        if !is_news {
            let machine = self.clone();
            if blocking(move || Ok::<_, SyncError>(machine.owe_points()?)).await? {
                self.have_points_follow(points::Why::News);
            }
            return Ok(());
        }
        let _ = run.stage(Stage::Notify);
        self.tell_children(&*notify, seq, Some((name, &run.watch)), &mut away).await?;
        let machine = self.clone();
        blocking(move || Ok::<_, SyncError>(TOLD.set(&machine.0.db, &(), &Told { seq })?)).await?;
        self.have_points_follow(points::Why::News);
        Ok(())
    }

    /// Asks the child sites to look at what is set here, or above, for all. One that is not there asks by
    /// itself later.
    pub async fn tell_settings(&self) -> Result<(), SyncError> {
        let mut away = self.0.telling.lock().await;
        let notify = self.0.notify.read().clone();
        self.tell_children(&*notify, self.0.catalogue.seq(), None, &mut away).await
    }

    /// Asks the child sites to synchronise, after a run of a source or for what else is new. Those of `away`
    /// were not there the last time; their message stands until they are heard of again.
    async fn tell_children(
        &self,
        notify: &dyn Notify,
        seq: u64,
        after: Option<(&SourceName, &Watch)>,
        away: &mut BTreeSet<String>,
    ) -> Result<(), SyncError> {
        let children = notify.children();
        away.retain(|child| children.contains(child));
        for child in children {
            if let Some((_, watch)) = after {
                watch.moved();
            }
            let Err(error) = notify.tell_child(&child, seq).await else {
                away.remove(&child);
                continue;
            };
            if !away.contains(&child) {
                let text = format!(
                    "child site {child} could not be asked to synchronise, and asks by itself later: {}",
                    in_full(&error)
                );
                let message = Message {
                    source: after.map(|(name, _)| name.clone()),
                    ..Message::of_site(MessageId::CHILD_NOT_TOLD, "sync", text, self.now())
                };
                self.say(message.with("child", &child).with("cause", error.cause)).await?;
                away.insert(child);
            }
        }
        Ok(())
    }

    pub(super) async fn say(&self, message: Message) -> Result<(), SyncError> {
        let machine = self.clone();
        blocking(move || Ok(machine.0.messages.write(&message).map(drop)?)).await
    }

    /// Records how a run ended: what the source's standing is, its history, its message.
    fn record(&self, live: &Live, result: Result<(Outcome, Skipped), SyncError>) -> RunRecord {
        let result = result.map_err(|error| match error.cause {
            Cause::Cancelled if live.is_stalled.load(Relaxed) => {
                let patience = self.0.settings.patience.as_secs();
                let detail = format!("nothing moved for {patience} s, so it was ended");
                SyncError::new(Cause::Stalled, detail)
            }
            _ => error,
        });
        let (outcome, skipped, cause) = match result {
            Ok((outcome, skipped)) => (outcome, skipped, None),
            Err(error) if error.cause == Cause::Cancelled => {
                let interrupted = live.is_interrupted.load(Relaxed);
                let outcome = if interrupted { Outcome::Interrupted } else { Outcome::Cancelled };
                (outcome, Skipped::default(), None)
            }
            Err(error) => {
                let outcome = Outcome::Failed { cause: error.cause, detail: in_full(&error) };
                (outcome, Skipped::default(), Some(error.cause))
            }
        };
        let record = self.record_of(live, outcome, skipped);
        if let Err(error) = self.try_record(live, &record, cause) {
            // It is told from memory, and at the next start it counts as cut off.
            tracing::error!(error = in_full(&error), source = %live.source, "the end of a sync was not recorded");
        }
        record
    }

    fn record_of(&self, live: &Live, outcome: Outcome, skipped: Skipped) -> RunRecord {
        RunRecord {
            source: live.source.clone(),
            number: live.number,
            trigger: live.trigger.clone(),
            begun: live.asked,
            ended: self.now(),
            stage: live.watch.stage(),
            outcome,
            bytes: live.watch.bytes.load(Relaxed),
            entries: live.watch.entries.load(Relaxed),
            skipped,
        }
    }

    fn try_record(
        &self,
        live: &Live,
        record: &RunRecord,
        cause: Option<Cause>,
    ) -> Result<(), SyncError> {
        let (name, now) = (&live.source, record.ended);
        let mut standing = self.standing(name)?;
        standing.running = None;
        standing.waits = None;
        let mut said = Vec::new();
        let message = |id, text: String| {
            Message::of_sync(id, name, text, now)
                .with("run", live.number)
                .with("stage", record.stage.as_str())
        };
        match &record.outcome {
            Outcome::Done { .. } | Outcome::Unchanged => {
                standing.failures = 0;
                standing.succeeded = Some(now);
            }
            Outcome::Cancelled => {
                standing.failures = 0;
                said.push(message(
                    MessageId::CANCELLED,
                    format!("the sync of {name} was cancelled"),
                ));
            }
            Outcome::Interrupted => {
                standing.again = Some(Again { at: now, trigger: Trigger::Resumed });
                let text = format!(
                    "the sync of {name} was cut off because the server stops; it begins again"
                );
                said.push(message(MessageId::INTERRUPTED, text));
            }
            Outcome::Failed { detail, .. } => {
                let cause = cause.unwrap_or(Cause::Local);
                let text = format!("the sync of {name} failed: {detail}");
                said.push(message(MessageId::FAILED, text).with("cause", cause));
                // A failure at its time, or that somebody saw, begins a new row.
                let goes_on = matches!(live.trigger, Trigger::Retry | Trigger::Resumed);
                standing.failures = if goes_on { standing.failures.saturating_add(1) } else { 1 };
                let pause = policy::pause(cause, standing.failures, (self.0.parts.dice)());
                let at = pause.and_then(|pause| SignedDuration::try_from(pause).ok());
                if let Some(at) = at.and_then(|pause| now.checked_add(pause).ok()) {
                    standing.again = Some(Again { at, trigger: Trigger::Retry });
                    let text = format!("the sync of {name} is tried again at {at:.0}");
                    said.push(message(MessageId::TRIED_AGAIN, text).with("at", at));
                }
                if policy::waits_for_a_person(cause)
                    && let Ok(source) = self.0.sources.get(name)
                {
                    standing.waits = Some(source.fingerprint(&self.0.sources.site()?.criteria));
                }
            }
        }
        if record.skipped.count > 0 {
            let first = record.skipped.examples.first().map(String::as_str).unwrap_or_default();
            let text = format!(
                "{} of what {name} has could not be understood, or not be had, and was passed over; the \
                 first: {first}",
                record.skipped.count
            );
            said.push(message(MessageId::PASSED_OVER, text).with("count", record.skipped.count));
        }
        for message in said {
            self.0.messages.write(&message)?;
        }
        let mut batch = Batch::new();
        STANDINGS.put(&mut batch, &name.to_string(), &standing);
        // One that was removed meanwhile leaves no history.
        if self.0.sources.get(name).is_ok() {
            RUNS.put(&mut batch, &(name.to_string(), live.number), record);
            let all = RUNS.below(&self.0.db, &name.to_string())?;
            let too_many = (all.len() + 1).saturating_sub(self.0.settings.history.max(1));
            for (key, _) in all.iter().take(too_many) {
                RUNS.delete(&mut batch, key);
            }
        }
        self.0.db.kv().write(batch)?;
        Ok(())
    }
}

/// Ends a run in which nothing moves for `patience`, while it waits for an upstream or reads.
async fn watchdog(live: Arc<Live>, patience: Duration) {
    let look = (patience / LOOKS).max(Duration::from_millis(1));
    let (mut beats, mut silent) = (live.watch.beats(), 0);
    loop {
        tokio::time::sleep(look).await;
        let now = live.watch.beats();
        // What follows is the site's own work, and ends by itself.
        if now != beats || live.watch.stage() > Stage::Parse {
            (beats, silent) = (now, 0);
            continue;
        }
        silent += 1;
        if silent >= LOOKS {
            live.is_stalled.store(true, Relaxed);
            live.watch.stop.cancel();
            return;
        }
    }
}

fn done(work: &Work, outcome: &Outcome, now: Timestamp) -> Message {
    let name = &work.source.name;
    let changes = match outcome {
        Outcome::Done { changes } => *changes,
        _ => Changes::default(),
    };
    let text = match outcome {
        Outcome::Done { .. } => format!(
            "the sync of {name} is done: {} new updates, {} new revisions, {} gone{}",
            changes.added,
            changes.revised,
            changes.gone,
            left_out(changes.outside)
        ),
        _ => format!("the sync of {name} is done: nothing is new"),
    };
    Message::of_sync(MessageId::DONE, name, text, now)
        .with("added", changes.added)
        .with("revised", changes.revised)
        .with("gone", changes.gone)
        .with("outside", changes.outside)
}

/// A clause about updates that the criteria leave out since they were narrowed, if there are such.
fn left_out(outside: u64) -> String {
    match outside {
        0 => String::new(),
        n => format!(", {n} that the criteria leave out since they were narrowed"),
    }
}

/// Makes the folder of a source ready: what lies in it is of the same kind and settings, or gone, but for
/// what outlasts them. Whether it is as the run before left it.
fn make_ready(folder: &Path, files: &Path, kind: &str) -> io::Result<bool> {
    let is_same = is_of(folder, kind)?;
    if !is_same {
        std::fs::create_dir_all(files)?;
        for entry in std::fs::read_dir(files)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false if entry.file_name() != LASTING => std::fs::remove_file(entry.path())?,
                false => {}
            }
        }
        // Last: if it is cut off before, all begins anew.
        std::fs::write(folder.join("of"), format!("{kind}\n"))?;
    }
    std::fs::create_dir_all(files)?;
    Ok(is_same)
}

/// Whether what lies in the folder of a source is of that kind and settings.
fn is_of(folder: &Path, kind: &str) -> io::Result<bool> {
    match std::fs::read_to_string(folder.join("of")) {
        Ok(text) => Ok(text.trim_end() == kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn kind_fingerprint(kind: &SourceKind) -> String {
    let facts = serde_json::to_vec(kind).unwrap_or_default();
    crate::digests::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(facts))
}

/// A failure of what the machine itself keeps.
fn local(error: impl Error + Send + Sync + 'static) -> SyncError {
    SyncError::because(Cause::Local, "the sync machine cannot use its database", error)
}

/// An error and what it was caused by, in one line.
pub(super) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
