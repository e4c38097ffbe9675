//! Copies of another site's packages: they show what that site signed, whole or not at all, and are
//! changed by nobody else.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, noise, package};
use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::{ChunkId, Digest, GcOptions, Library, Options, Progress, Session, System};
use packager::packages::{Force, Gone};
use packager::sign::NotProven;
use packager::{
    ChannelName, ManifestLinks, NewPackage, PackageError, Packages, Selector, SiteKey,
    UpdateOptions, VersionInfo,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn library() -> Library {
    let options = Options { threads: 1, gc_grace: Duration::ZERO, ..Options::default() };
    let (store, kv) = (Arc::new(MemoryStore::default()), Arc::new(MemoryKv::default()));
    Library::open_on(store, kv, Arc::new(System), options).unwrap()
}

fn open(library: Library, site: &Site) -> Result<Packages, PackageError> {
    let key = site.packages.public_key();
    Packages::open_replica(library, key, site.path("copies/cache"), Arc::new(jiff::Timestamp::now))
}

fn copies(site: &Site) -> Packages {
    open(library(), site).unwrap()
}

/// A site with package `p` of two files, at version 2.
fn site() -> (Site, VersionInfo) {
    let site = Site::with_package();
    std::fs::write(site.source().join("large"), noise(1, 1 << 20)).unwrap();
    std::fs::write(site.source().join("small"), "small").unwrap();
    site.update().unwrap();
    let info = version(&site, 2);
    (site, info)
}

fn version(site: &Site, number: u64) -> VersionInfo {
    site.packages.resolve(&package("p"), &Selector::Number(number)).unwrap()
}

/// Adds a content of the site to a session of the copies.
fn copy(site: &Site, session: &Session, digest: Digest) {
    let from = site.packages.library();
    let recipe = from.recipe(digest).unwrap();
    for item in from.frames_for(recipe.chunks()).unwrap() {
        if let contentlib::frames::FrameItem::Block(frame) = item {
            session.put_frame(&frame).unwrap();
        }
    }
    session.put_recipe(digest, &recipe).unwrap();
}

fn contents(site: &Site, info: &VersionInfo) -> Vec<Digest> {
    let manifest = site.packages.manifest(info.manifest).unwrap();
    manifest.digests().iter().copied().chain([info.manifest]).collect()
}

fn bring(site: &Site, copies: &Packages, info: &VersionInfo) {
    let session = copies.library().session();
    contents(site, info).into_iter().for_each(|digest| copy(site, &session, digest));
    copies.adopt(&session, info).unwrap();
}

fn collect(copies: &Packages) {
    for _ in 0..2 {
        let progress = Progress::default();
        copies.library().gc(&GcOptions::default(), &ManifestLinks, &progress).unwrap();
    }
}

#[test]
fn a_version_is_adopted_as_it_was_signed() {
    let (site, info) = site();
    let copies = copies(&site);
    bring(&site, &copies, &info);
    let found = copies.resolve(&package("p"), &Selector::Number(2)).unwrap();
    assert_eq!(found, info);
    assert_eq!(copies.held().unwrap(), std::slice::from_ref(&info));
    assert_eq!(copies.public_key(), site.packages.public_key());
    let dest = site.path("restored");
    let (extra, progress) = (packager::Extra::Keep, Progress::default());
    copies.restore(&package("p"), &Selector::Number(2), &dest, extra, &progress).unwrap();
    assert_eq!(common::tree(&dest), common::tree(&site.source()));
    // Adopted again, also after garbage was collected, nothing changes.
    collect(&copies);
    copies.adopt(&copies.library().session(), &info).unwrap();
    assert_eq!(copies.held().unwrap(), std::slice::from_ref(&info));

    // What is not signed is as the manifest says.
    let false_counts = VersionInfo { n_files: 99, bytes: 1, ..info.clone() };
    copies.adopt(&copies.library().session(), &false_counts).unwrap();
    assert_eq!(copies.held().unwrap(), [info]);
}

#[test]
fn what_is_not_signed_or_not_whole_is_not_adopted() {
    let (site, info) = site();
    let copies = copies(&site);
    let session = copies.library().session();
    let adopt = |info: &VersionInfo| copies.adopt(&session, info);

    let unknown = adopt(&info);
    assert!(matches!(unknown, Err(PackageError::Read(_))), "{unknown:?}");
    copy(&site, &session, info.manifest);
    let all = contents(&site, &info);
    copy(&site, &session, all[1]);
    let incomplete = adopt(&info);
    let is_named =
        matches!(incomplete, Err(PackageError::Incomplete { n: 1, first, .. }) if first == all[0]);
    assert!(is_named, "{incomplete:?}");

    copy(&site, &session, all[0]);
    let other_number = adopt(&VersionInfo { version: 3, ..info.clone() });
    let bad_signature = NotProven::BadSignature {
        package: package("p"),
        version: 3,
        key: site.packages.public_key(),
    };
    assert!(matches!(other_number, Err(PackageError::NotProven(e)) if e == bad_signature));
    let other_key = VersionInfo { key: SiteKey::from_seed([9; 32]).public(), ..info.clone() };
    let other_key = adopt(&other_key);
    assert!(matches!(other_key, Err(PackageError::NotProven(NotProven::OtherKey { .. }))));
    assert!(copies.held().unwrap().is_empty() && copies.list().unwrap().is_empty());
    adopt(&info).unwrap();
}

#[test]
fn copies_are_changed_by_their_site_alone() {
    let (site, info) = site();
    let copies = copies(&site);
    bring(&site, &copies, &info);
    let p = package("p");
    let new = |name| NewPackage { name, source: None, retention: Default::default() };
    let channel: ChannelName = "stable".parse().unwrap();
    let progress = Progress::default();
    let refused = [
        copies.create(new(package("q"))).err(),
        copies.update(&p, &UpdateOptions::default(), &progress).err(),
        copies.begin_upload(&p).err(),
        copies.set_channel(&p, &channel, &Selector::Number(2)).err(),
        copies.remove_channel(&p, &channel).err(),
        copies.set_retention(&p, Default::default()).err(),
        copies.delete_version(&p, &Selector::Number(2), Force::Yes).err(),
        copies.delete_package(&p).err(),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Some(PackageError::Replica)), "{at}: {refused:?}");
    }
    assert_eq!(copies.expire_versions().unwrap(), 0);
    assert_eq!(copies.held().unwrap(), std::slice::from_ref(&info));

    let own = site.packages.adopt(&site.packages.library().session(), &info);
    assert!(matches!(own, Err(PackageError::NotAReplica)));
    let own = site.packages.let_go(&p, 2);
    assert!(matches!(own, Err(PackageError::NotAReplica)));
    let own = site.packages.set_names(&p, None, &BTreeMap::new());
    assert!(matches!(own, Err(PackageError::NotAReplica)));
}

