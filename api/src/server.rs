//! A serving site: the content plane's listener, with this interface behind it. One of several servers
//! stands by first (`standby`).

use crate::background;
use crate::config::Config;
use crate::hierarchy::{self, Joining};
use crate::problem::{Kind, Problem};
use crate::routes::router;
use crate::sealed;
use crate::site::{Site, blocking};
use crate::standby::{self, Several};
use dp::identity::{Peer, ServerTls};
use dp::{DeltaOptions, ServeOptions, Server, from_service};
use sitedb::DbError;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
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
    /// Another server took the lead while this one was silent.
    #[error(
        "this server could not say in time that it lives, and {leader} leads the site now; nothing of \
         what it had acknowledged is lost: start it again, and it stands by"
    )]
    Followed {
        /// Who leads, in words.
        leader: String,
    },
}

/// How long a server that was followed takes to let go of what it has.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Serves `site` until SIGTERM or SIGINT, or until `stop` is cancelled; then ends jobs, lets
/// requests under way end (a second signal cuts them off), and closes the site. `started` is called
/// once it listens, with the address. If the site is to follow another, it joins that first, as `joining` says.
///
/// One of several servers stands by until it leads, and ends with [`ServeError::Followed`] as soon as
/// it finds that it does not any more.
pub async fn serve(
    site: Site,
    joining: Joining,
    stop: CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    // Before anybody is told that it serves: from then on it may be told to stop.
    let mut signals = Signals::listen();
    let mut started = Some(started);
    let mut front = match one_of_several(&site, joining.sup).await? {
        None => None,
        Some(several) => {
            let tell = |address| {
                if let Some(started) = started.take() {
                    started(address);
                }
            };
            let leads = standby::until_it_leads(&site, &several, &mut signals, &stop, tell).await?;
            match leads {
                None => return Ok(()),
                front => front,
            }
        }
    };
    hierarchy::parent::join(&site, joining).await?;
    let (content, ledger, tls) = {
        let site = site.clone();
        let open = move || {
            let opened = (site.content()?, site.ledger()?, site_tls(&site)?);
            share_keys(&site)?;
            Ok(opened)
        };
        blocking(open).await?
    };
    let address = site.config().listen;
    let mut options = serve_options(site.config());
    options.api = Some(from_service(router(site.clone())));
    options.tls = Some(tls.clone());
    options.bring = Some(crate::mirror::demand::bring(&site));
    options.refuses = {
        let (ledger, refusing) = (ledger.clone(), site.clone());
        let is_removed = move |peer: &Peer| match peer {
            Peer::Point(id) => !ledger.registry.knows(id),
            Peer::Follower(id) => !crate::hierarchy::lets_in(&refusing, id).unwrap_or(false),
            Peer::Client(id) => refusing.fleet().is_ok_and(|fleet| fleet.caller(id).is_err()),
            Peer::Site => false,
        };
        Some(Arc::new(is_removed))
    };
    let listen = |source| ServeError::Listen { address, source };
    let tenure = site.tenure().cloned();
    if let Some(tenure) = tenure.clone() {
        options.is_ready = Some(Arc::new(move || match Instant::now() < tenure.until() {
            true => Ok(()),
            false => Err("it is not sure that this server leads: the database is away".to_owned()),
        }));
    }
    let server = match &front {
        Some(front) => front.server(options),
        None => Server::bind(address, options),
    };
    let server = server.map_err(listen)?;
    site.listens_on(server.local_addr());
    if let Some(started) = started.take() {
        started(server.local_addr());
    }
    let tasks = CancellationToken::new();
    background::start(&site, &tls, &tasks);
    let drain = CancellationToken::new();
    let stopping = site.clone();
    let stopped = told_to_stop(signals, stop, || {
        drain.cancel();
        tasks.cancel();
        // Now, not at the end: those who follow a job, and points that wait for a wish, are
        // requests under way too.
        ledger.registry.close();
        stopping.stop_syncs();
        // Clients that wait for their policy as well.
        match stopping.fleet() {
            Ok(fleet) => fleet.close(),
            Err(problem) => tracing::warn!(%problem, "clients that wait are not told to go"),
        }
        tokio::spawn(async move { ledger.jobs.close().await });
    });
    let content = dp::Content { library: content.library, packages: Arc::new(content.packages) };
    let followed = async {
        match &tenure {
            Some(tenure) => tenure.lost().await,
            None => std::future::pending().await,
        }
    };
    let serving = async {
        let serving = server.serve(Arc::new(content), drain.clone().cancelled_owned());
        if let (Some(front), Some(tenure)) = (front.take(), &tenure) {
            front.hand_over(tenure.number());
        }
        serving.await
    };
    let served = tokio::select! {
        served = serving => served,
        () = stopped => Ok(()),
        why = followed => {
            tasks.cancel();
            let _ = tokio::time::timeout(LETTING_GO, site.close()).await;
            return Err(match why {
                DbError::Lost { holder, .. } => ServeError::Followed { leader: holder },
                why => ServeError::Site(why.into()),
            });
        }
    };
    tasks.cancel();
    site.close().await?;
    served.map_err(ServeError::Server)
}

