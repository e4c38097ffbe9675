//! Damage on the disk: bits that flip, packs that are cut short or gone, an index that is gone.
//!
//! What is hit is named and never served; nobody ever gets a wrong byte; another server, the source
//! folder or the packs themselves bring all of it back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use support::{
    Run, Site, curl, depot, noise, on_data, temp_folder,
    tree::{self, Node, Tree},
};

const SMALL_PACKS: [&str; 4] = ["--set", "library.pack_size=1MiB", "--set", "library.scrub_days=0"];

/// A source of files of all sizes, some that compress, in several packs.
fn write_source(folder: &Path) -> Tree {
    let large = noise(1, 2_500_000);
    let text = "a line that comes again and again\n".repeat(20_000);
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("large".into(), large), ("text".into(), text.into()), ("empty".into(), Vec::new())];
    for n in 0..40_u64 {
        files.push((format!("small/{n}"), noise(100 + n, 500 + 700 * n as usize)));
    }
    files.push(("medium".into(), noise(2, 300_000)));
    let files: Vec<(&[u8], &[u8])> = files.iter().map(|(n, b)| (n.as_bytes(), &b[..])).collect();
    tree::write(folder, &files);
    tree::read(folder)
}

/// A folder with package `p`, its source, and the tree that it must give.
struct Held {
    folder: tempfile::TempDir,
    data: PathBuf,
    source: PathBuf,
    want: Tree,
}

impl Held {
    fn new() -> Self {
        let folder = temp_folder();
        let (data, source) = (folder.path().join("data"), folder.path().join("source"));
        let want = write_source(&source);
        let site = Site::start_with(&data, &SMALL_PACKS);
        site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
        site.depot(["package", "update", "p"]).ok();
        assert_eq!(site.stop(), Some(0));
        let held = Self { folder, data, source, want };
        assert!(held.packs().len() >= 3, "{:?}", held.packs());
        held
    }

    fn depot(&self, args: &[&str]) -> Run {
        on_data(&self.data, args)
    }

    fn packs(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.data.join("library/packs")).unwrap();
        let packs = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let mut packs: Vec<PathBuf> = packs.map(|pack| pack.unwrap().path()).collect();
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.metadata().unwrap().len()));
        packs
    }

    /// Whatever a restore of damaged content does, no file of it is wrong.
    fn restores_nothing_wrong(&self, name: &str) {
        let out = self.folder.path().join(name);
        let run = self.depot(&["package", "restore", "p", out.to_str().unwrap()]);
        assert!(run.code == Some(5) || run.code == Some(0), "{run:?}");
        if run.code == Some(5) && !out.exists() {
            // What is damaged is the version's manifest.
            return;
        }
        for (path, node) in tree::read(&out) {
            if let Node::File { bytes, .. } = node {
                let Some(Node::File { bytes: want, .. }) = self.want.get(&path) else { continue };
                assert!(bytes == *want, "{} is wrong", String::from_utf8_lossy(&path));
            }
        }
        assert_eq!(run.code == Some(0), tree::read(&out) == self.want);
    }

    /// Nothing is damaged any more.
    #[track_caller]
    fn is_whole_again(&self) {
        self.depot(&["library", "verify"]).ok();
        self.restores();
        let stats = self.depot(&["library", "stats", "--json"]).ok().json();
        assert_eq!(stats["suspects"], 0);
    }

    #[track_caller]
    fn restores(&self) {
        let out = self.folder.path().join("whole");
        self.depot(&["package", "restore", "p", out.to_str().unwrap()]).ok();
        tree::assert_same(&tree::read(&out), &self.want);
        fs::remove_dir_all(out).unwrap();
    }
}

/// Flips one bit in each 4 KiB of a file, as it lies there.
fn flip_bits(pack: &Path) {
    let file = fs::File::options().read(true).write(true).open(pack).unwrap();
    let len = file.metadata().unwrap().len();
    for at in (1000..len).step_by(4096) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

/// What is done to a pack.
#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBits,
    CutShort,
    Empty,
    Gone,
}

