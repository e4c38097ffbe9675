//! Requests to one or several servers' content planes, tried again while that makes sense.
//!
//! Each server is to answer the same, and each answer is checked by its digest, so it does not matter
//! whose it is: which server is asked is decided in `sources`, request by request, and what one began
//! another may end. Every wait ends after [`PROGRESS`] without a byte, and none before. A failure that
//! may pass (no connection, a cut answer, a 5xx) leads to the next server, or to another try after a
//! growing pause. A piece of work fails when each server has failed it; progress starts the count
//! anew, bytes that came before do not.

use super::attempt::{Attempt, Failed};
use super::locate::Located;
use super::sources::{MOST, Set, Standings};
use super::waits::Waits;
use super::{RemoteError, address};
use crate::pace::{Answer, Lane, Line};
use crate::package::VERSION_TYPE;
use bytes::{Bytes, BytesMut};
use contentlib::{ChunkId, Digest, Recipe};
use packager::sign::VersionInfo;
use packager::{PackageName, Selector};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_RANGE, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use rustls::ClientConfig;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long to wait for the next byte.
const PROGRESS: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// The longest frame of HTTP/2, in bytes: each costs both sides some work, and one that was cut off is lost.
const FRAME: u32 = 64 << 10;
/// The longest description of a version.
const MAX_VERSION: usize = 64 << 10;
/// The longest problem document.
const MAX_PROBLEM: usize = 64 << 10;
/// The longest recipe: 2^21 chunks of 36 bytes, and a head.
const MAX_RECIPE: usize = 80 << 20;

/// A server of content, and how it is reached.
#[derive(Clone, Debug)]
pub struct Server {
    http: reqwest::Client,
    base: Url,
    shown: String,
    rank: u32,
    /// Whether it tells what it is itself bringing (`GET /coming`).
    tells: bool,
}

impl Server {
    /// The server at this address, over connections of its own.
    ///
    /// # Panics
    /// If the process has installed no rustls provider.
    pub fn at(address: &str) -> Result<Self, RemoteError> {
        Self::of_url(address::parse_server(address)?, None)
    }

    /// The server at `base`, a URL that ends in a slash, over connections that somebody else sets up
    /// ([`Client::with_times`] sets their times); `shown` is where it is, for people.
    pub fn over(http: reqwest::Client, base: Url, shown: String) -> Self {
        Self { http, base, shown, rank: 0, tells: false }
    }

    /// The same server, to be asked after those of a lower rank.
    pub fn ranked(self, rank: u32) -> Self {
        Self { rank, ..self }
    }

    /// The same server, which is a distribution point: what is on its way to it is waited for, before
    /// one of a higher rank is asked.
    pub(crate) fn telling(self) -> Self {
        Self { tells: true, ..self }
    }

    /// The server at `base`, believed as `tls` says if that is given.
    pub(super) fn of_url(base: Url, tls: Option<&Arc<ClientConfig>>) -> Result<Self, RemoteError> {
        let mut http = Client::with_times(reqwest::Client::builder());
        if Client::is_on_this_machine(&base) {
            http = http.no_proxy();
        }
        if let Some(tls) = tls {
            http = http.use_preconfigured_tls((**tls).clone());
        }
        let http = http
            .build()
            .map_err(|source| RemoteError::Transport { url: base.to_string(), source })?;
        let shown = base.to_string();
        Ok(Self::over(http, base, shown))
    }

    /// Where it is, for people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    pub(super) fn asks(&self, path: &str) -> Asks<'_> {
        let url = self.base.join(path).expect("paths of the protocol are relative URLs");
        Asks { http: &self.http, url, shown: format!("{}{path}", self.shown) }
    }
}

/// One request: what is asked for, where, and what people are told that it was.
pub(super) struct Asks<'a> {
    pub http: &'a reqwest::Client,
    pub url: Url,
    pub shown: String,
}

/// The servers of a client, and what is known of them. Shared by its clones.
#[derive(Debug)]
pub(super) struct Servers {
    pub list: Vec<Server>,
    pub standings: Arc<Mutex<Standings>>,
    /// Those that make no deltas.
    pub without_deltas: Mutex<Set>,
    /// Those that give no recipes but one by one.
    pub without_recipes: Mutex<Set>,
}

/// A client of the content plane of some servers that answer the same. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) servers: Arc<Servers>,
    moved: Arc<AtomicU64>,
    /// What answers' bodies pass through; nothing holds them up without.
    lane: Option<Lane>,
    /// The version that is brought, and how long servers are waited for that bring it themselves.
    pub(super) waits: Option<Arc<Waits>>,
}

