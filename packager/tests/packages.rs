//! What administrators do with packages.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, package};
use contentlib::{Digest, GcOptions, Progress};
use jiff::SignedDuration;
use packager::packages::Force;
use packager::tree::{Depth, Page};
use packager::{ManifestLinks, NewPackage, PackageError, Retention, Selector};
use std::fs;
use std::num::NonZeroU32;

fn number(version: u64) -> Selector {
    Selector::Number(version)
}

/// Makes a version whose only file has these bytes.
fn version(site: &Site, bytes: &str) -> u64 {
    fs::write(site.source().join("file"), bytes).unwrap();
    site.update().unwrap().version
}

#[test]
fn a_new_package_has_one_version_empty_and_signed() {
    let site = Site::with_package();
    let info = site.packages.resolve(&package("p"), &Selector::Latest).unwrap();
    assert_eq!((info.version, info.n_files, info.bytes), (1, 0, 0));
    info.verify(&site.packages.public_key()).unwrap();
    assert!(site.packages.manifest(info.manifest).unwrap().is_empty());
    assert!(matches!(site.create("p", None), Err(PackageError::Exists(_))));
    assert_eq!(site.packages.list().unwrap().len(), 1);
}

#[test]
fn every_version_verifies_against_the_sites_key_alone() {
    let site = Site::with_package();
    version(&site, "one");
    let info = site.packages.resolve(&package("p"), &number(2)).unwrap();
    info.verify(&site.packages.public_key()).unwrap();
    let manifest = site.packages.manifest(info.manifest).unwrap();
    assert_eq!(manifest.digest(), info.manifest);
    assert_eq!(manifest.tree_digest(), info.tree);
}

#[test]
fn a_selector_finds_its_version_or_says_what_is_not_there() {
    let site = Site::with_package();
    let (p, stable) = (package("p"), "stable".parse().unwrap());
    let find = |selector: &Selector| site.packages.resolve(&p, selector).map(|info| info.version);
    version(&site, "one");
    assert_eq!(find(&Selector::Latest).unwrap(), 2);
    assert_eq!(find(&number(1)).unwrap(), 1);
    assert!(matches!(find(&number(3)), Err(PackageError::UnknownVersion { .. })));
    let channel = Selector::Channel(stable);
    assert!(matches!(find(&channel), Err(PackageError::UnknownChannel { .. })));
    let nobody = site.packages.resolve(&package("nobody"), &number(1));
    assert!(matches!(nobody, Err(PackageError::UnknownPackage(_))));
}

#[test]
fn a_channel_moves_and_the_older_version_stays() {
    let site = Site::with_package();
    let (p, stable) = (package("p"), "stable".parse().unwrap());
    version(&site, "one");
    version(&site, "two");
    let moved = site.packages.set_channel(&p, &stable, &number(2)).unwrap();
    assert_eq!((moved.from, moved.to), (None, 2));
    let moved = site.packages.set_channel(&p, &stable, &Selector::Latest).unwrap();
    assert_eq!((moved.from, moved.to), (Some(2), 3));
    assert_eq!(site.packages.resolve(&p, &Selector::Channel(stable.clone())).unwrap().version, 3);
    assert!(site.packages.resolve(&p, &number(2)).is_ok());
    let nowhere = site.packages.set_channel(&p, &stable, &number(9));
    assert!(matches!(nowhere, Err(PackageError::UnknownVersion { .. })));
    assert_eq!(
        site.packages.channels(&p).unwrap().into_iter().collect::<Vec<_>>(),
        [(stable.clone(), 3)]
    );
    site.packages.remove_channel(&p, &stable).unwrap();
    assert!(site.packages.remove_channel(&p, &stable).is_err());
}

#[test]
fn a_version_in_use_is_deleted_only_by_force() {
    let site = Site::with_package();
    let (p, stable) = (package("p"), "stable".parse().unwrap());
    version(&site, "one");
    version(&site, "two");
    site.packages.set_channel(&p, &stable, &number(2)).unwrap();
    for (selector, by) in [(number(2), "stable"), (Selector::Latest, "latest")] {
        match site.packages.delete_version(&p, &selector, Force::No) {
            Err(PackageError::VersionInUse { by: found, .. }) => assert_eq!(found, [by]),
            other => panic!("{other:?}"),
        }
    }
    site.packages.delete_version(&p, &number(2), Force::Yes).unwrap();
    assert!(site.packages.channels(&p).unwrap().is_empty());
    site.packages.delete_version(&p, &Selector::Latest, Force::Yes).unwrap();
    assert_eq!(site.packages.resolve(&p, &Selector::Latest).unwrap().version, 1);
    assert_eq!(version(&site, "three"), 4, "numbers are not used again");
}

