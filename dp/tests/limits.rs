//! Clients that are slow, greedy or broken, and a server that stops.
#![allow(clippy::unwrap_used)]

mod common;

use common::{curl, noise, point, point_with};
use dp::ServeOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Everything until the server closes, and how long that took.
fn rest(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    (bytes, began.elapsed())
}

fn short() -> ServeOptions {
    ServeOptions {
        header_time: Duration::from_secs(1),
        idle_time: Duration::from_secs(2),
        progress_time: Duration::from_secs(1),
        ..Default::default()
    }
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let point = point_with(short());
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHo", b"PRI * HTT"] {
        let mut stream = connect(point.address);
        stream.write_all(bytes).unwrap();
        let (_, took) = rest(&mut stream);
        assert!(took > Duration::from_millis(700) && took < Duration::from_secs(4), "{took:?}");
    }
}

#[test]
fn a_trickled_head_ends_all_the_same() {
    let point = point_with(short());
    let mut stream = connect(point.address);
    let began = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    while stream.write_all(b"a: b\r\n").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_idle_connection_is_kept_and_then_closed() {
    let point = point_with(short());
    let mut stream = connect(point.address);
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        std::thread::sleep(Duration::from_millis(1200));
        let mut waiting = [0; 4096];
        assert!(stream.read(&mut waiting).unwrap() > 0, "the rest of the answer");
    }
    let (_, took) = rest(&mut stream);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_reader_that_stops_is_cut_and_a_slow_one_is_not() {
    let point = point_with(short());
    let bytes = noise(32 << 20, 1);
    let digest = point.add(&bytes);
    let request = format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut stopped = connect(point.address);
    stopped.write_all(request.as_bytes()).unwrap();
    let mut slow = connect(point.address);
    slow.write_all(request.as_bytes()).unwrap();
    let mut came = 0;
    let mut buffer = vec![0; 2 << 20];
    // Slower than the progress time in all, but never that long without a byte.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        came += slow.read(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    let (left, _) = rest(&mut slow);
    assert!(came + left.len() > bytes.len(), "the slow one got everything");
    let (got, _) = rest(&mut stopped);
    assert!(got.len() < bytes.len(), "the stopped one was cut");
    let metrics = curl(&[&point.url("/metrics")]);
    assert!(metrics.text().contains("timed_out_total{limit=\"progress\"} 1"), "{}", metrics.text());
}

#[test]
fn a_body_that_does_not_come_ends_the_connection() {
    let point = point_with(short());
    let mut stream = connect(point.address);
    let head = format!(
        "POST /chunks HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 64\r\n\r\n",
        dp::IDS_TYPE
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[0; 10]).unwrap();
    let (_, took) = rest(&mut stream);
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_the_reason() {
    let point = point();
    let mut stream = connect(point.address);
    let head = "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"no length\r\n").unwrap();
    let (got, _) = rest(&mut stream);
    let said = String::from_utf8_lossy(&got);
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.contains("malformed-request") && said.contains("size"), "{said}");
}

#[test]
fn a_body_that_is_stated_to_be_too_long_is_refused_before_it_comes() {
    let point = point();
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = connect(point.address);
        let head = format!(
            "POST /chunks HTTP/1.1\r\nHost: x\r\n{expect}Content-Type: {}\r\n\
             Content-Length: 1000000\r\n\r\n",
            dp::IDS_TYPE
        );
        let began = Instant::now();
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 413");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_request_of_http_1_1_names_one_host() {
    let point = point();
    let digest = point.add(b"x");
    let status = |request: &str| {
        let mut stream = connect(point.address);
        write!(stream, "GET /content/{digest} HTTP/{request}\r\n\r\n").unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        String::from_utf8_lossy(&line[9..]).into_owned()
    };
    // Twice: looked up, then hot.
    for _ in 0..2 {
        assert_eq!(status("1.1\r\nHost: x"), "200");
        assert_eq!(status("1.1\r\nHost:"), "200", "of no authority");
        assert_eq!(status("1.1"), "400");
        assert_eq!(status("1.1\r\nHost: x\r\nHost: y"), "400");
        assert_eq!(status("1.0"), "200");
    }
}

#[test]
fn heads_over_the_limit_are_refused() {
    let point = point();
    let long = format!("X-Long: {}", "x".repeat(20 << 10));
    assert_eq!(curl(&["-H", &long, &point.url("/healthz")]).status, 431);
    let fits = format!("X-Long: {}", "x".repeat(8 << 10));
    assert_eq!(curl(&["-H", &fits, &point.url("/healthz")]).status, 200);
    let mut stream = connect(point.address);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
    for n in 0..1000 {
        if stream.write_all(format!("h{n}: x\r\n").as_bytes()).is_err() {
            break;
        }
    }
    // The answer may be lost: closing with unread bytes resets the connection.
    let (got, _) = rest(&mut stream);
    let said = String::from_utf8_lossy(&got);
    assert!(got.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
}

#[test]
fn what_is_no_http_is_refused() {
    let point = point();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\r\n\r\n\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut stream = connect(point.address);
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (got, took) = rest(&mut stream);
        assert!(took < Duration::from_secs(5));
        assert!(
            got.is_empty() || got.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&got)
        );
    }
    assert_eq!(curl(&[&point.url("/healthz")]).status, 200);
}

