//! What a distribution point says to its site: that it joins, what it wants to know, what it holds.
//!
//! The certificate of the connection says who asks; tokens do not count here. The messages are
//! described in `dp/PROTOCOL.md`, "Between site and points".

use crate::audit::AuditRecord;
use crate::auth::{Identity, Role};
use crate::extract::{Input, Query, deadline, parse_json, want_media_type, whole_body};
use crate::guard::{Gone, not_a_point_any_more};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use crate::views::VersionView;
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dp::field::{JoinAnswer, JoinRequest, PointId, Report, Wish};
use dp::identity::{OverTls, requested_key};
use dp::registry::Registry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How often somebody who waits looks whether a package changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The largest report.
const MAX_REPORT: u64 = 64 << 20;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(join))
        .routes(routes!(get_wish))
        .routes(routes!(put_report))
        .routes(routes!(renew))
        .routes(routes!(leave))
}

/// What a machine sends that wants to be a distribution point.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "secret": "5d0c2a7b1e0d4455a7b1e0d30199f0c2",
    "request": "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"
}))]
pub struct JoinRequestView {
    /// The secret of its join token, in hex.
    pub secret: String,
    /// A certificate signing request in PEM (PKCS #10). Only its key counts.
    pub request: String,
}

/// What it gets.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "name": "branch-7",
    "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "authority": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "key": "00b9c658e488c4b8708970e3d70b998474ff89268a26872fea22a8f76e4c3bd8",
    "sites": ["https://site.example:8520"]
}))]
pub struct JoinAnswerView {
    /// Who it is from now on.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The site's authority, in PEM.
    pub authority: String,
    /// What versions are signed with.
    pub key: String,
    /// Where the site is reached.
    pub sites: Vec<String>,
}

/// Join as a distribution point
///
/// Takes no token but that in the body, once. Only over HTTPS, or from the same machine. A request
/// of the same key, for as long as the join token is good, is the same machine: it gets an answer
/// again.
#[utoipa::path(post, path = "/api/v1/point/join", tag = "point", security(()),
    request_body = JoinRequestView, extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "It is a point now", body = JoinAnswerView),
        (status = 403, description = "The join token is no good, or the connection is not private",
            body = Problem),
        (status = 503, description = "Not now; see Retry-After", body = Problem)))]
async fn join(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    tls: Option<Extension<OverTls>>,
    Input(asked): Input<JoinRequest>,
) -> Result<([(&'static str, &'static str); 1], Json<JoinAnswer>), Problem> {
    let from = want_private(peer, tls)?;
    let joined = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let key = requested_key(&asked.request)?;
        let admission = ledger.registry.admit(&asked.secret, key, now).inspect_err(|error| {
            // Not in the audit log, which strangers must not fill.
            tracing::warn!(?from, %error, "a machine was not let in");
        })?;
        let authority = site.authority()?;
        let certificate = authority.sign(&asked.request, &admission.point.id, now)?;
        let key = site.content()?.packages.public_key();
        let (sites, token) = (admission.sites.clone(), admission.token.clone());
        let id = admission.point.id.clone();
        let point = ledger.registry.join(admission)?;
        if point.id != id {
            // The same machine asked twice at once, and the other one was first.
            let detail = "this machine is joining already: ask again";
            return Err(Problem::new(Kind::Conflict, detail).retry_after(1));
        }
        let who = Identity {
            name: format!("join token for {}", point.name),
            token: Some(token),
            role: Role::Reader,
        };
        let mut record = AuditRecord::new(&who, "join", point.name.as_str(), 200);
        record.from = from;
        record.detail = Some(format!("id {}", point.id));
        ledger.audit.write(&record)?;
        let (id, name) = (point.id, point.name.to_string());
        let authority = authority.anchor().pem();
        Ok(JoinAnswer { id, name, certificate, authority, key, sites })
    });
    Ok(([("cache-control", "no-store")], Json(joined.await?)))
}

/// Where a machine joins from, if nobody on the way could read its secret.
pub(crate) fn want_private(
    peer: Option<Extension<SocketAddr>>,
    tls: Option<Extension<OverTls>>,
) -> Result<Option<IpAddr>, Problem> {
    let from = peer.map(|Extension(peer)| peer.ip().to_canonical());
    if tls.is_none() && from.is_some_and(|from| !from.is_loopback()) {
        let detail = "say this over HTTPS: anybody on the way could read or change it";
        return Err(Problem::new(Kind::NotPrivate, detail));
    }
    Ok(from)
}

