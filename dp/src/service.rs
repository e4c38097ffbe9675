//! From a request to its answer: which route, which method, and what goes wrong.
//!
//! A GET of content that is held ready is answered on the spot. All else that may block is looked
//! up on the blocking pool, and ends up in the same place: a [`Held`] content, its headers and the
//! preconditions of the request.

use crate::body::{self, Body, ContentBody, PartsBody, Source};
use crate::condition::{self, Validators, Verdict};
use crate::connection::Connection;
use crate::cost;
use crate::deltas;
use crate::fallback::RequestBody;
use crate::forward::{Caller, HandedOn};
use crate::frames;
use crate::held::{Described, Held};
use crate::identity::OverTls;
use crate::metrics::{self, Route};
use crate::package;
use crate::problem::Problem;
use crate::range::Wanted;
use crate::recipes;
use crate::server::Content;
use crate::target::Target;
use crate::ticket::Ticket;
use bytes::Bytes;
use contentlib::{Digest, Library, Name, ReadError, Segment};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

const READERS: &str = "GET, HEAD";
const POSTERS: &str = "POST";

/// Serves the requests of one connection.
pub(crate) struct Service {
    pub connection: Arc<Connection>,
}

/// An answer, now or later.
#[expect(clippy::large_enum_variant, reason = "a hot answer is not worth an allocation")]
pub(crate) enum Answer {
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Answer::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled once"))),
            Answer::Later(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let mut ticket = Ticket::new(self.connection.clone(), request.method(), request.uri());
        if lacks_host(&request) {
            let detail = "a request of HTTP/1.1 has one Host header";
            return now(problem(Problem::bad_request("Host", detail), ticket));
        }
        if self.connection.lacks_tls() && !is_public(request.uri().path()) {
            let detail = "nothing is served here without TLS: ask again with https://";
            return now(problem(Problem::new(StatusCode::UPGRADE_REQUIRED, detail), ticket));
        }
        match Caller::take(request.headers_mut(), self.connection.identity()) {
            Ok(None) => {}
            Ok(Some(caller)) => ticket.set_caller(caller),
            Err(error) => return now(problem(error, ticket)),
        }
        let worker = &self.connection.worker;
        let Some(content) = &worker.shared.content else {
            return self.hand_all_on(request, ticket);
        };
        let is_for_api = || matches!(Target::parse(request.uri().path()), Ok(Target::Api));
        if ticket.is_refused() && !is_for_api() {
            let detail = "the distribution point was removed from this site: to use the machine as \
                one again, let it join with a new token";
            return now(problem(Problem::new(StatusCode::FORBIDDEN, detail), ticket));
        }
        if request.method() == Method::GET || request.method() == Method::HEAD {
            let generation = content.library.generation();
            if let Some(held) = worker.hot.get(request.uri().path(), generation) {
                worker.counters.hot_hits.add(1);
                ticket.route = Route::Content;
                let asked = Asked::of(request.method(), request.headers());
                return send(held, asked, ticket);
            }
        }
        match Target::parse(request.uri().path()) {
            Ok(target) => self.route(target, content.clone(), request, ticket),
            Err(error) => now(problem(Problem::bad_request("path", error.to_string()), ticket)),
        }
    }
}

/// Whether a path tells nothing but whether the server lives.
fn is_public(path: &str) -> bool {
    matches!(Target::parse(path), Ok(Target::Health | Target::Ready))
}

/// Whether a request of HTTP/1.1 has no `Host`, or several (RFC 9112, section 3.2). Others tell the
/// host elsewhere, or need not.
fn lacks_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    request.version() == Version::HTTP_11 && (hosts.next().is_none() || hosts.next().is_some())
}

