//! What was copied away at one moment opens as the library was, whatever went on beside.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::{CapturedPack, Digest, GcOptions, Library, MaintainError, NoLinks, Progress, Ref};
use kit::{open, options, random, read};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

fn store(library: &Library, name: &str, bytes: &[u8]) -> Digest {
    let session = library.session();
    let digest = session.add_bytes(bytes).unwrap().digest;
    let to = Ref { root: Some(digest), value: Default::default() };
    let set = contentlib::RefChange::Set { name: name.into(), to, expect: contentlib::Expect::Any };
    session.commit(vec![set]).unwrap();
    digest
}

fn forget(library: &Library, name: &str) {
    let change =
        contentlib::RefChange::Delete { name: name.into(), expect: contentlib::Expect::Any };
    library.session().commit(vec![change]).unwrap();
}

/// All bytes of a capture, by pack.
fn copied(capture: &contentlib::Capture) -> HashMap<u128, Vec<u8>> {
    let copy = |pack: &CapturedPack| {
        let mut bytes = Vec::new();
        let take = |some: &[u8]| {
            bytes.extend_from_slice(some);
            Ok(())
        };
        capture.read(*pack, &Progress::default(), take).unwrap();
        (pack.id.0, bytes)
    };
    capture.packs.iter().map(copy).collect()
}

fn put_back(
    folder: &Path,
    packs: &[CapturedPack],
    bytes: &HashMap<u128, Vec<u8>>,
) -> Result<u64, MaintainError> {
    let source = &mut |pack: CapturedPack| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(io::Cursor::new(bytes[&pack.id.0].clone())))
    };
    Library::restore_packs(folder, options(), packs, source, &Progress::default())
}

#[test]
fn a_capture_is_the_library_of_its_moment() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::open(
        &folder.path().join("live"),
        contentlib::Options { gc_grace: std::time::Duration::ZERO, ..options() },
    )
    .unwrap();
    let contents: Vec<Vec<u8>> = (0..6).map(|n| random(n, 300 << 10)).collect();
    let name = |n: usize| format!("ref/{n}");
    let digests: Vec<Digest> =
        contents.iter().enumerate().map(|(n, bytes)| store(&library, &name(n), bytes)).collect();
    let mut late = None;
    let (capture, refs) = library.capture(|| library.list_refs("").unwrap().len()).unwrap();
    assert_eq!((refs, capture.refs.len(), capture.bad_packs.len()), (6, 6, 0));
    // All goes, and garbage collection runs as often as it likes.
    for n in 0..6 {
        forget(&library, &name(n));
        late = Some(store(&library, "late", &random(70 + n as u64, 200 << 10)));
    }
    for _ in 0..3 {
        let done = library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
        assert_eq!(done.deleted_packs, 0, "who copies packs away reads them yet");
    }
    let bytes = copied(&capture);
    let packs = capture.packs.clone();
    drop(capture);
    let done = library.gc(&GcOptions::default(), &NoLinks, &Progress::default()).unwrap();
    assert!(done.deleted_packs > 0);
    assert!(digests.iter().all(|digest| read(&library, *digest).is_none()), "they are gone");

    let copy = folder.path().join("copy");
    assert_eq!(put_back(&copy, &packs, &bytes).unwrap(), packs.len() as u64);
    assert_eq!(put_back(&copy, &packs, &bytes).unwrap(), 0, "what is there stays");
    let restored = open(&copy);
    assert_eq!(restored.id(), library.id());
    assert_eq!(restored.list_refs("").unwrap().len(), 6);
    for (digest, bytes) in digests.iter().zip(&contents) {
        assert_eq!(read(&restored, *digest).as_ref(), Some(bytes));
    }
    assert_eq!(read(&restored, late.unwrap()), None);
    store(&restored, "new", b"it goes on");
    restored.close().unwrap();
    drop(restored);
    let refused = put_back(&copy, &packs, &bytes).unwrap_err();
    assert!(matches!(refused, MaintainError::Store { .. }), "{refused}: it holds what came since");
}

#[test]
fn bytes_that_are_cut_off_become_no_pack() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(&folder.path().join("live"));
    store(&library, "a", &random(1, 100 << 10));
    let (capture, ()) = library.capture(|| ()).unwrap();
    let source = &mut |_: CapturedPack| -> io::Result<Box<dyn Read>> {
        struct Cut;
        impl Read for Cut {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        Ok(Box::new(io::Cursor::new(vec![7; 5000]).chain(Cut)))
    };
    let copy = folder.path().join("copy");
    let packs = capture.packs.clone();
    let put = Library::restore_packs(&copy, options(), &packs, source, &Progress::default());
    assert!(matches!(put, Err(MaintainError::Store { .. })));
    assert_eq!(put_back(&copy, &packs, &copied(&capture)).unwrap(), packs.len() as u64);
    assert!(read(&open(&copy), Digest::of(&random(1, 100 << 10))).is_some());
}

#[test]
fn refs_whose_content_is_elsewhere_are_known_as_missing_and_heal() {
    let folder = tempfile::tempdir().unwrap();
    let library = open(&folder.path().join("live"));
    let bytes = random(1, 400 << 10);
    let digest = store(&library, "a", &bytes);
    let (capture, ()) = library.capture(|| ()).unwrap();
    let other = open(&folder.path().join("other"));
    store(&other, "b", b"its own");
    let mut refs = capture.refs.clone();
    refs.push(("b".into(), Ref { root: None, value: Default::default() }));
    assert_eq!(other.restore_refs(refs).unwrap(), 1, "its own b stays");
    assert_eq!(other.damaged(&NoLinks).unwrap(), [digest]);
    // They lie in a pack: an index that is made anew knows them.
    other.close().unwrap();
    drop(other);
    Library::rebuild_index(&folder.path().join("other"), options(), &Progress::default()).unwrap();
    let other = open(&folder.path().join("other"));
    assert_eq!(other.list_refs("").unwrap().len(), 2);
    let damaged = other.damaged(&NoLinks).unwrap();
    let healed = other.repair(&damaged, &mut kit::Other(library), &Progress::default()).unwrap();
    assert_eq!((healed.healed, healed.lost.len()), (1, 0));
    assert_eq!(read(&other, digest), Some(bytes));
}
