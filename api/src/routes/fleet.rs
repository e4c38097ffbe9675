//! The fleet: what clients say to their site, who they are, and what their reports come to.

pub mod client;
mod clients;
mod collections;
mod compliance;
mod fallback;
mod of_client;
mod settings;
mod tokens;
mod unknown;

pub use clients::{ClientView, StandingView};
pub use collections::{
    ClientsChange, CollectionChange, CollectionView, MaintenanceWindowView, NewCollection,
    RulePreview, TimeView,
};
pub use compliance::{CountsView, DayView, DeviceView, GroupComplianceView, HeldView, SummaryView};
pub use fallback::{FallbackView, FallbackWordView};
pub use of_client::{ClientPackageView, ClientUpdateView};
pub use settings::{ClientSettingsView, EffectiveSettingsView, SetSettingsView};
pub use tokens::{ClientTokenView, CreatedClientToken, NewClientTokenView};
pub use unknown::{UnknownTotalsView, UnknownView};

pub(super) use clients::{find as find_client, ordinal_after};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .merge(client::routes())
        .merge(clients::routes())
        .merge(settings::routes())
        .merge(collections::routes())
        .merge(tokens::routes())
        .merge(fallback::routes())
        .merge(compliance::routes())
        .merge(unknown::routes())
        .merge(of_client::routes())
}