impl Client {
    /// A client of the server at this address.
    ///
    /// # Panics
    /// If the process has installed no rustls provider.
    pub fn new(server: &str) -> Result<Self, RemoteError> {
        Ok(Self::of(vec![Server::at(server)?]))
    }

    /// A client of these servers, of which each may be asked in place of any other; of more than 32
    /// the first. Those of the lowest rank are preferred.
    pub fn of(mut servers: Vec<Server>) -> Self {
        servers.truncate(MOST);
        let standings = Standings::new(servers.iter().map(|server| server.rank));
        Self::with_standings(servers, Arc::new(Mutex::new(standings)))
    }

    /// A client of the same servers over other connections. What becomes of requests of either tells
    /// both.
    pub(crate) fn over_others(&self, mut servers: Vec<Server>) -> Self {
        servers.truncate(MOST);
        debug_assert_eq!(servers.len(), self.servers.list.len());
        Self::with_standings(servers, self.servers.standings.clone())
    }

    fn with_standings(servers: Vec<Server>, standings: Arc<Mutex<Standings>>) -> Self {
        let servers = Servers {
            list: servers,
            standings,
            without_deltas: Mutex::default(),
            without_recipes: Mutex::default(),
        };
        Self { servers: Arc::new(servers), moved: Arc::default(), lane: None, waits: None }
    }

    /// Connections with the times of this module: they wait for progress, and not for a total.
    pub fn with_times(http: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        http.connect_timeout(CONNECT)
            .read_timeout(PROGRESS)
            .tcp_keepalive(PROGRESS)
            // All requests share a connection of HTTP/2: one that is dead must not be asked again.
            .http2_keep_alive_interval(PROGRESS / 2)
            .http2_keep_alive_timeout(PROGRESS)
            .http2_max_frame_size(FRAME)
            .user_agent(concat!("depot/", env!("CARGO_PKG_VERSION")))
    }

    /// Connections that are as a limit needs them.
    pub fn with_line(http: reqwest::ClientBuilder, line: Line) -> reqwest::ClientBuilder {
        http.http2_initial_stream_window_size(line.window)
            .http2_initial_connection_window_size(line.window)
    }

    /// The same client, whose answers are read as `lane` lets them through.
    pub fn through(self, lane: Lane) -> Self {
        Self { lane: Some(lane), ..self }
    }

    /// Waits until something may be asked for. What is answered is then read in turns.
    pub(super) async fn may_ask(&self) -> Option<Answer> {
        match &self.lane {
            None => None,
            Some(lane) => Some(lane.ask().await),
        }
    }

    /// The servers, for people.
    pub fn shown(&self) -> String {
        let shown: Vec<&str> = self.servers.list.iter().map(Server::shown).collect();
        shown.join(", ")
    }

    /// The same client, over the same connections, for the chunks of one version. It counts anew what it
    /// receives.
    pub(crate) fn bringing(&self, package: &PackageName, version: u64) -> Self {
        let waits = Waits::new(package, version, self.servers.list.len());
        Self { moved: Arc::default(), waits: Some(Arc::new(waits)), ..self.clone() }
    }

