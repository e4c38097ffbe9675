//! What a client says to its site: that it joins, which policy it has, what it is, how its updates stand.
//!
//! The certificate of the connection says who asks; tokens do not count here. The bytes of a batch of
//! states are described in `compliance/PROTOCOL.md`.

use crate::audit::AuditRecord;
use crate::auth::{Identity, Role};
use crate::extract::{Input, Params, Query, deadline, parse_json, want_media_type, whole_body};
use crate::fleet::policy::{Own, signed};
use crate::fleet::settings::For;
use crate::fleet::{Caller, certified};
use crate::hierarchy::own_addresses;
use crate::problem::{Kind, Problem};
use crate::routes::places::asked_host;
use crate::routes::point::want_private;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use compliance::fleet::{
    BadPackages, Enrolment, FactsChange, FactsError, Fingerprint, MAX_FACTS_SENT, Standing,
};
use compliance::message::{Answer, ClientId, MAX_SENT, Refusal};
use deployment::enforcement::{MAX_REPORT, Report};
use dp::identity::{OverTls, Peer, requested_key};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// When a client that waits for approval should ask again, in seconds.
const ASK_AGAIN: u64 = 60;
/// The media type of a batch of states.
pub const STATES: &str = "application/vnd.depot.states";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(join))
        .routes(routes!(get_policy))
        .routes(routes!(get_deployed_updates))
        .routes(routes!(put_facts))
        .routes(routes!(post_states))
        .routes(routes!(put_enforcement))
        .routes(routes!(renew))
}

/// What a machine sends that wants to be a client.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "secret": "5d0c2a7b1e0d4455a7b1e0d30199f0c2", "id": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199",
    "name": "pc-17", "request": "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"
}))]
pub struct EnrolView {
    /// The secret of its join token, in hex.
    pub secret: String,
    /// The id that it chose for itself, a UUID.
    pub id: String,
    /// What people call it: its host name.
    pub name: String,
    /// A certificate signing request in PEM (PKCS #10). Only its key counts.
    pub request: String,
}

/// What it gets.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "standing": "approved",
    "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "authority": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "key": "00b9c658e488c4b8708970e3d70b998474ff89268a26872fea22a8f76e4c3bd8",
    "sites": ["https://site.example:8520"]
}))]
pub struct EnrolledView {
    /// `approved`, or `pending`: then there is no certificate yet, and it asks again.
    pub standing: String,
    /// Its certificate, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The site's authority, in PEM.
    pub authority: String,
    /// What versions are signed with.
    pub key: String,
    /// Where the site is reached.
    pub sites: Vec<String>,
}

/// Join as a client
///
/// Takes no token but that in the body. Only over HTTPS, or from the same machine. A machine that asks again
/// with the same key is the same machine: it gets an answer again, and does not count twice. 202 where an
/// administrator has to approve it first: it asks again after the time in `Retry-After`.
#[utoipa::path(post, path = "/api/v1/client/join", tag = "client", security(()),
    operation_id = "join_client", request_body = EnrolView, extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "It is a client now", body = EnrolledView),
        (status = 202, description = "It waits for approval", body = EnrolledView),
        (status = 403, description = "The join token is no good, the machine is blocked, or the connection is \
            not private", body = Problem),
        (status = 409, description = "Its id or key belongs to another machine", body = Problem)))]
