//! How long a connection may keep the server waiting.
//!
//! A timer for each request would cost more than the request. So each connection only notes when
//! something happened, in coarse ticks, and once a tick its worker looks at all of them and ends
//! those that are over time. What is late is found up to one tick late.
//!
//! Always true: only the peer is on the clock. While the server itself works on a request (a disk
//! read, an API call), nothing expires.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The resolution of all time limits here.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the first byte of a request's head, or the start of the connection, to its end.
    pub head: u32,
    /// Between two requests.
    pub idle: u32,
    /// Without taking or giving a single byte, apart from what the kernel watches.
    pub progress: u32,
}

/// A duration in ticks, rounded up.
pub(crate) fn ticks(time: Duration) -> u32 {
    time.as_millis().div_ceil(TICK.as_millis()).try_into().unwrap_or(u32::MAX)
}

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    Head,
    Idle,
    Progress,
}

/// What a connection is waiting for. All times are ticks of its worker's clock.
///
/// One thread writes and reads all but `awaiting`; there the atomics only make it shareable.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests between their head and the end of their answer.
    in_service: AtomicU32,
    /// Those of them for which the server is at work.
    busy: AtomicU32,
    /// Those of the busy ones that wait for the peer's body.
    awaiting: AtomicU32,
    last_read: AtomicU32,
    last_write: AtomicU32,
    /// When the connection began, or its last answer ended.
    idle_since: AtomicU32,
    /// When the first byte of a head came, or [`NEVER`].
    head_since: AtomicU32,
    write_blocked: AtomicU32,
}

const NEVER: u32 = u32::MAX;

impl Activity {
    /// A connection accepted `now`, whose first head is on the clock.
    pub fn new(now: u32) -> Self {
        Self {
            in_service: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            awaiting: AtomicU32::new(0),
            last_read: AtomicU32::new(now),
            last_write: AtomicU32::new(now),
            idle_since: AtomicU32::new(now),
            head_since: AtomicU32::new(now),
            write_blocked: AtomicU32::new(0),
        }
    }

    /// Bytes came in. `is_head`: outside a request they belong to the next one's head.
    pub fn read(&self, now: u32, is_head: bool) {
        self.last_read.store(now, Relaxed);
        if is_head && self.in_service.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NEVER {
            self.head_since.store(now, Relaxed);
        }
    }

    /// The peer took bytes.
    pub fn wrote(&self, now: u32) {
        self.last_write.store(now, Relaxed);
        self.write_blocked.store(0, Relaxed);
    }

    /// There are bytes that the peer does not take.
    pub fn write_blocked(&self) {
        self.write_blocked.store(1, Relaxed);
    }

    /// A head is complete and its request begins, with the server at work on it.
    pub fn begin(&self) {
        add(&self.in_service, 1);
        add(&self.busy, 1);
        self.head_since.store(NEVER, Relaxed);
    }

    /// The server is, or no longer is, at work for one request.
    pub fn set_busy(&self, busy: bool) {
        add(&self.busy, if busy { 1 } else { u32::MAX });
    }

    /// The server waits, or no longer waits, for the body of one request.
    pub fn set_awaiting(&self, awaiting: bool) {
        // Bodies are read on the threads of the API, so this one has several writers.
        self.awaiting.fetch_add(if awaiting { 1 } else { u32::MAX }, Relaxed);
    }

    /// An answer ended, or was given up.
    pub fn end(&self, now: u32) {
        add(&self.in_service, u32::MAX);
        self.idle_since.store(now, Relaxed);
    }

    /// Which limit the peer has passed `now`.
    pub fn late(&self, now: u32, limits: &Limits) -> Option<Late> {
        let passed = |since: u32, limit: u32| now.saturating_sub(since) >= limit;
        let get = |n: &AtomicU32| n.load(Relaxed);
        if get(&self.write_blocked) > 0 {
            // The kernel sees each byte that the peer takes, and ends the connection if there is
            // none (TCP_USER_TIMEOUT); we are told only when much of its buffer is free again.
            return None;
        }
        if get(&self.in_service) > 0 {
            let at_work = get(&self.busy) > get(&self.awaiting);
            let progress = get(&self.last_read).max(get(&self.last_write));
            return (!at_work && passed(progress, limits.progress)).then_some(Late::Progress);
        }
        let head = get(&self.head_since);
        if head != NEVER && passed(head, limits.head) {
            return Some(Late::Head);
        }
        let idle = get(&self.idle_since).max(get(&self.last_write));
        passed(idle, limits.idle).then_some(Late::Idle)
    }
}

/// Plain load and store: there is one writer, and a locked instruction would cost ten times more.
fn add(counter: &AtomicU32, n: u32) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 10, idle: 75, progress: 30 };

    #[test]
    fn a_first_head_and_a_trickled_head_are_on_the_clock() {
        let peer = Activity::new(0);
        assert_eq!(peer.late(9, &LIMITS), None);
        assert_eq!(peer.late(10, &LIMITS), Some(Late::Head));
        peer.begin();
        peer.set_busy(false);
        peer.end(10);
        peer.read(20, true);
        peer.read(29, true);
        assert_eq!(peer.late(29, &LIMITS), None);
        assert_eq!(peer.late(30, &LIMITS), Some(Late::Head));
    }

    #[test]
    fn an_idle_connection_is_kept_for_a_while() {
        let peer = Activity::new(0);
        peer.begin();
        peer.set_busy(false);
        peer.end(5);
        assert_eq!(peer.late(79, &LIMITS), None);
        assert_eq!(peer.late(80, &LIMITS), Some(Late::Idle));
    }

    #[test]
    fn a_stream_that_the_peer_gives_no_room_is_on_the_clock() {
        let peer = Activity::new(0);
        peer.begin();
        peer.set_busy(false);
        for now in (0..300).step_by(29) {
            assert_eq!(peer.late(now, &LIMITS), None);
            peer.wrote(now);
        }
        assert_eq!(peer.late(320, &LIMITS), Some(Late::Progress));
    }

    #[test]
    fn the_servers_own_work_is_not_on_the_clock_but_a_missing_body_is() {
        let peer = Activity::new(0);
        peer.begin();
        assert_eq!(peer.late(1000, &LIMITS), None);
        peer.set_awaiting(true);
        assert_eq!(peer.late(1000, &LIMITS), Some(Late::Progress));
        peer.read(1000, true);
        assert_eq!(peer.late(1029, &LIMITS), None);
        peer.set_awaiting(false);
        assert_eq!(peer.late(2000, &LIMITS), None);
    }

    #[test]
    fn bytes_that_the_peer_does_not_take_are_the_kernels_to_watch() {
        let peer = Activity::new(0);
        peer.begin();
        peer.set_busy(false);
        peer.wrote(1);
        peer.write_blocked();
        assert_eq!(peer.late(1000, &LIMITS), None);
        peer.end(2);
        assert_eq!(peer.late(1000, &LIMITS), None);
        peer.wrote(1000);
        assert_eq!(peer.late(1075, &LIMITS), Some(Late::Idle));
    }
}
