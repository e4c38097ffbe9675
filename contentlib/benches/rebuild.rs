//! How long does it take to have the index of a library on an object store again, when the machine
//! that had it is lost?
//!
//! A library of a million chunks, in as many packs as 100 GB of chunks of real size would fill (the
//! chunks here are 512 bytes: what counts is how many requests are made, and how long each takes),
//! in a store in memory that waits before it answers.
//!
//! ```text
//! cargo bench -p contentlib --bench rebuild
//! DEPOT_CHUNKS=100000 DEPOT_LATENCY_MS=20 cargo bench -p contentlib --bench rebuild
//! ```
#![allow(missing_docs, clippy::unwrap_used)]

use contentlib::block::Codec;
use contentlib::kv::rocks::RocksKv;
use contentlib::store::objects::{ObjectPacks, Patience, Place, RequestCounts};
use contentlib::{
    ChunkId, Digest, Expect, Frame, Library, ObjectOptions, Options, Recipe, Ref, RefChange, System,
};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Chunks of one content, which is one block.
const CHUNKS: usize = 512;
const CHUNK: usize = 512;
/// Of 64 MiB packs with chunks of 128 KiB, as many chunks are in one.
const PACK: u64 = (CHUNKS * CHUNK) as u64;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

fn options() -> Options {
    Options { pack_target: PACK + PACK / 8, ..Options::default() }
}

fn packs(store: &Arc<ThrottledStore<InMemory>>, folder: &Path) -> Arc<ObjectPacks> {
    let options = ObjectOptions { cache_bytes: 0, ..ObjectOptions::default() };
    let (prefix, url) = ("library".into(), "memory://bucket/library".into());
    let place = Place { store: store.clone(), prefix, url };
    let packs = ObjectPacks::over(place, &options, folder, Arc::new(System), Patience::default());
    Arc::new(packs.unwrap())
}

/// The `n`th content, whose chunks are all new.
fn store_content(session: &contentlib::Session, n: u64) -> Digest {
    let mut bytes = vec![0; CHUNKS * CHUNK];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let digest = Digest::of(&bytes);
    let chunks = bytes.chunks(CHUNK).map(|chunk| (ChunkId(Digest::of(chunk)), CHUNK as u32));
    let recipe = Recipe::new(chunks).unwrap();
    let frame = Frame::new(Codec::Raw, vec![CHUNK as u32; CHUNKS], bytes.into()).unwrap();
    session.put_frame(&frame).unwrap();
    session.put_recipe(digest, &recipe).unwrap();
    digest
}

fn fill(store: &Arc<ThrottledStore<InMemory>>, chunks: u64) {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(RocksKv::open(&folder.path().join("index")).unwrap());
    let packs = packs(store, folder.path());
    let library = Library::open_on(packs, kv, Arc::new(System), options()).unwrap();
    let session = library.session();
    let all: Vec<u64> = (0..chunks.div_ceil(CHUNKS as u64)).collect();
    for some in all.chunks(16) {
        let change = |n: &u64| {
            let root = Some(store_content(&session, *n));
            let to = Ref { root, value: Default::default() };
            RefChange::Set { name: format!("packages/{n}"), to, expect: Expect::Any }
        };
        session.commit(some.iter().map(change).collect()).unwrap();
    }
    drop(session);
    library.close().unwrap();
}

fn requests(before: RequestCounts, now: RequestCounts) -> String {
    format!("{} gets, {} lists", now.gets - before.gets, now.lists - before.lists)
}

fn main() {
    let (chunks, latency) = (number("DEPOT_CHUNKS", 1_000_000), number("DEPOT_LATENCY_MS", 5));
    let store = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let began = Instant::now();
    fill(&store, chunks);
    println!("filled in {:.1?}", began.elapsed());
    let wait = Duration::from_millis(latency);
    store.config_mut(|config| {
        config.wait_get_per_call = wait;
        config.wait_put_per_call = wait;
        config.wait_list_per_call = wait;
    });

    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let packs = packs(&store, folder.path());
    let opened = packs.requests();
    let kv = Arc::new(RocksKv::open(&folder.path().join("index")).unwrap());
    let report = Library::rebuild_on(&*packs, kv, &System).unwrap();
    println!(
        "rebuilt {} chunks, {} recipes and {} refs from {} packs in {:.2?}: {}, {latency} ms each",
        report.chunks,
        report.recipes,
        report.refs,
        report.sealed_packs,
        began.elapsed(),
        requests(opened, packs.requests())
    );
    assert!(report.chunks >= chunks && report.bad_packs.is_empty());
}