async fn join(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    tls: Option<Extension<OverTls>>,
    Input(asked): Input<EnrolView>,
) -> Result<Response, Problem> {
    let from = want_private(peer, tls)?;
    let id: ClientId = asked.id.parse().map_err(|_| Problem::field("id", "must be a UUID"))?;
    let secret = crate::page::unhex(&asked.secret)
        .ok_or_else(|| Problem::field("secret", "must be hex digits"))?;
    let joined = blocking(move || {
        let (ledger, fleet, now) = (site.ledger()?, site.fleet()?, Timestamp::now());
        let key = Fingerprint(requested_key(&asked.request)?);
        let was_known = fleet.states.find(id).is_some();
        let enrolment =
            Enrolment { id, key, name: asked.name.clone(), standing: Standing::Pending };
        let admitted = fleet.tokens.admit(&secret, &fleet.states, enrolment, now);
        let (_, standing, token) = admitted.inspect_err(|error| {
            // Not in the audit log, which strangers must not fill.
            let from = from.map(|from| from.to_string());
            tracing::warn!(from, %error, "a machine was not let in");
        })?;
        let authority = site.authority()?;
        let certificate = match standing {
            Standing::Approved => {
                Some(authority.sign_for(&asked.request, &Peer::Client(certified(id)), now)?)
            }
            _ => None,
        };
        fleet.fallback.heard(id)?;
        if !was_known {
            let who = Identity {
                name: format!("join token {}", token.name),
                token: Some(token.id.clone()),
                role: Role::Reader,
            };
            let mut record = AuditRecord::new(&who, "join_client", asked.name.as_str(), 200);
            record.from = from;
            record.detail = Some(format!("id {id}"));
            ledger.audit.write(&record)?;
        }
        Ok(EnrolledView {
            standing: if certificate.is_some() { "approved" } else { "pending" }.into(),
            certificate,
            authority: authority.anchor().pem(),
            key: site.content()?.packages.public_key().to_string(),
            sites: token.sites,
        })
    });
    let enrolled = joined.await?;
    let private = (header::CACHE_CONTROL, "no-store".to_owned());
    Ok(match enrolled.certificate {
        Some(_) => ([private], Json(enrolled)).into_response(),
        None => {
            let again = (header::RETRY_AFTER, ASK_AGAIN.to_string());
            (StatusCode::ACCEPTED, [private, again], Json(enrolled)).into_response()
        }
    })
}

/// Which policy a client knows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PolicyQuery {
    /// The revision that it has; without it, the policy is answered at once.
    after: Option<String>,
    /// Seconds that it waits for another, at most 60; without it, none.
    #[param(maximum = 60, default = 0)]
    wait: Option<u64>,
}

/// A policy, signed.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "policy": "{\"revision\":\"b2d1c0ffee00aa11\",\"client\":\"0199f0c2-a7b1-7e0d-8455-a7b1e0d30199\",\
        \"updates_enabled\":true,\"update_points\":[{\"name\":\"site\",\
        \"url\":\"https://site.example:8520\"}],\"distribution_points\":[{\"name\":\"branch-7\",\
        \"url\":\"http://192.0.2.7:8520\"},{\"name\":\"site\",\"url\":\"https://site.example:8520\",\
        \"after\":1200}],\"settings\":{\"updates_enabled\":true,\"poll_every\":3600,\"report_every\":900,\
        \"report_after_install\":120,\"scan_every\":604800,\"reevaluate_every\":604800,\
        \"catalogue_ttl\":86400},\"fallback\":[\"https://site.example:8520\"],\
        \"synced\":\"2026-11-27T03:02:11Z\"}",
    "signature": "b9c658e488c4b870…"
}))]
pub struct SignedPolicyView {
    /// The policy, as JSON text: its `revision`, the `client` that it is for, `updates_enabled`, the
    /// `update_points` and `distribution_points` in the order in which it turns to them, its `settings`, the
    /// addresses where it says why it cannot report (`fallback`), and when the site was last `synced`.
    pub policy: String,
    /// The site's Ed25519 signature of `depot client policy v1`, a zero byte and the BLAKE3 of that text, in
    /// hex.
    pub signature: String,
}

/// Say what the client is to do
///
/// As soon as it differs from the revision that the client has; 204 if it did not in the time that it
/// waits, or 304 if it named the revision in `If-None-Match`. What was deployed just now is staged first: that takes a
/// moment, and ten seconds at most.
#[utoipa::path(get, path = "/api/v1/client/policy", tag = "client",
    operation_id = "get_client_policy", security(("client" = [])), params(PolicyQuery),
    responses((status = 200, description = "The policy", body = SignedPolicyView,
            headers(("ETag" = String, description = "Its revision"))),
        (status = 204, description = "It is still the same"),
        (status = 304, description = "It is still the same")))]
