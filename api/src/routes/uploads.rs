//! Push sessions: a client sends a tree, and of its bytes only those that are not held here.
//!
//! Begin an upload; offer the chunks and contents of the tree; send the missing chunks as frames and
//! the recipes of missing contents of more than one chunk; commit the manifest. Each step may be
//! repeated. An upload outlives this process and goes when it is not used for `upload.expire`.

use crate::extract::{Input, Params, Query, want_media_type, whole_body};
use crate::guard::AuditNote;
use crate::page::{Page, PageQuery};
use crate::problem::{Problem, with_causes};
use crate::routes::transfer::{Published, published};
use crate::site::{Site, blocking};
use crate::streams;
use crate::views::{UnreadableUploadView, UploadView, UploadsView};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use contentlib::{ChunkId, Digest, Recipe};
use packager::manifest::Manifest;
use packager::name::PackageName;
use packager::upload::{PutRecipe, UploadId, UploadInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The media type of a stream of frames (`contentlib/FORMAT.md`, "Frames").
pub const FRAMES_TYPE: &str = contentlib::frames::MEDIA_TYPE;
pub use dp::recipes::MEDIA_TYPE as RECIPES_TYPE;
/// The media type of a manifest (`packager/FORMAT.md`).
pub const MANIFEST_TYPE: &str = "application/vnd.depot.manifest";

/// Chunks, and contents, that may be offered at once.
pub const MAX_OFFERED: usize = 4096;
/// The largest body of recipes.
pub const MAX_RECIPES: u64 = 64 << 20;
/// The largest manifest.
pub const MAX_MANIFEST: u64 = 512 << 20;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(begin_upload))
        .routes(routes!(list_uploads))
        .routes(routes!(show_upload, abort_upload))
        .routes(routes!(offer_ids))
        .routes(routes!(put_frames))
        .routes(routes!(put_recipes))
        .routes(routes!(commit_upload))
}

/// Begin an upload
///
/// Of the next version of a package that takes uploads. It goes when it is not used for a day
/// (`upload.expire`); after that its address answers 404, and another upload is to be begun.
#[utoipa::path(post, path = "/api/v1/packages/{package}/uploads", tag = "uploads",
    security(("token" = ["operator"])),
    params(("package" = String, Path, description = "The package", example = "tools")),
    responses((status = 201, description = "The upload", body = UploadView,
        headers(("Location" = String, description = "Its address")))))]
async fn begin_upload(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<UploadInfo>), Problem> {
    let name: PackageName = params.get("package")?;
    let info = blocking(move || Ok(site.content()?.packages.begin_upload(&name)?)).await?;
    note.detail(format!("upload {}", info.id));
    let location = format!("/api/v1/uploads/{}", info.id);
    Ok((StatusCode::CREATED, [("location", location)], Json(info)))
}

/// List the uploads under way
///
/// By id. One that cannot be read is named apart, with the reason: give it up.
#[utoipa::path(get, path = "/api/v1/uploads", tag = "uploads",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of uploads", body = UploadsView)))]
async fn list_uploads(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<UploadsView<UploadInfo>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("uploads")?);
    let all = blocking(move || Ok(site.content()?.packages.uploads()?)).await?;
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for (id, info) in all {
        match info {
            Ok(info) => readable.push(info),
            Err(error) => unreadable
                .push(UnreadableUploadView { id: id.to_string(), detail: with_causes(&error) }),
        }
    }
    let key = |info: &UploadInfo| info.id.to_string();
    let Page { items, next } = Page::cut("uploads", readable, after.as_deref(), limit, key);
    Ok(Json(UploadsView { items, next, unreadable }))
}

