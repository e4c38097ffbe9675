//! From one server of a site to another: a server that stands by hands each request on to the one
//! that leads.
//!
//! The way between them is TLS, with certificates of the site's own authority on both sides: nobody
//! but a server of the site has one that names the site. One header tells whose request it is
//! ([`Caller`]): the client's address, whether it came by TLS, and whom its certificate names. That
//! header counts only on such a connection; from anybody else it is taken away.
//!
//! Bodies are passed on piece by piece, both ways, so nothing is held but what is on its way. How long a
//! client may be silent is watched where it is connected. The line to the leader is watched by the
//! kernel; and as soon as another server leads, whatever waits for the former one ends.
//!
//! While nobody leads, or the leader cannot be reached, a request waits, for [`PATIENCE`] at most. One that
//! may have reached a leader that died is sent again if that does no harm ([`is_repeatable`]); else
//! its client is told to decide.

use crate::fallback::{Answering, BoxBody, BoxError, Fallback, RequestBody};
use crate::identity::{Authority, IdentityError, OverTls, Peer, client_config};
use crate::problem::Problem;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use packager::Clock;
use parking_lot::Mutex;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Whose request it is, on the way between two servers of a site.
const CALLER: HeaderName = HeaderName::from_static("depot-caller");
/// In an answer to another server: this one does not lead, and did nothing.
const NOT_LEADING: HeaderName = HeaderName::from_static("depot-not-leading");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a request waits for a server that leads and can be reached.
const PATIENCE: Duration = Duration::from_secs(35);
/// The pause before a leader that could not be reached is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection to the leader may take, with the handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the leader's machine may take to acknowledge bytes, or to answer when nothing is sent.
const SILENCE: Duration = Duration::from_secs(20);
/// Connections to the leader that are kept for later requests, and for how long.
const MAX_IDLE: usize = 64;
const IDLE: Duration = Duration::from_secs(15);
/// The longest body that is held to be sent again.
const MAX_REPEATED: usize = 64 << 10;
/// How old the certificate may be that this server shows to the leader.
const FRESH: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Headers that are about one connection (RFC 9110, section 7.6.1), beside those that `Connection`
/// names; and `Expect`, which is answered where the client is connected.
const OF_THE_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Who sent a request that another server of the site handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub address: SocketAddr,
    pub over_tls: bool,
    /// Whom the certificate names that it showed there.
    pub peer: Option<Peer>,
}

impl Caller {
    /// `192.0.2.7:4711 https 3f…9c.client.depot`, or `-` for who showed no certificate.
    fn header(&self) -> HeaderValue {
        let scheme = if self.over_tls { "https" } else { "http" };
        let peer = self.peer.as_ref().map_or("-".to_owned(), Peer::name);
        let text = format!("{} {scheme} {peer}", self.address);
        HeaderValue::try_from(text).expect("addresses and names are visible ASCII")
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let mut words = value.to_str().ok()?.split(' ');
        let (address, scheme, peer) = (words.next()?, words.next()?, words.next()?);
        let over_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let peer = match peer {
            "-" => None,
            name => Some(Peer::of_name(name).filter(|peer| over_tls && *peer != Peer::Site)?),
        };
        let caller = Self { address: address.parse().ok()?, over_tls, peer };
        words.next().is_none().then_some(caller)
    }

    /// Takes what a request says of its caller. It counts only if `sender` is a server of the site.
    ///
    /// # Errors
    /// Such a server says something that is not understood.
    pub fn take(headers: &mut HeaderMap, sender: Option<&Peer>) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.remove(&CALLER) else { return Ok(None) };
        if sender != Some(&Peer::Site) {
            return Ok(None);
        }
        let caller = Self::parse(&value);
        let detail = "another server of this site says of a client what is not understood";
        caller.map(Some).ok_or_else(|| Problem::bad_request("depot-caller", detail))
    }
}

/// In the extensions of a request that another server of the site handed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOn;

/// Hands requests on to the server that leads, whichever that is. Cloning shares it.
#[derive(Clone)]
pub struct Forwarder(Arc<Inner>);

struct Inner {
    authority: Arc<Authority>,
    clock: Clock,
    /// What this server shows to the leader, and since when.
    tls: Mutex<Option<(Timestamp, Arc<ClientConfig>)>>,
    leader: watch::Sender<Option<Arc<Leader>>>,
}

