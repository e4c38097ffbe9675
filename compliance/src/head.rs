//! What the site knows of one client besides its states: how far it was heard, and how it fares.
//!
//! Small and fixed, so that a million of them stay in memory.

use crate::digest::StateDigest;
use crate::message::{Answer, Batch, Incarnation, Kind, Resync, Scan, ScanOutcome};
use serde::{Deserialize, Serialize};

/// A place in the order of all that the site was told; 0 is before all.
pub type Place = u64;

/// Seconds since 1970 by the site's clock.
pub(crate) type Seconds = i64;

/// What is known of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The life of its store; none if it never sent a batch.
    pub incarnation: Option<Incarnation>,
    /// The number that its next batch begins with.
    pub next: u64,
    /// The life before, and how far that came.
    pub previous: Option<(Incarnation, u64)>,
    /// How often a life came back that had been superseded, or one used a number again for something else: two
    /// machines share one identity. Once, it may be a machine whose disk was put back.
    pub returns: u16,
    /// The digest of the states that the site holds of it.
    pub digest: StateDigest,
    /// How many those are.
    pub known: u32,
    /// Whether that digest was not the client's own after the last batch.
    pub diverged: bool,
    /// Since when a batch that could not be read makes its states doubtful.
    pub corrupt: Option<Seconds>,
    /// When its last scan ended, by the site's clock.
    pub scanned: Option<Seconds>,
    /// When a scan last completed.
    pub completed: Option<Seconds>,
    /// How the last scan failed, if it did.
    pub failed: Option<u32>,
    /// The version of the catalogue that it last scanned against.
    pub catalogue: u64,
    /// Changes that wait at the client.
    pub waiting: u32,
    /// By how many seconds the client's clock was ahead.
    pub clock_ahead: i32,
    /// When it was last heard, as far as that was recorded.
    pub heard: Option<Seconds>,
    /// The last thing told that is in this.
    pub changed: Place,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it.
    Take,
    /// Answer this.
    Answer(Answer),
    /// Answer this, and note that the life used a number again for something else.
    Returned(Answer),
}

impl Head {
    /// Why a full state is wanted, if it is.
    pub(crate) fn resync(&self) -> Option<Resync> {
        match (self.corrupt, self.diverged) {
            (Some(_), _) => Some(Resync::Corrupt),
            (None, true) => Some(Resync::Diverged),
            (None, false) => None,
        }
    }

    /// Whether `batch` comes next.
    pub(crate) fn judge(&self, batch: &Batch) -> Verdict {
        let duplicate = |next| Verdict::Answer(Answer::Duplicate { next, resync: self.resync() });
        let is_full = batch.kind == Kind::Full;
        if self.incarnation == Some(batch.incarnation) {
            return if batch.next == self.next && batch.digest != self.digest {
                // The number was used for something else: the client's store was put back, or is a copy. Where
                // the digests did not agree anyway, it may as well be the same batch once more.
                let (next, resync) = (self.next, self.resync());
                match resync {
                    None => Verdict::Returned(Answer::Duplicate {
                        next,
                        resync: Some(Resync::Diverged),
                    }),
                    Some(_) => duplicate(next),
                }
            } else if batch.next <= self.next {
                duplicate(self.next)
            } else if is_full || batch.first <= self.next {
                Verdict::Take
            } else {
                let (expected, resync) = (self.next, self.resync());
                Verdict::Answer(Answer::Gap { expected, resync })
            };
        }
        match self.previous {
            // Something that was long under way, from before the machine was set up anew.
            Some((life, next)) if life == batch.incarnation && batch.next <= next => {
                duplicate(next)
            }
            // All that ever changed is a full state too.
            _ if is_full || (self.incarnation.is_none() && batch.first == 0) => Verdict::Take,
            _ => {
                let resync = Some(Resync::NewIncarnation);
                Verdict::Answer(Answer::Gap { expected: batch.first, resync })
            }
        }
    }

    /// Notes that its life used a number again, at `now`.
    pub(crate) fn return_at(&mut self, now: Seconds) {
        self.returns = self.returns.saturating_add(1);
        self.heard = Some(now);
    }

