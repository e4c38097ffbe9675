//! Recipes of many files come in few requests; whatever goes wrong with those, one by one.
#![allow(clippy::unwrap_used)]

#[path = "common/between.rs"]
mod between;
mod common;
#[path = "common/copies.rs"]
mod copies;

use between::{Between, Reply};
use bytes::Bytes;
use common::{Point, noise, point, write};
use copies::{Copies, assert_served, version};
use dp::recipes::{decode_first, encode};
use dp::remote::{FetchOptions, fetch};
use packager::PackageName;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const N_FILES: usize = 60;

/// A package of files of several chunks each.
fn medium() -> (Point, PackageName) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let point = point();
    let package = point.package("medium");
    for n in 0..N_FILES {
        write(&point.source("medium").join(format!("{}/{n}", n % 7)), &noise(700_000, n as u8));
    }
    point.update(&package);
    (point, package)
}

/// Brings the package and fetches it, over answers to `POST /recipes` that are changed. How many requests for
/// recipes each took.
async fn over(change: impl Fn(Bytes) -> Reply + Clone + Send + Sync + 'static) -> [usize; 2] {
    let (point, package) = medium();
    let copies = Copies::new();
    let between = || {
        let change = change.clone();
        Between::new(point.address, Duration::ZERO, move |path, body| {
            if path == "/recipes" { change(body) } else { Reply::Whole(body) }
        })
    };
    let (for_copy, for_fetch) = (between().await, between().await);
    let info = version(&point, &package, 2);
    copies.bring(&for_copy.url(), &info).await.unwrap();
    assert_served(&copies, "medium/2", &point.source("medium")).await;
    let out = tempfile::tempdir().unwrap();
    let address = format!("{}packages/medium/2", for_fetch.url());
    let fetched = fetch(&[&address], out.path(), FetchOptions::default()).await.unwrap();
    assert_eq!(fetched.files, N_FILES as u64);
    [for_copy, for_fetch].map(|between| between.requests("recipes"))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_come_at_once() {
    let [copy, fetch] = over(Reply::Whole).await;
    assert_eq!(fetch, 1);
    assert!(copy <= 3, "the manifest's, and the files': {copy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_such_request_gives_them_one_by_one() {
    for status in [404, 405] {
        let [copy, fetch] = over(move |_| Reply::Status(status)).await;
        assert_eq!(fetch, 1 + N_FILES, "it is asked once");
        assert!(copy > N_FILES);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_cut_is_not_asked_for_again() {
    let n = std::sync::Arc::new(AtomicUsize::new(0));
    let lengths = n.clone();
    let [_, fetch] = over(move |body| match lengths.fetch_add(1, SeqCst) % 2 {
        0 => Reply::Cut(body.slice(..body.len() / 2)),
        _ => Reply::Whole(body),
    })
    .await;
    assert!(fetch <= 3, "{fetch}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_asked_for_by_itself() {
    let [copy, fetch] = over(|body| {
        let (_, _, first) = decode_first(&body).unwrap().unwrap();
        Reply::Whole(body.slice(first..))
    })
    .await;
    assert_eq!(fetch, 2);
    assert!(copy <= 5, "{copy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_that_the_manifest_does_not_name_does_not_count() {
    let (point, package) = medium();
    let lies = |body: Bytes| {
        // Of the first content the recipe of the second.
        let (first, _, length) = decode_first(&body).unwrap().unwrap();
        let (_, other, _) = decode_first(&body[length..]).unwrap().unwrap();
        let mut out = Vec::new();
        encode(first, &other, &mut out);
        Bytes::from(out)
    };
    let between = Between::new(point.address, Duration::ZERO, move |path, body| {
        Reply::Whole(if path == "/recipes" { lies(body) } else { body })
    })
    .await;
    let copies = Copies::new();
    copies.bring(&between.url(), &version(&point, &package, 2)).await.unwrap();
    assert_served(&copies, "medium/2", &point.source("medium")).await;
    assert!(between.requests("recipes") > N_FILES, "one by one, as the first of them was wrong");
}
