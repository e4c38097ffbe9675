//! What machines say that cannot say it as clients, and what people see of it.

use crate::extract::{Query, parse_json, want_media_type, whole_body};
use crate::fleet::fallback::{Stage, Word};
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::point::want_private;
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use compliance::message::ClientId;
use dp::identity::OverTls;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest body, in bytes.
const MAX_BODY: u64 = 8 << 10;
/// The longest name, code and text, in bytes; what is longer is cut.
const MAX: [usize; 3] = [255, 64, 500];

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(tell)).routes(routes!(list_fallback))
}

/// What a machine could not do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "id": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "stage": "join", "code": "forbidden",
    "text": "the join token is unknown, revoked or expired", "at": "2026-11-28T12:00:00Z"
}))]
pub struct FallbackWordView {
    /// The id that it chose for itself, a UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it could not do: `join`, `policy`, `scan` or `report`.
    #[schema(value_type = String)]
    pub stage: Stage,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub text: String,
    /// When, by its clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// What a machine said that could not say it as a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0199f0c2-a7b1-7e0d-8455-a7b1e0d30199", "name": "pc-17", "stage": "join", "code": "forbidden",
    "text": "the join token is unknown, revoked or expired", "at": "2026-11-28T12:00:00Z",
    "received": "2026-11-28T12:00:01Z", "from": "192.0.2.17", "known": false
}))]
pub struct FallbackView {
    /// The id that it says to have. Nothing proves it.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it could not do: `join`, `policy`, `scan` or `report`.
    #[schema(value_type = String)]
    pub stage: Stage,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub text: String,
    /// When, by its clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub received: Timestamp,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether the site has a client of that id.
    pub known: bool,
}

/// Say why a machine cannot join or report
///
/// For those who have no certificate, or whose connection as a client fails. Only over HTTPS, or from the same
/// machine; at most 8 KiB. The last word of each id is kept until the client of that id is heard.
#[utoipa::path(post, path = "/api/v1/client/fallback", tag = "client", security(()),
    operation_id = "tell_fallback", request_body = FallbackWordView,
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 204, description = "It is kept"),
        (status = 403, description = "The connection is not private", body = Problem),
        (status = 413, description = "It is too large", body = Problem)))]
async fn tell(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    tls: Option<Extension<OverTls>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let from = want_private(peer, tls)?;
    want_media_type(request.headers(), &["application/json"])?;
    let told: FallbackWordView = parse_json(&whole_body(request.into_body(), MAX_BODY).await?)?;
    let id: ClientId = told.id.parse().map_err(|_| Problem::field("id", "must be a UUID"))?;
    let [name, code, text] = [told.name, told.code, told.text];
    let cut = |text: String, most: usize| {
        text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned()
    };
    let word = Word {
        id,
        name: cut(name, MAX[0]),
        stage: told.stage,
        code: cut(code, MAX[1]),
        text: cut(text, MAX[2]),
        at: told.at,
        received: Timestamp::now(),
        from,
    };
    blocking(move || Ok(site.fleet()?.fallback.tell(&word)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List what machines said that could not say it as clients
///
/// The last word of each, the newest first.
#[utoipa::path(get, path = "/api/v1/client-fallback", tag = "fleet",
    operation_id = "list_fallback", security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of them", body = Page<FallbackView>)))]
async fn list_fallback(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<FallbackView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("client-fallback")?);
    let parse = |text: &str| {
        let (at, id) = text.split_once(' ')?;
        Some((at.parse().ok()?, id.parse().ok()?))
    };
    let not_ours = || Problem::new(Kind::MalformedRequest, "the cursor is not one of this list");
    let after = after.map(|text| parse(&text).ok_or_else(not_ours)).transpose()?;
    let page = blocking(move || {
        let fleet = site.fleet()?;
        let words = fleet.fallback.list(after, limit + 1)?;
        let shown = words.into_iter().map(|word| FallbackView {
            known: fleet.states.find(word.id).is_some(),
            id: word.id.to_string(),
            name: word.name,
            stage: word.stage,
            code: word.code,
            text: word.text,
            at: word.at,
            received: word.received,
            from: word.from.map(|from| from.to_string()),
        });
        let cursor = |it: &FallbackView| format!("{} {}", it.received, it.id);
        Ok(Page::of("client-fallback", shown.collect(), limit, cursor))
    });
    Ok(Json(page.await?))
}
