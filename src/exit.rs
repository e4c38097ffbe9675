//! How a command ends: one line for the person, one number for the script.
//!
//! Always true: whatever fails becomes a [`Failure`], and `main` alone prints it, on one line of
//! stderr. The numbers are a promise to scripts and stand in `depot --help`.

pub use api::problem::with_causes;
use std::{error::Error, fmt, path::Path};

/// Why a command failed, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing went wrong: whoever read stdout has seen enough and closed it.
    ReaderGone = 0,
    /// It was tried and did not work; the message says why.
    Failed = 1,
    /// The command line, or a value in it, is wrong; trying again cannot help.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Somebody else holds or changed it; trying again may help.
    Conflict = 4,
    /// Stored bytes do not match their names.
    Damaged = 5,
    /// Stopped by Ctrl-C or by a signal.
    Interrupted = 130,
}

impl Exit {
    /// That of this number, as another process of this program named it; one that has none here is [`Exit::Failed`].
    pub fn numbered(number: u8) -> Self {
        let all = [Self::Usage, Self::NotFound, Self::Conflict, Self::Damaged, Self::Interrupted];
        all.into_iter().find(|it| *it as u8 == number).unwrap_or(Self::Failed)
    }
}

/// A command's end other than success.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the process returns.
    pub exit: Exit,
    /// One line for stderr; empty where everything has been said on stdout.
    pub message: String,
    /// The same try may succeed later: the connection broke off, or the server is busy.
    pub may_pass: bool,
}

impl Failure {
    /// A failure whose message a person can act on.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), may_pass: false }
    }

    /// Wrong command line or value.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file that the command line names as input, and that cannot be read.
    pub fn input(path: &Path, error: impl fmt::Display) -> Self {
        Self::usage(format!("cannot read {}: {error}", path.display()))
    }

    /// Anything that has no exit code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Stopped by the person.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// The result printed on stdout says it all; only the exit code is left to give.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Says that the same try may succeed later.
    pub fn passing(mut self) -> Self {
        self.may_pass = true;
        self
    }

    /// Puts what was being done before what went wrong.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

/// Like `anyhow`: every error becomes a failure, its causes on the same line. `Failure` itself is
/// no `Error`, which is what makes this implementation possible.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::failed(with_causes(&error))
    }
}

/// Names what was being done when a result is an error.
pub trait Doing<T> {
    /// `doing` is put before the error's text.
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Doing<T> for Result<T, E> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| error.into().context(doing()))
    }
}

/// A text from elsewhere on one line without control characters, so that no file name or server
/// can move the cursor or forge a second message.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_what_was_done_and_every_cause_once() {
        let denied = std::io::Error::other("disk on fire");
        let failure = Err::<(), _>(denied).doing(|| "cannot read token").expect_err("as built");
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.message, "cannot read token: disk on fire");
    }

    #[test]
    fn a_number_names_the_exit_that_it_is_and_any_other_a_failure() {
        for exit in [Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Conflict, Exit::Damaged] {
            assert_eq!(Exit::numbered(exit as u8), exit);
        }
        assert_eq!([0, 99].map(Exit::numbered), [Exit::Failed; 2]);
    }

    #[test]
    fn a_message_is_one_line_whatever_a_name_holds() {
        assert_eq!(one_line("a\nb\u{1b}[31m c\n"), "a b\\u{1b}[31m c");
    }
}
