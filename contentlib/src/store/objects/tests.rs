//! What packs on an object store promise, each by its shortest proof.

use super::*;
use crate::library::System;
use object_store::ObjectStore;
use object_store::memory::InMemory;

pub(crate) fn in_memory(folder: &Path) -> ObjectPacks {
    over(Arc::new(InMemory::new()), folder).unwrap()
}

pub(super) fn over(
    store: Arc<dyn ObjectStore>,
    folder: &Path,
) -> Result<ObjectPacks, ObjectsError> {
    let options = ObjectOptions { cache_bytes: 64 << 20, ..ObjectOptions::default() };
    let place = Place { store, prefix: "a/b".into(), url: "memory://a/b".into() };
    ObjectPacks::over(place, &options, folder, Arc::new(System), Patience::default())
}

const ID: PackId = PackId(7);
const MIB: u64 = 1 << 20;

fn noise(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn write(packs: &ObjectPacks, bytes: &[u8]) -> Arc<dyn PackFile> {
    let pack = packs.create(ID).unwrap();
    pack.write_at(0, &[std::io::IoSlice::new(bytes)]).unwrap();
    pack
}

#[test]
fn what_was_synced_is_in_the_store_when_the_machine_is_gone() {
    let (bucket, one, two) = (Arc::new(InMemory::new()), temp(), temp());
    let packs = over(bucket.clone(), one.path()).unwrap();
    let pack = write(&packs, b"first ");
    pack.sync().unwrap();
    pack.write_at(6, &[std::io::IoSlice::new(b"second ")]).unwrap();
    pack.sync().unwrap();
    pack.write_at(13, &[std::io::IoSlice::new(b"never synced")]).unwrap();
    // Another machine, as the bucket is now; the lease would have to run out first.
    let left = Arc::new(bucket.fork());
    futures::executor::block_on(object_store::ObjectStoreExt::delete(&*left, &"a/b/lease".into()))
        .unwrap();
    let again = over(left, two.path()).unwrap();
    assert_eq!(again.open(ID).unwrap().read_at(0..13).unwrap(), "first second ");
    assert_eq!(again.open(ID).unwrap().len().unwrap(), 13);
    // The first goes on, and makes one object of it all.
    pack.seal().unwrap();
    drop((pack, packs));
    let packs = over(bucket, two.path()).unwrap();
    assert_eq!(packs.open(ID).unwrap().read_at(6..25).unwrap(), "second never synced");
    assert_eq!(packs.open(ID).unwrap().len().unwrap(), 25);
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_large_pack_goes_in_parts_and_reads_back() {
    let (bucket, folder) = (Arc::new(InMemory::new()), temp());
    let packs = over(bucket.clone(), folder.path()).unwrap();
    let bytes = noise(21 * MIB + 5);
    let before = packs.requests();
    write(&packs, &bytes).seal().unwrap();
    // Begun, and three parts.
    assert_eq!(packs.requests().puts - before.puts, 4);
    drop(packs);
    let elsewhere = temp();
    let packs = over(bucket, elsewhere.path()).unwrap();
    let pack = packs.open(ID).unwrap();
    for range in [0..1, 4 * MIB - 1..4 * MIB + 1, 3 * MIB..14 * MIB, 21 * MIB..21 * MIB + 5] {
        let want = &bytes[range.start as usize..range.end as usize];
        assert!(pack.read_at(range.clone()).unwrap() == want, "{range:?}");
        assert!(pack.read_alone(range.clone()).unwrap() == want, "{range:?}");
    }
}

#[test]
fn what_was_written_or_read_is_not_asked_for_again_and_nothing_lists() {
    let (bucket, folder) = (Arc::new(InMemory::new()), temp());
    let packs = over(bucket.clone(), folder.path()).unwrap();
    let bytes = noise(9 * MIB);
    write(&packs, &bytes).seal().unwrap();
    let sealed = packs.requests();
    assert_eq!(sealed.lists, 1);
    let read = |packs: &ObjectPacks| {
        let pack = packs.open(ID).unwrap();
        assert!(pack.read_at(5 * MIB..6 * MIB).unwrap() == bytes[5 << 20..6 << 20]);
        packs.requests()
    };
    assert_eq!(read(&packs), sealed, "its own packs are in the cache");
    drop(packs);
    let packs = over(bucket.clone(), folder.path()).unwrap();
    let opened = packs.requests();
    assert_eq!(read(&packs), opened, "also after a restart");
    packs.open(ID).unwrap().forget_cached();
    assert_eq!(read(&packs).gets, opened.gets + 1);
    assert_eq!(read(&packs).gets, opened.gets + 1);
    assert_eq!(packs.requests().lists, 1);
    // Flipped on the local disk: read from the store again.
    let cached = folder.path().join(CACHE).join(format!("{ID}.0001"));
    let mut part = fs::read(&cached).unwrap();
    let middle = part.len() / 3;
    part[middle] ^= 1;
    fs::write(&cached, part).unwrap();
    assert_eq!(read(&packs).gets, opened.gets + 2);
    assert_eq!(packs.cache().damaged, 1);
}

#[test]
fn many_who_want_the_same_part_cost_one_request() {
    let (bucket, folder) = (Arc::new(InMemory::new()), temp());
    let packs = over(bucket, folder.path()).unwrap();
    let bytes = noise(3 * MIB);
    write(&packs, &bytes).seal().unwrap();
    let pack = packs.open(ID).unwrap();
    pack.forget_cached();
    let before = packs.requests().gets;
    let begin = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (pack, bytes, begin) = (&pack, &bytes, &begin);
            scope.spawn(move || {
                begin.wait();
                let at = n * 300_000;
                let want = &bytes[at as usize..at as usize + 200_000];
                assert!(pack.read_at(at..at + 200_000).unwrap() == want);
            });
        }
    });
    assert_eq!(packs.requests().gets, before + 1);
}

