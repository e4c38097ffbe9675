//! The site's own updates: publish, withdraw; and any update as a package for other tools.

use crate::extract::{Input, Params};
use crate::guard::AuditNote;
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use ::sync::adapter::Said;
use ::sync::digests::Algorithm;
use ::sync::name::SourceName;
use ::sync::sdp::author::{Description, Flaws, Measured, build};
use ::sync::sdp::write::write;
use ::sync::update::Update;
use axum::Json;
use axum::extract::{Extension, State};
use contentlib::{Name, Progress};
use jiff::Timestamp;
use packager::compose::Base;
use packager::error::PackageError;
use packager::name::PackageName;
use packager::path::TreePath;
use packager::retention::Retention;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(publish_update))
        .routes(routes!(withdraw_update))
        .routes(routes!(export_update))
}

/// An update of the site's own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "description": {
        "title": "Tool 2.1", "description": "Mends the tool.", "vendor": "Example", "product": "Tool",
        "classification": "update", "installed": "<b.FileExists Path=\"C:\\\\tool.exe\"/>",
        "files": [{"path": "tool.exe"}],
        "installer": {"kind": "command", "program": "tool.exe", "arguments": "/quiet"}
    },
    "files": {"tool.exe": {"size": 1048576, "digests": {"sha256": "e3b0c442…"}}},
    "package": "own-updates"
}))]
pub struct PublishUpdate {
    /// What a person writes of it; see `depot update author --help`.
    #[schema(value_type = Object)]
    pub description: Description,
    /// By the path that the description has: what each of its files is. Their bytes were uploaded before.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub files: BTreeMap<String, MeasuredFile>,
    /// The package that holds the files; it is made if there is none.
    pub package: String,
}

/// What a file is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredFile {
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256, and its SHA-1 if older clients shall know it by that.
    pub digests: ::sync::digests::Digests,
}

/// An update that was published or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "Tool 2.1", "changed": true
}))]
pub struct OwnUpdateView {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whether the catalogue is another now.
    pub changed: bool,
}

/// Publish an update of the site's own
///
/// It is in the catalogue then, as of the source `local`, and its files are in the package. An update that was
/// published before, by its id or by vendor, product and title, gets a new revision.
#[utoipa::path(post, path = "/api/v1/updates", tag = "updates", operation_id = "publish_update",
    security(("token" = ["operator"])), request_body = PublishUpdate,
    responses((status = 200, description = "The update", body = OwnUpdateView)))]
async fn publish_update(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(own): Input<PublishUpdate>,
) -> Result<Json<OwnUpdateView>, Problem> {
    let package: PackageName = own
        .package
        .parse()
        .map_err(|error: packager::name::BadName| Problem::field("package", error.to_string()))?;
    let measured = own
        .files
        .into_iter()
        .map(|(path, file)| (path, Measured { size: file.size, digests: file.digests }));
    let measured = measured.collect();
    let id = own.description.id();
    note.target(id.to_string());
    let built = build(&own.description, &measured, id, Timestamp::now());
    let (update, product) = built.map_err(|flaws| flawed(&flaws))?;
    let machine = {
        let (site, update) = (site.clone(), update.clone());
        blocking(move || {
            if site.parent()?.is_some_and(|parent| parent.is_of_update_point()) {
                let detail = "this is an update point of a site, which has no updates of its own: publish \
                    it at its site";
                return Err(Problem::new(Kind::Conflict, detail));
            }
            place(&site, &package, &update)?;
            site.updates()
        })
        .await?
    };
    let view = |changed| OwnUpdateView { id: id.to_string(), name: update.name.clone(), changed };
    let said = vec![Said::Product(product), Said::Update(Box::new(update.clone()))];
    let changes = machine.issue(said).await?;
    Ok(Json(view(!changes.is_none())))
}

fn flawed(flaws: &Flaws) -> Problem {
    let mut problem = Problem::new(Kind::InvalidValue, flaws.to_string());
    for flaw in &flaws.0 {
        problem = problem.caused_by(format!("description.{}", flaw.field), &flaw.why);
    }
    problem
}

