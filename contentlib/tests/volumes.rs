//! Volumes of a library on real folders: taken in, filled, drained, lost.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::error::VolumeError;
use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::store::volumes::{MemoryKeeper, Volumes};
use contentlib::{
    AddError, Digest, GcOptions, Library, Link, Links, MaintainError, NewVolume, NoLinks,
    OpenError, Options, Progress, Ref, Session, System, VolumeState, VolumeStats,
};
use kit::{
    Failure, Other, ValueNames, copy, delete, find, open, options, random, read, set, verify,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn new_volume(path: &Path) -> NewVolume {
    NewVolume { path: path.into(), ..NewVolume::default() }
}

fn folder(within: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = within.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// `n` contents of about two packs each, each kept by a ref.
fn fill(library: &Library, first: u64, n: u64) -> Vec<(Digest, Vec<u8>)> {
    let one = |seed| {
        let bytes = random(seed, 700 << 10);
        let session = library.session();
        let digest = session.add_bytes(&bytes).unwrap().digest;
        session.commit(vec![set(&format!("ref {seed}"), digest, &[])]).unwrap();
        (digest, bytes)
    };
    (first..first + n).map(one).collect()
}

fn reads_back(library: &Library, contents: &[(Digest, Vec<u8>)]) {
    for (digest, bytes) in contents {
        assert!(read(library, *digest).as_ref() == Some(bytes));
    }
}

fn volume(library: &Library, name: &str) -> VolumeStats {
    library.volumes().unwrap().into_iter().find(|volume| volume.name == name).unwrap()
}

fn drain(library: &Library, name: &str) {
    let report = library.drain_volume(name, &Progress::default()).unwrap();
    assert_eq!(report.left, []);
    assert_eq!(volume(library, name).packs, 0);
}

#[test]
fn a_volume_is_added_filled_drained_and_removed_while_the_library_is_used() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    fs::create_dir(two.join("lost+found")).unwrap();
    let library = open(&home);
    let mut all = fill(&library, 0, 3);
    library.add_volume(&new_volume(&two)).unwrap();
    drain(&library, "home");
    reads_back(&library, &all);
    all.extend(fill(&library, 10, 2));
    assert_eq!((volume(&library, "home").packs, volume(&library, "two").packs > 5), (0, true));
    library.close().unwrap();
    drop(library);

    // All that is known lies on the second volume now, and the list says so.
    let library = open(&home);
    assert_eq!(volume(&library, "home").state, VolumeState::Draining);
    reads_back(&library, &all);
    assert!(verify(&library).is_clean());
    let refused = library.remove_volume("two");
    assert!(matches!(refused, Err(MaintainError::Volume(VolumeError::HoldsPacks { .. }))));
    let last = library.drain_volume("two", &Progress::default());
    assert!(matches!(last, Err(MaintainError::Volume(VolumeError::LastActive { .. }))));
    drop(library);
    Library::rebuild_index(&home, options(), &Progress::default()).unwrap();

    let library = open(&home);
    reads_back(&library, &all);
    library.resume_volume("home").unwrap();
    let progress = Progress::default();
    let report = library.drain_volume("two", &progress).unwrap();
    assert_eq!(progress.bytes.into_inner(), report.bytes);
    assert_eq!(progress.total_bytes.into_inner(), report.bytes);
    library.remove_volume("two").unwrap();
    let left: Vec<_> =
        fs::read_dir(&two).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lost+found"]);
    reads_back(&library, &all);
    let _ = library.add_volume(&new_volume(&two)).unwrap();
}

#[test]
fn a_place_that_cannot_be_a_volume_is_refused_by_what_is_wrong_with_it() {
    use VolumeError::*;
    let at = tempfile::tempdir().unwrap();
    let (home, other) = (folder(&at, "home"), folder(&at, "other"));
    let (full, foreign) = (folder(&at, "full"), folder(&at, "foreign"));
    fs::write(full.join("a file"), "").unwrap();
    let library = open(&home);
    open(&other).add_volume(&new_volume(&foreign)).unwrap();
    let two = folder(&at, "two");
    let named = |name: &str, path: &Path| NewVolume { name: Some(name.into()), ..new_volume(path) };
    library.add_volume(&named("two", &two)).unwrap();
    let three = folder(&at, "three");
    let refused = |new: NewVolume| match library.add_volume(&new) {
        Err(MaintainError::Volume(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(new_volume(Path::new("three"))), NotAbsolute { .. }));
    assert!(matches!(refused(new_volume(&at.path().join("none"))), NotAFolder { .. }));
    assert!(matches!(refused(new_volume(&full.join("a file"))), NotAFolder { .. }));
    assert!(matches!(refused(new_volume(&full)), NotEmpty { .. }));
    assert!(matches!(refused(new_volume(&foreign)), OfAnotherLibrary { .. }));
    assert!(matches!(refused(new_volume(&two)), InUse { .. }));
    let again = folder(&at, "two by another path");
    fs::copy(two.join("depot-volume.toml"), again.join("depot-volume.toml")).unwrap();
    assert!(matches!(refused(new_volume(&again)), InUse { .. }));
    assert!(matches!(refused(new_volume(&home.join("packs"))), InUse { .. }));
    assert!(matches!(refused(new_volume(at.path())), InUse { .. }));
    assert!(matches!(refused(named("two", &three)), NameTaken { .. }));
    assert!(matches!(refused(named("home", &three)), NameTaken { .. }));
    assert!(matches!(refused(named("Two!", &three)), BadName { .. }));
    assert!(matches!(refused(named("", &three)), BadName { .. }));
    let large = NewVolume { reserve: Some(u64::MAX), ..new_volume(&three) };
    assert!(matches!(refused(large), Reserve { .. }));
    assert_eq!(fs::read_dir(&three).unwrap().count(), 0, "what is refused leaves nothing behind");
    assert_eq!(library.volumes().unwrap().len(), 2);
}

#[test]
fn a_volume_that_is_not_there_is_named_and_can_be_given_up() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    let library = open(&home);
    let kept = fill(&library, 0, 2);
    library.add_volume(&new_volume(&two)).unwrap();
    library.drain_volume("home", &Progress::default()).unwrap();
    library.resume_volume("home").unwrap();
    let packs = volume(&library, "two").packs;
    library.close().unwrap();
    drop(library);
    let whole = copy(at.path());

    let there = Library::give_up_volume(&home, "two");
    assert!(matches!(there, Err(MaintainError::Volume(VolumeError::NotLost { .. }))));
    let (stowed, empty) = (at.path().join("stowed"), &two);
    fs::rename(&two, &stowed).unwrap();
    fs::create_dir(empty).unwrap();
    let error = Library::open(&home, options()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Volume(VolumeError::Missing { .. })));
    assert!(text.contains("two") && text.contains(two.to_str().unwrap()), "{text}");
    assert!(text.contains("remove two --lost"), "{text}");
    let rebuilt = Library::rebuild_index(&home, options(), &Progress::default());
    assert!(matches!(rebuilt, Err(MaintainError::Open(OpenError::Volume(_)))));
    // Another volume's disk at its place.
    let marker = fs::read_to_string(stowed.join("depot-volume.toml")).unwrap();
    let (head, id) = marker.trim_end().trim_end_matches('"').rsplit_once('"').unwrap();
    let swapped: String = id.chars().rev().collect();
    fs::write(two.join("depot-volume.toml"), format!("{head}\"{swapped}\"\n")).unwrap();
    let error = Library::open(&home, options()).err().unwrap();
    assert!(matches!(error, OpenError::Volume(VolumeError::WrongVolume { .. })), "{error}");

    Library::give_up_volume(&home, "two").unwrap();
    let library = open(&home);
    let report = verify(&library);
    assert_eq!(report.bad_packs.len() as u64, packs);
    let mut hit: Vec<Digest> = report.bad_contents.iter().map(|hit| hit.digest).collect();
    let mut want: Vec<Digest> = kept.iter().map(|(digest, _)| *digest).collect();
    hit.sort();
    want.sort();
    assert_eq!(hit, want);
    assert!(kept.iter().all(|(digest, _)| read(&library, *digest).is_none()));

    // Another holder heals all of it.
    fs::remove_dir_all(&two).unwrap();
    let list = whole.path().join("home/volumes.toml");
    let moved = fs::read_to_string(&list).unwrap();
    let there = whole.path().join("two");
    fs::write(&list, moved.replace(two.to_str().unwrap(), there.to_str().unwrap())).unwrap();
    let mut other = Other(open(&whole.path().join("home")));
    let damaged = library.damaged(&NoLinks).unwrap();
    library.repair(&damaged, &mut other, &Progress::default()).unwrap();
    reads_back(&library, &kept);
}

