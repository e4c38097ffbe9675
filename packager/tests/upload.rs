//! Uploads: only missing chunks travel, nothing a client says is believed, and it may go on after
//! a break.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Site, noise, package, tree};
use contentlib::block::Codec;
use contentlib::chunker::Chunker;
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Frame, Recipe};
use contentlib::{Expect, GcOptions, Progress, Ref, RefChange};
use jiff::SignedDuration;
use packager::manifest::{Entry, FileEntry, Kind, ManifestBuilder};
use packager::upload::PutRecipe;
use packager::{Manifest, ManifestLinks, UploadError};
use std::time::Duration;

/// A file as a client sees it.
struct Local {
    bytes: Vec<u8>,
    recipe: Recipe,
}

impl Local {
    fn new(bytes: Vec<u8>) -> Self {
        let mut at = 0;
        let chunks = Chunker::default().lengths(&bytes).into_iter().map(|len| {
            at += len;
            (ChunkId(Digest::of(&bytes[at - len..at])), len as u32)
        });
        let recipe = Recipe::new(chunks).unwrap();
        Self { bytes, recipe }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The stream of those chunks that are `missing`.
    fn frames(&self, missing: &[bool]) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        for (span, _) in self.recipe.spans().zip(missing).filter(|(_, missing)| **missing) {
            let chunk = &self.bytes[span.bytes.start as usize..span.bytes.end as usize];
            let len = vec![chunk.len() as u32];
            let frame = Frame::new(Codec::Raw, len, chunk.to_vec().into()).unwrap();
            FrameItem::Block(frame).encode(&mut out);
        }
        FrameItem::End.encode(&mut out);
        out.to_vec()
    }
}

fn manifest(files: &[(&str, &Local)]) -> Manifest {
    let mut builder = ManifestBuilder::default();
    for (path, local) in files {
        let size = local.bytes.len() as u64;
        let file = FileEntry { size, digest: local.digest(), recipe: None };
        let kind = Kind::File(file);
        builder.push(Entry { path: path.as_bytes(), mode: 0o644, mtime: 0, kind }).unwrap();
    }
    builder.finish()
}

fn site() -> Site {
    let site = Site::new();
    site.create("p", None).unwrap();
    site
}

/// Sends what is missing of `files` and commits them.
fn push(site: &Site, files: &[(&str, &Local)]) -> (packager::UpdateReport, usize) {
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let mut sent = 0;
    for (_, local) in files {
        let upload = site.packages.upload(&info.id).unwrap();
        let missing = upload.missing_chunks(local.recipe.chunks()).unwrap();
        sent += missing.iter().filter(|missing| **missing).count();
        upload.put_frames(&local.frames(&missing)[..]).unwrap();
        if local.recipe.len() > 1 {
            let put = upload.put_recipes(&[(local.digest(), local.recipe.clone())]).unwrap();
            assert_eq!(put, [PutRecipe::Whole]);
        }
    }
    let upload = site.packages.upload(&info.id).unwrap();
    (upload.commit(&manifest(files)).unwrap(), sent)
}

#[test]
fn only_missing_chunks_are_asked_for() {
    let site = site();
    let (small, large) = (Local::new(noise(1, 1000)), Local::new(noise(2, 2_000_000)));
    let empty = Local::new(Vec::new());
    let files = [("empty", &empty), ("large", &large), ("small", &small)];
    let (report, sent) = push(&site, &files);
    assert_eq!((report.version, report.files, report.bytes), (2, 3, 2_001_000));
    assert_eq!(sent, large.recipe.len() + 1);
    assert_eq!(report.new_bytes, 2_001_000);
    let out = tree(&site.restore("out"));
    assert_eq!(out[&b"large"[..]].3, large.bytes);
    assert_eq!(out[&b"small"[..]].3, small.bytes);

    let mut edited = large.bytes.clone();
    edited[1_000_000] ^= 1;
    let edited = Local::new(edited);
    let (report, sent) = push(&site, &[("large", &edited), ("small", &small)]);
    assert_eq!((report.version, report.unchanged), (3, false));
    assert!(sent <= 2, "{sent} chunks for one edit");
    let (report, sent) = push(&site, &[("large", &edited), ("small", &small)]);
    assert_eq!((report.version, report.unchanged, sent), (3, true, 0));
    assert!(site.packages.uploads().unwrap().is_empty());
}

