//! The library's promises, on real files.

#![allow(clippy::unwrap_used, missing_docs)]

use contentlib::{AddError, AddOptions, Aliases, Digest, Expect, GcOptions, GcReport, Keeps};
use contentlib::{Library, Name, NoLinks, Options, Progress, Ref, RefChange};
use std::path::Path;
use std::time::Duration;

fn options() -> Options {
    Options { threads: 2, reserve: 0, pack_target: 8 << 20, ..Options::default() }
}

fn open(folder: &Path) -> Library {
    Library::open(folder, options()).unwrap()
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 40);
    let mut n = seed;
    while out.len() < len {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        out.extend_from_slice(format!("line {} of some text\n", n >> 48).as_bytes());
    }
    out.truncate(len);
    out
}

fn read_all(library: &Library, digest: Digest) -> Vec<u8> {
    let reader = library.open_content(digest).unwrap();
    let mut out = Vec::new();
    reader.copy_to(0..reader.size(), &mut out).unwrap();
    out
}

fn keep(name: &str, root: Digest) -> RefChange {
    let to = Ref { root: Some(root), value: Default::default() };
    RefChange::Set { name: name.into(), to, expect: Expect::Any }
}

#[test]
fn what_was_committed_reads_back_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = [0, 1, 100, 32 << 10, (32 << 10) + 1, 600 << 10, 5 << 20]
        .into_iter()
        .flat_map(|len| [random(len as u64, len), text(len as u64, len)])
        .collect();
    let mut digests = Vec::new();
    {
        let library = open(folder.path());
        let session = library.session();
        for content in &contents {
            let added = session.add_bytes(content).unwrap();
            assert_eq!(added.digest, Digest::of(content));
            digests.push(added.digest);
        }
        session.commit(vec![]).unwrap();
    }
    let library = open(folder.path());
    for (content, digest) in contents.iter().zip(&digests) {
        assert_eq!(&read_all(&library, *digest), content);
        assert_eq!(library.stat(*digest).unwrap().size, content.len() as u64);
    }
}

#[test]
fn a_killed_process_keeps_what_was_committed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let kept = text(1, 3 << 20);
    let lost = text(2, 3 << 20);
    {
        let library = open(folder.path());
        let session = library.session();
        let added = session.add_bytes(&kept).unwrap();
        session.commit(vec![keep("kept", added.digest)]).unwrap();
        session.add_bytes(&lost).unwrap();
        // No close: as if killed. The lock goes with the process, so it is taken over by hand.
        std::mem::forget(session);
        std::mem::forget(library);
        std::fs::remove_file(folder.path().join("lock")).unwrap();
        // RocksDB's own lock stays in this process; a copy of the folder has none.
    }
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", folder.path().display()))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());
    let library = open(copy.path());
    assert_eq!(read_all(&library, Digest::of(&kept)), kept);
    assert!(library.get_ref("kept").unwrap().is_some());
    assert!(library.open_content(Digest::of(&lost)).is_err());
}

#[test]
fn the_same_bytes_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let content = random(7, 2 << 20);
    let session = library.session();
    assert_eq!(session.add_bytes(&content).unwrap().new_bytes, content.len() as u64);
    assert_eq!(session.add_bytes(&content).unwrap().new_bytes, 0);
    session.commit(vec![]).unwrap();
    assert_eq!(library.session().add_bytes(&content).unwrap().new_bytes, 0);
}

#[test]
fn segments_are_the_content_wherever_they_begin() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    for content in [random(3, 3 << 20), text(3, 3 << 20)] {
        let added = session.add_bytes(&content).unwrap();
        session.commit(vec![]).unwrap();
        let reader = library.open_content(added.digest).unwrap();
        for start in [0, 1, 100_000, 1 << 20, (3 << 20) - 1] {
            let segment = reader.segment(start as u64, 200_000).unwrap();
            assert!(!segment.bytes.is_empty());
            assert_eq!(segment.bytes, content[start..start + segment.bytes.len()]);
            assert!(segment.bytes.len() <= 200_000);
            let ready = reader.segment_ready(start as u64, 200_000).unwrap();
            assert_eq!(ready.bytes, segment.bytes);
        }
        assert!(reader.segment(3 << 20, 1).unwrap().bytes.is_empty());
    }
}

