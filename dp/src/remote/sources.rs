//! Which of several servers is asked next, from what became of the requests before.
//!
//! Nothing here waits, sends or reads a clock: the time is handed in.
//!
//! * Servers of a lower rank come first; requests are spread over those of one rank.
//! * One that fails is passed over for a pause that grows. Then one request tries it, and the others
//!   follow once something came of that.
//! * One that stalled cost its request the whole time that progress is waited for. It rests for longer, and
//!   what comes from it meanwhile does not end that: it may be good for some bytes and stall again.
//! * One that sent other bytes than it should comes after all others for [`ASIDE`].
//! * All of this is a preference. Where nobody else is left, the one that is passed over is asked.
//!
//! What a server answered in one piece of work, that it lacks a chunk perhaps, is [`Tried`], and
//! concerns no other.

use std::time::{Duration, Instant};

/// The most servers of a client.
pub(crate) const MOST: usize = 32;
/// How long a server that sent wrong bytes comes after all others.
pub(super) const ASIDE: Duration = Duration::from_secs(300);
/// How often a server is asked in one piece of work, if nothing comes of it.
pub(super) const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause of a server that fails again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a server rests that stalled; each further time doubles it.
const FIRST_REST: Duration = Duration::from_secs(60);
/// The longest rest. A server that has not stalled for twice as long is as one that never did.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// The longest pause before a server is asked again in one piece of work.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Servers by their places in a list, at most [`MOST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub fn add(&mut self, at: usize) {
        self.0 |= 1 << at;
    }

    pub fn remove(&mut self, at: usize) {
        self.0 &= !(1 << at);
    }

    pub fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    /// Their places.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MOST).filter(move |at| self.has(*at))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    rank: u32,
    /// Failures without anything that came in between.
    failures: u32,
    /// The last of them.
    failed: Option<Instant>,
    paused_until: Option<Instant>,
    stalls: u32,
    /// The last of them.
    stalled: Option<Instant>,
    rests_until: Option<Instant>,
    aside_until: Option<Instant>,
    under_way: usize,
    /// When it was asked last, as a count of requests.
    asked: u64,
}

/// What is known of all servers.
#[derive(Debug)]
pub(super) struct Standings {
    servers: Vec<Standing>,
    asked: u64,
}

impl Standings {
    /// Of servers with these ranks, of which nothing is known yet.
    pub fn new(ranks: impl IntoIterator<Item = u32>) -> Self {
        let new = |rank| Standing { rank, ..Standing::default() };
        Self { servers: ranks.into_iter().take(MOST).map(new).collect(), asked: 0 }
    }

    /// The server to ask among those that `may` be; nothing if none may.
    pub fn best(&self, may: impl Fn(usize) -> bool, now: Instant) -> Option<usize> {
        let is_later = |time: Option<Instant>| time.is_some_and(|time| time > now);
        let order = |&at: &usize| {
            let server = &self.servers[at];
            let is_tried = server.failures > 0 && server.under_way > 0;
            let waits_until = server.paused_until.max(server.rests_until);
            let waits = is_tried || is_later(waits_until);
            let until = waits_until.filter(|_| waits);
            let is_aside = is_later(server.aside_until);
            (is_aside, waits, until, server.rank, server.under_way, server.asked, at)
        };
        (0..self.servers.len()).filter(|at| may(*at)).min_by_key(order)
    }

    /// A request to it begins.
    pub fn begin(&mut self, at: usize) {
        self.asked += 1;
        let server = &mut self.servers[at];
        server.under_way += 1;
        server.asked = self.asked;
    }

    /// A request to it has ended, however.
    pub fn end(&mut self, at: usize) {
        self.servers[at].under_way = self.servers[at].under_way.saturating_sub(1);
    }

    /// Something came from it.
    pub fn progressed(&mut self, at: usize) {
        let server = &mut self.servers[at];
        (server.failures, server.paused_until) = (0, None);
    }

    /// A request that began at `began` failed. Of several that were under way together one counts. It
    /// may have said `after` which time it wants to be asked again. Whether it is the first since
    /// something came from it.
    pub fn failed(
        &mut self,
        at: usize,
        began: Instant,
        after: Option<Duration>,
        now: Instant,
    ) -> bool {
        let server = &mut self.servers[at];
        if server.failed.is_some_and(|failed| began < failed) {
            return false;
        }
        server.failed = Some(now);
        server.failures = server.failures.saturating_add(1);
        let pause = after.unwrap_or_else(|| doubled(server.failures)).min(LONGEST_PAUSE);
        server.paused_until = Some(now + pause);
        server.failures == 1
    }

    /// A request that began at `began` waited in vain for the next byte. Of several that were under way
    /// together one counts.
    pub fn stalled(&mut self, at: usize, began: Instant, now: Instant) {
        let server = &mut self.servers[at];
        if server.stalled.is_some_and(|stalled| began < stalled) {
            return;
        }
        let before = server.stalled.replace(now);
        if before.is_none_or(|before| now.duration_since(before) > 2 * LONGEST_REST) {
            server.stalls = 0;
        }
        let rest = FIRST_REST * 2u32.pow(server.stalls.min(16));
        server.rests_until = Some(now + rest.min(LONGEST_REST));
        server.stalls = server.stalls.saturating_add(1);
    }