    /// Whether a server's address is one of this machine itself. No proxy may be asked for it, as the
    /// environment may say: the proxy would look for the server on its own machine.
    pub fn is_on_this_machine(server: &Url) -> bool {
        let host = server.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Bytes of answers' bodies received so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// The signed description of a version; not yet verified.
    pub async fn version(
        &self,
        package: &PackageName,
        selector: &Selector,
    ) -> Result<VersionInfo, RemoteError> {
        let path = format!("packages/{package}/{selector}");
        // Two servers may mean different versions by one name, so nobody goes on with another's.
        let wanted =
            Wanted { accept: Some(VERSION_TYPE), is_one: true, ..Wanted::all(MAX_VERSION) };
        let parse = |url: &str, bytes: Bytes| {
            let what = "the description of a version";
            serde_json::from_slice(&bytes)
                .map_err(|_| RemoteError::Malformed { url: url.to_owned(), wanted: what })
        };
        self.get(&path, wanted, parse).await
    }

    /// Whom a site tells to ask for a version.
    pub(super) async fn located(
        &self,
        package: &PackageName,
        selector: &Selector,
        elapsed: Duration,
    ) -> Result<Located, RemoteError> {
        let path = format!("locate/{package}/{selector}?elapsed={}", elapsed.as_secs());
        let parse = |url: &str, bytes: Bytes| {
            let what = "a list of whom to ask";
            serde_json::from_slice(&bytes)
                .map_err(|_| RemoteError::Malformed { url: url.to_owned(), wanted: what })
        };
        self.get(&path, Wanted::all(MAX_VERSION), parse).await
    }

    /// A whole content of at most `max` bytes, checked.
    pub async fn content(&self, digest: Digest, max: usize) -> Result<Bytes, RemoteError> {
        let check = |url: &str, bytes| checked(url, bytes, digest);
        self.get(&format!("content/{digest}"), Wanted::all(max), check).await
    }

    /// The bytes `range` of a content, checked to be `chunk`.
    pub(crate) async fn part(
        &self,
        content: Digest,
        range: Range<u64>,
        chunk: ChunkId,
    ) -> Result<Bytes, RemoteError> {
        let max = (range.end - range.start) as usize;
        let wanted = Wanted { part: Some(range), ..Wanted::all(max) };
        let check = |url: &str, bytes| checked(url, bytes, chunk.0);
        self.get(&format!("content/{content}"), wanted, check).await
    }

    /// The recipe of a content; `None` if no server holds it. It is not checked to be that content's.
    pub async fn recipe(&self, digest: Digest) -> Result<Option<Recipe>, RemoteError> {
        let recipe = self.recipe_if(digest, |_| true).await;
        match recipe {
            Err(RemoteError::Refused { status: 404, .. }) => Ok(None),
            recipe => recipe.map(Some),
        }
    }

    /// The recipe of a content that is `right`.
    pub(crate) async fn recipe_if(
        &self,
        digest: Digest,
        is_right: impl Fn(&Recipe) -> bool,
    ) -> Result<Recipe, RemoteError> {
        let decode = |url: &str, bytes: Bytes| {
            let url = url.to_owned();
            match Recipe::decode(&bytes) {
                Ok(recipe) if is_right(&recipe) => Ok(recipe),
                Ok(_) => Err(RemoteError::WrongBytes { url, digest }),
                Err(_) => Err(RemoteError::Malformed { url, wanted: "a recipe" }),
            }
        };
        self.get(&format!("recipes/{digest}"), Wanted::all(MAX_RECIPE), decode).await
    }

    /// What `check` makes of a body. A cut answer is gone on with where it was cut, also by another
    /// server.
    async fn get<T>(
        &self,
        path: &str,
        mut wanted: Wanted,
        check: impl Fn(&str, Bytes) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let mut attempt = Attempt::new(self.servers.clone());
        let (mut got, mut furthest) = (BytesMut::new(), 0);
        // Whose bytes they are.
        let mut from = Set::default();
        while let Some(turn) = attempt.turn(|_| true).await {
            let asks = self.servers.list[turn.at].asks(path);
            let has_others = {
                let mut others = from;
                others.remove(turn.at);
                !others.is_empty()
            };
            if wanted.is_one && has_others {
                got.clear();
            }
            if got.is_empty() {
                from = Set::default();
            }
            from.add(turn.at);
            let failed = match self.try_get(&asks, &wanted, &mut got).await {
                Ok(()) => match check(&asks.shown, std::mem::take(&mut got).freeze()) {
                    Ok(done) => {
                        attempt.progressed(&turn);
                        return Ok(done);
                    }
                    // Nobody can say whose bytes are wrong: again, of one server alone.
                    Err(_) if has_others && !wanted.is_one => {
                        wanted.is_one = true;
                        continue;
                    }
                    Err(error) => Failed::Wrong(error),
                },
                Err(failed) => failed,
            };
            // What comes again is no progress: not every proxy goes on where it is asked to.
            if got.len() > furthest {
                furthest = got.len();
                attempt.progressed(&turn);
            }
            attempt.failed(turn, failed)?;
        }
        Err(attempt.gave_up(|_| unreachable!("all are out")))
    }

    async fn try_get(
        &self,
        asks: &Asks<'_>,
        wanted: &Wanted,
        got: &mut BytesMut,
    ) -> Result<(), Failed> {
        let mut request = asks.http.get(asks.url.clone());
        if let Some(accept) = wanted.accept {
            request = request.header(ACCEPT, accept);
        }
        let range = wanted.range(got.len());
        if let Some((_, header)) = &range {
            request = request.header(RANGE, header);
        }
        let turns = self.may_ask().await;
        let sent = request.send().await;
        let past_the_end =
            sent.as_ref().is_ok_and(|r| r.status() == StatusCode::RANGE_NOT_SATISFIABLE);
        if past_the_end && !got.is_empty() {
            // The answer was cut right after its last byte.
            return Ok(());
        }
        let mut response = accepted(&asks.shown, sent).await?;
        let malformed =
            |wanted| Failed::Wrong(RemoteError::Malformed { url: asks.shown.clone(), wanted });
        if response.status() != StatusCode::PARTIAL_CONTENT {
            if wanted.part.is_some() {
                return Err(malformed("the range that was asked for"));
            }
            got.clear();
        } else if first_byte(&response).is_some_and(|first| Some(first) != range.map(|(at, _)| at))
        {
            return Err(malformed("the range that was asked for"));
        }
        while let Some(bytes) = self.read(&asks.shown, &mut response, turns.as_ref()).await? {
            if got.len() + bytes.len() > wanted.max {
                got.clear();
                return Err(malformed("a document of reasonable length"));
            }
            got.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The next bytes of a body, in its turn: all that a client receives is received here.
    pub(super) async fn read(
        &self,
        shown: &str,
        response: &mut Response,
        turns: Option<&Answer>,
    ) -> Result<Option<Bytes>, Failed> {
        let turn = match turns {
            None => None,
            Some(turns) => Some(turns.turn().await.ok_or(Failed::GaveWay)?),
        };
        let bytes = response.chunk().await.map_err(|error| passing(shown, error))?;
        let n = bytes.as_ref().map_or(0, Bytes::len);
        self.moved.fetch_add(n as u64, Relaxed);
        if let Some(turn) = turn {
            turn.took(n);
        }
        Ok(bytes)
    }
}

/// Where the part of a content begins that a response has.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// What a GET is for.
struct Wanted {
    accept: Option<&'static str>,
    /// These bytes alone.
    part: Option<Range<u64>>,
    /// Whether all bytes must be of one server.
    is_one: bool,
    /// The most bytes that may come.
    max: usize,
}

impl Wanted {
    fn all(max: usize) -> Self {
        Self { accept: None, part: None, is_one: false, max }
    }

    /// The `Range` header once the first `got` bytes came, and where that begins.
    fn range(&self, got: usize) -> Option<(u64, String)> {
        match &self.part {
            Some(part) => {
                let first = part.start + got as u64;
                Some((first, format!("bytes={first}-{}", part.end - 1)))
            }
            None => (got > 0).then(|| (got as u64, format!("bytes={got}-"))),
        }
    }
}

fn checked(url: &str, bytes: Bytes, digest: Digest) -> Result<Bytes, RemoteError> {
    if Digest::of(&bytes) != digest {
        return Err(RemoteError::WrongBytes { url: url.to_owned(), digest });
    }
    Ok(bytes)
}

fn passing(url: &str, source: reqwest::Error) -> Failed {
    // The URL in it has the peer's name, which tells nobody where that is.
    let source = source.without_url();
    Failed::Passing(RemoteError::Transport { url: url.to_owned(), source }, None)
}

/// The response, if it is one of success.
pub(super) async fn accepted(
    url: &str,
    sent: reqwest::Result<Response>,
) -> Result<Response, Failed> {
    let response = sent.map_err(|e| passing(url, e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let detail = reason(response).await;
    let detail = detail.or_else(|| status.canonical_reason().map(str::to_owned));
    let detail = detail.unwrap_or_default();
    let error = RemoteError::Refused { url: url.to_owned(), status: status.as_u16(), detail };
    Err(match status {
        // What one knows to be revoked, no other should give.
        StatusCode::GONE => Failed::Final(error),
        StatusCode::TOO_MANY_REQUESTS => Failed::Passing(error, after.map(Duration::from_secs)),
        _ if status.is_server_error() => Failed::Passing(error, after.map(Duration::from_secs)),
        _ => Failed::Refused(error),
    })
}

/// Why the server refused, as its problem document says; of no other answer that is an error more
/// than the first bytes are read.
async fn reason(mut response: Response) -> Option<String> {
    let mut document = BytesMut::new();
    while let Some(bytes) = response.chunk().await.ok()? {
        document.extend_from_slice(&bytes);
        if document.len() > MAX_PROBLEM {
            return None;
        }
    }
    let problem: serde_json::Value = serde_json::from_slice(&document).ok()?;
    problem["detail"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::sources::TRIES;
    use std::io::{BufRead, BufReader, Write};

    #[tokio::test]
    async fn an_answer_that_is_always_cut_at_the_same_place_is_given_up() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
                stream.get_mut().write_all(half).unwrap();
            }
        });
        let client = Client::new(&format!("http://{address}")).unwrap();
        let fetched = client.content(Digest::of(b"half gone"), 100);
        let fetched = tokio::time::timeout(Duration::from_secs(30), fetched).await;
        assert!(matches!(fetched.expect("it ends"), Err(RemoteError::Transport { .. })));
        // No more often than if nothing had come.
        assert_eq!(client.moved(), 4 * u64::from(TRIES));
    }
}