impl Service {
    /// Of a server without content all goes to another, but what is about this one itself.
    fn hand_all_on(&self, request: Request<Incoming>, mut ticket: Ticket) -> Answer {
        match Target::parse(request.uri().path()) {
            Ok(target) => {
                ticket.route = route_of(&target);
                match target {
                    Target::Health | Target::Ready | Target::Metrics => {
                        self.status(&target, &request, ticket)
                    }
                    _ => self.hand_on(request, ticket),
                }
            }
            Err(error) => now(problem(Problem::bad_request("path", error.to_string()), ticket)),
        }
    }

    fn route(
        &self,
        target: Target,
        content: Arc<Content>,
        request: Request<Incoming>,
        mut ticket: Ticket,
    ) -> Answer {
        ticket.route = route_of(&target);
        let shared = &self.connection.worker.shared;
        if matches!(target, Target::Api | Target::Locate) {
            return self.hand_on(request, ticket);
        }
        let allowed = match target {
            Target::Recipes | Target::Chunks | Target::Cost | Target::Deltas => POSTERS,
            _ => READERS,
        };
        let is_allowed = match *request.method() {
            Method::GET | Method::HEAD => allowed == READERS,
            Method::POST => allowed == POSTERS,
            _ => false,
        };
        if target == Target::Unknown {
            return now(problem(Problem::not_found("there is nothing at this path"), ticket));
        }
        if !is_allowed {
            return now(problem(Problem::method(allowed), ticket));
        }
        match target {
            Target::Content(name) => {
                self.get_content(content.library.clone(), &name, &request, ticket)
            }
            Target::Recipe(name) => get_recipe(content.library.clone(), &name, &request, ticket),
            Target::Package(path) => {
                let asked = Asked::of(request.method(), request.headers());
                let shown = package::Shown::negotiate(request.headers());
                let query = request.uri().query().map(str::to_owned);
                let worker = self.connection.worker.clone();
                Answer::Later(Box::pin(async move {
                    let shared = worker.shared.clone();
                    let find = move || {
                        package::find(&content, &worker.hot, &path, shown, query.as_deref())
                    };
                    let find = Arc::new(find);
                    let found = {
                        let find = find.clone();
                        blocking(move || find()).await
                    };
                    match found {
                        Ok(package::Found::Waits(demand)) if asked.is_head => {
                            let headers = package::head_of(&demand);
                            answer(StatusCode::OK, headers, Source::Empty, ticket)
                        }
                        Ok(package::Found::Waits(demand)) => match shared.bring(demand).await {
                            Ok(()) => give(blocking(move || find()).await, asked, ticket).await,
                            Err(error) => problem(error, ticket),
                        },
                        found => give(found, asked, ticket).await,
                    }
                }))
            }
            Target::Recipes => {
                let (head, body) = request.into_parts();
                let body = RequestBody::new(body, self.connection.clone());
                Answer::Later(Box::pin(async move {
                    let library = content.library.clone();
                    let posted = recipes::post(library, &head.headers, body, ticket);
                    posted.await.unwrap_or_else(|(error, ticket)| problem(error, ticket))
                }))
            }
            Target::Chunks => {
                let (head, body) = request.into_parts();
                let body = RequestBody::new(body, self.connection.clone());
                Answer::Later(Box::pin(async move {
                    let posted = frames::post(content.library.clone(), &head.headers, body, ticket);
                    posted.await.unwrap_or_else(|(error, ticket)| problem(error, ticket))
                }))
            }
            Target::Cost => {
                let (head, body) = request.into_parts();
                let body = RequestBody::new(body, self.connection.clone());
                Answer::Later(Box::pin(async move {
                    let posted = cost::post(content.library.clone(), &head.headers, body, ticket);
                    posted.await.unwrap_or_else(|(error, ticket)| problem(error, ticket))
                }))
            }
            Target::Deltas => {
                let (head, body) = request.into_parts();
                let body = RequestBody::new(body, self.connection.clone());
                let (deltas, library) = (shared.deltas.clone(), content.library.clone());
                Answer::Later(Box::pin(async move {
                    let posted = deltas::post(deltas, library, &head.headers, body, ticket);
                    posted.await.unwrap_or_else(|(error, ticket)| problem(error, ticket))
                }))
            }
            Target::Coming(package, version) => {
                match shared.comes.as_ref().and_then(|comes| comes(&package, version)) {
                    Some(coming) => {
                        let json = serde_json::to_vec(&coming).expect("it has text keys");
                        now(text("application/json", json.into(), ticket))
                    }
                    None => now(problem(Problem::not_found("it is not on its way here"), ticket)),
                }
            }
            Target::Health | Target::Ready | Target::Metrics => {
                self.status(&target, &request, ticket)
            }
            Target::Api | Target::Locate | Target::Unknown => unreachable!("answered above"),
        }
    }

