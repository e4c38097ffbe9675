//! A Debian system that debootstrap made, in a folder.
//!
//! It is made of what this machine's own apt is configured with, and kept below the target folder, since it takes a
//! minute or two.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// By what an archive's signatures are believed.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of an archive.
pub struct Suite {
    /// The archive's address.
    pub base: String,
    /// What the suite is called.
    pub name: String,
    /// For which machines.
    pub arch: String,
}

/// Where this machine's apt has a suite with that label from.
pub fn own(label: &str) -> Option<Suite> {
    let told = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ARCHITECTURE)"])
        .args(["Created-By: Packages", "Component: main", &format!("Label: {label}")])
        .output()
        .ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    // Of several suites the one that the system itself is of has the shortest name: bookworm, not bookworm-updates.
    let line = told.lines().filter(|line| line.starts_with("http")).min_by_key(|it| it.len())?;
    let mut words = line.split(' ').map(str::to_owned);
    Some(Suite { base: words.next()?, name: words.next()?, arch: words.next()? })
}

/// Runs a program that has to succeed; what it printed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program)
        .args(args)
        .envs([("LC_ALL", "C"), ("DEBIAN_FRONTEND", "noninteractive")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{program} {args:?}: {said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    said
}

/// Makes the system in `root`, or takes it from where an earlier run left it.
pub fn bootstrap(main: &Suite, root: &Path) {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("debian-root-{}-{}.tar", main.name, main.arch));
    let root = root.to_str().unwrap();
    if !kept.is_file() {
        // Several tests may come here at once: each makes its own, and the last one's is kept.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = folder.path().join("root");
        let made = made.to_str().unwrap();
        let arch = format!("--arch={}", main.arch);
        let keyring = format!("--keyring={KEYRING}");
        // openssl: what has a security update more often than not.
        let what = ["--variant=minbase", "--include=openssl", &arch, &keyring];
        run("debootstrap", &[&what[..], &[&main.name, made, &main.base]].concat());
        let part = folder.path().join("part");
        run("tar", &["-C", made, "-cpf", part.to_str().unwrap(), "."]);
        fs::rename(part, &kept).unwrap();
    }
    fs::create_dir_all(root).unwrap();
    run("tar", &["-C", root, "-xpf", kept.to_str().unwrap()]);
}

/// Whether a test with such a system can run; says why not, if not.
pub fn can_run() -> Option<Suite> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: making a Debian system takes root");
        return None;
    }
    let main = own("Debian");
    if main.is_none() {
        println!("SKIPPED: apt of this machine names no mirror of Debian");
    }
    main
}
