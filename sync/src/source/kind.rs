//! What a source is: which adapter reads it, with which settings.

use super::SourceError;
use crate::adapter::Adapter;
use crate::error::{Cause, SyncError};
use crate::{apt, rpm, sdp, wsus};
use serde::{Deserialize, Serialize};

/// A kind of upstream, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "settings", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceKind {
    /// A Debian archive.
    Apt(Box<apt::Settings>),
    /// An RPM repository.
    Rpm(rpm::RpmSettings),
    /// A third-party catalogue in the form of Updates Publisher.
    Sdp(sdp::brought::Settings),
    /// A WSUS server, or Microsoft Update.
    Wsus(wsus::source::Settings),
    /// The offline scan cabinet of Microsoft Update.
    ScanCab(sdp::brought::Settings),
    /// The parent site.
    Parent,
}

impl SourceKind {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Apt(_) => "apt",
            Self::Rpm(_) => "rpm",
            Self::Sdp(_) => "sdp",
            Self::Wsus(_) => "wsus",
            Self::ScanCab(_) => "scan-cab",
            Self::Parent => "parent",
        }
    }

    /// Whether its settings can work.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        if *self == Self::Parent {
            return Ok(());
        }
        match self.adapter() {
            Ok(_) => Ok(()),
            Err(error) => Err(SourceError::invalid("settings", format!("cannot work: {error}"))),
        }
    }

    /// What reads it.
    ///
    /// # Errors
    /// Its settings cannot work.
    pub fn adapter(&self) -> Result<Box<dyn Adapter>, SyncError> {
        Ok(match self {
            Self::Apt(settings) => Box::new(apt::Apt::new((**settings).clone())?),
            Self::Rpm(settings) => Box::new(rpm::RpmSource::new(settings)?),
            Self::Sdp(settings) => Box::new(sdp::source::SdpSource::new(settings.clone())?),
            Self::Wsus(settings) => Box::new(wsus::source::WsusSource::new(settings)?),
            Self::ScanCab(settings) => Box::new(wsus::scan_cab::ScanCab::new(settings.clone())?),
            Self::Parent => {
                let detail = "this site cannot take its updates from a parent yet";
                return Err(SyncError::new(Cause::Unsupported, detail));
            }
        })
    }
}
