//! How a command reaches its site: REST over HTTP, or the same REST in this process.
//!
//! Every command makes the same requests and reads the same answers either way, so `--data DIR`
//! and `--url URL` cannot drift apart. An answer that is not a success becomes a [`Failure`] with
//! the exit code that the status stands for and the text of its problem document (RFC 9457).

mod events;
mod in_process;
pub mod point;
mod remote;
mod trust;

use crate::{
    cli::Shared,
    exit::{Exit, Failure, one_line, with_causes},
};
use api::{
    page::{MAX_LIMIT, Page},
    problem::{Kind, Problem},
};
use bytes::{Bytes, BytesMut};
pub use events::Events;
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderMap, Method, StatusCode, header};
pub use in_process::{InProcess, open_failure};
pub use remote::{Remote, is_default, with_tls};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
pub use trust::of as trust_of;

/// Root of the admin API.
pub const API: &str = "/api/v1";
/// An answer held in memory is at most this long; longer ones are streamed or paged.
const MAX_ANSWER: usize = 64 << 20;

/// A site to speak to.
pub enum Client {
    /// Another process, over HTTP.
    Remote(Remote),
    /// A data folder, opened in this process.
    InProcess(InProcess),
}

/// One request.
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Path and query, from the root of the server.
    pub path: String,
    /// Headers beside content type and authorisation.
    pub headers: HeaderMap,
    /// What is sent, and its media type.
    pub body: Option<(Sent, &'static str)>,
}

/// What is sent with a request.
pub enum Sent {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, read as it is sent, and its length.
    File(tokio::fs::File, u64),
}

impl Request {
    /// A request without a body; `path` lies below [`API`].
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: format!("{API}{path}"), headers: HeaderMap::new(), body: None }
    }

    /// A request outside [`API`]: of the content plane.
    pub fn at(method: Method, path: String) -> Self {
        Self { method, path, headers: HeaderMap::new(), body: None }
    }

    /// Sends `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, Failure> {
        let json = Sent::Bytes(serde_json::to_vec(value)?.into());
        self.body = Some((json, "application/json"));
        Ok(self)
    }

    /// Sends bytes of another kind.
    pub fn bytes(mut self, bytes: Bytes, media_type: &'static str) -> Self {
        self.body = Some((Sent::Bytes(bytes), media_type));
        self
    }

    /// Sends a file.
    pub async fn file(mut self, path: &Path) -> Result<Self, Failure> {
        let input = |error: std::io::Error| Failure::input(path, error);
        let file = tokio::fs::File::open(path).await.map_err(input)?;
        let length = file.metadata().await.map_err(input)?.len();
        self.body = Some((Sent::File(file, length), "application/octet-stream"));
        Ok(self)
    }
}

/// An answer whose body is still on its way.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it comes in.
    pub body: BoxStream<'static, Result<Bytes, Failure>>,
}

impl Reply {
    /// The whole body, of at most [`MAX_ANSWER`] bytes.
    pub async fn collect(mut self) -> Result<Bytes, Failure> {
        let mut all = BytesMut::new();
        while let Some(part) = self.body.next().await {
            all.extend_from_slice(&part?);
            if all.len() > MAX_ANSWER {
                return Err(Failure::failed("the server's answer is too long"));
            }
        }
        Ok(all.freeze())
    }
}

impl Client {
    /// Opens the data folder, or prepares to speak to the server, that the flags name.
    pub fn open(shared: &Shared) -> Result<Self, Failure> {
        match &shared.data {
            Some(dir) => match dp::node::is_point(dir).then(|| point::running(dir)).transpose()? {
                Some(Some(socket)) => Ok(Self::Remote(Remote::at_socket(socket, dir)?)),
                Some(None) | None => Ok(Self::InProcess(InProcess::open(dir)?)),
            },
            None => Ok(Self::Remote(Remote::new(shared)?)),
        }
    }

    /// Sends a request; an answer that is not a success is a [`Failure`].
    pub async fn send(&self, request: Request) -> Result<Reply, Failure> {
        let reply = match self {
            Self::Remote(remote) => remote.send(request).await?,
            Self::InProcess(site) => site.send(request).await?,
        };
        if reply.status.is_success() {
            return Ok(reply);
        }
        Err(self.refusal(reply).await)
    }

