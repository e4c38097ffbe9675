//! What a child site or another update point says to its site: that it joins, that it waits for a request,
//! which part of the feed it wants, how far it is.

use crate::audit::AuditRecord;
use crate::auth::{Identity, Role};
use crate::extract::{Input, Query, deadline};
use crate::guard::{Gone, not_a_follower_any_more};
use crate::hierarchy::parent::FollowerAnswer;
use crate::hierarchy::{self, SyncRequest, Via};
use crate::problem::{Kind, Problem};
use crate::routes::point::{JoinRequestView, RenewAnswer, RenewRequest, want_private};
use crate::site::{Site, blocking};
use ::sync::catalogue::{MAX_FEED_PAGE, Place};
use ::sync::hierarchy::{Sent, pack};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dp::field::{FollowerId, FollowerKind, JoinRequest};
use dp::identity::{OverTls, Peer, requested_key};
use dp::registry::{FollowerReport, FollowerState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(join))
        .routes(routes!(get_request))
        .routes(routes!(get_feed))
        .routes(routes!(put_report))
        .routes(routes!(renew))
}

/// As what a machine joins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct JoinQuery {
    /// `site`, `primary` for one that has child sites itself, or `update-point`: a token for something else is
    /// refused, and stays good.
    #[serde(rename = "as")]
    r#as: Option<String>,
}

/// What a machine gets that follows now.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "name": "berlin", "kind": "primary",
    "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "authority": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "sites": ["https://top.example:8520"]
}))]
pub struct FollowerAnswerView {
    /// Who it is from now on.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is: `primary`, `secondary` or `update-point`.
    pub kind: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The authority of this site, in PEM.
    pub authority: String,
    /// Where this site is reached.
    pub sites: Vec<String>,
}

/// Join as a child site, or as another update point
///
/// Takes no token but that in the body, once. Only over HTTPS, or from the same machine. A request of the
/// same key, for as long as the join token is good, is the same machine: it gets an answer again.
#[utoipa::path(post, path = "/api/v1/follower/join", tag = "follower", security(()),
    operation_id = "join_follower", params(JoinQuery),
    request_body = JoinRequestView, extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "It follows now", body = FollowerAnswerView),
        (status = 403, description = "The join token is no good, or the connection is not private",
            body = Problem),
        (status = 503, description = "Not now; see Retry-After", body = Problem)))]
async fn join(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    tls: Option<Extension<OverTls>>,
    Query(query): Query<JoinQuery>,
    Input(asked): Input<JoinRequest>,
) -> Result<([(&'static str, &'static str); 1], Json<FollowerAnswer>), Problem> {
    let from = want_private(peer, tls)?;
    let joined = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let key = requested_key(&asked.request)?;
        let admitted = ledger.registry.admit_follower(&asked.secret, key, now);
        let admission = admitted.inspect_err(|error| {
            // Not in the audit log, which strangers must not fill.
            tracing::warn!(?from, %error, "a machine was not let in");
        })?;
        let kind = admission.point.kind;
        let wanted = query.r#as.as_deref();
        if wanted == Some("primary") && kind == FollowerKind::Secondary {
            let detail = "the token is for a secondary site, which has no child sites, and this one has some: \
                remove them first, or join as a primary site";
            return Err(Problem::new(Kind::Conflict, detail));
        }
        if wanted.is_some_and(|wanted| (wanted == "update-point") == kind.is_site()) {
            let detail = match kind {
                FollowerKind::UpdatePoint => {
                    "the token is for an update point: start it with --sup"
                }
                _ => "the token is for a child site: start it without --sup",
            };
            return Err(Problem::new(Kind::Conflict, detail));
        }
        // It may have become a site that has no such children since the token was made.
        hierarchy::may_have(&site, kind)?;
        let authority = site.authority()?;
        let peer = Peer::Follower(admission.point.id.clone());
        let certificate = authority.sign_for(&asked.request, &peer, now)?;
        let (sites, token) = (admission.sites.clone(), admission.token.clone());
        let id = admission.point.id.clone();
        let follower = ledger.registry.join_follower(admission)?;
        if follower.id != id {
            // The same machine asked twice at once, and the other one was first.
            let detail = "this machine is joining already: ask again";
            return Err(Problem::new(Kind::Conflict, detail).retry_after(1));
        }
        let who = Identity {
            name: format!("join token for {}", follower.name),
            token: Some(token),
            role: Role::Reader,
        };
        let mut record = AuditRecord::new(&who, "join_follower", follower.name.as_str(), 200);
        record.from = from;
        record.detail = Some(format!("{}, id {}", follower.kind, follower.id));
        ledger.audit.write(&record)?;
        let (id, name) = (follower.id, follower.name.to_string());
        let authority = authority.anchor().pem();
        Ok(FollowerAnswer { id, name, kind, certificate, authority, sites })
    });
    Ok(([("cache-control", "no-store")], Json(joined.await?)))
}

