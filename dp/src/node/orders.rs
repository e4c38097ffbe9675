//! Orders: what the site has the point do once, ahead of what it does by itself.
//!
//! What is held of an order's packages is read from the disk and compared, now and as fast as the disk
//! gives it. What is not right is noted in the library like any damage, so [`super::mend`] and the work
//! bring it again, at the hours and rates that are set. An order is done when all of it is whole. If for
//! [`PATIENCE`] nothing more becomes whole it ends too, and says why; the work goes on by itself.
//!
//! What came of each order lies in `DIR/orders.json` for as long as the site waits for it, so that one
//! that was done is not done again because the site did not hear of it. One that was cut off begins
//! anew, and counts what it had found damaged before.

use super::plan::{Key, key};
use super::{Node, OfTheIndex, blocking, home, scrub, tasks};
use crate::field::{Order, Outcome, OutcomeState, Task, Wanted, Wish};
use contentlib::kv::KvError;
use contentlib::{Digest, MaintainError, Progress, ReadError, VerifyOptions};
use jiff::Timestamp;
use packager::PackageError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The version of `orders.json` that this code reads and writes.
const FORMAT: u32 = 1;
/// Contents that are compared at once: what lies beside each other is read together.
const STEP: usize = 1024;
/// How often it is looked whether what was damaged is whole.
const LOOK: Duration = Duration::from_millis(500);
/// Looking takes at most this share of the time.
const SHARE: u32 = 5;
/// How long an order waits for the next content to become whole.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The pause before an order is begun again that met an index which failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The orders that the site waits for.
#[derive(Debug, Default)]
pub(super) struct Orders(BTreeMap<u64, Known>);

/// One of them.
#[derive(Debug)]
struct Known {
    order: Order,
    phase: Phase,
    began: Timestamp,
    n_checked: u64,
    bytes: u64,
    n_damaged: u64,
    n_mended: u64,
    cause: Option<String>,
}

#[derive(Debug)]
enum Phase {
    /// To be checked.
    Waiting,
    /// Its contents and bytes are counted here.
    Checking(Arc<Progress>),
    Mending {
        /// What is not whole yet.
        bad: Vec<Digest>,
        /// What it lacked when it was looked last, and since when it is no less.
        left: (usize, Instant),
        /// A manifest was among the damaged: what it names was not checked.
        again: bool,
    },
    Ended {
        state: OutcomeState,
        at: Timestamp,
    },
}

/// What a check found.
#[derive(Default)]
struct Checked {
    n_checked: u64,
    bytes: u64,
    bad: Vec<Digest>,
    again: bool,
}

impl Known {
    fn new(order: Order, now: Timestamp) -> Self {
        let (n_checked, bytes, n_damaged, n_mended) = (0, 0, 0, 0);
        let (phase, began, cause) = (Phase::Waiting, now, None);
        Self { order, phase, began, n_checked, bytes, n_damaged, n_mended, cause }
    }

    /// One that another run of the process left.
    fn left(order: Order, outcome: Outcome) -> Self {
        let Outcome { state, began, ended, n_checked, bytes, n_damaged, n_mended, cause, .. } =
            outcome;
        let phase = match ended.filter(|_| state.is_end()) {
            Some(at) => Phase::Ended { state, at },
            None => Phase::Waiting,
        };
        Self { order, phase, began, n_checked, bytes, n_damaged, n_mended, cause }
    }

    fn outcome(&self) -> Outcome {
        let (state, ended) = match &self.phase {
            Phase::Waiting | Phase::Checking(_) => (OutcomeState::Checking, None),
            Phase::Mending { .. } => (OutcomeState::Mending, None),
            Phase::Ended { state, at } => (*state, Some(*at)),
        };
        let (n_checked, bytes) = match &self.phase {
            Phase::Checking(progress) => {
                (progress.files.load(Relaxed), progress.bytes.load(Relaxed))
            }
            _ => (self.n_checked, self.bytes),
        };
        Outcome {
            number: self.order.number,
            given: self.order.given,
            state,
            began: self.began,
            ended,
            n_checked,
            bytes,
            n_damaged: self.n_damaged,
            n_mended: self.n_mended,
            cause: self.cause.clone(),
        }
    }

