//! Clocks that jump, and certificates that end: a point renews its own in time, says what is wrong when it
//! cannot, and is well again as soon as the clocks are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, path::PathBuf};
use support::{
    Site,
    clock::Clock,
    depot,
    point::{Point, dp_serve},
    temp_folder, tree, until, write_source,
};

/// A site and a point of it, each with a clock of its own.
struct Field {
    point: Option<Point>,
    site: Option<Site>,
    address: String,
    clocks: [Clock; 2],
    folder: tempfile::TempDir,
}

const SITE: usize = 0;
const POINT: usize = 1;

impl Field {
    /// The point holds version 2 of package `p`.
    fn new() -> (Self, tree::Tree) {
        let folder = temp_folder();
        let clock = |name: &str| Clock::new(folder.path().join(name));
        let clocks = [clock("site.clock"), clock("point.clock")];
        let mut field = Self {
            point: None,
            site: None,
            // The same one after each start: the point knows no other.
            address: "127.0.0.1:0".into(),
            clocks,
            folder,
        };
        field.start_site();
        field.address = field.site().url.trim_start_matches("http://").to_owned();
        let source = field.path("source");
        let want = write_source(&source, 1, 3, 100_000);
        field.depot(&["package", "create", "p", "--source", source.to_str().unwrap()]);
        field.depot(&["package", "update", "p"]);
        let token = field.site().join_token("branch-7", &[]);
        field.start_point(Some(token));
        field.depot(&["distribute", "p", "--dp", "branch-7"]);
        field.site().until_held("p", 2);
        (field, want)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    fn point(&self) -> &Point {
        self.point.as_ref().unwrap()
    }

    fn depot(&self, args: &[&str]) {
        self.site().depot(args).ok();
    }

    fn start_site(&mut self) {
        let data = self.path("site");
        let mut serve = depot();
        serve.args(["serve", "--listen", &self.address, "--data"]).arg(&data);
        self.clocks[SITE].rules(&mut serve);
        self.site = Some(Site::start_by(serve, &data).unwrap());
    }

    fn start_point(&mut self, token: Option<PathBuf>) {
        let data = self.path("point");
        let mut serve = dp_serve(&data, token.as_deref());
        self.clocks[POINT].rules(&mut serve);
        self.point = Some(Point::start_by(serve, &data));
    }

    /// Ends both and starts them with their clocks set so.
    fn start_again(&mut self, site: &str, point: &str) {
        self.point.take().unwrap().stop();
        self.site.take().unwrap().stop();
        self.clocks[SITE].set(site);
        self.clocks[POINT].set(point);
        self.start_site();
        self.start_point(None);
    }

    fn until_said(&self, what: &str) {
        until(what, || self.point().log().contains(what));
    }

    /// What the point shows and is believed for, as it lies in its folder.
    fn identity(&self) -> String {
        fs::read_to_string(self.path("point").join("keys/identity.pem")).unwrap()
    }

    /// Publishes a version, and waits until the point says that it has it.
    fn brings(&self, version: u64) {
        fs::write(self.path("source").join("new"), format!("version {version}")).unwrap();
        self.depot(&["package", "update", "p"]);
        self.site().until_held("p", version);
    }
}

#[test]
fn a_certificate_is_renewed_before_it_ends_and_again() {
    let (mut field, _) = Field::new();
    let first = field.identity();
    // 90 days is a life, and 60 the time to renew.
    field.start_again("+59d", "+59d");
    field.brings(3);
    assert_eq!(field.identity(), first);
    field.start_again("+61d", "+61d");
    field.until_said("the certificate is renewed");
    field.brings(4);
    let second = field.identity();
    assert_ne!(second, first);
    // Past the end of the first.
    field.start_again("+100d", "+100d");
    field.brings(5);
    assert_eq!(field.identity(), second);
    field.start_again("+130d", "+130d");
    field.until_said("the certificate is renewed");
    field.brings(6);
}

#[test]
fn a_point_that_slept_through_its_certificates_life_says_so_and_serves() {
    let (mut field, want) = Field::new();
    field.start_again("+100d", "+100d");
    field.until_said("the certificate is not renewed yet");
    field.until_said("the site is not heard");
    field.point().gives("p", "latest", &field.path("out"), &want);
    let row = field.site().status("p").remove(0);
    assert_eq!(row["state"], "held", "as it said last: {row}");
}

#[test]
fn a_point_whose_certificate_ended_joins_anew_with_a_token() {
    let (mut field, want) = Field::new();
    field.start_again("+100d", "+100d");
    field.until_said("the site is not heard");
    field.point.take().unwrap().stop();
    // The site still has the one whose certificate ended.
    let before = field.identity();
    let token = field.site().join_token("branch-8", &[]);
    field.start_point(Some(token));
    field.until_said("the point has joined anew");
    assert_ne!(field.identity(), before);
    field.depot(&["distribute", "p", "--dp", "branch-8"]);
    let is_held = |row: &serde_json::Value| row["point"] == "branch-8" && row["state"] == "held";
    field.site().until_status("p", is_held);
    field.point().gives("p", "latest", &field.path("out"), &want);
}

#[test]
fn a_clock_that_jumps_breaks_nothing_that_lasts_longer_than_the_jump() {
    let (mut field, want) = Field::new();
    let mut version = 2;
    for (who, apart) in [(POINT, "+4000d"), (POINT, "-4000d"), (SITE, "-3d"), (POINT, "+2d")] {
        field.clocks[who].set(apart);
        let out = field.path(&format!("out {who} {apart}"));
        if version == 2 {
            field.point().gives("p", "latest", &out, &want);
        }
        field.clocks[who].set("+0");
        version += 1;
        field.brings(version);
        let row = field.site().status("p").remove(0);
        assert!(row["cause"].is_null(), "{row}");
    }
    // Started with a clock that is wrong, and set right while it runs.
    field.point.take().unwrap().stop();
    field.clocks[POINT].set("-4000d");
    field.start_point(None);
    field.until_said("the site is not heard");
    field.clocks[POINT].set("+0");
    field.until_said("the site is heard again");
    field.brings(version + 1);
}
