//! Healing damaged content from another server.

use crate::problem::{Kind, Problem, with_causes};
use contentlib::{Library, Progress, RepairReport};
use dp::remote::{RemoteError, repair_source};
use packager::ManifestLinks;
use std::sync::atomic::Ordering::Relaxed;
use tokio::runtime::Handle;

/// Fetches all that is damaged or missing in `library` from the depot server at `address`.
///
/// Blocks; its requests run on `runtime`.
pub fn repair(
    library: &Library,
    address: &str,
    runtime: Handle,
    progress: &Progress,
) -> Result<RepairReport, Problem> {
    // Process-wide; where somebody installed one before, that one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut holder = repair_source(address, runtime).map_err(|error| match error {
        RemoteError::Address(_) => Problem::field("from", with_causes(&error)),
        other => Problem::new(Kind::Upstream, with_causes(&other)),
    })?;
    let mut all = RepairReport::default();
    loop {
        let damaged = library.damaged(&ManifestLinks)?;
        // What has no good copy there is not asked for twice.
        let damaged: Vec<_> = damaged.into_iter().filter(|it| !all.lost.contains(it)).collect();
        if damaged.is_empty() {
            return Ok(all);
        }
        progress.total_files.fetch_add(damaged.len() as u64, Relaxed);
        let report = library.repair(&damaged, &mut holder, progress)?;
        all.wanted += report.wanted;
        all.healed += report.healed;
        all.lost.extend(report.lost);
        // A manifest that came tells of files that were not known to be missing: look again.
        if report.healed == 0 {
            return Ok(all);
        }
    }
}
