//! A serving site: the content plane's listener, with this interface behind it.

use crate::background;
use crate::config::Config;
use crate::problem::Problem;
use crate::routes::router;
use crate::site::{Site, blocking};
use dp::{ServeOptions, Server, from_service};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why a site could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Content or database could not be opened, or not be closed well.
    #[error(transparent)]
    Site(#[from] Problem),
    /// The server failed.
    #[error("the server failed")]
    Server(#[source] io::Error),
}

/// Serves `site` until SIGTERM or SIGINT, or until `stop` is cancelled; then lets requests under
/// way end, ends jobs, and closes the site. `started` is called once it listens, with the address.
pub async fn serve(
    site: Site,
    stop: CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let (content, opened) = {
        let site = site.clone();
        blocking(move || Ok((site.content()?, site.ledger()?))).await?
    };
    drop(opened);
    let address = site.config().listen;
    let mut options = options(site.config());
    options.api = Some(from_service(router(site.clone())));
    let listen = |source| ServeError::Listen { address, source };
    let server = Server::bind(address, options).map_err(listen)?;
    started(server.local_addr());
    let tasks = CancellationToken::new();
    background::start(&site, &tasks);
    let shutdown = async move {
        stopped(stop).await;
        tracing::info!("stopping: requests under way may end");
    };
    let content = dp::Content { library: content.library, packages: Arc::new(content.packages) };
    let served = server.serve(Arc::new(content), shutdown).await;
    tasks.cancel();
    site.close().await?;
    served.map_err(ServeError::Server)
}

/// Ends at SIGTERM, SIGINT, or when `stop` is cancelled.
async fn stopped(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let heard = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // Without a handler the signal ends the process, as it should.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = heard(SignalKind::terminate()) => {}
        () = heard(SignalKind::interrupt()) => {}
        () = stop.cancelled() => {}
    }
}

fn options(config: &Config) -> ServeOptions {
    let dp = &config.dp;
    ServeOptions {
        workers: NonZeroUsize::new(dp.threads as usize),
        header_bytes: dp.max_header.0 as usize,
        header_time: dp.header_timeout,
        idle_time: dp.idle_timeout,
        progress_time: dp.stall_timeout,
        max_connections: dp.max_connections as usize,
        drain_time: dp.shutdown_grace,
        hot_bytes: dp.cache.0,
        access_log: config.log.access,
        api: None,
    }
}
