//! HTTPS on the port of HTTP: exact bytes, who may come in, and clients that break off.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Answer, Point, curl, noise, point_with, prose};
use dp::field::PointId;
use dp::identity::{
    Authority, Distrust, Identity, OverTls, OwnFiles, Peer, ServerTls, client, client_config,
    fetching_config, joining_config,
};
use dp::{PlainHttp, Refuses, RequestBody, ServeOptions, from_service};
use http::{Request, Response};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use packager::Clock;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A site over TLS, with a clock that tests move.
struct Site {
    point: Point,
    authority: Authority,
    tls: Arc<ServerTls>,
    clock: Clock,
    now: Arc<Mutex<Timestamp>>,
    keys: TempDir,
}

fn site() -> Site {
    site_with(ServeOptions::default())
}

fn site_with(options: ServeOptions) -> Site {
    site_that_shows(None, options)
}

fn site_that_shows(own: Option<OwnFiles>, options: ServeOptions) -> Site {
    let keys = tempfile::tempdir().unwrap();
    let now = Arc::new(Mutex::new(Timestamp::now()));
    let clock: Clock = {
        let now = now.clone();
        Arc::new(move || *now.lock())
    };
    let authority = Authority::open(keys.path(), clock()).unwrap();
    let identity = authority.site_identity(clock()).unwrap();
    let tls = Arc::new(ServerTls::new(&identity, own, clock.clone()).unwrap());
    // The API says whom it sees.
    let api = from_service(tower::service_fn(async |request: Request<RequestBody>| {
        let seen = request.extensions();
        let said = format!("{:?} {:?}", seen.get::<OverTls>(), seen.get::<Peer>());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
    }));
    let options = ServeOptions { tls: Some(tls.clone()), api: Some(api), ..options };
    let point = point_with(options);
    Site { point, authority, tls, clock, now, keys }
}

impl Site {
    fn file(&self, name: &str) -> String {
        self.keys.path().join(name).to_str().unwrap().to_owned()
    }

    /// The URL of `path` by the site's name.
    fn url(&self, path: &str) -> String {
        format!("https://site.depot:{}{path}", self.point.address.port())
    }

    /// curl, told where the site is and to believe its authority.
    fn curl(&self, more: &[&str], path: &str) -> Answer {
        let resolve = format!("site.depot:{}:127.0.0.1", self.point.address.port());
        let (authority, url) = (self.file("authority.pem"), self.url(path));
        let arguments = ["--resolve", &resolve, "--cacert", &authority];
        curl(&[&arguments, more, &[&url]].concat())
    }

    /// A point of this site.
    fn identity(&self, bits: u128) -> Identity {
        let request = Identity::request().unwrap();
        let id = PointId::from_random(bits);
        let certificate = self.authority.sign(request.pem(), &id, (self.clock)()).unwrap();
        request.answered(&certificate, self.authority.anchor()).unwrap()
    }

    fn address(&self) -> String {
        format!("https://{}", self.point.address)
    }

    /// What the API says to a client that is `identity`.
    async fn says(&self, identity: &Identity) -> Result<String, reqwest::Error> {
        let config = client_config(identity, &self.clock).unwrap();
        let (builder, url) = client(&config, &Peer::Site, &self.address()).unwrap();
        said(&builder.build().unwrap(), &url).await
    }

    fn advance(&self, hours: i64) {
        *self.now.lock() += SignedDuration::from_hours(hours);
    }
}

async fn said(client: &reqwest::Client, url: &reqwest::Url) -> Result<String, reqwest::Error> {
    client.get(url.join("api/v1/who").unwrap()).send().await?.text().await
}

