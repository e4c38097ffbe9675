//! Updates from a real Debian archive, by the commands that the README has, over real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::{path::Path, process::Stdio, time::Instant};
use support::archive::{Archive, tool};
use support::{Site, depot, on_data, relay, temp_folder, until};
use sync::openpgp::SigningKey;

fn names(site: &Site) -> Vec<String> {
    let list = site.depot(["update", "list", "--order", "title", "--json"]).ok().json();
    list.as_array()
        .unwrap()
        .iter()
        .map(|update| update["name"].as_str().unwrap().to_owned())
        .collect()
}

fn ids(site: &Site) -> Vec<u64> {
    let all = site.depot(["status-messages", "list", "--json"]).ok().json();
    all.as_array().unwrap().iter().rev().map(|message| message["id"].as_u64().unwrap()).collect()
}

fn last(site: &Site) -> Value {
    let history = site.depot(["sync", "history", "--limit", "1", "--json"]).ok().json();
    history[0].clone()
}

#[test]
fn updates_of_an_archive_are_synchronised_listed_shown_and_withdrawn() {
    let mut archive = Archive::new();
    archive.add("openssl", "3.0.11-1");
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let said = archive.add_to(&site, "security", &archive.web.url).ok().stdout;
    assert!(said.contains("depot sync run security"), "{said}");
    assert!(archive.add_to(&site, "security", &archive.web.url).fails(4).contains("security"));

    let run = site.depot(["sync", "run", "security", "--watch", "--json"]).ok().json();
    assert_eq!((&run[0]["outcome"], &run[0]["changes"]["added"]), (&"done".into(), &2.into()));
    assert_eq!(ids(&site), [6701, 6704, 6705, 6702]);
    let names = names(&site);
    assert_eq!(names.len(), 2, "{names:?}");
    let found = site.depot(["update", "list", "--search", "openssl", "--json"]).ok().json();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let name = found[0]["name"].as_str().unwrap();
    let shown = site.depot(["update", "show", name]).ok().stdout;
    assert!(shown.contains("openssl_3.0.11-1_amd64.deb") && shown.contains("  sha512:"), "{shown}");
    assert!(site.depot(["update", "show", "nothing"]).fails(3).contains("nothing"));
    let products = site.depot(["update", "products", "--json"]).ok().json();
    assert_eq!(products[0]["id"], "debian-12");

    // Nothing is new: one question, and no change.
    archive.web.asked();
    let run = site.depot(["sync", "run", "--watch", "--json"]).ok().json();
    assert_eq!(run[0]["outcome"], "unchanged");
    assert_eq!(archive.web.asked(), ["dists/bookworm-security/InRelease"]);

    archive.add("openssl", "3.0.11-2");
    archive.publish();
    let run = site.depot(["sync", "run", "security", "--watch", "--json"]).ok().json();
    assert_eq!(run[0]["changes"]["added"], 1);
    let superseded = site.depot(["update", "list", "--superseded", "--json"]).ok().json();
    assert_eq!(superseded[0]["name"], name, "{superseded}");

    let status = site.depot(["sync", "status"]).ok().stdout;
    assert!(status.contains("security  done"), "{status}");
    site.depot(["sync", "source", "remove", "security"]).fails(2);
    site.depot(["sync", "source", "remove", "security", "--yes"]).ok();
    let left = site.depot(["update", "list", "--filter", "not expired", "--json"]).ok().json();
    assert_eq!(left, serde_json::json!([]));
}

