//! `GET /coming/{package}/{version}`: how far a version is that this server is still bringing.
//!
//! A point that brings from another asks it for chunks that are not there yet. By this it tells "they
//! come" from "they do not", and waits instead of asking the site for what is on its way already.

use packager::PackageName;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How far a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// Bytes of its files that are held. It grows while something comes.
    pub held: u64,
}

/// Says how far a version is; nothing of one that does not come.
pub type Comes = Arc<dyn Fn(&PackageName, u64) -> Option<Coming> + Send + Sync>;
