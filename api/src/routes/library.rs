//! The content library: statistics, damage, maintenance, revocations.

use crate::auth::Identity;
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::content::resolve;
use crate::routes::jobs::{Accepted, result_of, start};
use crate::routes::volumes::VolumeView;
use crate::site::{Site, blocking};
use crate::views::RevocationView;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use contentlib::{Digest, GcOptions, Library, Name, Progress, VerifyOptions};
use packager::ManifestLinks;
use packager::packages::Revocation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest reason of a revocation, in characters.
const MAX_REASON: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(show_library))
        .routes(routes!(list_suspects))
        .routes(routes!(verify_library))
        .routes(routes!(collect_garbage))
        .routes(routes!(repair_library))
        .routes(routes!(rebuild_index))
        .routes(routes!(list_revocations))
        .routes(routes!(revoke_content, unrevoke_content))
}

/// Numbers about the content library.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "chunks": 4100, "recipes": 120, "plain_bytes": 500000000, "stored_bytes": 210000000,
    "ratio": 2.38, "packs": 2, "condemned": 0, "kept": 0, "suspects": 0, "free_bytes": 80000000000_u64,
    "volumes": [{
        "name": "home", "id": "00000000000000000000000000000000",
        "path": "/var/lib/depot/library/packs", "state": "active", "packs": 2,
        "stored_bytes": 210000000, "free_bytes": 80000000000_u64, "reserve_bytes": 67108864
    }]
}))]
pub struct LibraryView {
    /// Chunks.
    pub chunks: u64,
    /// Contents of more than one chunk.
    pub recipes: u64,
    /// Plain bytes of all chunks.
    pub plain_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Plain bytes to one stored byte; null while nothing is stored.
    pub ratio: Option<f64>,
    /// Packs.
    pub packs: u64,
    /// Entries that nothing refers to any more and that are not yet gone.
    pub condemned: u64,
    /// Of those, the ones that are kept all the same: for work that is under way, or since they were
    /// imported and may be wished yet.
    #[serde(default)]
    pub kept: u64,
    /// Chunks and recipes known to be damaged.
    pub suspects: u64,
    /// Free bytes of all volumes that take new content, if known; those of a file system count
    /// once.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// The volumes, the home first.
    #[serde(default)]
    pub volumes: Vec<VolumeView>,
}

/// Show numbers about the content library
#[utoipa::path(get, path = "/api/v1/library", tag = "library", security(("token" = ["reader"])),
    responses((status = 200, description = "The numbers", body = LibraryView)))]
async fn show_library(State(site): State<Site>) -> Result<Json<LibraryView>, Problem> {
    let stats = blocking(move || Ok(site.content()?.library.stats()?)).await?;
    let ratio = stats.plain_bytes as f64 / stats.stored_bytes.max(1) as f64;
    Ok(Json(LibraryView {
        chunks: stats.chunks,
        recipes: stats.recipes,
        plain_bytes: stats.plain_bytes,
        stored_bytes: stats.stored_bytes,
        ratio: (stats.stored_bytes > 0).then_some(ratio),
        packs: stats.packs,
        condemned: stats.condemned,
        kept: stats.kept,
        suspects: stats.suspects,
        free_bytes: stats.free_bytes,
        volumes: stats.volumes.into_iter().map(VolumeView::from).collect(),
    }))
}

/// List what is known to be damaged
///
/// Digests of chunks and contents that `verify`, the scrub or a reader found damaged, and that
/// nothing healed yet.
#[utoipa::path(get, path = "/api/v1/library/suspects", tag = "library",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of digests", body = Page<String>,
        example = json!({"items": []}))))]
async fn list_suspects(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<String>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("suspects")?);
    let all = blocking(move || Ok(site.content()?.library.suspects()?)).await?;
    let mut all: Vec<String> = all.into_iter().map(|digest| digest.to_string()).collect();
    all.sort();
    Ok(Json(Page::cut("suspects", all, after.as_deref(), limit, String::clone)))
}

/// How much to verify.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"read_percent": 100}))]
pub struct VerifyLibrary {
    /// The part of all stored bytes that is read and compared, in percent. What indexes and packs
    /// say of each other is checked in any case.
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub read_percent: u8,
}

impl Default for VerifyLibrary {
    fn default() -> Self {
        Self { read_percent: 100 }
    }
}

/// Verify the content library
///
/// A job. Its result counts what was read and names the packs, chunks and contents that are
/// damaged, with who holds them.
#[utoipa::path(post, path = "/api/v1/library/verify", tag = "library",
    security(("token" = ["operator"])), request_body = VerifyLibrary,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn verify_library(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<VerifyLibrary>,
) -> Result<Accepted, Problem> {
    if input.read_percent > 100 {
        let detail = format!("must be from 0 to 100, not {}", input.read_percent);
        return Err(Problem::field("read_percent", detail));
    }
    let content = content_of(&site).await?;
    let work = move |progress: &Progress| {
        let options =
            VerifyOptions { read_percent: input.read_percent, ..VerifyOptions::default() };
        result_of(&content.verify(&options, &ManifestLinks, progress)?)
    };
    start(site, identity, &note, "verify_library", "library/verify".into(), Box::new(work)).await
}

/// How to collect garbage.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"dry_run": true}))]
pub struct CollectGarbage {
    /// Only tell what a run would do.
    pub dry_run: bool,
}