/// What makes this server one of several, if it is.
async fn one_of_several(site: &Site, sup: bool) -> Result<Option<Arc<Several>>, Problem> {
    let of = site.clone();
    blocking(move || {
        let Some(several) = Several::of(of.config())?.map(Arc::new) else { return Ok(None) };
        if sup || of.parent()?.is_some_and(|parent| parent.is_of_update_point()) {
            let detail =
                "another update point of a site is one server: start it without a cluster key";
            return Err(Problem::new(Kind::InvalidValue, detail));
        }
        of.is_one_of(several.clone());
        Ok(Some(several))
    })
    .await
}

/// Has the other servers of the site know the keys that this one, which leads, has.
pub(crate) fn share_keys(site: &Site) -> Result<(), Problem> {
    match site.several() {
        Some(several) => sealed::seal(&site.ledger()?.db, &several.key, site.folder()),
        None => Ok(()),
    }
}

/// What the site shows to those who come by HTTPS.
pub(crate) fn site_tls(site: &Site) -> Result<Arc<ServerTls>, Problem> {
    let own = site.config().own_files();
    let now = jiff::Timestamp::now;
    // An update point is known by the authority of its site.
    if let Some(parent) = site.parent()?.filter(|parent| parent.is_of_update_point()) {
        return Ok(Arc::new(ServerTls::new(&parent.identity(), own, Arc::new(now))?));
    }
    let identity = site.authority()?.site_identity(now())?;
    Ok(Arc::new(ServerTls::new(&identity, own, Arc::new(now))?))
}

/// Waits until a signal comes or `stop` is cancelled, and has requests under way end by `drain`; ends
/// when another signal comes, which cuts them off.
pub(crate) async fn told_to_stop(
    mut signals: Signals,
    stop: CancellationToken,
    drain: impl FnOnce(),
) {
    tokio::select! {
        () = signals.heard() => {}
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping: requests under way may end");
    drain();
    signals.heard().await;
    tracing::warn!("told to stop twice: requests under way are cut off");
}

/// SIGTERM and SIGINT, those that come after it was made. One for a process: of two, a signal that
/// comes while they are made would be heard by one alone.
pub(crate) struct Signals(Vec<Signal>);

impl Signals {
    pub fn listen() -> Self {
        // Where no handler can be set a signal ends the process, as it would without us.
        let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    pub async fn heard(&mut self) {
        let waits = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await;
    }
}

/// How content is served, by the settings.
pub(crate) fn serve_options(config: &Config) -> ServeOptions {
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
        comes: None,
        bring: None,
        tls: None,
        plain_http: dp.plain_http,
        refuses: None,
        is_ready: None,
        deltas: (dp.delta_cache.0 > 0).then(|| DeltaOptions {
            folder: config.data.join("cache/deltas"),
            bytes: dp.delta_cache.0,
        }),
    }
}
