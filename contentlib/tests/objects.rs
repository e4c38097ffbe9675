//! A library on an object store that fails, says that it failed when it did not, and does late what
//! it was asked long before.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "kit/bucket.rs"]
mod bucket;
mod kit;

use bucket::{Bucket, Outcome};
use contentlib::kv::memory::MemoryKv;
use contentlib::store::objects::{ObjectPacks, Patience, Place};
use contentlib::{
    GcOptions, Library, MaintainError, NoLinks, ObjectOptions, ObjectsError, OpenError, Options,
    Progress, System,
};
use kit::{options, random, read, set, verify};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn packs_with(
    bucket: &Arc<Bucket>,
    folder: &Path,
    single_writer: bool,
) -> Result<Arc<ObjectPacks>, ObjectsError> {
    let options = ObjectOptions { url: None, cache_bytes: 16 << 20, single_writer, term: None };
    let (prefix, url) = ("library".into(), "memory://bucket/library".into());
    let place = Place { store: bucket.clone(), prefix, url };
    let system = Arc::new(System);
    ObjectPacks::over(place, &options, folder, system, patience(3)).map(Arc::new)
}

fn patience(tries: u32) -> Patience {
    let (first_pause, longest_pause) = (Duration::ZERO, Duration::ZERO);
    Patience { tries, first_pause, longest_pause, stall: Duration::from_secs(60) }
}

fn packs(bucket: &Arc<Bucket>, folder: &Path) -> Arc<ObjectPacks> {
    packs_with(bucket, folder, false).unwrap()
}

fn library(packs: Arc<ObjectPacks>, options: Options) -> Library {
    Library::open_on(packs, Arc::new(MemoryKv::default()), Arc::new(System), options).unwrap()
}

/// Fails every `nth` request so.
fn every(nth: usize, outcome: Outcome) -> impl FnMut() -> Outcome + Send {
    let mut n = 0;
    move || {
        n += 1;
        if n % nth == 0 { outcome } else { Outcome::Done }
    }
}

#[test]
fn single_failures_are_nobodys_concern() {
    for outcome in [Outcome::Refused, Outcome::Unheard] {
        let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
        bucket.set_faults(every(3, outcome));
        let library = library(packs(&bucket, folder.path()), options());
        let session = library.session();
        let mut all = Vec::new();
        for n in 0..6 {
            let bytes = random(n, 150_000);
            let digest = session.add_bytes(&bytes).unwrap().digest;
            session.commit(vec![set(&format!("r{n}"), digest, &[])]).unwrap();
            all.push((digest, bytes));
        }
        library.seal_idle().unwrap();
        for (digest, bytes) in &all {
            assert_eq!(read(&library, *digest).as_ref(), Some(bytes), "{outcome:?}");
        }
        assert!(verify(&library).is_clean());
        let stray = bucket.names().into_iter().find(|name| name.contains('.'));
        assert_eq!(stray, None, "all packs are sealed: no segment is left");
    }
}

#[test]
fn what_cannot_be_written_is_an_error_and_the_next_commit_goes_on() {
    let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    let library = library(packs(&bucket, folder.path()), options());
    let session = library.session();
    let kept = session.add_bytes(&random(1, 100_000)).unwrap().digest;
    session.commit(vec![set("kept", kept, &[])]).unwrap();
    bucket.set_faults(|| Outcome::Refused);
    let lost = session.add_bytes(&random(2, 100_000)).unwrap().digest;
    assert!(session.commit(vec![set("lost", lost, &[])]).is_err());
    bucket.set_faults(|| Outcome::Done);
    assert!(library.get_ref("lost").unwrap().is_none());
    let session = library.session();
    let later = session.add_bytes(&random(3, 100_000)).unwrap().digest;
    session.commit(vec![set("later", later, &[])]).unwrap();
    for (digest, seed) in [(kept, 1), (later, 3)] {
        assert_eq!(read(&library, digest), Some(random(seed, 100_000)));
    }
    assert!(verify(&library).is_clean());
}

/// The process dies with a commit on its way, which arrives after the next one took over.
#[test]
fn a_commit_that_arrives_after_a_takeover_changes_nothing() {
    let (bucket, one) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    let first = library(packs(&bucket, one.path()), options());
    let session = first.session();
    let old = session.add_bytes(&random(1, 50_000)).unwrap().digest;
    session.commit(vec![set("ref", old, &[])]).unwrap();
    let ghost = session.add_bytes(&random(2, 50_000)).unwrap().digest;
    bucket.set_faults(|| Outcome::Late);
    assert!(session.commit(vec![set("ref", ghost, &[]), set("ghost", ghost, &[])]).is_err());
    // Killed now. The same machine begins again, with its lease and without its memory.
    let left = Arc::new(bucket.fork());
    let second = library(packs(&left, one.path()), options());
    assert_eq!(second.get_ref("ref").unwrap().unwrap().root, Some(old));
    let session = second.session();
    let new = session.add_bytes(&random(3, 50_000)).unwrap().digest;
    session.commit(vec![set("ref", new, &[])]).unwrap();
    left.settle(&mut || true);
    second.close().unwrap();
    drop((session, second));

    let elsewhere = tempfile::tempdir().unwrap();
    let store = packs(&left, elsewhere.path());
    let kv = Arc::new(MemoryKv::default());
    Library::rebuild_on(&*store, kv.clone(), &System).unwrap();
    let rebuilt = Library::open_on(store, kv, Arc::new(System), options()).unwrap();
    assert_eq!(rebuilt.get_ref("ref").unwrap().unwrap().root, Some(new));
    assert_eq!(rebuilt.get_ref("ghost").unwrap(), None);
    assert_eq!(read(&rebuilt, new), Some(random(3, 50_000)));
    drop(first);
}