    fn end(&mut self, state: OutcomeState, cause: Option<String>, now: Timestamp) {
        (self.phase, self.cause) = (Phase::Ended { state, at: now }, cause);
    }
}

/// How an order stands that is being mended.
struct Look {
    /// What is still not whole.
    bad: Vec<Digest>,
    /// Versions that it is to bring, and that are not here whole.
    n_missing: usize,
    /// Nothing of it is here, or to come here.
    is_gone: bool,
    /// Why it is not, as far as known.
    cause: Option<String>,
}

impl Orders {
    /// Takes note of what the site waits for; answers what is new. A check for something that it does
    /// not wait for any more is told to stop.
    fn hear(&mut self, orders: &[Order], now: Timestamp) -> Vec<Order> {
        self.0.retain(|_, known| {
            let is_waited_for = orders.contains(&known.order);
            if let (false, Phase::Checking(progress)) = (is_waited_for, &known.phase) {
                progress.cancel();
            }
            is_waited_for
        });
        let new: Vec<Order> =
            orders.iter().filter(|order| !self.0.contains_key(&order.number)).cloned().collect();
        for order in &new {
            self.0.insert(order.number, Known::new(order.clone(), now));
        }
        new
    }

    /// What is checked next: of one package before of all, since that is soon done.
    fn next(&self) -> Option<Order> {
        let waiting = self.0.values().filter(|known| matches!(known.phase, Phase::Waiting));
        let next = waiting.min_by_key(|known| (known.order.package.is_none(), known.order.number));
        next.map(|known| known.order.clone())
    }

    /// The order of that number, if it is the same still.
    fn known(&mut self, order: &Order) -> Option<&mut Known> {
        self.0.get_mut(&order.number).filter(|known| known.order == *order)
    }

    /// Takes note of what a check found.
    fn checked(&mut self, order: &Order, found: Checked, now: Instant) {
        let Some(known) = self.known(order) else { return };
        (known.n_checked, known.bytes) = (found.n_checked, found.bytes);
        let n_bad = found.bad.len() as u64;
        // What was found before it was cut off, or before there was a manifest, counts too.
        known.n_damaged = known.n_damaged.max(known.n_mended + n_bad);
        known.n_mended = known.n_damaged - n_bad;
        let (left, again) = ((usize::MAX, now), found.again);
        known.phase = Phase::Mending { bad: found.bad, left, again };
    }

    /// Takes note of how an order stands that is being mended.
    fn looked(&mut self, order: &Order, look: Look, clock: Timestamp, now: Instant) {
        let Some(known) = self.known(order) else { return };
        let Phase::Mending { bad, left, again } = &mut known.phase else { return };
        known.n_mended = known.n_damaged.saturating_sub(look.bad.len() as u64);
        let n_left = look.bad.len() + look.n_missing;
        if n_left < left.0 {
            *left = (n_left, now);
        }
        let is_late = now.saturating_duration_since(left.1) >= PATIENCE;
        let again = *again;
        *bad = look.bad;
        if let (true, Some(package)) = (look.is_gone, &order.package) {
            let what = match order.version {
                Some(version) => format!("{package}@{version}"),
                None => package.to_string(),
            };
            let cause = match order.task {
                Task::Validate => format!("{what} is neither held nor to be held here"),
                Task::Redistribute => format!("{what} is not to be held here"),
            };
            return known.end(OutcomeState::Failed, Some(cause), clock);
        }
        match n_left {
            0 if again => known.phase = Phase::Waiting,
            0 => known.end(OutcomeState::Done, None, clock),
            _ if is_late => {
                let cause = look.cause.unwrap_or_else(|| "nothing more came of it".into());
                known.end(OutcomeState::Failed, Some(cause), clock);
            }
            _ => known.cause = look.cause,
        }
    }

