//! The fleet: what clients say to their site, who they are, and what their reports come to.

pub mod client;
mod clients;
mod collections;
mod compliance;
mod tokens;

pub use clients::{ClientView, StandingView};
pub use collections::{
    ClientsChange, CollectionChange, CollectionView, MaintenanceWindowView, NewCollection,
    RulePreview, TimeView,
};
pub use compliance::{
    CountsView, DayView, DeviceView, HeldView, SummaryView, UnknownTotalsView, UnknownView,
};
pub use tokens::{ClientTokenView, CreatedClientToken, NewClientTokenView};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .merge(client::routes())
        .merge(clients::routes())
        .merge(collections::routes())
        .merge(tokens::routes())
        .merge(compliance::routes())
}
