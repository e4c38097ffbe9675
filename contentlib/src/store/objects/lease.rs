//! The lease: which process may write to a library on an object store.
//!
//! One object, `lease`, names the holder and says until when it holds. The holder renews it; who
//! finds it running is refused; who finds it run out, or given back, takes it with the next fencing
//! number. Taking and renewing are conditional writes, so of two who try one succeeds.
//!
//! Always true, if clocks differ by less than [`SKEW`]: a process writes only while its own lease
//! surely runs, by its own steady clock, and another may take the lease only after that. What a
//! dead holder's requests still bring about later is for whoever opens the library to leave room
//! for ([`Before::is_clean`]).
//!
//! The holder's machine is known by a number in its folder, so that it may take its own lease
//! again at once: that nobody else is at work there its lock file says.
//!
//! Where something else decides who leads, and gives each a [`Term`], whoever has a later term than the
//! holder of the lease takes it at once, as that one writes nothing any more.

use super::gate::Term;
use super::requests::{Requests, Won};
use crate::library::Environment;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The lease's object.
pub(super) const NAME: &str = "lease";
/// How long it runs.
const LENGTH: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(15);
/// So long before its end nothing is written any more: a request that is under way then ends first,
/// or is late.
const MARGIN: Duration = Duration::from_secs(10);
/// How much the clocks of two machines may differ.
pub(super) const SKEW: Duration = Duration::from_secs(30);
/// The largest lease that is read, in bytes.
const MOST: usize = 4096;
const VERSION: u64 = 1;
/// Of a lease that goes with a term: an older depot would wait for its end, and not keep to the term.
const VERSION_WITH_TERM: u64 = 2;

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    version: u64,
    /// The machine, 32 hex digits.
    owner: String,
    /// The machine and process, for people.
    holder: String,
    /// Counts who took it. Below 2^63, as all numbers of a TOML document.
    fence: u64,
    /// In ms since 1970; 0 if it was given back.
    expires: u64,
    /// Given back with no write whose outcome is unknown.
    clean: bool,
    /// Who granted the right to lead, and which time it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grantor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
}

/// Why the lease cannot be had.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody else writes, until then (ms since 1970) or longer.
    Held {
        holder: String,
        until: u64,
    },
    /// A newer depot wrote it.
    Newer(u64),
    /// It is no lease.
    Unreadable,
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Who holds the lease, as it is told to others.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// The machine's own number.
    pub owner: String,
    /// The machine's name and the process, for people.
    pub name: String,
}

/// Who had the lease before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub owner: String,
    pub fence: u64,
    /// Whether all its writes had ended.
    pub is_clean: bool,
}

/// The lease, held, renewed meanwhile, and given back when this goes.
pub(super) struct Lease {
    inner: Arc<Inner>,
    renewal: Option<JoinHandle<()>>,
}

struct Inner {
    requests: Arc<Requests>,
    clock: Arc<dyn Environment>,
    holder: Holder,
    fence: u64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Note {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MOST);
        let text = text.ok_or(Refused::Unreadable)?;
        let Version { version } = toml::from_str(text).map_err(|_| Refused::Unreadable)?;
        if version > VERSION_WITH_TERM {
            return Err(Refused::Newer(version));
        }
        toml::from_str(text).map_err(|_| Refused::Unreadable)
    }

    fn encode(&self) -> bytes::Bytes {
        toml::to_string(self).expect("numbers and text are TOML").into()
    }
}

/// Takes the lease for `holder`. Returns who had it before, if anybody had.
pub(super) fn take(
    requests: &Arc<Requests>,
    clock: &Arc<dyn Environment>,
    holder: Holder,
) -> Result<(Lease, Option<Before>), Refused> {
    let began = Instant::now();
    let seen = requests.get_versioned(NAME)?;
    let note = seen.as_ref().map(|seen| Note::decode(&seen.bytes)).transpose()?;
    if let Some(note) = &note {
        refuse_if_running(note, &holder, requests.gate().term(), clock.unix_ms())?;
    }
    let fence = note.as_ref().map_or(0, |note| note.fence) + 1;
    let inner = Inner {
        requests: requests.clone(),
        clock: clock.clone(),
        holder,
        fence,
        stopped: Mutex::new(false),
        stop: Condvar::new(),
    };
    match requests.replace(NAME, seen, inner.note(true).encode())? {
        Won::Yes => requests.gate().open_until(began + LENGTH - MARGIN),
        Won::No => {
            let (holder, until) = match requests.get_versioned(NAME)? {
                Some(now) => Note::decode(&now.bytes).map(|note| (note.holder, note.expires))?,
                None => ("another process".into(), clock.unix_ms()),
            };
            return Err(Refused::Held { holder, until });
        }
    }
    let before = note.map(|note| Before {
        is_clean: note.clean && note.expires == 0,
        owner: note.owner,
        fence: note.fence,
    });
    let inner = Arc::new(inner);
    let renewing = inner.clone();
    let renewal = std::thread::Builder::new()
        .name("objects-lease".into())
        .spawn(move || renewing.renew_until_stopped())?;
    Ok((Lease { inner, renewal: Some(renewal) }, before))
}

