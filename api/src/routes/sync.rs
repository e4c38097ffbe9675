//! The sync of updates: its sources, its runs, and what is set for all of them.

mod runs;
mod settings;
mod sources;

pub use runs::{ChangesView, OutcomeView, RunSync, RunView, RunsView, TriggerView};
pub use settings::{CriteriaView, ScheduleView};
pub use sources::{ChangeSource, NewSource, NextView, RunningView, SyncSourceView};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().merge(sources::routes()).merge(runs::routes()).merge(settings::routes())
}
