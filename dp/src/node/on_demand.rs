//! Files on demand at a point: one that a client asks for first is brought from the point's sources, or
//! its site, which have it from the upstream.
//!
//! It comes by its path in the version and is checked by the SHA-256 that the version's signed list states, so
//! it does not matter whose bytes they are. It counts against the point's limit, ahead of what is brought
//! beforehand: somebody waits. A file that was cut off is gone on with by the next who asks.

use super::schedule::schedule;
use super::work::SLOTS;
use super::{Node, blocking};
use crate::field::Priority;
use crate::on_demand::{Bring, Demand, NotBrought};
use crate::pace::Line;
use crate::remote::RemoteError;
use crate::target::encode;
use contentlib::{AddError, AddOptions, Aliases, Name, Progress};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

/// Brings files for the point that it is given.
#[derive(Default)]
pub(super) struct Bringer(OnceLock<Weak<Node>>);

impl Bringer {
    /// From now on there is a point to bring them for.
    pub fn begin(&self, node: &Arc<Node>) {
        self.0.get_or_init(|| Arc::downgrade(node));
    }

    /// As the server takes it.
    pub fn bring(self: Arc<Self>) -> Bring {
        Arc::new(move |demand| {
            let node = self.0.get().and_then(Weak::upgrade);
            Box::pin(async move {
                let Some(node) = node else {
                    return Err(NotBrought::Away("the distribution point is starting".into()));
                };
                bring(&node, demand).await
            })
        })
    }
}

async fn bring(node: &Node, demand: Demand) -> Result<(), NotBrought> {
    let away = |error: &dyn std::error::Error| {
        NotBrought::Away(format!("it cannot be brought here now: {}", super::tasks::chain(error)))
    };
    let wish = node.wish.borrow().clone();
    let limit = match &wish {
        Some(wish) => schedule(&wish.settings, (node.clock)()).limit,
        None => None,
    };
    let line = Line::of(limit, SLOTS);
    let lane = node.gate.open(Priority::High, line);
    let client = node.upstream.now(node, SLOTS, line).map_err(|error| away(&error))?;
    let client = client.through(lane);

    let folder = node.home.cache_folder().join("on-demand");
    let name = Name::Sha256(demand.sha256);
    let to = folder.join(name.to_string().replace(':', "-"));
    tokio::fs::create_dir_all(&folder).await.map_err(|error| away(&error))?;
    let path = format!("packages/{}/{}/{}", demand.package, demand.version, encode(&demand.path));
    client.save(&path, demand.size, &to).await.map_err(|error| not_brought(&error))?;
    let packages = node.packages.clone();
    let added = {
        let to = to.clone();
        blocking(move || add(packages.library(), &to, name)).await
    };
    // In the library, or not what it should be: it is not gone on with.
    let _ = tokio::fs::remove_file(&to).await;
    added
}

/// Adds the file at `path` to the library, if it is what `name` says.
fn add(library: &contentlib::Library, path: &Path, name: Name) -> Result<(), NotBrought> {
    let away = |error: &dyn std::error::Error| {
        NotBrought::Away(format!("it cannot be stored: {}", super::tasks::chain(error)))
    };
    let file = std::fs::File::open(path).map_err(|error| away(&error))?;
    let session = library.session();
    let aliases = Aliases { sha256: true, sha1: false };
    let options = AddOptions { aliases, expect: Some(name) };
    match session.add_reader(file, &options, &Progress::default()) {
        Ok(_) => session.commit(Vec::new()).map_err(|error| away(&error)),
        Err(error @ AddError::WrongDigest { .. }) => {
            Err(NotBrought::Upstream(format!("what came is not the file: {error}")))
        }
        Err(error @ AddError::Revoked(_)) => Err(NotBrought::Revoked(error.to_string())),
        Err(error) => Err(away(&error)),
    }
}

fn not_brought(error: &RemoteError) -> NotBrought {
    let detail = super::tasks::chain(error);
    match error {
        RemoteError::Refused { status: 404, .. } => NotBrought::Nowhere(detail),
        RemoteError::Refused { status: 410, .. } => NotBrought::Revoked(detail),
        RemoteError::Refused { status: 502, .. } | RemoteError::Malformed { .. } => {
            NotBrought::Upstream(detail)
        }
        _ => NotBrought::Away(detail),
    }
}
