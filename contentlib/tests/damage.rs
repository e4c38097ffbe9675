//! Damage: what is hit is named, no wrong byte is ever read, and it heals.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::kv::memory::MemoryKv;
use contentlib::store::PackStore;
use contentlib::store::memory::MemoryStore;
use contentlib::{
    AddError, AddOptions, Added, Digest, GcOptions, Library, MaintainError, NoLinks, OpenError,
    Options, Progress, Recheck, Session, Source, System,
};
use kit::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Contents = BTreeMap<Digest, Vec<u8>>;

fn add(session: &Session, contents: &mut Contents, bytes: Vec<u8>) -> Digest {
    let digest = session.add_bytes(&bytes).unwrap().digest;
    contents.insert(digest, bytes);
    digest
}

/// A closed library of raw and compressed contents, large and small, each held by a ref.
fn sample() -> (tempfile::TempDir, Contents) {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let mut contents = Contents::new();
    for round in 0..3u64 {
        let session = library.session();
        let lens = [700, 40_000, 300_000];
        for (n, len) in lens.into_iter().enumerate() {
            let seed = round * 10 + n as u64;
            for bytes in [random(seed, len), text(seed, len)] {
                let digest = add(&session, &mut contents, bytes);
                session
                    .commit(vec![set(&format!("keep/{}", digest.to_hex()), digest, &[])])
                    .unwrap();
            }
        }
    }
    library.close().unwrap();
    drop(library);
    (folder, contents)
}

/// Reads everything in every way: what comes is right. Returns what did not come.
fn check_reads(library: &Library, contents: &Contents) -> Vec<Digest> {
    let mut lost = Vec::new();
    for (digest, bytes) in contents {
        match read(library, *digest) {
            Some(found) => assert!(found == *bytes, "{digest} reads back wrong"),
            None => lost.push(*digest),
        }
        let Ok(reader) = library.open_content(*digest) else { continue };
        for at in (0..bytes.len()).step_by(50_000) {
            if let Ok(segment) = reader.segment(at as u64, 100_000) {
                assert_eq!(segment.bytes, bytes[at..at + segment.bytes.len()], "{digest} at {at}");
            }
            if let Some(segment) = reader.segment_ready(at as u64, 100_000) {
                assert_eq!(segment.bytes, bytes[at..at + segment.bytes.len()], "{digest} at {at}");
            }
        }
    }
    lost
}

#[test]
fn any_flipped_bit_is_found_and_no_wrong_byte_is_read() {
    let (good, contents) = sample();
    let mut n = 0u64;
    for (which, pack) in packs(good.path()).iter().enumerate() {
        let len = std::fs::metadata(pack).unwrap().len();
        // Header, records, footer, trailer.
        let places = (0..12).map(|i| i * len / 12).chain([10, 100, len - 70, len - 20]);
        for offset in places {
            n += 1;
            let folder = copy(good.path());
            flip(&packs(folder.path())[which], offset, 1 << (n % 8));
            let library = open(folder.path());
            let report = verify(&library);
            let name = pack.file_stem().unwrap().to_str().unwrap();
            let named = report.bad_packs.iter().any(|bad| bad.pack.to_string() == name);
            assert!(named, "a flip at {offset} of {len} of {name} is not noticed: {report:?}");
            let lost = check_reads(&library, &contents);
            for digest in lost {
                let named = report.bad_contents.iter().find(|bad| bad.digest == digest);
                let holder = format!("keep/{}", digest.to_hex());
                assert!(named.unwrap().holders.iter().any(|h| h.name == holder), "{report:?}");
            }
        }
    }
}

#[test]
fn what_is_still_in_memory_hides_no_damage_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let bytes = text(5, 40_000);
    let digest = session.add_bytes(&bytes).unwrap().digest;
    session.commit(vec![set("kept", digest, &[])]).unwrap();
    library.seal_idle().unwrap();
    assert_eq!(read(&library, digest), Some(bytes.clone()));
    // In the body of the first record, which is compressed: the block that was just decoded.
    flip(&packs(folder.path())[0], 300, 4);
    let report = verify(&library);
    assert!(report.bad_contents.iter().any(|bad| bad.digest == digest), "{report:?}");
    assert_eq!(read(&library, digest), None);
    let session = library.session();
    assert!(session.add_bytes(&bytes).unwrap().new_bytes > 0);
    session.commit(vec![]).unwrap();
    assert_eq!(read(&library, digest), Some(bytes));
}