    /// Whether something is done about an order now.
    pub fn is_busy(&self) -> bool {
        self.0.values().any(|known| !matches!(known.phase, Phase::Ended { .. }))
    }

    /// What there is to tell.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.0.values().map(Known::outcome).collect()
    }

    /// Those that are being mended, with what is not whole yet.
    fn mending(&self) -> Vec<(Order, Vec<Digest>)> {
        let mending = |known: &Known| match &known.phase {
            Phase::Mending { bad, .. } => Some((known.order.clone(), bad.clone())),
            _ => None,
        };
        self.0.values().filter_map(mending).collect()
    }

    fn stored(&self) -> Stored {
        let orders = self.0.values();
        let orders =
            orders.map(|known| Line { order: known.order.clone(), outcome: known.outcome() });
        Stored { format: FORMAT, orders: orders.collect() }
    }
}

/// `orders.json`.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    orders: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    order: Order,
    outcome: Outcome,
}

/// What is known of orders in the point's folder. What cannot be read is begun anew.
pub(super) fn load(path: &Path) -> Orders {
    let stored = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
    let lines = stored.filter(|stored| stored.format == FORMAT).map(|stored| stored.orders);
    let lines = lines.unwrap_or_default().into_iter();
    Orders(lines.map(|line| (line.order.number, Known::left(line.order, line.outcome))).collect())
}

/// Does what is ordered.
pub(super) async fn run(node: Arc<Node>) {
    let mut wishes = node.wish.subscribe();
    let mut checks: JoinSet<(Order, Result<Checked, CheckError>)> = JoinSet::new();
    let mut look = LOOK;
    loop {
        let wish = wishes.borrow_and_update().clone();
        if let Some(wish) = &wish {
            hear(&node, wish).await;
        }
        let next = node.orders.lock().next().filter(|_| checks.is_empty());
        if let Some(order) = next {
            start(&node, &mut checks, order);
        }
        let is_mending = !node.orders.lock().mending().is_empty();
        tokio::select! {
            changed = wishes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(ended) = checks.join_next() => match ended {
                Ok((order, found)) => checked(&node, &order, found).await,
                Err(error) => tracing::error!(%error, "a check failed"),
            },
            () = tokio::time::sleep(look), if is_mending => {
                let began = Instant::now();
                look_at(&node, wish.as_ref()).await;
                look = LOOK.max(began.elapsed() * SHARE);
            }
        }
    }
}

/// Writes down what came of orders. Losing it has one that was done be done again, and no more.
async fn store(node: &Arc<Node>) {
    let node = node.clone();
    let stored = blocking(move || {
        // Under the lock, so that the newest is written last.
        let orders = node.orders.lock();
        home::write_whole(&node.home.orders_file(), &serde_json::to_vec(&orders.stored())?)
    });
    if let Err(error) = stored.await {
        tracing::warn!(%error, "what came of an order could not be noted");
    }
}

/// Takes note of what is ordered.
async fn hear(node: &Arc<Node>, wish: &Arc<Wish>) {
    let orders = &wish.settings.orders;
    let new = {
        let mut known = node.orders.lock();
        if known.0.is_empty() && orders.is_empty() {
            return;
        }
        let n_before = known.0.len();
        let new = known.hear(orders, (node.clock)());
        if new.is_empty() && known.0.len() == n_before {
            return;
        }
        new
    };
    store(node).await;
    for order in &new {
        let Order { number, task, package, version, .. } = order;
        let package = package.as_ref().map(tracing::field::display);
        tracing::info!(number, ?task, package, version, "ordered");
    }
    let brings = |order: &&Order| order.task == Task::Redistribute;
    let bring: Vec<&Order> = new.iter().filter(brings).collect();
    if !bring.is_empty() {
        let is_about = |key: &Key| bring.iter().any(|order| order.is_about(&key.0, key.1));
        node.facts.lock().failures.retain(|key, _| !is_about(key));
        node.plan_anew();
    }
    node.news.notify_one();
}

