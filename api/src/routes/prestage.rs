//! Versions for a medium: a bundle with what a distribution point lacks, as it is made.

use crate::extract::{Query, parse_field, want_media_type};
use crate::guard::AuditNote;
use crate::problem::{Problem, with_causes};
use crate::site::Site;
use crate::streams;
use axum::body::{Body, HttpBody};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use contentlib::Progress;
use dp::Pieces;
use packager::name::{PackageName, Selector};
use packager::prestage::{BUNDLE_TYPE, INVENTORY_TYPE, Inventory, PrestageError};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most packages and versions that one request names.
const MAX_NAMED: usize = 4096;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(export_bundle))
}

/// What goes into a bundle.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `NAME`, `NAME@VERSION` or `NAME@CHANNEL`, apart by commas; without a version, the newest.
    #[param(example = "docs@stable,tools")]
    packages: String,
}

impl Wanted {
    fn parse(&self) -> Result<Vec<(PackageName, Selector)>, Problem> {
        let one = |text: &str| {
            let (name, version) = text.split_once('@').unwrap_or((text, "latest"));
            Ok((parse_field("packages", name)?, parse_field("packages", version)?))
        };
        let all: Vec<_> = self.packages.split(',').map(one).collect::<Result<_, Problem>>()?;
        match all.len() > MAX_NAMED {
            true => Err(Problem::field("packages", format!("must name at most {MAX_NAMED}"))),
            false => Ok(all),
        }
    }
}

/// Make a bundle for a medium
///
/// Of some versions of packages, what a distribution point lacks that wrote the inventory in the body;
/// without a body, all. It is sent as it is made, and ends with an end mark: without that it was cut
/// off. Bring it to the distribution point with `depot prestage import`.
#[utoipa::path(post, path = "/api/v1/prestage/export", tag = "points",
    security(("token" = ["admin"])), params(Wanted),
    request_body(content = Vec<u8>, content_type = "application/vnd.depot.inventory",
        description = "From `depot prestage inventory`", example = "…"),
    extensions(("x-unkept" = json!(true))),
    responses(
        (status = 200, description = "The bundle", content_type = "application/vnd.depot.bundle",
            body = Vec<u8>, example = "…"),
        (status = 409, description = "The inventory is of another site's library", body = Problem),
    ))]
async fn export_bundle(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let named = wanted.parse()?;
    note.target(wanted.packages.as_str());
    let has_base = !body.is_end_stream();
    if has_base {
        want_media_type(&headers, &[INVENTORY_TYPE])?;
    }
    let prepared = streams::take_in(site, body, move |content, mut reader| {
        let base = has_base.then(|| Inventory::read(&mut reader)).transpose()?;
        let packages = content.packages;
        let versions = packages.prestaged_versions(&named)?;
        packages.takes_inventory(base.as_ref())?;
        Ok((packages, versions, base))
    });
    let (packages, versions, base) = prepared.await?;
    note.detail(format!("{} versions", versions.len()));
    let (mut out, body) = Pieces::new();
    tokio::task::spawn_blocking(move || {
        let made = packages.export(versions, base.as_ref(), &mut out, &Progress::default());
        if let Err(error) = made {
            // A client that went away is nobody's fault.
            if !matches!(error, PrestageError::Write(_)) {
                tracing::error!(error = with_causes(&error), "a bundle is cut off");
            }
            out.cut(error);
        }
    });
    let body = Body::from_stream(body);
    Ok(([(header::CONTENT_TYPE, BUNDLE_TYPE)], body).into_response())
}
