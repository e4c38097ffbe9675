//! What a running point does for its own user: `DIR/control.sock`, HTTP/1.1 over a Unix socket.
//!
//! A library is open in one process at a time, so a command on the folder of a running point asks
//! that point. Only its own user and root may: the socket has mode 0600 from the moment that others
//! can see it, and who connects is asked of the system as well.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /inventory` | the inventory of the library, as it is written |
//! | `POST /import` with a bundle | what became of it, as JSON, when all of it was read |
//! | anything below `/api/` | what a [`Desk`] says: the library is looked after like a site's |
//!
//! An error has a problem document. There are no time-outs: the other side is a command on this
//! machine, perhaps one that waits for somebody to change a medium, and when it ends, so does its
//! request.

use super::tasks::chain;
use super::{Node, NodeError};
use crate::fallback::{Answering, BoxBody};
use crate::pieces::Pieces;
use bytes::Bytes;
use contentlib::Progress;
use futures::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use packager::Packages;
use packager::prestage::{BadBundle, INVENTORY_TYPE, PrestageError};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

/// The socket's name in the point's folder.
pub const SOCKET: &str = "control.sock";
/// The header that says how many bytes a bundle has, where that is known.
pub const BUNDLE_SIZE: &str = "depot-bundle-size";
/// Connections at a time.
const CONNECTIONS: usize = 8;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Answers what is asked below `/api/` at the socket, of the library as it is open now.
pub trait Desk: Send + Sync {
    /// Answers one request, whose sender may do everything here.
    fn call(&self, request: Request<BoxBody>) -> Answering;

    /// Ends all that is under way: afterwards, nothing works on the library.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Makes a desk for a library that was opened.
pub type OpenDesk = Arc<dyn Fn(&Packages) -> Arc<dyn Desk> + Send + Sync>;

/// The socket of a point.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in the point's folder, which nobody else serves: its library is open here.
    pub fn bind(folder: &Path) -> Result<Self, NodeError> {
        let path = folder.join(SOCKET);
        let bound = || {
            let part = folder.join("control.part");
            let _ = std::fs::remove_file(&part);
            let listener = UnixListener::bind(ShortPath::to(&part)?.path())?;
            std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600))?;
            // What a killed process left is replaced.
            std::fs::rename(&part, &path)?;
            Ok(listener)
        };
        match bound() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(NodeError::Io { path, source }),
        }
    }

    /// Answers until `stop`; ends when no request works on the library any more.
    pub async fn serve(
        self,
        node: Arc<Node>,
        desk: Option<Arc<dyn Desk>>,
        stop: CancellationToken,
    ) {
        let own = rustix::process::geteuid().as_raw();
        let work = Arc::new(Work {
            node,
            desk,
            importing: Arc::new(Semaphore::new(1)),
            working: Arc::new(Semaphore::new(CONNECTIONS)),
            progress: Arc::default(),
        });
        let mut connections = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS && is_own(&stream, own) => {
                    connections.spawn(connection(stream, work.clone()));
                }
                Ok(_) => tracing::warn!("a connection to the control socket is refused"),
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot be heard");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
        let _ = std::fs::remove_file(&self.path);
        work.progress.cancel();
        connections.shutdown().await;
        if let Some(desk) = &work.desk {
            desk.close().await;
        }
        // Threads that read a request notice that nothing comes any more.
        let _ = work.working.acquire_many(CONNECTIONS as u32).await;
    }
}