#[test]
fn contents_come_whole_over_http_1_and_2() {
    let site = site();
    let contents = [
        b"x".to_vec(),
        noise(3000, 1),
        prose(60_000, 2),
        prose(900_000, 3),
        // Raw, and larger than what is sent at a time: over plain HTTP it would come from its file.
        noise(9_000_000, 4),
        Vec::new(),
    ];
    for bytes in &contents {
        let path = format!("/content/{}", site.point.add(bytes));
        for version in ["--http1.1", "--http2"] {
            // Twice: looked up, then hot.
            for _ in 0..2 {
                let answer = site.curl(&[version], &path);
                assert_eq!(answer.status, 200, "{version}");
                assert!(answer.body == *bytes, "{version} {}", bytes.len());
            }
            if bytes.len() > 100 {
                let (from, to) = (bytes.len() / 3, bytes.len() / 3 * 2);
                let answer = site.curl(&[version, "-r", &format!("{from}-{to}")], &path);
                assert_eq!(answer.status, 206);
                assert!(answer.body == bytes[from..=to]);
                let answer = site.curl(&[version, "-r", "0-9,50-59"], &path);
                assert_eq!(answer.status, 206);
                assert!(answer.body.windows(10).any(|part| part == &bytes[50..60]));
            }
        }
        let plain = curl(&[&site.point.url(&path)]);
        assert!(plain.body == *bytes, "plain {}", bytes.len());
    }
    let answer = site.curl(&["--http2", "-w", "%{stderr}%{http_version}"], "/healthz");
    assert_eq!(answer.text(), "ok\n");
}