/// A server that leads, and the connections to it.
struct Leader {
    /// Grows with each.
    number: u64,
    address: String,
    /// Whether it is this process.
    is_self: bool,
    idle: Mutex<Vec<(Instant, SendRequest<BoxBody>)>>,
    /// It leads no more.
    ended: CancellationToken,
}

impl Forwarder {
    /// For a server of the site whose authority that is. Nobody leads yet.
    pub fn new(authority: Arc<Authority>, clock: Clock) -> Self {
        let leader = watch::Sender::new(None);
        Self(Arc::new(Inner { authority, clock, tls: Mutex::default(), leader }))
    }

    /// Says that the server at `address` (HOST:PORT) leads, as that `number`.
    pub fn lead(&self, number: u64, address: &str) {
        self.set(number, address, false);
    }

    /// Says that this process leads, which listens at `address`.
    pub fn lead_here(&self, number: u64, address: SocketAddr) {
        self.set(number, &address.to_string(), true);
    }

    fn set(&self, number: u64, address: &str, is_self: bool) {
        self.0.leader.send_if_modified(|leader| {
            let is_known = |it: &Arc<Leader>| {
                it.number == number && it.address == address && it.is_self == is_self
            };
            if leader.as_ref().is_some_and(is_known) {
                return false;
            }
            let next = Leader {
                number,
                address: address.to_owned(),
                is_self,
                idle: Mutex::default(),
                ended: CancellationToken::new(),
            };
            if let Some(former) = leader.replace(Arc::new(next)) {
                former.ended.cancel();
            }
            true
        });
    }

    /// Says that nobody leads. What the former leader still answers is passed on until somebody does.
    pub fn nobody_leads(&self) {
        self.0.leader.send_if_modified(|leader| leader.take().is_some());
    }

    /// Whether somebody leads, as far as is known here.
    pub fn is_led(&self) -> bool {
        self.0.leader.borrow().is_some()
    }
}

impl Fallback for Forwarder {
    fn call(&self, request: Request<RequestBody>) -> Answering {
        let inner = self.0.clone();
        Box::pin(async move {
            inner.forward(request).await.unwrap_or_else(|problem| {
                let (status, headers, document) = problem.into_parts();
                let mut answer = Response::new(boxed(Full::new(Bytes::from(document))));
                *answer.status_mut() = status;
                *answer.headers_mut() = headers;
                answer
            })
        })
    }
}

/// A request that is to be sent until it was answered.
struct Outgoing {
    head: Parts,
    body: Sent,
}

enum Sent {
    /// The same each time.
    Again(Bytes),
    /// What was not sent yet, or nothing.
    Once(Option<BoxBody>),
}

impl Outgoing {
    /// # Errors
    /// The body of a request that would be sent again does not come.
    async fn new(mut head: Parts, body: RequestBody) -> Result<Self, Problem> {
        let sent = if is_repeatable(&head, &body) {
            let whole = Limited::new(body, MAX_REPEATED).collect().await.map_err(|error| {
                Problem::bad_request("body", format!("the body did not come whole: {error}"))
            })?;
            Sent::Again(whole.to_bytes())
        } else {
            Sent::Once(Some(Box::pin(body)))
        };
        prepare(&mut head)?;
        Ok(Self { head, body: sent })
    }

    /// The request, if it can be sent (again).
    fn next(&mut self) -> Option<Request<BoxBody>> {
        let body: BoxBody = match &mut self.body {
            Sent::Again(bytes) if bytes.is_empty() => boxed(Empty::new()),
            Sent::Again(bytes) => boxed(Full::new(bytes.clone())),
            Sent::Once(body) => body.take()?,
        };
        let mut head = Request::new(()).into_parts().0;
        head.method = self.head.method.clone();
        head.uri = self.head.uri.clone();
        head.headers = self.head.headers.clone();
        Some(Request::from_parts(head, body))
    }

    /// Nothing of `request` was sent.
    fn put_back(&mut self, request: Request<BoxBody>) {
        if let Sent::Once(body) = &mut self.body {
            *body = Some(request.into_body());
        }
    }
}

/// Whether a request may be sent again after one that may have had its effect: it has none, or the
/// leader knows it again by its idempotency key. And whether it can be: it is short.
fn is_repeatable(head: &Parts, body: &RequestBody) -> bool {
    let harmless = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let is_short = body.size_hint().upper().is_some_and(|size| size <= MAX_REPEATED as u64);
    is_short && (harmless || head.headers.contains_key(&IDEMPOTENCY_KEY))
}

