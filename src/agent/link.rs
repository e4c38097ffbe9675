//! The agent's connections: to its site as itself, and to update points as nobody.
//!
//! The site is known by its authority, whatever its address, and knows the client by its certificate. An update
//! point is believed if that authority vouches for it; what it hands out is signed anyway, so it need not know who
//! asks. Nothing here tries again by itself, but for a server that asks to be left alone for a moment.

use client::catalogue::{Asked, MAX_SIGNED, UpdatePoint};
use client::patience::Why;
use client::scan::retry::Class;
use dp::identity::{self, Distrust, Identity, Peer};
use futures::StreamExt;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{RequestBuilder, Url};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use sync::shard::blob::{MAX_PACKED, Name};
use tokio::runtime::Handle;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest time without a byte: a question that waits at the site is quiet for a minute.
const SILENCE: Duration = Duration::from_secs(90);
/// The longest answer of a site, in bytes: a policy.
const MAX_ANSWER: usize = 2 << 20;
/// How many blobs are asked for at a time.
const AT_A_TIME: usize = 8;
/// How often, and for how long at most, a server is left alone that asks for it while a catalogue is brought.
const BUSY: (u32, Duration) = (5, Duration::from_secs(15));

/// The kind of problem by which a site says that it does not know a client any more.
const REMOVED: &str = "urn:depot:problem:removed-client";

/// Why a question came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there, or nobody who is believed.
    #[error("{0}")]
    Unreachable(String),
    /// The site does not let this client in.
    #[error("the site does not let this client in: {0}")]
    NotLetIn(String),
    /// It does not know this client any more: somebody removed it.
    #[error("the site does not let this client in: {0}")]
    Removed(String),
    /// It has too much to do, or is not ready.
    #[error("the server has too much to do: {why}")]
    Busy {
        /// For how long it wants to be left alone.
        after: Option<Duration>,
        /// Its words.
        why: String,
    },
    /// It refuses.
    #[error("the server answered {status}: {why}")]
    Refused {
        /// The status.
        status: u16,
        /// Its words.
        why: String,
    },
    /// It answers what makes no sense.
    #[error("{0}")]
    BadAnswer(String),
}

impl Trouble {
    /// What it is to a scan.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) => Class::Unreachable,
            Self::Busy { .. } => Class::Busy,
            Self::NotLetIn(_) | Self::Removed(_) => Class::Refused,
            Self::Refused { status: 401 | 403, .. } => Class::Refused,
            Self::Refused { .. } | Self::BadAnswer(_) => Class::BadAnswer,
        }
    }

    /// What it is to one that asks again.
    pub fn why(&self) -> Why {
        match self {
            Self::NotLetIn(_) | Self::Removed(_) => Why::NotLetIn,
            Self::Busy { after, .. } => Why::Away(*after),
            Self::Unreachable(_) | Self::Refused { .. } | Self::BadAnswer(_) => Why::Away(None),
        }
    }
}

/// An answer that is none of trouble.
#[derive(Debug)]
pub struct Answer {
    /// Its status: of success, or that nothing changed.
    pub status: StatusCode,
    /// Its body.
    pub body: Vec<u8>,
}

/// One address of the site.
struct Door {
    address: String,
    http: reqwest::Client,
    base: Url,
}

/// The way to the site.
pub struct Site {
    doors: Vec<Door>,
    /// The one that was open last.
    last: AtomicUsize,
}

impl Site {
    /// As this client.
    pub fn of(identity: &Identity, addresses: &[String]) -> Result<Self, identity::IdentityError> {
        let clock: packager::Clock = std::sync::Arc::new(jiff::Timestamp::now);
        let config = identity::client_config(identity, &clock)?;
        Self::by(&config, addresses)
    }

    /// As a machine that joins, at the site with the authority of this fingerprint.
    pub fn joining(
        authority: [u8; 32],
        addresses: &[String],
    ) -> Result<Self, identity::IdentityError> {
        let clock: packager::Clock = std::sync::Arc::new(jiff::Timestamp::now);
        let config = identity::joining_config(authority, &clock)?;
        Self::by(&config, addresses)
    }

    fn by(
        config: &rustls::ClientConfig,
        addresses: &[String],
    ) -> Result<Self, identity::IdentityError> {
        let mut doors = Vec::new();
        for address in addresses {
            let (builder, base) = identity::client(config, &Peer::Site, address)?;
            let http = with_times(builder)
                .build()
                .map_err(|_| identity::IdentityError::BadAddress(address.clone()))?;
            doors.push(Door { address: address.clone(), http, base });
        }
        Ok(Self { doors, last: AtomicUsize::new(0) })
    }

    /// Where that is, of an address in a policy. A site that was not told where it is reached says by its own name
    /// that it is itself: then that is where it was reached last.
    pub fn place(&self, address: &str) -> String {
        let is_site = |url: Url| url.host_str() == Some(&Peer::Site.name());
        let last = self.doors.get(self.last.load(Relaxed));
        match last.filter(|_| Url::parse(address).is_ok_and(is_site)) {
            Some(door) => door.address.clone(),
            None => address.to_owned(),
        }
    }

