//! What does a site database on PostgreSQL cost beside one on RocksDB in the folder?
//! Input: 10,000 values of 300 bytes. One value read; a page of 100; a synced batch of one and of 100
//! values by one caller; one value each by 16 callers at once. PostgreSQL is on this machine, by its
//! socket, with fsync on.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../tests/support/postgres.rs"]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sitedb::{Batch, Holder, Kv, Order, PostgresKv, Range, RocksKv};
use std::sync::atomic::{AtomicU32, Ordering};

const VALUES: u32 = 10_000;
const CALLERS: u32 = 16;

fn key(n: u32) -> Vec<u8> {
    [b"table\0".as_slice(), &n.to_be_bytes()].concat()
}

fn batch(from: u32, n: u32) -> Batch {
    let mut batch = Batch::new();
    for n in from..from + n {
        batch.put(key(n), vec![n as u8; 300]);
    }
    batch
}

fn stores(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let server = support::Postgres::start(&[]);
    let holder = Holder { id: "bench".into(), name: "a bench".into(), address: String::new() };
    let postgres = PostgresKv::open(&server.url().parse().unwrap(), &holder).unwrap();
    let rocks = RocksKv::open(folder.path()).unwrap();
    for (name, kv) in [("rocksdb", &rocks as &dyn Kv), ("postgresql", &postgres)] {
        kv.write(batch(0, VALUES)).unwrap();
        let next = AtomicU32::new(0);
        let some = || next.fetch_add(7919, Ordering::Relaxed) % VALUES;
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        group.bench_function("get", |b| b.iter(|| kv.get(&key(some())).unwrap().unwrap().len()));
        group.throughput(Throughput::Elements(100));
        group.bench_function("scan_100", |b| {
            b.iter(|| {
                let range = Range { from: key(some().min(VALUES - 100)), to: None };
                kv.scan(&range, Order::Ascending, 100).unwrap().len()
            });
        });
        group.bench_function("write_100", |b| b.iter(|| kv.write(batch(some(), 100)).unwrap()));
        group.throughput(Throughput::Elements(1));
        group.bench_function("write_1", |b| b.iter(|| kv.write(batch(some(), 1)).unwrap()));
        group.throughput(Throughput::Elements(CALLERS.into()));
        group.bench_function("write_1_by_16", |b| {
            b.iter(|| {
                std::thread::scope(|scope| {
                    for _ in 0..CALLERS {
                        scope.spawn(|| kv.write(batch(some(), 1)).unwrap());
                    }
                });
            });
        });
        group.finish();
    }
}

criterion_group!(benches, stores);
criterion_main!(benches);
