//! Whole trees in and out: upload of a tar, restore to a folder of this machine.

use crate::auth::Identity;
use crate::extract::{Input, Params};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::problem::Problem;
use crate::routes::jobs::{Accepted, only_local, result_of, start};
use crate::site::{Site, blocking};
use crate::streams;
use crate::views::UpdateView;
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use contentlib::Progress;
use packager::name::{PackageName, Selector};
use packager::refs::SourceFolder;
use packager::restore::Extra;
use packager::update::UpdateReport;
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(put_tar)).routes(routes!(restore_version))
}

/// Upload a tree as a tar
///
/// The body is a tar, plain or compressed with zstd; it is taken as it streams in. Its tree becomes
/// the package's next version, unless it is that of the newest version already. If anything is
/// wrong with it, nothing of it is kept. The package must be one that takes uploads.
#[utoipa::path(put, path = "/api/v1/packages/{package}/tar", tag = "uploads",
    security(("token" = ["operator"])),
    params(("package" = String, Path, description = "The package", example = "tools")),
    request_body(content = Vec<u8>, content_type = "application/x-tar",
        description = "For example: `tar c -C folder . | zstd | curl -T - URL`", example = "…"),
    responses(Published))]
async fn put_tar(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let name: PackageName = params.get("package")?;
    let report = streams::take_in(site, body, move |content, mut archive| {
        let report = content.packages.put_tar(&name, &mut archive, &Progress::default())?;
        // What follows the archive's end mark is padding. It is read so that the connection can be
        // used again; the version is made, whatever comes.
        let _ = streams::drain(&mut archive);
        Ok(report)
    });
    Ok(published(report.await?, &note))
}

/// What an upload that ended answers, for the document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "answers are made of packager's own types")]
pub(super) enum Published {
    /// The tree is that of the newest version: none was made
    #[response(status = 200)]
    Unchanged(UpdateView),
    /// The new version
    #[response(status = 201, headers(("Location" = String, description = "The version's address")))]
    Made(UpdateView),
    /// It has content that was revoked
    #[response(status = 410)]
    Revoked(Problem),
}

/// The answer to an upload that ended: 201 with the version's address if it made one.
pub(super) fn published(report: UpdateReport, note: &AuditNote) -> Response {
    if report.unchanged {
        note.detail(format!("{}: unchanged", report.package));
        return Json(report).into_response();
    }
    note.detail(format!("{} version {}", report.package, report.version));
    let location = format!("/api/v1/packages/{}/versions/{}", report.package, report.version);
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(report)).into_response()
}

/// Where to write a version.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"destination": "/srv/out"}))]
pub struct RestoreVersion {
    /// The folder to write to, as an absolute path; made if it is not there. Bytes that are not
    /// UTF-8, and backslashes, are written as `\xff`.
    pub destination: String,
    /// Whether what the version does not have is removed from the folder.
    #[serde(default)]
    pub prune: bool,
}

/// Write a version to a folder
///
/// A job. Only in process, by `depot --data DIR package restore`: it writes with the rights of
/// whoever runs it.
#[utoipa::path(post, path = "/api/v1/packages/{package}/versions/{version}/restore",
    tag = "packages", security(("token" = ["admin"])),
    params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("version" = String, Path, description = "A number, `latest`, or a channel", example = "latest"),
    ),
    request_body = RestoreVersion,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn restore_version(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(input): Input<RestoreVersion>,
) -> Result<Accepted, Problem> {
    only_local(&identity, "a restore")?;
    let (name, version): (PackageName, Selector) = (params.get("package")?, params.get("version")?);
    let SourceFolder(destination) = SourceFolder::try_from(input.destination)
        .map_err(|error| Problem::field("destination", format!("is no path: {error}")))?;
    if !destination.is_absolute() {
        return Err(Problem::field("destination", "must be an absolute path"));
    }
    let extra = if input.prune { Extra::Remove } else { Extra::Keep };
    let packages = {
        let (site, name, version) = (site.clone(), name.clone(), version.clone());
        blocking(move || {
            let packages = site.content()?.packages;
            packages.resolve(&name, &version)?;
            Ok(packages)
        })
        .await?
    };
    let subject = format!("restore/{}", destination.display());
    let work = move |progress: &Progress| {
        result_of(&packages.restore(&name, &version, &destination, extra, progress)?)
    };
    start(site, identity, &note, "restore_version", subject, Box::new(work)).await
}
