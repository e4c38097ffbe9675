//! Versions that are put together file by file.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, noise, package};
use contentlib::{AddOptions, Aliases, Name, Progress};
use packager::compose::{Base, Composition, OnDemandFile, PlaceError};
use packager::{PackageError, Selector, TreePath, UpdateReport};
use std::sync::Arc;

fn site() -> Site {
    let site = Site::new();
    site.packages.create_composed(package("p"), Default::default()).unwrap();
    site
}

fn compose(site: &Site, base: Base) -> Composition {
    site.packages.compose(&package("p"), base, Arc::new(Progress::default())).unwrap()
}

fn at(path: &str) -> TreePath {
    path.parse().unwrap()
}

fn place(composition: &Composition, path: &str, bytes: &[u8]) {
    let aliases = Aliases { sha256: true, sha1: false };
    let options = AddOptions { aliases, expect: None };
    composition.place(&at(path), Some(bytes.len() as u64), bytes, &options).unwrap();
}

fn sha256(site: &Site, bytes: &[u8]) -> Name {
    let aliases = Aliases { sha256: true, sha1: false };
    let options = AddOptions { aliases, expect: None };
    let session = site.packages.library().session();
    let added = session.add_reader(bytes, &options, &Progress::default()).unwrap();
    Name::Sha256(added.sha256.unwrap())
}

fn files(site: &Site) -> Vec<(String, u64)> {
    let info = site.packages.resolve(&package("p"), &Selector::Latest).unwrap();
    let manifest = site.packages.manifest(info.manifest).unwrap();
    let files = manifest.entries().filter_map(|entry| {
        let path = String::from_utf8(entry.path.to_vec()).unwrap();
        entry.file().map(|file| (path, file.size))
    });
    files.collect()
}

#[test]
fn a_composition_is_one_version_and_the_same_again_is_none() {
    let site = site();
    let large = noise(1, 700_000);
    let make = |site: &Site| -> UpdateReport {
        let composition = compose(site, Base::Nothing);
        place(&composition, "pool/x/b.deb", &large);
        place(&composition, "pool/a.deb", b"a");
        place(&composition, "dists/stable/Release", b"release");
        assert!(composition.also_at(&at("pool/a.deb"), &at("by-hash/a")).unwrap());
        assert!(!composition.also_at(&at("pool/none"), &at("by-hash/b")).unwrap());
        composition.finish().unwrap()
    };
    let first = make(&site);
    assert_eq!((first.version, first.files, first.unchanged), (2, 4, false));
    let paths = ["by-hash/a", "dists/stable/Release", "pool/a.deb", "pool/x/b.deb"];
    assert_eq!(files(&site).iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), paths);
    site.set_ahead(9999);
    let again = make(&site);
    assert_eq!((again.version, again.unchanged, again.new_bytes), (2, true, 0));
}

#[test]
fn files_come_beside_those_of_the_newest_version_which_keep_their_times() {
    let site = site();
    let first = compose(&site, Base::Nothing);
    place(&first, "a", b"a");
    place(&first, "b", b"b");
    first.finish().unwrap();
    site.set_ahead(9999);
    let second = compose(&site, Base::Newest);
    place(&second, "c/d", b"d");
    place(&second, "a", b"a, another one");
    assert!(second.take_out(&at("b")) && !second.take_out(&at("b")));
    place(&second, "b", b"b");
    assert_eq!(second.finish().unwrap().version, 3);
    assert_eq!(files(&site), [("a".into(), 14), ("b".into(), 1), ("c/d".into(), 1)]);
    let time = |version: u64, path: &[u8]| {
        let info = site.packages.resolve(&package("p"), &Selector::Number(version)).unwrap();
        site.packages.manifest(info.manifest).unwrap().lookup(path).unwrap().mtime
    };
    assert_eq!(time(2, b"b"), time(3, b"b"), "it is as it was");
    assert!(time(2, b"a") < time(3, b"a"));
}

