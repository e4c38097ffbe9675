//! One process at a time works on a data folder.
//!
//! The lock is `flock` on `DIR/lock`, so it ends with its process, however that ends. The file's
//! text says who has it; it is for people and decides nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock on a data folder; dropped, it is free.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum NotLocked {
    /// Another process has it; as it describes itself.
    Held(String),
    /// The file could not be opened or locked.
    Io(io::Error),
}

impl DataLock {
    /// Takes the lock file at `path` for this process, which does `what`.
    pub fn take(path: &Path, what: &str) -> Result<Self, NotLocked> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = open.open(path).map_err(NotLocked::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(200).read_to_string(&mut text);
                return Err(NotLocked::Held(text.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(NotLocked::Io(error)),
        }
        // Best effort: on a full disk the lock holds all the same.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "process {} ({what})", std::process::id());
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = DataLock::take(&path, "serving a very long description indeed").unwrap();
        let Err(NotLocked::Held(who)) = DataLock::take(&path, "x") else { panic!() };
        assert_eq!(
            who,
            format!("process {} (serving a very long description indeed)", std::process::id())
        );
        drop(first);
        DataLock::take(&path, "x").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("(x)\n") && !text.contains("serving"), "{text}");
        let missing = folder.path().join("none/lock");
        assert!(matches!(DataLock::take(&missing, "x"), Err(NotLocked::Io(_))));
    }
}