    /// What is about this server itself.
    fn status(&self, target: &Target, request: &Request<Incoming>, ticket: Ticket) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return now(problem(Problem::method(READERS), ticket));
        }
        let shared = &self.connection.worker.shared;
        match target {
            Target::Ready if shared.draining.load(Relaxed) => {
                now(problem(Problem::unavailable("the server is shutting down"), ticket))
            }
            Target::Ready => match shared.is_ready.as_ref().map_or(Ok(()), |is_ready| is_ready()) {
                Ok(()) => now(text("text/plain; charset=utf-8", "ready\n".into(), ticket)),
                Err(why) => now(problem(Problem::unavailable(why), ticket)),
            },
            Target::Metrics => {
                let shared = shared.clone();
                Answer::Later(Box::pin(async move {
                    let rendered = blocking(move || {
                        let workers = shared.workers.get().map_or(&[][..], Vec::as_slice);
                        let workers: Vec<_> = workers.iter().filter_map(Weak::upgrade).collect();
                        let counters: Vec<_> = workers.iter().map(|w| &w.counters).collect();
                        let deltas = shared.deltas.as_deref().map(|deltas| &deltas.counts);
                        Ok(metrics::render(&counters, deltas, shared.library_stats().as_ref()))
                    });
                    match rendered.await {
                        Ok(rendered) => text("text/plain; version=0.0.4", rendered.into(), ticket),
                        Err(error) => problem(error, ticket),
                    }
                }))
            }
            _ => now(text("text/plain; charset=utf-8", "ok\n".into(), ticket)),
        }
    }

    /// Content by its digest or an alias of it.
    fn get_content(
        &self,
        library: Library,
        name: &[u8],
        request: &Request<Incoming>,
        ticket: Ticket,
    ) -> Answer {
        let name = match parse_name(name) {
            Ok(name) => name,
            Err(error) => return now(problem(error, ticket)),
        };
        let asked = Asked::of(request.method(), request.headers());
        let path: Box<str> = request.uri().path().into();
        let worker = self.connection.worker.clone();
        worker.counters.hot_misses.add(1);
        Answer::Later(Box::pin(async move {
            // Before the look-up: what changes meanwhile must not be kept.
            let generation = library.generation();
            match blocking(move || open(&library, name)).await {
                Ok(held) => {
                    let held = Arc::new(held);
                    worker.hot.put(&path, generation, held.clone());
                    resolve(send(held, asked, ticket)).await
                }
                Err(error) => problem(error, ticket),
            }
        }))
    }

    /// Hands a request on to the API, on its own runtime.
    fn hand_on(&self, request: Request<Incoming>, ticket: Ticket) -> Answer {
        let shared = &self.connection.worker.shared;
        let Some(fallback) = shared.fallback.clone() else {
            return now(problem(
                Problem::not_found("this server serves content alone: ask its site"),
                ticket,
            ));
        };
        let connection = self.connection.clone();
        let mut request = request.map(|body| RequestBody::new(body, connection));
        request.extensions_mut().insert(ticket.address());
        if ticket.is_secure() {
            request.extensions_mut().insert(OverTls);
        }
        if let Some(identity) = ticket.identity() {
            request.extensions_mut().insert(identity.clone());
        }
        if ticket.is_handed_on() {
            request.extensions_mut().insert(HandedOn);
        }
        let running = shared.runtime.spawn(async move { fallback.call(request).await });
        let running = AbortOnDrop(running);
        Answer::Later(Box::pin(async move {
            match running.await {
                Ok(response) => {
                    let mut ticket = ticket;
                    ticket.status = response.status().as_u16();
                    response.map(|body| Body::new(Source::Other(body), ticket))
                }
                Err(_) => {
                    let detail = "the request failed inside the server; see its log";
                    problem(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail), ticket)
                }
            }
        }))
    }
}

