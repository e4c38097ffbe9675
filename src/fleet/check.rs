//! Whether the site has the truth: its states, read page by page, against the world's.

use super::world::World;
use crate::exit::Failure;
use crate::transport::{Client, Request};
use ::compliance::forward::Page;
use ::compliance::message::{State, UpdateRevision};
use http::Method;
use std::collections::HashMap;

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    /// How many clients the site has exactly the states of.
    pub equal: u32,
    /// How many not.
    pub different: u32,
    /// What is wrong with one of those.
    pub first: Option<String>,
}

/// Compares what the site has of machines that made these scans with what is true.
pub async fn compare(
    client: &Client,
    world: &World,
    scans: &[Option<u64>],
) -> Result<Compared, Failure> {
    let machines: HashMap<_, u32> = (0..).zip(scans).map(|(n, _)| (world.client(n), n)).collect();
    let updates: HashMap<UpdateRevision, u32> =
        (0..world.updates).map(|n| (world.update(n), n)).collect();
    let mut waiting = vec![true; scans.len()];
    let (mut compared, mut place) = (Compared::default(), 0);
    loop {
        let at = format!("/api/v1/compliance/states?after={place}");
        let bytes = client.send(Request::at(Method::GET, at)).await?.collect().await?;
        let page = Page::decode(&bytes).map_err(|error| Failure::failed(error.to_string()))?;
        for (id, told) in page.states() {
            let Some(machine) = machines.get(&id).copied() else { continue };
            let wrong = wrong(world, (machine, scans[machine as usize]), &updates, told);
            // A client that is told twice changed while the pages were read.
            if std::mem::take(&mut waiting[machine as usize]) {
                compared.note(wrong);
            }
        }
        if page.is_last {
            break;
        }
        place = page.next;
    }
    for machine in (0..).zip(waiting).filter(|(_, waits)| *waits).map(|(machine, _)| machine) {
        let id = world.client(machine);
        compared.note(Some(format!("the site does not have client {id}")));
    }
    Ok(compared)
}

impl Compared {
    fn note(&mut self, wrong: Option<String>) {
        match wrong {
            None => self.equal += 1,
            Some(wrong) => {
                self.different += 1;
                self.first.get_or_insert(wrong);
            }
        }
    }
}

/// What is wrong with what is told of a machine.
fn wrong(
    world: &World,
    (machine, scan): (u32, Option<u64>),
    updates: &HashMap<UpdateRevision, u32>,
    told: impl Iterator<Item = (UpdateRevision, State)>,
) -> Option<String> {
    let mut states = vec![State::Unknown; updates.len()];
    let id = world.client(machine);
    for (update, state) in told {
        let Some(n) = updates.get(&update) else {
            return Some(format!(
                "client {id} has a state of {:?}, which is none of its",
                update.id
            ));
        };
        states[*n as usize] = state;
    }
    let truth = (0..).map(|n| world.state(machine, n, scan));
    let mut both = (0..).zip(states).zip(truth);
    let ((n, told), truth): ((u32, State), State) =
        both.find(|((_, told), truth)| told != truth)?;
    let update = world.update(n).id;
    Some(format!("client {id} has {update} {truth:?}, and the site {told:?}"))
}
