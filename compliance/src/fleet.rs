//! The clients: who they are, by which key they are known, and whether they may report.
//!
//! Each has an ordinal, a small number that names it in the bitmaps. Ordinals are dense; one becomes
//! free when its client was removed and no bitmap on disk names it any more.

pub(crate) mod facts;
pub(crate) mod index;
mod inventory;
mod packages;
pub(crate) mod registry;

pub use facts::{Facts, FactsChange, FactsError, MAX_FACTS, MAX_FACTS_SENT};
pub use index::{Index, Property};
pub use inventory::Installed;
pub use packages::{
    BadPackages, MAX_PACKAGES, MAX_WORD, Package, PackageKind, Packages, PackagesChange,
};
pub use registry::{EnrolError, Enrolment};

use crate::head::{Place, Seconds};
use crate::matrix::Ordinal;
use crate::message::{ClientId, Incarnation};
use jiff::Timestamp;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::DbError;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// SHA-256 of a client's certificate or key: what the connection proved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Whether a client may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It asked to be enrolled, and waits for somebody's yes.
    Pending,
    /// It may.
    Approved,
    /// It was shut out. What it reported before stays until it is removed.
    Blocked,
}

/// A client, as `client show` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its place in collections and bitmaps.
    pub ordinal: Ordinal,
    /// Its own id.
    pub id: ClientId,
    /// The key that it is known by; none if it is known only through a child site.
    pub key: Option<Fingerprint>,
    /// What people call it.
    pub name: String,
    /// Whether it may report.
    pub standing: Standing,
    /// The child site that it last reported to; none if that was this site.
    pub site: Option<String>,
    /// When it became known here.
    pub enrolled: Timestamp,
    /// When it was last heard: of a report, its facts, or the question what it is to do.
    pub heard: Option<Timestamp>,
    /// The life of its store.
    pub incarnation: Option<Incarnation>,
    /// How often a superseded life came back: above 0, two machines share one identity.
    pub returns: u16,
    /// By how many seconds its clock was ahead when it last reported.
    pub clock_ahead: i32,
    /// When a scan last ended, and how it failed if it did.
    pub scanned: Option<(Timestamp, Option<u32>)>,
    /// How many states of it are held.
    pub known: u32,
    /// Why it is asked for its full state, if it is.
    pub resync: Option<crate::message::Resync>,
}

/// What is looked up of a client at each batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub id: ClientId,
    pub key: Option<Fingerprint>,
    pub standing: Standing,
    /// The number of the child site that it last reported to.
    pub site: Option<u16>,
    pub enrolled: Seconds,
}

/// All clients, in memory.
#[derive(Default)]
pub(crate) struct Fleet {
    members: Vec<Option<Member>>,
    by_id: HashMap<ClientId, Ordinal>,
    by_key: HashMap<Fingerprint, Ordinal>,
    all: RoaringBitmap,
    free: BTreeSet<Ordinal>,
    /// Ordinals of removed clients, with the place of the removal.
    leaving: Vec<(Ordinal, Place)>,
}

const PREFIX: &[u8] = b"compliance-member\0";
const VERSION: u8 = 1;

impl Member {
    pub(crate) fn key(client: Ordinal) -> Vec<u8> {
        [PREFIX, &client.to_be_bytes()].concat()
    }

    /// The keys of all members.
    pub(crate) fn range() -> sitedb::Range {
        sitedb::Range::prefix(PREFIX)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a vector takes all bytes")
    }

    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<(Ordinal, Self), DbError> {
        let damaged = |detail: &str| DbError::Damaged {
            table: "compliance-member",
            detail: detail.to_owned(),
        };
        let ordinal = key.strip_prefix(PREFIX).and_then(|it| it.try_into().ok());
        let ordinal = ordinal.ok_or_else(|| damaged("a key has the wrong form"))?;
        match value {
            [VERSION, body @ ..] => {
                let member = postcard::from_bytes(body).map_err(|it| damaged(&it.to_string()))?;
                Ok((Ordinal::from_be_bytes(ordinal), member))
            }
            _ => Err(damaged("it is of another version")),
        }
    }
}

