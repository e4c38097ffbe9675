//! Several servers that are to answer the same, of which one does not: it lies, with checksums that are
//! right, or stops in the middle. What it is asked for comes all the same, and only the right bytes.
#![allow(clippy::unwrap_used)]

#[path = "common/between.rs"]
mod between;
mod common;
#[path = "common/copies.rs"]
mod copies;

use between::{Between, Reply};
use bytes::{Bytes, BytesMut};
use common::{Point, noise, point, write};
use contentlib::frames::{FrameDecoder, FrameItem};
use contentlib::{ChunkId, Digest, Frame, Recipe};
use copies::{Copies, assert_served, chunks_of, version};
use dp::recipes::{decode_first, encode};
use dp::remote::{Client, RemoteError, Server};
use dp::replica::{Brought, bring};
use packager::{PackageName, VersionInfo};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A package of two versions, the second with a large file that has changed all over.
fn tools() -> (Point, PackageName) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("tools");
    let mut large = noise(8 << 20, 1);
    write(&point.source("tools").join("large"), &large);
    point.update(&package);
    large.chunks_mut(16 << 10).for_each(|piece| piece[0] ^= 1);
    write(&point.source("tools").join("large"), &large);
    write(&point.source("tools").join("other"), &noise(2 << 20, 2));
    point.update(&package);
    (point, package)
}

async fn bring_by(
    client: &Client,
    copies: &Copies,
    info: &VersionInfo,
) -> Result<Brought, RemoteError> {
    let progress = Arc::default();
    let bringing = bring(client, &copies.packages, info, &progress);
    tokio::time::timeout(Duration::from_secs(60), bringing).await.expect("it ends")
}

/// The same blocks, but that one byte of each chunk is another one; the checksums are right.
fn lied(body: &Bytes) -> Bytes {
    let mut decoder = FrameDecoder::default();
    decoder.push(body);
    let mut out = BytesMut::new();
    while let Some(item) = decoder.next_item().unwrap() {
        let FrameItem::Block(frame) = item else {
            item.encode(&mut out);
            continue;
        };
        let other = |bytes: Bytes| {
            let mut bytes = bytes.to_vec();
            bytes[0] ^= 1;
            Bytes::from(bytes)
        };
        let chunks: Vec<Bytes> =
            frame.chunks().unwrap().into_iter().map(|(_, bytes)| other(bytes)).collect();
        FrameItem::Block(Frame::pack(&chunks, true)).encode(&mut out);
    }
    out.freeze()
}

/// The same chunks in the order that is wrong.
fn turned(recipe: &Recipe) -> Recipe {
    let spans = recipe.spans().collect::<Vec<_>>();
    let length = |at: usize| (spans[at].bytes.end - spans[at].bytes.start) as u32;
    Recipe::new((0..spans.len()).rev().map(|at| (spans[at].chunk, length(at)))).unwrap()
}