fn refuse_if_running(
    note: &Note,
    holder: &Holder,
    term: Option<&Term>,
    now: u64,
) -> Result<(), Refused> {
    let is_running = note.expires > 0 && note.expires + SKEW.as_millis() as u64 > now;
    let is_followed = term.is_some_and(|ours| {
        note.grantor.as_ref() == Some(&ours.grantor) && note.term.is_some_and(|t| t < ours.number)
    });
    if is_running && !is_followed && note.owner != holder.owner {
        let until = note.expires + SKEW.as_millis() as u64;
        return Err(Refused::Held { holder: note.holder.clone(), until });
    }
    Ok(())
}

impl Inner {
    fn note(&self, runs: bool) -> Note {
        let expires = self.clock.unix_ms() + LENGTH.as_millis() as u64;
        let term = self.requests.gate().term();
        Note {
            version: if term.is_some() { VERSION_WITH_TERM } else { VERSION },
            owner: self.holder.owner.clone(),
            holder: self.holder.name.clone(),
            fence: self.fence,
            expires: if runs { expires } else { 0 },
            clean: !runs && !self.requests.is_in_doubt(),
            grantor: term.map(|term| term.grantor.clone()),
            term: term.map(|term| term.number),
        }
    }

    fn renew_until_stopped(&self) {
        let mut stopped = self.stopped.lock();
        while !*stopped {
            if !self.stop.wait_for(&mut stopped, RENEWAL).timed_out() {
                continue;
            }
            drop(stopped);
            let began = Instant::now();
            match self.write(true) {
                Ok(None) => self.requests.gate().open_until(began + LENGTH - MARGIN),
                Ok(Some(other)) => {
                    tracing::error!(%other, "the lease on the library was taken");
                    self.requests.gate().close(format!("{other} took the lease on the library"));
                    return;
                }
                // The gate closes by itself when it is time.
                Err(error) => tracing::warn!(%error, "the lease on the library is not renewed yet"),
            }
            stopped = self.stopped.lock();
        }
    }

    /// Writes the lease in place of the own one. Returns who has it, if that is somebody else.
    fn write(&self, runs: bool) -> io::Result<Option<String>> {
        let seen = self.requests.get_versioned(NAME)?;
        let note = seen.as_ref().and_then(|seen| Note::decode(&seen.bytes).ok());
        match note {
            Some(note) if note.owner == self.holder.owner && note.fence == self.fence => {}
            Some(note) => return Ok(Some(note.holder)),
            None => return Ok(Some("somebody".into())),
        }
        Ok(match self.requests.replace(NAME, seen, self.note(runs).encode())? {
            Won::Yes => None,
            Won::No => Some("another process".into()),
        })
    }
}

