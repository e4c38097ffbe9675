//! Distribution points in the field, each a process of its own: they join, hold what the site wishes
//! them to hold at the cost of what they lack, and serve it exactly, whatever is killed, cut off,
//! removed or full meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use contentlib::{GcOptions, Library, Options, Progress};
use dp::{
    field::JoinToken,
    identity::{self, Identity, Peer},
};
use packager::ManifestLinks;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use support::{
    Run, Site, noise, on_data,
    point::{Point, dp_serve, over_a_line},
    relay::{Line, Pace},
    temp_folder,
    tmpfs::Volume,
    tree::{self, Tree},
    until, while_repeating, write_source,
};

const MIB: u64 = 1 << 20;
/// What may pass where nothing of the content does: handshakes, wishes, manifests, recipes, answers.
const NEXT_TO_NOTHING: u64 = 128 << 10;

/// A site, and a point `branch-7` that has joined it and reaches it over a line.
struct Field {
    /// None while its process is ended.
    point: Option<Point>,
    line: Line,
    site: Site,
    /// What the point's folder is on, if that is of its own. Before the folder that it is mounted in:
    /// fields are dropped in this order.
    volume: Option<Volume>,
    folder: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let folder = temp_folder();
        let data = folder.path().join("point");
        Self::with_point_in(&data, folder, None, &[])
    }

    fn with_point_in(
        data: &Path,
        folder: tempfile::TempDir,
        volume: Option<Volume>,
        more: &[&str],
    ) -> Self {
        let (site, line, point) = over_a_line(folder.path(), data, more);
        Self { point: Some(point), line, site, volume, folder }
    }

    fn point(&self) -> &Point {
        self.point.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn depot(&self, args: &[&str]) -> Run {
        self.site.depot(args).ok()
    }

    /// Makes a package, whose first version is empty, and a second one of that many files of noise.
    fn package(&self, name: &str, seed: u64, n_files: u64, size: u64) -> Tree {
        let source = self.path(name);
        let want = write_source(&source, seed, n_files, size as usize);
        self.depot(&["package", "create", name, "--source", source.to_str().unwrap()]);
        self.depot(&["package", "update", name]);
        want
    }

    fn distribute(&self, package: &str) {
        self.depot(&["distribute", package, "--dp", "branch-7"]);
    }

    #[track_caller]
    fn gives(&self, package: &str, version: &str, want: &Tree) {
        let out = self.path(&format!("{package}-fetched"));
        self.point().gives(package, version, &out, want);
    }

    /// The same site in a new process, at another port.
    fn restart_site(&mut self) {
        self.site = Site::start(&self.path("site"));
        self.line.lead_to(&self.site.url);
    }

    fn stop_point(&mut self) {
        assert_eq!(self.point.take().unwrap().stop(), Some(0));
    }

    /// Who the point is, by the file in its folder.
    fn id(&self) -> String {
        let text = fs::read(self.path("point/point.json")).unwrap();
        let point: serde_json::Value = serde_json::from_slice(&text).unwrap();
        point["id"].as_str().unwrap().to_owned()
    }

    /// The point again after its process ended; no token is needed.
    fn restart_point(&mut self) {
        self.point = Some(Point::start(&self.path("point"), None, &[]));
    }
}

fn over(line: &Line) -> String {
    format!("https://{}", line.address)
}

