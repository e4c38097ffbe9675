//! Files of updates: bring them into a package.

use crate::auth::Identity;
use crate::deployment_package::{Bring, bring};
use crate::extract::Input;
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, start};
use crate::routes::packages::source_folder;
use crate::site::{Site, blocking};
use ::sync::taxonomy::Language;
use axum::extract::{Extension, State};
use contentlib::Progress;
use packager::name::PackageName;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most updates that one request names.
const MAX_UPDATES: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(download_updates))
}

/// Whose files are to be brought, and where.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "updates": ["DSA-5545-1"], "package": "november", "languages": ["en"], "rate": 10000000
}))]
pub struct DownloadUpdates {
    /// Updates, by id, name or article.
    pub updates: Vec<String>,
    /// The package that gets the files; it is made if there is none.
    pub package: String,
    /// Of files that are for one language alone, those for these; all, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// A folder of the server that the files lie in, by their names or in folders by the ids of their updates,
    /// as an absolute path; takes the role admin. Without it, they come from where their updates say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_folder: Option<String>,
    /// Bytes that come in a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub rate: Option<NonZeroU64>,
}

/// Bring the files of updates into a package
///
/// A job, whose result (`DownloadView`) says what became of each file. One that cannot be had does not keep the
/// others from coming.
#[utoipa::path(post, path = "/api/v1/updates/download", tag = "updates",
    operation_id = "download_updates", security(("token" = ["operator"])),
    request_body = DownloadUpdates,
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn download_updates(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    Input(asked): Input<DownloadUpdates>,
) -> Result<Accepted, Problem> {
    note.target(&asked.package);
    if asked.updates.is_empty() || asked.updates.len() > MAX_UPDATES {
        return Err(Problem::field(
            "updates",
            format!("must name from 1 to {MAX_UPDATES} updates"),
        ));
    }
    let package: PackageName = asked
        .package
        .parse()
        .map_err(|error: packager::name::BadName| Problem::field("package", error.to_string()))?;
    let language = |tag: &String| {
        tag.parse::<Language>().map_err(|error| Problem::field("languages", error.to_string()))
    };
    let wanted = Bring {
        languages: asked.languages.iter().map(language).collect::<Result<_, _>>()?,
        folder: source_folder("from_folder", asked.from_folder.as_deref(), &identity)?,
        rate: asked.rate.map(NonZeroU64::get),
        updates: asked.updates,
        package,
    };
    if let Some(folder) = wanted.folder.clone() {
        blocking(move || {
            if folder.is_dir() {
                return Ok(());
            }
            let detail = format!(
                "there is no folder {} on the machine that holds the library",
                folder.display()
            );
            Err(Problem::new(Kind::InvalidValue, detail.clone()).caused_by("from_folder", detail))
        })
        .await?;
    }
    let subject = format!("package/{}", wanted.package);
    let its_site = site.clone();
    let work = move |progress: &Progress| bring(&its_site, wanted, progress);
    start(site, identity, &note, "download_updates", subject, Box::new(work)).await
}
