//! A site with several servers: which of them leads, and what the others do meanwhile.
//!
//! All are started alike, each with a data folder of its own. Whoever holds the site database leads: it
//! does everything. Each other stands by: it takes connections, hands what is asked for on to the one that leads
//! ([`Forwarder`]), and looks twice a second whether that one still does. When its time has run out, or
//! it let go, the first one that asks for the database leads.
//!
//! Always true: a server that stands by writes nothing but that it is there, and takes its keys
//! from the database before it listens.

use crate::config::Config;
use crate::database;
use crate::problem::{Kind, Problem};
use crate::sealed::{self, ClusterKey};
use crate::server::{ServeError, Signals, serve_options, site_tls};
use crate::site::{Site, blocking};
use dp::identity::ServerTls;
use dp::{Forwarder, Server};
use jiff::Timestamp;
use sitedb::{Db, Holder, Leader, Onlooker};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked who leads.
const LOOK: Duration = Duration::from_millis(500);
/// How often this server says that it stands by.
const SAY: Duration = Duration::from_secs(5);
/// How often certificates are looked after.
const MINUTE: Duration = Duration::from_secs(60);
/// After the database was away its holder has so long to say that it lives: it needs to be found again
/// by the holder, too.
const GRACE: Duration = Duration::from_secs(10);
/// How long the keys of the site may be missing in the database before a server that needs them gives up.
const WITHOUT_KEYS: Duration = Duration::from_secs(60);

/// What makes a server one of several.
pub(crate) struct Several {
    /// Opens the site's keys.
    pub key: ClusterKey,
    /// Sees who leads and who stands by.
    pub onlooker: Arc<Onlooker>,
}

impl Several {
    /// What the settings say of it; nothing of a server that is alone.
    ///
    /// # Errors
    /// The settings do not go together, or the database is away.
    pub fn of(config: &Config) -> Result<Option<Self>, Problem> {
        let Some(file) = &config.server.cluster_key_file.0 else { return Ok(None) };
        let missing = match (&config.database.url.0, config.library.url.get()) {
            (None, _) => Some("its database on a PostgreSQL server (--database)"),
            (_, None) => Some("its content on an object store (--library)"),
            _ => None,
        };
        if let Some(missing) = missing {
            let detail = format!(
                "a cluster key is for a site with several servers, and such a site has {missing}"
            );
            return Err(Problem::new(Kind::InvalidValue, detail));
        }
        let key = ClusterKey::read(file)
            .map_err(|error| Problem::new(Kind::InvalidValue, error.to_string()))?;
        let Some(url) = database::url_of(config)? else { return Ok(None) };
        Ok(Some(Self { key, onlooker: Arc::new(Onlooker::open(&url)?) }))
    }
}