#[test]
fn what_is_not_signed_by_a_key_of_the_keyring_is_not_taken_and_the_message_says_why() {
    let (mut archive, other) = (Archive::new(), Archive::new());
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    other.add_to(&site, "security", &archive.web.url).ok();
    // The one of the test's own is the same key: another is made here.
    let stranger = SigningKey::new([6; 32], "Stranger <s@example.org>", archive.date).unwrap();
    archive.key = stranger;
    archive.publish();
    let line = site.depot(["sync", "run", "security", "--watch"]).fails(1);
    assert!(line.contains("InRelease") && line.contains("sign"), "{line}");
    assert_eq!(last(&site)["cause"], "bad-signature");
    let failed = site.depot(["status-messages", "list", "--id", "6703", "--json"]).ok().json();
    assert_eq!(failed[0]["attributes"]["cause"], "bad-signature");
    assert!(names(&site).is_empty());
    let line = site
        .depot([
            "sync",
            "source",
            "add",
            "x",
            "--apt",
            "ftp://x",
            "--suite",
            "s",
            "--components",
            "c",
            "--arch",
            "amd64",
            "--keyring",
            other.keyring().to_str().unwrap(),
        ])
        .fails(2);
    assert!(line.contains("ftp:… is no address of an archive"), "{line}");
    // An upstream without what it should have is no thing that was named here and is not there.
    archive.add_to(&site, "nowhere", &format!("{}/nowhere", archive.web.url)).ok();
    let line = site.depot(["sync", "run", "nowhere", "--watch"]).fails(1);
    assert!(line.contains("404"), "{line}");
    assert_eq!(last(&site)["cause"], "not-found");
    site.depot(["sync", "run", "unknown"]).fails(3);
    assert!(site.depot(["update", "list", "--cve", "foo"]).fails(2).contains("CVE-2026-0001"));
    let line = site.depot(["sup", "add", "x y"]).fails(2);
    assert!(line.contains("no name of a further update point"), "{line}");
    let from = ["update", "download", "x", "--package", "x", "--from-folder", "/nofolder"];
    assert!(site.depot(from).fails(2).contains("there is no folder /nofolder"));
    let line = site.depot(["update", "list", "--released-within", "yesterday"]).fails(2);
    assert!(line.contains("as 24h, 1d"), "{line}");
    let line = site.depot(["sync", "source", "add", "x", "--rpm", "http://x"]).fails(2);
    assert!(line.contains("--keyring"), "{line}");
}