#[test]
fn a_package_reaches_a_point_by_its_group_and_leaves_it_again() {
    let mut field = Field::new();
    let one = field.package("docs", 1, 3, MIB);
    let kept = field.package("kept", 1, 1, MIB);
    for command in [
        &["dp", "group", "create", "paris"][..],
        &["dp", "group", "add", "paris", "branch-7"],
        &["distribute", "docs", "--group", "paris"],
        &["distribute", "kept", "--dp", "branch-7"],
    ] {
        field.depot(command);
    }
    let row = field.site.until_held("docs", 2);
    assert_eq!((&row["percent"], &row["bytes_left"]), (&100.into(), &0.into()));
    let table = field.depot(&["content-status", "docs"]).stdout;
    assert!(table.contains("held") && table.contains("100%"), "{table}");
    field.site.until_held("kept", 2);
    let passed = field.line.passed();
    assert!(passed < 3 * MIB + 2 * NEXT_TO_NOTHING, "shared bytes came twice: {passed}");
    field.gives("docs", "latest", &one);
    assert_eq!(field.point().curl("/packages/docs/2/file-2"), noise(3, MIB as usize));

    let source = field.path("docs");
    fs::create_dir(source.join("moved")).unwrap();
    fs::rename(source.join("file-1"), source.join("moved/renamed")).unwrap();
    fs::write(source.join("small"), b"new in this version").unwrap();
    let two = tree::read(&source);
    field.depot(&["package", "update", "docs"]);
    field.site.until_held("docs", 3);
    let moved = field.line.passed() - passed;
    assert!(moved < NEXT_TO_NOTHING, "{moved} bytes passed for a renamed and a small file");
    assert_eq!(field.point().version("docs", "latest"), Some(3));
    field.gives("docs", "latest", &two);
    until("the old version goes", || field.point().version("docs", "2").is_none());

    field.depot(&["undistribute", "docs", "--group", "paris"]);
    until("the package goes", || field.point().version("docs", "latest").is_none());
    assert_eq!(field.point().get("/packages/docs/3/small").status, 404);
    assert_eq!(field.point.take().unwrap().stop(), Some(0));
    // It said so: nobody is sent there while the site finds out by itself.
    let shown = field.depot(&["dp", "show", "branch-7", "--json"]).json();
    assert_eq!(shown["online"], false, "{shown}");
    let freed = collect(&field.path("point/library"));
    assert!((2 * MIB..3 * MIB).contains(&freed), "{freed} bytes were freed");
    field.restart_point();
    field.gives("kept", "latest", &kept);
    until("the site hears that it is gone", || field.site.status("docs").is_empty());
}

/// Collects the garbage of a library that nobody has open; the bytes that it needs less.
fn collect(library: &Path) -> u64 {
    // As if the time that garbage waits for readers were over.
    let options = Options { gc_grace: Duration::ZERO, threads: 1, ..Options::default() };
    let library = Library::open(library, options).unwrap();
    let before = library.stats().unwrap().stored_bytes;
    for _ in 0..2 {
        library.gc(&GcOptions::default(), &ManifestLinks, &Progress::default()).unwrap();
    }
    let after = library.stats().unwrap().stored_bytes;
    library.close().unwrap();
    before - after
}

#[test]
fn a_token_lets_in_one_machine_once() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("site"));
    let other_site = Site::start(&folder.path().join("other-site"));
    let data = folder.path().join("point");
    let joins = |data: &Path, token: &Path| Run::of(&mut dp_serve(data, Some(token)));
    let second = folder.path().join("second");

    let token = site.join_token("branch-7", &[]);
    let point = Point::start(&data, Some(&token), &[]);
    let refused = joins(&second, &token).fails(1);
    assert!(refused.contains("used by another machine"), "{refused}");

    let revoked = site.join_token("revoked", &[]);
    site.depot(["dp", "join-token", "revoke", "revoked"]).ok();
    let refused = joins(&second, &revoked).fails(1);
    assert!(refused.contains("make a new one"), "{refused}");
    let expired = site.join_token("expired", &["--expires", "1s"]);
    until("the token expires", || {
        !site.depot(["dp", "join-token", "list"]).ok().stdout.contains("expired")
    });
    let refused = joins(&second, &expired).fails(1);
    assert!(refused.contains("expired"), "{refused}");

    // A token that leads to a site that did not make it: neither believes the other.
    let foreign = other_site.join_token("foreign", &[]);
    let text = fs::read_to_string(&foreign).unwrap();
    let led_astray =
        JoinToken { sites: vec![site.url.replace("http://", "https://")], ..text.parse().unwrap() };
    let astray = folder.path().join("astray.token");
    fs::write(&astray, led_astray.to_string()).unwrap();
    let refused = joins(&second, &astray).fails(1);
    assert!(refused.contains("cannot speak to the site"), "{refused}");
    assert_eq!(other_site.depot(["dp", "list", "--json"]).ok().json(), serde_json::json!([]));
    let points = site.depot(["dp", "list", "--json"]).ok().json();
    assert_eq!(points.as_array().unwrap().len(), 1, "{points}");

    // Refused as often, the folder is as good as new; and then it is that site's alone.
    Point::start(&second, Some(&foreign), &[]).stop();
    let third = site.join_token("third", &[]);
    assert!(joins(&second, &third).fails(4).contains("another site"));
    assert_eq!(point.stop(), Some(0));
}

