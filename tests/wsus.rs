//! A site as an upstream for others in the protocol of WSUS: for a downstream that takes nothing but what
//! the published interfaces allow, and for another site.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{fs, io};
use support::archive::Archive;
use support::own::TOOL;
use support::{Run, Site, alone, temp_folder};

const SERVES: [&str; 2] = ["--set", "sync.serve_wsus=true"];

/// A site with what was published for Windows machines, and an update of its own with its file.
fn filled(folder: &Path) -> Site {
    let site = Site::start_with(&folder.join("top"), &SERVES);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("sync/tests/data");
    let cabinet = data.join("wsusscn2/wsusscn2.cab");
    let (cabinet, packages) = (cabinet.to_str().unwrap(), data.join("sdp/hp"));
    let add = ["sync", "source", "add"];
    let add = |more: [&str; 4]| site.depot(add.iter().copied().chain(more)).ok();
    add(["microsoft", "--scan-cab", cabinet, "--unsigned"]);
    add(["hp", "--sdp", packages.to_str().unwrap(), "--unsigned"]);
    site.depot(["sync", "run", "--watch"]).ok();
    fs::write(folder.join("tool.exe"), support::noise(7, 300_000)).unwrap();
    publish(&site, folder, TOOL);
    site
}

/// Publishes an update of the site's own; its id.
fn publish(site: &Site, folder: &Path, text: &str) -> String {
    let file = folder.join("tool.toml");
    fs::write(&file, text).unwrap();
    let args = ["update", "author", file.to_str().unwrap(), "--publish", "--json"];
    site.depot(args).ok().json()["id"].as_str().unwrap().to_owned()
}

/// What the strict downstream finds, and where it keeps that.
fn downstream(site: &Site, kept: &Path) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The system's: there the toolkit is.
    let mut python = alone(Command::new("/usr/bin/python3"));
    python.arg(root.join("tests/support/downstream.py")).arg(&site.url);
    python.arg(root.join("sync/tests/data/wsdl"));
    if kept.exists() {
        python.arg(kept);
    }
    let run = match python.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            panic!("there is no /usr/bin/python3: run tools/setup.sh tests")
        }
        output => Run::from(output.unwrap()).ok(),
    };
    fs::write(kept, &run.stdout).unwrap();
    run.json()
}

/// The catalogue of a site, as its list says it: of each id what there is to compare.
fn catalogue(site: &Site) -> BTreeMap<String, Value> {
    let list = site.depot(["update", "list", "--limit", "500", "--json"]).ok().json();
    let all = list.as_array().unwrap().iter();
    all.map(|it| (it["id"].as_str().unwrap().to_owned(), it.clone())).collect()
}

fn ids(list: &Value) -> BTreeSet<String> {
    let all = list.as_array().unwrap().iter();
    all.map(|it| it["id"].as_str().or(it.as_str()).unwrap().to_owned()).collect()
}

#[test]
fn it_is_off_until_it_is_set() {
    let data = temp_folder();
    let site = Site::start(data.path());
    for service in ["ServerSyncWebService", "DssAuthWebService", "ReportingWebService"] {
        let path = format!("/{service}/{service}.asmx");
        let refused = site.request("POST", &path, &[("content-type", "text/xml")], b"<a/>");
        assert_eq!(refused.status, 404);
        assert!(refused.json()["detail"].as_str().unwrap().contains("sync.serve_wsus"));
    }
}

#[test]
fn a_strict_downstream_finds_the_whole_catalogue_and_then_what_changed() {
    let folder = temp_folder();
    let site = filled(folder.path());
    let kept = folder.path().join("anchors.json");
    let first = downstream(&site, &kept);
    let all: BTreeSet<String> = catalogue(&site).into_keys().collect();
    assert!(all.len() > 20);
    let (found, everything) = (ids(&first["updates"]), ids(&first["everything"]));
    assert!(all.is_subset(&everything), "missing {:?}", all.difference(&everything));
    assert!(found.is_subset(&everything) && !found.is_empty());
    assert_eq!(first["held"], serde_json::json!(["tool.exe"]));

    let text = TOOL.replace("Mends the tool.", "Mends the tool at last.");
    let id = publish(&site, folder.path(), &text);
    let second = downstream(&site, &kept);
    assert_eq!(ids(&second["updates"]), [id.clone()].into());
    assert_eq!(
        (&second["updates"][0]["revision"], &second["updates"][0]["state"]),
        (&2.into(), &"Published".into())
    );

    site.depot(["update", "withdraw", &id, "--yes"]).ok();
    let third = downstream(&site, &kept);
    assert_eq!(
        (&third["updates"][0]["id"], &third["updates"][0]["state"]),
        (&id.into(), &"Expired".into()),
        "{third}"
    );
}