const DAMAGES: [Damage; 4] = [Damage::FlippedBits, Damage::CutShort, Damage::Empty, Damage::Gone];

impl Damage {
    fn to(self, pack: &Path) {
        let cut_to =
            |len| fs::File::options().write(true).open(pack).unwrap().set_len(len).unwrap();
        match self {
            Damage::FlippedBits => flip_bits(pack),
            Damage::CutShort => cut_to(pack.metadata().unwrap().len() / 2),
            Damage::Empty => cut_to(0),
            Damage::Gone => fs::remove_file(pack).unwrap(),
        }
    }
}

fn id_of(pack: &Path) -> &str {
    pack.file_stem().unwrap().to_str().unwrap()
}

/// Gets all files by curl: how many were right, refused, and cut off. A wrong byte fails.
fn get_all(site: &Site, want: &Tree, out: &Path) -> (usize, usize, usize) {
    let (mut right, mut refused, mut cut) = (0, 0, 0);
    for (path, node) in want {
        let Node::File { bytes, .. } = node else { continue };
        let path = std::str::from_utf8(path).unwrap();
        let _ = fs::remove_file(out);
        let run = Run::of(
            curl()
                .args(["-D", "-", "-o"])
                .arg(out)
                .arg(format!("{}/packages/p/latest/{path}", site.url)),
        );
        let status: u16 = run.stdout.split(' ').nth(1).unwrap().parse().unwrap();
        let got = fs::read(out).unwrap_or_default();
        match status {
            200 => {
                assert!(bytes.starts_with(&got), "{path}: a wrong byte was served");
                match run.code == Some(0) {
                    true => right += usize::from(got.len() == bytes.len()),
                    false => cut += 1,
                }
                assert!(run.code != Some(0) || got.len() == bytes.len(), "{path} ends early");
            }
            503 => {
                refused += 1;
                assert!(run.stdout.to_lowercase().contains("retry-after: "), "{}", run.stdout);
                assert!(run.stdout.contains("application/problem+json"), "{}", run.stdout);
            }
            other => panic!("{path}: {other}: {}", run.stdout),
        }
    }
    (right, refused, cut)
}

#[test]
fn a_running_server_never_serves_a_wrong_byte_and_heals_from_another() {
    // Bits flip under a server that has served all of it, and under one that has just started.
    for was_read in [true, false] {
        let held = Held::new();
        let out = held.folder.path().join("got");
        let n_files = held.want.values().filter(|n| matches!(n, Node::File { .. })).count();
        // Another site with the same content, cut into packs of its own.
        let other = Site::start(&held.folder.path().join("other"));
        other.depot(["package", "push", "same", held.source.to_str().unwrap()]).ok();

        let site = Site::start_with(&held.data, &SMALL_PACKS);
        if was_read {
            assert_eq!(get_all(&site, &held.want, &out), (n_files, 0, 0));
        }
        for pack in held.packs().iter().take(3) {
            flip_bits(pack);
        }
        let first = get_all(&site, &held.want, &out);
        let found = site.depot(["library", "verify"]);
        assert_eq!(found.code, Some(5), "{found:?}");
        for pack in held.packs().iter().take(3) {
            assert!(found.stdout.contains(id_of(pack)), "{}: {}", pack.display(), found.stdout);
        }
        assert!(found.stdout.contains("held by p@"), "{}", found.stdout);
        let then = get_all(&site, &held.want, &out);
        println!("right, refused, cut: {first:?}, after verify {then:?}");
        assert!(then.1 >= 3, "what is damaged is refused: {then:?}");
        let suspects = site.depot(["library", "stats", "--json"]).ok().json();
        assert!(suspects["suspects"].as_u64().unwrap() > 0);

        site.depot(["library", "repair", "--from", &other.url]).ok();
        assert_eq!(get_all(&site, &held.want, &out), (n_files, 0, 0));
        assert_eq!(site.stop(), Some(0));
        // The damaged packs may stay until garbage collection; nothing is in them any more.
        held.depot(&["library", "gc"]).ok();
        held.is_whole_again();
    }
}

