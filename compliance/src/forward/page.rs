//! A page as bytes. PROTOCOL.md has the form.

use super::facts::{Listed, ToldFacts, check_list};
use crate::fleet::{Facts, Member, PackagesChange, Standing};
use crate::head::{Head, Place, Seconds};
use crate::message::wire::{Body, pack, pack_states, unpack, unpack_states};
use crate::message::{ClientId, Malformed, State, UpdateRevision};
use serde::{Deserialize, Serialize};
use sync::name::UpdateId;

/// Clients of one page, and removals.
pub(super) const MAX_CLIENTS: usize = 256;
/// Updates that one page may name.
const MAX_UPDATES: usize = 500_000;
/// The largest page as it travels, in bytes.
pub const MAX_PAGE: usize = 32 << 20;
/// The largest page unpacked, in bytes.
const MAX_UNPACKED: usize = 40 << 20;
/// 2: with facts.
const VERSION: u8 = 2;

/// What changed at a site between two places. See [`crate::forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The store that the places are of: a site that lost its database has another one.
    pub store: u64,
    /// What changed after this place is told.
    pub from: Place,
    /// All that changed up to this place is.
    pub next: Place,
    /// Whether there was no more when it was made.
    pub is_last: bool,
    /// The updates that the states are of.
    pub(crate) updates: Vec<UpdateRevision>,
    /// The packages that are on them, where their facts are told.
    pub(crate) packages: Vec<Listed>,
    /// The clients that changed.
    pub(crate) clients: Vec<Told>,
    /// The clients that were removed.
    pub(crate) removed: Vec<ClientId>,
}

/// What is told of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub id: ClientId,
    pub name: String,
    pub standing: Standing,
    pub enrolled: Seconds,
    pub head: Head,
    /// One state for each update of the page, four a byte.
    states: Vec<u8>,
    /// Its facts, where they changed, too.
    pub facts: Option<ToldFacts>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    store: u64,
    from: Place,
    next: Place,
    is_last: bool,
    updates: Vec<(UpdateId, u32)>,
    packages: Vec<Listed>,
    clients: Vec<Told>,
    removed: Vec<ClientId>,
}

impl Told {
    pub(super) fn new(member: &Member, head: Head, states: impl Iterator<Item = State>) -> Self {
        Self {
            id: member.id,
            name: String::new(),
            standing: member.standing,
            enrolled: member.enrolled,
            head,
            states: pack_states(states),
            facts: None,
        }
    }

    /// Its state for each update of the page; some more, unknown, at the end.
    pub(crate) fn states(&self) -> impl Iterator<Item = State> {
        unpack_states(&self.states)
    }
}

impl Page {
    /// The clients that it tells of, each with all its states that are known.
    pub fn states(
        &self,
    ) -> impl Iterator<Item = (ClientId, impl Iterator<Item = (UpdateRevision, State)>)> {
        self.clients.iter().map(|told| {
            let states = self.updates.iter().copied().zip(told.states());
            (told.id, states.filter(|(_, state)| *state != State::Unknown))
        })
    }

    /// The clients whose facts it tells, each with all of them, and with its packages if it told of any.
    pub fn facts(&self) -> impl Iterator<Item = (ClientId, Facts, Option<PackagesChange>)> {
        self.clients.iter().filter_map(|told| {
            let (facts, packages) = told.facts.as_ref()?.read(&self.packages);
            Some((told.id, facts, packages))
        })
    }

    /// How many clients it tells of.
    pub fn n_clients(&self) -> usize {
        self.clients.len()
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// If it is beyond the limits, which no page is that [`crate::Compliance::page`] makes.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let wire = Wire {
            store: self.store,
            from: self.from,
            next: self.next,
            is_last: self.is_last,
            updates: self.updates.iter().map(|it| (it.id, it.revision)).collect(),
            packages: self.packages.clone(),
            clients: self.clients.clone(),
            removed: self.removed.clone(),
        };
        wire.check()?;
        pack(VERSION, &wire, MAX_UNPACKED, MAX_PAGE)
    }

    /// Reads what [`Page::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no page, or one beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let body: Body<'_> = unpack(VERSION, bytes, MAX_UNPACKED, MAX_PAGE)?;
        let (wire, rest): (Wire, _) = postcard::take_from_bytes(&body)
            .map_err(|_| Malformed::Form("it is cut or mixed up"))?;
        if !rest.is_empty() {
            return Err(Malformed::Form("bytes follow its end"));
        }
        wire.check()?;
        let updates =
            wire.updates.into_iter().map(|(id, revision)| UpdateRevision { id, revision });
        Ok(Self {
            store: wire.store,
            from: wire.from,
            next: wire.next,
            is_last: wire.is_last,
            updates: updates.collect(),
            packages: wire.packages,
            clients: wire.clients,
            removed: wire.removed,
        })
    }
}

