//! Verifying in parts: what is hit is found pack by pack and content by content, and damage that shows
//! without reading is seen at once.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::{Digest, Library, NoLinks, Progress, VerifyOptions, VerifyReport};
use kit::*;
use std::path::Path;

/// A library of `n` contents, each in packs of its own, and a folder that it is in.
fn library(n: u64) -> (tempfile::TempDir, Library, Vec<Digest>) {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let mut contents = Vec::new();
    for seed in 0..n {
        let session = library.session();
        let digest = session.add_bytes(&random(seed, 300_000)).unwrap().digest;
        session.commit(vec![set(&format!("keep/{seed}"), digest, &[])]).unwrap();
        library.seal_idle().unwrap();
        contents.push(digest);
    }
    (folder, library, contents)
}

fn contents_hit(library: &Library, contents: &[Digest]) -> Vec<Digest> {
    let found =
        library.verify_contents(contents, &VerifyOptions::default(), &Progress::default()).unwrap();
    found.bad_contents.into_iter().map(|content| content.digest).collect()
}

fn verify_packs(library: &Library, numbers: &[u32]) -> VerifyReport {
    library.verify_packs(numbers, &VerifyOptions::default(), &Progress::default()).unwrap()
}

fn flip_middle(pack: &Path) {
    flip(pack, std::fs::metadata(pack).unwrap().len() / 2, 4);
}

#[test]
fn a_content_is_verified_by_itself() {
    let (folder, library, contents) = library(3);
    let found = library
        .verify_contents(&contents, &VerifyOptions::default(), &Progress::default())
        .unwrap();
    assert!(found.is_clean() && found.bytes >= 900_000, "{found:?}");
    // Packs are numbered as they were written, as their names are.
    flip_middle(&packs(folder.path())[1]);
    assert_eq!(contents_hit(&library, &[contents[0], contents[2], Digest::EMPTY]), []);
    assert!(library.suspects().unwrap().is_empty(), "nobody looked at it");
    assert_eq!(contents_hit(&library, &contents), [contents[1]]);
    assert!(!library.suspects().unwrap().is_empty());
    let lost = Digest::of(b"never added");
    assert_eq!(contents_hit(&library, &[contents[0], lost]), [lost]);
    // Given the bytes again, it is whole again.
    library.session().add_bytes(&random(1, 300_000)).unwrap();
    assert_eq!(contents_hit(&library, &contents), []);
}

#[test]
fn packs_are_verified_one_by_one() {
    let (folder, library, contents) = library(4);
    let sizes = library.pack_sizes().unwrap();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.is_sorted_by_key(|pack| pack.number));
    flip_middle(&packs(folder.path())[2]);
    for (at, pack) in sizes.iter().enumerate() {
        let found = verify_packs(&library, &[pack.number]);
        assert_eq!((found.packs, found.bad_chunks.is_empty()), (1, at != 2), "{found:?}");
    }
    let found = library.verify(&VerifyOptions::default(), &NoLinks, &Progress::default()).unwrap();
    let hit: Vec<Digest> = found.bad_contents.iter().map(|content| content.digest).collect();
    assert!(hit.contains(&contents[2]) && !hit.contains(&contents[1]), "{hit:?}");
    assert_eq!(verify_packs(&library, &[9999]).packs, 0, "one that is gone is passed over");
}

#[test]
fn packs_that_are_gone_or_cut_are_seen_without_reading() {
    let (folder, library, contents) = library(3);
    assert!(library.hurt_packs().unwrap().is_empty());
    // A pack that is written to now.
    let session = library.session();
    let open = session.add_bytes(&random(9, 300_000)).unwrap().digest;
    session.commit(vec![set("keep/open", open, &[])]).unwrap();
    drop(session);
    let numbers: Vec<u32> = library.pack_sizes().unwrap().iter().map(|p| p.number).collect();
    let files = packs(folder.path());
    std::fs::remove_file(&files[0]).unwrap();
    let cut = std::fs::File::options().write(true).open(&files[1]).unwrap();
    cut.set_len(1000).unwrap();
    std::fs::remove_file(&files[3]).unwrap();
    let hurt = library.hurt_packs().unwrap();
    assert_eq!(hurt, [numbers[0], numbers[1], numbers[3]]);
    verify_packs(&library, &hurt);
    let all: Vec<Digest> = contents.iter().copied().chain([open]).collect();
    let missing = library.missing_contents(&all).unwrap();
    assert_eq!(missing, [true, true, false, true]);
    // What comes again does not go into a file that is gone.
    for seed in [0, 1, 9] {
        let session = library.session();
        session.add_bytes(&random(seed, 300_000)).unwrap();
        session.commit(Vec::new()).unwrap();
    }
    library.close().unwrap();
    drop(library);
    let library = self::open(folder.path());
    assert_eq!(contents_hit(&library, &all), []);
}

