//! A site whose content is on object stores that others made. Installing those takes a while, so
//! `make test-stores` does, and runs these.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use support::{
    Run, Site, depot, noise,
    stores::{Azurite, Garage},
    temp_folder,
};

/// Tells a command of a store.
type Tell<'a> = &'a dyn Fn(&mut Command);

/// One site: where its data and its content are.
struct Place<'a> {
    data: PathBuf,
    library: &'static str,
    tell: Tell<'a>,
    /// Whether nobody else ever opens it, as the store would not keep them off.
    is_alone: bool,
}

impl Place<'_> {
    fn command(&self) -> Command {
        let mut command = depot();
        (self.tell)(&mut command);
        command.env("DEPOT_LIBRARY_SINGLE_WRITER", self.is_alone.to_string());
        command
    }

    fn start(&self) -> Result<Site, String> {
        let mut serve = self.command();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--library", self.library]);
        serve.args(["--cache", "256MiB", "--data"]).arg(&self.data);
        Site::start_by(serve, &self.data)
    }

    fn offline(&self, args: &[&str]) -> Run {
        Run::of(self.command().arg("--data").arg(&self.data).args(args))
    }
}

/// A folder with files small and large, the largest of several parts, of `seed`.
fn source(at: &Path, seed: u64) -> Vec<(String, Vec<u8>)> {
    fs::create_dir_all(at).unwrap();
    let sizes = [0, 1, 40_000, 3_000_000, 41_000_000];
    let make =
        |(n, size): (usize, &usize)| (format!("file{n}"), noise(seed * 100 + n as u64, *size));
    let files: Vec<_> = sizes.iter().enumerate().map(make).collect();
    files.iter().for_each(|(name, bytes)| fs::write(at.join(name), bytes).unwrap());
    files
}

fn push(site: &Site, package: &str, tree: &Path) {
    site.depot(["package", "create", package, "--source", tree.to_str().unwrap()]).ok();
    site.depot(["package", "update", package]).ok();
}

fn serves(site: &Site, package: &str, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let answer = site.get(&format!("/packages/{package}/latest/{name}"));
        assert_eq!(answer.status, 200, "{name}: {}", answer.head);
        assert!(answer.body == *bytes, "{name} reads back wrong");
    }
}

/// Content comes, is served, collected, and is there after the loss of all that is local.
fn lives(place: &Place<'_>, at: &Path) {
    let (one, two) = (at.join("first"), at.join("second"));
    let (first, second) = (source(&one, 1), source(&two, 2));
    let site = place.start().unwrap();
    push(&site, "first", &one);
    push(&site, "second", &two);
    serves(&site, "first", &first);
    site.kill();
    let site = place.start().unwrap();
    serves(&site, "first", &first);
    site.depot(["package", "delete", "first", "--yes"]).ok();
    site.depot(["library", "gc"]).ok();
    assert_eq!(site.stop(), Some(0));
    fs::remove_dir_all(place.data.join("library")).unwrap();
    let site = place.start().unwrap();
    serves(&site, "second", &second);
    site.depot(["library", "verify"]).ok();
    assert_eq!(site.stop(), Some(0));
    place.offline(&["library", "rebuild-index"]).ok();
    place.offline(&["library", "verify"]).ok();
}

#[test]
#[ignore = "needs Garage: make test-stores"]
fn garage_keeps_to_no_conditions_and_serves_whoever_says_so() {
    let garage = Garage::start();
    let at = temp_folder();
    let tell = |command: &mut Command| {
        garage.tell(command);
    };
    let library = "s3://bucket/some/library";
    let data = at.path().join("data");
    let careful = Place { data, library, tell: &tell, is_alone: false };
    let refused = careful.start().err().unwrap();
    assert!(refused.contains("library.single_writer = true"), "{refused}");
    lives(&Place { is_alone: true, ..careful }, at.path());
}

#[test]
#[ignore = "needs Garage: make test-stores"]
fn garage_is_killed_and_started_again_while_content_comes_in_and_goes_out() {
    let mut garage = Garage::start();
    let at = temp_folder();
    let (data, library) = (at.path().join("data"), "s3://bucket/library");
    let tree = at.path().join("tree");
    let files = source(&tree, 7);
    let site = {
        let tell = |command: &mut Command| {
            garage.tell(command);
        };
        Place { data, library, tell: &tell, is_alone: true }.start().unwrap()
    };
    site.depot(["package", "create", "tools", "--source", tree.to_str().unwrap()]).ok();
    for round in 0..3 {
        let mut update = site.command();
        update.args(["package", "update", "tools"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut update = update.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50 + 150 * round));
        garage.kill();
        std::thread::sleep(Duration::from_millis(300));
        garage.begin();
        update.wait().unwrap();
        fs::write(tree.join(format!("new{round}")), noise(900 + round, 9_000_000)).unwrap();
    }
    site.depot(["package", "update", "tools"]).ok();
    garage.kill();
    garage.begin();
    serves(&site, "tools", &files);
    for round in 0..3 {
        serves(&site, "tools", &[(format!("new{round}"), noise(900 + round, 9_000_000))]);
    }
    site.depot(["library", "verify"]).ok();
}

#[test]
#[ignore = "needs Azurite: make test-stores"]
fn a_container_of_azure_is_a_library() {
    let azurite = Azurite::start();
    let at = temp_folder();
    let tell = |command: &mut Command| {
        azurite.tell(command);
    };
    let library = "az://container/some/library";
    let one = Place { data: at.path().join("one"), library, tell: &tell, is_alone: false };
    lives(&one, at.path());
    let site = one.start().unwrap();
    let two = Place { data: at.path().join("other"), ..one };
    let refused = two.start().err().unwrap();
    assert!(refused.contains(&format!("process {}", site.child.id())), "{refused}");
}
