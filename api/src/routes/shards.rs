//! The catalogue as clients read it: a signed manifest, and the pages and shards that it lists.
//!
//! `sync/SHARDS.md` has their bytes. They are open to all, as content is: what of them is the site's shows its
//! signature, and nothing in them is secret. So any update point can hand them out, and any cache between.

use crate::extract::{Params, Query};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sync::shard::blob::Name;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(get_catalogue)).routes(routes!(get_shard))
}

/// How many seconds after it was asked in vain the manifest may be there.
const ASK_AGAIN: u64 = 10;

/// Which manifest somebody has.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CatalogueQuery {
    /// The ETag of the one that it has, without its quotes.
    after: Option<String>,
}

/// A manifest, signed.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "catalogue": "{\"format\":1,\"catalogue\":\"0f3c2a7b1e0d4455a7b1e0d30199f0c2\",\"seq\":6120,\
        \"updates\":6120,\"pages\":[{\"platform\":\"dpkg\",\"product\":\"debian-12\",\
        \"blob\":\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\",\
        \"bytes\":9731,\"updates\":6120}]}",
    "signature": "b9c658e488c4b870…"
}))]
pub struct SignedManifestView {
    /// The manifest, as JSON text.
    pub catalogue: String,
    /// The site's Ed25519 signature of `depot client catalogue v1`, a zero byte and the BLAKE3 of that text, in
    /// hex.
    pub signature: String,
}

/// Get what clients scan by
///
/// The manifest of the catalogue's shards. Takes no token.
#[utoipa::path(get, path = "/api/v1/catalogue", tag = "client", security(()),
    operation_id = "get_catalogue", params(CatalogueQuery),
    responses((status = 200, description = "The manifest", body = SignedManifestView,
            headers(("ETag" = String, description = "Stands for it"))),
        (status = 204, description = "It is the one named by `after`"),
        (status = 304, description = "It is the one named by If-None-Match"),
        (status = 503, description = "There is none yet; see Retry-After", body = Problem)))]
async fn get_catalogue(
    State(site): State<Site>,
    Query(query): Query<CatalogueQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let current = blocking(move || Ok(site.shards()?.current())).await?;
    let current = current.ok_or_else(|| {
        let detail =
            "no catalogue for clients was made yet: it is made after the first sync of updates";
        Problem::new(Kind::Unavailable, detail).retry_after(ASK_AGAIN)
    })?;
    let tag = format!("\"{}\"", current.tag);
    let asked = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let mut asked = asked.flat_map(|list| list.split(',')).map(str::trim);
    // RFC 9110, section 13.1.2: compared weakly.
    let is_held = asked.any(|it| it == "*" || it.trim_start_matches("W/") == tag);
    let about = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if is_held {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    if query.after.as_ref() == Some(&current.tag) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((about, kind, current.body.clone()).into_response())
}

/// Get a page or a shard
///
/// By its name, as the manifest or a page lists it: JSON, compressed by zstd. Takes no token.
#[utoipa::path(get, path = "/api/v1/catalogue/shards/{blake3}", tag = "client", security(()),
    operation_id = "get_shard",
    params(("blake3" = String, Path, description = "The BLAKE3 of what it says, in hex",
        example = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses((status = 200, description = "It", content_type = "application/zstd", body = Vec<u8>,
            example = json!("(compressed)")),
        (status = 404, description = "It is of no catalogue of the last hour", body = Problem)))]
async fn get_shard(State(site): State<Site>, params: Params) -> Result<Response, Problem> {
    let name: Name = params.get("blake3")?;
    let packed = blocking(move || site.shards()?.packed(name)).await?;
    let packed = packed.ok_or_else(|| Problem::not_found("part of the catalogue", name))?;
    let about = [
        (header::CONTENT_TYPE, "application/zstd".to_owned()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
        (header::ETAG, format!("\"{name}\"")),
    ];
    Ok((about, packed).into_response())
}
