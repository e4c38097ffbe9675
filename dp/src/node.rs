//! A distribution point as a process of its own: it joins a site once, and from then on holds what
//! the site wishes it to hold.
//!
//! * `home`: the point's own folder, and joining.
//! * `link`: what it asks the site and tells it, over mutual TLS.
//! * `plan`: what to do next, and `schedule`: what may be done at this hour, as pure functions.
//! * `work`: bringing what is wished.
//! * `on_demand`: bringing a file that a client asks for first.
//! * `upstream`: where it brings content from; `coming`: what it tells those who bring from it.
//! * `facts`: what it says of itself, derived from its library.
//! * `scrub`, `mend`: how damage is found, and seen to.
//! * `orders`: what the site has it do once, ahead of that.
//! * `prestage`, `control`: content that comes on a medium, and how commands on this machine hand it
//!   to the running point.
//! * `tasks`: the feed, the work, the reports, the renewal: they share `Node` and nothing else.
//!
//! The content plane is served all the while, whether or not the site can be reached: what is held
//! needs nobody's leave.

mod coming;
mod control;
mod facts;
mod home;
mod link;
mod mend;
mod on_demand;
mod orders;
mod plan;
mod prestage;
mod schedule;
mod scrub;
mod tasks;
mod upstream;
mod work;

use crate::field::{JoinToken, PointId, Wish};
use crate::identity::{Identity, IdentityError, OwnFiles, ServerTls};
use crate::pace::Gate;
use crate::server::{Content, PlainHttp, ServeOptions, Server};
use coming::OnTheWay;
use contentlib::kv::KvError;
use contentlib::{CommitError, Library, MaintainError, OpenError, Progress};
use control::Control;
use facts::Facts;
use home::Home;
use packager::{Clock, PackageError, Packages};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use upstream::Upstream;

pub use control::{BUNDLE_SIZE, Desk, OpenDesk, SOCKET, ShortPath};
pub use link::{Link, LinkError, join_at};
#[cfg(test)]
pub(crate) use plan::tests as made_up;
pub use prestage::{is_point, open_copies};

/// How a distribution point works.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its data folder; made if it is not there.
    pub folder: PathBuf,
    /// Where clients and other points reach it.
    pub listen: SocketAddr,
    /// Where they reach it, `HOST:PORT`, if that is elsewhere.
    pub reached_at: Option<String>,
    /// How it serves them; its certificate is put in by the point itself.
    pub serve: ServeOptions,
    /// The administrator's own certificate, shown to clients that come by HTTPS; nothing: they are shown
    /// the point's own.
    pub own: Option<OwnFiles>,
    /// Its library.
    pub library: contentlib::Options,
    /// How often it collects garbage.
    pub gc_interval: Duration,
    /// In which time it reads all that it holds and compares it; zero: never.
    pub scrub_period: Duration,
    /// Where the time comes from.
    pub clock: Clock,
    /// Who looks after its library for commands on its machine, if anybody.
    pub desk: Option<OpenDesk>,
}

