//! A distribution point of its own, from the settings: `depot dp serve`.

use crate::config::Config;
use crate::server::{Signals, serve_options};
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
        serve: serve_options(config),
        library: config.library_options(),
        gc_interval: config.library.gc_interval,
        clock: Arc::new(jiff::Timestamp::now),
    };
    let (mut first, mut second) = (Signals::listen(), Signals::listen());
    let told = {
        let stop = stop.clone();
        async move {
            tokio::select! {
                () = first.heard() => {}
                () = stop.cancelled() => {}
            }
            tracing::info!("stopping: requests under way may end");
            stop.cancel();
            std::future::pending::<()>().await
        }
    };
    let told_again = async {
        second.heard().await;
        second.heard().await;
    };
    tokio::select! {
        served = node::run(options, token, stop.clone(), started) => served,
        () = told => unreachable!("waits for ever"),
        () = told_again => {
            tracing::warn!("told to stop twice: requests under way are cut off");
            Ok(())
        }
    }
}
