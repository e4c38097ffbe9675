//! Versions that travel as bundles: what arrives is exact or not visible, whatever becomes of the
//! bundle on its way, and only what the target lacks is carried.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, noise, package};
use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::{GcOptions, Library, Options, Progress, System};
use packager::prestage::{
    BadBundle, BundleDecoder, Imported, ImportedState, Inventory, PrestageError, Record, Standing,
    Step,
};
use packager::{Extra, ManifestLinks, PackageError, Packages, Selector, SiteKey, VersionInfo};
use proptest::prelude::*;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn library() -> Library {
    let options = Options { threads: 1, gc_grace: Duration::ZERO, ..Options::default() };
    let (store, kv) = (Arc::new(MemoryStore::default()), Arc::new(MemoryKv::default()));
    Library::open_on(store, kv, Arc::new(System), options).unwrap()
}

fn copies(site: &Site) -> Packages {
    let (key, cache) = (site.packages.public_key(), site.path("copies/cache"));
    Packages::open_replica(library(), key, cache, Arc::new(jiff::Timestamp::now)).unwrap()
}

fn write(site: &Site, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(site.source().join(name), bytes).unwrap();
}

/// A site with package `p` of a large file and many small ones, at version 2.
fn site() -> Site {
    let site = Site::with_package();
    write(&site, "large", noise(1, 1 << 20));
    (0..40).for_each(|n| write(&site, &format!("small-{n}"), format!("{n} ").repeat(200)));
    write(&site, "empty", "");
    site.update().unwrap();
    site
}

fn inventory(copies: &Packages) -> Inventory {
    let mut bytes = Vec::new();
    let said = copies.write_inventory(&mut bytes, &Progress::default()).unwrap();
    assert_eq!(said.bytes, bytes.len() as u64);
    Inventory::read(&mut &bytes[..]).unwrap()
}

fn bundle(site: &Site, wanted: &[&str], base: Option<&Inventory>) -> Vec<u8> {
    let wanted = wanted.iter().map(|selector| (package("p"), selector.parse().unwrap()));
    let versions = site.packages.prestaged_versions(&wanted.collect::<Vec<_>>()).unwrap();
    let (mut bytes, progress) = (Vec::new(), Progress::default());
    let said = site.packages.export(versions, base, &mut bytes, &progress).unwrap();
    assert_eq!(said.bundle_bytes, bytes.len() as u64);
    bytes
}

fn import(copies: &Packages, mut bundle: impl Read) -> Result<Imported, PrestageError> {
    copies.import(&mut bundle, None, &|_| Standing::Unknown, &Progress::default())
}

fn states(imported: &Imported) -> Vec<(u64, ImportedState)> {
    imported.versions.iter().map(|v| (v.version, v.state)).collect()
}

#[track_caller]
fn gives(copies: &Packages, selector: &str, to: &Path, want: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let selector: Selector = selector.parse().unwrap();
    let progress = Progress::default();
    copies.restore(&package("p"), &selector, to, Extra::Remove, &progress).unwrap();
    assert_eq!(common::tree(to), common::tree(want));
}

fn is_empty(copies: &Packages) -> bool {
    copies.held().unwrap().is_empty() && copies.library().stats().unwrap().chunks == 0
}

fn collect(copies: &Packages) {
    for _ in 0..2 {
        let progress = Progress::default();
        copies.library().gc(&GcOptions::default(), &ManifestLinks, &progress).unwrap();
    }
}

#[test]
fn an_empty_library_gets_all_and_the_second_time_nothing() {
    let (site, out) = (site(), tempfile::tempdir().unwrap());
    site.packages
        .set_channel(&package("p"), &"stable".parse().unwrap(), &Selector::Number(2))
        .unwrap();
    let copies = copies(&site);
    let bundle = bundle(&site, &["latest", "2"], None);
    let first = import(&copies, &bundle[..]).unwrap();
    assert_eq!(states(&first), [(2, ImportedState::Held)]);
    assert!(first.damage.is_none() && first.chunks > 40, "{first:?}");
    for name in ["2", "latest", "stable"] {
        gives(&copies, name, out.path(), &site.source());
    }
    let second = import(&copies, &bundle[..]).unwrap();
    assert_eq!(states(&second), [(2, ImportedState::Already)]);
    assert_eq!((second.chunks, second.stored_bytes), (0, 0));
}

