//! Bringing versions into another library: at the cost of what it lacks, all or nothing to see, and
//! never anything that the site did not sign.
#![allow(clippy::unwrap_used)]

#[path = "common/between.rs"]
mod between;
mod common;
#[path = "common/copies.rs"]
mod copies;

use between::{Between, Reply};
use bytes::{Bytes, BytesMut};
use common::{Point, noise, point, prose, write, write_tools};
use contentlib::frames::FrameItem;
use contentlib::{ChunkId, Digest, Frame, GcOptions, Library, Options, Progress, Recipe};
use copies::{Copies, assert_served, chunks_of, copy, version};
use dp::remote::{Client, RemoteError};
use dp::replica::bring;
use packager::packages::Gone;
use packager::{
    ManifestLinks, PackageError, PackageName, Packages, Selector, SiteKey, VersionInfo,
};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

fn tools() -> (Point, PackageName) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("tools");
    write_tools(&point.source("tools"));
    point.update(&package);
    (point, package)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_brought_and_of_the_next_only_what_changed() {
    let (point, package) = tools();
    let copies = Copies::new();
    let second = copies.bring(&point.url("/"), &version(&point, &package, 2)).await.unwrap();
    assert!(second.moved_bytes < second.bytes, "the same bytes come once: {second:?}");
    assert_eq!(second.files, 305);
    assert_served(&copies, "tools/2", &point.source("tools")).await;

    let mut big = noise(6 << 20, 1);
    big.splice(3_000_000..3_000_000, *b"inserted");
    write(&point.source("tools").join("big.bin"), &big);
    write(&point.source("tools").join("new"), b"new");
    fs::remove_dir_all(point.source("tools").join("small/3")).unwrap();
    point.update(&package);
    let third = copies.bring(&point.url("/"), &version(&point, &package, 3)).await.unwrap();
    assert!(third.moved_bytes < 900_000, "two chunks of 512 KiB at most: {third:?}");
    assert_served(&copies, "tools/3", &point.source("tools")).await;
    assert_eq!(copies.versions(), ["tools@2", "tools@3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_under_any_name_moves_nothing() {
    let (point, package) = tools();
    let copies = Copies::new();
    copies.bring(&point.url("/"), &version(&point, &package, 2)).await.unwrap();
    let source = point.source("tools");
    fs::rename(source.join("big.bin"), source.join("moved.bin")).unwrap();
    fs::rename(source.join("small"), source.join("large")).unwrap();
    fs::remove_file(source.join("twice/a")).unwrap();
    point.update(&package);
    let between = Between::plain(point.address).await;
    let info = version(&point, &package, 3);
    copies.bring(&between.url(), &info).await.unwrap();
    let manifest = point.library.recipe(info.manifest).unwrap();
    assert!(between.asked().iter().all(|id| manifest.chunks().contains(id)), "files moved");
    assert_eq!(between.requests("recipes"), 1);

    // Another package of the same files, times apart.
    let other = point.package("other");
    copy("-r", &source.join("."), &point.source("other"));
    point.update(&other);
    let between = Between::plain(point.address).await;
    let info = version(&point, &other, 2);
    let brought = copies.bring(&between.url(), &info).await.unwrap();
    let manifest = point.library.recipe(info.manifest).unwrap();
    assert!(between.asked().iter().all(|id| manifest.chunks().contains(id)), "files moved");
    assert!(brought.moved_bytes < 40_000, "{brought:?}");

    // And the very same tree moves nothing at all.
    let third = point.package("third");
    copy("-a", &source.join("."), &point.source("third"));
    point.update(&third);
    let brought = copies.bring(&point.url("/"), &version(&point, &third, 2)).await.unwrap();
    assert_eq!(brought.moved_bytes, 0);
}

/// Lets so many bytes of chunks through, then ends the connection, and refuses.
async fn between_with_budget(point: &Point, bytes: i64) -> Between {
    let budget = AtomicI64::new(bytes);
    Between::new(point.address, Duration::ZERO, move |path, body| {
        if path != "/chunks" {
            return Reply::Whole(body);
        }
        match budget.fetch_sub(body.len() as i64, SeqCst) {
            left if left >= body.len() as i64 => Reply::Whole(body),
            left if left > 0 => Reply::Cut(body.slice(..left as usize)),
            _ => Reply::Status(403),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_a_kill_and_garbage_collection_only_the_rest_moves() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let all = chunks_of(&point, &info);
    let mut copies = Copies::new();
    let mut asked_in_vain = 0;
    for tries in 0.. {
        let held = copies.held(&all);
        let purged = copies.collect();
        assert_eq!(purged, 0, "the lease keeps what came");
        let between = between_with_budget(&point, 1_500_000).await;
        let brought = copies.bring(&between.url(), &info).await;
        let again = between.asked().iter().filter(|id| held.contains(id)).count();
        assert_eq!(again, 0, "of {} held", held.len());
        let brought = match brought {
            Ok(brought) => brought,
            Err(RemoteError::Refused { status: 403, .. }) => {
                assert_eq!(copies.versions(), [""; 0]);
                assert!(copies.held(&all).len() > held.len(), "each try brings more");
                asked_in_vain += between.bytes();
                copies = copies.killed();
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        assert!(tries > 2, "{tries} tries");
        assert!(brought.moved_bytes < 3_000_000, "{brought:?}");
        break;
    }
    assert!(asked_in_vain > 3_000_000);
    assert_eq!(copies.collect(), 0);
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bringing_that_is_dropped_is_gone_on_with() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let all = chunks_of(&point, &info);
    let copies = Copies::new();
    let half = Arc::new(tokio::sync::Notify::new());
    let (told, n) = (half.clone(), AtomicUsize::new(0));
    let slow = Between::new(point.address, Duration::from_millis(50), move |path, body| {
        if path == "/chunks" && n.fetch_add(1, SeqCst) == 1 {
            told.notify_one();
        }
        Reply::Whole(body)
    })
    .await;
    {
        let url = slow.url();
        let bringing = copies.bring(&url, &info);
        tokio::select! {
            _ = half.notified() => {}
            done = bringing => panic!("too fast: {done:?}"),
        }
    }
    // What was being written is written to its end.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = copies.held(&all);
    assert!(!held.is_empty());
    assert_eq!(copies.versions(), [""; 0]);
    copies.collect();
    let between = Between::plain(point.address).await;
    copies.bring(&between.url(), &info).await.unwrap();
    assert!(between.asked().iter().all(|id| !held.contains(id)));
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_visible_once_it_is_whole() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let copies = Copies::new();
    let (seen, packages) = (Arc::new(AtomicBool::new(false)), copies.packages.clone());
    let (note, name) = (seen.clone(), package.clone());
    let between = Between::new(point.address, Duration::ZERO, move |_, body| {
        let found = packages.resolve(&name, &Selector::Number(2)).is_ok();
        note.fetch_or(found || !packages.list().unwrap().is_empty(), SeqCst);
        Reply::Whole(body)
    })
    .await;
    copies.bring(&between.url(), &info).await.unwrap();
    assert!(!seen.load(SeqCst));
    let found = copies.packages.resolve(&package, &Selector::Number(2)).unwrap();
    assert_eq!(found, info);
    let latest = copies.packages.resolve(&package, &Selector::Latest);
    assert!(matches!(latest, Err(PackageError::UnknownVersion { .. })), "names are the site's");
    copies.packages.set_names(&package, Some(2), &BTreeMap::new()).unwrap();
    assert_eq!(copies.packages.resolve(&package, &Selector::Latest).unwrap(), info);
}

/// Frames with one chunk that was not asked for.
fn frames_of(bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    FrameItem::Block(Frame::pack(&[Bytes::copy_from_slice(bytes)], true)).encode(&mut out);
    FrameItem::End.encode(&mut out);
    out.freeze()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_signed_is_refused() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let copies = Copies::new();
    let key = copies.packages.public_key();

    let signed_elsewhere = {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(&folder.path().join("library"), Options::default()).unwrap();
        let key = SiteKey::from_seed([8; 32]);
        let clock = Arc::new(jiff::Timestamp::now);
        let cache = folder.path().join("cache");
        let other = Packages::open(library, key, cache, clock).unwrap();
        let (name, source) = (package.clone(), None);
        other.create(packager::NewPackage { name, source, retention: Default::default() }).unwrap()
    };
    let between = Between::plain(point.address).await;
    for bad in [
        signed_elsewhere,
        VersionInfo { version: 3, ..info.clone() },
        VersionInfo { package: "other".parse().unwrap(), ..info.clone() },
        VersionInfo { manifest: Digest::of(b"other"), ..info.clone() },
    ] {
        let failed = copies.bring(&between.url(), &bad).await;
        assert!(matches!(failed, Err(RemoteError::NotProven(_))), "{failed:?}");
    }
    assert_eq!(between.requests("recipes") + between.requests("chunks"), 0, "nothing is asked for");
    info.verify(&key).unwrap();

    let manifest = info.manifest;
    let big = Digest::of(&noise(6 << 20, 1));
    let other = point.add(b"some other content, of one chunk");
    let other = point.library.recipe(other).unwrap().encode();
    let several = point.library.recipe(big).unwrap();
    let wrong_order = several.spans().collect::<Vec<_>>().into_iter().rev();
    let wrong_order =
        wrong_order.map(|span| (span.chunk, (span.bytes.end - span.bytes.start) as u32));
    let wrong_order = Bytes::from(Recipe::new(wrong_order).unwrap().encode());

    // A manifest's recipe of another content, of one chunk and of several.
    for recipe in [Bytes::from(other), wrong_order.clone(), Bytes::from_static(b"no recipe")] {
        let between = Between::new(point.address, Duration::ZERO, move |path, body| {
            let is_it = path == format!("/recipes/{manifest}");
            Reply::Whole(if is_it { recipe.clone() } else { body })
        })
        .await;
        let failed = copies.bring(&between.url(), &info).await;
        let is_named = matches!(
            failed,
            Err(RemoteError::WrongBytes { digest, .. }) if digest == manifest
        ) || matches!(failed, Err(RemoteError::Malformed { .. }));
        assert!(is_named, "{failed:?}");
    }
    // A file's recipe that is not the one that the manifest names, of a server that gives them one by one.
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        if path == "/recipes" {
            return Reply::Status(404);
        }
        let is_it = path == format!("/recipes/{big}");
        Reply::Whole(if is_it { wrong_order.clone() } else { body })
    })
    .await;
    let failed = copies.bring(&between.url(), &info).await;
    assert!(matches!(failed, Err(RemoteError::WrongBytes { .. })), "{failed:?}");
    // Other chunks than were asked for: they are not stored either.
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        Reply::Whole(if path == "/chunks" { frames_of(b"not asked for") } else { body })
    })
    .await;
    let failed = copies.bring(&between.url(), &info).await;
    assert!(matches!(failed, Err(RemoteError::WrongBytes { .. })), "{failed:?}");
    assert!(copies.held(&[ChunkId(Digest::of(b"not asked for"))]).is_empty());
    // The same again and again: it is not listened to for ever.
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        let again = |_| FrameItem::Block(Frame::pack(&[Bytes::from_static(b"again")], true));
        let mut out = BytesMut::new();
        (0..10_000).map(again).for_each(|item| item.encode(&mut out));
        Reply::Whole(if path == "/chunks" { out.freeze() } else { body })
    })
    .await;
    let failed = copies.bring(&between.url(), &info).await;
    assert!(matches!(failed, Err(RemoteError::Malformed { .. })), "{failed:?}");
    // No frames at all.
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        Reply::Whole(if path == "/chunks" { Bytes::from_static(b"no frames") } else { body })
    })
    .await;
    let failed = copies.bring(&between.url(), &info).await;
    assert!(matches!(failed, Err(RemoteError::Malformed { .. })), "{failed:?}");

    assert_eq!(copies.versions(), [""; 0]);
    assert!(copies.packages.list().unwrap().is_empty());
    // Nothing of it is in the way of the right bytes.
    copies.bring(&point.url("/"), &info).await.unwrap();
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_lost_is_named() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let copies = Copies::new();
    let lost = point.library.recipe(Digest::of(&noise(6 << 20, 1))).unwrap().chunks()[3];
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        if path == format!("/recipes/{}", lost.0) {
            return Reply::Status(404);
        }
        if path != "/chunks" {
            return Reply::Whole(body);
        }
        let mut decoder = contentlib::frames::FrameDecoder::default();
        decoder.push(&body);
        let mut out = BytesMut::new();
        while let Some(item) = decoder.next_item().unwrap() {
            match item {
                FrameItem::Block(frame) => {
                    let chunks = frame.chunks().unwrap();
                    let is_lost = chunks.iter().any(|(id, _)| *id == lost);
                    let left: Vec<Bytes> = chunks
                        .into_iter()
                        .filter_map(|(id, bytes)| (id != lost).then_some(bytes))
                        .collect();
                    if !left.is_empty() {
                        FrameItem::Block(Frame::pack(&left, true)).encode(&mut out);
                    }
                    if is_lost {
                        FrameItem::Missing(lost).encode(&mut out);
                    }
                }
                item => item.encode(&mut out),
            }
        }
        Reply::Whole(out.freeze())
    })
    .await;
    let failed = copies.bring(&between.url(), &info).await;
    let is_named =
        matches!(failed, Err(RemoteError::Incomplete { n: 1, first }) if first == lost.0);
    assert!(is_named, "{failed:?}");
    let held = copies.held(&chunks_of(&point, &info));
    assert!(!held.is_empty(), "what came is kept");
    let between = Between::plain(point.address).await;
    copies.bring(&between.url(), &info).await.unwrap();
    assert!(between.asked().iter().all(|id| !held.contains(id)));
}