/// `contents` are whole once `lost` came again, and as whole in a library whose index is made anew from its packs.
fn check_healed(folder: &Path, library: Library, contents: &[Digest], lost: &[Vec<u8>]) {
    let session = library.session();
    for bytes in lost {
        session.add_bytes(bytes).unwrap();
    }
    session.commit(Vec::new()).unwrap();
    drop(session);
    assert_eq!(contents_hit(&library, contents), []);
    library.close().unwrap();
    drop(library);
    Library::rebuild_index(folder, options(), &Progress::default()).unwrap();
    let library = open(folder);
    let found = library.verify(&VerifyOptions::default(), &NoLinks, &Progress::default()).unwrap();
    assert!(found.bad_contents.is_empty(), "{found:?}");
    assert_eq!(contents_hit(&library, contents), []);
}

/// The commit of a pack is at its end. Without it, nothing before it counts to whoever has no index.
#[test]
fn what_is_left_in_a_pack_that_is_cut_is_found_by_an_index_made_anew() {
    let (folder, library, mut contents) = library(0);
    let session = library.session();
    let small: Vec<Vec<u8>> = (0..6).map(|seed| random(seed, 50_000)).collect();
    contents.extend(small.iter().map(|bytes| session.add_bytes(bytes).unwrap().digest));
    let changes = contents.iter().map(|digest| set(&digest.to_hex(), *digest, &[])).collect();
    session.commit(changes).unwrap();
    drop(session);
    library.close().unwrap();
    drop(library);
    let pack = packs(folder.path()).remove(0);
    let cut = std::fs::File::options().write(true).open(&pack).unwrap();
    cut.set_len(cut.metadata().unwrap().len() / 2).unwrap();
    let library = open(folder.path());
    verify_packs(&library, &library.hurt_packs().unwrap());
    let lost = contents_hit(&library, &contents);
    assert!(!lost.is_empty() && lost.len() < contents.len(), "some of it is left: {lost:?}");
    check_healed(folder.path(), library, &contents, &small);
}

/// Without a footer a pack is read up to what is damaged in it.
#[test]
fn what_lies_behind_damage_in_a_pack_without_a_footer_is_found_by_an_index_made_anew() {
    let (folder, library, mut contents) = library(0);
    let small: Vec<Vec<u8>> = (0..6).map(|seed| random(seed, 50_000)).collect();
    for bytes in &small {
        let session = library.session();
        contents.push(session.add_bytes(bytes).unwrap().digest);
        let digest = *contents.last().unwrap();
        session.commit(vec![set(&digest.to_hex(), digest, &[])]).unwrap();
    }
    library.close().unwrap();
    let pack = packs(folder.path()).remove(0);
    let len = std::fs::metadata(&pack).unwrap().len();
    flip(&pack, 100_000, 4);
    flip(&pack, len - 10, 4);
    let number = library.pack_sizes().unwrap()[0].number;
    verify_packs(&library, &[number]);
    let lost = contents_hit(&library, &contents);
    assert_eq!(lost.len(), 1, "{lost:?}");
    check_healed(folder.path(), library, &contents, &small);
}

#[test]
fn a_slow_run_ends_soon_after_it_is_cancelled() {
    let (_folder, library, contents) = library(1);
    // It would take days.
    let options = VerifyOptions { pace: Some(1), ..VerifyOptions::default() };
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| library.verify_contents(&contents, &options, &progress));
        while progress.bytes.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        progress.cancel();
        assert!(run.join().unwrap().is_err());
    });
}

#[test]
fn an_index_that_is_gone_or_cut_is_seen_while_it_still_answers() {
    for damage in ["all", "CURRENT", "sst"] {
        let (folder, library, contents) = library(1);
        // What was written is in tables.
        library.close().unwrap();
        library.check_index().unwrap();
        library.read_index(&Progress::default()).unwrap();
        let index = folder.path().join("index");
        match damage {
            "all" => std::fs::remove_dir_all(&index).unwrap(),
            "CURRENT" => std::fs::write(index.join("CURRENT"), "garbage").unwrap(),
            _ => {
                let files = std::fs::read_dir(&index).unwrap().map(|file| file.unwrap().path());
                let table = files.into_iter().find(|path| path.extension() == Some("sst".as_ref()));
                let table = std::fs::File::options().write(true).open(table.unwrap()).unwrap();
                table.set_len(100).unwrap();
            }
        }
        let error = library.check_index().unwrap_err().to_string();
        assert!(error.contains("is gone, or not as it was written"), "{damage}: {error}");
        assert!(read(&library, contents[0]).is_some(), "{damage}");
        drop(library);
        Library::rebuild_index(folder.path(), options(), &Progress::default()).unwrap();
        assert_eq!(contents_hit(&open(folder.path()), &contents), [], "{damage}");
    }
}
