//! The server: one port, a worker for each core, and an orderly end.

use crate::coming::Comes;
use crate::deltas::DeltaOptions;
use crate::fallback::Fallback;
use crate::identity::{Peer, ServerTls};
use crate::on_demand::Bring;
use crate::worker::{Shared, Worker};
use contentlib::Library;
use packager::Packages;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What a server serves.
pub struct Content {
    /// The bytes.
    pub library: Library,
    /// Their names.
    pub packages: Arc<Packages>,
}

/// Who may come by plain HTTP. Whether a server lives is told to everybody all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Everybody.
    #[default]
    Any,
    /// Those on this machine.
    Local,
    /// Nobody.
    None,
}

impl PlainHttp {
    /// Whether one at `peer` may.
    pub(crate) fn allows(self, peer: SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Local => peer.ip().to_canonical().is_loopback(),
            Self::None => false,
        }
    }
}

/// Says whether somebody who has a good certificate is refused all the same.
pub type Refuses = Arc<dyn Fn(&Peer) -> bool + Send + Sync>;

/// Says whether a server can serve now; if not, why.
pub type IsReady = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// How a server serves it.
#[derive(Clone)]
pub struct ServeOptions {
    /// Threads that serve; `None` for as many as there are cores for this process.
    pub workers: Option<NonZeroUsize>,
    /// The longest head of a request, in bytes; at least 8 KiB.
    pub header_bytes: usize,
    /// How long a client may take over a request's head; over the first, with the handshake of TLS.
    pub header_time: Duration,
    /// How long a connection may be idle between requests.
    pub idle_time: Duration,
    /// How long a client may go without taking or giving a byte.
    pub progress_time: Duration,
    /// Connections at a time; those over it get 503.
    pub max_connections: usize,
    /// How long running requests may go on once the server is told to stop.
    pub drain_time: Duration,
    /// Memory for small contents that are asked for again and again, in bytes.
    pub hot_bytes: u64,
    /// Whether each request is logged, as a `tracing` event of target `dp::access`.
    pub access_log: bool,
    /// What answers below `/api/`.
    pub api: Option<Arc<dyn Fallback>>,
    /// What is on its way to this server, if it brings things.
    pub comes: Option<Comes>,
    /// What brings files on demand, on the runtime that the server is started from.
    pub bring: Option<Bring>,
    /// What clients are shown that come by HTTPS, on the same port; nothing if there is no HTTPS.
    pub tls: Option<Arc<ServerTls>>,
    /// Who may come without TLS.
    pub plain_http: PlainHttp,
    /// Whose certificate counts no more: they get no content over it from then on, and nothing more of
    /// what they are getting. What answers below `/api/` sees to itself.
    pub refuses: Option<Refuses>,
    /// Whether it is ready, beyond that it was started and not told to stop.
    pub is_ready: Option<IsReady>,
    /// Where deltas between versions are kept; nothing if none are made.
    pub deltas: Option<DeltaOptions>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            workers: None,
            header_bytes: 16 << 10,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            progress_time: Duration::from_secs(30),
            max_connections: 4096,
            drain_time: Duration::from_secs(30),
            hot_bytes: 192 << 20,
            access_log: false,
            api: None,
            comes: None,
            bring: None,
            tls: None,
            plain_http: PlainHttp::Any,
            refuses: None,
            is_ready: None,
            deltas: None,
        }
    }
}

/// A server that has its port and does not serve yet.
pub struct Server {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    options: ServeOptions,
}

/// Threads of each worker that read what is not in memory. Each may hold a few megabytes.
const BLOCKING_THREADS: usize = 8;
/// How many connections the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

impl Server {
    /// Takes the port. Port 0 takes a free one; see [`Server::local_addr`].
    pub fn bind(address: SocketAddr, options: ServeOptions) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let n_workers = options.workers.unwrap_or(cores).get();
        // Sockets that share a port also share it with those of another process of this user. So
        // the first is bound alone, which fails if anyone has the port.
        let alone = bind(address, Sharing::Alone)?;
        let address = bound_address(&alone)?;
        let listeners = if n_workers == 1 {
            vec![listen(alone)?]
        } else {
            drop(alone);
            let shared = |_| listen(bind(address, Sharing::Port)?);
            (0..n_workers).map(shared).collect::<io::Result<_>>()?
        };
        raise_file_limit(options.max_connections as u64 + 1024);
        Ok(Self { listeners, address, options })
    }

    /// Another server at the same port, which takes connections beside this one until this one is told
    /// to stop: none is refused in between.
    pub fn beside(&self, options: ServeOptions) -> io::Result<Self> {
        let listeners = self.listeners.iter().map(TcpListener::try_clone);
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>()?,
            address: self.address,
            options,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready and running requests are done or out of time.
    ///
    /// The workers have their own threads. The API runs on the runtime that this is called on.
    pub async fn serve(
        self,
        content: Arc<Content>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        self.run(Some(content), shutdown).await
    }

    /// The same without content: all that is asked for goes to [`ServeOptions::api`], but whether this
    /// server lives, is ready, and what it counts.
    pub async fn serve_by_another(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.run(None, shutdown).await
    }

    async fn run(
        self,
        content: Option<Arc<Content>>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let Self { listeners, options, .. } = self;
        let n_workers = listeners.len();
        let shared = Arc::new(Shared::new(content, &options));
        let workers: Vec<_> = (0..n_workers)
            .map(|_| Arc::new(Worker::new(shared.clone(), &options, n_workers)))
            .collect();
        shared.workers.get_or_init(|| workers.iter().map(Arc::downgrade).collect());
        let stop = CancellationToken::new();
        let _stop_if_dropped = stop.clone().drop_guard();
        let mut ended = Vec::with_capacity(n_workers);
        for (at, (worker, listener)) in workers.into_iter().zip(listeners).enumerate() {
            let (stop, drain_time) = (stop.clone(), options.drain_time);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name(format!("dp-{at}"))
                .build()?;
            let (tell, told) = oneshot::channel::<()>();
            std::thread::Builder::new().name(format!("dp-{at}")).spawn(move || {
                runtime.block_on(worker.run(listener, stop, drain_time));
                // A read that hangs must not keep the server from stopping.
                runtime.shutdown_timeout(Duration::from_secs(1));
                drop(tell);
            })?;
            ended.push(told);
        }
        shutdown.await;
        shared.draining.store(true, Relaxed);
        stop.cancel();
        for worker in ended {
            // Nothing is ever sent: the other end is dropped when the worker is done.
            let _ = worker.await;
        }
        Ok(())
    }
}

enum Sharing {
    Alone,
    Port,
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let Sharing::Port = sharing {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn bound_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(rustix::net::getsockname(socket)?.try_into()?)
}

fn listen(socket: OwnedFd) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A server has a file open for each connection; the usual soft limit of 1024 is for other programs.
fn raise_file_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let Some(soft) = now.current else { return };
    let most = now.maximum.unwrap_or(u64::MAX);
    if soft < wanted.min(most) {
        let raised = Rlimit { current: Some(wanted.min(most)), maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays at {soft}");
        }
    }
}