fn start(
    node: &Arc<Node>,
    checks: &mut JoinSet<(Order, Result<Checked, CheckError>)>,
    order: Order,
) {
    let progress = Arc::<Progress>::default();
    if let Some(known) = node.orders.lock().known(&order) {
        known.phase = Phase::Checking(progress.clone());
    }
    node.news.notify_one();
    let node = node.clone();
    checks.spawn(async move {
        let cancelled = scrub::Cancelled(progress.clone());
        let found = {
            let order = order.clone();
            blocking(move || check(&node, &order, &progress)).await
        };
        drop(cancelled);
        (order, found)
    });
}

/// Why a check came to nothing.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Packages(#[from] PackageError),
    #[error(transparent)]
    Library(#[from] MaintainError),
}

impl OfTheIndex for CheckError {
    fn of_the_index(&self) -> Option<&KvError> {
        match self {
            Self::Packages(error) => error.of_the_index(),
            Self::Library(error) => error.of_the_index(),
        }
    }
}

/// Reads and compares all contents of the versions that are held and that `order` is about.
fn check(node: &Node, order: &Order, progress: &Progress) -> Result<Checked, CheckError> {
    let library = node.packages.library();
    // What is gone or cut shows without reading, and nothing more is written to it from now on.
    scrub::look_at_packs(node, &HashSet::new())?;
    let mut found = Checked::default();
    let mut seen = HashSet::new();
    let held = node.packages.held()?.into_iter();
    for version in held.filter(|held| order.is_about(&held.package, held.version)) {
        let contents = node.packages.contents_of(&version)?.into_iter();
        let contents: Vec<Digest> = contents.filter(|digest| seen.insert(*digest)).collect();
        for step in contents.chunks(STEP) {
            let report = library.verify_contents(step, &VerifyOptions::default(), progress)?;
            progress.files.fetch_add(step.len() as u64, Relaxed);
            for bad in report.bad_contents {
                // What was revoked is meant not to be read, and does not come again.
                if !matches!(library.stat(bad.digest), Err(ReadError::Revoked(_))) {
                    found.again |= bad.digest == version.manifest;
                    found.bad.push(bad.digest);
                }
            }
        }
    }
    (found.n_checked, found.bytes) = (progress.files.load(Relaxed), progress.bytes.load(Relaxed));
    Ok(found)
}

/// Takes note of what a check found.
async fn checked(node: &Arc<Node>, order: &Order, found: Result<Checked, CheckError>) {
    match found {
        Ok(found) => {
            let (number, checked, damaged) = (order.number, found.n_checked, found.bad.len());
            tracing::info!(number, checked, damaged, "what was ordered is checked");
            if damaged > 0 {
                node.look_for_damage();
            }
            node.orders.lock().checked(order, found, Instant::now());
            let wish = node.wish.borrow().clone();
            look_at(node, wish.as_ref()).await;
        }
        Err(CheckError::Library(MaintainError::Cancelled(_))) => {
            tracing::info!(number = order.number, "what was ordered is not wanted any more");
        }
        Err(error) => {
            node.take_note(&error);
            let cause = tasks::chain(&error);
            tracing::warn!(number = order.number, cause, "what was ordered cannot be checked");
            let is_of_the_index = error.of_the_index().is_some();
            if is_of_the_index {
                // It is made anew, perhaps by the next run.
                tokio::time::sleep(PAUSE).await;
            }
            let now = (node.clock)();
            if let Some(known) = node.orders.lock().known(order) {
                match is_of_the_index {
                    true => known.phase = Phase::Waiting,
                    false => known.end(OutcomeState::Failed, Some(cause), now),
                }
            }
        }
    }
    store(node).await;
    node.news.notify_one();
}

