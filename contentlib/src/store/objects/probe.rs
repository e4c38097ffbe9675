//! Asking a store, once it is opened, whether it keeps to conditions.
//!
//! That only one process writes is promised by conditional writes: an object that must not exist
//! yet, a lease that must not have changed. Some stores, and some that stand in front of one, take
//! the condition and ignore it. So an object is written twice that may be written once, and once
//! more in place of a version that never was.

use super::requests::Requests;
use object_store::{Error, PutMode, UpdateVersion};
use std::io;

/// What a store makes of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditions {
    Kept,
    Ignored,
}

/// Writes below `probe/`, and deletes it again. `random` names it.
pub(super) fn probe(requests: &Requests, random: u128) -> io::Result<Conditions> {
    let name = format!("probe/{random:032x}");
    let found = ask(requests, &name);
    let gone = requests.delete(vec![name]);
    let found = found?;
    if let Err(error) = gone {
        tracing::warn!(%error, "the probe of the object store is left over");
    }
    Ok(found)
}

fn ask(requests: &Requests, name: &str) -> io::Result<Conditions> {
    match requests.try_put(name, PutMode::Create)? {
        // It is there: by a try of this very request, since nobody else knows the name.
        Ok(()) | Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return refused_or(error),
    }
    match requests.try_put(name, PutMode::Create)? {
        Ok(()) => return Ok(Conditions::Ignored),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
        Err(error) => return refused_or(error),
    }
    let e_tag = Some("\"00000000000000000000000000000000\"".to_owned());
    let never_was = PutMode::Update(UpdateVersion { e_tag, version: Some("0".into()) });
    match requests.try_put(name, never_was)? {
        Ok(()) => Ok(Conditions::Ignored),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Conditions::Kept),
        Err(error) => refused_or(error),
    }
}

/// A store that says that it cannot is as one that does not.
fn refused_or(error: Error) -> io::Result<Conditions> {
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } => Ok(Conditions::Ignored),
        error => Err(super::requests::io_error(error)),
    }
}
