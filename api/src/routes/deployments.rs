//! Deployments: which updates belong together, where their files are, to whom they go and when, what came of it.

mod groups;

pub use groups::{GroupChange, GroupUpdateView, NewUpdateGroup, RegroupedView, UpdateGroupView};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().merge(groups::routes())
}
