//! What a point does next: a pure function of what it should hold, what it holds, and what failed.

use crate::field::{Priority, Wanted, Wish};
use crate::pace::Level;
use packager::PackageName;
use packager::sign::VersionInfo;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// The pause after the first failure of a version; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// One version, by name.
pub(super) type Key = (PackageName, u64);

/// How often a version could not be brought, and what was said of it last. Its pause is measured, not
/// read off the clock: a clock that is set back must not make it last for days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub tries: u32,
    pub cause: String,
    pub at: Instant,
}

impl Failure {
    /// The failure after `before`, if there was one.
    pub fn after(before: Option<&Failure>, cause: String, at: Instant) -> Self {
        Self { tries: before.map_or(1, |before| before.tries.saturating_add(1)), cause, at }
    }

    /// When the version is tried again. `jitter` is from 0 to 1: points that failed together must
    /// not come back together.
    pub fn retry(&self, jitter: f64) -> Instant {
        let doubled = FIRST_PAUSE.as_secs_f64() * f64::from(1u32 << (self.tries - 1).min(16));
        let pause =
            doubled.min(LONGEST_PAUSE.as_secs_f64()) * (0.75 + 0.5 * jitter.clamp(0.0, 1.0));
        self.at + Duration::from_secs_f64(pause)
    }
}

/// So often in a row a version is planned anew at once since bytes of it went bad here while it was brought.
/// A scrub that finds a disk's bad places one after the other needs some; a disk that keeps nothing
/// is not written to without end.
const ANEW: u32 = 20;

/// How often in a row versions were planned anew at once.
#[derive(Default)]
pub(super) struct Anew(HashMap<Key, u32>);

impl Anew {
    /// Whether a version, of which bytes went bad while it was brought, is planned anew without a pause.
    pub fn may(&mut self, key: &Key) -> bool {
        let n = self.0.entry(key.clone()).or_default();
        *n += 1;
        *n <= ANEW
    }

    /// A version came, or failed for another reason.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Versions to bring, the most urgent first.
    pub bring: VecDeque<Wanted>,
    /// Versions that nobody wishes here any more.
    pub let_go: Vec<Key>,
    /// When to plan anew, if nothing else happens: a failed version may be tried again.
    pub again: Option<Instant>,
}

/// What to do at `now`. `retry` says when a version that failed may be tried again, `named` which
/// versions `latest` or a channel means here.
///
/// A version that a name means is let go only when all that is wished of its package is here:
/// clients that ask by name never find nothing where there was something.
pub(super) fn plan(
    wish: &Wish,
    held: &[VersionInfo],
    named: &HashSet<Key>,
    retry: &HashMap<Key, Instant>,
    now: Instant,
) -> Plan {
    let is_held: HashSet<Key> = held.iter().map(key).collect();
    let wished: HashSet<Key> = wish.versions.iter().map(|wanted| key(&wanted.version)).collect();
    let mut plan = Plan::default();
    let mut missing: Vec<(Reverse<Priority>, usize)> = Vec::new();
    for (at, wanted) in wish.versions.iter().enumerate() {
        let key = key(&wanted.version);
        if is_held.contains(&key) {
            continue;
        }
        match retry.get(&key).filter(|retry| **retry > now) {
            Some(retry) => plan.again = Some(plan.again.map_or(*retry, |a| a.min(*retry))),
            None => missing.push((Reverse(wanted.priority), at)),
        }
    }
    missing.sort_unstable();
    plan.bring = missing.into_iter().map(|(_, at)| wish.versions[at].clone()).collect();
    let missing = wish.versions.iter().filter(|wanted| !is_held.contains(&key(&wanted.version)));
    let waited_for: HashSet<&PackageName> = missing.map(|wanted| &wanted.version.package).collect();
    for version in held {
        let key = key(version);
        let is_needed =
            wished.contains(&key) || named.contains(&key) && waited_for.contains(&key.0);
        if !is_needed {
            plan.let_go.push(key);
        }
    }
    plan
}

