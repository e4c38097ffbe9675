//! What a point asks its site and tells it.
//!
//! A site may have several addresses; the one that answered last is asked first. Nothing here tries
//! again by itself: whoever asks knows how urgent it is.

use crate::field::{JoinAnswer, JoinRequest, JoinToken, Report, Source, Tree, WishAnswer};
use crate::identity::{self, Distrust, Identity, IdentityError, Peer};
use crate::pace::Line;
use crate::remote::{Client, Server};
use packager::Clock;
use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How long the site may keep a question for the next wish open.
pub(super) const WAIT: Duration = Duration::from_secs(50);
/// How long an answer may be without a byte: a feed that has nothing to say is quiet for [`WAIT`].
const PATIENCE: Duration = Duration::from_secs(80);
/// The longest wish: some ten thousand versions.
const MAX_WISH: usize = 64 << 20;
/// The most other points that are asked.
const MOST_SOURCES: usize = 16;
/// The longest other answer.
const MAX_ANSWER: usize = 256 << 10;

/// Why a question to the site came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Whoever is there is not to be trusted, or does not trust us.
    #[error("cannot speak to the site at {address}")]
    Distrust {
        /// The site's address.
        address: String,
        /// Why.
        source: Distrust,
    },
    /// Nobody could be reached, or did not answer.
    #[error("cannot reach the site at {address}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// Nobody answered in time.
    #[error("the site does not answer")]
    Late,
    /// The site does not know this point any more, or not yet.
    #[error("the site does not let this machine in: {0}")]
    NotLetIn(String),
    /// The site refused for another reason.
    #[error("the site answered {status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
    },
    /// The answer is not what it should be.
    #[error("the site answered with something else than {0}")]
    Malformed(&'static str),
    /// Keys or addresses cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl LinkError {
    /// Whether another address of the site may do better: nobody is there, or somebody who is not the
    /// site and cannot reach it either.
    fn is_of_the_door(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Distrust { .. } => true,
            Self::Refused { status, .. } => matches!(status, 502..=504),
            _ => false,
        }
    }
}

/// One address of the site.
struct Door {
    address: String,
    /// For questions. What the site has to say must not wait behind content, nor a stalled transfer be
    /// waited for as long as a feed, so content has connections of its own.
    http: reqwest::Client,
    /// By slot. What is not read of one version must not keep another's from coming: streams of one
    /// connection share its window.
    content: Mutex<HashMap<usize, (Line, reqwest::Client)>>,
    base: Url,
}

impl Door {
    fn new(config: &ClientConfig, peer: &Peer, address: &str) -> Result<Self, LinkError> {
        let (questions, base) = identity::client(config, peer, address)?;
        let http = Client::with_times(questions).read_timeout(PATIENCE).build();
        let address = address.to_owned();
        match http {
            Ok(http) => Ok(Self { address, http, content: Mutex::default(), base }),
            Err(source) => Err(LinkError::Unreachable { address, source }),
        }
    }

    /// Connections for what is brought in a slot.
    fn content(
        &self,
        config: &ClientConfig,
        slot: usize,
        line: Line,
    ) -> Result<reqwest::Client, LinkError> {
        let mut made = self.content.lock();
        if let Some((like, http)) = made.get(&slot)
            && *like == line
        {
            return Ok(http.clone());
        }
        let (builder, _) = identity::client(config, &Peer::Site, &self.address)?;
        let http = Client::with_line(Client::with_times(builder), line).build();
        let unusable = |source| LinkError::Unreachable { address: self.address.clone(), source };
        let http = http.map_err(unusable)?;
        made.insert(slot, (line, http.clone()));
        Ok(http)
    }

