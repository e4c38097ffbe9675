//! Join tokens: each lets one machine become a distribution point.

use crate::auth::Identity;
use crate::config::{SiteUrl, SiteUrls};
use crate::extract::{Input, Params, Query, parse_field};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use dp::field::FollowerKind;
use dp::registry::{NewToken, PointName, TokenInfo};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a token is good if its maker does not say.
const GOOD_FOR: SignedDuration = SignedDuration::from_hours(24);
/// The longest that a token may be good.
const MOST_DAYS: i64 = 366;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// A join token as it is listed. Its text is not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "3f9c2a7b1e0d", "name": "branch-7", "sites": ["https://site.example:8520"],
    "created": "2026-11-22T12:00:00Z", "created_by": "admin", "expires": "2026-11-23T12:00:00Z",
    "used_by": null
}))]
pub struct JoinTokenView {
    /// Names the token.
    pub id: String,
    /// What the machine is called that joins with it.
    pub name: String,
    /// What it becomes: `primary` or `secondary`, a child site; `update-point`; absent: a distribution point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
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
    /// The id of the machine that joined with it; absent while it can be used.
    #[serde(default)]
    pub used_by: Option<String>,
}

impl From<TokenInfo> for JoinTokenView {
    fn from(info: TokenInfo) -> Self {
        Self {
            id: info.id,
            name: info.name.to_string(),
            kind: info.kind.map(|kind| kind.to_string()),
            sites: info.sites,
            created: info.created,
            created_by: info.created_by,
            expires: info.expires,
            used_by: info.used_by.map(String::from).or(info.followed_by.map(|id| id.to_string())),
        }
    }
}

/// List the join tokens
///
/// Those that are good or were used, until they expire; by id. Secrets are not kept and so not
/// listed.
#[utoipa::path(get, path = "/api/v1/point-tokens", tag = "points",
    operation_id = "list_join_tokens", security(("token" = ["admin"])), params(PageQuery),
    responses((status = 200, description = "A page of tokens", body = Page<JoinTokenView>)))]
async fn list_tokens(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<JoinTokenView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("point-tokens")?);
    let ledger = blocking(move || site.ledger()).await?;
    let all = ledger.registry.tokens(Timestamp::now());
    let page = Page::cut("point-tokens", all, after.as_deref(), limit, |token| token.id.clone());
    Ok(Json(page.map(JoinTokenView::from)))
}

/// A join token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "branch-7", "sites": ["https://site.example:8520"]}))]
pub struct NewJoinToken {
    /// What the machine will be called: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or
    /// digit.
    pub name: String,
    /// What it becomes: `primary` or `secondary`, a child site of this one; `update-point`, another update
    /// point of this site. Without it, a distribution point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When it ends to be good: within a year. Without it, after a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Where the point will reach this site, the best first: `https://HOST:PORT`. Without any, those
    /// of the setting `site.url`, or else where the site listens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub sites: Vec<SiteUrl>,
}

/// A join token that was made.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "token": "depotjoin1…", "id": "3f9c2a7b1e0d", "name": "branch-7",
    "sites": ["https://site.example:8520"], "created": "2026-11-22T12:00:00Z",
    "created_by": "admin", "expires": "2026-11-23T12:00:00Z", "used_by": null
}))]
pub struct CreatedJoinToken {
    /// The token. It is shown this once.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub info: JoinTokenView,
}

/// Make a join token
///
/// For one machine, once. Its text is in this answer and nowhere else; for the same reason the
/// answer is not kept for an idempotency key. It tells the machine where the site is and how to
/// know it: whoever has it can join, so hand it on as you would a password.
#[utoipa::path(post, path = "/api/v1/point-tokens", tag = "points",
    operation_id = "create_join_token", security(("token" = ["admin"])),
    request_body = NewJoinToken, extensions(("x-unkept" = json!(true))),
    responses((status = 201, description = "It was made", body = CreatedJoinToken,
        headers(("Location" = String, description = "Its address")))))]
async fn create_token(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(new): Input<NewJoinToken>,
) -> Result<(StatusCode, [(&'static str, String); 2], Json<CreatedJoinToken>), Problem> {
    note.target(&new.name);
    let kind = new.kind.map(|kind| kind.parse::<FollowerKind>());
    let kind = kind.transpose().map_err(|error| Problem::field("kind", error.to_string()))?;
    let what = match kind {
        None => "distribution point",
        Some(FollowerKind::UpdatePoint) => "further update point",
        Some(_) => "child site",
    };
    let name: Result<PointName, dp::registry::BadName> = new.name.parse();
    let name = name.map_err(|error| Problem::field("name", error.of(what).to_string()))?;
    let now = Timestamp::now();
    let expires = end(new.expires, GOOD_FOR, now)?;
    let sites = addresses(&site, new.sites)?;
    let created = blocking(move || {
        if let Some(kind) = kind {
            crate::hierarchy::may_have(&site, kind)?;
        }
        let authority = site.authority()?.fingerprint();
        let new = NewToken { name, kind, expires, sites, by: identity.name };
        Ok(site.ledger()?.registry.create_token(new, authority, now)?)
    });
    let (info, token) = created.await?;
    note.detail(format!("id {}", info.id));
    let location = ("location", format!("/api/v1/point-tokens/{}", info.id));
    let headers = [location, ("cache-control", "no-store".into())];
    let made = CreatedJoinToken { token: token.to_string(), info: info.into() };
    Ok((StatusCode::CREATED, headers, Json(made)))
}

/// When a token ends that is asked to end then, or is good for `usual`.
pub(crate) fn end(
    asked: Option<Timestamp>,
    usual: SignedDuration,
    now: Timestamp,
) -> Result<Timestamp, Problem> {
    let end = asked.unwrap_or(now + usual);
    if end <= now || end > now + SignedDuration::from_hours(24 * MOST_DAYS) {
        return Err(Problem::field("expires", "must be in the future, and within a year"));
    }
    Ok(end)
}

/// Where a machine will reach the site: as asked for, as the settings say, or where it listens.
pub(crate) fn addresses(site: &Site, asked: Vec<SiteUrl>) -> Result<Vec<String>, Problem> {
    let too_many = || Problem::field("sites", format!("must be at most {}", SiteUrls::MOST));
    let asked = SiteUrls::new(asked).ok_or_else(too_many)?;
    let set = &site.config().site.url;
    let known = [&asked, set].into_iter().find(|urls| !urls.is_empty());
    if let Some(known) = known {
        return Ok(known.to_texts());
    }
    let address = site.address();
    if address.ip().is_unspecified() || address.port() == 0 {
        let detail = "the site listens on all addresses, so it cannot tell which one its points \
            reach: name it with --site-url https://HOST:PORT, or set site.url";
        return Err(Problem::new(Kind::InvalidValue, detail)
            .caused_by("sites", "must name at least one address"));
    }
    Ok(vec![format!("https://{address}")])
}

/// Revoke a join token
///
/// Nobody can join with it any more. A point that joined with it stays one.
#[utoipa::path(delete, path = "/api/v1/point-tokens/{token}", tag = "points",
    operation_id = "revoke_join_token", security(("token" = ["admin"])),
    params(("token" = String, Path, description = "Its id, or the name it is for",
        example = "branch-7")),
    responses((status = 200, description = "What it was", body = JoinTokenView)))]
async fn revoke_token(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<JoinTokenView>, Problem> {
    let which: String = parse_field("token", params.text("token"))?;
    let revoked = blocking(move || Ok(site.ledger()?.registry.revoke_token(&which)?)).await?;
    Ok(Json(revoked.into()))
}