    /// Notes a batch that was taken at `now`; what it does to the states comes separately. Whether a life
    /// came back that had been superseded.
    pub(crate) fn take(&mut self, batch: &Batch, now: Seconds) -> bool {
        let mut has_returned = false;
        if let Some(before) = self.incarnation.filter(|it| *it != batch.incarnation) {
            has_returned = self.previous.is_some_and(|(life, _)| life == batch.incarnation);
            self.returns = self.returns.saturating_add(u16::from(has_returned));
            self.previous = Some((before, self.next));
        }
        self.incarnation = Some(batch.incarnation);
        self.next = batch.next;
        if batch.kind == Kind::Full {
            self.corrupt = None;
        }
        if let Some(Scan { age, outcome, completed, catalogue }) = batch.scan {
            let ago = |age: u32| now.saturating_sub(i64::from(age));
            self.scanned = Some(ago(age));
            self.completed = completed.map(ago);
            self.catalogue = catalogue;
            self.failed = match outcome {
                ScanOutcome::Completed => None,
                ScanOutcome::Failed(code) => Some(code),
            };
        }
        self.waiting = batch.waiting;
        let ahead = batch.sent.saturating_sub(now).clamp(i32::MIN.into(), i32::MAX.into());
        self.clock_ahead = i32::try_from(ahead).unwrap_or_default();
        self.heard = Some(now);
        has_returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ClientId;
    use uuid::Uuid;

    fn batch(life: u64, kind: Kind, first: u64, next: u64) -> Batch {
        Batch {
            client: ClientId(Uuid::nil()),
            incarnation: Incarnation(life.try_into().unwrap()),
            first,
            next,
            kind,
            sent: 0,
            scan: None,
            waiting: 0,
            digest: StateDigest::default(),
            states: Vec::new(),
        }
    }

    fn take(head: &mut Head, batch: &Batch) -> bool {
        assert_eq!(head.judge(batch), Verdict::Take);
        head.take(batch, 100)
    }

    #[test]
    fn batches_are_taken_in_order_and_once() {
        let mut head = Head::default();
        let one = batch(1, Kind::Changes, 0, 5);
        take(&mut head, &one);
        let duplicate = Answer::Duplicate { next: 5, resync: None };
        assert_eq!(head.judge(&one), Verdict::Answer(duplicate));
        let gap = Answer::Gap { expected: 5, resync: None };
        assert_eq!(head.judge(&batch(1, Kind::Changes, 6, 9)), Verdict::Answer(gap));
        take(&mut head, &batch(1, Kind::Changes, 3, 9));
        assert_eq!(head.next, 9, "what overlaps what was taken is taken whole");
    }

    #[test]
    fn a_number_that_was_used_for_something_else_is_noticed() {
        let mut head = Head::default();
        take(&mut head, &batch(1, Kind::Changes, 0, 5));
        let other = Batch { digest: StateDigest(7), ..batch(1, Kind::Changes, 4, 5) };
        let resync = Some(Resync::Diverged);
        let duplicate = Answer::Duplicate { next: 5, resync };
        assert_eq!(head.judge(&other), Verdict::Returned(duplicate));
        // Of one whose states are asked for anyway it proves nothing.
        let doubtful = Head { diverged: true, ..head };
        assert_eq!(doubtful.judge(&other), Verdict::Answer(duplicate));
        // What was long under way says what was true once.
        let late = Batch { digest: StateDigest(7), ..batch(1, Kind::Changes, 2, 4) };
        let duplicate = Answer::Duplicate { next: 5, resync: None };
        assert_eq!(head.judge(&late), Verdict::Answer(duplicate));
    }

    #[test]
    fn a_full_state_closes_a_gap_but_an_old_one_does_nothing() {
        let mut head = Head::default();
        take(&mut head, &batch(1, Kind::Full, 40, 41));
        let old = Answer::Duplicate { next: 41, resync: None };
        assert_eq!(head.judge(&batch(1, Kind::Full, 30, 31)), Verdict::Answer(old));
        take(&mut head, &batch(1, Kind::Full, 50, 51));
    }

    #[test]
    fn a_machine_set_up_anew_begins_with_a_full_state() {
        let mut head = Head::default();
        take(&mut head, &batch(1, Kind::Changes, 0, 5));
        let gap = Answer::Gap { expected: 0, resync: Some(Resync::NewIncarnation) };
        assert_eq!(head.judge(&batch(2, Kind::Changes, 0, 1)), Verdict::Answer(gap));
        assert!(!take(&mut head, &batch(2, Kind::Full, 0, 1)));
        let late = Answer::Duplicate { next: 5, resync: None };
        assert_eq!(head.judge(&batch(1, Kind::Full, 4, 5)), Verdict::Answer(late));
        assert_eq!(head.next, 1);
    }

    #[test]
    fn two_machines_with_one_identity_are_told() {
        let mut head = Head::default();
        take(&mut head, &batch(1, Kind::Full, 0, 1));
        take(&mut head, &batch(2, Kind::Full, 0, 1));
        assert_eq!(head.returns, 0);
        assert!(take(&mut head, &batch(1, Kind::Full, 1, 2)));
        assert!(take(&mut head, &batch(2, Kind::Full, 1, 2)));
        assert_eq!(head.returns, 2);
    }

    #[test]
    fn ages_are_counted_back_from_the_arrival() {
        let mut head = Head::default();
        let scan =
            Scan { age: 30, outcome: ScanOutcome::Failed(7), completed: Some(90), catalogue: 3 };
        let sent = batch(1, Kind::Full, 0, 1);
        head.take(&Batch { scan: Some(scan), sent: 3_700, ..sent }, 100);
        assert_eq!((head.scanned, head.completed, head.failed), (Some(70), Some(10), Some(7)));
        assert_eq!((head.heard, head.clock_ahead), (Some(100), 3_600));
    }
}