#[test]
fn a_pack_that_is_cut_or_gone_under_a_running_server_is_no_wrong_byte() {
    for damage in [Damage::CutShort, Damage::Gone] {
        let held = Held::new();
        let out = held.folder.path().join("got");
        let site = Site::start_with(&held.data, &SMALL_PACKS);
        for was_read in [false, true] {
            // The second time it has been read, and so is open and mapped.
            if was_read {
                get_all(&site, &held.want, &out);
            }
            damage.to(&held.packs()[usize::from(was_read)]);
            let counts = get_all(&site, &held.want, &out);
            println!("{damage:?}, read before: {was_read}: right, refused, cut: {counts:?}");
        }
        assert_eq!(site.get("/readyz").status, 200, "{damage:?}");
        assert_eq!(site.depot(["library", "verify"]).code, Some(5));
        assert_eq!(site.stop(), Some(0), "{damage:?}");
    }
}

#[test]
fn what_was_damaged_while_nobody_looked_is_named_and_healed_by_another_server() {
    for damage in DAMAGES {
        let held = Held::new();
        let other = Site::start(&held.folder.path().join("other"));
        other.depot(["package", "push", "same", held.source.to_str().unwrap()]).ok();
        let packs = held.packs();
        packs[..2].iter().for_each(|pack| damage.to(pack));
        held.restores_nothing_wrong("before-verify");
        let found = held.depot(&["library", "verify"]);
        assert_eq!(found.code, Some(5), "{damage:?}: {found:?}");
        for pack in &packs[..2] {
            assert!(found.stdout.contains(id_of(pack)), "{damage:?}: {}", found.stdout);
        }
        let json = held.depot(&["library", "verify", "--json"]);
        assert_eq!(json.code, Some(5), "{damage:?}");
        let json = json.json();
        assert!(!json["bad_contents"].as_array().unwrap().is_empty(), "{damage:?}");
        let packs = json["bad_packs"].as_array().unwrap();
        assert!(!packs.is_empty(), "{damage:?}");
        for bad in packs {
            assert!(bad["pack"].is_string() && bad["error"].is_string(), "{damage:?}: {bad}");
        }
        held.restores_nothing_wrong("after-verify");
        held.depot(&["library", "repair", "--from", &other.url]).ok();
        held.depot(&["library", "gc"]).ok();
        held.is_whole_again();
    }
}

#[test]
fn a_source_that_still_has_the_files_heals_what_was_damaged() {
    for damage in DAMAGES {
        let held = Held::new();
        held.packs()[..2].iter().for_each(|pack| damage.to(pack));
        assert_eq!(held.depot(&["library", "verify"]).code, Some(5), "{damage:?}");
        let healed = held.depot(&["package", "update", "p", "--read-all"]);
        assert_eq!(healed.code, Some(0), "{damage:?}: {healed:?}");
        let versions = held.depot(&["package", "versions", "p", "--json"]).ok().json();
        assert_eq!(versions.as_array().unwrap().len(), 2, "{damage:?}: healing is no new version");
        // Version 1 is empty, so that it comes back too.
        if let Damage::FlippedBits = damage {
            // The damaged bytes are still there, and nothing uses them.
            let line = held.depot(&["library", "verify"]).fails(5);
            assert!(line.contains("`depot library gc` removes what is left"), "{line}");
        }
        held.depot(&["library", "gc"]).ok();
        held.is_whole_again();
    }
}

