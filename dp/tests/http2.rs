//! Many streams on one HTTP/2 connection.
//!
//! With reqwest: curl 7.88 cannot use a connection of prior knowledge twice.
#![allow(clippy::unwrap_used)]

mod common;

use common::{noise, point_with, prose};
use dp::ServeOptions;
use futures::StreamExt;
use std::time::{Duration, Instant};

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_gets_its_own_bytes() {
    let point = point_with(ServeOptions::default());
    let contents: Vec<Vec<u8>> = (0..60u8)
        .map(|n| match n % 4 {
            0 => noise(1000 + usize::from(n), n),
            1 => noise(1_500_000 + usize::from(n), n),
            2 => prose(700_000 + usize::from(n), n),
            _ => noise(70_000 + usize::from(n), n),
        })
        .collect();
    let urls: Vec<String> =
        contents.iter().map(|c| point.url(&format!("/content/{}", point.add(c)))).collect();
    let client = client();
    for _ in 0..3 {
        let fetched = urls
            .iter()
            .map(async |url| client.get(url).send().await.unwrap().bytes().await.unwrap());
        let fetched: Vec<_> = futures::stream::iter(fetched).buffered(60).collect().await;
        assert!(fetched.iter().zip(&contents).all(|(got, want)| got == want));
    }
    let metrics = client.get(point.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("depot_connections 1\n"), "one connection did it all");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_and_then_closed() {
    let point =
        point_with(ServeOptions { idle_time: Duration::from_secs(2), ..Default::default() });
    let metrics = async |client: &reqwest::Client| {
        client.get(point.url("/metrics")).send().await.unwrap().text().await.unwrap()
    };
    let idle = client();
    for _ in 0..2 {
        assert!(metrics(&idle).await.contains("depot_connections_accepted_total 1\n"));
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    let other = client();
    let until = Instant::now() + Duration::from_secs(10);
    while !metrics(&other).await.contains("depot_connections 1\n") {
        assert!(Instant::now() < until, "the idle one is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_ends_its_connection() {
    let point =
        point_with(ServeOptions { progress_time: Duration::from_secs(1), ..Default::default() });
    let url = point.url(&format!("/content/{}", point.add(&noise(32 << 20, 1))));
    let mut stalled = client().get(url).send().await.unwrap();
    let mut came = stalled.chunk().await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = loop {
        match stalled.chunk().await {
            Ok(Some(bytes)) => came += bytes.len(),
            ended => break ended,
        }
    };
    assert!(ended.is_err() && came < 32 << 20, "{came}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_ends_though_its_connection_is_used() {
    let point =
        point_with(ServeOptions { progress_time: Duration::from_secs(1), ..Default::default() });
    let client = client();
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(vec![0; 10])]);
    let body = reqwest::Body::wrap_stream(begun.chain(futures::stream::pending()));
    let stalled = client.post(point.url("/chunks")).header("content-type", dp::IDS_TYPE).body(body);
    let stalled = tokio::time::timeout(Duration::from_secs(10), stalled.send());
    let others = async {
        loop {
            let answer = client.get(point.url("/healthz")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let stalled = tokio::select! {
        stalled = stalled => stalled.expect("it ends").unwrap(),
        () = others => unreachable!("they go on"),
    };
    assert_eq!(stalled.status(), 400);
    assert!(stalled.text().await.unwrap().contains("nothing of it came for 1 s"));
    let metrics = client.get(point.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("depot_connections 1\n"), "the connection stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_streams_end_before_the_server_does() {
    let mut point = point_with(ServeOptions::default());
    let bytes = noise(32 << 20, 1);
    let url = point.url(&format!("/content/{}", point.add(&bytes)));
    let mut running = client().get(url).send().await.unwrap();
    let mut got = running.chunk().await.unwrap().unwrap().to_vec();
    point.tell_to_stop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    while let Some(chunk) = running.chunk().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == bytes);
    tokio::task::spawn_blocking(move || point.wait()).await.unwrap();
}
