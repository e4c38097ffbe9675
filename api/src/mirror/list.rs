//! Which files a snapshot of a source has, by the adapter of its kind.

use super::bring::File;
use super::{Mirror, MirroredView, key, told};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use crate::translate::of_upstream;
use ::sync::apt::mirror::Chosen;
use ::sync::apt::{self, Apt};
use ::sync::error::{Cause, SyncError};
use ::sync::machine::Held;
use ::sync::openpgp::SigningKey;
use ::sync::rpm::mirror::Choice;
use ::sync::rpm::{self, RpmSource, Selection};
use ::sync::source::SourceKind;
use std::collections::BTreeSet;
use std::path::Path;

/// A snapshot: its files, and what is to be told of it.
pub(super) struct Snapshot {
    pub files: Vec<File>,
    pub view: MirroredView,
}

/// Lists a snapshot of what is held still; that a package is not there which only `installed` names is not told.
/// Metadata that are made lie in `folder`, or in memory. `advice` is told where the upstream has other metadata
/// by now than the sync brought.
pub(super) async fn snapshot(
    site: &Site,
    mirror: &Mirror,
    installed: &BTreeSet<String>,
    held: &Held,
    folder: &Path,
    advice: &str,
) -> Result<Snapshot, Problem> {
    let failed = |error: SyncError| {
        let has_moved = matches!(error.cause, Cause::Mismatch | Cause::NotFound);
        let problem = of_upstream(error);
        let detail =
            if has_moved { format!("{}; {advice}", problem.detail) } else { problem.detail };
        Problem { detail, ..problem }
    };
    let key = if mirror.is_whole() {
        None
    } else {
        let site = site.clone();
        Some(blocking(move || key::open(&site)).await?)
    };
    let source = mirror.source.clone();
    match &held.source.kind {
        SourceKind::Apt(settings) => {
            let apt = Apt::new((**settings).clone())?;
            let found = match key {
                None => apt.whole(&held.run, &held.state).await.map_err(failed)?,
                Some(key) => filtered(apt, mirror, held, folder, key).await?,
            };
            let view = MirroredView {
                source,
                valid_until: found.valid_until,
                on_demand: None,
                missing: told(found.unmet, installed),
                left_out: found.skipped.count,
                left_out_examples: found.skipped.examples,
            };
            Ok(Snapshot { files: File::grouped(found.files), view })
        }
        SourceKind::Rpm(settings) => {
            let rpm = RpmSource::new(settings)?;
            let selection = selection(mirror);
            let found = match &key {
                None => {
                    rpm.snapshot(&held.run, &held.state, Choice::Whole).await.map_err(failed)?
                }
                Some(key) => {
                    let sign = rpm::mirror::sign_with(key, &held.state);
                    let choice = Choice::Some(&selection, Some(&sign));
                    rpm.snapshot(&held.run, &held.state, choice).await.map_err(failed)?
                }
            };
            let view = MirroredView {
                source,
                valid_until: None,
                on_demand: None,
                missing: told(found.missing, installed),
                left_out: 0,
                left_out_examples: Vec::new(),
            };
            Ok(Snapshot { files: File::grouped(found.files), view })
        }
        other => Err(Problem::field(
            "mirror.source",
            format!("is of the kind {}, which cannot be mirrored", other.as_str()),
        )),
    }
}

/// Of an archive, what is chosen.
async fn filtered(
    apt: Apt,
    mirror: &Mirror,
    held: &Held,
    folder: &Path,
    key: SigningKey,
) -> Result<apt::mirror::Snapshot, Problem> {
    let chosen = Chosen {
        names: mirror.only.iter().cloned().collect(),
        sources: mirror.sources.iter().cloned().collect(),
        wanted: mirror.include.clone(),
        sections: mirror.sections.clone(),
        architectures: mirror.arches.clone(),
        newest_only: mirror.newest_only,
        with_dependencies: mirror.with_dependencies,
    };
    let (run, state, folder) = (held.run.clone(), held.state.clone(), folder.to_owned());
    blocking(move || {
        let sign = apt::mirror::sign_with(&key);
        apt.chosen(&run, &state, &chosen, &folder, &sign).map_err(of_upstream)
    })
    .await
}

fn selection(mirror: &Mirror) -> Selection {
    Selection {
        packages: mirror.only.union(&mirror.include).cloned().collect(),
        advisories: mirror.advisories.clone(),
        arches: mirror.arches.clone(),
        newest_only: mirror.newest_only,
        with_dependencies: mirror.with_dependencies,
    }
}