async fn get_policy(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<SocketAddr>>,
    Query(query): Query<PolicyQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = deadline(query.wait)?;
    let tag = request.headers().get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
    let unchanged = if tag.is_some() { StatusCode::NOT_MODIFIED } else { StatusCode::NO_CONTENT };
    let known = query.after.or_else(|| Some(tag?.trim_matches('"').to_owned()));
    let reached = asked_host(&request).map(|host| format!("https://{host}"));
    let peer = peer.map(|Extension(peer)| peer.ip());
    let of = site.clone();
    let fleet = blocking(move || of.fleet()).await?;
    let mut waiting = fleet.policies.wait(caller.ordinal);
    loop {
        waiting.own.mark_unchanged();
        waiting.frame.mark_unchanged();
        // Who asks just after something was deployed is told of it, and not by the next time it asks.
        tokio::select! {
            () = site.deployed().until_told() => {}
            () = waiting.closed.cancelled() => return Err(stopping()),
        }
        let (of, reached) = (site.clone(), reached.clone());
        let (own, mut frame) = blocking(move || {
            let fleet = of.fleet()?;
            // It may be shut out since it asked.
            fleet.caller(&certified(caller.id))?;
            let facts = fleet.states.facts(caller.ordinal)?;
            let addresses = facts.into_iter().flat_map(|facts| facts.addresses).chain(peer);
            let reached = reached.unwrap_or_else(|| own_addresses(&of).remove(0));
            let set = fleet.settings.get(For::Client(caller.id));
            let told = of.deployed().told(&of)?.picture.of(caller.ordinal);
            let addresses = addresses.collect();
            let own = Own { client: caller.id, addresses, reached, set, told };
            Ok((own, fleet.policies.frame(&of)?))
        })
        .await?;
        loop {
            let policy = frame.policy(&own);
            if known.as_ref() != Some(&policy.revision) {
                let tag = (header::ETAG, format!("\"{}\"", policy.revision));
                let signed = blocking(move || signed(&site, &policy)).await?;
                return Ok(([tag], Json(signed)).into_response());
            }
            tokio::select! {
                _ = waiting.frame.changed() => {}
                _ = waiting.own.changed() => {
                    waiting.own_turn().await;
                    break;
                }
                () = waiting.closed.cancelled() => return Err(stopping()),
                () = tokio::time::sleep_until(deadline) => return Ok(unchanged.into_response()),
            }
            waiting.turn().await;
            frame = waiting.frame.borrow_and_update().clone().ok_or_else(stopping)?;
        }
    }
}

fn stopping() -> Problem {
    Problem::new(Kind::Unavailable, "the site is stopping: ask again in a moment").retry_after(2)
}

/// Read which updates are deployed
///
/// The document that a deployment of the client's policy names: what each update is, how it is installed, and the
/// digests of its files. It is as its digest says, and never another.
#[utoipa::path(get, path = "/api/v1/client/deployed-updates/{digest}", tag = "client",
    operation_id = "get_deployed_updates", security(("client" = [])),
    params(("digest" = String, Path, description = "Its BLAKE3, in hex, as the policy has it",
        example = "b9c658e488c4b8708970e3d70b998474ff89268a26872fea22a8f76e4c3bd8ff")),
    responses((status = 200, description = "The document", body = serde_json::Value,
            headers(("ETag" = String, description = "The digest")),
            example = json!({"updates": [{
                "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "revision": 1, "name": "DSA-5545-1",
                "title": "openssl security update", "items": [{"item": 0, "handler": "apt", "files": [{
                    "name": "openssl_3.0.11-1_amd64.deb", "size": 1400000,
                    "digest": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}]}]}]})),
        (status = 304, description = "The client has it"),
        (status = 404, description = "No deployment of the client names it", body = Problem)))]
async fn get_deployed_updates(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest = params.text("digest").to_owned();
    let tag = format!("\"{digest}\"");
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag.as_str());
    let bytes = blocking(move || site.deployed().document(&site, caller.ordinal, &digest)).await?;
    let head = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, bytes).into_response())
}

/// What of a client's facts changed, and the revisions it leads from and to.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "base": 0, "revision": 1, "os": "debian", "os_version": "12", "codename": "bookworm",
    "architecture": "x86_64", "addresses": ["192.0.2.17"], "attributes": {"ring": "pilot"},
    "packages": {"kind": "deb", "changed": {"openssl": [{"version": "3.0.15-1~deb12u1", "arch": "amd64"}]},
        "removed": ["telnet"]}
}))]
pub struct FactsChangeView {
    /// The revision that it is a change of; 0 for all facts.
    pub base: u64,
    /// The revision that it leads to.
    pub revision: u64,
    /// `ID` of os-release.
    pub os: Option<String>,
    /// `VERSION_ID` of os-release.
    pub os_version: Option<String>,
    /// `VERSION_CODENAME` of os-release.
    pub codename: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// Network addresses.
    pub addresses: Option<Vec<String>>,
    /// What administrators set on the machine; null takes one away.
    #[schema(value_type = std::collections::BTreeMap<String, Option<String>>)]
    pub attributes: serde_json::Value,
    /// What of the packages changed; absent if nothing did, or they are not told.
    pub packages: Option<PackagesChangeView>,
}

