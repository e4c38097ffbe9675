//! `depot fetch`: exact, cheap the second time, and able to go on after a kill.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, path::Path, process::Stdio};
use support::{
    Run, Site, depot, noise,
    relay::{From, relay},
    temp_folder, tree, until,
};

/// What a fetched folder holds, without the notes that fetching keeps there.
fn fetched(out: &Path) -> tree::Tree {
    let mut tree = tree::read(out);
    tree.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree
}

fn fetch(site: &Site, version: &str, out: &Path) -> serde_json::Value {
    let url = format!("{}/packages/p/{version}", site.url);
    Run::of(depot().args(["fetch", &url, "--json", "-o"]).arg(out)).ok().json()
}

/// A site whose package `p` has `source` as version 2.
fn site_of(folder: &Path, source: &Path) -> Site {
    let site = Site::start(&folder.join("data"));
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    site
}

#[test]
fn a_fetched_tree_is_the_source_and_a_second_run_moves_only_what_changed() {
    let folder = temp_folder();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    tree::write_odd(&source);
    let site = site_of(folder.path(), &source);

    let first = fetch(&site, "latest", &out);
    tree::assert_same(&fetched(&out), &tree::read(&source));
    assert_eq!((&first["version"], &first["trusted_on_first_use"]), (&2.into(), &true.into()));
    let again = fetch(&site, "latest", &out);
    assert_eq!((&again["written"], &again["trusted_on_first_use"]), (&0.into(), &false.into()));
    assert!(again["moved_bytes"].as_u64().unwrap() < 4096, "{again}");

    let mut large = fs::read(source.join("large")).unwrap();
    large.splice(1_000_000..1_000_000, noise(5, 1000));
    fs::write(source.join("large"), large).unwrap();
    fs::remove_file(source.join("plain.txt")).unwrap();
    site.depot(["package", "update", "p"]).ok();
    let third = fetch(&site, "3", &out);
    tree::assert_same(&fetched(&out), &tree::read(&source));
    assert!(third["moved_bytes"].as_u64().unwrap() < 1 << 20, "{third}");
    assert_eq!(third["removed"], 1);

    // A channel moves; the older version keeps answering.
    site.depot(["package", "channel", "set", "p", "stable", "2"]).ok();
    let older = fetch(&site, "stable", &out);
    assert_eq!(older["version"], 2);
    assert!(fetched(&out).contains_key(&b"plain.txt"[..]));
    // The same through the command that works with and without a server.
    let restored = folder.path().join("restored");
    site.depot(["package", "restore", "p@3", restored.to_str().unwrap()]).ok();
    tree::assert_same(&fetched(&restored), &tree::read(&source));
}

#[test]
fn a_fetch_that_was_killed_goes_on_where_it_stopped() {
    let folder = temp_folder();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let files: Vec<(String, Vec<u8>)> =
        (0..30).map(|n| (format!("f{n}"), noise(n, 4 << 20))).collect();
    let files: Vec<(&[u8], &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_bytes(), bytes.as_slice())).collect();
    tree::write(&source, &files);
    let whole = 30_u64 * (4 << 20);
    let site = site_of(folder.path(), &source);
    let half = relay(&site.url, From::Server, whole as i64 / 2);
    let url = format!("{half}/packages/p/latest");
    let mut child = depot()
        .args(["fetch", &url, "-o"])
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let in_place = || (0..30).filter(|f| out.join(format!("f{f}")).exists()).count();
    until("some files are in place", || in_place() >= 3);
    child.kill().unwrap();
    child.wait().unwrap();
    for (name, bytes) in &files {
        let path = out.join(String::from_utf8_lossy(name).as_ref());
        assert!(!path.exists() || fs::read(path).unwrap() == *bytes, "a file is whole or absent");
    }
    let there = in_place() as u64;
    assert!(there < 30, "half of it cannot be all");
    let report = fetch(&site, "latest", &out);
    tree::assert_same(&fetched(&out), &tree::read(&source));
    let moved = report["moved_bytes"].as_u64().unwrap();
    // The manifest, the recipes and the framing travel again, and nothing that was in place.
    let small = 1 << 20;
    assert!(moved < whole - there * (4 << 20) + small, "what was there moved again: {report}");
}

