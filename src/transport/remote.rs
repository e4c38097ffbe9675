//! REST over HTTP to another process.
//!
//! Always true: the token comes from a file and goes only to the server that was named, never
//! into a message, a log or an argument; a redirect is not followed, so it cannot leave with it;
//! a server that stops sending is given up after [`SILENCE`], a slow one never.

use super::{Reply, Request, Sent, trust};
use crate::{
    cli::Shared,
    exit::{Failure, with_causes},
};
use dp::identity::Distrust;
use dp::node::ShortPath;
use futures::StreamExt;
use http::{HeaderValue, header};
use rustls::ClientConfig;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where `make run` starts a site.
const DEFAULT_URL: &str = "http://127.0.0.1:8520";
/// Stands for a distribution point that is asked at its socket.
const POINT: &str = "http://point";
/// Where that site leaves its admin's token, seen from the folder it was started in.
const DEFAULT_TOKEN_FILE: &str = "depot-data/admin.token";
/// Longest wait for the first connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time without a byte; running jobs send signs of life far more often.
const SILENCE: Duration = Duration::from_secs(120);
/// A token is far shorter; whoever names another file by mistake does not send it off.
const MAX_TOKEN: u64 = 1024;

/// A server, and the right to speak to it.
pub struct Remote {
    http: reqwest::Client,
    base: String,
    token: Option<HeaderValue>,
    token_file: Option<PathBuf>,
    /// Nobody named a server: this is the default one.
    by_default: bool,
    trust: Option<Arc<ClientConfig>>,
    place: Place,
}

/// How the server is reached.
enum Place {
    /// At the address that its URL names.
    Address,
    /// At a distribution point's socket in this folder, which is open for as long as it is used.
    Socket { folder: String, _open: ShortPath },
}

impl Remote {
    /// The server that flags or environment name, else the default one.
    pub fn new(shared: &Shared) -> Result<Self, Failure> {
        let not_utf8 = |_| Failure::usage("DEPOT_URL must be UTF-8");
        let named = match (&shared.url, variable("DEPOT_URL")) {
            (None, Some(url)) => Some(url.into_string().map_err(not_utf8)?),
            (flag, _) => flag.clone(),
        };
        let by_default = named.is_none();
        let base = checked_base(named.as_deref().unwrap_or(DEFAULT_URL))?;
        let named_file =
            shared.token_file.clone().or_else(|| variable("DEPOT_TOKEN_FILE").map(PathBuf::from));
        let token_file = named_file.or_else(|| {
            let file = PathBuf::from(DEFAULT_TOKEN_FILE);
            (by_default && std::fs::File::open(&file).is_ok()).then_some(file)
        });
        let token = token_file.as_deref().map(read_token).transpose()?;
        let trust = trust::of(shared)?;
        let http = client(&base, trust.as_ref())?;
        Ok(Self { http, base, token, token_file, by_default, trust, place: Place::Address })
    }

    /// A distribution point that runs in a folder of this machine, asked at its socket.
    pub fn at_socket(socket: ShortPath, folder: &Path) -> Result<Self, Failure> {
        with_tls();
        let http = reqwest::Client::builder()
            .user_agent(concat!("depot/", env!("CARGO_PKG_VERSION")))
            .unix_socket(socket.path())
            .read_timeout(SILENCE)
            .no_proxy()
            .build()?;
        let place = Place::Socket { folder: folder.display().to_string(), _open: socket };
        let (token, token_file, trust) = (None, None, None);
        Ok(Self {
            http,
            base: POINT.to_owned(),
            token,
            token_file,
            by_default: false,
            trust,
            place,
        })
    }

    /// Where it is, for messages.
    pub fn shown(&self) -> &str {
        match &self.place {
            Place::Socket { folder, .. } => folder,
            Place::Address => &self.base,
        }
    }

    /// Scheme and authority, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whom it is believed to be, if that was said.
    pub fn trust(&self) -> Option<Arc<ClientConfig>> {
        self.trust.clone()
    }

    /// Whether the server is on this machine.
    pub fn is_loopback(&self) -> bool {
        matches!(self.place, Place::Socket { .. }) || is_loopback(&self.base)
    }

    /// What to do about an answer of 401 or 403.
    pub fn token_hint(&self) -> String {
        match &self.token_file {
            Some(file) => format!("token from {}", file.display()),
            None if variable("DEPOT_TOKEN").is_some() => "DEPOT_TOKEN is not read: put the token \
                into a file, and name that with --token-file or DEPOT_TOKEN_FILE"
                .to_owned(),
            None => "name the token's file with --token-file or DEPOT_TOKEN_FILE".to_owned(),
        }
    }

