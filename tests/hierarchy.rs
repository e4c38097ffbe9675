//! A tree of sites and update points, over real processes: what is synchronised at the top comes down to all
//! of them, in the order that is promised, at the cost of what changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Run, Site, archive::Archive, depot, own::TOOL, relay, temp_folder, until};

/// Where a site is reached by those who follow it.
fn https(url: &str) -> String {
    url.replace("http://", "https://")
}

/// Makes a join token by that command, and the file that it is in.
#[track_caller]
fn token(site: &Site, name: &str, kind: &str) -> PathBuf {
    let file = site.data.with_file_name(format!("{name}.token"));
    let _ = std::fs::remove_file(&file);
    let output = file.to_str().unwrap();
    match kind {
        "sup" => site.depot(["sup", "add", name, "--output", output]).ok(),
        kind => {
            let create = ["site", "join-token", "create", "--name", name, "--kind", kind];
            site.depot(create.into_iter().chain(["--output", output])).ok()
        }
    };
    file
}

/// Starts a follower that joins.
#[track_caller]
fn joined(above: &Site, folder: &Path, name: &str, kind: &str, at: &str) -> Site {
    let token = token(above, name, kind);
    let args = ["--parent", at, "--join-file", token.to_str().unwrap()];
    let sup: &[&str] = if kind == "sup" { &["--sup"] } else { &[] };
    Site::start_with(&folder.join(name), &[&args[..], sup].concat())
}

fn json(site: &Site, args: &[&str]) -> Value {
    site.depot(args.iter().copied().chain(["--json"])).ok().json()
}

/// How many updates a site has that are offered.
fn offered(site: &Site) -> usize {
    let filter = ["update", "list", "--filter", "not expired", "--limit", "100000"];
    json(site, &filter).as_array().unwrap().len()
}

/// What a site shows of its updates, but for what is its own: source and dates of arrival.
fn shown(site: &Site) -> Vec<Value> {
    let list = json(site, &["update", "list", "--order", "title", "--limit", "100000"]);
    let mut all = list.as_array().unwrap().clone();
    for one in &mut all {
        let one = one.as_object_mut().unwrap();
        for own in ["source", "first_seen"] {
            one.remove(own);
        }
    }
    all
}

/// The status messages of an id, the first one first.
fn messages(site: &Site, id: &str) -> Vec<Value> {
    let all = json(site, &["status-messages", "list", "--id", id]);
    all.as_array().unwrap().iter().rev().cloned().collect()
}

fn at(message: &Value) -> jiff::Timestamp {
    message["at"].as_str().unwrap().parse().unwrap()
}

/// The last sync that changed something.
fn last(site: &Site) -> Value {
    let history = json(site, &["sync", "history"]);
    let done = history.as_array().unwrap().iter().find(|run| run["outcome"] == "done");
    done.unwrap_or_else(|| panic!("{history}")).clone()
}

