//! The scrub: a point reads all that it holds, again and again, slowly, and compares it.
//!
//! A pass takes its period, less a spare part, whatever the library's size; a new one begins a period
//! after the last began. How far it is lies in `DIR/scrub.json`, so that a restart costs a few packs.
//! What shows without reading, files that are gone or cut, is looked for every minute beside it. What
//! is found is noted in the library; [`super::mend`] sees to the rest.

use super::{Node, blocking, tasks};
use contentlib::kv::KvError;
use contentlib::{MaintainError, PackSize, Progress, VerifyOptions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The version of `scrub.json` that this code reads and writes.
const FORMAT: u32 = 1;
/// The slowest scrub, in bytes a second, so that a small library does not take a week.
const SLOWEST: u64 = 2 << 20;
/// Packs and bytes that are read between two notes of how far the scrub is.
const STEP: (usize, u64) = (16, 4 << 30);
/// How often it is looked for what shows without reading; more often if the period is short.
const GLANCE: Duration = Duration::from_secs(60);
/// The pause after a step that failed.
const PAUSE: Duration = Duration::from_secs(30);

/// How far the scrub is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scrub {
    format: u32,
    /// When this pass began, by the clock.
    pub began: Timestamp,
    /// When it ended; nothing while it goes on.
    pub ended: Option<Timestamp>,
    /// The newest pack that it has read.
    after: Option<u32>,
    /// Bytes read in this pass.
    pub bytes: u64,
    /// Chunks that it found damaged.
    pub n_damaged: u64,
    /// When the last pass ended that read everything.
    pub last_ended: Option<Timestamp>,
}

impl Scrub {
    fn new(now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            began: now,
            ended: None,
            after: None,
            bytes: 0,
            n_damaged: 0,
            last_ended: None,
        }
    }

    /// The pass that follows.
    fn next(&self, now: Timestamp) -> Self {
        Self { last_ended: self.last_ended, ..Self::new(now) }
    }

    /// How long the next pass waits at `now`. A clock that was set does not make it wait longer than
    /// a period.
    fn wait(&self, now: Timestamp, period: Duration) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.began)).unwrap_or(Duration::ZERO);
        period.saturating_sub(passed)
    }

    /// What the next step reads of the `packs` there are; nothing if the pass is at its end.
    fn step(&self, packs: &[PackSize]) -> Vec<u32> {
        let mut bytes = 0;
        let left = packs.iter().filter(|pack| self.after.is_none_or(|after| pack.number > after));
        let fits = |pack: &&PackSize| {
            bytes += pack.bytes;
            bytes <= STEP.1 || bytes == pack.bytes
        };
        left.take(STEP.0).take_while(fits).map(|pack| pack.number).collect()
    }
}

/// Bytes a second so that `bytes` are read in a period, with a fifth of it to spare.
fn pace(bytes: u64, period: Duration) -> u64 {
    let seconds = (period.as_secs_f64() * 0.8).max(0.001);
    ((bytes as f64 / seconds) as u64).max(SLOWEST)
}

/// What is known of the scrub of the point in this folder; nothing that can be read: it begins anew.
pub(super) fn load(path: &Path) -> Option<Scrub> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice(&text).ok().filter(|scrub: &Scrub| scrub.format == FORMAT)
}

/// Losing it costs time and no more, so it is not synced.
fn store(path: &Path, scrub: &Scrub) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(scrub)?)?;
    fs::rename(part, path)
}