/// Show an upload
#[utoipa::path(get, path = "/api/v1/uploads/{upload}", tag = "uploads",
    security(("token" = ["reader"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    responses(
        (status = 200, description = "The upload", body = UploadView),
        (status = 409, description = "It cannot be read: give it up", body = Problem),
    ))]
async fn show_upload(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<UploadInfo>, Problem> {
    let id: UploadId = params.get("upload")?;
    Ok(Json(blocking(move || Ok(site.content()?.packages.show_upload(&id)?)).await?))
}

/// Give an upload up
///
/// Also one that cannot be read. What only it held is collected as garbage.
#[utoipa::path(delete, path = "/api/v1/uploads/{upload}", tag = "uploads",
    security(("token" = ["operator"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    responses((status = 204, description = "It is gone")))]
async fn abort_upload(State(site): State<Site>, params: Params) -> Result<StatusCode, Problem> {
    let id: UploadId = params.get("upload")?;
    blocking(move || Ok(site.content()?.packages.abort_upload(&id)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Chunks and contents: those offered, or those missing.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({
    "chunks": ["blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
    "contents": []
}))]
pub struct Ids {
    /// Chunks, by digest. Of a content of one chunk that is the content's digest.
    #[schema(value_type = Vec<String>, max_items = 4096)]
    pub chunks: Vec<Digest>,
    /// Whole contents, by digest.
    #[schema(value_type = Vec<String>, max_items = 4096)]
    pub contents: Vec<Digest>,
}

/// Offer chunks and contents
///
/// The answer names those that are missing here: send the chunks as frames, then the recipes of the
/// contents. What is held stays while the upload does.
#[utoipa::path(post, path = "/api/v1/uploads/{upload}/missing", tag = "uploads",
    security(("token" = ["operator"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    request_body = Ids,
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 200, description = "Those that are missing, in the order offered", body = Ids)))]
async fn offer_ids(
    State(site): State<Site>,
    params: Params,
    Input(offered): Input<Ids>,
) -> Result<Json<Ids>, Problem> {
    let id: UploadId = params.get("upload")?;
    for (field, ids) in [("chunks", &offered.chunks), ("contents", &offered.contents)] {
        if ids.len() > MAX_OFFERED {
            let detail = format!("must have at most {MAX_OFFERED} entries, not {}", ids.len());
            return Err(Problem::field(field, detail));
        }
    }
    let missing = blocking(move || {
        let upload = site.content()?.packages.upload(&id)?;
        let chunks: Vec<ChunkId> = offered.chunks.iter().copied().map(ChunkId).collect();
        let (chunks, contents) =
            (upload.missing_chunks(&chunks)?, upload.missing_contents(&offered.contents)?);
        Ok(Ids {
            chunks: only(offered.chunks, &chunks),
            contents: only(offered.contents, &contents),
        })
    });
    Ok(Json(missing.await?))
}

fn only(ids: Vec<Digest>, wanted: &[bool]) -> Vec<Digest> {
    ids.into_iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(id, _)| id).collect()
}

/// What arrived.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"received_bytes": 8388608}))]
pub struct Received {
    /// Plain bytes of the chunks in this request.
    pub received_bytes: u64,
}

/// Send chunks
///
/// As frames. Every chunk is hashed before it counts. If the stream breaks off, what arrived whole
/// is kept: offer again and send the rest. Several requests may run at once.
#[utoipa::path(put, path = "/api/v1/uploads/{upload}/frames", tag = "uploads",
    security(("token" = ["operator"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    request_body(content = Vec<u8>, content_type = "application/vnd.depot.frames", example = "…"),
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses(
        (status = 200, description = "What arrived", body = Received),
        (status = 410, description = "A chunk is a content that was revoked", body = Problem),
    ))]
async fn put_frames(
    State(site): State<Site>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Received>, Problem> {
    let id: UploadId = params.get("upload")?;
    want_media_type(&headers, &[FRAMES_TYPE])?;
    let received = streams::take_in(site, body, move |content, stream| {
        Ok(content.packages.upload(&id)?.put_frames(stream)?)
    });
    Ok(Json(Received { received_bytes: received.await? }))
}

/// What became of recipes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"recipes": [
    {"digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
     "missing_chunks": []}
]}))]
pub struct RecipesTaken {
    /// One for each recipe, in the order sent.
    pub recipes: Vec<RecipeTaken>,
}

/// What became of a recipe.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "missing_chunks": []
}))]
pub struct RecipeTaken {
    /// The content.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its chunks that are missing still: send them, then the recipe again. Empty if the content
    /// is whole now.
    #[schema(value_type = Vec<String>)]
    pub missing_chunks: Vec<Digest>,
}

