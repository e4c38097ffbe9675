//! Boundaries: which addresses belong to which boundary groups.
//!
//! They may lie in each other and across each other: [`crate::locate`] says which counts. What a new
//! one overlaps is told, because one that somebody forgot sends clients to the wrong place.

use super::{BoundaryGroupName, Registry, RegistryError};
use crate::locate::{AddressRange, Areas, Atlas, Boundary, Overlap};
use jiff::Timestamp;
use sitedb::{Batch, Table};
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The most boundaries of a site.
const MOST_BOUNDARIES: usize = 100_000;
/// How many overlaps are told one by one.
const TOLD_OVERLAPS: usize = 20;

/// Boundaries by their range, as text.
pub(super) const BOUNDARIES: Table<String, Boundary> = Table::new("boundaries");

/// The boundaries that a range shares addresses with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// The first of them, and how the range lies to each.
    pub told: Vec<(Boundary, Overlap)>,
    /// How many there are.
    pub n: usize,
}

impl Registry {
    /// At most `limit` boundaries after `after`, in the order of their addresses; all, or those of a
    /// group.
    pub fn boundaries(
        &self,
        of: Option<&BoundaryGroupName>,
        after: Option<&AddressRange>,
        limit: usize,
    ) -> Vec<Boundary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let areas = self.areas();
        let beyond = areas.boundaries.range((from, Bound::Unbounded));
        let is_of = |boundary: &&Boundary| of.is_none_or(|name| boundary.groups.contains(name));
        beyond.map(|(_, boundary)| boundary).filter(is_of).take(limit).cloned().collect()
    }

    /// How many boundaries are in each group; one that has none is left out.
    pub fn boundary_counts(&self) -> HashMap<BoundaryGroupName, usize> {
        let mut counts = HashMap::new();
        for boundary in self.areas().boundaries.values() {
            for group in &boundary.groups {
                *counts.entry(group.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// The boundary of exactly these addresses.
    pub fn boundary(&self, range: &AddressRange) -> Result<Boundary, RegistryError> {
        let areas = self.areas();
        let found = areas.boundaries.get(range).cloned();
        found.ok_or(RegistryError::UnknownBoundary(*range))
    }

    /// The boundaries that `range` shares addresses with, itself left out.
    pub fn overlaps(&self, range: &AddressRange) -> Overlaps {
        let mut overlaps = Overlaps::default();
        for (other, boundary) in &self.areas().boundaries {
            let Some(overlap) = range.overlap(other) else { continue };
            overlaps.n += 1;
            if overlaps.told.len() < TOLD_OVERLAPS {
                overlaps.told.push((boundary.clone(), overlap));
            }
        }
        overlaps
    }

    /// Makes a boundary in `groups`, of which there is at least one.
    pub fn create_boundary(
        &self,
        range: AddressRange,
        groups: BTreeSet<BoundaryGroupName>,
        by: &str,
        now: Timestamp,
    ) -> Result<Boundary, RegistryError> {
        let changing = self.change();
        let areas = self.areas();
        if let Some(there) = areas.boundaries.get(&range) {
            let groups = there.groups.iter().cloned().collect();
            return Err(RegistryError::BoundaryExists { range, groups });
        }
        if areas.boundaries.len() >= MOST_BOUNDARIES {
            let (what, most) = ("boundaries", MOST_BOUNDARIES);
            return Err(RegistryError::TooMany { what, most });
        }
        check_groups(&areas, &groups)?;
        drop(areas);
        let boundary = Boundary { range, groups, created: now, created_by: by.into() };
        self.put_boundary(&changing, boundary)
    }

    /// Puts a boundary into these groups, of which there is at least one, and into no others.
    pub fn change_boundary(
        &self,
        range: &AddressRange,
        groups: BTreeSet<BoundaryGroupName>,
    ) -> Result<Boundary, RegistryError> {
        let changing = self.change();
        let mut boundary = self.boundary(range)?;
        check_groups(&self.areas(), &groups)?;
        if boundary.groups == groups {
            return Ok(boundary);
        }
        boundary.groups = groups;
        self.put_boundary(&changing, boundary)
    }

    /// Removes a boundary.
    pub fn delete_boundary(&self, range: &AddressRange) -> Result<Boundary, RegistryError> {
        let changing = self.change();
        let boundary = self.boundary(range)?;
        let mut batch = Batch::new();
        BOUNDARIES.delete(&mut batch, &range.to_string());
        self.apply_to_areas(&changing, batch, |areas| drop(areas.boundaries.remove(range)))?;
        Ok(boundary)
    }

    fn put_boundary(
        &self,
        changing: &parking_lot::MutexGuard<'_, ()>,
        boundary: Boundary,
    ) -> Result<Boundary, RegistryError> {
        let mut batch = Batch::new();
        BOUNDARIES.put(&mut batch, &boundary.range.to_string(), &boundary);
        self.apply_to_areas(changing, batch, |areas| {
            areas.boundaries.insert(boundary.range, boundary.clone());
        })?;
        Ok(boundary)
    }

    /// What people set about places, as it is now.
    pub fn areas(&self) -> Arc<Areas> {
        self.state.read().areas.clone()
    }

    /// The boundaries, to be asked for an address. Made anew only when one changed.
    pub(super) fn atlas(&self) -> Arc<Atlas> {
        let mut atlas = self.atlas.lock();
        if let Some(atlas) = &*atlas {
            return atlas.clone();
        }
        let made = Arc::new(self.areas().boundaries.keys().copied().collect::<Atlas>());
        *atlas = Some(made.clone());
        made
    }

    /// Writes `batch`, then makes the same change in memory. No wish follows from it, so nobody who
    /// waits is told.
    pub(super) fn apply_to_areas<T>(
        &self,
        _changing: &parking_lot::MutexGuard<'_, ()>,
        batch: Batch,
        change: impl FnOnce(&mut Areas) -> T,
    ) -> Result<T, RegistryError> {
        self.db.kv().write(batch)?;
        let done = change(Arc::make_mut(&mut self.state.write().areas));
        *self.atlas.lock() = None;
        Ok(done)
    }
}

fn check_groups(areas: &Areas, groups: &BTreeSet<BoundaryGroupName>) -> Result<(), RegistryError> {
    if groups.is_empty() {
        return Err(RegistryError::NoGroup);
    }
    match groups.iter().find(|name| !areas.groups.contains_key(*name)) {
        Some(unknown) => Err(RegistryError::UnknownBoundaryGroup(unknown.to_string())),
        None => Ok(()),
    }
}