#[test]
fn only_what_the_target_lacks_is_carried() {
    let (site, out) = (site(), tempfile::tempdir().unwrap());
    let copies = copies(&site);
    import(&copies, &bundle(&site, &["2"], None)[..]).unwrap();
    std::fs::rename(site.source().join("large"), site.source().join("moved")).unwrap();
    write(&site, "new", noise(2, 10_000));
    site.update().unwrap();
    let bundle = bundle(&site, &["latest"], Some(&inventory(&copies)));
    assert!(bundle.len() < 20_000, "{} bytes for 10 000 new ones", bundle.len());
    let imported = import(&copies, &bundle[..]).unwrap();
    assert_eq!(states(&imported), [(3, ImportedState::Held)]);
    gives(&copies, "latest", out.path(), &site.source());

    // A stale one is taken in too, and moves no name back.
    let stale = self::bundle(&site, &["2"], None);
    assert_eq!(states(&import(&copies, &stale[..]).unwrap()), [(2, ImportedState::Already)]);
    gives(&copies, "latest", out.path(), &site.source());
}

#[test]
fn a_bundle_of_another_site_or_with_a_broken_head_is_refused_and_nothing_is_stored() {
    let site = site();
    let bundle = bundle(&site, &["2"], None);
    let foreign = SiteKey::from_seed([2; 32]).public();
    let clock = Arc::new(jiff::Timestamp::now);
    let other = Packages::open_replica(library(), foreign, site.path("c"), clock).unwrap();
    let refused = import(&other, &bundle[..]);
    assert!(matches!(refused, Err(PrestageError::Bundle(BadBundle::Foreign { .. }))));
    assert!(is_empty(&other));
    let of_other = inventory(&other);
    let info = site.packages.resolve(&package("p"), &Selector::Latest).unwrap();
    let (mut out, progress) = (Vec::new(), Progress::default());
    let refused = site.packages.export(vec![info], Some(&of_other), &mut out, &progress);
    assert!(matches!(refused, Err(PrestageError::ForeignInventory { .. })) && out.is_empty());

    let copies = copies(&site);
    let head = 16 + u32::from_le_bytes(bundle[12..16].try_into().unwrap()) as usize + 64;
    for at in (0..20).chain((20..head).step_by(13)) {
        let mut broken = bundle.clone();
        broken[at] ^= 4;
        let refused = import(&copies, &broken[..]);
        // Of the two reserved bytes nothing depends, until the digest at the end.
        let is_reserved = (10..12).contains(&at);
        assert_eq!(matches!(refused, Err(PrestageError::Bundle(_))), !is_reserved, "byte {at}");
        if is_reserved {
            assert!(refused.unwrap().damage.is_some());
            copies.let_go(&package("p"), 2).unwrap();
            copies.settle_prestaged(&package("p"), 2).unwrap();
            collect(&copies);
        }
        assert!(is_empty(&copies), "byte {at}");
    }
    for cut in [0, 7, 15, head - 1] {
        assert!(matches!(import(&copies, &bundle[..cut]), Err(PrestageError::Bundle(_))));
        assert!(is_empty(&copies), "byte {cut}");
    }
    let of_a_site = import(&site.packages, &bundle[..]);
    assert!(matches!(of_a_site, Err(PrestageError::Package(PackageError::NotAReplica))));
}