#[test]
fn a_drain_that_was_killed_between_copy_and_deletion_is_settled() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    let library = open(&home);
    let all = fill(&library, 0, 3);
    library.close().unwrap();
    library.add_volume(&new_volume(&two)).unwrap();
    drop(library);
    // As a kill leaves it: copies of two packs, and part of a third.
    let packs = kit::packs(&home);
    for pack in &packs[..2] {
        let to = two.join("packs").join(pack.strip_prefix(home.join("packs")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(pack, to).unwrap();
    }
    fs::create_dir(two.join("packs/incoming")).unwrap();
    fs::write(two.join("packs/incoming/half"), "half a pack").unwrap();

    let library = open(&home);
    reads_back(&library, &all);
    assert!(!two.join("packs/incoming").exists());
    assert_eq!(volume(&library, "two").packs, 2);
    drain(&library, "home");
    assert_eq!(volume(&library, "two").packs, packs.len() as u64);
    reads_back(&library, &all);
    assert!(verify(&library).is_clean());

    // Where nobody drains on, garbage collection drops the second copies.
    library.resume_volume("home").unwrap();
    let pack = &kit::packs(&two)[0];
    let to = home.join("packs").join(pack.strip_prefix(two.join("packs")).unwrap());
    fs::copy(pack, &to).unwrap();
    library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
    let copies = |at: &Path| {
        kit::packs(at).iter().filter(|p| p.ends_with(pack.file_name().unwrap())).count()
    };
    assert_eq!(copies(&home) + copies(&two), 1);
    reads_back(&library, &all);
}

#[test]
fn a_damaged_pack_moves_as_it_is_and_another_under_its_name_stays() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    let library = open(&home);
    let all = fill(&library, 0, 2);
    library.close().unwrap();
    library.add_volume(&new_volume(&two)).unwrap();
    let (digest, bytes) = &all[1];
    let part = &bytes[300_000..300_064];
    let damaged = kit::packs(&home).into_iter().find_map(|p| Some((find(&p, part)?, p)));
    let (offset, damaged) = damaged.unwrap();
    kit::flip(&damaged, offset, 1);
    drain(&library, "home");
    assert!(read(&library, *digest).is_none());
    reads_back(&library, &all[..1]);

    // Bytes of the same name that are not the same are left for people.
    library.resume_volume("home").unwrap();
    let moved = two.join("packs").join(damaged.strip_prefix(home.join("packs")).unwrap());
    fs::write(&damaged, "not the same").unwrap();
    let unreadable = two.join("packs/0a/0000000000000000000000000000000a.pack");
    fs::create_dir_all(&unreadable).unwrap();
    let report = library.drain_volume("two", &Progress::default()).unwrap();
    let left: Vec<&str> = report.left.iter().map(|left| left.error.as_str()).collect();
    assert!(left[0].contains("cannot be opened") && left[1].contains("home"), "{report:?}");
    assert!(left.len() == 2 && moved.exists() && damaged.exists());
}

