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
    let damaged = library.damaged(&ManifestLinks)?;
    progress.total_files.store(damaged.len() as u64, Relaxed);
    Ok(library.repair(&damaged, &mut holder, progress)?)
}
