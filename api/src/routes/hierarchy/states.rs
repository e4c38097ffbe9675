//! What a child site says of its clients.

use crate::extract::{want_media_type, whole_body};
use crate::guard::not_a_follower_any_more;
use crate::hierarchy::forward::{PAGE, Reached};
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, Request, State};
use compliance::forward::{MAX_PAGE, PageAnswer, PageError};
use dp::field::FollowerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(get_place, post_page))
}

/// How far a child site told of its clients.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"place": 18_204}))]
pub struct ReachedView {
    /// The place up to which it told everything; 0 if it told nothing.
    pub place: u64,
}

/// What a page is answered.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"answer": "accepted", "next": 18_460}))]
pub struct PageAnswerView {
    /// `accepted`, or `elsewhere`: the page begins where this site is not.
    pub answer: String,
    /// Where the next page begins.
    #[serde(default)]
    pub next: Option<u64>,
    /// Where the page has to begin.
    #[serde(default)]
    pub expected: Option<u64>,
}

/// The name of a child site. Update points have no clients of their own.
fn name_of(site: &Site, id: &FollowerId) -> Result<String, Problem> {
    let follower = site.ledger()?.registry.follower(id.as_str());
    let follower = follower.map_err(|_| not_a_follower_any_more())?;
    if !follower.kind.is_site() {
        let detail = "this is for child sites: an update point has no clients of its own";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    Ok(follower.name.to_string())
}

/// Say how far the child site told of its clients
#[utoipa::path(get, path = "/api/v1/follower/states", tag = "follower",
    operation_id = "get_states_place", security(("follower" = [])),
    responses((status = 200, description = "The place", body = ReachedView),
        (status = 409, description = "It is no child site", body = Problem)))]
async fn get_place(
    State(site): State<Site>,
    Extension(id): Extension<FollowerId>,
) -> Result<Json<Reached>, Problem> {
    let place = blocking(move || {
        let name = name_of(&site, &id)?;
        Ok(site.fleet()?.states.place_of(&name))
    });
    Ok(Json(Reached { place: place.await? }))
}

/// Tell of clients that changed
///
/// A page as `compliance/PROTOCOL.md` describes it; on this site's disk when it is answered.
#[utoipa::path(post, path = "/api/v1/follower/states", tag = "follower",
    operation_id = "tell_states", security(("follower" = [])),
    request_body(content = Vec<u8>, content_type = PAGE, example = "…"),
    extensions(("x-unaudited" = json!(true)), ("x-unkept" = json!(true))),
    responses((status = 200, description = "It was taken, or begins elsewhere", body = PageAnswerView),
        (status = 409, description = "It is no child site, or tells of too much", body = Problem),
        (status = 413, description = "It is too large", body = Problem),
        (status = 422, description = "It cannot be read", body = Problem)))]
async fn post_page(
    State(site): State<Site>,
    Extension(id): Extension<FollowerId>,
    request: Request,
) -> Result<Json<PageAnswer>, Problem> {
    want_media_type(request.headers(), &[PAGE])?;
    let of = site.clone();
    let name = blocking(move || name_of(&of, &id)).await?;
    let bytes = whole_body(request.into_body(), MAX_PAGE as u64).await?;
    let taken = blocking(move || {
        let states = &site.fleet()?.states;
        states.accept_page(&name, bytes.into(), Timestamp::now()).map_err(|error| match error {
            PageError::Store(error) => error.into(),
            PageError::Malformed { source, .. } => {
                Problem::field("page", format!("cannot be read: {source}"))
            }
            other => Problem::new(Kind::Conflict, other.to_string()),
        })
    });
    Ok(Json(taken.await?))
}
