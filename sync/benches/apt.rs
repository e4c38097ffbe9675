//! How fast is an index of a Debian archive read, and how fast are its versions put in order?
//! Input: the index of Debian 12's security suite, amd64, of November 2026 (2 MB), plain in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::Read;
use sync::apt::deb822::Stanzas;
use sync::apt::packages::Package;
use sync::apt::version;
use sync::unpack::Packing;

const INDEX: &[u8] = include_bytes!("../tests/data/apt/Packages.xz");

fn index(c: &mut Criterion) {
    let mut plain = Vec::new();
    let unpacked = Packing::Xz.read(INDEX, 64 << 20).and_then(|mut it| it.read_to_end(&mut plain));
    unpacked.expect("a sound sample");
    let mut versions = Vec::new();
    let read = |take: &mut dyn FnMut(&Package<'_>)| {
        let mut stanzas = Stanzas::new(plain.as_slice());
        while let Some(stanza) = stanzas.next_stanza().expect("memory can be read") {
            take(&Package::of(stanza.expect("a sound sample")).expect("a sound sample"));
        }
    };
    read(&mut |package| versions.push(package.version.to_owned()));

    let mut group = c.benchmark_group("apt");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("packages/plain", |b| {
        b.iter(|| {
            let mut bytes = 0;
            read(&mut |package| bytes += black_box(package.size));
            bytes
        });
    });
    group.throughput(Throughput::Elements(versions.len() as u64));
    group.bench_function("version/sort", |b| {
        b.iter(|| {
            let mut sorted: Vec<&str> = versions.iter().map(String::as_str).collect();
            sorted.sort_by(|a, b| version::compare(a, b));
            sorted.len()
        });
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