/// Send recipes
///
/// Of contents of more than one chunk. Each content is read and hashed whole before it counts, so
/// the recipe of a large one takes its time: send it by itself.
///
/// The body has for each recipe the content's digest (32 bytes), the recipe's length (u32,
/// little-endian) and the recipe as `GET /recipes/{digest}` gives it.
#[utoipa::path(put, path = "/api/v1/uploads/{upload}/recipes", tag = "uploads",
    security(("token" = ["operator"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    request_body(content = Vec<u8>, content_type = "application/vnd.depot.recipes", example = "…"),
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses(
        (status = 200, description = "What became of each", body = RecipesTaken),
        (status = 410, description = "A content was revoked", body = Problem),
    ))]
async fn put_recipes(
    State(site): State<Site>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RecipesTaken>, Problem> {
    let id: UploadId = params.get("upload")?;
    want_media_type(&headers, &[RECIPES_TYPE])?;
    let bytes = whole_body(body, MAX_RECIPES).await?;
    let taken = blocking(move || {
        let recipes = parse_recipes(&bytes)?;
        // The recipes hold all that is needed of it.
        drop(bytes);
        let results = site.content()?.packages.upload(&id)?.put_recipes(&recipes)?;
        let taken = recipes.iter().zip(results).map(|((digest, _), result)| RecipeTaken {
            digest: *digest,
            missing_chunks: match result {
                PutRecipe::Whole => Vec::new(),
                PutRecipe::MissingChunks(chunks) => chunks.iter().map(|chunk| chunk.0).collect(),
            },
        });
        Ok(RecipesTaken { recipes: taken.collect() })
    });
    Ok(Json(taken.await?))
}

/// The body that sends these recipes, for clients.
pub fn encode_recipes<'a>(recipes: impl IntoIterator<Item = (Digest, &'a Recipe)>) -> Vec<u8> {
    let mut body = Vec::new();
    recipes.into_iter().for_each(|(digest, recipe)| dp::recipes::encode(digest, recipe, &mut body));
    body
}

/// The recipes that a body of [`encode_recipes`] brings.
pub fn parse_recipes(mut body: &[u8]) -> Result<Vec<(Digest, Recipe)>, Problem> {
    let mut recipes = Vec::new();
    while !body.is_empty() {
        let at = format!("recipes[{}]", recipes.len());
        let first = dp::recipes::decode_first(body)
            .map_err(|error| Problem::malformed(at.clone(), format!("is no recipe: {error}")))?;
        let (digest, recipe, length) = first.ok_or_else(|| Problem::malformed(at, "is cut off"))?;
        recipes.push((digest, recipe));
        body = &body[length..];
    }
    Ok(recipes)
}

/// Commit an upload
///
/// The body is the manifest of the tree. Everything it names must be held by now; else the answer
/// is 409 and names what is missing, and nothing is lost. Its tree becomes the package's next
/// version, unless it is that of the newest version already, and the upload ends.
#[utoipa::path(post, path = "/api/v1/uploads/{upload}/commit", tag = "uploads",
    security(("token" = ["operator"])),
    params(("upload" = String, Path, description = "Its id",
        example = "0f3c2a7b1e0d4455a7b1e0d30199f0c2")),
    request_body(content = Vec<u8>, content_type = "application/vnd.depot.manifest", example = "…"),
    responses(Published))]
async fn commit_upload(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id: UploadId = params.get("upload")?;
    want_media_type(&headers, &[MANIFEST_TYPE])?;
    let bytes: Bytes = whole_body(body, MAX_MANIFEST).await?;
    let report = blocking(move || {
        let upload = site.content()?.packages.upload(&id)?;
        let manifest = Manifest::decode(&bytes)
            .map_err(|error| Problem::malformed("body", format!("is no manifest: {error}")))?;
        Ok(upload.commit(&manifest)?)
    });
    Ok(published(report.await?, &note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recipes_are_parsed_as_they_are_written() {
        let recipe = Recipe::new([(ChunkId(Digest::of(b"a")), 5), (ChunkId(Digest::of(b"b")), 7)]);
        let recipe = recipe.unwrap();
        let digest = Digest::of(b"whole");
        let body = encode_recipes([(digest, &recipe), (digest, &recipe)]);
        let parsed = parse_recipes(&body).unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!((parsed[1].0, parsed[1].1.encode()), (digest, recipe.encode()));
        for len in 1..body.len() {
            if len != body.len() / 2 {
                assert_eq!(parse_recipes(&body[..len]).unwrap_err().status, 400);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_recipes(&bytes);
        }
    }
}
