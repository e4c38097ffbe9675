//! The place of a site in a tree of sites, and its update points.
//!
//! A site that joined a parent takes its catalogue from it; [`parent`] is who that is, [`follow`] how it is
//! listened to, `upstream` how its feed is read, [`forward`] how it is told what clients report. The other side, telling those who follow this one, is
//! [`tell`]. The same holds between a site and its other update points, which are sites of a kind that has
//! neither sources nor children.

pub mod follow;
pub mod forward;
pub mod parent;
pub mod tell;
mod upstream;

pub use parent::{Joining, Parent, Via};
pub use upstream::RemoteFeed;

use crate::problem::{Kind, Problem};
use crate::site::Site;
use dp::field::{FollowerId, FollowerKind};
use serde::{Deserialize, Serialize};
use sync::hierarchy::Above;

/// What is asked of followers, as it travels: where they stand, and where they are to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Differs where anything else does.
    pub revision: String,
    /// The number of the request to synchronise; 0: there was none yet.
    pub asked: u64,
    /// The update point to read from; without it, this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The update points of the site, which may read from each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<FollowerId>,
}

/// What kind of site this is: the top of its tree, if it has no parent.
pub fn kind(site: &Site) -> Result<Option<FollowerKind>, Problem> {
    Ok(site.parent()?.map(|parent| parent.kind()))
}

/// Refuses a follower of a kind that this site may not have.
pub fn may_have(site: &Site, wanted: FollowerKind) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(Kind::Conflict, detail));
    match (kind(site)?, wanted) {
        (Some(FollowerKind::UpdatePoint), _) => {
            refused("this is an update point of a site: make the token at its site")
        }
        (Some(FollowerKind::Secondary), FollowerKind::Primary | FollowerKind::Secondary) => {
            refused("this is a secondary site, which has no child sites: join its parent")
        }
        (Some(FollowerKind::Primary), FollowerKind::Primary) => {
            refused("the child sites of a primary site are secondary ones: --kind secondary")
        }
        _ => Ok(()),
    }
}

/// Whether `id` may read this site's feed.
pub fn lets_in(site: &Site, id: &FollowerId) -> Result<bool, Problem> {
    if site.ledger()?.registry.knows_follower(id) {
        return Ok(true);
    }
    Ok(site.parent()?.is_some_and(|parent| parent.is_peer(id)))
}

/// What is set at the top of the tree, as this site knows it.
pub fn above(site: &Site) -> Result<Above, Problem> {
    let settings = site.updates()?.sources().site()?;
    let top = settings.top.unwrap_or_else(|| own_addresses(site).remove(0));
    let clients = crate::fleet::settings::for_all(site)?.set;
    let clients = serde_json::to_value(&*clients).map_err(|error| Problem::internal(&error))?;
    let (criteria, policy) = (settings.criteria, settings.policy);
    Ok(Above { top, criteria, policy, clients: Some(clients) })
}

/// Where others reach this site, as far as it knows: at least one address.
pub fn own_addresses(site: &Site) -> Vec<String> {
    let set = site.config().site.url.to_texts();
    if set.is_empty() { vec![format!("https://{}", site.address())] } else { set }
}
