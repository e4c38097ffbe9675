//! Files on demand: the first request for one has it brought, and waits for it.
//!
//! A version lists such files with their SHA-256 ([`packager::on_demand`]). One that the library holds by
//! that name is served as any other. Another is brought by whoever runs this server: a site asks the
//! upstream, a distribution point its own sources. Nothing of it is sent before it is there, checked and
//! stored. All who ask for the same file wait for one transfer, which goes on when they are gone, so that a
//! client that tries again finds it further on its way, or here.

use crate::problem::Problem;
use crate::server::Content;
use contentlib::ReadError;
use futures::future::BoxFuture;
use http::StatusCode;
use packager::manifest::FileEntry;
use packager::on_demand::{OnDemand, Waiting};
use packager::{PackageError, PackageName, VersionInfo};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

/// How many files are brought at once.
const AT_ONCE: usize = 6;
/// How many may be on their way or wait for their turn.
const MOST: usize = 256;

/// A file that somebody asked for and that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The package.
    pub package: PackageName,
    /// The version's number.
    pub version: u64,
    /// Where it lies in it.
    pub path: Vec<u8>,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256, by which the library must hold it when it has come.
    pub sha256: [u8; 32],
    /// Where its upstream has it, if that is not at the same path.
    pub from: Option<String>,
}

/// Why a file did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotBrought {
    /// Whoever has it cannot give it now; it may later.
    #[error("{0}")]
    Away(String),
    /// Whoever should have it has something else, or refuses.
    #[error("{0}")]
    Upstream(String),
    /// Nobody has it.
    #[error("{0}")]
    Nowhere(String),
    /// It was revoked.
    #[error("{0}")]
    Revoked(String),
}

/// Brings a file into the library of this server, checked.
pub type Bring = Arc<dyn Fn(Demand) -> BoxFuture<'static, Result<(), NotBrought>> + Send + Sync>;

impl Demand {
    pub(crate) fn of(version: &VersionInfo, waiting: &Waiting<'_>) -> Self {
        Self {
            package: version.package.clone(),
            version: version.version,
            path: waiting.path.to_vec(),
            size: waiting.size,
            sha256: waiting.sha256,
            from: waiting.from.map(str::to_owned),
        }
    }
}

impl From<NotBrought> for Problem {
    fn from(error: NotBrought) -> Self {
        match error {
            NotBrought::Away(detail) => Self::unavailable(detail),
            NotBrought::Upstream(detail) => Self::new(StatusCode::BAD_GATEWAY, detail),
            NotBrought::Nowhere(detail) => Self::not_found(detail),
            NotBrought::Revoked(detail) => Self::new(StatusCode::GONE, detail),
        }
    }
}

/// The files on demand of a version; nothing if it has none. Blocks.
pub(crate) fn list(
    content: &Content,
    version: &VersionInfo,
) -> Result<Option<Arc<OnDemand>>, Problem> {
    match content.packages.on_demand(version.manifest) {
        // Somebody packed a file of that name.
        Err(error @ PackageError::OnDemand { .. }) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "no files on demand");
            Ok(None)
        }
        list => Ok(list?),
    }
}