/// Which request a follower knows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RequestQuery {
    /// The revision that it has; without it, or empty, the request is answered at once.
    after: Option<String>,
    /// Seconds that it waits for another, at most 60; without it, none.
    #[param(maximum = 60, default = 0)]
    wait: Option<u64>,
}

/// What a follower is asked.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "revision": "b2d1c0ffee00aa11", "asked": 17,
    "via": {"id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "address": "https://sup-2.example:8520"},
    "peers": ["0f3c2a7b1e0d4455a7b1e0d30199f0c2"]
}))]
pub struct SyncRequestView {
    /// Differs where anything else does.
    pub revision: String,
    /// The number of the request to synchronise; 0: there was none yet.
    pub asked: u64,
    /// The update point to read from; absent: this site.
    #[serde(default)]
    pub via: Option<ViaView>,
    /// The ids of the site's update points, which may read from each other.
    #[serde(default)]
    pub peers: Vec<String>,
}

/// An update point to read from.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ViaView {
    /// Who it is.
    pub id: String,
    /// `https://HOST:PORT`.
    pub address: String,
}

/// Wait for a request to synchronise
///
/// As soon as it differs from the revision that the follower has. 204 if it did not in the time that it
/// waits; then it asks again. One that was not there when a request was made finds it when it is back.
#[utoipa::path(get, path = "/api/v1/follower/request", tag = "follower",
    operation_id = "get_sync_request", security(("follower" = [])), params(RequestQuery),
    responses((status = 200, description = "What is asked", body = SyncRequestView),
        (status = 204, description = "It is still the same")))]
async fn get_request(
    State(site): State<Site>,
    Extension(id): Extension<FollowerId>,
    Extension(Gone(gone)): Extension<Gone>,
    Query(query): Query<RequestQuery>,
) -> Result<Response, Problem> {
    let deadline = deadline(query.wait)?;
    let of = site.clone();
    let ledger = blocking(move || of.ledger()).await?;
    let registry = &ledger.registry;
    let mut following = registry.following();
    loop {
        following.mark_unchanged();
        let (of, asked) = (site.clone(), id.clone());
        let request = blocking(move || request_of(&of, &asked)).await?;
        if query.after.as_ref() != Some(&request.revision) {
            return Ok(Json(request).into_response());
        }
        if registry.is_closed() {
            let detail = "the site is stopping: ask again in a moment";
            return Err(Problem::new(Kind::Unavailable, detail).retry_after(2));
        }
        tokio::select! {
            _ = following.changed() => {}
            () = gone.cancelled() => {
                registry.follower_broke(&id, Timestamp::now());
                let detail = "the follower hung up";
                return Err(Problem::new(Kind::Unavailable, detail));
            }
            () = tokio::time::sleep_until(deadline) => {
                registry.saw_follower(&id, Timestamp::now());
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
        }
    }
}

fn request_of(site: &Site, id: &FollowerId) -> Result<SyncRequest, Problem> {
    let ledger = site.ledger()?;
    let registry = &ledger.registry;
    let follower = registry.follower(id.as_str()).map_err(|_| not_a_follower_any_more())?;
    let (mut via, mut peers) = (None, Vec::new());
    if follower.kind == FollowerKind::UpdatePoint {
        let points = registry.followers();
        let points = points.into_iter().filter(|it| it.kind == FollowerKind::UpdatePoint);
        peers = points.map(|it| it.id).collect();
        let source = hierarchy::tell::point_source(&ledger)?.filter(|source| source.id != *id);
        via = source.and_then(|source| {
            let address = source.report?.address?;
            Some(Via { id: source.id, address })
        });
    }
    let facts = serde_json::json!([follower.asked, via, peers]).to_string();
    let revision = blake3::hash(facts.as_bytes()).to_hex()[..16].to_owned();
    Ok(SyncRequest { revision, asked: follower.asked, via, peers })
}

/// Which part of the feed is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FeedQuery {
    /// What the follower had when it began to read; 0 is nothing.
    #[param(default = 0)]
    since: Option<u64>,
    /// The last place that it has read since.
    #[param(default = 0)]
    after: Option<u64>,
}

