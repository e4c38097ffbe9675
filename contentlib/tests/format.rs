//! Libraries of every format version that was ever released open for ever.
//!
//! `tests/data/v1/packs` was written once as `write` below still writes, and does not change: two sealed packs, a torn one with an uncommitted end, blocks of both codecs, recipes,
//! aliases, deleted refs and a checkpoint. The index is not kept, since any version may make its
//! own.

#![allow(clippy::unwrap_used, missing_docs)]

mod kit;

use contentlib::{AddOptions, Aliases, Digest, GcOptions, Library, Progress};
use kit::*;
use std::path::Path;

const V1: &str = "tests/data/v1";

fn contents() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("one byte", b"x".to_vec()),
        ("text", text(11, 30_000)),
        ("random", random(12, 3_000)),
        // Several chunks, of few stored bytes.
        ("large", [vec![7; 700_000], text(13, 300_000)].concat()),
    ]
}

#[test]
fn a_library_of_version_1_opens_and_reads() {
    opens_and_reads(Path::new(V1));
}

/// So that what the fixture holds is what is written today. For a new format version,
/// `DEPOT_WRITE_FIXTURE` names the folder that its fixture is left in.
#[test]
fn a_library_written_now_opens_and_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("DEPOT_WRITE_FIXTURE").map(std::path::PathBuf::from);
    let to = kept.as_deref().unwrap_or(folder.path());
    write(&to.join("packs"));
    opens_and_reads(to);
}

fn opens_and_reads(at: &Path) {
    let folder = copy(at);
    let report = Library::rebuild_index(folder.path(), options(), &Progress::default()).unwrap();
    assert!(report.bad_packs.is_empty(), "{report:?}");
    assert_eq!((report.sealed_packs, report.scanned_packs), (2, 1), "{report:?}");
    let library = open(folder.path());
    let refs: Vec<String> =
        library.list_refs("").unwrap().into_iter().map(|(name, _)| name).collect();
    let mut names: Vec<String> =
        contents().into_iter().map(|(name, _)| format!("v1/{name}")).collect();
    names.push("v1/later".into());
    names.sort();
    assert_eq!(refs, names);
    for (name, bytes) in contents() {
        let root = library.get_ref(&format!("v1/{name}")).unwrap().unwrap().root.unwrap();
        assert_eq!(root, Digest::of(&bytes));
        assert!(read(&library, root).unwrap() == bytes, "{name}");
    }
    let large = Digest::of(&contents()[4].1);
    let recipe = library.recipe(large).unwrap();
    assert_eq!(recipe.digest().to_hex(), RECIPE);
    assert!(recipe.len() > 1);
    let name = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    assert_eq!(library.resolve(&name.parse().unwrap()).unwrap(), Some(Digest::of(b"x")));
    let name = "sha1:11f6ad8ec52a2984abaafd7c3b516503785c2072";
    assert_eq!(library.resolve(&name.parse().unwrap()).unwrap(), Some(Digest::of(b"x")));
    // Added after the last commit: never acknowledged.
    assert!(library.open_content(Digest::of(&random(14, 2_000))).is_err());
    assert!(verify(&library).is_clean());
    // And it goes on.
    let session = library.session();
    let digest = session.add_bytes(b"more").unwrap().digest;
    session.commit(vec![set("more", digest, &[])]).unwrap();
    library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
    assert_eq!(read(&library, digest).unwrap(), b"more");
}

const RECIPE: &str = "6481b4864698633a83e45a83c0912fee56b579231c8d50240c32399e214166fe";

/// Leaves the packs of such a library in `to`.
fn write(to: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let library = open(folder.path());
    let session = library.session();
    let options =
        AddOptions { aliases: Aliases { sha256: true, sha1: true }, ..AddOptions::default() };
    let gone = session.add_bytes(b"gone").unwrap().digest;
    session.commit(vec![set("v1/gone", gone, &[])]).unwrap();
    library.seal_idle().unwrap();
    session.commit(vec![delete("v1/gone")]).unwrap();
    for (name, bytes) in contents() {
        let progress = Progress::default();
        let added = session.add_reader(&bytes[..], &options, &progress).unwrap();
        session.commit(vec![set(&format!("v1/{name}"), added.digest, &[])]).unwrap();
    }
    drop(session);
    // Condemns what is gone and deletes its pack, so that a checkpoint is written.
    let no_grace = contentlib::Options { gc_grace: std::time::Duration::ZERO, ..kit::options() };
    drop(library);
    let library = Library::open(folder.path(), no_grace).unwrap();
    for _ in 0..3 {
        library.gc(&GcOptions::default(), &ValueNames, &Progress::default()).unwrap();
        library.seal_idle().unwrap();
    }
    let session = library.session();
    let later = session.add_bytes(b"later").unwrap().digest;
    session.commit(vec![set("v1/later", later, &[])]).unwrap();
    session.add_bytes(&random(14, 2_000)).unwrap();
    // As it is now, without its last pack's footer.
    for pack in packs(folder.path()) {
        let place = to.join(pack.parent().unwrap().file_name().unwrap());
        std::fs::create_dir_all(&place).unwrap();
        let place = place.join(pack.file_name().unwrap());
        std::fs::copy(&pack, &place).unwrap();
    }
}
