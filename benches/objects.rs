//! What does it cost to have the content on an object store?
//!
//! * Ingest, beside the rate at which the same client puts the same bytes there without depot.
//! * Reading what no cache has, beside a plain GET of the same objects in parts by the same client.
//! * A site that serves from its cache, beside one whose content is on its disk; over HTTP, by curl.
//! * The requests that each GB took.
//!
//! The store is Garage on this machine (`make test-stores` installs it), whose work is done on the same
//! cores: the ratios count. Input: bytes that neither compress nor repeat.
//!
//! `cargo bench --bench objects -- 512` takes 512 MiB; three rounds, of which the medians are told.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use contentlib::kv::rocks::RocksKv;
use contentlib::store::objects::{ObjectPacks, Patience, Place, RequestCounts};
use contentlib::{Digest, Expect, Library, ObjectOptions, Options, Ref, RefChange, System};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use support::{Site, depot, noise, stores::Garage, temp_folder};
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
/// Of each content, and of each object that is put without depot: the size of a pack there.
const CONTENT: usize = 64 * MIB;
const PART: usize = 8 * MIB;
const AT_ONCE: usize = 4;
const ROUNDS: u64 = 3;

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// MiB a second.
fn rate(bytes: usize, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    bytes as f64 / MIB as f64 / begun.elapsed().as_secs_f64()
}

/// The store, as depot's own client of it is made, and where it is.
fn client(garage: &Garage) -> Arc<dyn ObjectStore> {
    let mut told = Command::new("true");
    garage.tell(&mut told);
    let value = |name: &str| {
        let mut all = told.get_envs();
        all.find(|(key, _)| *key == name).unwrap().1.unwrap().to_str().unwrap().to_owned()
    };
    let builder = AmazonS3Builder::new().with_bucket_name("bucket").with_allow_http(true);
    let builder = builder.with_region("us-east-1").with_endpoint(value("AWS_ENDPOINT"));
    let builder = builder.with_access_key_id(value("AWS_ACCESS_KEY_ID"));
    Arc::new(builder.with_secret_access_key(value("AWS_SECRET_ACCESS_KEY")).build().unwrap())
}

fn put(runtime: &Runtime, store: &dyn ObjectStore, name: &str, bytes: &[u8]) {
    runtime.block_on(async {
        let upload = store.put_multipart(&Key::from(name)).await.unwrap();
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        for part in bytes.chunks(PART) {
            upload.wait_for_capacity(AT_ONCE).await.unwrap();
            upload.write(part);
        }
        upload.finish().await.unwrap();
    });
}

/// Gets all objects below `prefix`; how many bytes that were.
fn get_all(runtime: &Runtime, store: &dyn ObjectStore, prefix: &str) -> usize {
    runtime.block_on(async {
        let all: Vec<_> = store.list(Some(&Key::from(prefix))).try_collect().await.unwrap();
        let parts = all.iter().flat_map(|object| {
            let starts = (0..object.size).step_by(PART);
            starts.map(|start| (&object.location, start..object.size.min(start + PART as u64)))
        });
        let parts = parts.map(|(name, range)| store.get_range(name, range));
        let got: Vec<_> = stream::iter(parts).buffered(AT_ONCE).try_collect().await.unwrap();
        got.iter().map(|part| part.len()).sum()
    })
}

struct OnStore {
    library: Library,
    packs: Arc<ObjectPacks>,
    requests: RequestCounts,
}

fn open(store: &Arc<dyn ObjectStore>, prefix: &str, folder: &Path, cache: usize) -> OnStore {
    let place = Place { store: store.clone(), prefix: Key::from(prefix), url: prefix.into() };
    let objects =
        ObjectOptions { cache_bytes: cache as u64, single_writer: true, ..Default::default() };
    let (clock, patience) = (Arc::new(System), Patience::default());
    let packs = ObjectPacks::over(place, &objects, folder, clock.clone(), patience).unwrap();
    let packs = Arc::new(packs);
    let kv = Arc::new(RocksKv::open(&folder.join("index")).unwrap());
    // As a machine does that has nothing of it: by the footers, so that no part comes into the cache.
    Library::rebuild_on(&*packs, kv.clone(), &System).unwrap();
    let options = Options { pack_target: CONTENT as u64, ..Options::default() };
    let library = Library::open_on(packs.clone(), kv, clock, options).unwrap();
    OnStore { library, requests: packs.requests(), packs }
}

impl OnStore {
    /// The requests since it was opened.
    fn requests(&self) -> String {
        let (now, then) = (self.packs.requests(), self.requests);
        format!(
            "{} PUT, {} GET, {} HEAD, {} DELETE, {} LIST",
            now.puts - then.puts,
            now.gets - then.gets,
            now.heads - then.heads,
            now.deletes - then.deletes,
            now.lists - then.lists
        )
    }
}