/// Looks how far those orders are that are being mended.
async fn look_at(node: &Arc<Node>, wish: Option<&Arc<Wish>>) {
    let mending = node.orders.lock().mending();
    for (order, bad) in mending {
        let looked = {
            let (node, order) = (node.clone(), order.clone());
            let wish = wish.cloned();
            blocking(move || look(&node, wish.as_deref(), &order, bad)).await
        };
        let look = match looked {
            Ok(look) => look,
            Err(error) => {
                node.take_note(&error);
                tracing::warn!(error = tasks::chain(&error), "cannot tell how far an order is");
                continue;
            }
        };
        let before = node.orders.lock().outcomes();
        node.orders.lock().looked(&order, look, (node.clock)(), Instant::now());
        if node.orders.lock().outcomes() != before {
            store(node).await;
            node.news.notify_one();
        }
    }
}

/// Looks what of an order is not whole yet, of which `bad` was not when it was looked last.
fn look(
    node: &Node,
    wish: Option<&Wish>,
    order: &Order,
    mut bad: Vec<Digest>,
) -> Result<Look, PackageError> {
    let missing = node.packages.library().missing_contents(&bad)?;
    let mut missing = missing.into_iter();
    bad.retain(|_| missing.next().unwrap_or(true));
    let is_about = |key: &Key| order.is_about(&key.0, key.1);
    let held: HashSet<Key> = node.packages.held()?.iter().map(key).filter(is_about).collect();
    let wished = wish.into_iter().flat_map(|wish| wish.versions.iter());
    let wished: Vec<&Wanted> = wished.filter(|wanted| is_about(&key(&wanted.version))).collect();
    let is_gone = wished.is_empty() && (held.is_empty() || order.task == Task::Redistribute);
    let facts = node.facts.lock();
    let is_whole = |wanted: &&&Wanted| {
        let key = key(&wanted.version);
        held.contains(&key) && !facts.hurt.contains_key(&key)
    };
    let lacking: Vec<&Wanted> = wished.iter().filter(|wanted| !is_whole(wanted)).copied().collect();
    let n_missing = if order.task == Task::Redistribute { lacking.len() } else { 0 };
    let cause = wish.and_then(|wish| lacking.iter().find_map(|wanted| facts.why_not(wish, wanted)));
    Ok(Look { bad, n_missing, is_gone: is_gone && order.package.is_some(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::tests::now;

    const CLOCK: Timestamp = Timestamp::UNIX_EPOCH;

    fn order(number: u64, package: Option<&str>) -> Order {
        let package = package.map(|name| name.parse().unwrap());
        Order { number, given: CLOCK, task: Task::Validate, package, version: None }
    }

    fn digests(n: u8) -> Vec<Digest> {
        (0..n).map(|n| Digest::of(&[n])).collect()
    }

    fn found(n_bad: u8) -> Checked {
        Checked { n_checked: 9, bytes: 900, bad: digests(n_bad), again: false }
    }

    fn left(n_bad: u8) -> Look {
        let cause = Some("the site is not reached".into());
        Look { bad: digests(n_bad), n_missing: 0, is_gone: false, cause }
    }

    /// State, damaged, mended and cause of the only order.
    fn told(orders: &Orders) -> (OutcomeState, u64, u64, Option<String>) {
        let outcome = orders.outcomes().remove(0);
        (outcome.state, outcome.n_damaged, outcome.n_mended, outcome.cause)
    }

    #[test]
    fn an_order_is_done_once_all_that_was_damaged_is_whole() {
        let mut orders = Orders::default();
        let order = order(1, Some("docs"));
        let one = std::slice::from_ref(&order);
        assert_eq!(orders.hear(one, CLOCK), one);
        assert!(orders.hear(std::slice::from_ref(&order), CLOCK).is_empty() && orders.is_busy());
        assert_eq!(orders.next(), Some(order.clone()));
        orders.checked(&order, found(3), now());
        assert_eq!(told(&orders), (OutcomeState::Mending, 3, 0, None));
        orders.looked(&order, left(1), CLOCK, now());
        let cause = Some("the site is not reached".to_owned());
        assert_eq!(told(&orders), (OutcomeState::Mending, 3, 2, cause));
        orders.looked(&order, left(0), CLOCK, now());
        assert_eq!(told(&orders), (OutcomeState::Done, 3, 3, None));
        assert!(!orders.is_busy() && orders.next().is_none());
        assert!(orders.hear(&[], CLOCK).is_empty() && orders.outcomes().is_empty());
    }

    #[test]
    fn an_order_that_nothing_comes_of_any_more_ends_and_says_why() {
        let mut orders = Orders::default();
        let order = order(1, Some("docs"));
        orders.hear(std::slice::from_ref(&order), CLOCK);
        orders.checked(&order, found(3), now());
        orders.looked(&order, left(2), CLOCK, now());
        orders.looked(&order, left(1), CLOCK, now() + PATIENCE - LOOK);
        orders.looked(&order, left(1), CLOCK, now() + PATIENCE);
        assert_eq!(told(&orders).0, OutcomeState::Mending, "something became whole meanwhile");
        orders.looked(&order, left(1), CLOCK, now() + PATIENCE * 2);
        let cause = Some("the site is not reached".to_owned());
        assert_eq!(told(&orders), (OutcomeState::Failed, 3, 2, cause));
    }

    #[test]
    fn what_is_not_here_ends_at_once() {
        let mut orders = Orders::default();
        let order = order(1, Some("docs"));
        orders.hear(std::slice::from_ref(&order), CLOCK);
        orders.checked(&order, found(0), now());
        orders.looked(&order, Look { is_gone: true, ..left(0) }, CLOCK, now());
        let (state, .., cause) = told(&orders);
        assert_eq!(state, OutcomeState::Failed);
        assert_eq!(cause.unwrap(), "docs is neither held nor to be held here");
    }

    #[test]
    fn a_manifest_that_came_again_is_followed() {
        let mut orders = Orders::default();
        let order = order(1, None);
        orders.hear(std::slice::from_ref(&order), CLOCK);
        orders.checked(&order, Checked { again: true, ..found(1) }, now());
        orders.looked(&order, left(0), CLOCK, now());
        assert_eq!(orders.next(), Some(order.clone()));
        orders.checked(&order, found(2), now());
        assert_eq!(told(&orders), (OutcomeState::Mending, 3, 1, None));
    }

    #[test]
    fn what_was_begun_is_begun_again_and_what_ended_is_told_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.json");
        let mut orders = Orders::default();
        let all = [order(1, None), order(2, Some("docs")), order(3, Some("docs"))];
        orders.hear(&all, CLOCK);
        assert_eq!(orders.next(), Some(all[1].clone()), "soon done, and so before all");
        orders.checked(&all[1], found(0), now());
        orders.looked(&all[1], left(0), CLOCK, now());
        orders.checked(&all[2], found(2), now());
        fs::write(&path, serde_json::to_vec(&orders.stored()).unwrap()).unwrap();
        let mut orders = load(&path);
        assert!(orders.hear(&all, CLOCK).is_empty());
        assert_eq!(orders.outcomes()[1].state, OutcomeState::Done);
        assert_eq!(orders.next(), Some(all[2].clone()));
        // One of the two came meanwhile.
        orders.checked(&all[2], found(1), now());
        let outcome = &orders.outcomes()[2];
        assert_eq!((outcome.n_damaged, outcome.n_mended), (2, 1));
        // The site was put back from a backup, and uses the number again.
        let other = Order { given: CLOCK + jiff::SignedDuration::from_secs(1), ..all[1].clone() };
        assert_eq!(orders.hear(std::slice::from_ref(&other), CLOCK), [other]);
        fs::write(&path, "{").unwrap();
        assert!(load(&path).outcomes().is_empty());
    }
}
