//! The gate before every write: open while this process may write, and no longer.
//!
//! Whoever holds the library's lease keeps it open, for as long as the lease surely lasts, by
//! this machine's own clock. A process that was stopped and woken up finds it closed.
//!
//! Where the right to lead is granted elsewhere ([`Term`]), the gate is closed, too, as soon as that
//! does not surely last any more.

use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A right to lead that somebody else grants, to one at a time: the lease on the library goes with it.
///
/// Who has a later term of the same grantor knows that the one before is over, and takes the lease at
/// once. That is safe because each writes only while its own term surely lasts.
#[derive(Clone)]
pub struct Term {
    /// Who grants it: one name for all who may ever write to the library.
    pub grantor: String,
    /// Grows with each term.
    pub number: u64,
    /// Until when it surely lasts, by this machine's steady clock; put off while it is renewed.
    pub until: Arc<dyn Fn() -> Instant + Send + Sync>,
}

/// So long before a term's end nothing is written any more. It makes up for a clock that is slow, and for
/// a machine that stands still between the look at the clock and the write.
pub(super) const TERM_MARGIN: Duration = Duration::from_secs(4);

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grantor, number, .. } = self;
        f.debug_struct("Term").field("grantor", grantor).field("number", number).finish()
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        (&self.grantor, self.number) == (&other.grantor, other.number)
    }
}

impl Eq for Term {}

/// Whether writing is allowed.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    term: Option<Term>,
}

#[derive(Default)]
enum State {
    /// Nobody guards it: the lease is not taken yet.
    #[default]
    Unguarded,
    OpenUntil(Instant),
    /// For good, and why.
    Closed(String),
}

impl Gate {
    /// One that is open during `term` alone, if there is one.
    pub(crate) fn during(term: Option<Term>) -> Self {
        Self { term, ..Self::default() }
    }

    /// The term that it is open during.
    pub(super) fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }

    /// An error if nothing may be written now.
    pub(crate) fn check(&self) -> io::Result<()> {
        let is_over = |term: &Term| Instant::now() + TERM_MARGIN >= (term.until)();
        let why = match &*self.state.lock() {
            State::Closed(why) => &why.clone(),
            _ if self.term.as_ref().is_some_and(is_over) => "it is not sure that this server leads",
            State::Unguarded => return Ok(()),
            State::OpenUntil(end) if Instant::now() < *end => return Ok(()),
            State::OpenUntil(_) => "the lease on the library could not be renewed in time",
        };
        let why = format!("nothing is written to the object store any more: {why}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Open until `end`, unless it was closed for good.
    pub(crate) fn open_until(&self, end: Instant) {
        let mut state = self.state.lock();
        if !matches!(*state, State::Closed(_)) {
            *state = State::OpenUntil(end);
        }
    }

    /// Closes it for good.
    pub(crate) fn close(&self, why: String) {
        *self.state.lock() = State::Closed(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_near_the_end_of_a_term() {
        let until = Arc::new(Mutex::new(Instant::now() + TERM_MARGIN * 2));
        let shown = until.clone();
        let until_then = Arc::new(move || *shown.lock());
        let term = Term { grantor: "a".into(), number: 1, until: until_then };
        let gate = Gate::during(Some(term));
        gate.check().unwrap();
        gate.open_until(Instant::now() + TERM_MARGIN * 10);
        gate.check().unwrap();
        *until.lock() = Instant::now() + TERM_MARGIN / 2;
        assert!(gate.check().unwrap_err().to_string().contains("leads"));
        // It was renewed after all.
        *until.lock() = Instant::now() + TERM_MARGIN * 2;
        gate.check().unwrap();
        gate.close("for good".into());
        assert!(gate.check().is_err());
    }
}