#[test]
fn the_version_states_the_librarys_recipes() {
    let site = site();
    let large = Local::new(noise(2, 2_000_000));
    push(&site, &[("large", &large)]);
    let info = site.packages.resolve(&package("p"), &"latest".parse().unwrap()).unwrap();
    let manifest = site.packages.manifest(info.manifest).unwrap();
    let recipe = manifest.entry(0).file().unwrap().recipe;
    assert_eq!(recipe, Some(large.recipe.digest()));
}

#[test]
fn a_commit_of_what_was_not_sent_names_it_and_can_be_tried_again() {
    let site = site();
    let (a, b) = (Local::new(noise(1, 1000)), Local::new(noise(2, 2_000_000)));
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let upload = || site.packages.upload(&info.id).unwrap();
    let tree = manifest(&[("a", &a), ("b", &b)]);
    upload().put_frames(&a.frames(&[true])[..]).unwrap();
    match upload().commit(&tree) {
        Err(UploadError::Missing { missing, total: 1 }) => assert_eq!(missing, [b.digest()]),
        other => panic!("{other:?}"),
    }
    let recipe = [(b.digest(), b.recipe.clone())];
    let put = upload().put_recipes(&recipe).unwrap();
    assert_eq!(put, [PutRecipe::MissingChunks(b.recipe.chunks().to_vec())]);
    upload().put_frames(&b.frames(&vec![true; b.recipe.len()])[..]).unwrap();
    assert_eq!(upload().put_recipes(&recipe).unwrap(), [PutRecipe::Whole]);
    assert_eq!(upload().commit(&tree).unwrap().version, 2);
    assert!(matches!(site.packages.upload(&info.id), Err(UploadError::Unknown(_))));
}

#[test]
fn the_name_of_what_a_fetch_keeps_is_refused() {
    let site = site();
    let file = Local::new(noise(1, 1000));
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let upload = site.packages.upload(&info.id).unwrap();
    upload.put_frames(&file.frames(&[true])[..]).unwrap();
    let refused = upload.commit(&manifest(&[(".depot", &file), ("a", &file)]));
    assert!(matches!(refused, Err(UploadError::Reserved(_))), "{refused:?}");
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
    let upload = site.packages.upload(&info.id).unwrap();
    let renamed = upload.commit(&manifest(&[(".depots", &file), ("a", &file)]));
    assert_eq!(renamed.unwrap().version, 2);
}

#[test]
fn lies_about_sizes_and_hashes_are_found() {
    let site = site();
    let a = Local::new(noise(1, 1000));
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let upload = || site.packages.upload(&info.id).unwrap();
    upload().put_frames(&a.frames(&[true])[..]).unwrap();
    let mut builder = ManifestBuilder::default();
    let file = FileEntry { size: 999, digest: a.digest(), recipe: None };
    let kind = Kind::File(file);
    builder.push(Entry { path: b"a", mode: 0o644, mtime: 0, kind }).unwrap();
    let wrong = upload().commit(&builder.finish());
    assert!(matches!(wrong, Err(UploadError::WrongSize { stated: 999, found: 1000, .. })));
    // Another content than the recipe's.
    let two = Recipe::new([(ChunkId(a.digest()), 1000), (ChunkId(a.digest()), 1000)]).unwrap();
    let lie = upload().put_recipes(&[(Digest::of(b"other"), two)]);
    assert!(matches!(lie, Err(UploadError::Add(contentlib::AddError::WrongDigest { .. }))));
    assert_eq!(site.packages.show(&package("p")).unwrap().n_versions, 1);
}

#[test]
fn what_arrived_whole_of_a_broken_stream_is_kept() {
    let site = site();
    let b = Local::new(noise(2, 2_000_000));
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let all = b.frames(&vec![true; b.recipe.len()]);
    let upload = site.packages.upload(&info.id).unwrap();
    let broken = upload.put_frames(&all[..all.len() / 2]);
    assert!(matches!(broken, Err(UploadError::CutOff { frames: 1.. })), "{broken:?}");
    drop(upload);
    let upload = site.packages.upload(&info.id).unwrap();
    let missing = upload.missing_chunks(b.recipe.chunks()).unwrap();
    assert!(missing.contains(&true) && missing.contains(&false));
    upload.put_frames(&b.frames(&missing)[..]).unwrap();
    upload.put_recipes(&[(b.digest(), b.recipe.clone())]).unwrap();
    assert_eq!(upload.commit(&manifest(&[("b", &b)])).unwrap().version, 2);
}

