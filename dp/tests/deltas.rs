//! Bringing the next version as deltas to the one that is held: for less than its chunks, always exact,
//! and as chunks wherever a delta is of no use.
#![allow(clippy::unwrap_used)]

#[path = "common/between.rs"]
mod between;
mod common;
#[path = "common/copies.rs"]
mod copies;

use between::{Between, Reply};
use bytes::Bytes;
use common::{Point, curl, noise, point, prose, write};
use contentlib::{ChunkId, Digest};
use copies::{Copies, assert_served, version};
use dp::remote::RemoteError;
use dp::replica::Brought;
use dp::{Content, DeltaOptions, DeltaRequest, ServeOptions, Server};
use packager::PackageName;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const REQUEST: &str = "application/vnd.depot.delta-request";
const DELTA: &str = "application/vnd.depot.delta";
const FRAMES: &str = "application/vnd.depot.frames";

/// Bytes that differ from `bytes` in one of every 20 000, so that each chunk is another.
fn shifted(bytes: &[u8]) -> Vec<u8> {
    let changed = bytes.iter().enumerate().map(|(at, b)| b ^ u8::from(at % 20_000 == 7));
    changed.collect()
}

/// A site with a package whose first files are `before`, and whose next are `after`; and copies of the
/// first.
async fn site(
    before: &[(&str, Vec<u8>)],
    after: &[(&str, Vec<u8>)],
) -> (Point, PackageName, Copies) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("tools");
    let source = point.source("tools");
    let put = |files: &[(&str, Vec<u8>)]| {
        files.iter().for_each(|(name, bytes)| write(&source.join(name), bytes));
        point.update(&package);
    };
    put(before);
    let copies = Copies::new();
    copies.bring(&point.url("/"), &version(&point, &package, 2)).await.unwrap();
    before.iter().for_each(|(name, _)| fs::remove_file(source.join(name)).unwrap());
    put(after);
    (point, package, copies)
}

/// Brings version 3 and compares it with the source.
async fn third(point: &Point, package: &PackageName, copies: &Copies, url: &str) -> Brought {
    let brought = copies.bring(url, &version(point, package, 3)).await.unwrap();
    assert_served(copies, "tools/3", &point.source("tools")).await;
    brought
}

