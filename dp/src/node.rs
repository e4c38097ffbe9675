//! A distribution point as a process of its own: it joins a site once, and from then on holds what
//! the site wishes it to hold.
//!
//! * `home`: the point's own folder, and joining.
//! * `link`: what it asks the site and tells it, over mutual TLS.
//! * `plan`: what to do next, as a pure function.
//! * `facts`: what it says of itself, derived from its library.
//! * `tasks`: the feed, the work, the reports, the renewal: they share `Node` and nothing else.
//!
//! The content plane is served all the while, whether or not the site can be reached: what is held
//! needs nobody's leave.

mod facts;
mod home;
mod link;
mod plan;
mod tasks;

use crate::field::{JoinToken, PointId, Wish};
use crate::identity::{Identity, IdentityError, OwnFiles, ServerTls};
use crate::server::{Content, ServeOptions, Server};
use contentlib::{CommitError, Library, OpenError};
use facts::Facts;
use home::Home;
use link::Link;
use packager::{Clock, PackageError, Packages};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use link::LinkError;

/// How a distribution point works.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its data folder; made if it is not there.
    pub folder: PathBuf,
    /// Where clients and other points reach it.
    pub listen: SocketAddr,
    /// How it serves them; its certificate is put in by the point itself.
    pub serve: ServeOptions,
    /// The administrator's own certificate, shown to clients that come by HTTPS; nothing: they are shown
    /// the point's own.
    pub own: Option<OwnFiles>,
    /// Its library.
    pub library: contentlib::Options,
    /// How often it collects garbage.
    pub gc_interval: Duration,
    /// Where the time comes from.
    pub clock: Clock,
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
    listen: SocketAddr,
    tls: Arc<ServerTls>,
    /// Replaced when the identity is renewed.
    link: RwLock<Arc<Link>>,
    /// What the site last said; nothing until it was heard.
    wish: watch::Sender<Option<Arc<Wish>>>,
    facts: Mutex<Facts>,
    /// Something changed that the site should hear of.
    news: Notify,
}

/// Serves the point in `options.folder` until `stop` is cancelled; joins with `token` first if the
/// folder has joined no site yet. `started` is called once it listens.
pub async fn run(
    options: NodeOptions,
    token: Option<JoinToken>,
    stop: CancellationToken,
    started: impl FnOnce(Who),
) -> Result<(), NodeError> {
    let NodeOptions { folder, listen, mut serve, own, library, gc_interval, clock } = options;
    let home = Home::open(folder, token.as_ref(), &clock).await?;
    let library = {
        let folder = home.library_folder();
        blocking(move || Library::open(&folder, library)).await?
    };
    let key = home.site_key();
    let packages =
        Packages::open_replica(library.clone(), key, home.cache_folder(), clock.clone())?;
    let identity = home.identity();
    let tls = Arc::new(ServerTls::new(identity, own, clock.clone())?);
    serve.tls = Some(tls.clone());
    let taken = |source| NodeError::Listen { address: listen, source };
    let server = Server::bind(listen, serve).map_err(taken)?;
    let node = Arc::new(Node {
        link: RwLock::new(Arc::new(Link::new(identity, home.sites(), &clock)?)),
        packages: packages.clone(),
        clock,
        gc_interval,
        listen: server.local_addr(),
        tls,
        wish: watch::channel(None).0,
        facts: Mutex::default(),
        news: Notify::new(),
        home,
    });
    started(node.who());
    let tasks = tasks::start(&node, &stop);
    let content = Content { library: library.clone(), packages: Arc::new(packages) };
    let served = server.serve(Arc::new(content), stop.cancelled_owned()).await;
    tasks.await;
    drop(node);
    served.map_err(NodeError::Server)?;
    blocking(move || library.close()).await?;
    Ok(())
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

impl Node {
    fn who(&self) -> Who {
        Who {
            id: self.home.id().clone(),
            name: self.home.name().to_owned(),
            sites: self.home.sites().to_vec(),
            listen: self.listen,
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
