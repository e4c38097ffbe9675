//! A clock of a process's own, that a test sets while the process runs.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A clock; it shows the right time until it is set.
pub struct Clock(PathBuf);

impl Clock {
    /// One that is kept in `file`.
    pub fn new(file: PathBuf) -> Self {
        let clock = Self(file);
        clock.set("+0");
        clock
    }

    /// Sets it apart from the right time: `+61d`, `-3650d`.
    pub fn set(&self, apart: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, apart).unwrap();
        // Whole at any moment: the process reads it again and again.
        fs::rename(new, &self.0).unwrap();
    }

    /// Has `command` go by this clock. How much time passes is still right: only what time it is, is not.
    pub fn rules(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// libfaketime, wherever this machine's architecture has it.
fn library() -> OsString {
    let here =
        |folder: &Path| Some(folder.join("faketime/libfaketimeMT.so.1")).filter(|l| l.exists());
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.filter_map(|folder| here(&folder)).next();
    found.expect("libfaketime is not here: tools/setup.sh tests installs it").into()
}
