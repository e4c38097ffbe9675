//! Who is told after a sync: clients by policy, child sites, the site's other update points.

use crate::error::SyncError;
use futures::future::BoxFuture;

/// The rest of the site, as the sync machine sees it. Who has children, update points or clients
/// implements it.
///
/// All of it is about the catalogue at a place in the order of its changes, `seq`, and may be asked for
/// the same place again. None of it waits for long: what takes long is the other side's own work.
pub trait Notify: Send + Sync {
    /// Makes what changed visible beyond the catalogue, as the policy that leads clients to it.
    fn publish(&self, seq: u64) -> BoxFuture<'_, Result<(), SyncError>>;

    /// The child sites, by name.
    fn children(&self) -> Vec<String>;

    /// Asks a child site to synchronise.
    fn tell_child<'a>(&'a self, child: &'a str, seq: u64) -> BoxFuture<'a, Result<(), SyncError>>;

    /// The site's other update points, by name, in the order in which they follow.
    fn points(&self) -> Vec<String>;

    /// Has an update point follow, and waits until it has.
    fn replicate<'a>(&'a self, point: &'a str, seq: u64) -> BoxFuture<'a, Result<(), SyncError>>;
}

/// A site with no children and no other update points.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Notify for Alone {
    fn publish(&self, _: u64) -> BoxFuture<'_, Result<(), SyncError>> {
        Box::pin(async { Ok(()) })
    }
    fn children(&self) -> Vec<String> {
        Vec::new()
    }
    fn tell_child<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        Box::pin(async { Ok(()) })
    }
    fn points(&self) -> Vec<String> {
        Vec::new()
    }
    fn replicate<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), SyncError>> {
        Box::pin(async { Ok(()) })
    }
}
