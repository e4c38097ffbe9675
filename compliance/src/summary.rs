//! Summaries: on how many clients an update has which state, for any collection.
//!
//! A summary is arithmetic on bitmaps, and reads nothing from disk. The states are locked for some updates
//! at a time, so that batches need not wait for a long one; the counts of one update always add up.

use crate::matrix::{Ordinal, Plane, Row};
use crate::message::{ClientId, State, UpdateRevision};
use crate::site::Compliance;
use crate::state::States;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync::catalogue::RequiredCounts;
use sync::name::UpdateId;

/// Updates that are counted before batches get their turn.
const STEP: usize = 32;
/// From so many updates on, a summary that has to look into bitmaps is shared out between two threads.
const WORTH_SHARING: usize = 64;

/// On how many clients an update has which state. The sum is the size of the collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Required.
    pub required: u64,
    /// Not required.
    pub not_required: u64,
    /// Installed.
    pub installed: u64,
    /// Unknown.
    pub unknown: u64,
}

/// How many clients have all of a group of updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// Each update is installed or not required.
    pub compliant: u64,
    /// One at least is required.
    pub non_compliant: u64,
    /// None is known to be required, but one at least is unknown.
    pub unknown: u64,
}

/// A collection as summaries use it.
pub(crate) struct Scope {
    /// Its clients, without those that were removed.
    pub clients: RoaringBitmap,
    /// Those of them whose states count: not the doubtful ones.
    trusted: Option<RoaringBitmap>,
}

impl Scope {
    /// `collection`, or the whole fleet.
    pub(crate) fn new(states: &States, collection: Option<&RoaringBitmap>) -> Self {
        let all = states.fleet.all();
        let clients = collection.map_or_else(|| all.clone(), |collection| collection & all);
        // Whoever is in no collection and not doubtful counts by the bitmaps' own sizes.
        let is_plain = collection.is_none() && states.doubtful.is_empty();
        let trusted = (!is_plain).then(|| &clients - &states.doubtful);
        Self { clients, trusted }
    }

    fn count(&self, bitmap: &RoaringBitmap) -> u64 {
        self.trusted.as_ref().map_or_else(|| bitmap.len(), |it| it.intersection_len(bitmap))
    }

    fn counts<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Counts {
        let mut counts = Counts::default();
        let mut known = 0;
        // A client has a state in one revision at most, so the rows of an update add up.
        for row in rows {
            known += self.count(row.plane(Plane::Known));
            counts.required += self.count(row.plane(Plane::Required));
            counts.installed += self.count(row.plane(Plane::Installed));
        }
        counts.not_required = known - counts.required - counts.installed;
        // Clients may have come while a long summary was made.
        counts.unknown = self.clients.len().saturating_sub(known);
        counts
    }

    fn only(&self, mut bitmap: RoaringBitmap) -> RoaringBitmap {
        if let Some(trusted) = &self.trusted {
            bitmap &= trusted;
        }
        bitmap
    }

    /// Its clients on which an update has a state.
    pub(crate) fn having(&self, states: &States, update: UpdateId, state: State) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        for row in states.matrix.of(update) {
            let known = row.plane(Plane::Known);
            match state {
                State::Required => found |= row.plane(Plane::Required),
                State::Installed => found |= row.plane(Plane::Installed),
                State::NotRequired => {
                    found |= known - row.plane(Plane::Required) - row.plane(Plane::Installed);
                }
                State::Unknown => found |= known,
            }
        }
        let found = self.only(found);
        if state == State::Unknown { &self.clients - found } else { found }
    }
}

impl Compliance {
    /// The counts of each of `updates`, for a collection or, if none is told, the whole fleet.
    pub fn summary(&self, updates: &[UpdateId], collection: Option<&RoaringBitmap>) -> Vec<Counts> {
        let scope = Scope::new(&self.states(), collection);
        if scope.trusted.is_none() || updates.len() < WORTH_SHARING {
            return self.summary_of(updates, &scope);
        }
        let (one, two) = updates.split_at(updates.len() / 2);
        std::thread::scope(|threads| {
            let one = threads.spawn(|| self.summary_of(one, &scope));
            let two = self.summary_of(two, &scope);
            let mut counts = one.join().expect("counting does not panic");
            counts.extend(two);
            counts
        })
    }