#[test]
fn a_library_is_a_sites_or_a_points() {
    let (site, _) = site();
    let of_site = open(site.packages.library().clone(), &site);
    assert!(matches!(of_site.err(), Some(PackageError::OfASite)));
    let library = library();
    open(library.clone(), &site).unwrap();
    open(library.clone(), &site).unwrap();
    let (key, clock) = (SiteKey::from_seed([1; 32]), Arc::new(jiff::Timestamp::now));
    let (other, cache) = (SiteKey::from_seed([9; 32]).public(), site.path("copies/cache"));
    let of_other =
        Packages::open_replica(library.clone(), other, cache, Arc::new(jiff::Timestamp::now));
    assert!(matches!(of_other.err(), Some(PackageError::OfAnotherSite { .. })));
    let of_point = Packages::open(library, key, site.path("cache"), clock);
    assert!(matches!(of_point.err(), Some(PackageError::OfAPoint)));
}

#[test]
fn a_name_moves_when_what_it_means_is_here() {
    let (site, second) = site();
    std::fs::write(site.source().join("small"), "changed").unwrap();
    site.update().unwrap();
    let third = version(&site, 3);
    let copies = copies(&site);
    let p = package("p");
    let stable: ChannelName = "stable".parse().unwrap();
    let name = |latest, stable_is: u64| {
        copies.set_names(&p, latest, &BTreeMap::from([(stable.clone(), stable_is)])).unwrap()
    };
    let means = |selector: Selector| copies.resolve(&p, &selector).map(|info| info.version).ok();
    let now = || (means(Selector::Latest), means(Selector::Channel(stable.clone())));

    assert!(!name(Some(2), 2), "nothing of it is here");
    bring(&site, &copies, &second);
    assert_eq!(now(), (None, None), "an adopted version has its number");
    assert!(name(Some(2), 2));
    assert_eq!(now(), (Some(2), Some(2)));
    assert!(!name(Some(3), 3), "not here yet, so what was meant is meant");
    assert_eq!(now(), (Some(2), Some(2)));
    bring(&site, &copies, &third);
    assert_eq!(now(), (Some(2), Some(2)));
    assert!(name(Some(3), 3));
    assert_eq!(now(), (Some(3), Some(3)));
    assert!(!name(Some(3), 3));
    // A version that goes takes its names with it.
    assert_eq!(copies.let_go(&p, 3).unwrap(), Gone::Now);
    assert_eq!(now(), (None, None));
    assert!(name(Some(2), 2));
    assert!(copies.set_names(&p, None, &BTreeMap::new()).unwrap());
    assert_eq!(now(), (None, None));
    assert_eq!(means(Selector::Number(2)), Some(2));
}

