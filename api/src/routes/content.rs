//! Contents by digest: show, read, verify, upload, and who holds them.

use crate::auth::Identity;
use crate::extract::{Params, Query};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, start};
use crate::site::{Content, Site, blocking};
use crate::{streams, uploaded};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use contentlib::{AddOptions, Aliases, CopyError, Digest, Name, Progress};
use packager::ManifestLinks;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::Relaxed;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(upload_content))
        .routes(routes!(show_content))
        .routes(routes!(get_content))
        .routes(routes!(explain_content))
        .routes(routes!(verify_content))
}

/// The digest that a path names by any of its names.
pub fn resolve(content: &Content, name: &Name) -> Result<Digest, Problem> {
    content.library.resolve(name)?.ok_or_else(|| Problem::not_found("content", name))
}

/// What is known of a content without reading it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "size": 1048576, "chunks": 9, "suspect": false
}))]
pub struct ContentView {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many chunks it is cut into.
    pub chunks: u64,
    /// Whether part of it is damaged or lost here; then it is not served until it is repaired.
    pub suspect: bool,
}

/// Show what is known of a content
#[utoipa::path(get, path = "/api/v1/content/{digest}", tag = "content",
    security(("token" = ["reader"])),
    params(("digest" = String, Path, description = "`blake3:…`, or an alias `sha256:…` or `sha1:…`",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses(
        (status = 200, description = "The content", body = ContentView),
        (status = 410, description = "It was revoked", body = Problem),
    ))]
async fn show_content(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ContentView>, Problem> {
    let name: Name = params.get("digest")?;
    let stat = blocking(move || {
        let content = site.content()?;
        Ok(content.library.stat(resolve(&content, &name)?)?)
    });
    let stat = stat.await?;
    Ok(Json(ContentView {
        digest: stat.digest,
        size: stat.size,
        chunks: stat.n_chunks,
        suspect: stat.suspect,
    }))
}

/// Give a content's bytes
///
/// Over the network this is a redirect to the content plane, which needs no token and answers
/// ranges and conditions.
#[utoipa::path(get, path = "/api/v1/content/{digest}/bytes", tag = "content",
    security(("token" = ["reader"])),
    params(("digest" = String, Path, description = "`blake3:…`, or an alias `sha256:…` or `sha1:…`",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses(
        (status = 200, description = "The bytes, verified as they are read",
            content_type = "application/octet-stream", body = Vec<u8>, example = "…"),
        (status = 307, description = "Where the bytes are",
            headers(("Location" = String, description = "`/content/{digest}`"))),
        (status = 410, description = "It was revoked", body = Problem),
    ))]
async fn get_content(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    params: Params,
) -> Result<Response, Problem> {
    let name: Name = params.get("digest")?;
    let reader = blocking(move || {
        let content = site.content()?;
        Ok(content.library.open_content(resolve(&content, &name)?)?)
    });
    let reader = reader.await?;
    if !identity.is_local() {
        let location = format!("/content/{}", reader.digest());
        return Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response());
    }
    let size = reader.size();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::ETAG, format!("\"{}\"", reader.digest())),
    ];
    Ok((headers, streams::content_body(reader, 0..size)).into_response())
}

/// Who holds a content, and how it is kept.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "held": true, "state": "live",
    "holders": [{"name": "version/docs/0000000002", "label": "readme.txt"}], "chunk_of": []
}))]
pub struct WhyView {
    /// What was asked for.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Whether it is held at all.
    pub held: bool,
    /// The state of its copy: `live`, `condemned` or `suspect`.
    pub state: String,
    /// What refers to it.
    pub holders: Vec<HolderView>,
    /// Contents that it is a chunk of, if it is one.
    #[schema(value_type = Vec<String>)]
    pub chunk_of: Vec<Digest>,
}

/// Something that refers to a content.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "version/docs/0000000002", "label": "readme.txt"}))]
pub struct HolderView {
    /// The reference.
    pub name: String,
    /// Where the reference names it, such as a path.
    pub label: String,
}

/// Say who holds a content
#[utoipa::path(get, path = "/api/v1/content/{digest}/why", tag = "content",
    security(("token" = ["reader"])),
    params(("digest" = String, Path, description = "The digest of a content or chunk",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses((status = 200, description = "Its holders", body = WhyView)))]