/// The chunks of an answer.
fn chunks_in(body: &Bytes) -> Vec<ChunkId> {
    let mut decoder = FrameDecoder::default();
    decoder.push(body);
    let mut found = Vec::new();
    while let Some(item) = decoder.next_item().unwrap() {
        if let FrameItem::Block(frame) = item {
            found.extend(frame.chunks().unwrap().into_iter().map(|(id, _)| id));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_is_found_out_by_the_hashes_and_the_honest_one_is_asked() {
    let (point, package) = tools();
    let (second, third) = (version(&point, &package, 2), version(&point, &package, 3));
    let large = Digest::of(&std::fs::read(point.source("tools").join("large")).unwrap());
    for lies_about in ["chunks", "deltas", "recipes"] {
        let copies = Copies::new();
        copies.bring(&point.url("/"), &second).await.unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let lies = told.clone();
        let liar = Between::new(point.address, Duration::ZERO, move |path, body| {
            if !path.starts_with(&format!("/{lies_about}")) {
                // What no delta makes comes as chunks, which this server has none of.
                return if path == "/deltas" { Reply::Status(404) } else { Reply::Whole(body) };
            }
            lies.fetch_add(1, SeqCst);
            Reply::Whole(match lies_about {
                "chunks" => lied(&body),
                // A good delta, to other bytes.
                "deltas" => {
                    let other = contentlib::delta::encode(&[], &noise(8 << 20, 9), 16 << 20);
                    Bytes::from(other.unwrap())
                }
                _ if path == "/recipes" => {
                    let (mut rest, mut out) = (&body[..], Vec::new());
                    while let Some((content, recipe, length)) = decode_first(rest).unwrap() {
                        encode(content, &turned(&recipe), &mut out);
                        rest = &rest[length..];
                    }
                    Bytes::from(out)
                }
                _ => Bytes::from(turned(&Recipe::decode(&body).unwrap()).encode()),
            })
        })
        .await;
        let honest = Between::plain(point.address).await;
        let servers =
            vec![Server::at(&liar.url()).unwrap(), Server::at(&honest.url()).unwrap().ranked(1)];
        let client = Client::of(servers);
        let brought = bring_by(&client, &copies, &third).await.unwrap();
        assert!(told.load(SeqCst) > 0, "{lies_about}: the test shows nothing");
        assert_served(&copies, "tools/3", &point.source("tools")).await;
        // It was asked a few times at once before the first lie was seen, and not again.
        let most = if lies_about == "deltas" { 8 } else { 12 };
        assert!(told.load(SeqCst) <= most, "{lies_about}: asked {} times", told.load(SeqCst));
        assert!(brought.moved_bytes < 40 << 20, "{lies_about}: {brought:?}");
        // Nothing of what it said is held: each chunk that is, is one of the site's.
        let ours = copies.packages.library().stats().unwrap();
        let theirs: HashSet<ChunkId> =
            [&second, &third].iter().flat_map(|info| chunks_of(&point, info)).collect();
        assert_eq!(ours.chunks as usize, theirs.len(), "{lies_about}");
        if lies_about == "deltas" {
            // A delta of no use may be the fault of the base, which is ours.
            continue;
        }
        // Whose fault it was is known, so the honest one is asked first from then on.
        let before = (told.load(SeqCst), honest.requests("content") + honest.requests("recipes"));
        let recipe = client.recipe(large).await.unwrap().unwrap();
        assert_eq!(recipe.digest(), point.library.recipe(large).unwrap().digest());
        assert_eq!(told.load(SeqCst), before.0, "{lies_about}: the liar is asked again");
        assert!(
            honest.requests("content") + honest.requests("recipes") > before.1,
            "{lies_about}: the honest one is not preferred"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_honest_it_ends_and_says_whose_bytes_were_wrong() {
    let (point, package) = tools();
    let info = version(&point, &package, 2);
    let lies =
        |path: &str, body: Bytes| Reply::Whole(if path == "/chunks" { lied(&body) } else { body });
    let one = Between::new(point.address, Duration::ZERO, lies).await;
    let two = Between::new(point.address, Duration::ZERO, lies).await;
    let servers =
        [&one, &two].map(|liar| Server::at(&liar.url()).unwrap()).into_iter().collect::<Vec<_>>();
    let copies = Copies::new();
    let failed = bring_by(&Client::of(servers), &copies, &info).await.unwrap_err();
    let told = failed.to_string();
    for liar in [&one, &two] {
        assert!(told.contains(&liar.address.to_string()), "{told}");
        assert!(liar.requests("chunks") <= 12, "{} requests", liar.requests("chunks"));
    }
    assert!(told.contains("sent bytes that are not"), "{told}");
    assert!(copies.held(&chunks_of(&point, &info)).is_empty());
    copies.bring(&point.url("/"), &info).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_that_stalls_did_not_send_comes_from_the_next() {
    let (point, package) = tools();
    let info = version(&point, &package, 3);
    let came = Arc::new(parking_lot::Mutex::new(HashSet::new()));
    let seen = came.clone();
    let stalls = Between::new(point.address, Duration::ZERO, move |path, body| {
        // Not the manifest.
        if path != "/chunks" || body.len() < 1 << 20 {
            return Reply::Whole(body);
        }
        // In the middle of a block of the file.
        let half = body.slice(..body.len() / 2);
        seen.lock().extend(chunks_in(&half));
        Reply::Stall(half)
    })
    .await;
    let next = Between::plain(point.address).await;
    // As all connections are, but that they are not as patient.
    let http = Client::with_times(reqwest::Client::builder().no_proxy());
    let http = http.read_timeout(Duration::from_millis(700)).build().unwrap();
    let base = reqwest::Url::parse(&stalls.url()).unwrap();
    let servers =
        vec![Server::over(http, base, stalls.url()), Server::at(&next.url()).unwrap().ranked(1)];
    let copies = Copies::new();
    let brought = bring_by(&Client::of(servers), &copies, &info).await.unwrap();
    assert_served(&copies, "tools/3", &point.source("tools")).await;
    let came = came.lock().clone();
    assert!(came.len() > 10, "the test shows nothing: {} chunks", came.len());
    let again = next.asked().iter().filter(|id| came.contains(id)).count();
    assert_eq!(again, 0, "of {} chunks that had come", came.len());
    assert!(brought.moved_bytes < 13 << 20, "{brought:?}");
}
