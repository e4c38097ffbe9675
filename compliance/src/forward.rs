//! Forwarding: how a child site's view gets to its parent.
//!
//! The child is asked for what changed since a [`Place`]; it answers with a [`Page`]: each client that
//! changed, with its head and its full state. A client that changed often is told once, and a parent that
//! was away for a month is told what is, not what was. States are two bits each over a list of updates that
//! the page has once, so a full state of 2,000 updates is 500 bytes before compression. Facts are told whole, and
//! only where they changed after the page's beginning.
//!
//! The parent takes a page only if it begins where the last one ended, in the same commit that notes its
//! end: pages that are lost, come twice or too late change nothing. The end of a page with facts is noted
//! once these are on disk, too; cut off before that, the page comes once more, and changes nothing that it changed.
//!
//! A client that moved between sites belongs to the one it reported to last: its numbers tell which that is,
//! and where its store has another life, the time does.

mod facts;
mod page;

pub(crate) use page::Told;
pub use page::{MAX_PAGE, Page};

use crate::checkpoint::each;
use crate::fleet::{Member, registry};
use crate::head::{Head, Place, Seconds};
use crate::inbox::Entry;
use crate::matrix::{Ordinal, Plane};
use crate::message::{ClientId, Malformed};
use crate::site::{Change, Compliance, StoreError, Writer, timestamp};
use crate::state::States;
use facts::Listing;
use jiff::Timestamp;
use page::MAX_CLIENTS;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Db, DbError, Order, Range, Table, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Bytes of states in one page, about.
const PAGE_STATES: usize = 8 << 20;
/// Bytes of facts in one page, about; those of one client are told whatever they take.
const PAGE_FACTS: usize = 12 << 20;

const SITES: Table<u16, ChildSite> = Table::new("compliance-site");

/// What a parent knows of a child site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildSite {
    pub name: String,
    /// The store that its places are of.
    store: u64,
    /// How far it was heard.
    place: Place,
    /// When it last told something.
    pub heard: Seconds,
}
impl Value for ChildSite {}

impl ChildSite {
    pub(crate) fn load(db: &Db) -> Result<BTreeMap<u16, Self>, DbError> {
        Ok(SITES.scan(db, Order::Ascending, None, usize::MAX)?.into_iter().collect())
    }
}

/// A child site, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// When it last told something.
    pub heard: Timestamp,
    /// How far it was heard.
    pub place: Place,
    /// How many clients belong to it.
    pub clients: u64,
}

/// What a child is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum PageAnswer {
    /// The page is on the parent's disk: go on from `next`.
    Accepted {
        /// Where the next page begins.
        next: Place,
    },
    /// The parent is at another place: go on from `expected`.
    Elsewhere {
        /// Where the next page has to begin.
        expected: Place,
    },
}