/// Whether the process at the other end is this user's, or root's.
fn is_own(stream: &UnixStream, own: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// A path to a file that is short enough for the address of a socket, whatever its folder's is: it
/// leads over the folder, opened, as long as this lives.
pub struct ShortPath {
    path: PathBuf,
    _folder: File,
}

impl ShortPath {
    /// A short path to `path`, whose folder is there.
    pub fn to(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: folder })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the connections share.
struct Work {
    node: Arc<Node>,
    desk: Option<Arc<dyn Desk>>,
    /// One import at a time.
    importing: Arc<Semaphore>,
    /// Held by each thread that works on the library.
    working: Arc<Semaphore>,
    /// Cancelled when the point stops.
    progress: Arc<Progress>,
}

async fn connection(stream: UnixStream, work: Arc<Work>) {
    let answer = service_fn(move |request| {
        let work = work.clone();
        async move { Ok::<_, std::convert::Infallible>(work.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the control socket ended early");
    }
}

impl Work {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/inventory") => self.inventory().await,
            (&Method::POST, "/import") => self.import(request).await,
            (_, path) if path.starts_with("/api/") && self.desk.is_some() => {
                self.ask(request).await
            }
            (_, path) => {
                let what = format!("{path} is not known here; is this command a newer one?");
                problem(StatusCode::NOT_FOUND, "not-found", &what)
            }
        }
    }

    async fn ask(&self, request: Request<Incoming>) -> Answer {
        let desk = self.desk.as_ref().expect("was looked for");
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let request = request.map(|body| -> BoxBody { Box::pin(body.map_err(Into::into)) });
        let answer = desk.call(request).await;
        if method != Method::GET {
            let status = answer.status().as_u16();
            tracing::info!(%method, path, status, "asked by a command on this machine");
        }
        answer.map(|body| body.map_err(io::Error::other).boxed_unsync())
    }

    /// A place among those that work on the library; the point waits for it to be given back.
    async fn place(&self) -> OwnedSemaphorePermit {
        self.working.clone().acquire_owned().await.expect("never closed")
    }

    async fn inventory(&self) -> Answer {
        let (mut pieces, body) = Pieces::new();
        let (node, place) = (self.node.clone(), self.place().await);
        let progress = self.progress.clone();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            if let Err(error) = node.write_inventory(&mut pieces, &progress) {
                tracing::warn!(error = chain(&error), "an inventory was cut off");
                // Its end mark does not come.
                pieces.cut(error);
            }
        });
        let body = StreamBody::new(body.map(|piece| piece.map(Frame::data)));
        let mut answer = Response::new(body.boxed_unsync());
        let media_type = HeaderValue::from_static(INVENTORY_TYPE);
        answer.headers_mut().insert(CONTENT_TYPE, media_type);
        answer
    }

    async fn import(&self, request: Request<Incoming>) -> Answer {
        let Ok(turn) = self.importing.clone().try_acquire_owned() else {
            let what = "another import is under way; wait for its end";
            return problem(StatusCode::CONFLICT, "conflict", what);
        };
        let size = request.headers().get(BUNDLE_SIZE);
        let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
        let pieces = request.into_body().into_data_stream().map_err(io::Error::other);
        let mut reader = SyncIoBridge::new(StreamReader::new(Box::pin(pieces)));
        let (node, place) = (self.node.clone(), self.place().await);
        let progress = self.progress.clone();
        let (say, said) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let imported = node.import(&mut reader, size, &progress);
            drop(turn);
            // Nobody may listen any more; what was done is done.
            let _ = say.send(imported);
            // Read on, so that a command which is still sending gets the answer, and ends.
            let _ = io::copy(&mut reader, &mut io::sink());
        });
        match said.await {
            Err(_) => {
                let what = "the import failed; the point's log says why";
                problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", what)
            }
            Ok(Ok(imported)) => {
                tracing::info!(
                    versions = imported.versions.len(),
                    chunks = imported.chunks,
                    bytes = imported.stored_bytes,
                    damage = imported.damage.as_ref().map(|damage| damage.what.as_str()),
                    "a bundle was imported"
                );
                let text = serde_json::to_vec(&imported).expect("it has text keys");
                document(StatusCode::OK, "application/json", text)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "a bundle was not imported");
                let (status, kind) = kind_of(&error);
                problem(status, kind, &chain(&error))
            }
        }
    }
}

/// What stands for an error of an import, as in the administrative interface.
fn kind_of(error: &PrestageError) -> (StatusCode, &'static str) {
    match error {
        PrestageError::Bundle(BadBundle::Foreign { .. } | BadBundle::NotProven(_)) => {
            (StatusCode::CONFLICT, "conflict")
        }
        PrestageError::Bundle(BadBundle::Head(_)) => (StatusCode::SERVICE_UNAVAILABLE, "damaged"),
        PrestageError::Bundle(BadBundle::Magic | BadBundle::Version(_)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid-value")
        }
        PrestageError::NoRoom { .. } => (StatusCode::INSUFFICIENT_STORAGE, "storage-full"),
        PrestageError::Cancelled(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    let document = serde_json::json!({
        "type": format!("urn:depot:problem:{kind}"), "title": title,
        "status": status.as_u16(), "detail": detail,
    });
    self::document(status, "application/problem+json", document.to_string().into_bytes())
}

fn document(status: StatusCode, media_type: &'static str, text: Vec<u8>) -> Answer {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