#[test]
fn deleting_says_what_becomes_free_and_garbage_collection_frees_it() {
    let site = Site::with_package();
    let p = package("p");
    fs::write(site.source().join("shared"), "shared").unwrap();
    version(&site, "only in version 2");
    version(&site, "only in version 3");
    let deleted = site.packages.delete_version(&p, &number(2), Force::No).unwrap();
    let freed = deleted.freed.unwrap();
    assert_eq!((freed.contents, freed.bytes), (1, 17));
    assert!(deleted.freed_at > site.packages.resolve(&p, &Selector::Latest).unwrap().created);
    let library = site.packages.library();
    library.gc(&GcOptions::default(), &ManifestLinks, &Progress::default()).unwrap();
    let gone = library.missing_chunks(&[contentlib::ChunkId(Digest::of(b"only in version 2"))]);
    assert_eq!(gone.unwrap(), [true]);
    for kept in ["only in version 3", "shared"] {
        assert!(library.stat(Digest::of(kept.as_bytes())).is_ok(), "{kept}");
        let chunk = contentlib::ChunkId(Digest::of(kept.as_bytes()));
        assert_eq!(library.missing_chunks(&[chunk]).unwrap(), [false], "{kept}");
    }
    site.packages.delete_package(&p).unwrap();
    assert!(matches!(site.packages.show(&p), Err(PackageError::UnknownPackage(_))));
    assert!(library.list_refs("version/").unwrap().is_empty());
}

#[test]
fn the_library_can_say_which_version_has_a_content_and_where() {
    let site = Site::with_package();
    fs::create_dir(site.source().join("folder")).unwrap();
    fs::write(site.source().join("folder/new\nline"), "bytes").unwrap();
    site.update().unwrap();
    let why = site.packages.library().why(Digest::of(b"bytes"), &ManifestLinks).unwrap();
    assert_eq!(why.holders.len(), 1);
    assert_eq!(why.holders[0].name, "version/p/0000000002");
    assert_eq!(why.holders[0].label, r"folder/new\x0aline");
}

#[test]
fn a_tree_is_listed_by_folder_and_by_page() {
    let site = Site::with_package();
    let p = package("p");
    fs::create_dir_all(site.source().join("folder/inner")).unwrap();
    for name in ["a", "folder/b", "folder/inner/c", "z"] {
        fs::write(site.source().join(name), name).unwrap();
    }
    site.update().unwrap();
    let list = |folder: &str, depth, part: &Page| {
        let latest = Selector::Latest;
        let page = site.packages.tree(&p, &latest, folder.as_bytes(), depth, part).unwrap();
        let paths: Vec<_> = page.entries.iter().map(|entry| entry.path.to_string()).collect();
        (paths, page.next)
    };
    let whole = Page::default();
    assert_eq!(list("", Depth::Children, &whole).0, ["a", "folder", "z"]);
    assert_eq!(
        list("folder", Depth::All, &whole).0,
        ["folder/b", "folder/inner", "folder/inner/c"]
    );
    let (first, next) = list("", Depth::Children, &Page { after: None, limit: 2 });
    assert_eq!(first, ["a", "folder"]);
    assert_eq!(
        list("", Depth::Children, &Page { after: next, limit: 2 }),
        (vec!["z".into()], None)
    );
    let nowhere = site.packages.tree(&p, &Selector::Latest, b"a", Depth::All, &whole);
    assert!(matches!(nowhere, Err(PackageError::UnknownFolder { .. })));
}

#[test]
fn a_diff_counts_the_whole_and_lists_a_page() {
    let site = Site::with_package();
    let p = package("p");
    for name in ["a", "b", "c"] {
        fs::write(site.source().join(name), name).unwrap();
    }
    site.update().unwrap();
    fs::write(site.source().join("a"), "changed").unwrap();
    fs::remove_file(site.source().join("b")).unwrap();
    fs::write(site.source().join("d"), "d").unwrap();
    site.update().unwrap();
    let diff = |part: &Page| site.packages.diff(&p, &number(2), &number(3), part).unwrap();
    let page = diff(&Page { after: None, limit: 2 });
    assert_eq!((page.counts.changed, page.counts.removed, page.counts.added), (1, 1, 1));
    let paths = |page: &packager::packages::DiffPage| {
        page.changes.iter().map(|change| change.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&page), ["a", "b"]);
    let rest = diff(&Page { after: page.next, limit: 2 });
    assert_eq!((paths(&rest), rest.next), (vec!["d".to_owned()], None));
}