/// Where each record of a bundle begins, with what it is.
fn records(bundle: &[u8]) -> Vec<(usize, Record)> {
    let mut decoder = BundleDecoder::default();
    decoder.push(bundle);
    let mut found = Vec::new();
    loop {
        let at = decoder.at().1 as usize;
        match decoder.next_step().unwrap() {
            Some(Step::Record(record)) => found.push((at, record)),
            Some(Step::Head(_)) => {}
            None => return found,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_damaged_record_is_named_and_costs_no_other() {
    let (site, out) = (site(), tempfile::tempdir().unwrap());
    let bundle = bundle(&site, &["1", "2"], None);
    let records = records(&bundle);
    assert!(matches!(records.last(), Some((_, Record::End))));
    for (n, (start, record)) in records.iter().enumerate() {
        // A byte in its body.
        let copies = copies(&site);
        let mut broken = bundle.clone();
        broken[start + 16] ^= 1;
        let imported = import(&copies, &broken[..]).unwrap();
        let damage = imported.damage.clone().unwrap();
        assert_eq!((damage.record, damage.offset), (n as u64 + 1, *start as u64), "{record:?}");
        let whole = imported.versions.iter().all(|v| v.state == ImportedState::Held);
        let is_needed = matches!(record, Record::Recipe { .. } | Record::Chunks(_));
        assert!(whole || is_needed || matches!(record, Record::Version(_)), "{record:?}");
        let missing: u64 = imported.versions.iter().map(|v| v.missing_contents).sum();
        assert_eq!(whole, missing == 0 && imported.versions.len() == 2, "{imported:?}");
        if !whole {
            let visible = copies.held().unwrap();
            assert!(imported.versions.iter().all(|v| {
                let is_visible = visible.iter().any(|held| held.version == v.version);
                is_visible == (v.state == ImportedState::Held)
            }));
        }
        // The good bundle brings the rest, and no more.
        let rest = import(&copies, &bundle[..]).unwrap();
        let stored = imported.chunks + rest.chunks;
        let n_chunks = copies.library().stats().unwrap().chunks;
        assert!(rest.damage.is_none() && stored == n_chunks, "{stored} of {n_chunks}");
        gives(&copies, "2", out.path(), &site.source());
    }
    let mut broken = bundle.clone();
    broken[records[2].0] ^= 1;
    let imported = import(&copies(&site), &broken[..]).unwrap();
    assert_eq!(imported.damage.unwrap().record, 3, "the way is lost there");
}

#[test]
fn a_cut_bundle_is_gone_on_with() {
    let (site, out) = (site(), tempfile::tempdir().unwrap());
    let bundle = bundle(&site, &["2"], None);
    let copies = copies(&site);
    let starts: Vec<usize> = records(&bundle).iter().map(|(start, _)| *start).collect();
    let mut stored = 0;
    for cut in starts.iter().flat_map(|start| [*start, start + 1, start + 17]) {
        let imported = import(&copies, &bundle[..cut.min(bundle.len() - 1)]).unwrap();
        let damage = imported.damage.unwrap();
        assert!(damage.what.contains("cut off"), "{damage:?}");
        stored += imported.chunks;
    }
    let last = import(&copies, &bundle[..]).unwrap();
    assert!(last.damage.is_none());
    assert_eq!(stored + last.chunks, copies.library().stats().unwrap().chunks, "none came twice");
    gives(&copies, "latest", out.path(), &site.source());
}

#[test]
fn of_versions_that_a_cut_bundle_does_not_come_to_it_is_told_what_is_here() {
    let site = site();
    write(&site, "large", noise(2, 1 << 20));
    site.update().unwrap();
    let bundle = bundle(&site, &["2", "3"], None);
    let cut = &bundle[..records(&bundle)[1].0];
    let none = copies(&site);
    let found = import(&none, cut).unwrap();
    assert_eq!(found.versions[1].state, ImportedState::NotReached);
    assert!(found.versions[1].missing_bytes > 1 << 20 && none.prestaged() == [(package("p"), 2)]);

    let all = copies(&site);
    import(&all, &bundle[..]).unwrap();
    let here = states(&import(&all, cut).unwrap());
    assert_eq!(here, [(2, ImportedState::Already), (3, ImportedState::Already)]);

    // Kept and not visible: it is all here, and becomes visible once it is wished.
    let kept = copies(&site);
    let import = |bundle: &[u8], standing| {
        let standing = move |_: &VersionInfo| standing;
        kept.import(&mut &bundle[..], None, &standing, &Progress::default()).unwrap()
    };
    import(&bundle, Standing::Unwished);
    let here = states(&import(cut, Standing::Unwished));
    assert_eq!(here, [(2, ImportedState::Kept), (3, ImportedState::Kept)]);
    let here = states(&import(cut, Standing::Wished));
    assert_eq!(here, [(2, ImportedState::Held), (3, ImportedState::Held)]);
}

/// What fails when it is read on.
struct Fails<'a>(&'a [u8]);

impl Read for Fails<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(to)? {
            0 => Err(std::io::Error::other("the medium is gone")),
            n => Ok(n),
        }
    }
}

#[test]
fn a_medium_that_fails_is_named_and_what_came_is_kept() {
    let site = site();
    let bundle = bundle(&site, &["2"], None);
    let copies = copies(&site);
    let last = records(&bundle).pop().unwrap().0;
    let imported = import(&copies, Fails(&bundle[..last])).unwrap();
    assert!(imported.damage.unwrap().what.contains("the medium is gone"));
    assert_eq!(imported.versions[0].state, ImportedState::Held, "all but the end mark came");
}

#[test]
fn what_the_target_lost_since_its_inventory_is_counted_and_for_the_network_to_bring() {
    let site = site();
    let copies = copies(&site);
    import(&copies, &bundle(&site, &["2"], None)[..]).unwrap();
    let base = inventory(&copies);
    copies.let_go(&package("p"), 2).unwrap();
    copies.settle_prestaged(&package("p"), 2).unwrap();
    collect(&copies);
    assert!(is_empty(&copies));
    write(&site, "new", noise(2, 10_000));
    site.update().unwrap();
    let bundle = bundle(&site, &["latest"], Some(&base));
    let imported = import(&copies, &bundle[..]).unwrap();
    assert!(imported.damage.is_none());
    let version = &imported.versions[0];
    assert_eq!(version.state, ImportedState::Incomplete);
    let all: u64 = common::tree(&site.source()).values().map(|file| file.3.len() as u64).sum();
    assert_eq!(version.missing_bytes, all - 10_000, "all but the new file");
    assert!(copies.held().unwrap().is_empty(), "a version shows that is not whole");
    // What came is kept from garbage collection, and a whole bundle brings the rest.
    collect(&copies);
    let n_kept = imported.chunks;
    let rest = import(&copies, &self::bundle(&site, &["latest"], None)[..]).unwrap();
    assert_eq!(rest.versions[0].state, ImportedState::Held);
    assert_eq!(rest.chunks + n_kept, copies.library().stats().unwrap().chunks);
}