#[test]
fn files_on_demand_are_listed_and_kept_once_they_came_and_make_no_other_version() {
    let site = site();
    let bytes = noise(7, 200_000);
    let Name::Sha256(digest) = sha256(&Site::new(), &bytes) else { panic!("an alias") };
    let make = || {
        let composition = compose(&site, Base::Nothing);
        place(&composition, "Release", b"release");
        let wait = |path: &str, from: Option<&str>| {
            let from = from.map(str::to_owned);
            composition
                .place_on_demand(&at(path), OnDemandFile { size: 200_000, sha256: digest, from })
        };
        wait("pool/b.deb", None).unwrap();
        wait("pool/a.deb", Some("http://cdn/a.deb")).unwrap();
        for path in [".depot-on-demand", ".depot/x", "a\x0ab"] {
            assert!(wait(path, None).is_err(), "{path}");
        }
        let taken =
            composition.place(&at(".depot-on-demand"), None, &b"x"[..], &AddOptions::default());
        assert!(matches!(taken, Err(PlaceError::Place { .. })));
        composition.finish().unwrap()
    };
    assert_eq!(make().version, 2);
    let info = site.packages.resolve(&package("p"), &Selector::Latest).unwrap();
    let list = site.packages.on_demand(info.manifest).unwrap().unwrap();
    assert_eq!((list.len(), list.bytes()), (2, 400_000));
    let first = list.files().next().unwrap();
    assert_eq!((first.path, first.from), (&b"pool/a.deb"[..], Some("http://cdn/a.deb")));

    let library = site.packages.library();
    let options = AddOptions { aliases: Aliases { sha256: true, sha1: false }, expect: None };
    let session = library.session();
    session.add_reader(bytes.as_slice(), &options, &Progress::default()).unwrap();
    session.commit(Vec::new()).unwrap();
    drop(session);
    let unlisted = library.session();
    unlisted.add_reader(&noise(8, 200_000)[..], &options, &Progress::default()).unwrap();
    unlisted.commit(Vec::new()).unwrap();
    drop(unlisted);
    let gc = || {
        let links = packager::ManifestLinks;
        library.gc(&Default::default(), &links, &Progress::default()).unwrap()
    };
    let listed = Name::Sha256(digest);
    assert!(gc().condemned > 0, "what no version lists");
    let content = library.resolve(&listed).unwrap().unwrap();
    let why = || library.why(content, &packager::ManifestLinks).unwrap();
    let labels: Vec<String> = why().holders.into_iter().map(|holder| holder.label).collect();
    assert_eq!((labels, why().state), (vec!["pool/a.deb".into(), "pool/b.deb".into()], "live"));
    assert!(make().unchanged);
    site.packages.delete_package(&package("p")).unwrap();
    assert!(gc().condemned > 0);
    assert_eq!((why().holders.len(), why().state), (0, "condemned"));
}

#[test]
fn what_is_held_is_placed_by_its_name_without_its_bytes() {
    let site = site();
    let bytes = noise(2, 500_000);
    let first = compose(&site, Base::Nothing);
    place(&first, "a", &bytes);
    let name = sha256(&site, &bytes);
    first.finish().unwrap();
    let second = compose(&site, Base::Nothing);
    assert!(second.place_held(&at("elsewhere/a"), &name, 500_000).unwrap());
    assert!(!second.place_held(&at("x"), &name, 500_001).unwrap(), "of another size");
    assert!(!second.place_held(&at("x"), &Name::Sha256([7; 32]), 1).unwrap());
    let report = second.finish().unwrap();
    assert_eq!((report.version, report.new_bytes, report.files_read), (3, 0, 0));
}

#[test]
fn what_came_for_a_composition_that_was_dropped_is_held_by_the_next() {
    let site = site();
    let bytes = noise(3, 300_000);
    let first = compose(&site, Base::Nothing);
    place(&first, "a", &bytes);
    first.save().unwrap();
    drop(first);
    let options = contentlib::GcOptions::default();
    let links = packager::ManifestLinks;
    site.packages.library().gc(&options, &links, &Progress::default()).unwrap();
    let second = compose(&site, Base::Nothing);
    let name = Name::Blake3(contentlib::Digest::of(&bytes));
    assert!(second.place_held(&at("a"), &name, 300_000).unwrap());
    assert_eq!(second.finish().unwrap().new_bytes, 0);
}

#[test]
fn a_file_that_is_not_as_stated_is_refused_and_the_others_stay() {
    let site = site();
    let composition = compose(&site, Base::Nothing);
    place(&composition, "a/b", b"fine");
    let expect = Some(Name::Sha256([1; 32]));
    let options = AddOptions { expect, ..AddOptions::default() };
    let refused = composition.place(&at("c"), None, &b"other"[..], &options);
    assert!(matches!(refused, Err(PlaceError::Add { .. })), "{refused:?}");
    let refused = composition.place(&at("c"), Some(3), &b"four"[..], &AddOptions::default());
    assert!(matches!(refused, Err(PlaceError::Size { stated: 3, found: 4, .. })), "{refused:?}");
    for path in ["a", "a/b/c"] {
        let refused = composition.place(&at(path), None, &b"x"[..], &AddOptions::default());
        assert!(matches!(refused, Err(PlaceError::Place { .. })), "{path}: {refused:?}");
    }
    composition.finish().unwrap();
    assert_eq!(files(&site), [("a/b".into(), 4)]);
}

#[test]
fn a_composed_package_takes_nothing_else_and_one_with_a_folder_is_not_composed() {
    let site = site();
    assert!(matches!(site.update(), Err(PackageError::TakesUpstream(_))));
    let put = site.packages.put_tar(&package("p"), &b""[..], &Progress::default());
    assert!(put.unwrap_err().to_string().contains("upstream"));
    let composing = compose(&site, Base::Nothing);
    let second = site.packages.compose(&package("p"), Base::Nothing, Default::default());
    assert!(matches!(second, Err(PackageError::Busy(_))));
    drop(composing);
    site.create("q", Some(site.source())).unwrap();
    let refused = site.packages.compose(&package("q"), Base::Newest, Default::default());
    assert!(matches!(refused, Err(PackageError::TakesFolder { .. })));
}