#[test]
fn bytes_that_are_no_frames_are_refused() {
    let site = site();
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let upload = site.packages.upload(&info.id).unwrap();
    assert!(matches!(upload.put_frames(&noise(1, 1000)[..]), Err(UploadError::Frames(_))));
}

#[test]
fn an_upload_that_is_not_used_expires() {
    let site = site();
    let used = site.packages.begin_upload(&package("p")).unwrap();
    let unused = site.packages.begin_upload(&package("p")).unwrap();
    let hours = |n: i64| SignedDuration::from_hours(n).as_secs();
    site.set_ahead(hours(20));
    let a = Local::new(noise(1, 1000));
    site.packages.upload(&used.id).unwrap().put_frames(&a.frames(&[true])[..]).unwrap();
    site.set_ahead(hours(30));
    assert_eq!(site.packages.uploads().unwrap().len(), 1);
    assert!(matches!(site.packages.upload(&unused.id), Err(UploadError::Unknown(_))));
    assert_eq!(site.packages.expire_uploads().unwrap(), 1);
    assert!(site.packages.upload(&used.id).is_ok());
    site.packages.abort_upload(&used.id).unwrap();
    assert!(site.packages.upload(&used.id).is_err());
}

#[test]
fn an_upload_whose_record_cannot_be_read_keeps_no_other_from_its_use_and_can_be_given_up() {
    let site = site();
    let library = site.packages.library();
    let [broken, newer, whole] = [(); 3].map(|()| {
        let id = site.packages.begin_upload(&package("p")).unwrap().id;
        (format!("upload/{id}"), id)
    });
    for ((name, _), value) in [(&broken, "{"), (&newer, r#"{"format":9}"#)] {
        let (name, expect) = (name.clone(), Expect::Any);
        let to = Ref { root: None, value: value.as_bytes().into() };
        library.session().commit(vec![RefChange::Set { name, to, expect }]).unwrap();
    }

    let another = site.packages.begin_upload(&package("p")).unwrap();
    let a = Local::new(noise(1, 1000));
    let upload = site.packages.upload(&whole.1).unwrap();
    upload.put_frames(&a.frames(&[true])[..]).unwrap();
    assert_eq!(upload.commit(&manifest(&[("a", &a)])).unwrap().version, 2);
    for (_, id) in [&broken, &newer] {
        let refused = site.packages.upload(id).map(drop);
        assert!(matches!(refused, Err(UploadError::Unreadable { .. })), "{refused:?}");
        let refused = site.packages.show_upload(id);
        assert!(matches!(refused, Err(UploadError::Unreadable { .. })), "{refused:?}");
    }
    site.set_ahead(SignedDuration::from_hours(100).as_secs());
    assert_eq!(site.packages.expire_uploads().unwrap(), 1, "the one that nobody used");
    let unknown = site.packages.show_upload(&another.id);
    assert!(matches!(unknown, Err(UploadError::Unknown(_))), "{unknown:?}");
    let listed = site.packages.uploads().unwrap();
    let why = |id| {
        let found = listed.iter().find(|(listed, _)| listed == id).unwrap();
        found.1.as_ref().unwrap_err().to_string()
    };
    assert_eq!(listed.len(), 2);
    assert!(why(&broken.1).contains(&broken.0), "{}", why(&broken.1));
    assert!(why(&newer.1).contains("a newer depot wrote"), "{}", why(&newer.1));

    for (name, id) in [&broken, &newer] {
        site.packages.abort_upload(id).unwrap();
        assert!(library.get_ref(name).unwrap().is_none());
    }
    assert!(site.packages.uploads().unwrap().is_empty());
}

#[test]
fn an_upload_that_is_given_up_is_gone_though_it_is_in_use() {
    let site = site();
    for _ in 0..50 {
        let id = site.packages.begin_upload(&package("p")).unwrap().id;
        let upload = site.packages.upload(&id).unwrap();
        let begun = std::sync::Barrier::new(4);
        let used = || {
            begun.wait();
            (0..50).try_for_each(|_| upload.put_recipes(&[]).map(drop))
        };
        std::thread::scope(|scope| {
            let using = [(); 3].map(|()| scope.spawn(used));
            begun.wait();
            site.packages.abort_upload(&id).unwrap();
            for ended in using.map(|using| using.join().unwrap()) {
                assert!(matches!(ended, Ok(()) | Err(UploadError::Unknown(_))), "{ended:?}");
            }
        });
        let gone = site.packages.show_upload(&id);
        assert!(matches!(gone, Err(UploadError::Unknown(_))), "{gone:?}");
    }
}

#[test]
fn offering_is_a_use_and_a_request_under_way_outlives_the_expiry() {
    let site = site();
    let hours = |n: i64| SignedDuration::from_hours(n).as_secs();
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let a = Local::new(noise(1, 1000));
    site.set_ahead(hours(20));
    let upload = site.packages.upload(&info.id).unwrap();
    upload.missing_chunks(a.recipe.chunks()).unwrap();
    drop(upload);
    site.set_ahead(hours(40));
    let slow = site.packages.upload(&info.id).unwrap();
    site.set_ahead(hours(100));
    assert_eq!(site.packages.expire_uploads().unwrap(), 0);
    slow.put_frames(&a.frames(&[true])[..]).unwrap();
    drop(slow);
    let upload = site.packages.upload(&info.id).unwrap();
    assert_eq!(upload.commit(&manifest(&[("a", &a)])).unwrap().version, 2);
}

#[test]
fn what_only_an_expired_upload_held_is_freed_after_the_time_the_site_sets() {
    let site = Site::with(|packages| packages.with_upload_expiry(Duration::from_secs(600)));
    site.create("p", None).unwrap();
    let a = Local::new(noise(1, 1000));
    let info = site.packages.begin_upload(&package("p")).unwrap();
    assert_eq!(info.expires.duration_since(info.created).as_secs(), 600);
    let upload = site.packages.upload(&info.id).unwrap();
    upload.put_frames(&a.frames(&[true])[..]).unwrap();
    drop(upload);
    let library = site.packages.library();
    let collect =
        || library.gc(&GcOptions::default(), &ManifestLinks, &Progress::default()).unwrap();
    let is_missing = || library.missing_chunks(a.recipe.chunks()).unwrap() == [true];
    // Longer than the grace, but the upload is used now and then: its lease holds the chunk.
    for minutes in (65..60 + 48 * 60).step_by(5) {
        site.set_ahead(minutes * 60);
        site.packages.upload(&info.id).unwrap();
        if minutes % 720 == 0 {
            assert_eq!(collect().purged, 0);
        }
    }
    let now = 60 * (60 + 48 * 60);
    site.set_ahead(now + 601);
    assert_eq!(site.packages.expire_uploads().unwrap(), 1);
    let late = site.packages.upload(&info.id).map(drop);
    assert!(matches!(late, Err(UploadError::Unknown(_))), "{late:?}");
    assert_eq!(collect().purged, 1, "the lease alone held it: its grace was long over");
    assert!(is_missing());
    let another = site.packages.begin_upload(&package("p")).unwrap();
    let upload = site.packages.upload(&another.id).unwrap();
    upload.put_frames(&a.frames(&[true])[..]).unwrap();
    assert_eq!(upload.commit(&manifest(&[("a", &a)])).unwrap().version, 2);
}

#[test]
fn a_revoked_content_comes_into_no_version() {
    let site = site();
    let a = Local::new(noise(1, 1000));
    push(&site, &[("a", &a)]);
    site.packages.revoke(a.digest(), "bad").unwrap();
    let info = site.packages.begin_upload(&package("p")).unwrap();
    let upload = site.packages.upload(&info.id).unwrap();
    let revoked = upload.commit(&manifest(&[("b", &a)]));
    assert!(matches!(revoked, Err(UploadError::Revoked { .. })), "{revoked:?}");
}

/// Revoked is a content, not every file that has the same bytes somewhere.
#[test]
fn a_file_with_the_bytes_of_a_revoked_content_in_it_can_be_pushed() {
    let site = site();
    let whole = Local::new(noise(1, 600_000));
    let span = whole.recipe.span(1).bytes;
    let part = Local::new(whole.bytes[span.start as usize..span.end as usize].to_vec());
    assert_eq!(part.recipe.chunks(), &whole.recipe.chunks()[1..2], "one chunk of the whole");
    site.packages.revoke(part.digest(), "bad").unwrap();
    push(&site, &[("whole", &whole)]);
    let mut read = Vec::new();
    let reader = site.packages.library().open_content(whole.digest()).unwrap();
    reader.copy_to(0..u64::MAX, &mut read).unwrap();
    assert_eq!(read, whole.bytes);
    assert!(site.packages.library().open_content(part.digest()).is_err(), "still revoked");
}
