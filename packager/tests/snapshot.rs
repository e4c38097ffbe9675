//! A snapshot is the source as it was at one moment, whatever is done to it meanwhile.
#![allow(clippy::unwrap_used)]

mod common;

use common::Site;
use contentlib::{AddError, Added, Digest, Progress, Session};
use packager::manifest::Kind;
use packager::scan::{Contents, SourceFile, snapshot};
use packager::{Manifest, ScanError};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// When somebody meddles with the source.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// All was looked at, nothing read.
    BeforeReading,
    /// All was read, and not looked at again.
    AfterReading,
}

/// Takes contents in, and has the source meddled with each time.
struct Meddled<'a> {
    session: Session,
    when: When,
    meddle: &'a dyn Fn(usize),
    n_times: Cell<usize>,
}

impl Contents for Meddled<'_> {
    fn add(
        &self,
        files: &mut (dyn Iterator<Item = SourceFile<'_>> + Send),
        progress: &Progress,
        done: &mut (dyn FnMut(SourceFile<'_>, Result<Added, AddError>) + Send),
    ) -> Result<(), AddError> {
        let meddle = |when| {
            if when == self.when {
                (self.meddle)(self.n_times.get());
            }
        };
        meddle(When::BeforeReading);
        self.session.add(files, progress, done)?;
        meddle(When::AfterReading);
        self.n_times.set(self.n_times.get() + 1);
        Ok(())
    }
}

fn take(site: &Site, when: When, meddle: &dyn Fn(usize)) -> Result<Manifest, ScanError> {
    let session = site.packages.library().session();
    let contents = Meddled { session, when, meddle, n_times: Cell::new(0) };
    snapshot(&site.source(), &contents, &Progress::default())
}

/// Paths with what is there: bytes of a file by their digest, a link's target, or a folder.
fn listed(manifest: &Manifest) -> Vec<(String, String)> {
    let entry = |e: packager::manifest::Entry<'_>| {
        let what = match e.kind {
            Kind::Folder => "folder".to_owned(),
            Kind::Link { target } => format!("to {}", String::from_utf8_lossy(target)),
            Kind::File(file) => file.digest.to_string(),
        };
        (String::from_utf8_lossy(e.path).into_owned(), what)
    };
    manifest.entries().map(entry).collect()
}

/// The same, read from the source itself.
fn found(folder: &Path) -> Vec<(String, String)> {
    let what = |(path, (mode, _, _, bytes)): (Vec<u8>, (u32, i64, i64, Vec<u8>))| {
        let what = match mode & 0o170_000 {
            0o040_000 => "folder".to_owned(),
            0o120_000 => format!("to {}", String::from_utf8_lossy(&bytes)),
            _ => Digest::of(&bytes).to_string(),
        };
        (String::from_utf8_lossy(&path).into_owned(), what)
    };
    common::tree(folder).into_iter().map(what).collect()
}

/// A source of two folders with a file each.
fn site() -> Site {
    let site = Site::new();
    for folder in ["a", "b"] {
        fs::create_dir(site.source().join(folder)).unwrap();
        fs::write(site.source().join(folder).join("file"), folder).unwrap();
    }
    site
}

#[test]
fn what_is_done_once_is_seen_whole() {
    type Deed = (&'static str, fn(&Path));
    let deeds: [Deed; 9] = [
        ("written", |top| fs::write(top.join("a/file"), "written").unwrap()),
        ("written with the same length", |top| fs::write(top.join("a/file"), "c").unwrap()),
        ("replaced", |top| {
            fs::write(top.join("a/new"), "replaced").unwrap();
            fs::rename(top.join("a/new"), top.join("a/file")).unwrap();
        }),
        ("moved to where it was not seen", |top| {
            fs::rename(top.join("b/file"), top.join("a/0")).unwrap();
        }),
        ("moved away from where it was seen", |top| {
            fs::rename(top.join("a/file"), top.join("b/z")).unwrap();
        }),
        ("removed", |top| fs::remove_file(top.join("a/file")).unwrap()),
        ("replaced by a link", |top| {
            fs::remove_file(top.join("a/file")).unwrap();
            symlink("../b/file", top.join("a/file")).unwrap();
        }),
        ("replaced by a folder", |top| {
            fs::remove_file(top.join("a/file")).unwrap();
            fs::create_dir(top.join("a/file")).unwrap();
        }),
        ("its folder replaced by a link out of the source", |top| {
            fs::rename(top.join("a"), top.parent().unwrap().join("a")).unwrap();
            symlink("../a", top.join("a")).unwrap();
        }),
    ];
    for when in [When::BeforeReading, When::AfterReading] {
        for (what, deed) in deeds {
            let site = site();
            let once = |n| {
                if n == 0 {
                    deed(&site.source())
                }
            };
            let manifest = take(&site, when, &once).unwrap();
            assert_eq!(listed(&manifest), found(&site.source()), "{what}");
        }
    }
}

#[test]
fn a_source_that_never_holds_still_is_an_error_that_names_what_moves() {
    let site = site();
    let meddle = |n: usize| fs::write(site.source().join("a/file"), "x".repeat(n + 2)).unwrap();
    match take(&site, When::AfterReading, &meddle) {
        Err(ScanError::Moving { paths }) => assert_eq!(paths, ["a/file"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_becomes_a_pipe_is_named_and_never_waited_for() {
    let site = site();
    let meddle = |_| {
        fs::remove_file(site.source().join("a/file")).unwrap();
        let folder = fs::File::open(site.source().join("a")).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(&folder, "file", kind, mode, 0).unwrap();
    };
    match take(&site, When::BeforeReading, &meddle) {
        Err(ScanError::Problems(problems)) => assert_eq!(problems.named[0].path, "a/file"),
        other => panic!("{other:?}"),
    }
}