#[test]
fn a_proxy_is_not_asked_for_a_server_on_this_machine() {
    let folder = temp_folder();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    tree::write(&source, &[(b"a", b"1")]);
    let site = site_of(folder.path(), &source);
    let nobody = "http://127.0.0.1:1";
    let url = format!("{}/packages/p/latest", site.url);
    Run::of(depot().env("http_proxy", nobody).args(["fetch", &url, "-o"]).arg(&out)).ok();
    tree::assert_same(&fetched(&out), &tree::read(&source));
    Run::of(site.command().env("http_proxy", nobody).args(["package", "list"])).ok();
}

#[test]
fn a_version_with_revoked_content_is_not_fetched() {
    let folder = temp_folder();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    tree::write(&source, &[(b"secret", b"do not tell"), (b"other", b"harmless")]);
    let site = site_of(folder.path(), &source);
    let entries = site.depot(["package", "tree", "p", "--json"]).ok().json();
    let secret = entries.as_array().unwrap().iter().find(|e| e["path"] == "secret").unwrap();
    let digest = secret["digest"].as_str().unwrap();
    site.depot(["package", "revoke", digest, "--reason", "leaked", "--yes"]).ok();
    let url = format!("{}/packages/p/latest", site.url);
    let line = Run::of(depot().args(["fetch", &url, "-o"]).arg(&out)).fails(3);
    assert!(line.contains("revoked") && line.contains(digest), "{line}");
    assert!(!out.join("secret").exists());
    site.depot(["package", "revoke", digest, "--undo"]).ok();
    fetch(&site, "latest", &out);
    tree::assert_same(&fetched(&out), &tree::read(&source));
}

#[test]
fn a_fetched_folder_can_be_pushed_and_fetched_again() {
    let folder = temp_folder();
    let source = folder.path().join("source");
    let [out, again] = ["out", "again"].map(|name| folder.path().join(name));
    tree::write(&source, &[(b"a", b"1"), (b"b/c", b"2")]);
    let site = site_of(folder.path(), &source);
    fetch(&site, "latest", &out);
    let push = || site.depot(["package", "push", "re", out.to_str().unwrap()]);
    let noted = push().ok().stderr;
    assert_eq!(noted.matches("left out").count(), 1, "{noted}");
    let url = format!("{}/packages/re/latest", site.url);
    Run::of(depot().args(["fetch", &url, "-o"]).arg(&again)).ok();
    tree::assert_same(&fetched(&again), &tree::read(&source));
    // The same folder as a source.
    site.depot(["package", "create", "up", "--source", again.to_str().unwrap()]).ok();
    site.depot(["package", "update", "up"]).ok();
    let paths = site.depot(["package", "tree", "up", "--recursive", "--json"]).ok().json();
    assert_eq!(paths.as_array().unwrap().len(), 3, "{paths}");

    // Without the record it is a folder like any other, whose name is taken.
    fs::remove_file(out.join(".depot/state")).unwrap();
    let line = push().fails(2);
    assert!(line.contains(".depot") && line.contains("rename it"), "{line}");
    assert_eq!(site.depot(["package", "show", "re", "--json"]).ok().json()["latest"]["version"], 2);
}

#[test]
fn what_cannot_be_fetched_is_said_in_one_line() {
    let folder = temp_folder();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    tree::write(&source, &[(b"a", b"1")]);
    let site = site_of(folder.path(), &source);
    let fails =
        |url: &str, code: i32| Run::of(depot().args(["fetch", url, "-o"]).arg(&out)).fails(code);
    fails(&format!("{}/packages/none/latest", site.url), 3);
    fails(&format!("{}/packages/p/9", site.url), 3);
    fails(&format!("{}/packages", site.url), 2);
    fails("nonsense", 2);
    let key = "0".repeat(64);
    let url = format!("{}/packages/p/latest", site.url);
    let line = Run::of(depot().args(["fetch", &url, "--key", &key, "-o"]).arg(&out)).fails(1);
    assert!(line.contains("key"), "{line}");
    assert!(!out.join("a").exists());
    // Another site may have a package of the same name, but not the same key.
    fetch(&site, "latest", &out);
    let other = Site::start(&folder.path().join("other"));
    other.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    let line = fails(&format!("{}/packages/p/latest", other.url), 1);
    assert!(line.contains("--key"), "{line}");
    let data = Run::of(depot().args(["--data", "x", "fetch", &url, "-o"]).arg(&out));
    assert!(data.fails(2).contains("package restore"));
}