    /// Sends a request and reads the JSON that answers it.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        let body = self.send(request).await?.collect().await?;
        parse(&body)
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Request::new(Method::GET, path)).await
    }

    /// The first `limit` items of a list, page by page.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
        limit: usize,
    ) -> Result<Vec<T>, Failure> {
        if limit == 0 {
            return Err(Failure::usage("--limit must be at least 1, not 0"));
        }
        let mut items: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < limit {
            let page_size = (limit - items.len()).min(MAX_LIMIT).to_string();
            let mut query = query.to_vec();
            query.push(("limit", Some(&page_size)));
            query.push(("cursor", cursor.as_deref()));
            let page: Page<T> = self.get(&with_query(path.to_owned(), &query)).await?;
            items.extend(page.items);
            let Some(next) = page.next else { break };
            cursor = Some(next);
        }
        items.truncate(limit);
        Ok(items)
    }

    /// `POST` of a JSON value.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Failure> {
        self.ask(Request::new(Method::POST, path).json(body)?).await
    }

    /// `PUT` of a JSON value.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Failure> {
        self.ask(Request::new(Method::PUT, path).json(body)?).await
    }

    /// Whether paths mean the same to the site as here.
    pub fn is_on_this_machine(&self) -> bool {
        match self {
            Self::Remote(remote) => remote.is_loopback(),
            Self::InProcess(_) => true,
        }
    }

    /// Where the site is, for messages.
    pub fn place(&self) -> String {
        match self {
            Self::Remote(remote) => remote.shown().to_owned(),
            Self::InProcess(site) => site.dir().display().to_string(),
        }
    }

    /// Ends what an in-process site has running, and closes its library.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Remote(_) => Ok(()),
            Self::InProcess(site) => site.close().await,
        }
    }

    async fn refusal(&self, reply: Reply) -> Failure {
        let status = reply.status;
        let is_problem = reply
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("application/problem+json"));
        let elsewhere = reply.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
        let elsewhere = elsewhere.filter(|_| status.is_redirection()).map(one_line);
        let problem = match reply.collect().await {
            Ok(body) if is_problem => serde_json::from_slice::<Problem>(&body).ok(),
            _ => None,
        };
        let Some(problem) = problem else {
            return Failure::new(exit_of(status), self.bare_refusal(status, elsewhere));
        };
        let mut failure = failure_of(&problem);
        if let (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Self::Remote(remote)) =
            (status, self)
        {
            failure.message = format!("{} ({})", failure.message, remote.token_hint());
        }
        failure
    }

    /// For answers that are no problem document: another program's, or a proxy's.
    fn bare_refusal(&self, status: StatusCode, elsewhere: Option<String>) -> String {
        match (status, elsewhere) {
            (StatusCode::NOT_FOUND, _) => {
                format!("{} has no such address; is it a depot site?", self.place())
            }
            (_, Some(elsewhere)) => format!(
                "{} answers {status}, to {elsewhere}; if the site is there, name it with --url",
                self.place()
            ),
            _ => format!("{} answers {status}", self.place()),
        }
    }
}

/// A problem as a failure of this command.
pub fn failure_of(problem: &Problem) -> Failure {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let exit = if problem.is(Kind::Damaged) { Exit::Damaged } else { exit_of(status) };
    let mut message = one_line(&problem.to_string());
    if message.is_empty() {
        message = one_line(&problem.title);
    }
    let mut failure = Failure::new(exit, message);
    failure.may_pass =
        [Kind::Busy, Kind::TooManyRequests, Kind::Unavailable].iter().any(|kind| problem.is(*kind));
    failure
}

/// The exit code that a status stands for; `depot --help` lists them.
fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        StatusCode::CONFLICT | StatusCode::LOCKED | StatusCode::PRECONDITION_FAILED => {
            Exit::Conflict
        }
        _ => Exit::Failed,
    }
}

/// Reads an answer's JSON; `null` may stand for an empty body.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        Failure::failed(format!("the server's answer is not understood: {}", with_causes(&error)))
    })
}

/// A path below [`API`] from its segments, each made safe for a URL.
pub fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        escape(&mut path, segment.as_bytes());
    }
    path
}

/// A path and its query; parameters without a value are left out.
pub fn with_query(mut path: String, query: &[(&str, Option<&str>)]) -> String {
    let mut mark = '?';
    for (name, value) in query {
        if let Some(value) = value {
            path.push(mark);
            path.push_str(name);
            path.push('=');
            escape(&mut path, value.as_bytes());
            mark = '&';
        }
    }
    path
}

/// Percent-encodes all but the unreserved characters of RFC 3986, section 2.3, and `:`, which a
/// digest holds and a path segment may.
fn escape(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_segment_cannot_leave_its_place() {
        assert_eq!(path(&["packages", "a/../b c?x"]), "/packages/a%2F..%2Fb%20c%3Fx");
        assert_eq!(
            with_query(path(&["x"]), &[("a", None), ("b", Some("1&2")), ("c", Some("é"))]),
            "/x?b=1%262&c=%C3%A9"
        );
    }

    #[tokio::test]
    async fn a_redirect_is_no_success() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            let answer =
                "HTTP/1.1 301 Moved\r\nLocation: https://there/\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).expect("answered");
        });
        let (data, token_file) = (None, None);
        let shared = Shared {
            data,
            url: Some(url),
            token_file,
            ca: None,
            json: false,
            quiet: true,
            verbose: 0,
        };
        let client = Client::open(&shared).expect("an address");
        let sent = client.send(Request::new(Method::DELETE, "/packages/x")).await;
        let Err(failure) = sent else { panic!("a redirect passed for a success") };
        assert!(failure.message.contains("301") && failure.message.contains("https://there/"));
        server.join().expect("it answered");
    }

    #[test]
    fn a_problem_is_one_line_and_an_exit_code() {
        let failure = failure_of(&Problem::field("name", "must not be\nempty"));
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Usage, "name must not be empty")
        );
        let exits = [Kind::NotFound, Kind::Conflict, Kind::Damaged, Kind::Internal]
            .map(|kind| failure_of(&Problem::new(kind, "x")).exit);
        assert_eq!(exits, [Exit::NotFound, Exit::Conflict, Exit::Damaged, Exit::Failed]);
    }
}
