//! Damage to a data folder: it is found and named, no wrong byte leaves, and it can be healed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{Run, Site, noise, on_data, temp_folder, tree};

/// The pack files of a data folder, the largest last.
fn packs(data: &Path) -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    below(&data.join("library/packs"), &mut found);
    found.sort_by_key(|path| path.metadata().unwrap().len());
    found
}

/// Turns bits over in the middle of the largest pack.
fn spoil(data: &Path) {
    let pack = packs(data).pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    for at in (middle..middle + 200_000).step_by(50_000) {
        bytes[at] ^= 0x55;
    }
    fs::write(&pack, bytes).unwrap();
}

/// Data folder and source of package `p`, whose bytes do not compress.
fn package(folder: &Path) -> (PathBuf, PathBuf) {
    let (data, source) = (folder.join("data"), folder.join("source"));
    let files: Vec<Vec<u8>> = (0..8).map(|n| noise(n, 1 << 20)).collect();
    let names: Vec<String> = (0..8).map(|n| format!("file{n}")).collect();
    let files: Vec<(&[u8], &[u8])> =
        names.iter().zip(&files).map(|(n, b)| (n.as_bytes(), b.as_slice())).collect();
    tree::write(&source, &files);
    Site::start(&data).stop();
    on_data(&data, ["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    on_data(&data, ["package", "update", "p"]).ok();
    (data, source)
}

fn digests(data: &Path) -> Vec<(String, String)> {
    let entries = on_data(data, ["package", "tree", "p", "--recursive", "--json"]).ok().json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    entries.as_array().unwrap().iter().map(|e| (text(&e["path"]), text(&e["digest"]))).collect()
}

#[test]
fn damage_is_named_never_served_and_healed_from_another_server() {
    let folder = temp_folder();
    let (data, source) = package(folder.path());
    let copy = folder.path().join("copy");
    Run::of(std::process::Command::new("cp").arg("-a").arg(&data).arg(&copy)).ok();
    spoil(&data);

    let line = on_data(&data, ["library", "verify"]).fails(5);
    assert!(line.contains("damaged"), "{line}");
    let report = on_data(&data, ["library", "verify", "--json"]);
    assert_eq!(report.code, Some(5));
    let bad = report.json()["bad_contents"].as_array().unwrap().clone();
    assert!(!bad.is_empty() && bad[0]["holders"][0]["name"].as_str().unwrap().contains("/p/"));

    let site = Site::start(&data);
    let mut n_bad = 0;
    for (path, digest) in {
        let entries = site.depot(["package", "tree", "p", "--json"]).ok().json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let entries = entries.as_array().unwrap().iter();
        entries.map(|e| (text(&e["path"]), text(&e["digest"]))).collect::<Vec<_>>()
    } {
        let answer = site.get(&format!("/content/{digest}"));
        if answer.status == 200 {
            assert!(answer.body == fs::read(source.join(&path)).unwrap(), "a wrong byte of {path}");
        } else {
            assert_eq!(answer.status, 503, "{path}");
            assert!(answer.header("retry-after").is_some());
            site.depot(["content", "get", &digest]).fails(5);
            site.depot(["content", "show", &digest]).fails(5);
            n_bad += 1;
        }
    }
    assert!(n_bad > 0);

    let other = Site::start(&copy);
    let healed = site.depot(["library", "repair", "--from", &other.url, "--json"]).ok().json();
    assert_eq!(healed["healed"], healed["wanted"]);
    site.depot(["library", "repair", "--from", "nonsense"]).fails(2);
    site.depot(["library", "repair", "--from", "http://127.0.0.1:1"]).ok();
    site.stop();
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
}

#[test]
fn reading_the_source_again_heals_too() {
    let folder = temp_folder();
    let (data, source) = package(folder.path());
    spoil(&data);
    on_data(&data, ["library", "verify"]).fails(5);
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).fails(5);
    let report = on_data(&data, ["package", "update", "p", "--read-all"]).ok();
    assert!(report.stdout.contains("unchanged"), "{}", report.stdout);
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));
}

#[test]
fn a_lost_index_is_made_again_from_the_packs() {
    let folder = temp_folder();
    let (data, source) = package(folder.path());
    fs::write(source.join("file0"), "changed").unwrap();
    on_data(&data, ["package", "update", "p"]).ok();
    on_data(&data, ["package", "channel", "set", "p", "stable", "2"]).ok();
    let before = |data: &Path| {
        let show = on_data(data, ["package", "show", "p", "--json"]).ok().json();
        let versions = on_data(data, ["package", "versions", "p", "--json"]).ok().json();
        (show, versions, digests(data))
    };
    let was = before(&data);
    fs::remove_dir_all(data.join("library/index")).unwrap();
    // Not taken for an empty library: that would lose everything at the next garbage collection.
    let line = on_data(&data, ["package", "list"]).fails(1);
    assert!(line.contains("rebuild-index"), "{line}");
    on_data(&data, ["library", "rebuild-index"]).ok();
    assert_eq!(before(&data), was);
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &tree::read(&source));

    let site = Site::start(&data);
    assert!(site.depot(["library", "rebuild-index"]).fails(4).contains("--data"));
}

#[test]
fn a_lost_pack_is_named() {
    let folder = temp_folder();
    let (data, _) = package(folder.path());
    fs::remove_file(packs(&data).pop().unwrap()).unwrap();
    on_data(&data, ["library", "verify"]).fails(5);
    let out = folder.path().join("out");
    let restore = on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]);
    assert_eq!(restore.code, Some(5), "{restore:?}");
}

#[test]
fn revoked_content_is_neither_served_nor_taken_in() {
    let folder = temp_folder();
    let (data, source) = package(folder.path());
    let site = Site::start(&data);
    let entries = site.depot(["package", "tree", "p", "--json"]).ok().json();
    let digest = entries[3]["digest"].as_str().unwrap().to_owned();
    site.depot(["package", "revoke", &digest]).fails(2);
    let revoked =
        site.depot(["package", "revoke", &digest, "--reason", "CVE-1", "--yes"]).ok().stdout;
    assert!(revoked.contains("p@2  file3"), "{revoked}");
    assert_eq!(site.get(&format!("/content/{digest}")).status, 410);
    assert_eq!(site.get("/packages/p/latest/file3").status, 410);
    assert_eq!(site.get("/packages/p/latest/file4").status, 200);
    assert!(site.depot(["package", "revoke", "--list"]).ok().stdout.contains("CVE-1"));
    let push = site.depot(["package", "push", "q", source.to_str().unwrap()]);
    assert!(push.code != Some(0) && push.stderr.contains("revoked"), "{}", push.stderr);
    site.depot(["package", "revoke", &digest, "--undo"]).ok();
    assert_eq!(site.get("/packages/p/latest/file3").status, 200);
    site.depot(["package", "push", "q", source.to_str().unwrap()]).ok();
}

#[test]
fn what_was_deleted_is_freed_after_the_grace_time() {
    let folder = temp_folder();
    let (data, _) = package(folder.path());
    let gone = on_data(&data, ["package", "delete", "p", "--yes", "--json"]).ok().json();
    assert!(gone["freed"]["bytes"].as_u64().unwrap() >= 8 << 20);
    let dry = on_data(&data, ["library", "gc", "--dry-run", "--json"]).ok().json();
    let wet = on_data(&data, ["library", "gc", "--json"]).ok().json();
    assert_eq!(dry["condemned_bytes"], wet["condemned_bytes"], "a dry run tells what would be");
    assert!(wet["waiting_bytes"].as_u64().unwrap() >= 8 << 20 && wet["reclaimable_at"].is_u64());
}
