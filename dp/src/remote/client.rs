//! Requests to a distribution point, tried again while that makes sense.
//!
//! Every wait ends after [`PROGRESS`] without a byte, and none before. A failure that may pass (no
//! connection, a cut answer, a 5xx) is tried [`TRIES`] times with growing pauses; each byte of
//! progress starts the count anew, bytes that came before do not.

use super::{RemoteError, address};
use crate::frames::IDS_TYPE;
use crate::package::VERSION_TYPE;
use bytes::{Bytes, BytesMut};
use contentlib::frames::{FrameDecoder, FrameItem, MEDIA_TYPE};
use contentlib::{ChunkId, Digest, Recipe};
use packager::sign::VersionInfo;
use packager::{PackageName, Selector};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long to wait for the next byte.
const PROGRESS: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// How often a request is made in all, if nothing comes of it.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest description of a version.
const MAX_VERSION: usize = 64 << 10;
/// The longest problem document.
const MAX_PROBLEM: usize = 64 << 10;
/// The longest recipe: 2^21 chunks of 36 bytes, and a head.
const MAX_RECIPE: usize = 80 << 20;

/// A client of one server's content plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    moved: Arc<AtomicU64>,
}

/// Why one try failed.
enum Failed {
    /// It may work the next time.
    Passing(RemoteError, Option<Duration>),
    Final(RemoteError),
}

impl Client {
    /// A client of the server at this address.
    ///
    /// # Panics
    /// If the process has installed no rustls provider.
    pub fn new(server: &str) -> Result<Self, RemoteError> {
        Self::of_url(address::parse_server(server)?)
    }

    /// A client of the server at `server`, a URL that ends in a slash, over connections that
    /// somebody else sets up; [`Client::with_times`] sets their times.
    pub fn over(http: reqwest::Client, server: Url) -> Self {
        Self { http, server, moved: Arc::default() }
    }

    /// Connections with the times of this module: they wait for progress, and not for a total.
    pub fn with_times(http: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        http.connect_timeout(CONNECT)
            .read_timeout(PROGRESS)
            .tcp_keepalive(PROGRESS)
            .user_agent(concat!("depot/", env!("CARGO_PKG_VERSION")))
    }

