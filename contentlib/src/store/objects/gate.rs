//! The gate before every write: open while this process may write, and no longer.
//!
//! Whoever holds the library's lease keeps it open, for as long as the lease surely lasts, by
//! this machine's own clock. A process that was stopped and woken up finds it closed.

use parking_lot::Mutex;
use std::io;
use std::time::Instant;

/// Whether writing is allowed.
#[derive(Default)]
pub(crate) struct Gate(Mutex<State>);

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
    /// An error if nothing may be written now.
    pub(crate) fn check(&self) -> io::Result<()> {
        let why = match &*self.0.lock() {
            State::Unguarded => return Ok(()),
            State::OpenUntil(end) if Instant::now() < *end => return Ok(()),
            State::OpenUntil(_) => "the lease on the library could not be renewed in time",
            State::Closed(why) => &why.clone(),
        };
        let why = format!("nothing is written to the object store any more: {why}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Open until `end`, unless it was closed for good.
    pub(crate) fn open_until(&self, end: Instant) {
        let mut state = self.0.lock();
        if !matches!(*state, State::Closed(_)) {
            *state = State::OpenUntil(end);
        }
    }

    /// Closes it for good.
    pub(crate) fn close(&self, why: String) {
        *self.0.lock() = State::Closed(why);
    }
}