    /// Asks at each address until one is open.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&[u8], &'static str)>,
    ) -> Result<Answer, Trouble> {
        self.ask_for(method, path, body, MAX_ANSWER).await
    }

    /// The same, for an answer of at most `most` bytes.
    pub async fn ask_for(
        &self,
        method: Method,
        path: &str,
        body: Option<(&[u8], &'static str)>,
        most: usize,
    ) -> Result<Answer, Trouble> {
        let mut closed = Trouble::Unreachable("the site has no address".into());
        for n in 0..self.doors.len() {
            let at = (self.last.load(Relaxed) + n) % self.doors.len();
            let door = &self.doors[at];
            let url =
                door.base.join(path).map_err(|error| Trouble::BadAnswer(error.to_string()))?;
            let mut request = door.http.request(method.clone(), url);
            if let Some((bytes, kind)) = body {
                request = request.header(header::CONTENT_TYPE, kind).body(bytes.to_vec());
            }
            match send(request, &door.address, most).await {
                Err(trouble @ Trouble::Unreachable(_)) => closed = trouble,
                answer => {
                    self.last.store(at, Relaxed);
                    return answer;
                }
            }
        }
        Err(closed)
    }
}

fn with_times(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .user_agent(concat!("depot-agent/", env!("CARGO_PKG_VERSION")))
}

/// Sends a request, and reads an answer of at most `most` bytes.
async fn send(request: RequestBuilder, shown: &str, most: usize) -> Result<Answer, Trouble> {
    let unreachable = |error: reqwest::Error| {
        let why = match Distrust::of(&error) {
            Some(distrust) => distrust.to_string(),
            // Its own text names the site by what its certificate says, which is no address.
            None => crate::exit::with_causes(&error.without_url()),
        };
        Trouble::Unreachable(format!("cannot reach {shown}: {why}"))
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let (status, after) = (response.status(), retry_after(response.headers()));
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > most {
            return Err(Trouble::BadAnswer(format!("{shown} sent far more than was asked for")));
        }
        body.extend_from_slice(&piece);
    }
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(Answer { status, body });
    }
    let problem = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    let said = |field: &str| problem.get(field).and_then(serde_json::Value::as_str);
    let (detail, is_removed) = (said("detail"), said("type") == Some(REMOVED));
    let why = detail.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason")).to_owned();
    let why: String = why.chars().take(500).collect();
    Err(match status {
        StatusCode::FORBIDDEN if is_removed => Trouble::Removed(why),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::NotLetIn(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Trouble::Busy { after, why }
        }
        _ => Trouble::Refused { status: status.as_u16(), why },
    })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An HTTP client that believes whomever that authority (in PEM) vouches for.
pub fn believing(authority: &str) -> Result<reqwest::Client, Trouble> {
    asking(authority, true)
}

/// One that brings content, whose bytes are checked by their digest: so it may also be in plain HTTP.
pub fn bringing(authority: &str) -> Result<reqwest::Client, Trouble> {
    asking(authority, false)
}

fn asking(authority: &str, https_only: bool) -> Result<reqwest::Client, Trouble> {
    let clock: packager::Clock = std::sync::Arc::new(jiff::Timestamp::now);
    let unusable =
        |error: &dyn std::error::Error| Trouble::BadAnswer(crate::exit::with_causes(error));
    let config = identity::fetching_config(authority, &clock).map_err(|error| unusable(&error))?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured((*config).clone())
        .redirect(reqwest::redirect::Policy::none())
        .https_only(https_only)
        .no_proxy();
    with_times(builder).build().map_err(|error| unusable(&error))
}

/// An update point, asked from a thread that may block.
pub struct Point {
    http: reqwest::Client,
    base: Url,
    runtime: Handle,
}

impl Point {
    /// The one at that address.
    pub fn at(http: reqwest::Client, address: &str, runtime: Handle) -> Result<Self, Trouble> {
        let bad = |_| Trouble::BadAnswer(format!("{address:?} is no address of an update point"));
        let base = Url::parse(&format!("{}/", address.trim_end_matches('/'))).map_err(bad)?;
        Ok(Self { http, base, runtime })
    }

    async fn get(&self, path: &str, tag: Option<&str>, most: usize) -> Result<Answer, Trouble> {
        let url = self.base.join(path).map_err(|error| Trouble::BadAnswer(error.to_string()))?;
        let mut left = BUSY.0;
        loop {
            let mut request = self.http.get(url.clone());
            if let Some(tag) = tag {
                request = request.header(header::IF_NONE_MATCH, format!("\"{tag}\""));
            }
            match send(request, self.base.as_str(), most).await {
                Err(Trouble::Busy { after: Some(after), .. }) if left > 0 && after <= BUSY.1 => {
                    left -= 1;
                    tokio::time::sleep(after).await;
                }
                answer => return answer,
            }
        }
    }
}

impl UpdatePoint for Point {
    type Error = Trouble;

    fn manifest(&mut self, tag: Option<&str>) -> Result<Asked, Trouble> {
        let answer = self.runtime.block_on(self.get("api/v1/catalogue", tag, MAX_SIGNED))?;
        Ok(match answer.status {
            StatusCode::NOT_MODIFIED => Asked::Same,
            _ => Asked::Bytes(answer.body),
        })
    }

    fn blobs(
        &mut self,
        names: &[Name],
        take: &mut dyn FnMut(Name, &[u8]) -> bool,
    ) -> Result<(), Trouble> {
        let this = &*self;
        let bring = async move {
            let asked = futures::stream::iter(names.iter().copied()).map(|name| async move {
                let path = format!("api/v1/catalogue/shards/{name}");
                this.get(&path, None, MAX_PACKED).await.map(|answer| (name, answer.body))
            });
            let mut asked = asked.buffer_unordered(AT_A_TIME);
            while let Some(came) = asked.next().await {
                let (name, packed) = came?;
                if !take(name, &packed) {
                    break;
                }
            }
            Ok(())
        };
        self.runtime.block_on(bring)
    }
}