#[test]
fn a_log_record_that_went_bad_is_written_again() {
    let (good, contents) = sample();
    let some = *contents.keys().next().unwrap();
    let name = format!("keep/{}", some.to_hex());
    let library = open(good.path());
    let refs = library.list_refs("").unwrap();
    drop(library);
    let pack = packs(good.path()).into_iter().find(|p| find(p, name.as_bytes()).is_some()).unwrap();
    flip(&pack, find(&pack, name.as_bytes()).unwrap(), 4);
    let library = open(good.path());
    assert!(!verify(&library).is_clean());
    library.session().commit(vec![]).unwrap();
    drop(library);
    std::fs::remove_dir_all(good.path().join("index")).unwrap();
    Library::rebuild_index(good.path(), options(), &Progress::default()).unwrap();
    assert_eq!(open(good.path()).list_refs("").unwrap(), refs);
}

/// Damages a library in three ways at once: flips in every pack, one cut short, one deleted.
fn damage(folder: &Path) {
    let packs = packs(folder);
    assert!(packs.len() >= 3, "{packs:?}");
    for pack in &packs {
        let len = std::fs::metadata(pack).unwrap().len();
        for i in 1..5 {
            flip(pack, i * len / 5, 0x20);
        }
    }
    let cut = std::fs::File::options().write(true).open(&packs[0]).unwrap();
    cut.set_len(std::fs::metadata(&packs[0]).unwrap().len() / 2).unwrap();
    std::fs::remove_file(&packs[1]).unwrap();
}

#[test]
fn what_is_cut_short_or_deleted_is_named_and_another_library_heals_it() {
    let (good, contents) = sample();
    let folder = copy(good.path());
    damage(folder.path());
    let library = open(folder.path());
    let before = verify(&library);
    assert!(before.bad_packs.len() >= 3, "{before:?}");
    let mut named: Vec<_> = before.bad_packs.iter().map(|bad| bad.pack).collect();
    named.dedup();
    assert_eq!(named.len(), before.bad_packs.len(), "each pack is named once: {before:?}");
    let lost = check_reads(&library, &contents);
    assert!(!lost.is_empty());
    for digest in &lost {
        assert!(before.bad_contents.iter().any(|bad| bad.digest == *digest), "{digest}");
    }
    let damaged = library.damaged(&NoLinks).unwrap();
    assert!(lost.iter().all(|digest| damaged.contains(digest)));
    let mut holder = Other(open(good.path()));
    let report = library.repair(&damaged, &mut holder, &Progress::default()).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
    assert!(check_reads(&library, &contents).is_empty());
    assert!(library.suspects().unwrap().is_empty());
    assert!(library.damaged(&NoLinks).unwrap().is_empty());
    let after = verify(&library);
    assert!(after.bad_contents.is_empty() && after.bad_chunks.is_empty(), "{after:?}");
}

#[test]
fn adding_the_same_files_again_heals() {
    let (folder, contents) = sample();
    damage(folder.path());
    let library = open(folder.path());
    // What is damaged must be known first: only then is it taken in again.
    assert!(!verify(&library).is_clean());
    let session = library.session();
    for bytes in contents.values() {
        session.add_bytes(bytes).unwrap();
    }
    session.commit(vec![]).unwrap();
    assert!(check_reads(&library, &contents).is_empty());
    assert!(verify(&library).bad_contents.is_empty());
}