/// What two catalogues must have in common, of each update: categories, which sites without a WSUS source
/// do not list, are left out by the list itself.
fn common(site: &Site) -> BTreeMap<String, Value> {
    let fields = ["revision", "title", "state", "classification", "files", "bytes", "created"];
    let of = |it: &Value| fields.map(|field| it[field].clone()).into_iter().collect();
    catalogue(site).iter().map(|(id, it)| (id.clone(), of(it))).collect()
}

/// The files of an update: name, size and digests.
fn files(site: &Site, id: &str) -> Vec<Value> {
    let shown = site.depot(["update", "show", id, "--json"]).ok().json();
    let items = shown["update"]["items"].as_array().cloned().unwrap_or_default();
    let all = items.iter().filter_map(|item| item["files"].as_array()).flatten();
    let mut all: Vec<Value> = all
        .map(|file| serde_json::json!([file["name"], file["size"], file["digests"]["sha256"]]))
        .collect();
    all.sort_by_key(Value::to_string);
    all
}

fn sync(site: &Site) -> Value {
    let run = site.depot(["sync", "run", "upstream", "--watch", "--json"]).ok().json();
    run[0].clone()
}

#[test]
fn a_site_follows_another_one_and_brings_files_from_it() {
    let folder = temp_folder();
    let top = filled(folder.path());
    let mut archive = Archive::new();
    archive.add("curl", "7.88.1-10");
    archive.publish();
    archive.add_to(&top, "debian", &archive.web.url).ok();
    top.depot(["sync", "run", "debian", "--watch"]).ok();
    let below = Site::start(&folder.path().join("below"));
    below.depot(["sync", "source", "add", "upstream", "--wsus", &top.url]).ok();

    assert_eq!(sync(&below)["outcome"], "done");
    let all = common(&top);
    assert!(all.len() > 25);
    assert_eq!(common(&below), all);
    for id in all.keys() {
        assert_eq!(files(&below, id), files(&top, id), "{id}");
    }
    assert_eq!(sync(&below)["outcome"], "unchanged");

    // Content comes from the site above, though the archive it came from is gone.
    let curl = top.depot(["update", "list", "--search", "curl", "--json"]).ok().json();
    let curl = curl[0]["id"].as_str().unwrap().to_owned();
    top.depot(["update", "download", &curl, "--package", "debs"]).ok();
    let deb = fs::read(archive.folder.path().join(Archive::deb("curl", "7.88.1-10"))).unwrap();
    drop(archive);
    let shown = below.depot(["update", "show", &curl, "--json"]).ok().json();
    let urls = shown["update"]["items"][0]["files"][0]["urls"].as_array().unwrap().clone();
    let content = format!("{}/Content/", top.url);
    let path =
        urls[0].as_str().unwrap().strip_prefix(&content).unwrap_or_else(|| panic!("{urls:?}"));
    assert!(top.get(&format!("/Content/{path}")).body == deb, "{urls:?}");
    let tool = publish(&top, folder.path(), TOOL);
    let got = below.depot(["update", "download", &curl, &tool, "--package", "x", "--json"]);
    let got = got.ok().json();
    assert_eq!((&got["failed"], got["outcomes"].as_array().unwrap().len()), (&0.into(), 2));
    let served = |path: &str| below.get(&format!("/packages/x/latest/{path}")).body;
    assert_eq!(served(&format!("{tool}/tool.exe")), support::noise(7, 300_000));
    assert_eq!(served(&format!("{curl}/curl_7.88.1-10_amd64.deb")), deb);

    // Of what changed, only that; of what is withdrawn, that it is.
    publish(&top, folder.path(), &TOOL.replace("Mends the tool.", "Mends the tool at last."));
    let changes = sync(&below)["changes"].clone();
    assert_eq!((&changes["added"], &changes["revised"]), (&0.into(), &1.into()), "{changes}");
    assert_eq!(common(&below), common(&top));
    top.depot(["update", "withdraw", &tool, "--yes"]).ok();
    top.depot(["sync", "source", "remove", "debian", "--yes"]).ok();
    let changes = sync(&below)["changes"].clone();
    // Both updates; the product is called as before, though nobody describes it any more.
    assert_eq!((&changes["added"], &changes["revised"]), (&0.into(), &2.into()), "{changes}");
    assert_eq!(common(&below), common(&top));
    for id in [tool, curl] {
        assert_eq!(catalogue(&below)[&id]["state"], "expired");
    }
}