#[test]
fn a_site_that_is_killed_in_the_middle_of_a_sync_begins_it_again_by_itself() {
    let mut archive = Archive::new();
    archive.add("curl", "7.88.1-10");
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    // The Release comes, what it lists does not.
    let cut = relay::relay(&archive.web.url, relay::From::Server, 1);
    archive.add_to(&site, "security", &cut).ok();
    let job = site.depot(["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(job["kind"], "sync");
    // Whoever asks meanwhile joins it.
    let again = site.depot(["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(again["id"], job["id"]);
    until("something comes", || {
        let status = site.depot(["sync", "status", "--json"]).ok().json();
        !status[0]["running"]["stage"].is_null()
    });
    site.kill();

    let site = Site::start(&data);
    until("it begins again", || {
        let history = site.depot(["sync", "history", "--json"]).ok().json();
        history.as_array().unwrap().iter().any(|run| run["outcome"] == "interrupted")
            && ids(&site).iter().filter(|id| **id == 6701).count() == 2
    });
    let cancelled = site.depot(["sync", "cancel", "security", "--json"]).ok().json();
    assert_eq!(
        (&cancelled["outcome"], &cancelled["trigger"]),
        (&"cancelled".into(), &"resumed".into())
    );
    assert!(site.depot(["sync", "cancel", "security"]).fails(4).contains("no sync"));
    assert!(names(&site).is_empty());
    assert!(ids(&site).contains(&9002) && ids(&site).contains(&9001));
    site.stop();

    // The same without a server, once the line is whole.
    on_data(&data, ["sync", "source", "remove", "security", "--yes"]).ok();
    let keyring = archive.keyring();
    on_data(&data, archive.source("security", &archive.web.url, keyring.to_str().unwrap())).ok();
    let run = on_data(&data, ["sync", "run", "security", "--json"]).ok().json();
    assert_eq!(run[0]["outcome"], "done");
    let list = on_data(&data, ["update", "list", "--json"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

/// What a data folder offers, with no server on it.
fn offered(data: &Path) -> Vec<(Value, Value, Value)> {
    let args = ["update", "list", "--limit", "500", "--order", "title", "--json"];
    let list = on_data(data, args).ok().json();
    let of = |it: &Value| (it["id"].clone(), it["revision"].clone(), it["state"].clone());
    list.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_sync_that_is_killed_at_any_moment_leaves_the_old_catalogue_or_the_new_one() {
    let mut archive = Archive::new();
    archive.list(0..150);
    archive.publish();
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    archive.add_to(&site, "security", &archive.web.url).ok();
    site.stop();
    let sync = ["sync", "run", "security", "--json"];
    on_data(&data, sync).ok();
    let old = offered(&data);
    archive.list(150..400);
    archive.publish();
    let copy = |name: &str| {
        let to = folder.path().join(name);
        let (from, to_text) = (data.to_str().unwrap(), to.to_str().unwrap());
        tool("cp", &["-a", from, to_text], folder.path());
        to
    };
    let whole = copy("whole");
    let begun = Instant::now();
    on_data(&whole, sync).ok();
    let takes = begun.elapsed();
    let new = offered(&whole);
    assert_eq!((old.len(), new.len()), (150, 400));

    // The moments are spread over the run, its start and its end included; where each falls is chance, and
    // what must hold afterwards is the same.
    const KILLS: u32 = 12;
    for n in 0..=KILLS {
        let data = copy(&format!("killed-{n}"));
        let mut running = depot();
        running.arg("--data").arg(&data).args(sync).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = running.spawn().unwrap();
        std::thread::sleep(takes * n / KILLS);
        running.kill().unwrap();
        running.wait().unwrap();
        let left = offered(&data);
        assert!(left == old || left == new, "after kill {n} of {KILLS}: {} updates", left.len());
        on_data(&data, sync).ok();
        assert_eq!(offered(&data), new, "after kill {n} of {KILLS}");
        let said = on_data(&data, ["status-messages", "list", "--id", "6702", "--json"]);
        assert!(said.ok().json().as_array().unwrap().len() >= 2);
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn criteria_schedules_and_the_policy_are_set_and_shown() {
    let mut archive = Archive::new();
    archive.publish();
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    archive.add_to(&site, "security", &archive.web.url).ok();
    let set =
        ["sync", "criteria", "set", "--classification", "security,critical", "--language", "en"];
    let said = site.depot(set).ok().stdout;
    assert!(said.contains("classifications  critical, security\nproducts         all"), "{said}");
    let said =
        site.depot(["sync", "criteria", "set", "--classification", "all", "--json"]).ok().json();
    assert_eq!(
        (&said["classifications"], &said["languages"][0]),
        (&serde_json::json!([]), &"en".into())
    );
    assert!(
        site.depot(["sync", "criteria", "set", "--classification", "x"]).fails(2).contains("\"x\"")
    );

    let daily = "every day 03:00 Europe/Berlin";
    let said = site.depot(["sync", "schedule", "set", daily]).ok().stdout;
    assert!(said.contains(daily) && said.contains("next at"), "{said}");
    site.depot(["sync", "schedule", "set", "every 4 hours", "--source", "security"]).ok();
    let shown = site.depot(["sync", "schedule", "show", "--json"]).ok().json();
    assert_eq!(
        (&shown["schedule"], &shown["sources"]["security"]),
        (&daily.into(), &"every 4 hours".into())
    );
    assert!(
        site.depot(["sync", "schedule", "set", "now and then"])
            .fails(2)
            .contains("want for example")
    );
    site.depot(["sync", "schedule", "set", "site", "--source", "security"]).ok();
    site.depot(["sync", "source", "disable", "security"]).ok();
    assert!(site.depot(["sync", "run", "security"]).fails(4).contains("disabled"));
    assert!(site.depot(["sync", "run"]).fails(4).contains("no source that is enabled"));
    site.depot(["sync", "source", "enable", "security"]).ok();
    let shown = site.depot(["sync", "source", "show", "security"]).ok().stdout;
    assert!(shown.contains("priority") && !shown.contains("BEGIN PGP"), "{shown}");

    // A source is changed in place, and what is not named stays.
    let change = |args: &[&str]| {
        let before = ["sync", "source", "change", "security"];
        site.depot(before.into_iter().chain(args.iter().copied()))
    };
    let before = site.depot(["sync", "source", "show", "security", "--json"]).ok().json();
    change(&["--components", "main,contrib"]).ok();
    let after = site.depot(["sync", "source", "show", "security", "--json"]).ok().json();
    assert_eq!(after["settings"]["components"], serde_json::json!(["main", "contrib"]));
    assert_eq!(after["settings"]["keyring"], before["settings"]["keyring"]);
    // `--url` is the server that is asked, and no address of a source.
    assert_eq!(after["settings"]["base"], before["settings"]["base"]);
    assert!(change(&["--url", &site.url]).fails(2).contains("nothing is to be changed"));
    change(&["--address", "http://other.example/debian-security"]).ok();
    let moved = site.depot(["sync", "source", "show", "security", "--json"]).ok().json();
    assert_eq!(moved["settings"]["base"], "http://other.example/debian-security");
    assert!(change(&[]).fails(2).contains("nothing is to be changed"));
    change(&["--product", "debian-12"]).fails(2);

    let said =
        site.depot(["lifecycle", "set", "--supersedence", "1", "--supersedence-of", "upgrade=6"]);
    assert!(said.ok().stdout.contains("after 1 month\n  upgrade"));
    let preview = site.depot(["lifecycle", "preview", "--json"]).ok().json();
    assert_eq!(preview["expire"], 0);
    assert!(site.depot(["lifecycle", "set", "--supersedence", "soon"]).fails(2).contains("soon"));
    let audit = site.depot(["audit", "--json"]).ok().json();
    let actions: Vec<&str> =
        audit.as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    for action in ["add_sync_source", "set_sync_criteria", "set_sync_schedule", "set_lifecycle"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
}