impl Wire {
    fn check(&self) -> Result<(), Malformed> {
        let n = self.updates.len();
        if n > MAX_UPDATES || self.clients.len().max(self.removed.len()) > MAX_CLIENTS {
            return Err(Malformed::Form("it tells of more than is taken"));
        }
        let is_whole = |told: &Told| {
            let states = &told.states;
            states.len() == n.div_ceil(4)
                && unpack_states(states).skip(n).all(|state| state == State::Unknown)
        };
        if !self.clients.iter().all(is_whole) {
            return Err(Malformed::Form("its columns differ in length"));
        }
        let mut ids: Vec<_> = self.clients.iter().map(|told| told.id).collect();
        ids.sort_unstable();
        let mut updates: Vec<_> = self.updates.iter().collect();
        updates.sort_unstable();
        if ids.windows(2).any(|two| two[0] == two[1])
            || updates.windows(2).any(|two| two[0] == two[1])
        {
            return Err(Malformed::Form("a client or an update is named twice"));
        }
        check_list(&self.packages)?;
        let mut facts = self.clients.iter().filter_map(|told| told.facts.as_ref());
        facts.try_for_each(|facts| facts.check(&self.packages))?;
        if self.next < self.from || self.next == Place::MAX {
            return Err(Malformed::Form("it ends before it begins"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Package, PackageKind};
    use crate::forward::facts::Listing;
    use crate::message::wire::seal;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn facts(client: u128, listing: &mut Listing) -> ToldFacts {
        let facts =
            Facts { revision: 3, os: "debian".into(), packages: Some(2), ..Facts::default() };
        let package = |version: &str| vec![Package { version: version.into(), arch: "a".into() }];
        let changed = [("same".into(), package("1")), ("own".into(), package(&client.to_string()))];
        let change = PackagesChange {
            kind: PackageKind::Deb,
            changed: changed.into(),
            removed: Default::default(),
        };
        listing.told(facts, Some(change))
    }

    #[test]
    fn facts_read_back_and_packages_are_named_once() {
        let page = page(3, 5);
        assert_eq!(page.packages.len(), 4, "one that three clients have, and three of their own");
        let read = Page::decode(&page.encode().unwrap()).unwrap();
        let facts: Vec<_> = read.facts().collect();
        assert_eq!(facts.len(), 3);
        let (id, facts, packages) = &facts[1];
        assert_eq!((id.0.as_u128(), facts.os.as_str()), (2, "debian"));
        assert_eq!(packages.as_ref().unwrap().changed["own"][0].version, "2");
    }

    #[test]
    fn packages_that_are_not_listed_are_refused() {
        let mut beyond = page(3, 1);
        beyond.packages.clear();
        assert!(beyond.encode().is_err());
        let mut twice = page(3, 1);
        twice.packages.push(twice.packages[0].clone());
        assert!(twice.encode().is_err());
    }

    fn page(n_updates: u32, n_clients: u128) -> Page {
        let id = |n| UpdateId(Uuid::from_u128(u128::from(n)));
        let states = |client: u128| {
            (0..n_updates).map(move |n| State::from_code((u128::from(n) + client) as u8))
        };
        let mut listing = Listing::default();
        let told = |client| Told {
            id: ClientId(Uuid::from_u128(client)),
            name: format!("client-{client}"),
            standing: Standing::Approved,
            enrolled: 5,
            head: Head { next: 7, known: n_updates, ..Head::default() },
            states: pack_states(states(client)),
            facts: (client % 2 == 0).then(|| facts(client, &mut listing)),
        };
        let clients: Vec<Told> = (0..n_clients).map(told).collect();
        Page {
            store: 1,
            from: 2,
            next: 3,
            is_last: true,
            updates: (0..n_updates).map(|n| UpdateRevision { id: id(n), revision: 1 }).collect(),
            packages: listing.list(),
            clients,
            removed: vec![ClientId(Uuid::from_u128(99))],
        }
    }

    proptest! {
        #[test]
        fn damaged_pages_are_read_or_refused(
            n_updates in 0..20_u32,
            n_clients in 0..9_u128,
            hits in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6),
        ) {
            let page = page(n_updates, n_clients);
            let mut bytes = page.encode().unwrap();
            prop_assert_eq!(&Page::decode(&bytes).unwrap(), &page);
            for (place, byte) in hits {
                let at = place.index(bytes.len());
                bytes[at] ^= byte;
            }
            let _ = Page::decode(&bytes);
            seal(&mut bytes);
            if let Ok(read) = Page::decode(&bytes) {
                prop_assert_eq!(Page::decode(&read.encode().unwrap()), Ok(read));
            }
        }
    }

    #[test]
    fn what_is_told_twice_is_refused() {
        let mut twice = page(4, 2);
        twice.clients[1].id = twice.clients[0].id;
        assert!(twice.encode().is_err());
        let mut twice = page(4, 2);
        twice.updates[1] = twice.updates[0];
        assert!(twice.encode().is_err());
    }

    #[test]
    fn a_full_page_is_small() {
        let bytes = page(2_000, 256).encode().unwrap();
        assert!(bytes.len() < 256 * 500 + 2_000 * 20, "{}", bytes.len());
    }
}