    fn closed(&self, source: reqwest::Error) -> LinkError {
        let address = self.address.clone();
        match Distrust::of(&source) {
            Some(source) => LinkError::Distrust { address, source },
            // The address that it names is what the site's certificate says, and leads nowhere.
            None => LinkError::Unreachable { address, source: source.without_url() },
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, LinkError> {
        let response = request.send().await.map_err(|error| self.closed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.read(response, MAX_ANSWER).await.unwrap_or_default();
        let detail = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let detail = detail.as_ref().and_then(|problem| problem.get("detail")?.as_str());
        let detail = detail.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => LinkError::NotLetIn(detail.into()),
            _ => LinkError::Refused { status: status.as_u16(), detail: detail.into() },
        })
    }

    /// The body, if it is no longer than `max` bytes.
    async fn read(&self, mut response: Response, max: usize) -> Result<Vec<u8>, LinkError> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.closed(error))? {
            if bytes.len() + piece.len() > max {
                return Err(LinkError::Malformed("an answer of this kind: it is too long"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("paths of the interface are relative URLs")
    }
}

/// The way to the site, or to another peer of it.
pub struct Link {
    config: Arc<ClientConfig>,
    doors: Vec<Door>,
    /// The door that was open last.
    last: AtomicUsize,
}

impl Link {
    /// To the site that `identity` is of, at these addresses: `https://HOST:PORT`.
    pub fn new(identity: &Identity, sites: &[String], clock: &Clock) -> Result<Self, LinkError> {
        Self::to(&Peer::Site, identity, sites, clock)
    }

    /// To `peer`, of the same authority as `identity`.
    pub fn to(
        peer: &Peer,
        identity: &Identity,
        addresses: &[String],
        clock: &Clock,
    ) -> Result<Self, LinkError> {
        let config = identity::client_config(identity, clock)?;
        let doors = addresses.iter().map(|at| Door::new(&config, peer, at));
        let doors = doors.collect::<Result<_, _>>()?;
        Ok(Self { config, doors, last: AtomicUsize::new(0) })
    }

    /// Where the peer answered last.
    pub fn address(&self) -> &str {
        self.doors.get(self.last.load(Relaxed)).map_or("", |door| &door.address)
    }

    /// What is at `path`, of at most `max` bytes; nothing, if there is nothing new (204).
    pub async fn get(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, LinkError> {
        let (door, response) = self.ask(|door| door.http.get(door.url(path))).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        door.read(response, max).await.map(Some)
    }

    /// Sends `value` to `path`.
    pub async fn put(&self, path: &str, value: &impl Serialize) -> Result<(), LinkError> {
        let body = json(value);
        let ask = |door: &Door| {
            let put = door.http.put(door.url(path));
            put.header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        self.ask(ask).await.map(drop)
    }

    /// Sends bytes of that media type to `path`; what is answered, of at most `max` bytes.
    pub async fn post(
        &self,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
        max: usize,
    ) -> Result<Vec<u8>, LinkError> {
        let body = bytes::Bytes::from(body);
        let ask = |door: &Door| {
            let post = door.http.post(door.url(path));
            post.header(CONTENT_TYPE, media_type).body(body.clone())
        };
        let (door, response) = self.ask(ask).await?;
        door.read(response, max).await
    }

    /// The servers of content: `sources`, as they are ranked, then the site, at each of its addresses,
    /// and last those sources that are to be the last. Each `slot` has connections of its own, of that kind.
    pub(super) fn servers(
        &self,
        sources: &[Source],
        slot: usize,
        line: Line,
    ) -> Result<Vec<Server>, LinkError> {
        let at = |source: &Source, rank: u32| {
            let address = format!("https://{}", source.address);
            let (builder, base) =
                identity::client(&self.config, &Peer::Point(source.id.clone()), &address)?;
            let http = Client::with_line(Client::with_times(builder), line).build();
            let http =
                http.map_err(|source| LinkError::Unreachable { address: address.clone(), source })?;
            let shown = format!("{address}/");
            Ok::<_, LinkError>(Server::over(http, base, shown).ranked(rank).telling())
        };
        let mut servers = Vec::new();
        let ranks = sources.iter().filter(|source| !source.last).map(|source| source.rank);
        let site = ranks.max().map_or(0, |rank| rank.saturating_add(1));
        let last = site.saturating_add(self.doors.len() as u32);
        let (late, first): (Vec<&Source>, Vec<&Source>) =
            sources.iter().take(MOST_SOURCES).partition(|source| source.last);
        let others = |servers: &mut Vec<Server>, others: &[&Source], from: u32| {
            for source in others {
                match at(source, from.saturating_add(source.rank)) {
                    Ok(server) => servers.push(server),
                    Err(error) => {
                        tracing::warn!(name = source.name, %error, "cannot be brought from");
                    }
                }
            }
        };
        others(&mut servers, &first, 0);
        for (door, rank) in self.doors.iter().zip(site..) {
            let http = door.content(&self.config, slot, line)?;
            let (base, shown) = (door.base.clone(), format!("{}/", door.address));
            servers.push(Server::over(http, base, shown).ranked(rank));
        }
        others(&mut servers, &late, last);
        Ok(servers)
    }

    /// What the site wishes, once that is something else than `after`, or what of that changed; nothing
    /// if it stays the same for [`WAIT`].
    pub(super) async fn wish(&self, after: &str) -> Result<Option<WishAnswer>, LinkError> {
        let ask = |door: &Door| {
            let mut url = door.url("api/v1/point/wish");
            url.query_pairs_mut()
                .append_pair("after", after)
                .append_pair("wait", &WAIT.as_secs().to_string());
            door.http.get(url)
        };
        let (door, response) = self.ask(ask).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        parse(&door.read(response, MAX_WISH).await?, "a wish").map(Some)
    }

    /// Whether the site lets this point in: [`LinkError::NotLetIn`] if it was removed.
    pub(super) async fn is_known(&self) -> Result<(), LinkError> {
        // Of the answer, which may be long, the head tells.
        self.ask(|door| door.http.get(door.url("api/v1/point/wish"))).await.map(drop)
    }

    /// Tells the site what is held. Where it then knows something else than the point does, answers the
    /// tree of what it knows.
    pub(super) async fn report(&self, report: &Report) -> Result<Option<Tree>, LinkError> {
        let body = json(report);
        let ask = |door: &Door| {
            let put = door.http.put(door.url("api/v1/point/report"));
            put.header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        let (door, response) = self.ask(ask).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        #[derive(serde::Deserialize)]
        struct Known {
            branches: Tree,
        }
        let known: Known = parse(&door.read(response, MAX_ANSWER).await?, "what it knows")?;
        Ok(Some(known.branches))
    }

    /// Tells the site that this point ends.
    pub(super) async fn leave(&self) -> Result<(), LinkError> {
        self.ask(|door| door.http.post(door.url("api/v1/point/leave"))).await.map(drop)
    }

    /// A new certificate for the key that `request` (PEM) is of.
    pub(super) async fn renew(&self, request: &str) -> Result<String, LinkError> {
        self.renew_at("api/v1/point/renew", request).await
    }

    /// The same, of another kind of peer.
    pub async fn renew_at(&self, path: &str, request: &str) -> Result<String, LinkError> {
        let body = json(&serde_json::json!({ "request": request }));
        let ask = |door: &Door| {
            let post = door.http.post(door.url(path));
            post.header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        let (door, response) = self.ask(ask).await?;
        #[derive(serde::Deserialize)]
        struct Renewed {
            certificate: String,
        }
        let renewed: Renewed = parse(&door.read(response, MAX_ANSWER).await?, "a certificate")?;
        Ok(renewed.certificate)
    }

    /// Asks at each door until one is open.
    async fn ask(
        &self,
        request: impl Fn(&Door) -> RequestBuilder,
    ) -> Result<(&Door, Response), LinkError> {
        let first = self.last.load(Relaxed);
        let mut closed = None;
        for at in (0..self.doors.len()).map(|n| (first + n) % self.doors.len()) {
            let door = &self.doors[at];
            match door.send(request(door)).await {
                Err(error) if error.is_of_the_door() => closed = closed.or(Some(error)),
                result => {
                    self.last.store(at, Relaxed);
                    return Ok((door, result?));
                }
            }
        }
        Err(closed.unwrap_or(LinkError::Malformed("an address")))
    }
}

/// Joins the site that `token` tells of.
pub(super) async fn join(
    token: &JoinToken,
    request: &JoinRequest,
    clock: &Clock,
) -> Result<JoinAnswer, LinkError> {
    join_at("api/v1/point/join", token, request, clock).await
}

/// The same by an address of its own, for what is no distribution point.
pub async fn join_at<T: DeserializeOwned>(
    path: &str,
    token: &JoinToken,
    request: &JoinRequest,
    clock: &Clock,
) -> Result<T, LinkError> {
    let config = identity::joining_config(token.authority, clock)?;
    let body = json(request);
    let mut closed = None;
    for site in &token.sites {
        let door = Door::new(&config, &Peer::Site, site)?;
        let post = door.http.post(door.url(path));
        let post = post.header(CONTENT_TYPE, "application/json").body(body.clone());
        match door.send(post).await {
            Ok(response) => {
                return parse(&door.read(response, MAX_ANSWER).await?, "leave to join");
            }
            Err(error) if error.is_of_the_door() => closed = closed.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(closed.unwrap_or(LinkError::Malformed("an address")))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has string keys")
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, LinkError> {
    serde_json::from_slice(bytes).map_err(|_| LinkError::Malformed(what))
}