/// Puts the files of an update into the package, as far as they do not come from elsewhere.
fn place(site: &Site, package: &PackageName, update: &Update) -> Result<(), Problem> {
    let packages = site.content()?.packages;
    match packages.show(package) {
        Ok(_) => {}
        Err(PackageError::UnknownPackage(_)) => {
            let keep = NonZeroU32::new(site.config().packages.keep_versions as u32);
            let retention = Retention { keep: keep.unwrap_or(NonZeroU32::MIN), days: None };
            packages.create_composed(package.clone(), retention)?;
        }
        Err(error) => return Err(error.into()),
    }
    if crate::mirror::of(&site.ledger()?.db, package)?.is_some() {
        let detail = format!("{package} mirrors a repository: take another package");
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let composition = packages.compose(package, Base::Newest, Arc::new(Progress::default()))?;
    for file in update.files().filter(|file| file.urls.is_empty()) {
        let sha256 = file.digests.get(Algorithm::Sha256).unwrap_or_default();
        let name: Name = format!("sha256:{sha256}")
            .parse()
            .map_err(|_| Problem::field("files", format!("has no SHA-256 of {}", file.name)))?;
        let path = TreePath::new(format!("{}/{}", update.id, file.name).as_bytes())
            .map_err(|error| Problem::field("files", format!("{}: {error}", file.name)))?;
        let placed = composition.place_held(&path, &name, file.size);
        if !placed.map_err(|error| Problem::new(Kind::Conflict, error.to_string()))? {
            let detail = format!("upload the bytes of {} first, as the content {name}", file.name);
            return Err(Problem::new(Kind::Conflict, detail));
        }
    }
    composition.finish()?;
    Ok(())
}

/// Withdraw an update of the site's own
///
/// It expires, and no machine gets it anew. Its files stay in their package.
#[utoipa::path(post, path = "/api/v1/updates/{update}/withdraw", tag = "updates",
    operation_id = "withdraw_update", security(("token" = ["operator"])),
    params(("update" = String, Path, description = "Its id, its name, or that of an article of it",
        example = "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f")),
    responses((status = 200, description = "The update", body = OwnUpdateView)))]
async fn withdraw_update(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<OwnUpdateView>, Problem> {
    let which = params.text("update").to_owned();
    let (machine, entry) = blocking(move || {
        let machine = site.updates()?;
        let entry = machine.catalogue().get(&which)?;
        Ok((machine, entry))
    })
    .await?;
    let Update { id, name, .. } = entry.update;
    if !entry.sources.contains(&SourceName::own()) {
        let detail =
            format!("{name} is no update of this site's own: of those of others, its source says");
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let changes = machine.issue(vec![Said::Gone(id)]).await?;
    Ok(Json(OwnUpdateView { id: id.to_string(), name, changed: !changes.is_none() }))
}

/// An update as a package of Updates Publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f", "name": "Tool 2.1", "document": "<?xml …"
}))]
pub struct ExportedUpdate {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The document: a `SoftwareDistributionPackage`.
    pub document: String,
}

/// Give an update as a package of Updates Publisher
#[utoipa::path(get, path = "/api/v1/updates/{update}/package", tag = "updates",
    operation_id = "export_update", security(("token" = ["reader"])),
    params(("update" = String, Path, description = "Its id, its name, or that of an article of it",
        example = "8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f")),
    responses((status = 200, description = "The package", body = ExportedUpdate)))]
async fn export_update(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<ExportedUpdate>, Problem> {
    let which = params.text("update").to_owned();
    let exported = blocking(move || {
        let catalogue = site.updates()?.catalogue().clone();
        let update = catalogue.get(&which)?.update;
        let products: Vec<_> = catalogue
            .products()
            .into_iter()
            .map(|count| count.product)
            .filter(|product| update.products.contains(&product.id))
            .collect();
        let document = write(&update, &products).map_err(|error| {
            Problem::new(
                Kind::Conflict,
                format!("{} cannot be such a package: {error}", update.name),
            )
        })?;
        Ok(ExportedUpdate { id: update.id.to_string(), name: update.name, document })
    });
    Ok(Json(exported.await?))
}
