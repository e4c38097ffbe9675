//! A distribution point of its own, from the settings: `depot dp serve`.

use crate::config::Config;
use crate::routes::local_router;
use crate::server::{Signals, serve_options, told_to_stop};
use crate::site::Site;
use axum::http::Request;
use dp::field::JoinToken;
use dp::node::{self, Desk, NodeError, NodeOptions, Who};
use dp::{Answering, BoxBody, answer_by};
use packager::Packages;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Serves the distribution point in the data folder until SIGTERM or SIGINT, or until `stop` is
/// cancelled; requests under way then end, and a second signal cuts them off. With `token` a new
/// folder joins a site first. `started` is called once it listens.
pub async fn serve_point(
    config: &Config,
    token: Option<JoinToken>,
    stop: CancellationToken,
    started: impl FnOnce(Who),
) -> Result<(), NodeError> {
    let options = NodeOptions {
        folder: config.data.clone(),
        listen: config.listen,
        reached_at: config.dp.address.0.clone(),
        serve: serve_options(config),
        own: config.own_files(),
        library: config.library_options(),
        gc_interval: config.library.gc_interval,
        scrub_period: config.point.scrub_period,
        clock: Arc::new(jiff::Timestamp::now),
        desk: Some({
            let config = config.clone();
            Arc::new(move |packages: &Packages| PointDesk::open(&config, packages))
        }),
    };
    let signals = Signals::listen();
    let drain = CancellationToken::new();
    let stopped = told_to_stop(signals, stop, || drain.cancel());
    tokio::select! {
        served = node::run(options, token, drain.clone(), started) => served,
        () = stopped => Ok(()),
    }
}

/// What commands on the point's machine ask of its library, while it runs: the interface of a site, as
/// far as it is about a library.
struct PointDesk {
    site: Site,
    router: axum::Router,
}

impl PointDesk {
    fn open(config: &Config, packages: &Packages) -> Arc<dyn Desk> {
        let site = Site::of_point(config.clone(), Some(packages.clone()));
        let router = local_router(site.clone());
        Arc::new(Self { site, router })
    }
}

impl Desk for PointDesk {
    fn call(&self, request: Request<BoxBody>) -> Answering {
        answer_by(self.router.clone(), request)
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let site = self.site.clone();
        Box::pin(async move {
            if let Err(problem) = site.close().await {
                tracing::warn!(%problem, "what commands had under way did not end well");
            }
        })
    }
}
