//! Where a point brings content from: the points that are set for it, and then the site.
//!
//! What became of earlier requests to each is remembered for as long as they are the same.

use super::Node;
use super::link::{Link, LinkError};
use crate::field::Source;
use crate::pace::Line;
use crate::remote::Client;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The clients that were made last, and of what.
#[derive(Default)]
pub(super) struct Upstream(Mutex<Option<Made>>);

struct Made {
    /// Another one once the point has another certificate.
    link: Arc<Link>,
    sources: Vec<Source>,
    /// By slot.
    clients: HashMap<usize, (Line, Client)>,
}

impl Upstream {
    /// A client of all that the point brings from now. Each `slot` has connections of its own, of that
    /// kind.
    pub fn now(&self, node: &Node, slot: usize, line: Line) -> Result<Client, LinkError> {
        let wish = node.wish.borrow().clone();
        let sources = wish.map(|wish| wish.settings.sources.clone()).unwrap_or_default();
        let link = node.link();
        let mut made = self.0.lock();
        let is_same = |made: &Made| Arc::ptr_eq(&made.link, &link) && made.sources == sources;
        if !made.as_ref().is_some_and(is_same) {
            *made = Some(Made { link: link.clone(), sources, clients: HashMap::new() });
        }
        let Made { sources, clients, .. } = made.as_mut().expect("was just made");
        if let Some((like, client)) = clients.get(&slot)
            && *like == line
        {
            return Ok(client.clone());
        }
        let servers = link.servers(sources, slot, line)?;
        let client = match clients.values().next() {
            Some((_, other)) => other.over_others(servers),
            None => Client::of(servers),
        };
        clients.insert(slot, (line, client.clone()));
        Ok(client)
    }
}