#[test]
fn folders_of_sites_and_of_points_are_not_taken_for_each_other() {
    let folder = temp_folder();
    let (home, data) = (folder.path().join("site"), folder.path().join("point"));
    let site = Site::start(&home);
    let empty = Run::of(&mut dp_serve(&data, None)).fails(2);
    assert!(empty.contains("--join"), "{empty}");
    let token = site.join_token("branch-7", &[]);
    let point = Point::start(&data, Some(&token), &[]);

    let twice = Run::of(&mut dp_serve(&data, None));
    assert_eq!(twice.code, Some(4), "{twice:?}");
    let no_site_opens_it = || {
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["package", "list"]] {
            let refused = on_data(&data, command);
            assert!(refused.code != Some(0), "{command:?}: {refused:?}");
        }
        assert!(!data.join("site").exists() && !data.join("admin.token").exists());
    };
    no_site_opens_it();
    assert_eq!(point.stop(), Some(0));
    no_site_opens_it();
    let token = site.join_token("branch-8", &[]);
    assert_eq!(site.stop(), Some(0));
    for token in [None, Some(token.as_path())] {
        let refused = Run::of(&mut dp_serve(&home, token)).fails(2);
        assert!(refused.contains("joined no site") || refused.contains("holds other files"));
    }
    assert!(!home.join("point.json").exists());
    assert_eq!(Point::start(&data, None, &[]).stop(), Some(0));
    assert_eq!(Site::start(&home).stop(), Some(0));
}

#[test]
fn a_point_killed_in_the_middle_of_a_transfer_goes_on_where_it_was() {
    let mut field = Field::new();
    let want = field.package("big", 10, 24, MIB);
    // It takes three seconds until so much passed, and what came is durable within one.
    field.line.set(Pace::Slow(6 * MIB));
    field.distribute("big");
    until("most is there", || field.line.passed() > 18 * MIB);
    field.point.take().unwrap().kill();
    let before = field.line.passed();
    field.line.set(Pace::Free);
    field.restart_point();
    field.site.until_held("big", 2);
    let again = field.line.passed() - before;
    assert!(again < 14 * MIB, "{again} bytes passed after {before} of 24 MiB had");
    field.gives("big", "2", &want);
}

#[test]
fn a_point_serves_what_it_holds_while_its_site_is_away_and_finishes_when_it_is_back() {
    let mut field = Field::new();
    let small = field.package("small", 1, 2, 100 << 10);
    field.distribute("small");
    field.site.until_held("small", 2);
    let big = field.package("big", 10, 24, MIB);
    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + 8 * MIB));
    field.distribute("big");
    until("the transfer is in its middle", || field.line.passed() > before + 7 * MIB);
    field.site.child.kill().unwrap();
    field.site.child.wait().unwrap();
    field.line.set(Pace::Free);
    until("the point misses its site", || field.point().log().contains("the site is not heard"));
    field.gives("small", "latest", &small);
    assert_eq!(field.point().version("big", "latest"), None);

    field.restart_site();
    field.site.until_held("big", 2);
    let passed = field.line.passed() - before;
    assert!(passed < 28 * MIB, "{passed} bytes passed for 24 MiB");
    field.gives("big", "latest", &big);
}

#[test]
fn clients_see_whole_versions_only_while_versions_change() {
    const LAST: u64 = 5;
    let field = Field::new();
    let mut versions = vec![field.package("x", 200, 6, 200 << 10)];
    field.distribute("x");
    until("the first version is there", || field.point().version("x", "latest") == Some(2));
    let look = || {
        let listing = field.point().listing("x", "latest");
        assert_eq!(listing.status, 200, "there is always a latest version");
        let listing = listing.json();
        let number = listing["version"].as_u64().unwrap();
        let entries = listing["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 6);
        for (n, entry) in entries.iter().enumerate() {
            let digest = entry["digest"].as_str().unwrap();
            let content = field.point().get(&format!("/content/{digest}"));
            assert_eq!(content.status, 200, "file-{n} of version {number}");
            assert!(content.body == noise(100 * number + n as u64, 200 << 10));
        }
        field.point().fetched("x", "latest", &field.path("polled"))
    };
    let seen = std::sync::Mutex::new(Vec::new());
    while_repeating(
        || {
            let found = look();
            let mut seen = seen.lock().unwrap();
            if seen.last() != Some(&found) {
                seen.push(found);
            }
        },
        || {
            for number in 3..=LAST {
                let source = field.path("x");
                versions.push(write_source(&source, 100 * number, 6, 200 << 10));
                field.depot(&["package", "update", "x"]);
                let is_there = || field.point().version("x", "latest") == Some(number);
                until("the next version is there", is_there);
            }
        },
    );
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() > 1 && seen.iter().all(|found| versions.contains(found)), "a mixed version");
    field.gives("x", "latest", &versions[LAST as usize - 2]);
}

