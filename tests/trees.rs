//! What goes in comes out: updates, pushes and restores of odd, changing and interrupted trees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};
use support::{
    Run, Site, depot, noise, on_data,
    relay::{From, relay},
    temp_folder, tree, until,
};

fn package_from(data: &Path, source: &Path) {
    Site::start(data).stop();
    on_data(data, ["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    on_data(data, ["package", "update", "p"]).ok();
}

#[test]
fn a_restored_tree_is_the_source_byte_for_byte() {
    let folder = temp_folder();
    let (data, source, out) =
        (folder.path().join("data"), folder.path().join("source"), folder.path().join("out"));
    tree::write_odd(&source);
    package_from(&data, &source);
    let restore = |args: &[&str]| {
        let to = out.to_str().unwrap();
        on_data(&data, [&["package", "restore", "p", to, "--json"], args].concat()).ok().json()
    };
    let first = restore(&[]);
    tree::assert_same(&tree::read(&out), &tree::read(&source));
    assert!(first["written"].as_u64().unwrap() > 10);
    let again = restore(&[]);
    assert_eq!(again["written"], 0, "what is right is left alone: {again}");

    // What was changed since comes back, what is extra goes only when asked.
    fs::write(out.join("plain.txt"), "spoilt").unwrap();
    fs::remove_file(out.join("link")).unwrap();
    fs::write(out.join("extra"), "x").unwrap();
    restore(&[]);
    assert!(out.join("extra").exists());
    restore(&["--prune"]);
    tree::assert_same(&tree::read(&out), &tree::read(&source));

    on_data(&data, ["package", "restore", "p@1", folder.path().join("empty").to_str().unwrap()])
        .ok();
    assert_eq!(fs::read_dir(folder.path().join("empty")).unwrap().count(), 0);
    on_data(&data, ["package", "restore", "p@9", out.to_str().unwrap()]).fails(3);
}

#[test]
fn every_version_restores_as_it_was() {
    let folder = temp_folder();
    let (data, source) = (folder.path().join("data"), folder.path().join("source"));
    tree::write(&source, &[(b"stays", b"same"), (b"grows", &noise(1, 1 << 20)), (b"goes", b"x")]);
    package_from(&data, &source);
    let second = tree::read(&source);
    let mut grown = noise(1, 1 << 20);
    grown.splice(500_000..500_000, *b"an insertion in the middle");
    tree::write(&source, &[(b"grows", &grown), (b"new/deep", b"y")]);
    fs::remove_file(source.join("goes")).unwrap();
    let report = on_data(&data, ["package", "update", "p", "--json"]).ok().json();
    assert!(report["new_bytes"].as_u64().unwrap() < 700_000, "most of it is held: {report}");
    fs::set_permissions(source.join("stays"), fs::Permissions::from_mode(0o755)).unwrap();
    let third = {
        let mode = tree::read(&source);
        on_data(&data, ["package", "update", "p"]).ok();
        mode
    };
    for (version, want) in [("2", &second), ("4", &third)] {
        let out = folder.path().join(version);
        let name = format!("p@{version}");
        on_data(&data, ["package", "restore", &name, out.to_str().unwrap()]).ok();
        tree::assert_same(&tree::read(&out), want);
    }
}

#[test]
fn a_push_sends_only_what_the_site_lacks() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let source = folder.path().join("source");
    tree::write_odd(&source);
    let push = |name: &str| {
        site.depot(["package", "push", name, source.to_str().unwrap(), "--json"]).ok().json()
    };
    let first = push("tools");
    assert_eq!(first["version"], 2);
    assert_eq!(first["sent_chunks"], first["offered_chunks"]);
    let again = push("tools");
    assert_eq!((&again["unchanged"], &again["sent_chunks"]), (&true.into(), &0.into()));
    let other = push("other");
    assert_eq!((&other["version"], &other["sent_bytes"]), (&2.into(), &0.into()));

    let mut large = fs::read(source.join("large")).unwrap();
    large.splice(1_000_000..1_000_100, *b"changed");
    fs::write(source.join("large"), large).unwrap();
    let changed = push("tools");
    assert_eq!(changed["version"], 3);
    let (sent, offered) =
        (changed["sent_chunks"].as_u64().unwrap(), changed["offered_chunks"].as_u64().unwrap());
    assert!(sent <= 4 && sent < offered / 4, "{sent} of {offered}");
    let n_uploads =
        site.request("GET", "/api/v1/uploads", &[("Authorization", &bearer(&site))], b"");
    assert_eq!(n_uploads.json()["items"], serde_json::json!([]), "every upload has ended");

    let data = site.data.clone();
    site.stop();
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "tools", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
    // The same without a server.
    let unchanged = on_data(&data, ["package", "push", "tools", source.to_str().unwrap()]).ok();
    assert!(unchanged.stdout.contains("unchanged"), "{}", unchanged.stdout);
}

fn bearer(site: &Site) -> String {
    format!("Bearer {}", fs::read_to_string(site.token_file()).unwrap().trim())
}

#[test]
fn a_push_that_was_killed_goes_on_with_what_arrived() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let source = folder.path().join("source");
    let files: Vec<(String, Vec<u8>)> =
        (0..24).map(|n| (format!("f{n}"), noise(n, 4 << 20))).collect();
    let files: Vec<(&[u8], &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_bytes(), bytes.as_slice())).collect();
    tree::write(&source, &files);
    let whole = 24 * (4 << 20);

    let received = || {
        let auth = bearer(&site);
        let uploads = site.request("GET", "/api/v1/uploads", &[("Authorization", &auth)], b"");
        let items = uploads.json()["items"].as_array().unwrap().clone();
        items.iter().map(|u| u["received_bytes"].as_u64().unwrap()).sum::<u64>()
    };
    let half = relay(&site.url, From::Client, whole as i64 / 2);
    let mut child = site
        .command()
        .env("DEPOT_URL", half)
        .args(["package", "push", "tools"])
        .arg(&source)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("something arrives", || received() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let arrived = received();
    assert!(arrived < whole, "half of it cannot be all: {arrived}");

    let report =
        site.depot(["package", "push", "tools", source.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(report["version"], 2);
    assert!(report["new_bytes"].as_u64().unwrap() <= whole - arrived, "{report} after {arrived}");
    let data = site.data.clone();
    site.stop();
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "tools", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
}

#[test]
fn what_no_package_can_hold_fails_by_name_and_changes_nothing() {
    let folder = temp_folder();
    let (data, source) = (folder.path().join("data"), folder.path().join("source"));
    tree::write(&source, &[(b"good", b"1")]);
    package_from(&data, &source);
    let pipe = source.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(on_data(&data, ["package", "update", "p"]).fails(2).contains("pipe"));
    let push = ["package", "push", "q", source.to_str().unwrap()];
    assert!(on_data(&data, push).fails(2).contains("pipe"));
    fs::remove_file(&pipe).unwrap();
    let unchanged = on_data(&data, ["package", "update", "p"]).ok();
    assert!(unchanged.stdout.contains("unchanged"));
    on_data(&data, ["package", "push", "q", "/nowhere/at/all"]).fails(3);
    // A package with a source folder takes no pushes.
    let line = on_data(&data, ["package", "push", "p", source.to_str().unwrap()]).fails(4);
    assert!(line.contains("package p") && line.contains("update it"), "{line}");
}

fn size_of(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => size_of(&entry.path()),
            false => entry.metadata().map_or(0, |meta| meta.len()),
        }
    });
    sizes.sum()
}

#[test]
fn ctrl_c_during_an_update_leaves_no_version_and_returns_130() {
    let folder = temp_folder();
    let (data, source) = (folder.path().join("data"), folder.path().join("source"));
    tree::write(&source, &[(b"a", b"1")]);
    package_from(&data, &source);
    for n in 0..4 {
        fs::write(source.join(format!("large{n}")), noise(n, 8 << 20)).unwrap();
    }
    // No disk holds as much, and no update is through with it before it is interrupted.
    let endless = source.join("zeros");
    fs::File::create(&endless).unwrap().set_len(1 << 38).unwrap();
    let stored = || size_of(&data.join("library/packs"));
    let before = stored();
    let child = depot()
        .arg("--data")
        .arg(&data)
        .args(["package", "update", "p"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the update writes", || stored() > before + (8 << 20));
    support::interrupt(&child);
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{run:?}");
    let versions = on_data(&data, ["package", "versions", "p", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    fs::remove_file(endless).unwrap();
    let next = on_data(&data, ["package", "update", "p", "--json"]).ok().json();
    assert_eq!(next["version"], 3);
}