/// How often the site answered a request for a delta like this.
fn counted(point: &Point, how: &str) -> u64 {
    let metrics = curl(&[&point.url("/metrics")]);
    let line = format!("depot_deltas_total{{how=\"{how}\"}} ");
    let found = metrics.text().lines().find_map(|text| text.strip_prefix(&line));
    found.expect("it is counted").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_everywhere_comes_as_its_changes() {
    let big = noise(6 << 20, 1);
    let (point, package, copies) =
        site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let between = Between::plain(point.address).await;
    let brought = third(&point, &package, &copies, &between.url()).await;
    assert!(brought.moved_bytes < 100_000, "{brought:?}");
    assert!(brought.delta_bytes > 0 && brought.delta_bytes < brought.moved_bytes, "{brought:?}");
    assert_eq!(between.requests("chunks"), 0, "nothing was left to ask for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_and_edited_comes_as_its_changes() {
    let big = noise(6 << 20, 1);
    let mut edited = big.clone();
    // Three chunks change, and more stay: only they tell what it was.
    for at in [1_000_000, 3_000_000, 5_000_000] {
        edited.splice(at..at + 10, *b"twelve bytes");
    }
    let (point, package, copies) =
        site(&[("old/name.bin", big)], &[("new/called.otherwise", edited)]).await;
    let brought = third(&point, &package, &copies, &point.url("/")).await;
    assert!(brought.moved_bytes < 20_000, "{brought:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_the_version_in_its_name_is_found_again() {
    let file = |n: u8| noise(300_000, n);
    let name = |version: u32, n: u8| format!("lib/modules/6.1.{version}/kernel/d{n}/mod.ko");
    let names: Vec<String> = (0..8).flat_map(|n| [name(1, n), name(2, n)]).collect();
    let before: Vec<_> = (0u8..8).map(|n| (names[2 * usize::from(n)].as_str(), file(n))).collect();
    let after: Vec<_> =
        (0u8..8).map(|n| (names[2 * usize::from(n) + 1].as_str(), shifted(&file(n)))).collect();
    let (point, package, copies) = site(&before, &after).await;
    let brought = third(&point, &package, &copies, &point.url("/")).await;
    assert!(brought.moved_bytes < 60_000, "{brought:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_that_changed_a_little_share_requests() {
    let names: Vec<String> = (0..400).map(|n| format!("etc/{}/{n}.conf", n % 5)).collect();
    let file = |n: usize, edit: &[u8]| {
        let mut bytes = noise(3_000 + n, n as u8);
        bytes.splice(1_000..1_000, edit.to_vec());
        (names[n].as_str(), bytes)
    };
    let files = |edit: &[u8]| (0..names.len()).map(|n| file(n, edit)).collect::<Vec<_>>();
    let (point, package, copies) = site(&files(b""), &files(b"one more line\n")).await;
    let between = Between::plain(point.address).await;
    let brought = third(&point, &package, &copies, &between.url()).await;
    // The digests of 400 files are no less.
    assert!(brought.moved_bytes < 13_000 + 400 * 80, "of 1.3 MB: {brought:?}");
    assert_eq!(between.requests("deltas"), 2, "the manifest and all files");
    assert_eq!(between.requests("chunks"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_like_anything_comes_as_chunks() {
    let (point, package, copies) =
        site(&[("a", noise(2 << 20, 1))], &[("a", noise(2 << 20, 2)), ("b", prose(3 << 20, 3))])
            .await;
    let plain = Copies::new();
    let first = plain.bring(&point.url("/"), &version(&point, &package, 3)).await.unwrap();
    let brought = third(&point, &package, &copies, &point.url("/")).await;
    assert!(counted(&point, "plain") >= 1, "what is not shorter is not sent");
    assert!(brought.moved_bytes <= first.moved_bytes + 1_000, "{brought:?} {first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_one_is_there_for_all_and_for_the_next_process() {
    let big = noise(4 << 20, 1);
    let (point, package, copies) =
        site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let second_version = version(&point, &package, 2);
    let others: Vec<Copies> = (0..3).map(|_| Copies::new()).collect();
    for other in &others {
        other.bring(&point.url("/"), &second_version).await.unwrap();
    }
    third(&point, &package, &copies, &point.url("/")).await;
    let made = counted(&point, "made");
    assert!(made > 0);
    // Two at once, and one after them.
    let url = point.url("/");
    tokio::join!(
        third(&point, &package, &others[0], &url),
        third(&point, &package, &others[1], &url)
    );
    third(&point, &package, &others[2], &url).await;
    assert_eq!(counted(&point, "made"), made, "nothing is made again");
    assert_eq!(counted(&point, "found"), 3 * made);

    // A damaged file of the cache is made again.
    let cache = point.folder.path().join("data/deltas");
    for file in fs::read_dir(&cache).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let last = Copies::new();
    last.bring(&url, &second_version).await.unwrap();
    let between = Between::plain(point.address).await;
    third(&point, &package, &last, &between.url()).await;
    assert_eq!(between.requests("chunks"), 0);
    assert_eq!(counted(&point, "made"), 2 * made);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_ask_at_once_share_one_making() {
    let big = noise(4 << 20, 1);
    let (point, package, one) = site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let other = Copies::new();
    other.bring(&point.url("/"), &version(&point, &package, 2)).await.unwrap();
    let url = point.url("/");
    tokio::join!(third(&point, &package, &one, &url), third(&point, &package, &other, &url));
    let cached = fs::read_dir(point.folder.path().join("data/deltas")).unwrap();
    // One with nothing but a head says that there is none.
    let sizes = cached.map(|file| file.unwrap().metadata().unwrap().len());
    let n = sizes.filter(|size| *size > 40).count() as u64;
    assert!(n > 0);
    assert_eq!((counted(&point, "made"), counted(&point, "found")), (n, n));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_is_of_no_use_costs_a_second_request_and_nothing_else() {
    let big = noise(4 << 20, 1);
    let (point, package, _) = site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let second_version = version(&point, &package, 2);
    type Lie = fn(Bytes) -> Reply;
    let lies: [Lie; 7] = [
        |body| {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Reply::Whole(bytes.into())
        },
        |body| Reply::Whole([&body[..], b"and more"].concat().into()),
        |body| Reply::Whole(body.slice(..body.len() / 2)),
        |_| Reply::Whole(Bytes::new()),
        |_| Reply::Whole(noise(5 << 20, 9).into()),
        |_| Reply::Status(404),
        |_| Reply::Status(415),
    ];
    for (how, lie) in lies.into_iter().enumerate() {
        let copies = Copies::new();
        copies.bring(&point.url("/"), &second_version).await.unwrap();
        let between = Between::new(point.address, Duration::ZERO, move |path, body| match path {
            "/deltas" => lie(body),
            _ => Reply::Whole(body),
        })
        .await;
        third(&point, &package, &copies, &between.url()).await;
        assert!(between.requests("chunks") > 0, "{how}");
        let asked = between.requests("deltas");
        assert!(asked <= 2, "{how}: {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_cut_is_not_asked_for_again() {
    let big = noise(12 << 20, 1);
    let (point, package, copies) =
        site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let n = Arc::new(AtomicUsize::new(0));
    let cuts = n.clone();
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        // The manifest's delta, if it has one, is shorter.
        if path == "/deltas" && body.len() > 1_000 && cuts.fetch_add(1, SeqCst) < 3 {
            return Reply::Cut(body.slice(..body.len() * 2 / 3));
        }
        Reply::Whole(body)
    })
    .await;
    let brought = third(&point, &package, &copies, &between.url()).await;
    assert!(n.load(SeqCst) >= 3, "{n:?}");
    assert_eq!(between.requests("chunks"), 0, "{brought:?}");
    let whole = Copies::new();
    whole.bring(&point.url("/"), &version(&point, &package, 2)).await.unwrap();
    let at_once = third(&point, &package, &whole, &point.url("/")).await;
    assert!(brought.moved_bytes < 2 * at_once.moved_bytes, "{brought:?} {at_once:?}");
}

/// Flips one bit of each place where files below `folder` have these bytes as they are.
fn damage(folder: &Path, bytes: &[u8]) -> usize {
    let mut n = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            n += damage(&path, bytes);
        } else {
            let mut pack = fs::read(&path).unwrap();
            let found: Vec<usize> = pack
                .windows(bytes.len())
                .enumerate()
                .filter_map(|(at, window)| (window == bytes).then_some(at))
                .collect();
            n += found.len();
            found.iter().for_each(|at| pack[*at] ^= 1);
            fs::write(&path, pack).unwrap();
        }
    }
    n
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_base_is_damaged_here_or_at_the_source_chunks_come() {
    for is_here in [true, false] {
        let big = noise(4 << 20, 1);
        let (point, package, copies) =
            site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
        let folder = if is_here { copies.folder.path() } else { point.folder.path() };
        assert_eq!(damage(&folder.join("library/packs"), &big[2_000_000..2_000_032]), 1);
        let between = Between::plain(point.address).await;
        let brought = third(&point, &package, &copies, &between.url()).await;
        // Here all comes out right but what was made of the damaged bytes.
        let chunks = if is_here { 1_000..1 << 20 } else { 4 << 20..5 << 20 };
        assert!(chunks.contains(&brought.moved_bytes), "{brought:?}");
        assert_eq!(between.requests("chunks") > 0, is_here, "the source sends chunks at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_never_had_the_base_sends_chunks() {
    let big = noise(4 << 20, 1);
    let (point, package, copies) =
        site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let between_them = Copies::new();
    let info = version(&point, &package, 3);
    between_them.bring(&point.url("/"), &info).await.unwrap();
    let content = Content {
        library: between_them.packages.library().clone(),
        packages: Arc::new(between_them.packages.clone()),
    };
    let deltas = DeltaOptions { folder: between_them.folder.path().join("deltas"), bytes: 1 << 20 };
    let options = ServeOptions { deltas: Some(deltas), ..Default::default() };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
    let url = format!("http://{}/", server.local_addr());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::new(content), async {
        let _ = stopped.await;
    }));
    let brought = third(&point, &package, &copies, &url).await;
    assert!(brought.moved_bytes > 4 << 20, "{brought:?}");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

/// Asks for a delta. Answers the status, the media type and the body.
async fn ask(point: &Point, kind: &str, body: Bytes) -> (u16, String, Bytes) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = http.post(point.url("/deltas")).header("content-type", kind).body(body).send().await;
    let answer = sent.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.bytes().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_was_revoked_no_delta_is_sent_made_or_kept() {
    let (old, new) = (noise(30_000, 1), shifted(&noise(30_000, 1)));
    let (point, package, copies) = site(&[("a", old.clone())], &[("a", new.clone())]).await;
    let ids = |bytes: &[u8]| vec![ChunkId(Digest::of(bytes))];
    let request = DeltaRequest { base: ids(&old), wanted: ids(&new) };
    let (status, kind, delta) = ask(&point, REQUEST, request.encode()).await;
    assert_eq!((status, kind.as_str()), (200, DELTA));
    assert!(delta.len() < 1_000);
    for revoked in [Digest::of(&old), Digest::of(&new)] {
        point.library.revoke(revoked, "a test").unwrap();
        let (status, kind, frames) = ask(&point, REQUEST, request.encode()).await;
        assert_eq!((status, kind.as_str()), (200, FRAMES), "also where it is kept");
        let is_sent = frames.windows(100).any(|window| window == &new[..100]);
        assert_eq!(is_sent, revoked == Digest::of(&old));
        if revoked == Digest::of(&new) {
            let refused = copies.bring(&point.url("/"), &version(&point, &package, 3)).await;
            assert!(
                matches!(refused, Err(RemoteError::Refused { status: 410, .. })),
                "{refused:?}"
            );
        }
        point.library.unrevoke(revoked).unwrap();
    }
    let (_, kind, again) = ask(&point, REQUEST, request.encode()).await;
    assert_eq!((kind.as_str(), again), (DELTA, delta));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_the_limits_is_refused_or_answered_with_chunks() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let (old, new) = (noise(30_000, 1), shifted(&noise(30_000, 1)));
    let (old, new) = (ChunkId(point.add(&old)), ChunkId(point.add(&new)));
    let request = |n_base: usize, n_wanted: usize| {
        DeltaRequest { base: vec![old; n_base], wanted: vec![new; n_wanted] }.encode()
    };
    let good = request(1, 1);
    for (kind, body, status) in [
        ("application/json", good.clone(), 415),
        (REQUEST, Bytes::new(), 400),
        (REQUEST, good.slice(..good.len() - 1), 400),
        (REQUEST, request(0, 1), 400),
        (REQUEST, request(1, 0), 400),
        (REQUEST, request(4097, 1), 400),
        (REQUEST, request(1, 4097), 400),
        (REQUEST, request(4097, 4096), 413),
        (REQUEST, request(4096, 4096), 200),
    ] {
        let (found, found_kind, body) = ask(&point, kind, body).await;
        assert_eq!(found, status, "{}", String::from_utf8_lossy(&body));
        let want = if status == 200 { FRAMES } else { "application/problem+json" };
        // 120 MB of base and as much to make of it: nobody makes that.
        assert_eq!(found_kind, want);
        assert!(body.len() < 100_000, "each chunk once");
    }
    assert_eq!(counted(&point, "made"), 0);
    let (status, kind, _) = ask(&point, REQUEST, good).await;
    assert_eq!((status, kind.as_str()), (200, DELTA));
    let get = curl(&[&point.url("/deltas")]);
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_place_for_deltas_says_so_and_serves_chunks() {
    let big = noise(4 << 20, 1);
    let (point, package, copies) =
        site(&[("a.bin", big.clone())], &[("a.bin", shifted(&big))]).await;
    let content = Content { library: point.library.clone(), packages: point.packages.clone() };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), ServeOptions::default()).unwrap();
    let url = format!("http://{}/", server.local_addr());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::new(content), async {
        let _ = stopped.await;
    }));
    let between = Between::plain(url[7..url.len() - 1].parse().unwrap()).await;
    let brought = third(&point, &package, &copies, &between.url()).await;
    assert_eq!((between.requests("deltas"), brought.delta_bytes), (1, 0), "it is asked once");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