#[test]
fn a_small_urgent_package_overtakes_a_large_one_in_the_middle() {
    let field = Field::new();
    let large = field.package("large", 10, 40, MIB);
    let small = field.package("small", 1, 1, 64 << 10);
    field.line.set(Pace::Slow(4 * MIB));
    field.depot(&["distribute", "large", "--dp", "branch-7", "--priority", "low"]);
    until("the large one is in its middle", || field.line.passed() > 4 * MIB);
    field.depot(&["distribute", "small", "--dp", "branch-7", "--priority", "high"]);
    until("the small one is there", || field.point().version("small", "latest").is_some());
    assert_eq!(field.point().version("large", "latest"), None, "the large one came first");
    field.gives("small", "latest", &small);
    field.line.set(Pace::Free);
    field.site.until_held("large", 2);
    let passed = field.line.passed();
    assert!(passed < 64 * MIB, "{passed} bytes passed for 40 MiB: what had come was lost");
    field.gives("large", "latest", &large);
}

#[test]
fn a_point_follows_a_channel() {
    let field = Field::new();
    let one = field.package("x", 1, 2, 100 << 10);
    field.depot(&["package", "channel", "set", "x", "stable", "2"]);
    let two = write_source(&field.path("x"), 10, 2, 100 << 10);
    field.depot(&["package", "update", "x"]);
    field.distribute("x@stable");
    field.site.until_held("x", 2);
    field.gives("x", "stable", &one);
    assert_eq!(field.point().version("x", "3"), None, "nobody asked for it here");

    field.depot(&["package", "channel", "set", "x", "stable", "3"]);
    until("the channel moves", || field.point().version("x", "stable") == Some(3));
    field.gives("x", "stable", &two);
    until("the old version goes", || field.point().version("x", "2").is_none());
    let row = field.site.until_held("x", 3);
    assert_eq!(row["wished"], serde_json::json!(["stable"]));
}

/// What a machine that has the keys of a point asks its site, on one connection.
struct Asked {
    http: reqwest::Client,
    base: reqwest::Url,
    runtime: tokio::runtime::Runtime,
}

impl Asked {
    fn with_keys(folder: &Path, site: &str) -> Self {
        let identity = Identity::load(folder).unwrap().unwrap();
        let clock: packager::Clock = Arc::new(jiff::Timestamp::now);
        let config = identity::client_config(&identity, &clock).unwrap();
        let (http, base) = identity::client(&config, &Peer::Site, site).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { http: http.build().unwrap(), base, runtime }
    }

    fn status(&self, path: &str) -> u16 {
        let asked = self.http.get(self.base.join(path).unwrap()).send();
        self.runtime.block_on(asked).unwrap().status().as_u16()
    }
}

