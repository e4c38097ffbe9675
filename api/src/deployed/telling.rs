//! What clients are told: what is deployed, once it is staged.
//!
//! Who hears of an update with a deadline that is now asks for its files at once. So where deployments or packages
//! changed, points near to those who require it are assigned what they are to hold first ([`crate::staging`]), and
//! clients hear of it then. That takes a moment; of what takes longer than [`LONGEST`] they hear without it.
//!
//! Always true:
//! * clients are never told something older than before;
//! * nothing is newer than what clients are told, or it is known since when something is;
//! * what is to be staged is staged after that, whether clients were told of it meanwhile or not.

use super::Shown;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// So long clients do not hear of what is deployed because it is not staged yet.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

/// What holds, and what of it clients are told.
#[derive(Default)]
pub(super) struct Telling {
    state: Mutex<State>,
    to_stage: Notify,
    /// The number of what clients are told.
    number: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    newest: Option<Arc<Shown>>,
    /// What is staged at present.
    staging: Option<Arc<Shown>>,
    told: Option<Arc<Shown>>,
    /// Since when something is newer than what is told: the oldest of it is not older.
    since: Option<Instant>,
    /// Whether anybody stages at all: else nothing waits for it.
    is_followed: bool,
}

/// What was newest when it began to be staged.
pub(crate) struct Underway {
    shown: Arc<Shown>,
    began: Instant,
}

/// Whether what follows from something newer was staged with what was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is to be staged first.
    First,
    /// There is nothing to be staged.
    Nothing,
}

/// Clients are told something else than before.
pub(super) struct Change {
    pub before: Arc<Shown>,
    pub now: Arc<Shown>,
}

impl Telling {
    /// What holds now, told or not.
    pub fn newest(&self) -> Option<Arc<Shown>> {
        self.state.lock().newest.clone()
    }

    /// What clients are told now.
    pub fn told(&self) -> Option<Arc<Shown>> {
        self.state.lock().told.clone()
    }

    /// All that clients are told or may be yet.
    pub fn in_use(&self) -> impl Iterator<Item = Arc<Shown>> {
        let state = self.state.lock();
        let all = [&state.told, &state.staging, &state.newest];
        all.map(Option::clone).into_iter().flatten()
    }

    /// This holds from now on. Clients are told it at once if they were told nothing yet, as after a start, or nobody stages; and
    /// if nothing waits, and there is nothing to be staged or it tells them nothing new.
    pub fn hold(&self, shown: Arc<Shown>, stage: Stage, now: Instant) -> Option<Change> {
        let mut state = self.state.lock();
        state.newest = Some(Arc::clone(&shown));
        let Some(told) = &state.told else { return self.tell(&mut state, shown, None) };
        if stage == Stage::First {
            self.to_stage.notify_one();
        }
        let is_told = stage == Stage::Nothing || told.picture == shown.picture;
        if !state.is_followed || (is_told && state.since.is_none()) {
            return self.tell(&mut state, shown, None);
        }
        state.since.get_or_insert(now);
        None
    }

    /// What waited too long is told now.
    pub fn tell_late(&self, now: Instant) -> Option<Change> {
        let mut state = self.state.lock();
        let is_late = |since| now.saturating_duration_since(since) >= LONGEST;
        let newest = state.newest.clone().filter(|_| state.since.is_some_and(is_late))?;
        self.tell(&mut state, newest, None)
    }

    /// What holds now begins to be staged; nothing, if nobody looked yet.
    pub fn begin(&self, now: Instant) -> Option<Underway> {
        let mut state = self.state.lock();
        state.staging = state.newest.clone();
        Some(Underway { shown: state.newest.clone()?, began: now })
    }

    /// That is staged: clients are told it, if they were told nothing newer meanwhile.
    pub fn staged(&self, Underway { shown, began }: Underway) -> Option<Change> {
        let mut state = self.state.lock();
        state.staging = None;
        if state.told.as_ref().is_some_and(|told| told.number >= shown.number) {
            return None;
        }
        // What is newer came after this began, and is staged next.
        let is_newest = state.newest.as_ref().is_none_or(|newest| newest.number <= shown.number);
        if !is_newest {
            self.to_stage.notify_one();
        }
        self.tell(&mut state, shown, (!is_newest).then_some(began))
    }

    fn tell(
        &self,
        state: &mut State,
        now: Arc<Shown>,
        newer_since: Option<Instant>,
    ) -> Option<Change> {
        let before = state.told.replace(Arc::clone(&now)).unwrap_or_default();
        state.since = newer_since;
        self.number.send_replace(now.number);
        Some(Change { before, now })
    }

    /// Ends once clients are told what holds now, or something newer; after [`LONGEST`] in any case.
    pub async fn until_told(&self) {
        let Some(newest) = self.newest() else { return };
        let mut told = self.number.subscribe();
        let is_told = told.wait_for(|told| *told >= newest.number);
        let _ = tokio::time::timeout(LONGEST, is_told).await;
    }