/// Why a page was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It cannot be read.
    #[error("the page of site {site:?} cannot be read")]
    Malformed {
        /// Whose page it is.
        site: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// It names more different updates than the site keeps states of.
    #[error("site {site:?} tells of more updates than states are kept of")]
    TooManyUpdates {
        /// Whose page it is.
        site: String,
    },
    /// There are more child sites than numbers for them.
    #[error("no more child sites are taken")]
    TooManySites,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The removals of clients, by place: a parent has to hear of them.
pub(crate) struct Gone;

impl Gone {
    const PREFIX: &[u8] = b"compliance-gone\0";
    /// A parent that was away while more than this were removed keeps some of them, as silent clients.
    const MOST: usize = 100_000;

    pub(crate) fn put(batch: &mut Batch, place: Place, client: ClientId) {
        batch.put(Self::key(place), *client.0.as_bytes());
    }

    fn key(place: Place) -> Vec<u8> {
        [Self::PREFIX, &place.to_be_bytes()].concat()
    }

    /// At most `limit` removals after a place.
    fn since(db: &Db, from: Place, limit: usize) -> Result<Vec<(Place, ClientId)>, DbError> {
        let end = Range::prefix(Self::PREFIX).to;
        let range = Range { from: Self::key(from.saturating_add(1)), to: end };
        let found = db.kv().scan(&range, Order::Ascending, limit)?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let place = key.strip_prefix(Self::PREFIX)?.try_into().ok()?;
            let id = uuid::Uuid::from_slice(&value).ok()?;
            Some((Place::from_be_bytes(place), ClientId(id)))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Forgets the oldest removals if there are too many.
    pub(crate) fn forget(db: &Db) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        each(db, Range::prefix(Self::PREFIX), |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        let surplus = keys.len().saturating_sub(Self::MOST);
        let mut batch = Batch::relaxed();
        for key in keys.into_iter().take(surplus) {
            batch.delete(key);
        }
        db.kv().write(batch)?;
        Ok(())
    }
}

impl Compliance {
    /// The place of the last thing that the site was told.
    pub fn place(&self) -> Place {
        self.writer().next - 1
    }

    /// What changed after `from`, as far as one page reaches.
    ///
    /// # Errors
    /// If the database fails.
    pub fn page(&self, from: Place) -> Result<Page, StoreError> {
        let (last, store) = {
            let writer = self.writer();
            (writer.next - 1, writer.store)
        };
        let gone = Gone::since(self.db(), from, MAX_CLIENTS)?;
        let mut next = last.max(from);
        if gone.len() == MAX_CLIENTS
            && let Some((place, _)) = gone.last()
        {
            next = next.min(*place);
        }
        let (updates, mut clients, ordinals) = {
            let states = self.states();
            let clients = changed_since(&states, from, &mut next);
            let told: RoaringBitmap = clients.iter().copied().collect();
            let rows = states.matrix.rows().iter();
            let rows: Vec<_> =
                rows.filter(|row| !row.plane(Plane::Known).is_disjoint(&told)).collect();
            let n_clients = (PAGE_STATES / rows.len().div_ceil(4).max(1)).max(1);
            let clients = clients.get(..n_clients).map_or(clients.clone(), |fit| {
                next = fit.last().map_or(next, |last| states.head(*last).changed.min(next));
                fit.to_vec()
            });
            let of = |client: &Ordinal| {
                let member = states.fleet.get(*client)?;
                let of_rows = rows.iter().map(|row| row.state(*client));
                Some(Told::new(member, states.head(*client), of_rows))
            };
            let told: Vec<_> = clients.iter().filter_map(of).collect();
            (rows.iter().map(|row| row.update).collect(), told, clients)
        };
        let (mut listing, mut fit) = (Listing::default(), 0);
        for (told, client) in clients.iter_mut().zip(ordinals) {
            if listing.size >= PAGE_FACTS {
                break;
            }
            told.name = registry::name(self, client)?;
            if let Some(facts) = self.facts(client)?.filter(|it| from == 0 || it.changed > from) {
                let packages = self.all_packages(client)?;
                told.facts = Some(listing.told(facts, packages));
            }
            fit += 1;
        }
        if fit < clients.len() {
            clients.truncate(fit);
            next = clients.last().map_or(next, |last| last.head.changed.min(next));
        }
        let removed = gone.into_iter().filter(|(place, _)| *place <= next).map(|(_, id)| id);
        let is_last = next >= last;
        let (packages, removed) = (listing.list(), removed.collect());
        Ok(Page { store, from, next, is_last, updates, packages, clients, removed })
    }

    /// Takes a page of a child site, which the connection proved to be called `site`.
    ///
    /// # Errors
    /// If it cannot be read or is beyond the limits, or the database fails.
    pub fn accept_page(
        &self,
        site: &str,
        bytes: Vec<u8>,
        now: Timestamp,
    ) -> Result<PageAnswer, PageError> {
        let page = Page::decode(&bytes)
            .map_err(|source| PageError::Malformed { site: site.to_owned(), source })?;
        let mut writer = self.writer();
        let (number, known) = match writer.sites.iter().find(|(_, known)| known.name == site) {
            Some((number, known)) => (*number, Some(known.clone())),
            None => (free_number(&writer).ok_or(PageError::TooManySites)?, None),
        };
        let expected = known.filter(|it| it.store == page.store).map_or(0, |it| it.place);
        if page.from != expected {
            return Ok(PageAnswer::Elsewhere { expected });
        }
        let next = page.next;
        let heard = now.as_second();
        let told = ChildSite { name: site.to_owned(), store: page.store, place: next, heard };
        let mut change = Change::default();
        change.record.at = heard;
        let has_facts = page.clients.iter().any(|told| told.facts.is_some());
        // While its facts are not on disk, the page is one that has to come again.
        let noted = if has_facts { expected } else { next };
        let noted = ChildSite { place: noted, ..told.clone() };
        SITES.put(&mut change.batch, &number, &noted);
        let mut facts = Vec::new();
        if !page.clients.is_empty() || !page.removed.is_empty() {
            let new = page.updates.iter();
            let new = new.filter(|it| self.states().matrix.find(**it).is_none()).count();
            if self.states().matrix.rows().len() + new > self.settings.max_updates {
                return Err(PageError::TooManyUpdates { site: site.to_owned() });
            }
            let all: Vec<_> = page.facts().collect();
            let placed = self.take_page(&writer, number, page, bytes, &mut change);
            let placed: HashMap<ClientId, Ordinal> = placed.into_iter().collect();
            let of = |(id, facts, packages)| Some((*placed.get(&id)?, facts, packages));
            facts.extend(all.into_iter().filter_map(of));
        }
        self.commit(&mut writer, change).map_err(StoreError::from)?;
        writer.sites.insert(number, noted);
        if has_facts {
            for (client, facts, packages) in facts {
                self.put_facts(client, facts, packages)?;
            }
            // All writes before a synced one are on disk with it.
            let mut batch = Batch::new();
            SITES.put(&mut batch, &number, &told);
            self.db().kv().write(batch).map_err(StoreError::from)?;
            writer.sites.insert(number, told);
        }
        Ok(PageAnswer::Accepted { next })
    }

    /// Adds what a page tells to a change; the clients that it tells of, but for those that have since reported
    /// elsewhere.
    fn take_page(
        &self,
        writer: &Writer,
        site: u16,
        page: Page,
        bytes: Vec<u8>,
        change: &mut Change,
    ) -> Vec<(ClientId, Ordinal)> {
        let states = self.states();
        let told: HashSet<ClientId> = page.clients.iter().map(|it| it.id).collect();
        // Who was removed and came back is told as it is now.
        for id in page.removed.iter().filter(|id| !told.contains(*id)) {
            if let Some((client, member)) = states.fleet.by_id(*id)
                && member.site == Some(site)
            {
                let place = writer.next + change.record.places();
                registry::remove(change, client, member.id, place);
            }
        }
        let mut new = states.fleet.next(page.clients.len()).into_iter();
        let mut clients = Vec::with_capacity(page.clients.len());
        for told in &page.clients {
            let found = states.fleet.by_id(told.id);
            let place = match found {
                Some((client, old)) if old.site == Some(site) => Some((client, Some(old))),
                Some((client, old)) => {
                    is_newer(&told.head, &states.head(client)).then_some((client, Some(old)))
                }
                None => new.next().map(|client| (client, None)),
            };
            clients.push(place.map(|(client, _)| client));
            let Some((client, old)) = place else { continue };
            registry::put_name(change, client, &told.name);
            change.members.insert(client, told.member(old, site));
        }
        let placed = page.clients.iter().zip(&clients);
        let placed = placed.filter_map(|(told, client)| Some((told.id, (*client)?))).collect();
        change.record.entries.push((Entry::Page { clients, page }, bytes));
        placed
    }

    /// The child sites that were heard.
    pub fn children(&self) -> Vec<Child> {
        let writer = self.writer();
        let states = self.states();
        let mut clients = BTreeMap::<u16, u64>::new();
        let members = states.fleet.all().iter().filter_map(|it| states.fleet.get(it));
        members.filter_map(|it| it.site).for_each(|site| *clients.entry(site).or_default() += 1);
        let shown = writer.sites.iter().map(|(number, site)| Child {
            name: site.name.clone(),
            heard: timestamp(site.heard),
            place: site.place,
            clients: clients.get(number).copied().unwrap_or(0),
        });
        shown.collect()
    }

    /// Where a child site has to go on.
    pub fn place_of(&self, site: &str) -> Place {
        let writer = self.writer();
        writer.sites.values().find(|it| it.name == site).map_or(0, |it| it.place)
    }
}

/// The clients that changed after `from`, in the order in which they did, at most [`MAX_CLIENTS`]; lowers
/// `next` if there are more.
fn changed_since(states: &States, from: Place, next: &mut Place) -> Vec<Ordinal> {
    let changed = states.fleet.all().iter().map(|client| (states.head(client).changed, client));
    let mut changed: Vec<_> = changed.filter(|(place, _)| *place > from).collect();
    if changed.len() > MAX_CLIENTS {
        changed.select_nth_unstable(MAX_CLIENTS - 1);
        changed.truncate(MAX_CLIENTS);
        let last = changed.iter().map(|(place, _)| *place).max();
        *next = last.map_or(*next, |last| last.min(*next));
    }
    changed.sort_unstable();
    changed.into_iter().map(|(_, client)| client).collect()
}

/// Whether what one site tells of a client came after what another has.
fn is_newer(theirs: &Head, ours: &Head) -> bool {
    if theirs.incarnation == ours.incarnation {
        theirs.next > ours.next
    } else {
        theirs.heard > ours.heard
    }
}

fn free_number(writer: &Writer) -> Option<u16> {
    (0..u16::MAX).find(|number| !writer.sites.contains_key(number))
}

impl Told {
    /// The client as a member, once it belongs to a child site.
    fn member(&self, old: Option<&Member>, site: u16) -> Member {
        let site = Some(site);
        match old {
            // Whoever is enrolled here too is judged here.
            Some(old) if old.key.is_some() => Member { site, ..old.clone() },
            _ => Member {
                id: self.id,
                key: None,
                standing: self.standing,
                site,
                enrolled: self.enrolled,
            },
        }
    }
}

/// What the fuzz target reads: the bytes after a good checksum.
#[doc(hidden)]
pub fn fuzz_page(mut bytes: Vec<u8>) {
    crate::message::wire::seal(&mut bytes);
    if let Ok(page) = Page::decode(&bytes)
        && let Ok(again) = page.encode()
    {
        assert_eq!(Page::decode(&again), Ok(page));
    }
}
