//! Collections by the command line, over a real site and clients with certificates of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::fleet::Member;
use support::{Site, temp_folder};

fn members(site: &Site, collection: &str) -> Vec<String> {
    let found = site.depot(["collection", "members", collection, "--json"]).ok().json();
    let name = |it: &Value| it["name"].as_str().unwrap().to_owned();
    found.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn collections_follow_what_clients_tell_and_survive_a_crash() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    let site = Site::start(&data);
    let web = Member::join(&site, "web-1");
    web.tell(0, &[("nginx", "1.22-1"), ("openssl", "3.0.11-1")]);
    Member::join(&site, "pc-2").tell(0, &[("openssl", "3.0.15-1")]);
    let depot = |args: &[&str]| site.depot(args);
    let preview = ["collection", "rule", "preview", "package.openssl < 3.0.15"];
    let said = depot(&preview).ok().stdout;
    assert!(said.contains("it means 1 client"), "{said}");
    assert!(said.contains("web-1") && !said.contains("pc-2"), "{said}");
    depot(&["collection", "create", "old", "--rule", "package.openssl < 3.0.15"]).ok();
    depot(&["collection", "create", "rest", "--include", "all", "--exclude", "old"]).ok();
    assert_eq!(
        (members(&site, "old"), members(&site, "rest")),
        (vec!["web-1".into()], vec!["pc-2".into()])
    );
    depot(&["collection", "rule", "add", "old", "name = pc-*", "--name", "pcs"]).ok();
    let shown = depot(&["collection", "show", "old"]).ok().stdout;
    assert!(shown.contains("pcs: name = pc-*") && shown.contains("members        2"), "{shown}");
    depot(&["collection", "rule", "remove", "old", "pcs"]).ok();
    let line = depot(&["collection", "rule", "add", "old", "oz = debian"]).fails(2);
    assert!(line.contains("did you mean") && line.contains("os"), "{line}");
    let line = depot(&["collection", "change", "old", "--include", "rest"]).fails(2);
    assert!(line.contains("old → rest → old") || line.contains("rest → old → rest"), "{line}");
    let line = depot(&["collection", "delete", "old", "--yes"]).fails(4);
    assert!(line.contains("rest"), "{line}");
    depot(&["collection", "add", "old", "nobody"]).fails(3);

    let add = ["collection", "window", "add", "old", "nights", "--start", "2026-01-01T01:00"];
    depot(&[&add[..], &["--length", "3h", "--every", "weekly sat"]].concat()).ok();
    let line = depot(&[&add[..], &["--length", "25h", "--every", "daily"]].concat()).fails(2);
    assert!(line.contains("1440"), "{line}");
    let preview =
        ["collection", "window", "preview", "old", "--zone", "Europe/Paris", "--count", "2"];
    let times = depot(&[&preview[..], &["--from", "2026-10-20T00:00Z"]].concat()).ok().stdout;
    assert!(times.contains("Sat 2026-10-24 01:00 CEST"), "{times}");
    assert!(times.contains("Sat 2026-10-31 01:00 CET"), "{times}");
    let listed = depot(&["collection", "window", "list", "old"]).ok().stdout;
    assert!(listed.contains("weekly sat") && listed.contains("local"), "{listed}");

    // What was acknowledged is there after a crash, and members follow what clients tell then.
    site.kill();
    let site = Site::start(&data);
    assert_eq!(members(&site, "old"), ["web-1"]);
    let web = web.at(&site);
    web.tell(1, &[("openssl", "3.0.15-1")]);
    assert_eq!(members(&site, "old"), Vec::<String>::new());
    assert_eq!(members(&site, "rest"), ["web-1", "pc-2"]);
    let totals = site.depot(["compliance", "unknown", "--collection", "rest"]).ok().stdout;
    assert!(totals.contains("2 of 2 clients are unknown"), "{totals}");
    let line = site.depot(["compliance", "summary", "--collection", "none"]).fails(3);
    assert!(line.contains("there is no collection"), "{line}");
    site.depot(["collection", "window", "remove", "old", "nights"]).ok();
    site.depot(["collection", "delete", "rest", "--yes"]).ok();
    site.depot(["collection", "delete", "old", "--yes"]).ok();
    let left = site.depot(["collection", "list", "--json"]).ok().json();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
}
