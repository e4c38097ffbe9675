//! Clients come, are approved or blocked, and go.

use super::{Client, Fingerprint, Fleet, Member, Standing};
use crate::forward::Gone;
use crate::head::{Head, Seconds};
use crate::inbox::Entry;
use crate::matrix::Ordinal;
use crate::message::ClientId;
use crate::site::{Change, Compliance, StoreError, timestamp};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Db, DbError, Order, Table, Value};
use std::collections::HashSet;

/// The longest name of a client, in bytes.
const MAX_NAME: usize = 255;
/// Clients that are enrolled in one commit.
const ENROL_STEP: usize = 1_000;

/// What people call a client.
#[derive(Serialize, Deserialize)]
struct Name {
    name: String,
}
impl Value for Name {}
const NAMES: Table<u32, Name> = Table::new("compliance-name");

/// A client that wants to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The id that it chose.
    pub id: ClientId,
    /// Its key.
    pub key: Fingerprint,
    /// What people call it; its host name. What is longer than 255 bytes is cut.
    pub name: String,
    /// Whether it may report at once.
    pub standing: Standing,
}

/// Why a client was not enrolled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// Another key is known under its id. If the machine was set up anew, remove the client first.
    #[error("client {0} is enrolled with another key; if it was set up anew, remove it first")]
    OtherKey(ClientId),
    /// Its key is known under another id.
    #[error("its key is that of client {0}")]
    KeyInUse(ClientId),
    /// Nobody may come back who was blocked.
    #[error("client {0} is blocked")]
    Blocked(ClientId),
    /// Every ordinal is taken.
    #[error("no more clients are taken")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Compliance {
    /// Makes a client known. Who is known already with this key stays as it is, but for the name, and for
    /// being approved if it was pending.
    ///
    /// # Errors
    /// If id or key belong to somebody else, it was blocked, or the database fails.
    pub fn enrol(&self, new: Enrolment, now: Timestamp) -> Result<Ordinal, EnrolError> {
        let mut enrolled = self.enrol_all(vec![new], now)?;
        enrolled.pop().expect("one answer for each")
    }

    /// Makes many clients known at once, as [`Compliance::enrol`] does each.
    ///
    /// # Errors
    /// If the database fails; some may have been enrolled.
    pub fn enrol_all(
        &self,
        new: Vec<Enrolment>,
        now: Timestamp,
    ) -> Result<Vec<Result<Ordinal, EnrolError>>, StoreError> {
        let mut writer = self.writer();
        let mut enrolled = Vec::with_capacity(new.len());
        let mut rest = new.into_iter().peekable();
        while rest.peek().is_some() {
            let mut change = Change::default();
            change.record.at = now.as_second();
            let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
            let mut free = self.states().fleet.next(ENROL_STEP).into_iter();
            // Each is judged by what is committed, so one that may conflict with another waits.
            while change.members.len() < ENROL_STEP
                && let Some(new) =
                    rest.next_if(|it| !ids.contains(&it.id) && !keys.contains(&it.key))
            {
                ids.insert(new.id);
                keys.insert(new.key);
                let judged = judge(&self.states().fleet, &new, now).and_then(|(client, member)| {
                    let client = client.or_else(|| free.next()).ok_or(EnrolError::TooMany)?;
                    put_name(&mut change, client, &new.name);
                    change.tell(Entry::Touched { client });
                    change.members.insert(client, member);
                    Ok(client)
                });
                enrolled.push(judged);
            }
            self.commit(&mut writer, change)?;
        }
        Ok(enrolled)
    }

    /// Approves, blocks, or makes wait; `false` if there is no such client.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_standing(
        &self,
        client: Ordinal,
        standing: Standing,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        let Some(old) = self.states().fleet.get(client).cloned() else { return Ok(false) };
        if old.standing != standing {
            let mut change = Change::default();
            change.record.at = now.as_second();
            change.tell(Entry::Touched { client });
            change.members.insert(client, Member { standing, ..old });
            self.commit(&mut writer, change)?;
        }
        Ok(true)
    }

    /// Forgets a client and all its states; `false` if there is no such client.
    ///
    /// # Errors
    /// If the database fails.
    pub fn remove(&self, client: Ordinal, now: Timestamp) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        let Some(member) = self.states().fleet.get(client).cloned() else { return Ok(false) };
        let mut change = Change::default();
        change.record.at = now.as_second();
        remove(&mut change, client, member.id, writer.next);
        self.commit(&mut writer, change)?;
        Ok(true)
    }

    /// A client by its ordinal.
    ///
    /// # Errors
    /// If the database fails.
    pub fn client(&self, client: Ordinal) -> Result<Option<Client>, StoreError> {
        let Some((member, head)) = ({
            let states = self.states();
            let mut head = states.head(client);
            head.heard = self.contacts.heard(client, &head);
            states.fleet.get(client).cloned().map(|member| (member, head))
        }) else {
            return Ok(None);
        };
        let site = match member.site {
            Some(number) => self.writer().sites.get(&number).map(|site| site.name.clone()),
            None => None,
        };
        Ok(Some(shown(client, member, head, name(self, client)?, site)))
    }

    /// Which client has an id.
    pub fn find(&self, id: ClientId) -> Option<Ordinal> {
        self.states().fleet.by_id(id).map(|(client, _)| client)
    }

    /// The id of a client.
    pub fn id(&self, client: Ordinal) -> Option<ClientId> {
        self.states().fleet.get(client).map(|member| member.id)
    }

    /// Which client has an id, the key that it is known by, and whether it may report. It reads no database,
    /// so every request may ask.
    pub fn standing(&self, id: ClientId) -> Option<(Ordinal, Option<Fingerprint>, Standing)> {
        let states = self.states();
        states.fleet.by_id(id).map(|(client, member)| (client, member.key, member.standing))
    }

    /// At most `limit` clients in the order of their ordinals, beginning after `after`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn clients(&self, after: Option<Ordinal>, limit: usize) -> Result<Vec<Client>, StoreError> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let clients: Vec<_> = self.states().fleet.all().range(from..).take(limit).collect();
        let shown = clients.into_iter().map(|client| self.client(client));
        shown.filter_map(Result::transpose).collect()
    }

    /// The ordinals of all clients that were not removed, whatever their standing.
    pub fn fleet(&self) -> roaring::RoaringBitmap {
        self.states().fleet.all().clone()
    }

    /// Clients whose identity two machines share, with how often they took turns.
    pub fn cloned(&self) -> Vec<(ClientId, u16)> {
        let states = self.states();
        let shared = |client: &Ordinal| states.head(*client).returns > 0;
        let of = |client| Some((states.fleet.get(client)?.id, states.head(client).returns));
        states.fleet.all().iter().filter(shared).filter_map(of).collect()
    }
}

