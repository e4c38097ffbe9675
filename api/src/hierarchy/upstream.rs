//! The feed of a parent, over the connection that its authority vouches for.

use super::Parent;
use dp::node::LinkError;
use futures::future::BoxFuture;
use std::sync::Arc;
use sync::catalogue::Place;
use sync::error::{Cause, SyncError};
use sync::hierarchy::{MAX_SENT, Upstream};

/// The feed of whom this site follows.
pub struct RemoteFeed(pub Arc<Parent>);

impl Upstream for RemoteFeed {
    fn page(&self, from: Place) -> BoxFuture<'_, Result<Vec<u8>, SyncError>> {
        Box::pin(async move {
            let link = self.0.feed().map_err(of_link)?;
            let path = format!("api/v1/follower/feed?since={}&after={}", from.since, from.after);
            let page = link.get(&path, MAX_SENT).await.map_err(of_link)?;
            page.ok_or_else(|| {
                SyncError::new(Cause::Malformed, "the parent answered without a page")
            })
        })
    }
}

/// What a question that came to nothing is to a sync.
fn of_link(error: LinkError) -> SyncError {
    let cause = match &error {
        LinkError::Distrust { .. } | LinkError::NotLetIn(_) => Cause::Refused,
        LinkError::Unreachable { .. } => Cause::Unreachable,
        LinkError::Late => Cause::Stalled,
        LinkError::Refused { status: 429 | 500.., .. } => Cause::Busy,
        LinkError::Refused { status: 404, .. } => Cause::NotFound,
        LinkError::Refused { .. } => Cause::Refused,
        LinkError::Malformed(_) => Cause::Malformed,
        _ => Cause::Misconfigured,
    };
    SyncError::because(cause, "the parent could not be asked", error)
}
