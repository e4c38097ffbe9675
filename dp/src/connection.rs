//! One client connection: hyper's state machine, driven under our limits.
//!
//! HTTP/1.1, HTTP/2 with prior knowledge (RFC 9113, section 3.3) and both over TLS share a port; the
//! first bytes tell which it is. The task that drives a connection can be told from outside to finish its
//! requests or to stop, at no cost for requests.

use crate::deadline::{Activity, Late};
use crate::identity::{Peer, Vouched};
use crate::secure::{HANDSHAKE, Secure};
use crate::service::Service;
use crate::transport::{Places, Transport, linger};
use crate::worker::Worker;
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// What a client sends first to speak HTTP/2 without asking.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const STOP: u8 = 2;

/// What a connection's task, its transport, its requests and its worker's watch share.
pub(crate) struct Connection {
    pub worker: Arc<Worker>,
    pub peer: SocketAddr,
    pub activity: Activity,
    pub places: Places,
    /// Bytes written since the task was last polled.
    pub turn: Counter,
    is_http1: AtomicU8,
    /// Set before the first request of a connection that uses TLS, to whom its certificate names.
    tls: OnceLock<Option<Vouched>>,
    command: AtomicU8,
    task: AtomicWaker,
    /// The stream, once all is written.
    left: Mutex<Option<TcpStream>>,
}

/// A number with one writer.
#[derive(Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
    pub fn add(&self, n: usize) {
        self.0.store(self.get() + n, Relaxed);
    }
    fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

impl Connection {
    pub fn new(worker: Arc<Worker>, peer: SocketAddr) -> Self {
        let now = worker.now();
        Self {
            worker,
            peer,
            activity: Activity::new(now),
            places: Places::default(),
            turn: Counter::default(),
            is_http1: AtomicU8::new(0),
            tls: OnceLock::new(),
            command: AtomicU8::new(RUN),
            task: AtomicWaker::new(),
            left: Mutex::default(),
        }
    }

    /// Leaves the stream to be closed when the peer has ended.
    pub fn leave(&self, stream: TcpStream) {
        *self.left.lock() = Some(stream);
    }

    pub fn read(&self) {
        self.activity.read(self.worker.now(), self.is_http1());
    }

    pub fn wrote(&self) {
        self.activity.wrote(self.worker.now());
    }

    fn is_http1(&self) -> bool {
        self.is_http1.load(Relaxed) == 1
    }

    /// Whether what bodies give is written in that order, and is not read in between: then the kernel
    /// may send it from files.
    pub fn sends_files(&self) -> bool {
        self.is_http1() && !self.is_secure()
    }

    /// Whether it uses TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.get().is_some()
    }

    /// Whether the peer must come by TLS, and has not.
    pub fn lacks_tls(&self) -> bool {
        !self.worker.shared.plain_http.allows(self.peer) && !self.is_secure()
    }

    /// Who the peer is, as its certificate says now.
    pub fn identity(&self) -> Option<&Peer> {
        let vouched = self.tls.get()?.as_ref()?;
        self.worker.shared.tls.as_ref()?.holds(vouched)
    }

    /// Lets running requests finish, and takes no new ones.
    pub fn drain(&self) {
        self.tell(DRAIN);
    }

    /// Ends the connection where it is.
    pub fn stop(&self) {
        self.tell(STOP);
    }

    fn tell(&self, command: u8) {
        self.command.fetch_max(command, Relaxed);
        self.task.wake();
    }

    /// Which limit the peer has passed.
    pub fn late(&self) -> Option<Late> {
        self.activity.late(self.worker.now(), &self.worker.limits)
    }
}

/// Serves one connection until its end.
pub(crate) async fn run(stream: TcpStream, connection: Arc<Connection>) {
    let first = async {
        let future = pin!(first_bytes(&stream));
        Commanded { connection: &connection, until: DRAIN, future }.await
    };
    let Some(Ok((prefix, is_http2))) = first.await else { return };
    match &connection.worker.shared.tls {
        Some(tls) if prefix.first() == Some(&HANDSHAKE) => {
            // In a box: most connections are plain, and their tasks need not be as large as this.
            let config = tls.config();
            Box::pin(run_secure(stream, prefix, config, &connection)).await;
        }
        _ => {
            let transport = Transport::new(stream, prefix, connection.clone());
            serve(transport, is_http2, &connection).await;
        }
    }
    let left = connection.left.lock().take();
    if let Some(stream) = left {
        let future = pin!(linger(stream));
        Commanded { connection: &connection, until: STOP, future }.await;
    }
}

