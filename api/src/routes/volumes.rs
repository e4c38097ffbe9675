//! The volumes of the content library: list, add, drain, resume, remove.

use crate::auth::Identity;
use crate::extract::{Input, Params, Query};
use crate::guard::AuditNote;
use crate::jobs::Job;
use crate::page::{Page, PageQuery};
use crate::problem::{Kind, Problem};
use crate::routes::jobs::{Accepted, only_local, result_of, start};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use contentlib::{Library, MaintainError, NewVolume, Progress, VolumeState, VolumeStats};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list_volumes, add_volume))
        .routes(routes!(drain_volume))
        .routes(routes!(resume_volume))
        .routes(routes!(remove_volume))
}

/// A folder that holds packs of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "disk2", "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "path": "/mnt/disk2/depot",
    "state": "active", "packs": 12, "stored_bytes": 3100000000_u64,
    "free_bytes": 80000000000_u64, "reserve_bytes": 67108864
}))]
pub struct VolumeView {
    /// What people call it; `home` for the one in the data folder.
    pub name: String,
    /// Names it for ever; zeros for the home volume.
    pub id: String,
    /// Where it is on the server.
    pub path: String,
    /// Whether it takes new packs.
    pub state: VolumeStateView,
    /// Packs on it.
    pub packs: u64,
    /// Bytes of those packs.
    pub stored_bytes: u64,
    /// Free bytes, if known.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// Bytes that stay free on it.
    pub reserve_bytes: u64,
}

/// Whether a volume takes new packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeStateView {
    /// It does.
    Active,
    /// Its packs are moved to other volumes, and it gets no new ones.
    Draining,
}

impl From<VolumeStats> for VolumeView {
    fn from(volume: VolumeStats) -> Self {
        Self {
            name: volume.name,
            id: volume.id,
            path: volume.path,
            state: match volume.state {
                VolumeState::Active => VolumeStateView::Active,
                VolumeState::Draining => VolumeStateView::Draining,
            },
            packs: volume.packs,
            stored_bytes: volume.stored_bytes,
            free_bytes: volume.free_bytes,
            reserve_bytes: volume.reserve_bytes,
        }
    }
}

/// List the volumes
///
/// By name. New content goes to the active one with the most room above its reserve.
#[utoipa::path(get, path = "/api/v1/library/volumes", tag = "library",
    security(("token" = ["reader"])), params(PageQuery),
    responses((status = 200, description = "A page of volumes", body = Page<VolumeView>)))]
async fn list_volumes(
    State(site): State<Site>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<VolumeView>>, Problem> {
    let (limit, after) = (query.limit()?, query.after("volumes")?);
    let all = blocking(move || Ok(site.content()?.library.volumes()?)).await?;
    let mut all: Vec<VolumeView> = all.into_iter().map(VolumeView::from).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let key = |volume: &VolumeView| volume.name.clone();
    Ok(Json(Page::cut("volumes", all, after.as_deref(), limit, key)))
}

/// A volume that is to be added.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/mnt/disk2/depot", "name": "disk2"}))]
pub struct AddVolume {
    /// An empty folder of the server, on the disk that is to be used, as an absolute path.
    pub path: String,
    /// What to call it: up to 64 of a-z, 0-9, `.`, `_`, `-`. Without it, as its folder.
    #[serde(default)]
    pub name: Option<String>,
    /// Bytes that stay free on it. Without it, as many as `library.reserve` says.
    #[serde(default)]
    pub reserve_bytes: Option<u64>,
}

/// Add a volume
///
/// From now on new content may go there. The folder is the library's alone: a marker in it tells
/// whose it is, and a library whose volume is not there does not open.
#[utoipa::path(post, path = "/api/v1/library/volumes", tag = "library",
    security(("token" = ["admin"])), request_body = AddVolume,
    responses((status = 201, description = "The volume", body = VolumeView)))]
async fn add_volume(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    Input(input): Input<AddVolume>,
) -> Result<(StatusCode, Json<VolumeView>), Problem> {
    note.target(input.name.as_deref().unwrap_or(&input.path));
    note.detail(input.path.clone());
    let new = NewVolume { path: input.path.into(), name: input.name, reserve: input.reserve_bytes };
    let added = blocking(move || Ok(site.content()?.library.add_volume(&new)?)).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

/// Drain a volume
///
/// A job. The volume takes no new content from the beginning on, and its packs move to the other
/// volumes, while everything is served. Cancelled or cut off, it goes on when it is started again.
/// Its result counts what was moved, and names the packs that had to stay, with the reason.
#[utoipa::path(post, path = "/api/v1/library/volumes/{volume}/drain", tag = "library",
    security(("token" = ["admin"])),
    params(("volume" = String, Path, description = "Its name or id", example = "disk2")),
    responses((status = 202, description = "The job", body = Job,
        headers(("Location" = String, description = "The job's address")))))]
async fn drain_volume(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
) -> Result<Accepted, Problem> {
    let name = params.text("volume").to_owned();
    let (library, name) = {
        let site = site.clone();
        let found = move || {
            let library = site.content()?.library;
            let name = library.volume(&name)?.name;
            Ok((library, name))
        };
        blocking(found).await?
    };
    let subject = format!("library/volumes/{name}");
    let work = move |progress: &Progress| match library.drain_volume(&name, progress) {
        Err(MaintainError::Cancelled(_)) => {
            let detail = format!(
                "cancelled: what was moved stays moved, and {name} takes no new content; drain it \
                 again to go on, or resume it"
            );
            Err(Problem::new(Kind::Cancelled, detail))
        }
        done => result_of(&done?),
    };
    start(site, identity, &note, "drain_volume", subject, Box::new(work)).await
}

/// Use a volume again
///
/// It takes new content again. What a drain moved away stays where it is; one that runs ends.
#[utoipa::path(post, path = "/api/v1/library/volumes/{volume}/resume", tag = "library",
    security(("token" = ["admin"])),
    params(("volume" = String, Path, description = "Its name or id", example = "disk2")),
    responses((status = 200, description = "The volume", body = VolumeView)))]
async fn resume_volume(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<VolumeView>, Problem> {
    let name = params.text("volume").to_owned();
    let resumed = blocking(move || Ok(site.content()?.library.resume_volume(&name)?)).await?;
    Ok(Json(resumed.into()))
}

/// How to remove a volume.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// Give up a volume whose disk is gone, with all that it held. Only for a site that does not
    /// serve, by `depot --data DIR library volume remove NAME --lost`.
    #[serde(default)]
    #[param(default = false)]
    lost: bool,
}

/// Remove a volume
///
/// One that holds nothing: drain it first. Its folder is empty afterwards. The home volume stays.
#[utoipa::path(delete, path = "/api/v1/library/volumes/{volume}", tag = "library",
    security(("token" = ["admin"])), params(
        ("volume" = String, Path, description = "Its name or id", example = "disk2"), RemoveQuery),
    responses((status = 204, description = "It is no longer a volume")))]
async fn remove_volume(
    State(site): State<Site>,
    Extension(identity): Extension<Identity>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Problem> {
    let name = params.text("volume").to_owned();
    if query.lost {
        only_local(&identity, "giving up a lost volume")?;
        note.detail("given up as lost");
    }
    let done = blocking(move || {
        if !query.lost {
            return Ok(site.content()?.library.remove_volume(&name)?);
        }
        site.close_content()?;
        Ok(Library::give_up_volume(&site.library_folder(), &name)?)
    });
    done.await?;
    Ok(StatusCode::NO_CONTENT)
}