async fn explain_content(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<WhyView>, Problem> {
    let name: Name = params.get("digest")?;
    let why = blocking(move || {
        let content = site.content()?;
        Ok(content.library.why(resolve(&content, &name)?, &ManifestLinks)?)
    });
    let why = why.await?;
    let holders = why.holders.into_iter();
    Ok(Json(WhyView {
        digest: why.digest,
        held: why.held,
        state: why.state.into(),
        holders: holders.map(|h| HolderView { name: h.name, label: h.label }).collect(),
        chunk_of: why.chunk_of,
    }))
}

/// Verify a content
///
/// A job that reads every byte from the disk and compares it with its digest. What is found
/// damaged is marked, and not served until it is repaired.
#[utoipa::path(post, path = "/api/v1/content/{digest}/verify", tag = "content",
    security(("token" = ["operator"])),
    params(("digest" = String, Path, description = "`blake3:…`, or an alias `sha256:…` or `sha1:…`",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses((status = 202, description = "The job; its result is the content", body = Job)))]
async fn verify_content(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Accepted, Problem> {
    let name: Name = params.get("digest")?;
    let (content, digest) = {
        let site = site.clone();
        blocking(move || {
            let content = site.content()?;
            let digest = resolve(&content, &name)?;
            content.library.stat(digest)?;
            Ok((content, digest))
        })
        .await?
    };
    let work = move |progress: &Progress| verify(&content, digest, progress);
    let subject = format!("content/{digest}");
    start(site, identity, &note, "verify_content", subject, Box::new(work)).await
}

/// Bytes between two looks at whether the job was cancelled; many chunks, of which the one at the end
/// is read twice.
const VERIFY_STEP: u64 = 16 << 20;

fn verify(
    content: &Content,
    digest: Digest,
    progress: &Progress,
) -> Result<serde_json::Value, Problem> {
    let reader = content.library.open_content(digest)?;
    progress.total_bytes.store(reader.size(), Relaxed);
    let mut hash = blake3::Hasher::new();
    let mut at = 0;
    while at < reader.size() {
        progress.check().map_err(|_| crate::translate::cancelled())?;
        // Read, not mapped: what is mapped counts as this process's memory until the pack is closed.
        at += match reader.copy_to(at..at + VERIFY_STEP, &mut hash) {
            Ok(n) => n,
            Err(CopyError::Read(error)) => return Err(error.into()),
            Err(other) => return Err(Problem::internal(&other)),
        };
        progress.bytes.store(at, Relaxed);
    }
    if hash.finalize().as_bytes() != digest.as_bytes() {
        let detail = format!("the bytes of {digest} are not what its name says: repair it");
        return Err(Problem::new(Kind::Damaged, detail));
    }
    Ok(serde_json::json!({"digest": digest, "size": reader.size(), "ok": true}))
}

/// What is said about an uploaded content.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// What the bytes are: `blake3:…`, `sha256:…` or `sha1:…`. If they are not, nothing is kept.
    #[param(example = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    digest: Option<String>,
    /// Other names to compute and remember, with commas between: `sha256`, `sha1`.
    #[param(example = "sha256,sha1")]
    alias: Option<String>,
}

/// A content that was uploaded.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "size": 1048576, "chunks": 9, "new_bytes": 0,
    "sha256": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "expires": "2026-11-23T12:00:00Z"
}))]
pub struct UploadedContent {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How many chunks it is cut into.
    pub chunks: u64,
    /// How many of its bytes were not held before.
    pub new_bytes: u64,
    /// Its SHA-256, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its SHA-1, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// Until when it is kept if no package comes to name it.
    #[schema(value_type = String, format = DateTime)]
    pub expires: jiff::Timestamp,
}

/// Upload one content
///
/// The body is the bytes. They are kept for a day (`upload.expire`); by then a package should name
/// them. Sending the same bytes again starts the day anew.
#[utoipa::path(put, path = "/api/v1/content", tag = "content", security(("token" = ["operator"])),
    params(UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", example = "…"),
    responses(
        (status = 201, description = "It is kept", body = UploadedContent,
            headers(("Location" = String, description = "Its address"))),
        (status = 410, description = "It was revoked, and is not taken in again", body = Problem),
    ))]
async fn upload_content(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> Result<(StatusCode, [(&'static str, String); 1], Json<UploadedContent>), Problem> {
    let expect: Option<Name> = query
        .digest
        .as_deref()
        .map(|text| crate::extract::parse_field("digest", text))
        .transpose()?;
    let options = AddOptions { aliases: aliases(query.alias.as_deref(), expect)?, expect };
    if let Some(name) = expect {
        note.target(name.to_string());
    }
    let keep = site.config().upload.expire;
    let stored = streams::take_in(site, body, move |content, reader| {
        uploaded::keep(&content.library, reader, &options, keep)
    });
    let (added, expires) = stored.await?;
    note.target(added.digest.to_string());
    let location = format!("/api/v1/content/{}", added.digest);
    let view = UploadedContent {
        digest: added.digest,
        size: added.size,
        chunks: added.n_chunks,
        new_bytes: added.new_bytes,
        sha256: added.sha256.map(|hash| Name::Sha256(hash).to_string()),
        sha1: added.sha1.map(|hash| Name::Sha1(hash).to_string()),
        expires,
    };
    Ok((StatusCode::CREATED, [("location", location)], Json(view)))
}

/// The aliases to compute: those asked for, and the one that the bytes are stated to have.
fn aliases(asked: Option<&str>, expect: Option<Name>) -> Result<Aliases, Problem> {
    let mut aliases = Aliases {
        sha256: matches!(expect, Some(Name::Sha256(_))),
        sha1: matches!(expect, Some(Name::Sha1(_))),
    };
    for name in asked.into_iter().flat_map(|list| list.split(',')) {
        match name {
            "sha256" => aliases.sha256 = true,
            "sha1" => aliases.sha1 = true,
            other => {
                let detail = format!("must be sha256, sha1 or both with a comma, not {other:?}");
                return Err(Problem::malformed("alias", detail));
            }
        }
    }
    Ok(aliases)
}