#[test]
fn a_full_volume_is_left_for_one_with_room_and_none_is_filled_into_its_reserve() {
    const CAPACITY: u64 = 1 << 20;
    let made = || {
        let store = MemoryStore::default();
        store.set_capacity(CAPACITY);
        store
    };
    let home = Arc::new(made());
    let keeper = Arc::new(MemoryKeeper::with(made));
    let options = Options { reserve: 100 << 10, pack_target: 8 << 20, ..options() };
    let volumes = Volumes::over(home, keeper, options.reserve).unwrap();
    let kv = Arc::new(MemoryKv::default());
    let library = Library::open_over(volumes, kv, Arc::new(System), options).unwrap();
    let session = library.session();
    let mut seed = 0;
    // Until nothing more fits.
    let mut fill = || loop {
        seed += 1;
        let bytes = random(seed, 30_000);
        match session.add_bytes(&bytes) {
            Ok(added) => session.commit(vec![set(&format!("{seed}"), added.digest, &[])]).unwrap(),
            Err(error) => return (seed, error),
        }
    };
    let (n_alone, full) = fill();
    assert!(full.to_string().starts_with("the volume is full: "), "{full}");
    let path = "/two".into();
    library.add_volume(&NewVolume { path, reserve: Some(400 << 10), name: None }).unwrap();
    let (n_both, full) = fill();
    assert!(n_both > n_alone + 10);
    assert!(full.to_string().starts_with("all 2 volumes are full: "), "{full}");
    let found = library.volumes().unwrap();
    for volume in &found {
        // Looked at whenever a quarter of the reserve was written.
        let (free, reserve) = (volume.free_bytes.unwrap(), volume.reserve_bytes);
        assert!(free + reserve / 4 + 35_000 > reserve && free < reserve + 35_000, "{volume:?}");
    }
    // No room for its packs: they stay, all of them, and deleting makes room.
    let error = library.drain_volume("two", &Progress::default()).unwrap_err();
    assert!(matches!(error, MaintainError::Add(AddError::Full { .. })), "{error}");
    assert_eq!(library.volumes().unwrap()[1].packs, found[1].packs);
    session.commit((1..20).map(|n| delete(&format!("{n}"))).collect()).unwrap();
    for n in 20..n_alone {
        assert!(read(&library, Digest::of(&random(n, 30_000))).is_some());
    }
}