#[test]
fn a_removed_point_is_refused_at_once_and_serves_what_it_has() {
    let mut field = Field::new();
    let small = field.package("small", 1, 2, 100 << 10);
    field.distribute("small");
    field.site.until_held("small", 2);
    field.package("big", 10, 8, MIB);
    let keys = field.path("point/keys");
    let site = field.site.url.replace("http://", "https://");
    let open = Asked::with_keys(&keys, &site);
    let (wish, file) = ("/api/v1/point/wish", "/packages/small/latest/file-0");
    assert_eq!((open.status(wish), open.status(file)), (200, 200));
    let before = field.line.passed();
    field.line.set(Pace::UpTo(before + 2 * MIB));
    field.distribute("big");
    until("the transfer is in its middle", || field.line.passed() > before + MIB);

    field.depot(&["dp", "remove", "branch-7", "--yes"]);
    for asked in [&open, &Asked::with_keys(&keys, &site)] {
        assert_eq!((asked.status(wish), asked.status(file)), (403, 403));
    }
    assert_eq!(field.site.get(file).status, 200, "who shows no certificate is anybody");
    field.line.set(Pace::Free);
    let is_told = "the distribution point was removed from this site";
    until("the point is told", || field.point().log().contains(is_told));
    assert_eq!(field.depot(&["dp", "list", "--json"]).json(), serde_json::json!([]));
    field.gives("small", "latest", &small);
    assert_eq!(field.point().version("big", "latest"), None);

    // A restart changes nothing about it.
    field.stop_point();
    field.restart_point();
    until("the point is told", || field.point().log().contains(is_told));
    field.gives("small", "latest", &small);
    assert_eq!(field.depot(&["dp", "list", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn a_removed_point_joins_anew_with_what_it_holds() {
    let mut field = Field::new();
    let small = field.package("small", 1, 4, MIB);
    field.distribute("small");
    field.site.until_held("small", 2);
    let before = field.id();
    let start = |field: &mut Field, token: &Path| {
        field.stop_point();
        field.point = Some(Point::start(&field.path("point"), Some(token), &[]));
    };

    // As long as the site knows it, no token is used.
    let over = over(&field.line);
    let token = field.site.join_token("not-used", &["--site-url", &over]);
    start(&mut field, &token);
    assert!(field.point().log().contains("its site knows it"), "{}", field.point().log());
    assert_eq!(field.depot(&["dp", "list", "--json"]).json()[0]["name"], "branch-7");
    let points = field.depot(&["dp", "list", "--json"]).json();
    assert_eq!(points.as_array().unwrap().len(), 1, "{points}");

    // Nor one that is good no more: the point stays what it was, and serves.
    field.depot(&["dp", "remove", "branch-7", "--yes"]);
    let revoked = field.site.join_token("branch-7", &["--site-url", &over]);
    field.depot(&["dp", "join-token", "revoke", "branch-7"]);
    start(&mut field, &revoked);
    assert!(field.point().log().contains("has not joined anew"), "{}", field.point().log());
    field.gives("small", "latest", &small);
    assert_eq!(field.id(), before);

    let token = field.site.join_token("branch-8", &["--site-url", &over]);
    start(&mut field, &token);
    assert!(field.point().log().contains("has joined anew"), "{}", field.point().log());
    assert_ne!(field.id(), before);
    let points = field.depot(&["dp", "list", "--json"]).json();
    assert_eq!((&points[0]["name"], &points[1]), (&"branch-8".into(), &serde_json::Value::Null));
    assert!(field.site.status("small").is_empty(), "what the removed one was to hold is not its");
    let passed = field.line.passed();
    field.depot(&["distribute", "small", "--dp", "branch-8"]);
    field.site.until_held("small", 2);
    field.gives("small", "latest", &small);
    let moved = field.line.passed() - passed;
    assert!(moved < NEXT_TO_NOTHING, "{moved} bytes passed for what the folder had");
    // With the same command the next time, as a unit file has it.
    let after = field.id();
    start(&mut field, &token);
    assert!(field.point().log().contains("its site knows it"), "{}", field.point().log());
    assert_eq!(field.id(), after);
}

#[test]
fn a_point_whose_address_leads_to_another_site_obeys_and_tells_it_nothing() {
    let mut field = Field::new();
    let want = field.package("docs", 1, 2, MIB);
    field.distribute("docs");
    field.site.until_held("docs", 2);
    // One of its name there, too, that is to hold other bytes.
    let other = Site::start(&field.path("other-site"));
    let other_token = other.join_token("branch-7", &[]);
    let its_own = Point::start(&field.path("other-point"), Some(&other_token), &[]);
    let source = field.path("other-docs");
    write_source(&source, 50, 2, MIB as usize);
    for command in [
        &["package", "create", "docs", "--source", source.to_str().unwrap()][..],
        &["package", "update", "docs"],
        &["distribute", "docs", "--dp", "branch-7"],
    ] {
        other.depot(command).ok();
    }
    other.until_status("docs", |row| row["state"] == "held");
    assert_eq!(its_own.stop(), Some(0));
    let status = |row: &serde_json::Value| (row["version"].clone(), row["state"].clone());
    let told: Vec<_> = other.status("docs").iter().map(status).collect();

    field.stop_point();
    field.line.lead_to(&other.url);
    field.restart_point();
    let why = "not one of the authority of this machine's site";
    until("the point says whom it has met", || field.point().log().contains(why));
    field.gives("docs", "2", &want);
    field.gives("docs", "latest", &want);
    let other_told: Vec<_> = other.status("docs").iter().map(status).collect();
    assert_eq!(other_told, told);
    assert_eq!(other.depot(["dp", "list", "--json"]).ok().json().as_array().unwrap().len(), 1);

    // Nor is a token of its own site handed to the other one there.
    field.depot(&["dp", "remove", "branch-7", "--yes"]);
    let token = field.site.join_token("branch-7", &["--site-url", &over(&field.line)]);
    field.stop_point();
    field.point = Some(Point::start(&field.path("point"), Some(&token), &[]));
    assert!(field.point().log().contains("the token is not used"), "{}", field.point().log());
    let anew = field.path("anew");
    let refused = Run::of(&mut dp_serve(&anew, Some(&token))).fails(1);
    assert!(refused.contains("not the site that the join token tells of"), "{refused}");
    field.gives("docs", "2", &want);
    // Reached again, it is taken.
    field.stop_point();
    field.line.lead_to(&field.site.url);
    field.point = Some(Point::start(&field.path("point"), Some(&token), &[]));
    assert!(field.point().log().contains("has joined anew"), "{}", field.point().log());
}

#[test]
fn a_point_with_a_full_disk_says_so_loses_nothing_and_finishes_when_there_is_room() {
    let folder = temp_folder();
    let Some(volume) = Volume::mount(&folder.path().join("volume"), 96 * MIB) else { return };
    let sizes = ["--set", "library.reserve=4MiB", "--set", "library.pack_size=4MiB"];
    let data = volume.path.join("point");
    let field = Field::with_point_in(&data, folder, Some(volume), &sizes);
    let small = field.package("small", 1, 2, MIB);
    field.distribute("small");
    field.site.until_held("small", 2);
    let ballast = field.volume.as_ref().unwrap().fill(12 * MIB);
    let big = field.package("big", 10, 24, MIB);
    field.distribute("big");
    let row = field.site.until_status("big", |row| row["state"] == "failed");
    let cause = row["cause"].as_str().unwrap();
    assert!(cause.contains("no room"), "{cause}");
    field.gives("small", "latest", &small);
    assert_eq!(field.point().version("big", "latest"), None);

    // Sixteen times the room, but hardly any of it when it is compressed.
    let text = field.path("text");
    let lines: String = (0..64 << 10).map(|n| format!("{n:<1023}\n")).collect();
    fs::create_dir(&text).unwrap();
    fs::write(text.join("lines"), lines).unwrap();
    field.depot(&["package", "create", "text", "--source", text.to_str().unwrap()]);
    field.depot(&["package", "update", "text"]);
    field.distribute("text");
    field.site.until_held("text", 2);

    fs::remove_file(ballast).unwrap();
    field.site.until_held("big", 2);
    field.gives("big", "latest", &big);
    field.gives("small", "latest", &small);
}

#[test]
fn a_version_without_room_is_not_begun_and_comes_when_there_is_room() {
    let folder = temp_folder();
    let Some(volume) = Volume::mount(&folder.path().join("volume"), 96 * MIB) else { return };
    let sizes = ["--set", "library.reserve=4MiB", "--set", "library.pack_size=4MiB"];
    let data = volume.path.join("point");
    let field = Field::with_point_in(&data, folder, Some(volume), &sizes);
    let ballast = field.volume.as_ref().unwrap().fill(7 * MIB);
    let big = field.package("big", 10, 40, MIB);
    let before = field.line.passed();
    field.distribute("big");
    let row = field.site.until_status("big", |row| row["state"] == "failed");
    let passed = field.line.passed() - before;
    assert!(passed < 2 * NEXT_TO_NOTHING, "{passed} bytes passed");
    let cause = row["cause"].as_str().unwrap();
    assert!(cause.contains(&format!("about {} bytes more", 40 * MIB)), "{cause}");
    assert!(cause.contains("bytes are free and 4194304 are kept in reserve"), "{cause}");
    let small = field.package("small", 1, 2, 64 << 10);
    field.distribute("small");
    field.site.until_held("small", 2);
    field.gives("small", "latest", &small);
    assert_eq!(field.point().version("big", "latest"), None);

    // Sixteen times the room, but hardly any of it when it is compressed.
    let text = field.path("text");
    let lines: String = (0..64 << 10).map(|n| format!("{n:<1023}\n")).collect();
    fs::create_dir(&text).unwrap();
    fs::write(text.join("lines"), lines).unwrap();
    field.depot(&["package", "create", "text", "--source", text.to_str().unwrap()]);
    field.depot(&["package", "update", "text"]);
    field.distribute("text");
    field.site.until_held("text", 2);

    fs::remove_file(ballast).unwrap();
    field.site.until_held("big", 2);
    field.gives("big", "latest", &big);
}
