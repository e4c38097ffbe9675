//! The tree of sites and the site's update points, for people: who follows this site, whom it follows, and
//! where clients find update points. What a follower itself says stands in `follower`.

mod follower;
mod followers;
mod policy;
mod states;

pub use follower::{FollowerReportView, SyncRequestView};
pub use followers::{FollowerView, FollowersQuery, NewPointSource, SiteView};
pub use policy::{ClientPolicyView, LocationView};
pub use states::{PageAnswerView, ReachedView};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .merge(follower::routes())
        .merge(followers::routes())
        .merge(policy::routes())
        .merge(states::routes())
}