#[test]
fn who_reads_front_to_back_finds_the_next_parts_there() {
    let (bucket, folder) = (Arc::new(InMemory::new()), temp());
    let packs = over(bucket, folder.path()).unwrap();
    let bytes = noise(40 * MIB);
    write(&packs, &bytes).seal().unwrap();
    let pack = packs.open(ID).unwrap();
    pack.forget_cached();
    let before = packs.requests().gets;
    for at in 0..4 {
        pack.read_at(at * 4 * MIB..at * 4 * MIB + 100).unwrap();
    }
    // Read ahead for: 1, then 2, then 4 parts behind the last that was asked for.
    let wanted = (0..8).map(|number| cache::PartId { pack: ID, number });
    for part in wanted {
        while !packs.shared.reads.cache().has(part) {
            std::thread::yield_now();
        }
    }
    assert_eq!(packs.requests().gets, before + 8);
}

#[test]
fn one_process_at_a_time_and_a_folder_for_one_library() {
    let (bucket, one, two) = (Arc::new(InMemory::new()), temp(), temp());
    let packs = over(bucket.clone(), one.path()).unwrap();
    assert!(!packs.index_is_current(), "there is none");
    packs.own_index().unwrap();
    let error = over(bucket.clone(), two.path()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, ObjectsError::InUse { .. }), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(packs);
    assert!(over(bucket.clone(), one.path()).unwrap().index_is_current());
    let packs = over(bucket.clone(), one.path()).unwrap();
    assert!(!packs.index_is_current(), "nobody noted the one of before");
    packs.own_index().unwrap();
    drop(packs);
    drop(over(bucket.clone(), two.path()).unwrap());
    assert!(!over(bucket, one.path()).unwrap().index_is_current(), "another machine wrote");

    let none = ObjectOptions::default();
    let opened = ObjectPacks::open(&none, two.path(), Arc::new(System));
    let text = opened.err().unwrap().to_string();
    assert!(text.contains("memory://a/b"), "the folder says where it is: {text}");
    let empty = temp();
    assert!(ObjectPacks::open(&none, empty.path(), Arc::new(System)).unwrap().is_none());
    fs::create_dir_all(empty.path().join("packs/07")).unwrap();
    let options = ObjectOptions { url: Some("s3://a/b".into()), ..none };
    let full = ObjectPacks::open(&options, empty.path(), Arc::new(System));
    assert!(matches!(full.err().unwrap(), ObjectsError::HoldsPacks { .. }));
}