    /// Ends once there is something to be staged.
    pub async fn to_stage(&self) {
        self.state.lock().is_followed = true;
        self.to_stage.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deployment::targets::Serviced;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// One that tells something else than that of each other number.
    fn shown(number: u64) -> Arc<Shown> {
        let mut shown = Shown { number, ..Shown::default() };
        let serviced = Serviced { clients: Arc::default(), windows: [].into() };
        shown.picture.windows.insert(format!("c{number}").parse().unwrap(), serviced);
        Arc::new(shown)
    }

    /// From which to which clients are told something else.
    fn change(change: Option<Change>) -> Option<(u64, u64)> {
        change.map(|it| (it.before.number, it.now.number))
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let future = std::pin::pin!(future);
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    /// One that staged what was first.
    fn started(now: Instant) -> Telling {
        let telling = Telling::default();
        assert!(telling.begin(now).is_none() && telling.tell_late(now).is_none());
        // Nobody stages yet.
        assert_eq!(change(telling.hold(shown(0), Stage::First, now)), Some((0, 0)));
        assert_eq!(change(telling.hold(shown(1), Stage::First, now)), Some((0, 1)));
        assert!(is_ready(telling.to_stage()) && !is_ready(telling.to_stage()));
        telling
    }

    #[tokio::test]
    async fn clients_hear_of_what_is_staged_and_of_the_rest_at_once() {
        let now = Instant::now();
        let telling = started(now);
        assert_eq!(change(telling.hold(shown(2), Stage::Nothing, now)), Some((1, 2)));
        assert!(is_ready(telling.until_told()) && !is_ready(telling.to_stage()));

        assert_eq!(change(telling.hold(shown(3), Stage::First, now)), None);
        assert_eq!(telling.told().map(|it| it.number), Some(2));
        telling.to_stage().await;
        let staging = telling.begin(now).unwrap();
        let ((), told) =
            tokio::join!(telling.until_told(), async { change(telling.staged(staging)) });
        assert_eq!(told, Some((2, 3)));
        assert!(!is_ready(telling.to_stage()));

        // What tells nobody anything new keeps nobody waiting, and is staged.
        let same = Shown { number: 4, picture: shown(3).picture.clone(), ..Shown::default() };
        assert_eq!(change(telling.hold(Arc::new(same), Stage::First, now)), Some((3, 4)));
        assert!(is_ready(telling.until_told()) && is_ready(telling.to_stage()));
    }

    #[tokio::test]
    async fn what_comes_while_something_is_staged_is_staged_next_and_its_documents_are_kept() {
        let now = Instant::now();
        let telling = started(now);
        telling.hold(shown(2), Stage::First, now);
        assert!(is_ready(telling.to_stage()));
        let staging = telling.begin(now).unwrap();
        // Also what is not to be staged itself waits its turn.
        for number in 3..6 {
            assert_eq!(change(telling.hold(shown(number), Stage::Nothing, now)), None);
        }
        let in_use: Vec<u64> = telling.in_use().map(|it| it.number).collect();
        assert_eq!(in_use, [1, 2, 5]);
        assert_eq!(change(telling.staged(staging)), Some((1, 2)));
        assert!(is_ready(telling.to_stage()));
        let staging = telling.begin(now).unwrap();
        assert_eq!(change(telling.staged(staging)), Some((2, 5)));
        assert!(!is_ready(telling.to_stage()) && is_ready(telling.until_told()));
    }

    #[test]
    fn nothing_is_withheld_longer_than_the_longest_and_what_is_told_late_is_staged_nevertheless() {
        let now = Instant::now();
        let telling = started(now);
        telling.hold(shown(2), Stage::First, now);
        assert!(is_ready(telling.to_stage()));
        let first = telling.begin(now).unwrap();
        telling.hold(shown(3), Stage::First, now + LONGEST / 2);
        // Late is what waited longest, and all are told what is newest.
        assert!(telling.tell_late(now + LONGEST / 2).is_none());
        assert_eq!(change(telling.tell_late(now + LONGEST)), Some((1, 3)));
        assert!(telling.staged(first).is_none(), "they know something newer");
        assert!(is_ready(telling.to_stage()), "the newer is to be staged yet");
        // Nothing waits now: neither is anything late, nor does it keep what comes from being told.
        assert!(telling.tell_late(now + LONGEST * 9).is_none());
        assert_eq!(change(telling.hold(shown(4), Stage::Nothing, now)), Some((3, 4)));

        // What came while another was staged waited at most since that began.
        telling.hold(shown(5), Stage::First, now);
        let staging = telling.begin(now + LONGEST / 2).unwrap();
        telling.hold(shown(6), Stage::First, now + LONGEST);
        assert_eq!(change(telling.staged(staging)), Some((4, 5)));
        assert!(telling.tell_late(now + LONGEST).is_none());
        assert_eq!(change(telling.tell_late(now + LONGEST / 2 * 3)), Some((5, 6)));
    }
}