fn locations(site: &Site) -> Vec<String> {
    let answer = site.get("/api/v1/policy");
    assert_eq!(answer.status, 200);
    let points = answer.json()["update_points"].as_array().unwrap().clone();
    points.iter().map(|point| point["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_synchronised_at_the_top_comes_down_to_all_in_the_order_that_is_promised() {
    let mut archive = Archive::new();
    archive.list(0..3);
    archive.publish();
    let folder = temp_folder();
    let top = Site::start(&folder.path().join("top"));
    archive.add_to(&top, "security", &archive.web.url).ok();
    let top_at = https(&top.url);
    let berlin = joined(&top, folder.path(), "berlin", "primary", &top_at);
    let branch = joined(&berlin, folder.path(), "branch", "secondary", &https(&berlin.url));
    let sup = joined(&top, folder.path(), "sup-2", "sup", &top_at);

    let name = ["site", "join-token", "create", "--name", "x", "--kind"];
    let refused = |site: &Site, kind| site.depot(name.into_iter().chain([kind])).fails(4);
    assert!(refused(&branch, "secondary").contains("secondary site"));
    assert!(refused(&berlin, "primary").contains("--kind secondary"));
    assert!(refused(&sup, "secondary").contains("update point"));
    assert_eq!(locations(&top), [""; 0], "no sync was completed yet");

    let all = [&top, &berlin, &branch, &sup];
    let before: Vec<usize> = all.iter().map(|site| messages(site, "6702").len()).collect();
    top.depot(["sync", "run", "security", "--watch"]).ok();
    for site in all {
        until("it comes down", || offered(site) == 3);
        assert_eq!(shown(site), shown(&top));
    }
    // Each began when the one above it was done, and the update point when the children were asked.
    let done: Vec<Value> = all
        .iter()
        .zip(before)
        .map(|(site, before)| {
            until("it says that it is done", || messages(site, "6702").len() > before);
            messages(site, "6702")[before].clone()
        })
        .collect();
    let began = |site: &Site, above: &Value| {
        let started = messages(site, "6701");
        assert!(at(started.last().unwrap()) >= at(above), "{started:?} {above}");
    };
    began(&berlin, &done[0]);
    began(&branch, &done[1]);
    began(&sup, &done[0]);
    assert!(done.windows(2).take(2).all(|pair| at(&pair[0]) <= at(&pair[1])), "{done:?}");
    assert_eq!(last(&berlin)["trigger"], "parent");
    until("the site knows", || {
        let children = json(&top, &["site", "children", "list"]);
        children[0]["state"] == "done" && children[0]["updates"] == 3
    });

    // Criteria and policy are set at the top, and are known below.
    for set in [
        &["sync", "criteria", "set", "--product", "debian-12"][..],
        &["lifecycle", "set", "--supersedence", "1"],
    ] {
        for below in [&berlin, &branch] {
            let line = below.depot(set).fails(4);
            assert!(line.contains(&top_at), "{line}");
        }
        top.depot(set).ok();
    }
    // So are sources, and when they are synchronised.
    for below in [&berlin, &branch] {
        assert!(archive.add_to(below, "own", &archive.web.url).fails(4).contains(&top_at));
        let schedule = below.depot(["sync", "schedule", "set", "every 4 hours"]).fails(4);
        assert!(schedule.contains(&top_at), "{schedule}");
    }
    archive.list(3..4);
    archive.publish();
    top.depot(["sync", "run", "security", "--watch"]).ok();
    for site in all {
        until("it comes down", || offered(site) == 4);
        let criteria = json(site, &["sync", "criteria", "show"]);
        assert_eq!(criteria["products"][0], "debian-12");
        assert_eq!(json(site, &["lifecycle", "show"])["supersedence"], "1");
    }
    assert_eq!(json(&branch, &["site", "show"])["top"], top_at);
    assert_eq!(json(&branch, &["site", "show"])["kind"], "secondary");

    // Clients are led to update points, the site's own first, unless they are not to scan at all.
    until("clients are led there", || locations(&top) == ["site", "sup-2"]);
    // That is set at the top too, and goes down without a sync that has news.
    let set = |enabled| ["client", "settings", "set", "--updates-enabled", enabled];
    for below in [&berlin, &branch, &sup] {
        assert!(below.depot(set("false")).fails(4).contains(&top_at));
    }
    until("it is published below", || !locations(&branch).is_empty());
    top.depot(set("false")).ok();
    assert_eq!(locations(&top), [""; 0]);
    until("it comes down", || [&berlin, &branch].iter().all(|at| locations(at).is_empty()));
    assert_eq!(json(&branch, &["client", "settings", "show"])["top"], top_at);
    top.depot(set("true")).ok();
    until("it comes down", || [&berlin, &branch].iter().all(|at| !locations(at).is_empty()));

    // Who joined needs no token any more; who was removed is refused at once.
    assert_eq!(branch.stop(), Some(0));
    let branch = Site::start(&folder.path().join("branch"));
    assert_eq!(json(&branch, &["sync", "run", "parent", "--watch"])[0]["outcome"], "unchanged");
    assert!(
        branch.depot(["sync", "source", "remove", "parent", "--yes"]).fails(4).contains("parent")
    );
    let disable = branch.depot(["sync", "source", "disable", "parent"]).fails(4);
    assert!(disable.contains("parent site"), "{disable}");
    // An update point has no updates of its own.
    let description = folder.path().join("tool.toml");
    std::fs::write(&description, TOOL).unwrap();
    std::fs::write(folder.path().join("tool.exe"), "tool").unwrap();
    let author = ["update", "author", description.to_str().unwrap(), "--publish"];
    assert!(sup.depot(author).fails(4).contains("publish it at its site"));
    top.depot(["site", "children", "remove", "berlin", "--yes"]).ok();
    assert!(berlin.depot(["sync", "run", "parent", "--watch"]).fails(1).contains("does not know"));
    let failed = messages(&berlin, "6703");
    assert_eq!(failed.last().unwrap()["attributes"]["cause"], "refused");
    assert_eq!(offered(&berlin), 4, "what it has stays");
    assert_eq!(berlin.stop(), Some(0));
    // It has a child site itself, so it cannot be a secondary one; that token stays good.
    let secondary = token(&top, "berlin-2", "secondary");
    let data = folder.path().join("berlin");
    let line = Run::of(depot().args(["serve", "--listen", "127.0.0.1:0"]).args([
        "--data",
        data.to_str().unwrap(),
        "--join-file",
        secondary.to_str().unwrap(),
    ]))
    .fails(4);
    assert!(line.contains("secondary site") && line.contains("here: branch"), "{line}");
    let tokens = json(&top, &["site", "join-token", "list"]);
    let is_open = |it: &Value| it["name"] == "berlin-2" && it["used_by"].is_null();
    assert!(tokens.as_array().unwrap().iter().any(is_open), "{tokens}");
    // With a new token it is a child again.
    let berlin = joined(&top, folder.path(), "berlin", "primary", &top_at);
    assert_eq!(json(&berlin, &["sync", "run", "parent", "--watch"])[0]["outcome"], "unchanged");
}

#[test]
fn a_child_that_was_cut_off_or_away_goes_on_with_what_it_lacks() {
    let mut archive = Archive::new();
    archive.list(0..3_000);
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("top");
    let top = Site::start(&data);
    archive.add_to(&top, "security", &archive.web.url).ok();
    top.depot(["sync", "run", "security", "--watch"]).ok();

    // The first of three pages comes, and the line is cut; then the child's machine fails.
    let cut = relay::relay(&top.url, relay::From::Server, 90_000);
    let child = joined(&top, folder.path(), "berlin", "primary", &https(&cut));
    let spool = child.data.join("cache/sync/parent/files/spool.json");
    until("a page comes", || spool.exists());
    assert_eq!(offered(&child), 0, "a feed that is half there does not show");
    child.kill();
    let child = Site::start_with(&folder.path().join("berlin"), &["--parent", &https(&top.url)]);
    until("the rest comes", || offered(&child) == 3_000);
    assert_eq!(shown(&child), shown(&top));
    let first = last(&child);
    assert_eq!(first["entries"], 3_000);
    child.stop();

    // While it is away there is news, more than once.
    archive.list(3_000..3_002);
    archive.publish();
    top.depot(["sync", "run", "security", "--watch"]).ok();
    archive.list(3_002..3_003);
    archive.publish();
    top.depot(["sync", "run", "security", "--watch"]).ok();
    let address = top.url.trim_start_matches("http://").to_owned();
    // The parent fails too, and is there again later.
    top.kill();
    let child = Site::start(&folder.path().join("berlin"));
    let top = Site::start_at(&address, &data, &[]).unwrap();
    until("it catches up", || offered(&child) == 3_003);
    let news = last(&child);
    assert_eq!((&news["entries"], &news["changes"]["added"]), (&3.into(), &3.into()), "{news}");
    let bytes = |run: &Value| run["bytes"].as_u64().unwrap();
    assert!(bytes(&news) * 20 < bytes(&first), "{news} {first}");
    assert_eq!(shown(&child), shown(&top));
}

#[test]
fn update_points_follow_one_at_a_time_and_a_source_that_failed_is_replaced() {
    let mut archive = Archive::new();
    archive.list(0..2);
    archive.publish();
    let folder = temp_folder();
    let top = Site::start_with(&folder.path().join("top"), &["--set", "sync.point_timeout=5s"]);
    archive.add_to(&top, "security", &archive.web.url).ok();
    let at_top = https(&top.url);
    let points: Vec<Site> = ["sup-1", "sup-2", "sup-3"]
        .iter()
        .map(|name| joined(&top, folder.path(), name, "sup", &at_top))
        .collect();
    let sync = || top.depot(["sync", "run", "security", "--watch"]).ok();
    sync();
    for point in &points {
        until("it follows", || offered(point) == 2);
    }
    until("the site knows", || locations(&top).len() == 4);
    // One began when the one before it was done.
    let done: Vec<_> =
        points.iter().map(|point| at(messages(point, "6702").last().unwrap())).collect();
    let began: Vec<_> =
        points.iter().map(|point| at(messages(point, "6701").last().unwrap())).collect();
    assert!(done[0] <= began[1] && done[1] <= began[2], "{began:?} {done:?}");

    top.depot(["sup", "replace-source", "sup-1"]).ok();
    until("it is known", || !json(&points[1], &["site", "show"])["via"].is_null());
    archive.list(2..3);
    archive.publish();
    sync();
    for point in &points {
        until("it follows", || offered(point) == 3);
    }
    assert!(messages(&top, "6707").is_empty());

    let mut points = points.into_iter();
    points.next().unwrap().kill();
    let points: Vec<Site> = points.collect();
    archive.list(3..4);
    archive.publish();
    sync();
    until("all are asked", || messages(&top, "6707").len() >= 3);
    let missing = messages(&top, "6707");
    let named: Vec<&str> =
        missing.iter().map(|one| one["attributes"]["point"].as_str().unwrap()).collect();
    assert_eq!(named, ["sup-1", "sup-2", "sup-3"], "{missing:?}");
    assert_eq!(offered(&points[0]), 3);
    top.depot(["sup", "replace-source", "sup-2"]).ok();
    for point in &points {
        until("it follows the new one", || offered(point) == 4);
    }
    top.depot(["sup", "remove", "sup-1", "--yes"]).ok();
    let list = json(&top, &["sup", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["is_source"], true);
}

#[test]
fn an_update_point_that_died_holds_up_no_sync_and_no_end_of_the_server() {
    let mut archive = Archive::new();
    archive.list(0..1);
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("top");
    let patient = ["--set", "sync.point_timeout=1h"];
    let top = Site::start_with(&data, &patient);
    archive.add_to(&top, "security", &archive.web.url).ok();
    archive.add_to(&top, "other", &archive.web.url).ok();
    let sup = joined(&top, folder.path(), "sup-1", "sup", &https(&top.url));
    let sync = |source, times| {
        top.depot(["sync", "run", source]).ok();
        let done = || {
            let all = messages(&top, "6702");
            all.iter().filter(|one| one["source"] == source).count()
        };
        until("it is done", || done() >= times);
    };
    sync("security", 1);
    until("it follows", || offered(&sup) == 1);
    sup.kill();
    archive.list(1..2);
    archive.publish();
    sync("security", 2);
    // It is waited for, for an hour; meanwhile the other source has news.
    archive.list(2..3);
    archive.publish();
    sync("other", 1);
    assert_eq!(offered(&top), 3);
    until("the place is free", || {
        let status = json(&top, &["sync", "status"]);
        status.as_array().unwrap().iter().all(|source| source["running"].is_null())
    });
    assert_eq!(top.stop(), Some(0));
    // The round that was cut off is begun anew, and this time it is not waited for so long.
    let top = Site::start_with(&data, &["--set", "sync.point_timeout=1s"]);
    until("it was asked again", || !messages(&top, "6707").is_empty());
    assert_eq!(messages(&top, "6707")[0]["attributes"]["point"], "sup-1");
}