/// Readers that were opened, and had verified what they map, before the damage.
#[test]
fn a_reader_at_work_never_hands_out_bytes_that_went_bad() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let bytes = random(77, 900_000);
    let digest = session.add_bytes(&bytes).unwrap().digest;
    session.commit(vec![set("kept", digest, &[])]).unwrap();
    library.seal_idle().unwrap();
    let reader = library.open_content(digest).unwrap();
    let mut at = 0;
    while at < bytes.len() {
        let segment = reader.segment(at as u64, 1 << 20).unwrap();
        assert_eq!(segment.bytes, bytes[at..at + segment.bytes.len()]);
        assert!(segment.place.is_some(), "raw chunks are mapped");
        at += segment.bytes.len();
    }
    // Longer than the file system's clock ticks.
    std::thread::sleep(Duration::from_millis(30));
    let hit = 450_000;
    let pack = packs(folder.path()).into_iter().find(|p| find(p, &bytes[hit..hit + 32]).is_some());
    let pack = pack.unwrap();
    flip(&pack, find(&pack, &bytes[hit..hit + 32]).unwrap(), 1);
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(9_000) {
        if let Some(segment) = reader.segment_ready(at as u64, 100_000) {
            assert_eq!(segment.bytes, bytes[at..at + segment.bytes.len()], "{at}");
        }
        match reader.segment(at as u64, 100_000) {
            Ok(segment) => assert_eq!(segment.bytes, bytes[at..at + segment.bytes.len()], "{at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    assert_eq!(library.suspects().unwrap().len(), 1);
    assert!(library.stat(digest).unwrap().suspect);
    // The reader that was refused reads on once somebody brought the bytes again.
    let session = library.session();
    assert!(session.add_bytes(&bytes).unwrap().new_bytes > 0);
    session.commit(vec![]).unwrap();
    let mut out = Vec::new();
    reader.copy_to(0..u64::MAX, &mut out).unwrap();
    assert!(out == bytes);
}

#[test]
fn the_index_comes_back_from_the_packs() {
    let (folder, contents) = sample();
    let library = open(folder.path());
    let options = AddOptions {
        aliases: contentlib::Aliases { sha256: true, sha1: true },
        ..AddOptions::default()
    };
    let session = library.session();
    let added = session.add_reader(&b"abc"[..], &options, &Progress::default()).unwrap();
    session.commit(vec![set("abc", added.digest, &[])]).unwrap();
    let refs = library.list_refs("").unwrap();
    let stats = library.stats().unwrap();
    drop((session, library));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let missing = Library::open(folder.path(), kit::options()).err().unwrap();
    assert!(matches!(missing, OpenError::IndexMissing { .. }), "{missing}");
    let report =
        Library::rebuild_index(folder.path(), kit::options(), &Progress::default()).unwrap();
    assert!(report.bad_packs.is_empty() && report.sealed_packs > 0, "{report:?}");
    let library = open(folder.path());
    assert_eq!(library.list_refs("").unwrap(), refs);
    let again = library.stats().unwrap();
    assert_eq!((again.chunks, again.recipes), (stats.chunks, stats.recipes));
    assert!(check_reads(&library, &contents).is_empty());
    let sha1 = "sha1:a9993e364706816aba3e25717850c26c9cd0d89d".parse().unwrap();
    assert_eq!(library.resolve(&sha1).unwrap(), Some(added.digest));
    assert!(verify(&library).is_clean());
}

/// What a crash left uncommitted is not in the index of whoever goes on, nor in one made anew later:
/// whatever the next run's log begins with.
#[test]
fn a_rebuilt_index_takes_in_nothing_that_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let kept = session.add_bytes(&random(1, 40_000)).unwrap().digest;
    session.commit(vec![set("kept", kept, &[])]).unwrap();
    let never = send_chunks(&session, &random(2, 90_000), 30_000);
    let crashed = copy(folder.path());
    let library = open(crashed.path());
    library.session().commit(vec![delete("kept"), set("again", kept, &[])]).unwrap();
    library.close().unwrap();
    assert_eq!(library.missing_chunks(never.chunks()).unwrap(), [true; 3]);
    drop(library);
    std::fs::remove_dir_all(crashed.path().join("index")).unwrap();
    Library::rebuild_index(crashed.path(), options(), &Progress::default()).unwrap();
    let library = open(crashed.path());
    assert_eq!(library.missing_chunks(never.chunks()).unwrap(), [true; 3]);
    assert_eq!(read(&library, kept), Some(random(1, 40_000)));
}

#[test]
fn a_rebuilt_index_leaves_out_no_pack_for_a_damaged_header_or_footer() {
    let (folder, contents) = sample();
    for (n, pack) in packs(folder.path()).iter().enumerate() {
        let len = std::fs::metadata(pack).unwrap().len();
        flip(pack, if n % 2 == 0 { 20 } else { len - 10 }, 2);
    }
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    Library::rebuild_index(folder.path(), options(), &Progress::default()).unwrap();
    let library = open(folder.path());
    assert!(check_reads(&library, &contents).is_empty());
    assert_eq!(library.list_refs("keep/").unwrap().len(), contents.len());
}

/// A sector of a pack cannot be read, wherever it is. Nothing is given up unasked: opening names the
/// pack. Where it is asked for, the index is made again, and the library opens with what the other
/// sectors hold.
#[test]
fn a_bad_sector_keeps_no_index_from_being_made_again() {
    const SECTOR: u64 = 4096;
    let store = Arc::new(MemoryStore::default());
    let open = |store: &Arc<MemoryStore>, kv: Arc<MemoryKv>| {
        Library::open_on(store.clone(), kv, Arc::new(System), options()).unwrap()
    };
    let library = open(&store, Arc::default());
    let session = library.session();
    let mut contents = Contents::new();
    for seed in 0..3 {
        let digest = add(&session, &mut contents, random(seed, 30_000));
        session.commit(vec![set(&format!("{seed}"), digest, &[])]).unwrap();
    }
    let torn = store.crash();
    drop((session, library));
    for (store, is_sealed) in [(torn, false), (store.crash(), true)] {
        let id = store.list().unwrap()[0];
        let len = store.open(id).unwrap().len().unwrap();
        for at in (0..len).step_by(SECTOR as usize) {
            let bad = Arc::new(store.crash());
            bad.lose(id, at..at + SECTOR);
            let kv = Arc::new(MemoryKv::default());
            let report = Library::rebuild_on(&*bad, kv.clone(), &System).unwrap();
            let library = open(&bad, kv);
            let hit = check_reads(&library, &contents);
            let found = verify(&library);
            if is_sealed {
                assert!(hit.len() <= 2, "byte {at}: {hit:?}");
                assert!(found.bad_chunks.iter().all(|id| hit.contains(id)), "byte {at}");
            } else {
                assert_eq!(report.bad_packs.len(), 1, "byte {at}");
                assert_eq!(report.bad_packs[0].pack, id, "byte {at}");
                assert!(found.bad_chunks.is_empty(), "nothing is promised that is not there");
                let kv = Arc::new(MemoryKv::default());
                let refused = Library::open_on(bad, kv, Arc::new(System), options());
                assert!(matches!(refused.err(), Some(OpenError::BadSector { .. })), "byte {at}");
            }
        }
    }
}

/// A pack whose header is lost is put last, and may tell an old recipe of a content that was
/// stored anew, cut otherwise.
#[test]
fn a_rebuilt_index_believes_the_recipe_whose_chunks_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { gc_grace: Duration::ZERO, ..options() };
    let library = Library::open(folder.path(), options).unwrap();
    let bytes = random(1, 200_000);
    let session = library.session();
    send_chunks(&session, &bytes, 30_000);
    library.seal_idle().unwrap();
    let digest = upload(&session, &bytes, 30_000);
    let kept = session.add_bytes(&random(2, 60_000)).unwrap().digest;
    session.commit(vec![set("x", digest, &[]), set("kept", kept, &[])]).unwrap();
    library.seal_idle().unwrap();
    drop(session);
    library.session().commit(vec![delete("x")]).unwrap();
    let collect = || library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
    let deleted: u64 = (0..2).map(|_| collect().deleted_packs).sum();
    assert!(deleted > 0, "the old chunks are gone");
    let session = library.session();
    upload(&session, &bytes, 40_000);
    session.commit(vec![set("x", digest, &[])]).unwrap();
    drop((session, library));
    let old =
        packs(folder.path()).into_iter().find(|pack| find(pack, &random(2, 60_000)).is_some());
    flip(&old.unwrap(), 20, 2);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    Library::rebuild_index(folder.path(), kit::options(), &Progress::default()).unwrap();
    let library = open(folder.path());
    assert!(read(&library, digest).is_some_and(|found| found == bytes));
}