/// Which versions should be on their way, of those to `bring`, which are in order: at most so many as
/// there are `slots`, of those that `level` lets through, the most urgent first. Of equals, one that is
/// `running` is not put off for another.
pub(super) fn choose<'a>(
    bring: &'a VecDeque<Wanted>,
    running: &HashSet<&Key>,
    level: Level,
    slots: usize,
) -> Vec<&'a Wanted> {
    let is_running = |wanted: &Wanted| running.iter().any(|key| is(&wanted.version, key));
    let (mut n_waiting, mut chosen) = (0, Vec::new());
    for wanted in bring.iter().filter(|wanted| level.allows(wanted.priority)) {
        let is_running = is_running(wanted);
        // Those that wait are in order: of them the first are enough.
        if is_running || n_waiting < slots {
            n_waiting += usize::from(!is_running);
            chosen.push((Reverse(wanted.priority), !is_running, wanted));
        }
    }
    chosen.sort_by_key(|(priority, is_waiting, _)| (*priority, *is_waiting));
    chosen.into_iter().map(|(.., wanted)| wanted).take(slots).collect()
}

/// Which of the versions that are `on_their_way` nobody wishes any more: what came of them is kept
/// until somebody says so.
pub(super) fn given_up(wish: &Wish, mut on_their_way: Vec<Key>) -> Vec<Key> {
    let wished: HashSet<Key> = wish.versions.iter().map(|wanted| key(&wanted.version)).collect();
    on_their_way.retain(|key| !wished.contains(key));
    on_their_way
}

/// What of `plan` a point does that is drained: it mends what it holds, the versions that are `hurt`,
/// and lets go of what is not wished. What it does not hold it does not bring.
pub(super) fn drained(mut plan: Plan, hurt: &HashSet<Key>) -> Plan {
    plan.bring.retain(|wanted| hurt.contains(&key(&wanted.version)));
    plan
}

/// Whether a version is the one of that name.
pub(super) fn is(version: &VersionInfo, key: &Key) -> bool {
    (&version.package, version.version) == (&key.0, key.1)
}