#[test]
fn what_nobody_wishes_is_kept_for_a_while_and_shown_to_nobody() {
    let site = site();
    let copies = copies(&site);
    let bundle = bundle(&site, &["2"], None);
    let import = |standing| {
        let standing = move |_: &VersionInfo| standing;
        copies.import(&mut &bundle[..], None, &standing, &Progress::default()).unwrap()
    };
    let kept = import(Standing::Unwished);
    assert_eq!(states(&kept), [(2, ImportedState::Kept)]);
    assert!(kept.versions[0].kept_until.is_some() && copies.held().unwrap().is_empty());
    collect(&copies);
    assert_eq!(copies.prestaged(), [(package("p"), 2)]);
    let options = GcOptions { dry_run: true };
    let report = copies.library().gc(&options, &ManifestLinks, &Progress::default()).unwrap();
    // Nothing will be free when the grace ends.
    assert_eq!((report.waiting_bytes, report.reclaimable_at), (0, None));
    let until = kept.versions[0].kept_until.unwrap().as_second() as u64;
    assert!(report.kept_bytes > 1 << 20, "{report:?}");
    assert!(report.kept_until.is_some_and(|end| end.abs_diff(until) <= 1), "{report:?}");
    let stats = copies.library().stats().unwrap();
    assert!(stats.kept > 40 && stats.kept == stats.condemned, "{stats:?}");

    let held = import(Standing::Wished);
    assert_eq!((states(&held), held.chunks), (vec![(2, ImportedState::Held)], 0));
    assert!(held.versions[0].kept_until.is_none() && copies.prestaged().is_empty());
    copies.let_go(&package("p"), 2).unwrap();
    collect(&copies);
    assert!(is_empty(&copies), "nothing keeps what is let go of");
}

#[test]
fn a_chunk_that_is_a_revoked_content_of_its_own_comes_as_part_of_a_larger_one() {
    let (site, out) = (site(), tempfile::tempdir().unwrap());
    let info = site.packages.resolve(&package("p"), &Selector::Latest).unwrap();
    let manifest = site.packages.manifest(info.manifest).unwrap();
    let large = manifest.lookup(b"large").unwrap().file().unwrap();
    let library = site.packages.library();
    let chunk = library.recipe(large.digest).unwrap().chunks()[1];
    library.revoke(chunk.0, "bad by itself").unwrap();
    let copies = copies(&site);
    import(&copies, &bundle(&site, &["2"], None)[..]).unwrap();
    gives(&copies, "2", out.path(), &site.source());

    library.revoke(large.digest, "bad").unwrap();
    let (mut bytes, progress) = (Vec::new(), Progress::default());
    let refused = site.packages.export(vec![info], None, &mut bytes, &progress).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever the target holds, a bundle made against its inventory makes it whole, and has no
    /// chunk that the target held.
    #[test]
    fn an_import_after_an_export_against_the_inventory_is_exact(
        before in prop::collection::btree_map(0u8..12, (0u64..6, 0usize..200_000), 0..6),
        after in prop::collection::btree_map(0u8..12, (0u64..6, 0usize..200_000), 1..6),
    ) {
        let (site, out) = (Site::with_package(), tempfile::tempdir().unwrap());
        let copies = copies(&site);
        let become_of = |files: &std::collections::BTreeMap<u8, (u64, usize)>| {
            std::fs::remove_dir_all(site.source()).unwrap();
            std::fs::create_dir(site.source()).unwrap();
            for (name, (seed, len)) in files {
                write(&site, &name.to_string(), noise(*seed, *len));
            }
            site.update().unwrap();
        };
        become_of(&before);
        import(&copies, &bundle(&site, &["latest"], None)[..]).unwrap();
        let base = inventory(&copies);
        let held = copies.library().stats().unwrap().chunks;
        become_of(&after);
        let bundle = bundle(&site, &["latest"], Some(&base));
        let imported = import(&copies, &bundle[..]).unwrap();
        prop_assert!(imported.damage.is_none());
        prop_assert!(imported.versions.iter().all(|v| v.missing_bytes == 0));
        prop_assert_eq!(held + imported.chunks, copies.library().stats().unwrap().chunks);
        let carried: u64 = records(&bundle)
            .into_iter()
            .map(|(_, record)| match record {
                Record::Chunks(frame) => frame.lens().len() as u64,
                _ => 0,
            })
            .sum();
        prop_assert_eq!(carried, imported.chunks);
        gives(&copies, "latest", out.path(), &site.source());
    }
}
