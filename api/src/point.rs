//! A distribution point of its own, from the settings: `depot dp serve`.

use crate::config::Config;
use crate::server::{Signals, serve_options, told_to_stop};
use dp::field::JoinToken;
use dp::node::{self, NodeError, NodeOptions, Who};
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
    };
    let signals = Signals::listen();
    let drain = CancellationToken::new();
    let stopped = told_to_stop(signals, stop, || drain.cancel());
    tokio::select! {
        served = node::run(options, token, drain.clone(), started) => served,
        () = stopped => Ok(()),
    }
}
