//! The sync of updates: its sources, its runs, and what is set for all of them.

mod runs;
mod settings;
mod sources;

pub use runs::{ChangesView, OutcomeView, RunSync, RunView, RunsView, TriggerView};
pub use settings::{CriteriaView, ScheduleView};
pub use sources::{ChangeSource, NewSource, NextView, RunningView, SyncSourceView};

use crate::problem::{Kind, Problem};
use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().merge(sources::routes()).merge(runs::routes()).merge(settings::routes())
}

/// Refuses what is done at the top site alone, with where that is.
pub(super) fn only_at_the_top(site: &Site, what: &str) -> Result<(), Problem> {
    let Some(parent) = site.parent()? else { return Ok(()) };
    let top = site.updates()?.sources().site()?.top;
    let top = top.unwrap_or_else(|| parent.sites().join(" or "));
    let detail = format!(
        "this site takes its updates from a parent, so {what} at the top site alone: at {top}"
    );
    Err(Problem::new(Kind::Conflict, detail))
}
