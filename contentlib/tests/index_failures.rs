//! The index fails to take what is safe in the packs.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::kv::memory::MemoryKv;
use contentlib::store::PackStore;
use contentlib::store::memory::MemoryStore;
use contentlib::{
    ChunkId, CommitError, Digest, GcOptions, GcReport, Library, Link, Links, MaintainError,
    NoLinks, Options, Progress, Ref, Session, System,
};
use kit::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

struct Bench {
    store: Arc<MemoryStore>,
    kv: Arc<MemoryKv>,
    fails: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { store: Arc::default(), kv: Arc::default(), fails: Arc::default() };
        let fails = bench.fails.clone();
        bench.kv.set_fault(move || fails.load(SeqCst));
        bench
    }

    fn open(&self) -> Library {
        // Small packs, so that a failed batch has full ones in it.
        let options = Options { pack_target: 100 << 10, ..options() };
        Library::open_on(self.store.clone(), self.kv.clone(), Arc::new(System), options).unwrap()
    }

    /// A commit of three contents whose index batch fails.
    fn fail_once(&self, library: &Library) {
        let session = library.session();
        let added: Vec<_> = contents().iter().map(|c| session.add_bytes(c).unwrap()).collect();
        self.fails.store(true, SeqCst);
        let failed = session.commit(vec![set("failed", added[0].digest, &[])]);
        assert!(matches!(failed, Err(CommitError::Index(_))), "{failed:?}");
        self.fails.store(false, SeqCst);
    }
}

fn contents() -> Vec<Vec<u8>> {
    (0..3).map(|seed| random(seed, 90_000)).collect()
}

fn keep_all(library: &Library) {
    let session = library.session();
    for (n, content) in contents().iter().enumerate() {
        let digest = session.add_bytes(content).unwrap().digest;
        session.commit(vec![set(&format!("{n}"), digest, &[])]).unwrap();
    }
}

fn holds_all(library: &Library) {
    for content in contents() {
        assert_eq!(read(library, contentlib::Digest::of(&content)), Some(content));
    }
    assert!(verify(library).is_clean());
}

#[test]
fn what_waits_for_the_index_is_in_it_after_the_next_commit() {
    let bench = Bench::new();
    let library = bench.open();
    bench.fail_once(&library);
    // Others rely on what is in the packs already.
    let before = library.stats().unwrap().packs;
    keep_all(&library);
    assert_eq!(library.get_ref("failed").unwrap(), None);
    holds_all(&library);
    library.close().unwrap();
    let stored = library.stats().unwrap().stored_bytes;
    assert!(stored < 400_000, "nothing was stored twice: {stored} bytes, {before} packs before");
    drop(library);

    let library = bench.open();
    assert_eq!(library.get_ref("failed").unwrap(), None, "the next commit overruled it");
    holds_all(&library);
    assert_eq!(library.list_refs("").unwrap().len(), 3);
}

#[test]
fn a_commit_that_the_index_did_not_take_comes_to_light_whole_if_the_process_dies() {
    let bench = Bench::new();
    let library = bench.open();
    bench.fail_once(&library);
    let died =
        Bench { store: Arc::new(bench.store.crash()), kv: Arc::new(bench.kv.crash(9)), ..bench };
    let library = died.open();
    assert_eq!(library.list_refs("").unwrap().len(), 1);
    holds_all(&library);
}

/// Uploads a content, cut otherwise than before, while collection marks.
struct Meanwhile<'a> {
    session: &'a Session,
    bytes: &'a [u8],
    done: AtomicBool,
}

impl Links for Meanwhile<'_> {
    fn links(&self, _: &str, _: &Ref, _: &Library) -> Result<Vec<Link>, Failure> {
        if !self.done.swap(true, SeqCst) {
            upload(self.session, self.bytes, 40_000);
        }
        Ok(Vec::new())
    }
}

fn gc(library: &Library, links: &dyn Links) -> Result<GcReport, MaintainError> {
    library.gc(&GcOptions::default(), links, &Progress::default())
}

/// A content in chunks of 30000 bytes that nobody refers to any more. A chunk of it is damaged,
/// and its recipe stays as long as the session does.
fn given_up(bench: &Bench, bytes: &[u8]) -> (Library, Session) {
    let library = bench.open();
    let lease = library.session();
    let digest = upload(&lease, bytes, 30_000);
    lease.commit(vec![set("x", digest, &[])]).unwrap();
    library.seal_idle().unwrap();
    let session = library.session();
    let kept = session.add_bytes(&random(8, 90_000)).unwrap().digest;
    session.commit(vec![set("kept", kept, &[]), delete("x")]).unwrap();
    assert!(gc(&library, &NoLinks).unwrap().condemned > 0);
    let lost = &bytes[..30_000];
    for id in bench.store.list().unwrap() {
        let pack = bench.store.open(id).unwrap();
        let pack = pack.read_at(0..pack.len().unwrap()).unwrap();
        if let Some(at) = pack.windows(lost.len()).position(|window| window == lost) {
            bench.store.damage(id, at as u64, 1);
        }
    }
    assert!(library.read_chunk(ChunkId(Digest::of(lost))).is_err());
    // The index keeps what it has so far.
    library.close().unwrap();
    (library, lease)
}

#[test]
fn a_content_stored_anew_needs_no_chunk_that_it_had_before() {
    let (bench, bytes) = (Bench::new(), random(7, 90_000));
    let (library, _lease) = given_up(&bench, &bytes);
    gc(&library, &NoLinks).unwrap();
    let session = library.session();
    let digest = upload(&session, &bytes, 40_000);
    session.commit(vec![set("x", digest, &[])]).unwrap();
    assert!(read(&library, digest).is_some_and(|found| found == bytes));
}

/// Collection copies a recipe to behind one that was stored anew, cut otherwise; a chunk of the
/// old one is gone. Whichever batch fails, and whichever is the last that the index keeps, opening
/// finds the recipe that can be read.
#[test]
fn opening_does_not_believe_a_copied_recipe_before_the_one_stored_anew() {
    let bytes = random(7, 90_000);
    let digest = Digest::of(&bytes);
    for fails_at in 0.. {
        let bench = Bench::new();
        let (library, _lease) = given_up(&bench, &bytes);
        let session = library.session();
        let meanwhile =
            Meanwhile { session: &session, bytes: &bytes, done: AtomicBool::new(false) };
        let mut batches = 0..;
        bench.kv.set_fault(move || batches.next() == Some(fails_at));
        let collected = gc(&library, &meanwhile);
        bench.kv.set_fault(|| false);
        if !meanwhile.done.into_inner() {
            upload(&session, &bytes, 40_000);
        }
        session.commit(vec![set("x", digest, &[])]).unwrap();
        for kept in 0..=bench.kv.unflushed() {
            let (store, kv) = (bench.store.crash(), bench.kv.crash(kept));
            let died = Bench { store: Arc::new(store), kv: Arc::new(kv), fails: Arc::default() };
            let found = read(&died.open(), digest);
            assert!(found.is_some_and(|found| found == bytes), "{fails_at}, {kept}");
        }
        if let Ok(collected) = collected {
            assert!(collected.repacked > 0, "the recipe was copied");
            return;
        }
    }
}
