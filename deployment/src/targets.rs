//! What each client is told of deployments: a picture of all of them, and what changed from one to the next.
//!
//! A picture never changes. Who is told something is worked out from it by looking into bitmaps, and whom a newer one
//! concerns by comparing bitmaps; so neither reads anything, whatever the number of clients.

use crate::name::CollectionName;
use crate::policy::{DeploymentId, DeploymentPolicy};
use crate::window::Window;
use compliance::Ordinal;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Deployments that one client is told of, at most; of more, those come first whose ids do.
pub const MAX_TOLD: usize = 1_000;
/// Maintenance windows that one client is told of, at most.
pub const MAX_WINDOWS: usize = 1_000;

/// Clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Clients {
    /// All there are, whenever they come.
    All,
    /// These.
    These(Arc<RoaringBitmap>),
}

impl Default for Clients {
    fn default() -> Self {
        Self::These(Arc::default())
    }
}

impl Clients {
    /// Whether a client is one of them.
    pub fn has(&self, client: Ordinal) -> bool {
        match self {
            Self::All => true,
            Self::These(clients) => clients.contains(client),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(clients) if clients.is_empty())
    }

    fn and(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::These(mine), Self::These(others)) => *Arc::make_mut(mine) |= &*others,
        }
    }

    /// Those that are in one of both and not in the other.
    fn unlike(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, Self::All) => Self::default(),
            (Self::These(one), Self::These(two)) if Arc::ptr_eq(one, two) => Self::default(),
            (Self::These(one), Self::These(two)) => Self::These(Arc::new(&**one ^ &**two)),
            _ => Self::All,
        }
    }
}

/// A deployment, and whom it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What they are told.
    pub policy: Arc<DeploymentPolicy>,
    /// Who.
    pub clients: Clients,
}

/// Maintenance windows, and whose they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Serviced {
    /// Whose.
    pub clients: Arc<RoaringBitmap>,
    /// When they may be changed.
    pub windows: Arc<[Window]>,
}

/// What all clients are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Of deployments.
    pub targets: BTreeMap<DeploymentId, Target>,
    /// Of the windows of collections that have any.
    pub windows: BTreeMap<CollectionName, Serviced>,
}

/// What one client is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What is deployed to it, in the order of the ids.
    pub deployments: Vec<DeploymentPolicy>,
    /// When it may be changed.
    pub windows: Vec<Window>,
}

impl Picture {
    /// What a client is told.
    pub fn of(&self, client: Ordinal) -> Told {
        let deployments = self.targets_of(client).take(MAX_TOLD);
        let windows = self.windows.values().filter(|it| it.clients.contains(client));
        Told {
            deployments: deployments.map(|it| (*it.policy).clone()).collect(),
            windows: windows.flat_map(|it| it.windows.iter().cloned()).take(MAX_WINDOWS).collect(),
        }
    }

    /// What is deployed to a client.
    pub fn targets_of(&self, client: Ordinal) -> impl Iterator<Item = &Target> {
        self.targets.values().filter(move |it| it.clients.has(client))
    }

    /// Who is told something else by `self` than by `before`.
    pub fn concerned(&self, before: &Self) -> Clients {
        let mut found = Clients::default();
        let ids: BTreeSet<_> = self.targets.keys().chain(before.targets.keys()).collect();
        for id in ids {
            match (self.targets.get(id), before.targets.get(id)) {
                (Some(new), Some(old)) if new.policy == old.policy => {
                    found.and(new.clients.unlike(&old.clients));
                }
                (new, old) => [new, old]
                    .into_iter()
                    .flatten()
                    .for_each(|target| found.and(target.clients.clone())),
            }
        }
        let names: BTreeSet<_> = self.windows.keys().chain(before.windows.keys()).collect();
        for name in names {
            let clients = |it: &Serviced| Clients::These(Arc::clone(&it.clients));
            match (self.windows.get(name), before.windows.get(name)) {
                (Some(new), Some(old)) if new.windows == old.windows => {
                    found.and(clients(new).unlike(&clients(old)));
                }
                (new, old) => {
                    [new, old].into_iter().flatten().for_each(|it| found.and(clients(it)));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Experience, When};
    use jiff::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn policy(n: u128, updates: u8) -> Arc<DeploymentPolicy> {
        Arc::new(DeploymentPolicy {
            id: DeploymentId(Uuid::from_u128(n)),
            name: format!("d{n}"),
            available: When::Utc(Timestamp::UNIX_EPOCH),
            deadline: None,
            experience: Experience::default(),
            updates: format!("{updates:064x}"),
            updates_size: 2,
        })
    }

    fn window(minutes: u16) -> Arc<[Window]> {
        let start = "2026-01-01T01:00".parse().unwrap();
        let every = "daily".parse().unwrap();
        [Window::new(start, minutes, crate::window::Clock::Utc, every).unwrap()].into()
    }

    /// Pictures over eight clients.
    fn picture() -> impl Strategy<Value = Picture> {
        let clients = prop_oneof![
            Just(Clients::All),
            any::<u8>().prop_map(|bits| {
                let set = (0..8).filter(|n| bits >> n & 1 == 1);
                Clients::These(Arc::new(set.collect()))
            })
        ];
        let targets = prop::collection::btree_map(0..4_u128, (0..3_u8, clients), 0..4);
        let windows = prop::collection::btree_map("[ab]", (5..7_u16, any::<u8>()), 0..3);
        (targets, windows).prop_map(|(targets, windows)| Picture {
            targets: targets
                .into_iter()
                .map(|(n, (updates, clients))| {
                    let policy = policy(n, updates);
                    (policy.id, Target { policy, clients })
                })
                .collect(),
            windows: windows
                .into_iter()
                .map(|(name, (minutes, bits))| {
                    let clients = (0..8).filter(|n| bits >> n & 1 == 1).collect();
                    let it = Serviced { clients: Arc::new(clients), windows: window(minutes) };
                    (name.parse().unwrap(), it)
                })
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn nobody_is_told_another_thing_whom_it_does_not_concern(
            before in picture(), after in picture(),
        ) {
            let concerned = after.concerned(&before);
            for client in 0..8 {
                let is_same = before.of(client) == after.of(client);
                prop_assert!(is_same || concerned.has(client), "{client}");
            }
            prop_assert!(before.concerned(&before).is_empty());
        }
    }

    #[test]
    fn who_comes_into_a_collection_is_concerned_alone() {
        let these = |ids: &[u32]| Clients::These(Arc::new(ids.iter().copied().collect()));
        let with = |clients| {
            let target = Target { policy: policy(1, 1), clients };
            Picture { targets: [(target.policy.id, target)].into(), ..Picture::default() }
        };
        let concerned = with(these(&[1, 2, 3])).concerned(&with(these(&[1, 2])));
        assert_eq!(concerned, these(&[3]));
        assert_eq!(with(Clients::All).of(9).deployments.len(), 1);
    }
}