/// Why a distribution point could not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The folder has joined no site, and there is no token to join one with.
    #[error(
        "{0:?} has joined no site: make a token there with `depot dp join-token create`, and start \
         with --join TOKEN"
    )]
    NotJoined(PathBuf),
    /// The folder is somebody else's, or a site's.
    #[error("{0:?} holds other files: name a new or an empty folder for the distribution point")]
    Taken(PathBuf),
    /// The folder is a point of another site than the token's.
    #[error("{0:?} belongs to another site than the token; use another folder, or empty this one")]
    OtherSite(PathBuf),
    /// The site was not reached, or did not let it in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Keys or certificates cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The library cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The library cannot be closed well.
    #[error(transparent)]
    Close(#[from] CommitError),
    /// The library's index is lost, and cannot be made anew.
    #[error("the index of the library in {folder:?} cannot be made anew from its packs")]
    Rebuild {
        /// The library's folder.
        folder: PathBuf,
        /// Why.
        source: MaintainError,
    },
    /// The packages cannot be read.
    #[error(transparent)]
    Packages(#[from] PackageError),
    /// The folder cannot be used.
    #[error("cannot use {path:?}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server failed.
    #[error("the server failed")]
    Server(#[source] io::Error),
}

/// Who a point is, for those who look at it.
#[derive(Clone, Debug)]
pub struct Who {
    /// Its id.
    pub id: PointId,
    /// What people call it.
    pub name: String,
    /// Where its site can be reached.
    pub sites: Vec<String>,
    /// Where it listens.
    pub listen: SocketAddr,
}

/// What the tasks of a point share.
pub(crate) struct Node {
    home: Home,
    packages: Packages,
    clock: Clock,
    gc_interval: Duration,
    /// How long its library keeps what is not used any more; nothing if it collects no garbage.
    grace: Option<Duration>,
    listen: SocketAddr,
    /// Where others reach it, as it is told to the site ([`told`]).
    reached_at: String,
    tls: Arc<ServerTls>,
    /// Replaced when the identity is renewed.
    link: RwLock<Arc<Link>>,
    /// What the site last said; nothing until it was heard.
    wish: watch::Sender<Option<Arc<Wish>>>,
    facts: Mutex<Facts>,
    /// What is brought passes through it.
    gate: Gate,
    on_the_way: Arc<OnTheWay>,
    upstream: Upstream,
    /// Something changed that the site should hear of.
    news: Notify,
    scrub_period: Duration,
    scrub: Mutex<Option<scrub::Scrub>>,
    orders: Mutex<orders::Orders>,
    /// Wakes whoever looks which versions are damaged; and whether it is to look anyway.
    look: Notify,
    asked_to_look: AtomicBool,
    /// The index failed; perhaps it is lost.
    index_in_doubt: AtomicBool,
    /// Cancelled when the library has to be opened with another index.
    index_lost: CancellationToken,
}

/// An error that may come of the library's index.
trait OfTheIndex {
    fn of_the_index(&self) -> Option<&KvError>;
}

impl OfTheIndex for PackageError {
    fn of_the_index(&self) -> Option<&KvError> {
        self.of_the_index()
    }
}

impl OfTheIndex for MaintainError {
    fn of_the_index(&self) -> Option<&KvError> {
        self.of_the_index()
    }
}

/// Serves the point in `options.folder` until `stop` is cancelled; joins with `token` first if the
/// folder has joined no site yet, or joined the token's, which knows it no more. `started` is called once it listens.
///
/// A library whose index is lost, now or while it serves, gets a new one from its packs: what cannot be
/// found in them is brought again.
pub async fn run(
    options: NodeOptions,
    token: Option<JoinToken>,
    stop: CancellationToken,
    started: impl FnOnce(Who),
) -> Result<(), NodeError> {
    let (mut token, mut started) = (token, Some(started));
    let mut options = options;
    let mut index = Index::AsItIs;
    loop {
        let turn = Turn { options: options.clone(), index, stop: stop.child_token() };
        let ended = turn.run(token.take(), |who| {
            options.listen = who.listen;
            if let Some(started) = started.take() {
                started(who);
            }
        });
        match ended.await? {
            Ended::Stopped => return Ok(()),
            Ended::IndexLost if stop.is_cancelled() => return Ok(()),
            Ended::IndexLost => index = Index::Anew,
        }
    }
}

/// What is done about the library's index before it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    AsItIs,
    /// It is made anew.
    Anew,
}

/// Why a turn ended.
enum Ended {
    Stopped,
    /// The library has to be opened anew, with another index.
    IndexLost,
}

/// The point from the opening of its library to its closing.
struct Turn {
    options: NodeOptions,
    index: Index,
    stop: CancellationToken,
}

impl Turn {
    async fn run(
        self,
        token: Option<JoinToken>,
        started: impl FnOnce(Who),
    ) -> Result<Ended, NodeError> {
        let NodeOptions { folder, listen, mut serve, own, library, gc_interval, .. } = self.options;
        let NodeOptions { reached_at, scrub_period, clock, desk, .. } = self.options;
        let grace = (!gc_interval.is_zero()).then_some(library.gc_grace);
        let home = Home::open(folder, token.as_ref(), &clock).await?;
        let (library, is_anew) = open(home.library_folder(), library, self.index).await?;
        let home = match &token {
            Some(token) => home.with_token(token, &clock).await,
            None => home,
        };
        let key = home.site_key();
        let packages =
            Packages::open_replica(library.clone(), key, home.cache_folder(), clock.clone())?;
        let identity = home.identity();
        let tls = Arc::new(ServerTls::new(identity, own, clock.clone())?);
        serve.tls = Some(tls.clone());
        let plain_http = serve.plain_http;
        let on_the_way = Arc::new(OnTheWay::default());
        serve.comes = Some({
            let on_the_way = on_the_way.clone();
            Arc::new(move |package, version| on_the_way.of(package, version))
        });
        let bringer = Arc::new(on_demand::Bringer::default());
        serve.bring = Some(bringer.clone().bring());
        let server = listen_at(listen, serve, self.index).await?;
        let node = Arc::new(Node {
            link: RwLock::new(Arc::new(Link::new(identity, home.sites(), &clock)?)),
            packages: packages.clone(),
            clock,
            gc_interval,
            grace,
            scrub_period,
            listen: server.local_addr(),
            reached_at: told(reached_at, server.local_addr(), plain_http),
            tls,
            wish: watch::channel(None).0,
            facts: Mutex::default(),
            gate: Gate::default(),
            on_the_way,
            upstream: Upstream::default(),
            news: Notify::new(),
            look: Notify::new(),
            // What a new index does not know may be of a version that it does.
            asked_to_look: AtomicBool::new(is_anew),
            index_in_doubt: AtomicBool::new(false),
            index_lost: CancellationToken::new(),
            scrub: Mutex::new(scrub::load(&home.scrub_file())),
            orders: Mutex::new(orders::load(&home.orders_file())),
            home,
        });
        bringer.begin(&node);
        let control = Control::bind(node.home.folder())?;
        started(node.who());
        let ending = {
            let (stop, lost) = (self.stop.clone(), node.index_lost.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = lost.cancelled() => stop.cancel(),
                }
            }
        };
        let desk = desk.map(|open| open(&packages));
        let control = tokio::spawn(control.serve(node.clone(), desk, self.stop.clone()));
        // Beside the server, which lets transfers come to their end: the goodbye is said before that.
        let tasks = tokio::spawn(tasks::start(&node, &self.stop));
        let content = Content { library: library.clone(), packages: Arc::new(packages) };
        let served = server.serve(Arc::new(content), ending).await;
        self.stop.cancel();
        if let Err(error) = tasks.await {
            tracing::error!(%error, "the tasks of the distribution point failed");
        }
        if let Err(error) = control.await {
            tracing::error!(%error, "the control socket failed");
        }
        let is_lost = node.index_lost.is_cancelled();
        drop(node);
        served.map_err(NodeError::Server)?;
        let closed = blocking(move || library.close()).await;
        if is_lost {
            return Ok(Ended::IndexLost);
        }
        closed?;
        Ok(Ended::Stopped)
    }
}

