//! Tokens, and the audit log.

use crate::audit::AuditRecord;
use crate::auth::{Identity, Role, TokenInfo};
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest name of a token.
const MAX_NAME: usize = 64;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(list_audit))
}

/// List the tokens
///
/// By id. Secrets are not kept and so not listed.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access", security(("token" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of tokens", body = Page<TokenInfo>)))]
async fn list_tokens(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<TokenInfo>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("tokens")?);
    let ledger = blocking(move || site.ledger()).await?;
    let all = ledger.tokens.list();
    Ok(Json(Page::cut("tokens", all, after.as_deref(), limit, |token| token.id.clone())))
}

/// A token to be made.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "role": "operator"}))]
pub struct NewToken {
    /// What it is for: 1 to 64 characters, unlike those of all other tokens.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends to be valid; without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

/// A token that was made.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "token": "depot_3f9c2a7b1e0d_5d0c…", "id": "3f9c2a7b1e0d", "name": "ci", "role": "operator",
    "created": "2026-11-22T12:00:00Z", "created_by": "admin", "expires": null
}))]
pub struct CreatedToken {
    /// The token. It is shown this once.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// Make a token
///
/// Its text is in this answer and nowhere else. For the same reason the answer is not kept for an
/// idempotency key; a repeat fails with 409, because the name is taken.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", security(("token" = ["admin"])),
    request_body = NewToken, extensions(("x-unkept" = json!(true))),
    responses((status = 201, description = "It was made", body = CreatedToken,
        headers(("Location" = String, description = "Its address")))))]
async fn create_token(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewToken>,
) -> Result<(StatusCode, [(&'static str, String); 2], Json<CreatedToken>), Problem> {
    note.target(&new.name);
    let length = new.name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || new.name.chars().any(char::is_control) {
        return Err(Problem::field(
            "name",
            format!("must be 1 to {MAX_NAME} characters without control characters"),
        ));
    }
    if new.expires.is_some_and(|end| end <= Timestamp::now()) {
        return Err(Problem::field("expires", "must be in the future"));
    }
    let created = blocking(move || {
        site.ledger()?.tokens.create(&new.name, new.role, &identity.name, new.expires)
    });
    let (info, token) = created.await?;
    note.detail(format!("id {}, role {}", info.id, info.role.name()));
    let location = ("location", format!("/api/v1/tokens/{}", info.id));
    let headers = [location, ("cache-control", "no-store".into())];
    Ok((StatusCode::CREATED, headers, Json(CreatedToken { token, info })))
}

/// Revoke a token
///
/// At once; work that it started goes on.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "access",
    security(("token" = ["admin"])),
    params(("token" = String, Path, description = "Its id or name", example = "ci")),
    responses((status = 200, description = "It was revoked", body = TokenInfo)))]
async fn revoke_token(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<TokenInfo>, Problem> {
    let which = params.text("token").to_owned();
    if which.is_empty() {
        return Err(Problem::new(Kind::MalformedRequest, "").caused_by("token", "is empty"));
    }
    Ok(Json(blocking(move || site.ledger()?.tokens.revoke(&which)).await?))
}

/// List the audit log
///
/// The newest record first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "access", security(("token" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of records", body = Page<AuditRecord>)))]
async fn list_audit(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    Ok(Json(blocking(move || site.ledger()?.audit.list(&query)).await?))
}