impl Fleet {
    pub(crate) fn by_key(&self, key: &Fingerprint) -> Option<(Ordinal, &Member)> {
        let ordinal = *self.by_key.get(key)?;
        Some((ordinal, self.get(ordinal)?))
    }

    pub(crate) fn by_id(&self, id: ClientId) -> Option<(Ordinal, &Member)> {
        let ordinal = *self.by_id.get(&id)?;
        Some((ordinal, self.get(ordinal)?))
    }

    pub(crate) fn get(&self, client: Ordinal) -> Option<&Member> {
        self.members.get(client as usize)?.as_ref()
    }

    /// Every client that was not removed.
    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The `n` ordinals that the next new clients get.
    pub(crate) fn next(&self, n: usize) -> Vec<Ordinal> {
        let after = self.members.len() as Ordinal..;
        self.free.iter().copied().chain(after).take(n).collect()
    }

    /// Puts a client in, or a changed one in its place.
    pub(crate) fn put(&mut self, client: Ordinal, member: Member) {
        self.take_out(client);
        self.by_id.insert(member.id, client);
        if let Some(key) = member.key {
            self.by_key.insert(key, client);
        }
        self.all.insert(client);
        self.members[client as usize] = Some(member);
    }

    /// Makes the place empty; it is not free.
    fn take_out(&mut self, client: Ordinal) {
        if self.members.len() <= client as usize {
            let from = self.members.len() as Ordinal;
            self.members.resize(client as usize + 1, None);
            self.free.extend(from..client);
        }
        self.free.remove(&client);
        let Some(member) = self.members[client as usize].take() else { return };
        self.by_id.remove(&member.id);
        if let Some(key) = member.key {
            self.by_key.remove(&key);
        }
        self.all.remove(client);
    }

    /// Forgets a client; its ordinal becomes free once a checkpoint covers `place`.
    pub(crate) fn remove(&mut self, client: Ordinal, place: Place) {
        self.take_out(client);
        self.leaving.push((client, place));
    }

    /// Frees the ordinals of clients that were removed at `place` or before.
    pub(crate) fn covered(&mut self, place: Place) {
        let (free, leaving) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|(_, removed)| *removed <= place);
        self.leaving = leaving;
        self.free.extend(Vec::into_iter(free).map(|(client, _)| client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn member(n: u8) -> Member {
        Member {
            id: ClientId(Uuid::from_u128(n.into())),
            key: Some(Fingerprint([n; 32])),
            standing: Standing::Approved,
            site: None,
            enrolled: 0,
        }
    }

    #[test]
    fn a_member_reads_back() {
        let (key, value) = (Member::key(7), member(3).encode());
        assert_eq!(Member::decode(&key, &value).unwrap(), (7, member(3)));
        assert!(Member::decode(&key, &[9, 9]).is_err());
    }

    #[test]
    fn an_ordinal_is_used_again_only_once_no_bitmap_names_it() {
        let mut fleet = Fleet::default();
        for n in 0..3 {
            assert_eq!(fleet.next(1), [u32::from(n)]);
            fleet.put(n.into(), member(n));
        }
        fleet.remove(1, 50);
        assert!(fleet.by_key(&Fingerprint([1; 32])).is_none());
        assert_eq!(fleet.all().iter().collect::<Vec<_>>(), [0, 2]);
        fleet.covered(49);
        assert_eq!(fleet.next(2), [3, 4]);
        fleet.covered(50);
        assert_eq!(fleet.next(2), [1, 3]);
    }

    #[test]
    fn a_changed_key_is_the_only_one() {
        let mut fleet = Fleet::default();
        fleet.put(0, member(1));
        fleet.put(0, Member { key: Some(Fingerprint([9; 32])), ..member(1) });
        assert!(fleet.by_key(&Fingerprint([1; 32])).is_none());
        assert_eq!(fleet.by_key(&Fingerprint([9; 32])).unwrap().0, 0);
        assert_eq!(fleet.by_id(member(1).id).unwrap().0, 0);
    }
}
