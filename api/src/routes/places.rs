//! Which clients belong to which distribution points: boundaries, boundary groups, the rules for all,
//! and whom a client should ask.

mod boundaries;
mod groups;
mod locate;
mod rules;

pub use boundaries::{BoundaryChange, BoundaryView, NewBoundary, OverlapView, SavedBoundary};
pub use groups::{
    BoundaryGroupView, DeletedBoundaryGroup, FallbackView, NeighbourView, NewBoundaryGroup,
    OnDemandView,
};
pub(crate) use locate::asked_host;
pub use locate::{DemandedView, LocatedSourceView, LocatedView, PassedOverView, SourcesView};
pub use rules::RulesView;

use crate::extract::field;
use crate::problem::Problem;
use crate::site::Site;
use std::collections::BTreeSet;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .merge(boundaries::routes())
        .merge(groups::routes())
        .merge(rules::routes())
        .merge(locate::routes())
}

/// The names of the groups that a boundary is to be in.
fn group_names(given: &[String]) -> Result<BTreeSet<dp::registry::BoundaryGroupName>, Problem> {
    let named = |(at, text): (usize, &String)| field(&format!("groups[{at}]"), text);
    given.iter().enumerate().map(named).collect()
}