/// A version's name.
pub(super) fn key(version: &VersionInfo) -> Key {
    (version.package.clone(), version.version)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use contentlib::Digest;
    use packager::sign::SiteKey;
    use std::sync::Arc;

    /// The moment that all tests are at.
    pub fn now() -> Instant {
        static NOW: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *NOW
    }

    /// Version `number` of `package`; nothing here looks at its signature.
    pub fn version(package: &str, number: u64) -> VersionInfo {
        let digest = Digest::of(format!("{package} {number}").as_bytes());
        let json = serde_json::json!({
            "package": package, "version": number, "manifest": digest, "tree": digest,
            "signature": "00".repeat(64), "key": SiteKey::from_seed([1; 32]).public(),
            "n_files": 0, "n_folders": 0, "n_links": 0, "bytes": 100, "created": jiff::Timestamp::UNIX_EPOCH,
        });
        serde_json::from_value(json).unwrap()
    }

    pub fn wish(wanted: &[(&str, u64, Priority)]) -> Wish {
        let mut wish = Wish::default();
        for &(package, number, priority) in wanted {
            let version = version(package, number);
            let names = Arc::make_mut(&mut wish.names).entry(version.package.clone()).or_default();
            names.latest = names.latest.max(Some(number));
            Arc::make_mut(&mut wish.versions).push(Wanted { version, priority });
        }
        wish
    }

    fn nothing() -> HashSet<Key> {
        HashSet::new()
    }

    fn named<'a>(wanted: impl IntoIterator<Item = &'a Wanted>) -> Vec<String> {
        let name = |v: &VersionInfo| format!("{}@{}", v.package, v.version);
        wanted.into_iter().map(|wanted| name(&wanted.version)).collect()
    }

    #[test]
    fn the_urgent_come_first_and_equals_in_the_order_of_the_wish() {
        use Priority::{High, Low, Medium};
        let wish = wish(&[("a", 2, Low), ("b", 2, Medium), ("c", 2, High), ("d", 2, Medium)]);
        let found = plan(&wish, &[version("d", 2)], &nothing(), &HashMap::new(), now());
        assert_eq!(named(&found.bring), ["c@2", "b@2", "a@2"]);
        assert!(found.let_go.is_empty() && found.again.is_none());
    }

    #[test]
    fn the_slots_are_for_the_urgent_and_nobody_is_put_off_for_an_equal() {
        use Priority::{High, Low, Medium};
        let wish = wish(&[("a", 2, Low), ("b", 2, Medium), ("c", 2, High), ("d", 2, Medium)]);
        let bring = plan(&wish, &[], &nothing(), &HashMap::new(), now()).bring;
        let chosen = |running: &[&str], level, slots| {
            let running: Vec<Key> = running.iter().map(|name| (name.parse().unwrap(), 2)).collect();
            named(choose(&bring, &running.iter().collect(), level, slots))
        };
        assert_eq!(chosen(&[], Level::Open, 3), ["c@2", "b@2", "d@2"]);
        assert_eq!(chosen(&["d"], Level::Open, 2), ["c@2", "d@2"], "b does not take its place");
        assert_eq!(chosen(&["a", "b", "d"], Level::Open, 3), ["c@2", "b@2", "d@2"]);
        assert_eq!(chosen(&["a"], Level::Medium, 9), ["c@2", "b@2", "d@2"]);
        assert_eq!(chosen(&["a", "b"], Level::High, 3), ["c@2"]);
        assert!(chosen(&["c"], Level::Closed, 3).is_empty());
    }

    #[test]
    fn a_version_that_a_name_means_goes_when_what_replaces_it_is_here() {
        let wish = wish(&[("a", 4, Priority::Medium)]);
        let key = |number| ("a".parse::<PackageName>().unwrap(), number);
        let held = [version("a", 1), version("a", 2), version("a", 3)];
        // 2 by a channel, 3 as the newest.
        let named = HashSet::from([key(2), key(3)]);
        let before = plan(&wish, &held, &named, &HashMap::new(), now());
        assert_eq!(before.let_go, [key(1)]);
        let held = [&held[1..], &[version("a", 4)]].concat();
        let after = plan(&wish, &held, &named, &HashMap::new(), now());
        assert_eq!(after.let_go, [key(2), key(3)]);
    }

    #[test]
    fn a_drained_point_mends_what_it_holds_lets_go_and_brings_nothing() {
        use Priority::Medium;
        let wish = wish(&[("a", 2, Medium), ("b", 2, Medium), ("c", 2, Medium)]);
        // b is held and hurt; c is whole; d is not wished.
        let whole = [version("c", 2), version("d", 2)];
        let found = plan(&wish, &whole, &nothing(), &HashMap::new(), now());
        assert_eq!(
            (named(&found.bring), found.let_go.len()),
            (vec!["a@2".into(), "b@2".into()], 1)
        );
        let found = drained(found, &HashSet::from([("b".parse().unwrap(), 2)]));
        assert_eq!((named(&found.bring), found.let_go.len()), (vec!["b@2".into()], 1));
    }

    #[test]
    fn what_is_wished_no_more_goes_at_once() {
        let named = HashSet::from([("a".parse().unwrap(), 2)]);
        let found = plan(&Wish::default(), &[version("a", 2)], &named, &HashMap::new(), now());
        assert_eq!(found.let_go, [("a".parse().unwrap(), 2)]);
        assert!(found.bring.is_empty());
    }

    #[test]
    fn what_came_of_a_version_is_given_up_with_the_wish_for_it() {
        let wish = wish(&[("a", 3, Priority::Medium)]);
        let on_their_way = [("a", 2), ("a", 3), ("b", 3)];
        let on_their_way = on_their_way.map(|(name, n)| (name.parse().unwrap(), n)).to_vec();
        let given_up = given_up(&wish, on_their_way);
        assert_eq!(given_up, [("a".parse().unwrap(), 2), ("b".parse().unwrap(), 3)]);
    }

    #[test]
    fn a_version_that_failed_waits_and_holds_up_no_other() {
        let wish = wish(&[("a", 2, Priority::High), ("b", 2, Priority::Low)]);
        let failure = Failure::after(None, "no".into(), now());
        let retry = HashMap::from([(("a".parse().unwrap(), 2), failure.retry(0.5))]);
        let found = plan(&wish, &[], &nothing(), &retry, now());
        assert_eq!(named(&found.bring), ["b@2"]);
        let again = found.again.unwrap();
        assert_eq!(again, now() + FIRST_PAUSE);
        assert_eq!(named(&plan(&wish, &[], &nothing(), &retry, again).bring), ["a@2", "b@2"]);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut failure = Failure::after(None, "no".into(), now());
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            let pause = failure.retry(0.5).duration_since(now());
            assert!(pause >= last && pause <= LONGEST_PAUSE);
            assert!(failure.retry(0.0) < failure.retry(1.0));
            last = pause;
            failure = Failure::after(Some(&failure), "no".into(), now());
        }
        assert_eq!(last, LONGEST_PAUSE);
    }

    #[test]
    fn what_goes_bad_while_it_is_brought_is_planned_anew_at_once_but_not_without_end() {
        let key = ("a".parse().unwrap(), 2);
        let mut anew = Anew::default();
        assert_eq!((0..30).filter(|_| anew.may(&key)).count() as u32, ANEW);
        anew.forget(&key);
        assert!(anew.may(&key));
    }
}