/// What stood before a server that leads from now on.
pub(crate) struct Front {
    server: Server,
    forwarder: Option<Forwarder>,
    ending: CancellationToken,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Front {
    /// A server on the same port, with what it needs to lead.
    pub fn server(&self, options: dp::ServeOptions) -> io::Result<Server> {
        self.server.beside(options)
    }

    /// The server that leads takes connections now: what waited gets there, and nothing more comes here.
    pub fn hand_over(self, number: u64) {
        self.ending.cancel();
        if let Some(forwarder) = self.forwarder {
            forwarder.lead_here(number, reachable(self.server.local_addr()));
        }
    }

    /// Lets what is under way end.
    async fn end(mut self) {
        self.ending.cancel();
        if let Some(running) = self.running.take() {
            let _ = running.await;
        }
    }
}

/// Where this machine reaches what listens at `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Where the other servers reach this one, which listens at `bound`.
fn advertised(config: &Config, bound: SocketAddr) -> Result<String, Problem> {
    if let Some(address) = &config.server.advertise.0 {
        return Ok(address.clone());
    }
    if bound.ip().is_unspecified() {
        let detail = format!(
            "the other servers of this site cannot reach {bound}: say where they reach this one with \
             --advertise HOST:PORT (server.advertise)"
        );
        return Err(Problem::new(Kind::InvalidValue, detail));
    }
    Ok(bound.to_string())
}

/// Stands by until this server leads: then the database is its, and open. `None` if it was told to stop
/// before.
pub(crate) async fn until_it_leads(
    site: &Site,
    several: &Arc<Several>,
    signals: &mut Signals,
    stop: &CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> Result<Option<Front>, ServeError> {
    let address = site.config().listen;
    let server = Server::bind(address, serve_options(site.config()))
        .map_err(|source| ServeError::Listen { address, source })?;
    site.listens_on(server.local_addr());
    let address = advertised(site.config(), server.local_addr())?;
    let holder = database::holder(site.config(), &address)?;
    let ending = CancellationToken::new();
    let front = Front { server, forwarder: None, ending, running: None };
    let mut standing = Standing {
        site: site.clone(),
        several: several.clone(),
        holder,
        front,
        tls: None,
        began: Instant::now(),
        said: None,
        tended: Instant::now(),
        away: None,
    };
    let mut started = Some(started);
    loop {
        let looked = tokio::select! {
            looked = standing.look() => looked?,
            () = told_to_stop(signals, stop) => {
                standing.leave().await;
                return Ok(None);
            }
        };
        if standing.front.running.is_some()
            && let Some(started) = started.take()
        {
            started(standing.front.server.local_addr());
        }
        if looked == Looked::Leads {
            standing.say_gone().await;
            return Ok(Some(standing.front));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = told_to_stop(signals, stop) => {
                standing.leave().await;
                return Ok(None);
            }
        }
    }
}

async fn told_to_stop(signals: &mut Signals, stop: &CancellationToken) {
    tokio::select! {
        () = signals.heard() => {}
        () = stop.cancelled() => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    StandsBy,
    Leads,
}

/// A server that does not lead.
struct Standing {
    site: Site,
    several: Arc<Several>,
    holder: Holder,
    front: Front,
    tls: Option<Arc<ServerTls>>,
    began: Instant,
    /// When it last said that it stands by.
    said: Option<Instant>,
    tended: Instant,
    /// When the database was last away.
    away: Option<Instant>,
}

impl Standing {
    async fn look(&mut self) -> Result<Looked, Problem> {
        let several = self.several.clone();
        let leader = match blocking(move || Ok(several.onlooker.leader()?)).await {
            Ok(leader) => leader,
            Err(problem) => {
                if self.away.is_none_or(|since| since.elapsed() > MINUTE) {
                    tracing::warn!(%problem, "it cannot be seen who leads this site");
                }
                self.away = Some(Instant::now());
                return Ok(Looked::StandsBy);
            }
        };
        // Of a folder that was copied, the other one may live.
        let is_own = leader.id == self.holder.id
            && database::is_same_folder(&leader.name, &self.holder.name);
        if leader.lives && !is_own {
            self.follow(&leader).await?;
            return Ok(Looked::StandsBy);
        }
        let may_still_live = self.away.is_some_and(|since| since.elapsed() < GRACE);
        if !leader.id.is_empty() && !is_own && may_still_live {
            return Ok(Looked::StandsBy);
        }
        self.try_to_lead().await
    }

    async fn try_to_lead(&mut self) -> Result<Looked, Problem> {
        let (site, address) = (self.site.clone(), self.holder.address.clone());
        match blocking(move || site.try_to_lead(&address)).await {
            Ok(true) => {
                if let Some(forwarder) = &self.front.forwarder {
                    forwarder.nobody_leads();
                }
                tracing::info!("this server leads the site from now on");
                Ok(Looked::Leads)
            }
            Ok(false) => Ok(Looked::StandsBy),
            // Who has served for a while goes on; a server that starts says what is wrong.
            Err(problem) if self.front.running.is_some() => {
                tracing::warn!(%problem, "this server cannot lead; it tries again");
                Ok(Looked::StandsBy)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Hands all that is asked for on to `leader`.
    async fn follow(&mut self, leader: &Leader) -> Result<(), Problem> {
        if self.front.running.is_none() && !self.begin(leader).await? {
            return Ok(());
        }
        if let Some(forwarder) = &self.front.forwarder {
            match leader.address.is_empty() {
                true => forwarder.nobody_leads(),
                false => forwarder.lead(leader.number, &leader.address),
            }
        }
        if self.said.is_none_or(|at| at.elapsed() >= SAY) {
            self.said = Some(Instant::now());
            let (several, holder) = (self.several.clone(), self.holder.clone());
            if let Err(problem) = blocking(move || Ok(several.onlooker.stand_by(&holder)?)).await {
                tracing::warn!(%problem, "the site does not learn that this server stands by");
            }
        }
        if self.tended.elapsed() >= MINUTE {
            self.tended = Instant::now();
            if let Err(problem) = self.renew_certificates().await {
                tracing::warn!(%problem, "a certificate is not renewed yet");
            }
        }
        Ok(())
    }

    /// Begins to take connections, once the keys are there.
    async fn begin(&mut self, leader: &Leader) -> Result<bool, Problem> {
        let (site, several) = (self.site.clone(), self.several.clone());
        let opened = blocking(move || {
            let db = Db::read_only(several.onlooker.clone())?;
            if !sealed::unseal(&db, &several.key, site.folder())? {
                return Ok(None);
            }
            Ok(Some((site.authority()?, site_tls(&site)?)))
        });
        let Some((authority, tls)) = opened.await? else {
            if self.began.elapsed() < WITHOUT_KEYS {
                return Ok(false);
            }
            let detail = format!(
                "this site is led by {}, which does not share its keys: start that one with \
                 --cluster-key, too",
                leader.name
            );
            return Err(Problem::new(Kind::Conflict, detail));
        };
        let forwarder = Forwarder::new(authority, Arc::new(Timestamp::now));
        let mut options = serve_options(self.site.config());
        options.api = Some(Arc::new(forwarder.clone()));
        options.tls = Some(tls.clone());
        let of = forwarder.clone();
        options.is_ready = Some(Arc::new(move || match of.is_led() {
            true => Ok(()),
            false => Err("no server of this site leads".to_owned()),
        }));
        let server =
            self.front.server.beside(options).map_err(|error| Problem::internal(&error))?;
        let ending = self.front.ending.clone().cancelled_owned();
        self.front.running = Some(tokio::spawn(server.serve_by_another(ending)));
        self.front.forwarder = Some(forwarder);
        self.tls = Some(tls);
        tracing::info!(leader = leader.name, "this server stands by");
        Ok(true)
    }

    async fn renew_certificates(&self) -> Result<(), Problem> {
        let Some(tls) = self.tls.clone() else { return Ok(()) };
        let site = self.site.clone();
        blocking(move || {
            if tls.is_stale() {
                tls.replace(&site.authority()?.site_identity(Timestamp::now())?)?;
            }
            tls.refresh()?;
            Ok(())
        })
        .await
    }

    async fn say_gone(&self) {
        let (several, id) = (self.several.clone(), self.holder.id.clone());
        let gone = blocking(move || Ok(several.onlooker.leave(&id)?));
        // It is forgotten after a while in any case.
        if !matches!(tokio::time::timeout(SAY, gone).await, Ok(Ok(()))) {
            tracing::debug!("the site does not learn that this server stands by no more");
        }
    }

    async fn leave(self) {
        tracing::info!("stopping: requests under way may end");
        self.say_gone().await;
        self.front.end().await;
    }
}
