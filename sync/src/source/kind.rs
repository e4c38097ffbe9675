//! What a source is: which adapter reads it, with which settings.

use super::SourceError;
use crate::adapter::Adapter;
use crate::error::{Cause, SyncError};
use serde::{Deserialize, Serialize};

/// A kind of upstream, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "settings", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceKind {
    /// The parent site.
    Parent,
}

impl SourceKind {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Parent => "parent",
        }
    }

    /// Whether its settings can work.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        match self {
            Self::Parent => Ok(()),
        }
    }

    /// What reads it.
    pub fn adapter(&self) -> Result<Box<dyn Adapter>, SyncError> {
        match self {
            Self::Parent => {
                Err(SyncError::new(Cause::Unsupported, "a parent site cannot be read yet"))
            }
        }
    }
}