#[test]
fn other_names_resolve_and_lies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let options =
        AddOptions { aliases: Aliases { sha256: true, sha1: true }, ..AddOptions::default() };
    let added = session.add_reader(&b"abc"[..], &options, &Progress::default()).unwrap();
    session.commit(vec![]).unwrap();
    let sha1: Name = "sha1:a9993e364706816aba3e25717850c26c9cd0d89d".parse().unwrap();
    let sha256: Name =
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
    for name in [sha1, sha256] {
        assert_eq!(library.resolve(&name).unwrap(), Some(added.digest));
        let options = AddOptions { expect: Some(name), ..AddOptions::default() };
        let lie = session.add_reader(&b"abd"[..], &options, &Progress::default()).unwrap_err();
        assert!(matches!(lie, AddError::WrongDigest { .. }), "{lie}");
        session.add_reader(&b"abc"[..], &options, &Progress::default()).unwrap();
    }
}

#[test]
fn refs_change_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let one = session.add_bytes(b"one").unwrap().digest;
    session.commit(vec![keep("a", one)]).unwrap();
    let stale = RefChange::Delete { name: "a".into(), expect: Expect::Absent };
    assert!(session.commit(vec![keep("b", one), stale]).is_err());
    assert_eq!(library.get_ref("b").unwrap(), None);
    let nowhere = Digest::of(b"never added");
    assert!(session.commit(vec![keep("c", nowhere)]).is_err());
}

#[test]
fn a_folder_is_used_by_one_library_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _library = open(folder.path());
    let error = Library::open(folder.path(), options()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn what_is_sent_from_the_file_begins_at_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::open(folder.path(), options()).unwrap();
    let session = library.session();
    session.add_bytes(&random(1, 20_001)).unwrap();
    let large = session.add_bytes(&random(2, 1 << 20)).unwrap().digest;
    session.add_bytes(&random(3, 1_001)).unwrap();
    let other = session.add_bytes(&random(4, 700_000)).unwrap().digest;
    session.commit(vec![]).unwrap();
    for content in [large, other] {
        let segment = library.open_content(content).unwrap().segment(0, 1 << 20).unwrap();
        assert_eq!(segment.place.unwrap().offset % 4096, 0);
    }
}

#[test]
fn work_that_takes_days_keeps_what_came_and_lets_what_was_there_before_go() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options { gc_grace: Duration::ZERO, pack_target: 1 << 20, ..options() };
        Library::open(folder.path(), options).unwrap()
    };
    let gc = |library: &Library| -> GcReport {
        library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap()
    };
    let is_held = |library: &Library, digest| !library.missing_contents(&[digest]).unwrap()[0];
    let (old, shared, came) = (random(1, 3 << 20), random(2, 3 << 20), random(3, 3 << 20));
    let library = open();
    let add = |library: &Library, bytes: &[u8], name: &str| {
        let session = library.session();
        let digest = session.add_bytes(bytes).unwrap().digest;
        session.commit(vec![keep(name, digest)]).unwrap();
        digest
    };
    let (old, shared) = (add(&library, &old, "old"), add(&library, &shared, "shared"));
    let slow = library.open_session("slow", WEEK, Keeps::Added).unwrap();
    assert!(!slow.missing_contents(&[old]).unwrap()[0], "it finds it held");
    let came = slow.add_bytes(&came).unwrap().digest;
    slow.commit(Vec::new()).unwrap();

    let gone = RefChange::Delete { name: "old".into(), expect: Expect::Any };
    library.session().commit(vec![gone]).unwrap();
    let freed = (0..2).map(|_| gc(&library).freed_bytes).sum::<u64>();
    assert!(freed >= 2 << 20, "{freed} bytes are freed while the work goes on");
    assert!(!is_held(&library, old) && is_held(&library, shared));

    // The process ends, and is started again.
    drop(slow);
    library.close().unwrap();
    drop(library);
    let library = open();
    gc(&library);
    gc(&library);
    let slow = library.open_session("slow", WEEK, Keeps::Added).unwrap();
    assert!(!slow.missing_contents(&[came]).unwrap()[0], "what came is there");
    assert_eq!(read_all(&library, came), random(3, 3 << 20));
    slow.keep([came, shared]);
    slow.commit(vec![keep("slow", came)]).unwrap();
    slow.end().unwrap();
    gc(&library);
    gc(&library);
    assert!(is_held(&library, came) && is_held(&library, shared));
}