/// All that a site says of its packages.
fn all_said(data: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let list = on_data(data, ["package", "list", "--json"]).ok();
    for package in list.json().as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for args in [["package", "versions", name], ["package", "show", name]] {
            said.push(on_data(data, args.iter().chain(&["--json"])).ok().stdout);
        }
        let args = ["package", "tree", name, "--recursive", "--json"];
        said.push(on_data(data, args).ok().stdout);
        said.push(on_data(data, ["package", "channel", "list", name, "--json"]).ok().stdout);
    }
    said.push(list.stdout);
    said
}

#[test]
fn an_index_that_is_gone_is_made_again_from_the_packs() {
    let held = Held::new();
    // A history: versions, a deleted one, channels, a pushed package, revoked content.
    fs::write(held.source.join("more"), noise(50, 700_000)).unwrap();
    held.depot(&["package", "update", "p"]).ok();
    fs::remove_file(held.source.join("medium")).unwrap();
    held.depot(&["package", "update", "p"]).ok();
    held.depot(&["package", "delete", "p@3", "--yes"]).ok();
    held.depot(&["package", "channel", "set", "p", "stable", "2"]).ok();
    held.depot(&["package", "push", "sent", held.source.to_str().unwrap()]).ok();
    held.depot(&["package", "create", "gone"]).ok();
    held.depot(&["package", "delete", "gone", "--yes"]).ok();
    let before = all_said(&held.data);
    let newest = tree::read(&held.source);

    let index = held.data.join("library/index");
    fs::remove_dir_all(&index).unwrap();
    let line = held.depot(&["package", "list"]).fails(1);
    assert!(line.contains("rebuild-index"), "{line}");
    let serve =
        Run::of(depot().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&held.data));
    let log = serve.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
    assert_eq!(serve.code, Some(1), "{serve:?}");
    assert!(log.contains("rebuild-index"), "{log}");
    assert!(
        !index.exists() || fs::read_dir(&index).unwrap().next().is_none(),
        "nothing was made up"
    );

    let said = held.depot(&["library", "rebuild-index"]).ok().stdout;
    assert!(!said.contains("without an end"), "{said}");
    assert_eq!(all_said(&held.data), before);
    held.depot(&["library", "verify"]).ok();
    for (selected, want) in [("p@stable", &held.want), ("p@4", &newest), ("sent", &newest)] {
        let out = held.folder.path().join(selected);
        held.depot(&["package", "restore", selected, out.to_str().unwrap()]).ok();
        tree::assert_same(&tree::read(&out), want);
    }
    assert!(held.depot(&["package", "update", "p"]).ok().stdout.contains("unchanged"));

    // Once more, of an index that is there and good; and of one that is garbage.
    held.depot(&["library", "rebuild-index"]).ok();
    assert_eq!(all_said(&held.data), before);
    for file in fs::read_dir(&index).unwrap() {
        fs::write(file.unwrap().path(), noise(3, 5000)).unwrap();
    }
    let line = held.depot(&["package", "list"]).fails(1);
    assert!(line.contains("rebuild-index"), "{line}");
    held.depot(&["library", "rebuild-index"]).ok();
    assert_eq!(all_said(&held.data), before);

    // A serving site uses its index.
    let site = Site::start(&held.data);
    let line = site.depot(["library", "rebuild-index"]).fails(4);
    assert!(line.contains("--data"), "{line}");
}

#[test]
fn an_index_made_again_over_damaged_packs_says_so_and_loses_only_what_was_hit() {
    let held = Held::new();
    let packs = held.packs();
    Damage::CutShort.to(&packs[0]);
    fs::remove_dir_all(held.data.join("library/index")).unwrap();
    let rebuilt = held.depot(&["library", "rebuild-index"]);
    let said = rebuilt.ok().stdout;
    assert!(said.contains("1 pack without an end") && said.contains("library verify"), "{said}");
    let versions = held.depot(&["package", "versions", "p", "--json"]).ok().json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    held.restores_nothing_wrong("out");
    held.depot(&["package", "update", "p", "--read-all"]).ok();
    held.depot(&["library", "gc"]).ok();
    held.is_whole_again();
}