/// Makes the head of a request one for the leader, over HTTP/1.1.
fn prepare(head: &mut Parts) -> Result<(), Problem> {
    strip(&mut head.headers);
    if let (None, Some(authority)) = (head.headers.get(header::HOST), head.uri.authority()) {
        let host = HeaderValue::try_from(authority.as_str())
            .map_err(|_| Problem::bad_request("host", "the host is malformed"))?;
        head.headers.insert(header::HOST, host);
    }
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, HeaderValue::from_static("site.depot"));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri =
        path.parse::<Uri>().map_err(|error| Problem::bad_request("path", error.to_string()))?;
    head.version = Version::HTTP_11;
    let address = head.extensions.get::<SocketAddr>().copied();
    let caller = Caller {
        address: address.unwrap_or(SocketAddr::from(([0; 4], 0))),
        over_tls: head.extensions.get::<OverTls>().is_some(),
        peer: head.extensions.get::<Peer>().filter(|peer| **peer != Peer::Site).cloned(),
    };
    head.headers.insert(CALLER, caller.header());
    Ok(())
}

/// Takes away what is about one connection.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_HOP) {
        headers.remove(name);
    }
}

impl Inner {
    async fn forward(&self, request: Request<RequestBody>) -> Result<Response<BoxBody>, Problem> {
        let until = Instant::now() + PATIENCE;
        let (head, body) = request.into_parts();
        let is_handed_on = head.extensions.get::<HandedOn>().is_some();
        let mut outgoing = Outgoing::new(head, body).await?;
        let mut why = "no server of this site leads";
        loop {
            let Some(leader) = self.leader(until).await else {
                return Err(Problem::unavailable(format!("{why}; try again in a moment")));
            };
            // Two that each take the other for the leader must not play ball.
            if is_handed_on && !leader.is_self {
                let detail =
                    "this server does not lead, and hands nothing on that was handed on to it";
                let problem = Problem::unavailable(detail);
                return Err(problem.with(NOT_LEADING, HeaderValue::from_static("true")));
            }
            let mut connection = match self.connection(&leader).await {
                Ok(connection) => connection,
                Err(error) => {
                    why = "the server that leads this site cannot be reached";
                    tracing::debug!(leader = leader.address, %error, "{why}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(request) = outgoing.next() else { return Err(unsure()) };
            let sent = tokio::select! {
                sent = connection.try_send_request(request) => Some(sent),
                () = leader.ended.cancelled() => None,
            };
            match sent {
                Some(Ok(answer)) if !answer.headers().contains_key(&NOT_LEADING) => {
                    return Ok(passed_on(answer, connection, leader));
                }
                Some(Err(mut error)) => {
                    let whole = error.take_message();
                    tracing::debug!(leader = leader.address, error = %error.error(), "not answered");
                    if let Some(request) = whole {
                        outgoing.put_back(request);
                    }
                }
                // It led when it was asked, and has not begun to yet or does not any more.
                Some(Ok(_)) | None => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Who leads; waits for somebody to.
    async fn leader(&self, until: Instant) -> Option<Arc<Leader>> {
        let mut leader = self.leader.subscribe();
        let led = leader.wait_for(Option::is_some);
        let led = tokio::time::timeout_at(until.into(), led).await;
        led.ok()?.ok()?.clone().filter(|_| Instant::now() < until)
    }

    /// A connection to the leader, one that was used before if there is one.
    async fn connection(&self, leader: &Leader) -> io::Result<SendRequest<BoxBody>> {
        {
            let mut idle = leader.idle.lock();
            while let Some((since, connection)) = idle.pop() {
                if since.elapsed() < IDLE && connection.is_ready() {
                    return Ok(connection);
                }
            }
        }
        let connecting = tokio::time::timeout(CONNECT, self.connect(&leader.address));
        connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn connect(&self, address: &str) -> io::Result<SendRequest<BoxBody>> {
        let tls = self.tls().map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        sockopt::set_tcp_user_timeout(&stream, SILENCE.as_millis() as u32)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, SILENCE / 2)?;
        sockopt::set_tcp_keepintvl(&stream, SILENCE / 4)?;
        let name = ServerName::try_from(Peer::Site.name()).expect("it is a name");
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the leader ended");
            }
        });
        Ok(sender)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut tls = self.tls.lock();
        let now = (self.clock)();
        if let Some((since, config)) = &*tls
            && now.duration_since(*since).abs() < FRESH
        {
            return Ok(config.clone());
        }
        let identity = self.authority.site_identity(now)?;
        let mut config = ClientConfig::clone(&*client_config(&identity, &self.clock)?);
        config.alpn_protocols = vec![b"http/1.1".into()];
        let config = Arc::new(config);
        *tls = Some((now, config.clone()));
        Ok(config)
    }
}

/// What a client is told whose request may have had its effect.
fn unsure() -> Problem {
    let detail = "the server that led this site died while it worked on this request, which may have \
        had its effect: look, or send it again with the same idempotency key";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// The leader's answer, as the client gets it.
fn passed_on(
    answer: Response<Incoming>,
    connection: SendRequest<BoxBody>,
    leader: Arc<Leader>,
) -> Response<BoxBody> {
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    head.version = Version::HTTP_11;
    let ended = Box::pin(leader.ended.clone().cancelled_owned());
    let mut passing = Passing { body, ended, kept: Some((connection, leader)) };
    passing.keep_if_over();
    Response::from_parts(head, Box::pin(passing))
}

/// The body of an answer of the leader. It ends in an error as soon as another server leads.
struct Passing {
    body: Incoming,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What is kept for another request once this is over.
    kept: Option<(SendRequest<BoxBody>, Arc<Leader>)>,
}

impl Passing {
    fn keep_if_over(&mut self) {
        if self.body.is_end_stream() {
            self.keep();
        }
    }

    fn keep(&mut self) {
        let Some((mut connection, leader)) = self.kept.take() else { return };
        tokio::spawn(async move {
            if connection.ready().await.is_ok() {
                let mut idle = leader.idle.lock();
                idle.retain(|(since, _)| since.elapsed() < IDLE);
                if idle.len() < MAX_IDLE && !leader.ended.is_cancelled() {
                    idle.push((Instant::now(), connection));
                }
            }
        });
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.keep(),
            Poll::Ready(Some(Ok(_))) => self.keep_if_over(),
            Poll::Ready(Some(Err(_))) => self.kept = None,
            Poll::Pending => {
                if self.ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err("another server leads this site now".into())));
                }
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn boxed<B>(body: B) -> BoxBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(body.map_err(Into::into))
}

/// What stands in the header of another server, for [`crate::fuzzing`].
pub(crate) fn fuzzing(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    if let Some(caller) = Caller::parse(&value) {
        assert_eq!(Caller::parse(&caller.header()), Some(caller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(over_tls: bool, peer: Option<Peer>) -> Caller {
        Caller { address: "192.0.2.7:4711".parse().unwrap(), over_tls, peer }
    }

    #[test]
    fn what_is_said_of_a_caller_reads_back() {
        let client = Peer::of_name("000000000000000000000000000000ab.client.depot");
        assert!(client.is_some());
        for said in [caller(false, None), caller(true, None), caller(true, client)] {
            assert_eq!(Caller::parse(&said.header()), Some(said));
        }
        let name = "000000000000000000000000000000ab.client.depot";
        for bad in [
            "",
            "-",
            "192.0.2.7:1 http",
            "192.0.2.7 http -",
            "192.0.2.7:1 ftp -",
            "192.0.2.7:1 https - -",
            "192.0.2.7:1 https site.depot",
            &format!("192.0.2.7:1 http {name}"),
        ] {
            assert_eq!(Caller::parse(&HeaderValue::from_str(bad).unwrap()), None, "{bad}");
        }
    }

    #[test]
    fn only_a_server_of_the_site_says_whose_request_it_is() {
        let said = caller(true, None);
        let headers = || HeaderMap::from_iter([(CALLER, said.header())]);
        let point = Peer::of_name("000000000000000000000000000000ab.point.depot").unwrap();
        for sender in [None, Some(&point)] {
            let mut headers = headers();
            assert!(Caller::take(&mut headers, sender).unwrap().is_none());
            assert!(headers.is_empty(), "nobody behind may take it for true");
        }
        assert_eq!(Caller::take(&mut headers(), Some(&Peer::Site)).unwrap(), Some(said));
        let mut bad = HeaderMap::from_iter([(CALLER, HeaderValue::from_static("x"))]);
        assert!(Caller::take(&mut bad, Some(&Peer::Site)).is_err());
    }

    #[test]
    fn what_is_about_a_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("range", "bytes=0-1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["range"]);
    }
}