#[test]
fn a_torn_pack_keeps_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let mut contents = Contents::new();
    let digest = add(&session, &mut contents, random(1, 100_000));
    session.commit(vec![set("kept", digest, &[])]).unwrap();
    let committed = std::fs::metadata(&packs(folder.path())[0]).unwrap().len();
    session.add_bytes(&random(2, 300_000)).unwrap();
    // As a power cut would leave it, at each of several places in what was not committed.
    for cut in [0, 1, 63, 64, 65, 1000, 150_000] {
        let left = copy(folder.path());
        std::fs::remove_dir_all(left.path().join("index")).unwrap();
        let pack = std::fs::File::options().write(true).open(&packs(left.path())[0]).unwrap();
        pack.set_len(committed + cut).unwrap();
        Library::rebuild_index(left.path(), options(), &Progress::default()).unwrap();
        let library = open(left.path());
        assert!(check_reads(&library, &contents).is_empty(), "cut at {cut}");
        assert!(read(&library, Digest::of(&random(2, 300_000))).is_none());
        assert!(verify(&library).is_clean());
        library.session().add_bytes(b"more").unwrap();
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (folder, _) = sample();
    let pack = &packs(folder.path())[0];
    state_version(pack, 3);
    let before = std::fs::read(pack).unwrap();
    std::fs::rename(folder.path().join("index"), folder.path().join("index.kept")).unwrap();
    let error = Library::rebuild_index(folder.path(), options(), &Progress::default()).unwrap_err();
    let MaintainError::Open(OpenError::NewerFormat { found, known, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!((found, known), (3, 1));
    assert_eq!(std::fs::read(pack).unwrap(), before);
    // The same where the index is there and has not seen the pack.
    let _ = std::fs::remove_dir_all(folder.path().join("index.new"));
    let empty = tempfile::tempdir().unwrap();
    drop(open(empty.path()));
    let place = empty.path().join("packs").join(pack.parent().unwrap().file_name().unwrap());
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(pack, place.join(pack.file_name().unwrap())).unwrap();
    let error = Library::open(empty.path(), options()).err().unwrap();
    assert!(matches!(error, OpenError::NewerFormat { .. }), "{error}");
}

#[test]
fn a_pack_of_a_newer_format_is_never_condemned_or_deleted() {
    let (folder, contents) = sample();
    let all = packs(folder.path());
    let newest = all.last().unwrap();
    state_version(newest, 3);
    let error = Library::open(folder.path(), options()).err().unwrap();
    assert!(matches!(error, OpenError::NewerFormat { found: 3, known: 1, .. }), "{error}");
    state_version(newest, 1);

    let newer = &all[0];
    state_version(newer, 3);
    let before = std::fs::read(newer).unwrap();
    let options = contentlib::Options { gc_grace: Duration::ZERO, ..options() };
    let library = Library::open(folder.path(), options).unwrap();
    let is_refused = |result: Result<(), MaintainError>| {
        let error = result.unwrap_err();
        let is_newer =
            matches!(error, MaintainError::Open(OpenError::NewerFormat { found: 3, .. }));
        assert!(is_newer, "{error}");
    };
    let progress = Progress::default();
    is_refused(library.verify(&Default::default(), &NoLinks, &progress).map(drop));
    // All of it is live, so there is nothing to do with it.
    library.gc(&Default::default(), &NoLinks, &progress).unwrap();
    // First little of it is live, and to be copied; then nothing.
    let is_there = |bytes: &[u8]| bytes.len() < 50_000 && find(newer, &bytes[..32]).is_some();
    let (kept, bytes) = contents.iter().find(|(_, bytes)| is_there(bytes)).unwrap();
    for keep in [Some(kept), None] {
        let others = contents.keys().filter(|content| Some(*content) != keep);
        let delete = others.map(|content| kit::delete(&format!("keep/{}", content.to_hex())));
        library.session().commit(delete.collect()).unwrap();
        is_refused(library.gc(&Default::default(), &NoLinks, &progress).map(drop));
        assert_eq!(std::fs::read(newer).unwrap(), before);
        let holders = packs(folder.path());
        let holders = holders.iter().filter(|pack| find(pack, &bytes[..32]).is_some());
        assert_eq!(holders.count(), 1, "nothing was copied out of it");
        assert_eq!(read(&library, *kept).is_some(), keep.is_some());
    }
    // A depot that knows the format finds it as it was.
    state_version(newer, 1);
    let report = library.gc(&Default::default(), &NoLinks, &progress).unwrap();
    assert!(report.deleted_packs > 0 && !newer.exists(), "{report:?}");
}

#[test]
fn a_flipped_bit_in_the_version_is_damage_and_no_newer_format() {
    let (folder, contents) = sample();
    flip(packs(folder.path()).last().unwrap(), 8, 2);
    let library = open(folder.path());
    assert!(check_reads(&library, &contents).is_empty());
    assert_eq!(verify(&library).bad_packs.len(), 1);
}

/// Has a pack say that it is of another version, as one that really is would.
fn state_version(pack: &Path, version: u16) {
    let mut bytes = std::fs::read(pack).unwrap();
    bytes[8..10].copy_from_slice(&version.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(pack, bytes).unwrap();
}

struct Small(Vec<u8>);

impl Source for Small {
    type Reader = std::io::Cursor<Vec<u8>>;
    fn open(&mut self) -> std::io::Result<Self::Reader> {
        Ok(std::io::Cursor::new(self.0.clone()))
    }
    fn size_hint(&self) -> u64 {
        self.0.len() as u64
    }
    fn finish(&mut self, _: Self::Reader, _: u64) -> std::io::Result<Recheck> {
        Ok(Recheck::Same)
    }
}

/// Small files share blocks, so a hundred thousand cost a few hundred records and few bytes.
#[test]
fn a_hundred_thousand_small_files_share_blocks() {
    const N: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let content = |n: u64| text(n, 100 + n as usize % 400);
    let mut added = 0u64;
    let done = |_: Small, result: Result<Added, AddError>| added += u64::from(result.is_ok());
    let files = (0..N).map(|n| Small(content(n)));
    session.add_files(files, &AddOptions::default(), &Progress::default(), done).unwrap();
    session.commit(vec![]).unwrap();
    assert_eq!(added, N);
    let stats = library.stats().unwrap();
    assert_eq!(stats.chunks, N);
    assert!(stats.stored_bytes * 2 < stats.plain_bytes, "{stats:?}");
    library.close().unwrap();
    drop((session, library));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    Library::rebuild_index(folder.path(), options(), &Progress::default()).unwrap();
    let library = open(folder.path());
    for n in (0..N).step_by(487) {
        let bytes = content(n);
        assert_eq!(read(&library, Digest::of(&bytes)).unwrap(), bytes);
    }
}

#[test]
fn garbage_collection_keeps_the_chunks_that_a_damaged_recipe_still_names() {
    let folder = tempfile::tempdir().unwrap();
    let options = contentlib::Options { gc_grace: Duration::ZERO, ..options() };
    let library = Library::open(folder.path(), options.clone()).unwrap();
    let bytes = random(1, 900_000);
    let session = library.session();
    let digest = session.add_bytes(&bytes).unwrap().digest;
    session.commit(vec![set("kept", digest, &[])]).unwrap();
    let recipe = library.recipe(digest).unwrap();
    assert!(recipe.len() > 3);
    drop(session);
    library.close().unwrap();
    drop(library);
    let stored = recipe.encode();
    let (at, pack) = packs(folder.path())
        .into_iter()
        .find_map(|pack| Some((find(&pack, &stored)?, pack)))
        .unwrap();
    // In the second of its names.
    flip(&pack, at + 8 + 36 + 5, 1);

    let library = Library::open(folder.path(), options).unwrap();
    assert!(read(&library, digest).is_none());
    for _ in 0..2 {
        library.gc(&Default::default(), &NoLinks, &Progress::default()).unwrap();
    }
    let session = library.session();
    let lost = recipe.chunks()[1];
    match session.put_recipe(digest, &recipe) {
        Err(AddError::MissingChunks(ids)) => assert_eq!(ids, [lost]),
        other => panic!("{other:?}"),
    }
    let part = recipe.span(1).bytes;
    session.add_bytes(&bytes[part.start as usize..part.end as usize]).unwrap();
    session.put_recipe(digest, &recipe).unwrap();
    session.commit(Vec::new()).unwrap();
    assert!(read(&library, digest) == Some(bytes));
}