/// Read a part of the catalogue's feed
///
/// A page of updates in the order of their changes, with what is set at the top of the tree, as JSON
/// compressed by zstd: `ARCHITECTURE.md`, "A tree of sites". A page that does not begin where it was asked to
/// begins anew.
#[utoipa::path(get, path = "/api/v1/follower/feed", tag = "follower",
    operation_id = "get_feed", security(("follower" = [])), params(FeedQuery),
    responses((status = 200, description = "A page", content_type = "application/zstd",
        body = Vec<u8>, example = json!("(compressed)"))))]
async fn get_feed(
    State(site): State<Site>,
    Query(query): Query<FeedQuery>,
) -> Result<Response, Problem> {
    let from = Place { since: query.since.unwrap_or(0), after: query.after.unwrap_or(0) };
    let page = blocking(move || {
        let machine = site.updates()?;
        let catalogue = machine.catalogue();
        Ok(pack(&Sent {
            catalogue: catalogue.lineage().to_owned(),
            above: hierarchy::above(&site)?,
            page: catalogue.changes(from, MAX_FEED_PAGE)?,
        })?)
    });
    Ok(([(header::CONTENT_TYPE, "application/zstd")], page.await?).into_response())
}

/// How far a follower is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "asked": 17, "state": "done", "address": "https://0.0.0.0:8520", "program": "0.1.0",
    "updates": 6120, "synced": "2026-11-27T03:02:11Z"
}))]
pub struct FollowerReportView {
    /// The request that it is about.
    pub asked: u64,
    /// How far it is: `running`, `done` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `https://HOST:PORT`, where others reach it, as it thinks; the host may be unspecified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The version of its program.
    pub program: String,
    /// How many updates it has.
    pub updates: u64,
    /// When it last had all that there was, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub synced: Option<Timestamp>,
}

/// Report how far the follower is
#[utoipa::path(put, path = "/api/v1/follower/report", tag = "follower",
    operation_id = "put_follower_report", security(("follower" = [])),
    request_body = FollowerReportView,
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 204, description = "It is kept")))]
async fn put_report(
    State(site): State<Site>,
    Extension(id): Extension<FollowerId>,
    peer: Option<Extension<SocketAddr>>,
    Input(told): Input<FollowerReportView>,
) -> Result<StatusCode, Problem> {
    let state = match told.state.as_str() {
        "running" => FollowerState::Running,
        "done" => FollowerState::Done,
        "failed" => FollowerState::Failed,
        _ => return Err(Problem::field("state", "must be running, done or failed")),
    };
    let report = FollowerReport {
        asked: told.asked,
        state,
        detail: told.detail,
        address: told.address,
        program: told.program,
        updates: told.updates,
        synced: told.synced,
        received: Timestamp::now(),
    };
    let from = peer.map(|Extension(peer)| peer.ip());
    blocking(move || Ok(site.ledger()?.registry.follower_told(&id, report, from)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Renew the follower's certificate
#[utoipa::path(post, path = "/api/v1/follower/renew", tag = "follower",
    operation_id = "renew_follower", security(("follower" = [])), request_body = RenewRequest,
    extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "The new one", body = RenewAnswer)))]
async fn renew(
    State(site): State<Site>,
    Extension(id): Extension<FollowerId>,
    peer: Option<Extension<SocketAddr>>,
    Input(asked): Input<RenewRequest>,
) -> Result<Json<RenewAnswer>, Problem> {
    let renewed = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let name = ledger.registry.follower(id.as_str())?.name;
        let peer_name = Peer::Follower(id.clone());
        let certificate = site.authority()?.sign_for(&asked.request, &peer_name, now)?;
        ledger.registry.follower_renewed(&id, now)?;
        let token = Some(id.to_string());
        let who = Identity { name: format!("follower {name}"), token, role: Role::Reader };
        let mut record = AuditRecord::new(&who, "renew_follower", name.as_str(), 200);
        record.from = peer.map(|Extension(peer)| peer.ip().to_canonical());
        ledger.audit.write(&record)?;
        Ok(certificate)
    });
    Ok(Json(RenewAnswer { certificate: renewed.await? }))
}
