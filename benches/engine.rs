//! What do the engine's parts cost, each by itself?
//! Input: 64 MiB that look like unpacked software (half text, half random), 100 000 contents of
//! one chunk in a library on disk.
#![allow(missing_docs, clippy::unwrap_used)]

use contentlib::chunker::Chunker;
use contentlib::{ChunkId, Digest, Library, Options, Recipe};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn mixed(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + (1 << 16));
    let mut n = 0u64;
    while out.len() < len {
        n += 1;
        out.extend_from_slice(&random(n, 32 << 10));
        for line in 0..1000 {
            out.extend_from_slice(
                format!("{n} symbol_{:04x} .text GLOBAL\n", line * n % 4096).as_bytes(),
            );
        }
    }
    out.truncate(len);
    out
}

fn cutting(c: &mut Criterion) {
    let content = mixed(64 << 20);
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(10);
    group.bench_function("fastcdc", |b| b.iter(|| Chunker::default().lengths(&content).len()));
    group.bench_function("fastcdc_and_blake3_of_each_chunk", |b| {
        b.iter(|| {
            let mut at = 0;
            for n in Chunker::default().lengths(&content) {
                black_box(Digest::of(&content[at..at + n]));
                at += n;
            }
        });
    });
    group.finish();
}

fn ingest(c: &mut Criterion) {
    let content = mixed(64 << 20);
    let mut group = c.benchmark_group("ingest");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(10);
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(folder.path(), Options::default()).unwrap();
        // Dropped in this order: what is closed may write to its folder.
        (library, folder)
    };
    group.bench_function("one_new_content_of_64MiB", |b| {
        b.iter_batched(
            fresh,
            |(library, folder)| {
                let session = library.session();
                session.add_bytes(&content).unwrap();
                session.commit(vec![]).unwrap();
                drop(session);
                (library, folder)
            },
            BatchSize::PerIteration,
        );
    });
    let kept = fresh();
    let library = &kept.0;
    let session = library.session();
    session.add_bytes(&content).unwrap();
    session.commit(vec![]).unwrap();
    group.bench_function("the_same_content_again", |b| {
        b.iter(|| library.session().add_bytes(&content).unwrap().new_bytes);
    });
    group.finish();
}

fn reading(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::open(folder.path(), Options::default()).unwrap();
    let session = library.session();
    let raw = session.add_bytes(&random(7, 64 << 20)).unwrap().digest;
    let small: Vec<Digest> = (0..100_000u64)
        .map(|n| session.add_bytes(&n.to_le_bytes().repeat(16)).unwrap().digest)
        .collect();
    session.commit(vec![]).unwrap();
    library.seal_idle().unwrap();

    let mut group = c.benchmark_group("read");
    let reader = library.open_content(raw).unwrap();
    reader.copy_to(0..reader.size(), &mut std::io::sink()).unwrap();
    reader.segment(32 << 20, 2 << 20).unwrap();
    assert!(reader.segment_ready(32 << 20, 2 << 20).is_some());
    group.bench_function("segment_ready/2MiB_of_a_raw_content", |b| {
        b.iter(|| reader.segment_ready(32 << 20, 2 << 20).is_some());
    });
    let held: Vec<ChunkId> = small.iter().step_by(200).map(|d| ChunkId(*d)).collect();
    let absent: Vec<ChunkId> =
        (0..held.len() as u64).map(|n| ChunkId(Digest::of(&n.to_be_bytes()))).collect();
    assert!(!library.missing_chunks(&held).unwrap().contains(&true));
    assert!(!library.missing_chunks(&absent).unwrap().contains(&false));
    group.throughput(Throughput::Elements(held.len() as u64));
    group.bench_function("missing_chunks/500_held", |b| {
        b.iter(|| library.missing_chunks(&held).unwrap().len());
    });
    group.bench_function("missing_chunks/500_absent", |b| {
        b.iter(|| library.missing_chunks(&absent).unwrap().len());
    });
    group.finish();
}

fn covering(c: &mut Criterion) {
    let chunk = ChunkId(Digest::of(b"any"));
    let recipe = Recipe::new((0..65_536).map(|_| (chunk, 64 << 10))).unwrap();
    let wanted = black_box(2 << 30..(2 << 30) + (1 << 20));
    c.bench_function("recipe/covering/1MiB_of_4GiB", |b| {
        b.iter(|| recipe.covering(wanted.clone()).len());
    });
}

criterion_group!(benches, cutting, ingest, reading, covering);
criterion_main!(benches);