/// Collect garbage
///
/// A job. What nothing refers to is condemned; what was condemned longer ago than the grace is
/// deleted. Its result tells how much, and when the rest may go.
#[utoipa::path(post, path = "/api/v1/library/gc", tag = "library",
    security(("token" = ["admin"])), request_body = CollectGarbage,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn collect_garbage(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<CollectGarbage>,
) -> Result<Accepted, Problem> {
    let content = content_of(&site).await?;
    let work = move |progress: &Progress| {
        let options = GcOptions { dry_run: input.dry_run };
        result_of(&content.gc(&options, &ManifestLinks, progress)?)
    };
    start(site, identity, &note, "collect_garbage", "library/gc".into(), Box::new(work)).await
}

/// Where to get good bytes from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "http://depot2.example:8520"}))]
pub struct RepairLibrary {
    /// Another depot server that holds the same content.
    pub from: String,
}

/// Repair damaged content
///
/// A job. All that is known to be damaged or missing is fetched from another server, and compared
/// with its digest before it counts. Its result counts what was healed and names what was not.
#[utoipa::path(post, path = "/api/v1/library/repair", tag = "library",
    security(("token" = ["admin"])), request_body = RepairLibrary,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn repair_library(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<RepairLibrary>,
) -> Result<Accepted, Problem> {
    let address = input.from.trim_end_matches('/').to_owned();
    let uri: Option<axum::http::Uri> = address.parse().ok();
    let usable = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
    });
    if !usable {
        let detail = "must be the address of a depot server such as http://depot2.example:8520";
        return Err(Problem::field("from", detail));
    }
    note.target(&address);
    let library = content_of(&site).await?;
    let runtime = tokio::runtime::Handle::current();
    let work = move |progress: &Progress| {
        result_of(&crate::repair::repair(&library, &address, runtime, progress)?)
    };
    start(site, identity, &note, "repair_library", "library/repair".into(), Box::new(work)).await
}

/// Rebuild the index
///
/// A job. Reads the packs and makes the index anew. Only for a site that does not serve, by
/// `depot --data DIR library rebuild-index`: a serving one uses its index.
#[utoipa::path(post, path = "/api/v1/library/rebuild-index", tag = "library",
    security(("token" = ["admin"])),
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn rebuild_index(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
) -> Result<Accepted, Problem> {
    if !identity.is_local() {
        let detail = "a serving site uses its index: stop it, run \
            `depot --data DIR library rebuild-index` there, and start it again";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let work = {
        let site = site.clone();
        move |progress: &Progress| {
            site.close_content()?;
            let (folder, options) = (site.library_folder(), site.config().library_options());
            let report = Library::rebuild_index(&folder, options, progress)?;
            // Opened again here, so that a result means that it can be.
            site.content()?;
            result_of(&report)
        }
    };
    start(site, identity, &note, "rebuild_index", "library/rebuild-index".into(), Box::new(work))
        .await
}

async fn content_of(site: &Site) -> Result<Library, Problem> {
    let site = site.clone();
    blocking(move || Ok(site.content()?.library)).await
}

/// A content that is revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "reason": "CVE-2026-0001"
}))]
pub struct RevokedView {
    /// The content.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Why.
    pub reason: String,
}

/// List revoked contents
///
/// By digest.
#[utoipa::path(get, path = "/api/v1/revocations", tag = "content",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of revoked contents", body = Page<RevokedView>)))]
async fn list_revocations(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RevokedView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("revocations")?);
    let all = blocking(move || Ok(site.content()?.library.revocations())).await?;
    let all = all.into_iter().map(|(digest, reason)| RevokedView { digest, reason });
    let key = |revoked: &RevokedView| revoked.digest.to_string();
    Ok(Json(Page::cut("revocations", all, after.as_deref(), limit, key)))
}

/// Why a content is revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "CVE-2026-0001"}))]
pub struct RevokeContent {
    /// Why, for those who meet it: 1 to 1000 characters.
    pub reason: String,
}

/// Revoke a content
///
/// From now on it is neither served nor taken in again, whatever package has it. The answer says
/// where it was. A content that is not held may be revoked too, by its `blake3:` digest.
#[utoipa::path(put, path = "/api/v1/revocations/{digest}", tag = "content",
    security(("token" = ["admin"])),
    params(("digest" = String, Path, description = "`blake3:…`, or an alias of content that is held",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    request_body = RevokeContent,
    responses((status = 200, description = "It is revoked", body = RevocationView)))]
async fn revoke_content(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(input): Input<RevokeContent>,
) -> Result<Json<Revocation>, Problem> {
    let name: Name = params.get("digest")?;
    if !(1..=MAX_REASON).contains(&input.reason.trim().chars().count()) {
        let detail = format!("must have 1 to {MAX_REASON} characters");
        return Err(Problem::field("reason", detail));
    }
    note.detail(input.reason.clone());
    let revoked = blocking(move || {
        let content = site.content()?;
        Ok(content.packages.revoke(resolve(&content, &name)?, input.reason.trim())?)
    });
    Ok(Json(revoked.await?))
}

/// Take a revocation back
///
/// The content is served again where it is still held.
#[utoipa::path(delete, path = "/api/v1/revocations/{digest}", tag = "content",
    security(("token" = ["admin"])),
    params(("digest" = String, Path, description = "`blake3:…`, or an alias of content that is held",
        example = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")),
    responses((status = 204, description = "It is no longer revoked")))]
async fn unrevoke_content(State(site): State<Site>, params: Params) -> Result<StatusCode, Problem> {
    let name: Name = params.get("digest")?;
    let done = blocking(move || {
        let content = site.content()?;
        let digest = resolve(&content, &name)?;
        if !content.library.revocations().iter().any(|(revoked, _)| *revoked == digest) {
            return Err(Problem::not_found("revocation of", digest));
        }
        Ok(content.packages.unrevoke(digest)?)
    });
    done.await?;
    Ok(StatusCode::NO_CONTENT)
}