#[test]
fn connections_over_the_limit_are_told_to_come_back() {
    let point = point_with(ServeOptions { max_connections: 2, ..Default::default() });
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(point.address)).collect();
    for stream in &mut held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).unwrap() > 0);
    }
    let refused = curl(&[&point.url("/healthz")]);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["status"], 503);
    assert!(refused.header("retry-after").is_some());
    held.clear();
    let until = Instant::now() + Duration::from_secs(5);
    while curl(&[&point.url("/healthz")]).status != 200 {
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let point = point();
    let bytes = noise(1 << 20, 1);
    let digest = point.add(&bytes);
    let mut stream = connect(point.address);
    write!(stream, "GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (got, _) = rest(&mut stream);
    assert!(got.ends_with(&bytes));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let point = point();
    let contents = [noise(100, 1), noise(3 << 20, 2), noise(70_000, 3), noise(200, 4)];
    let mut stream = connect(point.address);
    let mut requests = String::new();
    for (at, bytes) in contents.iter().enumerate() {
        let digest = point.add(bytes);
        let close = if at + 1 == contents.len() { "Connection: close\r\n" } else { "" };
        requests += &format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\n{close}\r\n");
    }
    stream.write_all(requests.as_bytes()).unwrap();
    let (mut got, _) = rest(&mut stream);
    for bytes in &contents {
        let head = got.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(got.starts_with(b"HTTP/1.1 200 OK"));
        assert!(got[head..head + bytes.len()] == bytes[..]);
        got.drain(..head + bytes.len());
    }
    assert!(got.is_empty());
}

#[test]
fn a_running_answer_ends_before_the_server_does() {
    let mut point = point();
    let bytes = noise(64 << 20, 1);
    let digest = point.add(&bytes);
    let mut stream = connect(point.address);
    write!(stream, "GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = vec![0; 100_000];
    stream.read_exact(&mut first).unwrap();
    let mut idle = connect(point.address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut buffer = [0; 4096];
    assert!(idle.read(&mut buffer).unwrap() > 0);
    point.tell_to_stop();
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(point.address).is_err(), "no new connections");
    assert_eq!(idle.read(&mut buffer).unwrap(), 0, "idle connections are closed");
    let (got, _) = rest(&mut stream);
    assert!(got.ends_with(&bytes[bytes.len() - 1000..]));
    let began = Instant::now();
    point.wait();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_that_stops_does_not_wait_for_ever() {
    let options = ServeOptions { drain_time: Duration::from_millis(500), ..Default::default() };
    let mut point = point_with(options);
    let digest = point.add(&noise(64 << 20, 1));
    let mut stream = connect(point.address);
    write!(stream, "GET /content/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = vec![0; 1000];
    stream.read_exact(&mut first).unwrap();
    let began = Instant::now();
    point.tell_to_stop();
    point.wait();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn two_servers_do_not_share_a_port() {
    let point = point();
    let taken = dp::Server::bind(point.address, ServeOptions::default());
    assert_eq!(taken.err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn the_state_of_the_server_is_told() {
    let point = point();
    assert_eq!(curl(&[&point.url("/healthz")]).text(), "ok\n");
    assert_eq!(curl(&[&point.url("/readyz")]).text(), "ready\n");
    point.add(b"x");
    let metrics = curl(&[&point.url("/metrics")]);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    for want in [
        "depot_http_requests_total{route=\"status\",status=\"2xx\"} 2",
        "depot_requests_in_flight 1",
        "depot_library_chunks 1",
        "# TYPE depot_http_request_duration_seconds histogram",
    ] {
        assert!(metrics.text().contains(want), "{want} in {}", metrics.text());
    }
}