/// What of a machine's packages changed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PackagesChangeView {
    /// By which order versions are compared: `deb`, `rpm`, or `other`.
    pub kind: String,
    /// By name all that is installed now, where that is another than before.
    pub changed: std::collections::BTreeMap<String, Vec<PackageView>>,
    /// Names under which nothing is installed any more.
    pub removed: Vec<String>,
}

/// What is installed under a name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PackageView {
    /// Its version.
    pub version: String,
    /// Its architecture, as its packager calls it.
    pub arch: String,
}

/// The revision of the facts that a site has.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"revision": 1}))]
pub struct FactsRevisionView {
    /// It.
    pub revision: u64,
}

/// Tell what the client is
///
/// What changed since the revision that the site has; 409 if it has another one, then all is to be told.
#[utoipa::path(put, path = "/api/v1/client/facts", tag = "client",
    operation_id = "put_client_facts", security(("client" = [])), request_body = FactsChangeView,
    responses((status = 200, description = "They are kept", body = FactsRevisionView),
        (status = 409, description = "The site has another revision: tell all", body = Problem),
        (status = 413, description = "They are too large", body = Problem)))]
async fn put_facts(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<FactsRevisionView>, Problem> {
    want_media_type(request.headers(), &["application/json"])?;
    let body = whole_body(request.into_body(), MAX_FACTS_SENT as u64).await?;
    let change: FactsChange = parse_json(&body)?;
    let may_move = change.base == 0 || change.addresses.is_some();
    let kept = blocking(move || {
        let (fleet, now) = (site.fleet()?, Timestamp::now());
        let kept = fleet.states.change_facts(caller.ordinal, change, now);
        let kept = kept.map_err(|error| match error {
            FactsError::Store(error) => error.into(),
            FactsError::TooLarge(_)
            | FactsError::Packages(BadPackages::TooMany(_) | BadPackages::TooManyKnown(_)) => {
                Problem::new(Kind::TooLarge, error.to_string())
            }
            FactsError::Packages(_) => Problem::field("packages", error.to_string()),
            other => Problem::new(Kind::Conflict, other.to_string()),
        })?;
        if may_move {
            fleet.policies.own_changed(caller.ordinal);
        }
        Ok(kept)
    });
    Ok(Json(FactsRevisionView { revision: kept.await? }))
}

/// What a batch of states is answered.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"answer": "accepted", "next": 18, "resync": null}))]
pub struct AnswerView {
    /// `accepted`, `duplicate` or `gap`.
    pub answer: String,
    /// The number that the next batch begins with.
    #[serde(default)]
    pub next: Option<u64>,
    /// The number that is expected, where there is a gap.
    #[serde(default)]
    pub expected: Option<u64>,
    /// Why a full state is wanted, if it is: `diverged`, `corrupt` or `new-incarnation`.
    #[serde(default)]
    pub resync: Option<String>,
}

/// Report states of updates
///
/// A batch as `compliance/PROTOCOL.md` describes it, on the site's disk when it is answered. 503 if the site
/// has too much to do: the same batch is sent again after the time in `Retry-After`.
#[utoipa::path(post, path = "/api/v1/client/states", tag = "client",
    operation_id = "report_states", security(("client" = [])),
    request_body(content = Vec<u8>, content_type = STATES, example = "…"),
    responses((status = 200, description = "It was taken, was taken before, or others are missing before it",
            body = AnswerView),
        (status = 413, description = "It is too large", body = Problem),
        (status = 422, description = "It is damaged, and lies in quarantine", body = Problem),
        (status = 503, description = "Not now; see Retry-After", body = Problem)))]