    /// Sends one request.
    pub async fn send(&self, request: Request) -> Result<Reply, Failure> {
        let mut built = self
            .http
            .request(request.method, format!("{}{}", self.base, request.path))
            .headers(request.headers);
        if let Some(token) = &self.token {
            built = built.header(header::AUTHORIZATION, token.clone());
        }
        if let Some((body, media_type)) = request.body {
            built = built.header(header::CONTENT_TYPE, media_type);
            built = match body {
                Sent::Bytes(bytes) => built.body(bytes),
                Sent::File(file, length) => {
                    built.header(header::CONTENT_LENGTH, length).body(reqwest::Body::from(file))
                }
            };
        }
        let response = built.send().await.map_err(|error| self.unreachable(&error))?;
        let base = self.shown().to_owned();
        Ok(Reply {
            status: response.status(),
            headers: response.headers().clone(),
            body: response
                .bytes_stream()
                .map(move |part| part.map_err(|e| broken_off(&base, &e)))
                .boxed(),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if !error.is_connect() {
            return broken_off(self.shown(), error);
        }
        if Distrust::of(error).is_some() {
            return Failure::failed(format!(
                "the server at {} is not believed: {}; --ca FILE names whom to believe, and `depot \
                 site authority` on a site prints its own",
                self.base,
                last_cause(error)
            ));
        }
        let hint = if self.by_default {
            "; start one with `make run` or `depot serve`, name another with --url, or work on a \
             folder with --data DIR"
        } else {
            ""
        };
        let cause = last_cause(error);
        Failure::failed(format!("no server answers at {}: {cause}{hint}", self.shown())).passing()
    }
}

/// Of the chain only the last says something: "connection refused".
fn last_cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}

fn broken_off(base: &str, error: &reqwest::Error) -> Failure {
    Failure::failed(format!("the connection to {base} broke off: {}", with_causes(error))).passing()
}

/// An environment variable that holds something.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A server's address without a slash at the end; `host:port` alone is taken as HTTP.
pub fn checked_base(url: &str) -> Result<String, Failure> {
    let text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |why: &str| {
        Failure::usage(format!("{url} is no server address: {why}; want for example {DEFAULT_URL}"))
    };
    let parsed = reqwest::Url::parse(&text).map_err(|e| wrong(&e.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("only http and https are spoken"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("a name or password does not belong in it; use --token-file"));
    }
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
        return Err(wrong("it has a path"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Reads a token's file: one line of visible ASCII.
fn read_token(file: &Path) -> Result<HeaderValue, Failure> {
    let wrong = |why: String| Failure::usage(format!("token file {}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_TOKEN {
        return Err(wrong("too long to be a token".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("holds no token; want one line of visible ASCII".to_owned()));
    }
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).expect("visible ASCII is a header value");
    value.set_sensitive(true);
    Ok(value)
}

/// Chooses the cryptography of this process's TLS. To be called before anything speaks HTTP.
pub fn with_tls() {
    // The provider is process-wide; a second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client for one server.
fn client(base: &str, trust: Option<&Arc<ClientConfig>>) -> Result<reqwest::Client, Failure> {
    with_tls();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("depot/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .tcp_nodelay(true);
    if let Some(trust) = trust {
        builder = builder.use_preconfigured_tls((**trust).clone());
    }
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// Whether commands find the server at `url` without being told.
pub fn is_default(url: &str) -> bool {
    url == DEFAULT_URL
}

fn is_loopback(base: &str) -> bool {
    reqwest::Url::parse(base).is_ok_and(|url| dp::remote::Client::is_on_this_machine(&url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_server_is_named_by_scheme_and_host_only() {
        assert_eq!(checked_base("127.0.0.1:8520").expect("fine"), "http://127.0.0.1:8520");
        assert_eq!(checked_base("https://depot.example/").expect("fine"), "https://depot.example");
        for bad in ["ftp://x", "http://x/api", "http://user:pass@x", "http://", "http://x?y=1"] {
            assert_eq!(checked_base(bad).expect_err(bad).exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn a_file_that_is_no_token_is_not_sent() {
        let dir = std::env::temp_dir().join(format!("depot-token-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temp folder");
        for (name, text) in
            [("empty", "\n".to_owned()), ("long", "x".repeat(2000)), ("two", "a b".into())]
        {
            let file = dir.join(name);
            std::fs::write(&file, text).expect("written");
            assert_eq!(read_token(&file).expect_err(name).exit, Exit::Usage, "{name}");
        }
        std::fs::write(dir.join("good"), "abc123\n").expect("written");
        assert!(read_token(&dir.join("good")).expect("a token").is_sensitive());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
