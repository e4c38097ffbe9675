//! Garbage collection beside everything else, on real threads and a real folder.
//!
//! Grace is zero, so that every mistake about what is live costs bytes at once. A bounded number
//! of rounds, a few seconds' work.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::block::Codec;
use contentlib::{
    AddError, ChunkId, CommitError, Digest, Frame, GcOptions, Library, Options, Progress, Recipe,
};
use kit::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is acknowledged and not yet given up: ref name, root, and the contents that it names.
type Held = Arc<Mutex<Vec<(String, Digest, Vec<Digest>)>>>;

struct Shared {
    library: Library,
    held: Held,
    /// Contents that several writers add, drop and add again.
    pool: Vec<Vec<u8>>,
    stop: AtomicBool,
    rounds: AtomicUsize,
}

const ROUNDS: usize = 120;
const WRITERS: usize = 3;

fn pool() -> Vec<Vec<u8>> {
    let len = |n: u64| [90, 900, 9_000, 50_000, 300_000][n as usize % 5] + n as usize;
    (0..30).map(|n| if n % 3 == 0 { text(n, len(n)) } else { random(n, len(n)) }).collect()
}

/// Adds some contents, refers to them, checks, and later lets go. Returns what was left held.
fn write(shared: &Shared, writer: u64) {
    let mut random = writer * 1_000_003 + 7;
    let mut next = move |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let mut mine: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        shared.rounds.fetch_add(1, SeqCst);
        let session = shared.library.session();
        let mut wanted = Vec::new();
        for _ in 0..1 + next(4) {
            let bytes = &shared.pool[next(shared.pool.len())];
            // Half come as files, half as another depot sends them.
            let digest = if next(2) == 0 {
                session.add_bytes(bytes).unwrap().digest
            } else {
                upload(&session, bytes)
            };
            assert_eq!(digest, Digest::of(bytes));
            wanted.push(digest);
            if next(4) == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let name = format!("{writer}/{round}");
        let root = wanted[0];
        session.commit(vec![set(&name, root, &wanted[1..])]).unwrap();
        drop(session);
        shared.held.lock().unwrap().push((name.clone(), root, wanted));
        mine.push(name);
        if mine.len() > 3 {
            let name = mine.swap_remove(next(mine.len()));
            // First off the list, so that no reader expects what is being deleted.
            shared.held.lock().unwrap().retain(|(held, _, _)| *held != name);
            shared.library.session().commit(vec![delete(&name)]).unwrap();
        }
    }
}