fn route_of(target: &Target) -> Route {
    match target {
        Target::Content(_) => Route::Content,
        Target::Recipe(_) | Target::Recipes => Route::Recipe,
        Target::Package(_) => Route::Package,
        Target::Chunks | Target::Cost => Route::Chunks,
        Target::Deltas => Route::Deltas,
        Target::Api | Target::Locate => Route::Api,
        Target::Coming(..) | Target::Health | Target::Ready | Target::Metrics => Route::Status,
        Target::Unknown => Route::Other,
    }
}

/// A client that is gone no longer needs its answer.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a request asks of a content: all or part, and under which conditions.
pub(crate) struct Asked {
    is_head: bool,
    /// Nothing if the request is a plain one.
    conditions: Option<Box<HeaderMap>>,
}

impl Asked {
    fn of(method: &Method, headers: &HeaderMap) -> Self {
        let conditions = (!condition::is_plain(headers)).then(|| Box::new(headers.clone()));
        Self { is_head: method == Method::HEAD, conditions }
    }

    fn verdict(&self, has: Validators<'_>, size: u64) -> Verdict {
        let method = if self.is_head { Method::HEAD } else { Method::GET };
        match &self.conditions {
            None => Verdict::Send(Wanted::Whole),
            Some(headers) => condition::evaluate(&method, headers, has, size),
        }
    }
}

fn now(response: Response<Body>) -> Answer {
    Answer::Now(Some(response))
}

async fn resolve(answer: Answer) -> Response<Body> {
    match answer {
        Answer::Now(response) => response.expect("not polled"),
        Answer::Later(later) => later.await,
    }
}

/// Runs what may block, off the worker's thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed inside the server; see its log",
        ))
    })
}

