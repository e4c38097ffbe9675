//! The operations of the interface, one file for each kind of thing.

pub mod access;
pub mod backups;
pub mod content;
pub mod deployments;
pub mod downloads;
pub mod fleet;
pub mod hierarchy;
pub mod jobs;
pub mod library;
pub mod own_updates;
pub mod packages;
pub mod places;
pub mod point;
pub mod points;
pub mod prestage;
pub mod server;
pub mod shards;
pub mod status_messages;
pub mod sync;
pub mod transfer;
pub mod updates;
pub mod uploads;
pub mod versions;
pub mod volumes;

use crate::auth::Identity;
use crate::guard::{Guard, guard, operations};
use crate::openapi::{self, Base};
use crate::problem::{Kind, Problem};
use crate::site::Site;
use crate::upstream::elsewhere;
use axum::Router;
use axum::extract::{Extension, Request};
use axum::middleware::from_fn_with_state;
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The interface of `site`: everything below `/api/`, and `/locate/`.
pub fn router(site: Site) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = openapi::complete(document);
    let operations = Arc::new(operations(&document));
    let state = Guard { site: site.clone(), operations };
    router
        .route_layer(from_fn_with_state(state, guard))
        .layer(Extension(server::Document::new(document)))
        .fallback(elsewhere)
        .method_not_allowed_fallback(no_such_method)
        .with_state(site)
}

/// The same for whoever may open the data folder: no token is asked for.
pub fn local_router(site: Site) -> Router {
    router(site).layer(Extension(Identity::local_admin()))
}

/// The OpenAPI document, as `/api/openapi.json` gives it.
pub fn document() -> serde_json::Value {
    openapi::complete(routes().split_for_parts().1)
}

fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::with_openapi(Base::openapi())
        .merge(packages::routes())
        .merge(versions::routes())
        .merge(transfer::routes())
        .merge(uploads::routes())
        .merge(content::routes())
        .merge(library::routes())
        .merge(volumes::routes())
        .merge(points::routes())
        .merge(point::routes())
        .merge(places::routes())
        .merge(prestage::routes())
        .merge(sync::routes())
        .merge(updates::routes())
        .merge(downloads::routes())
        .merge(own_updates::routes())
        .merge(status_messages::routes())
        .merge(hierarchy::routes())
        .merge(fleet::routes())
        .merge(deployments::routes())
        .merge(shards::routes())
        .merge(backups::routes())
        .merge(jobs::routes())
        .merge(access::routes())
        .merge(server::routes())
}

async fn no_such_method(request: Request) -> Problem {
    let detail = format!(
        "{} does not take {}: the Allow header lists what it takes",
        request.uri().path(),
        request.method()
    );
    Problem::new(Kind::MethodNotAllowed, detail)
}
