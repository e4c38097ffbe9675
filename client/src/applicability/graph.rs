//! What updates say of each other: prerequisites and parts of bundles, whatever their depth.
//!
//! Updates that an update speaks of are judged before it, each once. Catalogues are written by others, so
//! updates may require each other in a circle; each of a circle is unknown, wherever one begins. The circles
//! are the strongly connected components of the graph (Tarjan, 1972), found without recursion.

use super::{Assessor, Truths};
use std::collections::HashMap;
use std::sync::Arc;
use sync::name::UpdateId;
use sync::update::Update;

/// What is known of an update that others speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// This.
    Known(Truths),
    /// There is none of that id.
    Missing,
    /// It requires, by others or at once, itself.
    InCircle,
}

/// An update whose links are being followed.
struct Open {
    id: UpdateId,
    update: Arc<Update>,
    links: Vec<UpdateId>,
    /// How many of its links were followed.
    at: usize,
    order: usize,
    /// The lowest order of what can be reached from it.
    low: usize,
}

/// Sees to it that everything `root` speaks of is judged.
pub(super) fn settle(assessor: &mut Assessor<'_>, root: &Update) {
    for id in links(root) {
        if id == root.id {
            assessor.known.insert(id, Standing::InCircle);
        } else if !assessor.known.contains_key(&id) {
            follow(assessor, id);
        }
    }
}

fn links(update: &Update) -> Vec<UpdateId> {
    let groups = update.prerequisites.iter().chain(&update.bundles);
    groups.flat_map(|group| group.ids.iter().copied()).collect()
}

fn follow(assessor: &mut Assessor<'_>, first: UpdateId) {
    // Those whose component is not closed, in the order in which they were met, and where each stands.
    let mut waiting: Vec<Arc<Update>> = Vec::new();
    let mut orders: HashMap<UpdateId, usize> = HashMap::new();
    let mut path: Vec<Open> = Vec::new();
    let mut next = Some(first);
    loop {
        if let Some(id) = next.take() {
            match assessor.catalogue.update(id) {
                None => drop(assessor.known.insert(id, Standing::Missing)),
                Some(update) => {
                    let order = waiting.len();
                    orders.insert(id, order);
                    waiting.push(update.clone());
                    let links = links(&update);
                    path.push(Open { id, update, links, at: 0, order, low: order });
                }
            }
        }
        let Some(open) = path.last_mut() else { return };
        if let Some(link) = open.links.get(open.at).copied() {
            open.at += 1;
            match orders.get(&link) {
                Some(order) => open.low = open.low.min(*order),
                None if assessor.known.contains_key(&link) => {}
                None => next = Some(link),
            }
            continue;
        }
        let Some(Open { id, update, links, order, low, .. }) = path.pop() else { return };
        if let Some(before) = path.last_mut() {
            before.low = before.low.min(low);
        }
        if low < order {
            continue;
        }
        // It closes a component: itself, and those that were met after it and still wait.
        let members = waiting.split_off(order);
        for member in &members {
            orders.remove(&member.id);
        }
        if members.len() > 1 || links.contains(&id) {
            let circle = members.iter().map(|member| (member.id, Standing::InCircle));
            assessor.known.extend(circle);
        } else {
            let truths = assessor.truths_of(&update);
            assessor.known.insert(id, Standing::Known(truths));
        }
    }
}
