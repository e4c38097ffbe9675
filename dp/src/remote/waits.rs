//! Waiting for a server that is itself bringing the version that is asked of it.
//!
//! So of all who bring from it, and itself, the servers behind it send each chunk once. It is waited
//! for while what it holds grows, and not if that stops.

use super::attempt::Failed;
use super::client::{Client, accepted};
use super::sources::{Outlook, Wait};
use crate::coming::Coming;
use packager::PackageName;
use parking_lot::Mutex;
use std::time::Instant;

/// The longest answer about a version.
const MAX_COMING: usize = 4 << 10;

/// How long each server is waited for, for one version.
#[derive(Debug)]
pub(super) struct Waits {
    path: String,
    servers: Mutex<Vec<Wait>>,
}

impl Waits {
    pub fn new(package: &PackageName, version: u64, servers: usize) -> Self {
        let servers = Mutex::new(vec![Wait::default(); servers]);
        Self { path: format!("coming/{package}/{version}"), servers }
    }
}

impl Client {
    /// What to hope for from a server that lacks chunks.
    pub(super) async fn outlook(&self, server: usize) -> Outlook {
        let Some(waits) = self.waits.as_ref().filter(|_| self.servers.list[server].tells()) else {
            return Outlook::Nothing;
        };
        let held = self.coming(server, &waits.path).await.ok().map(|coming| coming.held);
        waits.servers.lock()[server].outlook(held, Instant::now())
    }

    async fn coming(&self, server: usize, path: &str) -> Result<Coming, Failed> {
        let asks = self.servers.list[server].asks(path);
        let mut response = accepted(&asks.shown, asks.http.get(asks.url).send().await).await?;
        let malformed = || {
            Failed::Wrong(super::RemoteError::Malformed {
                url: asks.shown.clone(),
                wanted: "how far a version is",
            })
        };
        let mut got = Vec::new();
        while let Some(bytes) = self.read(&asks.shown, &mut response, None).await? {
            if got.len() + bytes.len() > MAX_COMING {
                return Err(malformed());
            }
            got.extend_from_slice(&bytes);
        }
        serde_json::from_slice(&got).map_err(|_| malformed())
    }
}