/// Reads everything, pass after pass.
pub(super) async fn run(node: Arc<Node>) {
    let period = node.scrub_period;
    if period.is_zero() {
        return;
    }
    loop {
        let now = (node.clock)();
        let scrub = node.scrub.lock().clone().unwrap_or_else(|| Scrub::new(now));
        if scrub.ended.is_some() {
            tokio::time::sleep(scrub.wait(now, period)).await;
            set(&node, scrub.next((node.clock)())).await;
            continue;
        }
        let progress = Cancelled(Arc::new(Progress::default()));
        let stepped = {
            let (node, scrub, progress) = (node.clone(), scrub.clone(), progress.0.clone());
            blocking(move || step(&node, scrub, &progress)).await
        };
        match stepped {
            Ok(next) => {
                if next.n_damaged > scrub.n_damaged {
                    node.look_for_damage();
                }
                set(&node, next).await;
            }
            Err(error) => {
                node.take_note(&error);
                tracing::warn!(error = tasks::chain(&error), "the scrub pauses");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Ends the work when whoever waits for it is dropped.
pub(super) struct Cancelled(pub Arc<Progress>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn set(node: &Arc<Node>, scrub: Scrub) {
    let path = node.home.scrub_file();
    let stored = {
        let scrub = scrub.clone();
        blocking(move || store(&path, &scrub)).await
    };
    if let Err(error) = stored {
        tracing::warn!(%error, "how far the scrub is could not be noted");
    }
    *node.scrub.lock() = Some(scrub);
}

/// Reads some packs more; or ends the pass.
fn step(node: &Node, mut scrub: Scrub, progress: &Progress) -> Result<Scrub, MaintainError> {
    let library = node.packages.library();
    let packs = library.pack_sizes()?;
    let numbers = scrub.step(&packs);
    let Some(last) = numbers.last() else {
        library.read_index(progress)?;
        let now = (node.clock)();
        let damaged = scrub.n_damaged;
        tracing::info!(bytes = scrub.bytes, damaged, "scrubbed all that is held");
        (scrub.ended, scrub.last_ended) = (Some(now), Some(now));
        // Also what no reader could find: contents that are in no pack.
        node.look_for_damage();
        return Ok(scrub);
    };
    let total = packs.iter().map(|pack| pack.bytes).sum();
    let rate = pace(total, node.scrub_period);
    let options = VerifyOptions { pace: Some(rate), ..VerifyOptions::default() };
    let found = library.verify_packs(&numbers, &options, progress)?;
    scrub.after = Some(*last);
    scrub.bytes += found.bytes;
    scrub.n_damaged += found.bad_chunks.len() as u64;
    Ok(scrub)
}

/// Looks every minute for what shows without reading.
pub(super) async fn glance(node: Arc<Node>) {
    let every = match node.scrub_period {
        Duration::ZERO => GLANCE,
        period => GLANCE.min(period / 8).max(Duration::from_millis(100)),
    };
    let mut known = HashSet::new();
    loop {
        let looked = {
            let (node, known) = (node.clone(), known.clone());
            blocking(move || look_at_packs(&node, &known)).await
        };
        match looked {
            Ok(hurt) => known = hurt,
            Err(error) => {
                node.take_note(&error);
                tracing::warn!(error = tasks::chain(&error), "the library cannot be looked over");
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Has what was in packs that are gone or cut noted as damaged, and the library opened anew if its index
/// is lost. `known` are packs that were seen to before; answers all of them.
pub(super) fn look_at_packs(
    node: &Node,
    known: &HashSet<u32>,
) -> Result<HashSet<u32>, MaintainError> {
    let library = node.packages.library();
    let is_in_doubt = node.index_in_doubt.swap(false, SeqCst);
    let mut index = library.check_index().map_err(MaintainError::from);
    if index.is_ok() && is_in_doubt {
        index = library.read_index(&Progress::default());
    }
    if let Err(error) = &index
        && matches!(error.of_the_index(), Some(KvError::Failed(_)))
    {
        tracing::error!(error = tasks::chain(error), "the library's index is lost");
        node.index_lost.cancel();
    }
    index?;
    let hurt = library.hurt_packs()?;
    let new: Vec<u32> = hurt.iter().copied().filter(|number| !known.contains(number)).collect();
    if !new.is_empty() {
        let packs = new.len();
        tracing::error!(packs, "packs are gone or cut: what was in them is brought again");
        library.verify_packs(&new, &VerifyOptions::default(), &Progress::default())?;
        node.look_for_damage();
    }
    Ok(hurt.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const THEN: Timestamp = Timestamp::UNIX_EPOCH;

    fn later(days: i64) -> Timestamp {
        THEN + SignedDuration::from_hours(24 * days)
    }

    #[test]
    fn a_pass_begins_a_period_after_the_last_whatever_the_clock_says() {
        let day = Duration::from_secs(24 * 3600);
        let ended = Scrub { ended: Some(later(6)), ..Scrub::new(THEN) };
        assert_eq!(ended.wait(later(6), WEEK), day);
        assert_eq!(ended.wait(later(7), WEEK), Duration::ZERO);
        assert_eq!(ended.wait(later(700), WEEK), Duration::ZERO);
        // Set back, it is no longer than a period.
        assert_eq!(ended.wait(later(-700), WEEK), WEEK);
    }

    #[test]
    fn steps_cover_all_packs_once_and_are_bounded() {
        let sizes = (0..40).map(|number| PackSize { number, bytes: 1 << 20 });
        let large = (40..44).map(|number| PackSize { number, bytes: 5 << 30 });
        let packs: Vec<PackSize> = sizes.chain(large).collect();
        let mut scrub = Scrub::new(THEN);
        let mut read = Vec::new();
        loop {
            let step = scrub.step(&packs);
            let Some(last) = step.last() else { break };
            let bytes: u64 = step.iter().map(|number| packs[*number as usize].bytes).sum();
            assert!(step.len() == 1 || step.len() <= STEP.0 && bytes <= STEP.1);
            scrub.after = Some(*last);
            read.extend(step);
        }
        assert_eq!(read, (0..44).collect::<Vec<_>>());
    }

    #[test]
    fn a_large_library_takes_its_period_and_a_small_one_less() {
        assert_eq!(pace(1 << 20, WEEK), SLOWEST);
        let large = 10 << 40;
        let seconds = large as f64 / pace(large, WEEK) as f64;
        assert!((0.79..0.81).contains(&(seconds / WEEK.as_secs_f64())), "{seconds}");
    }

    #[test]
    fn what_was_noted_reads_back_and_what_cannot_be_read_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scrub.json");
        assert_eq!(load(&path), None);
        let scrub = Scrub { after: Some(7), bytes: 9, ..Scrub::new(THEN) };
        store(&path, &scrub).unwrap();
        assert_eq!(load(&path), Some(scrub));
        fs::write(&path, "{}").unwrap();
        assert_eq!(load(&path), None);
    }
}
