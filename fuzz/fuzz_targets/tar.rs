//! A tar upload: whatever comes, either a version is made or nothing is.
#![no_main]

use contentlib::kv::memory::MemoryKv;
use contentlib::store::memory::MemoryStore;
use contentlib::{Library, Options, Progress, System};
use packager::{NewPackage, Packages, Retention, SiteKey};
use std::sync::Arc;

fn packages() -> Packages {
    let options = Options { threads: 1, reserve: 0, cache_bytes: 1 << 20, ..Options::default() };
    let (store, kv) = (Arc::new(MemoryStore::default()), Arc::new(MemoryKv::default()));
    let library = Library::open_on(store, kv, Arc::new(System), options).expect("opens empty");
    // Uploads write nothing there.
    let cache = std::env::temp_dir().join("depot-fuzz");
    Packages::open(library, SiteKey::from_seed([7; 32]), cache, Arc::new(Default::default))
        .expect("opens empty")
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let packages = packages();
    let name: packager::PackageName = "fuzz".parse().expect("a good name");
    let new = NewPackage { name: name.clone(), source: None, retention: Retention::default() };
    packages.create(new).expect("a new package");
    let before = packages.library().list_refs("").expect("a memory index reads back");
    let made = packages.put_tar(&name, bytes, &Progress::default());
    let after = packages.library().list_refs("").expect("a memory index reads back");
    assert!(made.is_ok() || before == after);
});