/// Inverts bytes wherever they lie in files below a folder.
fn invert(folder: &Path, bytes: &[u8]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            invert(&path, bytes);
            continue;
        }
        let found = fs::read(&path).unwrap();
        if let Some(at) = found.windows(bytes.len()).position(|window| window == bytes) {
            let inverted: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
            // In place: the library has the file open.
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&inverted, at as u64).unwrap();
        }
    }
}

/// The disk here loses one chunk after the other while what it lost comes again: that is nobody else's
/// fault, and as long as other chunks than before are bad, the work goes on.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_go_bad_here_in_waves_come_again_in_one_go() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let copies = Copies::new();
    copies.bring(&point.url("/"), &info).await.unwrap();
    copies.packages.library().seal_idle().unwrap();
    let big = noise(6 << 20, 1);
    let recipe = point.library.recipe(Digest::of(&big)).unwrap();
    let spans: Vec<_> = recipe.spans().map(|span| span.bytes).collect();
    let (packs, library) =
        (copies.folder.path().join("library/packs"), copies.packages.library().clone());
    let lose = move |n: usize| {
        let at = spans[n].start as usize + 100;
        invert(&packs, &big[at..at + 64]);
        let numbers: Vec<u32> = library.pack_sizes().unwrap().iter().map(|p| p.number).collect();
        let options = contentlib::VerifyOptions::default();
        library.verify_packs(&numbers, &options, &Progress::default()).unwrap().bad_chunks.len()
    };
    assert_eq!(lose(0), 1);
    let n = AtomicUsize::new(1);
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        if path == "/chunks" && n.load(SeqCst) < 6 {
            lose(n.fetch_add(1, SeqCst));
        }
        Reply::Whole(body)
    })
    .await;
    copies.bring(&between.url(), &info).await.unwrap();
    assert_eq!(between.asked().len(), 6, "each that was lost, once");
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_a_revoked_content_comes_as_part_of_a_larger_one() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let big = point.library.recipe(Digest::of(&noise(6 << 20, 1))).unwrap();
    point.library.revoke(big.chunks()[1].0, "bad").unwrap();
    let copies = Copies::new();
    copies.bring(&point.url("/"), &info).await.unwrap();
    assert_served(&copies, "tools/2", &point.source("tools")).await;

    // A file of the version itself that was revoked does not come.
    point.library.revoke(Digest::of(&prose(3 << 20, 2)), "worse").unwrap();
    let copies = Copies::new();
    let failed = copies.bring(&point.url("/"), &info).await;
    assert!(matches!(failed, Err(RemoteError::Refused { status: 410, .. })), "{failed:?}");
    assert_eq!(copies.versions(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_is_freed_unless_it_is_shared() {
    let (point, package) = tools();
    write(&point.source("tools").join("only-in-3"), &noise(2 << 20, 9));
    point.update(&package);
    let (second, third) = (version(&point, &package, 2), version(&point, &package, 3));
    let copies = Copies::new();
    copies.bring(&point.url("/"), &third).await.unwrap();
    copies.bring(&point.url("/"), &second).await.unwrap();
    let channel = "stable".parse().unwrap();
    copies.packages.set_names(&package, Some(3), &BTreeMap::from([(channel, 3)])).unwrap();
    assert_eq!(copies.collect(), 0);

    assert_eq!(copies.packages.let_go(&package, 3).unwrap(), Gone::Now);
    assert_eq!(copies.packages.let_go(&package, 3).unwrap(), Gone::Before);
    assert_eq!(copies.versions(), ["tools@2"]);
    assert!(copies.packages.channels(&package).unwrap().is_empty());
    let gone = Digest::of(&noise(2 << 20, 9));
    assert!(copies.collect() > 0);
    assert_eq!(copies.packages.library().missing_contents(&[gone]).unwrap(), [true]);
    fs::remove_file(point.source("tools").join("only-in-3")).unwrap();
    assert_served(&copies, "tools/2", &point.source("tools")).await;

    copies.packages.let_go(&package, 2).unwrap();
    assert!(copies.packages.list().unwrap().is_empty());
    copies.collect();
    let left = copies.held(&chunks_of(&point, &third));
    assert!(left.is_empty(), "{} chunks", left.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_condemned_and_not_gone_yet_is_held() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let copies = Copies::new();
    copies.bring(&point.url("/"), &info).await.unwrap();
    // As long as this one is open, nothing is purged.
    let lease = copies.packages.library().session();
    copies.packages.let_go(&package, 2).unwrap();
    copies.collect();
    assert!(copies.held(&chunks_of(&point, &info)).is_empty(), "all are condemned");
    let brought = copies.bring(&point.url("/"), &info).await.unwrap();
    assert_eq!(brought.moved_bytes, 0);
    drop(lease);
    copies.collect();
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_come_in_few_requests() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("many");
    for n in 0..20_000 {
        write(
            &point.source("many").join(format!("{}/{n}", n % 200)),
            format!("file {n}").as_bytes(),
        );
    }
    point.update(&package);
    let between = Between::plain(point.address).await;
    let copies = Copies::new();
    let brought = copies.bring(&between.url(), &version(&point, &package, 2)).await.unwrap();
    println!("20k files: {brought:?}, {} requests", between.requests("chunks"));
    assert!(between.requests("chunks") <= 8, "{}", between.requests("chunks"));
    assert_eq!(between.requests("recipes"), 1, "the manifest's");
    assert!(brought.moved_bytes < 2_500_000, "{brought:?}");
    let asked = between.asked();
    assert_eq!(asked.iter().collect::<HashSet<_>>().len(), asked.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_overlap() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("large");
    // Few, so that all their recipes are there before the first chunks.
    for n in 0..8 {
        write(&point.source("large").join(format!("{n}")), &noise(15 << 20, n));
    }
    point.update(&package);
    let between =
        Between::new(point.address, Duration::from_millis(200), |_, body| Reply::Whole(body)).await;
    let copies = Copies::new();
    let brought = copies.bring(&between.url(), &version(&point, &package, 2)).await.unwrap();
    println!(
        "120 MiB, 200 ms: {brought:?}, {} requests for chunks, {} at once",
        between.requests("chunks"),
        between.most_at_once()
    );
    assert!(between.most_at_once() >= 3, "{}", between.most_at_once());
    assert!(between.requests("chunks") <= 20, "{}", between.requests("chunks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_in_the_middle_of_a_file_has_nothing_sent_again() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("large");
    write(&point.source("large").join("file"), &noise(40 << 20, 1));
    point.update(&package);
    let (copies, info) = (Copies::new(), version(&point, &package, 2));
    let library = copies.packages.library().clone();
    let n = AtomicUsize::new(0);
    let condemned = Arc::new(AtomicUsize::new(0));
    let told = condemned.clone();
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        // The last of three requests is answered when the chunks of the others have been stored, and
        // condemned: nothing refers to them before the file is whole.
        if path == "/chunks" && n.fetch_add(1, SeqCst) == 2 {
            tokio::task::block_in_place(|| {
                while library.stats().unwrap().plain_bytes < 22 << 20 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let progress = Progress::default();
                let report = library.gc(&GcOptions::default(), &ManifestLinks, &progress).unwrap();
                told.store(report.condemned as usize, SeqCst);
            });
        }
        Reply::Whole(body)
    })
    .await;
    let brought = copies.bring(&between.url(), &info).await.unwrap();
    assert!(condemned.load(SeqCst) > 100, "the test shows nothing");
    assert!(brought.moved_bytes < 41 << 20, "{brought:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_meanwhile() {
    let (point, package) = tools();
    let (copies, info) = (Copies::new(), version(&point, &package, 2));
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, library) = (stop.clone(), copies.packages.library().clone());
    let collecting = std::thread::spawn(move || {
        let mut condemned = 0;
        while !stopped.load(SeqCst) {
            let (options, progress) = (GcOptions::default(), Progress::default());
            condemned += library.gc(&options, &ManifestLinks, &progress).unwrap().condemned;
            // Not so often that no file is ever put together in between.
            std::thread::sleep(Duration::from_millis(200));
        }
        condemned
    });
    // Answers come in parts, so that there is time between them.
    let n = AtomicUsize::new(0);
    let between = Between::new(point.address, Duration::from_millis(30), move |path, body| match n
        .fetch_add(1, SeqCst)
        % 2
    {
        0 if path == "/chunks" => Reply::Cut(body.slice(..body.len() / 2)),
        _ => Reply::Whole(body),
    })
    .await;
    let brought = copies.bring(&between.url(), &info).await.unwrap();
    stop.store(true, SeqCst);
    let condemned = collecting.join().unwrap();
    assert!(condemned > 0, "the test shows nothing");
    // A cut takes at most the block that it is in.
    assert!(brought.moved_bytes < 15_000_000, "{brought:?}");
    copies.collect();
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

/// Overwrites some bytes in the middle of each pack.
fn spoil(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spoil(&path);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 100].fill(0);
        fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_bad_is_brought_again_and_nothing_else() {
    let (point, package) = tools();
    let (copies, info) = (Copies::new(), version(&point, &package, 2));
    copies.bring(&point.url("/"), &info).await.unwrap();
    let library = copies.packages.library().clone();
    library.close().unwrap();
    spoil(&copies.folder.path().join("library/packs"));
    let (options, progress) = (Default::default(), Progress::default());
    let report = library.verify(&options, &ManifestLinks, &progress).unwrap();
    assert!(!report.bad_chunks.is_empty(), "{report:?}");
    let brought = copies.bring(&point.url("/"), &info).await.unwrap();
    assert!((1..3_000_000).contains(&brought.moved_bytes), "{brought:?}");
    assert_served(&copies, "tools/2", &point.source("tools")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bringing_can_be_cancelled() {
    let (point, package) = tools();
    let progress = Arc::<Progress>::default();
    let cancel = progress.clone();
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        if path == "/chunks" && cancel.total_bytes.load(SeqCst) > 0 {
            cancel.cancel();
        }
        Reply::Whole(body)
    })
    .await;
    let (copies, info) = (Copies::new(), version(&point, &package, 2));
    let client = Client::new(&between.url()).unwrap();
    let failed = bring(&client, &copies.packages, &info, &progress).await;
    assert!(matches!(failed, Err(RemoteError::Cancelled(_))), "{failed:?}");
    assert_eq!(copies.versions(), [""; 0]);
    assert_eq!(copies.packages.on_their_way(), [(package.clone(), 2)]);
    copies.bring(&between.url(), &info).await.unwrap();
    assert!(copies.packages.on_their_way().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_are_brought_at_once() {
    let (point, package) = tools();
    write(&point.source("tools").join("new"), &noise(1 << 20, 11));
    point.update(&package);
    let copies = Arc::new(Copies::new());
    let url = point.url("/");
    // Also shows that the future can be spawned.
    let tasks = [2, 3].map(|number| {
        let (copies, url) = (copies.clone(), url.clone());
        let info = version(&point, &package, number);
        tokio::spawn(async move {
            let client = Client::new(&url).unwrap();
            bring(&client, &copies.packages, &info, &Arc::default()).await.unwrap()
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(copies.versions(), ["tools@2", "tools@3"]);
    copies.collect();
    assert_served(&copies, "tools/3", &point.source("tools")).await;
}