/// What a point should hold.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct WishView {
    /// Names this state of the wish.
    #[schema(example = "5d0c2a7b1e0d4455a7b1e0d30199f0c2")]
    pub revision: String,
    /// Each version to be held.
    pub versions: Vec<WantedView>,
    /// What `latest` and channels mean, by package.
    #[schema(value_type = BTreeMap<String, NamesView>)]
    pub names: BTreeMap<String, NamesView>,
    /// What is set for the point.
    pub settings: SettingsView,
    /// Of which wish it is a change; without it, it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<WishChangeView>,
}

/// Which part of which wish is told.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"of": "5d0c2a7b1e0d4455a7b1e0d30199f0c2", "branches": [7]}))]
pub struct WishChangeView {
    /// The revision that the point has.
    pub of: String,
    /// The branches of packages whose versions and names take the place of those that it has.
    pub branches: Vec<u8>,
}

/// What is set for one point. What is absent is not set.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SettingsView {
    /// How fast it may bring what it lacks.
    #[serde(default)]
    pub limit: Option<LimitView>,
    /// When it may.
    #[serde(default)]
    pub window: Option<super::points::WindowView>,
    /// Other points to bring from, before the site is asked.
    #[serde(default)]
    pub sources: Vec<SourceView>,
    /// Whether nothing new is brought.
    #[serde(default)]
    pub drained: bool,
    /// What it is to do once, the oldest first; each until its end was told.
    #[serde(default)]
    pub orders: Vec<WishedOrderView>,
}

/// Another point to bring content from.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "name": "paris-hub", "address": "192.0.2.7:8520",
    "rank": 0
}))]
pub struct SourceView {
    /// Who it is.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Those of a lower one are asked first, and those of the same by turns.
    pub rank: u32,
    /// It is asked only for what the site does not give, either.
    #[serde(default)]
    pub last: bool,
}

/// Something that the point is to do once.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "number": 4, "given": "2026-11-22T12:00:00Z", "task": "validate", "package": "docs"
}))]
pub struct WishedOrderView {
    /// Its number among those of the point.
    pub number: u64,
    /// When it was given. Only with it a number says which order it is.
    #[schema(value_type = String, format = DateTime)]
    pub given: Timestamp,
    /// What is to be done.
    pub task: super::points::TaskView,
    /// With what; absent: with all that is held.
    #[serde(default)]
    pub package: Option<String>,
    /// With which of its versions; absent: with each.
    #[serde(default)]
    pub version: Option<u64>,
}

/// A token bucket: over any time, no more than the burst and what the rate gives in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rate": 2500000, "burst": 4000000}))]
pub struct LimitView {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may come at once after a quiet time.
    pub burst: u64,
}

/// One version that a point should hold.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct WantedView {
    /// The version, signed by the site.
    pub version: VersionView,
    /// How soon.
    pub priority: super::points::PriorityView,
}

/// Which of a package's versions its names mean.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"latest": 3, "channels": {"stable": 2}}))]
pub struct NamesView {
    /// The newest version among those that are wished.
    #[serde(default)]
    pub latest: Option<u64>,
    /// The channels that mean a version that is wished.
    pub channels: BTreeMap<String, u64>,
}

/// Which wish a point knows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WishQuery {
    /// The revision that it has; without it, the wish is answered at once.
    after: Option<String>,
    /// Seconds that it waits for another, at most 60; without it, none.
    #[param(maximum = 60, default = 0)]
    wait: Option<u64>,
}

/// Say what the point should hold
///
/// As soon as it differs from the revision that the point has, and of it what differs, where that is
/// known. 204 if it did not in the time that
/// the point waits; then it asks again. A point waits on one connection at a time.
#[utoipa::path(get, path = "/api/v1/point/wish", tag = "point",
    security(("certificate" = [])), params(WishQuery),
    responses((status = 200, description = "The wish", body = WishView),
        (status = 204, description = "It is still the same"),
        (status = 409, description = "The same point began to wait on another connection",
            body = Problem)))]
