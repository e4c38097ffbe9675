//! Garbage collection beside everything else, on real threads and a real folder.
//!
//! Grace is zero, so that every mistake about what is live costs bytes at once. A bounded number
//! of rounds, a few seconds' work.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::{
    AddError, AddOptions, ChunkId, CommitError, Digest, GcOptions, Library, Link, Links, Options,
    Progress, Ref,
};
use kit::*;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
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
                upload(&session, bytes, 40_000)
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

/// A content is stored anew, cut otherwise, while collection copies the recipe that it had before.
/// The copy comes later in the log, and its chunks go; a new index must not believe it.
#[test]
fn a_copied_recipe_does_not_overrule_the_one_stored_anew() {
    /// Uploads while collection marks.
    struct Meanwhile<'a>(&'a contentlib::Session, &'a [u8], AtomicBool);
    impl Links for Meanwhile<'_> {
        fn links(&self, name: &str, to: &Ref, library: &Library) -> Result<Vec<Link>, Failure> {
            if !self.2.swap(true, SeqCst) {
                upload(self.0, self.1, 50_000);
            }
            ValueNames.links(name, to, library)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let options = Options { pack_target: 800 << 10, gc_grace: Duration::ZERO, ..kit::options() };
    let library = Library::open(folder.path(), options.clone()).unwrap();
    let gc =
        |links: &dyn Links| library.gc(&GcOptions::default(), links, &Progress::default()).unwrap();
    // The chunks in a pack of their own, the recipe in another.
    let bytes = random(1, 300_000);
    let session = library.session();
    let digest = Digest::of(&bytes);
    send_chunks(&session, &bytes, 30_000);
    library.seal_idle().unwrap();
    upload(&session, &bytes, 30_000);
    session.commit(vec![set("x", digest, &[])]).unwrap();
    library.seal_idle().unwrap();
    // Condemned, and kept from being purged by a lease.
    let lease = session;
    library.session().commit(vec![delete("x")]).unwrap();
    assert!(gc(&ValueNames).condemned > 0);
    // So many small packs that collection merges them, and the recipe's with them.
    for n in 0..8 {
        let session = library.session();
        let small = session.add_bytes(&random(100 + n, 500)).unwrap().digest;
        session.commit(vec![set(&n.to_string(), small, &[])]).unwrap();
        library.seal_idle().unwrap();
    }
    let session = library.session();
    assert!(gc(&Meanwhile(&session, &bytes, AtomicBool::new(false))).repacked > 0);
    session.commit(vec![set("x", digest, &[])]).unwrap();
    drop((session, lease));
    assert!(gc(&ValueNames).purged > 0);
    library.seal_idle().unwrap();
    assert_eq!(read(&library, digest).as_ref(), Some(&bytes));
    drop(library);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    Library::rebuild_index(folder.path(), options.clone(), &Progress::default()).unwrap();
    let library = Library::open(folder.path(), options).unwrap();
    assert!(read(&library, digest).is_some_and(|found| found == bytes));
}

/// Collection may purge a condemned chunk at any moment: a recipe that counts on it would be
/// durable without it once anybody commits.
#[test]
fn a_recipe_of_condemned_chunks_is_taken_once_they_are_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let bytes = random(1, 100_000);
    let recipe = send_chunks(&library.session(), &bytes, 30_000);
    library.seal_idle().unwrap();
    let report = library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
    assert_eq!(report.condemned, recipe.len() as u64);
    let (session, digest) = (library.session(), Digest::of(&bytes));
    match session.put_recipe(digest, &recipe) {
        Err(AddError::MissingChunks(ids)) => assert_eq!(ids, recipe.chunks()),
        other => panic!("{other:?}"),
    }
    send_chunks(&session, &bytes, 30_000);
    session.put_recipe(digest, &recipe).unwrap();
    session.commit(vec![set("x", digest, &[])]).unwrap();
    assert_eq!(read(&library, digest), Some(bytes));
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

/// Bytes, then a sign, then nothing until it is told to end.
struct Stalls<'a>(&'a [u8], Option<mpsc::Sender<()>>, mpsc::Receiver<()>);

impl Read for Stalls<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            // Dropped, it tells that all was read.
            self.1 = None;
            let _ = self.2.recv();
        }
        self.0.read(out)
    }
}

#[test]
fn a_client_that_sends_slowly_keeps_no_other_waiting_for_what_it_sent() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let bytes = [random(1, 3 << 20), text(2, 3 << 20)].concat();
    let (was_read, read) = mpsc::channel();
    let (go_on, stall) = mpsc::channel();
    let (done, fast) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slow = Stalls(&bytes, Some(was_read), stall);
            let session = library.session();
            session.add_reader(slow, &AddOptions::default(), &Progress::default()).unwrap();
        });
        read.recv().unwrap_err();
        scope.spawn(|| {
            // All but the last of its chunks are among those that the slow one has stored.
            let session = library.session();
            session.add_bytes(&bytes[..7 << 19]).unwrap();
            session.commit(vec![]).unwrap();
            done.send(()).unwrap();
        });
        let ended = fast.recv_timeout(Duration::from_secs(20));
        drop(go_on);
        ended.expect("the fast one waits for nobody");
    });
}

/// Two contents that share chunks come in at once by one session: each may have claimed what the other needs.
#[test]
fn contents_that_share_chunks_come_in_by_one_session_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let (done, ended) = mpsc::channel();
    // On a thread of its own: one that waits for ever must fail the test, not stop it.
    std::thread::spawn(move || {
        for round in 0..40 {
            let session = library.session();
            let pieces: Vec<Vec<u8>> = (0..3).map(|n| random(round * 3 + n, 400_000)).collect();
            let contents: Vec<Vec<u8>> = (0..3)
                .map(|n| {
                    [&pieces[n][..], &pieces[(n + 1) % 3][..], &pieces[(n + 2) % 3][..]].concat()
                })
                .collect();
            std::thread::scope(|scope| {
                for (n, bytes) in contents.iter().enumerate() {
                    let (library, session) = (&library, &session);
                    scope.spawn(move || {
                        let added = session.add_bytes(bytes).unwrap();
                        let name = format!("{round}/{n}");
                        session.commit(vec![set(&name, added.digest, &[])]).unwrap();
                        // What is committed is whole, though others of the session are on their way.
                        assert_eq!(read(library, added.digest).unwrap(), *bytes);
                    });
                }
            });
            done.send(round).unwrap();
        }
    });
    for _ in 0..40 {
        ended.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever");
    }
}