fn ingest(library: &Library, contents: &[Vec<u8>]) -> Vec<Digest> {
    let session = library.session();
    let digests: Vec<_> =
        contents.iter().map(|content| session.add_bytes(content).unwrap().digest).collect();
    let keep = |digest: &Digest| RefChange::Set {
        name: digest.to_string(),
        to: Ref { root: Some(*digest), value: Bytes::new() },
        expect: Expect::Any,
    };
    session.commit(digests.iter().map(keep).collect()).unwrap();
    drop(session);
    library.seal_idle().unwrap();
    digests
}

fn read(library: &Library, digests: &[Digest]) {
    for digest in digests {
        let content = library.open_content(*digest).unwrap();
        content.copy_to(0..content.size(), &mut std::io::sink()).unwrap();
    }
}

/// Contents in and out of a library on the store, and the same bytes without it.
fn engine(runtime: &Runtime, store: &Arc<dyn ObjectStore>, mib: usize) {
    let total = mib * MIB;
    let (mut puts, mut ingests) = (Vec::new(), Vec::new());
    let (mut gets, mut reads) = (Vec::new(), Vec::new());
    let (mut in_requests, mut out_requests) = (String::new(), String::new());
    for round in 0..ROUNDS {
        let contents: Vec<_> =
            (0..total / CONTENT).map(|n| noise(round << 32 | n as u64, CONTENT)).collect();
        puts.push(rate(total, || {
            for (n, content) in contents.iter().enumerate() {
                put(runtime, &**store, &format!("plain{round}/{n}"), content);
            }
        }));
        let (folder, prefix) = (temp_folder(), format!("library{round}"));
        let mut digests = Vec::new();
        {
            let it = open(store, &prefix, folder.path(), 0);
            ingests.push(rate(total, || digests = ingest(&it.library, &contents)));
            in_requests = it.requests();
        }
        let packs = format!("{prefix}/packs");
        gets.push(rate(total, || assert!(get_all(runtime, &**store, &packs) >= total)));
        let folder = temp_folder();
        let it = open(store, &prefix, folder.path(), 2 * total);
        reads.push(rate(total, || read(&it.library, &digests)));
        out_requests = it.requests();
    }
    let (puts, ingests) = (median(puts), median(ingests));
    let (gets, reads) = (median(gets), median(reads));
    println!("put there without depot      {puts:8.1} MiB/s");
    println!("ingest                       {ingests:8.1} MiB/s, {:.2} of that", ingests / puts);
    println!("  requests, for {mib} MiB: {in_requests}");
    println!("plain GET in parts           {gets:8.1} MiB/s");
    println!("reading, nothing cached      {reads:8.1} MiB/s, {:.2} of that", reads / gets);
    println!("  requests, for {mib} MiB: {out_requests}");
}

/// MiB a second at which curl gets a package's file from a site.
fn fetched(site: &Site, mib: usize) -> f64 {
    let url = format!("{}/packages/big/latest/file", site.url);
    rate(mib * MIB, || {
        let mut curl = support::curl();
        assert!(curl.args(["-f", "-o", "/dev/null", &url]).status().unwrap().success());
    })
}

/// Sites that serve one file: from the disk, and from the store through the cache.
fn serving(garage: &Garage, mib: usize) {
    let at = temp_folder();
    let tree = at.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), noise(99, mib * MIB)).unwrap();
    let start = |data: &str, more: &[&str]| {
        let mut serve = depot();
        garage.tell(&mut serve).args(["serve", "--listen", "127.0.0.1:0"]).args(more);
        let data = at.path().join(data);
        serve.arg("--data").arg(&data);
        let site = Site::start_by(serve, &data).unwrap();
        let source = tree.to_str().unwrap();
        site.depot(["package", "create", "big", "--source", source]).ok();
        site.depot(["package", "update", "big"]).ok();
        site
    };
    let local = start("local", &[]);
    let single = ["--set", "library.single_writer=true"];
    let url = ["--library", "s3://bucket/site", "--cache", "8GiB"];
    let remote = start("remote", &[url.as_slice(), &single].concat());
    let (mut from_disk, mut from_cache) = (Vec::new(), Vec::new());
    // The first of each reads it in.
    for round in 0..=ROUNDS {
        let rates = (fetched(&local, mib), fetched(&remote, mib));
        if round > 0 {
            from_disk.push(rates.0);
            from_cache.push(rates.1);
        }
    }
    let (from_disk, from_cache) = (median(from_disk), median(from_cache));
    println!("served from the disk         {from_disk:8.1} MiB/s");
    println!(
        "served from the warm cache   {from_cache:8.1} MiB/s, {:.2} of that",
        from_cache / from_disk
    );
}

fn main() {
    let mib = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(512);
    let garage = Garage::start();
    let runtime = Runtime::new().unwrap();
    let store = client(&garage);
    engine(&runtime, &store, mib);
    serving(&garage, mib);
}