async fn get_wish(
    State(site): State<Site>,
    Extension(point): Extension<PointId>,
    Extension(Gone(gone)): Extension<Gone>,
    Query(query): Query<WishQuery>,
) -> Result<Response, Problem> {
    let deadline = deadline(query.wait)?;
    let (ledger, content) = {
        let site = site.clone();
        blocking(move || Ok((site.ledger()?, site.content()?))).await?
    };
    let registry = &ledger.registry;
    let feed = registry.feed(&point);
    let mut changes = registry.changes();
    loop {
        changes.mark_unchanged();
        let generation = content.library.refs_generation();
        if let Some(wish) = wish_of(&ledger, &content, &point).await?
            && query.after.as_ref() != Some(&wish.revision)
        {
            registry.saw(&point, Timestamp::now());
            // It may be long.
            let told = ledger.clone();
            let body = blocking(move || {
                let answer = told.registry.wish_since(&wish, query.after.as_deref());
                serde_json::to_vec(&answer).map_err(|error| Problem::internal(&error))
            });
            return Ok(([("content-type", "application/json")], body.await?).into_response());
        }
        let moved = async {
            while content.library.refs_generation() == generation {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = feed.cancelled() => return Err(why_it_ended(registry, &point)),
            () = gone.cancelled() => {
                registry.broke(&point, &feed, Timestamp::now());
                return Err(why_it_ended(registry, &point));
            }
            _ = changes.changed() => {}
            () = moved => {}
            () = tokio::time::sleep_until(deadline) => {
                registry.saw(&point, Timestamp::now());
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
        }
    }
}

/// Why a point that waits is told to wait no longer.
fn why_it_ended(registry: &Registry, point: &PointId) -> Problem {
    if !registry.knows(point) {
        return not_a_point_any_more();
    }
    if registry.is_closed() {
        let detail = "the site is stopping: ask again in a moment";
        return Problem::new(Kind::Unavailable, detail).retry_after(2);
    }
    // A point that lost its connection does not read this. Two machines that take turns would never
    // stop if this were a good answer.
    let detail = "the same distribution point asks on another connection: if a machine was copied, \
        let the copy join with a token of its own";
    Problem::new(Kind::Conflict, detail).retry_after(10)
}

/// What the point should hold now; nothing if it was removed in this moment.
async fn wish_of(
    ledger: &Arc<crate::site::Ledger>,
    content: &crate::site::Content,
    point: &PointId,
) -> Result<Option<Arc<Wish>>, Problem> {
    let (ledger, packages, point) = (ledger.clone(), content.packages.clone(), point.clone());
    blocking(move || match ledger.registry.wish(&point, &packages) {
        Ok(wish) => Ok(Some(wish)),
        Err(_) if !ledger.registry.knows(&point) => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await
}

/// What a point holds.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "point": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "at": "2026-11-22T12:29:12Z",
    "program": "0.1.0", "address": "http://0.0.0.0:8520",
    "revision": "5d0c2a7b1e0d4455a7b1e0d30199f0c2", "free_bytes": 80000000000_u64,
    "facts": [{
        "package": "docs", "version": 3, "state": "fetching", "bytes": 9000000,
        "bytes_left": 3400000, "cause": null, "since": "2026-11-22T12:29:10Z"
    }]
}))]
pub struct ReportView {
    /// Who reports: its own id.
    pub point: String,
    /// When it was made, by the point's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The version of its program.
    pub program: String,
    /// Where it is reached, as it thinks; the host may be unspecified.
    pub address: String,
    /// The wish that the facts are about.
    pub revision: String,
    /// Free bytes of its volumes.
    pub free_bytes: u64,
    /// How many seconds its library keeps what is not used any more; absent if it keeps it for ever.
    #[serde(default)]
    pub grace: Option<u64>,
    /// The root of the digest tree of all facts, 32 hex digits.
    #[serde(default)]
    pub root: Option<String>,
    /// The branches of the tree whose facts are told; all, if it is absent.
    #[serde(default)]
    pub branches: Option<Vec<u8>>,
    /// Of these branches, one for each version that is wished or held; at most 100000.
    pub facts: Vec<FactView>,
    /// What came of each order that is wished, once it was begun; at most 1000.
    #[serde(default)]
    pub orders: Vec<OutcomeView>,
}

