//! The server itself: is it there, which version, who am I, what can it do.

use crate::auth::{Identity, Role};
use crate::guard::AuditNote;
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The OpenAPI document, written out when first asked for.
#[derive(Clone)]
pub struct Document(Arc<(serde_json::Value, OnceLock<Bytes>)>);

impl Document {
    /// The document to give.
    pub fn new(document: serde_json::Value) -> Self {
        Self(Arc::new((document, OnceLock::new())))
    }
}

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(version))
        .routes(routes!(whoami))
        .routes(routes!(authority))
        .routes(routes!(openpgp_key))
        .routes(routes!(servers))
        .routes(routes!(new_key))
        .routes(routes!(openapi))
}

/// Whether the server answers.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"status": "ok"}))]
pub struct Health {
    /// Always `ok`.
    pub status: String,
}

/// Say whether the server answers
///
/// Takes no token. `/readyz` beside this interface says whether content can be served.
#[utoipa::path(get, path = "/api/v1/health", tag = "server", security(()),
    responses((status = 200, description = "It answers", body = Health)))]
async fn health() -> Json<Health> {
    Json(Health { status: "ok".into() })
}

/// Which program this is.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "depot", "version": "0.1.0", "api": "v1"}))]
pub struct Version {
    /// `depot`.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The version of this interface.
    pub api: String,
}

/// Say which version this is
///
/// Takes no token.
#[utoipa::path(get, path = "/api/v1/version", tag = "server", security(()),
    responses((status = 200, description = "The version", body = Version)))]
async fn version() -> Json<Version> {
    Json(Version {
        name: "depot".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        api: "v1".into(),
    })
}

/// Who a request acts for.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "ci", "token": "3f9c2a7b1e0d", "role": "operator"}))]
pub struct Whoami {
    /// The token's name, or `local admin`.
    pub name: String,
    /// The token's id; absent for the local administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What it may do.
    pub role: Role,
}

/// Say whose token this is
#[utoipa::path(get, path = "/api/v1/whoami", tag = "server", security(("token" = ["reader"])),
    responses((status = 200, description = "Who the request acts for", body = Whoami)))]
async fn whoami(Extension(identity): Extension<Identity>) -> Json<Whoami> {
    Json(Whoami { name: identity.name, token: identity.token, role: identity.role })
}

/// Who vouches for the site and its distribution points.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
    "fingerprint": "91aa0c9d1f0b6c1f5a1f8e9f7f1c2f35f0a6a5d0c3d4e5f60718293a4b5c6d7e"
}))]
pub struct AuthorityView {
    /// Its certificate, in PEM.
    pub certificate: String,
    /// SHA-256 of the certificate in DER, as 64 hex digits.
    pub fingerprint: String,
}

/// The key that signs the repositories that the site makes.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "public": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n…\n-----END PGP PUBLIC KEY BLOCK-----\n",
    "fingerprint": "0A9F5E0C3D1B2A49586776655443322110FFEEDD"
}))]
pub struct OpenpgpKeyView {
    /// The public key, in ASCII armor.
    pub public: String,
    /// Its fingerprint, as 40 hex digits.
    pub fingerprint: String,
}

/// Give the OpenPGP key of the site
///
/// It signs repositories of chosen packages, and is made when it is first needed.
#[utoipa::path(get, path = "/api/v1/openpgp-key", tag = "server", operation_id = "show_openpgp_key",
    security(("token" = ["reader"])),
    responses((status = 200, description = "The key", body = OpenpgpKeyView)))]
async fn openpgp_key(State(site): State<Site>) -> Result<Json<OpenpgpKeyView>, Problem> {
    let view = blocking(move || {
        let key = crate::mirror::key::open(&site)?;
        let public = key.public_armored().map_err(|error| Problem::internal(&error))?;
        Ok(OpenpgpKeyView { public, fingerprint: key.fingerprint() })
    });
    Ok(Json(view.await?))
}