#[test]
fn older_tls_works_and_oldest_does_not() {
    let site = site();
    let path = format!("/content/{}", site.point.add(&noise(2_000_000, 1)));
    assert_eq!(site.curl(&["--tls-max", "1.2"], &path).body.len(), 2_000_000);
    assert_eq!(site.curl(&["--tlsv1.3"], &path).body.len(), 2_000_000);
    let mut stream = TcpStream::connect(site.point.address).unwrap();
    // The head of a ClientHello of SSL 3 that never goes on.
    stream.write_all(b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x00").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
}

#[test]
fn packages_and_chunks_come_over_tls() {
    let site = site();
    let package = site.point.package("docs");
    let bytes = noise(3_000_000, 1);
    common::write(&site.point.source("docs").join("a/file"), &bytes);
    site.point.update(&package);
    assert!(site.curl(&[], "/packages/docs/latest/a/file").body == bytes);
    let recipe = site.curl(&[], &format!("/recipes/{}", contentlib::Digest::of(&bytes)));
    let recipe = contentlib::Recipe::decode(&recipe.body).unwrap();
    let ids: Vec<u8> = recipe.chunks().iter().flat_map(|c| *c.0.as_bytes()).collect();
    let body = site.file("ids");
    fs::write(&body, ids).unwrap();
    for version in ["--http1.1", "--http2"] {
        let kind = format!("content-type: {}", dp::IDS_TYPE);
        let file = format!("@{body}");
        let frames = site.curl(&[version, "-H", &kind, "--data-binary", &file], "/chunks");
        assert!(frames.body.len() > bytes.len(), "{version}");
    }
}

#[test]
fn many_requests_share_a_connection() {
    let site = site();
    let path = format!("/content/{}", site.point.add(&noise(100_000, 1)));
    let url = site.url(&path);
    for version in ["--http1.1", "--http2"] {
        let more: Vec<&str> = (0..5).flat_map(|_| [url.as_str(), "-o", "/dev/null"]).collect();
        assert_eq!(site.curl(&[&[version][..], &more].concat(), &path).status, 200);
    }
    let metrics = curl(&[&site.point.url("/metrics")]);
    assert!(metrics.text().contains("depot_connections_tls_total 2\n"), "{}", metrics.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_sees_whom_the_certificate_names() {
    let site = site();
    assert_eq!(curl(&[&site.point.url("/api/v1/who")]).text(), "None None");
    assert_eq!(site.curl(&[], "/api/v1/who").text(), "Some(OverTls) None");
    let seen = site.says(&site.identity(0xab)).await.unwrap();
    let id = PointId::from_random(0xab);
    assert_eq!(seen, format!("Some(OverTls) Some(Point({id:?}))"));
    let own = site.authority.site_identity((site.clock)()).unwrap();
    assert_eq!(site.says(&own).await.unwrap(), "Some(OverTls) Some(Site)");
}

#[test]
fn curl_shows_a_certificate_too() {
    let site = site();
    let keys = site.keys.path().join("point");
    site.identity(5).store(&keys).unwrap();
    let pem = keys.join("identity.pem");
    for version in [&["--http1.1"][..], &["--http2"], &["--tls-max", "1.2"]] {
        let cert = ["--cert", pem.to_str().unwrap(), "--key", pem.to_str().unwrap()];
        let seen = site.curl(&[version, &cert].concat(), "/api/v1/who");
        assert!(seen.text().contains("Some(Point("), "{}", seen.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_gets_no_more_content_over_a_certificate_also_in_the_middle() {
    let is_removed = Arc::new(AtomicBool::new(false));
    let refuses: Refuses = {
        let (is_removed, removed) = (is_removed.clone(), Peer::Point(PointId::from_random(1)));
        Arc::new(move |peer| is_removed.load(SeqCst) && *peer == removed)
    };
    let site = site_with(ServeOptions { refuses: Some(refuses), ..Default::default() });
    // More than any window or buffer takes.
    let path = format!("/content/{}", site.point.add(&noise(64 << 20, 1)));
    let point = |bits| {
        let config = client_config(&site.identity(bits), &site.clock).unwrap();
        let (builder, url) = client(&config, &Peer::Site, &site.address()).unwrap();
        (builder.build().unwrap(), url.join(&path).unwrap())
    };
    let ((removed, url), (other, _)) = (point(1), point(2));
    let mut begun = removed.get(url.clone()).send().await.unwrap();
    assert!(begun.chunk().await.unwrap().is_some());
    let others = other.get(url.clone()).send().await.unwrap();

    is_removed.store(true, SeqCst);
    let rest = begun.bytes().await;
    assert!(rest.is_err(), "it came to its end");
    let refused = removed.get(url.clone()).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("urn:depot:problem:not-a-point"));
    assert_eq!(others.bytes().await.unwrap().len(), 64 << 20);
    assert_eq!(site.curl(&["-r", "0-9"], &path).status, 206, "without a certificate");
    let who = removed.get(url.join("/api/v1/who").unwrap()).send().await.unwrap();
    assert_eq!(who.status(), 200, "the API sees to itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let (site, other) = (site(), site());
    let theirs = other.identity(1);
    // It does not believe us, so it would not even try.
    let error = site.says(&theirs).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::OtherAuthority));
    // One that does believe us shows its own certificate, and is refused by us.
    theirs.store(other.keys.path()).unwrap();
    let pem: PathBuf = other.keys.path().join("identity.pem");
    let resolve = format!("site.depot:{}:127.0.0.1", site.point.address.port());
    for most in ["1.2", "1.3"] {
        let run = std::process::Command::new("curl")
            .args(["-sS", "--resolve", &resolve, "--cacert", &site.file("authority.pem")])
            .args(["--tls-max", most, "--cert", pem.to_str().unwrap()])
            .args(["--key", pem.to_str().unwrap(), &site.url("/api/v1/who")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.stdout.is_empty() && said.contains("alert"), "{most}: {said}");
    }
    assert_eq!(site.curl(&[], "/healthz").status, 200);
    let metrics = curl(&[&site.point.url("/metrics")]);
    assert!(metrics.text().contains("depot_connections_tls_failed_total 3\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_is_refused() {
    let site = site();
    let early = site.identity(1);
    site.advance(60 * 24);
    let late = site.identity(2);
    site.tls.replace(&site.authority.site_identity((site.clock)()).unwrap()).unwrap();
    site.advance(29 * 24 + 20);
    assert!(site.says(&early).await.is_ok());
    // A connection that was open when its certificate ended is nobody's from then on.
    let config = client_config(&early, &site.clock).unwrap();
    let (builder, url) = client(&config, &Peer::Site, &site.address()).unwrap();
    let open = builder.build().unwrap();
    // So is a session that is resumed on another connection.
    let (builder, _) = client(&config, &Peer::Site, &site.address()).unwrap();
    let resumes = builder.pool_max_idle_per_host(0).http1_only().build().unwrap();
    for client in [&open, &resumes] {
        assert!(said(client, &url).await.unwrap().contains("Point"));
    }
    site.advance(5);
    for client in [&open, &resumes] {
        assert_eq!(said(client, &url).await.unwrap(), "Some(OverTls) None");
    }
    site.says(&early).await.unwrap_err();
    let error = connect_as(&site, &early).read(&mut [0]).unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::Refused));
    assert!(site.says(&late).await.is_ok());
    // Nor does a client believe a site whose certificate has ended.
    site.advance(60 * 24);
    let error = site.says(&late).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::Dates));
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_believes_the_fingerprint_alone() {
    let (site, other) = (site(), site());
    let join = async |fingerprint, address: &str| {
        let config = joining_config(fingerprint, &site.clock).unwrap();
        let (builder, url) = client(&config, &Peer::Site, address).unwrap();
        said(&builder.build().unwrap(), &url).await
    };
    let right = site.authority.fingerprint();
    assert_eq!(join(right, &site.address()).await.unwrap(), "Some(OverTls) None");
    let error = join(right, &other.address()).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::OtherSite));
    // A point of the same authority is not the site.
    site.tls.replace(&site.identity(1)).unwrap();
    let error = join(right, &site.address()).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::OtherPeer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_serving() {
    let site = site();
    let bytes = noise(24 << 20, 1);
    let path = format!("content/{}", site.point.add(&bytes));
    let config = client_config(&site.identity(1), &site.clock).unwrap();
    let (builder, url) = client(&config, &Peer::Site, &site.address()).unwrap();
    let http = builder.build().unwrap();
    let mut running = http.get(url.join(&path).unwrap()).send().await.unwrap();
    let mut got = running.chunk().await.unwrap().unwrap().to_vec();
    let shown = || {
        let mut stream = connect(&site);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let before = shown();
    site.tls.replace(&site.authority.site_identity((site.clock)()).unwrap()).unwrap();
    assert_ne!(shown(), before);
    assert!(site.says(&site.identity(2)).await.is_ok());
    while let Some(more) = running.chunk().await.unwrap() {
        got.extend_from_slice(&more);
    }
    assert!(got == bytes, "what was running goes on");
}

/// Puts a new certificate of its own making for `name` into `folder`.
fn own_certificate(folder: &std::path::Path, name: &str) -> OwnFiles {
    let files = OwnFiles { certificate: folder.join("own.pem"), key: folder.join("own.key") };
    let made = rcgen::generate_simple_self_signed(vec![name.into()]).unwrap();
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shown_the_own_certificate_and_peers_that_of_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let files = own_certificate(folder.path(), "content.example");
    let site = site_that_shows(Some(files.clone()), ServeOptions::default());
    let port = site.point.address.port();
    let own = |name: &str| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let believed = files.certificate.to_str().unwrap();
        let url = format!("https://{name}:{port}/healthz");
        curl(&["--resolve", &resolve, "--cacert", believed, &url])
    };
    assert_eq!(own("content.example").status, 200);
    assert_eq!(site.curl(&[], "/healthz").status, 200, "the site's name, by its authority");
    assert!(site.says(&site.identity(1)).await.unwrap().contains("Point"));
    assert!(!site.tls.refresh().unwrap(), "nothing changed");

    // A key that is not the certificate's, as between the two writes of a renewal.
    let other = tempfile::tempdir().unwrap();
    let renewed = own_certificate(other.path(), "content2.example");
    fs::copy(&renewed.certificate, &files.certificate).unwrap();
    let said = site.tls.refresh().unwrap_err().to_string();
    assert!(said.contains("own.pem"), "{said}");
    fs::copy(&renewed.key, &files.key).unwrap();
    assert!(site.tls.refresh().unwrap());
    assert_eq!(own("content2.example").status, 200);
    fs::remove_file(&files.key).unwrap();
    let said = site.tls.refresh().unwrap_err().to_string();
    assert!(said.contains("own.key"), "{said}");
    assert_eq!(own("content2.example").status, 200, "the one before is shown still");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_fetches_believes_those_it_was_told_of_by_any_address() {
    let folder = tempfile::tempdir().unwrap();
    let own = own_certificate(folder.path(), "127.0.0.1");
    let (site, other) = (site(), site());
    let shows_own = site_that_shows(Some(own.clone()), ServeOptions::default());
    let fetch = async |believed: &str, from: &Site| {
        let config = fetching_config(believed, &from.clock).unwrap();
        let builder = reqwest::Client::builder().use_preconfigured_tls((*config).clone());
        let url = reqwest::Url::parse(&from.address()).unwrap();
        said(&builder.build().unwrap(), &url).await
    };
    let authority = fs::read_to_string(site.file("authority.pem")).unwrap();
    assert_eq!(fetch(&authority, &site).await.unwrap(), "Some(OverTls) None");
    let error = fetch(&authority, &other).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::OtherAuthority));
    // A point of the site, too.
    site.tls.replace(&site.identity(1)).unwrap();
    assert!(fetch(&authority, &site).await.is_ok());
    site.advance(91 * 24);
    let error = fetch(&authority, &site).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::Dates));
    // By the name in the URL, as anywhere.
    let own = fs::read_to_string(&own.certificate).unwrap();
    assert!(fetch(&own, &shows_own).await.is_ok());
    assert!(fetch(&format!("{authority}{own}"), &shows_own).await.is_ok());
    assert!(fetch(&authority, &shows_own).await.is_err());
    for nothing in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(fetching_config(nothing, &site.clock).is_err(), "{nothing:?}");
    }
}

