//! A volume without room: work fails with one clear line, loses nothing, and goes on when there
//! is room again.
//!
//! The volume is a small tmpfs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use support::{
    Run, Site, alone, depot, noise, on_data, temp_folder,
    tmpfs::Volume,
    tree::{self, Tree},
    write_source,
};

const MIB: u64 = 1 << 20;

#[track_caller]
fn says_it_is_full(line: &str) {
    let line = line.to_lowercase();
    let names_it =
        ["full", "no space", "free space", "out of space"].iter().any(|w| line.contains(w));
    assert!(names_it, "{line}");
}

/// A package `p` on a volume that has 8 MiB left, whose source has grown by 24 MiB since.
struct Filled {
    // Before the folder that it is mounted in: fields are dropped in this order.
    volume: Volume,
    _folder: tempfile::TempDir,
    data: PathBuf,
    out: PathBuf,
    reserve: &'static str,
    ballast: PathBuf,
    /// The source as version 2 has it, and as it is now.
    two: Tree,
    three: Tree,
}

impl Filled {
    fn new(reserve: &'static str) -> Option<Self> {
        let folder = temp_folder();
        let volume = Volume::mount(&folder.path().join("volume"), 96 * MIB)?;
        let data = volume.path.join("data");
        Site::start_with(&data, &["--set", &format!("library.reserve={reserve}")]).stop();
        let source = folder.path().join("source");
        let mut filled = Self {
            data,
            out: folder.path().join("out"),
            reserve,
            ballast: PathBuf::new(),
            two: write_source(&source, 1, 4, MIB as usize),
            three: Tree::new(),
            _folder: folder,
            volume,
        };
        filled.depot(&["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
        filled.depot(&["package", "update", "p"]).ok();
        filled.ballast = filled.volume.fill(8 * MIB);
        filled.three = write_source(&source, 100, 4, 6 * MIB as usize);
        says_it_is_full(&filled.depot(&["package", "update", "p"]).fails(1));
        Some(filled)
    }

    fn depot(&self, args: &[&str]) -> Run {
        let mut command = depot();
        command.env("DEPOT_LIBRARY_RESERVE", self.reserve).env("DEPOT_LIBRARY_PACK_SIZE", "4MiB");
        Run::of(command.arg("--data").arg(&self.data).args(args))
    }

    #[track_caller]
    fn restores(&self, selected: &str, want: &Tree) {
        self.depot(&["package", "restore", selected, self.out.to_str().unwrap()]).ok();
        tree::assert_same(&tree::read(&self.out), want);
        fs::remove_dir_all(&self.out).unwrap();
    }

    /// What was acknowledged is there and nothing else, and the update goes through.
    fn goes_on_when_there_is_room(&self) {
        fs::remove_file(&self.ballast).unwrap();
        self.restores("p@2", &self.two);
        let versions = self.depot(&["package", "versions", "p", "--json"]).ok().json();
        assert_eq!(versions.as_array().unwrap().last().unwrap()["version"], 2);
        self.depot(&["package", "update", "p"]).ok();
        self.restores("p@3", &self.three);
        self.restores("p@2", &self.two);
        self.depot(&["library", "verify"]).ok();
    }
}

#[test]
fn a_full_volume_stops_updates_and_nothing_else() {
    let Some(filled) = Filled::new("4MiB") else { return };
    // The reserve is for this: reading, checking, deleting, collecting garbage.
    let versions = filled.depot(&["package", "versions", "p", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    filled.restores("p@2", &filled.two);
    filled.depot(&["library", "verify"]).ok();
    filled.depot(&["library", "gc"]).ok();
    filled.depot(&["package", "delete", "p@1", "--yes"]).ok();
    says_it_is_full(&filled.depot(&["package", "update", "p"]).fails(1));
    filled.goes_on_when_there_is_room();
}

#[test]
fn a_volume_filled_to_the_last_byte_loses_nothing() {
    let Some(filled) = Filled::new("0") else { return };
    // Without a reserve the databases may have no room to open; they say so.
    let run = filled.depot(&["package", "list"]);
    if run.code != Some(0) {
        says_it_is_full(&run.fails(1));
    }
    filled.goes_on_when_there_is_room();
}

#[test]
fn a_server_on_a_full_volume_refuses_and_serves() {
    let folder = temp_folder();
    let Some(volume) = Volume::mount(&folder.path().join("volume"), 96 * MIB) else { return };
    let site = Site::start_with(
        &volume.path.join("data"),
        &["--set", "library.reserve=4MiB", "--set", "library.pack_size=4MiB"],
    );
    let token = fs::read_to_string(site.token_file()).unwrap();
    let source = folder.path().join("source");
    write_source(&source, 1, 4, MIB as usize);
    let source_text = source.to_str().unwrap();
    site.depot(["package", "create", "p", "--source", source_text]).ok();
    site.depot(["package", "create", "sent"]).ok();
    site.depot(["package", "update", "p"]).ok();
    let before = site.get("/packages/p/latest/file-2");
    assert_eq!(before.body, noise(3, MIB as usize));

    let ballast = volume.fill(8 * MIB);
    write_source(&source, 100, 4, 6 * MIB as usize);
    says_it_is_full(&site.depot(["package", "update", "p"]).fails(1));
    says_it_is_full(&site.depot(["package", "push", "sent", source_text]).fails(1));
    // As the help of `depot package push` has it.
    let upload =
        "tar c -C \"$1\" . | curl -sS -w '\\n%{http_code} %{content_type}' -T - -H \"$2\" \"$3\"";
    let address = format!("{}/api/v1/packages/sent/tar", site.url);
    let header = format!("Authorization: Bearer {}", token.trim());
    let refused = Run::of(alone(Command::new("sh")).args([
        "-c",
        upload,
        "sh",
        source_text,
        &header,
        &address,
    ]));
    let (problem, status) = refused.stdout.rsplit_once('\n').unwrap();
    assert_eq!(status, "507 application/problem+json", "{refused:?}");
    let problem: serde_json::Value = serde_json::from_str(problem).unwrap();
    says_it_is_full(problem["detail"].as_str().unwrap());

    assert_eq!(site.get("/readyz").status, 200);
    assert_eq!(site.get("/packages/p/latest/file-2").body, before.body);
    for name in ["p", "sent"] {
        let versions = site.depot(["package", "versions", name, "--json"]).ok().json();
        assert_eq!(versions.as_array().unwrap().len(), if name == "p" { 2 } else { 1 });
    }

    fs::remove_file(ballast).unwrap();
    site.depot(["package", "update", "p"]).ok();
    site.depot(["package", "push", "sent", source_text]).ok();
    assert_eq!(site.get("/packages/sent/latest/file-3").body, noise(103, 6 * MIB as usize));
    site.depot(["library", "verify"]).ok();
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn a_disk_filled_by_others_is_named_in_every_refusal_and_costs_nothing() {
    let folder = temp_folder();
    let Some(volume) = Volume::mount(&folder.path().join("data"), 96 * MIB) else { return };
    // The disk's root, so that the server's log lies elsewhere.
    let data = volume.path.clone();
    let start = || Site::start_at("127.0.0.1:0", &data, &["--set", "library.reserve=4MiB"]);
    let site = start().unwrap();
    let source = folder.path().join("source");
    let want = write_source(&source, 1, 4, MIB as usize);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    let token = fs::read_to_string(site.token_file()).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let create = |name: &str, key: &str| {
        let json = ("Content-Type", "application/json");
        let mut headers = vec![("Authorization", bearer.as_str()), json];
        if !key.is_empty() {
            headers.push(("Idempotency-Key", key));
        }
        let body = format!("{{\"name\":{name:?}}}");
        site.request("POST", "/api/v1/packages", &headers, body.as_bytes())
    };

    let ballast = volume.fill(0);
    let (mut made, mut open) = (vec!["p".to_owned()], vec![]);
    let mut unrecorded = 0;
    // Files that were begun have some bytes left in their last page.
    for n in 0..500 {
        if unrecorded == 6 {
            break;
        }
        let name = format!("n{n:03}");
        let answer = create(&name, if n % 2 == 0 { &name } else { "" });
        if answer.status == 201 {
            made.push(name);
            continue;
        }
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 507, "{problem}");
        assert_eq!(problem["type"], "urn:depot:problem:storage-full");
        let detail = problem["detail"].as_str().unwrap();
        says_it_is_full(detail);
        if detail.contains("not recorded") {
            assert!(detail.contains("the disk is full, so the site database"), "{detail}");
            assert!(detail.contains("free space on the volume of the data folder"), "{detail}");
            unrecorded += 1;
        }
        if detail.contains("it was answered 201") {
            made.push(name);
            continue;
        }
        assert!(!detail.contains("not recorded") || detail.contains("nothing was changed"));
        if detail.contains("a restart may still make it") {
            open.push(name);
        }
    }
    assert_eq!(unrecorded, 6, "the disk never got full");
    assert_eq!(site.get("/packages/p/latest/file-2").status, 200);
    site.stop();

    // What the end of the server gave back.
    let more = data.join("more");
    fs::write(&more, noise(98, volume.free() as usize)).unwrap();
    let line = start().err().expect("no byte is free");
    names_the_full_disk(line.lines().last().unwrap());
    for args in [&["package", "list"][..], &["token", "list"], &["package", "create", "late"]] {
        names_the_full_disk(&on_data(&data, args).fails(1));
    }

    fs::remove_file(ballast).unwrap();
    fs::remove_file(more).unwrap();
    let site = start().unwrap();
    let listed = site.depot(["package", "list", "--json"]).ok().json();
    let mut listed: Vec<_> =
        listed.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    listed.retain(|name| !open.iter().any(|open| open == name));
    listed.sort_unstable();
    made.sort_unstable();
    assert_eq!(listed, made);
    site.depot(["package", "create", "late"]).ok();
    site.depot(["library", "verify"]).ok();
    assert_eq!(site.stop(), Some(0));
    let out = folder.path().join("out");
    on_data(&data, ["package", "restore", "p", out.to_str().unwrap()]).ok();
    tree::assert_same(&tree::read(&out), &want);
}

#[track_caller]
fn names_the_full_disk(line: &str) {
    assert!(line.contains("the disk is full"), "{line}");
    assert!(line.contains("nothing that was stored is lost"), "{line}");
    assert!(!line.contains("rebuild-index") && !line.contains("IO error"), "{line}");
}

#[test]
fn a_destination_that_fills_up_holds_whole_files_only_and_is_gone_on_with() {
    let folder = temp_folder();
    let site = Site::start(&folder.path().join("data"));
    let source = folder.path().join("source");
    let want = write_source(&source, 7, 10, MIB as usize);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    let (data, url) = (site.data.clone(), format!("{}/packages/p/latest", site.url));

    let Some(volume) = Volume::mount(&folder.path().join("small"), 5 * MIB) else { return };
    let out = volume.path.join("fetched");
    let fetch = || Run::of(depot().args(["fetch", &url, "-o"]).arg(&out));
    let line = fetch().fails(1);
    says_it_is_full(&line);
    holds_whole_files_only(&out, &want);
    grow(&volume);
    fetch().ok();
    let mut found = tree::read(&out);
    // Where a fetch keeps its own notes.
    found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
    tree::assert_same(&found, &want);
    drop(volume);
    site.stop();

    let Some(volume) = Volume::mount(&folder.path().join("small-too"), 5 * MIB) else { return };
    let out = volume.path.join("restored");
    let restore = || {
        let mut command = depot();
        command.stdout(Stdio::piped()).arg("--data").arg(&data);
        Run::of(command.args(["package", "restore", "p"]).arg(&out))
    };
    says_it_is_full(&restore().fails(1));
    holds_whole_files_only(&out, &want);
    grow(&volume);
    restore().ok();
    tree::assert_same(&tree::read(&out), &want);
}

fn grow(volume: &Volume) {
    let remount = ["-o", "remount,size=32m"];
    assert!(Command::new("mount").args(remount).arg(&volume.path).status().unwrap().success());
}

/// Under the names of the version; what is under way has other names.
#[track_caller]
fn holds_whole_files_only(out: &Path, want: &Tree) {
    let found = tree::read(out);
    for (name, node) in want {
        if let Some(tree::Node::File { bytes, .. }) = found.get(name) {
            let tree::Node::File { bytes: whole, .. } = node else { unreachable!() };
            assert!(bytes == whole, "{} is not whole", String::from_utf8_lossy(name));
        }
    }
}