/// Shakes hands, then serves as any connection.
async fn run_secure(
    stream: TcpStream,
    prefix: Bytes,
    config: Arc<ServerConfig>,
    connection: &Arc<Connection>,
) {
    let accepted = {
        let future = pin!(Secure::accept(stream, prefix, config, connection.clone()));
        Commanded { connection, until: DRAIN, future }.await
    };
    let transport = match accepted {
        Some(Ok(transport)) => transport,
        Some(Err(error)) => {
            connection.worker.counters.tls_failed.add(1);
            return tracing::debug!(peer = %connection.peer, %error, "no TLS with this client");
        }
        None => return,
    };
    let session = transport.session();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    // The handshake refuses certificates that name nobody.
    let vouched = leaf.and_then(|leaf| Vouched::read(leaf).ok());
    let _ = connection.tls.set(vouched);
    connection.worker.counters.tls.add(1);
    serve(transport, is_http2, connection).await;
}

/// Serves the requests that come over a transport.
async fn serve<T: Read + Write + Unpin>(
    transport: T,
    is_http2: bool,
    connection: &Arc<Connection>,
) {
    connection.is_http1.store(u8::from(!is_http2), Relaxed);
    connection.read();
    let service = Service { connection: connection.clone() };
    let ended = if is_http2 {
        let running = http2_builder(connection).serve_connection(transport, service);
        drive(connection, running, http2::Connection::graceful_shutdown).await
    } else {
        let running = http1_builder(connection).serve_connection(transport, service);
        drive(connection, running, http1::Connection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %connection.peer, %error, "connection ended early");
    }
}

fn http1_builder(connection: &Connection) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // `deadline` does this without a timer for each request.
        .header_read_timeout(None)
        .max_header_size(connection.worker.header_bytes)
        // A client that has sent all it wants to may close its side and still get its answer.
        .half_close(true);
    builder
}

fn http2_builder(connection: &Connection) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        // No keep-alive: its pings would count as bytes taken and given, and an idle connection
        // whose client answers them would never end. `deadline` and the kernel find a peer that is gone.
        .max_concurrent_streams(128)
        .max_header_list_size(connection.worker.header_bytes as u32)
        .max_frame_size(256 << 10)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .max_send_buf_size(512 << 10);
    builder
}

/// Polls a connection, and does to it what its [`Connection`] was told.
async fn drive<F>(
    connection: &Connection,
    running: F,
    finish: impl Fn(Pin<&mut F>),
) -> hyper::Result<()>
where
    F: Future<Output = hyper::Result<()>>,
{
    let mut running = pin!(running);
    let mut draining = false;
    let driven = std::future::poll_fn(|cx| {
        connection.turn.clear();
        if !draining && connection.command.load(Relaxed) == DRAIN {
            draining = true;
            finish(running.as_mut());
        }
        running.as_mut().poll(cx)
    });
    Commanded { connection, until: STOP, future: driven }.await.unwrap_or(Ok(()))
}

/// A future that ends with `None` once its connection is told `until`, or more.
struct Commanded<'a, F> {
    connection: &'a Connection,
    until: u8,
    future: F,
}

impl<F: Future + Unpin> Future for Commanded<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cheap when the waker is the one already there, as a task's own always is.
        self.connection.task.register(cx.waker());
        if self.connection.command.load(Relaxed) >= self.until {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.future).poll(cx).map(Some)
    }
}

/// Reads until it is clear whether the client speaks HTTP/2. TLS is no HTTP/2 at its first byte.
async fn first_bytes(stream: &TcpStream) -> io::Result<(Bytes, bool)> {
    let mut buffer = [0; 1024];
    let mut n = 0;
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer[n..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        let seen = n.min(PREFACE.len());
        let is_http2 = buffer[..seen] == PREFACE[..seen];
        if !is_http2 || seen == PREFACE.len() {
            return Ok((Bytes::copy_from_slice(&buffer[..n]), is_http2));
        }
    }
}