/// The file, if it has come. Blocks.
pub(crate) fn held(content: &Content, waiting: &Waiting<'_>) -> Result<Option<FileEntry>, Problem> {
    let library = &content.library;
    let Some(digest) = library.resolve(&waiting.name())? else { return Ok(None) };
    match library.stat(digest) {
        Ok(stat) if !stat.suspect && stat.size == waiting.size => {
            Ok(Some(FileEntry { size: stat.size, digest, recipe: None }))
        }
        Ok(_) | Err(ReadError::Unknown(_) | ReadError::Suspect { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

type Ended = Option<Result<(), NotBrought>>;

/// The files that are on their way here.
pub(crate) struct Demands {
    bring: Bring,
    under_way: Mutex<HashMap<[u8; 32], watch::Receiver<Ended>>>,
    places: Arc<Semaphore>,
}

/// Takes a file off the list, however its transfer ends.
struct UnderWay(Arc<Demands>, [u8; 32]);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.lock().remove(&self.1);
    }
}

impl Demands {
    pub fn new(bring: Bring) -> Self {
        Self { bring, under_way: Mutex::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Waits until a file is there; has it brought on `runtime`, unless it is on its way.
    pub async fn wait(
        self: &Arc<Self>,
        demand: Demand,
        runtime: &Handle,
    ) -> Result<(), NotBrought> {
        let mut ended = self.begun(demand, runtime)?;
        // The transfer was dropped, which no transfer is, or it panicked.
        let failed =
            || NotBrought::Away("the transfer failed inside the server; see its log".into());
        let ended = ended.wait_for(Option::is_some).await.map_err(|_| failed())?;
        ended.clone().unwrap_or_else(|| Err(failed()))
    }

    fn begun(
        self: &Arc<Self>,
        demand: Demand,
        runtime: &Handle,
    ) -> Result<watch::Receiver<Ended>, NotBrought> {
        let mut under_way = self.under_way.lock();
        if let Some(ended) = under_way.get(&demand.sha256) {
            return Ok(ended.clone());
        }
        if under_way.len() >= MOST {
            let detail = format!("{MOST} files are on their way here already; try again later");
            return Err(NotBrought::Away(detail));
        }
        let (tell, ended) = watch::channel(None);
        under_way.insert(demand.sha256, ended.clone());
        let one = UnderWay(self.clone(), demand.sha256);
        runtime.spawn(async move {
            let _place = one.0.places.clone().acquire_owned().await;
            let path = packager::path::Shown(&demand.path).to_string();
            let (package, version) = (demand.package.clone(), demand.version);
            let came = (one.0.bring)(demand).await;
            match &came {
                Ok(()) => tracing::info!(%package, version, path, "came on demand"),
                Err(error) => tracing::warn!(%package, version, path, %error, "did not come"),
            }
            // Off the list first: who asks after a failure has it tried again.
            drop(one);
            tell.send_replace(Some(came));
        });
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::Notify;

    fn demand(of: u16) -> Demand {
        let mut sha256 = [0; 32];
        sha256[..2].copy_from_slice(&of.to_le_bytes());
        let package = "p".parse().unwrap();
        Demand { package, version: 2, path: b"x".to_vec(), size: 1, sha256, from: None }
    }

    /// Transfers that wait for a word, and how many began.
    fn held_up() -> (Arc<Demands>, Arc<AtomicUsize>, Arc<Notify>) {
        let (began, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let bring: Bring = {
            let (began, go) = (began.clone(), go.clone());
            Arc::new(move |demand| {
                began.fetch_add(1, SeqCst);
                let go = go.clone();
                Box::pin(async move {
                    go.notified().await;
                    match demand.sha256[0] {
                        0 => Ok(()),
                        _ => Err(NotBrought::Away("not now".into())),
                    }
                })
            })
        };
        (Arc::new(Demands::new(bring)), began, go)
    }

    #[tokio::test]
    async fn all_who_ask_for_a_file_wait_for_one_transfer() {
        let (demands, began, go) = held_up();
        let here = Handle::current();
        let waits = (0..20).map(|_| demands.wait(demand(0), &here));
        let all = futures::future::join_all(waits);
        tokio::pin!(all);
        // A client that leaves ends nothing.
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), &mut all).await;
        assert!(left.is_err());
        assert_eq!(began.load(SeqCst), 1);
        go.notify_one();
        assert!(all.await.iter().all(Result::is_ok));
        assert!(demands.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_and_the_next_request_tries_again() {
        let (demands, began, go) = held_up();
        let here = Handle::current();
        for n in 1..3 {
            go.notify_one();
            let failed = demands.wait(demand(1), &here).await;
            assert_eq!(failed, Err(NotBrought::Away("not now".into())));
            assert_eq!(began.load(SeqCst), n);
        }
    }

    #[tokio::test]
    async fn transfers_are_bounded_and_so_are_those_who_wait_for_their_turn() {
        let (demands, began, _go) = held_up();
        let here = Handle::current();
        let begun: Vec<_> = (0..MOST as u16).map(|n| demands.begun(demand(n), &here)).collect();
        assert!(begun.iter().all(Result::is_ok));
        tokio::task::yield_now().await;
        assert_eq!(began.load(SeqCst), AT_ONCE);
        let over = demands.wait(demand(MOST as u16), &here).await;
        assert!(matches!(over, Err(NotBrought::Away(_))), "{over:?}");
    }
}
