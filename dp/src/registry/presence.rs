//! Whether a point is there, as far as the site can tell.
//!
//! A point waits at its site for its next wish, and reports once a minute. Where that question breaks
//! off, because its process ended or its line went, the point is not there unless it is soon heard
//! again: one that only connects anew never seems gone. One that is stopped says so, and is gone at once.

use super::Registry;
use crate::field::PointId;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

/// A point asks for its wish at least once a minute; one that did not for so long is not there.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(90);
/// One whose connection broke has so long to come again.
pub const RETURNS_IN: SignedDuration = SignedDuration::from_secs(15);

/// When a point was heard of in this run of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// When it last began to ask or to tell something, or got an answer.
    pub at: Timestamp,
    /// When the question that it waited with broke off, if nothing was heard since.
    pub broke: Option<Timestamp>,
    /// Whether it said that it ends, and nothing was heard since.
    pub left: bool,
}

impl Heard {
    /// For how long it has been cut off at `now`; nothing if it is not, or may only connect anew.
    pub fn cut_off(&self, now: Timestamp) -> Option<SignedDuration> {
        // A clock that was set back does not bring it back, and one that was set on ends it early.
        let since = now.duration_since(self.broke?).abs();
        (self.left || since >= RETURNS_IN).then_some(since)
    }
}

/// Whether a point is there that was `heard` of, and whose last report came at `reported`.
pub(super) fn is_there(heard: Option<Heard>, reported: Option<Timestamp>, now: Timestamp) -> bool {
    let last = heard.map(|heard| heard.at).max(reported);
    // A clock that was set back does not make one be there that is not.
    let is_recent = last.is_some_and(|last| now.duration_since(last).abs() < SILENT_AFTER);
    is_recent && heard.and_then(|heard| heard.cut_off(now)).is_none()
}

impl Registry {
    /// Notes that a point was heard of. Of one that was removed nothing is noted.
    pub fn saw(&self, id: &PointId, now: Timestamp) {
        let mut heard = self.heard.lock();
        if self.knows(id) {
            heard.insert(id.clone(), Heard { at: now, broke: None, left: false });
        }
    }

    /// Notes that a point said that it ends: from now on it is not there, until it is heard of again.
    pub fn left(&self, id: &PointId, now: Timestamp) {
        let mut heard = self.heard.lock();
        if self.knows(id) {
            heard.insert(id.clone(), Heard { at: now, broke: Some(now), left: true });
        }
    }

    /// For how long a point was not heard of that is not there; nothing if it is, or never was.
    pub(super) fn silence(&self, id: &PointId, now: Timestamp) -> Option<SignedDuration> {
        let seen = self.seen(id)?;
        (!self.is_online(id, now)).then(|| now.duration_since(seen))
    }

    /// Notes that the connection broke on which a point waited, by the right that [`Registry::feed`]
    /// gave it. If it waits on another one by now, that is nothing.
    pub fn broke(&self, id: &PointId, feed: &CancellationToken, now: Timestamp) {
        // As the right is given: whoever gives a newer one ends this first.
        let _feeds = self.feeds.lock();
        if !feed.is_cancelled()
            && let Some(heard) = self.heard.lock().get_mut(id)
            && !heard.left
        {
            heard.broke = Some(now);
        }
    }

    /// When a point was heard of last, as far as this run of the site, or its last report, tells.
    pub fn seen(&self, id: &PointId) -> Option<Timestamp> {
        let heard = self.heard.lock().get(id).map(|heard| heard.at);
        heard.max(self.reported(id))
    }

    /// Whether a point is there.
    pub fn is_online(&self, id: &PointId, now: Timestamp) -> bool {
        let heard = self.heard.lock().get(id).copied();
        is_there(heard, self.reported(id), now)
    }

    /// For how long a point has been cut off, if it is.
    pub(super) fn cut_off(&self, id: &PointId, now: Timestamp) -> Option<SignedDuration> {
        self.heard.lock().get(id)?.cut_off(now)
    }

    fn reported(&self, id: &PointId) -> Option<Timestamp> {
        self.state.read().standings.get(id).map(|standing| standing.received)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{joined, now, registry};
    use super::*;

    fn after(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn who_is_heard_is_there_and_who_is_cut_off_is_gone_after_a_moment() {
        let heard = |broke| Some(Heard { at: now(), broke, left: false });
        assert!(!is_there(None, None, now()));
        assert!(is_there(heard(None), None, after(89)) && !is_there(heard(None), None, after(90)));
        assert!(is_there(None, Some(now()), after(89)), "the site was started since");
        let broke = heard(Some(after(20)));
        assert!(is_there(broke, None, after(34)), "it may only connect anew");
        assert!(!is_there(broke, None, after(35)) && !is_there(broke, None, after(-1000)));
    }

    #[test]
    fn a_connection_that_breaks_counts_unless_the_point_came_again() {
        let registry = registry();
        let a = joined(&registry, "a").id;
        registry.saw(&a, now());
        let feed = registry.feed(&a);
        registry.broke(&a, &feed, after(1));
        assert!(registry.is_online(&a, after(15)) && !registry.is_online(&a, after(16)));
        registry.saw(&a, after(17));
        assert!(registry.is_online(&a, after(60)), "heard again");
        let newer = registry.feed(&a);
        registry.broke(&a, &feed, after(18));
        assert!(registry.is_online(&a, after(60)), "it waits on another connection by now");
        registry.broke(&a, &newer, after(18));
        assert!(!registry.is_online(&a, after(60)));
        assert_eq!(registry.cut_off(&a, after(60)), Some(SignedDuration::from_secs(42)));
    }

    #[test]
    fn who_says_that_it_ends_is_gone_at_once_until_it_is_heard_again() {
        let registry = registry();
        let a = joined(&registry, "a").id;
        registry.saw(&a, now());
        let feed = registry.feed(&a);
        assert_eq!(registry.silence(&a, after(1)), None);
        registry.left(&a, after(1));
        assert!(!registry.is_online(&a, after(1)));
        assert_eq!(
            registry.cut_off(&a, after(1)),
            Some(SignedDuration::ZERO),
            "passed over at once"
        );
        // The connection that it waited on is found broken after that.
        registry.broke(&a, &feed, after(2));
        assert!(!registry.is_online(&a, after(2)));
        assert_eq!(registry.silence(&a, after(61)), Some(SignedDuration::from_secs(60)));
        registry.saw(&a, after(62));
        assert!(registry.is_online(&a, after(62)) && registry.silence(&a, after(62)).is_none());
    }
}