#[test]
fn what_came_is_kept_until_the_version_is_adopted_or_let_go() {
    let (site, info) = site();
    let copies = copies(&site);
    let p = package("p");
    let all = contents(&site, &info);
    let chunks: Vec<ChunkId> = all
        .iter()
        .flat_map(|digest| site.packages.library().recipe(*digest).unwrap().chunks().to_vec())
        .collect();
    let n_missing = |lease: &Session| {
        lease.missing_chunks(&chunks).unwrap().into_iter().filter(|missing| *missing).count()
    };
    drop(copies.bringing(&p, 2).unwrap());
    {
        // In a session of its own, as those that store do: the durable one keeps what they stored.
        let session = copies.library().session();
        all.iter().for_each(|digest| copy(&site, &session, *digest));
        session.commit(Vec::new()).unwrap();
    }
    collect(&copies);
    assert!(copies.library().missing_chunks(&chunks).unwrap().contains(&true), "condemned");
    {
        let lease = copies.bringing(&p, 2).unwrap();
        assert_eq!(n_missing(&lease), 0);
        assert!(!lease.missing_contents(&all).unwrap().contains(&true));
    }
    assert!(!copies.library().missing_chunks(&chunks).unwrap().contains(&true), "live again");
    collect(&copies);
    copies.adopt(&copies.library().session(), &info).unwrap();
    copies.bringing(&p, 2).unwrap().end().unwrap();
    collect(&copies);
    assert!(!copies.library().missing_contents(&all).unwrap().contains(&true));

    // One that is given up on its way keeps nothing.
    copies.let_go(&p, 2).unwrap();
    let lease = copies.bringing(&p, 2).unwrap();
    assert_eq!(n_missing(&lease), 0, "let go a moment ago");
    drop(lease);
    collect(&copies);
    assert_eq!(copies.on_their_way(), [(p.clone(), 2)]);
    assert_eq!(copies.let_go(&p, 2).unwrap(), Gone::Before);
    assert!(copies.on_their_way().is_empty());
    collect(&copies);
    assert!(copies.library().missing_contents(&all).unwrap().iter().all(|missing| *missing));
}

#[test]
fn a_version_that_is_not_whole_any_more_is_named() {
    let (site, info) = site();
    let folder = site.path("copies/library");
    let packs = folder.join("packs");
    let copies = open(Library::open(&folder, Options::default()).unwrap(), &site).unwrap();
    bring(&site, &copies, &info);
    assert_eq!(copies.hurt_versions().unwrap(), []);
    let all = copies.contents_of(&info).unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], info.manifest);

    // All of it is lost, as a reader finds.
    let files = common::tree(&packs).into_keys().map(|path| String::from_utf8(path).unwrap());
    let pack = files.into_iter().find(|path| path.ends_with(".pack")).unwrap();
    std::fs::remove_file(packs.join(pack)).unwrap();
    let verify = |contents: &[Digest]| {
        let (options, progress) = (contentlib::VerifyOptions::default(), Progress::default());
        copies.library().verify_contents(contents, &options, &progress).unwrap()
    };
    verify(&all[1..2]);
    let hurt = copies.hurt(&info).unwrap().unwrap();
    assert_eq!((hurt.n_contents, hurt.manifest), (1, false), "{hurt:?}");
    assert!(hurt.bytes < info.bytes);
    verify(&all);
    let hurt = copies.hurt_versions().unwrap();
    assert_eq!(hurt.len(), 1);
    assert!(hurt[0].manifest && hurt[0].bytes == info.bytes, "{hurt:?}");
    assert_eq!(copies.contents_of(&info).unwrap(), [info.manifest]);

    copies.library().seal_idle().unwrap();
    bring(&site, &copies, &info);
    assert_eq!(copies.hurt_versions().unwrap(), []);
}

#[test]
fn what_letting_go_frees_is_what_was_told_before() {
    let (site, two) = site();
    std::fs::write(site.source().join("small"), "changed").unwrap();
    std::fs::write(site.source().join("other"), noise(9, 300_000)).unwrap();
    site.update().unwrap();
    let three = version(&site, 3);
    let copies = copies(&site);
    bring(&site, &copies, &two);
    bring(&site, &copies, &three);
    let told = |gone: &[&VersionInfo], stays: &[&VersionInfo]| {
        let [gone, stays] =
            [gone, stays].map(|all| all.iter().map(|v| (*v).clone()).collect::<Vec<_>>());
        site.packages.unshared(&gone, &stays).unwrap().bytes
    };
    let held = || copies.library().stats().unwrap().plain_bytes;
    let (first, both) = (told(&[&three], &[&two]), told(&[&two, &three], &[]));
    assert_eq!(held(), both);
    assert!((300_000..310_000).contains(&first), "the large file is shared: {first}");
    copies.let_go(&package("p"), 3).unwrap();
    collect(&copies);
    assert_eq!(held(), both - first);
    copies.let_go(&package("p"), 2).unwrap();
    collect(&copies);
    assert_eq!(held(), 0);
}
