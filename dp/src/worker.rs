//! One worker: a thread with its own runtime, listener, cache and counters.
//!
//! A connection stays on the worker that accepted it, so nothing on the way of a request is
//! shared with another core. The kernel spreads connections over the workers' listeners
//! (`SO_REUSEPORT`).

use crate::coming::Comes;
use crate::connection::{self, Connection};
use crate::deadline::{self, Limits, TICK};
use crate::deltas::Deltas;
use crate::fallback::Fallback;
use crate::held::Hot;
use crate::identity::ServerTls;
use crate::metrics::Counters;
use crate::on_demand::{Demand, Demands};
use crate::problem::Problem;
use crate::secure::HANDSHAKE;
use crate::server::{Content, IsReady, PlainHttp, Refuses, ServeOptions};
use contentlib::LibraryStats;
use parking_lot::Mutex;
use rustix::net::sockopt::set_tcp_user_timeout;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// What all workers of a server share.
pub(crate) struct Shared {
    /// Nothing if all goes to the fallback.
    pub content: Option<Arc<Content>>,
    /// Nothing if none are made.
    pub deltas: Option<Arc<Deltas>>,
    pub fallback: Option<Arc<dyn Fallback>>,
    pub comes: Option<Comes>,
    /// Nothing if files on demand are brought by nobody.
    demands: Option<Arc<Demands>>,
    pub tls: Option<Arc<ServerTls>>,
    pub plain_http: PlainHttp,
    pub refuses: Option<Refuses>,
    pub is_ready: Option<IsReady>,
    /// Where the fallback runs.
    pub runtime: tokio::runtime::Handle,
    pub access_log: bool,
    pub draining: AtomicBool,
    /// Weak, so that the content is let go of with the server.
    pub workers: OnceLock<Vec<Weak<Worker>>>,
    n_connections: AtomicUsize,
    max_connections: usize,
    stats: Mutex<Option<(Instant, LibraryStats)>>,
}

/// How old the library's figures may be: counting them walks its index.
const STATS_AGE: Duration = Duration::from_secs(60);

impl Shared {
    pub fn new(content: Option<Arc<Content>>, options: &ServeOptions) -> Self {
        Self {
            deltas: content.as_ref().and_then(|content| open_deltas(content, options)),
            content,
            fallback: options.api.clone(),
            comes: options.comes.clone(),
            demands: options.bring.clone().map(|bring| Arc::new(Demands::new(bring))),
            tls: options.tls.clone(),
            plain_http: options.plain_http,
            refuses: options.refuses.clone(),
            is_ready: options.is_ready.clone(),
            runtime: tokio::runtime::Handle::current(),
            access_log: options.access_log,
            draining: AtomicBool::new(false),
            workers: OnceLock::new(),
            n_connections: AtomicUsize::new(0),
            max_connections: options.max_connections,
            stats: Mutex::new(None),
        }
    }

    /// Waits until a file on demand is there.
    pub async fn bring(&self, demand: Demand) -> Result<(), Problem> {
        let Some(demands) = &self.demands else {
            return Err(Problem::unavailable("this server brings no files on demand"));
        };
        Ok(demands.wait(demand, &self.runtime).await?)
    }

    /// The library's figures, up to [`STATS_AGE`] old. Blocks.
    pub fn library_stats(&self) -> Option<LibraryStats> {
        let content = self.content.as_ref()?;
        let mut stats = self.stats.lock();
        if stats.as_ref().is_none_or(|(at, _)| at.elapsed() > STATS_AGE) {
            match content.library.stats() {
                Ok(counted) => *stats = Some((Instant::now(), counted)),
                Err(error) => tracing::warn!(%error, "the library's figures cannot be counted"),
            }
        }
        stats.as_ref().map(|(_, counted)| counted.clone())
    }
}

/// Makes deltas, if they are wanted. Without a place for them content is served all the same.
fn open_deltas(content: &Content, options: &ServeOptions) -> Option<Arc<Deltas>> {
    let wanted = options.deltas.as_ref()?;
    match Deltas::open(content.library.clone(), wanted) {
        Ok(deltas) => Some(Arc::new(deltas)),
        Err(error) => {
            let folder = wanted.folder.display();
            tracing::warn!(%folder, %error, "no deltas are made: their folder cannot be used");
            None
        }
    }
}

/// The state of one worker.
pub(crate) struct Worker {
    pub shared: Arc<Shared>,
    pub limits: Limits,
    pub header_bytes: usize,
    pub progress_time: Duration,
    pub counters: Counters,
    pub hot: Hot,
    clock: AtomicU32,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// One more for each connection that is being told that there are too many.
    refusing: Arc<()>,
}