/// An answer whose body and length go together.
pub(crate) fn answer(
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
    mut ticket: Ticket,
) -> Response<Body> {
    ticket.status = status.as_u16();
    let mut response = Response::new(Body::new(source, ticket));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn problem(problem: Problem, ticket: Ticket) -> Response<Body> {
    let (status, headers, document) = problem.into_parts();
    answer(status, headers, Source::Bytes(document.into()), ticket)
}

fn text(content_type: &'static str, text: Bytes, ticket: Ticket) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer(StatusCode::OK, headers, Source::Bytes(text), ticket)
}

pub(crate) fn parse_name(name: &[u8]) -> Result<Name, Problem> {
    let text = String::from_utf8_lossy(name);
    text.parse::<Name>().map_err(|error| Problem::bad_request("name", error.to_string()))
}

/// The digest that a name stands for, aliases included. Blocks.
fn digest_of(library: &Library, name: Name) -> Result<Digest, Problem> {
    match name {
        Name::Blake3(digest) => Ok(digest),
        alias => Ok(library.resolve(&alias)?.ok_or(ReadError::Unknown(alias))?),
    }
}

fn open(library: &Library, name: Name) -> Result<Held, Problem> {
    let reader = library.open_content(digest_of(library, name)?)?;
    Ok(Held::open(reader, Described::by_digest())?)
}

/// Answers with what a path leads to.
async fn give(
    found: Result<package::Found, Problem>,
    asked: Asked,
    ticket: Ticket,
) -> Response<Body> {
    match found {
        Ok(package::Found::File(held)) => resolve(send(held, asked, ticket)).await,
        Ok(package::Found::Page(page)) => send_page(page, &asked, ticket),
        Ok(package::Found::Waits(_)) => {
            let detail = "the file came and is not held any more; try again later";
            problem(Problem::unavailable(detail), ticket)
        }
        Err(error) => problem(error, ticket),
    }
}

/// Answers with a content, or the part of it that is wanted.
fn send(held: Arc<Held>, asked: Asked, ticket: Ticket) -> Answer {
    let has = Validators { etag: held.etag.as_bytes(), modified: held.modified };
    let wanted = match asked.verdict(has, held.size) {
        Verdict::Send(wanted) => wanted,
        Verdict::NotModified => {
            return now(answer(
                StatusCode::NOT_MODIFIED,
                kept_headers(&held.headers),
                Source::Empty,
                ticket,
            ));
        }
        Verdict::Failed => return now(problem(precondition_failed(), ticket)),
    };
    if asked.is_head {
        return now(answer(StatusCode::OK, held.headers.clone(), Source::Empty, ticket));
    }
    match wanted {
        Wanted::Whole => match &held.whole {
            Some(bytes) => {
                let source = Source::Bytes(bytes.clone());
                now(answer(StatusCode::OK, held.headers.clone(), source, ticket))
            }
            None => {
                let headers = held.headers.clone();
                send_range(&held, StatusCode::OK, headers, 0..held.size, ticket)
            }
        },
        Wanted::One(range) => {
            let mut headers = held.headers.clone();
            headers.insert(header::CONTENT_RANGE, content_range(&range, held.size));
            headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
            send_range(&held, StatusCode::PARTIAL_CONTENT, headers, range, ticket)
        }
        Wanted::Some(ranges) => send_parts(&held, ranges, ticket),
        Wanted::Unsatisfiable => {
            let size = held.size;
            let detail = format!("no range lies inside the content, which has {size} bytes");
            let value = HeaderValue::try_from(format!("bytes */{size}")).expect("visible ASCII");
            let refused = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail)
                .about("Range")
                .with(header::CONTENT_RANGE, value)
                .with(header::ETAG, held.etag.clone());
            now(problem(refused, ticket))
        }
    }
}

fn precondition_failed() -> Problem {
    let detail = "the resource is not the one that If-Match or If-Unmodified-Since names";
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// The headers of a 304: those that would keep a cache up to date, and none about a body.
fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let kept: [HeaderName; 4] =
        [header::ETAG, header::CACHE_CONTROL, header::LAST_MODIFIED, header::VARY];
    kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.clone()))).collect()
}

fn content_range(range: &Range<u64>, size: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    HeaderValue::try_from(text).expect("visible ASCII")
}

/// Answers with a range, once its first bytes are there: what cannot be read must be an error, not
/// a cut answer.
fn send_range(
    held: &Arc<Held>,
    status: StatusCode,
    headers: HeaderMap,
    range: Range<u64>,
    ticket: Ticket,
) -> Answer {
    if let Some(whole) = &held.whole {
        // Small enough that its length is a usize.
        let bytes = whole.slice(range.start as usize..range.end as usize);
        return now(answer(status, headers, Source::Bytes(bytes), ticket));
    }
    let (reader, first) = (held.reader.clone(), range.clone());
    once_begun(held, &first, ticket, move |first, ticket| {
        let source = Source::Content(ContentBody::new(reader, range, first));
        answer(status, headers, source, ticket)
    })
}

/// Goes on with an answer once the first bytes of `range` are there.
fn once_begun(
    held: &Held,
    range: &Range<u64>,
    ticket: Ticket,
    go_on: impl FnOnce(Segment, Ticket) -> Response<Body> + Send + 'static,
) -> Answer {
    let (at, max) = (range.start, FIRST_SEGMENT.min((range.end - range.start) as usize));
    if let Some(first) = body::ready(&held.reader, at, max) {
        return now(go_on(first, ticket));
    }
    let reader = held.reader.clone();
    Answer::Later(Box::pin(async move {
        match blocking(move || Ok(body::read(&reader, at, max)?)).await {
            Ok(first) => go_on(first, ticket),
            Err(error) => problem(error, ticket),
        }
    }))
}

