//! Whom a server over HTTPS is believed to be.
//!
//! Without a word those that the system's authorities vouch for. With `--ca FILE` those that the
//! certificates in it vouch for, and nobody else; if one of them is a site's own authority, the site and
//! its distribution points, by whatever address they are reached.

use super::remote::variable;
use crate::{
    cli::Shared,
    exit::{Failure, with_causes},
};
use rustls::ClientConfig;
use std::{fs, path::PathBuf, sync::Arc};

/// Far more than a few certificates take.
const MAX_FILE: u64 = 64 << 10;

/// How TLS is set up where flag or environment say whom to believe.
pub fn of(shared: &Shared) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let named = shared.ca.clone().or_else(|| variable("DEPOT_CA").map(PathBuf::from));
    let Some(path) = named else { return Ok(None) };
    let wrong = |why: String| Failure::usage(format!("certificates {}: {why}", path.display()));
    let size = fs::metadata(&path).map_err(|error| wrong(error.to_string()))?.len();
    if size > MAX_FILE {
        return Err(wrong("the file is too long to hold some certificates in PEM".into()));
    }
    let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let clock: packager::Clock = Arc::new(jiff::Timestamp::now);
    let config = dp::identity::fetching_config(&text, &clock);
    config.map(Some).map_err(|error| wrong(with_causes(&error)))
}