    pub(super) fn of_url(server: Url) -> Result<Self, RemoteError> {
        let mut http = Self::with_times(reqwest::Client::builder());
        if Self::is_on_this_machine(&server) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|source| RemoteError::Transport { url: server.to_string(), source })?;
        Ok(Self::over(http, server))
    }

    /// Where the server is.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// The same client, over the same connections, that counts anew what it receives.
    pub fn counting_anew(&self) -> Self {
        Self { moved: Arc::default(), ..self.clone() }
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

    fn url(&self, path: &str) -> Url {
        self.server.join(path).expect("paths of the protocol are relative URLs")
    }

    /// The signed description of a version; not yet verified.
    pub async fn version(
        &self,
        package: &PackageName,
        selector: &Selector,
    ) -> Result<VersionInfo, RemoteError> {
        let url = self.url(&format!("packages/{package}/{selector}"));
        let wanted = Wanted { accept: Some(VERSION_TYPE), ..Wanted::all(MAX_VERSION) };
        let bytes = self.get(&url, wanted).await?;
        let malformed = |_| RemoteError::Malformed {
            url: url.to_string(),
            wanted: "the description of a version",
        };
        serde_json::from_slice(&bytes).map_err(malformed)
    }

    /// A whole content of at most `max` bytes, checked.
    pub async fn content(&self, digest: Digest, max: usize) -> Result<Bytes, RemoteError> {
        let url = self.url(&format!("content/{digest}"));
        let bytes = self.get(&url, Wanted::all(max)).await?;
        checked(&url, bytes, digest)
    }

    /// The bytes `range` of a content, checked to be `chunk`.
    pub(crate) async fn part(
        &self,
        content: Digest,
        range: Range<u64>,
        chunk: ChunkId,
    ) -> Result<Bytes, RemoteError> {
        let url = self.url(&format!("content/{content}"));
        let max = (range.end - range.start) as usize;
        let wanted = Wanted { part: Some(range), ..Wanted::all(max) };
        let bytes = self.get(&url, wanted).await?;
        checked(&url, bytes, chunk.0)
    }

    /// The recipe of a content; `None` if the server does not hold it. It is not yet checked to be
    /// that content's.
    pub async fn recipe(&self, digest: Digest) -> Result<Option<Recipe>, RemoteError> {
        let url = self.url(&format!("recipes/{digest}"));
        let bytes = match self.get(&url, Wanted::all(MAX_RECIPE)).await {
            Err(RemoteError::Refused { status: 404, .. }) => return Ok(None),
            bytes => bytes?,
        };
        let malformed = |_| RemoteError::Malformed { url: url.to_string(), wanted: "a recipe" };
        Recipe::decode(&bytes).map(Some).map_err(malformed)
    }

    /// Asks once for `ids`, at most 4096, and hands on what comes. An error may pass: ask again
    /// for what is still missing with [`Retry`].
    pub(super) async fn chunks(
        &self,
        ids: &[ChunkId],
        retry: &mut Retry,
        mut take: impl AsyncFnMut(FrameItem) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let Some(mut frames) = self.frames(ids, retry).await? else { return Ok(()) };
        while let Some(item) = frames.next(retry).await? {
            take(item).await?;
        }
        Ok(())
    }

    /// Asks once for `ids`, at most 4096. After a failure that may pass it waits, and there is
    /// nothing.
    pub(crate) async fn frames(
        &self,
        ids: &[ChunkId],
        retry: &mut Retry,
    ) -> Result<Option<Frames>, RemoteError> {
        let url = self.url("chunks");
        let body: Vec<u8> = ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
        let request = self.http.post(url.clone()).header(CONTENT_TYPE, IDS_TYPE);
        let request = request.header(ACCEPT, MEDIA_TYPE).body(body);
        match accepted(&url, request.send().await).await {
            Ok(response) => {
                let (decoder, moved) = (FrameDecoder::default(), self.moved.clone());
                Ok(Some(Frames { url, response, decoder, moved }))
            }
            Err(failed) => retry.pause(failed).await.map(|()| None),
        }
    }

    /// A body. A cut answer is gone on with where it was cut.
    async fn get(&self, url: &Url, wanted: Wanted) -> Result<Bytes, RemoteError> {
        let (mut retry, mut furthest) = (Retry::default(), 0);
        let mut got = BytesMut::new();
        loop {
            let failed = match self.try_get(url, &wanted, &mut got).await {
                Ok(()) => return Ok(got.freeze()),
                Err(failed) => failed,
            };
            // What comes again is no progress: not every proxy goes on where it is asked to.
            if got.len() > furthest {
                furthest = got.len();
                retry.progressed();
            }
            retry.pause(failed).await?;
        }
    }

    async fn try_get(&self, url: &Url, wanted: &Wanted, got: &mut BytesMut) -> Result<(), Failed> {
        let mut request = self.http.get(url.clone());
        if let Some(accept) = wanted.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = wanted.range(got.len()) {
            request = request.header(RANGE, range);
        }
        let sent = request.send().await;
        let past_the_end =
            sent.as_ref().is_ok_and(|r| r.status() == StatusCode::RANGE_NOT_SATISFIABLE);
        if past_the_end && !got.is_empty() {
            // The answer was cut right after its last byte.
            return Ok(());
        }
        let mut response = accepted(url, sent).await?;
        let malformed =
            |wanted| Failed::Final(RemoteError::Malformed { url: url.to_string(), wanted });
        if response.status() != StatusCode::PARTIAL_CONTENT {
            if wanted.part.is_some() {
                return Err(malformed("the range that was asked for"));
            }
            got.clear();
        }
        while let Some(bytes) = response.chunk().await.map_err(|e| passing(url, e))? {
            self.moved.fetch_add(bytes.len() as u64, Relaxed);
            if got.len() + bytes.len() > wanted.max {
                return Err(malformed("a document of reasonable length"));
            }
            got.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

/// An answer with chunks.
pub(crate) struct Frames {
    url: Url,
    response: Response,
    decoder: FrameDecoder,
    moved: Arc<AtomicU64>,
}

impl Frames {
    /// The next item. After a failure that may pass it waits, and there is no more; only an answer
    /// that came whole has an end mark.
    pub async fn next(&mut self, retry: &mut Retry) -> Result<Option<FrameItem>, RemoteError> {
        match self.try_next(retry).await {
            Ok(item) => Ok(item),
            Err(failed) => retry.pause(failed).await.map(|()| None),
        }
    }

    async fn try_next(&mut self, retry: &mut Retry) -> Result<Option<FrameItem>, Failed> {
        let malformed = || {
            let (url, wanted) = (self.url.to_string(), "frames");
            Failed::Passing(RemoteError::Malformed { url, wanted }, None)
        };
        loop {
            if let Some(item) = self.decoder.next_item().map_err(|_| malformed())? {
                retry.progressed();
                return Ok(Some(item));
            }
            match self.response.chunk().await.map_err(|error| passing(&self.url, error))? {
                Some(bytes) => {
                    self.moved.fetch_add(bytes.len() as u64, Relaxed);
                    self.decoder.push(&bytes);
                }
                None if self.decoder.is_complete() => return Ok(None),
                None => return Err(malformed()),
            }
        }
    }
}

/// What a GET is for.
struct Wanted {
    accept: Option<&'static str>,
    /// These bytes alone.
    part: Option<Range<u64>>,
    /// The most bytes that may come.
    max: usize,
}

impl Wanted {
    fn all(max: usize) -> Self {
        Self { accept: None, part: None, max }
    }

    /// The `Range` header, once the first `got` bytes came.
    fn range(&self, got: usize) -> Option<String> {
        match &self.part {
            Some(part) => Some(format!("bytes={}-{}", part.start + got as u64, part.end - 1)),
            None => (got > 0).then(|| format!("bytes={got}-")),
        }
    }
}

fn checked(url: &Url, bytes: Bytes, digest: Digest) -> Result<Bytes, RemoteError> {
    if Digest::of(&bytes) != digest {
        return Err(RemoteError::WrongBytes { url: url.to_string(), digest });
    }
    Ok(bytes)
}

fn passing(url: &Url, source: reqwest::Error) -> Failed {
    Failed::Passing(RemoteError::Transport { url: url.to_string(), source }, None)
}

/// The response, if it is one of success.
async fn accepted(url: &Url, sent: reqwest::Result<Response>) -> Result<Response, Failed> {
    let response = sent.map_err(|e| passing(url, e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let detail = reason(response).await;
    let detail = detail.or_else(|| status.canonical_reason().map(str::to_owned));
    let detail = detail.unwrap_or_default();
    let error = RemoteError::Refused { url: url.to_string(), status: status.as_u16(), detail };
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Failed::Passing(error, after.map(Duration::from_secs)));
    }
    Err(Failed::Final(error))
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

/// Counts the tries of one piece of work.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
}

impl Retry {
    fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try, or gives up.
    async fn pause(&mut self, failed: Failed) -> Result<(), RemoteError> {
        let (error, after) = match failed {
            Failed::Final(error) => return Err(error),
            Failed::Passing(error, after) => (error, after),
        };
        self.failures += 1;
        if self.failures >= TRIES {
            return Err(error);
        }
        let pause = after.unwrap_or(FIRST_PAUSE * 2u32.pow(self.failures - 1));
        tracing::debug!(%error, ?pause, "trying again");
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