/// Opens the library, and says whether its index was made anew.
async fn open(
    folder: PathBuf,
    options: contentlib::Options,
    index: Index,
) -> Result<(Library, bool), NodeError> {
    let opened = match index {
        Index::Anew => None,
        Index::AsItIs => {
            let (folder, options) = (folder.clone(), options.clone());
            match blocking(move || Library::open(&folder, options)).await {
                Ok(library) => return Ok((library, false)),
                Err(error) if error.is_of_the_index() => Some(error),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let why = opened.as_ref().map(|error| tasks::chain(error));
    tracing::error!(why, "the library's index is lost: it is made anew from the packs");
    let deadline = Instant::now() + LET_GO;
    let rebuilt = loop {
        let (folder, options) = (folder.clone(), options.clone());
        let rebuild = move || Library::rebuild_index(&folder, options, &Progress::default());
        match blocking(rebuild).await {
            // What was under way still lets go of the library that was open.
            Err(MaintainError::Open(OpenError::Locked { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(MOMENT).await;
            }
            rebuilt => break rebuilt,
        }
    };
    match rebuilt {
        Ok(report) => {
            let (packs, lost) =
                (report.sealed_packs + report.scanned_packs, report.bad_packs.len());
            tracing::info!(packs, lost, chunks = report.chunks, "the index is made anew");
        }
        Err(source) => return Err(NodeError::Rebuild { folder, source }),
    }
    let library = blocking(move || Library::open(&folder, options)).await?;
    Ok((library, true))
}

/// How long those who are at work have to let go of a library that is opened anew.
const LET_GO: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(50);

/// Takes the port; again, if it was this point's before: others may be quick.
async fn listen_at(
    address: SocketAddr,
    serve: ServeOptions,
    index: Index,
) -> Result<Server, NodeError> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match Server::bind(address, serve.clone()) {
            Err(_) if index == Index::Anew && Instant::now() < deadline => {
                tokio::time::sleep(MOMENT).await;
            }
            bound => return bound.map_err(|source| NodeError::Listen { address, source }),
        }
    }
}

/// Runs what may block, away from the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("blocking work is never cancelled"),
        },
    }
}

/// Where others reach a point, in the words it tells: with a scheme only where it takes no other.
fn told(reached_at: Option<String>, listen: SocketAddr, plain_http: PlainHttp) -> String {
    let address = reached_at.unwrap_or_else(|| listen.to_string());
    match plain_http {
        PlainHttp::Any => address,
        PlainHttp::Local | PlainHttp::None => format!("https://{address}"),
    }
}

impl Node {
    fn who(&self) -> Who {
        Who {
            id: self.home.id().clone(),
            name: self.home.name().to_owned(),
            sites: self.home.sites().to_vec(),
            listen: self.listen,
        }
    }

    /// Has those who plan do so again, though the wish is the same.
    fn plan_anew(&self) {
        self.wish.send_modify(|_| {});
    }

    /// Has it looked which versions are damaged, known or not.
    fn look_for_damage(&self) {
        self.asked_to_look.store(true, SeqCst);
        self.look.notify_one();
    }

    /// Has the index looked over soon, if it is what failed.
    fn take_note(&self, error: &impl OfTheIndex) {
        if let Some(KvError::Failed(_)) = error.of_the_index() {
            self.index_in_doubt.store(true, SeqCst);
        }
    }

    fn link(&self) -> Arc<Link> {
        self.link.read().clone()
    }

    /// Shows and uses `identity` from now on.
    fn take_identity(&self, identity: &Identity) -> Result<(), NodeError> {
        self.tls.replace(identity)?;
        *self.link.write() = Arc::new(Link::new(identity, self.home.sites(), &self.clock)?);
        Ok(())
    }
}
