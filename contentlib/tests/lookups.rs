//! What a commit asks of the index.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::kv::memory::MemoryKv;
use contentlib::kv::{Batch, Kv, KvError, Table};
use contentlib::store::memory::MemoryStore;
use contentlib::{Digest, GcOptions, Library, NoLinks, Progress, System};
use kit::{delete, options, random, set};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Counts single look-ups.
#[derive(Default)]
struct Counting {
    kv: MemoryKv,
    gets: AtomicUsize,
}

impl Kv for Counting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.gets.fetch_add(1, SeqCst);
        self.kv.get(table, key)
    }
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.kv.multi_get(table, keys)
    }
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.kv.write(batch)
    }
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.kv.scan(table, from, visit)
    }
    fn flush(&self) -> Result<(), KvError> {
        self.kv.flush()
    }
}

#[test]
fn while_something_is_condemned_a_commit_looks_up_what_it_relies_on_in_batches() {
    let kv = Arc::new(Counting::default());
    let store = Arc::new(MemoryStore::default());
    let library = Library::open_on(store, kv.clone(), Arc::new(System), options()).unwrap();
    let session = library.session();
    let small: Vec<Digest> =
        (0..300).map(|seed| session.add_bytes(&random(seed, 100)).unwrap().digest).collect();
    let large = session.add_bytes(&random(1000, 5 << 20)).unwrap().digest;
    let gone = session.add_bytes(b"nobody wants this").unwrap().digest;
    let refs = small.iter().chain([&large, &gone]);
    session.commit(refs.map(|digest| set(&digest.to_hex(), *digest, &[])).collect()).unwrap();
    session.commit(vec![delete(&gone.to_hex())]).unwrap();
    drop(session);
    library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
    assert_eq!(library.stats().unwrap().condemned, 1);

    let session = library.session();
    session.keep(small.iter().copied().chain([large, gone]));
    kv.gets.store(0, SeqCst);
    session.commit(vec![set("again", gone, &[])]).unwrap();
    let gets = kv.gets.load(SeqCst);
    assert!(gets < 30, "{gets} single look-ups for 302 contents");
    drop(session);
    library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
    assert_eq!(library.read_chunk(contentlib::ChunkId(gone)).unwrap(), "nobody wants this");
}
