//! Backups of the site: make one, and look whether the library holds what one names.

use crate::auth::Identity;
use crate::backup::create::{Wanted, create};
use crate::backup::{against, read_passphrase};
use crate::extract::Input;
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::problem::Problem;
use crate::routes::jobs::{Accepted, result_of, start};
use crate::site::{Site, blocking};
use axum::extract::{Extension, State};
use backup::parts::Content;
use contentlib::Progress;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(create_backup)).routes(routes!(check_backup))
}

/// What kind of backup is wanted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "folder": "/srv/backups", "with_content": true, "passphrase_file": "/etc/depot/backup.passphrase",
    "keep": 30
}))]
pub struct CreateBackup {
    /// The folder of the server where backups of this site are, or are to be; an absolute path outside of
    /// its data folder.
    #[schema(value_type = String)]
    pub folder: PathBuf,
    /// Whether the packs of the library are kept beside it. Without, they are to be kept elsewhere.
    #[serde(default)]
    pub with_content: bool,
    /// A file of the server, readable by it alone, whose first line is the passphrase that the keys are sealed by.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub passphrase_file: Option<PathBuf>,
    /// Leave the keys out: they are kept elsewhere. One of the two must be said.
    #[serde(default)]
    pub without_keys: bool,
    /// So many backups stay, the newest; older ones are deleted once this one is whole. Without it, all stay.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub keep: Option<usize>,
}

/// Make a backup
///
/// A job. The site is used meanwhile. Its result names the file and says what is in it.
#[utoipa::path(post, path = "/api/v1/backups", tag = "server",
    security(("token" = ["admin"])), request_body = CreateBackup,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn create_backup(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<CreateBackup>,
) -> Result<Accepted, Problem> {
    let subject = input.folder.display().to_string();
    note.target(&subject);
    if input.keep == Some(0) {
        return Err(Problem::field("keep", "must be 1 or more"));
    }
    let passphrase = match (input.passphrase_file, input.without_keys) {
        (Some(file), false) => Some(blocking(move || read_passphrase(&file)).await?),
        (None, true) => None,
        (Some(_), true) => {
            let detail = "is given, but the keys are to be left out: say one of the two";
            return Err(Problem::field("passphrase_file", detail));
        }
        (None, false) => {
            let detail = "must be given, so that the site's keys can be sealed; or say without_keys, \
                          and keep the data folder's keys elsewhere";
            return Err(Problem::field("passphrase_file", detail));
        }
    };
    let content = if input.with_content { Content::Packs } else { Content::References };
    let wanted = Wanted { folder: input.folder, content, passphrase, keep: input.keep };
    let of = site.clone();
    let work = move |progress: &Progress| result_of(&create(&of, &wanted, progress)?);
    start(site, identity, &note, "create_backup", subject, Box::new(work)).await
}

/// Which backup is looked at.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/srv/backups/2026-11-28T12-00-00Z-1042.depot-backup"}))]
pub struct CheckBackup {
    /// Its file, on the server.
    #[schema(value_type = String)]
    pub path: PathBuf,
}

/// Compare a backup with the library
///
/// A job. Its result names contents that the backup's references need and the library does not hold whole.
#[utoipa::path(post, path = "/api/v1/backups/check", tag = "server",
    security(("token" = ["admin"])), request_body = CheckBackup,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn check_backup(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<CheckBackup>,
) -> Result<Accepted, Problem> {
    let subject = input.path.display().to_string();
    note.target(&subject);
    let of = site.clone();
    let work = move |progress: &Progress| result_of(&against(&of, &input.path, progress)?);
    start(site, identity, &note, "check_backup", subject, Box::new(work)).await
}
