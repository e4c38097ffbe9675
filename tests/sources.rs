//! Content from several servers: points that bring from other points, so that the site sends a version
//! once, and fetches that go on with the next server in the middle of a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{fs, path::PathBuf};
use support::{
    Run, Site, depot,
    point::Point,
    relay::{Line, Pace},
    temp_folder,
    tree::{self, Tree},
    until, write_source,
};

const MIB: u64 = 1 << 20;
/// What may pass where nothing of the content does: handshakes, wishes, manifests, recipes, answers.
const NEXT_TO_NOTHING: u64 = 256 << 10;

/// A site, and points that reach it each over a line of its own and are reached over another.
struct Field {
    points: Vec<Member>,
    site: Site,
    folder: tempfile::TempDir,
}

struct Member {
    name: &'static str,
    /// None while its process is ended.
    point: Option<Point>,
    /// The way to the site.
    up: Line,
    /// The way to the point.
    down: Line,
}

impl Member {
    fn point(&self) -> &Point {
        self.point.as_ref().unwrap()
    }
}

impl Field {
    fn new(names: &[&'static str]) -> Self {
        let folder = temp_folder();
        let site = Site::start(&folder.path().join("site"));
        let mut field = Self { points: Vec::new(), site, folder };
        for name in names {
            let (up, down) = (Line::to(&field.site.url), Line::to(&field.site.url));
            let url = format!("https://{}", up.address);
            let token = field.site.join_token(name, &["--site-url", &url]);
            let mut member = Member { name, point: None, up, down };
            field.start(&mut member, Some(token));
            field.points.push(member);
        }
        field
    }

    fn start(&self, member: &mut Member, token: Option<PathBuf>) {
        let address = format!("dp.address={}", member.down.address);
        let data = self.folder.path().join(member.name);
        let point = Point::start(&data, token.as_deref(), &["--set", &address]);
        member.down.lead_to(&point.url);
        member.point = Some(point);
    }

    fn of(&self, name: &str) -> &Member {
        self.points.iter().find(|member| member.name == name).unwrap()
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site.depot(args).ok()
    }

    /// A package whose second version has that many files of noise.
    fn package(&self, name: &str, seed: u64, n_files: u64, size: u64) -> Tree {
        let source = self.folder.path().join(format!("{name}-source"));
        let want = write_source(&source, seed, n_files, size as usize);
        self.depot(&["package", "create", name, "--source", source.to_str().unwrap()]);
        self.depot(&["package", "update", name]);
        want
    }

    #[track_caller]
    fn until_held(&self, package: &str, point: &str) {
        self.site.until_status(package, |row| row["state"] == "held" && row["point"] == point);
    }

    #[track_caller]
    fn gives(&self, point: &str, package: &str, want: &Tree) {
        let out = self.folder.path().join(format!("{point}-{package}-fetched"));
        self.of(point).point().gives(package, "latest", &out, want);
    }

    /// Has a point bring from another, and waits until it knows where that is.
    fn brings_from(&self, point: &str, source: &str) {
        self.depot(&["dp", "source", "set", point, "--from", source]);
    }
}

#[test]
fn a_tree_of_points_costs_the_site_one_transfer() {
    let field = Field::new(&["hub", "one", "two", "below"]);
    let reported = || {
        let points = field.depot(&["dp", "list", "--json"]).json();
        points.as_array().unwrap().iter().all(|point| !point["address"].is_null())
    };
    until("the site knows where all points are", reported);
    for (point, source) in [("one", "hub"), ("two", "hub"), ("below", "one")] {
        field.brings_from(point, source);
    }
    let shown = field.depot(&["dp", "show", "below"]).stdout;
    assert!(shown.contains("one, then the site"), "{shown}");
    let want = field.package("big", 10, 12, MIB);
    let before: Vec<u64> = field.points.iter().map(|member| member.up.passed()).collect();
    // Those behind the hub ask before it has all.
    let hub = &field.of("hub").up;
    hub.set(Pace::UpTo(before[0] + 4 * MIB));
    field.depot(&["distribute", "big", "--dp", "hub"]);
    until("the hub is in the middle of it", || hub.passed() > before[0] + 3 * MIB);
    for point in ["one", "two", "below"] {
        field.depot(&["distribute", "big", "--dp", point]);
        let is_begun = |row: &Value| row["point"] == point && row["state"] == "fetching";
        field.site.until_status("big", is_begun);
    }
    hub.set(Pace::Free);
    for member in &field.points {
        field.until_held("big", member.name);
    }
    for (member, before) in field.points.iter().zip(before) {
        let passed = member.up.passed() - before;
        match member.name {
            "hub" => assert!((12 * MIB..14 * MIB).contains(&passed), "{passed} bytes passed"),
            name => {
                assert!(passed < NEXT_TO_NOTHING, "{passed} bytes of the site's went to {name}")
            }
        }
        field.gives(member.name, "big", &want);
    }
    let sent = field.of("hub").down.passed();
    assert!(sent < 26 * MIB, "{sent} bytes passed for twice 12 MiB");
}

#[test]
fn what_a_source_that_is_killed_did_not_send_comes_from_the_site() {
    let mut field = Field::new(&["hub", "leaf"]);
    let want = field.package("big", 10, 1, 24 * MIB);
    field.depot(&["distribute", "big", "--dp", "hub"]);
    field.until_held("big", "hub");
    field.brings_from("leaf", "hub");
    let before = (field.of("leaf").up.passed(), field.of("hub").down.passed());
    field.of("hub").down.set(Pace::UpTo(before.1 + 8 * MIB));
    field.depot(&["distribute", "big", "--dp", "leaf"]);
    until("the file is in its middle", || field.of("hub").down.passed() > before.1 + 7 * MIB);
    let at = field.points.iter().position(|member| member.name == "hub").unwrap();
    field.points[at].point.take().unwrap().kill();
    field.of("hub").down.set(Pace::CutAt(0));
    field.until_held("big", "leaf");
    let of_hub = field.of("hub").down.passed() - before.1;
    let of_site = field.of("leaf").up.passed() - before.0;
    assert!(of_site < 24 * MIB - 4 * MIB, "the site sent {of_site} bytes after {of_hub} had come");
    field.gives("leaf", "big", &want);
}

#[test]
fn all_sources_go_and_come_back() {
    let field = Field::new(&["hub", "leaf"]);
    let want = field.package("big", 10, 8, 2 * MIB);
    field.depot(&["distribute", "big", "--dp", "hub"]);
    field.until_held("big", "hub");
    field.brings_from("leaf", "hub");
    let before = field.of("hub").down.passed();
    field.of("hub").down.set(Pace::UpTo(before + 4 * MIB));
    field.depot(&["distribute", "big", "--dp", "leaf"]);
    until("the transfer is in its middle", || field.of("hub").down.passed() > before + 3 * MIB);
    field.of("hub").down.set(Pace::CutAt(0));
    field.of("leaf").up.set(Pace::CutAt(0));
    until("the leaf tried all", || field.of("leaf").point().log().contains("could not be brought"));
    let log = field.of("leaf").point().log();
    let told = log.lines().find(|line| line.contains("could not be brought")).unwrap();
    for line in [&field.of("hub").down, &field.of("leaf").up] {
        assert!(told.contains(&line.address), "{} is not named: {told}", line.address);
    }
    field.of("hub").down.set(Pace::Free);
    field.of("leaf").up.set(Pace::Free);
    field.until_held("big", "leaf");
    field.gives("leaf", "big", &want);
}

#[test]
fn a_point_of_another_site_where_a_source_should_be_is_refused_named_and_done_without() {
    let field = Field::new(&["hub", "leaf"]);
    let want = field.package("big", 10, 4, MIB);
    field.depot(&["distribute", "big", "--dp", "hub"]);
    field.until_held("big", "hub");
    field.brings_from("leaf", "hub");
    // At the hub's address is a point of another site now, which is called the same there.
    let other = Site::start(&field.folder.path().join("other-site"));
    let token = other.join_token("hub", &[]);
    let stranger = Point::start(&field.folder.path().join("stranger"), Some(&token), &[]);
    field.of("hub").down.lead_to(&stranger.url);
    field.depot(&["distribute", "big", "--dp", "leaf"]);
    field.until_held("big", "leaf");
    field.gives("leaf", "big", &want);
    let (log, address) = (field.of("leaf").point().log(), &field.of("hub").down.address);
    let is_told = |line: &&str| {
        line.contains("not one of the authority of this machine's site") && line.contains(address)
    };
    // For each of the connections of the versions that are brought at a time, no more.
    let told = log.lines().filter(is_told).count();
    assert!((1..=3).contains(&told), "told {told} times:\n{log}");
}

#[test]
fn no_point_brings_from_itself_and_one_that_is_removed_is_nobodys_source() {
    let field = Field::new(&["a", "b"]);
    field.brings_from("b", "a");
    let refused = field.site.depot(["dp", "source", "set", "a", "--from", "b"]).fails(4);
    assert!(refused.contains("b brings from a"), "{refused}");
    let refused = field.site.depot(["dp", "source", "set", "a", "--from", "none"]).fails(3);
    assert!(refused.contains("no distribution point none"), "{refused}");
    field.site.depot(["dp", "source", "set", "a", "--from", ","]).fails(2);
    field.depot(&["dp", "remove", "a", "--yes"]);
    let shown = field.depot(&["dp", "show", "b", "--json"]).json();
    assert_eq!(shown["sources"], serde_json::json!([]));
    let cleared = field.depot(&["dp", "source", "clear", "b"]).stdout;
    assert!(cleared.contains("from the site"), "{cleared}");
}

/// A site with a package `p`, a line to it, and what is in the package.
fn mirrored(n_files: u64, size: u64) -> (Site, Line, Tree, tempfile::TempDir) {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let source = folder.path().join("source");
    let want = write_source(&source, 10, n_files, size as usize);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    let line = Line::to(&site.url);
    (site, line, want, folder)
}

#[test]
fn a_fetch_goes_on_with_the_next_server_in_the_middle_of_a_file() {
    for fault in [Pace::CutAt(8 * MIB), Pace::SpoiltAfter(8 * MIB)] {
        let (site, line, want, folder) = mirrored(1, 24 * MIB);
        line.set(fault);
        let out = folder.path().join("out");
        let urls = [format!("http://{}", line.address), site.url.clone()]
            .map(|server| format!("{server}/packages/p/latest"));
        let fetched = Run::of(depot().arg("fetch").args(&urls).args(["--json", "-o"]).arg(&out));
        let moved = fetched.ok().json()["moved_bytes"].as_u64().unwrap();
        assert!((24 * MIB..32 * MIB).contains(&moved), "{moved} bytes moved for 24 MiB");
        assert!(line.passed() > 7 * MIB, "the first server was preferred");
        let mut found = tree::read(&out);
        found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
        tree::assert_same(&found, &want);
    }
}

#[test]
fn a_fetch_fails_when_all_servers_do_and_names_each() {
    let (site, line, _, folder) = mirrored(1, MIB);
    line.set(Pace::CutAt(0));
    let out = folder.path().join("out");
    let address = |server: &str, version: &str| format!("{server}/packages/p/{version}");
    let gone = address(&format!("http://{}", line.address), "9");
    let without = address(&site.url, "9");
    let fetch = |urls: &[&str]| Run::of(depot().arg("fetch").args(urls).arg("-o").arg(&out));
    let failed = fetch(&[&gone, &without]).fails(1);
    assert!(failed.contains(&line.address) && failed.contains("answered 404"), "{failed}");
    assert!(fetch(&[&without, &without]).fails(3).contains("answered 404"));
    let mixed = fetch(&[&address(&site.url, "2"), &without]).fails(2);
    assert!(mixed.contains("not of the same package and version"), "{mixed}");
    // One that is gone costs no more than a moment where another has it.
    let gone = address(&format!("http://{}", line.address), "2");
    fetch(&[&gone, &address(&site.url, "2")]).ok();
    assert!(fs::exists(out.join("file-0")).unwrap());
}
