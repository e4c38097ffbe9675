//! Join tokens of clients, for people.

use crate::auth::Identity;
use crate::config::SiteUrl;
use crate::extract::{Input, Params, Query, parse_field};
use crate::fleet::tokens::{ClientToken, NewClientToken};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::routes::points::{addresses, end};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use dp::field::JoinToken;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a token is good if its maker does not say.
const GOOD_FOR: SignedDuration = SignedDuration::from_hours(24 * 30);
/// For how many machines a token may be.
const MOST_USES: u64 = 1_000_000;
/// The longest name of a token, in characters.
const MAX_NAME: usize = 64;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_client_tokens, create_client_token))
        .routes(routes!(revoke_client_token))
}

/// A join token of clients as it is listed. Its text is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "3f9c2a7b1e0d", "name": "office-image", "uses": 500, "used": 17, "pending": false,
    "sites": ["https://site.example:8520"], "created": "2026-11-22T12:00:00Z", "created_by": "admin",
    "expires": "2026-12-22T12:00:00Z"
}))]
pub struct ClientTokenView {
    /// Names it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How many machines may come in with it.
    pub uses: u64,
    /// How many have.
    pub used: u64,
    /// Whether each of them waits for approval.
    pub pending: bool,
    /// Where the token says that the site is reached.
    pub sites: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends to be good.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

impl From<ClientToken> for ClientTokenView {
    fn from(token: ClientToken) -> Self {
        Self {
            id: token.id,
            name: token.name,
            uses: token.uses,
            used: token.used,
            pending: token.pending,
            sites: token.sites,
            created: token.created,
            created_by: token.created_by,
            expires: token.expires,
        }
    }
}

/// List the join tokens of clients
///
/// By id. Secrets are not kept and so not listed.
#[utoipa::path(get, path = "/api/v1/client-tokens", tag = "fleet",
    security(("token" = ["admin"])), params(PageQuery),
    responses((status = 200, description = "A page of tokens", body = Page<ClientTokenView>)))]
async fn list_client_tokens(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ClientTokenView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("client-tokens")?);
    let all = blocking(move || site.fleet()?.tokens.all()).await?;
    let now = Timestamp::now();
    let good = all.into_iter().filter(|token| token.expires > now);
    let page = Page::cut("client-tokens", good, after.as_deref(), limit, |it| it.id.clone());
    Ok(Json(page.map(ClientTokenView::from)))
}

/// A join token of clients to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "office-image", "uses": 500}))]
pub struct NewClientTokenView {
    /// What people will call it.
    pub name: String,
    /// How many machines may come in with it, at most 1,000,000. Without it, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Whether each of them waits for an administrator's approval.
    #[serde(default)]
    pub pending: bool,
    /// When it ends to be good: within a year. Without it, after thirty days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Where clients reach this site, the best first: `https://HOST:PORT`. Without any, those of the setting
    /// `site.url`, or else where the site listens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub sites: Vec<SiteUrl>,
}

/// A join token of clients that was made.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "token": "depotjoin1…", "id": "3f9c2a7b1e0d", "name": "office-image", "uses": 500, "used": 0,
    "pending": false, "sites": ["https://site.example:8520"], "created": "2026-11-22T12:00:00Z",
    "created_by": "admin", "expires": "2026-12-22T12:00:00Z"
}))]
pub struct CreatedClientToken {
    /// The token. It is shown this once.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub info: ClientTokenView,
}

/// Make a join token of clients
///
/// For as many machines as it says. Its text is in this answer and nowhere else; for the same reason the
/// answer is not kept for an idempotency key. Whoever has it can make machines clients: hand it on as you
/// would a password.
#[utoipa::path(post, path = "/api/v1/client-tokens", tag = "fleet",
    security(("token" = ["admin"])), request_body = NewClientTokenView,
    extensions(("x-unkept" = json!(true))),
    responses((status = 201, description = "It was made", body = CreatedClientToken,
        headers(("Location" = String, description = "Its address")))))]
async fn create_client_token(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewClientTokenView>,
) -> Result<(StatusCode, [(&'static str, String); 2], Json<CreatedClientToken>), Problem> {
    note.target(&new.name);
    if new.name.is_empty() || new.name.chars().count() > MAX_NAME {
        return Err(Problem::field("name", format!("must have 1 to {MAX_NAME} characters")));
    }
    let uses = new.uses.unwrap_or(1);
    if !(1..=MOST_USES).contains(&uses) {
        return Err(Problem::field("uses", format!("must be from 1 to {MOST_USES}, not {uses}")));
    }
    let now = Timestamp::now();
    let expires = end(new.expires, GOOD_FOR, now)?;
    let sites = addresses(&site, new.sites)?;
    let created = blocking(move || {
        let authority = site.authority()?.fingerprint();
        let token = JoinToken { authority, secret: rand::random(), sites: sites.clone() };
        let (name, pending, by) = (new.name, new.pending, identity.name);
        let new = NewClientToken { name, uses, pending, sites, by, expires };
        let info = site.fleet()?.tokens.create(new, &token.secret, now)?;
        Ok((info, token))
    });
    let (info, token) = created.await?;
    note.detail(format!("id {}, for {uses}", info.id));
    let location = ("location", format!("/api/v1/client-tokens/{}", info.id));
    let headers = [location, ("cache-control", "no-store".into())];
    let made = CreatedClientToken { token: token.to_string(), info: info.into() };
    Ok((StatusCode::CREATED, headers, Json(made)))
}

/// Revoke a join token of clients
///
/// Nobody can join with it any more. Clients that joined with it stay.
#[utoipa::path(delete, path = "/api/v1/client-tokens/{token}", tag = "fleet",
    security(("token" = ["admin"])),
    params(("token" = String, Path, description = "Its id or name", example = "office-image")),
    responses((status = 200, description = "What it was", body = ClientTokenView)))]
async fn revoke_client_token(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ClientTokenView>, Problem> {
    let which: String = parse_field("token", params.text("token"))?;
    let revoked = blocking(move || site.fleet()?.tokens.revoke(&which)).await?;
    Ok(Json(revoked.into()))
}