#[test]
fn a_revoked_content_is_found_in_all_versions_and_kept_out_of_new_ones() {
    let site = Site::with_package();
    let p = package("p");
    version(&site, "bad");
    fs::write(site.source().join("other"), "bad").unwrap();
    site.update().unwrap();
    let found = site.packages.revoke(Digest::of(b"bad"), "it is bad").unwrap();
    let places: Vec<_> = found.places.iter().map(|h| (h.version, h.path.to_string())).collect();
    let want = [(2, "file"), (3, "file"), (3, "other")].map(|(v, path)| (v, path.to_owned()));
    assert_eq!((places, found.total), (want.to_vec(), 3));
    // The file is unchanged, but must not come into the next version unread.
    fs::write(site.source().join("new"), "new").unwrap();
    let error = site.update().unwrap_err().to_string();
    assert!(error.contains("cannot add"), "{error}");
    assert_eq!(site.packages.show(&p).unwrap().n_versions, 3);
    site.packages.unrevoke(Digest::of(b"bad")).unwrap();
    assert_eq!(site.update().unwrap().version, 4);
}

#[test]
fn retention_can_be_changed() {
    let site = Site::with_package();
    let p = package("p");
    let retention = Retention { keep: NonZeroU32::new(1).unwrap(), days: None };
    site.packages.set_retention(&p, retention).unwrap();
    version(&site, "one");
    let left: Vec<_> = site.packages.versions(&p).unwrap().iter().map(|v| v.version).collect();
    assert_eq!(left, [2]);
}

#[test]
fn versions_go_by_age_although_no_new_one_comes() {
    let site = Site::with_package();
    let p = package("p");
    for bytes in ["one", "two", "three"] {
        version(&site, bytes);
    }
    site.packages.set_channel(&p, &"stable".parse().unwrap(), &number(2)).unwrap();
    let left = || site.packages.versions(&p).unwrap().iter().map(|v| v.version).collect::<Vec<_>>();
    let days = |n: i64| SignedDuration::from_hours(24 * n).as_secs();
    site.set_ahead(days(100));
    assert_eq!(site.packages.expire_versions().unwrap(), 0, "no age is set");
    let retention = Retention { keep: NonZeroU32::new(1).unwrap(), days: NonZeroU32::new(90) };
    site.packages.set_retention(&p, retention).unwrap();
    site.set_ahead(days(89));
    assert_eq!(site.packages.expire_versions().unwrap(), 0);
    assert_eq!(left(), [1, 2, 3, 4], "how many are kept is a matter of the next version");
    site.set_ahead(days(91));
    assert_eq!(site.packages.expire_versions().unwrap(), 2);
    assert_eq!(left(), [2, 4], "neither the newest nor one that a channel names");
    assert_eq!(site.packages.expire_versions().unwrap(), 0);
}

#[test]
fn changes_at_once_are_all_made() {
    let site = Site::with_package();
    let p = package("p");
    version(&site, "one");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (packages, p) = (&site.packages, &p);
            scope.spawn(move || {
                let channel = format!("channel-{n}").parse().unwrap();
                packages.set_channel(p, &channel, &number(2)).unwrap();
            });
        }
    });
    assert_eq!(site.packages.channels(&p).unwrap().len(), 8);
}

#[test]
fn packages_are_there_again_when_the_site_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let library = contentlib::Library::open(&dir.path().join("library"), Default::default());
        let key = packager::SiteKey::open(&dir.path().join("keys/site.ed25519")).unwrap();
        let clock = std::sync::Arc::new(jiff::Timestamp::now);
        let cache = dir.path().join("data/cache");
        packager::Packages::open(library.unwrap(), key, cache, clock).unwrap()
    };
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "bytes").unwrap();
    let p = package("p");
    let packages = open();
    let source = Some(source);
    packages
        .create(NewPackage { name: p.clone(), source, retention: Retention::default() })
        .unwrap();
    let made = packages.update(&p, &Default::default(), &Progress::default()).unwrap();
    let before = packages.show(&p).unwrap();
    drop(packages);
    let packages = open();
    assert_eq!(packages.show(&p).unwrap(), before);
    before.latest.unwrap().verify(&packages.public_key()).unwrap();
    let again = packages.update(&p, &Default::default(), &Progress::default()).unwrap();
    assert_eq!((again.version, again.unchanged), (made.version, true));
}