#[test]
fn one_without_tls_is_told_to_use_it_where_that_is_wanted() {
    let options = ServeOptions { plain_http: PlainHttp::None, ..Default::default() };
    let site = site_with(options);
    let path = format!("/content/{}", site.point.add(b"x"));
    let refused = curl(&[&site.point.url(&path)]);
    assert_eq!(refused.status, 426);
    assert!(String::from_utf8_lossy(&refused.body).contains("https://"));
    assert_eq!(curl(&[&site.point.url("/healthz")]).status, 200);
    // Twice: looked up, then hot.
    for _ in 0..2 {
        assert_eq!(site.curl(&[], &path).body, b"x");
    }
    assert_eq!(curl(&[&site.point.url(&path)]).status, 426, "hot or not");
    let local = ServeOptions { plain_http: PlainHttp::Local, ..Default::default() };
    let site = site_with(local);
    let path = format!("/content/{}", site.point.add(b"x"));
    assert_eq!(curl(&[&site.point.url(&path)]).status, 200);
}

fn short() -> ServeOptions {
    ServeOptions {
        header_time: Duration::from_secs(1),
        idle_time: Duration::from_secs(2),
        progress_time: Duration::from_secs(1),
        ..Default::default()
    }
}

/// Waits until the server closes, and says how long that took.
fn until_closed(stream: &mut impl Read) -> Duration {
    let began = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    began.elapsed()
}