/// Connections told at a time that there are too many; those past it are just closed.
const MAX_REFUSING: usize = 256;

impl Worker {
    pub fn new(shared: Arc<Shared>, options: &ServeOptions, n_workers: usize) -> Self {
        let limits = Limits {
            head: deadline::ticks(options.header_time),
            idle: deadline::ticks(options.idle_time),
            progress: deadline::ticks(options.progress_time),
        };
        Self {
            shared,
            limits,
            header_bytes: options.header_bytes,
            progress_time: options.progress_time,
            counters: Counters::default(),
            hot: Hot::new(options.hot_bytes / n_workers as u64),
            clock: AtomicU32::new(0),
            connections: Mutex::default(),
            refusing: Arc::new(()),
        }
    }

    /// The time in ticks.
    pub fn now(&self) -> u32 {
        self.clock.load(Relaxed)
    }

    /// Accepts and serves until `stop`, then drains for at most `drain_time`.
    pub async fn run(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        stop: CancellationToken,
        drain_time: Duration,
    ) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a worker cannot listen"),
        };
        let watch = tokio::spawn(self.clone().watch());
        let mut next_id = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, &mut next_id),
                // Out of file descriptors, or a client that was gone again: the first must not spin.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(listener);
        self.drain(drain_time).await;
        watch.abort();
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, next_id: &mut u64) {
        let shared = &self.shared;
        if shared.n_connections.fetch_add(1, Relaxed) >= shared.max_connections {
            shared.n_connections.fetch_sub(1, Relaxed);
            self.counters.refused.add(1);
            if Arc::strong_count(&self.refusing) <= MAX_REFUSING {
                let refusing = self.refusing.clone();
                let may_be_tls = shared.tls.is_some();
                tokio::spawn(async move {
                    refuse(stream, may_be_tls).await;
                    drop(refusing);
                });
            }
            return;
        }
        self.counters.accepted.add(1);
        self.counters.connections.add(1);
        // An answer goes out when it is written; hyper writes as much as there is.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let patience = u32::try_from(self.progress_time.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = set_tcp_user_timeout(&stream, patience) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
        let id = *next_id;
        *next_id += 1;
        let connection = Arc::new(Connection::new(self.clone(), peer));
        self.connections.lock().insert(id, connection.clone());
        let open = Open { worker: self.clone(), id };
        tokio::spawn(async move {
            connection::run(stream, connection).await;
            drop(open);
        });
    }

    /// Ticks: moves the clock, ends late connections, lets go of outdated content.
    async fn watch(self: Arc<Self>) {
        let began = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = began.elapsed().as_millis() / TICK.as_millis();
            self.clock.store(now as u32, Relaxed);
            if let Some(content) = &self.shared.content {
                self.hot.refresh(content.library.generation());
            }
            for connection in self.connections.lock().values() {
                if let Some(late) = connection.late() {
                    self.counters.late(late);
                    tracing::debug!(peer = %connection.peer, ?late, "connection ended: too slow");
                    connection.stop();
                }
            }
        }
    }

    async fn drain(&self, drain_time: Duration) {
        let until = Instant::now() + drain_time;
        for connection in self.connections.lock().values() {
            connection.drain();
        }
        while !self.connections.lock().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for connection in self.connections.lock().values() {
            connection.stop();
        }
        // Stopped tasks end when they are next polled.
        for _ in 0..50 {
            if self.connections.lock().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A place among the connections; free again when dropped, however its task ends.
struct Open {
    worker: Arc<Worker>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.connections.lock().remove(&self.id);
        self.worker.counters.connections.sub(1);
        self.worker.shared.n_connections.fetch_sub(1, Relaxed);
    }
}

/// Tells a client over the limit to come back, without reading what it wants.
async fn refuse(mut stream: TcpStream, may_be_tls: bool) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
        retry-after: 5\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: 134\r\n\r\n\
        {\"type\":\"urn:depot:problem:unavailable\",\"title\":\"This is not available now\",\"status\":503,\"detail\":\"too many connections; retry later\"}";
    // A fatal alert of TLS, which has none for this: internal_error (RFC 8446, section 6.2).
    const BUSY_TLS: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];
    let polite = async {
        let mut first = [0];
        let is_tls = may_be_tls && stream.peek(&mut first).await? > 0 && first == [HANDSHAKE];
        stream.write_all(if is_tls { BUSY_TLS } else { BUSY }).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection under the answer.
        let mut rest = [0; 1024];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), polite).await;
}