    /// It sent other bytes than it should. Whether that is news.
    pub fn lied(&mut self, at: usize, now: Instant) -> bool {
        let before = self.servers[at].aside_until.replace(now + ASIDE);
        before.is_none_or(|before| before <= now)
    }
}

/// The pause after that many failures.
fn doubled(failures: u32) -> Duration {
    FIRST_PAUSE * 2u32.pow(failures.saturating_sub(1).min(16))
}

/// How long a server is waited for that is itself bringing what it lacks.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long for one that may not have heard yet that it is to bring it.
const GRACE: Duration = Duration::from_secs(5);

/// Waiting for one server that is itself bringing what it lacks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    /// When it was asked first.
    began: Option<Instant>,
    /// The most that it held, and since when that is so.
    most: Option<(u64, Instant)>,
}

/// What to hope for from a server that lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It comes.
    Comes,
    /// It came, or at least it comes no more.
    Ended,
    /// It does not come, or so slowly that nobody waits for it.
    Nothing,
}

impl Wait {
    /// What to hope for from a server that says it holds so many bytes of what comes to it, or that
    /// nothing comes. It is waited for while that grows, and [`PATIENCE`] longer. One to which nothing
    /// comes may not have heard yet.
    pub fn outlook(&mut self, held: Option<u64>, now: Instant) -> Outlook {
        let began = *self.began.get_or_insert(now);
        match (held, self.most) {
            (None, None) if now.duration_since(began) < GRACE => Outlook::Comes,
            (None, None) => Outlook::Nothing,
            (None, Some(_)) => Outlook::Ended,
            (Some(held), Some((most, since))) if held <= most => {
                let is_stuck = now.duration_since(since) >= PATIENCE;
                if is_stuck { Outlook::Nothing } else { Outlook::Comes }
            }
            (Some(held), _) => {
                self.most = Some((held, now));
                Outlook::Comes
            }
        }
    }
}

/// What one piece of work heard of one server.
#[derive(Debug)]
pub(super) struct Tried<E> {
    failures: u32,
    after: Option<Duration>,
    /// Why it is not asked any more.
    out: Option<E>,
}

impl<E> Default for Tried<E> {
    fn default() -> Self {
        Self { failures: 0, after: None, out: None }
    }
}

impl<E> Tried<E> {
    /// Whether it is not asked any more.
    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Why not.
    pub fn why_out(self) -> Option<E> {
        self.out
    }

    /// Something came.
    pub fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Nothing came. After [`TRIES`] times it is not asked any more.
    pub fn failed(&mut self, error: E, after: Option<Duration>) {
        self.failures += 1;
        self.after = after;
        if self.failures >= TRIES {
            self.out = Some(error);
        }
    }

    /// It is not asked any more.
    pub fn give_up(&mut self, error: E) {
        self.out = Some(error);
    }