/// Which client it is, if it is known, and as what it is kept.
fn judge(
    fleet: &Fleet,
    new: &Enrolment,
    now: Timestamp,
) -> Result<(Option<Ordinal>, Member), EnrolError> {
    let Enrolment { id, key, standing, .. } = *new;
    if let Some((_, owner)) = fleet.by_key(&key).filter(|(_, owner)| owner.id != id) {
        return Err(EnrolError::KeyInUse(owner.id));
    }
    match fleet.by_id(id) {
        Some((_, old)) if old.standing == Standing::Blocked => Err(EnrolError::Blocked(id)),
        Some((_, old)) if old.key.is_some_and(|old| old != key) => Err(EnrolError::OtherKey(id)),
        Some((client, old)) => {
            let is_new = old.key.is_none() || old.standing == Standing::Pending;
            let standing = if is_new { standing } else { old.standing };
            Ok((Some(client), Member { key: Some(key), standing, ..old.clone() }))
        }
        None => {
            let (key, enrolled) = (Some(key), now.as_second());
            Ok((None, Member { id, key, standing, site: None, enrolled }))
        }
    }
}

fn shown(
    ordinal: Ordinal,
    member: Member,
    head: Head,
    name: String,
    site: Option<String>,
) -> Client {
    Client {
        ordinal,
        id: member.id,
        key: member.key,
        name,
        standing: member.standing,
        site,
        enrolled: timestamp(member.enrolled),
        heard: head.heard.map(timestamp),
        incarnation: head.incarnation,
        returns: head.returns,
        clock_ahead: head.clock_ahead,
        scanned: head.scanned.map(|at: Seconds| (timestamp(at), head.failed)),
        known: head.known,
        resync: head.resync(),
    }
}

/// Adds what removes a client, at the place `place` in the order of entries.
pub(crate) fn remove(change: &mut Change, client: Ordinal, id: ClientId, place: u64) {
    change.tell(Entry::Removed { client });
    change.batch.delete(Member::key(client));
    NAMES.delete(&mut change.batch, &client);
    Compliance::forget_facts(&mut change.batch, client);
    Gone::put(&mut change.batch, place, id);
}

pub(crate) fn put_name(change: &mut Change, client: Ordinal, name: &str) {
    let name = name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or_default().to_owned();
    let name = Name { name };
    NAMES.put(&mut change.batch, &client, &name);
    change.names.push((client, name.name));
}

/// Calls `each` with every client's name.
pub(crate) fn each_name(db: &Db, mut each: impl FnMut(Ordinal, String)) -> Result<(), DbError> {
    const PAGE: usize = 1_000;
    let mut after = None;
    loop {
        let page = NAMES.scan(db, Order::Ascending, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        page.into_iter().for_each(|(client, name)| each(client, name.name));
    }
}

pub(crate) fn name(site: &Compliance, client: Ordinal) -> Result<String, DbError> {
    Ok(NAMES.get(site.db(), &client)?.map(|it| it.name).unwrap_or_default())
}
