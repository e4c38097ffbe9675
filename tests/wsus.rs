//! A site as an upstream for others in the protocol of WSUS: for a strict client of the published interface
//! definitions, and for another site.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Site, temp_folder, until};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A site with the third-party packages that a folder has.
fn upstream(data: &Path) -> Site {
    let site = Site::start_with(data, &["--set", "sync.serve_wsus=true"]);
    let packages = here("sync/tests/data/sdp/hp");
    let packages = packages.to_str().unwrap();
    site.depot(["sync", "source", "add", "hp", "--sdp", packages, "--unsigned"]).ok();
    site.depot(["sync", "run", "hp", "--watch"]).ok();
    site
}

fn ids(site: &Site) -> Vec<String> {
    let listed = site.depot(["update", "list", "--superseded", "--expired", "--json"]).ok().json();
    let listed = listed.as_array().cloned().unwrap_or_default();
    let mut ids: Vec<String> =
        listed.iter().filter_map(|it| it["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

#[test]
fn a_strict_client_of_the_published_definitions_is_a_downstream() {
    let data = temp_folder();
    let site = upstream(data.path());
    let done = Command::new("/usr/bin/python3")
        .arg(here("tests/support/downstream.py"))
        .arg(here("tests/data/wsdl"))
        .arg(site.url.trim_end_matches('/'))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said} (tools/setup.sh tests installs python3-zeep)");
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found["protocol"], "1.20");
    let served: Vec<String> = serde_json::from_value(found["updates"].clone()).unwrap();
    for id in ids(&site) {
        assert!(served.contains(&id), "{id} is not among {}", served.len());
    }
    assert!(found["categories"].as_u64().unwrap() > 5 && found["files"].as_u64().unwrap() > 5);
    assert_eq!(found["later"], 0, "nothing changed since");
    let faults = ["InternalServerError", "InvalidCookie", "FileDigestsMissing"];
    assert_eq!(found["faults"], serde_json::json!(faults));
}

#[test]
fn another_site_takes_the_catalogue_and_then_only_what_changed() {
    let (data, below) = (temp_folder(), temp_folder());
    let (top, site) = (upstream(data.path()), Site::start(below.path()));
    site.depot(["sync", "source", "add", "top", "--wsus", &top.url]).ok();
    site.depot(["sync", "run", "top", "--watch"]).ok();
    let (want, have) = (ids(&top), ids(&site));
    assert!(want.len() > 20, "{}", want.len());
    for id in &want {
        assert!(have.contains(id), "{id}");
    }
    let ended =
        |id: &str| site.depot(["status-messages", "list", "--id", id, "--json"]).ok().json();
    until("the success is told", || ended("6702").as_array().is_some_and(|all| !all.is_empty()));
    site.depot(["sync", "run", "top", "--watch"]).ok();
    assert_eq!(ids(&site), have);
}

#[test]
fn it_is_off_until_it_is_set() {
    let data = temp_folder();
    let site = Site::start(data.path());
    let path = "/ServerSyncWebService/ServerSyncWebService.asmx";
    let refused = site.request("POST", path, &[("content-type", "text/xml")], b"<a/>");
    assert_eq!(refused.status, 404);
    assert!(refused.json()["detail"].as_str().unwrap().contains("sync.serve_wsus"));
}
