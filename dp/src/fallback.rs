//! The way to what is not ours: requests below `/api/` go to another service on the same port.
//!
//! That service is any tower service of HTTP messages, an axum router for one. It runs on the
//! runtime that the server was started from, not on the workers: what it computes does not keep
//! content waiting.

use crate::connection::Connection;
use crate::deadline::TICK;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Sleep;

/// An error of a body that came from elsewhere.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// The body of a fallback's answer.
pub type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;
/// What [`Fallback::call`] returns.
pub type Answering = Pin<Box<dyn Future<Output = Response<BoxBody>> + Send>>;

/// What answers requests that the content plane has no route for.
///
/// The request's extensions hold the peer's address, as a `std::net::SocketAddr`; that it came over
/// TLS, if it did, as [`OverTls`](crate::identity::OverTls); and who the peer's certificate names, if
/// it showed one, as [`Peer`](crate::identity::Peer).
pub trait Fallback: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request<RequestBody>) -> Answering;
}

/// Makes a [`Fallback`] of a tower service, such as an `axum::Router`.
pub fn from_service<S, B>(service: S) -> Arc<dyn Fallback>
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Arc::new(Tower(service))
}

struct Tower<S>(S);

impl<S, B> Fallback for Tower<S>
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<RequestBody>) -> Answering {
        answer_by(self.0.clone(), request)
    }
}

/// The answer of a tower service to one request.
pub fn answer_by<S, R, B>(service: S, request: Request<R>) -> Answering
where
    S: tower::Service<Request<R>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(async move {
        let answered = tower::ServiceExt::oneshot(service, request).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        answer
            .map(|body| -> BoxBody { Box::pin(http_body_util::BodyExt::map_err(body, Into::into)) })
    })
}

/// How long the rest of a body is read after its request was answered. A connection that is closed
/// while its client still sends takes the answer with it, and nobody learns what was wrong.
const LINGER: Duration = Duration::from_secs(30);

/// The body of a request, read under the server's time limits.
///
/// One that stops in the middle ends in an error. On a connection of HTTP/1.1 the watch over the
/// connection is as fast; of many streams that share one, only the stream itself can tell.
///
/// When it is dropped before its end, the rest is read and thrown away for half a minute.
#[derive(Debug)]
pub struct RequestBody {
    /// Nothing once the rest is read elsewhere.
    inner: Option<Inner>,
    /// A client that waits to be told to send is not told to by a body that nobody wanted.
    is_begun: bool,
}

#[derive(Debug)]
struct Inner {
    body: Incoming,
    connection: Waiting,
    /// When the body has kept us waiting for too long, while it does.
    late: Option<Pin<Box<Sleep>>>,
}

/// A client sent nothing of a body for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing of it came for {} s", .0.as_secs_f32())]
struct Stalled(Duration);

/// Whether this body is what the server waits for; ends with the body.
struct Waiting {
    connection: Arc<Connection>,
    is_waiting: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("is_waiting", &self.is_waiting).finish_non_exhaustive()
    }
}

impl Waiting {
    fn set(&mut self, is_waiting: bool) {
        if self.is_waiting != is_waiting {
            self.is_waiting = is_waiting;
            self.connection.activity.set_awaiting(is_waiting);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        let connection = Waiting { connection, is_waiting: false };
        Self { inner: Some(Inner { body, connection, late: None }), is_begun: false }
    }

    /// Lets a body go of which nothing is wanted. The rest is thrown away, as if some of it had been
    /// read; but a client that waits to be told to send it (`expects_continue`) is not told to.
    pub(crate) fn refuse(mut self, expects_continue: bool) {
        self.is_begun |= !expects_continue;
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.inner.take().filter(|inner| self.is_begun && !inner.body.is_end_stream());
        if let (Some(mut inner), Ok(runtime)) = (unread, Handle::try_current()) {
            let rest = async move { while let Some(Ok(_)) = poll_fn(|cx| inner.poll(cx)).await {} };
            runtime.spawn(tokio::time::timeout(LINGER, rest));
        }
    }
}

impl Inner {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.connection.set(polled.is_pending());
        if let Poll::Ready(frame) = polled {
            self.late = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.connection.connection.worker.progress_time;
        // A connection that is late by its own watch is ended by it, and not answered.
        let late = || Box::pin(tokio::time::sleep(patience.saturating_add(2 * TICK)));
        let late = self.late.get_or_insert_with(late).as_mut().poll(cx);
        late.map(|()| Some(Err(Stalled(patience).into())))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_begun = true;
        let polled = self.inner.as_mut().map_or(Poll::Ready(None), |inner| inner.poll(cx));
        if let Poll::Ready(Some(Err(_))) = polled {
            // There is no rest to read.
            self.inner = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), |inner| inner.body.size_hint())
    }
}
