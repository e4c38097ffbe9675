//! A library on several disks: one is full and another is added, one is emptied while clients
//! read, the server dies in the middle of that, a disk is not there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{
    Run, Site, depot, noise, on_data, temp_folder,
    tmpfs::Volume,
    tree::{self, Tree},
    until, while_repeating, write_source,
};

const MIB: usize = 1 << 20;
/// Files of the package, in its last version.
const FILES: u64 = 6;
const FILE: usize = 6 * MIB;

/// All that a test needs; unmounted and gone after it.
struct Disks {
    // Before the folder that they are mounted in: fields are dropped in this order.
    second: Volume,
    first: Volume,
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Disks {
    /// A home of 96 MiB, and a disk of 128 MiB.
    fn new() -> Option<Self> {
        let folder = temp_folder();
        let first = Volume::mount(&folder.path().join("first"), 96 * MIB as u64)?;
        let second = Volume::mount(&folder.path().join("second"), 128 * MIB as u64)?;
        let data = first.path.join("data");
        Some(Self { second, first, folder, data })
    }

    fn serve(&self) -> Site {
        // Small packs, so that there are many to move.
        let settings = ["library.reserve=4MiB", "library.pack_size=1MiB", "log.access=false"];
        let args: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
        Site::start_with(&self.data, &args)
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn packs_on_second(&self) -> usize {
        packs(&self.second.path)
    }

    /// All of the package comes back exactly.
    fn restores(&self, site: &Site, want: &Tree) {
        let out = self.folder.path().join("out");
        let _ = fs::remove_dir_all(&out);
        site.depot(
            ["fetch", &format!("{}/packages/p/latest", site.url), "-o"]
                .map(Path::new)
                .into_iter()
                .chain([out.as_path()]),
        )
        .ok();
        let mut found = tree::read(&out);
        found.retain(|path, _| path != b".depot" && !path.starts_with(b".depot/"));
        tree::assert_same(&found, want);
    }
}

/// Pack files below a volume's folder.
fn packs(volume: &Path) -> usize {
    let Ok(folders) = fs::read_dir(volume.join("packs")) else { return 0 };
    let files = folders.flatten().filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten();
    files.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "pack")).count()
}

/// Runs `work` while a client reads one file after the other, each of which must be right.
fn while_read(site: &Site, work: impl FnOnce()) {
    let mut files = (0..FILES).cycle();
    let read = || {
        let n = files.next().unwrap();
        let answer = site.get(&format!("/packages/p/latest/file-{n}"));
        assert!(answer.status == 200 && answer.body == noise(100 + n, FILE), "file-{n}");
    };
    while_repeating(read, work);
}

#[test]
fn a_library_outgrows_a_disk_leaves_it_and_survives_a_kill_on_the_way() {
    let Some(disks) = Disks::new() else { return };
    let site = disks.serve();
    let source = disks.source();
    write_source(&source, 1, 2, MIB);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();

    // The first disk is full; with a second one the update goes on, on a site that serves.
    let ballast = disks.first.fill(12 * MIB as u64);
    let want = write_source(&source, 100, FILES, FILE);
    let full = site.depot(["package", "update", "p"]).fails(1);
    assert!(full.contains("the volume is full") && full.contains("add a volume"), "{full}");
    let second = disks.second.path.to_str().unwrap();
    let added = site.depot(["library", "volume", "add", second, "--reserve", "8MiB"]).ok();
    assert!(added.stdout.contains("volume second added"), "{added:?}");
    site.depot(["package", "update", "p"]).ok();
    assert!(disks.packs_on_second() > 4, "{}", disks.packs_on_second());
    disks.restores(&site, &want);

    // The first is emptied while a client reads.
    while_read(&site, || {
        let drained = site.depot(["library", "volume", "drain", "home"]).ok();
        assert!(drained.stdout.contains("off volume home"), "{drained:?}");
    });
    assert_eq!(packs(&disks.data.join("library")), 0);
    let listed = site.depot(["library", "volume", "list"]).ok().stdout;
    let home = listed.lines().find(|line| line.starts_with("home")).unwrap();
    assert!(home.contains("draining"), "{listed}");

    // Back again, and the server dies on the way: there is room for half of it, so that it cannot
    // be through before.
    fs::remove_file(ballast).unwrap();
    let ballast = disks.first.fill(24 * MIB as u64);
    site.depot(["library", "volume", "resume", "home"]).ok();
    let all = disks.packs_on_second();
    site.depot(["library", "volume", "drain", "second", "--detach"]).ok();
    until("a pack is moved", || disks.packs_on_second() < all);
    site.kill();
    assert!(disks.packs_on_second() > 0);
    fs::remove_file(ballast).unwrap();

    let site = disks.serve();
    disks.restores(&site, &want);
    let refused = site.depot(["library", "volume", "remove", "second"]).fails(4);
    assert!(refused.contains("drain it first"), "{refused}");
    while_read(&site, || drop(site.depot(["library", "volume", "drain", "second"]).ok()));
    assert_eq!(disks.packs_on_second(), 0);
    site.depot(["library", "volume", "remove", "second"]).ok();
    assert_eq!(fs::read_dir(&disks.second.path).unwrap().count(), 0);
    disks.restores(&site, &want);
    site.depot(["library", "verify"]).ok();
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn a_disk_that_is_not_there_is_named_and_can_be_given_up() {
    let Some(mut disks) = Disks::new() else { return };
    let site = disks.serve();
    let source = disks.source();
    let want = write_source(&source, 1, 2, MIB);
    site.depot(["package", "create", "p", "--source", source.to_str().unwrap()]).ok();
    site.depot(["package", "update", "p"]).ok();
    let second = disks.second.path.clone();
    let volume = second.join("depot");
    let volume = volume.to_str().unwrap();
    let add = ["library", "volume", "add", volume, "--name", "two"];
    let line = site.depot(add).fails(2);
    assert_eq!(line, format!("depot: \"{volume}\" is no folder: make it, or mount its disk"));
    fs::create_dir(volume).unwrap();
    site.depot(add).ok();
    site.depot(["library", "volume", "drain", "home"]).ok();
    // Refused while somebody serves, and while the disk is there.
    let remove = ["library", "volume", "remove", "two", "--lost"];
    site.depot(remove).fails(1);
    assert_eq!(site.stop(), Some(0));
    assert!(on_data(&disks.data, remove).fails(4).contains("unmount"));

    // The mount point without its disk.
    fs::create_dir(disks.folder.path().join("elsewhere")).unwrap();
    disks.second = Volume::mount(&disks.folder.path().join("other"), MIB as u64).unwrap();
    for run in [
        Run::of(depot().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&disks.data)),
        on_data(&disks.data, ["package", "list"]),
        on_data(&disks.data, ["library", "rebuild-index"]),
    ] {
        let line = run.fails(1);
        let says = ["volume two", volume, "mount its disk", "library volume remove two --lost"];
        assert!(says.iter().all(|what| line.contains(what)), "{line}");
    }
    on_data(&disks.data, remove).ok();
    on_data(&disks.data, remove).fails(3);
    let found = on_data(&disks.data, ["library", "verify"]);
    assert!(found.stdout.contains("p@2"), "{found:?}");
    found.fails(5);

    // The source still has all of it.
    on_data(&disks.data, ["package", "update", "p", "--read-all"]).ok();
    let out = disks.folder.path().join("out");
    let args = ["package", "restore", "p"].map(Path::new).into_iter().chain([out.as_path()]);
    on_data(&disks.data, args).ok();
    tree::assert_same(&tree::read(&out), &want);
}