    fn summary_of(&self, updates: &[UpdateId], scope: &Scope) -> Vec<Counts> {
        let mut counts = Vec::with_capacity(updates.len());
        for updates in updates.chunks(STEP) {
            let states = self.states();
            counts.extend(updates.iter().map(|update| scope.counts(states.matrix.of(*update))));
        }
        counts
    }

    /// The counts of every update that a client ever reported on, for a collection or the whole fleet.
    pub fn summary_of_all(&self, collection: Option<&RoaringBitmap>) -> BTreeMap<UpdateId, Counts> {
        let updates: Vec<_> = self.states().matrix.updates().collect();
        let counts = self.summary(&updates, collection);
        updates.into_iter().zip(counts).collect()
    }

    /// The counts by revision of an update, for who wants to know how many still report on an old one.
    pub fn revisions(&self, update: UpdateId) -> BTreeMap<u32, Counts> {
        let states = self.states();
        let scope = Scope::new(&states, None);
        let rows = states.matrix.of(update);
        let counts = rows.map(|row| (row.update.revision, scope.counts([row].into_iter())));
        counts.filter(|(_, it)| it.required + it.not_required + it.installed > 0).collect()
    }

    /// How many clients of a collection have all of a group of updates.
    pub fn group(&self, updates: &[UpdateId], collection: Option<&RoaringBitmap>) -> GroupCounts {
        let states = self.states();
        let scope = Scope::new(&states, collection);
        let mut required = RoaringBitmap::new();
        let mut unknown = RoaringBitmap::new();
        for update in updates {
            required |= scope.having(&states, *update, State::Required);
            unknown |= scope.having(&states, *update, State::Unknown);
        }
        let non_compliant = required.len();
        let unknown = (unknown - required).len();
        GroupCounts {
            compliant: scope.clients.len() - non_compliant - unknown,
            non_compliant,
            unknown,
        }
    }

    /// At most `limit` clients of a collection on which an update has a state, in the order of their
    /// ordinals, beginning after `after`.
    pub fn devices(
        &self,
        update: UpdateId,
        state: State,
        collection: Option<&RoaringBitmap>,
        (after, limit): (Option<Ordinal>, usize),
    ) -> Vec<(Ordinal, ClientId)> {
        let states = self.states();
        let found = Scope::new(&states, collection).having(&states, update, state);
        let from = after.map_or(Some(0), |after| after.checked_add(1));
        let Some(from) = from else { return Vec::new() };
        let id = |client| Some((client, states.fleet.get(client)?.id));
        found.range(from..).filter_map(id).take(limit).collect()
    }

    /// All clients of a collection on which an update has a state: a collection of its own.
    pub fn having(
        &self,
        update: UpdateId,
        state: State,
        collection: Option<&RoaringBitmap>,
    ) -> RoaringBitmap {
        let states = self.states();
        Scope::new(&states, collection).having(&states, update, state)
    }

    /// Every update that has a state on a client. What is doubtful about a client is told by
    /// [`Compliance::unknown`].
    pub fn states_of(&self, client: Ordinal) -> Vec<(UpdateRevision, State)> {
        let states = self.states();
        let rows = states.matrix.rows().iter().map(|row| (row.update, row.state(client)));
        rows.filter(|(_, state)| *state != State::Unknown).collect()
    }
}

/// On how many clients of a collection, or of the whole fleet, updates are required.
#[derive(Clone, Copy)]
pub struct RequiredIn<'a> {
    /// Who knows.
    pub site: &'a Compliance,
    /// The collection; none for the whole fleet.
    pub collection: Option<&'a RoaringBitmap>,
}

impl RequiredCounts for RequiredIn<'_> {
    fn of(&self, update: UpdateId) -> u64 {
        let counts = self.site.summary(&[update], self.collection);
        counts.first().map_or(0, |counts| counts.required)
    }

    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        for (update, counts) in self.site.summary_of_all(self.collection) {
            if counts.required > 0 {
                each(update, counts.required);
            }
        }
    }
}

impl RequiredCounts for Compliance {
    fn of(&self, update: UpdateId) -> u64 {
        RequiredIn { site: self, collection: None }.of(update)
    }

    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        RequiredIn { site: self, collection: None }.each(each);
    }
}