/// The first bytes that a true client sends.
fn client_hello() -> Vec<u8> {
    let site = site();
    let mut client = blocking_session(&site, &site.identity(9));
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn blocking_session(site: &Site, identity: &Identity) -> rustls::ClientConnection {
    let config = client_config(identity, &site.clock).unwrap();
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"http/1.1".into()];
    rustls::ClientConnection::new(Arc::new(config), "site.depot".try_into().unwrap()).unwrap()
}

type Stream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// A connection with TLS, of which each byte can be held back.
fn connect(site: &Site) -> Stream {
    connect_as(site, &site.identity(9))
}

fn connect_as(site: &Site, identity: &Identity) -> Stream {
    let stream = TcpStream::connect(site.point.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    rustls::StreamOwned::new(blocking_session(site, identity), stream)
}

#[test]
fn a_handshake_that_does_not_go_on_ends_the_connection() {
    let site = site_with(short());
    let hello = client_hello();
    for bytes in [&hello[..1], &hello[..3], &hello[..hello.len() / 2], &hello[..]] {
        let mut stream = TcpStream::connect(site.point.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let took = until_closed(&mut stream);
        assert!(took > Duration::from_millis(700) && took < Duration::from_secs(4), "{took:?}");
    }
    // Nor does it help to trickle it.
    let mut stream = TcpStream::connect(site.point.address).unwrap();
    let began = Instant::now();
    for byte in hello.iter().cycle() {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(30));
    }
    // The handshake's time is part of the head's.
    let mut stream = connect(&site);
    let began = Instant::now();
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream.write_all(b"GET /healthz HT").unwrap();
    until_closed(&mut stream);
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(site.curl(&[], "/healthz").status, 200);
    let metrics = curl(&[&site.point.url("/metrics")]);
    assert!(metrics.text().contains("timed_out_total{limit=\"head\"} 6"), "{}", metrics.text());
}

#[test]
fn garbage_in_place_of_a_handshake_ends_the_connection_at_once() {
    let site = site();
    let mut hello = client_hello();
    let middle = hello.len() / 2;
    hello[5..middle].fill(0xff);
    for bytes in [&b"\x16GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 4000], &noise(5000, 1), &hello] {
        let mut bytes = bytes.to_vec();
        bytes[0] = 0x16;
        let mut stream = TcpStream::connect(site.point.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let took = until_closed(&mut stream);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(site.curl(&[], "/healthz").status, 200);
    assert_eq!(curl(&[&site.point.url("/healthz")]).status, 200);
}

#[test]
fn an_idle_connection_is_kept_and_then_closed() {
    let site = site_with(short());
    let mut stream = connect(&site);
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        std::thread::sleep(Duration::from_millis(1200));
        let mut waiting = [0; 4096];
        assert!(stream.read(&mut waiting).unwrap() > 0, "the rest of the answer");
    }
    let took = until_closed(&mut stream);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_reader_that_stops_is_cut_and_a_slow_one_is_not() {
    let site = site_with(short());
    let bytes = noise(32 << 20, 1);
    let digest = site.point.add(&bytes);
    let request = format!("GET /content/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut stopped = connect(&site);
    stopped.write_all(request.as_bytes()).unwrap();
    let mut slow = connect(&site);
    slow.write_all(request.as_bytes()).unwrap();
    let mut came = Vec::new();
    let mut buffer = vec![0; 2 << 20];
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let n = slow.read(&mut buffer).unwrap();
        came.extend_from_slice(&buffer[..n]);
        std::thread::sleep(Duration::from_millis(50));
    }
    slow.read_to_end(&mut came).unwrap();
    assert!(came.ends_with(&bytes), "the slow one got everything");
    let mut got = Vec::new();
    let ended = stopped.read_to_end(&mut got);
    assert!(ended.is_err() && got.len() < bytes.len(), "the stopped one was cut");
}

#[test]
fn a_client_that_ended_its_side_still_gets_its_answer() {
    let site = site();
    let bytes = noise(1 << 20, 1);
    let mut stream = connect(&site);
    write!(stream, "GET /content/{} HTTP/1.1\r\nHost: x\r\n\r\n", site.point.add(&bytes)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&bytes));
}

#[test]
fn connections_over_the_limit_are_ended_in_the_way_of_tls() {
    let site = site_with(ServeOptions { max_connections: 1, ..Default::default() });
    let mut held = connect(&site);
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(held.read(&mut [0; 4096]).unwrap() > 0);
    let error = connect(&site).flush().unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
    assert_eq!(curl(&[&site.point.url("/healthz")]).status, 503);
    drop(held);
    let until = Instant::now() + Duration::from_secs(5);
    while curl(&[&site.point.url("/healthz")]).status != 200 {
        assert!(Instant::now() < until);
    }
    assert_eq!(site.curl(&[], "/healthz").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_answers_end_before_the_server_does() {
    let mut site = site();
    let bytes = noise(32 << 20, 1);
    let path = format!("content/{}", site.point.add(&bytes));
    let config = client_config(&site.identity(1), &site.clock).unwrap();
    let (builder, url) = client(&config, &Peer::Site, &site.address()).unwrap();
    let http = builder.build().unwrap();
    let mut running = http.get(url.join(&path).unwrap()).send().await.unwrap();
    let mut got = running.chunk().await.unwrap().unwrap().to_vec();
    // One that is in the middle of its handshake is not waited for.
    let mut half = TcpStream::connect(site.point.address).unwrap();
    half.write_all(&[0x16, 3, 1]).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.point.tell_to_stop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    while let Some(more) = running.chunk().await.unwrap() {
        got.extend_from_slice(&more);
    }
    assert!(got == bytes);
    tokio::task::spawn_blocking(move || site.point.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_certificates_takes_tls_for_bad_http() {
    let point = point_with(ServeOptions::default());
    let mut stream = TcpStream::connect(point.address).unwrap();
    stream.write_all(&client_hello()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 400");
    let site = site();
    let config = client_config(&site.identity(1), &site.clock).unwrap();
    let address = format!("https://{}", point.address);
    let (builder, url) = client(&config, &Peer::Site, &address).unwrap();
    let error = said(&builder.build().unwrap(), &url).await.unwrap_err();
    assert_eq!(Distrust::of(&error), Some(Distrust::NoTls));
}