    /// How long to wait before it is asked.
    pub fn wait(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => self.after.unwrap_or_else(|| doubled(failures)).min(LONGEST_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn any(_: usize) -> bool {
        true
    }

    #[test]
    fn the_lowest_rank_comes_first_and_requests_are_spread_over_equals() {
        let (mut servers, now) = (Standings::new([0, 0, 1]), Instant::now());
        let mut asked = Vec::new();
        for _ in 0..4 {
            let at = servers.best(any, now).unwrap();
            servers.begin(at);
            asked.push(at);
        }
        assert_eq!(asked, [0, 1, 0, 1]);
        servers.end(1);
        assert_eq!(servers.best(any, now), Some(1), "it has less to do");
        assert_eq!(servers.best(|at| at == 2, now), Some(2));
        assert_eq!(servers.best(|_| false, now), None);
        // One after the other, too.
        let mut idle = Standings::new([0, 0]);
        let mut next = || {
            let at = idle.best(any, now).unwrap();
            idle.begin(at);
            idle.end(at);
            at
        };
        assert_eq!([next(), next(), next()], [0, 1, 0]);
    }

    #[test]
    fn a_server_that_fails_is_passed_over_for_a_pause_that_grows() {
        let (mut servers, mut now) = (Standings::new([0, 1]), Instant::now());
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            servers.failed(0, now, None, now);
            assert_eq!(servers.best(any, now), Some(1));
            let mut pause = Duration::ZERO;
            while servers.best(any, now + pause) != Some(0) {
                pause += FIRST_PAUSE;
            }
            assert!(pause >= last && pause <= LONGEST_PAUSE, "{pause:?}");
            (last, now) = (pause, now + pause);
        }
        assert_eq!(last, LONGEST_PAUSE);
        servers.progressed(0);
        assert!(servers.failed(0, now, None, now), "what came is forgiveness");
        assert_eq!(servers.best(any, now + FIRST_PAUSE), Some(0));
        assert!(!servers.failed(0, now + FIRST_PAUSE, None, now + FIRST_PAUSE));
    }

    #[test]
    fn after_its_pause_one_request_tries_it() {
        let (mut servers, now) = (Standings::new([0, 1]), Instant::now());
        servers.failed(0, now, None, now);
        let later = now + SECOND;
        assert_eq!(servers.best(any, later), Some(0));
        servers.begin(0);
        assert_eq!(servers.best(any, later), Some(1));
        servers.progressed(0);
        assert_eq!(servers.best(any, later), Some(0));
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let (mut servers, now) = (Standings::new([0, 1]), Instant::now());
        for _ in 0..10 {
            servers.failed(0, now, None, now + SECOND);
        }
        assert_eq!(servers.best(any, now + SECOND + FIRST_PAUSE), Some(0));
    }

    /// Asks two equal servers 60 times, the first of which stalls each time after some bytes; how often
    /// it does.
    fn stalls(servers: &mut Standings, now: &mut Instant) -> usize {
        let mut n = 0;
        for _ in 0..60 {
            let (at, began) = (servers.best(any, *now).unwrap(), *now);
            servers.begin(at);
            servers.progressed(at);
            *now += SECOND;
            if at == 0 {
                n += 1;
                *now += 30 * SECOND;
                servers.failed(0, began, None, *now);
                servers.stalled(0, began, *now);
            }
            servers.end(at);
        }
        n
    }

    #[test]
    fn a_server_that_stalls_rests_also_if_something_came_from_it() {
        let (mut servers, mut now) = (Standings::new([0, 0]), Instant::now());
        assert_eq!(stalls(&mut servers, &mut now), 1);
        assert_eq!(
            servers.best(|at| at == 0, now),
            Some(0),
            "where nobody else is left it is asked"
        );
        now += FIRST_REST;
        let n = (0..10).map(|_| stalls(&mut servers, &mut now)).sum::<usize>();
        assert!((1..=4).contains(&n), "{n} in ten minutes: the rests grow");
        // Good for long, it is as any other.
        now += 3 * LONGEST_REST;
        assert_eq!(stalls(&mut servers, &mut now), 1);
        assert_eq!(servers.best(any, now + FIRST_REST), Some(0));
    }

    #[test]
    fn requests_that_stall_together_are_one_stall() {
        let (mut servers, now) = (Standings::new([0, 1]), Instant::now());
        for _ in 0..10 {
            servers.stalled(0, now, now + SECOND);
            servers.progressed(0);
        }
        assert_eq!(servers.best(any, now + SECOND), Some(1));
        assert_eq!(servers.best(any, now + SECOND + FIRST_REST), Some(0));
    }

    #[test]
    fn a_server_that_lied_comes_after_all_others_for_a_while() {
        let (mut servers, now) = (Standings::new([0, 1, 2]), Instant::now());
        assert!(servers.lied(0, now));
        assert!(!servers.lied(0, now), "it is said once");
        servers.failed(1, now, None, now);
        servers.failed(2, now, Some(10 * SECOND), now);
        assert_eq!(servers.best(any, now), Some(1), "the one that fails, sooner than the liar");
        assert_eq!(servers.best(|at| at == 0, now), Some(0), "sooner than nobody");
        assert_eq!(servers.best(any, now + ASIDE), Some(0));
        assert!(servers.lied(0, now + ASIDE));
    }

    #[test]
    fn a_server_is_waited_for_while_more_comes_to_it() {
        use Outlook::{Comes, Ended, Nothing};
        let (mut wait, now) = (Wait::default(), Instant::now());
        assert_eq!(wait.outlook(None, now), Comes, "it may not have heard of it yet");
        assert_eq!(wait.outlook(None, now + GRACE), Nothing);
        assert_eq!(wait.outlook(Some(0), now), Comes);
        let (later, stuck) = (now + PATIENCE - SECOND, now + 2 * PATIENCE);
        assert_eq!(wait.outlook(Some(0), later), Comes);
        assert_eq!(wait.outlook(Some(5), later), Comes);
        assert_eq!(wait.outlook(Some(5), stuck), Nothing);
        assert_eq!(wait.outlook(Some(3), stuck), Nothing, "it began anew, which is no progress");
        assert_eq!(wait.outlook(None, stuck), Ended);
        assert_eq!(wait.outlook(Some(6), stuck), Comes, "it goes on after all");
    }

    #[test]
    fn one_piece_of_work_gives_a_server_up_after_some_tries_without_progress() {
        let mut tried = Tried::default();
        let mut waits = Vec::new();
        for n in 1..TRIES {
            tried.failed(n, None);
            waits.push(tried.wait());
        }
        assert!(!tried.is_out() && waits.is_sorted() && waits[0] == FIRST_PAUSE);
        tried.progressed();
        assert_eq!(tried.wait(), Duration::ZERO);
        (1..=TRIES).for_each(|n| tried.failed(n, Some(3600 * SECOND)));
        assert_eq!(tried.wait(), LONGEST_WAIT);
        assert_eq!(tried.why_out(), Some(TRIES));
    }
}
