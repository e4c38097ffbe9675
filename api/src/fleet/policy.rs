//! What each client is told to do, and who waits to hear of another policy.
//!
//! A policy has two halves: the [`Frame`], which all clients of the site share, and what is the client's own
//! ([`Own`]), what is deployed to it among that. A policy is a pure function of both. So when the frame becomes another one, each who waits lays its
//! own half, which it has at hand, on the new frame, and is answered only if something comes out that it does
//! not know; when one client's half becomes another, that one alone is woken. Nothing is looked up for those
//! whom a change does not concern, and a change that concerns very many is answered over some seconds.

use crate::hierarchy::{own_addresses, tell};
use crate::problem::Problem;
use crate::site::Site;
use client::patience::ANSWERS_A_SECOND;
use client::policy::{Place, Policy, SignedPolicy};
use client::settings::{Changes, Rank, resolve};
use compliance::Ordinal;
use compliance::message::ClientId;
use deployment::targets::{Clients, Told};
use dp::PlainHttp;
use dp::field::FollowerKind;
use dp::registry::Places;
use jiff::Timestamp;
use packager::sign::Document;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the update point and the distribution point are called that the site has by itself.
const SITE: &str = "site";
/// How long a frame is good without a look at what it is made of.
const FRESH: Duration = Duration::from_secs(1);

/// What the policies of all clients of a site share.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where the site says that it is reached.
    addresses: Vec<String>,
    /// The same for content.
    content: Option<String>,
    /// Whether it has a catalogue, and an update point by itself.
    is_published: bool,
    is_update_point: bool,
    /// Its other update points.
    points: Vec<Place>,
    /// What is set for all clients.
    set: Arc<Changes>,
    places: Arc<Places>,
    /// When a sync was completed last that changed anything.
    synced: Option<Timestamp>,
}

/// What of a policy is the client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Who it is.
    pub client: ClientId,
    /// Its addresses, those that it told of itself first.
    pub addresses: Vec<IpAddr>,
    /// Where it reached the site: what it is told where the site does not know better.
    pub reached: String,
    /// What is set for it alone.
    pub set: Arc<Changes>,
    /// What is deployed to it, and when it may be changed.
    pub told: Told,
}

impl Frame {
    /// The frame as it is now.
    ///
    /// # Errors
    /// If the database fails.
    pub fn of(site: &Site) -> Result<Self, Problem> {
        let ledger = site.ledger()?;
        let published = tell::published(&ledger.db)?;
        let points = ledger.registry.followers().into_iter();
        let points = points.filter(|it| it.kind == FollowerKind::UpdatePoint && it.has_synced());
        let points = points.filter_map(|it| {
            Some(Place { name: it.name.to_string(), url: it.report?.address?, after: 0 })
        });
        Ok(Self {
            addresses: site.config().site.url.to_texts(),
            content: content_address(site),
            is_published: published.is_some(),
            is_update_point: site.config().sync.update_point,
            points: points.collect(),
            set: super::settings::for_all(site)?.set,
            places: Arc::new(ledger.registry.places()),
            synced: published.map(|published| published.at),
        })
    }

    /// Whether the other says the same, but for the time of the last sync.
    fn is_same(&self, other: &Self) -> bool {
        let Self { addresses, content, is_published, is_update_point, points, set, places, .. } =
            self;
        *addresses == other.addresses
            && *content == other.content
            && *is_published == other.is_published
            && *is_update_point == other.is_update_point
            && *points == other.points
            && *set == other.set
            && *places == other.places
    }

    /// The update points of clients for whom updates are enabled; the site's own are at these addresses.
    fn update_points(&self, own: &[String]) -> Vec<Place> {
        if !self.is_published {
            return Vec::new();
        }
        let here = |url: &String| Place { name: SITE.into(), url: url.clone(), after: 0 };
        let own = own.iter().filter(|_| self.is_update_point).map(here);
        own.chain(self.points.iter().cloned()).collect()
    }

    /// What that client is to do.
    pub fn policy(&self, own: &Own) -> Policy {
        let reached = std::slice::from_ref(&own.reached);
        let addresses = if self.addresses.is_empty() { reached } else { &self.addresses };
        let settings = resolve([(Rank::Site, &*self.set), (Rank::Client, &*own.set)]);
        let (update_points, told) = match settings.updates_enabled {
            true => (self.update_points(addresses), own.told.clone()),
            false => (Vec::new(), Told::default()),
        };
        let sources = self.places.sources(&own.addresses).into_iter();
        let distribution_points = sources.map(|source| {
            let (name, url) = match source.point {
                Some(place) => (place.name.to_string(), place.base),
                None => {
                    let url = self.content.clone().unwrap_or_else(|| own.reached.clone());
                    (SITE.to_owned(), url)
                }
            };
            Place { name, url, after: source.after.as_secs() }
        });
        let policy = Policy {
            revision: String::new(),
            client: own.client,
            updates_enabled: settings.updates_enabled,
            update_points,
            distribution_points: distribution_points.collect(),
            settings,
            deployments: told.deployments,
            windows: told.windows,
            fallback: addresses.to_vec(),
            synced: self.synced,
        };
        policy.revised()
    }

    /// What anybody is told of the site: whether updates are enabled, the update points, the last sync.
    pub fn site_wide(&self, site: &Site) -> (bool, Vec<Place>, Option<Timestamp>) {
        let is_enabled = resolve([(Rank::Site, &*self.set)]).updates_enabled;
        let points = match is_enabled {
            true => self.update_points(&own_addresses(site)),
            false => Vec::new(),
        };
        (is_enabled, points, self.synced)
    }
}