/// Sends a content as frames of small chunks, then its recipe; sends again what is missing.
fn upload(session: &contentlib::Session, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let chunks: Vec<&[u8]> = bytes.chunks(40_000).collect();
    let spans = chunks.iter().map(|c| (ChunkId(Digest::of(c)), c.len() as u32));
    let recipe = Recipe::new(spans).unwrap();
    let send = |chunks: &[&[u8]]| {
        let lens = chunks.iter().map(|c| c.len() as u32).collect();
        let frame = Frame::new(Codec::Raw, lens, chunks.concat().into()).unwrap();
        session.put_frame(&frame).unwrap();
    };
    chunks.chunks(3).for_each(send);
    loop {
        match session.put_recipe(digest, &recipe) {
            Ok(()) => return digest,
            Err(AddError::MissingChunks(ids)) => {
                let is_missing = |c: &&&[u8]| ids.contains(&ChunkId(Digest::of(c)));
                let again: Vec<&[u8]> = chunks.iter().filter(is_missing).copied().collect();
                send(&again);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn read_held(shared: &Shared, n: usize) {
    let entry = {
        let held = shared.held.lock().unwrap();
        held.get(n % held.len().max(1)).cloned()
    };
    let Some((name, _, contents)) = entry else { return };
    for digest in contents {
        let found = read(&shared.library, digest);
        // Given up while it was read, perhaps.
        let still = shared.held.lock().unwrap().iter().any(|(held, _, _)| *held == name);
        match found {
            Some(bytes) => assert_eq!(Digest::of(&bytes), digest),
            None => assert!(!still, "{digest} of {name} cannot be read"),
        }
    }
}

#[test]
fn collecting_garbage_loses_nothing_live_and_leaves_nothing_dead() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        threads: 2,
        reserve: 0,
        pack_target: 400 << 10,
        gc_grace: Duration::ZERO,
        ..Options::default()
    };
    let shared = Shared {
        library: Library::open(folder.path(), options.clone()).unwrap(),
        held: Held::default(),
        pool: pool(),
        stop: AtomicBool::new(false),
        rounds: AtomicUsize::new(0),
    };
    let gc = |library: &Library| {
        library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap()
    };
    let (mut runs, mut purged, mut deleted) = (0, 0, 0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS as u64)
            .map(|n| {
                let shared = &shared;
                scope.spawn(move || write(shared, n))
            })
            .collect();
        scope.spawn(|| {
            let mut n = 0;
            while !shared.stop.load(SeqCst) {
                read_held(&shared, n);
                n += 7;
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !shared.stop.load(SeqCst) {
                let report = verify(&shared.library);
                assert!(report.is_clean(), "{report:?}");
            }
        });
        scope.spawn(|| {
            while !shared.stop.load(SeqCst) {
                let report = gc(&shared.library);
                runs += 1;
                purged += report.purged;
                deleted += report.deleted_packs;
            }
        });
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        shared.stop.store(true, SeqCst);
        assert!(outcomes.iter().all(Result::is_ok), "a writer failed");
    });
    println!("{runs} collections, {purged} entries purged, {deleted} packs deleted");
    assert!(runs > 3 && purged > 0 && deleted > 0);

    // Nothing live is lost, also to an index made anew.
    let library = &shared.library;
    for _ in 0..3 {
        library.seal_idle().unwrap();
        gc(library);
    }
    let held = shared.held.lock().unwrap().clone();
    let mut reachable: Vec<Digest> = held.iter().flat_map(|(_, _, c)| c.clone()).collect();
    reachable.sort();
    reachable.dedup();
    let mut chunks: Vec<ChunkId> = Vec::new();
    for digest in &reachable {
        assert_eq!(Digest::of(&read(library, *digest).unwrap()), *digest);
        chunks.extend(library.recipe(*digest).unwrap().chunks());
    }
    chunks.sort();
    chunks.dedup();
    // Every dead one is freed.
    let stats = library.stats().unwrap();
    assert_eq!(stats.chunks, chunks.len() as u64);
    assert_eq!(stats.condemned, 0);
    let report = library.verify(&Default::default(), &ValueNames, &Progress::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let on_disk: u64 = packs(folder.path()).iter().map(|p| p.metadata().unwrap().len()).sum();
    assert!(on_disk < stats.plain_bytes * 4 / 3 + (300 << 10), "{on_disk} for {stats:?}");
    drop(shared);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    Library::rebuild_index(folder.path(), options.clone(), &Progress::default()).unwrap();
    let library = Library::open(folder.path(), options).unwrap();
    for digest in reachable {
        assert_eq!(Digest::of(&read(&library, digest).unwrap()), digest);
    }
}

/// Many callers commit at once; each sees its own change, and of a race one wins.
#[test]
fn commits_of_many_threads_are_all_made_and_races_have_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let won = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (library, won) = (&library, &won);
            scope.spawn(move || {
                for n in 0..25u64 {
                    let session = library.session();
                    let bytes = random(thread << 32 | n, 500);
                    let digest = session.add_bytes(&bytes).unwrap().digest;
                    let name = format!("{thread}/{n}");
                    session.commit(vec![set(&name, digest, &[])]).unwrap();
                    assert_eq!(library.get_ref(&name).unwrap().unwrap().root, Some(digest));
                    let to = contentlib::Ref { root: Some(digest), value: Default::default() };
                    let name = format!("race/{n}");
                    let expect = contentlib::Expect::Absent;
                    let race = contentlib::RefChange::Set { name, to, expect };
                    match session.commit(vec![race]) {
                        Ok(()) => drop(won.fetch_add(1, SeqCst)),
                        Err(CommitError::Conflict { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 25);
    assert_eq!(library.list_refs("").unwrap().len(), 8 * 25 + 25);
}

/// The same new bytes come in by several threads at once: they are stored once, and all may
/// refer to them.
#[test]
fn the_same_bytes_at_once_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    for round in 0..10 {
        let bytes = random(round, 700_000);
        let new: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let (library, bytes) = (&library, &bytes);
                    scope.spawn(move || {
                        let session = library.session();
                        let added = session.add_bytes(bytes).unwrap();
                        let name = format!("{round}/{n}");
                        session.commit(vec![set(&name, added.digest, &[])]).unwrap();
                        assert_eq!(read(library, added.digest).unwrap(), *bytes);
                        added.new_bytes
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(new, bytes.len() as u64);
    }
}