/// Garbage collection needs the reserve to copy what is live; whoever adds meanwhile must not take
/// it away.
#[test]
fn the_reserve_is_garbage_collections_alone() {
    /// Adds while collection marks.
    struct Meanwhile<'a>(&'a Session, Mutex<Vec<AddError>>);
    impl Links for Meanwhile<'_> {
        fn links(&self, name: &str, to: &Ref, library: &Library) -> Result<Vec<Link>, Failure> {
            let added = self.0.add_bytes(&random(999, 100_000));
            self.1.lock().unwrap().extend(added.err());
            ValueNames.links(name, to, library)
        }
    }
    let home = Arc::new(MemoryStore::default());
    let capacity = 1 << 20;
    home.set_capacity(capacity);
    let options = Options { reserve: 400 << 10, pack_target: 8 << 20, ..options() };
    let options = Options { gc_grace: Duration::ZERO, ..options };
    let keeper = Arc::new(MemoryKeeper::with(MemoryStore::default));
    let volumes = Volumes::over(home.clone(), keeper, options.reserve).unwrap();
    let kv = Arc::new(MemoryKv::default());
    let library = Library::open_over(volumes, kv, Arc::new(System), options).unwrap();
    let session = library.session();
    let add = |n: u64| {
        let digest = session.add_bytes(&random(n, 30_000))?.digest;
        session.commit(vec![set(&n.to_string(), digest, &[])]).unwrap();
        Ok::<_, AddError>(digest)
    };
    let kept: Vec<Digest> = (0..).map_while(|n| add(n).ok()).collect();
    drop(session);
    library.seal_idle().unwrap();
    // A third of the pack stays live, and is copied into the reserve.
    let dead = (0..kept.len()).filter(|n| n % 3 != 0).map(|n| delete(&n.to_string()));
    library.session().commit(dead.collect()).unwrap();
    let session = library.session();
    let meanwhile = Meanwhile(&session, Mutex::default());
    let collect = || library.gc(&GcOptions::default(), &meanwhile, &Progress::default()).unwrap();
    assert!(collect().condemned > 0);
    let refused = std::mem::take(&mut *meanwhile.1.lock().unwrap());
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|error| matches!(error, AddError::Full { .. })), "{refused:?}");
    drop(meanwhile);
    drop(session);
    let nobody = library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
    assert!(nobody.repacked > 0 && nobody.freed_bytes > 0, "{nobody:?}");
    for (n, digest) in kept.iter().enumerate().step_by(3) {
        assert_eq!(read(&library, *digest), Some(random(n as u64, 30_000)));
    }
}

