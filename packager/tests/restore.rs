//! A restore brings a version back exactly, changes only what differs, and never leaves the
//! destination.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, is_unprivileged, noise, package, tree};
use contentlib::Progress;
use packager::{Extra, RestoreError, RestoreReport, Selector};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn restore(site: &Site, to: &str, extra: Extra) -> Result<RestoreReport, RestoreError> {
    let (p, latest) = (package("p"), Selector::Latest);
    site.packages.restore(&p, &latest, &site.path(to), extra, &Progress::default())
}

/// A site with a version of a few entries of each kind.
fn site() -> Site {
    let site = Site::with_package();
    let source = site.source();
    fs::create_dir_all(source.join("folder/empty")).unwrap();
    fs::write(source.join("folder/file"), noise(1, 200_000)).unwrap();
    fs::write(source.join("file"), "small").unwrap();
    symlink("file", source.join("link")).unwrap();
    site.update().unwrap();
    site
}

#[test]
fn only_what_differs_is_written() {
    let site = site();
    let first = restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!((first.files, first.written), (2, 3));
    let out = site.path("out");
    let inode = || fs::metadata(out.join("folder/file")).unwrap().ino();
    let before = inode();
    // Other bytes, another mode, another time, another target, and one gone.
    fs::write(out.join("file"), "SMALL").unwrap();
    fs::set_permissions(out.join("folder/file"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(out.join("folder/file")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_file(out.join("link")).unwrap();
    symlink("nowhere", out.join("link")).unwrap();
    fs::remove_dir(out.join("folder/empty")).unwrap();
    let again = restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!((again.written, again.written_bytes), (2, 5));
    assert_eq!(tree(&out), tree(&site.source()));
    assert_eq!(inode(), before, "the same bytes stay where they are");
}

#[test]
fn extra_files_stay_unless_they_are_to_go() {
    let site = site();
    restore(&site, "out", Extra::Keep).unwrap();
    let out = site.path("out");
    fs::create_dir_all(out.join("folder/extra/deep")).unwrap();
    fs::write(out.join("folder/extra/deep/file"), "x").unwrap();
    fs::set_permissions(out.join("folder/extra"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("/", out.join("extra-link")).unwrap();
    assert_eq!(restore(&site, "out", Extra::Keep).unwrap().removed, 0);
    assert!(out.join("folder/extra/deep/file").exists());
    assert_eq!(restore(&site, "out", Extra::Remove).unwrap().removed, 4);
    assert_eq!(tree(&out), tree(&site.source()));
}

#[test]
fn the_sites_own_data_is_no_destination() {
    let site = site();
    fs::create_dir_all(site.path("data/library")).unwrap();
    symlink("data", site.path("alias")).unwrap();
    for (to, extra) in [
        ("data", Extra::Keep),
        ("data/library", Extra::Keep),
        ("data/new/deeper", Extra::Keep),
        ("alias/new", Extra::Keep),
        (".", Extra::Remove),
    ] {
        let refused = restore(&site, to, extra);
        assert!(matches!(refused, Err(RestoreError::DestHoldsSite { .. })), "{to}: {refused:?}");
    }
    assert!(!site.path("data/new").exists());
    // Around it there is room for other things, as long as nothing is removed.
    restore(&site, ".", Extra::Keep).unwrap();
}

#[test]
fn things_of_another_kind_make_way() {
    let site = site();
    let out = site.path("out");
    fs::create_dir_all(out.join("file")).unwrap();
    fs::create_dir_all(out.join("link")).unwrap();
    fs::write(out.join("folder"), "a file where a folder belongs").unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&out), tree(&site.source()));
}

#[test]
fn a_folder_with_files_in_it_goes_only_with_prune() {
    let site = site();
    let out = site.path("out");
    for place in ["file", "link"] {
        let _ = fs::remove_file(out.join(place));
        fs::create_dir_all(out.join(place).join("deep")).unwrap();
        fs::write(out.join(place).join("deep/kept"), "mine").unwrap();
        let error = restore(&site, "out", Extra::Keep).unwrap_err();
        assert!(matches!(&error, RestoreError::FolderInTheWay { path, .. } if path == place));
        assert!(out.join(place).join("deep/kept").exists());
        restore(&site, "out", Extra::Remove).unwrap();
        assert_eq!(tree(&out), tree(&site.source()));
    }
}

#[test]
fn links_in_the_destination_are_replaced_not_followed() {
    let site = site();
    let outside = site.path("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    let before = tree(&outside);
    let out = site.path("out");
    fs::create_dir(&out).unwrap();
    symlink(&outside, out.join("folder")).unwrap();
    symlink(outside.join("file"), out.join("file")).unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&out), tree(&site.source()));
    assert_eq!(tree(&outside), before);
}

#[test]
fn a_hard_link_in_the_destination_is_broken_not_written_through() {
    let site = site();
    let out = site.path("out");
    fs::create_dir(&out).unwrap();
    for bytes in ["other", "small"] {
        let elsewhere = site.path(&format!("elsewhere-{bytes}"));
        fs::write(&elsewhere, bytes).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
        let _ = fs::remove_file(out.join("file"));
        fs::hard_link(&elsewhere, out.join("file")).unwrap();
        restore(&site, "out", Extra::Keep).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), bytes);
        assert_eq!(fs::metadata(&elsewhere).unwrap().mode() & 0o777, 0o600);
        assert_eq!(tree(&out), tree(&site.source()));
    }
}