#[test]
fn a_store_that_ignores_conditions_is_refused_unless_somebody_answers_for_it() {
    let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    bucket.ignore_conditions();
    let error = packs_with(&bucket, folder.path(), false).err().unwrap();
    assert!(matches!(error, ObjectsError::IgnoresConditions { .. }));
    assert!(error.to_string().contains("library.single_writer = true"), "{error}");
    assert!(bucket.names().is_empty(), "{:?}", bucket.names());

    let library = library(packs_with(&bucket, folder.path(), true).unwrap(), options());
    let session = library.session();
    let digest = session.add_bytes(&random(1, 100_000)).unwrap().digest;
    session.commit(vec![set("ref", digest, &[])]).unwrap();
    let other = tempfile::tempdir().unwrap();
    let error = packs_with(&bucket, other.path(), true).err().unwrap();
    assert!(matches!(error, ObjectsError::InUse { .. }), "the lease is looked at all the same");
    assert_eq!(read(&library, digest), Some(random(1, 100_000)));
}

#[test]
fn garbage_is_collected_and_the_bucket_shrinks() {
    let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    let options = Options { gc_grace: Duration::ZERO, ..options() };
    let store = packs(&bucket, folder.path());
    let library = library(store.clone(), options);
    let session = library.session();
    for n in 0..8 {
        let digest = session.add_bytes(&random(n, 200_000)).unwrap().digest;
        session.commit(vec![set(&format!("r{n}"), digest, &[])]).unwrap();
    }
    library.seal_idle().unwrap();
    let full = bucket.names().len();
    session.commit((0..7).map(|n| kit::delete(&format!("r{n}"))).collect()).unwrap();
    drop(session);
    let opened = store.requests().lists;
    for _ in 0..3 {
        library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
    }
    library.close().unwrap();
    assert!(bucket.names().len() < full, "{full} objects, then {:?}", bucket.names());
    assert_eq!(store.requests().lists, opened, "which packs there are it knows");
    assert!(verify(&library).is_clean());
    let kept = contentlib::Digest::of(&random(7, 200_000));
    assert_eq!(read(&library, kept), Some(random(7, 200_000)));
}

#[test]
fn an_object_that_somebody_deleted_is_damage_that_is_named() {
    let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    let library = library(packs(&bucket, folder.path()), options());
    let session = library.session();
    let digest = session.add_bytes(&random(1, 100_000)).unwrap().digest;
    session.commit(vec![set("ref", digest, &[])]).unwrap();
    library.seal_idle().unwrap();
    let pack = bucket.names().into_iter().find(|name| name.contains("/packs/")).unwrap();
    bucket.remove(&pack);
    std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
    let report = verify(&library);
    assert_eq!(report.bad_packs.len(), 1, "{report:?}");
    assert_eq!(report.bad_contents[0].digest, digest);
    assert_eq!(read(&library, digest), None);
}

/// What cannot be read now may be read later: an index without it would be taken for the whole.
#[test]
fn a_rebuild_ends_where_the_store_fails() {
    let (bucket, folder) = (Arc::new(Bucket::default()), tempfile::tempdir().unwrap());
    let first = library(packs(&bucket, folder.path()), options());
    for n in 0..6 {
        let session = first.session();
        let digest = session.add_bytes(&random(n, 200_000)).unwrap().digest;
        session.commit(vec![set(&format!("r{n}"), digest, &[])]).unwrap();
        first.seal_idle().unwrap();
    }
    drop(first);
    let (prefix, url) = ("library".into(), "memory://bucket/library".into());
    let place = Place { store: bucket.clone(), prefix, url };
    // A machine that has nothing of it on its disk.
    let (options, elsewhere) = (ObjectOptions::default(), tempfile::tempdir().unwrap());
    let system = Arc::new(System);
    let impatient = ObjectPacks::over(place, &options, elsewhere.path(), system, patience(1));
    let impatient = impatient.unwrap();
    for nth in [2, 5, 11] {
        bucket.set_faults(every(nth, Outcome::Refused));
        let kv = Arc::new(MemoryKv::default());
        let error = Library::rebuild_on(&impatient, kv, &System).unwrap_err();
        assert!(matches!(error, MaintainError::Open(OpenError::Io { .. })), "{nth}: {error:?}");
    }
    bucket.set_faults(|| Outcome::Done);
    let report = Library::rebuild_on(&impatient, Arc::new(MemoryKv::default()), &System).unwrap();
    assert_eq!((report.sealed_packs, report.refs), (6, 6), "{report:?}");
}
