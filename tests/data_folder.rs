//! What may become a data folder, and what a site without its signing key does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};
use support::{Run, Site, depot, on_data, temp_folder, tree};

#[test]
fn a_folder_of_other_files_does_not_become_a_site() {
    let folder = temp_folder();
    let other = folder.path().join("other");
    tree::write(&other, &[(b"file", b"x")]);
    let before = tree::read(&other);
    let listed = on_data(&other, ["package", "list"]);
    let line = listed.fails(3);
    assert!(line.contains("is no data folder") && line.contains("check the path"), "{line}");
    let served = Run::of(depot().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&other));
    assert!(served.fails(3).contains("is no data folder"));
    tree::assert_same(&tree::read(&other), &before);
}

#[test]
fn the_folder_of_a_distribution_point_is_no_site() {
    let folder = temp_folder();
    let point = folder.path().join("point");
    tree::write(&point, &[(b"point.json", b"{}"), (b"library/packs/x", b"x")]);
    let before = tree::read(&point);
    assert!(on_data(&point, ["package", "list"]).fails(3).contains("depot dp serve --data"));
    let served = Run::of(depot().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&point));
    assert!(served.fails(3).contains("is the folder of a distribution point"));
    tree::assert_same(&tree::read(&point), &before);
}

#[test]
fn an_empty_folder_becomes_a_site_and_stays_one_whatever_lies_beside_it() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("lost+found")).unwrap();
    on_data(&data, ["package", "create", "docs"]).ok();
    fs::write(data.join("notes.txt"), "whose site this is").unwrap();
    fs::remove_file(data.join("lock")).unwrap();
    fs::remove_dir_all(data.join("site")).unwrap();
    on_data(&data, ["package", "show", "docs"]).ok();
    // Cut off when hardly begun.
    let begun = folder.path().join("begun");
    fs::create_dir_all(begun.join("site")).unwrap();
    fs::write(begun.join("lock"), "process 1 (depot with --data)\n").unwrap();
    on_data(&begun, ["package", "list"]).ok();
}

#[test]
fn a_site_whose_token_file_was_moved_says_how_to_make_a_token() {
    let folder = temp_folder();
    let data = folder.path().join("data");
    Site::start(&data).stop();
    let announced = || {
        let mut serve = depot();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        support::interrupt(&child);
        lines.for_each(drop);
        child.wait().unwrap();
        said.join("\n")
    };
    let token_file = data.join("admin.token");
    assert!(announced().contains(token_file.to_str().unwrap()));
    fs::rename(&token_file, folder.path().join("moved.token")).unwrap();
    let said = announced();
    assert!(!said.contains("admin.token") && said.contains("token create"), "{said}");
}

#[test]
fn a_lost_signing_key_is_asked_for_and_replaced_only_when_told_to() {
    let folder = temp_folder();
    let (data, source, out) =
        (folder.path().join("data"), folder.path().join("source"), folder.path().join("out"));
    let source_text = source.to_str().unwrap();
    tree::write(&source, &[(b"a", b"1")]);
    fs::create_dir(&data).unwrap();
    on_data(&data, ["package", "create", "p", "--source", source_text]).ok();
    let key_file = data.join("keys/site.ed25519");
    let old = fs::read(&key_file).unwrap();
    let key_of = || {
        let shown = on_data(&data, ["package", "show", "p@latest", "--json"]).ok().json();
        shown["key"].as_str().unwrap().to_owned()
    };
    let old_key = key_of();
    let new_key = ["site", "new-key", "--yes", "--json"];
    assert!(on_data(&data, new_key).fails(4).contains("move it away first"));

    fs::remove_file(&key_file).unwrap();
    let line = on_data(&data, ["package", "list"]).fails(1);
    assert!(line.contains("put the site's key back from a backup"), "{line}");
    assert!(line.contains("site new-key"), "{line}");
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    assert_eq!(on_data(&data, serve).fails(1), line);
    assert!(!key_file.exists());
    fs::write(&key_file, &old).unwrap();
    assert_eq!(key_of(), old_key);

    // One that cannot be looked at is not lost.
    fs::remove_file(&key_file).unwrap();
    std::os::unix::fs::symlink(&key_file, &key_file).unwrap();
    let line = on_data(&data, ["package", "list"]).fails(1);
    assert!(line.contains("cannot read") && !line.contains("new-key"), "{line}");

    fs::remove_file(&key_file).unwrap();
    on_data(&data, ["site", "new-key"]).fails(2);
    let made = on_data(&data, new_key).ok().json();
    on_data(&data, ["package", "update", "p"]).ok();
    assert_eq!(made["key"], key_of());
    assert_ne!(key_of(), old_key);
    let audit = on_data(&data, ["audit", "--json"]).ok().json();
    assert!(audit.as_array().unwrap().iter().any(|record| record["action"] == "new_key"));

    let site = Site::start(&data);
    assert!(site.depot(new_key).fails(4).contains("stop it"));
    let url = format!("{}/packages/p/latest", site.url);
    let fetch = |key: &str| Run::of(depot().args(["fetch", &url, "--key", key, "-o"]).arg(&out));
    fetch(&old_key).fails(1);
    fetch(&key_of_running(&site)).ok();
}

fn key_of_running(site: &Site) -> String {
    let shown = site.depot(["package", "show", "p@latest", "--json"]).ok().json();
    shown["key"].as_str().unwrap().to_owned()
}