#[test]
fn what_a_killed_restore_left_is_removed() {
    let site = site();
    restore(&site, "out", Extra::Keep).unwrap();
    let out = site.path("out");
    fs::write(out.join("folder/.depot-restore-0123456789abcdef-7"), "half").unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&out), tree(&site.source()));
}

#[test]
fn a_destination_that_cannot_be_written_is_named() {
    let site = site();
    fs::write(site.path("a-file"), "x").unwrap();
    let error = restore(&site, "a-file/out", Extra::Keep).unwrap_err();
    assert!(matches!(error, RestoreError::Dest { .. }));
    assert!(error.to_string().contains("a-file/out"), "{error}");
    let proc = std::path::Path::new("/proc/depot");
    let (p, latest) = (package("p"), Selector::Latest);
    let made = site.packages.restore(&p, &latest, proc, Extra::Keep, &Progress::default());
    assert!(matches!(made, Err(RestoreError::Dest { .. })));
}

#[test]
fn a_revoked_file_is_named_and_not_restored() {
    let site = site();
    site.packages.revoke(contentlib::Digest::of(b"small"), "bad").unwrap();
    let error = restore(&site, "out", Extra::Keep).unwrap_err();
    assert!(matches!(&error, RestoreError::Content { path, .. } if path == "file"), "{error}");
    assert!(!site.path("out").join("file").exists());
}

#[test]
fn large_files_are_written_by_all_threads() {
    let site = Site::with_package();
    fs::write(site.source().join("large"), noise(1, 70_000_000)).unwrap();
    fs::write(site.source().join("next"), "x").unwrap();
    site.update().unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&site.path("out")), tree(&site.source()));
}

#[test]
fn a_cancelled_restore_ends() {
    let site = site();
    let progress = Progress::default();
    progress.cancel();
    let (p, latest) = (package("p"), Selector::Latest);
    let out = site.path("out");
    let ended = site.packages.restore(&p, &latest, &out, Extra::Keep, &progress);
    assert!(matches!(ended, Err(RestoreError::Cancelled(_))));
}