#[test]
fn a_cancelled_drain_leaves_every_pack_somewhere_and_goes_on() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    let library = open(&home);
    let all = fill(&library, 0, 4);
    library.add_volume(&new_volume(&two)).unwrap();
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| library.drain_volume("home", &progress));
        while progress.bytes.load(SeqCst) == 0 && !run.is_finished() {
            std::thread::yield_now();
        }
        progress.cancel();
        let ended = run.join().unwrap();
        assert!(matches!(ended, Ok(_) | Err(MaintainError::Cancelled(_))), "{ended:?}");
    });
    reads_back(&library, &all);
    drain(&library, "home");
    reads_back(&library, &all);
}

#[test]
fn a_volume_is_not_removed_while_a_pack_moves_there() {
    let at = tempfile::tempdir().unwrap();
    let (home, two, three) = (folder(&at, "home"), folder(&at, "two"), folder(&at, "three"));
    let library = open(&home);
    let all = fill(&library, 0, 3);
    library.add_volume(&new_volume(&three)).unwrap();
    for _ in 0..8 {
        if library.volumes().unwrap().len() == 2 {
            library.add_volume(&new_volume(&two)).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while library.remove_volume("two").is_err() && volume(&library, "two").packs == 0 {}
            });
            library.resume_volume("three").unwrap();
            let _ = library.drain_volume("home", &Progress::default());
        });
        reads_back(&library, &all);
        library.resume_volume("home").unwrap();
        for name in ["two", "three"] {
            let _ = library.drain_volume(name, &Progress::default());
        }
        reads_back(&library, &all);
    }
}

/// Readers, writers and garbage collection go on while packs go to and fro.
#[test]
fn packs_move_under_readers_writers_and_garbage_collection() {
    let at = tempfile::tempdir().unwrap();
    let (home, two) = (folder(&at, "home"), folder(&at, "two"));
    let library = Library::open(
        &home,
        contentlib::Options { gc_grace: Duration::from_millis(1), ..options() },
    )
    .unwrap();
    let all = fill(&library, 0, 4);
    library.add_volume(&new_volume(&two)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    reads_back(&library, &all);
                }
            });
        }
        scope.spawn(|| {
            let mut seed = 100;
            while !stop.load(SeqCst) {
                // One name again and again: what it held becomes garbage.
                let session = library.session();
                let digest = session.add_bytes(&random(seed, 300 << 10)).unwrap().digest;
                session.commit(vec![set("changing", digest, &[])]).unwrap();
                seed += 1;
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
            }
        });
        for _ in 0..3 {
            for (from, to) in [("home", "two"), ("two", "home")] {
                library.resume_volume(to).unwrap();
                drain(&library, from);
            }
        }
        stop.store(true, SeqCst);
    });
    reads_back(&library, &all);
    assert!(verify(&library).is_clean());
}