/// What came of an order so far.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// The order's number.
    pub number: u64,
    /// When it was given, as the order has it.
    #[schema(value_type = String, format = DateTime)]
    pub given: Timestamp,
    /// How far it is: `checking`, `mending`, `done` or `failed`.
    pub state: String,
    /// When the point began with it, by its clock.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// When it ended, by its clock.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// Contents that were read and compared.
    pub n_checked: u64,
    /// Bytes that were read for it.
    pub bytes: u64,
    /// Contents that were found damaged or lost.
    pub n_damaged: u64,
    /// Of those, the ones that are whole again.
    pub n_mended: u64,
    /// Why it is not done yet, or will not be.
    #[serde(default)]
    pub cause: Option<String>,
}

/// What is known of one version on a point.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct FactView {
    /// The package.
    pub package: String,
    /// The version.
    pub version: u64,
    /// How far it is: `held`, `waiting`, `fetching`, `failed`, `repairing` or `leaving`.
    pub state: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of files that are not held yet, as far as known.
    pub bytes_left: u64,
    /// Why it is not held, or what went wrong last.
    pub cause: Option<String>,
    /// When the state began, by the point's clock.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// What the site knows of a point's facts.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"branches": {"7": "5d0c2a7b1e0d4455a7b1e0d30199f0c2"}}))]
pub struct KnownFactsView {
    /// The digest of each branch that has facts.
    #[schema(value_type = BTreeMap<String, String>)]
    pub branches: dp::field::Tree,
}

/// Report what the point holds
///
/// The branches that are told take the place of those of its last report. Where that does not come to
/// the root that the point states, the answer says what the site has, and the point tells the rest.
#[utoipa::path(put, path = "/api/v1/point/report", tag = "point",
    security(("certificate" = [])), request_body = ReportView,
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 204, description = "It is kept"),
        (status = 200, description = "It is kept, and the site knows other facts than the point",
            body = KnownFactsView)))]
async fn put_report(
    State(site): State<Site>,
    Extension(point): Extension<PointId>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    want_media_type(&parts.headers, &["application/json"])?;
    let from = parts.extensions.get::<SocketAddr>().map(|peer| peer.ip());
    let bytes = whole_body(body, MAX_REPORT).await?;
    let kept = blocking(move || {
        let report: Report = parse_json(&bytes)?;
        Ok(site.ledger()?.registry.report(&point, report, from, Timestamp::now())?)
    });
    Ok(match kept.await? {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(branches) => Json(KnownFactsView { branches }).into_response(),
    })
}

/// Say that the point ends
///
/// From then on it is not there, and not offered to anybody, until it is heard of again.
#[utoipa::path(post, path = "/api/v1/point/leave", tag = "point",
    security(("certificate" = [])),
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 204, description = "It is noted")))]
async fn leave(
    State(site): State<Site>,
    Extension(point): Extension<PointId>,
) -> Result<StatusCode, Problem> {
    let noted = blocking(move || {
        site.ledger()?.registry.left(&point, Timestamp::now());
        Ok(StatusCode::NO_CONTENT)
    });
    noted.await
}

/// A point that wants a new certificate.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "request": "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"
}))]
pub struct RenewRequest {
    /// A certificate signing request in PEM (PKCS #10). Only its key counts; it may be a new one.
    pub request: String,
}

/// A new certificate.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"
}))]
pub struct RenewAnswer {
    /// In PEM.
    pub certificate: String,
}

/// Renew the point's certificate
#[utoipa::path(post, path = "/api/v1/point/renew", tag = "point",
    security(("certificate" = [])), request_body = RenewRequest,
    extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "The new one", body = RenewAnswer)))]
async fn renew(
    State(site): State<Site>,
    Extension(point): Extension<PointId>,
    peer: Option<Extension<SocketAddr>>,
    Input(asked): Input<RenewRequest>,
) -> Result<Json<RenewAnswer>, Problem> {
    let renewed = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let certificate = site.authority()?.sign(&asked.request, &point, now)?;
        ledger.registry.renewed(&point, now)?;
        let name = ledger.registry.point(point.as_str())?.name;
        let who = Identity {
            name: format!("distribution point {name}"),
            token: Some(point.to_string()),
            role: Role::Reader,
        };
        let mut record = AuditRecord::new(&who, "renew", name.as_str(), 200);
        record.from = peer.map(|Extension(peer)| peer.ip().to_canonical());
        ledger.audit.write(&record)?;
        Ok(certificate)
    });
    Ok(Json(RenewAnswer { certificate: renewed.await? }))
}
