//! What a point says of itself. Each fact follows from the wish, what is held, what is on its way
//! and what failed; nothing is remembered that could be wrong, but how long ago a state began. That is
//! measured and not read off the clock, so a clock that is set makes no state older or newer.

use super::mend;
use super::plan::{Failure, Key, key};
use crate::field::{Fact, FactState, Priority, Wanted, Wish};
use contentlib::Progress;
use jiff::{SignedDuration, Timestamp};
use packager::packages::Hurt;
use packager::sign::VersionInfo;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Why nothing is brought.
const DRAINED: &str = "the distribution point is drained";

/// What happened to versions since the point was started.
#[derive(Default)]
pub(super) struct Facts {
    /// The versions that are on their way.
    pub fetching: HashMap<Key, Arc<Progress>>,
    /// How many bytes had come of versions that were put off, or failed, when they were last tried.
    pub came: HashMap<Key, u64>,
    /// Why what has these priorities may not be brought at this hour.
    pub shut: BTreeMap<Priority, String>,
    /// Versions that are held and not whole, as far as known.
    pub hurt: HashMap<Key, Hurt>,
    /// Versions that could not be brought.
    pub failures: HashMap<Key, Failure>,
    began: HashMap<Key, (FactState, Instant)>,
}

/// One moment: by the clock, which may be set, and as time that passes.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub clock: Timestamp,
    pub passing: Instant,
}

impl Moment {
    /// What the clock would have said at `then`, had it been as it is now.
    fn clock_at(&self, then: Instant) -> Timestamp {
        let ago = self.passing.saturating_duration_since(then);
        let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
        self.clock.saturating_sub(ago).unwrap_or(Timestamp::MIN)
    }
}

impl Facts {
    /// A version is on its way no more. What came of it is kept, and told until it is tried again.
    pub fn ended(&mut self, key: &Key) {
        if let Some(progress) = self.fetching.remove(key) {
            self.came.insert(key.clone(), progress.bytes.load(Relaxed));
        }
    }

    /// When each version that failed may be tried again. The pauses differ by what a point and a
    /// version are called, so that points which failed together do not come back together.
    pub fn retries(&self, point: &str) -> HashMap<Key, Instant> {
        let jitter = |key: &Key| {
            let seed = format!("{point} {} {}", key.0, key.1);
            f64::from(blake3::hash(seed.as_bytes()).as_bytes()[0]) / 255.0
        };
        self.failures.iter().map(|(key, failed)| (key.clone(), failed.retry(jitter(key)))).collect()
    }

    /// Forgets what is told of versions that nobody wishes any more.
    pub fn forget_unwished(&mut self, wish: &Wish) {
        let wished: HashSet<Key> = wish.versions.iter().map(|w| key(&w.version)).collect();
        self.failures.retain(|key, _| wished.contains(key));
        self.came.retain(|key, _| wished.contains(key));
    }

    /// Why a version that is wished is not whole here, as far as known.
    pub fn why_not(&self, wish: &Wish, wanted: &Wanted) -> Option<String> {
        let key = key(&wanted.version);
        let failed = self.failures.get(&key).map(|failure| failure.cause.clone());
        let is_kept_out = wish.settings.drained && !self.hurt.contains_key(&key);
        let drained = is_kept_out.then(|| DRAINED.to_owned());
        failed.or(drained).or_else(|| self.shut.get(&wanted.priority).cloned())
    }