#[test]
fn folders_without_rights_are_restored_into_and_get_their_modes_back() {
    if !is_unprivileged("folders_without_rights_are_restored_into_and_get_their_modes_back") {
        return;
    }
    let site = Site::with_package();
    let folder = site.source().join("folder");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/file"), "one").unwrap();
    let set_mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o500);
    site.update().unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&site.path("out")), tree(&site.source()));
    fs::write(folder.join("inner/file"), "two").unwrap();
    site.update().unwrap();
    restore(&site, "out", Extra::Keep).unwrap();
    assert_eq!(tree(&site.path("out")), tree(&site.source()));
    // So that the test can clean up.
    set_mode(0o700);
    fs::set_permissions(site.path("out/folder"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_destination_without_the_right_to_write_is_named() {
    if !is_unprivileged("a_destination_without_the_right_to_write_is_named") {
        return;
    }
    let site = site();
    fs::create_dir(site.path("out")).unwrap();
    fs::set_permissions(site.path("out"), fs::Permissions::from_mode(0o555)).unwrap();
    let error = restore(&site, "out", Extra::Keep).unwrap_err().to_string();
    assert!(error.contains("/out"), "{error}");
    assert!(fs::read_dir(site.path("out")).unwrap().next().is_none());
}

/// Something that happens to a source.
#[derive(Clone, Debug)]
enum Deed {
    Write(Vec<u8>, usize),
    MakeFolder(Vec<u8>),
    MakeLink(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    SetMode(Vec<u8>, u32),
}

fn any_deed() -> impl Strategy<Value = Deed> {
    // Few names, so that deeds meet; and ones whose order around a slash is easily got wrong.
    let name = || prop::sample::select(vec!["a", "a-", "a.", "b", "\u{e9}", "c\n"]);
    let path =
        move || prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/").into_bytes());
    prop_oneof![
        4 => (path(), 0usize..3).prop_map(|(path, size)| Deed::Write(path, size * 40_000)),
        2 => path().prop_map(Deed::MakeFolder),
        1 => (path(), path()).prop_map(|(path, target)| Deed::MakeLink(path, target)),
        2 => path().prop_map(Deed::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Deed::Rename(from, to)),
        1 => (path(), 0u32..0o100).prop_map(|(path, mode)| Deed::SetMode(path, 0o700 | mode)),
    ]
}

/// Does it, if it can be done.
fn perform(top: &std::path::Path, deed: &Deed, seed: u64) {
    use std::os::unix::ffi::OsStrExt;
    let at = |path: &[u8]| top.join(std::ffi::OsStr::from_bytes(path));
    let _ = match deed {
        Deed::Write(path, size) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if !meta.is_file() => Ok(()),
            _ => fs::write(at(path), noise(seed, *size)),
        },
        Deed::MakeFolder(path) => fs::create_dir(at(path)),
        Deed::MakeLink(path, target) => symlink(std::ffi::OsStr::from_bytes(target), at(path)),
        Deed::Remove(path) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(at(path)),
            _ => fs::remove_file(at(path)),
        },
        Deed::Rename(from, to) => fs::rename(at(from), at(to)),
        Deed::SetMode(path, mode) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if !meta.is_symlink() => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))
            }
            _ => Ok(()),
        },
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_to_a_source_a_pruned_restore_follows(
        rounds in prop::collection::vec(prop::collection::vec(any_deed(), 1..12), 1..6),
    ) {
        let site = Site::with_package();
        let mut seed = 0;
        for deeds in rounds {
            for deed in &deeds {
                seed += 1;
                perform(&site.source(), deed, seed);
            }
            let before = site.packages.show(&package("p")).unwrap().latest.unwrap();
            let report = site.update().unwrap();
            let after = site.packages.show(&package("p")).unwrap().latest.unwrap();
            prop_assert_eq!(report.unchanged, before.tree == after.tree);
            restore(&site, "out", Extra::Remove).unwrap();
            let without_times = |top: &std::path::Path| {
                let mut tree = tree(top);
                tree.values_mut().for_each(|(_, seconds, rest, _)| (*seconds, *rest) = (0, 0));
                tree
            };
            // An update that only found other times keeps those of the version.
            prop_assert_eq!(without_times(&site.path("out")), without_times(&site.source()));
            if !report.unchanged {
                prop_assert_eq!(tree(&site.path("out")), tree(&site.source()));
            }
        }
    }
}
