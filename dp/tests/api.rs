//! Requests below `/api/` reach the service that was given for them.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Point, curl, noise, point_with};
use dp::{BoxError, RequestBody, ServeOptions, from_service};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

type Body = UnsyncBoxBody<Bytes, BoxError>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Counts handlers that began and did not end.
fn api(running: Arc<AtomicUsize>) -> Point {
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let running = running.clone();
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            let guard = scope_end(running);
            let peer = *request.extensions().get::<SocketAddr>().unwrap();
            let path = request.uri().path().to_owned();
            let body = match path.as_str() {
                "/api/echo" => full(request.into_body().collect().await.unwrap().to_bytes()),
                "/api/peer" => full(peer.ip().to_string()),
                "/api/panic" => panic!("as the test wants"),
                "/api/sleep" => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    full("late")
                }
                "/api/events" => {
                    let events = futures::stream::unfold(0, |n| async move {
                        tokio::time::sleep(Duration::from_millis(700)).await;
                        let event = Bytes::from(format!("data: {n}\n\n"));
                        (n < 4).then_some((Ok(http_body::Frame::data(event)), n + 1))
                    });
                    BodyExt::boxed_unsync(StreamBody::new(events))
                }
                _ => full("other"),
            };
            drop(guard);
            let mut response = Response::new(body);
            if path == "/api/teapot" {
                *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
            }
            Ok::<_, Infallible>(response)
        }
    });
    point_with(ServeOptions {
        api: Some(from_service(service)),
        progress_time: Duration::from_secs(1),
        drain_time: Duration::from_millis(500),
        ..Default::default()
    })
}

struct ScopeEnd(Arc<AtomicUsize>);
fn scope_end(running: Arc<AtomicUsize>) -> ScopeEnd {
    ScopeEnd(running)
}
impl Drop for ScopeEnd {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn get(point: &Point, path: &str) -> common::Answer {
    curl(&[&point.url(path)])
}

#[test]
fn requests_and_answers_pass_unchanged() {
    let point = api(Arc::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let bytes = noise(5 << 20, 1);
    std::fs::write(&file, &bytes).unwrap();
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let data = format!("@{}", file.display());
        let got = curl(&[protocol, "--data-binary", &data, &point.url("/api/echo")]);
        assert!(got.body == bytes);
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &data];
        let url = point.url("/api/echo");
        if protocol == "--http1.1" {
            let got = curl(&[&chunked[..], &[&url]].concat());
            assert!(got.body == bytes);
        }
        assert_eq!(curl(&[protocol, &point.url("/api/peer")]).text(), "127.0.0.1");
    }
    assert_eq!(curl(&["-X", "BREW", &point.url("/api/teapot")]).status, 418);
    let metrics = get(&point, "/metrics");
    assert!(metrics.text().contains("{route=\"api\",status=\"4xx\"} 1"), "{}", metrics.text());
}

#[test]
fn a_handler_that_panics_is_500_and_nothing_else_breaks() {
    let point = api(Arc::default());
    let got = get(&point, "/api/panic");
    assert_eq!(got.status, 500);
    assert_eq!(got.header("content-type"), Some("application/problem+json"));
    assert_eq!(get(&point, "/api/other").text(), "other");
}

#[test]
fn events_may_take_longer_than_the_progress_time() {
    let point = api(Arc::default());
    let got = get(&point, "/api/events");
    assert_eq!(got.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[test]
fn an_upload_that_stops_is_cut() {
    let running = Arc::new(AtomicUsize::new(0));
    let point = api(running.clone());
    let mut stream = TcpStream::connect(point.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        .unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    wait_for_none(&running);
}

#[test]
fn a_server_that_stops_ends_the_handlers_that_are_left() {
    let running = Arc::new(AtomicUsize::new(0));
    let point = api(running.clone());
    let mut stream = TcpStream::connect(point.address).unwrap();
    write!(stream, "GET /api/sleep HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.load(Ordering::SeqCst), 1);
    drop(point);
    wait_for_none(&running);
}

fn wait_for_none(running: &AtomicUsize) {
    for _ in 0..100 {
        if running.load(Ordering::SeqCst) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a handler is still at work");
}