    /// One fact for each version that is wished or held, at `now`.
    pub fn tell(&mut self, wish: Option<&Wish>, held: &[VersionInfo], now: Moment) -> Vec<Fact> {
        let wished = wish.into_iter().flat_map(|wish| wish.versions.iter());
        let wished = wished.map(|wanted| (&wanted.version, Some(wanted.priority)));
        let is_wished: HashSet<Key> = wished.clone().map(|(version, _)| key(version)).collect();
        let is_held: HashSet<Key> = held.iter().map(key).collect();
        let mut facts = Vec::new();
        let missing = wished.filter(|(version, _)| !is_held.contains(&key(version)));
        for (version, priority) in missing.chain(held.iter().map(|version| (version, None))) {
            let key = key(version);
            let fetching = self.fetching.get(&key);
            let failure = self.failures.get(&key);
            let (mut bytes_left, mut cause) = (0, None);
            // Before the first wish nobody knows what is not wished.
            let leaves = wish.is_some() && !is_wished.contains(&key);
            let hurt = self.hurt.get(&key).filter(|_| !leaves);
            let state = if is_held.contains(&key) && hurt.is_none() {
                if leaves { FactState::Leaving } else { FactState::Held }
            } else {
                bytes_left = hurt.map_or(version.bytes, |hurt| hurt.bytes);
                let damage = hurt.map(mend::cause);
                let failed = failure.map(|failure| failure.cause.clone());
                cause = match (damage, failed) {
                    (Some(damage), Some(failed)) => Some(format!("{damage}; {failed}")),
                    (damage, failed) => damage.or(failed),
                };
                let before = self.came.get(&key).copied().filter(|_| hurt.is_none());
                let here = fetching.map(|progress| progress.bytes.load(Relaxed)).or(before);
                bytes_left = bytes_left.min(version.bytes.saturating_sub(here.unwrap_or(0)));
                let is_drained = wish.is_some_and(|wish| wish.settings.drained);
                match (hurt, fetching, failure) {
                    (None, None, _) if is_drained => {
                        cause = Some(DRAINED.to_owned());
                        FactState::Waiting
                    }
                    (None, Some(_), _) => FactState::Fetching,
                    (Some(_), Some(_), _) | (Some(_), _, None) => FactState::Repairing,
                    (_, None, Some(_)) => FactState::Failed,
                    (None, None, None) => {
                        cause = priority.and_then(|priority| self.shut.get(&priority).cloned());
                        FactState::Waiting
                    }
                }
            };
            let began = match self.began.get(&key) {
                Some((before, began)) if *before == state => *began,
                _ => now.passing,
            };
            self.began.insert(key, (state, began));
            facts.push(Fact {
                package: version.package.clone(),
                version: version.version,
                state,
                bytes: version.bytes,
                bytes_left,
                cause,
                since: now.clock_at(began),
            });
        }
        let told = |key: &Key| is_wished.contains(key) || is_held.contains(key);
        self.began.retain(|key, _| told(key));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Priority::Medium;
    use crate::node::plan::tests::{now, version, wish};
    use std::time::Duration;

    fn told(facts: &[Fact]) -> Vec<(String, FactState, u64)> {
        let one = |f: &Fact| (format!("{}@{}", f.package, f.version), f.state, f.bytes_left);
        facts.iter().map(one).collect()
    }

    const CLOCK: Timestamp = Timestamp::UNIX_EPOCH;

    /// So many seconds after the tests' moment, when the clock says so many.
    fn at(passed: u64, clock: i64) -> Moment {
        let clock = CLOCK + SignedDuration::from_secs(clock);
        Moment { clock, passing: now() + Duration::from_secs(passed) }
    }

    #[test]
    fn each_version_is_told_once_as_it_is() {
        use FactState::*;
        let wish = wish(&[("a", 2, Medium), ("b", 2, Medium), ("c", 2, Medium), ("d", 2, Medium)]);
        let mut facts = Facts::default();
        let progress = Arc::new(Progress::default());
        progress.bytes.store(70, Relaxed);
        facts.fetching.insert(("b".parse().unwrap(), 2), progress);
        let failure = Failure::after(None, "no room".into(), now());
        facts.failures.insert(("c".parse().unwrap(), 2), failure);
        let found = facts.tell(Some(&wish), &[version("d", 2), version("e", 7)], at(0, 0));
        let want = [("a@2", Waiting, 100), ("b@2", Fetching, 30), ("c@2", Failed, 100)];
        let want = want.into_iter().chain([("d@2", Held, 0), ("e@7", Leaving, 0)]);
        let want: Vec<_> = want.map(|(name, state, left)| (name.to_owned(), state, left)).collect();
        assert_eq!(told(&found), want);
        let causes: Vec<_> = found.iter().filter_map(|fact| fact.cause.as_deref()).collect();
        assert_eq!(causes, ["no room"]);
    }

    #[test]
    fn what_may_not_be_brought_at_this_hour_says_when_it_may() {
        use crate::field::Priority::High;
        let wish = wish(&[("a", 2, Medium), ("b", 2, High), ("c", 2, Medium)]);
        let mut facts = Facts::default();
        facts.shut.insert(Medium, "the window opens Mon 20:00 Europe/Paris".into());
        let found = facts.tell(Some(&wish), &[version("c", 2)], at(0, 0));
        let causes: Vec<_> = found.iter().map(|fact| fact.cause.as_deref()).collect();
        assert_eq!(causes, [Some("the window opens Mon 20:00 Europe/Paris"), None, None]);
    }

    #[test]
    fn a_drained_point_says_that_it_waits_for_people() {
        let mut wish = wish(&[("a", 2, Medium), ("b", 2, Medium), ("c", 2, Medium)]);
        wish.settings.drained = true;
        let mut facts = Facts::default();
        let failure = Failure::after(None, "no room".into(), now());
        facts.failures.insert(("b".parse().unwrap(), 2), failure);
        let found = facts.tell(Some(&wish), &[version("c", 2), version("d", 2)], at(0, 0));
        let found: Vec<_> = found.iter().map(|fact| (fact.state, fact.cause.as_deref())).collect();
        let (waits, leaves) = (FactState::Waiting, FactState::Leaving);
        let want = [(waits, true), (waits, true), (FactState::Held, false), (leaves, false)];
        assert_eq!(found, want.map(|(state, says)| (state, says.then_some(DRAINED))));
    }

    #[test]
    fn what_was_put_off_tells_what_came_of_it() {
        use FactState::*;
        let wish = wish(&[("a", 2, Medium)]);
        let mut facts = Facts::default();
        let key: Key = ("a".parse().unwrap(), 2);
        let progress = Arc::new(Progress::default());
        progress.bytes.store(70, Relaxed);
        facts.fetching.insert(key.clone(), progress);
        facts.ended(&key);
        let tell = |facts: &mut Facts| told(&facts.tell(Some(&wish), &[], at(0, 0)));
        assert_eq!(tell(&mut facts), [("a@2".to_owned(), Waiting, 30)]);
        facts.failures.insert(key.clone(), Failure::after(None, "cut".into(), now()));
        assert_eq!(tell(&mut facts), [("a@2".to_owned(), Failed, 30)]);
        facts.fetching.insert(key, Arc::default());
        assert_eq!(tell(&mut facts)[0].1, Fetching, "and counts anew what is here");
        facts.fetching.clear();
        facts.forget_unwished(&Wish::default());
        assert!(facts.came.is_empty());
    }

    #[test]
    fn nothing_leaves_before_the_site_was_heard() {
        let found = Facts::default().tell(None, &[version("a", 2)], at(0, 0));
        assert_eq!(told(&found), [("a@2".to_owned(), FactState::Held, 0)]);
    }

    #[test]
    fn a_state_keeps_the_time_when_it_began() {
        let wish = wish(&[("a", 2, Medium)]);
        let mut facts = Facts::default();
        let mut since = |held: &[VersionInfo], now| {
            facts.tell(Some(&wish), held, now)[0].since.duration_since(CLOCK).as_secs()
        };
        assert_eq!(since(&[], at(1, 1)), 1);
        assert_eq!(since(&[], at(2, 2)), 1);
        assert_eq!(since(&[version("a", 2)], at(3, 3)), 3);
        assert_eq!(since(&[version("a", 2)], at(4, 4)), 3);
    }

    #[test]
    fn a_clock_that_is_set_makes_no_state_older_or_newer() {
        const DAYS: i64 = 5 * 24 * 3600;
        let wish = wish(&[("a", 2, Medium)]);
        let mut facts = Facts::default();
        let mut age = |now: Moment| {
            now.clock.duration_since(facts.tell(Some(&wish), &[], now)[0].since).as_secs()
        };
        assert_eq!(age(at(10, 10)), 0);
        assert_eq!(age(at(12, DAYS)), 2);
        assert_eq!(age(at(15, -DAYS)), 5);
    }

    #[test]
    fn what_failed_and_is_wished_no_more_is_forgotten() {
        let mut facts = Facts::default();
        for name in ["a", "b"] {
            let failure = Failure::after(None, "no".into(), now());
            facts.failures.insert((name.parse().unwrap(), 2), failure);
        }
        facts.forget_unwished(&wish(&[("b", 2, Medium)]));
        let left = facts.retries("0");
        assert_eq!(left.keys().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_ne!(left.values().next(), facts.retries("1").values().next(), "points differ");
    }

    #[test]
    fn what_is_held_and_damaged_is_repaired_and_says_so() {
        let wish = wish(&[("a", 2, Medium)]);
        let held = [version("a", 2), version("b", 2)];
        let mut facts = Facts::default();
        for name in ["a", "b"] {
            let package: packager::PackageName = name.parse().unwrap();
            let hurt = Hurt {
                package: package.clone(),
                version: 2,
                n_contents: 1,
                bytes: 40,
                manifest: false,
            };
            facts.hurt.insert((package, 2), hurt);
        }
        let tell = |facts: &mut Facts| {
            let found = facts.tell(Some(&wish), &held, at(0, 0));
            assert_eq!(found[1].state, FactState::Leaving, "nobody wishes it whole");
            let cause = found[0].cause.clone().unwrap();
            assert!(cause.contains("damaged or lost"), "{cause}");
            (found[0].state, found[0].bytes_left, cause)
        };
        assert_eq!(tell(&mut facts).0, FactState::Repairing);
        let progress = Arc::new(Progress::default());
        progress.bytes.store(90, Relaxed);
        let key: Key = ("a".parse().unwrap(), 2);
        facts.fetching.insert(key.clone(), progress);
        assert_eq!(tell(&mut facts).1, 10);
        facts.fetching.clear();
        facts.failures.insert(key, Failure::after(None, "no way".into(), now()));
        let (state, left, cause) = tell(&mut facts);
        assert_eq!((state, left), (FactState::Failed, 40));
        assert!(cause.ends_with("; no way"), "{cause}");
    }
}