async fn post_states(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Answer>, Problem> {
    want_media_type(request.headers(), &[STATES])?;
    let bytes = whole_body(request.into_body(), MAX_SENT as u64).await?;
    let answer = blocking(move || {
        let fleet = site.fleet()?;
        let answer = fleet.states.accept(&caller.key, bytes.into(), Timestamp::now());
        let answer = answer
            .map_err(|error| Problem::new(Kind::Unavailable, error.to_string()).retry_after(10))?;
        if matches!(answer, Answer::Accepted { .. } | Answer::Duplicate { .. }) {
            fleet.fallback.heard(caller.id)?;
        }
        Ok(answer)
    });
    match answer.await? {
        Answer::Busy { retry_after } => {
            let detail = "the site has too much to do: send the same batch again later";
            Err(Problem::new(Kind::Busy, detail).retry_after(retry_after.into()))
        }
        Answer::Refused { why } => Err(refused(why)),
        answer => Ok(Json(answer)),
    }
}

fn refused(why: Refusal) -> Problem {
    let kind = match why {
        Refusal::TooLarge => Kind::TooLarge,
        Refusal::Malformed { .. } | Refusal::ForeignKey => Kind::InvalidValue,
        Refusal::TooManyUpdates => Kind::Conflict,
        _ => Kind::NotAClient,
    };
    let text = why.to_string();
    Problem::new(kind, text.as_str()).caused_by("batch", &text)
}

/// Report how far deployments are
///
/// All of them, with all there is to say: the last report of a client is all that counts. It is on the site's disk when
/// it is answered. One that comes late or twice, by its number, changes nothing. 503 if the site has too much to do: a
/// newer report is sent after the time in `Retry-After`.
#[utoipa::path(put, path = "/api/v1/client/enforcement", tag = "client",
    operation_id = "put_client_enforcement", security(("client" = [])),
    request_body(content = serde_json::Value, content_type = "application/json", example = json!({
        "client": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "incarnation": 7, "number": 12,
        "deployments": [{"deployment": "0199f0c2-a7b1-4e0d-8455-a7b1e0d30199",
            "updates_of": "b9c658e488c4b8708970e3d70b998474ff89268a26872fea22a8f76e4c3bd8ff",
            "compliance": "non-compliant", "enforcement": "failed", "evaluation": "succeeded", "age": 60,
            "failure": {"code": 100, "detail": "dpkg was interrupted"},
            "updates": [{"update": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "state": "failed", "age": 60}]}]
    })),
    responses((status = 204, description = "It counts, or a newer one does"),
        (status = 413, description = "It is too large", body = Problem),
        (status = 503, description = "Not now; see Retry-After", body = Problem)))]
async fn put_enforcement(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Problem> {
    want_media_type(request.headers(), &["application/json"])?;
    let of = site.clone();
    let fleet = blocking(move || of.fleet()).await?;
    // Before the body is read, so that those who wait take no memory.
    let Ok(_one_of_few) = fleet.reports.try_acquire() else {
        let detail = "the site has too much to do: send a report again later";
        return Err(Problem::new(Kind::Busy, detail).retry_after(rand::random_range(5..30)));
    };
    let body = whole_body(request.into_body(), MAX_REPORT as u64).await?;
    let of = Arc::clone(&fleet);
    blocking(move || {
        let report = Report::read(&body).map_err(|error| {
            Problem::new(Kind::InvalidValue, error.to_string()).caused_by("body", error.to_string())
        })?;
        if report.client != caller.id {
            return Err(Problem::field("client", "is not the one that the certificate names"));
        }
        let there_are = of.deployments.all();
        let is_one = |id| there_are.contains_key(&id);
        of.results.accept(caller.ordinal, report, is_one, Timestamp::now())?;
        if of.states.id(caller.ordinal) != Some(caller.id) {
            // It was removed in this moment.
            of.results.forget_client(caller.ordinal, caller.id)?;
        }
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A certificate that is to be made anew.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"request": "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"}))]
pub struct RenewClientView {
    /// A certificate signing request in PEM, of the key that the client has.
    pub request: String,
}

/// One that was.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"}))]
pub struct RenewedClientView {
    /// It, in PEM.
    pub certificate: String,
}

/// Renew the client's certificate
///
/// For the key that it has: with another one, it joins anew.
#[utoipa::path(post, path = "/api/v1/client/renew", tag = "client",
    operation_id = "renew_client", security(("client" = [])), request_body = RenewClientView,
    extensions(("x-unkept" = json!(true))),
    responses((status = 200, description = "The certificate", body = RenewedClientView),
        (status = 409, description = "The request is of another key", body = Problem)))]
async fn renew(
    State(site): State<Site>,
    Extension(caller): Extension<Caller>,
    Input(asked): Input<RenewClientView>,
) -> Result<Json<RenewedClientView>, Problem> {
    let renewed = blocking(move || {
        if Fingerprint(requested_key(&asked.request)?) != caller.key {
            let detail = "the request is of another key than the client joined with";
            return Err(Problem::new(Kind::Conflict, detail));
        }
        let peer = Peer::Client(certified(caller.id));
        Ok(site.authority()?.sign_for(&asked.request, &peer, Timestamp::now())?)
    });
    Ok(Json(RenewedClientView { certificate: renewed.await? }))
}