/// Give the certificate of the site's authority
///
/// Takes no token. A client that believes it can tell the site and its distribution points from
/// anybody else over HTTPS, if it did not come over a line that somebody else may have written to.
#[utoipa::path(get, path = "/api/v1/authority", tag = "server", security(()),
    responses((status = 200, description = "The authority", body = AuthorityView)))]
async fn authority(State(site): State<Site>) -> Result<Json<AuthorityView>, Problem> {
    let authority = blocking(move || site.authority()).await?;
    let fingerprint = authority.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Json(AuthorityView { certificate: authority.anchor().pem(), fingerprint }))
}

/// One server of the site.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "address": "10.0.0.7:8520", "name": "depot on site7, process 81, data folder /var/lib/depot",
    "leads": true, "since": "2026-11-01T08:15:30Z"
}))]
pub struct ServerView {
    /// Where the other servers reach it.
    pub address: String,
    /// Program, machine, process and data folder, for people.
    pub name: String,
    /// Whether it leads; the others stand by and hand on to it.
    pub leads: bool,
    /// Since when it does what it does.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How long it has said nothing, if it should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_seconds: Option<u64>,
}

/// How long a server that stands by may say nothing.
const SILENCE: u64 = 20_000;

/// List the servers of the site
///
/// The first is the one that leads.
#[utoipa::path(get, path = "/api/v1/servers", tag = "server", operation_id = "list_servers",
    security(("token" = ["reader"])),
    responses((status = 200, description = "The servers", body = [ServerView])))]
async fn servers(State(site): State<Site>) -> Result<Json<Vec<ServerView>>, Problem> {
    Ok(Json(blocking(move || servers_of(&site)).await?))
}

fn servers_of(site: &Site) -> Result<Vec<ServerView>, Problem> {
    let Some(several) = site.several() else {
        let (address, name) =
            (site.address().to_string(), format!("depot, alone: {:?}", site.folder()));
        let since = site.opened();
        return Ok(vec![ServerView { address, name, leads: true, since, silent_seconds: None }]);
    };
    let time = |ms: u64| {
        i64::try_from(ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default()
    };
    let leader = several.onlooker.leader()?;
    let mut all = vec![ServerView {
        address: leader.address,
        name: leader.name,
        leads: true,
        since: time(leader.since),
        silent_seconds: None,
    }];
    all.extend(several.onlooker.standbys()?.into_iter().map(|it| ServerView {
        address: it.address,
        name: it.name,
        leads: false,
        since: time(it.since),
        silent_seconds: (it.silent > SILENCE).then_some(it.silent / 1000),
    }));
    Ok(all)
}

/// What versions are signed with from now on.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "key": "00b9c658e488c4b8708970e3d70b998474ff89268a26872fea22a8f76e4c3bd8"
}))]
pub struct SigningKey {
    /// The public key, as 64 hex digits.
    pub key: String,
}

/// Make a new signing key
///
/// Where the site's own is lost: a site without it does not open its content. Clients that trust
/// the lost one refuse new versions until they are told of this one. Only for a site that does not
/// serve, by `depot --data DIR site new-key`.
#[utoipa::path(post, path = "/api/v1/key", tag = "server", security(("token" = ["admin"])),
    responses((status = 200, description = "The new key", body = SigningKey)))]
async fn new_key(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
) -> Result<Json<SigningKey>, Problem> {
    if !identity.is_local() {
        let detail = "a serving site has its key: stop it, and run \
            `depot --data DIR site new-key` there";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let key = blocking(move || site.new_key()).await?.to_string();
    note.target("key");
    note.detail(format!("signs with {key}"));
    Ok(Json(SigningKey { key }))
}

/// Give this document
///
/// Takes no token.
#[utoipa::path(get, path = "/api/openapi.json", tag = "server", security(()),
    responses((status = 200, description = "The OpenAPI 3.1 document", body = serde_json::Value,
        example = json!({"openapi": "3.1.0"}))))]
async fn openapi(Extension(Document(document)): Extension<Document>) -> impl IntoResponse {
    let (document, text) = &*document;
    let text = text.get_or_init(|| document.to_string().into()).clone();
    ([(header::CONTENT_TYPE, "application/json")], text)
}