/// Where the settings say that the site's content is reached.
pub(crate) fn content_address(site: &Site) -> Option<String> {
    let config = site.config();
    let url = config.site.url.to_texts().into_iter().next()?;
    let place = url.strip_prefix("https://")?;
    let scheme = if config.dp.plain_http == PlainHttp::Any { "http" } else { "https" };
    Some(format!("{scheme}://{place}"))
}

/// A policy, signed by the site.
///
/// # Errors
/// If the site has no key of its own, or cannot use it.
pub fn signed(site: &Site, policy: &Policy) -> Result<SignedPolicy, Problem> {
    let policy = policy.text();
    let packages = site.content()?.packages;
    let signature = packages.sign_document(Document::ClientPolicy, policy.as_bytes())?;
    Ok(SignedPolicy { policy, signature })
}

/// The frame that holds, and who waits for another policy.
pub struct Policies {
    frame: watch::Sender<Option<Arc<Frame>>>,
    /// When it was last made sure that the frame is as things are.
    looked: Mutex<Option<Instant>>,
    /// Each is told over how long those are answered whom the same change concerns.
    waiting: Mutex<HashMap<Ordinal, watch::Sender<Duration>>>,
    closed: CancellationToken,
}

/// Somebody who waits. What it is woken by ends with it.
pub struct Waiting<'a> {
    policies: &'a Policies,
    client: Ordinal,
    /// Tells that the client's own half became another, and over how long those are answered whom it concerns.
    pub own: watch::Receiver<Duration>,
    /// Tells that the frame did.
    pub frame: watch::Receiver<Option<Arc<Frame>>>,
    /// Tells that the site is stopping.
    pub closed: CancellationToken,
}

impl Policies {
    pub(super) fn new() -> Self {
        Self {
            frame: watch::Sender::new(None),
            looked: Mutex::default(),
            waiting: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// The frame, which is never older than a second.
    ///
    /// # Errors
    /// If the database fails.
    pub fn frame(&self, site: &Site) -> Result<Arc<Frame>, Problem> {
        let mut looked = self.looked.lock();
        let last = self.frame.borrow().clone();
        match last {
            Some(frame) if looked.is_some_and(|at| at.elapsed() < FRESH) => Ok(frame),
            last => self.look_again(site, &mut looked, last),
        }
    }

    /// Looks whether the frame is as things are; those who wait hear of it if not.
    ///
    /// # Errors
    /// If the database fails.
    pub fn look(&self, site: &Site) -> Result<Arc<Frame>, Problem> {
        let mut looked = self.looked.lock();
        let last = self.frame.borrow().clone();
        self.look_again(site, &mut looked, last)
    }

    fn look_again(
        &self,
        site: &Site,
        looked: &mut Option<Instant>,
        last: Option<Arc<Frame>>,
    ) -> Result<Arc<Frame>, Problem> {
        let now = Arc::new(Frame::of(site)?);
        *looked = Some(Instant::now());
        let is_same = last.as_ref().is_some_and(|last| last.is_same(&now));
        // Also one that only has another time is taken over; but nobody is woken for that.
        self.frame.send_if_modified(|frame| {
            *frame = Some(now.clone());
            !is_same
        });
        Ok(now)
    }

    /// Begins to wait for what may change that client's policy.
    pub fn wait(&self, client: Ordinal) -> Waiting<'_> {
        let mut waiting = self.waiting.lock();
        let own = waiting.entry(client).or_default().subscribe();
        let (frame, closed) = (self.frame.subscribe(), self.closed.clone());
        Waiting { policies: self, client, own, frame, closed }
    }

    /// Wakes a client whose own half may be another: its addresses, what is set for it, whether it may report.
    pub fn own_changed(&self, client: Ordinal) {
        if let Some(waiting) = self.waiting.lock().get(&client) {
            waiting.send_replace(Duration::ZERO);
        }
    }

    /// Wakes those of these clients that wait: something else is deployed to them, or they may be changed at other
    /// times.
    pub fn told_changed(&self, clients: &Clients) {
        if clients.is_empty() {
            return;
        }
        let waiting = self.waiting.lock();
        let concerned = || waiting.iter().filter(|(client, _)| clients.has(**client));
        let spread = Duration::from_secs_f64(concerned().count() as f64 / ANSWERS_A_SECOND);
        for (_, waiting) in concerned() {
            waiting.send_replace(spread);
        }
    }

    /// Over how long those who wait are answered when the frame became another one.
    fn spread(&self) -> Duration {
        let waiting = self.waiting.lock().len();
        Duration::from_secs_f64(waiting as f64 / ANSWERS_A_SECOND)
    }

    /// How many clients wait.
    pub fn n_waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Ends all waiting.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }
}

impl Waiting<'_> {
    /// Waits for its turn among all those who are woken by one change of the frame.
    pub async fn turn(&self) {
        tokio::time::sleep(self.policies.spread().mul_f64(rand::random())).await;
    }

    /// The same, of a change of its own half.
    pub async fn own_turn(&mut self) {
        let spread = *self.own.borrow_and_update();
        tokio::time::sleep(spread.mul_f64(rand::random())).await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.policies.waiting.lock();
        // It may wait on two connections.
        if waiting.get(&self.client).is_some_and(|told| told.receiver_count() <= 1) {
            waiting.remove(&self.client);
        }
    }
}