/// The longest first segment; see `body` for those that follow.
const FIRST_SEGMENT: usize = 1 << 20;

fn send_parts(held: &Arc<Held>, ranges: Vec<Range<u64>>, ticket: Ticket) -> Answer {
    // Random, so that no content can hold it on purpose.
    let boundary = format!("{:016x}", RandomState::new().build_hasher().finish());
    let content_type = held.headers.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.as_ref().and_then(|v| v.to_str().ok()).unwrap_or_default();
    let part = |(at, range): (usize, Range<u64>)| {
        let before = if at == 0 { "" } else { "\r\n" };
        let (last, size) = (range.end - 1, held.size);
        let head = format!(
            "{before}--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: bytes {}-{last}/{size}\r\n\r\n",
            range.start
        );
        (Bytes::from(head), range)
    };
    let first = ranges[0].clone();
    let parts = ranges.into_iter().enumerate().map(part).collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let reader = held.reader.clone();
    let mut headers = held.headers.clone();
    headers.remove(header::CONTENT_LENGTH);
    let multipart = format!("multipart/byteranges; boundary={boundary}");
    headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(multipart).expect("visible ASCII"));
    once_begun(held, &first, ticket, move |first, ticket| {
        let source = Source::Parts(Box::new(PartsBody::new(reader, parts, end, first)));
        answer(StatusCode::PARTIAL_CONTENT, headers, source, ticket)
    })
}

/// A page, a listing or a document made for one request.
pub(crate) struct Page {
    pub status: StatusCode,
    /// With `ETag` if the client may keep it.
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

fn send_page(page: Page, asked: &Asked, ticket: Ticket) -> Response<Body> {
    let Page { status, mut headers, bytes } = page;
    if let Some(etag) = headers.get(header::ETAG) {
        let has = Validators { etag: etag.as_bytes(), modified: None };
        match asked.verdict(has, bytes.len() as u64) {
            Verdict::NotModified => {
                return answer(
                    StatusCode::NOT_MODIFIED,
                    kept_headers(&headers),
                    Source::Empty,
                    ticket,
                );
            }
            Verdict::Failed => return problem(precondition_failed(), ticket),
            // Pages are short; a range of one is not worth its code (RFC 9110, section 14.2).
            Verdict::Send(_) => {}
        }
    }
    headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let source = if asked.is_head { Source::Empty } else { Source::Bytes(bytes) };
    answer(status, headers, source, ticket)
}

/// The recipe of a content, for clients that fetch only the chunks they lack.
fn get_recipe(
    library: Library,
    name: &[u8],
    request: &Request<Incoming>,
    ticket: Ticket,
) -> Answer {
    let name = match parse_name(name) {
        Ok(name) => name,
        Err(error) => return now(problem(error, ticket)),
    };
    let asked = Asked::of(request.method(), request.headers());
    Answer::Later(Box::pin(async move {
        let page = blocking(move || {
            let recipe = library.recipe(digest_of(&library, name)?)?;
            let bytes = Bytes::from(recipe.encode());
            let mut headers = HeaderMap::with_capacity(8);
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/vnd.depot.recipe"),
            );
            let etag = format!("\"{}\"", Digest::of(&bytes));
            headers.insert(header::ETAG, HeaderValue::try_from(etag).expect("visible ASCII"));
            let immutable = "public, max-age=31536000, immutable";
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(immutable));
            Ok(Page { status: StatusCode::OK, headers, bytes })
        });
        match page.await {
            Ok(page) => send_page(page, &asked, ticket),
            Err(error) => problem(error, ticket),
        }
    }))
}