impl Lease {
    /// Its fencing number.
    pub(super) fn fence(&self) -> u64 {
        self.inner.fence
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.inner.stopped.lock() = true;
        self.inner.stop.notify_all();
        if let Some(renewal) = self.renewal.take() {
            let _ = renewal.join();
        }
        self.inner.requests.gate().close("the library was closed".into());
        // Whoever comes then waits until it has run out.
        if let Err(error) = self.inner.write(false) {
            tracing::warn!(%error, "the lease on the library is not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::System;
    use crate::store::objects::requests::Patience;
    use object_store::memory::InMemory;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    struct Clock(AtomicU64);
    impl Environment for Clock {
        fn unix_ms(&self) -> u64 {
            self.0.load(SeqCst)
        }
        fn random(&self) -> u128 {
            System.random()
        }
    }

    fn holder(name: &str) -> Holder {
        Holder { owner: format!("{name}-machine"), name: name.into() }
    }

    fn term(grantor: &str, number: u64) -> Option<Term> {
        let until = Arc::new(|| Instant::now() + LENGTH);
        Some(Term { grantor: grantor.into(), number, until })
    }

    struct Two {
        first: Arc<Requests>,
        second: Arc<Requests>,
        clock: Arc<Clock>,
    }

    fn two() -> Two {
        two_in_terms(None, None)
    }

    fn two_in_terms(first: Option<Term>, second: Option<Term>) -> Two {
        let bucket = Arc::new(InMemory::new());
        let requests = |term| {
            let requests = Requests::new(bucket.clone(), "a".into(), Patience::default(), term);
            Arc::new(requests.unwrap())
        };
        let clock = Arc::new(Clock(AtomicU64::new(1_700_000_000_000)));
        Two { first: requests(first), second: requests(second), clock }
    }

    fn take_as(
        two: &Two,
        requests: &Arc<Requests>,
        name: &str,
    ) -> Result<(Lease, Option<Before>), Refused> {
        let clock: Arc<dyn Environment> = two.clock.clone();
        take(requests, &clock, holder(name))
    }

    #[test]
    fn a_second_holder_is_refused_by_name_and_time_until_the_first_gave_back() {
        let two = two();
        let (lease, before) = take_as(&two, &two.first, "one").unwrap();
        assert_eq!((lease.fence(), before), (1, None));
        let refused = take_as(&two, &two.second, "two").err().unwrap();
        let Refused::Held { holder, until } = refused else { panic!("{refused:?}") };
        assert_eq!(holder, "one");
        assert_eq!(until, two.clock.unix_ms() + 90_000);
        drop(lease);
        assert!(two.first.gate().check().is_err());
        let (lease, before) = take_as(&two, &two.second, "two").unwrap();
        assert_eq!(lease.fence(), 2);
        let one = Before { owner: "one-machine".into(), fence: 1, is_clean: true };
        assert_eq!(before, Some(one));
    }

    #[test]
    fn a_lease_that_ran_out_is_taken_and_its_holder_learns_of_it() {
        let two = two();
        let (lease, _) = take_as(&two, &two.first, "one").unwrap();
        two.clock.0.fetch_add(89_000, SeqCst);
        assert!(take_as(&two, &two.second, "two").is_err());
        two.clock.0.fetch_add(2_000, SeqCst);
        let (_second, before) = take_as(&two, &two.second, "two").unwrap();
        assert!(!before.unwrap().is_clean);
        assert_eq!(lease.inner.write(true).unwrap(), Some("two".into()));
        drop(lease);
        // What the first says when it goes does not count.
        assert!(take_as(&two, &two.first, "one").is_err());
    }

    #[test]
    fn the_same_machine_takes_its_lease_again_at_once() {
        let two = two();
        let (first, _) = take_as(&two, &two.first, "one").unwrap();
        let (again, before) = take_as(&two, &two.second, "one").unwrap();
        assert_eq!((again.fence(), before.unwrap().is_clean), (2, false));
        assert_eq!(first.inner.write(true).unwrap(), Some("one".into()));
    }

    #[test]
    fn who_leads_later_takes_the_lease_at_once_and_nobody_else_does() {
        let two = two_in_terms(term("site", 3), term("site", 4));
        let (first, _) = take_as(&two, &two.first, "one").unwrap();
        let (second, before) = take_as(&two, &two.second, "two").unwrap();
        assert!(!before.unwrap().is_clean);
        assert_eq!(first.inner.write(true).unwrap(), Some("two".into()));
        // Not the one before, and not one that keeps to its time alone.
        assert!(take_as(&two, &two.first, "one").is_err());
        drop((first, second));
        for (first, second) in [
            (term("site", 3), term("another", 4)),
            (term("site", 3), term("site", 3)),
            (term("site", 3), None),
            (None, term("site", 4)),
        ] {
            let two = two_in_terms(first, second);
            let (_first, _) = take_as(&two, &two.first, "one").unwrap();
            assert!(take_as(&two, &two.second, "two").is_err());
            two.clock.0.fetch_add(91_000, SeqCst);
            take_as(&two, &two.second, "two").unwrap();
        }
    }

    #[test]
    fn what_is_no_lease_is_not_overwritten() {
        let two = two();
        for (text, newer) in [("", false), ("version = 3\nmore = 1", true), ("version = 1", false)]
        {
            let seen = two.first.get_versioned(NAME).unwrap();
            two.first.replace(NAME, seen, text.into()).unwrap();
            let refused = take_as(&two, &two.second, "two").err().unwrap();
            assert_eq!(matches!(refused, Refused::Newer(3)), newer, "{text:?}");
            assert_eq!(matches!(refused, Refused::Unreadable), !newer, "{text:?}");
        }
    }
}
