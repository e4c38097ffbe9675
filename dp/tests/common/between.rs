//! A server between a client and a distribution point, which looks at what goes by, and may change
//! or cut it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use bytes::Bytes;
use contentlib::{ChunkId, Digest};
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;

/// What goes back to the client.
pub enum Reply {
    Whole(Bytes),
    /// These bytes, and then the connection ends.
    Cut(Bytes),
    /// These bytes, and then none, though the connection stays.
    Stall(Bytes),
    Status(u16),
}

/// How a body ends.
enum End {
    Well,
    Cut,
    Never,
}

type Change = dyn Fn(&str, Bytes) -> Reply + Send + Sync;

pub struct Between {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    to: SocketAddr,
    delay: Duration,
    change: Box<Change>,
    /// By first part of the path.
    requests: Mutex<BTreeMap<String, usize>>,
    /// Chunks that were asked for, as often as they were.
    asked: Mutex<Vec<ChunkId>>,
    bytes: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Between {
    /// Hands on everything to `to`, each request after `delay`, and its answer as `change` makes it
    /// of the path and the body.
    pub async fn new(
        to: SocketAddr,
        delay: Duration,
        change: impl Fn(&str, Bytes) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            to,
            delay,
            change: Box::new(change),
            requests: Mutex::default(),
            asked: Mutex::default(),
            bytes: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let shared = seen.clone();
        tokio::spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, http) = (shared.clone(), http.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| {
                        let (seen, http) = (seen.clone(), http.clone());
                        async move { Ok::<_, io::Error>(seen.hand_on(&http, request).await) }
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, service).await;
                });
            }
        });
        Self { address, seen }
    }

    /// Hands on everything as it is.
    pub async fn plain(to: SocketAddr) -> Self {
        Self::new(to, Duration::ZERO, |_, body| Reply::Whole(body)).await
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Requests so far whose path begins with this part.
    pub fn requests(&self, part: &str) -> usize {
        self.seen.requests.lock().get(part).copied().unwrap_or(0)
    }

    /// All chunks that were asked for.
    pub fn asked(&self) -> Vec<ChunkId> {
        self.seen.asked.lock().clone()
    }

    /// Bytes of bodies that were handed on.
    pub fn bytes(&self) -> usize {
        self.seen.bytes.load(SeqCst)
    }

    /// The most requests for chunks that there were at one time.
    pub fn most_at_once(&self) -> usize {
        self.seen.most.load(SeqCst)
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

impl Seen {
    async fn hand_on(&self, http: &reqwest::Client, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let part = path.split('/').nth(1).unwrap_or_default().to_owned();
        *self.requests.lock().entry(part.clone()).or_default() += 1;
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if part == "chunks" {
            let ids = body.chunks_exact(32).map(|id| id.try_into().unwrap());
            self.asked.lock().extend(ids.map(|id| ChunkId(Digest::from_bytes(id))));
            let now = self.now.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(now, SeqCst);
        }
        tokio::time::sleep(self.delay).await;
        let url = format!("http://{}{path}", self.to);
        let mut headers = head.headers;
        headers.remove("host");
        let sent = http.request(head.method, url).headers(headers).body(body).send().await;
        let answer = sent.unwrap();
        let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
        let body = answer.bytes().await.unwrap();
        if part == "chunks" {
            self.now.fetch_sub(1, SeqCst);
        }
        let (status, body, end) = match (self.change)(&path, body) {
            Reply::Whole(body) => (status, body, End::Well),
            Reply::Cut(body) => (status, body, End::Cut),
            Reply::Stall(body) => (status, body, End::Never),
            Reply::Status(status) => (status.try_into().unwrap(), Bytes::new(), End::Well),
        };
        self.bytes.fetch_add(body.len(), SeqCst);
        let cut = matches!(end, End::Cut).then(|| Err(io::Error::other("cut")));
        // In pieces, so that what comes before a cut is sent.
        let pieces: Vec<_> =
            body.chunks(64 << 10).map(|b| Ok(Frame::data(Bytes::copy_from_slice(b)))).collect();
        let items = futures::stream::iter(pieces.into_iter().chain(cut));
        let items = items.then(|item| async move {
            tokio::task::yield_now().await;
            item
        });
        let items = match end {
            End::Never => items.chain(futures::stream::pending()).boxed(),
            End::Well | End::Cut => items.boxed(),
        };
        let mut response = Response::builder().status(status);
        if let Some(kind) = kind {
            response = response.header("content-type", kind);
        }
        response.body(BodyExt::boxed_unsync(StreamBody::new(items))).unwrap()
    }
}
