//! Folders become versions: exactly, only when something changed, and never mixed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, is_unprivileged, noise, package, tree};
use contentlib::Progress;
use packager::fetch_state::{self, FetchRecord};
use packager::scan::snapshot;
use packager::walk::Why;
use packager::{PackageError, Rescan, ScanError, Selector, SiteKey, UpdateOptions};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything that a source may hold.
fn fill(top: &Path) {
    let name = |bytes: &'static [u8]| top.join(OsStr::from_bytes(bytes));
    fs::write(name(b".hidden"), "hidden").unwrap();
    fs::write(name(b"new\nline"), "odd").unwrap();
    fs::write(name(b"not utf-8 \xff\xfe"), "odd").unwrap();
    fs::write(top.join("n".repeat(255)), "long name").unwrap();
    fs::write(name(b"empty"), "").unwrap();
    fs::write(name(b"large"), noise(1, 3_000_000)).unwrap();
    fs::create_dir_all(top.join("nested/empty/folder")).unwrap();
    fs::create_dir_all(top.join("d/".repeat(500))).unwrap();
    fs::write(top.join("d/".repeat(500)).join("deep"), "deep").unwrap();
    fs::write(name(b"program"), "#!/bin/sh\n").unwrap();
    set_mode(&name(b"program"), 0o6755);
    fs::hard_link(name(b"program"), name(b"the same program")).unwrap();
    fs::write(name(b"secret"), "only mine").unwrap();
    set_mode(&name(b"secret"), 0o400);
    symlink("loop", name(b"loop")).unwrap();
    symlink("..", name(b"nested/up")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere\xff\n"), name(b"broken")).unwrap();
    let sparse = fs::File::create(name(b"sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    fs::create_dir(name(b"read-only")).unwrap();
    fs::write(name(b"read-only/file"), "x").unwrap();
    set_mode(&name(b"read-only"), 0o1555);
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::options().write(true).open(name(b"empty")).unwrap().set_times(old).unwrap();
}

#[test]
fn a_restored_version_is_the_source_to_the_last_bit() {
    let site = Site::with_package();
    fill(&site.source());
    let report = site.update().unwrap();
    assert_eq!((report.version, report.unchanged), (2, false));
    assert_eq!(tree(&site.restore("out")), tree(&site.source()));
    // Again, over itself: nothing is written, nothing is lost.
    assert_eq!(tree(&site.restore("out")), tree(&site.source()));
}

#[test]
fn an_unchanged_source_makes_no_version_and_is_not_read() {
    let site = Site::with_package();
    fill(&site.source());
    let first = site.update().unwrap();
    let again = site.update().unwrap();
    assert_eq!((again.version, again.unchanged, again.files_read), (2, true, 0));
    assert_eq!((again.files, again.bytes), (first.files, first.bytes));
    let all = UpdateOptions { rescan: Rescan::Everything, source: None };
    let all = site.packages.update(&package("p"), &all, &Progress::default()).unwrap();
    assert_eq!((all.version, all.unchanged, all.files_read), (2, true, first.files));
}

#[test]
fn touching_a_file_makes_no_version() {
    let site = Site::with_package();
    fs::write(site.source().join("a"), "a").unwrap();
    site.update().unwrap();
    let file = fs::File::options().write(true).open(site.source().join("a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let report = site.update().unwrap();
    assert_eq!((report.unchanged, report.files_read), (true, 1));
    assert_eq!(site.update().unwrap().files_read, 0);
}

#[test]
fn every_other_change_makes_one() {
    let site = Site::with_package();
    let source = site.source();
    let file = source.join("file");
    let changes: [(&str, &dyn Fn()); 8] = [
        ("a new file", &|| fs::write(&file, "one").unwrap()),
        ("other bytes", &|| fs::write(&file, "two").unwrap()),
        ("another mode", &|| set_mode(&file, 0o600)),
        ("an empty folder", &|| fs::create_dir(source.join("folder")).unwrap()),
        ("a link", &|| symlink("file", source.join("link")).unwrap()),
        ("another target", &|| {
            fs::remove_file(source.join("link")).unwrap();
            symlink("folder", source.join("link")).unwrap();
        }),
        ("another name", &|| fs::rename(&file, source.join("other")).unwrap()),
        ("nothing there", &|| {
            fs::remove_dir_all(&source).unwrap();
            fs::create_dir(&source).unwrap();
        }),
    ];
    for (version, (what, change)) in (2..).zip(changes) {
        change();
        let report = site.update().unwrap();
        assert_eq!((report.version, report.unchanged), (version, false), "{what}");
        assert_eq!(tree(&site.restore(&format!("out-{version}"))), tree(&source), "{what}");
    }
}

#[test]
fn only_what_changed_is_read() {
    let site = Site::with_package();
    for n in 0..50 {
        fs::write(site.source().join(format!("{n}")), noise(n, 1000)).unwrap();
    }
    site.update().unwrap();
    fs::write(site.source().join("7"), "changed").unwrap();
    let report = site.update().unwrap();
    assert_eq!((report.version, report.files_read, report.new_bytes), (3, 1, 7));
}

#[test]
fn a_file_written_just_before_it_was_read_is_read_again() {
    let site = Site::with_package();
    site.set_ahead(0);
    fs::write(site.source().join("a"), "a").unwrap();
    site.update().unwrap();
    assert_eq!(site.update().unwrap().files_read, 1);
    site.set_ahead(3);
    assert_eq!(site.update().unwrap().files_read, 1, "read once more when it is old enough");
    assert_eq!(site.update().unwrap().files_read, 0);
}

#[test]
fn a_file_written_with_its_times_put_back_is_found_all_the_same() {
    let site = Site::with_package();
    let path = site.source().join("a");
    fs::write(&path, "one").unwrap();
    site.update().unwrap();
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    // The time of the inode's change tells even that.
    assert_eq!(site.update().unwrap().version, 3);
}

#[test]
fn a_new_source_folder_is_kept_for_the_next_update() {
    let site = Site::with_package();
    fs::write(site.source().join("a"), "a").unwrap();
    site.update().unwrap();
    fs::create_dir(site.path("elsewhere")).unwrap();
    fs::write(site.path("elsewhere/a"), "a").unwrap();
    let there = UpdateOptions { source: Some(site.path("elsewhere")), ..Default::default() };
    let report = site.packages.update(&package("p"), &there, &Progress::default()).unwrap();
    assert!(report.unchanged, "the same files in another folder");
    fs::write(site.path("elsewhere/b"), "b").unwrap();
    assert_eq!(site.update().unwrap().version, 3);
}

#[test]
fn packs_on_another_disk_never_become_part_of_a_package() {
    let site = Site::with_package();
    let disk = site.path("disk/packs");
    fs::create_dir_all(disk.join("inner")).unwrap();
    let new = contentlib::NewVolume { path: site.path("disk/volume"), ..Default::default() };
    fs::create_dir(&new.path).unwrap();
    site.packages.library().add_volume(&new).unwrap();
    for folder in ["disk", "disk/volume"] {
        let made = site.create("other", Some(site.path(folder)));
        assert!(matches!(made, Err(PackageError::SourceHoldsSite { .. })), "{folder}");
    }
    site.create("other", Some(disk)).unwrap();
}

#[test]
fn the_sites_own_data_never_becomes_part_of_a_package() {
    let site = Site::with_package();
    fs::create_dir_all(site.path("data/keys")).unwrap();
    symlink("data/keys", site.path("link")).unwrap();
    for folder in ["data", "data/keys", "link"] {
        let made = site.create("other", Some(site.path(folder)));
        assert!(matches!(made, Err(PackageError::SourceHoldsSite { .. })), "{folder}");
        let there = UpdateOptions { source: Some(site.path(folder)), ..Default::default() };
        let moved = site.packages.update(&package("p"), &there, &Progress::default());
        assert!(matches!(moved, Err(PackageError::SourceHoldsSite { .. })), "{folder}");
    }
}

#[test]
fn two_packages_never_share_a_folder() {
    let site = Site::with_package();
    fs::create_dir_all(site.path("source/inner")).unwrap();
    symlink("source", site.path("link")).unwrap();
    for folder in ["source", "source/inner", "link", "."] {
        let made = site.create("other", Some(site.path(folder)));
        let refused = matches!(
            made,
            Err(PackageError::SourceTaken { .. } | PackageError::SourceHoldsSite { .. })
        );
        assert!(refused, "{folder}");
    }
    fs::create_dir(site.path("source-2")).unwrap();
    site.create("other", Some(site.path("source-2"))).unwrap();
    let there = UpdateOptions { source: Some(site.path("source-2")), ..Default::default() };
    let moved = site.packages.update(&package("p"), &there, &Progress::default());
    assert!(matches!(moved, Err(PackageError::SourceTaken { .. })));
}

#[test]
fn a_source_that_is_gone_is_named() {
    let site = Site::with_package();
    fs::remove_dir_all(site.source()).unwrap();
    let error = site.update().unwrap_err();
    assert!(matches!(&error, PackageError::Scan(ScanError::Folder { .. })));
    assert!(error.to_string().contains("source"), "{error}");
    let none = site.create("other", Some(site.path("nowhere")));
    assert!(matches!(none, Err(PackageError::Source { .. })));
}

#[test]
fn special_files_fail_the_update_by_name() {
    let site = Site::with_package();
    fs::write(site.source().join("fine"), "fine").unwrap();
    let folder = fs::File::open(site.source()).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(&folder, "pipe", kind, mode, 0).unwrap();
    let error = site.update().unwrap_err().to_string();
    assert!(error.contains("pipe: it is a named pipe"), "{error}");
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
}

#[test]
fn while_files_move_a_version_is_whole_or_is_not_made() {
    let site = Site::with_package();
    // Two files that always change together: a mixture would have different numbers.
    let (a, b) = (site.source().join("a"), site.source().join("b"));
    let write = |n: u64| {
        fs::write(&a, [&n.to_le_bytes()[..], &noise(n, 100_000)].concat()).unwrap();
        fs::write(&b, [&n.to_le_bytes()[..], &noise(n, 100_000)].concat()).unwrap();
    };
    write(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 1;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                write(n);
                n += 1;
                if n % 10 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(30));
                }
            }
        });
        for round in 0..20 {
            match site.update() {
                Ok(_) => {
                    let out = tree(&site.restore(&format!("out-{round}")));
                    let [a, b] = ["a", "b"].map(|name| &out[name.as_bytes()].3);
                    // Each is as it was at one moment: whole, or cut by a write that had begun.
                    for bytes in [a, b] {
                        let Some((n, rest)) = bytes.split_first_chunk() else { continue };
                        let n = u64::from_le_bytes(*n);
                        assert_eq!(rest, &noise(n, 100_000)[..rest.len()]);
                    }
                    if let (Some((x, _)), Some((y, _))) =
                        (a.split_first_chunk::<8>(), b.split_first_chunk::<8>())
                    {
                        let (x, y) = (u64::from_le_bytes(*x), u64::from_le_bytes(*y));
                        assert!(x == y || x == y + 1, "{x} beside {y} was never there");
                    }
                }
                Err(PackageError::Scan(ScanError::Moving { paths })) => {
                    assert!(paths.iter().all(|path| path == "a" || path == "b"));
                }
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn one_update_of_a_package_at_a_time() {
    let site = Site::with_package();
    for n in 0..200 {
        fs::write(site.source().join(format!("{n}")), noise(n, 20_000)).unwrap();
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| site.update())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert!(done >= 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, PackageError::Busy(_)), "{error}");
    }
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 2);
}

#[test]
fn a_cancelled_update_makes_no_version() {
    let site = Site::with_package();
    fs::write(site.source().join("a"), noise(1, 2_000_000)).unwrap();
    let progress = Progress::default();
    progress.cancel();
    let ended = site.packages.update(&package("p"), &UpdateOptions::default(), &progress);
    assert!(matches!(ended, Err(PackageError::Scan(ScanError::Cancelled(_)))), "{ended:?}");
    assert_eq!(site.update().unwrap().version, 2);
}

#[test]
fn old_versions_go_as_new_ones_come_but_never_those_of_a_channel() {
    let site = Site::with_package();
    let p = package("p");
    for n in 0..4 {
        fs::write(site.source().join("a"), format!("{n}")).unwrap();
        site.update().unwrap();
    }
    site.packages.set_channel(&p, &"stable".parse().unwrap(), &Selector::Number(2)).unwrap();
    let mut removed = Vec::new();
    for n in 4..8 {
        fs::write(site.source().join("a"), format!("{n}")).unwrap();
        removed.extend(site.update().unwrap().removed_versions);
    }
    assert_eq!(removed, [1, 3, 4]);
    let left: Vec<_> = site.packages.versions(&p).unwrap().iter().map(|v| v.version).collect();
    assert_eq!(left, [2, 5, 6, 7, 8, 9]);
}

#[test]
fn unreadable_files_and_folders_fail_the_update_by_name() {
    if !is_unprivileged("unreadable_files_and_folders_fail_the_update_by_name") {
        return;
    }
    let site = Site::with_package();
    let source = site.source();
    fs::write(source.join("fine"), "fine").unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    set_mode(&source.join("closed"), 0o000);
    let error = site.update().unwrap_err().to_string();
    assert!(error.contains("closed: Permission denied"), "{error}");
    set_mode(&source.join("closed"), 0o755);
    for n in 0..130 {
        let path = source.join(format!("{n:03}"));
        fs::write(&path, "x").unwrap();
        set_mode(&path, 0o200);
    }
    match site.update() {
        Err(PackageError::Scan(ScanError::Problems(problems))) => {
            assert_eq!((problems.total, problems.named.len()), (130, 100));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
}

/// Makes `.depot` as a fetch does, with `record`.
fn write_fetch_state(folder: &Path, record: &[u8]) {
    fs::create_dir_all(folder.join(".depot/partial")).unwrap();
    fs::write(folder.join(".depot/state"), record).unwrap();
    fs::write(folder.join(".depot/lock"), "").unwrap();
}

fn fetch_record() -> FetchRecord {
    let key = SiteKey::from_seed([1; 32]).public();
    let mut record = FetchRecord::default();
    (record.package, record.key) = (Some(package("q")), Some(key));
    record
}

#[test]
fn what_a_fetch_keeps_in_the_source_is_left_out() {
    let site = Site::with_package();
    fs::create_dir_all(site.source().join("a/.depot")).unwrap();
    fs::write(site.source().join("a/.depot/x"), "an entry like any other").unwrap();
    let first = site.update().unwrap();
    assert_eq!((first.version, first.files), (2, 1));
    write_fetch_state(&site.source(), &fetch_record().encode());
    assert!(fetch_state::lies_in(&site.source()));
    assert!(site.update().unwrap().unchanged);
    let manifest =
        snapshot(&site.source(), &site.packages.library().session(), &Progress::default());
    assert!(manifest.unwrap().lookup(b".depot").is_none());
}

#[test]
fn anything_else_with_the_name_of_what_a_fetch_keeps_is_refused() {
    let site = Site::with_package();
    let depot = site.source().join(".depot");
    let refused = |case: &str| match site.update() {
        Err(PackageError::Scan(ScanError::Problems(problems))) => {
            assert!(matches!(problems.named[0].why, Why::Reserved(_)), "{case}: {problems}");
            assert_eq!((problems.total, problems.named[0].path.as_str()), (1, ".depot"), "{case}");
            assert!(problems.to_string().contains("rename it"), "{case}: {problems}");
            assert!(!fetch_state::lies_in(&site.source()), "{case}");
        }
        other => panic!("{case}: {other:?}"),
    };
    fs::write(&depot, "x").unwrap();
    refused("a file");
    fs::remove_file(&depot).unwrap();
    let unpinned = FetchRecord::default().encode();
    let newer = String::from_utf8(fetch_record().encode()).unwrap().replace(": 1,", ": 2,");
    for record in [&b"{}"[..], b"no record", &unpinned, newer.as_bytes()] {
        write_fetch_state(&site.source(), record);
        refused(&String::from_utf8_lossy(record));
    }
    fs::remove_file(depot.join("state")).unwrap();
    refused("a folder without a record");
    // Links count for what they are.
    write_fetch_state(&site.path("elsewhere"), &fetch_record().encode());
    symlink(site.path("elsewhere/.depot/state"), depot.join("state")).unwrap();
    refused("a link to a record");
    fs::remove_dir_all(&depot).unwrap();
    symlink(site.path("elsewhere/.depot"), &depot).unwrap();
    refused("a link to a folder");
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
}

/// Flips a bit in every other KiB of all packs.
fn damage(site: &Site) {
    use contentlib::store::PackStore;
    for id in site.store.list().unwrap() {
        let len = site.store.open(id).unwrap().len().unwrap();
        for offset in (200..len).step_by(2048) {
            site.store.damage(id, offset, 1);
        }
    }
}

#[test]
fn an_update_heals_what_the_source_still_has() {
    let site = Site::with_package();
    for n in 0..40 {
        fs::write(site.source().join(format!("{n}")), noise(n, 30_000)).unwrap();
    }
    site.update().unwrap();
    let library = site.packages.library();
    let verify = || {
        let links = packager::ManifestLinks;
        library.verify(&Default::default(), &links, &Progress::default()).unwrap();
        library.suspects().unwrap().len()
    };
    assert_eq!(verify(), 0);
    damage(&site);
    assert!(verify() > 10);
    let report = site.update().unwrap();
    assert!(report.unchanged && report.files_read > 10, "{report:?}");
    assert_eq!(library.suspects().unwrap(), []);
    assert_eq!(tree(&site.restore("out")), tree(&site.source()));
    assert_eq!(site.update().unwrap().files_read, 0);
}

/// The manifest of an empty tree is the same for all packages, and no source has its bytes.
#[test]
fn an_update_brings_back_the_empty_manifest_so_that_garbage_can_be_collected() {
    use contentlib::store::PackStore;
    let site = Site::with_package();
    let library = site.packages.library();
    library.seal_idle().unwrap();
    let first = site.store.list().unwrap();
    fs::write(site.source().join("file"), "bytes").unwrap();
    site.update().unwrap();
    for id in first {
        let len = site.store.open(id).unwrap().len().unwrap();
        (64..len).for_each(|offset| site.store.damage(id, offset, 1));
    }
    let collect =
        || library.gc(&Default::default(), &packager::ManifestLinks, &Progress::default());
    let error = collect().unwrap_err();
    let way_out = std::error::Error::source(&error).unwrap().to_string();
    assert!(way_out.contains("`depot package delete p@1`"), "{way_out}");
    assert!(site.update().unwrap().unchanged);
    collect().unwrap();
    let p = package("p");
    let empty = site.packages.resolve(&p, &Selector::Number(1)).unwrap().manifest;
    assert!(!library.stat(empty).unwrap().suspect);
    // With no version left that has it, it stays away.
    site.packages.delete_version(&p, &Selector::Number(1), packager::packages::Force::No).unwrap();
    site.set_ahead(7 * 24 * 3600);
    collect().unwrap();
    site.set_ahead(14 * 24 * 3600);
    collect().unwrap();
    site.update().unwrap();
    assert!(library.stat(empty).is_err());
}

#[test]
fn a_full_disk_makes_no_version_and_room_lets_the_next_update_through() {
    let site = Site::with_package();
    fs::write(site.source().join("a"), "a").unwrap();
    site.update().unwrap();
    fs::write(site.source().join("large"), noise(1, 10_000_000)).unwrap();
    site.store.set_capacity(5_000_000);
    let error = site.update().unwrap_err();
    assert!(matches!(error, PackageError::Scan(ScanError::Library(_))), "{error:?}");
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 2);
    site.restore("before");
    site.store.set_capacity(u64::MAX);
    assert_eq!(site.update().unwrap().version, 3);
    assert_eq!(tree(&site.restore("out")), tree(&site.source()));
}
