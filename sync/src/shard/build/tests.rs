use super::*;
use crate::adapter::{Extent, Said};
use crate::rule::{Comparison, PackageRule, Rule};
use crate::shard::entries;
use crate::update::Update;
use jiff::Timestamp;
use sitedb::Db;
use std::collections::BTreeSet;
use std::sync::Arc;

fn now() -> Timestamp {
    "2026-11-27T00:00:00Z".parse().unwrap()
}

/// Update `n` of a product, in that version.
fn update(n: u32, version: &str) -> Update {
    let id = UpdateId::named(&[&n.to_string()]);
    let mut update = Update::new(id, &format!("U-{n}"), "title", now());
    update.products.insert(format!("product-{}", n % 3));
    let name = format!("package-{n}");
    let is = Comparison::LessThan;
    let rule = PackageRule { name, arch: None, is, version: version.into() };
    update.rules.installable = Some(Rule::Dpkg(rule));
    update
}

fn filled(updates: impl IntoIterator<Item = Update>) -> Catalogue {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    fill(&catalogue, updates);
    catalogue
}

fn fill(catalogue: &Catalogue, updates: impl IntoIterator<Item = Update>) {
    let mut intake = catalogue.intake(&"test".parse().unwrap(), 1, Arc::default(), now()).unwrap();
    updates.into_iter().for_each(|it| intake.take(Said::Update(Box::new(it))).unwrap());
    intake.settle(Extent::Whole).unwrap();
    intake.commit(serde_json::Value::Null).unwrap();
}

struct Made {
    manifest: Manifest,
    pages: BTreeSet<Name>,
    shards: BTreeSet<Name>,
    updates: BTreeMap<UpdateId, Entry>,
}

/// Makes shards, and reads them as a client does.
fn made(catalogue: &Catalogue, blobs: &Blobs) -> Made {
    let manifest = build(catalogue, blobs, &|| false).unwrap();
    let manifest = Manifest::parse(&manifest.text()).unwrap();
    let (mut pages, mut shards, mut updates) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for listed in &manifest.pages {
        pages.insert(listed.part.blob);
        let page = blobs.plain(listed.part.blob, listed.part.bytes).unwrap().unwrap();
        let page = Page::parse(&page).unwrap();
        for shard in page.shards {
            let plain = blobs.plain(shard.part.blob, shard.part.bytes).unwrap().unwrap();
            let all: Vec<Entry> = entries(&plain).map(Result::unwrap).collect();
            assert_eq!(all.len() as u64, shard.part.updates);
            for entry in all {
                let place = format!("{:064b}", place_of(entry.update.id));
                assert!(place.starts_with(&shard.prefix) && place.starts_with(&listed.prefix));
                assert!(updates.insert(entry.update.id, entry).is_none(), "in one shard alone");
            }
            shards.insert(shard.part.blob);
        }
    }
    assert_eq!(manifest.updates, updates.len() as u64);
    Made { manifest, pages, shards, updates }
}

#[test]
fn shards_follow_from_the_updates_and_not_from_their_history() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let one = made(&filled((0..1_000).map(|n| update(n, "1"))), &blobs);
    assert_eq!(one.updates.len(), 1_000);
    let first = &one.updates[&UpdateId::named(&["7"])];
    assert_eq!((first.revision, &first.update.name), (1, &"U-7".to_owned()));
    // The same, come in another order and in two syncs, at another site.
    let other = filled((0..10).map(|n| update(n, "1")));
    fill(&other, (0..1_000).rev().map(|n| update(n, "1")));
    let elsewhere = tempfile::tempdir().unwrap();
    let two = made(&other, &Blobs::open(elsewhere.path()).unwrap());
    assert_eq!(one.manifest.pages, two.manifest.pages);
}

#[test]
fn one_update_that_changed_costs_a_shard_a_page_and_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let catalogue = filled((0..2_000).map(|n| update(n, "1")));
    let before = made(&catalogue, &blobs);
    assert!(before.shards.len() > 30 && before.pages.len() >= 3);
    let all =
        |changed: u32| (0..2_000).map(move |n| update(n, if n == changed { "2" } else { "1" }));
    fill(&catalogue, all(77));
    let after = made(&catalogue, &blobs);
    assert_eq!(after.shards.difference(&before.shards).count(), 1);
    assert_eq!(after.pages.difference(&before.pages).count(), 1);
    assert_eq!(after.updates[&UpdateId::named(&["77"])].revision, 2);
    assert!(after.manifest.seq > before.manifest.seq);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let catalogue = filled((0..10).map(|n| update(n, "1")));
    assert!(matches!(build(&catalogue, &blobs, &|| true), Err(BuildError::Interrupted)));
}
